// SPDX-License-Identifier: Apache-2.0
// The state of a random history of real volumes (test_volume_histories), and what its steps have in
// common. There is one history at a time. Every function asserts.
//
// Between history_disturb and history_heal one request of each volume's store may fail for good:
// before the store carries it out, or behind that, as if its answer was lost. The functions here
// that say so disturb the store, and repeat what failed when it is healthy again.
#ifndef CKPTFS_TESTS_VOLUME_HISTORY_H
#define CKPTFS_TESTS_VOLUME_HISTORY_H

#include "history_place.h"
#include "volume_steps.h"
#include "volume_world.h"

#define HISTORY_VOLUMES 3u
#define HISTORY_KEPT    96u

struct kept {
    struct generation generation;
    struct model *m;
    bool named;     // by the snapshot "sN", N being the generation
    unsigned forks; // that need it
};

struct history_volume {
    bool exists;
    struct volume_world w; // w.v is NULL while it is not mounted
    struct model *now;
    uint64_t mark;
    struct kept kept[HISTORY_KEPT];
    unsigned count;
    struct history_volume *parent; // of a fork that needs it
    struct generation parent_kept; // the one that it needs
};

struct history {
    char *directory;
    struct history_place place;
    struct history_volume volumes[HISTORY_VOLUMES];
    uint64_t seed;
    uint64_t next_number; // of an operation on files
    unsigned next_root;
    bool disturbed;
    unsigned repeated; // what failed for a disturbance
};

extern struct history history;

void history_begin(bool in_s3, uint64_t seed);
void history_end(void); // nothing may be left in the store
uint64_t history_below(uint64_t n);

// ---- the store ----------------------------------------------------------------------------------

// Perhaps makes a request fail. Not while data of files may have to be fetched.
void history_disturb(void);
// Makes the store healthy. Whether it was disturbed: what failed is to be done again.
bool history_heal(void);
// What volume_world_set_faults takes.
void history_set_script(const char *script);

// ---- generations --------------------------------------------------------------------------------

struct kept *history_find_kept(struct history_volume *h, struct generation generation);
void history_note_kept(
    struct history_volume *h, struct generation generation, const struct model *m);
// Takes over which generations the mounted volume keeps. It may drop those alone that nothing asks
// for.
void history_look(struct history_volume *h);
struct kept *history_any_kept(struct history_volume *h);
// The mounted volume has said that it does not keep the generation.
void history_expect_gone(struct history_volume *h, struct generation generation);

// ---- volumes ------------------------------------------------------------------------------------

struct history_volume *history_new_volume(unsigned number);
void history_use_new_root(struct history_volume *h);
// What the volume has got to while it was away, or in another host's hands.
void history_mount(struct history_volume *h); // disturbed
void history_unmount(struct history_volume *h);
// Publishes, and notes the generation. Disturbed.
void history_do_publish(struct history_volume *h);
// 0 or -ENOENT. Disturbed.
int history_operate(struct history_volume *h, unsigned kind, unsigned flags, const char *argument);
void history_set_policy(struct history_volume *h);
// The operations of one batch, in the volume and the model (each may be NULL). The mark comes last.
int history_write_batch(struct volume *v, struct model *m, uint64_t first, unsigned count);

// ---- steps of hosts (volume_history_hosts.c): each leaves the volume mounted --------------------

// The host dies at a step, or in an outage. It goes on from its storage root or from the bucket.
void history_die(struct history_volume *h);
// Another host takes the volume by force, while the host that has it goes on.
void history_take_over(struct history_volume *h);
// The same, while the host that has it stands still at a step; two days later it goes on.
void history_stall(struct history_volume *h);
// The store is away for a moment while the host publishes.
void history_outage(struct history_volume *h);

#endif
