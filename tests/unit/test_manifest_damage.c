// SPDX-License-Identifier: Apache-2.0
// Bits of the manifest's file that change on the disk: what is read is what was written, or an
// error.
#include "manifest_fixture.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "manifest/lmdb_seal.h"
#include "manifest/manifest_internal.h"

#define FILES 40u // enough for inner pages in some tables
#define FLIPS 800u

#define DISK_PAGE_BYTES 4096u
#define INNER_PAGE      1u
#define LEAF_PAGE       2u

// ---- a manifest and all it says -----------------------------------------------------------------

static struct fixture
full_fixture(void)
{
    struct fixture f = fixture_new(0);
    for (uint64_t i = 2; i < FILES + 2; i++) {
        char name[16];
        snprintf(name, sizeof(name), "file-%d", (int)i);
        SUBMIT(&f, i, sample_inode(1, S_IFDIR | 0755, 2, i - 1),
            sample_inode(i, S_IFREG | 0600, 1, i), sample_dirent(1, i, i, DT_REG, name),
            sample_xattr(i, "user.a", name, 6), sample_blob(i, 100),
            sample_chunk(i, i, 0, 1, i, 100), sample_delta(i, 2, i, 0, 10));
    }
    return f;
}

struct answers {
    struct buffer *out;
    int error; // the first one
};

static int
note_chunk(void *argument, struct chunk_index index, struct chunk_id id, uint32_t present_pages)
{
    buffer_append_le64(argument, index.v);
    buffer_append_le64(argument, id.v);
    buffer_append_le32(argument, present_pages);
    return 0;
}

static void
note_result(struct answers *a, int rc)
{
    if (rc < 0 && rc != -ENOENT && a->error == 0)
        a->error = rc;
    buffer_append_le32(a->out, (uint32_t)rc);
}

// Asks for every entry in all ways, and for some that do not exist. -EBADMSG when one of the
// answers was that.
static int
ask_everything(struct manifest *m, struct db_id db, struct buffer *out)
{
    struct answers a = {.out = out};
    struct manifest_reader *r;
    struct db_record found;
    struct db_totals totals;
    note_result(&a, manifest_find_db(m, "file:///srv/bucket", "acme", 1, &found));
    int rc = manifest_read_begin(m, &r);
    if (rc < 0)
        return rc;
    memset(&found, 0, sizeof(found));
    note_result(&a, manifest_read_db(r, db, &found));
    buffer_append(out, &found, sizeof(found));
    note_result(&a, manifest_read_totals(r, db, &totals));
    buffer_append(out, &totals, sizeof(totals));
    note_result(&a, manifest_export(r, db, append_change, out));
    note_result(&a, manifest_export_unpublished(r, db, append_change, out));
    for (uint64_t i = 1; i < FILES + 4; i++) {
        struct object_id object = {i};
        struct sha256 hash = sample_hash(i);
        struct inode_record inode;
        struct blob_record blob;
        struct chunk_entry chunk;
        struct xattr_record xattr;
        note_result(&a, manifest_read_inode(r, db, object, &inode));
        note_result(&a, manifest_read_blob(r, db, &hash, &blob));
        note_result(&a, manifest_read_chunk(r, db, object, (struct chunk_index){0}, &chunk));
        note_result(&a, manifest_read_xattr(r, db, object, "user.a", 6, &xattr));
        note_result(&a,
            manifest_read_object_chunks(r, db, object, (struct chunk_index){0}, note_chunk, a.out));
    }
    manifest_read_end(r);
    return a.error;
}

// What the process that looks at a damaged file ends with.
enum verdict { RIGHT, REFUSED, WRONG, CRASHED };

// A byte of the file that becomes another one: before the manifest is opened, or behind its back.
struct flip {
    int fd;
    off_t at;
    uint8_t byte;
    bool live;
};

static void
do_flip(const struct flip *f)
{
    if (pwrite(f->fd, &f->byte, 1, f->at) != 1)
        _exit(WRONG);
}

static enum verdict
judge(const char *directory, struct db_id db, const struct buffer *truth, const struct flip *flip)
{
    if (!flip->live)
        do_flip(flip);
    struct manifest_options options = {.no_sync = true};
    struct manifest *m;
    BUFFER_AUTO seen = {0};
    int rc = manifest_open(directory, &options, &m);
    if (rc < 0)
        return REFUSED;
    if (flip->live)
        do_flip(flip);
    rc = ask_everything(m, db, &seen);
    manifest_close(m);
    if (rc < 0)
        return REFUSED;
    return seen.length == truth->length && memcmp(seen.data, truth->data, seen.length) == 0 ? RIGHT
                                                                                            : WRONG;
}

