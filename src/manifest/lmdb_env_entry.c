// SPDX-License-Identifier: Apache-2.0
// Entries and cursors. This file checks all reads from a sealed environment, in one place for all
// tables.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "manifest/lmdb_env_internal.h"
#include "manifest/lmdb_seal.h"
#include "platform/log.h"
#include "platform/mapped_file.h"
#include "platform/memory.h"

// How much of all mapped files may be resident, and how many entries may be looked at in between.
#define RESIDENT_BYTES_MAX (24u << 20)
#define TRIM_INTERVAL      512u
// So many damaged entries are logged one by one; later ones are only counted.
#define DAMAGE_LOGGED_MAX 32u

// ---- entries ------------------------------------------------------------------------------------

void
lmdb_note_look(struct lmdb_env *env)
{
    int fd;
    unsigned n = atomic_fetch_add_explicit(&env->looked, 1, memory_order_relaxed);
    if (UNLIKELY((n + 1) % TRIM_INTERVAL == 0) && mdb_env_get_fd(env->mdb, &fd) == 0)
        mapped_file_trim(fd, RESIDENT_BYTES_MAX);
}

int
lmdb_compare_keys(const void *a, size_t a_length, const void *b, size_t b_length)
{
    size_t common = a_length < b_length ? a_length : b_length;
    int order = memcmp(a, b, common);
    return order != 0 ? order : (a_length > b_length) - (a_length < b_length);
}

bool
lmdb_is_plain(const struct lmdb_env *env, unsigned table, const MDB_val *key)
{
    return UNLIKELY(table == env->plain_table) &&
           lmdb_compare_keys(
               key->mv_data, key->mv_size, env->plain_key.data, env->plain_key.length) == 0;
}

int
lmdb_damaged_entry(
    struct lmdb_env *env, unsigned table, const void *key, size_t length, const char *problem)
{
    char hex[2 * 24 + 4] = "";
    size_t shown = length < 24 ? length : 24;
    for (size_t i = 0; i < shown; i++)
        snprintf(hex + 2 * i, 3, "%02x", ((const uint8_t *)key)[i]);
    if (shown < length)
        memcpy(hex + 2 * shown, "...", sizeof("..."));
    if (atomic_fetch_add(&env->damage, 1) < DAMAGE_LOGGED_MAX)
        log_error("manifest.damaged", "table %s, key %s: %s", env->names[table], hex, problem);
    return -EBADMSG;
}

// Checks an entry that was read, and takes the seal off the value.
int
lmdb_open_entry(struct lmdb_txn *txn, unsigned table, const MDB_val *key, MDB_val *value)
{
    struct lmdb_env *env = txn->env;
    if (UNLIKELY(!txn->sealed) || lmdb_is_plain(env, table, key))
        return 0;
    if (UNLIKELY(!lmdb_seal_is_whole(
            env->seeds[table], key->mv_data, key->mv_size, value->mv_data, value->mv_size)))
        return lmdb_damaged_entry(env, table, key->mv_data, key->mv_size,
            "the entry is not what was written (its checksum is wrong)");
    value->mv_size -= LMDB_SEAL_BYTES;
    return 0;
}

// Reads the neighbour of the place where `wanted` would stand and checks that it is whole and on
// the right side. 0 also when there is none; 1 for an entry.
static int
check_neighbour(struct lmdb_txn *txn, unsigned table, MDB_cursor *cursor, MDB_cursor_op op,
    const MDB_val *wanted, int side)
{
    MDB_val key = *wanted;
    MDB_val value = {0};
    int rc = mdb_cursor_get(cursor, &key, &value, op);
    if (rc != 0)
        return rc == MDB_NOTFOUND ? 0 : lmdb_entry_error(txn->env, rc, "moving a cursor");
    int error = lmdb_open_entry(txn, table, &key, &value);
    if (error < 0)
        return error;
    int order = lmdb_compare_keys(key.mv_data, key.mv_size, wanted->mv_data, wanted->mv_size);
    if (side < 0 ? order >= 0 : order <= 0)
        return lmdb_damaged_entry(txn->env, table, wanted->mv_data, wanted->mv_size,
            "the entries at this place are not in the order of their keys");
    return 1;
}

