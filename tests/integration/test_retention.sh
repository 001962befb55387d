#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# What a volume keeps and what goes: policies, snapshots, old generations, and a bucket that holds
# nothing else; also when the daemon dies between any two steps of it.
TEST_TIMEOUT=240
. "$(dirname "$0")/lib.sh"
. "$TEST_HERE/retention.sh"

generation_count() { "$CKPTCTL" generations --json "${V_MNT[$1]}" | jq length; }

# A server tells its time in seconds, so that a grace of 0 s may last for one.
collected() { # NAME COUNT
    ctl gc --sweep "${V_MNT[$1]}"
    cat "$WORK/out" >>"$WORK/collected"
    [ "$(generation_count "$1")" -eq "$2" ]
}

collect_until() { # NAME COUNT: of generations that are left
    : >"$WORK/collected"
    wait_for 20 "$2 generations that are left" collected "$1" "$2"
}

# The text of a generation, mounted from the bucket on a root of its own.
text_at() { # NAME AT
    local text
    rm -rf "${V_ROOT[old]:-}"
    volume_other_root old "$1"
    volume_mount old "at=$2"
    cat "${V_MNT[old]}/bulk" >/dev/null || fail "a file of at=$2 cannot be read"
    text=$(cat "${V_MNT[old]}/text")
    volume_unmount old
    echo "$text"
}

policy_and_snapshots() { # STORE
    local name=keep$1 mnt g1 g3
    step "$1: generations are kept, named, looked at, and deleted"
    volume_new "$name" "$1"
    volume_mount "$name" create,checkpoint_interval=0
    mnt=${V_MNT[$name]}
    ctl retention "$mnt"
    assert_equal last=1,within=1h,hourly=24,daily=7,weekly=4,grace=1d "$(cat "$WORK/out")" "a new volume's policy"
    g1=$(publish_round "$name" one)
    publish_round "$name" two >/dev/null
    g3=$(publish_round "$name" three)
    ctl snapshot create third "$mnt"
    ctl snapshot create third "$mnt" # of the same generation: it is there
    publish_round "$name" four >/dev/null
    ctl_fails "there is a snapshot third already, of generation $g3" snapshot create third "$mnt"
    ctl_fails "cannot be the name of a snapshot" snapshot create a/b "$mnt"
    ctl_fails "cannot be the name of a snapshot" snapshot create 12 "$mnt"
    ctl_fails "there is no snapshot other" snapshot drop other "$mnt"
    ctl snapshot show third "$mnt"
    assert_equal "$g3" "$(jq .generation "$WORK/out")" "the generation in the snapshot's object"
    assert_equal third "$("$CKPTCTL" snapshot list --json "$mnt" | jq -r '.[].name')" "the list of snapshots"
    assert_equal one "$(text_at "$name" "$g1")" "the first generation"
    assert_equal three "$(text_at "$name" third)" "the snapshot"
    assert_equal five "$(publish_round "$name" five >/dev/null && text_at "$name" 2099-01-01)" "the newest by its time"

    ctl_fails "is no part of a retention policy" retention --set keep=3 "$mnt"
    ctl retention --set last=1,grace=0s "$mnt"
    ctl gc --dry-run "$mnt"
    grep -q "expire generation $g1: the policy does not keep it" "$WORK/out" || fail "a dry run says: $(cat "$WORK/out")"
    assert_equal 5 "$(generation_count "$name")" "generations after a dry run"
    # The newest and the snapshot.
    collect_until "$name" 2
    grep -q 'delete blob' "$WORK/collected" || fail "the runs say: $(cat "$WORK/collected")"
    volume_other_root refused "$name"
    volume_mount_refused refused "at=$g1" "there is no generation $g1 any more"
    volume_mount_refused refused at=2000-01-01 "no generation is kept that is as old"
    volume_mount_refused refused at=other "there is no snapshot other"
    assert_equal three "$(text_at "$name" third)" "the snapshot, after what was around it has gone"
    ctl snapshot drop third "$mnt"
    collect_until "$name" 1
    volume_unmount "$name"
    rm -rf "${V_ROOT[$name]}"
    volume_mount "$name" checkpoint_interval=0
    assert_equal five "$(cat "$mnt/text")" "the volume on a new root"
    ctl retention "$mnt"
    assert_equal last=1,grace=0s "$(cat "$WORK/out")" "the policy on a new root"
    volume_unmount "$name"
    [ "$1" = s3 ] || assert_equal 1 "$(find "${V_DIRECTORY[$name]}/checkpoints" -type f | wc -l)" \
        "objects when one generation is left"
}

