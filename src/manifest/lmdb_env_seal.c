// SPDX-License-Identifier: Apache-2.0
// Seals for an environment that has none yet, and a look at all entries of one that has.
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "manifest/lmdb_env_internal.h"
#include "manifest/lmdb_file.h"
#include "platform/log.h"
#include "platform/memory.h"

// Entries that are sealed between two looks at the table.
#define SEAL_STEP      256u
#define PAGE_WALKS_MAX 10u

void
lmdb_use_seals(struct lmdb_txn *txn)
{
    txn->sealed = true;
}

bool
lmdb_is_empty(struct lmdb_txn *txn)
{
    MDB_stat stat;
    for (unsigned i = 0; i < txn->env->table_count; i++)
        if (mdb_stat(txn->mdb, txn->env->tables[i], &stat) != 0 || stat.ms_entries > 0)
            return false;
    return true;
}

uint64_t
lmdb_used_bytes(struct lmdb_txn *txn)
{
    MDB_envinfo info;
    MDB_stat stat;
    if (mdb_env_info(txn->env->mdb, &info) != 0 || mdb_env_stat(txn->env->mdb, &stat) != 0)
        return UINT64_MAX;
    return ((uint64_t)info.me_last_pgno + 1) * stat.ms_psize;
}

uint64_t
lmdb_env_damage(const struct lmdb_env *env)
{
    return env->damage;
}

// mdb_reader_list tells lines of text: first a heading, then process, thread and transaction.
static int
note_foreign_reader(const char *line, void *argument)
{
    long pid = strtol(line, NULL, 10);
    if (pid > 0 && pid != (long)getpid())
        *(long *)argument = pid;
    return 0;
}

static int
refuse_other_processes(struct lmdb_env *env)
{
    int dead;
    long other = 0;
    int rc = mdb_reader_check(env->mdb, &dead);
    if (rc == 0 && mdb_reader_list(env->mdb, note_foreign_reader, &other) < 0)
        rc = EIO;
    if (rc != 0)
        return lmdb_log_failure(rc, "looking for other processes");
    if (other == 0)
        return 0;
    log_error("manifest.format",
        "the storage root has an older format, and process %ld uses it; end that process to let "
        "this one bring the root up to date",
        other);
    return -EBUSY;
}

// One entry of a table that is being sealed.
struct unsealed {
    size_t key_length;
    uint8_t key[LMDB_KEY_BYTES_MAX];
    size_t value_length;
    uint8_t *value;
};

static uint8_t *
copy_of(const MDB_val *value)
{
    uint8_t *copy = memory_alloc(value->mv_size + 1);
    if (value->mv_size > 0)
        memcpy(copy, value->mv_data, value->mv_size);
    return copy;
}

// Collects entries from the one behind `*last` on; entries written before are not met again,
// because their keys do not change.
static int
collect_unsealed(struct lmdb_txn *txn, unsigned table, struct unsealed *entries,
    const struct unsealed *last, unsigned *count_out)
{
    MDB_cursor *cursor;
    int rc = mdb_cursor_open(txn->mdb, txn->env->tables[table], &cursor);
    MDB_val key = lmdb_val_of(last ? last->key : NULL, last ? last->key_length : 0);
    MDB_val value;
    *count_out = 0;
    if (rc != 0)
        return rc;
    rc = mdb_cursor_get(cursor, &key, &value, last ? MDB_SET_RANGE : MDB_FIRST);
    if (rc == 0 && last)
        rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT);
    while (rc == 0 && *count_out < SEAL_STEP) {
        struct unsealed *e = &entries[(*count_out)++];
        lmdb_note_look(txn->env);
        e->key_length = key.mv_size;
        memcpy(e->key, key.mv_data, key.mv_size);
        e->value_length = value.mv_size;
        e->value = copy_of(&value);
        rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT);
    }
    mdb_cursor_close(cursor);
    return rc == MDB_NOTFOUND ? 0 : rc;
}

static int
seal_table(struct lmdb_txn *txn, unsigned table)
{
    struct unsealed *entries = memory_alloc(SEAL_STEP * sizeof(*entries));
    struct unsealed last;
    unsigned count = 0;
    int rc = collect_unsealed(txn, table, entries, NULL, &count);
    while (rc == 0 && count > 0) {
        for (unsigned i = 0; i < count; i++) {
            MDB_val k = lmdb_val_of(entries[i].key, entries[i].key_length);
            MDB_val v = lmdb_val_of(entries[i].value, entries[i].value_length);
            if (rc == 0 && !lmdb_is_plain(txn->env, table, &k))
                rc = lmdb_put_sealed(txn, table, &k, &v);
            free(entries[i].value);
        }
        last = entries[count - 1];
        if (rc == 0)
            rc = collect_unsealed(txn, table, entries, &last, &count);
    }
    free(entries);
    return lmdb_entry_error(txn->env, rc, "sealing the entries");
}

int
lmdb_seal_all(struct lmdb_txn *txn)
{
    assert(!txn->sealed);
    int rc = refuse_other_processes(txn->env);
    for (unsigned i = 0; rc == 0 && i < txn->env->table_count; i++)
        rc = seal_table(txn, i);
    if (rc == 0)
        txn->sealed = true;
    return rc;
}

