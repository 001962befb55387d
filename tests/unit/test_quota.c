// SPDX-License-Identifier: Apache-2.0
// The account of a storage root: against the limits, against other processes, and against what the
// disk says of the files.
#include "unit.h"

#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/checksum.h"
#include "platform/clock.h"
#include "platform/memory.h"
#include "quota/quota_file.h"
#include "quota/quota_job.h"
#include "quota/storage_quota.h"
#include "store/local_store.h"
#include "wal/wal.h"

#define MIB (UINT64_C(1) << 20)

static char *root;

static void
begin(void)
{
    root = unit_directory_new();
}

static void
end(void)
{
    unit_directory_remove(root);
}

// A random number that a seed repeats.
static uint64_t
next_random(uint64_t *state)
{
    *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return *state >> 33;
}

static struct storage_quota_numbers
numbers_of(const struct storage_quota *q)
{
    struct storage_quota_numbers n;
    storage_quota_numbers(q, &n);
    return n;
}

// ---- limits -------------------------------------------------------------------------------------

START_TEST(each_need_has_its_limit)
{
    struct storage_quota *q = storage_quota_open(root, "db/1");
    ck_assert_int_eq(storage_quota_reserve(q, QUOTA_BLOBS, QUOTA_CACHE, 1000 * MIB), 0);
    storage_quota_give_back(q, QUOTA_BLOBS, 1000 * MIB);
    storage_quota_set_limit(q, 256 * MIB);
    // An eighth is the floor, a thirty-second the reserve; a segment promises as much as it has.
    ck_assert_int_eq(storage_quota_reserve(q, QUOTA_BLOBS, QUOTA_CACHE, 225 * MIB), -EDQUOT);
    ck_assert_int_eq(storage_quota_reserve(q, QUOTA_BLOBS, QUOTA_CACHE, 160 * MIB), 0);
    ck_assert_int_eq(storage_quota_reserve_segment(q, 32 * MIB, false), 0);
    ck_assert_int_eq(storage_quota_reserve(q, QUOTA_BLOBS, QUOTA_CACHE, 1), -EDQUOT);
    ck_assert_int_eq(storage_quota_reserve_segment(q, 4 * MIB, false), -EDQUOT);
    ck_assert(!storage_quota_may_fill(q, QUOTA_GROW));
    ck_assert(storage_quota_may_fill(q, QUOTA_CHECKPOINT));
    ck_assert_int_eq(storage_quota_reserve_segment(q, 4 * MIB, true), 0);
    ck_assert_int_eq(storage_quota_reserve(q, QUOTA_BLOBS, QUOTA_CHECKPOINT, 52 * MIB), 0);
    ck_assert_int_eq(storage_quota_reserve(q, QUOTA_BLOBS, QUOTA_CHECKPOINT, 1), -EDQUOT);
    ck_assert_int_eq(storage_quota_reserve(q, QUOTA_BLOBS, QUOTA_LAST, 8 * MIB), 0);
    ck_assert_int_eq(storage_quota_reserve(q, QUOTA_BLOBS, QUOTA_LAST, 1), -EDQUOT);
    ck_assert_uint_eq(numbers_of(q).used, 256 * MIB);
    ck_assert_uint_eq(numbers_of(q).exhausted, 5);
    storage_quota_give_back(q, QUOTA_BLOBS, 220 * MIB);
    storage_quota_give_back_segment(q, 32 * MIB, 32 * MIB);
    storage_quota_give_back_segment(q, 4 * MIB, 4 * MIB);
    ck_assert_uint_eq(numbers_of(q).used, 0);
    ck_assert_uint_eq(numbers_of(q).promised, 0);
    storage_quota_close(q);
}
END_TEST

// What is promised to a segment must not be counted twice while its place has little else.
START_TEST(the_first_segment_may_take_half_of_what_is_left)
{
    for (unsigned of_root = 0; of_root < 2; of_root++) {
        struct storage_quota *q = storage_quota_open(root, "db/1");
        uint64_t rest = of_root ? numbers_of(q).root_used : 0;
        uint64_t limit = 64 * MIB + (rest > 0 ? 8 * MIB : 0);
        uint64_t room = (limit - limit / 8 - rest) / 2;
        if (of_root)
            storage_quota_set_root_limit(q, limit);
        else
            storage_quota_set_limit(q, limit);
        ck_assert_int_eq(storage_quota_reserve_segment(q, room + 1, false), -EDQUOT);
        ck_assert_int_eq(storage_quota_reserve_segment(q, room, false), 0);
        ck_assert_int_eq(storage_quota_reserve(q, QUOTA_BLOBS, QUOTA_CACHE, 2), -EDQUOT);
        storage_quota_give_back_segment(q, room, room);
        ck_assert_uint_eq(numbers_of(q).used, 0);
        ck_assert_uint_eq(numbers_of(q).promised, 0);
        storage_quota_close(q);
    }
}
END_TEST

