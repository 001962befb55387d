// SPDX-License-Identifier: Apache-2.0
// Limits the resident pages of a file that a library has mapped.
#ifndef CKPTFS_PLATFORM_MAPPED_FILE_H
#define CKPTFS_PLATFORM_MAPPED_FILE_H

#include <stdint.h>

// Takes the pages of the file behind `fd` out of this process's mappings of it, when the process
// has more than `limit_bytes` of mapped files resident (its own program and libraries among them).
// They stay in the kernel's cache and come back when they are touched; for shared mappings of files
// that are only read through the mapping, so that any thread may go on reading meanwhile. The
// mapping must not be moved or removed during the call. Costs one small read of /proc when there is
// nothing to do; where /proc cannot be read nothing happens.
void mapped_file_trim(int fd, uint64_t limit_bytes);

#endif
