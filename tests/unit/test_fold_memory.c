// SPDX-License-Identifier: Apache-2.0
// What a fold takes of memory: the program counts what malloc gives out. It does not count pages of
// LMDB's transaction and of the page cache, which have bounds of their own.
#include "volume_world.h"

#include <errno.h>
#include <malloc.h>
#include <stdatomic.h>
#include <string.h>

#include "manifest_fixture.h"
#include "platform/memory.h"
#include "volume/volume_internal.h"

// ---- counting -----------------------------------------------------------------------------------

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define COUNTS false
#else
#define COUNTS true
#endif

#define PAGE_OBJECT_MIN 4096u
#define PAGE_OBJECT_MAX 4224u

static _Atomic int64_t live, peak;

#if COUNTS

extern void *__libc_malloc(size_t n);
extern void *__libc_calloc(size_t count, size_t n);
extern void *__libc_realloc(void *p, size_t n);
extern void *__libc_memalign(size_t alignment, size_t n);
extern void __libc_free(void *p);

static int64_t
counted(void *p)
{
    size_t n = p ? malloc_usable_size(p) : 0;
    return n >= PAGE_OBJECT_MIN && n <= PAGE_OBJECT_MAX ? 0 : (int64_t)n;
}

static void *
note(void *p, int64_t before)
{
    int64_t now = atomic_fetch_add(&live, counted(p) - before) + counted(p) - before;
    int64_t highest = atomic_load(&peak);
    while (now > highest && !atomic_compare_exchange_weak(&peak, &highest, now))
        ;
    return p;
}

void *
malloc(size_t n)
{
    return note(__libc_malloc(n), 0);
}

void *
calloc(size_t count, size_t n)
{
    return note(__libc_calloc(count, n), 0);
}

void *
realloc(void *p, size_t n)
{
    int64_t before = counted(p);
    return note(__libc_realloc(p, n), before);
}

int
posix_memalign(void **p, size_t alignment, size_t n)
{
    *p = note(__libc_memalign(alignment, n), 0);
    return *p ? 0 : ENOMEM;
}

void
free(void *p)
{
    atomic_fetch_sub(&live, counted(p));
    __libc_free(p);
}

#endif

// By how much the live bytes went beyond what they were, while `work` ran.
static int64_t
peak_of(void (*work)(void *), void *argument)
{
    int64_t before = atomic_load(&live);
    atomic_store(&peak, before);
    work(argument);
    int64_t grown = atomic_load(&peak) - before;
    printf("%lld bytes at most\n", (long long)grown);
    return grown;
}

// ---- batches ------------------------------------------------------------------------------------

#define INODES 1000u

struct many {
    struct fixture *f;
    unsigned changes;
    unsigned calls;
    int result;         // of the source
    unsigned refuse_at; // a change there makes no sense
};

// The same inodes again and again, so that the transaction stays small.
static int
make_many(void *argument, struct manifest_batch *b)
{
    struct many *m = argument;
    m->calls++;
    for (unsigned i = 0; i < m->changes; i++) {
        struct change c = sample_inode(1000 + i % INODES, S_IFREG | 0600, 0, i);
        if (m->refuse_at != 0 && i == m->refuse_at)
            c = sample_chunk(1, 1, 0, 1, 77, 100); // of a blob that is not there
        manifest_batch_change(b, &c, true, (struct generation){1});
    }
    return m->result;
}

static int
submit_many(struct many *m)
{
    struct manifest_batch *b = manifest_batch_new(m->f->db);
    struct change first = sample_inode(1, S_IFDIR | 0755, 2, 0);
    struct change last = sample_inode(2, S_IFREG | 0600, 0, 5);
    manifest_batch_change(b, &first, false, (struct generation){0});
    manifest_batch_source(b, make_many, m);
    manifest_batch_change(b, &last, false, (struct generation){0});
    return manifest_submit(m->f->manifest, b, NULL);
}

static void
submit_well(void *argument)
{
    ck_assert_int_eq(submit_many(argument), 0);
}

static uint64_t
count_inodes(struct fixture *f)
{
    struct manifest_reader *r;
    struct db_totals totals;
    ck_assert_int_eq(manifest_read_begin(f->manifest, &r), 0);
    ck_assert_int_eq(manifest_read_totals(r, f->db, &totals), 0);
    manifest_read_end(r);
    return totals.inodes;
}

START_TEST(a_million_changes_of_one_batch_are_never_all_in_memory)
{
    struct fixture f = fixture_new(0);
    struct many few = {.f = &f, .changes = INODES}, many = {.f = &f, .changes = 1000000};
    submit_well(&few);
    ck_assert_int_lt(peak_of(submit_well, &many), 1 << 20);
    ck_assert_uint_eq(count_inodes(&f), INODES + 2);
    fixture_free(&f);
}
END_TEST

