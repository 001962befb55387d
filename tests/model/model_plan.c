// SPDX-License-Identifier: Apache-2.0
// Plans as data and as text:
//     threads N | serial | writeback 0|1 | options TEXT | seed N
//     THREAD OPERATION ARGUMENTS...
//     event EVENT ARGUMENTS...
// Lines that begin with # are comments.
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "tests/model/model.h"

static const struct {
    const char *name;
    int arguments;
} kinds[KINDS] = {
    [OP_OPEN] = {"open", 4},
    [OP_CLOSE] = {"close", 1},
    [OP_MKDIR] = {"mkdir", 2},
    [OP_MKNOD] = {"mknod", 2},
    [OP_SYMLINK] = {"symlink", 2},
    [OP_LINK] = {"link", 2},
    [OP_UNLINK] = {"unlink", 1},
    [OP_RMDIR] = {"rmdir", 1},
    [OP_RENAME] = {"rename", 3},
    [OP_STAT] = {"stat", 1},
    [OP_FSTAT] = {"fstat", 1},
    [OP_READ] = {"read", 3},
    [OP_WRITE] = {"write", 4},
    [OP_PWRITEV] = {"pwritev", 4},
    [OP_MMAP] = {"mmap", 5},
    [OP_FTRUNCATE] = {"ftruncate", 2},
    [OP_TRUNCATE] = {"truncate", 2},
    [OP_FALLOCATE] = {"fallocate", 4},
    [OP_HOLES] = {"holes", 3},
    [OP_COPY] = {"copy", 5},
    [OP_CHMOD] = {"chmod", 2},
    [OP_CHOWN] = {"chown", 3},
    [OP_UTIMENS] = {"utimens", 3},
    [OP_SETXATTR] = {"setxattr", 5},
    [OP_RMXATTR] = {"removexattr", 2},
    [OP_FLOOD] = {"flood", 4},
    [OP_FSYNC] = {"fsync", 2},
    [OP_FSYNCDIR] = {"fsyncdir", 1},
    [OP_READDIR] = {"readdir", 1},
    [OP_SEEKSCAN] = {"seekscan", 1},
    [OP_SWRITE] = {"shared-write", 4},
    [OP_SREAD] = {"shared-read", 3},
    [OP_SAPPEND] = {"shared-append", 1},
    [OP_SNAME] = {"shared-name", 3},
    [OP_SREADDIR] = {"shared-readdir", 1},
    [OP_CHECKPOINT] = {"checkpoint", 0},
    [EVENT_COMPARE] = {"compare", 0},
    [EVENT_CHECKPOINT] = {"checkpoint", 0},
    [EVENT_REMOUNT] = {"remount", 0},
    [EVENT_KILL] = {"kill", 1},
    [EVENT_CRASH] = {"crash", 2},
    [EVENT_RESTORE] = {"restore", 0},
    [EVENT_LOSE] = {"lose", 0},
    [EVENT_CRASHPOINT] = {"crashpoint", 2},
};

static const char *const crash_points[] = {
    "checkpoint.planned",
    "checkpoint.staged",
    "manifest.before_commit",
    "manifest.after_commit",
    "checkpoint.recorded",
    "checkpoint.uploaded",
    "remote.record_created",
    "checkpoint.published_remotely",
    "checkpoint.publication_recorded",
    "checkpoint.cleaned",
};

const char *
crash_point_name(int64_t index)
{
    return crash_points[(uint64_t)index % crash_point_count()];
}

size_t
crash_point_count(void)
{
    return sizeof(crash_points) / sizeof(crash_points[0]);
}

