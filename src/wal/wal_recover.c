// SPDX-License-Identifier: Apache-2.0
// Recovery: finding the order of the segments, and the replay of the records from the cut on.
//
// A segment's header is durable before its first record is written. Segments whose range lies below
// the cut are not needed: they become spares. Recovery walks the others in order of their start.
// Inside a segment records follow each other until one is not valid. Three cases:
//   1. The next segment says that its predecessor ended exactly here: go on there.
//   2. There is a next segment, but it says that its predecessor went on: the bytes between were
//      durable before the next segment's header was written, and are damaged. Refuse.
//   3. There is no next segment. If a valid record further on in this segment says that this place
//      had been durable: damaged, refuse. Else this is the torn or clean end of the log.
// A segment whose header is damaged, but that holds a valid record from the cut on, is damaged too.
// And the mark must not know of a newer segment, or of a later end, than was found; nor may the
// manifest know of a later one (w->reached).
//
// Recovery changes nothing on disk before it has found everything in order. Then it overwrites the
// rest of a torn write behind the end, which could else pass for a record, since the log goes on
// there. It makes the replayed records durable, too: after the death of a process they may be in
// the kernel's cache only, and later records will say that they were durable. It writes the part
// that nothing vouches for again, because after a failed write the kernel may take bytes for clean,
// and not sync them, that never got to the disk.
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "platform/directory.h"
#include "platform/log.h"
#include "platform/memory.h"
#include "platform/path.h"
#include "wal/wal_internal.h"

#define HUGE_PAGE_BYTES (2u << 20)

struct recovery {
    struct wal *w;
    struct lsn cut;
    wal_replay *replay;
    void *argument;
    struct buffer *error;
    enum wal_mark_state mark;
    bool has_mark; // as segments of ours say
    uint32_t newest_epoch;
    uint64_t highest_end; // one past the highest LSN of any segment
    struct lsn durable;   // all below was on stable storage, as records say
    uint64_t seen;        // the log went so far, as valid records and headers of segments show
    uint64_t ranges_end;  // where the newest of our segments ends; 0: there is none
    uint8_t *bytes;       // of the segment read last: the newest one, after the walk
    uint64_t bytes_room;
    uint64_t torn_end; // in it: the end of torn bytes behind the end of the log
    bool mended;       // it has been written to
    bool look_only;
    uint64_t replayed;
    struct list_node unneeded; // files to be removed when all is well
};

// Has the kernel begin to read a segment that will be needed soon, so that the disk works while
// records are replayed. A hint only: whether it is taken changes nothing but the time.
static void
read_ahead(const struct wal_segment *s)
{
    int rc = posix_fadvise(s->fd, 0, (off_t)s->bytes, POSIX_FADV_WILLNEED);
    if (rc != 0)
        log_debug("wal.read_ahead", "not taken: %s", strerror(rc));
}

// The bytes of a segment, into r->bytes. Read, not mapped: a bad sector is an error then, and not
// the end of the process. One buffer serves all segments, so that the kernel has not to hand out
// and clear as much memory as there is log.
static int
read_segment(struct recovery *r, const struct wal_segment *s)
{
    if (s->bytes > r->bytes_room) {
        free(r->bytes);
        r->bytes = memory_alloc_aligned(HUGE_PAGE_BYTES, s->bytes);
        r->bytes_room = s->bytes;
        // Fewer faults; a hint only.
        if (madvise(r->bytes, s->bytes, MADV_HUGEPAGE) < 0)
            log_debug("wal.huge_pages", "not taken: %s", strerror(errno));
    }
    read_ahead(s); // all at once: a disk is faster with many requests than with one after another
    int rc = file_read_exact_at(r->w->ops, s->fd, r->bytes, s->bytes, 0);
    if (rc == 0)
        return 0;
    CLEANUP(memory_free_auto) char *path = wal_segment_path(r->w, s->file_number);
    log_error("wal.recovery_failed", "cannot read %s: %s", path, strerror(-rc));
    return rc;
}

static struct wal_segment *
newest_segment(const struct recovery *r)
{
    if (list_is_empty(&r->w->live))
        return NULL;
    return CONTAINER_OF(r->w->live.previous, struct wal_segment, node);
}

