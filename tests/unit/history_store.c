// SPDX-License-Identifier: Apache-2.0
#include "unit.h"

#include "history_store.h"
#include "memory_store.h"
#include "platform/memory.h"
#include "platform/random.h"
#include "store/remote_store_backends.h"

static struct remote_store *
open_files(const char *directory)
{
    struct remote_store *inner;
    CLEANUP(memory_free_auto) char *bucket = memory_printf("%s/bucket", directory);
    ck_assert_int_eq(file_store_open(bucket, true, &file_ops_system, &inner), 0);
    return inner;
}

static struct remote_store *
open_s3(void)
{
    struct remote_store *inner;
    char id[37];
    struct uuid uuid = random_uuid();
    uuid_to_string(&uuid, id);
    const char *name = getenv("CKPT_TEST_S3_BUCKET");
    const struct remote_store_options options = {
        .endpoint = getenv("CKPT_TEST_S3_ENDPOINT"), .region = getenv("CKPT_TEST_S3_REGION")};
    CLEANUP(memory_free_auto) char *prefix = memory_printf("histories/%s", id);
    setenv("AWS_ACCESS_KEY_ID", getenv("CKPT_TEST_S3_ACCESS_KEY"), 1);
    setenv("AWS_SECRET_ACCESS_KEY", getenv("CKPT_TEST_S3_SECRET_KEY"), 1);
    ck_assert_int_eq(s3_store_open(name ? name : "ckptfs-test", prefix, &options, &inner), 0);
    return inner;
}

struct remote_store *
history_store_open(enum history_backend backend, const char *directory)
{
    if (backend == IN_MEMORY)
        return memory_store_new();
    return memory_store_over(backend == IN_FILES ? open_files(directory) : open_s3());
}