// -ENOENT when the entry is not there and the ones around its place are as they should be: an entry
// whose key changed on the disk still stands in its old place, and so do those below an inner page
// whose key changed.
static int
prove_absent(struct lmdb_txn *txn, unsigned table, const MDB_val *wanted)
{
    if (!txn->sealed || lmdb_is_plain(txn->env, table, wanted))
        return -ENOENT;
    MDB_cursor *cursor;
    int rc = mdb_cursor_open(txn->mdb, txn->env->tables[table], &cursor);
    if (rc != 0)
        return lmdb_entry_error(txn->env, rc, "opening a cursor");
    int error = check_neighbour(txn, table, cursor, MDB_SET_RANGE, wanted, 1);
    if (error >= 0)
        error = check_neighbour(txn, table, cursor, error ? MDB_PREV : MDB_LAST, wanted, -1);
    mdb_cursor_close(cursor);
    return error < 0 ? error : -ENOENT;
}

int
lmdb_get(struct lmdb_txn *txn, unsigned table, const void *key, size_t key_length,
    struct lmdb_value *value_out)
{
    MDB_val k = lmdb_val_of(key, key_length);
    MDB_val v = {0};
    *value_out = (struct lmdb_value){0};
    lmdb_note_look(txn->env);
    int rc = mdb_get(txn->mdb, txn->env->tables[table], &k, &v);
    if (rc != 0)
        return rc == MDB_NOTFOUND ? prove_absent(txn, table, &k)
                                  : lmdb_entry_error(txn->env, rc, "reading an entry");
    rc = lmdb_open_entry(txn, table, &k, &v);
    if (rc == 0)
        *value_out = (struct lmdb_value){v.mv_data, v.mv_size};
    return rc;
}

int
lmdb_put_sealed(struct lmdb_txn *txn, unsigned table, MDB_val *k, const MDB_val *v)
{
    MDB_val room = {.mv_size = v->mv_size + LMDB_SEAL_BYTES};
    int rc = mdb_put(txn->mdb, txn->env->tables[table], k, &room, MDB_RESERVE);
    if (rc == 0)
        lmdb_seal_write(
            txn->env->seeds[table], k->mv_data, k->mv_size, v->mv_data, v->mv_size, room.mv_data);
    return rc;
}

int
lmdb_put(struct lmdb_txn *txn, unsigned table, const void *key, size_t key_length,
    const void *value, size_t value_length)
{
    MDB_val k = lmdb_val_of(key, key_length);
    MDB_val v = lmdb_val_of(value, value_length);
    lmdb_note_look(txn->env);
    int rc = txn->sealed && !lmdb_is_plain(txn->env, table, &k)
                 ? lmdb_put_sealed(txn, table, &k, &v)
                 : mdb_put(txn->mdb, txn->env->tables[table], &k, &v, 0);
    return lmdb_entry_error(txn->env, rc, "writing an entry");
}

int
lmdb_delete(struct lmdb_txn *txn, unsigned table, const void *key, size_t key_length)
{
    MDB_val k = lmdb_val_of(key, key_length);
    int rc = mdb_del(txn->mdb, txn->env->tables[table], &k, NULL);
    return rc == MDB_NOTFOUND ? prove_absent(txn, table, &k)
                              : lmdb_entry_error(txn->env, rc, "deleting an entry");
}

// ---- cursors ------------------------------------------------------------------------------------

int
lmdb_cursor_open(struct lmdb_txn *txn, unsigned table, struct lmdb_cursor **cursor_out)
{
    *cursor_out = NULL;
    MDB_cursor *mdb;
    int rc = mdb_cursor_open(txn->mdb, txn->env->tables[table], &mdb);
    if (rc != 0)
        return lmdb_entry_error(txn->env, rc, "opening a cursor");
    struct lmdb_cursor *cursor = memory_alloc(sizeof(*cursor));
    cursor->txn = txn;
    cursor->mdb = mdb;
    cursor->table = table;
    cursor->at_length = 0;
    *cursor_out = cursor;
    return 0;
}

void
lmdb_cursor_close(struct lmdb_cursor *cursor)
{
    if (!cursor)
        return;
    mdb_cursor_close(cursor->mdb);
    free(cursor);
}

