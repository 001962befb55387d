// SPDX-License-Identifier: Apache-2.0
#include "store/store_time.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

void
time_format_amz(uint64_t wall_ms, char text_out[17])
{
    time_t seconds = (time_t)(wall_ms / 1000);
    struct tm tm;
    if (!gmtime_r(&seconds, &tm) || tm.tm_year > 9999 - 1900)
        memset(&tm, 0, sizeof(tm));
    if (strftime(text_out, 17, "%Y%m%dT%H%M%SZ", &tm) == 0)
        text_out[0] = 0;
}

static int
finish(struct tm *tm, uint64_t *wall_ms_out)
{
    bool sane = tm->tm_year >= 70 && tm->tm_year < 8100 && tm->tm_mon >= 0 && tm->tm_mon < 12 &&
                tm->tm_mday >= 1 && tm->tm_mday <= 31 && tm->tm_hour >= 0 && tm->tm_hour < 24 &&
                tm->tm_min >= 0 && tm->tm_min < 60 && tm->tm_sec >= 0 && tm->tm_sec <= 60;
    if (!sane)
        return -EINVAL;
    *wall_ms_out = (uint64_t)timegm(tm) * 1000;
    return 0;
}

int
time_parse_http(const char *text, uint64_t *wall_ms_out)
{
    static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    struct tm tm = {0};
    char month[4] = "";
    int end = 0;
    *wall_ms_out = 0;
    if (sscanf(text, "%*3[A-Za-z], %2d %3[A-Za-z] %4d %2d:%2d:%2d GMT%n", &tm.tm_mday, month,
            &tm.tm_year, &tm.tm_hour, &tm.tm_min, &tm.tm_sec, &end) != 6 ||
        end == 0 || strlen(month) != 3)
        return -EINVAL;
    const char *found = strstr(months, month);
    if (!found || (found - months) % 3 != 0)
        return -EINVAL;
    tm.tm_mon = (int)(found - months) / 3;
    tm.tm_year -= 1900;
    return finish(&tm, wall_ms_out);
}

int
time_parse_iso8601(const char *text, uint64_t *wall_ms_out)
{
    struct tm tm = {0};
    int end = 0;
    *wall_ms_out = 0;
    if (sscanf(text, "%4d-%2d-%2dT%2d:%2d:%2d%n", &tm.tm_year, &tm.tm_mon, &tm.tm_mday, &tm.tm_hour,
            &tm.tm_min, &tm.tm_sec, &end) != 6 ||
        end == 0)
        return -EINVAL;
    text += end;
    if (*text == '.')
        text += 1 + strspn(text + 1, "0123456789");
    if (strcmp(text, "Z") != 0 && strcmp(text, "+00:00") != 0)
        return -EINVAL;
    tm.tm_mon -= 1;
    tm.tm_year -= 1900;
    return finish(&tm, wall_ms_out);
}
