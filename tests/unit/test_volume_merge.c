// SPDX-License-Identifier: Apache-2.0
// Upkeep of published chunks on a host that holds none of them: the job MergeChunks.
#include "volume_world.h"

#include <errno.h>
#include <glob.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/checksum.h"
#include "checkpoint/checkpoint_offer.h"
#include "chunk/chunk_internal.h"
#include "platform/clock.h"
#include "platform/memory.h"
#include "volume/volume_internal.h"

#define FILES      3u
#define ROUNDS     6u
#define FILE_BYTES (1u << 20)
#define STEP       (FILE_BYTES / 16)
#define PIECE      8192u

static struct job_record
await_job(struct volume *v, uint64_t id)
{
    struct job_record job;
    do {
        ck_assert_int_eq(volume_job_look(v, id, false, &job), 0);
        clock_sleep_ms(2);
    } while (job.state == JOB_PENDING || job.state == JOB_IN_FLIGHT);
    return job;
}

static void
merge_now(struct volume *v)
{
    uint64_t id;
    ck_assert_int_eq(volume_merge(v, &id), 0);
    struct job_record job = await_job(v, id);
    ck_assert_msg(job.state == JOB_COMPLETED, "%d: %s", job.error, job.cause);
}

static struct chunk_entry
chunk_of(struct volume *v, struct object_id object)
{
    struct manifest_reader *r;
    struct chunk_entry chunk;
    ck_assert_int_eq(manifest_read_begin(v->manifest, &r), 0);
    ck_assert_int_eq(manifest_read_chunk(r, v->db, object, (struct chunk_index){0}, &chunk), 0);
    manifest_read_end(r);
    return chunk;
}

static void
name_of(unsigned file, char name[16])
{
    snprintf(name, 16, "file-%u", file);
}

static struct object_id
file_of(struct volume *v, unsigned file)
{
    char name[16];
    name_of(file, name);
    return volume_world_find(v, name);
}

static void
age(struct volume_world *w, unsigned round)
{
    for (unsigned i = 0; i < FILES; i++)
        volume_world_fill(
            w->v, file_of(w->v, i), (uint64_t)round * STEP + STEP / 2, PIECE, 100 * round + i);
}

// The content after `rounds` times age().
static void
expect(struct volume *v, unsigned rounds)
{
    for (unsigned i = 0; i < FILES; i++) {
        struct object_id file = file_of(v, i);
        for (unsigned k = 0; k < 16; k++) {
            volume_world_expect(v, file, (uint64_t)k * STEP, STEP / 2, i);
            volume_world_expect(
                v, file, (uint64_t)k * STEP + STEP / 2, PIECE, k < rounds ? 100 * k + i : i);
        }
    }
}

static void
open_elsewhere(struct volume_world *w)
{
    volume_world_close(w);
    volume_world_lose_root(w);
    volume_world_open(w);
}

// Files whose chains have ROUNDS deltas: each was published by a host that held nothing.
static void
make_long_chains(struct volume_world *w)
{
    volume_world_new(w);
    volume_world_open(w);
    for (unsigned i = 0; i < FILES; i++) {
        char name[16];
        name_of(i, name);
        volume_world_fill(w->v, volume_world_make_file(w->v, name), 0, FILE_BYTES, i);
    }
    for (unsigned k = 0; k < ROUNDS; k++) {
        open_elsewhere(w);
        age(w, k);
    }
    open_elsewhere(w);
    for (unsigned i = 0; i < FILES; i++)
        ck_assert_uint_eq(chunk_of(w->v, file_of(w->v, i)).delta_count, ROUNDS);
}

static void
expect_short_chains(struct volume *v)
{
    for (unsigned i = 0; i < FILES; i++)
        ck_assert_uint_le(chunk_of(v, file_of(v, i)).delta_count, 5);
}

// Here and on a third host.
static void
expect_all_is_well(struct volume_world *w, unsigned rounds)
{
    expect(w->v, rounds);
    volume_world_close(w);
    volume_world_check(w);
    volume_world_lose_root(w);
    volume_world_open(w);
    expect(w->v, rounds);
    volume_world_free(w);
}

START_TEST(chains_become_short_on_a_bare_host)
{
    struct volume_world w;
    make_long_chains(&w);
    merge_now(w.v);
    expect_short_chains(w.v);
    expect_all_is_well(&w, ROUNDS);
}
END_TEST

