// SPDX-License-Identifier: Apache-2.0
// ckptctl: makes volumes and controls mounted ones.
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/similar.h"
#include "config.h"
#include "fuse/ckptctl.h"
#include "fuse/ckptctl_commands.h"
#include "fuse/options.h"
#include "platform/log.h"
#include "platform/memory.h"

static void
print_usage(FILE *out)
{
    fputs("Usage: ckptctl COMMAND ...\n", out);
    for (size_t i = 0; i < command_count; i++)
        fprintf(out, "       ckptctl %s\n", commands[i].usage);
    fputs("       ckptctl help [COMMAND]\n"
          "       ckptctl --help | --version\n"
          "\nckptctl COMMAND --help tells more about a command.\n",
        out);
}

static void
print_help(const struct command *c)
{
    printf("Usage: ckptctl %s\n%s", c->usage, c->help);
    if (!c->lists_options)
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
    if (rc != -ENOENT)
        return rc;
    const char *similar = volume_config_similar(option);
    buffer_printf(error, "option %s is not known; ", option);
    if (similar)
        buffer_printf(error, "did you mean %s?", similar);
    else
        buffer_append_string(error, "see ckptctl create --help");
    return rc;
}

static int
take_seconds(const struct command *c, const char *name, const char *text, int64_t *seconds_out)
{
    BUFFER_AUTO problem = {0};
    char *end;
    errno = 0;
    long value = strtol(text, &end, 10);
    if (*text < '0' || *text > '9' || *end != '\0' || errno != 0 || value > INT32_MAX) {
        buffer_printf(&problem, "%s takes a number of seconds", name);
        return usage_error(c, buffer_string(&problem));
    }
    *seconds_out = value;
    return EXIT_SUCCESS;
}

// `argument` is the word that getopt_long stopped at.
static int
unknown_switch(const struct command *c, const char *argument, int letter)
{
    BUFFER_AUTO text = {0};
    if (letter == ':') {
        buffer_printf(&text, "switch %s needs a value", argument);
        return usage_error(c, buffer_string(&text));
    }
    buffer_printf(&text, "unknown switch %s", argument);
    const char *name = argument;
    while (*name == '-')
        name++;
    const char *best = NULL;
    for (const struct option *o = c->long_switches; o->name; o++)
        best = similar_word(name, o->name, best);
    if (best)
        buffer_printf(&text, "; did you mean --%s?", best);
    return usage_error(c, buffer_string(&text));
}

static int
take_switch(const struct command *c, struct arguments *a, int letter, const char *argument)
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
    case SWITCH_WAIT:
        return take_seconds(c, "--wait", optarg, &a->wait_seconds);
    case SWITCH_CHECK:
        a->check = true;
        return EXIT_SUCCESS;
    case SWITCH_MAX_AGE:
        return take_seconds(c, "--max-age", optarg, &a->max_age_seconds);
    case SWITCH_TEXTFILE:
        a->textfile = optarg;
        return EXIT_SUCCESS;
    case SWITCH_ROOT:
        a->root = optarg;
        return EXIT_SUCCESS;
    case SWITCH_SET:
        a->policy = optarg;
        return EXIT_SUCCESS;
    case SWITCH_HOT:
        a->hot = true;
        return EXIT_SUCCESS;
    case SWITCH_PIN:
        a->pin = true;
        return EXIT_SUCCESS;
    case SWITCH_ALL:
        a->all = true;
        return EXIT_SUCCESS;
    case SWITCH_COLD:
        a->cold = true;
        return EXIT_SUCCESS;
    case SWITCH_OF_ROOT:
        a->quota_of = "root";
        return EXIT_SUCCESS;
    case SWITCH_OF_TENANT:
        a->quota_of = "tenant";
        return EXIT_SUCCESS;
    case SWITCH_OF_JOBS:
        a->quota_of = "jobs";
        return EXIT_SUCCESS;
    case SWITCH_AT:
        a->at = optarg;
        return EXIT_SUCCESS;
    case SWITCH_HEAD:
        a->head = optarg;
        return EXIT_SUCCESS;
    case SWITCH_TAIL:
        a->tail = optarg;
        return EXIT_SUCCESS;
    case SWITCH_FOLLOW:
        a->follow = true;
        return EXIT_SUCCESS;
    case SWITCH_LEAVE:
        a->leave = true;
        return EXIT_SUCCESS;
    case SWITCH_SUBSCRIBER:
        a->subscriber = optarg;
        return EXIT_SUCCESS;
    case SWITCH_AFTER:
        a->after = optarg;
        return EXIT_SUCCESS;
    case SWITCH_WATCH:
        a->watch = true;
        return EXIT_SUCCESS;
    case SWITCH_DRY_RUN:
        a->dry_run = true;
        return EXIT_SUCCESS;
    case SWITCH_DATA:
        a->data = true;
        return EXIT_SUCCESS;
    case SWITCH_PARTIAL:
        a->partial = true;
        return EXIT_SUCCESS;
    case SWITCH_REPAIR:
        a->repair = true;
        return EXIT_SUCCESS;
    case SWITCH_DETACH:
        a->detach = true;
        return EXIT_SUCCESS;
    case SWITCH_YES:
        a->yes = true;
        return EXIT_SUCCESS;
    case SWITCH_SWEEP:
        a->sweep = true;
        return EXIT_SUCCESS;
    case 'q':
        a->quiet = true;
        return EXIT_SUCCESS;
    case 'o':
        if (options_split(optarg, take_option, &a->config, &error) == 0)
            return EXIT_SUCCESS;
        return usage_error(c, buffer_string(&error));
    default:
        return unknown_switch(c, argument, letter);
    }
}

