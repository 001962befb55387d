#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Snapshots and generations as read-only trees below .ckptfs of the mount: what is in them, that
# nobody changes them, what they cost, and what becomes of them when the snapshot is dropped, the
# daemon is killed, or the store does not answer. With an S3 server (tests/with-s3) on it, too.
TEST_TIMEOUT=120
. "$(dirname "$0")/lib.sh"
. "$TEST_HERE/retention.sh"

# The pins of readers in the bucket.
reader_pins() { store_keys "$1" | grep -c '^pins/.*-reader-' || :; }

no_reader_pins() { [ "$(reader_pins "$1")" -eq 0 ]; }

refused() { # REGEX COMMAND...
    ! "${@:2}" >"$WORK/out" 2>"$WORK/error" || fail "'${*:2}' was to be refused"
    grep -qE "$1" "$WORK/error" || fail "'${*:2}' says: $(cat "$WORK/error")"
}

names_in() { (cd "$1" && printf '%s\n' * | { grep -vx '\*' || :; } | paste -sd' '); }

tree() { (cd "$1" && find . -printf '%p %y %m %U %G %s %n %l %T@\n' | sort && find . -type f -print0 | sort -z | xargs -0 sha256sum); }

make_yesterday() { # DIRECTORY
    mkdir -p "$1/d/e"
    head -c 300000 /dev/urandom >"$1/d/data"
    ln "$1/d/data" "$1/d/e/link"
    ln -s ../d/data "$1/d/symbolic"
    truncate -s 8M "$1/d/sparse"
    printf x | dd of="$1/d/sparse" bs=1 seek=5000000 conv=notrunc status=none
    setfattr -n user.colour -v blue "$1/d/data"
    chmod 640 "$1/d/data"
    mkfifo "$1/d/fifo"
    echo text >"$1/text"
    cp "$(command -v sha256sum)" "$1/d/program"
    printf '#!/bin/sh\necho "yesterday: $*"\n' >"$1/d/script"
    chmod 755 "$1/d/program" "$1/d/script"
    printf '#!/bin/sh\necho not to be run\n' >"$1/d/no-script"
}

