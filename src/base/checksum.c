// SPDX-License-Identifier: Apache-2.0
#include "base/checksum.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "base/bytes.h"

#define CRC32C_REFLECTED 0x82F63B78u

uint32_t
crc32c_portable(uint32_t crc, const void *p, size_t n)
{
    const uint8_t *b = p;
    crc = ~crc;
    while (n--) {
        crc ^= *b++;
        for (int k = 0; k < 8; k++)
            crc = (crc >> 1) ^ (CRC32C_REFLECTED & (0u - (crc & 1)));
    }
    return ~crc;
}

// ---- by the processor's own instruction ---------------------------------------------------------

#if defined(__x86_64__)
#include <nmmintrin.h>
#define HAS_CRC_INSTRUCTION 1
#define CRC_TARGET          __attribute__((target("sse4.2")))

static bool
cpu_has_crc(void)
{
    return __builtin_cpu_supports("sse4.2");
}

CRC_TARGET static inline uint64_t
crc_step_8_bytes(uint64_t crc, uint64_t v)
{
    return _mm_crc32_u64(crc, v);
}

CRC_TARGET static inline uint32_t
crc_step_byte(uint32_t crc, uint8_t v)
{
    return _mm_crc32_u8(crc, v);
}
#elif defined(__aarch64__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#include <sys/auxv.h>
#define HAS_CRC_INSTRUCTION 1
#define CRC_TARGET
#define HWCAP_WITH_CRC32 (1ul << 7) // HWCAP_CRC32 of <asm/hwcap.h>

static bool
cpu_has_crc(void)
{
    return getauxval(AT_HWCAP) & HWCAP_WITH_CRC32;
}

// As assembly, because compilers offer the instruction under different names, and some only when
// the whole file is compiled for processors that have it.
static inline uint64_t
crc_step_8_bytes(uint64_t crc, uint64_t v)
{
    uint32_t c = (uint32_t)crc;
    __asm__(".arch_extension crc\n\tcrc32cx %w0, %w0, %x1" : "+r"(c) : "r"(v));
    return c;
}

static inline uint32_t
crc_step_byte(uint32_t crc, uint8_t v)
{
    __asm__(".arch_extension crc\n\tcrc32cb %w0, %w0, %w1" : "+r"(crc) : "r"(v));
    return crc;
}
#endif

#ifdef HAS_CRC_INSTRUCTION

// Three interleaved streams hide the instruction's latency of three cycles; their results are
// combined by shifting each crc over the bytes of the streams behind it with a table.
#define STREAM_BYTES 1344u

// The crc after STREAM_BYTES zero bytes, by nibble of the crc.
static uint32_t shift_table[8][16];
static uint32_t shift_table_double[8][16];

static uint32_t
shift_zeros(uint32_t crc, size_t zeros)
{
    while (zeros--)
        for (int k = 0; k < 8; k++)
            crc = (crc >> 1) ^ (CRC32C_REFLECTED & (0u - (crc & 1)));
    return crc;
}

static void __attribute__((constructor)) fill_shift_tables(void)
{
    for (int i = 0; i < 8; i++)
        for (uint32_t j = 0; j < 16; j++) {
            shift_table[i][j] = shift_zeros(j << (4 * i), STREAM_BYTES);
            shift_table_double[i][j] = shift_zeros(shift_table[i][j], STREAM_BYTES);
        }
}

static uint32_t
shift_by(const uint32_t table[8][16], uint32_t crc)
{
    uint32_t r = 0;
    for (int i = 0; i < 8; i++)
        r ^= table[i][(crc >> (4 * i)) & 15];
    return r;
}

