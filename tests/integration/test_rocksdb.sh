#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# RocksDB with synchronous write batches through every disaster.
TEST_TIMEOUT=300
TEST_NEEDS_S3=1
. "$(dirname "$0")/lib.sh"
. "$TEST_HERE/disasters.sh"
. "$TEST_HERE/one_load.sh"

need_program ldb rocksdb-tools
need_helper rocksdb_load
LOADER=("$HELPERS/rocksdb_load")

db_ids() {
    "$HELPERS/rocksdb_load" ids "$DB" "$STREAM" "$SLOTS" || return 1
    ldb --db="$DB" checkconsistency >"$WORK/ldb.txt" 2>&1 || :
    grep -q '^OK$' "$WORK/ldb.txt" || {
        cat "$WORK/ldb.txt" >&2
        return 1
    }
}

run_disasters
