// SPDX-License-Identifier: Apache-2.0
// Records that are whole and yet wrong, and processes that die between the steps.
#include "remote_world.h"

#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/checksum.h"
#include "platform/memory.h"
#include "platform/path.h"
#include "platform/random.h"
#include "remote/remote_internal.h"

static struct world world;
static struct root one, two;

static void
setup(void)
{
    world_open(&world);
    root_open(&one, &world, "one", 1);
    root_open(&two, &world, "two", 2);
}

static void
teardown(void)
{
    root_close(&one);
    root_close(&two);
    world_close(&world);
}

static int
append_to(void *argument, const void *p, size_t n)
{
    buffer_append(argument, p, n);
    return 0;
}

// Writes a record that verifies.
static void
craft(const char *kind, uint64_t number, const struct manifest_record_header *h,
    const struct change *changes, size_t count)
{
    BUFFER_AUTO bytes = {0};
    struct sha256 hash;
    uint64_t length;
    struct manifest_record_writer *w = manifest_record_writer_new(h, append_to, &bytes);
    for (size_t i = 0; i < count; i++)
        ck_assert_int_eq(manifest_record_writer_add(w, &changes[i]), 0);
    ck_assert_int_eq(manifest_record_writer_finish(w, &hash, &length), 0);
    manifest_record_writer_free(w);
    world_write(&world, kind, number, bytes.data, bytes.length);
}

// What the root would publish next.
static struct manifest_record_header
next_header(const struct root *r)
{
    return (struct manifest_record_header){
        .kind = MANIFEST_RECORD_GENERATION,
        .sequence = r->db.remote_sequence + 1,
        .epoch = r->db.epoch,
        .volume = r->db.volume,
        .writer = r->place.writer,
        .name_key = r->db.name_key,
        .previous = r->db.remote_hash,
        .generation = {r->db.published.v + 1},
        .previous_generation = r->db.published,
        .cut = r->db.cut,
        .host = "elsewhere",
    };
}

static int
try_import(void)
{
    struct db_record db = root_new_db(&two, "try");
    int rc = remote_manifest_import(&two.place, two.m, &db, (struct generation){0});
    ck_assert_int_eq(manifest_remove_db(two.m, db.id), 0);
    return rc;
}

// Spoils one thing about a header; false when there is no such number.
static bool
spoil_header(struct manifest_record_header *h, int what)
{
    switch (what) {
    case 0:
        h->sequence++;
        return true;
    case 1:
        h->sequence--;
        return true;
    case 2:
        h->kind = MANIFEST_RECORD_CREATE;
        return true;
    case 3:
        h->kind = MANIFEST_RECORD_CATALOG;
        return true;
    case 4:
        h->previous.b[31] ^= 1;
        return true;
    case 5:
        h->volume.b[0] ^= 1;
        return true;
    case 6:
        h->name_key.b[0] ^= 1;
        return true;
    case 7: // an epoch that was over
        h->epoch = 0;
        return true;
    case 8: // an epoch that is somebody else's
        h->writer.b[0] ^= 1;
        return true;
    case 9: // generations that do not follow each other
        h->previous_generation.v++;
        h->generation.v++;
        return true;
    case 10:
        h->generation.v--;
        return true;
    case 11: // an OPEN that publishes
        h->kind = MANIFEST_RECORD_OPEN;
        h->epoch++;
        return true;
    case 12: // an epoch that is open already
        h->kind = MANIFEST_RECORD_OPEN;
        h->generation = h->previous_generation;
        return true;
    default:
        return false;
    }
}

START_TEST(record_that_verifies_must_also_fit_the_chain)
{
    struct remote_catch_up found;
    root_begin(&one);
    root_fold(&one, 0);
    ck_assert_int_eq(root_publish(&one), 0);
    struct manifest_record_header good = next_header(&one);
    craft("record-", 4, &good, NULL, 0);
    ck_assert_int_eq(try_import(), 0);
    for (int what = 0;; what++) {
        struct manifest_record_header h = good;
        if (!spoil_header(&h, what))
            break;
        craft("record-", 4, &h, NULL, 0);
        int rc = try_import();
        ck_assert_msg(rc == -EBADMSG, "spoilt in way %d: %d", what, rc);
        // The last one looks like the root's own claim to a root that does not know the epoch of
        // its position; nothing depends on that.
        if (what == 12)
            continue;
        rc = remote_manifest_catch_up(&one.place, one.m, &one.db, &found);
        ck_assert(rc == -EBADMSG || (rc == 0 && found.foreign));
        ck_assert_uint_eq(one.db.remote_sequence, 3);
    }
}
END_TEST

