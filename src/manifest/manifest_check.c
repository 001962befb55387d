// SPDX-License-Identifier: Apache-2.0
// Counts everything anew from the tables and compares. Memory is proportional to inodes and blobs:
// this is for tests and for an operator's check.
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/checksum.h"
#include "base/hash_table.h"
#include "format/record_codec.h"
#include "manifest/manifest_internal.h"
#include "platform/log.h"
#include "platform/memory.h"

// Numbers about an inode from directory entries.
struct links {
    struct hash_node node;
    struct object_id object;
    uint64_t names;       // entries that point to it
    uint64_t entries;     // entries it has
    uint64_t directories; // of which directories
};

// Numbers about a blob from chunks and deltas.
struct uses {
    struct hash_node node;
    struct sha256 hash;
    uint64_t references;
    uint64_t live_bytes;
};

struct check {
    struct manifest_reader *reader;
    struct db_id db;
    int violations;
    struct hash_table links;
    struct hash_table uses;
    struct db_totals counted;
    uint64_t unpublished_entries;
    uint64_t orphans;
    uint64_t orphan_entries;
    uint64_t object_chunks;
    struct chunk_damage damage; // the last one
};

static void PRINTF_LIKE(2, 3) violated(struct check *c, const char *format, ...)
{
    BUFFER_AUTO text = {0};
    char *p = (char *)buffer_reserve(&text, 400);
    va_list args;
    va_start(args, format);
    vsnprintf(p, 400, format, args);
    va_end(args);
    log_error("manifest.violation", "db %" PRIu32 ": %s", c->db.v, p);
    c->violations++;
}

static struct links *
links_of(struct check *c, struct object_id object)
{
    uint64_t hash = hash_u64(object.v);
    struct hash_node *node = hash_table_first(&c->links, hash);
    for (; node; node = hash_table_next_same(node)) {
        struct links *links = CONTAINER_OF(node, struct links, node);
        if (links->object.v == object.v)
            return links;
    }
    struct links *links = memory_alloc_zero(sizeof(*links));
    links->object = object;
    hash_table_insert(&c->links, &links->node, hash);
    return links;
}

static struct uses *
uses_of(struct check *c, const struct sha256 *hash)
{
    uint64_t h;
    memcpy(&h, hash->b, sizeof(h));
    struct hash_node *node = hash_table_first(&c->uses, h);
    for (; node; node = hash_table_next_same(node)) {
        struct uses *uses = CONTAINER_OF(node, struct uses, node);
        if (sha256_equal(&uses->hash, hash))
            return uses;
    }
    struct uses *uses = memory_alloc_zero(sizeof(*uses));
    uses->hash = *hash;
    hash_table_insert(&c->uses, &uses->node, h);
    return uses;
}

static void
note_use(struct check *c, const struct blob_location *where)
{
    struct uses *uses = uses_of(c, &where->blob);
    uses->references++;
    uses->live_bytes += where->length;
}

// Calls `visit` for the entries of a table that belong to the db. An entry that does not decode is
// a violation, not the end.
typedef void check_entry(struct check *c, const struct table_walk *w);

static int
walk_table(struct check *c, enum manifest_table table, check_entry *visit)
{
    struct schema_key from = {0};
    struct table_walk w;
    if (table != TABLE_BLOB_REFS)
        schema_key_db(&from, c->db);
    int rc = table_walk_begin(&w, manifest_reader_txn(c->reader), table, &from, from.length);
    while (rc > 0) {
        visit(c, &w);
        rc = table_walk_next(&w);
    }
    table_walk_end(&w);
    return rc;
}

static void
not_decodable(struct check *c, enum manifest_table table)
{
    violated(c, "%s: an entry does not decode", manifest_table_names[table]);
}

// ---- the namespace ------------------------------------------------------------------------------

