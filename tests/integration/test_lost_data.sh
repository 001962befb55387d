#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Bytes that the log or an unpublished image does not give any more are told, cost nobody else
# anything, are EIO wherever the volume is mounted, and heal.
TEST_TIMEOUT=120
. "$(dirname "$0")/lib.sh"

# spoil FILE OFFSET
spoil() {
    printf '\377\000\377\000' | dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}

# page FILE NUMBER
page() {
    dd if="$1" bs=4096 skip="$2" count=1 status=none
}

page_is_lost() {
    ! page "$1" "$2" >/dev/null 2>"$WORK/error" || fail "page $2 of $1 can be read"
    grep -q 'Input/output error' "$WORK/error" || fail "page $2 of $1: $(cat "$WORK/error")"
}

# same_but FILE EXPECTED FIRST END: all pages but those from FIRST to before END.
same_but() {
    cmp <(dd if="$1" bs=4096 count="$3" status=none) <(dd if="$2" bs=4096 count="$3" status=none) ||
        fail "$1 differs before page $3"
    cmp <(dd if="$1" bs=4096 skip="$4" status=none) <(dd if="$2" bs=4096 skip="$4" status=none) ||
        fail "$1 differs behind page $4"
}

lost_is() { # NAME BYTES
    assert_equal "$2" "$(volume_status "$1" .lost_bytes)" "lost bytes"
}

volume_new v file
volume_mount v create,checkpoint_interval=0
mnt=${V_MNT[v]}

step "an unpublished image is damaged on the disk"
head -c 163840 /dev/urandom >"$WORK/f"
cp "$WORK/f" "$mnt/f"
volume_checkpoint v
touch "$WORK/since"
dd if=/dev/urandom of="$mnt/f" bs=4096 count=3 seek=10 conv=notrunc,fsync status=none
volume_checkpoint v --local
volume_kill9 v
blob=$(find "${V_ROOT[v]}/hot_cache" -name '*.blob' -newer "$WORK/since")
assert_equal 1 "$(grep -c . <<<"$blob")" "new images ($blob)"
spoil "$blob" 5000
volume_mount v checkpoint_interval=0
inode=$(stat -c %i "$mnt/f")

step "a page of the log cannot be read"
head -c 8388608 /dev/urandom >"$WORK/g"
printf 'a page that the log shall not give' | dd of="$WORK/g" bs=4096 seek=600 conv=notrunc status=none
dd if="$WORK/g" of="$mnt/g" bs=1M conv=fsync status=none
place=$(grep -HobUaF 'a page that the log shall not give' "${V_ROOT[v]}"/tenants/*/*/wal/segment-* |
    head -n 1)
[ -n "$place" ] || fail "the page is not in the log"
rest=${place#*:}
spoil "${place%%:*}" "$((${rest%%:*} + 100))"

step "everything else is checkpointed and published"
echo important >"$mnt/other"
volume_checkpoint v
lost_is v 16384
"$CKPTCTL" status "$mnt" >"$WORK/status"
grep -q "^lost  *16.0 KiB of files" "$WORK/status" || fail "status: $(cat "$WORK/status")"
grep -q "inode $inode at 40960, 12288 bytes" "$WORK/status" || fail "status: $(cat "$WORK/status")"
assert_equal "$inode 40960 12288" \
    "$(volume_status v '.lost[0] | "\(.inode) \(.offset) \(.length)"')" "the first range in JSON"
volume_logged v checkpoint.pages_lost || fail "the log does not name the lost pages"
volume_logged v checkpoint.blob_damaged || fail "the log does not name the damaged blob"

step "unmounting and mounting say so"
"$CKPTCTL" unmount "$mnt" >"$WORK/out" 2>&1 || fail "unmount: $(cat "$WORK/out")"
grep -q "16384 bytes of files are lost and cannot be read: inode $inode at 40960" "$WORK/out" ||
    fail "unmount says: $(cat "$WORK/out")"
! grep -q 'everything is in the store' "$WORK/out" || fail "unmount says: $(cat "$WORK/out")"
"$CKPTCTL" status --root "${V_ROOT[v]}" | grep -q '^lost  *16384 bytes' ||
    fail "the status of the root does not say it"
wait_for 20 "the daemon's end" volume_is_gone v
volume_detach v

check_lost() { # NAME
    local m=${V_MNT[$1]} i
    lost_is "$1" 16384
    for i in 10 11 12; do
        page_is_lost "$m/f" "$i"
    done
    same_but "$m/f" "$WORK/f" 10 13
    page_is_lost "$m/g" 600
    same_but "$m/g" "$WORK/g" 600 601
    assert_equal important "$(cat "$m/other")" "another file"
}

step "it is so at the next mount, and on another host"
volume_mount v checkpoint_interval=0
volume_logged v volume.opening || fail "the mount does not say that bytes are lost"
check_lost v
volume_unmount v
volume_other_root w v
volume_mount w checkpoint_interval=0
check_lost w

step "a base that is made anew says so, too"
mnt=${V_MNT[w]}
dd if="$WORK/f" of="$mnt/f" bs=4096 skip=13 seek=13 conv=notrunc,fsync status=none
volume_checkpoint w
check_lost w

step "writing, punching and removing heal"
dd if="$WORK/f" of="$mnt/f" bs=4096 count=1 skip=10 seek=10 conv=notrunc,fsync status=none
fallocate -p -o 45056 -l 4096 "$mnt/f"
truncate -s 49152 "$mnt/f"
rm "$mnt/g"
volume_checkpoint w
lost_is w 0
cmp <(page "$WORK/f" 10) <(page "$mnt/f" 10)
cmp <(head -c 4096 /dev/zero) <(page "$mnt/f" 11)
"$CKPTCTL" unmount "$mnt" >"$WORK/out" 2>&1 || fail "unmount: $(cat "$WORK/out")"
grep -q 'everything is in the store' "$WORK/out" || fail "unmount says: $(cat "$WORK/out")"
