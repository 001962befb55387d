# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# What the tests of the life of data share. Source it after lib.sh.

ctl() { "$CKPTCTL" "$@" >"$WORK/out" 2>"$WORK/error" || fail "ckptctl $* says: $(cat "$WORK/error")"; }

ctl_fails() { # REGEX ARGUMENTS...
    ! "$CKPTCTL" "${@:2}" >"$WORK/out" 2>"$WORK/error" || fail "ckptctl ${*:2} says: $(cat "$WORK/out")"
    grep -qE "$1" "$WORK/error" || fail "ckptctl ${*:2} says: $(cat "$WORK/error")"
}

# A new content of both files, published: the generation's number.
publish_round() { # NAME TEXT
    local mnt=${V_MNT[$1]}
    head -c 200000 /dev/urandom >"$mnt/bulk"
    echo "$2" >"$mnt/text"
    "$CKPTCTL" checkpoint --json "$mnt" | jq .generation
}

# What is in the volume: a digest of names and contents.
digest() { (cd "${V_MNT[$1]}" && find . -type f -print0 | sort -z | xargs -0 sha256sum) | sha256sum; }

# The keys of all objects in the volume's bucket or directory.
store_keys() { # NAME
    local bucket
    case ${V_STORE[$1]} in
        file) (cd "${V_DIRECTORY[$1]}" && find . -type f -not -path './.tmp/*' -printf '%P\n' | sort) ;;
        s3)
            bucket=${V_SOURCE[$1]#s3://}
            s3_curl GET "${bucket%%/*}?list-type=2" | grep -o '<Key>[^<]*' | sed 's/<Key>prefix.//' | sort
            ;;
    esac
}

# A tool that dies at a crash point.
ctl_dies() { # POINT ARGUMENTS...
    local status=0
    env "CKPTFS_CRASH_AT=$1" "$CKPTCTL" "${@:2}" >"$WORK/out" 2>"$WORK/error" || status=$?
    assert_equal 137 "$status" "the exit status of ckptctl ${*:2}, which is to die at $1"
}

# Of what CKPTFS_STORE_TRACE has counted: nothing was finished twice but what was under way at a death.
assert_done_once() { # WORD TRACE DEATHS: WORD is PUT or DELETE
    local twice
    grep -q "^$1 checkpoints/" "$2" || fail "the trace has no $1"
    twice=$(grep "^$1 checkpoints/" "$2" | sort | uniq -c | awk '{ again += $1 - 1 } END { print again }')
    [ "$twice" -le "$3" ] || fail "$twice calls were finished twice: $(grep "^$1 checkpoints/" "$2" | sort | uniq -d)"
}
