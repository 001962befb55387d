// SPDX-License-Identifier: Apache-2.0
// Snapshots: names for published generations, which stay as long as they have one. A snapshot is
// two objects in the bucket, the pin that keeps the generation and
//
//     snapshots/{tenant}/{number}/{name}.json
//
// which takes the name (its creation is conditional) and describes the snapshot. These functions
// write the pin first and delete it last. A host need not own or mount the volume to make or drop
// snapshots. Any thread.
//
// A pin without a name is of a command that died, or is under way. A sweep ends it when it is old
// (retention/unfinished.h): it puts SNAPSHOT_UNFINISHED in the place of the name, so that the
// command can take the name no more, a day later deletes the pin, and then the object. A command
// that takes the name looks whether its pin is still there. Before a command deletes something it
// looks whether it was asleep since it found out that it may.
#ifndef CKPTFS_RETENTION_SNAPSHOT_H
#define CKPTFS_RETENTION_SNAPSHOT_H

#include "remote/remote_retention.h"

// The whole object under the name of a snapshot that was never finished.
#define SNAPSHOT_UNFINISHED "{\"format\":1,\"unfinished\":true}\n"

// The key of the object that takes the name; that of "" tells where they lie.
void snapshot_key(const struct remote_place *place, const char *name, struct buffer *out);
// The generation that the object under the name tells of; {0}: it is none of a snapshot. -ENOENT:
// the name is free.
MUST_CHECK int snapshot_named_generation(
    const struct remote_place *place, const char *name, struct generation *generation_out);

// Names a generation. 0; -EEXIST: the name is taken by a snapshot of another generation; -ENOENT:
// there is no such generation; -ESTALE: it has expired; -EINVAL: this is no name; -EBUSY: a
// sweep is about to free the name, or a command that died has left it; or the store's error; with a
// sentence in `problem_out`. 0 also when the same snapshot exists already.
MUST_CHECK int snapshot_create(const struct remote_place *place, const char *name,
    struct generation generation, struct buffer *problem_out);
// Also what a dead command left under the name. -ENOENT: there is nothing. -EBUSY: a sweep is
// about to remove it. -ETIME: this command was asleep; a sweep ends it.
MUST_CHECK int snapshot_drop(
    const struct remote_place *place, const char *name, struct buffer *problem_out);
// The JSON object of a snapshot, into `out`.
MUST_CHECK int snapshot_show(
    const struct remote_place *place, const char *name, struct buffer *out);
// The generation of a snapshot; -ENOENT.
MUST_CHECK int snapshot_find(
    const struct remote_place *place, const char *name, struct generation *generation_out);

// Writes a pin and then looks whether its generation is retained, as each user of a generation
// must. -ENOENT, -ESTALE as above, or the store's error: it has taken the pin back. For pins with a
// unique name.
MUST_CHECK int snapshot_pin(
    const struct remote_place *place, const struct remote_pin *pin, struct buffer *problem_out);

// Resolves the text of `at=`: a generation's number, the name of a snapshot, or a time (2026-01-31,
// 2026-01-31T12:00 or 2026-01-31T12:00:00, with Z: UTC, without: local time), which means the
// newest generation that is not younger. Looks in the bucket whether it is retained. Errors as
// above; -ENOENT without a problem: there is no volume.
MUST_CHECK int snapshot_resolve(const struct remote_place *place, const char *text,
    struct generation *generation_out, struct buffer *problem_out);

// Parses a time into milliseconds since 1970; false when the text is none.
bool snapshot_parse_time(const char *text, uint64_t *ms_out);
// UTC, as 2026-01-31T12:00:00Z.
void snapshot_format_time(uint64_t ms, struct buffer *out);

#endif
