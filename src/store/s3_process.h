// SPDX-License-Identifier: Apache-2.0
// Running the command of a profile's credential_process. No shell: the words of the command are
// split the way a shell quotes them ('...', "...", backslash), and nothing in them is expanded.
#ifndef CKPTFS_STORE_S3_PROCESS_H
#define CKPTFS_STORE_S3_PROCESS_H

#include "base/buffer.h"
#include "base/compiler.h"
#include "store/remote_call.h"

#define PROCESS_WORDS_MAX 64

// The words of `command`, NULL behind the last one; false when a quote is not closed, or there are
// no words or too many. s3_words_free releases them.
struct s3_words {
    char *words[PROCESS_WORDS_MAX + 1];
};
bool s3_words_split(const char *command, struct s3_words *words_out);
void s3_words_free(struct s3_words *words);

// Appends the command's standard output; discards its standard error, because it may hold secrets.
// Kills the command and its children after `timeout_ms`, when the call is canceled, or when it
// writes too much. 0, or -EACCES with a text that has nothing of the output and only the first word
// of the command.
MUST_CHECK int s3_process_run(
    const char *command, uint64_t timeout_ms, const struct remote_call *call, struct buffer *out);

#endif
