// SPDX-License-Identifier: Apache-2.0
// The options of a volume, from one table: name, type, range, default, help. `ckptfs --help`, -o
// parsing and ckptctl read the table; a lint compares the man page with it. A config belongs to one
// thread at a time.
#ifndef CKPTFS_VOLUME_VOLUME_CONFIG_H
#define CKPTFS_VOLUME_VOLUME_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buffer.h"
#include "base/compiler.h"

struct volume_config {
    char *source;   // SOURCE as given
    char *root;     // storage root; default /var/lib/ckptfs, or $XDG_STATE_HOME/ckptfs for others
    char *endpoint; // s3
    char *region;
    char *profile;
    char *ca_file;
    bool virtual_host;
    bool create;
    bool read_only;
    bool takeover;
    bool discard_unpublished;
    bool unsafe_store; // accept a store without conditional writes
    char *at;          // a generation, snapshot or time; NULL: the newest
    uint64_t checkpoint_interval_ms;
    uint64_t merge_interval_ms; // 0: no upkeep
    uint64_t wal_limit_bytes;
    uint64_t page_cache_bytes;
    uint64_t quota_bytes;        // of the volume; 0: none
    uint64_t tenant_quota_bytes; // of the tenant in the storage root; 0: as it was
    uint64_t root_quota_bytes;   // of the storage root; 0: as it was
    uint64_t job_quota;          // the share of the quotas that jobs may fill, in per cent
    uint64_t upload_threads;
    uint64_t read_limit_bytes;        // a second; 0: none
    uint64_t read_requests;           // at once; 0: no limit
    uint64_t upload_limit_bytes;      // a second; 0: none
    uint64_t tenant_read_limit_bytes; // of the tenant in the storage root; 0: as it was
    uint64_t tenant_read_requests;
    bool hedge_reads; // a late read is sent again
    bool hot_set;     // the hot parts are published, and fetched after a restore
    uint64_t lease_ttl_ms;
    uint64_t read_deadline_ms;
    uint64_t unmount_timeout_ms;
    bool writeback; // FUSE: the kernel's write-back cache
    uint64_t fuse_threads;
    char *log_file;
    char *log_level;
};

enum config_type { CONFIG_FLAG, CONFIG_BYTES, CONFIG_DURATION, CONFIG_NUMBER, CONFIG_TEXT };

struct config_entry {
    const char *name; // as in -o name or -o name=value
    enum config_type type;
    size_t offset; // in struct volume_config
    uint64_t minimum, maximum;
    const char *fallback; // the default as one would write it; NULL: unset
    const char *argument; // word behind '=' in the help text; NULL for flags
    const char *help;
};

extern const struct config_entry volume_config_table[];
extern const size_t volume_config_count;

// All defaults filled in.
void volume_config_init(struct volume_config *c);
// Copies the texts too. `to` need not be initialised.
void volume_config_copy(struct volume_config *to, const struct volume_config *from);
void volume_config_free(struct volume_config *c);

// Takes one option "name" or "name=value". 0; -ENOENT when the table has no such name; -EINVAL with
// a text in `error` that names the option, the given value and the valid ones. Flags also take
// "no_name" and "name=on|off". Sizes take K, M, G, T (powers of 1024); durations take ms, s, m, h
// (a bare number is seconds).
MUST_CHECK int volume_config_set(struct volume_config *c, const char *option, struct buffer *error);

// Whether the options go together and the source is one: 0, or -EINVAL with a text for the user.
MUST_CHECK int volume_config_check(const struct volume_config *c, struct buffer *error);

// A size as the options take it, as a quota: 0, or at least the minimum of a volume. -EINVAL with a
// text.
MUST_CHECK int volume_config_parse_quota(
    const char *name, const char *text, uint64_t *bytes_out, struct buffer *error);

// A size a second as the options take it: 0, or at least LIMITER_RATE_MIN. -EINVAL with a text.
MUST_CHECK int volume_config_parse_rate(
    const char *name, const char *text, uint64_t *bytes_out, struct buffer *error);

// The name of the table that is most like the option's, or NULL.
const char *volume_config_similar(const char *option);

// One line an option, for --help.
void volume_config_help(struct buffer *out);

#endif
