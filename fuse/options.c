// SPDX-License-Identifier: Apache-2.0
#include "fuse/options.h"

#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/similar.h"
#include "platform/memory.h"

// The kernel takes no more.
#define TIME_GRANULARITY_MAX_MS 1000u

// ---- options that are not the volume's ----------------------------------------------------------

enum mount_option_type {
    OPTION_IGNORE, // for mount(8), or done anyway
    OPTION_PASS,   // for mount(2)
    OPTION_FLAG,
    OPTION_BOTH, // for both of us
    OPTION_NUMBER,
    OPTION_TEXT,
    OPTION_REFUSE, // of mount(8), with the reason in `help`
};

struct mount_option {
    const char *name; // "x-*": all that begin with "x-"; "uid=": needs a value
    enum mount_option_type type;
    size_t offset;    // in struct options
    const char *help; // NULL: not worth a line
};

#define IN(field) offsetof(struct options, field)

static const struct mount_option mount_options[] = {
    {"allow_other", OPTION_FLAG, IN(allow_other),
        "let other users in (the default when root mounts)"},
    {"no_allow_other", OPTION_IGNORE, 0, "let only the user who mounts in"},
    {"allow_root", OPTION_PASS, 0, NULL},
    {"default_permissions", OPTION_IGNORE, 0, NULL},
    {"fsname=", OPTION_TEXT, IN(fsname), "device in the mount table (default SOURCE)"},
    {"subtype=", OPTION_IGNORE, 0, NULL},
    {"max_read=", OPTION_NUMBER, IN(max_read), "largest read request in bytes"},
    {"max_readahead=", OPTION_NUMBER, IN(max_readahead),
        "largest readahead in bytes (default 524288)"},
    {"max_background=", OPTION_NUMBER, IN(max_background),
        "background requests at the same time (default 1024)"},
    {"time_granularity_ms=", OPTION_NUMBER, IN(time_granularity_ms),
        "round times of files down to this, at most 1000 (default: not at all)"},
    {"no_cpu_latency", OPTION_FLAG, IN(no_cpu_latency),
        "let idle processors sleep deep while requests come fast"},
    {"core_dumps", OPTION_FLAG, IN(core_dumps),
        "keep the memory in core dumps, with the credentials for the store"},
    {"debug", OPTION_FLAG, IN(debug), "show every request; implies -f"},
    {"sync", OPTION_FLAG, IN(sync), "every write is synchronous"},
    {"async", OPTION_IGNORE, 0, NULL},
    {"suid", OPTION_PASS, 0, "set-user-ID bits and capabilities of programs count"},
    {"nosuid", OPTION_PASS, 0, NULL},
    {"dev", OPTION_PASS, 0, "device nodes may be opened"},
    {"nodev", OPTION_PASS, 0, NULL},
    {"exec", OPTION_PASS, 0, NULL},
    {"noexec", OPTION_PASS, 0, NULL},
    {"noiversion", OPTION_IGNORE, 0, NULL},
    {"nomand", OPTION_IGNORE, 0, NULL},
    {"silent", OPTION_IGNORE, 0, NULL},
    {"loud", OPTION_IGNORE, 0, NULL},
    {"symfollow", OPTION_IGNORE, 0, NULL},
    {"dirsync", OPTION_REFUSE, 0, "changes of names are durable after fsync of the directory"},
    {"iversion", OPTION_REFUSE, 0, "files have no change counter"},
    {"mand", OPTION_REFUSE, 0, "Linux has no mandatory locks any more"},
    {"nosymfollow", OPTION_REFUSE, 0, "libfuse cannot ask the kernel for it"},
    {"remount", OPTION_REFUSE, 0,
        "the options of a mount are those of its daemon; unmount it and mount it again"},
    {"bind", OPTION_REFUSE, 0, "mount(8) binds a directory of the mount without ckptfs"},
    {"rbind", OPTION_REFUSE, 0, "mount(8) binds a directory of the mount without ckptfs"},
    {"move", OPTION_REFUSE, 0, "the daemon knows the mount by its path"},
    {"loop", OPTION_REFUSE, 0, "SOURCE is no file that holds a file system"},
    {"loop=", OPTION_REFUSE, 0, "SOURCE is no file that holds a file system"},
    {"atime", OPTION_PASS, 0, NULL},
    {"noatime", OPTION_BOTH, IN(no_atime), "reading does not change access times"},
    {"nodiratime", OPTION_FLAG, IN(no_directory_atime),
        "listing does not change those of directories"},
    {"context=", OPTION_PASS, 0, NULL},
    {"fscontext=", OPTION_PASS, 0, NULL},
    {"defcontext=", OPTION_PASS, 0, NULL},
    {"rootcontext=", OPTION_PASS, 0, NULL},
    {"diratime", OPTION_IGNORE, 0, NULL},
    {"relatime", OPTION_IGNORE, 0, NULL},
    {"norelatime", OPTION_IGNORE, 0, NULL},
    {"strictatime", OPTION_IGNORE, 0, NULL},
    {"nostrictatime", OPTION_IGNORE, 0, NULL},
    {"lazytime", OPTION_IGNORE, 0, NULL},
    {"nolazytime", OPTION_IGNORE, 0, NULL},
    {"rw", OPTION_IGNORE, 0, NULL},
    {"defaults", OPTION_IGNORE, 0, NULL},
    {"auto", OPTION_IGNORE, 0, NULL},
    {"noauto", OPTION_IGNORE, 0, NULL},
    {"user", OPTION_IGNORE, 0, NULL},
    {"user=", OPTION_IGNORE, 0, NULL},
    {"nouser", OPTION_IGNORE, 0, NULL},
    {"users", OPTION_IGNORE, 0, NULL},
    {"owner", OPTION_IGNORE, 0, NULL},
    {"group", OPTION_IGNORE, 0, NULL},
    {"nofail", OPTION_IGNORE, 0, NULL},
    {"_netdev", OPTION_IGNORE, 0, NULL},
    {"nonempty", OPTION_IGNORE, 0, NULL},
    {"comment=", OPTION_IGNORE, 0, NULL},
    {"x-*", OPTION_IGNORE, 0, NULL},
    {"X-*", OPTION_IGNORE, 0, NULL},
};

