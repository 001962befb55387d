#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Runs every test there is on this checkout: installs what is missing, builds as a developer does,
# `make check` with a real S3 server beside it, the unit tests once more under AddressSanitizer and
# UndefinedBehaviorSanitizer, those with threads under ThreadSanitizer, those of bytes and formats
# built by clang, and a short distcheck. The last line says how many tests passed and failed.
#
# Build directories: build-tests, build-asan, build-tsan, build-clang below the checkout. Machines
# without /dev/fuse cannot run the tests: that is a failure.
set -uo pipefail
export LC_ALL=C
export PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
top=$(cd "$(dirname "$0")/.." && pwd)
jobs=$(nproc)
passed=0
failed=0
began=$(date +%s)
what_failed=()

say() { printf '\n== [%d s] %s\n' $(($(date +%s) - began)) "$*"; }

close() {
    say "done"
    if [ ${#what_failed[@]} -gt 0 ]; then
        printf 'failed: %s\n' "${what_failed[@]}"
    fi
    echo "ckptfs: $passed passed, $failed failed"
    [ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
    exit
}

give_up() {
    echo "run-tests: $*"
    failed=$((failed + 1))
    what_failed+=("$*")
    close
}

ensure_fuse() {
    if [ ! -c /dev/fuse ] && [ "$(id -u)" -eq 0 ]; then
        modprobe fuse 2>/dev/null
        [ -c /dev/fuse ] || mknod -m 666 /dev/fuse c 10 229 2>/dev/null
    fi
    [ -c /dev/fuse ] || give_up "there is no /dev/fuse, so nothing can be mounted here"
    (exec 3<>/dev/fuse) 2>/dev/null || give_up "/dev/fuse cannot be opened: the kernel has no FUSE"
}

build() { # DIRECTORY CONFIGURE-OPTIONS...
    local directory=$1
    shift
    mkdir -p "$directory"
    (cd "$directory" && "$top/configure" "$@" && make -j"$jobs") >"$directory/build.txt" 2>&1 || {
        tail -n 40 "$directory/build.txt"
        give_up "the build in ${directory##*/} failed"
    }
}

# The summary of automake: one number a line.
result_of() { # LOG NAME
    sed -e 's/\x1b\[[0-9;]*m//g' "$1" | awk -v name="# $2:" 'index($0, name) == 1 { n += $3 } END { print n + 0 }'
}

count() { # LOG STATUS WHAT
    local good bad
    good=$(result_of "$1" PASS)
    # What was skipped was not tested.
    bad=$(($(result_of "$1" FAIL) + $(result_of "$1" ERROR) + $(result_of "$1" XPASS) + $(result_of "$1" SKIP)))
    if [ "$2" -ne 0 ] && [ "$bad" -eq 0 ] || [ $((good + bad)) -eq 0 ]; then
        tail -n 40 "$1"
        bad=$((bad + 1))
        what_failed+=("$3")
    fi
    passed=$((passed + good))
    failed=$((failed + bad))
    echo "$3: $good passed, $bad failed"
}

show_failures() { # DIRECTORY WHAT
    local result
    find "$1" -name '*.trs' -exec grep -lE '^:test-result: (FAIL|ERROR|SKIP)' {} + 2>/dev/null |
        sort >"$1/failed.txt"
    while read -r result; do
        what_failed+=("$2: ${result#"$1"/}: $({ grep -m 3 'FAILED: ' "${result%.trs}.log" || :; } | cut -c1-300)")
        echo "---- ${result#"$1"/}: the end of its log"
        tail -n 60 "${result%.trs}.log"
    done <"$1/failed.txt"
}

check() { # DIRECTORY WHAT COMMAND...
    local directory=$1 what=$2
    shift 2
    {
        (cd "$directory" && "$@") 2>&1
        echo $? >"$directory/check.status"
    } | tee "$directory/check.txt" | grep -E '^(PASS|FAIL|ERROR|SKIP): '
    show_failures "$directory" "$what"
    count "$directory/check.txt" "$(cat "$directory/check.status")" "$what"
}

unit_tests() { # DIRECTORY: those that need neither a mount nor a server
    # shellcheck disable=SC2016 # make expands it
    (cd "$1" && printf 'include Makefile\nlist-tests:\n\t@echo $(TESTS)\n' |
        make -s -f - list-tests) | tr ' ' '\n' | grep '^tests/\(unit\|model\)/' | tr '\n' ' '
}

check_units() { # DIRECTORY WHAT PROGRAMS-TO-LEAVE-OUT...
    local test tests=
    for test in $(unit_tests "$1"); do
        [[ " ${*:3} " == *" ${test#tests/unit/test_} "* ]] || tests="$tests $test"
    done
    # Only these programs are built: the others run without a sanitizer.
    check "$1" "$2" make -k -j"$jobs" check "TESTS=$tests" "check_PROGRAMS=$tests"
}

say "packages"
"$top/contrib/install-packages.sh" build demo test || give_up "packages are missing"
ensure_fuse

say "build"
(cd "$top" && autoreconf -i) >"$top/autoreconf.log" 2>&1 || {
    cat "$top/autoreconf.log"
    give_up "autoreconf failed"
}
rm -rf "$top/build-tests" "$top/build-asan" "$top/build-tsan" "$top/build-clang"
build "$top/build-tests" --enable-developer

say "every test"
check "$top/build-tests" "make check" "$top/tests/with-s3" make -k -j"$jobs" check

say "unit tests under AddressSanitizer and UndefinedBehaviorSanitizer"
build "$top/build-asan" --enable-developer --enable-asan --enable-ubsan
check_units "$top/build-asan" "asan and ubsan"

say "unit tests under ThreadSanitizer"
build "$top/build-tsan" --enable-developer --enable-tsan
# Without programs that have no threads of their own, or that look at what damage and power losses
# leave of files, over and over: the threads of the log are those of wal, wal_faults and wal_callers,
# those of a volume in histories are those of volume_crash and volume_jobs.
check_units "$top/build-tsan" "tsan" base path access_list blob blob_damage change planner dirty_set \
    manifest_record store_credentials store_sign wal_record wal_damage wal_mark collect retention_policy \
    allocation collect_pins histories volume_histories upkeep tests/model/protocols manifest_damage shortage fold_memory

say "the whole tree built by clang, and the unit tests of bytes and formats"
build "$top/build-clang" --enable-developer CC=clang-14
# The others test the same source; what a compiler can get wrong shows first where bytes are laid out.
check "$top/build-clang" "clang" make -k -j"$jobs" check "TESTS=$(unit_tests "$top/build-clang" |
    tr ' ' '\n' | grep -E 'test_(base|access_list|blob|change|manifest_record|manifest|wal_record|wal|cache|planner|volume)$' |
    tr '\n' ' ')"

say "distcheck"
rm -f "$top/build-tests/failed.txt"
programs="tests/unit/test_base tests/integration/file_tool"
for program in posix_check posix_more_check posix_access_check; do
    programs="$programs tests/integration/$program"
done
(cd "$top/build-tests" &&
    make -j"$jobs" distcheck "check_PROGRAMS=$programs" \
        TESTS="tests/unit/test_base tests/integration/test_posix.sh tests/integration/test_install.sh
        tests/lint/check-programs") \
    >"$top/build-tests/distcheck.txt" 2>&1
count "$top/build-tests/distcheck.txt" $? distcheck

close
