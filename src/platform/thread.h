// SPDX-License-Identifier: Apache-2.0
// Threads with a name (shown by ps -L and in core dumps) and all signals blocked.
#ifndef CKPTFS_PLATFORM_THREAD_H
#define CKPTFS_PLATFORM_THREAD_H

#include <pthread.h>
#include <stdbool.h>

#include "base/compiler.h"

struct thread {
    pthread_t id;
};

// `name` has at most 15 characters. 0 or -errno.
MUST_CHECK int thread_start(
    struct thread *thread_out, const char *name, void (*run)(void *), void *argument);
// Waits for the end of the thread.
void thread_join(struct thread *t);

// For pools whose threads must not all wait at once: `hook` runs in the calling thread, with any
// locks held, each time before that thread waits for a condition or for data from a file or the
// network. NULL: no hook.
typedef void thread_wait_hook(void *argument);
void thread_set_wait_hook(thread_wait_hook *hook, void *argument);
void thread_will_wait(void);

// For a thread that works for somebody who may give up: `hook` tells whether that has happened. A
// function that waits for long asks now and then, without locks. NULL: no hook.
typedef bool thread_interrupt_hook(void);
void thread_set_interrupt_hook(thread_interrupt_hook *hook);
bool thread_is_interrupted(void);

#endif
