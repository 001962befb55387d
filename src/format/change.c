// SPDX-License-Identifier: Apache-2.0
// Layout of a change:
//
//     kind      u8
//     version   u8      of the body's layout
//     reserved  u16     0
//     length    u32     of the body
//     body      the key's fields, then the record (format/record_codec.h)
#include "format/change.h"

#include <errno.h>

#include "format/extension.h"
#include "format/record_codec.h"

#define CHANGE_VERSION      1u // of all kinds but PUT_INODE and PUT_BLOB, which have a 2 as well
#define CHANGE_HEADER_BYTES 8u
#define CHANGE_KIND_MAX     CHANGE_DELETE_DAMAGE
// The longest body is an xattr's.
#define CHANGE_BODY_MAX (8u + 1u + XATTR_NAME_BYTES_MAX + 4u + XATTR_VALUE_BYTES_MAX)

#define COOKIE_MAX ((uint64_t)INT64_MAX)

static void
encode_name(const char *name, uint8_t length, struct buffer *out)
{
    buffer_append_u8(out, length);
    buffer_append(out, name, length);
}

static const char *
decode_name(struct byte_reader *r, uint8_t *length)
{
    *length = read_u8(r);
    return (const char *)read_bytes(r, *length);
}

static void
encode_body(const struct change *c, struct buffer *out)
{
    switch (c->kind) {
    case CHANGE_PUT_INODE:
        buffer_append_le64(out, c->object.v);
        record_encode_inode(&c->inode, record_inode_version(&c->inode), out);
        break;
    case CHANGE_DELETE_INODE:
        buffer_append_le64(out, c->object.v);
        break;
    case CHANGE_PUT_DIRENT:
        buffer_append_le64(out, c->dirent.parent.v);
        buffer_append_le64(out, c->dirent.cookie);
        record_encode_dirent(&c->dirent, out);
        break;
    case CHANGE_DELETE_DIRENT:
        buffer_append_le64(out, c->dirent.parent.v);
        buffer_append_le64(out, c->dirent.cookie);
        encode_name(c->dirent.name, c->dirent.name_length, out);
        break;
    case CHANGE_PUT_XATTR:
    case CHANGE_DELETE_XATTR:
        buffer_append_le64(out, c->xattr.object.v);
        encode_name(c->xattr.name, c->xattr.name_length, out);
        if (c->kind == CHANGE_PUT_XATTR)
            record_encode_xattr(&c->xattr, out);
        break;
    case CHANGE_WRITE:
    case CHANGE_DISCARD:
        buffer_append_le64(out, c->object.v);
        buffer_append_le64(out, c->offset);
        buffer_append_le64(out, c->length);
        break;
    case CHANGE_PUT_CHUNK:
        buffer_append_le64(out, c->chunk.id.v);
        record_encode_chunk(&c->chunk, record_chunk_version(&c->chunk), out);
        break;
    case CHANGE_DELETE_CHUNK:
        buffer_append_le64(out, c->chunk.object.v);
        buffer_append_le64(out, c->chunk.index.v);
        break;
    case CHANGE_PUT_DELTA:
    case CHANGE_DELETE_DELTA:
        buffer_append_le64(out, c->delta.chunk.v);
        buffer_append_le64(out, c->delta.generation.v);
        if (c->kind == CHANGE_PUT_DELTA)
            record_encode_delta(&c->delta, out);
        break;
    case CHANGE_PUT_BLOB:
        buffer_append(out, c->blob.hash.b, sizeof(c->blob.hash.b));
        record_encode_blob(&c->blob, record_blob_version(&c->blob), out);
        break;
    case CHANGE_PUT_COUNTERS:
        record_encode_counters(&c->counters, out);
        break;
    case CHANGE_FORGET_BLOB:
        buffer_append(out, c->forgotten.hash.b, sizeof(c->forgotten.hash.b));
        buffer_append(out, c->forgotten.checkpoint_id.b, sizeof(c->forgotten.checkpoint_id.b));
        buffer_append_le64(out, c->forgotten.generation.v);
        break;
    case CHANGE_PUT_NAMESPACE:
        buffer_append_le32(out, c->space.id);
        record_encode_namespace(&c->space, out);
        break;
    case CHANGE_PUT_GENERATION:
    case CHANGE_DELETE_GENERATION:
        buffer_append_le64(out, c->published.generation.v);
        if (c->kind == CHANGE_PUT_GENERATION)
            record_encode_generation(&c->published, out);
        break;
    case CHANGE_PUT_RETENTION:
        record_encode_retention(&c->retention, out);
        break;
    case CHANGE_PUT_DAMAGE:
    case CHANGE_DELETE_DAMAGE:
        buffer_append_le64(out, c->damage.object.v);
        buffer_append_le64(out, c->damage.page.v);
        if (c->kind == CHANGE_PUT_DAMAGE)
            record_encode_damage(&c->damage, out);
        break;
    }
}

