// SPDX-License-Identifier: Apache-2.0
// Recovery: which segments hold what, and the replay of the records from the cut on.
//
// Segments whose range lies below the cut hold nothing that is needed: they become spares. The
// others are walked in order of their start. Inside a segment records follow each other until one
// is not valid. Three cases:
//   1. The next segment says that its predecessor ended exactly here: go on there.
//   2. There is a next segment, but it says that its predecessor went on: what lies between was
//      durable before the next segment's header was written, and is damaged. Refuse.
//   3. There is no next segment. If a valid record further on in this segment says that this place
//      had been durable: damaged, refuse. Else this is the torn or clean end of the log.
// A segment whose header is damaged but whose records say that they were durable is case 2 as well.
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "platform/log.h"
#include "platform/memory.h"
#include "wal/wal_internal.h"

struct recovery {
    struct wal *w;
    struct lsn cut;
    wal_replay *replay;
    void *argument;
    struct buffer *error;
    uint32_t newest_epoch;
    uint64_t highest_end; // one past the highest LSN of any segment
    uint64_t replayed;
};

// Calls `found` for each offset of a mapped segment where a valid record with its own LSN lies.
// Segments are mapped while they are scanned: they are read once, in order.
static const uint8_t *
map_segment(const struct wal_segment *s)
{
    void *p = mmap(NULL, s->bytes, PROT_READ, MAP_SHARED, s->fd, 0);
    return p == MAP_FAILED ? NULL : p;
}

// Whether a valid record at or behind `from` says that the place `from` was durable.
static bool
was_durable(const struct wal_segment *s, const uint8_t *map, struct lsn start, uint64_t from)
{
    struct wal_record_header h;
    for (uint64_t at = from; at + WAL_RECORD_HEADER <= s->bytes; at += WAL_RECORD_ALIGN) {
        struct lsn lsn = {start.v + at};
        if (get_le64(map + at + 8) != lsn.v)
            continue;
        if (wal_record_decode(map + at, s->bytes - at, lsn, 0, &h) == 0 &&
            h.durable.v > start.v + from)
            return true;
    }
    return false;
}

static int
damaged(struct recovery *r, const struct wal_segment *s, uint64_t lsn, const char *why)
{
    CLEANUP(memory_free_auto) char *path = wal_segment_path(r->w, s->file_number);
    buffer_clear(r->error);
    buffer_printf(r->error,
        "the write-ahead log is damaged at LSN %" PRIu64
        " (%s): %s, so acknowledged changes would be lost. Nothing was changed. Restore the file, "
        "or "
        "move the storage root away to go back to the last published generation",
        lsn, path, why);
    log_error("wal.damaged", "%s", buffer_string(r->error));
    return -EBADMSG;
}

// A segment whose header does not decode: free to use, unless it held acknowledged records.
static int
check_headerless(struct recovery *r, struct wal_segment *s)
{
    const uint8_t *map = map_segment(s);
    if (!map)
        return -errno;
    struct wal_record_header h;
    uint64_t claimed = get_le64(map + WAL_SEGMENT_HEADER_BYTES + 8);
    int rc = 0;
    if (claimed >= WAL_SEGMENT_HEADER_BYTES && claimed > r->cut.v &&
        claimed < (uint64_t)INT64_MAX - s->bytes &&
        wal_record_decode(map + WAL_SEGMENT_HEADER_BYTES, s->bytes - WAL_SEGMENT_HEADER_BYTES,
            (struct lsn){claimed}, 0, &h) == 0) {
        struct lsn start = {claimed - WAL_SEGMENT_HEADER_BYTES};
        if (was_durable(s, map, start, WAL_SEGMENT_HEADER_BYTES))
            rc = damaged(r, s, start.v, "a segment header does not match its checksum");
    }
    munmap((void *)map, s->bytes);
    return rc;
}

