// SPDX-License-Identifier: Apache-2.0
// Tables that contradict themselves, and a log that makes no sense: an operation is refused rather
// than logged as something that no replay accepts, and an operator can give up what a log holds of
// that kind.
#include "volume_world.h"

#include "manifest_samples.h"

#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "platform/clock.h"
#include "platform/memory.h"
#include "volume/volume_internal.h"

static const struct volume_caller caller = {.uid = 0, .gid = 0};

static struct object_id
make(struct volume *v, struct object_id parent, const char *name, uint32_t mode)
{
    struct volume_attributes a;
    ck_assert_int_eq(volume_make(v, parent, name, mode, 0, NULL, &caller, &a), 0);
    return a.object;
}

// Puts an inode with other counts into the tables of the closed volume.
static void
miscount(struct volume_world *w, struct object_id object, uint64_t size, uint32_t nlink)
{
    CLEANUP(memory_free_auto) char *path = memory_printf("%s/manifest", w->root);
    struct manifest_options options = {.no_sync = true};
    struct manifest *m;
    struct manifest_reader *r;
    struct db_record db;
    struct store_url url;
    ck_assert_int_eq(store_url_parse(w->config.source, &url), 0);
    CLEANUP(memory_free_auto) char *place = store_url_place(&url);
    ck_assert_int_eq(manifest_open(path, &options, &m), 0);
    ck_assert_int_eq(manifest_find_db(m, place, url.tenant, 1, &db), 0);
    struct change c = {.kind = CHANGE_PUT_INODE, .object = object};
    ck_assert_int_eq(manifest_read_begin(m, &r), 0);
    ck_assert_int_eq(manifest_read_inode(r, db.id, object, &c.inode), 0);
    manifest_read_end(r);
    c.inode.size = size;
    c.inode.nlink = nlink;
    struct manifest_batch *b = manifest_batch_new(db.id);
    manifest_batch_change(b, &c, false, db.local);
    ck_assert_int_eq(manifest_submit(m, b, NULL), 0);
    manifest_close(m);
    store_url_free(&url);
}

// Works on the volume in a process that dies right after, so that all of it is only in the log.
static void
in_a_process_that_dies(
    struct volume_world *w, void (*work)(struct volume *v, void *argument), void *argument)
{
    pid_t pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        volume_world_open(w);
        work(w->v, argument);
        _exit(volume_world_sync(w->v) == 0 ? 0 : 1);
    }
    int status;
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %x", status);
}

// ---- tables -------------------------------------------------------------------------------------

static void
take_from_an_empty_directory(struct volume *v, void *argument)
{
    struct object_id elsewhere = *(struct object_id *)argument;
    struct object_id root = OBJECT_ROOT_DIRECTORY;
    ck_assert_int_eq(volume_unlink(v, root, "file"), -EIO);
    ck_assert_int_eq(volume_rmdir(v, root, "empty"), -EIO);
    ck_assert_int_eq(volume_rename(v, root, "file", elsewhere, "file", 0, NULL), -EIO);
    // What does not need the count goes on.
    ck_assert_int_eq(volume_rename(v, root, "file", root, "renamed", 0, NULL), 0);
}

START_TEST(a_directory_that_counts_too_few_entries_keeps_them)
{
    struct volume_world w;
    volume_world_new(&w);
    volume_world_open(&w);
    volume_world_make_file(w.v, "file");
    make(w.v, OBJECT_ROOT_DIRECTORY, "empty", S_IFDIR | 0755);
    struct object_id elsewhere = make(w.v, OBJECT_ROOT_DIRECTORY, "elsewhere", S_IFDIR | 0755);
    volume_world_close(&w);
    miscount(&w, OBJECT_ROOT_DIRECTORY, 0, 2);
    in_a_process_that_dies(&w, take_from_an_empty_directory, &elsewhere);
    volume_world_open(&w);
    volume_world_find(w.v, "renamed");
    volume_world_find(w.v, "empty");
    volume_world_free(&w);
}
END_TEST

static void
touch_what_is_missing(struct volume *v, void *argument UNUSED)
{
    struct volume_attributes a;
    struct object_id root = OBJECT_ROOT_DIRECTORY;
    ck_assert_int_eq(volume_lookup(v, root, "file", &a), -EIO);
    ck_assert_int_eq(volume_unlink(v, root, "file"), -EIO);
    ck_assert_int_eq(volume_rename(v, root, "file", root, "other", 0, NULL), -EIO);
    ck_assert_int_eq(volume_rename(v, root, "good", root, "file", 0, NULL), -EIO);
    ck_assert_int_eq(volume_unlink(v, root, "good"), 0);
}

