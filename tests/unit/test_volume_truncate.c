// SPDX-License-Identifier: Apache-2.0
// Truncation of append-only files as a job, leases on chunks, and checkpoints that are cancelled.
#include "volume_world.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "checkpoint/lease_map.h"
#include "format/records.h"
#include "platform/clock.h"
#include "platform/memory.h"
#include "platform/thread.h"
#include "volume/volume_internal.h"

#define MIB (1u << 20)

static void
set_variant(struct volume *v, struct object_id object, uint8_t variant)
{
    struct volume_attributes a;
    struct volume_set_attributes change = {.set = VOLUME_SET_VARIANT, .source_variant = variant};
    ck_assert_int_eq(volume_set_attributes(v, object, &change, &a), 0);
}

static struct object_id
make_log(struct volume *v, const char *name, uint64_t bytes)
{
    struct object_id object = volume_world_make_file(v, name);
    set_variant(v, object, SOURCE_VARIANT_APPEND_ONLY);
    for (uint64_t at = 0; at < bytes; at += MIB)
        volume_world_fill(v, object, at, bytes - at < MIB ? bytes - at : MIB, 7);
    return object;
}

static uint64_t
size_of(struct volume *v, struct object_id object)
{
    struct volume_attributes a;
    ck_assert_int_eq(volume_get_attributes(v, object, &a), 0);
    return a.inode.size;
}

static struct job_record
await_job(struct volume *v, uint64_t id)
{
    struct job_record job;
    do {
        ck_assert_int_eq(volume_job_look(v, id, false, &job), 0);
        clock_sleep_ms(5);
    } while (job.state == JOB_PENDING || job.state == JOB_IN_FLIGHT);
    return job;
}

static struct job_record
truncate_now(struct volume *v, struct object_id object, bool tail, uint64_t offset)
{
    uint64_t id;
    ck_assert_int_eq(volume_truncate(v, object, tail, offset, &id), 0);
    return await_job(v, id);
}

static void
expect_zeros(struct volume *v, struct object_id object, uint64_t offset, size_t n)
{
    CLEANUP(memory_free_auto) uint8_t *bytes = memory_alloc(n);
    ck_assert_int_eq(volume_read(v, object, offset, n, bytes, NULL), (int64_t)n);
    for (size_t i = 0; i < n; i++)
        ck_assert_uint_eq(bytes[i], 0);
}

struct chunks {
    unsigned count;
};

static int
count_chunk(void *argument, struct chunk_index index UNUSED, struct chunk_id id UNUSED,
    uint32_t present_pages UNUSED)
{
    ((struct chunks *)argument)->count++;
    return 0;
}

static unsigned
chunks_of(struct volume *v, struct object_id object)
{
    struct manifest_reader *r;
    struct chunks chunks = {0};
    ck_assert_int_eq(manifest_read_begin(v->manifest, &r), 0);
    ck_assert_int_eq(manifest_read_object_chunks(
                         r, v->db, object, (struct chunk_index){0}, count_chunk, &chunks),
        0);
    manifest_read_end(r);
    return chunks.count;
}

static int
find_note(void *argument, const struct manifest_change_record *record)
{
    struct manifest_change_record *found = argument;
    if (record->note.kind != MANIFEST_NOTE_NONE)
        *found = *record;
    return 0;
}

// The last record of the change log that has a note.
static struct manifest_change_record
last_note(struct volume *v)
{
    struct manifest_reader *r;
    struct manifest_change_record found = {0};
    ck_assert_int_eq(manifest_read_begin(v->manifest, &r), 0);
    ck_assert_int_eq(manifest_read_change_log(r, 0, find_note, &found), 0);
    manifest_read_end(r);
    return found;
}

