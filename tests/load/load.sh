# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# What the load tests share: a watcher of the disk, the account beside the disk, and writers that
# know what must be there (quota_load). Stands on tests/integration/lib.sh; the test sets QUOTA, the
# bytes that the root may have.

need_helper quota_load load
LOAD=$TEST_TOP_BUILDDIR/tests/load/quota_load
MIB=$((1024 * 1024))

watch_begin() { # ROOT
    : >"$WORK/watching"
    "$LOAD" watch "$1" "$WORK/watching" &
    watcher=$!
}
# The most that the root had, and how often the watcher looked.
watch_end() {
    local most samples
    rm "$WORK/watching"
    wait "$watcher"
    read -r most samples <"$WORK/watching.most"
    note "the root had at most $((most / 1024)) KiB of $((QUOTA / 1024)), seen in $samples samples"
    assert_at_most "$QUOTA" "$most" "bytes on the disk, of which the quota is $QUOTA"
}

# Bytes in blocks of the places of all volumes in a root: logs, copies, scratch.
place_bytes() { # ROOT DB
    find "$1/tenants/"*"/$2/wal" "$1/hot_cache/$2" "$1/checkpoint_scratch/$2" -type f -printf '%b\n' \
        2>/dev/null | awk '{ n += $1 } END { print n * 512 }'
}

load_write() { # VOLUME WRITERS MIB SECONDS
    "$LOAD" write "${V_MNT[$1]}" "$WORK/$1.journal" "$2" "$3" "$4"
}
# In the background, as the job `writer`: ends with status 3 when the daemon is killed.
load_begin() { # VOLUME WRITERS MIB SECONDS
    "$LOAD" write "${V_MNT[$1]}" "$WORK/$1.journal" "$2" "$3" "$4" 2>"$WORK/$1.writer" &
    writer=$!
}
load_was_cut() { # VOLUME
    local status=0
    wait "$writer" || status=$?
    assert_equal 3 "$status" "the status of the writers whose daemon was killed ($(cat "$WORK/$1.writer"))"
}
load_check() { # VOLUME
    "$LOAD" check "${V_MNT[$1]}" "$WORK/$1.journal" >"$WORK/checked" ||
        fail "acknowledged blocks of $1 are gone"
    note "$1: $(cat "$WORK/checked")"
}
load_number() { # VOLUME NAME
    "$LOAD" report "$WORK/$1.journal" | sed -n "s/^$2=//p"
}
load_note() { # VOLUME
    note "$1: $("$LOAD" report "$WORK/$1.journal" | tr '\n' ' ')"
}