START_TEST(the_limit_of_the_root_holds_for_all_places_and_stays)
{
    struct storage_quota *a = storage_quota_open(root, "db/1");
    struct storage_quota *b = storage_quota_open(root, "db/2");
    storage_quota_set_root_limit(a, 64 * MIB);
    ck_assert_int_eq(storage_quota_reserve(a, QUOTA_BLOBS, QUOTA_CACHE, 40 * MIB), 0);
    ck_assert_int_eq(storage_quota_reserve(b, QUOTA_BLOBS, QUOTA_CACHE, 40 * MIB), -EDQUOT);
    storage_quota_give_back(a, QUOTA_BLOBS, 40 * MIB);
    ck_assert_int_eq(storage_quota_reserve(b, QUOTA_BLOBS, QUOTA_CACHE, 40 * MIB), 0);
    storage_quota_note_manifest(a, 20 * MIB);
    ck_assert_int_eq(storage_quota_reserve(a, QUOTA_BLOBS, QUOTA_CACHE, 1), -EDQUOT);
    ck_assert_uint_eq(numbers_of(a).places, 2);
    storage_quota_close(a);
    storage_quota_close(b);
    a = storage_quota_open(root, "db/1");
    ck_assert_uint_eq(numbers_of(a).root_limit, 64 * MIB);
    storage_quota_close(a);
}
END_TEST

static void
make_place(const char *number)
{
    CLEANUP(memory_free_auto) char *path = memory_printf("%s/hot_cache/%s", root, number);
    ck_assert_int_eq(path_make_directories(path, 0700), 0);
}

static struct storage_quota *
open_of(const char *name, const char *tenant)
{
    struct storage_quota *q = storage_quota_open(root, name);
    storage_quota_set_tenant(q, tenant);
    return q;
}

START_TEST(the_limit_of_a_tenant_holds_for_its_places_and_stays)
{
    make_place("1");
    make_place("2");
    struct storage_quota *a = open_of("db/1", "acme");
    struct storage_quota *b = open_of("db/2", "acme");
    struct storage_quota *other = open_of("db/3", "acme2");
    storage_quota_set_tenant_limit(a, 64 * MIB);
    ck_assert(storage_quota_is_limited(b) && !storage_quota_is_limited(other));
    ck_assert_int_eq(storage_quota_reserve(a, QUOTA_BLOBS, QUOTA_CACHE, 40 * MIB), 0);
    ck_assert_int_eq(storage_quota_reserve(b, QUOTA_BLOBS, QUOTA_CACHE, 40 * MIB), -EDQUOT);
    ck_assert_int_eq(storage_quota_reserve(other, QUOTA_BLOBS, QUOTA_CACHE, 400 * MIB), 0);
    ck_assert_uint_eq(numbers_of(b).tenant_used, 40 * MIB);
    ck_assert_uint_eq(numbers_of(b).tenant_places, 2);
    ck_assert_uint_eq(numbers_of(b).room, 16 * MIB);
    ck_assert_uint_eq(numbers_of(other).tenant_limit, 0);
    ck_assert_uint_eq(numbers_of(other).tenant_used, 400 * MIB);
    storage_quota_give_back(a, QUOTA_BLOBS, 40 * MIB);
    ck_assert_int_eq(storage_quota_reserve(b, QUOTA_BLOBS, QUOTA_CACHE, 40 * MIB), 0);
    // The limit of the root holds beside it.
    storage_quota_set_root_limit(b, 440 * MIB);
    ck_assert_int_eq(storage_quota_reserve(a, QUOTA_BLOBS, QUOTA_LAST, MIB), -EDQUOT);
    storage_quota_set_root_limit(b, 0);
    // A new place has it at once, and it outlives the processes.
    struct storage_quota *c = open_of("db/4", "acme");
    ck_assert_uint_eq(numbers_of(c).tenant_limit, 64 * MIB);
    ck_assert_int_eq(storage_quota_reserve(c, QUOTA_BLOBS, QUOTA_CACHE, 40 * MIB), -EDQUOT);
    storage_quota_close(a);
    storage_quota_close(b);
    storage_quota_close(c);
    storage_quota_close(other);
    a = open_of("db/1", "acme");
    ck_assert_uint_eq(numbers_of(a).tenant_limit, 64 * MIB);
    storage_quota_set_tenant_limit(a, 0);
    b = open_of("db/2", "acme");
    ck_assert_uint_eq(numbers_of(b).tenant_limit, 0);
    storage_quota_close(a);
    storage_quota_close(b);
}
END_TEST

