// SPDX-License-Identifier: Apache-2.0
// A process that dies at every step of a checkpoint, and at any moment: everything it was promised
// is there afterwards, and what is there is a prefix of what it did.
//
// The victim works through a numbered sequence of operations, each a function of its number alone.
// It reports the number up to which a sync succeeded. The parent reopens, finds out how far the
// volume got, and compares with a model that did the same operations up to there.
#include "volume_model.h"
#include "volume_world.h"

#include <inttypes.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "platform/clock.h"
#include "platform/memory.h"
#include "store/remote_store.h"

#define FILES 6u

// ---- the operations -----------------------------------------------------------------------------

// One operation: each is one record of the log, so that any number of them is a prefix.
struct step {
    enum { STEP_WRITE, STEP_TRUNCATE, STEP_PUNCH, STEP_REPLACE } kind;
    unsigned file;
    uint64_t offset;
    size_t length;
    uint64_t seed;
};

static struct step
step_of(uint64_t number)
{
    uint64_t r = (number + 1) * 0x9e3779b97f4a7c15u;
    test_random(&r);
    struct step s = {.seed = number * 977 + 13};
    s.file = (unsigned)(test_random(&r) % FILES);
    s.offset = test_random(&r) % (200u << 10);
    s.length = 1 + test_random(&r) % 20000;
    uint64_t kind = test_random(&r) % 20;
    s.kind = kind < 15   ? STEP_WRITE
             : kind < 17 ? STEP_TRUNCATE
             : kind < 19 ? STEP_PUNCH
                         : STEP_REPLACE;
    if (kind < 5) {
        s.offset -= s.offset % PAGE_BYTES;
        s.length = pages_of_bytes(s.length) * PAGE_BYTES;
    }
    return s;
}

static void
bytes_of(const struct step *s, uint8_t *out)
{
    uint64_t r = s->seed;
    for (size_t i = 0; i < s->length; i += 8) {
        uint64_t x = test_random(&r);
        memcpy(out + i, &x, s->length - i < 8 ? s->length - i : 8);
    }
}

static void
name_of(unsigned file, char name[16])
{
    snprintf(name, 16, "f%u", file);
}

// How far the volume got stands in an attribute of the root, which every operation sets after it.
static int
set_mark(struct volume *v, uint64_t number)
{
    return volume_set_xattr(v, OBJECT_ROOT_DIRECTORY, "user.mark", &number, sizeof(number), 0);
}

static int
do_step(struct volume *v, uint64_t number, struct object_id *files, uint8_t *bytes)
{
    struct step s = step_of(number);
    struct volume_attributes a;
    struct volume_caller caller = {0};
    char name[16];
    name_of(s.file, name);
    int rc = 0;
    if (s.kind == STEP_WRITE) {
        bytes_of(&s, bytes);
        rc = volume_write(v, files[s.file], s.offset, bytes, s.length, 0);
    } else if (s.kind == STEP_TRUNCATE) {
        struct volume_set_attributes set = {.set = VOLUME_SET_SIZE, .size = s.offset};
        rc = volume_set_attributes(v, files[s.file], &set, &a);
    } else if (s.kind == STEP_PUNCH) {
        rc = volume_allocate(v, files[s.file], 3, s.offset, s.length); // PUNCH_HOLE, KEEP_SIZE
    } else {
        struct object_id old = files[s.file];
        rc = volume_unlink(v, OBJECT_ROOT_DIRECTORY, name);
        if (rc == 0)
            rc = volume_make(v, OBJECT_ROOT_DIRECTORY, name, S_IFREG | 0600, 0, NULL, &caller, &a);
        files[s.file] = a.object;
        volume_object_forgotten(v, old);
    }
    return rc < 0 ? rc : set_mark(v, number + 1);
}

static void
model_step(struct model *m, uint64_t number, uint8_t *bytes)
{
    struct step s = step_of(number);
    char name[16];
    name_of(s.file, name);
    int object = model_find(m, 0, name)->object;
    uint64_t size = m->objects[object].size;
    if (s.kind == STEP_WRITE) {
        bytes_of(&s, bytes);
        model_write(m, object, s.offset, bytes, s.length);
    } else if (s.kind == STEP_TRUNCATE) {
        model_truncate(m, object, s.offset);
    } else if (s.kind == STEP_PUNCH) {
        uint64_t end = s.offset + s.length < size ? s.offset + s.length : size;
        if (s.offset < end)
            model_zero(m, object, s.offset, end);
    } else {
        model_truncate(m, object, 0);
    }
}

// ---- the victim ---------------------------------------------------------------------------------

// What the victim says about itself.
struct report {
    uint64_t done; // operations that are durable
};

