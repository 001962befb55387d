// SPDX-License-Identifier: Apache-2.0
// The set of hot parts of a volume: published by its owner, fetched by a host that has restored the
// volume, and never more than a hint.
#include "volume_world.h"

#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "format/blob.h"
#include "format/hot_set.h"
#include "platform/clock.h"
#include "platform/crash_point.h"
#include "platform/memory.h"
#include "volume/volume_hot.h"
#include "volume/volume_internal.h"
#include "volume/volume_offline.h"

#define PARTS      48u
#define PART_BYTES ((uint64_t)HOT_PART_PAGES * PAGE_BYTES)

// One frame in each part: few bytes, many parts.
#define FRAME BLOB_FRAME_BYTES
static void
write_parts(struct volume *v, const char *name, unsigned parts)
{
    struct object_id file = volume_world_make_file(v, name);
    for (unsigned i = 0; i < parts; i++)
        volume_world_fill(v, file, i * PART_BYTES, FRAME, i);
}

static void
expect_parts(struct volume *v, const char *name, unsigned parts)
{
    struct object_id file = volume_world_find(v, name);
    for (unsigned i = 0; i < parts; i++)
        volume_world_expect(v, file, i * PART_BYTES, FRAME, i);
}

// A volume with a set, which is closed.
static void
world_with_set(struct volume_world *w)
{
    volume_world_new(w);
    w->config.hot_set = true;
    volume_world_script_faults(w);
    volume_world_open(w);
    write_parts(w->v, "f", PARTS);
    volume_world_close(w);
}

static char *
set_path(const struct volume_world *w)
{
    return memory_printf("%s/store/hints/acme/1/hot", w->directory);
}

static bool
read_set(const struct volume_world *w, struct hot_set *set_out)
{
    CLEANUP(memory_free_auto) char *path = set_path(w);
    BUFFER_AUTO bytes = {0};
    *set_out = (struct hot_set){0};
    if (file_read_whole(path, HOT_SET_BYTES_MAX, &bytes) < 0)
        return false;
    ck_assert_int_eq(hot_set_decode(bytes.data, bytes.length, set_out), 0);
    return true;
}

static void
write_set(const struct volume_world *w, const void *p, size_t n)
{
    CLEANUP(memory_free_auto) char *path = set_path(w);
    ck_assert_int_eq(file_replace_whole(&file_ops_system, path, p, n, 0600), 0);
}

static uint32_t
count_parts(const struct volume_world *w)
{
    struct hot_set set;
    (void)read_set(w, &set);
    uint32_t parts = hot_set_parts(&set);
    hot_set_free(&set);
    return parts;
}

static struct metrics
metrics_of(struct volume *v)
{
    struct volume_status s;
    volume_status(v, &s);
    return s.metrics;
}

// The job that fetches the hot parts, once it has ended; false: there is none.
static bool
await_job(struct volume *v, struct job_record *job_out)
{
    uint64_t id = 0;
    while (volume_job_look(v, id, true, job_out) == 0) {
        id = job_out->id;
        if (job_out->kind != JOB_HYDRATE_FILES)
            continue;
        while (job_out->state < JOB_COMPLETED) {
            clock_sleep_ms(1);
            ck_assert_int_eq(volume_job_look(v, id, false, job_out), 0);
        }
        return true;
    }
    return false;
}

// Looks for the set as the retention thread does after a restore, in this thread.
static bool
restore(struct volume *v, struct job_record *job_out)
{
    volume_hot_restore(v, NULL, NULL);
    return await_job(v, job_out);
}

static void
expect_no_job(struct volume_world *w, const struct buffer *bytes, size_t n)
{
    struct job_record job;
    write_set(w, bytes->data, n);
    ck_assert(!restore(w->v, &job));
}

static void
encode(const struct hot_set *set, struct buffer *bytes)
{
    buffer_clear(bytes);
    hot_set_encode(set, bytes);
}

