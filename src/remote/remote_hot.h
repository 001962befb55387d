// SPDX-License-Identifier: Apache-2.0
// The set of hot parts in the bucket (format/hot_set.h): one object a volume, beside the manifest,
// that its owner overwrites.
//
//     PREFIX/hints/{tenant}/{number}/hot
//
// Programs that do not know the folder never look there; when such a program destroys a volume, the
// object stays behind. Functions return 0 or -errno; any thread.
#ifndef CKPTFS_REMOTE_REMOTE_HOT_H
#define CKPTFS_REMOTE_REMOTE_HOT_H

#include "format/hot_set.h"
#include "remote/remote_manifest.h"

// Reads the set of this volume: one GET. -ENOENT: there is none; or one that is damaged, of another
// volume, of a newer format or of a later epoch than `epoch` (logged); such a set is not believed.
// *later_out: it is of a later epoch. The caller frees the set, also after an error.
MUST_CHECK int remote_hot_read(const struct remote_place *place, const struct uuid *volume,
    uint64_t epoch, struct hot_set *set_out, bool *later_out);

// For the owner: writes the set (one PUT) unless that of a later epoch is there. Then it looks
// whether the chain is still its own, and if it is not (another host has taken the volume, or
// destroyed it), deletes the set: so nothing is left behind by a host that was stalled. `db` is the
// manifest's. 1 GET before, 2 after. -ESTALE: the chain is not its own.
MUST_CHECK int remote_hot_write(
    const struct remote_place *place, const struct db_record *db, const struct hot_set *set);

// The folder below which the sets of all volumes are.
#define REMOTE_HINTS "hints"

#endif
