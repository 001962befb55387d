// SPDX-License-Identifier: Apache-2.0
// ckptctl limits.
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "base/json_writer.h"
#include "fuse/ckptctl.h"
#include "platform/file.h"
#include "volume/volume_config.h"

// ---- limits -------------------------------------------------------------------------------------

#define REQUESTS_MAX 1024u

static int
read_requests(const char *name, const char *text, uint64_t *requests_out)
{
    char *end;
    errno = 0;
    *requests_out = strtoull(text, &end, 10);
    if (*text >= '0' && *text <= '9' && *end == 0 && errno == 0 && *requests_out <= REQUESTS_MAX)
        return 0;
    print_error("%s: '%s' is not right; give a number from 0 to %u", name, text, REQUESTS_MAX);
    return -EINVAL;
}

static int
read_rate(const char *name, const char *text, uint64_t *bytes_out)
{
    BUFFER_AUTO error = {0};
    int rc = volume_config_parse_rate(name, text, bytes_out, &error);
    if (rc < 0)
        print_error("%s", buffer_string(&error));
    return rc;
}

// "NAME=VALUE"
static int
read_limit(const char *text, struct ckptfs_limits *io)
{
    uint64_t value = 0;
    int rc = -ENOENT;
    const char *equals = strchr(text, '=');
    size_t n = equals ? (size_t)(equals - text) : 0;
    if (n == 10 && strncmp(text, "read_limit", n) == 0) {
        rc = read_rate("read_limit", equals + 1, &value);
        io->change = CKPTFS_LIMIT_READ_BYTES;
        io->read_bytes = value;
    } else if (n == 13 && strncmp(text, "read_requests", n) == 0) {
        rc = read_requests("read_requests", equals + 1, &value);
        io->change = CKPTFS_LIMIT_READ_REQUESTS;
        io->read_requests = value;
    } else if (n == 12 && strncmp(text, "upload_limit", n) == 0) {
        rc = read_rate("upload_limit", equals + 1, &value);
        io->change = CKPTFS_LIMIT_UPLOAD_BYTES;
        io->upload_bytes = value;
    } else if (n == 17 && strncmp(text, "tenant_read_limit", n) == 0) {
        rc = read_rate("tenant_read_limit", equals + 1, &value);
        io->change = CKPTFS_LIMIT_TENANT_READ_BYTES;
        io->tenant_read_bytes = value;
    } else if (n == 20 && strncmp(text, "tenant_read_requests", n) == 0) {
        rc = read_requests("tenant_read_requests", equals + 1, &value);
        io->change = CKPTFS_LIMIT_TENANT_READ_REQUESTS;
        io->tenant_read_requests = value;
    }
    if (rc == -ENOENT)
        print_error("\"%s\" is no limit: say read_limit=SIZE, read_requests=N, upload_limit=SIZE, "
                    "tenant_read_limit=SIZE or tenant_read_requests=N",
            text);
    return rc;
}

static void
print_limits_json(const struct ckptfs_limits *io, struct buffer *out)
{
    struct json_writer w = {.out = out};
    write_json_begin_object(&w, NULL);
    write_json_u64(&w, "read_limit_bytes", io->read_bytes);
    write_json_u64(&w, "read_limit_requests", io->read_requests);
    write_json_u64(&w, "upload_limit_bytes", io->upload_bytes);
    write_json_u64(&w, "tenant_read_limit_bytes", io->tenant_read_bytes);
    write_json_u64(&w, "tenant_read_limit_requests", io->tenant_read_requests);
    write_json_end_object(&w);
    buffer_append_string(out, "\n");
}

static void
print_rate(const char *name, uint64_t bytes, struct buffer *out)
{
    char text[32];
    print_size(bytes, text);
    buffer_printf(out, "%-20s %s%s\n", name, bytes > 0 ? text : "none", bytes > 0 ? "/s" : "");
}

static void
print_requests(const char *name, uint64_t requests, struct buffer *out)
{
    if (requests > 0)
        buffer_printf(out, "%-20s %" PRIu64 "\n", name, requests);
    else
        buffer_printf(out, "%-20s none\n", name);
}

int
handle_limits(const char *path, const char *set, bool json)
{
    struct ckptfs_limits io = {.version = CKPTFS_ABI_VERSION};
    if (set && read_limit(set, &io) < 0)
        return EXIT_STATUS_USAGE;
    CLEANUP(file_close_auto) int fd = control_open(path);
    if (fd < 0)
        return EXIT_STATUS_ERROR;
    if (ioctl(fd, CKPTFS_IOC_LIMITS, &io) < 0)
        return control_failed("limits of", path, -errno);
    if (set && !json)
        return EXIT_SUCCESS;
    BUFFER_AUTO out = {0};
    if (json) {
        print_limits_json(&io, &out);
        return print_out(&out);
    }
    print_rate("read_limit", io.read_bytes, &out);
    print_requests("read_requests", io.read_requests, &out);
    print_rate("upload_limit", io.upload_bytes, &out);
    print_rate("tenant_read_limit", io.tenant_read_bytes, &out);
    print_requests("tenant_read_requests", io.tenant_read_requests, &out);
    return print_out(&out);
}
