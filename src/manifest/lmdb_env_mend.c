// SPDX-License-Identifier: Apache-2.0
// Going on after a commit that failed: the writer closes the environment and opens it again.
//
// LMDB commits in two steps: it writes the new pages and flushes the file; then it writes a meta
// page that names them, through a descriptor with O_DSYNC. Transaction n has meta page n % 2, and
// the newest meta page counts. A page that the newest transaction n uses is never written again
// before n + 1 is durable. So n, of which both steps succeeded, is on the disk, in spite of all
// that happens to n + 1. After a flush that failed the kernel may take pages for clean that never
// got to the disk, but those can only be pages that n + 1 was the first to write. They are free as
// n sees it: a later transaction that takes one writes the whole page anew, which makes it dirty
// again, and flushes it. Nothing that n + 1 left in the kernel's cache is ever read. Therefore:
//
//   - The flush failed. Both meta pages are as they were. But the descriptor with O_DSYNC has not
//     told the error yet and would tell it for the next meta page, which may be good. New
//     descriptors do not: the error was told already.
//   - The write of the meta page failed. LMDB puts the old number back into the kernel's copy and
//     begins no transactions any more, not even for reading. On the disk may be n + 1, which is
// whole, because its pages were flushed. It must go before any process writes to its pages, or a
// loss of power would bring back a transaction with pages of another. So the meta page of n is
// copied over that of n + 1 and flushed (lmdb_file_settle): a write of one sector, after which the
// kernel's copy is dirty in any case. When that succeeds, n is all there is; when not,
//     nothing is written.
//
// After that the caller's transaction is certainly not in, and the caller may do it again.
//
// Opening the environment makes the same copy: the process before may have died between a failure
// and its repair.
//
// If another process has committed meanwhile, or the old number could not be put back, then the
// newest transaction is not n. The two cannot be told apart, so the answer is an error: the
// transaction may be in. The next process opens the newest transaction on the disk.
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "manifest/lmdb_env_internal.h"
#include "manifest/lmdb_file.h"
#include "platform/clock.h"
#include "platform/file.h"
#include "platform/log.h"
#include "platform/memory.h"

// A reader that waits for the environment may hold another read transaction, for which the writer
// waits; so it waits for less long.
#define QUIET_WAIT_MS  1000u
#define READER_WAIT_MS 500u

bool
lmdb_env_is_failed(const struct lmdb_env *env)
{
    return env->failed;
}

bool
lmdb_env_is_lost(const struct lmdb_env *env)
{
    return env->lost;
}

bool
lmdb_wait_until_mended(struct lmdb_env *env, uint64_t *deadline_ms)
{
    if (*deadline_ms == 0)
        *deadline_ms = clock_monotonic_ms() + READER_WAIT_MS;
    bool in_time = clock_monotonic_ms() < *deadline_ms;
    lock_take(&env->lock);
    bool noted = env->failed; // else the writer is about to, or has mended it already
    while (in_time && env->failed && !env->lost)
        in_time = condition_wait_until(&env->mended, &env->lock, *deadline_ms);
    bool again = in_time && !env->failed;
    lock_release(&env->lock);
    if (!noted)
        clock_sleep_ms(1);
    return again;
}

// Runs under LMDB's lock of writers.
static int
settle_in(struct lmdb_env *env, uint64_t newest, const uint64_t *expected)
{
    MDB_stat stat;
    mdb_filehandle_t fd;
    if (expected && newest != *expected) {
        log_error("manifest.commit_in_doubt", "the newest transaction is %" PRIu64 ", not %" PRIu64,
            newest, *expected);
        return -ESTALE;
    }
    int rc = mdb_env_stat(env->mdb, &stat);
    if (rc == 0)
        rc = mdb_env_get_fd(env->mdb, &fd);
    if (rc != 0)
        return lmdb_log_failure(rc, "mdb_env_get_fd");
    return lmdb_file_settle(fd, stat.ms_psize, newest);
}

int
lmdb_settle(struct lmdb_env *env, const uint64_t *expected)
{
    MDB_txn *txn;
    if (env->options.no_sync && !expected)
        return 0;
    int rc = mdb_txn_begin(env->mdb, NULL, 0, &txn);
    if (rc != 0)
        return lmdb_log_failure(rc, "beginning a write transaction");
    int error = settle_in(env, mdb_txn_id(txn) - 1, expected);
    mdb_txn_abort(txn);
    if (error < 0 && error != -ESTALE)
        log_error("manifest.open_failed", "%s: its meta pages cannot be written: %s",
            env->directory, strerror(-error));
    return error;
}

static int
open_tables_again(struct lmdb_env *env)
{
    MDB_txn *txn;
    int rc = mdb_txn_begin(env->mdb, NULL, MDB_RDONLY, &txn);
    if (rc != 0)
        return lmdb_log_failure(rc, "beginning a read transaction");
    for (unsigned i = 0; rc == 0 && i < env->table_count; i++)
        rc = mdb_dbi_open(txn, env->names[i], 0, &env->tables[i]);
    if (rc == 0)
        rc = mdb_txn_commit(txn); // keeps the handles
    else
        mdb_txn_abort(txn);
    return rc == 0 ? 0 : lmdb_log_failure(rc, "opening the tables again");
}

// The disk may have become read-only; then an environment opened for reading can be read.
static int
open_again_locked(struct lmdb_env *env)
{
    MDB_envinfo info;
    uint64_t map_bytes = env->map_bytes;
    if (env->mdb && mdb_env_info(env->mdb, &info) == 0)
        map_bytes = info.me_mapsize;
    env->map_bytes = map_bytes;
    env->unmapped = true;
    lmdb_close_mdb(env);
    int writable = lmdb_open_mdb(env, map_bytes, 0);
    int rc = writable;
    if (writable == -EROFS || writable == -EACCES) {
        lmdb_close_mdb(env);
        rc = lmdb_open_mdb(env, map_bytes, MDB_RDONLY);
    }
    if (rc == 0)
        rc = open_tables_again(env);
    if (rc == 0)
        env->unmapped = false;
    return writable < 0 ? writable : rc;
}

static int
mend_locked(struct lmdb_env *env)
{
    if (!lmdb_wait_until_quiet_locked(env, clock_monotonic_ms() + QUIET_WAIT_MS))
        return -EBUSY;
    int rc = open_again_locked(env);
    if (rc == 0)
        rc = lmdb_settle(env, &env->expected);
    if (rc < 0)
        return rc;
    env->failed = false;
    condition_broadcast(&env->mended);
    return 0;
}

int
lmdb_env_mend(struct lmdb_env *env)
{
    lock_take(&env->lock);
    int rc = mend_locked(env);
    lock_release(&env->lock);
    if (rc == 0)
        log_warning("manifest.reopened",
            "the manifest was opened again after a commit that failed, and is as it was before");
    return rc;
}

void
lmdb_env_give_up(struct lmdb_env *env)
{
    lock_take(&env->lock);
    env->failed = true;
    env->lost = true;
    condition_broadcast(&env->mended);
    lock_release(&env->lock);
    log_error("manifest.lost", "%s takes no more changes until the volume is mounted again",
        env->directory);
}
