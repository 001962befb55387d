// SPDX-License-Identifier: Apache-2.0
#include "volume_model.h"

#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "platform/memory.h"

struct model *
model_new(void)
{
    struct model *m = memory_alloc_zero(sizeof(*m));
    model_add(m, OBJECT_ROOT_DIRECTORY, S_IFDIR | 0755);
    return m;
}

static void
put_page(struct model_page *p)
{
    if (--p->references == 0)
        free(p);
}

static void
drop_pages(struct model_object *o, uint64_t first, uint64_t end)
{
    size_t kept = 0;
    for (size_t i = 0; i < o->page_count; i++) {
        if (o->pages[i].page >= first && o->pages[i].page < end)
            put_page(o->pages[i].content);
        else
            o->pages[kept++] = o->pages[i];
    }
    o->page_count = kept;
}

struct model *
model_copy(const struct model *m)
{
    struct model *copy = memory_alloc(sizeof(*copy));
    *copy = *m;
    for (int i = 0; i < MODEL_OBJECTS; i++) {
        struct model_object *o = &copy->objects[i];
        o->pages = memory_alloc(o->page_count * sizeof(*o->pages));
        for (size_t k = 0; k < o->page_count; k++) {
            o->pages[k] = m->objects[i].pages[k];
            o->pages[k].content->references++;
        }
    }
    return copy;
}

void
model_remove(struct model *m, int object)
{
    struct model_object *o = &m->objects[object];
    drop_pages(o, 0, UINT64_MAX);
    free(o->pages);
    *o = (struct model_object){.used = false};
}

void
model_free(struct model *m)
{
    for (int i = 0; m && i < MODEL_OBJECTS; i++)
        model_remove(m, i);
    free(m);
}

// ---- names --------------------------------------------------------------------------------------

int
model_add(struct model *m, struct object_id id, uint32_t mode)
{
    for (int i = 0; i < MODEL_OBJECTS; i++) {
        struct model_object *o = &m->objects[i];
        if (o->used)
            continue;
        *o = (struct model_object){.used = true, .id = id, .mode = mode};
        o->nlink = S_ISDIR(mode) ? 2 : 1;
        return i;
    }
    return -1;
}

struct model_entry *
model_find(struct model *m, int directory, const char *name)
{
    struct model_object *d = &m->objects[directory];
    for (size_t i = 0; i < d->entry_count; i++)
        if (strcmp(d->entries[i].name, name) == 0)
            return &d->entries[i];
    return NULL;
}

void
model_put_entry(struct model *m, int directory, const char *name, int object)
{
    struct model_object *d = &m->objects[directory];
    struct model_entry *e = model_find(m, directory, name);
    if (!e) {
        ck_assert_uint_lt(d->entry_count, MODEL_ENTRIES);
        e = &d->entries[d->entry_count++];
        snprintf(e->name, sizeof(e->name), "%s", name);
    }
    e->object = object;
}

void
model_drop_entry(struct model *m, int directory, const char *name)
{
    struct model_object *d = &m->objects[directory];
    struct model_entry *e = model_find(m, directory, name);
    *e = d->entries[--d->entry_count];
}

// ---- bytes --------------------------------------------------------------------------------------

static const struct model_slot *
find_slot(const struct model_object *o, uint64_t page, size_t *at_out)
{
    size_t low = 0;
    size_t high = o->page_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (o->pages[middle].page < page)
            low = middle + 1;
        else
            high = middle;
    }
    *at_out = low;
    return low < o->page_count && o->pages[low].page == page ? &o->pages[low] : NULL;
}

// The page, so that it can be written: nobody else has it.
static struct model_page *
own_page(struct model_object *o, uint64_t page)
{
    size_t at;
    if (!find_slot(o, page, &at)) {
        o->pages = memory_realloc(o->pages, (o->page_count + 1) * sizeof(*o->pages));
        memmove(o->pages + at + 1, o->pages + at, (o->page_count - at) * sizeof(*o->pages));
        o->page_count++;
        o->pages[at].page = page;
        o->pages[at].content = memory_alloc_zero(sizeof(struct model_page));
        o->pages[at].content->references = 1;
    }
    struct model_page *p = o->pages[at].content;
    if (p->references == 1)
        return p;
    struct model_page *mine = memory_alloc(sizeof(*mine));
    *mine = *p;
    mine->references = 1;
    p->references--;
    o->pages[at].content = mine;
    return mine;
}

void
model_write(struct model *m, int object, uint64_t offset, const uint8_t *data, size_t n)
{
    struct model_object *o = &m->objects[object];
    if (n > 0 && offset + n > o->size)
        o->size = offset + n;
    while (n > 0) {
        size_t in_page = offset % PAGE_BYTES;
        size_t part = PAGE_BYTES - in_page < n ? PAGE_BYTES - in_page : n;
        memcpy(own_page(o, offset / PAGE_BYTES)->data + in_page, data, part);
        offset += part;
        data += part;
        n -= part;
    }
}

