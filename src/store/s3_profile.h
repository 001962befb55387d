// SPDX-License-Identifier: Apache-2.0
// Parsers for credentials: the AWS tools' profile files, and JSON of metadata services.
#ifndef CKPTFS_STORE_S3_PROFILE_H
#define CKPTFS_STORE_S3_PROFILE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/compiler.h"
#include "store/s3_keys.h"

// The settings of one profile; NULL where it has none.
struct s3_profile {
    char *access_key;
    char *secret_key;
    char *session_token;
    char *region;
    char *endpoint_url;
    char *role_arn;
    char *role_session_name;
    char *web_identity_token_file;
    char *credential_process;
    char *unsupported; // a way to get credentials that is not known here, such as "sso_session"
    bool found;        // there is a section of that name
};

// Adds the settings of the section `profile` that `io` does not have yet. In the config file (not
// the credentials file) sections other than default are called "profile NAME".
void s3_profile_parse(
    const char *text, size_t length, const char *profile, bool is_config, struct s3_profile *io);
// Reads the two files; files that do not exist are empty. 0, or -EACCES with a text.
MUST_CHECK int s3_profile_load(const char *credentials_path, const char *config_path,
    const char *profile, struct s3_profile *out);
void s3_profile_free(struct s3_profile *p);

// The answer of a container's credentials endpoint, or of the instance metadata. 0, or -EBADMSG
// with a text.
MUST_CHECK int s3_credentials_from_json(
    const void *p, size_t n, const char *source, struct s3_credentials *out);

// The same for the output of a credential_process, which must be of Version 1.
MUST_CHECK int s3_credentials_from_process(
    const void *p, size_t n, const char *source, struct s3_credentials *out);

#endif
