// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include "manifest/manifest.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "manifest/manifest_internal.h"
#include "platform/file.h"
#include "platform/log.h"
#include "platform/memory.h"
#include "platform/path.h"
#include "platform/random.h"

// Address space for the map, from the wanted size to the least; only used pages are in the file.
static const uint64_t map_sizes[] = {64ull << 30, 4ull << 30, 64ull << 20};

// A small file beside LMDB's says that there is an environment. When LMDB's own file then is gone
// or empty, something has taken it away, and starting anew would hide that.
#define MARKER_NAME "format"
#define MARKER_TEXT "ckptfs manifest 1\n"

// Up to this size opening the manifest looks at all entries, which takes well below a second.
#define VERIFIED_BYTES_MAX (128ull << 20)

// Entries in a step of manifest_sweep_step: about a millisecond.
#define SWEEP_STEP 1024u

// ---- opening ------------------------------------------------------------------------------------

static int
open_failed(const char *what, int error)
{
    log_error("manifest.open_failed", "%s: %s", what, strerror(-error));
    return error;
}

// Looks at `name` in the directory, whose own last component may be no link, either. Links are not
// followed: a file elsewhere says nothing about this root.
static int
look_below(const char *directory, const char *name, struct stat *st_out)
{
    CLEANUP(file_close_auto)
    int fd = path_open(directory, O_PATH | O_DIRECTORY, 0);
    if (fd < 0)
        return fd;
    return fstatat(fd, name, st_out, AT_SYMLINK_NOFOLLOW) < 0 ? -errno : 0;
}

static int
check_marker(const char *directory)
{
    struct stat st;
    int rc = look_below(directory, MARKER_NAME, &st);
    if (rc < 0)
        return rc == -ENOENT ? 0 : open_failed(directory, rc);
    rc = look_below(directory, "data.mdb", &st);
    if (rc == 0 && S_ISREG(st.st_mode) && st.st_size > 0)
        return 0;
    // A person has put the link there; no damage makes one.
    if (rc == 0 && S_ISLNK(st.st_mode))
        return open_failed(directory, -ELOOP);
    log_error("manifest.damaged", "%s/data.mdb is missing, empty or no file", directory);
    return -EBADMSG;
}

static int
write_marker(const char *directory)
{
    CLEANUP(memory_free_auto) char *marker = memory_printf("%s/" MARKER_NAME, directory);
    struct stat st;
    if (look_below(directory, MARKER_NAME, &st) == 0)
        return 0;
    return file_replace_whole(&file_ops_system, marker, MARKER_TEXT, sizeof(MARKER_TEXT) - 1, 0600);
}

static int
open_env(struct manifest *m, const char *directory, const struct manifest_options *options)
{
    schema_key_runtime(&m->root_key, RUNTIME_ROOT, (struct db_id){0});
    struct lmdb_options lmdb = {
        .no_sync = options->no_sync,
        .tables = manifest_table_names,
        .table_count = TABLE_COUNT,
        .plain_table = TABLE_RUNTIME_STATE,
        .plain_key = {m->root_key.bytes, m->root_key.length},
    };
    if (options->map_bytes > 0) {
        lmdb.map_bytes = options->map_bytes;
        int rc = lmdb_env_open(directory, &lmdb, &m->env);
        return rc == -ENOMEM ? open_failed(directory, rc) : rc;
    }
    int rc = -ENOMEM;
    for (size_t i = 0; i < ARRAY_LENGTH(map_sizes) && rc == -ENOMEM; i++) {
        lmdb.map_bytes = map_sizes[i];
        rc = lmdb_env_open(directory, &lmdb, &m->env);
    }
    return rc == -ENOMEM ? open_failed(directory, rc) : rc;
}

