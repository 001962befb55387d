// SPDX-License-Identifier: Apache-2.0
// Room in the log is given out in the order in which it was asked for.
#include "unit.h"

#include "wal_model.h"

#define SMALL   10000u
#define LARGE   WAL_RECORD_MAX
#define WAITERS 6

struct fixture {
    char *directory;
    struct wal *wal;
};

static int
no_replay(void *argument UNUSED, const struct wal_replayed *record UNUSED)
{
    return 0;
}

static void
fixture_init(struct fixture *f)
{
    f->directory = unit_directory_new();
    struct wal_options options = model_options(f->directory, NULL, 16 * MIB);
    BUFFER_AUTO error = {0};
    ck_assert_int_eq(wal_open(&options, (struct lsn){0}, no_replay, NULL, &f->wal, &error), 0);
}

static void
fixture_end(struct fixture *f)
{
    ck_assert_int_eq(wal_close(f->wal), 0);
    unit_directory_remove(f->directory);
}

static int
reserve_now(struct wal *w, uint32_t bytes)
{
    return wal_reserve(w, bytes, clock_monotonic_ms());
}

static void
wait_for_waiters(struct wal *w, unsigned wanted)
{
    uint64_t deadline = clock_monotonic_ms() + MODEL_PATIENCE_MS;
    struct wal_numbers n;
    for (;;) {
        wal_numbers(w, &n);
        if (n.waiting == wanted)
            return;
        ck_assert_uint_lt(clock_monotonic_ms(), deadline);
        clock_sleep_ms(1);
    }
}

// Takes all room but some that is enough for small records, not for a large one; how many times
// SMALL that is.
static unsigned
take_nearly_all(struct wal *w)
{
    // All that the ring may take; the segments for it are made meanwhile.
    unsigned taken = (8 * MIB - 2 * (WAL_RECORD_MAX + WAL_SEGMENT_HEADER_BYTES)) / SMALL;
    for (unsigned i = 0; i < taken; i++)
        ck_assert_int_eq(wal_reserve(w, SMALL, clock_monotonic_ms() + MODEL_PATIENCE_MS), 0);
    ck_assert_int_eq(reserve_now(w, SMALL), -ENOSPC);
    for (int i = 0; i < 5; i++, taken--)
        wal_unreserve(w, SMALL);
    return taken;
}

static void
give_back(struct wal *w, unsigned taken)
{
    while (taken-- > 0)
        wal_unreserve(w, SMALL);
}

struct waiter {
    struct thread thread;
    struct wal *wal;
    uint32_t bytes;
    uint64_t patience_ms;
    unsigned *served; // counts those that were
    unsigned place;   // of this one among them, from 1 on
    int result;
};

static void
wait_for_room(void *argument)
{
    struct waiter *x = argument;
    x->result = wal_reserve(x->wal, x->bytes, clock_monotonic_ms() + x->patience_ms);
    if (x->result == 0)
        x->place = __atomic_add_fetch(x->served, 1, __ATOMIC_SEQ_CST);
}

static void
waiter_start(
    struct waiter *x, struct wal *w, uint32_t bytes, uint64_t patience_ms, unsigned *served)
{
    *x = (struct waiter){.wal = w, .bytes = bytes, .patience_ms = patience_ms, .served = served};
    ck_assert_int_eq(thread_start(&x->thread, "wait", wait_for_room, x), 0);
}

START_TEST(small_records_do_not_pass_a_large_one_that_waits)
{
    struct fixture f;
    fixture_init(&f);
    unsigned taken = take_nearly_all(f.wal);
    ck_assert_int_eq(reserve_now(f.wal, SMALL), 0);
    wal_unreserve(f.wal, SMALL);
    unsigned served = 0;
    struct waiter large;
    waiter_start(&large, f.wal, LARGE, MODEL_PATIENCE_MS, &served);
    wait_for_waiters(f.wal, 1);
    // There would be room.
    ck_assert_int_eq(reserve_now(f.wal, SMALL), -ENOSPC);
    struct waiter small;
    waiter_start(&small, f.wal, SMALL, MODEL_PATIENCE_MS, &served);
    wait_for_waiters(f.wal, 2);
    give_back(f.wal, taken);
    thread_join(&large.thread);
    thread_join(&small.thread);
    ck_assert_int_eq(large.result, 0);
    ck_assert_int_eq(small.result, 0);
    wal_unreserve(f.wal, LARGE);
    wal_unreserve(f.wal, SMALL);
    fixture_end(&f);
}
END_TEST

