#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# PostgreSQL with data checksums and pgbench through every disaster. A client numbers its
# transactions itself; what was acknowledged is what pgbench logged as done, outside the mount.
TEST_TIMEOUT=420
TEST_NEEDS_S3=1
. "$(dirname "$0")/lib.sh"
. "$TEST_HERE/disasters.sh"
. "$TEST_HERE/postgres.sh"

CLIENTS=4
SLOTS=16
RUN=0
BENCH=
BENCH_JOB=
BENCH_STATUS=0

cat >"$WORK/pg/load.sql" <<'SQL'
\set n :n + 1
\set slot :client_id * 4 + :n % 4
BEGIN;
INSERT INTO ids VALUES (:run, :client_id, :n);
UPDATE slots SET run = :run, client = :client_id, n = :n,
    body = (SELECT string_agg(md5(:run || '.' || :client_id || '.' || :n || '.' || i), '')
            FROM generate_series(1, :parts) AS i)
    WHERE k = :slot;
COMMIT;
SQL

db_init() {
    PG_DATA=$DB/pg
    chmod 755 "$DB"
    pg_init
    pg_start
    pg_sql "CREATE EXTENSION amcheck"
    pg_sql "CREATE TABLE ids(run int, client int, n int, PRIMARY KEY (run, client, n))"
    pg_sql "CREATE TABLE slots(k int PRIMARY KEY, run int, client int, n int, body text)"
    pg_sql "ALTER TABLE slots ALTER body SET STORAGE external"
    pg_sql "INSERT INTO slots SELECT k, 0, 0, 0, '' FROM generate_series(0, $SLOTS - 1) AS k"
    pg_tool createdb spare
    pg_tool psql -X -q -d spare -c "CREATE EXTENSION amcheck"
    pg_tool psql -X -q -d template1 -c "CREATE EXTENSION amcheck"
}

db_start() {
    PG_DATA=$DB/pg
    pg_start
}

db_stop() {
    pg_stop
    # The checksum of every page on the file system, now that the server is not in the way.
    as_postgres "$PG_BIN/pg_checksums" --check -D "$PG_DATA" >"$WORK/checksums.out" 2>&1 || {
        cat "$WORK/checksums.out"
        fail "pg_checksums found damage"
    }
}

db_crash() { pg_crash; }
db_kill() { pg_crash; }

start_pgbench() { # LIMIT-OPTION PARTS
    RUN=$((RUN + 1))
    : >"$WORK/load.out"
    # shellcheck disable=SC2086
    spawn "$WORK/load.out" "${AS_POSTGRES[@]}" "$PG_BIN/pgbench" -n $1 -c $CLIENTS -j 2 -f "$WORK/pg/load.sql" -D run=$RUN \
        -D n=0 -D "parts=$2" -l --log-prefix="$WORK/pg/log.$RUN"
    BENCH=$SPAWN_PID
    BENCH_JOB=$SPAWN_JOB
}

db_load_start() { start_pgbench "-T 60" 20; }

db_load_stop() {
    BENCH_STATUS=0
    if [ -n "$PG_PID" ] && [ -n "${V_PID[$VOLUME]}" ] && is_running "${V_PID[$VOLUME]}"; then
        # pgbench takes this for the end of its time and writes its log to the end.
        kill -ALRM "$BENCH" 2>/dev/null || :
    else
        # A server whose file system is gone must not keep its clients waiting.
        pg_crash
    fi
    wait "$BENCH_JOB" || BENCH_STATUS=$?
    local mark
    for mark in "$WORK"/*.mark; do
        [ -f "$mark" ] || continue
        acked_until "$(cat "$mark")" >"${mark%.mark}"
        rm "$mark"
    done
}

db_load_healthy() {
    db_load_stop
    [ $BENCH_STATUS -eq 0 ] || fail "pgbench failed with $BENCH_STATUS: $(tail -n 5 "$WORK/load.out")"
}

db_load_bulk() { # BYTES
    start_pgbench "-t $(($1 / CLIENTS / 131072 + 1))" 4096
    wait "$BENCH_JOB" || fail "pgbench failed: $(tail -n 5 "$WORK/load.out")"
}

# From pgbench's logs: client transaction latency_us script epoch_s epoch_us
acked_until() { # MICROSECONDS
    awk -v until="$1" 'FNR == 1 { split(FILENAME, part, "/log."); split(part[2], run, ".") }
        NF >= 6 && $5 * 1000000 + $6 <= until {
            stream = run[1] "-" $1
            print stream ":" ++done[stream]
        }' "$WORK"/pg/log.* /dev/null 2>/dev/null || :
}

db_acked() { acked_until 9e18; }

db_mark() { date +%s%6N >"$1.mark"; }

# The log is buffered; what the server shows as committed is as good for seeing progress.
db_progress() { pg_sql "SELECT count(*) FROM ids" 2>/dev/null || echo 0; }

db_ids() {
    local bad
    # The same content the transactions of each stream must have left, and no gap among them.
    bad=$(pg_sql "SELECT run, client, count(*), max(n) FROM ids GROUP BY 1, 2 HAVING count(*) <> max(n)")
    [ -z "$bad" ] || { echo "gaps in ids: $bad" >&2 && return 1; }
    bad=$(pg_sql "WITH newest AS (
            SELECT DISTINCT ON (client, n % 4) client, n % 4 AS part, run, n FROM ids
            ORDER BY client, n % 4, run DESC, n DESC)
        SELECT * FROM newest JOIN slots ON k = newest.client * 4 + part
        WHERE (slots.run, slots.n) IS DISTINCT FROM (newest.run, newest.n)")
    [ -z "$bad" ] || { echo "slots do not match ids: $bad" >&2 && return 1; }
    bad=$(pg_sql "SELECT k FROM slots WHERE run > 0 AND
        left(body, 32) <> md5(run || '.' || client || '.' || n || '.1')")
    [ -z "$bad" ] || { echo "slots have wrong bodies: $bad" >&2 && return 1; }
    pg_tool pg_amcheck --all --heapallindexed >"$WORK/amcheck.out" 2>&1 || {
        cat "$WORK/amcheck.out" >&2
        return 1
    }
    pg_sql "SELECT run || '-' || client || ':' || n FROM ids"
}

db_max_ms() {
    awk 'NF >= 6 && $3 > most { most = $3 } END { print int(most / 1000) }' "$WORK/pg/log.$RUN".*
}

db_forget() { rm -f "$WORK"/pg/log.*; }

run_disasters
