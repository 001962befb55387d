// SPDX-License-Identifier: Apache-2.0
// The state of a db, or its unpublished part, as changes.
#include <errno.h>

#include "manifest/manifest_internal.h"

struct export
{
    struct manifest_reader *reader;
    struct db_id db;
    manifest_visit_change *visit;
    void *argument;
};

// Makes a change of an entry: 1, or 0 when the export leaves the entry out, or -errno.
typedef int entry_decoder(const struct table_walk *w, struct db_id db, struct change *c);

static int
decoded(bool good, enum manifest_table table)
{
    return good ? 1 : manifest_bad_entry(table);
}

static int
decode_inode_entry(const struct table_walk *w, struct db_id db UNUSED, struct change *c)
{
    c->kind = CHANGE_PUT_INODE;
    return decoded(schema_read_number(w->key.data, w->key.length, &c->object.v) &&
                       schema_decode_inode(w->value.data, w->value.length, &c->inode),
        TABLE_INODE);
}

static int
decode_dirent_entry(const struct table_walk *w, struct db_id db UNUSED, struct change *c)
{
    c->kind = CHANGE_PUT_DIRENT;
    return decoded(
        schema_read_pair(w->key.data, w->key.length, &c->dirent.parent.v, &c->dirent.cookie) &&
            schema_decode_dirent(w->value.data, w->value.length, &c->dirent),
        TABLE_DIRENT);
}

static int
decode_xattr_entry(const struct table_walk *w, struct db_id db UNUSED, struct change *c)
{
    c->kind = CHANGE_PUT_XATTR;
    return decoded(schema_read_xattr(w->key.data, w->key.length, &c->xattr) &&
                       schema_decode_xattr(w->value.data, w->value.length, &c->xattr),
        TABLE_XATTR);
}

static int
decode_blob_entry(const struct table_walk *w, struct db_id db, struct change *c)
{
    struct db_id owner;
    c->kind = CHANGE_PUT_BLOB;
    if (!schema_read_blob(w->key.data, w->key.length, &c->blob.hash, &owner))
        return manifest_bad_entry(TABLE_BLOB_REFS);
    if (owner.v != db.v)
        return 0;
    if (!schema_decode_blob(w->value.data, w->value.length, &c->blob))
        return manifest_bad_entry(TABLE_BLOB_REFS);
    // Dead blobs are left out: the records tell of them.
    return c->blob.references > 0;
}

// The chunk at a place of an object.
static int
read_chunk_at(const struct export *e, const void *key, size_t key_length, struct change *c)
{
    struct object_id object;
    struct chunk_index index;
    c->kind = CHANGE_PUT_CHUNK;
    if (!schema_read_pair(key, key_length, &object.v, &index.v))
        return manifest_bad_entry(TABLE_OBJECT_CHUNKS);
    int rc = manifest_read_chunk(e->reader, e->db, object, index, &c->chunk);
    return rc == 0 ? 1 : rc == -ENOENT ? 0 : rc;
}

static int
decode_namespace_entry(const struct table_walk *w, struct db_id db UNUSED, struct change *c)
{
    uint64_t id = 0;
    c->kind = CHANGE_PUT_NAMESPACE;
    bool good = schema_read_number(w->key.data, w->key.length, &id) && id <= UINT32_MAX &&
                schema_decode_namespace(w->value.data, w->value.length, &c->space);
    c->space.id = (uint32_t)id;
    return decoded(good, TABLE_REMOTE_NAMESPACE);
}

static int
decode_delta_entry(const struct table_walk *w, struct db_id db UNUSED, struct change *c)
{
    c->kind = CHANGE_PUT_DELTA;
    return decoded(
        schema_read_pair(w->key.data, w->key.length, &c->delta.chunk.v, &c->delta.generation.v) &&
            schema_decode_delta(w->value.data, w->value.length, &c->delta),
        TABLE_CHUNK_DELTA_INDEX);
}

static int
decode_generation_entry(const struct table_walk *w, struct db_id db UNUSED, struct change *c)
{
    c->kind = CHANGE_PUT_GENERATION;
    return decoded(
        schema_read_life_number(w->key.data, w->key.length, &c->published.generation.v) &&
            schema_decode_generation(w->value.data, w->value.length, &c->published),
        TABLE_SNAPSHOT_INDEX);
}

