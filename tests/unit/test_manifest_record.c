// SPDX-License-Identifier: Apache-2.0
#include "unit.h"

#include "base/checksum.h"
#include "base/hash_table.h"
#include "format/columns.h"
#include "format/compress.h"
#include "format/manifest_index.h"
#include "format/manifest_record.h"
#include "format/manifest_record_internal.h"
#include "golden.h"
#include "manifest_samples.h"

#define HEADER_BYTES RECORD_HEADER_BYTES

// ---- in memory ----------------------------------------------------------------------------------

struct sink {
    struct buffer bytes;
    size_t room; // then -ENOSPC
};

static int
sink_write(void *argument, const void *p, size_t n)
{
    struct sink *s = argument;
    if (n > s->room - s->bytes.length)
        return -ENOSPC;
    buffer_append(&s->bytes, p, n);
    return 0;
}

struct source {
    const uint8_t *p;
    size_t n;
    size_t largest;       // asked for at once
    unsigned calls;       // so far
    unsigned fail_call;   // -EIO at this call, counted from 1
    unsigned damage_call; // flips a bit of what this call gives
};

static int
source_read(void *argument, uint64_t offset, void *p, size_t n)
{
    struct source *s = argument;
    ck_assert_uint_le(n, s->n);
    ck_assert_uint_le(offset, s->n - n);
    if (n > s->largest)
        s->largest = n;
    if (++s->calls == s->fail_call)
        return -EIO;
    memcpy(p, s->p + offset, n);
    if (s->calls == s->damage_call)
        *(uint8_t *)p ^= 1;
    return 0;
}

static struct manifest_record_header
sample_header(void)
{
    struct manifest_record_header h = {
        .kind = MANIFEST_RECORD_GENERATION,
        .sequence = 12,
        .epoch = 3,
        .volume = sample_uuid(1),
        .writer = sample_uuid(2),
        .name_key = sample_uuid(3),
        .previous = sample_hash(4),
        .generation = {40},
        .previous_generation = {38},
        .cut = {123456},
        .checkpoint_id = sample_uuid(5),
        .created_ms = 1700000000123,
        .host = "db-7.example",
    };
    return h;
}

static void
seal_header(uint8_t *p)
{
    put_le32(p + HEADER_BYTES - 4, crc32c(0, p, HEADER_BYTES - 4));
}

static void
add_samples(struct manifest_record_writer *w, struct buffer *raw, unsigned rounds)
{
    struct change samples[SAMPLE_CHANGES];
    size_t count = sample_changes(samples);
    for (unsigned round = 0; round < rounds; round++)
        for (size_t i = 0; i < count; i++) {
            if (samples[i].kind == CHANGE_WRITE || samples[i].kind == CHANGE_DISCARD)
                continue;
            if (samples[i].kind == CHANGE_PUT_INODE)
                samples[i].object.v = round + 1;
            ck_assert_int_eq(manifest_record_writer_add(w, &samples[i]), 0);
            change_encode(&samples[i], raw);
        }
}

// A record of the samples; their plain bytes go to `raw`.
static void
make_record(struct sink *s, struct buffer *raw, unsigned rounds, struct sha256 *hash_out)
{
    struct manifest_record_header h = sample_header();
    uint64_t bytes;
    s->room = SIZE_MAX / 2;
    struct manifest_record_writer *w = manifest_record_writer_new(&h, sink_write, s);
    add_samples(w, raw, rounds);
    ck_assert_int_eq(manifest_record_writer_finish(w, hash_out, &bytes), 0);
    manifest_record_writer_free(w);
    ck_assert_uint_eq(bytes, s->bytes.length);
}

struct visit {
    struct buffer raw;
    unsigned calls;
    unsigned stop_at;
};

static int
visit_change(void *argument, const struct change *c)
{
    struct visit *v = argument;
    change_encode(c, &v->raw);
    return ++v->calls == v->stop_at ? 77 : 0;
}

static int
read_bytes_of(const uint8_t *p, size_t n, struct visit *v, struct sha256 *hash_out)
{
    struct source source = {.p = p, .n = n};
    int rc = manifest_record_read(source_read, &source, n, visit_change, v, hash_out);
    ck_assert_uint_le(source.largest, SECTION_RAW_MAX);
    return rc;
}

// ---- whole records ------------------------------------------------------------------------------

