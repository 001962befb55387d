// SPDX-License-Identifier: Apache-2.0
#include "unit.h"

#include "golden.h"
#include "wal_model.h"

// Encodes record `id` with its payload at the end of `out`; what its header says.
static struct wal_record_header
append_record(struct buffer *out, uint64_t id, struct lsn lsn, uint32_t largest)
{
    struct model_record r;
    model_record_make(&r, id, largest);
    struct wal_record_header h = {
        .lsn = lsn,
        .durable = {lsn.v / 2},
        .epoch = 7,
        .length = model_record_length(&r),
        .changes_length = r.changes_length,
        .payload_length = r.payload_length,
        .payload_page_offset = (uint16_t)r.page_offset,
    };
    uint8_t *p = buffer_extend(out, h.length);
    memset(p, 0, h.length);
    wal_record_encode(&h, r.crcs, r.changes, p);
    uint32_t pieces = wal_payload_pieces(r.page_offset, r.payload_length);
    uint32_t at = wal_record_payload_offset(pieces, r.changes_length);
    memcpy(p + at, r.payload, r.payload_length);
    model_record_free(&r);
    return h;
}

static const struct wal_segment_header sample_header = {
    .volume = {{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}},
    .epoch = 0x01020304,
    .segment_bytes = 8 << 20,
    .start = {3ull << 40},
    .prior_end = {(3ull << 40) - 12345 * 8},
};

static bool
headers_equal(const struct wal_record_header *a, const struct wal_record_header *b)
{
    return a->lsn.v == b->lsn.v && a->durable.v == b->durable.v && a->epoch == b->epoch &&
           a->length == b->length && a->changes_length == b->changes_length &&
           a->payload_length == b->payload_length &&
           a->payload_page_offset == b->payload_page_offset;
}

START_TEST(records_decode_as_encoded)
{
    for (uint64_t id = 0; id < 300; id++) {
        BUFFER_AUTO b = {0};
        struct lsn lsn = {hash_u64(id) % (1ull << 60) & ~7ull};
        struct wal_record_header h = append_record(&b, id, lsn, WAL_PAYLOAD_MAX);
        struct wal_record_header back;
        ck_assert_uint_le(h.length, WAL_RECORD_MAX);
        ck_assert_uint_eq(h.length % WAL_RECORD_ALIGN, 0);
        ck_assert_int_eq(wal_record_decode(b.data, b.length, lsn, 7, &back), 0);
        ck_assert(headers_equal(&h, &back));
        ck_assert_int_eq(wal_record_decode(b.data, b.length, lsn, 0, &back), 0);
        ck_assert_int_eq(wal_record_decode(b.data, b.length, lsn, 8, &back), -ENODATA);
        ck_assert_uint_eq(back.length, 0);
        ck_assert_int_eq(
            wal_record_decode(b.data, b.length, (struct lsn){lsn.v + 8}, 7, &back), -ENODATA);
        for (size_t n = 0; n < b.length; n += 1 + n / 2)
            ck_assert_int_eq(wal_record_decode(b.data, n, lsn, 7, &back), -ENODATA);
    }
}
END_TEST

START_TEST(no_record_is_longer_than_the_limit)
{
    uint32_t longest = wal_record_length(PAGE_BYTES - 1, WAL_CHANGES_MAX, WAL_PAYLOAD_MAX);
    ck_assert_uint_le(longest, WAL_RECORD_MAX);
    ck_assert_uint_eq(wal_payload_pieces(PAGE_BYTES - 1, WAL_PAYLOAD_MAX), 257);
    ck_assert_uint_eq(wal_payload_pieces(0, 0), 0);
    ck_assert_uint_eq(wal_payload_pieces(17, 0), 0);
    ck_assert_uint_eq(wal_payload_pieces(4095, 1), 1);
    ck_assert_uint_eq(wal_payload_pieces(4095, 2), 2);
}
END_TEST