// There is one way to write a change: version 2 only where version 1 cannot say it.
static uint8_t
version_of(const struct change *c)
{
    if (c->kind == CHANGE_PUT_INODE)
        return (uint8_t)record_inode_version(&c->inode);
    if (c->kind == CHANGE_PUT_CHUNK)
        return (uint8_t)record_chunk_version(&c->chunk);
    return c->kind == CHANGE_PUT_BLOB ? (uint8_t)record_blob_version(&c->blob) : CHANGE_VERSION;
}

void
change_encode(const struct change *c, struct buffer *out)
{
    size_t start = out->length;
    buffer_append_u8(out, (uint8_t)c->kind);
    buffer_append_u8(out, version_of(c));
    buffer_append_le16(out, 0);
    buffer_append_le32(out, 0);
    encode_body(c, out);
    put_le32(out->data + start + 4, (uint32_t)(out->length - start - CHANGE_HEADER_BYTES));
}

// ---- reading: any bytes will do -----------------------------------------------------------------

static void
read_dirent_key(struct byte_reader *r, struct dirent_record *d)
{
    d->parent.v = read_le64(r);
    d->cookie = read_le64(r);
}

static void
read_xattr_key(struct byte_reader *r, struct xattr_record *x)
{
    x->object.v = read_le64(r);
    x->name = decode_name(r, &x->name_length);
}

static void
read_delta_key(struct byte_reader *r, struct chunk_delta *d)
{
    d->chunk.v = read_le64(r);
    d->generation.v = read_le64(r);
}

static void
read_damage_key(struct byte_reader *r, struct chunk_damage *d)
{
    d->object.v = read_le64(r);
    d->page.v = read_le64(r);
}

static void
read_body(struct byte_reader *r, unsigned version, struct change *c)
{
    switch (c->kind) {
    case CHANGE_PUT_INODE:
        c->object.v = read_le64(r);
        record_read_inode(r, version, &c->inode);
        return;
    case CHANGE_DELETE_INODE:
        c->object.v = read_le64(r);
        return;
    case CHANGE_PUT_DIRENT:
        read_dirent_key(r, &c->dirent);
        record_read_dirent(r, &c->dirent);
        return;
    case CHANGE_DELETE_DIRENT:
        read_dirent_key(r, &c->dirent);
        c->dirent.name = decode_name(r, &c->dirent.name_length);
        return;
    case CHANGE_PUT_XATTR:
        read_xattr_key(r, &c->xattr);
        record_read_xattr(r, &c->xattr);
        return;
    case CHANGE_DELETE_XATTR:
        read_xattr_key(r, &c->xattr);
        return;
    case CHANGE_WRITE:
    case CHANGE_DISCARD:
        c->object.v = read_le64(r);
        c->offset = read_le64(r);
        c->length = read_le64(r);
        return;
    case CHANGE_PUT_CHUNK:
        c->chunk.id.v = read_le64(r);
        record_read_chunk(r, version, &c->chunk);
        return;
    case CHANGE_DELETE_CHUNK:
        c->chunk.object.v = read_le64(r);
        c->chunk.index.v = read_le64(r);
        return;
    case CHANGE_PUT_DELTA:
        read_delta_key(r, &c->delta);
        record_read_delta(r, &c->delta);
        return;
    case CHANGE_DELETE_DELTA:
        read_delta_key(r, &c->delta);
        return;
    case CHANGE_PUT_BLOB:
        read_copy(r, c->blob.hash.b, sizeof(c->blob.hash.b));
        record_read_blob(r, version, &c->blob);
        return;
    case CHANGE_PUT_COUNTERS:
        if (!record_decode_counters(r, &c->counters))
            r->bad = true;
        return;
    case CHANGE_FORGET_BLOB:
        read_copy(r, c->forgotten.hash.b, sizeof(c->forgotten.hash.b));
        read_copy(r, c->forgotten.checkpoint_id.b, sizeof(c->forgotten.checkpoint_id.b));
        c->forgotten.generation.v = read_le64(r);
        return;
    case CHANGE_PUT_NAMESPACE:
        c->space.id = read_le32(r);
        record_read_namespace(r, &c->space);
        return;
    case CHANGE_PUT_GENERATION:
        c->published.generation.v = read_le64(r);
        record_read_generation(r, &c->published);
        return;
    case CHANGE_DELETE_GENERATION:
        c->published.generation.v = read_le64(r);
        return;
    case CHANGE_PUT_RETENTION:
        record_read_retention(r, &c->retention);
        return;
    case CHANGE_PUT_DAMAGE:
        read_damage_key(r, &c->damage);
        record_read_damage(r, &c->damage);
        return;
    case CHANGE_DELETE_DAMAGE:
        read_damage_key(r, &c->damage);
        return;
    }
    r->bad = true;
}

