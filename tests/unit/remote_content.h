// SPDX-License-Identifier: Apache-2.0
// Content for random histories: a few files whose chunks and deltas have one of a few contents, so
// that the same bytes come, go and come again. Everything follows from a seed.
#ifndef CKPTFS_TESTS_REMOTE_CONTENT_H
#define CKPTFS_TESTS_REMOTE_CONTENT_H

#include "remote_world.h"

// Begins anew with this seed.
void content_begin(uint64_t number);
// Random: 0 to sides - 1.
unsigned content_dice(unsigned sides);
// Folds the next generation of the root: some files change. The root's ids of checkpoints are
// `salt` and the generation. Goes on from the state that the last call knew: a root that takes over
// must hold the same.
void content_fold(struct root *r);
// What a root has in its tables becomes what the next fold starts from.
void content_adopt(struct root *r);
// Puts the objects of blobs into the store.
int content_upload(struct world *w, const struct remote_upload *uploads, size_t count);
// Whether the object of a blob is in the store.
bool content_is_there(struct world *w, const struct blob_record *blob);

#endif
