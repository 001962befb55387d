#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Several volumes of one tenant: each has files, objects in the store and an owner of its own.
TEST_TIMEOUT=120
. "$(dirname "$0")/lib.sh"

step "two volumes of a tenant in one storage root"
volume_new one file
volume_new two file
V_SOURCE[two]=${V_SOURCE[one]}@2
V_ROOT[two]=${V_ROOT[one]}
volume_mount one create,checkpoint_interval=0
volume_mount two create,checkpoint_interval=0
echo one >"${V_MNT[one]}/name"
echo two >"${V_MNT[two]}/name"
volume_checkpoint one
volume_checkpoint two
assert_equal one "$(cat "${V_MNT[one]}/name")" "the first volume's file"
assert_equal two "$(cat "${V_MNT[two]}/name")" "the second volume's file"

step "their objects are told apart by their keys"
place=${V_SOURCE[one]#file://}
tenant=${place##*/}
place=${place%/*}
for n in 1 2; do
    assert_equal 1 "$(find "$place/checkpoints/$tenant/$n" -name '*.blob' | wc -l)" "blobs of volume $n"
    [ -e "$place/manifests/$tenant/$n/record-0000000000000003" ] || fail "volume $n has no generation"
done
volume_unmount one
volume_unmount two

step "another host finds each where it belongs"
volume_other_root bare one
V_SOURCE[bare]=${V_SOURCE[two]}
volume_mount bare ro
assert_equal two "$(cat "${V_MNT[bare]}/name")" "the second volume's file"
volume_unmount bare
volume_other_root none one
V_SOURCE[none]=${V_SOURCE[one]}@3
volume_mount_refused none "" 'holds no volume'
