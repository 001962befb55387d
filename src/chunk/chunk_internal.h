// SPDX-License-Identifier: Apache-2.0
// Ranges of blobs, verified: from LocalStore, else from the RemoteStore.
#ifndef CKPTFS_CHUNK_CHUNK_INTERNAL_H
#define CKPTFS_CHUNK_CHUNK_INTERNAL_H

#include "chunk/chunk_reader.h"
#include "platform/lock.h"
#include "platform/thread.h"

// The read-ahead: this many threads, each with one GET of at most about AHEAD_PAGES.
#define AHEAD_THREADS 6u
#define AHEAD_PAGES   512u
// The threads that fetch the indexes of a chunk's older images while a reader waits for a newer
// one's. So a reader of a chunk with nine images waits for the store once, not nine times.
#define INDEX_THREADS    8u
#define POOL_THREADS_MAX 8u
#define POOL_JOBS        64u

// An image that is no longer than this comes whole with its index, by one request: the base of a
// file of 64 KiB, or a delta of a few pages. Its frames would cost a request more, for which a
// limiter counts 64 KiB, too.
#define CHUNK_WHOLE_MAX (68u << 10)

// Whether the `n` bytes at `p` are the right ones.
typedef bool chunk_verify(void *argument, const uint8_t *p, size_t n);

// A fetch in progress, for which other readers of the same bytes wait. Two readers do not: they
// overtake a flight that brings bytes ahead of the readers, by asking for their own frames, which
// come sooner. Readers of the same frames share a request as always.
//
// - A random reader overtakes a flight that is much larger than the frames it needs. A flight is
//   overtaken so often at most, so that what this costs is bounded.
// - A reader for whom a program waits overtakes a flight of a job, which may have to wait for its
//   turn under a limit. Without the job the reader would have asked for the frames, too.
//
// Both wait a moment first: a flight that comes by then costs no other request.
#define FLIGHT_OVERTAKE_MS    10u
#define FLIGHT_OVERTAKEN_MAX  4u
#define FLIGHT_OVERTAKE_RATIO 4u
struct chunk_flight {
    struct list_node node;
    struct sha256 blob;
    uint64_t from;
    uint64_t to;
    bool ahead;
    bool gives_way;     // of a job
    unsigned overtaken; // so often
};

// What a thread of a pool fetches: pages of one chunk, or the index of an image.
struct chunk_job {
    struct object_id object;
    struct page_no first;
    uint32_t count;
    struct chunk_layout *layout; // NULL: pages. Else of the image, with a reference
    size_t image;
    enum remote_class class;
};

// Threads that fetch what readers will want. A job that finds no place in the ring is left to the
// readers.
struct chunk_pool {
    struct chunk_reader *reader;
    const char *thread_name;
    unsigned threads_max;
    struct condition work;
    struct chunk_job jobs[POOL_JOBS]; // a ring
    unsigned job_first;
    unsigned job_count;
    struct thread threads[POOL_THREADS_MAX];
    unsigned thread_count;
    unsigned idle;
};

struct chunk_reader {
    struct chunk_map *map;
    struct local_store *local;
    struct remote_store *remote;
    char *tenant;
    uint32_t volume_number;
    uint64_t deadline_ms;
    struct part_heat *heat;
    struct lock lock; // "chunk_reader": protects flights, the pools, and the writing of `stopping`
    struct condition landed;
    struct list_node flights;
    uint64_t landings; // how many flights have landed; also read without the lock
    struct chunk_pool ahead;
    struct chunk_pool indexes;
    bool stopping;
    struct chunk_reader_numbers numbers; // relaxed atomics
};

// Bytes of a blob that a reader wants.
struct chunk_wanted {
    uint64_t offset;
    size_t n;
    uint8_t *p;
    chunk_verify *verify;
    // Whether another thread has got by now what the bytes are for. May be NULL.
    bool (*is_there)(void *argument);
    void *argument; // of both
    bool ahead;     // nobody waits for them: a store that fails is neither logged nor counted
};