START_TEST(changes_that_cannot_be_applied_are_refused)
{
    root_begin(&one);
    struct manifest_record_header h = next_header(&one);
    struct change chunk = {.kind = CHANGE_PUT_CHUNK};
    chunk.chunk = (struct chunk_entry){
        .id = {1},
        .object = {2},
        .generation = {1},
        .base_generation = {1},
        .base = {.blob = {{7}}, .length = 8192, .index_offset = 4096},
    };
    craft("record-", 3, &h, &chunk, 1);
    ck_assert_int_eq(try_import(), -EBADMSG);
}
END_TEST

START_TEST(catalog_must_fit_the_chain)
{
    root_begin(&one);
    root_fold(&one, 0);
    ck_assert_int_eq(root_publish(&one), 0);
    root_fold(&one, 0);
    ck_assert_int_eq(root_publish(&one), 0);
    BUFFER_AUTO dump = {0};
    root_dump(one.m, one.db.id, &dump);
    // Catalogs that hold nothing: whoever believes them loses all there is.
    for (uint64_t sequence = 2; sequence <= 5; sequence++) {
        struct manifest_record_header h = next_header(&one);
        h.kind = MANIFEST_RECORD_CATALOG;
        h.sequence = sequence;
        craft("catalog-", sequence, &h, NULL, 0);
        root_import(&two);
        root_assert_equal(&two, &dump);
        ck_assert_uint_eq(two.db.catalog_sequence, 0);
        // The right hash, but a generation that the next record does not build on.
        BUFFER_AUTO record = {0};
        if (sequence == 5)
            break;
        world_read(&world, "record-", sequence, &record);
        sha256_of(record.data, record.length, &h.previous);
        h.generation.v = h.previous_generation.v = 77;
        craft("catalog-", sequence, &h, NULL, 0);
        root_import(&two);
        root_assert_equal(&two, &dump);
        h.volume.b[3] ^= 1;
        h.generation = h.previous_generation = (struct generation){0};
        craft("catalog-", sequence, &h, NULL, 0);
        root_import(&two);
        root_assert_equal(&two, &dump);
        char *path = world_path(&world, "catalog-", sequence);
        ck_assert_int_eq(unlink(path), 0);
        free(path);
    }
}
END_TEST

static int
count_deaths(void *argument, const struct change *c)
{
    *(unsigned *)argument += c->kind == CHANGE_PUT_BLOB && c->blob.death.v != 0;
    return 0;
}

static unsigned
untold_deaths(const struct root *r)
{
    struct manifest_reader *reader;
    unsigned count = 0;
    ck_assert_int_eq(manifest_read_begin(r->m, &reader), 0);
    ck_assert_int_eq(manifest_export_unpublished(reader, r->db.id, count_deaths, &count), 0);
    manifest_read_end(reader);
    return count;
}

// Programs before told births and no deaths: blobs that nothing refers to any more.
START_TEST(deaths_that_the_chain_does_not_tell_are_told_by_whoever_imports_it)
{
    struct remote_lease lease;
    struct blob_record blob = {.bytes = 100, .kind = BLOB_OBJECT_PACK, .generation = {1}};
    root_begin(&one);
    root_fold(&one, 0);
    ck_assert_int_eq(root_publish(&one), 0);
    sha256_of("dead", 4, &blob.hash);
    struct change dead = {.kind = CHANGE_PUT_BLOB, .blob = blob};
    struct manifest_record_header h = next_header(&one);
    craft("record-", h.sequence, &h, &dead, 1);
    root_import(&two);
    ck_assert_int_eq(manifest_check(two.m, two.db.id), 0);
    ck_assert_uint_eq(untold_deaths(&two), 1);
    ck_assert_int_eq(root_claim(&two, true, &lease), 0);
    // A generation in which nothing else happens.
    struct manifest_batch *b = manifest_batch_new(two.db.id);
    manifest_batch_local_generation(b, two.db.next, two.db.cut, two.db.counters, 1700000000000);
    ck_assert_int_eq(manifest_submit(two.m, b, NULL), 0);
    ck_assert_int_eq(root_publish(&two), 0);
    ck_assert_uint_eq(untold_deaths(&two), 0);
    // It is told now: who comes later has nothing to tell.
    root_import(&one);
    ck_assert_uint_eq(untold_deaths(&one), 0);
    struct manifest_reader *reader;
    ck_assert_int_eq(manifest_read_begin(one.m, &reader), 0);
    ck_assert_int_eq(manifest_read_blob(reader, one.db.id, &dead.blob.hash, &blob), -ENOENT);
    manifest_read_end(reader);
}
END_TEST

