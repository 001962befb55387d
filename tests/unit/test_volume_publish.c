// SPDX-License-Identifier: Apache-2.0
// What a publication says, and what it leaves in the store, when it is tried more than once.
#include "volume_world.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "format/manifest_record.h"
#include "platform/clock.h"
#include "platform/memory.h"
#include "platform/path.h"
#include "platform/random.h"
#include "volume/volume_internal.h"

// Folds fail from now on: staging finds a file where its directory should be.
static void
block_folds(struct volume *v, bool block)
{
    struct volume_status status;
    volume_status(v, &status);
    CLEANUP(memory_free_auto) char *scratch = memory_printf("%s/checkpoint_scratch", status.root);
    CLEANUP(memory_free_auto) char *aside = memory_printf("%s/aside", status.root);
    if (!block) {
        ck_assert_int_eq(unlink(scratch), 0);
        ck_assert_int_eq(rename(aside, scratch), 0);
        return;
    }
    ck_assert_int_eq(rename(scratch, aside), 0);
    int fd = open(scratch, O_CREAT | O_WRONLY, 0600);
    ck_assert_int_ge(fd, 0);
    close(fd);
}

// ---- the id of a checkpoint ---------------------------------------------------------------------

#define NAME_BYTES 256u

// The names in a directory of the store but the dots; how many.
static size_t
list(const struct volume_world *w, const char *directory, char names_out[][NAME_BYTES], size_t room)
{
    CLEANUP(memory_free_auto) char *path = memory_printf("%s/store/%s", w->directory, directory);
    DIR *d = opendir(path);
    size_t count = 0;
    if (!d)
        return 0; // nothing was put there yet
    for (struct dirent *e; (e = readdir(d));) {
        if (e->d_name[0] == '.')
            continue;
        ck_assert_uint_lt(count, room);
        snprintf(names_out[count++], NAME_BYTES, "%s", e->d_name);
    }
    closedir(d);
    return count;
}

static int
read_from_buffer(void *argument, uint64_t offset, void *p, size_t n)
{
    const struct buffer *b = argument;
    memcpy(p, b->data + offset, n);
    return 0;
}

// The id of the checkpoint that published this generation, from its record.
static void
find_checkpoint(const struct volume_world *w, uint64_t generation, char id_out[37])
{
    static char names[64][NAME_BYTES];
    size_t count = list(w, "manifests/acme/1", names, ARRAY_LENGTH(names));
    id_out[0] = 0;
    for (size_t i = 0; i < count; i++) {
        BUFFER_AUTO bytes = {0};
        struct manifest_record_header h;
        CLEANUP(memory_free_auto)
        char *path = memory_printf("%s/store/manifests/acme/1/%s", w->directory, names[i]);
        if (strncmp(names[i], "record-", 7) != 0)
            continue;
        ck_assert_int_eq(file_read_whole(path, 1u << 20, &bytes), 0);
        ck_assert_int_eq(
            manifest_record_read_header(read_from_buffer, &bytes, bytes.length, &h), 0);
        if (h.kind == MANIFEST_RECORD_GENERATION && h.generation.v == generation)
            uuid_to_string(&h.checkpoint_id, id_out);
    }
}

// A generation that is not published, and the next one begun and not made.
static void
begin_two(struct volume *v)
{
    struct generation generation;
    struct object_id a = volume_world_make_file(v, "a");
    volume_world_fill(v, a, 0, 100000, 1);
    volume_world_fold(v);
    block_folds(v, true);
    volume_world_fill(v, a, 0, 100000, 2);
    ck_assert_int_lt(volume_world_checkpoint(v, 0, &generation), 0);
}

START_TEST(a_generation_keeps_its_id_when_the_next_one_is_begun)
{
    struct volume_world w;
    char id[37];
    char blobs[4][NAME_BYTES];
    volume_world_new(&w);
    volume_world_script_faults(&w);
    volume_world_open(&w);
    volume_world_close(&w);
    char directories[16][NAME_BYTES];
    size_t before = list(&w, "checkpoints/acme/1", directories, ARRAY_LENGTH(directories));
    volume_world_set_faults(&w, "outage\n");
    volume_world_die_after(&w, begin_two);
    CLEANUP(memory_free_auto) char *scratch = memory_printf("%s/checkpoint_scratch", w.root);
    ck_assert_int_eq(unlink(scratch), 0);
    volume_world_set_faults(&w, "");
    volume_world_open(&w);
    struct volume_status status;
    do
        volume_status(w.v, &status);
    while (status.metrics.published_generation != status.metrics.local_generation);
    // What the record says is where its blobs are, and nothing is anywhere else.
    find_checkpoint(&w, status.metrics.published_generation, id);
    ck_assert_uint_eq(
        list(&w, "checkpoints/acme/1", directories, ARRAY_LENGTH(directories)), before + 1);
    CLEANUP(memory_free_auto) char *directory = memory_printf("checkpoints/acme/1/%s", id);
    ck_assert_uint_gt(list(&w, directory, blobs, ARRAY_LENGTH(blobs)), 0);
    volume_world_expect(w.v, volume_world_find(w.v, "a"), 0, 100000, 2);
    volume_world_free(&w);
}
END_TEST

