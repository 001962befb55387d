// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "platform/log.h"
#include "platform/memory.h"
#include "wal/wal_internal.h"

struct wal_segment *
wal_segment_new(int fd, uint32_t file_number, uint64_t bytes)
{
    struct wal_segment *s = memory_alloc_zero(sizeof(*s));
    s->fd = fd;
    s->file_number = file_number;
    s->bytes = bytes;
    return s;
}

void
wal_segment_free(struct wal_segment *s)
{
    if (!s)
        return;
    file_close(s->fd);
    free(s);
}

char *
wal_segment_path(const struct wal *w, uint32_t file_number)
{
    return memory_printf("%s/segment-%08x", w->directory, file_number);
}

// Real zeros, not only reserved blocks: an unwritten extent would have to be converted, with a
// journal commit, by the first flush that writes to it. The header says that there is nothing else.
// The disk never has more than two steps of it before it, so that commits meanwhile do not wait for
// a whole segment.
static int
fill_with_zeros(struct wal *w, int fd)
{
    size_t step = 1u << 20;
    CLEANUP(memory_free_auto) uint8_t *bytes = memory_alloc_zero(step);
    wal_spare_header_encode(bytes);
    for (uint64_t at = 0; at < w->segment_bytes; at += step) {
        uint64_t n = w->segment_bytes - at < step ? w->segment_bytes - at : step;
        int rc = file_write_at(w->ops, fd, bytes, n, at);
        if (rc == 0)
            rc = file_start_writing(w->ops, fd, at, n);
        if (rc == 0 && at > 0)
            rc = file_wait_written(w->ops, fd, at - step, step);
        if (rc < 0)
            return rc;
        memset(bytes, 0, WAL_SEGMENT_HEADER_BYTES);
    }
    return w->ops->fsync(fd);
}

static int
create_file(struct wal *w, uint32_t file_number, struct wal_segment **out)
{
    CLEANUP(memory_free_auto) char *name = wal_segment_path(w, file_number);
    CLEANUP(memory_free_auto) char *path = memory_printf("%s/new", w->directory);
    // One that a killed process did not finish is counted.
    uint64_t unfinished = w->quota ? storage_quota_path_bytes(path) : 0;
    int fd = file_open(w->ops, path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    storage_quota_give_back(w->quota, QUOTA_LOG, fd < 0 ? 0 : unfinished);
    if (fd < 0) {
        log_error("wal.segment_failed", "cannot create %s: %s", path, strerror(-fd));
        return fd;
    }
    int rc = w->ops->fallocate(fd, 0, (off_t)w->segment_bytes);
    if (rc == -EOPNOTSUPP)
        rc = 0;
    if (rc == 0)
        rc = fill_with_zeros(w, fd);
    // The name comes last: a segment is never shorter than it was made.
    if (rc == 0)
        rc = w->ops->rename(path, name);
    if (rc == 0)
        rc = file_sync_directory(w->ops, w->directory);
    if (rc < 0) {
        log_error("wal.segment_failed", "cannot allocate %s: %s", path, strerror(-rc));
        file_close(fd);
        w->ops->unlink(path);
        return rc;
    }
    *out = wal_segment_new(fd, file_number, w->segment_bytes);
    return 0;
}

int
wal_segment_create(struct wal *w, uint32_t file_number, bool least, struct wal_segment **out)
{
    *out = NULL;
    uint64_t reserved = storage_quota_blocks_for(w->segment_bytes);
    int rc = storage_quota_reserve_segment(w->quota, reserved, least);
    if (rc < 0)
        return rc;
    rc = create_file(w, file_number, out);
    if (rc < 0)
        storage_quota_give_back_segment(w->quota, reserved, reserved);
    else if (w->quota)
        storage_quota_settle(w->quota, QUOTA_LOG, reserved, storage_quota_file_bytes((*out)->fd));
    return rc;
}

void
wal_segment_remove(struct wal *w, struct wal_segment *s)
{
    CLEANUP(memory_free_auto) char *path = wal_segment_path(w, s->file_number);
    uint64_t bytes = w->quota ? storage_quota_file_bytes(s->fd) : 0;
    uint64_t promised = storage_quota_blocks_for(s->bytes);
    int rc = w->ops->unlink(path);
    wal_segment_free(s);
    if (rc < 0)
        log_warning("wal.segment_failed", "cannot remove %s: %s", path, strerror(-rc));
    else
        storage_quota_give_back_segment(w->quota, bytes, promised);
}
