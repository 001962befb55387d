// SPDX-License-Identifier: Apache-2.0
// What must survive: processes killed, disks that are full or fail, maps that are too small, files
// that are not what they should be, many threads and two processes at once.
#include "manifest_fixture.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/hash_table.h"
#include "manifest/manifest_internal.h"

#define REG (S_IFREG | 0600)

// ---- a flush that can fail or wait --------------------------------------------------------------
//
// LMDB calls this instead of the C library's.

static struct {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    int error;   // to fail with
    bool closed; // calls wait while this is set
    int waiting; // how many do
    int calls;
} flush = {.mutex = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

int
fdatasync(int fd)
{
    pthread_mutex_lock(&flush.mutex);
    flush.calls++;
    flush.waiting++;
    pthread_cond_broadcast(&flush.changed);
    while (flush.closed)
        pthread_cond_wait(&flush.changed, &flush.mutex);
    flush.waiting--;
    int error = flush.error;
    pthread_mutex_unlock(&flush.mutex);
    if (error == 0)
        return (int)syscall(SYS_fdatasync, fd);
    errno = error;
    return -1;
}

static void
flush_set(bool closed, int error)
{
    pthread_mutex_lock(&flush.mutex);
    flush.closed = closed;
    flush.error = error;
    pthread_cond_broadcast(&flush.changed);
    pthread_mutex_unlock(&flush.mutex);
}

static void
flush_wait_for_caller(void)
{
    pthread_mutex_lock(&flush.mutex);
    while (flush.waiting == 0)
        pthread_cond_wait(&flush.changed, &flush.mutex);
    pthread_mutex_unlock(&flush.mutex);
}

static int
flush_calls(void)
{
    pthread_mutex_lock(&flush.mutex);
    int calls = flush.calls;
    pthread_mutex_unlock(&flush.mutex);
    return calls;
}

// ---- helpers ------------------------------------------------------------------------------------

static void
open_durable(struct fixture *f, uint64_t map_bytes)
{
    struct manifest_options options = {.map_bytes = map_bytes};
    ck_assert_int_eq(manifest_open(f->directory, &options, &f->manifest), 0);
}

static struct fixture
durable_fixture(void)
{
    char *directory = unit_directory_new();
    struct fixture f = {.directory = directory};
    open_durable(&f, 0);
    f.db = fixture_create_db(&f, 1);
    return f;
}

// An orphan with an xattr of `bytes`: a batch that is consistent on its own.
static int
submit_orphan(struct manifest *m, struct db_id db, uint64_t object, uint32_t bytes)
{
    static const uint8_t value[XATTR_VALUE_BYTES_MAX];
    struct change c[] = {
        sample_inode(object, REG, 0, object), sample_xattr(object, "user.x", value, bytes)};
    return submit_changes(m, db, c, ARRAY_LENGTH(c), 1, RESIDENCY_LOCAL, NULL);
}

static bool
has_orphan(struct fixture *f, uint64_t object)
{
    struct inode_record inode;
    int rc = read_inode(f, object, &inode);
    ck_assert(rc == 0 || rc == -ENOENT);
    if (rc == 0)
        ck_assert_uint_eq(inode.size, object);
    return rc == 0;
}

// ---- killed processes ---------------------------------------------------------------------------

// Submits one orphan after the other and tells each number once its batch is durable.
static void
submit_for_ever(const char *directory, struct db_id db, uint64_t from, int pipe_end)
{
    struct manifest_options options = {0};
    struct manifest *m;
    if (manifest_open(directory, &options, &m) < 0)
        _exit(1);
    for (uint64_t object = from;; object++)
        if (submit_orphan(m, db, object, (uint32_t)(object * 1237 % 9000)) < 0 ||
            write(pipe_end, &object, sizeof(object)) != sizeof(object))
            _exit(1);
}

// Becomes a process that does so; crash points are read when a program starts.
static void
run_submitter(const struct fixture *f, uint64_t from, int pipe_end)
{
    char numbers[3][24];
    snprintf(numbers[0], sizeof(numbers[0]), "%u", f->db.v);
    snprintf(numbers[1], sizeof(numbers[1]), "%llu", (unsigned long long)from);
    snprintf(numbers[2], sizeof(numbers[2]), "%d", pipe_end);
    execl("/proc/self/exe", "submitter", f->directory, numbers[0], numbers[1], numbers[2],
        (char *)NULL);
    _exit(1);
}

// Lets a child submit until it has told `count` numbers, and kills it; returns the last one told.
static uint64_t
kill_after(struct fixture *f, uint64_t from, unsigned count)
{
    int ends[2];
    int status;
    uint64_t object;
    uint64_t last = from - 1;
    ck_assert_int_eq(pipe(ends), 0);
    pid_t child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0) {
        close(ends[0]);
        run_submitter(f, from, ends[1]);
    }
    close(ends[1]);
    while (read(ends[0], &object, sizeof(object)) == sizeof(object)) {
        last = object;
        if (last - from + 1 == count)
            kill(child, SIGKILL);
    }
    close(ends[0]);
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    return last;
}