// ---- what who asks is told ----------------------------------------------------------------------

START_TEST(a_taken_over_writer_is_told_so_also_when_it_has_nothing_new)
{
    struct volume_world w;
    struct volume_world other;
    struct generation generation;
    volume_world_new(&w);
    volume_world_open(&w);
    volume_world_fill(w.v, volume_world_make_file(w.v, "a"), 0, 10000, 1);
    volume_world_publish(w.v);
    ck_assert_int_eq(volume_world_checkpoint(w.v, VOLUME_CHECKPOINT_PUBLISH, &generation), 0);
    volume_world_join(&other, w.directory);
    volume_world_set_root(&other, "other");
    other.config.takeover = true;
    volume_world_open(&other);
    for (int i = 0; i < 3; i++)
        ck_assert_int_eq(
            volume_world_checkpoint(w.v, VOLUME_CHECKPOINT_PUBLISH, &generation), -ESTALE);
    ck_assert_int_eq(volume_world_checkpoint(other.v, VOLUME_CHECKPOINT_PUBLISH, &generation), 0);
    volume_world_leave(&other);
    ck_assert_int_eq(volume_world_try_close(&w), -ESTALE);
    volume_world_free(&w);
}
END_TEST

START_TEST(what_is_published_stays_so_while_the_store_is_away)
{
    struct volume_world w;
    struct generation generation;
    volume_world_new(&w);
    volume_world_script_faults(&w);
    volume_world_open(&w);
    volume_world_fill(w.v, volume_world_make_file(w.v, "a"), 0, 10000, 1);
    volume_world_publish(w.v);
    volume_world_set_faults(&w, "outage\n");
    ck_assert_int_eq(volume_world_checkpoint(w.v, VOLUME_CHECKPOINT_PUBLISH, &generation), 0);
    volume_world_set_faults(&w, "");
    volume_world_free(&w);
}
END_TEST

struct asker {
    struct volume_world *w;
    bool brings_store_back;
    atomic_bool answered;
    int result;
};

static void
move_store(const struct volume_world *w, const char *from, const char *to)
{
    CLEANUP(memory_free_auto) char *old = memory_printf("%s/%s", w->directory, from);
    CLEANUP(memory_free_auto) char *new = memory_printf("%s/%s", w->directory, to);
    ck_assert_int_eq(rename(old, new), 0);
}

// Called by the publish thread, which begins no other attempt meanwhile.
static void
note_answer(void *argument, int result, struct generation generation UNUSED)
{
    struct asker *a = argument;
    a->result = result;
    if (a->brings_store_back)
        move_store(a->w, "away", "store");
    atomic_store(&a->answered, true);
}

static void
wait_for_answer(struct asker *a)
{
    uint64_t deadline = clock_monotonic_ms() + 60000;
    while (!atomic_load(&a->answered)) {
        ck_assert_uint_lt(clock_monotonic_ms(), deadline);
        clock_sleep_ms(5);
    }
}

START_TEST(an_attempt_that_began_before_is_not_the_answer)
{
    struct volume_world w;
    struct volume_status status;
    volume_world_new(&w);
    volume_world_script_faults(&w);
    volume_world_open(&w);
    struct object_id a = volume_world_make_file(w.v, "a");
    volume_world_publish(w.v); // the attempt that a mount begins by itself is over
    struct asker first = {.w = &w, .brings_store_back = true};
    struct asker second = {.w = &w};
    volume_world_fill(w.v, a, 0, 10000, 1);
    // The attempt for the first one hangs in its first request ...
    volume_world_set_faults(&w, "slow 100000\n");
    ck_assert_int_eq(volume_checkpoint(w.v, VOLUME_CHECKPOINT_PUBLISH, note_answer, &first), 0);
    do
        volume_status(w.v, &status);
    while (status.publish_stage != CHECKPOINT_STAGE_UPLOADING);
    // ... when the second one asks, for more.
    volume_world_fill(w.v, a, 0, 10000, 2);
    ck_assert_int_eq(volume_checkpoint(w.v, VOLUME_CHECKPOINT_PUBLISH, note_answer, &second), 0);
    uint64_t before = status.metrics.checkpoints;
    do
        volume_status(w.v, &status);
    while (status.metrics.checkpoints == before || status.fold_stage != CHECKPOINT_STAGE_IDLE);
    move_store(&w, "store", "away");
    volume_world_set_faults(&w, "");
    wait_for_answer(&first);
    ck_assert_int_eq(first.result, -ENXIO);
    wait_for_answer(&second);
    ck_assert_int_eq(second.result, 0);
    volume_world_free(&w);
}
END_TEST

