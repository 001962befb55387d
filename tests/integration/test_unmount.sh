#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A daemon ends when it is told to, however its mount is held: by another mount namespace, below
# another mount, or by an open file after umount -l. The log says who holds it, and nothing that was
# written is lost. ckptctl unmount waits for the daemon and tells what is in the store, and so does
# ckptctl status --root afterwards.
TEST_TIMEOUT=120
. "$(dirname "$0")/lib.sh"

[ "$(id -u)" = 0 ] || fail "only root can make mount namespaces and mounts"
need_program unshare util-linux
if [ -n "$TEST_PLAIN" ]; then
    note "a plain directory has no daemon"
    exit 0
fi

has_event() { # NAME EVENT TEXT
    grep -F "\"$2\"" "${V_LOG[$1]}" | grep -qF -- "$3"
}

daemon_ended_with() { # STATUS NAME: forgets it
    local status=0
    wait_for 30 "the end of the daemon" volume_is_gone "$2"
    wait "${V_JOB[$2]}" || status=$?
    V_PID["$2"]=""
    assert_equal "$1" "$status" "exit status of the daemon"
}

end_by_signal() { # NAME: the daemon ends, with status 0, and the volume holds `after`
    kill -TERM "${V_PID[$1]}"
    daemon_ended_with 0 "$1"
}

check_content() { # NAME
    volume_mount "$1"
    assert_equal "written before" "$(cat "${V_MNT[$1]}/before")" "what was written before"
    assert_equal "written late" "$(cat "${V_MNT[$1]}/late")" "what was written while it was held"
    volume_unmount "$1"
}

step "another mount namespace keeps the mount"
volume_new a file
volume_mount a create,checkpoint_interval=0
echo "written before" >"${V_MNT[a]}/before"
unshare --mount --propagation private sleep 1000 &
holder=$!
remember_process $holder
wait_for 10 "the namespace" sh -c "[ \"\$(readlink /proc/$holder/ns/mnt)\" != \"\$(readlink /proc/self/ns/mnt)\" ] &&
    grep -q sleep /proc/$holder/comm"
umount "${V_MNT[a]}"
wait_for 20 "the line that says who has it" has_event a mount.lives_on "process $holder (sleep)"
has_event a mount.lives_on "at ${V_MNT[a]} in another mount namespace" || fail "the log does not say where"
echo "written late" >"/proc/$holder/root${V_MNT[a]}/late"
end_by_signal a
kill $holder
wait $holder 2>/dev/null || :
check_content a

step "another file system lies over the mount"
volume_new b file
volume_mount b create,checkpoint_interval=0
echo "written before" >"${V_MNT[b]}/before"
exec 7>"${V_MNT[b]}/late"
mount -t tmpfs cover "${V_MNT[b]}"
echo "written late" >&7
end_by_signal b
has_event b mount.busy "another file system is mounted over it" || fail "the log does not say why"
exec 7>&- 2>/dev/null || :
grep -q "${V_MNT[b]} .* - tmpfs cover" /proc/self/mountinfo || fail "the other file system was unmounted"
umount "${V_MNT[b]}"
umount -l "${V_MNT[b]}" # the dead mount below it
check_content b

step "a file is open after umount -l"
volume_new c file
volume_mount c create,checkpoint_interval=0
echo "written before" >"${V_MNT[c]}/before"
exec 8>"${V_MNT[c]}/late"
umount -l "${V_MNT[c]}"
wait_for 20 "the line that says who has it" has_event c mount.lives_on "process $$ (bash) uses it"
echo "written late" >&8
end_by_signal c
exec 8>&- 2>/dev/null || :
check_content c

root_says() { # NAME JQ-FILTER
    "$CKPTCTL" status --json --root "${V_ROOT[$1]}" | jq -r ".volumes[0] | $2"
}

unmount_ends_with() { # STATUS NAME [ckptctl options]
    local want=$1 name=$2 status=0
    shift 2
    timeout 60 "$CKPTCTL" unmount "$@" "${V_MNT[$name]}" >"$WORK/unmount.txt" 2>&1 || status=$?
    [ "$status" = "$want" ] || {
        cat "$WORK/unmount.txt"
        fail "ckptctl unmount ended with $status, not $want"
    }
}

step "ckptctl unmount waits until everything is in the store"
volume_new d file
volume_mount d create,checkpoint_interval=0
assert_equal true "$(root_says d .mounted)" "a mounted volume seen from its root"
assert_equal "${V_PID[d]}" "$(root_says d .pid)" "its process"
echo "written before" >"${V_MNT[d]}/before"
if "$CKPTCTL" unmount "${V_MNT[d]}/before" 2>"$WORK/unmount.txt"; then
    fail "a file was taken for the mountpoint"
