#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# ckptfs in a few minutes, on a fresh Debian 12 machine with nothing but this checkout: builds it,
# puts a SQLite and a PostgreSQL database on a volume, forces a checkpoint, loses the machine's
# storage, and gets both databases back from the object store alone. Cleans up after itself, and
# ends with an error when anything is not as it should be. Keeps: installed packages,
# build-quickstart/.
set -euo pipefail
export LC_ALL=C
export PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
top=$(cd "$(dirname "$0")/.." && pwd)
build=$top/build-quickstart
ckptfs=$build/ckptfs
ckptctl=$build/ckptctl
postgres_pid=
work=
began=$(date +%s%3N)

say() {
    local ms=$(($(date +%s%3N) - began))
    printf '\n[%3d.%d s] %s\n' $((ms / 1000)) $((ms % 1000 / 100)) "$*"
}
tell() { printf '    %s\n' "$*"; }
fail() {
    echo "quickstart: FAILED: $*" >&2
    exit 1
}

# ---- the daemon ---------------------------------------------------------------------------------

# It runs in the background; its storage root, a directory made for this run, tells it from others.
daemon_pids() { pgrep -f -- "ckptfs.*root=${root}[ ,]" || :; }
daemon_is_gone() { [ -z "$(daemon_pids)" ]; }
is_mounted() { grep -q " $mountpoint " /proc/self/mountinfo; }

wait_until() { # SECONDS COMMAND...
    local end=$(($(date +%s) + $1))
    shift
    until "$@"; do
        [ "$(date +%s)" -lt "$end" ] || return 1
        sleep 0.1
    done
}

mount_volume() { # EXTRA-OPTIONS
    local start
    start=$(date +%s%3N)
    "$ckptfs" -o "root=$root,log_file=$work/ckptfs.log,checkpoint_interval=10s$1" "$source" "$mountpoint"
    tell "ckptfs -o root=$root$1 $source $mountpoint"
    tell "mounted in $(($(date +%s%3N) - start)) ms"
}

status_of() { "$ckptctl" status --json "$mountpoint" | jq -r "$1"; }

# ---- PostgreSQL ---------------------------------------------------------------------------------

as_postgres() ( # in a directory that the user postgres may enter
    cd "$work/pg" || exit
    if [ "$(id -u)" -eq 0 ]; then
        setpriv --reuid=postgres --regid=postgres --init-groups env "HOME=$work/pg" \
            "PGHOST=$work/pg" PGDATABASE=postgres "$@"
    else
        env "PGHOST=$work/pg" PGDATABASE=postgres "$@"
    fi
)
sql() { as_postgres "$pg_bin/psql" -X -q -A -t -v ON_ERROR_STOP=1 -c "$1"; }
postgres_answers() { as_postgres "$pg_bin/pg_isready" -q; }
# The first line of postmaster.pid is the server's process.
postgres_process() { head -n 1 "$mountpoint/pg/postmaster.pid" 2>/dev/null; }

start_postgres() {
    as_postgres "$pg_bin/pg_ctl" -D "$mountpoint/pg" -l "$work/pg/postgres.log" -w -t 60 start >/dev/null 2>&1 ||
        fail "PostgreSQL does not start: $(tail -n 5 "$work/pg/postgres.log")"
    postgres_pid=$(postgres_process)
}
postgres_is_gone() { ! kill -0 "$postgres_pid" 2>/dev/null; }

postgres_sums() { # one line a table: rows and a sum over the hashes of all rows
    local table
    for table in pgbench_accounts pgbench_branches pgbench_tellers pgbench_history; do
        sql "SELECT '$table', count(*), coalesce(sum(hashtext(t::text)::bigint), 0) FROM $table t"
    done
}

sqlite_sums() { # rows and the SHA-256 of the whole database as SQL text
    echo "$(sqlite3 "$mountpoint/sqlite/app.db" 'SELECT count(*) FROM event')" \
        "$(sqlite3 "$mountpoint/sqlite/app.db" .dump | sha256sum | cut -c1-16)"
}

# ---- leaving nothing behind ---------------------------------------------------------------------

