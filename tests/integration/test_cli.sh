#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The command lines of ckptfs and ckptctl: help, errors and exit codes, mounting and its end in every
# way, the control ABI, and the kernel's caches.
set -u
export LC_ALL=C
build=${TEST_TOP_BUILDDIR:-$PWD}
CKPTFS=${CKPTFS:-$build/ckptfs}
CKPTCTL=${CKPTCTL:-$build/ckptctl}
helpers=$build/tests/integration
work=$(mktemp -d "${TMPDIR:-/var/tmp}/ckptfs-cli.XXXXXX") || exit 1
mnt=$work/mnt
store=file://$work/store/acme
common=root=$work/root,checkpoint_interval=0,log_file=$work/log
failures=0
mkdir "$mnt" "$work/store"
chmod 755 "$work"

fail() {
    echo "FAILED: $*"
    failures=$((failures + 1))
}

# The daemons that serve this test's mounts, by what they run and what they were given.
daemons() {
    local p
    for p in /proc/[0-9]*; do
        [ "$(readlink "$p/exe" 2>/dev/null)" = "$(readlink -f "$CKPTFS")" ] || continue
        tr '\0' ' ' <"$p/cmdline" 2>/dev/null | grep -qF "$work" && echo "${p#/proc/}"
    done
}

unmount() {
    if [ "$(id -u)" = 0 ]; then umount "$@"; else fusermount3 -u "$@"; fi
}

finish() {
    local p
    for p in $(daemons); do
        kill -KILL "$p"
    done
    while unmount -l "$mnt" 2>/dev/null || fusermount3 -uz "$mnt" 2>/dev/null; do :; done
    rm -rf "$work"
}
trap finish EXIT
trap 'exit 1' INT TERM HUP

# Until the condition holds; 30 seconds at most.
await() {
    local n=0
    until "$@"; do
        n=$((n + 1))
        if [ $n -gt 600 ]; then
            fail "this did not come: $*"
            return 1
        fi
        sleep 0.05
    done
}
no_daemons() { [ -z "$(daemons)" ]; }
is_mounted() { grep -q " $mnt fuse.ckptfs " /proc/self/mounts; }
is_not_mounted() { ! is_mounted; }

# expect STATUS TEXT COMMAND...: the exit code, and what the output contains.
expect() {
    local status=$1 text=$2 output got
    shift 2
    output=$("$@" 2>&1 </dev/null)
    got=$?
    [ $got = "$status" ] || fail "exit code $got, not $status: $* ($output)"
    case $output in
        *"$text"*) ;;
        *) fail "no '$text' in the output of: $* ($output)" ;;
    esac
}

end_mount() {
    unmount "$mnt" || fail "umount"
    await no_daemons
}

# ---- command lines ------------------------------------------------------------------------------

expect 0 "Usage: ckptfs" "$CKPTFS" --help
expect 0 "wal_limit=SIZE" "$CKPTFS" -h
expect 0 "libfuse" "$CKPTFS" --version
expect 1 "SOURCE and MOUNTPOINT" "$CKPTFS"
expect 1 "SOURCE and MOUNTPOINT" "$CKPTFS" "$store"
expect 1 "too many arguments" "$CKPTFS" "$store" "$mnt" more
expect 1 "option nonsense is not known" "$CKPTFS" -o nonsense "$store" "$mnt"
expect 1 "option wal_limit: '1K' is not right; give a size" "$CKPTFS" -o wal_limit=1K "$store" "$mnt"
expect 1 "option root needs a value" "$CKPTFS" -o root "$store" "$mnt"
expect 1 "option at: '0'" "$CKPTFS" -o at=0 "$store" "$mnt"
expect 1 "number from 1 to 1000" "$CKPTFS" -o time_granularity_ms=1001 "$store" "$mnt"
expect 1 "unknown switch" "$CKPTFS" --nonsense "$store" "$mnt"
expect 1 "switch -o needs a value" "$CKPTFS" "$store" "$mnt" -o
expect 1 "unknown switch -x" "$CKPTFS" -x "$store" "$mnt"
expect 1 "did you mean checkpoint_interval?" "$CKPTFS" -o chekpoint_interval=5 "$store" "$mnt"
expect 1 "did you mean writeback?" "$CKPTFS" -o no_writebak "$store" "$mnt"
expect 1 "neither file:// nor s3://" "$CKPTFS" nonsense://x/y "$mnt"
expect 1 "ro and takeover contradict" "$CKPTFS" -o ro,takeover "$store" "$mnt"
expect 1 "at= and create contradict" "$CKPTFS" -o at=1,create "$store" "$mnt"
for option in dirsync iversion mand nosymfollow remount bind rbind move loop loop=/dev/loop0; do
    expect 1 "option $option cannot be used with ckptfs: " "$CKPTFS" -o "$option" "$store" "$mnt"