fi
grep -q "give the mountpoint itself" "$WORK/unmount.txt" || fail "it does not ask for the mountpoint"
exec 9<"${V_MNT[d]}/before"
unmount_ends_with 2 d
grep -q "process $$ (bash) uses it" "$WORK/unmount.txt" || fail "it does not say who uses the mount"
exec 9<&-
unmount_ends_with 0 d
grep -q "everything is in the store" "$WORK/unmount.txt" || fail "it does not say that all is well"
if is_running "${V_PID[d]}"; then
    fail "the daemon still runs"
fi
daemon_ended_with 0 d
assert_equal "false true" "$(root_says d '"\(.mounted) \(.published)"')" "the root afterwards"

step "and says what is not there"
FAULTS=$WORK/faults
: >"$FAULTS"
MOUNT_ENVIRONMENT=(CKPTFS_STORE_FAULTS="$FAULTS")
volume_mount d checkpoint_interval=0,unmount_timeout=1s
echo outage >"$FAULTS"
echo "written late" >"${V_MNT[d]}/late"
unmount_ends_with 2 d
grep -q "not everything is in the store" "$WORK/unmount.txt" || fail "it does not say what is missing"
daemon_ended_with 2 d
assert_equal "false false" "$(root_says d '"\(.mounted) \(.published)"')" "the root afterwards"
grep '"volume.closed"' "${V_LOG[d]}" | tail -n 1 | grep -q "are not in the store" ||
    fail "the last line of the log does not say what is missing"

step "a mount that cannot claim the volume says so"
MOUNT_ENVIRONMENT=(CKPTFS_STORE_FAULTS="$FAULTS")
volume_mount d checkpoint_interval=0,unmount_timeout=60s,read_deadline=1s
grep -q "is mounted without being claimed" "$WORK/d.out" || fail "the mount is silent about it"
assert_equal false "$(volume_status d .claimed)" "claimed"
is_retrying() { [ "$(volume_status d .store_failing)" -ge 2 ]; }
wait_for 20 "retries in the status" is_retrying
wait_for 20 "retries in the log" has_event d store.retrying "errors, last: outage by CKPTFS_STORE_FAULTS"
"$CKPTCTL" status "${V_MNT[d]}" | grep -qE '^store +retrying, [0-9]+ errors, last: outage by' ||
    fail "the status does not show the retries: $("$CKPTCTL" status "${V_MNT[d]}" | grep '^store')"
need_program script bsdutils
# A terminal of 78 columns shows the cause.
script -qc "stty cols 78; timeout 3 '$CKPTCTL' checkpoint '${V_MNT[d]}'" "$WORK/terminal" >/dev/null </dev/null &
remember_process $!
wait_for 20 "the retries on the terminal" grep -q "retrying, [0-9]* errors, last: outage by" "$WORK/terminal"
wait $! || : # it keeps the mount busy
assert_equal "written late" "$(cat "${V_MNT[d]}/late")" "what was written before"

step "an unmount that waits shows the retries, the cause before the key, on one line of the terminal"
# 48 columns leave nothing of the numbers and all of the cause.
script -qfc "stty cols 48; exec '$CKPTCTL' unmount --wait 30 '${V_MNT[d]}'" "$WORK/narrow" >/dev/null </dev/null &
waiter=$!
remember_process $waiter
wait_for 20 "the retries" grep -qE "retrying, [0-9]+ errors, last: outage by" "$WORK/narrow"
tr '\r' '\n' <"$WORK/narrow" | sed 's/^.\[K//' | grep '^retrying' >"$WORK/lines"
# The line is there while the command waits, and is not taken back at once.
tail -c 60 "$WORK/narrow" | grep -q "outage by" || fail "no line is shown while it waits: $(tail -c 100 "$WORK/narrow" | cat -v)"
awk 'length > 47 { exit 1 }' "$WORK/lines" || fail "a line of progress is longer than the terminal is wide"
assert_equal true "$(root_says d '.store_failing >= 1 and (.last_error | startswith("outage by"))')" "the retries in the status of the root"
"$CKPTCTL" status --root "${V_ROOT[d]}" | grep -qE '^store +retrying, [0-9]+ errors, last: outage by' ||
    fail "the status of the root does not show the retries"
kill $waiter 2>/dev/null || :
wait $waiter 2>/dev/null || :

step "a mount waits for a daemon that still publishes, and says so"
first_job=${V_JOB[d]}
volume_start d checkpoint_interval=0
wait_for 20 "the line of the mount that waits" grep -q "waiting for process ${V_PID[d]}\|waiting for process" "$WORK/d.out"
assert_equal true "$(root_says d .closing)" "closing"
: >"$FAULTS"
wait_for 30 "the mount" is_mounted d
wait "$first_job" || fail "the first daemon could not publish"
assert_equal true "$(volume_status d .claimed)" "claimed"
assert_equal "written late" "$(cat "${V_MNT[d]}/late")" "what was written before"
unmount_ends_with 0 d -q
[ ! -s "$WORK/unmount.txt" ] || fail "-q is not quiet"
daemon_ended_with 0 d
