// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <stdlib.h>

#include "base/checksum.h"
#include "format/columns.h"
#include "format/compress.h"
#include "format/extension.h"
#include "format/manifest_record.h"
#include "format/manifest_record_internal.h"
#include "platform/memory.h"

struct manifest_record_writer {
    manifest_record_sink *sink;
    void *argument;
    int error; // the first, of the sink or of a change; nothing is written after it
    struct manifest_record_header header;
    bool begun;
    struct buffer section; // raw changes
    bool even;             // they have one length
    struct buffer stored;  // section header and stored bytes
    uint32_t section_changes;
    bool ordered; // a catalog
    struct record_order order;
    uint32_t sections;
    uint64_t changes;
    uint64_t raw_bytes;
    uint64_t bytes;              // given to the sink
    struct sha256_stream *body;  // all before the footer
    struct sha256_stream *whole; // all
};

struct manifest_record_writer *
manifest_record_writer_new(
    const struct manifest_record_header *header, manifest_record_sink *sink, void *argument)
{
    struct manifest_record_writer *w = memory_alloc_zero(sizeof(*w));
    w->sink = sink;
    w->argument = argument;
    w->header = *header;
    w->ordered = header->kind == MANIFEST_RECORD_CATALOG;
    w->body = sha256_stream_new();
    w->whole = sha256_stream_new();
    return w;
}

void
manifest_record_writer_free(struct manifest_record_writer *w)
{
    if (!w)
        return;
    sha256_stream_free(w->body);
    sha256_stream_free(w->whole);
    buffer_free(&w->section);
    buffer_free(&w->stored);
    record_order_free(&w->order);
    free(w);
}

static int
emit(struct manifest_record_writer *w, const struct buffer *b)
{
    sha256_stream_update(w->whole, b->data, b->length);
    w->bytes += b->length;
    w->error = w->sink(w->argument, b->data, b->length);
    return w->error;
}

static void
append_zeros(struct buffer *b, size_t n)
{
    memset(buffer_extend(b, n), 0, n);
}

static void
encode_parent(const struct volume_parent *v, struct buffer *out)
{
    buffer_append(out, v->volume.b, sizeof(v->volume.b));
    buffer_append_le64(out, v->sequence);
    buffer_append(out, v->hash.b, sizeof(v->hash.b));
    buffer_append_le64(out, v->generation.v);
}

// Nothing at all when there are no items; else the items and their checksum.
static void
encode_extensions(const struct manifest_record_header *h, struct buffer *out)
{
    BUFFER_AUTO parent = {0};
    if (!h->has_parent)
        return;
    encode_parent(&h->parent, &parent);
    extension_append(out, RECORD_EXTENSION_PARENT, parent.data, (uint32_t)parent.length);
    buffer_append_le32(out, crc32c(0, out->data, out->length));
}

static void
encode_header(const struct manifest_record_header *h, size_t extension_bytes, struct buffer *out)
{
    char host[RECORD_HOST_BYTES] = {0};
    memcpy(host, h->host, strnlen(h->host, sizeof(host) - 1));
    buffer_append(out, RECORD_MAGIC, 8);
    buffer_append_le16(out, RECORD_VERSION);
    buffer_append_le16(out, (uint16_t)h->kind);
    buffer_append_le32(out, 0); // compatible features
    buffer_append_le32(out, h->kind == MANIFEST_RECORD_CATALOG ? RECORD_FEATURE_COLUMNS : 0);
    buffer_append_le64(out, h->sequence);
    buffer_append_le64(out, h->epoch);
    buffer_append(out, h->volume.b, sizeof(h->volume.b));
    buffer_append(out, h->writer.b, sizeof(h->writer.b));
    buffer_append(out, h->name_key.b, sizeof(h->name_key.b));
    buffer_append(out, h->previous.b, sizeof(h->previous.b));
    buffer_append_le64(out, h->generation.v);
    buffer_append_le64(out, h->previous_generation.v);
    buffer_append_le64(out, h->cut.v);
    buffer_append(out, h->checkpoint_id.b, sizeof(h->checkpoint_id.b));
    buffer_append_le64(out, h->created_ms);
    buffer_append(out, host, sizeof(host));
    buffer_append_le64(out, h->lowest_sequence);
    buffer_append_le32(out, (uint32_t)extension_bytes);
    append_zeros(out, RECORD_HEADER_ZEROS);
    buffer_append_le32(out, crc32c(0, out->data, out->length));
    assert(out->length == RECORD_HEADER_BYTES);
}

static int
begin_record(struct manifest_record_writer *w)
{
    if (w->begun)
        return w->error;
    BUFFER_AUTO bytes = {0};
    BUFFER_AUTO extensions = {0};
    w->begun = true;
    encode_extensions(&w->header, &extensions);
    encode_header(&w->header, extensions.length, &bytes);
    buffer_append(&bytes, extensions.data, extensions.length);
    sha256_stream_update(w->body, bytes.data, bytes.length);
    return emit(w, &bytes);
}