START_TEST(each_flipped_bit_of_a_record_is_seen)
{
    for (uint64_t id = 0; id < 12; id++) {
        BUFFER_AUTO b = {0};
        struct lsn lsn = {40960};
        struct wal_record_header h = append_record(&b, id, lsn, 6000);
        struct wal_record_header back;
        uint32_t pieces = wal_payload_pieces(h.payload_page_offset, h.payload_length);
        uint32_t padding = wal_record_changes_offset(pieces) + h.changes_length;
        uint32_t payload = wal_record_payload_offset(pieces, h.changes_length);
        for (uint32_t i = 0; i < b.length; i++) {
            bool covered = i < padding || (i >= payload && i < payload + h.payload_length);
            b.data[i] ^= (uint8_t)(1u << i % 8);
            int rc = wal_record_decode(b.data, b.length, lsn, 7, &back);
            ck_assert_int_eq(rc, covered ? -ENODATA : 0);
            b.data[i] ^= (uint8_t)(1u << i % 8);
        }
    }
}
END_TEST

START_TEST(segment_headers_decode_as_encoded)
{
    uint8_t p[WAL_SEGMENT_HEADER_BYTES];
    struct wal_segment_header h;
    wal_segment_header_encode(&sample_header, p);
    ck_assert_int_eq(wal_segment_header_decode(p, &h), 0);
    ck_assert(uuid_equal(&h.volume, &sample_header.volume));
    ck_assert_uint_eq(h.epoch, sample_header.epoch);
    ck_assert_uint_eq(h.segment_bytes, sample_header.segment_bytes);
    ck_assert_uint_eq(h.start.v, sample_header.start.v);
    ck_assert_uint_eq(h.prior_end.v, sample_header.prior_end.v);
    ck_assert(!h.has_mark);
    for (int i = 0; i < 64 * 8; i++) {
        p[i / 8] ^= (uint8_t)(1u << i % 8);
        ck_assert_int_eq(wal_segment_header_decode(p, &h), -EBADMSG);
        p[i / 8] ^= (uint8_t)(1u << i % 8);
    }
}
END_TEST

START_TEST(a_segment_header_says_who_began_it)
{
    uint8_t p[WAL_SEGMENT_HEADER_BYTES];
    struct wal_segment_header h = sample_header;
    h.has_writer = true;
    h.writer = (struct uuid){{9, 8, 7}};
    h.writer_epoch = 41;
    wal_segment_header_encode(&h, p);
    h = (struct wal_segment_header){0};
    ck_assert_int_eq(wal_segment_header_decode(p, &h), 0);
    ck_assert(h.has_writer && h.writer_epoch == 41 && h.writer.b[2] == 7);
    // Where it is damaged it is not known, and the rest holds.
    for (int i = 64 * 8; i < 92 * 8; i++) {
        p[i / 8] ^= (uint8_t)(1u << i % 8);
        ck_assert_int_eq(wal_segment_header_decode(p, &h), 0);
        ck_assert(!h.has_writer && h.start.v == sample_header.start.v);
        p[i / 8] ^= (uint8_t)(1u << i % 8);
    }
    // What programs before wrote.
    wal_segment_header_encode(&sample_header, p);
    ck_assert_int_eq(wal_segment_header_decode(p, &h), 0);
    ck_assert(!h.has_writer && h.writer_epoch == 0);
}
END_TEST

START_TEST(a_spare_header_is_no_segment_header)
{
    // Written out: this is what is on disks.
    static const uint8_t bytes[16] = {
        'C', 'K', 'P', 'T', 'W', 'A', 'L', 'F', 1, 0, 0, 0, 0xc8, 0x13, 0x18, 0x65};
    uint8_t p[WAL_SEGMENT_HEADER_BYTES];
    struct wal_segment_header h;
    wal_spare_header_encode(p);
    ck_assert_int_eq(memcmp(p, bytes, sizeof(bytes)), 0);
    ck_assert(wal_is_spare_header(p));
    ck_assert_int_eq(wal_segment_header_decode(p, &h), -EBADMSG);
    for (int i = 0; i < 16 * 8; i++) {
        p[i / 8] ^= (uint8_t)(1u << i % 8);
        ck_assert(!wal_is_spare_header(p));
        p[i / 8] ^= (uint8_t)(1u << i % 8);
    }
    wal_segment_header_encode(&sample_header, p);
    ck_assert(!wal_is_spare_header(p));
}
END_TEST

static int
decode_resealed(uint8_t *p, size_t at, uint64_t value, size_t bytes)
{
    uint8_t copy[WAL_SEGMENT_HEADER_BYTES];
    struct wal_segment_header h;
    memcpy(copy, p, sizeof(copy));
    for (size_t i = 0; i < bytes; i++)
        copy[at + i] = (uint8_t)(value >> 8 * i);
    put_le32(copy + 60, crc32c(0, copy, 60));
    return wal_segment_header_decode(copy, &h);
}

