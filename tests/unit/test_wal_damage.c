// SPDX-License-Identifier: Apache-2.0
// Damaged segments: what was acknowledged is there, or the log says that it is damaged.
#include "unit.h"

#include <unistd.h>

#include "file_faults.h"
#include "wal_model.h"

#define SEGMENT (4 * MIB)

struct fixture {
    char *directory;
    struct wal_options options;
    struct journal journal;
};

static void
fixture_init(struct fixture *f, uint32_t largest)
{
    f->directory = unit_directory_new();
    f->options = model_options(f->directory, NULL, 64 * MIB);
    f->options.segment_bytes = SEGMENT;
    f->options.ring_bytes = 8 * MIB;
    journal_init(&f->journal, largest);
}

static void
fixture_end(struct fixture *f)
{
    journal_destroy(&f->journal);
    unit_directory_remove(f->directory);
}

// Appends until `bytes` are in the log, and syncs; then one more record, so that all before it is
// known to have been acknowledged.
static void
fixture_fill(struct fixture *f, uint64_t bytes)
{
    struct wal *w = journal_open(&f->journal, &f->options);
    struct wal_numbers n;
    do {
        journal_append_many(&f->journal, w, 1);
        wal_numbers(w, &n);
    } while (n.append.v < bytes);
    ck_assert_int_eq(journal_sync(&f->journal, w), 0);
    journal_append_many(&f->journal, w, 1);
    ck_assert_int_eq(wal_close(w), 0);
}

// The file whose segment begins at `start`.
static char *
path_of_segment(const struct fixture *f, uint64_t start)
{
    char *path = NULL;
    DIR *dir = opendir(f->directory);
    ck_assert_ptr_nonnull(dir);
    for (struct dirent *e; (e = readdir(dir)) && !path;) {
        uint8_t header[WAL_SEGMENT_HEADER_BYTES];
        struct wal_segment_header h;
        int fd = openat(dirfd(dir), e->d_name, O_RDONLY);
        if (pread(fd, header, sizeof(header), 0) == sizeof(header) &&
            wal_segment_header_decode(header, &h) == 0 && h.start.v == start)
            path = memory_printf("%s/%s", f->directory, e->d_name);
        close(fd);
    }
    closedir(dir);
    ck_assert_ptr_nonnull(path);
    return path;
}

static void
write_at(const char *path, uint64_t offset, const void *p, size_t n)
{
    int fd = open(path, O_RDWR);
    ck_assert_int_eq(pwrite(fd, p, n, (off_t)offset), (ssize_t)n);
    close(fd);
}

static void
read_at(const char *path, uint64_t offset, void *p, size_t n)
{
    int fd = open(path, O_RDONLY);
    ck_assert_int_eq(pread(fd, p, n, (off_t)offset), (ssize_t)n);
    close(fd);
}

// The log with this byte changed is refused, or holds everything but at most the last record.
static void
check_flipped(struct fixture *f, const char *path, uint64_t offset, bool *refused)
{
    uint8_t byte;
    read_at(path, offset, &byte, 1);
    uint8_t other = byte ^ (uint8_t)(1u << offset % 8);
    write_at(path, offset, &other, 1);
    BUFFER_AUTO error = {0};
    struct wal *w;
    struct journal *j = &f->journal;
    j->next = j->first;
    int rc = wal_open(&f->options, journal_cut(j), journal_replay, j, &w, &error);
    if (rc == 0) {
        ck_assert_msg(j->next + 1 >= j->count, "%s, byte %lu: %zu of %zu records", path,
            (unsigned long)offset, j->next, j->count);
        ck_assert_int_eq(wal_close(w), 0);
    } else {
        ck_assert(rc == -EBADMSG || rc == -ENOTSUP);
        ck_assert_uint_gt(error.length, 20);
    }
    *refused = rc != 0;
    write_at(path, offset, &byte, 1);
}

START_TEST(a_flipped_byte_never_gives_a_wrong_record)
{
    struct fixture f;
    fixture_init(&f, 60000);
    fixture_fill(&f, 3 * SEGMENT / 2);
    ck_assert_uint_gt(f.journal.count, 50);
    char *first = path_of_segment(&f, 0);
    char *second = path_of_segment(&f, SEGMENT);
    bool refused;
    for (uint64_t at = 0; at < 64; at += 3) {
        check_flipped(&f, first, at, &refused);
        ck_assert(refused);
        check_flipped(&f, second, at, &refused);
        ck_assert(refused);
    }
    unsigned count = 0;
    uint64_t end = f.journal.entries[f.journal.count - 1].end.v;
    for (uint64_t at = 64; at < SEGMENT; at += 100003) {
        check_flipped(&f, first, at, &refused);
        count += refused;
        check_flipped(&f, second, at, &refused);
        count += refused;
    }
    ck_assert_uint_gt(count, 40);
    // The last records, more closely.
    for (size_t i = f.journal.count - 6; i < f.journal.count; i++) {
        uint64_t lsn = f.journal.entries[i].lsn.v;
        for (uint64_t at = lsn; at < lsn + 64; at += 3)
            check_flipped(&f, second, at - SEGMENT, &refused);
    }
    check_flipped(&f, second, end - SEGMENT, &refused);
    ck_assert(!refused);
    struct wal *w = journal_open(&f.journal, &f.options);
    ck_assert_int_eq(wal_close(w), 0);
    free(first);
    free(second);
    fixture_end(&f);
}
END_TEST

