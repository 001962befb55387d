#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# What a transaction costs in FUSE requests, by opcode, for each database of the zoo: the table of
# doc/databases.md. `make request-costs` runs it; so does
#     tests/integration/request_cost.sh [DATABASE...]
# One client, small transactions, a warm database, no checkpoints of the volume meanwhile.
# COST_OPTIONS: options for the mount. COST_MOUNTED: measure in this directory of a mount instead.
TEST_TIMEOUT=600
. "$(dirname "$0")/lib.sh"

need_program jq jq
DATABASES="sqlite-wal sqlite-delete sqlite-truncate postgres mariadb redis-aof redis-rdb lmdb rocksdb
    duckdb etcd git"
[ $# -eq 0 ] || DATABASES="$*"
ACKS=$WORK/acks
mkdir -p "$ACKS"

requests() { "$CKPTCTL" status --fuse --json "${V_MNT[v]}" >"$1"; } # FILE

# What happened between two counts, without what counting costs: a line per opcode.
difference() { # BEFORE AFTER OWN-BEFORE OWN-AFTER TRANSACTIONS
    jq -rs --argjson n "$5" '. as $c | .[1] | keys_unsorted[] | select(. != "all") |
        {name: ., count: ($c[1][.] - $c[0][.] - ($c[3][.] - $c[2][.]))} |
        select(.count > 0) | (.count / $n * 100 | round / 100) as $each |
        select($each > 0) | "\(.name) \($each)"' "$1" "$2" "$3" "$4"
}

# The function measure_NAME makes a database in $DB, warms it up, calls begin_count, makes
# transactions, and calls end_count TRANSACTIONS.
begin_count() {
    requests "$WORK/own.0"
    requests "$WORK/own.1"
    requests "$WORK/count.0"
}
end_count() { # TRANSACTIONS
    requests "$WORK/count.1"
    difference "$WORK/count.0" "$WORK/count.1" "$WORK/own.0" "$WORK/own.1" "$1" >"$WORK/cost"
}

load_of() { # PROGRAM ARGUMENTS...
    "$HELPERS/$1" "${@:2}" >"$WORK/load.out" 2>&1 || fail "the load failed: $(cat "$WORK/load.out")"
}

# ---- the databases ------------------------------------------------------------------------------

# The program opens and closes the database: that is counted with an empty run and taken away.
measure_program() { # PROGRAM WORDS-BEFORE-THE-STREAM...
    need_helper "$1"
    local n=500 program=$1 own
    shift
    load_of "$program" load "$@" one "$ACKS/one" 400 16 100
    begin_count
    load_of "$program" load "$@" one "$ACKS/one" 400 16 1
    requests "$WORK/count.1"
    own=$WORK/count.0
    cp "$WORK/count.0" "$WORK/own.0"
    cp "$WORK/count.1" "$WORK/own.1"
    requests "$WORK/count.0"
    load_of "$program" load "$@" one "$ACKS/one" 400 16 $((n + 1))
    end_count $n
}
measure_sqlite() { measure_program sqlite_load "$DB/$1.db" "$1"; }
measure_lmdb() { measure_program lmdb_load "$DB"; }
measure_rocksdb() { measure_program rocksdb_load "$DB"; }

measure_postgres() {
    local n=500
    . "$TEST_HERE/postgres.sh"
    PG_DATA=$DB/pg
    chmod 755 "$DB"
    pg_init
    pg_start
    pg_tool pgbench -i -q -s 1 >"$WORK/load.out" 2>&1 || fail "pgbench -i"
    pg_tool pgbench -n -c 1 -t 200 >"$WORK/load.out" 2>&1 || fail "pgbench"
    pg_sql CHECKPOINT
    pg_tool pgbench -n -c 1 -t 200 >"$WORK/load.out" 2>&1 || fail "pgbench"
    begin_count
    pg_tool pgbench -n -c 1 -t $n >"$WORK/load.out" 2>&1 || fail "pgbench"
    end_count $n
    pg_stop
}

measure() { # DATABASE
    case $1 in
        sqlite-*) measure_sqlite "${1#sqlite-}" ;;
        postgres | lmdb | rocksdb | duckdb | mariadb | etcd | git) "measure_$1" ;;
        redis-*) measure_redis "${1#redis-}" ;;
        *) fail "no database $1" ;;
    esac
}

# ---- the table ----------------------------------------------------------------------------------

volume_new v file
volume_mount v "$(join_options create,checkpoint_interval=0 "${COST_OPTIONS:-}")"
for database in $DATABASES; do
    step "$database"
    DB=${V_MNT[v]}/$database
    mkdir "$DB"
    (measure "$database")
    note "$(tr '\n' ' ' <"$WORK/cost")"
    awk '{ sum += $2; text = text (NR > 1 ? ", " : "") $1 " " $2 } END { printf "%.2f | %s\n", sum, text }' "$WORK/cost" |
        sed "s/^/| $database | /; s/\$/ |/" >>"$WORK/table"
done
volume_unmount v
echo "| database | requests | by opcode |"
echo "|---|---|---|"
cat "$WORK/table"
