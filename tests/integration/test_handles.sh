#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A file handle leads to its file or directory after the kernel has forgotten it, and after the volume
# was mounted again; the handle of a deleted one leads nowhere, whatever was made since.
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
mkdir -p "$mnt/one/two/three" "$mnt/one/other" "$mnt/four" "$mnt/removed/below"
for name in directory/kept directory/gone one/two/three one/other four removed/below; do
    "$check" save "$mnt/$name" "$WORK/${name##*/}.handle"
done

expect_paths() { # NAME=PATH...
    local pair
    for pair in "$@"; do
        drop_kernel_caches
        assert_equal "$mnt/${pair#*=}" "$("$check" path "$mnt" "$WORK/${pair%%=*}.handle")" \
            "the path of the handle of ${pair%%=*}"
    done
}
assert_equal kept "$("$check" open "$mnt" "$WORK/kept.handle")" "a handle of a file that is cached"

step "after the kernel's caches were dropped"
drop_kernel_caches
assert_equal kept "$("$check" open "$mnt" "$WORK/kept.handle")" "the handle"
expect_paths three=one/two/three other=one/other four=four

step "after directories were moved, exchanged and removed"
mv "$mnt/one/two" "$mnt/four/two"
"$check" exchange "$mnt/one/other" "$mnt/four/two/three"
rm -r "$mnt/removed"
expect_paths three=one/other other=four/two/three four=four
"$check" stale "$mnt" "$WORK/below.handle" || fail "the handle of a removed directory leads somewhere"

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
expect_paths three=one/other other=four/two/three four=four
volume_unmount v
rm -r "${V_ROOT[v]}"
volume_mount v checkpoint_interval=0
assert_equal kept "$("$check" open "$mnt" "$WORK/kept.handle")" "the handle"
expect_paths three=one/other other=four/two/three four=four
volume_unmount v
