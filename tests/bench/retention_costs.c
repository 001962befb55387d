// SPDX-License-Identifier: Apache-2.0
// What snapshots, expiry and CheckpointGC cost, over catalogues of different sizes and numbers of
// retained generations. The store is in memory and counts; the catalogue is synthetic: files of
// 1 MiB, 64 of them in a blob. Each generation changes the same ten files. The number of requests
// may depend on neither size nor number.
//
// CKPTFS_TEST_LONG: prints the table of doc/retention.md, else only small catalogues are compared.
#include "remote_world.h"

#include <inttypes.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "base/checksum.h"
#include "memory_store.h"
#include "platform/clock.h"
#include "platform/memory.h"
#include "retention/collect.h"
#include "retention/snapshot.h"
#include "store/blob_key.h"

#define HOUR_MS        ((uint64_t)3600 * 1000)
#define FILES_PER_GIB  1024u
#define FILES_PER_BLOB 64u
#define CHANGED        10u
#define RECORDS_AFTER  8u // records that lie behind the newest catalog when the costs are taken

static struct world world;
static struct root owner;
static uint64_t blobs;

// ---- generations --------------------------------------------------------------------------------

struct fold {
    struct manifest_batch *b;
    uint64_t g;
};

static void
add(struct fold *f, const struct change *c)
{
    manifest_batch_change(f->b, c, true, (struct generation){f->g});
}

static struct sha256
add_blob(struct fold *f)
{
    char text[32];
    int n = snprintf(text, sizeof(text), "blob %" PRIu64, ++blobs);
    struct change c = {
        .kind = CHANGE_PUT_BLOB,
        .blob = {.bytes = FILES_PER_BLOB << 20,
            .kind = BLOB_OBJECT_PACK,
            .checkpoint_id = {{(uint8_t)f->g, (uint8_t)(f->g >> 8)}},
            .generation = {f->g},
            .where = BLOB_WHERE_OWN},
    };
    sha256_of(text, (size_t)n, &c.blob.hash);
    manifest_batch_change(f->b, &c, false, (struct generation){f->g});
    return c.blob.hash;
}

