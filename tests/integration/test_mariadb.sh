#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# MariaDB with InnoDB and O_DIRECT, several clients, through the disasters of the zoo.
TEST_TIMEOUT=180
[ -z "${CKPTFS_TEST_LONG:-}" ] || TEST_TIMEOUT=900
. "$(dirname "$0")/lib.sh"
. "$TEST_HERE/disasters.sh"
. "$TEST_HERE/clients.sh"
. "$TEST_HERE/mariadb.sh"

run_zoo