static void
comes_back(unsigned rounds)
{
    struct sink s = {0};
    BUFFER_AUTO raw = {0};
    struct visit v = {0};
    struct sha256 hash;
    struct sha256 plain;
    struct sha256 back;
    make_record(&s, &raw, rounds, &hash);
    sha256_of(s.bytes.data, s.bytes.length, &plain);
    ck_assert(sha256_equal(&hash, &plain));
    ck_assert_int_eq(read_bytes_of(s.bytes.data, s.bytes.length, &v, &back), 0);
    ck_assert(sha256_equal(&hash, &back));
    ck_assert_uint_eq(v.raw.length, raw.length);
    if (raw.length > 0)
        ck_assert_mem_eq(v.raw.data, raw.data, raw.length);
    buffer_free(&v.raw);
    buffer_free(&s.bytes);
}

START_TEST(records_come_back)
{
    comes_back(0);
    comes_back(1);
    comes_back(40);
}
END_TEST

START_TEST(incompressible_sections_come_back)
{
    struct manifest_record_header h = sample_header();
    struct sink s = {.room = SIZE_MAX / 2};
    struct visit v = {0};
    BUFFER_AUTO raw = {0};
    struct sha256 hash;
    uint64_t bytes;
    static uint8_t value[XATTR_VALUE_BYTES_MAX];
    struct manifest_record_writer *w = manifest_record_writer_new(&h, sink_write, &s);
    for (uint64_t i = 0; i < 20; i++) {
        for (size_t at = 0; at < sizeof(value); at += 8)
            put_le64(value + at, hash_u64(i << 32 | at));
        struct change c = sample_xattr(i + 1, "user.noise", value, sizeof(value));
        ck_assert_int_eq(manifest_record_writer_add(w, &c), 0);
        change_encode(&c, &raw);
    }
    ck_assert_int_eq(manifest_record_writer_finish(w, &hash, &bytes), 0);
    manifest_record_writer_free(w);
    ck_assert_uint_ge(bytes, raw.length);
    ck_assert_int_eq(read_bytes_of(s.bytes.data, s.bytes.length, &v, NULL), 0);
    ck_assert_uint_eq(v.raw.length, raw.length);
    ck_assert_mem_eq(v.raw.data, raw.data, raw.length);
    buffer_free(&v.raw);
    buffer_free(&s.bytes);
}
END_TEST

START_TEST(header_comes_back)
{
    struct sink s = {0};
    BUFFER_AUTO raw = {0};
    struct sha256 hash;
    struct manifest_record_header h = sample_header();
    struct manifest_record_header back;
    make_record(&s, &raw, 1, &hash);
    struct source source = {.p = s.bytes.data, .n = s.bytes.length};
    ck_assert_int_eq(manifest_record_read_header(source_read, &source, s.bytes.length, &back), 0);
    ck_assert_int_eq(back.kind, h.kind);
    ck_assert_uint_eq(back.sequence, h.sequence);
    ck_assert_uint_eq(back.epoch, h.epoch);
    ck_assert(uuid_equal(&back.volume, &h.volume));
    ck_assert(uuid_equal(&back.writer, &h.writer));
    ck_assert(uuid_equal(&back.name_key, &h.name_key));
    ck_assert(sha256_equal(&back.previous, &h.previous));
    ck_assert_uint_eq(back.generation.v, h.generation.v);
    ck_assert_uint_eq(back.previous_generation.v, h.previous_generation.v);
    ck_assert_uint_eq(back.cut.v, h.cut.v);
    ck_assert(uuid_equal(&back.checkpoint_id, &h.checkpoint_id));
    ck_assert_uint_eq(back.created_ms, h.created_ms);
    ck_assert_str_eq(back.host, h.host);
    buffer_free(&s.bytes);
}
END_TEST

START_TEST(equal_content_gives_equal_bytes)
{
    struct sink a = {0};
    struct sink b = {0};
    BUFFER_AUTO raw = {0};
    struct sha256 hash;
    make_record(&a, &raw, 3, &hash);
    make_record(&b, &raw, 3, &hash);
    ck_assert_uint_eq(a.bytes.length, b.bytes.length);
    ck_assert_mem_eq(a.bytes.data, b.bytes.data, a.bytes.length);
    buffer_free(&a.bytes);
    buffer_free(&b.bytes);
}
END_TEST

