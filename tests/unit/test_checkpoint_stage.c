// SPDX-License-Identifier: Apache-2.0
// What stands between staged blobs and their names.
#include "unit.h"

#include <string.h>

#include "base/checksum.h"
#include "checkpoint/checkpoint_internal.h"
#include "platform/memory.h"

static uint64_t spoil_at = UINT64_MAX; // this byte of the file comes back wrong
static uint64_t end_at = UINT64_MAX;   // the file ends there
static int read_error;

static ssize_t
spoiling_pread(int fd, void *p, size_t n, off_t offset)
{
    if (read_error < 0)
        return read_error;
    uint64_t at = (uint64_t)offset;
    if (at >= end_at)
        return 0;
    if (n > end_at - at)
        n = end_at - at;
    ssize_t got = file_ops_system.pread(fd, p, n, offset);
    if (got > 0 && spoil_at >= at && spoil_at < at + (uint64_t)got)
        ((uint8_t *)p)[spoil_at - at] ^= 1;
    return got;
}

START_TEST(a_blob_that_does_not_read_back_as_it_was_hashed_is_refused)
{
    enum { BYTES = (5 << 20) / 2 + 77 };
    struct file_ops ops = file_ops_system;
    ops.pread = spoiling_pread;
    char *directory = unit_directory_new();
    char *path = memory_printf("%s/blob-0", directory);
    uint8_t *bytes = memory_alloc(BYTES);
    for (size_t i = 0; i < BYTES; i++)
        bytes[i] = (uint8_t)(i * i >> 7);
    ck_assert_int_eq(file_replace_whole(&file_ops_system, path, bytes, BYTES, 0600), 0);
    struct staged_blob blob = {
        .path = path, .crc = crc32c(0, bytes, BYTES), .record = {.bytes = BYTES}};
    const struct checkpoint_staging staging = {.blobs = &blob, .blob_count = 1};
    struct checkpoint c = {.options = {.ops = &ops}};
    ck_assert_int_eq(checkpoint_verify_staging(&c, &staging), 0);
    static const uint64_t places[] = {0, 1 << 20, BYTES - 1};
    for (size_t i = 0; i < ARRAY_LENGTH(places); i++) {
        spoil_at = places[i];
        ck_assert_int_eq(checkpoint_verify_staging(&c, &staging), -EIO);
    }
    spoil_at = UINT64_MAX;
    end_at = BYTES - 1;
    ck_assert_int_eq(checkpoint_verify_staging(&c, &staging), -EIO);
    end_at = UINT64_MAX;
    read_error = -EIO;
    ck_assert_int_eq(checkpoint_verify_staging(&c, &staging), -EIO);
    read_error = 0;
    blob.record.bytes--;
    ck_assert_int_eq(checkpoint_verify_staging(&c, &staging), -EIO);
    free(bytes);
    free(path);
    unit_directory_remove(directory);
}
END_TEST

static struct staged_blob
blob_number(uint64_t i)
{
    struct staged_blob blob = {.crc = (uint32_t)i * 3};
    sha256_of(&i, sizeof(i), &blob.record.hash);
    return blob;
}

START_TEST(a_crc_is_recalled_for_its_blob_only)
{
    struct checkpoint *c = memory_alloc_zero(sizeof(*c));
    lock_init(&c->lock, "checkpoint", LOCK_RANK_CHECKPOINT);
    uint32_t crc;
    struct sha256 zeros = {0};
    ck_assert(!checkpoint_recall_crc(c, &zeros, &crc));
    for (uint64_t i = 0; i < 3 * KNOWN_CRCS; i++) {
        struct staged_blob blob = blob_number(i);
        ck_assert(!checkpoint_recall_crc(c, &blob.record.hash, &crc));
        checkpoint_remember_crc(c, &blob);
        ck_assert(checkpoint_recall_crc(c, &blob.record.hash, &crc));
        ck_assert_uint_eq(crc, blob.crc);
    }
    size_t known = 0;
    for (uint64_t i = 0; i < 3 * KNOWN_CRCS; i++) {
        struct staged_blob blob = blob_number(i);
        if (!checkpoint_recall_crc(c, &blob.record.hash, &crc))
            continue;
        known++;
        ck_assert_uint_eq(crc, blob.crc);
    }
    ck_assert_uint_gt(known, KNOWN_CRCS / 2);
    lock_destroy(&c->lock);
    free(c);
}
END_TEST

int
main(void)
{
    Suite *s = suite_create("checkpoint_stage");
    unit_add(s, "a_blob_that_does_not_read_back_as_it_was_hashed_is_refused",
        a_blob_that_does_not_read_back_as_it_was_hashed_is_refused, 20);
    unit_add(s, "a_crc_is_recalled_for_its_blob_only", a_crc_is_recalled_for_its_blob_only, 20);
    return unit_run(s);
}
