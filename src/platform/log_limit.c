// SPDX-License-Identifier: Apache-2.0
#include "platform/log_limit.h"

#include <stdio.h>
#include <string.h>

#include "base/compiler.h"

static uint64_t
hash_text(uint64_t hash, const char *text)
{
    for (; *text; text++)
        hash = (hash ^ (uint8_t)*text) * 0x100000001b3u; // FNV-1a
    return hash * 0x100000001b3u;
}

static uint64_t
hash_of(const char *event, const char *key)
{
    return hash_text(hash_text(0xcbf29ce484222325u, event), key);
}

static bool
has_ended(const struct log_limit_slot *s, uint64_t now_ms)
{
    return now_ms >= s->began_ms + LOG_LIMIT_WINDOW_MS;
}

static bool
is_free(const struct log_limit_slot *s, uint64_t now_ms)
{
    return s->event[0] == '\0' || (s->suppressed == 0 && has_ended(s, now_ms));
}

static void
fill(struct log_limit_slot *s, const char *event, const char *key, uint64_t hash, uint64_t now_ms)
{
    *s = (struct log_limit_slot){.hash = hash, .began_ms = now_ms};
    (void)snprintf(s->event, sizeof(s->event), "%s", event);
    (void)snprintf(s->key, sizeof(s->key), "%s", key);
}

// The slot with its window open; NULL when all are in use.
static struct log_limit_slot *
find(
    struct log_limit_slot *slots, size_t count, const char *event, const char *key, uint64_t now_ms)
{
    uint64_t hash = hash_of(event, key);
    struct log_limit_slot *free_slot = NULL;
    for (size_t i = 0; i < count; i++) {
        struct log_limit_slot *s = &slots[i];
        if (s->event[0] != '\0' && s->hash == hash) {
            // Lines that are not yet reported are counted in the next window.
            if (has_ended(s, now_ms)) {
                s->began_ms = now_ms;
                s->passed = 0;
            }
            return s;
        }
        if (!free_slot && is_free(s, now_ms))
            free_slot = s;
    }
    if (free_slot)
        fill(free_slot, event, key, hash, now_ms);
    return free_slot;
}

static bool
suppress(struct log_limit *l, struct log_limit_slot *s)
{
    uint64_t end_ms = s->began_ms + LOG_LIMIT_WINDOW_MS;
    if (l->next_ms == 0 || end_ms < l->next_ms)
        l->next_ms = end_ms;
    s->suppressed++;
    return false;
}

bool
log_limit_admit(struct log_limit *l, const char *event, const char *key, uint64_t now_ms)
{
    struct log_limit_slot *e = find(l->events, LOG_LIMIT_EVENTS, event, "", now_ms);
    struct log_limit_slot *k =
        key && key[0] ? find(l->keys, LOG_LIMIT_KEYS, event, key, now_ms) : NULL;
    if (k && k->passed >= LOG_LIMIT_KEY_LINES)
        return suppress(l, k);
    if (e && e->passed >= LOG_LIMIT_EVENT_LINES)
        return suppress(l, e);
    if (k)
        k->passed++;
    if (e)
        e->passed++;
    return true;
}

// ---- suppressed lines ---------------------------------------------------------------------------

static struct log_limit_slot *
first_to_end(struct log_limit_slot *slots, size_t count, struct log_limit_slot *first)
{
    for (size_t i = 0; i < count; i++)
        if (slots[i].suppressed > 0 && (!first || slots[i].began_ms < first->began_ms))
            first = &slots[i];
    return first;
}

static struct log_limit_slot *
next_to_end(struct log_limit *l)
{
    struct log_limit_slot *first = first_to_end(l->events, LOG_LIMIT_EVENTS, NULL);
    return first_to_end(l->keys, LOG_LIMIT_KEYS, first);
}

bool
log_limit_take_any(struct log_limit *l, struct log_limit_slot *ended_out)
{
    struct log_limit_slot *s = next_to_end(l);
    if (!s)
        return false;
    *ended_out = *s;
    memset(s, 0, sizeof(*s));
    s = next_to_end(l);
    l->next_ms = s ? s->began_ms + LOG_LIMIT_WINDOW_MS : 0;
    return true;
}

bool
log_limit_take(struct log_limit *l, uint64_t now_ms, struct log_limit_slot *ended_out)
{
    return l->next_ms != 0 && now_ms >= l->next_ms && log_limit_take_any(l, ended_out);
}
