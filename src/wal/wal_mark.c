// SPDX-License-Identifier: Apache-2.0
// The mark: a small file beside the segments that says durably how far the log goes, at least.
//
// It is written after the header of a new segment and before the segment's first record, so it
// never names a segment that has not been begun, and nothing in a segment is acknowledged before
// the mark names it. Where a segment begins, and where the one before ended, is not known ahead of
// that, so this cannot be done ahead either: it is one more durable write a segment.
#include <errno.h>
#include <string.h>

#include "platform/log.h"
#include "platform/memory.h"
#include "wal/wal_internal.h"

// An operator writes this into the file to make recovery take the segments as they are.
#define WAIVER "accept"

char *
wal_mark_path(const struct wal *w)
{
    return memory_printf("%s/mark", w->directory);
}

static bool
is_waiver(const char *p, size_t n)
{
    if (n > 0 && p[n - 1] == '\n')
        n--;
    return n == strlen(WAIVER) && memcmp(p, WAIVER, n) == 0;
}

// The newest statement of the two. Only one of them can have been torn.
static int
decode_slots(const uint8_t *p, struct wal_mark *m_out)
{
    int result = -EBADMSG;
    for (uint32_t i = 0; i < WAL_MARK_SLOTS; i++) {
        struct wal_mark m;
        int rc = wal_mark_decode(p + (size_t)i * WAL_MARK_SLOT_BYTES, &m);
        if (rc == -ENOTSUP)
            return rc;
        if (rc < 0 || (result == 0 && m.sequence < m_out->sequence))
            continue;
        *m_out = m;
        result = 0;
    }
    return result;
}

static int
read_mark(struct wal *w, int fd, enum wal_mark_state *state_out)
{
    uint8_t bytes[WAL_MARK_BYTES];
    uint64_t size;
    int rc = file_size(fd, &size);
    if (rc == 0 && size > sizeof(bytes))
        return -EBADMSG;
    if (rc == 0)
        rc = file_read_exact_at(w->ops, fd, bytes, size, 0);
    if (rc < 0)
        return rc;
    if (is_waiver((const char *)bytes, size)) {
        *state_out = WAL_MARK_WAIVED;
        return 0;
    }
    struct wal_mark m;
    rc = size == sizeof(bytes) ? decode_slots(bytes, &m) : -EBADMSG;
    if (rc == 0 && uuid_equal(&m.volume, &w->volume)) {
        *state_out = WAL_MARK_FOUND;
        w->mark = m;
    }
    return rc;
}

int
wal_mark_load(struct wal *w, enum wal_mark_state *state_out)
{
    *state_out = WAL_MARK_MISSING;
    CLEANUP(memory_free_auto) char *path = wal_mark_path(w);
    int fd = file_open(w->ops, path, O_RDWR, 0);
    if (fd == -ENOENT)
        return 0;
    int rc = fd < 0 ? fd : read_mark(w, fd, state_out);
    if (rc < 0 && rc != -EBADMSG && rc != -ENOTSUP)
        log_error("wal.recovery_failed", "cannot read %s: %s", path, strerror(-rc));
    if (rc == 0 && *state_out == WAL_MARK_FOUND)
        w->mark_fd = fd;
    else
        file_close(fd);
    return rc;
}

int
wal_peek(const char *directory, const struct uuid *volume, struct lsn *end_out)
{
    struct wal w = {
        .ops = &file_ops_system, .directory = (char *)directory, .volume = *volume, .mark_fd = -1};
    enum wal_mark_state state;
    int rc = wal_mark_load(&w, &state);
    file_close(w.mark_fd);
    if (rc == 0 && (state != WAL_MARK_FOUND || w.mark.segment_bytes == 0))
        rc = -ENOENT;
    if (rc == 0)
        *end_out = w.mark.end;
    return rc;
}

int
wal_mark_create(struct wal *w)
{
    CLEANUP(memory_free_auto) char *path = wal_mark_path(w);
    uint8_t bytes[WAL_MARK_BYTES] = {0};
    struct wal_mark m = {.volume = w->volume};
    wal_mark_encode(&m, bytes);
    uint64_t before = w->quota ? storage_quota_path_bytes(path) : 0;
    int rc = file_replace_whole(w->ops, path, bytes, sizeof(bytes), 0600);
    if (w->quota) // a few blocks: the reserve pays for them
        storage_quota_settle(w->quota, QUOTA_LOG, before, storage_quota_path_bytes(path));
    if (rc == 0)
        rc = file_open(w->ops, path, O_RDWR, 0);
    if (rc < 0) {
        log_error("wal.recovery_failed", "cannot create %s: %s", path, strerror(-rc));
        return rc;
    }
    w->mark_fd = rc;
    w->mark = m;
    return 0;
}

int
wal_mark_advance(struct wal *w, const struct wal_segment *s, struct lsn end)
{
    struct wal_mark m = w->mark;
    if (m.segment_bytes > 0 && m.start.v >= s->start.v && m.end.v >= end.v)
        return 0;
    m.sequence++;
    m.epoch = s->epoch;
    m.file_number = s->file_number;
    m.start = s->start;
    m.segment_bytes = s->bytes;
    m.end = end;
    uint8_t slot[WAL_MARK_SLOT_BYTES];
    wal_mark_encode(&m, slot);
    int rc = file_write_durable_at(
        w->ops, w->mark_fd, slot, sizeof(slot), m.sequence % WAL_MARK_SLOTS * WAL_MARK_SLOT_BYTES);
    if (rc == 0)
        w->mark = m;
    return rc;
}
