// SPDX-License-Identifier: Apache-2.0
#include "retention/snapshot.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/checksum.h"
#include "base/json_writer.h"
#include "platform/awake.h"
#include "platform/clock.h"
#include "platform/crash_point.h"
#include "platform/log.h"
#include "platform/random.h"

#define SHOW_BYTES_MAX 65536u

// ---- times --------------------------------------------------------------------------------------

static bool
all_digits(const char *text, const char *form)
{
    for (; *form; text++, form++)
        if (*form == 'd' ? *text < '0' || *text > '9' : *text != *form)
            return false;
    return true;
}

bool
snapshot_parse_time(const char *text, uint64_t *ms_out)
{
    struct tm tm = {.tm_isdst = -1};
    size_t n = strlen(text);
    bool utc = n > 0 && text[n - 1] == 'Z';
    n -= utc;
    if (!(n == 10 && all_digits(text, "dddd-dd-dd")) &&
        !(n == 16 && all_digits(text, "dddd-dd-ddTdd:dd")) &&
        !(n == 19 && all_digits(text, "dddd-dd-ddTdd:dd:dd")))
        return false;
    tm.tm_year = atoi(text) - 1900;
    tm.tm_mon = atoi(text + 5) - 1;
    tm.tm_mday = atoi(text + 8);
    tm.tm_hour = n > 10 ? atoi(text + 11) : 0;
    tm.tm_min = n > 10 ? atoi(text + 14) : 0;
    tm.tm_sec = n > 16 ? atoi(text + 17) : 0;
    struct tm same = tm;
    time_t seconds = utc ? timegm(&tm) : mktime(&tm);
    // The 31st of February is no time.
    if (seconds < 0 || tm.tm_mon != same.tm_mon || tm.tm_mday != same.tm_mday ||
        same.tm_hour > 23 || same.tm_min > 59 || same.tm_sec > 59)
        return false;
    // The last millisecond of the day, minute or second in the text.
    uint64_t last_ms = n == 10 ? 24 * 3600 * 1000 - 1 : n == 16 ? 59999 : 999;
    *ms_out = (uint64_t)seconds * 1000 + last_ms;
    return true;
}

void
snapshot_format_time(uint64_t ms, struct buffer *out)
{
    time_t seconds = (time_t)(ms / 1000);
    struct tm tm;
    char text[32] = "?";
    if (gmtime_r(&seconds, &tm))
        strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &tm);
    buffer_append_string(out, text);
}

// ---- names --------------------------------------------------------------------------------------

void
snapshot_key(const struct remote_place *place, const char *name, struct buffer *out)
{
    buffer_clear(out);
    buffer_printf(
        out, "snapshots/%s/%" PRIu32 "/%s.json", place->tenant, place->volume_number, name);
    (void)buffer_string(out);
}

static int
check_name(const char *name, struct buffer *problem)
{
    uint64_t ms;
    bool number = strspn(name, "0123456789") == strlen(name);
    if (pin_name_is_valid(name) && !number && !snapshot_parse_time(name, &ms))
        return 0;
    buffer_printf(problem,
        "\"%s\" cannot be the name of a snapshot: a name has 1 to %u of the characters "
        "A-Z a-z 0-9 . _ -, does not begin with a dot, and is neither a number nor a time",
        name, PIN_NAME_BYTES_MAX);
    return -EINVAL;
}

static int
store_problem(struct buffer *problem, int rc)
{
    const char *text = remote_store_error();
    buffer_printf(problem, "%s", text[0] ? text : strerror(-rc));
    return rc;
}

int
snapshot_find(const struct remote_place *place, const char *name, struct generation *generation_out)
{
    struct remote_pins pins;
    int rc = remote_pins_read(place, &pins);
    if (rc < 0)
        return rc;
    rc = -ENOENT;
    for (size_t i = 0; i < pins.count; i++)
        if (pins.pins[i].kind == PIN_SNAPSHOT && strcmp(pins.pins[i].name, name) == 0) {
            *generation_out = pins.pins[i].generation;
            rc = 0;
        }
    remote_pins_free(&pins);
    return rc;
}

// ---- making -------------------------------------------------------------------------------------