static void
insert_by_start(struct list_node *list, struct wal_segment *s)
{
    struct list_node *at = list;
    while (at->previous != list &&
           CONTAINER_OF(at->previous, struct wal_segment, node)->start.v > s->start.v)
        at = at->previous;
    list_append(at, &s->node);
}

static int
load_segment(struct recovery *r, uint32_t file_number)
{
    struct wal *w = r->w;
    CLEANUP(memory_free_auto) char *path = wal_segment_path(w, file_number);
    int fd = file_open(w->ops, path, O_RDWR, 0);
    if (fd < 0)
        return fd;
    uint64_t bytes;
    int rc = file_size(fd, &bytes);
    if (rc < 0) {
        file_close(fd);
        return rc;
    }
    struct wal_segment *s = wal_segment_new(fd, file_number, bytes);
    uint8_t header[WAL_SEGMENT_HEADER_BYTES];
    struct wal_segment_header h = {0};
    rc = bytes > WAL_SEGMENT_HEADER_BYTES + WAL_RECORD_HEADER ? 0 : -ENODATA;
    if (rc == 0)
        rc = file_read_exact_at(w->ops, fd, header, sizeof(header), 0);
    if (rc == 0)
        rc = wal_segment_header_decode(header, &h);
    if (rc == -ENOTSUP) {
        buffer_clear(r->error);
        buffer_printf(r->error, "%s was written by a newer version of ckptfs", path);
        wal_segment_free(s);
        return rc;
    }
    if (rc == -EBADMSG)
        rc = check_headerless(r, s);
    if (rc < 0 && rc != -ENODATA) {
        wal_segment_free(s);
        return rc;
    }
    bool usable = h.segment_bytes > 0 && uuid_equal(&h.volume, &w->volume);
    if (usable && h.segment_bytes > bytes) {
        rc = h.start.v + h.segment_bytes <= r->cut.v
                 ? 0
                 : damaged(r, s, h.start.v + bytes, "the file is shorter than it was made");
        if (rc < 0) {
            wal_segment_free(s);
            return rc;
        }
        usable = false;
    }
    if (usable) {
        if (h.epoch > r->newest_epoch)
            r->newest_epoch = h.epoch;
        if (h.start.v + h.segment_bytes > r->highest_end)
            r->highest_end = h.start.v + h.segment_bytes;
    }
    if (file_number >= w->next_file_number)
        w->next_file_number = file_number + 1;
    if (usable && h.start.v + h.segment_bytes > r->cut.v) {
        s->start = h.start;
        s->prior_end = h.prior_end;
        s->bytes = h.segment_bytes;
        s->header_written = true;
        insert_by_start(&w->live, s);
        w->segment_count++;
    } else if (bytes == w->segment_bytes) {
        list_append(&w->spares, &s->node);
        w->segment_count++;
    } else {
        wal_segment_remove(w, s);
    }
    return 0;
}

static int
load_segments(struct recovery *r)
{
    DIR *dir = opendir(r->w->directory);
    if (!dir)
        return -errno;
    int rc = 0;
    for (struct dirent *e; rc == 0 && (e = readdir(dir));) {
        unsigned number;
        int used = 0;
        if (sscanf(e->d_name, "segment-%8x%n", &number, &used) == 1 && e->d_name[used] == 0)
            rc = load_segment(r, number);
    }
    closedir(dir);
    return rc;
}

static int
replay_record(struct recovery *r, const uint8_t *p, const struct wal_record_header *h)
{
    uint32_t pieces = wal_payload_pieces(h->payload_page_offset, h->payload_length);
    uint32_t payload_at = wal_record_payload_offset(pieces, h->changes_length);
    struct wal_replayed record = {
        .wal = r->w,
        .lsn = h->lsn,
        .end = {h->lsn.v + h->length},
        .changes = p + wal_record_changes_offset(pieces),
        .changes_length = h->changes_length,
        .payload = p + payload_at,
        .payload_length = h->payload_length,
        .payload_lsn = {h->lsn.v + payload_at},
        .payload_page_offset = h->payload_page_offset,
    };
    r->replayed++;
    return r->replay(r->argument, &record);
}

