// SPDX-License-Identifier: Apache-2.0
// Checks that the records of a db agree with each other, in one pass over its tables without memory
// for each of them. Tables whose keys begin with the object are walked beside the inodes. Names
// point all over the inodes; so they are summed: each name and each link adds the same hash.
//
//     directory            size = its entries, links = its directories + 2, or 0 and none
//     inode                links = names that point to it, of its type
//     entry, attribute,    its inode is there
//     chunk
//     chunk                its deltas are as many, and as long, as it says
//     totals               inodes, chunks, deltas
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>

#include "base/hash_table.h"
#include "manifest/manifest_internal.h"

struct count {
    struct lmdb_txn *txn;
    struct db_id db;
    struct buffer *problem;
    struct db_totals counted;
    uint64_t names; // sum of the hashes of the inodes that names point to
    uint64_t links; // sum of the hashes of inodes, each as often as it has links
};

static int PRINTF_LIKE(2, 3) contradiction(struct count *c, const char *format, ...)
{
    va_list args;
    char text[200];
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    buffer_clear(c->problem);
    buffer_append_string(c->problem, text);
    return -EBADMSG;
}

static uint64_t
hash_of_link(struct object_id object, uint8_t type)
{
    return hash_u64_pair(object.v, type);
}

static int
begin_walk(struct count *c, struct table_walk *w, enum manifest_table table)
{
    struct schema_key from;
    schema_key_db(&from, c->db);
    return table_walk_begin(w, c->txn, table, &from, DB_PREFIX_BYTES);
}

// ---- beside the inodes --------------------------------------------------------------------------

// A table whose keys are the object and something else. `rc` is the walk's answer.
struct beside {
    struct table_walk walk;
    int rc;
    const char *what; // of one entry
};

// Sums of the entries of one object.
struct entries {
    uint64_t count;
    uint64_t directories;
};

static bool
object_of(const struct beside *b, struct object_id *object_out)
{
    if (b->walk.key.length < NUMBER_PREFIX_BYTES)
        return false;
    object_out->v = get_be64((const uint8_t *)b->walk.key.data + DB_PREFIX_BYTES);
    return true;
}

static int
add_name(struct count *c, const struct beside *b, struct entries *e)
{
    struct dirent_record d;
    if (!schema_decode_dirent(b->walk.value.data, b->walk.value.length, &d))
        return manifest_bad_entry(TABLE_DIRENT);
    e->directories += d.type == DT_DIR;
    c->names += hash_of_link(d.object, d.type);
    return 0;
}

// The entries of `object`. Those of objects before it, which are not there, are a contradiction.
static int
take_entries(
    struct count *c, struct beside *b, struct object_id object, bool names, struct entries *e)
{
    struct object_id at;
    *e = (struct entries){0};
    while (b->rc > 0) {
        if (!object_of(b, &at))
            return -EBADMSG;
        if (at.v > object.v)
            return 0;
        if (at.v < object.v)
            return contradiction(
                c, "%s belongs to inode %" PRIu64 ", which is not there", b->what, at.v);
        e->count++;
        int rc = names ? add_name(c, b, e) : 0;
        if (rc < 0)
            return rc;
        b->rc = table_walk_next(&b->walk);
    }
    return b->rc;
}

static int
judge_inode(struct count *c, struct object_id object, const struct inode_record *inode,
    const struct entries *e)
{
    bool is_directory = S_ISDIR(inode->mode);
    uint64_t links = is_directory && inode->nlink > 0 ? 1 : inode->nlink;
    if (is_directory && inode->size != e->count)
        return contradiction(c,
            "directory %" PRIu64 " says that it has %" PRIu64 " entries, and has %" PRIu64,
            object.v, inode->size, e->count);
    if (is_directory && inode->nlink > 0 && inode->nlink != e->directories + 2)
        return contradiction(c,
            "directory %" PRIu64 " says that it has %" PRIu32 " links, and has %" PRIu64, object.v,
            inode->nlink, e->directories + 2);
    if (!is_directory && e->count > 0)
        return contradiction(c, "inode %" PRIu64 " has entries and is no directory", object.v);
    if (object.v != OBJECT_ROOT_DIRECTORY.v)
        c->links += links * hash_of_link(object, IFTODT(inode->mode));
    c->counted.inodes++;
    return 0;
}

static int
count_inode(struct count *c, const struct table_walk *w, struct beside *beside, size_t tables)
{
    struct object_id object;
    struct inode_record inode;
    struct entries entries[3];
    int rc = 0;
    if (!schema_read_number(w->key.data, w->key.length, &object.v) ||
        !schema_decode_inode(w->value.data, w->value.length, &inode))
        return manifest_bad_entry(TABLE_INODE);
    for (size_t i = 0; rc == 0 && i < tables; i++)
        rc = take_entries(c, &beside[i], object, i == 0, &entries[i]);
    return rc < 0 ? rc : judge_inode(c, object, &inode, &entries[0]);
}