START_TEST(a_missing_segment_is_damage)
{
    struct fixture f;
    fixture_init(&f, 200000);
    fixture_fill(&f, 4 * SEGMENT);
    for (uint64_t i = 0; i < 5; i++) {
        char *path = path_of_segment(&f, i * SEGMENT);
        CLEANUP(memory_free_auto) char *aside = memory_printf("%s/aside", f.directory);
        ck_assert_int_eq(rename(path, aside), 0);
        if (i > 0)
            journal_open_fails(&f.journal, &f.options, -EBADMSG);
        ck_assert_int_eq(rename(aside, path), 0);
        free(path);
    }
    // The first one is not missed when everything in it lies below the cut.
    char *path = path_of_segment(&f, 0);
    ck_assert_int_eq(unlink(path), 0);
    journal_open_fails(&f.journal, &f.options, -EBADMSG);
    while (journal_cut(&f.journal).v < SEGMENT)
        f.journal.first++;
    f.journal.acknowledged = f.journal.count;
    ck_assert_int_eq(wal_close(journal_open(&f.journal, &f.options)), 0);
    free(path);
    fixture_end(&f);
}
END_TEST

START_TEST(a_truncated_segment_is_damage)
{
    static const off_t lengths[] = {0, 100, 4096, 5000, MIB, SEGMENT - 1};
    struct fixture f;
    fixture_init(&f, 200000);
    fixture_fill(&f, 3 * SEGMENT);
    char *path = path_of_segment(&f, SEGMENT);
    for (size_t i = 0; i < ARRAY_LENGTH(lengths); i++) {
        BUFFER_AUTO whole = {0};
        ck_assert_int_eq(file_read_whole(path, SEGMENT, &whole), 0);
        ck_assert_int_eq(truncate(path, lengths[i]), 0);
        journal_open_fails(&f.journal, &f.options, -EBADMSG);
        write_at(path, 0, whole.data, whole.length);
    }
    f.journal.acknowledged = f.journal.count;
    ck_assert_int_eq(wal_close(journal_open(&f.journal, &f.options)), 0);
    free(path);
    fixture_end(&f);
}
END_TEST

// The newest segment loses its header, or header and first records: there is no other segment that
// says that it had been there.
START_TEST(a_lost_header_of_the_newest_segment_is_damage)
{
    struct fixture f;
    fixture_init(&f, 200000);
    fixture_fill(&f, SEGMENT + MIB);
    static uint8_t zeros[16384];
    static uint8_t before[sizeof(zeros)];
    char *path = path_of_segment(&f, SEGMENT);
    read_at(path, 0, before, sizeof(before));
    for (size_t n = 512; n <= sizeof(zeros); n *= 2) {
        write_at(path, 0, zeros, n);
        journal_open_fails(&f.journal, &f.options, -EBADMSG);
    }
    write_at(path, 0, before, sizeof(before));
    f.journal.acknowledged = f.journal.count;
    ck_assert_int_eq(wal_close(journal_open(&f.journal, &f.options)), 0);
    free(path);
    fixture_end(&f);
}
END_TEST

START_TEST(damage_below_the_cut_does_no_harm)
{
    struct fixture f;
    fixture_init(&f, 60000);
    fixture_fill(&f, 2 * SEGMENT);
    char *path = path_of_segment(&f, 0);
    uint8_t byte = 0x5a;
    write_at(path, f.journal.entries[3].lsn.v + 20, &byte, 1);
    journal_open_fails(&f.journal, &f.options, -EBADMSG);
    f.journal.first = 4;
    f.journal.acknowledged = f.journal.count;
    for (int i = 0; i < 3; i++)
        ck_assert_int_eq(wal_close(journal_open(&f.journal, &f.options)), 0);
    free(path);
    fixture_end(&f);
}
END_TEST

static void
hash_directory(const char *directory, struct sha256 *hash_out)
{
    struct sha256_stream *stream = sha256_stream_new();
    struct dirent **names;
    int n = scandir(directory, &names, NULL, alphasort);
    for (int i = 0; i < n; i++) {
        CLEANUP(memory_free_auto) char *path = memory_printf("%s/%s", directory, names[i]->d_name);
        BUFFER_AUTO content = {0};
        if (names[i]->d_name[0] != '.')
            ck_assert_int_eq(file_read_whole(path, 64 * MIB, &content), 0);
        sha256_stream_update(stream, names[i]->d_name, strlen(names[i]->d_name) + 1);
        sha256_stream_update(stream, content.data, content.length);
        free(names[i]);
    }
    free(names);
    sha256_stream_finish(stream, hash_out);
    sha256_stream_free(stream);
}

