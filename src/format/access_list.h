// SPDX-License-Identifier: Apache-2.0
// POSIX access lists (POSIX 1003.1e draft 17; acl(5)) and the bytes in which they travel as the
// attributes system.posix_acl_access and system.posix_acl_default: a version (u32, 2), then for
// each entry a tag (u16), permissions (u16) and an id (u32), all little-endian. Pure.
#ifndef CKPTFS_FORMAT_ACCESS_LIST_H
#define CKPTFS_FORMAT_ACCESS_LIST_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buffer.h"
#include "base/compiler.h"

#define XATTR_ACCESS_LIST         "system.posix_acl_access"
#define XATTR_DEFAULT_ACCESS_LIST "system.posix_acl_default"

// The most that fit into the page that the kernel hands over.
#define ACCESS_ENTRIES_MAX 511u

enum access_tag {
    ACCESS_OWNER = 0x01,
    ACCESS_USER = 0x02, // named by its id
    ACCESS_GROUP_OWNER = 0x04,
    ACCESS_GROUP = 0x08, // named by its id
    ACCESS_MASK = 0x10,
    ACCESS_OTHERS = 0x20,
};

struct access_entry {
    uint16_t tag;         // enum access_tag
    uint16_t permissions; // rwx as 4, 2, 1
    uint32_t id;          // USER, GROUP; else 0xffffffff
};

struct access_list {
    unsigned count;
    struct access_entry entries[ACCESS_ENTRIES_MAX];
};

// 0; -EINVAL for bytes that are no list: another version, a length that is none, entries out of
// order, missing or more than once, named ones without a mask; -E2BIG for more entries than fit.
MUST_CHECK int access_list_decode(const void *bytes, size_t length, struct access_list *list_out);
void access_list_encode(const struct access_list *list, struct buffer *out); // cleared first

// Puts the list's permissions into the lower nine bits of the mode. True when the mode cannot
// express the list, so that the caller has to store it.
bool access_list_to_mode(const struct access_list *list, uint32_t *mode);
// chmod: puts the mode's permissions into the list.
void access_list_from_mode(struct access_list *list, uint32_t mode);
// Turns a directory's default list into the access list of a new object with `mode`, and reduces
// the mode accordingly. True when the caller has to store the list.
bool access_list_inherit(struct access_list *list, uint32_t *mode);

#endif
