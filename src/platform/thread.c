// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include "platform/thread.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

struct start {
    void (*run)(void *);
    void *argument;
    char name[16];
};

static void *
enter(void *p)
{
    struct start s = *(struct start *)p;
    free(p);
    pthread_setname_np(pthread_self(), s.name);
    s.run(s.argument);
    return NULL;
}

int
thread_start(struct thread *thread_out, const char *name, void (*run)(void *), void *argument)
{
    struct start *s = malloc(sizeof(*s));
    if (!s)
        return -ENOMEM;
    s->run = run;
    s->argument = argument;
    snprintf(s->name, sizeof(s->name), "%s", name);
    sigset_t all;
    sigset_t before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = pthread_create(&thread_out->id, NULL, enter, s);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc != 0)
        free(s);
    return -rc;
}

void
thread_join(struct thread *t)
{
    if (pthread_join(t->id, NULL) != 0)
        abort();
}

static __thread thread_wait_hook *wait_hook;
static __thread void *wait_hook_argument;

void
thread_set_wait_hook(thread_wait_hook *hook, void *argument)
{
    wait_hook = hook;
    wait_hook_argument = argument;
}

static __thread thread_interrupt_hook *interrupt_hook;

void
thread_set_interrupt_hook(thread_interrupt_hook *hook)
{
    interrupt_hook = hook;
}

bool
thread_is_interrupted(void)
{
    return interrupt_hook && interrupt_hook();
}

void
thread_will_wait(void)
{
    if (wait_hook)
        wait_hook(wait_hook_argument);
}
