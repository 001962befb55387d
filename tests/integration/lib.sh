# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# What every integration and crash test stands on. A test is a program of its own:
#
#     TEST_TIMEOUT=120            # seconds, for the whole test
#     TEST_NEEDS_S3=1             # optional: run under tests/with-s3
#     . "$(dirname "$0")/lib.sh"
#
# Sourcing starts the test a second time as a child in a session of its own; the first process only
# watches it: it enforces the timeout, and when the child has ended, however that came about, it
# ends what is left of its session, unmounts what is left below the work directory and removes it.
# Exit status: 0 passed, anything else failed. Nothing is skipped: what is missing is a failure.
#
# From the environment (make check sets them): CKPTFS, CKPTCTL (programs), TEST_TOP_SRCDIR,
# TEST_TOP_BUILDDIR. CKPTFS_TEST_DIR: where work directories go (a real disk; default /var/tmp).
# CKPTFS_TEST_KEEP=1 keeps the work directory. CKPTFS_TEST_LONG=1: the long variants.
# TEST_PLAIN=1 puts a plain directory in the place of each mount, to debug the tests themselves.

set -euo pipefail
export LC_ALL=C

TEST_NAME=$(basename "$0" .sh)
TEST_TIMEOUT=${TEST_TIMEOUT:-120}
TEST_HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
TEST_TOP_SRCDIR=${TEST_TOP_SRCDIR:-$(cd "$TEST_HERE/../.." && pwd)}
TEST_TOP_BUILDDIR=${TEST_TOP_BUILDDIR:-$TEST_TOP_SRCDIR}
CKPTFS=${CKPTFS:-$TEST_TOP_BUILDDIR/ckptfs}
CKPTCTL=${CKPTCTL:-$TEST_TOP_BUILDDIR/ckptctl}
HELPERS=$TEST_TOP_BUILDDIR/tests/integration
TEST_PLAIN=${TEST_PLAIN:-}
CKPTFS_TEST_LONG=${CKPTFS_TEST_LONG:-}
export TEST_TOP_SRCDIR TEST_TOP_BUILDDIR CKPTFS CKPTCTL TEST_PLAIN CKPTFS_TEST_LONG
PATH=$PATH:/usr/sbin:/sbin

# ---- the watching process -----------------------------------------------------------------------

