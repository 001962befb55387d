#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# What a transaction costs in FUSE requests, by opcode, for each database of the zoo: the table of
# doc/databases.md. `make request-costs` runs it; so does
#     tests/integration/request_cost.sh [DATABASE...]
# One client, small transactions, a warm database, no checkpoints of the volume meanwhile.
# COST_OPTIONS: options for the mount.
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

# ---- the databases ------------------------------------------------------------------------------

measure_helper() { # PROGRAM PLACE-WORDS...
    need_helper "$1"
    server one_load.sh
    LOADER=("$HELPERS/$1")
    shift
    LOAD_PLACE=("$@")
    measure_load
}

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

# The functions of a server's file; $VOLUME is what they look at.
server() { # FILES...
    local file
    # shellcheck disable=SC2034 # read in the files
    VOLUME=v
    for file in "$@"; do
        # shellcheck disable=SC1090
        . "$TEST_HERE/$file"
    done
}

measure_clients() {
    local n=500
    clients_run 300
    begin_count
    clients_run $n
    end_count $n
    db_stop
}

measure_mariadb() {
    server clients.sh mariadb.sh
    db_init
    measure_clients
}

measure_redis() { # MODE
    server clients.sh redis.sh
    redis_mode "$1"
    db_init
    measure_clients
}

# The load program connects, or opens the file: that is counted with a short run and taken away.
measure_load() {
    local n=500
    one_load 100
    begin_count
    one_load 1
    requests "$WORK/own.1"
    cp "$WORK/count.0" "$WORK/own.0"
    requests "$WORK/count.0"
    one_load $((n + 1))
    end_count $n
}
one_load() { # N
    LOAD_STREAMS=1 "${LOADER[@]}" load "${LOAD_PLACE[@]}" "$STREAM" "$ACKS/$STREAM" 400 16 "$1" \
        >"$WORK/load.out" 2>&1 || fail "the load failed: $(cat "$WORK/load.out")"
}

measure_duckdb() {
    server one_load.sh node.sh duckdb.sh
    LOAD_PLACE=("$(load_place)")
    measure_load
}

measure_etcd() {
    server one_load.sh node.sh etcd.sh
    LOAD_PLACE=("$(load_place)")
    db_start
    measure_load
    db_stop
}

measure_git() {
    local n=50
    server git.sh
    db_init
    git_commits a 20
    begin_count
    git_commits a $n
    end_count $n
}

measure() { # DATABASE
    case $1 in
        sqlite-*) measure_helper sqlite_load "$DB/zoo.db" "${1#sqlite-}" ;;
        lmdb | rocksdb) measure_helper "$1_load" "$DB" ;;
        postgres | mariadb | duckdb | etcd | git) "measure_$1" ;;
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
    rm -rf "${ACKS:?}"/* "$WORK/clients"
    (measure "$database")
    note "$(tr '\n' ' ' <"$WORK/cost")"
    awk '{ sum += $2; text = text (NR > 1 ? ", " : "") $1 " " $2 } END { printf "%.2f | %s\n", sum, text }' "$WORK/cost" |
        sed "s/^/| $database | /; s/\$/ |/" >>"$WORK/table"
done
volume_unmount v
echo "| database | requests | by opcode |"
echo "|---|---|---|"
cat "$WORK/table"
