#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# What daemons cost that nobody uses: memory, threads, requests to the store and CPU for 1, 10 and 50
# tenants on one root; and the memory of a daemon whose catalogue has 1 TiB of chunks, on a host that
# had nothing before. CKPTFS_LOAD_SECONDS: how long they are watched (3, with CKPTFS_TEST_LONG 60).
TEST_TIMEOUT=180
[ -z "${CKPTFS_TEST_LONG:-}" ] || TEST_TIMEOUT=900
. "$(dirname "$0")/../integration/lib.sh"

TIME=${CKPTFS_LOAD_SECONDS:-${CKPTFS_TEST_LONG:+60}}
TIME=${TIME:-3}
COUNTS="1 5"
[ -z "$CKPTFS_TEST_LONG" ] || COUNTS="1 10 50"
CATALOGUED_GIB=64
[ -z "$CKPTFS_TEST_LONG" ] || CATALOGUED_GIB=1024
names=()

requests() {
    local name
    for name in "${names[@]}"; do
        volume_status "$name" '[.put_requests, .get_requests, .head_requests, .list_requests, .delete_requests] | add'
    done | awk '{ n += $1 } END { print n }'
}
cpu_ticks() {
    local name
    for name in "${names[@]}"; do
        cut -d ' ' -f 14,15 "/proc/${V_PID[$name]}/stat"
    done | awk '{ n += $1 + $2 } END { print n }'
}
of_daemons() { # PATTERN: mean over /proc/PID/status
    local name
    for name in "${names[@]}"; do
        awk -v key="$1:" '$1 == key { print $2 }' "/proc/${V_PID[$name]}/status"
    done | awk '{ n += $1 } END { print int(n / NR) }'
}

step "idle tenants"
for count in $COUNTS; do
    while [ ${#names[@]} -lt "$count" ]; do
        name=t${#names[@]}
        volume_new "$name" file
        V_ROOT[$name]=$WORK/root
        volume_mount "$name" create
        echo small >"${V_MNT[$name]}/file"
        volume_checkpoint "$name"
        names+=("$name")
    done
    sent=$(requests)
    used=$(cpu_ticks)
    sleep "$TIME"
    sent=$(($(requests) - sent))
    used=$(($(cpu_ticks) - used))
    note "$count: each $(of_daemons RssAnon) KiB of its own, $(of_daemons VmRSS) KiB resident, $(of_daemons Threads) threads; all: $sent requests and $((used * 1000 / $(getconf CLK_TCK))) ms CPU in $TIME s"
    # One renewal of the lease at most.
    assert_at_most $((count * (1 + TIME / 10))) "$sent" "requests of $count idle daemons in $TIME s"
    assert_at_most 40 "$(of_daemons Threads)" "threads of an idle daemon"
    assert_at_most 65536 "$(of_daemons RssAnon)" "KiB of an idle daemon"
done
for name in "${names[@]}"; do
    volume_unmount "$name"
done

step "a catalogue of $CATALOGUED_GIB GiB: a page in each chunk of 64 MiB"
need_program python3 python3
volume_new large file
volume_mount large create
python3 - "${V_MNT[large]}" "$CATALOGUED_GIB" <<'PYTHON'
import os, sys
for i in range(int(sys.argv[2]) // 64):
    fd = os.open(f"{sys.argv[1]}/{i}", os.O_RDWR | os.O_CREAT)
    os.truncate(fd, 64 << 30)
    for chunk in range(1024):
        os.pwrite(fd, os.urandom(4096), chunk << 26)
    os.fsync(fd)
PYTHON
volume_checkpoint large
chunks=$(volume_status large .chunks)
assert_equal $((CATALOGUED_GIB * 16)) "$chunks" "chunks in the catalogue"
note "while it was written: $(own_memory_kib "${V_PID[large]}") KiB of its own"
volume_unmount large
rm -rf "${V_ROOT[large]}"
volume_mount large
note "on a bare host: $(own_memory_kib "${V_PID[large]}") KiB of its own, $(resident_kib "${V_PID[large]}") KiB resident"
python3 - "${V_MNT[large]}" "$CATALOGUED_GIB" <<'PYTHON'
import os, random, sys
random.seed(1)
files = [os.open(f"{sys.argv[1]}/{i}", os.O_RDONLY) for i in range(int(sys.argv[2]) // 64)]
for _ in range(500 * len(files)):
    assert any(os.pread(random.choice(files), 4096, random.randrange(1024) << 26))
PYTHON
reads=$((CATALOGUED_GIB * 500 / 64))
note "after $reads reads at random: $(own_memory_kib "${V_PID[large]}") KiB of its own, $(resident_kib "${V_PID[large]}") KiB resident"
# 128 MiB beside the caches, of which the pages have the largest.
limit=$((128 * 1024 + $(volume_status large .page_cache_limit_bytes) / 1024))
assert_at_most "$limit" "$(own_memory_kib "${V_PID[large]}")" "KiB of a daemon with $CATALOGUED_GIB GiB"
volume_unmount large