# "pid starttime" of a live process: the start time tells a process from a later one of its number.
process_stamp() {
    local stat
    stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
    stat=${stat##*) }
    # shellcheck disable=SC2086
    set -- "$1" $stat
    [ "$2" != Z ] || return 1
    echo "$1 ${21}"
}

is_running() { # PID
    [ -n "$(process_stamp "$1")" ]
}

session_members() { # SESSION
    local stat pid rest
    for stat in /proc/[0-9]*/stat; do
        rest=$(cat "$stat" 2>/dev/null) || continue
        pid=${stat#/proc/}
        rest=${rest##*) }
        # shellcheck disable=SC2086
        set -- "$1" $rest
        if [ "$5" = "$1" ] && [ "$2" != Z ]; then
            echo "${pid%/stat}"
        fi
    done
}

mounts_below() { # DIRECTORY, the innermost first
    awk -v below="$1/" 'index($5 "/", below) == 1 { print $5 }' /proc/self/mountinfo | tac
}

watch_sweep() { # SESSION WORK
    local pid stamp mount
    for pid in $(session_members "$1"); do
        kill -KILL "$pid" 2>/dev/null || :
    done
    # What left the session (database servers do) was written down when it was started.
    if [ -f "$2/pids" ]; then
        while read -r pid stamp; do
            if [ "$(process_stamp "$pid")" = "$pid $stamp" ]; then
                kill -KILL "$pid" 2>/dev/null || :
            fi
        done <"$2/pids"
    fi
    for mount in $(mounts_below "$2"); do
        umount "$mount" 2>/dev/null || fusermount3 -u -q "$mount" 2>/dev/null ||
            umount -l "$mount" 2>/dev/null || fusermount3 -u -q -z "$mount" 2>/dev/null || :
    done
    if [ -f "$2/remove" ]; then
        while read -r mount; do
            rm -rf -- "$mount"
        done <"$2/remove"
    fi
    if [ -n "$(mounts_below "$2")" ]; then
        echo "$TEST_NAME: still mounted: $(mounts_below "$2")" >&2
    elif [ -n "${CKPTFS_TEST_KEEP:-}" ]; then
        echo "$TEST_NAME: kept $2"
    else
        rm -rf -- "$2"
    fi
}

watch_diagnose() { # SESSION
    local pid
    echo "--- what was running:"
    for pid in $(session_members "$1"); do
        echo "$pid $(tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | cut -c1-150)" \
            "[$(cat "/proc/$pid/wchan" 2>/dev/null)]"
    done
}

watch() { # the script's arguments
    local base=${CKPTFS_TEST_DIR:-/var/tmp} work inner status=0 end timed_out=
    case $(stat -f -c %T "$base") in
        tmpfs | ramfs) base=$(pwd) ;;
    esac
    work=$(mktemp -d "$base/ckptfs-$TEST_NAME.XXXXXX")
    chmod 755 "$work"
    CKPTFS_TEST_WORK=$work setsid bash "$0" "$@" </dev/null &
    inner=$!
    # shellcheck disable=SC2064
    trap "kill -TERM $inner 2>/dev/null || :; (sleep 20; kill -KILL $inner) 2>/dev/null &" INT TERM HUP
    end=$((SECONDS + TEST_TIMEOUT))
    (
        # A clock in a process of its own, so that wait stays interruptible.
        while [ $SECONDS -lt $end ] && kill -0 "$inner" 2>/dev/null; do
            sleep 0.5
        done
        kill -0 "$inner" 2>/dev/null || exit 0
        echo "$TEST_NAME: FAILED: not done after $TEST_TIMEOUT s"
        watch_diagnose "$inner"
        : >"$work/timed_out"
        tail -n 30 "$work"/*.log 2>/dev/null || :
        kill -KILL "$inner" 2>/dev/null
    ) &
    local clock=$!
    while :; do
        wait "$inner" && status=0 || status=$?
        kill -0 "$inner" 2>/dev/null || break
    done
    trap '' INT TERM HUP
    [ ! -e "$work/timed_out" ] || timed_out=1
    kill "$clock" 2>/dev/null || :
    wait "$clock" 2>/dev/null || :
    watch_sweep "$inner" "$work"
    [ -z "$timed_out" ] || exit 1
    [ "$status" -ne 77 ] || status=1
    exit "$status"
}

if [ -z "${CKPTFS_TEST_WORK:-}" ]; then
    if [ -n "${TEST_NEEDS_S3:-}" ] && [ -z "${CKPT_TEST_S3_ENDPOINT:-}" ] && [ -z "$TEST_PLAIN" ]; then
        exec "$TEST_TOP_SRCDIR/tests/with-s3" "$0" "$@"
    fi
    watch "$@"
fi

# ---- the test itself ----------------------------------------------------------------------------

WORK=$CKPTFS_TEST_WORK
cd "$WORK"
ulimit -c unlimited 2>/dev/null || :
TEST_STARTED_MS=$(date +%s%3N)
CURRENT_STEP="the beginning"

now_ms() { date +%s%3N; }

step() { # TEXT...: what happens next
    local ms=$(($(now_ms) - TEST_STARTED_MS))
    CURRENT_STEP="$*"
    printf '[%4d.%01d s] %s\n' $((ms / 1000)) $((ms % 1000 / 100)) "$*"
}

note() { printf '           %s\n' "$*"; }

fail() { # TEXT...
    trap - ERR
    local i
    echo "$TEST_NAME: FAILED: $*"
    echo "    in the step: $CURRENT_STEP"
    for ((i = 1; i < ${#FUNCNAME[@]}; i++)); do
        [ "${FUNCNAME[i]}" = main ] || echo "    ${FUNCNAME[i]} called at ${BASH_SOURCE[i + 1]##*/}:${BASH_LINENO[i]}"
    done
    exit 1
}

# A failure after which the test can go on to see more: it fails in the end.
COMPLAINTS=0
complain() { # TEXT...
    COMPLAINTS=$((COMPLAINTS + 1))
    echo "$TEST_NAME: FAILED: $*"
}

assert_equal() { # EXPECTED ACTUAL WHAT
    [ "$1" = "$2" ] || fail "$3: expected '$1', found '$2'"
}

assert_at_most() { # LIMIT ACTUAL WHAT
    [ "$2" -le "$1" ] || fail "$3: $2, allowed are at most $1"
}

assert_at_least() { # LIMIT ACTUAL WHAT
    [ "$2" -ge "$1" ] || fail "$3: $2, expected at least $1"
}

assert_same_file() { # EXPECTED ACTUAL WHAT
    cmp -s "$1" "$2" || {
        diff "$1" "$2" | head -n 15 || :
        fail "$3: $1 and $2 differ"
    }
}

wait_for() { # SECONDS WHAT COMMAND...: until the command succeeds
    local end=$(($(now_ms) + $1 * 1000)) what=$2
    shift 2
    until "$@"; do
        [ "$(now_ms)" -lt "$end" ] || fail "waited in vain for: $what"
        sleep 0.05
    done
}

need_program() { # PROGRAM PACKAGE
    command -v "$1" >/dev/null || fail "$1 is missing; install the package $2"
}

need_helper() { # NAME [FOLDER]: a C program of the test suite
    local path=$TEST_TOP_BUILDDIR/tests/${2:-integration}/$1
    [ -x "$path" ] || fail "$path was not built: configure did not find its library (libsqlite3-dev, librocksdb-dev)"
}

# Starts a program that may die by a signal as a background job: SPAWN_PID is the program, SPAWN_JOB
# the job to wait for, whose exit status is the program's. The shell between the two keeps this one
# from reporting each such death. The output is appended to OUT.
spawn() { # OUT COMMAND...
    local out=$1
    shift
    rm -f "$WORK/spawn.pid"
    # shellcheck disable=SC2016 # for the shell between
    sh -c '"$@" & echo $! >"$0.new"; mv "$0.new" "$0"; wait $!' "$WORK/spawn.pid" "$@" \
        >>"$out" 2>&1 </dev/null &
    SPAWN_JOB=$!
    wait_for 10 "the start of $1" test -s "$WORK/spawn.pid"
    SPAWN_PID=$(cat "$WORK/spawn.pid")
    remember_process "$SPAWN_PID"
}

# Writes a process down for the watching process, in case it leaves the session.
remember_process() { process_stamp "$1" >>"$WORK/pids" || :; }
remember_directory() { echo "$1" >>"$WORK/remove"; }

show_core() {
    local core
    for core in "$WORK"/core*; do
        [ -f "$core" ] || continue
        echo "--- $core"
        if command -v gdb >/dev/null; then
            gdb -batch -ex 'thread apply all bt 25' "$CKPTFS" "$core" 2>/dev/null |
                grep -v '^\[New' | head -n 120 || :
        fi
    done
}

test_ended() {
    local status=$1 name log
    trap - EXIT ERR
    set +e
    [ "$COMPLAINTS" -eq 0 ] || status=1
    if [ "$status" -ne 0 ]; then
        show_core
        # A daemon's log lines are in its .out as well.
        for log in "$WORK"/*.log "$WORK"/*.out; do
            [ -s "$log" ] || continue
            grep -v '^{"time"' "$log" >"$WORK/plain.text"
            [ "${log##*.}" = out ] || cp "$log" "$WORK/plain.text"
            [ -s "$WORK/plain.text" ] || continue
            echo "--- the end of ${log##*/}"
            tail -n 15 "$WORK/plain.text" | cut -c1-500
        done
    fi
    for name in "${!V_PID[@]}"; do
        if [ -n "${V_PID[$name]}" ] && is_running "${V_PID[$name]}"; then
            kill -TERM "${V_PID[$name]}" 2>/dev/null
        fi
    done
    if [ "$status" -eq 0 ]; then
        echo "$TEST_NAME: passed in $((($(now_ms) - TEST_STARTED_MS) / 1000)) s"
    fi
    exit "$status"
}

trap 'test_ended $?' EXIT
trap 'exit 1' INT TERM HUP
trap 'fail "the command \"$BASH_COMMAND\" ended with $?"' ERR
set -E

# ---- volumes ------------------------------------------------------------------------------------
# A volume handle is a name. Two handles may share a source: two storage roots of one volume.

declare -A V_SOURCE V_STORE V_ROOT V_MNT V_LOG V_PID V_JOB V_OPTIONS V_DIRECTORY
MOUNT_ENVIRONMENT=() # NAME=VALUE words for the next daemon only

if [ -z "$TEST_PLAIN" ]; then
    [ -c /dev/fuse ] || fail "there is no /dev/fuse: this machine cannot mount FUSE file systems"
    [ -x "$CKPTFS" ] || fail "$CKPTFS is not there: build first"
    [ -x "$CKPTCTL" ] || fail "$CKPTCTL is not there: build first"
fi

s3_curl() { # METHOD PATH [curl arguments]
    local method=$1 path=$2
    shift 2
    printf 'user = "%s:%s"\n' "$CKPT_TEST_S3_ACCESS_KEY" "$CKPT_TEST_S3_SECRET_KEY" |
        curl -sS -f -m 30 --noproxy '*' -K - --aws-sigv4 "aws:amz:$CKPT_TEST_S3_REGION:s3" \
            -H 'x-amz-content-sha256: UNSIGNED-PAYLOAD' -X "$method" "$@" \
            "$CKPT_TEST_S3_ENDPOINT/$path"
}

# Makes a handle for a volume that does not exist yet. STORE: file or s3.
volume_new() { # NAME STORE [OPTIONS for every mount]
    local name=$1 store=$2 bucket
    V_STORE[$name]=$store
    V_OPTIONS[$name]=${3:-}
    V_ROOT[$name]=$WORK/$name.root
    V_MNT[$name]=$WORK/$name.mnt
    V_LOG[$name]=$WORK/$name.log
    V_PID["$name"]=""
    V_DIRECTORY["$name"]=""
    mkdir -p "${V_MNT[$name]}"
    : >"${V_LOG[$name]}"
    case $store in
        file)
            V_DIRECTORY[$name]=$WORK/$name.store
            mkdir -p "${V_DIRECTORY[$name]}"
            V_SOURCE[$name]=file://$WORK/$name.store/tenant
            ;;
        s3)
            bucket=t$(printf '%s' "$name" | tr -c 'a-z0-9' -)-$$-$RANDOM$RANDOM
            [ -n "$TEST_PLAIN" ] || s3_curl PUT "$bucket" >/dev/null
            V_SOURCE[$name]=s3://$bucket/prefix/tenant
            V_OPTIONS[$name]=endpoint=${CKPT_TEST_S3_ENDPOINT:-},region=${CKPT_TEST_S3_REGION:-}${3:+,$3}
            ;;
        *) fail "volume_new: no store $store" ;;
    esac
}

