// SPDX-License-Identifier: Apache-2.0
// The handler calls only functions that a signal handler may call, and takes no memory. Which file
// lies at an address is read from /proc/self/maps then.
#define _GNU_SOURCE
#include "platform/fault_report.h"

#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include "base/compiler.h"
#include "platform/log.h"

#define LINE_BYTES 1024u

// Text that is being put together; text without room is left out.
struct line {
    char text[LINE_BYTES];
    size_t length;
};

static void
put_char(struct line *l, char c)
{
    if (l->length < sizeof(l->text))
        l->text[l->length++] = c;
}

static void
put(struct line *l, const char *text)
{
    while (*text)
        put_char(l, *text++);
}

// Inside a string of JSON.
static void
put_path(struct line *l, const char *text)
{
    for (size_t n = 0; *text && n < LINE_BYTES / 2; text++, n++) {
        bool plain = *text >= ' ' && *text < 0x7f && *text != '"' && *text != '\\';
        put_char(l, plain ? *text : '?');
    }
}

// ---- the file mapped there ----------------------------------------------------------------------

static uintptr_t
read_hex(const char **p)
{
    uintptr_t value = 0;
    for (;; ++*p) {
        char c = **p;
        unsigned digit = c >= '0' && c <= '9'   ? (unsigned)(c - '0')
                         : c >= 'a' && c <= 'f' ? (unsigned)(c - 'a') + 10
                                                : 16;
        if (digit == 16)
            return value;
        value = value * 16 + digit;
    }
}

// A line "START-END PERMISSIONS OFFSET DEVICE INODE   PATH": its path if `at` lies in it and it has
// one.
static const char *
path_of(const char *text, uintptr_t at)
{
    uintptr_t start = read_hex(&text);
    if (*text++ != '-')
        return NULL;
    uintptr_t end = read_hex(&text);
    return at >= start && at < end ? strchr(text, '/') : NULL;
}

// Puts the path into l; false when nothing is mapped there, or no file.
static bool
put_mapped(struct line *l, uintptr_t at)
{
    char text[LINE_BYTES];
    size_t length = 0;
    char c;
    bool found = false;
    int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    // A byte at a time: the process is at its end, and this needs no second buffer.
    while (!found && read(fd, &c, 1) == 1) {
        if (c != '\n') {
            if (length + 1 < sizeof(text))
                text[length++] = c;
            continue;
        }
        text[length] = 0;
        length = 0;
        const char *path = path_of(text, at);
        if (path)
            put_path(l, path);
        found = path != NULL;
    }
    close(fd);
    return found;
}

// ---- the handler --------------------------------------------------------------------------------

static void
report(int number, siginfo_t *info, void *context UNUSED)
{
    struct line l = {.length = 0};
    // A signal that a process has sent has no address.
    uintptr_t at = info->si_code > 0 ? (uintptr_t)info->si_addr : 0;
    put(&l, "{\"level\":\"error\",\"event\":\"process.fault\",\"signal\":\"");
    put(&l, number == SIGBUS ? "SIGBUS" : "SIGSEGV");
    put(&l, "\",\"file\":\"");
    bool mapped = at != 0 && put_mapped(&l, at);
    put(&l, "\",\"message\":\"");
    put(&l, mapped ? "this file cannot be read, or is damaged; the process ends. Mount again: the "
                     "mount looks through the manifest"
                   : "the process ends through a defect, or through damage of a mapped file");
    put(&l, "\"}\n");
    log_write_now(l.text, l.length);
    // SA_RESETHAND: done again, the same access ends the process as if there were no handler.
    if (info->si_code <= 0)
        (void)raise(number);
}

void
fault_report_start(void)
{
    struct sigaction action = {
        .sa_sigaction = report, .sa_flags = SA_SIGINFO | SA_RESETHAND | SA_NODEFER};
    sigemptyset(&action.sa_mask);
    if (sigaction(SIGBUS, &action, NULL) < 0 || sigaction(SIGSEGV, &action, NULL) < 0)
        log_warning("process.fault", "accesses to memory that fail will not be reported");
}