START_TEST(nothing_is_done_twice)
{
    struct volume_world w;
    make_long_chains(&w);
    merge_now(w.v);
    struct generation before = chunk_of(w.v, file_of(w.v, 0)).generation;
    struct checkpoint_numbers numbers, later;
    checkpoint_numbers(w.v->checkpoint, &numbers);
    merge_now(w.v);
    checkpoint_numbers(w.v->checkpoint, &later);
    ck_assert_uint_eq(later.folds, numbers.folds);
    ck_assert_uint_eq(chunk_of(w.v, file_of(w.v, 0)).generation.v, before.v);
    volume_world_free(&w);
}
END_TEST

START_TEST(a_write_during_a_merge_wins)
{
    struct volume_world w;
    make_long_chains(&w);
    uint64_t id;
    checkpoint_hold(w.v->checkpoint);
    ck_assert_int_eq(volume_merge(w.v, &id), 0);
    while (!checkpoint_has_offer(w.v->checkpoint))
        clock_sleep_ms(2);
    // Over pages of the deltas that are merged, and a page that only the base has.
    age(&w, ROUNDS);
    for (unsigned i = 0; i < FILES; i++)
        volume_world_fill(w.v, file_of(w.v, i), 3 * STEP + STEP / 2, 4096, 7777);
    checkpoint_unhold(w.v->checkpoint);
    ck_assert_int_eq(await_job(w.v, id).state, JOB_COMPLETED);
    expect_short_chains(w.v);
    for (unsigned i = 0; i < FILES; i++)
        volume_world_expect(w.v, file_of(w.v, i), 3 * STEP + STEP / 2, 4096, 7777);
    open_elsewhere(&w);
    for (unsigned i = 0; i < FILES; i++) {
        struct object_id file = file_of(w.v, i);
        volume_world_expect(w.v, file, 3 * STEP + STEP / 2, 4096, 7777);
        volume_world_expect(w.v, file, 3 * STEP + STEP / 2 + 4096, 4096, 300 + i);
        volume_world_fill(w.v, file, 3 * STEP + STEP / 2, PIECE, 300 + i);
    }
    expect_all_is_well(&w, ROUNDS + 1);
}
END_TEST

// A truncation that comes before the fold makes a part of the offer void.
START_TEST(a_file_may_go_or_shrink_meanwhile)
{
    struct volume_world w;
    make_long_chains(&w);
    uint64_t id;
    checkpoint_hold(w.v->checkpoint);
    ck_assert_int_eq(volume_merge(w.v, &id), 0);
    while (!checkpoint_has_offer(w.v->checkpoint))
        clock_sleep_ms(2);
    struct volume_attributes a;
    struct volume_set_attributes cut = {.set = VOLUME_SET_SIZE, .size = 5 * STEP};
    ck_assert_int_eq(volume_set_attributes(w.v, file_of(w.v, 0), &cut, &a), 0);
    cut.size = 0;
    ck_assert_int_eq(volume_set_attributes(w.v, file_of(w.v, 1), &cut, &a), 0);
    checkpoint_unhold(w.v->checkpoint);
    ck_assert_int_eq(await_job(w.v, id).state, JOB_COMPLETED);
    open_elsewhere(&w);
    for (unsigned k = 0; k < 5; k++)
        volume_world_expect(w.v, file_of(w.v, 0), k * STEP + STEP / 2, PIECE, 100 * k);
    ck_assert_int_eq(volume_get_attributes(w.v, file_of(w.v, 1), &a), 0);
    ck_assert_uint_eq(a.inode.size, 0);
    volume_world_expect(w.v, file_of(w.v, 2), 0, STEP / 2, 2);
    volume_world_close(&w);
    volume_world_check(&w);
    volume_world_free(&w);
}
END_TEST

// ---- deaths -------------------------------------------------------------------------------------

// Not a test, so it asserts nothing.
static int
be_victim(const char *directory)
{
    struct volume_world w;
    BUFFER_AUTO error = {0};
    struct job_record job = {.state = JOB_PENDING};
    uint64_t id;
    volume_world_join(&w, directory);
    if (volume_open(&w.config, NULL, &w.v, &error) < 0 || volume_merge(w.v, &id) < 0)
        return 1;
    while (job.state == JOB_PENDING || job.state == JOB_IN_FLIGHT)
        if (volume_job_look(w.v, id, false, &job) < 0)
            return 2;
    return 3;
}

