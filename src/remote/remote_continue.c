// SPDX-License-Identifier: Apache-2.0
// Where the log of a storage root goes on after the published generation, told by the chain alone:
// for a root that has lost its manifest.
//
// Each generation's record tells the cut in its writer's log. A root that has published nothing
// since it took the volume from another one, or since the volume was made, has a log that begins at
// 0: an import begins a new log. The cuts in other kinds of records are those of local generations,
// which may not be published, and count for nothing here.
#include <errno.h>
#include <stdlib.h>

#include "platform/memory.h"
#include "remote/remote_internal.h"

static int
fetch_header(const struct remote_place *place, const struct remote_listed *r,
    struct manifest_record_header *h_out)
{
    BUFFER_AUTO name = {0};
    remote_key(place, REMOTE_RECORD, r->number, &name);
    const char *key = buffer_string(&name);
    int rc = remote_header_fetch(place, key, r->bytes, h_out);
    if (rc == 0 && h_out->sequence != r->number)
        rc = remote_log_bad(key, "it is not the record that its name says");
    return rc;
}

// From the newest record, whose header is `h`, back to the one that tells the cut.
static int
find_cut(const struct remote_place *place, const struct remote_listed *records, size_t count,
    struct manifest_record_header h, struct remote_continuation *c)
{
    for (size_t i = count - 1;; i--) {
        bool own = uuid_equal(&h.writer, &place->writer);
        if (!own || h.kind == MANIFEST_RECORD_CREATE || h.kind == MANIFEST_RECORD_GENERATION) {
            c->cut_is_known = true;
            c->cut.v = own && h.kind == MANIFEST_RECORD_GENERATION ? h.cut.v : 0;
            return 0;
        }
        // Records that no generation needs may have been deleted.
        if (i == 0 || records[i - 1].number != records[i].number - 1)
            return 0;
        int rc = fetch_header(place, &records[i - 1], &h);
        if (rc < 0)
            return rc;
    }
}

int
remote_manifest_find_continuation(
    const struct remote_place *place, struct remote_continuation *c_out)
{
    struct remote_listed *records;
    size_t count;
    struct manifest_record_header h;
    *c_out = (struct remote_continuation){0};
    int rc = remote_list(place, REMOTE_RECORD, &records, &count);
    if (rc == 0 && count == 0)
        rc = -ENOENT;
    if (rc == 0)
        rc = fetch_header(place, &records[count - 1], &h);
    if (rc == 0) {
        c_out->sequence = h.sequence;
        c_out->volume = h.volume;
        c_out->generation = h.generation;
        c_out->created_ms = h.created_ms;
        remote_copy_host(h.host, c_out->host);
        c_out->own = h.kind == MANIFEST_RECORD_CREATE || uuid_equal(&h.writer, &place->writer);
    }
    if (rc == 0 && c_out->own)
        rc = find_cut(place, records, count, h, c_out);
    free(records);
    return rc;
}
