// SPDX-License-Identifier: Apache-2.0
// Six months of a volume in minutes: a checkpoint each minute, the default policy (the last hour,
// 24 hourly, 7 daily, 4 weekly ones, a grace of a day), CheckpointGC as the daemon runs it, a
// snapshot each week that is dropped after three, lost answers, and takeovers. All but the store
// and its clock is the real code. Prints what is in the bucket at the end of each day, which must
// not grow (doc/retention.md has the plot).
//
// CKPTFS_TEST_LONG: 182 days, else 3 with a checkpoint every third minute. CKPTFS_TEST_TABLE names
// a file for the table.
#include "remote_world.h"

#include <inttypes.h>
#include <string.h>

#include "base/checksum.h"
#include "memory_store.h"
#include "platform/clock.h"
#include "platform/memory.h"
#include "retention/collect.h"
#include "retention/snapshot.h"
#include "store/blob_key.h"

#define MINUTE_MS    ((uint64_t)60 * 1000)
#define DAY_MINUTES  1440u
#define FILES        64u
#define HOT          8u // get nine of ten changes
#define DELTAS_MAX   8u
#define BASE_BYTES   4096u // as if in units of 16 bytes
#define DELTA_BYTES  512u
#define LONG_DAYS    182u
#define SHORT_DAYS   3u
#define SETTLED_DAYS 40u // from then on nothing may grow

static struct world world;
static struct root roots[2];
static struct root *owner, *other;
static unsigned deltas[FILES];
static uint64_t seed = 88172645463325252u, contents;
static struct generation scanned;
static bool unsure;
static uint64_t requests_before;

static unsigned
dice(unsigned sides)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (unsigned)(seed >> 33) % sides;
}

// ---- folds --------------------------------------------------------------------------------------

struct fold {
    struct manifest_batch *b;
    uint64_t g;
};

static void
add(struct fold *f, const struct change *c)
{
    manifest_batch_change(f->b, c, true, (struct generation){f->g});
}

static struct blob_location
add_blob(struct fold *f, enum blob_object_kind kind, unsigned file)
{
    char text[32];
    uint64_t bytes = kind == BLOB_OBJECT_CHUNK ? BASE_BYTES : DELTA_BYTES;
    int n = snprintf(text, sizeof(text), "content %" PRIu64, ++contents);
    struct blob_location where = {.length = (uint32_t)bytes, .index_offset = (uint32_t)bytes / 2};
    sha256_of(text, (size_t)n, &where.blob);
    struct change c = {
        .kind = CHANGE_PUT_BLOB,
        .blob = {.hash = where.blob,
            .bytes = bytes,
            .kind = (uint8_t)kind,
            .checkpoint_id = {{(uint8_t)f->g, (uint8_t)(f->g >> 8), (uint8_t)(f->g >> 16)}},
            .chunk = {file + 1},
            .generation = {f->g},
            .where = BLOB_WHERE_OWN},
    };
    manifest_batch_change(f->b, &c, false, (struct generation){f->g});
    return where;
}

static void
add_base(struct fold *f, unsigned file)
{
    struct change c = {.kind = CHANGE_PUT_CHUNK};
    c.chunk = (struct chunk_entry){
        .id = {file + 1},
        .object = {file + 2},
        .generation = {f->g},
        .base_generation = {f->g},
        .base = add_blob(f, BLOB_OBJECT_CHUNK, file),
        .base_pages = 1,
        .present_pages = 2,
    };
    deltas[file] = 0;
    add(f, &c);
}

static void
add_delta(struct fold *f, unsigned file)
{
    struct change c = {.kind = CHANGE_PUT_DELTA};
    c.delta = (struct chunk_delta){
        .chunk = {file + 1},
        .generation = {f->g},
        .where = add_blob(f, BLOB_OBJECT_DELTA, file),
        .data_pages = 1,
    };
    deltas[file]++;
    add(f, &c);
}

static void
add_inode(struct fold *f, uint64_t object, uint32_t mode, uint32_t nlink, uint64_t size)
{
    struct change c = {.kind = CHANGE_PUT_INODE, .object = {object}};
    c.inode = (struct inode_record){
        .mode = mode, .nlink = nlink, .size = size, .mtime = {(int64_t)f->g, 0}, .link_target = ""};
    add(f, &c);
}