// One at a time has room: each is served when the one before has given back what it had.
START_TEST(who_comes_first_is_served_first)
{
    struct fixture f;
    fixture_init(&f);
    unsigned served = 0;
    struct waiter x[WAITERS];
    unsigned taken = take_nearly_all(f.wal);
    uint32_t rest = 5 * SMALL;
    ck_assert_int_eq(reserve_now(f.wal, rest), 0);
    for (unsigned i = 0; i < WAITERS; i++) {
        // Sizes go down: the later, the easier.
        waiter_start(&x[i], f.wal, rest - i * 100, MODEL_PATIENCE_MS, &served);
        wait_for_waiters(f.wal, i + 1);
    }
    wal_unreserve(f.wal, rest);
    for (unsigned i = 0; i < WAITERS; i++) {
        thread_join(&x[i].thread);
        ck_assert_int_eq(x[i].result, 0);
        ck_assert_uint_eq(x[i].place, i + 1);
        wal_unreserve(f.wal, x[i].bytes);
    }
    give_back(f.wal, taken);
    fixture_end(&f);
}
END_TEST

START_TEST(who_gives_up_lets_the_next_one_through)
{
    struct fixture f;
    fixture_init(&f);
    unsigned served = 0;
    struct waiter large;
    struct waiter small;
    unsigned taken = take_nearly_all(f.wal);
    waiter_start(&large, f.wal, LARGE, 300, &served);
    wait_for_waiters(f.wal, 1);
    waiter_start(&small, f.wal, SMALL, MODEL_PATIENCE_MS, &served);
    thread_join(&small.thread);
    thread_join(&large.thread);
    ck_assert_int_eq(small.result, 0);
    ck_assert_int_eq(large.result, -ENOSPC);
    wal_unreserve(f.wal, SMALL);
    give_back(f.wal, taken);
    fixture_end(&f);
}
END_TEST

struct returning {
    struct waiter w;
    unsigned returns;
};

static void
wait_in_slices(void *argument)
{
    struct returning *x = argument;
    uint64_t turn = 0;
    do {
        x->w.result = wal_reserve_in_turn(x->w.wal, x->w.bytes, clock_monotonic_ms() + 20, &turn);
        __atomic_add_fetch(&x->returns, 1, __ATOMIC_SEQ_CST);
    } while (x->w.result == -ENOSPC);
    x->w.place = __atomic_add_fetch(x->w.served, 1, __ATOMIC_SEQ_CST);
}

START_TEST(who_comes_again_keeps_its_place)
{
    struct fixture f;
    fixture_init(&f);
    unsigned served = 0;
    unsigned taken = take_nearly_all(f.wal);
    uint32_t rest = 5 * SMALL;
    ck_assert_int_eq(reserve_now(f.wal, rest), 0);
    struct returning first = {.w = {.wal = f.wal, .bytes = rest, .served = &served}};
    ck_assert_int_eq(thread_start(&first.w.thread, "wait", wait_in_slices, &first), 0);
    wait_for_waiters(f.wal, 1);
    struct waiter second;
    waiter_start(&second, f.wal, rest, MODEL_PATIENCE_MS, &served);
    // It has come again and stands in front: the other one is not first when both are there.
    while (__atomic_load_n(&first.returns, __ATOMIC_SEQ_CST) < 5)
        clock_sleep_ms(1);
    wait_for_waiters(f.wal, 2);
    wal_unreserve(f.wal, rest);
    thread_join(&first.w.thread);
    ck_assert_uint_eq(first.w.place, 1);
    wal_unreserve(f.wal, rest);
    thread_join(&second.thread);
    ck_assert_int_eq(second.result, 0);
    wal_unreserve(f.wal, rest);
    give_back(f.wal, taken);
    fixture_end(&f);
}
END_TEST

