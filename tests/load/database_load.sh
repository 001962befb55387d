#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Not a test but a measurement: SQLite and PostgreSQL (pgbench) with ten times as much data as the
# quota, rows by a Zipf distribution, against the same with everything local. The two take turns, so
# that what else the machine does hits both. For each engine it writes a table ENGINE.table with
# throughput and hit rate over time to the present directory. In the build directory:
#     SRCDIR/tests/load/database_load.sh
#     SRCDIR/tests/load/plot_databases.py sqlite.table postgres.table SRCDIR/doc/databases-quota.svg
# Hits are READ requests of the kernel that did not have to wait for the store. The store is a
# directory that takes CKPTFS_LOAD_STORE_MS longer for each request, as one in a network does (10).
# CKPTFS_LOAD_ENGINES ("sqlite postgres"), CKPTFS_LOAD_SECONDS for each side (600),
# CKPTFS_LOAD_TURN_S (10), CKPTFS_LOAD_QUOTA_MIB (128).
TEST_TIMEOUT=10800
OUTPUT=${OUTPUT:-$PWD}
export OUTPUT
. "$(dirname "$0")/../integration/lib.sh"

ENGINES=${CKPTFS_LOAD_ENGINES:-sqlite postgres}
TIME=${CKPTFS_LOAD_SECONDS:-600}
TURN=${CKPTFS_LOAD_TURN_S:-10}
QUOTA_MIB=${CKPTFS_LOAD_QUOTA_MIB:-128}
STORE_MS=${CKPTFS_LOAD_STORE_MS:-10}
DATA_MIB=$((QUOTA_MIB * 10))
SCALE=$((DATA_MIB / 15)) # of pgbench: 15 MiB each
ZIPF=$TEST_TOP_SRCDIR/tests/load/sqlite_zipf.py
SIDES=(local quota)
faults=$WORK/faults

# The kernel's cache would hold all of the data.
forget_begin() { # ENGINE
    local side
    forgetting=()
    for side in "${SIDES[@]}"; do
        python3 "$ZIPF" forget "${V_MNT[$1-$side]}" 1 &
        forgetting+=("$!")
    done
}
forget_end() {
    kill "${forgetting[@]}"
    wait "${forgetting[@]}" || :
}
# Reads of the kernel, and of them those that waited for the store.
sample() { # VOLUME
    echo "$("$CKPTCTL" status --fuse --json "${V_MNT[$1]}" | jq .READ) $(volume_status "$1" .cold_reads)"
}

# Each prints a line a turn: the side's number, and its operations.
make_sqlite() { python3 "$ZIPF" make "${V_MNT[sqlite-$1]}/db" "$DATA_MIB"; }
turns_sqlite() {
    python3 "$ZIPF" run "$TIME" "$TURN" "${V_MNT[sqlite-local]}/db" "${V_MNT[sqlite-quota]}/db"
}
begin_sqlite() { :; }
end_sqlite() { :; }

