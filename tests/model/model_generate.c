// SPDX-License-Identifier: Apache-2.0
// A plan from a seed.
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "tests/model/model.h"

#define CHUNK_BYTES ((int64_t)64 << 20)
#define BATCHES     10

struct generator {
    uint64_t state;
    struct plan *plan;
    int thread;
    bool crash; // the batch ends in a crash: only operations that are one request each
};

static int64_t
below(struct generator *g, int64_t n)
{
    return (int64_t)(next_random(&g->state) % (uint64_t)n);
}

static bool
chance(struct generator *g, int percent)
{
    return below(g, 100) < percent;
}

static int64_t
random_path(struct generator *g)
{
    // Half of the time one of a few, so that operations meet.
    return chance(g, 50) ? below(g, 12) : below(g, PATHS);
}

static int64_t
random_slot(struct generator *g)
{
    return below(g, chance(g, 60) ? 3 : SLOTS);
}

static int64_t
random_mode(struct generator *g, int64_t owner)
{
    int64_t mode = owner | below(g, 0100);
    if (chance(g, 15))
        mode |= below(g, 8) << 9;
    return mode;
}

static int64_t
random_length(struct generator *g)
{
    int64_t length;
    switch (below(g, 6)) {
    case 0:
        return 1 + below(g, 100);
    case 1:
    case 2:
        return 1 + below(g, 6000);
    case 3:
        return 4096 * (1 + below(g, 16));
    case 4:
        length = 1 + below(g, 100000);
        break;
    default:
        length = chance(g, 50) ? 1 + below(g, IO_BYTES_MAX) : 4096 * (1 + below(g, 256));
    }
    return g->crash && length > 200000 ? 200000 : length;
}

// Small files mostly; now and then both sides of the first and second border of chunks; often near
// the end of the file.
static int64_t
random_offset(struct generator *g)
{
    int64_t offset;
    if (chance(g, 25))
        return -1 - (chance(g, 50) ? below(g, NEAR_END) : NEAR_END / 2 - 64 + below(g, 128));
    if (chance(g, 1))
        return CHUNK_BYTES - 200000 + below(g, 300000);
    if (below(g, 500) == 0)
        return 2 * CHUNK_BYTES - below(g, 9000);
    offset = chance(g, 70) ? below(g, 70000) : below(g, 2000000);
    return chance(g, 40) ? offset & ~(int64_t)4095 : offset;
}

static int64_t
random_seed(struct generator *g)
{
    return below(g, 1000000);
}

static void
add(struct generator *g, struct item item)
{
    item.thread = g->thread;
    plan_append(g->plan, item);
}

static void
add_open(struct generator *g)
{
    static const int flags[] = {O_RDWR | O_CREAT, O_RDWR | O_CREAT, O_RDWR | O_CREAT | O_TRUNC,
        O_RDWR | O_CREAT | O_EXCL, O_RDWR | O_APPEND | O_CREAT, O_RDONLY, O_WRONLY, O_RDWR,
        O_RDWR | O_CREAT | O_SYNC, O_WRONLY | O_CREAT | O_DSYNC, O_RDWR | O_CREAT | O_DIRECT,
        O_RDWR | O_TRUNC, O_RDONLY | O_DIRECTORY};
    int flag = flags[below(g, sizeof(flags) / sizeof(flags[0]))];
    add(g, (struct item){OP_OPEN, 0, {random_slot(g), random_path(g), flag, random_mode(g, 0600)}});
}