void
lmdb_cursor_close_auto(struct lmdb_cursor **cursor)
{
    lmdb_cursor_close(*cursor);
}

// `side` is where the new place must be, seen from the old one: 1 behind it, -1 before it, 0
// anywhere.
static int
cursor_move(struct lmdb_cursor *cursor, MDB_cursor_op op, MDB_val key, int side,
    struct lmdb_value *key_out, struct lmdb_value *value_out)
{
    struct lmdb_txn *txn = cursor->txn;
    MDB_val value = {0};
    lmdb_note_look(txn->env);
    int rc = mdb_cursor_get(cursor->mdb, &key, &value, op);
    if (rc != 0)
        return lmdb_entry_error(txn->env, rc, "moving a cursor");
    rc = lmdb_open_entry(txn, cursor->table, &key, &value);
    if (rc < 0)
        return rc;
    if (side != 0 && cursor->at_length > 0) {
        int order = lmdb_compare_keys(key.mv_data, key.mv_size, cursor->at, cursor->at_length);
        if (side > 0 ? order <= 0 : order >= 0)
            return lmdb_damaged_entry(txn->env, cursor->table, key.mv_data, key.mv_size,
                "the entry stands at a wrong place");
    }
    cursor->at_length = key.mv_size <= sizeof(cursor->at) ? key.mv_size : 0;
    memcpy(cursor->at, key.mv_data, cursor->at_length);
    *key_out = (struct lmdb_value){key.mv_data, key.mv_size};
    *value_out = (struct lmdb_value){value.mv_data, value.mv_size};
    return 0;
}

// Whether nothing that belongs behind `wanted` stands before it. The cursor is somewhere else
// afterwards.
static int
check_place(struct lmdb_cursor *cursor, const MDB_val *wanted)
{
    MDB_val key = *wanted;
    MDB_val value;
    int rc = mdb_cursor_get(cursor->mdb, &key, &value, MDB_SET_RANGE);
    if (rc != 0 && rc != MDB_NOTFOUND)
        return lmdb_entry_error(cursor->txn->env, rc, "moving a cursor");
    if (rc == 0 &&
        lmdb_compare_keys(key.mv_data, key.mv_size, wanted->mv_data, wanted->mv_size) < 0)
        return lmdb_damaged_entry(cursor->txn->env, cursor->table, wanted->mv_data, wanted->mv_size,
            "the entries at this place are not in the order of their keys");
    int found = check_neighbour(
        cursor->txn, cursor->table, cursor->mdb, rc == 0 ? MDB_PREV : MDB_LAST, wanted, -1);
    return found < 0 ? found : 0;
}

int
lmdb_cursor_seek(struct lmdb_cursor *cursor, const void *key, size_t key_length,
    struct lmdb_value *key_out, struct lmdb_value *value_out)
{
    MDB_val wanted = lmdb_val_of(key, key_length);
    if (cursor->txn->sealed) {
        int rc = check_place(cursor, &wanted);
        if (rc < 0)
            return rc;
    }
    return cursor_move(cursor, MDB_SET_RANGE, wanted, 0, key_out, value_out);
}

int
lmdb_cursor_next(
    struct lmdb_cursor *cursor, struct lmdb_value *key_out, struct lmdb_value *value_out)
{
    return cursor_move(cursor, MDB_NEXT, (MDB_val){0}, 1, key_out, value_out);
}

int
lmdb_cursor_previous(
    struct lmdb_cursor *cursor, struct lmdb_value *key_out, struct lmdb_value *value_out)
{
    return cursor_move(cursor, MDB_PREV, (MDB_val){0}, -1, key_out, value_out);
}

int
lmdb_cursor_last(
    struct lmdb_cursor *cursor, struct lmdb_value *key_out, struct lmdb_value *value_out)
{
    return cursor_move(cursor, MDB_LAST, (MDB_val){0}, 0, key_out, value_out);
}

int
lmdb_cursor_delete(struct lmdb_cursor *cursor)
{
    return lmdb_entry_error(cursor->txn->env, mdb_cursor_del(cursor->mdb, 0), "deleting an entry");
}