static bool
free_some(void *argument, const struct quota_wanted *wanted)
{
    struct storage_quota *q = *(struct storage_quota **)argument;
    ck_assert(!storage_quota_has_room(q, wanted));
    if (numbers_of(q).used < wanted->bytes)
        return false;
    storage_quota_give_back(q, QUOTA_BLOBS, wanted->bytes);
    ck_assert(storage_quota_has_room(q, wanted));
    return true;
}

START_TEST(who_reserves_makes_room)
{
    struct storage_quota *q = storage_quota_open(root, "db/1");
    storage_quota_set_limit(q, 64 * MIB);
    ck_assert_int_eq(storage_quota_reserve(q, QUOTA_BLOBS, QUOTA_CACHE, 56 * MIB), 0);
    storage_quota_set_host(q, free_some, &q);
    ck_assert_int_eq(storage_quota_reserve(q, QUOTA_BLOBS, QUOTA_CACHE, 30 * MIB), 0);
    ck_assert_uint_eq(numbers_of(q).used, 56 * MIB);
    ck_assert_uint_eq(numbers_of(q).exhausted, 0);
    ck_assert_int_eq(storage_quota_reserve(q, QUOTA_BLOBS, QUOTA_CACHE, 57 * MIB), -EDQUOT);
    ck_assert_uint_eq(numbers_of(q).exhausted, 1);
    storage_quota_note_exhausted(q);
    ck_assert_uint_eq(numbers_of(q).exhausted, 2);
    storage_quota_close(q);
}
END_TEST

// ---- the log ------------------------------------------------------------------------------------

static int
refuse_replay(void *argument UNUSED, const struct wal_replayed *record UNUSED)
{
    return -EINVAL;
}

// Records without data may make room; they go on where data has to wait.
START_TEST(a_removal_is_logged_when_there_is_no_room_for_data)
{
    CLEANUP(memory_free_auto) char *directory = memory_printf("%s/tenants/t/1/wal", root);
    BUFFER_AUTO error = {0};
    struct wal *w;
    ck_assert_int_eq(path_make_directories(directory, 0700), 0);
    struct storage_quota *q = storage_quota_open(root, "db/1");
    storage_quota_set_limit(q, 64 * MIB);
    struct wal_options options = {
        .directory = directory,
        .volume = {.b = {1}},
        .limit_bytes = 16 * MIB,
        .segment_bytes = 4 * MIB,
        .quota = q,
    };
    ck_assert_int_eq(wal_open(&options, (struct lsn){0}, refuse_replay, NULL, &w, &error), 0);
    ck_assert_int_eq(storage_quota_reserve(q, QUOTA_BLOBS, QUOTA_CHECKPOINT, 50 * MIB), 0);
    ck_assert(!storage_quota_may_fill(q, QUOTA_GROW));
    unsigned pieces = 0;
    while (wal_reserve(w, 1u << 16, clock_monotonic_ms()) == 0)
        ck_assert_uint_lt(++pieces, 1000);
    ck_assert_int_eq(wal_reserve(w, 200, clock_monotonic_ms()), -ENOSPC);
    struct wal_numbers n;
    wal_numbers(w, &n);
    ck_assert(n.quota_full);
    // Nothing of it is written here: the ring is what there is room in.
    for (; pieces > 0; pieces--)
        wal_unreserve(w, 1u << 16);
    ck_assert_int_eq(wal_reserve_past_quota(w, 200), 0);
    wal_unreserve(w, 200);
    ck_assert_int_eq(wal_close(w), 0);
    storage_quota_close(q);
}
END_TEST

// ---- jobs ---------------------------------------------------------------------------------------

