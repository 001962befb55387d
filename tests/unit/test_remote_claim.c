// SPDX-License-Identifier: Apache-2.0
// Ownership: claims, leases, takeover, and who finds out.
#include "remote_world.h"

#include <inttypes.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "base/checksum.h"
#include "platform/clock.h"
#include "platform/memory.h"
#include "platform/random.h"
#include "platform/thread.h"

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

// Makes an object of the bucket look as if it had been written `ms` ago.
static void
set_age(const char *kind, uint64_t number, int64_t ms)
{
    int64_t then = (int64_t)clock_wall_ms() - ms;
    struct timespec t = {then / 1000, then % 1000 * 1000000};
    struct timespec times[2] = {t, t};
    char *path = world_path(&world, kind, number);
    ck_assert_int_eq(utimensat(AT_FDCWD, path, times, 0), 0);
    free(path);
}

static struct remote_catch_up
catch_up(struct root *r)
{
    struct remote_catch_up found;
    ck_assert_int_eq(remote_manifest_catch_up(&r->place, r->m, &r->db, &found), 0);
    return found;
}

START_TEST(claim_opens_an_epoch)
{
    struct remote_lease lease;
    root_begin(&one);
    ck_assert_uint_eq(one.db.epoch, 1);
    ck_assert_uint_eq(one.db.remote_sequence, 2);
    ck_assert_int_eq(remote_lease_read(&one.place, 1, &lease), 0);
    ck_assert(uuid_equal(&lease.writer, &one.place.writer));
    ck_assert_uint_eq(lease.epoch, 1);
    ck_assert_uint_eq(lease.ttl_ms, WORLD_TTL_MS);
    ck_assert(!lease.released);
    ck_assert_uint_gt(strlen(lease.host), 0);
    ck_assert_uint_lt(lease.age_ms, WORLD_TTL_MS);
    ck_assert_int_eq(remote_lease_read(&one.place, 2, &lease), -ENOENT);
    // Its own lease keeps nobody away from coming back.
    ck_assert_int_eq(root_claim(&one, false, NULL), 0);
    ck_assert_uint_eq(one.db.epoch, 2);
    ck_assert_uint_eq(one.db.remote_sequence, 3);
    root_fold(&one, 0);
    ck_assert_int_eq(root_publish(&one), 0);
    ck_assert(!catch_up(&one).foreign);
}
END_TEST

static void
set_identity(struct root *r, const struct uuid *volume, const struct uuid *name_key)
{
    struct manifest_batch *b = manifest_batch_new(r->db.id);
    manifest_batch_identity(b, volume, name_key);
    ck_assert_int_eq(manifest_submit(r->m, b, NULL), 0);
}

START_TEST(a_manifest_that_contradicts_the_chain_claims_nothing)
{
    struct uuid other = random_uuid();
    const char *what;
    root_begin(&one);
    root_fold(&one, 0);
    ck_assert_int_eq(root_publish(&one), 0);
    ck_assert_int_eq(remote_manifest_is_contradicted(&one.place, &one.db, &what), 0);
    struct uuid volume = one.db.volume, name_key = one.db.name_key;
    size_t records = world_count(&world, "record-"), leases = world_count(&world, "lease-");
    for (int i = 0; i < 2; i++) {
        set_identity(&one, i ? &other : &volume, i ? &name_key : &other);
        ck_assert_int_eq(root_claim(&one, true, NULL), -EBADMSG);
        ck_assert_int_eq(remote_manifest_is_contradicted(&one.place, &one.db, &what), 1);
        ck_assert_str_eq(what, i ? "the volume" : "the key of the names");
    }
    ck_assert_uint_eq(world_count(&world, "record-"), records);
    ck_assert_uint_eq(world_count(&world, "lease-"), leases);
    // A bucket that has another record there is no fault of the manifest.
    set_identity(&one, &volume, &name_key);
    ck_assert_int_eq(root_claim(&one, true, NULL), 0);
    one.db.remote_hash.b[0] ^= 1;
    ck_assert_int_eq(remote_manifest_is_contradicted(&one.place, &one.db, &what), -EBADMSG);
}
END_TEST

START_TEST(lease_text_can_be_read_by_people)
{
    BUFFER_AUTO text = {0};
    char expected[400], writer[37], host[64] = "";
    root_begin(&one);
    ck_assert_int_eq(remote_lease_write(&one.place, 1, 12345, true), 0);
    world_read(&world, "lease-", 1, &text);
    uuid_to_string(&one.place.writer, writer);
    ck_assert_int_eq(gethostname(host, 63), 0);
    snprintf(expected, sizeof(expected),
        "ckptfs lease 1\nwriter %s\nhost %s\nepoch 1\nttl_ms 12345\nreleased yes\n", writer, host);
    ck_assert_str_eq(buffer_string(&text), expected);
    struct remote_lease lease;
    ck_assert_int_eq(remote_lease_read(&two.place, 1, &lease), 0);
    ck_assert(lease.released);
    ck_assert_uint_eq(lease.ttl_ms, 12345);
}
END_TEST