uint64_t
next_random(uint64_t *state)
{
    *state += 0x9e3779b97f4a7c15u;
    uint64_t z = *state;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

bool
item_is_event(const struct item *item)
{
    return item->kind >= EVENT_FIRST;
}

void
plan_append(struct plan *plan, struct item item)
{
    // Grows at powers of two.
    if ((plan->count & (plan->count - 1)) == 0) {
        size_t capacity = plan->count ? 2 * plan->count : 1;
        plan->items = realloc(plan->items, capacity * sizeof(*plan->items));
        if (!plan->items)
            abort();
    }
    plan->items[plan->count++] = item;
}

struct plan *
plan_copy(const struct plan *plan)
{
    struct plan *copy = malloc(sizeof(*copy));
    if (!copy)
        abort();
    *copy = *plan;
    copy->items = NULL;
    copy->count = 0;
    for (size_t i = 0; i < plan->count; i++)
        plan_append(copy, plan->items[i]);
    return copy;
}

void
plan_free(struct plan *plan)
{
    if (!plan)
        return;
    free(plan->items);
    free(plan);
}

void
item_print(const struct item *item, FILE *out)
{
    if (item_is_event(item))
        fprintf(out, "event %s", kinds[item->kind].name);
    else
        fprintf(out, "%d %s", item->thread, kinds[item->kind].name);
    for (int i = 0; i < kinds[item->kind].arguments; i++)
        fprintf(out, " %" PRId64, item->a[i]);
    fputc('\n', out);
}

void
plan_write(const struct plan *plan, FILE *out)
{
    fprintf(out, "seed %" PRIu64 "\nthreads %d\n", plan->seed, plan->threads);
    if (plan->serial)
        fprintf(out, "serial\n");
    fprintf(out, "writeback %d\noptions %s\n", plan->writeback, plan->options);
    for (size_t i = 0; i < plan->count; i++)
        item_print(&plan->items[i], out);
}

// ---- reading ------------------------------------------------------------------------------------

static bool
parse_item(char *first, char *rest, struct plan *plan)
{
    char *save = NULL;
    bool event = strcmp(first, "event") == 0;
    char *name = strtok_r(rest, " ", &save);
    int from = event ? EVENT_FIRST : 0, to = event ? KINDS : EVENT_FIRST;
    for (int k = from; name && k < to; k++) {
        if (strcmp(name, kinds[k].name) != 0)
            continue;
        struct item item = {.kind = (enum kind)k, .thread = event ? 0 : atoi(first)};
        for (int i = 0; i < kinds[k].arguments; i++) {
            char *number = strtok_r(NULL, " ", &save);
            if (!number)
                return false;
            item.a[i] = strtoll(number, NULL, 10);
        }
        plan_append(plan, item);
        return item.thread >= 0 && item.thread < THREADS_MAX;
    }
    return false;
}

static bool
parse_line(char *line, struct plan *plan)
{
    if (line[0] == '\0' || line[0] == '#')
        return true;
    char *rest = strchr(line, ' ');
    if (!rest) {
        plan->serial = true;
        return strcmp(line, "serial") == 0;
    }
    *rest++ = '\0';
    if (strcmp(line, "seed") == 0)
        plan->seed = strtoull(rest, NULL, 10);
    else if (strcmp(line, "threads") == 0)
        plan->threads = atoi(rest);
    else if (strcmp(line, "writeback") == 0)
        plan->writeback = atoi(rest) != 0;
    else if (strcmp(line, "options") == 0)
        snprintf(plan->options, sizeof(plan->options), "%s", rest);
    else
        return parse_item(line, rest, plan);
    return plan->threads >= 0 && plan->threads <= THREADS_MAX;
}

struct plan *
plan_read(const char *path)
{
    FILE *in = fopen(path, "r");
    if (!in) {
        perror(path);
        return NULL;
    }
    struct plan *plan = calloc(1, sizeof(*plan));
    if (!plan)
        abort();
    plan->threads = 1;
    char line[512];
    unsigned number = 0;
    bool good = true;
    while (good && fgets(line, sizeof(line), in)) {
        line[strcspn(line, "\n")] = '\0';
        number++;
        good = parse_line(line, plan);
    }
    fclose(in);
    for (size_t i = 0; i < plan->count; i++)
        good = good && plan->items[i].thread < plan->threads;
    if (good)
        return plan;
    fprintf(stderr, "%s:%u: not a line of a plan\n", path, number);
    plan_free(plan);
    return NULL;
}
