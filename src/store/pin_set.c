// SPDX-License-Identifier: Apache-2.0
#include "store/pin_set.h"

#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/checksum.h"
#include "base/hash_table.h"
#include "base/list.h"
#include "platform/lock.h"
#include "platform/memory.h"

struct pinned_blob {
    struct hash_node node;
    struct sha256 hash;
    struct pin *pin;
    struct pinned_blob *next; // of the same pin
};

struct pin {
    struct list_node node; // in pins
    struct pin_set *set;
    const char *who;
    const char *why;
    struct generation up_to;
    bool everything;
    struct pinned_blob *blobs;
};

struct pin_set {
    struct lock lock; // "pins": protects everything below, and the pins
    struct condition removed;
    struct list_node pins;
    struct hash_table blobs; // one entry for each pin of each blob
    struct pin_removal *removals;
};

struct pin_set *
pin_set_new(void)
{
    struct pin_set *s = memory_alloc_zero(sizeof(*s));
    lock_init(&s->lock, "pins", LOCK_RANK_STORE);
    condition_init(&s->removed);
    list_init(&s->pins);
    return s;
}

void
pin_set_free(struct pin_set *s)
{
    if (!s)
        return;
    assert(list_is_empty(&s->pins) && !s->removals);
    hash_table_free(&s->blobs);
    condition_destroy(&s->removed);
    lock_destroy(&s->lock);
    free(s);
}

struct pin *
pin_begin(struct pin_set *s, const char *who, const char *why)
{
    struct pin *pin = memory_alloc_zero(sizeof(*pin));
    pin->set = s;
    pin->who = who;
    pin->why = why;
    lock_take(&s->lock);
    list_append(&s->pins, &pin->node);
    lock_release(&s->lock);
    return pin;
}

static void
let_go_locked(struct pin *pin)
{
    for (struct pinned_blob *b; (b = pin->blobs);) {
        pin->blobs = b->next;
        hash_table_remove(&pin->set->blobs, &b->node);
        free(b);
    }
    pin->everything = false;
    pin->up_to.v = 0;
}

void
pin_end(struct pin *pin)
{
    if (!pin)
        return;
    lock_take(&pin->set->lock);
    let_go_locked(pin);
    list_remove(&pin->node);
    lock_release(&pin->set->lock);
    free(pin);
}

static bool
is_being_removed_locked(const struct pin_set *s, const struct sha256 *hash)
{
    const struct pin_removal *r = s->removals;
    while (r && hash && !sha256_equal(&r->hash, hash))
        r = r->next;
    return r != NULL;
}

// `hash` NULL: of any blob.
static void
wait_for_removals_locked(struct pin_set *s, const struct sha256 *hash)
{
    while (is_being_removed_locked(s, hash))
        condition_wait(&s->removed, &s->lock);
}

void
pin_everything(struct pin *pin)
{
    struct pin_set *s = pin->set;
    lock_take(&s->lock);
    pin->everything = true;
    pin->up_to.v = UINT64_MAX;
    wait_for_removals_locked(s, NULL);
    lock_release(&s->lock);
}

static const struct pinned_blob *
find_blob_locked(const struct pin_set *s, const struct sha256 *hash, const struct pin *pin)
{
    struct hash_node *n = hash_table_first(&s->blobs, sha256_key(hash));
    for (; n; n = hash_table_next_same(n)) {
        const struct pinned_blob *b = CONTAINER_OF(n, struct pinned_blob, node);
        if (sha256_equal(&b->hash, hash) && (!pin || b->pin == pin))
            return b;
    }
    return NULL;
}

static void
add_locked(struct pin *pin, const struct sha256 *hash)
{
    if (find_blob_locked(pin->set, hash, pin))
        return;
    struct pinned_blob *b = memory_alloc_zero(sizeof(*b));
    *b = (struct pinned_blob){.hash = *hash, .pin = pin, .next = pin->blobs};
    pin->blobs = b;
    hash_table_insert(&pin->set->blobs, &b->node, sha256_key(hash));
}

void
pin_exactly(struct pin *pin, struct generation up_to, const struct sha256 *hashes, size_t count)
{
    struct pin_set *s = pin->set;
    lock_take(&s->lock);
    let_go_locked(pin);
    pin->up_to = up_to;
    for (size_t i = 0; i < count; i++)
        add_locked(pin, &hashes[i]);
    for (size_t i = 0; i < count; i++)
        wait_for_removals_locked(s, &hashes[i]);
    lock_release(&s->lock);
}

void
pin_blob(struct pin *pin, const struct sha256 *hash)
{
    lock_take(&pin->set->lock);
    add_locked(pin, hash);
    wait_for_removals_locked(pin->set, hash);
    lock_release(&pin->set->lock);
}

static const struct pin *
find_pin_locked(struct pin_set *s, const struct sha256 *hash)
{
    const struct pinned_blob *b = find_blob_locked(s, hash, NULL);
    if (b)
        return b->pin;
    LIST_FOR_EACH(&s->pins, node)
    {
        const struct pin *pin = CONTAINER_OF(node, struct pin, node);
        if (pin->everything)
            return pin;
    }
    return NULL;
}

bool
pin_set_has_blob(
    struct pin_set *s, const struct sha256 *hash, const char **who_out, const char **why_out)
{
    lock_take(&s->lock);
    const struct pin *pin = find_pin_locked(s, hash);
    if (who_out)
        *who_out = pin ? pin->who : NULL;
    if (why_out)
        *why_out = pin ? pin->why : NULL;
    lock_release(&s->lock);
    return pin != NULL;
}

struct generation
pin_set_generation(struct pin_set *s)
{
    struct generation newest = {0};
    lock_take(&s->lock);
    LIST_FOR_EACH(&s->pins, node)
    {
        const struct pin *pin = CONTAINER_OF(node, struct pin, node);
        if (pin->up_to.v > newest.v)
            newest = pin->up_to;
    }
    lock_release(&s->lock);
    return newest;
}

bool
pin_set_begin_removal(struct pin_set *s, const struct sha256 *hash, struct pin_removal *removal_out)
{
    lock_take(&s->lock);
    bool may = !find_pin_locked(s, hash) && !is_being_removed_locked(s, hash);
    if (may) {
        *removal_out = (struct pin_removal){.next = s->removals, .hash = *hash};
        s->removals = removal_out;
    }
    lock_release(&s->lock);
    return may;
}

void
pin_set_end_removal(struct pin_set *s, struct pin_removal *removal)
{
    lock_take(&s->lock);
    struct pin_removal **at = &s->removals;
    while (*at != removal)
        at = &(*at)->next;
    *at = removal->next;
    condition_broadcast(&s->removed);
    lock_release(&s->lock);
}
