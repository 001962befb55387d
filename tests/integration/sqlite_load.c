// SPDX-License-Identifier: Apache-2.0
// SQLite under load: every commit with synchronous=FULL (EXTRA for rollback journals).
//     sqlite_load load DB MODE STREAM ACK-FILE BODY-BYTES SLOTS LIMIT
//     sqlite_load ids  DB MODE STREAM SLOTS      checks the content and prints STREAM:n lines
// MODE: wal, delete, truncate, or mmap (WAL with mmap_size > 0).
#define _GNU_SOURCE
#include <sqlite3.h>

#include "load_common.h"

static sqlite3 *db;

static void
run(const char *sql)
{
    char *error = NULL;
    if (sqlite3_exec(db, sql, NULL, NULL, &error) != SQLITE_OK)
        load_die(
            3, "sqlite: %s: %s (errno %d)", sql, error ? error : "?", sqlite3_system_errno(db));
}

static sqlite3_stmt *
prepare(const char *sql)
{
    sqlite3_stmt *statement;
    if (sqlite3_prepare_v2(db, sql, -1, &statement, NULL) != SQLITE_OK)
        load_die(3, "sqlite: %s: %s", sql, sqlite3_errmsg(db));
    return statement;
}

static void
open_database(const char *path, const char *mode)
{
    if (sqlite3_open(path, &db) != SQLITE_OK)
        load_die(3, "sqlite: cannot open %s: %s", path, sqlite3_errmsg(db));
    sqlite3_busy_timeout(db, 10000);
    if (strcmp(mode, "delete") == 0)
        run("PRAGMA journal_mode=DELETE");
    else if (strcmp(mode, "truncate") == 0)
        run("PRAGMA journal_mode=TRUNCATE");
    else
        run("PRAGMA journal_mode=WAL");
    if (strcmp(mode, "mmap") == 0)
        run("PRAGMA mmap_size=67108864");
    run("PRAGMA synchronous=EXTRA");
    run("CREATE TABLE IF NOT EXISTS ids(n INTEGER PRIMARY KEY)");
    run("CREATE TABLE IF NOT EXISTS slots(k INTEGER PRIMARY KEY, n INTEGER, body BLOB)");
}

static uint64_t
newest(void)
{
    sqlite3_stmt *q = prepare("SELECT coalesce(max(n), 0) FROM ids");
    if (sqlite3_step(q) != SQLITE_ROW)
        load_die(3, "sqlite: max(n): %s", sqlite3_errmsg(db));
    uint64_t n = (uint64_t)sqlite3_column_int64(q, 0);
    sqlite3_finalize(q);
    return n;
}

static void
step(sqlite3_stmt *statement)
{
    if (sqlite3_step(statement) != SQLITE_DONE)
        load_die(3, "sqlite: %s: %s (errno %d)", sqlite3_sql(statement), sqlite3_errmsg(db),
            sqlite3_system_errno(db));
    sqlite3_reset(statement);
}

static void
run_load(struct load *l)
{
    sqlite3_stmt *begin = prepare("BEGIN IMMEDIATE");
    sqlite3_stmt *commit = prepare("COMMIT");
    sqlite3_stmt *insert = prepare("INSERT INTO ids VALUES(?1)");
    sqlite3_stmt *replace = prepare("INSERT OR REPLACE INTO slots VALUES(?1, ?2, ?3)");
    uint64_t n = newest();
    while (load_goes_on(l)) {
        n++;
        uint64_t began = load_now_us();
        load_body(n, l->body, l->body_bytes);
        step(begin);
        sqlite3_bind_int64(insert, 1, (sqlite3_int64)n);
        step(insert);
        sqlite3_bind_int64(replace, 1, (sqlite3_int64)(n % l->slots));
        sqlite3_bind_int64(replace, 2, (sqlite3_int64)n);
        sqlite3_bind_blob(replace, 3, l->body, (int)l->body_bytes, SQLITE_STATIC);
        step(replace);
        step(commit);
        load_acknowledge(l, n, began);
    }
    sqlite3_finalize(begin);
    sqlite3_finalize(commit);
    sqlite3_finalize(insert);
    sqlite3_finalize(replace);
}

static void
print_ids(const char *stream, uint64_t slots)
{
    uint64_t last = 0;
    sqlite3_stmt *q = prepare("SELECT n FROM ids ORDER BY n");
    int result;
    while ((result = sqlite3_step(q)) == SQLITE_ROW) {
        uint64_t n = (uint64_t)sqlite3_column_int64(q, 0);
        if (n != last + 1)
            load_die(1, "%s: after transaction %" PRIu64 " comes %" PRIu64, stream, last, n);
        printf("%s:%" PRIu64 "\n", stream, n);
        last = n;
    }
    if (result != SQLITE_DONE)
        load_die(3, "sqlite: ids: %s", sqlite3_errmsg(db));
    sqlite3_finalize(q);
    q = prepare("SELECT k, n, body FROM slots");
    while ((result = sqlite3_step(q)) == SQLITE_ROW)
        load_check_slot(stream, (uint64_t)sqlite3_column_int64(q, 0), slots, last,
            (uint64_t)sqlite3_column_int64(q, 1), sqlite3_column_blob(q, 2),
            (size_t)sqlite3_column_bytes(q, 2));
    if (result != SQLITE_DONE)
        load_die(3, "sqlite: slots: %s", sqlite3_errmsg(db));
    sqlite3_finalize(q);
}

int
main(int argc, char **argv)
{
    if (argc == 9 && strcmp(argv[1], "load") == 0) {
        struct load l = load_begin(argv + 4);
        open_database(argv[2], argv[3]);
        run_load(&l);
        load_end(&l);
    } else if (argc == 6 && strcmp(argv[1], "ids") == 0) {
        open_database(argv[2], argv[3]);
        print_ids(argv[4], load_number(argv[5]));
    } else {
        load_die(2, "usage: see the head of sqlite_load.c");
    }
    if (sqlite3_close(db) != SQLITE_OK)
        load_die(3, "sqlite: close: %s", sqlite3_errmsg(db));
    return 0;
}
