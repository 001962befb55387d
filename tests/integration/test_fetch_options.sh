#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Options of an open file (CKPTFS_IOC_FETCH) from a program to the store, and readers through mmap:
# what the store is asked for, what comes into the local copies, and what stays there.
TEST_TIMEOUT=90
. "$(dirname "$0")/lib.sh"

if [ -n "$TEST_PLAIN" ]; then
    note "a plain directory has no store"
    exit 0
fi

MIB=24
volume_new v file
mnt=${V_MNT[v]}
faults=$WORK/faults

cat >"$WORK/reader" <<'PYTHON'
"""Reads places of a file with an option set, checks them, and tells what it was told."""
import fcntl, mmap, os, struct, sys

FORMAT = "IIII6Q"
FETCH = 3 << 30 | struct.calcsize(FORMAT) << 16 | ord("K") << 8 | 0x31
SET, BYPASS, PIN = 1, 2, 4
HINTS = {"detect": 0, "none": 1, "forward": 2, "backward": 3, "both": 4}


def fetch(fd, flags, hint):
    io = bytearray(struct.pack(FORMAT, 1, flags, hint, 0, *[0] * 6))
    fcntl.ioctl(fd, FETCH, io, True)
    return struct.unpack(FORMAT, io)[1:3]


def refused(fd, flags, hint):
    try:
        fetch(fd, flags, hint)
    except OSError:
        return True
    return False


def main(path, right, how, hint, offset, length, step):
    offset, length, step = int(offset), int(length), int(step)
    fd = os.open(path, os.O_RDONLY | (os.O_DIRECT if how != "mmap" else 0))
    flags = {"bypass": BYPASS, "pin": PIN}.get(how, 0)
    if how == "mmap":
        data = mmap.mmap(fd, 0, prot=mmap.PROT_READ)
        if hint == "random":
            data.madvise(mmap.MADV_RANDOM)
    else:
        assert refused(fd, SET | BYPASS | PIN, 0) and refused(fd, SET, 5) and refused(fd, 64, 0)
        fetch(fd, SET | flags, HINTS[hint])
        assert fetch(fd, 0, 0) == (flags, HINTS[hint])
        data = mmap.mmap(-1, length)
    expected = open(right, "rb")
    places = range(offset, offset + step * 64, step) if step > 0 else [offset]
    for place in places:
        expected.seek(place)
        if how == "mmap":
            got = data[place : place + length]
        else:
            assert os.preadv(fd, [data], place) == length
            got = data[:]
        assert got == expected.read(length), place
    print("read", flush=True)
    sys.stdin.read()


main(*sys.argv[1:])
PYTHON

reader() { # HOW HINT OFFSET LENGTH STEP: step 0: one place, else 64 of them
    python3 "$WORK/reader" "$mnt/data" "$WORK/data" "$@" </dev/null >"$WORK/said" || fail "reader $*"
}
hot() { find "${V_ROOT[v]}/hot_cache" -type f -printf '%f %b\n' | sort; }
gets() { volume_status v .get_requests; }
ahead() { volume_status v .read_bytes_read_ahead; }
has_ahead() { [ "$(ahead)" -ge "$1" ]; }
cold() {
    volume_unmount v
    rm -rf "${V_ROOT[v]}"
    MOUNT_ENVIRONMENT=("CKPTFS_STORE_FAULTS=$faults")
    volume_mount v "checkpoint_interval=0,page_cache=8M,no_hot_set${1:+,$1}"
}

: >"$faults"
volume_mount v create,checkpoint_interval=0
head -c "${MIB}M" /dev/urandom >"$WORK/data"
cp "$WORK/data" "$mnt/data"
volume_checkpoint v -q
cold ""

step "bypass_cache: nothing comes into the local copies"
hot >"$WORK/hot"
reader bypass detect 0 65536 65536
hot | cmp - "$WORK/hot" || fail "the scan changed hot_cache"
assert_equal $((4 << 20)) "$(volume_status v .cold_scan_bytes)" "bytes of the scan"

step "prefetch_hint: none, forward, backward"
before=$(gets)
reader detect none $((8 << 20)) 65536 65536
assert_equal 0 "$(ahead)" "bytes that came ahead of a reader that wants none"
assert_at_least 60 $(($(gets) - before)) "requests for 64 reads"
reader detect forward $((14 << 20)) 65536 0
wait_for 10 "the next MiB" has_ahead 900000
reader detect none $((14 << 20)) 65536 16384
before=$(ahead)
reader detect backward $((20 << 20)) 65536 0
wait_for 10 "the MiB before" has_ahead $((before + 900000))
before=$(gets)
reader detect none $((19 << 20)) 65536 16384
assert_at_most 2 $(($(gets) - before)) "requests for what came before"

step "pin_in_cache: what was read stays while the file is open"
mkfifo "$WORK/open"
python3 "$WORK/reader" "$mnt/data" "$WORK/data" pin none 0 65536 65536 <"$WORK/open" >"$WORK/said" &
pinner=$!
exec 8>"$WORK/open"
wait_for 10 "the reader that pins" grep -q read "$WORK/said"
"$CKPTCTL" evict --all "$mnt" >/dev/null
assert_at_least 8000 "$(hot | awk '{ n += $2 } END { print n + 0 }')" "blocks of pinned copies"
exec 8>&-
wait "$pinner" || fail "the reader that pins"
"$CKPTCTL" evict --all "$mnt" >/dev/null
assert_equal 0 "$(hot | awk '{ n += $2 } END { print n + 0 }')" "blocks of copies"

step "a mapping that is read in order gets windows, one that is not gets pages"
cold ""
before=$(gets)
reader mmap forward 0 65536 65536
reader mmap forward $((4 << 20)) 65536 $((5 << 16))
assert_at_most 40 $(($(gets) - before)) "requests for 24 MiB"
cold ""
reader mmap random $((11 << 20)) 4096 0 # with the indexes
before=$(gets)
reader mmap random $((5 << 20)) 4096 0
assert_equal 1 $(($(gets) - before)) "requests for a page"
assert_equal 0 "$(ahead)" "bytes that came ahead of them"

step "hedge_reads: a late read is sent again"
cold hedge_reads
reader detect none 0 65536 65536
echo "slow 400" >"$faults"
reader detect none $((20 << 20)) 65536 0
: >"$faults"
assert_at_least 1 "$(volume_status v .hedged_reads)" "reads that were sent again"
volume_unmount v