static void
check_dirent(struct check *c, const struct table_walk *w)
{
    struct dirent_record d;
    struct inode_record inode;
    if (!schema_read_pair(w->key.data, w->key.length, &d.parent.v, &d.cookie) ||
        !schema_decode_dirent(w->value.data, w->value.length, &d)) {
        not_decodable(c, TABLE_DIRENT);
        return;
    }
    struct links *parent = links_of(c, d.parent);
    parent->entries++;
    parent->directories += d.type == DT_DIR;
    links_of(c, d.object)->names++;
    int rc = manifest_read_inode(c->reader, c->db, d.object, &inode);
    if (rc < 0)
        violated(c, "entry %" PRIu64 " of directory %" PRIu64 " points to %" PRIu64 ": no inode",
            d.cookie, d.parent.v, d.object.v);
    else if (IFTODT(inode.mode) != d.type)
        violated(c, "entry %" PRIu64 " of directory %" PRIu64 " has the wrong type", d.cookie,
            d.parent.v);
}

static void
check_directory(
    struct check *c, struct object_id object, const struct inode_record *inode, struct links *links)
{
    uint64_t names = object.v == OBJECT_ROOT_DIRECTORY.v || inode->nlink == 0 ? 0 : 1;
    if (links->names != names)
        violated(c, "directory %" PRIu64 " has %" PRIu64 " names", object.v, links->names);
    if (inode->size != links->entries)
        violated(c, "directory %" PRIu64 " has %" PRIu64 " entries and says %" PRIu64, object.v,
            links->entries, inode->size);
    if (inode->nlink != 0 && inode->nlink != links->directories + 2)
        violated(c, "directory %" PRIu64 " has %" PRIu64 " directories and %" PRIu32 " links",
            object.v, links->directories, inode->nlink);
}

static void
check_inode(struct check *c, const struct table_walk *w)
{
    struct object_id object;
    struct inode_record inode;
    if (!schema_read_number(w->key.data, w->key.length, &object.v) ||
        !schema_decode_inode(w->value.data, w->value.length, &inode)) {
        not_decodable(c, TABLE_INODE);
        return;
    }
    c->counted.inodes++;
    c->orphans += inode.nlink == 0;
    struct links *links = links_of(c, object);
    if (S_ISDIR(inode.mode)) {
        check_directory(c, object, &inode, links);
        return;
    }
    if (links->names != inode.nlink)
        violated(c, "inode %" PRIu64 " has %" PRIu64 " names and %" PRIu32 " links", object.v,
            links->names, inode.nlink);
    if (links->entries > 0)
        violated(c, "inode %" PRIu64 " has entries and is no directory", object.v);
}

static void
check_orphan(struct check *c, const struct table_walk *w)
{
    struct object_id object;
    struct inode_record inode;
    c->orphan_entries++;
    if (!schema_read_number(w->key.data, w->key.length, &object.v))
        not_decodable(c, TABLE_ORPHAN_INDEX);
    else if (manifest_read_inode(c->reader, c->db, object, &inode) < 0 || inode.nlink != 0)
        violated(c, "orphan_index has %" PRIu64 ", which is no orphan", object.v);
}

static void
check_xattr(struct check *c, const struct table_walk *w)
{
    struct xattr_record xattr;
    struct inode_record inode;
    if (!schema_read_xattr(w->key.data, w->key.length, &xattr) ||
        !schema_decode_xattr(w->value.data, w->value.length, &xattr))
        not_decodable(c, TABLE_XATTR);
    else if (manifest_read_inode(c->reader, c->db, xattr.object, &inode) < 0)
        violated(c, "an xattr belongs to %" PRIu64 ": no inode", xattr.object.v);
}