START_TEST(jobs_have_a_share_and_leave_the_rest_to_others)
{
    struct storage_quota *q = open_of("db/1", "acme");
    struct quota_job *job = quota_job_begin(q);
    ck_assert_int_eq(quota_job_ask(job, 1000 * MIB), 0); // there is no limit
    quota_job_give_back(job, 1000 * MIB);
    storage_quota_set_limit(q, 100 * MIB);
    ck_assert_uint_eq(storage_quota_job_limit(q), 75 * MIB);
    ck_assert_int_eq(quota_job_ask(job, 70 * MIB), 0);
    ck_assert(!quota_job_was_refused(job));
    ck_assert_int_eq(quota_job_ask(job, 10 * MIB), -EDQUOT);
    ck_assert(quota_job_was_refused(job));
    ck_assert_uint_eq(numbers_of(q).jobs, 70 * MIB);
    ck_assert_uint_eq(numbers_of(q).job_room, 5 * MIB);
    ck_assert_uint_eq(numbers_of(q).job_refusals, 1);
    // Two jobs share, and programs have the whole quota.
    struct quota_job *second = quota_job_begin(q);
    ck_assert_int_eq(quota_job_ask(second, 10 * MIB), -EDQUOT);
    ck_assert_int_eq(storage_quota_reserve(q, QUOTA_BLOBS, QUOTA_CACHE, 85 * MIB), 0);
    // A change holds at once.
    storage_quota_set_job_share(q, 80);
    ck_assert_int_eq(quota_job_ask(second, 10 * MIB), 0);
    storage_quota_set_job_share(q, 10);
    ck_assert_uint_eq(numbers_of(q).job_limit, 10 * MIB);
    ck_assert_uint_eq(numbers_of(q).job_room, 0);
    quota_job_end(second);
    ck_assert_uint_eq(numbers_of(q).jobs, 70 * MIB);
    quota_job_end(job);
    ck_assert_uint_eq(numbers_of(q).jobs, 0);
    // Without a budget, and without a quota.
    ck_assert_int_eq(quota_job_ask(NULL, 1000 * MIB), 0);
    job = quota_job_begin(NULL);
    ck_assert_int_eq(quota_job_ask(job, 1000 * MIB), 0);
    quota_job_end(job);
    storage_quota_close(q);
}
END_TEST

// Begins a job, says so, and goes on holding it until it is killed.
static void
hold_a_job(const char *name, int done)
{
    struct storage_quota *q = open_of(name, "acme");
    struct quota_job *job = quota_job_begin(q);
    bool good = quota_job_ask(job, 60 * MIB) == 0;
    if (write(done, &good, sizeof(good)) < 0)
        _exit(1);
    for (;;)
        pause();
}

START_TEST(jobs_of_all_places_share_and_a_killed_one_is_forgotten)
{
    make_place("1");
    make_place("2");
    int done[2];
    bool good = false;
    struct storage_quota *q = open_of("db/1", "acme");
    storage_quota_set_tenant_limit(q, 100 * MIB);
    ck_assert_int_eq(pipe(done), 0);
    pid_t pid = fork();
    if (pid == 0)
        hold_a_job("db/2", done[1]);
    ck_assert_int_eq(read(done[0], &good, sizeof(good)), sizeof(good));
    struct quota_job *job = quota_job_begin(q);
    int while_it_lives = quota_job_ask(job, 60 * MIB);
    kill(pid, SIGKILL);
    ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
    ck_assert(good);
    ck_assert_int_eq(while_it_lives, -EDQUOT);
    ck_assert_int_eq(quota_job_ask(job, 60 * MIB), 0);
    quota_job_end(job);
    ck_assert_uint_eq(numbers_of(q).job_room, 75 * MIB);
    storage_quota_close(q);
    close(done[0]);
    close(done[1]);
}
END_TEST

// ---- other processes ----------------------------------------------------------------------------

// Reserves and gives back at random, and watches that the sum is within the limit whenever it has
// been granted something. Ends by itself, holding what it has.
static void
reserve_at_random(const char *name, uint64_t seed)
{
    struct storage_quota *q = open_of(name, "acme");
    uint64_t held = 0;
    for (unsigned i = 0; i < 20000; i++) {
        uint64_t bytes = (1 + next_random(&seed) % 12) * MIB;
        if (held >= bytes && next_random(&seed) % 2) {
            storage_quota_give_back(q, QUOTA_BLOBS, bytes);
            held -= bytes;
        } else if (storage_quota_reserve(q, QUOTA_BLOBS, QUOTA_LAST, bytes) == 0) {
            held += bytes;
        }
        if (numbers_of(q).used != held)
            _exit(2);
    }
    _exit(0);
}

// Of the root, or of a tenant that has all places but for one.
START_TEST(processes_that_reserve_at_once_stay_below_the_limit)
{
    struct storage_quota *q = open_of("db/9", "acme");
    struct storage_quota *other = open_of("db/8", "other");
    uint64_t rest = numbers_of(q).root_used;
    // Granted bytes are whole MiB: what is refused is added for a moment, but never granted.
    if (_i == 0)
        storage_quota_set_root_limit(q, 64 * MIB + rest);
    else
        storage_quota_set_tenant_limit(q, 64 * MIB);
    if (_i > 0)
        ck_assert_int_eq(storage_quota_reserve(other, QUOTA_BLOBS, QUOTA_LAST, 90 * MIB), 0);
    uint64_t seed = (uint64_t)getpid();
    pid_t pids[3];
    for (unsigned i = 0; i < 3; i++) {
        pids[i] = fork();
        char name[16];
        snprintf(name, sizeof(name), "db/%u", i + 1);
        if (pids[i] == 0)
            reserve_at_random(name, seed + i);
    }
    for (unsigned i = 0; i < 3; i++) {
        int status;
        ck_assert_int_eq(waitpid(pids[i], &status, 0), pids[i]);
        ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %d, seed %llu", status,
            (unsigned long long)seed);
    }
    ck_assert_uint_le(
        _i == 0 ? numbers_of(q).root_used - rest : numbers_of(q).tenant_used, 64 * MIB);
    storage_quota_close(other);
    storage_quota_close(q);
}
END_TEST

