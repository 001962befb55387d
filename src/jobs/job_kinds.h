// SPDX-License-Identifier: Apache-2.0
// The kinds of jobs: the name of each, the key that at most one unfinished job of it may have, and
// how its parameters are written. Records of jobs (manifest/manifest.h) carry the parameters as
// bytes with a version, so that a kind can change without the table that holds it. Pure.
#ifndef CKPTFS_JOBS_JOB_KINDS_H
#define CKPTFS_JOBS_JOB_KINDS_H

#include "base/buffer.h"
#include "base/bytes.h"
#include "base/compiler.h"
#include "manifest/manifest.h"

struct job_kind_entry {
    enum job_kind kind;
    const char *name;
    unsigned payload_version; // the newest; 0: the kind has no parameters
    // Appends the parameters, in the version that `version` tells.
    void (*encode)(const void *parameters, struct buffer *out);
    // False when they do not hold together; `version` is 1 to the newest.
    bool (*decode)(unsigned version, struct byte_reader *r, void *parameters_out);
    // Appends the key that tells unfinished jobs of the kind apart, at most JOB_KEY_BYTES_MAX.
    // NULL: there is one at a time in a db.
    void (*key)(const void *parameters, struct buffer *out);
    // The lowest version that holds the parameters; NULL: the newest is the only one.
    unsigned (*version)(const void *parameters);
};

// NULL: no such kind.
const struct job_kind_entry *job_kind_find(enum job_kind kind);
const struct job_kind_entry *job_kind_find_name(const char *name);

// Parameters of VerifyManifest, and what it has found so far.
struct job_verification {
    bool data;             // read every blob
    uint64_t damaged;      // objects
    const uint8_t *report; // of them, as far as there is room (retention/verify_report.h); of a job
    uint32_t report_length; // that was read: in its payload
};
// Parameters of DownloadCheckpoint, of which there is one a generation.
struct job_generation {
    struct generation generation;
};
// Parameters of TruncateAppendOnly, of which there is one an object.
struct job_truncation {
    struct object_id object;
    bool tail;           // everything from `offset` on goes; else everything before it
    uint64_t offset;     // in bytes
    uint64_t size;       // of the file when the job was submitted
    struct uuid session; // of the process in which it was
};

// Parameters of HydrateFiles, of which there is one an object, and one for the hot parts.
struct job_hydration {
    struct object_id object; // 0: all files
    bool keep;               // they stay in hot_cache
    bool hot;                // the hot parts of all files alone
};

// Sets kind, key and payload of a job. `payload` holds the payload's bytes and must live as long as
// they are used. `parameters` is NULL for a kind without.
void job_set_kind(
    struct job_record *job, enum job_kind kind, const void *parameters, struct buffer *payload);
// The parameters of a job: 0, -ENOTSUP when a newer program wrote them, -EBADMSG when they do not
// hold together.
MUST_CHECK int job_read_parameters(const struct job_record *job, void *parameters_out);

#endif