// ---- judging ------------------------------------------------------------------------------------

static bool
dirent_key_is_valid(const struct dirent_record *d)
{
    return d->parent.v != 0 && d->cookie <= COOKIE_MAX;
}

static bool
xattr_key_is_valid(const struct xattr_record *x)
{
    return x->object.v != 0 && xattr_name_is_valid(x->name, x->name_length);
}

static bool
delta_key_is_valid(const struct chunk_delta *d)
{
    return d->chunk.v != 0 && d->generation.v != 0;
}

static bool
damage_key_is_valid(const struct chunk_damage *d)
{
    return d->object.v != 0 && d->page.v <= OBJECT_MAX_BYTES / PAGE_BYTES;
}

// A range of an object; that of a discard may be open.
static bool
range_is_valid(const struct change *c)
{
    if (c->object.v == 0 || c->offset > OBJECT_MAX_BYTES)
        return false;
    if (c->kind == CHANGE_DISCARD && c->length == UINT64_MAX)
        return true;
    return c->length <= OBJECT_MAX_BYTES - c->offset;
}

bool
change_is_valid(const struct change *c)
{
    switch (c->kind) {
    case CHANGE_PUT_INODE:
        return c->object.v != 0 && record_inode_is_valid(&c->inode);
    case CHANGE_DELETE_INODE:
        return c->object.v != 0;
    case CHANGE_PUT_DIRENT:
        return dirent_key_is_valid(&c->dirent) && record_dirent_is_valid(&c->dirent);
    case CHANGE_DELETE_DIRENT:
        // A writer that no longer knows the name leaves it out.
        return dirent_key_is_valid(&c->dirent) &&
               (c->dirent.name_length == 0 || name_is_valid(c->dirent.name, c->dirent.name_length));
    case CHANGE_PUT_XATTR:
        return xattr_key_is_valid(&c->xattr) && record_xattr_is_valid(&c->xattr);
    case CHANGE_DELETE_XATTR:
        return xattr_key_is_valid(&c->xattr);
    case CHANGE_WRITE:
    case CHANGE_DISCARD:
        return range_is_valid(c);
    case CHANGE_PUT_CHUNK:
        return c->chunk.id.v != 0 && record_chunk_is_valid(&c->chunk);
    case CHANGE_DELETE_CHUNK:
        return c->chunk.object.v != 0 && c->chunk.index.v <= CHUNK_INDEX_MAX;
    case CHANGE_PUT_DELTA:
        return delta_key_is_valid(&c->delta) && record_delta_is_valid(&c->delta);
    case CHANGE_DELETE_DELTA:
        return delta_key_is_valid(&c->delta);
    case CHANGE_PUT_BLOB:
        return record_blob_is_valid(&c->blob);
    case CHANGE_PUT_COUNTERS:
    case CHANGE_FORGET_BLOB:
        return true;
    case CHANGE_PUT_NAMESPACE:
        return c->space.id >= BLOB_WHERE_NAMED && record_namespace_is_valid(&c->space);
    case CHANGE_PUT_GENERATION:
        return c->published.generation.v != 0 && record_generation_is_valid(&c->published);
    case CHANGE_DELETE_GENERATION:
        return c->published.generation.v != 0;
    case CHANGE_PUT_RETENTION:
        return record_retention_is_valid(&c->retention);
    case CHANGE_PUT_DAMAGE:
        return damage_key_is_valid(&c->damage) && record_damage_is_valid(&c->damage);
    case CHANGE_DELETE_DAMAGE:
        return damage_key_is_valid(&c->damage);
    }
    return false;
}