// After the death: everything that was acknowledged is there, at most one batch more.
static uint64_t
check_after_death(struct fixture *f, uint64_t last)
{
    open_durable(f, 0);
    for (uint64_t object = 2; object <= last; object++)
        ck_assert_msg(has_orphan(f, object), "%d was acknowledged and is not there", (int)object);
    uint64_t next = last + 1 + has_orphan(f, last + 1);
    ck_assert(!has_orphan(f, next));
    ck_assert_uint_eq(read_totals(f).inodes, next - 2);
    ck_assert_int_eq(manifest_check(f->manifest, f->db), 0);
    manifest_close(f->manifest);
    return next;
}

START_TEST(acknowledged_batches_survive_kill)
{
    struct fixture f = durable_fixture();
    uint64_t next = 2;
    manifest_close(f.manifest);
    for (unsigned round = 0; round < 8; round++)
        next = check_after_death(&f, kill_after(&f, next, 5 + round * 3));
    ck_assert_uint_gt(next, 100);
    unit_directory_remove(f.directory);
}
END_TEST

START_TEST(batches_are_whole_at_crash_points)
{
    static const char *const points[] = {
        "manifest.before_commit:1", "manifest.before_commit:7", "manifest.after_commit:5"};
    struct fixture f = durable_fixture();
    uint64_t next = 2;
    manifest_close(f.manifest);
    for (size_t i = 0; i < ARRAY_LENGTH(points); i++) {
        unit_set_fault_hook("CKPTFS_CRASH_AT", points[i]);
        uint64_t last = kill_after(&f, next, 1000);
        unsetenv("CKPTFS_CRASH_AT");
        uint64_t after = check_after_death(&f, last);
        // Committed and not acknowledged, or neither.
        ck_assert_uint_eq(after, last + 1 + (strstr(points[i], "after") != NULL));
        next = after;
    }
    unit_directory_remove(f.directory);
}
END_TEST

// ---- full disks ---------------------------------------------------------------------------------

// Submits until there is no room, and tries some more; returns the error and how many there are.
static int
fill(struct fixture *f, uint64_t *count_out)
{
    int rc = 0;
    uint64_t object = 2;
    while (rc == 0 && object < 100000) {
        rc = submit_orphan(f->manifest, f->db, object, 20000);
        object += rc == 0;
    }
    *count_out = object - 2;
    ck_assert_int_eq(submit_orphan(f->manifest, f->db, object, 60000), rc);
    ck_assert(!has_orphan(f, object));
    ck_assert_int_eq(manifest_check(f->manifest, f->db), 0);
    return rc;
}

static void
make_room_and_go_on(struct fixture *f, uint64_t count)
{
    ck_assert_int_eq(submit_orphan(f->manifest, f->db, count + 2, 20000), 0);
    ck_assert(has_orphan(f, count + 2));
    ck_assert_int_eq(manifest_check(f->manifest, f->db), 0);
    manifest_close(f->manifest);
    open_durable(f, 0);
    ck_assert(has_orphan(f, count + 1) && has_orphan(f, count + 2));
    fixture_free(f);
}

