// SPDX-License-Identifier: Apache-2.0
// What stores that wrap another one and change only some calls have in common: the other calls.
#ifndef CKPTFS_STORE_STORE_FORWARD_H
#define CKPTFS_STORE_STORE_FORWARD_H

#include "store/remote_store.h"

// The first member of such a store.
struct forwarding_store {
    struct remote_store base;
    struct remote_store *inner;
};

// Counts of the inner store reach this one from now on.
void store_forward_init(
    struct forwarding_store *f, const struct remote_store_ops *ops, struct remote_store *inner);
// The store that it wraps.
struct remote_store *store_forward_inner(struct remote_store *s);

// For the table of operations: each hands the call on.
int store_forward_put(struct remote_store *s, const char *key, const struct remote_source *source,
    enum remote_put_mode mode, const struct remote_call *call);
int store_forward_head(struct remote_store *s, const char *key, struct remote_head *head_out,
    const struct remote_call *call);
int store_forward_list(struct remote_store *s, const char *prefix, const char *after, size_t limit,
    struct remote_listing *listing_out, const struct remote_call *call);
int store_forward_delete(
    struct remote_store *s, const char *const *keys, size_t count, const struct remote_call *call);
int store_forward_sweep_uploads(struct remote_store *s, const char *prefix, uint64_t age_ms,
    bool dry_run, uint64_t *count_out, const struct remote_call *call);
int store_forward_probe(struct remote_store *s, const struct remote_call *call);
void store_forward_trouble(struct remote_store *s, struct remote_trouble *trouble_out);

#endif
