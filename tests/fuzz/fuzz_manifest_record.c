// SPDX-License-Identifier: Apache-2.0
// Hostile manifest records. The first byte of an input chooses what the others are:
//     0  a record as it is
//     1  a record whose checksums, hash and length are made right
//     2  the same, and the counts in its sections and footer, and the raw length of raw sections
// Whatever is told must be a record's worth of valid changes: written again they are told the same.
#include "fuzz.h"

#include <errno.h>
#include <stdlib.h>

#include "format/compress.h"
#include "format/manifest_index.h"
#include "platform/memory.h"
#include "tests/unit/manifest_samples.h"

enum mode { MODE_PLAIN, MODE_SEALED, MODE_FITTED, MODES };

#define HEADER_BYTES         256u
#define SECTION_HEADER_BYTES 32u
#define SECTION_RAW_MAX      (384u << 10)
#define FOOTER_BYTES         192u // of version 2
#define FOOTER_HASH_AT       36u

#define MUST_HOLD(condition)                                                                       \
    do {                                                                                           \
        if (!(condition))                                                                          \
            abort();                                                                               \
    } while (0)

struct bytes {
    const uint8_t *p;
    size_t n;
};

static int
source_read(void *argument, uint64_t offset, void *p, size_t n)
{
    const struct bytes *b = argument;
    MUST_HOLD(n <= SECTION_RAW_MAX + SECTION_HEADER_BYTES && n <= b->n && offset <= b->n - n);
    memcpy(p, b->p + offset, n);
    return 0;
}

static int
sink_append(void *argument, const void *p, size_t n)
{
    buffer_append(argument, p, n);
    return 0;
}

static int
visit_append(void *argument, const struct change *c)
{
    change_encode(c, argument);
    return 0;
}

// ---- making things right ------------------------------------------------------------------------

static uint32_t
count_changes(const uint8_t *p, size_t n)
{
    struct byte_reader r = byte_reader_over(p, n);
    struct change c;
    uint32_t count = 0;
    while (byte_reader_left(&r) > 0 && change_decode(&r, &c) == 0)
        count++;
    return count;
}

static void
fit_section(uint8_t *p, uint32_t number, size_t stored)
{
    put_le32(p + 8, number);
    if (get_le16(p + 4) == 0) {
        put_le32(p + 12, (uint32_t)stored);
        put_le32(p + 20, count_changes(p + SECTION_HEADER_BYTES, stored));
        return;
    }
    uint32_t raw = get_le32(p + 12);
    if (raw == 0 || raw > SECTION_RAW_MAX)
        return;
    uint8_t *out = memory_alloc(raw);
    if (decompress_block(p + SECTION_HEADER_BYTES, stored, out, raw))
        put_le32(p + 20, count_changes(out, raw));
    free(out);
}

// Seals the sections; returns the sums for the footer.
static void
seal_sections(
    uint8_t *p, size_t end, bool fit, uint32_t *sections, uint64_t *changes, uint64_t *raw)
{
    size_t at = HEADER_BYTES;
    size_t extensions = get_le32(p + 236);
    if (extensions < end - at)
        at += extensions;
    *sections = 0;
    *changes = *raw = 0;
    while (end - at >= SECTION_HEADER_BYTES) {
        uint8_t *section = p + at;
        size_t left = end - at - SECTION_HEADER_BYTES;
        size_t stored = get_le32(section + 16);
        if (stored > left) {
            stored = left;
            if (fit)
                put_le32(section + 16, (uint32_t)stored);
        }
        if (fit)
            fit_section(section, *sections, stored);
        put_le32(section + 24, crc32c(0, section + SECTION_HEADER_BYTES, stored));
        put_le32(section + 28, crc32c(0, section, 28));
        ++*sections;
        *changes += get_le32(section + 20);
        *raw += get_le32(section + 12);
        at += SECTION_HEADER_BYTES + stored;
    }
}

static void
seal(uint8_t *p, size_t n, bool fit)
{
    if (n < HEADER_BYTES + FOOTER_BYTES)
        return;
    uint32_t sections;
    uint64_t changes;
    uint64_t raw;
    struct sha256 hash;
    uint8_t *footer = p + n - FOOTER_BYTES;
    put_le32(p + HEADER_BYTES - 4, crc32c(0, p, HEADER_BYTES - 4));
    size_t index = get_le32(footer + 68);
    if (index > n - HEADER_BYTES - FOOTER_BYTES)
        index = 0;
    seal_sections(p, n - FOOTER_BYTES - index, fit, &sections, &changes, &raw);
    put_le32(footer + 68, (uint32_t)index);
    put_le32(footer + 72, crc32c(0, footer - index, index));
    if (fit) {
        put_le32(footer + 8, sections);
        put_le64(footer + 12, changes);
        put_le64(footer + 20, raw);
    }
    put_le64(footer + 28, n);
    sha256_of(p, n - FOOTER_BYTES, &hash);
    memcpy(footer + FOOTER_HASH_AT, hash.b, sizeof(hash.b));
    put_le32(footer + FOOTER_BYTES - 4, crc32c(0, footer, FOOTER_BYTES - 4));
}

// ---- one input ----------------------------------------------------------------------------------

