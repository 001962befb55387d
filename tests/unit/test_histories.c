// SPDX-License-Identifier: Apache-2.0
// Random histories of several volumes in one store: publications, snapshots, policies, runs of
// CheckpointGC, takeovers, rollbacks, forks, detached forks and destroyed volumes, by hosts that
// die, over a store that fails and loses answers. After each step every generation of every volume
// that is retained or pinned can be imported as it was, and its blobs are there. At the end all
// volumes are destroyed, and the store is empty.
//
// A history is a list of steps, each with a seed. One that fails is made shorter for as long as it
// still fails, and printed. CKPTFS_TEST_SEED repeats a history, CKPTFS_TEST_ROUNDS sets how many
// there are; CKPTFS_TEST_LONG: many, and some with the objects in a directory, and in an S3 server
// when tests/with-s3 says where there is one.
#include "remote_world.h"

#include <inttypes.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/checksum.h"
#include "history_store.h"
#include "memory_store.h"
#include "platform/clock.h"
#include "platform/memory.h"
#include "platform/random.h"
#include "remote/remote_destroy.h"
#include "remote_content.h"
#include "retention/blob_page.h"
#include "retention/collect.h"
#include "retention/detach.h"
#include "retention/history.h"
#include "retention/snapshot.h"
#include "store/blob_key.h"

#define VOLUMES         4u
#define STEPS           30u
#define ROUNDS          100u
#define ROUNDS_LONG     4000u
#define ROUNDS_FILE     200u // of the long variant
#define ROUNDS_S3       20u
#define GENERATIONS_MAX 256u
#define PINS_MAX        8u
#define HOUR_MS         ((uint64_t)3600 * 1000)
#define DAY_MS          (24 * HOUR_MS)

struct volume {
    uint32_t number;
    bool exists; // it has an owner
    bool begun;  // a fork without a generation, whose command died
    struct uuid id;
    struct root roots[2], copy;
    struct root *owner, *other;
    struct generation scanned;
    bool unsure;
    struct buffer dumps[GENERATIONS_MAX]; // the state of each generation
    struct remote_pin pins[PINS_MAX];     // that were accepted
    size_t pin_count;
    struct volume *parent; // it needs; or NULL
    struct remote_pin parent_pin;
};

static struct world world;
static struct remote_store *memory;
static struct volume volumes[VOLUMES];
static unsigned names;

static unsigned
dice(unsigned sides)
{
    return content_dice(sides);
}

// ---- volumes ------------------------------------------------------------------------------------

static void
open_roots(struct volume *v)
{
    static const char *const hosts[] = {"a", "b", "copy"};
    struct root *roots[] = {&v->roots[0], &v->roots[1], &v->copy};
    for (unsigned i = 0; i < 3; i++) {
        CLEANUP(memory_free_auto) char *name = memory_printf("%s-%u", hosts[i], names++);
        root_open_volume(roots[i], &world, name, (uint8_t)(v->number * 4 + i), v->number);
    }
    v->owner = &v->roots[0];
    v->other = &v->roots[1];
    v->scanned.v = 0;
    v->unsure = false;
    v->pin_count = 0;
    v->parent = NULL;
    v->exists = true;
}

static void
forget(struct volume *v)
{
    root_close(&v->roots[0]);
    root_close(&v->roots[1]);
    root_close(&v->copy);
    for (size_t i = 0; i < GENERATIONS_MAX; i++)
        buffer_free(&v->dumps[i]);
    v->exists = false;
    v->begun = false;
    v->parent = NULL;
}

static struct volume *
pick(void)
{
    size_t n = 0;
    struct volume *there[VOLUMES];
    for (size_t i = 0; i < VOLUMES; i++)
        if (volumes[i].exists)
            there[n++] = &volumes[i];
    return n > 0 ? there[dice((unsigned)n)] : NULL;
}

static struct volume *
pick_free(void)
{
    for (size_t i = 0; i < VOLUMES; i++)
        if (!volumes[i].exists && !volumes[i].begun)
            return &volumes[i];
    return NULL;
}

static void
refresh(struct root *r)
{
    ck_assert_int_eq(manifest_find_db(r->m, "main", "acme", r->place.volume_number, &r->db), 0);
}

static void
heal(void)
{
    fault_store_clear(world.faults);
}

