// SPDX-License-Identifier: Apache-2.0
// Checkpoint requests by ioctl. Each has a ticket, counted from 1. Exactly one of the volume's
// callback, the interrupt of the caller, and the end of the session answers a waiting request: the
// one that takes it first. Any thread.
//
//     state      to be answered  the volume calls back
//     FREE       -               no
//     RUNNING    no              yes
//     WAITING    yes             yes
//     ENDED      no              no; kept until all older tickets have ended
#ifndef CKPTFS_FUSE_TICKET_H
#define CKPTFS_FUSE_TICKET_H

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"
#include "platform/lock.h"

#define TICKETS_MAX 256u

struct fuse_req;

enum ticket_state { TICKET_FREE, TICKET_RUNNING, TICKET_WAITING, TICKET_ENDED };

struct ticket_slot {
    struct tickets *owner;
    enum ticket_state state;
    bool interrupted; // RUNNING: the caller will not wait
    bool pinned;      // a thread still uses the slot's address
    uint32_t flags;   // of the request, for its answer
    uint64_t ticket;
    int result;           // ENDED
    struct fuse_req *req; // WAITING
};

struct tickets {
    struct lock lock; // "tickets": protects all that follows
    uint64_t last;    // handed out
    uint64_t completed;
    int completed_result;
    struct ticket_slot slots[TICKETS_MAX]; // ticket t lies in slot t % TICKETS_MAX
};

void tickets_init(struct tickets *t);
void tickets_destroy(struct tickets *t);
// A new ticket, RUNNING; NULL when too many are outstanding.
struct ticket_slot *ticket_begin(struct tickets *t, uint32_t flags, uint64_t *ticket_out);
// Makes the request wait for the ticket. False when it was interrupted before: the caller answers.
// After true the request may be answered, and gone, at any time.
MUST_CHECK bool ticket_wait(struct ticket_slot *slot, struct fuse_req *req);
// The caller of the ticket's request was interrupted. Returns the request, which the caller of this
// function must answer, and its slot, pinned; NULL when there is nothing to answer.
struct fuse_req *ticket_interrupt(
    struct tickets *t, uint64_t ticket, struct ticket_slot **slot_out);
void ticket_unpin(struct ticket_slot *slot);
// Takes any request that waits; the caller must answer it. NULL: there is none.
struct fuse_req *ticket_take_any_request(struct tickets *t);
// The checkpoint has ended, or its callback was cancelled. Returns the request to answer, or NULL.
// The slot may be in use for another ticket afterwards unless it is pinned.
struct fuse_req *ticket_end(
    struct ticket_slot *slot, int result, uint64_t *ticket_out, uint32_t *flags_out);
// The newest ticket such that it and all older ones have ended, and its result; 0 before the first.
void tickets_completed(struct tickets *t, uint64_t *ticket_out, int *result_out);

#endif