struct stream {
    struct thread thread;
    struct wal *wal;
    int stop;
};

// Small records, one after the other, that never leave much room.
static void
keep_taking(void *argument)
{
    struct stream *s = argument;
    unsigned held = 0;
    while (!__atomic_load_n(&s->stop, __ATOMIC_SEQ_CST)) {
        if (held < 40 && wal_reserve(s->wal, SMALL, clock_monotonic_ms() + 5) == 0) {
            held++;
        } else if (held > 0) {
            wal_unreserve(s->wal, SMALL);
            held--;
        }
    }
    give_back(s->wal, held);
}

START_TEST(a_large_record_gets_through_a_stream_of_small_ones)
{
    struct fixture f;
    fixture_init(&f);
    unsigned taken = take_nearly_all(f.wal);
    unsigned kept = LARGE / SMALL; // what the streams may use is not much more than a large record
    give_back(f.wal, kept);
    struct stream s[4];
    for (int i = 0; i < 4; i++) {
        s[i] = (struct stream){.wal = f.wal};
        ck_assert_int_eq(thread_start(&s[i].thread, "stream", keep_taking, &s[i]), 0);
    }
    for (int i = 0; i < 20; i++) {
        ck_assert_int_eq(wal_reserve(f.wal, LARGE, clock_monotonic_ms() + MODEL_PATIENCE_MS), 0);
        wal_unreserve(f.wal, LARGE);
    }
    for (int i = 0; i < 4; i++) {
        __atomic_store_n(&s[i].stop, 1, __ATOMIC_SEQ_CST);
        thread_join(&s[i].thread);
    }
    give_back(f.wal, taken - kept);
    fixture_end(&f);
}
END_TEST

static bool
is_starved(struct wal *w)
{
    struct wal_numbers n;
    wal_numbers(w, &n);
    return n.starved;
}

// A log that is full needs somebody who releases; one that has only not been flushed yet does not.
START_TEST(who_waits_for_a_flush_is_not_starved)
{
    struct fixture f;
    fixture_init(&f);
    unsigned served = 0;
    struct waiter x;
    unsigned taken = take_nearly_all(f.wal);
    waiter_start(&x, f.wal, LARGE, MODEL_PATIENCE_MS, &served);
    wait_for_waiters(f.wal, 1);
    // At the limit there are segments for more than the ring holds; they may still be made.
    uint64_t deadline = clock_monotonic_ms() + MODEL_PATIENCE_MS;
    while (is_starved(f.wal)) {
        ck_assert_uint_lt(clock_monotonic_ms(), deadline);
        clock_sleep_ms(1);
    }
    give_back(f.wal, taken);
    thread_join(&x.thread);
    ck_assert_int_eq(x.result, 0);
    wal_unreserve(f.wal, LARGE);
    fixture_end(&f);
}
END_TEST

// Segments that nobody needs cost the disk as much as what was written.
START_TEST(who_waits_for_a_flush_gets_few_segments)
{
    char *directory = unit_directory_new();
    struct wal_options options = model_options(directory, NULL, 64 * MIB);
    struct wal *w;
    BUFFER_AUTO error = {0};
    ck_assert_int_eq(wal_open(&options, (struct lsn){0}, no_replay, NULL, &w, &error), 0);
    unsigned taken = 0;
    while (wal_reserve(w, SMALL, clock_monotonic_ms() + 1000) == 0)
        taken++;
    for (int i = 0; i < 50; i++)
        ck_assert_int_eq(wal_reserve(w, LARGE, clock_monotonic_ms() + 10), -ENOSPC);
    struct wal_numbers n;
    wal_numbers(w, &n);
    ck_assert_uint_ge(n.disk_bytes, 16 * MIB); // all that the ring takes has its place
    ck_assert_uint_le(n.disk_bytes, 32 * MIB);
    give_back(w, taken);
    ck_assert_int_eq(wal_close(w), 0);
    unit_directory_remove(directory);
}
END_TEST

