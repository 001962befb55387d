// SPDX-License-Identifier: Apache-2.0
#include "format/hot_set.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/checksum.h"
#include "platform/memory.h"

#define MAGIC        "CKPTHOTS"
#define VERSION      1u
#define HEADER_BYTES 64u
#define CRC_AT       60u
#define VARINT_MAX   10u
#define RUN_MAX      (1 + 3 * VARINT_MAX)
#define PARTS_END    (OBJECT_MAX_BYTES / PAGE_BYTES / HOT_PART_PAGES + 1)

void
hot_set_free(struct hot_set *s)
{
    free(s->runs);
    *s = (struct hot_set){0};
}

uint32_t
hot_set_parts(const struct hot_set *s)
{
    uint32_t parts = 0;
    for (size_t i = 0; i < s->count; i++)
        parts += s->runs[i].count;
    return parts;
}

// ---- order --------------------------------------------------------------------------------------

static int
compare_runs(const void *a, const void *b)
{
    const struct hot_run *x = a;
    const struct hot_run *y = b;
    if (x->level != y->level)
        return x->level > y->level ? -1 : 1;
    if (x->object.v != y->object.v)
        return x->object.v < y->object.v ? -1 : 1;
    return x->first < y->first ? -1 : x->first > y->first;
}

static bool
goes_on(const struct hot_run *last, const struct hot_run *next)
{
    return last->level == next->level && last->object.v == next->object.v &&
           last->first + last->count == next->first;
}

void
hot_set_settle(struct hot_set *s)
{
    size_t count = 0;
    if (s->count > 0)
        qsort(s->runs, s->count, sizeof(*s->runs), compare_runs);
    for (size_t i = 0; i < s->count; i++) {
        if (count > 0 && goes_on(&s->runs[count - 1], &s->runs[i]))
            s->runs[count - 1].count += s->runs[i].count;
        else
            s->runs[count++] = s->runs[i];
    }
    s->count = count;
}

// ---- bytes --------------------------------------------------------------------------------------

// Seven bits a byte, the low ones first; the highest bit says that more follow.
static void
append_varint(struct buffer *out, uint64_t v)
{
    for (; v >= 0x80; v >>= 7)
        buffer_append_u8(out, (uint8_t)(v | 0x80));
    buffer_append_u8(out, (uint8_t)v);
}

// Only the shortest form is right.
static uint64_t
read_varint(struct byte_reader *r)
{
    uint64_t v = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
        uint8_t byte = read_u8(r);
        uint64_t bits = byte & 0x7fu;
        if ((shift == 63 && bits > 1) || (byte == 0 && shift > 0))
            break;
        v |= bits << shift;
        if (!(byte & 0x80))
            return v;
    }
    r->bad = true;
    return 0;
}

// What the numbers of a run are counted from: the run before it, in the same level.
static struct hot_run
base_of(const struct hot_run *last, uint8_t level)
{
    return last && last->level == level ? *last : (struct hot_run){.level = level};
}

static void
append_run(struct buffer *out, const struct hot_run *run, const struct hot_run *last)
{
    struct hot_run base = base_of(last, run->level);
    bool same = run->object.v == base.object.v;
    buffer_append_u8(out, run->level);
    append_varint(out, run->object.v - base.object.v);
    append_varint(out, same ? run->first - (base.first + base.count) : run->first);
    append_varint(out, run->count);
}

void
hot_set_encode(const struct hot_set *s, struct buffer *out)
{
    size_t begin = out->length;
    uint8_t *header = buffer_extend(out, HEADER_BYTES);
    memset(header, 0, HEADER_BYTES);
    uint32_t count = 0;
    for (; count < s->count && out->length - begin + RUN_MAX <= HOT_SET_BYTES_MAX; count++)
        append_run(out, &s->runs[count], count > 0 ? &s->runs[count - 1] : NULL);
    header = out->data + begin;
    size_t length = out->length - begin;
    memcpy(header, MAGIC, 8);
    put_le16(header + 8, VERSION);
    memcpy(header + 16, s->volume.b, sizeof(s->volume.b));
    put_le64(header + 32, s->epoch);
    put_le64(header + 40, s->generation.v);
    put_le32(header + 48, (uint32_t)length);
    put_le32(header + 52, count);
    uint32_t crc = crc32c(0, header, CRC_AT);
    put_le32(header + CRC_AT, crc32c(crc, header + HEADER_BYTES, length - HEADER_BYTES));
}

static bool
read_run(struct byte_reader *r, const struct hot_run *last, struct hot_run *run_out)
{
    uint8_t level = read_u8(r);
    struct hot_run base = base_of(last, level);
    uint64_t object = read_varint(r);
    uint64_t first = read_varint(r);
    uint64_t count = read_varint(r);
    bool same = object == 0;
    bool bad = r->bad || level == 0 || level > HOT_LEVEL_MAX || (last && level > last->level);
    // Another run of the same object does not go on where the last one ends.
    bad |= same && (base.object.v == 0 || first == 0);
    bad |= __builtin_add_overflow(object, base.object.v, &object);
    if (same)
        bad |= __builtin_add_overflow(first, base.first + base.count, &first);
    bad |= count == 0 || count > HOT_PARTS_MAX || first >= PARTS_END || count > PARTS_END - first;
    *run_out = (struct hot_run){{object}, first, (uint32_t)count, level};
    return !bad;
}

static int
read_runs(struct byte_reader *r, uint32_t count, struct hot_set *set)
{
    uint64_t parts = 0;
    set->runs = memory_alloc((count > 0 ? count : 1) * sizeof(*set->runs));
    while (set->count < count) {
        const struct hot_run *last = set->count > 0 ? &set->runs[set->count - 1] : NULL;
        struct hot_run *run = &set->runs[set->count];
        if (!read_run(r, last, run))
            return -EBADMSG;
        set->count++;
        parts += run->count;
    }
    return parts <= HOT_PARTS_MAX && byte_reader_left(r) == 0 ? 0 : -EBADMSG;
}

int
hot_set_decode(const void *p, size_t n, struct hot_set *set_out)
{
    const uint8_t *header = p;
    *set_out = (struct hot_set){0};
    if (n < HEADER_BYTES || memcmp(header, MAGIC, 8) != 0)
        return -EBADMSG;
    // The checksum of a newer version may lie elsewhere.
    if (get_le16(header + 8) > VERSION)
        return -ENOTSUP;
    uint32_t crc = crc32c(0, header, CRC_AT);
    crc = crc32c(crc, header + HEADER_BYTES, n - HEADER_BYTES);
    uint32_t count = get_le32(header + 52);
    if (n > HOT_SET_BYTES_MAX || get_le32(header + 48) != n || get_le32(header + CRC_AT) != crc)
        return -EBADMSG;
    if (get_le32(header + 12) != 0)
        return -ENOTSUP;
    if (get_le16(header + 8) != VERSION || get_le16(header + 10) != 0 ||
        get_le32(header + 56) != 0 || count > HOT_PARTS_MAX)
        return -EBADMSG;
    memcpy(set_out->volume.b, header + 16, sizeof(set_out->volume.b));
    set_out->epoch = get_le64(header + 32);
    set_out->generation.v = get_le64(header + 40);
    struct byte_reader r = byte_reader_over(header + HEADER_BYTES, n - HEADER_BYTES);
    return read_runs(&r, count, set_out);
}