static void
catch_up(struct volume *v)
{
    struct remote_catch_up found;
    heal();
    ck_assert_int_eq(
        remote_manifest_catch_up(&v->owner->place, v->owner->m, &v->owner->db, &found), 0);
    ck_assert(!found.foreign);
}

static void
fail_at(enum store_verb verb, unsigned nth, bool answer_alone)
{
    const struct store_fault f = {.verb = verb,
        .kind = answer_alone ? STORE_FAULT_SWALLOW : STORE_FAULT_FAIL,
        .nth = nth,
        .times = 1,
        .error = -EAGAIN};
    fault_store_add(world.faults, &f);
}

static void
add_faults(void)
{
    unsigned what = dice(6);
    if (what < 4)
        fail_at(what < 2 ? STORE_VERB_PUT : STORE_VERB_DELETE, 1 + dice(4), what & 1);
}

// ---- generations --------------------------------------------------------------------------------

static int
dump_state(void *argument, const struct change *c)
{
    // Forks and publishers may know a blob by another key than the one that the chain tells.
    if (c->kind != CHANGE_PUT_BLOB && c->kind != CHANGE_PUT_GENERATION &&
        c->kind != CHANGE_PUT_RETENTION && c->kind != CHANGE_PUT_COUNTERS &&
        c->kind != CHANGE_PUT_NAMESPACE)
        change_encode(c, argument);
    return 0;
}

static void
dump(struct root *r, struct buffer *out)
{
    struct manifest_reader *reader;
    buffer_clear(out);
    ck_assert_int_eq(manifest_read_begin(r->m, &reader), 0);
    ck_assert_int_eq(manifest_export(reader, r->db.id, dump_state, out), 0);
    manifest_read_end(reader);
}

static void
copy_dump(struct buffer *to, const struct buffer *from)
{
    buffer_clear(to);
    buffer_append(to, from->data, from->length);
}

