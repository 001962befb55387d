#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Ten times more readers of cold data than threads serve requests, while the store does not answer:
# everybody else goes on, who reads can be killed, gets an error in time or the data when the store
# is back, and the mount can end under them.
TEST_TIMEOUT=120
. "$(dirname "$0")/lib.sh"

if [ -n "$TEST_PLAIN" ]; then
    note "a plain directory has no store"
    exit 0
fi

READERS=170
COMMITS=200
faults=$WORK/faults
readers=()

is_small() { (($1 % 2)); }

start_readers() { # every fourth without the kernel's cache
    local i flags
    readers=()
    for ((i = 0; i < READERS; i++)); do
        ((i % 4)) && flags=fullblock || flags=direct
        dd if="$mnt/cold-$i" of="$WORK/got-$i" bs=64k iflag=$flags status=none 2>"$WORK/error-$i" &
        readers+=($!)
    done
}

all_wait() { # a reader in its read(2) has opened the file and got nothing
    local i
    for ((i = 0; i < READERS; i++)); do
        has_open "${readers[i]}" 0 "$mnt/cold-$i" || return 1
        [ "$(stat -c %s "$WORK/got-$i" 2>/dev/null)" = 0 ] || return 1
        grep -q "^State:.*[SD]" "/proc/${readers[i]}/status" || return 1
    done
}

has_open() { # PID DESCRIPTOR FILE
    [ "$(readlink "/proc/$1/fd/$2")" = "$3" ]
}

has_ended() { # PID
    ! is_running "$1"
}

still_wait() { # AFTER WHAT
    local i
    for ((i = 0; i < READERS; i++)); do
        is_running "${readers[i]}" || fail "reader $i was done before $1: $(cat "$WORK/error-$i")"
    done
}

cold_mount() { # OPTIONS: nothing is in the storage root
    rm -rf "${V_ROOT[v]}"
    : >"$faults"
    MOUNT_ENVIRONMENT=("CKPTFS_STORE_FAULTS=$faults")
    volume_mount v "checkpoint_interval=0,no_hot_set,$1"
    ls -l "$mnt" >/dev/null
    cat "$mnt/warm" >/dev/null
}

volume_new v file
volume_mount v create,checkpoint_interval=0
mnt=${V_MNT[v]}
for ((i = 0; i < READERS; i++)); do
    is_small $i && bytes=4096 || bytes=200000
    head -c "$bytes" /dev/urandom >"$WORK/cold-$i"
    cp "$WORK/cold-$i" "$mnt/"
done
head -c 200000 /dev/urandom >"$mnt/alone"
need_program setfattr attr
head -c 200000 /dev/urandom >"$mnt/marked"
setfattr -n user.ckptfs.cold_scan -v 1 "$mnt/marked"
echo small >"$mnt/warm"
volume_checkpoint v
volume_unmount v

step "$READERS readers wait for the store"
cold_mount read_deadline=100s
echo "slow 1000000" >"$faults"
start_readers
wait_for 30 "the readers wait" all_wait

step "others go on"
dd if=/dev/zero of="$mnt/file" bs=512 count=$COMMITS oflag=dsync status=none
still_wait "$COMMITS commits"
mkdir "$mnt/directory"
echo more >"$mnt/directory/name"
sync "$mnt/directory/name"
[ "$(find "$mnt" -name 'cold-*' | wc -l)" = "$READERS" ] || fail "the directory does not list all files"
assert_equal small "$(dd if="$mnt/warm" iflag=direct status=none)" "what a warm file says"
seekers=()
for ((i = 0; i < 4; i++)); do
    "$HELPERS/file_tool" seek-data "$mnt/cold-$i" 2>/dev/null &
    seekers+=($!)
    # It sleeps within the file, so it has asked where data is.
    wait_for 10 "a seek that waits" has_open "${seekers[i]}" 3 "$mnt/cold-$i"
done
"$HELPERS/file_tool" seek-data "$mnt/file" || fail "SEEK_DATA in a warm file"
for ((i = 0; i < 4; i++)); do
    is_running "${seekers[i]}" || fail "a seek in a cold file was done"
done
"$CKPTCTL" checkpoint --local "$mnt" >/dev/null || fail "a local checkpoint"
still_wait "the work of others"

