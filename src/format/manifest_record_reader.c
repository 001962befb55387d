// SPDX-License-Identifier: Apache-2.0
// Reading is done twice when there is a visitor: once to find out whether the record is whole, once
// to tell it. Each length is checked against the rest of the record before memory is taken for it,
// and there are never more than two sections' worth of memory.
#include <errno.h>
#include <stdlib.h>

#include "base/checksum.h"
#include "format/columns.h"
#include "format/compress.h"
#include "format/extension.h"
#include "format/manifest_record.h"
#include "format/manifest_record_internal.h"
#include "platform/memory.h"

struct record_reader {
    manifest_record_source *source;
    void *argument;
    uint64_t offset; // of the next part
    uint64_t begin;  // where the sections begin
    uint64_t end;    // and end
    bool ordered;    // they are those of a catalog
    struct record_order order;
    struct buffer stored;
    struct buffer raw;
    uint32_t sections;
    uint64_t changes;
    uint64_t raw_bytes;
};

static bool
are_zeros(struct byte_reader *r, size_t n)
{
    const uint8_t *p = read_bytes(r, n);
    for (size_t i = 0; p && i < n; i++)
        if (p[i] != 0)
            return false;
    return p != NULL;
}

// ---- header and footer --------------------------------------------------------------------------

static int
decode_header(const uint8_t *p, struct manifest_record_header *h)
{
    struct byte_reader r = byte_reader_over(p, RECORD_HEADER_BYTES);
    const uint8_t *magic = read_bytes(&r, 8);
    if (memcmp(magic, RECORD_MAGIC, 8) != 0 ||
        get_le32(p + RECORD_HEADER_BYTES - 4) != crc32c(0, p, RECORD_HEADER_BYTES - 4))
        return -EBADMSG;
    uint16_t version = read_le16(&r);
    uint16_t kind = read_le16(&r);
    read_le32(&r); // compatible features: any
    uint32_t incompatible = read_le32(&r);
    if (version > RECORD_VERSION || (incompatible & ~RECORD_FEATURES_KNOWN) != 0)
        return -ENOTSUP;
    h->kind = (enum manifest_record_kind)kind;
    h->sequence = read_le64(&r);
    h->epoch = read_le64(&r);
    read_copy(&r, h->volume.b, sizeof(h->volume.b));
    read_copy(&r, h->writer.b, sizeof(h->writer.b));
    read_copy(&r, h->name_key.b, sizeof(h->name_key.b));
    read_copy(&r, h->previous.b, sizeof(h->previous.b));
    h->generation.v = read_le64(&r);
    h->previous_generation.v = read_le64(&r);
    h->cut.v = read_le64(&r);
    read_copy(&r, h->checkpoint_id.b, sizeof(h->checkpoint_id.b));
    h->created_ms = read_le64(&r);
    read_copy(&r, h->host, sizeof(h->host));
    h->version = version;
    if (version > 1) {
        h->lowest_sequence = read_le64(&r);
        h->extension_bytes = read_le32(&r);
    }
    if (h->extension_bytes > RECORD_EXTENSION_MAX || h->lowest_sequence > h->sequence ||
        !are_zeros(&r, version > 1 ? RECORD_HEADER_ZEROS : RECORD_HEADER_ZEROS_1))
        return -EBADMSG;
    if (version > 1 && kind > MANIFEST_RECORD_KIND_MAX)
        return -ENOTSUP;
    if (version == 0 || kind < MANIFEST_RECORD_CREATE || kind > MANIFEST_RECORD_KIND_MAX ||
        h->sequence == 0 || h->host[sizeof(h->host) - 1] != 0)
        return -EBADMSG;
    return 0;
}

static bool
decode_parent(const struct extension *x, struct volume_parent *v)
{
    struct byte_reader r = byte_reader_over(x->value, x->length);
    read_copy(&r, v->volume.b, sizeof(v->volume.b));
    v->sequence = read_le64(&r);
    read_copy(&r, v->hash.b, sizeof(v->hash.b));
    v->generation.v = read_le64(&r);
    return !r.bad && byte_reader_left(&r) == 0;
}

