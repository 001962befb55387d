// SPDX-License-Identifier: Apache-2.0
#include "volume_world.h"

#include <dirent.h>
#include <fcntl.h>
#include <glob.h>
#include <inttypes.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "manifest/manifest.h"
#include "platform/clock.h"
#include "platform/lock.h"
#include "platform/log.h"
#include "platform/memory.h"
#include "platform/path.h"
#include "platform/random.h"
#include "store/remote_store.h"
#include "volume/volume_offline.h"

// ---- life ---------------------------------------------------------------------------------------

void
volume_world_join(struct volume_world *w, const char *directory)
{
    if (!getenv("CKPTFS_TEST_LOG"))
        log_set_level(LOG_LEVEL_ERROR + 1);
    *w = (struct volume_world){.directory = memory_string(directory)};
    volume_config_init(&w->config);
    struct volume_config *c = &w->config;
    CLEANUP(memory_free_auto) char *store = memory_printf("%s/store", w->directory);
    if (path_make_directory(store, 0700) < 0)
        abort();
    c->source = memory_printf("file://%s/acme", store);
    volume_world_set_root(w, "root");
    c->create = true;
    c->checkpoint_interval_ms = 0;
    c->merge_interval_ms = 0;
    c->hot_set = false; // it asks the store at times of its own
    c->wal_limit_bytes = 8u << 20;
    c->page_cache_bytes = 1u << 20;
    c->unmount_timeout_ms = 60000;
    c->lease_ttl_ms = 60000;
}

void
volume_world_new(struct volume_world *w)
{
    char *directory = unit_directory_new();
    volume_world_join(w, directory);
    free(directory);
}

void
volume_world_set_root(struct volume_world *w, const char *name)
{
    free(w->config.root);
    w->config.root = memory_printf("%s/%s", w->directory, name);
    w->root = w->config.root;
}

void
volume_world_leave(struct volume_world *w)
{
    if (w->v)
        volume_world_close(w);
    volume_config_free(&w->config);
    free(w->directory);
}

void
volume_world_free(struct volume_world *w)
{
    if (w->v)
        volume_world_close(w);
    volume_config_free(&w->config);
    unit_directory_remove(w->directory);
}

void
volume_world_open(struct volume_world *w)
{
    BUFFER_AUTO error = {0};
    int rc = volume_open(&w->config, NULL, &w->v, &error);
    ck_assert_msg(rc == 0, "open: %d, %s", rc, buffer_string(&error));
}

void
volume_world_open_fails(struct volume_world *w, int expected)
{
    BUFFER_AUTO error = {0};
    int rc = volume_open(&w->config, NULL, &w->v, &error);
    ck_assert_msg(rc == expected, "open: %d, %s", rc, buffer_string(&error));
    ck_assert_msg(error.length > 0, "no text for error %d", rc);
}

int
volume_world_try_close(struct volume_world *w)
{
    int rc = volume_close(w->v);
    w->v = NULL;
    return rc;
}

void
volume_world_close(struct volume_world *w)
{
    ck_assert_int_eq(volume_world_try_close(w), 0);
}

void
volume_world_check(struct volume_world *w)
{
    CLEANUP(memory_free_auto) char *path = memory_printf("%s/manifest", w->root);
    struct manifest *m;
    struct store_url url;
    struct db_record db;
    ck_assert_int_eq(store_url_parse(w->config.source, &url), 0);
    CLEANUP(memory_free_auto) char *place = store_url_place(&url);
    struct manifest_options options = {.no_sync = true};
    ck_assert_int_eq(manifest_open(path, &options, &m), 0);
    ck_assert_int_eq(manifest_find_db(m, place, url.tenant, url.volume_number, &db), 0);
    if (!getenv("CKPTFS_TEST_LOG"))
        log_set_level(LOG_LEVEL_ERROR);
    ck_assert_int_eq(manifest_check(m, db.id), 0);
    if (!getenv("CKPTFS_TEST_LOG"))
        log_set_level(LOG_LEVEL_ERROR + 1);
    manifest_close(m);
    store_url_free(&url);
}

void
volume_world_lose_root(struct volume_world *w)
{
    ck_assert_int_eq(path_remove_tree(w->root), 0);
}

void
volume_world_become_fork(struct volume_world *w, const char *tenant)
{
    BUFFER_AUTO error = {0};
    struct generation made;
    CLEANUP(memory_free_auto)
    char *child = memory_printf("file://%s/store/%s", w->directory, tenant);
    int rc = volume_fork(&w->config, NULL, child, &made, &error);
    ck_assert_msg(rc == 0, "fork: %d, %s", rc, buffer_string(&error));
    free(w->config.source);
    w->config.source = memory_string(child);
    volume_world_set_root(w, tenant);
}

// ---- waiting ------------------------------------------------------------------------------------

struct answer {
    struct lock lock;
    struct condition condition;
    bool done;
    int result;
    struct generation generation;
};

static void
answer_init(struct answer *a)
{
    *a = (struct answer){.done = false};
    lock_init(&a->lock, "answer", LOCK_RANK_PLATFORM);
    condition_init(&a->condition);
}

