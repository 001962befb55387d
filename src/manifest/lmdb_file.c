// SPDX-License-Identifier: Apache-2.0
#include "manifest/lmdb_file.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "platform/file.h"
#include "platform/log.h"

#define META_MAGIC      0xBEEFC0DEu
#define META_VERSION    1u
#define PAGE_HEADER     16u
#define PAGE_SIZE_MIN   512u
#define PAGE_SIZE_MAX   32768u
#define PAGE_BRANCH     0x01u
#define PAGE_LEAF       0x02u
#define PAGE_OVERFLOW   0x04u
#define PAGE_META       0x08u
#define NODE_HEADER     8u
#define NODE_BIG_DATA   0x01u
#define NODE_SUB_TREE   0x02u
#define TREE_EMPTY      UINT64_MAX
#define TREE_DEPTH_MAX  32u
#define META_PAGES      2u
#define CHECK_TRIES_MAX 100
// Files up to this size are walked through whenever they are opened; of larger ones the inner pages
// are, about one in a hundred.
#define WALKED_BYTES_MAX (128ull << 20)
// Pages between two questions whether a walk is to go on.
#define WALK_STEP 256u

// MDB_db: a tree.
struct tree_head {
    uint32_t pad; // of the free list's tree: the page size
    uint16_t flags;
    uint16_t depth;
    uint64_t branch_pages;
    uint64_t leaf_pages;
    uint64_t overflow_pages;
    uint64_t entries;
    uint64_t root;
};

// MDB_meta, native byte order as LMDB writes it.
struct meta {
    uint32_t magic;
    uint32_t version;
    uint64_t address;
    uint64_t map_bytes;
    struct tree_head trees[2];
    uint64_t last_page;
    uint64_t transaction;
};

_Static_assert(sizeof(struct tree_head) == 48, "layout of MDB_db");
_Static_assert(sizeof(struct meta) == 136, "layout of MDB_meta");

struct file_check {
    int fd;
    uint64_t file_bytes;
    uint32_t page_bytes;
    uint64_t last_page;
    const char *problem; // the fault, once there is one
    uint64_t problem_page;
    bool whole;             // go down to the leaves
    lmdb_file_go_on *go_on; // or NULL
    void *argument;
    uint64_t visited; // pages; damaged trees may have circles
    uint64_t entries; // of the tree that is being walked
};

static int
damaged(struct file_check *c, const char *problem, uint64_t page)
{
    c->problem = problem;
    c->problem_page = page;
    return -EBADMSG;
}

static uint16_t
native16(const uint8_t *p)
{
    uint16_t v;
    memcpy(&v, p, sizeof(v));
    return v;
}

// Whether `count` pages from `page` on are pages of the file that hold data.
static bool
pages_exist(const struct file_check *c, uint64_t page, uint64_t count)
{
    return page >= META_PAGES && page <= c->last_page && count > 0 &&
           count <= c->last_page - page + 1 && (page + count) * c->page_bytes <= c->file_bytes;
}

static int
read_page(struct file_check *c, uint64_t page, uint8_t *out)
{
    if (!pages_exist(c, page, 1))
        return damaged(c, "a page lies beyond the end", page);
    if (c->visited++ > c->last_page)
        return damaged(c, "a page is in two places", page);
    if (c->go_on && c->visited % WALK_STEP == 0 && !c->go_on(c->argument))
        return -ECANCELED;
    int rc = file_read_exact_at(&file_ops_system, c->fd, out, c->page_bytes, page * c->page_bytes);
    if (rc < 0)
        return rc == -ENODATA ? damaged(c, "a page lies beyond the end", page) : rc;
    uint64_t number;
    memcpy(&number, out, sizeof(number));
    return number == page ? 0 : damaged(c, "a page has another page's number", page);
}

static int
check_overflow(struct file_check *c, const uint8_t *data, size_t length)
{
    uint64_t page;
    if (length < sizeof(page))
        return damaged(c, "a node is too short", 0);
    memcpy(&page, data, sizeof(page));
    uint8_t header[PAGE_HEADER];
    if (!pages_exist(c, page, 1))
        return damaged(c, "a long value lies beyond the end", page);
    int rc =
        file_read_exact_at(&file_ops_system, c->fd, header, sizeof(header), page * c->page_bytes);
    if (rc < 0)
        return rc == -ENODATA ? damaged(c, "a long value lies beyond the end", page) : rc;
    uint32_t pages;
    memcpy(&pages, header + 12, sizeof(pages));
    if (!(native16(header + 10) & PAGE_OVERFLOW) || !pages_exist(c, page, pages))
        return damaged(c, "a long value lies beyond the end", page);
    return 0;
}

static int check_tree(struct file_check *c, const struct tree_head *tree, unsigned nesting);
static int check_page(struct file_check *c, uint64_t page, unsigned depth, unsigned nesting);