START_TEST(file_size_limit_is_an_error_and_no_more)
{
    struct fixture f = durable_fixture();
    struct rlimit old;
    uint64_t count;
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &old);
    struct rlimit limit = {1000 * 1000, old.rlim_max};
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
    ck_assert_int_eq(fill(&f, &count), -EFBIG);
    ck_assert_uint_gt(count, 10);
    setrlimit(RLIMIT_FSIZE, &old);
    make_room_and_go_on(&f, count);
}
END_TEST

START_TEST(full_disk_is_an_error_and_no_more)
{
    char *directory = unit_directory_new();
    BUFFER_AUTO path = {0};
    uint64_t count;
    // A file system of its own, which goes away with this process.
    if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount("ckptfs-test", directory, "tmpfs", 0, "size=1m") != 0) {
        fprintf(stderr, "no right to mount: full_disk_is_an_error_and_no_more was not run\n");
        unit_directory_remove(directory);
        return;
    }
    buffer_printf(&path, "%s/manifest", directory);
    struct fixture f = {.directory = strdup(buffer_string(&path))};
    open_durable(&f, 0);
    f.db = fixture_create_db(&f, 1);
    ck_assert_int_eq(fill(&f, &count), -ENOSPC);
    ck_assert_uint_gt(count, 10);
    ck_assert_int_eq(mount("ckptfs-test", directory, "tmpfs", MS_REMOUNT, "size=8m"), 0);
    make_room_and_go_on(&f, count);
    ck_assert_int_eq(umount2(directory, MNT_DETACH), 0);
    unit_directory_remove(directory);
}
END_TEST

START_TEST(directory_without_room_is_refused_cleanly)
{
    char *directory = unit_directory_new();
    struct manifest_options options = {0};
    struct rlimit old;
    struct rlimit limit = {3000, RLIM_INFINITY};
    struct manifest *m;
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &old);
    limit.rlim_max = old.rlim_max;
    setrlimit(RLIMIT_FSIZE, &limit);
    int rc = manifest_open(directory, &options, &m);
    ck_assert_msg(rc < 0, "opened");
    ck_assert_ptr_null(m);
    setrlimit(RLIMIT_FSIZE, &old);
    unit_directory_remove(directory);
}
END_TEST

// ---- failing flushes ----------------------------------------------------------------------------

START_TEST(flush_that_keeps_failing_stops_all_writing)
{
    struct fixture f = durable_fixture();
    ck_assert_int_eq(submit_orphan(f.manifest, f.db, 2, 10), 0);
    flush_set(false, EIO);
    ck_assert_int_eq(submit_orphan(f.manifest, f.db, 3, 10), -EIO);
    ck_assert(manifest_is_lost(f.manifest));
    flush_set(false, 0);
    // The disk says it is well again, too late: the answer has been given.
    ck_assert_int_eq(submit_orphan(f.manifest, f.db, 4, 10), -EIO);
    struct db_record db = sample_db(9);
    ck_assert_int_eq(manifest_create_db(f.manifest, &db), -EIO);
    // Reading goes on, and a new process may try again.
    ck_assert(has_orphan(&f, 2) && !has_orphan(&f, 3));
    manifest_close(f.manifest);
    open_durable(&f, 0);
    ck_assert(has_orphan(&f, 2) && !has_orphan(&f, 4));
    ck_assert_int_eq(submit_orphan(f.manifest, f.db, 5, 10), 0);
    fixture_free(&f);
}
END_TEST

START_TEST(flush_without_room_can_be_repeated)
{
    struct fixture f = durable_fixture();
    flush_set(false, ENOSPC);
    ck_assert_int_eq(submit_orphan(f.manifest, f.db, 2, 10), -ENOSPC);
    flush_set(false, 0);
    ck_assert(!has_orphan(&f, 2));
    ck_assert_int_eq(submit_orphan(f.manifest, f.db, 2, 10), 0);
    fixture_free(&f);
}
END_TEST

// ---- many threads -------------------------------------------------------------------------------

struct submitter {
    pthread_t thread;
    struct fixture *f;
    uint64_t object;
    bool is_bad;
    int result;
};

static void *
submit_one(void *argument)
{
    struct submitter *s = argument;
    if (!s->is_bad) {
        s->result = submit_orphan(s->f->manifest, s->f->db, s->object, 100);
        return NULL;
    }
    // Fails after it has changed something.
    struct change c[] = {sample_inode(s->object, REG, 0, s->object), sample_delta(99, 2, 1, 0, 10)};
    s->result = submit_changes(s->f->manifest, s->f->db, c, 2, 0, RESIDENCY_LOCAL, NULL);
    return NULL;
}

