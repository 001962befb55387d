// SPDX-License-Identifier: Apache-2.0
// The only file that knows OpenSSL. A failure here means that the library is unusable (no memory,
// or a hash disabled by policy); there is no way to go on without hashes, so the process stops.
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdlib.h>

#include "base/checksum.h"

struct sha256_stream {
    EVP_MD_CTX *context;
};

static void
require(int ok)
{
    if (!ok)
        abort();
}

void
sha256_of(const void *p, size_t n, struct sha256 *hash_out)
{
    unsigned length = 0;
    require(EVP_Digest(p, n, hash_out->b, &length, EVP_sha256(), NULL) == 1 && length == 32);
}

struct sha256_stream *
sha256_stream_new(void)
{
    struct sha256_stream *s = malloc(sizeof(*s));
    require(s != NULL);
    s->context = EVP_MD_CTX_new();
    require(s->context != NULL);
    require(EVP_DigestInit_ex(s->context, EVP_sha256(), NULL) == 1);
    return s;
}

void
sha256_stream_free(struct sha256_stream *s)
{
    if (!s)
        return;
    EVP_MD_CTX_free(s->context);
    free(s);
}

void
sha256_stream_update(struct sha256_stream *s, const void *p, size_t n)
{
    require(EVP_DigestUpdate(s->context, p, n) == 1);
}

void
sha256_stream_peek(const struct sha256_stream *s, struct sha256 *hash_out)
{
    struct sha256_stream *copy = sha256_stream_new();
    require(EVP_MD_CTX_copy_ex(copy->context, s->context) == 1);
    sha256_stream_finish(copy, hash_out);
    sha256_stream_free(copy);
}

void
sha256_stream_finish(struct sha256_stream *s, struct sha256 *hash_out)
{
    unsigned length = 0;
    require(EVP_DigestFinal_ex(s->context, hash_out->b, &length) == 1 && length == 32);
    require(EVP_DigestInit_ex(s->context, EVP_sha256(), NULL) == 1);
}

void
hmac_sha256(const void *key, size_t key_length, const void *p, size_t n, struct sha256 *mac_out)
{
    unsigned length = 0;
    require(HMAC(EVP_sha256(), key, (int)key_length, p, n, mac_out->b, &length) != NULL);
    require(length == 32);
}

void
md5_of(const void *p, size_t n, uint8_t digest_out[16])
{
    unsigned length = 0;
    require(EVP_Digest(p, n, digest_out, &length, EVP_md5(), NULL) == 1 && length == 16);
}
