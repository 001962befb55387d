// SPDX-License-Identifier: Apache-2.0
// The generations and snapshots of a volume as read-only trees below its root:
//
//     .ckptfs/snapshots/NAME       each snapshot in the store
//     .ckptfs/generations/NUMBER   each generation that is kept
//
// This module knows which there are, numbers their nodes, and opens and closes generations.
// snapshot_ops.h answers the kernel's requests with it.
//
// A place is one directory NAME or NUMBER. It gets a number at its first lookup and has it for as
// long as the kernel knows it (snapshot_places.h), so that inode numbers stay; two names of one
// generation are two places, because the kernel takes a directory with one inode number for one
// directory. A view is a
// generation that is open: a volume of its own (volume_open_generation), which keeps its generation
// by a pin. Places of one generation share a view. A view is closed when no program has had a file
// of it open, or sent a request, for SNAPSHOT_IDLE_MS, and the next request opens it again. When
// all views are in use and another is needed, the one that was not used for longest is closed
// early, if no file of it is open.
//
// Functions return 0 or -errno. Any thread may call them. Those that take a `call` may need the
// store: they return -EREMOTE instead with local_only, and -EINTR when it is canceled.
#ifndef CKPTFS_FUSE_SNAPSHOT_TREE_H
#define CKPTFS_FUSE_SNAPSHOT_TREE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "fuse/snapshot_places.h"
#include "platform/lock.h"
#include "platform/thread.h"
#include "volume/volume.h"

#define SNAPSHOT_TREE_NAME ".ckptfs"

// A view takes up to 32 MiB of memory: 8 MiB for pages of files, 5 MiB for maps of chunks, 12 MiB
// while it reads ahead, and some for requests; and up to 256 MiB in the storage root besides its
// manifest.
#define SNAPSHOT_VIEWS_MAX 4u
#define SNAPSHOT_IDLE_MS   30000u

// ---- nodes --------------------------------------------------------------------------------------
//
//     bits 63, 62   01: a node of this tree; 00: an object of the mounted volume
//     bits 61..42   the number of the place; 0: one of the fixed directories
//     bits 41..0    the object in the generation, or enum snapshot_directory

#define SNAPSHOT_NODE_BIT    (UINT64_C(1) << 62)
#define SNAPSHOT_OBJECT_BITS 42u
#define SNAPSHOT_OBJECT_MAX  ((UINT64_C(1) << SNAPSHOT_OBJECT_BITS) - 1)

enum snapshot_directory {
    SNAPSHOT_TOP = 1,
    SNAPSHOT_SNAPSHOTS,
    SNAPSHOT_GENERATIONS,
};

static inline bool
snapshot_node_is(uint64_t node)
{
    return node >= SNAPSHOT_NODE_BIT;
}

static inline uint64_t
snapshot_node(unsigned number, uint64_t object)
{
    return SNAPSHOT_NODE_BIT | (uint64_t)number << SNAPSHOT_OBJECT_BITS | object;
}

static inline unsigned
snapshot_node_number(uint64_t node)
{
    return (unsigned)((node & ~SNAPSHOT_NODE_BIT) >> SNAPSHOT_OBJECT_BITS);
}

static inline uint64_t
snapshot_node_object(uint64_t node)
{
    return node & SNAPSHOT_OBJECT_MAX;
}

// ---- the tree -----------------------------------------------------------------------------------

struct snapshot_tree;

enum snapshot_view_state { VIEW_CLOSED, VIEW_OPENING, VIEW_OPEN, VIEW_CLOSING };

struct snapshot_view {
    struct snapshot_tree *tree;
    enum snapshot_view_state state;
    struct generation generation; // when it is closed: the last one
    struct volume *volume;        // while it is open or closing
    unsigned requests;            // that use it at the moment
    uint64_t files;               // that are open
    uint64_t used_ms;
    // Of the thread that opens it; NULL otherwise. That thread alone looks.
    const struct remote_call *opener;
    int failure; // of the last opening, or 0
};

