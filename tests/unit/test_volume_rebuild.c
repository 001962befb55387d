// SPDX-License-Identifier: Apache-2.0
// A storage root whose manifest is damaged or gone: the bucket and the log make a new one, when
// nothing that was acknowledged is lost by that.
#include "volume_world.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "platform/file.h"
#include "platform/memory.h"
#include "platform/path.h"
#include "platform/random.h"
#include "volume/volume_internal.h"

#define BYTES 300000u

// Sets bytes in the middle of each page of the manifest's file.
static void
damage_manifest(const struct volume_world *w)
{
    CLEANUP(memory_free_auto) char *path = memory_printf("%s/manifest/data.mdb", w->root);
    int fd = open(path, O_RDWR);
    struct stat st;
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(fstat(fd, &st), 0);
    for (off_t at = 2 * 4096; at < st.st_size; at += 4096) {
        uint8_t bytes[2048];
        memset(bytes, 0x5a, sizeof(bytes));
        ck_assert_int_eq(pwrite(fd, bytes, sizeof(bytes), at + 2048), (ssize_t)sizeof(bytes));
    }
    close(fd);
}

// How many names in the root begin so.
static unsigned
count_names(const char *directory, const char *prefix)
{
    DIR *dir = opendir(directory);
    unsigned count = 0;
    ck_assert_ptr_nonnull(dir);
    for (struct dirent *e; (e = readdir(dir));)
        count += strncmp(e->d_name, prefix, strlen(prefix)) == 0;
    closedir(dir);
    return count;
}

// One file is published, another one is in the log only.
static void
publish_and_go_on(struct volume *v)
{
    struct object_id a = volume_world_make_file(v, "published");
    volume_world_fill(v, a, 0, BYTES, 1);
    volume_world_publish(v);
    volume_world_fill(v, a, 5000, 10000, 2);
    struct object_id b = volume_world_make_file(v, "logged");
    volume_world_fill(v, b, 0, BYTES, 3);
}

// The same, with a local generation in between that is not in the store.
static void
publish_and_fold(struct volume *v)
{
    publish_and_go_on(v);
    volume_world_fold(v);
    struct object_id c = volume_world_make_file(v, "last");
    volume_world_fill(v, c, 0, BYTES, 4);
}

static void
expect_all(struct volume *v)
{
    struct object_id a = volume_world_find(v, "published");
    volume_world_expect(v, a, 0, 5000, 1);
    volume_world_expect(v, a, 5000, 10000, 2);
    volume_world_expect(v, volume_world_find(v, "logged"), 0, BYTES, 3);
}

static void
set_up(struct volume_world *w)
{
    volume_world_new(w);
    volume_world_open(w);
    volume_world_close(w);
}

START_TEST(a_damaged_manifest_is_made_anew_from_bucket_and_log)
{
    struct volume_world w;
    set_up(&w);
    volume_world_die_after(&w, publish_and_go_on);
    damage_manifest(&w);
    volume_world_open(&w);
    expect_all(w.v);
    ck_assert_uint_eq(count_names(w.root, "manifest.aside-"), 1);
    // It goes on as this root's: it is claimed, and publishes.
    struct object_id c = volume_world_make_file(w.v, "new");
    volume_world_fill(w.v, c, 0, BYTES, 5);
    volume_world_publish(w.v);
    volume_world_close(&w);
    volume_world_check(&w);
    // And what it has published is what another host sees.
    struct volume_world other;
    volume_world_join(&other, w.directory);
    volume_world_set_root(&other, "elsewhere");
    volume_world_open(&other);
    expect_all(other.v);
    volume_world_expect(other.v, volume_world_find(other.v, "new"), 0, BYTES, 5);
    volume_world_leave(&other);
    volume_world_free(&w);
}
END_TEST

START_TEST(a_manifest_that_is_gone_is_made_anew)
{
    struct volume_world w;
    set_up(&w);
    volume_world_die_after(&w, publish_and_go_on);
    CLEANUP(memory_free_auto) char *manifest = memory_printf("%s/manifest", w.root);
    CLEANUP(memory_free_auto) char *moved = memory_printf("%s/moved", w.root);
    ck_assert_int_eq(rename(manifest, moved), 0);
    volume_world_open(&w);
    expect_all(w.v);
    volume_world_free(&w);
}
END_TEST

static struct volume_world *world;

