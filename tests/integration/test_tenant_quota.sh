#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Disk space of tenants and jobs: two volumes of one tenant share its quota, another tenant on the
# same root does not; a job ends at its share of the quota, and readers go on. The same two share the
# tenant's limit on reads.
TEST_TIMEOUT=60
. "$(dirname "$0")/lib.sh"

MIB=$((1024 * 1024))
TENANT_QUOTA=$((128 * MIB))
quota_of() { "$CKPTCTL" quota --json "${V_MNT[$1]}" | jq ".$2"; } # VOLUME NUMBER

step "two volumes of one tenant write more than its quota, and another one as much as it wants"
for name in one two other; do
    volume_new "$name" file
    V_ROOT[$name]=$WORK/root
done
V_SOURCE[other]=${V_SOURCE[other]%/tenant}/another
volume_mount_refused one create,tenant_quota=1M 'tenant_quota: a volume needs at least 64M'
volume_mount_refused one create,job_quota=101 "job_quota: '101' is not right"
volume_mount one "create,tenant_quota=$TENANT_QUOTA,checkpoint_interval=1s"
volume_mount two create,checkpoint_interval=1s
volume_mount other create,checkpoint_interval=1s
"$HELPERS/file_tool" write-large "${V_MNT[other]}/data" 140
"$HELPERS/file_tool" write-large "${V_MNT[two]}/data" 120 &
writer=$!
"$HELPERS/file_tool" write-large "${V_MNT[one]}/data" 120
wait "$writer"
for name in one two other; do
    volume_checkpoint "$name"
done
assert_equal "$TENANT_QUOTA" "$(volume_status two .tenant_quota_limit_bytes)" "the limit, in the other volume"
assert_at_most "$TENANT_QUOTA" "$(volume_status two .tenant_quota_used_bytes)" "bytes of the tenant"
disk=$(($(find "$WORK/root/tenants/tenant" "$WORK/root/hot_cache/1" "$WORK/root/hot_cache/2" -type f -printf '%b\n' | awk '{ n += $1 } END { print n }') * 512))
assert_at_most "$TENANT_QUOTA" "$disk" "bytes of the tenant on the disk"
assert_equal 0 "$(volume_status other .tenant_quota_limit_bytes)" "the limit of the other tenant"
assert_at_least $((140 * MIB)) "$(volume_status other .tenant_quota_used_bytes)" "bytes of the other tenant"
"$CKPTCTL" status "${V_MNT[one]}" | grep -q '^disk of tenant .* of 128' || fail "$("$CKPTCTL" status "${V_MNT[one]}")"

step "a job ends at its share, and readers go on"
"$CKPTCTL" evict --all "${V_MNT[one]}" >"$WORK/out"
"$CKPTCTL" evict --all "${V_MNT[two]}" >"$WORK/out"
"$CKPTCTL" quota --set 10 --jobs "${V_MNT[one]}" >"$WORK/out"
assert_equal 13421770 "$(quota_of one job_quota_limit_bytes)" "what jobs may take"
if "$CKPTCTL" hydrate --all "${V_MNT[one]}" 2>"$WORK/out"; then fail "all was fetched"; fi
grep -q 'no room for more, of which jobs may take 13421770 bytes (10 per cent)' "$WORK/out" || fail "$(cat "$WORK/out")"
assert_at_most $((14 * MIB)) "$(quota_of one blob_bytes)" "bytes of images that the job brought"
assert_equal 0 "$(quota_of one job_quota_used_bytes)" "bytes of jobs, when none runs"
assert_at_least 1 "$(volume_status one .job_quota_exhausted_total)" "requests that were refused"
drop_kernel_caches
"$HELPERS/file_tool" check-large "${V_MNT[one]}/data" 120
assert_at_least $((15 * MIB)) "$(quota_of one blob_bytes)" "bytes of images after all was read"
if "$CKPTCTL" quota --set 0 --jobs "${V_MNT[one]}" 2>"$WORK/out"; then fail "a share of 0 was taken"; fi
grep -q 'from 1 to 100' "$WORK/out" || fail "$(cat "$WORK/out")"

step "two daemons of a tenant read no faster than its limit"
RATE=$((24 * MIB))
limit_of() { "$CKPTCTL" limits --json "${V_MNT[$1]}" | jq .tenant_read_limit_bytes; } # VOLUME
read_of_both() { echo $(($(volume_status one .store_bytes_read) + $(volume_status two .store_bytes_read))); }
for name in one two; do
    "$CKPTCTL" evict --all "${V_MNT[$name]}" >"$WORK/out"
done
"$CKPTCTL" limits --set tenant_read_limit=$RATE "${V_MNT[two]}" >"$WORK/out"
assert_equal $RATE "$(limit_of one)" "the limit, in the other volume"
assert_equal 0 "$(limit_of other)" "the limit of the other tenant"
drop_kernel_caches
before=$(read_of_both)
began=$(now_ms)
head -c $((24 * MIB)) "${V_MNT[one]}/data" >"$WORK/out" &
reader=$!
head -c $((24 * MIB)) "${V_MNT[two]}/data" >"$WORK/out.two"
wait "$reader"
got=$(($(read_of_both) - before))
took=$(($(now_ms) - began))
note "$got bytes in $took ms"
assert_at_least $((20 * MIB)) "$got" "bytes that both have read from the store"
# And what the rate gives in a quarter of a second, and a request of each.
assert_at_most $((RATE * took / 1000 + RATE / 4 + 4 * MIB)) "$got" "bytes that both have read in $took ms"

step "the limits of a tenant outlive kills, and are changed for all its volumes"
volume_kill9 one
volume_unmount two
volume_mount one checkpoint_interval=1s
assert_equal "$TENANT_QUOTA" "$(quota_of one tenant_quota_limit_bytes)" "the limit after a kill"
assert_equal $RATE "$(limit_of one)" "the limit on reads after a kill"
"$CKPTCTL" limits --set tenant_read_limit=0 "${V_MNT[one]}" >"$WORK/out"
assert_equal 0 "$(limit_of one)" "the limit on reads after it was taken away"
volume_mount two checkpoint_interval=1s
"$CKPTCTL" quota --set 160M --tenant "${V_MNT[two]}" >"$WORK/out"
assert_equal $((160 * MIB)) "$(quota_of one tenant_quota_limit_bytes)" "the new limit"
"$CKPTCTL" quota --set 0 --tenant "${V_MNT[one]}" >"$WORK/out"
grep -q '^tenant .*no quota' "$WORK/out" || fail "$(cat "$WORK/out")"
assert_equal 0 "$(quota_of two tenant_quota_limit_bytes)" "no limit"
"$HELPERS/file_tool" check-large "${V_MNT[two]}/data" 120
for name in one two other; do
    volume_unmount "$name"
done