static enum verdict
judge_in_child(
    const char *directory, struct db_id db, const struct buffer *truth, const struct flip *flip)
{
    int status;
    pid_t child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0) {
        static const int fatal[] = {SIGSEGV, SIGBUS, SIGABRT};
        for (size_t i = 0; i < ARRAY_LENGTH(fatal); i++)
            signal(fatal[i], SIG_DFL);
        if (!freopen("/dev/null", "w", stderr))
            _exit(WRONG);
        _exit(judge(directory, db, truth, flip));
    }
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? (enum verdict)WEXITSTATUS(status) : CRASHED;
}

static uint8_t *
read_file(const char *path, uint64_t *bytes_out)
{
    CLEANUP(file_close_auto) int fd = file_open(&file_ops_system, path, O_RDONLY, 0);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(file_size(fd, bytes_out), 0);
    uint8_t *bytes = malloc(*bytes_out);
    ck_assert_int_eq(file_read_exact_at(&file_ops_system, fd, bytes, *bytes_out, 0), 0);
    return bytes;
}

// Flips bits all over the file, one at a time; what came of it is in `count`.
static void
flip_bits(bool live, unsigned flips, uint64_t state, unsigned count[CRASHED + 1])
{
    struct fixture f = full_fixture();
    BUFFER_AUTO truth = {0};
    char path[200];
    uint64_t bytes;
    ck_assert_int_eq(ask_everything(f.manifest, f.db, &truth), 0);
    manifest_close(f.manifest);
    snprintf(path, sizeof(path), "%s/data.mdb", f.directory);
    uint8_t *good = read_file(path, &bytes);
    struct flip flip = {.fd = open(path, O_RDWR | O_CLOEXEC), .live = live};
    ck_assert_int_ge(flip.fd, 0);
    for (unsigned i = 0; i < flips; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        uint64_t bit = (state >> 16) % (bytes * 8);
        flip.at = (off_t)(bit / 8);
        flip.byte = (uint8_t)(good[bit / 8] ^ 1 << bit % 8);
        enum verdict verdict = judge_in_child(f.directory, f.db, &truth, &flip);
        if (verdict == WRONG || verdict == CRASHED)
            printf("bit %d of byte %d: %s\n", (int)(bit % 8), (int)(bit / 8),
                verdict == WRONG ? "wrong data was believed" : "the process ended");
        count[verdict]++;
        ck_assert_int_eq(pwrite(flip.fd, good, bytes, 0), (ssize_t)bytes);
        ck_assert_int_eq(ftruncate(flip.fd, (off_t)bytes), 0);
    }
    printf("of %u flipped bits %u were harmless, %u refused, %u ended the process, %u wrong\n",
        flips, count[RIGHT], count[REFUSED], count[CRASHED], count[WRONG]);
    close(flip.fd);
    free(good);
    unit_directory_remove(f.directory);
}

START_TEST(a_flipped_bit_is_refused_or_harmless)
{
    unsigned count[CRASHED + 1] = {0};
    flip_bits(false, FLIPS, 20261, count);
    ck_assert_uint_eq(count[WRONG], 0);
    ck_assert_uint_eq(count[CRASHED], 0);
    ck_assert_uint_gt(count[REFUSED], FLIPS / 20);
}
END_TEST

// LMDB believes its own pages while it has them open: a bit there can hide entries or end the
// process. Bits of entries are found nevertheless.
START_TEST(a_bit_that_flips_meanwhile_is_refused_or_harmless)
{
    unsigned count[CRASHED + 1] = {0};
    flip_bits(true, FLIPS, 777, count);
    ck_assert_uint_gt(count[REFUSED], FLIPS / 20);
    ck_assert_uint_le(count[WRONG], FLIPS / 100);
    ck_assert_uint_le(count[CRASHED], FLIPS / 20);
}
END_TEST

// ---- behind the manifest's back -----------------------------------------------------------------

