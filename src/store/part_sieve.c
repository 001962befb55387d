// SPDX-License-Identifier: Apache-2.0
#include "store/part_sieve.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/checksum.h"
#include "base/hash_table.h"
#include "platform/memory.h"

#define NONE UINT32_MAX

struct part_blob {
    struct hash_node node;
    struct sha256 hash;
    uint32_t count;    // parts in the queue
    uint32_t capacity; // of entries
    uint32_t *entries; // by part; NONE: not in the queue
};

struct entry {
    struct part_blob *blob; // NULL: free
    uint32_t part;
    uint32_t newer : 31; // of a free one: the next free one
    uint32_t used : 1;
    uint32_t older;
};
#define NEWEST 0x7fffffffu // `newer` of the newest one

struct part_sieve {
    struct entry *entries;
    uint32_t capacity;
    uint32_t free;
    uint32_t newest, oldest, hand; // NONE: there is none; the hand is at the oldest
    size_t count;
    struct hash_table blobs;
};

struct part_sieve *
part_sieve_new(void)
{
    struct part_sieve *s = memory_alloc_zero(sizeof(*s));
    s->free = s->newest = s->oldest = s->hand = NONE;
    return s;
}

static struct part_blob *
find_blob(const struct part_sieve *s, const struct sha256 *hash)
{
    struct hash_node *n = hash_table_first(&s->blobs, sha256_key(hash));
    for (; n; n = hash_table_next_same(n)) {
        struct part_blob *b = CONTAINER_OF(n, struct part_blob, node);
        if (sha256_equal(&b->hash, hash))
            return b;
    }
    return NULL;
}

static uint32_t
find_entry(const struct part_blob *b, uint32_t part)
{
    return b && part < b->capacity ? b->entries[part] : NONE;
}

static struct part_blob *
get_blob(struct part_sieve *s, const struct sha256 *hash, uint32_t part)
{
    struct part_blob *b = find_blob(s, hash);
    if (!b) {
        b = memory_alloc_zero(sizeof(*b));
        b->hash = *hash;
        hash_table_insert(&s->blobs, &b->node, sha256_key(hash));
    }
    if (part >= b->capacity) {
        uint32_t capacity = part + 1 > 2 * b->capacity ? part + 1 : 2 * b->capacity;
        b->entries = memory_realloc(b->entries, capacity * sizeof(*b->entries));
        memset(b->entries + b->capacity, 0xff, (capacity - b->capacity) * sizeof(*b->entries));
        b->capacity = capacity;
    }
    return b;
}

static uint32_t
take_free(struct part_sieve *s)
{
    if (s->free == NONE) {
        uint32_t capacity = s->capacity ? 2 * s->capacity : 64;
        assert(capacity < NEWEST);
        s->entries = memory_realloc(s->entries, capacity * sizeof(*s->entries));
        for (uint32_t i = capacity; i-- > s->capacity;) {
            s->entries[i] = (struct entry){.older = s->free};
            s->free = i;
        }
        s->capacity = capacity;
    }
    uint32_t i = s->free;
    s->free = s->entries[i].older;
    return i;
}

void
part_sieve_enter(struct part_sieve *s, const struct sha256 *hash, uint32_t part)
{
    struct part_blob *b = get_blob(s, hash, part);
    if (b->entries[part] != NONE)
        return;
    uint32_t i = take_free(s);
    s->entries[i] = (struct entry){.blob = b, .part = part, .newer = NEWEST, .older = s->newest};
    if (s->newest != NONE)
        s->entries[s->newest].newer = i;
    else
        s->oldest = i;
    s->newest = i;
    b->entries[part] = i;
    b->count++;
    s->count++;
}

void
part_sieve_use(struct part_sieve *s, const struct sha256 *hash, uint32_t part)
{
    uint32_t i = find_entry(find_blob(s, hash), part);
    if (i == NONE)
        part_sieve_enter(s, hash, part);
    else
        s->entries[i].used = 1;
}