static int
work(const char *directory, int report_fd, uint64_t from, bool publish)
{
    struct volume_world world;
    struct volume_world *w = &world;
    volume_world_join(w, directory);
    w->config.upload_threads = 2;
    BUFFER_AUTO error = {0};
    struct object_id files[FILES];
    uint8_t *bytes = memory_alloc(64u << 10);
    if (volume_open(&w->config, NULL, &w->v, &error) < 0)
        _exit(3);
    struct volume_caller caller = {0};
    for (unsigned i = 0; i < FILES; i++) {
        struct volume_attributes a;
        char name[16];
        name_of(i, name);
        if (volume_lookup(w->v, OBJECT_ROOT_DIRECTORY, name, &a) < 0 &&
            volume_make(w->v, OBJECT_ROOT_DIRECTORY, name, S_IFREG | 0600, 0, NULL, &caller, &a) <
                0)
            _exit(4);
        files[i] = a.object;
    }
    for (uint64_t n = from;; n++) {
        if (do_step(w->v, n, files, bytes) < 0)
            _exit(5);
        struct generation generation;
        if (n % 7 == 0) {
            struct report r = {n + 1};
            if (volume_world_sync(w->v) < 0 || write(report_fd, &r, sizeof(r)) != sizeof(r))
                _exit(6);
        }
        if (n % 40 == 39 &&
            volume_world_checkpoint(w->v, publish ? VOLUME_CHECKPOINT_PUBLISH : 0, &generation) < 0)
            _exit(7);
    }
}

// ---- the parent ---------------------------------------------------------------------------------

struct scene {
    struct volume_world w;
    struct model *m;
    uint64_t in_model; // operations the model has done
    uint8_t *bytes;
};

static void
scene_new(struct scene *s)
{
    volume_world_new(&s->w);
    s->m = model_new();
    s->in_model = 0;
    s->bytes = memory_alloc(64u << 10);
    for (unsigned i = 0; i < FILES; i++) {
        char name[16];
        name_of(i, name);
        model_put_entry(s->m, 0, name, model_add(s->m, (struct object_id){0}, S_IFREG | 0600));
    }
}

static void
scene_free(struct scene *s)
{
    model_free(s->m);
    free(s->bytes);
    volume_world_free(&s->w);
}

// Lets a victim (this program again, because crash points are read at its start) work until it
// dies; how many operations it was promised.
static uint64_t
let_die(struct scene *s, uint64_t from, bool publish, uint64_t kill_after_ms, const char *crash_at)
{
    int fds[2];
    ck_assert_int_eq(pipe(fds), 0);
    fflush(stdout);
    char number[24], fd[12];
    snprintf(number, sizeof(number), "%" PRIu64, from);
    snprintf(fd, sizeof(fd), "%d", fds[1]);
    pid_t pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        close(fds[0]);
        if (crash_at)
            unit_set_fault_hook("CKPTFS_CRASH_AT", crash_at);
        execl("/proc/self/exe", "victim", "victim", s->w.directory, fd, number,
            publish ? "publish" : "fold", NULL);
        _exit(2);
    }
    close(fds[1]);
    uint64_t promised = from;
    struct report r;
    uint64_t end = clock_monotonic_ms() + kill_after_ms;
    while (read(fds[0], &r, sizeof(r)) == sizeof(r)) {
        promised = r.done;
        if (kill_after_ms > 0 && clock_monotonic_ms() >= end)
            kill(pid, SIGKILL);
    }
    close(fds[0]);
    int status;
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_msg(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "status %x", status);
    return promised;
}

// The volume as it is now, against the model after as many operations; the number of operations.
// An operation and its mark are two records: the last operation may be there without its mark.
static uint64_t
compare(struct scene *s, struct volume *v, const struct model *before, uint64_t base)
{
    BUFFER_AUTO mark = {0};
    uint64_t number = 0;
    if (volume_get_xattr(v, OBJECT_ROOT_DIRECTORY, "user.mark", &mark) == 0)
        memcpy(&number, mark.data, sizeof(number));
    ck_assert_uint_ge(number, base);
    struct model *m = model_copy(before);
    for (uint64_t n = base; n < number; n++)
        model_step(m, n, s->bytes);
    // The operation after the mark touches one file, which may be as before or after it.
    struct step next = step_of(number);
    for (unsigned i = 0; i < FILES; i++) {
        char name[16];
        struct volume_attributes a;
        name_of(i, name);
        int rc = volume_lookup(v, OBJECT_ROOT_DIRECTORY, name, &a);
        if (number == 0 || i == next.file) {
            ck_assert(rc == 0 || rc == -ENOENT);
            continue;
        }
        ck_assert_int_eq(rc, 0);
        struct model_object *o = &m->objects[model_find(m, 0, name)->object];
        o->id = a.object;
        ck_assert_uint_eq(a.inode.size, o->size);
        for (uint64_t at = 0; at < o->size; at += 64u << 10)
            model_compare_range(m, v, model_find(m, 0, name)->object, at, 64u << 10);
    }
    model_free(m);
    return number;
}

