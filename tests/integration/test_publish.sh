#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# "ckptctl checkpoint" tells what became of what it was asked for, and of nothing else.
TEST_TIMEOUT=120
. "$(dirname "$0")/lib.sh"

errors_of_old() {
    if [ "$(id -u)" -ne 0 ]; then
        note "only root can mount the small disk for this"
        return 0
    fi
    step "a disk that was full says nothing of a checkpoint that is asked for later"
    volume_new full file
    mkdir -p "${V_ROOT[full]}"
    mount -t tmpfs -o size=56M tmpfs "${V_ROOT[full]}"
    volume_mount full create,checkpoint_interval=0,wal_limit=16M,page_cache=16M
    local mnt=${V_MNT[full]}
    # Nobody waits for these but the kernel, which gives up what it cannot hand over.
    ! dd if=/dev/urandom of="$mnt/big" bs=1M count=100 status=none 2>"$WORK/dd.out" ||
        fail "100 MB fit on a disk of 56 MiB"
    grep -q 'No space left' "$WORK/dd.out" || fail "a full disk shows as: $(cat "$WORK/dd.out")"
    mount -o remount,size=1G "${V_ROOT[full]}"
    echo small >"$mnt/small"
    "$CKPTCTL" checkpoint "$mnt" >/dev/null 2>"$WORK/error" ||
        fail "with room again a checkpoint fails: $(cat "$WORK/error")"
    volume_unmount full
    umount "${V_ROOT[full]}"
}

errors_of_old
