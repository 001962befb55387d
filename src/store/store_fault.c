// SPDX-License-Identifier: Apache-2.0
// A store that fails on demand: rules for tests in the same process, a script for a running daemon.
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/checksum.h"
#include "base/list.h"
#include "platform/clock.h"
#include "platform/file.h"
#include "platform/lock.h"
#include "platform/memory.h"
#include "store/remote_store_backends.h"
#include "store/store_internal.h"

#define SCRIPT_MAX_BYTES 4096
#define SLEEP_SLICE_MS   20
#define VERB_COUNT       (STORE_VERB_PROBE + 1)

static const char *const verb_names[VERB_COUNT] = {
    "call", "put", "get", "head", "list", "delete", "probe"};

struct rule {
    struct list_node node;
    struct store_fault fault;
    uint64_t seen; // calls that matched
};

struct fault_store {
    struct remote_store base;
    struct remote_store *inner;
    char *script;
    int trace_fd; // -1: none

    // Protects all below.
    struct lock lock;
    struct list_node rules;
    bool outage;
    uint64_t calls[VERB_COUNT];
    // What the script says about single calls, and how many there were since it says so.
    uint64_t fail_at, refuse_at, lose_at;
    uint64_t scripted_calls, scripted_writes;
};

// The fault for one call.
struct verdict {
    bool swallow;
    bool lose; // the same for good, by the script
    bool corrupt;
};

static struct fault_store *
fault_store_of(struct remote_store *s)
{
    return CONTAINER_OF(s, struct fault_store, base);
}

// ---- the script ---------------------------------------------------------------------------------

struct script {
    uint64_t slow_ms;
    char slow_prefix[64];
    bool outage;
    uint64_t fail_at, refuse_at, lose_at; // 0: none
};

static void
read_slow(const char *text, struct script *script_out)
{
    char *end;
    script_out->slow_ms = strtoull(text, &end, 10);
    if (*end == ' ')
        snprintf(script_out->slow_prefix, sizeof(script_out->slow_prefix), "%s", end + 1);
}

static bool
is_slow(const struct script *s, const char *key, uint64_t waited_ms)
{
    return waited_ms < s->slow_ms &&
           (!key || strncmp(key, s->slow_prefix, strlen(s->slow_prefix)) == 0);
}

static void
read_script(const struct fault_store *fs, struct script *script_out)
{
    BUFFER_AUTO text = {0};
    *script_out = (struct script){0};
    if (!fs->script || file_read_whole(fs->script, SCRIPT_MAX_BYTES, &text) < 0)
        return;
    buffer_string(&text);
    char *rest = (char *)text.data;
    for (char *line; (line = strsep(&rest, "\n"));) {
        if (strcmp(line, "outage") == 0)
            script_out->outage = true;
        if (strncmp(line, "slow ", 5) == 0)
            read_slow(line + 5, script_out);
        if (strncmp(line, "fail ", 5) == 0)
            script_out->fail_at = strtoull(line + 5, NULL, 10);
        if (strncmp(line, "refuse ", 7) == 0)
            script_out->refuse_at = strtoull(line + 7, NULL, 10);
        if (strncmp(line, "lose ", 5) == 0)
            script_out->lose_at = strtoull(line + 5, NULL, 10);
    }
}

// Counts the call; whether it fails. The numbers begin anew when the script says others.
static bool
count_scripted(struct fault_store *fs, const struct script *script, enum store_verb verb,
    struct verdict *v_out)
{
    bool writes = verb == STORE_VERB_PUT || verb == STORE_VERB_DELETE;
    lock_take(&fs->lock);
    if (script->fail_at != fs->fail_at || script->refuse_at != fs->refuse_at ||
        script->lose_at != fs->lose_at) {
        fs->fail_at = script->fail_at;
        fs->refuse_at = script->refuse_at;
        fs->lose_at = script->lose_at;
        fs->scripted_calls = fs->scripted_writes = 0;
    }
    bool fails = ++fs->scripted_calls == fs->fail_at;
    fs->scripted_writes += writes;
    v_out->lose = writes && fs->scripted_writes == fs->lose_at;
    fails |= writes && fs->scripted_writes == fs->refuse_at;
    lock_release(&fs->lock);
    return fails;
}

