// SPDX-License-Identifier: Apache-2.0
// What the tests of src/remote play in: a bucket in a directory behind a store that fails on
// demand, and storage roots that write and read it. One volume, made of content that follows from
// the generation's number, so that any root can go on with it.
#ifndef CKPTFS_TESTS_REMOTE_WORLD_H
#define CKPTFS_TESTS_REMOTE_WORLD_H

#include "unit.h"

#include "base/buffer.h"
#include "manifest/manifest.h"
#include "remote/remote_manifest.h"
#include "store/remote_store_backends.h"

#define WORLD_TTL_MS 30000u

struct world {
    char *directory;
    char *bucket;
    struct remote_store *faults; // fault(file)
    struct remote_store *store;  // what roots use: `faults`, or a store around it
};

struct root {
    struct world *world;
    char *directory;
    char *scratch;
    struct manifest *m;
    struct db_record db;
    struct remote_place place;
    uint8_t salt; // makes this root's blobs its own
};

void world_open(struct world *w);
// The world that another process made; not to be closed.
void world_join(struct world *w, const char *directory);
void world_close(struct world *w);
// Path of an object: kind "record-", "catalog-", "lease-".
char *world_path(const struct world *w, const char *kind, uint64_t number);
void world_read(const struct world *w, const char *kind, uint64_t number, struct buffer *out);
void world_write(const struct world *w, const char *kind, uint64_t number, const void *p, size_t n);
// How many objects of a kind there are.
size_t world_count(const struct world *w, const char *kind);
// Everything in the bucket becomes older.
void world_age(const struct world *w, uint64_t ms);

void root_open(struct root *r, struct world *w, const char *name, uint8_t salt);
void root_close(struct root *r);
// The same for another volume of the tenant.
void root_open_volume(
    struct root *r, struct world *w, const char *name, uint8_t salt, uint32_t volume_number);
// A db record to import into; `name` keeps several imports in one root apart.
struct db_record root_new_db(struct root *r, const char *name);
// Imports the newest generation as the root's db.
void root_import(struct root *r);
// Makes the volume, imports and claims it.
void root_begin(struct root *r);
int root_claim(struct root *r, bool takeover, struct remote_lease *lease);
// Folds the next local generation. `bulk` adds about so many incompressible bytes.
void root_fold(struct root *r, size_t bulk);
// Stages, publishes, records; each step's error ends it.
int root_publish(struct root *r);
// The same, but dies after the record was created.
int root_publish_and_forget(struct root *r);
// The db's export, encoded.
void root_dump(struct manifest *m, struct db_id db, struct buffer *out);
void root_assert_equal(const struct root *r, const struct buffer *expected);
uint64_t root_unpublished_blobs(struct root *r);

#endif
