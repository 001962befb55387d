#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Not a test but a measurement: SQLite and PostgreSQL (pgbench) with ten times as much data as the
# quota, rows by a Zipf distribution, against the same with everything local. For each engine it
# writes a table ENGINE.table with throughput and hit rate over time to the present directory:
#     database_load.sh && plot_databases.py sqlite.table postgres.table doc/databases-quota.svg
# Hits are reads of the file system that needed no bytes from the store: the table counts GETs.
# CKPTFS_LOAD_ENGINES ("sqlite postgres"), CKPTFS_LOAD_SECONDS (600), CKPTFS_LOAD_QUOTA_MIB (128).
TEST_TIMEOUT=7200
OUTPUT=${OUTPUT:-$PWD}
export OUTPUT
. "$(dirname "$0")/../integration/lib.sh"

ENGINES=${CKPTFS_LOAD_ENGINES:-sqlite postgres}
TIME=${CKPTFS_LOAD_SECONDS:-600}
QUOTA_MIB=${CKPTFS_LOAD_QUOTA_MIB:-128}
INTERVAL=$((TIME / 60 > 0 ? TIME / 60 : 1))
ZIPF=$TEST_TOP_SRCDIR/tests/load/sqlite_zipf.py

# One line an interval: reads of the kernel, and GETs.
sample() { # VOLUME FILE
    while [ -e "$WORK/sampling" ]; do
        echo "$("$CKPTCTL" status --fuse --json "${V_MNT[$1]}" | jq .READ) $(volume_status "$1" .get_requests)" >>"$2"
        sleep "$INTERVAL"
    done
}

make_sqlite() { python3 "$ZIPF" make "${V_MNT[$1]}/db" $((QUOTA_MIB * 10)); }
run_sqlite() { python3 "$ZIPF" run "${V_MNT[$1]}/db" "$TIME" "$INTERVAL" >"$2"; }

begin_postgres() {
    PG_DATA=${V_MNT[$1]}/pg
    chmod 755 "${V_MNT[$1]}"
}
make_postgres() {
    begin_postgres "$1"
    pg_init
    pg_start
    pg_tool pgbench -i -q -s $((QUOTA_MIB * 10 / 15)) 2>"$WORK/pgbench.out" || fail "$(tail -n 5 "$WORK/pgbench.out")"
    pg_stop
}
run_postgres() {
    begin_postgres "$1"
    cat >"$WORK/pg/zipf.sql" <<'SQL'
\set aid random_zipfian(1, 100000 * :scale, 1.05)
\set delta random(-5000, 5000)
BEGIN;
UPDATE pgbench_accounts SET abalance = abalance + :delta WHERE aid = :aid;
SELECT abalance FROM pgbench_accounts WHERE aid = :aid;
COMMIT;
SQL
    pg_start
    pg_tool pgbench -n -c 2 -T "$TIME" -P "$INTERVAL" -s $((QUOTA_MIB * 10 / 15)) -f "$WORK/pg/zipf.sql" 2>&1 |
        awk -v every="$INTERVAL" '/^progress:/ { printf "%d\n", $4 * every }' >"$2"
    pg_stop
}

measure() { # ENGINE local|quota OPTIONS
    local name=$1-$2
    volume_new "$name" file
    volume_mount "$name" "create,checkpoint_interval=10s,$3"
    step "$1, $2: making the data"
    "make_$1" "$name"
    volume_checkpoint "$name" -q
    drop_kernel_caches
    step "$1, $2: $TIME s"
    : >"$WORK/sampling"
    sample "$name" "$WORK/$name.sampled" &
    local sampler=$!
    "run_$1" "$name" "$WORK/$name.done"
    rm "$WORK/sampling"
    wait "$sampler"
    note "operations: $(awk '{ n += $1 } END { print n }' "$WORK/$name.done"), GETs: $(volume_status "$name" .get_requests), disk: $(($(disk_bytes "${V_ROOT[$name]}") >> 20)) MiB"
    volume_unmount "$name"
    rm -rf "${V_ROOT[$name]}" "${V_DIRECTORY[$name]}"
}

for engine in $ENGINES; do
    [ "$engine" != postgres ] || . "$TEST_HERE/postgres.sh"
    measure "$engine" local quota=0
    measure "$engine" quota "quota=${QUOTA_MIB}M"
    {
        echo "# $engine, $((QUOTA_MIB * 10)) MiB of data, a quota of $QUOTA_MIB MiB: second, operations a second when all is local, with the quota, and per mille of READ requests without a GET"
        paste -d ' ' "$WORK/$engine-local.done" "$WORK/$engine-quota.done" <(
            awk 'NR > 1 { r = $1 - reads; g = $2 - gets; if (g > r) g = r; printf "%d\n", (r > 0 ? 1000 * (r - g) / r : 1000) } { reads = $1; gets = $2 }' "$WORK/$engine-quota.sampled") |
            awk -v every="$INTERVAL" 'NF == 3 { printf "%d %.0f %.0f %d\n", NR * every, $1 / every, $2 / every, $3 }'
    } >"$OUTPUT/$engine.table"
    note "$OUTPUT/$engine.table"
done
