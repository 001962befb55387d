// SPDX-License-Identifier: Apache-2.0
// Two roots that want one volume: who may write, who finds out, and what becomes of what was not
// published.
#include "volume_world.h"

#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "platform/clock.h"
#include "platform/file.h"
#include "platform/memory.h"
#include "platform/path.h"
#include "volume/volume_internal.h"

// Another root of the same store.
static struct volume_world
other_root(const struct volume_world *w)
{
    struct volume_world other;
    volume_world_join(&other, w->directory);
    volume_world_set_root(&other, "other");
    other.config.lease_ttl_ms = w->config.lease_ttl_ms;
    return other;
}

static void
make_a(struct volume *v)
{
    volume_world_fill(v, volume_world_make_file(v, "a"), 0, 10000, 1);
}

static void
make_and_publish_a(struct volume *v)
{
    make_a(v);
    volume_world_publish(v);
}

static void
write_a_in_place(struct volume *v)
{
    struct object_id a = volume_world_find(v, "a");
    CLEANUP(memory_free_auto) uint8_t *bytes = memory_alloc_zero(4096);
    ck_assert_int_eq(volume_write(v, a, 0, bytes, 4096, VOLUME_WRITE_KEEP_TIMES), 0);
}

static void
do_nothing(struct volume *v UNUSED)
{
}

START_TEST(a_taken_over_writer_finds_out_and_stops)
{
    struct volume_world w;
    volume_world_new(&w);
    volume_world_open(&w);
    make_and_publish_a(w.v);
    struct volume_world other = other_root(&w);
    volume_world_open_fails(&other, -EBUSY);
    other.config.takeover = true;
    volume_world_open(&other);
    volume_world_expect(other.v, volume_world_find(other.v, "a"), 0, 10000, 1);
    volume_world_fill(other.v, volume_world_make_file(other.v, "b"), 0, 10000, 2);
    volume_world_publish(other.v);
    // The first one goes on until it wants to publish.
    volume_world_fill(w.v, volume_world_make_file(w.v, "c"), 0, 10000, 3);
    struct generation generation;
    ck_assert_int_eq(volume_world_checkpoint(w.v, VOLUME_CHECKPOINT_PUBLISH, &generation), -ESTALE);
    struct volume_status status;
    volume_status(w.v, &status);
    ck_assert(status.metrics.fenced && status.metrics.read_only);
    ck_assert_ptr_nonnull(strstr(status.read_only_reason, "fenced"));
    struct object_id c = volume_world_find(w.v, "c");
    ck_assert_int_eq(volume_write(w.v, c, 0, (const uint8_t *)"x", 1, 0), -EROFS);
    volume_world_expect(w.v, c, 0, 10000, 3);
    ck_assert_int_eq(volume_world_try_close(&w), -ESTALE);
    // What it had not published is not thrown away unasked.
    volume_world_open_fails(&w, -EBUSY);
    w.config.discard_unpublished = true;
    volume_world_open_fails(&w, -EBUSY); // the other one is alive
    volume_world_close(&other);
    volume_world_open(&w);
    volume_world_expect(w.v, volume_world_find(w.v, "b"), 0, 10000, 2);
    struct volume_attributes a;
    ck_assert_int_eq(volume_lookup(w.v, OBJECT_ROOT_DIRECTORY, "c", &a), -ENOENT);
    volume_world_leave(&other);
    volume_world_free(&w);
}
END_TEST

static void
take_over_with(const char *script)
{
    struct volume_world w;
    struct generation generation;
    volume_world_new(&w);
    volume_world_script_faults(&w);
    volume_world_open(&w);
    make_and_publish_a(w.v);
    struct volume_world other = other_root(&w);
    other.config.takeover = true;
    other.config.create = false; // its first change in the store is the claim
    volume_world_set_faults(&w, script);
    volume_world_open(&other);
    volume_world_set_faults(&w, "");
    // The mount itself has not claimed. The publisher may have done it by now: ask the mount.
    ck_assert(!other.v->own.claimed);
    volume_world_fill(other.v, volume_world_make_file(other.v, "b"), 0, 10000, 2);
    volume_world_publish(other.v);
    ck_assert_int_eq(volume_world_checkpoint(w.v, VOLUME_CHECKPOINT_PUBLISH, &generation), -ESTALE);
    ck_assert_int_eq(volume_world_try_close(&w), -ESTALE);
    volume_world_close(&other);
    volume_world_leave(&other);
    w.config.takeover = true;
    volume_world_lose_root(&w);
    volume_world_open(&w);
    volume_world_expect(w.v, volume_world_find(w.v, "b"), 0, 10000, 2);
    volume_world_free(&w);
}

