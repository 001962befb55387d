#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Bad input of every kind gets a clear error: the daemon does not crash, an application never sees
# wrong bytes, and when the damage is undone everything is there.
TEST_TIMEOUT=300
TEST_NEEDS_S3=1
. "$(dirname "$0")/lib.sh"

need_helper file_tool
TOOL=$HELPERS/file_tool
MAY_LOSE_NAMES=

make_content() { # DIRECTORY
    local i
    mkdir -p "$1/small" "$1/deep/er"
    for ((i = 0; i < 40; i++)); do
        echo "small file $i" >"$1/small/$i"
    done
    "$TOOL" write-large "$1/large" 12
    head -c 300000 /dev/urandom >"$1/deep/er/random"
    ln -s ../large "$1/deep/link"
}

keep() { # DIRECTORY: a pristine copy
    rm -rf "$1.pristine"
    cp -a "$1" "$1.pristine"
}

restore() { # DIRECTORY
    rm -rf "$1"
    cp -a "$1.pristine" "$1"
}

damage() { # KIND FILE
    local size
    size=$(stat -c %s "$2")
    case $1 in
        garbled-head) "$TOOL" garble "$2" 0 16 ;;
        garbled-middle) "$TOOL" garble "$2" $((size / 2)) 24 ;;
        garbled-tail) "$TOOL" garble "$2" $((size > 16 ? size - 16 : 0)) 16 ;;
        halved) truncate -s $((size / 2)) "$2" ;;
        emptied) truncate -s 0 "$2" ;;
        random) head -c "$size" /dev/urandom >"$2" ;;
        longer) head -c 1000 /dev/urandom >>"$2" ;;
        removed) rm "$2" ;;
        *) fail "no such damage: $1" ;;
    esac
}

# Every file that can be read has the right bytes; reading may fail, but not otherwise than by EIO.
# MAY_LOSE_NAMES: nor by ENOENT, where the damage is in something without checksums.
never_wrong() { # NAME REFERENCE: prints how many files could not be read
    local file status unreadable=0 seen=0 errors='Input/output error'
    [ -z "$MAY_LOSE_NAMES" ] || errors="$errors|No such file"
    while read -r file; do
        status=0
        cmp "$2/$file" "${V_MNT[$1]}/$file" >"$WORK/cmp.txt" 2>&1 || status=$?
        case $status in
            0) seen=$((seen + 1)) ;;
            1)
                echo "$file: wrong bytes"
                return 1
                ;;
            *)
                unreadable=$((unreadable + 1))
                grep -qE "$errors" "$WORK/cmp.txt" || {
                    echo "not EIO: $(cat "$WORK/cmp.txt")"
                    return 1
                }
                ;;
        esac
    done < <(cd "$2" && find . -type f)
    echo "$seen files right, $unreadable refused"
}

# Mounts, whatever comes of it: refusal with a text, or a mount that shows nothing wrong.
try_mount() { # NAME OPTIONS REFERENCE WHAT
    local status=0 said
    volume_start "$1" "$2"
    wait_for 60 "a decision about $4" volume_is_up_or_dead "$1"
    if is_mounted "$1"; then
        said=$(never_wrong "$1" "$3") || complain "$4: an application saw: $said"
        volume_assert_alive "$1"
        TRIED="mounted: $said"
        umount "${V_MNT[$1]}" || umount -l "${V_MNT[$1]}"
        wait_for 60 "the end of the daemon ($4)" volume_is_gone "$1"
        wait "${V_JOB[$1]}" || status=$?
        [ $status -lt 126 ] || fail "$4: the daemon ended with $status after the unmount"
    else
        wait "${V_JOB[$1]}" || status=$?
        [ $status -lt 126 ] || fail "$4: the daemon ended by a signal, status $status"
        [ $status -ne 0 ] || fail "$4: a refused mount with exit status 0"
        [ -s "$WORK/$1.out" ] || fail "$4: a refused mount without a word"
        TRIED="refused: $(grep -v '^{' "$WORK/$1.out" | head -n 1 | cut -c1-180)"
        [ "$TRIED" != "refused: " ] || TRIED="refused: $(tail -n 1 "$WORK/$1.out" | cut -c1-250)"
    fi
    V_PID["$1"]=""
}

