// SPDX-License-Identifier: Apache-2.0
// Catalogs read in part: what a host without anything needs to fetch one directory.
#include "unit.h"

#include "format/manifest_index.h"
#include "manifest_samples.h"

#define DIRECTORIES 100u
#define ENTRIES     400u

struct reads {
    const uint8_t *p;
    size_t n;
    unsigned calls;
    size_t bytes;
};

static int
read_some(void *argument, uint64_t offset, void *p, size_t n)
{
    struct reads *r = argument;
    ck_assert_uint_le(n, r->n);
    ck_assert_uint_le(offset, r->n - n);
    memcpy(p, r->p + offset, n);
    r->calls++;
    r->bytes += n;
    return 0;
}

static int
append(void *argument, const void *p, size_t n)
{
    buffer_append(argument, p, n);
    return 0;
}

static struct manifest_record_writer *
begin(enum manifest_record_kind kind, struct buffer *out)
{
    struct manifest_record_header h = {.kind = kind, .sequence = 9, .generation = {5}};
    return manifest_record_writer_new(&h, append, out);
}

static void
finish(struct manifest_record_writer *w)
{
    struct sha256 hash;
    uint64_t bytes;
    ck_assert_int_eq(manifest_record_writer_finish(w, &hash, &bytes), 0);
    manifest_record_writer_free(w);
}

static void
add(struct manifest_record_writer *w, struct change c)
{
    ck_assert_int_eq(manifest_record_writer_add(w, &c), 0);
}

static struct change
entry_of(unsigned directory, unsigned entry)
{
    static char name[48];
    unsigned object = 1000 + directory * ENTRIES + entry;
    snprintf(name, sizeof(name), "file %08x of %u", object * 2654435761u, directory);
    return sample_dirent(directory + 1, (uint64_t)(entry + 1) << 8, object, DT_REG, name);
}

// A catalog of many directories: a few sections of each kind.
static void
make_catalog(struct buffer *out)
{
    struct manifest_record_writer *w = begin(MANIFEST_RECORD_CATALOG, out);
    add(w, (struct change){CHANGE_PUT_COUNTERS, .counters = {100000, 200}});
    for (unsigned i = 0; i < DIRECTORIES * ENTRIES; i++)
        add(w, sample_inode(1000 + i, S_IFREG | 0644, 1, 5));
    for (unsigned d = 0; d < DIRECTORIES; d++)
        for (unsigned i = 0; i < ENTRIES; i++)
            add(w, entry_of(d, i));
    add(w, sample_chunk(11, 1000, 0, 5, 100, 5000));
    add(w, sample_chunk(7, 1000, 1, 5, 100, 5000));
    add(w, sample_delta(7, 6, 100, 0, 50));
    finish(w);
}

struct find {
    uint64_t parent;
    unsigned found;
};

static int
count_entries(void *argument, const struct change *c)
{
    struct find *f = argument;
    f->found += c->kind == CHANGE_PUT_DIRENT && c->dirent.parent.v == f->parent;
    return 0;
}

START_TEST(a_directory_is_found_with_two_reads)
{
    BUFFER_AUTO catalog = {0};
    BUFFER_AUTO key = {0};
    struct manifest_index index;
    make_catalog(&catalog);
    struct reads r = {.p = catalog.data, .n = catalog.length};
    ck_assert_int_eq(manifest_index_read(read_some, &r, r.n, &index), 0);
    ck_assert_uint_eq(r.calls, 1);
    ck_assert_uint_gt(index.count, 8);
    struct change wanted = entry_of(30, 200);
    struct find f = {.parent = 31};
    change_key(&wanted, &key);
    const struct manifest_index_entry *e =
        manifest_index_find(&index, CHANGE_PUT_DIRENT, key.data, key.length);
    ck_assert_ptr_nonnull(e);
    ck_assert_int_eq(manifest_index_read_section(read_some, &r, e, count_entries, &f), 0);
    ck_assert_uint_eq(r.calls, 2);
    ck_assert_uint_gt(f.found, 0);
    ck_assert_uint_lt(r.bytes, catalog.length / 2);
    // All of the directory lies in this section and the next.
    if (e + 1 < index.entries + index.count && e[1].kind == CHANGE_PUT_DIRENT && f.found < ENTRIES)
        ck_assert_int_eq(manifest_index_read_section(read_some, &r, e + 1, count_entries, &f), 0);
    if (e > index.entries && e[-1].kind == CHANGE_PUT_DIRENT && f.found < ENTRIES)
        ck_assert_int_eq(manifest_index_read_section(read_some, &r, e - 1, count_entries, &f), 0);
    ck_assert_uint_eq(f.found, ENTRIES);
    manifest_index_free(&index);
}
END_TEST

