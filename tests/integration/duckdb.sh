# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# shellcheck disable=SC2034 # the variables are read in one_load.sh
# DuckDB for tests, from npm. Stands on lib.sh, node.sh and one_load.sh.

npm_install @duckdb/node-api 1.5.6-r.1
export NODE_FOLDER
LOADER=(node "$TEST_HERE/duckdb_load.mjs")
load_place() { echo "$DB/zoo.duckdb"; }

db_ids() {
    "${LOADER[@]}" ids "$(load_place)" "$STREAM" "$SLOTS"
}
