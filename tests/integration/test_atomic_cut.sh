#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A checkpoint is an atomic cut: while a program changes files and names in a known order,
# checkpoints run all the time; then every published generation is mounted and must show a moment
# that has been.
TEST_TIMEOUT=180
. "$(dirname "$0")/lib.sh"

need_helper cut_writer

published_generations() { # NAME
    jq -r 'select(.event == "checkpoint.published") | .manifest_generation' "${V_LOG[$1]}" | sort -nu
}

published_at_least() { [ "$(published_generations "$1" | wc -l)" -ge "$2" ]; }


check_generations() { # NAME
    local name=$1 view=$1-view generation count=0 rounds
    volume_other_root "$view" "$name"
    for generation in $(published_generations "$name"); do
        rm -rf "${V_ROOT[$view]}"
        volume_mount "$view" "ro,at=$generation"
        if [ ! -d "${V_MNT[$view]}/d" ]; then
            note "generation $generation: before the directory was made"
            volume_unmount "$view"
            continue
        fi
        rounds=$("$HELPERS/cut_writer" check "${V_MNT[$view]}/d") || {
            echo "$rounds"
            fail "generation $generation is not an atomic cut"
        }
        note "generation $generation: $rounds"
        count=$((count + 1))
        volume_unmount "$view"
    done
    assert_at_least 8 "$count" "published generations that were checked"
}

run_mode() { # NAME MOUNT-OPTION sync|plain TRIGGER
    local writer i
    step "$2, $3 writes, checkpoints $4"
    volume_new "$1" file
    if [ "$4" = "by timer" ]; then
        volume_mount "$1" "create,$2,checkpoint_interval=200ms"
    else
        volume_mount "$1" "create,$2,checkpoint_interval=0"
    fi
    mkdir "${V_MNT[$1]}/d"
    # Before the first round there is no counter to look at: an empty directory is a cut as well.
    "$HELPERS/cut_writer" write "${V_MNT[$1]}/d" "$3" >"$WORK/writer.out" 2>&1 &
    writer=$!
    if [ -n "$TEST_PLAIN" ]; then
        sleep 2
    elif [ "$4" = "by timer" ]; then
        wait_for 40 "16 published generations" published_at_least "$1" 16
    else
        for ((i = 0; i < 16; i++)); do
            volume_checkpoint "$1"
        done
    fi
    kill -TERM "$writer"
    wait "$writer" || fail "the writer failed: $(cat "$WORK/writer.out")"
    note "the writer did $(cat "$WORK/writer.out")"
    "$HELPERS/cut_writer" check "${V_MNT[$1]}/d" >"$WORK/check.out" || {
        cat "$WORK/check.out"
        fail "the writer and the checker do not agree on the final state"
    }
    volume_unmount "$1"
    [ -n "$TEST_PLAIN" ] || check_generations "$1"
}

run_mode sync-timer writeback sync "by timer"
run_mode sync-demand writeback sync "on demand"
run_mode plain-timer no_writeback plain "by timer"
run_mode plain-demand no_writeback plain "on demand"
