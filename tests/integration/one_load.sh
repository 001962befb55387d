# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# The functions of disasters.sh for a database with one load program, LOADER (the words of a command),
# for a database in a library. The test defines db_ids.

STREAM=one
SLOTS=16
LOAD=
LOAD_JOB=
LOAD_STATUS=0

load_place() { echo "$DB"; } # what the load program is given to open

db_init() { db_load_bulk 1; }
db_start() { :; }
db_stop() { :; }
db_crash() { :; }
db_kill() { kill -KILL "$LOAD" 2>/dev/null || :; }

db_load_start() {
    : >"$WORK/load.out"
    spawn "$WORK/load.out" "${LOADER[@]}" load "$(load_place)" $STREAM "$ACKS/$STREAM" 2000 $SLOTS 0
    LOAD=$SPAWN_PID
    LOAD_JOB=$SPAWN_JOB
}

db_load_stop() {
    LOAD_STATUS=0
    # A server whose file system is gone must not keep its clients waiting.
    is_running "${V_PID[$VOLUME]:-0}" || db_crash
    kill -TERM "$LOAD" 2>/dev/null || :
    wait "$LOAD_JOB" 2>/dev/null || LOAD_STATUS=$?
}

db_load_healthy() {
    db_load_stop
    [ $LOAD_STATUS -eq 0 ] || fail "the load failed with $LOAD_STATUS: $(cat "$WORK/load.out")"
}

db_load_bulk() { # BYTES
    "${LOADER[@]}" load "$(load_place)" $STREAM "$ACKS/$STREAM" 131072 $SLOTS $(($1 / 131072 + 1)) \
        >"$WORK/load.out" 2>&1 || fail "the load failed: $(cat "$WORK/load.out")"
}

db_acked() { cat "$ACKS/$STREAM" 2>/dev/null || :; }
db_mark() { db_acked >"$1"; }
db_progress() { db_acked | wc -l; }
db_max_ms() { sed -n 's/.*max_ms=//p' "$WORK/load.out"; }
db_forget() { rm -f "$ACKS/$STREAM"; }