// The environment without seals: values are what stands in the file.
static struct lmdb_env *
raw_open(const char *directory)
{
    struct lmdb_env *env;
    struct lmdb_options options = {.map_bytes = 64u << 20,
        .no_sync = true,
        .tables = manifest_table_names,
        .table_count = TABLE_COUNT,
        .plain_table = UINT32_MAX};
    ck_assert_int_eq(lmdb_env_open(directory, &options, &env), 0);
    return env;
}

struct raw_entry {
    struct schema_key key;
    struct buffer value;
};

// All entries of a table as they stand in the file; the caller frees them.
static struct raw_entry *
raw_entries(struct lmdb_txn *txn, enum manifest_table table, size_t *count_out)
{
    struct lmdb_cursor *cursor;
    struct lmdb_value key;
    struct lmdb_value value;
    struct raw_entry *entries = calloc(1000, sizeof(*entries));
    ck_assert_int_eq(lmdb_cursor_open(txn, table, &cursor), 0);
    *count_out = 0;
    while (lmdb_cursor_next(cursor, &key, &value) == 0) {
        struct raw_entry *e = &entries[(*count_out)++];
        ck_assert_uint_lt(*count_out, 1000);
        e->key.length = key.length;
        memcpy(e->key.bytes, key.data, key.length);
        buffer_append(&e->value, value.data, value.length);
    }
    lmdb_cursor_close(cursor);
    return entries;
}

static void
free_raw(struct raw_entry *entries, size_t count)
{
    for (size_t i = 0; i < count; i++)
        buffer_free(&entries[i].value);
    free(entries);
}

// Replaces the table's entry number `n` by one of which a bit of the key, or of the value, is
// another; LMDB puts it where that key belongs.
static void
swap_bit(const char *directory, enum manifest_table table, size_t n, bool of_key, unsigned bit)
{
    struct lmdb_env *env = raw_open(directory);
    struct lmdb_txn *txn;
    size_t count;
    ck_assert_int_eq(lmdb_write_begin(env, &txn), 0);
    struct raw_entry *entries = raw_entries(txn, table, &count);
    struct raw_entry *e = &entries[n % count];
    ck_assert_int_eq(lmdb_delete(txn, table, e->key.bytes, e->key.length), 0);
    uint8_t *bytes = of_key ? e->key.bytes : e->value.data;
    size_t bits = 8 * (of_key ? e->key.length : e->value.length);
    bytes[bit % bits / 8] ^= (uint8_t)(1 << bit % 8);
    ck_assert_int_eq(
        lmdb_put(txn, table, e->key.bytes, e->key.length, e->value.data, e->value.length), 0);
    free_raw(entries, count);
    ck_assert_int_eq(lmdb_write_commit(txn), 0);
    lmdb_env_close(env);
}

START_TEST(entries_that_were_not_written_are_refused)
{
    static const enum manifest_table tables[] = {TABLE_DB, TABLE_WAL_STATE,
        TABLE_GENERATION_WATERMARKS, TABLE_INODE, TABLE_DIRENT, TABLE_XATTR, TABLE_CHUNK_CATALOG,
        TABLE_OBJECT_CHUNKS, TABLE_CHUNK_DELTA_INDEX, TABLE_BLOB_REFS, TABLE_UNPUBLISHED_BLOBS,
        TABLE_UNPUBLISHED_INDEX, TABLE_CHANGE_LOG, TABLE_RUNTIME_STATE};
    for (size_t i = 0; i < ARRAY_LENGTH(tables); i++)
        for (unsigned n = 0; n < 8; n++) {
            struct fixture f = full_fixture();
            struct manifest_options options = {.no_sync = true};
            manifest_close(f.manifest);
            swap_bit(f.directory, tables[i], n * 7, n % 2, n * 1009 + 3);
            ck_assert_msg(manifest_open(f.directory, &options, &f.manifest) == -EBADMSG,
                "%s: a flipped bit was not found", manifest_table_names[tables[i]]);
            unit_directory_remove(f.directory);
        }
}
END_TEST