START_TEST(an_index_names_kinds_and_first_keys_in_order)
{
    BUFFER_AUTO catalog = {0};
    struct manifest_index index;
    make_catalog(&catalog);
    struct reads r = {.p = catalog.data, .n = catalog.length};
    ck_assert_int_eq(manifest_index_read(read_some, &r, r.n, &index), 0);
    uint64_t at = 256;
    for (size_t i = 0; i < index.count; i++) {
        const struct manifest_index_entry *e = &index.entries[i];
        ck_assert_uint_eq(e->offset, at);
        at += e->bytes;
        if (i > 0 && e[-1].kind == e->kind)
            ck_assert_int_lt(memcmp(e[-1].key, e->key, e->key_length), 0);
    }
    ck_assert_ptr_null(manifest_index_find(&index, CHANGE_PUT_XATTR, "", 0));
    ck_assert_ptr_null(manifest_index_find(&index, CHANGE_PUT_INODE, "", 0));
    manifest_index_free(&index);
}
END_TEST

static void
refuses(const struct change *changes, size_t count)
{
    BUFFER_AUTO out = {0};
    struct manifest_record_writer *w = begin(MANIFEST_RECORD_CATALOG, &out);
    for (size_t i = 0; i + 1 < count; i++)
        add(w, changes[i]);
    ck_assert_int_eq(manifest_record_writer_add(w, &changes[count - 1]), -EINVAL);
    manifest_record_writer_free(w);
}

START_TEST(a_catalog_out_of_order_is_not_written)
{
    struct change inodes[] = {
        sample_inode(5, S_IFREG | 0644, 1, 0), sample_inode(4, S_IFREG | 0644, 1, 0)};
    struct change same[] = {
        sample_inode(5, S_IFREG | 0644, 1, 0), sample_inode(5, S_IFREG | 0644, 1, 0)};
    struct change chunks[] = {
        sample_chunk(1, 3, 0, 5, 100, 5000), sample_chunk(2, 2, 0, 5, 100, 5000)};
    struct change kinds[] = {sample_inode(5, S_IFREG | 0644, 1, 0),
        sample_dirent(1, 1, 2, DT_REG, "a"), sample_inode(6, S_IFREG | 0644, 1, 0)};
    refuses(inodes, 2);
    refuses(same, 2);
    refuses(chunks, 2);
    refuses(kinds, 3);
}
END_TEST

// A record in which the order does not matter, turned into a catalog.
START_TEST(a_catalog_out_of_order_is_not_read)
{
    BUFFER_AUTO record = {0};
    struct sha256 hash;
    struct manifest_record_writer *w = begin(MANIFEST_RECORD_GENERATION, &record);
    add(w, sample_inode(5, S_IFREG | 0644, 1, 0));
    add(w, sample_inode(4, S_IFREG | 0644, 1, 0));
    finish(w);
    uint8_t *p = record.data;
    uint8_t *footer = p + record.length - 192;
    put_le16(p + 10, MANIFEST_RECORD_CATALOG);
    put_le32(p + 252, crc32c(0, p, 252));
    sha256_of(p, record.length - 192, &hash);
    memcpy(footer + 36, hash.b, sizeof(hash.b));
    put_le32(footer + 188, crc32c(0, footer, 188));
    struct reads r = {.p = p, .n = record.length};
    ck_assert_int_eq(manifest_record_read(read_some, &r, r.n, NULL, NULL, NULL), -EBADMSG);
}
END_TEST

START_TEST(damage_of_what_is_read_in_part_is_found)
{
    BUFFER_AUTO catalog = {0};
    make_catalog(&catalog);
    struct find f = {.parent = 1};
    struct manifest_index index;
    struct reads whole = {.p = catalog.data, .n = catalog.length};
    ck_assert_int_eq(manifest_index_read(read_some, &whole, whole.n, &index), 0);
    size_t length = index.bytes.length + 192;
    manifest_index_free(&index);
    for (size_t back = 1; back <= length; back++) {
        uint8_t *p = catalog.data + catalog.length - back;
        *p ^= 0x10;
        struct reads r = {.p = catalog.data, .n = catalog.length};
        ck_assert_int_eq(manifest_index_read(read_some, &r, r.n, &index), -EBADMSG);
        manifest_index_free(&index);
        *p ^= 0x10;
    }
    struct reads r = {.p = catalog.data, .n = catalog.length};
    ck_assert_int_eq(manifest_index_read(read_some, &r, r.n, &index), 0);
    catalog.data[index.entries[2].offset + 100] ^= 1;
    ck_assert_int_eq(
        manifest_index_read_section(read_some, &r, &index.entries[2], count_entries, &f), -EBADMSG);
    manifest_index_free(&index);
}
END_TEST

int
main(void)
{
    Suite *s = suite_create("manifest_index");
#define ADD(test) unit_add(s, #test, test, 60)
    ADD(a_directory_is_found_with_two_reads);
    ADD(an_index_names_kinds_and_first_keys_in_order);
    ADD(a_catalog_out_of_order_is_not_written);
    ADD(a_catalog_out_of_order_is_not_read);
    ADD(damage_of_what_is_read_in_part_is_found);
    return unit_run(s);
}
