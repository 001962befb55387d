// SPDX-License-Identifier: Apache-2.0
// Declarations that the files of verification share.
#ifndef CKPTFS_RETENTION_VERIFY_INTERNAL_H
#define CKPTFS_RETENTION_VERIFY_INTERNAL_H

#include "retention/verify.h"

// The damage of the blob with this content, or NULL.
struct verify_damage *verify_find_blob(
    const struct verify_result *result, const struct sha256 *hash);

// Notes that an object is damaged, and returns the note: the old one if it has one.
struct verify_damage *verify_note(struct verify_result *result, const char *key, const char *why);
// The generation needs the damaged object; generations come in order.
void verify_note_generation(struct verify_damage *d, struct generation generation);
// Notes that a blob is damaged, and returns the note.
struct verify_damage *verify_note_blob(
    struct verify_result *result, const char *key, const char *why, const struct blob_record *blob);

// verify_files.c: adds to the damaged blobs the paths of the files that need them in this db.
MUST_CHECK int verify_find_files(struct manifest *m, struct db_id db, struct verify_result *result);

#endif
