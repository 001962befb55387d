#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# What was written and never synced is in the checkpoint that is asked for afterwards, and is no hole.
TEST_TIMEOUT=120
. "$(dirname "$0")/lib.sh"

need_helper handover_check
ROUNDS=4

run() { # NAME: a volume whose next mount is made with MOUNT_ENVIRONMENT
    local name=$1 round generation
    volume_new "$name" file
    volume_mount "$name" create,checkpoint_interval=0
    for ((round = 1; round <= ROUNDS; round++)); do
        generation=$("$HELPERS/handover_check" write "${V_MNT[$name]}" $round) ||
            fail "round $round: what was written is not known"
        [ -z "$TEST_PLAIN" ] || continue
        volume_other_root "$name-view" "$name"
        volume_mount "$name-view" "ro,at=$generation"
        "$HELPERS/handover_check" verify "${V_MNT[$name-view]}" $round ||
            fail "round $round: generation $generation does not hold what was written before"
        volume_unmount "$name-view"
        rm -r "${V_ROOT[$name-view]}"
    done
    note "$ROUNDS rounds are whole"
    volume_unmount "$name"
}

step "as who mounts"
run v

step "without the right to open files by their number"
if [ "$(id -u)" = 0 ]; then
    need_program setpriv util-linux
    MOUNT_ENVIRONMENT=(setpriv --bounding-set=-dac_read_search)
    run w
else
    note "nobody but root has it"
fi
