// SPDX-License-Identifier: Apache-2.0
// Jobs of a volume that work in the store: they survive a death at any step, and finish without
// doing again what was finished. A trace of the store counts writes and deletions by key, across
// processes.
#include "volume_world.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "platform/clock.h"
#include "platform/crash_point.h"
#include "platform/memory.h"
#include "platform/path.h"
#include "quota/quota_file.h"
#include "volume/volume_internal.h"
#include "volume/volume_offline.h"

#define FILES      3u
#define FILE_BYTES 300000u

// ---- the trace ----------------------------------------------------------------------------------

static char *
trace_path(const struct volume_world *w)
{
    return memory_printf("%s/trace", w->directory);
}

static void
trace_begin(const struct volume_world *w)
{
    CLEANUP(memory_free_auto) char *path = trace_path(w);
    unlink(path);
    unit_set_fault_hook("CKPTFS_STORE_TRACE", path);
}

static void
trace_read(const struct volume_world *w, struct buffer *out)
{
    CLEANUP(memory_free_auto) char *path = trace_path(w);
    ck_assert_int_eq(file_read_whole(path, 1 << 24, out), 0);
    buffer_string(out);
}

// Lines "WORD KEY" with this key.
static unsigned
count_lines(const struct buffer *text, const char *word, const char *key)
{
    CLEANUP(memory_free_auto) char *line = memory_printf("\n%s %s\n", word, key);
    CLEANUP(memory_free_auto) char *whole = memory_printf("\n%s", (const char *)text->data);
    unsigned count = 0;
    for (const char *at = whole; (at = strstr(at, line)); at++)
        count++;
    return count;
}

// Asserts that nothing was finished twice, but for the last call that the dead process had begun
// (`death` bytes of the trace are its) and for leases, which each mount writes anew. Returns how
// many lines begin with `word`.
static unsigned
check_once(const struct volume_world *w, size_t death, const char *begin, const char *word)
{
    BUFFER_AUTO text = {0};
    BUFFER_AUTO in_flight = {0};
    trace_read(w, &text);
    unsigned count = 0;
    size_t n = strlen(begin);
    for (const char *line = (const char *)text.data; *line; line = strchr(line, '\n') + 1)
        if ((size_t)(line - (const char *)text.data) < death && strncmp(line, begin, n) == 0) {
            buffer_clear(&in_flight);
            buffer_append(&in_flight, line + n + 1, strcspn(line + n + 1, "\n"));
        }
    buffer_string(&in_flight);
    for (const char *line = (const char *)text.data; *line; line = strchr(line, '\n') + 1) {
        if (strncmp(line, word, n) != 0)
            continue;
        count++;
        CLEANUP(memory_free_auto)
        char *key = memory_printf("%.*s", (int)strcspn(line + n + 1, "\n"), line + n + 1);
        unsigned often = count_lines(&text, word, key);
        bool excused = strcmp(key, buffer_string(&in_flight)) == 0 || strstr(key, "/lease-");
        ck_assert_msg(often <= (excused ? 2u : 1u), "%s %s: %u times", word, key, often);
    }
    return count;
}

// ---- the volume ---------------------------------------------------------------------------------

static struct job_record
await_job(struct volume *v, uint64_t id)
{
    struct job_record job;
    uint64_t deadline_ms = clock_monotonic_ms() + 60000;
    do {
        ck_assert_int_eq(volume_job_look(v, id, false, &job), 0);
        ck_assert_msg(clock_monotonic_ms() < deadline_ms, "job %d: %s", (int)job.kind, job.stage);
        clock_sleep_ms(2);
    } while (job.state == JOB_PENDING || job.state == JOB_IN_FLIGHT);
    return job;
}

// The newest job of the kind; 0: there is none.
static uint64_t
find_job(struct volume *v, enum job_kind kind)
{
    struct job_record job;
    uint64_t found = 0;
    for (uint64_t id = 0; volume_job_look(v, id, true, &job) == 0; id = job.id)
        if (job.kind == kind)
            found = id = job.id;
    return found;
}

// New contents of all files, published: `seed` tells them.
static void
publish_files(struct volume *v, uint64_t seed)
{
    for (unsigned i = 0; i < FILES; i++) {
        char name[16];
        snprintf(name, sizeof(name), "f%u", i);
        struct object_id object = volume_world_find(v, name);
        volume_world_fill(v, object, 0, FILE_BYTES, seed + i);
    }
    volume_world_publish(v);
}

static void
expect_files(struct volume *v, uint64_t seed)
{
    for (unsigned i = 0; i < FILES; i++) {
        char name[16];
        snprintf(name, sizeof(name), "f%u", i);
        volume_world_expect(v, volume_world_find(v, name), 0, FILE_BYTES, seed + i);
    }
}

