// SPDX-License-Identifier: Apache-2.0
// A storage root seen from outside: its volumes, the daemons that have them mounted, and the amount
// of data that is not in the store yet. Any thread; changes nothing.
#ifndef CKPTFS_VOLUME_VOLUME_ROOT_H
#define CKPTFS_VOLUME_VOLUME_ROOT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buffer.h"
#include "base/compiler.h"
#include "base/types.h"
#include "volume/volume_lost.h"

struct volume_root_entry {
    char source[1100]; // as for a mount
    char tenant[65];
    struct uuid volume;
    bool mounted; // a process holds it
    long pid;     // of that process, as it wrote it down; 0: not known
    bool closing; // that process has been unmounted and makes its last publication:
    uint64_t closing_done_bytes, closing_total_bytes; // progress of that
    uint64_t closing_errors; // of the store in a row, while it makes requests again; or 0
    char closing_error[256]; // the last one, its cause first
    bool importing;          // not whole: the next mount reads it from the store anew
    bool fenced;             // another writer took it over
    uint64_t epoch;
    struct generation local;
    struct generation published;
    uint64_t local_time_ms; // wall clock
    uint64_t published_time_ms;
    uint64_t unpublished_blobs, unpublished_bytes; // of the local generation
    struct volume_lost lost;                       // of the local generation
    uint64_t log_bytes; // of the log behind the local generation, at least. A daemon that was
                        // killed may have left more
};

// Whether the root holds anything of the volume that is not in the store.
bool volume_root_is_published(const struct volume_root_entry *e);

typedef int volume_root_visit(void *argument, const struct volume_root_entry *e);
// Visits each volume of the root until `visit` returns something else than 0, and returns that.
// -ENOENT when there is no storage root, -EBADMSG when its manifest is damaged, or another -errno;
// `error` gets a text for the user.
MUST_CHECK int volume_root_list(
    const char *root, volume_root_visit *visit, void *argument, struct buffer *error);

struct manifest;
struct path_hold;
// A storage root that is looked at without a mount.
struct volume_root {
    char *path; // without links
    struct path_hold *hold;
    struct manifest *manifest;
};
// Holds a storage root and opens its manifest. Errors as above; then there is nothing to close.
MUST_CHECK int volume_root_open(
    const char *path, struct volume_root *root_out, struct buffer *error);
// Of zeros: nothing.
void volume_root_close(struct volume_root *root);

#endif