bool
part_sieve_has(const struct part_sieve *s, const struct sha256 *hash)
{
    return find_blob(s, hash) != NULL;
}

size_t
part_sieve_count(const struct part_sieve *s)
{
    return s->count;
}

static uint32_t
newer_than(const struct part_sieve *s, uint32_t i)
{
    return s->entries[i].newer == NEWEST ? NONE : s->entries[i].newer;
}

bool
part_sieve_next(struct part_sieve *s, struct sha256 *blob_out, uint32_t *part_out)
{
    if (s->count == 0)
        return false;
    uint32_t i = s->hand == NONE ? s->oldest : s->hand;
    while (s->entries[i].used) {
        s->entries[i].used = 0;
        i = newer_than(s, i);
        if (i == NONE)
            i = s->oldest;
    }
    s->hand = newer_than(s, i);
    *blob_out = s->entries[i].blob->hash;
    *part_out = s->entries[i].part;
    return true;
}

uint32_t
part_sieve_list(const struct part_sieve *s, part_list_visit *visit, void *argument)
{
    uint32_t before = 0;
    bool passed = false;
    for (uint32_t i = s->oldest; i != NONE; i = newer_than(s, i)) {
        const struct entry *e = &s->entries[i];
        passed |= i == s->hand;
        before += !passed;
        visit(argument, &e->blob->hash, e->part, e->used);
    }
    return before;
}

void
part_sieve_set_hand(struct part_sieve *s, const struct sha256 *hash, uint32_t part)
{
    uint32_t i = find_entry(find_blob(s, hash), part);
    assert(i != NONE);
    s->hand = i;
}

static void
remove_entry(struct part_sieve *s, uint32_t i)
{
    struct entry *e = &s->entries[i];
    uint32_t newer = newer_than(s, i);
    if (s->hand == i)
        s->hand = newer;
    if (newer == NONE)
        s->newest = e->older;
    else
        s->entries[newer].older = e->older;
    if (e->older == NONE)
        s->oldest = newer;
    else
        s->entries[e->older].newer = newer == NONE ? NEWEST : newer;
    e->blob->entries[e->part] = NONE;
    e->blob->count--;
    *e = (struct entry){.older = s->free};
    s->free = i;
    s->count--;
}

static void
free_blob(struct part_sieve *s, struct part_blob *b)
{
    hash_table_remove(&s->blobs, &b->node);
    free(b->entries);
    free(b);
}

uint32_t
part_sieve_drop(struct part_sieve *s, const struct sha256 *hash, uint32_t part)
{
    struct part_blob *b = find_blob(s, hash);
    uint32_t i = find_entry(b, part);
    if (i != NONE)
        remove_entry(s, i);
    uint32_t left = b ? b->count : 0;
    if (b && left == 0)
        free_blob(s, b);
    return left;
}

void
part_sieve_drop_blob(struct part_sieve *s, const struct sha256 *hash)
{
    struct part_blob *b = find_blob(s, hash);
    if (!b)
        return;
    for (uint32_t part = 0; part < b->capacity; part++)
        if (b->entries[part] != NONE)
            remove_entry(s, b->entries[part]);
    free_blob(s, b);
}

void
part_sieve_free(struct part_sieve *s)
{
    if (!s)
        return;
    while (s->oldest != NONE) {
        struct sha256 hash = s->entries[s->oldest].blob->hash;
        part_sieve_drop_blob(s, &hash);
    }
    hash_table_free(&s->blobs);
    free(s->entries);
    free(s);
}

void
part_sieve_check(const struct part_sieve *s)
{
    size_t count = 0;
    bool hand = s->hand == NONE;
    for (uint32_t i = s->oldest, older = NONE; i != NONE; older = i, i = newer_than(s, i)) {
        assert(s->entries[i].blob && s->entries[i].older == older);
        assert(s->entries[i].blob->entries[s->entries[i].part] == i);
        hand |= s->hand == i;
        count++;
    }
    assert(count == s->count && hand);
    (void)count;
    (void)hand;
}
