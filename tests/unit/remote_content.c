// SPDX-License-Identifier: Apache-2.0
#include "remote_content.h"

#include <dirent.h>
#include <inttypes.h>
#include <string.h>

#include "base/checksum.h"
#include "store/blob_key.h"

#define FILES    4u // at once
#define CONTENTS 3u // so that the same blobs come again and again

static uint64_t seed;

struct file {
    uint64_t object, chunk; // object 0: there is none
};

static struct file files[FILES];
static uint64_t next_object, next_chunk;

void
content_begin(uint64_t number)
{
    seed = number | 1;
    memset(files, 0, sizeof(files));
    next_object = 2;
    next_chunk = 1;
}

unsigned
content_dice(unsigned sides)
{
    seed ^= seed >> 12;
    seed ^= seed << 25;
    seed ^= seed >> 27;
    return (unsigned)(seed * 2685821657736338717u >> 33) % sides;
}

struct fold {
    struct manifest_batch *b;
    uint64_t g;
    uint8_t salt;
};

static void
add(struct fold *f, const struct change *c)
{
    manifest_batch_change(f->b, c, true, (struct generation){f->g});
}

// One of few contents as a blob whose key is of this generation.
static struct blob_location
add_blob(struct fold *f, enum blob_object_kind kind, uint64_t chunk)
{
    char text[16];
    int n = snprintf(text, sizeof(text), "content %u", content_dice(CONTENTS));
    struct blob_location where = {.length = 8192, .index_offset = 4096};
    sha256_of(text, (size_t)n, &where.blob);
    struct change c = {
        .kind = CHANGE_PUT_BLOB,
        .blob = {.hash = where.blob,
            .bytes = 8192,
            .kind = (uint8_t)kind,
            .checkpoint_id = {{(uint8_t)f->g, (uint8_t)(f->g >> 8), f->salt}},
            .chunk = {chunk},
            .generation = {f->g},
            .where = BLOB_WHERE_OWN},
    };
    manifest_batch_change(f->b, &c, false, (struct generation){f->g});
    return where;
}

static void
add_inode(struct fold *f, uint64_t object, uint32_t mode, uint32_t nlink, uint64_t size)
{
    struct change c = {.kind = CHANGE_PUT_INODE, .object = {object}};
    c.inode = (struct inode_record){
        .mode = mode, .nlink = nlink, .size = size, .mtime = {(int64_t)f->g, 0}, .link_target = ""};
    add(f, &c);
}

static void
add_dirent(struct fold *f, enum change_kind kind, uint64_t object)
{
    char name[32];
    int n = snprintf(name, sizeof(name), "file-%" PRIu64, object);
    struct change c = {.kind = kind};
    c.dirent = (struct dirent_record){
        .parent = OBJECT_ROOT_DIRECTORY,
        .cookie = object << DIRENT_SLOT_BITS,
        .object = {object},
        .type = DT_REG,
        .name_length = (uint8_t)n,
        .name = name,
    };
    add(f, &c);
}

static void
add_base(struct fold *f, const struct file *file)
{
    struct change c = {.kind = CHANGE_PUT_CHUNK};
    c.chunk = (struct chunk_entry){
        .id = {file->chunk},
        .object = {file->object},
        .generation = {f->g},
        .base_generation = {f->g},
        .base = add_blob(f, BLOB_OBJECT_CHUNK, file->chunk),
        .base_pages = 1,
        .present_pages = 2,
    };
    add(f, &c);
}

static void
add_delta(struct fold *f, const struct file *file)
{
    struct change c = {.kind = CHANGE_PUT_DELTA};
    c.delta = (struct chunk_delta){
        .chunk = {file->chunk},
        .generation = {f->g},
        .where = add_blob(f, BLOB_OBJECT_DELTA, file->chunk),
        .data_pages = 1,
    };
    add(f, &c);
}

static void
change_file(struct fold *f, struct file *file)
{
    unsigned what = content_dice(8);
    if (!file->object) {
        *file = (struct file){next_object++, next_chunk++};
        add_inode(f, file->object, S_IFREG | 0644, 1, 5000);
        add_dirent(f, CHANGE_PUT_DIRENT, file->object);
        add_base(f, file);
    } else if (what < 3) {
        add_base(f, file);
    } else if (what < 6) {
        add_delta(f, file);
    } else if (what == 6) {
        struct change c = {.kind = CHANGE_DELETE_INODE, .object = {file->object}};
        add_dirent(f, CHANGE_DELETE_DIRENT, file->object);
        add(f, &c);
        *file = (struct file){0};
    }
}

void
content_fold(struct root *r)
{
    struct fold f = {manifest_batch_new(r->db.id), r->db.next.v, r->salt};
    uint64_t entries = 0;
    for (unsigned i = 0; i < FILES; i++) {
        if (content_dice(2))
            change_file(&f, &files[i]);
        entries += files[i].object != 0;
    }
    add_inode(&f, 1, S_IFDIR | 0755, 2, entries);
    struct db_counters counters = {.next_object = next_object, .next_chunk = next_chunk};
    manifest_batch_local_generation(
        f.b, (struct generation){f.g}, (struct lsn){f.g * 1000}, counters, 1700000000000 + f.g);
    ck_assert_int_eq(manifest_submit(r->m, f.b, NULL), 0);
    ck_assert_int_eq(
        manifest_find_db(r->m, r->db.place, "acme", r->place.volume_number, &r->db), 0);
}

static int
adopt_change(void *argument, const struct change *c)
{
    size_t *count = argument;
    if (c->kind == CHANGE_PUT_COUNTERS) {
        next_object = c->counters.next_object > 2 ? c->counters.next_object : 2;
        next_chunk = c->counters.next_chunk > 1 ? c->counters.next_chunk : 1;
    } else if (c->kind == CHANGE_PUT_CHUNK) {
        ck_assert_uint_lt(*count, FILES);
        files[(*count)++] = (struct file){c->chunk.object.v, c->chunk.id.v};
    }
    return 0;
}

void
content_adopt(struct root *r)
{
    struct manifest_reader *reader;
    size_t count = 0;
    memset(files, 0, sizeof(files));
    ck_assert_int_eq(manifest_read_begin(r->m, &reader), 0);
    ck_assert_int_eq(manifest_export(reader, r->db.id, adopt_change, &count), 0);
    manifest_read_end(reader);
}

int
content_upload(struct world *w, const struct remote_upload *uploads, size_t count)
{
    static const char bytes[] = "a blob";
    for (size_t i = 0; i < count; i++) {
        BUFFER_AUTO key = {0};
        blob_key("acme", 1, &uploads[i].blob, &key);
        struct remote_source s = {.data = bytes, .length = sizeof(bytes)};
        sha256_of(bytes, sizeof(bytes), &s.hash);
        int rc =
            remote_store_put_blob(w->store, buffer_string(&key), &s, REMOTE_PUT_OVERWRITE, NULL);
        if (rc < 0)
            return rc;
    }
    return 0;
}

bool
content_is_there(struct world *w, const struct blob_record *blob)
{
    BUFFER_AUTO key = {0};
    struct remote_head head;
    blob_key("acme", 1, blob, &key);
    return remote_store_head_blob(w->store, buffer_string(&key), &head, NULL) == 0;
}