CRC_TARGET static uint32_t
crc32c_by_instruction(uint32_t crc, const void *p, size_t n)
{
    const uint8_t *b = p;
    uint64_t c0 = (uint32_t)~crc;
    while (n >= 3 * STREAM_BYTES) {
        uint64_t c1 = 0;
        uint64_t c2 = 0;
        for (size_t i = 0; i < STREAM_BYTES; i += 8) {
            uint64_t v0, v1, v2;
            memcpy(&v0, b + i, 8);
            memcpy(&v1, b + STREAM_BYTES + i, 8);
            memcpy(&v2, b + 2 * STREAM_BYTES + i, 8);
            c0 = crc_step_8_bytes(c0, v0);
            c1 = crc_step_8_bytes(c1, v1);
            c2 = crc_step_8_bytes(c2, v2);
        }
        c0 = shift_by(shift_table_double, (uint32_t)c0) ^ shift_by(shift_table, (uint32_t)c1) ^
             (uint32_t)c2;
        b += 3 * STREAM_BYTES;
        n -= 3 * STREAM_BYTES;
    }
    for (; n >= 8; n -= 8, b += 8) {
        uint64_t v;
        memcpy(&v, b, 8);
        c0 = crc_step_8_bytes(c0, v);
    }
    uint32_t c = (uint32_t)c0;
    for (; n > 0; n--)
        c = crc_step_byte(c, *b++);
    return ~c;
}

uint32_t
crc32c(uint32_t crc, const void *p, size_t n)
{
    if (cpu_has_crc())
        return crc32c_by_instruction(crc, p, n);
    return crc32c_portable(crc, p, n);
}
#else
uint32_t
crc32c(uint32_t crc, const void *p, size_t n)
{
    return crc32c_portable(crc, p, n);
}
#endif

static inline uint64_t
rotate_left(uint64_t v, int by)
{
    return (v << by) | (v >> (64 - by));
}

static inline void
sip_round(uint64_t v[4])
{
    v[0] += v[1];
    v[1] = rotate_left(v[1], 13) ^ v[0];
    v[0] = rotate_left(v[0], 32);
    v[2] += v[3];
    v[3] = rotate_left(v[3], 16) ^ v[2];
    v[0] += v[3];
    v[3] = rotate_left(v[3], 21) ^ v[0];
    v[2] += v[1];
    v[1] = rotate_left(v[1], 17) ^ v[2];
    v[2] = rotate_left(v[2], 32);
}

uint64_t
siphash24(const struct uuid *key, const void *p, size_t n)
{
    const uint8_t *b = p;
    uint64_t k0 = get_le64(key->b);
    uint64_t k1 = get_le64(key->b + 8);
    uint64_t v[4] = {k0 ^ 0x736f6d6570736575u, k1 ^ 0x646f72616e646f6du, k0 ^ 0x6c7967656e657261u,
        k1 ^ 0x7465646279746573u};
    uint64_t last = (uint64_t)n << 56;
    for (; n >= 8; n -= 8, b += 8) {
        uint64_t m = get_le64(b);
        v[3] ^= m;
        sip_round(v);
        sip_round(v);
        v[0] ^= m;
    }
    for (size_t i = 0; i < n; i++)
        last |= (uint64_t)b[i] << (8 * i);
    v[3] ^= last;
    sip_round(v);
    sip_round(v);
    v[0] ^= last;
    v[2] ^= 0xff;
    for (int i = 0; i < 4; i++)
        sip_round(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

void
sha256_to_hex(const struct sha256 *hash, char hex_out[65])
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < 32; i++) {
        hex_out[2 * i] = digits[hash->b[i] >> 4];
        hex_out[2 * i + 1] = digits[hash->b[i] & 15];
    }
    hex_out[64] = 0;
}

static int
hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

int
sha256_from_hex(const char *hex, struct sha256 *hash_out)
{
    for (size_t i = 0; i < 32; i++) {
        int high = hex_value(hex[2 * i]);
        int low = high < 0 ? -1 : hex_value(hex[2 * i + 1]);
        if (low < 0)
            return -EINVAL;
        hash_out->b[i] = (uint8_t)(high << 4 | low);
    }
    return 0;
}
