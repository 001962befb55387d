// SPDX-License-Identifier: Apache-2.0
// Read transactions are kept after use (mdb_txn_reset) with their reader slot, so that beginning
// one is a renewal: no system call, no search for a slot.
#include "manifest/lmdb_env_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "manifest/lmdb_file.h"
#include "manifest/lmdb_seal.h"
#include "platform/clock.h"
#include "platform/file.h"
#include "platform/log.h"
#include "platform/memory.h"
#include "platform/path.h"
#include "quota/storage_quota.h"

#define READERS_MAX 1024u
// How long a reader waits for a slot while other readers of this process have one.
#define SLOT_WAIT_MS  2000u
#define FILE_MODE     0600
#define PROBE_BYTES   (1u << 20)
#define MAP_BYTES_MIN (64u << 10)

// ---- errors -------------------------------------------------------------------------------------

static int
error_of(int rc)
{
    switch (rc) {
    case MDB_SUCCESS:
        return 0;
    case MDB_NOTFOUND:
        return -ENOENT;
    case MDB_MAP_FULL:
        return LMDB_MAP_FULL;
    case MDB_READERS_FULL:
        return -ENFILE;
    case MDB_TXN_FULL:
        return -E2BIG;
    case MDB_INVALID:
    case MDB_VERSION_MISMATCH:
    case MDB_CORRUPTED:
    case MDB_PAGE_NOTFOUND:
    case MDB_INCOMPATIBLE:
        return -EBADMSG;
    case MDB_PANIC:
        return -EIO;
    case MDB_BAD_VALSIZE:
    case MDB_BAD_TXN:
    case MDB_BAD_DBI:
    case MDB_BAD_RSLOT:
        return -EINVAL;
    default:
        return rc > 0 ? -rc : -EIO;
    }
}

int
lmdb_log_failure(int rc, const char *what)
{
    log_error("manifest.lmdb_failed", "%s: %s", what, mdb_strerror(rc));
    return error_of(rc);
}

// LMDB reports a write that was cut short as EIO. A disk that just became full does that; it then
// also refuses a small extension of the file. (The extension is harmless if it succeeds. One that
// is there already is not made again.)
static int
explain_io_error(struct lmdb_env *env)
{
    mdb_filehandle_t fd;
    MDB_envinfo info;
    MDB_stat stat;
    uint64_t bytes;
    if (mdb_env_get_fd(env->mdb, &fd) != 0 || mdb_env_info(env->mdb, &info) != 0 ||
        mdb_env_stat(env->mdb, &stat) != 0 || file_size(fd, &bytes) < 0)
        return -EIO;
    uint64_t used = ((uint64_t)info.me_last_pgno + 1) * stat.ms_psize;
    uint64_t at = bytes >= used + 2 * PROBE_BYTES ? bytes - PROBE_BYTES : bytes;
    int rc = file_ops_system.fallocate(fd, (off_t)at, PROBE_BYTES);
    return rc == -ENOSPC || rc == -EDQUOT || rc == -EFBIG ? rc : -EIO;
}

static int
write_error_of(struct lmdb_env *env, int rc)
{
    return rc == EIO ? explain_io_error(env) : error_of(rc);
}

// The error of an operation on entries: logs errors that are neither answers nor the writer's to
// handle.
int
lmdb_entry_error(struct lmdb_env *env, int rc, const char *what)
{
    if (LIKELY(rc == 0))
        return 0;
    int error = write_error_of(env, rc);
    if (error != -ENOENT && error != LMDB_MAP_FULL)
        log_error("manifest.lmdb_failed", "%s: %s", what, mdb_strerror(rc));
    return error;
}

// ---- the map ------------------------------------------------------------------------------------

static bool
address_space_is_left(uint64_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED)
        return false;
    munmap(p, bytes);
    return true;
}

bool
lmdb_wait_until_quiet_locked(struct lmdb_env *env, uint64_t deadline_ms)
{
    bool in_time = true;
    env->movers++;
    while (in_time && (env->readers > 0 || env->writing))
        in_time = condition_wait_until(&env->quiet, &env->lock, deadline_ms);
    env->movers--;
    return env->readers == 0 && !env->writing;
}

// Sets the map's size, or with 0 takes over the size another process has set.
static int
move_map_locked(struct lmdb_env *env, uint64_t bytes)
{
    lmdb_wait_until_quiet_locked(env, UINT64_MAX);
    if (env->unmapped)
        return -EIO;
    // LMDB lets the old map go before it makes the new one, and has none if that fails.
    if (!address_space_is_left(bytes ? bytes : MAP_BYTES_MIN))
        return -ENOMEM;
    int rc = mdb_env_set_mapsize(env->mdb, bytes);
    if (rc == 0)
        return 0;
    env->unmapped = true;
    env->failed = true;
    return lmdb_log_failure(rc, "moving the map");
}

