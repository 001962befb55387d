// SPDX-License-Identifier: Apache-2.0
// The one thread that writes. It takes the batches that queued up while it was committing and
// commits them as one transaction (group commit). A batch that fails must not fail those it happens
// to share the transaction with: the writer does the transaction again without it. Failures of that
// kind are bugs or races of the caller and rare, so the usual case pays nothing for them.
#include <errno.h>

#include "manifest/manifest_internal.h"
#include "platform/clock.h"
#include "platform/crash_point.h"
#include "platform/flush_pace.h"
#include "platform/log.h"

// Bounds of one group, so that a failure does not have to repeat too much and the first in the
// group does not wait too long for the last.
#define GROUP_BATCHES_MAX 64u
#define GROUP_BYTES_MAX   (4u << 20)

static void
reset_results(struct manifest_batch *b)
{
    buffer_clear(&b->released);
    buffer_clear(&b->assigned);
}

// Applies the batches in order. On failure `culprit_out` is the batch that caused it.
static int
apply_group(struct lmdb_txn *txn, struct list_node *group, struct manifest_batch **culprit_out)
{
    LIST_FOR_EACH(group, node)
    {
        struct manifest_batch *b = CONTAINER_OF(node, struct manifest_batch, node);
        reset_results(b);
        int rc = manifest_apply(txn, b);
        if (rc < 0) {
            *culprit_out = b;
            return rc;
        }
    }
    return 0;
}

static void
fail_batch(struct manifest_batch *b, int error, struct list_node *finished)
{
    reset_results(b);
    b->result = error;
    list_remove(&b->node);
    list_append(finished, &b->node);
}

// Tries to commit the group once. 0, or LMDB_MAP_FULL, or an error; `culprit_out` is set when a
// single batch is to blame.
static int
try_group(struct manifest *m, struct list_node *group, struct manifest_batch **culprit_out)
{
    *culprit_out = NULL;
    struct lmdb_txn *txn;
    int rc = lmdb_write_begin(m->env, &txn);
    if (rc < 0)
        return rc;
    rc = apply_group(txn, group, culprit_out);
    if (rc < 0) {
        lmdb_write_abort(txn);
        return rc;
    }
    crash_point("manifest.before_commit");
    rc = lmdb_write_commit(txn);
    crash_point("manifest.after_commit");
    return rc;
}

#ifdef CKPTFS_DEBUG
// A check looks at all records of a db. So that it takes a bounded share of the writer's time, a db
// of n records is checked after n / CHECKED_RECORDS commits.
#define CHECKED_RECORDS 256u

static uint64_t
records_of(struct manifest *m, struct db_id id)
{
    struct manifest_reader *r;
    struct db_record db;
    struct db_totals t;
    // A db that is being imported, or is gone, cannot be checked.
    if (manifest_read_begin(m, &r) < 0)
        return UINT64_MAX;
    bool ready = manifest_read_db(r, id, &db) == 0 && db.state == DB_STATE_READY &&
                 manifest_read_totals(r, id, &t) == 0;
    manifest_read_end(r);
    return ready ? t.inodes + t.chunks + t.deltas + t.blobs : UINT64_MAX;
}

// Which dbs held together when they were checked last.
struct known_db {
    struct db_id id;
    bool sound;
};

static struct known_db *
known_db(struct manifest *m, struct db_id id)
{
    struct known_db *known = (void *)m->known_dbs.data;
    size_t count = m->known_dbs.length / sizeof(*known);
    for (size_t i = 0; i < count; i++)
        if (known[i].id.v == id.v)
            return &known[i];
    struct known_db new = {.id = id};
    buffer_append(&m->known_dbs, &new, sizeof(new));
    return (struct known_db *)(void *)m->known_dbs.data + count;
}

// A db that was consistent must be so after a commit. One that was not when it was checked first
// may have come so from a root or a bucket; and damage that a disk made is no fault of the writer.
static void
check_committed(struct manifest *m, struct db_id id)
{
    if (m->contradictions_are_meant || lmdb_env_damage(m->env) > 0)
        return;
    m->unchecked += CHECKED_RECORDS;
    if (records_of(m, id) > m->unchecked)
        return;
    m->unchecked = 0;
    struct known_db *known = known_db(m, id);
    int found = manifest_check(m, id);
    assert(found <= 0 || !known->sound);
    known->sound = found == 0;
}
#else
static void
check_committed(struct manifest *m UNUSED, struct db_id id UNUSED)
{
}
#endif

// After a commit in doubt: whether the environment is as before, and the group can be tried again.
// Before each try comes a longer pause; the writer gives up a disk that does not come back within
// them, so that callers learn it soon.
static bool
mend(struct manifest *m, unsigned *tries)
{
    static const uint16_t pauses_ms[] = {10, 150, 750};
    while (*tries < ARRAY_LENGTH(pauses_ms)) {
        clock_sleep_ms(pauses_ms[(*tries)++]);
        if (lmdb_env_mend(m->env) == 0)
            return true;
    }
    return false;
}

// The group's last try failed, and the state on the disk is in doubt. If the environment can be
// mended and only room was missing, the caller learns that. Else the writer opens the environment
// again for reading.
static int
settle_doubt(struct manifest *m, int rc)
{
    bool no_room = rc == -ENOSPC || rc == -EDQUOT || rc == -EFBIG;
    bool mended = lmdb_env_mend(m->env) == 0;
    if (mended && no_room)
        return rc;
    lmdb_env_give_up(m->env);
    return -EIO;
}