static void
make_volume(struct volume_world *w)
{
    BUFFER_AUTO out = {0};
    volume_world_new(w);
    volume_world_open(w);
    w->v->collect_pause_ms = 1;
    for (unsigned i = 0; i < FILES; i++) {
        char name[16];
        snprintf(name, sizeof(name), "f%u", i);
        volume_world_make_file(w->v, name);
    }
    publish_files(w->v, 1);
    ck_assert_int_eq(
        volume_world_operate(w->v, VOLUME_OPERATION_RETENTION, 0, "last=1,grace=0s", &out), 0);
}

static unsigned
count_blobs(const struct volume_world *w)
{
    return volume_world_count_objects(w, "checkpoints", "*.blob");
}

// Runs `work` in a process that is to die at the crash point; returns the length of its trace.
static size_t
die_at(struct volume_world *w, const char *point, void (*work)(struct volume *v))
{
    fflush(stdout);
    pid_t pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        BUFFER_AUTO error = {0};
#ifdef CKPTFS_FAULT_HOOKS
        crash_point_arm(point);
#endif
        if (volume_open(&w->config, NULL, &w->v, &error) < 0)
            _exit(1);
        w->v->collect_pause_ms = 1;
        work(w->v);
        _exit(3);
    }
    int status;
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_msg(
        WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "%s: status %x", point, status);
    BUFFER_AUTO text = {0};
    trace_read(w, &text);
    return text.length;
}

// ---- CheckpointGC -------------------------------------------------------------------------------

static uint64_t next_seed = 100;

static void
collect_in_child(struct volume *v)
{
    uint64_t job;
    for (unsigned i = 0; i < 3; i++)
        publish_files(v, next_seed + 10 * (uint64_t)i);
    if (volume_job_submit(v, JOB_PRUNE_CHECKPOINT, NULL, &job) == 0)
        await_job(v, job);
}

static void
publish_in_child(struct volume *v)
{
    publish_files(v, next_seed);
}

// CreateCheckpoint. Before the fold is recorded it is begun anew, with another checkpoint id.
START_TEST(publication_goes_on_after_a_death_at_any_step)
{
    static const char *const points[] = {"checkpoint.recorded", "checkpoint.uploaded",
        "remote.record_created", "checkpoint.published_remotely", "checkpoint.publication_recorded",
        "checkpoint.cleaned"};
    struct volume_world w;
    make_volume(&w);
    volume_world_close(&w);
    for (size_t i = 0; i < ARRAY_LENGTH(points); i++) {
        trace_begin(&w);
        size_t death = die_at(&w, points[i], publish_in_child);
        volume_world_open(&w);
        volume_world_publish(w.v);
        expect_files(w.v, next_seed);
        next_seed += 100;
        volume_world_close(&w);
        ck_assert_uint_ge(check_once(&w, death, "put", "PUT"), FILES);
    }
    volume_world_lose_root(&w);
    volume_world_open(&w);
    expect_files(w.v, next_seed - 100);
    volume_world_free(&w);
}
END_TEST

// The same without a death: requests fail, and the thread tries again.
START_TEST(publication_that_failed_uploads_nothing_again)
{
    struct volume_world w;
    struct generation generation;
    make_volume(&w);
    volume_world_close(&w);
    volume_world_script_faults(&w);
    volume_world_set_faults(&w, "");
    trace_begin(&w);
    volume_world_open(&w);
    unsigned failed = 0;
    for (unsigned n = 1; n <= 16; n++) {
        char script[16];
        snprintf(script, sizeof(script), "fail %u", n);
        for (unsigned i = 0; i < FILES; i++) {
            char name[16];
            snprintf(name, sizeof(name), "f%u", i);
            volume_world_fill(w.v, volume_world_find(w.v, name), 0, FILE_BYTES, next_seed + i);
        }
        volume_world_set_faults(&w, script);
        failed += volume_world_checkpoint(w.v, VOLUME_CHECKPOINT_PUBLISH, &generation) < 0;
        volume_world_set_faults(&w, "");
        volume_world_publish(w.v);
        expect_files(w.v, next_seed);
        next_seed += 100;
    }
    ck_assert_uint_gt(failed, 3);
    volume_world_close(&w);
    check_once(&w, 0, "put", "PUT");
    volume_world_free(&w);
}
END_TEST