START_TEST(restored_volumes_fetch_their_hot_parts)
{
    struct volume_world w;
    struct job_record job;
    world_with_set(&w);
    ck_assert_uint_eq(count_parts(&w), PARTS);
    volume_world_lose_root(&w);
    volume_world_open(&w);
    while (metrics_of(w.v).hot_parts_fetched < PARTS) // by the retention thread's job
        clock_sleep_ms(1);
    ck_assert(await_job(w.v, &job));
    ck_assert_int_eq(job.state, JOB_COMPLETED);
    struct metrics m = metrics_of(w.v);
    ck_assert_uint_gt(m.read_bytes_job, PARTS * FRAME);
    ck_assert_uint_ge(m.reads_job, PARTS);
    ck_assert_uint_eq(m.read_bytes_read_ahead, 0);
    ck_assert_uint_eq(m.reads_read_ahead, 0);
    volume_world_set_faults(&w, "outage");
    expect_parts(w.v, "f", PARTS);
    volume_world_set_faults(&w, "");
    ck_assert_uint_eq(metrics_of(w.v).read_bytes_foreground, m.read_bytes_foreground);
    ck_assert_uint_eq(metrics_of(w.v).reads_foreground, 0);
    volume_world_free(&w);
}
END_TEST

START_TEST(forks_fetch_the_hot_parts_of_their_parent)
{
    struct volume_world w;
    struct hot_set set;
    struct job_record job;
    BUFFER_AUTO bytes = {0};
    world_with_set(&w);
    ck_assert(read_set(&w, &set));
    // The fork of a fork that was never mounted.
    volume_world_become_fork(&w, "child");
    volume_world_become_fork(&w, "grandchild");
    volume_world_open(&w);
    while (metrics_of(w.v).hot_parts_fetched < PARTS)
        clock_sleep_ms(1);
    ck_assert(await_job(w.v, &job));
    ck_assert_int_eq(job.state, JOB_COMPLETED);
    volume_world_set_faults(&w, "outage");
    expect_parts(w.v, "f", PARTS);
    volume_world_set_faults(&w, "");
    // Its own set takes in that of the parent, and leaves that alone.
    volume_hot_publish(w.v, NULL, NULL);
    ck_assert_uint_eq(metrics_of(w.v).hot_sets_written, 1);
    ck_assert_uint_eq(volume_world_count_objects(&w, "hints/grandchild", "hot"), 1);
    ck_assert_uint_eq(count_parts(&w), PARTS);
    volume_world_close(&w);
    // From then on its own set is the one that counts.
    CLEANUP(memory_free_auto) char *path = set_path(&w);
    ck_assert_int_eq(unlink(path), 0);
    volume_world_lose_root(&w);
    volume_world_open(&w);
    ck_assert(restore(w.v, &job));
    volume_world_close(&w);
    // Another volume in the place of the parent is not believed.
    volume_world_become_fork(&w, "last");
    CLEANUP(memory_free_auto)
    char *own = memory_printf("%s/store/hints/grandchild/1/hot", w.directory);
    ck_assert_int_eq(unlink(own), 0);
    set.volume.b[0] ^= 1;
    encode(&set, &bytes);
    write_set(&w, bytes.data, bytes.length);
    volume_world_open(&w);
    ck_assert(!restore(w.v, &job));
    expect_parts(w.v, "f", PARTS);
    hot_set_free(&set);
    volume_world_free(&w);
}
END_TEST

START_TEST(mounts_that_need_no_set_leave_it_alone)
{
    struct volume_world w;
    struct job_record job;
    struct stat before, after;
    world_with_set(&w);
    CLEANUP(memory_free_auto) char *path = set_path(&w);
    ck_assert_int_eq(stat(path, &before), 0);
    // Nothing is read: nothing is written.
    volume_world_open(&w);
    struct metrics m = metrics_of(w.v);
    volume_hot_publish(w.v, NULL, NULL);
    ck_assert_uint_eq(metrics_of(w.v).get_requests, m.get_requests);
    volume_world_close(&w);
    ck_assert(stat(path, &after) == 0 && after.st_ino == before.st_ino);
    // A mount that reads a part of it keeps what was hot before: the set is the one that is there.
    volume_world_open(&w);
    expect_parts(w.v, "f", VOLUME_HOT_PARTS_MIN);
    volume_hot_publish(w.v, NULL, NULL);
    ck_assert_uint_eq(count_parts(&w), PARTS);
    m = metrics_of(w.v);
    ck_assert_uint_eq(m.hot_sets_written, 0);
    volume_hot_publish(w.v, NULL, NULL);
    ck_assert_uint_eq(metrics_of(w.v).get_requests, m.get_requests);
    volume_world_close(&w);
    ck_assert_uint_eq(count_parts(&w), PARTS);
    // Without the option there is neither a job nor a set.
    w.config.hot_set = false;
    volume_world_lose_root(&w);
    volume_world_open(&w);
    ck_assert(!restore(w.v, &job));
    expect_parts(w.v, "f", PARTS);
    ck_assert_int_eq(unlink(path), 0);
    volume_world_close(&w);
    ck_assert_uint_eq(count_parts(&w), 0);
    volume_world_free(&w);
}
END_TEST

