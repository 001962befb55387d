#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A file handle leads to its file after the kernel has forgotten the file, and after the volume was
# mounted again; the handle of a deleted file leads nowhere, whatever was made since.
TEST_TIMEOUT=60
. "$(dirname "$0")/lib.sh"

[ "$(id -u)" = 0 ] || fail "only root may open files by their handles"
[ -z "$TEST_PLAIN" ] || { note "the kernel's own matter on a plain directory"; exit 0; }
need_helper handle_check
check=$HELPERS/handle_check

volume_new v file
volume_mount v create,checkpoint_interval=0
mnt=${V_MNT[v]}
mkdir "$mnt/directory"
echo kept >"$mnt/directory/kept"
echo gone >"$mnt/directory/gone"
for name in kept gone; do
    "$check" save "$mnt/directory/$name" "$WORK/$name.handle"
done
assert_equal kept "$("$check" open "$mnt" "$WORK/kept.handle")" "a handle of a file that is cached"

step "after the kernel's caches were dropped"
drop_kernel_caches
assert_equal kept "$("$check" open "$mnt" "$WORK/kept.handle")" "the handle"

step "after the file was renamed and another was deleted"
mv "$mnt/directory/kept" "$mnt/moved"
rm "$mnt/directory/gone"
echo new >"$mnt/directory/gone"
drop_kernel_caches
assert_equal kept "$("$check" open "$mnt" "$WORK/kept.handle")" "the handle"
"$check" stale "$mnt" "$WORK/gone.handle" || fail "the handle of a deleted file leads somewhere"

step "after the volume was mounted again, and from the store alone"
volume_unmount v
volume_mount v checkpoint_interval=0
assert_equal kept "$("$check" open "$mnt" "$WORK/kept.handle")" "the handle"
"$check" stale "$mnt" "$WORK/gone.handle" || fail "the handle of a deleted file leads somewhere"
volume_unmount v
rm -r "${V_ROOT[v]}"
volume_mount v checkpoint_interval=0
assert_equal kept "$("$check" open "$mnt" "$WORK/kept.handle")" "the handle"
volume_unmount v