START_TEST(collection_goes_on_after_a_death_at_any_step)
{
    static const char *const points[] = {"job.submitted", "retention.told", "job.parked",
        "retention.deleted:2", "retention.blobs_deleted:2", "retention.run_told:2", "job.done:2"};
    struct volume_world w;
    BUFFER_AUTO out = {0};
    unit_set_fault_hook("CKPTFS_DELETE_BATCH", "1");
    make_volume(&w);
    ck_assert_int_eq(volume_world_operate(w.v, VOLUME_OPERATION_GC, 0, "", &out), 0);
    volume_world_close(&w);
    unsigned blobs = count_blobs(&w);
    for (size_t i = 0; i < ARRAY_LENGTH(points); i++) {
        trace_begin(&w);
        size_t death = die_at(&w, points[i], collect_in_child);
        volume_world_open(&w);
        w.v->collect_pause_ms = 1;
        uint64_t job = find_job(w.v, JOB_PRUNE_CHECKPOINT);
        ck_assert_uint_ne(job, 0);
        ck_assert_int_eq(await_job(w.v, job).state, JOB_COMPLETED);
        ck_assert_msg(count_blobs(&w) == blobs, "%s: %u blobs", points[i], count_blobs(&w));
        expect_files(w.v, next_seed + 20);
        next_seed += 100;
        volume_world_close(&w);
        unsigned deleted = check_once(&w, death, "delete", "DELETE");
        ck_assert_msg(deleted >= 3 * blobs, "%s: %u deletions", points[i], deleted);
        check_once(&w, death, "put", "PUT");
    }
    volume_world_lose_root(&w);
    volume_world_open(&w);
    expect_files(w.v, next_seed - 80);
    volume_world_close(&w);
    volume_world_check(&w);
    volume_world_free(&w);
}
END_TEST

START_TEST(commands_join_the_job_that_waits_for_the_grace)
{
    struct volume_world w;
    BUFFER_AUTO out = {0};
    make_volume(&w);
    ck_assert_int_eq(
        volume_world_operate(w.v, VOLUME_OPERATION_RETENTION, 0, "last=1,grace=1h", &out), 0);
    publish_files(w.v, 50);
    // A dry run is no job.
    ck_assert_int_eq(
        volume_world_operate(w.v, VOLUME_OPERATION_GC, VOLUME_OPERATION_DRY_RUN, "", &out), 0);
    ck_assert_ptr_nonnull(strstr(buffer_string(&out), "expire generation"));
    ck_assert_uint_eq(find_job(w.v, JOB_PRUNE_CHECKPOINT), 0);
    ck_assert_int_eq(volume_world_operate(w.v, VOLUME_OPERATION_GC, 0, "", &out), 0);
    ck_assert_ptr_nonnull(strstr(buffer_string(&out), "expire generation"));
    uint64_t job = find_job(w.v, JOB_PRUNE_CHECKPOINT);
    struct job_record record;
    do {
        ck_assert_int_eq(volume_job_look(w.v, job, false, &record), 0);
        clock_sleep_ms(2);
    } while (record.state != JOB_PENDING || record.not_before_ms == 0);
    ck_assert_str_eq(record.stage, "waiting for the grace");
    ck_assert_ptr_nonnull(strstr(record.cause, "1 expired"));
    ck_assert_uint_gt(record.not_before_ms, clock_wall_ms() + 3000000);
    // Another command runs now, as a part of the same job; the grace is kept.
    ck_assert_int_eq(volume_world_operate(w.v, VOLUME_OPERATION_GC, 0, "", &out), 0);
    ck_assert_uint_eq(find_job(w.v, JOB_PRUNE_CHECKPOINT), job);
    ck_assert_ptr_null(strstr(buffer_string(&out), "delete blob"));
    // A shorter grace is heard at once. It counts from the date of the expiry, minutes ahead.
    ck_assert_int_eq(
        volume_world_operate(w.v, VOLUME_OPERATION_RETENTION, 0, "last=1,grace=0s", &out), 0);
    do {
        ck_assert_int_eq(volume_job_look(w.v, job, false, &record), 0);
        clock_sleep_ms(2);
    } while (record.not_before_ms == 0 || record.not_before_ms > clock_wall_ms() + 600000);
    ck_assert_int_eq(volume_world_try_close(&w), 0);
    volume_world_free(&w);
}
END_TEST