// `n` bytes, the checksum at their end.
static int
decode_extensions(const uint8_t *p, size_t n, struct manifest_record_header *h)
{
    struct extension x;
    uint16_t last = 0;
    int rc;
    if (n < 4 || get_le32(p + n - 4) != crc32c(0, p, n - 4))
        return -EBADMSG;
    struct byte_reader r = byte_reader_over(p, n - 4);
    while ((rc = extension_next(&r, &last, &x)) > 0) {
        if (x.type == RECORD_EXTENSION_PARENT) {
            h->has_parent = decode_parent(&x, &h->parent);
            if (!h->has_parent)
                return -EBADMSG;
        } else if (x.type & EXTENSION_INCOMPATIBLE) {
            return -ENOTSUP;
        }
    }
    return rc;
}

int
record_decode_footer(const uint8_t *p, unsigned version, struct record_footer *f)
{
    *f = (struct record_footer){.length = version > 1 ? FOOTER_BYTES : FOOTER_BYTES_1};
    struct byte_reader r = byte_reader_over(p, f->length);
    const uint8_t *magic = read_bytes(&r, 8);
    if (memcmp(magic, FOOTER_MAGIC, 8) != 0 ||
        get_le32(p + f->length - 4) != crc32c(0, p, f->length - 4))
        return -EBADMSG;
    f->sections = read_le32(&r);
    f->changes = read_le64(&r);
    f->raw_bytes = read_le64(&r);
    f->record_bytes = read_le64(&r);
    read_copy(&r, f->hash.b, sizeof(f->hash.b));
    if (version == 1)
        return are_zeros(&r, FOOTER_ZEROS_1) ? 0 : -EBADMSG;
    f->index_bytes = read_le32(&r);
    f->index_crc = read_le32(&r);
    // Only a reader with the key looks at a seal.
    return 0;
}

// The bytes go to `header`: the header's own, and the extensions.
static int
read_header_bytes(manifest_record_source *source, void *argument, uint64_t bytes,
    struct buffer *header, struct manifest_record_header *header_out)
{
    memset(header_out, 0, sizeof(*header_out));
    if (bytes < RECORD_BYTES_MIN)
        return -EBADMSG;
    int rc = source(argument, 0, buffer_extend(header, RECORD_HEADER_BYTES), RECORD_HEADER_BYTES);
    if (rc == 0)
        rc = decode_header(header->data, header_out);
    uint32_t n = header_out->extension_bytes;
    if (rc < 0 || n == 0)
        return rc;
    if (n > bytes - RECORD_HEADER_BYTES)
        return -EBADMSG;
    uint8_t *p = buffer_extend(header, n);
    rc = source(argument, RECORD_HEADER_BYTES, p, n);
    return rc < 0 ? rc : decode_extensions(p, n, header_out);
}

int
manifest_record_read_header(manifest_record_source *source, void *argument, uint64_t bytes,
    struct manifest_record_header *header_out)
{
    BUFFER_AUTO header = {0};
    return read_header_bytes(source, argument, bytes, &header, header_out);
}

// ---- sections -----------------------------------------------------------------------------------

bool
record_decode_section_header(const uint8_t *p, struct section_header *s)
{
    s->encoding = get_le16(p + 4);
    s->number = get_le32(p + 8);
    s->raw_bytes = get_le32(p + 12);
    s->stored_bytes = get_le32(p + 16);
    s->changes = get_le32(p + 20);
    s->crc = get_le32(p + 24);
    if (get_le32(p) != SECTION_MAGIC || get_le16(p + 6) != 0 ||
        get_le32(p + 28) != crc32c(0, p, 28))
        return false;
    if (s->raw_bytes == 0 || s->raw_bytes > SECTION_RAW_MAX || s->changes == 0)
        return false;
    if (s->encoding == SECTION_RAW)
        return s->stored_bytes == s->raw_bytes;
    return s->stored_bytes > 0 && s->stored_bytes < s->raw_bytes &&
           (s->encoding == SECTION_LZ4 ||
               (s->encoding == SECTION_COLUMNS && s->raw_bytes % s->changes == 0));
}

