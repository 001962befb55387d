// SPDX-License-Identifier: Apache-2.0
#include <errno.h>

#include "store/remote_store_backends.h"
#include "store/store_internal.h"

int
s3_store_open(const char *bucket, const char *prefix UNUSED,
    const struct remote_store_options *options UNUSED, struct remote_store **store_out)
{
    *store_out = NULL;
    return store_fail(-EIO, "bucket %s: S3 is not available in this build", bucket);
}