static int
move_map(struct lmdb_env *env, uint64_t bytes)
{
    lock_take(&env->lock);
    int rc = move_map_locked(env, bytes);
    lock_release(&env->lock);
    return rc;
}

int
lmdb_env_grow(struct lmdb_env *env)
{
    MDB_envinfo info;
    int rc = mdb_env_info(env->mdb, &info);
    if (rc != 0)
        return lmdb_log_failure(rc, "mdb_env_info");
    rc = move_map(env, (uint64_t)info.me_mapsize * 2);
    if (rc == 0)
        log_debug("manifest.map_grown", "to %zu bytes", info.me_mapsize * 2);
    return rc;
}

// By its name: the descriptor changes when the environment is opened again.
uint64_t
lmdb_env_file_bytes(const struct lmdb_env *env)
{
    CLEANUP(memory_free_auto) char *path = memory_printf("%s/data.mdb", env->directory);
    return storage_quota_path_bytes(path);
}

// ---- opening ------------------------------------------------------------------------------------

static bool
is_table(const struct lmdb_options *options, const MDB_val *name)
{
    for (unsigned i = 0; i < options->table_count; i++)
        if (strlen(options->tables[i]) == name->mv_size &&
            memcmp(options->tables[i], name->mv_data, name->mv_size) == 0)
            return true;
    return false;
}

// Whether the tables are ours and nothing else is there. A table whose name changed on the disk
// would otherwise be an empty new one.
static int
check_tables(struct lmdb_txn *txn, const struct lmdb_options *options)
{
    MDB_dbi names;
    MDB_cursor *cursor;
    MDB_val name;
    MDB_val head;
    unsigned flags;
    bool good = true;
    for (unsigned i = 0; i < options->table_count; i++)
        good = good && mdb_dbi_flags(txn->mdb, txn->env->tables[i], &flags) == 0 && flags == 0;
    int rc = mdb_dbi_open(txn->mdb, NULL, 0, &names);
    if (rc == 0)
        rc = mdb_cursor_open(txn->mdb, names, &cursor);
    if (rc != 0)
        return lmdb_entry_error(txn->env, rc, "reading the names of the tables");
    while (good && mdb_cursor_get(cursor, &name, &head, MDB_NEXT) == 0)
        good = is_table(options, &name);
    mdb_cursor_close(cursor);
    if (good)
        return 0;
    log_error("manifest.damaged",
        "the manifest's tables are not those of this program: it is damaged, or was written by a "
        "newer version of ckptfs");
    return -EBADMSG;
}

static int
open_tables(struct lmdb_env *env, const struct lmdb_options *options)
{
    struct lmdb_txn *txn;
    int rc = lmdb_write_begin(env, &txn);
    if (rc < 0)
        return rc;
    for (unsigned i = 0; i < options->table_count; i++) {
        int mdb_rc = mdb_dbi_open(txn->mdb, options->tables[i], MDB_CREATE, &env->tables[i]);
        if (mdb_rc != 0) {
            rc = lmdb_entry_error(env, mdb_rc, options->tables[i]);
            lmdb_write_abort(txn);
            return rc;
        }
    }
    rc = check_tables(txn, options);
    if (rc == 0)
        return lmdb_write_commit(txn);
    lmdb_write_abort(txn);
    return rc;
}

int
lmdb_open_mdb(struct lmdb_env *env, uint64_t map_bytes, unsigned flags)
{
    flags |= MDB_NOTLS | (env->options.no_sync ? MDB_NOSYNC | MDB_NOMETASYNC : 0);
    int rc = mdb_env_create(&env->mdb);
    if (rc == 0)
        rc = mdb_env_set_maxdbs(env->mdb, LMDB_TABLES_MAX);
    if (rc == 0)
        rc = mdb_env_set_maxreaders(env->mdb, READERS_MAX);
    if (rc == 0)
        rc = mdb_env_set_mapsize(env->mdb, map_bytes);
    if (rc == 0)
        rc = mdb_env_open(env->mdb, env->directory, flags, FILE_MODE);
    if (rc == ENOMEM)
        return -ENOMEM; // the caller may ask for less
    return rc == 0 ? 0 : lmdb_log_failure(rc, env->directory);
}

static int
open_env(struct lmdb_env *env)
{
    const struct lmdb_options *options = &env->options;
    int error = lmdb_open_mdb(
        env, options->map_bytes < MAP_BYTES_MIN ? MAP_BYTES_MIN : options->map_bytes, 0);
    if (error < 0)
        return error;
    // Slots of processes that died keep old pages from being reused.
    int dead;
    int rc = mdb_reader_check(env->mdb, &dead);
    if (rc != 0)
        return lmdb_log_failure(rc, "mdb_reader_check");
    do
        error = open_tables(env, options);
    while (error == LMDB_MAP_FULL && (error = lmdb_env_grow(env)) == 0);
    if (error == 0)
        error = lmdb_settle(env, NULL);
    if (error < 0 || options->no_sync)
        return error;
    error = file_sync_directory(&file_ops_system, env->directory);
    if (error < 0)
        log_error("manifest.open_failed", "%s: %s", env->directory, strerror(-error));
    return error;
}

