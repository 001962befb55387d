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
#define AHEAD_JOBS    64u

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

// Pages of one chunk that are to be fetched ahead.
struct chunk_ahead_job {
    struct object_id object;
    struct page_no first;
    uint32_t count;
};

struct chunk_ahead {
    struct condition work;
    struct chunk_ahead_job jobs[AHEAD_JOBS]; // a ring
    unsigned job_first;
    unsigned job_count;
    struct thread threads[AHEAD_THREADS];
    unsigned thread_count;
    unsigned idle;
    bool stopping;
};

struct chunk_reader {
    struct chunk_map *map;
    struct local_store *local;
    struct remote_store *remote;
    char *tenant;
    uint32_t volume_number;
    uint64_t deadline_ms;
    struct part_heat *heat;
    struct lock lock; // "chunk_reader": protects flights and ahead
    struct condition landed;
    struct list_node flights;
    uint64_t landings; // how many flights have landed; also read without the lock
    struct chunk_ahead ahead;
    struct chunk_reader_numbers numbers; // relaxed atomics
};

// Reads [offset, offset + n) of the blob to `p` so that `verify` accepts it.
MUST_CHECK int chunk_fetch(struct chunk_reader *r, const struct blob_record *blob, uint64_t offset,
    size_t n, uint8_t *p, chunk_verify *verify, void *verify_argument,
    const struct remote_call *call);

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
};

// Makes `memory` large enough for so many frames.
void chunk_frames_reserve(struct chunk_frames *f, uint32_t count);
// All of them go to `memory`, one behind the other.
void chunk_frames_to_memory(struct chunk_frames *f);
// Gets all of them, verified, to where they go. On error the bytes there are undefined.
MUST_CHECK int chunk_frames_fetch(struct chunk_reader *r, const struct chunk_image *image,
    struct chunk_frames *f, const struct remote_call *call);

// Ends the threads that read ahead.
void chunk_ahead_stop(struct chunk_reader *r);

#endif
