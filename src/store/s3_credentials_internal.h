// SPDX-License-Identifier: Apache-2.0
// The parts of the credentials: s3_credentials.c keeps and renews them, s3_credential_sources.c
// fetches them.
#ifndef CKPTFS_STORE_S3_CREDENTIALS_INTERNAL_H
#define CKPTFS_STORE_S3_CREDENTIALS_INTERNAL_H

#include "platform/lock.h"
#include "store/s3_credentials.h"
#include "store/s3_profile.h"

// The environment that matters, copied when the chain is made.
enum s3_variable {
    ACCESS_KEY_ID,
    SECRET_ACCESS_KEY,
    SESSION_TOKEN,
    PROFILE,
    SHARED_CREDENTIALS_FILE,
    CONFIG_FILE,
    WEB_IDENTITY_TOKEN_FILE,
    ROLE_ARN,
    ROLE_SESSION_NAME,
    CONTAINER_RELATIVE_URI,
    CONTAINER_FULL_URI,
    CONTAINER_TOKEN,
    CONTAINER_TOKEN_FILE,
    METADATA_DISABLED,
    METADATA_ENDPOINT,
    STS_ENDPOINT,
    HOME,
    VARIABLE_COUNT,
};
struct s3_environment {
    char *values[VARIABLE_COUNT]; // NULL where unset or empty
};

struct s3_credential_chain {
    struct http_client *http;
    char *profile; // NULL: none was asked for
    char *region;
    uint64_t (*wall_ms)(void);
    struct s3_environment env;

    // Protects all below. No thread holds it while it fetches credentials.
    struct lock lock;
    struct condition fetched;
    struct s3_credentials now;
    uint64_t refresh_at_ms; // 0: never
    bool is_fetching;
    bool has_metadata; // the instance metadata has answered once
};

void s3_environment_read(struct s3_environment *env);
void s3_environment_free(struct s3_environment *env);
// The profile that is meant when `asked` (or NULL) was asked for.
const char *s3_profile_name(const struct s3_environment *env, const char *asked);
// The path of the shared credentials file, to be freed.
char *s3_environment_profile_path(const struct s3_environment *env);
MUST_CHECK int s3_environment_profile(
    const struct s3_environment *env, const char *profile, struct s3_profile *out);

// Asks one source after the other. One thread at a time, without the lock.
MUST_CHECK int s3_credentials_fetch(
    struct s3_credential_chain *chain, const struct remote_call *call, struct s3_credentials *out);

#endif
