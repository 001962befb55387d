// SPDX-License-Identifier: Apache-2.0
// Random changes on a few files of a directory, against a model of what must be there.
//
//     crash_writer write DIR BASE PROGRESS SEED strict|cached
//         DIR shows what BASE (a plain copy of it) shows. Does operations 1, 2, 3, ... decided by
//         SEED until SIGTERM or an error. PROGRESS, a file outside the mount, holds what was begun
//         and what an fsync has acknowledged; the kernel keeps it when the process dies.
//     crash_writer check DIR BASE PROGRESS SEED strict|cached
//         strict (the mount does not cache writes): DIR must be BASE plus exactly the first k
//         operations for some k from the acknowledged one to the last one begun, and perhaps a
//         part of the next.
//         cached (the kernel's write-back cache is on): what was acknowledged must be there; bytes
//         written later may be there or not.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILES       4
#define FILE_LIMIT  (1u << 20)
#define PAGE_BYTES  4096u
#define WRITE_LIMIT 40000u

struct progress {
    volatile uint64_t begun;
    volatile uint64_t acknowledged[FILES]; // the newest operation an fsync of the file covers
    volatile uint64_t acknowledged_any;
};

struct model_file {
    bool exists;
    uint32_t size;
    uint8_t data[FILE_LIMIT];
};

enum operation_kind { OP_WRITE, OP_APPEND, OP_TRUNCATE, OP_RENAME, OP_UNLINK, OP_PUNCH, OP_FSYNC };

struct operation {
    enum operation_kind kind;
    int file, target;
    uint32_t offset, length;
    uint64_t seed;
};

static volatile sig_atomic_t must_stop;
static bool strict;

static void
on_signal(int signal_number)
{
    (void)signal_number;
    must_stop = 1;
}

static _Noreturn void
die(const char *what, uint64_t n)
{
    fprintf(stderr, "operation %" PRIu64 ": %s: %s\n", n, what, strerror(errno));
    exit(3);
}

