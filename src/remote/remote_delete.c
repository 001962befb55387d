// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "platform/crash_point.h"
#include "platform/memory.h"
#include "remote/remote_internal.h"

size_t
remote_keys_limit(void)
{
#ifdef CKPTFS_FAULT_HOOKS
    const char *text = getenv("CKPTFS_DELETE_BATCH");
    size_t limit = text ? strtoul(text, NULL, 10) : 0;
    if (limit > 0 && limit < REMOTE_KEYS_MAX)
        return limit;
#endif
    return REMOTE_KEYS_MAX;
}

void
remote_keys_clear(struct remote_keys *k)
{
    for (size_t i = 0; i < k->count; i++)
        free(k->names[i]);
    k->count = 0;
}

void
remote_keys_add(struct remote_keys *k, const struct buffer *key)
{
    k->names[k->count] = memory_alloc(key->length + 1);
    memcpy(k->names[k->count], key->data, key->length);
    k->names[k->count++][key->length] = 0;
}

int
remote_keys_delete(const struct remote_place *place, const struct remote_keys *k)
{
    if (k->count == 0)
        return 0;
    struct remote_call call = remote_call_of(place, 0);
    int rc =
        remote_store_delete_blobs(place->store, (const char *const *)k->names, k->count, &call);
    if (rc < 0)
        return remote_log_failure("remote.delete_failed", k->names[0], rc);
    crash_point("retention.deleted");
    struct remote_head head;
    call = remote_call_of(place, 0);
    rc = remote_store_head_blob(place->store, k->names[0], &head, &call);
    if (rc == 0)
        return remote_log_failure("remote.delete_ignored", k->names[0], -EIO);
    return rc == -ENOENT ? 0 : remote_log_failure("remote.head_failed", k->names[0], rc);
}