// The record of a generation that may be used.
static int
find_retained(const struct remote_generations *g, struct generation generation,
    struct generation_record *record_out, struct buffer *problem)
{
    const struct generation_record *found = remote_generations_find(g, generation);
    if (found && found->state == GENERATION_RETAINED) {
        *record_out = *found;
        return 0;
    }
    if (found) {
        buffer_printf(problem,
            "generation %" PRIu64 " has expired: its blobs are about to be deleted", generation.v);
        return -ESTALE;
    }
    // A volume of an older program tells of none; generations in the chain can be used.
    if (!g->complete && generation.v <= g->head.v) {
        *record_out = (struct generation_record){.generation = generation};
        return 0;
    }
    buffer_printf(problem, "there is no generation %" PRIu64 "%s", generation.v,
        generation.v < g->head.v ? " any more: the retention policy did not keep it" : "");
    return -ENOENT;
}

static int
drop_name(const struct remote_place *place, const char *name)
{
    BUFFER_AUTO key = {0};
    snapshot_key(place, name, &key);
    const char *text = buffer_string(&key);
    return remote_store_delete_blobs(place->store, &text, 1, &place->call);
}

// For a pin that nobody else can have or rely on.
static void
delete_own(const struct remote_place *place, const struct remote_pin *pin)
{
    if (remote_pin_delete(place, pin) < 0)
        log_warning("retention.pin_left", "the %s %s keeps generation %" PRIu64 " for nothing",
            pin_kind_name(pin->kind), pin->name, pin->generation.v);
}

static void
write_json(const struct remote_place *place, const char *name, const struct remote_generations *g,
    const struct generation_record *record, struct buffer *out)
{
    struct json_writer w = {.out = out};
    char volume[37];
    BUFFER_AUTO created = {0};
    BUFFER_AUTO taken = {0};
    uuid_to_string(&g->volume, volume);
    snapshot_format_time(record->created_ms, &created);
    snapshot_format_time(clock_wall_ms(), &taken);
    write_json_begin_object(&w, NULL);
    write_json_u64(&w, "format", 1);
    write_json_string(&w, "name", name);
    write_json_string(&w, "tenant", place->tenant);
    write_json_u64(&w, "volume_number", place->volume_number);
    write_json_string(&w, "volume", volume);
    write_json_u64(&w, "generation", record->generation.v);
    write_json_u64(&w, "sequence", record->sequence);
    write_json_string(&w, "created", buffer_string(&created));
    write_json_u64(&w, "created_ms", record->created_ms);
    write_json_string(&w, "taken", buffer_string(&taken));
    write_json_end_object(&w);
    buffer_append_u8(out, '\n');
}

static int
take_name(const struct remote_place *place, const char *name, const struct remote_generations *g,
    const struct generation_record *record)
{
    BUFFER_AUTO key = {0};
    BUFFER_AUTO json = {0};
    snapshot_key(place, name, &key);
    write_json(place, name, g, record, &json);
    struct remote_source source = {.data = json.data, .length = json.length};
    sha256_of(json.data, json.length, &source.hash);
    return remote_store_put_blob(
        place->store, buffer_string(&key), &source, REMOTE_PUT_CREATE, &place->call);
}

// -EBUSY when a sweep ends an earlier command that wanted the name.
static int
check_not_ended(const struct remote_place *place, const char *name, struct buffer *problem)
{
    BUFFER_AUTO text = {0};
    int rc = snapshot_show(place, name, &text);
    if (rc < 0)
        return rc == -ENOENT ? 0 : store_problem(problem, rc);
    if (strcmp(buffer_string(&text), SNAPSHOT_UNFINISHED) != 0)
        return 0;
    buffer_printf(problem,
        "an earlier command died before the snapshot %s was finished, and the daily sweep is about "
        "to remove what it left: take another name, or try again in some days",
        name);
    return -EBUSY;
}

// The name is taken: by another snapshot, or by this one, made before.
static int
judge_taken(const struct remote_place *place, const struct remote_pin *pin, struct buffer *problem)
{
    struct remote_pins pins;
    int rc = remote_pins_read(place, &pins);
    if (rc < 0)
        return store_problem(problem, rc);
    struct generation other = {0};
    for (size_t i = 0; i < pins.count; i++)
        if (pins.pins[i].kind == PIN_SNAPSHOT && strcmp(pins.pins[i].name, pin->name) == 0 &&
            pins.pins[i].generation.v != pin->generation.v)
            other = pins.pins[i].generation;
    remote_pins_free(&pins);
    if (other.v == 0)
        return 0;
    buffer_printf(
        problem, "there is a snapshot %s already, of generation %" PRIu64, pin->name, other.v);
    return -EEXIST;
}

// `g` is the caller's to free in every case, and the pin to take back.
static int
pin_and_look(const struct remote_place *place, const struct remote_pin *pin,
    struct remote_generations *g, struct generation_record *record_out, struct buffer *problem)
{
    *g = (struct remote_generations){0};
    int rc = remote_pin_put(place, pin);
    if (rc < 0)
        return store_problem(problem, rc);
    crash_point("snapshot.pinned");
    rc = remote_generations_read(place, g);
    if (rc < 0)
        (void)store_problem(problem, rc);
    else
        rc = find_retained(g, pin->generation, record_out, problem);
    return rc;
}

