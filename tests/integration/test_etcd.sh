#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# etcd with two clients through the disasters of the zoo.
TEST_TIMEOUT=180
[ -z "${CKPTFS_TEST_LONG:-}" ] || TEST_TIMEOUT=900
. "$(dirname "$0")/lib.sh"
. "$TEST_HERE/disasters.sh"
. "$TEST_HERE/one_load.sh"
. "$TEST_HERE/node.sh"
. "$TEST_HERE/etcd.sh"

run_zoo