damage_objects() { # WHAT MOUNT-OPTIONS FILE...
    local what=$1 options=$2 object kind
    shift 2
    for object in "$@"; do
        step "damage to $what ${object##*/}"
        for kind in garbled-head garbled-middle garbled-tail halved emptied random longer removed; do
            rm -rf "${V_ROOT[view]}"
            damage $kind "$object"
            try_mount view "$options" "$WORK/reference" "$what $kind"
            note "$kind: $TRIED"
            restore "${V_DIRECTORY[v]}"
        done
    done
}

expect_all_there() { # NAME OPTIONS WHAT
    volume_mount "$1" "$2"
    tree_digest "${V_MNT[$1]}" >"$WORK/digest.now"
    assert_same_file "$WORK/digest.then" "$WORK/digest.now" "$3"
    volume_unmount "$1"
}

damage_in_the_store() {
    local blobs manifests
    volume_new v file
    volume_mount v create,checkpoint_interval=0
    make_content "${V_MNT[v]}"
    volume_checkpoint v
    echo "changed later" >"${V_MNT[v]}/small/0"
    volume_checkpoint v
    rm "${V_MNT[v]}/small/1"
    volume_checkpoint v
    cp -a "${V_MNT[v]}" "$WORK/reference"
    tree_digest "${V_MNT[v]}" >"$WORK/digest.then"
    volume_unmount v
    keep "${V_DIRECTORY[v]}"
    keep "${V_ROOT[v]}"
    volume_other_root view v
    mapfile -t blobs < <(find "${V_DIRECTORY[v]}" -type f -name '*.blob' -printf '%s %p\n' | sort -rn | cut -d' ' -f2)
    mapfile -t manifests < <(find "${V_DIRECTORY[v]}" -type f -path '*manifests*' | sort)
    note "${#blobs[@]} blobs, ${#manifests[@]} manifest objects"
    damage_objects blob ro "${blobs[0]}" "${blobs[-1]}"
    damage_objects manifest ro "${manifests[@]:0:5}"
    damage_objects manifest checkpoint_interval=0,takeover "${manifests[-1]}"
    step "the damage undone: everything is there"
    rm -rf "${V_ROOT[view]}"
    expect_all_there view ro "the volume after the damage was undone"
}

damage_in_the_root() {
    local kind lmdb=${V_ROOT[v]}/manifest/data.mdb
    [ -f "$lmdb" ] || fail "there is no $lmdb"
    step "damage to the LMDB file"
    for kind in garbled-head garbled-middle garbled-tail halved emptied random longer removed; do
        damage $kind "$lmdb"
        MAY_LOSE_NAMES=yes
        try_mount v checkpoint_interval=0,takeover "$WORK/reference" "LMDB file $kind"
        MAY_LOSE_NAMES=
        note "$kind: $TRIED"
        restore "${V_ROOT[v]}"
        restore "${V_DIRECTORY[v]}"
    done
    step "damage to the local copies of blobs"
    while read -r file; do
        damage garbled-middle "$file"
    done < <(find "${V_ROOT[v]}/hot_cache" -type f)
    try_mount v checkpoint_interval=0,takeover "$WORK/reference" "hot_cache"
    note "garbled: $TRIED"
    restore "${V_ROOT[v]}"
    restore "${V_DIRECTORY[v]}"
    step "the damage undone: everything is there"
    expect_all_there v checkpoint_interval=0,takeover "the volume after the damage was undone"
}

wal_digest() { # NAME: of the files of its log
    find "${V_ROOT[$1]}" -path '*/wal/*' -type f -print0 | sort -z | xargs -0 sha256sum
}

# One damage: refused, with a text that names a file and says what to do, and nothing is changed; or
# everything is there.
try_wal() { # KIND FILE
    wal_digest w >"$WORK/wal.before"
    try_mount w "$WAL_OPTIONS" "$WORK/reference-w" "WAL $2 $1"
    note "$1: $TRIED"
    case $TRIED in
        "mounted: $WAL_FILES files right, 0 refused") ;;
        refused*)
            grep -q "write-ahead log.*/wal/[ms]" "$WORK/w.out" || complain "WAL $2 $1: the text names no file"
            grep -q "Restore" "$WORK/w.out" || complain "WAL $2 $1: the text does not say what to do"
            wal_digest w >"$WORK/wal.after"
            cmp -s "$WORK/wal.before" "$WORK/wal.after" || complain "WAL $2 $1: a refused log was changed"
            ;;
        *) complain "WAL $2 $1: acknowledged changes were dropped: $TRIED" ;;
    esac
}