// The listing of snapshots that the store gave last.
struct snapshot_names {
    struct snapshot_name *list;           // by name
    const struct snapshot_name **in_turn; // the same by position
    size_t count;
    uint64_t version;   // of the tree, when the store was asked
    uint64_t read_ms;   // 0: never
    uint64_t failed_ms; // when the store last did not give one; 0: never
};

struct snapshot_tree {
    struct volume *volume; // the mounted one
    uint64_t started_ms;   // wall clock
    uint64_t idle_ms;      // SNAPSHOT_IDLE_MS; tests make it shorter before the first request
    atomic_bool stopping;
    // Counts what may have changed the snapshots: an older listing is not to be trusted any more.
    _Atomic uint64_t names_version;

    struct lock lock; // "snapshots": protects all below
    struct condition changed;
    struct snapshot_places places;
    struct snapshot_view views[SNAPSHOT_VIEWS_MAX];
    struct snapshot_names names;
    uint64_t last_position; // of a name
    struct thread closer;   // closes views that nobody uses
    bool closing;           // it has been started
};

void snapshot_tree_init(struct snapshot_tree *t, struct volume *volume);
void snapshot_tree_destroy(struct snapshot_tree *t); // must have been stopped
// Cancels what waits for the store, and closes all views. No request may come any more.
void snapshot_tree_stop(struct snapshot_tree *t);

// A snapshot was made or dropped: the next lookup asks the store.
static inline void
snapshot_tree_names_changed(struct snapshot_tree *t)
{
    atomic_fetch_add(&t->names_version, 1);
}

// The number of the place with this name in the directory (SNAPSHOT_SNAPSHOTS or _GENERATIONS), to
// which the caller then has a reference. -ENOENT: there is none.
MUST_CHECK int snapshot_tree_find(struct snapshot_tree *t, enum snapshot_directory directory,
    const char *name, const struct remote_call *call, unsigned *number_out);

// The kernel gets `count` nodes in the place, to which it or the caller has a reference; it, or the
// caller, gives back `count` references.
void snapshot_tree_refer(struct snapshot_tree *t, unsigned number, uint64_t count);
void snapshot_tree_forget(struct snapshot_tree *t, unsigned number, uint64_t count);
// Of a place to which there is a reference: with the node's number it is unique in this mount.
uint64_t snapshot_tree_incarnation(struct snapshot_tree *t, unsigned number);

// Names in the directory after position `from` (0: the beginning), in order of their positions;
// `visit` gets each with its position, and returns nonzero to stop. Asks the store at the beginning
// of the snapshots. A name keeps its position while other names come and go, so that a program that
// goes on from a position misses none and gets none twice.
typedef int snapshot_visit_name(void *argument, const char *name, uint64_t position);
MUST_CHECK int snapshot_tree_list(struct snapshot_tree *t, enum snapshot_directory directory,
    uint64_t from, const struct remote_call *call, snapshot_visit_name *visit, void *argument);

// The root directory of a place without opening its generation: the attributes that it had when it
// was open last, or else made-up ones, with owner and mode of the mounted root directory and the
// time of the generation.
MUST_CHECK int snapshot_tree_root(
    struct snapshot_tree *t, unsigned number, struct volume_attributes *attributes_out);
void snapshot_tree_note_root(
    struct snapshot_tree *t, unsigned number, const struct volume_attributes *attributes);

// Opens the place's generation, if it is not open, for one request; snapshot_tree_put ends that.
// -ESTALE: there is no such place, or its generation is gone; -ENFILE: files of
// SNAPSHOT_VIEWS_MAX other generations are open. Failures are logged.
MUST_CHECK int snapshot_tree_get(struct snapshot_tree *t, unsigned number,
    const struct remote_call *call, struct snapshot_view **view_out);
void snapshot_tree_put(struct snapshot_view *view);
// A file of the view was opened in the place, by a request that has the view; it was closed.
void snapshot_tree_file_opened(struct snapshot_view *view, unsigned number);
void snapshot_tree_file_closed(struct snapshot_tree *t, unsigned number);

#endif