START_TEST(few_parts_are_not_worth_a_set)
{
    struct volume_world w;
    volume_world_new(&w);
    w.config.hot_set = true;
    volume_world_open(&w);
    write_parts(w.v, "f", VOLUME_HOT_PARTS_MIN - 1);
    volume_world_close(&w);
    ck_assert_uint_eq(volume_world_count_objects(&w, "hints", "*"), 0);
    volume_world_free(&w);
}
END_TEST

START_TEST(damaged_and_foreign_sets_are_not_believed)
{
    struct volume_world w;
    BUFFER_AUTO bytes = {0};
    struct job_record job;
    struct hot_set set;
    world_with_set(&w);
    ck_assert(read_set(&w, &set));
    volume_world_open(&w);
    encode(&set, &bytes);
    expect_no_job(&w, &bytes, 0);
    expect_no_job(&w, &bytes, bytes.length - 1);
    bytes.data[bytes.length - 1] ^= 1;
    expect_no_job(&w, &bytes, bytes.length);
    bytes.data[8] = 2; // of a newer program
    expect_no_job(&w, &bytes, bytes.length);
    set.volume.b[0] ^= 1;
    encode(&set, &bytes);
    expect_no_job(&w, &bytes, bytes.length);
    set.volume.b[0] ^= 1;
    // A later owner's is not believed, and stays.
    set.epoch += 100;
    encode(&set, &bytes);
    expect_no_job(&w, &bytes, bytes.length);
    expect_parts(w.v, "f", PARTS);
    volume_hot_publish(w.v, NULL, NULL);
    ck_assert_uint_eq(metrics_of(w.v).hot_sets_written, 0);
    set.epoch -= 100;
    encode(&set, &bytes);
    write_set(&w, bytes.data, bytes.length);
    ck_assert(restore(w.v, &job));
    hot_set_free(&set);
    volume_world_free(&w);
}
END_TEST

START_TEST(parts_that_the_files_do_not_have_are_passed_over)
{
    struct volume_world w;
    BUFFER_AUTO bytes = {0};
    struct job_record job;
    struct hot_set set;
    world_with_set(&w);
    ck_assert(read_set(&w, &set));
    uint64_t object = set.runs[0].object.v;
    struct hot_run runs[] = {
        {{1}, 0, 5, 9},                        // a directory
        {{object}, 0, 10, 9},                  // there
        {{object}, 20, 10000, 9},              // partly there
        {{object}, UINT64_C(1) << 40, 100, 9}, // behind the end
        {{object + 12345}, 0, 100, 9},         // nothing
        {{UINT64_MAX}, 0, 1, 9},
    };
    struct hot_set made = {set.volume, set.epoch, set.generation, runs, ARRAY_LENGTH(runs)};
    encode(&made, &bytes);
    hot_set_free(&set);
    write_set(&w, bytes.data, bytes.length);
    volume_world_open(&w);
    ck_assert(restore(w.v, &job));
    ck_assert_int_eq(job.state, JOB_COMPLETED);
    ck_assert_uint_eq(job.total, (10 + PARTS - 20) * PART_BYTES);
    ck_assert_uint_eq(job.done, job.total);
    volume_world_free(&w);
}
END_TEST

START_TEST(a_quota_without_room_ends_the_fetching)
{
    struct volume_world w;
    struct job_record job;
    struct storage_quota_numbers n;
    uint64_t id;
    world_with_set(&w);
    volume_world_open(&w);
    BUFFER_AUTO text = {0};
    ck_assert_int_eq(volume_world_operate(w.v, VOLUME_OPERATION_EVICT, 0, "", &text), 0);
    storage_quota_numbers(w.v->quota, &n);
    uint64_t blobs = n.blobs;
    // An eighth stays free: of the rest the four fetchers need eight parts.
    storage_quota_set_limit(w.v->quota, n.used + 4 * PART_BYTES);
    ck_assert_int_eq(volume_hydrate_hot(w.v, &id), 0);
    ck_assert(await_job(w.v, &job));
    ck_assert_int_eq(job.state, JOB_COMPLETED);
    ck_assert_uint_eq(job.done, 0);
    ck_assert_ptr_nonnull(strstr(job.cause, "no room"));
    storage_quota_numbers(w.v->quota, &n);
    ck_assert_uint_le(n.blobs, blobs);
    storage_quota_set_limit(w.v->quota, 0);
    volume_world_free(&w);
}
END_TEST

