// SPDX-License-Identifier: Apache-2.0
// CRC-32C (Castagnoli polynomial 0x1EDC6F41, reflected, RFC 3720 appendix B.4) with the processor's
// instruction where there is one, and the hashes that come from OpenSSL.
#ifndef CKPTFS_BASE_CHECKSUM_H
#define CKPTFS_BASE_CHECKSUM_H

#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/types.h"

// Extends `crc` (0 at the beginning) over `n` bytes. crc32c(0, "123456789", 9) is 0xE3069283.
uint32_t crc32c(uint32_t crc, const void *p, size_t n);
// The same without special instructions; for tests.
uint32_t crc32c_portable(uint32_t crc, const void *p, size_t n);

// SHA-256 in one call.
void sha256_of(const void *p, size_t n, struct sha256 *hash_out);

// SHA-256 piece by piece. One thread at a time.
struct sha256_stream;
struct sha256_stream *sha256_stream_new(void);
void sha256_stream_free(struct sha256_stream *s);
void sha256_stream_update(struct sha256_stream *s, const void *p, size_t n);
// Writes the hash of the bytes so far; the message goes on.
void sha256_stream_peek(const struct sha256_stream *s, struct sha256 *hash_out);
// Writes the hash and makes the stream ready for a new message.
void sha256_stream_finish(struct sha256_stream *s, struct sha256 *hash_out);

// HMAC-SHA-256 (RFC 2104).
void hmac_sha256(
    const void *key, size_t key_length, const void *p, size_t n, struct sha256 *mac_out);

// MD5 (RFC 1321), for protocols that need it; not for anything that must resist an attacker.
void md5_of(const void *p, size_t n, uint8_t digest_out[16]);

// SipHash-2-4 (Aumasson and Bernstein, 2012) of `n` bytes under a 16-byte key.
uint64_t siphash24(const struct uuid *key, const void *p, size_t n);

// 64 lower-case hexadecimal digits and a NUL.
void sha256_to_hex(const struct sha256 *hash, char hex_out[65]);
// 0, or -EINVAL when `hex` does not begin with 64 hexadecimal digits.
MUST_CHECK int sha256_from_hex(const char *hex, struct sha256 *hash_out);

#endif
