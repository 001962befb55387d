#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Large files: a sparse one of 1 TiB, and one that is streamed through in bounded memory.
TEST_TIMEOUT=240
[ -z "${CKPTFS_TEST_LONG:-}" ] || TEST_TIMEOUT=1200
. "$(dirname "$0")/lib.sh"

need_helper file_tool
TIB=$((1 << 40))
MIB=2048
[ -z "$CKPTFS_TEST_LONG" ] || MIB=10240
CACHE_MIB=128
# What the daemon may have beside its page cache: buffers of uploads and fetches, tables, threads.
BESIDE_MIB=192

volume_new v file "page_cache=${CACHE_MIB}M,wal_limit=256M"
step "1 TiB of hole with 300 pages in it"
volume_mount v create,checkpoint_interval=0
sparse=${V_MNT[v]}/sparse
"$HELPERS/file_tool" write-sparse "$sparse" $TIB
"$HELPERS/file_tool" check-sparse "$sparse" $TIB
volume_checkpoint v
drop_kernel_caches
"$HELPERS/file_tool" check-sparse "$sparse" $TIB
note "the store has $(disk_bytes "${V_DIRECTORY[v]}") bytes"
assert_at_most $((64 << 20)) "$(disk_bytes "${V_DIRECTORY[v]}")" "bytes in the store for 300 pages"
volume_unmount v
step "1 TiB of hole restored"
[ -n "$TEST_PLAIN" ] || rm -rf "${V_ROOT[v]}"
volume_mount v checkpoint_interval=0
"$HELPERS/file_tool" check-sparse "$sparse" $TIB
rm "$sparse"
volume_checkpoint v

watch_memory() { # PID OUT
    local most=0 now
    while now=$(resident_kib "$1" 2>/dev/null) && [ -n "$now" ]; do
        [ "$now" -le "$most" ] || most=$now
        echo "$most" >"$2.new"
        mv "$2.new" "$2"
        sleep 0.2
    done
}

bounded() { # STEP COMMAND...
    local what=$1 watcher most began
    shift
    step "$what"
    watch_memory "${V_PID[v]}" "$WORK/memory" &
    watcher=$!
    began=$(now_ms)
    "$@"
    sleep 0.3
    kill "$watcher" 2>/dev/null || :
    wait "$watcher" 2>/dev/null || :
    most=$(($(cat "$WORK/memory") / 1024))
    note "$(($(now_ms) - began)) ms, the daemon had at most $most MiB"
    [ -n "$TEST_PLAIN" ] || assert_at_most $((CACHE_MIB + BESIDE_MIB)) "$most" "MiB of memory: $what"
}

large=${V_MNT[v]}/large
bounded "$MIB MiB written" "$HELPERS/file_tool" write-large "$large" $MIB
bounded "checkpoint" volume_checkpoint v
volume_unmount v
[ -n "$TEST_PLAIN" ] || rm -rf "${V_ROOT[v]}"
volume_mount v checkpoint_interval=0
bounded "$MIB MiB read from the store" "$HELPERS/file_tool" check-large "$large" $MIB
rm "$large"
volume_unmount v
