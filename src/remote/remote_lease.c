// SPDX-License-Identifier: Apache-2.0
// The lease object: five lines that people can read.
//
//     ckptfs lease 1
//     writer 0f8fad5b-d9cb-469f-a165-70867728950e
//     host db7.example.net
//     epoch 12
//     ttl_ms 60000
//     released no
//
// It only keeps polite writers away from a live owner. So a lease that cannot be read is taken for
// a live owner's until it is old.
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/checksum.h"
#include "platform/clock.h"
#include "platform/log.h"
#include "platform/random.h"
#include "remote/remote_internal.h"

// ---- the text -----------------------------------------------------------------------------------

// The next line: a name in small letters and `_`, a blank, and a value.
static bool
next_line(const char **text, const char *end, const char **name, size_t *name_length,
    const char **value, size_t *length)
{
    const char *newline = memchr(*text, '\n', (size_t)(end - *text));
    const char *p = *text;
    while (newline && p < newline && ((*p >= 'a' && *p <= 'z') || *p == '_'))
        p++;
    if (!newline || p == *text || p == newline || *p != ' ')
        return false;
    *name = *text;
    *name_length = (size_t)(p - *text);
    *value = p + 1;
    *length = (size_t)(newline - *value);
    *text = newline + 1;
    return true;
}

// The value of the next line called `name`. Lines before it have other names: later versions may
// have more to say.
static bool
take_line(const char **text, const char *end, const char *name, const char **value, size_t *length)
{
    const char *found;
    size_t n;
    while (next_line(text, end, &found, &n, value, length))
        if (n == strlen(name) && memcmp(found, name, n) == 0)
            return true;
    return false;
}

static bool
parse_number(const char *text, size_t length, uint64_t *number_out)
{
    uint64_t v = 0;
    if (length == 0 || (length > 1 && text[0] == '0'))
        return false;
    for (size_t i = 0; i < length; i++) {
        if (text[i] < '0' || text[i] > '9')
            return false;
        if (__builtin_mul_overflow(v, 10, &v) ||
            __builtin_add_overflow(v, (uint64_t)(text[i] - '0'), &v))
            return false;
    }
    *number_out = v;
    return true;
}

static bool
parse_host(const char *text, size_t length, char host_out[64])
{
    if (length == 0 || length > 63)
        return false;
    for (size_t i = 0; i < length; i++)
        if (text[i] <= ' ' || text[i] >= 0x7f)
            return false;
    memcpy(host_out, text, length);
    host_out[length] = '\0';
    return true;
}

static bool
parse_lease(const char *text, size_t length, struct remote_lease *lease)
{
    const char *end = text + length, *value;
    size_t n;
    static const char first[] = "ckptfs lease 1\n";
    if (length < sizeof(first) - 1 || memcmp(text, first, sizeof(first) - 1) != 0)
        return false;
    text += sizeof(first) - 1;
    if (!take_line(&text, end, "writer", &value, &n) ||
        !remote_uuid_parse(value, n, &lease->writer))
        return false;
    if (!take_line(&text, end, "host", &value, &n) || !parse_host(value, n, lease->host))
        return false;
    if (!take_line(&text, end, "epoch", &value, &n) || !parse_number(value, n, &lease->epoch))
        return false;
    if (!take_line(&text, end, "ttl_ms", &value, &n) || !parse_number(value, n, &lease->ttl_ms) ||
        lease->ttl_ms > REMOTE_LEASE_TTL_MAX_MS)
        return false;
    if (!take_line(&text, end, "released", &value, &n))
        return false;
    lease->released = n == 3 && memcmp(value, "yes", 3) == 0;
    if (!lease->released && (n != 2 || memcmp(value, "no", 2) != 0))
        return false;
    const char *name;
    size_t name_length;
    while (text < end)
        if (!next_line(&text, end, &name, &name_length, &value, &n))
            return false;
    return true;
}

// ---- reading ------------------------------------------------------------------------------------

uint64_t
remote_age_ms(const struct remote_head *head)
{
    int64_t now = (int64_t)clock_wall_ms() + head->clock_skew_ms;
    // A time in the future counts as just now.
    return now > (int64_t)head->modified_ms ? (uint64_t)(now - (int64_t)head->modified_ms) : 0;
}

int
remote_lease_read(const struct remote_place *place, uint64_t epoch, struct remote_lease *lease_out)
{
    *lease_out = (struct remote_lease){.ttl_ms = REMOTE_LEASE_DEFAULT_TTL_MS};
    BUFFER_AUTO name = {0};
    BUFFER_AUTO text = {0};
    remote_key(place, REMOTE_LEASE, epoch, &name);
    const char *key = buffer_string(&name);
    struct remote_call call = remote_call_of(place, 0);
    int rc = remote_store_get_blob(place->store, key, 0, REMOTE_LEASE_BYTES_MAX + 1, &text, &call);
    if (rc == -ENOENT)
        return rc;
    // Some stores refuse to read a range of an empty object. The body only says more about the
    // owner; without it the age has to do.
    if (rc < 0 && rc != -EIO && rc != -EBADMSG)
        return remote_log_failure("remote.get_failed", key, rc);
    // The age is asked for after the body, so that a renewal in between makes the lease younger and
    // never older than it is.
    struct remote_head head;
    call = remote_call_of(place, 0);
    int head_rc = remote_store_head_blob(place->store, key, &head, &call);
    if (head_rc == -ENOENT)
        return head_rc;
    if (head_rc < 0)
        return remote_log_failure("remote.head_failed", key, head_rc);
    struct remote_lease lease = {0};
    if (rc == 0 && text.length <= REMOTE_LEASE_BYTES_MAX &&
        parse_lease(buffer_string(&text), text.length, &lease) && lease.epoch == epoch)
        *lease_out = lease;
    else
        log_warning("remote.lease_unreadable",
            "%s makes no sense; its owner is taken to be alive until it is old", key);
    lease_out->epoch = epoch;
    lease_out->age_ms = remote_age_ms(&head);
    return 0;
}

// ---- writing ------------------------------------------------------------------------------------

int
remote_lease_write(const struct remote_place *place, uint64_t epoch, uint64_t ttl_ms, bool released)
{
    char writer[37], host[64];
    uuid_to_string(&place->writer, writer);
    remote_host_name(host);
    BUFFER_AUTO name = {0};
    BUFFER_AUTO text = {0};
    remote_key(place, REMOTE_LEASE, epoch, &name);
    const char *key = buffer_string(&name);
    buffer_printf(&text,
        "ckptfs lease 1\nwriter %s\nhost %s\nepoch %" PRIu64 "\nttl_ms %" PRIu64 "\nreleased %s\n",
        writer, host, epoch, ttl_ms < REMOTE_LEASE_TTL_MAX_MS ? ttl_ms : REMOTE_LEASE_TTL_MAX_MS,
        released ? "yes" : "no");
    struct remote_source source = {.data = text.data, .length = text.length};
    sha256_of(text.data, text.length, &source.hash);
    struct remote_call call = remote_call_of(place, 0);
    int rc = remote_store_put_blob(place->store, key, &source, REMOTE_PUT_OVERWRITE, &call);
    return rc == 0 ? 0 : remote_log_failure("remote.lease_failed", key, rc);
}