// ---- owners -------------------------------------------------------------------------------------

static void
destroy(struct volume_world *w)
{
    BUFFER_AUTO error = {0};
    uint64_t objects;
    struct volume_config config;
    volume_config_copy(&config, &w->config);
    config.takeover = true;
    ck_assert_msg(
        volume_destroy(&config, NULL, &objects, &error) == 0, "%s", buffer_string(&error));
    volume_config_free(&config);
}

START_TEST(destroying_leaves_no_set_behind)
{
    struct volume_world w;
    world_with_set(&w);
    ck_assert_uint_eq(volume_world_count_objects(&w, "hints", "*"), 1);
    destroy(&w);
    ck_assert_uint_eq(volume_world_count_objects(&w, "", "*"), 0);
    volume_world_free(&w);
}
END_TEST

START_TEST(an_owner_that_was_displaced_leaves_no_set_behind)
{
    struct volume_world w;
    struct volume_world other;
    world_with_set(&w);
    // Destroyed meanwhile.
    volume_world_open(&w);
    expect_parts(w.v, "f", PARTS);
    destroy(&w);
    volume_hot_publish(w.v, NULL, NULL);
    ck_assert_uint_eq(volume_world_count_objects(&w, "", "*"), 0);
    (void)!volume_world_try_close(&w);
    ck_assert_uint_eq(volume_world_count_objects(&w, "hints", "*"), 0);
    volume_world_lose_root(&w);
    // Taken over meanwhile, by a host that has not written a set yet.
    volume_world_open(&w);
    write_parts(w.v, "f", PARTS);
    volume_world_publish(w.v);
    volume_world_join(&other, w.directory);
    other.config.hot_set = true;
    volume_world_set_root(&other, "other");
    other.config.takeover = true;
    volume_world_open(&other);
    volume_hot_publish(w.v, NULL, NULL);
    ck_assert_uint_eq(volume_world_count_objects(&w, "hints", "*"), 0);
    // And by one that has.
    expect_parts(other.v, "f", PARTS);
    volume_world_close(&other);
    uint32_t parts = count_parts(&w);
    ck_assert_uint_ge(parts, VOLUME_HOT_PARTS_MIN);
    expect_parts(w.v, "f", PARTS);
    volume_hot_publish(w.v, NULL, NULL);
    ck_assert_uint_eq(count_parts(&w), parts);
    (void)!volume_world_try_close(&w);
    ck_assert_uint_eq(count_parts(&w), parts);
    volume_world_leave(&other);
    volume_world_free(&w);
}
END_TEST

START_TEST(a_death_behind_the_writing_does_no_harm)
{
    struct volume_world w;
    volume_world_new(&w);
    w.config.hot_set = true;
    fflush(stdout);
    pid_t pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        BUFFER_AUTO error = {0};
#ifdef CKPTFS_FAULT_HOOKS
        crash_point_arm("hot_set.written");
#endif
        if (volume_open(&w.config, NULL, &w.v, &error) < 0)
            _exit(1);
        write_parts(w.v, "f", PARTS);
        (void)!volume_close(w.v);
        _exit(2);
    }
    int status;
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    ck_assert_uint_eq(count_parts(&w), PARTS);
    volume_world_open(&w);
    expect_parts(w.v, "f", PARTS);
    volume_world_close(&w);
    ck_assert_uint_eq(count_parts(&w), PARTS);
    destroy(&w);
    ck_assert_uint_eq(volume_world_count_objects(&w, "", "*"), 0);
    volume_world_free(&w);
}
END_TEST

int
main(void)
{
    Suite *s = suite_create("volume_hot");
#define ADD(test) unit_add(s, #test, test, 60)
    ADD(restored_volumes_fetch_their_hot_parts);
    ADD(forks_fetch_the_hot_parts_of_their_parent);
    ADD(mounts_that_need_no_set_leave_it_alone);
    ADD(few_parts_are_not_worth_a_set);
    ADD(damaged_and_foreign_sets_are_not_believed);
    ADD(parts_that_the_files_do_not_have_are_passed_over);
    ADD(a_quota_without_room_ends_the_fetching);
    ADD(destroying_leaves_no_set_behind);
    ADD(an_owner_that_was_displaced_leaves_no_set_behind);
    ADD(a_death_behind_the_writing_does_no_harm);
    return unit_run(s);
}