// ---- a bucket that loses what it had ------------------------------------------------------------

#define MANIFESTS "manifests/acme/1"

static void
move_object(const struct volume_world *w, const char *from, const char *to)
{
    CLEANUP(memory_free_auto) char *old = memory_printf("store/%s", from);
    CLEANUP(memory_free_auto) char *new = memory_printf("store/%s", to);
    move_store(w, old, new);
}

// Takes `name` out of the store, or puts it back where others may have come meanwhile.
static void
lose(const struct volume_world *w, const char *name)
{
    move_object(w, name, "lost");
}

static void
find_again(const struct volume_world *w, const char *name)
{
    CLEANUP(memory_free_auto) char *path = memory_printf("%s/store/%s", w->directory, name);
    int rc = path_remove_tree(path);
    ck_assert(rc == 0 || rc == -ENOENT || rc == -ENOTDIR);
    move_object(w, "lost", name);
}

static bool
is_damaged(struct volume *v)
{
    struct volume_status status;
    volume_status(v, &status);
    return status.metrics.store_damaged;
}

// The volume publishes nothing and says so, keeps what is written, and goes on when it can.
static void
expect_damage(struct volume_world *w, struct object_id a, uint64_t seed)
{
    struct generation generation;
    struct volume_status before;
    struct volume_status status;
    volume_status(w->v, &before);
    // Also when there is nothing new to publish.
    ck_assert_int_eq(
        volume_world_checkpoint(w->v, VOLUME_CHECKPOINT_PUBLISH, &generation), -EBADMSG);
    for (int i = 0; i < 2; i++) {
        volume_world_fill(w->v, a, 0, 100000, seed + (uint64_t)i);
        ck_assert_int_eq(
            volume_world_checkpoint(w->v, VOLUME_CHECKPOINT_PUBLISH, &generation), -EBADMSG);
    }
    volume_status(w->v, &status);
    ck_assert(status.metrics.store_damaged && !status.metrics.read_only && !status.metrics.fenced);
    ck_assert_ptr_nonnull(strstr(status.last_error, "acme/"));
    ck_assert_uint_eq(status.metrics.published_generation, before.metrics.published_generation);
    ck_assert_uint_ge(status.metrics.local_generation, before.metrics.local_generation + 2);
    volume_world_expect(w->v, a, 0, 100000, seed + 1);
}

// What is in the store can be had elsewhere.
static void
expect_elsewhere(const struct volume_world *w, uint64_t seed)
{
    struct volume_world other;
    volume_world_join(&other, w->directory);
    volume_world_set_root(&other, "elsewhere");
    other.config.read_only = true;
    volume_world_open(&other);
    volume_world_expect(other.v, volume_world_find(other.v, "a"), 0, 100000, seed);
    volume_world_leave(&other);
}

// A volume with a catalog at record 3 and records up to 6, and a file that does not change.
static struct object_id
begin_world(struct volume_world *w)
{
    volume_world_new(w);
    w->config.lease_ttl_ms = 3600000; // it is not renewed while the test counts requests
    volume_world_open(w);
    struct object_id a = volume_world_make_file(w->v, "a");
    volume_world_fill(w->v, volume_world_make_file(w->v, "b"), 0, 100000, 1);
    for (uint64_t i = 1; i <= 4; i++) {
        volume_world_fill(w->v, a, 0, 100000, i);
        volume_world_publish(w->v);
    }
    return a;
}

START_TEST(nothing_is_published_on_top_of_what_is_gone)
{
    static const char *const gone[] = {
        MANIFESTS,
        MANIFESTS "/record-0000000000000001",
        MANIFESTS "/record-0000000000000004",
        MANIFESTS "/record-0000000000000005",
        MANIFESTS "/record-0000000000000006",
        "checkpoints",
    };
    for (size_t i = 0; i < ARRAY_LENGTH(gone); i++) {
        struct volume_world w;
        struct object_id a = begin_world(&w);
        lose(&w, gone[i]);
        expect_damage(&w, a, 10);
        find_again(&w, gone[i]);
        volume_world_publish(w.v);
        ck_assert(!is_damaged(w.v));
        expect_elsewhere(&w, 11);
        volume_world_free(&w);
    }
}
END_TEST

