#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Readers that wait for a store that does not answer keep nobody else from working.
TEST_TIMEOUT=120
. "$(dirname "$0")/lib.sh"

READERS=12
faults=$WORK/faults
readers=()

volume_new v file
volume_mount v create,checkpoint_interval=0
for ((i = 0; i < READERS; i++)); do
    head -c 1000000 /dev/urandom >"${V_MNT[v]}/cold-$i"
    cp "${V_MNT[v]}/cold-$i" "$WORK/"
done
echo small >"${V_MNT[v]}/warm"
volume_checkpoint v
volume_unmount v
rm -rf "${V_ROOT[v]}"

: >"$faults"
MOUNT_ENVIRONMENT=("CKPTFS_STORE_FAULTS=$faults")
volume_mount v checkpoint_interval=0
mnt=${V_MNT[v]}
cat "$mnt/warm" >/dev/null

all_wait() { # a reader in its read(2) has opened the file and got nothing
    local pid
    for pid in "${readers[@]}"; do
        [ -e "/proc/$pid/fd/0" ] && [ "$(readlink "/proc/$pid/fd/0")" != /dev/null ] || return 1
        grep -q "^State:.*[SD]" "/proc/$pid/status" || return 1
    done
}

still_wait() { # AFTER WHAT
    local pid
    for pid in "${readers[@]}"; do
        is_running "$pid" || fail "a reader was done before $1: the store answered"
    done
}

step "$READERS readers wait for the store"
echo "slow 100000" >"$faults"
for ((i = 0; i < READERS; i++)); do
    cat <"$mnt/cold-$i" >"$WORK/got-$i" &
    readers+=($!)
done
wait_for 20 "the readers wait" all_wait

step "others go on"
mkdir "$mnt/directory"
still_wait "a mkdir"
dd if=/dev/zero of="$mnt/directory/file" bs=64k count=100 conv=fsync status=none
still_wait "a write with fsync"
assert_equal small "$(cat "$mnt/warm")" "what a warm file says"
[ "$(find "$mnt" -name 'cold-*' | wc -l)" = "$READERS" ] || fail "the directory does not list all files"
still_wait "listing"
"$CKPTCTL" checkpoint --local "$mnt" >/dev/null || fail "a local checkpoint"
still_wait "a local checkpoint"
mv "$mnt/directory/file" "$mnt/moved"
rm "$mnt/moved"
still_wait "mv and rm"

step "they get their data when the store answers"
: >"$faults"
for ((i = 0; i < READERS; i++)); do
    wait "${readers[i]}" || fail "reader $i failed"
    assert_same_file "$WORK/cold-$i" "$WORK/got-$i" "cold-$i"
done
volume_unmount v
