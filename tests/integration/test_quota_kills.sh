#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A volume with twice as much data as its quota, whose daemon is killed while a program writes:
# after each mount the account is what the disk says, the quota is kept, and what was synced is
# there. With CKPTFS_TEST_LONG for ten minutes.
TEST_TIMEOUT=120
[ -z "${CKPTFS_TEST_LONG:-}" ] || TEST_TIMEOUT=900
. "$(dirname "$0")/lib.sh"

QUOTA=$((64 * 1024 * 1024))
ROUNDS=3
SECONDS_MAX=60
[ -z "${CKPTFS_TEST_LONG:-}" ] || ROUNDS=100000 SECONDS_MAX=600

# Bytes in blocks of the files of the volume's place: its log, its copies, its scratch.
place_bytes() {
    find "${V_ROOT[one]}"/{tenants/*/*/wal,hot_cache,checkpoint_scratch} -type f -printf '%b\n' 2>/dev/null |
        awk '{ n += $1 } END { print n * 512 }'
}
account_is_exact() {
    local account disk
    account=$(volume_status one .quota_used_bytes)
    disk=$(place_bytes)
    echo "account $account, disk $disk" >"$WORK/account"
    [ "$account" = "$disk" ]
}
watch_disk() {
    local most=0 now
    while [ -e "$WORK/watching" ]; do
        now=$(place_bytes) || now=0
        [ "$now" -le "$most" ] || most=$now
        echo "$most" >"$WORK/most.new"
        mv "$WORK/most.new" "$WORK/most"
    done
}

volume_new one file
volume_mount one "create,quota=$QUOTA,checkpoint_interval=1s"
: >"$WORK/watching"
watch_disk &
watcher=$!
step "the daemon is killed again and again while a program writes"
began=$(now_ms)
round=0
while [ "$round" -lt "$ROUNDS" ] && [ $(($(now_ms) - began)) -lt $((SECONDS_MAX * 1000)) ]; do
    round=$((round + 1))
    "$HELPERS/file_tool" write-large "${V_MNT[one]}/synced.$((round % 3))" 40
    "$HELPERS/file_tool" write-large "${V_MNT[one]}/torn" $((RANDOM % 80 + 20)) 2>/dev/null &
    writer=$!
    has_begun() { [ "$(stat -c %s "${V_MNT[one]}/torn" 2>/dev/null || echo 0)" -gt $((RANDOM * 500)) ] || ! kill -0 "$writer" 2>/dev/null; }
    wait_for 30 "the second file" has_begun
    volume_kill9 one
    wait "$writer" || :
    volume_mount one "quota=$QUOTA,checkpoint_interval=1s"
    wait_for 20 "an account that is right ($(cat "$WORK/account" 2>/dev/null))" account_is_exact
    "$HELPERS/file_tool" check-large "${V_MNT[one]}/synced.$((round % 3))" 40
    rm -f "${V_MNT[one]}/torn"
done
note "$round kills"
rm "$WORK/watching"
wait "$watcher"
assert_at_most "$QUOTA" "$(cat "$WORK/most")" "bytes of the volume, of which the quota is $QUOTA"

step "all that was synced is there"
drop_kernel_caches
for i in 0 1 2; do
    [ ! -e "${V_MNT[one]}/synced.$i" ] || "$HELPERS/file_tool" check-large "${V_MNT[one]}/synced.$i" 40
done
volume_unmount one