START_TEST(the_host_of_a_foreign_record_is_plain_text)
{
    struct remote_catch_up found;
    root_begin(&one);
    root_fold(&one, 0);
    struct manifest_record_header h = next_header(&one);
    h.writer = two.place.writer;
    h.epoch++;
    h.generation.v = 2;
    memcpy(h.host, "\x1b[2Jdb\n\xc2\x9b", sizeof("\x1b[2Jdb\n\xc2\x9b"));
    craft("record-", 3, &h, NULL, 0);
    ck_assert_int_eq(remote_manifest_catch_up(&one.place, one.m, &one.db, &found), 0);
    ck_assert(found.foreign);
    ck_assert_str_eq(found.foreign_host, "_[2Jdb___");
}
END_TEST

START_TEST(own_record_that_the_root_does_not_know_is_foreign)
{
    struct remote_catch_up found;
    root_begin(&one);
    root_fold(&one, 0);
    // From a root that was set back: it once had more than it has now.
    struct manifest_record_header h = next_header(&one);
    h.generation.v = 2;
    craft("record-", 3, &h, NULL, 0);
    ck_assert_int_eq(remote_manifest_catch_up(&one.place, one.m, &one.db, &found), 0);
    ck_assert(found.foreign);
    ck_assert_str_eq(found.foreign_host, "elsewhere");
    ck_assert_uint_eq(found.foreign_epoch, 1);
    // The same number, another cut.
    h.generation.v = 1;
    h.cut.v++;
    craft("record-", 3, &h, NULL, 0);
    ck_assert_int_eq(remote_manifest_catch_up(&one.place, one.m, &one.db, &found), 0);
    ck_assert(found.foreign);
    ck_assert_uint_eq(one.db.published.v, 0);
    h.cut.v--;
    craft("record-", 3, &h, NULL, 0);
    ck_assert_int_eq(remote_manifest_catch_up(&one.place, one.m, &one.db, &found), 0);
    ck_assert(!found.foreign);
    ck_assert_uint_eq(one.db.published.v, 1);
}
END_TEST

START_TEST(fenced_root_stages_nothing)
{
    root_begin(&one);
    root_fold(&one, 0);
    struct manifest_batch *b = manifest_batch_new(one.db.id);
    manifest_batch_fenced(b, true);
    ck_assert_int_eq(manifest_submit(one.m, b, NULL), 0);
    ck_assert_int_eq(root_publish(&one), -ESTALE);
    ck_assert_int_eq(world_count(&world, "record-"), 2);
}
END_TEST

START_TEST(catalog_is_due_when_records_outweigh_it)
{
    struct db_record db = {.remote_sequence = 2};
    ck_assert(!remote_manifest_catalog_due(&db));
    db.published.v = 1;
    db.remote_sequence = 3;
    ck_assert(remote_manifest_catalog_due(&db));
    db.catalog_sequence = 3;
    db.catalog_bytes = 1000;
    ck_assert(!remote_manifest_catalog_due(&db));
    // Small ones wait for company, large ones do not.
    db.remote_sequence = 18;
    db.bytes_since_catalog = 900000;
    ck_assert(!remote_manifest_catalog_due(&db));
    db.bytes_since_catalog = 1 << 20;
    ck_assert(remote_manifest_catalog_due(&db));
    db.bytes_since_catalog = 2000;
    db.remote_sequence = 19;
    ck_assert(remote_manifest_catalog_due(&db));
    // A large catalog stands longer, but not for any number of records.
    db.catalog_bytes = 100 << 20;
    db.bytes_since_catalog = 50 << 20;
    ck_assert(!remote_manifest_catalog_due(&db));
    db.remote_sequence = 3 + 799;
    ck_assert(!remote_manifest_catalog_due(&db));
    db.remote_sequence = 3 + 801;
    ck_assert(remote_manifest_catalog_due(&db));
}
END_TEST