START_TEST(fresh_lease_keeps_others_away)
{
    struct remote_lease lease;
    root_begin(&one);
    root_import(&two);
    ck_assert_int_eq(root_claim(&two, false, &lease), -EBUSY);
    ck_assert(uuid_equal(&lease.writer, &one.place.writer));
    ck_assert_uint_eq(lease.epoch, 1);
    ck_assert_uint_eq(two.db.epoch, 0);
    ck_assert_uint_eq(two.db.remote_sequence, 2);
    // Almost old, then renewed, then really old.
    set_age("lease-", 1, WORLD_TTL_MS - 5000);
    ck_assert_int_eq(root_claim(&two, false, &lease), -EBUSY);
    ck_assert_uint_ge(lease.age_ms, WORLD_TTL_MS - 5000);
    set_age("lease-", 1, WORLD_TTL_MS + 1000);
    ck_assert_int_eq(remote_lease_write(&one.place, 1, WORLD_TTL_MS, false), 0);
    ck_assert_int_eq(root_claim(&two, false, &lease), -EBUSY);
    set_age("lease-", 1, WORLD_TTL_MS + 1000);
    ck_assert_int_eq(root_claim(&two, false, &lease), 0);
    ck_assert_uint_eq(two.db.epoch, 2);
    ck_assert(catch_up(&one).foreign);
}
END_TEST

START_TEST(released_lease_lets_others_in)
{
    root_begin(&one);
    root_import(&two);
    ck_assert_int_eq(remote_lease_write(&one.place, 1, WORLD_TTL_MS, true), 0);
    ck_assert_int_eq(root_claim(&two, false, NULL), 0);
    ck_assert_uint_eq(two.db.epoch, 2);
}
END_TEST

START_TEST(lease_from_the_future_is_fresh)
{
    struct remote_lease lease;
    root_begin(&one);
    root_import(&two);
    set_age("lease-", 1, -3600 * 1000);
    ck_assert_int_eq(root_claim(&two, false, &lease), -EBUSY);
    ck_assert_uint_eq(lease.age_ms, 0);
    ck_assert_int_eq(root_claim(&two, true, &lease), 0);
}
END_TEST

// Later versions may say more: whoever does not know it believes the rest.
START_TEST(lines_of_a_lease_that_are_not_known_are_passed_over)
{
    char writer[37];
    struct remote_lease lease;
    root_begin(&one);
    root_import(&two);
    uuid_to_string(&one.place.writer, writer);
    static const char *const forms[][3] = {
        {"boot 7 x\n", "", ""},
        {"", "", "new_thing \n"},
        {"", "a b\nc d\n", "e f\n"},
    };
    for (size_t i = 0; i < ARRAY_LENGTH(forms); i++) {
        BUFFER_AUTO body = {0};
        buffer_printf(&body,
            "ckptfs lease 1\n%swriter %s\nhost h\nepoch 1\n%sttl_ms 12345\nreleased yes\n%s",
            forms[i][0], writer, forms[i][1], forms[i][2]);
        world_write(&world, "lease-", 1, body.data, body.length);
        ck_assert_int_eq(remote_lease_read(&two.place, 1, &lease), 0);
        ck_assert(lease.released && lease.ttl_ms == 12345);
        ck_assert_str_eq(lease.host, "h");
    }
}
END_TEST

