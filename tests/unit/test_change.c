// SPDX-License-Identifier: Apache-2.0
#include "unit.h"

#include "golden.h"
#include "manifest_samples.h"

// Decodes exactly these bytes, from memory that ends where they end.
static int
decode_alone(const uint8_t *p, size_t n, struct buffer *again)
{
    uint8_t *copy = malloc(n > 0 ? n : 1);
    memcpy(copy, p, n);
    struct byte_reader r = byte_reader_over(copy, n);
    struct change c;
    int rc = change_decode(&r, &c);
    if (rc == 0) {
        buffer_clear(again);
        change_encode(&c, again);
        ck_assert_uint_eq(byte_reader_left(&r), n - again->length);
    }
    free(copy);
    return rc;
}

START_TEST(every_kind_comes_back)
{
    struct change samples[SAMPLE_CHANGES];
    size_t count = sample_changes(samples);
    bool seen[CHANGE_DELETE_DAMAGE + 1] = {0};
    ck_assert_uint_eq(count, SAMPLE_CHANGES);
    BUFFER_AUTO all = {0};
    BUFFER_AUTO again = {0};
    for (size_t i = 0; i < count; i++) {
        BUFFER_AUTO one = {0};
        change_encode(&samples[i], &one);
        ck_assert_int_eq(decode_alone(one.data, one.length, &again), 0);
        ck_assert_mem_eq(again.data, one.data, one.length);
        buffer_append(&all, one.data, one.length);
        seen[samples[i].kind] = true;
    }
    for (int kind = 1; kind <= CHANGE_DELETE_DAMAGE; kind++)
        ck_assert_msg(seen[kind], "no sample of kind %d", kind);
    // A stream of them is read change by change.
    struct byte_reader r = byte_reader_over(all.data, all.length);
    for (size_t i = 0; i < count; i++) {
        struct change c;
        ck_assert_int_eq(change_decode(&r, &c), 0);
        ck_assert_int_eq(c.kind, samples[i].kind);
    }
    ck_assert_uint_eq(byte_reader_left(&r), 0);
}
END_TEST

START_TEST(fields_come_back)
{
    BUFFER_AUTO b = {0};
    struct change c = sample_symlink(6, "../elsewhere");
    struct change chunk = sample_chunk(11, 2, 3, 5, 100, 5000);
    chunk.chunk.delta_count = 4;
    chunk.chunk.delta_bytes = 400;
    change_encode(&c, &b);
    change_encode(&chunk, &b);
    struct byte_reader r = byte_reader_over(b.data, b.length);
    struct change back;
    ck_assert_int_eq(change_decode(&r, &back), 0);
    ck_assert_uint_eq(back.object.v, 6);
    ck_assert_uint_eq(back.inode.mode, S_IFLNK | 0777);
    ck_assert_int_eq(back.inode.atime.seconds, -5);
    ck_assert_uint_eq(back.inode.mtime.nanoseconds, 999999999);
    ck_assert_uint_eq(back.inode.link_target_length, 12);
    ck_assert_mem_eq(back.inode.link_target, "../elsewhere", 12);
    ck_assert_int_eq(change_decode(&r, &back), 0);
    ck_assert_mem_eq(&back.chunk.base, &chunk.chunk.base, sizeof(back.chunk.base));
    ck_assert_uint_eq(back.chunk.delta_count, 4);
    ck_assert_uint_eq(back.chunk.base_generation.v, 5);
}
END_TEST

// ---- the judge ----------------------------------------------------------------------------------

static void
refused_by_both(const struct change *c)
{
    BUFFER_AUTO b = {0};
    BUFFER_AUTO again = {0};
    change_encode(c, &b);
    ck_assert(!change_is_valid(c));
    int rc = decode_alone(b.data, b.length, &again);
    ck_assert_int_eq(rc, c->kind > CHANGE_DELETE_DAMAGE ? -ENOTSUP : -EBADMSG);
}

