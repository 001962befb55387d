// SPDX-License-Identifier: Apache-2.0
// The kernel's requests for nodes of the tree of snapshots (snapshot_tree.h). A worker answers
// those that need nothing from the store. Threads of a pool of the tree's own carry out the others,
// so that they neither hold a worker nor wait in one queue with the reads of the mounted volume.
// They fail with EINTR when the process is killed, with EIO when the store does not answer in time,
// and with ENOTCONN when the mount ends. Any thread.
#ifndef CKPTFS_FUSE_SNAPSHOT_OPS_H
#define CKPTFS_FUSE_SNAPSHOT_OPS_H

#include "fuse/fs.h"

#define SNAPSHOT_THREADS_MAX 4u
extern const struct cold_pool_ops snapshot_ops_pool;

// Whether this is the name of the tree in the root directory. An entry of the volume that has the
// name comes first: then the tree cannot be reached.
bool snapshot_ops_is_top(fuse_ino_t parent, const char *name);
void snapshot_ops_lookup_top(fuse_req_t req);

// Answers with EROFS a request that would change a node of the tree; false for other nodes.
bool snapshot_ops_refuse(fuse_req_t req, fuse_ino_t ino);
// Answers with `result` a request that would make or move an entry with the tree's name in the root
// directory, unless the volume has such an entry already.
bool snapshot_ops_refuse_name(fuse_req_t req, fuse_ino_t parent, const char *name, int result);

// The rest is for nodes of the tree only.
void snapshot_ops_lookup(fuse_req_t req, fuse_ino_t parent, const char *name);
void snapshot_ops_getattr(fuse_req_t req, fuse_ino_t ino);
void snapshot_ops_readlink(fuse_req_t req, fuse_ino_t ino);
void snapshot_ops_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, uint64_t offset, bool plus);
void snapshot_ops_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size);
void snapshot_ops_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size);
void snapshot_ops_open(fuse_req_t req, fuse_ino_t ino, const struct fuse_file_info *fi);
void snapshot_ops_release(fuse_req_t req, fuse_ino_t ino);
void snapshot_ops_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset);
void snapshot_ops_lseek(fuse_req_t req, fuse_ino_t ino, uint64_t offset, int whence);
void snapshot_ops_ioctl(fuse_req_t req, fuse_ino_t ino, unsigned command, size_t out_size);

#endif