START_TEST(long_host_names_are_cut)
{
    struct manifest_record_header h = sample_header();
    struct manifest_record_header back;
    struct sink s = {.room = SIZE_MAX / 2};
    struct sha256 hash;
    uint64_t bytes;
    memset(h.host, 'h', sizeof(h.host));
    struct manifest_record_writer *w = manifest_record_writer_new(&h, sink_write, &s);
    ck_assert_int_eq(manifest_record_writer_finish(w, &hash, &bytes), 0);
    manifest_record_writer_free(w);
    struct source source = {.p = s.bytes.data, .n = s.bytes.length};
    ck_assert_int_eq(manifest_record_read_header(source_read, &source, bytes, &back), 0);
    ck_assert_uint_eq(strlen(back.host), sizeof(back.host) - 1);
    buffer_free(&s.bytes);
}
END_TEST

// ---- errors -------------------------------------------------------------------------------------

START_TEST(writer_refuses_what_a_reader_would_refuse)
{
    struct change bad[] = {
        {CHANGE_WRITE, .object = {1}, .length = 10},
        {CHANGE_DISCARD, .object = {1}, .length = 10},
        sample_dirent(1, 2, 3, DT_REG, ".."),
        {.kind = (enum change_kind)99},
    };
    for (size_t i = 0; i < ARRAY_LENGTH(bad); i++) {
        struct manifest_record_header h = sample_header();
        struct sink s = {.room = SIZE_MAX / 2};
        struct sha256 hash;
        uint64_t bytes;
        struct manifest_record_writer *w = manifest_record_writer_new(&h, sink_write, &s);
        ck_assert_int_eq(manifest_record_writer_add(w, &bad[i]), -EINVAL);
        ck_assert_int_eq(manifest_record_writer_finish(w, &hash, &bytes), -EINVAL);
        manifest_record_writer_free(w);
        buffer_free(&s.bytes);
    }
}
END_TEST

START_TEST(sink_errors_are_passed_on)
{
    struct sink whole = {0};
    BUFFER_AUTO raw = {0};
    struct sha256 hash;
    uint64_t bytes;
    make_record(&whole, &raw, 1, &hash);
    const size_t rooms[] = {0, HEADER_BYTES, HEADER_BYTES + 1, whole.bytes.length - 1};
    for (size_t i = 0; i < ARRAY_LENGTH(rooms); i++) {
        struct manifest_record_header h = sample_header();
        struct sink s = {.room = rooms[i]};
        struct change c = sample_delete_inode(3);
        struct manifest_record_writer *w = manifest_record_writer_new(&h, sink_write, &s);
        int rc = 0;
        for (unsigned n = 0; n < 20000 && rc == 0; n++)
            rc = manifest_record_writer_add(w, &c);
        if (rc == 0)
            rc = manifest_record_writer_finish(w, &hash, &bytes);
        ck_assert_int_eq(rc, -ENOSPC);
        ck_assert_int_eq(manifest_record_writer_finish(w, &hash, &bytes), -ENOSPC);
        manifest_record_writer_free(w);
        buffer_free(&s.bytes);
    }
    buffer_free(&whole.bytes);
}
END_TEST

START_TEST(source_errors_are_passed_on)
{
    struct sink s = {0};
    BUFFER_AUTO raw = {0};
    struct sha256 hash;
    make_record(&s, &raw, 10, &hash);
    for (unsigned call = 1;; call++) {
        struct visit v = {0};
        struct source source = {.p = s.bytes.data, .n = s.bytes.length, .fail_call = call};
        int rc = manifest_record_read(source_read, &source, s.bytes.length, visit_change, &v, NULL);
        buffer_free(&v.raw);
        if (source.calls < call) {
            ck_assert_int_eq(rc, 0);
            break;
        }
        ck_assert_int_eq(rc, -EIO);
    }
    buffer_free(&s.bytes);
}
END_TEST

START_TEST(source_that_changes_its_mind_is_found_out)
{
    struct sink s = {0};
    BUFFER_AUTO raw = {0};
    struct sha256 hash;
    make_record(&s, &raw, 10, &hash);
    for (unsigned call = 1;; call++) {
        struct visit v = {0};
        struct source source = {.p = s.bytes.data, .n = s.bytes.length, .damage_call = call};
        int rc = manifest_record_read(source_read, &source, s.bytes.length, visit_change, &v, NULL);
        buffer_free(&v.raw);
        if (source.calls < call) {
            ck_assert_int_eq(rc, 0);
            break;
        }
        ck_assert_int_eq(rc, -EBADMSG);
    }
    buffer_free(&s.bytes);
}
END_TEST

