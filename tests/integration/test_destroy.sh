#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A volume is destroyed: all of it goes, nothing else does, nobody loses what he needs, and a run
# that died is finished by the next one.
TEST_TIMEOUT=120
. "$(dirname "$0")/lib.sh"
. "$TEST_HERE/retention.sh"

fill() { # NAME
    volume_mount "$1" create,checkpoint_interval=0
    publish_round "$1" one >/dev/null
    ctl snapshot create first "${V_MNT[$1]}"
    publish_round "$1" two >/dev/null
    volume_unmount "$1"
}

destroy() { # STORE
    local name=gone$1 source parent options before
    step "$1: what is needed is not destroyed, and who needs it is told"
    volume_new "$name" "$1"
    source=${V_SOURCE[$name]}
    options=${V_OPTIONS[$name]:-no_ro}
    fill "$name"
    volume_mount "$name"
    ctl_fails "is in use by|has it; its lease" destroy --yes -o "$options" "$source"
    volume_unmount "$name"
    volume_other_root reader "$name"
    rm -rf "${V_ROOT[reader]}"
    volume_mount reader ro
    ctl_fails "host .* reads generation 2" destroy --yes -o "$options" "$source"
    volume_unmount reader
    ctl fork -o "$options" "$source" "${source%/tenant}/child"
    ctl_fails "child@1 is a fork of generation 2" destroy --yes -o "$options" "$source"
    ctl_fails "its name was not typed" destroy -o "$options" "$source" </dev/null
    ctl_fails "its name was not typed" destroy -o "$options" "$source" <<<child
    grep -q "all snapshots" "$WORK/error" || fail "nobody is warned: $(cat "$WORK/error")"

    step "$1: a fork goes, and its parent stays; then the parent, and a neighbour stays"
    V_SOURCE[neighbour]=""
    volume_other_root neighbour "$name"
    V_SOURCE[neighbour]=$source@11
    rm -rf "${V_ROOT[neighbour]}"
    fill neighbour
    parent=$(store_keys "$name" | grep -E '/tenant/(1|11)/' | grep -v '^pins/')
    ctl destroy --yes -o "$options" "${source%/tenant}/child"
    assert_equal "$parent" "$(store_keys "$name" | grep -v '^pins/')" "what is left beside the fork"
    assert_equal 2 "$(store_keys "$name" | grep -c '^pins/')" "pins that are left"
    ctl_fails "there is no volume" destroy --yes -o "$options" "${source%/tenant}/child"
    before=$(store_keys "$name" | grep /tenant/11/)
    ctl destroy -o "$options" "$source" <<<tenant
    assert_equal "$before" "$(store_keys "$name")" "what is left beside the neighbour"
    ctl_fails "there is no volume" destroy --yes -o "$options" "$source"
    volume_mount neighbour
    assert_equal two "$(cat "${V_MNT[neighbour]}/text")" "the neighbour's text"
    volume_unmount neighbour
    # The root remembers a volume that is no more; on another one a new volume can be made.
    rm -rf "${V_ROOT[$name]}"
    volume_mount "$name" create
    volume_unmount "$name"
}

dies_on_the_way() {
    local point name=dead source
    step "a run that dies anywhere leaves nothing that can be mounted, and the next one finishes"
    volume_new dead file
    source=${V_SOURCE[dead]}
    volume_other_root elsewhere dead
    for point in destroy.marked retention.deleted destroy.stage_done:{2,3,4,5} destroy.mark_is_left; do
        rm -rf "${V_ROOT[dead]}" "${V_ROOT[elsewhere]}"
        fill dead
        ctl_dies "$point" destroy --yes "$source"
        volume_mount_refused elsewhere create "has begun to destroy the volume"
        ctl_fails "has begun to destroy" fork "$source" "${source%/tenant}/child"
        ctl_fails "has begun to destroy" snapshot create late "$source"
        case $point in
            destroy.marked | destroy.mark_is_left)
                volume_mount_refused dead "" "has begun to destroy the volume"
                volume_mount_refused elsewhere at=2 "has begun to destroy the volume"
                ;;
        esac
        ctl destroy --yes "$source"
        assert_equal "" "$(store_keys dead)" "objects after $point"
    done
}

owner_finds_out() {
    local mnt
    step "an owner that was stalled for longer than his lease publishes nothing into the void"
    volume_new stalled file
    volume_mount stalled create,checkpoint_interval=0,lease_ttl=3s
    mnt=${V_MNT[stalled]}
    publish_round stalled one >/dev/null
    kill -STOP "${V_PID[stalled]}"
    wait_for 30 "the end of the lease" "$CKPTCTL" destroy --yes "${V_SOURCE[stalled]}" 2>/dev/null
    kill -CONT "${V_PID[stalled]}"
    echo more >"$mnt/text"
    ctl_fails "." checkpoint "$mnt"
    assert_equal more "$(cat "$mnt/text")" "what the owner has"
    ! store_keys stalled | grep -q /record- || fail "records: $(store_keys stalled)"
    volume_kill9 stalled
}

destroy file
destroy s3
dies_on_the_way
owner_finds_out
