// SPDX-License-Identifier: Apache-2.0
// ckptctl: makes volumes and controls mounted ones.
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "config.h"
#include "fuse/ckptctl.h"
#include "fuse/options.h"
#include "platform/clock.h"
#include "platform/file.h"
#include "platform/log.h"
#include "platform/memory.h"
#include "volume/volume.h"

struct arguments {
    struct volume_config config; // create
    bool json;
    bool no_wait;
    bool local;
    bool fuse;
    bool quiet;
    const char *operand; // SOURCE or MOUNTPOINT
};

struct command {
    const char *name;
    const char *switches; // for getopt_long: the short ones; 'h' is always there
    const struct option *long_switches;
    const char *usage;
    const char *help; // what stands below the usage line
    int (*run)(const struct arguments *arguments);
};

// ---- commands -----------------------------------------------------------------------------------

static int
run_create(const struct arguments *a)
{
    BUFFER_AUTO error = {0};
    int rc = volume_create(&a->config, &error);
    if (rc == 0)
        return EXIT_SUCCESS;
    if (error.length == 0)
        buffer_printf(&error, "create %s: %s", a->config.source, strerror(-rc));
    fprintf(stderr, "ckptctl: %s\n", buffer_string(&error));
    return EXIT_STATUS_ERROR;
}

static int
print_out(struct buffer *text)
{
    if (fwrite(text->data, 1, text->length, stdout) == text->length && fflush(stdout) == 0)
        return EXIT_SUCCESS;
    fprintf(stderr, "ckptctl: standard output: %s\n", strerror(errno));
    return EXIT_STATUS_ERROR;
}

static int
print_fuse(const struct arguments *a, int fd)
{
    BUFFER_AUTO text = {0};
    struct ckptfs_fuse_requests requests;
    int rc = control_fuse_requests(fd, &requests);
    if (rc != 0)
        return control_failed("status of", a->operand, rc);
    if (a->json)
        print_fuse_requests_json(&requests, &text);
    else
        print_fuse_requests(&requests, &text);
    return print_out(&text);
}

static int
run_status(const struct arguments *a)
{
    BUFFER_AUTO text = {0};
    struct ckptfs_status status;
    CLEANUP(file_close_auto) int fd = control_open(a->operand);
    if (fd < 0)
        return EXIT_STATUS_ERROR;
    if (a->fuse)
        return print_fuse(a, fd);
    int rc = control_status(fd, &status);
    CLEANUP(memory_free_auto) struct ckptfs_metrics *metrics = memory_alloc(sizeof(*metrics));
    if (rc == 0)
        rc = control_metrics(fd, metrics);
    if (rc != 0)
        return control_failed("status of", a->operand, rc);
    if (a->json)
        print_status_json(&status, metrics, &text);
    else
        print_status(&status, metrics, clock_wall_ms(), &text);
    return print_out(&text);
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
    CLEANUP(file_close_auto) int fd = control_open(a->operand);
    if (fd < 0)
        return EXIT_STATUS_ERROR;
    uint32_t flags =
        (a->no_wait ? 0 : CKPTFS_CHECKPOINT_WAIT) | (a->local ? CKPTFS_CHECKPOINT_LOCAL_ONLY : 0);
    struct progress *progress = NULL;
    if (!a->no_wait && !a->quiet && !a->json)
        progress = progress_start(fd);
    int rc = control_checkpoint(fd, flags, &done);
    progress_stop(progress);
    if (rc != 0)
        return control_failed("checkpoint of", a->operand, rc);
    if (a->quiet && !a->json)
        return EXIT_SUCCESS;
    return print_checkpoint(a, &done, a->operand, fd);
}

// ---- the command line ---------------------------------------------------------------------------

enum { SWITCH_JSON = 256, SWITCH_NO_WAIT, SWITCH_LOCAL, SWITCH_FUSE };

static const struct option create_switches[] = {
    {"help", no_argument, NULL, 'h'}, {NULL, 0, NULL, 0}};
static const struct option status_switches[] = {{"help", no_argument, NULL, 'h'},
    {"json", no_argument, NULL, SWITCH_JSON}, {"fuse", no_argument, NULL, SWITCH_FUSE},
    {NULL, 0, NULL, 0}};
static const struct option checkpoint_switches[] = {{"help", no_argument, NULL, 'h'},
    {"json", no_argument, NULL, SWITCH_JSON}, {"no-wait", no_argument, NULL, SWITCH_NO_WAIT},
    {"local", no_argument, NULL, SWITCH_LOCAL}, {"quiet", no_argument, NULL, 'q'},
    {NULL, 0, NULL, 0}};

