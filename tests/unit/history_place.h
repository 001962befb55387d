// SPDX-License-Identifier: Apache-2.0
// Where the real volumes of random histories lie: below a directory, or below a prefix of its own
// in the S3 server that tests/with-s3 tells of.
#ifndef CKPTFS_TESTS_HISTORY_PLACE_H
#define CKPTFS_TESTS_HISTORY_PLACE_H

#include <stdbool.h>

struct volume_world;

struct history_place {
    bool in_s3;
    const char *directory; // the caller's
    char *base;            // of the sources, without the tenant
};

void history_place_open(struct history_place *p, bool in_s3, const char *directory);
void history_place_close(struct history_place *p);
// A world in the directory, for a volume of this tenant.
void history_place_join(
    const struct history_place *p, const char *tenant, struct volume_world *w_out);
// How many objects there are.
unsigned history_place_count(const struct history_place *p);
// Makes all objects older; of an S3 server nobody can, and this does nothing.
void history_place_age(const struct history_place *p, unsigned days);

#endif