START_TEST(a_place_that_is_gone_is_not_counted)
{
    CLEANUP(memory_free_auto) char *cache = memory_printf("%s/hot_cache/1", root);
    ck_assert_int_eq(path_make_directories(cache, 0700), 0);
    struct storage_quota *a = storage_quota_open(root, "db/1");
    ck_assert_int_eq(storage_quota_reserve(a, QUOTA_BLOBS, QUOTA_CACHE, 10 * MIB), 0);
    ck_assert_int_eq(rmdir(cache), 0);
    // A process has it.
    struct storage_quota *b = storage_quota_open(root, "db/2");
    ck_assert_uint_ge(numbers_of(b).root_used, 10 * MIB);
    storage_quota_close(b);
    storage_quota_close(a);
    b = storage_quota_open(root, "db/2");
    ck_assert_uint_lt(numbers_of(b).root_used, 10 * MIB);
    storage_quota_close(b);
}
END_TEST

// ---- bad files ----------------------------------------------------------------------------------

static void
spoil(uint64_t offset, const void *p, size_t n)
{
    CLEANUP(memory_free_auto) char *path = memory_printf("%s/quota", root);
    CLEANUP(file_close_auto) int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(pwrite(fd, p, n, (off_t)offset), (ssize_t)n);
}

START_TEST(a_damaged_file_is_made_anew)
{
    CLEANUP(memory_free_auto) char *cache = memory_printf("%s/hot_cache/7", root);
    CLEANUP(memory_free_auto) char *blob = memory_printf("%s/some.part", cache);
    CLEANUP(memory_free_auto) uint8_t *bytes = memory_alloc_zero(MIB);
    ck_assert_int_eq(path_make_directories(cache, 0700), 0);
    ck_assert_int_eq(file_replace_whole(&file_ops_system, blob, bytes, MIB, 0600), 0);
    static const uint8_t garbage[64] = {1, 2, 3, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255};
    for (unsigned at = 0; at <= 40; at += 8) {
        struct storage_quota *q = storage_quota_open(root, "db/1");
        storage_quota_set_root_limit(q, 64 * MIB);
        storage_quota_close(q);
        spoil(at, garbage, sizeof(garbage));
        q = storage_quota_open(root, "db/1");
        // The place that nobody has is counted, too.
        ck_assert_uint_ge(numbers_of(q).root_used, MIB);
        ck_assert_uint_lt(numbers_of(q).root_used, 3 * MIB);
        ck_assert_uint_eq(numbers_of(q).root_limit, 0);
        storage_quota_close(q);
    }
}
END_TEST

static size_t
slot_at(unsigned i, size_t offset)
{
    return QUOTA_HEADER_BYTES + i * sizeof(struct quota_slot) + offset;
}

// The words that an older program has left at zero.
START_TEST(places_of_an_older_program_count_for_their_tenant)
{
    make_place("1");
    make_place("2");
    CLEANUP(memory_free_auto) char *log_1 = memory_printf("%s/tenants/acme/1/wal", root);
    CLEANUP(memory_free_auto) char *log_2 = memory_printf("%s/tenants/zeta/2/wal", root);
    CLEANUP(memory_free_auto) char *segment = memory_printf("%s/segment-1", log_1);
    CLEANUP(memory_free_auto) uint8_t *bytes = memory_alloc_zero(MIB);
    ck_assert_int_eq(path_make_directories(log_1, 0700), 0);
    ck_assert_int_eq(path_make_directories(log_2, 0700), 0);
    ck_assert_int_eq(file_replace_whole(&file_ops_system, segment, bytes, MIB, 0600), 0);
    struct storage_quota *old_1 = storage_quota_open(root, "db/1");
    struct storage_quota *old_2 = storage_quota_open(root, "db/2");
    storage_quota_set_root_limit(old_1, 640 * MIB);
    ck_assert_int_eq(storage_quota_reserve(old_2, QUOTA_BLOBS, QUOTA_LAST, 9 * MIB), 0);
    static const uint64_t zeros[4] = {0};
    spoil(slot_at(0, offsetof(struct quota_slot, tenant)), zeros, sizeof(zeros));
    spoil(slot_at(1, offsetof(struct quota_slot, tenant)), zeros, sizeof(zeros));
    struct storage_quota *q = open_of("db/3", "acme");
    ck_assert_uint_eq(numbers_of(q).tenant_places, 2);
    ck_assert_uint_ge(numbers_of(q).tenant_used, MIB);
    ck_assert_uint_lt(numbers_of(q).tenant_used, 2 * MIB);
    ck_assert_uint_eq(numbers_of(q).root_limit, 640 * MIB);
    // They still run.
    storage_quota_set_tenant_limit(q, 64 * MIB);
    ck_assert_int_eq(storage_quota_reserve(old_1, QUOTA_BLOBS, QUOTA_CACHE, 60 * MIB), -EDQUOT);
    ck_assert_uint_eq(numbers_of(old_2).tenant_limit, 0);
    storage_quota_close(old_1);
    storage_quota_close(old_2);
    storage_quota_close(q);
}
END_TEST

