// SPDX-License-Identifier: Apache-2.0
// Hit rates of ways to evict parts of local copies, over synthetic traces: the tables of
// doc/eviction.md. SIEVE is the one that runs in the daemon (store/part_sieve.h); LRU, CLOCK and
// S3-FIFO (Yang, Zhang, Qiu, Yue, Rashmi: "FIFO queues are all you need for cache eviction", SOSP
// 2023) are written here for comparison, and Belady's rule, which knows the future, is the most
// that is possible. Ends with 1 when SIEVE is worse than what it was chosen over.
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checksum.h"
#include "platform/memory.h"
#include "store/part_sieve.h"

#define PARTS    16384u // of the volume: 16 GiB
#define ACCESSES 400000u
#define NONE     UINT32_MAX

struct trace {
    const char *name;
    uint32_t *parts;
    uint32_t count;
};

static uint64_t random_state;

static uint64_t
next_random(void)
{
    random_state = random_state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return random_state >> 33;
}

// ---- traces -------------------------------------------------------------------------------------

// Draws from n items, of which the first tenth gets most, the first tenth of that again, and so on.
static uint32_t
draw_skewed(uint32_t n)
{
    while (n > 10 && next_random() % 100 < 60)
        n /= 10;
    return (uint32_t)(next_random() % n);
}

// Neighbours in rank are not neighbours on the disk.
static uint32_t
scatter(uint32_t rank)
{
    return rank * 2654435761u % PARTS;
}

static void
make_points(struct trace *t)
{
    for (uint32_t i = 0; i < t->count; i++)
        t->parts[i] = scatter(draw_skewed(PARTS));
}

// Point reads, and a scan over all of the volume from time to time: a dump, a backup.
static void
make_points_and_scans(struct trace *t)
{
    uint32_t scanned = PARTS;
    for (uint32_t i = 0; i < t->count; i++) {
        if (i % 80000 == 40000)
            scanned = 0;
        if (scanned < PARTS && i % 2)
            t->parts[i] = scanned++;
        else
            t->parts[i] = scatter(draw_skewed(PARTS));
    }
}

// The same, each part of the scan read in 16 pieces.
static void
make_points_and_slow_scans(struct trace *t)
{
    uint32_t pieces = PARTS * 16;
    for (uint32_t i = 0; i < t->count; i++) {
        if (i == 80000)
            pieces = 0;
        if (pieces < PARTS * 16 && i % 2)
            t->parts[i] = pieces++ / 16;
        else
            t->parts[i] = scatter(draw_skewed(PARTS));
    }
}

// A table that grows: most reads are of what was written last.
static void
make_growing(struct trace *t)
{
    for (uint32_t i = 0; i < t->count; i++) {
        uint32_t end = 1 + (uint32_t)((uint64_t)i * (PARTS - 1) / t->count);
        t->parts[i] = end - 1 - draw_skewed(end);
    }
}

// The set that is worked with is another one after each fifth.
static void
make_moving(struct trace *t)
{
    for (uint32_t i = 0; i < t->count; i++) {
        uint32_t shift = i / (t->count / 5) * 3000;
        t->parts[i] = (scatter(draw_skewed(PARTS)) + shift) % PARTS;
    }
}

// Reads of all, again and again.
static void
make_loop(struct trace *t)
{
    for (uint32_t i = 0; i < t->count; i++)
        t->parts[i] = i % (PARTS / 2);
}

// ---- policies -----------------------------------------------------------------------------------

// Each returns how many accesses hit.
typedef uint32_t simulate(const struct trace *t, uint32_t capacity);

static struct sha256
hash_of(uint32_t blob)
{
    struct sha256 h = {0};
    memcpy(h.b, &blob, sizeof(blob));
    return h;
}

static uint32_t
simulate_sieve(const struct trace *t, uint32_t capacity)
{
    struct part_sieve *s = part_sieve_new();
    CLEANUP(memory_free_auto) bool *here = memory_alloc_zero(PARTS * sizeof(*here));
    uint32_t hits = 0;
    for (uint32_t i = 0; i < t->count; i++) {
        uint32_t part = t->parts[i];
        struct sha256 blob = hash_of(part / 64);
        hits += here[part];
        part_sieve_use(s, &blob, part % 64);
        here[part] = true;
        if (part_sieve_count(s) <= capacity)
            continue;
        struct sha256 victim;
        uint32_t which;
        uint32_t number;
        bool found = part_sieve_next(s, &victim, &which);
        assert(found);
        (void)found;
        part_sieve_drop(s, &victim, which);
        memcpy(&number, victim.b, sizeof(number));
        here[number * 64 + which] = false;
    }
    part_sieve_check(s);
    part_sieve_free(s);
    return hits;
}

