#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Append-only files lose their head or tail by a job, also while the kernel caches them, somebody
# appends, a checkpoint is under way, and when the daemon dies in the middle.
TEST_TIMEOUT=240
. "$(dirname "$0")/lib.sh"
. "$TEST_HERE/retention.sh"

need_program fallocate util-linux

make_log() { # FILE BYTES: of lines that tell where they stand
    "$CKPTCTL" variant --set append-only "$(dirname "$1")"
    # shellcheck disable=SC2016 # the program is awk's
    awk -v bytes="$2" 'BEGIN { for (at = 0; at < bytes; at += 64) printf "%063d\n", at }' >"$1"
}

expect_bytes() { # FILE OFFSET COUNT: as make_log made them
    awk -v at="$2" -v bytes="$3" 'BEGIN { for (end = at + bytes; at < end; at += 64) printf "%063d\n", at }' \
        >"$WORK/expected"
    dd if="$1" of="$WORK/found" bs=64K iflag=skip_bytes,count_bytes skip="$2" count="$3" status=none
    assert_same_file "$WORK/expected" "$WORK/found" "bytes from $2 on of $1"
}

MIB=$((1 << 20))
CHUNK=$((64 * MIB))

step "head and tail, on the mount and after a restore"
volume_new log file
volume_mount log create,checkpoint_interval=0
mnt=${V_MNT[log]}
mkdir "$mnt/d"
file=$mnt/d/log
make_log "$file" $((CHUNK + 4 * MIB))
volume_checkpoint log
ctl truncate --head 64M "$file"
grep -q "is completed" "$WORK/out" || fail "truncate says: $(cat "$WORK/out")"
assert_equal $((CHUNK + 4 * MIB)) "$(stat -c %s "$file")" "size after the head went"
assert_equal 0 "$(dd if="$file" bs=1M count=1 status=none | tr -d '\0' | wc -c)" "bytes at the head that are no zeros"
expect_bytes "$file" $CHUNK $MIB
assert_at_most $((8 * MIB / 512)) "$(stat -c %b "$file")" "blocks after the head went"
# The kernel has pages and the size of it, and some that it has not handed over.
printf '%063d\n' 1 >>"$file"
ctl truncate --tail $((CHUNK + MIB)) "$file"
assert_equal $((CHUNK + MIB)) "$(stat -c %s "$file")" "size after the tail went"
expect_bytes "$file" $CHUNK $MIB
printf 'appended\n' >>"$file"
assert_equal $((CHUNK + MIB + 9)) "$(stat -c %s "$file")" "size after something was appended"
sync "$file"
volume_unmount log
rm -rf "${V_ROOT[log]}"
volume_mount log checkpoint_interval=0
assert_equal $((CHUNK + MIB + 9)) "$(stat -c %s "$file")" "size on a new root"
assert_equal appended "$(tail -c 9 "$file")" "the end on a new root"
assert_equal append-only "$("$CKPTCTL" variant "$file")" "the variant on a new root"

step "what cannot be done is refused with a reason"
echo plain >"$mnt/plain"
ctl_fails "not append-only" truncate --tail 0 "$mnt/plain"
ctl_fails "no multiple of 64M" truncate --head 4096 "$file"
ctl_fails "behind its end" truncate --tail 1T "$file"
ctl_fails "needs --head OFFSET or --tail OFFSET" truncate "$file"
ctl_fails "is no number of bytes" truncate --tail -1 "$file"
ctl_fails "is no variant" variant --set other "$file"
ctl_fails "there is no flag" flags --set other=on "$mnt"
ctl flags --set enable_append_only_truncation=off "$mnt"
ctl_fails "turned off" truncate --tail 0 "$file"
ctl flags --set enable_append_only_truncation=on "$mnt"
assert_equal true "$("$CKPTCTL" flags --json "$mnt" | jq .enable_append_only_truncation)" "the flag"
ctl_fails "there is no job 999" job show 999 "$mnt"

step "jobs are listed, shown and waited for"
job=$("$CKPTCTL" truncate --tail $((CHUNK + MIB)) --no-wait --json "$file" | jq .id)
ctl job wait "$job" "$mnt"
"$CKPTCTL" jobs --json "$mnt" >"$WORK/jobs"
assert_equal Completed "$(jq -r ".[] | select(.id == $job) | .state" "$WORK/jobs")" "the job's state"
assert_equal TruncateAppendOnly "$("$CKPTCTL" job show --json "$job" "$mnt" | jq -r .kind)" "the job's kind"
ctl_fails "has ended" job cancel "$job" "$mnt"