START_TEST(collection_waits_for_a_cold_scan_within_limits)
{
    struct volume_world w;
    BUFFER_AUTO out = {0};
    uint8_t bytes[4096];
    uint64_t job;
    struct job_record record;
    make_volume(&w);
    struct volume_read_context context = {.scan = volume_scan_begin(w.v)};
    ck_assert(!volume_scans_hold_collection(w.v, clock_monotonic_ms())); // it has read nothing yet
    int64_t n = volume_read(w.v, volume_world_find(w.v, "f0"), 0, sizeof(bytes), bytes, &context);
    ck_assert_int_eq(n, sizeof(bytes));
    ck_assert_int_eq(volume_job_submit(w.v, JOB_PRUNE_CHECKPOINT, NULL, &job), 0);
    do {
        ck_assert_int_eq(volume_job_look(w.v, job, false, &record), 0);
        clock_sleep_ms(2);
    } while (record.state != JOB_PENDING || record.not_before_ms == 0);
    ck_assert_str_eq(record.stage, "waiting for a cold scan");
    // An operator's command does not wait.
    ck_assert_int_eq(volume_world_operate(w.v, VOLUME_OPERATION_GC, 0, "", &out), 0);
    // Nor does anything for longer than an hour, or for a scan that does not read.
    uint64_t now = clock_monotonic_ms();
    ck_assert(volume_scans_hold_collection(w.v, now));
    atomic_store(&w.v->scan_ms, now + 3700000);
    ck_assert(!volume_scans_hold_collection(w.v, now + 3600001));
    atomic_store(&w.v->scan_ms, now);
    ck_assert(volume_scans_hold_collection(w.v, now + 59000));
    ck_assert(!volume_scans_hold_collection(w.v, now + 61000));
    volume_scan_end(context.scan);
    ck_assert(!volume_scans_hold_collection(w.v, now));
    ck_assert_int_eq(volume_world_try_close(&w), 0);
    volume_world_free(&w);
}
END_TEST

START_TEST(a_cancelled_collection_is_over_and_the_next_one_does_its_work)
{
    struct volume_world w;
    BUFFER_AUTO out = {0};
    make_volume(&w);
    ck_assert_int_eq(
        volume_world_operate(w.v, VOLUME_OPERATION_RETENTION, 0, "last=1,grace=1h", &out), 0);
    publish_files(w.v, 50);
    uint64_t job;
    ck_assert_int_eq(volume_job_submit(w.v, JOB_PRUNE_CHECKPOINT, NULL, &job), 0);
    uint64_t again = 0;
    ck_assert_int_eq(volume_job_submit(w.v, JOB_PRUNE_CHECKPOINT, NULL, &again), -EEXIST);
    ck_assert_uint_eq(again, job);
    int rc = volume_job_cancel(w.v, job);
    ck_assert_int_eq(rc, 0);
    struct job_record record = await_job(w.v, job);
    ck_assert_int_eq(record.error, -ECANCELED);
    ck_assert_int_eq(volume_job_submit(w.v, JOB_PRUNE_CHECKPOINT, NULL, &again), 0);
    ck_assert_uint_gt(again, job);
    do {
        ck_assert_int_eq(volume_job_look(w.v, again, false, &record), 0);
        clock_sleep_ms(2);
    } while (record.state != JOB_PENDING || record.not_before_ms == 0);
    ck_assert_ptr_nonnull(strstr(record.cause, "1 expired"));
    ck_assert_int_eq(volume_job_cancel(w.v, again), 0);
    ck_assert_int_eq(await_job(w.v, again).error, -ECANCELED);
    expect_files(w.v, 50);
    ck_assert_int_eq(volume_world_try_close(&w), 0);
    volume_world_free(&w);
}
END_TEST

// An object that no record names, old enough to be swept, like a blob of the volume.
static char *
plant_orphan(const struct volume_world *w, unsigned number)
{
    CLEANUP(memory_free_auto)
    char *directory = memory_printf(
        "%s/store/checkpoints/acme/1/00000000-0000-4000-8000-00000000000%u", w->directory, number);
    ck_assert_int_ge(path_make_directories(directory, 0700), 0);
    char *path = memory_printf("%s/pack-0000000000000001-%064u.blob", directory, number);
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(write(fd, "orphan", 6), 6);
    const struct timespec old[2] = {{1000000000, 0}, {1000000000, 0}};
    ck_assert_int_eq(futimens(fd, old), 0);
    close(fd);
    return path;
}

static void
sweep_in_child(struct volume *v)
{
    uint64_t job;
    if (volume_job_submit(v, JOB_SWEEP_ORPHANS, NULL, &job) == 0)
        await_job(v, job);
}

START_TEST(a_sweep_goes_on_after_a_death)
{
    static const char *const points[] = {
        "job.submitted", "job.started", "retention.deleted:2", "job.done"};
    struct volume_world w;
    unit_set_fault_hook("CKPTFS_DELETE_BATCH", "1");
    make_volume(&w);
    volume_world_close(&w);
    unsigned blobs = count_blobs(&w);
    for (size_t i = 0; i < ARRAY_LENGTH(points); i++) {
        char *orphans[3];
        for (unsigned k = 0; k < 3; k++)
            orphans[k] = plant_orphan(&w, k);
        trace_begin(&w);
        size_t death = die_at(&w, points[i], sweep_in_child);
        volume_world_open(&w);
        uint64_t job = find_job(w.v, JOB_SWEEP_ORPHANS);
        ck_assert_int_eq(await_job(w.v, job).state, JOB_COMPLETED);
        for (unsigned k = 0; k < 3; k++) {
            ck_assert_int_lt(access(orphans[k], F_OK), 0);
            free(orphans[k]);
        }
        ck_assert_uint_eq(count_blobs(&w), blobs);
        ck_assert_uint_eq(check_once(&w, death, "delete", "DELETE"), 3);
        expect_files(w.v, 1);
        volume_world_close(&w);
    }
    volume_world_free(&w);
}
END_TEST