// Whether a change that was read has an item that this program would have to know.
static bool
must_be_known(const struct change *c)
{
    if (c->kind == CHANGE_PUT_INODE)
        return extension_check(c->inode.extension, c->inode.extension_length) == -ENOTSUP;
    return c->kind == CHANGE_PUT_CHUNK &&
           extension_check(c->chunk.extension, c->chunk.extension_length) == -ENOTSUP;
}

int
change_decode(struct byte_reader *r, struct change *change_out)
{
    memset(change_out, 0, sizeof(*change_out));
    uint8_t kind = read_u8(r);
    uint8_t version = read_u8(r);
    uint16_t reserved = read_le16(r);
    uint32_t length = read_le32(r);
    change_out->kind = (enum change_kind)kind;
    if (length > CHANGE_BODY_MAX)
        r->bad = true;
    const uint8_t *body = read_bytes(r, length);
    if (!body || kind == 0 || version == 0)
        return -EBADMSG;
    bool has_two = kind == CHANGE_PUT_INODE || kind == CHANGE_PUT_BLOB || kind == CHANGE_PUT_CHUNK;
    if (kind > CHANGE_KIND_MAX || version > (has_two ? 2 : CHANGE_VERSION))
        return -ENOTSUP;
    if (reserved != 0)
        return -EBADMSG;
    struct byte_reader fields = byte_reader_over(body, length);
    read_body(&fields, version, change_out);
    // An unknown item that must be understood is no damage.
    if (!fields.bad && must_be_known(change_out))
        return -ENOTSUP;
    if (fields.bad || byte_reader_left(&fields) != 0 || version != version_of(change_out) ||
        !change_is_valid(change_out))
        return -EBADMSG;
    return 0;
}

// ---- order --------------------------------------------------------------------------------------

static void
append_be64(struct buffer *out, uint64_t v)
{
    put_be64(buffer_extend(out, sizeof(v)), v);
}

static void
append_pair(struct buffer *out, uint64_t a, uint64_t b)
{
    append_be64(out, a);
    append_be64(out, b);
}

void
change_key(const struct change *c, struct buffer *key_out)
{
    switch (c->kind) {
    case CHANGE_PUT_INODE:
        append_be64(key_out, c->object.v);
        break;
    case CHANGE_PUT_DIRENT:
        append_pair(key_out, c->dirent.parent.v, c->dirent.cookie);
        break;
    case CHANGE_PUT_XATTR:
        append_be64(key_out, c->xattr.object.v);
        buffer_append(key_out, c->xattr.name, c->xattr.name_length);
        break;
    case CHANGE_PUT_CHUNK:
        append_pair(key_out, c->chunk.object.v, c->chunk.index.v);
        break;
    case CHANGE_PUT_DELTA:
        append_pair(key_out, c->delta.chunk.v, c->delta.generation.v);
        break;
    case CHANGE_PUT_BLOB:
        buffer_append(key_out, c->blob.hash.b, sizeof(c->blob.hash.b));
        break;
    case CHANGE_PUT_NAMESPACE:
        append_be64(key_out, c->space.id);
        break;
    case CHANGE_PUT_GENERATION:
        append_be64(key_out, c->published.generation.v);
        break;
    case CHANGE_PUT_DAMAGE:
        append_pair(key_out, c->damage.object.v, c->damage.page.v);
        break;
    default:
        break;
    }
}