// A call that waits sees at once when the script changes.
static int
obey_script(struct fault_store *fs, enum store_verb by, const char *key,
    const struct remote_call *call, struct verdict *v_out)
{
    const char *verb = verb_names[by];
    struct script script;
    uint64_t began = clock_monotonic_ms();
    for (;;) {
        read_script(fs, &script);
        uint64_t waited = clock_monotonic_ms() - began;
        if (!is_slow(&script, key, waited))
            break;
        int rc = store_check_call(call, verb, key);
        if (rc < 0)
            return rc;
        uint64_t left = script.slow_ms - waited;
        clock_sleep_ms(left < SLEEP_SLICE_MS ? left : SLEEP_SLICE_MS);
    }
    if (script.outage)
        return store_fail(-EAGAIN, "%s %s: outage by CKPTFS_STORE_FAULTS", verb, key);
    if (count_scripted(fs, &script, by, v_out))
        return store_fail(-ETIMEDOUT, "%s %s: failed by CKPTFS_STORE_FAULTS", verb, key);
    return 0;
}

// ---- the rules ----------------------------------------------------------------------------------

static bool
rule_matches(const struct rule *r, enum store_verb verb, const char *key)
{
    const struct store_fault *f = &r->fault;
    if (f->verb != STORE_VERB_ANY && f->verb != verb)
        return false;
    return !f->key_prefix || strncmp(key, f->key_prefix, strlen(f->key_prefix)) == 0;
}

static bool
rule_is_due(const struct rule *r)
{
    uint64_t first = r->fault.nth ? r->fault.nth : 1;
    return r->seen >= first && (r->fault.times == 0 || r->seen - first < r->fault.times);
}

static int
judge_locked(struct fault_store *fs, enum store_verb verb, const char *key, struct verdict *v_out)
{
    int error = 0;
    fs->calls[STORE_VERB_ANY]++;
    fs->calls[verb]++;
    LIST_FOR_EACH(&fs->rules, node)
    {
        struct rule *r = CONTAINER_OF(node, struct rule, node);
        if (!rule_matches(r, verb, key))
            continue;
        r->seen++;
        if (!rule_is_due(r))
            continue;
        v_out->swallow |= r->fault.kind == STORE_FAULT_SWALLOW;
        v_out->corrupt |= r->fault.kind == STORE_FAULT_CORRUPT;
        if (r->fault.kind == STORE_FAULT_FAIL && error == 0)
            error = r->fault.error;
    }
    return fs->outage ? -EAGAIN : error;
}

// Decides about one call: 0 to let it through, with *v_out.
static int
judge(struct fault_store *fs, enum store_verb verb, const char *key, const struct remote_call *call,
    struct verdict *v_out)
{
    *v_out = (struct verdict){0};
    lock_take(&fs->lock);
    int rc = judge_locked(fs, verb, key, v_out);
    lock_release(&fs->lock);
    if (rc < 0)
        return store_count_result(&fs->base,
            store_fail(rc, "%s %s: injected fault: %s", verb_names[verb], key, strerror(-rc)));
    return store_count_result(&fs->base, obey_script(fs, verb, key, call, v_out));
}

// The end of a call that was let through.
static int
finish(struct verdict v, enum store_verb verb, const char *key, int rc)
{
    if (rc == 0 && v.swallow)
        return store_fail(
            -EAGAIN, "%s %s: injected fault: the answer was lost", verb_names[verb], key);
    if (rc == 0 && v.lose)
        return store_fail(
            -ETIMEDOUT, "%s %s: answer lost by CKPTFS_STORE_FAULTS", verb_names[verb], key);
    return rc;
}

// ---- the trace ----------------------------------------------------------------------------------

