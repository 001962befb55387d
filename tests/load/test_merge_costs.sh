#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# What merging costs a real volume, on the host that filled it and on a restored one: bytes uploaded for
# a changed byte, images before a page, stored for live bytes. These counts stay within bounds, and
# each page that is read cold has the right content. The bounds are those of doc/merging.md, and hold for
# the first checkpoints, too.
TEST_TIMEOUT=300
[ -z "${CKPTFS_TEST_LONG:-}" ] || TEST_TIMEOUT=3600
. "$(dirname "$0")/../integration/lib.sh"

need_program python3 python3
need_helper merge_look bench
sizes=(--files 1000 --checkpoints 6 --bare 3 --reads 50)
histories=(small)
if [ -n "${CKPTFS_TEST_LONG:-}" ]; then
    sizes=(--mib 4096 --files 4000 --checkpoints 15 --bare 8 --reads 100)
    histories=(uniform append small)
fi

step "histories of doc/merging.md"
"$TEST_TOP_SRCDIR/tests/bench/merge_run" --build "$TEST_TOP_BUILDDIR" --work "$WORK" --check \
    "${sizes[@]}" "${histories[@]}"