START_TEST(visitor_ends_the_walk)
{
    struct sink s = {0};
    BUFFER_AUTO raw = {0};
    struct sha256 hash;
    struct visit v = {.stop_at = 5};
    make_record(&s, &raw, 10, &hash);
    ck_assert_int_eq(read_bytes_of(s.bytes.data, s.bytes.length, &v, NULL), 77);
    ck_assert_uint_eq(v.calls, 5);
    buffer_free(&v.raw);
    buffer_free(&s.bytes);
}
END_TEST

// ---- damage -------------------------------------------------------------------------------------

START_TEST(every_flipped_bit_is_found_before_anything_is_told)
{
    struct sink s = {0};
    BUFFER_AUTO raw = {0};
    struct sha256 hash;
    make_record(&s, &raw, 1, &hash);
    for (size_t at = 0; at < s.bytes.length; at++) {
        struct visit v = {0};
        s.bytes.data[at] ^= (uint8_t)(1u << at % 8);
        int rc = read_bytes_of(s.bytes.data, s.bytes.length, &v, NULL);
        ck_assert_msg(rc == -EBADMSG, "byte %zu: %d", at, rc);
        ck_assert_uint_eq(v.calls, 0);
        s.bytes.data[at] ^= (uint8_t)(1u << at % 8);
    }
    buffer_free(&s.bytes);
}
END_TEST

START_TEST(every_truncation_is_found)
{
    struct sink s = {0};
    BUFFER_AUTO raw = {0};
    struct sha256 hash;
    struct visit v = {0};
    make_record(&s, &raw, 1, &hash);
    for (size_t n = 0; n < s.bytes.length; n++) {
        uint8_t *copy = malloc(n > 0 ? n : 1);
        memcpy(copy, s.bytes.data, n);
        ck_assert_int_eq(read_bytes_of(copy, n, &v, NULL), -EBADMSG);
        free(copy);
    }
    buffer_append_u8(&s.bytes, 0);
    ck_assert_int_eq(read_bytes_of(s.bytes.data, s.bytes.length, &v, NULL), -EBADMSG);
    ck_assert_uint_eq(v.calls, 0);
    buffer_free(&s.bytes);
}
END_TEST

START_TEST(newer_records_are_told_from_damaged_ones)
{
    struct sink s = {0};
    BUFFER_AUTO raw = {0};
    struct sha256 hash;
    struct visit v = {0};
    struct manifest_record_header h;
    make_record(&s, &raw, 1, &hash);
    uint8_t *p = s.bytes.data;
    struct source source = {.p = p, .n = s.bytes.length};
    p[8] = 3; // version
    seal_header(p);
    ck_assert_int_eq(
        manifest_record_read_header(source_read, &source, s.bytes.length, &h), -ENOTSUP);
    ck_assert_int_eq(read_bytes_of(p, s.bytes.length, &v, NULL), -ENOTSUP);
    p[8] = 2;
    p[16] = RECORD_FEATURES_KNOWN + 1; // an incompatible feature
    seal_header(p);
    ck_assert_int_eq(read_bytes_of(p, s.bytes.length, &v, NULL), -ENOTSUP);
    p[16] = 0;
    p[12] = 1; // a compatible one
    seal_header(p);
    ck_assert_int_eq(manifest_record_read_header(source_read, &source, s.bytes.length, &h), 0);
    ck_assert_int_eq(read_bytes_of(p, s.bytes.length, &v, NULL), -EBADMSG); // the hash
    buffer_free(&s.bytes);
}
END_TEST

// Writes `value` at `at`, makes the checksum before `end` right, and expects a refusal.
static void
impossible(struct sink *s, size_t part, size_t part_bytes, size_t at, uint32_t value)
{
    struct visit v = {0};
    BUFFER_AUTO copy = {0};
    buffer_append(&copy, s->bytes.data, s->bytes.length);
    uint8_t *p = copy.data + part;
    put_le32(p + at, value);
    put_le32(p + part_bytes - 4, crc32c(0, p, part_bytes - 4));
    ck_assert_int_eq(read_bytes_of(copy.data, copy.length, &v, NULL), -EBADMSG);
    ck_assert_uint_eq(v.calls, 0);
}

