// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <string.h>

#include "remote/remote_destroy.h"
#include "retention/collect.h"
#include "volume/volume_internal.h"
#include "volume/volume_offline.h"
#include "volume/volume_offline_internal.h"

#define ATTEMPTS_MAX 5

static int
tell(void *argument, enum remote_destroy_stage stage, const struct remote_destroyed *done)
{
    const struct volume_progress *progress = argument;
    return progress->tell(
        progress->argument, remote_destroy_stage_name(stage), done->objects[stage], 0);
}

static int
refuse(struct buffer *holders, bool marked, struct buffer *error)
{
    holders->length -= holders->length > 0; // the last newline
    buffer_printf(error, "it is needed%s:\n%s",
        marked ? ", so that nothing is deleted; nobody can mount it any more. Destroy or detach "
                 "its forks, then say the same again"
               : "",
        buffer_string(holders));
    return -EBUSY;
}

static int
destroy(struct offline *o, const struct volume_progress *progress, struct remote_destroyed *done,
    struct buffer *error)
{
    BUFFER_AUTO holders = {0};
    const struct remote_destroy_options options = {
        .reader_pin_ms = READER_PIN_MS,
        .fork_pin_ms = ORPHAN_MS,
        .takeover = o->config->takeover,
        .progress = progress ? tell : NULL,
        .argument = (void *)progress,
    };
    int rc = -ESTALE;
    for (int i = 0; rc == -ESTALE && i < ATTEMPTS_MAX; i++)
        rc = remote_manifest_destroy(&o->place, &options, &holders, done);
    if (rc == -EBUSY && holders.length > 0)
        return refuse(&holders, done->marked, error);
    if (rc == -ENOENT)
        volume_error(error, "there is no volume at %s", o->config->source);
    else if (rc == -ESTALE)
        volume_error(error, "%s: other hosts keep claiming it", o->config->source);
    else if (rc == -ECANCELED)
        volume_error(error, "interrupted; say the same once more to go on");
    else if (rc < 0)
        return offline_store_problem(o, "destroy", rc, error);
    return rc;
}

int
volume_destroy(const struct volume_config *config, const struct volume_progress *progress,
    uint64_t *objects_out, struct buffer *error)
{
    struct offline o;
    struct remote_destroyed done = {0};
    int rc = offline_open(config, &o, error);
    if (rc == 0)
        rc = destroy(&o, progress, &done, error);
    *objects_out = 0;
    for (size_t i = 0; i < DESTROY_STAGES; i++)
        *objects_out += done.objects[i];
    offline_close(&o);
    return rc;
}
