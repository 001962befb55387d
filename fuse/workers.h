// SPDX-License-Identifier: Apache-2.0
// The threads that read requests from the kernel and handle them.
//
// Few threads read at a time: each request wakes a thread, and with many of them waiting in read(2)
// the kernel wakes the one that has slept longest, whose caches are cold. A thread that reads
// handles its request itself and reads on. Before it waits for something (see thread_will_wait) it
// gives its role to another thread, so that waiting requests never hold up others; a watchdog takes
// the role from a thread that has been busy with one request for WATCH_MS for any other reason.
//
// States of a thread: serving (reads and handles; at most `serving_max`), away (handles a request
// without the role, until the request is done), idle (waits for a role). away -> serving when a
// role is free, else idle.
//
// While requests come fast, the watchdog keeps idle processors from sleeping deep
// (platform/cpu_latency.h): it asks the kernel for that when at least FAST_REQUESTS have ended
// since its last look, and takes it back when there were fewer. So it costs a request nothing, and
// begins and ends within two looks.
#ifndef CKPTFS_FUSE_WORKERS_H
#define CKPTFS_FUSE_WORKERS_H

#include <stdbool.h>

#include "base/compiler.h"

struct fs;
struct fuse_session;
struct workers;

// `threads_max`: the most threads in all, those that are away included. `lower_latency`: keep idle
// processors from sleeping deep while requests come fast, where the kernel allows it.
struct workers *workers_new(
    struct fuse_session *session, struct fs *fs, unsigned threads_max, bool lower_latency);
void workers_free(struct workers *w);
// Serves until the connection ends or workers_stop is called; returns when no thread is left. 0, or
// the -errno that ended it.
MUST_CHECK int workers_run(struct workers *w);
// From another thread: all threads end once their requests are done. Does not wait. SIGUSR1 must
// have a handler: it gets threads out of read(2).
void workers_stop(struct workers *w);

#endif