START_TEST(impossible_lengths_are_refused_before_memory_is_taken)
{
    struct sink s = {0};
    BUFFER_AUTO raw = {0};
    struct sha256 hash;
    make_record(&s, &raw, 1, &hash);
    static const uint32_t lengths[] = {0, 1, SECTION_RAW_MAX + 1, 0x7fffffff, UINT32_MAX};
    size_t footer = s.bytes.length - FOOTER_BYTES;
    for (size_t i = 0; i < ARRAY_LENGTH(lengths); i++) {
        for (size_t at = 4; at <= 24; at += 4) // encoding .. checksum of a section
            if (at != 8 || lengths[i] != 0)
                impossible(&s, HEADER_BYTES, SECTION_HEADER_BYTES, at, lengths[i] ^ (at == 4) * 2);
        for (size_t at = 8; at < 76; at += 4) // up to the seal
            if (lengths[i] > 1)
                impossible(&s, footer, FOOTER_BYTES, at, lengths[i]);
    }
    impossible(&s, 0, HEADER_BYTES, 10, 0);               // kind
    impossible(&s, 0, HEADER_BYTES, HEADER_BYTES - 8, 1); // reserved
    impossible(&s, 0, HEADER_BYTES, 20, 0);               // sequence
    impossible(&s, 0, HEADER_BYTES, 228, 13);             // the lowest sequence
    impossible(&s, 0, HEADER_BYTES, 236, 64);             // length of extensions
    impossible(&s, 0, HEADER_BYTES, 236, UINT32_MAX);
    buffer_free(&s.bytes);
}
END_TEST

#define GOLDEN_GENERATIONS 200u

static struct change
sample_row(uint64_t i)
{
    return (struct change){.kind = CHANGE_PUT_GENERATION,
        .published = generation_retained(
            (struct generation){i + 1}, i + 3, 1700000000000u + i * 60000 + i * i % 1000)};
}

// Three changes as a record of this kind; a catalog has generations, too.
static void
make_golden(enum manifest_record_kind kind, struct sink *s)
{
    struct manifest_record_header h = sample_header();
    struct sha256 hash;
    uint64_t bytes;
    struct change c[] = {sample_inode(1, S_IFDIR | 0755, 2, 1),
        sample_inode(2, S_IFREG | 0644, 1, 0), sample_dirent(1, 99, 2, DT_REG, "x")};
    s->room = SIZE_MAX / 2;
    h.kind = kind;
    if (kind == MANIFEST_RECORD_CREATE) {
        h.lowest_sequence = 1;
        h.has_parent = true;
        h.parent = (struct volume_parent){sample_uuid(9), 77, sample_hash(78), {79}};
    }
    struct manifest_record_writer *w = manifest_record_writer_new(&h, sink_write, s);
    bool empty = kind == MANIFEST_RECORD_CREATE || kind == MANIFEST_RECORD_DESTROY;
    for (size_t i = 0; i < ARRAY_LENGTH(c) && !empty; i++)
        ck_assert_int_eq(manifest_record_writer_add(w, &c[i]), 0);
    for (size_t i = 0; i < GOLDEN_GENERATIONS && kind == MANIFEST_RECORD_CATALOG; i++) {
        struct change g = sample_row(i);
        ck_assert_int_eq(manifest_record_writer_add(w, &g), 0);
    }
    ck_assert_int_eq(manifest_record_writer_finish(w, &hash, &bytes), 0);
    manifest_record_writer_free(w);
}

static void
compare_golden(enum manifest_record_kind kind, const char *name, unsigned changes)
{
    struct sink s = {0};
    struct visit v = {0};
    BUFFER_AUTO golden = {0};
    make_golden(kind, &s);
    golden_load(name, &s.bytes, &golden);
    ck_assert_int_eq(read_bytes_of(golden.data, golden.length, &v, NULL), 0);
    ck_assert_uint_eq(v.calls, changes);
    if (strncmp(compress_library_version(), "1.9.", 4) == 0) {
        ck_assert_uint_eq(golden.length, s.bytes.length);
        ck_assert_mem_eq(golden.data, s.bytes.data, golden.length);
    }
    buffer_free(&v.raw);
    buffer_free(&s.bytes);
}

