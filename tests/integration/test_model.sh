#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The model test: random operations of several threads on a mount and on a plain directory, with
# remounts, kills, checkpoints and restores in between; results, contents and attributes must be the
# same. The kept lists of what failed once come first. CKPTFS_TEST_SEED repeats a run from that seed
# on; a plan that fails is shrunk, printed, and left in the build directory as model-SEED.ops.
SECONDS_OF_PLANS=60
[ -z "${CKPTFS_TEST_LONG:-}" ] || SECONDS_OF_PLANS=600
TEST_TIMEOUT=$((SECONDS_OF_PLANS + 540)) # a plan that hangs, or one that is shrunk
. "$(dirname "$0")/lib.sh"

need_helper fs_model model
MODEL=$TEST_TOP_BUILDDIR/tests/model/fs_model
SEED=${CKPTFS_TEST_SEED:-$(date +%s)}
[ -z "$TEST_PLAIN" ] || fail "this test compares with a plain directory by itself"

run_model() { # COMMAND ARGUMENTS...
    "$MODEL" "$@" >"$WORK/model.out" 2>&1 || {
        head -n 300 "$WORK/model.out"
        fail "the mount and the reference differ"
    }
    [ ! -s "$WORK/model.out" ] || note "$(cat "$WORK/model.out")"
}

mkdir "$WORK/model"
step "what failed once"
for list in "$TEST_TOP_SRCDIR"/tests/model/regressions/*.ops; do
    run_model replay "$WORK/model" "$list"
    note "${list##*/}"
done

step "a daemon that dies while it waits for its own mount ends, and the volume is mounted again"
volume_new inside file writeback,checkpoint_interval=0
MOUNT_ENVIRONMENT=(CKPTFS_CRASH_AT=fuse.getattr_received)
volume_start inside create # looks at its mount before it says that it is there
volume_crashed inside 30 "the end of the daemon"
volume_mount inside create
volume_unmount inside

step "$SECONDS_OF_PLANS seconds of random plans; CKPTFS_TEST_SEED=$SEED"
run_model run "$WORK/model" "$SECONDS_OF_PLANS" "$SEED" "$TEST_TOP_BUILDDIR/tests/model"
