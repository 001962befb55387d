// SPDX-License-Identifier: Apache-2.0
#include "format/record_codec.h"

#include <dirent.h>
#include <errno.h>
#include <sys/stat.h>

#include "format/allocation.h"
#include "format/extension.h"
#include "format/parent.h"

bool
name_is_valid(const char *name, size_t length)
{
    if (length == 0 || length > NAME_BYTES_MAX)
        return false;
    if (name[0] == '.' && (length == 1 || (length == 2 && name[1] == '.')))
        return false;
    return !memchr(name, '/', length) && !memchr(name, 0, length);
}

bool
xattr_name_is_valid(const char *name, size_t length)
{
    return length > 0 && length <= XATTR_NAME_BYTES_MAX && !memchr(name, 0, length);
}

static void
encode_timestamp(const struct timestamp *t, struct buffer *out)
{
    buffer_append_le64(out, (uint64_t)t->seconds);
    buffer_append_le32(out, t->nanoseconds);
}

static void
read_timestamp(struct byte_reader *r, struct timestamp *t)
{
    t->seconds = (int64_t)read_le64(r);
    t->nanoseconds = read_le32(r);
}

static bool
timestamp_is_valid(const struct timestamp *t)
{
    return t->nanoseconds < 1000000000u;
}

// ---- inodes -------------------------------------------------------------------------------------

#define TYPE_BIT(type) (1u << ((type) >> 12))

static bool
mode_is_valid(uint32_t mode)
{
    const unsigned types = TYPE_BIT(S_IFREG) | TYPE_BIT(S_IFDIR) | TYPE_BIT(S_IFLNK) |
                           TYPE_BIT(S_IFIFO) | TYPE_BIT(S_IFSOCK) | TYPE_BIT(S_IFCHR) |
                           TYPE_BIT(S_IFBLK);
    return (mode & ~(uint32_t)(S_IFMT | 07777)) == 0 && (types & TYPE_BIT(mode & S_IFMT)) != 0;
}

unsigned
record_inode_version(const struct inode_record *v)
{
    return v->extension_length > 0 ? 2 : 1;
}

void
record_encode_inode(const struct inode_record *v, unsigned version, struct buffer *out)
{
    buffer_append_le32(out, v->mode);
    buffer_append_le32(out, v->uid);
    buffer_append_le32(out, v->gid);
    buffer_append_le32(out, v->nlink);
    buffer_append_le32(out, v->rdev);
    buffer_append_le32(out, v->flags);
    buffer_append_le64(out, v->size);
    encode_timestamp(&v->atime, out);
    encode_timestamp(&v->mtime, out);
    encode_timestamp(&v->ctime, out);
    encode_timestamp(&v->btime, out);
    buffer_append_u8(out, v->source_variant);
    buffer_append_le16(out, v->link_target_length);
    buffer_append(out, v->link_target, v->link_target_length);
    if (version == 1)
        return;
    buffer_append_le16(out, v->extension_length);
    buffer_append(out, v->extension, v->extension_length);
}

void
record_read_inode(struct byte_reader *r, unsigned version, struct inode_record *v)
{
    v->mode = read_le32(r);
    v->uid = read_le32(r);
    v->gid = read_le32(r);
    v->nlink = read_le32(r);
    v->rdev = read_le32(r);
    v->flags = read_le32(r);
    v->size = read_le64(r);
    read_timestamp(r, &v->atime);
    read_timestamp(r, &v->mtime);
    read_timestamp(r, &v->ctime);
    read_timestamp(r, &v->btime);
    v->source_variant = read_u8(r);
    v->link_target_length = read_le16(r);
    v->link_target = (const char *)read_bytes(r, v->link_target_length);
    if (v->link_target_length == 0)
        v->link_target = NULL;
    v->extension_length = version > 1 ? read_le16(r) : 0;
    v->extension = version > 1 ? read_bytes(r, v->extension_length) : NULL;
}

static bool
extension_is_valid(const struct inode_record *v)
{
    struct allocation allocation;
    struct object_id parent;
    int rc = parent_decode(v->extension, v->extension_length, &parent);
    return v->extension_length <= INODE_EXTENSION_BYTES_MAX &&
           extension_check(v->extension, v->extension_length) == 0 &&
           allocation_decode(v->extension, v->extension_length, &allocation) == 0 &&
           (rc == -ENOENT || (rc == 0 && S_ISDIR(v->mode)));
}

