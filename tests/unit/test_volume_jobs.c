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
#include "volume/volume_internal.h"

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

static int
operate(struct volume *v, unsigned kind, unsigned flags, const char *argument, struct buffer *out)
{
    struct volume_operation_report report;
    uint64_t ticket;
    char text[8192];
    ck_assert_int_eq(volume_operation_start(v, kind, flags, argument, &ticket), 0);
    do {
        clock_sleep_ms(2);
        ck_assert_int_eq(volume_operation_report(v, ticket, 0, text, sizeof(text), &report), 0);
    } while (report.state != VOLUME_OPERATION_DONE);
    buffer_clear(out);
    buffer_append(out, text, report.copied);
    buffer_string(out);
    return report.result;
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
    ck_assert_int_eq(operate(w->v, VOLUME_OPERATION_RETENTION, 0, "last=1,grace=0s", &out), 0);
}

static unsigned
count_blobs(const struct volume_world *w)
{
    CLEANUP(memory_free_auto)
    char *command = memory_printf("find %s/store/checkpoints -name '*.blob' | wc -l", w->directory);
    FILE *f = popen(command, "r");
    unsigned count = 0;
    ck_assert_ptr_nonnull(f);
    ck_assert_int_eq(fscanf(f, "%u", &count), 1);
    pclose(f);
    return count;
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

START_TEST(collection_goes_on_after_a_death_at_any_step)
{
    static const char *const points[] = {"job.submitted", "job.started", "retention.told",
        "retention.run_told", "job.parked", "retention.deleted", "retention.deleted:2",
        "retention.blobs_deleted", "retention.blobs_deleted:3", "retention.told:2", "job.done:2"};
    struct volume_world w;
    BUFFER_AUTO out = {0};
    unit_set_fault_hook("CKPTFS_DELETE_BATCH", "1");
    make_volume(&w);
    ck_assert_int_eq(operate(w.v, VOLUME_OPERATION_GC, 0, "", &out), 0);
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
    ck_assert_int_eq(operate(w.v, VOLUME_OPERATION_RETENTION, 0, "last=1,grace=1h", &out), 0);
    publish_files(w.v, 50);
    // A dry run is no job.
    ck_assert_int_eq(operate(w.v, VOLUME_OPERATION_GC, VOLUME_OPERATION_DRY_RUN, "", &out), 0);
    ck_assert_ptr_nonnull(strstr(buffer_string(&out), "expire generation"));
    ck_assert_uint_eq(find_job(w.v, JOB_PRUNE_CHECKPOINT), 0);
    ck_assert_int_eq(operate(w.v, VOLUME_OPERATION_GC, 0, "", &out), 0);
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
    ck_assert_int_eq(operate(w.v, VOLUME_OPERATION_GC, 0, "", &out), 0);
    ck_assert_uint_eq(find_job(w.v, JOB_PRUNE_CHECKPOINT), job);
    ck_assert_ptr_null(strstr(buffer_string(&out), "delete blob"));
    // A shorter grace is heard at once. It counts from the date of the expiry, minutes ahead.
    ck_assert_int_eq(operate(w.v, VOLUME_OPERATION_RETENTION, 0, "last=1,grace=0s", &out), 0);
    do {
        ck_assert_int_eq(volume_job_look(w.v, job, false, &record), 0);
        clock_sleep_ms(2);
    } while (record.not_before_ms == 0 || record.not_before_ms > clock_wall_ms() + 600000);
    ck_assert_int_eq(volume_world_try_close(&w), 0);
    volume_world_free(&w);
}
END_TEST

START_TEST(a_cancelled_collection_is_over_and_the_next_one_does_its_work)
{
    struct volume_world w;
    BUFFER_AUTO out = {0};
    make_volume(&w);
    ck_assert_int_eq(operate(w.v, VOLUME_OPERATION_RETENTION, 0, "last=1,grace=1h", &out), 0);
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

int
main(void)
{
    Suite *s = suite_create("volume jobs");
#define ADD(test) unit_add(s, #test, test, 60)
    ADD(collection_goes_on_after_a_death_at_any_step);
    ADD(commands_join_the_job_that_waits_for_the_grace);
    ADD(a_cancelled_collection_is_over_and_the_next_one_does_its_work);
    ADD(a_sweep_goes_on_after_a_death);
    return unit_run(s);
}
