// SPDX-License-Identifier: Apache-2.0
#include "unit.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "file_faults.h"
#include "wal_model.h"

#define THREADS 8

static void
count_segments(const char *directory, size_t *count_out)
{
    DIR *dir = opendir(directory);
    ck_assert_ptr_nonnull(dir);
    *count_out = 0;
    for (struct dirent *e; (e = readdir(dir));)
        *count_out += strncmp(e->d_name, "segment-", 8) == 0;
    closedir(dir);
}

START_TEST(records_of_all_sizes_survive_close_and_reopen)
{
    char *directory = unit_directory_new();
    struct wal_options options = model_options(directory, NULL, 128 * MIB);
    struct journal j;
    journal_init(&j, WAL_PAYLOAD_MAX);
    for (int round = 0; round < 4; round++) {
        struct wal *w = journal_open(&j, &options);
        journal_append_many(&j, w, 60);
        if (round % 2)
            ck_assert_int_eq(journal_sync(&j, w), 0);
        ck_assert_int_eq(wal_close(w), 0);
        j.acknowledged = j.count;
    }
    // Nothing happens, several times; and a cut in the middle of everything.
    for (size_t round = 0; round < 6; round++) {
        ck_assert_int_eq(wal_close(journal_open(&j, &options)), 0);
        j.first = round * j.count / 5;
        j.acknowledged = j.count;
    }
    journal_destroy(&j);
    unit_directory_remove(directory);
}
END_TEST

START_TEST(an_empty_log_can_be_reopened)
{
    char *directory = unit_directory_new();
    struct wal_options options = model_options(directory, NULL, 16 * MIB);
    struct journal j;
    journal_init(&j, 4096);
    for (int round = 0; round < 3; round++)
        ck_assert_int_eq(wal_close(journal_open(&j, &options)), 0);
    struct wal *w = journal_open(&j, &options);
    ck_assert_int_eq(wal_sync_wait(w), 0);
    struct wal_numbers n;
    wal_numbers(w, &n);
    wal_check(w);
    ck_assert_uint_eq(n.flushes, 0);
    ck_assert_uint_eq(n.syncs, 1);
    ck_assert_int_eq(wal_close(w), 0);
    journal_destroy(&j);
    unit_directory_remove(directory);
}
END_TEST

static uint64_t bytes_read;

static ssize_t
counting_pread(int fd, void *p, size_t n, off_t offset)
{
    ssize_t got = file_ops_system.pread(fd, p, n, offset);
    bytes_read += got > 0 ? (uint64_t)got : 0;
    return got;
}

// A spare with another first block: one of an older version, or one that was damaged.
static void
spoil_spare_header(const char *directory)
{
    uint8_t header[WAL_SEGMENT_HEADER_BYTES];
    for (int i = 0; i < 8; i++) {
        CLEANUP(memory_free_auto) char *path = memory_printf("%s/segment-%08x", directory, i);
        CLEANUP(file_close_auto) int fd = open(path, O_RDWR | O_CLOEXEC);
        if (fd < 0 || pread(fd, header, sizeof(header), 0) != sizeof(header) ||
            !wal_is_spare_header(header))
            continue;
        ck_assert_int_eq(pwrite(fd, "CKPTWAL?", 8, 0), 8);
        return;
    }
    ck_abort_msg("there is no spare");
}

START_TEST(a_spare_is_not_searched_for_records)
{
    char *directory = unit_directory_new();
    struct file_ops ops = file_ops_system;
    ops.pread = counting_pread;
    struct wal_options options = model_options(directory, &ops, 128 * MIB);
    struct journal j;
    journal_init(&j, 4096);
    ck_assert_int_eq(wal_close(journal_open(&j, &options)), 0);
    bytes_read = 0;
    ck_assert_int_eq(wal_close(journal_open(&j, &options)), 0);
    ck_assert_uint_lt(bytes_read, 1 * MIB);
    // One that could hold records is.
    spoil_spare_header(directory);
    bytes_read = 0;
    ck_assert_int_eq(wal_close(journal_open(&j, &options)), 0);
    ck_assert_uint_gt(bytes_read, 4 * MIB);
    // And the log goes on.
    struct wal *w = journal_open(&j, &options);
    journal_append_many(&j, w, 10);
    ck_assert_int_eq(journal_sync(&j, w), 0);
    ck_assert_int_eq(wal_close(w), 0);
    j.acknowledged = j.count;
    ck_assert_int_eq(wal_close(journal_open(&j, &options)), 0);
    journal_destroy(&j);
    unit_directory_remove(directory);
}
END_TEST

