// SPDX-License-Identifier: Apache-2.0
// Counts that records and catalogs tell, against what they hold.
#include "remote_world.h"

#include <string.h>

#include "manifest_samples.h"
#include "platform/random.h"
#include "remote/remote_internal.h"

static struct world world;
static struct root source, copy;

static void
setup(void)
{
    world_open(&world);
    root_open(&source, &world, "source", 1);
    root_open(&copy, &world, "copy", 2);
}

static void
teardown(void)
{
    root_close(&source);
    root_close(&copy);
    world_close(&world);
}

// Imports the newest state into a new db of `copy`, which is removed again.
static int
try_import(void)
{
    copy.db = root_new_db(&copy, "try");
    int rc = remote_manifest_import(&copy.place, copy.m, &copy.db, (struct generation){0});
    struct db_record found;
    ck_assert_int_eq(manifest_find_db(copy.m, "try", "acme", 1, &found), 0);
    ck_assert_int_eq(found.state, rc < 0 ? DB_STATE_IMPORTING : DB_STATE_READY);
    ck_assert_int_eq(manifest_remove_db(copy.m, copy.db.id), 0);
    return rc;
}

// Writes the record after source's position, or the catalog of that position.
static void
put_record(enum manifest_record_kind kind, const struct change *changes, size_t count)
{
    const struct db_record *db = &source.db;
    bool next = kind == MANIFEST_RECORD_GENERATION;
    struct manifest_record_header h = {
        .kind = kind,
        .sequence = db->remote_sequence + next,
        .epoch = db->epoch,
        .volume = db->volume,
        .writer = source.place.writer,
        .name_key = db->name_key,
        .previous = db->remote_hash,
        .generation = {db->published.v + next},
        .previous_generation = db->published,
        .checkpoint_id = random_uuid(),
        .host = "host",
    };
    struct remote_small_record record;
    ck_assert_int_eq(remote_small_record_make(&h, changes, count, &record), 0);
    world_write(&world, next ? REMOTE_RECORD : REMOTE_CATALOG, h.sequence, record.data.data,
        record.data.length);
    buffer_free(&record.data);
}

// A record whose counters are lower than what it holds: ids would be given away twice.
START_TEST(counters_are_never_below_what_is_there)
{
    root_begin(&source);
    struct change changes[] = {
        {.kind = CHANGE_PUT_INODE, .object = {500}, .inode = {.mode = 0100644}},
        {.kind = CHANGE_PUT_COUNTERS, .counters = {.next_object = 7, .next_chunk = 9}},
    };
    put_record(MANIFEST_RECORD_GENERATION, changes, ARRAY_LENGTH(changes));
    root_import(&copy);
    ck_assert_uint_eq(copy.db.counters.next_object, 501);
    ck_assert_uint_eq(copy.db.counters.next_chunk, 9);
}
END_TEST

// Imports the newest state, which contradicts itself: refused, but for who only reads.
static void
expect_contradiction(const char *word)
{
    ck_assert_int_eq(try_import(), -EBADMSG);
    ck_assert_msg(strstr(remote_store_error(), word), "%s", remote_store_error());
    copy.place.forgiving = true;
    ck_assert_int_eq(try_import(), 0);
    copy.place.forgiving = false;
}

// A root directory with a file of two names, and a directory with an attribute.
#define SOUND_CHANGES                                                                              \
    {                                                                                              \
        sample_inode(1, S_IFDIR | 0755, 3, 3), sample_inode(2, S_IFREG | 0644, 2, 0),              \
            sample_inode(3, S_IFDIR | 0755, 2, 0), sample_dirent(1, 1, 2, DT_REG, "a"),            \
            sample_dirent(1, 2, 2, DT_REG, "b"), sample_dirent(1, 3, 3, DT_DIR, "c"),              \
            sample_xattr(3, "user.a", "x", 1), sample_chunk(1, 2, 0, 1, 0, 0)                      \
    }

START_TEST(counts_that_contradict_each_other_refuse_an_import)
{
    root_begin(&source);
    const struct change sound[] = SOUND_CHANGES;
    put_record(MANIFEST_RECORD_GENERATION, sound, ARRAY_LENGTH(sound));
    ck_assert_int_eq(try_import(), 0);
    const struct {
        unsigned at;
        struct change change;
        const char *word;
    } cases[] = {
        {0, sample_inode(1, S_IFDIR | 0755, 3, 4), "entries"},
        {0, sample_inode(1, S_IFDIR | 0755, 4, 3), "links"},
        {1, sample_inode(2, S_IFREG | 0644, 1, 0), "links"},
        {1, sample_inode(2, S_IFREG | 0644, 3, 0), "links"},
        {1, sample_inode(2, S_IFIFO | 0644, 2, 0), "types"},
        {1, sample_inode(4, S_IFREG | 0644, 2, 0), "not there"},
        {2, sample_inode(3, S_IFDIR | 0755, 0, 0), "links"},
        {2, sample_inode(3, S_IFDIR | 0755, 2, 1), "entries"},
        {2, sample_inode(1, S_IFDIR | 0755, 3, 3), "attribute"},
        {3, sample_dirent(3, 1, 2, DT_REG, "a"), "entries"},
        {3, sample_dirent(9, 1, 2, DT_REG, "a"), "entries"},
        {4, sample_dirent(1, 2, 3, DT_REG, "b"), "links"},
    };
    for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
        struct change changes[] = SOUND_CHANGES;
        changes[cases[i].at] = cases[i].change;
        put_record(MANIFEST_RECORD_GENERATION, changes, ARRAY_LENGTH(changes));
        expect_contradiction(cases[i].word);
    }
}
END_TEST

START_TEST(deltas_that_a_catalog_counts_wrongly_refuse_an_import)
{
    root_begin(&source);
    root_fold(&source, 0);
    ck_assert_int_eq(root_publish(&source), 0);
    struct change changes[] = {sample_inode(1, S_IFDIR | 0755, 2, 1),
        sample_inode(2, S_IFREG | 0644, 1, 0), sample_dirent(1, 1, 2, DT_REG, "a"),
        sample_chunk(1, 2, 0, 1, 0, 0)};
    put_record(MANIFEST_RECORD_CATALOG, changes, ARRAY_LENGTH(changes));
    ck_assert_int_eq(try_import(), 0);
    changes[3].chunk.delta_count = 2;
    put_record(MANIFEST_RECORD_CATALOG, changes, ARRAY_LENGTH(changes));
    expect_contradiction("deltas");
}
END_TEST

int
main(void)
{
    Suite *s = suite_create("remote_counts");
#define ADD(t) unit_add_with(s, #t, t, setup, teardown, 120)
    ADD(counters_are_never_below_what_is_there);
    ADD(counts_that_contradict_each_other_refuse_an_import);
    ADD(deltas_that_a_catalog_counts_wrongly_refuse_an_import);
#undef ADD
    return unit_run(s);
}
