// SPDX-License-Identifier: Apache-2.0
// The mark: a newest segment that is gone, and damage at the end of a closed log, are noticed; a
// healthy log is never refused for its sake, whenever the process or the machine died.
#include "unit.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "file_faults.h"
#include "wal_model.h"

#define SEGMENT (4 * MIB)

struct fixture {
    char *directory;
    char *mark;
    struct wal_options options;
    struct journal journal;
};

static void
fixture_init(struct fixture *f, uint32_t largest)
{
    f->directory = unit_directory_new();
    f->mark = memory_printf("%s/mark", f->directory);
    f->options = model_options(f->directory, &file_ops_faulty, 32 * MIB);
    f->options.segment_bytes = SEGMENT;
    f->options.ring_bytes = 8 * MIB;
    journal_init(&f->journal, largest);
}

static void
fixture_end(struct fixture *f)
{
    faults_end();
    journal_destroy(&f->journal);
    free(f->mark);
    unit_directory_remove(f->directory);
}

static void
fixture_append(struct fixture *f, struct wal *w, uint64_t bytes)
{
    struct wal_numbers n;
    do {
        journal_append_many(&f->journal, w, 1);
        wal_numbers(w, &n);
    } while (n.append.v < bytes);
    ck_assert_int_eq(journal_sync(&f->journal, w), 0);
}

// The process dies while it writes one more record; all of it got to the kernel.
static void
die(struct fixture *f, struct wal *w)
{
    journal_append_many(&f->journal, w, 1);
    faults_die_after(0);
    ck_assert_int_eq(journal_sync(&f->journal, w), -EIO);
    ck_assert_int_lt(wal_close(w), 0);
    faults_restart();
}

// Fills the log up to `bytes`; closed, or not.
static void
fixture_fill(struct fixture *f, uint64_t bytes, bool closed)
{
    struct wal *w = journal_open(&f->journal, &f->options);
    fixture_append(f, w, bytes);
    if (closed)
        ck_assert_int_eq(wal_close(w), 0);
    else
        die(f, w);
}

static void
open_and_close(struct fixture *f)
{
    ck_assert_int_eq(wal_close(journal_open(&f->journal, &f->options)), 0);
}

// The file of the segment with the highest start, or NULL.
static char *
newest_path(const struct fixture *f)
{
    char *path = NULL;
    uint64_t highest = 0;
    DIR *dir = opendir(f->directory);
    for (struct dirent *e; (e = readdir(dir));) {
        uint8_t header[WAL_SEGMENT_HEADER_BYTES];
        struct wal_segment_header h;
        int fd = openat(dirfd(dir), e->d_name, O_RDONLY);
        if (pread(fd, header, sizeof(header), 0) == sizeof(header) &&
            wal_segment_header_decode(header, &h) == 0 && (!path || h.start.v > highest)) {
            free(path);
            path = memory_printf("%s/%s", f->directory, e->d_name);
            highest = h.start.v;
        }
        close(fd);
    }
    closedir(dir);
    ck_assert_ptr_nonnull(path);
    return path;
}

static void
write_at(const char *path, uint64_t offset, const void *p, size_t n)
{
    int fd = open(path, O_RDWR | O_CREAT, 0600);
    ck_assert_int_eq(pwrite(fd, p, n, (off_t)offset), (ssize_t)n);
    close(fd);
}

// Refused with a text that names these.
static void
check_refused(struct fixture *f, const char *file, const char *advice)
{
    BUFFER_AUTO error = {0};
    struct wal *w;
    f->journal.next = f->journal.first;
    int rc =
        wal_open(&f->options, journal_cut(&f->journal), journal_replay, &f->journal, &w, &error);
    ck_assert_int_eq(rc, -EBADMSG);
    ck_assert_msg(strstr(buffer_string(&error), file) && strstr(buffer_string(&error), advice),
        "%s", buffer_string(&error));
}

