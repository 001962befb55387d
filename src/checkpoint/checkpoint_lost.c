// SPDX-License-Identifier: Apache-2.0
// Which pages of a chunk are lost (format/records.h: chunk_damage), from the image that is being
// written to the manifest.
#include <stdlib.h>

#include "checkpoint/checkpoint_internal.h"
#include "platform/log.h"
#include "platform/memory.h"

void
lost_pages_begin(struct lost_pages *lost, const struct chunk_layout *layout)
{
    memset(lost, 0, sizeof(*lost));
    for (size_t i = 0; layout && i < layout->lost_count; i++)
        for (uint32_t page = layout->lost[i].first; page < layout->lost[i].end; page++)
            lost_pages_set(lost, page, true);
}

uint32_t
lost_pages_count(const struct lost_pages *lost)
{
    uint32_t n = 0;
    for (size_t i = 0; i < ARRAY_LENGTH(lost->bits); i++)
        n += (uint32_t)__builtin_popcountll(lost->bits[i]);
    return n;
}

// The first lost page from there on, or CHUNK_PAGES. Nearly always there is none, and folds of many
// small files ask for each of them.
static uint32_t
next_lost(const struct lost_pages *lost, uint32_t page)
{
    while (page < CHUNK_PAGES) {
        uint64_t rest = lost->bits[page / 64] >> (page % 64);
        if (rest != 0)
            return page + (uint32_t)__builtin_ctzll(rest);
        page = (page / 64 + 1) * 64;
    }
    return CHUNK_PAGES;
}

void
lost_pages_cut(struct lost_pages *lost, uint32_t end)
{
    for (uint32_t page = next_lost(lost, end); page < CHUNK_PAGES; page = next_lost(lost, page))
        lost_pages_set(lost, page, false);
}

void
lost_pages_runs(const struct lost_pages *lost, struct lost_runs *runs_out)
{
    *runs_out = (struct lost_runs){0};
    uint32_t page = 0;
    for (uint32_t first; (first = next_lost(lost, page)) < CHUNK_PAGES;) {
        for (page = first; page < CHUNK_PAGES && lost_pages_has(lost, page);)
            page++;
        size_t n = runs_out->count + 1;
        runs_out->runs = memory_realloc(runs_out->runs, n * sizeof(*runs_out->runs));
        runs_out->runs[runs_out->count++] = (struct chunk_lost){first, page};
    }
}

// ---- telling the manifest -----------------------------------------------------------------------

struct update {
    struct manifest_batch *b;
    const struct lost_runs *now;
    struct generation generation;
    uint64_t first; // page of the chunk
    bool *known;    // for each run of `now`: the manifest has it already
};

static int
compare_old(void *argument, const struct chunk_damage *old)
{
    struct update *u = argument;
    uint32_t first = (uint32_t)(old->page.v - u->first);
    bool begins = false; // another run begins there, and takes the entry's place
    for (size_t i = 0; i < u->now->count; i++) {
        const struct chunk_lost *run = &u->now->runs[i];
        begins |= run->first == first;
        u->known[i] |= run->first == first && run->end == first + old->pages;
    }
    if (!begins) {
        struct change c = {.kind = CHANGE_DELETE_DAMAGE, .damage = *old};
        manifest_batch_change(u->b, &c, true, u->generation);
    }
    return 0;
}

int
checkpoint_put_lost(struct checkpoint *c, struct manifest_batch *b, struct manifest_reader *r,
    struct generation generation, const struct chunk_action *action, const struct lost_runs *now)
{
    struct update u = {
        .b = b, .now = now, .generation = generation, .first = action->index.v * CHUNK_PAGES};
    u.known = memory_alloc_zero(now->count * sizeof(*u.known));
    int rc = manifest_read_damage(
        r, c->options.db, action->object, u.first, u.first + CHUNK_PAGES, compare_old, &u);
    for (size_t i = 0; rc == 0 && i < now->count; i++) {
        const struct chunk_lost *run = &now->runs[i];
        struct change put = {.kind = CHANGE_PUT_DAMAGE,
            .damage = {action->object, {u.first + run->first}, run->end - run->first}};
        if (!u.known[i])
            manifest_batch_change(b, &put, true, generation);
    }
    free(u.known);
    return rc;
}

// One line a chunk: where the first lost bytes are, and how many there are.
void
checkpoint_log_lost(const struct staged_image *image)
{
    if (image->newly_lost == 0)
        return;
    const struct chunk_action *a = image->action;
    const struct chunk_lost *first = &image->lost.runs[0];
    uint64_t pages = 0;
    for (size_t i = 0; i < image->lost.count; i++)
        pages += image->lost.runs[i].end - image->lost.runs[i].first;
    struct log_event e;
    log_begin(&e, LOG_LEVEL_ERROR, "checkpoint.pages_lost");
    log_u64(&e, "object", a->object.v);
    log_u64(&e, "offset", (a->index.v * CHUNK_PAGES + first->first) * PAGE_BYTES);
    log_u64(&e, "length", (uint64_t)(first->end - first->first) * PAGE_BYTES);
    log_u64(&e, "ranges", image->lost.count);
    log_u64(&e, "bytes", pages * PAGE_BYTES);
    log_string(&e, "message",
        "bytes of this file (its inode number is the object) cannot be read any more: reading them "
        "fails until they are written anew or cut off, or the file is removed");
    log_end(&e);
}