// ---- what fails underneath ----------------------------------------------------------------------

START_TEST(records_of_a_newer_version_are_told_from_damage)
{
    root_begin(&one);
    root_fold(&one, 0);
    ck_assert_int_eq(root_publish(&one), 0);
    ck_assert_int_eq(remote_manifest_write_catalog(&one.place, one.m, one.db.id), 0);
    BUFFER_AUTO record = {0};
    world_read(&world, "record-", 3, &record);
    // The version is a u16 after the magic; the checksum of the header is in its last four bytes.
    put_le16(record.data + 8, 1000);
    put_le32(record.data + 252, crc32c(0, record.data, 252));
    world_write(&world, "record-", 3, record.data, record.length);
    ck_assert_int_eq(try_import(), -ENOTSUP);
    struct remote_lease lease;
    ck_assert_int_eq(root_claim(&one, false, &lease), -ENOTSUP);
}
END_TEST

START_TEST(catalogs_without_records_are_no_volume)
{
    root_begin(&one);
    root_fold(&one, 0);
    ck_assert_int_eq(root_publish(&one), 0);
    ck_assert_int_eq(remote_manifest_write_catalog(&one.place, one.m, one.db.id), 0);
    for (uint64_t i = 1; i <= 3; i++) {
        char *path = world_path(&world, "record-", i);
        ck_assert_int_eq(unlink(path), 0);
        free(path);
    }
    // Not -ENOENT: that would invite somebody to make the volume anew.
    ck_assert_int_eq(try_import(), -EBADMSG);
}
END_TEST

// Each listing of a file store reads the whole directory.
START_TEST(a_walk_over_many_objects_reads_a_directory_once)
{
    const uint64_t count = 2500;
    root_begin(&one);
    for (uint64_t i = 1; i <= count; i++)
        world_write(&world, "lease-", 1000 + i, "x", 1);
    fault_store_clear(world.faults);
    uint64_t before = fault_store_calls(world.faults, STORE_VERB_LIST);
    struct remote_walk walk;
    uint64_t number, bytes, seen = 0;
    remote_walk_begin(&walk, &one.place, REMOTE_LEASE, 1000);
    while (remote_walk_next(&walk, &number, &bytes) == 1)
        ck_assert_uint_eq(number, 1000 + ++seen);
    remote_walk_end(&walk);
    ck_assert_uint_eq(seen, count);
    ck_assert_uint_eq(fault_store_calls(world.faults, STORE_VERB_LIST) - before, 1);
}
END_TEST

START_TEST(object_that_is_listed_and_gone_is_an_error)
{
    struct store_fault gone = {
        .verb = STORE_VERB_GET, .kind = STORE_FAULT_FAIL, .error = -ENOENT, .nth = 2, .times = 1};
    struct remote_catch_up found;
    root_begin(&one);
    root_fold(&one, 0);
    ck_assert_int_eq(root_publish_and_forget(&one), 0);
    fault_store_add(world.faults, &gone);
    ck_assert_int_eq(try_import(), -EBADMSG);
    fault_store_clear(world.faults);
    gone.nth = 1;
    fault_store_add(world.faults, &gone);
    ck_assert_int_eq(remote_manifest_catch_up(&one.place, one.m, &one.db, &found), -EBADMSG);
    // Comparing with what is there, and it is not: ask again later.
    fault_store_clear(world.faults);
    gone.verb = STORE_VERB_HEAD;
    fault_store_add(world.faults, &gone);
    ck_assert_int_eq(root_publish(&one), -EAGAIN);
    ck_assert_int_eq(root_publish(&one), 0);
}
END_TEST