// `argv[0]` is the command's name.
static int
parse_and_run(const struct command *c, struct arguments *a, int argc, char *const argv[])
{
    optind = 0;
    for (;;) {
        // An unknown one in a group ("-qx") is shown with the whole group.
        const char *argument = optind > 0 && optind < argc ? argv[optind] : argc > 1 ? argv[1] : "";
        int letter = getopt_long(argc, argv, c->switches, c->long_switches, NULL);
        if (letter == -1)
            break;
        if ((letter == '?' || letter == ':') && optind > 0 && optind <= argc &&
            argv[optind - 1][0] == '-')
            argument = argv[optind - 1];
        if (letter == 'h') {
            print_help(c);
            return EXIT_SUCCESS;
        }
        int status = take_switch(c, a, letter, argument);
        if (status != EXIT_SUCCESS)
            return status;
    }
    // In place of an operand.
    bool by_root = a->root && c->takes_root;
    if (by_root && optind == argc)
        return c->run(a);
    int operands = strchr(c->operand, ' ') && !a->detach ? 2 : 1;
    if (operands == 2 && argc - optind == 2)
        a->name = argv[optind++];
    if (by_root || argc - optind != 1 || argv[optind][0] == '\0' || (operands == 2 && !a->name)) {
        BUFFER_AUTO text = {0};
        buffer_printf(&text, "give one %s%s", a->detach ? "SOURCE" : c->operand,
            a->root ? ", or --root ROOT" : "");
        return usage_error(c, buffer_string(&text));
    }
    a->operand = argv[optind];
    a->config.source = memory_string(argv[optind]);
    return c->run(a);
}

// Commands of two words are one name with a blank.
static const struct command *
find_command(int argc, char *const argv[], int *words_out)
{
    const char *name = argv[0];
    BUFFER_AUTO both = {0};
    *words_out = 1;
    if (argc > 1) {
        buffer_printf(&both, "%s %s", argv[0], argv[1]);
        for (size_t i = 0; i < command_count; i++)
            if (strcmp(buffer_string(&both), commands[i].name) == 0) {
                *words_out = 2;
                return &commands[i];
            }
    }
    if (strcmp(name, "snapshot") == 0) {
        fputs("ckptctl: snapshot create, drop, list or show?\n", stderr);
        return NULL;
    }
    for (size_t i = 0; i < command_count; i++)
        if (strcmp(name, commands[i].name) == 0)
            return &commands[i];
    const char *best = NULL;
    for (size_t i = 0; i < command_count; i++)
        best = similar_word(name, commands[i].name, best);
    fprintf(stderr, "ckptctl: unknown command %s", name);
    if (best)
        fprintf(stderr, "; did you mean %s?", best);
    fputc('\n', stderr);
    return NULL;
}

static int
help(int argc, char *const argv[])
{
    if (argc == 0) {
        print_usage(stdout);
        return EXIT_SUCCESS;
    }
    int words;
    const struct command *c = find_command(argc, argv, &words);
    if (!c)
        return EXIT_STATUS_USAGE;
    print_help(c);
    return EXIT_SUCCESS;
}

int
main(int argc, char *argv[])
{
    if (argc < 2) {
        print_usage(stderr);
        return EXIT_STATUS_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 ||
        strcmp(argv[1], "help") == 0)
        return help(argc - 2, argv + 2);
    if (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-V") == 0) {
        printf("ckptctl %s\n", PACKAGE_VERSION);
        return EXIT_SUCCESS;
    }
    // The error is printed once, as text.
    log_set_level(LOG_LEVEL_ERROR);
    int words;
    const struct command *c = find_command(argc - 1, argv + 1, &words);
    if (!c) {
        print_usage(stderr);
        return EXIT_STATUS_USAGE;
    }
    struct arguments arguments = {.wait_seconds = -1, .max_age_seconds = -1};
    volume_config_init(&arguments.config);
    int status = parse_and_run(c, &arguments, argc - words, argv + words);
    volume_config_free(&arguments.config);
    log_stop();
    return status;
}