bool
record_inode_is_valid(const struct inode_record *v)
{
    if (v->extension_length > 0 && !extension_is_valid(v))
        return false;
    if (!mode_is_valid(v->mode) || v->size > OBJECT_MAX_BYTES)
        return false;
    if (!timestamp_is_valid(&v->atime) || !timestamp_is_valid(&v->mtime) ||
        !timestamp_is_valid(&v->ctime) || !timestamp_is_valid(&v->btime))
        return false;
    if (v->source_variant > SOURCE_VARIANT_RANDOM || v->link_target_length > LINK_TARGET_BYTES_MAX)
        return false;
    if (S_ISLNK(v->mode) != (v->link_target_length > 0))
        return false;
    return v->link_target_length == 0 || !memchr(v->link_target, 0, v->link_target_length);
}

bool
record_decode_inode(struct byte_reader *r, unsigned version, struct inode_record *v)
{
    record_read_inode(r, version, v);
    return !r->bad && record_inode_is_valid(v);
}

// ---- directory entries and xattrs ---------------------------------------------------------------

static bool
dirent_type_is_valid(uint8_t type)
{
    switch (type) {
    case DT_FIFO:
    case DT_CHR:
    case DT_DIR:
    case DT_BLK:
    case DT_REG:
    case DT_LNK:
    case DT_SOCK:
        return true;
    default:
        return false;
    }
}

void
record_encode_dirent(const struct dirent_record *v, struct buffer *out)
{
    buffer_append_le64(out, v->object.v);
    buffer_append_u8(out, v->type);
    buffer_append_u8(out, v->name_length);
    buffer_append(out, v->name, v->name_length);
}

void
record_read_dirent(struct byte_reader *r, struct dirent_record *v)
{
    v->object.v = read_le64(r);
    v->type = read_u8(r);
    v->name_length = read_u8(r);
    v->name = (const char *)read_bytes(r, v->name_length);
}

bool
record_dirent_is_valid(const struct dirent_record *v)
{
    return v->object.v != 0 && dirent_type_is_valid(v->type) &&
           name_is_valid(v->name, v->name_length);
}

bool
record_decode_dirent(struct byte_reader *r, struct dirent_record *v)
{
    record_read_dirent(r, v);
    return !r->bad && record_dirent_is_valid(v);
}

void
record_encode_xattr(const struct xattr_record *v, struct buffer *out)
{
    buffer_append_le32(out, v->value_length);
    buffer_append(out, v->value, v->value_length);
}

void
record_read_xattr(struct byte_reader *r, struct xattr_record *v)
{
    v->value_length = read_le32(r);
    v->value = read_bytes(r, v->value_length);
}

bool
record_xattr_is_valid(const struct xattr_record *v)
{
    return v->value_length <= XATTR_VALUE_BYTES_MAX;
}

bool
record_decode_xattr(struct byte_reader *r, struct xattr_record *v)
{
    record_read_xattr(r, v);
    return !r->bad && record_xattr_is_valid(v);
}

// ---- chunks, deltas, blobs ----------------------------------------------------------------------

static void
encode_location(const struct blob_location *v, struct buffer *out)
{
    buffer_append(out, v->blob.b, sizeof(v->blob.b));
    buffer_append_le64(out, v->offset);
    buffer_append_le64(out, v->length);
    buffer_append_le64(out, v->index_offset);
}

static void
decode_location(struct byte_reader *r, struct blob_location *v)
{
    read_copy(r, v->blob.b, sizeof(v->blob.b));
    v->offset = read_le64(r);
    v->length = read_le64(r);
    v->index_offset = read_le64(r);
}

static bool
location_is_valid(const struct blob_location *v)
{
    return v->length > 0 && v->length <= IMAGE_BYTES_MAX && v->index_offset < v->length &&
           v->offset <= OBJECT_MAX_BYTES - v->length;
}

bool
chunk_entry_has_base(const struct chunk_entry *v)
{
    return v->base.length > 0;
}

static bool
base_is_absent(const struct chunk_entry *v)
{
    static const struct sha256 zero;
    return v->base.length == 0 && v->base.offset == 0 && v->base.index_offset == 0 &&
           sha256_equal(&v->base.blob, &zero) && v->base_generation.v == 0 && v->base_pages == 0;
}

unsigned
record_chunk_version(const struct chunk_entry *v)
{
    return v->extension_length > 0 ? 2 : 1;
}

void
record_encode_chunk(const struct chunk_entry *v, unsigned version, struct buffer *out)
{
    buffer_append_le64(out, v->object.v);
    buffer_append_le64(out, v->index.v);
    buffer_append_le64(out, v->generation.v);
    buffer_append_le64(out, v->base_generation.v);
    encode_location(&v->base, out);
    buffer_append_le32(out, v->base_pages);
    buffer_append_le32(out, v->delta_count);
    buffer_append_le64(out, v->delta_bytes);
    buffer_append_le32(out, v->present_pages);
    buffer_append_u8(out, v->sealed);
    if (version == 1)
        return;
    buffer_append_le16(out, v->extension_length);
    buffer_append(out, v->extension, v->extension_length);
}

