#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A commit sends the kernel's requests for the data and for the fsync, and little else: what
# request_cost.sh measures stays within what doc/databases.md says.
TEST_TIMEOUT=120
. "$(dirname "$0")/lib.sh"

[ -z "$TEST_PLAIN" ] || exit 0
# A test within a test has a work directory of its own.
env -u CKPTFS_TEST_WORK "$TEST_HERE/request_cost.sh" sqlite-wal sqlite-delete lmdb rocksdb >"$WORK/costs.out" 2>&1 || {
    cat "$WORK/costs.out"
    fail "request_cost.sh failed"
}
grep '^| ' "$WORK/costs.out"

cost_within() { # DATABASE REQUESTS: for each transaction
    local cost
    cost=$(awk -F' *[|] *' -v name="$1" '$2 == name { print $3 }' "$WORK/costs.out")
    [ -n "$cost" ] || fail "$1 was not measured"
    awk -v cost="$cost" -v limit="$2" 'BEGIN { exit !(cost <= limit) }' ||
        complain "$1: $cost requests for a transaction, allowed are at most $2"
}

# What is not of a commit may come now and then, but not with each of twenty.
never_sent() { # DATABASE OPCODES...
    local database=$1 opcode
    for opcode in "${@:2}"; do
        grep "^| $database |" "$WORK/costs.out" | sed 's:[|,]:\n:g' |
            awk -v opcode="$opcode" '$1 == opcode && $2 > 0.05 { bad = 1 } END { exit bad }' ||
            complain "$database: $opcode is sent"
    done
}

# A WRITE, an FSYNC, and a SETATTR when the clock has moved.
step "commits that append and sync"
for database in sqlite-wal rocksdb; do
    cost_within $database 3.2
    never_sent $database GETXATTR FLUSH OPEN OPENDIR GETATTR LOOKUP
done
# Its pages lie in several places, and it syncs twice.
cost_within lmdb 10.5
never_sent lmdb GETXATTR FLUSH OPEN OPENDIR GETATTR LOOKUP

step "a journal that is made and removed for each commit"
cost_within sqlite-delete 24
never_sent sqlite-delete FLUSH OPENDIR RELEASEDIR