static int
decode_damage_entry(const struct table_walk *w, struct db_id db UNUSED, struct change *c)
{
    c->kind = CHANGE_PUT_DAMAGE;
    return decoded(
        schema_read_pair(w->key.data, w->key.length, &c->damage.object.v, &c->damage.page.v) &&
            schema_decode_damage(w->value.data, w->value.length, &c->damage),
        TABLE_CHUNK_DAMAGE);
}

// Tells the entries of a table; `from` is the db, or empty for tables that do not begin with it.
static int
export_table(const struct export *e, enum manifest_table table, const struct schema_key *from,
    entry_decoder *decode)
{
    struct table_walk w;
    int rc = table_walk_begin(&w, manifest_reader_txn(e->reader), table, from, from->length);
    while (rc > 0) {
        struct change c = {0};
        rc = decode(&w, e->db, &c);
        if (rc > 0)
            rc = e->visit(e->argument, &c);
        if (rc != 0)
            break;
        rc = table_walk_next(&w);
    }
    table_walk_end(&w);
    return rc;
}

static int
export_chunks(const struct export *e, const struct schema_key *from)
{
    struct table_walk w;
    int rc = table_walk_begin(
        &w, manifest_reader_txn(e->reader), TABLE_OBJECT_CHUNKS, from, from->length);
    while (rc > 0) {
        struct change c = {0};
        rc = read_chunk_at(e, w.key.data, w.key.length, &c);
        if (rc > 0)
            rc = e->visit(e->argument, &c);
        if (rc != 0)
            break;
        rc = table_walk_next(&w);
    }
    table_walk_end(&w);
    return rc;
}

static int
export_retention(const struct export *e)
{
    struct change c = {.kind = CHANGE_PUT_RETENTION};
    int rc = manifest_read_retention(e->reader, e->db, &c.retention);
    // A catalog always tells one; a catalog without one is of an older program.
    if (rc == -ENOENT)
        c.retention = (struct retention_policy){.keep_all = 1};
    return rc < 0 && rc != -ENOENT ? rc : e->visit(e->argument, &c);
}

static int
export_counters(const struct export *e)
{
    struct db_record db;
    int rc = manifest_read_db(e->reader, e->db, &db);
    if (rc < 0)
        return rc;
    struct change c = {.kind = CHANGE_PUT_COUNTERS, .counters = db.counters};
    return e->visit(e->argument, &c);
}

int
manifest_export(
    struct manifest_reader *r, struct db_id db, manifest_visit_change *visit, void *argument)
{
    struct export e = {r, db, visit, argument};
    struct schema_key from;
    const struct schema_key nothing = {0};
    schema_key_db(&from, db);
    int rc = export_counters(&e);
    if (rc == 0)
        rc = export_table(&e, TABLE_INODE, &from, decode_inode_entry);
    if (rc == 0)
        rc = export_table(&e, TABLE_DIRENT, &from, decode_dirent_entry);
    if (rc == 0)
        rc = export_table(&e, TABLE_XATTR, &from, decode_xattr_entry);
    if (rc == 0)
        rc = export_table(&e, TABLE_REMOTE_NAMESPACE, &from, decode_namespace_entry);
    if (rc == 0)
        rc = export_table(&e, TABLE_BLOB_REFS, &nothing, decode_blob_entry);
    if (rc == 0)
        rc = export_chunks(&e, &from);
    if (rc == 0)
        rc = export_table(&e, TABLE_CHUNK_DELTA_INDEX, &from, decode_delta_entry);
    if (rc == 0)
        rc = export_table(&e, TABLE_CHUNK_DAMAGE, &from, decode_damage_entry);
    schema_key_life(&from, db, LIFE_GENERATION);
    if (rc == 0)
        rc = export_table(&e, TABLE_SNAPSHOT_INDEX, &from, decode_generation_entry);
    if (rc == 0)
        rc = export_retention(&e);
    return rc;
}