static int
upload(struct root *r, const struct remote_upload *uploads, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        BUFFER_AUTO key = {0};
        uint8_t bytes[8192] = {0};
        struct remote_source s = {.data = bytes, .length = sizeof(bytes)};
        snprintf((char *)bytes, sizeof(bytes), "volume %u", r->place.volume_number);
        sha256_of(bytes, sizeof(bytes), &s.hash);
        blob_key("acme", r->place.volume_number, &uploads[i].blob, &key);
        int rc =
            remote_store_put_blob(world.store, buffer_string(&key), &s, REMOTE_PUT_OVERWRITE, NULL);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int
publish_staged(struct root *r, struct remote_staged *staged, const struct remote_upload *uploads,
    size_t count, bool dies)
{
    int rc = upload(r, uploads, count);
    if (rc == 0)
        rc = remote_manifest_publish(&r->place, staged);
    if (rc == 0 && !dies)
        rc = remote_manifest_record_publication(
            &r->place, r->m, r->db.id, staged, uploads, count, 0);
    if (rc == 0 && !dies && staged->catalog)
        rc = remote_manifest_put_catalog(&r->place, r->m, r->db.id, staged->catalog);
    return rc;
}

static int
publish(struct volume *v, struct root *r)
{
    struct remote_staged staged;
    struct remote_upload *uploads;
    size_t count;
    int rc = remote_manifest_stage_generation(&r->place, r->m, r->db.id, &staged, &uploads, &count);
    if (rc < 0)
        return rc;
    ck_assert_uint_lt(staged.header.generation.v, GENERATIONS_MAX);
    if (r == v->owner)
        dump(r, &v->dumps[staged.header.generation.v]);
    rc = publish_staged(r, &staged, uploads, count, dice(6) == 0);
    free(uploads);
    remote_staged_free(&staged);
    return rc;
}

static bool
is_full(const struct volume *v)
{
    return v->owner->db.next.v + 4 >= GENERATIONS_MAX;
}

// ---- steps --------------------------------------------------------------------------------------

static void
step_create(void)
{
    struct volume *v = pick_free();
    if (!v)
        return;
    open_roots(v);
    root_begin(v->owner);
    v->id = v->owner->db.volume;
}

static void
step_publish(void)
{
    struct volume *v = pick();
    for (unsigned n = 1 + dice(3); v && n > 0 && !is_full(v); n--) {
        content_adopt(v->owner);
        content_fold(v->owner);
        if (dice(3) == 0)
            add_faults();
        int rc = publish(v, v->owner);
        heal();
        if (rc < 0 || dice(3) == 0)
            catch_up(v);
        if (dice(4) == 0 && v->owner->db.published.v > 0) {
            catch_up(v);
            rc = remote_manifest_write_catalog(&v->owner->place, v->owner->m, v->owner->db.id);
            ck_assert(rc == 0 || rc == -EAGAIN);
        }
    }
}

static int
collect(struct volume *v, struct root *r, unsigned flags, struct collect_result *result)
{
    bool owns = r == v->owner;
    const struct collect_options options = {
        .place = &r->place,
        .manifest = r->m,
        .db = r->db.id,
        .flags = flags,
        .scanned = owns ? v->scanned : (struct generation){0},
        .unsure = owns && v->unsure,
    };
    int rc = collect_run(&options, result);
    if (owns) {
        v->scanned = result->scanned;
        v->unsure = result->unsure;
    }
    return rc;
}

static void
step_collect(void)
{
    struct collect_result result;
    struct volume *v = pick();
    if (!v)
        return;
    unsigned flags = dice(2) ? COLLECT_PRUNE : 0;
    flags |= dice(4) == 0 ? COLLECT_SWEEP : 0;
    flags |= dice(6) == 0 ? COLLECT_DRY_RUN : 0;
    catch_up(v);
    if (dice(3) == 0)
        add_faults();
    int rc = collect(v, v->owner, flags, &result);
    heal();
    if (rc < 0)
        catch_up(v);
    if (rc == 0 && (flags & COLLECT_DRY_RUN) == 0)
        ck_assert_int_eq(collect(v, v->owner, flags, &result), 0);
}

static void
set_policy(struct volume *v, const struct retention_policy *policy)
{
    struct change c = {.kind = CHANGE_PUT_RETENTION, .retention = *policy};
    struct root *r = v->owner;
    catch_up(v);
    ck_assert_int_eq(remote_manifest_learn_history(&r->place, r->m, r->db.id), 0);
    ck_assert_int_eq(remote_manifest_tell(&r->place, r->m, r->db.id, &c, 1, 0), 0);
    catch_up(v);
}

static void
step_policy(void)
{
    struct volume *v = pick();
    const struct retention_policy policy = {
        .keep_all = dice(8) == 0, .last = dice(4), .grace_ms = (1 + dice(3)) * HOUR_MS};
    if (v)
        set_policy(v, &policy);
}

// A generation that the chain tells of; {0}: there is none.
static struct generation
pick_generation(struct volume *v)
{
    struct remote_generations g;
    struct generation picked = {0};
    ck_assert_int_eq(remote_generations_read(&v->copy.place, &g), 0);
    if (g.count > 0)
        picked = g.records[dice((unsigned)g.count)].generation;
    remote_generations_free(&g);
    return picked;
}

static void
step_pin(void)
{
    struct volume *v = pick();
    BUFFER_AUTO problem = {0};
    if (!v || v->pin_count == PINS_MAX)
        return;
    struct remote_pin *pin = &v->pins[v->pin_count];
    *pin = (struct remote_pin){.kind = PIN_SNAPSHOT, .generation = pick_generation(v)};
    snprintf(pin->name, sizeof(pin->name), "s-%u", dice(1000000));
    if (pin->generation.v != 0 &&
        snapshot_create(&v->copy.place, pin->name, pin->generation, &problem) == 0)
        v->pin_count++;
}

static void
unpin(struct volume *v, size_t i)
{
    BUFFER_AUTO problem = {0};
    ck_assert_int_eq(snapshot_drop(&v->copy.place, v->pins[i].name, &problem), 0);
    v->pins[i] = v->pins[--v->pin_count];
}

static void
step_unpin(void)
{
    struct volume *v = pick();
    if (v && v->pin_count > 0)
        unpin(v, dice((unsigned)v->pin_count));
}

static void
step_takeover(void)
{
    struct collect_result result;
    struct volume *v = pick();
    if (!v)
        return;
    catch_up(v);
    root_import(v->other);
    ck_assert_int_eq(root_claim(v->other, true, NULL), 0);
    struct root *before = v->owner;
    v->owner = v->other;
    v->other = before;
    v->scanned.v = 0;
    v->unsure = false;
    if (before->db.local.v > before->db.published.v)
        ck_assert_int_lt(publish(v, before), 0);
    int rc = collect(v, before, COLLECT_PRUNE | COLLECT_SWEEP, &result);
    ck_assert(rc == -ESTALE || (rc == 0 && result.blobs == 0 && result.pruned.records == 0));
}

static bool
is_retained(struct volume *v, struct generation generation)
{
    struct remote_generations g;
    ck_assert_int_eq(remote_generations_read(&v->copy.place, &g), 0);
    const struct generation_record *found = remote_generations_find(&g, generation);
    bool retained = found && found->state == GENERATION_RETAINED;
    remote_generations_free(&g);
    return retained;
}

static void
step_rollback(void)
{
    struct volume *v = pick();
    if (!v || is_full(v))
        return;
    catch_up(v);
    struct root *r = v->owner;
    struct generation at = pick_generation(v);
    struct generation made;
    // What is local only would be lost without being looked at.
    if (at.v == 0 || !is_retained(v, at) || r->db.local.v != r->db.published.v)
        return;
    struct db_record then = root_new_db(r, "then");
    ck_assert_int_eq(remote_manifest_import(&r->place, r->m, &then, at), 0);
    int rc = history_fold_equal(r->m, r->db.id, then.id);
    ck_assert_int_eq(manifest_remove_db(r->m, then.id), 0);
    if (rc == -EALREADY)
        return;
    ck_assert_int_eq(rc, 0);
    ck_assert_int_eq(history_publish(&r->place, r->m, r->db.id, &made), 0);
    copy_dump(&v->dumps[made.v], &v->dumps[at.v]);
    catch_up(v);
}

// ---- forks --------------------------------------------------------------------------------------

// Of a command that dies: the same command goes on later, or the fork is destroyed.
#define DIES (dice(6) == 0)

static void
make_child(struct volume *parent, struct volume *child, struct root *r,
    const struct db_record *parent_db, struct db_id import)
{
    struct generation made;
    root_import(r);
    ck_assert_int_eq(root_claim(r, true, NULL), 0);
    ck_assert_int_eq(history_fold_fork(r->m, r->db.id, import, parent_db), 0);
    ck_assert_int_eq(history_publish(&r->place, r->m, r->db.id, &made), 0);
    refresh(r);
    copy_dump(&child->dumps[made.v], &parent->dumps[made.v]);
    child->begun = false;
    child->exists = true;
    child->parent = parent;
}

static void
step_fork(void)
{
    struct volume *parent = pick();
    struct volume *child = pick_free();
    BUFFER_AUTO problem = {0};
    if (!parent || !child)
        return;
    struct remote_pin pin = {.kind = PIN_FORK, .generation = pick_generation(parent)};
    CLEANUP(memory_free_auto) char *holder = memory_printf("acme@%u", child->number);
    struct uuid id = random_uuid();
    uuid_to_string(&id, pin.name);
    pin.holder = holder;
    if (pin.generation.v == 0 || snapshot_pin(&parent->copy.place, &pin, &problem) < 0)
        return;
    open_roots(child);
    child->exists = false;
    struct root *r = child->owner;
    struct root parent_here = *r;
    parent_here.place = parent->owner->place;
    struct db_record parent_db = root_new_db(&parent_here, "parent");
    ck_assert_int_eq(
        remote_manifest_import(&parent->copy.place, r->m, &parent_db, pin.generation), 0);
    const struct volume_parent made_of = {
        .volume = parent_db.volume,
        .sequence = parent_db.remote_sequence,
        .hash = parent_db.remote_hash,
        .generation = parent_db.published,
    };
    child->id = id;
    child->parent_pin = pin;
    child->parent_pin.holder = NULL;
    ck_assert_int_eq(remote_manifest_create_fork(
                         &r->place, &id, &parent_db.name_key, &retention_default, &made_of),
        0);
    child->begun = true;
    child->parent = parent;
    // The parent's owner may run in between.
    if (dice(2))
        step_collect();
    ck_assert_int_eq(snapshot_pin(&parent->copy.place, &child->parent_pin, &problem), 0);
    if (!DIES)
        make_child(parent, child, r, &parent_db, parent_db.id);
    ck_assert_int_eq(manifest_remove_db(r->m, parent_db.id), 0);
}

// Whether a generation of the volume that is not deleted needs other volumes.
static bool
needs_others(struct volume *v)
{
    struct remote_generations g;
    bool needed = false;
    ck_assert_int_eq(remote_generations_read(&v->copy.place, &g), 0);
    for (size_t i = 0; !needed && i < g.count; i++) {
        struct db_record db = root_new_db(&v->copy, "looked at");
        ck_assert_int_eq(
            remote_manifest_import(&v->copy.place, v->copy.m, &db, g.records[i].generation), 0);
        needed = detach_is_needed(v->copy.m, db.id) == 1;
        ck_assert_int_eq(manifest_remove_db(v->copy.m, db.id), 0);
    }
    remote_generations_free(&g);
    return needed;
}

static void
step_detach(void)
{
    struct volume *v = pick();
    struct detach_counts counts;
    struct generation made;
    if (!v || !v->parent || is_full(v))
        return;
    struct root *r = v->owner;
    catch_up(v);
    if (r->db.local.v != r->db.published.v)
        return;
    const struct detach_options options = {.place = &r->place, .manifest = r->m, .db = r->db.id};
    if (dice(3) == 0)
        fail_at(STORE_VERB_PUT, 1 + dice(3), dice(2));
    int rc = detach_copy(&options, &counts);
    heal();
    if (rc < 0 || DIES)
        return;
    uint64_t before = r->db.published.v;
    rc = history_fold_own(r->m, r->db.id);
    if (rc == 0) {
        ck_assert_int_eq(history_publish(&r->place, r->m, r->db.id, &made), 0);
        copy_dump(&v->dumps[made.v], &v->dumps[before]);
    }
    ck_assert(rc == 0 || rc == -EALREADY);
    catch_up(v);
    uint64_t released;
    if (DIES || needs_others(v))
        return;
    ck_assert_int_eq(remote_pins_release(&r->place, &v->id, &released), 0);
    v->parent = NULL;
}

static bool
has_forks(const struct volume *v)
{
    for (size_t i = 0; i < VOLUMES; i++)
        if ((volumes[i].exists || volumes[i].begun) && volumes[i].parent == v)
            return true;
    return false;
}

static int
destroy_once(struct volume *v)
{
    BUFFER_AUTO holders = {0};
    struct remote_destroyed done;
    const struct remote_destroy_options options = {
        .reader_pin_ms = READER_PIN_MS, .fork_pin_ms = ORPHAN_MS, .takeover = true};
    return remote_manifest_destroy(&v->copy.place, &options, &holders, &done);
}

static void
destroy(struct volume *v, bool faults)
{
    int rc = -EAGAIN;
    if (has_forks(v)) {
        ck_assert_int_eq(destroy_once(v), -EBUSY);
        return;
    }
    for (unsigned i = 0; rc == -EAGAIN && i < 8; i++) {
        if (faults && i < 3)
            fail_at(dice(2) ? STORE_VERB_DELETE : STORE_VERB_PUT, 1 + dice(6), dice(2));
        rc = destroy_once(v);
        heal();
    }
    // The mark went, and its answer was lost.
    ck_assert_msg(rc == 0 || (faults && rc == -ENOENT), "a volume cannot be destroyed: %d", rc);
    forget(v);
}

static void
step_destroy(void)
{
    struct volume *v = pick();
    // Also forks whose command died.
    for (size_t i = 0; i < VOLUMES; i++)
        if (volumes[i].begun && dice(2))
            v = &volumes[i];
    if (v && dice(3) == 0)
        destroy(v, true);
}

static void
step_time(void)
{
    memory_store_pass(memory, dice(4) ? (dice(120) + 1) * HOUR_MS / 60 : 30 * HOUR_MS);
}

// ---- what must hold -----------------------------------------------------------------------------

static void
check_blobs(struct root *r)
{
    struct blob_page *page = memory_alloc_zero(sizeof(*page));
    do {
        ck_assert_int_eq(blob_page_read(r->m, r->db.id, 0, page), 0);
        for (size_t i = 0; i < page->count; i++) {
            BUFFER_AUTO key = {0};
            struct remote_head head;
            ck_assert_int_eq(blob_page_key(&r->place, r->m, r->db.id, &page->blobs[i], &key), 0);
            ck_assert_msg(
                remote_store_head_blob(world.store, buffer_string(&key), &head, NULL) == 0,
                "volume %u lacks the blob %s", r->place.volume_number, buffer_string(&key));
        }
    } while (page->more);
    free(page);
}

static void
check_generation(struct volume *v, struct generation g)
{
    BUFFER_AUTO now = {0};
    struct root *r = &v->copy;
    if (r->db.id.v)
        ck_assert_int_eq(manifest_remove_db(r->m, r->db.id), 0);
    r->db = root_new_db(r, "main");
    int rc = remote_manifest_import(&r->place, r->m, &r->db, g);
    ck_assert_msg(
        rc == 0, "volume %u: generation %" PRIu64 " cannot be imported: %d", v->number, g.v, rc);
    dump(r, &now);
    ck_assert_uint_eq(now.length, v->dumps[g.v].length);
    ck_assert_int_eq(memcmp(now.data, v->dumps[g.v].data, now.length), 0);
    check_blobs(r);
}

static void
check_volume(struct volume *v)
{
    struct remote_generations g;
    ck_assert_int_eq(remote_generations_read(&v->copy.place, &g), 0);
    for (size_t i = 0; i < g.count; i++)
        if (g.records[i].state == GENERATION_RETAINED || g.records[i].generation.v == g.head.v)
            check_generation(v, g.records[i].generation);
    for (size_t i = 0; i < v->pin_count; i++) {
        const struct generation_record *pinned = remote_generations_find(&g, v->pins[i].generation);
        ck_assert_msg(pinned, "a pinned generation is gone");
        check_generation(v, v->pins[i].generation);
    }
    remote_generations_free(&g);
}

static void
check_all(void)
{
    for (size_t i = 0; i < VOLUMES; i++)
        if (volumes[i].exists)
            check_volume(&volumes[i]);
}

// What a volume has when all has been let go: the blobs of its newest generation.
static void
check_settled(struct volume *v)
{
    struct collect_result result;
    struct blob_page *page = memory_alloc_zero(sizeof(*page));
    const struct retention_policy newest = {.grace_ms = HOUR_MS};
    if (has_forks(v) || v->owner->db.published.v == 0) {
        free(page);
        return;
    }
    while (v->pin_count > 0)
        unpin(v, 0);
    set_policy(v, &newest);
    content_adopt(v->owner);
    content_fold(v->owner);
    ck_assert_int_ge(publish(v, v->owner), 0);
    catch_up(v);
    for (unsigned i = 0; i < 4; i++) {
        memory_store_pass(memory, 40 * DAY_MS);
        ck_assert_int_eq(collect(v, v->owner, COLLECT_PRUNE | COLLECT_SWEEP, &result), 0);
        catch_up(v);
    }
    ck_assert_uint_eq(result.retained, 1);
    ck_assert_uint_eq(result.expired, 0);
    check_volume(v);
    size_t own = 0;
    ck_assert_int_eq(blob_page_read(v->copy.m, v->copy.db.id, 0, page), 0);
    for (size_t i = 0; i < page->count; i++)
        own += page->blobs[i].where < BLOB_WHERE_NAMED;
    CLEANUP(memory_free_auto) char *prefix = memory_printf("checkpoints/acme/%u/", v->number);
    ck_assert_uint_eq(memory_store_count(memory, prefix, NULL), own);
    free(page);
}

static void
check_end(void)
{
    for (size_t i = 0; i < VOLUMES; i++)
        if (volumes[i].exists)
            check_settled(&volumes[i]);
    // Forks first; a fork of a fork before that.
    for (unsigned round = 0; round < VOLUMES; round++)
        for (size_t i = 0; i < VOLUMES; i++)
            if ((volumes[i].exists || volumes[i].begun) && !has_forks(&volumes[i]))
                destroy(&volumes[i], false);
    struct remote_listing left;
    ck_assert_int_eq(remote_store_list_blobs(memory, "", NULL, 1, &left, NULL), 0);
    ck_assert_msg(left.count == 0, "%s is left", left.count > 0 ? left.entries[0].key : "");
    remote_listing_free(&left);
}

// ---- histories ----------------------------------------------------------------------------------

static const struct {
    const char *name;
    void (*run)(void);
    unsigned weight;
} kinds[] = {
    {"create", step_create, 1},
    {"publish", step_publish, 5},
    {"collect", step_collect, 5},
    {"policy", step_policy, 2},
    {"snapshot", step_pin, 2},
    {"drop", step_unpin, 2},
    {"takeover", step_takeover, 1},
    {"rollback", step_rollback, 2},
    {"fork", step_fork, 3},
    {"detach", step_detach, 2},
    {"destroy", step_destroy, 2},
    {"time", step_time, 3},
};

struct step {
    unsigned kind;
    uint64_t seed;
};

struct history {
    struct step steps[STEPS];
    size_t count;
};

static void
make_history(uint64_t seed, struct history *h)
{
    unsigned all = 0;
    content_begin(seed);
    for (size_t i = 0; i < ARRAY_LENGTH(kinds); i++)
        all += kinds[i].weight;
    for (h->count = 0; h->count < STEPS; h->count++) {
        struct step *s = &h->steps[h->count];
        unsigned at = dice(all);
        for (s->kind = 0; at >= kinds[s->kind].weight; s->kind++)
            at -= kinds[s->kind].weight;
        s->seed = (uint64_t)dice(1u << 30) << 30 | dice(1u << 30);
    }
}

static enum history_backend backend;

static void
run_history(const struct history *h)
{
    names = 0;
    world.directory = unit_directory_new();
    memory = history_store_open(backend, world.directory);
    world.faults = world.store = fault_store_wrap(memory, NULL);
    for (uint32_t i = 0; i < VOLUMES; i++)
        volumes[i] = (struct volume){.number = i + 1};
    content_begin(1);
    step_create();
    for (size_t i = 0; i < h->count; i++) {
        content_begin(h->steps[i].seed);
        kinds[h->steps[i].kind].run();
        check_all();
    }
    check_end();
    remote_store_close(world.store);
    unit_directory_remove(world.directory);
}

// In a process of its own; whether it fails.
static bool
fails(const struct history *h, bool quiet)
{
    fflush(NULL);
    pid_t child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0) {
        if (quiet && (!freopen("/dev/null", "w", stderr) || !freopen("/dev/null", "w", stdout)))
            _exit(2);
        run_history(h);
        _exit(0);
    }
    int status;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    return status != 0;
}

