// SPDX-License-Identifier: Apache-2.0
// Plain GETs of the blobs of a volume: what reads that need the store are compared with.
//     bench_store ranged SOURCE COUNT BYTES   one range at a time, at random places of the largest
//     bench_store stream SOURCE THREADS       all blobs, ranges of 8 MiB, so many at once
// The store is opened as the daemon opens it; ENDPOINT and REGION come from the environment
// (CKPT_TEST_S3_ENDPOINT, CKPT_TEST_S3_REGION).
#include <pthread.h>
#include <stdbool.h>

#include "bench_common.h"
#include "store/remote_store.h"

#define RANGE_BYTES ((uint64_t)8 << 20)

static struct remote_store *store;
static struct remote_listing blobs;

static _Noreturn void
fail(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, remote_store_error());
    exit(1);
}

static void
open_store(const char *source)
{
    struct store_url url;
    struct remote_store_options options = {
        .endpoint = getenv("CKPT_TEST_S3_ENDPOINT"),
        .region = getenv("CKPT_TEST_S3_REGION"),
        .connections = 32,
    };
    if (store_url_parse(source, &url) < 0 || remote_store_open(&url, &options, false, &store) < 0)
        fail(source);
    if (remote_store_list_blobs(store, "checkpoints/", NULL, 100000, &blobs, NULL) < 0)
        fail("list");
    store_url_free(&url);
    if (blobs.count == 0) {
        fprintf(stderr, "%s has no blobs\n", source);
        exit(1);
    }
}

static void
get(const char *key, uint64_t at, uint64_t n, struct buffer *out)
{
    buffer_clear(out);
    if (remote_store_get_blob(store, key, at, n, out, NULL) < 0)
        fail(key);
}

static void
ranged(uint64_t count, uint64_t n)
{
    struct bench_series s = {0};
    BUFFER_AUTO out = {0};
    uint64_t random = 99;
    const struct remote_listing_entry *largest = &blobs.entries[0];
    for (size_t i = 1; i < blobs.count; i++)
        if (blobs.entries[i].size > largest->size)
            largest = &blobs.entries[i];
    if (n >= largest->size)
        n = largest->size - 1;
    get(largest->key, 0, 1, &out); // connects
    for (uint64_t i = 0; i < count; i++) {
        uint64_t at = bench_random(&random) % (largest->size - n);
        uint64_t now = bench_now_ns();
        get(largest->key, at, n, &out);
        bench_add(&s, now, bench_now_ns());
    }
    bench_report(&s);
}

// The place up to which ranges have been handed out: blob and offset.
static struct {
    pthread_mutex_t mutex;
    size_t blob;
    uint64_t offset;
} next = {.mutex = PTHREAD_MUTEX_INITIALIZER};

static bool
take_range(size_t *blob, uint64_t *at, uint64_t *n)
{
    pthread_mutex_lock(&next.mutex);
    while (next.blob < blobs.count && next.offset >= blobs.entries[next.blob].size) {
        next.blob++;
        next.offset = 0;
    }
    bool found = next.blob < blobs.count;
    if (found) {
        *blob = next.blob;
        *at = next.offset;
        *n = blobs.entries[next.blob].size - *at;
        if (*n > RANGE_BYTES)
            *n = RANGE_BYTES;
        next.offset += *n;
    }
    pthread_mutex_unlock(&next.mutex);
    return found;
}

static void *
get_ranges(void *argument)
{
    BUFFER_AUTO out = {0};
    size_t blob;
    uint64_t at, n;
    while (take_range(&blob, &at, &n))
        get(blobs.entries[blob].key, at, n, &out);
    return argument;
}

static void
stream(uint64_t thread_count)
{
    pthread_t threads[64];
    uint64_t bytes = 0;
    if (thread_count < 1 || thread_count > 64)
        thread_count = 8;
    for (size_t i = 0; i < blobs.count; i++)
        bytes += blobs.entries[i].size;
    uint64_t began = bench_now_ns();
    for (uint64_t i = 0; i < thread_count; i++)
        if (pthread_create(&threads[i], NULL, get_ranges, NULL) != 0)
            bench_fail("start", "a thread");
    for (uint64_t i = 0; i < thread_count; i++)
        pthread_join(threads[i], NULL);
    printf("{\"bytes\": %" PRIu64 ", \"seconds\": %.6f}\n", bytes,
        (double)(bench_now_ns() - began) / 1e9);
}

int
main(int argc, char **argv)
{
    bool is_ranged = argc == 5 && strcmp(argv[1], "ranged") == 0;
    if (!is_ranged && !(argc == 4 && strcmp(argv[1], "stream") == 0)) {
        fprintf(stderr, "usage: bench_store ranged SOURCE COUNT BYTES | stream SOURCE THREADS\n");
        return 2;
    }
    open_store(argv[2]);
    if (is_ranged)
        ranged(bench_number(argv[3]), bench_number(argv[4]));
    else
        stream(bench_number(argv[3]));
    remote_listing_free(&blobs);
    remote_store_close(store);
    return 0;
}