declare -A PG_PIDS PG_JOBS
postgres_of() { # SIDE
    PG_DATA=${V_MNT[postgres-$1]}/pg
    export PGPORT=5432
    [ "$1" = local ] || PGPORT=5433
}
postgres_start() { # SIDE
    postgres_of "$1"
    pg_start
    PG_PIDS[$1]=$PG_PID
    PG_JOBS[$1]=$PG_JOB
}
postgres_stop() { # SIDE
    PG_PID=${PG_PIDS[$1]}
    PG_JOB=${PG_JOBS[$1]}
    pg_stop
}
make_postgres() { # SIDE
    postgres_of "$1"
    chmod 755 "${V_MNT[postgres-$1]}"
    pg_init
    echo "port = $PGPORT" >>"$PG_DATA/postgresql.conf"
    postgres_start "$1"
    pg_tool pgbench -i -q -s "$SCALE" >"$WORK/pgbench.out" 2>&1 || fail "$(tail -n 5 "$WORK/pgbench.out")"
    postgres_stop "$1"
}
begin_postgres() {
    local side
    # Groups of neighbours by rank lie far from each other in the table.
    cat >"$WORK/pg/zipf.sql" <<'SQL'
\set rows 100000 * :scale / 65536
\set group permute(random_zipfian(1, 65536, 1.001) - 1, 65536, 7)
\set aid 1 + :group * :rows + random(0, :rows - 1)
\set delta random(-5000, 5000)
\set kind random(1, 5)
\if :kind = 1
UPDATE pgbench_accounts SET abalance = abalance + :delta WHERE aid = :aid;
\else
SELECT abalance FROM pgbench_accounts WHERE aid = :aid;
\endif
SQL
    for side in "${SIDES[@]}"; do
        postgres_start "$side"
    done
}
turns_postgres() {
    local i turn count
    for ((turn = 0; turn < TIME / TURN; turn++)); do
        for i in 0 1; do
            postgres_of "${SIDES[$i]}"
            pg_tool pgbench -n -c 2 -T "$TURN" -s "$SCALE" -f "$WORK/pg/zipf.sql" >"$WORK/pgbench.out" 2>&1 ||
                fail "$(tail -n 5 "$WORK/pgbench.out")"
            count=$(sed -n 's/^number of transactions actually processed: \([0-9]*\).*/\1/p' "$WORK/pgbench.out")
            echo "$i $count"
        done
    done
}
end_postgres() {
    local side
    for side in "${SIDES[@]}"; do
        postgres_stop "$side"
    done
}

measure() { # ENGINE
    local side i count row="" out=$OUTPUT/$1.table before=(0 0) now=(0 0)
    for side in "${SIDES[@]}"; do
        volume_new "$1-$side" file
        MOUNT_ENVIRONMENT=("CKPTFS_STORE_FAULTS=$faults")
        volume_mount "$1-$side" "create,checkpoint_interval=10s,quota=$([ "$side" = local ] && echo 0 || echo "${QUOTA_MIB}M")"
        step "$1, $side: making the data"
        "make_$1" "$side"
        volume_checkpoint "$1-$side" -q
    done
    drop_kernel_caches
    echo "slow $STORE_MS" >"$faults"
    "begin_$1"
    forget_begin "$1"
    step "$1: $TIME s each, in turns of $TURN s"
    echo "# $1, $DATA_MIB MiB of data, a quota of $QUOTA_MIB MiB, $STORE_MS ms a request: second, operations a second with all local and with the quota, reads that did not wait for the store per mille" >"$out"
    read -r -a before < <(sample "$1-quota")
    local seconds=0
    while read -r i count; do
        if [ "$i" = 0 ]; then
            row=$((count / TURN))
            continue
        fi
        read -r -a now < <(sample "$1-quota")
        seconds=$((seconds + TURN))
        local reads=$((now[0] - before[0])) cold=$((now[1] - before[1]))
        echo "$seconds $row $((count / TURN)) $((reads > 0 ? 1000 - 1000 * cold / reads : 1000))" >>"$out"
        before=("${now[@]}")
    done < <("turns_$1")
    assert_equal "$TIME" "$seconds" "seconds of turns"
    forget_end
    "end_$1"
    rm "$faults"
    note "$(awk '!/^#/ { l += $2; q += $3; h += $4; n++ } END { printf "all local %d a second, with the quota %d (%.2f), hits %d per mille", l / n, q / n, q / l, h / n }' "$out")"
    note "disk: $(($(disk_bytes "${V_ROOT[$1-local]}") >> 20)) and $(($(disk_bytes "${V_ROOT[$1-quota]}") >> 20)) MiB; $out"
    for side in "${SIDES[@]}"; do
        volume_unmount "$1-$side"
        rm -rf "${V_ROOT[$1-$side]}" "${V_DIRECTORY[$1-$side]}"
    done
}

for engine in $ENGINES; do
    [ "$engine" != postgres ] || . "$TEST_HERE/postgres.sh"
    measure "$engine"
done