START_TEST(a_limit_that_is_set_in_part_of_the_places_is_made_whole)
{
    make_place("1");
    make_place("2");
    make_place("3");
    const char *const names[] = {"db/1", "db/2", "db/3"};
    struct storage_quota *q[3];
    for (unsigned i = 0; i < 3; i++)
        q[i] = open_of(names[i], "acme");
    storage_quota_set_tenant_limit(q[0], 128 * MIB);
    for (unsigned i = 0; i < 3; i++)
        storage_quota_close(q[i]);
    // Killed behind the first place, and between the two words of the second.
    const uint64_t whole[2] = {64 * MIB, ~(64 * MIB)};
    const uint64_t half[1] = {65 * MIB};
    spoil(slot_at(0, offsetof(struct quota_slot, tenant_limit)), whole, sizeof(whole));
    spoil(slot_at(1, offsetof(struct quota_slot, tenant_limit)), half, sizeof(half));
    q[2] = open_of("db/3", "acme");
    ck_assert_uint_eq(numbers_of(q[2]).tenant_limit, 64 * MIB);
    q[1] = storage_quota_open(root, "db/2");
    ck_assert_uint_eq(numbers_of(q[1]).tenant_limit, 64 * MIB);
    // A place that another tenant gets does not bring it along.
    storage_quota_set_tenant(q[1], "other");
    ck_assert_uint_eq(numbers_of(q[1]).tenant_limit, 0);
    storage_quota_close(q[1]);
    storage_quota_close(q[2]);
}
END_TEST

START_TEST(after_a_crash_of_the_machine_all_places_are_counted)
{
    CLEANUP(memory_free_auto) char *cache = memory_printf("%s/hot_cache/7", root);
    ck_assert_int_eq(path_make_directories(cache, 0700), 0);
    struct storage_quota *q = storage_quota_open(root, "db/7");
    storage_quota_set_root_limit(q, 64 * MIB);
    ck_assert_int_eq(storage_quota_reserve(q, QUOTA_BLOBS, QUOTA_CACHE, 10 * MIB), 0);
    storage_quota_close(q);
    static const uint8_t other_boot[16] = {1, 2, 3};
    spoil(offsetof(struct quota_header, boot_id), other_boot, sizeof(other_boot));
    q = storage_quota_open(root, "db/1");
    ck_assert_uint_lt(numbers_of(q).root_used, MIB);
    ck_assert_uint_eq(numbers_of(q).root_limit, 64 * MIB);
    storage_quota_close(q);
}
END_TEST

START_TEST(without_the_file_a_mount_counts_for_itself)
{
    CLEANUP(memory_free_auto) char *path = memory_printf("%s/quota", root);
    ck_assert_int_eq(mkdir(path, 0700), 0);
    struct storage_quota *q = storage_quota_open(root, "db/1");
    storage_quota_set_limit(q, 64 * MIB);
    ck_assert_int_eq(storage_quota_reserve(q, QUOTA_BLOBS, QUOTA_CACHE, 60 * MIB), -EDQUOT);
    ck_assert_int_eq(storage_quota_reserve(q, QUOTA_BLOBS, QUOTA_CACHE, 50 * MIB), 0);
    storage_quota_close(q);
}
END_TEST