// Reads the root's identity from an item: 1, or 0 when there is no such item.
static int
read_root(struct lmdb_txn *txn, enum runtime_item item, uint32_t *format, struct uuid *id)
{
    struct schema_key key;
    struct lmdb_value value;
    schema_key_runtime(&key, item, (struct db_id){0});
    int rc = lmdb_get(txn, TABLE_RUNTIME_STATE, key.bytes, key.length, &value);
    if (rc < 0)
        return rc == -ENOENT ? 0 : rc;
    return schema_decode_root(value.data, value.length, format, id)
               ? 1
               : manifest_bad_entry(TABLE_RUNTIME_STATE);
}

static int
write_root(struct manifest *m, struct lmdb_txn *txn)
{
    static const enum runtime_item items[] = {RUNTIME_ROOT, RUNTIME_SEALED};
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < ARRAY_LENGTH(items); i++) {
        BUFFER_AUTO bytes = {0};
        struct schema_key key;
        schema_key_runtime(&key, items[i], (struct db_id){0});
        schema_encode_root(&m->root_id, &bytes);
        rc = lmdb_put(txn, TABLE_RUNTIME_STATE, key.bytes, key.length, bytes.data, bytes.length);
    }
    return rc;
}

static int
contradiction(const char *what)
{
    log_error("manifest.damaged", "the storage root's own record: %s", what);
    return -EBADMSG;
}

// A root marked as sealed: the seals hold, and the sealed copy says the same.
static int
adopt_sealed(struct manifest *m, struct lmdb_txn *txn, uint32_t root_format)
{
    uint32_t format;
    struct uuid id;
    lmdb_use_seals(txn);
    int rc = read_root(txn, RUNTIME_SEALED, &format, &id);
    if (rc < 0)
        return rc;
    if (rc == 0)
        return contradiction("it has no copy with a checksum");
    if (format != root_format || !uuid_equal(&id, &m->root_id))
        return contradiction("it is not what its copy says");
    // Version 3 changes nothing but that older programs refuse the root.
    if (root_format != MANIFEST_FORMAT_VERSION)
        rc = write_root(m, txn);
    if (rc < 0)
        return rc;
    return lmdb_used_bytes(txn) <= VERIFIED_BYTES_MAX ? lmdb_verify(txn) : 0;
}

// A root without a manifest may have had one. Its file may be there by now, without the identity:
// the process that made it died there, or got no further.
static int
find_new_root_id(struct manifest *m)
{
    const struct manifest_options *o = m->options;
    struct uuid former = {0};
    int rc = o->find_former_id ? o->find_former_id(o->argument, &former) : 0;
    m->root_id = uuid_is_zero(&former) ? random_uuid() : former;
    return rc;
}

// A root of an older program, or a new one. A root with seals may not be taken for one of these.
static int
seal_root(struct manifest *m, struct lmdb_txn *txn, bool is_new)
{
    uint32_t format;
    struct uuid id;
    // Read as if there were no seals: a seal makes the value too long.
    int rc = read_root(txn, RUNTIME_SEALED, &format, &id);
    if (rc != 0)
        return contradiction("it says that there are no checksums, and there are");
    if (is_new && !lmdb_is_empty(txn))
        return contradiction("it is missing");
    rc = is_new ? find_new_root_id(m) : 0;
    if (rc == 0)
        rc = lmdb_seal_all(txn);
    if (rc == 0)
        rc = write_root(m, txn);
    if (rc == 0 && !is_new)
        log_info("manifest.sealed", "the entries of the storage root have checksums from now on");
    return rc;
}

// Reads the root's identity, or makes it.
static int
load_root_in(struct manifest *m, struct lmdb_txn *txn)
{
    uint32_t format = 0;
    int rc = read_root(txn, RUNTIME_ROOT, &format, &m->root_id);
    if (rc < 0)
        return rc;
    if (rc == 0 || format == MANIFEST_FORMAT_UNSEALED)
        return seal_root(m, txn, rc == 0);
    if (format == MANIFEST_FORMAT_SEALED || format == MANIFEST_FORMAT_VERSION)
        return adopt_sealed(m, txn, format);
    log_error("manifest.format", "the storage root has format %u, this program knows %u", format,
        MANIFEST_FORMAT_VERSION);
    return format > MANIFEST_FORMAT_VERSION ? -ENOTSUP : -EBADMSG;
}