static int
verify_table(struct lmdb_txn *txn, unsigned table)
{
    struct lmdb_value key;
    struct lmdb_value value;
    MDB_stat stat;
    CLEANUP(lmdb_cursor_close_auto) struct lmdb_cursor *cursor = NULL;
    uint64_t entries = 0;
    int result = 0;
    int rc = mdb_stat(txn->mdb, txn->env->tables[table], &stat);
    if (rc != 0)
        return lmdb_entry_error(txn->env, rc, "counting the entries");
    rc = lmdb_cursor_open(txn, table, &cursor);
    while (rc == 0) {
        rc = lmdb_cursor_next(cursor, &key, &value); // a new cursor: the first
        if (rc != -ENOENT)
            entries++;
        if (rc == -EBADMSG && entries <= stat.ms_entries) {
            result = rc;
            rc = 0;
        }
    }
    if (rc != -ENOENT)
        return rc;
    if (entries != stat.ms_entries)
        result =
            lmdb_damaged_entry(txn->env, table, NULL, 0, "the table does not have all its entries");
    return result;
}

int
lmdb_verify(struct lmdb_txn *txn)
{
    int result = 0;
    for (unsigned i = 0; i < txn->env->table_count; i++) {
        int rc = verify_table(txn, i);
        if (rc < 0 && rc != -EBADMSG)
            return rc;
        if (rc < 0)
            result = rc;
    }
    return result;
}

// One entry of a sweep. The place only goes up, so that a key that changed cannot send it round in
// circles.
static void
sweep_entry(struct lmdb_txn *txn, struct lmdb_sweep *s, const MDB_val *key, MDB_val *value)
{
    s->entries++;
    int order = s->key_length == 0
                    ? 1
                    : lmdb_compare_keys(key->mv_data, key->mv_size, s->key, s->key_length);
    if (lmdb_open_entry(txn, s->table, key, value) < 0) {
        s->damaged++;
    } else if (order <= 0) {
        lmdb_damaged_entry(
            txn->env, s->table, key->mv_data, key->mv_size, "the entry stands at a wrong place");
        s->damaged++;
    }
    if (order <= 0 || key->mv_size > sizeof(s->key))
        return;
    s->key_length = key->mv_size;
    memcpy(s->key, key->mv_data, key->mv_size);
}

// 1 when the table has more entries.
static int
sweep_table(struct lmdb_txn *txn, MDB_cursor *cursor, struct lmdb_sweep *s, unsigned *budget)
{
    uint64_t before = s->entries;
    bool began = s->key_length == 0;
    MDB_val key = lmdb_val_of(s->key, s->key_length);
    MDB_val value;
    int rc = mdb_cursor_get(cursor, &key, &value, began ? MDB_FIRST : MDB_SET_RANGE);
    // The place is an entry that was looked at, unless it is gone by now.
    if (rc == 0 && !began &&
        lmdb_compare_keys(key.mv_data, key.mv_size, s->key, s->key_length) <= 0)
        rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT);
    size_t at_length = s->key_length;
    uint8_t at[sizeof(s->key)];
    memcpy(at, s->key, at_length);
    for (; rc == 0 && *budget > 0; --*budget) {
        lmdb_note_look(txn->env);
        sweep_entry(txn, s, &key, &value);
        rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT);
    }
    if (rc != 0)
        return rc == MDB_NOTFOUND ? 0 : lmdb_entry_error(txn->env, rc, "moving a cursor");
    // A step that does not get ahead would be done again for ever.
    bool ahead =
        s->entries == before || lmdb_compare_keys(s->key, s->key_length, at, at_length) > 0;
    return ahead;
}

int
lmdb_sweep_step(struct lmdb_txn *txn, struct lmdb_sweep *s, unsigned budget)
{
    assert(txn->sealed);
    while (s->table < txn->env->table_count && budget > 0) {
        MDB_cursor *cursor;
        int rc = mdb_cursor_open(txn->mdb, txn->env->tables[s->table], &cursor);
        if (rc != 0)
            return lmdb_entry_error(txn->env, rc, "opening a cursor");
        rc = sweep_table(txn, cursor, s, &budget);
        mdb_cursor_close(cursor);
        if (rc == -EBADMSG)
            s->damaged++;
        else if (rc < 0)
            return rc;
        if (rc <= 0) {
            s->table++;
            s->key_length = 0;
        }
    }
    return 0;
}

int
lmdb_check_pages(struct lmdb_env *env, bool always, lmdb_go_on *go_on, void *argument)
{
    mdb_filehandle_t fd;
    int rc = mdb_env_get_fd(env->mdb, &fd);
    if (rc != 0)
        return lmdb_log_failure(rc, "asking for the file");
    if (!always && lmdb_file_is_walked(fd))
        return 0;
    rc = -EAGAIN;
    // Two commits between the beginning of the transaction and the look at the meta pages are rare.
    for (unsigned i = 0; rc == -EAGAIN && i < PAGE_WALKS_MAX; i++) {
        struct lmdb_txn *txn;
        rc = lmdb_read_begin(env, &txn);
        if (rc < 0)
            return rc;
        rc = lmdb_file_check_state(fd, mdb_txn_id(txn->mdb), go_on, argument);
        lmdb_read_end(txn);
    }
    return rc;
}
