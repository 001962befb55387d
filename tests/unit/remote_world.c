// SPDX-License-Identifier: Apache-2.0
#include "remote_world.h"

#include <dirent.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

#include "base/checksum.h"
#include "platform/clock.h"
#include "platform/memory.h"
#include "platform/random.h"

// ---- the bucket ---------------------------------------------------------------------------------

void
world_open(struct world *w)
{
    char *directory = unit_directory_new();
    world_join(w, directory);
    free(directory);
}

void
world_join(struct world *w, const char *directory)
{
    w->directory = memory_string(directory);
    w->bucket = memory_printf("%s/bucket", w->directory);
    struct remote_store *file;
    ck_assert_int_eq(file_store_open(w->bucket, true, &file_ops_system, &file), 0);
    w->faults = fault_store_wrap(file, NULL);
    w->store = w->faults;
}

void
world_close(struct world *w)
{
    remote_store_close(w->store);
    free(w->bucket);
    unit_directory_remove(w->directory);
}

char *
world_path(const struct world *w, const char *kind, uint64_t number)
{
    return memory_printf("%s/manifests/acme/1/%s%016" PRIx64, w->bucket, kind, number);
}

void
world_read(const struct world *w, const char *kind, uint64_t number, struct buffer *out)
{
    char *path = world_path(w, kind, number);
    ck_assert_int_eq(file_read_whole(path, 1u << 30, out), 0);
    free(path);
}

void
world_write(const struct world *w, const char *kind, uint64_t number, const void *p, size_t n)
{
    char *path = world_path(w, kind, number);
    ck_assert_int_eq(file_replace_whole(&file_ops_system, path, p, n, 0600), 0);
    free(path);
}

size_t
world_count(const struct world *w, const char *kind)
{
    char *path = memory_printf("%s/manifests/acme/1", w->bucket);
    DIR *d = opendir(path);
    ck_assert_ptr_nonnull(d);
    size_t count = 0;
    for (struct dirent *e; (e = readdir(d));)
        count += strncmp(e->d_name, kind, strlen(kind)) == 0;
    closedir(d);
    free(path);
    return count;
}

static void
age_directory(const char *path, uint64_t ms)
{
    DIR *d = opendir(path);
    ck_assert_ptr_nonnull(d);
    for (struct dirent *e; (e = readdir(d));) {
        struct stat st;
        if (e->d_name[0] == '.')
            continue;
        char *inner = memory_printf("%s/%s", path, e->d_name);
        ck_assert_int_eq(stat(inner, &st), 0);
        if (S_ISDIR(st.st_mode)) {
            age_directory(inner, ms);
        } else {
            st.st_mtim.tv_sec -= (time_t)(ms / 1000);
            struct timespec times[2] = {st.st_mtim, st.st_mtim};
            ck_assert_int_eq(utimensat(AT_FDCWD, inner, times, 0), 0);
        }
        free(inner);
    }
    closedir(d);
}

void
world_age(const struct world *w, uint64_t ms)
{
    age_directory(w->bucket, ms);
}

// ---- roots --------------------------------------------------------------------------------------

void
root_open(struct root *r, struct world *w, const char *name, uint8_t salt)
{
    root_open_volume(r, w, name, salt, 1);
}

void
root_open_volume(
    struct root *r, struct world *w, const char *name, uint8_t salt, uint32_t volume_number)
{
    *r = (struct root){.world = w, .salt = salt};
    r->directory = memory_printf("%s/%s", w->directory, name);
    r->scratch = memory_printf("%s/scratch", r->directory);
    ck_assert_int_eq(path_make_directories(r->scratch, 0700), 0);
    char *path = memory_printf("%s/manifest", r->directory);
    struct manifest_options options = {.no_sync = true};
    ck_assert_int_eq(manifest_open(path, &options, &r->m), 0);
    free(path);
    r->place = (struct remote_place){
        .store = w->store,
        .tenant = "acme",
        .volume_number = volume_number,
        .writer = manifest_root_id(r->m),
        .scratch = r->scratch,
    };
}

void
root_close(struct root *r)
{
    // Nothing of staging and importing may be left.
    DIR *d = opendir(r->scratch);
    ck_assert_ptr_nonnull(d);
    for (struct dirent *e; (e = readdir(d));)
        ck_assert_msg(e->d_name[0] == '.', "%s was left in scratch", e->d_name);
    closedir(d);
    manifest_close(r->m);
    free(r->directory);
    free(r->scratch);
}

