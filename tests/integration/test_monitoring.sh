#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# What monitors ask: the numbers in the format of Prometheus, and whether a volume is well.
TEST_TIMEOUT=120
. "$(dirname "$0")/lib.sh"
. "$TEST_HERE/retention.sh"

[ -z "$TEST_PLAIN" ] || { note "a plain directory has no daemon"; exit 0; }
FAULTS=$WORK/faults
: >"$FAULTS"

lint() { # FILE; tests/unit/test_metrics has a strict reader of the format, too
    grep -q '^# TYPE ckptfs_volume_info gauge$' "$1" || fail "there is no info"
    command -v promtool >/dev/null || return 0
    promtool check metrics <"$1" >"$WORK/lint" 2>&1 || fail "promtool says: $(cat "$WORK/lint")"
    [ ! -s "$WORK/lint" ] || fail "promtool says: $(cat "$WORK/lint")"
}

sample() { # FILE NAME: its value, of the first series
    awk -v name="$2" '{ series = $1; sub(/{.*/, "", series) } series == name { print $NF; exit }' "$1"
}

# check EXIT-STATUS REGEX NAME [ARGUMENTS...]: what status --check says in one line
check() {
    local status=0
    "$CKPTCTL" status --check "${@:4}" "${V_MNT[$3]}" >"$WORK/check" 2>&1 || status=$?
    assert_equal "$1" "$status" "the exit status of the check that says: $(cat "$WORK/check")"
    assert_equal 1 "$(wc -l <"$WORK/check")" "lines"
    grep -qE "$2" "$WORK/check" || fail "the check says: $(cat "$WORK/check")"
}

step "the numbers of a mount"
volume_new v file
MOUNT_ENVIRONMENT=(CKPTFS_STORE_FAULTS="$FAULTS")
volume_mount v create,checkpoint_interval=0,lease_ttl=3s
mnt=${V_MNT[v]}
head -c 100000 /dev/urandom >"$mnt/file"
volume_checkpoint v
ctl metrics "$mnt"
lint "$WORK/out"
assert_equal 2 "$(sample "$WORK/out" ckptfs_inodes)" "inodes"
assert_equal 1 "$(sample "$WORK/out" ckptfs_publications_total)" "publications"
assert_equal 1 "$(sample "$WORK/out" ckptfs_claimed)" "claimed"
assert_equal 1 "$(sample "$WORK/out" ckptfs_enable_checkpoints)" "a flag"
[[ $(sample "$WORK/out" ckptfs_published_timestamp_seconds) =~ ^[0-9]{10}\.[0-9]{3}$ ]] || fail "no time in seconds"
grep -q "^ckptfs_volume_info{tenant=\"tenant\",volume=\"[0-9a-f-]*\",source=\"${V_SOURCE[v]}\"" "$WORK/out" ||
    fail "no source"
grep -q '^ckptfs_fuse_requests_total{.*,opcode="IOCTL"} ' "$WORK/out" || fail "no requests"
[ "$(volume_status v 'keys[]' | grep -c .)" -gt 50 ] || fail "the JSON has few numbers"

step "a file for node_exporter"
mkdir "$WORK/textfile"
(umask 077 && ctl metrics --textfile "$WORK/textfile/v.prom" "$mnt")
lint "$WORK/textfile/v.prom"
assert_equal 644 "$(stat -c %a "$WORK/textfile/v.prom")" "the mode"
assert_equal v.prom "$(ls "$WORK/textfile")" "what is there"
ctl_fails "No such file" metrics --textfile "$WORK/nowhere/v.prom" "$mnt"

step "the numbers of a storage root"
ctl metrics --root "${V_ROOT[v]}"
lint "$WORK/out"
assert_equal 1 "$(sample "$WORK/out" ckptfs_mounted)" "mounted"
assert_equal "$(volume_status v .published_generation)" "$(sample "$WORK/out" ckptfs_published_generation)" "the generation"
ctl_fails "is not a storage root" metrics --root "$WORK/textfile"

step "flags"
ctl flags --set enable_checkpoints=off "$mnt"
assert_equal "false true" "$(volume_status v '"\(.enable_checkpoints) \(.enable_chunk_deltas)"')" "flags in the JSON"
"$CKPTCTL" status "$mnt" | grep -qE '^flags +enable_checkpoints is off$' || fail "the status does not show the flag"
ctl flags --set enable_checkpoints=on "$mnt"
! "$CKPTCTL" status "$mnt" | grep -q '^flags' || fail "the status shows flags that are as usual"

step "a volume that is well, and one that is stale"
check 0 "^ok: everything is in the store, up to generation" v --max-age 0
echo outage >"$FAULTS"
echo more >"$mnt/more"
check 0 "^ok: the oldest change that is not in the store is .* old" v
check 8 "^stale: the oldest change .* 0.0s is the limit" v --max-age 0
"$CKPTCTL" checkpoint --no-wait "$mnt" >/dev/null
is_failing() { [ "$(volume_status v .failing)" = true ]; }
wait_for 60 "the failure of a publication" is_failing
check 8 "^stale: .*outage" v --max-age 0
"$CKPTCTL" status --check --max-age 0 --json "$mnt" >"$WORK/json" && fail "the exit status is 0"
assert_equal 'false 8 stale' "$(jq -r '"\(.healthy) \(.exit_status) \(.problems[0].problem)"' "$WORK/json")" "the JSON"
assert_equal true "$(volume_status v '.failing and .last_error_time_ms > 1700000000000')" "failing, and since when"

step "after the outage the last error is told with its time; an upload tells its rate"
for i in 1 2 3; do head -c 5M /dev/urandom >"$mnt/big$i"; done
echo "slow 500 checkpoints/" >"$FAULTS"
"$CKPTCTL" checkpoint --no-wait "$mnt" >/dev/null
has_rate() { [ "$(volume_status v .upload_rate_bytes)" -gt 0 ]; }
wait_for 20 "the rate of the upload" has_rate
: >"$FAULTS"
volume_checkpoint v
assert_equal "false true" "$(volume_status v '"\(.failing) \(.last_error | contains("outage"))"')" "the JSON"
"$CKPTCTL" status "$mnt" | grep -qE '^last error .*outage.* ago; it went well since then\)$' ||
    fail "the status: $("$CKPTCTL" status "$mnt")"
check 0 "^ok: " v --max-age 0

step "fenced"
volume_other_root w v
volume_mount w checkpoint_interval=0,takeover
is_fenced() { [ "$(volume_status v .fenced)" = true ]; }
wait_for 20 "the fence" is_fenced
check 5 "^fenced: .* took the volume over" v --max-age 3600
volume_kill9 v
volume_unmount w

step "unclaimed, and read-only as asked for"
echo outage >"$FAULTS"
MOUNT_ENVIRONMENT=(CKPTFS_STORE_FAULTS="$FAULTS")
volume_mount w checkpoint_interval=0,read_deadline=1s
check 7 "^unclaimed: this mount does not hold" w
: >"$FAULTS"
volume_unmount w
volume_mount w ro
check 0 "^ok: " w
volume_unmount w

step "who cannot be asked"
check 2 "not on a ckptfs" w
ctl_fails "max-age is for --check" status --max-age 3 "$WORK"
ctl_fails "for a MOUNTPOINT" status --check --root "${V_ROOT[w]}"
ctl_fails "takes a number" status --check --max-age -1 "$WORK"
ctl metrics --root "${V_ROOT[w]}"
assert_equal 0 "$(sample "$WORK/out" ckptfs_mounted)" "mounted"