START_TEST(a_name_without_an_inode_is_an_error_and_no_absence)
{
    struct volume_world w;
    volume_world_new(&w);
    volume_world_open(&w);
    struct object_id file = volume_world_make_file(w.v, "file");
    volume_world_make_file(w.v, "good");
    volume_world_close(&w);
    miscount(&w, file, 0, 0); // the next mount deletes what has no link
    in_a_process_that_dies(&w, touch_what_is_missing, NULL);
    volume_world_open(&w);
    volume_world_free(&w);
}
END_TEST

// ---- every record that is accepted is replayed --------------------------------------------------

#define DIRECTORIES 4u
#define STEPS       400u

struct chaos {
    uint64_t random;
    struct object_id directories[DIRECTORIES + 1]; // and the root
};

static const char *
any_name(uint64_t *random)
{
    static const char *const names[] = {"a", "b", "c", "d", "e", "f", "g", "h"};
    return names[test_random(random) % ARRAY_LENGTH(names)];
}

static void
do_anything(struct volume *v, void *argument)
{
    struct chaos *x = argument;
    uint64_t *r = &x->random;
    for (unsigned i = 0; i < STEPS; i++) {
        struct object_id from = x->directories[test_random(r) % (DIRECTORIES + 1)];
        struct object_id to = x->directories[test_random(r) % (DIRECTORIES + 1)];
        struct volume_attributes a;
        const char *name = any_name(r), *other = any_name(r);
        struct volume_set_attributes set = {.set = VOLUME_SET_SIZE, .size = test_random(r) >> 1};
        int ignored UNUSED = 0;
        switch (test_random(r) % 8) {
        case 0:
            ignored = volume_make(v, from, name, S_IFREG | 0644, 0, NULL, &caller, &a);
            break;
        case 1:
            ignored = volume_make(v, from, name, S_IFDIR | 0755, 0, NULL, &caller, &a);
            break;
        case 2:
            ignored = volume_unlink(v, from, name);
            break;
        case 3:
            ignored = volume_rmdir(v, from, name);
            break;
        case 4:
            if (volume_lookup(v, from, name, &a) == 0)
                ignored = volume_link(v, a.object, to, other, &a);
            break;
        case 5:
            if (volume_lookup(v, from, name, &a) == 0)
                ignored = volume_set_attributes(v, a.object, &set, &a);
            break;
        default:
            ignored = volume_rename(v, from, name, to, other, (unsigned)(test_random(r) % 3), NULL);
        }
    }
}

START_TEST(what_is_accepted_over_wrong_counts_can_be_replayed)
{
    static const uint64_t sizes[] = {0, 1, 2, OBJECT_MAX_BYTES - 1, OBJECT_MAX_BYTES};
    static const uint32_t links[] = {0, 1, 2, 3, 0x7fffffff, UINT32_MAX};
    struct volume_world w;
    struct chaos x = {.random = test_seed("contradictions")};
    volume_world_new(&w);
    volume_world_open(&w);
    x.directories[DIRECTORIES] = OBJECT_ROOT_DIRECTORY;
    for (unsigned i = 0; i < DIRECTORIES; i++) {
        char name[8];
        snprintf(name, sizeof(name), "dir%u", i);
        x.directories[i] = make(w.v, OBJECT_ROOT_DIRECTORY, name, S_IFDIR | 0755);
        struct object_id file = make(w.v, x.directories[i], any_name(&x.random), S_IFREG | 0644);
        volume_world_fill(w.v, file, 0, 5000, i);
    }
    volume_world_close(&w);
    for (unsigned i = 0; i <= DIRECTORIES; i++)
        miscount(&w, x.directories[i], sizes[test_random(&x.random) % ARRAY_LENGTH(sizes)],
            // A mount needs its root directory.
            i == DIRECTORIES ? 2 : links[test_random(&x.random) % ARRAY_LENGTH(links)]);
    in_a_process_that_dies(&w, do_anything, &x);
    volume_world_open(&w);
    volume_world_free(&w);
}
END_TEST

// ---- a log that makes no sense ------------------------------------------------------------------

// Logs a record that no operation makes.
static void
log_bytes(struct volume *v, const struct buffer *changes)
{
    struct wal_slot slot;
    uint32_t length = wal_record_length(0, (uint32_t)changes->length, 0);
    ck_assert_int_eq(wal_reserve(v->wal, length, clock_monotonic_ms() + 60000), 0);
    lock_take(&v->lock);
    wal_begin(v->wal, length, length, &slot);
    lock_release(&v->lock);
    wal_fill(v->wal, &slot, 0, changes->data, (uint32_t)changes->length, NULL, 0, NULL);
}

static struct change
write_to(uint64_t object)
{
    return (struct change){.kind = CHANGE_WRITE, .object = {object}, .length = 10};
}