START_TEST(scratch_that_fails_is_reported)
{
    root_begin(&one);
    root_fold(&one, 3 << 20);
    ck_assert_int_eq(root_publish(&one), 0);
    root_fold(&one, 3 << 20);
    struct rlimit small = {1 << 20, 1 << 20};
    signal(SIGXFSZ, SIG_IGN);
    struct db_record db = root_new_db(&two, "small");
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &small), 0);
    ck_assert_int_eq(root_publish(&one), -EFBIG);
    ck_assert_int_eq(
        remote_manifest_import(&two.place, two.m, &db, (struct generation){0}), -EFBIG);
    one.place.scratch = two.place.scratch = "/nonexistent";
    ck_assert_int_eq(root_publish(&one), -EIO);
    ck_assert_int_eq(remote_manifest_import(&two.place, two.m, &db, (struct generation){0}), -EIO);
}
END_TEST

START_TEST(catalog_that_cannot_be_written_is_due_again)
{
    struct store_fault fault = {
        .verb = STORE_VERB_PUT, .kind = STORE_FAULT_FAIL, .error = -EACCES, .nth = 1, .times = 1};
    root_begin(&one);
    root_fold(&one, 0);
    ck_assert_int_eq(root_publish(&one), 0);
    fault_store_add(world.faults, &fault);
    ck_assert_int_eq(remote_manifest_write_catalog(&one.place, one.m, one.db.id), -EACCES);
    ck_assert_int_eq(manifest_find_db(one.m, "main", "acme", 1, &one.db), 0);
    ck_assert(remote_manifest_catalog_due(&one.db));
    ck_assert_int_eq(remote_manifest_write_catalog(&one.place, one.m, one.db.id), 0);
}
END_TEST

START_TEST(volume_whose_newest_record_is_large_is_claimed)
{
    root_begin(&one);
    root_fold(&one, 3 << 20);
    ck_assert_int_eq(root_publish(&one), 0);
    root_import(&two);
    uint64_t read = __atomic_load_n(&world.faults->counters.bytes_read, __ATOMIC_RELAXED);
    ck_assert_int_eq(root_claim(&two, true, NULL), 0);
    read = __atomic_load_n(&world.faults->counters.bytes_read, __ATOMIC_RELAXED) - read;
    ck_assert_uint_gt(read, 0);
    ck_assert_uint_lt(read, 1 << 20);
    ck_assert_uint_eq(two.db.epoch, 2);
}
END_TEST

// ---- dying --------------------------------------------------------------------------------------

// Arguments of the process that dies: where the world is, and what to do there.
static const char *program, *world_directory, *work;

START_TEST(work_until_death)
{
    world_join(&world, world_directory);
    root_open(&one, &world, "one", 1);
    ck_assert_int_eq(manifest_find_db(one.m, "main", "acme", 1, &one.db), 0);
    if (strcmp(work, "publish") == 0)
        ck_assert_int_eq(root_publish(&one), 0);
    else if (strcmp(work, "claim") == 0)
        ck_assert_int_eq(root_claim(&one, false, NULL), 0);
    else
        root_import(&one);
}
END_TEST

static int
run_work(void)
{
    Suite *s = suite_create("work");
    unit_add(s, "work_until_death", work_until_death, 0);
    SRunner *runner = srunner_create(s);
    srunner_set_fork_status(runner, CK_NOFORK);
    srunner_run_all(runner, CK_SILENT);
    srunner_free(runner);
    return EXIT_SUCCESS;
}

// Lets a process of its own open root "one" and die at `point` while it does `what`. Afterwards the
// root is open here again.
static void
die_at(const char *point, const char *what)
{
    root_close(&one);
    pid_t pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        unit_set_fault_hook("CKPTFS_CRASH_AT", point);
        execl(program, program, "work", world.directory, what, (char *)NULL);
        _exit(99);
    }
    int status;
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_msg(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "status %d", status);
    root_open(&one, &world, "one", 1);
    // What the dead left in scratch is the janitor's to remove.
    ck_assert_int_eq(path_remove_tree(one.scratch), 0);
    ck_assert_int_eq(path_make_directories(one.scratch, 0700), 0);
    ck_assert_int_eq(manifest_find_db(one.m, "main", "acme", 1, &one.db), 0);
}

