#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Disk space: two daemons share the quota of their storage root, whatever they write and whether the
# store can be reached or not; and what was acknowledged is there afterwards.
TEST_TIMEOUT=240
. "$(dirname "$0")/lib.sh"

MIB=$((1024 * 1024))
ROOT_QUOTA=$((128 * MIB))
faults=$WORK/faults

# Bytes in blocks of all files in the root.
files_bytes() {
    find "${V_ROOT[one]}" -type f -printf '%b\n' 2>/dev/null | awk '{ n += $1 } END { print n * 512 }'
}

# Notes the most that the root has held while the test writes.
watch_disk() {
    local most=0 now
    while [ -e "$WORK/watching" ]; do
        now=$(files_bytes) || now=0
        [ "$now" -le "$most" ] || most=$now
        echo "$most" >"$WORK/most.new"
        mv "$WORK/most.new" "$WORK/most"
    done
}
watch_begin() {
    : >"$WORK/watching"
    watch_disk &
    watcher=$!
}
watch_end() {
    rm "$WORK/watching"
    wait "$watcher"
    note "the root had at most $(($(cat "$WORK/most") / MIB)) MiB"
    assert_at_most "$ROOT_QUOTA" "$(cat "$WORK/most")" "bytes in the root, of which the quota is $ROOT_QUOTA"
}

# The account says what the disk says, as soon as nothing is under way. A file of more than four
# extents has a map in blocks of its own, which the file system takes when it writes the file out:
# after the daemon has counted it. The janitor adds these blocks every ten minutes, the next mount at
# once. So the account may lack some blocks, and never has too many.
MAPS=$((16 * 1024))
account_is_right() { # SLACK
    local account disk
    account=$(volume_status one .root_quota_used_bytes)
    disk=$(files_bytes)
    echo "account $account, disk $disk" >"$WORK/account"
    [ "$account" -le "$disk" ] && [ $((disk - account)) -le "$1" ]
}
assert_account() { # [SLACK]
    local end=$(($(now_ms) + 20000))
    until account_is_right "${1:-$MAPS}"; do
        [ "$(now_ms)" -lt "$end" ] || fail "the account is wrong: $(cat "$WORK/account")"
        sleep 0.1
    done
}

step "a quota that is too small, or no size, is refused"
volume_new one file
volume_new two file
V_ROOT[two]=${V_ROOT[one]}
volume_mount_refused one create,quota=1M 'quota: a volume needs at least 64M'
volume_mount_refused one create,root_quota=much "root_quota: 'much' is not right"

step "two volumes in one root write more than it may hold"
MOUNT_ENVIRONMENT=("CKPTFS_STORE_FAULTS=$faults")
volume_mount one "create,root_quota=$ROOT_QUOTA,checkpoint_interval=1s"
volume_mount two create,quota=80M,checkpoint_interval=1s
watch_begin
"$HELPERS/file_tool" write-large "${V_MNT[two]}/data" 120 &
writer=$!
"$HELPERS/file_tool" write-large "${V_MNT[one]}/data" 220
wait "$writer"
volume_checkpoint one
volume_checkpoint two
watch_end
assert_account
assert_equal $((80 * MIB)) "$(volume_status two .quota_limit_bytes)" "the limit of the second volume"
assert_at_most $((80 * MIB)) "$(volume_status two .quota_used_bytes)" "bytes of the second volume"

step "all of it is there"
watch_begin
drop_kernel_caches
"$HELPERS/file_tool" check-large "${V_MNT[two]}/data" 120
"$HELPERS/file_tool" check-large "${V_MNT[one]}/data" 220
watch_end
assert_account

step "what is in the store can be evicted at once, and comes back when it is read"
blobs() { "$CKPTCTL" quota --json "${V_MNT[one]}" | jq .blob_bytes; }
before=$(blobs)
"$CKPTCTL" evict "${V_MNT[one]}/data"
assert_at_most $((before > 8 * MIB ? before - MIB : before)) "$(blobs)" "bytes of images after the file was evicted"
"$CKPTCTL" evict --all "${V_MNT[one]}"
assert_equal 0 "$(blobs)" "bytes of images after all were evicted"
assert_account
if "$CKPTCTL" evict "${V_MNT[one]}" 2>"$WORK/out"; then fail "a directory was evicted"; fi
grep -q 'give --all' "$WORK/out" || fail "$(cat "$WORK/out")"
echo outage >"$faults"
echo new >"${V_MNT[one]}/new"
volume_checkpoint one --local
"$CKPTCTL" evict --all --json "${V_MNT[one]}" >"$WORK/out"
assert_at_least 1 "$(jq .blob_bytes "$WORK/out")" "bytes of images that are only here"
rm "$faults"
drop_kernel_caches
assert_equal new "$(cat "${V_MNT[one]}/new")" "the file that is only here"
"$HELPERS/file_tool" check-large "${V_MNT[one]}/data" 220
assert_account

step "a file can be fetched before it is read, and stays when it is pinned"
"$HELPERS/file_tool" write-large "${V_MNT[one]}/warm" 20
volume_checkpoint one
"$CKPTCTL" evict --all "${V_MNT[one]}"
if "$CKPTCTL" hydrate "${V_MNT[one]}/data" 2>"$WORK/out"; then fail "a file larger than the quota was fetched"; fi
grep -q 'quota has no room' "$WORK/out" || fail "$(cat "$WORK/out")"
if "$CKPTCTL" hydrate "${V_MNT[one]}" 2>"$WORK/out"; then fail "a directory was fetched"; fi
grep -q 'give --all' "$WORK/out" || fail "$(cat "$WORK/out")"
"$CKPTCTL" hydrate --json --pin "${V_MNT[one]}/warm" >"$WORK/out"
assert_equal '"Completed"' "$(jq .state "$WORK/out")" "the state of the job"
assert_at_least $((8 * MIB)) "$(jq .done "$WORK/out")" "bytes fetched"
"$CKPTCTL" hydrate --all "${V_MNT[one]}" 2>"$WORK/out" || grep -q 'quota has no room' "$WORK/out" || fail "$(cat "$WORK/out")"
drop_kernel_caches
"$HELPERS/file_tool" check-large "${V_MNT[one]}/data" 220
echo outage >"$faults"
drop_kernel_caches
"$HELPERS/file_tool" check-large "${V_MNT[one]}/warm" 20
rm "$faults"
"$CKPTCTL" evict "${V_MNT[one]}/warm"
assert_account