done

expect 1 "Usage: ckptctl" "$CKPTCTL"
expect 0 "ckptctl status" "$CKPTCTL" --help
expect 0 "ckptctl 0" "$CKPTCTL" --version
expect 0 "ckptctl status" "$CKPTCTL" help
expect 1 "unknown command nonsense" "$CKPTCTL" nonsense
expect 1 "unknown command statsu; did you mean status?" "$CKPTCTL" statsu
expect 1 "unknown switch --jsno; did you mean --json?" "$CKPTCTL" status --jsno "$mnt"
expect 1 "neither file:// nor s3://" "$CKPTCTL" create nonsense
expect 1 "--wait takes a number" "$CKPTCTL" unmount --wait soon "$mnt"
expect 1 "switch --wait needs a value" "$CKPTCTL" unmount --wait
expect 1 "give one" "$CKPTCTL" status --root "$work" "$mnt"
expect 2 "is not a storage root" "$CKPTCTL" status --root "$work"
for command in create status checkpoint check unmount; do
    expect 0 "Usage: ckptctl $command" "$CKPTCTL" $command --help
    expect 0 "Usage: ckptctl $command" "$CKPTCTL" help $command
    expect 1 "give one" "$CKPTCTL" $command
    expect 1 "give one" "$CKPTCTL" $command a b
    expect 1 "unknown switch" "$CKPTCTL" $command --nonsense a
done
expect 1 "option nonsense is not known" "$CKPTCTL" create -o nonsense "$store"
expect 2 "not on a ckptfs" "$CKPTCTL" status "$work"
expect 2 "not on a ckptfs" "$CKPTCTL" checkpoint "$work"
expect 2 "not on a ckptfs" "$CKPTCTL" check "$work"
expect 2 "not on a ckptfs" "$CKPTCTL" unmount "$work"
expect 2 "$work/nothing: No such file" "$CKPTCTL" status "$work/nothing"

# ---- mounts that cannot be ----------------------------------------------------------------------

expect 2 "acme" "$CKPTFS" -o "$common" "$store" "$mnt"
expect 2 "ckptfs: " "$CKPTFS" -f -o "$common" "$store" "$mnt"
expect 2 "make the directory first" "$CKPTFS" -o "$common,create" "$store" "$work/nothing"
: >"$work/file"
expect 2 "not a directory" "$CKPTFS" -o "$common,create" "$store" "$work/file"
expect 2 "log file $work/nothing/log" "$CKPTFS" -o "root=$work/root,log_file=$work/nothing/log" \
    "$store" "$mnt"
# Each segment of the log is an open file; and nothing of the daemon's memory gets into a core dump.
expect 2 "may open only 600 files" sh -c "ulimit -n 600; exec $CKPTFS -o $common,wal_limit=16G $store $mnt"
is_mounted && fail "a mount is left"
no_daemons || fail "a daemon is left"

expect 0 "" "$CKPTCTL" create -o "root=$work/root" "$store"
expect 2 "acme" "$CKPTCTL" create -o "root=$work/root" "$store"

# ---- a mount ------------------------------------------------------------------------------------

(cd "$work" && expect 0 "" "$CKPTFS" "$store" mnt -o "rw,$common,noauto,user,nofail,_netdev,x-a.b=c")
is_mounted || fail "not mounted when ckptfs is back"
[ "$(cat "/proc/$(daemons)/coredump_filter")" = 00000000 ] || fail "memory gets into core dumps"
[ "$(awk '/Max open files/ { print $4 }' "/proc/$(daemons)/limits")" = "$(ulimit -H -n)" ] ||
    fail "the daemon may open fewer files than it could"