// The store fails the claim, before or after it has carried it out.
START_TEST(a_takeover_that_the_store_held_up_happens_when_it_is_back)
{
    take_over_with("refuse 1\n");
    take_over_with("lose 1\n");
}
END_TEST

START_TEST(a_root_that_has_published_everything_follows_another)
{
    struct volume_world w;
    volume_world_new(&w);
    volume_world_open(&w);
    make_a(w.v);
    volume_world_close(&w);
    struct volume_world other = other_root(&w);
    for (uint64_t round = 0; round < 3; round++) {
        volume_world_open(&other);
        volume_world_fill(other.v, volume_world_find(other.v, "a"), 5000, 10000, round);
        volume_world_close(&other);
        volume_world_open(&w);
        volume_world_expect(w.v, volume_world_find(w.v, "a"), 5000, 10000, round);
        volume_world_fill(w.v, volume_world_find(w.v, "a"), 0, 100, round + 7);
        volume_world_close(&w);
        volume_world_check(&w);
        volume_world_check(&other);
    }
    volume_world_leave(&other);
    volume_world_free(&w);
}
END_TEST

static void
refuses_after_takeover(struct volume_world *w)
{
    struct volume_world other = other_root(w);
    other.config.takeover = true;
    volume_world_open(&other);
    volume_world_make_file(other.v, "of the other one");
    volume_world_close(&other);
    volume_world_leave(&other);
    volume_world_open_fails(w, -EBUSY);
    w->config.discard_unpublished = true;
    volume_world_open(w);
    volume_world_find(w->v, "of the other one");
    volume_world_free(w);
}

START_TEST(data_that_is_only_in_the_log_is_not_thrown_away_unasked)
{
    struct volume_world w;
    volume_world_new(&w);
    volume_world_open(&w);
    make_a(w.v);
    volume_world_close(&w);
    volume_world_die_after(&w, write_a_in_place);
    refuses_after_takeover(&w);
}
END_TEST

START_TEST(the_first_changes_of_a_volume_are_not_thrown_away_unasked)
{
    struct volume_world w;
    volume_world_new(&w);
    volume_world_die_after(&w, make_a);
    refuses_after_takeover(&w);
}
END_TEST

START_TEST(a_root_that_never_changed_anything_follows_without_asking)
{
    struct volume_world w;
    volume_world_new(&w);
    volume_world_die_after(&w, do_nothing);
    struct volume_world other = other_root(&w);
    other.config.takeover = true;
    volume_world_open(&other);
    make_a(other.v);
    volume_world_close(&other);
    volume_world_leave(&other);
    volume_world_open(&w);
    volume_world_find(w.v, "a");
    volume_world_free(&w);
}
END_TEST

START_TEST(a_dead_writers_lease_runs_out)
{
    struct volume_world w;
    volume_world_new(&w);
    w.config.lease_ttl_ms = 3600000; // the test keeps the time
    volume_world_die_after(&w, make_and_publish_a);
    struct volume_world other = other_root(&w);
    volume_world_open_fails(&other, -EBUSY);
    ck_assert_uint_gt(volume_world_age_objects(&w, "manifests/acme/1", 3000), 0);
    volume_world_open_fails(&other, -EBUSY);
    ck_assert_uint_gt(volume_world_age_objects(&w, "manifests/acme/1", 3700), 0);
    volume_world_open(&other);
    volume_world_expect(other.v, volume_world_find(other.v, "a"), 0, 10000, 1);
    volume_world_close(&other);
    volume_world_leave(&other);
    volume_world_free(&w);
}
END_TEST

// What the lease of the first epoch says.
static bool
lease_says(const struct volume_world *w, const char *text)
{
    BUFFER_AUTO lease = {0};
    CLEANUP(memory_free_auto)
    char *path = memory_printf("%s/store/manifests/acme/1/lease-0000000000000001", w->directory);
    ck_assert_int_eq(file_read_whole(path, 1024, &lease), 0);
    return strstr(buffer_string(&lease), text) != NULL;
}

