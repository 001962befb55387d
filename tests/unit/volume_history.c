// SPDX-License-Identifier: Apache-2.0
#include "volume_history.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "platform/clock.h"
#include "platform/memory.h"
#include "volume/volume_internal.h"

#define DISTURBED_CALLS   12u
#define DISTURBED_CHANGES 4u

struct history history;

void
history_begin(bool in_s3, uint64_t seed)
{
    history = (struct history){.directory = unit_directory_new(), .seed = seed};
    history_place_open(&history.place, in_s3, history.directory);
#ifdef CKPTFS_FAULT_HOOKS
    struct volume_world w = {.directory = history.directory};
    volume_world_script_faults(&w);
#endif
}

void
history_end(void)
{
    ck_assert_uint_eq(history_place_count(&history.place), 0);
    history_place_close(&history.place);
    unit_directory_remove(history.directory);
}

uint64_t
history_below(uint64_t n)
{
    return test_random(&history.seed) % n;
}

// ---- the store ----------------------------------------------------------------------------------

void
history_set_script(const char *script)
{
    const struct volume_world w = {.directory = history.directory};
    volume_world_set_faults(&w, script);
}

void
history_disturb(void)
{
#ifdef CKPTFS_FAULT_HOOKS
    char script[32];
    if (history_below(2) == 0)
        return;
    static const char *const kinds[] = {"fail", "refuse", "lose"};
    uint64_t kind = history_below(ARRAY_LENGTH(kinds));
    snprintf(script, sizeof(script), "%s %u", kinds[kind],
        1 + (unsigned)history_below(kind == 0 ? DISTURBED_CALLS : DISTURBED_CHANGES));
    history_set_script(script);
    history.disturbed = true;
#endif
}

bool
history_heal(void)
{
    bool disturbed = history.disturbed;
    if (disturbed)
        history_set_script("");
    history.disturbed = false;
    return disturbed;
}

// Whether to do again what gave `rc`.
static bool
is_to_repeat(int rc)
{
    bool again = rc < 0 && history_heal();
    history.repeated += again;
    return again;
}

// ---- generations --------------------------------------------------------------------------------

struct kept *
history_find_kept(struct history_volume *h, struct generation generation)
{
    for (unsigned i = 0; i < h->count; i++)
        if (h->kept[i].generation.v == generation.v)
            return &h->kept[i];
    return NULL;
}

void
history_note_kept(struct history_volume *h, struct generation generation, const struct model *m)
{
    if (history_find_kept(h, generation))
        return;
    ck_assert_uint_lt(h->count, HISTORY_KEPT);
    h->kept[h->count++] = (struct kept){.generation = generation, .m = model_copy(m)};
}

struct listing {
    struct history_volume *h;
    bool there[HISTORY_KEPT];
};

static int
visit_generation(void *argument, const char *name UNUSED, struct generation generation,
    uint64_t created_ms UNUSED)
{
    struct listing *l = argument;
    // A generation that is not known was made since the last look: nothing was changed after it.
    history_note_kept(l->h, generation, l->h->now);
    l->there[history_find_kept(l->h, generation) - l->h->kept] = true;
    return 0;
}

void
history_look(struct history_volume *h)
{
    struct listing l = {.h = h};
    struct generation newest = {0};
    ck_assert_int_eq(
        volume_list_generations(h->w.v, (struct generation){0}, visit_generation, &l), 0);
    for (unsigned i = 0; i < h->count; i++)
        if (h->kept[i].generation.v > newest.v)
            newest = h->kept[i].generation;
    unsigned left = 0;
    for (unsigned i = 0; i < h->count; i++) {
        struct kept *k = &h->kept[i];
        if (l.there[i]) {
            h->kept[left++] = *k;
            continue;
        }
        ck_assert_msg(!k->named && k->forks == 0 && k->generation.v != newest.v,
            "%s dropped generation %" PRIu64 ": named %d, forks %u, newest %" PRIu64,
            h->w.config.source, k->generation.v, k->named, k->forks, newest.v);
        model_free(k->m);
    }
    h->count = left;
}

// CheckpointGC runs by itself, too: a generation that was kept a moment ago may be gone.
struct kept *
history_any_kept(struct history_volume *h)
{
    if (h->w.v)
        history_look(h);
    return &h->kept[history_below(h->count)];
}

