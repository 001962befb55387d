// SPDX-License-Identifier: Apache-2.0
// A sequence of numbered operations on a few files of a volume, each a function of its number
// alone, so that another process, or a model, can do the same.
#ifndef CKPTFS_TESTS_VOLUME_STEPS_H
#define CKPTFS_TESTS_VOLUME_STEPS_H

#include "volume_model.h"

#define STEP_FILES 6u
// For volume_steps_compare: no file is left out.
#define STEP_NO_FILE STEP_FILES

// Makes the files that are missing. 0 or -errno.
MUST_CHECK int volume_steps_begin(struct volume *v);
// Does one operation. 0 or -errno.
MUST_CHECK int volume_steps_do(struct volume *v, uint64_t number);
// The file that an operation touches.
unsigned volume_steps_file(uint64_t number);
// A number in an attribute of the root directory: how far the volume has got. 0: none was set.
MUST_CHECK int volume_steps_set_mark(struct volume *v, uint64_t mark);
uint64_t volume_steps_mark(struct volume *v);

// A model with the files, which are empty.
struct model *volume_steps_model(void);
void volume_steps_model_do(struct model *m, uint64_t number);
// Asserts that the volume has the files of the model with their bytes. The file `except` may be
// anything.
void volume_steps_compare(struct model *m, struct volume *v, unsigned except);

#endif