static void
fold_without_the_store(struct volume *v)
{
    volume_world_set_faults(world, "outage\n");
    struct object_id a = volume_world_make_file(v, "published");
    volume_world_fill(v, a, 0, BYTES, 1);
    volume_world_fold(v);
    volume_world_fill(v, a, 5000, 10000, 2);
    struct object_id b = volume_world_make_file(v, "logged");
    volume_world_fill(v, b, 0, BYTES, 3);
}

START_TEST(what_was_never_published_is_all_in_the_log)
{
    struct volume_world w;
    volume_world_new(&w);
    volume_world_script_faults(&w);
    volume_world_set_faults(&w, "");
    world = &w;
    volume_world_die_after(&w, fold_without_the_store);
    volume_world_set_faults(&w, "");
    damage_manifest(&w);
    volume_world_open(&w);
    expect_all(w.v);
    volume_world_free(&w);
}
END_TEST

// What is folded and not published is rebuilt as long as its segments are there.
START_TEST(a_local_generation_is_rebuilt_from_the_log)
{
    struct volume_world w;
    set_up(&w);
    volume_world_die_after(&w, publish_and_fold);
    damage_manifest(&w);
    volume_world_open(&w);
    expect_all(w.v);
    volume_world_expect(w.v, volume_world_find(w.v, "last"), 0, BYTES, 4);
    volume_world_close(&w);
    volume_world_check(&w);
    volume_world_free(&w);
}
END_TEST

// So much that segments of the log are used again, all of it in local generations only.
static void
outgrow_the_log(struct volume *v)
{
    struct volume_status status;
    publish_and_go_on(v);
    volume_status(v, &status);
    struct object_id b = volume_world_find(v, "logged");
    for (unsigned i = 0; i < 48; i++) {
        volume_world_fill(v, b, 0, 1u << 20, 100 + i);
        if (i % 4 == 3)
            volume_world_fold(v);
    }
}

START_TEST(a_log_that_does_not_reach_back_is_refused_unless_told)
{
    struct volume_world w;
    set_up(&w);
    volume_world_die_after(&w, outgrow_the_log);
    damage_manifest(&w);
    for (int i = 0; i < 2; i++) {
        volume_world_open_fails(&w, -EBADMSG);
        ck_assert_uint_eq(count_names(w.root, "manifest.aside-"), 0);
    }
    w.config.discard_unpublished = true;
    volume_world_open(&w);
    volume_world_expect(w.v, volume_world_find(w.v, "published"), 0, BYTES, 1);
    ck_assert_uint_eq(count_names(w.root, "manifest.aside-"), 1);
    volume_world_close(&w);
    w.config.discard_unpublished = false;
    volume_world_open(&w);
    volume_world_close(&w);
    volume_world_check(&w);
    volume_world_free(&w);
}
END_TEST

START_TEST(a_volume_that_went_on_elsewhere_is_not_mixed_with_an_old_log)
{
    struct volume_world w;
    set_up(&w);
    volume_world_die_after(&w, publish_and_go_on);
    struct volume_world other;
    volume_world_join(&other, w.directory);
    volume_world_set_root(&other, "elsewhere");
    other.config.takeover = true;
    volume_world_open(&other);
    volume_world_make_file(other.v, "foreign");
    volume_world_publish(other.v);
    volume_world_leave(&other);
    damage_manifest(&w);
    volume_world_open_fails(&w, -EBADMSG);
    w.config.discard_unpublished = true;
    volume_world_open(&w);
    volume_world_find(w.v, "foreign");
    volume_world_expect(w.v, volume_world_find(w.v, "published"), 0, BYTES, 1);
    volume_world_free(&w);
}
END_TEST

START_TEST(without_the_store_a_damaged_manifest_stays_where_it_is)
{
    struct volume_world w;
    volume_world_new(&w);
    volume_world_script_faults(&w);
    volume_world_set_faults(&w, "");
    w.config.read_deadline_ms = 300;
    volume_world_open(&w);
    volume_world_close(&w);
    volume_world_die_after(&w, publish_and_go_on);
    damage_manifest(&w);
    volume_world_set_faults(&w, "outage\n");
    BUFFER_AUTO error = {0};
    ck_assert_int_lt(volume_open(&w.config, NULL, &w.v, &error), 0);
    w.v = NULL;
    ck_assert_uint_eq(count_names(w.root, "manifest.aside-"), 0);
    volume_world_set_faults(&w, "");
    volume_world_open(&w);
    expect_all(w.v);
    volume_world_free(&w);
}
END_TEST

