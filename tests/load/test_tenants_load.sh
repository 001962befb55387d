#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The load test of the plan: append-only and database tenants on one root, each with a daemon of its
# own, a checkpoint every 5 s, and a quota that all of them press against; 50 checkpoints queued at
# once; cold scans of 1,000 chunks beside them. Reports the 99th percentile of the durations of
# checkpoints, the depth of their queue, the drift of the account, and memory; asserts that nothing
# is lost, that the quota is kept, and that the account never has more than the disk.
# CKPTFS_LOAD_SECONDS (8, with CKPTFS_TEST_LONG 300), CKPTFS_LOAD_QUOTA_MIB (600, with
# CKPTFS_TEST_LONG 1024), CKPTFS_LOAD_TENANTS="APPENDING DATABASES" (2 and 1; 10 and 5).
TEST_TIMEOUT=180
[ -z "${CKPTFS_TEST_LONG:-}" ] || TEST_TIMEOUT=1800
. "$(dirname "$0")/../integration/lib.sh"
. "$TEST_TOP_SRCDIR/tests/load/load.sh"

if [ -n "$CKPTFS_TEST_LONG" ]; then
    TIME=300 QUOTA_MIB=1024 TENANTS="10 5" CHUNKS=1000 QUEUED=50
else
    TIME=8 QUOTA_MIB=160 TENANTS="2 1" CHUNKS=100 QUEUED=10
fi
TIME=${CKPTFS_LOAD_SECONDS:-$TIME}
QUOTA_MIB=${CKPTFS_LOAD_QUOTA_MIB:-$QUOTA_MIB}
read -r APPENDING DATABASES <<<"${CKPTFS_LOAD_TENANTS:-$TENANTS}"
QUOTA=$((QUOTA_MIB * MIB))
ROOT=$WORK/root
names=()
declare -A writers
for ((i = 0; i < APPENDING; i++)); do names+=("append$i"); done
for ((i = 0; i < DATABASES; i++)); do names+=("db$i"); done

