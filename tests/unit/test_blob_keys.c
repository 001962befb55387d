// SPDX-License-Identifier: Apache-2.0
// The same content under two keys, as it comes about: an upload is given up, an answer is lost,
// another host takes over, or the content dies and comes again. As long as one of the keys is
// needed, every retained generation can be restored; in the end the bucket has neither.
#include "remote_content.h"
#include "retention/collect.h"

#include <dirent.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

#include "base/checksum.h"
#include "platform/clock.h"
#include "platform/memory.h"

#define HOUR_MS ((uint64_t)3600 * 1000)
#define DAY_MS  (24 * HOUR_MS)
#define FILES   3u
#define ALL     1000u

static struct world world;
static struct root one, two, copy;
static uint64_t ahead_ms; // how far the world's time is ahead of the machine's
static bool made[FILES];

// ---- hosts --------------------------------------------------------------------------------------

static void
setup(void)
{
    world_open(&world);
    root_open(&one, &world, "one", 1);
    root_open(&two, &world, "two", 2);
    root_open(&copy, &world, "copy", 3);
    root_begin(&one);
}

static void
teardown(void)
{
    root_close(&one);
    root_close(&two);
    root_close(&copy);
    world_close(&world);
}

static void
add(struct root *r, struct manifest_batch *b, const struct change *c)
{
    manifest_batch_change(b, c, c->kind != CHANGE_PUT_BLOB, r->db.next);
}

static struct blob_location
add_blob(struct root *r, struct manifest_batch *b, uint64_t chunk, const char *text)
{
    struct blob_location where = {.length = 8192, .index_offset = 4096};
    sha256_of(text, strlen(text), &where.blob);
    const struct change c = {.kind = CHANGE_PUT_BLOB,
        .blob = {.hash = where.blob,
            .bytes = 8192,
            .kind = BLOB_OBJECT_CHUNK,
            .checkpoint_id = {{(uint8_t)r->db.next.v, 0, r->salt}},
            .chunk = {chunk},
            .generation = r->db.next,
            .where = BLOB_WHERE_OWN}};
    add(r, b, &c);
    return where;
}

static void
add_inode(struct root *r, struct manifest_batch *b, uint64_t object, uint32_t mode, uint64_t size)
{
    struct change c = {.kind = CHANGE_PUT_INODE, .object = {object}};
    c.inode = (struct inode_record){.mode = mode,
        .nlink = S_ISDIR(mode) ? 2 : 1,
        .size = size,
        .mtime = {(int64_t)r->db.next.v, 0},
        .link_target = ""};
    add(r, b, &c);
}

static void
add_file(struct root *r, struct manifest_batch *b, uint64_t object)
{
    char name[32];
    int n = snprintf(name, sizeof(name), "file-%" PRIu64, object);
    struct change c = {.kind = CHANGE_PUT_DIRENT};
    c.dirent = (struct dirent_record){.parent = OBJECT_ROOT_DIRECTORY,
        .cookie = object << DIRENT_SLOT_BITS,
        .object = {object},
        .type = DT_REG,
        .name_length = (uint8_t)n,
        .name = name};
    add(r, b, &c);
    add_inode(r, b, object, S_IFREG | 0644, 5000);
}

// Makes the next generation of the root: the content of one file is this text.
static void
fold(struct root *r, unsigned file, const char *text)
{
    struct manifest_batch *b = manifest_batch_new(r->db.id);
    uint64_t object = file + 2;
    uint64_t files = 0;
    if (!made[file])
        add_file(r, b, object);
    made[file] = true;
    for (unsigned i = 0; i < FILES; i++)
        files += made[i];
    add_inode(r, b, 1, S_IFDIR | 0755, files);
    struct change c = {.kind = CHANGE_PUT_CHUNK};
    c.chunk = (struct chunk_entry){.id = {file + 1},
        .object = {object},
        .generation = r->db.next,
        .base_generation = r->db.next,
        .base = add_blob(r, b, file + 1, text),
        .base_pages = 1,
        .present_pages = 2};
    add(r, b, &c);
    const struct db_counters counters = {FILES + 2, FILES + 1};
    manifest_batch_local_generation(
        b, r->db.next, (struct lsn){r->db.next.v * 1000}, counters, 1700000000000 + r->db.next.v);
    ck_assert_int_eq(manifest_submit(r->m, b, NULL), 0);
    ck_assert_int_eq(manifest_find_db(r->m, r->db.place, "acme", 1, &r->db), 0);
}