static void
after_death(struct scene *s, uint64_t promised)
{
    // What is in the store is a prefix, too: everything up to the last round was published.
    struct volume_world past = s->w;
    BUFFER_AUTO error = {0};
    past.config.read_only = true;
    int rc = volume_open(&past.config, NULL, &past.v, &error);
    ck_assert_msg(
        rc == 0 || (rc == -ENOENT && s->in_model == 0), "%d %s", rc, buffer_string(&error));
    if (rc == 0) {
        compare(s, past.v, s->m, s->in_model);
        ck_assert_int_eq(volume_world_try_close(&past), 0);
    }
    volume_world_open(&s->w);
    uint64_t number = compare(s, s->w.v, s->m, s->in_model);
    ck_assert_msg(number >= promised, "%" PRIu64 " of %" PRIu64, number, promised);
    // Settle the last operation, which may have happened without its mark: it can be done again.
    struct object_id files[FILES];
    for (unsigned i = 0; i < FILES; i++) {
        char name[16];
        struct volume_attributes a;
        name_of(i, name);
        if (volume_lookup(s->w.v, OBJECT_ROOT_DIRECTORY, name, &a) < 0) {
            struct volume_caller caller = {0};
            ck_assert_int_eq(volume_make(s->w.v, OBJECT_ROOT_DIRECTORY, name, S_IFREG | 0600, 0,
                                 NULL, &caller, &a),
                0);
        }
        files[i] = a.object;
    }
    ck_assert_int_eq(do_step(s->w.v, number, files, s->bytes), 0);
    for (; s->in_model <= number; s->in_model++)
        model_step(s->m, s->in_model, s->bytes);
    volume_world_publish(s->w.v);
    volume_world_close(&s->w);
    volume_world_check(&s->w);
    // And from the store alone, all of it.
    struct volume_world other;
    volume_world_join(&other, s->w.directory);
    volume_world_set_root(&other, "other");
    volume_world_open(&other);
    ck_assert_uint_eq(compare(s, other.v, s->m, s->in_model), s->in_model);
    volume_world_close(&other);
    volume_world_lose_root(&other);
    volume_world_leave(&other);
}

// ---- tests --------------------------------------------------------------------------------------

static const char *const points[] = {"checkpoint.planned", "checkpoint.staged",
    "checkpoint.recorded", "checkpoint.uploaded", "checkpoint.published_remotely",
    "checkpoint.publication_recorded", "checkpoint.cleaned", "remote.record_created",
    "manifest.before_commit", "manifest.after_commit", "remote.epoch_noted", "remote.open_created"};

START_TEST(nothing_promised_is_lost_at_any_step_of_a_checkpoint)
{
    struct scene s;
    scene_new(&s);
    for (size_t i = 0; i < ARRAY_LENGTH(points); i++)
        for (unsigned count = 1; count <= 2; count++) {
            char crash_at[64];
            // A process opens the volume once; the manifest is written to all the time.
            bool opening = strcmp(points[i], "remote.epoch_noted") == 0 ||
                           strcmp(points[i], "remote.open_created") == 0;
            if (count == 2 && opening)
                continue;
            bool often = strncmp(points[i], "manifest.", 9) == 0;
            snprintf(crash_at, sizeof(crash_at), "%s:%u", points[i], often ? 5 * count : count);
            after_death(&s, let_die(&s, s.in_model, true, 0, crash_at));
        }
    scene_free(&s);
}
END_TEST

START_TEST(nothing_promised_is_lost_when_it_dies_at_any_moment)
{
    struct scene s;
    uint64_t random = test_seed("crash") * 2 + 1;
    scene_new(&s);
    for (int round = 0; round < 12; round++) {
        uint64_t ms = 1 + test_random(&random) % 400;
        uint64_t promised = let_die(&s, s.in_model, round % 2, ms, NULL);
        after_death(&s, promised);
    }
    printf("crash: %" PRIu64 " operations\n", s.in_model);
    scene_free(&s);
}
END_TEST

int
main(int argc, char **argv)
{
    if (argc == 6 && strcmp(argv[1], "victim") == 0)
        return work(
            argv[2], atoi(argv[3]), strtoull(argv[4], NULL, 10), strcmp(argv[5], "publish") == 0);
    Suite *s = suite_create("volume_crash");
#define ADD(test) unit_add(s, #test, test, 240)
    ADD(nothing_promised_is_lost_at_any_step_of_a_checkpoint);
    ADD(nothing_promised_is_lost_when_it_dies_at_any_moment);
#undef ADD
    return unit_run(s);
}