int
lmdb_env_open(const char *directory, const struct lmdb_options *options, struct lmdb_env **env_out)
{
    *env_out = NULL;
    assert(options->table_count <= LMDB_TABLES_MAX);
    CLEANUP(memory_free_auto) char *path = memory_printf("%s/data.mdb", directory);
    CLEANUP(memory_free_auto) char *lock = memory_printf("%s/lock.mdb", directory);
    struct stat st;
    // LMDB would follow a link.
    if (path_stat(lock, &st) == 0 && !S_ISREG(st.st_mode)) {
        log_error("manifest.open_failed", "%s is not a regular file", lock);
        return S_ISLNK(st.st_mode) ? -ELOOP : -EBADMSG;
    }
    int rc = lmdb_file_check(path);
    if (rc < 0 && rc != -ENOENT)
        return rc;
    struct lmdb_env *env = memory_alloc_zero(sizeof(*env));
    lock_init(&env->lock, "lmdb_env", LOCK_RANK_MANIFEST);
    condition_init(&env->quiet);
    condition_init(&env->mended);
    condition_init(&env->slot);
    env->options = *options;
    env->directory = memory_string(directory);
    env->names = options->tables;
    env->table_count = options->table_count;
    env->plain_table = options->plain_table;
    env->plain_key = options->plain_key;
    for (unsigned i = 0; i < options->table_count; i++)
        env->seeds[i] = lmdb_seal_seed(options->tables[i]);
    rc = open_env(env);
    if (rc < 0)
        lmdb_env_close(env);
    else
        *env_out = env;
    return rc;
}

void
lmdb_close_mdb(struct lmdb_env *env)
{
    while (env->idle) {
        struct lmdb_txn *txn = env->idle;
        env->idle = txn->next_idle;
        mdb_txn_abort(txn->mdb);
        free(txn);
    }
    if (env->mdb)
        mdb_env_close(env->mdb);
    env->mdb = NULL;
}

void
lmdb_env_close(struct lmdb_env *env)
{
    if (!env)
        return;
    assert(env->readers == 0 && !env->writing);
    lmdb_close_mdb(env);
    condition_destroy(&env->slot);
    condition_destroy(&env->mended);
    condition_destroy(&env->quiet);
    lock_destroy(&env->lock);
    free(env->directory);
    free(env);
}

// ---- read transactions --------------------------------------------------------------------------

static int
begin_mdb_reader(struct lmdb_txn *txn)
{
    if (txn->mdb)
        return mdb_txn_renew(txn->mdb);
    int rc = mdb_txn_begin(txn->env->mdb, NULL, MDB_RDONLY, &txn->mdb);
    int dead = 0;
    if (rc == MDB_READERS_FULL && mdb_reader_check(txn->env->mdb, &dead) == 0 && dead > 0)
        rc = mdb_txn_begin(txn->env->mdb, NULL, MDB_RDONLY, &txn->mdb);
    if (rc != 0)
        txn->mdb = NULL;
    return rc;
}

// Gives the transaction back to the pool; one without a slot is freed.
static void
put_reader(struct lmdb_env *env, struct lmdb_txn *txn)
{
    bool keep = txn->mdb != NULL;
    lock_take(&env->lock);
    env->readers--;
    if (keep) {
        txn->next_idle = env->idle;
        env->idle = txn;
        if (env->slot_waiters > 0)
            condition_signal(&env->slot);
    }
    if (env->movers > 0 && env->readers == 0)
        condition_broadcast(&env->quiet);
    lock_release(&env->lock);
    if (!keep)
        free(txn);
}

static struct lmdb_txn *
get_reader(struct lmdb_env *env)
{
    lock_take(&env->lock);
    env->readers++;
    struct lmdb_txn *txn = env->idle;
    if (txn)
        env->idle = txn->next_idle;
    lock_release(&env->lock);
    if (!txn) {
        txn = memory_alloc_zero(sizeof(*txn));
        txn->env = env;
    }
    return txn;
}

// All slots of the root are taken, by live processes. This process may get one of its own back:
// then the reader tries again.
static bool
wait_for_slot(struct lmdb_env *env, uint64_t *deadline_ms)
{
    if (*deadline_ms == 0)
        *deadline_ms = clock_monotonic_ms() + SLOT_WAIT_MS;
    lock_take(&env->lock);
    env->slot_waiters++;
    bool in_time = true;
    while (in_time && !env->idle && env->readers > 0)
        in_time = condition_wait_until(&env->slot, &env->lock, *deadline_ms);
    bool again = env->idle != NULL;
    env->slot_waiters--;
    lock_release(&env->lock);
    return again && clock_monotonic_ms() < *deadline_ms;
}