void
history_expect_gone(struct history_volume *h, struct generation generation)
{
    history_look(h);
    ck_assert_msg(
        !history_find_kept(h, generation), "generation %" PRIu64 " cannot be found", generation.v);
}

// ---- volumes ------------------------------------------------------------------------------------

struct history_volume *
history_new_volume(unsigned number)
{
    struct history_volume *h = &history.volumes[number];
    char tenant[16];
    snprintf(tenant, sizeof(tenant), "tenant%u", number);
    *h = (struct history_volume){.exists = true};
    history_place_join(&history.place, tenant, &h->w);
    return h;
}

void
history_use_new_root(struct history_volume *h)
{
    char name[32];
    snprintf(name, sizeof(name), "root-%u", history.next_root++);
    volume_world_set_root(&h->w, name);
}

void
history_mount(struct history_volume *h)
{
    BUFFER_AUTO error = {0};
    history_disturb();
    int rc = volume_open(&h->w.config, NULL, &h->w.v, &error);
    if (is_to_repeat(rc)) {
        bool takeover = h->w.config.takeover;
        // It may have claimed the volume.
        h->w.config.takeover = true;
        volume_world_open(&h->w);
        h->w.config.takeover = takeover;
        rc = 0;
    }
    ck_assert_msg(rc == 0, "open: %d, %s", rc, buffer_string(&error));
    history_heal();
    h->w.v->collect_pause_ms = 1;
    ck_assert_uint_eq(volume_steps_mark(h->w.v), h->mark);
    volume_steps_compare(h->now, h->w.v, STEP_NO_FILE);
    history_look(h);
}

void
history_do_publish(struct history_volume *h)
{
    struct generation generation;
    history_disturb();
    int rc = volume_world_checkpoint(h->w.v, VOLUME_CHECKPOINT_PUBLISH, &generation);
    if (is_to_repeat(rc))
        rc = volume_world_checkpoint(h->w.v, VOLUME_CHECKPOINT_PUBLISH, &generation);
    ck_assert_int_eq(rc, 0);
    history_heal();
    history_note_kept(h, generation, h->now);
}

void
history_unmount(struct history_volume *h)
{
    history_do_publish(h);
    volume_world_close(&h->w);
}

int
history_operate(struct history_volume *h, unsigned kind, unsigned flags, const char *argument)
{
    BUFFER_AUTO text = {0};
    uint64_t give_up_ms = clock_monotonic_ms() + 60000;
    history_disturb();
    int rc = volume_world_operate(h->w.v, kind, flags, argument, &text);
    // -ESTALE without another host: there is a record of this one whose answer was lost, perhaps by
    // a job in the background. The publish thread finds that out.
    bool again = rc != -ENOENT && is_to_repeat(rc);
    while ((again || rc == -ESTALE || rc == -EAGAIN) && clock_monotonic_ms() < give_up_ms) {
        struct generation generation;
        again = false;
        clock_sleep_ms(1);
        // The store held up the claim at the mount: the next publication claims.
        if (rc == -EAGAIN)
            (void)!volume_world_checkpoint(h->w.v, VOLUME_CHECKPOINT_PUBLISH, &generation);
        rc = volume_world_operate(h->w.v, kind, flags, argument, &text);
        if (rc == -ENOENT && kind == VOLUME_OPERATION_SNAPSHOT_DROP)
            rc = 0;
    }
    history_heal();
    if (rc != 0 && rc != -ENOENT)
        ck_abort_msg("operation %u %s: %d %s", kind, argument, rc, buffer_string(&text));
    return rc;
}

void
history_set_policy(struct history_volume *h)
{
    char text[32];
    snprintf(text, sizeof(text), "last=%u,grace=0s", 1 + (unsigned)history_below(3));
    ck_assert_int_eq(history_operate(h, VOLUME_OPERATION_RETENTION, 0, text), 0);
}

int
history_write_batch(struct volume *v, struct model *m, uint64_t first, unsigned count)
{
    int rc = 0;
    for (unsigned i = 0; i < count && rc == 0; i++) {
        if (v)
            rc = volume_steps_do(v, first + i);
        if (m)
            volume_steps_model_do(m, first + i);
    }
    return rc == 0 && v ? volume_steps_set_mark(v, first + count) : rc;
}
