# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# shellcheck disable=SC2034 # MOUNT_ENVIRONMENT is read in lib.sh
#
# The disasters that every database goes through. The test that sources this defines:
#
#     db_init            makes the database below $DB (a directory on the mount)
#     db_start, db_stop  start (with recovery) and cleanly stop a server, where there is one
#     db_crash           ends the processes that have the dead file system open
#     db_kill            kill -9 of whatever has the database open, load included, on a healthy mount
#     db_load_start      starts a load in the background; it acknowledges in $ACKS
#     db_load_stop       ends that load and waits; the load may have failed
#     db_load_healthy    as db_load_stop, but a load that failed fails the test
#     db_load_bulk N     writes N bytes in large transactions; any error fails the test
#     db_acked           prints what was acknowledged, as STREAM:n lines; no load is running
#     db_mark FILE       what was acknowledged until now goes to FILE, at the latest when the load ends
#     db_progress        prints how many transactions the running load has made, about
#     db_ids             checks the whole database and prints the transactions it holds
#     db_max_ms          the longest commit of the load that ended last
#     db_forget          forgets all acknowledgements
#
# Transactions of a stream have the numbers 1, 2, 3, ..., and at most one is under way in a stream
# (UNDER_WAY, where they are acknowledged in groups).

DB=              # directory of the database; set by disaster_volume
ACKS=$WORK/acks  # acknowledgements, outside of every mount
UNDER_WAY=1
LOAD_STEP=100 # transactions before a database or its daemon is killed
mkdir -p "$ACKS"

CRASH_POINTS="checkpoint.planned checkpoint.staged checkpoint.recorded checkpoint.uploaded
    checkpoint.published_remotely checkpoint.publication_recorded checkpoint.cleaned"

progress_beyond() { [ "$(db_progress)" -ge "$1" ]; }

# Waits until the load that runs has made N transactions more.
load_progress() { # N
    local before
    before=$(db_progress)
    wait_for 30 "$1 more transactions" progress_beyond $((before + $1))
}

# Every acknowledged transaction must be there.
check_nothing_lost() { # WHAT [ACKED-FILE]
    local acked=${2:-$WORK/acked.txt}
    [ -n "${2:-}" ] || db_acked >"$acked"
    db_ids >"$WORK/ids.txt" || fail "$1: the database is damaged"
    sort -u "$acked" >"$WORK/acked.sorted"
    sort -u "$WORK/ids.txt" >"$WORK/ids.sorted"
    comm -23 "$WORK/acked.sorted" "$WORK/ids.sorted" >"$WORK/lost.txt"
    if [ -s "$WORK/lost.txt" ]; then
        head -n 5 "$WORK/lost.txt"
        fail "$1: $(wc -l <"$WORK/lost.txt") acknowledged transactions are lost"
    fi
    note "$1: intact, $(wc -l <"$WORK/ids.sorted") transactions, $(wc -l <"$WORK/acked.sorted") were acknowledged"
}

# Nothing newer than what was acknowledged (or under way) at a moment.
check_nothing_newer() { # WHAT ACKED-FILE
    sort -u "$WORK/known.txt" "$2" |
        awk -F: -v under_way="$UNDER_WAY" '
            FNR == NR { if ($2 + 0 > newest[$1]) newest[$1] = $2 + 0; next }
            $2 > newest[$1] + under_way { print }' - "$WORK/ids.txt" >"$WORK/newer.txt"
    if [ -s "$WORK/newer.txt" ]; then
        head -n 3 "$WORK/newer.txt"
        fail "$1: $(wc -l <"$WORK/newer.txt") transactions are newer than the checkpoint"
    fi
}

# The volume went back in time: from now on what it holds, as checked last, is what is known.
forget_the_lost() {
    cp "$WORK/ids.txt" "$WORK/known.txt"
    db_forget
}

disaster_volume() { # NAME: the database lives on this volume from now on
    VOLUME=$1
    DB=${V_MNT[$1]}/db
}