static int
check_namespace(struct check *c)
{
    int rc = walk_table(c, TABLE_DIRENT, check_dirent);
    if (rc == 0)
        rc = walk_table(c, TABLE_INODE, check_inode);
    if (rc == 0)
        rc = walk_table(c, TABLE_ORPHAN_INDEX, check_orphan);
    if (rc == 0)
        rc = walk_table(c, TABLE_XATTR, check_xattr);
    if (rc < 0)
        return rc;
    if (c->orphans != c->orphan_entries)
        violated(
            c, "%" PRIu64 " orphans, %" PRIu64 " in orphan_index", c->orphans, c->orphan_entries);
    HASH_TABLE_FOR_EACH(&c->links, node)
    {
        struct links *links = CONTAINER_OF(node, struct links, node);
        struct inode_record inode;
        if (links->entries > 0 &&
            manifest_read_inode(c->reader, c->db, links->object, &inode) == -ENOENT)
            violated(c, "directory %" PRIu64 " has entries and no inode", links->object.v);
    }
    return 0;
}

// ---- chunks and blobs ---------------------------------------------------------------------------

struct delta_sum {
    struct check *check;
    const struct chunk_entry *chunk;
    uint64_t count;
    uint64_t bytes;
};

static int
sum_delta(void *argument, const struct chunk_delta *delta)
{
    struct delta_sum *sum = argument;
    sum->count++;
    sum->bytes += delta->where.length;
    if (delta->generation.v <= sum->chunk->base_generation.v ||
        delta->generation.v > sum->chunk->generation.v)
        violated(sum->check, "chunk %" PRIu64 ": a delta of generation %" PRIu64 " is out of range",
            delta->chunk.v, delta->generation.v);
    return 0;
}

static void
check_chunk(struct check *c, const struct table_walk *w)
{
    struct chunk_entry chunk;
    struct chunk_id id;
    if (!schema_read_number(w->key.data, w->key.length, &chunk.id.v) ||
        !schema_decode_chunk(w->value.data, w->value.length, &chunk)) {
        not_decodable(c, TABLE_CHUNK_CATALOG);
        return;
    }
    c->counted.chunks++;
    if (chunk_entry_has_base(&chunk))
        note_use(c, &chunk.base);
    struct delta_sum sum = {.check = c, .chunk = &chunk};
    if (manifest_read_deltas(c->reader, c->db, chunk.id, sum_delta, &sum) < 0)
        violated(c, "chunk %" PRIu64 ": deltas cannot be read", chunk.id.v);
    if (sum.count != chunk.delta_count || sum.bytes != chunk.delta_bytes)
        violated(c, "chunk %" PRIu64 " has %" PRIu64 " deltas and says %" PRIu32, chunk.id.v,
            sum.count, chunk.delta_count);
    if (manifest_load_object_chunk(
            manifest_reader_txn(c->reader), c->db, chunk.object, chunk.index, &id) < 0 ||
        id.v != chunk.id.v)
        violated(c, "chunk %" PRIu64 " is not in object_chunks", chunk.id.v);
}

static void
check_delta(struct check *c, const struct table_walk *w)
{
    struct chunk_delta delta;
    struct chunk_entry chunk;
    if (!schema_read_pair(w->key.data, w->key.length, &delta.chunk.v, &delta.generation.v) ||
        !schema_decode_delta(w->value.data, w->value.length, &delta)) {
        not_decodable(c, TABLE_CHUNK_DELTA_INDEX);
        return;
    }
    c->counted.deltas++;
    note_use(c, &delta.where);
    if (manifest_load_chunk(manifest_reader_txn(c->reader), c->db, delta.chunk, &chunk) < 0)
        violated(c, "a delta belongs to chunk %" PRIu64 ", which does not exist", delta.chunk.v);
}

static void
check_object_chunk(struct check *c, const struct table_walk *w)
{
    struct object_id object;
    struct chunk_index index;
    struct chunk_id id;
    struct chunk_entry chunk;
    uint32_t present_pages;
    c->object_chunks++;
    if (!schema_read_pair(w->key.data, w->key.length, &object.v, &index.v) ||
        !schema_decode_object_chunk(w->value.data, w->value.length, &id, &present_pages))
        not_decodable(c, TABLE_OBJECT_CHUNKS);
    else if (manifest_load_chunk(manifest_reader_txn(c->reader), c->db, id, &chunk) < 0)
        violated(
            c, "object %" PRIu64 " has chunk %" PRIu64 ", which does not exist", object.v, id.v);
    else if (chunk.object.v != object.v || chunk.index.v != index.v ||
             chunk.present_pages != present_pages)
        violated(c, "object_chunks and chunk_catalog disagree about chunk %" PRIu64, id.v);
}