START_TEST(format_has_not_changed)
{
    compare_golden(MANIFEST_RECORD_GENERATION, "manifest-record-2.hex", 3);
    compare_golden(MANIFEST_RECORD_CATALOG, "manifest-catalog-3.hex", 3 + GOLDEN_GENERATIONS);
    compare_golden(MANIFEST_RECORD_CREATE, "manifest-create-2.hex", 0);
    compare_golden(MANIFEST_RECORD_DESTROY, "manifest-destroy-2.hex", 0);
}
END_TEST

// A catalog of a program that knew no columns.
START_TEST(older_catalogs_are_read)
{
    BUFFER_AUTO golden = {0};
    struct visit v = {0};
    golden_load_old("manifest-catalog-2.hex", &golden);
    ck_assert_uint_eq(get_le32(golden.data + 16), 0);
    ck_assert_int_eq(read_bytes_of(golden.data, golden.length, &v, NULL), 0);
    ck_assert_uint_eq(v.calls, 3);
    buffer_free(&v.raw);
}
END_TEST

// The place of the first section of the kind in a catalog.
static uint64_t
place_of_section(struct source *source, enum change_kind kind)
{
    struct manifest_index index;
    uint64_t at = 0;
    ck_assert_int_eq(manifest_index_read(source_read, source, source->n, &index), 0);
    for (size_t i = 0; i < index.count && at == 0; i++)
        if (index.entries[i].kind == kind)
            at = index.entries[i].offset;
    manifest_index_free(&index);
    return at;
}

START_TEST(generations_in_a_row_take_few_bytes)
{
    struct sink s = {0};
    struct section_header h;
    make_golden(MANIFEST_RECORD_CATALOG, &s);
    struct source source = {.p = s.bytes.data, .n = s.bytes.length};
    uint64_t at = place_of_section(&source, CHANGE_PUT_GENERATION);
    ck_assert(record_decode_section_header(s.bytes.data + at, &h));
    ck_assert_uint_eq(h.encoding, SECTION_COLUMNS);
    ck_assert_uint_eq(h.changes, GOLDEN_GENERATIONS);
    ck_assert_uint_le(h.stored_bytes, 4 * GOLDEN_GENERATIONS);
    ck_assert_uint_eq(get_le32(s.bytes.data + 16), RECORD_FEATURE_COLUMNS);
    // Changes that are no rows.
    put_le32(s.bytes.data + at + 20, GOLDEN_GENERATIONS + 1);
    put_le32(s.bytes.data + at + 28, crc32c(0, s.bytes.data + at, 28));
    ck_assert(!record_decode_section_header(s.bytes.data + at, &h));
    buffer_free(&s.bytes);
}
END_TEST

START_TEST(columns_give_the_rows_back)
{
    static const size_t shapes[][2] = {{1, 1}, {1, 300}, {300, 1}, {7, 41}, {64, 64}};
    for (size_t k = 0; k < ARRAY_LENGTH(shapes); k++) {
        size_t count = shapes[k][0];
        size_t width = shapes[k][1];
        uint8_t rows[4096];
        uint8_t columns[4096];
        uint8_t again[4096];
        for (size_t i = 0; i < count * width; i++)
            rows[i] = (uint8_t)(i * i * 7 + i / 3);
        columns_split(rows, count, width, columns);
        columns_join(columns, count, width, again);
        ck_assert_mem_eq(rows, again, count * width);
        for (size_t i = 1; i < count; i++)
            ck_assert_uint_eq(columns[i], (uint8_t)(rows[i * width] - rows[(i - 1) * width]));
    }
}
END_TEST

START_TEST(records_of_version_1_are_read)
{
    BUFFER_AUTO golden = {0};
    struct visit v = {0};
    struct manifest_record_header h;
    golden_load_old("manifest-record-1.hex", &golden);
    ck_assert_int_eq(read_bytes_of(golden.data, golden.length, &v, NULL), 0);
    ck_assert_uint_eq(v.calls, 3);
    struct source source = {.p = golden.data, .n = golden.length};
    ck_assert_int_eq(manifest_record_read_header(source_read, &source, golden.length, &h), 0);
    ck_assert(h.version == 1 && h.sequence == 12 && h.generation.v == 40);
    ck_assert(h.lowest_sequence == 0 && h.extension_bytes == 0 && !h.has_parent);
    buffer_free(&v.raw);
}
END_TEST

