// SPDX-License-Identifier: Apache-2.0
#include "volume/volume_config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/similar.h"
#include "platform/memory.h"
#include "quota/storage_quota.h"
#include "store/read_limiter.h"
#include "store/remote_store.h"

#define KIB    (UINT64_C(1) << 10)
#define MIB    (UINT64_C(1) << 20)
#define TIB    (UINT64_C(1) << 40)
#define SECOND UINT64_C(1000)
#define MINUTE (60 * SECOND)
#define HOUR   (60 * MINUTE)
#define DAY    (24 * HOUR)

#define FLAG(name, field, fallback, help)                                                          \
    {                                                                                              \
        name, CONFIG_FLAG, offsetof(struct volume_config, field), 0, 1, fallback, NULL, help       \
    }
#define TEXT(name, field, fallback, argument, help)                                                \
    {                                                                                              \
        name, CONFIG_TEXT, offsetof(struct volume_config, field), 0, 0, fallback, argument, help   \
    }
#define VALUE(name, type, field, minimum, maximum, fallback, argument, help)                       \
    {                                                                                              \
        name, type, offsetof(struct volume_config, field), minimum, maximum, fallback, argument,   \
            help                                                                                   \
    }

const struct config_entry volume_config_table[] = {
    TEXT("root", root, NULL, "DIR",
        "storage root: WAL, manifest and local copies (default /var/lib/ckptfs for root, "
        "else $XDG_STATE_HOME/ckptfs)"),
    TEXT("endpoint", endpoint, NULL, "URL", "S3: URL of the service, when it is not AWS"),
    TEXT("region", region, NULL, "NAME", "S3: region of the bucket"),
    TEXT(
        "profile", profile, NULL, "NAME", "S3: profile in the shared config and credentials files"),
    TEXT("ca_file", ca_file, NULL, "FILE", "S3: certificates to trust instead of the system's"),
    FLAG("virtual_host", virtual_host, NULL, "S3: put the bucket into the host name of requests"),
    FLAG("create", create, NULL, "make the volume when there is none yet"),
    FLAG("ro", read_only, NULL, "mount read-only; takes no claim to the volume"),
    TEXT("at", at, NULL, "GENERATION|SNAPSHOT|TIME",
        "mount this published generation, or the newest that is not younger than TIME, read-only"),
    FLAG("takeover", takeover, NULL, "take the volume away from the host that has it"),
    FLAG("discard_unpublished", discard_unpublished, NULL,
        "give up local changes that are not in the store and cannot get there any more"),
    FLAG("unsafe_store", unsafe_store, NULL,
        "accept a store without conditional writes, which does not keep two hosts apart"),
    VALUE("checkpoint_interval", CONFIG_DURATION, checkpoint_interval_ms, 0, 7 * DAY, "60s", "TIME",
        "time between checkpoints; 0: only on demand, under pressure and at unmount"),
    VALUE("merge_interval", CONFIG_DURATION, merge_interval_ms, 0, 7 * DAY, "60s", "TIME",
        "time between looks for chunks and packs to be written again; 0: never"),
    VALUE("wal_limit", CONFIG_BYTES, wal_limit_bytes, 16 * MIB, TIB, "1G", "SIZE",
        "largest size of the write-ahead log; writers wait at the limit"),
    VALUE("page_cache", CONFIG_BYTES, page_cache_bytes, 8 * MIB, TIB, "64M", "SIZE",
        "memory for pages of files"),
    VALUE("quota", CONFIG_BYTES, quota_bytes, 0, 1024 * TIB, "0", "SIZE",
        "disk space that the volume may take in the storage root; 0: as much as there is"),
    VALUE("tenant_quota", CONFIG_BYTES, tenant_quota_bytes, 0, 1024 * TIB, "0", "SIZE",
        "disk space for all volumes of the tenant in the storage root; 0: leave it as it was set"),
    VALUE("root_quota", CONFIG_BYTES, root_quota_bytes, 0, 1024 * TIB, "0", "SIZE",
        "disk space for all volumes in the storage root together; 0: leave it as it was set"),
    VALUE("job_quota", CONFIG_NUMBER, job_quota, 1, 100, "75", "PERCENT",
        "part of each quota that jobs may fill with copies of what is in the store"),
    VALUE("upload_threads", CONFIG_NUMBER, upload_threads, 1, 16, "4", "N",
        "uploads to the store at the same time"),
    VALUE("read_limit", CONFIG_BYTES, read_limit_bytes, 0, TIB, "0", "SIZE",
        "bytes of files to read from the store in a second; 0: no limit"),
    VALUE("read_requests", CONFIG_NUMBER, read_requests, 0, 1024, "0", "N",
        "requests for bytes of files in the store at the same time; 0: no limit"),
    VALUE("upload_limit", CONFIG_BYTES, upload_limit_bytes, 0, TIB, "0", "SIZE",
        "bytes to upload to the store in a second; 0: no limit"),
    VALUE("tenant_read_limit", CONFIG_BYTES, tenant_read_limit_bytes, 0, TIB, "0", "SIZE",
        "bytes of files a second for all mounts of the tenant in the storage root; 0: leave it"),
    VALUE("tenant_read_requests", CONFIG_NUMBER, tenant_read_requests, 0, 1024, "0", "N",
        "requests for them at the same time, of all those mounts; 0: leave it as it was set"),
    FLAG("hedge_reads", hedge_reads, NULL,
        "ask the store again when a read takes longer than 19 of 20 did"),
    FLAG("hot_set", hot_set, "on",
        "publish which parts of files are in use, and fetch them first when the volume is "
        "restored"),
    VALUE("lease_ttl", CONFIG_DURATION, lease_ttl_ms, 3 * SECOND, HOUR, "60s", "TIME",
        "a claim to the volume is void when it was not renewed for this time"),
    VALUE("read_deadline", CONFIG_DURATION, read_deadline_ms, 100, HOUR, "30s", "TIME",
        "reads that need the store fail (EIO) when it does not answer for this time"),
    VALUE("unmount_timeout", CONFIG_DURATION, unmount_timeout_ms, 0, DAY, "60s", "TIME",
        "longest wait for the last upload at the end of the mount"),
    FLAG("writeback", writeback, "on", "let the kernel gather writes (its write-back cache)"),
    VALUE("fuse_threads", CONFIG_NUMBER, fuse_threads, 1, 256, "16", "N",
        "requests of the kernel served at the same time"),
    TEXT("log_file", log_file, NULL, "FILE",
        "append the log to this file, besides the system log (with -f: stderr)"),
    TEXT("log_level", log_level, "info", "LEVEL", "debug, info, warning or error"),
};
const size_t volume_config_count = ARRAY_LENGTH(volume_config_table);