killed_while_deleting() {
    local point mnt
    step "a daemon that dies while it deletes goes on where it stopped"
    volume_new killed file
    volume_mount killed create,checkpoint_interval=0
    mnt=${V_MNT[killed]}
    ctl retention --set last=1,grace=0s "$mnt"
    volume_unmount killed
    for point in retention.told retention.deleted retention.blobs_deleted retention.run_told; do
        # One object a request, so that a death repeats one at most.
        MOUNT_ENVIRONMENT=("CKPTFS_STORE_TRACE=$WORK/trace" CKPTFS_DELETE_BATCH=1 "CKPTFS_CRASH_AT=$point")
        volume_mount killed checkpoint_interval=0
        publish_round killed "$point" >/dev/null
        publish_round killed "$point again" >/dev/null
        { "$CKPTCTL" gc "$mnt" && "$CKPTCTL" gc "$mnt"; } >/dev/null 2>&1 || :
        volume_crashed killed 30 "$point"
        MOUNT_ENVIRONMENT=("CKPTFS_STORE_TRACE=$WORK/trace" CKPTFS_DELETE_BATCH=1)
        volume_mount killed checkpoint_interval=0
        assert_equal "$point again" "$(cat "$mnt/text")" "the newest text after $point"
        ctl gc "$mnt"
        ctl gc "$mnt"
        assert_equal 1 "$(generation_count killed)" "generations after $point"
        volume_unmount killed
    done
    assert_done_once DELETE "$WORK/trace" 2
    step "so does one that dies while it makes or drops a snapshot"
    for point in snapshot.pinned snapshot.name_dropped; do
        MOUNT_ENVIRONMENT=("CKPTFS_CRASH_AT=$point")
        volume_mount killed checkpoint_interval=0
        MOUNT_ENVIRONMENT=()
        publish_round killed "$point" >/dev/null
        { "$CKPTCTL" snapshot create again "$mnt" && "$CKPTCTL" snapshot drop again "$mnt"; } >/dev/null 2>&1 || :
        volume_crashed killed 30 "$point"
        volume_mount killed checkpoint_interval=0
        ctl snapshot create again "$mnt"
        ctl snapshot drop again "$mnt"
        volume_unmount killed
    done
    volume_mount killed checkpoint_interval=0
    publish_round killed end >/dev/null
    ctl gc "$mnt"
    ctl gc "$mnt"
    volume_unmount killed
    assert_equal 1 "$(find "${V_DIRECTORY[killed]}/checkpoints" -type f | wc -l)" "objects at the end"
    assert_equal 0 "$(find "${V_DIRECTORY[killed]}/pins" -type f | wc -l)" "pins at the end"
}