// ---- detaching ----------------------------------------------------------------------------------

// Forks have two pins each.
static unsigned
count_pins(const struct volume_world *w)
{
    unsigned all = volume_world_count_objects(w, "pins", "*-fork-*");
    ck_assert_uint_eq(volume_world_count_objects(w, "pins", "*-fork-*.made"), all / 2);
    return all / 2;
}

// Writes to the fork while the job runs.
static void
detach_in_child(struct volume *v)
{
    uint64_t job;
    struct object_id object = volume_world_make_file(v, "new");
    ck_assert_int_eq(volume_world_sync(v), 0);
    if (volume_job_submit(v, JOB_DETACH_FORK, NULL, &job) != 0)
        return;
    volume_world_fill(v, object, 0, 5000, 77);
    ck_assert_int_eq(volume_world_sync(v), 0);
    await_job(v, job);
}

START_TEST(a_mounted_fork_is_detached_whatever_dies)
{
    static const char *const points[] = {"job.submitted", "detach.copied:2", "checkpoint.recorded",
        "checkpoint.published_remotely", "detach.published"};
    struct volume_world w;
    BUFFER_AUTO out = {0};
    make_volume(&w);
    // Several blobs.
    for (unsigned i = 0; i < 3; i++) {
        char name[16];
        snprintf(name, sizeof(name), "more%u", i);
        volume_world_fill(w.v, volume_world_make_file(w.v, name), 0, FILE_BYTES, 500 + i);
        volume_world_publish(w.v);
    }
    volume_world_close(&w);
    CLEANUP(memory_free_auto) char *parent = memory_string(w.config.source);
    for (size_t i = 0; i < ARRAY_LENGTH(points); i++) {
        char name[16];
        snprintf(name, sizeof(name), "fork%zu", i);
        free(w.config.source);
        w.config.source = memory_string(parent);
        volume_world_become_fork(&w, name);
        unsigned blobs = count_blobs(&w);
        trace_begin(&w);
        size_t death = die_at(&w, points[i], detach_in_child);
        ck_assert_uint_eq(count_pins(&w), i + 1);
        volume_world_open(&w);
        uint64_t job = find_job(w.v, JOB_DETACH_FORK);
        ck_assert_uint_ne(job, 0);
        struct job_record record = await_job(w.v, job);
        ck_assert_msg(record.state == JOB_COMPLETED, "%s: %s", points[i], record.cause);
        ck_assert_uint_ge(count_blobs(&w), blobs + 3);
        // The first generation of the fork needs the parent until it is deleted.
        ck_assert_ptr_nonnull(strstr(record.cause, "needs the parent still"));
        check_once(&w, death, "put", "PUT");
        if (i + 1 < ARRAY_LENGTH(points))
            volume_world_close(&w);
    }
    unsigned pins = count_pins(&w);
    w.v->collect_pause_ms = 1;
    ck_assert_int_eq(
        volume_world_operate(w.v, VOLUME_OPERATION_RETENTION, 0, "last=1,grace=0s", &out), 0);
    volume_world_fill(w.v, volume_world_find(w.v, "new"), 0, 5000, 78);
    volume_world_publish(w.v);
    uint64_t job;
    ck_assert_int_eq(volume_job_submit(w.v, JOB_PRUNE_CHECKPOINT, NULL, &job), 0);
    ck_assert_int_eq(await_job(w.v, job).state, JOB_COMPLETED);
    ck_assert_int_eq(volume_job_submit(w.v, JOB_DETACH_FORK, NULL, &job), 0);
    struct job_record record = await_job(w.v, job);
    ck_assert_ptr_nonnull(strstr(record.cause, "0 blobs are copied; the volume does without"));
    ck_assert_uint_eq(count_pins(&w), pins - 1);
    volume_world_close(&w);
    // Without its parent and its root.
    CLEANUP(memory_free_auto) char *acme = memory_printf("%s/store/checkpoints/acme", w.directory);
    ck_assert_int_eq(path_remove_tree(acme), 0);
    volume_world_lose_root(&w);
    volume_world_open(&w);
    expect_files(w.v, 1);
    volume_world_expect(w.v, volume_world_find(w.v, "more2"), 0, FILE_BYTES, 502);
    volume_world_expect(w.v, volume_world_find(w.v, "new"), 0, 5000, 78);
    volume_world_close(&w);
    volume_world_check(&w);
    volume_world_free(&w);
}
END_TEST