static uint64_t
next_random(uint64_t *state)
{
    *state += 0x9e3779b97f4a7c15u;
    uint64_t z = *state;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static uint8_t
content_byte(uint64_t seed, uint32_t i)
{
    return (uint8_t)((seed >> (i % 7 * 8)) + i * 31 + (i >> 8));
}

// Operation n: a pure function of the seed and n.
static struct operation
decide(uint64_t seed, uint64_t n)
{
    uint64_t state = seed * 1000003 + n * 7919;
    struct operation op = {.file = (int)(next_random(&state) % FILES),
        .target = (int)(next_random(&state) % FILES),
        .seed = next_random(&state)};
    unsigned dice = (unsigned)(next_random(&state) % 100);
    op.offset = (uint32_t)(next_random(&state) % (FILE_LIMIT - WRITE_LIMIT));
    op.length = 1 + (uint32_t)(next_random(&state) % (dice % 3 ? 600 : WRITE_LIMIT));
    if (next_random(&state) % 4 == 0) { // on pages
        op.offset &= ~4095u;
        op.length = (op.length + 4095) & ~4095u;
    }
    if (op.offset + op.length > FILE_LIMIT)
        op.length = FILE_LIMIT - op.offset;
    op.kind = dice < 45   ? OP_WRITE
              : dice < 57 ? OP_APPEND
              : dice < 63 ? OP_TRUNCATE
              : dice < 69 ? OP_RENAME
              : dice < 71 ? OP_UNLINK
              : dice < 75 ? OP_PUNCH
                          : OP_FSYNC;
    // With the kernel's cache the order of data and names is not that of the calls: see
    // check_cached.
    if (!strict && op.kind != OP_FSYNC)
        op.kind = OP_WRITE;
    return op;
}

// What the operation really does depends on the state: appends go to the end and are dropped when
// the file is full, operations on a file that is not there make it (fsync does nothing).
static void
apply(struct model_file *files, struct operation *op)
{
    struct model_file *f = &files[op->file];
    if (op->kind == OP_FSYNC)
        return;
    if (!f->exists) {
        f->exists = true;
        f->size = 0;
    }
    switch (op->kind) {
    case OP_APPEND:
        op->offset = f->size;
        if (op->offset + op->length > FILE_LIMIT)
            op->length = 0;
        // fall through
    case OP_WRITE:
        if (op->length == 0)
            break;
        if (f->size < op->offset)
            memset(f->data + f->size, 0, op->offset - f->size);
        for (uint32_t i = 0; i < op->length; i++)
            f->data[op->offset + i] = content_byte(op->seed, i);
        if (f->size < op->offset + op->length)
            f->size = op->offset + op->length;
        break;
    case OP_TRUNCATE:
        if (op->offset > f->size)
            memset(f->data + f->size, 0, op->offset - f->size);
        f->size = op->offset;
        break;
    case OP_PUNCH:
        for (uint32_t i = op->offset; i < op->offset + op->length && i < f->size; i++)
            f->data[i] = 0;
        break;
    case OP_RENAME:
        if (op->target == op->file)
            break;
        memcpy(&files[op->target], f, sizeof(*f));
        f->exists = false;
        f->size = 0;
        break;
    case OP_UNLINK:
        f->exists = false;
        f->size = 0;
        break;
    case OP_FSYNC:
        break;
    }
}

static void
file_path(char *out, size_t size, const char *directory, int file)
{
    snprintf(out, size, "%s/file-%d", directory, file);
}

static void
load_files(const char *directory, struct model_file *files)
{
    for (int i = 0; i < FILES; i++) {
        char path[4096];
        file_path(path, sizeof(path), directory, i);
        files[i].exists = false;
        files[i].size = 0;
        int fd = open(path, O_RDONLY);
        if (fd < 0 && errno == ENOENT)
            continue;
        if (fd < 0)
            die(path, 0);
        struct stat st;
        if (fstat(fd, &st) != 0 || st.st_size > (off_t)FILE_LIMIT)
            die("stat, or too large", 0);
        uint32_t got = 0;
        ssize_t n;
        while (got < FILE_LIMIT && (n = read(fd, files[i].data + got, FILE_LIMIT - got)) > 0)
            got += (uint32_t)n;
        if (got != (uint32_t)st.st_size)
            die("read less than the size", 0);
        files[i].exists = true;
        files[i].size = got;
        close(fd);
    }
}

static struct model_file *
new_files(void)
{
    struct model_file *files = calloc(FILES, sizeof(*files));
    if (!files)
        die("calloc", 0);
    return files;
}

static struct progress *
map_progress(const char *path, bool fresh)
{
    int fd = open(path, O_RDWR | O_CREAT | (fresh ? O_TRUNC : 0), 0644);
    if (fd < 0 || (fresh && ftruncate(fd, sizeof(struct progress)) != 0))
        die(path, 0);
    struct progress *p = mmap(NULL, sizeof(*p), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED)
        die("mmap", 0);
    close(fd);
    return p;
}

// ---- write --------------------------------------------------------------------------------------

static void
write_content(int fd, const struct operation *op, uint64_t n)
{
    static uint8_t bytes[FILE_LIMIT];
    for (uint32_t i = 0; i < op->length; i++)
        bytes[i] = content_byte(op->seed, i);
    if (op->length == 0)
        return;
    errno = 0;
    ssize_t written = pwrite(fd, bytes, op->length, (off_t)op->offset);
    if (written < 0)
        die("write", n);
    if (written != (ssize_t)op->length) {
        fprintf(stderr, "operation %" PRIu64 ": %zd of %u bytes at %u were written\n", n, written,
            op->length, op->offset);
        exit(3);
    }
}

static void
perform(const char *directory, const struct operation *op, uint64_t n, struct progress *progress)
{
    char path[4096], target[4096];
    file_path(path, sizeof(path), directory, op->file);
    file_path(target, sizeof(target), directory, op->target);
    int fd = open(path, O_RDWR | (op->kind == OP_FSYNC ? 0 : O_CREAT), 0644);
    if (fd < 0) {
        if (op->kind == OP_FSYNC && errno == ENOENT)
            return;
        die("open", n);
    }
    switch (op->kind) {
    case OP_WRITE:
    case OP_APPEND:
        write_content(fd, op, n);
        break;
    case OP_TRUNCATE:
        if (ftruncate(fd, (off_t)op->offset) != 0)
            die("truncate", n);
        break;
    case OP_PUNCH:
        if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)op->offset,
                (off_t)op->length) != 0)
            die("punch hole", n);
        break;
    case OP_RENAME:
        if (rename(path, target) != 0)
            die("rename", n);
        break;
    case OP_UNLINK:
        if (unlink(path) != 0)
            die("unlink", n);
        break;
    case OP_FSYNC:
        if ((op->seed & 1 ? fsync(fd) : fdatasync(fd)) != 0)
            die("fsync", n);
        progress->acknowledged[op->file] = n;
        progress->acknowledged_any = n;
        break;
    }
    // A close after the daemon's death fails; nothing is promised by it.
    close(fd);
}