START_TEST(death_after_the_record_is_rolled_forward)
{
    struct remote_catch_up found;
    root_begin(&one);
    root_fold(&one, 0);
    die_at("remote.record_created", "publish");
    ck_assert_uint_eq(one.db.published.v, 0);
    ck_assert_int_eq(remote_manifest_catch_up(&one.place, one.m, &one.db, &found), 0);
    ck_assert_uint_eq(found.rolled_forward, 1);
    ck_assert_uint_eq(one.db.published.v, 1);
    ck_assert_uint_eq(root_unpublished_blobs(&one), 0);
    BUFFER_AUTO dump = {0};
    root_dump(one.m, one.db.id, &dump);
    root_import(&two);
    root_assert_equal(&two, &dump);
}
END_TEST

START_TEST(death_in_a_claim_is_recovered_from)
{
    static const char *const points[] = {"remote.epoch_noted", "remote.open_created"};
    struct remote_catch_up found;
    root_begin(&one);
    root_fold(&one, 0);
    for (size_t i = 0; i < ARRAY_LENGTH(points); i++) {
        uint64_t sequence = one.db.remote_sequence;
        die_at(points[i], "claim");
        ck_assert_uint_eq(one.db.remote_sequence, sequence);
        ck_assert_int_eq(remote_manifest_catch_up(&one.place, one.m, &one.db, &found), 0);
        ck_assert(!found.foreign);
        ck_assert_uint_eq(one.db.remote_sequence, sequence + i);
        ck_assert_int_eq(root_claim(&one, false, NULL), 0);
    }
    ck_assert_int_eq(root_publish(&one), 0);
    root_import(&two);
    ck_assert_uint_eq(two.db.published.v, 1);
}
END_TEST

START_TEST(record_that_lands_after_death_in_a_claim_is_rolled_forward)
{
    // The epoch is noted, no OPEN record made, and then a record of the epoch before turns up.
    struct remote_catch_up found;
    root_begin(&one);
    root_fold(&one, 0);
    struct remote_staged staged;
    struct remote_upload *uploads;
    size_t count;
    ck_assert_int_eq(
        remote_manifest_stage_generation(&one.place, one.m, one.db.id, &staged, &uploads, &count),
        0);
    int kept = dup(staged.fd);
    ck_assert_int_ge(kept, 0);
    struct remote_staged late = staged;
    late.fd = kept;
    free(uploads);
    remote_staged_free(&staged);
    die_at("remote.epoch_noted", "claim");
    ck_assert_uint_eq(one.db.epoch, 2);
    ck_assert_int_eq(remote_manifest_publish(&one.place, &late), 0);
    file_close(kept);
    ck_assert_int_eq(remote_manifest_catch_up(&one.place, one.m, &one.db, &found), 0);
    ck_assert(!found.foreign);
    ck_assert_uint_eq(found.rolled_forward, 1);
    ck_assert_int_eq(root_claim(&one, false, NULL), 0);
    ck_assert_uint_eq(one.db.epoch, 2);
}
END_TEST

START_TEST(death_in_an_import_leaves_nothing_that_looks_ready)
{
    root_begin(&one);
    root_fold(&one, 20 << 20);
    ck_assert_int_eq(root_publish(&one), 0);
    BUFFER_AUTO dump = {0};
    root_dump(one.m, one.db.id, &dump);
    die_at("remote.import_batch:2", "import");
    ck_assert_int_eq(one.db.state, DB_STATE_IMPORTING);
    struct remote_catch_up found;
    struct remote_lease lease;
    ck_assert_int_eq(remote_manifest_catch_up(&one.place, one.m, &one.db, &found), -EINVAL);
    ck_assert_int_eq(
        remote_manifest_claim(&one.place, one.m, &one.db, WORLD_TTL_MS, true, &lease), -EINVAL);
    root_import(&one);
    root_assert_equal(&one, &dump);
}
END_TEST

// A publication of one that stops right before it creates the record, and goes on later.
struct stopped {
    struct remote_staged staged;
    struct remote_upload *uploads;
    size_t count;
};

static void
stop_before_the_record(struct root *r, struct stopped *p)
{
    root_fold(r, 0);
    ck_assert_int_eq(remote_manifest_stage_generation(
                         &r->place, r->m, r->db.id, &p->staged, &p->uploads, &p->count),
        0);
}

