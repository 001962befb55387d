#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# However a file is changed, whoever reads it through the kernel's page cache sees the change: with and
# without the kernel's write-back cache, on a file that was just made and on one that was there.
TEST_TIMEOUT=120
. "$(dirname "$0")/lib.sh"

need_helper page_cache_check
SECONDS_EACH=3
[ -z "$CKPTFS_TEST_LONG" ] || SECONDS_EACH=25
SEED=${CKPTFS_TEST_SEED:-$RANDOM}
note "seed $SEED"

volume_new v file
for options in writeback no_writeback; do
    step "$options"
    volume_mount v "create,checkpoint_interval=1s,$options"
    for file in "new.$options" old; do
        "$HELPERS/page_cache_check" "${V_MNT[v]}/$file" "$SECONDS_EACH" "$SEED" ||
            fail "the kernel's page cache shows something else than the daemon ($options, $file)"
    done
    volume_unmount v
done
