#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The rules call by call; one file changed in every way against an image of it, also after a crash
# and a restore; files that were open without a name, or lost theirs to another, when the daemon died.
TEST_TIMEOUT=120
. "$(dirname "$0")/lib.sh"

need_helper posix_rules_check
need_helper one_file_check
SEEDS="1 2 3"
STEPS=1500
if [ -n "$CKPTFS_TEST_LONG" ]; then
    TEST_TIMEOUT=900
    SEEDS="$RANDOM $RANDOM $RANDOM $RANDOM $RANDOM $RANDOM $RANDOM $RANDOM"
    STEPS=20000
fi

one_file() { # NAME [verify]
    local seed
    for seed in $SEEDS; do
        "$HELPERS/one_file_check" "${V_MNT[$1]}/file-$seed" "$seed" $STEPS ${2:+"$2"} \
            >"$WORK/one.out" 2>&1 || {
            cat "$WORK/one.out"
            fail "one_file_check with seed $seed, $STEPS steps"
        }
    done
}

hold_open_and_crash() { # NAME
    local mnt=${V_MNT[$1]}
    echo old >"$mnt/target"
    echo gone >"$mnt/unlinked"
    exec 7<>"$mnt/target" 8<>"$mnt/unlinked"
    echo more >&8
    rm "$mnt/unlinked"
    echo new >"$mnt/new"
    mv "$mnt/new" "$mnt/target"
    echo still >&8
    assert_equal old "$(cat <&7)" "the replaced file, still open"
    sync "$mnt"
    volume_kill9 "$1"
    exec 7>&- 8>&-
    volume_mount "$1"
    assert_equal new "$(cat "$mnt/target")" "the file that took the name"
    [ ! -e "$mnt/unlinked" ] || fail "a file is back that had been unlinked"
}

inodes() { # NAME: as of the last checkpoint
    volume_checkpoint "$1"
    volume_status "$1" .inodes
}

run_mode() { # NAME MOUNT-OPTION [argument of posix_rules_check]
    step "$2: the rules"
    volume_new "$1" file "$2"
    volume_mount "$1" create
    mkdir "${V_MNT[$1]}/rules"
    if [ "$(id -u)" -eq 0 ]; then
        "$HELPERS/posix_rules_check" "${V_MNT[$1]}/rules" ${3:+"$3"} >"$WORK/posix.out" 2>&1 || {
            grep -v '^ok' "$WORK/posix.out" || :
            fail "posix_rules_check found differences"
        }
        note "$(grep -c '^ok' "$WORK/posix.out") groups of checks are fine"
    else
        note "not run by root: the rules are not tried out"
    fi

    step "$2: one file in every way"
    one_file "$1"

    step "$2: open files without a name when the daemon dies"
    [ -n "$TEST_PLAIN" ] || hold_open_and_crash "$1"
    local before after
    one_file "$1" verify
    before=$(inodes "$1")
    hold_open_and_crash "$1"
    after=$(inodes "$1")
    assert_equal "$before" "$after" "inodes after the same again"

    step "$2: restored from the store"
    volume_unmount "$1"
    [ -n "$TEST_PLAIN" ] || rm -rf "${V_ROOT[$1]}"
    volume_mount "$1"
    one_file "$1" verify
    volume_unmount "$1"
}

run_mode cached writeback same-length
run_mode direct no_writeback