START_TEST(the_head_becomes_a_hole_and_the_tail_goes)
{
    struct volume_world w;
    volume_world_new(&w);
    volume_world_open(&w);
    struct object_id log = make_log(w.v, "log", 2 * CHUNK_BYTES + 5000);
    volume_world_publish(w.v);
    ck_assert_uint_eq(chunks_of(w.v, log), 3);
    struct job_record job = truncate_now(w.v, log, false, CHUNK_BYTES);
    ck_assert_int_eq(job.state, JOB_COMPLETED);
    ck_assert_uint_eq(size_of(w.v, log), 2 * CHUNK_BYTES + 5000);
    expect_zeros(w.v, log, CHUNK_BYTES - 10000, 10000);
    volume_world_expect(w.v, log, CHUNK_BYTES, MIB, 7);
    ck_assert_int_eq(volume_seek(w.v, log, 0, 3 /* SEEK_DATA */, NULL), CHUNK_BYTES);
    ck_assert_uint_eq(chunks_of(w.v, log), 2);
    struct manifest_change_record record = last_note(w.v);
    ck_assert_int_eq(record.note.kind, MANIFEST_NOTE_TRUNCATE);
    ck_assert_uint_eq(record.note.job, job.id);
    ck_assert_uint_eq(record.note.object.v, log.v);
    ck_assert_uint_eq(record.note.window_begin, CHUNK_BYTES);
    ck_assert_uint_eq(record.note.window_end, 2 * CHUNK_BYTES + 5000);
    ck_assert_uint_eq(record.chunks, 1);
    // The tail, at any byte.
    job = truncate_now(w.v, log, true, CHUNK_BYTES + 1234);
    ck_assert_int_eq(job.state, JOB_COMPLETED);
    ck_assert_uint_eq(size_of(w.v, log), CHUNK_BYTES + 1234);
    volume_world_expect(w.v, log, CHUNK_BYTES, 1234, 7);
    ck_assert_uint_eq(chunks_of(w.v, log), 1);
    record = last_note(w.v);
    ck_assert_uint_eq(record.note.window_begin, 0);
    ck_assert_uint_eq(record.note.window_end, CHUNK_BYTES + 1234);
    // What is done is done again without harm, and the volume comes back from the store.
    ck_assert_int_eq(truncate_now(w.v, log, true, CHUNK_BYTES + 1234).state, JOB_COMPLETED);
    volume_world_publish(w.v);
    volume_world_close(&w);
    volume_world_lose_root(&w);
    volume_world_open(&w);
    ck_assert_uint_eq(size_of(w.v, log), CHUNK_BYTES + 1234);
    expect_zeros(w.v, log, 0, MIB);
    volume_world_expect(w.v, log, CHUNK_BYTES, 1234, 7);
    ck_assert_int_eq(volume_world_try_close(&w), 0);
    volume_world_check(&w);
    volume_world_free(&w);
}
END_TEST

START_TEST(orders_that_cannot_be_carried_out_are_refused)
{
    struct volume_world w;
    uint64_t id;
    volume_world_new(&w);
    volume_world_open(&w);
    struct object_id plain = volume_world_make_file(w.v, "plain");
    volume_world_fill(w.v, plain, 0, MIB, 1);
    ck_assert_int_eq(volume_truncate(w.v, plain, true, 0, &id), -EMEDIUMTYPE);
    struct object_id log = make_log(w.v, "log", MIB);
    ck_assert_int_eq(volume_truncate(w.v, log, true, MIB + 1, &id), -EINVAL);
    ck_assert_int_eq(volume_truncate(w.v, log, false, 4096, &id), -EINVAL);
    ck_assert_int_eq(volume_truncate(w.v, OBJECT_ROOT_DIRECTORY, true, 0, &id), -EINVAL);
    ck_assert_int_eq(volume_truncate(w.v, (struct object_id){999}, true, 0, &id), -ENOENT);
    ck_assert_int_eq(volume_set_flags(w.v, 0), 0);
    ck_assert_int_eq(volume_truncate(w.v, log, true, 0, &id), -EOPNOTSUPP);
    // Also after the next mount.
    volume_world_close(&w);
    volume_world_open(&w);
    unsigned flags;
    ck_assert_int_eq(volume_get_flags(w.v, &flags), 0);
    ck_assert_uint_eq(flags, 0);
    ck_assert_int_eq(volume_truncate(w.v, log, true, 0, &id), -EOPNOTSUPP);
    ck_assert_int_eq(volume_set_flags(w.v, DB_FLAGS_ALL), 0);
    ck_assert_int_eq(volume_set_flags(w.v, ~0u), -EINVAL);
    ck_assert_int_eq(truncate_now(w.v, log, true, 0).state, JOB_COMPLETED);
    ck_assert_uint_eq(size_of(w.v, log), 0);
    ck_assert_int_eq(volume_world_try_close(&w), 0);
    volume_world_free(&w);
}
END_TEST

