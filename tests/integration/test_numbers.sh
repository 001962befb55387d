#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# What df and status say is so: space that is used, free space of read-only mounts, inodes of what is
# not folded yet. A mount that hides something says that it does.
TEST_TIMEOUT=60
. "$(dirname "$0")/lib.sh"

[ -z "$TEST_PLAIN" ] || { note "a plain directory has no daemon"; exit 0; }

used_kib() { df --output=used -k "${V_MNT[$1]}" | tail -n 1 | tr -d ' '; }
used_percent() { df --output=pcent "${V_MNT[$1]}" | tail -n 1 | tr -d ' %'; }
used_inodes() { df --output=iused "${V_MNT[$1]}" | tail -n 1 | tr -d ' '; }

step "inodes before the first checkpoint, and after it"
volume_new v file
volume_mount v create,checkpoint_interval=0
mnt=${V_MNT[v]}
check_inodes() { # EXPECTED WHAT
    assert_equal "$1" "$(volume_status v .inodes)" "inodes, $2"
    assert_equal "$1" "$(used_inodes v)" "inodes of df, $2"
}
check_inodes 1 "fresh"
echo one >"$mnt/one"
mkdir "$mnt/directory"
check_inodes 3 "with a file and a directory"
volume_checkpoint v
check_inodes 3 "after the checkpoint"
echo two >"$mnt/two"
echo three >"$mnt/three"
rm "$mnt/one" "$mnt/three"
echo more >>"$mnt/two"
check_inodes 3 "after changes"
volume_checkpoint v --local
check_inodes 3 "after their checkpoint"

step "what was overwritten is not counted as used"
for i in 1 2 3 4; do
    head -c 8M /dev/urandom >"$WORK/data"
    dd if="$WORK/data" of="$mnt/big" bs=1M conv=notrunc,fsync status=none
    volume_checkpoint v
done
assert_at_least 8000 "$(used_kib v)" "KiB used after 8 MiB were written four times"
assert_at_most 12000 "$(used_kib v)" "KiB used after 8 MiB were written four times"
volume_unmount v

step "a read-only mount is not full"
volume_mount v ro
assert_at_most 99 "$(used_percent v)" "percent used"
[ "$(df --output=avail -k "$mnt" | tail -n 1 | tr -d ' ')" -gt 0 ] || fail "nothing is free"
volume_unmount v

step "a mount says what it hides"
! grep -q "hides" "$WORK/v.out" || fail "the mount on an empty directory says that it hides something"
echo precious >"$mnt/below"
volume_mount v checkpoint_interval=0
grep -q "$mnt is not empty; the mount hides its contents" "$WORK/v.out" ||
    fail "no word of the file below: $(cat "$WORK/v.out")"
if [ "$(id -u)" = 0 ]; then
    volume_new over file
    V_MNT[over]=$mnt
    volume_start over create,checkpoint_interval=0
    wait_for 20 "the second mount" grep -q mount.ready "${V_LOG[over]}"
    grep -q "something is mounted on $mnt already" "$WORK/over.out" ||
        fail "no word of the mount below: $(cat "$WORK/over.out")"
    volume_unmount over
fi
volume_unmount v
assert_equal precious "$(cat "$mnt/below")" "the file below"
rm "$mnt/below"
