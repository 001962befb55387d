#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A daemon ends when it is told to, however its mount is held: by another mount namespace, below
# another mount, or by an open file after umount -l. The log says who holds it, and nothing that was
# written is lost.
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

end_by_signal() { # NAME: the daemon ends, with status 0, and the volume holds `after`
    local status=0
    kill -TERM "${V_PID[$1]}"
    wait_for 30 "the end of the daemon" test ! -e "/proc/${V_PID[$1]}"
    wait "${V_JOB[$1]}" || status=$?
    assert_equal 0 "$status" "exit status of the daemon"
    V_PID["$1"]=""
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