struct db_record
root_new_db(struct root *r, const char *name)
{
    struct db_record db = {.state = DB_STATE_IMPORTING, .volume_number = r->place.volume_number};
    snprintf(db.place, sizeof(db.place), "%s", name);
    snprintf(db.tenant, sizeof(db.tenant), "acme");
    ck_assert_int_eq(manifest_create_db(r->m, &db), 0);
    return db;
}

void
root_import(struct root *r)
{
    if (r->db.id.v)
        ck_assert_int_eq(manifest_remove_db(r->m, r->db.id), 0);
    r->db = root_new_db(r, "main");
    ck_assert_int_eq(remote_manifest_import(&r->place, r->m, &r->db, (struct generation){0}), 0);
}

int
root_claim(struct root *r, bool takeover, struct remote_lease *lease)
{
    struct remote_lease ignored;
    return remote_manifest_claim(
        &r->place, r->m, &r->db, WORLD_TTL_MS, takeover, lease ? lease : &ignored);
}

void
root_begin(struct root *r)
{
    struct uuid volume = random_uuid(), name_key = random_uuid();
    ck_assert_int_eq(remote_manifest_create(&r->place, &volume, &name_key, NULL), 0);
    root_import(r);
    ck_assert_int_eq(root_claim(r, false, NULL), 0);
}

// ---- content ------------------------------------------------------------------------------------
//
// Generation g makes object g + 1 with chunk g, adds a delta to the chunk of g - 1, deletes the
// object of g - 3 when 5 divides g, and gives the chunk of g - 2 a new base when 7 divides g.

struct fold {
    struct root *r;
    uint64_t g;
    struct manifest_batch *batch;
};

static void
add(struct fold *f, const struct change *c)
{
    manifest_batch_change(f->batch, c, true, (struct generation){f->g});
}

static struct timestamp
time_of(uint64_t g)
{
    return (struct timestamp){(int64_t)(1700000000 + g), 5};
}

static void
add_inode(struct fold *f, uint64_t object, uint32_t mode, uint32_t nlink, uint64_t size)
{
    struct timestamp t = time_of(f->g);
    struct change c = {
        .kind = CHANGE_PUT_INODE,
        .object = {object},
        .inode = {.mode = mode,
            .nlink = nlink,
            .size = size,
            .atime = t,
            .mtime = t,
            .ctime = t,
            .btime = t,
            .link_target = ""},
    };
    add(f, &c);
}

static void
add_dirent(struct fold *f, enum change_kind kind, uint64_t object)
{
    char name[32];
    int n = snprintf(name, sizeof(name), "file-%" PRIu64, object);
    struct change c = {
        .kind = kind,
        .dirent = {.parent = OBJECT_ROOT_DIRECTORY,
            .cookie = object << DIRENT_SLOT_BITS,
            .object = {object},
            .type = DT_REG,
            .name_length = (uint8_t)n,
            .name = name},
    };
    add(f, &c);
}

// A blob of the present generation and where its only image lies.
static struct blob_location
add_blob(struct fold *f, char what, enum blob_object_kind kind, uint64_t chunk)
{
    char text[64];
    int n = snprintf(text, sizeof(text), "%c %" PRIu64 " %u", what, f->g, f->r->salt);
    struct blob_location where = {.length = 8192, .index_offset = 4096};
    sha256_of(text, (size_t)n, &where.blob);
    struct change c = {
        .kind = CHANGE_PUT_BLOB,
        .blob = {.hash = where.blob,
            .bytes = 8192,
            .kind = (uint8_t)kind,
            .checkpoint_id = {{(uint8_t)f->g, f->r->salt}},
            .chunk = {chunk},
            .generation = {f->g}},
    };
    add(f, &c);
    return where;
}

static void
add_chunk(struct fold *f, char what, uint64_t chunk)
{
    struct change c = {.kind = CHANGE_PUT_CHUNK};
    c.chunk = (struct chunk_entry){
        .id = {chunk},
        .object = {chunk + 1},
        .generation = {f->g},
        .base_generation = {f->g},
        .base = add_blob(f, what, BLOB_OBJECT_CHUNK, chunk),
        .base_pages = 1,
        .present_pages = 2,
    };
    add(f, &c);
}

static void
add_delta(struct fold *f, uint64_t chunk)
{
    struct change c = {.kind = CHANGE_PUT_DELTA};
    c.delta = (struct chunk_delta){
        .chunk = {chunk},
        .generation = {f->g},
        .where = add_blob(f, 'd', BLOB_OBJECT_DELTA, chunk),
        .data_pages = 1,
    };
    add(f, &c);
}

