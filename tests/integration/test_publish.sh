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

# checkpoint_fails NAME REGEX: the command fails and says so.
checkpoint_fails() {
    ! "$CKPTCTL" checkpoint "${V_MNT[$1]}" >"$WORK/out" 2>"$WORK/error" ||
        fail "a checkpoint says: $(cat "$WORK/out")"
    grep -qE "$2" "$WORK/error" || fail "a checkpoint says: $(cat "$WORK/error")"
}

lost_records() {
    step "a bucket that has lost a record gets nothing more, and everybody is told"
    volume_new lost file
    volume_mount lost create,checkpoint_interval=0
    local mnt=${V_MNT[lost]} i record
    for i in 1 2 3; do
        echo "$i" >"$mnt/$i"
        volume_checkpoint lost
    done
    record=$(find "${V_DIRECTORY[lost]}" -name 'record-*' | sort | tail -n 2 | head -n 1)
    mv "$record" "$WORK/record"
    echo 4 >"$mnt/4"
    checkpoint_fails lost "$(basename "$record"): the record is gone"
    checkpoint_fails lost "$(basename "$record"): the record is gone"
    "$CKPTCTL" status "$mnt" | grep -q '^store *damaged' || fail "the status does not say it"
    assert_equal true "$(volume_status lost .store_damaged)" "store_damaged in JSON"
    volume_logged lost store.damaged || fail "the log does not say it"
    volume_kill9 lost
    volume_mount lost checkpoint_interval=0
    assert_equal 4 "$(cat "$mnt/4")" "what was written after that"
    checkpoint_fails lost "$(basename "$record"): the record is gone"
    mv "$WORK/record" "$record"
    volume_checkpoint lost
    volume_unmount lost
    rm -rf "${V_ROOT[lost]}"
    volume_mount lost checkpoint_interval=0
    assert_equal "1 2 3 4" "$(cat "$mnt"/* | tr '\n' ' ' | sed 's/ $//')" "what the bucket holds"
    volume_unmount lost
}

made_anew() {
    step "a root whose bucket was made anew is told from a bucket that lost something"
    volume_new anew file
    volume_mount anew create,checkpoint_interval=0
    echo 1 >"${V_MNT[anew]}/1"
    volume_checkpoint anew
    local old new
    old=$(volume_status anew .volume)
    volume_unmount anew
    local more
    for more in 0 3; do # less than the root published, and more
        rm -rf "${V_DIRECTORY[anew]:?}"/*
        volume_other_root "other$more" anew
        volume_mount "other$more" create,checkpoint_interval=0
        new=$(volume_status "other$more" .volume)
        for i in $(seq "$more"); do
            echo "$i" >"${V_MNT[other$more]}/$i"
            volume_checkpoint "other$more"
        done
        volume_unmount "other$more"
        volume_mount_refused anew "" "holds volume $new, and the storage root .* holds another one of that name, volume $old"
    done
    rm -rf "${V_ROOT[anew]}"
    volume_mount anew checkpoint_interval=0
    assert_equal "$new" "$(volume_status anew .volume)" "the volume after the root was moved away"
    volume_unmount anew
}

taken_over() {
    step "a writer that was taken over says so also when it has nothing new"
    volume_new first file
    volume_mount first create,checkpoint_interval=0
    echo 1 >"${V_MNT[first]}/1"
    volume_checkpoint first
    volume_other_root second first
    volume_mount second checkpoint_interval=0,takeover
    checkpoint_fails first "took the volume over"
    checkpoint_fails first "took the volume over"
    volume_unmount second
}

# The same bytes come again under another key while nobody knows that the first one was published.
content_again() {
    step "content that comes again is in the bucket under the key that the bucket names"
    volume_new again file read_deadline=2s
    MOUNT_ENVIRONMENT=("CKPTFS_CRASH_AT=checkpoint.published_remotely")
    volume_mount again create,checkpoint_interval=0
    local mnt=${V_MNT[again]} faults=$WORK/again.faults
    head -c 4096 /dev/urandom >"$WORK/first"
    head -c 4096 /dev/urandom >"$WORK/other"
    cp "$WORK/first" "$mnt/file"
    ! "$CKPTCTL" checkpoint "$mnt" >/dev/null 2>&1 || fail "a daemon that dies answers"
    volume_crashed again 30 "the crash after the record"
    echo outage >"$faults"
    MOUNT_ENVIRONMENT=("CKPTFS_STORE_FAULTS=$faults")
    volume_mount again checkpoint_interval=0
    local content
    for content in other first; do
        dd if="$WORK/$content" of="$mnt/file" conv=notrunc status=none
        volume_checkpoint again --local
    done
    : >"$faults"
    volume_checkpoint again
    volume_checkpoint again
    volume_unmount again
    MOUNT_ENVIRONMENT=()
    rm -rf "${V_ROOT[again]}"
    volume_mount again checkpoint_interval=0
    assert_same_file "$WORK/first" "$mnt/file" "the file from the bucket alone"
    volume_unmount again
}

errors_of_old
content_again
lost_records
made_anew
taken_over
