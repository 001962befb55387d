// SPDX-License-Identifier: Apache-2.0
#include "platform/lock.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "platform/thread.h"

static void
require(int rc)
{
    if (rc != 0)
        abort();
}

#ifdef CKPTFS_DEBUG
#define HELD_MAX 16
static __thread const struct lock *held_locks[HELD_MAX];
static __thread int held_count;

static void
note_taken(const struct lock *l)
{
    for (int i = 0; i < held_count; i++)
        if (held_locks[i]->rank >= l->rank) {
            fprintf(
                stderr, "lock order: %s taken while %s is held\n", l->name, held_locks[i]->name);
            abort();
        }
    if (held_count == HELD_MAX)
        abort();
    held_locks[held_count++] = l;
}

static void
note_released(const struct lock *l)
{
    for (int i = held_count - 1; i >= 0; i--)
        if (held_locks[i] == l) {
            held_locks[i] = held_locks[--held_count];
            return;
        }
    abort();
}
#else
static void
note_taken(const struct lock *l UNUSED)
{
}

static void
note_released(const struct lock *l UNUSED)
{
}
#endif

void
lock_init(struct lock *l, const char *name, enum lock_rank rank)
{
    require(pthread_mutex_init(&l->mutex, NULL));
    l->name = name;
    l->rank = rank;
    l->held = false;
}

void
lock_destroy(struct lock *l)
{
    require(pthread_mutex_destroy(&l->mutex));
}

void
lock_take(struct lock *l)
{
    note_taken(l);
    require(pthread_mutex_lock(&l->mutex));
    __atomic_store_n(&l->owner, pthread_self(), __ATOMIC_RELAXED);
    __atomic_store_n(&l->held, true, __ATOMIC_RELAXED);
}

void
lock_release(struct lock *l)
{
    __atomic_store_n(&l->held, false, __ATOMIC_RELAXED);
    require(pthread_mutex_unlock(&l->mutex));
    note_released(l);
}

bool
lock_is_mine(const struct lock *l)
{
    return __atomic_load_n(&l->held, __ATOMIC_RELAXED) &&
           pthread_equal(__atomic_load_n(&l->owner, __ATOMIC_RELAXED), pthread_self());
}

void
condition_init(struct condition *c)
{
    pthread_condattr_t attr;
    require(pthread_condattr_init(&attr));
    require(pthread_condattr_setclock(&attr, CLOCK_MONOTONIC));
    require(pthread_cond_init(&c->cond, &attr));
    pthread_condattr_destroy(&attr);
}

void
condition_destroy(struct condition *c)
{
    require(pthread_cond_destroy(&c->cond));
}

static void
retake(struct lock *l)
{
    __atomic_store_n(&l->owner, pthread_self(), __ATOMIC_RELAXED);
    __atomic_store_n(&l->held, true, __ATOMIC_RELAXED);
}

void
condition_wait(struct condition *c, struct lock *l)
{
    thread_will_wait();
    __atomic_store_n(&l->held, false, __ATOMIC_RELAXED);
    require(pthread_cond_wait(&c->cond, &l->mutex));
    retake(l);
}

bool
condition_wait_until(struct condition *c, struct lock *l, uint64_t deadline_ms)
{
    struct timespec at = {
        .tv_sec = (time_t)(deadline_ms / 1000), .tv_nsec = (long)(deadline_ms % 1000) * 1000000};
    thread_will_wait();
    __atomic_store_n(&l->held, false, __ATOMIC_RELAXED);
    int rc = pthread_cond_timedwait(&c->cond, &l->mutex, &at);
    retake(l);
    if (rc != 0 && rc != ETIMEDOUT)
        abort();
    return rc == 0;
}

void
condition_signal(struct condition *c)
{
    pthread_cond_signal(&c->cond);
}

void
condition_broadcast(struct condition *c)
{
    pthread_cond_broadcast(&c->cond);
}
