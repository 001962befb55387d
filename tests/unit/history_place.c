// SPDX-License-Identifier: Apache-2.0
#include "unit.h"

#include "history_place.h"

#include <fcntl.h>
#include <ftw.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "platform/memory.h"
#include "platform/random.h"
#include "store/remote_store.h"
#include "volume_world.h"

void
history_place_open(struct history_place *p, bool in_s3, const char *directory)
{
    char id[37];
    struct uuid uuid = random_uuid();
    uuid_to_string(&uuid, id);
    *p = (struct history_place){.in_s3 = in_s3, .directory = directory};
    if (!in_s3) {
        p->base = memory_printf("file://%s/store", directory);
        return;
    }
    const char *bucket = getenv("CKPT_TEST_S3_BUCKET");
    p->base = memory_printf("s3://%s/histories/%s", bucket ? bucket : "ckptfs-test", id);
    setenv("AWS_ACCESS_KEY_ID", getenv("CKPT_TEST_S3_ACCESS_KEY"), 1);
    setenv("AWS_SECRET_ACCESS_KEY", getenv("CKPT_TEST_S3_SECRET_KEY"), 1);
}

void
history_place_close(struct history_place *p)
{
    free(p->base);
}

static char *
text_of(const char *variable)
{
    const char *text = getenv(variable);
    return text ? memory_string(text) : NULL;
}

void
history_place_join(const struct history_place *p, const char *tenant, struct volume_world *w_out)
{
    volume_world_join(w_out, p->directory);
    free(w_out->config.source);
    w_out->config.source = memory_printf("%s/%s", p->base, tenant);
    if (p->in_s3) {
        w_out->config.endpoint = text_of("CKPT_TEST_S3_ENDPOINT");
        w_out->config.region = text_of("CKPT_TEST_S3_REGION");
    }
}

static unsigned
count_in_s3(const struct history_place *p)
{
    CLEANUP(memory_free_auto) char *source = memory_printf("%s/any", p->base);
    const struct remote_store_options options = {
        .endpoint = getenv("CKPT_TEST_S3_ENDPOINT"), .region = getenv("CKPT_TEST_S3_REGION")};
    struct remote_store *store;
    struct remote_listing page;
    struct store_url url;
    ck_assert_int_eq(store_url_parse(source, &url), 0);
    ck_assert_int_eq(remote_store_open(&url, &options, false, &store), 0);
    ck_assert_int_eq(remote_store_list_blobs(store, "", NULL, 1000, &page, NULL), 0);
    unsigned count = (unsigned)page.count;
    remote_listing_free(&page);
    remote_store_close(store);
    store_url_free(&url);
    return count;
}

unsigned
history_place_count(const struct history_place *p)
{
    const struct volume_world files = {.directory = (char *)(uintptr_t)p->directory};
    return p->in_s3 ? count_in_s3(p) : volume_world_count_objects(&files, "", "*");
}

static time_t older_by;

static int
age_one(const char *path, const struct stat *st, int kind, struct FTW *at UNUSED)
{
    const struct timespec time = {st->st_mtim.tv_sec - older_by, st->st_mtim.tv_nsec};
    const struct timespec times[2] = {time, time};
    // The daemon may remove a file meanwhile.
    if (kind == FTW_F && utimensat(AT_FDCWD, path, times, 0) < 0)
        ck_assert_int_eq(errno, ENOENT);
    return 0;
}

void
history_place_age(const struct history_place *p, unsigned days)
{
    CLEANUP(memory_free_auto) char *path = memory_printf("%s/store", p->directory);
    if (p->in_s3)
        return;
    older_by = (time_t)days * 86400;
    ck_assert_int_eq(nftw(path, age_one, 16, FTW_PHYS), 0);
}
