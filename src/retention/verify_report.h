// SPDX-License-Identifier: Apache-2.0
// What a verification has found, as bytes of bounded size: a job keeps them (doc/format.md, Report
// of a verification). Damaged objects that have no room are left out; the caller has their number.
#ifndef CKPTFS_RETENTION_VERIFY_REPORT_H
#define CKPTFS_RETENTION_VERIFY_REPORT_H

#include "retention/verify.h"

#define VERIFY_REPORT_BYTES_MAX 49152u

// Adds to `into` the damage that `from` has and `into` has not; generations and files, too. Only
// that of blobs and generations unless `chain`. Calls `tell` (may be NULL) for each damaged object
// that is new.
void verify_merge(struct verify_result *into, const struct verify_result *from, bool chain,
    void (*tell)(const struct verify_damage *damage));

// Appends the damaged objects, in their order, as long as there is room.
void verify_report_encode(const struct verify_result *result, struct buffer *out);
// Fills `result_out` with what verify_report_encode wrote: damages, and `damaged` as their number.
// False when the bytes do not hold together; verify_result_free in either case.
bool verify_report_decode(const void *p, size_t n, struct verify_result *result_out);

#endif