# The volume is mounted again after its daemon died: recover and check.
recover_and_check() { # WHAT
    db_start
    check_nothing_lost "$1"
}

# (a)
disaster_kill_daemon() {
    step "(a) kill -9 of the daemon in the middle of the load"
    volume_mount "$VOLUME"
    db_start
    db_load_start
    load_progress $LOAD_STEP
    # Long enough for checkpoints of the timer to be among what is interrupted.
    sleep "$((RANDOM % 3)).$RANDOM"
    volume_kill9 "$VOLUME"
    db_load_stop
    db_crash
    volume_mount "$VOLUME"
    recover_and_check "after kill -9"
    db_stop
    volume_unmount "$VOLUME"
}

# (f)
disaster_kill_database() {
    step "(f) kill -9 of the database in the middle of the load"
    volume_mount "$VOLUME"
    db_start
    db_load_start
    load_progress $LOAD_STEP
    sleep "0.$RANDOM"
    db_kill
    db_load_stop
    recover_and_check "after kill -9 of the database"
    db_stop
    volume_unmount "$VOLUME"
}

# (b)
disaster_kill_in_checkpoint() {
    local point
    for point in $CRASH_POINTS; do
        step "(b) the daemon dies at $point"
        MOUNT_ENVIRONMENT=("CKPTFS_CRASH_AT=$point")
        volume_mount "$VOLUME" checkpoint_interval=0
        db_start
        db_load_start
        load_progress 30
        [ -n "$TEST_PLAIN" ] || timeout 30 "$CKPTCTL" checkpoint --no-wait "${V_MNT[$VOLUME]}" \
            >"$WORK/checkpoint.txt" 2>&1 || note "ckptctl: $(head -n 1 "$WORK/checkpoint.txt")"
        volume_crashed "$VOLUME" 30 "the crash at $point"
        db_load_stop
        db_crash
        volume_mount "$VOLUME" checkpoint_interval=0
        recover_and_check "after the crash at $point"
        volume_checkpoint "$VOLUME"
        db_stop
        volume_unmount "$VOLUME"
    done
}

lose_root() {
    if [ -z "$TEST_PLAIN" ]; then
        rm -rf "${V_ROOT[$VOLUME]}"
    fi
}

# (c) for VOLUME, whatever its store is
disaster_lose_root() {
    step "(c) ${V_STORE[$VOLUME]}: the storage root is lost at rest"
    volume_mount "$VOLUME" checkpoint_interval=0
    db_start
    db_load_start
    load_progress 50
    db_load_healthy
    db_stop
    volume_checkpoint "$VOLUME"
    db_acked >"$WORK/acked.published"
    tree_digest "${V_MNT[$VOLUME]}" >"$WORK/digest.published"
    # What comes now is durable here, but not published: the timer is off.
    db_start
    db_load_start
    load_progress 50
    volume_kill9 "$VOLUME"
    db_load_stop
    db_crash
    lose_root
    if [ -n "$TEST_PLAIN" ]; then
        return 0
    fi
    volume_mount "$VOLUME" checkpoint_interval=0,takeover
    tree_digest "${V_MNT[$VOLUME]}" >"$WORK/digest.restored"
    assert_same_file "$WORK/digest.published" "$WORK/digest.restored" \
        "the restored volume against the last published checkpoint"
    db_start
    check_nothing_lost "restored, published at rest" "$WORK/acked.published"
    check_nothing_newer "restored, published at rest" "$WORK/acked.published"
    forget_the_lost
    lose_root_under_load
    db_stop
    volume_unmount "$VOLUME"
}

# The volume is mounted without a timer and the database runs, before and after.
lose_root_under_load() {
    step "(c) ${V_STORE[$VOLUME]}: the storage root is lost after a checkpoint under load"
    db_load_start
    load_progress $((LOAD_STEP / 2))
    db_mark "$WORK/acked.before"
    volume_checkpoint "$VOLUME"
    db_mark "$WORK/acked.after"
    load_progress $((LOAD_STEP / 2))
    volume_kill9 "$VOLUME"
    db_load_stop
    db_crash
    lose_root
    volume_mount "$VOLUME" checkpoint_interval=0,takeover
    db_start
    check_nothing_lost "restored, published under load" "$WORK/acked.before"
    check_nothing_newer "restored, published under load" "$WORK/acked.after"
    forget_the_lost
}

