// SPDX-License-Identifier: Apache-2.0
#include <errno.h>

#include "manifest/manifest_internal.h"

// ---- inodes -------------------------------------------------------------------------------------

static int
set_orphan(struct apply *a, const struct schema_key *key, bool is_orphan)
{
    if (!is_orphan) {
        int rc = lmdb_delete(a->txn, TABLE_ORPHAN_INDEX, key->bytes, key->length);
        return rc == -ENOENT ? 0 : rc;
    }
    buffer_clear(&a->value);
    schema_encode_empty(&a->value);
    return apply_put(a, TABLE_ORPHAN_INDEX, key);
}

int
apply_put_inode(struct apply *a, struct object_id object, const struct inode_record *inode)
{
    struct inode_record old;
    int rc = manifest_load_inode(a->txn, a->db.id, object, &old);
    if (rc < 0 && rc != -ENOENT)
        return rc;
    bool was_orphan = rc == 0 && old.nlink == 0;
    if (rc == -ENOENT) {
        a->totals.inodes++;
        a->totals_changed = true;
    }
    struct schema_key key;
    schema_key_number(&key, a->db.id, object.v);
    buffer_clear(&a->value);
    schema_encode_inode(inode, &a->value);
    rc = apply_put(a, TABLE_INODE, &key);
    if (rc == 0 && was_orphan != (inode->nlink == 0))
        rc = set_orphan(a, &key, inode->nlink == 0);
    a->log.inodes++;
    return rc < 0 ? rc : apply_note(a, UNPUBLISHED_INODE, &key);
}

// Deletes the entry if it is there, and notes that; 0 also if it is not.
static int
delete_and_note(struct apply *a, enum manifest_table table, enum unpublished_kind kind,
    const struct schema_key *key)
{
    int rc = lmdb_delete(a->txn, table, key->bytes, key->length);
    if (rc < 0)
        return rc == -ENOENT ? 0 : rc;
    return apply_note(a, kind, key);
}

static int
delete_xattrs(struct apply *a, struct object_id object)
{
    struct schema_key key;
    struct table_walk w;
    schema_key_number(&key, a->db.id, object.v);
    int rc = table_walk_begin(&w, a->txn, TABLE_XATTR, &key, NUMBER_PREFIX_BYTES);
    while (rc > 0) {
        struct xattr_record xattr;
        if (!schema_read_xattr(w.key.data, w.key.length, &xattr)) {
            rc = manifest_bad_entry(TABLE_XATTR);
            break;
        }
        schema_key_xattr(&key, a->db.id, object, xattr.name, xattr.name_length);
        rc = lmdb_cursor_delete(w.cursor);
        if (rc == 0)
            rc = apply_note(a, UNPUBLISHED_XATTR, &key);
        if (rc == 0)
            rc = table_walk_next(&w);
    }
    table_walk_end(&w);
    return rc;
}

int
apply_delete_inode(struct apply *a, struct object_id object)
{
    struct inode_record old;
    int rc = manifest_load_inode(a->txn, a->db.id, object, &old);
    if (rc < 0 && rc != -ENOENT)
        return rc;
    a->log.inodes++;
    if (rc == 0) {
        bool was_orphan = old.nlink == 0;
        struct schema_key key;
        schema_key_number(&key, a->db.id, object.v);
        rc = delete_and_note(a, TABLE_INODE, UNPUBLISHED_INODE, &key);
        if (rc == 0 && was_orphan)
            rc = set_orphan(a, &key, false);
        if (rc < 0)
            return rc;
        a->totals.inodes--;
        a->totals_changed = true;
    }
    rc = delete_xattrs(a, object);
    return rc < 0 ? rc : apply_delete_object_chunks(a, object);
}

// ---- directory entries and xattrs ---------------------------------------------------------------

int
apply_put_dirent(struct apply *a, const struct dirent_record *dirent)
{
    struct schema_key key;
    schema_key_pair(&key, a->db.id, dirent->parent.v, dirent->cookie);
    buffer_clear(&a->value);
    schema_encode_dirent(dirent, &a->value);
    a->log.dirents++;
    int rc = apply_put(a, TABLE_DIRENT, &key);
    return rc < 0 ? rc : apply_note(a, UNPUBLISHED_DIRENT, &key);
}

int
apply_delete_dirent(struct apply *a, const struct dirent_record *dirent)
{
    struct schema_key key;
    schema_key_pair(&key, a->db.id, dirent->parent.v, dirent->cookie);
    a->log.dirents++;
    return delete_and_note(a, TABLE_DIRENT, UNPUBLISHED_DIRENT, &key);
}

int
apply_put_xattr(struct apply *a, const struct xattr_record *xattr)
{
    struct schema_key key;
    schema_key_xattr(&key, a->db.id, xattr->object, xattr->name, xattr->name_length);
    buffer_clear(&a->value);
    schema_encode_xattr(xattr, &a->value);
    a->log.xattrs++;
    int rc = apply_put(a, TABLE_XATTR, &key);
    return rc < 0 ? rc : apply_note(a, UNPUBLISHED_XATTR, &key);
}

int
apply_delete_xattr(struct apply *a, const struct xattr_record *xattr)
{
    struct schema_key key;
    schema_key_xattr(&key, a->db.id, xattr->object, xattr->name, xattr->name_length);
    a->log.xattrs++;
    return delete_and_note(a, TABLE_XATTR, UNPUBLISHED_XATTR, &key);
}