// ---- unpublished changes ------------------------------------------------------------------------

// The present state of the key's entry as a put: 1, or 0 when it is gone.
static int
put_of_key(const struct export *e, enum unpublished_kind kind, const struct schema_key *key,
    struct change *c)
{
    static const struct {
        enum manifest_table table;
        entry_decoder *decode;
    } kinds[] = {
        [UNPUBLISHED_INODE] = {TABLE_INODE, decode_inode_entry},
        [UNPUBLISHED_DIRENT] = {TABLE_DIRENT, decode_dirent_entry},
        [UNPUBLISHED_XATTR] = {TABLE_XATTR, decode_xattr_entry},
        [UNPUBLISHED_DELTA] = {TABLE_CHUNK_DELTA_INDEX, decode_delta_entry},
        [UNPUBLISHED_NAMESPACE] = {TABLE_REMOTE_NAMESPACE, decode_namespace_entry},
        [UNPUBLISHED_DAMAGE] = {TABLE_CHUNK_DAMAGE, decode_damage_entry},
    };
    struct table_walk entry = {.key = {key->bytes, key->length}};
    int rc;
    if (kind == UNPUBLISHED_CHUNK)
        return read_chunk_at(e, key->bytes, key->length, c);
    rc = lmdb_get(
        manifest_reader_txn(e->reader), kinds[kind].table, key->bytes, key->length, &entry.value);
    if (rc < 0)
        return rc == -ENOENT ? 0 : rc;
    return kinds[kind].decode(&entry, e->db, c);
}

static int
delete_of_key(enum unpublished_kind kind, const struct schema_key *key, struct change *c)
{
    uint64_t a = 0;
    uint64_t b = 0;
    if (kind == UNPUBLISHED_XATTR) {
        c->kind = CHANGE_DELETE_XATTR;
        return decoded(
            schema_read_xattr(key->bytes, key->length, &c->xattr), TABLE_UNPUBLISHED_INDEX);
    }
    bool good = kind == UNPUBLISHED_INODE ? schema_read_number(key->bytes, key->length, &a)
                                          : schema_read_pair(key->bytes, key->length, &a, &b);
    switch (kind) {
    case UNPUBLISHED_INODE:
        c->kind = CHANGE_DELETE_INODE;
        c->object.v = a;
        break;
    case UNPUBLISHED_DIRENT:
        c->kind = CHANGE_DELETE_DIRENT;
        c->dirent.parent.v = a;
        c->dirent.cookie = b;
        break;
    case UNPUBLISHED_CHUNK:
        c->kind = CHANGE_DELETE_CHUNK;
        c->chunk.object.v = a;
        c->chunk.index.v = b;
        break;
    case UNPUBLISHED_DELTA:
        c->kind = CHANGE_DELETE_DELTA;
        c->delta.chunk.v = a;
        c->delta.generation.v = b;
        break;
    case UNPUBLISHED_DAMAGE:
        c->kind = CHANGE_DELETE_DAMAGE;
        c->damage.object.v = a;
        c->damage.page.v = b;
        break;
    case UNPUBLISHED_XATTR:
    case UNPUBLISHED_BLOB:
    case UNPUBLISHED_FORGET:
    case UNPUBLISHED_NAMESPACE:
        break;
    }
    return decoded(good, TABLE_UNPUBLISHED_INDEX);
}

// Makes a change of a key that was touched: 1, or 0 when there is nothing to tell, or -errno.
typedef int touched_decoder(const struct export *e, enum unpublished_kind kind,
    const struct schema_key *key, struct change *c);

static int
delete_if_gone(const struct export *e, enum unpublished_kind kind, const struct schema_key *key,
    struct change *c)
{
    int rc = put_of_key(e, kind, key, c);
    return rc == 0 ? delete_of_key(kind, key, c) : rc > 0 ? 0 : rc;
}