START_TEST(unreadable_lease_counts_as_alive_until_it_is_old)
{
    static const char *const bodies[] = {
        "",
        "\n",
        "ckptfs lease 2\n",
        "ckptfs lease 1",
        "ckptfs lease 1\nwriter x\nhost h\nepoch 1\nttl_ms 1\nreleased yes\n",
        // Cut, too long, not numbers, another epoch, not said to be released.
        "ckptfs lease 1\nwriter 0f8fad5b-d9cb-469f-a165-70867728950e\nhost h\nepoch 1\nttl_ms 1\n",
        "ckptfs lease 1\nwriter 0f8fad5b-d9cb-469f-a165-70867728950e\nhost h\nepoch 1\nttl_ms "
        "1\nreleased yes\nmore\n",
        "ckptfs lease 1\nwriter 0f8fad5b-d9cb-469f-a165-70867728950e\nhost h\nepoch 1\nttl_ms "
        "-1\nreleased yes\n",
        "ckptfs lease 1\nwriter 0f8fad5b-d9cb-469f-a165-70867728950e\nhost h\nepoch 1\nttl_ms "
        "18446744073709551616\nreleased yes\n",
        "ckptfs lease 1\nwriter 0f8fad5b-d9cb-469f-a165-70867728950e\nhost h\nepoch 2\nttl_ms "
        "1\nreleased yes\n",
        "ckptfs lease 1\nwriter 0f8fad5b-d9cb-469f-a165-70867728950e\nhost h h\nepoch 1\nttl_ms "
        "1\nreleased yes\n",
        "ckptfs lease 1\nwriter 0f8fad5b-d9cb-469f-a165-70867728950e\nhost h\nepoch 1\nttl_ms "
        "1\nreleased maybe\n",
        // All well, but not the owner's.
        "ckptfs lease 1\nwriter 0f8fad5b-d9cb-469f-a165-70867728950e\nhost h\nepoch 1\nttl_ms "
        "1\nreleased yes\n",
    };
    struct remote_lease lease;
    root_begin(&one);
    root_import(&two);
    for (size_t i = 0; i < ARRAY_LENGTH(bodies); i++) {
        world_write(&world, "lease-", 1, bodies[i], strlen(bodies[i]));
        ck_assert_int_eq(root_claim(&two, false, &lease), -EBUSY);
        ck_assert(uuid_equal(&lease.writer, &one.place.writer));
        ck_assert_uint_gt(strlen(lease.host), 1);
    }
    char *large = memory_alloc_zero(1 << 20);
    memset(large, 'x', 1 << 20);
    world_write(&world, "lease-", 1, large, 1 << 20);
    ck_assert_int_eq(root_claim(&two, false, &lease), -EBUSY);
    for (int i = 0; i < 200; i++) {
        random_bytes(large, 300);
        world_write(&world, "lease-", 1, large, random_u64() % 300);
        ck_assert_int_eq(remote_lease_read(&two.place, 1, &lease), 0);
        ck_assert(!lease.released);
    }
    free(large);
    set_age("lease-", 1, 61000);
    ck_assert_int_eq(root_claim(&two, false, &lease), 0);
}
END_TEST

START_TEST(missing_lease_counts_from_the_record)
{
    struct remote_lease lease;
    root_begin(&one);
    root_import(&two);
    char *path = world_path(&world, "lease-", 1);
    ck_assert_int_eq(unlink(path), 0);
    free(path);
    ck_assert_int_eq(root_claim(&two, false, &lease), -EBUSY);
    ck_assert(uuid_equal(&lease.writer, &one.place.writer));
    set_age("record-", 2, 61000);
    ck_assert_int_eq(root_claim(&two, false, &lease), 0);
}
END_TEST

// ---- a server whose clock differs, and one at which another record comes first
// -------------------

struct skewed_store {
    struct remote_store base;
    struct remote_store *inner;
    struct remote_store_ops ops;
    int64_t skew_ms;
    const struct buffer *late; // what is created in the place of the next record
    const char *hidden;        // keys with this in them are missing in listings
};

static struct remote_store *
inner_of(struct remote_store *s)
{
    return CONTAINER_OF(s, struct skewed_store, base)->inner;
}

static int
skewed_put(struct remote_store *s, const char *key, const struct remote_source *source,
    enum remote_put_mode mode, const struct remote_call *call)
{
    const struct buffer *late = CONTAINER_OF(s, struct skewed_store, base)->late;
    if (late && strstr(key, "/record-")) {
        struct remote_source other = {.data = late->data, .length = late->length};
        sha256_of(late->data, late->length, &other.hash);
        ck_assert_int_eq(
            remote_store_put_blob(inner_of(s), key, &other, REMOTE_PUT_CREATE, NULL), 0);
    }
    return remote_store_put_blob(inner_of(s), key, source, mode, call);
}

static int
skewed_get(struct remote_store *s, const char *key, uint64_t offset, uint64_t length,
    struct buffer *out, const struct remote_call *call)
{
    return remote_store_get_blob(inner_of(s), key, offset, length, out, call);
}

static int
skewed_head(struct remote_store *s, const char *key, struct remote_head *head_out,
    const struct remote_call *call)
{
    int rc = remote_store_head_blob(inner_of(s), key, head_out, call);
    int64_t skew = CONTAINER_OF(s, struct skewed_store, base)->skew_ms;
    head_out->clock_skew_ms = skew;
    head_out->modified_ms += (uint64_t)skew;
    return rc;
}

static int
skewed_list(struct remote_store *s, const char *prefix, const char *after, size_t limit,
    struct remote_listing *out, const struct remote_call *call)
{
    const char *hidden = CONTAINER_OF(s, struct skewed_store, base)->hidden;
    int rc = remote_store_list_blobs(inner_of(s), prefix, after, limit, out, call);
    size_t kept = 0;
    for (size_t i = 0; i < out->count; i++)
        if (hidden && strstr(out->entries[i].key, hidden))
            free(out->entries[i].key);
        else
            out->entries[kept++] = out->entries[i];
    out->count = kept;
    return rc;
}