int
snapshot_pin(
    const struct remote_place *place, const struct remote_pin *pin, struct buffer *problem_out)
{
    struct remote_generations g;
    struct generation_record record;
    int rc = pin_and_look(place, pin, &g, &record, problem_out);
    if (rc < 0)
        delete_own(place, pin);
    remote_generations_free(&g);
    return rc;
}

// Takes back what is left of a snapshot when its generation has gone for good (`rc` -ENOENT): then
// nobody can make it. One that has expired may be brought back for another command that makes the
// same snapshot, with the same pin and name: so they stay. `awake`: since before the command found
// out; others may have dropped the snapshot and given the name to another one if it slept.
static void
give_up(const struct remote_place *place, const struct remote_pin *pin, bool named, int rc,
    const struct awake *awake, struct buffer *problem)
{
    if (rc == -ESTALE)
        buffer_printf(problem, named ? ". Drop the snapshot" : ". The pin goes in a few days");
    if (rc != -ENOENT)
        return;
    if (named && !awake_has_slept(awake) && drop_name(place, pin->name) < 0)
        log_warning("retention.name_left", "the snapshot %s has a name and no generation: drop it",
            pin->name);
    if (!awake_has_slept(awake))
        delete_own(place, pin);
}

// The name is this snapshot's, and no sweep deletes the pin any more. A command that was asleep
// since it wrote the pin (`awake`) may find another one's in its place, which has not looked at the
// chain yet: so it writes and looks again. So does one that finds no pin.
static int
look_after_pin(const struct remote_place *place, const struct remote_pin *pin, struct awake *awake,
    struct buffer *problem)
{
    struct remote_generations g;
    struct generation_record record;
    uint64_t age_ms;
    int rc = remote_pin_age(place, pin, &age_ms);
    if (rc < 0 && rc != -ENOENT)
        return store_problem(problem, rc);
    if (rc == 0 && !awake_has_slept(awake))
        return 0;
    awake_begin(awake);
    rc = pin_and_look(place, pin, &g, &record, problem);
    remote_generations_free(&g);
    give_up(place, pin, true, rc, awake, problem);
    return rc;
}

int
snapshot_named_generation(
    const struct remote_place *place, const char *name, struct generation *generation_out)
{
    static const char field[] = "\"generation\":";
    BUFFER_AUTO text = {0};
    *generation_out = (struct generation){0};
    int rc = snapshot_show(place, name, &text);
    const char *at = rc == 0 ? strstr(buffer_string(&text), field) : NULL;
    if (at)
        generation_out->v = strtoull(at + strlen(field), NULL, 10);
    return rc;
}

// The name was taken before this command came: for another generation (then the pin is this
// command's alone), by a sweep, or for the same generation.
static int
judge_name(const struct remote_place *place, const struct remote_pin *pin, struct buffer *problem)
{
    struct generation named;
    struct awake awake;
    awake_begin(&awake);
    int rc = check_not_ended(place, pin->name, problem);
    if (rc == 0)
        rc = judge_taken(place, pin, problem);
    if (rc == 0 && (rc = snapshot_named_generation(place, pin->name, &named)) < 0)
        rc = store_problem(problem, rc);
    if (rc == 0 && named.v != pin->generation.v) {
        buffer_printf(problem,
            "the name %s is of a snapshot that was not finished, of generation %" PRIu64
            ": drop it, or take another name",
            pin->name, named.v);
        rc = -EBUSY;
        if (!awake_has_slept(&awake))
            delete_own(place, pin);
    } else if (rc == -EEXIST && !awake_has_slept(&awake)) {
        delete_own(place, pin);
    }
    return rc;
}

// After the attempt to take the name, which gave `rc`.
static int
end_creation(const struct remote_place *place, const struct remote_pin *pin, int rc,
    struct awake *awake, struct buffer *problem)
{
    if (rc == 0)
        crash_point("snapshot.named");
    else if (rc == -EEXIST)
        rc = judge_name(place, pin, problem);
    else
        rc = store_problem(problem, rc);
    return rc < 0 ? rc : look_after_pin(place, pin, awake, problem);
}