START_TEST(missing_entries_are_counted)
{
    struct fixture f = full_fixture();
    struct manifest_options options = {.no_sync = true};
    struct schema_key key;
    manifest_close(f.manifest);
    // A root without the record of what it is, but with all else, is not a new one.
    struct lmdb_env *env = raw_open(f.directory);
    struct lmdb_txn *txn;
    schema_key_runtime(&key, RUNTIME_ROOT, (struct db_id){0});
    ck_assert_int_eq(lmdb_write_begin(env, &txn), 0);
    ck_assert_int_eq(lmdb_delete(txn, TABLE_RUNTIME_STATE, key.bytes, key.length), 0);
    ck_assert_int_eq(lmdb_write_commit(txn), 0);
    lmdb_env_close(env);
    ck_assert_int_eq(manifest_open(f.directory, &options, &f.manifest), -EBADMSG);
    unit_directory_remove(f.directory);
}
END_TEST

// ---- a look at all entries ----------------------------------------------------------------------

static struct manifest_sweep
sweep_all(struct manifest *m, unsigned *steps_out)
{
    struct manifest_sweep sweep = {0};
    for (*steps_out = 0; !sweep.finished; ++*steps_out) {
        ck_assert_int_eq(manifest_sweep_step(m, &sweep), 0);
        ck_assert_uint_lt(*steps_out, 1000);
    }
    return sweep;
}

// Flips a bit in each place of the file where the text stands; how many there are.
static unsigned
flip_text(const char *directory, const char *text)
{
    char path[200];
    uint64_t bytes;
    unsigned places = 0;
    snprintf(path, sizeof(path), "%s/data.mdb", directory);
    uint8_t *file = read_file(path, &bytes);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    ck_assert_int_ge(fd, 0);
    for (uint8_t *p = file; (p = memmem(p, bytes - (size_t)(p - file), text, strlen(text))); p++) {
        uint8_t flipped = *p ^ 1;
        ck_assert_int_eq(pwrite(fd, &flipped, 1, p - file), 1);
        places++;
    }
    close(fd);
    free(file);
    return places;
}

START_TEST(a_sweep_finds_what_changed_while_the_manifest_is_open)
{
    struct fixture f = full_fixture();
    unsigned steps;
    struct manifest_sweep sweep;
    for (uint64_t i = 0; i < 5000; i += 100) {
        struct change c[100];
        for (uint64_t k = 0; k < ARRAY_LENGTH(c); k++)
            c[k] = sample_inode(1000 + i + k, S_IFREG | 0600, 0, i);
        ck_assert_int_eq(
            submit_changes(f.manifest, f.db, c, ARRAY_LENGTH(c), 0, RESIDENCY_LOCAL, NULL), 0);
    }
    sweep = sweep_all(f.manifest, &steps);
    ck_assert_uint_eq(sweep.damaged, 0);
    ck_assert_uint_gt(sweep.entries, 10000);
    ck_assert_uint_gt(steps, 9);
    uint64_t entries = sweep.entries;
    ck_assert_uint_gt(flip_text(f.directory, "file-7"), 0); // a name, and an attribute's value
    sweep = sweep_all(f.manifest, &steps);
    ck_assert_uint_eq(sweep.entries, entries);
    ck_assert_uint_ge(sweep.damaged, 1);
    ck_assert_uint_ge(manifest_damage(f.manifest), sweep.damaged);
    sweep = sweep_all(f.manifest, &steps);
    ck_assert_uint_eq(sweep.entries, entries);
    // Keys of attributes end with their names: each is another one now, some beside their order.
    ck_assert_uint_ge(flip_text(f.directory, "user.a"), FILES);
    sweep = sweep_all(f.manifest, &steps);
    ck_assert_uint_ge(sweep.damaged, FILES);
    manifest_close(f.manifest);
    unit_directory_remove(f.directory);
}
END_TEST

// ---- pages of a large file ----------------------------------------------------------------------

// The file of a manifest with inner pages below the roots of its tables, made as long as one of
// which only a part is looked through.
static struct fixture
large_fixture(char path_out[200])
{
    struct fixture f = full_fixture();
    for (uint64_t i = 0; i < 20000; i += 500) {
        struct change c[500];
        for (uint64_t k = 0; k < ARRAY_LENGTH(c); k++)
            c[k] = sample_inode(1000 + i + k, S_IFREG | 0600, 0, i);
        ck_assert_int_eq(
            submit_changes(f.manifest, f.db, c, ARRAY_LENGTH(c), 0, RESIDENCY_LOCAL, NULL), 0);
    }
    snprintf(path_out, 200, "%s/data.mdb", f.directory);
    return f;
}

static void
make_long(const char *path)
{
    ck_assert_int_eq(truncate(path, 130 << 20), 0);
}

