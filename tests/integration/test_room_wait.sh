#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A program that waits for room in the quota ends at once when a user ends it, long before the wait
# itself would end.
TEST_TIMEOUT=60
. "$(dirname "$0")/lib.sh"

# The wait for room ends after 60 s.
LIMIT_S=20
faults=$WORK/faults
volume_new v file writeback=off
MOUNT_ENVIRONMENT=("CKPTFS_STORE_FAULTS=$faults")
volume_mount v create,quota=64M,checkpoint_interval=1s

# A store that neither answers nor fails: no publication ends, so nothing makes room.
step "a writer fills the quota and waits"
echo 'slow 600000' >"$faults"
written() { stat -c %s "${V_MNT[v]}/$1" 2>/dev/null || echo 0; } # FILE
waits() { # FILE
    local before
    before=$(written "$1")
    sleep 0.3
    [ "$before" -gt 0 ] && [ "$before" = "$(written "$1")" ]
}
write_begin() { # FILE: bash gives background jobs an ignored SIGINT
    spawn "$WORK/$1.out" env --default-signal=INT dd if=/dev/urandom of="${V_MNT[v]}/$1" bs=64k count=4000 oflag=direct conv=notrunc
}
ends_soon() { # HOW
    wait_for "$LIMIT_S" "the end of a writer by $1" process_is_gone
    wait "$SPAWN_JOB" || :
}
process_is_gone() { ! is_running "$SPAWN_PID"; }
write_begin kill
wait_for 30 "a writer that waits" waits kill

step "SIGKILL ends it"
kill -KILL "$SPAWN_PID"
ends_soon SIGKILL

step "SIGINT ends it, too"
write_begin kill
wait_for 10 "a writer that waits" waits kill
kill -INT "$SPAWN_PID"
ends_soon SIGINT

step "when there is room again, writing goes on"
rm "$faults"
can_write() { dd if=/dev/zero of="${V_MNT[v]}/more" bs=1M count=8 conv=fsync 2>"$WORK/out"; }
wait_for 30 "room" can_write
volume_unmount v
