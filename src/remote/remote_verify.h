// SPDX-License-Identifier: Apache-2.0
// Looking through everything that a volume has in the bucket: the chain of records, the catalogs,
// and which objects are there. It changes nothing. It reports damage, which is no error.
#ifndef CKPTFS_REMOTE_REMOTE_VERIFY_H
#define CKPTFS_REMOTE_REMOTE_VERIFY_H

#include "remote/remote_retention.h"

// Is called for each object that is damaged or missing; `why` is a phrase.
typedef void remote_fault(void *argument, const char *key, const char *why);

struct remote_chain_health {
    uint64_t records, catalogs; // that are there
    uint64_t bytes;
    uint64_t sequence; // of the newest record
};

// Reads all records and catalogs: each verifies, follows the one before, and no record is missing
// that may not be. 0, also when something is damaged; -ENOENT: there is no volume; -EIDRM: the
// volume is being destroyed; or the store's error.
MUST_CHECK int remote_chain_verify(const struct remote_place *place,
    struct remote_chain_health *health_out, remote_fault *fault, void *argument);

// ---- which objects are there --------------------------------------------------------------------

// The objects that listings have shown; places are listed when they are first asked for. A listing
// costs a request for each thousand objects.
struct remote_inventory;
struct remote_inventory *remote_inventory_new(const struct remote_place *place);
void remote_inventory_free(struct remote_inventory *inventory); // NULL is fine

struct remote_object_state {
    uint64_t bytes;
    bool found;
    // The caller's, kept with the object: whether its bytes have been read, and were right.
    bool *read, *good;
};
// Whether the object `key` is there, whose place in the store is everything below `prefix`. An
// object that the listing lacks is asked for by its name.
MUST_CHECK int remote_inventory_find(struct remote_inventory *inventory, const char *prefix,
    const char *key, struct remote_object_state *state_out);

#endif
