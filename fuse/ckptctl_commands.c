// SPDX-License-Identifier: Apache-2.0
#include "fuse/ckptctl_commands.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/printable.h"
#include "fuse/ckptctl.h"
#include "platform/clock.h"
#include "platform/file.h"
#include "platform/memory.h"
#include "volume/volume.h"
#include "volume/volume_offline.h"

// ---- commands -----------------------------------------------------------------------------------

void
print_error(const char *format, ...)
{
    char text[4096];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    BUFFER_AUTO shown = {0};
    buffer_append_printable_lines(&shown, text);
    fprintf(stderr, "ckptctl: %s\n", buffer_string(&shown));
}

static int
run_create(const struct arguments *a)
{
    BUFFER_AUTO error = {0};
    int rc = volume_config_check(&a->config, &error);
    if (rc != 0) {
        print_error("%s", buffer_string(&error));
        return EXIT_STATUS_USAGE;
    }
    rc = volume_create(&a->config, &error);
    if (rc == 0)
        return EXIT_SUCCESS;
    if (error.length == 0)
        buffer_printf(&error, "create %s: %s", a->config.source, strerror(-rc));
    print_error("%s", buffer_string(&error));
    return EXIT_STATUS_ERROR;
}

int
print_out(struct buffer *text)
{
    BUFFER_AUTO shown = {0};
    buffer_append_printable_lines(&shown, buffer_string(text));
    if (fwrite(shown.data, 1, shown.length, stdout) == shown.length && fflush(stdout) == 0)
        return EXIT_SUCCESS;
    fprintf(stderr, "ckptctl: standard output: %s\n", strerror(errno));
    return EXIT_STATUS_ERROR;
}

static int
run_status(const struct arguments *a)
{
    const struct status_request request = {.path = a->operand,
        .root = a->root,
        .json = a->json,
        .fuse = a->fuse,
        .check = a->check,
        .max_age_seconds = a->max_age_seconds};
    return show_status(&request);
}

static int
run_metrics(const struct arguments *a)
{
    const struct metrics_request request = {
        .path = a->operand, .root = a->root, .textfile = a->textfile};
    return show_metrics(&request);
}

static int
print_checkpoint(
    const struct arguments *a, const struct ckptfs_checkpoint *done, const char *path, int fd)
{
    BUFFER_AUTO text = {0};
    struct ckptfs_status status;
    if (a->json) {
        int rc = control_status(fd, &status);
        if (rc != 0)
            return control_failed("status of", path, rc);
        print_checkpoint_json(done, &status, &text);
    } else if (a->no_wait) {
        buffer_printf(&text, "checkpoint started, ticket %" PRIu64 "\n", (uint64_t)done->ticket);
    } else {
        buffer_printf(&text, "generation %" PRIu64 " %s\n", (uint64_t)done->generation,
            a->local ? "is recorded locally" : "is published");
    }
    return print_out(&text);
}

static int
run_checkpoint(const struct arguments *a)
{
    struct ckptfs_checkpoint done;
    struct ckptfs_status status;
    CLEANUP(file_close_auto) int fd = control_open(a->operand);
    if (fd < 0)
        return EXIT_STATUS_ERROR;
    // A missing permission and a wrong version show here; later errors are the checkpoint's.
    int rc = control_status(fd, &status);
    if (rc != 0)
        return control_failed("checkpoint of", a->operand, rc);
    uint32_t flags =
        (a->no_wait ? 0 : CKPTFS_CHECKPOINT_WAIT) | (a->local ? CKPTFS_CHECKPOINT_LOCAL_ONLY : 0);
    struct progress *progress = NULL;
    if (!a->no_wait && !a->quiet && !a->json)
        progress = progress_start(fd);
    rc = control_checkpoint(fd, flags, &done);
    progress_stop(progress);
    if (rc != 0)
        return control_checkpoint_failed(a->operand, fd, rc);
    if (a->quiet && !a->json)
        return EXIT_SUCCESS;
    return print_checkpoint(a, &done, a->operand, fd);
}

static int
run_check(const struct arguments *a)
{
    return check_volume(a->operand, a->json, a->quiet);
}

static int
run_unmount(const struct arguments *a)
{
    struct unmount_request request = {
        .path = a->operand, .wait_seconds = a->wait_seconds, .quiet = a->quiet, .json = a->json};
    return unmount_volume(&request);
}

static uint32_t
operation_flags(const struct arguments *a)
{
    return (a->json ? CKPTFS_OPERATION_JSON : 0) | (a->dry_run ? CKPTFS_OPERATION_DRY_RUN : 0) |
           (a->sweep ? CKPTFS_OPERATION_SWEEP : 0);
}

// SOURCE and not MOUNTPOINT: the volume is not mounted here.
static bool
is_source(const char *operand)
{
    return strncmp(operand, "file://", 7) == 0 || strncmp(operand, "s3://", 5) == 0;
}