// ---- extensions ---------------------------------------------------------------------------------

START_TEST(a_parent_comes_back)
{
    struct sink s = {0};
    struct manifest_record_header h;
    make_golden(MANIFEST_RECORD_CREATE, &s);
    struct source source = {.p = s.bytes.data, .n = s.bytes.length};
    ck_assert_int_eq(manifest_record_read_header(source_read, &source, s.bytes.length, &h), 0);
    ck_assert(h.has_parent && h.parent.sequence == 77 && h.parent.generation.v == 79);
    struct uuid parent = sample_uuid(9);
    struct sha256 hash = sample_hash(78);
    ck_assert(uuid_equal(&h.parent.volume, &parent) && sha256_equal(&h.parent.hash, &hash));
    ck_assert_uint_eq(h.lowest_sequence, 1);
    buffer_free(&s.bytes);
}
END_TEST

// Makes hash and checksums of a record right again.
static void
seal_record(struct buffer *b)
{
    struct sha256 hash;
    uint8_t *footer = b->data + b->length - FOOTER_BYTES;
    seal_header(b->data);
    sha256_of(b->data, b->length - FOOTER_BYTES, &hash);
    memcpy(footer + 36, hash.b, sizeof(hash.b));
    put_le64(footer + 28, b->length);
    put_le32(footer + FOOTER_BYTES - 4, crc32c(0, footer, FOOTER_BYTES - 4));
}

// The CREATE record with another extension instead of the parent.
static int
read_with_extension(uint16_t type, struct manifest_record_header *h)
{
    struct sink s = {0};
    make_golden(MANIFEST_RECORD_CREATE, &s);
    uint8_t *area = s.bytes.data + HEADER_BYTES;
    uint32_t n = get_le32(s.bytes.data + 236);
    put_le16(area, type);
    put_le32(area + n - 4, crc32c(0, area, n - 4));
    seal_record(&s.bytes);
    struct visit v = {0};
    struct source source = {.p = s.bytes.data, .n = s.bytes.length};
    int rc = manifest_record_read_header(source_read, &source, s.bytes.length, h);
    ck_assert_int_eq(read_bytes_of(s.bytes.data, s.bytes.length, &v, NULL), rc);
    buffer_free(&s.bytes);
    return rc;
}

START_TEST(extensions_are_passed_over_unless_they_must_be_known)
{
    struct manifest_record_header h;
    ck_assert_int_eq(read_with_extension(1, &h), 0);
    ck_assert_int_eq(read_with_extension(0x123, &h), 0);
    ck_assert(!h.has_parent);
    ck_assert_int_eq(read_with_extension(0x8123, &h), -ENOTSUP);
    ck_assert_int_eq(read_with_extension(0x8002, &h), -ENOTSUP); // a key
    ck_assert_int_eq(read_with_extension(0, &h), -EBADMSG);
}
END_TEST

int
main(void)
{
    Suite *s = suite_create("manifest_record");
#define ADD(test) unit_add(s, #test, test, 60)
    ADD(records_come_back);
    ADD(incompressible_sections_come_back);
    ADD(header_comes_back);
    ADD(equal_content_gives_equal_bytes);
    ADD(long_host_names_are_cut);
    ADD(writer_refuses_what_a_reader_would_refuse);
    ADD(sink_errors_are_passed_on);
    ADD(source_errors_are_passed_on);
    ADD(source_that_changes_its_mind_is_found_out);
    ADD(visitor_ends_the_walk);
    ADD(every_flipped_bit_is_found_before_anything_is_told);
    ADD(every_truncation_is_found);
    ADD(newer_records_are_told_from_damaged_ones);
    ADD(impossible_lengths_are_refused_before_memory_is_taken);
    ADD(format_has_not_changed);
    ADD(records_of_version_1_are_read);
    ADD(older_catalogs_are_read);
    ADD(generations_in_a_row_take_few_bytes);
    ADD(columns_give_the_rows_back);
    ADD(a_parent_comes_back);
    ADD(extensions_are_passed_over_unless_they_must_be_known);
    return unit_run(s);
}