step "who waits can be killed"
# A write to a part of a page that is only in the store: the kernel asks for the page, and the
# process waits for the answer.
printf x | dd of="$mnt/alone" bs=1 conv=notrunc status=none &
writer=$!
# Programs in the background of a script ignore an interrupt, unless they are told not to.
env --default-signal=INT dd if="$mnt/marked" of=/dev/null bs=64k status=none &
scanner=$!
wait_for 10 "a write that waits" has_open $writer 1 "$mnt/alone"
wait_for 10 "a scan that waits" has_open $scanner 0 "$mnt/marked"
still_wait "a write to a cold page"
is_running $writer || fail "a write to a cold page was done"
is_running $scanner || fail "a scan was done"
disown $writer $scanner "${readers[1]}"
kill -INT $scanner
wait_for 10 "the end of a scan" has_ended $scanner
kill -KILL $writer "${readers[1]}"
wait_for 10 "the end of a writer" has_ended $writer
wait_for 10 "the end of a reader" has_ended "${readers[1]}"
cp "$WORK/cold-1" "$WORK/got-1"

step "the others get their data when the store answers"
: >"$faults"
for ((i = 0; i < READERS; i++)); do
    ((i == 1)) || wait "${readers[i]}" || fail "reader $i failed: $(cat "$WORK/error-$i")"
    assert_same_file "$WORK/cold-$i" "$WORK/got-$i" "cold-$i"
done
for ((i = 0; i < 4; i++)); do
    wait "${seekers[i]}" || fail "a seek in a cold file failed"
done
volume_unmount v

step "a store that is away is an error in time, for all"
cold_mount read_deadline=1s
echo outage >"$faults"
start_readers
for ((i = 0; i < READERS; i++)); do
    ! wait "${readers[i]}" || fail "reader $i got something"
    grep -q "Input/output error" "$WORK/error-$i" || fail "reader $i: $(cat "$WORK/error-$i")"
done
: >"$faults"
for ((i = 0; i < READERS; i += 10)); do # the error does not stay
    assert_same_file "$WORK/cold-$i" "$mnt/cold-$i" "cold-$i once the store is back"
done
volume_unmount v

write_part() { # dd's arguments: five bytes in the middle of a page
    printf parts | dd of="$mnt/alone" bs=5 seek=2001 conv=notrunc,fsync status=none "$@" &&
        printf parts | dd of="$WORK/alone" bs=5 seek=2001 conv=notrunc status=none
}

# decisions/0005: the kernel's cache cannot take in such a write without the page's old bytes. Who
# goes past it needs none.
step "a part of a page that is only in the store, while the store is away"
cold_mount read_deadline=1s
cp "$mnt/alone" "$WORK/alone"
volume_unmount v
for way in writeback no_writeback; do
    cold_mount "read_deadline=1s,$way"
    echo outage >"$faults"
    case $way in
        writeback) write_part oflag=direct ;;
        no_writeback) write_part ;;
    esac
    if [ $way = writeback ]; then
        ! write_part 2>"$WORK/error" || fail "the kernel did without the page's old bytes"
        grep -q "Input/output error" "$WORK/error" || fail "$(cat "$WORK/error")"
    fi
    : >"$faults"
    assert_same_file "$WORK/alone" "$mnt/alone" "what was written past the cache ($way)"
    volume_checkpoint v
    volume_unmount v
    cold_mount ""
    assert_same_file "$WORK/alone" "$mnt/alone" "the same from the store ($way)"
    volume_unmount v
done

step "the daemon ends while they wait"
cold_mount read_deadline=1000s,unmount_timeout=1s
echo "slow 1000000" >"$faults"
start_readers
wait_for 30 "the readers wait" all_wait
echo "written last" >"$mnt/last"
kill -TERM "${V_PID[v]}"
wait_for 30 "the end of the daemon" volume_is_gone v
wait "${V_JOB[v]}" || note "not everything is published: exit status $?"
V_PID[v]=""
for ((i = 0; i < READERS; i++)); do
    ! wait "${readers[i]}" || fail "reader $i got something"
done
volume_mount v
assert_equal "written last" "$(cat "$mnt/last")" "what was written while they waited"
volume_unmount v