int
snapshot_create(const struct remote_place *place, const char *name, struct generation generation,
    struct buffer *problem_out)
{
    struct remote_pin pin = {.kind = PIN_SNAPSHOT, .generation = generation};
    struct remote_generations g;
    struct awake awake;
    struct generation_record record;
    int rc = check_name(name, problem_out);
    if (rc < 0)
        return rc;
    memcpy(pin.name, name, strlen(name));
    rc = judge_taken(place, &pin, problem_out);
    if (rc < 0)
        return rc;
    awake_begin(&awake);
    rc = pin_and_look(place, &pin, &g, &record, problem_out);
    // When the store does not say, the pin stays: it may be that of a snapshot which is there.
    if (rc == 0)
        rc = end_creation(place, &pin, take_name(place, name, &g, &record), &awake, problem_out);
    else
        give_up(place, &pin, false, rc, &awake, problem_out);
    remote_generations_free(&g);
    return rc;
}

// There is no pin. What a command that died left under the name goes.
static int
drop_leftover(const struct remote_place *place, const char *name, struct buffer *problem)
{
    struct generation named;
    int rc = snapshot_named_generation(place, name, &named);
    if (rc == -ENOENT)
        buffer_printf(problem, "there is no snapshot %s", name);
    if (rc == 0)
        rc = check_not_ended(place, name, problem);
    else if (rc != -ENOENT)
        return store_problem(problem, rc);
    if (rc == 0 && (rc = drop_name(place, name)) < 0)
        return store_problem(problem, rc);
    return rc;
}

int
snapshot_drop(const struct remote_place *place, const char *name, struct buffer *problem_out)
{
    struct remote_pin pin = {.kind = PIN_SNAPSHOT};
    int rc = check_name(name, problem_out);
    if (rc < 0)
        return rc;
    memcpy(pin.name, name, strlen(name));
    rc = snapshot_find(place, name, &pin.generation);
    if (rc == -ENOENT)
        return drop_leftover(place, name, problem_out);
    if (rc < 0)
        return store_problem(problem_out, rc);
    rc = check_not_ended(place, name, problem_out);
    if (rc < 0)
        return rc;
    struct awake awake;
    awake_begin(&awake);
    rc = drop_name(place, name);
    if (rc == 0) {
        crash_point("snapshot.name_dropped");
        // Another command may have made the same snapshot, with the same pin, if this one slept.
        rc = awake_has_slept(&awake) ? -ETIME : remote_pin_delete(place, &pin);
    }
    if (rc == -ETIME) {
        buffer_printf(problem_out,
            "the snapshot %s has lost its name, but its pin may be of a new one, because this "
            "command "
            "took too long: the daily sweep removes it if it is not",
            name);
        return rc;
    }
    return rc < 0 ? store_problem(problem_out, rc) : 0;
}

int
snapshot_show(const struct remote_place *place, const char *name, struct buffer *out)
{
    BUFFER_AUTO key = {0};
    if (!pin_name_is_valid(name))
        return -ENOENT;
    snapshot_key(place, name, &key);
    return remote_store_get_blob(
        place->store, buffer_string(&key), 0, SHOW_BYTES_MAX, out, &place->call);
}

// ---- at= ----------------------------------------------------------------------------------------

static int
resolve_time(const struct remote_generations *g, uint64_t ms, const char *text,
    struct generation *generation_out, struct buffer *problem)
{
    *generation_out = (struct generation){0};
    for (size_t i = 0; i < g->count; i++)
        if (g->records[i].created_ms <= ms && g->records[i].state == GENERATION_RETAINED)
            *generation_out = g->records[i].generation;
    if (generation_out->v != 0)
        return 0;
    buffer_printf(problem, "no generation is kept that is as old as %s", text);
    return -ENOENT;
}

int
snapshot_resolve(const struct remote_place *place, const char *text,
    struct generation *generation_out, struct buffer *problem_out)
{
    struct remote_generations g;
    struct generation_record record;
    uint64_t ms;
    int rc = remote_generations_read(place, &g);
    if (rc == -ENOENT)
        return rc; // there is no volume
    if (rc < 0)
        return store_problem(problem_out, rc);
    if (strspn(text, "0123456789") == strlen(text)) {
        generation_out->v = strtoull(text, NULL, 10);
        rc = find_retained(&g, *generation_out, &record, problem_out);
    } else if (snapshot_parse_time(text, &ms)) {
        rc = resolve_time(&g, ms, text, generation_out, problem_out);
    } else {
        rc = snapshot_find(place, text, generation_out);
        if (rc == -ENOENT)
            buffer_printf(problem_out, "there is no snapshot %s", text);
        else if (rc < 0)
            (void)store_problem(problem_out, rc);
    }
    remote_generations_free(&g);
    return rc;
}