static void
die_merging(struct volume_world *w, const char *point)
{
    fflush(stdout);
    pid_t pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        // The point is read when a program starts.
        unit_set_fault_hook("CKPTFS_CRASH_AT", point);
        execl("/proc/self/exe", "test_volume_merge", w->directory, (char *)NULL);
        _exit(127);
    }
    int status;
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_msg(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "%s: %d", point, status);
}

static const char *const steps[] = {"merge.fetched", "checkpoint.planned", "checkpoint.staged",
    "checkpoint.recorded", "checkpoint.uploaded", "checkpoint.published_remotely"};

// Copies the store of a world.
static void
copy_store(const struct volume_world *w, const char *from, const char *to)
{
    CLEANUP(memory_free_auto)
    char *command =
        memory_printf("cd '%s' && rm -rf '%s' && cp -a '%s' '%s'", w->directory, to, from, to);
    ck_assert_int_eq(system(command), 0);
}

START_TEST(a_death_at_any_step_harms_nothing)
{
    struct volume_world w;
    make_long_chains(&w);
    volume_world_close(&w);
    copy_store(&w, "store", "store.old");
    for (size_t i = 0; i < ARRAY_LENGTH(steps); i++) {
        volume_world_lose_root(&w);
        copy_store(&w, "store.old", "store");
        die_merging(&w, steps[i]);
        volume_world_open(&w); // the queue goes on with the job
        expect(w.v, ROUNDS);
        merge_now(w.v);
        expect_short_chains(w.v);
        expect(w.v, ROUNDS);
        volume_world_close(&w);
        volume_world_check(&w);
    }
    volume_world_lose_root(&w);
    volume_world_open(&w);
    expect(w.v, ROUNDS);
    volume_world_free(&w);
}
END_TEST

// ---- sources that cannot be had -----------------------------------------------------------------

static int
keep_newest(void *argument, const struct chunk_delta *delta)
{
    *(struct chunk_delta *)argument = *delta;
    return 1;
}

// Spoils the newest delta of a file in the store.
static void
spoil(struct volume_world *w, unsigned file)
{
    struct manifest_reader *r;
    struct chunk_delta delta = {0};
    char hex[65];
    struct chunk_id id = chunk_of(w->v, file_of(w->v, file)).id;
    ck_assert_int_eq(manifest_read_begin(w->v->manifest, &r), 0);
    ck_assert_int_eq(manifest_read_deltas(r, w->v->db, id, keep_newest, &delta), 1);
    manifest_read_end(r);
    sha256_to_hex(&delta.where.blob, hex);
    CLEANUP(memory_free_auto)
    char *command = memory_printf("find '%s/store' -type f -name '*%s*'", w->directory, hex);
    FILE *found = popen(command, "r");
    char path[4096] = "";
    ck_assert_ptr_nonnull(fgets(path, sizeof(path), found));
    pclose(found);
    path[strcspn(path, "\n")] = 0;
    FILE *blob = fopen(path, "r+");
    ck_assert_ptr_nonnull(blob);
    ck_assert_int_eq(fseek(blob, (long)delta.where.offset, SEEK_SET), 0);
    for (uint64_t i = 0; i < delta.where.length; i++)
        ck_assert_int_eq(fputc(0x5a, blob), 0x5a);
    fclose(blob);
}

START_TEST(a_damaged_source_is_left_alone)
{
    struct volume_world w;
    make_long_chains(&w);
    spoil(&w, 1);
    merge_now(w.v);
    ck_assert_uint_le(chunk_of(w.v, file_of(w.v, 0)).delta_count, 5);
    ck_assert_uint_eq(chunk_of(w.v, file_of(w.v, 1)).delta_count, ROUNDS);
    ck_assert_uint_le(chunk_of(w.v, file_of(w.v, 2)).delta_count, 5);
    struct checkpoint_numbers before, after;
    checkpoint_numbers(w.v->checkpoint, &before);
    merge_now(w.v); // does not try again and again
    checkpoint_numbers(w.v->checkpoint, &after);
    ck_assert_uint_eq(after.folds, before.folds);
    // The rest of the volume works on.
    volume_world_expect(w.v, file_of(w.v, 2), 0, STEP / 2, 2);
    volume_world_fill(w.v, file_of(w.v, 1), 0, 4096, 1);
    volume_world_publish(w.v);
    volume_world_close(&w);
    volume_world_check(&w);
    volume_world_free(&w);
}
END_TEST