static uint32_t
simulate_lru(const struct trace *t, uint32_t capacity)
{
    // A list through arrays, with PARTS as its head.
    CLEANUP(memory_free_auto) uint32_t *next = memory_alloc((PARTS + 1) * sizeof(*next));
    CLEANUP(memory_free_auto) uint32_t *previous = memory_alloc((PARTS + 1) * sizeof(*previous));
    memset(next, 0xff, (PARTS + 1) * sizeof(*next));
    next[PARTS] = previous[PARTS] = PARTS;
    uint32_t held = 0;
    uint32_t hits = 0;
    for (uint32_t i = 0; i < t->count; i++) {
        uint32_t part = t->parts[i];
        uint32_t goes = NONE;
        if (next[part] != NONE) {
            hits++;
            goes = part;
        } else if (held == capacity) {
            goes = previous[PARTS];
        } else {
            held++;
        }
        if (goes != NONE) {
            next[previous[goes]] = next[goes];
            previous[next[goes]] = previous[goes];
            next[goes] = NONE;
        }
        next[part] = next[PARTS];
        previous[part] = PARTS;
        previous[next[PARTS]] = part;
        next[PARTS] = part;
    }
    return hits;
}

static uint32_t
simulate_clock(const struct trace *t, uint32_t capacity)
{
    CLEANUP(memory_free_auto) uint32_t *slots = memory_alloc(capacity * sizeof(*slots));
    CLEANUP(memory_free_auto) uint8_t *state = memory_alloc_zero(PARTS); // 0 not here, 1, 2 used
    uint32_t held = 0;
    uint32_t hand = 0;
    uint32_t hits = 0;
    for (uint32_t i = 0; i < t->count; i++) {
        uint32_t part = t->parts[i];
        if (state[part] > 0) {
            hits++;
            state[part] = 2;
            continue;
        }
        if (held < capacity) {
            slots[held++] = part;
        } else {
            for (; state[slots[hand]] == 2; hand = (hand + 1) % capacity)
                state[slots[hand]] = 1;
            state[slots[hand]] = 0;
            slots[hand] = part;
            hand = (hand + 1) % capacity;
        }
        state[part] = 1;
    }
    return hits;
}

// A queue of parts.
struct fifo {
    uint32_t *items;
    uint32_t first, count, capacity;
};

static void
fifo_push(struct fifo *f, uint32_t part)
{
    assert(f->count < f->capacity);
    f->items[(f->first + f->count++) % f->capacity] = part;
}

static uint32_t
fifo_pop(struct fifo *f)
{
    uint32_t part = f->items[f->first];
    f->first = (f->first + 1) % f->capacity;
    f->count--;
    return part;
}

static void
fifo_new(struct fifo *f)
{
    *f = (struct fifo){.items = memory_alloc(2 * PARTS * sizeof(uint32_t)), .capacity = 2 * PARTS};
}

struct s3_fifo {
    struct fifo small, large, ghost;
    uint8_t *where; // 0 nowhere, 1 small, 2 large
    uint8_t *uses;
    bool *ghostly;
    uint32_t small_max, large_max;
};

static void
evict_large(struct s3_fifo *s)
{
    for (;;) {
        uint32_t part = fifo_pop(&s->large);
        if (s->uses[part] == 0) {
            s->where[part] = 0;
            return;
        }
        s->uses[part]--;
        fifo_push(&s->large, part);
    }
}

static void
to_large(struct s3_fifo *s, uint32_t part)
{
    if (s->large.count >= s->large_max)
        evict_large(s);
    s->where[part] = 2;
    fifo_push(&s->large, part);
}

static void
evict_small(struct s3_fifo *s)
{
    uint32_t part = fifo_pop(&s->small);
    if (s->uses[part] > 1) {
        s->uses[part] = 0;
        to_large(s, part);
        return;
    }
    s->where[part] = 0;
    if (s->ghostly[part])
        return;
    if (s->ghost.count >= s->large_max)
        s->ghostly[fifo_pop(&s->ghost)] = false;
    s->ghostly[part] = true;
    fifo_push(&s->ghost, part);
}

static uint32_t
simulate_s3_fifo(const struct trace *t, uint32_t capacity)
{
    struct s3_fifo s = {.small_max = capacity / 10, .large_max = capacity - capacity / 10};
    fifo_new(&s.small);
    fifo_new(&s.large);
    fifo_new(&s.ghost);
    s.where = memory_alloc_zero(PARTS);
    s.uses = memory_alloc_zero(PARTS);
    s.ghostly = memory_alloc_zero(PARTS * sizeof(bool));
    uint32_t hits = 0;
    for (uint32_t i = 0; i < t->count; i++) {
        uint32_t part = t->parts[i];
        if (s.where[part] > 0) {
            hits++;
            s.uses[part] += s.uses[part] < 3;
            continue;
        }
        s.uses[part] = 0;
        // A ghost leaves its queue when its turn comes.
        if (s.ghostly[part]) {
            to_large(&s, part);
            continue;
        }
        if (s.small.count >= s.small_max)
            evict_small(&s);
        s.where[part] = 1;
        fifo_push(&s.small, part);
    }
    free(s.small.items);
    free(s.large.items);
    free(s.ghost.items);
    free(s.where);
    free(s.uses);
    free(s.ghostly);
    return hits;
}

