#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# git through the disasters of the zoo: clones of a local repository of many small files, commits,
# pushes and garbage collection in two of them at once, fsck after each disaster.
TEST_TIMEOUT=240
[ -z "${CKPTFS_TEST_LONG:-}" ] || TEST_TIMEOUT=900
. "$(dirname "$0")/lib.sh"
. "$TEST_HERE/disasters.sh"
. "$TEST_HERE/git.sh"

LOAD_STEP=30
run_zoo