# (d)
OUTAGE_MS=8000
[ -z "$CKPTFS_TEST_LONG" ] || OUTAGE_MS=120000

watch_space() { # ROOT MNT OUT: the largest root and the largest content
    local root=0 content=0 now
    while :; do
        now=$(disk_bytes "$1") || now=0
        [ "$now" -le "$root" ] || root=$now
        now=$(disk_bytes "$2") || now=0
        [ "$now" -le "$content" ] || content=$now
        echo "$root $content" >"$3.new"
        mv "$3.new" "$3"
        sleep 0.3
    done
}

has_published() { # NAME GENERATION
    [ "$(volume_status "$1" .published_generation)" -ge "$2" ]
}

disaster_outage() {
    local generation wal_limit=$((32 << 20)) faults=$WORK/faults watcher before root content most until longest status_errors
    step "(d) the store is away while three times the WAL limit is written"
    : >"$faults"
    MOUNT_ENVIRONMENT=("CKPTFS_STORE_FAULTS=$faults")
    volume_mount "$VOLUME" "checkpoint_interval=2s,wal_limit=32M"
    db_start
    volume_checkpoint "$VOLUME"
    before=$(disk_bytes "${V_ROOT[$VOLUME]}")
    echo outage >"$faults"
    watch_space "${V_ROOT[$VOLUME]}" "${V_MNT[$VOLUME]}" "$WORK/space" &
    watcher=$!
    until=$(($(now_ms) + OUTAGE_MS))
    db_load_bulk $((3 * wal_limit))
    longest=$(db_max_ms)
    while [ "$(now_ms)" -lt "$until" ]; do
        db_load_bulk $((wal_limit / 2))
        [ "$(db_max_ms)" -le "$longest" ] || longest=$(db_max_ms)
    done
    kill "$watcher" 2>/dev/null || :
    wait "$watcher" 2>/dev/null || :
    read -r root content <"$WORK/space"
    note "longest commit $longest ms; $((before >> 20)) MiB in the root became at most $((root >> 20)) for $((content >> 20)) MiB of files"
    assert_at_most 10000 "$longest" "the longest commit during the outage, in ms"
    # The log may still have segments from a mount with a larger limit: growth is what counts.
    most=$((before + 3 * content + wal_limit + (8 << 20)))
    [ "$root" -le "$most" ] ||
        complain "the storage root took $root bytes during the outage, allowed are at most $most"
    volume_assert_alive "$VOLUME"
    if [ -z "$TEST_PLAIN" ]; then
        ! volume_is_published "$VOLUME" || fail "everything was published during an outage"
        status_errors=$(volume_status "$VOLUME" .store_errors)
        assert_at_least 1 "$status_errors" "store_errors in the status during an outage"
    fi
    step "(d) the store is back: everything catches up"
    # Databases go on by themselves (vacuum, write-back), so that there may be something new at any
    # moment: what there was when the store came back is published by itself, and what was
    # acknowledged until now with the next checkpoint.
    generation=$(volume_status "$VOLUME" .local_generation)
    : >"$faults"
    [ -n "$TEST_PLAIN" ] || wait_for 60 "publication after the outage" has_published "$VOLUME" "$generation"
    db_acked >"$WORK/acked.before"
    volume_checkpoint "$VOLUME"
    volume_kill9 "$VOLUME"
    db_crash
    lose_root
    volume_mount "$VOLUME" checkpoint_interval=0,takeover
    db_start
    check_nothing_lost "restored after the outage" "$WORK/acked.before"
    db_stop
    volume_unmount "$VOLUME"
}

# (e) for VOLUME, whatever its store is
write_is_refused() { # FILE: EROFS, not merely a failure
    local text
    text=$("$HELPERS/file_tool" write-sync "$1" 2>&1) && return 1
    echo "$text" | grep -q 'Read-only file system'
}

