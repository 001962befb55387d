// SPDX-License-Identifier: Apache-2.0
// What the load programs share: numbered transactions, each acknowledged in a file outside the
// mount only after the database said that it is durable.
//
// Transaction n of a stream inserts n and replaces the body of slot n % slots with body(n), so that
// a database with transactions 1..n has exactly one right content.
#ifndef CKPTFS_TESTS_LOAD_COMMON_H
#define CKPTFS_TESTS_LOAD_COMMON_H

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct load {
    const char *stream;
    int ack_fd;
    size_t body_bytes;
    uint64_t slots;
    uint64_t limit; // transactions; 0: until SIGTERM
    uint8_t *body;
    uint64_t done;
    uint64_t longest_us;
    uint64_t started_us;
};

static volatile sig_atomic_t load_must_stop;

static inline void
load_on_signal(int signal_number)
{
    (void)signal_number;
    load_must_stop = 1;
}

// Exit status 3 is what the database or the file system said, 2 a mistake of the test.
static inline _Noreturn void __attribute__((format(printf, 2, 3)))
load_die(int status, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    exit(status);
}

static inline uint64_t
load_now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

// Incompressible bytes that only n and the length decide.
static inline void
load_body(uint64_t n, uint8_t *out, size_t length)
{
    uint64_t x = n * 0x9e3779b97f4a7c15u + 0x1234567;
    for (size_t i = 0; i < length; i += 8) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        uint64_t word = x * 0x2545f4914f6cdd1du;
        memcpy(out + i, &word, length - i < 8 ? length - i : 8);
    }
}

static inline uint64_t
load_number(const char *text)
{
    char *end;
    errno = 0;
    uint64_t n = strtoull(text, &end, 10);
    if (errno || *end || end == text)
        load_die(2, "not a number: %s", text);
    return n;
}

// argv: STREAM ACK-FILE BODY-BYTES SLOTS LIMIT
static inline struct load
load_begin(char **argv)
{
    struct load l = {.stream = argv[0],
        .body_bytes = load_number(argv[2]),
        .slots = load_number(argv[3]),
        .limit = load_number(argv[4])};
    l.ack_fd = open(argv[1], O_WRONLY | O_CREAT | O_APPEND, 0644);
    if (l.ack_fd < 0)
        load_die(2, "cannot open %s: %s", argv[1], strerror(errno));
    l.body = malloc(l.body_bytes + 8);
    if (!l.body || l.slots == 0)
        load_die(2, "bad body size or slots");
    struct sigaction action = {.sa_handler = load_on_signal};
    sigaction(SIGTERM, &action, NULL);
    l.started_us = load_now_us();
    return l;
}

static inline bool
load_goes_on(const struct load *l)
{
    return !load_must_stop && (l->limit == 0 || l->done < l->limit);
}

// The database has made transaction n durable; it began at `began_us`.
static inline void
load_acknowledge(struct load *l, uint64_t n, uint64_t began_us)
{
    uint64_t took = load_now_us() - began_us;
    if (took > l->longest_us)
        l->longest_us = took;
    l->done++;
    char line[128];
    int length = snprintf(line, sizeof(line), "%s:%" PRIu64 "\n", l->stream, n);
    if (write(l->ack_fd, line, (size_t)length) != length)
        load_die(2, "cannot write the acknowledgement: %s", strerror(errno));
}

static inline void
load_end(struct load *l)
{
    uint64_t took = load_now_us() - l->started_us;
    printf("%s transactions=%" PRIu64 " bytes=%" PRIu64 " seconds=%.1f max_ms=%" PRIu64 "\n",
        l->stream, l->done, l->done * l->body_bytes, (double)took / 1e6, l->longest_us / 1000);
    free(l->body);
    close(l->ack_fd);
}

// Checks one slot of a database that holds transactions 1..newest.
static inline void
load_check_slot(const char *stream, uint64_t slot, uint64_t slots, uint64_t newest, uint64_t n,
    const void *body, size_t length)
{
    uint64_t expected = newest - (newest + slots - slot) % slots;
    if (n != expected)
        load_die(1,
            "%s: slot %" PRIu64 " is of transaction %" PRIu64 ", expected %" PRIu64
            " (newest is %" PRIu64 ")",
            stream, slot, n, expected, newest);
    uint8_t *right = malloc(length + 8);
    if (!right)
        load_die(2, "no memory");
    load_body(n, right, length);
    if (memcmp(right, body, length) != 0)
        load_die(1, "%s: the body of slot %" PRIu64 " is not that of transaction %" PRIu64, stream,
            slot, n);
    free(right);
}

#endif
