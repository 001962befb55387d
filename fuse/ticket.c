// SPDX-License-Identifier: Apache-2.0
#include "fuse/ticket.h"

#include <string.h>

void
tickets_init(struct tickets *t)
{
    memset(t, 0, sizeof(*t));
    lock_init(&t->lock, "tickets", LOCK_RANK_FUSE);
    for (size_t i = 0; i < TICKETS_MAX; i++)
        t->slots[i].owner = t;
}

void
tickets_destroy(struct tickets *t)
{
    lock_destroy(&t->lock);
}

static struct ticket_slot *
slot_of(struct tickets *t, uint64_t ticket)
{
    return &t->slots[ticket % TICKETS_MAX];
}

struct ticket_slot *
ticket_begin(struct tickets *t, uint32_t flags, uint64_t *ticket_out)
{
    *ticket_out = 0;
    lock_take(&t->lock);
    struct ticket_slot *slot = slot_of(t, t->last + 1);
    if (slot->state == TICKET_FREE) {
        *ticket_out = ++t->last;
        *slot = (struct ticket_slot){
            .owner = t, .state = TICKET_RUNNING, .flags = flags, .ticket = t->last};
    } else {
        slot = NULL;
    }
    lock_release(&t->lock);
    return slot;
}

bool
ticket_wait(struct ticket_slot *slot, struct fuse_req *req)
{
    struct tickets *t = slot->owner;
    lock_take(&t->lock);
    bool waits = !slot->interrupted;
    if (waits) {
        slot->req = req;
        slot->state = TICKET_WAITING;
    }
    lock_release(&t->lock);
    return waits;
}

static struct fuse_req *
take_request_locked(struct ticket_slot *slot)
{
    if (slot->state != TICKET_WAITING)
        return NULL;
    struct fuse_req *req = slot->req;
    slot->req = NULL;
    slot->state = TICKET_RUNNING;
    return req;
}

struct fuse_req *
ticket_interrupt(struct tickets *t, uint64_t ticket, struct ticket_slot **slot_out)
{
    struct ticket_slot *slot = slot_of(t, ticket);
    struct fuse_req *req = NULL;
    *slot_out = NULL;
    lock_take(&t->lock);
    if (slot->ticket == ticket && slot->state == TICKET_RUNNING)
        slot->interrupted = true;
    if (slot->ticket == ticket && (req = take_request_locked(slot))) {
        slot->pinned = true;
        *slot_out = slot;
    }
    lock_release(&t->lock);
    return req;
}

struct fuse_req *
ticket_take_any_request(struct tickets *t)
{
    struct fuse_req *req = NULL;
    lock_take(&t->lock);
    for (size_t i = 0; i < TICKETS_MAX && !req; i++)
        req = take_request_locked(&t->slots[i]);
    lock_release(&t->lock);
    return req;
}

// Frees the slots of tickets that have ended, up to the first that has not.
static void
advance_locked(struct tickets *t)
{
    for (;;) {
        struct ticket_slot *next = slot_of(t, t->completed + 1);
        if (next->state != TICKET_ENDED || next->pinned)
            return;
        t->completed++;
        t->completed_result = next->result;
        next->state = TICKET_FREE;
    }
}

void
ticket_unpin(struct ticket_slot *slot)
{
    struct tickets *t = slot->owner;
    lock_take(&t->lock);
    slot->pinned = false;
    advance_locked(t);
    lock_release(&t->lock);
}

struct fuse_req *
ticket_end(struct ticket_slot *slot, int result, uint64_t *ticket_out, uint32_t *flags_out)
{
    struct tickets *t = slot->owner;
    lock_take(&t->lock);
    *ticket_out = slot->ticket;
    *flags_out = slot->flags;
    struct fuse_req *req = take_request_locked(slot);
    slot->state = TICKET_ENDED;
    slot->result = result;
    advance_locked(t);
    lock_release(&t->lock);
    return req;
}

void
tickets_completed(struct tickets *t, uint64_t *ticket_out, int *result_out)
{
    lock_take(&t->lock);
    *ticket_out = t->completed;
    *result_out = t->completed_result;
    lock_release(&t->lock);
}