static void
skewed_open(struct skewed_store *skewed)
{
    *skewed = (struct skewed_store){
        .inner = world.store,
        .ops = {.put_blob = skewed_put,
            .get_blob = skewed_get,
            .head_blob = skewed_head,
            .list_blobs = skewed_list},
    };
    skewed->base.ops = &skewed->ops;
}

START_TEST(age_of_a_lease_is_told_by_the_servers_clock)
{
    struct remote_lease lease;
    struct skewed_store skewed;
    skewed_open(&skewed);
    root_begin(&one);
    root_import(&two);
    two.place.store = &skewed.base;
    for (int sign = -1; sign <= 1; sign += 2) {
        skewed.skew_ms = sign * 3600 * 1000;
        set_age("lease-", 1, 0);
        ck_assert_int_eq(root_claim(&two, false, &lease), -EBUSY);
        ck_assert_uint_lt(lease.age_ms, 10000);
        set_age("lease-", 1, 20000);
        ck_assert_int_eq(root_claim(&two, false, &lease), -EBUSY);
        ck_assert_uint_ge(lease.age_ms, 20000);
    }
    set_age("lease-", 1, WORLD_TTL_MS + 1000);
    ck_assert_int_eq(root_claim(&two, false, &lease), 0);
}
END_TEST

// ---- fencing ------------------------------------------------------------------------------------

START_TEST(takeover_fences_the_old_owner)
{
    root_begin(&one);
    root_fold(&one, 0);
    ck_assert_int_eq(root_publish(&one), 0);
    root_import(&two);
    root_fold(&one, 0);
    ck_assert_int_eq(root_claim(&two, true, NULL), 0);
    ck_assert_int_eq(remote_manifest_is_followed(&one.place, one.db.remote_sequence), 1);
    ck_assert_int_eq(remote_manifest_is_followed(&two.place, two.db.remote_sequence), 0);
    ck_assert_int_eq(root_publish(&one), -ESTALE);
    struct db_record before = one.db;
    struct remote_catch_up found = catch_up(&one);
    ck_assert(found.foreign);
    ck_assert_uint_eq(found.foreign_epoch, 2);
    ck_assert_uint_gt(strlen(found.foreign_host), 0);
    ck_assert_uint_eq(found.rolled_forward, 0);
    ck_assert_uint_eq(one.db.remote_sequence, before.remote_sequence);
    ck_assert_uint_eq(one.db.epoch, before.epoch);
    ck_assert_int_eq(root_claim(&one, true, NULL), -ESTALE);
    // The new owner goes on; the old one can only begin anew from what the bucket holds.
    root_fold(&two, 0);
    ck_assert_int_eq(root_publish(&two), 0);
    BUFFER_AUTO dump = {0};
    root_dump(two.m, two.db.id, &dump);
    root_import(&one);
    root_assert_equal(&one, &dump);
    ck_assert_int_eq(root_claim(&one, false, NULL), -EBUSY);
    ck_assert_int_eq(root_claim(&one, true, NULL), 0);
    ck_assert_uint_eq(one.db.epoch, 3);
    ck_assert_int_eq(root_publish(&two), -EALREADY);
    ck_assert(catch_up(&two).foreign);
}
END_TEST

START_TEST(publication_and_takeover_cannot_both_win)
{
    root_begin(&one);
    root_import(&two);
    root_fold(&one, 0);
    ck_assert_int_eq(root_publish(&one), 0);
    ck_assert_int_eq(root_claim(&two, true, NULL), -ESTALE);
    ck_assert_uint_eq(two.db.epoch, 0);
    ck_assert(catch_up(&two).foreign);
    root_import(&two);
    ck_assert_int_eq(root_claim(&two, true, NULL), 0);
}
END_TEST

struct racer {
    struct root *root;
    pthread_barrier_t *barrier;
    int rc;
};

static void
race(void *argument)
{
    struct racer *racer = argument;
    struct remote_lease lease;
    pthread_barrier_wait(racer->barrier);
    racer->rc = remote_manifest_claim(
        &racer->root->place, racer->root->m, &racer->root->db, WORLD_TTL_MS, true, &lease);
}

START_TEST(one_of_two_racing_claims_wins)
{
    pthread_barrier_t barrier;
    ck_assert_int_eq(pthread_barrier_init(&barrier, NULL, 2), 0);
    root_begin(&one);
    for (uint64_t round = 0; round < 40; round++) {
        root_import(&one);
        root_import(&two);
        struct racer racers[2] = {{&one, &barrier, 1}, {&two, &barrier, 1}};
        struct thread threads[2];
        for (int i = 0; i < 2; i++)
            ck_assert_int_eq(thread_start(&threads[i], "racer", race, &racers[i]), 0);
        for (int i = 0; i < 2; i++)
            thread_join(&threads[i]);
        int winner = racers[0].rc == 0 ? 0 : 1;
        ck_assert_int_eq(racers[winner].rc, 0);
        ck_assert_int_eq(racers[!winner].rc, -ESTALE);
        ck_assert_uint_eq(racers[winner].root->db.epoch, 2 + round);
        ck_assert(!catch_up(racers[winner].root).foreign);
        ck_assert(catch_up(racers[!winner].root).foreign);
        ck_assert_uint_eq(world_count(&world, "record-"), 3 + round);
    }
    ck_assert_int_eq(pthread_barrier_destroy(&barrier), 0);
}
END_TEST