START_TEST(what_is_made_in_a_directory_inherits_its_variant)
{
    struct volume_world w;
    volume_world_new(&w);
    volume_world_open(&w);
    struct volume_caller caller = {0};
    struct volume_attributes d, a;
    ck_assert_int_eq(
        volume_make(w.v, OBJECT_ROOT_DIRECTORY, "d", S_IFDIR | 0755, 0, NULL, &caller, &d), 0);
    set_variant(w.v, d.object, SOURCE_VARIANT_APPEND_ONLY);
    ck_assert_int_eq(volume_make(w.v, d.object, "f", S_IFREG | 0644, 0, NULL, &caller, &a), 0);
    volume_world_publish(w.v);
    volume_world_close(&w);
    volume_world_lose_root(&w);
    volume_world_open(&w);
    ck_assert_int_eq(volume_get_attributes(w.v, a.object, &a), 0);
    ck_assert_uint_eq(a.inode.source_variant, SOURCE_VARIANT_APPEND_ONLY);
    struct volume_set_attributes bad = {.set = VOLUME_SET_VARIANT, .source_variant = 9};
    ck_assert_int_eq(volume_set_attributes(w.v, a.object, &bad, &a), -EINVAL);
    ck_assert_int_eq(volume_world_try_close(&w), 0);
    volume_world_free(&w);
}
END_TEST

// ---- checkpoints in flight ----------------------------------------------------------------------

struct waiting {
    struct volume *v;
    atomic_int result;
    atomic_bool done;
};

static void
publish_in_thread(void *argument)
{
    struct waiting *x = argument;
    struct generation generation;
    atomic_store(&x->result, volume_world_checkpoint(x->v, VOLUME_CHECKPOINT_PUBLISH, &generation));
    atomic_store(&x->done, true);
}

static void
await_upload(struct volume *v)
{
    struct volume_status s;
    do {
        clock_sleep_ms(5);
        volume_status(v, &s);
    } while (s.publish_stage != CHECKPOINT_STAGE_UPLOADING);
}

START_TEST(a_cancelled_publication_tells_who_asked_and_the_next_one_takes_all)
{
    struct volume_world w;
    volume_world_new(&w);
    volume_world_script_faults(&w);
    volume_world_open(&w);
    struct object_id log = make_log(w.v, "log", 8 * MIB);
    volume_world_set_faults(&w, "outage\n"); // uploads take long
    struct waiting x = {.v = w.v};
    struct thread t;
    ck_assert_int_eq(thread_start(&t, "publish", publish_in_thread, &x), 0);
    await_upload(w.v);
    struct job_record job = {0};
    ck_assert_int_eq(volume_job_look(w.v, 0, true, &job), 0);
    ck_assert_int_eq(job.kind, JOB_CREATE_CHECKPOINT);
    ck_assert_int_eq(volume_job_cancel(w.v, job.id), 0);
    thread_join(&t);
    ck_assert_int_eq(atomic_load(&x.result), -ECANCELED);
    struct manifest_change_record record = last_note(w.v);
    ck_assert_int_eq(record.note.kind, MANIFEST_NOTE_CANCEL_CHECKPOINT);
    ck_assert_int_eq(record.note.reason, CANCEL_USER_REQUESTED);
    volume_world_set_faults(&w, "");
    volume_world_publish(w.v);
    ck_assert_int_eq(checkpoint_cancel(w.v->checkpoint, CANCEL_USER_REQUESTED), -EALREADY);
    volume_world_close(&w);
    volume_world_lose_root(&w);
    volume_world_open(&w);
    volume_world_expect(w.v, log, 0, MIB, 7);
    ck_assert_int_eq(volume_world_try_close(&w), 0);
    volume_world_check(&w);
    volume_world_free(&w);
}
END_TEST