static void
add_chunk(struct fold *f, uint64_t file, const struct sha256 *blob, unsigned place)
{
    struct change c = {.kind = CHANGE_PUT_CHUNK};
    c.chunk = (struct chunk_entry){
        .id = {file + 1},
        .object = {file + 2},
        .generation = {f->g},
        .base_generation = {f->g},
        .base = {.blob = *blob,
            .offset = (uint64_t)place << 20,
            .length = 1u << 20,
            .index_offset = 1u << 19},
        .base_pages = 256,
        .present_pages = 256,
    };
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
add_file(struct fold *f, uint64_t file)
{
    char name[32];
    int n = snprintf(name, sizeof(name), "file-%" PRIu64, file);
    struct change c = {.kind = CHANGE_PUT_DIRENT};
    c.dirent = (struct dirent_record){
        .parent = OBJECT_ROOT_DIRECTORY,
        .cookie = (file + 2) << DIRENT_SLOT_BITS,
        .object = {file + 2},
        .type = DT_REG,
        .name_length = (uint8_t)n,
        .name = name,
    };
    add_inode(f, file + 2, S_IFREG | 0644, 1, 1 << 20);
    add(f, &c);
}

static void
end_fold(struct fold *f, uint64_t files)
{
    struct db_counters counters = {.next_object = files + 2, .next_chunk = files + 1};
    manifest_batch_local_generation(f->b, (struct generation){f->g}, (struct lsn){f->g * 1000},
        counters, memory_store_now_ms(world.store));
    ck_assert_int_eq(manifest_submit(owner.m, f->b, NULL), 0);
    ck_assert_int_eq(manifest_find_db(owner.m, "main", "acme", 1, &owner.db), 0);
}

static void
fold_first(uint64_t files)
{
    struct fold f = {manifest_batch_new(owner.db.id), owner.db.next.v};
    struct sha256 blob = {0};
    add_inode(&f, 1, S_IFDIR | 0755, 2, files);
    for (uint64_t i = 0; i < files; i++) {
        if (i % FILES_PER_BLOB == 0)
            blob = add_blob(&f);
        add_file(&f, i);
        add_chunk(&f, i, &blob, i % FILES_PER_BLOB);
    }
    end_fold(&f, files);
}

static void
fold_next(uint64_t files)
{
    struct fold f = {manifest_batch_new(owner.db.id), owner.db.next.v};
    struct sha256 blob = add_blob(&f);
    for (unsigned i = 0; i < CHANGED; i++)
        add_chunk(&f, i, &blob, i);
    end_fold(&f, files);
}

static void
publish(bool catalogs)
{
    static const char bytes[] = "a blob";
    struct remote_staged staged;
    struct remote_upload *uploads;
    size_t count;
    struct remote_place *place = &owner.place;
    ck_assert_int_eq(
        remote_manifest_stage_generation(place, owner.m, owner.db.id, &staged, &uploads, &count),
        0);
    for (size_t i = 0; i < count; i++) {
        BUFFER_AUTO key = {0};
        struct remote_source s = {.data = bytes, .length = sizeof(bytes)};
        blob_key("acme", 1, &uploads[i].blob, &key);
        ck_assert_int_eq(
            remote_store_put_blob(world.store, buffer_string(&key), &s, REMOTE_PUT_OVERWRITE, NULL),
            0);
    }
    ck_assert_int_eq(remote_manifest_publish(place, &staged), 0);
    ck_assert_int_eq(
        remote_manifest_record_publication(place, owner.m, owner.db.id, &staged, uploads, count, 0),
        0);
    if (staged.catalog && catalogs)
        ck_assert_int_eq(
            remote_manifest_put_catalog(place, owner.m, owner.db.id, staged.catalog), 0);
    free(uploads);
    remote_staged_free(&staged);
}

static void
set_policy(unsigned last)
{
    struct change c = {.kind = CHANGE_PUT_RETENTION,
        .retention = {.keep_all = last == 0, .last = last, .grace_ms = HOUR_MS}};
    ck_assert_int_eq(remote_manifest_tell(&owner.place, owner.m, owner.db.id, &c, 1, 0), 0);
}

static void
make_generations(unsigned gib, unsigned generations)
{
    uint64_t files = (uint64_t)gib * FILES_PER_GIB;
    set_policy(0);
    fold_first(files);
    publish(true);
    for (unsigned i = 1; i < generations - RECORDS_AFTER; i++) {
        memory_store_pass(world.store, 60000);
        fold_next(files);
        publish(true);
    }
    ck_assert_int_eq(remote_manifest_write_catalog(&owner.place, owner.m, owner.db.id), 0);
    for (unsigned i = 0; i < RECORDS_AFTER; i++) {
        memory_store_pass(world.store, 60000);
        fold_next(files);
        publish(false);
    }
}

// ---- costs --------------------------------------------------------------------------------------

enum { SNAPSHOT_CREATE, SNAPSHOT_DROP, GC_IDLE, GC_EXPIRE, GC_FREE, GC_EXPIRE_5, GC_FREE_5, COSTS };
static const char *const names[COSTS] = {"snapshot create", "snapshot drop", "gc, nothing to do",
    "gc, one generation expires", "gc, one is deleted", "gc, five expire", "gc, five are deleted"};

struct cost {
    uint64_t puts, gets, heads, lists, deletes;
    uint64_t bytes_read, bytes_written, cpu_us, memory_kib;
};

static uint64_t
cpu_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

// Of the process, in KiB: "VmRSS:", and "VmHWM:" since the last reset.
static uint64_t
memory_kib(const char *what)
{
    BUFFER_AUTO text = {0};
    ck_assert_int_eq(file_read_whole("/proc/self/status", 65536, &text), 0);
    const char *line = strstr(buffer_string(&text), what);
    return line ? strtoull(line + strlen(what), NULL, 10) : 0;
}

static void
reset_memory(void)
{
    FILE *f = fopen("/proc/self/clear_refs", "w");
    if (!f)
        return;
    fputs("5", f);
    fclose(f);
}

static struct cost
begin_cost(void)
{
    const struct remote_store_counters *c = &world.store->counters;
    reset_memory();
    return (struct cost){c->put_requests, c->get_requests, c->head_requests, c->list_requests,
        c->delete_requests, c->bytes_read, c->bytes_written, cpu_us(), memory_kib("VmRSS:")};
}

static struct cost
end_cost(const struct cost *begin)
{
    const struct remote_store_counters *c = &world.store->counters;
    uint64_t now_us = cpu_us();
    uint64_t peak = memory_kib("VmHWM:");
    return (struct cost){c->put_requests - begin->puts, c->get_requests - begin->gets,
        c->head_requests - begin->heads, c->list_requests - begin->lists,
        c->delete_requests - begin->deletes, c->bytes_read - begin->bytes_read,
        c->bytes_written - begin->bytes_written, now_us - begin->cpu_us,
        peak > begin->memory_kib ? peak - begin->memory_kib : 0};
}

static struct cost
cost_of_snapshot(bool drop)
{
    BUFFER_AUTO problem = {0};
    struct cost begin = begin_cost();
    int rc = drop ? snapshot_drop(&owner.place, "here", &problem)
                  : snapshot_create(&owner.place, "here", owner.db.local, &problem);
    ck_assert_msg(rc == 0, "%s", buffer_string(&problem));
    return end_cost(&begin);
}

static struct cost
cost_of_run(struct generation *scanned, uint64_t expired, uint64_t freed)
{
    struct collect_result result;
    const struct collect_options options = {
        .place = &owner.place, .manifest = owner.m, .db = owner.db.id, .scanned = *scanned};
    struct cost begin = begin_cost();
    ck_assert_int_eq(collect_run(&options, &result), 0);
    struct cost cost = end_cost(&begin);
    ck_assert_uint_eq(result.expired_now, expired);
    ck_assert_uint_eq(result.freed, freed);
    *scanned = result.scanned;
    return cost;
}

// The oldest `count` generations expire, and go.
static void
take_down(struct generation *scanned, unsigned keep, unsigned count, struct cost *expire,
    struct cost *delete)
{
    set_policy(keep);
    *expire = cost_of_run(scanned, count, 0);
    memory_store_pass(world.store, 2 * HOUR_MS);
    *delete = cost_of_run(scanned, 0, count);
}

static void
measure(unsigned gib, unsigned generations, struct cost costs[COSTS])
{
    struct generation scanned = {0};
    blobs = 0;
    world.directory = unit_directory_new();
    world.store = memory_store_new();
    root_open(&owner, &world, "owner", 1);
    root_begin(&owner);
    make_generations(gib, generations);
    costs[SNAPSHOT_CREATE] = cost_of_snapshot(false);
    costs[SNAPSHOT_DROP] = cost_of_snapshot(true);
    (void)cost_of_run(&scanned, 0, 0);
    costs[GC_IDLE] = cost_of_run(&scanned, 0, 0);
    // All blobs of the first generation are needed by others.
    take_down(&scanned, generations - 1, 1, &costs[GC_EXPIRE], &costs[GC_FREE]);
    take_down(&scanned, generations - 2, 1, &costs[GC_EXPIRE], &costs[GC_FREE]);
    take_down(&scanned, generations - 7, 5, &costs[GC_EXPIRE_5], &costs[GC_FREE_5]);
    root_close(&owner);
    remote_store_close(world.store);
    unit_directory_remove(world.directory);
}

static void
print_costs(unsigned gib, unsigned generations, const struct cost costs[COSTS])
{
    for (int i = 0; i < COSTS; i++) {
        const struct cost *c = &costs[i];
        printf("| %u | %u | %s | %" PRIu64 " PUT, %" PRIu64 " GET, %" PRIu64 " HEAD, %" PRIu64
               " LIST, %" PRIu64 " DELETE | %.1f | %.2f | %" PRIu64 " |\n",
            gib, generations, names[i], c->puts, c->gets, c->heads, c->lists, c->deletes,
            (double)(c->bytes_read + c->bytes_written) / 1024, (double)c->cpu_us / 1000,
            c->memory_kib);
    }
    fflush(stdout);
}

static void
expect_equal(const struct cost *a, const struct cost *b)
{
    for (int i = 0; i < COSTS; i++)
        ck_assert_msg(a[i].puts == b[i].puts && a[i].gets == b[i].gets &&
                          a[i].heads == b[i].heads && a[i].lists == b[i].lists &&
                          a[i].deletes == b[i].deletes,
            "%s sends another number of requests", names[i]);
}

START_TEST(requests_depend_on_changes_alone)
{
    static const unsigned sizes[][2] = {{1, 20}, {1, 100}, {4, 20}, // and in the long variant:
        {1, 10 + RECORDS_AFTER}, {10, 100}, {10, 1000}, {100, 100}, {100, 1000}};
    size_t n = getenv("CKPTFS_TEST_LONG") ? ARRAY_LENGTH(sizes) : 3;
    struct cost first[COSTS], costs[COSTS];
    for (size_t i = 0; i < n; i++) {
        measure(sizes[i][0], sizes[i][1], i == 0 ? first : costs);
        print_costs(sizes[i][0], sizes[i][1], i == 0 ? first : costs);
        if (i > 0)
            expect_equal(first, costs);
    }
    // A deletion for each generation that goes, and one record for the run.
    ck_assert_uint_eq(first[GC_FREE].deletes, 1);
    ck_assert_uint_eq(first[GC_FREE_5].deletes, 5);
    ck_assert_uint_eq(first[GC_FREE_5].puts, 1);
}
END_TEST

int
main(void)
{
    Suite *s = suite_create("retention_costs");
    unit_add(s, "requests_depend_on_changes_alone", requests_depend_on_changes_alone, 600);
    return unit_run(s);
}