static uint16_t
kind_of(const uint8_t *file, uint64_t bytes, uint64_t page)
{
    uint16_t flags = 0;
    if ((page + 1) * DISK_PAGE_BYTES <= bytes)
        memcpy(&flags, file + page * DISK_PAGE_BYTES + 10, sizeof(flags));
    return flags;
}

// The page that the first node of an inner page points to.
static uint64_t
first_child(const uint8_t *page)
{
    uint16_t at, part[3];
    memcpy(&at, page + 16, sizeof(at));
    memcpy(part, page + at, sizeof(part));
    return part[0] | (uint64_t)part[1] << 16 | (uint64_t)part[2] << 32;
}

// Changes the numbers in the headers of all leaves, or of the first page below each inner page that
// has inner pages below it; some of them are free. How many there are.
static unsigned
spoil_pages(const char *path, bool leaves)
{
    uint64_t bytes;
    unsigned spoiled = 0;
    uint8_t *file = read_file(path, &bytes);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    for (uint64_t page = 2; (page + 1) * DISK_PAGE_BYTES <= bytes; page++) {
        uint16_t kind = kind_of(file, bytes, page);
        uint64_t target = page;
        if (!leaves && kind == INNER_PAGE)
            target = first_child(file + page * DISK_PAGE_BYTES);
        if (leaves ? kind != LEAF_PAGE
                   : target == page || kind_of(file, bytes, target) != INNER_PAGE)
            continue;
        uint64_t number = target ^ 1u << 20;
        ck_assert_int_eq(
            pwrite(fd, &number, sizeof(number), (off_t)(target * DISK_PAGE_BYTES)), sizeof(number));
        spoiled++;
    }
    close(fd);
    free(file);
    return spoiled;
}

START_TEST(inner_pages_of_a_large_file_are_looked_at_when_it_is_opened)
{
    char path[200];
    struct fixture f = large_fixture(path);
    struct manifest_options options = {.no_sync = true};
    manifest_close(f.manifest);
    make_long(path);
    ck_assert_int_eq(manifest_open(f.directory, &options, &f.manifest), 0);
    ck_assert_int_eq(manifest_check_pages(f.manifest, false, NULL, NULL), 0);
    manifest_close(f.manifest);
    ck_assert_uint_gt(spoil_pages(path, false), 0);
    ck_assert_int_eq(manifest_open(f.directory, &options, &f.manifest), -EBADMSG);
    unit_directory_remove(f.directory);
}
END_TEST

static bool
say_no(void *argument)
{
    ++*(unsigned *)argument;
    return false;
}

START_TEST(all_pages_are_looked_at_while_the_manifest_is_open)
{
    char path[200];
    struct fixture f = large_fixture(path);
    unsigned asked = 0;
    ck_assert_int_eq(manifest_check_pages(f.manifest, true, NULL, NULL), 0);
    ck_assert_int_eq(manifest_check_pages(f.manifest, true, say_no, &asked), -ECANCELED);
    ck_assert_uint_eq(asked, 1);
    ck_assert_uint_gt(spoil_pages(path, true), 0);
    // A small one was looked through when it was opened.
    ck_assert_int_eq(manifest_check_pages(f.manifest, false, NULL, NULL), 0);
    ck_assert_int_eq(manifest_check_pages(f.manifest, true, NULL, NULL), -EBADMSG);
    make_long(path);
    ck_assert_int_eq(manifest_check_pages(f.manifest, false, NULL, NULL), -EBADMSG);
    manifest_close(f.manifest);
    unit_directory_remove(f.directory);
}
END_TEST

// ---- roots of before ----------------------------------------------------------------------------