static bool
matches(const struct mount_option *o, const char *option)
{
    size_t n = strlen(o->name);
    if (o->name[n - 1] == '*')
        return strncmp(o->name, option, n - 1) == 0;
    if (o->name[n - 1] == '=')
        return strncmp(o->name, option, n) == 0;
    return strcmp(o->name, option) == 0;
}

static int
take_number(const char *option, const char *value, uint64_t *out, struct buffer *error)
{
    char *end = NULL;
    errno = 0;
    unsigned long number = strtoul(value, &end, 10);
    if (*value < '0' || *value > '9' || *end != '\0' || errno != 0 || number == 0 ||
        number > UINT32_MAX) {
        buffer_printf(error, "option %s: give a number from 1 to %u", option, UINT32_MAX);
        return -EINVAL;
    }
    *out = number;
    return 0;
}

static int
take_mount_option(
    struct options *options, const struct mount_option *o, const char *option, struct buffer *error)
{
    char *field = (char *)options + o->offset;
    const char *value = strchr(option, '=');
    switch (o->type) {
    case OPTION_IGNORE:
        if (strcmp(option, "no_allow_other") == 0)
            options->allow_other = false;
        return 0;
    case OPTION_PASS:
        options_append(&options->kernel, option);
        return 0;
    case OPTION_BOTH:
        options_append(&options->kernel, option);
        *(bool *)field = true;
        return 0;
    case OPTION_FLAG:
        *(bool *)field = true;
        return 0;
    case OPTION_NUMBER:
        return take_number(option, value + 1, (uint64_t *)(void *)field, error);
    case OPTION_TEXT:
        free(*(char **)(void *)field);
        *(char **)(void *)field = memory_string(value + 1);
        return 0;
    case OPTION_REFUSE:
        buffer_printf(error, "option %s cannot be used with ckptfs: %s", option, o->help);
        return -EINVAL;
    }
    return -EINVAL;
}

// The name that is most like the option's, or NULL.
static const char *
similar_option(const char *option)
{
    const char *best = volume_config_similar(option);
    char name[64];
    size_t n = strcspn(option, "=");
    if (n >= sizeof(name))
        return best;
    memcpy(name, option, n);
    name[n] = '\0';
    for (size_t i = 0; i < ARRAY_LENGTH(mount_options); i++)
        best = similar_word(name, mount_options[i].name, best);
    return best;
}

static int
take_option(void *argument, const char *option, struct buffer *error)
{
    struct options *options = argument;
    int rc = volume_config_set(&options->config, option, error);
    if (rc != -ENOENT)
        return rc;
    for (size_t i = 0; i < ARRAY_LENGTH(mount_options); i++)
        if (matches(&mount_options[i], option))
            return take_mount_option(options, &mount_options[i], option, error);
    const char *similar = similar_option(option);
    buffer_printf(error, "option %s is not known; ", option);
    if (similar)
        buffer_printf(error, "did you mean %s?", similar);
    else
        buffer_append_string(error, "see ckptfs --help");
    return -EINVAL;
}

// ---- the command line ---------------------------------------------------------------------------

static const struct option long_options[] = {
    {"help", no_argument, NULL, 'h'},
    {"version", no_argument, NULL, 'V'},
    {"foreground", no_argument, NULL, 'f'},
    {NULL, 0, NULL, 0},
};

