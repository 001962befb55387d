// SPDX-License-Identifier: Apache-2.0
// The parts of the file store. An object is a regular file below the store's directory:
//     DIR/COMPONENT/.../COMPONENT    each component of the key with every byte but A-Za-z0-9._- and
//                                    a leading '.' written as %XX
//     DIR/.tmp/UUID                  an object that a put is writing
// So no object's name begins with '.', and a key that is a directory's name holds no object. A key
// cannot be an object and the beginning of another object's path at the same time.
#ifndef CKPTFS_STORE_FILE_STORE_INTERNAL_H
#define CKPTFS_STORE_FILE_STORE_INTERNAL_H

#include <stdatomic.h>

#include "platform/file.h"
#include "platform/lock.h"
#include "platform/safe_path.h"
#include "store/remote_store.h"

#define FILE_STORE_KNOWN_DIRECTORIES 256

// Each listing reads the names of whole directories, so a listing of up to this many objects costs
// one pass. At some 100 bytes an object, its page and the names take less than 100 MiB.
#define FILE_LIST_PAGE 262144u

struct file_store {
    struct remote_store base;
    char *directory;       // as its user names it
    _Atomic(char *) place; // the same without links, from the first time that it was there; or NULL
    const struct file_ops *ops;
    struct uuid hash_key;

    // Protects `known`: hashes of directories whose names this store has made durable, those that
    // were used last first.
    struct lock lock;
    uint64_t known[FILE_STORE_KNOWN_DIRECTORIES];
};

// Appends the path of a key.
void file_store_append_path(struct buffer *out, const struct file_store *fs, const char *key);
// Opens the place of such a path. Does not follow links, which the owner of the store's directory
// may plant in it.
MUST_CHECK int file_store_enter(
    struct file_store *fs, const char *path, struct safe_place *place_out);
// Appends one component of a key as a file's name.
void file_store_append_component(struct buffer *out, const char *component, size_t length);
// Appends the component that a file's name encodes; false when it encodes none.
bool file_store_decode_component(const char *name, struct buffer *out);

// Sets the text and returns the class of `error` (negative errno of a file call).
MUST_CHECK int file_store_fail(
    const struct file_store *fs, int error, const char *what, const char *key);

int file_store_list(struct remote_store *s, const char *prefix, const char *after, size_t limit,
    struct remote_listing *listing_out, const struct remote_call *call);

#endif