static int
count_inodes(struct count *c)
{
    static const enum manifest_table tables[] = {TABLE_DIRENT, TABLE_XATTR, TABLE_OBJECT_CHUNKS};
    struct beside beside[ARRAY_LENGTH(tables)] = {
        {.what = "a name"}, {.what = "an extended attribute"}, {.what = "a chunk"}};
    struct table_walk w;
    struct entries none;
    for (size_t i = 0; i < ARRAY_LENGTH(tables); i++)
        beside[i].rc = begin_walk(c, &beside[i].walk, tables[i]);
    int rc = begin_walk(c, &w, TABLE_INODE);
    while (rc > 0) {
        rc = count_inode(c, &w, beside, ARRAY_LENGTH(tables));
        if (rc == 0)
            rc = table_walk_next(&w);
    }
    table_walk_end(&w);
    for (size_t i = 0; i < ARRAY_LENGTH(tables); i++) {
        if (rc == 0)
            rc = take_entries(c, &beside[i], (struct object_id){UINT64_MAX}, i == 0, &none);
        table_walk_end(&beside[i].walk);
    }
    if (rc == 0 && c->names != c->links)
        rc = contradiction(c, "names and inodes do not agree about links and types");
    return rc;
}

// ---- chunks -------------------------------------------------------------------------------------

static int
count_deltas(struct count *c, struct table_walk *deltas, int *deltas_rc, struct chunk_entry *chunk)
{
    uint64_t count = 0, bytes = 0;
    while (*deltas_rc > 0) {
        struct chunk_delta d;
        if (!schema_read_pair(deltas->key.data, deltas->key.length, &d.chunk.v, &d.generation.v) ||
            !schema_decode_delta(deltas->value.data, deltas->value.length, &d))
            return manifest_bad_entry(TABLE_CHUNK_DELTA_INDEX);
        if (d.chunk.v > chunk->id.v)
            break;
        if (d.chunk.v < chunk->id.v)
            return contradiction(
                c, "a delta belongs to chunk %" PRIu64 ", which is not there", d.chunk.v);
        count++;
        bytes += d.where.length;
        c->counted.deltas++;
        *deltas_rc = table_walk_next(deltas);
    }
    if (*deltas_rc < 0)
        return *deltas_rc;
    if (count != chunk->delta_count || bytes != chunk->delta_bytes)
        return contradiction(c,
            "chunk %" PRIu64 " says that it has %" PRIu32 " deltas of %" PRIu64
            " bytes, and has %" PRIu64 " of %" PRIu64,
            chunk->id.v, chunk->delta_count, chunk->delta_bytes, count, bytes);
    return 0;
}

static int
count_chunks(struct count *c)
{
    struct table_walk w, deltas;
    struct chunk_entry chunk;
    int deltas_rc = begin_walk(c, &deltas, TABLE_CHUNK_DELTA_INDEX);
    int rc = begin_walk(c, &w, TABLE_CHUNK_CATALOG);
    while (rc > 0) {
        if (!schema_read_number(w.key.data, w.key.length, &chunk.id.v) ||
            !schema_decode_chunk(w.value.data, w.value.length, &chunk))
            rc = manifest_bad_entry(TABLE_CHUNK_CATALOG);
        else
            rc = count_deltas(c, &deltas, &deltas_rc, &chunk);
        c->counted.chunks++;
        if (rc == 0)
            rc = table_walk_next(&w);
    }
    if (rc == 0 && deltas_rc != 0)
        rc = deltas_rc < 0 ? deltas_rc : contradiction(c, "a delta belongs to no chunk");
    table_walk_end(&w);
    table_walk_end(&deltas);
    return rc;
}

int
manifest_count(struct manifest_reader *r, struct db_id db, struct buffer *problem)
{
    struct count c = {.txn = manifest_reader_txn(r), .db = db, .problem = problem};
    struct db_totals totals;
    buffer_clear(problem);
    int rc = count_inodes(&c);
    if (rc == 0)
        rc = count_chunks(&c);
    if (rc == 0)
        rc = manifest_read_totals(r, db, &totals);
    if (rc == 0 && (totals.inodes != c.counted.inodes || totals.chunks != c.counted.chunks ||
                       totals.deltas != c.counted.deltas))
        rc = contradiction(&c,
            "there are %" PRIu64 " inodes, %" PRIu64 " chunks and %" PRIu64
            " deltas, and the totals say something else",
            c.counted.inodes, c.counted.chunks, c.counted.deltas);
    return rc;
}

int
manifest_sum_chunks(struct manifest_reader *r, struct db_id db, uint64_t *sum_out)
{
    struct count c = {.txn = manifest_reader_txn(r), .db = db};
    struct table_walk w;
    struct chunk_entry chunk;
    *sum_out = 0;
    int rc = begin_walk(&c, &w, TABLE_CHUNK_CATALOG);
    while (rc > 0) {
        rc = -EBADMSG;
        if (schema_read_number(w.key.data, w.key.length, &chunk.id.v) &&
            schema_decode_chunk(w.value.data, w.value.length, &chunk))
            rc = table_walk_next(&w);
        *sum_out += manifest_chunk_sum(&chunk);
    }
    table_walk_end(&w);
    return rc;
}

uint64_t
manifest_chunk_sum(const struct chunk_entry *chunk)
{
    return hash_u64_pair(chunk->id.v, hash_u64_pair(chunk->delta_count, chunk->delta_bytes));
}