# Another handle for the same volume, with a storage root and a mount point of its own.
volume_other_root() { # NEW NAME
    V_STORE[$1]=${V_STORE[$2]}
    V_SOURCE[$1]=${V_SOURCE[$2]}
    V_OPTIONS[$1]=${V_OPTIONS[$2]}
    V_DIRECTORY[$1]=${V_DIRECTORY[$2]}
    V_ROOT[$1]=$WORK/$1.root
    V_MNT[$1]=$WORK/$1.mnt
    V_LOG[$1]=$WORK/$1.log
    V_PID["$1"]=""
    mkdir -p "${V_MNT[$1]}"
    : >"${V_LOG[$1]}"
}

is_mounted() { # NAME
    grep -q " ${V_MNT[$1]} " /proc/self/mountinfo
}

join_options() { # all non-empty arguments, with commas
    local all="" one
    for one in "$@"; do
        [ -z "$one" ] || all=$all${all:+,}$one
    done
    echo "$all"
}

# Starts the daemon in the foreground of a background job: V_PID is the daemon, V_JOB the job, whose
# exit status is the daemon's.
volume_start() { # NAME [OPTIONS]
    local name=$1 options
    options=$(join_options "root=${V_ROOT[$name]},log_file=${V_LOG[$name]},core_dumps" "${V_OPTIONS[$name]}" "${2:-}")
    mkdir -p "${V_ROOT[$name]}"
    : >"$WORK/$name.out"
    if [[ " ${MOUNT_ENVIRONMENT[*]}" == *" CKPTFS_"* ]]; then
        grep -q CKPTFS_STORE_FAULTS "$CKPTFS" ||
            fail "this needs a build with fault hooks: configure --enable-fault-hooks"
    fi
    spawn "$WORK/$name.out" env "${MOUNT_ENVIRONMENT[@]}" "$CKPTFS" -f -o "$options" \
        "${V_SOURCE[$name]}" "${V_MNT[$name]}"
    V_JOB[$name]=$SPAWN_JOB
    V_PID[$name]=$SPAWN_PID
    MOUNT_ENVIRONMENT=()
}