START_TEST(only_a_fork_is_detached)
{
    struct volume_world w;
    uint64_t job;
    make_volume(&w);
    ck_assert_int_eq(volume_job_submit(w.v, JOB_DETACH_FORK, NULL, &job), 0);
    struct job_record record = await_job(w.v, job);
    ck_assert_int_eq(record.state, JOB_FAILED);
    ck_assert_str_eq(record.cause, "the volume is no fork");
    ck_assert_int_eq(volume_world_try_close(&w), 0);
    volume_world_free(&w);
}
END_TEST

// ---- reading ------------------------------------------------------------------------------------

static int
operate_on_job(struct volume *v, unsigned flags, uint64_t job, struct buffer *out)
{
    char id[24];
    snprintf(id, sizeof(id), "%llu", (unsigned long long)job);
    return volume_world_operate(v, VOLUME_OPERATION_JOB_REPORT, flags, id, out);
}

START_TEST(verifying_tells_what_is_damaged)
{
    struct volume_world w;
    BUFFER_AUTO out = {0};
    struct job_verification order = {.data = false};
    uint64_t job;
    make_volume(&w);
    ck_assert_int_eq(volume_job_submit(w.v, JOB_VERIFY_MANIFEST, &order, &job), 0);
    struct job_record record = await_job(w.v, job);
    ck_assert_int_eq(record.state, JOB_COMPLETED);
    ck_assert_ptr_nonnull(strstr(record.cause, "all are there, with their sizes"));
    // A byte of a blob: only reading it shows that.
    CLEANUP(memory_free_auto)
    char *command = memory_printf("f=$(find %s/store/checkpoints -name '*.blob' | head -n 1) && "
                                  "chmod u+w $f && printf XXXX | "
                                  "dd of=$f bs=1 seek=5000 conv=notrunc status=none",
        w.directory);
    ck_assert_int_eq(system(command), 0);
    ck_assert_int_eq(volume_job_submit(w.v, JOB_VERIFY_MANIFEST, &order, &job), 0);
    ck_assert_int_eq(await_job(w.v, job).state, JOB_COMPLETED);
    order.data = true;
    ck_assert_int_eq(volume_job_submit(w.v, JOB_VERIFY_MANIFEST, &order, &job), 0);
    record = await_job(w.v, job);
    ck_assert_int_eq(record.state, JOB_FAILED);
    ck_assert_int_eq(record.error, -EBADMSG);
    ck_assert_ptr_nonnull(strstr(record.cause, "1 objects are damaged: checkpoints/"));
    // The job keeps what is damaged, and what that touches, also for the next mount.
    for (unsigned i = 0; i < 2; i++) {
        ck_assert_int_eq(operate_on_job(w.v, 0, job, &out), 0);
        ck_assert_ptr_nonnull(strstr(buffer_string(&out), "checkpoints/acme/1/"));
        ck_assert_ptr_nonnull(strstr(buffer_string(&out), "    generations: 1\n"));
        ck_assert_ptr_nonnull(strstr(buffer_string(&out), "    file: /f0\n"));
        ck_assert_int_eq(operate_on_job(w.v, VOLUME_OPERATION_JSON, job, &out), 0);
        ck_assert_ptr_nonnull(strstr(buffer_string(&out), "\"damaged\":1,\"left_out\":0,"));
        ck_assert_ptr_nonnull(
            strstr(buffer_string(&out), "\"generations\":[1],\"files\":[\"/f0\""));
        volume_world_close(&w);
        volume_world_open(&w);
    }
    ck_assert_int_eq(operate_on_job(w.v, 0, job + 1000, &out), -ENOENT);
    ck_assert_int_eq(volume_world_try_close(&w), 0);
    volume_world_free(&w);
}
END_TEST

static void
expect_exact_blobs(const struct volume_world *w)
{
    struct storage_quota_numbers n;
    uint64_t log;
    uint64_t blobs;
    quota_count_place(w->root, "db/1", &log, &blobs);
    storage_quota_numbers(w->v->quota, &n);
    ck_assert_uint_eq(n.blobs, blobs);
}