START_TEST(a_source_that_fails_changes_nothing)
{
    struct fixture f = fixture_new(0);
    struct many m = {.f = &f, .changes = 5000, .result = -EIO};
    ck_assert_int_eq(submit_many(&m), -EIO);
    ck_assert_uint_eq(count_inodes(&f), 0);
    // Refused in the first piece, and in the last.
    m = (struct many){.f = &f, .changes = 5000, .refuse_at = 1};
    ck_assert_int_eq(submit_many(&m), -EINVAL);
    m.refuse_at = 4999;
    ck_assert_int_eq(submit_many(&m), -EINVAL);
    ck_assert_uint_eq(count_inodes(&f), 0);
    m.refuse_at = 0;
    ck_assert_int_eq(submit_many(&m), 0);
    ck_assert_uint_eq(count_inodes(&f), INODES + 2);
    fixture_free(&f);
}
END_TEST

// What comes before and behind a source is noted as it was said; a map that is too small makes the
// writer begin again.
START_TEST(a_source_is_asked_again_when_the_transaction_is_repeated)
{
    struct fixture f = fixture_new(128 << 10);
    struct many m = {.f = &f, .changes = 5000};
    ck_assert_int_eq(submit_many(&m), 0);
    ck_assert_uint_gt(m.calls, 1);
    ck_assert_uint_eq(count_inodes(&f), INODES + 2);
    BUFFER_AUTO noted = {0};
    struct manifest_reader *r;
    ck_assert_int_eq(manifest_read_begin(f.manifest, &r), 0);
    ck_assert_int_eq(manifest_export_unpublished(r, f.db, append_change, &noted), 0);
    manifest_read_end(r);
    struct byte_reader reader = byte_reader_over(noted.data, noted.length);
    uint64_t count = 0;
    while (byte_reader_left(&reader) > 0) {
        struct change c;
        ck_assert_int_eq(change_decode(&reader, &c), 0);
        ck_assert(c.kind != CHANGE_PUT_INODE || c.object.v >= 1000);
        count += c.kind == CHANGE_PUT_INODE;
    }
    ck_assert_uint_eq(count, INODES);
    fixture_free(&f);
}
END_TEST

// ---- folds --------------------------------------------------------------------------------------

#define FILES 10000u
// Plan, action and image of a changed chunk, while it is folded (doc/architecture.md, "Memory").
#define BYTES_A_CHUNK 768
#define BYTES_A_FOLD  (4 << 20) // frames, indexes, packs in the making

static void
fold(void *argument)
{
    volume_world_fold(argument);
}

static void
make_files(struct volume *v, const char *prefix, size_t bytes)
{
    for (unsigned i = 0; i < FILES; i++) {
        char name[40];
        snprintf(name, sizeof(name), "%s-%u", prefix, i);
        struct object_id file = volume_world_make_file(v, name);
        if (bytes > 0)
            volume_world_fill(v, file, 0, bytes, i);
    }
}

START_TEST(a_fold_of_many_names_takes_no_memory_for_each)
{
    struct volume_world w;
    volume_world_new(&w);
    volume_world_open(&w);
    make_files(w.v, "warm", 0);
    volume_world_fold(w.v);
    make_files(w.v, "a-name-that-takes-some-room", 0);
    ck_assert_int_lt(peak_of(fold, w.v), 1 << 20);
    volume_world_close(&w);
    volume_world_check(&w);
    volume_world_free(&w);
}
END_TEST

START_TEST(a_fold_of_many_small_files_takes_what_is_documented)
{
    struct volume_world w;
    volume_world_new(&w);
    w.config.wal_limit_bytes = 512u << 20;
    w.config.page_cache_bytes = 256u << 20;
    volume_world_open(&w);
    make_files(w.v, "warm", 0);
    volume_world_fold(w.v);
    make_files(w.v, "small", 3000);
    ck_assert_int_lt(peak_of(fold, w.v), BYTES_A_FOLD + FILES * BYTES_A_CHUNK);
    volume_world_close(&w);
    volume_world_free(&w);
}
END_TEST

int
main(void)
{
    Suite *s = suite_create("fold_memory");
#define ADD(test) unit_add(s, #test, test, 120)
    ADD(a_million_changes_of_one_batch_are_never_all_in_memory);
    ADD(a_source_that_fails_changes_nothing);
    ADD(a_source_is_asked_again_when_the_transaction_is_repeated);
    ADD(a_fold_of_many_names_takes_no_memory_for_each);
    ADD(a_fold_of_many_small_files_takes_what_is_documented);
#undef ADD
    return unit_run(s);
}