START_TEST(a_refused_log_is_not_changed)
{
    struct fixture f;
    fixture_init(&f, 200000);
    fixture_fill(&f, 3 * SEGMENT);
    // Other sizes would remove segments that are not needed; one of them lost its header.
    f.journal.first = f.journal.count / 2;
    f.options.segment_bytes = 2 * SEGMENT;
    char *path = path_of_segment(&f, SEGMENT);
    char *last = path_of_segment(&f, 2 * SEGMENT);
    uint8_t byte = 0x77;
    write_at(last, 3, &byte, 1);
    write_at(last, WAL_SEGMENT_HEADER_BYTES + 30, &byte, 1);
    write_at(path, f.journal.entries[f.journal.first].lsn.v - SEGMENT + 16, &byte, 1);
    struct sha256 before;
    struct sha256 after;
    hash_directory(f.directory, &before);
    journal_open_fails(&f.journal, &f.options, -EBADMSG);
    hash_directory(f.directory, &after);
    ck_assert(sha256_equal(&before, &after));
    free(path);
    free(last);
    fixture_end(&f);
}
END_TEST

START_TEST(a_newer_version_is_refused)
{
    struct fixture f;
    fixture_init(&f, 5000);
    fixture_fill(&f, 10000);
    char *path = path_of_segment(&f, 0);
    uint8_t header[WAL_SEGMENT_HEADER_BYTES];
    read_at(path, 0, header, sizeof(header));
    put_le16(header + 8, 3);
    put_le32(header + 60, crc32c(0, header, 60));
    write_at(path, 0, header, sizeof(header));
    journal_open_fails(&f.journal, &f.options, -ENOTSUP);
    free(path);
    fixture_end(&f);
}
END_TEST

// Two volumes, the second in the directory of the first: equal LSNs, equal sizes of records.
START_TEST(records_of_another_volume_never_replay)
{
    struct fixture f;
    fixture_init(&f, 4096);
    fixture_fill(&f, 400000);
    size_t before = f.journal.count;
    struct journal_entry *of_other = f.journal.entries;
    f.journal.entries = NULL;
    f.journal.count = f.journal.capacity = f.journal.acknowledged = 0;
    f.options.volume.b[0] ^= 1;
    // The same records up to one of them: what follows it in the file is the other volume's.
    struct wal *w = journal_open(&f.journal, &f.options);
    size_t index;
    for (size_t i = 0; i < before / 2; i++)
        ck_assert_int_eq(
            journal_append(&f.journal, w, of_other[i].id, MODEL_PATIENCE_MS, &index), 0);
    ck_assert_int_eq(wal_close(w), 0);
    f.journal.acknowledged = f.journal.count;
    ck_assert_int_eq(wal_close(journal_open(&f.journal, &f.options)), 0);
    free(of_other);
    fixture_end(&f);
}
END_TEST

// The first write after an open is torn by a power loss: its records reach the disk, the segment's
// header does not. The next process must not take them for its own.
START_TEST(records_of_a_torn_first_write_never_replay)
{
    for (uint64_t seed = 0; seed < 12; seed++) {
        struct fixture f;
        fixture_init(&f, 4096);
        f.options.ops = &file_ops_faulty;
        file_faults.track = true;
        file_faults.seed = 100 * seed;
        if (seed % 2) // in a segment that has records
            fixture_fill(&f, 100000);
        f.journal.first = f.journal.acknowledged = f.journal.count;
        struct wal *w = journal_open(&f.journal, &f.options);
        struct wal_numbers n;
        wal_numbers(w, &n);
        f.journal.released = n.append;
        wal_release(w, n.append);
        size_t before = f.journal.count;
        size_t index;
        for (uint64_t id = 1; id <= 30; id++)
            ck_assert_int_eq(journal_append(&f.journal, w, id, MODEL_PATIENCE_MS, &index), 0);
        faults_die_after(seed / 2 % 3); // the header, the mark, or the records
        int synced = journal_sync(&f.journal, w);
        ck_assert_int_eq(wal_close(w), synced);
        faults_lose_power(f.directory);
        w = journal_open(&f.journal, &f.options);
        for (uint64_t id = f.journal.count - before + 1; id <= 20; id++) {
            ck_assert_int_eq(journal_append(&f.journal, w, id, MODEL_PATIENCE_MS, &index), 0);
            ck_assert_int_eq(journal_sync(&f.journal, w), 0);
            if (id % 5)
                continue;
            ck_assert_int_eq(wal_close(w), 0);
            w = journal_open(&f.journal, &f.options);
        }
        ck_assert_int_eq(wal_close(w), 0);
        faults_end();
        fixture_end(&f);
    }
}
END_TEST

int
main(void)
{
    Suite *s = suite_create("wal_damage");
#define ADD(test) unit_add(s, #test, test, 240)
    ADD(a_flipped_byte_never_gives_a_wrong_record);
    ADD(a_missing_segment_is_damage);
    ADD(a_truncated_segment_is_damage);
    ADD(a_lost_header_of_the_newest_segment_is_damage);
    ADD(damage_below_the_cut_does_no_harm);
    ADD(a_refused_log_is_not_changed);
    ADD(a_newer_version_is_refused);
    ADD(records_of_another_volume_never_replay);
    ADD(records_of_a_torn_first_write_never_replay);
#undef ADD
    return unit_run(s);
}
