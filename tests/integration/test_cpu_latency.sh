#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# While requests come fast idle processors are kept from sleeping deep, and no longer: the daemon writes
# to a file that lies over the kernel's device, in a mount namespace of our own.
TEST_TIMEOUT=60
device=/dev/cpu_dma_latency
if [ -z "${CPU_LATENCY_NAMESPACE:-}" ] && [ "$(id -u)" = 0 ] && [ -e "$device" ]; then
    CPU_LATENCY_NAMESPACE=1 exec unshare --mount "$0" "$@"
fi
. "$(dirname "$0")/lib.sh"

[ -n "${CPU_LATENCY_NAMESPACE:-}" ] || {
    note "only root can, and where there is $device"
    exit 0
}

low=3
[ "$(cat /sys/devices/system/cpu/cpuidle/current_driver 2>/dev/null)" != haltpoll ] || low=0
limits() { od -An -v -td4 -w4 "$WORK/device" | tr -d ' '; }
is_awake() { [ "$(limits | tail -n 1)" = $low ]; }
may_sleep() { [ "$(limits | tail -n 1)" = 2000000000 ]; }
requests_keep_awake() { # a hundred files, then a look
    local i
    for ((i = 0; i < 100; i++)); do
        : >"${V_MNT[v]}/file$i"
    done
    rm "${V_MNT[v]}"/file*
    is_awake
}

: >"$WORK/device"
mount --bind "$WORK/device" "$device"
volume_new v file

step "fast requests, a pause, and fast requests again"
volume_mount v create,checkpoint_interval=0
assert_equal "" "$(limits)" "nothing is asked for before requests come"
for round in 1 2 3; do
    wait_for 20 "processors kept awake, round $round" requests_keep_awake
    wait_for 10 "processors that may sleep, round $round" may_sleep
done
assert_equal "" "$(limits | uniq -d)" "each write is a change"

step "few requests"
before=$(limits | wc -l)
for ((i = 0; i < 20; i++)); do
    stat "${V_MNT[v]}/none$i" >/dev/null 2>&1 || :
    sleep 0.05
done
assert_equal "$before" "$(limits | wc -l)" "limits set for 20 requests in a second"

step "a daemon that is told not to"
volume_unmount v
: >"$WORK/device"
volume_mount v no_cpu_latency,checkpoint_interval=0
requests_keep_awake || :
sleep 0.1
assert_equal "" "$(limits)" "what was asked for with no_cpu_latency"
volume_unmount v

step "a kernel that refuses"
umount "$device"
mount --bind /dev/full "$device"
volume_mount v checkpoint_interval=0
requests_refused() {
    requests_keep_awake || :
    volume_logged v cpu_latency.failed
}
wait_for 20 "the warning" requests_refused
volume_unmount v
umount "$device"