static void
add_data(struct generator *g)
{
    static const int modes[] = {0, FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
        FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, FALLOC_FL_ZERO_RANGE,
        FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE};
    int64_t slot = random_slot(g), offset = random_offset(g), length = random_length(g);
    int64_t seed = random_seed(g), dice = below(g, 100);
    if (dice < 50)
        add(g, (struct item){OP_WRITE, 0, {slot, offset, length, seed}});
    else if (dice < 58)
        add(g, (struct item){OP_PWRITEV, 0, {slot, offset, length, seed}});
    else if (dice < 68 && !g->crash)
        add(g, (struct item){OP_MMAP, 0, {slot, offset, length, seed, chance(g, 40)}});
    else if (dice < 76)
        add(g, (struct item){OP_FTRUNCATE, 0, {slot, offset}});
    else if (dice < 81)
        add(g, (struct item){OP_TRUNCATE, 0, {random_path(g), below(g, 70000)}});
    else if (dice < 83 && !g->crash)
        add(g, (struct item){OP_HOLES, 0, {slot, offset, 1 + below(g, 200)}});
    else if (dice < 93 || g->crash)
        add(g, (struct item){OP_FALLOCATE, 0, {slot, modes[below(g, 6)], offset, length}});
    else
        add(g, (struct item){OP_COPY, 0, {slot, random_slot(g), offset, random_offset(g), length}});
}

static void
add_look(struct generator *g)
{
    int64_t dice = below(g, 100);
    if (dice < 50)
        add(g, (struct item){OP_READ, 0, {random_slot(g), random_offset(g), random_length(g)}});
    else if (dice < 65)
        add(g, (struct item){OP_STAT, 0, {random_path(g)}});
    else if (dice < 80)
        add(g, (struct item){OP_FSTAT, 0, {random_slot(g)}});
    else if (dice < 92)
        add(g, (struct item){OP_READDIR, 0, {random_path(g)}});
    else
        add(g, (struct item){OP_SEEKSCAN, 0, {random_slot(g)}});
}

static void
add_name(struct generator *g)
{
    int64_t dice = below(g, 100), a = random_path(g), b = random_path(g);
    if (dice < 22)
        add(g, (struct item){OP_MKDIR, 0, {chance(g, 60) ? below(g, 4) : a, random_mode(g, 0700)}});
    else if (dice < 26)
        add(g, (struct item){OP_MKNOD, 0, {a, random_mode(g, 0600)}});
    else if (dice < 34)
        add(g, (struct item){OP_SYMLINK, 0, {a, below(g, 12)}});
    else if (dice < 48)
        add(g, (struct item){OP_LINK, 0, {a, b}});
    else if (dice < 62)
        add(g, (struct item){OP_UNLINK, 0, {a}});
    else if (dice < 68)
        add(g, (struct item){OP_RMDIR, 0, {a}});
    else
        add(g, (struct item){OP_RENAME, 0, {a, b, chance(g, 40) ? 1 + below(g, 2) : 0}});
}

static int64_t
random_time(struct generator *g)
{
    return chance(g, 15) ? 0 : chance(g, 15) ? 1 : 2 + below(g, 1000000000);
}

static void
add_attribute(struct generator *g)
{
    int64_t dice = below(g, 100), path = random_path(g);
    if (dice < 25)
        add(g, (struct item){OP_CHMOD, 0, {path, random_mode(g, 0700)}});
    else if (dice < 40)
        add(g, (struct item){OP_CHOWN, 0, {path, below(g, 3) - 1, below(g, 70000) - 1}});
    else if (dice < 60)
        add(g, (struct item){OP_UTIMENS, 0, {path, random_time(g), random_time(g)}});
    else if (dice < 85)
        add(g, (struct item){OP_SETXATTR, 0,
                   {path, below(g, 6), below(g, 200), random_seed(g),
                       chance(g, 30) ? below(g, 3) : 0}});
    else
        add(g, (struct item){OP_RMXATTR, 0, {path, below(g, 6)}});
}

static void
add_shared(struct generator *g)
{
    int64_t dice = below(g, 100);
    int64_t offset = below(g, 400000), length = 1 + below(g, 9000);
    if (dice < 35)
        add(g, (struct item){OP_SWRITE, 0, {below(g, 3), offset, length, random_seed(g)}});
    else if (dice < 50)
        add(g, (struct item){OP_SREAD, 0, {below(g, 3), offset, length}});
    else if (dice < 65)
        add(g, (struct item){OP_SAPPEND, 0, {1 + below(g, 30)}});
    else if (dice < 90)
        add(g, (struct item){OP_SNAME, 0, {below(g, 5), below(g, 8), below(g, 8)}});
    else
        add(g, (struct item){OP_SREADDIR, 0, {below(g, 2)}});
}