static int
print_failure(const char *what, const struct arguments *a, int rc, struct buffer *error)
{
    print_error(
        "%s %s: %s", what, a->operand, error->length > 0 ? buffer_string(error) : strerror(-rc));
    return EXIT_STATUS_ERROR;
}

_Static_assert((int)CKPTFS_OPERATION_JOB_REPORT == (int)VOLUME_OPERATION_JOB_REPORT &&
                   (int)CKPTFS_OPERATION_SWEEP == (int)VOLUME_OPERATION_SWEEP,
    "the ABI and the volume count alike");

static int
operate_offline(const struct arguments *a, const char *what, uint32_t kind, const char *argument)
{
    BUFFER_AUTO out = {0};
    BUFFER_AUTO error = {0};
    int rc = volume_offline_operation(
        &a->config, kind, operation_flags(a), argument, a->at, &out, &error);
    if (rc < 0)
        return print_failure(what, a, rc, &error);
    return out.length > 0 ? print_out(&out) : EXIT_SUCCESS;
}

static int
operate(const struct arguments *a, const char *what, uint32_t kind, const char *argument)
{
    const struct operation_request request = {
        .what = what, .kind = kind, .flags = operation_flags(a), .argument = argument};
    if (is_source(a->operand))
        return operate_offline(a, what, kind, argument);
    return run_operation(a->operand, &request);
}

static int
run_gc(const struct arguments *a)
{
    return operate(a, "gc of", CKPTFS_OPERATION_GC, "");
}

static int
run_retention(const struct arguments *a)
{
    return operate(a, "retention of", CKPTFS_OPERATION_RETENTION, a->policy ? a->policy : "");
}

static int
run_quota(const struct arguments *a)
{
    return control_quota(a->operand, a->policy, a->quota_of, operation_flags(a));
}

static int
run_evict(const struct arguments *a)
{
    const struct evict_request request = {
        .path = a->operand, .all = a->all, .json = a->json, .quiet = a->quiet};
    return control_evict(&request);
}

static int
run_hydrate(const struct arguments *a)
{
    if (a->hot && (a->all || a->pin)) {
        print_error("hydrate: --hot is for itself, without --all and --pin");
        return EXIT_STATUS_USAGE;
    }
    const struct hydrate_request request = {.path = a->operand,
        .all = a->all,
        .hot = a->hot,
        .keep = a->pin,
        .no_wait = a->no_wait,
        .json = a->json,
        .quiet = a->quiet};
    return hydrate_files(&request);
}

static int
run_generations(const struct arguments *a)
{
    return operate(a, "generations of", CKPTFS_OPERATION_GENERATIONS, "");
}

static int
run_snapshot_create(const struct arguments *a)
{
    if (is_source(a->operand))
        return operate_offline(a, "snapshot of", CKPTFS_OPERATION_SNAPSHOT_CREATE, a->name);
    if (a->at) {
        print_error("--at is for a SOURCE: on a mount a snapshot is made of what there is now");
        return EXIT_STATUS_USAGE;
    }
    return create_snapshot(a->name, a->operand, operation_flags(a));
}

static int
run_snapshot_drop(const struct arguments *a)
{
    return operate(a, "snapshot of", CKPTFS_OPERATION_SNAPSHOT_DROP, a->name);
}

static int
run_snapshot_list(const struct arguments *a)
{
    return operate(a, "snapshots of", CKPTFS_OPERATION_SNAPSHOTS, "");
}

static int
run_snapshot_show(const struct arguments *a)
{
    return operate(a, "snapshot of", CKPTFS_OPERATION_SNAPSHOT_SHOW, a->name);
}

static int
print_made(const struct arguments *a, struct generation generation, struct buffer *text)
{
    BUFFER_AUTO out = {0};
    if (a->json)
        print_json_number(&out, "generation", generation.v);
    else
        buffer_printf(&out, "%s: generation %" PRIu64 "\n", buffer_string(text), generation.v);
    return print_out(&out);
}

static int
run_rollback(const struct arguments *a)
{
    BUFFER_AUTO error = {0};
    BUFFER_AUTO text = {0};
    struct generation generation;
    if (!a->at) {
        print_error("rollback needs --to: a generation, a snapshot or a time");
        return EXIT_STATUS_USAGE;
    }
    int rc = volume_rollback(&a->config, a->at, &generation, &error);
    if (rc < 0)
        return print_failure("rollback of", a, rc, &error);
    buffer_printf(&text, "%s is as it was at %s", a->operand, a->at);
    return print_made(a, generation, &text);
}

static struct offline_request
offline_request(const struct arguments *a)
{
    return (struct offline_request){
        .config = &a->config,
        .json = a->json,
        .quiet = a->quiet,
        .yes = a->yes,
        .data = a->data,
        .repair = a->repair,
        .root = a->root,
    };
}

