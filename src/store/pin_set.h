// SPDX-License-Identifier: Apache-2.0
// The blobs that must stay in hot_cache for the moment, and their users. Every thread that removes
// copies of blobs (folds, eviction, repair) asks here, and every thread that needs them pins them
// here (a publication uploads them, a fold reads them).
//
// A user pins first and looks afterwards whether the copy is there; a remover announces the removal
// first and looks afterwards for pins. One of the two sees the other: a pin waits for a removal
// that was announced first, and a copy that was pinned first stays.
//
// Any thread; a pin belongs to one thread at a time. Take no lock of rank STORE before.
#ifndef CKPTFS_STORE_PIN_SET_H
#define CKPTFS_STORE_PIN_SET_H

#include <stdbool.h>
#include <stddef.h>

#include "base/compiler.h"
#include "base/types.h"

struct pin_set;
struct pin;

struct pin_set *pin_set_new(void);
void pin_set_free(struct pin_set *s); // without pins; NULL is fine

// A pin that holds nothing yet. `who` and `why` are literals, for messages.
struct pin *pin_begin(struct pin_set *s, const char *who, const char *why);
void pin_end(struct pin *pin); // NULL is fine

// Holds everything, until it is known which blobs are needed.
void pin_everything(struct pin *pin);
// Holds these blobs and nothing else, and generations up to `up_to`: images of these are not to be
// merged into others, or staged again.
void pin_exactly(
    struct pin *pin, struct generation up_to, const struct sha256 *hashes, size_t count);
// Holds one blob more. Waits for a removal of it that has begun.
void pin_blob(struct pin *pin, const struct sha256 *hash);

// Why the blob must stay; false: it need not. `who_out` and `why_out` may be NULL.
bool pin_set_has_blob(
    struct pin_set *s, const struct sha256 *hash, const char **who_out, const char **why_out);
// The newest generation that is held, as pin_exactly says; 0: none, UINT64_MAX: all.
struct generation pin_set_generation(struct pin_set *s);

// Announces the removal of a blob's copies: false when it is pinned, or another thread removes them
// at this moment. Ends with pin_set_end_removal, soon: others wait for it.
struct pin_removal {
    struct pin_removal *next;
    struct sha256 hash;
};
MUST_CHECK bool pin_set_begin_removal(
    struct pin_set *s, const struct sha256 *hash, struct pin_removal *removal_out);
void pin_set_end_removal(struct pin_set *s, struct pin_removal *removal);

#endif