START_TEST(impossible_segment_headers_are_refused)
{
    uint8_t p[WAL_SEGMENT_HEADER_BYTES];
    wal_segment_header_encode(&sample_header, p);
    ck_assert_int_eq(decode_resealed(p, 8, 0, 2), -EBADMSG);
    ck_assert_int_eq(decode_resealed(p, 8, 1, 2), 0);
    ck_assert_int_eq(decode_resealed(p, 8, 2, 2), 0);
    ck_assert_int_eq(decode_resealed(p, 8, 3, 2), -ENOTSUP);
    ck_assert_int_eq(decode_resealed(p, 56, 1, 4), -ENOTSUP);
    ck_assert_int_eq(decode_resealed(p, 10, 1, 2), -EBADMSG);
    ck_assert_int_eq(decode_resealed(p, 32, 4096, 8), -EBADMSG);
    ck_assert_int_eq(decode_resealed(p, 32, (8 << 20) + 8, 8), -EBADMSG);
    ck_assert_int_eq(decode_resealed(p, 32, UINT64_MAX - 4095, 8), -EBADMSG);
    ck_assert_int_eq(decode_resealed(p, 40, 8, 8), -EBADMSG);
    ck_assert_int_eq(decode_resealed(p, 40, UINT64_MAX - 4095, 8), -EBADMSG);
    ck_assert_int_eq(decode_resealed(p, 48, (3ull << 40) + 8, 8), -EBADMSG);
}
END_TEST

static const struct wal_mark sample_mark = {
    .volume = {{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}},
    .sequence = 0x1122334455667788,
    .epoch = 0x01020304,
    .file_number = 0x0a0b0c0d,
    .segment_bytes = 8 << 20,
    .start = {3ull << 40},
    .end = {(3ull << 40) + 12345 * 8},
};

static bool
marks_equal(const struct wal_mark *a, const struct wal_mark *b)
{
    return uuid_equal(&a->volume, &b->volume) && a->sequence == b->sequence &&
           a->epoch == b->epoch && a->file_number == b->file_number &&
           a->segment_bytes == b->segment_bytes && a->start.v == b->start.v && a->end.v == b->end.v;
}

START_TEST(marks_decode_as_encoded)
{
    uint8_t p[WAL_MARK_SLOT_BYTES];
    struct wal_mark m;
    wal_mark_encode(&sample_mark, p);
    ck_assert_int_eq(wal_mark_decode(p, &m), 0);
    ck_assert(marks_equal(&m, &sample_mark));
    for (int i = 0; i < 76 * 8; i++) {
        p[i / 8] ^= (uint8_t)(1u << i % 8);
        ck_assert_int_eq(wal_mark_decode(p, &m), -EBADMSG);
        p[i / 8] ^= (uint8_t)(1u << i % 8);
    }
    struct wal_mark none = {.volume = sample_mark.volume, .sequence = 5};
    wal_mark_encode(&none, p);
    ck_assert_int_eq(wal_mark_decode(p, &m), 0);
    ck_assert(marks_equal(&m, &none));
    memset(p, 0, sizeof(p));
    ck_assert_int_eq(wal_mark_decode(p, &m), -EBADMSG);
}
END_TEST

static int
decode_mark_resealed(size_t at, uint64_t value, size_t bytes)
{
    uint8_t p[WAL_MARK_SLOT_BYTES];
    struct wal_mark m;
    wal_mark_encode(&sample_mark, p);
    for (size_t i = 0; i < bytes; i++)
        p[at + i] = (uint8_t)(value >> 8 * i);
    put_le32(p + 72, crc32c(0, p, 72));
    return wal_mark_decode(p, &m);
}