static void
add_flood(struct generator *g)
{
    add(g,
        (struct item){OP_FLOOD, 0, {below(g, 4), below(g, 300), 1 + below(g, 120), below(g, 3)}});
}

static void
add_operation(struct generator *g)
{
    int64_t dice = below(g, 100);
    g->thread = (int)below(g, g->plan->threads);
    if (dice < 14)
        add_open(g);
    else if (dice < 16)
        add(g, (struct item){OP_CLOSE, 0, {random_slot(g)}});
    else if (dice < 48)
        add_data(g);
    else if (dice < 61)
        add_look(g);
    else if (dice < 79)
        add_name(g);
    else if (dice < 86)
        add_attribute(g);
    else if (dice < 90)
        add(g, (struct item){OP_FSYNC, 0, {random_slot(g), below(g, 4)}});
    else if (dice < 91)
        add(g, (struct item){OP_FSYNCDIR, 0, {random_path(g)}});
    else if (dice < 93)
        add_flood(g);
    else if (dice < 99)
        g->crash ? add_data(g) : add_shared(g);
    else
        add(g, (struct item){.kind = OP_CHECKPOINT});
}

static struct item
random_event(struct generator *g)
{
    int64_t dice = below(g, 100);
    if (dice < 20)
        return (struct item){.kind = EVENT_COMPARE};
    if (dice < 32)
        return (struct item){.kind = EVENT_CHECKPOINT};
    if (dice < 45)
        return (struct item){.kind = EVENT_REMOUNT};
    if (dice < 58)
        return (struct item){.kind = EVENT_KILL, .a = {chance(g, 30) ? 1 + below(g, 3) : 0}};
    if (dice < 75)
        return (struct item){.kind = EVENT_CRASH, .a = {0, chance(g, 30) ? 1 + below(g, 3) : 0}};
    if (dice < 86)
        return (struct item){.kind = EVENT_RESTORE};
    if (dice < 91)
        return (struct item){.kind = EVENT_LOSE};
    return (struct item){
        .kind = EVENT_CRASHPOINT, .a = {below(g, (int64_t)crash_point_count()), 1 + below(g, 4)}};
}

static void
add_batch(struct generator *g)
{
    struct item event = random_event(g);
    int64_t operations = g->plan->threads * (10 + below(g, 80));
    g->crash = event.kind == EVENT_CRASH;
    // The kernel's write-back keeps changes to itself, so there the batch is run to its end.
    if (g->crash && !g->plan->writeback && chance(g, 70))
        event.a[0] = 1 + below(g, operations);
    for (int64_t i = 0; i < operations; i++)
        add_operation(g);
    plan_append(g->plan, event);
}

static void
choose_options(struct generator *g, struct plan *plan)
{
    static const char *const intervals[] = {"0", "0", "20ms", "20ms", "300ms", "60s"};
    static const char *const caches[] = {"8M", "8M", "12M", "64M"};
    static const char *const logs[] = {"16M", "16M", "24M", "128M"};
    static const char *const threads[] = {"1", "4", "16"};
    plan->writeback = chance(g, 50);
    snprintf(plan->options, sizeof(plan->options),
        "%s,checkpoint_interval=%s,page_cache=%s,wal_limit=%s,fuse_threads=%s",
        plan->writeback ? "writeback" : "no_writeback", intervals[below(g, 6)], caches[below(g, 4)],
        logs[below(g, 4)], threads[below(g, 3)]);
}

struct plan *
plan_generate(uint64_t seed)
{
    struct plan *plan = calloc(1, sizeof(*plan));
    if (!plan)
        abort();
    struct generator g = {.state = seed * 0x2545f4914f6cdd1du + 1, .plan = plan};
    plan->seed = seed;
    plan->threads = 1 + (int)below(&g, THREADS_MAX);
    choose_options(&g, plan);
    for (int i = 0; i < BATCHES; i++)
        add_batch(&g);
    return plan;
}
