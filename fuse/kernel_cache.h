// SPDX-License-Identifier: Apache-2.0
// Dirty pages in the kernel: of its write-back cache, and written through mappings. A file that no
// program has open for writing has none: the kernel writes them back before it releases the open
// file. So this module remembers the files that are open for writing, and of each whether the
// kernel may have cached pages of it, for writes that go past that cache. Any thread.
#ifndef CKPTFS_FUSE_KERNEL_CACHE_H
#define CKPTFS_FUSE_KERNEL_CACHE_H

#include <stdatomic.h>
#include <stdbool.h>

#include "base/compiler.h"
#include "base/hash_table.h"
#include "base/list.h"
#include "base/types.h"
#include "platform/lock.h"

struct fuse_session;
struct mount;

struct kernel_cache {
    struct mount *mount;
    struct fuse_session *session;
    struct lock lock;              // protects `writers` and `behind`
    struct hash_table writers;     // the objects that are open for writing
    uint64_t uses;                 // counts noted uses of the kernel's cache, and new writers
    atomic_uint_fast64_t claims;   // number of begun ones
    struct list_node behind;       // writers of which the kernel knows too few blocks
    atomic_uint behind_count;      // length of that list
    uint64_t behind_since_ms;      // when that list was last empty
    atomic_uint_fast64_t refusals; // write-backs of the kernel that got an error
};

// `session` is set before the mount is served.
void kernel_cache_init(struct kernel_cache *k, struct mount *mount);
void kernel_cache_destroy(struct kernel_cache *k);

// `is_new`: it was made just now, so the kernel has nothing of it.
void kernel_cache_note_writer(struct kernel_cache *k, struct object_id object, bool is_new);
// After the last writer also takes back the claimed blocks (below).
void kernel_cache_forget_writer(struct kernel_cache *k, struct object_id object);
bool kernel_cache_has_writer(struct kernel_cache *k, struct object_id object);

// Notes that the daemon answered the kernel's write-back of some pages with an error. The kernel
// has given them up and tells the programs that have the file open.
void kernel_cache_note_refusal(struct kernel_cache *k);

// The blocks of 512 bytes that the daemon reports for an object. The kernel keeps the reported
// number, also while a program that has the object open for writing makes it grow, and while the
// kernel holds data of it that the daemon has not got. So the daemon then reports some more blocks
// than the object has, as XFS does, and makes the kernel ask again when the daemon has got that
// much: at once for fsync, else when no request has come for a moment, or once a second. An object
// with holes still looks like one to programs that copy: the daemon reports fewer blocks than its
// size would fill (`size_blocks`); and it reports some blocks for an object without any.
struct kernel_cache_claim {
    uint64_t given; // bytes that writes had given the object when the caller counted its blocks
};
// False: no program has the object open for writing, so the caller reports its real blocks. Else
// the caller must count the blocks after this.
bool kernel_cache_begin_claim(
    struct kernel_cache *k, struct object_id object, struct kernel_cache_claim *claim_out);
// The blocks to report. The kernel does not take attributes from every answer: not when it hands
// over times, for example. `is_asked`: it asked for attributes alone, and asks again if it does not
// take them.
uint64_t kernel_cache_end_claim(struct kernel_cache *k, struct object_id object,
    const struct kernel_cache_claim *claim, uint64_t blocks, uint64_t size_blocks, bool is_asked);
// The object has just been opened for writing and has no blocks: makes the kernel ask again.
void kernel_cache_drop_attributes(struct kernel_cache *k, struct object_id object);

// The kernel asks for data of the object that it will keep in its cache. Call it before the read.
void kernel_cache_note_pages(struct kernel_cache *k, struct object_id object);
// The same for data that it sends. After the write and before the answer, kernel_cache_end_write
// tells whether the object may have more blocks than the daemon has reported: then the caller calls
// kernel_cache_note_behind.
uint64_t kernel_cache_begin_write(
    struct kernel_cache *k, struct object_id object, uint64_t offset, uint64_t bytes);

static inline bool
kernel_cache_end_write(struct kernel_cache *k, uint64_t ticket)
{
    // A thread that counted blocks meanwhile may have missed this write.
    return ticket != atomic_load_explicit(&k->claims, memory_order_acquire);
}
void kernel_cache_note_behind(struct kernel_cache *k, struct object_id object);
static inline bool
kernel_cache_is_behind(struct kernel_cache *k)
{
    return atomic_load_explicit(&k->behind_count, memory_order_relaxed) > 0;
}
// Makes the kernel ask again for the blocks of an object that is behind.
void kernel_cache_catch_up(struct kernel_cache *k, struct object_id object);
// The same for all, when the daemon is `quiet` (it has no request) or one has been behind for a
// second. Any thread.
void kernel_cache_catch_up_all(struct kernel_cache *k, bool quiet);

// After a write past the cache: the pages of the object to drop before the answer.
enum kernel_cache_stale {
    KERNEL_CACHE_STALE_NOTHING, // the kernel has no pages
    KERNEL_CACHE_STALE_RANGE,   // it uses its cache: the range of the write
    KERNEL_CACHE_STALE_ALL,     // it has not for a while: everything, and later writes find nothing
};
// `token_out` is for kernel_cache_note_dropped.
enum kernel_cache_stale kernel_cache_note_direct_write(
    struct kernel_cache *k, struct object_id object, uint64_t *token_out);
// The caller has dropped everything, as KERNEL_CACHE_STALE_ALL asked for: unless the kernel has
// used its cache since, it has no pages. Until this call other writes drop their ranges.
void kernel_cache_note_dropped(struct kernel_cache *k, struct object_id object, uint64_t token);
// Drops the pages of a range from the kernel's cache (length 0: of all from the offset on); waits
// for reads of them that are on their way and writes dirty pages back. Not from a worker.
void kernel_cache_drop(
    struct kernel_cache *k, struct object_id object, uint64_t offset, uint64_t length);

// Makes the kernel hand over earlier writes, to the object or to all, and waits until the daemon
// has answered for them. 0, or -errno: some may not have come. Not from a worker: the kernel needs
// them for that. 0 without doing anything when the mount is not served.
MUST_CHECK int kernel_cache_flush_object(struct kernel_cache *k, struct object_id object);
// For struct volume_host: `kernel_cache` is one. Ignores an error of write-back before the call:
// the kernel reports it once, to the next caller, whom it need not concern.
MUST_CHECK int kernel_cache_flush(void *kernel_cache);

#endif