static int
check_node(struct file_check *c, const uint8_t *node, size_t room, uint16_t page_flags,
    unsigned depth, unsigned nesting)
{
    if (room < NODE_HEADER)
        return damaged(c, "a node leaves its page", 0);
    uint64_t low = native16(node) | (uint64_t)native16(node + 2) << 16;
    uint16_t flags = native16(node + 4);
    size_t key_bytes = native16(node + 6);
    if (key_bytes > room - NODE_HEADER)
        return damaged(c, "a node leaves its page", 0);
    if (page_flags & PAGE_BRANCH) {
        uint64_t child = low | (uint64_t)flags << 32;
        // Tables are found in the tree at nesting 0; of theirs the leaves need only be there.
        if (!c->whole && nesting > 0 && depth == 2)
            return pages_exist(c, child, 1) ? 0 : damaged(c, "a page lies beyond the end", child);
        return check_page(c, child, depth - 1, nesting);
    }
    const uint8_t *data = node + NODE_HEADER + key_bytes;
    size_t stored = room - NODE_HEADER - key_bytes;
    if (flags & NODE_BIG_DATA)
        return check_overflow(c, data, stored);
    if (low > stored)
        return damaged(c, "a node leaves its page", 0);
    if (flags & NODE_SUB_TREE) {
        struct tree_head tree;
        if (low != sizeof(tree))
            return damaged(c, "a table's head has a wrong length", 0);
        memcpy(&tree, data, sizeof(tree));
        return check_tree(c, &tree, nesting + 1);
    }
    return 0;
}