START_TEST(an_idle_writer_that_was_taken_over_finds_out_when_it_writes)
{
    struct volume_world w;
    volume_world_new(&w);
    w.config.lease_ttl_ms = 3000;
    volume_world_open(&w);
    make_and_publish_a(w.v);
    uint64_t deadline = clock_monotonic_ms() + 60000;
    while (!lease_says(&w, "ttl_ms 3600000")) {
        ck_assert_uint_lt(clock_monotonic_ms(), deadline);
        clock_sleep_ms(20);
    }
    struct volume_world other = other_root(&w);
    volume_world_open_fails(&other, -EBUSY);
    other.config.takeover = true;
    volume_world_open(&other);
    write_a_in_place(w.v);
    struct volume_status status;
    do {
        clock_sleep_ms(20);
        volume_status(w.v, &status);
        ck_assert_uint_lt(clock_monotonic_ms(), deadline);
    } while (!status.metrics.fenced);
    ck_assert(status.metrics.read_only);
    volume_world_leave(&other);
    ck_assert_int_eq(volume_world_try_close(&w), -ESTALE);
    volume_world_free(&w);
}
END_TEST

START_TEST(a_writers_own_root_needs_no_patience)
{
    struct volume_world w;
    volume_world_new(&w);
    volume_world_die_after(&w, make_and_publish_a);
    for (int i = 0; i < 3; i++) {
        volume_world_die_after(&w, write_a_in_place);
        volume_world_open(&w);
        uint8_t byte = 1;
        ck_assert_int_eq(volume_read(w.v, volume_world_find(w.v, "a"), 5, 1, &byte, NULL), 1);
        ck_assert_uint_eq(byte, 0);
        volume_world_close(&w);
        volume_world_check(&w);
    }
    volume_world_free(&w);
}
END_TEST

// ---- a bucket that is destroyed under a writer --------------------------------------------------

static const struct remote_store_ops *true_ops;
static struct remote_store_ops false_ops;
static char *bucket;

// Everything goes between the writer's last look and the creation of its record.
static int
destroy_and_put(struct remote_store *s, const char *key, const struct remote_source *source,
    enum remote_put_mode mode, const struct remote_call *call)
{
    if (bucket && mode == REMOTE_PUT_CREATE && strstr(key, "/record-")) {
        CLEANUP(memory_free_auto) char *manifests = memory_printf("%s/manifests", bucket);
        ck_assert_int_eq(path_remove_tree(manifests), 0);
        bucket = NULL;
    }
    return true_ops->put_blob(s, key, source, mode, call);
}

START_TEST(a_stalled_writer_publishes_nothing_into_a_destroyed_bucket)
{
    struct volume_world w;
    struct remote_head head;
    volume_world_new(&w);
    w.config.lease_ttl_ms = 3600000; // the housekeeping thread does not renew it meanwhile
    volume_world_open(&w);
    make_and_publish_a(w.v);
    true_ops = w.v->remote->ops;
    false_ops = *true_ops;
    false_ops.put_blob = destroy_and_put;
    w.v->remote->ops = &false_ops;
    CLEANUP(memory_free_auto) char *store = memory_printf("%s/store", w.directory);
    bucket = store;
    write_a_in_place(w.v);
    checkpoint_note_lease(w.v->checkpoint, 0);
    ck_assert_int_eq(
        volume_world_checkpoint(w.v, VOLUME_CHECKPOINT_PUBLISH, &(struct generation){0}), -EIDRM);
    ck_assert_ptr_null(bucket);
    ck_assert_int_eq(remote_store_head_blob(
                         w.v->remote, "manifests/acme/1/record-0000000000000004", &head, NULL),
        -ENOENT);
    w.v->remote->ops = true_ops;
    int ignored UNUSED = volume_world_try_close(&w);
    volume_world_free(&w);
}
END_TEST

int
main(void)
{
    Suite *s = suite_create("volume_fencing");
#define ADD(test) unit_add(s, #test, test, 120)
    ADD(a_taken_over_writer_finds_out_and_stops);
    ADD(a_takeover_that_the_store_held_up_happens_when_it_is_back);
    ADD(a_root_that_has_published_everything_follows_another);
    ADD(data_that_is_only_in_the_log_is_not_thrown_away_unasked);
    ADD(the_first_changes_of_a_volume_are_not_thrown_away_unasked);
    ADD(a_root_that_never_changed_anything_follows_without_asking);
    ADD(a_dead_writers_lease_runs_out);
    ADD(an_idle_writer_that_was_taken_over_finds_out_when_it_writes);
    ADD(a_writers_own_root_needs_no_patience);
    ADD(a_stalled_writer_publishes_nothing_into_a_destroyed_bucket);
#undef ADD
    return unit_run(s);
}
