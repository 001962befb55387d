// SPDX-License-Identifier: Apache-2.0
// The numbers of the directories NAME and NUMBER of the tree of snapshots (snapshot_tree.h). A
// place has its number for as long as the kernel refers to a node in it, or a program has a file of
// it open; and longer, until other places need the number: the one that was let go first gives it
// away. With the number it gets another incarnation, so that a file handle of before finds nothing.
//
// The caller's lock protects everything.
#ifndef CKPTFS_FUSE_SNAPSHOT_PLACES_H
#define CKPTFS_FUSE_SNAPSHOT_PLACES_H

#include "base/compiler.h"
#include "base/hash_table.h"
#include "base/list.h"
#include "volume/volume.h"

// Numbers that a node has room for. A place takes 400 bytes; the kernel needs three times as much
// for a directory that it knows, and forgets those that nobody uses when it needs memory.
#define SNAPSHOT_PLACES_MAX ((1u << 20) - 1)
// So many places have their numbers even if the kernel has forgotten them.
#define SNAPSHOT_PLACES_KEPT 4096u
// Of names: a snapshot's has 64 bytes at most.
#define SNAPSHOT_NAME_BYTES_MAX 64u

struct snapshot_name {
    char name[SNAPSHOT_NAME_BYTES_MAX + 1]; // "" for a generation
    struct generation generation;
    uint64_t created_ms;
    uint64_t position; // in a listing
};

struct snapshot_place {
    struct snapshot_name is;
    struct hash_node node;
    struct list_node let_go; // while nothing refers to it
    unsigned number;
    uint64_t incarnation;
    uint64_t references; // the kernel's, to nodes in it, and of requests that will answer with one
    uint64_t files;      // that are open
    bool has_root;
    struct volume_attributes root; // as it was when the generation was open last
};

struct snapshot_places {
    struct snapshot_place **by_number; // number n stands at n - 1
    unsigned count;
    unsigned kept; // SNAPSHOT_PLACES_KEPT; tests make it less before the first request
    struct hash_table by_name;
    struct list_node let_go; // places that nothing refers to, the first one first
    uint64_t incarnations;
};

void snapshot_places_init(struct snapshot_places *p);
void snapshot_places_destroy(struct snapshot_places *p);

// NULL: there is none of this number.
struct snapshot_place *snapshot_places_get(const struct snapshot_places *p, unsigned number);
// The place of this name and generation, with one reference more. NULL: the kernel refers to
// SNAPSHOT_PLACES_MAX others.
struct snapshot_place *snapshot_places_find(
    struct snapshot_places *p, const struct snapshot_name *is);
// Changes the number of references, or of files, of a place.
void snapshot_places_refer(struct snapshot_places *p, struct snapshot_place *place, uint64_t count);
void snapshot_places_let_go(
    struct snapshot_places *p, struct snapshot_place *place, uint64_t count);
void snapshot_places_file_opened(struct snapshot_places *p, struct snapshot_place *place);
void snapshot_places_file_closed(struct snapshot_places *p, struct snapshot_place *place);

#endif