struct publisher {
    struct root *root;
    pthread_barrier_t *barrier;
    int rc;
};

static void
publish_in_thread(void *argument)
{
    struct publisher *p = argument;
    pthread_barrier_wait(p->barrier);
    p->rc = root_publish(p->root);
}

START_TEST(publication_races_takeover_and_one_wins)
{
    pthread_barrier_t barrier;
    ck_assert_int_eq(pthread_barrier_init(&barrier, NULL, 2), 0);
    root_begin(&one);
    struct root *owner = &one, *other = &two;
    for (uint64_t round = 0; round < 20; round++) {
        root_import(other);
        root_fold(owner, 0);
        struct publisher publisher = {owner, &barrier, 1};
        struct racer racer = {other, &barrier, 1};
        struct thread threads[2];
        ck_assert_int_eq(thread_start(&threads[0], "publisher", publish_in_thread, &publisher), 0);
        ck_assert_int_eq(thread_start(&threads[1], "racer", race, &racer), 0);
        thread_join(&threads[0]);
        thread_join(&threads[1]);
        ck_assert_int_eq((publisher.rc == 0) + (racer.rc == 0), 1);
        ck_assert_int_eq(publisher.rc == 0 ? racer.rc : publisher.rc, -ESTALE);
        if (racer.rc == 0) {
            ck_assert(catch_up(owner).foreign);
            struct root *loser = owner;
            owner = other;
            other = loser;
        }
    }
    BUFFER_AUTO dump = {0};
    root_dump(owner->m, owner->db.id, &dump);
    if (owner->db.local.v == owner->db.published.v) {
        root_import(other);
        root_assert_equal(other, &dump);
    }
    ck_assert_int_eq(pthread_barrier_destroy(&barrier), 0);
}
END_TEST

// ---- dying in the middle of a claim -------------------------------------------------------------

START_TEST(own_claim_whose_answer_was_lost_is_adopted)
{
    struct store_fault lost = {
        .verb = STORE_VERB_PUT, .kind = STORE_FAULT_SWALLOW, .nth = 1, .times = 1};
    root_begin(&one);
    root_fold(&one, 0);
    fault_store_add(world.faults, &lost);
    ck_assert_int_eq(root_claim(&one, false, NULL), -EAGAIN);
    ck_assert_uint_eq(one.db.remote_sequence, 2);
    ck_assert_int_eq(root_claim(&one, false, NULL), -ESTALE);
    struct remote_catch_up found = catch_up(&one);
    ck_assert(!found.foreign);
    ck_assert_uint_eq(one.db.epoch, 2);
    ck_assert_uint_eq(one.db.remote_sequence, 3);
    ck_assert_int_eq(root_claim(&one, false, NULL), 0);
    ck_assert_uint_eq(one.db.epoch, 3);
    ck_assert_int_eq(root_publish(&one), 0);
    root_import(&two);
}
END_TEST

START_TEST(older_claim_that_lands_late_is_ours)
{
    // A claim of unknown end, then another one at whose create the first one's record turns up.
    struct store_fault lost = {
        .verb = STORE_VERB_PUT, .kind = STORE_FAULT_SWALLOW, .nth = 1, .times = 1};
    struct skewed_store skewed;
    BUFFER_AUTO late = {0};
    root_begin(&one);
    fault_store_add(world.faults, &lost);
    ck_assert_int_eq(root_claim(&one, false, NULL), -EAGAIN);
    world_read(&world, "record-", 3, &late);
    char *path = world_path(&world, "record-", 3);
    ck_assert_int_eq(unlink(path), 0);
    free(path);
    skewed_open(&skewed);
    skewed.late = &late;
    one.place.store = &skewed.base;
    ck_assert_int_eq(root_claim(&one, false, NULL), -ESTALE);
    one.place.store = world.store;
    ck_assert(!catch_up(&one).foreign);
    ck_assert_uint_eq(one.db.epoch, 2);
    ck_assert_uint_eq(one.db.remote_sequence, 3);
    ck_assert_int_eq(root_claim(&one, false, NULL), 0);
}
END_TEST

