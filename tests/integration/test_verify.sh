#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A volume in the store is verified: what is damaged is found and named with its files and
# generations, and repaired from what is left of it.
TEST_TIMEOUT=120
. "$(dirname "$0")/lib.sh"
. "$TEST_HERE/retention.sh"

verify() { # STATUS ARGUMENTS...
    local status=0
    "$CKPTCTL" verify "${@:2}" >"$WORK/out" 2>"$WORK/error" || status=$?
    assert_equal "$1" "$status" "the exit status of verify ${*:2} ($(tail -3 "$WORK/out" "$WORK/error"))"
}

says() { grep -qE -- "$1" "$WORK/out" || fail "verify says nothing of '$1': $(cat "$WORK/out")"; }

object() { # NAME KEY: prints its bytes
    local bucket
    case ${V_STORE[$1]} in
        file) cat "${V_DIRECTORY[$1]}/$2" ;;
        s3)
            bucket=${V_SOURCE[$1]#s3://}
            s3_curl GET "${bucket%%/*}/prefix/$2" -o -
            ;;
    esac
}

replace() { # NAME KEY FILE
    local bucket
    case ${V_STORE[$1]} in
        file) cp "$3" "${V_DIRECTORY[$1]}/$2" ;;
        s3)
            bucket=${V_SOURCE[$1]#s3://}
            s3_curl PUT "${bucket%%/*}/prefix/$2" -T "$3" >/dev/null
            ;;
    esac
}

remove() { # NAME KEY
    local bucket
    case ${V_STORE[$1]} in
        file) rm "${V_DIRECTORY[$1]}/$2" ;;
        s3)
            bucket=${V_SOURCE[$1]#s3://}
            s3_curl DELETE "${bucket%%/*}/prefix/$2" >/dev/null
            ;;
    esac
}

# One byte in the middle is another one.
spoil() { # NAME KEY
    local size at byte
    object "$1" "$2" >"$WORK/object"
    cp "$WORK/object" "$WORK/object.good"
    size=$(stat -c %s "$WORK/object")
    at=$((size / 2))
    byte=$(od -An -tu1 -j "$at" -N 1 "$WORK/object")
    printf "%b" "\\x$(printf %x $((byte ^ 255)))" | dd of="$WORK/object" bs=1 seek="$at" conv=notrunc status=none
    replace "$1" "$2" "$WORK/object"
}

blob_of_generation() { store_keys "$1" | grep "^checkpoints/.*-$(printf %016x "$2")-" | head -1; } # NAME GENERATION

check() { # STORE
    local name=sound$1 job mnt source options old new record catalog
    step "$1: a sound volume is sound; a blob that is missing, short or changed is named"
    volume_new "$name" "$1"
    volume_mount "$name" create,checkpoint_interval=0
    mnt=${V_MNT[$name]}
    source=${V_SOURCE[$name]}
    options=${V_OPTIONS[$name]:-no_ro}
    mkdir "$mnt/dir"
    head -c 300000 /dev/urandom >"$mnt/dir/early"
    "$CKPTCTL" checkpoint "$mnt" >/dev/null
    head -c 300000 /dev/urandom >"$mnt/dir/late"
    "$CKPTCTL" checkpoint "$mnt" >/dev/null
    old=$(blob_of_generation "$name" 1)
    new=$(blob_of_generation "$name" 2)
    # While it is mounted.
    verify 0 -o "$options" "$source"
    volume_unmount "$name"
    verify 0 --data --json -o "$options" "$source"
    assert_equal true "$(jq .sound "$WORK/out")" "whether it is sound"
    assert_equal "$(store_keys "$name" | grep -c ^checkpoints/)" "$(jq .read_blobs "$WORK/out")" "blobs that were read"
    verify 2 -o "$options" "${source%/tenant}/nobody"

    spoil "$name" "$old"
    verify 0 -o "$options" "$source" # sizes alone do not tell
    verify 4 --data -o "$options" "$source"
    says "$old: its bytes are not what its name says"
    says "generations: 1 2"
    says "file: /dir/early"
    ! grep -q /dir/late "$WORK/out" || fail "a sound file is called damaged: $(cat "$WORK/out")"

    step "$1: a mounted volume is verified by a job, which keeps what it found"
    volume_mount "$name" checkpoint_interval=0
    verify 4 --data "$mnt"
    says "$old: its bytes are not what its name says"
    says "generations: 1 2"
    says "file: /dir/early"
    job=$("$CKPTCTL" jobs --json "$mnt" | jq '[.[] | select(.kind == "VerifyManifest")][-1].id')
    volume_unmount "$name"
    volume_mount "$name" checkpoint_interval=0
    "$CKPTCTL" job show "$job" "$mnt" >"$WORK/out"
    says "file: /dir/early"
    "$CKPTCTL" job show --json "$job" "$mnt" >"$WORK/out"
    assert_equal "$old" "$(jq -r '.report.damage[].key' "$WORK/out")" "the damaged object"
    assert_equal "/dir/early" "$(jq -r '.report.damage[].files[]' "$WORK/out")" "its files"
    volume_unmount "$name"

    head -c 1000 "$WORK/object.good" >"$WORK/short"
    replace "$name" "$old" "$WORK/short"
    verify 4 -o "$options" "$source"
    says "$old: it has 1000 bytes and not"
    remove "$name" "$new"
    verify 4 --json -o "$options" "$source"
    assert_equal 2 "$(jq '.damage | length' "$WORK/out")" "damaged objects"
    assert_equal "it is missing" "$(jq -r ".damage[] | select(.key == \"$new\").what" "$WORK/out")" "what is wrong with the newer one"
    assert_equal "/dir/late" "$(jq -r ".damage[] | select(.key == \"$new\").files[]" "$WORK/out")" "its files"

    step "$1: blobs come back from the root, also when one copy there is damaged"
    verify 4 --repair -o "$options" "$source" # from nowhere
    verify 0 --repair --data --root "${V_ROOT[$name]}" -o "$options" "$source"
    says "2 objects are repaired"
    verify 0 --data -o "$options" "$source"

    step "$1: catalogs are made anew from records; without a record nothing is invented"
    catalog=$(store_keys "$name" | grep /catalog- | tail -1)
    spoil "$name" "$catalog"
    verify 4 -o "$options" "$source"
    says "$catalog: it is damaged"
    verify 0 --repair -o "$options" "$source"
    says "1 objects are repaired"
    ! store_keys "$name" | grep -q "$catalog" || fail "the damaged catalog is still there"
    record=$(store_keys "$name" | grep /record- | tail -2 | head -1)
    spoil "$name" "$record"
    verify 4 --repair -o "$options" "$source"
    says "$record: it is damaged"
    replace "$name" "$record" "$WORK/object.good"
    remove "$name" "$record"
    verify 4 -o "$options" "$source"
    says "$record: it is missing"
    replace "$name" "$record" "$WORK/object.good"
    verify 0 --data -o "$options" "$source"
    rm -rf "${V_ROOT[$name]}"
    volume_mount "$name"
    cat "$mnt/dir/early" "$mnt/dir/late" >/dev/null || fail "a file cannot be read"
    volume_unmount "$name"
}

check file
check s3
