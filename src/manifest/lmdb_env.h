// SPDX-License-Identifier: Apache-2.0
// LMDB behind a small interface: one environment with named tables, read transactions from a pool,
// one write transaction at a time, cursors. Only the files lmdb_env* include lmdb.h.
//
// The map. LMDB maps its file into memory at a fixed size. The writer must raise the size before
// the file outgrows it, at a moment when this process has no transaction. Address space costs
// nothing, so the caller should ask at the opening for far more than it will use.
//
// Seals. In a sealed environment each value carries a checksum over table, key and value
// (lmdb_seal.h), which callers do not see. Each read compares an entry with its seal, and keys must
// come in their order. For "there is no such entry" the two entries around its place must be whole
// and in order, so that no reader takes an entry whose key changed on the disk for one that was
// never there. Damage is -EBADMSG, logged and counted.
//
// An environment must not be open twice in one process: closing one handle drops the file locks of
// the other (fcntl(2)), after which other processes take the reader slots for abandoned.
#ifndef CKPTFS_MANIFEST_LMDB_ENV_H
#define CKPTFS_MANIFEST_LMDB_ENV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"

struct lmdb_env;
struct lmdb_txn;
struct lmdb_cursor;

// Bytes in the map (or in the write transaction's memory): valid until the transaction ends or
// writes again.
struct lmdb_value {
    const void *data;
    size_t length;
};

struct lmdb_options {
    uint64_t map_bytes;
    bool no_sync;
    const char *const *tables; // names; a table's number is its place here
    unsigned table_count;
    // The only entry without a seal: programs that know no seals must be able to read it.
    unsigned plain_table;
    struct lmdb_value plain_key; // lives as long as the environment
};

// Result of writing functions and lmdb_write_commit when the map is too small: abort, call
// lmdb_env_grow, and do the transaction again.
#define LMDB_MAP_FULL (-EXFULL)

// Opens or creates the environment in `directory`, which exists. -EBADMSG when it is not an LMDB
// environment or has damage that lmdb_file.h can find; -ENOMEM when there is no address space for
// the map.
MUST_CHECK int lmdb_env_open(
    const char *directory, const struct lmdb_options *options, struct lmdb_env **env_out);
// No transactions may be left. NULL is fine.
void lmdb_env_close(struct lmdb_env *env);

// Doubles the map once the readers of this process are done. The caller is the writer and has no
// transaction. -ENOMEM when there is no address space.
MUST_CHECK int lmdb_env_grow(struct lmdb_env *env);

// Bytes in blocks of the environment's file.
uint64_t lmdb_env_file_bytes(const struct lmdb_env *env);

// After a failed commit that may or may not be on the disk the environment is failed: no thread can
// write. lmdb_env_mend, which the writer calls, opens it again, which takes the doubtful
// transaction back: 0 when the environment durably has the state of the last successful commit and
// is writable; the writer may then do the failed transaction again. Readers wait a moment
// meanwhile. Errors: the disk's; -EBUSY when readers do not end; -ESTALE when the newest
// transaction is not the expected one. Try again later, or give up with lmdb_env_give_up, for ever:
// then no thread writes any more, and reads go on as far as they can.
bool lmdb_env_is_failed(const struct lmdb_env *env);
MUST_CHECK int lmdb_env_mend(struct lmdb_env *env);
void lmdb_env_give_up(struct lmdb_env *env);
bool lmdb_env_is_lost(const struct lmdb_env *env);

// lmdb_env_open opens an environment without seals. Both functions are for a write transaction,
// which reads and writes sealed values from then on, as the whole environment does after its
// commit. lmdb_use_seals: the values have their seals already. lmdb_seal_all gives them to all
// values; -EBUSY when another process that is alive uses the environment, because it may not know
// seals.
void lmdb_use_seals(struct lmdb_txn *txn);
MUST_CHECK int lmdb_seal_all(struct lmdb_txn *txn);
// Whether no table has an entry.
bool lmdb_is_empty(struct lmdb_txn *txn);
// Bytes of the file that are in use.
uint64_t lmdb_used_bytes(struct lmdb_txn *txn);
// Reads every entry of all tables and counts them: 0, or -EBADMSG when one is not whole, out of
// order or missing. It goes on behind a damaged entry, so that each is counted and told.
MUST_CHECK int lmdb_verify(struct lmdb_txn *txn);
// The same in steps: looks at up to `budget` entries from the place in `s` on, adds to the counts,
// and moves the place for the next step, maybe in another transaction. At the end `table` is behind
// the last table. Only for sealed environments; does not compare counts with those of the tables.
struct lmdb_sweep {
    unsigned table;
    size_t key_length; // 0: at the table's beginning
    uint8_t key[512];  // the highest that was met
    uint64_t entries;
    uint64_t damaged;
};
MUST_CHECK int lmdb_sweep_step(struct lmdb_txn *txn, struct lmdb_sweep *s, unsigned budget);