static int
run_as_job(const struct arguments *a, const char *kind)
{
    const struct job_order order = {.path = a->operand,
        .kind = kind,
        .data = a->data,
        .no_wait = a->no_wait,
        .json = a->json,
        .quiet = a->quiet};
    return submit_job(&order);
}

static int
run_detach(const struct arguments *a)
{
    if (!a->at && !is_source(a->operand))
        return run_as_job(a, "DetachFork");
    const struct offline_request request = offline_request(a);
    if (!a->at)
        return detach_fork(&request);
    print_error("--at is for making a fork, not for detaching one");
    return EXIT_STATUS_USAGE;
}

static int
run_fork(const struct arguments *a)
{
    if (a->detach)
        return run_detach(a);
    BUFFER_AUTO error = {0};
    BUFFER_AUTO text = {0};
    struct generation generation;
    struct volume_config parent;
    volume_config_copy(&parent, &a->config);
    free(parent.source);
    parent.source = memory_string(a->name);
    int rc = volume_fork(&parent, a->at, a->operand, &generation, &error);
    volume_config_free(&parent);
    if (rc < 0)
        return print_failure("fork to", a, rc, &error);
    if (error.length > 0)
        print_error("%s", buffer_string(&error));
    buffer_printf(&text, "%s is a fork of %s", a->operand, a->name);
    return print_made(a, generation, &text);
}

static int
run_destroy(const struct arguments *a)
{
    const struct offline_request request = offline_request(a);
    return destroy_volume(&request);
}

static int
run_verify(const struct arguments *a)
{
    if (!is_source(a->operand) && (a->repair || a->root)) {
        print_error("--repair is for a SOURCE");
        return EXIT_STATUS_USAGE;
    }
    if (!is_source(a->operand))
        return run_as_job(a, "VerifyManifest");
    const struct offline_request request = offline_request(a);
    return verify_volume(&request);
}

static int
run_jobs(const struct arguments *a)
{
    return show_jobs(a->operand, a->json, a->watch);
}

static int
run_job_start(const struct arguments *a)
{
    return run_as_job(a, a->name);
}

static int
run_job_show(const struct arguments *a)
{
    return handle_job(a->name, a->operand, JOB_VERB_SHOW, a->json);
}

static int
run_job_wait(const struct arguments *a)
{
    return handle_job(a->name, a->operand, JOB_VERB_WAIT, a->json);
}

static int
run_job_cancel(const struct arguments *a)
{
    return handle_job(a->name, a->operand, JOB_VERB_CANCEL, a->json);
}

static int
run_truncate(const struct arguments *a)
{
    const struct truncate_request request = {.path = a->operand,
        .head = a->head,
        .tail = a->tail,
        .no_wait = a->no_wait,
        .json = a->json,
        .quiet = a->quiet};
    return truncate_file(&request);
}

static int
run_variant(const struct arguments *a)
{
    return handle_variant(a->operand, a->policy, a->json);
}

static int
run_changes(const struct arguments *a)
{
    const struct changes_request request = {.path = a->operand,
        .name = a->subscriber ? a->subscriber : "",
        .after = a->after,
        .follow = a->follow,
        .leave = a->leave};
    if (a->leave && !a->subscriber) {
        print_error("--leave needs --subscriber NAME");
        return EXIT_STATUS_USAGE;
    }
    return show_changes(&request);
}

static int
run_flags(const struct arguments *a)
{
    return handle_flags(a->operand, a->policy, a->json);
}

static int
run_cat(const struct arguments *a)
{
    if (a->cold)
        return cat_file(a->operand, a->quiet);
    print_error("cat needs --cold; without it, cat(1) does the same");
    return EXIT_STATUS_USAGE;
}

static int
run_limits(const struct arguments *a)
{
    return handle_limits(a->operand, a->policy, a->json);
}

static int
run_push(const struct arguments *a)
{
    struct offline_request request = offline_request(a);
    request.root = a->name;
    request.partial = a->partial;
    return push_root(&request);
}

// ---- the table ----------------------------------------------------------------------------------

static const struct option create_switches[] = {
    {"help", no_argument, NULL, 'h'}, {NULL, 0, NULL, 0}};
static const struct option status_switches[] = {{"help", no_argument, NULL, 'h'},
    {"json", no_argument, NULL, SWITCH_JSON}, {"fuse", no_argument, NULL, SWITCH_FUSE},
    {"root", required_argument, NULL, SWITCH_ROOT}, {"check", no_argument, NULL, SWITCH_CHECK},
    {"max-age", required_argument, NULL, SWITCH_MAX_AGE}, {NULL, 0, NULL, 0}};