what_is_there() { # STORE
    local name=tree$1 mnt snap g1
    step "$1: a snapshot below .ckptfs is the volume as it was"
    volume_new "$name" "$1"
    volume_mount "$name" create,checkpoint_interval=0
    mnt=${V_MNT[$name]}
    make_yesterday "$mnt"
    tree "$mnt" >yesterday
    ctl snapshot create yesterday "$mnt"
    g1=$("$CKPTCTL" snapshot show yesterday "$mnt" | jq .generation)
    rm -r "$mnt/d"
    echo new >"$mnt/text"
    ctl checkpoint "$mnt"
    ctl snapshot create today "$mnt"

    [[ "$(ls -A "$mnt")" != *.ckptfs* ]] || fail "the root directory lists .ckptfs"
    assert_equal "generations snapshots" "$(names_in "$mnt/.ckptfs")" ".ckptfs"
    assert_equal "today yesterday" "$(names_in "$mnt/.ckptfs/snapshots")" "the snapshots"
    ls -la "$mnt/.ckptfs/snapshots" "$mnt/.ckptfs/generations" >/dev/null
    stat "$mnt/.ckptfs/snapshots/yesterday" >/dev/null
    assert_equal 0 "$(reader_pins "$name")" "pins before anything was read"
    snap=$mnt/.ckptfs/snapshots/yesterday
    tree "$snap" >found
    sed -i 1d found
    sed 1d yesterday >wanted
    assert_same_file wanted found "the tree of the snapshot"
    assert_equal 1 "$(reader_pins "$name")" "pins of the open generation"
    assert_equal "$(tree "$snap" | tail -n +2 | md5sum)" "$(tree "$mnt/.ckptfs/generations/$g1" | tail -n +2 | md5sum)" "the generation by its number"
    assert_equal new "$(cat "$mnt/.ckptfs/snapshots/today/text")" "the other snapshot"
    assert_equal blue "$(getfattr --absolute-names --only-values -n user.colour "$snap/d/data")" "an extended attribute"
    getfattr -d "$snap/d/data" 2>/dev/null | grep -q user.colour || fail "attributes are not listed"
    stat -f "$snap" >/dev/null
    [ "$(stat -c %i "$snap/text")" != "$(stat -c %i "$mnt/text")" ] || fail "inode numbers are the same"
    [ "$(stat -c %i "$snap/text")" != "$(stat -c %i "$mnt/.ckptfs/snapshots/today/text")" ] || fail "inode numbers are the same"
    python3 - "$snap/d" <<'PYTHON' || fail "mmap or seek fail"
import mmap, os, sys
d = sys.argv[1]
f = os.open(d + "/data", os.O_RDONLY)
assert mmap.mmap(f, 0, prot=mmap.PROT_READ)[:] == open(d + "/data", "rb").read()
s = os.open(d + "/sparse", os.O_RDONLY)
at = os.lseek(s, 0, os.SEEK_DATA)
assert 0 < at <= 5000000, at
assert os.lseek(s, at, os.SEEK_HOLE) > 5000000
PYTHON
    step "$1: programs are run out of a snapshot"
    assert_equal "$(sha256sum <"$snap/text")" "$("$snap/d/program" <"$snap/text")" "what a program of yesterday says"
    assert_equal "yesterday: a b" "$("$snap/d/script" a b)" "what a script of yesterday says"
    assert_equal "yesterday: c" "$(cd "$snap/d" && ./script c)" "what it says below its directory"
    refused 'Permission denied' "$snap/d/no-script"
    # A file that is mapped keeps its generation open, without a descriptor.
    python3 - "$snap/d/data" <<'PYTHON' || fail "a mapped file of a snapshot has other bytes later"
import mmap, os, sys
f = os.open(sys.argv[1], os.O_RDONLY)
m = mmap.mmap(f, 0, prot=mmap.PROT_READ)
os.close(f)
first = m[:]
m.madvise(mmap.MADV_DONTNEED)
assert len(first) == 300000 and m[:] == first
PYTHON

    step "$1: a file of yesterday is copied back"
    cp -a "$snap/d/data" "$mnt/back"
    assert_same_file "$snap/d/data" "$mnt/back" "the file that was copied back"
    cp --preserve=mode "$snap/d/program" "$mnt/program"
    assert_equal "$(sha256sum <"$snap/text")" "$("$mnt/program" <"$snap/text")" "what the program that was copied back says"
    assert_equal "$(stat -c '%a %Y' "$snap/d/data")" "$(stat -c '%a %Y' "$mnt/back")" "its mode and time"
    assert_equal blue "$(getfattr --absolute-names --only-values -n user.colour "$mnt/back")" "its attribute"

    step "$1: nobody changes a snapshot"
    refused 'Read-only' sh -c "echo x >'$snap/new'"
    refused 'Read-only' sh -c "echo x >>'$snap/text'"
    refused 'Read-only' mkdir "$snap/new"
    refused 'Read-only' mkdir "$mnt/.ckptfs/new"
    refused 'Read-only' rm "$snap/text"
    refused 'Read-only' rmdir "$snap/d/e"
    refused 'Read-only' rmdir "$mnt/.ckptfs/snapshots/today"
    refused 'Read-only' rmdir "$mnt/.ckptfs"
    refused 'Read-only' mv "$snap/text" "$snap/other"
    refused 'Read-only' mv "$mnt/text" "$snap/text2"
    refused 'Read-only' mv "$mnt/.ckptfs" "$mnt/other"
    refused 'Read-only' ln "$snap/text" "$snap/text2"
    refused 'cross-device' ln "$snap/text" "$mnt/text2"
    refused 'Read-only' ln -s x "$snap/text2"
    refused 'Read-only' chmod 600 "$snap/text"
    refused 'Read-only' truncate -s 0 "$snap/text"
    refused 'Read-only' touch "$snap/text"
    refused 'Read-only' mkfifo "$snap/f"
    refused 'Read-only' setfattr -n user.colour -v red "$snap/text"
    refused 'Read-only' chattr +i "$snap/text"
    lsattr "$snap/text" >/dev/null || fail "lsattr fails"
    refused 'read-only' "$CKPTCTL" truncate --tail 0 "$snap/text"
    refused 'No such file' cat "$mnt/.ckptfs/snapshots/none/text"
    refused 'No such file' cat "$mnt/.ckptfs/generations/0$g1/text"
    refused 'No such file' cat "$mnt/.ckptfs/generations/99999/text"

    step "$1: programs that walk over the volume do not see it"
    find "$mnt" >seen
    du -a "$mnt" >>seen
    tar -C "$mnt" -cf - . | tar -t >>seen
    ! grep -q ckptfs/ seen || fail "they see: $(grep ckptfs/ seen | head -n 3)"
    rm -rf "${mnt:?}"/*
    assert_equal text "$(cat "$snap/text")" "the snapshot after rm -rf *"
    volume_unmount "$name"
    no_reader_pins "$name" || fail "pins stay behind"
    assert_equal 0 "$(names_in "${V_ROOT[$name]}/views" | wc -w)" "directories of views"
    volume_mount "$name" ro
    assert_equal text "$(cat "$snap/text")" "the snapshot in a read-only mount"
    refused 'Read-only' sh -c "echo x >'$snap/new'"
    volume_unmount "$name"
}


# Opens a file in a process that keeps it open: fd 9.
hold() { exec 9<"$1"; }
let_go() { exec 9<&-; }

dropped_under_a_reader() {
    local mnt
    step "a snapshot is dropped, and its generation collected, beside a reader"
    volume_new drop file
    volume_mount drop create,checkpoint_interval=0
    mnt=${V_MNT[drop]}
    ctl retention --set last=1,grace=0s "$mnt"
    publish_round drop one >/dev/null
    sha256sum <"$mnt/bulk" >first
    ctl snapshot create first "$mnt"
    publish_round drop two >/dev/null
    hold "$mnt/.ckptfs/snapshots/first/bulk"
    ctl snapshot drop first "$mnt"
    ctl gc "$mnt"
    ctl gc --sweep "$mnt"
    assert_equal "" "$(ls "$mnt/.ckptfs/snapshots")" "the snapshots after the drop"
    refused 'No such file' cat "$mnt/.ckptfs/snapshots/first/text"
    sha256sum <&9 >second
    assert_same_file first second "the file that a reader had open while its snapshot was dropped"
    let_go
    volume_unmount drop

    step "the next collection after the last reader takes it"
    volume_mount drop checkpoint_interval=0
    publish_round drop three >/dev/null
    wait_for 20 "one generation that is left" collected_to 1
    assert_equal 1 "$(names_in "$mnt/.ckptfs/generations" | wc -w)" "generations in the tree"

    step "a directory whose generation went while it was closed is stale"
    publish_round drop four >/dev/null
    ctl snapshot create old "$mnt"
    hold "$mnt/.ckptfs/snapshots/old" # the directory
    cat /proc/self/fd/9/text >/dev/null
    for i in 1 2 3 4; do # their trees close that of the snapshot, which has no open file
        publish_round drop "more $i" >/dev/null
        ctl snapshot create "more$i" "$mnt"
        assert_equal "more $i" "$(cat "$mnt/.ckptfs/snapshots/more$i/text")" "snapshot more$i"
    done
    assert_equal 4 "$(reader_pins drop)" "pins when five generations were read"
    ctl snapshot drop old "$mnt"
    wait_for 20 "four generations that are left" collected_to 4
    refused 'Stale|No such file' cat /proc/self/fd/9/bulk
    let_go
    grep -q '"event":"snapshot.open_failed"' "${V_LOG[drop]}" || fail "the log does not tell of the stale generation"
    volume_unmount drop
}

collected_to() { # COUNT
    ctl gc --sweep "$mnt"
    [ "$("$CKPTCTL" generations --json "$mnt" | jq length)" -eq "$1" ]
}

killed_with_an_open_tree() {
    local mnt
    step "a daemon is killed while files of a snapshot are open"
    volume_new killed file
    volume_mount killed create,checkpoint_interval=0
    mnt=${V_MNT[killed]}
    publish_round killed one >/dev/null
    ctl snapshot create one "$mnt"
    hold "$mnt/.ckptfs/snapshots/one/bulk"
    volume_kill9 killed
    let_go
    assert_equal 1 "$(reader_pins killed)" "the pin that runs out"
    volume_mount killed checkpoint_interval=0
    assert_equal 0 "$(names_in "${V_ROOT[killed]}/views" | wc -w)" "directories of views after the next mount"
    assert_equal one "$(cat "$mnt/.ckptfs/snapshots/one/text")" "the snapshot after the kill"
    volume_unmount killed
}

outage() {
    local mnt begun readers=()
    step "the store does not answer: the tree fails, the volume goes on"
    volume_new out file
    : >faults
    MOUNT_ENVIRONMENT=("CKPTFS_STORE_FAULTS=$WORK/faults")
    volume_mount out create,checkpoint_interval=0,read_deadline=1s
    mnt=${V_MNT[out]}
    publish_round out one >/dev/null
    ctl snapshot create one "$mnt"
    publish_round out two >/dev/null
    ctl snapshot create two "$mnt"
    hold "$mnt/.ckptfs/snapshots/two/text"
    cat <&9 >/dev/null
    echo outage >faults
    for i in 1 2 3 4 5 6 7 8; do # more than there are threads
        cat "$mnt/.ckptfs/snapshots/one/text" >/dev/null 2>"error$i" &
        readers+=($!)
    done
    begun=$(now_ms)
    for i in 1 2 3 4 5; do
        echo "$i" >"$mnt/live$i"
        sync "$mnt/live$i"
        cat "$mnt/text" >/dev/null
    done
    assert_at_most 900 $(($(now_ms) - begun)) "the time for five commits while snapshots wait"
    cat "$mnt/.ckptfs/snapshots/two/text" >/dev/null || fail "a snapshot that is open cannot be read during an outage"
    # Killed processes do not wait for the store.
    cat "$mnt/.ckptfs/generations/1/text" >/dev/null 2>&1 &
    kill -KILL $!
    wait $! 2>/dev/null || :
    wait "${readers[@]}" || :
    for i in 1 2 3 4 5 6 7 8; do
        grep -q 'Input/output error' "error$i" || fail "a reader says: $(cat "error$i")"
    done
    let_go
    : >faults
    wait_for 20 "the snapshot after the outage" grep -qs one "$mnt/.ckptfs/snapshots/one/text"
    volume_unmount out
}

names_and_permissions() {
    local mnt
    step "the name of the tree in the root directory"
    volume_new names file
    volume_mount names create,checkpoint_interval=0
    mnt=${V_MNT[names]}
    echo old >"$mnt/text"
    mkdir "$mnt/dir"
    refused 'File exists' mkdir "$mnt/.ckptfs"
    refused 'Is a directory' sh -c "echo x >'$mnt/.ckptfs'"
    refused 'File exists' ln -s x -T "$mnt/.ckptfs"
    refused 'not permitted' mv -T "$mnt/dir" "$mnt/.ckptfs"
    mkdir "$mnt/dir/.ckptfs"
    echo user >"$mnt/dir/.ckptfs/file"
    assert_equal user "$(cat "$mnt/dir/.ckptfs/file")" "such a directory elsewhere"

    step "a root directory that only root might enter"
    chmod 700 "$mnt"
    ctl snapshot create closed "$mnt"
    chmod 755 "$mnt"
    if [ "$(id -u)" -eq 0 ] && volume_allows_others; then
        refused 'Permission denied' setpriv --reuid 65534 --regid 65534 --clear-groups ls "$mnt/.ckptfs/snapshots/closed"
        refused 'Permission denied' setpriv --reuid 65534 --regid 65534 --clear-groups cat "$mnt/.ckptfs/snapshots/closed/text"
    fi
    volume_unmount names
}

volume_allows_others() {
    volume_unmount names
    volume_mount names checkpoint_interval=0,allow_other
}

for store in file ${CKPT_TEST_S3_ENDPOINT:+s3}; do
    what_is_there "$store"
done
dropped_under_a_reader
killed_with_an_open_tree
outage
names_and_permissions
