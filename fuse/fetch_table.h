// SPDX-License-Identifier: Apache-2.0
// Open files that are not read in the usual way: their options, by the number that the daemon gave
// the open file (fuse_file_info.fh). Files that are read in the usual way have no entry.
//
// A cold scan of a file that was opened in the usual way goes through the kernel's cache, because
// the kernel decides that at the open. So a thread of this module drops the pages that the scan has
// brought there: FETCH_LAG_BYTES behind the reader, which may not have had the last ones, and all
// of the file when it is closed. Dropping waits for reads on their way, so no worker may do it.
#ifndef CKPTFS_FUSE_FETCH_TABLE_H
#define CKPTFS_FUSE_FETCH_TABLE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/hash_table.h"
#include "base/list.h"
#include "base/types.h"
#include "platform/lock.h"
#include "platform/thread.h"
#include "store/fetch_options.h"

struct kernel_cache;
struct volume;
struct volume_scan;

#define FETCH_LAG_BYTES (16u << 20)

// Counted references; constant but for what the table's lock protects.
struct fetch_entry {
    struct hash_node node;
    uint64_t handle;
    struct object_id object;
    struct fetch_options options;
    struct volume_scan *scan; // with options.bypass_cache
    bool past_kernel;         // opened so that the kernel caches nothing
    atomic_uint references;
    uint64_t dropped; // under the lock: pages before it are dropped
    bool cached;      // likewise: the kernel got pages of the scan
};

struct fetch_table {
    struct volume *volume;
    struct kernel_cache *kernel_cache;
    _Atomic uint64_t last_handle;
    _Atomic uint64_t count; // of entries: none costs no lock
    struct lock lock;       // "fetch_table": protects all below
    struct condition changed;
    struct hash_table entries;
    struct list_node drops; // of struct fetch_drop
    bool running;
    bool started;
    struct thread thread; // "scan-drop"
};

void fetch_table_init(
    struct fetch_table *t, struct volume *volume, struct kernel_cache *kernel_cache);
void fetch_table_destroy(struct fetch_table *t);
// Closes all files: the kernel does not close those of a connection that broke. Before the volume
// is closed.
void fetch_table_clear(struct fetch_table *t);
// Ends the thread; later drops are forgotten. As seeker_stop.
void fetch_table_stop(struct fetch_table *t);

// A number for an open file.
uint64_t fetch_table_new_handle(struct fetch_table *t);
// Sets the options of an open file, instead of those that it had.
void fetch_table_set(struct fetch_table *t, uint64_t handle, struct object_id object,
    const struct fetch_options *options, bool past_kernel);
// The entry with a reference, or NULL: it is read in the usual way.
struct fetch_entry *fetch_table_get(struct fetch_table *t, uint64_t handle);
void fetch_table_put(struct fetch_table *t, struct fetch_entry *e); // NULL is fine
// The file is closed.
void fetch_table_close(struct fetch_table *t, uint64_t handle);
// The kernel keeps what a scan is about to read at `offset`.
void fetch_table_note_cached(struct fetch_table *t, struct fetch_entry *e, uint64_t offset);

#endif
