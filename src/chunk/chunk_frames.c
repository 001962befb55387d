// SPDX-License-Identifier: Apache-2.0
// Frames of an image: read, verified and unpacked to where their reader wants them.
#include <stdlib.h>

#include "chunk/chunk_internal.h"
#include "platform/memory.h"

void
chunk_frames_reserve(struct chunk_frames *f, uint32_t count)
{
    if (f->memory_frames >= count)
        return;
    free(f->memory);
    f->memory = memory_alloc((size_t)count * BLOB_FRAME_BYTES);
    f->memory_frames = count;
}

void
chunk_frames_to_memory(struct chunk_frames *f)
{
    chunk_frames_reserve(f, f->count);
    for (uint32_t i = 0; i < f->count; i++) {
        f->to[i] = f->memory + (size_t)i * BLOB_FRAME_BYTES;
        f->in_place[i] = false;
    }
}

static bool
unpack(struct chunk_frames *f, uint32_t i, const uint8_t *p, uint32_t stored)
{
    return blob_frame_unpack(p, stored, f->to[i], &f->pages[i]) == 0 &&
           (!f->in_place[i] || f->pages[i] == BLOB_FRAME_PAGES);
}

static bool
verify_frames(void *argument, const uint8_t *p, size_t n)
{
    struct chunk_frames *f = argument;
    for (uint32_t i = 0; i < f->count; i++) {
        uint64_t offset;
        uint32_t stored;
        blob_index_frame(f->index, f->first + i, &offset, &stored);
        if (stored > n || !unpack(f, i, p, stored))
            return false;
        p += stored;
        n -= stored;
    }
    return n == 0;
}

// ---- without a copy -----------------------------------------------------------------------------

// Where the stored bytes of the frames go, in order: of raw ones the header to `headers` and the
// pages to their place at once, of others everything to `packed`.
struct scatter {
    struct iovec iov[2 * CHUNK_FRAMES_MAX];
    int count;
    uint8_t headers[CHUNK_FRAMES_MAX][BLOB_FRAME_HEADER];
    uint32_t stored[CHUNK_FRAMES_MAX];
    uint8_t *packed;
};

static bool
is_raw(const struct scatter *s, uint32_t i)
{
    return s->stored[i] == BLOB_FRAME_STORED_MAX;
}

static void
add_piece(struct scatter *s, void *p, size_t n)
{
    s->iov[s->count++] = (struct iovec){p, n};
}

// False: no frame is raw. (`packed` is the caller's to free.)
static bool
plan_scatter(struct scatter *s, const struct chunk_frames *f)
{
    size_t packed_bytes = 0;
    uint32_t raw = 0;
    for (uint32_t i = 0; i < f->count; i++) {
        uint64_t offset;
        blob_index_frame(f->index, f->first + i, &offset, &s->stored[i]);
        if (is_raw(s, i))
            raw++;
        else
            packed_bytes += s->stored[i];
    }
    if (raw == 0)
        return false;
    s->packed = packed_bytes > 0 ? memory_alloc(packed_bytes) : NULL;
    uint8_t *p = s->packed;
    for (uint32_t i = 0; i < f->count; i++) {
        if (is_raw(s, i)) {
            add_piece(s, s->headers[i], BLOB_FRAME_HEADER);
            add_piece(s, f->to[i], BLOB_FRAME_BYTES);
        } else {
            add_piece(s, p, s->stored[i]);
            p += s->stored[i];
        }
    }
    return true;
}

static bool
verify_scattered(struct chunk_frames *f, const struct scatter *s)
{
    const uint8_t *p = s->packed;
    for (uint32_t i = 0; i < f->count; i++) {
        if (is_raw(s, i)) {
            if (!blob_frame_is_raw(s->headers[i], f->to[i]))
                return false;
            f->pages[i] = BLOB_FRAME_PAGES;
        } else {
            if (!unpack(f, i, p, s->stored[i]))
                return false;
            p += s->stored[i];
        }
    }
    return true;
}

// Reads the frames from the local copy, the raw ones to where they belong. False: they are not all
// here and right. The usual way then finds out why.
static bool
read_scattered(struct chunk_reader *r, const struct chunk_image *image, uint64_t offset,
    struct chunk_frames *f, const struct remote_call *call)
{
    struct scatter s = {.count = 0};
    if (!plan_scatter(&s, f))
        return false;
    bool ok = chunk_read_local(r, &image->blob, offset, s.iov, s.count, call) == 0 &&
              verify_scattered(f, &s);
    free(s.packed);
    if (ok)
        __atomic_fetch_add(&r->numbers.local_frames, 1, __ATOMIC_RELAXED);
    return ok;
}

int
chunk_frames_fetch(struct chunk_reader *r, const struct chunk_image *image, struct chunk_frames *f,
    const struct remote_call *call)
{
    uint64_t from;
    uint64_t to;
    uint32_t stored;
    blob_index_frame(f->index, f->first, &from, &stored);
    blob_index_frame(f->index, f->first + f->count - 1, &to, &stored);
    to += stored;
    if (f->whole && verify_frames(f, f->whole + from, to - from)) {
        __atomic_fetch_add(&r->numbers.local_frames, 1, __ATOMIC_RELAXED);
        return 0;
    }
    if (read_scattered(r, image, image->where.offset + from, f, call))
        return 0;
    CLEANUP(memory_free_auto) uint8_t *bytes = memory_alloc(to - from);
    const struct chunk_wanted wanted = {.offset = image->where.offset + from,
        .n = to - from,
        .p = bytes,
        .verify = verify_frames,
        .argument = f};
    return chunk_fetch(r, &image->blob, &wanted, call);
}