void
model_zero(struct model *m, int object, uint64_t offset, uint64_t end)
{
    struct model_object *o = &m->objects[object];
    uint64_t first = pages_of_bytes(offset);
    uint64_t last = end / PAGE_BYTES;
    size_t at;
    if (offset % PAGE_BYTES != 0 && find_slot(o, offset / PAGE_BYTES, &at)) {
        uint64_t to = offset / PAGE_BYTES == last ? end % PAGE_BYTES : PAGE_BYTES;
        if (to > offset % PAGE_BYTES)
            memset(own_page(o, offset / PAGE_BYTES)->data + offset % PAGE_BYTES, 0,
                to - offset % PAGE_BYTES);
    }
    if (first < last)
        drop_pages(o, first, last);
    if (last >= first && end % PAGE_BYTES != 0 && find_slot(o, last, &at))
        memset(own_page(o, last)->data, 0, end % PAGE_BYTES);
}

void
model_truncate(struct model *m, int object, uint64_t size)
{
    struct model_object *o = &m->objects[object];
    if (size < o->size)
        model_zero(m, object, size, pages_of_bytes(o->size) * PAGE_BYTES);
    o->size = size;
}

void
model_read(const struct model *m, int object, uint64_t offset, size_t n, uint8_t *out)
{
    const struct model_object *o = &m->objects[object];
    memset(out, 0, n);
    size_t at;
    find_slot(o, offset / PAGE_BYTES, &at);
    for (; at < o->page_count && o->pages[at].page * PAGE_BYTES < offset + n; at++) {
        uint64_t start = o->pages[at].page * PAGE_BYTES;
        uint64_t from = start > offset ? start : offset;
        uint64_t to = start + PAGE_BYTES < offset + n ? start + PAGE_BYTES : offset + n;
        memcpy(out + (from - offset), o->pages[at].content->data + (from - start), to - from);
    }
}

// ---- comparing ----------------------------------------------------------------------------------

void
model_compare_range(const struct model *m, struct volume *v, int object, uint64_t offset, size_t n)
{
    const struct model_object *o = &m->objects[object];
    CLEANUP(memory_free_auto) uint8_t *want = memory_alloc(n);
    CLEANUP(memory_free_auto) uint8_t *got = memory_alloc(n);
    uint64_t there = offset < o->size ? o->size - offset : 0;
    if (there > n)
        there = n;
    memset(got, 0xa5, n);
    int64_t rc = volume_read(v, o->id, offset, n, got, NULL);
    ck_assert_msg(rc == (int64_t)there,
        "object %" PRIu64 " at %" PRIu64 ": read %" PRId64 " of %" PRIu64, o->id.v, offset, rc,
        there);
    model_read(m, object, offset, there, want);
    size_t i = 0;
    while (i < there && want[i] == got[i])
        i++;
    if (i < there)
        ck_abort_msg("object %" PRIu64 ", size %" PRIu64 ": byte %" PRIu64 " (page %" PRIu64
                     ") is %02x, should be %02x",
            o->id.v, o->size, offset + i, (offset + i) / PAGE_BYTES, got[i], want[i]);
}

static void
compare_bytes(const struct model *m, struct volume *v, int object)
{
    const struct model_object *o = &m->objects[object];
    const size_t step = 128u << 10;
    if (o->size <= 4u << 20) {
        for (uint64_t at = 0; at < o->size; at += step)
            model_compare_range(m, v, object, at, step);
        return;
    }
    // Sparse: what is there, with its surroundings, and the end.
    uint64_t done = 0;
    for (size_t i = 0; i < o->page_count; i++) {
        uint64_t at = o->pages[i].page * PAGE_BYTES;
        at = at < 2 * PAGE_BYTES ? 0 : at - 2 * PAGE_BYTES;
        if (at + 3 * PAGE_BYTES < done)
            continue;
        model_compare_range(m, v, object, at, 16 * PAGE_BYTES);
        done = at + 16 * PAGE_BYTES;
    }
    model_compare_range(m, v, object, o->size - 3 * PAGE_BYTES, 4 * PAGE_BYTES);
}

static bool
is_zero_page(const struct model_page *p)
{
    return p->data[0] == 0 && memcmp(p->data, p->data + 1, PAGE_BYTES - 1) == 0;
}