restore_w() {
    restore "${V_ROOT[w]}"
    restore "${V_DIRECTORY[w]}"
}

expect_refused() { # KIND FILE
    [[ $TRIED == refused* ]] || complain "WAL $2 $1: not noticed"
}

# A fold takes records over into a generation, and the log need not have them any more. Under load
# one comes by itself: a writer that has waited for room asks for it. So that each record of the log
# stays needed, folds find a file where their scratch directory should be, and fail.
refuse_folds() { # NAME
    mv "${V_ROOT[$1]}/checkpoint_scratch" "$WORK/scratch.$1"
    : >"${V_ROOT[$1]}/checkpoint_scratch"
}

allow_folds() { # NAME, whose daemon is dead
    ! volume_logged "$1" checkpoint.recorded || fail "a fold took records of the log over"
    rm "${V_ROOT[$1]}/checkpoint_scratch"
    mv "$WORK/scratch.$1" "${V_ROOT[$1]}/checkpoint_scratch"
}

damage_in_the_wal() {
    local segments newest first mark size end i kind
    WAL_OPTIONS=checkpoint_interval=0,wal_limit=64M
    WAL_FILES=201
    step "damage to the WAL"
    volume_new w file
    volume_mount w "create,$WAL_OPTIONS"
    refuse_folds w
    head -c 12000000 /dev/urandom >"${V_MNT[w]}/large"
    sync "${V_MNT[w]}/large"
    for ((i = 0; i < 200; i++)); do
        "$TOOL" write-sync "${V_MNT[w]}/f$i"
    done
    cp -a "${V_MNT[w]}" "$WORK/reference-w"
    volume_kill9 w
    allow_folds w
    keep "${V_ROOT[w]}"
    keep "${V_DIRECTORY[w]}"
    # Those with records, by the time of the last one: segments that are made ahead have none.
    mapfile -t segments < <(find "${V_ROOT[w]}" -type f -path '*/wal/segment-*' \
        -exec grep -qF CKPTWALS {} \; -exec stat -c '%.Y %n' {} + | sort -n | cut -d' ' -f2)
    [ "${#segments[@]}" -ge 2 ] || fail "only ${#segments[@]} WAL segments have records"
    newest=${segments[-1]}
    first=${segments[0]}
    mark=$(find "${V_ROOT[w]}" -type f -path '*/wal/mark')
    [ -n "$mark" ] || fail "no mark of the WAL below ${V_ROOT[w]}"
    end=$("$TOOL" data-end "$newest")
    size=$(stat -c %s "$newest")
    note "${newest##*/}: $size bytes, data up to $end"

    head -c 3000 /dev/urandom | dd of="$newest" bs=1 seek="$end" conv=notrunc status=none
    volume_mount w "$WAL_OPTIONS"
    assert_equal "$WAL_FILES files right, 0 refused" "$(never_wrong w "$WORK/reference-w")" \
        "the volume with garbage behind the end of its WAL"
    note "garbage behind the end: everything is there"
    volume_kill9 w
    step "damage to the newest WAL segment, ${newest##*/}"
    for kind in middle near-head garbled-head halved emptied removed random zeroed longer; do
        restore_w
        case $kind in
            middle) "$TOOL" garble "$newest" $((end / 2)) 24 ;;
            near-head) "$TOOL" garble "$newest" 5000 24 ;;
            halved) truncate -s $((end / 2)) "$newest" ;;
            zeroed) dd if=/dev/zero of="$newest" bs=64K count=$((size / 65536)) conv=notrunc status=none ;;
            *) damage $kind "$newest" ;;
        esac
        try_wal $kind "$newest"
        [ $kind = longer ] || expect_refused $kind "$newest"
    done
    step "damage to an older WAL segment, ${first##*/}"
    for kind in garbled-head garbled-middle halved emptied removed random longer; do
        restore_w
        damage $kind "$first"
        try_wal $kind "$first"
        [ $kind = longer ] || expect_refused $kind "$first"
    done
    step "damage to the mark of the WAL"
    for kind in garbled-head garbled-middle garbled-tail halved emptied removed random longer; do
        restore_w
        damage $kind "$mark"
        try_wal $kind "$mark"
        [[ $kind == garbled-* ]] || expect_refused $kind "$mark"
    done
    restore_w
    rm "$mark" "$newest"
    try_wal removed "$mark"
    expect_refused "removed with the newest segment" "$mark"
    echo accept >"$mark"
    volume_mount w "$WAL_OPTIONS"
    [ ! -e "${V_MNT[w]}/f199" ] || complain "what was in the lost segment is there"
    "$TOOL" write-sync "${V_MNT[w]}/goes-on"
    note "accepted: it goes on with what is left"
    volume_kill9 w

    step "damage to the WAL undone: everything is there"
    restore_w
    volume_mount w "$WAL_OPTIONS"
    assert_equal "$WAL_FILES files right, 0 refused" "$(never_wrong w "$WORK/reference-w")" \
        "the volume after the damage to its WAL was undone"
    volume_unmount w
}

