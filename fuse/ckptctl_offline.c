// SPDX-License-Identifier: Apache-2.0
// Commands of ckptctl on volumes in the store that take longer or cannot be undone.
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/json_writer.h"
#include "fuse/ckptctl.h"
#include "platform/clock.h"
#include "platform/memory.h"
#include "store/remote_store.h"
#include "volume/volume_offline.h"

// ---- progress -----------------------------------------------------------------------------------

#define SHOW_INTERVAL_MS 200u

struct line {
    bool terminal;
    bool shown;
    uint64_t next_ms;
};

static int
show(void *argument, const char *what, uint64_t done, uint64_t total)
{
    struct line *line = argument;
    uint64_t now_ms = clock_monotonic_ms();
    if (!line->terminal || now_ms < line->next_ms)
        return 0;
    line->next_ms = now_ms + SHOW_INTERVAL_MS;
    line->shown = true;
    fprintf(stderr, "\r\033[K%s: %" PRIu64, what, done);
    if (total > 0)
        fprintf(stderr, " of %" PRIu64, total);
    fflush(stderr);
    return 0;
}

static struct line
line_begin(const struct offline_request *r)
{
    return (struct line){.terminal = !r->quiet && !r->json && isatty(STDERR_FILENO)};
}

static void
line_end(struct line *line)
{
    if (line->shown)
        fputs("\r\033[K", stderr);
}

static int
failed(const char *what, const struct offline_request *r, int rc, struct buffer *error)
{
    print_error("%s %s: %s", what, r->config->source,
        error->length > 0 ? buffer_string(error) : strerror(-rc));
    return EXIT_STATUS_ERROR;
}

// ---- destroy ------------------------------------------------------------------------------------

// The user must type the volume's name, which is not typed by mistake.
static bool
is_confirmed(const struct offline_request *r)
{
    struct store_url url;
    char typed[256];
    if (r->yes)
        return true;
    if (store_url_parse(r->config->source, &url) < 0) {
        print_error("%s", remote_store_error());
        return false;
    }
    CLEANUP(memory_free_auto)
    char *name = url.volume_number == 1
                     ? memory_string(url.tenant)
                     : memory_printf("%s@%" PRIu32, url.tenant, url.volume_number);
    store_url_free(&url);
    fprintf(stderr,
        "Everything that %s holds will be deleted: all generations, all snapshots. This cannot be "
        "undone.\nType the name of the volume, %s, to go on: ",
        r->config->source, name);
    fflush(stderr);
    bool same = false;
    if (fgets(typed, sizeof(typed), stdin)) {
        typed[strcspn(typed, "\n")] = 0;
        same = strcmp(typed, name) == 0;
    } else {
        fputc('\n', stderr);
    }
    if (!same)
        print_error("%s is not destroyed: its name was not typed, and --yes was not given",
            r->config->source);
    return same;
}

int
destroy_volume(const struct offline_request *r)
{
    BUFFER_AUTO error = {0};
    BUFFER_AUTO out = {0};
    uint64_t objects;
    if (!is_confirmed(r))
        return EXIT_STATUS_USAGE;
    struct line line = line_begin(r);
    const struct volume_progress progress = {show, &line};
    int rc = volume_destroy(r->config, &progress, &objects, &error);
    line_end(&line);
    if (rc < 0)
        return failed("destroy", r, rc, &error);
    if (r->json)
        print_json_number(&out, "objects", objects);
    else
        buffer_printf(
            &out, "%s is destroyed: %" PRIu64 " objects are deleted\n", r->config->source, objects);
    return print_out(&out);
}

// ---- fork --detach ------------------------------------------------------------------------------

