// SPDX-License-Identifier: Apache-2.0
// LMDB under load, with its defaults: synchronous commits, no MDB_WRITEMAP.
//     lmdb_load load DIRECTORY STREAM ACK-FILE BODY-BYTES SLOTS LIMIT
//     lmdb_load ids  DIRECTORY STREAM SLOTS      checks the content and prints STREAM:n lines
#define _GNU_SOURCE
#include <lmdb.h>

#include "load_common.h"

static MDB_env *env;
static MDB_dbi ids, slots;

static void
must(int result, const char *what)
{
    if (result != 0)
        load_die(3, "lmdb: %s: %s", what, mdb_strerror(result));
}

static void
open_database(const char *directory)
{
    MDB_txn *txn;
    must(mdb_env_create(&env), "create");
    must(mdb_env_set_maxdbs(env, 4), "set_maxdbs");
    must(mdb_env_set_mapsize(env, (size_t)256 << 20), "set_mapsize");
    must(mdb_env_open(env, directory, 0, 0644), "open");
    must(mdb_txn_begin(env, NULL, 0, &txn), "begin");
    must(mdb_dbi_open(txn, "ids", MDB_CREATE | MDB_INTEGERKEY, &ids), "open ids");
    must(mdb_dbi_open(txn, "slots", MDB_CREATE | MDB_INTEGERKEY, &slots), "open slots");
    must(mdb_txn_commit(txn), "commit");
}

static uint64_t
as_number(const MDB_val *v)
{
    uint64_t n;
    if (v->mv_size < sizeof(n))
        load_die(1, "lmdb: a value of %zu bytes", v->mv_size);
    memcpy(&n, v->mv_data, sizeof(n));
    return n;
}

static uint64_t
newest(void)
{
    MDB_txn *txn;
    MDB_cursor *cursor;
    MDB_val key, value;
    must(mdb_txn_begin(env, NULL, MDB_RDONLY, &txn), "begin");
    must(mdb_cursor_open(txn, ids, &cursor), "cursor");
    int result = mdb_cursor_get(cursor, &key, &value, MDB_LAST);
    uint64_t n = 0;
    if (result != MDB_NOTFOUND) {
        must(result, "last");
        n = as_number(&key);
    }
    mdb_cursor_close(cursor);
    mdb_txn_abort(txn);
    return n;
}

static void
run_load(struct load *l)
{
    uint64_t n = newest();
    uint8_t *value = malloc(l->body_bytes + 16);
    if (!value)
        load_die(2, "no memory");
    while (load_goes_on(l)) {
        n++;
        uint64_t began = load_now_us();
        uint64_t slot = n % l->slots;
        memcpy(value, &n, sizeof(n));
        load_body(n, value + sizeof(n), l->body_bytes);
        MDB_txn *txn;
        MDB_val key = {sizeof(n), &n}, empty = {0, NULL};
        MDB_val slot_key = {sizeof(slot), &slot};
        MDB_val body = {sizeof(n) + l->body_bytes, value};
        must(mdb_txn_begin(env, NULL, 0, &txn), "begin");
        must(mdb_put(txn, ids, &key, &empty, MDB_NOOVERWRITE), "put id");
        must(mdb_put(txn, slots, &slot_key, &body, 0), "put slot");
        must(mdb_txn_commit(txn), "commit");
        load_acknowledge(l, n, began);
    }
    free(value);
}

static void
print_ids(const char *stream, uint64_t slot_count)
{
    MDB_txn *txn;
    MDB_cursor *cursor;
    MDB_val key, value;
    uint64_t last = 0;
    int result;
    must(mdb_txn_begin(env, NULL, MDB_RDONLY, &txn), "begin");
    must(mdb_cursor_open(txn, ids, &cursor), "cursor");
    while ((result = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) == 0) {
        uint64_t n = as_number(&key);
        if (n != last + 1)
            load_die(1, "%s: after transaction %" PRIu64 " comes %" PRIu64, stream, last, n);
        printf("%s:%" PRIu64 "\n", stream, n);
        last = n;
    }
    if (result != MDB_NOTFOUND)
        must(result, "next id");
    mdb_cursor_close(cursor);
    must(mdb_cursor_open(txn, slots, &cursor), "cursor");
    while ((result = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) == 0)
        load_check_slot(stream, as_number(&key), slot_count, last, as_number(&value),
            (const uint8_t *)value.mv_data + sizeof(uint64_t), value.mv_size - sizeof(uint64_t));
    if (result != MDB_NOTFOUND)
        must(result, "next slot");
    mdb_cursor_close(cursor);
    mdb_txn_abort(txn);
}

int
main(int argc, char **argv)
{
    if (argc == 8 && strcmp(argv[1], "load") == 0) {
        struct load l = load_begin(argv + 3);
        open_database(argv[2]);
        run_load(&l);
        load_end(&l);
    } else if (argc == 5 && strcmp(argv[1], "ids") == 0) {
        open_database(argv[2]);
        print_ids(argv[3], load_number(argv[4]));
    } else {
        load_die(2, "usage: see the head of lmdb_load.c");
    }
    mdb_env_close(env);
    return 0;
}
