// SPDX-License-Identifier: Apache-2.0
// `ckptctl evict`: removes the local copies of one file's blobs, or all copies, as far as they may
// go. The thread looks at one copy after the other and holds `evicting` for a look only, so that
// threads which need room do not wait for the whole of it. A user can stop it between two copies.
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/checksum.h"
#include "base/decimal.h"
#include "platform/log.h"
#include "platform/memory.h"
#include "volume/volume_fetch.h"
#include "volume/volume_internal.h"

struct copy {
    struct sha256 hash;
    uint64_t bytes; // in blocks
};

struct eviction {
    struct volume *v;
    struct copy *copies;
    size_t count, capacity;
    uint64_t total_bytes;
    bool canceled;
};

// ---- what there is ------------------------------------------------------------------------------

static void
add_copy(struct eviction *x, const struct sha256 *hash)
{
    if (x->count == x->capacity) {
        x->capacity = x->capacity ? 2 * x->capacity : 64;
        x->copies = memory_realloc(x->copies, x->capacity * sizeof(*x->copies));
    }
    x->copies[x->count++] = (struct copy){.hash = *hash};
}

static void
add_file(void *argument, const struct sha256 *hash)
{
    add_copy(argument, hash);
}

static void
add_image(void *argument, const struct blob_location *where)
{
    add_copy(argument, &where->blob);
}

static int
compare_copies(const void *a, const void *b)
{
    return memcmp(
        ((const struct copy *)a)->hash.b, ((const struct copy *)b)->hash.b, sizeof(struct sha256));
}

// Each copy once: a blob may have many images of the file, or two files.
static void
measure(struct eviction *x)
{
    size_t kept = 0;
    if (x->count > 0)
        qsort(x->copies, x->count, sizeof(*x->copies), compare_copies);
    for (size_t i = 0; i < x->count; i++) {
        struct copy *c = &x->copies[i];
        if (kept > 0 && sha256_equal(&x->copies[kept - 1].hash, &c->hash))
            continue;
        c->bytes = local_store_bytes(x->v->local, &c->hash);
        x->total_bytes += c->bytes;
        x->copies[kept++] = *c;
    }
    x->count = kept;
}

// ---- removing -----------------------------------------------------------------------------------

// Called when the removal has been announced, as by threads that need room. A thread that pins a
// file afterwards waits for the removal (volume_keep).
static bool
may_go(void *argument, const struct sha256 *hash, bool whole)
{
    struct volume *v = argument;
    lock_take(&v->evicting);
    volume_refresh_kept_locked(v);
    bool kept = volume_is_kept_locked(v, hash);
    lock_release(&v->evicting);
    return !kept && (!whole || volume_is_in_store(v, hash));
}

static bool
is_canceled(const struct volume_command *by)
{
    return by->is_canceled && by->is_canceled(by->argument);
}

static void
evict_copies(struct eviction *x, const struct volume_command *by)
{
    uint64_t done = 0;
    for (size_t i = 0; i < x->count; i++) {
        x->canceled = is_canceled(by);
        if (x->canceled)
            return;
        (void)local_store_evict_blob(x->v->local, &x->copies[i].hash, may_go, x->v);
        done += x->copies[i].bytes;
        if (by->progress)
            by->progress(by->argument, done, x->total_bytes);
    }
}

// ---- the command --------------------------------------------------------------------------------

static uint64_t
used_blobs(const struct volume *v)
{
    struct storage_quota_numbers n;
    storage_quota_numbers(v->quota, &n);
    return n.blobs;
}

static void
report(const struct eviction *x, uint64_t freed, bool json, struct buffer *out)
{
    uint64_t after = used_blobs(x->v);
    if (json)
        buffer_printf(out,
            "{\"evicted_bytes\":%" PRIu64 ",\"blob_bytes\":%" PRIu64 ",\"canceled\":%s}\n", freed,
            after, x->canceled ? "true" : "false");
    else
        buffer_printf(out, "%s%" PRIu64 " bytes evicted, %" PRIu64 " bytes of images stay\n",
            x->canceled ? "stopped: " : "", freed, after);
}

// The file's inode; 0: all of the volume. False: the argument is neither.
static bool
read_argument(const char *argument, uint64_t *inode_out)
{
    *inode_out = 0;
    if (argument[0] == 0)
        return true;
    return strncmp(argument, "inode ", 6) == 0 &&
           decimal_parse(argument + 6, UINT64_MAX, inode_out) && *inode_out != 0;
}

int
volume_evict_operation(struct volume *v, const char *argument, bool json,
    const struct volume_command *by, struct buffer *out)
{
    struct eviction x = {.v = v};
    uint64_t inode;
    if (!read_argument(argument, &inode)) {
        buffer_printf(out, "'%s' is not right; give \"inode N\", or nothing for all", argument);
        return -EINVAL;
    }
    if (inode != 0)
        volume_unkeep(v, inode);
    else
        volume_unkeep_all(v);
    uint64_t before = used_blobs(v);
    int rc = inode != 0 ? volume_visit_images(v, inode, add_image, &x)
                        : local_store_visit(v->local, add_file, &x);
    if (rc == 0) {
        measure(&x);
        evict_copies(&x, by);
        uint64_t after = used_blobs(v);
        uint64_t freed = before > after ? before - after : 0;
        volume_log_evicted((int64_t)freed);
        report(&x, freed, json, out);
        volume_hear_room(v);
    }
    free(x.copies);
    return rc < 0 ? rc : x.canceled ? -ECANCELED : 0;
}