static void
add_file(struct fold *f, unsigned file)
{
    char name[32];
    int n = snprintf(name, sizeof(name), "file-%u", file);
    struct change c = {.kind = CHANGE_PUT_DIRENT};
    c.dirent = (struct dirent_record){
        .parent = OBJECT_ROOT_DIRECTORY,
        .cookie = (uint64_t)(file + 2) << DIRENT_SLOT_BITS,
        .object = {file + 2},
        .type = DT_REG,
        .name_length = (uint8_t)n,
        .name = name,
    };
    add_inode(f, file + 2, S_IFREG | 0644, 1, 5000);
    add(f, &c);
    add_base(f, file);
}

static void
fold(void)
{
    struct fold f = {manifest_batch_new(owner->db.id), owner->db.next.v};
    bool first = owner->db.local.v == 0;
    for (unsigned i = 0; first && i < FILES; i++)
        add_file(&f, i);
    if (first)
        add_inode(&f, 1, S_IFDIR | 0755, 2, FILES);
    bool changed[FILES] = {false};
    for (unsigned n = 1 + dice(3); !first && n > 0; n--)
        changed[dice(10) ? dice(HOT) : dice(FILES)] = true;
    for (unsigned i = 0; i < FILES; i++) {
        if (!changed[i])
            continue;
        if (deltas[i] < DELTAS_MAX)
            add_delta(&f, i);
        else
            add_base(&f, i);
    }
    struct db_counters counters = {.next_object = FILES + 2, .next_chunk = FILES + 1};
    manifest_batch_local_generation(f.b, (struct generation){f.g}, (struct lsn){f.g * 1000},
        counters, memory_store_now_ms(world.store));
    ck_assert_int_eq(manifest_submit(owner->m, f.b, NULL), 0);
    ck_assert_int_eq(manifest_find_db(owner->m, "main", "acme", 1, &owner->db), 0);
}

// ---- the daemon ---------------------------------------------------------------------------------

static void
upload(const struct remote_upload *uploads, size_t count)
{
    static const uint8_t bytes[BASE_BYTES];
    for (size_t i = 0; i < count; i++) {
        BUFFER_AUTO key = {0};
        struct remote_source s = {.data = bytes, .length = uploads[i].blob.bytes};
        blob_key("acme", 1, &uploads[i].blob, &key);
        ck_assert_int_eq(
            remote_store_put_blob(world.store, buffer_string(&key), &s, REMOTE_PUT_OVERWRITE, NULL),
            0);
    }
}

static void
publish(bool answer_is_lost)
{
    struct remote_staged staged;
    struct remote_upload *uploads;
    struct remote_catch_up found;
    size_t count;
    const struct remote_place *place = &owner->place;
    struct db_id db = owner->db.id;
    ck_assert_int_eq(
        remote_manifest_stage_generation(place, owner->m, db, &staged, &uploads, &count), 0);
    upload(uploads, count);
    ck_assert_int_eq(remote_manifest_publish(place, &staged), 0);
    if (answer_is_lost) {
        ck_assert_int_eq(remote_manifest_catch_up(place, owner->m, &owner->db, &found), 0);
        ck_assert(!found.foreign);
    } else {
        ck_assert_int_eq(
            remote_manifest_record_publication(place, owner->m, db, &staged, uploads, count, 0), 0);
        if (staged.catalog)
            ck_assert_int_eq(remote_manifest_put_catalog(place, owner->m, db, staged.catalog), 0);
    }
    free(uploads);
    remote_staged_free(&staged);
}

static void
collect(unsigned minute, struct collect_result *result_out)
{
    struct collect_options options = {
        .place = &owner->place,
        .manifest = owner->m,
        .db = owner->db.id,
        .scanned = scanned,
        .unsure = unsure,
    };
    if (minute % 60 == 0)
        options.flags |= COLLECT_PRUNE;
    if (minute % DAY_MINUTES == 0)
        options.flags |= COLLECT_SWEEP;
    ck_assert_int_eq(collect_run(&options, result_out), 0);
    scanned = result_out->scanned;
    unsure = result_out->unsure;
}

static void
take_over(void)
{
    struct root *before = owner;
    root_import(other);
    ck_assert_int_eq(root_claim(other, true, NULL), 0);
    owner = other;
    other = before;
    scanned.v = 0;
}

static void
snapshots(unsigned day)
{
    BUFFER_AUTO problem = {0};
    char name[32];
    snprintf(name, sizeof(name), "week-of-day-%u", day);
    ck_assert_int_eq(manifest_find_db(owner->m, "main", "acme", 1, &owner->db), 0);
    ck_assert_int_eq(snapshot_create(&owner->place, name, owner->db.published, &problem), 0);
    if (day < 21)
        return;
    snprintf(name, sizeof(name), "week-of-day-%u", day - 21);
    ck_assert_int_eq(snapshot_drop(&owner->place, name, &problem), 0);
}

