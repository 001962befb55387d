# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# A PostgreSQL server for tests: in the foreground of a background job, on a Unix socket only, as a
# system user, since it refuses to run as root. Stands on lib.sh;
# the test sets PG_DATA, the data directory.

PG_BIN=${PG_BIN:-$(find /usr/lib/postgresql -maxdepth 2 -name bin 2>/dev/null | sort -V | tail -n 1)}
[ -x "$PG_BIN/postgres" ] || fail "PostgreSQL's programs are missing; install the package postgresql"
PG_USER=postgres
PG_PID=
PG_JOB=
# Socket paths are at most 107 bytes long: not below a work directory that may be deep.
PG_SOCKET=$(mktemp -d /tmp/ckptfs-pg.XXXXXX)
remember_directory "$PG_SOCKET"
mkdir -p "$WORK/pg"
if [ "$(id -u)" -eq 0 ]; then
    getent passwd "$PG_USER" >/dev/null || fail "there is no system user $PG_USER for PostgreSQL"
    chown "$PG_USER" "$PG_SOCKET" "$WORK/pg"
fi

# Words to put before a command: a job started with them is one process, the command itself.
AS_POSTGRES=(env "HOME=$WORK/pg" "PGHOST=$PG_SOCKET" PGDATABASE=postgres PGCONNECT_TIMEOUT=10)
if [ "$(id -u)" -eq 0 ]; then
    AS_POSTGRES=(setpriv "--reuid=$PG_USER" "--regid=$PG_USER" --init-groups "${AS_POSTGRES[@]}")
fi

as_postgres() { "${AS_POSTGRES[@]}" "$@"; } # COMMAND...

pg_tool() { # TOOL ARGUMENTS...: a client program against the server
    local tool=$1
    shift
    as_postgres "$PG_BIN/$tool" "$@"
}

pg_sql() { # SQL
    pg_tool psql -X -q -A -t -v ON_ERROR_STOP=1 -c "$1"
}

pg_init() {
    mkdir -p "$PG_DATA"
    [ "$(id -u)" -ne 0 ] || chown "$PG_USER" "$PG_DATA"
    chmod 700 "$PG_DATA"
    as_postgres "$PG_BIN/initdb" -D "$PG_DATA" --data-checksums --auth=trust --encoding=UTF8 \
        --locale=C >"$WORK/initdb.out" 2>&1 || {
        tail -n 20 "$WORK/initdb.out"
        fail "initdb failed"
    }
    as_postgres tee -a "$PG_DATA/postgresql.conf" >/dev/null <<CONF
listen_addresses = ''
unix_socket_directories = '$PG_SOCKET'
max_connections = 20
shared_buffers = 16MB
max_wal_size = 64MB
min_wal_size = 32MB
checkpoint_timeout = 30s
fsync = on
synchronous_commit = on
full_page_writes = on
wal_compression = off
autovacuum_naptime = 5s
log_checkpoints = on
CONF
}

pg_answers() {
    pg_tool pg_isready -q || ! is_running "$PG_PID"
}

pg_start() {
    spawn "$WORK/postgres.out" "${AS_POSTGRES[@]}" "$PG_BIN/postgres" -D "$PG_DATA"
    PG_PID=$SPAWN_PID
    PG_JOB=$SPAWN_JOB
    wait_for 60 "PostgreSQL to accept connections" pg_answers
    is_running "$PG_PID" || {
        tail -n 20 "$WORK/postgres.out"
        fail "PostgreSQL ended instead of starting"
    }
}

pg_stop() { # cleanly, with a last checkpoint of PostgreSQL's own
    local status=0
    kill -INT "$PG_PID"
    wait_for 60 "PostgreSQL to stop" pg_is_gone
    wait "$PG_JOB" || status=$?
    PG_PID=
    [ $status -eq 0 ] || {
        tail -n 20 "$WORK/postgres.out"
        fail "PostgreSQL ended with $status"
    }
}

pg_is_gone() { ! is_running "$PG_PID"; }

# The server and all its processes at once: its file system is dead.
pg_crash() {
    local children pid
    [ -n "$PG_PID" ] || return 0
    children=$(pgrep -P "$PG_PID" || :)
    kill -KILL "$PG_PID" 2>/dev/null || :
    wait "$PG_JOB" 2>/dev/null || :
    for pid in $children; do
        kill -KILL "$pid" 2>/dev/null || :
    done
    for pid in $children; do
        wait_for 30 "the end of PostgreSQL's process $pid" process_ended "$pid"
    done
    PG_PID=
}

process_ended() { ! is_running "$1"; }