START_TEST(claim_can_be_repeated_after_failing_at_any_request)
{
    root_begin(&one);
    root_fold(&one, 0);
    ck_assert_int_eq(root_publish(&one), 0);
    unsigned failed = 0;
    for (int kind = STORE_FAULT_FAIL; kind <= STORE_FAULT_SWALLOW; kind++) {
        for (uint64_t nth = 1;; nth++) {
            struct store_fault fault = {
                .kind = (enum store_fault_kind)kind, .nth = nth, .times = 1, .error = -EAGAIN};
            uint64_t calls = fault_store_calls(world.faults, STORE_VERB_ANY);
            uint64_t epoch = one.db.epoch;
            fault_store_add(world.faults, &fault);
            int rc = root_claim(&one, false, NULL);
            fault_store_clear(world.faults);
            if (fault_store_calls(world.faults, STORE_VERB_ANY) - calls < nth) {
                ck_assert_int_eq(rc, 0);
                break;
            }
            failed++;
            ck_assert_int_eq(rc, -EAGAIN);
            ck_assert(!catch_up(&one).foreign);
            ck_assert_int_eq(root_claim(&one, false, NULL), 0);
            ck_assert_uint_gt(one.db.epoch, epoch);
            root_fold(&one, 0);
            ck_assert_int_eq(root_publish(&one), 0);
        }
    }
    ck_assert_uint_ge(failed, 8);
    BUFFER_AUTO dump = {0};
    root_dump(one.m, one.db.id, &dump);
    root_import(&two);
    root_assert_equal(&two, &dump);
}
END_TEST

// Claims of another root in the way: every request of it fails once, none displaces the owner.
START_TEST(refused_claim_changes_nothing_at_any_failing_request)
{
    root_begin(&one);
    root_import(&two);
    for (uint64_t nth = 1; nth < 8; nth++) {
        struct store_fault fault = {
            .kind = STORE_FAULT_FAIL, .nth = nth, .times = 1, .error = -EAGAIN};
        fault_store_add(world.faults, &fault);
        int rc = root_claim(&two, false, NULL);
        fault_store_clear(world.faults);
        ck_assert(rc == -EAGAIN || rc == -EBUSY);
        ck_assert_uint_eq(world_count(&world, "record-"), 2);
        ck_assert_uint_eq(world_count(&world, "lease-"), 1);
    }
    ck_assert(!catch_up(&one).foreign);
}
END_TEST

// ---- storage roots that are copies or were set back ---------------------------------------------

static void
copy_file(const char *from, const char *to)
{
    BUFFER_AUTO bytes = {0};
    ck_assert_int_eq(file_read_whole(from, 1u << 30, &bytes), 0);
    ck_assert_int_eq(file_replace_whole(&file_ops_system, to, bytes.data, bytes.length, 0600), 0);
}

// `copy_out`: what somebody gets who copies the storage root and opens the copy.
static void
open_copy(struct root *r, const char *name, struct root *copy_out)
{
    char *to = memory_printf("%s/%s/manifest", world.directory, name);
    char *from = memory_printf("%s/manifest", r->directory);
    ck_assert_int_eq(path_make_directories(to, 0700), 0);
    DIR *d = opendir(from);
    ck_assert_ptr_nonnull(d);
    for (struct dirent *e; (e = readdir(d));) {
        char *a = memory_printf("%s/%s", from, e->d_name);
        char *b = memory_printf("%s/%s", to, e->d_name);
        struct stat st;
        ck_assert_int_eq(stat(a, &st), 0);
        if (S_ISREG(st.st_mode))
            copy_file(a, b);
        free(a);
        free(b);
    }
    closedir(d);
    free(from);
    free(to);
    root_open(copy_out, &world, name, r->salt);
    ck_assert_int_eq(manifest_find_db(copy_out->m, "main", "acme", 1, &copy_out->db), 0);
}

START_TEST(copy_of_a_root_does_not_take_the_originals_records_for_its_own)
{
    struct root clone;
    root_begin(&one);
    root_fold(&one, 0);
    ck_assert_int_eq(root_publish(&one), 0);
    open_copy(&one, "clone", &clone);
    ck_assert(uuid_equal(&clone.place.writer, &one.place.writer));
    // The original goes on: what it publishes is not in the copy.
    root_fold(&one, 0);
    ck_assert_int_eq(root_publish(&one), 0);
    ck_assert(catch_up(&clone).foreign);
    // A copy that is up to date claims, and the original notices.
    root_close(&clone);
    open_copy(&one, "clone2", &clone);
    ck_assert_int_eq(root_claim(&clone, false, NULL), 0);
    root_fold(&one, 0);
    ck_assert_int_eq(root_publish(&one), -ESTALE);
    ck_assert(catch_up(&one).foreign);
    root_close(&clone);
}
END_TEST