static const char *const log_levels[] = {"debug", "info", "warning", "error"};

struct unit {
    const char *name;
    uint64_t factor;
};
// The first entry is the unit of a bare number.
static const struct unit byte_units[] = {
    {"", 1}, {"K", KIB}, {"M", MIB}, {"G", KIB *MIB}, {"T", TIB}, {NULL, 0}};
static const struct unit time_units[] = {
    {"", SECOND}, {"ms", 1}, {"s", SECOND}, {"m", MINUTE}, {"h", HOUR}, {NULL, 0}};
static const struct unit no_units[] = {{"", 1}, {NULL, 0}};

static const struct unit *
units_of(enum config_type type)
{
    switch (type) {
    case CONFIG_BYTES:
        return byte_units;
    case CONFIG_DURATION:
        return time_units;
    default:
        return no_units;
    }
}

static void *
field_of(struct volume_config *c, const struct config_entry *e)
{
    return (char *)c + e->offset;
}

// Digits and a unit, nothing else.
static bool
parse_number(const char *text, const struct unit *units, uint64_t *value_out)
{
    uint64_t value = 0;
    const char *p = text;
    *value_out = 0;
    for (; *p >= '0' && *p <= '9'; p++)
        if (__builtin_mul_overflow(value, 10, &value) ||
            __builtin_add_overflow(value, (uint64_t)(*p - '0'), &value))
            return false;
    if (p == text)
        return false;
    for (; units->name; units++)
        if (strcmp(p, units->name) == 0)
            return !__builtin_mul_overflow(value, units->factor, value_out);
    return false;
}

// The value as a person would write it: with the largest unit that divides it.
static void
append_number(struct buffer *out, uint64_t value, const struct unit *units)
{
    const struct unit *best = NULL;
    for (const struct unit *u = units; u->name; u++)
        if (value % u->factor == 0 && (u->name[0] != '\0' || units == no_units) &&
            (!best || u->factor > best->factor) && (value != 0 || u->factor == units->factor))
            best = u;
    if (best)
        buffer_printf(out, "%" PRIu64 "%s", value / best->factor, best->name);
    else
        buffer_printf(out, "%" PRIu64, value);
}

static const char *
what_is_right(enum config_type type)
{
    switch (type) {
    case CONFIG_BYTES:
        return "a size such as 512M (units K, M, G, T)";
    case CONFIG_DURATION:
        return "a time such as 30s (units ms, s, m, h)";
    case CONFIG_FLAG:
        return "on or off";
    default:
        return "a number";
    }
}