// What is logged is judged before it is encoded, by the judge that the decoder asks.
START_TEST(whoever_encodes_is_told_what_the_decoder_refuses)
{
    struct change samples[SAMPLE_CHANGES];
    size_t count = sample_changes(samples);
    for (size_t i = 0; i < count; i++)
        ck_assert(change_is_valid(&samples[i]));
    struct change c = sample_inode(2, S_IFDIR | 0755, 2, UINT64_MAX);
    refused_by_both(&c);
    c = sample_inode(0, S_IFREG | 0644, 1, 0);
    refused_by_both(&c);
    c = sample_inode(2, S_IFREG | 0644, 1, 0);
    c.inode.btime.nanoseconds = 1000000000;
    refused_by_both(&c);
    c = sample_symlink(2, "x");
    c.inode.link_target_length = 0;
    refused_by_both(&c);
    c = (struct change){.kind = CHANGE_WRITE, .object = {2}, .offset = OBJECT_MAX_BYTES};
    ck_assert(change_is_valid(&c));
    c.length = 1;
    refused_by_both(&c);
    c = (struct change){.kind = CHANGE_DELETE_XATTR};
    c.xattr = (struct xattr_record){.object = {2}, .name = "", .name_length = 0};
    refused_by_both(&c);
    c = (struct change){.kind = (enum change_kind)99};
    refused_by_both(&c);
}
END_TEST

// ---- what is refused ----------------------------------------------------------------------------

static void
refused(const struct change *c, const char *why)
{
    BUFFER_AUTO b = {0};
    BUFFER_AUTO again = {0};
    change_encode(c, &b);
    ck_assert_msg(decode_alone(b.data, b.length, &again) == -EBADMSG, "accepted: %s", why);
}

