#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# What programs expect of a file system; and the same state after a remount, after a crash, and after
# a restore from the store, byte for byte and attribute for attribute.
TEST_TIMEOUT=240
TEST_NEEDS_S3=1
. "$(dirname "$0")/lib.sh"

need_helper posix_check
need_helper posix_more_check
need_helper posix_access_check
need_helper file_tool
need_program chattr e2fsprogs

BY_ROOT=
[ "$(id -u)" -ne 0 ] || BY_ROOT=1

compare() { # NAME WHAT
    tree_digest "${V_MNT[$1]}" >"$WORK/digest.now"
    assert_same_file "$WORK/digest.then" "$WORK/digest.now" "$2"
}

expectations() { # PROGRAM DIRECTORY [argument]
    "$HELPERS/$1" "${@:2}" >"$WORK/posix.out" 2>&1 || {
        grep -v '^ok' "$WORK/posix.out" || :
        fail "$1 found differences"
    }
    note "$(grep -c '^ok' "$WORK/posix.out") groups of $1 are fine"
}

# What was forbidden before still is. Changes a file.
forbidden_again() { # NAME
    [ -n "$BY_ROOT" ] || return 0
    expectations posix_access_check "${V_MNT[$1]}/access" again
    tree_digest "${V_MNT[$1]}" >"$WORK/digest.then"
}

run_mode() { # NAME STORE MOUNT-OPTION
    step "$2, $3: what programs expect"
    volume_new "$1" "$2" "$3"
    volume_mount "$1" create
    mkdir "${V_MNT[$1]}/tree" "${V_MNT[$1]}/more" "${V_MNT[$1]}/access"
    expectations posix_check "${V_MNT[$1]}/tree"
    expectations posix_more_check "${V_MNT[$1]}/more"
    if [ -n "$BY_ROOT" ]; then
        expectations posix_access_check "${V_MNT[$1]}/access"
    else
        note "not run by root: nothing about other users and flags"
    fi
    tree_digest "${V_MNT[$1]}" >"$WORK/digest.then"

    step "$2, $3: the same after an unmount and a mount"
    volume_unmount "$1"
    volume_mount "$1"
    compare "$1" "the tree after a remount"
    forbidden_again "$1"

    step "$2, $3: the same after kill -9"
    sync "${V_MNT[$1]}"
    volume_kill9 "$1"
    volume_mount "$1"
    compare "$1" "the tree after a crash"
    forbidden_again "$1"

    step "$2, $3: the same from the store alone, read-only and writable"
    volume_checkpoint "$1"
    volume_unmount "$1"
    [ -z "$TEST_PLAIN" ] || return 0
    volume_other_root "$1-view" "$1"
    volume_mount "$1-view" ro
    compare "$1-view" "the tree in a read-only mount of the store"
    "$HELPERS/file_tool" write-sync "${V_MNT[$1-view]}/new" 2>/dev/null &&
        fail "a read-only mount took a write"
    volume_unmount "$1-view"
    rm -rf "${V_ROOT[$1]}"
    volume_mount "$1"
    compare "$1" "the tree restored from the store"
    forbidden_again "$1"
    [ -z "$BY_ROOT" ] || find "${V_MNT[$1]}/access" \( -type f -o -type d \) -exec chattr -i -a {} +
    rm -rf "${V_MNT[$1]:?}"/*
    assert_equal 0 "$(find "${V_MNT[$1]}" -mindepth 1 | wc -l)" "files after rm -rf"
    volume_unmount "$1"
}

run_mode cached file writeback
run_mode direct file no_writeback
run_mode s3 s3 writeback
