// SPDX-License-Identifier: Apache-2.0
// CheckpointGC: random histories of a volume whose generations are published, pinned, expired and
// deleted, by hosts that take it over from each other, over a store that fails and loses answers.
// After each step every generation that is retained or pinned can be imported as it was, and its
// blobs are there. At the end, when nothing is pinned and all graces are over, the bucket holds
// what the newest generation needs and nothing else.
#include "remote_content.h"
#include "retention/collect.h"
#include "retention/history.h"
#include "retention/snapshot.h"

#include <dirent.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/checksum.h"
#include "platform/clock.h"
#include "platform/memory.h"

#define STEPS           90u
#define ROUNDS          40u
#define ROUNDS_LONG     1000u
#define GENERATIONS_MAX 400u
#define BLOBS_MAX       1000u
#define HOUR_MS         ((uint64_t)3600 * 1000)

static struct world world;
static struct root roots[2], copy;
static struct root *owner, *other;
static uint64_t ahead_ms; // how far the world's time is ahead of the machine's
static struct generation scanned;

// The state of each generation when it was staged.
static struct buffer dumps[GENERATIONS_MAX];
// Pins that were accepted.
static struct remote_pin pins[64];
static size_t pin_count;

static unsigned
dice(unsigned sides)
{
    return content_dice(sides);
}

// ---- time ---------------------------------------------------------------------------------------

static void
pass_time(uint64_t ms)
{
    ahead_ms += ms;
    world_age(&world, ms);
}

// ---- steps --------------------------------------------------------------------------------------

static int
dump_state(void *argument, const struct change *c)
{
    // Who publishes may know a blob by another key than the one that the chain tells.
    if (c->kind != CHANGE_PUT_BLOB && c->kind != CHANGE_PUT_GENERATION &&
        c->kind != CHANGE_PUT_RETENTION && c->kind != CHANGE_PUT_COUNTERS)
        change_encode(c, argument);
    return 0;
}

static void
dump_root(struct root *r, struct buffer *out)
{
    struct manifest_reader *reader;
    buffer_clear(out);
    ck_assert_int_eq(manifest_read_begin(r->m, &reader), 0);
    ck_assert_int_eq(manifest_export(reader, r->db.id, dump_state, out), 0);
    manifest_read_end(reader);
}

static void
catch_up(void)
{
    struct remote_catch_up found;
    fault_store_clear(world.faults);
    ck_assert_int_eq(remote_manifest_catch_up(&owner->place, owner->m, &owner->db, &found), 0);
    ck_assert(!found.foreign);
}

static void
add_faults(void)
{
    struct store_fault f = {.nth = 1 + dice(4), .times = 1, .error = -EAGAIN};
    switch (dice(6)) {
    case 0:
        f.verb = STORE_VERB_PUT;
        f.kind = STORE_FAULT_SWALLOW;
        f.key_prefix = "manifests/acme/1/record-";
        f.nth = 1;
        break;
    case 1:
        f.verb = STORE_VERB_PUT;
        break;
    case 2:
        f.verb = STORE_VERB_DELETE;
        f.nth = 1;
        break;
    case 3: // deleted, the answer lost
        f.verb = STORE_VERB_DELETE;
        f.kind = STORE_FAULT_SWALLOW;
        f.nth = 1;
        break;
    default:
        return;
    }
    fault_store_add(world.faults, &f);
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
    struct generation g = staged.header.generation;
    ck_assert_uint_lt(g.v, GENERATIONS_MAX);
    if (r == owner)
        dump_root(r, &dumps[g.v]);
    rc = content_upload(&world, uploads, count);
    if (rc == 0)
        rc = remote_manifest_publish(&r->place, &staged);
    bool dies = dice(6) == 0;
    if (rc == 0 && !dies)
        rc = remote_manifest_record_publication(
            &r->place, r->m, r->db.id, &staged, uploads, count, 0);
    if (rc == 0 && !dies && staged.catalog)
        rc = remote_manifest_put_catalog(&r->place, r->m, r->db.id, staged.catalog);
    free(uploads);
    remote_staged_free(&staged);
    return rc;
}

