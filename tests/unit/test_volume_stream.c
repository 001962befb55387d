// SPDX-License-Identifier: Apache-2.0
// A program that writes a stream faster than the disk flushes it waits for room in the log's ring
// again and again. Each wait is short, and none of them is a reason to fold: a fold would stage
// what the stream has begun to write, and the next one would stage the same chunk once more.
#define _GNU_SOURCE
#include "volume_world.h"

#include <stdatomic.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "platform/clock.h"
#include "platform/memory.h"

#define MIB           ((size_t)1 << 20)
#define WAL_LIMIT     (256 * MIB)
#define STREAM_PIECES 48u
#define FLUSH_MS      60u

// ---- a slow disk --------------------------------------------------------------------------------

// The library calls these functions instead of the C library's.

static atomic_bool slow;
static atomic_uint flushes; // that were slow

static void
be_slow(void)
{
    if (!atomic_load(&slow))
        return;
    atomic_fetch_add(&flushes, 1);
    clock_sleep_ms(FLUSH_MS);
}

int
fdatasync(int fd)
{
    be_slow();
    return (int)syscall(SYS_fdatasync, fd);
}

ssize_t
pwritev2(int fd, const struct iovec *iov, int count, off_t offset, int flags)
{
    if (flags & RWF_DSYNC)
        be_slow();
    return syscall(SYS_pwritev2, fd, iov, count, (unsigned long)offset, 0ul, flags);
}

// ---- the stream ---------------------------------------------------------------------------------

static uint64_t
count_folds(struct volume *v)
{
    struct volume_status s;
    volume_status(v, &s);
    return s.metrics.checkpoints;
}

// Two things press for a fold: a log that is three eighths full, which this stream does not reach,
// and a writer that has waited for a whole second.
START_TEST(a_stream_that_waits_for_flushes_asks_for_no_fold)
{
    struct volume_world w;
    struct volume_attributes a;
    uint64_t whole_seconds = 0;
    CLEANUP(memory_free_auto) uint8_t *piece = memory_alloc(MIB);
    volume_world_new(&w);
    w.config.wal_limit_bytes = WAL_LIMIT;
    w.config.page_cache_bytes = WAL_LIMIT; // dirty pages do not fill it either
    volume_world_open(&w);
    struct object_id object = volume_world_make_file(w.v, "stream");
    volume_world_fold(w.v);
    uint64_t before = count_folds(w.v);
    atomic_store(&slow, true);
    for (unsigned i = 0; i < STREAM_PIECES; i++) {
        uint64_t began_ms = clock_monotonic_ms();
        memset(piece, (int)i + 1, MIB);
        volume_world_write(w.v, object, i * MIB, piece, MIB);
        whole_seconds += (clock_monotonic_ms() - began_ms) / 1000;
    }
    atomic_store(&slow, false);
    // It takes in every request for a fold that was made before.
    volume_world_fold(w.v);
    uint64_t folds = count_folds(w.v) - before;
    printf("%u slow flushes, %u folds\n", atomic_load(&flushes), (unsigned)folds);
    ck_assert_uint_ge(atomic_load(&flushes), 3);
    ck_assert_uint_le(folds, 1 + whole_seconds);
    ck_assert_int_eq(volume_get_attributes(w.v, object, &a), 0);
    ck_assert_uint_eq(a.inode.size, STREAM_PIECES * MIB);
    volume_world_free(&w);
}
END_TEST

int
main(void)
{
    Suite *s = suite_create("volume_stream");
    unit_add(s, "a_stream_that_waits_for_flushes_asks_for_no_fold",
        a_stream_that_waits_for_flushes_asks_for_no_fold, 60);
    return unit_run(s);
}