START_TEST(a_missing_newest_segment_is_damage)
{
    static const uint64_t fills[] = {10000, SEGMENT - 100000, SEGMENT + 8192, 3 * SEGMENT};
    for (size_t i = 0; i < 2 * ARRAY_LENGTH(fills); i++) {
        struct fixture f;
        fixture_init(&f, 60000);
        fixture_fill(&f, fills[i / 2], i % 2);
        CLEANUP(memory_free_auto) char *path = newest_path(&f);
        CLEANUP(memory_free_auto) char *aside = memory_printf("%s/aside", f.directory);
        ck_assert_int_eq(rename(path, aside), 0);
        check_refused(&f, path, "accept");
        check_refused(&f, "is missing", f.mark);
        ck_assert_int_eq(rename(aside, path), 0);
        open_and_close(&f);
        ck_assert_int_eq(rename(path, aside), 0);
        check_refused(&f, path, "accept");
        ck_assert_int_eq(rename(aside, path), 0);
        open_and_close(&f);
        fixture_end(&f);
    }
}
END_TEST

START_TEST(a_newest_segment_of_garbage_or_zeros_is_damage)
{
    for (int i = 0; i < 4; i++) {
        struct fixture f;
        fixture_init(&f, 60000);
        fixture_fill(&f, SEGMENT + MIB, i % 2);
        CLEANUP(memory_free_auto) char *path = newest_path(&f);
        BUFFER_AUTO whole = {0};
        ck_assert_int_eq(file_read_whole(path, SEGMENT, &whole), 0);
        CLEANUP(memory_free_auto) uint8_t *other = memory_alloc_zero(whole.length);
        for (size_t at = 0; i < 2 && at < whole.length; at += 8)
            put_le64(other + at, hash_u64(at));
        write_at(path, 0, other, whole.length);
        check_refused(&f, path, "accept");
        write_at(path, 0, whole.data, whole.length);
        open_and_close(&f);
        fixture_end(&f);
    }
}
END_TEST

// Only what was in the newest segment is given up.
START_TEST(an_operator_may_go_on_with_what_is_left)
{
    struct fixture f;
    fixture_init(&f, 60000);
    fixture_fill(&f, 2 * SEGMENT + MIB, true);
    CLEANUP(memory_free_auto) char *path = newest_path(&f);
    ck_assert_int_eq(unlink(path), 0);
    check_refused(&f, path, "accept");
    ck_assert_int_eq(file_replace_whole(&file_ops_system, f.mark, "accept\n", 7, 0600), 0);
    size_t left = 0;
    while (f.journal.entries[left].end.v < 2 * SEGMENT)
        left++;
    f.journal.acknowledged = left;
    struct wal *w = journal_open(&f.journal, &f.options);
    ck_assert_uint_eq(f.journal.count, left);
    fixture_append(&f, w, 0);
    ck_assert_int_eq(wal_close(w), 0);
    f.journal.acknowledged = f.journal.count;
    open_and_close(&f);
    // The word was good for once.
    CLEANUP(memory_free_auto) char *again = newest_path(&f);
    ck_assert_int_eq(unlink(again), 0);
    check_refused(&f, again, "accept");
    fixture_end(&f);
}
END_TEST

START_TEST(damage_in_the_last_batch_of_a_closed_log_is_noticed)
{
    struct fixture f;
    fixture_init(&f, 6000);
    for (int round = 0; round < 4; round++) {
        fixture_fill(&f, 30000 * (uint64_t)(round + 1), true);
        CLEANUP(memory_free_auto) char *path = newest_path(&f);
        BUFFER_AUTO whole = {0};
        ck_assert_int_eq(file_read_whole(path, SEGMENT, &whole), 0);
        f.journal.acknowledged = f.journal.count;
        const struct journal_entry *last = &f.journal.entries[f.journal.count - 1];
        uint64_t length = last->end.v - last->lsn.v;
        for (uint64_t i = 0; i < length; i += 1 + length / 20) {
            uint64_t at = last->lsn.v + i;
            uint8_t byte = whole.data[at] ^ 4;
            write_at(path, at, &byte, 1);
            struct wal *w;
            BUFFER_AUTO error = {0};
            f.journal.next = f.journal.first;
            int rc = wal_open(
                &f.options, journal_cut(&f.journal), journal_replay, &f.journal, &w, &error);
            if (rc == 0) { // a byte of padding
                ck_assert_uint_gt(i, WAL_RECORD_HEADER);
                ck_assert_uint_eq(f.journal.next, f.journal.count);
                ck_assert_int_eq(wal_close(w), 0);
            } else {
                ck_assert_int_eq(rc, -EBADMSG);
                ck_assert_ptr_nonnull(strstr(buffer_string(&error), path));
            }
            write_at(path, at, &whole.data[at], 1);
        }
        // Cut off, as a file system that lost the write would leave it.
        uint8_t zeros[512] = {0};
        write_at(path, last->lsn.v, zeros, sizeof(zeros));
        check_refused(&f, path, "accept");
        write_at(path, last->lsn.v, whole.data + last->lsn.v, sizeof(zeros));
    }
    open_and_close(&f);
    fixture_end(&f);
}
END_TEST

