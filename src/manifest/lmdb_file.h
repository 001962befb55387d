// SPDX-License-Identifier: Apache-2.0
// A look at LMDB's data file before LMDB gets it. LMDB trusts its file: there are no checksums in
// it, and a page that should be there but is not kills the process with SIGBUS.
//
// What is found: files that are no LMDB environments or of another version, page size or byte
// order; meta pages that contradict themselves; a file that is cut off before the last page in use;
// roots of tables that are not pages of the right kind.
// What cannot be found: bytes changed inside pages further down. Values that do not decode are
// noticed when they are read; wrong values that decode are not.
//
// The layout is that of LMDB 0.9 on 64-bit machines (mdb.c: MDB_page, MDB_meta, MDB_db, MDB_node).
#ifndef CKPTFS_MANIFEST_LMDB_FILE_H
#define CKPTFS_MANIFEST_LMDB_FILE_H

#include "base/compiler.h"

// 0 when the file may be opened; -ENOENT when it is missing or empty; -EBADMSG and other errors,
// logged. Other processes may be writing to it meanwhile.
MUST_CHECK int lmdb_file_check(const char *path);

#endif