static int
run_write(char **argv)
{
    struct model_file *files = new_files();
    struct progress *progress = map_progress(argv[2], true);
    uint64_t seed = strtoull(argv[3], NULL, 10);
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGTERM, &action, NULL);
    load_files(argv[1], files);
    // From inside, a mount that is taken away stays one that does not answer.
    if (chdir(argv[0]) != 0)
        die(argv[0], 0);
    for (uint64_t n = 1; !must_stop; n++) {
        struct operation op = decide(seed, n);
        progress->begun = n;
        // Creation and the operation are two changes: made first, so that each number is one
        // change.
        apply(files, &op);
        perform(".", &op, n, progress);
    }
    return 0;
}

// ---- check --------------------------------------------------------------------------------------

static bool
same_files(const struct model_file *a, const struct model_file *b)
{
    for (int i = 0; i < FILES; i++)
        if (a[i].exists != b[i].exists || a[i].size != b[i].size ||
            memcmp(a[i].data, b[i].data, a[i].size) != 0)
            return false;
    return true;
}

// A state in the middle of operation `op`: the file was made for it, or a part of a write is there;
// the kernel may hand a write over in several pieces, which end at page boundaries.
static bool
same_in_the_middle(
    struct model_file *model, const struct model_file *found, const struct operation *op)
{
    struct model_file *f = &model[op->file];
    struct operation whole = *op;
    if (op->kind == OP_FSYNC)
        return false;
    struct model_file *before = new_files();
    memcpy(before, f, sizeof(*f));
    bool same = false;
    if (!f->exists) {
        f->exists = true;
        f->size = 0;
        same = same_files(model, found);
    }
    if (op->kind == OP_APPEND)
        whole.offset = f->size;
    bool writes = op->kind == OP_WRITE ||
                  (op->kind == OP_APPEND && whole.offset + whole.length <= FILE_LIMIT);
    whole.kind = OP_WRITE;
    for (uint32_t end = (whole.offset / PAGE_BYTES + 1) * PAGE_BYTES;
         writes && !same && end < whole.offset + whole.length; end += PAGE_BYTES) {
        struct operation part = whole;
        part.length = end - whole.offset;
        memcpy(f, before, sizeof(*f));
        apply(model, &part);
        same = same_files(model, found);
    }
    memcpy(f, before, sizeof(*f));
    free(before);
    return same;
}