step "an interrupt ends the fetching"
echo 'slow 400' >"$faults"
"$CKPTCTL" hydrate "${V_MNT[one]}/warm" 2>"$WORK/out" &
fetcher=$!
job_runs() { [ "$("$CKPTCTL" jobs --json "${V_MNT[one]}" | jq -r '.[-1].state')" = InFlight ]; }
wait_for 20 "the job" job_runs
kill -INT "$fetcher"
status=0
wait "$fetcher" || status=$?
assert_equal 2 "$status" "the exit status ($(cat "$WORK/out"))"
# The job ends when its requests have.
job_failed() { [ "$("$CKPTCTL" jobs --json "${V_MNT[one]}" | jq -r '.[-1].state')" = Failed ]; }
wait_for 20 "the end of the job" job_failed
rm "$faults"
"$CKPTCTL" evict --all "${V_MNT[one]}" >"$WORK/out"

step "an interrupt stops an eviction, which waits for another command here"
echo 'slow 1500' >"$faults"
"$CKPTCTL" gc "${V_MNT[one]}" >"$WORK/gc" 2>&1 &
collector=$!
collection_runs() {
    "$CKPTCTL" jobs --json "${V_MNT[one]}" | jq -e 'any(.[]; .kind == "PruneCheckpoint" and .state == "InFlight")' >"$WORK/jobs"
}
wait_for 20 "the collection" collection_runs
"$CKPTCTL" evict --all "${V_MNT[one]}" 2>"$WORK/out" &
evicter=$!
catches_interrupts() { [ $((0x$(awk '/SigCgt/ { print $2 }' "/proc/$evicter/status") & 2)) -ne 0 ]; }
wait_for 20 "the eviction" catches_interrupts
kill -INT "$evicter"
status=0
wait "$evicter" || status=$?
assert_equal 2 "$status" "the exit status ($(cat "$WORK/out"))"
rm "$faults"
wait "$collector" || fail "$(cat "$WORK/gc")"
"$CKPTCTL" evict --all --json "${V_MNT[one]}" >"$WORK/out"
assert_equal false "$(jq .canceled "$WORK/out")" "whether the eviction was stopped"

step "while the store is away, writers are told in the end, and the disk is not filled"
echo outage >"$faults"
watch_begin
began=$(now_ms)
status=0
timeout 100 "$HELPERS/file_tool" write-large "${V_MNT[one]}/more" 260 2>"$WORK/writer" || status=$?
cat "$WORK/writer"
grep -q 'No space left on device' "$WORK/writer" || fail "the writer ended with $status and not with ENOSPC"
note "after $(($(now_ms) - began)) ms"
watch_end
free=$(stat -f -c '%a*%S' "${V_MNT[one]}")
assert_at_most $((64 * MIB)) $((free)) "bytes free, as statfs has it"
assert_at_least 1 "$(volume_status one .storage_quota_exhausted_total)" "reservations refused"

step "files can be removed all the same, and that makes room"
rm "${V_MNT[one]}/more"
small_write() { dd if=/dev/zero of="${V_MNT[one]}/small" bs=1M count=4 conv=fsync 2>"$WORK/out"; }
wait_for 30 "room after the removal ($(cat "$WORK/out"))" small_write
"$HELPERS/file_tool" write-large "${V_MNT[one]}/more" 260 2>"$WORK/writer" || :
grep -q 'No space left on device' "$WORK/writer" || fail "the second writer did not end with ENOSPC"

step "a daemon that is killed then leaves an account that is right after the next mount"
volume_kill9 one
rm "$faults"
MOUNT_ENVIRONMENT=("CKPTFS_STORE_FAULTS=$faults")
volume_mount one checkpoint_interval=1s
assert_account 0
assert_equal "$ROOT_QUOTA" "$(volume_status one .root_quota_limit_bytes)" "the root's limit, from before"
volume_checkpoint one
assert_account

step "when the store is back, writing goes on"
watch_begin
rm -f "${V_MNT[one]}/more"
"$HELPERS/file_tool" write-large "${V_MNT[one]}/more" 60
volume_checkpoint one
watch_end
"$HELPERS/file_tool" check-large "${V_MNT[one]}/more" 60

step "the quota can be changed while it is mounted"
"$CKPTCTL" quota --set 72M "${V_MNT[two]}" >"$WORK/out"
assert_equal $((72 * MIB)) "$("$CKPTCTL" quota --json "${V_MNT[two]}" | jq .quota_limit_bytes)" "the limit"
"$CKPTCTL" quota --set 0 --root "${V_MNT[two]}" >"$WORK/out"
assert_equal 0 "$("$CKPTCTL" quota --json "${V_MNT[one]}" | jq .root_quota_limit_bytes)" "the root's limit"
if "$CKPTCTL" quota --set 2M "${V_MNT[two]}" 2>"$WORK/out"; then fail "2M was taken"; fi
grep -q 'at least' "$WORK/out" || fail "$(cat "$WORK/out")"
volume_unmount one
volume_unmount two
