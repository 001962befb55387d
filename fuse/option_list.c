// SPDX-License-Identifier: Apache-2.0
#include "fuse/options.h"

int
options_split(const char *list, options_take *take, void *argument, struct buffer *error)
{
    BUFFER_AUTO option = {0};
    for (const char *p = list;; p++) {
        if (*p == '\\' && (p[1] == ',' || p[1] == '\\')) {
            buffer_append_u8(&option, (uint8_t) * ++p);
            continue;
        }
        if (*p != ',' && *p != '\0') {
            buffer_append_u8(&option, (uint8_t)*p);
            continue;
        }
        int rc = option.length > 0 ? take(argument, buffer_string(&option), error) : 0;
        if (rc != 0 || *p == '\0')
            return rc;
        buffer_clear(&option);
    }
}

void
options_append(struct buffer *list, const char *option)
{
    if (list->length > 0)
        buffer_append_u8(list, ',');
    for (; *option; option++) {
        if (*option == ',' || *option == '\\')
            buffer_append_u8(list, '\\');
        buffer_append_u8(list, (uint8_t)*option);
    }
}