START_TEST(a_torn_end_of_a_log_that_was_not_closed_is_no_damage)
{
    struct fixture f;
    fixture_init(&f, 6000);
    for (uint64_t round = 1; round <= 4; round++) {
        fixture_fill(&f, 30000 * round, false);
        CLEANUP(memory_free_auto) char *path = newest_path(&f);
        uint8_t zeros[64] = {0};
        ck_assert_uint_eq(f.journal.acknowledged + 1, f.journal.count);
        write_at(path, f.journal.entries[f.journal.count - 1].lsn.v, zeros, sizeof(zeros));
        size_t acknowledged = f.journal.acknowledged;
        open_and_close(&f);
        ck_assert_uint_eq(f.journal.count, acknowledged);
    }
    fixture_end(&f);
}
END_TEST

// The log goes on in the place of records that were torn. What is left of them has the right LSN
// and the right epoch for where it lies.
START_TEST(what_is_left_of_a_torn_batch_never_replays)
{
    struct fixture f;
    fixture_init(&f, 4096);
    struct wal *w = journal_open(&f.journal, &f.options);
    struct journal *j = &f.journal;
    for (int round = 0; round < 5; round++) {
        fixture_append(&f, w, 0);
        size_t before = j->count;
        journal_append_many(j, w, 10);
        faults_die_after(0);
        ck_assert_int_eq(journal_sync(j, w), -EIO);
        ck_assert_int_lt(wal_close(w), 0);
        faults_restart();
        // The first record of the batch is lost, the others are not.
        CLEANUP(memory_free_auto) char *path = newest_path(&f);
        uint8_t zeros[32] = {0};
        uint64_t lost = j->entries[before].id;
        write_at(path, j->entries[before].lsn.v, zeros, sizeof(zeros));
        w = journal_open(j, &f.options);
        ck_assert_uint_eq(j->count, before);
        // One of the same length takes its place.
        size_t index;
        ck_assert_int_eq(journal_append(j, w, lost, MODEL_PATIENCE_MS, &index), 0);
        ck_assert_int_eq(journal_sync(j, w), 0);
        ck_assert_int_eq(wal_close(w), 0);
        w = journal_open(j, &f.options);
        ck_assert_uint_eq(j->count, before + 1);
    }
    ck_assert_int_eq(wal_close(w), 0);
    fixture_end(&f);
}
END_TEST

// The machine dies in each durable write around a change of segments: of the last records of the
// one, of the header, of the mark, of the first records of the other.
START_TEST(a_power_loss_at_any_step_of_a_change_of_segments_loses_nothing)
{
    for (uint64_t seed = 0; seed < 36; seed++) {
        struct fixture f;
        fixture_init(&f, 60000);
        file_faults.track = true;
        file_faults.error = -EIO;
        file_faults.seed = 1000 * seed;
        struct wal *w = journal_open(&f.journal, &f.options);
        fixture_append(&f, w, SEGMENT - 70000);
        if (seed % 4 == 1) { // into a recycled segment
            fixture_append(&f, w, 2 * SEGMENT - 70000);
            journal_release(&f.journal, w, f.journal.count - 3);
        }
        faults_die_after(2 + seed / 4 % 9); // it takes about seven to get there
        int rc = 0;
        for (int i = 0; i < 40 && rc == 0; i++) {
            journal_append_many(&f.journal, w, 1);
            rc = journal_sync(&f.journal, w);
        }
        ck_assert_int_eq(rc, -EIO);
        ck_assert_int_lt(wal_close(w), 0);
        if (seed % 4 == 2) // only the process
            faults_restart();
        else
            faults_lose_power(f.directory);
        for (int i = 0; i < 3; i++) {
            w = journal_open(&f.journal, &f.options);
            fixture_append(&f, w, 0);
            ck_assert_int_eq(wal_close(w), 0);
            faults_lose_power(f.directory);
        }
        fixture_end(&f);
    }
}
END_TEST