clean_up() {
    local status=$? pid
    trap - EXIT INT TERM HUP
    set +e
    [ -n "$work" ] || exit "$status"
    if [ -n "$postgres_pid" ] && ! postgres_is_gone; then
        kill -QUIT "$postgres_pid"
        wait_until 20 postgres_is_gone || kill -KILL "$postgres_pid"
    fi
    if is_mounted; then
        umount "$mountpoint" 2>/dev/null || fusermount3 -u -q "$mountpoint" || umount -l "$mountpoint"
    fi
    wait_until 60 daemon_is_gone || for pid in $(daemon_pids); do kill -KILL "$pid"; done
    if [ "$status" -ne 0 ] && [ -s "$work/ckptfs.log" ]; then
        echo "--- the end of the daemon's log" >&2
        tail -n 10 "$work/ckptfs.log" >&2
    fi
    cd /
    if is_mounted; then
        echo "quickstart: $mountpoint is still mounted" >&2
        exit 1
    fi
    rm -rf "$work"
    [ "$status" -ne 0 ] || say "All is well; $work is removed again."
    exit "$status"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# ---- build --------------------------------------------------------------------------------------

say "Packages"
"$top/contrib/install-packages.sh" build demo
pg_bin=$(find /usr/lib/postgresql -maxdepth 2 -name bin | sort -V | tail -n 1)
[ -x "$pg_bin/initdb" ] || fail "PostgreSQL was not installed"
if [ ! -c /dev/fuse ] && [ "$(id -u)" -eq 0 ]; then
    modprobe fuse 2>/dev/null || :
    [ -c /dev/fuse ] || mknod -m 666 /dev/fuse c 10 229 || :
fi
[ -c /dev/fuse ] || fail "there is no /dev/fuse: this machine cannot mount FUSE file systems"

say "Build (build-quickstart/)"
mkdir -p "$build"
(
    cd "$top"
    [ -x configure ] && [ ! configure.ac -nt configure ] || autoreconf -i
    cd "$build"
    [ -f Makefile ] || "$top/configure"
    make -j"$(nproc)"
) >"$build/build.txt" 2>&1 || {
    tail -n 30 "$build/build.txt" >&2
    fail "the build failed; all of it is in $build/build.txt"
}
tell "$("$ckptfs" --version | head -n 1)"

# ---- a volume with two databases on it ----------------------------------------------------------

work=$(mktemp -d /var/tmp/ckptfs-quickstart.XXXXXX)
chmod 755 "$work"
root=$work/root
bucket=$work/bucket
mountpoint=$work/mnt
source=file://$bucket/demo
mkdir "$root" "$bucket" "$mountpoint" "$work/pg"
[ "$(id -u)" -ne 0 ] || chown postgres "$work/pg"

say "A volume in $source"
"$ckptctl" create "$source"
mount_volume ""

say "SQLite: journal_mode=WAL, synchronous=FULL"
mkdir "$mountpoint/sqlite"
{
    echo "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;"
    echo "CREATE TABLE event(id INTEGER PRIMARY KEY, at TEXT, body TEXT);"
    echo "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 50000)"
    echo "INSERT INTO event SELECT i, datetime('now'), hex(randomblob(50)) FROM n;"
} | sqlite3 "$mountpoint/sqlite/app.db" >/dev/null
start=$(date +%s%3N)
{
    echo "PRAGMA synchronous=FULL;"
    for ((i = 0; i < 2000; i++)); do
        echo "INSERT INTO event(at, body) VALUES(datetime('now'), 'single $i');"
    done
} | sqlite3 "$mountpoint/sqlite/app.db" >/dev/null
ms=$(($(date +%s%3N) - start))
tell "50000 rows in one transaction, then 2000 commits of one row in $ms ms: $((2000 * 1000 / (ms + 1))) commits/s"

say "PostgreSQL: initdb --data-checksums, pgbench"
mkdir "$mountpoint/pg"
[ "$(id -u)" -ne 0 ] || chown postgres "$mountpoint/pg"
chmod 700 "$mountpoint/pg"
as_postgres "$pg_bin/initdb" -D "$mountpoint/pg" --data-checksums --auth=trust --locale=C \
    --encoding=UTF8 >"$work/initdb.txt" 2>&1 || fail "initdb: $(tail -n 3 "$work/initdb.txt")"
as_postgres tee -a "$mountpoint/pg/postgresql.conf" >/dev/null <<CONF
listen_addresses = ''
unix_socket_directories = '$work/pg'
CONF
start_postgres
as_postgres "$pg_bin/pgbench" -i -q -s 5 >"$work/pgbench.txt" 2>&1 || fail "pgbench -i"
as_postgres "$pg_bin/pgbench" -c 4 -j 2 -T 5 >"$work/pgbench.txt" 2>&1 || fail "pgbench"
tell "$(sed -n 's/^tps = \([0-9.]*\).*/\1 transactions per second, 4 clients, 5 s/p' "$work/pgbench.txt")"
tell "$(sql 'SELECT count(*) FROM pgbench_accounts') accounts, $(sql 'SELECT count(*) FROM pgbench_history') transactions in the history"

# ---- the checkpoint -----------------------------------------------------------------------------

say "A checkpoint by ioctl (ckptctl checkpoint), with the server running"
sqlite_before=$(sqlite_sums)
postgres_before=$(postgres_sums)
start=$(date +%s%3N)
tell "$("$ckptctl" checkpoint "$mountpoint")"
tell "published in $(($(date +%s%3N) - start)) ms"
content=$(du -s --block-size=1 "$mountpoint" | cut -f1)
stored=$(du -s --apparent-size --block-size=1 "$bucket" | cut -f1)
tell "$((content >> 20)) MiB of files, $((stored >> 20)) MiB in the bucket, $(find "$bucket" -type f | wc -l) objects"
tell "since the mount: $(status_of '"\(.put_requests) PUT, \(.get_requests) GET, \(.head_requests) HEAD, \(.list_requests) LIST requests, \(.publications) checkpoints published, \(.fsyncs) fsyncs"')"
generation=$(status_of .published_generation)
tell "generation $generation"

# ---- the disaster -------------------------------------------------------------------------------

say "The machine is lost: kill -9 of everything, and the storage root is deleted"
children=$(pgrep -P "$postgres_pid" || :)
kill -KILL "$postgres_pid"
for pid in $children; do
    kill -KILL "$pid" 2>/dev/null || :
done
wait_until 20 postgres_is_gone || fail "PostgreSQL does not end"
postgres_pid=
for pid in $(daemon_pids); do
    kill -KILL "$pid"
done
wait_until 20 daemon_is_gone || fail "the daemon does not end"
umount -l "$mountpoint" 2>/dev/null || fusermount3 -u -z "$mountpoint"
rm -rf "$root"
mkdir "$root"

say "Mounted again, from the bucket alone"
mount_volume ",takeover"

say "Are the databases intact?"
said=$(sqlite3 "$mountpoint/sqlite/app.db" "PRAGMA integrity_check")
[ "$said" = ok ] || fail "SQLite's integrity_check: $said"
sqlite_after=$(sqlite_sums)
[ "$sqlite_before" = "$sqlite_after" ] || fail "SQLite: before '$sqlite_before', after '$sqlite_after'"
tell "SQLite: integrity_check ok; rows and checksum as before: $sqlite_after"
start_postgres
postgres_after=$(postgres_sums)
[ "$postgres_before" = "$postgres_after" ] || fail "PostgreSQL: before
$postgres_before
after
$postgres_after"
tell "PostgreSQL recovered; rows and checksums of all tables as before:"
while read -r line; do
    tell "    ${line//|/ }"
done <<<"$postgres_after"
as_postgres "$pg_bin/pg_amcheck" --all --heapallindexed --install-missing || fail "pg_amcheck found damage"
tell "pg_amcheck: ok"
as_postgres "$pg_bin/pg_ctl" -D "$mountpoint/pg" -w -m fast stop >/dev/null || fail "PostgreSQL does not stop"
postgres_pid=
as_postgres "$pg_bin/pg_checksums" --check -D "$mountpoint/pg" >"$work/checksums.txt" 2>&1 ||
    fail "pg_checksums: $(cat "$work/checksums.txt")"
tell "pg_checksums: $(sed -n 's/^Blocks scanned: *//p' "$work/checksums.txt") blocks, no bad ones"
tell "read back: $(status_of '"\(.get_requests) GET requests, \(.store_bytes_read) bytes"')"
umount "$mountpoint"
wait_until 60 daemon_is_gone || fail "the daemon does not end after umount"