refused_by() { # REGEX ARGUMENTS...: the daemon with these arguments; for mistakes on the command line
    local regex=$1 status=0
    shift
    timeout 60 "$CKPTFS" -f "$@" >"$WORK/refused.out" 2>&1 </dev/null || status=$?
    if [ $status -eq 0 ] || [ $status -ge 124 ]; then
        fail "ckptfs $*: exit status $status"
    fi
    grep -qiE -- "$regex" "$WORK/refused.out" || {
        cat "$WORK/refused.out"
        fail "ckptfs $*: the text does not say $regex"
    }
    note "refused: $(grep -iE -m 1 -- "$regex" "$WORK/refused.out" | cut -c1-200)"
}

mistakes() {
    local empty=$WORK/empty root=$WORK/mistakes.root
    mkdir -p "$empty/store" "$empty/mnt" "$root"
    step "mistakes on the command line"
    refused_by "usage|SOURCE|MOUNTPOINT" "file://$empty/store/t"
    refused_by "file:///|s3://" -o "root=$root" nonsense "$empty/mnt"
    refused_by "tenant" -o "root=$root" "file://$empty/store/a%tenant!" "$empty/mnt"
    refused_by "no_such_option" -o "root=$root,no_such_option" "file://$empty/store/t" "$empty/mnt"
    refused_by "wal_limit" -o "root=$root,wal_limit=many" "file://$empty/store/t" "$empty/mnt"
    refused_by "not-there|No such file" -o "root=$root,create" "file://$empty/store/t" "$empty/not-there"
    step "no volume, another tenant's name"
    refused_by "create" -o "root=$root" "file://$empty/store/t" "$empty/mnt"
    refused_by "create" -o "root=$WORK/view2.root" "file://${V_DIRECTORY[v]}/stranger" "$empty/mnt"
    refused_by "not-there|No such file" -o "root=$root" "file://$empty/not-there/t" "$empty/mnt"
    step "a generation that never was, a volume that exists already, a root that is a file"
    refused_by "generation" -o "root=$WORK/view3.root,ro,at=999999" "${V_SOURCE[v]}" "$empty/mnt"
    : >"$WORK/file.root"
    refused_by "file.root" -o "root=$WORK/file.root" "${V_SOURCE[v]}" "$empty/mnt"
    step "a read-only mount of garbage"
    mkdir -p "$WORK/garbage"
    cp -a "${V_DIRECTORY[v]}/." "$WORK/garbage/"
    find "$WORK/garbage" -type f | while read -r file; do damage random "$file"; done
    refused_by "." -o "root=$WORK/view4.root,ro" "file://$WORK/garbage/tenant" "$empty/mnt"
    step "ckptctl on what is not a mount"
    if "$CKPTCTL" status "$WORK" >"$WORK/ctl.out" 2>&1; then
        fail "ckptctl status of a plain directory succeeded"
    fi
    note "ckptctl: $(head -n 1 "$WORK/ctl.out")"
    [ -s "$WORK/ctl.out" ] || fail "ckptctl says nothing"
}