START_TEST(copies_that_race_do_not_both_win)
{
    struct root clone;
    pthread_barrier_t barrier;
    ck_assert_int_eq(pthread_barrier_init(&barrier, NULL, 2), 0);
    root_begin(&one);
    open_copy(&one, "clone", &clone);
    struct racer racers[2] = {{&one, &barrier, 1}, {&clone, &barrier, 1}};
    struct thread threads[2];
    for (int i = 0; i < 2; i++)
        ck_assert_int_eq(thread_start(&threads[i], "racer", race, &racers[i]), 0);
    for (int i = 0; i < 2; i++)
        thread_join(&threads[i]);
    int winner = racers[0].rc == 0 ? 0 : 1;
    ck_assert_int_eq(racers[winner].rc, 0);
    ck_assert_int_eq(racers[!winner].rc, -ESTALE);
    ck_assert(!catch_up(racers[winner].root).foreign);
    ck_assert(catch_up(racers[!winner].root).foreign);
    root_close(&clone);
    ck_assert_int_eq(pthread_barrier_destroy(&barrier), 0);
}
END_TEST

START_TEST(claim_of_a_copy_that_comes_first_is_foreign)
{
    // The same writer, the same epoch, the same place: and yet not this root's.
    struct root clone;
    struct skewed_store skewed;
    BUFFER_AUTO late = {0};
    root_begin(&one);
    open_copy(&one, "clone", &clone);
    ck_assert_int_eq(root_claim(&clone, false, NULL), 0);
    world_read(&world, "record-", 3, &late);
    char *path = world_path(&world, "record-", 3);
    ck_assert_int_eq(unlink(path), 0);
    free(path);
    skewed_open(&skewed);
    skewed.late = &late;
    one.place.store = &skewed.base;
    ck_assert_int_eq(root_claim(&one, false, NULL), -ESTALE);
    one.place.store = world.store;
    ck_assert_uint_eq(one.db.epoch, 1);
    ck_assert(catch_up(&one).foreign);
    ck_assert(!catch_up(&clone).foreign);
    root_close(&clone);
}
END_TEST

START_TEST(claim_notices_a_bucket_that_was_set_back)
{
    BUFFER_AUTO record = {0};
    BUFFER_AUTO older = {0};
    root_begin(&one);
    root_fold(&one, 0);
    ck_assert_int_eq(root_publish(&one), 0);
    world_read(&world, "record-", 3, &record);
    world_read(&world, "record-", 2, &older);
    char *path = world_path(&world, "record-", 3);
    ck_assert_int_eq(unlink(path), 0);
    free(path);
    ck_assert_int_eq(root_claim(&one, false, NULL), -EBADMSG);
    world_write(&world, "record-", 3, older.data, older.length);
    ck_assert_int_eq(root_claim(&one, false, NULL), -EBADMSG);
    for (size_t i = 0; i < record.length; i += 7) {
        record.data[i] ^= 0x10;
        world_write(&world, "record-", 3, record.data, record.length);
        ck_assert_int_eq(root_claim(&one, true, NULL), -EBADMSG);
        record.data[i] ^= 0x10;
    }
    world_write(&world, "record-", 3, record.data, record.length);
    ck_assert_int_eq(root_claim(&one, false, NULL), 0);
}
END_TEST

// ---- looking after the bucket -------------------------------------------------------------------

static void
remove_record(uint64_t number)
{
    char *path = world_path(&world, "record-", number);
    ck_assert_int_eq(unlink(path), 0);
    free(path);
}

START_TEST(what_a_listing_lacks_is_gone_only_when_it_cannot_be_had)
{
    static const uint64_t numbers[] = {1, 3, 5, 6};
    struct skewed_store skewed;
    bool lost;
    root_begin(&one);
    for (int i = 0; i < 4; i++) {
        root_fold(&one, 0);
        ck_assert_int_eq(root_publish(&one), 0);
    }
    skewed_open(&skewed);
    one.place.store = &skewed.base;
    ck_assert_int_eq(remote_manifest_check_chain(&one.place, &one.db, &lost), 0);
    for (size_t i = 0; i < ARRAY_LENGTH(numbers); i++) {
        BUFFER_AUTO record = {0};
        char name[32];
        snprintf(name, sizeof(name), "record-%016" PRIx64, numbers[i]);
        skewed.hidden = name;
        ck_assert_int_eq(remote_manifest_check_chain(&one.place, &one.db, &lost), 0);
        skewed.hidden = NULL;
        world_read(&world, "record-", numbers[i], &record);
        remove_record(numbers[i]);
        ck_assert_int_eq(remote_manifest_check_chain(&one.place, &one.db, &lost), -EBADMSG);
        world_write(&world, "record-", numbers[i], record.data, record.length);
    }
    skewed.hidden = "/record-";
    ck_assert_int_eq(remote_manifest_check_chain(&one.place, &one.db, &lost), 0);
}
END_TEST