START_TEST(verifying_needs_room_in_the_quota_for_what_it_reads)
{
    struct volume_world w;
    struct job_verification order = {.data = false};
    struct storage_quota_numbers n;
    struct stat st;
    uint64_t job;
    make_volume(&w);
    CLEANUP(memory_free_auto) char *scratch = memory_printf("%s.verify", w.v->place.scratch);
    // The budget of jobs, then the quota itself.
    for (unsigned share = 1; share <= 100; share += 99) {
        storage_quota_set_limit(w.v->quota, 4 << 20);
        storage_quota_set_job_share(w.v->quota, share);
        ck_assert_int_eq(volume_job_submit(w.v, JOB_VERIFY_MANIFEST, &order, &job), 0);
        struct job_record record = await_job(w.v, job);
        ck_assert_int_eq(record.state, JOB_FAILED);
        ck_assert_int_eq(record.error, -EDQUOT);
        ck_assert_ptr_nonnull(strstr(record.cause, "the quota has no room"));
        storage_quota_numbers(w.v->quota, &n);
        ck_assert_uint_eq(n.job_refusals, 1);
        ck_assert_uint_eq(n.jobs, 0);
        expect_exact_blobs(&w);
        ck_assert_int_eq(lstat(scratch, &st), -1);
    }
    storage_quota_set_limit(w.v->quota, 0);
    ck_assert_int_eq(volume_job_submit(w.v, JOB_VERIFY_MANIFEST, &order, &job), 0);
    ck_assert_int_eq(await_job(w.v, job).state, JOB_COMPLETED);
    expect_exact_blobs(&w);
    // What a process that died has left goes at the next mount.
    volume_world_close(&w);
    ck_assert_int_eq(mkdir(scratch, 0700), 0);
    volume_world_open(&w);
    ck_assert_int_eq(lstat(scratch, &st), -1);
    volume_world_free(&w);
}
END_TEST

static void
verify_in_child(struct volume *v)
{
    uint64_t job;
    const struct job_verification order = {.data = true};
    if (volume_job_submit(v, JOB_VERIFY_MANIFEST, &order, &job) == 0)
        await_job(v, job);
}

START_TEST(verifying_goes_on_behind_the_last_generation)
{
    struct volume_world w;
    BUFFER_AUTO out = {0};
    make_volume(&w);
    ck_assert_int_eq(volume_world_operate(w.v, VOLUME_OPERATION_RETENTION, 0, "all", &out), 0);
    // One blob of the first generation is damaged; the others have one blob more each.
    CLEANUP(memory_free_auto)
    char *command = memory_printf("f=$(find %s/store/checkpoints -name '*.blob' | head -n 1) && "
                                  "chmod u+w $f && printf XXXX | "
                                  "dd of=$f bs=1 seek=5000 conv=notrunc status=none",
        w.directory);
    ck_assert_int_eq(system(command), 0);
    for (unsigned i = 0; i < 3; i++) {
        char name[16];
        snprintf(name, sizeof(name), "more%u", i);
        volume_world_fill(w.v, volume_world_make_file(w.v, name), 0, FILE_BYTES, 500 + i);
        volume_world_publish(w.v);
    }
    volume_world_close(&w);
    trace_begin(&w);
    die_at(&w, "job.marked:2", verify_in_child);
    volume_world_open(&w);
    struct job_record record = await_job(w.v, find_job(w.v, JOB_VERIFY_MANIFEST));
    ck_assert_int_eq(record.state, JOB_FAILED);
    ck_assert_int_eq(record.error, -EBADMSG);
    ck_assert_ptr_nonnull(strstr(record.cause, "1 objects are damaged: checkpoints/"));
    ck_assert_int_eq(operate_on_job(w.v, 0, record.id, &out), 0);
    ck_assert_ptr_nonnull(strstr(buffer_string(&out), "    file: /f0\n"));
    BUFFER_AUTO text = {0};
    ck_assert_int_eq(job_queue_look(w.v->jobs, record.id, false, &record, &text), 0);
    ck_assert_msg(
        strstr(buffer_string(&text), " 2 generations with 3 blobs: all are there, and 2 blobs"),
        "%s", buffer_string(&text));
    ck_assert_int_eq(volume_world_try_close(&w), 0);
    volume_world_free(&w);
}
END_TEST

// A verification waits for a blob; a command and its job take their own way.
START_TEST(a_collection_runs_beside_a_verification)
{
    struct volume_world w;
    uint64_t job;
    BUFFER_AUTO out = {0};
    const struct job_verification order = {.data = true};
    make_volume(&w);
    volume_world_close(&w);
    volume_world_script_faults(&w);
    volume_world_open(&w);
    volume_world_set_faults(&w, "slow 3600000 checkpoints/");
    ck_assert_int_eq(volume_job_submit(w.v, JOB_VERIFY_MANIFEST, &order, &job), 0);
    struct job_record record;
    do {
        ck_assert_int_eq(volume_job_look(w.v, job, false, &record), 0);
        clock_sleep_ms(2);
    } while (record.state != JOB_IN_FLIGHT || strcmp(record.stage, "generations") != 0);
    // Its record is written when it is interrupted, and when it goes on. On a slow machine progress
    // may be written once more until the job is at the blob, and not in the next round.
    uint64_t written_ms = 0;
    for (unsigned round = 0; record.updated_ms != written_ms; round++) {
        ck_assert_uint_lt(round, 3);
        written_ms = record.updated_ms;
        ck_assert_int_eq(volume_world_operate(w.v, VOLUME_OPERATION_GC, 0, "", &out), 0);
        ck_assert_int_eq(await_job(w.v, find_job(w.v, JOB_PRUNE_CHECKPOINT)).state, JOB_COMPLETED);
        ck_assert_int_eq(volume_job_look(w.v, job, false, &record), 0);
        ck_assert_int_eq(record.state, JOB_IN_FLIGHT);
    }
    volume_world_set_faults(&w, "");
    ck_assert_uint_eq(await_job(w.v, job).tries, 1);
    ck_assert_int_eq(await_job(w.v, job).state, JOB_COMPLETED);
    ck_assert_int_eq(volume_world_try_close(&w), 0);
    volume_world_free(&w);
}
END_TEST