static int
answer_wait(struct answer *a)
{
    lock_take(&a->lock);
    while (!a->done)
        condition_wait(&a->condition, &a->lock);
    lock_release(&a->lock);
    condition_destroy(&a->condition);
    lock_destroy(&a->lock);
    return a->result;
}

static void
note_checkpoint(void *argument, int result, struct generation generation)
{
    struct answer *a = argument;
    lock_take(&a->lock);
    a->result = result;
    a->generation = generation;
    a->done = true;
    condition_signal(&a->condition);
    lock_release(&a->lock);
}

static void
note_sync(void *argument, int result)
{
    note_checkpoint(argument, result, (struct generation){0});
}

int
volume_world_sync(struct volume *v)
{
    struct answer a;
    answer_init(&a);
    volume_sync(v, note_sync, &a);
    return answer_wait(&a);
}

int
volume_world_checkpoint(struct volume *v, unsigned flags, struct generation *generation_out)
{
    struct answer a;
    answer_init(&a);
    int rc = volume_checkpoint(v, flags, note_checkpoint, &a);
    if (rc == 0)
        rc = answer_wait(&a);
    *generation_out = a.generation;
    return rc;
}

struct generation
volume_world_fold(struct volume *v)
{
    struct generation generation;
    ck_assert_int_eq(volume_world_checkpoint(v, 0, &generation), 0);
    return generation;
}

struct generation
volume_world_publish(struct volume *v)
{
    struct generation generation;
    ck_assert_int_eq(volume_world_checkpoint(v, VOLUME_CHECKPOINT_PUBLISH, &generation), 0);
    return generation;
}

// ---- files --------------------------------------------------------------------------------------

struct object_id
volume_world_make_file(struct volume *v, const char *name)
{
    struct volume_caller caller = {0};
    struct volume_attributes a;
    ck_assert_int_eq(
        volume_make(v, OBJECT_ROOT_DIRECTORY, name, S_IFREG | 0644, 0, NULL, &caller, &a), 0);
    return a.object;
}

struct object_id
volume_world_find(struct volume *v, const char *name)
{
    struct volume_attributes a;
    ck_assert_int_eq(volume_lookup(v, OBJECT_ROOT_DIRECTORY, name, &a), 0);
    return a.object;
}

void
volume_world_write(
    struct volume *v, struct object_id object, uint64_t offset, const void *p, size_t n)
{
    ck_assert_int_eq(volume_write(v, object, offset, p, n, 0), 0);
}

static uint8_t *
pattern(uint64_t offset, size_t n, uint64_t seed)
{
    uint8_t *p = memory_alloc(n);
    for (size_t i = 0; i < n; i++) {
        uint64_t at = offset + i;
        uint64_t state = (at / 8 + 1) * 0x9e3779b97f4a7c15u + seed;
        p[i] = (uint8_t)(test_random(&state) >> (8 * (at % 8)));
    }
    return p;
}

void
volume_world_fill(
    struct volume *v, struct object_id object, uint64_t offset, size_t n, uint64_t seed)
{
    CLEANUP(memory_free_auto) uint8_t *p = pattern(offset, n, seed);
    volume_world_write(v, object, offset, p, n);
}

void
volume_world_expect(
    struct volume *v, struct object_id object, uint64_t offset, size_t n, uint64_t seed)
{
    CLEANUP(memory_free_auto) uint8_t *p = pattern(offset, n, seed);
    CLEANUP(memory_free_auto) uint8_t *got = memory_alloc(n);
    ck_assert_int_eq(volume_read(v, object, offset, n, got, NULL), (int64_t)n);
    ck_assert_int_eq(memcmp(p, got, n), 0);
}

void
volume_world_age_blobs(struct volume_world *w)
{
    CLEANUP(memory_free_auto) char *pattern = memory_printf("%s/hot_cache/*/*.blob", w->root);
    glob_t blobs;
    ck_assert_int_eq(glob(pattern, 0, NULL, &blobs), 0);
    static const struct timespec old[2] = {{1000, 0}, {1000, 0}};
    for (size_t i = 0; i < blobs.gl_pathc; i++)
        ck_assert_int_eq(utimensat(AT_FDCWD, blobs.gl_pathv[i], old, 0), 0);
    globfree(&blobs);
}

bool
volume_world_spoil_log(struct volume_world *w, const void *needle, size_t n)
{
    CLEANUP(memory_free_auto)
    char *pattern = memory_printf("%s/tenants/acme/1/wal/*", w->root);
    glob_t found;
    bool spoiled = false;
    ck_assert_int_eq(glob(pattern, 0, NULL, &found), 0);
    for (size_t i = 0; i < found.gl_pathc && !spoiled; i++) {
        BUFFER_AUTO bytes = {0};
        ck_assert_int_eq(file_read_whole(found.gl_pathv[i], 1 << 28, &bytes), 0);
        uint8_t *at = memmem(bytes.data, bytes.length, needle, n);
        if (!at)
            continue;
        int fd = open(found.gl_pathv[i], O_RDWR);
        uint8_t other = at[n] ^ 1;
        ck_assert_int_eq(pwrite(fd, &other, 1, at + n - bytes.data), 1);
        close(fd);
        spoiled = true;
    }
    globfree(&found);
    return spoiled;
}

