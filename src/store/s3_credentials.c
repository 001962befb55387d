// SPDX-License-Identifier: Apache-2.0
#include "store/s3_credentials.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "platform/clock.h"
#include "platform/log.h"
#include "platform/memory.h"
#include "store/s3_credentials_internal.h"
#include "store/store_internal.h"

#define REFRESH_BEFORE_MS (5ull * 60 * 1000)
#define REFRESH_AGAIN_MS  (10ull * 1000) // when that failed, or they expire at once
#define USABLE_MS         (5ull * 1000)  // credentials that expire sooner are not given out

// ---- small things -------------------------------------------------------------------------------

static struct s3_credentials
copy_credentials(const struct s3_credentials *c)
{
    return (struct s3_credentials){s3_copy_string(c->access_key), s3_copy_string(c->secret_key),
        s3_copy_string(c->session_token), c->expires_ms};
}

// ---- the chain ----------------------------------------------------------------------------------

struct s3_credential_chain *
s3_credential_chain_new(const struct s3_credential_options *options)
{
    struct s3_credential_chain *chain = memory_alloc_zero(sizeof(*chain));
    chain->http = options->http;
    chain->profile = s3_copy_string(options->profile);
    chain->region = memory_string(options->region);
    chain->wall_ms = options->wall_ms ? options->wall_ms : clock_wall_ms;
    s3_environment_read(&chain->env);
    lock_init(&chain->lock, "s3_credentials", LOCK_RANK_STORE);
    condition_init(&chain->fetched);
    return chain;
}

void
s3_credential_chain_free(struct s3_credential_chain *chain)
{
    if (!chain)
        return;
    s3_credentials_free(&chain->now);
    s3_environment_free(&chain->env);
    condition_destroy(&chain->fetched);
    lock_destroy(&chain->lock);
    free(chain->profile);
    free(chain->region);
    free(chain);
}

static bool
is_usable_locked(const struct s3_credential_chain *chain, uint64_t now_ms)
{
    const struct s3_credentials *c = &chain->now;
    return c->access_key && (c->expires_ms == 0 || now_ms + USABLE_MS < c->expires_ms);
}

static bool
is_due_locked(const struct s3_credential_chain *chain, uint64_t now_ms)
{
    return !is_usable_locked(chain, now_ms) ||
           (chain->refresh_at_ms > 0 && now_ms >= chain->refresh_at_ms);
}

static void
keep_locked(struct s3_credential_chain *chain, struct s3_credentials *fresh, uint64_t now_ms)
{
    s3_credentials_free(&chain->now);
    chain->now = *fresh;
    *fresh = (struct s3_credentials){0};
    uint64_t expires = chain->now.expires_ms;
    chain->refresh_at_ms = expires == 0                           ? 0
                           : expires > now_ms + REFRESH_BEFORE_MS ? expires - REFRESH_BEFORE_MS
                                                                  : now_ms + REFRESH_AGAIN_MS;
}

// Fetches; the lock is released meanwhile, and the caller is the only one who does this.
static int
refresh_locked(struct s3_credential_chain *chain, const struct remote_call *call)
{
    struct s3_credentials fresh = {0};
    chain->is_fetching = true;
    lock_release(&chain->lock);
    int rc = s3_credentials_fetch(chain, call, &fresh);
    lock_take(&chain->lock);
    chain->is_fetching = false;
    uint64_t now = chain->wall_ms();
    if (rc == 0) {
        keep_locked(chain, &fresh, now);
        if (!is_usable_locked(chain, now))
            rc = store_fail(-EACCES, "the AWS credentials that were found have expired");
    } else if (is_usable_locked(chain, now)) {
        chain->refresh_at_ms = now + REFRESH_AGAIN_MS;
        log_warning(
            "store.credentials", "cannot renew, going on with the old: %s", remote_store_error());
        rc = 0;
    }
    condition_broadcast(&chain->fetched);
    return rc;
}

int
s3_credential_chain_get(
    struct s3_credential_chain *chain, const struct remote_call *call, struct s3_credentials *out)
{
    int rc = 0;
    *out = (struct s3_credentials){0};
    lock_take(&chain->lock);
    while (rc == 0 && is_due_locked(chain, chain->wall_ms())) {
        if (!chain->is_fetching)
            rc = refresh_locked(chain, call);
        else if (is_usable_locked(chain, chain->wall_ms()))
            break;
        else {
            condition_wait_until(&chain->fetched, &chain->lock, clock_monotonic_ms() + 100);
            rc = store_check_call(call, "credentials", "");
        }
    }
    if (rc == 0)
        *out = copy_credentials(&chain->now);
    lock_release(&chain->lock);
    return rc;
}

void
s3_credential_chain_refused(struct s3_credential_chain *chain, const struct s3_credentials *refused)
{
    lock_take(&chain->lock);
    // Another thread may have fetched new ones since.
    if (chain->now.access_key && strcmp(chain->now.access_key, refused->access_key) == 0 &&
        strcmp(chain->now.session_token ? chain->now.session_token : "",
            refused->session_token ? refused->session_token : "") == 0)
        s3_credentials_free(&chain->now);
    lock_release(&chain->lock);
}

char *
s3_region_from_environment(const char *profile)
{
    const char *region = getenv("AWS_REGION");
    if (!region || !*region)
        region = getenv("AWS_DEFAULT_REGION");
    if (region && *region)
        return memory_string(region);
    struct s3_environment env;
    struct s3_profile p;
    char *found = NULL;
    s3_environment_read(&env);
    if (s3_environment_profile(&env, s3_profile_name(&env, profile), &p) == 0) {
        found = p.region;
        p.region = NULL;
        s3_profile_free(&p);
    }
    s3_environment_free(&env);
    return found;
}

char *
s3_endpoint_from_environment(const char *profile)
{
    static const char *const names[] = {"AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"};
    for (size_t i = 0; i < ARRAY_LENGTH(names); i++) {
        const char *endpoint = getenv(names[i]);
        if (endpoint && *endpoint)
            return memory_string(endpoint);
    }
    struct s3_environment env;
    struct s3_profile p;
    char *found = NULL;
    s3_environment_read(&env);
    if (s3_environment_profile(&env, s3_profile_name(&env, profile), &p) == 0) {
        found = p.endpoint_url;
        p.endpoint_url = NULL;
        s3_profile_free(&p);
    }
    s3_environment_free(&env);
    return found;
}