static int
load_root(struct manifest *m)
{
    for (;;) {
        struct lmdb_txn *txn;
        int rc = lmdb_write_begin(m->env, &txn);
        if (rc < 0)
            return rc;
        rc = load_root_in(m, txn);
        if (rc == 0)
            rc = lmdb_write_commit(txn);
        else
            lmdb_write_abort(txn);
        if (rc == LMDB_MAP_FULL)
            rc = lmdb_env_grow(m->env);
        else
            return rc;
        if (rc < 0)
            return rc;
    }
}

// ---- upgrading ----------------------------------------------------------------------------------

// Whether the deaths of the db's blobs have dates: 1 or 0.
static int
has_dates(struct lmdb_txn *txn, struct db_id db)
{
    struct schema_key key;
    struct lmdb_value value;
    schema_key_runtime(&key, RUNTIME_DATES, db);
    int rc = lmdb_get(txn, TABLE_RUNTIME_STATE, key.bytes, key.length, &value);
    return rc == 0 ? 1 : rc == -ENOENT ? 0 : rc;
}

// A db that was made before there were such dates: the next one after `*last`. 1, or 0 when there
// is none.
static int
find_undated_db(struct manifest_reader *r, struct db_id *last)
{
    struct lmdb_txn *txn = manifest_reader_txn(r);
    struct schema_key from;
    struct table_walk w;
    schema_key_db(&from, (struct db_id){last->v + 1});
    int rc = table_walk_begin(&w, txn, TABLE_DB, &from, 0);
    while (rc > 0) {
        rc = schema_read_db(w.key.data, w.key.length, last) ? has_dates(txn, *last)
                                                            : manifest_bad_entry(TABLE_DB);
        if (rc == 0) {
            rc = 1;
            break;
        }
        if (rc > 0)
            rc = table_walk_next(&w);
    }
    table_walk_end(&w);
    return rc;
}

static int
upgrade_dbs(struct manifest *m)
{
    struct db_id db = {0};
    for (;;) {
        struct manifest_reader *r;
        int rc = manifest_read_begin(m, &r);
        if (rc < 0)
            return rc;
        rc = find_undated_db(r, &db);
        manifest_read_end(r);
        if (rc <= 0)
            return rc;
        struct manifest_batch *b = manifest_batch_new(db);
        manifest_batch_date_deaths(b);
        rc = manifest_submit(m, b, NULL);
        if (rc < 0)
            return rc;
    }
}

static int
open_all(struct manifest *m, const char *directory, const struct manifest_options *options)
{
    int rc = path_make_directories(directory, 0700);
    if (rc < 0)
        return open_failed(directory, rc);
    rc = check_marker(directory);
    if (rc == 0)
        rc = open_env(m, directory, options);
    if (rc == 0)
        rc = load_root(m);
    if (rc == 0)
        rc = write_marker(directory);
    if (rc < 0)
        return rc;
    rc = manifest_writer_start(m);
    if (rc < 0)
        return open_failed("the writer thread", rc);
    rc = upgrade_dbs(m);
    if (rc < 0)
        manifest_writer_stop(m);
    return rc;
}

static void
free_manifest(struct manifest *m)
{
    lmdb_env_close(m->env);
    buffer_free(&m->known_dbs);
    condition_destroy(&m->wanted);
    lock_destroy(&m->lock);
    free(m);
}

int
manifest_open(
    const char *directory, const struct manifest_options *options, struct manifest **manifest_out)
{
    struct manifest *m = memory_alloc_zero(sizeof(*m));
    *manifest_out = NULL;
    lock_init(&m->lock, "manifest_queue", LOCK_RANK_MANIFEST);
    condition_init(&m->wanted);
    list_init(&m->queue);
    m->pace = options->pace;
    m->options = options;
    int rc = open_all(m, directory, options);
    if (rc < 0) {
        free_manifest(m);
        return rc;
    }
    m->options = NULL;
    *manifest_out = m;
    return 0;
}

