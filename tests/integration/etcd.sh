# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# shellcheck disable=SC2034 # the variables are read in one_load.sh
# A single etcd for tests, on Unix sockets only, in $DB/data. Stands on lib.sh, node.sh and
# one_load.sh.

need_program etcd etcd-server
need_program etcdctl etcd-client
ETCD_PID=
ETCD_JOB=
# The sockets are files named after the "host" and "port" of a URL, in the working directory.
ETCD_SOCKET=$(mktemp -d /tmp/ckptfs-etcd.XXXXXX)
remember_directory "$ETCD_SOCKET"
LOADER=(node "$TEST_HERE/etcd_load.mjs")
load_place() { echo "$ETCD_SOCKET/client:1"; }

db_init() { db_start; }

etcd_answers() {
    [ -S "$ETCD_SOCKET/client:1" ] && curl -s -f -m 5 --unix-socket "$ETCD_SOCKET/client:1" \
        http://client/health 2>/dev/null | grep -q '"health":"true"' || ! is_running "$ETCD_PID"
}

db_start() {
    rm -f "$ETCD_SOCKET"/*
    # Snapshots and new log files come often, so that crashes meet them.
    spawn "$WORK/etcd.out" env -C "$ETCD_SOCKET" etcd --name zoo --data-dir "$DB/data" --logger zap \
        --log-level warn --snapshot-count 200 --listen-client-urls unix://client:1 \
        --advertise-client-urls unix://client:1 --listen-peer-urls unix://peer:1 \
        --initial-advertise-peer-urls unix://peer:1 --initial-cluster zoo=unix://peer:1
    ETCD_PID=$SPAWN_PID
    ETCD_JOB=$SPAWN_JOB
    wait_for 60 "etcd to answer" etcd_answers
    is_running "$ETCD_PID" || fail "etcd ended instead of starting: $(tail -n 20 "$WORK/etcd.out")"
}

etcd_is_gone() { ! is_running "$ETCD_PID"; }

db_stop() {
    kill -TERM "$ETCD_PID"
    wait_for 60 "etcd to stop" etcd_is_gone
    # It ends itself with the signal.
    wait "$ETCD_JOB" 2>/dev/null || :
    ETCD_PID=
}

db_kill() {
    [ -n "$ETCD_PID" ] || return 0
    kill -KILL "$ETCD_PID" 2>/dev/null || :
    wait "$ETCD_JOB" 2>/dev/null || :
    ETCD_PID=
}
db_crash() { db_kill; }

# A defragmentation reads and copies every key, and puts a new file in the place of the old one.
db_ids() {
    env -C "$ETCD_SOCKET" ETCDCTL_API=3 etcdctl --endpoints unix://client:1 defrag >"$WORK/defrag.out" 2>&1 || {
        cat "$WORK/defrag.out" >&2
        return 1
    }
    "${LOADER[@]}" ids "$(load_place)" "$STREAM" "$SLOTS"
}