uint64_t
volume_world_disk_bytes(const char *path)
{
    struct stat st;
    if (lstat(path, &st) < 0)
        return 0;
    uint64_t bytes = (uint64_t)st.st_blocks * 512;
    if (!S_ISDIR(st.st_mode))
        return bytes;
    DIR *dir = opendir(path);
    for (struct dirent *e; dir && (e = readdir(dir));) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        CLEANUP(memory_free_auto) char *child = memory_printf("%s/%s", path, e->d_name);
        bytes += volume_world_disk_bytes(child);
    }
    if (dir)
        closedir(dir);
    return bytes;
}

// ---- chance -------------------------------------------------------------------------------------

uint64_t
test_seed(const char *what)
{
    const char *given = getenv("CKPTFS_TEST_SEED");
    uint64_t seed = given ? strtoull(given, NULL, 0) : random_u64() % 1000000000;
    printf("%s: CKPTFS_TEST_SEED=%" PRIu64 "\n", what, seed);
    fflush(stdout);
    return seed;
}

uint64_t
test_random(uint64_t *state)
{
    uint64_t x = *state ? *state : 0x2545f4914f6cdd1du;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    *state = x;
    return x * 0x2545f4914f6cdd1du;
}

// ---- disasters ----------------------------------------------------------------------------------

void
volume_world_die_after(struct volume_world *w, void (*work)(struct volume *v))
{
    fflush(stdout);
    pid_t pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        BUFFER_AUTO error = {0};
        if (volume_open(&w->config, NULL, &w->v, &error) < 0)
            _exit(1);
        work(w->v);
        if (volume_world_sync(w->v) < 0)
            _exit(2);
        raise(SIGKILL);
    }
    int status;
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static char *
faults_path(const struct volume_world *w)
{
    return memory_printf("%s/faults", w->directory);
}

void
volume_world_script_faults(struct volume_world *w)
{
    CLEANUP(memory_free_auto) char *path = faults_path(w);
    unit_set_fault_hook("CKPTFS_STORE_FAULTS", path);
}

void
volume_world_set_faults(const struct volume_world *w, const char *script)
{
    CLEANUP(memory_free_auto) char *path = faults_path(w);
    ck_assert_int_eq(file_replace_whole(&file_ops_system, path, script, strlen(script), 0600), 0);
}

void
volume_world_wait_until_published(struct volume_world *w)
{
    struct volume_status status;
    uint64_t deadline = clock_monotonic_ms() + 60000;
    do {
        clock_sleep_ms(20);
        volume_status(w->v, &status);
        ck_assert_msg(clock_monotonic_ms() < deadline, "not published: %s", status.last_error);
    } while (status.metrics.local_generation != status.metrics.published_generation ||
             status.metrics.local_generation == 0 || status.metrics.dirty_bytes > 0);
}

unsigned
volume_world_age_objects(const struct volume_world *w, const char *directory, time_t seconds)
{
    CLEANUP(memory_free_auto) char *path = memory_printf("%s/store/%s", w->directory, directory);
    unsigned count = 0;
    DIR *d = opendir(path);
    ck_assert_ptr_nonnull(d);
    for (struct dirent *e; (e = readdir(d));) {
        struct stat st;
        if (e->d_name[0] == '.')
            continue;
        ck_assert_int_eq(fstatat(dirfd(d), e->d_name, &st, 0), 0);
        struct timespec time = {st.st_mtim.tv_sec - seconds, 0};
        struct timespec times[2] = {time, time};
        ck_assert_int_eq(utimensat(dirfd(d), e->d_name, times, 0), 0);
        count++;
    }
    closedir(d);
    return count;
}

unsigned
volume_world_count_objects(const struct volume_world *w, const char *directory, const char *pattern)
{
    CLEANUP(memory_free_auto)
    char *command = memory_printf("find %s/store/%s -type f -name '%s' 2>/dev/null | wc -l",
        w->directory, directory, pattern);
    FILE *f = popen(command, "r");
    unsigned count = 0;
    ck_assert_ptr_nonnull(f);
    ck_assert_int_eq(fscanf(f, "%u", &count), 1);
    pclose(f);
    return count;
}

int
volume_world_operate(
    struct volume *v, unsigned kind, unsigned flags, const char *argument, struct buffer *out)
{
    struct volume_operation_report report;
    uint64_t ticket;
    char text[8192];
    ck_assert_int_eq(volume_operation_start(v, kind, flags, argument, &ticket), 0);
    do {
        clock_sleep_ms(2);
        ck_assert_int_eq(volume_operation_report(v, ticket, 0, text, sizeof(text), &report), 0);
    } while (report.state != VOLUME_OPERATION_DONE);
    buffer_clear(out);
    buffer_append(out, text, report.copied);
    buffer_string(out);
    return report.result;
}