static int
no_slot(struct lmdb_env *env)
{
    log_error("manifest.readers_full",
        "%s: all %u slots for readers are taken by mounts and ckptctl commands that use this "
        "storage "
        "root at once; end some of them",
        env->directory, READERS_MAX);
    return error_of(MDB_READERS_FULL);
}

int
lmdb_read_begin(struct lmdb_env *env, struct lmdb_txn **txn_out)
{
    uint64_t deadline = 0;
    uint64_t slot_deadline = 0;
    *txn_out = NULL;
    for (;;) {
        struct lmdb_txn *txn = get_reader(env);
        int rc = env->unmapped ? EIO : begin_mdb_reader(txn);
        if (LIKELY(rc == 0)) {
            txn->sealed = env->sealed;
            *txn_out = txn;
            return 0;
        }
        put_reader(env, txn);
        if (rc == MDB_PANIC && lmdb_wait_until_mended(env, &deadline))
            continue;
        if (rc == MDB_READERS_FULL && wait_for_slot(env, &slot_deadline))
            continue;
        if (rc == MDB_READERS_FULL)
            return no_slot(env);
        if (rc != MDB_MAP_RESIZED)
            return lmdb_log_failure(rc, "beginning a read transaction");
        int error = move_map(env, 0);
        if (error < 0)
            return error;
    }
}

void
lmdb_read_end(struct lmdb_txn *txn)
{
    mdb_txn_reset(txn->mdb);
    put_reader(txn->env, txn);
}

// ---- the write transaction ----------------------------------------------------------------------

static void
set_writing(struct lmdb_env *env, bool writing)
{
    lock_take(&env->lock);
    assert(env->writing != writing);
    env->writing = writing;
    if (env->movers > 0)
        condition_broadcast(&env->quiet);
    lock_release(&env->lock);
}

int
lmdb_write_begin(struct lmdb_env *env, struct lmdb_txn **txn_out)
{
    *txn_out = NULL;
    for (;;) {
        if (env->failed)
            return -EIO;
        struct lmdb_txn *txn = memory_alloc_zero(sizeof(*txn));
        txn->env = env;
        set_writing(env, true);
        int rc = mdb_txn_begin(env->mdb, NULL, 0, &txn->mdb);
        if (rc == 0) {
            txn->sealed = env->sealed;
            *txn_out = txn;
            return 0;
        }
        set_writing(env, false);
        free(txn);
        if (rc == MDB_PANIC)
            env->failed = true;
        if (rc != MDB_MAP_RESIZED)
            return lmdb_log_failure(rc, "beginning a write transaction");
        int error = move_map(env, 0);
        if (error < 0)
            return error;
    }
}

void
lmdb_write_abort(struct lmdb_txn *txn)
{
    struct lmdb_env *env = txn->env;
    mdb_txn_abort(txn->mdb);
    set_writing(env, false);
    free(txn);
}

// After a write of the meta page that failed, LMDB begins no transaction any more.
static bool
is_shut(struct lmdb_env *env)
{
    MDB_txn *txn;
    int rc = mdb_txn_begin(env->mdb, NULL, 0, &txn);
    if (rc == 0)
        mdb_txn_abort(txn);
    return rc == MDB_PANIC;
}

static int
commit_failed(struct lmdb_env *env, int rc, uint64_t transaction)
{
    int error = write_error_of(env, rc);
    bool clean = error == LMDB_MAP_FULL || error == -ENOSPC || error == -EDQUOT ||
                 error == -EFBIG || error == -E2BIG || error == -ENOMEM;
    if (clean && !is_shut(env)) {
        if (error != LMDB_MAP_FULL)
            log_error("manifest.commit_failed", "nothing was changed: %s", mdb_strerror(-error));
        return error;
    }
    env->expected = transaction - 1;
    env->failed = true;
    log_error("manifest.commit_in_doubt", "a commit of the manifest failed: %s", mdb_strerror(rc));
    return clean ? error : -EIO;
}

int
lmdb_write_commit(struct lmdb_txn *txn)
{
    struct lmdb_env *env = txn->env;
    bool sealed = txn->sealed;
    uint64_t transaction = mdb_txn_id(txn->mdb);
    int rc = mdb_txn_commit(txn->mdb);
    if (rc == 0 && sealed)
        env->sealed = true;
    int error = rc == 0 ? 0 : commit_failed(env, rc, transaction);
    set_writing(env, false);
    free(txn);
    return error;
}
