// SPDX-License-Identifier: Apache-2.0
// How deep idle processors may sleep: Linux's PM QoS for the latency of processors
// (Documentation/power/pm_qos_interface.rst). To wake a processor that sleeps takes some 40 us on a
// virtual machine, and a request through FUSE has two such wake-ups; one that polls answers in 3.
//
// The latency depends on the kernel's idle driver. With haltpoll a sleeping processor leaves the
// virtual machine, so idle processors poll instead. With others they may still halt (C1, some 2 us
// to wake), but not sleep any deeper.
//
// The kernel drops the request when the descriptor is closed, so nothing stays behind when the
// process is killed. Not thread safe.
#ifndef CKPTFS_PLATFORM_CPU_LATENCY_H
#define CKPTFS_PLATFORM_CPU_LATENCY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"

struct cpu_latency {
    int fd;           // -1: the kernel does not offer it, or not to this process
    int32_t limit_us; // when it is low
    bool low;
};

#define CPU_LATENCY_NONE ((struct cpu_latency){.fd = -1})

// 0 or -errno; after an error the other calls do nothing.
MUST_CHECK int cpu_latency_open(struct cpu_latency *c);
void cpu_latency_close(struct cpu_latency *c);
// Makes idle processors wake fast (true), or lets them sleep as deep as other programs allow. A
// system call when that changes.
void cpu_latency_lower(struct cpu_latency *c, bool low);

#endif
