// SPDX-License-Identifier: Apache-2.0
// ckptctl limits.
#include <errno.h>
#include <inttypes.h>
#include <stddef.h>
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

static const struct limit {
    const char *name;
    bool is_rate; // else a number of requests
    uint32_t change;
    size_t at; // in struct ckptfs_limits
} limits[] = {
    {"read_limit", true, CKPTFS_LIMIT_READ_BYTES, offsetof(struct ckptfs_limits, read_bytes)},
    {"read_requests", false, CKPTFS_LIMIT_READ_REQUESTS,
        offsetof(struct ckptfs_limits, read_requests)},
    {"upload_limit", true, CKPTFS_LIMIT_UPLOAD_BYTES, offsetof(struct ckptfs_limits, upload_bytes)},
    {"tenant_read_limit", true, CKPTFS_LIMIT_TENANT_READ_BYTES,
        offsetof(struct ckptfs_limits, tenant_read_bytes)},
    {"tenant_read_requests", false, CKPTFS_LIMIT_TENANT_READ_REQUESTS,
        offsetof(struct ckptfs_limits, tenant_read_requests)},
};

// "NAME=VALUE"
static int
read_limit(const char *text, struct ckptfs_limits *io)
{
    const char *equals = strchr(text, '=');
    size_t n = equals ? (size_t)(equals - text) : 0;
    for (size_t i = 0; i < ARRAY_LENGTH(limits); i++) {
        const struct limit *l = &limits[i];
        uint64_t value = 0;
        if (n != strlen(l->name) || strncmp(text, l->name, n) != 0)
            continue;
        int rc = l->is_rate ? read_rate(l->name, equals + 1, &value)
                            : read_requests(l->name, equals + 1, &value);
        io->change = l->change;
        memcpy((char *)io + l->at, &value, sizeof(value));
        return rc;
    }
    print_error("\"%s\" is no limit: say read_limit=SIZE, read_requests=N, upload_limit=SIZE, "
                "tenant_read_limit=SIZE or tenant_read_requests=N",
        text);
    return -ENOENT;
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
print_limit(const struct limit *l, const struct ckptfs_limits *io, struct buffer *out)
{
    uint64_t value;
    char text[32];
    memcpy(&value, (const char *)io + l->at, sizeof(value));
    buffer_printf(out, "%-20s ", l->name);
    if (value == 0) {
        buffer_append_string(out, "none\n");
    } else if (l->is_rate) {
        print_size(value, text);
        buffer_printf(out, "%s/s\n", text);
    } else {
        buffer_printf(out, "%" PRIu64 "\n", value);
    }
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
    for (size_t i = 0; i < ARRAY_LENGTH(limits); i++)
        print_limit(&limits[i], &io, &out);
    return print_out(&out);
}
