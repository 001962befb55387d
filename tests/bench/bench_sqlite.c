// SPDX-License-Identifier: Apache-2.0
// SQLite on a database file of its own.
//     bench_sqlite make DB MODE ROWS       a table of ROWS rows of 200 bytes, in one transaction
//     bench_sqlite commit DB MODE SECONDS  one changed row a transaction, synchronous=FULL
//     bench_sqlite commits DB MODE COUNT   so many of them
//     bench_sqlite load DB ROWS            `make` in a new database, timed
//     bench_sqlite read DB SECONDS         rows by key, at random; a cache of 2 MiB
//     bench_sqlite query DB                a sum over an index range: the first query after a mount
// MODE is SQLite's journal mode: wal or delete.
#include <sqlite3.h>
#include <unistd.h>

#include "bench_common.h"

#define ROW_BYTES 200

static sqlite3 *db;
static uint64_t random_state = 0x9e3779b97f4a7c15u;

static _Noreturn void
fail(const char *what)
{
    fprintf(stderr, "sqlite: %s: %s\n", what, db ? sqlite3_errmsg(db) : "no memory");
    exit(1);
}

static void
run(const char *sql)
{
    if (sqlite3_exec(db, sql, NULL, NULL, NULL) != SQLITE_OK)
        fail(sql);
}

static sqlite3_stmt *
prepare(const char *sql)
{
    sqlite3_stmt *s;
    if (sqlite3_prepare_v2(db, sql, -1, &s, NULL) != SQLITE_OK)
        fail(sql);
    return s;
}

static void
open_database(const char *path, const char *mode)
{
    char sql[100];
    if (sqlite3_open(path, &db) != SQLITE_OK)
        fail(path);
    sqlite3_busy_timeout(db, 10000);
    if (mode) {
        snprintf(sql, sizeof(sql), "PRAGMA journal_mode=%s", mode);
        run(sql);
    }
    run("PRAGMA synchronous=FULL");
}

static void
finish(sqlite3_stmt *s)
{
    sqlite3_finalize(s);
    if (sqlite3_close(db) != SQLITE_OK)
        fail("close");
}

static void
random_row(char row[ROW_BYTES + 1])
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyz012345";
    for (int i = 0; i < ROW_BYTES; i++)
        row[i] = letters[bench_random(&random_state) % 32];
    row[ROW_BYTES] = 0;
}

static int64_t
row_count(void)
{
    sqlite3_stmt *s = prepare("SELECT max(id) FROM t");
    if (sqlite3_step(s) != SQLITE_ROW)
        fail("count");
    int64_t n = sqlite3_column_int64(s, 0);
    sqlite3_finalize(s);
    return n > 0 ? n : 1;
}

static void
insert_rows(uint64_t rows)
{
    char row[ROW_BYTES + 1];
    run("CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT)");
    run("BEGIN");
    sqlite3_stmt *s = prepare("INSERT INTO t(v) VALUES(?)");
    for (uint64_t i = 0; i < rows; i++) {
        random_row(row);
        sqlite3_bind_text(s, 1, row, ROW_BYTES, SQLITE_STATIC);
        if (sqlite3_step(s) != SQLITE_DONE || sqlite3_reset(s) != SQLITE_OK)
            fail("insert");
    }
    sqlite3_finalize(s);
    run("COMMIT");
}

static void
make(const char *path, const char *mode, uint64_t rows)
{
    open_database(path, mode);
    insert_rows(rows);
    finish(NULL);
    printf("{}\n");
}

static void
load(const char *path, uint64_t rows)
{
    unlink(path);
    uint64_t began = bench_now_ns();
    open_database(path, "delete");
    insert_rows(rows);
    finish(NULL);
    double seconds = (double)(bench_now_ns() - began) / 1e9;
    printf("{\"seconds\": %.6f, \"per_second\": %.3f}\n", seconds, (double)rows / seconds);
}

static void
commit(const char *path, const char *mode, uint64_t seconds, uint64_t count)
{
    char row[ROW_BYTES + 1];
    struct bench_series series = {0};
    open_database(path, mode);
    uint64_t rows = (uint64_t)row_count();
    sqlite3_stmt *s = prepare("UPDATE t SET v = ? WHERE id = ?");
    uint64_t end = bench_now_ns() + seconds * 1000000000u;
    for (uint64_t now; (now = bench_now_ns()) < end && series.count < count;) {
        random_row(row);
        sqlite3_bind_text(s, 1, row, ROW_BYTES, SQLITE_STATIC);
        sqlite3_bind_int64(s, 2, (int64_t)(1 + bench_random(&random_state) % rows));
        if (sqlite3_step(s) != SQLITE_DONE || sqlite3_reset(s) != SQLITE_OK)
            fail("update");
        bench_add(&series, now, bench_now_ns());
    }
    finish(s);
    bench_report(&series);
}

static void
read_rows(const char *path, uint64_t seconds)
{
    struct bench_series series = {0};
    open_database(path, NULL);
    run("PRAGMA cache_size=-2048");
    uint64_t rows = (uint64_t)row_count();
    sqlite3_stmt *s = prepare("SELECT v FROM t WHERE id = ?");
    uint64_t end = bench_now_ns() + seconds * 1000000000u;
    for (uint64_t now; (now = bench_now_ns()) < end;) {
        sqlite3_bind_int64(s, 1, (int64_t)(1 + bench_random(&random_state) % rows));
        if (sqlite3_step(s) != SQLITE_ROW || sqlite3_reset(s) != SQLITE_OK)
            fail("select");
        bench_add(&series, now, bench_now_ns());
    }
    finish(s);
    bench_report(&series);
}

static void
query(const char *path)
{
    struct bench_series series = {0};
    uint64_t began = bench_now_ns();
    open_database(path, NULL);
    int64_t rows = row_count();
    sqlite3_stmt *s = prepare("SELECT sum(length(v)) FROM t WHERE id BETWEEN ? AND ?");
    sqlite3_bind_int64(s, 1, rows / 2);
    sqlite3_bind_int64(s, 2, rows / 2 + 100);
    if (sqlite3_step(s) != SQLITE_ROW)
        fail("select");
    finish(s);
    bench_add(&series, began, bench_now_ns());
    bench_report(&series);
}

int
main(int argc, char **argv)
{
    const char *what = argc > 2 ? argv[1] : "";
    if (strcmp(what, "make") == 0 && argc == 5)
        make(argv[2], argv[3], bench_number(argv[4]));
    else if (strcmp(what, "commit") == 0 && argc == 5)
        commit(argv[2], argv[3], bench_number(argv[4]), UINT64_MAX);
    else if (strcmp(what, "commits") == 0 && argc == 5)
        commit(argv[2], argv[3], 3600, bench_number(argv[4]));
    else if (strcmp(what, "load") == 0 && argc == 4)
        load(argv[2], bench_number(argv[3]));
    else if (strcmp(what, "read") == 0 && argc == 4)
        read_rows(argv[2], bench_number(argv[3]));
    else if (strcmp(what, "query") == 0 && argc == 3)
        query(argv[2]);
    else {
        fprintf(stderr, "usage: bench_sqlite make|commit|commits|load|read|query DB ...\n");
        return 2;
    }
    return 0;
}