grep -qF "$store $mnt fuse.ckptfs rw," /proc/self/mounts || fail "the mount table: $(cat /proc/self/mounts)"
echo one >"$mnt/file" || fail "write"
expect 2 "ckptfs: " "$CKPTFS" -o "$common" "$store" "$mnt"
[ "$(cat "$mnt/file")" = one ] || fail "the first mount suffers from the second"

expect 0 "source         $store" "$CKPTCTL" status "$mnt"
expect 0 "read-write" "$CKPTCTL" status "$mnt/file"
expect 0 "\"tenant\":\"acme\"" "$CKPTCTL" status --json "$mnt"

# Requests by opcode: one more file is one CREATE and one RELEASE more.
requests() { "$CKPTCTL" status --fuse --json "$mnt" | jq -r ".$1"; }
expect 0 "CREATE " "$CKPTCTL" status --fuse "$mnt"
expect 0 "all " "$CKPTCTL" status --fuse "$mnt/file"
expect 0 "\"STATX\":" "$CKPTCTL" status --json --fuse "$mnt"
created=$(requests CREATE)
released=$(requests RELEASE)
all=$(requests all)
: >"$mnt/counted"
[ "$(requests CREATE)" = $((created + 1)) ] || fail "a new file is not one CREATE"
await_release() { [ "$(requests RELEASE)" = $((released + 1)) ]; }
await await_release
[ "$(requests all)" -ge $((all + 2)) ] || fail "the sum of the requests does not grow"

expect 0 "is published" "$CKPTCTL" checkpoint "$mnt"
expect 0 "is recorded locally" "$CKPTCTL" checkpoint --local "$mnt/file"
expect 0 "ticket" "$CKPTCTL" checkpoint --no-wait "$mnt"
expect 0 "\"published_generation\":" "$CKPTCTL" checkpoint --json "$mnt"
[ -z "$("$CKPTCTL" checkpoint -q "$mnt" 2>&1)" ] || fail "checkpoint -q is not quiet"

# A bit of a name that flips in the manifest while it is open, and flips back.
echo 1 >"$mnt/flipped-name"
expect 0 "is published" "$CKPTCTL" checkpoint "$mnt"
expect 0 "the manifest is whole" "$CKPTCTL" check "$mnt"
expect 0 "\"damaged\":0,\"violations\":0" "$CKPTCTL" check --json "$mnt/file"
[ -z "$("$CKPTCTL" check -q "$mnt" 2>&1)" ] || fail "check -q is not quiet"
manifest=$work/root/manifest/data.mdb
places=$(grep -obUa flipped-name "$manifest" | cut -d: -f1)
[ -n "$places" ] || fail "the manifest does not have the name"
set_name() {
    local place
    for place in $places; do
        printf %s "$1" | dd of="$manifest" bs=1 seek="$place" conv=notrunc status=none
    done
}
set_name flipped-namd
expect 2 "the manifest is damaged" "$CKPTCTL" check "$mnt"
"$CKPTCTL" status --json "$mnt" | grep -q '"manifest_damaged":[1-9]' || fail "the status knows no damage"
grep -q '"event":"manifest.damaged"' "$work/log" || fail "the log does not name the damage"
set_name flipped-name
expect 0 "the manifest is whole" "$CKPTCTL" check "$mnt"
rm "$mnt/flipped-name"

"$helpers/ioctl_check" owner "$mnt" || fail "the ABI on the mountpoint"
"$helpers/ioctl_check" owner "$mnt/file" || fail "the ABI on a file"
"$helpers/ioctl_check" foreign "$work" || fail "the ABI elsewhere"
"$helpers/ioctl_check" storm "$mnt" || fail "interrupted requests"
if [ "$(id -u)" = 0 ]; then
    chmod 755 "$mnt"
    # From a place that anybody may execute.
    cp "$helpers/ioctl_check" "$work/ioctl_check"
    setpriv --reuid 12345 --regid 12345 --clear-groups "$work/ioctl_check" stranger "$mnt" ||
        fail "the ABI for strangers"
    chown 12345 "$mnt"
    setpriv --reuid 12345 --regid 12345 --clear-groups "$work/ioctl_check" owner "$mnt" ||
        fail "the ABI for the owner"
    chown 0 "$mnt"
