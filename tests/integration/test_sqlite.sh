#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# SQLite through every disaster, in four journal modes side by side on one volume.
TEST_TIMEOUT=300
TEST_NEEDS_S3=1
. "$(dirname "$0")/lib.sh"
. "$TEST_HERE/disasters.sh"

need_program sqlite3 sqlite3
need_helper sqlite_load

MODES="wal delete truncate mmap"
SLOTS=16
LOADS=()
JOBS=()

db_init() { db_ids >/dev/null; }
db_start() { :; }
db_stop() { :; }
db_crash() { :; }
db_kill() {
    local pid
    for pid in "${LOADS[@]}"; do
        kill -KILL "$pid" 2>/dev/null || :
    done
}

db_load_start() {
    local mode
    LOADS=() JOBS=()
    for mode in $MODES; do
        : >"$WORK/load-$mode.out"
        spawn "$WORK/load-$mode.out" "$HELPERS/sqlite_load" load "$DB/$mode.db" "$mode" "$mode" \
            "$ACKS/$mode" 2000 $SLOTS 0
        LOADS+=("$SPAWN_PID")
        JOBS+=("$SPAWN_JOB")
    done
}

db_load_stop() {
    local pid
    LOADS_FAILED=0
    for pid in "${LOADS[@]}"; do
        kill -TERM "$pid" 2>/dev/null || :
    done
    for pid in "${JOBS[@]}"; do
        wait "$pid" || LOADS_FAILED=$((LOADS_FAILED + 1))
    done
    LOADS=() JOBS=()
}

db_load_healthy() {
    db_load_stop
    [ $LOADS_FAILED -eq 0 ] || fail "a load failed: $(cat "$WORK"/load-*.out)"
}

db_load_bulk() { # BYTES
    local mode pid count=$(($1 / 4 / 131072 + 1)) loads=()
    for mode in $MODES; do
        "$HELPERS/sqlite_load" load "$DB/$mode.db" "$mode" "$mode" "$ACKS/$mode" 131072 $SLOTS \
            $count >"$WORK/load-$mode.out" 2>&1 &
        loads+=("$!")
    done
    for pid in "${loads[@]}"; do
        wait "$pid" || fail "a load failed: $(cat "$WORK"/load-*.out)"
    done
}

db_acked() { cat "$ACKS"/* 2>/dev/null || :; }

db_ids() {
    local mode said
    for mode in $MODES; do
        "$HELPERS/sqlite_load" ids "$DB/$mode.db" "$mode" "$mode" $SLOTS || return 1
        said=$(sqlite3 "$DB/$mode.db" 'PRAGMA integrity_check')
        [ "$said" = ok ] || {
            echo "$mode: integrity_check: $said" >&2
            return 1
        }
    done
}

db_mark() { db_acked >"$1"; }
db_progress() { db_acked | wc -l; }
db_max_ms() { cat "$WORK"/load-*.out | sed -n 's/.*max_ms=//p' | sort -n | tail -n 1; }
db_forget() { rm -f "$ACKS"/*; }

run_disasters