disaster_second_owner() {
    local other=$VOLUME-other began first=$VOLUME
    step "(e) ${V_STORE[$VOLUME]}: a second root is refused while the owner lives"
    volume_other_root "$other" "$first"
    [ -z "$TEST_PLAIN" ] || return 0
    volume_mount "$first" lease_ttl=30s,checkpoint_interval=0
    volume_mount_refused "$other" lease_ttl=30s "takeover|owner|held|in use|another"

    step "(e) ${V_STORE[$VOLUME]}: after kill -9 the own root mounts at once"
    volume_kill9 "$first"
    began=$(now_ms)
    volume_mount "$first" lease_ttl=3s,checkpoint_interval=0
    note "mounted $(($(now_ms) - began)) ms after the crash, with a lease of 30 s not expired"
    assert_at_most 10000 $(($(now_ms) - began)) "ms for mounting one's own root"

    step "(e) ${V_STORE[$VOLUME]}: takeover while the owner lives fences the owner"
    db_start
    db_load_start
    load_progress 30
    db_mark "$WORK/acked.before"
    volume_checkpoint "$first"
    load_progress 10
    volume_mount "$other" lease_ttl=3s,checkpoint_interval=0,takeover
    wait_for 20 "EROFS for the fenced writer" write_is_refused "${V_MNT[$first]}/fence-probe"
    volume_assert_alive "$first"
    assert_equal true "$(volume_status "$first" .fenced)" "fenced in the status of the old owner"
    volume_logged "$first" volume.fenced || fail "the old owner's log does not have volume.fenced"
    db_load_stop
    db_crash
    disaster_volume "$other"
    db_start
    check_nothing_lost "the new owner" "$WORK/acked.before"
    forget_the_lost
    db_load_start
    load_progress 20
    db_load_healthy
    volume_checkpoint "$other"
    db_stop
    # The fenced daemon ends in its own time; what it could not publish is its loss to tell.
    umount -l "${V_MNT[$first]}"
    wait_for 90 "the end of the fenced daemon" volume_is_gone "$first"
    wait "${V_JOB[$first]}" || note "the fenced daemon ended with $?"
    V_PID["$first"]=""
    volume_unmount "$other"
}

run_disasters() {
    need_helper file_tool
    : >"$WORK/known.txt"
    volume_new v file
    disaster_volume v
    step "a new volume with a database on it"
    volume_mount v create,checkpoint_interval=2s
    mkdir -p "$DB"
    db_init
    db_stop
    volume_checkpoint v
    volume_unmount v

    disaster_kill_database
    disaster_kill_daemon
    disaster_kill_in_checkpoint
    disaster_lose_root
    disaster_outage
    disaster_second_owner

    volume_new w s3
    disaster_volume w
    step "a new volume in S3 with a database on it"
    : >"$WORK/known.txt"
    db_forget
    volume_mount w create,checkpoint_interval=2s
    mkdir -p "$DB"
    db_init
    db_stop
    volume_unmount w
    disaster_kill_daemon
    disaster_lose_root
    disaster_second_owner
}

# What every other program of the zoo goes through: killed itself, its daemon killed, its storage
# root lost. The long variant does it again and again, and kills the daemon inside of checkpoints.
run_zoo() {
    local round rounds=1
    [ -z "$CKPTFS_TEST_LONG" ] || rounds=5
    : >"$WORK/known.txt"
    volume_new v file
    disaster_volume v
    step "a new volume with a database on it"
    volume_mount v create,checkpoint_interval=2s
    mkdir -p "$DB"
    db_init
    db_stop
    volume_unmount v
    for ((round = 0; round < rounds; round++)); do
        disaster_kill_database
        disaster_kill_daemon
        volume_mount v checkpoint_interval=0
        db_start
        lose_root_under_load
        db_stop
        volume_unmount v
    done
    [ -z "$CKPTFS_TEST_LONG" ] || disaster_kill_in_checkpoint
}