void
model_compare_seek(const struct model *m, struct volume *v, int object)
{
    const struct model_object *o = &m->objects[object];
    size_t at = 0;
    uint64_t offset = 0;
    while (offset < o->size) {
        int64_t data = volume_seek(v, o->id, offset, SEEK_DATA, NULL);
        ck_assert_msg(data == -ENXIO || data >= (int64_t)offset, "SEEK_DATA %" PRId64, data);
        uint64_t to = data < 0 ? o->size : (uint64_t)data;
        for (; at < o->page_count && o->pages[at].page * PAGE_BYTES < to; at++)
            if ((o->pages[at].page + 1) * PAGE_BYTES > offset &&
                !is_zero_page(o->pages[at].content))
                ck_abort_msg("object %" PRIu64 ": SEEK_DATA from %" PRIu64
                             " leaves out page %" PRIu64,
                    o->id.v, offset, o->pages[at].page);
        if (data < 0)
            return;
        int64_t hole = volume_seek(v, o->id, to, SEEK_HOLE, NULL);
        ck_assert_msg(hole > data && hole <= (int64_t)o->size, "SEEK_HOLE %" PRId64, hole);
        offset = (uint64_t)hole;
        while (at < o->page_count && (o->pages[at].page + 1) * PAGE_BYTES <= offset)
            at++;
    }
}

struct listing {
    const struct model *m;
    struct volume *v;
    const struct model_object *directory;
    size_t seen;
};

static void
compare_attributes(
    const struct model_object *o, const struct volume_attributes *a, const char *name)
{
    ck_assert_msg(a->object.v == o->id.v, "%s: object %" PRIu64 ", should be %" PRIu64, name,
        a->object.v, o->id.v);
    ck_assert_msg(
        a->inode.mode == o->mode, "%s: mode %o, should be %o", name, a->inode.mode, o->mode);
    ck_assert_msg(
        a->inode.nlink == o->nlink, "%s: %u links, should be %u", name, a->inode.nlink, o->nlink);
    if (S_ISREG(o->mode))
        ck_assert_msg(a->inode.size == o->size, "%s: size %" PRIu64 ", should be %" PRIu64, name,
            a->inode.size, o->size);
}

static int
visit_entry(void *argument, const char *name, size_t name_length, uint64_t offset UNUSED,
    const struct volume_attributes *attributes)
{
    struct listing *l = argument;
    for (size_t i = 0; i < l->directory->entry_count; i++) {
        const struct model_entry *e = &l->directory->entries[i];
        if (strlen(e->name) != name_length || memcmp(e->name, name, name_length) != 0)
            continue;
        compare_attributes(&l->m->objects[e->object], attributes, e->name);
        l->seen++;
        return 0;
    }
    ck_abort_msg("the directory %" PRIu64 " shows %.*s, which should not be there",
        l->directory->id.v, (int)name_length, name);
    return 0;
}

static void
compare_xattrs(const struct model_object *o, struct volume *v)
{
    BUFFER_AUTO names = {0};
    BUFFER_AUTO value = {0};
    ck_assert_int_eq(volume_list_xattrs(v, o->id, &names), 0);
    size_t count = 0;
    for (size_t at = 0; at < names.length; at += strlen((char *)names.data + at) + 1)
        count++;
    ck_assert_uint_eq(count, o->xattr_count);
    for (size_t i = 0; i < o->xattr_count; i++) {
        const struct model_xattr *x = &o->xattrs[i];
        ck_assert_int_eq(volume_get_xattr(v, o->id, x->name, &value), 0);
        ck_assert_uint_eq(value.length, x->length);
        for (size_t k = 0; k < x->length; k++)
            ck_assert_uint_eq(value.data[k], x->value[k % sizeof(x->value)]);
    }
}

static void
compare_object(const struct model *m, struct volume *v, int object)
{
    const struct model_object *o = &m->objects[object];
    struct volume_attributes a;
    ck_assert_int_eq(volume_get_attributes(v, o->id, &a), 0);
    compare_attributes(o, &a, "object");
    compare_xattrs(o, v);
    if (S_ISREG(o->mode)) {
        compare_bytes(m, v, object);
        model_compare_seek(m, v, object);
    } else if (S_ISLNK(o->mode)) {
        BUFFER_AUTO target = {0};
        ck_assert_int_eq(volume_read_link(v, o->id, &target), 0);
        ck_assert_str_eq(buffer_string(&target), o->target);
    } else {
        struct listing l = {m, v, o, 0};
        ck_assert_int_eq(volume_read_directory(v, o->id, 0, true, visit_entry, &l), 0);
        ck_assert_uint_eq(l.seen, o->entry_count);
        for (size_t i = 0; i < o->entry_count; i++) {
            ck_assert_int_eq(volume_lookup(v, o->id, o->entries[i].name, &a), 0);
            ck_assert_uint_eq(a.object.v, m->objects[o->entries[i].object].id.v);
        }
    }
}

void
model_compare(const struct model *m, struct volume *v)
{
    for (int i = 0; i < MODEL_OBJECTS; i++)
        if (m->objects[i].used)
            compare_object(m, v, i);
}