fi
mkdir "$mnt/cache"
chmod 777 "$mnt/cache"
"$helpers/kernel_cache_check" "$mnt/cache" || fail "the kernel's caches"
end_mount

# ---- other options ------------------------------------------------------------------------------

expect 0 "" "$CKPTFS" -s -o "$common,no_writeback,fsname=a\\,b" "$store" "$mnt"
grep -qF "a,b $mnt fuse.ckptfs" /proc/self/mounts || fail "fsname with a comma"
rm -rf "$mnt/cache"
mkdir "$mnt/cache"
chmod 777 "$mnt/cache"
"$helpers/kernel_cache_check" "$mnt/cache" || fail "the kernel's caches, without write-back"
rm -rf "$mnt/cache"
echo two >"$mnt/file"
end_mount

expect 0 "" "$CKPTFS" -o "$common,ro" "$store" "$mnt"
[ "$(cat "$mnt/file")" = two ] || fail "the file is not what it was"
(echo three >"$mnt/file") 2>/dev/null && fail "a read-only mount was written to"
expect 0 "read-only" "$CKPTCTL" status "$mnt"
end_mount

expect 0 "" "$CKPTFS" -o "$common" "$store" "$mnt"
touch -d 2020-01-02T03:04:05.123456789Z "$mnt/file"
[ "$(date -r "$mnt/file" -u +%FT%T.%N)" = 2020-01-02T03:04:05.123456789 ] || fail "times are cut off"
end_mount
expect 0 "" "$CKPTFS" -o "$common,time_granularity_ms=1000" "$store" "$mnt"
[ "$(date -r "$mnt/file" -u +%FT%T.%N)" = 2020-01-02T03:04:05.123456789 ] || fail "an old time changes"
touch -d 2020-01-02T03:04:05.123456789Z "$mnt/file"
[ "$(date -r "$mnt/file" -u +%FT%T.%N)" = 2020-01-02T03:04:05.000000000 ] || fail "times are not cut off"
end_mount

# ---- how a mount ends ---------------------------------------------------------------------------

"$CKPTFS" -f -o "$common" "$store" "$mnt" 2>"$work/stderr" &
daemon=$!
await is_mounted
await test -e "$mnt/file"
echo signal >"$mnt/file"
kill -TERM $daemon
wait $daemon || fail "SIGTERM: exit code $?"
is_mounted && fail "SIGTERM leaves the mount"
grep -q '"event":"mount.ready"' "$work/stderr" || fail "the log is not on stderr with -f"
grep -qv '^{.*}$' "$work/stderr" && fail "not only JSON on stderr: $(cat "$work/stderr")"

expect 0 "" "$CKPTFS" -o "$common" "$store" "$mnt"
[ "$(cat "$mnt/file")" = signal ] || fail "what was written before SIGTERM is lost"
exec 9>"$mnt/busy"
echo busy >&9
unmount "$mnt" 2>/dev/null && fail "a busy mount was unmounted"
kill -TERM "$(daemons)"
await no_daemons
is_mounted && fail "SIGTERM leaves the busy mount"
exec 9>&-

expect 0 "" "$CKPTFS" -o "$common" "$store" "$mnt"
[ "$(cat "$mnt/busy")" = busy ] || fail "what was written to the busy mount is lost"
echo durable >"$mnt/file"
sync "$mnt/file"
kill -KILL "$(daemons)"
await no_daemons
cat "$mnt/busy" >/dev/null 2>&1
expect 0 "" "$CKPTFS" -o "$common" "$store" "$mnt"
grep -q '"event":"mount.dead_mount_removed"' "$work/log" || fail "the dead mount is not in the log"
[ "$(grep -c " $mnt fuse.ckptfs " /proc/self/mounts)" = 1 ] || fail "the dead mount is still there"
[ "$(cat "$mnt/file")" = durable ] || fail "what was synced before SIGKILL is lost"
end_mount
await is_not_mounted

[ $failures = 0 ] || echo "$failures failures"
[ $failures = 0 ]
