// SPDX-License-Identifier: Apache-2.0
// Chunks whose images on this host cannot be read. Merging deltas and making a new base are there
// to save room and time, so one damaged image must not keep a fold from taking all other writes:
// the fold is planned again without the images of that chunk. The next fold that has something to
// do with the chunk tries once more: pages that have been overwritten since are not read from old
// images, so a merge that needs none of the damaged ones takes the damaged image out of the chunk.
#include <stdlib.h>

#include "checkpoint/checkpoint_internal.h"
#include "platform/log.h"
#include "platform/memory.h"

static size_t
find(const struct checkpoint *c, struct object_id object, struct chunk_index index)
{
    size_t i = 0;
    while (i < c->fold.unreadable_count &&
           (c->fold.unreadable[i].object.v != object.v || c->fold.unreadable[i].index.v != index.v))
        i++;
    return i;
}

void
checkpoint_note_unreadable(struct checkpoint *c, const struct chunk_action *action)
{
    if (find(c, action->object, action->index) < c->fold.unreadable_count)
        return;
    size_t n = c->fold.unreadable_count + 1;
    c->fold.unreadable = memory_realloc(c->fold.unreadable, n * sizeof(*c->fold.unreadable));
    c->fold.unreadable[c->fold.unreadable_count++] =
        (struct unreadable_chunk){.object = action->object, .index = action->index};
    struct log_event e;
    log_begin(&e, LOG_LEVEL_WARNING, "checkpoint.image_unreadable");
    log_u64(&e, "object", action->object.v);
    log_u64(&e, "chunk", action->index.v);
    log_string(&e, "message",
        "an image of the chunk cannot be read; the checkpoint writes the changes without it");
    log_end(&e);
}

bool
checkpoint_avoids_images(
    const struct checkpoint *c, struct object_id object, struct chunk_index index)
{
    return c->fold.avoid_images || find(c, object, index) < c->fold.unreadable_count;
}
