// SPDX-License-Identifier: Apache-2.0
// A set of keys for S3, and how secrets leave memory.
#ifndef CKPTFS_STORE_S3_KEYS_H
#define CKPTFS_STORE_S3_KEYS_H

#include <stdint.h>

struct s3_credentials {
    char *access_key;
    char *secret_key;
    char *session_token; // NULL: none
    uint64_t expires_ms; // wall clock; 0: never
};

// Overwrites the secrets before it frees them. NULL members are fine.
void s3_credentials_free(struct s3_credentials *c);

// A string that may be NULL, copied; one that is a secret, overwritten and freed.
char *s3_copy_string(const char *s);
void s3_wipe_string(char *s);

#endif