bool
record_unpack_section(const struct section_header *s, const uint8_t *stored, struct buffer *raw_out)
{
    if (crc32c(0, stored, s->stored_bytes) != s->crc)
        return false;
    if (s->encoding == SECTION_RAW) {
        buffer_append(raw_out, stored, s->raw_bytes);
        return true;
    }
    if (s->encoding == SECTION_LZ4)
        return decompress_block(
            stored, s->stored_bytes, buffer_extend(raw_out, s->raw_bytes), s->raw_bytes);
    BUFFER_AUTO columns = {0};
    if (!decompress_block(
            stored, s->stored_bytes, buffer_extend(&columns, s->raw_bytes), s->raw_bytes))
        return false;
    columns_join(
        columns.data, s->changes, s->raw_bytes / s->changes, buffer_extend(raw_out, s->raw_bytes));
    return true;
}

// Reads the next section: r->stored has its header and its stored bytes, r->raw its changes.
static int
read_section(struct record_reader *r, struct section_header *s)
{
    if (r->end - r->offset < SECTION_HEADER_BYTES)
        return -EBADMSG;
    buffer_clear(&r->stored);
    int rc = r->source(r->argument, r->offset, buffer_extend(&r->stored, SECTION_HEADER_BYTES),
        SECTION_HEADER_BYTES);
    if (rc < 0)
        return rc;
    r->offset += SECTION_HEADER_BYTES;
    if (!record_decode_section_header(r->stored.data, s) || s->number != r->sections ||
        s->stored_bytes > r->end - r->offset)
        return -EBADMSG;
    uint8_t *stored = buffer_extend(&r->stored, s->stored_bytes);
    rc = r->source(r->argument, r->offset, stored, s->stored_bytes);
    if (rc < 0)
        return rc;
    r->offset += s->stored_bytes;
    buffer_clear(&r->raw);
    return record_unpack_section(s, stored, &r->raw) ? 0 : -EBADMSG;
}

static int
visit_section(struct record_reader *r, const struct section_header *s,
    manifest_record_visitor *visitor, void *argument)
{
    struct byte_reader bytes = byte_reader_over(r->raw.data, r->raw.length);
    uint32_t changes = 0;
    while (byte_reader_left(&bytes) > 0) {
        struct change c;
        int rc = change_decode(&bytes, &c);
        if (rc < 0)
            return rc;
        if (c.kind == CHANGE_WRITE || c.kind == CHANGE_DISCARD ||
            (r->ordered && !record_order_take(&r->order, &c, changes == 0)))
            return -EBADMSG;
        changes++;
        rc = visitor ? visitor(argument, &c) : 0;
        if (rc != 0)
            return rc;
    }
    r->sections++;
    r->changes += changes;
    r->raw_bytes += r->raw.length;
    return changes == s->changes ? 0 : -EBADMSG;
}

// Goes through all sections; adds their bytes to the streams, if there are any.
static int
walk_sections(struct record_reader *r, struct sha256_stream *body, struct sha256_stream *whole,
    manifest_record_visitor *visitor, void *argument)
{
    r->offset = r->begin;
    record_order_reset(&r->order);
    r->sections = 0;
    r->changes = 0;
    r->raw_bytes = 0;
    while (r->offset < r->end) {
        struct section_header s;
        int rc = read_section(r, &s);
        if (rc < 0)
            return rc;
        if (body) {
            sha256_stream_update(body, r->stored.data, r->stored.length);
            sha256_stream_update(whole, r->stored.data, r->stored.length);
        }
        rc = visit_section(r, &s, visitor, argument);
        if (rc != 0)
            return rc;
        if (r->ordered)
            record_order_close(
                &r->order, r->offset - r->stored.length, (uint32_t)r->stored.length, s.changes);
    }
    return 0;
}