static void
add_bulk(struct fold *f, size_t bytes)
{
    static uint8_t value[60000];
    for (unsigned i = 0; bytes > 0; i++) {
        char name[32];
        int n = snprintf(name, sizeof(name), "user.%u", i);
        size_t length = bytes < sizeof(value) ? bytes : sizeof(value);
        random_bytes(value, length);
        struct change c = {
            .kind = CHANGE_PUT_XATTR,
            .xattr = {.object = {f->g + 1},
                .name_length = (uint8_t)n,
                .name = name,
                .value_length = (uint32_t)length,
                .value = value},
        };
        add(f, &c);
        bytes -= length;
    }
}

void
root_fold(struct root *r, size_t bulk)
{
    struct db_record *db = &r->db;
    uint64_t g = db->local.v + 1;
    struct fold f = {.r = r, .g = g, .batch = manifest_batch_new(db->id)};
    add_inode(&f, 1, S_IFDIR | 0755, 2, g - g / 5);
    add_inode(&f, g + 1, S_IFREG | 0644, 1, 5000);
    add_dirent(&f, CHANGE_PUT_DIRENT, g + 1);
    add_bulk(&f, 100 + bulk);
    add_chunk(&f, 'c', g);
    if (g >= 2)
        add_delta(&f, g - 1);
    if (g % 5 == 0) {
        struct change c = {.kind = CHANGE_DELETE_INODE, .object = {g - 2}};
        add_dirent(&f, CHANGE_DELETE_DIRENT, g - 2);
        add(&f, &c);
    }
    if (g % 7 == 0)
        add_chunk(&f, 'b', g - 2);
    struct db_counters counters = {.next_object = g + 2, .next_chunk = g + 1};
    manifest_batch_local_generation(
        f.batch, (struct generation){g}, (struct lsn){g * 1000}, counters, 1700000000000 + g);
    struct uuid id = random_uuid();
    manifest_batch_checkpoint_id(f.batch, (struct generation){g}, &id);
    manifest_batch_next_generation(f.batch, (struct generation){g + 1});
    struct manifest_released released = {0};
    ck_assert_int_eq(manifest_submit(r->m, f.batch, &released), 0);
    manifest_released_free(&released);
    ck_assert_int_eq(manifest_find_db(r->m, db->place, "acme", 1, db), 0);
    ck_assert_uint_eq(db->local.v, g);
}

// ---- publishing ---------------------------------------------------------------------------------

static int
publish(struct root *r, bool record)
{
    struct remote_staged staged;
    struct remote_upload *uploads;
    size_t count;
    int rc = remote_manifest_stage_generation(&r->place, r->m, r->db.id, &staged, &uploads, &count);
    if (rc < 0)
        return rc;
    rc = remote_manifest_publish(&r->place, &staged);
    if (rc == 0 && record)
        rc = remote_manifest_record_publication(
            &r->place, r->m, r->db.id, &staged, uploads, count, 0);
    free(uploads);
    remote_staged_free(&staged);
    ck_assert_int_eq(manifest_find_db(r->m, r->db.place, "acme", 1, &r->db), 0);
    return rc;
}

int
root_publish(struct root *r)
{
    return publish(r, true);
}

int
root_publish_and_forget(struct root *r)
{
    return publish(r, false);
}

// ---- comparing ----------------------------------------------------------------------------------

static int
dump_change(void *argument, const struct change *change)
{
    change_encode(change, argument);
    return 0;
}

void
root_dump(struct manifest *m, struct db_id db, struct buffer *out)
{
    buffer_clear(out);
    struct manifest_reader *reader;
    ck_assert_int_eq(manifest_read_begin(m, &reader), 0);
    ck_assert_int_eq(manifest_export(reader, db, dump_change, out), 0);
    manifest_read_end(reader);
}

void
root_assert_equal(const struct root *r, const struct buffer *expected)
{
    BUFFER_AUTO dump = {0};
    root_dump(r->m, r->db.id, &dump);
    ck_assert_uint_eq(dump.length, expected->length);
    ck_assert_int_eq(memcmp(dump.data, expected->data, dump.length), 0);
    ck_assert_int_eq(manifest_check(r->m, r->db.id), 0);
}

uint64_t
root_unpublished_blobs(struct root *r)
{
    struct manifest_reader *reader;
    struct db_totals totals;
    ck_assert_int_eq(manifest_read_begin(r->m, &reader), 0);
    ck_assert_int_eq(manifest_read_totals(reader, r->db.id, &totals), 0);
    manifest_read_end(reader);
    return totals.unpublished_blobs;
}
