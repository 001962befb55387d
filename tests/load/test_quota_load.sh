#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Writers at full speed on a quota of a tenth of their data, with `du` of the root sampled all the
# time: never above the quota, nothing lost. Four ways:
#     full     nothing else happens
#     outage   the store is away for the second quarter of the time: writers wait, then get ENOSPC,
#              then go on by themselves
#     two      two daemons on one root, each with a volume and writers
#     kills    kill -9 every few seconds; after each mount the account is what the disk says
# CKPTFS_LOAD_WAYS: some of them. CKPTFS_LOAD_SECONDS: for each (10, with CKPTFS_TEST_LONG 600).
# CKPTFS_LOAD_QUOTA_MIB: the quota (64, with CKPTFS_TEST_LONG 256).
TEST_TIMEOUT=300
[ -z "${CKPTFS_TEST_LONG:-}" ] || TEST_TIMEOUT=3600
. "$(dirname "$0")/../integration/lib.sh"
. "$TEST_TOP_SRCDIR/tests/load/load.sh"

WAYS=${CKPTFS_LOAD_WAYS:-full outage two kills}
TIME=${CKPTFS_LOAD_SECONDS:-${CKPTFS_TEST_LONG:+600}}
TIME=${TIME:-10}
QUOTA_MIB=${CKPTFS_LOAD_QUOTA_MIB:-${CKPTFS_TEST_LONG:+256}}
QUOTA_MIB=${QUOTA_MIB:-64}
QUOTA=$((QUOTA_MIB * MIB))
DATA_MIB=$((QUOTA_MIB * 10))
WRITERS=2
faults=$WORK/faults
options=root_quota=$QUOTA,checkpoint_interval=2s

mount_one() { # VOLUME [OPTIONS]
    MOUNT_ENVIRONMENT=("CKPTFS_STORE_FAULTS=$faults")
    volume_mount "$1" "$(join_options "$options" "${2:-}")"
}
finish() { # VOLUME...
    local name
    for name; do
        volume_checkpoint "$name"
        load_note "$name"
    done
    drop_kernel_caches
    for name; do
        load_check "$name"
    done
    watch_end
    for name; do
        volume_unmount "$name"
    done
    # A way writes some 30 GiB to the store: the last hour's generations are kept.
    for name; do
        rm -rf "${V_ROOT[$name]}" "${V_DIRECTORY[$name]}"
    done
}

way_full() {
    volume_new full file
    mount_one full create
    watch_begin "${V_ROOT[full]}"
    load_write full "$WRITERS" "$DATA_MIB" "$TIME"
    assert_equal 0 "$(load_number full refused)" "writes that got ENOSPC"
    finish full
}

was_refused() { [ "$(load_number outage refused)" -gt 0 ]; }
goes_on() { [ "$(load_number outage commits)" -gt "$commits" ]; }
way_outage() {
    volume_new outage file
    mount_one outage create
    watch_begin "${V_ROOT[outage]}"
    local began end=$((SECONDS + TIME))
    load_begin outage "$WRITERS" "$DATA_MIB" 3600
    wait_for 20 "the first commits" test -s "$WORK/outage.journal"
    sleep $((TIME / 4))
    echo outage >"$faults"
    began=$(now_ms)
    wait_for 120 "ENOSPC" was_refused
    note "ENOSPC $(($(now_ms) - began)) ms after the store had gone"
    sleep $((TIME / 4))
    rm "$faults"
    began=$(now_ms)
    commits=$(load_number outage commits)
    wait_for 60 "commits after the store was back" goes_on
    note "a commit $(($(now_ms) - began)) ms after the store was back"
    while [ $SECONDS -lt $end ]; do
        sleep 1
    done
    kill -TERM "$writer"
    wait "$writer"
    finish outage
}

way_two() {
    volume_new one file
    volume_new two file
    V_ROOT[two]=${V_ROOT[one]}
    mount_one one create
    mount_one two create
    watch_begin "${V_ROOT[one]}"
    load_begin one "$WRITERS" $((DATA_MIB / 2)) "$TIME"
    load_write two "$WRITERS" $((DATA_MIB / 2)) "$TIME"
    wait "$writer"
    finish one two
}

account_is_exact() {
    local account disk
    account=$(volume_status kills .quota_used_bytes)
    disk=$(place_bytes "${V_ROOT[kills]}" 1)
    echo "account $account, disk $disk" >"$WORK/account"
    [ "$account" = "$disk" ]
}
way_kills() {
    local end kills=0
    volume_new kills file
    mount_one kills create
    watch_begin "${V_ROOT[kills]}"
    end=$((SECONDS + TIME))
    while [ $SECONDS -lt $end ]; do
        load_begin kills "$WRITERS" "$DATA_MIB" "$TIME"
        sleep "$((RANDOM % 4 + 1)).$((RANDOM % 10))"
        volume_kill9 kills
        load_was_cut kills
        mount_one kills
        wait_for 30 "an account that is right" account_is_exact
        # All of it would take longer than the writing.
        if [ $((kills % 8)) -eq 0 ]; then
            load_check kills
        fi
        kills=$((kills + 1))
    done
    note "$kills kills, each mount with an account that was right to the byte"
    finish kills
}

for way in $WAYS; do
    step "$way, $TIME s"
    "way_$way"
done