static void
explain(const struct model_file *model, const struct model_file *found, uint64_t n)
{
    printf("the state after operation %" PRIu64 " against what was found:\n", n);
    for (int i = 0; i < FILES; i++) {
        uint32_t at = 0, size = model[i].size < found[i].size ? model[i].size : found[i].size;
        while (at < size && model[i].data[at] == found[i].data[at])
            at++;
        printf("  file-%d: exists %d/%d, size %u/%u, first difference at %u\n", i, model[i].exists,
            found[i].exists, model[i].size, found[i].size, at);
    }
}

static int
check_strict(struct model_file *model, const struct model_file *found,
    const struct progress *progress, uint64_t seed)
{
    struct model_file *acknowledged = new_files();
    uint64_t from = progress->acknowledged_any, to = progress->begun;
    for (uint64_t n = 0;; n++) {
        if (n > 0) {
            struct operation op = decide(seed, n);
            if (n > from && same_in_the_middle(model, found, &op)) {
                printf("operation %" PRIu64 " in the middle, %" PRIu64 " to %" PRIu64 " allowed\n",
                    n, from, to);
                return 0;
            }
            apply(model, &op);
        }
        if (n >= from && same_files(model, found)) {
            printf("operation %" PRIu64 ", %" PRIu64 " to %" PRIu64 " allowed\n", n, from, to);
            return 0;
        }
        if (n == from)
            memcpy(acknowledged, model, FILES * sizeof(*model));
        if (n >= to)
            break;
    }
    explain(acknowledged, found, from);
    explain(model, found, to);
    free(acknowledged);
    printf("no prefix from %" PRIu64 " to %" PRIu64 " gives this state\n", from, to);
    return 1;
}

// Each byte must be what the acknowledged operations left there, or of a later write to it.
static int
check_cached(struct model_file *model, const struct model_file *found,
    const struct progress *progress, uint64_t seed)
{
    struct model_file *newer = new_files(); // data: 1 where a later write changed the byte
    for (uint64_t n = 1; n <= progress->begun; n++) {
        struct operation op = decide(seed, n);
        struct model_file *f = &newer[op.file];
        if (op.kind == OP_WRITE && n > progress->acknowledged[op.file]) {
            uint32_t end = op.offset + op.length;
            memset(f->data + op.offset, 1, op.length);
            f->size = f->size < end ? end : f->size;
        } else {
            apply(model, &op);
        }
    }
    for (int i = 0; i < FILES; i++) {
        const struct model_file *m = &model[i], *f = &found[i];
        uint32_t most = m->size > newer[i].size ? m->size : newer[i].size;
        if (m->exists && (!f->exists || f->size < m->size || f->size > most)) {
            printf("file-%d: exists %d, size %u, expected %u to %u\n", i, f->exists, f->size,
                m->size, most);
            return 1;
        }
        for (uint32_t at = 0; at < f->size && at < m->size; at++)
            if (!newer[i].data[at] && f->data[at] != m->data[at]) {
                printf("file-%d: byte %u is %u, an acknowledged write left %u there\n", i, at,
                    f->data[at], m->data[at]);
                return 1;
            }
    }
    printf("%" PRIu64 " operations, acknowledged up to %" PRIu64 "\n", progress->begun,
        progress->acknowledged_any);
    free(newer);
    return 0;
}

static int
run_check(char **argv)
{
    struct model_file *model = new_files(), *found = new_files();
    struct progress *progress = map_progress(argv[2], false);
    uint64_t seed = strtoull(argv[3], NULL, 10);
    load_files(argv[1], model);
    load_files(argv[0], found);
    int result = strict ? check_strict(model, found, progress, seed)
                        : check_cached(model, found, progress, seed);
    free(model);
    free(found);
    return result;
}

int
main(int argc, char **argv)
{
    if (argc == 7) {
        strict = strcmp(argv[6], "strict") == 0;
        if (strcmp(argv[1], "write") == 0)
            return run_write(argv + 2);
        if (strcmp(argv[1], "check") == 0)
            return run_check(argv + 2);
    }
    fprintf(stderr, "usage: see the head of crash_writer.c\n");
    return 2;
}
