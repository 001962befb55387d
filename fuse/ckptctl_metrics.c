// SPDX-License-Identifier: Apache-2.0
// ckptctl metrics: the numbers of a mount, or of the volumes of a storage root, in the text format
// of Prometheus, on standard output or in a file for the textfile collector of node_exporter.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "fuse/ckptctl.h"
#include "metrics/metrics_text.h"
#include "platform/file.h"
#include "platform/memory.h"
#include "platform/random.h"
#include "volume/volume_root.h"

#define LABELS 2u // of each series: the tenant and the volume's id

static const struct metric_info volume_info = {
    .name = "volume_info",
    .kind = METRIC_KIND_GAUGE,
    .unit = METRIC_UNIT_NUMBER,
    .help = "always 1; the labels tell where the volume lies",
};
static const struct metric_info fuse_requests = {
    .name = "fuse_requests",
    .kind = METRIC_KIND_COUNTER,
    .unit = METRIC_UNIT_NUMBER,
    .help = "requests of the kernel, by opcode",
};

static void
fill_labels(struct metric_label labels[LABELS], const char *tenant, const struct uuid *volume,
    char volume_text[37])
{
    uuid_to_string(volume, volume_text);
    labels[0] = (struct metric_label){"tenant", tenant};
    labels[1] = (struct metric_label){"volume", volume_text};
}

static void
add_info(struct buffer *out, const struct metric_label labels[LABELS], const char *source,
    const char *root)
{
    const struct metric_label all[LABELS + 2] = {
        labels[0], labels[1], {"source", source}, {"root", root}};
    metrics_text_sample(out, &volume_info, all, LABELS + 2, 1);
}

// ---- a mount ------------------------------------------------------------------------------------

static void
add_metric(
    struct buffer *out, const struct metric_label labels[LABELS], const struct ckptfs_metric *m)
{
    const struct metric_info *known = metrics_find(m->name);
    const struct metric_info newer = {
        .name = m->name,
        .kind = m->kind == CKPTFS_METRIC_COUNTER ? METRIC_KIND_COUNTER : METRIC_KIND_GAUGE,
        .unit = (enum metric_unit)m->unit,
        .help = "a number of a daemon that is newer than ckptctl",
    };
    // Bytes of another program.
    if (!known && (!metrics_text_name_is_valid(m->name) || m->unit < CKPTFS_UNIT_NUMBER ||
                      m->unit > CKPTFS_UNIT_TIME_MS))
        return;
    metrics_text_family(out, known ? known : &newer);
    metrics_text_sample(out, known ? known : &newer, labels, LABELS, m->value);
}

static void
add_fuse_requests(struct buffer *out, const struct metric_label labels[LABELS],
    const struct ckptfs_fuse_requests *requests)
{
    metrics_text_family(out, &fuse_requests);
    for (size_t i = 0; i < CKPTFS_FUSE_OPCODES; i++) {
        char text[32];
        if (requests->requests[i] == 0)
            continue;
        const struct metric_label all[LABELS + 1] = {
            labels[0], labels[1], {"opcode", print_opcode(i, text)}};
        metrics_text_sample(out, &fuse_requests, all, LABELS + 1, requests->requests[i]);
    }
}

static int
describe_mount(const char *path, struct buffer *out)
{
    struct ckptfs_status status;
    struct ckptfs_fuse_requests requests;
    struct metric_label labels[LABELS];
    struct uuid volume;
    char text[37];
    CLEANUP(memory_free_auto) struct ckptfs_metrics *metrics = memory_alloc(sizeof(*metrics));
    CLEANUP(file_close_auto) int fd = control_open(path);
    if (fd < 0)
        return EXIT_STATUS_ERROR;
    int rc = control_status(fd, &status);
    if (rc == 0)
        rc = control_metrics(fd, metrics);
    if (rc == 0)
        rc = control_fuse_requests(fd, &requests);
    if (rc != 0)
        return control_failed("metrics of", path, rc);
    memcpy(volume.b, status.volume, sizeof(volume.b));
    fill_labels(labels, status.tenant, &volume, text);
    metrics_text_family(out, &volume_info);
    add_info(out, labels, status.source, status.root);
    for (size_t i = 0; i < metrics->count; i++)
        add_metric(out, labels, &metrics->metrics[i]);
    add_fuse_requests(out, labels, &requests);
    return EXIT_SUCCESS;
}

// ---- a storage root -----------------------------------------------------------------------------

struct entries {
    struct volume_root_entry *entries;
    size_t count;
};

static int
take_entry(void *argument, const struct volume_root_entry *e)
{
    struct entries *all = argument;
    all->entries = memory_realloc(all->entries, (all->count + 1) * sizeof(*e));
    all->entries[all->count++] = *e;
    return 0;
}

