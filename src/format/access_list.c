// SPDX-License-Identifier: Apache-2.0
#include "format/access_list.h"

#include <errno.h>
#include <sys/stat.h>

#include "base/bytes.h"

#define LIST_VERSION 2u
#define HEADER_BYTES 4u
#define ENTRY_BYTES  8u
#define NO_ID        0xffffffffu

#define ALL_BITS (S_IRWXU | S_IRWXG | S_IRWXO)

static struct access_entry *
find_entry(struct access_list *list, enum access_tag tag)
{
    for (unsigned i = 0; i < list->count; i++)
        if (list->entries[i].tag == tag)
            return &list->entries[i];
    return NULL;
}

static bool
is_named(const struct access_entry *e)
{
    return e->tag == ACCESS_USER || e->tag == ACCESS_GROUP;
}

// Tags come in the order of their values; only those with names may come more than once.
static bool
is_valid(struct access_list *list)
{
    bool named = false;
    for (unsigned i = 0; i < list->count; i++) {
        const struct access_entry *e = &list->entries[i];
        uint16_t before = i > 0 ? e[-1].tag : 0;
        if (e->permissions > 7 || e->tag < before || (e->tag == before && !is_named(e)))
            return false;
        if (is_named(e) && e->id == NO_ID)
            return false;
        if (e->tag == 0 || (e->tag & (e->tag - 1)) != 0 || e->tag > ACCESS_OTHERS)
            return false;
        named = named || is_named(e);
    }
    return find_entry(list, ACCESS_OWNER) && find_entry(list, ACCESS_GROUP_OWNER) &&
           find_entry(list, ACCESS_OTHERS) && (!named || find_entry(list, ACCESS_MASK));
}

int
access_list_decode(const void *bytes, size_t length, struct access_list *list_out)
{
    struct byte_reader r = byte_reader_over(bytes, length);
    list_out->count = 0;
    if (read_le32(&r) != LIST_VERSION || byte_reader_left(&r) % ENTRY_BYTES != 0)
        return -EINVAL;
    if (byte_reader_left(&r) / ENTRY_BYTES > ACCESS_ENTRIES_MAX)
        return -E2BIG;
    while (byte_reader_left(&r) > 0) {
        struct access_entry *e = &list_out->entries[list_out->count++];
        e->tag = read_le16(&r);
        e->permissions = read_le16(&r);
        e->id = read_le32(&r);
        if (!is_named(e))
            e->id = NO_ID;
    }
    return is_valid(list_out) ? 0 : -EINVAL;
}

void
access_list_encode(const struct access_list *list, struct buffer *out)
{
    buffer_clear(out);
    buffer_append_le32(out, LIST_VERSION);
    for (unsigned i = 0; i < list->count; i++) {
        const struct access_entry *e = &list->entries[i];
        buffer_append_le16(out, e->tag);
        buffer_append_le16(out, e->permissions);
        buffer_append_le32(out, e->id);
    }
}

static bool
is_extended(struct access_list *list)
{
    return find_entry(list, ACCESS_MASK) != NULL || list->count > 3;
}

// The entry that the group's bits of the mode stand for.
static struct access_entry *
group_class(struct access_list *list)
{
    struct access_entry *mask = find_entry(list, ACCESS_MASK);
    return mask ? mask : find_entry(list, ACCESS_GROUP_OWNER);
}

bool
access_list_to_mode(const struct access_list *list, uint32_t *mode)
{
    struct access_list *l = (struct access_list *)list; // looked at only
    uint32_t bits = (uint32_t)find_entry(l, ACCESS_OWNER)->permissions << 6 |
                    (uint32_t)group_class(l)->permissions << 3 |
                    find_entry(l, ACCESS_OTHERS)->permissions;
    *mode = (*mode & ~(uint32_t)ALL_BITS) | bits;
    return is_extended(l);
}

void
access_list_from_mode(struct access_list *list, uint32_t mode)
{
    find_entry(list, ACCESS_OWNER)->permissions = (uint16_t)(mode >> 6 & 7);
    group_class(list)->permissions = (uint16_t)(mode >> 3 & 7);
    find_entry(list, ACCESS_OTHERS)->permissions = (uint16_t)(mode & 7);
}

bool
access_list_inherit(struct access_list *list, uint32_t *mode)
{
    find_entry(list, ACCESS_OWNER)->permissions &= (uint16_t)(*mode >> 6 & 7);
    group_class(list)->permissions &= (uint16_t)(*mode >> 3 & 7);
    find_entry(list, ACCESS_OTHERS)->permissions &= (uint16_t)(*mode & 7);
    return access_list_to_mode(list, mode);
}