static int
refuse(struct buffer *error, const struct config_entry *e, const char *value)
{
    buffer_printf(
        error, "option %s: '%s' is not right; give %s", e->name, value, what_is_right(e->type));
    if (e->minimum < e->maximum && e->type != CONFIG_FLAG) {
        buffer_append_string(error, " from ");
        append_number(error, e->minimum, units_of(e->type));
        if (e->maximum != UINT64_MAX) {
            buffer_append_string(error, " to ");
            append_number(error, e->maximum, units_of(e->type));
        }
    }
    return -EINVAL;
}

static int
set_number(
    struct volume_config *c, const struct config_entry *e, const char *value, struct buffer *error)
{
    uint64_t number;
    if (!parse_number(value, units_of(e->type), &number) || number < e->minimum ||
        number > e->maximum)
        return refuse(error, e, value);
    memcpy(field_of(c, e), &number, sizeof(number));
    return 0;
}

static int
set_flag(
    struct volume_config *c, const struct config_entry *e, const char *value, struct buffer *error)
{
    bool on = strcmp(value, "on") == 0;
    if (!on && strcmp(value, "off") != 0)
        return refuse(error, e, value);
    memcpy(field_of(c, e), &on, sizeof(on));
    return 0;
}

static int
set_text(
    struct volume_config *c, const struct config_entry *e, const char *value, struct buffer *error)
{
    if (value[0] == '\0') {
        buffer_printf(
            error, "option %s: the value is empty; give %s=%s", e->name, e->name, e->argument);
        return -EINVAL;
    }
    if (e->offset == offsetof(struct volume_config, log_level)) {
        bool known = false;
        for (size_t i = 0; i < ARRAY_LENGTH(log_levels); i++)
            known = known || strcmp(value, log_levels[i]) == 0;
        if (!known) {
            buffer_printf(error,
                "option log_level: '%s' is not right; give debug, info, warning or error", value);
            return -EINVAL;
        }
    }
    char **field = field_of(c, e);
    free(*field);
    *field = memory_string(value);
    return 0;
}

static int
set_value(
    struct volume_config *c, const struct config_entry *e, const char *value, struct buffer *error)
{
    int rc;
    if (e->type == CONFIG_FLAG)
        rc = set_flag(c, e, value ? value : "on", error);
    else if (!value) {
        buffer_printf(error, "option %s needs a value: %s=%s", e->name, e->name, e->argument);
        rc = -EINVAL;
    } else if (e->type == CONFIG_TEXT)
        rc = set_text(c, e, value, error);
    else
        rc = set_number(c, e, value, error);
    if (rc == 0 && c->at && strspn(c->at, "0") == strlen(c->at)) {
        buffer_printf(error,
            "option at: '%s' is no generation, snapshot or time; generations count from 1", c->at);
        free(c->at);
        c->at = NULL;
        rc = -EINVAL;
    }
    // An old generation can only be read, in any order of the options.
    if (c->at)
        c->read_only = true;
    return rc;
}

static const struct config_entry *
find_entry(const char *name, size_t length)
{
    for (size_t i = 0; i < volume_config_count; i++) {
        const char *candidate = volume_config_table[i].name;
        if (strlen(candidate) == length && memcmp(candidate, name, length) == 0)
            return &volume_config_table[i];
    }
    return NULL;
}

int
volume_config_set(struct volume_config *c, const char *option, struct buffer *error)
{
    const char *equals = strchr(option, '=');
    size_t length = equals ? (size_t)(equals - option) : strlen(option);
    const struct config_entry *e = find_entry(option, length);
    if (e)
        return set_value(c, e, equals ? equals + 1 : NULL, error);
    if (length <= 3 || strncmp(option, "no_", 3) != 0)
        return -ENOENT;
    e = find_entry(option + 3, length - 3);
    if (!e || e->type != CONFIG_FLAG)
        return -ENOENT;
    if (equals) {
        buffer_printf(
            error, "option no_%s takes no value; give no_%s or %s=off", e->name, e->name, e->name);
        return -EINVAL;
    }
    return set_value(c, e, "off", error);
}

static char *
default_root(void)
{
    if (geteuid() == 0)
        return memory_string("/var/lib/ckptfs");
    const char *state = getenv("XDG_STATE_HOME");
    if (state && state[0] == '/')
        return memory_printf("%s/ckptfs", state);
    const char *home = getenv("HOME");
    return memory_printf("%s/.local/state/ckptfs", home && home[0] == '/' ? home : "");
}

void
volume_config_init(struct volume_config *c)
{
    *c = (struct volume_config){.root = default_root()};
    for (size_t i = 0; i < volume_config_count; i++) {
        const struct config_entry *e = &volume_config_table[i];
        BUFFER_AUTO error = {0};
        if (e->fallback && set_value(c, e, e->fallback, &error) != 0)
            abort();
    }
}

