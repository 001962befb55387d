// SPDX-License-Identifier: Apache-2.0
// The commands of ckptctl: a table with the name, operands, help and function of each.
#ifndef CKPTFS_FUSE_CKPTCTL_COMMANDS_H
#define CKPTFS_FUSE_CKPTCTL_COMMANDS_H

#include <getopt.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "volume/volume_config.h"

struct arguments {
    struct volume_config config; // create
    bool json;
    bool no_wait;
    bool local;
    bool fuse;
    bool quiet;
    int64_t wait_seconds;    // unmount; -1: without limit
    bool check;              // status
    int64_t max_age_seconds; // status --check; -1: any age is good
    const char *root;        // status, metrics
    const char *textfile;    // metrics
    const char *policy;      // retention; quota: a size; variant and flags
    const char *quota_of;    // quota: whose, in the words of the daemon; NULL: the volume's
    const char *head;        // truncate
    const char *tail;        // likewise
    bool watch;              // jobs
    bool all;                // evict, hydrate
    bool pin;                // hydrate
    bool hot;                // hydrate
    bool cold;               // cat
    bool follow, leave;      // changes
    const char *subscriber;
    const char *after;
    bool dry_run;
    bool sweep;
    bool yes;
    bool detach;
    bool data, repair, partial;
    const char *at;      // a generation, snapshot or time
    const char *name;    // of a snapshot, or the first of two operands
    const char *operand; // SOURCE or MOUNTPOINT; NULL with `root`
};

struct command {
    const char *name;
    const char *switches; // for getopt_long: the short ones; 'h' is always there
    const struct option *long_switches;
    const char *usage;
    const char *help;    // the text below the usage line
    const char *operand; // of which there is exactly one, or with "NAME " before it two
    int (*run)(const struct arguments *arguments);
    bool lists_options; // --help tells the options of the volume, too
    bool takes_root;    // --root ROOT stands for the operand
};

// Values of switches that have no letter.
enum {
    SWITCH_JSON = 256,
    SWITCH_NO_WAIT,
    SWITCH_LOCAL,
    SWITCH_FUSE,
    SWITCH_WAIT,
    SWITCH_ROOT,
    SWITCH_SET,
    SWITCH_DRY_RUN,
    SWITCH_SWEEP,
    SWITCH_AT,
    SWITCH_YES,
    SWITCH_OF_ROOT,
    SWITCH_HEAD,
    SWITCH_TAIL,
    SWITCH_WATCH,
    SWITCH_ALL,
    SWITCH_PIN,
    SWITCH_HOT,
    SWITCH_FOLLOW,
    SWITCH_SUBSCRIBER,
    SWITCH_AFTER,
    SWITCH_LEAVE,
    SWITCH_DETACH,
    SWITCH_DATA,
    SWITCH_REPAIR,
    SWITCH_PARTIAL,
    SWITCH_COLD,
    SWITCH_OF_TENANT,
    SWITCH_OF_JOBS,
    SWITCH_TEXTFILE,
    SWITCH_CHECK,
    SWITCH_MAX_AGE,
};

extern const struct command commands[];
extern const size_t command_count;

#endif