// `depth` levels are at and below this page.
static int
check_page(struct file_check *c, uint64_t page, unsigned depth, unsigned nesting)
{
    uint8_t bytes[PAGE_SIZE_MAX];
    int rc = read_page(c, page, bytes);
    if (rc < 0)
        return rc;
    uint16_t flags = native16(bytes + 10);
    uint16_t kind = flags & (PAGE_BRANCH | PAGE_LEAF | PAGE_OVERFLOW | PAGE_META);
    if (depth == 0 || kind != (depth == 1 ? PAGE_LEAF : PAGE_BRANCH))
        return damaged(c, "a page is of the wrong kind", page);
    unsigned lower = native16(bytes + 12);
    if (lower < PAGE_HEADER || lower > c->page_bytes)
        return damaged(c, "a page's fill is impossible", page);
    if (!c->whole && nesting > 0 && depth == 1)
        return 0;
    if (flags & PAGE_LEAF)
        c->entries += (lower - PAGE_HEADER) / 2;
    for (unsigned i = 0; i < (lower - PAGE_HEADER) / 2; i++) {
        unsigned at = native16(bytes + PAGE_HEADER + 2 * i);
        if (at < lower || at > c->page_bytes)
            return damaged(c, "a node leaves its page", page);
        rc = check_node(c, bytes + at, c->page_bytes - at, flags, depth, nesting);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int
check_tree(struct file_check *c, const struct tree_head *tree, unsigned nesting)
{
    if (nesting > 1)
        return damaged(c, "tables are nested", 0);
    if (tree->root == TREE_EMPTY)
        return tree->depth == 0 ? 0 : damaged(c, "an empty table has depth", 0);
    if (tree->depth == 0 || tree->depth > TREE_DEPTH_MAX)
        return damaged(c, "a table's depth is impossible", tree->root);
    uint64_t outer = c->entries;
    c->entries = 0;
    int rc = check_page(c, tree->root, tree->depth, nesting);
    if (rc == 0 && (c->whole || nesting == 0) && c->entries != tree->entries)
        rc = damaged(c, "a table does not have all its entries", tree->root);
    c->entries = outer;
    return rc;
}

static bool
page_size_is_valid(uint32_t n)
{
    return n >= PAGE_SIZE_MIN && n <= PAGE_SIZE_MAX && (n & (n - 1)) == 0;
}

static int
read_meta(struct file_check *c, uint64_t offset, struct meta *meta_out)
{
    uint8_t bytes[PAGE_HEADER + sizeof(*meta_out)];
    int rc = file_read_exact_at(&file_ops_system, c->fd, bytes, sizeof(bytes), offset);
    if (rc == -ENODATA)
        return damaged(c, "the file ends inside its meta pages", 0);
    if (rc < 0)
        return rc;
    memcpy(meta_out, bytes + PAGE_HEADER, sizeof(*meta_out));
    if (!(native16(bytes + 10) & PAGE_META) || meta_out->magic != META_MAGIC)
        return damaged(c, "it is not an LMDB environment", offset);
    if (meta_out->version != META_VERSION)
        return damaged(c, "it was written by another version of LMDB", offset);
    if (!page_size_is_valid(meta_out->trees[0].pad))
        return damaged(c, "the page size is impossible", offset);
    return 0;
}

static int
read_metas(struct file_check *c, struct meta metas[META_PAGES])
{
    int rc = read_meta(c, 0, &metas[0]);
    if (rc == 0)
        rc = read_meta(c, metas[0].trees[0].pad, &metas[1]);
    if (rc == 0 && metas[0].trees[0].pad != metas[1].trees[0].pad)
        rc = damaged(c, "its meta pages disagree about the page size", 0);
    return rc;
}

// The pages of the state that a meta page tells of.
static int
begin_state(struct file_check *c, const struct meta *meta)
{
    c->page_bytes = meta->trees[0].pad;
    c->last_page = meta->last_page;
    c->visited = 0;
    if (c->last_page < META_PAGES - 1 || meta->map_bytes > INT64_MAX ||
        c->last_page >= meta->map_bytes / c->page_bytes)
        return damaged(c, "the last page's number is impossible", c->last_page);
    return file_size(c->fd, &c->file_bytes);
}

static int
check_trees(struct file_check *c, const struct meta *meta)
{
    int rc = check_tree(c, &meta->trees[0], 1);
    return rc < 0 ? rc : check_tree(c, &meta->trees[1], 0);
}

// One look at the newest state; `transaction_out` tells which that was.
static int
check_newest(struct file_check *c, uint64_t *transaction_out)
{
    struct meta metas[META_PAGES];
    int rc = read_metas(c, metas);
    if (rc < 0)
        return rc;
    const struct meta *newest = &metas[metas[1].transaction > metas[0].transaction];
    *transaction_out = newest->transaction;
    rc = begin_state(c, newest);
    if (rc < 0)
        return rc;
    // LMDB leaves pages unwritten that were taken and let go in one transaction, so a file may end
    // before its last page; whether it may end here is known when no tree reaches further.
    c->whole =
        c->file_bytes <= WALKED_BYTES_MAX || (c->last_page + 1) * c->page_bytes > c->file_bytes;
    return check_trees(c, newest);
}

static int
check_open_file(struct file_check *c, const char *path)
{
    // Other processes may commit meanwhile and reuse pages of the state that is being looked at.
    // Then, and only then, the newest transaction is another one afterwards.
    uint64_t seen = 0;
    for (int i = 0; i < CHECK_TRIES_MAX; i++) {
        uint64_t transaction = 0;
        int rc = check_newest(c, &transaction);
        if (rc != -EBADMSG)
            return rc;
        if (i > 0 && transaction == seen) {
            log_error("manifest.damaged",
                "%s: %s (page %" PRIu64 "); move the directory away to start from the bucket", path,
                c->problem, c->problem_page);
            return -EBADMSG;
        }
        seen = transaction;
    }
    return 0;
}

int
lmdb_file_check(const char *path)
{
    CLEANUP(file_close_auto) int fd = file_open(&file_ops_system, path, O_RDONLY, 0);
    struct file_check c = {.fd = fd};
    uint64_t bytes = 0;
    int rc = fd < 0 ? fd : file_size(fd, &bytes);
    if (rc == -ENOENT || (rc == 0 && bytes == 0))
        return -ENOENT;
    if (rc == 0)
        rc = check_open_file(&c, path);
    if (rc < 0 && rc != -EBADMSG)
        log_error("manifest.open_failed", "%s: %s", path, strerror(-rc));
    return rc;
}

static int
log_damaged_page(const struct file_check *c)
{
    log_error("manifest.damaged",
        "the pages of the manifest: %s (page %" PRIu64 "); unmount, then mount again: the mount "
        "makes a new one if nothing is lost by that",
        c->problem, c->problem_page);
    return -EBADMSG;
}

int
lmdb_file_check_state(int fd, uint64_t transaction, lmdb_file_go_on *go_on, void *argument)
{
    struct file_check c = {.fd = fd, .whole = true, .go_on = go_on, .argument = argument};
    struct meta metas[META_PAGES];
    int rc = read_metas(&c, metas);
    const struct meta *meta = &metas[rc == 0 && metas[1].transaction == transaction];
    if (rc == 0 && meta->transaction != transaction)
        return -EAGAIN;
    if (rc == 0)
        rc = begin_state(&c, meta);
    if (rc == 0)
        rc = check_trees(&c, meta);
    return rc == -EBADMSG ? log_damaged_page(&c) : rc;
}

bool
lmdb_file_is_walked(int fd)
{
    uint64_t bytes;
    return file_size(fd, &bytes) == 0 && bytes <= WALKED_BYTES_MAX;
}

int
lmdb_file_settle(int fd, uint32_t page_bytes, uint64_t transaction)
{
    // LMDB writes transaction n to page n % 2.
    struct file_check c = {.fd = fd};
    struct meta meta;
    int rc = read_meta(&c, transaction % META_PAGES * page_bytes, &meta);
    if (rc == 0 && meta.transaction != transaction)
        rc = damaged(&c, "the newest meta page is not in its place", transaction % META_PAGES);
    if (rc == 0)
        rc = file_write_at(&file_ops_system, fd, &meta, sizeof(meta),
            (transaction + 1) % META_PAGES * page_bytes + PAGE_HEADER);
    if (rc == 0)
        rc = file_ops_system.fdatasync(fd);
    if (rc == -EBADMSG)
        log_error("manifest.damaged", "%s", c.problem);
    return rc;
}