// ---- sweeps -------------------------------------------------------------------------------------

static void
expect_sweep(struct volume *v, bool expected)
{
    uint64_t before = find_job(v, JOB_SWEEP_ORPHANS);
    volume_collect_if_due(v);
    uint64_t job = find_job(v, JOB_SWEEP_ORPHANS);
    ck_assert_int_eq(job != before, expected);
    if (expected)
        ck_assert_int_eq(await_job(v, job).state, JOB_COMPLETED);
}

static void
set_swept(struct volume *v, uint64_t ago_ms)
{
    struct manifest_batch *b = manifest_batch_new(v->db);
    manifest_batch_swept(b, clock_wall_ms() - ago_ms);
    ck_assert_int_eq(manifest_submit(v->manifest, b, NULL), 0);
}

START_TEST(the_time_between_sweeps_counts_across_mounts)
{
    const uint64_t hour_ms = (uint64_t)3600 * 1000;
    struct volume_world w;
    make_volume(&w);
    expect_sweep(w.v, true); // nobody knows of one
    expect_sweep(w.v, false);
    volume_world_close(&w);
    volume_world_open(&w);
    expect_sweep(w.v, false);
    // A host that mounts for a while each day.
    set_swept(w.v, 23 * hour_ms);
    volume_world_close(&w);
    volume_world_open(&w);
    expect_sweep(w.v, false);
    set_swept(w.v, 25 * hour_ms);
    volume_world_close(&w);
    volume_world_open(&w);
    expect_sweep(w.v, true);
    expect_sweep(w.v, false);
    // A clock that was set back.
    volume_world_close(&w);
    volume_world_open(&w);
    set_swept(w.v, -(uint64_t)(90 * hour_ms));
    expect_sweep(w.v, true);
    ck_assert_int_eq(volume_world_try_close(&w), 0);
    volume_world_free(&w);
}
END_TEST

START_TEST(a_downloaded_checkpoint_needs_no_store)
{
    struct volume_world w;
    const struct job_generation newest = {{UINT64_MAX}};
    uint64_t job;
    make_volume(&w);
    volume_world_close(&w);
    volume_world_lose_root(&w);
    volume_world_script_faults(&w);
    volume_world_open(&w);
    ck_assert_int_eq(volume_job_submit(w.v, JOB_DOWNLOAD_CHECKPOINT, &newest, &job), 0);
    struct job_record record = await_job(w.v, job);
    ck_assert_msg(record.state == JOB_COMPLETED, "%s", record.cause);
    ck_assert_uint_gt(record.total, FILES * FILE_BYTES / 2);
    ck_assert_uint_eq(record.done, record.total);
    volume_world_set_faults(&w, "outage");
    expect_files(w.v, 1);
    volume_world_set_faults(&w, "");
    // Users do not submit all kinds.
    ck_assert_int_eq(volume_job_submit(w.v, JOB_CREATE_CHECKPOINT, NULL, &job), -EINVAL);
    ck_assert_int_eq(volume_world_try_close(&w), 0);
    volume_world_free(&w);
}
END_TEST

int
main(void)
{
    Suite *s = suite_create("volume jobs");
#define ADD(test) unit_add(s, #test, test, 60)
    ADD(collection_goes_on_after_a_death_at_any_step);
    ADD(publication_goes_on_after_a_death_at_any_step);
    ADD(publication_that_failed_uploads_nothing_again);
    ADD(commands_join_the_job_that_waits_for_the_grace);
    ADD(collection_waits_for_a_cold_scan_within_limits);
    ADD(a_cancelled_collection_is_over_and_the_next_one_does_its_work);
    ADD(a_sweep_goes_on_after_a_death);
    ADD(a_mounted_fork_is_detached_whatever_dies);
    ADD(only_a_fork_is_detached);
    ADD(verifying_tells_what_is_damaged);
    ADD(verifying_needs_room_in_the_quota_for_what_it_reads);
    ADD(verifying_goes_on_behind_the_last_generation);
    ADD(a_collection_runs_beside_a_verification);
    ADD(the_time_between_sweeps_counts_across_mounts);
    ADD(a_downloaded_checkpoint_needs_no_store);
    return unit_run(s);
}
