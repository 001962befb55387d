// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/checksum.h"
#include "format/manifest_index.h"
#include "format/manifest_record_internal.h"
#include "platform/memory.h"

// Read at once from the end: footer and, mostly, the whole index.
#define TAIL_BYTES (64u << 10)

void
manifest_index_free(struct manifest_index *index)
{
    buffer_free(&index->bytes);
    free(index->entries);
    *index = (struct manifest_index){0};
}

static bool
decode_entry(struct byte_reader *r, uint64_t end, struct manifest_index_entry *e)
{
    e->kind = (enum change_kind)read_u8(r);
    uint8_t reserved = read_u8(r);
    e->key_length = read_le16(r);
    e->bytes = read_le32(r);
    e->offset = read_le64(r);
    e->changes = read_le32(r);
    e->key = read_bytes(r, e->key_length);
    return !r->bad && reserved == 0 && e->key_length <= INDEX_KEY_MAX && e->changes > 0 &&
           e->bytes > SECTION_HEADER_BYTES && e->bytes <= SECTION_HEADER_BYTES + SECTION_RAW_MAX &&
           e->offset >= RECORD_HEADER_BYTES && e->offset <= end && e->bytes <= end - e->offset;
}

static int
decode_entries(struct manifest_index *index, uint64_t end)
{
    struct byte_reader r = byte_reader_over(index->bytes.data, index->bytes.length);
    index->entries =
        memory_alloc((index->bytes.length / INDEX_ENTRY_BYTES + 1) * sizeof(*index->entries));
    while (byte_reader_left(&r) > 0)
        if (!decode_entry(&r, end, &index->entries[index->count++]))
            return -EBADMSG;
    return 0;
}

// Reads the last bytes of the catalog and its footer; `tail` begins at `*tail_at_out`.
static int
read_tail(manifest_record_source *source, void *argument, uint64_t bytes, struct buffer *tail,
    struct record_footer *footer_out)
{
    if (bytes < RECORD_HEADER_BYTES + FOOTER_BYTES)
        return -EBADMSG;
    size_t n = bytes - RECORD_HEADER_BYTES < TAIL_BYTES ? (size_t)(bytes - RECORD_HEADER_BYTES)
                                                        : TAIL_BYTES;
    int rc = source(argument, bytes - n, buffer_extend(tail, n), n);
    if (rc < 0)
        return rc;
    const uint8_t *p = tail->data + n;
    // The magic tells the two footers apart; the longer one begins with it further up.
    if (record_decode_footer(p - FOOTER_BYTES, 2, footer_out) < 0)
        return record_decode_footer(p - FOOTER_BYTES_1, 1, footer_out) < 0 ? -EBADMSG : -ENOTSUP;
    if (footer_out->record_bytes != bytes ||
        footer_out->index_bytes > bytes - RECORD_HEADER_BYTES - FOOTER_BYTES)
        return -EBADMSG;
    return 0;
}

int
manifest_index_read(manifest_record_source *source, void *argument, uint64_t bytes,
    struct manifest_index *index_out)
{
    *index_out = (struct manifest_index){0};
    BUFFER_AUTO tail = {0};
    struct record_footer footer;
    int rc = read_tail(source, argument, bytes, &tail, &footer);
    if (rc < 0)
        return rc;
    uint64_t at = bytes - FOOTER_BYTES - footer.index_bytes;
    if (footer.index_bytes <= tail.length - FOOTER_BYTES) {
        buffer_append(&index_out->bytes,
            tail.data + tail.length - FOOTER_BYTES - footer.index_bytes, footer.index_bytes);
    } else {
        uint8_t *p = buffer_extend(&index_out->bytes, footer.index_bytes);
        rc = source(argument, at, p, footer.index_bytes);
    }
    if (rc < 0)
        return rc;
    if (crc32c(0, index_out->bytes.data, index_out->bytes.length) != footer.index_crc)
        return -EBADMSG;
    return decode_entries(index_out, at);
}

static int
compare_keys(const struct manifest_index_entry *e, const void *key, size_t key_length)
{
    size_t n = e->key_length < key_length ? e->key_length : key_length;
    int order = n > 0 ? memcmp(e->key, key, n) : 0;
    if (order != 0 || e->key_length == key_length)
        return order;
    return e->key_length < key_length ? -1 : 1;
}

const struct manifest_index_entry *
manifest_index_find(
    const struct manifest_index *index, enum change_kind kind, const void *key, size_t key_length)
{
    const struct manifest_index_entry *found = NULL;
    for (size_t i = 0; i < index->count; i++) {
        const struct manifest_index_entry *e = &index->entries[i];
        if (e->kind == kind && compare_keys(e, key, key_length) <= 0)
            found = e;
    }
    return found;
}

static int
tell_changes(const struct manifest_index_entry *entry, const struct buffer *raw,
    manifest_record_visitor *visitor, void *argument)
{
    struct byte_reader r = byte_reader_over(raw->data, raw->length);
    uint32_t changes = 0;
    while (byte_reader_left(&r) > 0) {
        struct change c;
        int rc = change_decode(&r, &c);
        if (rc == 0 && c.kind != entry->kind)
            rc = -EBADMSG;
        if (rc == 0)
            rc = visitor(argument, &c);
        if (rc != 0)
            return rc;
        changes++;
    }
    return changes == entry->changes ? 0 : -EBADMSG;
}

int
manifest_index_read_section(manifest_record_source *source, void *argument,
    const struct manifest_index_entry *entry, manifest_record_visitor *visitor,
    void *visitor_argument)
{
    BUFFER_AUTO stored = {0};
    BUFFER_AUTO raw = {0};
    struct section_header s;
    int rc = source(argument, entry->offset, buffer_extend(&stored, entry->bytes), entry->bytes);
    if (rc < 0)
        return rc;
    if (!record_decode_section_header(stored.data, &s) ||
        s.stored_bytes != entry->bytes - SECTION_HEADER_BYTES ||
        !record_unpack_section(&s, stored.data + SECTION_HEADER_BYTES, &raw))
        return -EBADMSG;
    return tell_changes(entry, &raw, visitor, visitor_argument);
}
