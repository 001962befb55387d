// SPDX-License-Identifier: Apache-2.0
// A volume for tests: a store and storage roots in a scratch directory, small memory and a small
// log, so that eviction, backpressure, merging and packing happen soon. Every helper asserts.
#ifndef CKPTFS_TESTS_VOLUME_WORLD_H
#define CKPTFS_TESTS_VOLUME_WORLD_H

#include "unit.h"

#include "volume/volume.h"

struct volume_world {
    char *directory;
    char *root; // of the config, shortcut
    struct volume_config config;
    struct volume *v;
};

// Makes the directory and the config: source file://DIRECTORY/store/acme, root DIRECTORY/root.
void volume_world_new(struct volume_world *w);
// The same in a directory that exists (of another process), which stays when it is freed.
void volume_world_join(struct volume_world *w, const char *directory);
void volume_world_free(struct volume_world *w);  // closes and removes everything
void volume_world_leave(struct volume_world *w); // closes and leaves everything
// Another root of the same store.
void volume_world_set_root(struct volume_world *w, const char *name);

void volume_world_open(struct volume_world *w);
// The result; the text is printed when it is not `expected`.
void volume_world_open_fails(struct volume_world *w, int expected);
void volume_world_close(struct volume_world *w);
int volume_world_try_close(struct volume_world *w);
// Opens the volume in a process of its own, does something with it, and dies without closing.
void volume_world_die_after(struct volume_world *w, void (*work)(struct volume *v));
// Makes the store obey what volume_world_set_faults writes (store/remote_store_backends.h).
void volume_world_script_faults(struct volume_world *w);
void volume_world_set_faults(const struct volume_world *w, const char *script);
// Waits until everything is in the store.
void volume_world_wait_until_published(struct volume_world *w);
// Counts violations in the manifest of the root (which must be closed): asserts that there are
// none.
void volume_world_check(struct volume_world *w);
// Removes the storage root.
void volume_world_lose_root(struct volume_world *w);
// Makes a fork of the volume, which is closed, for this tenant, and lets the world be that one,
// with nothing local.
void volume_world_become_fork(struct volume_world *w, const char *tenant);

// Waits until everything is durable; the result.
int volume_world_sync(struct volume *v);
// Waits for a checkpoint; the result.
int volume_world_checkpoint(struct volume *v, unsigned flags, struct generation *generation_out);
// The same, which must go well.
struct generation volume_world_fold(struct volume *v);
struct generation volume_world_publish(struct volume *v);

struct object_id volume_world_make_file(struct volume *v, const char *name);
struct object_id volume_world_find(struct volume *v, const char *name);
void volume_world_write(
    struct volume *v, struct object_id object, uint64_t offset, const void *p, size_t n);
void volume_world_fill(
    struct volume *v, struct object_id object, uint64_t offset, size_t n, uint64_t seed);
// Asserts that the bytes are what volume_world_fill made of the seed.
void volume_world_expect(
    struct volume *v, struct object_id object, uint64_t offset, size_t n, uint64_t seed);
// Gives the whole local copies of blobs an old date: what is made later can be told by its date.
void volume_world_age_blobs(struct volume_world *w);
// Makes the objects of the store in `directory`, such as "pins/acme/1", older; how many there are.
unsigned volume_world_age_objects(
    const struct volume_world *w, const char *directory, time_t seconds);
// Objects of the store below `directory` ("": of all of it), by the pattern of find(1) for names.
unsigned volume_world_count_objects(
    const struct volume_world *w, const char *directory, const char *pattern);
// Carries out an operation of volume_operation_start; its result, and its text in `out`.
int volume_world_operate(
    struct volume *v, unsigned kind, unsigned flags, const char *argument, struct buffer *out);
// Spoils the byte behind `needle` in a file of the log. Whether it is in one.
bool volume_world_spoil_log(struct volume_world *w, const void *needle, size_t n);
// Bytes that the files below `path` take on disk.
uint64_t volume_world_disk_bytes(const char *path);

// A small random generator (xorshift64*, Vigna 2016) and its seed from CKPTFS_TEST_SEED or chance;
// printed, so that a failure can be seen again.
uint64_t test_seed(const char *what);
uint64_t test_random(uint64_t *state);

#endif
