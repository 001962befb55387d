#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A fork is detached: its blobs are copied once, its parent is let go when nothing needs it, and the
# fork outlives the parent.
TEST_TIMEOUT=120
. "$(dirname "$0")/lib.sh"
. "$TEST_HERE/retention.sh"

detach() { # STORE
    local name=fork$1 mnt source child options data i before first
    step "$1: a fork whose blobs are copied outlives its parent"
    volume_new "$name" "$1"
    source=${V_SOURCE[$name]}
    child=${source%/tenant}/child
    options=${V_OPTIONS[$name]:-no_ro}
    volume_mount "$name" create,checkpoint_interval=0
    mnt=${V_MNT[$name]}
    for i in 1 2 3 4; do
        head -c 3000000 /dev/urandom >"$mnt/data$i"
        publish_round "$name" "$i" >/dev/null
    done
    data=$(digest "$name")
    volume_unmount "$name"
    ctl_fails "is no fork" fork --detach -o "$options" "$source"
    ctl fork --json -o "$options" "$source" "$child"
    first=$(jq .generation "$WORK/out")
    rm -rf "${V_ROOT[$name]}"
    V_SOURCE[$name]=$child
    before=$(store_keys "$name" | grep -c '^checkpoints/child/' || :)
    assert_equal 0 "$before" "blobs of the fork before"

    # Eight copies are under way at once, so that a run that dies may have made more than it counted.
    ctl_dies detach.copied:2 fork --detach -o "$options,takeover" "$child"
    assert_at_least 2 "$(store_keys "$name" | grep -c '^checkpoints/child/')" "blobs that were copied"
    if [ "$1" = file ]; then
        # What is there is not written again.
        (cd "${V_DIRECTORY[$name]}" && find checkpoints/child -name '*.blob' -printf '%i %p\n') >"$WORK/copies"
    fi
    ctl_dies detach.published fork --detach -o "$options,takeover" "$child"
    before=$(store_keys "$name" | grep -c '^checkpoints/child/')
    assert_at_least 4 "$before" "blobs that were copied"
    if [ "$1" = file ]; then
        (cd "${V_DIRECTORY[$name]}" && find checkpoints/child -name '*.blob' -printf '%i %p\n') >"$WORK/copies.now"
        ! grep -vxF -f "$WORK/copies.now" "$WORK/copies" || fail "a blob was copied twice"
    fi
    ctl fork --detach --json -o "$options,takeover" "$child"
    assert_equal 0 "$(jq .copied_blobs "$WORK/out")" "blobs that were copied twice"
    assert_equal "$before" "$(store_keys "$name" | grep -c '^checkpoints/child/')" "blobs of the fork"
    # The generation that the fork began with is kept by its policy.
    assert_equal false "$(jq .detached "$WORK/out")" "whether the fork is detached"
    assert_equal "$first" "$(jq .needed_by_generation "$WORK/out")" "the generation that needs the parent"
    ctl_fails "child@1 is a fork" destroy --yes -o "$options" "$source"

    ctl retention --set last=1,grace=0s -o "$options" "$child"
    wait_for 20 "the end of old generations" detached "$options" "$child"
    ctl destroy --yes -o "$options" "$source"
    ! store_keys "$name" | grep -q /tenant/ || fail "of the parent there is $(store_keys "$name")"
    volume_mount "$name" checkpoint_interval=0
    assert_equal "$data" "$(digest "$name")" "the fork without its parent"
    ctl check "$mnt"
    # Blobs that are its own now die and go like any others.
    rm "$mnt"/data*
    publish_round "$name" last >/dev/null
    collect_until_few "$name"
    volume_unmount "$name"
    rm -rf "${V_ROOT[$name]}"
    volume_mount "$name" checkpoint_interval=0
    assert_equal last "$(cat "$mnt/text")" "the fork after a collection"
    cat "$mnt/bulk" >/dev/null || fail "a file of the fork cannot be read"
    volume_unmount "$name"
}

detached() { # OPTIONS SOURCE
    ctl gc -o "$1" "$2"
    ctl fork --detach --json -o "$1" "$2"
    [ "$(jq .detached "$WORK/out")" = true ]
}

one_is_left() { # NAME
    ctl gc "${V_MNT[$1]}"
    [ "$(store_keys "$1" | grep -c '^checkpoints/child/')" -le 2 ]
}

collect_until_few() { # NAME
    wait_for 20 "the end of the blobs that died" one_is_left "$1"
}

mounted() {
    local name=live mnt source child job
    step "a mounted fork is detached while it is written to, also when the daemon dies"
    volume_new "$name" file
    source=${V_SOURCE[$name]}
    child=${source%/tenant}/child
    volume_mount "$name" create,checkpoint_interval=0
    mnt=${V_MNT[$name]}
    for i in 1 2 3; do
        head -c 300000 /dev/urandom >"$mnt/data$i"
        publish_round "$name" "$i" >/dev/null
    done
    ctl_fails "is no fork" fork --detach "$mnt"
    volume_unmount "$name"
    ctl fork -o no_ro "$source" "$child"
    rm -rf "${V_ROOT[$name]}"
    V_SOURCE[$name]=$child
    MOUNT_ENVIRONMENT=("CKPTFS_STORE_TRACE=$WORK/trace" CKPTFS_CRASH_AT=detach.copied:2)
    volume_mount "$name" checkpoint_interval=0
    ! "$CKPTCTL" fork --detach "$mnt" >/dev/null 2>&1 || fail "the daemon lives"
    volume_crashed "$name" 30 detach.copied
    MOUNT_ENVIRONMENT=("CKPTFS_STORE_TRACE=$WORK/trace")
    volume_mount "$name" checkpoint_interval=0
    job=$("$CKPTCTL" jobs --json "$mnt" | jq '.[] | select(.kind == "DetachFork") | .id')
    head -c 100000 /dev/urandom >"$mnt/new"
    ctl job wait --json "$job" "$mnt"
    assert_equal Completed "$(jq -r .state "$WORK/out")" "the job after the death"
    # Whatever copy had arrived is found there.
    assert_done_once PUT "$WORK/trace" 0
    ctl retention --set last=1,grace=0s "$mnt"
    publish_round "$name" more >/dev/null
    # The grace is over with the next run.
    wait_for 20 "the end of old generations" is_free "$mnt"
    ctl verify --data "$mnt"
    grep -q "blobs were read and are right" "$WORK/out" || fail "verify says: $(cat "$WORK/out")"
    ctl destroy --yes -o no_ro "$source"
    ctl job start DownloadCheckpoint "$mnt"
    ctl_fails "is no kind of job" job start CreateCheckpoint "$mnt"
    cat "$mnt"/* >/dev/null || fail "a file cannot be read without the parent"
    volume_unmount "$name"
}

is_free() { # MNT
    ctl gc "$1"
    ctl fork --detach "$1"
    grep -q "which is free" "$WORK/out"
}

detach file
detach s3
mounted
