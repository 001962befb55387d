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

// Publishes a new generation that equals the one that `to` names (as at=), and tells its number.
// The generations in between stay as long as the policy keeps them. -EALREADY: the newest one
// equals it.
MUST_CHECK int volume_rollback(const struct volume_config *config, const char *to,
    struct generation *generation_out, struct buffer *error);

// Makes the volume `new_source`, which must not exist, out of the generation that `at` names (NULL:
// the newest). Both must lie in the same store. It copies no data: the parent keeps the generation
// as long as the fork's pin exists.
MUST_CHECK int volume_fork(const struct volume_config *config, const char *at,
    const char *new_source, struct generation *generation_out, struct buffer *error);

// The operations of volume.h (enum volume_operation) on a volume that is not mounted. The text goes
// to `out`; `name` and `at` of a new snapshot: at NULL is the newest generation.
MUST_CHECK int volume_offline_operation(const struct volume_config *config, unsigned kind,
    unsigned flags, const char *argument, const char *at, struct buffer *out, struct buffer *error);

#endif