static int
go_on(struct root *r, struct stopped *p)
{
    ck_assert_int_eq(remote_manifest_publish(&r->place, &p->staged), 0);
    return remote_manifest_check_ground(&r->place, p->staged.header.sequence, &p->staged.hash);
}

static void
end_of(struct stopped *p)
{
    free(p->uploads);
    remote_staged_free(&p->staged);
}

static void
remove_record(uint64_t number)
{
    char *path = world_path(&world, "record-", number);
    ck_assert_int_eq(unlink(path), 0);
    free(path);
}

// Another host took the volume and deleted its OPEN record in the end. The record before it is
// there still, because a generation needs it.
static void
pass_over(unsigned records, unsigned removed)
{
    struct stopped p;
    BUFFER_AUTO name = {0};
    struct remote_head head;
    setup();
    root_begin(&one);
    root_fold(&one, 0);
    ck_assert_int_eq(root_publish(&one), 0);
    stop_before_the_record(&one, &p);
    uint64_t place = p.staged.header.sequence;
    root_import(&two);
    ck_assert_int_eq(root_claim(&two, true, NULL), 0);
    for (unsigned i = 0; i < records; i++) {
        root_fold(&two, 0);
        ck_assert_int_eq(root_publish(&two), 0);
    }
    for (unsigned i = 0; i < removed; i++)
        remove_record(place + i);
    ck_assert_int_eq(go_on(&one, &p), -ESTALE);
    remote_key(&one.place, REMOTE_RECORD, place, &name);
    ck_assert_int_eq(
        remote_store_head_blob(world.store, buffer_string(&name), &head, NULL), -ENOENT);
    end_of(&p);
    teardown();
}

START_TEST(stalled_owner_that_was_passed_over_takes_its_record_back)
{
    pass_over(1, 1); // the next record names another hash
    pass_over(3, 2); // there is a gap
}
END_TEST

START_TEST(stalled_owner_that_was_first_has_published)
{
    struct stopped p;
    root_begin(&one);
    root_fold(&one, 0);
    ck_assert_int_eq(root_publish(&one), 0);
    stop_before_the_record(&one, &p);
    ck_assert_int_eq(go_on(&one, &p), 0);
    // Another host goes on from it meanwhile.
    root_import(&two);
    ck_assert_int_eq(root_claim(&two, true, NULL), 0);
    ck_assert_int_eq(
        remote_manifest_check_ground(&one.place, p.staged.header.sequence, &p.staged.hash), 0);
    end_of(&p);
}
END_TEST

int
main(int argc, char **argv)
{
    program = argv[0];
    if (argc == 4) {
        world_directory = argv[2];
        work = argv[3];
        return run_work();
    }
    Suite *s = suite_create("remote_chain");
#define ADD(t) unit_add_with(s, #t, t, setup, teardown, 120)
    ADD(record_that_verifies_must_also_fit_the_chain);
    ADD(changes_that_cannot_be_applied_are_refused);
    ADD(catalog_must_fit_the_chain);
    ADD(the_host_of_a_foreign_record_is_plain_text);
    ADD(own_record_that_the_root_does_not_know_is_foreign);
    ADD(fenced_root_stages_nothing);
    ADD(catalog_is_due_when_records_outweigh_it);
    ADD(records_of_a_newer_version_are_told_from_damage);
    ADD(catalogs_without_records_are_no_volume);
    ADD(deaths_that_the_chain_does_not_tell_are_told_by_whoever_imports_it);
    ADD(object_that_is_listed_and_gone_is_an_error);
    ADD(a_walk_over_many_objects_reads_a_directory_once);
    ADD(scratch_that_fails_is_reported);
    ADD(catalog_that_cannot_be_written_is_due_again);
    ADD(volume_whose_newest_record_is_large_is_claimed);
    unit_add(s, "stalled_owner_that_was_passed_over_takes_its_record_back",
        stalled_owner_that_was_passed_over_takes_its_record_back, 120);
    ADD(stalled_owner_that_was_first_has_published);
    ADD(death_after_the_record_is_rolled_forward);
    ADD(death_in_a_claim_is_recovered_from);
    ADD(record_that_lands_after_death_in_a_claim_is_rolled_forward);
    ADD(death_in_an_import_leaves_nothing_that_looks_ready);
    return unit_run(s);
}