static void
step_publish(void)
{
    for (unsigned n = 1 + dice(3); n > 0; n--) {
        content_fold(owner);
        if (dice(3) == 0)
            add_faults();
        int rc = publish(owner);
        fault_store_clear(world.faults);
        if (rc < 0 || dice(3) == 0)
            catch_up();
        if (dice(4) == 0 && owner->db.published.v > 0) {
            catch_up();
            rc = remote_manifest_write_catalog(&owner->place, owner->m, owner->db.id);
            ck_assert(rc == 0 || rc == -EAGAIN);
        }
    }
}

static int
collect(struct root *r, unsigned flags, struct collect_result *result)
{
    const struct collect_options options = {
        .place = &r->place,
        .manifest = r->m,
        .db = r->db.id,
        .flags = flags,
        .now_ms = clock_wall_ms() + ahead_ms,
        .scanned = r == owner ? scanned : (struct generation){0},
    };
    int rc = collect_run(&options, result);
    if (r == owner)
        scanned = result->scanned;
    return rc;
}

static void
step_collect(void)
{
    struct collect_result result;
    unsigned flags = dice(2) ? COLLECT_PRUNE : 0;
    flags |= dice(4) == 0 ? COLLECT_SWEEP : 0;
    flags |= dice(6) == 0 ? COLLECT_DRY_RUN : 0;
    if (dice(3) == 0)
        add_faults();
    int rc = collect(owner, flags, &result);
    fault_store_clear(world.faults);
    // Whatever went wrong, the next run goes on.
    if (rc < 0)
        catch_up();
    if (rc == 0 && (flags & COLLECT_DRY_RUN) == 0)
        ck_assert_int_eq(collect(owner, flags, &result), 0);
}

static void
step_policy(void)
{
    struct change c = {.kind = CHANGE_PUT_RETENTION};
    catch_up();
    c.retention = (struct retention_policy){
        .keep_all = dice(8) == 0, .last = dice(5), .grace_ms = (1 + dice(3)) * HOUR_MS};
    ck_assert_int_eq(remote_manifest_learn_history(&owner->place, owner->m, owner->db.id), 0);
    ck_assert_int_eq(remote_manifest_tell(&owner->place, owner->m, owner->db.id, &c, 1, 0), 0);
    catch_up();
}

// Anybody may pin: first the pin, then the look.
// The name object of a snapshot. A sweep would end an old pin without one.
static void
name_snapshot(const struct remote_pin *pin)
{
    static const char text[] = "{\"format\":1,\"a snapshot of\":\"test_collect\"}\n";
    BUFFER_AUTO key = {0};
    struct remote_source source = {.data = (const uint8_t *)text, .length = strlen(text)};
    if (pin->kind != PIN_SNAPSHOT)
        return;
    sha256_of(source.data, source.length, &source.hash);
    snapshot_key(&copy.place, pin->name, &key);
    ck_assert_int_eq(remote_store_put_blob(copy.place.store, buffer_string(&key), &source,
                         REMOTE_PUT_CREATE, &copy.place.call),
        0);
}

static void
drop_name(const struct remote_pin *pin)
{
    BUFFER_AUTO key = {0};
    if (pin->kind != PIN_SNAPSHOT)
        return;
    snapshot_key(&copy.place, pin->name, &key);
    const char *keys[] = {buffer_string(&key)};
    ck_assert_int_eq(remote_store_delete_blobs(copy.place.store, keys, 1, &copy.place.call), 0);
}