// ---- group commit -------------------------------------------------------------------------------

struct appender {
    struct thread thread;
    struct journal *journal;
    struct wal *wal;
    uint64_t first_id;
    uint64_t records;
    int acknowledgements; // descriptor, or -1
    bool spills;          // instead of syncing, now and then
    int result;
};

static void
append_and_sync(void *argument)
{
    struct appender *a = argument;
    for (uint64_t i = 0; i < a->records && a->result == 0; i++) {
        size_t index;
        uint64_t id = a->first_id + i;
        struct wal_slot slot;
        a->result = journal_append_slot(a->journal, a->wal, id, MODEL_PATIENCE_MS, &index, &slot);
        if (a->result == 0 && a->spills && i % 8 != 0)
            a->result = wal_spill(a->wal, &slot);
        else if (a->result == 0)
            a->result = journal_sync(a->journal, a->wal);
        if (a->acknowledgements >= 0 && a->result == 0 &&
            write(a->acknowledgements, &id, sizeof(id)) != sizeof(id))
            a->result = -EIO;
    }
}

START_TEST(one_flush_answers_many_syncs)
{
    char *directory = unit_directory_new();
    struct wal_options options = model_options(directory, NULL, 64 * MIB);
    struct journal j;
    journal_init(&j, 5000);
    struct wal *w = journal_open(&j, &options);
    struct appender a[THREADS];
    for (uint64_t i = 0; i < THREADS; i++) {
        a[i] = (struct appender){
            .journal = &j, .wal = w, .first_id = i << 32, .records = 200, .acknowledgements = -1};
        ck_assert_int_eq(thread_start(&a[i].thread, "append", append_and_sync, &a[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        thread_join(&a[i].thread);
        ck_assert_int_eq(a[i].result, 0);
    }
    struct wal_numbers n;
    wal_numbers(w, &n);
    wal_check(w);
    ck_assert_uint_eq(n.syncs, THREADS * 200);
    ck_assert_uint_lt(n.flushes, n.syncs);
    ck_assert_uint_eq(n.flushed.v, n.append.v);
    ck_assert_uint_eq(j.acknowledged, j.count);
    ck_assert_int_eq(wal_close(w), 0);
    ck_assert_int_eq(wal_close(journal_open(&j, &options)), 0);
    journal_destroy(&j);
    unit_directory_remove(directory);
}
END_TEST

static void
note_sync(void *argument, int result)
{
    int *answer = argument;
    __atomic_store_n(answer, result, __ATOMIC_RELEASE);
}

START_TEST(who_asks_alone_flushes_in_his_own_thread)
{
    char *directory = unit_directory_new();
    struct wal_options options = model_options(directory, NULL, 16 * MIB);
    options.callers_flush = true;
    struct journal j;
    journal_init(&j, 5000);
    struct wal *w = journal_open(&j, &options);
    for (int i = 0; i < 20; i++) {
        int answer = 1;
        journal_append_many(&j, w, 1);
        wal_sync(w, note_sync, &answer);
        ck_assert_int_eq(answer, 0);
    }
    struct wal_numbers n;
    wal_numbers(w, &n);
    wal_check(w);
    ck_assert_uint_eq(n.flushes, 20);
    ck_assert_uint_eq(n.flushed.v, n.append.v);
    ck_assert_int_eq(wal_close(w), 0);
    journal_destroy(&j);
    unit_directory_remove(directory);
}
END_TEST

START_TEST(a_sync_with_nothing_new_is_answered_at_once)
{
    char *directory = unit_directory_new();
    struct wal_options options = model_options(directory, NULL, 16 * MIB);
    struct journal j;
    journal_init(&j, 5000);
    struct wal *w = journal_open(&j, &options);
    int answers[20];
    for (int i = 0; i < 20; i++) {
        answers[i] = 1;
        journal_append_many(&j, w, 3);
        wal_sync(w, note_sync, &answers[i]);
    }
    ck_assert_int_eq(wal_sync_wait(w), 0);
    for (int i = 0; i < 19; i++)
        ck_assert_int_eq(__atomic_load_n(&answers[i], __ATOMIC_ACQUIRE), 0);
    struct wal_numbers before;
    struct wal_numbers after;
    wal_numbers(w, &before);
    int answer = 1;
    wal_sync(w, note_sync, &answer);
    ck_assert_int_eq(answer, 0);
    wal_numbers(w, &after);
    ck_assert_uint_eq(before.flushes, after.flushes);
    ck_assert_int_eq(wal_close(w), 0);
    journal_destroy(&j);
    unit_directory_remove(directory);
}
END_TEST

// ---- kill -9 ------------------------------------------------------------------------------------

// What each thread of the children has in the log.
struct killed {
    uint64_t next[THREADS]; // the record of the thread that comes next
    uint64_t acknowledged[THREADS];
    uint32_t largest;
    struct lsn end;
};

static int
replay_killed(void *argument, const struct wal_replayed *x)
{
    struct killed *k = argument;
    uint64_t id = model_check_replayed(x, k->largest);
    ck_assert_uint_lt(id >> 32, THREADS);
    ck_assert_uint_eq(k->next[id >> 32], id & UINT32_MAX);
    k->next[id >> 32]++;
    ck_assert_uint_ge(x->lsn.v, k->end.v);
    k->end = x->end;
    return 0;
}

static void
ignore_replay_into(
    struct killed *k, const struct wal_options *options, struct lsn cut, struct wal **wal_out)
{
    BUFFER_AUTO error = {0};
    ck_assert_msg(wal_open(options, cut, replay_killed, k, wal_out, &error) == 0, "%s",
        buffer_string(&error));
}

static void
run_child(const struct wal_options *options, struct killed k, struct lsn cut, int acknowledgements,
    bool spills)
{
    struct wal *w;
    struct journal j;
    struct appender a[THREADS];
    struct killed same = k;
    for (int i = 0; i < THREADS; i++)
        same.next[i] = k.acknowledged[i]; // what comes first at the cut
    same.end.v = 0;
    ignore_replay_into(&same, options, cut, &w);
    journal_init(&j, k.largest);
    for (uint64_t i = 0; i < THREADS; i++) {
        a[i] = (struct appender){.journal = &j,
            .wal = w,
            .first_id = i << 32 | same.next[i],
            .records = UINT32_MAX,
            .acknowledgements = acknowledgements,
            .spills = spills};
        if (thread_start(&a[i].thread, "append", append_and_sync, &a[i]) < 0)
            _exit(1);
    }
    for (int i = 0; i < THREADS; i++)
        thread_join(&a[i].thread);
    _exit(2);
}

static void
kill_again_and_again(bool spills)
{
    char *directory = unit_directory_new();
    struct wal_options options = model_options(directory, NULL, 64 * MIB);
    struct killed k = {.largest = 9000};
    struct lsn cut = {0};
    uint64_t seed = 77;
    for (int round = 0; round < 20; round++) {
        // `acknowledged` is what lies below the cut.
        int ends[2];
        ck_assert_int_eq(pipe(ends), 0);
        pid_t child = fork();
        if (child == 0) {
            close(ends[0]);
            run_child(&options, k, cut, ends[1], spills);
        }
        close(ends[1]);
        uint64_t seen[THREADS];
        memcpy(seen, k.acknowledged, sizeof(seen));
        uint64_t id;
        uint64_t wanted = 1 + model_random(&seed) % 300;
        for (uint64_t i = 0; read(ends[0], &id, sizeof(id)) == sizeof(id); i++) {
            seen[id >> 32] = (id & UINT32_MAX) + 1;
            if (i == wanted)
                ck_assert_int_eq(kill(child, SIGKILL), 0);
        }
        close(ends[0]);
        int status;
        ck_assert_int_eq(waitpid(child, &status, 0), child);
        ck_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        struct wal *w;
        memcpy(k.next, k.acknowledged, sizeof(k.next));
        k.end.v = 0;
        ignore_replay_into(&k, &options, cut, &w);
        for (int i = 0; i < THREADS; i++)
            ck_assert_uint_ge(k.next[i], seen[i]);
        if (model_random(&seed) % 3 == 0) {
            cut = k.end;
            memcpy(k.acknowledged, k.next, sizeof(k.next));
        }
        ck_assert_int_eq(wal_close(w), 0);
    }
    unit_directory_remove(directory);
}

START_TEST(acknowledged_records_survive_kill)
{
    kill_again_and_again(false);
}
END_TEST

START_TEST(spilled_records_survive_kill)
{
    kill_again_and_again(true);
}
END_TEST

// ---- room ---------------------------------------------------------------------------------------

START_TEST(segments_are_recycled_within_the_limit)
{
    char *directory = unit_directory_new();
    struct wal_options options = model_options(directory, NULL, 16 * MIB);
    struct journal j;
    journal_init(&j, 300000);
    struct wal *w = journal_open(&j, &options);
    uint64_t seed = 5;
    struct wal_numbers n = {0};
    while (n.append.v < 120 * MIB) {
        journal_append_many(&j, w, 1);
        wal_numbers(w, &n);
        wal_check(w);
        ck_assert_uint_le(n.disk_bytes, 16 * MIB);
        if (n.retained_bytes > 6 * MIB) {
            ck_assert_int_eq(journal_sync(&j, w), 0);
            journal_release(&j, w, j.count - model_random(&seed) % 5);
        }
        if (model_random(&seed) % 100 == 0) {
            ck_assert_int_eq(wal_close(w), 0);
            j.acknowledged = j.count;
            w = journal_open(&j, &options);
        }
    }
    ck_assert_int_eq(wal_close(w), 0);
    size_t files;
    count_segments(directory, &files);
    ck_assert_uint_le(files, 4);
    j.acknowledged = j.count;
    ck_assert_int_eq(wal_close(journal_open(&j, &options)), 0);
    journal_destroy(&j);
    unit_directory_remove(directory);
}
END_TEST

struct releaser {
    struct thread thread;
    struct journal *journal;
    struct wal *wal;
    int stop;
};

// What the checkpoint does: sync, then let go of all that was begun before.
static void
release_again_and_again(void *argument)
{
    struct releaser *r = argument;
    while (!__atomic_load_n(&r->stop, __ATOMIC_ACQUIRE)) {
        struct wal_numbers n;
        wal_numbers(r->wal, &n);
        if (n.retained_bytes > 3 * MIB || n.waiting) {
            lock_take(&r->journal->lock);
            size_t before = r->journal->count;
            lock_release(&r->journal->lock);
            if (journal_sync(r->journal, r->wal) != 0)
                abort();
            journal_release(r->journal, r->wal, before);
        } else {
            clock_sleep_ms(1);
        }
    }
}

START_TEST(writers_under_pressure_get_on)
{
    char *directory = unit_directory_new();
    struct wal_options options = model_options(directory, NULL, 16 * MIB);
    struct journal j;
    journal_init(&j, WAL_PAYLOAD_MAX);
    struct wal *w = journal_open(&j, &options);
    struct releaser r = {.journal = &j, .wal = w};
    ck_assert_int_eq(thread_start(&r.thread, "release", release_again_and_again, &r), 0);
    struct appender a[4];
    for (uint64_t i = 0; i < 4; i++) {
        a[i] = (struct appender){
            .journal = &j, .wal = w, .first_id = i << 32, .records = 150, .acknowledgements = -1};
        ck_assert_int_eq(thread_start(&a[i].thread, "append", append_and_sync, &a[i]), 0);
    }
    for (int i = 0; i < 4; i++) {
        thread_join(&a[i].thread);
        ck_assert_int_eq(a[i].result, 0);
    }
    __atomic_store_n(&r.stop, 1, __ATOMIC_RELEASE);
    thread_join(&r.thread);
    struct wal_numbers n;
    wal_numbers(w, &n);
    wal_check(w);
    ck_assert_uint_le(n.disk_bytes, 16 * MIB);
    ck_assert_int_eq(n.failed, 0);
    ck_assert_int_eq(wal_close(w), 0);
    ck_assert_int_eq(wal_close(journal_open(&j, &options)), 0);
    journal_destroy(&j);
    unit_directory_remove(directory);
}
END_TEST

// Reserves all that the ring may take, of records of `bytes`.
static unsigned
reserve_all(struct wal *w, uint32_t bytes)
{
    unsigned n = (8 * MIB - 2 * (WAL_RECORD_MAX + WAL_SEGMENT_HEADER_BYTES)) / bytes;
    for (unsigned i = 0; i < n; i++)
        ck_assert_int_eq(wal_reserve(w, bytes, clock_monotonic_ms() + MODEL_PATIENCE_MS), 0);
    ck_assert_int_eq(wal_reserve(w, bytes, clock_monotonic_ms()), -ENOSPC);
    return n;
}

static void
unreserve_all(struct wal *w, uint32_t bytes, unsigned n)
{
    while (n-- > 0)
        wal_unreserve(w, bytes);
}

START_TEST(reservations_are_given_back)
{
    char *directory = unit_directory_new();
    struct wal_options options = model_options(directory, NULL, 16 * MIB);
    struct journal j;
    journal_init(&j, 4096);
    struct wal *w = journal_open(&j, &options);
    for (int round = 0; round < 3; round++) {
        unreserve_all(w, 10000, reserve_all(w, 10000));
        // A reservation that is larger than the record is used up whole.
        struct model_record r;
        model_record_make(&r, 3, 4096);
        struct wal_slot slot;
        ck_assert_int_eq(wal_reserve(w, 100000, clock_monotonic_ms() + MODEL_PATIENCE_MS), 0);
        wal_begin(w, 100000, model_record_length(&r), &slot);
        model_record_fill(w, &slot, &r);
        ck_assert_int_eq(wal_sync_wait(w), 0);
        model_record_free(&r);
    }
    ck_assert_int_eq(wal_close(w), 0);
    journal_destroy(&j);
    unit_directory_remove(directory);
}
END_TEST

// Appends until there is no room; returns how many records went in.
static size_t
append_until_full(struct journal *j, struct wal *w, uint64_t patience_ms)
{
    size_t index;
    for (size_t n = 0;; n++) {
        int rc = journal_append(j, w, j->next_id++, patience_ms, &index);
        if (rc == 0)
            continue;
        ck_assert_int_eq(rc, -ENOSPC);
        return n;
    }
}

START_TEST(a_full_log_says_so_and_goes_on_after_release)
{
    char *directory = unit_directory_new();
    struct wal_options options = model_options(directory, NULL, 16 * MIB);
    struct journal j;
    journal_init(&j, 100000);
    struct wal *w = journal_open(&j, &options);
    for (int round = 0; round < 4; round++) {
        ck_assert_uint_gt(append_until_full(&j, w, 2000), 20);
        ck_assert_int_eq(journal_sync(&j, w), 0);
        if (round == 2) { // full over a restart
            ck_assert_int_eq(wal_close(w), 0);
            w = journal_open(&j, &options);
            append_until_full(&j, w, 100);
            ck_assert_int_eq(journal_sync(&j, w), 0);
        }
        journal_release(&j, w, j.count);
    }
    ck_assert_int_eq(wal_close(w), 0);
    ck_assert_int_eq(wal_close(journal_open(&j, &options)), 0);
    journal_destroy(&j);
    unit_directory_remove(directory);
}
END_TEST

START_TEST(a_full_disk_is_enospc_until_there_is_space)
{
    char *directory = unit_directory_new();
    struct wal_options options = model_options(directory, &file_ops_faulty, 16 * MIB);
    struct journal j;
    journal_init(&j, 100000);
    faults_refuse(true, 0, 0);
    struct wal *w;
    BUFFER_AUTO error = {0};
    ck_assert_int_eq(wal_open(&options, (struct lsn){0}, journal_replay, &j, &w, &error), -ENOSPC);
    size_t files;
    faults_refuse(false, 0, 0);
    w = journal_open(&j, &options);
    journal_append_many(&j, w, 10);
    // The disk is full again, but what is released can be used again.
    faults_refuse(true, 0, 0);
    ck_assert_uint_gt(append_until_full(&j, w, 50), 10);
    ck_assert_int_eq(journal_sync(&j, w), 0);
    struct wal_numbers n;
    wal_numbers(w, &n);
    wal_check(w);
    ck_assert_uint_eq(n.failed, 0);
    journal_release(&j, w, j.count);
    if (n.disk_bytes > 4 * MIB)
        ck_assert_uint_gt(append_until_full(&j, w, 50), 0);
    faults_refuse(false, 0, 0);
    journal_append_many(&j, w, 10);
    ck_assert_int_eq(wal_close(w), 0);
    count_segments(directory, &files);
    ck_assert_uint_le(files, 4);
    j.acknowledged = j.count;
    ck_assert_int_eq(wal_close(journal_open(&j, &options)), 0);
    journal_destroy(&j);
    unit_directory_remove(directory);
}
END_TEST

START_TEST(a_changed_limit_changes_the_segments)
{
    static const uint64_t limits[] = {16, 128, 16, 512, 64, 32};
    char *directory = unit_directory_new();
    struct journal j;
    journal_init(&j, 200000);
    for (size_t i = 0; i < ARRAY_LENGTH(limits); i++) {
        struct wal_options options = model_options(directory, NULL, limits[i] * MIB);
        struct wal *w = journal_open(&j, &options);
        // What is there may take more than the new limit allows.
        if (i > 0 && limits[i] < limits[i - 1])
            journal_release(&j, w, j.count);
        journal_append_many(&j, w, 100);
        ck_assert_int_eq(journal_sync(&j, w), 0);
        if (i % 2)
            journal_release(&j, w, j.count - 50);
        ck_assert_int_eq(wal_close(w), 0);
    }
    struct wal_options options = model_options(directory, NULL, 16 * MIB);
    struct wal *w = journal_open(&j, &options);
    journal_release(&j, w, j.count);
    append_until_full(&j, w, 2000);
    ck_assert_int_eq(journal_sync(&j, w), 0);
    journal_release(&j, w, j.count);
    journal_append_many(&j, w, 5);
    struct wal_numbers n;
    wal_numbers(w, &n);
    wal_check(w);
    ck_assert_uint_le(n.disk_bytes, 16 * MIB);
    ck_assert_int_eq(wal_close(w), 0);
    size_t files;
    count_segments(directory, &files);
    ck_assert_uint_le(files, 4);
    journal_destroy(&j);
    unit_directory_remove(directory);
}
END_TEST

// ---- reading back -------------------------------------------------------------------------------

static void
check_read(struct wal *w, const struct journal *j, size_t index)
{
    const struct journal_entry *e = &j->entries[index];
    struct model_record r;
    model_record_make(&r, e->id, j->largest);
    uint32_t pieces = wal_payload_pieces(r.page_offset, r.payload_length);
    struct wal_slot slot = {.lsn = e->lsn};
    struct lsn at = wal_payload_lsn(&slot, r.page_offset, r.changes_length, r.payload_length);
    ck_assert_uint_eq(at.v, e->lsn.v + wal_record_payload_offset(pieces, r.changes_length));
    uint8_t *p = memory_alloc(r.payload_length + 1);
    for (uint32_t piece = 0, done = 0, skip = r.page_offset; piece < pieces; piece++, skip = 0) {
        uint32_t n = PAGE_BYTES - skip;
        if (n > r.payload_length - done)
            n = r.payload_length - done;
        struct lsn there = {at.v + done};
        ck_assert_int_eq(wal_read_verified(w, there, r.crcs[piece], p, n), 0);
        ck_assert_mem_eq(p, r.payload + done, n);
        ck_assert_int_eq(wal_read_verified(w, there, r.crcs[piece] + 1, p, n), -EIO);
        done += n;
    }
    // A whole record, wherever its parts are.
    uint32_t length = (uint32_t)(e->end.v - e->lsn.v);
    uint8_t *whole = memory_alloc(length);
    struct wal_record_header h;
    ck_assert_int_eq(wal_read(w, e->lsn, whole, length), 0);
    ck_assert_int_eq(wal_record_decode(whole, length, e->lsn, 0, &h), 0);
    free(whole);
    free(p);
    model_record_free(&r);
}

START_TEST(payloads_are_read_back_from_ring_and_segment)
{
    char *directory = unit_directory_new();
    struct wal_options options = model_options(directory, NULL, 32 * MIB);
    struct journal j;
    journal_init(&j, 600000);
    struct wal *w = journal_open(&j, &options);
    for (size_t round = 0; round < 20; round++) {
        journal_append_many(&j, w, 3);
        if (round % 3 == 2)
            ck_assert_int_eq(journal_sync(&j, w), 0);
        for (size_t i = 0; i < j.count; i++)
            check_read(w, &j, i);
    }
    // Across the boundary between what is flushed and what is not.
    ck_assert_int_eq(journal_sync(&j, w), 0);
    size_t last = j.count - 1;
    uint64_t here = 0;
    while (here != j.entries[last].end.v) {
        journal_append_many(&j, w, 1);
        here = j.entries[++last].lsn.v;
        if (j.entries[last - 1].end.v == here) {
            uint32_t n = (uint32_t)(j.entries[last].end.v - j.entries[last - 1].lsn.v);
            uint8_t *p = memory_alloc(n);
            ck_assert_int_eq(wal_read(w, j.entries[last - 1].lsn, p, n), 0);
            struct wal_record_header h;
            uint32_t first = (uint32_t)(here - j.entries[last - 1].lsn.v);
            ck_assert_int_eq(wal_record_decode(p, n, j.entries[last - 1].lsn, 0, &h), 0);
            ck_assert_int_eq(
                wal_record_decode(p + first, n - first, j.entries[last].lsn, 0, &h), 0);
            free(p);
            break;
        }
    }
    ck_assert_int_eq(wal_close(w), 0);
    j.acknowledged = j.count;
    w = journal_open(&j, &options);
    for (size_t i = 0; i < j.count; i++)
        check_read(w, &j, i);
    uint8_t byte;
    struct wal_numbers n;
    wal_numbers(w, &n);
    wal_check(w);
    ck_assert_int_eq(
        wal_read(w, (struct lsn){n.append.v + 100 * (uint64_t)MIB}, &byte, 1), -ESTALE);
    ck_assert_int_eq(wal_read(w, n.append, &byte, 1), -ESTALE);
    journal_release(&j, w, j.count);
    journal_append_many(&j, w, 1); // the last segment of before is let go of when it is full
    ck_assert_int_eq(wal_read(w, j.entries[0].lsn, &byte, 1), -ESTALE);
    check_read(w, &j, j.count - 1);
    ck_assert_int_eq(wal_close(w), 0);
    journal_destroy(&j);
    unit_directory_remove(directory);
}
END_TEST

struct early_reader {
    struct wal *w;
    struct lsn at;
    uint32_t length;
    uint8_t *bytes;
    int result;
};

static void
read_early(void *argument)
{
    struct early_reader *x = argument;
    x->result = wal_read(x->w, x->at, x->bytes, x->length);
}

START_TEST(what_is_read_while_it_is_being_filled_is_waited_for)
{
    char *directory = unit_directory_new();
    struct wal_options options = model_options(directory, NULL, 16 * MIB);
    struct journal j;
    journal_init(&j, 100000);
    struct wal *w = journal_open(&j, &options);
    struct model_record r;
    model_record_make(&r, 1, 100000);
    for (uint64_t id = 2; r.payload_length < 2 * PAGE_BYTES; id++) {
        model_record_free(&r);
        model_record_make(&r, id, 100000);
    }
    uint32_t length = model_record_length(&r);
    struct wal_slot slot;
    ck_assert_int_eq(wal_reserve(w, length, clock_monotonic_ms() + MODEL_PATIENCE_MS), 0);
    wal_begin(w, length, length, &slot);
    struct early_reader x = {.w = w, .length = r.payload_length};
    x.at = wal_payload_lsn(&slot, r.page_offset, r.changes_length, r.payload_length);
    x.bytes = memory_alloc(x.length);
    struct thread t;
    ck_assert_int_eq(thread_start(&t, "reader", read_early, &x), 0);
    clock_sleep_ms(20); // most likely it reads by now; it passes also if it does not
    model_record_fill(w, &slot, &r);
    thread_join(&t);
    ck_assert_int_eq(x.result, 0);
    ck_assert_mem_eq(x.bytes, r.payload, r.payload_length);
    free(x.bytes);
    model_record_free(&r);
    ck_assert_int_eq(wal_close(w), 0);
    journal_destroy(&j);
    unit_directory_remove(directory);
}
END_TEST

static int
refuse_replay(void *argument, const struct wal_replayed *record)
{
    int *left = argument;
    (void)record;
    return (*left)-- > 0 ? 0 : -ENOMEM;
}

START_TEST(an_error_of_replay_ends_the_open)
{
    char *directory = unit_directory_new();
    struct wal_options options = model_options(directory, NULL, 16 * MIB);
    struct journal j;
    journal_init(&j, 5000);
    struct wal *w = journal_open(&j, &options);
    journal_append_many(&j, w, 10);
    ck_assert_int_eq(wal_close(w), 0);
    BUFFER_AUTO error = {0};
    int left = 4;
    ck_assert_int_eq(
        wal_open(&options, (struct lsn){0}, refuse_replay, &left, &w, &error), -ENOMEM);
    ck_assert_ptr_null(w);
    j.acknowledged = j.count;
    ck_assert_int_eq(wal_close(journal_open(&j, &options)), 0);
    journal_destroy(&j);
    unit_directory_remove(directory);
}
END_TEST

START_TEST(files_of_others_are_left_alone)
{
    char *directory = unit_directory_new();
    static const char *names[] = {"segment-1", "segment-00000001x", "segment-+0000001", "other"};
    for (size_t i = 0; i < ARRAY_LENGTH(names); i++) {
        CLEANUP(memory_free_auto) char *path = memory_printf("%s/%s", directory, names[i]);
        ck_assert_int_eq(file_replace_whole(&file_ops_system, path, "mine", 4, 0600), 0);
    }
    struct wal_options options = model_options(directory, NULL, 16 * MIB);
    struct journal j;
    journal_init(&j, 5000);
    struct wal *w = journal_open(&j, &options);
    journal_append_many(&j, w, 10);
    ck_assert_int_eq(wal_close(w), 0);
    j.acknowledged = j.count;
    ck_assert_int_eq(wal_close(journal_open(&j, &options)), 0);
    for (size_t i = 0; i < ARRAY_LENGTH(names); i++) {
        CLEANUP(memory_free_auto) char *path = memory_printf("%s/%s", directory, names[i]);
        BUFFER_AUTO content = {0};
        ck_assert_int_eq(file_read_whole(path, 100, &content), 0);
        ck_assert_str_eq(buffer_string(&content), "mine");
    }
    journal_destroy(&j);
    unit_directory_remove(directory);
}
END_TEST

int
main(void)
{
    Suite *s = suite_create("wal");
#define ADD(test) unit_add(s, #test, test, 240)
    ADD(records_of_all_sizes_survive_close_and_reopen);
    ADD(an_empty_log_can_be_reopened);
    ADD(a_spare_is_not_searched_for_records);
    ADD(one_flush_answers_many_syncs);
    ADD(who_asks_alone_flushes_in_his_own_thread);
    ADD(a_sync_with_nothing_new_is_answered_at_once);
    ADD(acknowledged_records_survive_kill);
    ADD(spilled_records_survive_kill);
    ADD(segments_are_recycled_within_the_limit);
    ADD(writers_under_pressure_get_on);
    ADD(reservations_are_given_back);
    ADD(a_full_log_says_so_and_goes_on_after_release);
    ADD(a_full_disk_is_enospc_until_there_is_space);
    ADD(a_changed_limit_changes_the_segments);
    ADD(payloads_are_read_back_from_ring_and_segment);
    ADD(what_is_read_while_it_is_being_filled_is_waited_for);
    ADD(an_error_of_replay_ends_the_open);
    ADD(files_of_others_are_left_alone);
#undef ADD
    return unit_run(s);
}