// Those of metrics.def that a root knows without the daemon.
static void
fill_metrics(const struct volume_root_entry *e, struct metrics *m)
{
    *m = (struct metrics){
        .fenced = e->fenced,
        .epoch = e->epoch,
        .local_generation = e->local.v,
        .published_generation = e->published.v,
        .local_time_ms = e->local_time_ms,
        .published_time_ms = e->published_time_ms,
        .unpublished_blobs = e->unpublished_blobs,
        .unpublished_bytes = e->unpublished_bytes,
        .lost_ranges = e->lost.ranges,
        .lost_bytes = e->lost.bytes,
    };
}

static const char *const root_metrics[] = {
    "fenced",
    "epoch",
    "local_generation",
    "published_generation",
    "local_time_ms",
    "published_time_ms",
    "unpublished_blobs",
    "unpublished_bytes",
    "lost_ranges",
    "lost_bytes",
};

enum root_only { ROOT_MOUNTED, ROOT_CLOSING, ROOT_IMPORTING, ROOT_PUBLISHED, ROOT_LOG };

static const struct metric_info root_only_infos[] = {
    [ROOT_MOUNTED] = {"mounted", METRIC_KIND_GAUGE, METRIC_UNIT_FLAG, "a process has the volume"},
    [ROOT_CLOSING] = {"closing", METRIC_KIND_GAUGE, METRIC_UNIT_FLAG,
        "the volume was unmounted, and its process publishes the last changes"},
    [ROOT_IMPORTING] = {"importing", METRIC_KIND_GAUGE, METRIC_UNIT_FLAG,
        "the root is not whole: the next mount reads it from the store"},
    [ROOT_PUBLISHED] = {"published", METRIC_KIND_GAUGE, METRIC_UNIT_FLAG,
        "the root holds nothing that is not in the store"},
    [ROOT_LOG] = {"log_bytes", METRIC_KIND_GAUGE, METRIC_UNIT_BYTES,
        "log behind the local generation, at least"},
};

static uint64_t
root_only_value(const struct volume_root_entry *e, enum root_only which)
{
    switch (which) {
    case ROOT_MOUNTED:
        return e->mounted;
    case ROOT_CLOSING:
        return e->closing;
    case ROOT_IMPORTING:
        return e->importing;
    case ROOT_PUBLISHED:
        return volume_root_is_published(e);
    case ROOT_LOG:
        return e->log_bytes;
    }
    return 0;
}

static void
add_root_family(struct buffer *out, const struct entries *all, const struct metric_info *info,
    enum root_only which)
{
    metrics_text_family(out, info);
    for (size_t i = 0; i < all->count; i++) {
        struct metric_label labels[LABELS];
        struct metrics m;
        char text[37];
        const struct volume_root_entry *e = &all->entries[i];
        fill_labels(labels, e->tenant, &e->volume, text);
        fill_metrics(e, &m);
        bool known = info >= metrics_table && info < metrics_table + METRICS_COUNT;
        metrics_text_sample(out, info, labels, LABELS,
            known ? metrics_value(&m, (size_t)(info - metrics_table)) : root_only_value(e, which));
    }
}

static int
describe_root(const char *root, struct buffer *out)
{
    BUFFER_AUTO error = {0};
    struct entries all = {0};
    int rc = volume_root_list(root, take_entry, &all, &error);
    if (rc < 0) {
        print_error("%s", error.length > 0 ? buffer_string(&error) : strerror(-rc));
        free(all.entries);
        return EXIT_STATUS_ERROR;
    }
    if (all.count > 0)
        metrics_text_family(out, &volume_info);
    for (size_t i = 0; i < all.count; i++) {
        struct metric_label labels[LABELS];
        char text[37];
        fill_labels(labels, all.entries[i].tenant, &all.entries[i].volume, text);
        add_info(out, labels, all.entries[i].source, root);
    }
    for (size_t i = 0; all.count > 0 && i < ARRAY_LENGTH(root_metrics); i++)
        add_root_family(out, &all, metrics_find(root_metrics[i]), 0);
    for (size_t i = 0; all.count > 0 && i < ARRAY_LENGTH(root_only_infos); i++)
        add_root_family(out, &all, &root_only_infos[i], (enum root_only)i);
    free(all.entries);
    return EXIT_SUCCESS;
}

// ---- where it goes ------------------------------------------------------------------------------

static int
no_flush(int fd UNUSED)
{
    return 0;
}

// Readers see the old file or the new one. A crash of the machine may lose both: the next run
// writes the file anew, and a flush of the disk would delay commits of programs.
static int
write_textfile(const char *path, struct buffer *text)
{
    struct file_ops ops = file_ops_system;
    ops.fsync = no_flush;
    (void)umask(022); // node_exporter is another user
    int rc = file_replace_whole(&ops, path, text->data, text->length, 0644);
    if (rc == 0)
        return EXIT_SUCCESS;
    print_error("write %s: %s", path, strerror(-rc));
    return EXIT_STATUS_ERROR;
}

int
show_metrics(const struct metrics_request *request)
{
    BUFFER_AUTO text = {0};
    int status =
        request->root ? describe_root(request->root, &text) : describe_mount(request->path, &text);
    if (status != EXIT_SUCCESS)
        return status;
    return request->textfile ? write_textfile(request->textfile, &text) : print_out(&text);
}
