// SPDX-License-Identifier: Apache-2.0
// What the benchmark's helper programs share: a clock, latencies, random numbers. They print one
// JSON object on stdout and end with 1 and a message on stderr when anything fails.
#ifndef CKPTFS_TESTS_BENCH_COMMON_H
#define CKPTFS_TESTS_BENCH_COMMON_H

#include <errno.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static inline _Noreturn void
bench_fail(const char *what, const char *on)
{
    fprintf(stderr, "%s %s: %s\n", what, on, strerror(errno));
    exit(1);
}

static inline uint64_t
bench_now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

// The whole of a decimal number.
static inline uint64_t
bench_number(const char *text)
{
    char *end;
    errno = 0;
    unsigned long long n = strtoull(text, &end, 10);
    if (errno != 0 || end == text || *end) {
        fprintf(stderr, "%s is not a number\n", text);
        exit(2);
    }
    return n;
}

// xorshift64* (Vigna, 2016); the state must not be 0.
static inline uint64_t
bench_random(uint64_t *state)
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * 2685821657736338717u;
}

// A series of operations: how long each took.
struct bench_series {
    uint64_t began_ns;
    uint64_t ended_ns;
    uint32_t *took_ns;
    size_t count;
    size_t capacity;
};

static inline void
bench_add(struct bench_series *s, uint64_t from_ns, uint64_t to_ns)
{
    if (s->count == s->capacity) {
        s->capacity = s->capacity ? 2 * s->capacity : 4096;
        s->took_ns = realloc(s->took_ns, s->capacity * sizeof(*s->took_ns));
        if (!s->took_ns)
            bench_fail("allocate", "latencies");
    }
    uint64_t took = to_ns - from_ns;
    s->took_ns[s->count++] = took < UINT32_MAX ? (uint32_t)took : UINT32_MAX;
    if (s->began_ns == 0)
        s->began_ns = from_ns;
    s->ended_ns = to_ns;
}

static inline int
bench_compare(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static inline double
bench_quantile_us(const struct bench_series *s, double q)
{
    return s->count ? s->took_ns[(size_t)(q * (double)(s->count - 1))] / 1e3 : 0;
}

static inline void
bench_report(struct bench_series *s)
{
    double seconds = (double)(s->ended_ns - s->began_ns) / 1e9;
    qsort(s->took_ns, s->count, sizeof(*s->took_ns), bench_compare);
    printf("{\"count\": %zu, \"seconds\": %.6f, \"per_second\": %.3f, \"p50_us\": %.2f, "
           "\"p99_us\": %.2f, \"max_us\": %.2f}\n",
        s->count, seconds, seconds > 0 ? (double)s->count / seconds : 0, bench_quantile_us(s, 0.5),
        bench_quantile_us(s, 0.99), bench_quantile_us(s, 1));
    free(s->took_ns);
}

#endif