volume_is_up_or_dead() { # NAME
    is_mounted "$1" || ! is_running "${V_PID[$1]}"
}

volume_mount() { # NAME [OPTIONS]
    local name=$1 status
    if [ -n "$TEST_PLAIN" ]; then
        MOUNT_ENVIRONMENT=()
        sleep 1000 &
        V_PID[$name]=$!
        V_JOB[$name]=$!
        mkdir -p "${V_ROOT[$name]}"
        return 0
    fi
    volume_start "$@"
    wait_for 60 "the mount of ${V_SOURCE[$name]}" volume_is_up_or_dead "$name"
    if ! is_mounted "$name"; then
        status=0
        wait "${V_JOB[$name]}" || status=$?
        cat "$WORK/$name.out"
        fail "the daemon of ${V_SOURCE[$name]} ended with $status before it had mounted"
    fi
    timeout 30 stat "${V_MNT[$name]}" >/dev/null || fail "${V_MNT[$name]} is mounted but does not answer"
}

# A mount that must not come about: a clear message and an exit status, not a signal.
volume_mount_refused() { # NAME OPTIONS REGEX
    local name=$1 status=0
    [ -z "$TEST_PLAIN" ] || return 0
    volume_start "$name" "$2"
    wait_for 100 "the daemon's refusal" volume_is_up_or_dead "$name"
    if is_mounted "$name"; then
        fail "a mount with '$2' was to be refused and was not"
    fi
    wait "${V_JOB[$name]}" || status=$?
    V_PID["$name"]=""
    [ "$status" -ne 0 ] || fail "the refused mount ended with exit status 0"
    [ "$status" -lt 126 ] || fail "the refused mount ended with status $status: a signal or no program"
    grep -qiE -- "$3" "$WORK/$name.out" || {
        cat "$WORK/$name.out"
        fail "the refusal does not say what was expected: $3"
    }
    note "refused: $(grep -iE -m 1 -- "$3" "$WORK/$name.out" | cut -c1-300)"
}

