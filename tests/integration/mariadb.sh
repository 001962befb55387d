# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# shellcheck disable=SC2034 # CLIENT_PROGRAM is read in clients.sh
# A MariaDB server with InnoDB for tests, on a Unix socket only, in $DB/data. Stands on lib.sh and
# clients.sh.

need_program mariadbd mariadb-server-core
need_program mariadb mariadb-client-core
MARIADB_PID=
MARIADB_JOB=
# Socket paths are at most 107 bytes long.
MARIADB_SOCKET=$(mktemp -d /tmp/ckptfs-mariadb.XXXXXX)
remember_directory "$MARIADB_SOCKET"
CLIENT_PROGRAM=(mariadb --no-defaults "--socket=$MARIADB_SOCKET/s" -uroot --unbuffered -N -B zoo)

MARIADB_OPTIONS=(--no-defaults "--socket=$MARIADB_SOCKET/s" --skip-networking "--tmpdir=$MARIADB_SOCKET"
    "--pid-file=$MARIADB_SOCKET/pid" --innodb-flush-method=O_DIRECT
    --innodb-flush-log-at-trx-commit=1 --innodb-buffer-pool-size=32M --innodb-log-file-size=16M)
[ "$(id -u)" -ne 0 ] || MARIADB_OPTIONS+=(--user=root)

server_pid() { echo "$MARIADB_PID"; }
mariadb_sql() { "${CLIENT_PROGRAM[@]}" -e "$1"; } # SQL

db_init() {
    local user=()
    [ "$(id -u)" -ne 0 ] || user=(--user=root)
    mariadb-install-db --no-defaults "--datadir=$DB/data" --auth-root-authentication-method=normal \
        --skip-test-db --innodb-log-file-size=16M "${user[@]}" >"$WORK/mariadb-init.out" 2>&1 || {
        tail -n 20 "$WORK/mariadb-init.out"
        fail "mariadb-install-db failed"
    }
    db_start
    "${CLIENT_PROGRAM[@]:0:5}" -e "CREATE DATABASE zoo"
    mariadb_sql "CREATE TABLE ids(run INT, client INT, n INT, PRIMARY KEY (run, client, n)) ENGINE=InnoDB"
    mariadb_sql "CREATE TABLE slots(k INT PRIMARY KEY, run INT, client INT, n INT, body LONGTEXT) ENGINE=InnoDB"
}

mariadb_answers() {
    "${CLIENT_PROGRAM[@]:0:5}" -e "SELECT 1" >/dev/null 2>&1 || ! is_running "$MARIADB_PID"
}

db_start() {
    spawn "$WORK/mariadb.out" mariadbd "${MARIADB_OPTIONS[@]}" "--datadir=$DB/data"
    MARIADB_PID=$SPAWN_PID
    MARIADB_JOB=$SPAWN_JOB
    wait_for 60 "MariaDB to accept connections" mariadb_answers
    is_running "$MARIADB_PID" || fail "MariaDB ended instead of starting: $(tail -n 20 "$WORK/mariadb.out")"
}

mariadb_is_gone() { ! is_running "$MARIADB_PID"; }

db_stop() {
    kill -TERM "$MARIADB_PID"
    wait_for 60 "MariaDB to stop" mariadb_is_gone
    wait "$MARIADB_JOB" || fail "MariaDB ended with $?: $(tail -n 20 "$WORK/mariadb.out")"
    MARIADB_PID=
}

db_kill() {
    [ -n "$MARIADB_PID" ] || return 0
    kill -KILL "$MARIADB_PID" 2>/dev/null || :
    wait "$MARIADB_JOB" 2>/dev/null || :
    MARIADB_PID=
}
db_crash() { db_kill; }

client_commands() { # RUN CLIENT LIMIT
    awk -v run="$1" -v client="$2" -v limit="$3" 'BEGIN {
        for (n = 1; limit == 0 || n <= limit; n++) {
            id = run "-" client ":" n
            printf "BEGIN; INSERT INTO ids VALUES(%d, %d, %d);", run, client, n
            printf " REPLACE INTO slots VALUES(%d, %d, %d, %d, REPEAT(MD5(\"%s\"), 20));",
                client * 4 + n % 4, run, client, n, id
            printf " COMMIT; SELECT \"%s\";\n", id
        }
    }'
}

db_ids() {
    local bad
    bad=$(mariadb_sql "CHECK TABLE ids, slots EXTENDED" | grep -vE $'\tstatus\tOK$') || :
    [ -z "$bad" ] || { echo "CHECK TABLE: $bad" >&2 && return 1; }
    bad=$(mariadb_sql "SELECT run, client, COUNT(*), MAX(n) FROM ids GROUP BY 1, 2 HAVING COUNT(*) <> MAX(n)")
    [ -z "$bad" ] || { echo "gaps in ids: $bad" >&2 && return 1; }
    bad=$(mariadb_sql "SELECT newest.*, slots.run, slots.n FROM
        (SELECT *, ROW_NUMBER() OVER (PARTITION BY client, n % 4 ORDER BY run DESC, n DESC) AS place FROM ids)
            AS newest
        LEFT JOIN slots ON k = newest.client * 4 + newest.n % 4
        WHERE place = 1 AND NOT ((slots.run, slots.n) <=> (newest.run, newest.n))")
    [ -z "$bad" ] || { echo "slots do not match ids: $bad" >&2 && return 1; }
    bad=$(mariadb_sql "SELECT k FROM slots WHERE body <> REPEAT(MD5(CONCAT(run, '-', client, ':', n)), 20)")
    [ -z "$bad" ] || { echo "slots have wrong bodies: $bad" >&2 && return 1; }
    mariadb_sql "SELECT CONCAT(run, '-', client, ':', n) FROM ids"
}