// Lost pages belong to a chunk, and adjacent ones are one entry.
static void
check_damage(struct check *c, const struct table_walk *w)
{
    struct chunk_damage d;
    struct chunk_id id;
    const struct chunk_damage *last = &c->damage;
    if (!schema_read_pair(w->key.data, w->key.length, &d.object.v, &d.page.v) ||
        !schema_decode_damage(w->value.data, w->value.length, &d)) {
        not_decodable(c, TABLE_CHUNK_DAMAGE);
        return;
    }
    struct chunk_index index = chunk_of_page(d.page);
    if (manifest_load_object_chunk(manifest_reader_txn(c->reader), c->db, d.object, index, &id) < 0)
        violated(c, "lost pages of object %" PRIu64 " at %" PRIu64 " are in no chunk", d.object.v,
            d.page.v);
    if (last->object.v == d.object.v && chunk_of_page(last->page).v == index.v &&
        last->page.v + last->pages >= d.page.v)
        violated(c, "lost pages of object %" PRIu64 " at %" PRIu64 " are told twice", d.object.v,
            d.page.v);
    c->damage = d;
}

static bool
is_in_unpublished_blobs(struct check *c, const struct sha256 *hash)
{
    struct schema_key key;
    struct lmdb_value value;
    schema_key_unpublished_blob(&key, c->db, hash);
    return lmdb_get(manifest_reader_txn(c->reader), TABLE_UNPUBLISHED_BLOBS, key.bytes, key.length,
               &value) == 0;
}

static void
check_blob(struct check *c, const struct table_walk *w)
{
    struct blob_record blob;
    struct db_id owner;
    char hex[65];
    if (!schema_read_blob(w->key.data, w->key.length, &blob.hash, &owner)) {
        not_decodable(c, TABLE_BLOB_REFS);
        return;
    }
    if (owner.v != c->db.v)
        return;
    sha256_to_hex(&blob.hash, hex);
    if (!schema_decode_blob(w->value.data, w->value.length, &blob)) {
        not_decodable(c, TABLE_BLOB_REFS);
        return;
    }
    struct uses *uses = uses_of(c, &blob.hash);
    if (uses->references != blob.references || uses->live_bytes != blob.live_bytes)
        violated(c, "blob %s has %" PRIu64 " references and says %" PRIu32, hex, uses->references,
            blob.references);
    if (blob.references > 0 && blob.death.v != 0)
        violated(c, "blob %s is referred to and dead", hex);
    struct namespace_record space;
    if (blob.where >= BLOB_WHERE_NAMED &&
        manifest_read_namespace(c->reader, c->db, blob.where, &space) < 0)
        violated(c, "blob %s lies in place %" PRIu32 ", which is not known", hex, blob.where);
    bool unpublished = blob.references > 0 && !(blob.residency & RESIDENCY_REMOTE);
    if (unpublished != is_in_unpublished_blobs(c, &blob.hash))
        violated(c, "unpublished_blobs is wrong about blob %s", hex);
    c->counted.blobs++;
    c->counted.blob_bytes += blob.bytes;
    c->counted.unpublished_blobs += unpublished;
    c->counted.unpublished_bytes += unpublished ? blob.bytes : 0;
    uses->references = 0; // seen
}

static void
count_unpublished(struct check *c, const struct table_walk *w UNUSED)
{
    c->unpublished_entries++;
}

