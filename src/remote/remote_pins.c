// SPDX-License-Identifier: Apache-2.0
// Pins: objects beside the chain whose names say all that CheckpointGC has to know, so that a
// listing is enough. Their bodies are for people.
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "platform/log.h"
#include "platform/memory.h"
#include "platform/random.h"
#include "remote/remote_internal.h"
#include "remote/remote_retention.h"

static const char *const kind_names[] = {
    [PIN_SNAPSHOT] = "snapshot",
    [PIN_FORK] = "fork",
    [PIN_READER] = "reader",
};

const char *
pin_kind_name(enum pin_kind kind)
{
    return kind_names[kind];
}

bool
pin_name_is_valid(const char *name)
{
    static const char allowed[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
    size_t n = strlen(name);
    return n > 0 && n <= PIN_NAME_BYTES_MAX && name[0] != '.' && strspn(name, allowed) == n;
}

static void
pin_prefix(const struct remote_place *place, struct buffer *out)
{
    buffer_clear(out);
    buffer_printf(out, "pins/%s/%" PRIu32 "/", place->tenant, place->volume_number);
    (void)buffer_string(out);
}

static void
pin_key(const struct remote_place *place, const struct remote_pin *pin, struct buffer *out)
{
    pin_prefix(place, out);
    buffer_printf(out, "%016" PRIx64 "-%s-%s", pin->generation.v, kind_names[pin->kind], pin->name);
    (void)buffer_string(out);
}

// Parses the part of the key behind the prefix.
static bool
parse_pin(const char *text, struct remote_pin *pin_out)
{
    char digits[17] = {0};
    *pin_out = (struct remote_pin){0};
    if (strlen(text) < 18 || text[16] != '-')
        return false;
    memcpy(digits, text, 16);
    if (!remote_key_number(digits, "", &pin_out->generation.v) || pin_out->generation.v == 0)
        return false;
    text += 17;
    for (enum pin_kind kind = PIN_SNAPSHOT; kind <= PIN_READER; kind++) {
        size_t n = strlen(kind_names[kind]);
        if (strncmp(text, kind_names[kind], n) != 0 || text[n] != '-')
            continue;
        if (!pin_name_is_valid(text + n + 1))
            return false;
        pin_out->kind = kind;
        memcpy(pin_out->name, text + n + 1, strlen(text + n + 1));
        return true;
    }
    return false;
}

int
remote_pin_put(const struct remote_place *place, const struct remote_pin *pin)
{
    BUFFER_AUTO name = {0};
    BUFFER_AUTO text = {0};
    char host[64];
    remote_host_name(host);
    pin_key(place, pin, &name);
    buffer_printf(&text, "ckptfs pin 1\nkind %s\ngeneration %" PRIu64 "\nname %s\nhost %s\n",
        kind_names[pin->kind], pin->generation.v, pin->name, host);
    if (pin->holder)
        buffer_printf(&text, "holder %s\n", pin->holder);
    return remote_small_put(place, buffer_string(&name), text.data, text.length);
}

int
remote_pin_delete(const struct remote_place *place, const struct remote_pin *pin)
{
    BUFFER_AUTO name = {0};
    pin_key(place, pin, &name);
    return remote_small_delete(place, buffer_string(&name));
}

// The rest of the first line that begins with `word` and a blank.
static bool
copy_line(const char *text, const char *word, struct buffer *out)
{
    size_t n = strlen(word);
    for (const char *line = text; line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, word, n) != 0 || line[n] != ' ')
            continue;
        buffer_append(out, line + n + 1, strcspn(line + n + 1, "\n"));
        return true;
    }
    return false;
}

int
remote_pin_holder(
    const struct remote_place *place, const struct remote_pin *pin, struct buffer *holder_out)
{
    BUFFER_AUTO name = {0};
    BUFFER_AUTO text = {0};
    pin_key(place, pin, &name);
    const char *key = buffer_string(&name);
    struct remote_call call = remote_call_of(place, 0);
    int rc = remote_store_get_blob(place->store, key, 0, REMOTE_HEADER_BYTES, &text, &call);
    if (rc < 0)
        return rc == -ENOENT ? rc : remote_log_failure("remote.get_failed", key, rc);
    const char *body = buffer_string(&text);
    if (!copy_line(body, "holder", holder_out) && !copy_line(body, "host", holder_out))
        buffer_append_string(holder_out, "unknown");
    return 0;
}