volume_assert_alive() { # NAME
    [ -n "$TEST_PLAIN" ] && return 0
    is_running "${V_PID[$1]}" || {
        local status=0
        wait "${V_JOB[$1]}" || status=$?
        fail "the daemon of $1 is gone, exit status $status"
    }
}

volume_is_gone() { ! is_running "${V_PID[$1]}"; } # NAME

volume_detach() { # NAME: takes away what a dead daemon left
    if is_mounted "$1"; then
        umount -l "${V_MNT[$1]}" 2>/dev/null || fusermount3 -u -q -z "${V_MNT[$1]}" || :
        ! is_mounted "$1" || fail "cannot unmount ${V_MNT[$1]}"
    fi
}

volume_kill9() { # NAME
    volume_assert_alive "$1"
    kill -KILL "${V_PID[$1]}"
    wait "${V_JOB[$1]}" 2>/dev/null || :
    V_PID["$1"]=""
    [ -n "$TEST_PLAIN" ] || volume_detach "$1"
}

# Waits for a daemon that was told to crash.
volume_crashed() { # NAME SECONDS WHAT
    local status=0
    if [ -n "$TEST_PLAIN" ]; then
        volume_kill9 "$1"
        return 0
    fi
    wait_for "$2" "$3" volume_is_gone "$1"
    wait "${V_JOB[$1]}" || status=$?
    V_PID["$1"]=""
    volume_detach "$1"
    [ "$status" -eq 137 ] || fail "$3: the daemon ended with $status, not by SIGKILL"
}