static void
log_nonsense(struct volume *v, void *argument UNUSED)
{
    struct object_id before = volume_world_make_file(v, "before");
    BUFFER_AUTO b = {0};
    // A count below 0, among changes that are good.
    struct change bad = sample_inode(OBJECT_ROOT_DIRECTORY.v, S_IFDIR | 0755, 2, UINT64_MAX);
    struct change good = change_put_xattr(before, "user.good", "yes", 3);
    change_encode(&bad, &b);
    change_encode(&good, &b);
    log_bytes(v, &b);
    // An object that does not exist; bytes that the record does not have.
    buffer_clear(&b);
    bad = write_to(4711);
    change_encode(&bad, &b);
    bad = write_to(before.v);
    change_encode(&bad, &b);
    log_bytes(v, &b);
    // No change at all.
    buffer_clear(&b);
    buffer_append(&b, "\377\377\377\377\377\377\377\377\377", 9);
    log_bytes(v, &b);
    volume_world_make_file(v, "after");
}

static char *
waiver_of(const struct volume_world *w)
{
    char *found = NULL;
    for (unsigned db = 1; db < 10 && !found; db++) {
        char *path = memory_printf("%s/tenants/acme/%u/wal/" REPLAY_WAIVER, w->root, db);
        BUFFER_AUTO directory = {0};
        path_directory(path, &directory);
        if (access(buffer_string(&directory), F_OK) == 0)
            found = path;
        else
            free(path);
    }
    ck_assert_ptr_nonnull(found);
    return found;
}

static void
waive(const char *path, const char *word)
{
    ck_assert_int_eq(file_replace_whole(&file_ops_system, path, word, strlen(word), 0600), 0);
}

START_TEST(an_operator_gives_up_what_makes_no_sense_and_nothing_else)
{
    struct volume_world w;
    volume_world_new(&w);
    volume_world_open(&w);
    volume_world_close(&w);
    in_a_process_that_dies(&w, log_nonsense, NULL);
    CLEANUP(memory_free_auto) char *waiver = waiver_of(&w);
    volume_world_open_fails(&w, -EBADMSG);
    waive(waiver, "accept\n");
    volume_world_open_fails(&w, -EINVAL);
    volume_world_open_fails(&w, -EINVAL);
    waive(waiver, REPLAY_WAIVER_WORD "\n");
    volume_world_open(&w);
    ck_assert_uint_eq(w.v->lost_changes, 4);
    BUFFER_AUTO value = {0};
    struct object_id before = volume_world_find(w.v, "before");
    ck_assert_int_eq(volume_get_xattr(w.v, before, "user.good", &value), 0);
    ck_assert_uint_eq(value.length, 3);
    volume_world_find(w.v, "after");
    // It held for this log alone.
    volume_world_fold(w.v);
    ck_assert_int_eq(access(waiver, F_OK), -1);
    volume_world_close(&w);
    volume_world_check(&w);
    volume_world_open(&w);
    volume_world_find(w.v, "after");
    volume_world_free(&w);
}
END_TEST

static void
make_a_file(struct volume *v, void *argument)
{
    volume_world_make_file(v, argument);
}

START_TEST(a_waiver_that_nothing_needs_goes_at_once)
{
    struct volume_world w;
    volume_world_new(&w);
    volume_world_open(&w);
    volume_world_close(&w);
    CLEANUP(memory_free_auto) char *waiver = waiver_of(&w);
    waive(waiver, REPLAY_WAIVER_WORD);
    in_a_process_that_dies(&w, make_a_file, "x");
    ck_assert_int_eq(access(waiver, F_OK), -1);
    volume_world_free(&w);
}
END_TEST

START_TEST(a_waiver_holds_until_the_log_is_folded)
{
    struct volume_world w;
    volume_world_new(&w);
    volume_world_open(&w);
    volume_world_close(&w);
    in_a_process_that_dies(&w, log_nonsense, NULL);
    CLEANUP(memory_free_auto) char *waiver = waiver_of(&w);
    waive(waiver, REPLAY_WAIVER_WORD);
    // Whether it gets to fold or not.
    in_a_process_that_dies(&w, make_a_file, "x");
    volume_world_open(&w);
    volume_world_find(w.v, "x");
    volume_world_find(w.v, "after");
    volume_world_free(&w);
}
END_TEST

int
main(void)
{
    Suite *s = suite_create("volume_contradictions");
    unit_add(s, "few entries", a_directory_that_counts_too_few_entries_keeps_them, 60);
    unit_add(s, "missing inode", a_name_without_an_inode_is_an_error_and_no_absence, 60);
    unit_add(s, "chaos", what_is_accepted_over_wrong_counts_can_be_replayed, 60);
    unit_add(s, "waiver", an_operator_gives_up_what_makes_no_sense_and_nothing_else, 60);
    unit_add(s, "needless waiver", a_waiver_that_nothing_needs_goes_at_once, 60);
    unit_add(s, "waiver until fold", a_waiver_holds_until_the_log_is_folded, 60);
    return unit_run(s);
}
