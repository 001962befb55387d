#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Redis, several clients, through the disasters of the zoo: with an append-only file synced for each
# command, and with dumps.
TEST_TIMEOUT=180
[ -z "${CKPTFS_TEST_LONG:-}" ] || TEST_TIMEOUT=900
. "$(dirname "$0")/lib.sh"
. "$TEST_HERE/disasters.sh"
. "$TEST_HERE/clients.sh"
. "$TEST_HERE/redis.sh"

for mode in aof rdb; do
    step "Redis with $mode"
    redis_mode $mode
    db_forget
    run_zoo
    rm -rf "${V_ROOT[v]}" "${V_DIRECTORY[v]}"
done