two_daemons() {
    step "two daemons on one root"
    volume_mount v checkpoint_interval=0,takeover
    V_ROOT[twin]=${V_ROOT[v]}
    V_SOURCE[twin]=${V_SOURCE[v]}
    V_OPTIONS[twin]=
    V_MNT[twin]=$WORK/twin.mnt
    V_LOG[twin]=$WORK/twin.log
    V_PID[twin]=
    mkdir -p "${V_MNT[twin]}"
    volume_mount_refused twin "checkpoint_interval=0" "in use|another|already|held|locked"
    volume_mount_refused twin "checkpoint_interval=0,takeover" "in use|another|already|held|locked"
    volume_assert_alive v
    "$TOOL" write-sync "${V_MNT[v]}/still-works"
    rm "${V_MNT[v]}/still-works"
    volume_unmount v
}

full_disk() {
    local i=0
    if [ "$(id -u)" -ne 0 ]; then
        note "only root can mount the small disk for this"
        return 0
    fi
    step "the disk of the storage root is full"
    volume_new full file
    mkdir -p "${V_ROOT[full]}" "$WORK/full.acked"
    mount -t tmpfs -o size=1M tmpfs "${V_ROOT[full]}"
    volume_mount_refused full create,checkpoint_interval=0 "space"
    mount -o remount,size=96M "${V_ROOT[full]}"
    volume_mount full create,checkpoint_interval=0,wal_limit=32M
    while [ $i -lt 400 ]; do
        head -c 1000000 /dev/urandom >"$WORK/piece"
        timeout 60 dd if="$WORK/piece" of="${V_MNT[full]}/$i" bs=1M conv=fsync status=none \
            2>"$WORK/dd.out" || break
        mv "$WORK/piece" "$WORK/full.acked/$i"
        i=$((i + 1))
    done
    [ $i -ge 20 ] || complain "only $i MB fit on a disk of 96 MiB"
    note "$i MB were taken; then: $(tail -n 1 "$WORK/dd.out" 2>/dev/null)"
    volume_assert_alive full
    if [ $i -lt 400 ]; then
        grep -qE 'No space left|Read-only file system|Disk quota' "$WORK/dd.out" ||
            complain "a full disk shows as: $(cat "$WORK/dd.out") (nothing: the write waited for 60 s)"
    fi
    assert_equal "$i files right, 0 refused" "$(never_wrong full "$WORK/full.acked")" \
        "acknowledged files on the full disk"
    volume_kill9 full
    mount -o remount,size=2G "${V_ROOT[full]}"
    volume_mount full checkpoint_interval=0
    assert_equal "$i files right, 0 refused" "$(never_wrong full "$WORK/full.acked")" \
        "acknowledged files after the disk has room again"
    "$TOOL" write-sync "${V_MNT[full]}/works-again"
    volume_unmount full
    umount "${V_ROOT[full]}"
}

s3_mistakes() {
    step "S3: wrong secret, no credentials, no bucket, no server"
    volume_new s s3
    MOUNT_ENVIRONMENT=(AWS_SECRET_ACCESS_KEY=wrong)
    volume_mount_refused s create "credential|denied|signature|403|forbidden"
    MOUNT_ENVIRONMENT=(-u AWS_SECRET_ACCESS_KEY -u AWS_ACCESS_KEY_ID HOME=/nonexistent
        AWS_EC2_METADATA_DISABLED=true)
    volume_mount_refused s create "credential"
    ! grep -q "$CKPT_TEST_S3_SECRET_KEY" "$WORK"/*.log "$WORK"/*.out || fail "a secret is in a log"
    volume_mount_refused s "" "create"
    V_SOURCE[s]=s3://no-such-bucket-$$/prefix/tenant
    volume_mount_refused s create "bucket"
    volume_new s2 s3
    V_OPTIONS[s2]=endpoint=http://127.0.0.1:1,region=us-east-1
    volume_mount_refused s2 create "127.0.0.1|connect|reach|refused"
}

if [ -n "$TEST_PLAIN" ]; then
    note "nothing to test on a plain directory"
    exit 0
fi
damage_in_the_store
damage_in_the_root
damage_in_the_wal
mistakes
two_daemons
full_disk
s3_mistakes