START_TEST(looking_tells_damage_from_another_writer_and_from_an_outage)
{
    BUFFER_AUTO record = {0};
    bool lost;
    root_begin(&one);
    root_fold(&one, 0);
    ck_assert_int_eq(root_publish(&one), 0);
    ck_assert_int_eq(remote_manifest_write_catalog(&one.place, one.m, one.db.id), 0);
    ck_assert_int_eq(manifest_find_db(one.m, one.db.place, "acme", 1, &one.db), 0);
    ck_assert_int_eq(remote_manifest_check_head(&one.place, &one.db), 0);
    ck_assert_int_eq(remote_manifest_check_chain(&one.place, &one.db, &lost), 0);
    ck_assert(!lost);
    char *catalog = world_path(&world, "catalog-", 3);
    ck_assert_int_eq(unlink(catalog), 0);
    free(catalog);
    ck_assert_int_eq(remote_manifest_check_chain(&one.place, &one.db, &lost), 0);
    ck_assert(lost);
    // Each bit of the newest record counts.
    world_read(&world, "record-", 3, &record);
    for (size_t i = 0; i < record.length; i += 11) {
        record.data[i] ^= 0x40;
        world_write(&world, "record-", 3, record.data, record.length);
        ck_assert_int_eq(remote_manifest_check_head(&one.place, &one.db), -EBADMSG);
        record.data[i] ^= 0x40;
    }
    world_write(&world, "record-", 3, record.data, 0);
    ck_assert_int_eq(remote_manifest_check_head(&one.place, &one.db), -EBADMSG);
    world_write(&world, "record-", 3, record.data, record.length);
    fault_store_set_outage(world.faults, true);
    ck_assert_int_eq(remote_manifest_check_head(&one.place, &one.db), -EAGAIN);
    ck_assert_int_eq(remote_manifest_check_chain(&one.place, &one.db, &lost), -EAGAIN);
    fault_store_set_outage(world.faults, false);
    root_import(&two);
    ck_assert_int_eq(root_claim(&two, true, NULL), 0);
    ck_assert_int_eq(remote_manifest_check_head(&one.place, &one.db), 0);
    ck_assert_int_eq(remote_manifest_check_chain(&one.place, &one.db, &lost), 1);
}
END_TEST

START_TEST(claim_costs_few_requests)
{
    root_begin(&one);
    root_import(&two);
    ck_assert_int_eq(remote_lease_write(&one.place, 1, WORLD_TTL_MS, true), 0);
    uint64_t calls = fault_store_calls(world.faults, STORE_VERB_ANY);
    ck_assert_int_eq(root_claim(&two, false, NULL), 0);
    // List; the newest record; the lease and its age; the OPEN record; the lease.
    ck_assert_uint_eq(fault_store_calls(world.faults, STORE_VERB_ANY) - calls, 6);
    calls = fault_store_calls(world.faults, STORE_VERB_ANY);
    ck_assert_int_eq(remote_lease_write(&two.place, 2, WORLD_TTL_MS, false), 0);
    ck_assert_int_eq(remote_manifest_is_followed(&two.place, 3), 0);
    ck_assert_uint_eq(fault_store_calls(world.faults, STORE_VERB_ANY) - calls, 2);
}
END_TEST

int
main(void)
{
    Suite *s = suite_create("remote_claim");
#define ADD(t) unit_add_with(s, #t, t, setup, teardown, 120)
    ADD(what_a_listing_lacks_is_gone_only_when_it_cannot_be_had);
    ADD(looking_tells_damage_from_another_writer_and_from_an_outage);
    ADD(claim_opens_an_epoch);
    ADD(a_manifest_that_contradicts_the_chain_claims_nothing);
    ADD(lease_text_can_be_read_by_people);
    ADD(fresh_lease_keeps_others_away);
    ADD(released_lease_lets_others_in);
    ADD(lease_from_the_future_is_fresh);
    ADD(lines_of_a_lease_that_are_not_known_are_passed_over);
    ADD(unreadable_lease_counts_as_alive_until_it_is_old);
    ADD(missing_lease_counts_from_the_record);
    ADD(age_of_a_lease_is_told_by_the_servers_clock);
    ADD(takeover_fences_the_old_owner);
    ADD(publication_and_takeover_cannot_both_win);
    ADD(one_of_two_racing_claims_wins);
    ADD(publication_races_takeover_and_one_wins);
    ADD(own_claim_whose_answer_was_lost_is_adopted);
    ADD(older_claim_that_lands_late_is_ours);
    ADD(claim_can_be_repeated_after_failing_at_any_request);
    ADD(refused_claim_changes_nothing_at_any_failing_request);
    ADD(copy_of_a_root_does_not_take_the_originals_records_for_its_own);
    ADD(copies_that_race_do_not_both_win);
    ADD(claim_of_a_copy_that_comes_first_is_foreign);
    ADD(claim_notices_a_bucket_that_was_set_back);
    ADD(claim_costs_few_requests);
    return unit_run(s);
}
