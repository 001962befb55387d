#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The daemon is killed at random moments while random changes go on; after each remount every
# acknowledged change is there, and the state is one that has been. CKPTFS_TEST_SEED repeats a run.
TEST_TIMEOUT=240
[ -z "${CKPTFS_TEST_LONG:-}" ] || TEST_TIMEOUT=1800
. "$(dirname "$0")/../integration/lib.sh"

need_helper crash_writer crash
WRITER=$TEST_TOP_BUILDDIR/tests/crash/crash_writer
KILLS=10
[ -z "$CKPTFS_TEST_LONG" ] || KILLS=100
SEED=${CKPTFS_TEST_SEED:-$(date +%s)}
RANDOM=$((SEED % 32768))
WRITERS="a b"
note "CKPTFS_TEST_SEED=$SEED"

random_ms() { # FROM TO
    printf '%d.%03d' $((($1 + RANDOM % ($2 - $1)) / 1000)) $((($1 + RANDOM % ($2 - $1)) % 1000))
}

take_base() { # VOLUME: the state from which the next round begins
    local writer
    for writer in $WRITERS; do
        rm -rf "$WORK/base-$writer"
        cp -a "${V_MNT[$1]}/$writer" "$WORK/base-$writer"
    done
}

check_state() { # VOLUME MODE SEED
    local writer said
    for writer in $WRITERS; do
        said=$("$WRITER" check "${V_MNT[$1]}/$writer" "$WORK/base-$writer" "$WORK/progress-$writer" \
            "$3" "$2") || {
            echo "$said"
            fail "the state after the crash is wrong (directory $writer, seed $3)"
        }
        note "$writer: $said"
    done
}

crash_round() { # VOLUME MODE MOUNT-OPTIONS ROUND
    local writer seed=$((SEED + $4)) pids=() pid
    for writer in $WRITERS; do
        "$WRITER" write "${V_MNT[$1]}/$writer" "$WORK/base-$writer" "$WORK/progress-$writer" "$seed" \
            "$2" >"$WORK/writer-$writer.out" 2>&1 &
        pids+=("$!")
    done
    sleep "$(random_ms 50 2500)"
    volume_kill9 "$1"
    for pid in "${pids[@]}"; do
        kill -TERM "$pid" 2>/dev/null || :
        wait "$pid" || :
    done
    if grep -hvE 'not connected|connection abort|Input/output error|bytes at .* were written' "$WORK"/writer-*.out; then
        fail "a writer met an error that is not the daemon's death"
    fi
    if [ $(($4 % 3)) -eq 0 ] && [ -z "$TEST_PLAIN" ]; then
        note "killed again while it recovers"
        volume_start "$1" "$3"
        sleep "$(random_ms 0 150)"
        kill -KILL "${V_PID[$1]}" 2>/dev/null || :
        wait "${V_JOB[$1]}" 2>/dev/null || :
        volume_detach "$1"
    fi
    volume_mount "$1" "$3"
    check_state "$1" "$2" "$seed"
    take_base "$1"
}

run_kills() { # VOLUME MODE MOUNT-OPTIONS
    local round
    volume_new "$1" file
    volume_mount "$1" "create,$3"
    mkdir "${V_MNT[$1]}/a" "${V_MNT[$1]}/b"
    sync "${V_MNT[$1]}/b"
    take_base "$1"
    for ((round = 1; round <= KILLS; round++)); do
        step "$2 ($3): kill $round of $KILLS"
        crash_round "$1" "$2" "$3" "$round"
    done
    volume_checkpoint "$1"
    volume_unmount "$1"
    step "$2: the storage root is lost"
    if [ -z "$TEST_PLAIN" ]; then
        rm -rf "${V_ROOT[$1]}"
        volume_mount "$1" "$3"
        for writer in $WRITERS; do
            rm -f "$WORK/progress-$writer"
            truncate -s 64 "$WORK/progress-$writer"
        done
        check_state "$1" "$2" 0
        volume_unmount "$1"
    fi
}

run_kills strict strict no_writeback,checkpoint_interval=500ms,wal_limit=32M
run_kills cached cached writeback,checkpoint_interval=500ms,wal_limit=32M
