// SPDX-License-Identifier: Apache-2.0
// A look at LMDB's data file before LMDB gets it. LMDB trusts its file: its pages have no
// checksums, and a page that should be there but is not kills the process with SIGBUS. (The entries
// have checksums of ours, see lmdb_env.h; this is about the pages around them.)
//
// It finds files that are no LMDB environments or of another version, page size or byte order; meta
// pages that contradict themselves; a file that is cut off before the last page in use; inner pages
// of tables that are of a wrong kind or number, or whose entries leave them. In files up to 128 MiB
// also: the same of leaves, and tables that have not as many entries as they say. In larger ones a
// walk over all leaves would make each mount wait for the disk (one inner page stands for about a
// hundred leaves); lmdb_file_check_state walks while the environment is in use. It cannot find
// changes behind the walk, while the file is open. LMDB then may end the process.
//
// The layout is that of LMDB 0.9 on 64-bit machines (mdb.c: MDB_page, MDB_meta, MDB_db, MDB_node).
#ifndef CKPTFS_MANIFEST_LMDB_FILE_H
#define CKPTFS_MANIFEST_LMDB_FILE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"

// 0 when the file may be opened; -ENOENT when it is missing or empty; -EBADMSG and other errors,
// logged. Other processes may be writing to it meanwhile.
MUST_CHECK int lmdb_file_check(const char *path);
// Whether lmdb_file_check walks over all pages of a file of this size.
bool lmdb_file_is_walked(int fd);
// Walks over all pages of the state that `transaction` left, which a read transaction keeps from
// being used again. -EBADMSG, logged; -EAGAIN: both meta pages tell of other states; -ECANCELED:
// `go_on`, which is asked now and then and may pause, said no. `go_on` may be NULL.
typedef bool lmdb_file_go_on(void *argument);
MUST_CHECK int lmdb_file_check_state(
    int fd, uint64_t transaction, lmdb_file_go_on *go_on, void *argument);
// Copies the meta page of `transaction` over the other one, durably. -EBADMSG when the file does
// not have it at LMDB's place. The caller holds LMDB's lock of writers.
MUST_CHECK int lmdb_file_settle(int fd, uint32_t page_bytes, uint64_t transaction);

#endif