static void
step_pin(void)
{
    struct remote_generations g;
    if (pin_count == ARRAY_LENGTH(pins))
        return;
    ck_assert_int_eq(remote_generations_read(&copy.place, &g), 0);
    ck_assert(g.complete);
    if (g.count > 0) {
        struct remote_pin *pin = &pins[pin_count];
        *pin = (struct remote_pin){.kind = dice(3) ? PIN_SNAPSHOT : PIN_FORK};
        pin->generation = g.records[dice((unsigned)g.count)].generation;
        snprintf(pin->name, sizeof(pin->name), "s%u", dice(1000000));
        ck_assert_int_eq(remote_pin_put(&copy.place, pin), 0);
        if (dice(3) == 0)
            step_collect();
        remote_generations_free(&g);
        ck_assert_int_eq(remote_generations_read(&copy.place, &g), 0);
        const struct generation_record *found = remote_generations_find(&g, pin->generation);
        if (found && found->state == GENERATION_RETAINED) {
            name_snapshot(pin);
            pin_count++;
        } else
            ck_assert_int_eq(remote_pin_delete(&copy.place, pin), 0);
    }
    remote_generations_free(&g);
}

static void
step_unpin(void)
{
    if (pin_count == 0)
        return;
    size_t i = dice((unsigned)pin_count);
    drop_name(&pins[i]);
    ck_assert_int_eq(remote_pin_delete(&copy.place, &pins[i]), 0);
    pins[i] = pins[--pin_count];
}

// Another host takes the volume; the one before does not know, and tries to go on.
static void
step_takeover(void)
{
    struct remote_lease lease;
    struct collect_result result;
    catch_up();
    root_import(other);
    ck_assert_int_eq(root_claim(other, true, &lease), 0);
    struct root *before = owner;
    owner = other;
    other = before;
    scanned.v = 0;
    content_adopt(owner);
    if (other->db.local.v > other->db.published.v)
        ck_assert_int_lt(publish(other), 0);
    int rc = collect(other, COLLECT_PRUNE | COLLECT_SWEEP, &result);
    // It may find nothing to do; then it has done nothing.
    ck_assert(rc == -ESTALE || (rc == 0 && result.blobs == 0 && result.pruned.records == 0));
}

// The volume becomes what it was at some generation that is retained. Blobs come back from the
// dead.
static void
step_rollback(void)
{
    struct remote_generations g;
    struct generation made;
    catch_up();
    ck_assert_int_eq(remote_generations_read(&copy.place, &g), 0);
    size_t i = g.count > 0 ? dice((unsigned)g.count) : 0;
    bool usable = g.count > 0 && g.records[i].state == GENERATION_RETAINED;
    struct generation at = {usable ? g.records[i].generation.v : 0};
    remote_generations_free(&g);
    // What is local only would be lost without being looked at.
    if (!usable || owner->db.local.v != owner->db.published.v)
        return;
    struct db_record then = root_new_db(owner, "then");
    ck_assert_int_eq(remote_manifest_import(&owner->place, owner->m, &then, at), 0);
    int rc = history_fold_equal(owner->m, owner->db.id, then.id);
    ck_assert_int_eq(manifest_remove_db(owner->m, then.id), 0);
    if (rc == -EALREADY)
        return;
    ck_assert_int_eq(rc, 0);
    ck_assert_int_eq(manifest_check(owner->m, owner->db.id), 0);
    ck_assert_int_eq(history_publish(&owner->place, owner->m, owner->db.id, &made), 0);
    ck_assert_uint_lt(made.v, GENERATIONS_MAX);
    buffer_clear(&dumps[made.v]);
    buffer_append(&dumps[made.v], dumps[at.v].data, dumps[at.v].length);
    catch_up();
    content_adopt(owner);
}

// ---- what must hold -----------------------------------------------------------------------------

static int
check_blob(void *argument, const struct change *c)
{
    const uint64_t *generation = argument;
    if (c->kind == CHANGE_PUT_BLOB)
        ck_assert_msg(content_is_there(&world, &c->blob),
            "generation %" PRIu64 " lacks a blob of generation %" PRIu64, *generation,
            c->blob.generation.v);
    return 0;
}