// The durable writes of an open and the first writes after it, each one failing or cut off.
START_TEST(a_power_loss_at_any_step_of_an_open_loses_nothing)
{
    for (uint64_t seed = 0; seed < 24; seed++) {
        struct fixture f;
        fixture_init(&f, 6000);
        file_faults.track = true;
        file_faults.error = -EIO;
        file_faults.seed = 77 * seed;
        for (int round = 0; round < 4; round++) {
            BUFFER_AUTO error = {0};
            struct wal *w;
            struct journal *j = &f.journal;
            faults_die_after(faults_random(6));
            j->next = j->first;
            int rc = wal_open(&f.options, journal_cut(j), journal_replay, j, &w, &error);
            ck_assert(rc == 0 || rc == -EIO);
            if (rc == 0) {
                j->count = j->acknowledged = j->next;
                for (int i = 0; i < 10 && rc == 0; i++) {
                    journal_append_many(j, w, 1);
                    rc = journal_sync(j, w);
                }
                ck_assert_int_lt(wal_close(w), 0);
            }
            faults_lose_power(f.directory);
            open_and_close(&f);
        }
        fixture_end(&f);
    }
}
END_TEST

START_TEST(what_is_released_is_not_missed)
{
    struct fixture f;
    fixture_init(&f, 60000);
    fixture_fill(&f, 2 * SEGMENT + MIB, true);
    // All that was written lies below the cut, in segments that may go.
    struct wal *w = journal_open(&f.journal, &f.options);
    fixture_append(&f, w, 3 * SEGMENT);
    f.journal.first = f.journal.count;
    f.journal.released.v = 4 * SEGMENT;
    ck_assert_int_eq(wal_close(w), 0);
    CLEANUP(memory_free_auto) char *path = newest_path(&f);
    ck_assert_int_eq(unlink(path), 0);
    f.options.segment_bytes = 2 * SEGMENT; // those of the other size are removed
    w = journal_open(&f.journal, &f.options);
    fixture_append(&f, w, 0);
    ck_assert_int_eq(wal_close(w), 0);
    open_and_close(&f);
    fixture_end(&f);
}
END_TEST

// ---- a cut that was recorded --------------------------------------------------------------------

// What a fold does: all that is below the cut is made durable, the cut is recorded, and the log
// released.
static void
record_cut(struct fixture *f, struct wal *w)
{
    struct wal_numbers n;
    struct lsn end;
    wal_numbers(w, &n);
    if (wal_reach(w, n.append, &end) < 0)
        return;
    wal_numbers(w, &n);
    ck_assert_uint_ge(n.flushed.v, end.v);
    f->journal.acknowledged = f->journal.count;
    f->options.reached = end;
    journal_release(&f->journal, w, f->journal.count);
}

START_TEST(a_log_that_ends_below_a_cut_that_was_recorded_is_refused)
{
    struct fixture f;
    fixture_init(&f, 6000);
    struct wal *w = journal_open(&f.journal, &f.options);
    fixture_append(&f, w, 100000);
    CLEANUP(memory_free_auto) char *path = newest_path(&f);
    BUFFER_AUTO old = {0};
    BUFFER_AUTO whole = {0};
    ck_assert_int_eq(file_read_whole(path, SEGMENT, &old), 0);
    journal_append_many(&f.journal, w, 20); // not synced
    record_cut(&f, w);
    die(&f, w);
    ck_assert_int_eq(file_read_whole(path, SEGMENT, &whole), 0);
    write_at(path, 0, old.data, old.length);
    check_refused(&f, f.directory, "older copy");
    check_refused(&f, f.mark, "accept");
    // What lies before the last record below the cut is not needed.
    write_at(path, 0, whole.data, whole.length);
    uint8_t zeros[32] = {0};
    const struct journal_entry *e = &f.journal.entries[f.journal.acknowledged - 1];
    write_at(path, f.journal.entries[10].lsn.v, zeros, sizeof(zeros));
    open_and_close(&f);
    ck_assert_uint_eq(f.options.reached.v, e->end.v);
    fixture_end(&f);
}
END_TEST

