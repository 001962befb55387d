// SPDX-License-Identifier: Apache-2.0
// The fork that a pin speaks of.
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/decimal.h"
#include "platform/memory.h"
#include "platform/random.h"
#include "remote/remote_internal.h"
#include "remote/remote_retention.h"

// A volume with more records than this has a generation: an attempt to finish a fork makes one or
// two.
#define RECORDS_MAX 64u

// The place that the pin's holder, TENANT@NUMBER, names; false: it names none.
static bool
find_place(const struct remote_place *place, const char *holder, struct remote_place *child_out)
{
    const char *at = strrchr(holder, '@');
    uint64_t number;
    if (!at || at == holder || !decimal_parse(at + 1, UINT32_MAX, &number))
        return false;
    *child_out = *place;
    child_out->volume_number = (uint32_t)number;
    child_out->tenant = memory_printf("%.*s", (int)(at - holder), holder);
    return true;
}

// The newest record of a short chain. 1: there are many records; -ENOENT: there is none.
static int
find_newest(const struct remote_place *place, struct manifest_record_header *header_out)
{
    struct remote_walk walk;
    uint64_t sequence;
    uint64_t newest = 0;
    uint64_t bytes;
    uint64_t newest_bytes = 0;
    unsigned count = 0;
    int rc;
    remote_walk_begin(&walk, place, REMOTE_RECORD, 0);
    while ((rc = remote_walk_next(&walk, &sequence, &bytes)) > 0 && ++count <= RECORDS_MAX) {
        newest = sequence;
        newest_bytes = bytes;
    }
    remote_walk_end(&walk);
    if (rc != 0)
        return rc;
    if (count == 0)
        return -ENOENT;
    BUFFER_AUTO name = {0};
    remote_key(place, REMOTE_RECORD, newest, &name);
    return remote_header_fetch(place, buffer_string(&name), newest_bytes, header_out);
}

static int
look(const struct remote_place *child, const struct remote_pin *pin, struct uuid *volume_out,
    enum remote_fork_state *state_out)
{
    struct manifest_record_header h;
    char id[37];
    int rc = find_newest(child, &h);
    bool many = rc == 1;
    if (many)
        rc = remote_manifest_origin(child, &h);
    if (rc == -ENOENT && !many)
        *state_out = FORK_MISSING;
    // The fork may lie where this host may not read: then it counts as one that is there.
    if (rc == -ENOENT || rc == -EBADMSG || rc == -ENOTSUP || rc == -EACCES)
        return 0;
    if (rc < 0)
        return rc;
    uuid_to_string(&h.volume, id);
    *volume_out = h.volume;
    if (strncmp(id, pin->name, strlen(id)) != 0)
        *state_out = FORK_MISSING;
    else
        *state_out = many || h.generation.v != 0 ? FORK_MADE : FORK_EMPTY;
    return 0;
}

int
remote_fork_look(const struct remote_place *place, const struct remote_pin *pin,
    struct remote_place *child_out, struct uuid *volume_out, enum remote_fork_state *state_out)
{
    BUFFER_AUTO holder = {0};
    *state_out = FORK_UNKNOWN;
    *child_out = (struct remote_place){0};
    *volume_out = (struct uuid){{0}};
    int rc = remote_pin_holder(place, pin, &holder);
    if (rc < 0)
        return rc == -ENOENT ? 0 : rc;
    return find_place(place, buffer_string(&holder), child_out)
               ? look(child_out, pin, volume_out, state_out)
               : 0;
}
