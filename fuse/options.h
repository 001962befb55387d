// SPDX-License-Identifier: Apache-2.0
// The command line of ckptfs: the options of the volume (volume_config_table), those of every FUSE
// mount, and the options that mount(8) and /etc/fstab add. One thread.
#ifndef CKPTFS_FUSE_OPTIONS_H
#define CKPTFS_FUSE_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buffer.h"
#include "base/compiler.h"
#include "volume/volume_config.h"

struct options {
    struct volume_config config; // with the source
    char *mountpoint;            // as given
    char *fsname;                // shown as the mounted device; NULL: the source
    bool foreground;
    bool debug; // libfuse prints every request
    bool help;
    bool version;
    bool allow_other;
    bool sync;
    bool no_atime;
    bool no_directory_atime;
    bool no_cpu_latency;
    bool core_dumps;
    uint64_t max_read;
    uint64_t max_readahead;
    uint64_t max_background;
    uint64_t time_granularity_ms;
    struct buffer kernel; // "name,name=value,...": libfuse passes them to mount(2)
};

// 0, or -EINVAL with a text in `error`. Relative paths of options become absolute, because the
// daemon leaves the working directory.
MUST_CHECK int options_parse(
    struct options *options, int argc, char *const argv[], struct buffer *error);
void options_free(struct options *options);
void options_help(struct buffer *out);

// Calls `take` with each option of a list separated by commas; "\," stands for a comma in an
// option and "\\" for a backslash. Stops at the first result that is not 0 and returns it.
typedef int options_take(void *argument, const char *option, struct buffer *error);
MUST_CHECK int options_split(
    const char *list, options_take *take, void *argument, struct buffer *error);

// Appends `option` to a list for options_split (and for libfuse).
void options_append(struct buffer *list, const char *option);

#endif
