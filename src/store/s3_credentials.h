// SPDX-License-Identifier: Apache-2.0
// Where the keys come from, in the order in which AWS tools look:
//     the profile that was asked for by option (and then nothing else)
//     AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN
//     AWS_WEB_IDENTITY_TOKEN_FILE with AWS_ROLE_ARN: AssumeRoleWithWebIdentity at STS
//     the profile of AWS_PROFILE or "default", in AWS_SHARED_CREDENTIALS_FILE (~/.aws/credentials)
//     and AWS_CONFIG_FILE (~/.aws/config); it may name a web identity or a credential_process, too
//     AWS_CONTAINER_CREDENTIALS_RELATIVE_URI or _FULL_URI
//     the instance metadata of EC2, unless AWS_EC2_METADATA_DISABLED is true
// Five minutes before credentials expire one thread fetches new ones, while the others go on with
// the old ones. Nothing here writes a secret into a text. Any thread.
#ifndef CKPTFS_STORE_S3_CREDENTIALS_H
#define CKPTFS_STORE_S3_CREDENTIALS_H

#include <stdint.h>

#include "base/compiler.h"
#include "store/http_client.h"
#include "store/s3_keys.h"

struct s3_credential_chain;

struct s3_credential_options {
    struct http_client *http; // must outlive the chain
    const char *profile;      // NULL: none was asked for
    const char *region;       // for STS
    uint64_t (*wall_ms)(void);
};

// Reads the environment now and nothing else.
struct s3_credential_chain *s3_credential_chain_new(const struct s3_credential_options *options);
void s3_credential_chain_free(struct s3_credential_chain *chain);
// Usable credentials, which the caller frees. -EACCES when there are none, -EAGAIN when their
// source does not answer, or an error of http_client_perform; with a text.
MUST_CHECK int s3_credential_chain_get(
    struct s3_credential_chain *chain, const struct remote_call *call, struct s3_credentials *out);
// Tells that the server refused these as expired: the next call fetches new ones.
void s3_credential_chain_refused(
    struct s3_credential_chain *chain, const struct s3_credentials *refused);

// The region by AWS_REGION, AWS_DEFAULT_REGION, or the profile's; NULL when none has it. The caller
// frees it.
char *s3_region_from_environment(const char *profile);
// The endpoint by AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL, or the profile's endpoint_url; NULL when
// none has it. The caller frees it.
char *s3_endpoint_from_environment(const char *profile);

#endif
