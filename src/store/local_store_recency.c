// SPDX-License-Identifier: Apache-2.0
// Recency across restarts: the queue of parts, their marks of use and the hand, in the file
// `recency` of hot_cache. A clean end writes it, and a long mount now and then, so that after a
// kill the next mount has an older one.
//
// An older file is never wrong, because hashes name contents: a copy that has gone since is passed
// over, a copy that has come since counts as not used since the mount, and a part of a known copy
// that has come since goes with the last part of that copy that the file knows.
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "platform/log.h"
#include "platform/memory.h"
#include "platform/path.h"
#include "store/local_store_internal.h"

// More than a file of 2^32 parts in runs of one blob each would be absurd: 1 GiB.
#define FILE_BYTES_MAX ((size_t)1 << 30)

static char *
recency_path(const struct local_store *s, const char *suffix)
{
    return memory_printf("%s/recency%s", s->hot_cache, suffix);
}

// ---- writing ------------------------------------------------------------------------------------

static void
append_part(void *argument, const struct sha256 *hash, uint32_t part, bool used)
{
    part_list_append(argument, hash, part, used);
}

uint32_t
local_store_list_parts(struct local_store *s, struct part_list *out)
{
    lock_take(&s->lock);
    uint32_t hand = s->parts ? part_sieve_list(s->parts, append_part, out) : 0;
    lock_release(&s->lock);
    return hand;
}

static int
write_new(struct local_store *s, const char *path, const struct buffer *bytes)
{
    int fd = file_open(s->ops, path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (fd < 0)
        return fd;
    int rc = file_write_at(s->ops, fd, bytes->data, bytes->length, 0);
    // Or a crash of the machine could leave the new name with no bytes.
    if (rc == 0)
        rc = s->ops->fdatasync(fd);
    file_close(fd);
    return rc;
}

// The account has the bytes of both files until one of them has gone.
static int
replace_file(struct local_store *s, const struct buffer *bytes)
{
    CLEANUP(memory_free_auto) char *path = recency_path(s, "");
    CLEANUP(memory_free_auto) char *new_path = recency_path(s, ".new");
    uint64_t reserved = storage_quota_blocks_for(bytes->length);
    int rc = storage_quota_reserve(s->quota, QUOTA_BLOBS, QUOTA_CACHE, reserved);
    if (rc < 0)
        return rc;
    rc = write_new(s, new_path, bytes);
    uint64_t now = s->quota ? storage_quota_path_bytes(new_path) : 0;
    storage_quota_settle(s->quota, QUOTA_BLOBS, reserved, now);
    uint64_t old = s->quota ? storage_quota_path_bytes(path) : 0;
    if (rc == 0)
        rc = s->ops->rename(new_path, path);
    if (rc == 0)
        storage_quota_give_back(s->quota, QUOTA_BLOBS, old);
    else if (s->ops->unlink(new_path) == 0)
        storage_quota_give_back(s->quota, QUOTA_BLOBS, now);
    return rc;
}

static void
remove_file(struct local_store *s, const char *suffix)
{
    CLEANUP(memory_free_auto) char *path = recency_path(s, suffix);
    uint64_t bytes = s->quota ? storage_quota_path_bytes(path) : 0;
    if (s->ops->unlink(path) == 0)
        storage_quota_give_back(s->quota, QUOTA_BLOBS, bytes);
}

void
local_store_save_recency(struct local_store *s)
{
    struct part_list *list = part_list_new();
    BUFFER_AUTO bytes = {0};
    uint32_t hand = local_store_list_parts(s, list);
    if (part_list_count(list) > 0) {
        part_list_encode(list, hand, &bytes);
        int rc = replace_file(s, &bytes);
        if (rc < 0)
            log_warning("cache.recency",
                "cannot write %s/recency: %s; the next mount evicts in an older order",
                s->hot_cache, strerror(-rc));
    } else {
        remove_file(s, "");
    }
    part_list_free(list);
}

// ---- reading ------------------------------------------------------------------------------------

struct load {
    struct local_store *s;
    struct sha256 blob; // the one asked for last, and its length; 0: there is no copy
    uint64_t length;
    uint32_t at, hand; // in the list
    bool has_hand;
    uint32_t taken;
};

static uint64_t
length_of(const struct local_store *s, const struct sha256 *hash)
{
    uint64_t length = 0;
    for (int whole = 0; whole < 2; whole++) {
        struct stat st;
        CLEANUP(memory_free_auto) char *path = local_store_path(s, hash, whole);
        if (path_stat(path, &st) == 0 && S_ISREG(st.st_mode) && (uint64_t)st.st_size > length)
            length = (uint64_t)st.st_size;
    }
    return length;
}

static void
load_part(void *argument, const struct sha256 *hash, uint32_t part, bool used)
{
    struct load *x = argument;
    if (x->at == 0 || !sha256_equal(&x->blob, hash)) {
        x->blob = *hash;
        x->length = length_of(x->s, hash);
    }
    bool past = x->at++ >= x->hand;
    if ((uint64_t)part * PART_BYTES >= x->length)
        return;
    part_sieve_enter(x->s->parts, hash, part);
    if (used)
        part_sieve_use(x->s->parts, hash, part);
    if (past && !x->has_hand) {
        part_sieve_set_hand(x->s->parts, hash, part);
        x->has_hand = true;
    }
    x->taken++;
}

void
local_store_load_recency(struct local_store *s)
{
    CLEANUP(memory_free_auto) char *path = recency_path(s, "");
    BUFFER_AUTO bytes = {0};
    struct load x = {.s = s};
    remove_file(s, ".new");
    if (!s->parts)
        return;
    int rc = file_read_whole(path, FILE_BYTES_MAX, &bytes);
    if (rc == 0)
        rc = part_list_decode(bytes.data, bytes.length, &x.hand, load_part, &x);
    if (rc == 0)
        log_debug("cache.recency", "%u of %u parts are here still", x.taken, x.at);
    else if (rc != -ENOENT)
        log_warning("cache.recency",
            "%s is ignored: %s; copies count as not used before this mount", path,
            rc == -EBADMSG   ? "it is damaged"
            : rc == -ENOTSUP ? "a newer version of ckptfs wrote it"
                             : strerror(-rc));
}
