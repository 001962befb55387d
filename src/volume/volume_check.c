// SPDX-License-Identifier: Apache-2.0
// Looks through the manifest while the volume is mounted: once after the mount, slowly, and
// whenever an operator asks for it. Every entry of the storage root is compared with its checksum,
// a few at a time; then the counts and references of this volume are compared. Nothing is changed.
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>
#include <sys/resource.h>

#include "platform/clock.h"
#include "platform/log.h"
#include "platform/memory.h"
#include "volume/volume_internal.h"

// How long the thread rests between two steps, when no operator waits for it.
#define STEP_PAUSE_MS 10u
// Comparing the references takes memory for each inode and blob, and one long read transaction.
// With more of them the thread does it only when an operator asks.
#define UNASKED_RECORDS_MAX 20000u

// Pauses between steps; false when the volume is being closed.
static bool
may_go_on(struct volume *v, unsigned pause_ms)
{
    lock_take(&v->housekeeping.lock);
    if (pause_ms > 0 && !v->housekeeping.stopping)
        condition_wait_until(
            &v->housekeeping.check_work, &v->housekeeping.lock, clock_monotonic_ms() + pause_ms);
    bool stopping = v->housekeeping.stopping;
    lock_release(&v->housekeeping.lock);
    return !stopping;
}

static bool
is_small(struct volume *v)
{
    struct manifest_reader *r;
    struct db_totals totals;
    if (manifest_read_begin(v->manifest, &r) < 0)
        return false;
    int rc = manifest_read_totals(r, v->db, &totals);
    manifest_read_end(r);
    return rc == 0 && totals.inodes + totals.chunks + totals.blobs <= UNASKED_RECORDS_MAX;
}

static bool
go_on_slowly(void *argument)
{
    return may_go_on(argument, STEP_PAUSE_MS);
}

static bool
go_on_fast(void *argument)
{
    return may_go_on(argument, 0);
}

// 0, or -ECANCELED when the volume is being closed.
static int
check_once(struct volume *v, bool asked, struct manifest_check_result *result)
{
    struct manifest_sweep sweep = {0};
    int pages = manifest_check_pages(v->manifest, asked, asked ? go_on_fast : go_on_slowly, v);
    if (pages == -EBADMSG)
        result->damaged = 1; // and LMDB is not led over that page for the sake of a look
    if (pages < 0)
        return pages == -EBADMSG ? 0 : pages;
    while (!sweep.finished) {
        if (!may_go_on(v, asked ? 0 : STEP_PAUSE_MS))
            return -ECANCELED;
        int rc = manifest_sweep_step(v->manifest, &sweep);
        if (rc < 0)
            return rc;
    }
    result->entries = sweep.entries;
    result->damaged = sweep.damaged;
    if (!asked && !is_small(v))
        return 0;
    int found = manifest_check(v->manifest, v->db);
    memory_trim();
    if (found >= 0)
        result->violations = (uint64_t)found;
    else if (found == -EBADMSG)
        result->violations = 1;
    return found == -EBADMSG || found > 0 ? 0 : found;
}

static void
log_check(int rc, const struct manifest_check_result *result, uint64_t duration_ms)
{
    struct log_event e;
    bool good = rc == 0 && result->damaged == 0 && result->violations == 0;
    log_begin(&e, good ? LOG_LEVEL_INFO : LOG_LEVEL_ERROR, "manifest.checked");
    log_u64(&e, "entries", result->entries);
    log_u64(&e, "damaged", result->damaged);
    log_u64(&e, "violations", result->violations);
    if (rc < 0)
        log_string(&e, "error", strerror(-rc));
    log_u64(&e, "duration_ms", duration_ms);
    log_end(&e);
}

static void
check_run(void *argument)
{
    struct volume *v = argument;
    // Of this thread alone; without it the check is only less polite.
    (void)setpriority(PRIO_PROCESS, 0, 10);
    lock_take(&v->housekeeping.lock);
    while (!v->housekeeping.stopping) {
        if (v->housekeeping.checks_wanted == v->housekeeping.checks_done) {
            condition_wait(&v->housekeeping.check_work, &v->housekeeping.lock);
            continue;
        }
        uint64_t ticket = v->housekeeping.checks_wanted;
        lock_release(&v->housekeeping.lock);
        struct manifest_check_result result = {0};
        uint64_t began = clock_monotonic_ms();
        int rc = check_once(v, ticket > 1, &result);
        if (rc != -ECANCELED)
            log_check(rc, &result, clock_monotonic_ms() - began);
        result.error = rc;
        lock_take(&v->housekeeping.lock);
        v->housekeeping.checks_done = ticket;
        v->housekeeping.checked = result;
    }
    lock_release(&v->housekeeping.lock);
}

int
volume_start_checker(struct volume *v)
{
    v->housekeeping.checks_wanted = 1; // the mount's own
    int rc = thread_start(&v->housekeeping.checker, "check", check_run, v);
    v->housekeeping.checker_started = rc == 0;
    return rc;
}

void
volume_stop_checker(struct volume *v)
{
    if (!v->housekeeping.checker_started)
        return;
    lock_take(&v->housekeeping.lock);
    v->housekeeping.stopping = true;
    condition_signal(&v->housekeeping.check_work);
    lock_release(&v->housekeeping.lock);
    thread_join(&v->housekeeping.checker);
    v->housekeeping.checker_started = false;
}

int
volume_check(struct volume *v, uint64_t *ticket_out)
{
    if (v->from_bucket)
        return -EROFS;
    lock_take(&v->housekeeping.lock);
    *ticket_out = ++v->housekeeping.checks_wanted;
    condition_signal(&v->housekeeping.check_work);
    lock_release(&v->housekeeping.lock);
    return 0;
}

void
volume_check_numbers(struct volume *v, struct metrics *m)
{
    lock_take(&v->housekeeping.lock);
    m->manifest_checks = v->housekeeping.checks_done;
    m->manifest_check_failed = v->housekeeping.checked.error < 0;
    m->manifest_entries = v->housekeeping.checked.entries;
    m->manifest_damaged = v->housekeeping.checked.damaged;
    m->manifest_violations = v->housekeeping.checked.violations;
    lock_release(&v->housekeeping.lock);
    m->manifest_damage_met = manifest_damage(v->manifest);
}