// The index must be the one that follows from the sections.
static int
check_index(struct record_reader *r, const struct record_footer *f, struct sha256_stream *body,
    struct sha256_stream *whole)
{
    const struct buffer *index = &r->order.index;
    if (f->index_bytes != index->length || f->index_crc != crc32c(0, index->data, index->length))
        return -EBADMSG;
    for (size_t at = 0; at < index->length;) {
        size_t n = index->length - at < SECTION_RAW_MAX ? index->length - at : SECTION_RAW_MAX;
        buffer_clear(&r->stored);
        int rc = r->source(r->argument, r->end + at, buffer_extend(&r->stored, n), n);
        if (rc < 0)
            return rc;
        if (memcmp(r->stored.data, index->data + at, n) != 0)
            return -EBADMSG;
        at += n;
    }
    sha256_stream_update(body, index->data, index->length);
    sha256_stream_update(whole, index->data, index->length);
    return 0;
}

static int
verify_with(struct record_reader *r, uint64_t bytes, struct sha256_stream *body,
    struct sha256_stream *whole, struct sha256 *hash_out)
{
    BUFFER_AUTO header_bytes = {0};
    uint8_t footer_bytes[FOOTER_BYTES];
    struct manifest_record_header header;
    struct record_footer footer;
    struct sha256 hash;
    int rc = read_header_bytes(r->source, r->argument, bytes, &header_bytes, &header);
    if (rc < 0)
        return rc;
    sha256_stream_update(body, header_bytes.data, header_bytes.length);
    sha256_stream_update(whole, header_bytes.data, header_bytes.length);
    size_t footer_length = header.version > 1 ? FOOTER_BYTES : FOOTER_BYTES_1;
    r->begin = header_bytes.length;
    r->ordered = header.version > 1 && header.kind == MANIFEST_RECORD_CATALOG;
    if (bytes < r->begin + footer_length)
        return -EBADMSG;
    uint64_t footer_at = bytes - footer_length;
    rc = r->source(r->argument, footer_at, footer_bytes, footer_length);
    if (rc == 0)
        rc = record_decode_footer(footer_bytes, header.version, &footer);
    if (rc == 0 && footer.index_bytes > footer_at - r->begin)
        rc = -EBADMSG;
    if (rc < 0)
        return rc;
    r->end = footer_at - footer.index_bytes;
    rc = walk_sections(r, body, whole, NULL, NULL);
    if (rc == 0)
        rc = check_index(r, &footer, body, whole);
    if (rc < 0)
        return rc;
    sha256_stream_update(whole, footer_bytes, footer_length);
    sha256_stream_finish(body, &hash);
    if (hash_out)
        sha256_stream_finish(whole, hash_out);
    if (footer.sections != r->sections || footer.changes != r->changes ||
        footer.raw_bytes != r->raw_bytes || footer.record_bytes != bytes ||
        !sha256_equal(&footer.hash, &hash))
        return -EBADMSG;
    return 0;
}

static int
verify(struct record_reader *r, uint64_t bytes, struct sha256 *hash_out)
{
    struct sha256_stream *body = sha256_stream_new();
    struct sha256_stream *whole = sha256_stream_new();
    int rc = verify_with(r, bytes, body, whole, hash_out);
    sha256_stream_free(body);
    sha256_stream_free(whole);
    return rc;
}

int
manifest_record_read(manifest_record_source *source, void *argument, uint64_t bytes,
    manifest_record_visitor *visitor, void *visitor_argument, struct sha256 *hash_out)
{
    struct record_reader r = {.source = source, .argument = argument};
    int rc = verify(&r, bytes, hash_out);
    if (rc == 0 && visitor)
        rc = walk_sections(&r, NULL, NULL, visitor, visitor_argument);
    buffer_free(&r.stored);
    buffer_free(&r.raw);
    record_order_free(&r.order);
    return rc;
}
