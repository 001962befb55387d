// SPDX-License-Identifier: Apache-2.0
#include "volume_steps.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "platform/memory.h"
#include "volume_world.h"

#define LENGTH_MAX 20000u

struct step {
    enum { STEP_WRITE, STEP_TRUNCATE, STEP_PUNCH, STEP_REPLACE } kind;
    unsigned file;
    uint64_t offset;
    size_t length;
    uint64_t seed;
};

static struct step
step_of(uint64_t number)
{
    uint64_t r = (number + 1) * 0x9e3779b97f4a7c15u;
    test_random(&r);
    struct step s = {.seed = number * 977 + 13};
    s.file = (unsigned)(test_random(&r) % STEP_FILES);
    s.offset = test_random(&r) % (200u << 10);
    s.length = 1 + test_random(&r) % LENGTH_MAX;
    uint64_t kind = test_random(&r) % 20;
    s.kind = kind < 15   ? STEP_WRITE
             : kind < 17 ? STEP_TRUNCATE
             : kind < 19 ? STEP_PUNCH
                         : STEP_REPLACE;
    if (kind < 5) {
        s.offset -= s.offset % PAGE_BYTES;
        s.length = pages_of_bytes(s.length) * PAGE_BYTES;
    }
    return s;
}

static uint8_t *
bytes_of(const struct step *s)
{
    uint64_t r = s->seed;
    uint8_t *bytes = memory_alloc(s->length);
    for (size_t i = 0; i < s->length; i += 8) {
        uint64_t x = test_random(&r);
        memcpy(bytes + i, &x, s->length - i < 8 ? s->length - i : 8);
    }
    return bytes;
}

static void
name_of(unsigned file, char name[16])
{
    snprintf(name, 16, "f%u", file);
}

// ---- the volume ---------------------------------------------------------------------------------

static int
make(struct volume *v, const char *name)
{
    const struct volume_caller caller = {0};
    struct volume_attributes a;
    return volume_make(v, OBJECT_ROOT_DIRECTORY, name, S_IFREG | 0600, 0, NULL, &caller, &a);
}

int
volume_steps_begin(struct volume *v)
{
    int rc = 0;
    for (unsigned i = 0; i < STEP_FILES && rc == 0; i++) {
        struct volume_attributes a;
        char name[16];
        name_of(i, name);
        rc = volume_lookup(v, OBJECT_ROOT_DIRECTORY, name, &a);
        if (rc == -ENOENT)
            rc = make(v, name);
    }
    return rc;
}

int
volume_steps_do(struct volume *v, uint64_t number)
{
    struct step s = step_of(number);
    struct volume_attributes a;
    char name[16];
    name_of(s.file, name);
    int rc = volume_lookup(v, OBJECT_ROOT_DIRECTORY, name, &a);
    if (rc < 0)
        return rc;
    struct object_id object = a.object;
    if (s.kind == STEP_WRITE) {
        CLEANUP(memory_free_auto) uint8_t *bytes = bytes_of(&s);
        return volume_write(v, object, s.offset, bytes, s.length, 0);
    }
    if (s.kind == STEP_TRUNCATE) {
        const struct volume_set_attributes set = {.set = VOLUME_SET_SIZE, .size = s.offset};
        return volume_set_attributes(v, object, &set, &a);
    }
    if (s.kind == STEP_PUNCH)
        return volume_allocate(v, object, 3, s.offset, s.length); // PUNCH_HOLE, KEEP_SIZE
    rc = volume_unlink(v, OBJECT_ROOT_DIRECTORY, name);
    if (rc == 0)
        rc = make(v, name);
    volume_object_forgotten(v, object);
    return rc;
}

unsigned
volume_steps_file(uint64_t number)
{
    return step_of(number).file;
}

int
volume_steps_set_mark(struct volume *v, uint64_t mark)
{
    return volume_set_xattr(v, OBJECT_ROOT_DIRECTORY, "user.mark", &mark, sizeof(mark), 0);
}

uint64_t
volume_steps_mark(struct volume *v)
{
    BUFFER_AUTO mark = {0};
    uint64_t number = 0;
    if (volume_get_xattr(v, OBJECT_ROOT_DIRECTORY, "user.mark", &mark) == 0)
        memcpy(&number, mark.data, sizeof(number));
    return number;
}

// ---- the model ----------------------------------------------------------------------------------

struct model *
volume_steps_model(void)
{
    struct model *m = model_new();
    for (unsigned i = 0; i < STEP_FILES; i++) {
        char name[16];
        name_of(i, name);
        model_put_entry(m, 0, name, model_add(m, (struct object_id){0}, S_IFREG | 0600));
    }
    return m;
}

void
volume_steps_model_do(struct model *m, uint64_t number)
{
    struct step s = step_of(number);
    char name[16];
    name_of(s.file, name);
    int object = model_find(m, 0, name)->object;
    uint64_t size = m->objects[object].size;
    if (s.kind == STEP_WRITE) {
        CLEANUP(memory_free_auto) uint8_t *bytes = bytes_of(&s);
        model_write(m, object, s.offset, bytes, s.length);
    } else if (s.kind == STEP_TRUNCATE) {
        model_truncate(m, object, s.offset);
    } else if (s.kind == STEP_PUNCH) {
        uint64_t end = s.offset + s.length < size ? s.offset + s.length : size;
        if (s.offset < end)
            model_zero(m, object, s.offset, end);
    } else {
        model_truncate(m, object, 0);
    }
}

void
volume_steps_compare(struct model *m, struct volume *v, unsigned except)
{
    const size_t piece = 64u << 10;
    for (unsigned i = 0; i < STEP_FILES; i++) {
        char name[16];
        struct volume_attributes a;
        name_of(i, name);
        int rc = volume_lookup(v, OBJECT_ROOT_DIRECTORY, name, &a);
        if (i == except) {
            ck_assert(rc == 0 || rc == -ENOENT);
            continue;
        }
        ck_assert_int_eq(rc, 0);
        int object = model_find(m, 0, name)->object;
        struct model_object *o = &m->objects[object];
        o->id = a.object;
        ck_assert_uint_eq(a.inode.size, o->size);
        for (uint64_t at = 0; at < o->size; at += piece)
            model_compare_range(m, v, object, at, piece);
    }
}
