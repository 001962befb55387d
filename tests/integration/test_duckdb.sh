#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# DuckDB (npm's package) with two connections through the disasters of the zoo.
TEST_TIMEOUT=180
[ -z "${CKPTFS_TEST_LONG:-}" ] || TEST_TIMEOUT=900
. "$(dirname "$0")/lib.sh"
. "$TEST_HERE/disasters.sh"
. "$TEST_HERE/one_load.sh"
. "$TEST_HERE/node.sh"
. "$TEST_HERE/duckdb.sh"

run_zoo
