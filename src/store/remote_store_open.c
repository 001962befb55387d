// SPDX-License-Identifier: Apache-2.0
// Builds the stack of stores that a URL asks for.
#include <stdlib.h>
#include <string.h>

#include "store/remote_store_backends.h"
#include "store/store_internal.h"

int
remote_store_open(const struct store_url *url, const struct remote_store_options *options,
    bool create_directory, struct remote_store **store_out)
{
    static const struct remote_store_options defaults;
    struct remote_store *backend = NULL;
    *store_out = NULL;
    store_clear_error();
    int rc = url->is_s3
                 ? s3_store_open(url->bucket, url->prefix, options ? options : &defaults, &backend)
                 : file_store_open(url->directory, create_directory, &file_ops_system, &backend);
    if (rc < 0)
        return rc;
#ifdef CKPTFS_FAULT_HOOKS
    const char *script = getenv("CKPTFS_STORE_FAULTS");
    const char *trace = getenv("CKPTFS_STORE_TRACE");
    bool traced = trace && *trace;
    if ((script && *script) || traced)
        backend = fault_store_wrap(backend, script && *script ? script : NULL);
    rc = traced ? fault_store_trace(backend, trace) : 0;
    if (rc < 0) {
        remote_store_close(backend);
        return store_fail(rc, "cannot write %s: %s", trace, strerror(-rc));
    }
#endif
    *store_out = retry_store_wrap(backend, NULL, NULL);
    return 0;
}
