// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include "store/s3_process.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "platform/clock.h"
#include "platform/file.h"
#include "platform/memory.h"
#include "store/store_internal.h"

#define OUTPUT_MAX_BYTES (64u * 1024)
#define WAIT_SLICE_MS    50

extern char **environ;

// ---- words --------------------------------------------------------------------------------------

// Appends one word from *at on; false when a quote is not closed.
static bool
take_word(const char **at, struct buffer *word)
{
    char quote = 0;
    const char *p;
    for (p = *at; *p && (quote || !isspace((unsigned char)*p)); p++) {
        if (quote ? *p == quote : *p == '\'' || *p == '"') {
            quote = quote ? 0 : *p;
            continue;
        }
        bool escapes = !quote || (quote == '"' && (p[1] == '"' || p[1] == '\\'));
        if (*p == '\\' && p[1] && escapes)
            p++;
        buffer_append_u8(word, (uint8_t)*p);
    }
    *at = p;
    return !quote;
}

bool
s3_words_split(const char *command, struct s3_words *words_out)
{
    size_t count = 0;
    *words_out = (struct s3_words){0};
    for (const char *p = command;;) {
        while (isspace((unsigned char)*p))
            p++;
        if (!*p)
            return count > 0;
        BUFFER_AUTO word = {0};
        if (count == PROCESS_WORDS_MAX || !take_word(&p, &word)) {
            s3_words_free(words_out);
            return false;
        }
        words_out->words[count++] = memory_string(buffer_string(&word));
    }
}

void
s3_words_free(struct s3_words *words)
{
    for (size_t i = 0; words->words[i]; i++)
        free(words->words[i]);
    *words = (struct s3_words){0};
}

// ---- the process --------------------------------------------------------------------------------

// In a process group of its own, with the signals as at the start of a program.
static int
spawn(char **words, int output, pid_t *pid_out)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t none, all;
    sigemptyset(&none);
    sigfillset(&all);
    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attributes);
    posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&actions, output, STDOUT_FILENO);
    posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
    posix_spawnattr_setflags(
        &attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    posix_spawnattr_setpgroup(&attributes, 0);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &all);
    int rc = posix_spawnp(pid_out, words[0], &actions, &attributes, words, environ);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    return -rc;
}

// Reads to the end of the output. 0, or the error that ended it early.
static int
read_output(
    int fd, uint64_t end_ms, const struct remote_call *call, const char *name, struct buffer *out)
{
    for (;;) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        int rc = store_check_call(call, "credential_process", name);
        if (rc < 0)
            return rc;
        if (clock_monotonic_ms() >= end_ms)
            return store_fail(-EACCES, "credential_process %s did not end in time", name);
        if (poll(&p, 1, WAIT_SLICE_MS) <= 0)
            continue;
        ssize_t n = read(fd, buffer_reserve(out, 4096), 4096);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return 0;
        out->length += (size_t)n;
        if (out->length > OUTPUT_MAX_BYTES)
            return store_fail(-EACCES, "credential_process %s wrote too much", name);
    }
}

// 0 when it ended well in time. It is not reaped, so that its number stays its own.
static int
wait_for_end(pid_t pid, uint64_t end_ms, const char *name)
{
    siginfo_t info = {0};
    while (waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == 0) {
        if (clock_monotonic_ms() >= end_ms)
            return store_fail(-EACCES, "credential_process %s did not end in time", name);
        clock_sleep_ms(1);
    }
    if (info.si_pid == 0 || (info.si_code == CLD_EXITED && info.si_status == 0))
        return 0;
    return store_fail(-EACCES, "credential_process %s ended with %s %d", name,
        info.si_code == CLD_EXITED ? "status" : "signal", info.si_status);
}

int
s3_process_run(
    const char *command, uint64_t timeout_ms, const struct remote_call *call, struct buffer *out)
{
    struct s3_words words;
    int fds[2];
    pid_t pid;
    if (!s3_words_split(command, &words))
        return store_fail(-EACCES, "the credential_process of the AWS profile is no command");
    if (pipe2(fds, O_CLOEXEC) < 0) {
        int error = -errno;
        s3_words_free(&words);
        return store_fail(-EACCES, "credential_process: no pipe: %s", strerror(-error));
    }
    const char *name = words.words[0];
    uint64_t end_ms = clock_monotonic_ms() + timeout_ms;
    int rc = spawn(words.words, fds[1], &pid);
    file_close(fds[1]);
    if (rc < 0) {
        rc = store_fail(-EACCES, "credential_process %s cannot be run: %s", name, strerror(-rc));
    } else {
        rc = read_output(fds[0], end_ms, call, name, out);
        if (rc == 0)
            rc = wait_for_end(pid, end_ms, name);
        // Processes that it left behind are killed, too.
        kill(-pid, SIGKILL);
        while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
            ;
    }
    file_close(fds[0]);
    s3_words_free(&words);
    return rc;
}
