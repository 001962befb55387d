// SPDX-License-Identifier: Apache-2.0
// A model test of the mounted file system: one random sequence of operations is done on a ckptfs
// mount and on a plain directory, and each result and the two trees must be the same.
//
// A plan is a list of operations, each of one thread, cut into batches by events. An event says how
// the batch before it is run and what happens to the daemon then. A plan is made from a seed, or
// read from a file; any plan from which lines were taken away is a plan again, so that a failing
// one can be shrunk.
//
// Each thread has a tree of its own, t0, t1, ... Below "shared" all threads work on the same files
// and directories: each in byte ranges and under names of its own, so that no result depends on
// the order of threads.
#ifndef TESTS_MODEL_MODEL_H
#define TESTS_MODEL_MODEL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/types.h>

#define THREADS_MAX    4
#define SLOTS          6 // open files of a thread
#define PATHS          40
#define ARGUMENTS_MAX  5
#define TEXT_BYTES_MAX 1024
#define IO_BYTES_MAX   (1u << 20)

// Offsets and sizes below zero are from the file's end: -1 to -NEAR_END mean bytes around it.
#define NEAR_END 8192

enum kind {
    // Operations.
    OP_OPEN,      // slot path flags mode
    OP_CLOSE,     // slot
    OP_MKDIR,     // path mode
    OP_MKNOD,     // path mode: a fifo
    OP_SYMLINK,   // path target
    OP_LINK,      // path path
    OP_UNLINK,    // path
    OP_RMDIR,     // path
    OP_RENAME,    // path path flags
    OP_STAT,      // path
    OP_FSTAT,     // slot
    OP_READ,      // slot offset length
    OP_WRITE,     // slot offset length seed
    OP_PWRITEV,   // slot offset length seed
    OP_MMAP,      // slot offset length seed msync: a store through a shared mapping
    OP_FTRUNCATE, // slot size
    OP_TRUNCATE,  // path size
    OP_FALLOCATE, // slot mode offset length
    OP_HOLES,     // slot offset count: every other page becomes a hole
    OP_COPY,      // slot slot offset offset length
    OP_CHMOD,     // path mode
    OP_CHOWN,     // path uid gid
    OP_UTIMENS,   // path atime mtime: 0 omit, 1 now, else seconds
    OP_SETXATTR,  // path name length seed flags
    OP_RMXATTR,   // path name
    OP_FLOOD,     // path first count what: many names in a directory; 0 create, 1 unlink, 2 rename
    OP_FSYNC,     // slot how: 0 fsync, 1 fdatasync, 2 sync_file_range, 3 syncfs
    OP_FSYNCDIR,  // path
    OP_READDIR,   // path
    OP_SEEKSCAN,  // slot: all data, found by SEEK_DATA and SEEK_HOLE
    OP_SWRITE,    // file offset length seed: in the thread's stripes of a shared file
    OP_SREAD,     // file offset length
    OP_SAPPEND,   // count: records to a shared file, O_APPEND
    OP_SNAME,     // what name name: create, unlink, rename, link in the shared directories
    OP_SREADDIR,  // directory
    OP_CHECKPOINT,
    // Events.
    EVENT_COMPARE,
    EVENT_CHECKPOINT,
    EVENT_REMOUNT, // unmounted cleanly
    EVENT_KILL,    // count: everything is synced, then the daemon killed
    EVENT_CRASH,   // operation count: killed when so many of the batch were begun (0: at its end)
    EVENT_RESTORE, // checkpoint, the storage root is lost, mounted from the store
    EVENT_LOSE,    // checkpoint, the batch, the storage root is lost: the batch is gone
    EVENT_CRASHPOINT, // point count: everything is synced, the daemon dies in a checkpoint
    KINDS,
};

// The count of EVENT_KILL and EVENT_CRASH: 0, or the recovery is killed, too, before its so-many-th
// commit of the manifest.

#define EVENT_FIRST EVENT_COMPARE

struct item {
    enum kind kind;
    int thread; // of operations
    int64_t a[ARGUMENTS_MAX];
};

struct plan {
    uint64_t seed;
    int threads;
    bool serial; // all threads' operations one after the other, in the order of the list
    bool writeback;
    char options[256]; // of the mount
    struct item *items;
    size_t count;
};