rollback_and_forks() { # STORE
    local name=roll$1 options source child first third mnt
    step "$1: a volume is rolled back, forward again, and forked"
    volume_new "$name" "$1"
    volume_mount "$name" create,checkpoint_interval=0
    mnt=${V_MNT[$name]}
    source=${V_SOURCE[$name]}
    child=${source%/tenant}/child
    options=${V_OPTIONS[$name]:-no_ro}
    mkdir -p "$mnt/d/e"
    ln -s nowhere "$mnt/d/link"
    publish_round "$name" one >/dev/null
    first=$(digest "$name")
    publish_round "$name" two >/dev/null
    rm -r "$mnt/d"
    seq 20000 >"$mnt/more"
    publish_round "$name" three >/dev/null
    third=$(digest "$name")
    ctl snapshot create end "$mnt"
    ctl_fails "is in use by host" rollback --to 1 -o "$options" "$source"
    ctl_fails "is in use by host" gc -o "$options" "$source"
    volume_unmount "$name"

    ctl rollback --to 1 -o "$options" "$source"
    volume_mount "$name" checkpoint_interval=0
    assert_equal "$first" "$(digest "$name")" "the volume as it was at first"
    [ -L "$mnt/d/link" ] || fail "a link did not come back"
    [ -d "$mnt/d/e" ] || fail "a directory did not come back"
    ctl check "$mnt"
    publish_round "$name" four >/dev/null
    volume_unmount "$name"
    ctl rollback --to end -o "$options" "$source"
    ctl_fails "nothing was done" rollback --to end -o "$options" "$source"
    volume_mount "$name" checkpoint_interval=0
    assert_equal "$third" "$(digest "$name")" "the volume as it was at the end"
    ctl check "$mnt"
    volume_unmount "$name"

    for point in fork.pinned fork.created; do
        ! CKPTFS_CRASH_AT=$point TMPDIR=$WORK "$CKPTCTL" fork --at end -o "$options" "$source" "$child" >/dev/null 2>&1 ||
            fail "a fork does not come by $point"
    done
    ctl fork --at end -o "$options" "$source" "$child"
    ctl_fails "holds a volume already" fork -o "$options" "$source" "$child"
    ctl_fails "not in the same place" fork -o "$options" "$source" "file://$WORK/elsewhere/tenant"
    # The parent lets go of all it can; the child still has what it needs.
    ctl snapshot drop end -o "$options" "$source"
    volume_mount "$name" checkpoint_interval=0
    publish_round "$name" five >/dev/null
    rm "$mnt/more"
    publish_round "$name" six >/dev/null
    ctl retention --set last=1,grace=0s "$mnt"
    ctl gc "$mnt"
    ctl gc "$mnt"
    volume_unmount "$name"
    V_SOURCE[$name]=$child
    rm -rf "${V_ROOT[$name]}"
    volume_mount "$name" checkpoint_interval=0
    assert_equal "$third" "$(digest "$name")" "the fork"
    publish_round "$name" child >/dev/null
    ctl retention --set last=1,grace=0s "$mnt"
    ctl gc "$mnt"
    ctl gc --sweep "$mnt"
    rm -rf "$mnt"/bulk
    third=$(digest "$name")
    volume_unmount "$name"
    rm -rf "${V_ROOT[$name]}"
    volume_mount "$name" checkpoint_interval=0
    assert_equal "$third" "$(digest "$name")" "the fork on a new root"
    ctl check "$mnt"
    volume_unmount "$name"
    V_SOURCE[$name]=$source
    rm -rf "${V_ROOT[$name]}"
    volume_mount "$name" checkpoint_interval=0
    assert_equal six "$(cat "$mnt/text")" "the parent, after its fork has deleted what it could"
    cat "$mnt/bulk" >/dev/null || fail "the parent lacks data"
    volume_unmount "$name"
}

readers_are_waited_for() {
    local mnt
    step "a mount of an old generation reads on, however much is deleted around it"
    volume_new read file
    volume_mount read create,checkpoint_interval=0
    mnt=${V_MNT[read]}
    publish_round read one >/dev/null
    volume_other_root early read
    volume_mount early at=1
    volume_other_root late read
    publish_round read two >/dev/null
    volume_mount late ro
    publish_round read three >/dev/null
    ctl retention --set last=1,grace=0s "$mnt"
    for _ in 1 2 3; do ctl gc "$mnt"; done
    assert_equal 3 "$(generation_count read)" "generations while two are looked at"
    assert_equal one "$(cat "${V_MNT[early]}/text")" "the text of the first"
    cat "${V_MNT[early]}/bulk" "${V_MNT[late]}/bulk" >/dev/null || fail "what is pinned cannot be read"
    assert_equal two "$(cat "${V_MNT[late]}/text")" "the text of the second"
    volume_unmount early
    volume_unmount late
    for _ in 1 2; do ctl gc "$mnt"; done
    assert_equal 1 "$(generation_count read)" "generations when nobody looks"
    assert_equal 0 "$(find "${V_DIRECTORY[read]}/pins" -type f | wc -l)" "pins when nobody looks"
    volume_unmount read
}

policy_and_snapshots file
policy_and_snapshots s3
readers_are_waited_for
killed_while_deleting
rollback_and_forks file
rollback_and_forks s3