static void
encode_section_header(const struct section_header *s, uint8_t *p)
{
    put_le32(p, SECTION_MAGIC);
    put_le16(p + 4, s->encoding);
    put_le16(p + 6, 0);
    put_le32(p + 8, s->number);
    put_le32(p + 12, s->raw_bytes);
    put_le32(p + 16, s->stored_bytes);
    put_le32(p + 20, s->changes);
    put_le32(p + 24, s->crc);
    put_le32(p + 28, crc32c(0, p, 28));
}

// Compresses the section to w->stored, behind its header, in the shortest way.
static void
pack_section(struct manifest_record_writer *w, struct section_header *s)
{
    size_t raw = w->section.length;
    uint8_t *out = buffer_reserve(&w->stored, raw);
    size_t stored = compress_block(w->section.data, raw, out, raw - 1);
    s->encoding = stored > 0 ? SECTION_LZ4 : SECTION_RAW;
    if (w->ordered && w->even && s->changes > 1) {
        BUFFER_AUTO columns = {0};
        BUFFER_AUTO packed = {0};
        size_t room = (stored > 0 ? stored : raw) - 1;
        uint8_t *p = buffer_extend(&packed, raw);
        columns_split(w->section.data, s->changes, raw / s->changes, buffer_extend(&columns, raw));
        size_t shorter = compress_block(columns.data, raw, p, room);
        if (shorter > 0) {
            s->encoding = SECTION_COLUMNS;
            stored = shorter;
            memcpy(out, p, shorter);
        }
    }
    if (s->encoding == SECTION_RAW) {
        stored = raw;
        memcpy(out, w->section.data, raw);
    }
    w->stored.length += stored;
    s->stored_bytes = (uint32_t)stored;
}

static int
close_section(struct manifest_record_writer *w)
{
    if (w->section.length == 0)
        return 0;
    size_t raw = w->section.length;
    buffer_clear(&w->stored);
    buffer_extend(&w->stored, SECTION_HEADER_BYTES);
    struct section_header s = {
        .number = w->sections,
        .raw_bytes = (uint32_t)raw,
        .changes = w->section_changes,
    };
    pack_section(w, &s);
    s.crc = crc32c(0, w->stored.data + SECTION_HEADER_BYTES, s.stored_bytes);
    encode_section_header(&s, w->stored.data);
    if (w->ordered)
        record_order_close(&w->order, w->bytes, (uint32_t)w->stored.length, s.changes);
    w->sections++;
    w->changes += w->section_changes;
    w->raw_bytes += raw;
    w->section_changes = 0;
    buffer_clear(&w->section);
    sha256_stream_update(w->body, w->stored.data, w->stored.length);
    return emit(w, &w->stored);
}

int
manifest_record_writer_add(struct manifest_record_writer *w, const struct change *change)
{
    int rc = begin_record(w);
    if (rc == 0 && w->ordered && w->order.kind != (uint8_t)change->kind)
        rc = close_section(w);
    if (rc < 0)
        return rc;
    size_t start = w->section.length;
    change_encode(change, &w->section);
    // A record that readers would refuse must not get into the chain.
    struct change again;
    struct byte_reader r = byte_reader_over(w->section.data + start, w->section.length - start);
    if (change_decode(&r, &again) < 0 || byte_reader_left(&r) > 0 || again.kind == CHANGE_WRITE ||
        again.kind == CHANGE_DISCARD ||
        (w->ordered && !record_order_take(&w->order, &again, w->section_changes == 0))) {
        w->error = -EINVAL;
        return w->error;
    }
    size_t length = w->section.length - start;
    w->even = w->section_changes == 0 || (w->even && start / w->section_changes == length);
    w->section_changes++;
    return w->section.length < SECTION_TARGET_BYTES ? 0 : close_section(w);
}

static void
encode_footer(struct manifest_record_writer *w, struct buffer *out)
{
    struct sha256 hash;
    sha256_stream_finish(w->body, &hash);
    buffer_append(out, FOOTER_MAGIC, 8);
    buffer_append_le32(out, w->sections);
    buffer_append_le64(out, w->changes);
    buffer_append_le64(out, w->raw_bytes);
    buffer_append_le64(out, w->bytes + FOOTER_BYTES);
    buffer_append(out, hash.b, sizeof(hash.b));
    buffer_append_le32(out, (uint32_t)w->order.index.length);
    buffer_append_le32(out, crc32c(0, w->order.index.data, w->order.index.length));
    append_zeros(out, FOOTER_ZEROS);
    buffer_append_le32(out, 0);
    assert(out->length == FOOTER_BYTES);
    put_le32(out->data + out->length - 4, crc32c(0, out->data, out->length - 4));
}

int
manifest_record_writer_finish(
    struct manifest_record_writer *w, struct sha256 *hash_out, uint64_t *bytes_out)
{
    int rc = begin_record(w);
    if (rc == 0)
        rc = close_section(w);
    if (rc == 0 && w->order.index.length > 0) {
        sha256_stream_update(w->body, w->order.index.data, w->order.index.length);
        rc = emit(w, &w->order.index);
    }
    if (rc < 0)
        return rc;
    BUFFER_AUTO footer = {0};
    encode_footer(w, &footer);
    rc = emit(w, &footer);
    if (rc < 0)
        return rc;
    sha256_stream_finish(w->whole, hash_out);
    *bytes_out = w->bytes;
    return 0;
}
