#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A storage root with a full disk has room again when what filled it is removed. One that is removed
# under a mount: writes stop within seconds, what is in memory is
# published if nothing else is missing, and the last message does not call anything safe.
TEST_TIMEOUT=120
. "$(dirname "$0")/lib.sh"

if [ -n "$TEST_PLAIN" ]; then
    note "a plain directory has no storage root"
    exit 0
fi

is_read_only() { # NAME
    local error
    error=$(LC_ALL=C mkdir "${V_MNT[$1]}/late.$RANDOM.$RANDOM" 2>&1) && return 1
    [[ $error == *"Read-only file system"* ]]
}

end() { # NAME: unmounts; the daemon must end
    umount "${V_MNT[$1]}" || fusermount3 -u "${V_MNT[$1]}"
    wait_for 60 "the end of the daemon" test ! -e "/proc/${V_PID[$1]}"
    wait "${V_JOB[$1]}" || :
    V_PID["$1"]=""
}

room_after_rm() {
    if [ "$(id -u)" -ne 0 ]; then
        note "only root can mount the small disk for this"
        return 0
    fi
    step "a disk that was full has room again as soon as what filled it is removed"
    volume_new filled file
    mkdir -p "${V_ROOT[filled]}"
    mount -t tmpfs -o size=56M tmpfs "${V_ROOT[filled]}"
    volume_mount filled create,checkpoint_interval=0,wal_limit=16M,page_cache=16M
    local mnt=${V_MNT[filled]}
    ! dd if=/dev/urandom of="$mnt/big" bs=1M count=58 conv=fsync status=none 2>"$WORK/dd.out" ||
        fail "58 MiB fit on a disk of 56 MiB"
    rm "$mnt/big" || fail "a full disk takes no rm"
    echo small >"$mnt/small"
    "$CKPTCTL" checkpoint "$mnt" >/dev/null 2>"$WORK/error" ||
        fail "after the rm a checkpoint fails: $(cat "$WORK/error")"
    dd if=/dev/urandom of="$mnt/next" bs=1M count=20 conv=fsync status=none ||
        fail "after the rm nothing can be written"
    "$CKPTCTL" checkpoint "$mnt" >/dev/null || fail "what was written after the rm is not published"
    volume_unmount filled
    umount "${V_ROOT[filled]}"
}

room_after_rm

step "a root is removed"
volume_new gone file unmount_timeout=10s
volume_mount gone create,checkpoint_interval=0
echo published >"${V_MNT[gone]}/first"
volume_checkpoint gone
echo acknowledged >"${V_MNT[gone]}/second"
sync "${V_MNT[gone]}/second"
rm -rf "${V_ROOT[gone]}"
wait_for 30 "the read-only file system" is_read_only gone
volume_logged gone volume.root_lost || fail "the log does not say it"
volume_status gone .read_only_reason | grep -q "was removed" || fail "the status does not say it"
end gone
! grep -q "They are in ${V_ROOT[gone]}" "${V_LOG[gone]}" || fail "the end calls a lost root safe"
rm -rf "${V_ROOT[gone]}"
volume_mount gone checkpoint_interval=0,takeover
assert_equal published "$(cat "${V_MNT[gone]}/first")" "what was published"
assert_equal acknowledged "$(cat "${V_MNT[gone]}/second")" "what memory still had"
volume_unmount gone

step "a root is removed that had more than memory has"
volume_new more file unmount_timeout=3s
volume_mount more create,checkpoint_interval=0
echo published >"${V_MNT[more]}/first"
volume_checkpoint more
head -c 100000 /dev/urandom >"${V_MNT[more]}/second"
volume_checkpoint more --local
rm -rf "${V_ROOT[more]}"
wait_for 30 "the read-only file system" is_read_only more
end more
grep '"volume.closed"' "${V_LOG[more]}" | grep -q "was removed or moved away" ||
    fail "the last message does not tell of the loss"
rm -rf "${V_ROOT[more]}"
volume_mount more checkpoint_interval=0,takeover
assert_equal published "$(cat "${V_MNT[more]}/first")" "what was published"
volume_unmount more
