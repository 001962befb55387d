#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# LMDB (synchronous commits through pwrite and fdatasync) through every disaster.
TEST_TIMEOUT=300
TEST_NEEDS_S3=1
. "$(dirname "$0")/lib.sh"
. "$TEST_HERE/disasters.sh"
. "$TEST_HERE/one_load.sh"

need_program mdb_stat lmdb-utils
need_helper lmdb_load
LOADER=("$HELPERS/lmdb_load")

db_ids() {
    "$HELPERS/lmdb_load" ids "$DB" "$STREAM" "$SLOTS" || return 1
    # Every page of every tree, by the tool of LMDB itself.
    mdb_dump -a "$DB" >/dev/null || return 1
}

run_disasters
