// SPDX-License-Identifier: Apache-2.0
// protocols [NAME]...
// Searches each protocol as it is, which must find no fault, and with each of its mutations, which
// must find one. `-v` prints the steps to the fault that each mutation causes.
#include "protocol.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EVENTS_MAX 16u
#define NONE       UINT32_MAX

// How a state was reached.
struct origin {
    uint32_t from;
    const char *label;
};

struct search {
    const struct protocol *protocol;
    uint8_t *states;
    struct origin *origins;
    uint32_t count, capacity;
    uint32_t *slots; // hash set: indexes of states plus one
    uint32_t slot_count;
    uint32_t current; // whose steps are being taken
    uint64_t steps;
    bool events[EVENTS_MAX];
};

static const char *mutation = "";

bool
search_is_mutated(const char *name)
{
    return strcmp(mutation, name) == 0;
}

void
search_event(struct search *s, unsigned event)
{
    s->events[event] = true;
}

static void *
grow(void *p, size_t bytes)
{
    p = realloc(p, bytes);
    if (!p)
        abort();
    return p;
}

static uint8_t *
state_at(const struct search *s, uint32_t i)
{
    return s->states + (size_t)i * s->protocol->bytes;
}

// FNV-1a, mixed once more so that low bits depend on all.
static uint32_t
hash(const uint8_t *p, size_t n)
{
    uint64_t h = 0xcbf29ce484222325u;
    for (size_t i = 0; i < n; i++)
        h = (h ^ p[i]) * 0x100000001b3u;
    return (uint32_t)((h ^ h >> 29) * 0xbf58476d1ce4e5b9u >> 32);
}

static uint32_t *
find_slot(const struct search *s, const uint8_t *state)
{
    uint32_t at = hash(state, s->protocol->bytes) & (s->slot_count - 1);
    while (s->slots[at] && memcmp(state_at(s, s->slots[at] - 1), state, s->protocol->bytes) != 0)
        at = (at + 1) & (s->slot_count - 1);
    return &s->slots[at];
}

static void
grow_slots(struct search *s)
{
    s->slot_count = s->slot_count ? s->slot_count * 2 : 4096;
    free(s->slots);
    s->slots = calloc(s->slot_count, sizeof(*s->slots));
    if (!s->slots)
        abort();
    for (uint32_t i = 0; i < s->count; i++)
        *find_slot(s, state_at(s, i)) = i + 1;
}

static void
add(struct search *s, const void *state, const char *label)
{
    if (s->count * 2 >= s->slot_count)
        grow_slots(s);
    uint32_t *slot = find_slot(s, state);
    if (*slot)
        return;
    if (s->count == s->capacity) {
        s->capacity = s->capacity ? s->capacity * 2 : 4096;
        s->states = grow(s->states, s->capacity * s->protocol->bytes);
        s->origins = grow(s->origins, s->capacity * sizeof(*s->origins));
    }
    memcpy(state_at(s, s->count), state, s->protocol->bytes);
    s->origins[s->count] = (struct origin){s->current, label};
    *slot = ++s->count;
}

void
search_step(struct search *s, const void *to, const char *label)
{
    s->steps++;
    add(s, to, label);
}

static void
print_trace(const struct search *s, uint32_t i)
{
    if (s->origins[i].from == NONE)
        return;
    print_trace(s, s->origins[i].from);
    printf("        %s\n", s->origins[i].label);
}

// The broken promise, or NULL; *at_out: the state that breaks it. Breadth first: the trace is a
// shortest one.
static const char *
search_all(struct search *s, uint32_t *at_out)
{
    const struct protocol *p = s->protocol;
    uint8_t *state = calloc(1, p->bytes);
    if (!state)
        abort();
    const char *fault = NULL;
    p->begin(state);
    s->current = NONE;
    add(s, state, "");
    for (uint32_t i = 0; i < s->count && !fault; i++) {
        memcpy(state, state_at(s, i), p->bytes);
        s->current = *at_out = i;
        fault = p->fault(state);
        if (!fault)
            p->steps(s, state);
    }
    free(state);
    return fault;
}

static void
search_free(struct search *s)
{
    free(s->states);
    free(s->origins);
    free(s->slots);
}

// As it is: no fault, and everything that should happen does.
static bool
run_sound(const struct protocol *p)
{
    struct search s = {.protocol = p};
    uint32_t at = 0;
    mutation = "";
    const char *fault = search_all(&s, &at);
    bool good = !fault;
    printf("%s: %u states, %llu steps\n", p->name, s.count, (unsigned long long)s.steps);
    if (fault) {
        printf("    FAULT: %s\n", fault);
        print_trace(&s, at);
    }
    for (unsigned i = 0; good && p->events[i]; i++) {
        if (s.events[i])
            continue;
        printf("    FAULT: it never happens that %s\n", p->events[i]);
        good = false;
    }
    search_free(&s);
    return good;
}

static bool
run_mutated(const struct protocol *p, const char *name, bool verbose)
{
    struct search s = {.protocol = p};
    uint32_t at = 0;
    mutation = name;
    const char *fault = search_all(&s, &at);
    if (fault)
        printf("    %s: %s (after %u states)\n", name, fault, s.count);
    else
        printf("    FAULT: %s goes unnoticed in %u states\n", name, s.count);
    if (fault && verbose)
        print_trace(&s, at);
    search_free(&s);
    return fault != NULL;
}

static bool
run(const struct protocol *p, bool verbose)
{
    bool good = run_sound(p);
    for (unsigned i = 0; p->mutations[i]; i++)
        good &= run_mutated(p, p->mutations[i], verbose);
    return good;
}

int
main(int argc, char **argv)
{
    static const struct protocol *const all[] = {&protocol_pin, &protocol_prune, &protocol_fork,
        &protocol_fork_swept, &protocol_fork_all, &protocol_takeover, &protocol_snapshot};
    bool verbose = argc > 1 && strcmp(argv[1], "-v") == 0;
    bool good = true;
    bool lengthy = getenv("CKPTFS_TEST_LONG") != NULL;
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        bool wanted = argc == 1 + verbose && (lengthy || !all[i]->takes_long);
        for (int j = 1 + verbose; j < argc; j++)
            wanted |= strcmp(argv[j], all[i]->name) == 0;
        if (wanted)
            good &= run(all[i], verbose);
    }
    return good ? EXIT_SUCCESS : EXIT_FAILURE;
}