// Opens the volume in a process that is killed at the crash point.
static void
die_at(struct volume_world *w, const char *point)
{
    fflush(stdout);
    pid_t pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        // The point is read when a program starts.
        unit_set_fault_hook("CKPTFS_CRASH_AT", point);
        execl("/proc/self/exe", "test_volume_rebuild", w->directory, (char *)NULL);
        _exit(127);
    }
    int status;
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_msg(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "%s was not reached", point);
}

static const char *const points[] = {
    "volume.manifest_set_aside",
    "manifest.before_commit:1",
    "manifest.after_commit:1",
    "manifest.before_commit:2",
    "manifest.after_commit:2",
    "manifest.after_commit:3",
    "remote.import_batch",
    "remote.epoch_noted",
    "remote.open_created",
};

// The directories of places have names like 0f3a9c21, and one in 43 of them has no letter.
START_TEST(a_place_of_digits_is_no_number_of_a_db)
{
    struct volume_world w;
    volume_world_new(&w);
    CLEANUP(memory_free_auto) char *other = memory_printf("%s/tenants/acme/12345678", w.root);
    CLEANUP(memory_free_auto) char *log = memory_printf("%s/tenants/acme/1/wal", w.root);
    ck_assert_int_eq(path_make_directories(other, 0700), 0);
    volume_world_open(&w);
    ck_assert_int_eq(access(log, F_OK), 0);
    volume_world_close(&w);
    volume_world_free(&w);
}
END_TEST

START_TEST(a_rebuild_that_dies_at_any_step_is_repeated)
{
    for (size_t i = 0; i < ARRAY_LENGTH(points); i++) {
        struct volume_world w;
        set_up(&w);
        volume_world_die_after(&w, publish_and_fold);
        damage_manifest(&w);
        die_at(&w, points[i]);
        volume_world_open(&w);
        expect_all(w.v);
        volume_world_expect(w.v, volume_world_find(w.v, "last"), 0, BYTES, 4);
        volume_world_publish(w.v);
        ck_assert_uint_eq(count_names(w.root, "manifest.aside-"), 1);
        volume_world_close(&w);
        volume_world_check(&w);
        volume_world_free(&w);
    }
}
END_TEST

// The other process of die_at.
static int
open_only(const char *directory)
{
    struct volume_world w;
    BUFFER_AUTO error = {0};
    volume_world_join(&w, directory);
    int rc = volume_open(&w.config, NULL, &w.v, &error);
    fprintf(stderr, "opened: %d %s\n", rc, buffer_string(&error));
    return 1;
}

static void
fold_what_nobody_synced(struct volume *v)
{
    struct object_id b = volume_world_make_file(v, "folded");
    volume_world_fill(v, b, 0, BYTES, 6);
    volume_world_fold(v);
    struct manifest_reader *r;
    struct db_record db;
    struct wal_numbers n;
    ck_assert_int_eq(manifest_read_begin(v->manifest, &r), 0);
    ck_assert_int_eq(manifest_read_db(r, v->db, &db), 0);
    manifest_read_end(r);
    wal_numbers(v->wal, &n);
    ck_assert_uint_gt(db.cut.v, BYTES);
    ck_assert_uint_ge(n.flushed.v, db.cut.v);
}

static void
replace_directory(const char *from, const char *to)
{
    ck_assert_int_eq(path_remove_tree(to), 0);
    CLEANUP(memory_free_auto) char *command = memory_printf("cp -a '%s' '%s'", from, to);
    ck_assert_int_eq(system(command), 0);
}