// One write, which no other process's write divides.
static void
trace(const struct fault_store *fs, const char *what, const char *const *keys, size_t count)
{
    BUFFER_AUTO lines = {0};
    if (fs->trace_fd < 0)
        return;
    for (size_t i = 0; i < count; i++)
        buffer_printf(&lines, "%s %s\n", what, keys[i]);
    ssize_t ignored UNUSED = write(fs->trace_fd, lines.data, lines.length);
}

int
fault_store_trace(struct remote_store *s, const char *path)
{
    struct fault_store *fs = fault_store_of(s);
    fs->trace_fd =
        file_open(&file_ops_system, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    return fs->trace_fd < 0 ? fs->trace_fd : 0;
}

// ---- the calls ----------------------------------------------------------------------------------

static int
put_corrupted(struct fault_store *fs, const char *key, const struct remote_source *source,
    enum remote_put_mode mode, const struct remote_call *call)
{
    CLEANUP(memory_free_auto) uint8_t *bytes = memory_alloc(source->length);
    int rc = store_source_read(source, 0, bytes, source->length);
    if (rc < 0)
        return rc;
    if (source->length > 0)
        bytes[source->length / 2] ^= 1;
    struct remote_source bad = {.data = bytes, .fd = -1, .length = source->length};
    sha256_of(bytes, source->length, &bad.hash);
    return remote_store_put_blob(fs->inner, key, &bad, mode, call);
}

static int
fault_put(struct remote_store *s, const char *key, const struct remote_source *source,
    enum remote_put_mode mode, const struct remote_call *call)
{
    struct fault_store *fs = fault_store_of(s);
    struct verdict v;
    int rc = judge(fs, STORE_VERB_PUT, key, call, &v);
    if (rc < 0)
        return rc;
    trace(fs, "put", &key, 1);
    rc = v.corrupt ? put_corrupted(fs, key, source, mode, call)
                   : remote_store_put_blob(fs->inner, key, source, mode, call);
    if (rc == 0)
        trace(fs, "PUT", &key, 1);
    return finish(v, STORE_VERB_PUT, key, rc);
}

static int
fault_get(struct remote_store *s, const char *key, uint64_t offset, uint64_t length,
    struct buffer *out, const struct remote_call *call)
{
    struct fault_store *fs = fault_store_of(s);
    struct verdict v;
    size_t before = out->length;
    int rc = judge(fs, STORE_VERB_GET, key, call, &v);
    if (rc < 0)
        return rc;
    rc = remote_store_get_blob(fs->inner, key, offset, length, out, call);
    if (rc == 0 && v.corrupt && out->length > before)
        out->data[before + (out->length - before) / 2] ^= 1;
    return finish(v, STORE_VERB_GET, key, rc);
}

static int
fault_head(struct remote_store *s, const char *key, struct remote_head *head_out,
    const struct remote_call *call)
{
    struct fault_store *fs = fault_store_of(s);
    struct verdict v;
    int rc = judge(fs, STORE_VERB_HEAD, key, call, &v);
    if (rc < 0)
        return rc;
    return finish(v, STORE_VERB_HEAD, key, remote_store_head_blob(fs->inner, key, head_out, call));
}

static int
fault_list(struct remote_store *s, const char *prefix, const char *after, size_t limit,
    struct remote_listing *listing_out, const struct remote_call *call)
{
    struct fault_store *fs = fault_store_of(s);
    struct verdict v;
    int rc = judge(fs, STORE_VERB_LIST, prefix, call, &v);
    if (rc < 0)
        return rc;
    rc = remote_store_list_blobs(fs->inner, prefix, after, limit, listing_out, call);
    return finish(v, STORE_VERB_LIST, prefix, rc);
}

static int
fault_delete(
    struct remote_store *s, const char *const *keys, size_t count, const struct remote_call *call)
{
    struct fault_store *fs = fault_store_of(s);
    struct verdict v;
    int rc = judge(fs, STORE_VERB_DELETE, keys[0], call, &v);
    if (rc < 0)
        return rc;
    trace(fs, "delete", keys, count);
    rc = remote_store_delete_blobs(fs->inner, keys, count, call);
    if (rc == 0)
        trace(fs, "DELETE", keys, count);
    return finish(v, STORE_VERB_DELETE, keys[0], rc);
}

static int
fault_sweep_uploads(struct remote_store *s, const char *prefix, uint64_t age_ms, bool dry_run,
    uint64_t *count_out, const struct remote_call *call)
{
    struct fault_store *fs = fault_store_of(s);
    struct verdict v;
    int rc = judge(fs, STORE_VERB_LIST, prefix, call, &v);
    if (rc < 0)
        return rc;
    rc = remote_store_sweep_uploads(fs->inner, prefix, age_ms, dry_run, count_out, call);
    return finish(v, STORE_VERB_LIST, prefix, rc);
}

static int
fault_probe(struct remote_store *s, const struct remote_call *call)
{
    struct fault_store *fs = fault_store_of(s);
    struct verdict v;
    int rc = judge(fs, STORE_VERB_PROBE, "", call, &v);
    if (rc < 0)
        return rc;
    return finish(v, STORE_VERB_PROBE, "", remote_store_probe(fs->inner, call));
}

static void
fault_close(struct remote_store *s)
{
    struct fault_store *fs = fault_store_of(s);
    fault_store_clear(s);
    remote_store_close(fs->inner);
    lock_destroy(&fs->lock);
    free(fs->script);
    if (fs->trace_fd >= 0)
        close(fs->trace_fd);
    free(fs);
}

static const struct remote_store_ops fault_store_ops = {
    .put_blob = fault_put,
    .get_blob = fault_get,
    .head_blob = fault_head,
    .list_blobs = fault_list,
    .delete_blobs = fault_delete,
    .sweep_uploads = fault_sweep_uploads,
    .probe = fault_probe,
    .close = fault_close,
};

// ---- control ------------------------------------------------------------------------------------

struct remote_store *
fault_store_wrap(struct remote_store *inner, const char *script)
{
    struct fault_store *fs = memory_alloc_zero(sizeof(*fs));
    fs->base.ops = &fault_store_ops;
    fs->base.list_page = inner->list_page;
    fs->inner = inner;
    fs->trace_fd = -1;
    fs->script = script ? memory_string(script) : NULL;
    lock_init(&fs->lock, "fault_store", LOCK_RANK_STORE);
    list_init(&fs->rules);
    inner->outer = &fs->base;
    return &fs->base;
}

void
fault_store_add(struct remote_store *s, const struct store_fault *fault)
{
    struct fault_store *fs = fault_store_of(s);
    struct rule *r = memory_alloc_zero(sizeof(*r));
    r->fault = *fault;
    if (fault->key_prefix)
        r->fault.key_prefix = memory_string(fault->key_prefix);
    lock_take(&fs->lock);
    list_append(&fs->rules, &r->node);
    lock_release(&fs->lock);
}

void
fault_store_clear(struct remote_store *s)
{
    struct fault_store *fs = fault_store_of(s);
    struct list_node old;
    list_init(&old);
    lock_take(&fs->lock);
    list_move_all(&old, &fs->rules);
    lock_release(&fs->lock);
    for (struct list_node *node; (node = list_take_first(&old));) {
        struct rule *r = CONTAINER_OF(node, struct rule, node);
        free((char *)r->fault.key_prefix);
        free(r);
    }
}

void
fault_store_set_outage(struct remote_store *s, bool on)
{
    struct fault_store *fs = fault_store_of(s);
    lock_take(&fs->lock);
    fs->outage = on;
    lock_release(&fs->lock);
}

uint64_t
fault_store_calls(struct remote_store *s, enum store_verb verb)
{
    struct fault_store *fs = fault_store_of(s);
    lock_take(&fs->lock);
    uint64_t calls = fs->calls[verb];
    lock_release(&fs->lock);
    return calls;
}