static int
publish(struct root *r)
{
    struct remote_staged staged;
    struct remote_upload *uploads;
    size_t count;
    int rc = remote_manifest_stage_generation(&r->place, r->m, r->db.id, &staged, &uploads, &count);
    if (rc < 0)
        return rc;
    rc = content_upload(&world, uploads, count);
    if (rc == 0)
        rc = remote_manifest_publish(&r->place, &staged);
    if (rc == 0)
        rc = remote_manifest_record_publication(
            &r->place, r->m, r->db.id, &staged, uploads, count, 0);
    ck_assert_int_eq(manifest_find_db(r->m, r->db.place, "acme", 1, &r->db), 0);
    free(uploads);
    remote_staged_free(&staged);
    return rc;
}

static void
make(struct root *r, unsigned file, const char *text)
{
    fold(r, file, text);
    ck_assert_int_eq(publish(r), 0);
}

// The generation is uploaded, and its record is not made, or its answer is lost.
static void
make_and_fail(struct root *r, unsigned file, const char *text, enum store_fault_kind kind)
{
    const struct store_fault fault = {.verb = STORE_VERB_PUT,
        .kind = kind,
        .key_prefix = "manifests/acme/1/record-",
        .error = -EAGAIN};
    fold(r, file, text);
    fault_store_add(world.faults, &fault);
    ck_assert_int_lt(publish(r), 0);
    fault_store_clear(world.faults);
}

static int
note_file(void *argument UNUSED, const struct change *c)
{
    if (c->kind == CHANGE_PUT_CHUNK)
        made[c->chunk.id.v - 1] = true;
    return 0;
}

// The host has nothing but the bucket, and owns the volume from now on.
static void
begin_anew(struct root *r)
{
    struct manifest_reader *reader;
    root_import(r);
    ck_assert_int_eq(root_claim(r, true, NULL), 0);
    memset(made, 0, sizeof(made));
    ck_assert_int_eq(manifest_read_begin(r->m, &reader), 0);
    ck_assert_int_eq(manifest_export(reader, r->db.id, note_file, NULL), 0);
    manifest_read_end(reader);
}

static void
pass_time(uint64_t ms)
{
    ahead_ms += ms;
    world_age(&world, ms);
}

static void
keep_last(struct root *r, uint32_t last)
{
    const struct change c = {
        .kind = CHANGE_PUT_RETENTION, .retention = {.last = last, .grace_ms = HOUR_MS}};
    ck_assert_int_eq(remote_manifest_learn_history(&r->place, r->m, r->db.id), 0);
    ck_assert_int_eq(remote_manifest_tell(&r->place, r->m, r->db.id, &c, 1, 0), 0);
}

// Two runs, with two days between: what the first one expires the second one deletes.
static void
collect(struct root *r)
{
    for (unsigned i = 0; i < 2; i++) {
        struct collect_result result;
        const struct collect_options options = {.place = &r->place,
            .manifest = r->m,
            .db = r->db.id,
            .flags = COLLECT_PRUNE | COLLECT_SWEEP,
            .now_ms = clock_wall_ms() + ahead_ms};
        ck_assert_int_eq(collect_run(&options, &result), 0);
        pass_time(2 * DAY_MS);
    }
    ck_assert_int_eq(manifest_find_db(r->m, r->db.place, "acme", 1, &r->db), 0);
    ck_assert_int_eq(manifest_check(r->m, r->db.id), 0);
}

// ---- what must hold -----------------------------------------------------------------------------

// How many objects the bucket has with this content.
static unsigned
keys_of(const char *text)
{
    struct remote_listing listing = {0};
    struct sha256 hash;
    char hex[65];
    unsigned keys = 0;
    sha256_of(text, strlen(text), &hash);
    sha256_to_hex(&hash, hex);
    ck_assert_int_eq(
        remote_store_list_blobs(world.store, "checkpoints/", NULL, 1000, &listing, NULL), 0);
    for (size_t i = 0; i < listing.count; i++)
        keys += strstr(listing.entries[i].key, hex) != NULL;
    remote_listing_free(&listing);
    return keys;
}

static int
check_blob(void *argument UNUSED, const struct change *c)
{
    ck_assert(c->kind != CHANGE_PUT_BLOB || content_is_there(&world, &c->blob));
    return 0;
}

// Every retained generation can be restored, and has its blobs. Returns how many there are.
static size_t
check_generations(void)
{
    struct remote_generations g;
    size_t count = 0;
    ck_assert_int_eq(remote_generations_read(&copy.place, &g), 0);
    for (size_t i = 0; i < g.count; i++) {
        struct manifest_reader *r;
        if (g.records[i].state != GENERATION_RETAINED)
            continue;
        struct db_record db = root_new_db(&copy, "restored");
        ck_assert_int_eq(
            remote_manifest_import(&copy.place, copy.m, &db, g.records[i].generation), 0);
        ck_assert_int_eq(manifest_check(copy.m, db.id), 0);
        ck_assert_int_eq(manifest_read_begin(copy.m, &r), 0);
        ck_assert_int_eq(manifest_export(r, db.id, check_blob, NULL), 0);
        manifest_read_end(r);
        ck_assert_int_eq(manifest_remove_db(copy.m, db.id), 0);
        count++;
    }
    remote_generations_free(&g);
    return count;
}

