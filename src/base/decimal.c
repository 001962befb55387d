// SPDX-License-Identifier: Apache-2.0
#include "base/decimal.h"

bool
decimal_parse(const char *text, uint64_t most, uint64_t *number_out)
{
    uint64_t number = 0;
    *number_out = 0;
    if (*text == 0)
        return false;
    for (; *text; text++) {
        if (*text < '0' || *text > '9')
            return false;
        unsigned digit = (unsigned)(*text - '0');
        if (number > (UINT64_MAX - digit) / 10)
            return false;
        number = 10 * number + digit;
    }
    if (number > most)
        return false;
    *number_out = number;
    return true;
}