// The blob of a note, if it is dead or alive as asked. Blobs not in the store are told with the
// uploads.
static int
blob_of_key(const struct export *e, bool dead, const struct schema_key *key, struct change *c)
{
    struct sha256 hash;
    c->kind = CHANGE_PUT_BLOB;
    if (!schema_read_unpublished_blob(key->bytes, key->length, &hash))
        return manifest_bad_entry(TABLE_UNPUBLISHED_INDEX);
    int rc = manifest_read_blob(e->reader, e->db, &hash, &c->blob);
    if (rc < 0)
        return rc == -ENOENT ? 0 : rc;
    return (c->blob.residency & RESIDENCY_REMOTE) && dead == (c->blob.references == 0);
}

static int
revived_blob(const struct export *e, enum unpublished_kind kind UNUSED,
    const struct schema_key *key, struct change *c)
{
    return blob_of_key(e, false, key, c);
}

static int
dead_blob(const struct export *e, enum unpublished_kind kind, const struct schema_key *key,
    struct change *c)
{
    if (kind == UNPUBLISHED_BLOB)
        return blob_of_key(e, true, key, c);
    c->kind = CHANGE_FORGET_BLOB;
    return decoded(
        schema_read_forgotten(key->bytes, key->length, &c->forgotten), TABLE_UNPUBLISHED_INDEX);
}

// Tells the changes that `decode` makes of the touched keys of all kinds from `first` to `last`.
static int
export_touched(const struct export *e, touched_decoder *decode, enum unpublished_kind first,
    enum unpublished_kind last)
{
    struct schema_key db;
    struct schema_key from;
    struct table_walk w;
    schema_key_db(&db, e->db);
    schema_key_unpublished(&from, first, &db);
    int rc = table_walk_begin(
        &w, manifest_reader_txn(e->reader), TABLE_UNPUBLISHED_INDEX, &from, DB_PREFIX_BYTES);
    while (rc > 0) {
        enum unpublished_kind kind;
        struct schema_key key;
        struct change c = {0};
        if (!schema_read_unpublished(w.key.data, w.key.length, &kind, &key)) {
            rc = manifest_bad_entry(TABLE_UNPUBLISHED_INDEX);
            break;
        }
        if (kind > last) {
            rc = 0;
            break;
        }
        rc = decode(e, kind, &key, &c);
        if (rc > 0)
            rc = e->visit(e->argument, &c);
        if (rc != 0)
            break;
        rc = table_walk_next(&w);
    }
    table_walk_end(&w);
    return rc;
}

static int
export_unpublished_blob(void *argument, const struct blob_record *blob)
{
    const struct export *e = argument;
    struct change c = {.kind = CHANGE_PUT_BLOB, .blob = *blob};
    return e->visit(e->argument, &c);
}

int
manifest_export_unpublished(
    struct manifest_reader *r, struct db_id db, manifest_visit_change *visit, void *argument)
{
    struct export e = {r, db, visit, argument};
    int rc = export_counters(&e);
    if (rc == 0)
        rc = export_touched(&e, delete_if_gone, UNPUBLISHED_INODE, UNPUBLISHED_DELTA);
    if (rc == 0)
        rc = export_touched(&e, delete_if_gone, UNPUBLISHED_DAMAGE, UNPUBLISHED_DAMAGE);
    if (rc == 0)
        rc = export_touched(&e, put_of_key, UNPUBLISHED_INODE, UNPUBLISHED_XATTR);
    if (rc == 0)
        rc = export_touched(&e, put_of_key, UNPUBLISHED_NAMESPACE, UNPUBLISHED_NAMESPACE);
    if (rc == 0)
        rc = manifest_read_unpublished_blobs(r, db, export_unpublished_blob, &e);
    if (rc == 0)
        rc = export_touched(&e, revived_blob, UNPUBLISHED_BLOB, UNPUBLISHED_BLOB);
    if (rc == 0)
        rc = export_touched(&e, put_of_key, UNPUBLISHED_CHUNK, UNPUBLISHED_DELTA);
    if (rc == 0)
        rc = export_touched(&e, put_of_key, UNPUBLISHED_DAMAGE, UNPUBLISHED_DAMAGE);
    // Last, when nothing refers to them any more.
    if (rc == 0)
        rc = export_touched(&e, dead_blob, UNPUBLISHED_BLOB, UNPUBLISHED_FORGET);
    return rc;
}