// Reads the bytes so that `verify` accepts them. When `is_there` says so, the bytes are undefined,
// and `verify` has not accepted any.
MUST_CHECK int chunk_fetch(struct chunk_reader *r, const struct blob_record *blob,
    const struct chunk_wanted *wanted, const struct remote_call *call);

// Gets the bytes of [offset, offset + n) that are not here from the store and keeps them
// unverified: their readers verify them. Ignores failures: those readers will see them, too.
void chunk_fetch_ahead(struct chunk_reader *r, const struct blob_record *blob, uint64_t offset,
    uint64_t n, const struct remote_call *call);

// The same as far as the bytes are in the local copy, into several pieces of memory and unverified.
// 0; -ENOENT, -ENODATA: they are not; or a read error.
MUST_CHECK int chunk_read_local(struct chunk_reader *r, const struct blob_record *blob,
    uint64_t offset, const struct iovec *iov, int count, const struct remote_call *call);

// Frames that lie together are read together, up to this much.
#define CHUNK_FRAMES_MAX 16u

// Frames [first, first + count) of one image, unpacked. The user frees `memory`.
struct chunk_frames {
    const struct blob_index *index;
    uint32_t first;
    uint32_t count;
    uint32_t pages[CHUNK_FRAMES_MAX]; // in each
    uint8_t *to[CHUNK_FRAMES_MAX];    // where each goes: room for a full one
    bool in_place[CHUNK_FRAMES_MAX];  // to the reader's own memory: it must be a full one
    uint8_t *memory;                  // for those that do not go to the reader's own memory
    uint32_t memory_frames;
    const uint8_t *whole; // the image's bytes, not verified, if the reader holds them; or NULL
};

// Makes `memory` large enough for so many frames.
void chunk_frames_reserve(struct chunk_frames *f, uint32_t count);
// All of them go to `memory`, one behind the other.
void chunk_frames_to_memory(struct chunk_frames *f);
// Gets all of them, verified, to where they go. On error the bytes there are undefined.
MUST_CHECK int chunk_frames_fetch(struct chunk_reader *r, const struct chunk_image *image,
    struct chunk_frames *f, const struct remote_call *call);

// ---- indexes ------------------------------------------------------------------------------------

// The bytes of an image that came whole with its index. A reader holds them while it reads: they
// may not be in hot_cache, which has no room for them, or must not get them.
struct chunk_held {
    struct chunk_held *next;
    size_t image;
    uint8_t bytes[];
};

// The bytes of the image, or NULL.
const uint8_t *chunk_held_find(const struct chunk_held *held, size_t image);
void chunk_held_free(struct chunk_held *held); // all of them

// As chunk_reader_index. Adds to the list `held` what came whole with the index; NULL: the caller
// does not want it. When the store has to be asked, threads of the pool ask for the indexes of the
// older images, too.
MUST_CHECK int chunk_index_get(struct chunk_reader *r, struct chunk_layout *layout, size_t image,
    const struct remote_call *call, struct chunk_held **held, const struct blob_index **index_out);
// The same for the index alone and without the pool, for its threads. Failures are ignored: the
// readers will see them, too.
void chunk_index_load(struct chunk_reader *r, struct chunk_layout *layout, size_t image,
    const struct remote_call *call);

// chunk_reader_fetch_pages for pages of the layout's chunk.
MUST_CHECK int chunk_fetch_pages(struct chunk_reader *r, struct chunk_layout *layout,
    uint32_t first, uint32_t count, const struct remote_call *call, uint64_t *bytes);

// ---- the pools ----------------------------------------------------------------------------------

void chunk_pools_init(struct chunk_reader *r);
// Ends their threads, and drops what is left to do.
void chunk_pools_stop(struct chunk_reader *r);
// Makes the pool fetch the index of an image if it is not in memory. Returns at once; what finds no
// room is left to the reader.
void chunk_pool_get_index(
    struct chunk_reader *r, struct chunk_layout *layout, size_t image, enum remote_class class);

#endif