// Looks at all pages of the file, as of now, before a cursor trusts them: 0, -EBADMSG, logged, or
// -ECANCELED when `go_on` said no. Not `always`: only those of a file of which the opening left
// pages out.
typedef bool lmdb_go_on(void *argument);
MUST_CHECK int lmdb_check_pages(
    struct lmdb_env *env, bool always, lmdb_go_on *go_on, void *argument);
// How often readers met damage since the environment was opened.
uint64_t lmdb_env_damage(const struct lmdb_env *env);

// A read transaction; any thread, but one thread at a time. -ENFILE when all reader slots of all
// processes are taken.
MUST_CHECK int lmdb_read_begin(struct lmdb_env *env, struct lmdb_txn **txn_out);
void lmdb_read_end(struct lmdb_txn *txn);

// The write transaction: one at a time, begun and ended by the same thread. Waits for those of
// other processes.
MUST_CHECK int lmdb_write_begin(struct lmdb_env *env, struct lmdb_txn **txn_out);
// Ends the transaction in every case. 0: committed and on stable storage. -ENOSPC, -EDQUOT, -EFBIG:
// no room, nothing changed; -ENOMEM, LMDB_MAP_FULL likewise. After -EIO always, and after the
// others maybe, the transaction may be there: see lmdb_env_is_failed. Logged.
MUST_CHECK int lmdb_write_commit(struct lmdb_txn *txn);
void lmdb_write_abort(struct lmdb_txn *txn);

// 0 or -ENOENT, or -EBADMSG for damage.
MUST_CHECK int lmdb_get(struct lmdb_txn *txn, unsigned table, const void *key, size_t key_length,
    struct lmdb_value *value_out);
// Inserts or replaces.
MUST_CHECK int lmdb_put(struct lmdb_txn *txn, unsigned table, const void *key, size_t key_length,
    const void *value, size_t value_length);
// 0 or -ENOENT.
MUST_CHECK int lmdb_delete(
    struct lmdb_txn *txn, unsigned table, const void *key, size_t key_length);

// Cursors must be closed before their transaction ends. Each positioning call returns 0 with key
// and value, or -ENOENT at the end of the table. In a write transaction, a cursor is at an
// undefined place after lmdb_put or lmdb_delete to its table: seek again.
MUST_CHECK int lmdb_cursor_open(
    struct lmdb_txn *txn, unsigned table, struct lmdb_cursor **cursor_out);
void lmdb_cursor_close(struct lmdb_cursor *cursor); // NULL is fine
void lmdb_cursor_close_auto(struct lmdb_cursor **cursor);
// The first entry whose key is not below `key`.
MUST_CHECK int lmdb_cursor_seek(struct lmdb_cursor *cursor, const void *key, size_t key_length,
    struct lmdb_value *key_out, struct lmdb_value *value_out);
MUST_CHECK int lmdb_cursor_next(
    struct lmdb_cursor *cursor, struct lmdb_value *key_out, struct lmdb_value *value_out);
MUST_CHECK int lmdb_cursor_previous(
    struct lmdb_cursor *cursor, struct lmdb_value *key_out, struct lmdb_value *value_out);
MUST_CHECK int lmdb_cursor_last(
    struct lmdb_cursor *cursor, struct lmdb_value *key_out, struct lmdb_value *value_out);
// Deletes the entry at the cursor; lmdb_cursor_next then gives the one after it.
MUST_CHECK int lmdb_cursor_delete(struct lmdb_cursor *cursor);

#endif
