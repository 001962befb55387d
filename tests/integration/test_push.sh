#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A bucket is lost, and a storage root is left: a new volume is made out of it, with all that the
# root has, and what it has not is told.
TEST_TIMEOUT=120
. "$(dirname "$0")/lib.sh"
. "$TEST_HERE/retention.sh"

# Everything that the tenant has in the store is gone.
lose_bucket() { # NAME
    local bucket key
    case ${V_STORE[$1]} in
        file) rm -rf "${V_DIRECTORY[$1]:?}"/* ;;
        s3)
            bucket=${V_SOURCE[$1]#s3://}
            for key in $(store_keys "$1"); do
                s3_curl DELETE "${bucket%%/*}/prefix/$key" >/dev/null
            done
            ;;
    esac
}

# A daemon that cannot publish what is left says so, and ends.
unmount_unpublished() { # NAME
    local status=0
    "$CKPTCTL" unmount "${V_MNT[$1]}" >"$WORK/out" 2>"$WORK/error" || status=$?
    assert_equal 2 "$status" "the exit status of unmount without a bucket"
    wait "${V_JOB[$1]}" 2>/dev/null || :
    V_PID["$1"]=""
}

push() { # STORE
    local name=root$1 mnt source new options root data total file
    step "$1: all that a root has comes into a new bucket, also after deaths on the way"
    volume_new "$name" "$1"
    volume_mount "$name" create,checkpoint_interval=0
    mnt=${V_MNT[$name]}
    source=${V_SOURCE[$name]}
    options=${V_OPTIONS[$name]:-no_ro}
    root=${V_ROOT[$name]}
    new=${source%/tenant}/new
    mkdir "$mnt/dir"
    for file in one two three; do
        head -c 300000 /dev/urandom >"$mnt/dir/$file"
        "$CKPTCTL" checkpoint "$mnt" >/dev/null
    done
    ctl_fails "is mounted from" push -o "$options" "$root" "$new"
    volume_unmount "$name"
    ctl_fails "holds a volume already" push -o "$options" "$root" "$source"
    lose_bucket "$name"
    volume_mount "$name" checkpoint_interval=0
    head -c 300000 /dev/urandom >"$mnt/dir/four"
    echo more >"$mnt/text"
    ctl checkpoint --local "$mnt"
    # Nothing but the log has this.
    echo last >"$mnt/dir/last"
    sync "$mnt/dir/last"
    data=$(digest "$name")
    volume_kill9 "$name"
    ctl_fails "changes that are in no generation yet|cannot be read" push -o "$options" "$root" "$new"
    volume_mount "$name" checkpoint_interval=0
    unmount_unpublished "$name"

    ctl_dies push.uploaded:2 push -o "$options" "$root" "$new"
    ctl_dies push.created push -o "$options" "$root" "$new"
    total=$(store_keys "$name" | grep -c ^checkpoints/new/)
    assert_at_least 4 "$total" "blobs in the new place"
    ctl push --json -o "$options,takeover" "$root" "$new"
    assert_equal 0 "$(jq .uploaded_blobs "$WORK/out")" "blobs that were uploaded twice"
    assert_equal "$total" "$(jq .blobs "$WORK/out")" "blobs of the new volume"
    ctl_fails "holds a volume already" push -o "$options" "$root" "$new"
    "$CKPTCTL" verify --data -o "$options" "$new" >/dev/null || fail "the new volume is damaged"
    volume_other_root "new$1" "$name"
    V_SOURCE[new$1]=$new
    volume_mount "new$1" checkpoint_interval=0
    assert_equal "$data" "$(digest "new$1")" "the new volume"
    ctl check "${V_MNT[new$1]}"
    publish_round "new$1" next >/dev/null
    volume_unmount "new$1"

    step "$1: what the root has lost is named; the rest comes if that is wanted"
    partial "$name" "new$1" "${source%/tenant}/part" "$options"
}

partial() { # NAME OTHER SOURCE OPTIONS
    local root=${V_ROOT[$1]} mnt=${V_MNT[$2]} blob
    # The blob of `two`, which is that of the second generation.
    blob=$(store_keys "$1" | grep '^checkpoints/new/.*-0000000000000002-' | sed 's/.*-//')
    rm "$root"/hot_cache/*/"$blob"
    ctl_fails "1 blobs are lost" push -o "$4" "$root" "$3"
    grep -q "file: /dir/two" "$WORK/out" || fail "the lost file is not named: $(cat "$WORK/out")"
    ! grep -q "file: /dir/one" "$WORK/out" || fail "a file that is there is called lost"
    ctl push --partial -o "$4" "$root" "$3"
    grep -q "1 blobs are lost" "$WORK/out" || fail "a partial push says: $(cat "$WORK/out")"
    "$CKPTCTL" verify --data -o "$4" "$3" >"$WORK/out" || fail "the new volume lacks objects"
    grep -q "1 ranges of files were lost before" "$WORK/out" || fail "verify says: $(cat "$WORK/out")"
    V_SOURCE[$2]=$3
    rm -rf "${V_ROOT[$2]}"
    volume_mount "$2" checkpoint_interval=0
    cat "$mnt/dir/one" "$mnt/dir/three" "$mnt/dir/four" >/dev/null || fail "a file that was there cannot be read"
    ! cat "$mnt/dir/two" >"$WORK/two" 2>/dev/null || fail "a lost file reads as something"
    "$CKPTCTL" status "$mnt" | grep -q "^lost" || fail "the status says nothing of lost bytes"
    head -c 300000 /dev/urandom >"$WORK/whole"
    cp "$WORK/whole" "$mnt/dir/two"
    publish_round "$2" healed >/dev/null
    assert_same_file "$WORK/whole" "$mnt/dir/two" "the file that was written anew"
    ctl check "$mnt"
    volume_unmount "$2"
}

push file
push s3