START_TEST(what_is_removed_is_given_back_file_or_directory)
{
    CLEANUP(memory_free_auto) char *scratch = memory_printf("%s/checkpoint_scratch/1", root);
    CLEANUP(memory_free_auto) char *job = memory_printf("%s/job", scratch);
    CLEANUP(memory_free_auto) char *file = memory_printf("%s/record.tmp", scratch);
    CLEANUP(memory_free_auto) char *blob = memory_printf("%s/blob-0", job);
    ck_assert_int_eq(path_make_directories(job, 0700), 0);
    ck_assert_int_eq(file_replace_whole(&file_ops_system, file, "x", 1, 0600), 0);
    ck_assert_int_eq(file_replace_whole(&file_ops_system, blob, "x", 1, 0600), 0);
    struct storage_quota *q = storage_quota_open(root, "db/1");
    ck_assert_uint_eq(numbers_of(q).blobs, 2 * storage_quota_path_bytes(file));
    ck_assert_int_eq(storage_quota_remove_tree(q, QUOTA_BLOBS, job), 0);
    ck_assert_int_eq(storage_quota_remove_tree(q, QUOTA_BLOBS, file), 0);
    ck_assert_int_eq(storage_quota_remove_tree(q, QUOTA_BLOBS, file), 0);
    ck_assert_uint_eq(numbers_of(q).blobs, 0);
    storage_quota_close(q);
}
END_TEST

// ---- against the disk ---------------------------------------------------------------------------

#define BLOBS 12u

static struct sha256
hash_of(unsigned blob)
{
    struct sha256 hash;
    sha256_of(&blob, sizeof(blob), &hash);
    return hash;
}

static void
adopt(struct local_store *s, struct storage_quota *q, unsigned blob, uint64_t bytes)
{
    CLEANUP(memory_free_auto) char *path = memory_printf("%s/staged", local_store_scratch(s));
    CLEANUP(memory_free_auto) uint8_t *content = memory_alloc(bytes);
    struct sha256 hash = hash_of(blob);
    memset(content, 7, bytes);
    uint64_t reserved = storage_quota_blocks_for(bytes);
    ck_assert_int_eq(storage_quota_reserve(q, QUOTA_BLOBS, QUOTA_CHECKPOINT, reserved), 0);
    ck_assert_int_eq(file_replace_whole(&file_ops_system, path, content, bytes, 0600), 0);
    storage_quota_settle(q, QUOTA_BLOBS, reserved, storage_quota_path_bytes(path));
    ck_assert_int_eq(local_store_adopt(s, path, &hash), 0);
}

static bool
evict_any(void *argument, const struct sha256 *hash UNUSED, bool whole UNUSED)
{
    uint64_t *seed = argument;
    return next_random(seed) % 2;
}

static void
step(struct local_store *s, struct storage_quota *q, uint64_t *seed)
{
    static uint8_t bytes[300000];
    struct sha256 hash = hash_of((unsigned)(next_random(seed) % BLOBS));
    uint64_t offset = next_random(seed) % 3000000;
    size_t n = 1 + next_random(seed) % sizeof(bytes);
    switch (next_random(seed) % 8) {
    case 0:
        adopt(s, q, (unsigned)(next_random(seed) % BLOBS), n);
        break;
    case 1:
        ck_assert_int_eq(local_store_remove(s, &hash), 0);
        break;
    case 2:
        ck_assert_int_ge(next_random(seed) % 2 ? local_store_evict(s, evict_any, seed, n)
                                               : local_store_make_room(s, evict_any, seed, n),
            0);
        break;
    case 3:
        (void)!local_store_read(s, &hash, offset, bytes, n);
        break;
    default:
        memset(bytes, 1, n);
        ck_assert_int_eq(local_store_keep(s, &hash, offset, bytes, n), 0);
    }
}

// What the files of the place have on the disk.
static uint64_t
scan(void)
{
    uint64_t log, blobs;
    quota_count_place(root, "db/1", &log, &blobs);
    return blobs;
}

static struct local_store *
open_store(struct storage_quota **quota_out)
{
    struct local_store *s;
    ck_assert_int_eq(local_store_open(NULL, root, (struct db_id){1}, &s), 0);
    *quota_out = storage_quota_open(root, "db/1");
    storage_quota_set_limit(*quota_out, 1024 * MIB); // or nothing would be known of use
    local_store_set_quota(s, *quota_out);
    return s;
}

START_TEST(the_account_is_what_the_disk_says)
{
    uint64_t seed = (uint64_t)getpid() * 77;
    struct storage_quota *q;
    struct local_store *s = open_store(&q);
    for (unsigned i = 0; i < 1500; i++) {
        uint64_t before = seed;
        step(s, q, &seed);
        ck_assert_msg(numbers_of(q).blobs == scan(), "step %u of seed %llu: %llu, disk %llu", i,
            (unsigned long long)before, (unsigned long long)numbers_of(q).blobs,
            (unsigned long long)scan());
    }
    local_store_close(s);
    storage_quota_close(q);
}
END_TEST