// ---- what is there ------------------------------------------------------------------------------

struct sample {
    uint64_t objects, bytes, blobs, records, catalogs, requests;
};

static uint64_t
requests(void)
{
    const struct remote_store_counters *c = &world.store->counters;
    return c->put_requests + c->get_requests + c->head_requests + c->list_requests +
           c->delete_requests;
}

static struct sample
take_sample(void)
{
    struct sample s;
    uint64_t all = requests();
    s.objects = memory_store_count(world.store, "", &s.bytes);
    s.blobs = memory_store_count(world.store, "checkpoints/", NULL);
    s.records = memory_store_count(world.store, "manifests/acme/1/record-", NULL);
    s.catalogs = memory_store_count(world.store, "manifests/acme/1/catalog-", NULL);
    s.requests = all - requests_before;
    requests_before = all;
    return s;
}

static void
print_sample(FILE *out, unsigned day, const struct sample *s, const struct collect_result *c)
{
    fprintf(out,
        "%u %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64
        " %" PRIu64 "\n",
        day, s->objects, s->bytes, s->blobs, s->records, s->catalogs, c->retained, c->expired,
        s->requests);
    fflush(out);
}

static void
live(unsigned days, unsigned every, FILE *out, struct sample *samples)
{
    struct collect_result result = {0};
    fprintf(out, "# day objects bytes blobs records catalogs retained expired requests\n");
    for (unsigned minute = 1; minute <= days * DAY_MINUTES; minute++) {
        unsigned day = minute / DAY_MINUTES;
        memory_store_pass(world.store, MINUTE_MS);
        if (minute % every == 0) {
            fold();
            publish(minute % 4323 == 0);
        }
        if (minute % 10 == 0)
            collect(minute, &result);
        if (minute % (30 * DAY_MINUTES) == 700)
            take_over();
        if (minute % (7 * DAY_MINUTES) == 100)
            snapshots(day);
        if (minute % DAY_MINUTES == 0) {
            samples[day - 1] = take_sample();
            print_sample(out, day, &samples[day - 1], &result);
        }
    }
}

static uint64_t
most(const struct sample *samples, unsigned from, unsigned to, bool bytes)
{
    uint64_t max = 0;
    for (unsigned i = from; i < to; i++) {
        uint64_t v = bytes ? samples[i].bytes : samples[i].objects;
        max = v > max ? v : max;
    }
    return max;
}

START_TEST(bucket_does_not_grow)
{
    unsigned days = getenv("CKPTFS_TEST_LONG") ? LONG_DAYS : SHORT_DAYS;
    const char *table = getenv("CKPTFS_TEST_TABLE");
    FILE *out = table ? fopen(table, "w") : stdout;
    struct sample *samples = memory_alloc_zero(days * sizeof(*samples));
    ck_assert_ptr_nonnull(out);
    world.directory = unit_directory_new();
    world.store = memory_store_new();
    root_open(&roots[0], &world, "a", 1);
    root_open(&roots[1], &world, "b", 2);
    owner = &roots[0];
    other = &roots[1];
    root_begin(owner);
    struct change c = {.kind = CHANGE_PUT_RETENTION, .retention = retention_default};
    ck_assert_int_eq(remote_manifest_tell(&owner->place, owner->m, owner->db.id, &c, 1, 0), 0);
    live(days, days == LONG_DAYS ? 1 : 3, out, samples);
    if (days > 2 * SETTLED_DAYS) {
        // The weekly generations of the first weeks have come and gone.
        for (int bytes = 0; bytes < 2; bytes++) {
            uint64_t early = most(samples, SETTLED_DAYS, 2 * SETTLED_DAYS, bytes);
            ck_assert_uint_le(most(samples, 2 * SETTLED_DAYS, days, bytes), early + early / 20);
        }
    } else {
        // What a day leaves stays for the grace, and no longer.
        ck_assert_uint_le(
            samples[days - 1].objects, samples[days - 2].objects + samples[days - 2].objects / 10);
    }
    if (table)
        fclose(out);
    root_close(&roots[0]);
    root_close(&roots[1]);
    remote_store_close(world.store);
    unit_directory_remove(world.directory);
    free(samples);
}
END_TEST

int
main(void)
{
    Suite *s = suite_create("retention_simulator");
    unit_add(s, "bucket_does_not_grow", bucket_does_not_grow, 1500);
    return unit_run(s);
}