of_all() { # JQ-FILTER: the sum over all tenants
    local name
    for name in "${names[@]}"; do
        volume_status "$name" "$1"
    done | awk '{ n += $1 } END { print n + 0 }'
}
percentile() { # PERCENT: of the numbers on standard input
    sort -n | awk -v p="$1" '{ a[NR] = $1 } END { i = int(NR * p / 100 + 0.9999); print NR ? a[i] : 0 }'
}
durations() { # EVENT: of all tenants, in ms
    cat "$WORK"/*.log | jq -r "select(.event == \"$1\") | .duration_ms"
}
memory() { # the most and the sum, in KiB
    local name
    for name in "${names[@]}"; do
        own_memory_kib "${V_PID[$name]}"
    done | awk '{ n += $1; if ($1 > most) most = $1 } END { print most, n }'
}
# The account may lack blocks of maps, and has none too many, once nothing is under way.
drift() {
    local account disk
    account=$(volume_status db0 .root_quota_used_bytes)
    disk=$(find "$ROOT" -type f -printf '%b\n' 2>/dev/null | awk '{ n += $1 } END { print n * 512 }')
    echo $((disk - account)) >"$WORK/drift"
}
has_no_drift() {
    drift
    [ "$(cat "$WORK/drift")" -ge 0 ] && [ "$(cat "$WORK/drift")" -le $((${#names[@]} * 16384)) ]
}

step "${#names[@]} tenants"
for name in "${names[@]}"; do
    volume_new "$name" file
    V_ROOT[$name]=$ROOT
    volume_mount "$name" "create,root_quota=$QUOTA,checkpoint_interval=5s"
done

step "$CHUNKS chunks that are only in the store"
mkdir "${V_MNT[append0]}/archive"
for ((i = 0; i < CHUNKS; i++)); do
    head -c 20000 /dev/urandom >"${V_MNT[append0]}/archive/$i"
done
volume_checkpoint append0
cat "${V_MNT[append0]}"/archive/* | sha256sum >"$WORK/archive.sum"
"$CKPTCTL" evict --all "${V_MNT[append0]}" >"$WORK/out"

step "all of them write for $TIME s"
watch_begin "$ROOT"
for name in "${names[@]}"; do
    case $name in
        append*) "$CKPTCTL" variant --set append-only "${V_MNT[$name]}" >"$WORK/out" ;;
    esac
    # Files of the tenants that append are larger than they can get.
    size=$((QUOTA_MIB * 10 / ${#names[@]}))
    [[ $name == db* ]] || size=$((QUOTA_MIB * 100))
    load_begin "$name" 1 "$size" $((TIME + 600))
    writers[$name]=$writer
done
sleep $((TIME / 3))

step "$QUEUED checkpoints at once"
ask() { # TENANT: how long it took
    local began
    began=$(now_ms)
    timeout 300 "$CKPTCTL" checkpoint -q "${V_MNT[$1]}" || return 1
    echo $(($(now_ms) - began)) >>"$WORK/answered"
}
: >"$WORK/answered"
asking=()
for ((i = 0; i < QUEUED; i++)); do
    ask "${names[$((i % ${#names[@]}))]}" 2>>"$WORK/asked" &
    asking+=("$!")
done
depth=0
while [ "$(wc -l <"$WORK/answered")" -lt "$QUEUED" ] && [ ! -s "$WORK/asked" ]; do
    now=0
    for name in "${names[@]}"; do
        one=$("$CKPTCTL" jobs --json "${V_MNT[$name]}" | jq '[.[] | select(.state == "Pending" or .state == "InFlight")] | length')
        now=$((now + one))
    done
    [ "$now" -le "$depth" ] || depth=$now
    sleep 0.05
done
for pid in "${asking[@]}"; do
    wait "$pid" || fail "a checkpoint failed: $(cat "$WORK/asked")"
done
note "answered after $(percentile 50 <"$WORK/answered") ms at the median, $(percentile 99 <"$WORK/answered") ms at p99; at most $depth jobs at once in all tenants"

step "a cold scan of $CHUNKS chunks beside the writers"
began=$(now_ms)
for ((i = 0; i < CHUNKS; i++)); do
    echo "$i"
done | sort | sed "s#^#${V_MNT[append0]}/archive/#" >"$WORK/list"
while read -r file; do
    "$CKPTCTL" cat --cold "$file"
done <"$WORK/list" | sha256sum >"$WORK/scanned.sum"
note "in $(($(now_ms) - began)) ms"
assert_same_file "$WORK/archive.sum" "$WORK/scanned.sum" "what the scan read"
assert_at_least $((CHUNKS * 20000)) "$(volume_status append0 .cold_scan_bytes)" "bytes of cold scans"
while [ $(($(now_ms) - TEST_STARTED_MS)) -lt $((TIME * 1000)) ]; do
    sleep 0.5
done
read -r most sum <<<"$(memory)"
note "memory of a daemon: at most $((most / 1024)) MiB, of all: $((sum / 1024)) MiB"

step "the writers end"
for name in "${names[@]}"; do
    kill -TERM "${writers[$name]}"
    wait "${writers[$name]}" || fail "a writer failed: $(cat "$WORK/$name.writer")"
done
for name in "${names[@]}"; do
    volume_checkpoint "$name"
done
note "checkpoints: $(of_all .checkpoints) local, $(of_all .publications) published, $(of_all .checkpoint_failures) failed"
note "p99 of local ones: $(durations checkpoint.recorded | percentile 99) ms, of publications: $(durations checkpoint.published | percentile 99) ms"
wait_for 30 "an account without drift" has_no_drift
note "the disk has $(cat "$WORK/drift") bytes that the account lacks"
for kind in append0 db0; do
    load_note "$kind"
done
drop_kernel_caches
for name in "${names[@]}"; do
    load_check "$name"
done
watch_end
for name in "${names[@]}"; do
    volume_unmount "$name"
done