START_TEST(a_truncation_cancels_the_checkpoint_that_does_not_let_go)
{
    struct volume_world w;
    volume_world_new(&w);
    volume_world_script_faults(&w);
    volume_world_open(&w);
    w.v->lease_wait_ms = 100;
    struct object_id log = make_log(w.v, "log", 8 * MIB);
    volume_world_fold(w.v);
    volume_world_set_faults(&w, "outage\n");
    struct waiting x = {.v = w.v};
    struct thread t;
    ck_assert_int_eq(thread_start(&t, "publish", publish_in_thread, &x), 0);
    await_upload(w.v);
    ck_assert_int_eq(truncate_now(w.v, log, true, MIB).state, JOB_COMPLETED);
    ck_assert_uint_eq(size_of(w.v, log), MIB);
    ck_assert(!atomic_load(&x.done));
    // Who waited is served by the publication that follows.
    volume_world_set_faults(&w, "");
    thread_join(&t);
    ck_assert_int_eq(atomic_load(&x.result), 0);
    volume_world_publish(w.v);
    volume_world_close(&w);
    volume_world_lose_root(&w);
    volume_world_open(&w);
    ck_assert_uint_eq(size_of(w.v, log), MIB);
    volume_world_expect(w.v, log, 0, MIB, 7);
    ck_assert_int_eq(volume_world_try_close(&w), 0);
    volume_world_check(&w);
    volume_world_free(&w);
}
END_TEST

static void
fold_in_thread(void *argument)
{
    struct waiting *x = argument;
    struct generation generation;
    atomic_store(&x->result, volume_world_checkpoint(x->v, 0, &generation));
    atomic_store(&x->done, true);
}

START_TEST(a_cancelled_fold_leaves_nothing_and_loses_nothing)
{
    struct volume_world w;
    volume_world_new(&w);
    volume_world_open(&w);
    struct object_id file = volume_world_make_file(w.v, "f");
    bool canceled = false;
    uint64_t seed = 0;
    for (unsigned tries = 0; !canceled && tries < 200; tries++) {
        struct waiting x = {.v = w.v};
        struct thread t;
        seed++;
        for (unsigned i = 0; i < 8; i++)
            volume_world_fill(w.v, file, i * CHUNK_BYTES, 256 * 1024, seed);
        ck_assert_int_eq(thread_start(&t, "fold", fold_in_thread, &x), 0);
        while (!canceled && !atomic_load(&x.done))
            canceled = checkpoint_cancel(w.v->checkpoint, CANCEL_USER_REQUESTED) == 0;
        thread_join(&t);
        // Cancelled before it planned, or while it published: not this time.
        canceled = canceled && atomic_load(&x.result) == -ECANCELED;
    }
    ck_assert(canceled);
    struct manifest_change_record record = last_note(w.v);
    ck_assert_int_eq(record.note.kind, MANIFEST_NOTE_CANCEL_CHECKPOINT);
    ck_assert_int_eq(record.note.reason, CANCEL_USER_REQUESTED);
    struct job_record job;
    ck_assert_int_eq(volume_job_look(w.v, record.note.job, false, &job), 0);
    ck_assert_int_eq(job.state, JOB_FAILED);
    ck_assert_str_eq(job.cause, "UserRequested");
    volume_world_publish(w.v);
    volume_world_close(&w);
    volume_world_lose_root(&w);
    volume_world_open(&w);
    for (unsigned i = 0; i < 8; i++)
        volume_world_expect(w.v, file, i * CHUNK_BYTES, 256 * 1024, seed);
    ck_assert_int_eq(volume_world_try_close(&w), 0);
    volume_world_check(&w);
    volume_world_free(&w);
}
END_TEST

// ---- deaths -------------------------------------------------------------------------------------

struct mortal {
    struct volume *v;
    bool removes; // before it dies
};

static int
truncate_and_die(void *argument, struct object_id object, bool tail, uint64_t offset)
{
    struct mortal *m = argument;
    struct volume_attributes a;
    struct volume_set_attributes cut = {.set = VOLUME_SET_SIZE, .size = offset};
    ck_assert(tail);
    if (m->removes) {
        ck_assert_int_eq(volume_set_attributes(m->v, object, &cut, &a), 0);
        ck_assert_int_eq(volume_world_sync(m->v), 0);
    }
    raise(SIGKILL);
    return -EIO;
}

// Another process truncates the log and dies: in the middle of it, or right behind it.
static void
die_truncating(struct volume_world *w, bool removes)
{
    fflush(stdout);
    pid_t pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        BUFFER_AUTO error = {0};
        struct mortal m = {.removes = removes};
        struct volume_host host = {.argument = &m, .truncate = truncate_and_die};
        uint64_t id;
        if (volume_open(&w->config, &host, &m.v, &error) < 0)
            _exit(1);
        if (volume_truncate(m.v, volume_world_find(m.v, "log"), true, MIB, &id) < 0)
            _exit(2);
        await_job(m.v, id);
        _exit(3);
    }
    int status;
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static struct job_record
only_truncation(struct volume *v)
{
    struct job_record job;
    for (uint64_t id = 0; volume_job_look(v, id, true, &job) == 0; id = job.id)
        if (job.kind == JOB_TRUNCATE_APPEND_ONLY)
            return await_job(v, job.id);
    ck_abort_msg("there is no such job");
}