static void
check_generation(struct generation g)
{
    BUFFER_AUTO dump = {0};
    struct manifest_reader *r;
    if (copy.db.id.v)
        ck_assert_int_eq(manifest_remove_db(copy.m, copy.db.id), 0);
    copy.db = root_new_db(&copy, "main");
    int rc = remote_manifest_import(&copy.place, copy.m, &copy.db, g);
    ck_assert_msg(rc == 0, "generation %" PRIu64 " cannot be imported: %d", g.v, rc);
    dump_root(&copy, &dump);
    ck_assert_uint_eq(dump.length, dumps[g.v].length);
    ck_assert_int_eq(memcmp(dump.data, dumps[g.v].data, dump.length), 0);
    ck_assert_int_eq(manifest_check(copy.m, copy.db.id), 0);
    ck_assert_int_eq(manifest_read_begin(copy.m, &r), 0);
    ck_assert_int_eq(manifest_export(r, copy.db.id, check_blob, &g.v), 0);
    manifest_read_end(r);
}

static void
check_all(void)
{
    struct remote_generations g;
    ck_assert_int_eq(remote_generations_read(&copy.place, &g), 0);
    for (size_t i = 0; i < g.count; i++)
        if (g.records[i].state == GENERATION_RETAINED)
            check_generation(g.records[i].generation);
    for (size_t i = 0; i < pin_count; i++) {
        const struct generation_record *pinned = remote_generations_find(&g, pins[i].generation);
        ck_assert_msg(pinned, "pinned generation %" PRIu64 " is gone", pins[i].generation.v);
        check_generation(pins[i].generation);
    }
    if (g.head.v)
        check_generation(g.head);
    remote_generations_free(&g);
    ck_assert_int_eq(manifest_check(owner->m, owner->db.id), 0);
}

// The blobs that have objects: {checkpoint id}, {generation} and {hash} of the keys. A blob that
// two chunks share can have an object under the name of each, when the upload for the first was
// given up and repeated for the second.
static void
collect_names(const char *path, const char *directory, char **names, size_t *count)
{
    DIR *d = opendir(path);
    if (!d)
        return;
    for (struct dirent *e; (e = readdir(d));) {
        if (e->d_name[0] == '.')
            continue;
        char *inner = memory_printf("%s/%s", path, e->d_name);
        if (e->d_type == DT_DIR) {
            collect_names(inner, e->d_name, names, count);
        } else {
            static const size_t tail = 1 + 16 + 1 + 64 + 5; // -{generation}-{hash}.blob
            size_t n = strlen(e->d_name);
            ck_assert_uint_lt(*count, BLOBS_MAX);
            ck_assert_uint_gt(n, tail);
            names[(*count)++] = memory_printf("%s%s", directory, e->d_name + n - tail);
        }
        free(inner);
    }
    closedir(d);
}