static const struct command commands[] = {
    {"create", ":ho:", create_switches, "create [-o OPTION,...] SOURCE",
        "Makes an empty volume at SOURCE: s3://BUCKET[/PREFIX]/TENANT or\n"
        "file:///DIRECTORY/TENANT. It must not exist.\n",
        run_create},
    {"status", ":h", status_switches, "status [--fuse] [--json] MOUNTPOINT",
        "Shows the state of the volume mounted at MOUNTPOINT; any path below it will do.\n"
        "\n"
        "    --fuse       how many requests the kernel has sent since the mount, by opcode\n"
        "    --json       all of it, as one JSON object\n",
        run_status},
    {"checkpoint", ":hq", checkpoint_switches,
        "checkpoint [--no-wait] [--local] [--json] [-q] MOUNTPOINT",
        "Makes a checkpoint of everything that has happened on the mount so far and waits\n"
        "until it is in the store.\n"
        "\n"
        "    --no-wait    start it and print its ticket\n"
        "    --local      only the local generation; do not wait for the store\n"
        "    --json       print the result as a JSON object\n"
        "    -q, --quiet  no progress, and no output when it went well\n",
        run_checkpoint},
};

static void
print_usage(FILE *out)
{
    fputs("Usage: ckptctl COMMAND ...\n", out);
    for (size_t i = 0; i < ARRAY_LENGTH(commands); i++)
        fprintf(out, "       ckptctl %s\n", commands[i].usage);
    fputs("       ckptctl --help | --version\n"
          "\nckptctl COMMAND --help tells more about a command.\n",
        out);
}

static void
print_help(const struct command *c)
{
    printf("Usage: ckptctl %s\n%s", c->usage, c->help);
    if (c->run != run_create)
        return;
    BUFFER_AUTO options = {0};
    volume_config_help(&options);
    printf("\nOptions, as for ckptfs (those of mounting have no effect here):\n%s",
        buffer_string(&options));
}

static int
usage_error(const struct command *c, const char *text)
{
    fprintf(stderr, "ckptctl: %s\nUsage: ckptctl %s\n", text, c->usage);
    return EXIT_STATUS_USAGE;
}

static int
take_option(void *config, const char *option, struct buffer *error)
{
    int rc = volume_config_set(config, option, error);
    if (rc == -ENOENT)
        buffer_printf(error, "option %s is not known; see ckptctl create --help", option);
    return rc;
}

static int
take_switch(const struct command *c, struct arguments *a, int letter)
{
    BUFFER_AUTO error = {0};
    switch (letter) {
    case SWITCH_JSON:
        a->json = true;
        return EXIT_SUCCESS;
    case SWITCH_NO_WAIT:
        a->no_wait = true;
        return EXIT_SUCCESS;
    case SWITCH_LOCAL:
        a->local = true;
        return EXIT_SUCCESS;
    case SWITCH_FUSE:
        a->fuse = true;
        return EXIT_SUCCESS;
    case 'q':
        a->quiet = true;
        return EXIT_SUCCESS;
    case 'o':
        if (options_split(optarg, take_option, &a->config, &error) == 0)
            return EXIT_SUCCESS;
        return usage_error(c, buffer_string(&error));
    default:
        return usage_error(c, "unknown switch, or one without its value");
    }
}

// `argv[0]` is the command's name.
static int
parse_and_run(const struct command *c, struct arguments *a, int argc, char *const argv[])
{
    optind = 0;
    for (;;) {
        int letter = getopt_long(argc, argv, c->switches, c->long_switches, NULL);
        if (letter == -1)
            break;
        if (letter == 'h') {
            print_help(c);
            return EXIT_SUCCESS;
        }
        int status = take_switch(c, a, letter);
        if (status != EXIT_SUCCESS)
            return status;
    }
    if (argc - optind != 1 || argv[optind][0] == '\0')
        return usage_error(c, c->run == run_create ? "give one SOURCE" : "give one MOUNTPOINT");
    a->operand = argv[optind];
    a->config.source = memory_string(argv[optind]);
    return c->run(a);
}

int
main(int argc, char *argv[])
{
    if (argc < 2) {
        print_usage(stderr);
        return EXIT_STATUS_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        print_usage(stdout);
        return EXIT_SUCCESS;
    }
    if (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-V") == 0) {
        printf("ckptctl %s\n", PACKAGE_VERSION);
        return EXIT_SUCCESS;
    }
    // What went wrong is printed once, as text.
    log_set_level(LOG_LEVEL_ERROR);
    for (size_t i = 0; i < ARRAY_LENGTH(commands); i++) {
        if (strcmp(argv[1], commands[i].name) != 0)
            continue;
        struct arguments arguments = {0};
        volume_config_init(&arguments.config);
        int status = parse_and_run(&commands[i], &arguments, argc - 1, argv + 1);
        volume_config_free(&arguments.config);
        return status;
    }
    fprintf(stderr, "ckptctl: unknown command %s\n", argv[1]);
    print_usage(stderr);
    return EXIT_STATUS_USAGE;
}