// Replays the records of one segment. *end_out is where the first byte that is not a valid record
// lies.
static int
replay_segment(struct recovery *r, struct wal_segment *s, const uint8_t *map, uint64_t *end_out)
{
    struct wal_segment_header header;
    int rc = wal_segment_header_decode(map, &header);
    if (rc < 0)
        return rc;
    uint64_t at = WAL_SEGMENT_HEADER_BYTES;
    struct wal_record_header h;
    while (wal_record_decode(
               map + at, s->bytes - at, (struct lsn){s->start.v + at}, header.epoch, &h) == 0) {
        if (s->start.v + at >= r->cut.v) {
            rc = replay_record(r, map + at, &h);
            if (rc < 0)
                return rc;
        }
        at += h.length;
    }
    *end_out = at;
    return 0;
}

static int
walk_segment(struct recovery *r, struct wal_segment *s)
{
    const uint8_t *map = map_segment(s);
    if (!map)
        return -errno;
    madvise((void *)map, s->bytes, MADV_SEQUENTIAL);
    uint64_t end = 0;
    int rc = replay_segment(r, s, map, &end);
    s->end.v = s->start.v + end;
    struct wal_segment *next =
        s->node.next == &r->w->live ? NULL : CONTAINER_OF(s->node.next, struct wal_segment, node);
    if (rc == 0 && next && next->prior_end.v != s->end.v && next->prior_end.v > r->cut.v)
        rc = damaged(r, s, s->end.v,
            next->prior_end.v > s->end.v ? "records that a later segment builds on do not match "
                                           "their checksums"
                                         : "the next segment does not continue this one");
    if (rc == 0 && !next && was_durable(s, map, s->start, end))
        rc = damaged(r, s, s->end.v, "a record does not match its checksum although later ones do");
    munmap((void *)map, s->bytes);
    return rc;
}

// The first live segment must hold the cut, or begin right after a segment that ended at it.
static int
check_beginning(struct recovery *r)
{
    if (list_is_empty(&r->w->live))
        return 0;
    struct wal_segment *first = CONTAINER_OF(r->w->live.next, struct wal_segment, node);
    if (first->start.v > r->cut.v && first->prior_end.v > r->cut.v)
        return damaged(r, first, r->cut.v, "the segment before this one is missing");
    return 0;
}

int
wal_recover(struct wal *w, struct lsn cut, wal_replay *replay, void *argument, struct buffer *error)
{
    struct recovery r = {
        .w = w,
        .cut = cut,
        .replay = replay,
        .argument = argument,
        .error = error,
        .highest_end = cut.v,
    };
    int rc = load_segments(&r);
    if (rc == 0)
        rc = check_beginning(&r);
    uint64_t end = cut.v;
    for (struct list_node *n = w->live.next; rc == 0 && n != &w->live; n = n->next) {
        struct wal_segment *s = CONTAINER_OF(n, struct wal_segment, node);
        rc = walk_segment(&r, s);
        if (s->end.v > end)
            end = s->end.v;
    }
    if (rc < 0)
        return rc;
    // LSNs are never used twice: go on above everything that any segment may have held.
    w->epoch = r.newest_epoch + 1;
    uint64_t next = r.highest_end > end ? r.highest_end : end;
    w->append.v = w->flushed.v =
        (next + WAL_SEGMENT_HEADER_BYTES - 1) / WAL_SEGMENT_HEADER_BYTES * WAL_SEGMENT_HEADER_BYTES;
    w->released = cut;
    w->last_end.v = end;
    struct log_event e;
    log_begin(&e, LOG_LEVEL_INFO, "wal.recovered");
    log_u64(&e, "cut", cut.v);
    log_u64(&e, "end", end);
    log_u64(&e, "records", r.replayed);
    log_u64(&e, "epoch", w->epoch);
    log_end(&e);
    return 0;
}