START_TEST(an_operator_may_go_on_with_a_log_that_lost_its_end)
{
    struct fixture f;
    fixture_init(&f, 6000);
    struct wal *w = journal_open(&f.journal, &f.options);
    fixture_append(&f, w, 100000);
    CLEANUP(memory_free_auto) char *path = newest_path(&f);
    BUFFER_AUTO old = {0};
    ck_assert_int_eq(file_read_whole(path, SEGMENT, &old), 0);
    fixture_append(&f, w, 200000);
    record_cut(&f, w);
    fixture_append(&f, w, 300000);
    die(&f, w);
    write_at(path, 0, old.data, old.length);
    check_refused(&f, f.mark, "accept");
    ck_assert_int_eq(file_replace_whole(&file_ops_system, f.mark, "accept\n", 7, 0600), 0);
    f.journal.acknowledged = f.journal.first;
    w = journal_open(&f.journal, &f.options);
    fixture_append(&f, w, 0);
    ck_assert_int_eq(wal_close(w), 0);
    open_and_close(&f);
    fixture_end(&f);
}
END_TEST

// Whatever segments were released, removed or begun when the machine died.
START_TEST(a_healthy_log_is_never_refused_for_a_cut_that_was_recorded)
{
    for (uint64_t seed = 0; seed < 40; seed++) {
        struct fixture f;
        fixture_init(&f, seed % 2 ? 60000 : 6000);
        file_faults.track = true;
        file_faults.error = -EIO;
        file_faults.seed = 500 * seed;
        for (int round = 0; round < 4; round++) {
            f.options.segment_bytes = SEGMENT << faults_random(2);
            struct wal *w = journal_open(&f.journal, &f.options);
            struct wal_numbers n;
            wal_numbers(w, &n);
            if (faults_random(3) == 0)
                record_cut(&f, w);
            fixture_append(&f, w, n.append.v + faults_random(SEGMENT / 2));
            journal_append_many(&f.journal, w, faults_random(20));
            if (faults_random(2) == 0)
                faults_die_after(1 + faults_random(3));
            record_cut(&f, w);
            size_t index;
            for (uint64_t i = faults_random(50); i > 0; i--)
                (void)!journal_append(&f.journal, w, f.journal.next_id++, 5000, &index);
            if (faults_random(3) > 0)
                faults_die_after(0);
            (void)!wal_close(w);
            faults_lose_power(f.directory);
        }
        open_and_close(&f);
        fixture_end(&f);
    }
}
END_TEST

static void
replace_mark(struct fixture *f, const void *p, size_t n)
{
    ck_assert_int_eq(file_replace_whole(&file_ops_system, f->mark, p, n, 0600), 0);
}

START_TEST(a_damaged_mark_is_refused_unless_one_half_is_whole)
{
    struct fixture f;
    fixture_init(&f, 60000);
    fixture_fill(&f, SEGMENT + MIB, true);
    BUFFER_AUTO whole = {0};
    ck_assert_int_eq(file_read_whole(f.mark, WAL_MARK_BYTES, &whole), 0);
    ck_assert_uint_eq(whole.length, WAL_MARK_BYTES);
    uint8_t bytes[WAL_MARK_BYTES + 1] = {0};
    static const size_t lengths[] = {0, 1, 6, 4096, WAL_MARK_BYTES - 1, WAL_MARK_BYTES + 1};
    memcpy(bytes, whole.data, whole.length);
    for (size_t i = 0; i < ARRAY_LENGTH(lengths); i++) {
        replace_mark(&f, bytes, lengths[i]);
        check_refused(&f, f.mark, "accept");
    }
    ck_assert_int_eq(unlink(f.mark), 0);
    check_refused(&f, f.mark, "missing");
    for (size_t i = 0; i < 72; i += 5) {
        memcpy(bytes, whole.data, whole.length);
        bytes[i] ^= 0x10;
        bytes[WAL_MARK_SLOT_BYTES + i] ^= 0x10;
        replace_mark(&f, bytes, WAL_MARK_BYTES);
        check_refused(&f, f.mark, "accept");
        for (unsigned half = 0; half < 2; half++) {
            memcpy(bytes, whole.data, whole.length);
            bytes[half * WAL_MARK_SLOT_BYTES + i] ^= 0x10;
            replace_mark(&f, bytes, WAL_MARK_BYTES);
            f.journal.acknowledged = f.journal.count;
            open_and_close(&f);
        }
    }
    replace_mark(&f, "accept", 6);
    open_and_close(&f);
    ck_assert_int_eq(file_read_whole(f.mark, WAL_MARK_BYTES, &whole), 0);
    ck_assert_uint_eq(whole.length, WAL_MARK_BYTES);
    // A newer version's.
    for (unsigned half = 0; half < 2; half++) {
        uint8_t *slot = whole.data + half * WAL_MARK_SLOT_BYTES;
        put_le16(slot + 8, 2);
        put_le32(slot + 72, crc32c(0, slot, 72));
    }
    replace_mark(&f, whole.data, whole.length);
    journal_open_fails(&f.journal, &f.options, -ENOTSUP);
    fixture_end(&f);
}
END_TEST

