#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# `make install` puts everything below DESTDIR where systems look for it, the unit starts the
# installed program, and `make uninstall` leaves nothing.
TEST_TIMEOUT=120
. "$(dirname "$0")/lib.sh"

destination=$WORK/destination
prefix=$(sed -n 's/^prefix = //p' "$TEST_TOP_BUILDDIR/Makefile")
[ -n "$prefix" ] || fail "no configured Makefile in $TEST_TOP_BUILDDIR"

run_make() { # TARGET
    # The flags of the make that runs this test are not for this one.
    env -u MAKEFLAGS -u MAKELEVEL -u MFLAGS make -C "$TEST_TOP_BUILDDIR" "$1" \
        DESTDIR="$destination" >"$WORK/make.log" 2>&1 || {
        tail -n 20 "$WORK/make.log"
        fail "make $1"
    }
}

installed() { # FILE
    [ -s "$destination$1" ] || fail "$1 is not installed"
}

step "install"
run_make install
for file in bin/ckptfs bin/ckptctl include/ckptfs_ioctl.h lib/systemd/system/ckptfs@.service \
    share/bash-completion/completions/ckptctl share/man/man8/ckptfs.8 share/man/man1/ckptctl.1 \
    share/doc/ckptfs/README.md share/doc/ckptfs/LICENSE share/doc/ckptfs/doc/limits.md \
    share/doc/ckptfs/contrib/ckptfs.fstab; do
    installed "$prefix/$file"
done
assert_equal "" "$(find "$destination" -type f ! -path "$destination$prefix/*")" "files outside the prefix"
assert_equal "" "$(find "$destination" -type f -name '*.in')" "templates that are installed"

step "the documents link to what is installed beside them"
documents=$destination$prefix/share/doc/ckptfs
while IFS=: read -r document link; do
    link=${link#*](}
    link=${link%%[)#]*}
    case $link in '' | *://*) continue ;; esac
    [ -e "$(dirname "$document")/$link" ] || complain "${document#"$documents/"} links to $link"
done < <(grep -oE '\]\([^)]*\)' -r --include='*.md' "$documents")

step "the unit runs the installed programs"
unit=$destination$prefix/lib/systemd/system/ckptfs@.service
mapfile -t programs < <(sed -n 's/^Exec[A-Za-z]*=\([^ ]*\).*/\1/p' "$unit")
[ ${#programs[@]} -gt 0 ] || fail "the unit runs nothing"
for program in "${programs[@]}"; do
    [ -x "$destination$program" ] || fail "the unit runs $program, which is not installed"
done
"$destination$prefix/bin/ckptfs" --version | grep -q '^ckptfs ' || fail "ckptfs --version"

step "the completion completes"
completed=$(bash -c '. "$1"; COMP_WORDS=(ckptctl unm) COMP_CWORD=1; _ckptctl; echo "${COMPREPLY[@]}"' \
    bash "$destination$prefix/share/bash-completion/completions/ckptctl")
assert_equal unmount "$completed" "ckptctl unm<TAB>"

step "uninstall"
run_make uninstall
assert_equal "" "$(find "$destination" -type f)" "files that stay"
[ "$COMPLAINTS" -eq 0 ] || exit 1