static int
take_switch(struct options *options, int c, const char *argument, struct buffer *error)
{
    switch (c) {
    case 'f':
        options->foreground = true;
        return 0;
    case 'd':
        options->debug = true;
        return 0;
    case 's':
        options->config.fuse_threads = 1;
        return 0;
    case 'h':
        options->help = true;
        return 0;
    case 'V':
        options->version = true;
        return 0;
    case 'n': // mount(8): do not write /etc/mtab
    case 'v':
        return 0;
    case 'o':
        return options_split(argument, take_option, options, error);
    case ':':
        buffer_printf(error, "switch %s needs a value; see ckptfs --help", argument);
        return -EINVAL;
    default:
        buffer_printf(error, "unknown switch %s; see ckptfs --help", argument);
        return -EINVAL;
    }
}

static int
take_switches(struct options *options, int argc, char *const argv[], struct buffer *error)
{
    opterr = 0;
    optind = 0;
    for (;;) {
        int c = getopt_long(argc, argv, ":fdshVnvo:", long_options, NULL);
        if (c == -1)
            return 0;
        char letter[] = {'-', (char)optopt, '\0'};
        const char *argument = optarg;
        if (c == '?' || c == ':') // a long one has no letter: it is the word before
            argument = optopt > 0 && optopt < 256 ? letter : argv[optind - 1];
        int rc = take_switch(options, c, argument, error);
        if (rc != 0)
            return rc;
    }
}

static void
make_absolute(char **path)
{
    if (!*path || (*path)[0] == '/')
        return;
    char *directory = getcwd(NULL, 0);
    char *absolute = memory_printf("%s/%s", directory ? directory : "", *path);
    free(directory);
    free(*path);
    *path = absolute;
}

static int
take_arguments(struct options *options, int argc, char *const argv[], struct buffer *error)
{
    if (argc != 2) {
        buffer_append_string(error, argc < 2 ? "give SOURCE and MOUNTPOINT; see ckptfs --help"
                                             : "too many arguments; see ckptfs --help");
        return -EINVAL;
    }
    if (argv[0][0] == '\0' || argv[1][0] == '\0') {
        buffer_append_string(error, "SOURCE and MOUNTPOINT must not be empty");
        return -EINVAL;
    }
    options->config.source = memory_string(argv[0]);
    options->mountpoint = memory_string(argv[1]);
    return 0;
}

int
options_parse(struct options *options, int argc, char *const argv[], struct buffer *error)
{
    *options = (struct options){.allow_other = geteuid() == 0};
    volume_config_init(&options->config);
    int rc = take_switches(options, argc, argv, error);
    if (rc != 0 || options->help || options->version)
        return rc;
    rc = take_arguments(options, argc - optind, argv + optind, error);
    if (rc != 0)
        return rc;
    if (options->time_granularity_ms > TIME_GRANULARITY_MAX_MS) {
        buffer_printf(error, "option time_granularity_ms: give a number from 1 to %u",
            TIME_GRANULARITY_MAX_MS);
        return -EINVAL;
    }
    options->foreground = options->foreground || options->debug;
    make_absolute(&options->mountpoint);
    make_absolute(&options->config.root);
    make_absolute(&options->config.ca_file);
    make_absolute(&options->config.log_file);
    return 0;
}

void
options_free(struct options *options)
{
    volume_config_free(&options->config);
    free(options->mountpoint);
    free(options->fsname);
    buffer_free(&options->kernel);
}

void
options_help(struct buffer *out)
{
    buffer_append_string(out,
        "Usage: ckptfs [-f] [-o OPTION,...] SOURCE MOUNTPOINT\n"
        "Mounts a volume whose changes are kept in object storage.\n"
        "\n"
        "SOURCE is s3://BUCKET[/PREFIX]/TENANT or file:///DIRECTORY/TENANT.\n"
        "\n"
        "    -f, --foreground             stay in the foreground; log to stderr, not to syslog\n"
        "    -d                           as -o debug\n"
        "    -s                           as -o fuse_threads=1\n"
        "    -h, --help                   this text\n"
        "    -V, --version                the versions of ckptfs and libfuse\n"
        "\n"
        "Options of the volume (a flag NAME is switched off by no_NAME; \\, is a comma in a "
        "value):\n");
    volume_config_help(out);
    buffer_append_string(out, "\nOptions of the mount:\n");
    for (size_t i = 0; i < ARRAY_LENGTH(mount_options); i++) {
        const struct mount_option *o = &mount_options[i];
        if (!o->help || o->type == OPTION_REFUSE)
            continue;
        BUFFER_AUTO name = {0};
        buffer_printf(&name, "%s%s", o->name,
            o->type == OPTION_NUMBER ? "N"
            : o->type == OPTION_TEXT ? "NAME"
                                     : "");
        buffer_printf(out, "    -o %-25s %s\n", buffer_string(&name), o->help);
    }
    buffer_append_string(out, "\nmount(8)'s own options (ro, noatime, nosuid, nofail, those that "
                              "begin with x-) are taken "
                              "as well.\n");
}
