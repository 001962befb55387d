// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include "platform/mapped_file.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

static uint64_t
resident_file_bytes(void)
{
    char text[128];
    int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    ssize_t n = read(fd, text, sizeof(text) - 1);
    close(fd);
    if (n <= 0)
        return 0;
    text[n] = 0;
    unsigned long long size, resident, shared;
    if (sscanf(text, "%llu %llu %llu", &size, &resident, &shared) != 3)
        return 0;
    return shared * (uint64_t)sysconf(_SC_PAGESIZE);
}

// A line of /proc/self/maps: "from-to rwxp offset major:minor inode path".
static bool
parse_mapping(const char *line, const struct stat *file, uintptr_t *from_out, uintptr_t *to_out)
{
    unsigned long from, to, inode;
    unsigned major_number, minor_number;
    char mode[5];
    if (sscanf(line, "%lx-%lx %4s %*x %x:%x %lu", &from, &to, mode, &major_number, &minor_number,
            &inode) != 6)
        return false;
    *from_out = from;
    *to_out = to;
    return mode[3] == 's' && mode[1] == '-' && inode == file->st_ino &&
           makedev(major_number, minor_number) == file->st_dev;
}

void
mapped_file_trim(int fd, uint64_t limit_bytes)
{
    struct stat st;
    if (resident_file_bytes() <= limit_bytes || fstat(fd, &st) < 0)
        return;
    FILE *maps = fopen("/proc/self/maps", "re");
    if (!maps)
        return;
    char *line = NULL;
    size_t capacity = 0;
    while (getline(&line, &capacity, maps) >= 0) {
        uintptr_t from, to;
        if (parse_mapping(line, &st, &from, &to))
            madvise((void *)from, to - from, MADV_DONTNEED);
    }
    free(line);
    fclose(maps);
}
