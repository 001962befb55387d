#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The daemon's memory is proportional to activity, not to the number of files there are.
TEST_TIMEOUT=240
. "$(dirname "$0")/lib.sh"

need_helper file_tool
# The cache of pages and the log's buffer, which have sizes of their own, are filled by one large
# file however many small ones there are. What is bounded by itself but not full with 1,000 files,
# and is with 100,000: views of chunks (an eighth of the cache and 4 MiB), what is resident of the
# manifest (24 MiB with the program and its libraries, which are there already), pages that LMDB
# keeps from its largest change (12 MiB), and gaps between all that which malloc cannot give back
# (16 MiB with them were the most that was seen).
CACHE_MIB=16
GROWTH_KIB=$((56 << 10))
declare -A RSS

measure() { # NAME STEP COUNT
    local kib
    drop_kernel_caches
    kib=$(resident_kib "${V_PID[$1]}")
    RSS[$2-$3]=$kib
    note "$2: the daemon has $((kib / 1024)) MiB, $(($(own_memory_kib "${V_PID[$1]}") / 1024)) MiB without mapped files"
}

fill_cache() { # NAME
    drop_kernel_caches
    cat "${V_MNT[$1]}/large" >/dev/null
}

run_count() { # COUNT
    local v=v$1 directory
    step "$1 files: create"
    # A small cache of pages, which is memory that the user asked for, lets the rest be seen.
    volume_new "$v" file "page_cache=${CACHE_MIB}M"
    volume_mount "$v" create,checkpoint_interval=0
    directory=${V_MNT[$v]}/many
    head -c $((2 * CACHE_MIB << 20)) /dev/urandom >"${V_MNT[$v]}/large"
    volume_checkpoint "$v"
    mkdir "$directory"
    "$HELPERS/file_tool" make-many "$directory" "$1"
    volume_checkpoint "$v"
    fill_cache "$v"
    measure "$v" create "$1"
    step "$1 files: list"
    "$HELPERS/file_tool" check-many "$directory" "$1" 37
    measure "$v" list "$1"
    step "$1 files: change one, checkpoint"
    echo changed >"$directory/d0/extra"
    volume_checkpoint "$v"
    measure "$v" checkpoint "$1"
    volume_unmount "$v"
    step "$1 files: mount what is there"
    volume_mount "$v" checkpoint_interval=0
    fill_cache "$v"
    measure "$v" mount "$1"
    rm "$directory/d0/extra"
    volume_checkpoint "$v"
    volume_unmount "$v"
    step "$1 files: restore on a new root"
    [ -n "$TEST_PLAIN" ] || rm -rf "${V_ROOT[$v]}"
    volume_mount "$v" checkpoint_interval=0
    fill_cache "$v"
    measure "$v" restore "$1"
    "$HELPERS/file_tool" check-many "$directory" "$1" 371
    measure "$v" restored-list "$1"
    volume_unmount "$v"
}

run_count 1000
run_count 100000
step "compare"
for what in create list checkpoint mount restore restored-list; do
    grown=$((RSS[$what-100000] - RSS[$what-1000]))
    note "$what: $((grown / 1024)) MiB more with 100,000 files than with 1,000"
    assert_at_most $GROWTH_KIB $grown "KiB of memory growth in the step $what"
done
