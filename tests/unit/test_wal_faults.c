// SPDX-License-Identifier: Apache-2.0
// Failing writes, torn writes, power losses: nothing is acknowledged that is not there afterwards.
#include "unit.h"

#include "file_faults.h"
#include "wal_model.h"

#define THREADS 4

struct worker {
    struct thread thread;
    struct journal *journal;
    struct wal *wal;
    uint64_t first_id;
    uint64_t records;
    uint64_t seed;
    bool releases;
    int result;
};

static void
release_acknowledged(struct journal *j, struct wal *w)
{
    (void)!journal_sync(j, w); // a dead log shows at the next append
    lock_take(&j->lock);
    size_t acknowledged = j->acknowledged;
    lock_release(&j->lock);
    journal_release(j, w, acknowledged);
}

static void
work(void *argument)
{
    struct worker *x = argument;
    for (uint64_t i = 0; i < x->records && x->result == 0; i++) {
        size_t index;
        struct wal_slot slot;
        while ((x->result = journal_append_slot(
                    x->journal, x->wal, x->first_id + i, 50, &index, &slot)) == -ENOSPC)
            release_acknowledged(x->journal, x->wal);
        if (x->result == 0)
            wal_start_writing(x->wal, &slot);
        if (x->result == 0 && model_random(&x->seed) % 4 == 0)
            x->result = wal_spill(x->wal, &slot);
        if (x->result == 0 && model_random(&x->seed) % 3 == 0)
            x->result = journal_sync(x->journal, x->wal);
        if (x->releases && x->result == 0 && model_random(&x->seed) % 20 == 0)
            release_acknowledged(x->journal, x->wal);
    }
}

