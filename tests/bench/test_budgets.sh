#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# What the hot paths cost, counted and not timed: instructions of the library, requests of the
# kernel, system calls of the daemon. The limits stand in tests/bench/budgets. What one operation
# costs is the difference of two counts of operations, divided.
TEST_TIMEOUT=900
. "$(dirname "$0")/../integration/lib.sh"

need_program valgrind valgrind
need_program strace strace
for helper in hot_paths bench_io bench_sqlite; do
    need_helper "$helper" bench
done
budgets=$TEST_TOP_SRCDIR/tests/bench/budgets
FEW=100
MANY=400

mapfile -t instructions < <(awk '$1 == "instructions" { print $2 }' "$budgets")
mapfile -t requests < <(awk '$1 == "requests" { print $2 }' "$budgets")
mapfile -t calls < <(awk '$1 == "calls" { print $2 }' "$budgets")

limit() { # KIND OPERATION
    awk -v kind="$1" -v operation="$2" '$1 == kind && $2 == operation { print $3 }' "$budgets"
}

judge() { # KIND OPERATION COUNTED-FEW COUNTED-MANY
    local budget each
    budget=$(limit "$1" "$2")
    [ -n "$budget" ] || fail "$budgets has no line '$1 $2'"
    each=$(awk -v few="$3" -v many="$4" -v n=$((MANY - FEW)) 'BEGIN { printf "%.2f", (many - few) / n }')
    note "$1 for one $2: $each, allowed $budget"
    awk -v each="$each" -v budget="$budget" 'BEGIN { exit each <= budget ? 0 : 1 }' ||
        complain "one $2 takes $each $1, allowed are $budget"
    awk -v each="$each" -v budget="$budget" 'BEGIN { exit each >= 0.6 * budget || budget < 1 ? 0 : 1 }' ||
        note "that is far below: the limit could be lower"
}

# ---- instructions -------------------------------------------------------------------------------

count_instructions() { # OPERATION COUNT
    local directory=$WORK/hot
    rm -rf "$directory"
    mkdir "$directory"
    valgrind --tool=callgrind --callgrind-out-file="$WORK/callgrind.out" \
        "$TEST_TOP_BUILDDIR/tests/bench/hot_paths" "$directory" "$1" "$2" >"$WORK/valgrind.log" 2>&1 ||
        fail "hot_paths $1 under callgrind"
    awk '/Collected :/ { print $NF; found = 1 } END { exit !found }' "$WORK/valgrind.log"
}

run_instructions() {
    local operation
    for operation in "${instructions[@]}"; do
        judge instructions "$operation" "$(count_instructions "$operation" $FEW)" \
            "$(count_instructions "$operation" $MANY)"
    done
}

# ---- on a mount ---------------------------------------------------------------------------------

# Does an operation COUNT times on the mount of a volume.
operate() { # NAME OPERATION COUNT
    local mount=${V_MNT[$1]} tools=$TEST_TOP_BUILDDIR/tests/bench
    case $2 in
        sqlite_*) "$tools/bench_sqlite" commits "$mount/$2.db" "${2#sqlite_}" "$3" ;;
        *) "$tools/bench_io" times "$mount" "$2" "$3" ;;
    esac >"$WORK/operate.log"
}

prepare() { # NAME
    local mode operation
    for mode in wal delete; do
        "$TEST_TOP_BUILDDIR/tests/bench/bench_sqlite" make "${V_MNT[$1]}/sqlite_$mode.db" $mode 2000 \
            >"$WORK/operate.log"
    done
    # What is only done the first time does not count.
    for operation in write create stat read sqlite_wal sqlite_delete; do
        operate "$1" "$operation" $FEW
    done
}

# The debug output of libfuse names every request. SETATTR does not count: how often the kernel hands
# over times depends on how often its clock ticks meanwhile.
requests_so_far() { grep 'opcode: ' "$WORK/debug.out" | grep -vc 'opcode: SETATTR'; }

count_requests() { # OPERATION COUNT
    local before
    before=$(requests_so_far)
    operate debug "$1" "$2"
    echo $(($(requests_so_far) - before))
}

count_calls() { # OPERATION COUNT
    local tracer
    strace -q -f -c -o "$WORK/calls" -p "${V_PID[quiet]}" >"$WORK/strace.log" 2>&1 &
    tracer=$!
    remember_process "$tracer"
    wait_for 20 "strace to attach" is_traced "${V_PID[quiet]}"
    operate quiet "$1" "$2"
    # A signal that comes just before it waits for an event is noticed with the next event.
    while is_running "$tracer"; do
        kill -INT "$tracer" 2>/dev/null || :
        sleep 0.1
    done
    wait "$tracer" || :
    awk '$NF == "total" { print $4; found = 1 } END { exit !found }' "$WORK/calls"
}

is_traced() { # PID: all its threads
    ! grep -L '^TracerPid:[^0-9]*[1-9]' /proc/"$1"/task/*/status | grep -q .
}

run_requests() {
    local operation
    volume_new debug file checkpoint_interval=0
    volume_mount debug create,debug
    prepare debug
    for operation in "${requests[@]}"; do
        judge requests "$operation" "$(count_requests "$operation" $FEW)" \
            "$(count_requests "$operation" $MANY)"
    done
    volume_unmount debug
}

run_calls() {
    local operation
    volume_new quiet file checkpoint_interval=0
    volume_mount quiet create
    prepare quiet
    for operation in "${calls[@]}"; do
        judge calls "$operation" "$(count_calls "$operation" $FEW)" \
            "$(count_calls "$operation" $MANY)"
    done
    volume_unmount quiet
}

step "instructions of the library"
run_instructions
step "requests of the kernel"
run_requests
step "system calls of the daemon"
run_calls
