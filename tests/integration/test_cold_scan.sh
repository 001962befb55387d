#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Cold scans: a file ten times the cache is read past all caches and right, by ckptctl cat, by a mark
# and by the flag; what is in hot_cache and in the kernel's cache stays; what was written since wins;
# limits hold while the mount is in use.
TEST_TIMEOUT=90
. "$(dirname "$0")/lib.sh"

if [ -n "$TEST_PLAIN" ]; then
    note "a plain directory has no caches of its own"
    exit 0
fi

MIB=24
need_program setfattr attr
need_program fincore util-linux
volume_new v file
mnt=${V_MNT[v]}

cached() { # FILE: MiB of it in the kernel's cache
    fincore --bytes --noheadings --output RES "$1" | awk '{ print int($1 / 1048576) }'
}
hot() { find "${V_ROOT[v]}/hot_cache" -type f -printf '%f %b %C@\n' | sort; }
scanned() { volume_status v .cold_scan_bytes; }
remote() { volume_status v .read_bytes_cold_scan; }
set_flag() { "$CKPTCTL" flags --set "$1" "$mnt"; }

step "files that are only in the store"
volume_mount v create,checkpoint_interval=0
mkdir "$mnt/archive"
head -c "${MIB}M" /dev/urandom >"$WORK/large"
cp "$WORK/large" "$mnt/large"
head -c 2M /dev/urandom >"$WORK/small"
cp "$WORK/small" "$mnt/small"
volume_checkpoint v -q
volume_unmount v
rm -rf "${V_ROOT[v]}"
volume_mount v checkpoint_interval=0,page_cache=8M
cmp "$WORK/small" "$mnt/small" || fail "the small file is wrong"
hot >"$WORK/hot"

step "ckptctl cat leaves the caches as they are"
"$CKPTCTL" cat --cold "$mnt/large" >"$WORK/got" || fail "cat failed"
assert_same_file "$WORK/large" "$WORK/got" "the file that cat wrote"
hot | cmp - "$WORK/hot" || fail "the scan changed hot_cache"
assert_equal $((MIB << 20)) "$(scanned)" "bytes of the scan"
assert_at_least $((MIB << 20)) "$(remote)" "bytes from the store"
assert_at_most $(((MIB << 20) * 5 / 4)) "$(remote)" "bytes from the store"
assert_equal 0 "$(volume_status v .cold_scans)" "scans that go on"
assert_equal 0 "$(cached "$mnt/large")" "MiB of it in the kernel's cache"

step "what was written since is read, whether it has been synced or not"
printf 'new bytes' >"$WORK/new"
dd if="$WORK/new" of="$mnt/large" bs=1 seek=5000000 conv=notrunc status=none
dd if="$WORK/new" of="$WORK/large" bs=1 seek=5000000 conv=notrunc status=none
"$CKPTCTL" cat --cold "$mnt/large" | cmp - "$WORK/large" || fail "the scan missed a write"
exec 8<>"$mnt/large"
printf 'newer' >&8
printf 'newer' | dd of="$WORK/large" conv=notrunc status=none
"$CKPTCTL" cat --cold "$mnt/large" | cmp - "$WORK/large" || fail "the scan missed a cached write"

step "the ends of cat: a closed pipe, no file, no cold scans"
set +o pipefail
status=$("$CKPTCTL" cat --cold "$mnt/large" 2>"$WORK/error" | head -c 10 >/dev/null; echo "${PIPESTATUS[0]}")
set -o pipefail
assert_equal 141 "$status" "status of cat into a closed pipe"
"$CKPTCTL" cat --cold "$mnt/none" 2>/dev/null && fail "cat of a missing file succeeded"
"$CKPTCTL" cat --cold "$mnt" 2>/dev/null && fail "cat of a directory succeeded"
"$CKPTCTL" cat --cold "$WORK/large" 2>/dev/null && fail "cat of another file system succeeded"
"$CKPTCTL" cat --cold "$mnt/large" >/dev/full 2>/dev/null && fail "cat to a full disk succeeded"
set_flag enable_cold_scan=off
"$CKPTCTL" cat --cold "$mnt/large" 2>"$WORK/error" >&2 && fail "cat did without the flag"
grep -q "turned off" "$WORK/error" || fail "cat did not say why: $(cat "$WORK/error")"
set_flag enable_cold_scan=on

step "a mark, and files that inherit it"
exec 8>&-
setfattr -n user.ckptfs.cold_scan -v 1 "$mnt/large"
setfattr -n user.ckptfs.cold_scan -v 2 "$mnt/archive" 2>/dev/null && fail "a wrong mark was taken"
setfattr -n user.ckptfs.cold_scan -v 1 "$mnt/archive"
mkdir "$mnt/archive/deep"
cp "$WORK/small" "$mnt/archive/deep/file"
assert_equal 1 "$(getfattr --only-values -n user.ckptfs.cold_scan "$mnt/archive/deep/file")" "the mark"
before=$(scanned)
cmp "$mnt/large" "$WORK/large" || fail "the marked file is wrong"
cmp "$mnt/archive/deep/file" "$WORK/small" || fail "the inherited file is wrong"
assert_at_least $((before + (MIB << 20))) "$(scanned)" "bytes of scans by marks"
assert_equal 0 "$(cached "$mnt/large")" "MiB of the marked file in the kernel's cache"
step "a marked file that is open for reading shows what others write"
exec 7<"$mnt/large"
printf 'newest bytes' | dd of="$WORK/large" conv=notrunc status=none
exec 8<>"$mnt/large"
printf 'newest bytes' >&8
assert_equal "newest bytes" "$(head -c 12 <&7)" "bytes that another descriptor wrote"
exec 7<&- 8>&-
setfattr -x user.ckptfs.cold_scan "$mnt/large"

step "the flag for all files; and without it the file is kept"
hot >"$WORK/hot"
set_flag cold_scan_all=on
cmp "$mnt/large" "$WORK/large" || fail "wrong with the flag"
hot | cmp - "$WORK/hot" || fail "the flag did not keep hot_cache as it was"
set_flag cold_scan_all=off
volume_unmount v
volume_mount v checkpoint_interval=0
assert_equal 1 "$(getfattr --only-values -n user.ckptfs.cold_scan "$mnt/archive/deep/file")" "the mark"
getfattr -n user.ckptfs.cold_scan "$mnt/large" >/dev/null 2>&1 && fail "the mark came back"
cmp "$mnt/large" "$WORK/large" || fail "wrong after a mount"
assert_equal 0 "$(scanned)" "bytes of scans without a mark"
assert_at_least 20 "$(cached "$mnt/large")" "MiB of it in the kernel's cache"
volume_unmount v
