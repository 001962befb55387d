// SPDX-License-Identifier: Apache-2.0
// Pins of snapshots and forks whose commands died half-way (doc/retention.md, Pins that nobody
// needs). The owner's sweep ends them when they are old. A command that is only asleep fails when
// it goes on, or makes what it lost anew; one that was finished meanwhile is left alone.
#ifndef CKPTFS_RETENTION_UNFINISHED_H
#define CKPTFS_RETENTION_UNFINISHED_H

#include "remote/remote_retention.h"

struct unfinished_options {
    const struct remote_place *place;
    struct manifest *manifest;
    struct db_id db;
    const struct remote_pins *pins; // a listing, which may be a while old
    uint64_t age_ms;                // younger objects stay
    uint64_t reader_pin_ms;         // an older pin of a reader is one that was left behind
    bool dry_run;
};

// Pins that were deleted go to `pins_out` (`dry_run`: that would be, now or by a later sweep). 0;
// -ESTALE: another host has the volume; or the store's error: the next sweep goes on.
MUST_CHECK int unfinished_sweep(const struct unfinished_options *options, uint64_t *pins_out);

#endif