static int
check_storage(struct check *c)
{
    int rc = walk_table(c, TABLE_CHUNK_CATALOG, check_chunk);
    if (rc == 0)
        rc = walk_table(c, TABLE_CHUNK_DELTA_INDEX, check_delta);
    if (rc == 0)
        rc = walk_table(c, TABLE_OBJECT_CHUNKS, check_object_chunk);
    if (rc == 0)
        rc = walk_table(c, TABLE_CHUNK_DAMAGE, check_damage);
    if (rc == 0)
        rc = walk_table(c, TABLE_BLOB_REFS, check_blob);
    if (rc == 0)
        rc = walk_table(c, TABLE_UNPUBLISHED_BLOBS, count_unpublished);
    if (rc < 0)
        return rc;
    HASH_TABLE_FOR_EACH(&c->uses, node)
    {
        struct uses *uses = CONTAINER_OF(node, struct uses, node);
        char hex[65];
        sha256_to_hex(&uses->hash, hex);
        if (uses->references > 0)
            violated(c, "blob %s is referred to and has no record", hex);
    }
    if (c->object_chunks != c->counted.chunks)
        violated(c, "%" PRIu64 " chunks, %" PRIu64 " in object_chunks", c->counted.chunks,
            c->object_chunks);
    if (c->unpublished_entries != c->counted.unpublished_blobs)
        violated(c, "%" PRIu64 " blobs are not in the store, %" PRIu64 " in unpublished_blobs",
            c->counted.unpublished_blobs, c->unpublished_entries);
    return 0;
}

// ---- jobs and totals ----------------------------------------------------------------------------

static void
check_job(struct check *c, const struct table_walk *w)
{
    struct job_record job;
    struct schema_key key;
    struct lmdb_value value;
    uint64_t pending = 0;
    if (!schema_read_number(w->key.data, w->key.length, &job.id) ||
        !schema_decode_job(w->value.data, w->value.length, &job)) {
        not_decodable(c, TABLE_JOB_QUEUE);
        return;
    }
    schema_key_pending_job(&key, c->db, &job);
    int rc = lmdb_get(
        manifest_reader_txn(c->reader), TABLE_JOB_PENDING_INDEX, key.bytes, key.length, &value);
    bool indexed =
        rc == 0 && schema_decode_u64(value.data, value.length, &pending) && pending == job.id;
    if (indexed != (job.state == JOB_PENDING || job.state == JOB_IN_FLIGHT))
        violated(c, "job_pending_index is wrong about job %" PRIu64, job.id);
}

static int
check_all(struct check *c)
{
    struct db_record db;
    struct db_totals totals;
    int rc = manifest_read_db(c->reader, c->db, &db);
    if (rc == 0)
        rc = check_namespace(c);
    if (rc == 0)
        rc = check_storage(c);
    if (rc == 0)
        rc = walk_table(c, TABLE_JOB_QUEUE, check_job);
    if (rc == 0)
        rc = manifest_read_totals(c->reader, c->db, &totals);
    if (rc < 0)
        return rc;
    if (memcmp(&totals, &c->counted, sizeof(totals)) != 0)
        violated(c, "the totals are wrong");
    if (db.next.v <= db.local.v || db.next.v <= db.published.v)
        if (db.local.v > 0 || db.published.v > 0)
            violated(c, "the next generation is %" PRIu64 ", which exists", db.next.v);
    return 0;
}

static void
free_tables(struct check *c)
{
    HASH_TABLE_FOR_EACH(&c->links, links_node)
    {
        free(CONTAINER_OF(links_node, struct links, node));
    }
    HASH_TABLE_FOR_EACH(&c->uses, uses_node)
    {
        free(CONTAINER_OF(uses_node, struct uses, node));
    }
    hash_table_free(&c->links);
    hash_table_free(&c->uses);
}

int
manifest_check(struct manifest *m, struct db_id db)
{
    struct check c = {.db = db};
    int rc = manifest_read_begin(m, &c.reader);
    if (rc < 0)
        return rc;
    rc = check_all(&c);
    manifest_read_end(c.reader);
    free_tables(&c);
    return rc < 0 ? rc : c.violations;
}