// What an older version left: segments of version 1, no mark.
START_TEST(a_log_from_before_there_was_a_mark_is_taken_over)
{
    struct fixture f;
    fixture_init(&f, 60000);
    fixture_fill(&f, 2 * SEGMENT + MIB, true);
    DIR *dir = opendir(f.directory);
    for (struct dirent *e; (e = readdir(dir));) {
        uint8_t header[WAL_SEGMENT_HEADER_BYTES];
        struct wal_segment_header h;
        CLEANUP(memory_free_auto) char *path = memory_printf("%s/%s", f.directory, e->d_name);
        int fd = open(path, O_RDWR);
        if (pread(fd, header, sizeof(header), 0) == sizeof(header) &&
            wal_segment_header_decode(header, &h) == 0) {
            h.has_mark = false;
            wal_segment_header_encode(&h, header);
            write_at(path, 0, header, sizeof(header));
        }
        close(fd);
    }
    closedir(dir);
    ck_assert_int_eq(unlink(f.mark), 0);
    f.journal.acknowledged = f.journal.count;
    open_and_close(&f);
    f.journal.acknowledged = f.journal.count;
    CLEANUP(memory_free_auto) char *path = newest_path(&f);
    CLEANUP(memory_free_auto) char *aside = memory_printf("%s/aside", f.directory);
    ck_assert_int_eq(rename(path, aside), 0);
    check_refused(&f, path, "accept");
    ck_assert_int_eq(rename(aside, path), 0);
    open_and_close(&f);
    fixture_end(&f);
}
END_TEST

START_TEST(a_mark_that_cannot_be_written_kills_the_log)
{
    struct fixture f;
    fixture_init(&f, 6000);
    struct wal *w = journal_open(&f.journal, &f.options);
    journal_append_many(&f.journal, w, 3);
    pthread_mutex_lock(&file_faults.mutex);
    file_faults.fail_at = file_faults.durable + 2; // behind the segment's header
    file_faults.error = -EIO;
    pthread_mutex_unlock(&file_faults.mutex);
    ck_assert_int_eq(journal_sync(&f.journal, w), -EIO);
    ck_assert_int_eq(wal_close(w), -EIO);
    faults_restart();
    open_and_close(&f);
    ck_assert_uint_eq(f.journal.count, 0);
    fixture_end(&f);
}
END_TEST

START_TEST(a_full_disk_does_not_keep_a_log_from_being_opened)
{
    struct fixture f;
    fixture_init(&f, 6000);
    fixture_fill(&f, 100000, false);
    faults_refuse(true, 0, 0);
    struct wal *w = journal_open(&f.journal, &f.options);
    fixture_append(&f, w, 200000);
    ck_assert_int_eq(wal_close(w), 0);
    faults_refuse(false, 0, 0);
    open_and_close(&f);
    fixture_end(&f);
}
END_TEST

