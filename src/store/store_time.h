// SPDX-License-Identifier: Apache-2.0
// Times as HTTP and AWS write them, all UTC. Milliseconds since 1970.
#ifndef CKPTFS_STORE_STORE_TIME_H
#define CKPTFS_STORE_STORE_TIME_H

#include <stdint.h>

#include "base/compiler.h"

// "20150830T123600Z" and a NUL.
void time_format_amz(uint64_t wall_ms, char text_out[17]);
// "Sun, 06 Nov 1994 08:49:37 GMT" (RFC 7231, IMF-fixdate). 0 or -EINVAL.
MUST_CHECK int time_parse_http(const char *text, uint64_t *wall_ms_out);
// "2011-07-15T23:28:33Z", with or without a fraction. 0 or -EINVAL.
MUST_CHECK int time_parse_iso8601(const char *text, uint64_t *wall_ms_out);

#endif
