// SPDX-License-Identifier: Apache-2.0
// ckptfs: the daemon that serves one mount.
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "config.h"
#include "fuse/fs_ops.h"
#include "fuse/options.h"
#include "fuse/process_limits.h"
#include "fuse/session.h"
#include "fuse/startup.h"
#include "platform/fault_report.h"
#include "platform/log.h"
#include "platform/memory.h"
#include "store/remote_store.h"

// A file opened later must not become standard input, output or error.
static void
open_standard_files(void)
{
    int fd;
    do
        fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    while (fd >= 0 && fd <= STDERR_FILENO);
    if (fd >= 0)
        close(fd);
}

static enum log_level
level_of(const char *name)
{
    static const char *const names[] = {"debug", "info", "warning", "error"};
    for (size_t i = 0; i < ARRAY_LENGTH(names); i++)
        if (strcmp(name, names[i]) == 0)
            return (enum log_level)i;
    return LOG_LEVEL_INFO;
}

static void
reopen_log(int number UNUSED)
{
    int error = errno;
    log_reopen_soon();
    errno = error;
}

static int
start_log(const struct options *options, struct buffer *error)
{
    const struct volume_config *c = &options->config;
    log_set_level(options->debug ? LOG_LEVEL_DEBUG : level_of(c->log_level));
    log_set_syslog(!options->foreground, "ckptfs");
    struct store_url url = {0};
    if (store_url_parse(c->source, &url) == 0)
        log_set_tenant(url.tenant);
    store_url_free(&url);
    int rc = c->log_file ? log_set_file(c->log_file) : 0;
    if (rc != 0)
        buffer_printf(error, "log file %s: %s", c->log_file, strerror(-rc));
    return rc;
}

static int
run(const struct options *options)
{
    BUFFER_AUTO error = {0};
    struct startup startup;
    startup_in_foreground(&startup);
    if (process_limits_set(options, &error) != 0 || start_log(options, &error) != 0) {
        startup_failed(&startup, buffer_string(&error));
        return EXIT_STATUS_ERROR;
    }
    if (!options->foreground) {
        int rc = startup_in_background(&startup);
        if (rc != 0) {
            buffer_printf(&error, "cannot go into the background: %s", strerror(-rc));
            startup_failed(&startup, buffer_string(&error));
            return EXIT_STATUS_ERROR;
        }
    }
    struct sigaction reopen = {.sa_handler = reopen_log, .sa_flags = SA_RESTART};
    sigaction(SIGHUP, &reopen, NULL);
    log_start();
    fault_report_start();
    int status = session_run(options, &startup);
    log_stop();
    return status;
}

int
main(int argc, char *argv[])
{
    BUFFER_AUTO text = {0};
    struct options options;
    int status = EXIT_SUCCESS;
    memory_limit_arenas();
    open_standard_files();
    signal(SIGPIPE, SIG_IGN);
    if (options_parse(&options, argc, argv, &text) != 0) {
        fprintf(stderr, "ckptfs: %s\n", buffer_string(&text));
        status = EXIT_STATUS_USAGE;
    } else if (options.help) {
        options_help(&text);
        fputs(buffer_string(&text), stdout);
    } else if (options.version) {
        printf("ckptfs %s\nlibfuse %s\n", PACKAGE_VERSION, fuse_pkgversion());
    } else if (volume_config_check(&options.config, &text) != 0) {
        fprintf(stderr, "ckptfs: %s\n", buffer_string(&text));
        status = EXIT_STATUS_USAGE;
    } else {
        status = run(&options);
    }
    options_free(&options);
    return status;
}
