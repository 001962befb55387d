// SPDX-License-Identifier: Apache-2.0
// Shared by the tools that work on volumes in the store (volume_offline.h): a temporary root, and
// the volume's state in it.
#ifndef CKPTFS_VOLUME_VOLUME_OFFLINE_INTERNAL_H
#define CKPTFS_VOLUME_VOLUME_OFFLINE_INTERNAL_H

#include "remote/remote_retention.h"
#include "retention/verify.h"
#include "volume/volume_config.h"

struct offline {
    const struct volume_config *config;
    struct store_url url;
    char *place_name;
    struct remote_store *store;
    char *directory; // the temporary root
    struct manifest *manifest;
    struct remote_place place;
};

// Opens the store of config->source and an empty manifest. To be closed also after a failure.
MUST_CHECK int offline_open(
    const struct volume_config *config, struct offline *o, struct buffer *error);
void offline_close(struct offline *o);
// Puts into `error` that the tool cannot do `what` to the source, with the store's words. Returns
// `rc`.
int offline_store_problem(const struct offline *o, const char *what, int rc, struct buffer *error);

// Fills a new db with a generation of the volume ({0}: the newest); `label` keeps several apart.
MUST_CHECK int offline_import(struct offline *o, const char *label, struct generation at,
    struct db_record *db, struct buffer *error);
// Imports the newest generation and claims the volume. -EBUSY: another host has it.
MUST_CHECK int offline_claim(struct offline *o, struct db_record *db, struct buffer *error);
// Ends the claim.
void offline_give_back(struct offline *o, const struct db_record *db);

// Finds out which generation `text` means (as at=), and pins it: pin->generation.
MUST_CHECK int offline_resolve(
    struct offline *o, const char *text, struct remote_pin *pin, struct buffer *error);
// The number of the newest generation. -ENOENT: there is none.
MUST_CHECK int offline_newest_text(struct offline *o, char text[24], struct buffer *error);

// Appends lines about a damaged object: the fault, generations, files.
void offline_print_damage(const struct verify_damage *d, struct buffer *out);

// Appends the damaged objects, as lines or as a JSON object with the field "damage"; `damaged`
// counts also those that are not in `v`.
void offline_print_damages(
    const struct verify_result *v, uint64_t damaged, bool json, struct buffer *out);

// Appends all damage and the numbers of a verification.
struct volume_verified;
void offline_print_report(const struct verify_result *v, const struct volume_verified *done,
    bool data, struct buffer *out);

#endif
