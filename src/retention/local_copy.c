// SPDX-License-Identifier: Apache-2.0
#include "retention/local_copy.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/checksum.h"
#include "platform/file.h"
#include "platform/memory.h"
#include "platform/path.h"

static bool
has_hash(int fd, uint64_t bytes, const struct sha256 *hash)
{
    struct stat st;
    struct sha256 found;
    uint8_t part[65536];
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || (uint64_t)st.st_size != bytes)
        return false;
    struct sha256_stream *stream = sha256_stream_new();
    bool good = true;
    for (uint64_t done = 0; good && done < bytes;) {
        size_t n = bytes - done < sizeof(part) ? (size_t)(bytes - done) : sizeof(part);
        good = file_read_exact_at(&file_ops_system, fd, part, n, done) == 0;
        if (good)
            sha256_stream_update(stream, part, n);
        done += n;
    }
    sha256_stream_finish(stream, &found);
    sha256_stream_free(stream);
    return good && sha256_equal(&found, hash);
}

int
local_copy_open(const char *hot_cache, const struct sha256 *hash, uint64_t bytes)
{
    char hex[65];
    DIR *dir = path_open_directory(hot_cache);
    int fd = -ENOENT;
    sha256_to_hex(hash, hex);
    for (struct dirent *e; dir && fd < 0 && (e = readdir(dir));) {
        if (e->d_name[0] == '.')
            continue;
        CLEANUP(memory_free_auto)
        char *path = memory_printf("%s/%s/%s.blob", hot_cache, e->d_name, hex);
        int found = path_open(path, O_RDONLY | O_NONBLOCK, 0);
        if (found >= 0 && has_hash(found, bytes, hash))
            fd = found;
        else if (found >= 0)
            close(found);
    }
    if (dir)
        closedir(dir);
    return fd;
}