START_TEST(a_log_of_before_the_local_generation_is_refused_before_the_claim)
{
    struct volume_world w;
    volume_world_new(&w);
    volume_world_open(&w);
    struct object_id a = volume_world_make_file(w.v, "published");
    volume_world_fill(w.v, a, 0, BYTES, 1);
    volume_world_publish(w.v);
    volume_world_close(&w);
    CLEANUP(memory_free_auto) char *log = memory_printf("%s/tenants/acme/1/wal", w.root);
    CLEANUP(memory_free_auto) char *old = memory_printf("%s/old", w.directory);
    CLEANUP(memory_free_auto) char *new = memory_printf("%s/new", w.directory);
    CLEANUP(memory_free_auto) char *mark = memory_printf("%s/mark", log);
    CLEANUP(memory_free_auto)
    char *chain = memory_printf("%s/store/manifests/acme/1", w.directory);
    replace_directory(log, old);
    volume_world_die_after(&w, fold_what_nobody_synced);
    replace_directory(log, new);
    unsigned records = count_names(chain, "record-");
    ck_assert_uint_gt(records, 1);
    replace_directory(old, log);
    volume_world_open_fails(&w, -EBADMSG);
    ck_assert_uint_eq(count_names(chain, "record-"), records);
    // The right one opens; with the old one the local generation is all there is.
    replace_directory(new, log);
    volume_world_open(&w);
    volume_world_expect(w.v, volume_world_find(w.v, "folded"), 0, BYTES, 6);
    volume_world_close(&w);
    replace_directory(old, log);
    volume_world_open_fails(&w, -EBADMSG);
    ck_assert_int_eq(file_replace_whole(&file_ops_system, mark, "accept\n", 7, 0600), 0);
    volume_world_open(&w);
    volume_world_expect(w.v, volume_world_find(w.v, "folded"), 0, BYTES, 6);
    volume_world_free(&w);
}
END_TEST

// Of the volume's only db; NULL: as it is.
static void
set_identity(const struct volume_world *w, const struct uuid *volume, const struct uuid *name_key)
{
    CLEANUP(memory_free_auto) char *path = memory_printf("%s/manifest", w->root);
    struct manifest_options options = {0};
    struct manifest *m;
    struct manifest_reader *r;
    struct db_record db;
    ck_assert_int_eq(manifest_open(path, &options, &m), 0);
    ck_assert_int_eq(manifest_read_begin(m, &r), 0);
    ck_assert_int_eq(manifest_read_db(r, (struct db_id){1}, &db), 0);
    manifest_read_end(r);
    struct manifest_batch *b = manifest_batch_new(db.id);
    manifest_batch_identity(b, volume ? volume : &db.volume, name_key ? name_key : &db.name_key);
    ck_assert_int_eq(manifest_submit(m, b, NULL), 0);
    manifest_close(m);
}

START_TEST(a_manifest_of_another_identity_is_refused_before_the_claim)
{
    for (int i = 0; i < 2; i++) {
        struct volume_world w;
        set_up(&w);
        volume_world_die_after(&w, publish_and_go_on);
        CLEANUP(memory_free_auto) char *manifest = memory_printf("%s/manifest", w.root);
        CLEANUP(memory_free_auto) char *moved = memory_printf("%s/moved", w.root);
        CLEANUP(memory_free_auto)
        char *chain = memory_printf("%s/store/manifests/acme/1", w.directory);
        unsigned records = count_names(chain, "record-"), leases = count_names(chain, "lease-");
        struct uuid other = random_uuid();
        set_identity(&w, i ? &other : NULL, i ? NULL : &other);
        volume_world_open_fails(&w, -EBADMSG);
        ck_assert_uint_eq(count_names(chain, "record-"), records);
        ck_assert_uint_eq(count_names(chain, "lease-"), leases);
        // What the message advises.
        ck_assert_int_eq(rename(manifest, moved), 0);
        volume_world_open(&w);
        expect_all(w.v);
        volume_world_free(&w);
    }
}
END_TEST

int
main(int argc, char **argv)
{
    if (argc == 2)
        return open_only(argv[1]);
    Suite *s = suite_create("volume_rebuild");
#define ADD(test) unit_add(s, #test, test, 120)
    ADD(a_damaged_manifest_is_made_anew_from_bucket_and_log);
    ADD(a_manifest_that_is_gone_is_made_anew);
    ADD(what_was_never_published_is_all_in_the_log);
    ADD(a_local_generation_is_rebuilt_from_the_log);
    ADD(a_log_that_does_not_reach_back_is_refused_unless_told);
    ADD(a_volume_that_went_on_elsewhere_is_not_mixed_with_an_old_log);
    ADD(without_the_store_a_damaged_manifest_stays_where_it_is);
    ADD(a_place_of_digits_is_no_number_of_a_db);
    ADD(a_log_of_before_the_local_generation_is_refused_before_the_claim);
    ADD(a_manifest_of_another_identity_is_refused_before_the_claim);
    ADD(a_rebuild_that_dies_at_any_step_is_repeated);
#undef ADD
    return unit_run(s);
}