static void
prepare_log(struct volume_world *w)
{
    volume_world_new(w);
    volume_world_open(w);
    make_log(w->v, "log", 2 * MIB);
    ck_assert_int_eq(volume_world_sync(w->v), 0);
    volume_world_close(w);
}

START_TEST(a_death_in_the_middle_never_truncates_twice)
{
    struct volume_world w;
    prepare_log(&w);
    die_truncating(&w, false);
    volume_world_open(&w);
    struct object_id log = volume_world_find(w.v, "log");
    struct job_record job = only_truncation(w.v);
    ck_assert_int_eq(job.state, JOB_FAILED);
    ck_assert_int_eq(job.error, -ESTALE);
    ck_assert_uint_eq(size_of(w.v, log), 2 * MIB);
    volume_world_expect(w.v, log, MIB, MIB, 7);
    // Who asks again gets it.
    ck_assert_int_eq(truncate_now(w.v, log, true, MIB).state, JOB_COMPLETED);
    ck_assert_int_eq(volume_world_try_close(&w), 0);
    volume_world_free(&w);
}
END_TEST

START_TEST(a_death_behind_it_completes_the_job)
{
    struct volume_world w;
    prepare_log(&w);
    die_truncating(&w, true);
    volume_world_open(&w);
    struct object_id log = volume_world_find(w.v, "log");
    struct job_record job = only_truncation(w.v);
    ck_assert_int_eq(job.state, JOB_COMPLETED);
    ck_assert_uint_eq(size_of(w.v, log), MIB);
    volume_world_expect(w.v, log, 0, MIB, 7);
    ck_assert_int_eq(volume_world_try_close(&w), 0);
    volume_world_free(&w);
}
END_TEST

START_TEST(an_order_of_a_dead_process_spares_what_came_later)
{
    struct volume_world w;
    prepare_log(&w);
    volume_world_open(&w);
    struct object_id log = volume_world_find(w.v, "log");
    // Nothing was written meanwhile: the order stands.
    struct job_truncation order = {log, true, MIB, 2 * MIB, {{1}}};
    uint64_t id;
    ck_assert_int_eq(job_queue_submit(w.v->jobs, JOB_TRUNCATE_APPEND_ONLY, &order,
                         JOB_PRIORITY_URGENT, NULL, &id),
        0);
    ck_assert_int_eq(await_job(w.v, id).state, JOB_COMPLETED);
    ck_assert_uint_eq(size_of(w.v, log), MIB);
    // Here the file has grown before the job comes to it.
    order = (struct job_truncation){log, true, 0, MIB, {{1}}};
    volume_world_fill(w.v, log, MIB, 100, 9);
    ck_assert_int_eq(job_queue_submit(w.v->jobs, JOB_TRUNCATE_APPEND_ONLY, &order,
                         JOB_PRIORITY_URGENT, NULL, &id),
        0);
    struct job_record job = await_job(w.v, id);
    ck_assert_int_eq(job.state, JOB_FAILED);
    ck_assert_int_eq(job.error, -ESTALE);
    ck_assert_uint_eq(size_of(w.v, log), MIB + 100);
    ck_assert_int_eq(volume_world_try_close(&w), 0);
    volume_world_free(&w);
}
END_TEST

// ---- leases -------------------------------------------------------------------------------------

static bool
yes(void *argument UNUSED)
{
    return true;
}