// The one that is used last goes: a heap of next uses, with entries that are out of date.
struct use {
    uint32_t at;
    uint32_t part;
};

static void
heap_push(struct use *heap, uint32_t *count, struct use x)
{
    uint32_t i = (*count)++;
    for (; i > 0 && heap[(i - 1) / 2].at < x.at; i = (i - 1) / 2)
        heap[i] = heap[(i - 1) / 2];
    heap[i] = x;
}

static struct use
heap_pop(struct use *heap, uint32_t *count)
{
    struct use top = heap[0];
    struct use x = heap[--*count];
    uint32_t i = 0;
    for (uint32_t k; (k = 2 * i + 1) < *count; i = k) {
        k += k + 1 < *count && heap[k + 1].at > heap[k].at;
        if (heap[k].at <= x.at)
            break;
        heap[i] = heap[k];
    }
    heap[i] = x;
    return top;
}

static uint32_t
simulate_belady(const struct trace *t, uint32_t capacity)
{
    CLEANUP(memory_free_auto) uint32_t *next_use = memory_alloc(t->count * sizeof(*next_use));
    CLEANUP(memory_free_auto) uint32_t *latest = memory_alloc(PARTS * sizeof(*latest));
    CLEANUP(memory_free_auto) struct use *heap = memory_alloc(t->count * sizeof(*heap));
    memset(latest, 0xff, PARTS * sizeof(*latest));
    for (uint32_t i = t->count; i-- > 0;) {
        next_use[i] = latest[t->parts[i]];
        latest[t->parts[i]] = i;
    }
    // From here on: the next use of what is held; 0 is not here.
    memset(latest, 0, PARTS * sizeof(*latest));
    uint32_t heaped = 0;
    uint32_t held = 0;
    uint32_t hits = 0;
    for (uint32_t i = 0; i < t->count; i++) {
        uint32_t part = t->parts[i];
        if (latest[part] != 0) {
            hits++;
        } else if (held == capacity) {
            struct use x;
            do
                x = heap_pop(heap, &heaped);
            while (latest[x.part] != x.at);
            latest[x.part] = 0;
        } else {
            held++;
        }
        latest[part] = next_use[i];
        heap_push(heap, &heaped, (struct use){next_use[i], part});
    }
    return hits;
}

// ---- the table ----------------------------------------------------------------------------------

static const struct {
    const char *name;
    simulate *run;
} policies[] = {
    {"LRU", simulate_lru},
    {"CLOCK", simulate_clock},
    {"S3-FIFO", simulate_s3_fifo},
    {"SIEVE", simulate_sieve},
    {"Belady", simulate_belady},
};
enum { LRU, CLOCK, S3_FIFO, SIEVE, BELADY };

static const struct {
    const char *name;
    void (*make)(struct trace *t);
} traces[] = {
    {"point reads", make_points},
    {"point reads and scans", make_points_and_scans},
    {"point reads and scans in pieces", make_points_and_slow_scans},
    {"a growing table", make_growing},
    {"a set that moves", make_moving},
    {"a loop", make_loop},
};

// Hit rates in tenths of a per cent.
static bool
compare(const struct trace *t, unsigned percent)
{
    uint32_t rate[ARRAY_LENGTH(policies)];
    printf("| %-32s | %2u %% |", t->name, percent);
    for (size_t i = 0; i < ARRAY_LENGTH(policies); i++) {
        rate[i] = (uint32_t)((uint64_t)policies[i].run(t, PARTS * percent / 100) * 1000 / t->count);
        printf(" %2u.%u |", rate[i] / 10, rate[i] % 10);
    }
    printf("\n");
    bool possible = true;
    for (size_t i = 0; i < BELADY; i++)
        possible &= rate[i] <= rate[BELADY];
    // Three per cent are left to chance and to sets that move.
    return possible && rate[SIEVE] + 30 >= rate[LRU] && rate[SIEVE] + 30 >= rate[CLOCK];
}

int
main(void)
{
    static const unsigned sizes[] = {5, 20, 40};
    bool good = true;
    printf(
        "| Trace                            | Cache | LRU | CLOCK | S3-FIFO | SIEVE | Belady |\n");
    for (size_t i = 0; i < ARRAY_LENGTH(traces); i++) {
        struct trace t = {.name = traces[i].name, .count = ACCESSES};
        t.parts = memory_alloc(t.count * sizeof(*t.parts));
        random_state = 42 + i;
        traces[i].make(&t);
        for (size_t k = 0; k < ARRAY_LENGTH(sizes); k++)
            good &= compare(&t, sizes[k]);
        free(t.parts);
    }
    return good ? EXIT_SUCCESS : EXIT_FAILURE;
}