// ---- plans (model_plan.c, model_generate.c) -----------------------------------------------------

uint64_t next_random(uint64_t *state);
struct plan *plan_generate(uint64_t seed);
// NULL after a message on stderr.
struct plan *plan_read(const char *path);
void plan_write(const struct plan *plan, FILE *out);
struct plan *plan_copy(const struct plan *plan);
void plan_append(struct plan *plan, struct item item);
void plan_free(struct plan *plan);
void item_print(const struct item *item, FILE *out);
bool item_is_event(const struct item *item);
const char *crash_point_name(int64_t index);
size_t crash_point_count(void);

// ---- execution (model_execute.c) ----------------------------------------------------------------

struct handle {
    int fd; // -1: not open
    int flags;
};

// One of the two directories.
struct side {
    const char *directory;
    bool is_mount;
    const char *ckptctl;
    bool writeback;       // the mount has the kernel's write-back cache
    bool sync_after_data; // each change of data is followed by an fsync of the same file
    struct handle handles[THREADS_MAX][SLOTS];
    uint64_t appended[THREADS_MAX]; // records
    uint8_t *buffers[THREADS_MAX];
};

struct result {
    int64_t value; // or a negative errno
    uint64_t hash; // of what was read
    uint64_t began_ns;
    uint64_t ended_ns;
    bool durable; // it promises that it and everything before it outlives the daemon
    bool done;
};

void side_init(struct side *side, const char *directory, bool is_mount);
void side_free(struct side *side);
void side_close_handles(struct side *side);
// Makes the directories and files that plans start from.
int side_prepare(struct side *side, int threads);
void side_path(const struct side *side, int thread, int64_t path, char *out);
void execute(struct side *side, const struct item *item, struct result *result_out);
// Does a write up to the end of a page; `piece`, at first the item, is what is left. Whether more
// is left. The result is that of the whole write.
bool execute_piece(
    struct side *side, const struct item *item, struct item *piece, struct result *result_out);

#define SHARED_RECORD_BYTES 100

// ---- trees (model_tree.c) -----------------------------------------------------------------------

struct tree;

// NULL when it cannot be read; `why` says so then.
struct tree *tree_read(const char *directory, char *why);
void tree_free(struct tree *tree);

enum tree_times {
    TREE_TIMES_NONE,
    TREE_TIMES_EXPLICIT, // times that utimensat set are the same
};
// False, and the first difference in `why`. Contents are read.
bool tree_same(
    const struct tree *mount, const struct tree *reference, enum tree_times times, char *why);
// Two looks at the mount: every attribute is as it was.
bool tree_unchanged(const struct tree *before, const struct tree *after, char *why);
// Gives everything the same explicit times.
void tree_set_times(const char *directory);

// ---- the daemon (model_daemon.c) ----------------------------------------------------------------

struct daemon {
    char work[512], mount[600], root[600], source[700], log[600];
    const char *ckptfs, *ckptctl;
    const char *options;
    _Atomic(int) pid; // 0: none
};

void daemon_init(struct daemon *d, const char *work, const char *options);
// `more`: further options, may be "". `crash_at`: NULL, or a crash point.
bool daemon_mount(struct daemon *d, const char *more, const char *crash_at, char *why);
bool daemon_unmount(struct daemon *d, char *why);
// Any thread.
void daemon_kill(struct daemon *d);
// After daemon_kill or a crash: waits for its end and takes the dead mount away.
bool daemon_bury(struct daemon *d, char *why);
bool daemon_checkpoint(struct daemon *d, char *why);
bool daemon_is_alive(struct daemon *d);
bool daemon_lose_root(struct daemon *d, char *why);
// Everything that was written is on stable storage.
bool daemon_sync(struct daemon *d, char *why);

// ---- running (model_run.c) ----------------------------------------------------------------------

struct outcome {
    bool failed;
    size_t failed_at; // the event's index
    uint64_t operations;
    uint64_t events;
    char why[TEXT_BYTES_MAX];
};

// Runs the plan in `work`, an empty directory.
void plan_run(const struct plan *plan, const char *work, bool verbose, struct outcome *outcome_out);

void remove_tree(const char *path);

#endif