static void
write_again(const struct manifest_record_header *header, const struct buffer *told)
{
    BUFFER_AUTO record = {0};
    BUFFER_AUTO told_again = {0};
    struct sha256 hash;
    struct sha256 hash_again;
    uint64_t bytes;
    struct byte_reader r = byte_reader_over(told->data, told->length);
    struct manifest_record_writer *w = manifest_record_writer_new(header, sink_append, &record);
    while (byte_reader_left(&r) > 0) {
        struct change c;
        MUST_HOLD(change_decode(&r, &c) == 0);
        MUST_HOLD(manifest_record_writer_add(w, &c) == 0);
    }
    MUST_HOLD(manifest_record_writer_finish(w, &hash, &bytes) == 0);
    manifest_record_writer_free(w);
    struct bytes source = {record.data, record.length};
    MUST_HOLD(bytes == record.length);
    MUST_HOLD(manifest_record_read(
                  source_read, &source, bytes, visit_append, &told_again, &hash_again) == 0);
    MUST_HOLD(sha256_equal(&hash, &hash_again) && told_again.length == told->length);
    MUST_HOLD(told->length == 0 || memcmp(told_again.data, told->data, told->length) == 0);
}

static int
visit_nothing(void *argument UNUSED, const struct change *c UNUSED)
{
    return 0;
}

// Reading in part believes nothing that has not been checked either. The index of a catalog that
// verifies as a whole tells all of its sections.
static void
try_index(struct bytes *source, bool is_good_catalog)
{
    struct manifest_index index;
    int rc = manifest_index_read(source_read, source, source->n, &index);
    MUST_HOLD(rc == 0 || rc == -EBADMSG || rc == -ENOTSUP);
    MUST_HOLD(rc == 0 || !is_good_catalog);
    for (size_t i = 0; rc == 0 && i < index.count; i++) {
        const struct manifest_index_entry *e = &index.entries[i];
        int section_rc = manifest_index_read_section(source_read, source, e, visit_nothing, NULL);
        MUST_HOLD(section_rc == 0 || !is_good_catalog);
        MUST_HOLD(
            !is_good_catalog || manifest_index_find(&index, e->kind, e->key, e->key_length) == e);
    }
    manifest_index_free(&index);
}

static void
try_record(const uint8_t *p, size_t n)
{
    BUFFER_AUTO told = {0};
    struct bytes source = {p, n};
    struct manifest_record_header header;
    struct sha256 hash;
    struct sha256 plain;
    int header_rc = manifest_record_read_header(source_read, &source, n, &header);
    int rc = manifest_record_read(source_read, &source, n, visit_append, &told, &hash);
    MUST_HOLD(rc == 0 || rc == -EBADMSG || rc == -ENOTSUP);
    MUST_HOLD(rc == 0 || told.length == 0);
    MUST_HOLD(rc < 0 || header_rc == 0);
    MUST_HOLD(header_rc == 0 || rc == header_rc);
    try_index(&source, rc == 0 && header.version > 1 && header.kind == MANIFEST_RECORD_CATALOG);
    if (rc < 0)
        return;
    sha256_of(p, n, &plain);
    MUST_HOLD(sha256_equal(&hash, &plain));
    // Catalogs of version 1 need not stand in order.
    if (header.version > 1 || header.kind != MANIFEST_RECORD_CATALOG)
        write_again(&header, &told);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (n == 0)
        return 0;
    // A copy of exactly the size, to be changed.
    size_t length = n - 1;
    uint8_t *p = memory_alloc(length ? length : 1);
    memcpy(p, data + 1, length);
    enum mode mode = (enum mode)(data[0] % MODES);
    if (mode != MODE_PLAIN)
        seal(p, length, mode == MODE_FITTED);
    try_record(p, length);
    free(p);
    return 0;
}

// ---- seeds --------------------------------------------------------------------------------------

// Records without changes, with a raw section of one change, with one compressed section; a
// catalog; one with a parent.
bool
fuzz_seed(unsigned which, struct buffer *input_out)
{
    struct change samples[SAMPLE_CHANGES];
    size_t count = sample_changes(samples);
    struct manifest_record_header header = {
        .kind = MANIFEST_RECORD_GENERATION, .sequence = 2, .host = "seed"};
    struct sha256 hash;
    uint64_t bytes;
    if (which >= 5 * MODES)
        return false;
    if (which / MODES == 3)
        header.kind = MANIFEST_RECORD_CATALOG;
    header.has_parent = which / MODES == 4;
    buffer_append_u8(input_out, (uint8_t)(which % MODES));
    struct manifest_record_writer *w = manifest_record_writer_new(&header, sink_append, input_out);
    for (size_t i = 0; i < count; i++) {
        bool is_short = samples[i].kind != CHANGE_PUT_XATTR || samples[i].xattr.value_length < 100;
        bool fits = samples[i].kind != CHANGE_WRITE && samples[i].kind != CHANGE_DISCARD;
        bool wanted = which / MODES == 2 || (which / MODES == 1 && i == 5) ||
                      (which / MODES == 3 && (i == 0 || i == 1 || i == 6 || i == 7 || i == 10));
        if (wanted && fits && is_short)
            MUST_HOLD(manifest_record_writer_add(w, &samples[i]) == 0);
    }
    MUST_HOLD(manifest_record_writer_finish(w, &hash, &bytes) == 0);
    manifest_record_writer_free(w);
    return true;
}
