// SPDX-License-Identifier: Apache-2.0
#include "volume/volume_lease.h"

#include <errno.h>

void
volume_lease_begin(struct volume_lease *l, uint64_t ttl_ms, uint64_t activity, uint64_t now_ms)
{
    *l = (struct volume_lease){
        .ttl_ms = ttl_ms, .next_ms = now_ms + ttl_ms / 3, .activity = activity};
}

bool
volume_lease_is_due(const struct volume_lease *l, uint64_t activity, uint64_t now_ms)
{
    return now_ms >= l->next_ms || (l->idle && activity != l->activity);
}

static uint64_t
idle_ttl(const struct volume_lease *l)
{
    return l->ttl_ms > VOLUME_LEASE_IDLE_MS ? l->ttl_ms : VOLUME_LEASE_IDLE_MS;
}

static int
look(const struct remote_place *place, const struct db_record *db, bool idle)
{
    int rc = remote_manifest_is_followed(place, db->remote_sequence);
    if (rc == 0 && idle)
        rc = remote_manifest_check_head(place, db);
    return rc == -EBADMSG ? 1 : rc;
}

int
volume_lease_renew(struct volume_lease *l, const struct remote_place *place,
    const struct db_record *db, uint64_t activity, uint64_t now_ms)
{
    bool idle = activity == l->activity;
    uint64_t ttl_ms = idle ? idle_ttl(l) : l->ttl_ms;
    l->activity = activity;
    l->idle = false; // when this fails, a busy volume must not try it at each beat
    int rc = remote_lease_write(place, db->epoch, ttl_ms, false);
    if (rc == 0) {
        l->good_ms = now_ms + ttl_ms / 2;
        l->idle = idle;
        l->idle_renewals += idle;
        l->next_ms = now_ms + (idle ? ttl_ms / 2 : ttl_ms / 3);
        rc = look(place, db, idle);
    }
    if (rc < 0)
        l->next_ms = now_ms + l->ttl_ms / 3;
    if (rc == 0 && l->idle_renewals == VOLUME_LEASE_WALK_RENEWALS) {
        l->idle_renewals = 0;
        rc = 1;
    }
    return rc;
}