// Leaves steps out, first many at a time, as long as it still fails.
static void
shrink(struct history *h)
{
    for (size_t n = h->count / 2; n > 0; n /= 2) {
        for (size_t at = 0; at + n <= h->count;) {
            struct history shorter = *h;
            memmove(
                &shorter.steps[at], &h->steps[at + n], (h->count - at - n) * sizeof(h->steps[0]));
            shorter.count -= n;
            if (fails(&shorter, true))
                *h = shorter;
            else
                at += n;
        }
    }
}

static void
run_rounds(unsigned rounds)
{
    const char *given = getenv("CKPTFS_TEST_SEED");
    const char *times = getenv("CKPTFS_TEST_ROUNDS");
    uint64_t first = given ? strtoull(given, NULL, 10) : clock_wall_ms() * 2;
    rounds = times ? (unsigned)atoi(times) : given ? 1 : rounds;
    printf("CKPTFS_TEST_SEED=%" PRIu64 "\n", first);
    for (unsigned i = 0; i < rounds; i++) {
        struct history h;
        make_history(first + i * 2, &h);
        if (!fails(&h, false))
            continue;
        printf("CKPTFS_TEST_SEED=%" PRIu64 " fails\n", first + i * 2);
        fflush(stdout);
        shrink(&h);
        printf("a shortest history that fails:\n");
        for (size_t n = 0; n < h.count; n++)
            printf("    %s %" PRIu64 "\n", kinds[h.steps[n].kind].name, h.steps[n].seed);
        (void)fails(&h, false);
        ck_abort_msg("see above");
    }
}

START_TEST(what_is_kept_stays_and_in_the_end_nothing_is_left)
{
    run_rounds(getenv("CKPTFS_TEST_LONG") ? ROUNDS_LONG : ROUNDS);
}
END_TEST

START_TEST(the_same_in_files)
{
    backend = IN_FILES;
    run_rounds(ROUNDS_FILE);
}
END_TEST

START_TEST(the_same_in_s3)
{
    backend = IN_S3;
    run_rounds(ROUNDS_S3);
}
END_TEST

int
main(void)
{
    Suite *s = suite_create("histories");
    unit_add(s, "what_is_kept_stays_and_in_the_end_nothing_is_left",
        what_is_kept_stays_and_in_the_end_nothing_is_left, 3000);
    if (getenv("CKPTFS_TEST_LONG"))
        unit_add(s, "the_same_in_files", the_same_in_files, 3000);
    if (getenv("CKPTFS_TEST_LONG") && getenv("CKPT_TEST_S3_ENDPOINT"))
        unit_add(s, "the_same_in_s3", the_same_in_s3, 3000);
    return unit_run(s);
}