void
volume_config_free(struct volume_config *c)
{
    for (size_t i = 0; i < volume_config_count; i++)
        if (volume_config_table[i].type == CONFIG_TEXT)
            free(*(char **)field_of(c, &volume_config_table[i]));
    free(c->source);
    *c = (struct volume_config){0};
}

static int
check_quota(const char *name, uint64_t bytes, struct buffer *error)
{
    if (bytes == 0 || bytes >= QUOTA_LIMIT_MIN)
        return 0;
    buffer_printf(error,
        "%s: a volume needs at least 64M for its log and its checkpoints; give more, or 0 for no "
        "limit",
        name);
    return -EINVAL;
}

int
volume_config_parse_quota(
    const char *name, const char *text, uint64_t *bytes_out, struct buffer *error)
{
    if (!parse_number(text, byte_units, bytes_out)) {
        buffer_printf(
            error, "%s: '%s' is not right; give %s", name, text, what_is_right(CONFIG_BYTES));
        return -EINVAL;
    }
    return check_quota(name, *bytes_out, error);
}

static int
check_rate(const char *name, uint64_t bytes, struct buffer *error)
{
    if (bytes == 0 || bytes >= LIMITER_RATE_MIN)
        return 0;
    buffer_printf(error, "%s: at least 64K a second, or 0 for no limit", name);
    return -EINVAL;
}

int
volume_config_parse_rate(
    const char *name, const char *text, uint64_t *bytes_out, struct buffer *error)
{
    if (parse_number(text, byte_units, bytes_out))
        return check_rate(name, *bytes_out, error);
    buffer_printf(error, "%s: '%s' is not right; give %s", name, text, what_is_right(CONFIG_BYTES));
    return -EINVAL;
}

int
volume_config_check(const struct volume_config *c, struct buffer *error)
{
    struct store_url url;
    int rc = store_url_parse(c->source, &url);
    store_url_free(&url);
    if (rc < 0) {
        buffer_append_string(error, remote_store_error());
        return -EINVAL;
    }
    rc = check_quota("option quota", c->quota_bytes, error);
    if (rc == 0)
        rc = check_quota("option tenant_quota", c->tenant_quota_bytes, error);
    if (rc == 0)
        rc = check_quota("option root_quota", c->root_quota_bytes, error);
    if (rc == 0)
        rc = check_rate("option read_limit", c->read_limit_bytes, error);
    if (rc == 0)
        rc = check_rate("option upload_limit", c->upload_limit_bytes, error);
    if (rc == 0)
        rc = check_rate("option tenant_read_limit", c->tenant_read_limit_bytes, error);
    if (rc < 0)
        return rc;
    const char *reads = c->at ? "at=" : c->read_only ? "ro" : NULL;
    const char *writes = c->create                ? "create"
                         : c->takeover            ? "takeover"
                         : c->discard_unpublished ? "discard_unpublished"
                                                  : NULL;
    if (reads && writes) {
        buffer_printf(error,
            "options %s and %s contradict each other: a read-only mount neither makes nor claims "
            "a volume",
            reads, writes);
        return -EINVAL;
    }
    return 0;
}

const char *
volume_config_similar(const char *option)
{
    char name[64];
    size_t n = strcspn(option, "=");
    if (n >= sizeof(name))
        return NULL;
    memcpy(name, option, n);
    name[n] = '\0';
    const char *word = strncmp(name, "no_", 3) == 0 ? name + 3 : name;
    const char *best = NULL;
    for (size_t i = 0; i < volume_config_count; i++)
        best = similar_word(word, volume_config_table[i].name, best);
    return best;
}

void
volume_config_help(struct buffer *out)
{
    for (size_t i = 0; i < volume_config_count; i++) {
        const struct config_entry *e = &volume_config_table[i];
        BUFFER_AUTO name = {0};
        buffer_printf(
            &name, "%s%s%s", e->name, e->argument ? "=" : "", e->argument ? e->argument : "");
        buffer_printf(out, "    -o %-25s %s", buffer_string(&name), e->help);
        if (e->fallback)
            buffer_printf(out, " (default %s)", e->fallback);
        buffer_append_u8(out, '\n');
    }
}

void
volume_config_copy(struct volume_config *to, const struct volume_config *from)
{
    *to = *from;
    to->source = from->source ? memory_string(from->source) : NULL;
    for (size_t i = 0; i < volume_config_count; i++) {
        if (volume_config_table[i].type != CONFIG_TEXT)
            continue;
        char **text = (char **)((char *)to + volume_config_table[i].offset);
        *text = *text ? memory_string(*text) : NULL;
    }
}
