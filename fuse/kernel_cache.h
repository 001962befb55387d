// SPDX-License-Identifier: Apache-2.0
// What the kernel holds back: pages of its write-back cache, and pages written through mappings.
// A file that nobody has open for writing has none: the kernel writes them back before it releases
// the open file. So the files that are open for writing are remembered here, and of each whether
// the kernel may have cached something of it, for writes that go past that cache.
#ifndef CKPTFS_FUSE_KERNEL_CACHE_H
#define CKPTFS_FUSE_KERNEL_CACHE_H

#include <stdatomic.h>
#include <stdbool.h>

#include "base/compiler.h"
#include "base/hash_table.h"
#include "base/types.h"
#include "platform/lock.h"

struct fuse_session;
struct mount;

struct kernel_cache {
    struct mount *mount;
    struct fuse_session *session;
    struct lock lock;              // protects `writers`
    struct hash_table writers;     // the objects that are open for writing
    uint64_t uses;                 // of the kernel's cache that were noted, and objects that came
    atomic_uint_fast64_t claims;   // that were begun
    atomic_uint_fast64_t refusals; // pages that the kernel wrote back and did not get rid of
};

// `session` is set before the mount is served.
void kernel_cache_init(struct kernel_cache *k, struct mount *mount);
void kernel_cache_destroy(struct kernel_cache *k);

// `is_new`: it was made just now, so the kernel has nothing of it.
void kernel_cache_note_writer(struct kernel_cache *k, struct object_id object, bool is_new);
// Also takes back what was claimed for the object (below), after its last writer.
void kernel_cache_forget_writer(struct kernel_cache *k, struct object_id object);
bool kernel_cache_has_writer(struct kernel_cache *k, struct object_id object);

// The kernel's write-back of some pages was answered with an error. The kernel has given them up
// and tells those who have the file open.
void kernel_cache_note_refusal(struct kernel_cache *k);

// The blocks of 512 bytes that an object is said to have. The kernel keeps the number that it was
// told, also while somebody who has the object open for writing makes it grow, and while the kernel
// holds data of it that the daemon has not got. So the object is said to have some more than it has
// then, as on XFS, and when the daemon has been given that much, the kernel is made to ask again.
// An object with holes goes on looking like one to programs that copy: it is not said to have as
// many blocks as its size would fill (`size_blocks`); and one without blocks looks like one that
// has some.
struct kernel_cache_claim {
    uint64_t given; // bytes that the object had been given when its blocks were counted
};
// False: nobody has the object open for writing, so it has the blocks that it has. Else its blocks
// are to be counted after this.
bool kernel_cache_begin_claim(
    struct kernel_cache *k, struct object_id object, struct kernel_cache_claim *claim_out);
// Not every answer with attributes is taken by the kernel: it reads none from the answer when it
// hands over times, for example. `is_asked`: it asked for attributes alone, and asks again if it
// does not take them.
uint64_t kernel_cache_end_claim(struct kernel_cache *k, struct object_id object,
    const struct kernel_cache_claim *claim, uint64_t blocks, uint64_t size_blocks, bool is_asked);
// The object has just been opened for writing and has no blocks: the kernel is to ask again.
void kernel_cache_drop_attributes(struct kernel_cache *k, struct object_id object);

void kernel_cache_drop_stale(struct kernel_cache *k, struct object_id object);

// The kernel asks for data of the object that it keeps in its cache. Called before the data is
// looked at.
void kernel_cache_note_pages(struct kernel_cache *k, struct object_id object);
// The same for data that it sends. When the data has been written, and before that is answered,
// kernel_cache_end_write tells whether the object may have more blocks than the kernel was told:
// then kernel_cache_drop_stale makes the kernel ask again.
uint64_t kernel_cache_begin_write(
    struct kernel_cache *k, struct object_id object, uint64_t offset, uint64_t bytes);

static inline bool
kernel_cache_end_write(struct kernel_cache *k, uint64_t ticket)
{
    // Who counted blocks meanwhile may have counted without this write.
    return ticket != atomic_load_explicit(&k->claims, memory_order_acquire);
}
// A write past the cache has been done: what has to be dropped of the object before it is answered.
enum kernel_cache_stale {
    KERNEL_CACHE_STALE_NOTHING, // the kernel has no pages
    KERNEL_CACHE_STALE_RANGE,   // it uses its cache: the range of the write
    KERNEL_CACHE_STALE_ALL,     // it has not for a while: everything, and later writes find nothing
};
// `token_out` is for kernel_cache_note_dropped.
enum kernel_cache_stale kernel_cache_note_direct_write(
    struct kernel_cache *k, struct object_id object, uint64_t *token_out);
// Everything has been dropped, as KERNEL_CACHE_STALE_ALL asked for: unless the kernel has used its
// cache since, it has no pages. Until then other writes drop their ranges.
void kernel_cache_note_dropped(struct kernel_cache *k, struct object_id object, uint64_t token);
// Drops the pages of a range from the kernel's cache (length 0: of all from the offset on); waits
// for reads of them that are on their way and writes back what is dirty. Not from a worker.
void kernel_cache_drop(
    struct kernel_cache *k, struct object_id object, uint64_t offset, uint64_t length);

// Makes the kernel hand over what was written before the call, to the object or to all, and waits
// until the daemon has answered for it. 0, or -errno: some of it may not have come. Not from a
// worker: the kernel needs them for that. Nothing to do, and 0, when the mount is not served.
MUST_CHECK int kernel_cache_flush_object(struct kernel_cache *k, struct object_id object);
// For struct volume_host: `kernel_cache` is one. What the kernel could not hand over before the
// call does not count: the kernel tells the next who asks, once, and that need not be whom it
// concerns.
MUST_CHECK int kernel_cache_flush(void *kernel_cache);

#endif
