#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A storage root whose manifest is damaged is mounted with everything that was acknowledged, from the store and
# the write-ahead log.
TEST_TIMEOUT=120
. "$(dirname "$0")/lib.sh"

damage() { # FILE: overwrites a part of every page but the first two
    local size at
    size=$(stat -c %s "$1")
    for ((at = 2; at < size / 4096; at++)); do
        head -c 1024 /dev/urandom | dd of="$1" bs=1024 seek=$((at * 4 + 2)) conv=notrunc status=none
    done
}

step "a volume with a published generation and synced changes after it"
volume_new v file
volume_mount v create,checkpoint_interval=0
mnt=${V_MNT[v]}
head -c 3000000 /dev/urandom >"$mnt/published"
mkdir "$mnt/directory"
volume_checkpoint v
head -c 2000000 /dev/urandom >"$mnt/directory/logged"
dd if=/dev/urandom of="$mnt/published" bs=5000 seek=100 count=3 conv=notrunc status=none
mv "$mnt/published" "$mnt/renamed"
sync "$mnt/directory/logged" "$mnt/renamed" "$mnt"
(cd "$mnt" && sha256sum renamed directory/logged) >"$WORK/sums"

step "its daemon is killed, and its manifest damaged"
volume_kill9 v
damage "${V_ROOT[v]}/manifest/data.mdb"
volume_mount v checkpoint_interval=0
(cd "$mnt" && sha256sum --quiet -c "$WORK/sums") || fail "what was acknowledged is not there"
[ ! -e "$mnt/published" ] || fail "a name is back that was given away"
[ -e "${V_ROOT[v]}/manifest.aside-1/data.mdb" ] || fail "the damaged manifest is not kept"
volume_checkpoint v
volume_unmount v

step "another host sees the same"
volume_other_root other v
volume_mount other checkpoint_interval=0
(cd "${V_MNT[other]}" && sha256sum --quiet -c "$WORK/sums") || fail "what was published is not the same"
volume_unmount other
