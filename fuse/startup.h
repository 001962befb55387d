// SPDX-License-Identifier: Apache-2.0
// Going into the background: the first process waits until the mount is up, or prints the reason
// why it is not, and ends with the exit status.
#ifndef CKPTFS_FUSE_STARTUP_H
#define CKPTFS_FUSE_STARTUP_H

#include <stdbool.h>

#include "base/compiler.h"

#define EXIT_STATUS_USAGE 1
#define EXIT_STATUS_ERROR 2

struct startup {
    int pipe; // to the process that waits; -1 in the foreground, and after the report
};

// Foreground: no process waits.
void startup_in_foreground(struct startup *s);
// Forks before any thread exists. Returns in the child only, or a negative errno. The parent exits.
MUST_CHECK int startup_in_background(struct startup *s);
// Prints a warning for the user while the start goes on.
void startup_note(struct startup *s, const char *text);
// Reports that the mount is up; leaves the terminal. False when the process that waited is gone.
MUST_CHECK bool startup_succeeded(struct startup *s);
// Prints the reason for the user, here or through the process that waits.
void startup_failed(struct startup *s, const char *text);

#endif