// Makes of the directory what a program without seals would have left.
static void
make_unsealed(const char *directory)
{
    struct lmdb_env *env = raw_open(directory);
    struct lmdb_txn *txn;
    struct schema_key root;
    struct schema_key copy;
    schema_key_runtime(&root, RUNTIME_ROOT, (struct db_id){0});
    schema_key_runtime(&copy, RUNTIME_SEALED, (struct db_id){0});
    ck_assert_int_eq(lmdb_write_begin(env, &txn), 0);
    ck_assert_int_eq(lmdb_delete(txn, TABLE_RUNTIME_STATE, copy.bytes, copy.length), 0);
    for (unsigned table = 0; table < TABLE_COUNT; table++) {
        size_t count;
        struct raw_entry *entries = raw_entries(txn, table, &count);
        for (size_t i = 0; i < count; i++) {
            struct raw_entry *e = &entries[i];
            size_t length = e->value.length - LMDB_SEAL_BYTES;
            if (table == TABLE_RUNTIME_STATE && e->key.length == root.length &&
                memcmp(e->key.bytes, root.bytes, root.length) == 0) {
                // What a program of before reads: a version it does not know.
                uint32_t format;
                struct uuid id;
                length = e->value.length;
                ck_assert(schema_decode_root(e->value.data, length, &format, &id));
                ck_assert_uint_eq(format, MANIFEST_FORMAT_VERSION);
                e->value.data[2] = MANIFEST_FORMAT_UNSEALED;
            }
            ck_assert_int_eq(
                lmdb_put(txn, table, e->key.bytes, e->key.length, e->value.data, length), 0);
        }
        free_raw(entries, count);
    }
    ck_assert_int_eq(lmdb_write_commit(txn), 0);
    lmdb_env_close(env);
}

START_TEST(roots_without_seals_get_them)
{
    struct fixture f = full_fixture();
    BUFFER_AUTO before = {0};
    BUFFER_AUTO after = {0};
    struct uuid root = manifest_root_id(f.manifest);
    ck_assert_int_eq(ask_everything(f.manifest, f.db, &before), 0);
    manifest_close(f.manifest);
    make_unsealed(f.directory);
    for (int round = 0; round < 2; round++) {
        fixture_open(&f, 64u << 10); // a map that has to grow meanwhile
        struct uuid now = manifest_root_id(f.manifest);
        ck_assert(uuid_equal(&root, &now));
        buffer_clear(&after);
        ck_assert_int_eq(ask_everything(f.manifest, f.db, &after), 0);
        ck_assert_uint_eq(before.length, after.length);
        ck_assert_mem_eq(before.data, after.data, before.length);
        ck_assert_int_eq(manifest_check(f.manifest, f.db), 0);
        SUBMIT(&f, 0, sample_inode(2, S_IFREG | 0600, 1, 2));
        manifest_close(f.manifest);
    }
    swap_bit(f.directory, TABLE_INODE, 3, false, 100);
    struct manifest_options options = {.no_sync = true};
    ck_assert_int_eq(manifest_open(f.directory, &options, &f.manifest), -EBADMSG);
    unit_directory_remove(f.directory);
}
END_TEST

START_TEST(roots_in_use_are_not_sealed)
{
    struct fixture f = full_fixture();
    struct manifest_options options = {.no_sync = true};
    int ends[2][2];
    char byte = 0;
    manifest_close(f.manifest);
    make_unsealed(f.directory);
    ck_assert_int_eq(pipe(ends[0]), 0);
    ck_assert_int_eq(pipe(ends[1]), 0);
    pid_t child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0) {
        struct lmdb_env *env = raw_open(f.directory);
        struct lmdb_txn *txn;
        if (lmdb_read_begin(env, &txn) < 0)
            _exit(1);
        lmdb_read_end(txn);
        _exit(write(ends[0][1], &byte, 1) != 1 || read(ends[1][0], &byte, 1) != 1);
    }
    ck_assert_int_eq(read(ends[0][0], &byte, 1), 1);
    ck_assert_int_eq(manifest_open(f.directory, &options, &f.manifest), -EBUSY);
    ck_assert_int_eq(write(ends[1][1], &byte, 1), 1);
    int status;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_int_eq(status, 0);
    fixture_open(&f, 0);
    fixture_free(&f);
}
END_TEST

int
main(void)
{
    Suite *s = suite_create("manifest_damage");
#define ADD(test) unit_add(s, #test, test, 240)
    ADD(a_flipped_bit_is_refused_or_harmless);
    ADD(a_bit_that_flips_meanwhile_is_refused_or_harmless);
    ADD(entries_that_were_not_written_are_refused);
    ADD(missing_entries_are_counted);
    ADD(a_sweep_finds_what_changed_while_the_manifest_is_open);
    ADD(inner_pages_of_a_large_file_are_looked_at_when_it_is_opened);
    ADD(all_pages_are_looked_at_while_the_manifest_is_open);
    ADD(roots_without_seals_get_them);
    ADD(roots_in_use_are_not_sealed);
    return unit_run(s);
}
