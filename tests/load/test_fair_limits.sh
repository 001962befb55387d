#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Two tenants read from an S3 server, each with the same read_limit: one with four readers, one with
# one. Counted in bytes: the first gets no more than the second, and neither more than its limit.
# Then a cold scan beside a reader in one tenant: the reader gets more of the limit.
TEST_TIMEOUT=120
[ -z "${CKPTFS_TEST_LONG:-}" ] || TEST_TIMEOUT=600
TEST_NEEDS_S3=1
. "$(dirname "$0")/../integration/lib.sh"

MIB=$((1024 * 1024))
RATE_MIB=4
READERS=4
DATA_MIB=24
[ -z "$CKPTFS_TEST_LONG" ] || DATA_MIB=120
# The burst is a quarter of a second; requests on their way are beside it.
SLACK=$((RATE_MIB * MIB / 4 + 16 * MIB))

from_store() { volume_status "$1" '.read_bytes_foreground + .read_bytes_read_ahead'; }
of_scans() { volume_status many .read_bytes_cold_scan; }
cold() { # VOLUME
    volume_unmount "$1"
    rm -rf "${V_ROOT[$1]}"
    volume_mount "$1" "checkpoint_interval=0,no_hot_set,read_limit=${RATE_MIB}M"
}

step "files of two tenants, only in the store"
for name in many one; do
    volume_new "$name" s3
    volume_mount "$name" create,checkpoint_interval=0
    for ((i = 0; i < READERS; i++)); do
        head -c "${DATA_MIB}M" /dev/urandom >"${V_MNT[$name]}/file.$i"
    done
    volume_checkpoint "$name" -q
    cold "$name"
done

step "$READERS readers of one tenant, one of the other"
began=$(now_ms)
before_many=$(from_store many)
before_one=$(from_store one)
readers=()
for ((i = 0; i < READERS; i++)); do
    cat "${V_MNT[many]}/file.$i" >"$WORK/out.$i" &
    readers+=("$!")
done
cat "${V_MNT[one]}/file.0" >"$WORK/out.one"
many=$(($(from_store many) - before_many))
one=$(($(from_store one) - before_one))
ms=$(($(now_ms) - began))
note "in $ms ms: $many bytes for $READERS readers, $one for one"
assert_at_most $((RATE_MIB * MIB * ms / 1000 + SLACK)) "$many" "bytes of the tenant with $READERS readers"
assert_at_most $((RATE_MIB * MIB * ms / 1000 + SLACK)) "$one" "bytes of the tenant with one reader"
assert_at_least $((DATA_MIB * MIB)) "$one" "bytes of the tenant with one reader"
assert_at_most $((one * 3 / 2 + SLACK)) "$many" "bytes that $READERS readers got while one got $one"
assert_at_least $((one / 2 - SLACK)) "$many" "bytes that $READERS readers got while one got $one"
for pid in "${readers[@]}"; do
    wait "$pid"
done

step "a cold scan beside a reader, in one tenant"
cold many
before_many=$(from_store many)
"$CKPTCTL" cat --cold "${V_MNT[many]}/file.0" >"$WORK/out.scan" &
scanner=$!
cat "${V_MNT[many]}/file.1" >"$WORK/out.1"
reader=$(($(from_store many) - before_many))
scan=$(of_scans)
note "$reader bytes for the reader, $scan for the scan"
assert_at_least $((DATA_MIB * MIB)) "$reader" "bytes of the reader"
assert_at_most $((reader / 2 + MIB * 8)) "$scan" "bytes of the scan beside a reader"
wait "$scanner"
cmp "$WORK/out.scan" "${V_MNT[many]}/file.0" || fail "the scan read something else"
volume_unmount many
volume_unmount one
