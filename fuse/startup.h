// SPDX-License-Identifier: Apache-2.0
// Going into the background: the process that was started waits until the mount is up, or prints
// why it is not, and ends with the exit status that says so.
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
// Tells the user something that he should know while the start goes on.
void startup_note(struct startup *s, const char *text);
// The mount is up; leaves the terminal. False when the process that waited is gone.
MUST_CHECK bool startup_succeeded(struct startup *s);
// Tells the user, here or through the process that waits.
void startup_failed(struct startup *s, const char *text);

#endif
