// SPDX-License-Identifier: Apache-2.0
#include "fuse/process_limits.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "platform/file.h"
#include "platform/log.h"
#include "wal/wal.h"

// Files besides the segments of the log: 128 of hot_cache and more while they are in use, the
// manifest, connections to the store, staging, the device.
#define OTHER_FILES 512u

static int
set_files(const struct volume_config *config, struct buffer *error)
{
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) < 0)
        return 0;
    files.rlim_cur = files.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &files);
    (void)getrlimit(RLIMIT_NOFILE, &files);
    uint64_t segments =
        config->read_only || config->at ? 0 : wal_segments_of(config->wal_limit_bytes);
    if (files.rlim_cur == RLIM_INFINITY || segments + OTHER_FILES <= files.rlim_cur)
        return 0;
    buffer_printf(error,
        "wal_limit takes up to %llu segment files, and this process may open only %llu files; "
        "choose a "
        "smaller wal_limit, or raise the limit (ulimit -n, LimitNOFILE= of a systemd unit)",
        (unsigned long long)segments, (unsigned long long)files.rlim_cur);
    return -EMFILE;
}

// The filter also holds where the kernel hands dumps to a program, with any limit of their size.
static void
keep_memory_out_of_dumps(void)
{
    struct rlimit core;
    if (getrlimit(RLIMIT_CORE, &core) == 0) {
        core.rlim_cur = 0;
        (void)setrlimit(RLIMIT_CORE, &core);
    }
    CLEANUP(file_close_auto) int fd = open("/proc/self/coredump_filter", O_WRONLY | O_CLOEXEC);
    if (fd >= 0 && write(fd, "0", 1) != 1)
        log_debug("process.core_dumps", "memory may get into core dumps");
}

int
process_limits_set(const struct options *options, struct buffer *error)
{
    if (!options->core_dumps)
        keep_memory_out_of_dumps();
    return set_files(&options->config, error);
}
