#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The log: SIGHUP opens it anew and ends nothing, readers cannot flood it, every line says whose it is,
# and it says when the store is back.
TEST_TIMEOUT=60
. "$(dirname "$0")/lib.sh"

if [ -n "$TEST_PLAIN" ]; then
    note "a plain directory has no log"
    exit 0
fi

lines() { # EVENT
    { [ ! -e "$log" ] && echo 0; } || grep -cF "\"event\":\"$1\"" "$log" || :
}

has_line() { # EVENT
    [ "$(lines "$1")" -gt 0 ]
}

is_opened_twice() {
    [ "$(lines log.reopened)" = 2 ]
}

has_ended() { # PID
    ! is_running "$1"
}

step "SIGHUP, in the foreground"
volume_new v file
log=${V_LOG[v]}
mnt=${V_MNT[v]}
volume_mount v create,checkpoint_interval=0
mv "$log" "$log.old"
kill -HUP "${V_PID[v]}"
wait_for 10 "a new log" has_line log.reopened
head -c 65536 /dev/urandom >"$mnt/file"
volume_checkpoint v
has_line checkpoint.published || fail "the new log does not have what came later"
! grep -q checkpoint.published "$log.old" || fail "the old log has it"
kill -HUP "${V_PID[v]}"
wait_for 10 "the log opened once more" is_opened_twice
volume_assert_alive v
[ "$(cat "$log" "$log.old" | grep -c '"tenant":"tenant"')" = "$(cat "$log" "$log.old" | wc -l)" ] ||
    fail "not every line has the tenant"
! grep '"tenant".*"tenant":' "$log" "$log.old" || fail "a line has the tenant twice"

step "the store is back"
mv "${V_DIRECTORY[v]}" "$WORK/away"
echo more >"$mnt/more"
! timeout 60 "$CKPTCTL" checkpoint "$mnt" >/dev/null 2>&1 || fail "a checkpoint was published nowhere"
mv "$WORK/away" "${V_DIRECTORY[v]}"
wait_for 60 "the line that says so" has_line store.back
jq -e 'select(.event == "store.back") | .away_ms > 0' "$log" >/dev/null || fail "it does not say how long it was away"
volume_unmount v

step "readers of what is lost do not flood it"
rm -rf "${V_ROOT[v]}"
find "${V_DIRECTORY[v]}" -name '*.blob' -delete
volume_mount v ro
for ((i = 0; i < 300; i++)); do
    ! cat "$mnt/file" >/dev/null 2>&1 || fail "a file without its blob was read"
done
volume_unmount v
[ "$(lines chunk.read_failed)" -ge 1 ] || fail "a failed read is not logged"
assert_at_most 40 "$(lines chunk.read_failed)" "lines about one lost blob"
suppressed=$(jq -s 'map(select(.event == "log.suppressed" and .of == "chunk.read_failed") | .lines) | add' "$log")
assert_at_least 300 "$((suppressed + $(lines chunk.read_failed)))" "failed reads, logged or counted"

step "SIGHUP, in the background"
: >"$log"
"$CKPTFS" -o "root=${V_ROOT[v]},log_file=$log,ro" "${V_SOURCE[v]}" "$mnt"
pid=$("$CKPTCTL" status --json "$mnt" | jq .pid)
remember_process "$pid"
kill -HUP "$pid"
wait_for 10 "a new log" has_line log.reopened
is_mounted v || fail "SIGHUP unmounted the volume"
kill -TERM "$pid"
wait_for 30 "the end of the daemon" has_ended "$pid"