static const struct option metrics_switches[] = {{"help", no_argument, NULL, 'h'},
    {"root", required_argument, NULL, SWITCH_ROOT},
    {"textfile", required_argument, NULL, SWITCH_TEXTFILE}, {NULL, 0, NULL, 0}};
static const struct option checkpoint_switches[] = {{"help", no_argument, NULL, 'h'},
    {"json", no_argument, NULL, SWITCH_JSON}, {"no-wait", no_argument, NULL, SWITCH_NO_WAIT},
    {"local", no_argument, NULL, SWITCH_LOCAL}, {"quiet", no_argument, NULL, 'q'},
    {NULL, 0, NULL, 0}};
static const struct option check_switches[] = {{"help", no_argument, NULL, 'h'},
    {"json", no_argument, NULL, SWITCH_JSON}, {"quiet", no_argument, NULL, 'q'},
    {NULL, 0, NULL, 0}};
static const struct option unmount_switches[] = {{"help", no_argument, NULL, 'h'},
    {"json", no_argument, NULL, SWITCH_JSON}, {"quiet", no_argument, NULL, 'q'},
    {"wait", required_argument, NULL, SWITCH_WAIT}, {NULL, 0, NULL, 0}};

static const struct option gc_switches[] = {{"help", no_argument, NULL, 'h'},
    {"json", no_argument, NULL, SWITCH_JSON}, {"dry-run", no_argument, NULL, SWITCH_DRY_RUN},
    {"sweep", no_argument, NULL, SWITCH_SWEEP}, {NULL, 0, NULL, 0}};
static const struct option retention_switches[] = {{"help", no_argument, NULL, 'h'},
    {"json", no_argument, NULL, SWITCH_JSON}, {"set", required_argument, NULL, SWITCH_SET},
    {NULL, 0, NULL, 0}};
static const struct option evict_switches[] = {{"help", no_argument, NULL, 'h'},
    {"json", no_argument, NULL, SWITCH_JSON}, {"all", no_argument, NULL, SWITCH_ALL},
    {"quiet", no_argument, NULL, 'q'}, {NULL, 0, NULL, 0}};
static const struct option hydrate_switches[] = {{"help", no_argument, NULL, 'h'},
    {"json", no_argument, NULL, SWITCH_JSON}, {"all", no_argument, NULL, SWITCH_ALL},
    {"pin", no_argument, NULL, SWITCH_PIN}, {"hot", no_argument, NULL, SWITCH_HOT},
    {"no-wait", no_argument, NULL, SWITCH_NO_WAIT}, {"quiet", no_argument, NULL, 'q'},
    {NULL, 0, NULL, 0}};
static const struct option quota_switches[] = {{"help", no_argument, NULL, 'h'},
    {"json", no_argument, NULL, SWITCH_JSON}, {"set", required_argument, NULL, SWITCH_SET},
    {"root", no_argument, NULL, SWITCH_OF_ROOT}, {"tenant", no_argument, NULL, SWITCH_OF_TENANT},
    {"jobs", no_argument, NULL, SWITCH_OF_JOBS}, {NULL, 0, NULL, 0}};
static const struct option at_switches[] = {{"help", no_argument, NULL, 'h'},
    {"json", no_argument, NULL, SWITCH_JSON}, {"at", required_argument, NULL, SWITCH_AT},
    {NULL, 0, NULL, 0}};
static const struct option rollback_switches[] = {{"help", no_argument, NULL, 'h'},
    {"json", no_argument, NULL, SWITCH_JSON}, {"to", required_argument, NULL, SWITCH_AT},
    {NULL, 0, NULL, 0}};
static const struct option fork_switches[] = {{"help", no_argument, NULL, 'h'},
    {"json", no_argument, NULL, SWITCH_JSON}, {"at", required_argument, NULL, SWITCH_AT},
    {"detach", no_argument, NULL, SWITCH_DETACH}, {"no-wait", no_argument, NULL, SWITCH_NO_WAIT},
    {NULL, 0, NULL, 0}};
static const struct option destroy_switches[] = {{"help", no_argument, NULL, 'h'},
    {"json", no_argument, NULL, SWITCH_JSON}, {"yes", no_argument, NULL, SWITCH_YES},
    {NULL, 0, NULL, 0}};
static const struct option jobs_switches[] = {{"help", no_argument, NULL, 'h'},
    {"json", no_argument, NULL, SWITCH_JSON}, {"watch", no_argument, NULL, SWITCH_WATCH},
    {NULL, 0, NULL, 0}};
static const struct option changes_switches[] = {{"help", no_argument, NULL, 'h'},
    {"after", required_argument, NULL, SWITCH_AFTER}, {"follow", no_argument, NULL, SWITCH_FOLLOW},
    {"leave", no_argument, NULL, SWITCH_LEAVE},
    {"subscriber", required_argument, NULL, SWITCH_SUBSCRIBER}, {NULL, 0, NULL, 0}};