volume_unmount_once() { # NAME
    is_mounted "$1" || return 0
    umount "${V_MNT[$1]}" 2>"$WORK/umount.out"
}

volume_unmount() { # NAME: cleanly; the daemon must end with 0
    local name=$1 status=0
    if [ -n "$TEST_PLAIN" ]; then
        volume_kill9 "$name"
        return 0
    fi
    volume_assert_alive "$name"
    wait_for 20 "umount ${V_MNT[$name]} ($(cat "$WORK/umount.out" 2>/dev/null))" volume_unmount_once "$name"
    wait_for 90 "the end of the daemon after umount" volume_is_gone "$name"
    wait "${V_JOB[$name]}" || status=$?
    V_PID["$name"]=""
    [ "$status" -eq 0 ] || fail "the daemon ended with $status after a clean unmount"
}

volume_status() { # NAME JQ-FILTER
    if [ -n "$TEST_PLAIN" ]; then
        echo 0
        return 0
    fi
    timeout 30 "$CKPTCTL" status --json "${V_MNT[$1]}" | jq -r "$2"
}

volume_checkpoint() { # NAME [ckptctl options]
    local name=$1
    shift
    [ -z "$TEST_PLAIN" ] || return 0
    timeout 120 "$CKPTCTL" checkpoint "$@" "${V_MNT[$name]}" >"$WORK/checkpoint.txt" 2>&1 || {
        cat "$WORK/checkpoint.txt"
        fail "ckptctl checkpoint failed"
    }
}

volume_is_published() { # NAME
    [ "$(volume_status "$1" 'if .oldest_unpublished_ms == 0 then 1 else 0 end')" = 1 ]
}

volume_logged() { # NAME EVENT
    grep -q "\"event\": *\"$2\"" "${V_LOG[$1]}"
}

# Bytes that files below a directory take on disk.
disk_bytes() { # DIRECTORY
    { du -s --block-size=1 "$1" 2>/dev/null || :; } | awk '{ bytes = $1 } END { printf "%.0f\n", bytes }'
}

# Everything one can see of a tree, as text: one line an object.
tree_digest() { # DIRECTORY
    "$HELPERS/file_tool" digest "$1"
}

resident_kib() { # PID
    awk '/^VmRSS:/ { print $2 }' "/proc/$1/status"
}

# Without the pages of mapped files (LMDB's), which the kernel takes back when it wants to.
own_memory_kib() { # PID
    awk '/^Rss(Anon|Shmem):/ { kib += $2 } END { print kib + 0 }' "/proc/$1/status"
}

drop_kernel_caches() {
    sync
    echo 3 >/proc/sys/vm/drop_caches 2>/dev/null || note "cannot drop the kernel's caches here"
}
