// SPDX-License-Identifier: Apache-2.0
// ColdScan: reads that leave the caches as they are.
#include <stdlib.h>

#include "format/fetch_mark.h"
#include "platform/clock.h"
#include "platform/memory.h"
#include "volume/volume_internal.h"

// 2 MiB: as much as a request of the read-ahead.
#define WINDOW_PAGES 512u

struct volume_scan {
    struct volume *v;
    struct page_trickle *trickle;
};

struct volume_scan *
volume_scan_begin(struct volume *v)
{
    static const struct cold_scan_options options = {.window_pages = WINDOW_PAGES};
    struct volume_scan *scan = memory_alloc_zero(sizeof(*scan));
    scan->v = v;
    scan->trickle = page_trickle_new(&options);
    atomic_fetch_add(&v->scans, 1);
    return scan;
}

void
volume_scan_end(struct volume_scan *scan)
{
    if (!scan)
        return;
    atomic_fetch_sub(&scan->v->scans, 1);
    page_trickle_free(scan->trickle);
    free(scan);
}

int
volume_read_scanned(struct volume_scan *scan, struct object_id object, uint64_t offset,
    size_t length, uint8_t *out, const struct remote_call *call)
{
    int rc = page_store_read_page_trickle(
        scan->v->pages, scan->trickle, object, offset, length, out, call);
    if (rc == 0) {
        atomic_fetch_add(&scan->v->scan_bytes, length);
        atomic_store(&scan->v->scan_ms, clock_monotonic_ms());
    }
    return rc;
}

// ---- which files --------------------------------------------------------------------------------

void
volume_load_flags(struct volume *v)
{
    unsigned flags;
    if (volume_get_flags(v, &flags) < 0)
        flags = DB_FLAGS_DEFAULT;
    atomic_store(&v->flags, flags);
}

bool
volume_may_scan(const struct volume *v)
{
    return atomic_load(&v->flags) & DB_FLAG_COLD_SCAN;
}

struct find_mark {
    struct object_id object;
    uint8_t mark;
};

static int
find_mark(struct view *view, void *argument)
{
    struct find_mark *x = argument;
    struct inode_record inode;
    int rc = view_inode(view, x->object, &inode);
    if (rc == 0)
        x->mark = fetch_mark_decode(inode.extension, inode.extension_length);
    return rc;
}

bool
volume_is_scanned(struct volume *v, struct object_id object)
{
    struct find_mark x = {.object = object};
    if (!volume_may_scan(v))
        return false;
    if (atomic_load(&v->flags) & DB_FLAG_COLD_SCAN_ALL)
        return true;
    return volume_look(v, find_mark, &x) == 0 && (x.mark & FETCH_MARK_COLD_SCAN);
}

// ---- CheckpointGC -------------------------------------------------------------------------------

// A scan that reads nothing for so long holds nothing up.
#define HOLD_IDLE_MS 60000u
#define HOLD_MAX_MS  3600000u

bool
volume_scans_hold_collection(struct volume *v, uint64_t now_ms)
{
    bool reads = atomic_load(&v->scans) > 0 && now_ms < atomic_load(&v->scan_ms) + HOLD_IDLE_MS;
    uint64_t since = atomic_load(&v->scan_held_ms);
    if (reads && since == 0)
        atomic_store(&v->scan_held_ms, since = now_ms);
    bool holds = reads && now_ms < since + HOLD_MAX_MS;
    if (!holds)
        atomic_store(&v->scan_held_ms, 0);
    return holds;
}

// ---- pins ---------------------------------------------------------------------------------------

struct pin *
volume_begin_pin(struct volume *v)
{
    return pin_begin(local_store_pins(v->local), "a reader", "its file is to stay in hot_cache");
}

// ---- numbers ------------------------------------------------------------------------------------

void
volume_scan_metrics(struct volume *v, struct metrics *m)
{
    m->cold_scans = atomic_load(&v->scans);
    m->cold_scan_bytes = atomic_load(&v->scan_bytes);
    m->cold_reads = atomic_load(&v->cold_reads);
}
