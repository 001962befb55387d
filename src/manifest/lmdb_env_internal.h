// SPDX-License-Identifier: Apache-2.0
// Shared by the files lmdb_env*.c. Only they and this header include lmdb.h.
//
//     lmdb_env.c         the environment, its map, transactions
//     lmdb_env_mend.c    opening it again after a failed commit
//     lmdb_env_entry.c   entries and cursors, and their seals
//     lmdb_env_seal.c    seals for a whole environment; a look at all entries
#ifndef CKPTFS_MANIFEST_LMDB_ENV_INTERNAL_H
#define CKPTFS_MANIFEST_LMDB_ENV_INTERNAL_H

#include <lmdb.h>
#include <stdatomic.h>

#include "manifest/lmdb_env.h"
#include "platform/lock.h"

#define LMDB_TABLES_MAX    40u
#define LMDB_KEY_BYTES_MAX 511u // LMDB's own limit

struct lmdb_txn {
    struct lmdb_env *env;
    MDB_txn *mdb;
    bool sealed;
    struct lmdb_txn *next_idle;
};

struct lmdb_cursor {
    struct lmdb_txn *txn;
    MDB_cursor *mdb;
    unsigned table;
    size_t at_length; // of the key that was read last; 0: none
    uint8_t at[LMDB_KEY_BYTES_MAX];
};

struct lmdb_env {
    MDB_env *mdb;
    char *directory;
    struct lmdb_options options;
    MDB_dbi tables[LMDB_TABLES_MAX];
    uint32_t seeds[LMDB_TABLES_MAX]; // of the tables' seals
    const char *const *names;        // of the tables
    unsigned table_count;
    unsigned plain_table;
    struct lmdb_value plain_key;
    atomic_bool sealed;
    atomic_ullong damage; // how often damage was met
    atomic_bool failed;   // a commit is in doubt: nothing can be written until lmdb_env_mend
    atomic_bool lost;     // and it will not be mended
    uint64_t expected;    // the newest transaction before the one in doubt; the writer's
    uint64_t map_bytes;   // when it was last open; the writer's
    atomic_bool unmapped; // the map is gone: nothing can be read either
    atomic_uint looked;   // entries

    struct lock lock;        // protects the following; held while the map moves
    struct condition quiet;  // readers or writing went to zero while a thread wants to move the map
    struct condition mended; // no longer failed, or lost
    struct condition slot;   // a reader has given its slot back while another one waits for one
    size_t readers;
    bool writing;
    unsigned movers;
    unsigned slot_waiters;
    struct lmdb_txn *idle;
};

// Waits until there are no transactions; false when the time is over. No reader begins one while
// the lock is held.
bool lmdb_wait_until_quiet_locked(struct lmdb_env *env, uint64_t deadline_ms);
// Opens env->mdb without its tables, and closes it with the transactions in the pool.
MUST_CHECK int lmdb_open_mdb(struct lmdb_env *env, uint64_t map_bytes, unsigned flags);
void lmdb_close_mdb(struct lmdb_env *env);
// Makes the file's present state durable: both meta pages name the newest transaction (see
// lmdb_env_mend.c). With `expected`, -ESTALE unless the newest is that one.
MUST_CHECK int lmdb_settle(struct lmdb_env *env, const uint64_t *expected);
// For a reader that LMDB refused: waits; whether the reader should try again. The deadline is 0 at
// first.
bool lmdb_wait_until_mended(struct lmdb_env *env, uint64_t *deadline_ms);
// The -errno of an operation on entries; logs it unless it is an answer or the writer handles it.
MUST_CHECK int lmdb_entry_error(struct lmdb_env *env, int rc, const char *what);
MUST_CHECK int lmdb_log_failure(int rc, const char *what);
// Logs and counts a damaged entry; -EBADMSG.
int lmdb_damaged_entry(
    struct lmdb_env *env, unsigned table, const void *key, size_t length, const char *problem);
// Whether it is the one entry without a seal.
bool lmdb_is_plain(const struct lmdb_env *env, unsigned table, const MDB_val *key);
// Checks an entry that was read, and takes the seal off the value.
MUST_CHECK int lmdb_open_entry(
    struct lmdb_txn *txn, unsigned table, const MDB_val *key, MDB_val *value);
int lmdb_compare_keys(const void *a, size_t a_length, const void *b, size_t b_length);
// Writes the value with its seal; LMDB's own error.
MUST_CHECK int lmdb_put_sealed(
    struct lmdb_txn *txn, unsigned table, MDB_val *key, const MDB_val *value);

static inline MDB_val
lmdb_val_of(const void *p, size_t n)
{
    return (MDB_val){.mv_size = n, .mv_data = (void *)(uintptr_t)p};
}

// Readers look at entries through the map. The pages that they have touched stay mapped, so a walk
// over a large manifest would make the process as large as its file: now and then this function
// gives the pages back. The caller has a transaction, so the map does not move.
void lmdb_note_look(struct lmdb_env *env);

#endif