// A volume that is hardly written to does not take what a busy one needs.
START_TEST(a_small_log_takes_one_small_segment)
{
    char *directory = unit_directory_new();
    struct wal_options options = model_options(directory, NULL, 1024ull * MIB);
    struct journal j;
    journal_init(&j, 100000);
    struct wal_numbers n;
    size_t index;
    for (int round = 0; round < 3; round++) {
        struct wal *w = journal_open(&j, &options);
        ck_assert_int_eq(journal_append(&j, w, j.next_id++, 2000, &index), 0);
        ck_assert_int_eq(journal_sync(&j, w), 0);
        wal_numbers(w, &n);
        ck_assert_uint_le(n.disk_bytes, 16 * MIB);
        ck_assert_int_eq(wal_close(w), 0);
    }
    // In use, the next one is made long before it is needed.
    struct wal *w = journal_open(&j, &options);
    for (unsigned bytes = 0; bytes < 5 * MIB; bytes += 2000)
        ck_assert_int_eq(journal_append(&j, w, j.next_id++, 2000, &index), 0);
    ck_assert_int_eq(journal_sync(&j, w), 0);
    uint64_t deadline = clock_monotonic_ms() + MODEL_PATIENCE_MS;
    for (wal_numbers(w, &n); n.disk_bytes < 32 * MIB; wal_numbers(w, &n)) {
        ck_assert_uint_lt(clock_monotonic_ms(), deadline);
        clock_sleep_ms(1);
    }
    ck_assert_int_eq(wal_close(w), 0);
    journal_destroy(&j);
    unit_directory_remove(directory);
}
END_TEST

START_TEST(who_waits_for_a_release_is_starved)
{
    char *directory = unit_directory_new();
    struct wal_options options = model_options(directory, NULL, 16 * MIB);
    struct flush_pace pace;
    flush_pace_init(&pace);
    options.pace = &pace;
    struct journal j;
    journal_init(&j, 100000);
    struct wal *w = journal_open(&j, &options);
    size_t index;
    while (journal_append(&j, w, j.next_id, 2000, &index) == 0) {
        j.next_id++;
        ck_assert_int_eq(journal_sync(&j, w), 0);
    }
    ck_assert(!is_starved(w)); // nobody waits
    ck_assert_uint_eq(pace.commits, j.count);
    ck_assert_uint_eq(pace.waiters, 0);
    unsigned served = 0;
    struct waiter x;
    waiter_start(&x, w, LARGE, MODEL_PATIENCE_MS, &served);
    wait_for_waiters(w, 1);
    ck_assert(is_starved(w));
    ck_assert_uint_eq(pace.waiters, 1); // the background must not wait now
    journal_release(&j, w, j.count);
    thread_join(&x.thread);
    ck_assert_uint_eq(pace.waiters, 0);
    ck_assert_int_eq(x.result, 0);
    wal_unreserve(w, LARGE);
    ck_assert_int_eq(wal_close(w), 0);
    journal_destroy(&j);
    flush_pace_destroy(&pace);
    unit_directory_remove(directory);
}
END_TEST

int
main(void)
{
    Suite *s = suite_create("wal_room");
#define ADD(test) unit_add(s, #test, test, 60)
    ADD(small_records_do_not_pass_a_large_one_that_waits);
    ADD(who_comes_first_is_served_first);
    ADD(who_gives_up_lets_the_next_one_through);
    ADD(who_comes_again_keeps_its_place);
    ADD(a_large_record_gets_through_a_stream_of_small_ones);
    ADD(who_waits_for_a_flush_is_not_starved);
    ADD(who_waits_for_a_flush_gets_few_segments);
    ADD(a_small_log_takes_one_small_segment);
    ADD(who_waits_for_a_release_is_starved);
#undef ADD
    return unit_run(s);
}