static void
start_submitter(struct submitter *s, struct fixture *f, uint64_t object, bool is_bad)
{
    *s = (struct submitter){.f = f, .object = object, .is_bad = is_bad};
    ck_assert_int_eq(pthread_create(&s->thread, NULL, submit_one, s), 0);
}

static void
wait_for_queue(struct manifest *m, size_t length)
{
    for (;;) {
        size_t count = 0;
        lock_take(&m->lock);
        LIST_FOR_EACH(&m->queue, node)
        {
            count++;
        }
        lock_release(&m->lock);
        if (count == length)
            return;
        sched_yield();
    }
}

#define WAITERS 20

START_TEST(waiting_batches_share_a_flush)
{
    struct fixture f = durable_fixture();
    struct submitter first;
    struct submitter others[WAITERS];
    flush_set(true, 0);
    start_submitter(&first, &f, 2, false);
    flush_wait_for_caller();
    int calls = flush_calls();
    for (int i = 0; i < WAITERS; i++)
        start_submitter(&others[i], &f, 3 + (uint64_t)i, i % 5 == 2);
    wait_for_queue(f.manifest, WAITERS);
    flush_set(false, 0);
    pthread_join(first.thread, NULL);
    ck_assert_int_eq(first.result, 0);
    for (int i = 0; i < WAITERS; i++) {
        pthread_join(others[i].thread, NULL);
        // The bad ones fail, and fail alone.
        ck_assert_int_eq(others[i].result, others[i].is_bad ? -EINVAL : 0);
        ck_assert_int_eq(has_orphan(&f, others[i].object), !others[i].is_bad);
    }
    ck_assert_int_eq(flush_calls() - calls, 1);
    fixture_free(&f);
}
END_TEST

START_TEST(failed_commit_fails_all_who_share_it)
{
    struct fixture f = durable_fixture();
    struct submitter first;
    struct submitter others[WAITERS];
    flush_set(true, 0);
    start_submitter(&first, &f, 2, false);
    flush_wait_for_caller();
    for (int i = 0; i < WAITERS; i++)
        start_submitter(&others[i], &f, 3 + (uint64_t)i, false);
    wait_for_queue(f.manifest, WAITERS);
    flush_set(false, EIO);
    pthread_join(first.thread, NULL);
    ck_assert_int_eq(first.result, -EIO);
    for (int i = 0; i < WAITERS; i++) {
        pthread_join(others[i].thread, NULL);
        ck_assert_int_eq(others[i].result, -EIO);
        ck_assert(!has_orphan(&f, others[i].object));
    }
    flush_set(false, 0);
    fixture_free(&f);
}
END_TEST

struct worker {
    pthread_t thread;
    struct fixture *f;
    uint64_t number;
};

#define WORKERS 6
#define ROUNDS  60

// Writes objects of its own, reads everything.
static void *
work(void *argument)
{
    struct worker *w = argument;
    for (uint64_t i = 0; i < ROUNDS; i++) {
        uint64_t object = 2 + w->number * ROUNDS + i;
        ck_assert_int_eq(
            submit_orphan(w->f->manifest, w->f->db, object, (uint32_t)(object * 331 % 5000)), 0);
        ck_assert(has_orphan(w->f, object));
        if (i % 7 == 3)
            REFUSE(w->f, -EINVAL, sample_inode(object, REG, 1, 0), sample_delta(99, 2, 1, 0, 10));
        // A walk inside a walk: growing the map has to wait for both.
        BUFFER_AUTO bytes = {0};
        struct manifest_reader *r = reader_of(w->f);
        export_bytes(w->f, manifest_export, &bytes);
        ck_assert_uint_gt(bytes.length, 100);
        manifest_read_end(r);
    }
    return NULL;
}

