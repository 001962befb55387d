#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# What a checkpoint and an idle volume cost in requests and bytes.
TEST_TIMEOUT=120
TEST_NEEDS_S3=1
. "$(dirname "$0")/lib.sh"

need_program sqlite3 sqlite3

counters() { # NAME: put get head list delete written
    volume_status "$1" '[.put_requests, .get_requests, .head_requests, .list_requests,
        .delete_requests, .store_bytes_written] | map(tostring) | join(" ")'
}

difference() { # BEFORE AFTER, as counters prints them: sets D_PUT D_GET ...
    local before after
    read -r -a before <<<"$1"
    read -r -a after <<<"$2"
    D_PUT=$((after[0] - before[0]))
    D_GET=$((after[1] - before[1]))
    D_HEAD=$((after[2] - before[2]))
    D_LIST=$((after[3] - before[3]))
    D_DELETE=$((after[4] - before[4]))
    D_WRITTEN=$((after[5] - before[5]))
    note "PUT $D_PUT, GET $D_GET, HEAD $D_HEAD, LIST $D_LIST, DELETE $D_DELETE, $D_WRITTEN bytes"
}

run_store() { # STORE
    local v=v$1 db before row after generation renewals
    [ -z "$TEST_PLAIN" ] || return 0
    volume_new "$v" "$1"
    step "$1: one SQLite transaction, then a checkpoint"
    # A lease so long that no renewal falls into the measurement.
    volume_mount "$v" create,checkpoint_interval=0,lease_ttl=10m
    db=${V_MNT[$v]}/app.db
    {
        echo "PRAGMA journal_mode=WAL;"
        echo "CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT); BEGIN;"
        for ((row = 0; row < 20000; row++)); do
            echo "INSERT INTO t VALUES($row, hex(randomblob(40)));"
        done
        echo "COMMIT;"
    } | sqlite3 "$db" >/dev/null
    volume_checkpoint "$v"
    before=$(counters "$v")
    sqlite3 "$db" "UPDATE t SET v = 'changed' WHERE id = 777" >/dev/null
    volume_checkpoint "$v"
    after=$(counters "$v")
    difference "$before" "$after"
    assert_at_most 3 $((D_PUT + D_DELETE)) "requests that write for one small checkpoint"
    # Of one that is asked for: whether all is still there on which it builds (doc/remote_manifest.md).
    assert_at_most 1 "$D_LIST" "listings for one small checkpoint"
    assert_at_most 4 $((D_GET + D_HEAD)) "GET and HEAD requests for one small checkpoint"
    assert_at_most 65535 "$D_WRITTEN" "bytes uploaded for one small checkpoint"

    step "$1: a checkpoint of nothing costs a look at what is there"
    before=$(counters "$v")
    generation=$(volume_status "$v" .published_generation)
    volume_checkpoint "$v"
    difference "$before" "$(counters "$v")"
    assert_equal 0 $((D_PUT + D_DELETE)) "requests that write for an empty checkpoint"
    assert_at_most 5 $((D_GET + D_HEAD + D_LIST)) "requests for an empty checkpoint"
    assert_equal "$generation" "$(volume_status "$v" .published_generation)" "the published generation"
    volume_unmount "$v"

    step "$1: an idle volume renews its lease now and then and does nothing else"
    volume_mount "$v" lease_ttl=3s,checkpoint_interval=500ms
    volume_checkpoint "$v"
    before=$(counters "$v")
    generation=$(volume_status "$v" .published_generation)
    sleep 7 # what is measured is this time
    difference "$before" "$(counters "$v")"
    # The first finds that nothing happens and is good for an hour. One may come before, when the
    # checkpoint counts as activity.
    renewals=2
    assert_at_most "$renewals" "$D_PUT" "PUT requests of an idle volume in 7 s"
    assert_at_most $((2 * renewals)) $((D_GET + D_HEAD)) "GET and HEAD requests of an idle volume in 7 s"
    assert_equal 0 $((D_LIST + D_DELETE)) "LIST and DELETE requests of an idle volume"
    assert_at_most 8192 "$D_WRITTEN" "bytes written by an idle volume in 7 s"
    assert_equal "$generation" "$(volume_status "$v" .published_generation)" "the published generation"
    volume_unmount "$v"
}

run_store file
run_store s3
