// SPDX-License-Identifier: Apache-2.0
#include "cache/part_heat.h"

#include <stdlib.h>

#include "base/hash_table.h"
#include "platform/lock.h"
#include "platform/memory.h"

#define SETS (HOT_PARTS_MAX / PART_HEAT_WAYS)

// `state` has the part, the level and the low bits of the second of the last use. Both words are
// relaxed atomics, and change under the lock alone. A reader without it may see them of two
// different parts: then it counts a use or not, which does no harm.
struct entry {
    uint64_t object; // 0: free
    uint64_t state;
};
#define SECOND_BITS 16
#define LEVEL_BITS  4
#define PART_SHIFT  (SECOND_BITS + LEVEL_BITS)

struct part_heat {
    struct lock lock; // "part_heat": protects all below against other writers
    uint64_t parts;
    uint64_t uses; // also read without the lock
    struct entry sets[SETS][PART_HEAT_WAYS];
};

static uint64_t
load(const uint64_t *word)
{
    return __atomic_load_n(word, __ATOMIC_RELAXED);
}

static void
store(struct entry *e, uint64_t object, uint64_t part, unsigned level, uint64_t second)
{
    uint64_t low = second & ((1u << SECOND_BITS) - 1);
    __atomic_store_n(
        &e->state, part << PART_SHIFT | (uint64_t)level << SECOND_BITS | low, __ATOMIC_RELAXED);
    __atomic_store_n(&e->object, object, __ATOMIC_RELAXED);
}

static uint64_t
part_of(uint64_t state)
{
    return state >> PART_SHIFT;
}

static unsigned
level_of(uint64_t state)
{
    return state >> SECOND_BITS & ((1u << LEVEL_BITS) - 1);
}

static void
set_level(struct entry *e, unsigned level)
{
    uint64_t state = load(&e->state);
    store(e, load(&e->object), part_of(state), level, state);
}

struct part_heat *
part_heat_new(void)
{
    struct part_heat *h = memory_alloc_zero(sizeof(*h));
    lock_init(&h->lock, "part_heat", LOCK_RANK_PLATFORM);
    return h;
}

void
part_heat_free(struct part_heat *h)
{
    if (!h)
        return;
    lock_destroy(&h->lock);
    free(h);
}

static struct entry *
set_of(struct part_heat *h, uint64_t object, uint64_t part)
{
    return h->sets[hash_u64_pair(object, part) % SETS];
}

static struct entry *
find(struct entry *set, uint64_t object, uint64_t part)
{
    for (unsigned i = 0; i < PART_HEAT_WAYS; i++)
        if (load(&set[i].object) == object && part_of(load(&set[i].state)) == part)
            return &set[i];
    return NULL;
}

// A place for a newcomer, or NULL: then all of the set are a level colder.
static struct entry *
make_room_locked(struct part_heat *h, struct entry *set)
{
    struct entry *coldest = NULL;
    for (unsigned i = 0; i < PART_HEAT_WAYS; i++) {
        if (load(&set[i].object) == 0) {
            h->parts++;
            return &set[i];
        }
        if (!coldest || level_of(load(&set[i].state)) < level_of(load(&coldest->state)))
            coldest = &set[i];
    }
    if (level_of(load(&coldest->state)) == 1)
        return coldest;
    for (unsigned i = 0; i < PART_HEAT_WAYS; i++)
        set_level(&set[i], level_of(load(&set[i].state)) - 1);
    return NULL;
}

static bool
was_used_in(const struct entry *e, uint64_t second)
{
    return ((load(&e->state) ^ second) & ((1u << SECOND_BITS) - 1)) == 0;
}

static void
note_part(struct part_heat *h, uint64_t object, uint64_t part, uint64_t now_s)
{
    struct entry *set = set_of(h, object, part);
    const struct entry *known = find(set, object, part);
    if (known && was_used_in(known, now_s))
        return;
    lock_take(&h->lock);
    struct entry *e = find(set, object, part);
    if (e) {
        unsigned level = level_of(load(&e->state));
        store(e, object, part, level < HOT_LEVEL_MAX ? level + 1 : level, now_s);
    } else if ((e = make_room_locked(h, set))) {
        store(e, object, part, 1, now_s);
    }
    __atomic_store_n(&h->uses, h->uses + 1, __ATOMIC_RELAXED);
    lock_release(&h->lock);
}

void
part_heat_note(struct part_heat *h, struct object_id object, struct page_no first, uint64_t count,
    uint64_t now_s)
{
    uint64_t end = (first.v + count + HOT_PART_PAGES - 1) / HOT_PART_PAGES;
    for (uint64_t part = first.v / HOT_PART_PAGES; part < end; part++)
        note_part(h, object.v, part, now_s);
}

static void
recall_part_locked(struct part_heat *h, const struct hot_run *run, uint64_t part)
{
    struct entry *set = set_of(h, run->object.v, part);
    if (find(set, run->object.v, part))
        return;
    struct entry *e = make_room_locked(h, set);
    if (e)
        store(e, run->object.v, part, (run->level + 1u) / 2, 0);
}

void
part_heat_recall(struct part_heat *h, const struct hot_set *set)
{
    lock_take(&h->lock);
    for (size_t i = 0; i < set->count; i++)
        for (uint32_t k = 0; k < set->runs[i].count; k++)
            recall_part_locked(h, &set->runs[i], set->runs[i].first + k);
    lock_release(&h->lock);
}

void
part_heat_cool(struct part_heat *h)
{
    lock_take(&h->lock);
    for (unsigned s = 0; s < SETS; s++)
        for (unsigned i = 0; i < PART_HEAT_WAYS; i++)
            if (load(&h->sets[s][i].object) != 0)
                set_level(&h->sets[s][i], (level_of(load(&h->sets[s][i].state)) + 1) / 2);
    lock_release(&h->lock);
}

void
part_heat_list(struct part_heat *h, struct hot_set *set_out)
{
    *set_out = (struct hot_set){.runs = memory_alloc(HOT_PARTS_MAX * sizeof(struct hot_run))};
    lock_take(&h->lock);
    for (unsigned s = 0; s < SETS; s++)
        for (unsigned i = 0; i < PART_HEAT_WAYS; i++) {
            uint64_t object = load(&h->sets[s][i].object);
            uint64_t state = load(&h->sets[s][i].state);
            if (object != 0)
                set_out->runs[set_out->count++] =
                    (struct hot_run){{object}, part_of(state), 1, (uint8_t)level_of(state)};
        }
    lock_release(&h->lock);
    hot_set_settle(set_out);
}

void
part_heat_numbers(struct part_heat *h, struct part_heat_numbers *numbers_out)
{
    lock_take(&h->lock);
    *numbers_out = (struct part_heat_numbers){h->parts, h->uses};
    lock_release(&h->lock);
}
