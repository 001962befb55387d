# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# Node.js programs for tests. Packages of npm go into the build tree, once for all tests, and stay.
# Stands on lib.sh.

need_program node nodejs
NODE_FOLDER=$TEST_TOP_BUILDDIR/tests/integration/npm

# Two tests may come at once, and an installation may be broken off: what counts is the stamp, and
# only who holds the lock makes it.
npm_install() { # PACKAGE VERSION
    local stamp
    stamp=$NODE_FOLDER/$(printf '%s' "$1-$2" | tr -c 'a-zA-Z0-9.-' _).installed
    need_program npm npm
    mkdir -p "$NODE_FOLDER"
    (
        flock 9
        [ ! -e "$stamp" ] || exit 0
        cd "$NODE_FOLDER"
        [ -e package.json ] || echo '{"private": true}' >package.json
        for try in 1 2 3; do
            if timeout 100 npm install --no-audit --no-fund --no-progress --no-update-notifier --ignore-scripts \
                --cache "$NODE_FOLDER/cache" "$1@$2" >npm.out 2>&1 9>&-; then
                rm -rf cache
                : >"$stamp"
                exit 0
            fi
            note "npm install $1, try $try: $(tail -n 3 npm.out | tr '\n' ' ')"
            sleep "$try"
        done
        exit 1
    ) 9>"$NODE_FOLDER/lock" || fail "npm cannot install $1 $2; is its registry reachable?"
}