static void
expect(const char *text, unsigned keys, size_t generations)
{
    ck_assert_uint_eq(keys_of(text), keys);
    ck_assert_uint_eq(check_generations(), generations);
}

// The content dies with the next generation, all others expire, and no key of it is left.
static void
end(struct root *r, unsigned file)
{
    make(r, file, "end");
    keep_last(r, 1);
    collect(r);
    collect(r);
    expect("x", 0, 1);
    expect("end", 1, 1);
}

// ---- how it comes about -------------------------------------------------------------------------

START_TEST(an_upload_that_was_given_up_leaves_another_key)
{
    keep_last(&one, ALL);
    make(&one, 0, "first");
    make_and_fail(&one, 1, "x", STORE_FAULT_FAIL);
    expect("x", 1, 1);
    // The same generation and checkpoint again, with the content in another chunk.
    begin_anew(&one);
    make(&one, 2, "x");
    expect("x", 2, 2);
    // It cannot be told which of them is known to whom: both stay as long as the blob lives, and as
    // long as a generation needs it.
    collect(&one);
    expect("x", 2, 2);
    make(&one, 2, "y");
    collect(&one);
    expect("x", 2, 3);
    // The generations that need it go, one key by its death, the other one by a sweep.
    keep_last(&one, 1);
    collect(&one);
    expect("x", 0, 1);
    end(&one, 2);
}
END_TEST

START_TEST(a_record_whose_answer_was_lost_leaves_one_key)
{
    keep_last(&one, ALL);
    make(&one, 0, "first");
    make_and_fail(&one, 1, "x", STORE_FAULT_SWALLOW);
    begin_anew(&one);
    make(&one, 2, "x");
    expect("x", 1, 3);
    make(&one, 1, "y"); // the chunk that the key names has it no more
    collect(&one);
    expect("x", 1, 4);
    keep_last(&one, 1);
    collect(&one);
    expect("x", 1, 1);
    end(&one, 2);
}
END_TEST

START_TEST(a_host_that_takes_over_has_a_key_of_its_own)
{
    keep_last(&one, ALL);
    make(&one, 0, "first");
    make_and_fail(&one, 1, "x", STORE_FAULT_FAIL);
    begin_anew(&two);
    make(&two, 2, "x");
    expect("x", 2, 2);
    // The host before goes on, and leaves nothing of the other one's damaged.
    ck_assert_int_lt(publish(&one), 0);
    expect("x", 2, 2);
    // No record tells of its key: a sweep deletes it, and the content lives.
    collect(&two);
    expect("x", 1, 2);
    make(&two, 2, "y");
    collect(&two);
    expect("x", 1, 3);
    end(&two, 2);
}
END_TEST

START_TEST(content_that_comes_again_has_two_lives)
{
    keep_last(&one, ALL);
    make(&one, 0, "first");
    make(&one, 1, "x");
    make(&one, 1, "y");
    make(&one, 2, "x");
    expect("x", 2, 4);
    collect(&one);
    expect("x", 2, 4);
    // The first life ends with the generations that need it. The second one goes on.
    keep_last(&one, 1);
    collect(&one);
    expect("x", 1, 1);
    // A host that has the bucket alone goes on with it.
    begin_anew(&two);
    make(&two, 0, "second");
    collect(&two);
    expect("x", 1, 1);
    end(&two, 2);
}
END_TEST

// One host deletes the first key while another one's generation, not published yet, has the
// content under a second one.
START_TEST(one_key_dies_while_the_other_is_on_its_way)
{
    keep_last(&one, ALL);
    make(&one, 0, "first");
    make(&one, 1, "x");
    make(&one, 1, "y");
    keep_last(&one, 1);
    fold(&one, 2, "x");
    collect(&one);
    expect("x", 0, 1);
    ck_assert_int_eq(publish(&one), 0);
    expect("x", 1, 2);
    collect(&one);
    expect("x", 1, 1);
    end(&one, 2);
}
END_TEST

int
main(void)
{
    Suite *s = suite_create("blob_keys");
#define ADD(t) unit_add_with(s, #t, t, setup, teardown, 60)
    ADD(an_upload_that_was_given_up_leaves_another_key);
    ADD(a_record_whose_answer_was_lost_leaves_one_key);
    ADD(a_host_that_takes_over_has_a_key_of_its_own);
    ADD(content_that_comes_again_has_two_lives);
    ADD(one_key_dies_while_the_other_is_on_its_way);
#undef ADD
    return unit_run(s);
}