static struct local_store *removes_while_written;
static const struct sha256 written = {{7}};

static ssize_t
remove_and_write(int fd, const struct iovec *iov, int count, off_t offset, bool durable)
{
    struct local_store *s = removes_while_written;
    removes_while_written = NULL;
    if (s)
        ck_assert_int_ge(local_store_remove(s, &written), 0);
    return file_ops_system.pwritev(fd, iov, count, offset, durable);
}

// A copy that is removed before its first bytes are written has no blocks yet when it goes.
START_TEST(a_copy_that_is_removed_while_it_is_written_is_given_back)
{
    struct file_ops ops = file_ops_system;
    struct local_store *s;
    ops.pwritev = remove_and_write;
    ck_assert_int_eq(local_store_open(&ops, root, (struct db_id){1}, &s), 0);
    struct storage_quota *q = storage_quota_open(root, "db/1");
    storage_quota_set_limit(q, 1024 * MIB);
    local_store_set_quota(s, q);
    CLEANUP(memory_free_auto) uint8_t *bytes = memory_alloc_zero(MIB);
    removes_while_written = s;
    ck_assert_int_eq(local_store_keep(s, &written, 0, bytes, MIB), 0);
    ck_assert_ptr_null(removes_while_written);
    ck_assert_uint_eq(scan(), 0);
    ck_assert_uint_eq(numbers_of(q).blobs, 0);
    local_store_close(s);
    storage_quota_close(q);
}
END_TEST

// The other process is killed at any moment. What it leaves counts at least what is there, and the
// next mount counts exactly that.
START_TEST(a_kill_leaves_no_drift)
{
    uint64_t seed = (uint64_t)getpid() * 99;
    for (unsigned round = 0; round < 25; round++) {
        pid_t pid = fork();
        if (pid == 0) {
            struct storage_quota *q;
            struct local_store *s = open_store(&q);
            for (;;)
                step(s, q, &seed);
        }
        usleep((useconds_t)(next_random(&seed) % 30000));
        kill(pid, SIGKILL);
        ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
        struct quota_file file;
        quota_file_open(root, "db/1", &file);
        ck_assert_uint_ge(file.slot->blobs, scan());
        quota_file_close(&file);
        struct storage_quota *q = storage_quota_open(root, "db/1");
        ck_assert_uint_eq(numbers_of(q).blobs, scan());
        storage_quota_close(q);
    }
}
END_TEST

static void
add_ways(Suite *suite, const char *name, const TTest *test, int ways)
{
    TCase *tcase = tcase_create(name);
    tcase_set_timeout(tcase, 120);
    tcase_add_checked_fixture(tcase, begin, end);
    tcase_add_loop_test(tcase, test, 0, ways);
    suite_add_tcase(suite, tcase);
}

static void
add(Suite *suite, const char *name, const TTest *test)
{
    add_ways(suite, name, test, 1);
}

int
main(void)
{
    Suite *suite = suite_create("quota");
    add(suite, "needs", each_need_has_its_limit);
    add(suite, "segment", the_first_segment_may_take_half_of_what_is_left);
    add(suite, "root", the_limit_of_the_root_holds_for_all_places_and_stays);
    add(suite, "tenant", the_limit_of_a_tenant_holds_for_its_places_and_stays);
    add(suite, "jobs", jobs_have_a_share_and_leave_the_rest_to_others);
    add(suite, "killed jobs", jobs_of_all_places_share_and_a_killed_one_is_forgotten);
    add(suite, "older", places_of_an_older_program_count_for_their_tenant);
    add(suite, "in part", a_limit_that_is_set_in_part_of_the_places_is_made_whole);
    add(suite, "make_room", who_reserves_makes_room);
    add(suite, "removal", a_removal_is_logged_when_there_is_no_room_for_data);
    add_ways(suite, "processes", processes_that_reserve_at_once_stay_below_the_limit, 2);
    add(suite, "stale", a_place_that_is_gone_is_not_counted);
    add(suite, "damaged", a_damaged_file_is_made_anew);
    add(suite, "reboot", after_a_crash_of_the_machine_all_places_are_counted);
    add(suite, "alone", without_the_file_a_mount_counts_for_itself);
    add(suite, "remove", what_is_removed_is_given_back_file_or_directory);
    add(suite, "disk", the_account_is_what_the_disk_says);
    add(suite, "removed while written", a_copy_that_is_removed_while_it_is_written_is_given_back);
    add(suite, "kill", a_kill_leaves_no_drift);
    return unit_run(suite);
}