// Records are not acknowledged at any price: one durable write a batch, two more a segment.
START_TEST(the_mark_costs_one_write_a_segment)
{
    struct fixture f;
    fixture_init(&f, 6000);
    struct wal *w = journal_open(&f.journal, &f.options);
    struct wal_numbers n;
    uint64_t before = faults_durable_writes();
    do {
        journal_append_many(&f.journal, w, 20);
        ck_assert_int_eq(journal_sync(&f.journal, w), 0);
        wal_numbers(w, &n);
    } while (n.append.v < 3 * SEGMENT);
    uint64_t segments = n.append.v / SEGMENT + 1;
    ck_assert_uint_le(faults_durable_writes() - before, n.flushes + 2 * segments);
    ck_assert_int_eq(wal_close(w), 0);
    fixture_end(&f);
}
END_TEST

// ---- a process that dies again and again --------------------------------------------------------

#define RECORDS_EACH 3u

static int
count_replayed(void *argument, const struct wal_replayed *x)
{
    uint64_t *count = argument;
    ck_assert_uint_eq(model_check_replayed(x, 20000), *count);
    ++*count;
    return 0;
}

static struct wal *
open_counting(const struct wal_options *options, uint64_t *count)
{
    BUFFER_AUTO error = {0};
    struct wal *w;
    *count = 0;
    int rc = wal_open(options, (struct lsn){0}, count_replayed, count, &w, &error);
    ck_assert_msg(rc == 0, "%d %s", rc, buffer_string(&error));
    return w;
}

static void
append_and_die(const struct wal_options *options, int round)
{
    uint64_t count;
    struct wal *w = open_counting(options, &count);
    struct journal j;
    journal_init(&j, 20000);
    for (unsigned i = 0; i < RECORDS_EACH; i++) {
        size_t index;
        if (journal_append(&j, w, count + i, 5000, &index) < 0)
            _exit(3);
    }
    if (round % 5 == 0) // nothing was acknowledged
        raise(SIGKILL);
    if (journal_sync(&j, w) < 0)
        _exit(4);
    raise(SIGKILL);
}

START_TEST(opening_without_getting_anywhere_uses_up_nothing)
{
    struct fixture f;
    fixture_init(&f, 20000);
    f.options = model_options(f.directory, NULL, 16 * MIB);
    uint64_t acknowledged = 0;
    for (int round = 1; round <= 50; round++) {
        pid_t child = fork();
        if (child == 0)
            append_and_die(&f.options, round);
        int status;
        ck_assert_int_eq(waitpid(child, &status, 0), child);
        ck_assert_msg(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "round %d: %x", round,
            (unsigned)status);
        acknowledged += round % 5 ? RECORDS_EACH : 0;
    }
    uint64_t count;
    struct wal *w = open_counting(&f.options, &count);
    ck_assert_uint_ge(count, acknowledged);
    struct wal_numbers n;
    wal_numbers(w, &n);
    ck_assert_uint_lt(n.append.v, SEGMENT);
    ck_assert_int_eq(wal_close(w), 0);
    fixture_end(&f);
}
END_TEST

int
main(void)
{
    Suite *s = suite_create("wal_mark");
#define ADD(test) unit_add(s, #test, test, 240)
    ADD(a_missing_newest_segment_is_damage);
    ADD(a_newest_segment_of_garbage_or_zeros_is_damage);
    ADD(an_operator_may_go_on_with_what_is_left);
    ADD(damage_in_the_last_batch_of_a_closed_log_is_noticed);
    ADD(a_torn_end_of_a_log_that_was_not_closed_is_no_damage);
    ADD(what_is_left_of_a_torn_batch_never_replays);
    ADD(a_power_loss_at_any_step_of_a_change_of_segments_loses_nothing);
    ADD(a_power_loss_at_any_step_of_an_open_loses_nothing);
    ADD(what_is_released_is_not_missed);
    ADD(a_damaged_mark_is_refused_unless_one_half_is_whole);
    ADD(a_log_from_before_there_was_a_mark_is_taken_over);
    ADD(a_mark_that_cannot_be_written_kills_the_log);
    ADD(a_full_disk_does_not_keep_a_log_from_being_opened);
    ADD(the_mark_costs_one_write_a_segment);
    ADD(opening_without_getting_anywhere_uses_up_nothing);
    ADD(a_log_that_ends_below_a_cut_that_was_recorded_is_refused);
    ADD(an_operator_may_go_on_with_a_log_that_lost_its_end);
    ADD(a_healthy_log_is_never_refused_for_a_cut_that_was_recorded);
#undef ADD
    return unit_run(s);
}