START_TEST(an_unreachable_store_costs_nothing)
{
    struct volume_world w;
    make_long_chains(&w);
    volume_world_script_faults(&w);
    volume_world_set_faults(&w, "");
    open_elsewhere(&w);
    w.v->reader->deadline_ms = 50;
    volume_world_set_faults(&w, "outage");
    uint64_t id;
    ck_assert_int_eq(volume_merge(w.v, &id), 0);
    (void)await_job(w.v, id);
    ck_assert_uint_eq(chunk_of(w.v, file_of(w.v, 0)).delta_count, ROUNDS);
    volume_world_set_faults(&w, "");
    expect_all_is_well(&w, ROUNDS);
}
END_TEST

// ---- packs --------------------------------------------------------------------------------------

struct packs {
    uint64_t bytes;
    uint64_t live_bytes;
};

static int
add_pack(void *argument, const struct blob_record *blob)
{
    struct packs *sum = argument;
    if (blob->kind == BLOB_OBJECT_PACK) {
        sum->bytes += blob->bytes;
        sum->live_bytes += blob->live_bytes;
    }
    return 0;
}

static struct packs
packs_of(struct volume *v)
{
    struct manifest_reader *r;
    struct packs sum = {0};
    struct sha256 first = {{0}};
    ck_assert_int_eq(manifest_read_begin(v->manifest, &r), 0);
    ck_assert_int_eq(manifest_read_remote_blobs(r, v->db, &first, add_pack, &sum), 0);
    manifest_read_end(r);
    return sum;
}

#define SMALL_FILES 48u
#define SMALL_BYTES 16384u

START_TEST(poor_packs_are_written_again)
{
    struct volume_world w;
    volume_world_new(&w);
    volume_world_open(&w);
    char name[16];
    for (unsigned i = 0; i < SMALL_FILES; i++) {
        name_of(i, name);
        volume_world_fill(w.v, volume_world_make_file(w.v, name), 0, SMALL_BYTES, i);
    }
    volume_world_publish(w.v);
    struct volume_attributes a;
    struct volume_set_attributes cut = {.set = VOLUME_SET_SIZE, .size = 0};
    for (unsigned i = 0; i < SMALL_FILES; i++)
        if (i % 4 > 0)
            ck_assert_int_eq(volume_set_attributes(w.v, file_of(w.v, i), &cut, &a), 0);
    open_elsewhere(&w);
    struct packs before = packs_of(w.v);
    ck_assert_uint_gt(before.bytes, 3 * before.live_bytes);
    merge_now(w.v);
    struct packs after = packs_of(w.v);
    ck_assert_uint_le(100 * after.bytes, 115 * after.live_bytes);
    open_elsewhere(&w);
    for (unsigned i = 0; i < SMALL_FILES; i += 4)
        volume_world_expect(w.v, file_of(w.v, i), 0, SMALL_BYTES, i);
    volume_world_close(&w);
    volume_world_check(&w);
    volume_world_free(&w);
}
END_TEST

// ---- by itself ----------------------------------------------------------------------------------

START_TEST(a_volume_looks_after_itself)
{
    struct volume_world w;
    make_long_chains(&w);
    volume_world_close(&w);
    w.config.checkpoint_interval_ms = 20;
    w.config.merge_interval_ms = 10;
    volume_world_open(&w);
    while (chunk_of(w.v, file_of(w.v, 0)).delta_count > 5 ||
           chunk_of(w.v, file_of(w.v, FILES - 1)).delta_count > 5)
        clock_sleep_ms(5);
    expect_all_is_well(&w, ROUNDS);
}
END_TEST

int
main(int argc, char **argv)
{
    if (argc > 1)
        return be_victim(argv[1]);
    Suite *s = suite_create("merge");
#define ADD(test) unit_add(s, #test, test, 60)
    ADD(chains_become_short_on_a_bare_host);
    ADD(nothing_is_done_twice);
    ADD(a_write_during_a_merge_wins);
    ADD(a_file_may_go_or_shrink_meanwhile);
    ADD(a_death_at_any_step_harms_nothing);
    ADD(a_damaged_source_is_left_alone);
    ADD(an_unreachable_store_costs_nothing);
    ADD(poor_packs_are_written_again);
    ADD(a_volume_looks_after_itself);
    return unit_run(s);
}