// Looks at the bytes behind the last record: whether a valid record there says that the place
// `from` was durable, and where the bytes end that might be taken for records.
static bool
was_durable(const struct wal_segment *s, const uint8_t *map, uint32_t epoch, uint64_t from,
    uint64_t *torn_end_out)
{
    struct wal_record_header h;
    *torn_end_out = from;
    for (uint64_t at = from; at + WAL_RECORD_HEADER <= s->bytes; at += WAL_RECORD_ALIGN) {
        struct lsn lsn = {s->start.v + at};
        if (get_le64(map + at + 8) != lsn.v)
            continue;
        *torn_end_out = at + WAL_RECORD_HEADER;
        if (wal_record_decode(map + at, s->bytes - at, lsn, epoch, &h) == 0 &&
            h.durable.v > s->start.v + from)
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

// ---- the mark -----------------------------------------------------------------------------------

// A segment file does not hold the records that the mark says it held.
static int
contradicted(struct recovery *r, const char *how)
{
    const struct wal_mark *m = &r->w->mark;
    CLEANUP(memory_free_auto) char *mark = wal_mark_path(r->w);
    CLEANUP(memory_free_auto) char *path = wal_segment_path(r->w, m->file_number);
    buffer_clear(r->error);
    buffer_printf(r->error,
        "the write-ahead log is damaged: %s %s; it held the log from LSN %" PRIu64 " to %" PRIu64
        " at least, so acknowledged changes would be lost. Nothing was changed. Restore the file; "
        "or move the storage root away to go back to the last published generation; or, to go on "
        "with the rest, write the word accept into %s",
        path, how, m->start.v, m->end.v, mark);
    log_error("wal.damaged", "%s", buffer_string(r->error));
    return -EBADMSG;
}

static int
without_mark(struct recovery *r, const char *how)
{
    CLEANUP(memory_free_auto) char *mark = wal_mark_path(r->w);
    buffer_clear(r->error);
    buffer_printf(r->error,
        "the write-ahead log is damaged: %s %s, so it cannot be told whether the newest segment is "
        "there. Nothing was changed. Restore the file; or move the storage root away to go back to "
        "the last published generation; or, if no segment file was lost, write the word accept "
        "into it",
        mark, how);
    log_error("wal.damaged", "%s", buffer_string(r->error));
    return -EBADMSG;
}

static int
newer_version(struct recovery *r, const char *path)
{
    buffer_clear(r->error);
    buffer_printf(r->error, "%s was written by a newer version of ckptfs", path);
    return -ENOTSUP;
}

static int
load_mark(struct recovery *r)
{
    struct wal *w = r->w;
    CLEANUP(memory_free_auto) char *path = wal_mark_path(w);
    int rc = wal_mark_load(w, &r->mark);
    if (rc == -EBADMSG)
        return without_mark(r, "does not hold together");
    if (rc == -ENOTSUP)
        return newer_version(r, path);
    if (r->mark == WAL_MARK_WAIVED)
        log_warning("wal.mark_waived", "%s: the segments are taken as they are", path);
    if (w->mark.epoch > r->newest_epoch)
        r->newest_epoch = w->mark.epoch;
    if (w->mark.segment_bytes > 0)
        w->next_file_number = w->mark.file_number + 1;
    return rc;
}

static bool
mark_is_needed(const struct recovery *r)
{
    const struct wal_mark *m = &r->w->mark;
    return m->segment_bytes > 0 && m->start.v + m->segment_bytes > r->cut.v;
}

// Before the walk: the newest segment that was begun must be there, or a newer one.
static int
check_newest(struct recovery *r)
{
    if (r->mark == WAL_MARK_MISSING && r->has_mark)
        return without_mark(r, "is missing");
    const struct wal_segment *newest = newest_segment(r);
    if (!mark_is_needed(r) || (newest && newest->start.v >= r->w->mark.start.v))
        return 0;
    CLEANUP(memory_free_auto) char *path = wal_segment_path(r->w, r->w->mark.file_number);
    return contradicted(
        r, path_exists(path) == 0 ? "is missing" : "has lost its header and its records");
}

// After the walk.
static int
check_end(struct recovery *r, uint64_t end)
{
    return mark_is_needed(r) && end < r->w->mark.end.v
               ? contradicted(r, "has records that do not match their checksums")
               : 0;
}

// After the walk: the log must go as far as it did when the cut was recorded. Recovery reads
// nothing of segments below the cut, and the newest one may be gone if it lies there.
static int
check_reached(struct recovery *r)
{
    const struct wal *w = r->w;
    const struct wal_mark *m = &w->mark;
    uint64_t seen = r->seen > r->durable.v ? r->seen : r->durable.v;
    uint64_t ranges_end = r->ranges_end;
    if (m->end.v > seen)
        seen = m->end.v;
    if (m->start.v + m->segment_bytes > ranges_end)
        ranges_end = m->start.v + m->segment_bytes;
    if (seen >= w->reached.v || r->mark == WAL_MARK_WAIVED)
        return 0;
    if (ranges_end <= r->cut.v && ranges_end >= w->reached.v)
        return 0;
    CLEANUP(memory_free_auto) char *mark = wal_mark_path(w);
    buffer_clear(r->error);
    buffer_printf(r->error,
        "the write-ahead log in %s ends at LSN %" PRIu64
        ", and the newest local generation was made when it had reached LSN %" PRIu64
        ": it has lost its end or is an older copy, so acknowledged changes would be lost. Nothing "
        "was changed. Restore the directory; or move the storage root away to go back to the last "
        "published generation; or, to go on with that local generation, write the word accept into "
        "%s",
        w->directory, seen, w->reached.v, mark);
    log_error("wal.damaged", "%s", buffer_string(r->error));
    return -EBADMSG;
}

// ---- segments -----------------------------------------------------------------------------------

// A segment whose header does not decode: free to use (one whose new header was torn, or a new one
// of an older version), unless it holds records that lie behind the cut.
static int
check_headerless(struct recovery *r, const struct wal_segment *s)
{
    int rc = read_segment(r, s);
    if (rc < 0)
        return rc;
    const uint8_t *bytes = r->bytes;
    for (uint64_t at = WAL_SEGMENT_HEADER_BYTES; rc == 0 && at + WAL_RECORD_HEADER <= s->bytes;
         at += WAL_RECORD_ALIGN) {
        struct wal_record_header h;
        struct lsn lsn = {get_le64(bytes + at + 8)};
        bool possible = lsn.v >= at && (lsn.v - at) % WAL_SEGMENT_HEADER_BYTES == 0 &&
                        lsn.v >= r->cut.v && lsn.v <= (uint64_t)INT64_MAX;
        if (possible && wal_record_decode(bytes + at, s->bytes - at, lsn, 0, &h) == 0)
            rc = damaged(r, s, lsn.v - at, "a segment's header does not match its checksum");
    }
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

// Reads and judges the header. 0 with `h_out` (all zero when there is none and none is missed).
static int
load_header(struct recovery *r, const struct wal_segment *s, struct wal_segment_header *h_out)
{
    *h_out = (struct wal_segment_header){0};
    if (s->bytes <= WAL_SEGMENT_HEADER_BYTES + WAL_RECORD_HEADER)
        return damaged(r, s, r->cut.v, "the file is shorter than any segment is made");
    uint8_t header[WAL_SEGMENT_HEADER_BYTES];
    int rc = file_read_exact_at(r->w->ops, s->fd, header, sizeof(header), 0);
    if (rc < 0)
        return rc;
    rc = wal_segment_header_decode(header, h_out);
    if (rc == -ENOTSUP) {
        CLEANUP(memory_free_auto) char *path = wal_segment_path(r->w, s->file_number);
        return newer_version(r, path);
    }
    if (rc == -EBADMSG) {
        *h_out = (struct wal_segment_header){0};
        return wal_is_spare_header(header) ? 0 : check_headerless(r, s);
    }
    if (h_out->segment_bytes > s->bytes && uuid_equal(&h_out->volume, &r->w->volume) &&
        h_out->start.v + h_out->segment_bytes > r->cut.v)
        return damaged(r, s, h_out->start.v + s->bytes, "the file is shorter than it was made");
    return 0;
}

static void
note_seen(struct recovery *r, uint64_t lsn)
{
    if (lsn > r->seen)
        r->seen = lsn;
}

// All before a segment was durable before its header was.
static void
note_header(struct recovery *r, const struct wal_segment_header *h)
{
    uint64_t end = h->start.v + h->segment_bytes;
    if (end > r->ranges_end)
        r->ranges_end = end;
    note_seen(r, h->start.v);
    note_seen(r, h->prior_end.v);
}

static int
load_segment(struct recovery *r, uint32_t file_number)
{
    struct wal *w = r->w;
    CLEANUP(memory_free_auto) char *path = wal_segment_path(w, file_number);
    int fd = file_open(w->ops, path, O_RDWR, 0);
    if (fd < 0) {
        log_error("wal.recovery_failed", "cannot open %s: %s", path, strerror(-fd));
        return fd;
    }
    uint64_t bytes = 0;
    int rc = file_size(fd, &bytes);
    struct wal_segment *s = wal_segment_new(fd, file_number, bytes);
    struct wal_segment_header h = {0};
    if (rc == 0)
        rc = load_header(r, s, &h);
    if (rc < 0) {
        wal_segment_free(s);
        return rc;
    }
    if (file_number >= w->next_file_number)
        w->next_file_number = file_number + 1;
    // From any writer: new records must not have the epoch of the segment's old ones.
    if (h.epoch > r->newest_epoch)
        r->newest_epoch = h.epoch;
    uint64_t end = h.start.v + h.segment_bytes;
    bool ours = h.segment_bytes > 0 && uuid_equal(&h.volume, &w->volume);
    if (ours && end > r->highest_end)
        r->highest_end = end;
    if (ours)
        note_header(r, &h);
    r->has_mark = r->has_mark || (ours && h.has_mark);
    if (ours && end > r->cut.v) {
        s->epoch = h.epoch;
        s->start = h.start;
        s->prior_end = h.prior_end;
        s->bytes = h.segment_bytes;
        s->header_written = true;
        insert_by_start(&w->live, s);
        w->segment_count++;
    } else {
        list_append(bytes == w->segment_bytes ? &w->spares : &r->unneeded, &s->node);
    }
    return 0;
}

static bool
is_segment_name(const char *name, uint32_t *file_number_out)
{
    static const char prefix[] = "segment-";
    char again[32];
    if (strncmp(name, prefix, strlen(prefix)) != 0)
        return false;
    *file_number_out = (uint32_t)strtoul(name + strlen(prefix), NULL, 16);
    snprintf(again, sizeof(again), "%s%08x", prefix, *file_number_out);
    return strcmp(name, again) == 0;
}

static int
load_name(void *argument, const char *name)
{
    uint32_t number;
    return is_segment_name(name, &number) ? load_segment(argument, number) : 0;
}

static int
load_segments(struct recovery *r)
{
    int rc = path_exists(r->w->directory);
    if (rc <= 0)
        return rc < 0 ? rc : -ENOENT;
    return directory_walk(r->w->directory, load_name, r);
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
        .piece_crcs = p + WAL_RECORD_HEADER,
    };
    r->replayed++;
    r->w->append = r->w->flushed = record.end; // may be read back meanwhile
    return r->replay(r->argument, &record);
}

// A record below the cut does not verify. Those behind it, up to the cut, are not needed, but show
// how far the log went.
static void
note_below_cut(struct recovery *r, const struct wal_segment *s, const uint8_t *map, uint32_t epoch,
    uint64_t at)
{
    struct wal_record_header h;
    for (; at + WAL_RECORD_HEADER <= s->bytes && s->start.v + at < r->w->reached.v;
         at += WAL_RECORD_ALIGN) {
        struct lsn lsn = {s->start.v + at};
        if (get_le64(map + at + 8) == lsn.v &&
            wal_record_decode(map + at, s->bytes - at, lsn, epoch, &h) == 0)
            note_seen(r, lsn.v + h.length);
    }
}

// Replays the records of one segment. *end_out is where the first byte that is not a valid record
// lies. Damaged records below the cut are not needed: the records go on at the cut.
static int
replay_segment(struct recovery *r, struct wal_segment *s, const uint8_t *map, uint32_t epoch,
    uint64_t *end_out)
{
    uint64_t at = WAL_SEGMENT_HEADER_BYTES;
    uint64_t cut = r->cut.v > s->start.v ? r->cut.v - s->start.v : 0;
    struct wal_record_header h;
    for (;;) {
        struct lsn lsn = {s->start.v + at};
        if (wal_record_decode(map + at, s->bytes - at, lsn, epoch, &h) == 0) {
            int rc = at >= cut ? replay_record(r, map + at, &h) : 0;
            if (rc < 0)
                return rc;
            at += h.length;
            note_seen(r, s->start.v + at);
            if (h.durable.v > r->durable.v)
                r->durable = h.durable;
        } else if (at < cut && cut < s->bytes) {
            note_below_cut(r, s, map, epoch, at);
            at = cut;
        } else {
            break;
        }
    }
    *end_out = at;
    return 0;
}

static int
walk_segment(struct recovery *r, struct wal_segment *s)
{
    struct wal_segment_header header;
    struct wal_segment *next =
        s->node.next == &r->w->live ? NULL : CONTAINER_OF(s->node.next, struct wal_segment, node);
    int rc = read_segment(r, s);
    if (rc < 0)
        return rc;
    if (next)
        read_ahead(next);
    const uint8_t *map = r->bytes;
    uint64_t end = 0;
    rc = wal_segment_header_decode(map, &header);
    if (rc == 0)
        rc = replay_segment(r, s, map, header.epoch, &end);
    s->end.v = s->start.v + end;
    if (rc == 0 && next && next->prior_end.v != s->end.v && next->prior_end.v > r->cut.v)
        rc = damaged(r, s, s->end.v,
            next->prior_end.v > s->end.v ? "records that a later segment builds on do not match "
                                           "their checksums"
                                         : "the next segment does not continue this one");
    if (rc == 0 && !next && was_durable(s, map, header.epoch, end, &r->torn_end))
        rc = damaged(r, s, s->end.v, "a record does not match its checksum although later ones do");
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
        return damaged(
            r, first, r->cut.v, "the segment file before this one is missing or is none any more");
    return 0;
}

// ---- everything is in order ---------------------------------------------------------------------

// Where the part of the newest segment begins that no record or mark says was durable. Records in
// it show that its header was.
static uint64_t
vouched_end(const struct recovery *r, const struct wal_segment *s)
{
    const struct wal_mark *m = &r->w->mark;
    uint64_t bound = r->durable.v > m->end.v ? r->durable.v : m->end.v;
    // A mark that says no more than that the segment was begun may itself never have got anywhere.
    if (bound <= s->start.v + WAL_SEGMENT_HEADER_BYTES)
        return 0;
    return bound < s->end.v ? bound - s->start.v : s->end.v - s->start.v;
}

// Writes the end of the log again, and zeros over the rest of a torn write behind it, which would
// be of the epoch and in the place of new records.
static int
mend_end(struct recovery *r)
{
    const struct wal_segment *s = newest_segment(r);
    if (!s)
        return 0;
    uint64_t from = vouched_end(r, s);
    uint64_t end = s->end.v - s->start.v;
    uint64_t to = r->torn_end > end ? r->torn_end : end;
    if (from == to)
        return 0;
    memset(r->bytes + end, 0, to - end);
    int rc = file_write_durable_at(r->w->ops, s->fd, r->bytes + from, to - from, from);
    r->mended = rc == 0;
    if (rc < 0) {
        CLEANUP(memory_free_auto) char *path = wal_segment_path(r->w, s->file_number);
        log_error("wal.recovery_failed", "cannot write the end of %s: %s", path, strerror(-rc));
    }
    return rc;
}

// Makes the mark name the recovered end, because new records will follow it.
static int
settle_mark(struct recovery *r)
{
    struct wal *w = r->w;
    const struct wal_segment *newest = newest_segment(r);
    if (w->mark_fd < 0) {
        int rc = wal_mark_create(w);
        if (rc < 0)
            return rc;
    }
    if (r->mended)
        w->mark.end.v = 0; // in any case again: the last process may have failed to write it
    int rc = newest ? wal_mark_advance(w, newest, newest->end) : 0;
    if (rc < 0) {
        CLEANUP(memory_free_auto) char *path = wal_mark_path(w);
        log_error("wal.recovery_failed", "cannot write %s: %s", path, strerror(-rc));
    }
    return rc;
}

// Syncs the replayed records, removes files that are of no use, and makes the names of the others
// durable.
static int
settle(struct recovery *r)
{
    struct wal *w = r->w;
    int mended = mend_end(r);
    if (mended < 0)
        return mended;
    LIST_FOR_EACH(&w->live, n)
    {
        struct wal_segment *s = CONTAINER_OF(n, struct wal_segment, node);
        int rc = w->ops->fdatasync(s->fd);
        if (rc < 0) {
            CLEANUP(memory_free_auto) char *path = wal_segment_path(w, s->file_number);
            log_error("wal.recovery_failed", "cannot sync %s: %s", path, strerror(-rc));
            return rc;
        }
    }
    LIST_FOR_EACH(&w->spares, n)
    {
        if (w->segment_count < w->segments_max) {
            w->segment_count++;
            continue;
        }
        list_remove(n);
        list_append(&r->unneeded, n);
    }
    for (struct list_node *n; (n = list_take_first(&r->unneeded));)
        wal_segment_remove(w, CONTAINER_OF(n, struct wal_segment, node));
    // A process that died while it made a segment leaves a file whose name is not durable yet.
    int rc = file_sync_directory(w->ops, w->directory);
    if (rc < 0)
        log_error("wal.recovery_failed", "cannot sync %s: %s", w->directory, strerror(-rc));
    return rc == 0 ? settle_mark(r) : rc;
}

static int
recover(struct recovery *r, uint64_t *end_out)
{
    int rc = load_mark(r);
    if (rc == 0)
        rc = load_segments(r);
    if (rc == 0)
        rc = check_beginning(r);
    if (rc == 0)
        rc = check_newest(r);
    *end_out = r->cut.v;
    for (struct list_node *n = r->w->live.next; rc == 0 && n != &r->w->live; n = n->next) {
        struct wal_segment *s = CONTAINER_OF(n, struct wal_segment, node);
        rc = walk_segment(r, s);
        if (s->end.v > *end_out)
            *end_out = s->end.v;
    }
    if (rc == 0)
        rc = check_end(r, *end_out);
    if (rc == 0)
        rc = check_reached(r);
    return rc == 0 && !r->look_only ? settle(r) : rc;
}

// The log goes on where it ends, in the newest segment; if there is none, or it has not the present
// size, in one above everything that any segment may have held.
static void
go_on(struct recovery *r, uint64_t end)
{
    struct wal *w = r->w;
    struct wal_segment *newest = newest_segment(r);
    uint64_t next = r->highest_end > end ? r->highest_end : end;
    w->epoch = r->newest_epoch + 1;
    w->append.v =
        (next + WAL_SEGMENT_HEADER_BYTES - 1) / WAL_SEGMENT_HEADER_BYTES * WAL_SEGMENT_HEADER_BYTES;
    if (newest && newest->bytes == w->segment_bytes && end % WAL_RECORD_ALIGN == 0) {
        w->append = newest->end;
        newest->end.v = 0;
    }
    w->flushed = w->append;
    w->released = r->cut;
    w->last_end.v = end;
}

static int
replay_nothing(void *argument, const struct wal_replayed *record)
{
    (void)argument;
    (void)record;
    return 0;
}

// The segments must hold the cut. (Recovery itself is content with a log that has nothing above
// it: segments that lie below the cut may be gone, and new ones may not have been begun.)
static int
check_reach(struct recovery *r)
{
    const struct wal *w = r->w;
    const struct wal_segment *first =
        list_is_empty(&w->live) ? NULL : CONTAINER_OF(w->live.next, struct wal_segment, node);
    bool below = r->highest_end == r->cut.v && r->cut.v > 0; // all end at the cut or below
    if (first && (first->start.v <= r->cut.v || first->prior_end.v > 0))
        return 0; // check_beginning has compared the end of the one before with the cut
    if (first ? r->cut.v == 0 && first->prior_end.v == 0 : below && w->mark.end.v == r->cut.v)
        return 0;
    buffer_clear(r->error);
    buffer_printf(
        r->error, "the write-ahead log in %s does not hold LSN %" PRIu64, w->directory, r->cut.v);
    return -EBADMSG;
}

int
wal_look(struct wal *w, struct lsn cut, struct lsn *end_out, struct buffer *error)
{
    struct recovery r = {
        .w = w,
        .cut = cut,
        .replay = replay_nothing,
        .error = error,
        .highest_end = cut.v,
        .look_only = true,
    };
    list_init(&r.unneeded);
    uint64_t end;
    int rc = recover(&r, &end);
    if (rc == 0)
        rc = check_reach(&r);
    *end_out = rc == 0 && end > cut.v ? (struct lsn){end} : cut;
    for (struct list_node *n; (n = list_take_first(&r.unneeded));)
        wal_segment_free(CONTAINER_OF(n, struct wal_segment, node));
    free(r.bytes);
    return rc;
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
    list_init(&r.unneeded);
    uint64_t end;
    int rc = recover(&r, &end);
    for (struct list_node *n; (n = list_take_first(&r.unneeded));)
        wal_segment_free(CONTAINER_OF(n, struct wal_segment, node));
    free(r.bytes);
    if (rc < 0)
        return rc;
    go_on(&r, end);
    struct log_event e;
    log_begin(&e, LOG_LEVEL_INFO, "wal.recovered");
    log_u64(&e, "cut", cut.v);
    log_u64(&e, "end", end);
    log_u64(&e, "records", r.replayed);
    log_u64(&e, "epoch", w->epoch);
    log_end(&e);
    return 0;
}
