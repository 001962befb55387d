// SPDX-License-Identifier: Apache-2.0
// Operations on a volume in the store that is not mounted. Each function makes a temporary
// directory (TMPDIR) for its manifest and removes it. A function that changes the volume claims it
// like a mount: it fails while another host has it, unless config->takeover, and gives it back
// afterwards. A storage root that had the volume before imports it anew at its next mount.
//
// Failures put a sentence into `error`.
#ifndef CKPTFS_VOLUME_VOLUME_OFFLINE_H
#define CKPTFS_VOLUME_VOLUME_OFFLINE_H

#include "base/buffer.h"
#include "base/compiler.h"
#include "base/types.h"
#include "volume/volume_config.h"

// How far an operation is: `done` of `total` (0: not known) steps of `what`. Anything but 0 ends
// the operation, and is its result (-ECANCELED); the same call goes on later.
struct volume_progress {
    int (*tell)(void *argument, const char *what, uint64_t done, uint64_t total);
    void *argument;
};

// Deletes everything that the volume has in the store, and nothing else (remote_destroy.h). Refuses
// with -EBUSY while forks, readers or a live owner need the volume, and names them. Goes on where
// an earlier run stopped. -ENOENT: there is no volume.
MUST_CHECK int volume_destroy(const struct volume_config *config,
    const struct volume_progress *progress, uint64_t *objects_out, struct buffer *error);

// Publishes a new generation that equals the one that `to` names (as at=), and tells its number.
// The generations in between stay as long as the policy keeps them. -EALREADY: the newest one
// equals it.
MUST_CHECK int volume_rollback(const struct volume_config *config, const char *to,
    struct generation *generation_out, struct buffer *error);

// Makes the volume `new_source`, which must not exist, out of the generation that `at` names (NULL:
// the newest). Both must lie in the same store. It copies no data: the parent keeps the generation
// as long as the fork's pins exist. 0 and a sentence in `error`: the fork is complete, and
// something that it can do without failed after that.
MUST_CHECK int volume_fork(const struct volume_config *config, const char *at,
    const char *new_source, struct generation *generation_out, struct buffer *error);

// The result of detaching a fork.
struct volume_detached {
    uint64_t copied, copied_bytes; // blobs, by this run
    struct generation generation;  // the newest, which does not need the parent any more
    // The oldest generation that needs the parent still. {0}: none does, and the parent keeps
    // nothing for the fork any more.
    struct generation needed_by;
};

// Copies the blobs of the fork's newest generation from its parent's part of the store into the
// fork's own, publishes a generation that names the copies, and deletes the pin in the parent when
// no generation of the fork needs it. An interrupted run goes on and copies no blob twice.
MUST_CHECK int volume_detach(const struct volume_config *config,
    const struct volume_progress *progress, struct volume_detached *detached_out,
    struct buffer *error);

struct volume_verify_request {
    bool data;        // read every blob
    bool repair;      // blobs from hot_cache of `root`, catalogs from the records
    const char *root; // a storage root that had the volume; or NULL
    bool json;
    const struct volume_progress *progress; // or NULL
};
struct volume_verified {
    uint64_t damaged; // objects, in the end
    uint64_t repaired;
};

// Looks through all that the volume has in the store: records, catalogs, the state of each
// generation that is kept, and whether every blob is there with the right size. The report goes to
// `out`. 0, also when something is damaged. A volume may be mounted meanwhile, unless a catalog has
// to be repaired.
MUST_CHECK int volume_verify(const struct volume_config *config,
    const struct volume_verify_request *request, struct volume_verified *verified_out,
    struct buffer *out, struct buffer *error);

struct volume_push_request {
    const char *root;
    bool partial;                           // without lost blobs, and without the write-ahead log
    const struct volume_progress *progress; // or NULL
};
struct volume_pushed {
    struct generation generation;
    uint64_t blobs, bytes; // of the generation
    uint64_t uploaded;     // blobs, by this run
    uint64_t lost;         // blobs that the root does not have
    bool log_left;         // the log has changes that were not pushed
};

// Makes the volume config->source, which must not exist, out of the local generation of a volume in
// a storage root: for a root whose bucket is lost. Lost blobs and the files that need them are
// named in `out`. -ENODATA: blobs are lost, and the request is not for a part. Goes on where an
// earlier run stopped.
MUST_CHECK int volume_push(const struct volume_config *config,
    const struct volume_push_request *request, struct volume_pushed *pushed_out, struct buffer *out,
    struct buffer *error);

// The operations of volume.h (enum volume_operation) on a volume that is not mounted. The text goes
// to `out`; `name` and `at` of a new snapshot: at NULL is the newest generation.
MUST_CHECK int volume_offline_operation(const struct volume_config *config, unsigned kind,
    unsigned flags, const char *argument, const char *at, struct buffer *out, struct buffer *error);

#endif
