// SPDX-License-Identifier: Apache-2.0
// What a volume should hold, in memory: a small tree of files, directories and symbolic links, with
// their bytes. Copies share pages, so that the state at many checkpoints can be kept.
#ifndef CKPTFS_TESTS_VOLUME_MODEL_H
#define CKPTFS_TESTS_VOLUME_MODEL_H

#include "unit.h"

#include "volume/volume.h"

#define MODEL_OBJECTS 48
#define MODEL_ENTRIES 16
#define MODEL_XATTRS  4

struct model_page {
    unsigned references;
    uint8_t data[PAGE_BYTES];
};

struct model_slot {
    uint64_t page;
    struct model_page *content;
};

struct model_xattr {
    char name[16];
    uint8_t value[512];
    size_t length;
};

struct model_entry {
    char name[16];
    int object;
};

struct model_object {
    bool used;
    bool open; // kept open by the test: lives on without names
    struct object_id id;
    uint32_t mode;
    uint32_t nlink;
    uint64_t size;
    struct model_slot *pages; // in order; pages that are not here are zeros
    size_t page_count;
    struct model_xattr xattrs[MODEL_XATTRS];
    size_t xattr_count;
    char target[64];
    struct model_entry entries[MODEL_ENTRIES];
    size_t entry_count;
};

struct model {
    struct model_object objects[MODEL_OBJECTS]; // the first is the root directory
};

struct model *model_new(void);
struct model *model_copy(const struct model *m);
void model_free(struct model *m);

// A new object without a name; -1 when there is no room.
int model_add(struct model *m, struct object_id id, uint32_t mode);
void model_remove(struct model *m, int object);
struct model_entry *model_find(struct model *m, int directory, const char *name);
void model_put_entry(struct model *m, int directory, const char *name, int object);
void model_drop_entry(struct model *m, int directory, const char *name);

void model_write(struct model *m, int object, uint64_t offset, const uint8_t *data, size_t n);
void model_zero(struct model *m, int object, uint64_t offset, uint64_t end);
void model_truncate(struct model *m, int object, uint64_t size);
void model_read(const struct model *m, int object, uint64_t offset, size_t n, uint8_t *out);

// Asserts that the volume shows exactly this.
void model_compare(const struct model *m, struct volume *v);
// The same for one file's bytes.
void model_compare_range(
    const struct model *m, struct volume *v, int object, uint64_t offset, size_t n);
// Asserts that SEEK_DATA and SEEK_HOLE leave out nothing that is not zero.
void model_compare_seek(const struct model *m, struct volume *v, int object);

#endif
