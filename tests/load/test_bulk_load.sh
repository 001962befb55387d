#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A bulk load of ten times the quota runs to its end, at the speed of the upload; the daemon is killed
# in its middle, and everything that was acknowledged is there. The disk is sampled all the time. Then
# the upload alone: the same bytes in a volume without a quota, which are all on the disk before the
# first one is uploaded.
# CKPTFS_LOAD_QUOTA_MIB: the quota (64, with CKPTFS_TEST_LONG 256). CKPTFS_LOAD_STORE: file or s3.
# CKPTFS_LOAD_UPLOAD: bytes to upload in a second, for both (0: no limit).
TEST_TIMEOUT=120
[ -z "${CKPTFS_TEST_LONG:-}" ] || TEST_TIMEOUT=1800
. "$(dirname "$0")/../integration/lib.sh"
. "$TEST_TOP_SRCDIR/tests/load/load.sh"

QUOTA_MIB=${CKPTFS_LOAD_QUOTA_MIB:-${CKPTFS_TEST_LONG:+256}}
QUOTA_MIB=${QUOTA_MIB:-64}
QUOTA=$((QUOTA_MIB * MIB))
DATA_MIB=$((QUOTA_MIB * 10))
WRITERS=2

# Seconds and tenths since a time in ms.
speed() { # MIB SINCE_MS
    local ms=$(($(now_ms) - $2))
    echo "$1 MiB in $((ms / 1000)).$((ms % 1000 / 100)) s: $(($1 * 1000 / ms)) MiB/s"
}
# What the store has been sent, also for chunks that were written again.
uploaded_mib() { echo $(($(volume_status "$1" .store_bytes_written) / MIB)); } # VOLUME
load_is_at() { [ "$(load_number v answered_mib)" -ge "$1" ]; }

volume_new v "${CKPTFS_LOAD_STORE:-file}"
UPLOAD=${CKPTFS_LOAD_UPLOAD:-0}
options=root_quota=$QUOTA,checkpoint_interval=5s,upload_limit=$UPLOAD
volume_mount v "create,$options"
watch_begin "${V_ROOT[v]}"

step "the first half, until the daemon is killed"
load_begin v "$WRITERS" "$DATA_MIB" 0
wait_for 20 "the first commits" test -s "$WORK/v.journal"
wait_for $((TEST_TIMEOUT / 2)) "half of the data" load_is_at $((DATA_MIB / 2))
volume_kill9 v
load_was_cut v
volume_mount v "$options"
load_check v

step "the rest"
before=$(load_number v answered_mib)
began=$(now_ms)
load_write v "$WRITERS" "$DATA_MIB" 0
assert_equal "$DATA_MIB" "$(load_number v answered_mib)" "MiB that were acknowledged"
note "acknowledged $(speed $((DATA_MIB - before)) "$began")"
volume_checkpoint v
note "in the store $(speed $((DATA_MIB - before)) "$began"), uploaded $(speed "$(uploaded_mib v)" "$began")"
load_note v

step "all of it is there, and most of it is only in the store"
drop_kernel_caches
load_check v
watch_end
volume_unmount v

step "the upload alone, for comparison"
half=$((DATA_MIB / 2))
volume_new alone "${CKPTFS_LOAD_STORE:-file}"
volume_mount alone "create,checkpoint_interval=0,wal_limit=$((DATA_MIB * 4))M,upload_limit=$UPLOAD"
began=$(now_ms)
load_write alone "$WRITERS" "$half" 0
note "without a quota, acknowledged $(speed "$half" "$began")"
volume_checkpoint alone --local
note "on the disk $(speed "$half" "$began")"
began=$(now_ms)
volume_checkpoint alone
note "the upload alone: $(speed "$half" "$began"), uploaded $(speed "$(uploaded_mib alone)" "$began")"
volume_unmount alone

step "the same bytes straight to a file, for comparison"
began=$(now_ms)
"$LOAD" write "$WORK" "$WORK/plain.journal" "$WRITERS" "$half" 0
note "a plain directory: $(speed "$half" "$began")"