int
remote_pin_age(const struct remote_place *place, const struct remote_pin *pin, uint64_t *age_ms_out)
{
    BUFFER_AUTO name = {0};
    pin_key(place, pin, &name);
    const char *key = buffer_string(&name);
    struct remote_head head;
    struct remote_call call = remote_call_of(place, 0);
    int rc = remote_store_head_blob(place->store, key, &head, &call);
    if (rc == 0)
        *age_ms_out = remote_age_ms(&head);
    return rc < 0 && rc != -ENOENT ? remote_log_failure("remote.head_failed", key, rc) : rc;
}

void
remote_pins_free(struct remote_pins *p)
{
    free(p->pins);
    *p = (struct remote_pins){0};
}

int
remote_pins_read(const struct remote_place *place, struct remote_pins *pins_out)
{
    BUFFER_AUTO prefix = {0};
    struct remote_walk walk;
    const struct remote_listing_entry *entry;
    const char *name;
    size_t capacity = 0;
    int rc;
    *pins_out = (struct remote_pins){0};
    pin_prefix(place, &prefix);
    remote_walk_begin_prefix(&walk, place, buffer_string(&prefix));
    while ((rc = remote_walk_next_entry(&walk, &entry, &name)) > 0) {
        struct remote_pin pin;
        if (!parse_pin(name, &pin)) {
            rc = remote_log_bad(entry->key, "it lies among the pins and is none; it may keep any "
                                            "generation, so nothing is deleted");
            break;
        }
        if (pins_out->count == capacity) {
            capacity = capacity ? capacity * 2 : 64;
            pins_out->pins = memory_realloc(pins_out->pins, capacity * sizeof(pin));
        }
        pins_out->pins[pins_out->count++] = pin;
    }
    remote_walk_end(&walk);
    if (rc < 0)
        remote_pins_free(pins_out);
    return rc;
}

bool
remote_pin_is_made(const struct remote_pin *pin)
{
    size_t n = strlen(pin->name);
    size_t ending = strlen(PIN_MADE_ENDING);
    return pin->kind == PIN_FORK && n > ending &&
           strcmp(pin->name + n - ending, PIN_MADE_ENDING) == 0;
}

struct remote_pin
remote_pin_of_made(const struct remote_pin *first)
{
    struct remote_pin made = *first;
    snprintf(made.name, sizeof(made.name), "%.*s%s",
        (int)(PIN_NAME_BYTES_MAX - strlen(PIN_MADE_ENDING)), first->name, PIN_MADE_ENDING);
    return made;
}

static bool
ends_with(const char *text, const char *ending, const char *more)
{
    size_t n = strlen(text);
    size_t m = strlen(ending);
    size_t k = strlen(more);
    return n >= m + k && memcmp(text + n - m - k, ending, m) == 0 &&
           strcmp(text + n - k, more) == 0;
}

int
remote_pins_release(
    const struct remote_place *place, const struct uuid *fork, uint64_t *released_out)
{
    struct remote_walk walk;
    const struct remote_listing_entry *entry;
    const char *name;
    char id[37];
    BUFFER_AUTO end = {0};
    int rc;
    *released_out = 0;
    uuid_to_string(fork, id);
    buffer_printf(&end, "-%s-%s", kind_names[PIN_FORK], id);
    const char *suffix = buffer_string(&end);
    remote_walk_begin_prefix(&walk, place, "pins/");
    while ((rc = remote_walk_next_entry(&walk, &entry, &name)) > 0) {
        if (!ends_with(name, suffix, "") && !ends_with(name, suffix, PIN_MADE_ENDING))
            continue;
        rc = remote_small_delete(place, entry->key);
        if (rc < 0)
            break;
        ++*released_out;
    }
    remote_walk_end(&walk);
    return rc;
}