void
record_read_chunk(struct byte_reader *r, unsigned version, struct chunk_entry *v)
{
    v->object.v = read_le64(r);
    v->index.v = read_le64(r);
    v->generation.v = read_le64(r);
    v->base_generation.v = read_le64(r);
    decode_location(r, &v->base);
    v->base_pages = read_le32(r);
    v->delta_count = read_le32(r);
    v->delta_bytes = read_le64(r);
    v->present_pages = read_le32(r);
    v->sealed = read_u8(r);
    v->extension_length = version > 1 ? read_le16(r) : 0;
    v->extension = version > 1 ? read_bytes(r, v->extension_length) : NULL;
}

bool
record_chunk_is_valid(const struct chunk_entry *v)
{
    return v->object.v != 0 && v->index.v <= CHUNK_INDEX_MAX &&
           v->base_generation.v <= v->generation.v &&
           (location_is_valid(&v->base) || base_is_absent(v)) && v->base_pages <= CHUNK_PAGES &&
           v->present_pages <= CHUNK_PAGES && v->delta_bytes <= OBJECT_MAX_BYTES &&
           v->sealed <= 1 && v->extension_length <= CHUNK_EXTENSION_BYTES_MAX &&
           extension_check(v->extension, v->extension_length) == 0;
}

bool
record_decode_chunk(struct byte_reader *r, unsigned version, struct chunk_entry *v)
{
    record_read_chunk(r, version, v);
    return !r->bad && record_chunk_is_valid(v);
}

void
record_encode_delta(const struct chunk_delta *v, struct buffer *out)
{
    encode_location(&v->where, out);
    buffer_append_le32(out, v->data_pages);
    buffer_append_le32(out, v->zero_pages);
}

void
record_read_delta(struct byte_reader *r, struct chunk_delta *v)
{
    decode_location(r, &v->where);
    v->data_pages = read_le32(r);
    v->zero_pages = read_le32(r);
}

bool
record_delta_is_valid(const struct chunk_delta *v)
{
    return location_is_valid(&v->where) && v->data_pages <= CHUNK_PAGES &&
           v->zero_pages <= CHUNK_PAGES - v->data_pages;
}

bool
record_decode_delta(struct byte_reader *r, struct chunk_delta *v)
{
    record_read_delta(r, v);
    return !r->bad && record_delta_is_valid(v);
}

void
record_encode_damage(const struct chunk_damage *v, struct buffer *out)
{
    buffer_append_le32(out, v->pages);
}

void
record_read_damage(struct byte_reader *r, struct chunk_damage *v)
{
    v->pages = read_le32(r);
}

bool
record_damage_is_valid(const struct chunk_damage *v)
{
    return v->pages > 0 && v->pages <= CHUNK_PAGES - page_in_chunk(v->page);
}

bool
record_decode_damage(struct byte_reader *r, struct chunk_damage *v)
{
    record_read_damage(r, v);
    return !r->bad && record_damage_is_valid(v);
}

unsigned
record_blob_version(const struct blob_record *v)
{
    return v->death.v != 0 || v->where != BLOB_WHERE_OWN_OLD ? 2 : 1;
}

void
record_encode_blob(const struct blob_record *v, unsigned version, struct buffer *out)
{
    buffer_append_le64(out, v->bytes);
    buffer_append_u8(out, v->kind);
    buffer_append(out, v->checkpoint_id.b, sizeof(v->checkpoint_id.b));
    buffer_append_le64(out, v->chunk.v);
    buffer_append_le64(out, v->generation.v);
    if (version == 1)
        return;
    buffer_append_le64(out, v->death.v);
    buffer_append_le32(out, v->where);
}

void
record_read_blob(struct byte_reader *r, unsigned version, struct blob_record *v)
{
    v->bytes = read_le64(r);
    v->kind = read_u8(r);
    read_copy(r, v->checkpoint_id.b, sizeof(v->checkpoint_id.b));
    v->chunk.v = read_le64(r);
    v->generation.v = read_le64(r);
    v->death.v = version > 1 ? read_le64(r) : 0;
    v->where = version > 1 ? read_le32(r) : BLOB_WHERE_OWN_OLD;
}

bool
record_blob_is_valid(const struct blob_record *v)
{
    if (v->bytes == 0 || v->bytes > OBJECT_MAX_BYTES)
        return false;
    if (v->death.v != 0 && v->death.v < v->generation.v)
        return false;
    if (v->kind == BLOB_OBJECT_CHUNK || v->kind == BLOB_OBJECT_DELTA)
        return v->chunk.v != 0;
    return v->kind == BLOB_OBJECT_PACK;
}

