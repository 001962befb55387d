#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A daemon that is killed while it waits for what the kernel has written for it (SEEK_HOLE in a file
# that is being written) ends, and leaves mount and storage root to the next one.
TEST_TIMEOUT=180
. "$(dirname "$0")/lib.sh"

need_helper file_tool

is_reaped() { ! [ -d "/proc/$daemon" ]; }
has_sought() { [ "$("$CKPTCTL" status --fuse "${V_MNT[v]}" | awk '$1 == "LSEEK" { print $2 }')" -gt 0 ]; }

volume_new v file
volume_mount v create,checkpoint_interval=0
for round in 1 2 3 4 5; do
    spawn "$WORK/seek.out" "$HELPERS/file_tool" seek-written "${V_MNT[v]}/file"
    wait_for 20 "a seek" has_sought
    # Some place in writing or seeking, another one each time.
    sleep "0.$((round * 2 - 1))"
    daemon=${V_PID[v]}
    kill -KILL "$daemon"
    wait_for 20 "the end of the killed daemon, all its threads" is_reaped
    wait "$SPAWN_JOB" && fail "the program did not notice"
    grep -qE 'Software caused connection abort|Transport endpoint is not connected|Input/output error' \
        "$WORK/seek.out" || fail "$(tail -n 3 "$WORK/seek.out")"
    wait "${V_JOB[v]}" 2>/dev/null || :
    V_PID[v]=
    volume_detach v
    volume_mount v checkpoint_interval=0
    note "round $round: ended, and mounted again"
done
volume_unmount v
