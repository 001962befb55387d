// SPDX-License-Identifier: Apache-2.0
#include "retention/verify_report.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "platform/memory.h"
#include "retention/verify_internal.h"

// Of one damaged object.
#define GENERATIONS_MAX 64u
#define FILES_MAX       20u
#define TEXT_BYTES_MAX  4096u

#define FLAG_BLOB       1u
#define FLAG_MORE_FILES 2u
#define FLAGS_ALL       3u

// ---- merging ------------------------------------------------------------------------------------

static bool
is_of_chain(const struct verify_damage *d)
{
    return d->generation_count == 0;
}

static bool
has_file(const struct verify_damage *d, const char *path)
{
    for (size_t i = 0; i < d->file_count; i++)
        if (strcmp(d->files[i], path) == 0)
            return true;
    return false;
}

static void
add_file(struct verify_damage *d, const char *path)
{
    if (has_file(d, path))
        return;
    if (d->file_count == VERIFY_FILES_MAX) {
        d->more_files = true;
        return;
    }
    d->files = memory_realloc(d->files, (d->file_count + 1) * sizeof(*d->files));
    d->files[d->file_count++] = memory_string(path);
}

static void
add_generation(struct verify_damage *d, struct generation generation)
{
    if (d->generation_count == 0 || d->generations[d->generation_count - 1].v < generation.v)
        verify_note_generation(d, generation);
}

void
verify_merge(struct verify_result *into, const struct verify_result *from, bool chain,
    void (*tell)(const struct verify_damage *damage))
{
    for (const struct verify_damage *d = from->damages; d; d = d->next) {
        if (!chain && is_of_chain(d))
            continue;
        uint64_t before = into->damaged;
        struct verify_damage *mine = verify_note(into, d->key, d->why);
        mine->is_blob = d->is_blob;
        mine->more_files |= d->more_files;
        for (size_t i = 0; i < d->generation_count; i++)
            add_generation(mine, d->generations[i]);
        for (size_t i = 0; i < d->file_count; i++)
            add_file(mine, d->files[i]);
        if (tell && into->damaged > before)
            tell(mine);
    }
}

// ---- bytes --------------------------------------------------------------------------------------

static void
append_text(struct buffer *out, const char *text)
{
    size_t n = strlen(text);
    if (n > TEXT_BYTES_MAX)
        n = TEXT_BYTES_MAX;
    buffer_append_le16(out, (uint16_t)n);
    buffer_append(out, text, n);
}

static void
append_damage(struct buffer *out, const struct verify_damage *d)
{
    size_t files = d->file_count < FILES_MAX ? d->file_count : FILES_MAX;
    size_t generations =
        d->generation_count < GENERATIONS_MAX ? d->generation_count : GENERATIONS_MAX;
    bool more = d->more_files || files < d->file_count;
    buffer_append_u8(out, (uint8_t)((d->is_blob ? FLAG_BLOB : 0) | (more ? FLAG_MORE_FILES : 0)));
    append_text(out, d->key);
    append_text(out, d->why);
    buffer_append_u8(out, (uint8_t)generations);
    // The first ones, and the last.
    for (size_t i = 0; i < generations; i++) {
        size_t at = i + 1 == generations ? d->generation_count - 1 : i;
        buffer_append_le64(out, d->generations[at].v);
    }
    buffer_append_u8(out, (uint8_t)files);
    for (size_t i = 0; i < files; i++)
        append_text(out, d->files[i]);
}

void
verify_report_encode(const struct verify_result *result, struct buffer *out)
{
    for (const struct verify_damage *d = result->damages; d; d = d->next) {
        BUFFER_AUTO one = {0};
        append_damage(&one, d);
        if (out->length + one.length > VERIFY_REPORT_BYTES_MAX)
            return;
        buffer_append(out, one.data, one.length);
    }
}

// A copy with a NUL, or NULL.
static char *
read_text(struct byte_reader *r)
{
    uint16_t n = read_le16(r);
    const void *p = n <= TEXT_BYTES_MAX ? read_bytes(r, n) : NULL;
    if (r->bad || !p || memchr(p, 0, n))
        return NULL;
    char *text = memory_alloc((size_t)n + 1);
    memcpy(text, p, n);
    text[n] = 0;
    return text;
}

static bool
read_rest(struct byte_reader *r, struct verify_damage *d)
{
    uint8_t generations = read_u8(r);
    for (unsigned i = 0; !r->bad && i < generations; i++)
        add_generation(d, (struct generation){read_le64(r)});
    uint8_t files = read_u8(r);
    for (unsigned i = 0; !r->bad && i < files; i++) {
        CLEANUP(memory_free_auto) char *path = read_text(r);
        if (!path)
            return false;
        add_file(d, path);
    }
    return !r->bad;
}

static bool
read_damage(struct byte_reader *r, struct verify_result *result)
{
    uint8_t flags = read_u8(r);
    CLEANUP(memory_free_auto) char *key = read_text(r);
    CLEANUP(memory_free_auto) char *why = key ? read_text(r) : NULL;
    if (!why || (flags & ~FLAGS_ALL))
        return false;
    struct verify_damage *d = verify_note(result, key, why);
    d->is_blob = flags & FLAG_BLOB;
    d->more_files = flags & FLAG_MORE_FILES;
    return read_rest(r, d);
}

bool
verify_report_decode(const void *p, size_t n, struct verify_result *result_out)
{
    struct byte_reader r = byte_reader_over(p, n);
    *result_out = (struct verify_result){0};
    while (byte_reader_left(&r) > 0)
        if (!read_damage(&r, result_out))
            return false;
    return true;
}