START_TEST(impossible_marks_are_refused)
{
    uint64_t start = 3ull << 40;
    ck_assert_int_eq(decode_mark_resealed(8, 1, 2), 0);
    ck_assert_int_eq(decode_mark_resealed(8, 2, 2), -ENOTSUP);
    ck_assert_int_eq(decode_mark_resealed(68, 1, 4), -ENOTSUP);
    ck_assert_int_eq(decode_mark_resealed(10, 1, 2), -EBADMSG);
    ck_assert_int_eq(decode_mark_resealed(40, start + 8, 8), -EBADMSG);
    ck_assert_int_eq(decode_mark_resealed(40, UINT64_MAX - 4095, 8), -EBADMSG);
    ck_assert_int_eq(decode_mark_resealed(48, 0, 8), -EBADMSG);
    ck_assert_int_eq(decode_mark_resealed(48, 4096, 8), -EBADMSG);
    ck_assert_int_eq(decode_mark_resealed(48, UINT64_MAX - 4095, 8), -EBADMSG);
    ck_assert_int_eq(decode_mark_resealed(56, start + 4096, 8), 0);
    ck_assert_int_eq(decode_mark_resealed(56, start + 4095, 8), -EBADMSG);
    ck_assert_int_eq(decode_mark_resealed(56, start + (8 << 20), 8), 0);
    ck_assert_int_eq(decode_mark_resealed(56, start + (8 << 20) + 1, 8), -EBADMSG);
}
END_TEST

START_TEST(format_2_has_not_changed)
{
    BUFFER_AUTO bytes = {0};
    BUFFER_AUTO golden = {0};
    uint8_t p[WAL_SEGMENT_HEADER_BYTES];
    struct wal_segment_header h = sample_header;
    h.has_mark = true;
    wal_segment_header_encode(&h, p);
    buffer_append(&bytes, p, 64);
    uint8_t slot[WAL_MARK_SLOT_BYTES];
    wal_mark_encode(&sample_mark, slot);
    buffer_append(&bytes, slot, 96);
    golden_load("wal-2.hex", &bytes, &golden);
    ck_assert_uint_eq(golden.length, bytes.length);
    ck_assert_mem_eq(golden.data, bytes.data, bytes.length);
    // The same with what was added to the header.
    h.has_writer = true;
    h.writer = (struct uuid){{9, 8, 7}};
    h.writer_epoch = 41;
    wal_segment_header_encode(&h, p);
    buffer_clear(&bytes);
    buffer_clear(&golden);
    buffer_append(&bytes, p, 96);
    golden_load("wal-header-2.hex", &bytes, &golden);
    ck_assert_uint_eq(golden.length, bytes.length);
    ck_assert_mem_eq(golden.data, bytes.data, bytes.length);
}
END_TEST

START_TEST(format_has_not_changed)
{
    BUFFER_AUTO bytes = {0};
    BUFFER_AUTO golden = {0};
    uint8_t header[WAL_SEGMENT_HEADER_BYTES];
    wal_segment_header_encode(&sample_header, header);
    buffer_append(&bytes, header, 64);
    // One record without a payload, one whose payload has two pieces.
    uint32_t pieces = 0;
    struct lsn lsn = {sample_header.start.v + WAL_SEGMENT_HEADER_BYTES};
    for (uint64_t id = 0; id < 10000 && pieces < 2; id++) {
        BUFFER_AUTO one = {0};
        struct wal_record_header h = append_record(&one, id, lsn, 300);
        pieces = wal_payload_pieces(h.payload_page_offset, h.payload_length);
        if (id > 0 && (pieces != 2 || h.payload_length > 600))
            continue;
        buffer_append(&bytes, one.data, one.length);
        lsn.v += one.length;
    }
    golden_load("wal-1.hex", &bytes, &golden);
    ck_assert_uint_eq(golden.length, bytes.length);
    ck_assert_mem_eq(golden.data, bytes.data, bytes.length);
    ck_assert_uint_eq(pieces, 2);
}
END_TEST

int
main(void)
{
    Suite *s = suite_create("wal_record");
#define ADD(test) unit_add(s, #test, test, 120)
    ADD(records_decode_as_encoded);
    ADD(no_record_is_longer_than_the_limit);
    ADD(each_flipped_bit_of_a_record_is_seen);
    ADD(segment_headers_decode_as_encoded);
    ADD(a_segment_header_says_who_began_it);
    ADD(a_spare_header_is_no_segment_header);
    ADD(impossible_segment_headers_are_refused);
    ADD(format_has_not_changed);
    ADD(marks_decode_as_encoded);
    ADD(impossible_marks_are_refused);
    ADD(format_2_has_not_changed);
#undef ADD
    return unit_run(s);
}