static void
run_workers(uint64_t map_bytes)
{
    struct fixture f = fixture_new(map_bytes);
    struct worker workers[WORKERS];
    for (uint64_t i = 0; i < WORKERS; i++) {
        workers[i] = (struct worker){.f = &f, .number = i};
        ck_assert_int_eq(pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
    }
    for (int i = 0; i < WORKERS; i++)
        pthread_join(workers[i].thread, NULL);
    ck_assert_uint_eq(read_totals(&f).inodes, WORKERS * ROUNDS);
    fixture_free(&f);
}

START_TEST(many_threads_read_and_write)
{
    run_workers(0);
}
END_TEST

START_TEST(map_grows_under_readers)
{
    run_workers(64 << 10);
}
END_TEST

// ---- the map ------------------------------------------------------------------------------------

START_TEST(tiny_maps_grow_within_one_batch)
{
    struct fixture f = {.directory = unit_directory_new()};
    fixture_open(&f, 1);
    f.db = fixture_create_db(&f, 1);
    struct manifest_batch *b = manifest_batch_new(f.db);
    for (uint64_t i = 2; i < 20002; i++) {
        struct change c = sample_inode(i, REG, 0, i);
        manifest_batch_change(b, &c, true, (struct generation){1});
    }
    struct job_record job = {.kind = JOB_CREATE_CHECKPOINT, .state = JOB_PENDING};
    manifest_batch_put_job(b, &job);
    ck_assert_int_eq(manifest_submit(f.manifest, b, NULL), 0);
    ck_assert_uint_eq(job.id, 1); // however often the batch was applied
    ck_assert_uint_eq(read_totals(&f).inodes, 20000);
    fixture_reopen(&f, 1);
    ck_assert(has_orphan(&f, 20001));
    ck_assert_int_eq(manifest_remove_db(f.manifest, f.db), 0);
    f.db = fixture_create_db(&f, 1);
    fixture_free(&f);
}
END_TEST

// A child that fills the root it shares with its parent until the map has become larger.
static void
fill_from_another_process(struct fixture *f)
{
    int status;
    pid_t child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0) {
        struct manifest_options options = {.map_bytes = 64 << 10, .no_sync = true};
        struct manifest *m;
        struct db_record db = sample_db(2);
        int rc = manifest_open(f->directory, &options, &m);
        if (rc == 0)
            rc = manifest_create_db(m, &db);
        for (uint64_t i = 2; rc == 0 && i < 300; i++)
            rc = submit_orphan(m, db.id, i, 30000);
        if (rc == 0)
            manifest_close(m);
        _exit(rc == 0 ? 0 : 1);
    }
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

START_TEST(two_processes_share_a_root)
{
    // The child must not inherit an open environment: this process opens its own afterwards.
    struct fixture f = {.directory = unit_directory_new()};
    int go[2];
    int done[2];
    char byte = 0;
    int status;
    fixture_open(&f, 64 << 10);
    manifest_close(f.manifest);
    ck_assert(pipe(go) == 0 && pipe(done) == 0);
    pid_t child = fork();
    if (child == 0) {
        if (read(go[0], &byte, 1) != 1)
            _exit(1);
        fill_from_another_process(&f);
        _exit(write(done[1], &byte, 1) == 1 ? 0 : 1);
    }
    fixture_open(&f, 64 << 10);
    f.db = fixture_create_db(&f, 1);
    ck_assert_int_eq(submit_orphan(f.manifest, f.db, 2, 10), 0);
    ck_assert(has_orphan(&f, 2)); // a reader with the small map is in the pool now
    ck_assert(write(go[1], &byte, 1) == 1 && read(done[0], &byte, 1) == 1);
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    // The map has grown under this process: readers and the writer take the new size over.
    ck_assert(has_orphan(&f, 2));
    ck_assert_int_eq(submit_orphan(f.manifest, f.db, 3, 10), 0);
    struct fixture other = {.manifest = f.manifest};
    struct db_record db;
    ck_assert_int_eq(manifest_find_db(f.manifest, "file:///srv/bucket", "acme", 2, &db), 0);
    other.db = db.id;
    ck_assert_uint_eq(read_totals(&other).inodes, 298);
    ck_assert_int_eq(manifest_check(f.manifest, other.db), 0);
    fixture_free(&f);
}
END_TEST

// ---- files that are not what they should be -----------------------------------------------------

static void
write_file(const char *directory, const char *name, const void *p, size_t n)
{
    BUFFER_AUTO path = {0};
    buffer_printf(&path, "%s/%s", directory, name);
    ck_assert_int_eq(file_replace_whole(&file_ops_system, buffer_string(&path), p, n, 0600), 0);
}

// Opens a directory that has just this data file; what opens must be readable as a whole.
static int
try_file(const void *p, size_t n, struct db_id db)
{
    struct manifest_options options = {.no_sync = true};
    struct fixture f = {.directory = unit_directory_new(), .db = db};
    write_file(f.directory, "data.mdb", p, n);
    int rc = manifest_open(f.directory, &options, &f.manifest);
    if (rc == 0) {
        struct db_totals totals = read_totals(&f);
        if (totals.inodes > 0)
            ck_assert_int_eq(manifest_check(f.manifest, f.db), 0);
        manifest_close(f.manifest);
    }
    unit_directory_remove(f.directory);
    return rc;
}

START_TEST(garbage_is_refused)
{
    static uint8_t bytes[20000];
    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (uint8_t)hash_u64(i);
    const size_t lengths[] = {1, 16, 100, 151, 152, 4096, 4247, 4248, 8192, sizeof(bytes)};
    for (size_t i = 0; i < ARRAY_LENGTH(lengths); i++)
        ck_assert_int_eq(try_file(bytes, lengths[i], (struct db_id){1}), -EBADMSG);
    memset(bytes, 0, sizeof(bytes));
    for (size_t i = 0; i < ARRAY_LENGTH(lengths); i++)
        ck_assert_int_eq(try_file(bytes, lengths[i], (struct db_id){1}), -EBADMSG);
}
END_TEST

static void
load_data_file(struct fixture *f, struct buffer *out)
{
    BUFFER_AUTO path = {0};
    buffer_printf(&path, "%s/data.mdb", f->directory);
    ck_assert_int_eq(file_read_whole(buffer_string(&path), 64 << 20, out), 0);
}

static void
populated_data_file(struct buffer *out, struct db_id *db_out)
{
    struct fixture f = fixture_new(0);
    for (uint64_t i = 2; i < 60; i++)
        ck_assert_int_eq(submit_orphan(f.manifest, f.db, i, 3000), 0);
    *db_out = f.db;
    manifest_close(f.manifest);
    load_data_file(&f, out);
    unit_directory_remove(f.directory);
}

START_TEST(truncation_is_refused_or_harmless)
{
    BUFFER_AUTO file = {0};
    struct db_id db;
    unsigned refused = 0;
    unsigned cuts = 0;
    populated_data_file(&file, &db);
    ck_assert_int_eq(try_file(file.data, file.length, db), 0);
    for (size_t n = 1; n < file.length; n += n < 10000 ? 997 : 4096 + n % 3) {
        int rc = try_file(file.data, n, db);
        ck_assert(rc == 0 || rc == -EBADMSG);
        refused += rc < 0;
        cuts++;
    }
    ck_assert_uint_gt(refused, cuts * 9 / 10);
}
END_TEST

START_TEST(damaged_meta_pages_are_refused_or_harmless)
{
    BUFFER_AUTO file = {0};
    struct db_id db;
    populated_data_file(&file, &db);
    for (size_t page = 0; page < 2; page++) {
        // Up to the last page's number; the transaction's number after it says which page counts.
        for (size_t at = page * 4096; at < page * 4096 + 16 + 128; at++) {
            if (at % 4096 >= 16 + 40 && at % 4096 < 16 + 64)
                continue; // counts of pages: only for statistics
            for (int bit = 0; bit < 8; bit += 3) {
                file.data[at] ^= (uint8_t)(1 << bit);
                int rc = try_file(file.data, file.length, db);
                ck_assert_msg(rc == 0 || rc == -EBADMSG, "byte %zu: %d", at, rc);
                if (at % 4096 >= 16 && at % 4096 < 24)
                    ck_assert_int_eq(rc, -EBADMSG);
                file.data[at] ^= (uint8_t)(1 << bit);
            }
        }
    }
}
END_TEST

START_TEST(lost_data_files_are_noticed)
{
    struct manifest_options options = {.no_sync = true};
    struct fixture f = fixture_new(0);
    BUFFER_AUTO path = {0};
    struct manifest *m;
    manifest_close(f.manifest);
    buffer_printf(&path, "%s/data.mdb", f.directory);
    ck_assert_int_eq(truncate(buffer_string(&path), 0), 0);
    ck_assert_int_eq(manifest_open(f.directory, &options, &m), -EBADMSG);
    ck_assert_int_eq(unlink(buffer_string(&path)), 0);
    ck_assert_int_eq(manifest_open(f.directory, &options, &m), -EBADMSG);
    unit_directory_remove(f.directory);
}
END_TEST

START_TEST(unusable_directories_are_errors)
{
    struct manifest_options options = {.no_sync = true};
    char *directory = unit_directory_new();
    BUFFER_AUTO path = {0};
    struct manifest *m;
    write_file(directory, "file", "x", 1);
    buffer_printf(&path, "%s/file/below", directory);
    ck_assert_int_eq(manifest_open(buffer_string(&path), &options, &m), -ENOTDIR);
    ck_assert_ptr_null(m);
    unit_directory_remove(directory);
}
END_TEST

// A file that ends before LMDB's last page, because the pages after it were taken and let go in one
// transaction, is whole.
START_TEST(files_that_end_early_are_opened)
{
    struct fixture f = fixture_new(0);
    unsigned short_files = 0;
    uint64_t random = 1;
    for (int round = 0; round < 150; round++) {
        struct manifest_batch *b = manifest_batch_new(f.db);
        static const uint8_t value[XATTR_VALUE_BYTES_MAX];
        for (int i = 0; i < 12; i++) {
            uint64_t object = 2 + hash_u64(++random) % 300;
            struct change c[] = {sample_inode(object, REG, 0, object),
                sample_xattr(object, "user.x", value, (uint32_t)(hash_u64(++random) % 30000)),
                sample_delete_inode(object)};
            for (unsigned n = 0; n < 2 + hash_u64(++random) % 2; n++)
                manifest_batch_change(b, &c[n], false, (struct generation){0});
        }
        ck_assert_int_eq(manifest_submit(f.manifest, b, NULL), 0);
        BUFFER_AUTO file = {0};
        load_data_file(&f, &file);
        uint64_t last_pages[2];
        uint64_t transactions[2];
        for (int page = 0; page < 2; page++) {
            memcpy(&last_pages[page], file.data + page * 4096 + 16 + 120, 8);
            memcpy(&transactions[page], file.data + page * 4096 + 16 + 128, 8);
        }
        uint64_t last = last_pages[transactions[1] > transactions[0]];
        short_files += (last + 1) * 4096 > file.length;
        fixture_reopen(&f, 0);
    }
    ck_assert_msg(short_files > 0, "the test does not do what it says");
    fixture_free(&f);
}
END_TEST

int
main(int argc, char **argv)
{
    if (argc == 5)
        submit_for_ever(argv[1], (struct db_id){(uint32_t)atol(argv[2])}, (uint64_t)atoll(argv[3]),
            atoi(argv[4]));
    Suite *s = suite_create("manifest_durability");
#define ADD(test) unit_add(s, #test, test, 240)
    ADD(acknowledged_batches_survive_kill);
    ADD(batches_are_whole_at_crash_points);
    ADD(file_size_limit_is_an_error_and_no_more);
    ADD(full_disk_is_an_error_and_no_more);
    ADD(directory_without_room_is_refused_cleanly);
    ADD(flush_that_keeps_failing_stops_all_writing);
    ADD(flush_without_room_can_be_repeated);
    ADD(waiting_batches_share_a_flush);
    ADD(failed_commit_fails_all_who_share_it);
    ADD(many_threads_read_and_write);
    ADD(map_grows_under_readers);
    ADD(tiny_maps_grow_within_one_batch);
    ADD(two_processes_share_a_root);
    ADD(garbage_is_refused);
    ADD(truncation_is_refused_or_harmless);
    ADD(damaged_meta_pages_are_refused_or_harmless);
    ADD(lost_data_files_are_noticed);
    ADD(unusable_directories_are_errors);
    ADD(files_that_end_early_are_opened);
    return unit_run(s);
}