static const struct option truncate_switches[] = {{"help", no_argument, NULL, 'h'},
    {"json", no_argument, NULL, SWITCH_JSON}, {"head", required_argument, NULL, SWITCH_HEAD},
    {"tail", required_argument, NULL, SWITCH_TAIL}, {"no-wait", no_argument, NULL, SWITCH_NO_WAIT},
    {"quiet", no_argument, NULL, 'q'}, {NULL, 0, NULL, 0}};
static const struct option start_switches[] = {{"help", no_argument, NULL, 'h'},
    {"json", no_argument, NULL, SWITCH_JSON}, {"data", no_argument, NULL, SWITCH_DATA},
    {"no-wait", no_argument, NULL, SWITCH_NO_WAIT}, {NULL, 0, NULL, 0}};
static const struct option verify_switches[] = {{"help", no_argument, NULL, 'h'},
    {"json", no_argument, NULL, SWITCH_JSON}, {"quiet", no_argument, NULL, 'q'},
    {"data", no_argument, NULL, SWITCH_DATA}, {"repair", no_argument, NULL, SWITCH_REPAIR},
    {"no-wait", no_argument, NULL, SWITCH_NO_WAIT}, {"root", required_argument, NULL, SWITCH_ROOT},
    {NULL, 0, NULL, 0}};
static const struct option push_switches[] = {{"help", no_argument, NULL, 'h'},
    {"json", no_argument, NULL, SWITCH_JSON}, {"partial", no_argument, NULL, SWITCH_PARTIAL},
    {NULL, 0, NULL, 0}};
static const struct option cat_switches[] = {{"help", no_argument, NULL, 'h'},
    {"cold", no_argument, NULL, SWITCH_COLD}, {"quiet", no_argument, NULL, 'q'},
    {NULL, 0, NULL, 0}};
static const struct option json_switches[] = {
    {"help", no_argument, NULL, 'h'}, {"json", no_argument, NULL, SWITCH_JSON}, {NULL, 0, NULL, 0}};

