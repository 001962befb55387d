// SPDX-License-Identifier: Apache-2.0
#include "store/store_forward.h"

void
store_forward_init(
    struct forwarding_store *f, const struct remote_store_ops *ops, struct remote_store *inner)
{
    f->base.ops = ops;
    f->base.list_page = inner->list_page;
    f->inner = inner;
    inner->outer = &f->base;
}

struct remote_store *
store_forward_inner(struct remote_store *s)
{
    return CONTAINER_OF(s, struct forwarding_store, base)->inner;
}

int
store_forward_put(struct remote_store *s, const char *key, const struct remote_source *source,
    enum remote_put_mode mode, const struct remote_call *call)
{
    return remote_store_put_blob(store_forward_inner(s), key, source, mode, call);
}

int
store_forward_head(struct remote_store *s, const char *key, struct remote_head *head_out,
    const struct remote_call *call)
{
    return remote_store_head_blob(store_forward_inner(s), key, head_out, call);
}

int
store_forward_list(struct remote_store *s, const char *prefix, const char *after, size_t limit,
    struct remote_listing *listing_out, const struct remote_call *call)
{
    return remote_store_list_blobs(store_forward_inner(s), prefix, after, limit, listing_out, call);
}

int
store_forward_delete(
    struct remote_store *s, const char *const *keys, size_t count, const struct remote_call *call)
{
    return remote_store_delete_blobs(store_forward_inner(s), keys, count, call);
}

int
store_forward_sweep_uploads(struct remote_store *s, const char *prefix, uint64_t age_ms,
    bool dry_run, uint64_t *count_out, const struct remote_call *call)
{
    return remote_store_sweep_uploads(
        store_forward_inner(s), prefix, age_ms, dry_run, count_out, call);
}

int
store_forward_probe(struct remote_store *s, const struct remote_call *call)
{
    return remote_store_probe(store_forward_inner(s), call);
}

void
store_forward_trouble(struct remote_store *s, struct remote_trouble *trouble_out)
{
    remote_store_trouble(store_forward_inner(s), trouble_out);
}