static int
compare_names(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static size_t
count_stored_blobs(void)
{
    char *names[BLOBS_MAX];
    size_t count = 0;
    size_t blobs = 0;
    char *path = memory_printf("%s/checkpoints", world.bucket);
    collect_names(path, "", names, &count);
    free(path);
    qsort(names, count, sizeof(*names), compare_names);
    for (size_t i = 0; i < count; i++)
        blobs += i == 0 || strcmp(names[i], names[i - 1]) != 0;
    for (size_t i = 0; i < count; i++)
        free(names[i]);
    return blobs;
}

static int
count_blob(void *argument, const struct change *c)
{
    *(size_t *)argument += c->kind == CHANGE_PUT_BLOB;
    return 0;
}

// When all has been let go, the bucket holds what the newest generation needs.
static void
check_end(void)
{
    struct collect_result result;
    struct manifest_reader *r;
    size_t blobs = 0;
    while (pin_count > 0)
        step_unpin();
    struct change c = {.kind = CHANGE_PUT_RETENTION, .retention = {.grace_ms = HOUR_MS}};
    catch_up();
    content_fold(owner);
    ck_assert_int_ne(publish(owner), -ESTALE);
    catch_up();
    ck_assert_int_eq(remote_manifest_learn_history(&owner->place, owner->m, owner->db.id), 0);
    ck_assert_int_eq(remote_manifest_tell(&owner->place, owner->m, owner->db.id, &c, 1, 0), 0);
    catch_up();
    // Two catalogs stay, so that one may be damaged.
    for (unsigned i = 0; i < 3; i++) {
        content_fold(owner);
        ck_assert_int_ne(publish(owner), -ESTALE);
        catch_up();
        ck_assert_int_eq(remote_manifest_write_catalog(&owner->place, owner->m, owner->db.id), 0);
    }
    for (unsigned i = 0; i < 4; i++) {
        pass_time(40 * 24 * HOUR_MS);
        ck_assert_int_eq(collect(owner, COLLECT_PRUNE | COLLECT_SWEEP, &result), 0);
        catch_up();
    }
    ck_assert_uint_eq(result.retained, 1);
    ck_assert_uint_eq(result.expired, 0);
    check_all();
    ck_assert_int_eq(manifest_read_begin(owner->m, &r), 0);
    ck_assert_int_eq(manifest_export(r, owner->db.id, count_blob, &blobs), 0);
    manifest_read_end(r);
    ck_assert_uint_eq(count_stored_blobs(), blobs);
    ck_assert_uint_eq(world_count(&world, "catalog-"), 2);
    ck_assert_uint_eq(world_count(&world, "lease-"), 1);
    // Record 1, and those from the older catalog on; RETENTION records are among them.
    ck_assert_uint_le(world_count(&world, "record-"), 16);
}

static void
run_history(uint64_t seed)
{
    content_begin(seed);
    ahead_ms = 0;
    pin_count = 0;
    scanned.v = 0;
    world_open(&world);
    root_open(&roots[0], &world, "a", 1);
    root_open(&roots[1], &world, "b", 2);
    root_open(&copy, &world, "copy", 3);
    owner = &roots[0];
    other = &roots[1];
    root_begin(owner);
    step_policy();
    for (unsigned i = 0; i < STEPS; i++) {
        switch (dice(10)) {
        case 0:
        case 1:
            step_publish();
            break;
        case 2:
        case 3:
            step_collect();
            break;
        case 4:
            step_pin();
            break;
        case 5:
            step_unpin();
            break;
        case 6:
            pass_time(dice(4) ? (dice(120) + 1) * HOUR_MS / 60 : 30 * HOUR_MS);
            break;
        case 7:
            step_policy();
            break;
        case 8:
            if (dice(4) == 0)
                step_takeover();
            break;
        case 9:
            step_rollback();
            break;
        }
        if (dice(4) == 0)
            check_all();
    }
    check_all();
    check_end();
    root_close(&roots[0]);
    root_close(&roots[1]);
    root_close(&copy);
    world_close(&world);
    for (size_t i = 0; i < GENERATIONS_MAX; i++)
        buffer_free(&dumps[i]);
}

START_TEST(what_is_kept_stays_and_nothing_else_does)
{
    const char *given = getenv("CKPTFS_TEST_SEED");
    const char *times = getenv("CKPTFS_TEST_ROUNDS");
    unsigned rounds = times                        ? (unsigned)atoi(times)
                      : getenv("CKPTFS_TEST_LONG") ? ROUNDS_LONG
                                                   : ROUNDS;
    uint64_t first = given ? strtoull(given, NULL, 10) : clock_wall_ms() * 2;
    for (unsigned i = 0; i < (given && !times ? 1 : rounds); i++) {
        printf("CKPTFS_TEST_SEED=%" PRIu64 "\n", first + i * 2);
        fflush(stdout);
        run_history(first + i * 2);
    }
}
END_TEST

int
main(void)
{
    Suite *s = suite_create("collect");
    unit_add(s, "what_is_kept_stays_and_nothing_else_does",
        what_is_kept_stays_and_nothing_else_does, 3000);
    return unit_run(s);
}