bool
record_decode_blob(struct byte_reader *r, unsigned version, struct blob_record *v)
{
    record_read_blob(r, version, v);
    return !r->bad && record_blob_is_valid(v);
}

void
record_encode_namespace(const struct namespace_record *v, struct buffer *out)
{
    buffer_append_u8(out, v->form);
    buffer_append_le32(out, v->volume_number);
    buffer_append(out, v->volume.b, sizeof(v->volume.b));
    buffer_append_u8(out, v->tenant_length);
    buffer_append(out, v->tenant, v->tenant_length);
    buffer_append_le16(out, v->place_length);
    buffer_append(out, v->place, v->place_length);
}

void
record_read_namespace(struct byte_reader *r, struct namespace_record *v)
{
    v->form = read_u8(r);
    v->volume_number = read_le32(r);
    read_copy(r, v->volume.b, sizeof(v->volume.b));
    v->tenant_length = read_u8(r);
    v->tenant = (const char *)read_bytes(r, v->tenant_length);
    v->place_length = read_le16(r);
    v->place = (const char *)read_bytes(r, v->place_length);
}

bool
record_namespace_is_valid(const struct namespace_record *v)
{
    return v->form <= BLOB_WHERE_OWN && v->volume_number != 0 &&
           v->tenant_length <= TENANT_BYTES_MAX && name_is_valid(v->tenant, v->tenant_length) &&
           v->place_length <= PLACE_BYTES_MAX && !memchr(v->place, 0, v->place_length);
}

bool
record_decode_namespace(struct byte_reader *r, struct namespace_record *v)
{
    record_read_namespace(r, v);
    return !r->bad && record_namespace_is_valid(v);
}

// ---- the life of data ---------------------------------------------------------------------------

void
record_encode_generation(const struct generation_record *v, struct buffer *out)
{
    buffer_append_le64(out, v->sequence);
    buffer_append_le64(out, v->created_ms);
    buffer_append_u8(out, v->state);
    buffer_append_le64(out, v->expired_ms);
}

void
record_read_generation(struct byte_reader *r, struct generation_record *v)
{
    v->sequence = read_le64(r);
    v->created_ms = read_le64(r);
    v->state = read_u8(r);
    v->expired_ms = read_le64(r);
}

bool
record_generation_is_valid(const struct generation_record *v)
{
    if (v->sequence == 0)
        return false;
    return v->state == GENERATION_RETAINED ? v->expired_ms == 0 : v->state == GENERATION_EXPIRED;
}

bool
record_decode_generation(struct byte_reader *r, struct generation_record *v)
{
    record_read_generation(r, v);
    return !r->bad && record_generation_is_valid(v);
}

void
record_encode_retention(const struct retention_policy *v, struct buffer *out)
{
    buffer_append_u8(out, v->keep_all);
    buffer_append_le32(out, v->last);
    buffer_append_le64(out, v->within_ms);
    buffer_append_le32(out, v->hourly);
    buffer_append_le32(out, v->daily);
    buffer_append_le32(out, v->weekly);
    buffer_append_le32(out, v->monthly);
    buffer_append_le64(out, v->grace_ms);
}

void
record_read_retention(struct byte_reader *r, struct retention_policy *v)
{
    v->keep_all = read_u8(r);
    v->last = read_le32(r);
    v->within_ms = read_le64(r);
    v->hourly = read_le32(r);
    v->daily = read_le32(r);
    v->weekly = read_le32(r);
    v->monthly = read_le32(r);
    v->grace_ms = read_le64(r);
}

bool
record_retention_is_valid(const struct retention_policy *v)
{
    return v->keep_all <= 1 && v->last <= RETENTION_COUNT_MAX && v->within_ms <= RETENTION_MS_MAX &&
           v->hourly <= RETENTION_COUNT_MAX && v->daily <= RETENTION_COUNT_MAX &&
           v->weekly <= RETENTION_COUNT_MAX && v->monthly <= RETENTION_COUNT_MAX &&
           v->grace_ms <= RETENTION_MS_MAX;
}

bool
record_decode_retention(struct byte_reader *r, struct retention_policy *v)
{
    record_read_retention(r, v);
    return !r->bad && record_retention_is_valid(v);
}

void
record_encode_counters(const struct db_counters *v, struct buffer *out)
{
    buffer_append_le64(out, v->next_object);
    buffer_append_le64(out, v->next_chunk);
}

bool
record_decode_counters(struct byte_reader *r, struct db_counters *v)
{
    v->next_object = read_le64(r);
    v->next_chunk = read_le64(r);
    return !r->bad;
}