#define REFUSED(make, statement)                                                                   \
    do {                                                                                           \
        struct change c = make;                                                                    \
        statement;                                                                                 \
        refused(&c, #make ": " #statement);                                                        \
    } while (0)

START_TEST(impossible_inodes_are_refused)
{
#define FILE_INODE sample_inode(9, S_IFREG | 0644, 1, 10)
    REFUSED(FILE_INODE, c.object.v = 0);
    REFUSED(FILE_INODE, c.inode.size = OBJECT_MAX_BYTES + 1);
    REFUSED(FILE_INODE, c.inode.atime.nanoseconds = 1000000000);
    REFUSED(FILE_INODE, c.inode.mtime.nanoseconds = UINT32_MAX);
    REFUSED(FILE_INODE, c.inode.ctime.nanoseconds = 1000000000);
    REFUSED(FILE_INODE, c.inode.btime.nanoseconds = 1000000000);
    REFUSED(FILE_INODE, c.inode.mode = 0644);
    REFUSED(FILE_INODE, c.inode.mode = S_IFMT);
    REFUSED(FILE_INODE, c.inode.mode |= 1u << 16);
    REFUSED(FILE_INODE, c.inode.source_variant = 3);
    REFUSED(sample_symlink(9, "x"), c.inode.mode = S_IFREG | 0644);
    REFUSED(sample_symlink(9, "x"), c.inode.link_target_length = 0);
    REFUSED(sample_symlink(9, "x\0y"), c.inode.link_target_length = 3);
    static char target[LINK_TARGET_BYTES_MAX + 2];
    memset(target, 't', sizeof(target) - 1);
    REFUSED(sample_symlink(9, target), (void)0);
    REFUSED(sample_delete_inode(9), c.object.v = 0);
}
END_TEST

START_TEST(impossible_names_are_refused)
{
    static const char *const bad[] = {"", ".", "..", "a/b", "/"};
    for (size_t i = 0; i < ARRAY_LENGTH(bad); i++)
        REFUSED(sample_dirent(1, 2, 3, DT_REG, bad[i]), (void)0);
    REFUSED(sample_dirent(1, 2, 3, DT_REG, "abc"), c.dirent.name = "a\0c");
    REFUSED(sample_dirent(0, 2, 3, DT_REG, "abc"), (void)0);
    REFUSED(sample_dirent(1, 2, 0, DT_REG, "abc"), (void)0);
    REFUSED(sample_dirent(1, (uint64_t)INT64_MAX + 1, 3, DT_REG, "abc"), (void)0);
    REFUSED(sample_dirent(1, 2, 3, DT_UNKNOWN, "abc"), (void)0);
    REFUSED(sample_dirent(1, 2, 3, DT_WHT, "abc"), (void)0);
    REFUSED(sample_delete_dirent(1, 2, ".."), (void)0);
    REFUSED(sample_delete_dirent(1, 2, "a/b"), (void)0);
    REFUSED(sample_delete_dirent(0, 2, "a"), (void)0);
    REFUSED(sample_xattr(1, "", "v", 1), (void)0);
    REFUSED(sample_xattr(0, "a", "v", 1), (void)0);
    REFUSED(sample_xattr(1, "abc", "v", 1), c.xattr.name = "a\0c");
    REFUSED(sample_delete_xattr(1, ""), (void)0);
    static uint8_t value[XATTR_VALUE_BYTES_MAX + 1];
    REFUSED(sample_xattr(1, "a", value, sizeof(value)), (void)0);
}
END_TEST

static struct change
range_change(enum change_kind kind, uint64_t object, uint64_t offset, uint64_t length)
{
    return (struct change){kind, .object = {object}, .offset = offset, .length = length};
}

START_TEST(impossible_ranges_are_refused)
{
    REFUSED(range_change(CHANGE_WRITE, 0, 1, 1), (void)0);
    REFUSED(range_change(CHANGE_WRITE, 1, OBJECT_MAX_BYTES, 1), (void)0);
    REFUSED(range_change(CHANGE_WRITE, 1, UINT64_MAX, 2), (void)0);
    REFUSED(range_change(CHANGE_WRITE, 1, 0, UINT64_MAX), (void)0);
    REFUSED(range_change(CHANGE_DISCARD, 1, 2, UINT64_MAX - 1), (void)0);
    REFUSED(range_change(CHANGE_DISCARD, 1, OBJECT_MAX_BYTES + 1, UINT64_MAX), (void)0);
    REFUSED(range_change(CHANGE_DISCARD, 0, 0, 1), (void)0);
}
END_TEST

START_TEST(impossible_geometry_is_refused)
{
#define CHUNK sample_chunk(11, 2, 3, 5, 100, 5000)
    REFUSED(CHUNK, c.chunk.id.v = 0);
    REFUSED(CHUNK, c.chunk.object.v = 0);
    REFUSED(CHUNK, c.chunk.index.v = OBJECT_MAX_BYTES / CHUNK_BYTES + 1);
    REFUSED(CHUNK, c.chunk.base_generation.v = 6);
    REFUSED(CHUNK, c.chunk.base_pages = CHUNK_PAGES + 1);
    REFUSED(CHUNK, c.chunk.present_pages = CHUNK_PAGES + 1);
    REFUSED(CHUNK, c.chunk.sealed = 2);
    REFUSED(CHUNK, c.chunk.base.length = 0);
    REFUSED(CHUNK, c.chunk.base.index_offset = 5000);
    REFUSED(CHUNK, c.chunk.base.offset = UINT64_MAX - 10);
    REFUSED(CHUNK, c.chunk.base.length = 1ull << 40);
    REFUSED(CHUNK, c.chunk.delta_bytes = UINT64_MAX);
    REFUSED(sample_chunk(12, 2, 3, 5, 0, 0), c.chunk.base_pages = 1);
    REFUSED(sample_chunk(12, 2, 3, 5, 0, 0), c.chunk.base_generation.v = 1);
    REFUSED(sample_delete_chunk(0, 3), (void)0);
    REFUSED(sample_delete_chunk(1, UINT64_MAX), (void)0);
#define DELTA sample_delta(11, 6, 101, 64, 640)
    REFUSED(DELTA, c.delta.chunk.v = 0);
    REFUSED(DELTA, c.delta.generation.v = 0);
    REFUSED(DELTA, c.delta.data_pages = CHUNK_PAGES);
    REFUSED(DELTA, c.delta.zero_pages = UINT32_MAX);
    REFUSED(DELTA, c.delta.where.length = 0);
    REFUSED(sample_delete_delta(0, 1), (void)0);
    REFUSED(sample_delete_delta(1, 0), (void)0);
#define BLOB sample_blob(100, 50)
    REFUSED(BLOB, c.blob.bytes = 0);
    REFUSED(BLOB, c.blob.bytes = UINT64_MAX);
    REFUSED(BLOB, c.blob.kind = 0);
    REFUSED(BLOB, c.blob.kind = 4);
    REFUSED(BLOB, c.blob.kind = BLOB_OBJECT_CHUNK);
    REFUSED(BLOB, c.blob.death.v = 2); // before its birth
#define SPACE sample_namespace(2, "s3://other")
    REFUSED(SPACE, c.space.id = BLOB_WHERE_OWN);
    REFUSED(SPACE, c.space.form = BLOB_WHERE_NAMED);
    REFUSED(SPACE, c.space.volume_number = 0);
    REFUSED(SPACE, c.space.tenant_length = 0);
    REFUSED(SPACE, c.space.tenant = "par/nt");
    REFUSED(SPACE, c.space.place = "s3://\0ther");
}
END_TEST

START_TEST(unknown_kinds_and_versions_are_refused)
{
    BUFFER_AUTO b = {0};
    BUFFER_AUTO again = {0};
    struct change c = sample_delete_inode(9);
    change_encode(&c, &b);
    for (unsigned kind = 0; kind < 256; kind++) {
        b.data[0] = (uint8_t)kind;
        int rc = decode_alone(b.data, b.length, &again);
        bool known = kind <= CHANGE_DELETE_DAMAGE;
        bool eight = kind == CHANGE_DELETE_INODE || kind == CHANGE_DELETE_GENERATION;
        ck_assert_int_eq(rc, eight ? 0 : known ? -EBADMSG : -ENOTSUP);
    }
    b.data[0] = CHANGE_DELETE_INODE;
    b.data[1] = 2;
    ck_assert_int_eq(decode_alone(b.data, b.length, &again), -ENOTSUP);
    b.data[1] = 0;
    ck_assert_int_eq(decode_alone(b.data, b.length, &again), -EBADMSG);
    b.data[1] = 1;
    // A body that is longer than its fields.
    buffer_append_u8(&b, 0);
    b.data[4]++;
    ck_assert_int_eq(decode_alone(b.data, b.length, &again), -EBADMSG);
}
END_TEST

// ---- damage -------------------------------------------------------------------------------------

// Of long samples only the parts that differ in kind: the beginning and the end.
static bool
is_worth_a_look(size_t at, size_t length)
{
    return at < 400 || at + 100 > length;
}

START_TEST(damage_is_refused_or_means_what_it_says)
{
    struct change samples[SAMPLE_CHANGES];
    size_t count = sample_changes(samples);
    BUFFER_AUTO again = {0};
    for (size_t i = 0; i < count; i++) {
        BUFFER_AUTO b = {0};
        change_encode(&samples[i], &b);
        for (size_t at = 0; at < b.length; at++) {
            if (!is_worth_a_look(at, b.length))
                continue;
            for (int bit = 0; bit < 8; bit++) {
                b.data[at] ^= (uint8_t)(1 << bit);
                int rc = decode_alone(b.data, b.length, &again);
                ck_assert(rc == 0 || rc == -EBADMSG || rc == -ENOTSUP);
                if (rc == 0)
                    ck_assert_mem_eq(again.data, b.data, b.length);
                b.data[at] ^= (uint8_t)(1 << bit);
            }
        }
    }
}
END_TEST

START_TEST(truncation_is_refused)
{
    struct change samples[SAMPLE_CHANGES];
    size_t count = sample_changes(samples);
    BUFFER_AUTO again = {0};
    for (size_t i = 0; i < count; i++) {
        BUFFER_AUTO b = {0};
        change_encode(&samples[i], &b);
        for (size_t n = 0; n < b.length; n++)
            if (is_worth_a_look(n, b.length))
                ck_assert_int_eq(decode_alone(b.data, n, &again), -EBADMSG);
        // The same with a length that fits, so that fields are what is missing.
        for (size_t n = 8; n < b.length; n++) {
            if (!is_worth_a_look(n, b.length))
                continue;
            put_le32(b.data + 4, (uint32_t)(n - 8));
            ck_assert_int_eq(decode_alone(b.data, n, &again), -EBADMSG);
        }
    }
}
END_TEST

static void
compare_golden(const char *name, const struct change *samples, size_t count)
{
    BUFFER_AUTO bytes = {0};
    BUFFER_AUTO golden = {0};
    for (size_t i = 0; i < count; i++)
        if (samples[i].kind != CHANGE_PUT_XATTR || samples[i].xattr.value_length < 100)
            change_encode(&samples[i], &bytes);
    golden_load(name, &bytes, &golden);
    ck_assert_uint_eq(golden.length, bytes.length);
    ck_assert_mem_eq(golden.data, bytes.data, bytes.length);
}

START_TEST(format_has_not_changed)
{
    struct change samples[SAMPLE_CHANGES];
    size_t count = sample_changes(samples);
    compare_golden("change-1.hex", samples, SAMPLE_CHANGES_1);
    compare_golden("change-2.hex", samples + SAMPLE_CHANGES_1, SAMPLE_CHANGES_2 - SAMPLE_CHANGES_1);
    compare_golden("change-3.hex", samples + SAMPLE_CHANGES_2, SAMPLE_CHANGES_3 - SAMPLE_CHANGES_2);
    compare_golden("change-4.hex", samples + SAMPLE_CHANGES_3, SAMPLE_CHANGES_4 - SAMPLE_CHANGES_3);
    compare_golden("change-5.hex", samples + SAMPLE_CHANGES_4, count - SAMPLE_CHANGES_4);
}
END_TEST

// What programs before wrote of chunks means the same, and is written again as it was.
START_TEST(chunks_of_older_programs_come_back_as_they_were)
{
    BUFFER_AUTO golden = {0};
    BUFFER_AUTO again = {0};
    unsigned chunks = 0;
    golden_load_old("change-1.hex", &golden);
    struct byte_reader r = byte_reader_over(golden.data, golden.length);
    while (byte_reader_left(&r) > 0) {
        struct change c;
        ck_assert_int_eq(change_decode(&r, &c), 0);
        chunks += c.kind == CHANGE_PUT_CHUNK;
        ck_assert(c.kind != CHANGE_PUT_CHUNK || c.chunk.extension_length == 0);
        change_encode(&c, &again);
    }
    ck_assert_uint_eq(chunks, 2);
    ck_assert_uint_eq(again.length, golden.length);
    ck_assert_mem_eq(again.data, golden.data, golden.length);
}
END_TEST

static int
decode_with_extension(const uint8_t *area, size_t n)
{
    BUFFER_AUTO b = {0};
    BUFFER_AUTO again = {0};
    struct change c = sample_inode(9, S_IFREG | 0644, 1, 10);
    c.inode.extension = area;
    c.inode.extension_length = (uint16_t)n;
    change_encode(&c, &b);
    int rc = decode_alone(b.data, b.length, &again);
    // A chunk's are judged in the same way; its area is shorter at most.
    BUFFER_AUTO chunk = {0};
    c = sample_chunk(11, 2, 3, 5, 100, 5000);
    c.chunk.extension = area;
    c.chunk.extension_length = (uint16_t)n;
    change_encode(&c, &chunk);
    ck_assert_uint_eq(chunk.data[1], 2);
    ck_assert_int_eq(decode_alone(chunk.data, chunk.length, &again), rc);
    return rc;
}

START_TEST(extensions_are_passed_on_unless_they_must_be_known)
{
    uint8_t area[sizeof(sample_extension)];
    memcpy(area, sample_extension, sizeof(area));
    ck_assert_int_eq(decode_with_extension(area, sizeof(area)), 0);
    ck_assert_int_eq(decode_with_extension(area, 10), 0);
    ck_assert_int_eq(decode_with_extension(area, 9), -EBADMSG); // cut
    area[11] |= 0x80;
    ck_assert_int_eq(decode_with_extension(area, sizeof(area)), -ENOTSUP);
    area[11] = 0;
    area[10] = 3; // twice the same type
    ck_assert_int_eq(decode_with_extension(area, sizeof(area)), -EBADMSG);
    static uint8_t large[INODE_EXTENSION_BYTES_MAX + 1];
    put_le16(large, 1);
    put_le32(large + 4, sizeof(large) - 8);
    ck_assert_int_eq(decode_with_extension(large, sizeof(large)), -EBADMSG);
}
END_TEST

// Where version 1 can say it, version 2 may not.
START_TEST(a_blob_is_written_in_one_way)
{
    BUFFER_AUTO b = {0};
    BUFFER_AUTO again = {0};
    struct change c = sample_blob(100, 50);
    c.blob.where = BLOB_WHERE_OWN;
    change_encode(&c, &b);
    ck_assert_int_eq(decode_alone(b.data, b.length, &again), 0);
    put_le32(b.data + b.length - 4, BLOB_WHERE_OWN_OLD);
    ck_assert_int_eq(decode_alone(b.data, b.length, &again), -EBADMSG);
}
END_TEST

int
main(void)
{
    Suite *s = suite_create("change");
#define ADD(test) unit_add(s, #test, test, 60)
    ADD(every_kind_comes_back);
    ADD(fields_come_back);
    ADD(whoever_encodes_is_told_what_the_decoder_refuses);
    ADD(impossible_inodes_are_refused);
    ADD(impossible_names_are_refused);
    ADD(impossible_ranges_are_refused);
    ADD(impossible_geometry_is_refused);
    ADD(unknown_kinds_and_versions_are_refused);
    ADD(damage_is_refused_or_means_what_it_says);
    ADD(truncation_is_refused);
    ADD(format_has_not_changed);
    ADD(a_blob_is_written_in_one_way);
    ADD(chunks_of_older_programs_come_back_as_they_were);
    ADD(extensions_are_passed_on_unless_they_must_be_known);
    return unit_run(s);
}
