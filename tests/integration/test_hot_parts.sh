#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The set of hot parts with a mount: it is published at the unmount, and a host that has lost
# everything fetches the parts by itself, and again when it is told to.
TEST_TIMEOUT=60
. "$(dirname "$0")/lib.sh"

if [ -n "$TEST_PLAIN" ]; then
    note "a plain directory has no store"
    exit 0
fi

volume_new v file
mnt=${V_MNT[v]}
fetched() { volume_status v .hot_parts_fetched; }
has_fetched() { [ "$(fetched)" -ge "$1" ]; }
step "the hot parts of a restored volume come by themselves"
volume_mount v create,checkpoint_interval=0
for ((i = 0; i < 40; i++)); do head -c 100000 /dev/urandom >"$mnt/f$i"; done
sync -f "$mnt"
(cd "$mnt" && sha256sum f*) >"$WORK/sums"
volume_unmount v
assert_equal 1 "$(find "${V_DIRECTORY[v]}/hints" -type f | wc -l)" "sets of hot parts"
rm -rf "${V_ROOT[v]}"
volume_mount v checkpoint_interval=0
wait_for 20 "the hot parts" has_fetched 40
"$CKPTCTL" evict --all "$mnt" >/dev/null
"$CKPTCTL" hydrate --hot "$mnt" >"$WORK/said" || fail "hydrate --hot"
grep -q "^40 of 40 hot parts" "$WORK/said" || fail "hydrate --hot said: $(cat "$WORK/said")"
(cd "$mnt" && sha256sum --quiet -c "$WORK/sums") || fail "a file is wrong"
for wrong in "--hot --all" "--hot --pin"; do
    # shellcheck disable=SC2086 # two words
    "$CKPTCTL" hydrate $wrong "$mnt" 2>/dev/null && fail "hydrate took $wrong"
done
volume_unmount v