START_TEST(nothing_is_published_on_top_of_what_another_record_says)
{
    struct volume_world w;
    struct object_id a = begin_world(&w);
    lose(&w, MANIFESTS "/record-0000000000000006");
    CLEANUP(memory_free_auto)
    char *from = memory_printf("%s/store/" MANIFESTS "/record-0000000000000005", w.directory);
    CLEANUP(memory_free_auto)
    char *to = memory_printf("%s/store/" MANIFESTS "/record-0000000000000006", w.directory);
    ck_assert_int_eq(link(from, to), 0);
    expect_damage(&w, a, 10);
    ck_assert_int_eq(unlink(to), 0);
    move_object(&w, "lost", MANIFESTS "/record-0000000000000006");
    volume_world_publish(w.v);
    expect_elsewhere(&w, 11);
    volume_world_free(&w);
}
END_TEST

START_TEST(a_root_opens_when_the_bucket_has_lost_its_records)
{
    static const char *const gone[] = {MANIFESTS, MANIFESTS "/record-0000000000000006"};
    for (size_t i = 0; i < ARRAY_LENGTH(gone); i++) {
        struct volume_world w;
        struct generation generation;
        struct object_id a = begin_world(&w);
        lose(&w, gone[i]);
        volume_world_fill(w.v, a, 0, 100000, 10);
        ck_assert_int_eq(volume_world_try_close(&w), -EBADMSG);
        volume_world_open(&w);
        volume_world_expect(w.v, a, 0, 100000, 10);
        volume_world_fill(w.v, a, 0, 100000, 11);
        ck_assert_int_eq(
            volume_world_checkpoint(w.v, VOLUME_CHECKPOINT_PUBLISH, &generation), -EBADMSG);
        ck_assert(is_damaged(w.v));
        find_again(&w, gone[i]);
        volume_world_publish(w.v);
        ck_assert(!is_damaged(w.v));
        expect_elsewhere(&w, 11);
        volume_world_free(&w);
    }
}
END_TEST

START_TEST(a_catalog_that_is_gone_is_written_anew)
{
    struct volume_world w;
    static char names[64][NAME_BYTES];
    struct object_id a = begin_world(&w);
    lose(&w, MANIFESTS "/catalog-0000000000000003");
    volume_world_fill(w.v, a, 0, 100000, 10);
    volume_world_publish(w.v);
    ck_assert(!is_damaged(w.v));
    size_t count = list(&w, MANIFESTS, names, ARRAY_LENGTH(names));
    bool found = false;
    for (size_t i = 0; i < count; i++)
        found |= strcmp(names[i], "catalog-0000000000000007") == 0;
    ck_assert(found);
    expect_elsewhere(&w, 10);
    volume_world_free(&w);
}
END_TEST

START_TEST(looking_costs_one_request_a_publication)
{
    struct volume_world w;
    struct volume_status before;
    struct volume_status after;
    struct object_id a = begin_world(&w);
    for (uint64_t i = 0; i < 2; i++) {
        struct asker x = {.w = &w};
        bool asks = i == 1;
        volume_status(w.v, &before);
        volume_world_fill(w.v, a, 0, 100000, 10 + i);
        checkpoint_request(w.v->checkpoint,
            CHECKPOINT_REQUEST_PUBLISH | (asks ? CHECKPOINT_REQUEST_ASK_STORE : 0), note_answer,
            &x);
        wait_for_answer(&x);
        ck_assert_int_eq(x.result, 0);
        volume_status(w.v, &after);
        const struct metrics *b = &before.metrics;
        const struct metrics *m = &after.metrics;
        ck_assert_uint_eq(m->put_requests - b->put_requests, 2);
        ck_assert_uint_eq(m->get_requests - b->get_requests, 1);
        ck_assert_uint_eq(m->list_requests - b->list_requests, asks);
        ck_assert_uint_eq(m->head_requests - b->head_requests, asks ? 3 : 0);
    }
    volume_world_free(&w);
}
END_TEST

int
main(void)
{
    Suite *s = suite_create("volume_publish");
#define ADD(test) unit_add(s, #test, test, 120)
    ADD(a_generation_keeps_its_id_when_the_next_one_is_begun);
    ADD(a_taken_over_writer_is_told_so_also_when_it_has_nothing_new);
    ADD(what_is_published_stays_so_while_the_store_is_away);
    ADD(an_attempt_that_began_before_is_not_the_answer);
    ADD(nothing_is_published_on_top_of_what_is_gone);
    ADD(nothing_is_published_on_top_of_what_another_record_says);
    ADD(a_root_opens_when_the_bucket_has_lost_its_records);
    ADD(a_catalog_that_is_gone_is_written_anew);
    ADD(looking_costs_one_request_a_publication);
#undef ADD
    return unit_run(s);
}
