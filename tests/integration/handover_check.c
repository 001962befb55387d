// SPDX-License-Identifier: Apache-2.0
// What is written and not synced is known to whoever asks: SEEK_HOLE, and a checkpoint. The files
// stay open while that is asked, for close(2) would make the kernel hand over what it holds back.
// Usage: handover_check write DIRECTORY ROUND    prints the generation that holds the round
//        handover_check verify DIRECTORY ROUND
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fuse/ckptfs_ioctl.h"

#define FILES        12
#define FILE_BYTES   (4u << 20)
#define MAPPED_BYTES (8u << 20)
#define BLOCK        (1u << 20)

static void
give_up(const char *what)
{
    fprintf(stderr, "handover_check: %s: %s\n", what, strerror(errno));
    exit(1);
}

// Every page differs from every other one, and from itself in other rounds.
static void
fill(uint8_t *p, size_t n, unsigned round, unsigned file, uint64_t at)
{
    for (size_t i = 0; i < n; i += 8) {
        uint64_t v =
            (at + i + 1) * 0x9e3779b97f4a7c15u ^ ((uint64_t)round << 32 | (uint64_t)file << 8 | 1);
        memcpy(p + i, &v, sizeof(v));
    }
}

static int
open_file(unsigned file, int flags)
{
    char name[32];
    snprintf(name, sizeof(name), "file-%u", file);
    int fd = open(name, flags, 0666);
    if (fd < 0)
        give_up(name);
    return fd;
}

static void
write_file(int fd, unsigned round, unsigned file)
{
    static uint8_t block[BLOCK];
    if (ftruncate(fd, 0) < 0)
        give_up("truncate");
    for (uint64_t at = 0; at < FILE_BYTES; at += BLOCK) {
        fill(block, BLOCK, round, file, at);
        if (pwrite(fd, block, BLOCK, (off_t)at) != (ssize_t)BLOCK)
            give_up("write");
    }
}

// Through a mapping, and without an open file.
static void
write_mapping(unsigned round)
{
    int fd = open_file(FILES, O_RDWR | O_CREAT);
    if (ftruncate(fd, MAPPED_BYTES) < 0)
        give_up("truncate");
    uint8_t *map = mmap(NULL, MAPPED_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED)
        give_up("map");
    close(fd);
    fill(map, MAPPED_BYTES, round, FILES, 0);
}

static void
write_round(unsigned round)
{
    int fds[FILES];
    for (unsigned i = 0; i < FILES; i++) {
        fds[i] = open_file(i, O_RDWR | O_CREAT);
        write_file(fds[i], round, i);
        off_t hole = lseek(fds[i], 0, SEEK_HOLE);
        if (hole != FILE_BYTES) {
            fprintf(stderr, "handover_check: file %u has a hole at %jd\n", i, (intmax_t)hole);
            exit(1);
        }
        write_file(fds[i], round, i);
    }
    write_mapping(round);
    struct ckptfs_checkpoint c = {.version = CKPTFS_ABI_VERSION, .flags = CKPTFS_CHECKPOINT_WAIT};
    if (ioctl(fds[0], CKPTFS_IOC_CHECKPOINT, &c) < 0)
        give_up("checkpoint");
    printf("%llu\n", (unsigned long long)c.generation);
}

static void
verify_file(unsigned round, unsigned file, uint64_t bytes)
{
    static uint8_t block[BLOCK];
    static uint8_t expected[BLOCK];
    int fd = open_file(file, O_RDONLY);
    for (uint64_t at = 0; at < bytes; at += BLOCK) {
        fill(expected, BLOCK, round, file, at);
        ssize_t n = pread(fd, block, BLOCK, (off_t)at);
        if (n < 0)
            give_up("read");
        if (n == (ssize_t)BLOCK && memcmp(block, expected, BLOCK) == 0)
            continue;
        fprintf(stderr, "handover_check: file %u is not that of round %u in the MiB at %ju\n", file,
            round, (uintmax_t)at);
        exit(1);
    }
    close(fd);
}

int
main(int argc, char *argv[])
{
    if (argc != 4 || chdir(argv[2]) < 0) {
        fprintf(stderr, "Usage: handover_check write|verify DIRECTORY ROUND\n");
        return 1;
    }
    unsigned round = (unsigned)strtoul(argv[3], NULL, 10);
    if (strcmp(argv[1], "write") == 0) {
        write_round(round);
        return 0;
    }
    for (unsigned i = 0; i < FILES; i++)
        verify_file(round, i, FILE_BYTES);
    verify_file(round, FILES, MAPPED_BYTES);
    return 0;
}
