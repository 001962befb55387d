// SPDX-License-Identifier: Apache-2.0
#include "store/s3_keys.h"

#include <stdlib.h>
#include <string.h>

#include "platform/memory.h"

void
s3_wipe_string(char *s)
{
    if (s)
        explicit_bzero(s, strlen(s));
    free(s);
}

void
s3_credentials_free(struct s3_credentials *c)
{
    s3_wipe_string(c->access_key);
    s3_wipe_string(c->secret_key);
    s3_wipe_string(c->session_token);
    *c = (struct s3_credentials){0};
}

char *
s3_copy_string(const char *s)
{
    return s ? memory_string(s) : NULL;
}