// Commits the group; all its batches are in `finished` with their results afterwards.
static void
commit_group(struct manifest *m, struct list_node *group, struct list_node *finished)
{
    unsigned tries = 0;
    while (!list_is_empty(group)) {
        struct manifest_batch *culprit;
        int rc = try_group(m, group, &culprit);
        if (rc < 0 && lmdb_env_is_failed(m->env) && !lmdb_env_is_lost(m->env)) {
            if (mend(m, &tries))
                continue;
            rc = settle_doubt(m, rc);
            culprit = NULL;
        }
        if (rc == LMDB_MAP_FULL) {
            rc = lmdb_env_grow(m->env);
            if (rc == 0)
                continue;
            log_error("manifest.map_full", "the map cannot be made larger");
            culprit = NULL;
        }
        if (culprit) {
            fail_batch(culprit, rc, finished);
            continue;
        }
        LIST_FOR_EACH(group, node)
        {
            struct manifest_batch *b = CONTAINER_OF(node, struct manifest_batch, node);
            if (rc < 0)
                reset_results(b);
            b->result = rc;
            if (rc == 0)
                check_committed(m, b->db);
        }
        list_move_all(finished, group);
    }
}

static void
take_group_locked(struct manifest *m, struct list_node *group)
{
    size_t bytes = 0;
    for (unsigned i = 0; i < GROUP_BATCHES_MAX && bytes < GROUP_BYTES_MAX; i++) {
        struct list_node *node = list_take_first(&m->queue);
        if (!node)
            return;
        bytes += CONTAINER_OF(node, struct manifest_batch, node)->ops.length;
        list_append(group, node);
    }
}

static void
answer_locked(struct list_node *finished)
{
    struct list_node *node;
    while ((node = list_take_first(finished))) {
        struct manifest_batch *b = CONTAINER_OF(node, struct manifest_batch, node);
        b->is_finished = true;
        condition_signal(&b->finished);
    }
}

// The file grows by the new entries, with pages that are partly empty, and by copies of the pages
// that change. As a rule older transactions have freed pages for those copies, so that a share of
// them is counted.
#define ENTRY_FACTOR      3u
#define COPY_FACTOR       8u
#define COPIED_PART       4u // of the file at most
#define EXPECTED_AT_LEAST (64u << 10)

static void
expect_growth(struct manifest *m, struct storage_quota *quota, const struct list_node *group)
{
    uint64_t bytes = 0;
    if (!quota || !storage_quota_is_limited(quota))
        return;
    for (struct list_node *n = group->next; n != group; n = n->next) {
        const struct manifest_batch *b = CONTAINER_OF(n, struct manifest_batch, node);
        bytes += b->ops.length + b->expected_bytes;
    }
    uint64_t copied = lmdb_env_file_bytes(m->env) / COPIED_PART;
    if (COPY_FACTOR * bytes < copied)
        copied = COPY_FACTOR * bytes;
    storage_quota_expect_manifest(quota, ENTRY_FACTOR * bytes + copied + EXPECTED_AT_LEAST);
}

static void
note_size_locked(struct manifest *m)
{
    if (m->quota)
        storage_quota_note_manifest(m->quota, lmdb_env_file_bytes(m->env));
}

void
manifest_set_quota(struct manifest *m, struct storage_quota *quota)
{
    lock_take(&m->lock);
    m->quota = quota;
    note_size_locked(m);
    lock_release(&m->lock);
}

static void
run_writer(void *argument)
{
    struct manifest *m = argument;
    flush_pace_bind(m->pace);
    lock_take(&m->lock);
    for (;;) {
        while (list_is_empty(&m->queue) && !m->stopping)
            condition_wait(&m->wanted, &m->lock);
        if (list_is_empty(&m->queue))
            break;
        lock_release(&m->lock);
        flush_pace_wait();
        lock_take(&m->lock);
        struct list_node group;
        struct list_node finished;
        list_init(&group);
        list_init(&finished);
        take_group_locked(m, &group);
        // Its owner waits for the batches before it takes it away.
        struct storage_quota *quota = m->quota;
        lock_release(&m->lock);
        expect_growth(m, quota, &group);
        commit_group(m, &group, &finished);
        lock_take(&m->lock);
        note_size_locked(m);
        answer_locked(&finished);
    }
    lock_release(&m->lock);
}

int
manifest_writer_start(struct manifest *m)
{
    return thread_start(&m->writer, "manifest", run_writer, m);
}

void
manifest_writer_stop(struct manifest *m)
{
    lock_take(&m->lock);
    m->stopping = true;
    condition_signal(&m->wanted);
    lock_release(&m->lock);
    thread_join(&m->writer);
}

int
manifest_writer_commit(struct manifest *m, struct manifest_batch *b)
{
    lock_take(&m->lock);
    assert(!m->stopping);
    list_append(&m->queue, &b->node);
    condition_signal(&m->wanted);
    while (!b->is_finished)
        condition_wait(&b->finished, &m->lock);
    lock_release(&m->lock);
    return b->result;
}