// Runs the threads; whether the log died of it.
static bool
run_workers(struct journal *j, struct wal *w, uint64_t records, bool release, uint64_t seed)
{
    struct worker x[THREADS];
    bool died = false;
    for (uint64_t i = 0; i < THREADS; i++) {
        x[i] = (struct worker){.journal = j,
            .wal = w,
            .first_id = j->next_id,
            .records = records,
            .releases = release,
            .seed = hash_u64(seed + i)};
        j->next_id += records;
        ck_assert_int_eq(thread_start(&x[i].thread, "work", work, &x[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        thread_join(&x[i].thread);
        died = died || x[i].result != 0;
        ck_assert(x[i].result == 0 || x[i].result == -EIO || x[i].result == -EROFS);
    }
    return died;
}

static void
check_dead(struct wal *w, int error)
{
    struct wal_numbers n;
    wal_numbers(w, &n);
    ck_assert_int_eq(n.failed, error);
    ck_assert_int_eq(wal_sync_wait(w), -EIO);
    ck_assert_int_eq(wal_reserve(w, 100, clock_monotonic_ms() + MODEL_PATIENCE_MS), -EROFS);
}

// The log is whole, and nothing is left.
static void
end_journal(struct journal *j, const struct wal_options *options, char *directory)
{
    ck_assert_int_eq(wal_close(journal_open(j, options)), 0);
    faults_end();
    journal_destroy(j);
    unit_directory_remove(directory);
}

static void
fail_every_write_once(uint32_t torn_of_1000)
{
    char *directory = unit_directory_new();
    struct wal_options options = model_options(directory, &file_ops_faulty, 64 * MIB);
    struct journal j;
    journal_init(&j, 20000);
    for (uint64_t round = 0; round < 25; round++) {
        struct wal *w = journal_open(&j, &options);
        pthread_mutex_lock(&file_faults.mutex);
        file_faults.fail_at = file_faults.durable + 1 + round;
        file_faults.error = round % 2 ? -EIO : -ENOSPC;
        file_faults.torn_bytes = (uint32_t)(torn_of_1000 * faults_random(60));
        int error = file_faults.error;
        pthread_mutex_unlock(&file_faults.mutex);
        ck_assert(run_workers(&j, w, 400, false, round));
        check_dead(w, error);
        ck_assert_int_eq(wal_close(w), error);
        ck_assert_uint_eq(file_faults.durable, file_faults.fail_at); // nothing was tried after it
        faults_restart();
        if (round % 5 == 4)
            j.first = j.acknowledged;
    }
    end_journal(&j, &options, directory);
}

START_TEST(a_failed_write_kills_the_log)
{
    fail_every_write_once(0);
}
END_TEST

START_TEST(a_torn_write_kills_the_log)
{
    fail_every_write_once(1000);
}
END_TEST

START_TEST(short_and_interrupted_writes_go_on)
{
    char *directory = unit_directory_new();
    struct wal_options options = model_options(directory, &file_ops_faulty, 64 * MIB);
    struct journal j;
    journal_init(&j, 20000);
    file_faults.short_writes = true;
    for (uint64_t round = 0; round < 3; round++) {
        struct wal *w = journal_open(&j, &options);
        ck_assert(!run_workers(&j, w, 100, false, round));
        ck_assert_int_eq(wal_close(w), 0);
        j.acknowledged = j.count;
    }
    end_journal(&j, &options, directory);
}
END_TEST

// The n-th durable write is in flight when the process dies, or the machine.
static void
crash_again_and_again(uint64_t rounds, uint64_t limit_bytes, uint32_t largest, bool power_always)
{
    char *directory = unit_directory_new();
    struct wal_options options = model_options(directory, &file_ops_faulty, limit_bytes);
    struct journal j;
    journal_init(&j, largest);
    file_faults.track = true;
    file_faults.error = -EIO;
    for (uint64_t round = 0; round < rounds; round++) {
        struct wal *w = journal_open(&j, &options);
        struct wal_numbers n;
        wal_numbers(w, &n);
        if (n.retained_bytes > limit_bytes / 3)
            journal_release(&j, w, j.count);
        faults_die_after(faults_random(4) ? faults_random(6) : faults_random(60));
        ck_assert(run_workers(&j, w, 1000, true, round));
        check_dead(w, -EIO);
        ck_assert_int_lt(wal_close(w), 0);
        if (power_always || faults_random(2))
            faults_lose_power(directory);
        faults_restart();
        // Now and then the machine dies right after a recovery.
        if (faults_random(3) == 0) {
            ck_assert_int_eq(wal_close(journal_open(&j, &options)), 0);
            faults_lose_power(directory);
        }
    }
    end_journal(&j, &options, directory);
}

START_TEST(acknowledged_records_survive_power_loss)
{
    crash_again_and_again(60, 64 * MIB, 9000, true);
}
END_TEST

START_TEST(a_prefix_survives_when_segments_change)
{
    crash_again_and_again(40, 16 * MIB, 700000, true);
}
END_TEST

START_TEST(kills_and_power_losses_mix)
{
    file_faults.seed = 1000;
    crash_again_and_again(80, 16 * MIB, 60000, false);
}
END_TEST

// What recovery showed must not vanish in a later power loss, though it was never synced.
START_TEST(what_was_recovered_is_made_durable)
{
    char *directory = unit_directory_new();
    struct wal_options options = model_options(directory, &file_ops_faulty, 64 * MIB);
    struct journal j;
    journal_init(&j, 9000);
    file_faults.track = true;
    for (uint64_t round = 0; round < 20; round++) {
        struct wal *w = journal_open(&j, &options);
        if (round % 4 == 3)
            journal_release(&j, w, j.count);
        journal_append_many(&j, w, 5);
        ck_assert_int_eq(journal_sync(&j, w), 0);
        journal_append_many(&j, w, 5);
        faults_die_after(0);
        ck_assert_int_eq(journal_sync(&j, w), -EIO);
        ck_assert_int_lt(wal_close(w), 0);
        faults_restart();
        w = journal_open(&j, &options); // acknowledges what it finds
        if (round % 2) {
            journal_append_many(&j, w, 1);
            ck_assert_int_eq(journal_sync(&j, w), 0);
        }
        ck_assert_int_eq(wal_close(w), 0);
        faults_lose_power(directory);
    }
    end_journal(&j, &options, directory);
}
END_TEST

// A write that failed may leave its bytes in the kernel's cache, where they count as clean: a sync
// does not bring them to the disk, and they vanish in a power loss.
START_TEST(what_a_failed_write_left_in_the_cache_is_not_built_upon)
{
    for (uint64_t skip = 0; skip < 3; skip++) {
        char *directory = unit_directory_new();
        struct wal_options options = model_options(directory, &file_ops_faulty, 64 * MIB);
        struct journal j;
        journal_init(&j, 9000);
        file_faults.track = file_faults.stuck = true;
        for (uint64_t round = 0; round < 12; round++) {
            struct wal *w = journal_open(&j, &options);
            faults_die_after(skip);
            int rc = 0;
            while (rc == 0) {
                journal_append_many(&j, w, 5);
                rc = journal_sync(&j, w);
            }
            ck_assert_int_eq(rc, -EIO);
            ck_assert_int_lt(wal_close(w), 0);
            faults_restart();
            w = journal_open(&j, &options); // acknowledges what it finds
            if (round % 2) {
                journal_append_many(&j, w, 1);
                ck_assert_int_eq(journal_sync(&j, w), 0);
            }
            ck_assert_int_eq(wal_close(w), 0);
            faults_lose_power(directory);
        }
        end_journal(&j, &options, directory);
    }
}
END_TEST

// ---- large records that the disk is set to work on ----------------------------------------------

#define LARGE_MAX 700000u

// Appends a record that is large enough to be started when all before it is durable, which it is.
// Its id tells how large it is.
static void
append_large(struct journal *j, struct wal *w, struct wal_slot *slot_out)
{
    size_t index;
    do {
        ck_assert_int_eq(journal_sync(j, w), 0);
        ck_assert_int_eq(
            journal_append_slot(j, w, j->next_id++, MODEL_PATIENCE_MS, &index, slot_out), 0);
    } while (slot_out->length < WAL_START_BYTES);
}

// What was begun without a flush needs one all the same, and gets it with what came after it.
START_TEST(what_was_started_is_made_durable)
{
    char *directory = unit_directory_new();
    struct wal_options options = model_options(directory, &file_ops_faulty, 64 * MIB);
    struct journal j;
    journal_init(&j, LARGE_MAX);
    file_faults.track = true;
    for (uint64_t round = 0; round < 12; round++) {
        struct wal *w = journal_open(&j, &options);
        journal_release(&j, w, j.count);
        struct wal_slot slot;
        for (unsigned i = 0; i < 4; i++) {
            append_large(&j, w, &slot);
            uint64_t before = faults_durable_writes();
            wal_start_writing(w, &slot);
            wal_start_writing(w, &slot); // there is nothing more to do
            journal_append_many(&j, w, i % 2 ? round % 3 : 0);
            if (i == 3 && round % 4 == 3)
                break; // not acknowledged: may be gone, in part as well
            ck_assert_int_eq(journal_sync(&j, w), 0);
            // A segment may have begun; else it was fdatasync.
            ck_assert_uint_le(faults_durable_writes(), before + 3);
        }
        if (round % 4 == 3) {
            faults_die_after(0);
            (void)!journal_sync(&j, w);
        }
        (void)!wal_close(w);
        faults_lose_power(directory);
    }
    end_journal(&j, &options, directory);
}
END_TEST

// The write itself fails, or the sync that it was begun for, or what the disk was told.
START_TEST(an_error_after_a_start_kills_the_log)
{
    for (int which = 0; which < 3; which++) {
        char *directory = unit_directory_new();
        struct wal_options options = model_options(directory, &file_ops_faulty, 64 * MIB);
        struct journal j;
        journal_init(&j, LARGE_MAX);
        struct wal *w = journal_open(&j, &options);
        struct wal_slot slot;
        append_large(&j, w, &slot);
        faults_refuse(which == 0, which == 1 ? -EIO : 0, which == 2 ? -EIO : 0);
        wal_start_writing(w, &slot);
        ck_assert_int_eq(journal_sync(&j, w), -EIO);
        int error = which == 0 ? -ENOSPC : -EIO;
        check_dead(w, error);
        ck_assert_int_eq(wal_close(w), error);
        faults_refuse(false, 0, 0);
        end_journal(&j, &options, directory);
    }
}
END_TEST

START_TEST(a_recovery_that_cannot_read_or_sync_fails)
{
    char *directory = unit_directory_new();
    struct wal_options options = model_options(directory, &file_ops_faulty, 16 * MIB);
    struct journal j;
    journal_init(&j, 9000);
    struct wal *w = journal_open(&j, &options);
    journal_append_many(&j, w, 20);
    ck_assert_int_eq(wal_close(w), 0);
    BUFFER_AUTO error = {0};
    j.acknowledged = j.count;
    file_faults.read_error = -EIO;
    j.next = 0;
    ck_assert_int_eq(wal_open(&options, (struct lsn){0}, journal_replay, &j, &w, &error), -EIO);
    file_faults.read_error = 0;
    file_faults.sync_error = -EIO;
    j.next = 0;
    ck_assert_int_eq(wal_open(&options, (struct lsn){0}, journal_replay, &j, &w, &error), -EIO);
    file_faults.sync_error = 0;
    end_journal(&j, &options, directory);
}
END_TEST

int
main(void)
{
    Suite *s = suite_create("wal_faults");
#define ADD(test) unit_add(s, #test, test, 240)
    ADD(a_failed_write_kills_the_log);
    ADD(a_torn_write_kills_the_log);
    ADD(short_and_interrupted_writes_go_on);
    ADD(acknowledged_records_survive_power_loss);
    ADD(a_prefix_survives_when_segments_change);
    ADD(kills_and_power_losses_mix);
    ADD(what_was_recovered_is_made_durable);
    ADD(what_a_failed_write_left_in_the_cache_is_not_built_upon);
    ADD(what_was_started_is_made_durable);
    ADD(an_error_after_a_start_kills_the_log);
    ADD(a_recovery_that_cannot_read_or_sync_fails);
#undef ADD
    return unit_run(s);
}
