// SPDX-License-Identifier: Apache-2.0
// A writer that was away for long creates its record in a place that may be free only because the
// record that lay there was deleted. The records around it tell:
//
//     the record before    the next one that is there          verdict
//     there                none                                the new record is the newest
//     there                follows at once, names its hash     it was followed: part of the chain
//     there                any other                           -ESTALE: another host went on
//     not there            any                                 -ESTALE: records were deleted
//     not there            none                                -EIDRM: the volume was destroyed
#include <errno.h>

#include "platform/log.h"
#include "remote/remote_internal.h"

// Whether the record at `next` names the hash: 1 or 0.
static int
names_hash(
    const struct remote_place *place, uint64_t next, uint64_t bytes, const struct sha256 *hash)
{
    BUFFER_AUTO name = {0};
    struct manifest_record_header h;
    remote_key(place, REMOTE_RECORD, next, &name);
    int rc = remote_header_fetch(place, buffer_string(&name), bytes, &h);
    return rc < 0 ? rc : sha256_equal(&h.previous, hash);
}

// 0, -ESTALE, -EIDRM, or that it cannot be found out.
static int
judge_place(const struct remote_place *place, uint64_t sequence, const struct sha256 *hash)
{
    struct remote_walk walk;
    uint64_t found;
    uint64_t bytes;
    bool before = false;
    bool follows = false;
    bool linked = false;
    int rc;
    remote_walk_begin(&walk, place, REMOTE_RECORD, sequence - 2);
    while (!follows && (rc = remote_walk_next(&walk, &found, &bytes)) > 0) {
        before |= found == sequence - 1;
        follows = found > sequence;
        if (found != sequence + 1)
            continue;
        rc = names_hash(place, found, bytes, hash);
        linked = rc == 1;
        if (rc < 0)
            break;
    }
    remote_walk_end(&walk);
    if (rc < 0)
        return rc;
    if (before && (!follows || linked))
        return 0;
    return follows ? -ESTALE : -EIDRM;
}

static int
take_back(const struct remote_place *place, uint64_t sequence)
{
    BUFFER_AUTO name = {0};
    remote_key(place, REMOTE_RECORD, sequence, &name);
    return remote_small_delete(place, buffer_string(&name));
}

int
remote_manifest_check_ground(
    const struct remote_place *place, uint64_t sequence, const struct sha256 *hash)
{
    int verdict = judge_place(place, sequence, hash);
    if (verdict != -ESTALE && verdict != -EIDRM)
        return verdict;
    int rc = take_back(place, sequence);
    if (rc < 0)
        return rc;
    const char *text = verdict == -EIDRM
                           ? "the volume was destroyed while this host was away"
                           : "another host took the volume while this host was away, and went on";
    log_error(verdict == -EIDRM ? "remote.destroyed" : "remote.passed_over", "%s", text);
    remote_store_set_error("%s", text);
    return verdict;
}