static void
print_detached(const struct offline_request *r, const struct volume_detached *d, struct buffer *out)
{
    struct json_writer w = {.out = out};
    if (r->json) {
        write_json_begin_object(&w, NULL);
        write_json_u64(&w, "generation", d->generation.v);
        write_json_u64(&w, "copied_blobs", d->copied);
        write_json_u64(&w, "copied_bytes", d->copied_bytes);
        write_json_bool(&w, "detached", d->needed_by.v == 0);
        write_json_u64(&w, "needed_by_generation", d->needed_by.v);
        write_json_end_object(&w);
        buffer_append_string(out, "\n");
        return;
    }
    char bytes[32];
    print_size(d->copied_bytes, bytes);
    buffer_printf(out, "%s: %" PRIu64 " blobs (%s) are copied; generation %" PRIu64,
        r->config->source, d->copied, bytes, d->generation.v);
    if (d->needed_by.v == 0)
        buffer_printf(out, " and all others that are kept do without the parent, which is free\n");
    else
        buffer_printf(out,
            " does without the parent. Generation %" PRIu64
            " needs it still: say the same again when it has been deleted\n",
            d->needed_by.v);
}

int
detach_fork(const struct offline_request *r)
{
    BUFFER_AUTO error = {0};
    BUFFER_AUTO out = {0};
    struct volume_detached detached;
    struct line line = line_begin(r);
    const struct volume_progress progress = {show, &line};
    int rc = volume_detach(r->config, &progress, &detached, &error);
    line_end(&line);
    if (rc < 0)
        return failed("detach", r, rc, &error);
    print_detached(r, &detached, &out);
    return print_out(&out);
}

// ---- verify -------------------------------------------------------------------------------------

int
verify_volume(const struct offline_request *r)
{
    BUFFER_AUTO error = {0};
    BUFFER_AUTO out = {0};
    struct volume_verified verified;
    struct line line = line_begin(r);
    const struct volume_progress progress = {show, &line};
    const struct volume_verify_request request = {
        .data = r->data,
        .repair = r->repair,
        .root = r->root,
        .json = r->json,
        .progress = &progress,
    };
    if (r->root && !r->repair) {
        print_error("--root is for --repair");
        return EXIT_STATUS_USAGE;
    }
    int rc = volume_verify(r->config, &request, &verified, &out, &error);
    line_end(&line);
    if (rc < 0)
        return failed("verify", r, rc, &error);
    int status = r->quiet && verified.damaged == 0 ? EXIT_SUCCESS : print_out(&out);
    return status == EXIT_SUCCESS && verified.damaged > 0 ? EXIT_STATUS_DAMAGED : status;
}

// ---- push ---------------------------------------------------------------------------------------

static void
print_pushed(const struct offline_request *r, const struct volume_pushed *p, struct buffer *out)
{
    struct json_writer w = {.out = out};
    char bytes[32];
    if (r->json) {
        buffer_clear(out);
        write_json_begin_object(&w, NULL);
        write_json_u64(&w, "generation", p->generation.v);
        write_json_u64(&w, "blobs", p->blobs);
        write_json_u64(&w, "blob_bytes", p->bytes);
        write_json_u64(&w, "uploaded_blobs", p->uploaded);
        write_json_u64(&w, "lost_blobs", p->lost);
        write_json_bool(&w, "log_left", p->log_left);
        write_json_end_object(&w);
        buffer_append_string(out, "\n");
        return;
    }
    print_size(p->bytes, bytes);
    buffer_printf(out, "%s holds generation %" PRIu64 " of %s: %" PRIu64 " blobs (%s)\n",
        r->config->source, p->generation.v, r->root, p->blobs - p->lost, bytes);
    if (p->lost > 0)
        buffer_printf(out, "%" PRIu64 " blobs are lost\n", p->lost);
    if (p->log_left)
        buffer_append_string(out, "the write-ahead log has changes that were not pushed\n");
}

int
push_root(const struct offline_request *r)
{
    BUFFER_AUTO error = {0};
    BUFFER_AUTO out = {0};
    struct volume_pushed pushed;
    struct line line = line_begin(r);
    const struct volume_progress progress = {show, &line};
    const struct volume_push_request request = {
        .root = r->root, .partial = r->partial, .progress = &progress};
    int rc = volume_push(r->config, &request, &pushed, &out, &error);
    line_end(&line);
    if (rc < 0) {
        if (out.length > 0 && print_out(&out) != EXIT_SUCCESS)
            return EXIT_STATUS_ERROR;
        return failed("push to", r, rc, &error);
    }
    print_pushed(r, &pushed, &out);
    return print_out(&out);
}
