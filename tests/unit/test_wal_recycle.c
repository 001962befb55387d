// SPDX-License-Identifier: Apache-2.0
// Segments that a local generation comes to hold while the flusher still writes to them.
#include "unit.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <string.h>

#include "base/bytes.h"
#include "platform/clock.h"
#include "platform/lock.h"
#include "platform/log.h"
#include "platform/memory.h"
#include "wal/wal.h"

#define SEGMENT_BYTES (2u << 20)
#define RECORD_BYTES  (100u << 10)

// ---- a disk that can be stopped -----------------------------------------------------------------

static atomic_bool stopped;
static atomic_int writing;

static ssize_t
stoppable_pwritev(int fd, const struct iovec *iov, int count, off_t offset, bool durable)
{
    atomic_fetch_add(&writing, 1);
    while (durable && atomic_load(&stopped))
        clock_sleep_ms(1);
    atomic_fetch_sub(&writing, 1);
    return file_ops_system.pwritev(fd, iov, count, offset, durable);
}

struct log_world {
    char *directory;
    struct file_ops ops;
    struct wal_options options;
    struct wal *wal;
    uint64_t appended; // records
    uint64_t replayed;
    struct lsn cut;
    uint64_t before_cut;
};

static void
append(struct log_world *x)
{
    CLEANUP(memory_free_auto) uint8_t *changes = memory_alloc_zero(RECORD_BYTES);
    put_le64(changes, x->appended++);
    uint32_t length = wal_record_length(0, RECORD_BYTES, 0);
    ck_assert_int_eq(wal_reserve(x->wal, length, clock_monotonic_ms() + 20000), 0);
    struct wal_slot slot;
    wal_begin(x->wal, length, length, &slot);
    wal_fill(x->wal, &slot, 0, changes, RECORD_BYTES, NULL, 0, NULL);
}

static int
replay(void *argument, const struct wal_replayed *record)
{
    struct log_world *x = argument;
    ck_assert_uint_eq(get_le64(record->changes), x->before_cut + x->replayed);
    x->replayed++;
    return 0;
}

static int
no_replay(void *argument UNUSED, const struct wal_replayed *record UNUSED)
{
    return 0;
}

static void
note_synced(void *argument, int result)
{
    ck_assert_int_eq(result, 0);
    atomic_store((atomic_bool *)argument, true);
}

static void
wait_until(atomic_int *value, int wanted)
{
    uint64_t deadline = clock_monotonic_ms() + 20000;
    while (atomic_load(value) != wanted) {
        ck_assert_uint_lt(clock_monotonic_ms(), deadline);
        clock_sleep_ms(1);
    }
}

START_TEST(a_segment_is_not_reused_while_it_is_being_written)
{
    BUFFER_AUTO error = {0};
    struct log_world x = {.directory = unit_directory_new(), .ops = file_ops_system};
    x.ops.pwritev = stoppable_pwritev;
    x.options = (struct wal_options){
        .ops = &x.ops,
        .directory = x.directory,
        .limit_bytes = 3 * SEGMENT_BYTES,
        .segment_bytes = SEGMENT_BYTES,
        .ring_bytes = 64u << 20,
    };
    ck_assert_int_eq(wal_open(&x.options, (struct lsn){0}, no_replay, NULL, &x.wal, &error), 0);
    // The flush of the first records hangs in the disk...
    append(&x);
    ck_assert_int_eq(wal_sync_wait(x.wal), 0);
    append(&x);
    atomic_bool synced = false;
    atomic_store(&stopped, true);
    wal_sync(x.wal, note_synced, &synced);
    wait_until(&writing, 1);
    // ...while a local generation takes in all of that segment and some of the next...
    while (x.appended < 22)
        append(&x);
    struct wal_numbers n;
    wal_numbers(x.wal, &n);
    x.cut = n.append;
    x.before_cut = x.appended;
    wal_release(x.wal, x.cut);
    // ...and the log goes on as far as it gets without the disk.
    for (int i = 0; i < 18; i++) {
        uint32_t length = wal_record_length(0, RECORD_BYTES, 0);
        if (wal_reserve(x.wal, length, clock_monotonic_ms() + 300) < 0)
            break;
        wal_unreserve(x.wal, length);
        append(&x);
    }
    atomic_store(&stopped, false);
    for (int i = 0; i < 30; i++)
        append(&x);
    ck_assert_int_eq(wal_sync_wait(x.wal), 0);
    ck_assert(atomic_load(&synced));
    ck_assert_int_eq(wal_close(x.wal), 0);
    int rc = wal_open(&x.options, x.cut, replay, &x, &x.wal, &error);
    ck_assert_msg(rc == 0, "%d %s", rc, buffer_string(&error));
    ck_assert_uint_eq(x.before_cut + x.replayed, x.appended);
    ck_assert_int_eq(wal_close(x.wal), 0);
    unit_directory_remove(x.directory);
}
END_TEST

int
main(void)
{
    log_set_level(LOG_LEVEL_ERROR + 1);
    Suite *s = suite_create("wal_recycle");
    unit_add(s, "a_segment_is_not_reused_while_it_is_being_written",
        a_segment_is_not_reused_while_it_is_being_written, 120);
    return unit_run(s);
}