step "the change log tells of it, and remembers its subscribers"
ctl changes "$mnt"
assert_equal $((CHUNK + MIB)) "$(jq -s 'map(select(.truncated_inode)) | last.window_end' "$WORK/out")" "the window in the change log"
seen=$(jq -s 'last.sequence' "$WORK/out")
ctl changes --subscriber one --after "$seen" "$mnt"
assert_equal 0 "$(wc -l <"$WORK/out")" "changes behind the last one"
echo more >>"$file"
volume_checkpoint log
ctl changes --subscriber one "$mnt"
assert_at_least 1 "$(jq -s 'map(select(.blobs > 0)) | length' "$WORK/out")" "changes that name blobs"
assert_at_least $((seen + 1)) "$(jq -s 'first.sequence' "$WORK/out")" "the first change that the subscriber had not seen"
ctl changes --subscriber one "$mnt"
assert_equal 0 "$(wc -l <"$WORK/out")" "changes that it has seen"
ctl changes --subscriber one --leave "$mnt"
ctl_fails "there is no change" changes --subscriber one --after 999999 "$mnt"
ctl_fails "needs --subscriber" changes --leave "$mnt"
volume_unmount log

step "a daemon that dies truncates once or not at all"
for point in job.submitted job.started truncation.marked truncation.removed job.done; do
    CKPTFS_CRASH_AT=$point volume_mount log checkpoint_interval=0
    truncate -s $CHUNK "$file" # of the shell: no job
    printf '%063d\n' 0 1 >>"$file"
    sync "$file"
    "$CKPTCTL" truncate --tail $((CHUNK + 64)) "$file" >"$WORK/out" 2>&1 && fail "it did not die at $point"
    volume_crashed log 10 "$point"
    volume_mount log checkpoint_interval=0
    # This may come before or after what the job of the dead process does.
    "$CKPTCTL" jobs --json "$mnt" | jq -r '.[] | select(.kind == "TruncateAppendOnly" and .state != "Completed" and .state != "Failed") | .id' |
        while read -r job; do "$CKPTCTL" job wait "$job" "$mnt" || :; done >"$WORK/out" 2>&1
    size=$(stat -c %s "$file")
    state=$("$CKPTCTL" jobs --json "$mnt" | jq -r '[.[] | select(.kind == "TruncateAppendOnly")] | last | .state')
    note "$point: $state, $size bytes"
    case $point:$state:$size in
        truncation.marked:Failed:$((CHUNK + 128))) ;;
        truncation.marked:*) fail "a job that may have been carried out was carried out again" ;;
        *:Completed:$((CHUNK + 64))) ;;
        *) fail "after $point the job is $state and the file has $size bytes" ;;
    esac
    volume_unmount log
done

step "somebody appends and reads meanwhile"
volume_mount log checkpoint_interval=1
"$CKPTCTL" variant --set append-only "$mnt/d"
seq 1 100000 >"$WORK/seed"
cp "$WORK/seed" "$mnt/d/race"
(
    for ((i = 0; i < 300; i++)); do
        printf 'x%062d\n' "$i" >>"$mnt/d/race" || exit 1
        cat "$mnt/d/race" >/dev/null || exit 1
    done
) &
writer=$!
for ((i = 0; i < 20; i++)); do
    ctl truncate --tail 1000 "$mnt/d/race"
done
wait "$writer" || fail "the writer failed"
head -c 1000 "$WORK/seed" >"$WORK/expected"
head -c 1000 "$mnt/d/race" >"$WORK/found"
assert_same_file "$WORK/expected" "$WORK/found" "what no truncation touched"
tail -c +1001 "$mnt/d/race" >"$WORK/found"
if grep -vxE 'x[0-9]{62}' "$WORK/found" >"$WORK/bad"; then
    fail "half a line was left: $(head -c 1000 "$WORK/bad")"
fi
volume_unmount log
rm -rf "${V_ROOT[log]}"
volume_mount log checkpoint_interval=0
tail -c +1001 "$mnt/d/race" | cmp - "$WORK/found" || fail "another end on a new root"
volume_unmount log
