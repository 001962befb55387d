// SPDX-License-Identifier: Apache-2.0
// Snapshots: names for published generations, which stay as long as they have one. Two objects in
// the bucket make one, the pin that keeps the generation and
//
//     snapshots/{tenant}/{number}/{name}.json
//
// which takes the name (it is created conditionally) and tells people about it. The pin is written
// first and deleted last. Anybody may make and drop snapshots: the volume need not be his, nor
// mounted.
#ifndef CKPTFS_RETENTION_SNAPSHOT_H
#define CKPTFS_RETENTION_SNAPSHOT_H

#include "remote/remote_retention.h"

// Names a generation. 0; -EEXIST: the name is taken by a snapshot of another generation; -ENOENT:
// there is no such generation; -ESTALE: it has expired; -EINVAL: this is no name; or the store's
// error. What is wrong stands in `problem_out` as a sentence. Fine when it exists already.
MUST_CHECK int snapshot_create(const struct remote_place *place, const char *name,
    struct generation generation, struct buffer *problem_out);
// -ENOENT: there is none of this name.
MUST_CHECK int snapshot_drop(
    const struct remote_place *place, const char *name, struct buffer *problem_out);
// The JSON object of a snapshot, into `out`.
MUST_CHECK int snapshot_show(
    const struct remote_place *place, const char *name, struct buffer *out);
// The generation of a snapshot; -ENOENT.
MUST_CHECK int snapshot_find(
    const struct remote_place *place, const char *name, struct generation *generation_out);

// Writes a pin and then looks whether its generation is retained, as everybody must who wants one
// to stay. -ENOENT, -ESTALE as above, or the store's error: the pin was taken back. For pins whose
// name nobody else has.
MUST_CHECK int snapshot_pin(
    const struct remote_place *place, const struct remote_pin *pin, struct buffer *problem_out);

// What `at=` says: a generation's number, the name of a snapshot, or a time (2026-01-31,
// 2026-01-31T12:00 or 2026-01-31T12:00:00, with Z: UTC, without: local time), which is the newest
// generation that is not younger. Looks in the bucket whether it is retained. Errors as above;
// -ENOENT without a problem: there is no volume.
MUST_CHECK int snapshot_resolve(const struct remote_place *place, const char *text,
    struct generation *generation_out, struct buffer *problem_out);

// Whether the text is a time, and which: milliseconds since 1970.
bool snapshot_parse_time(const char *text, uint64_t *ms_out);
// UTC, as 2026-01-31T12:00:00Z.
void snapshot_format_time(uint64_t ms, struct buffer *out);

#endif