const struct command commands[] = {
    {"create", ":ho:", create_switches, "create [-o OPTION,...] SOURCE",
        "Makes an empty volume at SOURCE: s3://BUCKET[/PREFIX]/TENANT or\n"
        "file:///DIRECTORY/TENANT. It must not exist.\n",
        "SOURCE", .run = run_create, .lists_options = true},
    {"status", ":h", status_switches,
        "status [--fuse | --check [--max-age SECONDS]] [--json] MOUNTPOINT | --root ROOT",
        "Shows the state of the volume mounted at MOUNTPOINT; any path below it will do.\n"
        "\n"
        "    --root ROOT  show instead the volumes of the storage root ROOT, mounted or not,\n"
        "                 and how much of them is not in the store\n"
        "    --fuse       show the number of the kernel's requests since the mount, by opcode\n"
        "    --check      tell in one line whether the volume is well, and why not\n"
        "    --max-age SECONDS\n"
        "                 it is not when a change has waited longer for the store\n"
        "    --json       all of it, as one JSON object\n"
        "\n"
        "Exit status of --check: 0 the volume is well, 2 it cannot be asked, 4 damaged,\n"
        "5 fenced, 6 read-only, 7 unclaimed, 8 stale. The lowest of them counts.\n",
        "MOUNTPOINT", .run = run_status, .takes_root = true},
    {"metrics", ":h", metrics_switches, "metrics [--textfile PATH] MOUNTPOINT | --root ROOT",
        "Prints all numbers of the volume in the text format of Prometheus.\n"
        "\n"
        "    --root ROOT      those of the volumes of a storage root, mounted or not, that can be\n"
        "                     had without their daemons\n"
        "    --textfile PATH  write them to PATH instead, for the textfile collector of\n"
        "                     node_exporter: readers see the old file or the new one\n",
        "MOUNTPOINT", .run = run_metrics, .takes_root = true},
    {"checkpoint", ":hq", checkpoint_switches,
        "checkpoint [--no-wait] [--local] [--json] [-q] MOUNTPOINT",
        "Makes a checkpoint of all changes on the mount so far and waits until it is in the\n"
        "store.\n"
        "\n"
        "    --no-wait    start it and print its ticket\n"
        "    --local      only the local generation; do not wait for the store\n"
        "    --json       print the result as a JSON object\n"
        "    -q, --quiet  no progress, and no output after success\n",
        "MOUNTPOINT", .run = run_checkpoint},
    {"check", ":hq", check_switches, "check [--json] [-q] MOUNTPOINT",
        "Makes the daemon look through the manifest of its storage root: every entry, and the\n"
        "counts and references of the volume. Changes nothing.\n"
        "\n"
        "    --json       print the result as a JSON object\n"
        "    -q, --quiet  no output when it is whole\n"
        "\n"
        "Exit status: 0 it is whole, 2 it is damaged or the check failed.\n",
        "MOUNTPOINT", .run = run_check},
    {"unmount", ":hq", unmount_switches, "unmount [--wait SECONDS] [--json] [-q] MOUNTPOINT",
        "Unmounts, waits until the daemon has published the rest and has ended, and says\n"
        "whether everything is in the store.\n"
        "\n"
        "    --wait SECONDS  wait at most this long for the daemon; 0: not at all\n"
        "    --json          print the storage root's state afterwards as a JSON object\n"
        "    -q, --quiet     no progress, and no output after success\n"
        "\n"
        "Exit status: 0 everything is in the store, 2 it is not or unmounting failed, 3 the\n"
        "daemon goes on.\n",
        "MOUNTPOINT", .run = run_unmount},
    {"generations", ":ho:", json_switches, "generations [--json] MOUNTPOINT|SOURCE",
        "Lists the kept published generations, with their times and the reasons.\n"
        "Option -o at=GENERATION mounts one of them read-only.\n"
        "\n"
        "    --json  as a JSON array\n",
        "MOUNTPOINT", .run = run_generations},
    {"retention", ":ho:", retention_switches, "retention [--set POLICY] [--json] MOUNTPOINT|SOURCE",
        "Shows the policy: the generations to keep besides the newest one and snapshots.\n"
        "\n"
        "    --set POLICY  changes it: all, default, or items with commas between them:\n"
        "                  last=N, within=TIME, hourly=N, daily=N, weekly=N, monthly=N,\n"
        "                  grace=TIME (between the expiry of a generation and its deletion);\n"
        "                  TIME is a number with s, m, h, d or w behind it\n"
        "    --json        as a JSON object\n",
        "MOUNTPOINT", .run = run_retention},
    {"quota", ":h", quota_switches,
        "quota [--set SIZE [--tenant | --root] | --set PERCENT --jobs] [--json] MOUNTPOINT",
        "Shows how much disk space the volume, its tenant and its storage root take, and may\n"
        "take.\n"
        "\n"
        "    --set SIZE  lets the volume take so much (units K, M, G, T) until it is unmounted;\n"
        "                0: as much as there is\n"
        "    --tenant    sets it for all volumes of the tenant in the storage root, for good\n"
        "    --root      sets it for all volumes in the storage root together, for good\n"
        "    --jobs      sets the part of each quota, in per cent, that jobs (hydrate, merging, "
        "...)\n"
        "                may fill with copies of what is in the store, until the unmount\n"
        "    --json      as a JSON object\n",
        "MOUNTPOINT", .run = run_quota},
    {"hydrate", ":hq", hydrate_switches,
        "hydrate [--pin] [--no-wait] [--json] [-q] FILE | --all MOUNTPOINT | --hot MOUNTPOINT",
        "Brings a file, or all files, from the store to the local disk, so that reading them\n"
        "needs no store. Waits for that; an interrupt (^C) ends it, and what has come stays.\n"
        "\n"
        "    --all        all files, as far as the quota has free room\n"
        "    --hot        the parts that were in use on the host that had the volume before, the\n"
        "                 hottest first, as far as there is free room\n"
        "    --pin        they stay there until \"ckptctl evict\" or the unmount\n"
        "    --no-wait    do not wait: print the number of the job\n"
        "    --json       print the job as a JSON object\n"
        "    -q, --quiet  no progress, and no output after success\n",
        "FILE", .run = run_hydrate},
    {"evict", ":hq", evict_switches, "evict [--json] [-q] FILE | --all MOUNTPOINT",
        "Removes local copies of images that are in the store, and that nothing needs at this\n"
        "moment: those that hold a part of FILE, which may hold parts of others, too, or all.\n"
        "Reading them fetches them again. Files that were pinned are pinned no more. An interrupt\n"
        "(^C) stops it between two images.\n"
        "\n"
        "    --all        all images of the volume\n"
        "    --json       print the result as a JSON object\n"
        "    -q, --quiet  no progress, and no output after success\n",
        "FILE", .run = run_evict},
    {"gc", ":ho:", gc_switches, "gc [--dry-run] [--sweep] [--json] MOUNTPOINT|SOURCE",
        "Expires the generations that the policy does not keep, and deletes the blobs that only\n"
        "expired generations needed, once their grace period is over. The daemon does so by\n"
        "itself every ten minutes while the volume changes.\n"
        "\n"
        "    --dry-run  tell the steps and their reasons; change nothing\n"
        "    --sweep    also look for orphaned objects in the store\n"
        "    --json     as a JSON object\n",
        "MOUNTPOINT", .run = run_gc},
    {"snapshot create", ":ho:", at_switches,
        "snapshot create [--at GENERATION|TIME] [--json] NAME MOUNTPOINT|SOURCE",
        "Makes a checkpoint, waits until it is in the store, and gives it a name; of a SOURCE,\n"
        "names the newest generation, or the one of --at. A generation with a name stays until\n"
        "snapshot drop; -o at=NAME mounts it.\n",
        "NAME MOUNTPOINT", .run = run_snapshot_create},
    {"snapshot drop", ":ho:", json_switches, "snapshot drop NAME MOUNTPOINT|SOURCE",
        "Takes the name away. The daemon later deletes the blobs of that generation alone.\n",
        "NAME MOUNTPOINT", .run = run_snapshot_drop},
    {"snapshot list", ":ho:", json_switches, "snapshot list [--json] MOUNTPOINT|SOURCE",
        "Lists the snapshots with their generations and times.\n", "MOUNTPOINT",
        .run = run_snapshot_list},
    {"snapshot show", ":ho:", json_switches, "snapshot show NAME MOUNTPOINT|SOURCE",
        "Prints the JSON object of a snapshot in the store.\n", "NAME MOUNTPOINT",
        .run = run_snapshot_show},
    {"rollback", ":ho:", rollback_switches,
        "rollback --to GENERATION|SNAPSHOT|TIME [-o OPTION,...] [--json] SOURCE",
        "Makes a new generation that equals an old one, on a volume that is not mounted. The\n"
        "generations in between stay as long as the retention policy keeps them, so another\n"
        "rollback can undo this one.\n",
        "SOURCE", .run = run_rollback},
    {"fork", ":ho:", fork_switches,
        "fork [--at GENERATION|SNAPSHOT|TIME] [-o OPTION,...] [--json] SOURCE NEWSOURCE\n"
        "       ckptctl fork --detach [-o OPTION,...] [--no-wait] [--json] MOUNTPOINT|SOURCE",
        "Makes the volume NEWSOURCE out of a generation of SOURCE, in the same store, without\n"
        "copying data. Both are independent from then on; SOURCE keeps that generation.\n"
        "\n"
        "    --detach  copy the blobs of the fork SOURCE in its parent's part of the store into\n"
        "              its own, so that the parent need not keep anything for it. On a mount a\n"
        "              job does that, while programs go on\n"
        "    --no-wait  print the job's number and do not wait for it\n",
        "SOURCE NEWSOURCE", .run = run_fork},
    {"truncate", ":hq", truncate_switches,
        "truncate --head OFFSET | --tail OFFSET [--no-wait] [--json] [-q] FILE",
        "Removes data of an append-only file: what lies before OFFSET, which becomes a hole, or\n"
        "all that lies behind it. Waits for checkpoints that work on that data, and cancels them\n"
        "after 30 seconds.\n"
        "\n"
        "    --head OFFSET  a multiple of 64M; K, M, G and T may stand behind the number\n"
        "    --tail OFFSET  any byte of the file\n"
        "    --no-wait      print the job's number and do not wait for it\n"
        "    --json         print the job as a JSON object\n"
        "    -q, --quiet    no output when it went well\n",
        "FILE", .run = run_truncate},
    {"variant", ":h", retention_switches, "variant [--set VARIANT] [--json] FILE|DIRECTORY",
        "Shows how checkpoints treat a file, or files that are made in a directory.\n"
        "\n"
        "    --set VARIANT  changes it: append-only, random (pages change anywhere), or detect\n"
        "    --json         as a JSON object\n",
        "FILE", .run = run_variant},
    {"flags", ":h", retention_switches, "flags [--set NAME=on|off] [--json] MOUNTPOINT",
        "Shows which functions are on and off for the volume on this host.\n"
        "\n"
        "    --set NAME=on|off  changes it: enable_checkpoints (by the timer),\n"
        "                       enable_chunk_deltas, enable_append_only_truncation,\n"
        "                       enable_cold_scan (marked files are read past the caches),\n"
        "                       cold_scan_all (all files are)\n"
        "    --json             as a JSON object\n",
        "MOUNTPOINT", .run = run_flags},
    {"cat", ":hq", cat_switches, "cat --cold [-q] FILE",
        "Writes FILE to standard output. What is read stays out of hot_cache and of all caches in\n"
        "memory, and what is there stays.\n"
        "\n"
        "    -q, --quiet  no progress on a terminal\n",
        "FILE", .run = run_cat},
    {"limits", ":h", retention_switches, "limits [--set NAME=VALUE] [--json] MOUNTPOINT",
        "Shows how fast the mount may read from the store and upload to it.\n"
        "\n"
        "    --set NAME=VALUE  changes it until the mount ends: read_limit=SIZE and\n"
        "                      upload_limit=SIZE (bytes a second; units K, M, G), or\n"
        "                      read_requests=N (at the same time); 0: no limit.\n"
        "                      tenant_read_limit=SIZE and tenant_read_requests=N: for\n"
        "                      all mounts of the tenant in the root, and until changed\n"
        "    --json            as a JSON object\n",
        "MOUNTPOINT", .run = run_limits},
    {"changes", ":h", changes_switches,
        "changes [--after N] [--subscriber NAME [--leave]] [--follow] MOUNTPOINT",
        "Prints the change log: one JSON object a line for each change of the manifest, which "
        "names\n"
        "blobs only once they are in the store. The newest 1,024 are kept, and what subscribers "
        "have\n"
        "not read.\n"
        "\n"
        "    --after N          those behind this one\n"
        "    --subscriber NAME  go on where this subscriber stopped, and keep its position;\n"
        "                       one that reads nothing for a week is forgotten\n"
        "    --leave            forget it\n"
        "    --follow           print new entries as they come, until it is interrupted\n",
        "MOUNTPOINT", .run = run_changes},
    {"jobs", ":h", jobs_switches, "jobs [--watch] [--json] MOUNTPOINT",
        "Lists the jobs that wait, run, or have ended lately.\n"
        "\n"
        "    --watch  again each second, until it is interrupted\n"
        "    --json   as a JSON array\n",
        "MOUNTPOINT", .run = run_jobs},
    {"job start", ":h", start_switches, "job start [--data] [--no-wait] [--json] KIND MOUNTPOINT",
        "Submits a job and waits until it has ended: VerifyManifest (with --data it reads every\n"
        "blob), DownloadCheckpoint, PruneCheckpoint, SweepOrphans or DetachFork. When a job of "
        "the\n"
        "kind is unfinished, waits for that one.\n"
        "\n"
        "    --no-wait  print the job's number and do not wait for it\n",
        "KIND MOUNTPOINT", .run = run_job_start},
    {"job show", ":h", json_switches, "job show [--json] JOB MOUNTPOINT",
        "Shows a job: its state, how far it is, and why it failed.\n", "JOB MOUNTPOINT",
        .run = run_job_show},
    {"job wait", ":h", json_switches, "job wait [--json] JOB MOUNTPOINT",
        "Waits until a job has ended.\n"
        "\n"
        "Exit status: 0 it is completed, 2 it failed.\n",
        "JOB MOUNTPOINT", .run = run_job_wait},
    {"job cancel", ":h", json_switches, "job cancel JOB MOUNTPOINT",
        "Asks for the end of a job. After a checkpoint that was cancelled, the next one takes "
        "its changes.\n",
        "JOB MOUNTPOINT", .run = run_job_cancel},
    {"destroy", ":ho:", destroy_switches, "destroy [--yes] [-o OPTION,...] [--json] SOURCE",
        "Deletes everything that the volume has in the store: all generations, snapshots and the\n"
        "volume itself. Asks for the volume's name first. Refuses while forks, readers or a host\n"
        "that has it mounted need it, and names them. Touches no other volume; takes a fork's\n"
        "pin in its parent away. After an interruption the same command goes on.\n"
        "\n"
        "    --yes   do not ask\n"
        "    --json  as a JSON object\n",
        "SOURCE", .run = run_destroy},
    {"verify", ":ho:q", verify_switches,
        "verify [--data] [--repair [--root ROOT]] [-o OPTION,...] [--json] [-q] SOURCE\n"
        "       ckptctl verify [--data] [--no-wait] [--json] [-q] MOUNTPOINT",
        "Looks through everything that the volume has in the store: records, catalogs, the state\n"
        "of each generation that is kept, and whether each blob is there with its size. Names "
        "what\n"
        "is damaged, and the files and generations that need it. On a mount a job does that; the\n"
        "daemon's log names what is damaged.\n"
        "\n"
        "    --data       read every blob, too, and compare its checksum\n"
        "    --repair     make damaged catalogs anew from the records, and put blobs back\n"
        "    --root ROOT  from this storage root, which had the volume\n"
        "    --json       as a JSON object\n"
        "    -q, --quiet  no progress, and no output when it is sound\n"
        "\n"
        "Exit status: 0 it is sound, 4 something is damaged, 2 it could not be looked through.\n",
        "SOURCE", .run = run_verify},
    {"push", ":ho:", push_switches, "push [--partial] [-o OPTION,...] [--json] ROOT NEWSOURCE",
        "Makes the volume NEWSOURCE from the copies in the storage root ROOT, whose own bucket is\n"
        "lost. The volume must not be mounted. Refuses when blobs are lost, and names the files.\n"
        "\n"
        "    --partial  push the rest all the same: reading the lost parts of files fails\n"
        "    --json     as a JSON object\n",
        "ROOT NEWSOURCE", .run = run_push},
};

const size_t command_count = sizeof(commands) / sizeof(*commands);
