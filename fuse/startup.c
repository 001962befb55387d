// SPDX-License-Identifier: Apache-2.0
// The pipe carries notes, each '!', a text and a NUL, and at the end the report: one byte, '+' or
// '-', and after '-' the text for the user.
#define _GNU_SOURCE
#include "fuse/startup.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/printable.h"

void
startup_in_foreground(struct startup *s)
{
    s->pipe = -1;
}

static void
print_error(const char *text)
{
    BUFFER_AUTO shown = {0};
    buffer_append_printable_lines(&shown, text);
    fprintf(stderr, "ckptfs: %s\n", buffer_string(&shown));
}

// The child ended without a word.
static void
print_death(pid_t child)
{
    int status = 0;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    if (WIFSIGNALED(status))
        fprintf(stderr, "ckptfs: the daemon was killed by signal %d (%s) while it started\n",
            WTERMSIG(status), strsignal(WTERMSIG(status)));
    else
        fprintf(stderr, "ckptfs: the daemon ended with status %d while it started; see its log\n",
            WEXITSTATUS(status));
}

// Prints the notes that are whole and takes them out.
static void
print_notes(struct buffer *report)
{
    size_t at = 0;
    while (at < report->length && report->data[at] == '!') {
        const uint8_t *text = report->data + at + 1;
        const uint8_t *end = memchr(text, '\0', report->length - at - 1);
        if (!end)
            break;
        print_error((const char *)text);
        at = (size_t)(end - report->data) + 1;
    }
    memmove(report->data, report->data + at, report->length - at);
    report->length -= at;
}

static _Noreturn void
wait_for_report(pid_t child, int fd)
{
    BUFFER_AUTO report = {0};
    for (;;) {
        ssize_t n = read(fd, buffer_reserve(&report, 4096), 4096);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        report.length += (size_t)n;
        print_notes(&report);
    }
    const char *text = buffer_string(&report);
    if (text[0] == '+')
        _exit(EXIT_SUCCESS);
    if (text[0] == '-')
        print_error(text + 1);
    else
        print_death(child);
    _exit(EXIT_STATUS_ERROR);
}

int
startup_in_background(struct startup *s)
{
    int fds[2];
    s->pipe = -1;
    if (pipe2(fds, O_CLOEXEC) < 0)
        return -errno;
    pid_t child = fork();
    if (child < 0) {
        int rc = -errno;
        close(fds[0]);
        close(fds[1]);
        return rc;
    }
    if (child > 0) {
        close(fds[1]);
        wait_for_report(child, fds[0]);
    }
    close(fds[0]);
    s->pipe = fds[1];
    setsid();
    return chdir("/") < 0 ? -errno : 0;
}

// All of it or nothing: the reader is gone then.
static bool
send_report(int fd, const char *text, size_t n)
{
    while (n > 0) {
        ssize_t sent = write(fd, text, n);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent <= 0)
            return false;
        text += sent;
        n -= (size_t)sent;
    }
    return true;
}

bool
startup_succeeded(struct startup *s)
{
    if (s->pipe < 0)
        return true;
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null >= 0) {
        for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
            (void)dup2(null, fd);
        if (null > STDERR_FILENO)
            close(null);
    }
    bool sent = send_report(s->pipe, "+", 1);
    close(s->pipe);
    s->pipe = -1;
    return sent;
}

void
startup_note(struct startup *s, const char *text)
{
    if (s->pipe < 0)
        print_error(text);
    else if (send_report(s->pipe, "!", 1))
        (void)send_report(s->pipe, text, strlen(text) + 1);
}

void
startup_failed(struct startup *s, const char *text)
{
    if (s->pipe < 0) {
        print_error(text);
        return;
    }
    if (send_report(s->pipe, "-", 1))
        (void)send_report(s->pipe, text, strlen(text));
    close(s->pipe);
    s->pipe = -1;
}