START_TEST(leases_hold_up_their_own_chunks_only)
{
    struct lease_map *m = lease_map_new();
    const struct chunk_range ranges[] = {{{5}, 2, 4}, {{6}, 0, 1}};
    struct generation none = {0};
    lease_map_take(m, 1, (struct generation){9}, ranges, 2, 60000);
    const struct {
        struct chunk_range range;
        int result;
    } cases[] = {
        {{{5}, 0, 2}, 0},
        {{{5}, 3, UINT64_MAX}, -ETIMEDOUT},
        {{{5}, 4, UINT64_MAX}, 0},
        {{{6}, 0, 1}, -ETIMEDOUT},
        {{{7}, 0, UINT64_MAX}, 0},
    };
    uint64_t now = clock_monotonic_ms();
    for (size_t i = 0; i < ARRAY_LENGTH(cases); i++)
        ck_assert_int_eq(
            lease_map_wait(m, &cases[i].range, none, now, NULL, NULL), cases[i].result);
    ck_assert_int_eq(lease_map_wait(m, &cases[3].range, none, now + 60000, yes, NULL), -ECANCELED);
    lease_map_release(m, 1);
    ck_assert_int_eq(lease_map_wait(m, &cases[3].range, none, now, NULL, NULL), 0);
    // Any chunk up to a generation.
    const struct chunk_range any = {0};
    lease_map_take(m, 2, (struct generation){9}, &any, 1, 60000);
    ck_assert_int_eq(lease_map_wait(m, &ranges[0], none, now, NULL, NULL), 0);
    ck_assert_int_eq(lease_map_wait(m, &ranges[0], (struct generation){10}, now, NULL, NULL), 0);
    ck_assert_int_eq(
        lease_map_wait(m, &ranges[0], (struct generation){9}, now, NULL, NULL), -ETIMEDOUT);
    // One that has run out holds nobody up, and cannot be renewed.
    ck_assert(lease_map_renew(m, 2, 0));
    ck_assert_int_eq(lease_map_wait(m, &ranges[0], (struct generation){9}, now, NULL, NULL), 0);
    ck_assert(!lease_map_renew(m, 2, 60000));
    ck_assert(!lease_map_renew(m, 3, 60000));
    lease_map_release(m, 2);
    lease_map_free(m);
}
END_TEST

struct racer {
    struct lease_map *m;
    uint64_t holder;
    atomic_uint *inside; // holders and waiters on the chunk
};

// Takes and releases, as folds do; while it has the lease no waiter may come through.
static void
lease_often(void *argument)
{
    struct racer *r = argument;
    const struct chunk_range range = {{5}, 0, 1};
    for (int i = 0; i < 300; i++) {
        lease_map_take(r->m, r->holder, (struct generation){1}, &range, 1, 60000);
        ck_assert(lease_map_renew(r->m, r->holder, 60000));
        lease_map_release(r->m, r->holder);
        atomic_fetch_add(r->inside, 1);
    }
}

START_TEST(leases_race)
{
    struct lease_map *m = lease_map_new();
    atomic_uint rounds = 0;
    struct racer racers[4];
    struct thread threads[4];
    for (unsigned i = 0; i < 4; i++) {
        racers[i] = (struct racer){m, i + 1, &rounds};
        ck_assert_int_eq(thread_start(&threads[i], "racer", lease_often, &racers[i]), 0);
    }
    const struct chunk_range range = {{5}, 0, 1};
    while (atomic_load(&rounds) < 4 * 300) {
        int rc =
            lease_map_wait(m, &range, (struct generation){1}, clock_monotonic_ms() + 1, NULL, NULL);
        ck_assert(rc == 0 || rc == -ETIMEDOUT);
    }
    for (unsigned i = 0; i < 4; i++)
        thread_join(&threads[i]);
    ck_assert_int_eq(lease_map_wait(m, &range, (struct generation){1}, 0, NULL, NULL), 0);
    lease_map_free(m);
}
END_TEST

int
main(void)
{
    Suite *s = suite_create("truncation");
#define ADD(test) unit_add(s, #test, test, 120)
    ADD(the_head_becomes_a_hole_and_the_tail_goes);
    ADD(orders_that_cannot_be_carried_out_are_refused);
    ADD(what_is_made_in_a_directory_inherits_its_variant);
    ADD(a_cancelled_publication_tells_who_asked_and_the_next_one_takes_all);
    ADD(a_truncation_cancels_the_checkpoint_that_does_not_let_go);
    ADD(a_cancelled_fold_leaves_nothing_and_loses_nothing);
    ADD(a_death_in_the_middle_never_truncates_twice);
    ADD(a_death_behind_it_completes_the_job);
    ADD(an_order_of_a_dead_process_spares_what_came_later);
    ADD(leases_hold_up_their_own_chunks_only);
    ADD(leases_race);
    return unit_run(s);
}