void
manifest_close(struct manifest *m)
{
    if (!m)
        return;
    manifest_writer_stop(m);
    free_manifest(m);
}

struct uuid
manifest_root_id(const struct manifest *m)
{
    return m->root_id;
}

bool
manifest_is_lost(const struct manifest *m)
{
    return lmdb_env_is_lost(m->env);
}

uint64_t
manifest_damage(const struct manifest *m)
{
    return lmdb_env_damage(m->env);
}

int
manifest_sweep_step(struct manifest *m, struct manifest_sweep *s)
{
    struct lmdb_txn *txn;
    if (s->finished)
        return 0;
    int rc = lmdb_read_begin(m->env, &txn);
    if (rc < 0)
        return rc;
    struct lmdb_sweep at = {.table = s->table, .key_length = s->key_length};
    memcpy(at.key, s->key, s->key_length);
    rc = lmdb_sweep_step(txn, &at, SWEEP_STEP);
    lmdb_read_end(txn);
    s->entries += at.entries;
    s->damaged += at.damaged;
    s->table = at.table;
    s->key_length = at.key_length;
    memcpy(s->key, at.key, at.key_length);
    s->finished = at.table == TABLE_COUNT;
    return rc;
}

int
manifest_check_pages(struct manifest *m, bool always, manifest_go_on *go_on, void *argument)
{
    return lmdb_check_pages(m->env, always, go_on, argument);
}

// ---- dbs ----------------------------------------------------------------------------------------

static int
find_db(struct manifest_reader *r, const char *place, const char *tenant, uint32_t volume_number,
    struct db_record *db_out)
{
    struct schema_key from = {0};
    struct table_walk w;
    bool found = false;
    int rc = table_walk_begin(&w, manifest_reader_txn(r), TABLE_DB, &from, 0);
    while (rc > 0 && !found) {
        if (!schema_read_db(w.key.data, w.key.length, &db_out->id) ||
            !schema_decode_db(w.value.data, w.value.length, db_out))
            rc = manifest_bad_entry(TABLE_DB);
        else if (db_out->volume_number == volume_number && strcmp(db_out->place, place) == 0 &&
                 strcmp(db_out->tenant, tenant) == 0)
            found = true;
        else
            rc = table_walk_next(&w);
    }
    table_walk_end(&w);
    if (found)
        return manifest_read_db(r, db_out->id, db_out);
    return rc < 0 ? rc : -ENOENT;
}

int
manifest_find_db(struct manifest *m, const char *place, const char *tenant, uint32_t volume_number,
    struct db_record *db_out)
{
    struct manifest_reader *r;
    int rc = manifest_read_begin(m, &r);
    if (rc < 0)
        return rc;
    rc = find_db(r, place, tenant, volume_number, db_out);
    manifest_read_end(r);
    return rc;
}

int
manifest_create_db(struct manifest *m, struct db_record *db)
{
    if (!memchr(db->place, 0, sizeof(db->place)) || !memchr(db->tenant, 0, sizeof(db->tenant)))
        return -EINVAL;
    struct manifest_batch *b = manifest_batch_new((struct db_id){0});
    b->kind = BATCH_CREATE_DB;
    b->db_record = db;
    int rc = manifest_writer_commit(m, b);
    if (rc == 0)
        db->id = b->created;
    manifest_batch_free(b);
    return rc;
}

int
manifest_remove_db(struct manifest *m, struct db_id db)
{
    struct db_removal removal = {0};
    int rc = 0;
    while (rc == 0 && !removal.finished) {
        struct manifest_batch *b = manifest_batch_new(db);
        b->kind = BATCH_REMOVE_DB;
        b->removal = &removal;
        rc = manifest_writer_commit(m, b);
        if (rc == 0)
            removal = b->removed;
        manifest_batch_free(b);
    }
    return rc;
}
