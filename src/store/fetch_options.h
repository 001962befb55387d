// SPDX-License-Identifier: Apache-2.0
// What a reader of files wants of the caches on the way (FetchOptions of the design). Goes with the
// call, unchanged, from the reader to the local store. Zero-initialise for the usual: bytes from
// the store are kept, sequential readers are found out and read ahead.
#ifndef CKPTFS_STORE_FETCH_OPTIONS_H
#define CKPTFS_STORE_FETCH_OPTIONS_H

#include <stdbool.h>

struct pin;

enum prefetch_hint {
    PREFETCH_DETECT, // by the reads before
    PREFETCH_NONE,
    PREFETCH_FORWARD,
    PREFETCH_BACKWARD,
    PREFETCH_BOTH,
};

struct fetch_options {
    // A cold scan: nothing that it reads enters hot_cache or the memory for pages, and what is
    // there is not noted as used.
    bool bypass_cache;
    struct pin *pin_in_cache; // pins the local copies of all blobs read; NULL: none
    enum prefetch_hint prefetch_hint;
};

#endif
