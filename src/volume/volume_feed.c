// SPDX-License-Identifier: Apache-2.0
// The change log of the manifest, for subscribers that follow a volume.
#include <errno.h>
#include <string.h>

#include "volume/volume_internal.h"

struct feed {
    struct db_id db;
    manifest_visit_change_record *visit;
    void *argument;
    uint64_t oldest;
};

// The log is the root's: it has records of other volumes, too.
static int
pass_own(void *argument, const struct manifest_change_record *record)
{
    struct feed *f = argument;
    return record->db.v == f->db.v ? f->visit(f->argument, record) : 0;
}

static int
note_first(void *argument, const struct manifest_change_record *record)
{
    *(uint64_t *)argument = record->sequence;
    return 1;
}

int
volume_changes(struct volume *v, uint64_t after, manifest_visit_change_record *visit,
    void *argument, uint64_t *oldest_out)
{
    struct feed f = {.db = v->db, .visit = visit, .argument = argument};
    struct manifest_reader *r;
    if (v->from_bucket)
        return -EROFS;
    int rc = manifest_read_begin(v->manifest, &r);
    if (rc < 0)
        return rc;
    rc = manifest_read_change_log(r, 0, note_first, &f.oldest);
    if (rc >= 0)
        rc = manifest_read_change_log(r, after, pass_own, &f);
    manifest_read_end(r);
    if (oldest_out)
        *oldest_out = f.oldest;
    return rc < 0 ? rc : 0;
}

int
volume_subscriber(struct volume *v, const char *name, uint64_t *sequence_out)
{
    struct manifest_reader *r;
    struct change_cursor cursor;
    if (v->from_bucket)
        return -EROFS;
    int rc = manifest_read_begin(v->manifest, &r);
    if (rc < 0)
        return rc;
    rc = manifest_read_cursor(r, name, &cursor);
    manifest_read_end(r);
    if (rc == 0)
        *sequence_out = cursor.sequence;
    return rc;
}

static int
check_subscriber(const struct volume *v, const char *name)
{
    if (v->from_bucket)
        return -EROFS;
    return name[0] == 0 || strlen(name) >= CHANGE_CURSOR_NAME_BYTES ? -EINVAL : 0;
}

int
volume_acknowledge(struct volume *v, const char *name, uint64_t sequence)
{
    struct change_cursor cursor = {.sequence = sequence};
    int rc = check_subscriber(v, name);
    if (rc < 0)
        return rc;
    memcpy(cursor.name, name, strlen(name));
    struct manifest_batch *b = manifest_batch_new(v->db);
    manifest_batch_put_cursor(b, &cursor);
    return manifest_submit(v->manifest, b, NULL);
}

int
volume_unsubscribe(struct volume *v, const char *name)
{
    int rc = check_subscriber(v, name);
    if (rc < 0)
        return rc;
    struct manifest_batch *b = manifest_batch_new(v->db);
    manifest_batch_drop_cursor(b, name);
    return manifest_submit(v->manifest, b, NULL);
}
