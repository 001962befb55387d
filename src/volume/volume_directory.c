// SPDX-License-Identifier: Apache-2.0
// Reading directories: entries of the tables and of both layers, merged in the order of their
// cookies, a batch at a time. An entry's offset is its cookie, so it stays where it is while others
// come and go.
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "platform/memory.h"
#include "volume/volume_attributes.h"
#include "volume/volume_internal.h"

#define BATCH_ENTRIES 256u

struct entries {
    struct dirent_record list[BATCH_ENTRIES]; // own their names
    unsigned count;
};

static void
keep_entry(struct entries *e, const struct dirent_record *d)
{
    char *name = memory_alloc(d->name_length + 1u);
    memcpy(name, d->name, d->name_length);
    name[d->name_length] = 0;
    e->list[e->count] = *d;
    e->list[e->count++].name = name;
}

static void
free_entries(struct entries *e)
{
    for (unsigned i = 0; i < e->count; i++)
        free((char *)e->list[i].name);
    e->count = 0;
}

static int
keep_base_entry(void *argument, const struct dirent_record *d)
{
    struct entries *e = argument;
    if (e->count == BATCH_ENTRIES)
        return 1;
    keep_entry(e, d);
    return 0;
}

// The entry at the lowest cookie >= from among the three sources; an entry of a higher layer hides
// one of a lower. False when there is none.
static bool
next_merged(struct volume *v, struct object_id directory, const struct entries *base,
    unsigned *base_at, uint64_t from, struct dirent_record *out, bool *deleted)
{
    const struct namespace_dirent *active = namespace_set_next_dirent(v->names, directory, from);
    const struct namespace_dirent *frozen =
        v->frozen_names ? namespace_set_next_dirent(v->frozen_names, directory, from) : NULL;
    while (*base_at < base->count && base->list[*base_at].cookie < from)
        ++*base_at;
    const struct dirent_record *below = *base_at < base->count ? &base->list[*base_at] : NULL;
    uint64_t lowest = UINT64_MAX;
    if (active)
        lowest = active->dirent.cookie;
    if (frozen && frozen->dirent.cookie < lowest)
        lowest = frozen->dirent.cookie;
    if (below && below->cookie < lowest)
        lowest = below->cookie;
    if (lowest == UINT64_MAX)
        return false;
    *deleted = false;
    if (active && active->dirent.cookie == lowest) {
        *out = active->dirent;
        *deleted = active->deleted;
    } else if (frozen && frozen->dirent.cookie == lowest) {
        *out = frozen->dirent;
        *deleted = frozen->deleted;
    } else {
        *out = *below;
    }
    return true;
}

// Merges up to BATCH_ENTRIES. Where the batch of the tables was cut, the merge stops at its end.
static void
merge_locked(struct volume *v, struct object_id directory, uint64_t from,
    const struct entries *base, bool base_cut, struct entries *out, uint64_t *next_out)
{
    uint64_t limit = base_cut ? base->list[base->count - 1].cookie : UINT64_MAX - 1;
    unsigned base_at = 0;
    struct dirent_record d;
    bool deleted;
    *next_out = UINT64_MAX;
    while (next_merged(v, directory, base, &base_at, from, &d, &deleted) && d.cookie <= limit) {
        if (out->count == BATCH_ENTRIES) {
            *next_out = d.cookie;
            return;
        }
        if (!deleted)
            keep_entry(out, &d);
        from = d.cookie + 1;
    }
    if (base_cut)
        *next_out = limit + 1;
}

static int
read_batch(struct volume *v, struct object_id directory, uint64_t from, struct entries *out,
    uint64_t *next_out)
{
    struct entries *base = memory_alloc(sizeof(*base));
    base->count = 0;
    int rc = 0;
    for (bool same = false; rc == 0 && !same;) {
        lock_take(&v->lock);
        uint64_t version = v->version;
        lock_release(&v->lock);
        free_entries(base);
        struct manifest_reader *r;
        rc = manifest_read_begin(v->manifest, &r);
        if (rc < 0)
            break;
        rc = manifest_read_dirents(r, v->db, directory, from, UINT64_MAX, keep_base_entry, base);
        manifest_read_end(r);
        if (rc < 0)
            break;
        bool cut = rc == 1;
        rc = 0;
        lock_take(&v->lock);
        same = version == v->version;
        if (same)
            merge_locked(v, directory, from, base, cut, out, next_out);
        lock_release(&v->lock);
    }
    free_entries(base);
    free(base);
    return rc;
}

static int
give_entry(struct volume *v, const struct dirent_record *d, bool with_attributes,
    volume_visit_entry *visit, void *argument)
{
    struct volume_attributes a = {.object = d->object};
    a.inode.mode = (uint32_t)d->type << 12;
    if (with_attributes) {
        int rc = volume_get_attributes(v, d->object, &a);
        if (rc == -ENOENT)
            return 0; // unlinked since the batch was read
        if (rc < 0)
            return rc;
    }
    return visit(argument, d->name, d->name_length, d->cookie, &a);
}

int
volume_read_directory(struct volume *v, struct object_id directory, uint64_t from,
    bool with_attributes, volume_visit_entry *visit, void *argument)
{
    struct entries *batch = memory_alloc(sizeof(*batch));
    batch->count = 0;
    // Offsets are cookies of entries that were given; go on behind them.
    uint64_t next = from == 0 ? 0 : from + 1;
    int rc = 0;
    while (rc == 0 && next != UINT64_MAX) {
        free_entries(batch);
        rc = read_batch(v, directory, next, batch, &next);
        for (unsigned i = 0; rc == 0 && i < batch->count; i++)
            rc = give_entry(v, &batch->list[i], with_attributes, visit, argument);
    }
    free_entries(batch);
    free(batch);
    return rc > 0 ? 0 : rc;
}
