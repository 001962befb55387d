// SPDX-License-Identifier: Apache-2.0
// ckptctl changes: the change log of a mount as JSON lines.
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "base/json_writer.h"
#include "fuse/ckptctl.h"
#include "platform/clock.h"
#include "platform/file.h"
#include "platform/memory.h"

#define POLL_MS 250u

static int
ask(int fd, const char *name, uint32_t command, uint32_t flags, uint64_t after,
    struct ckptfs_changes *io)
{
    *io = (struct ckptfs_changes){
        .version = CKPTFS_ABI_VERSION, .command = command, .flags = flags, .after = after};
    (void)snprintf(io->name, sizeof(io->name), "%s", name);
    if (ioctl(fd, CKPTFS_IOC_CHANGES, io) < 0)
        return -errno;
    return io->count > CKPTFS_CHANGES_MAX ? -EBADMSG : 0;
}

static void
print_change(const struct ckptfs_change *c, struct buffer *out)
{
    static const char *const reasons[] = {"", "TruncationConflict", "UserRequested", "Timeout"};
    struct json_writer w = {.out = out};
    write_json_begin_object(&w, NULL);
    write_json_u64(&w, "sequence", c->sequence);
    write_json_u64(&w, "time_ms", c->time_ms);
    write_json_u64(&w, "local_generation", c->local_generation);
    write_json_u64(&w, "published_generation", c->published_generation);
    write_json_u64(&w, "inodes", c->inodes);
    write_json_u64(&w, "dirents", c->dirents);
    write_json_u64(&w, "xattrs", c->xattrs);
    write_json_u64(&w, "chunks", c->chunks);
    write_json_u64(&w, "deltas", c->deltas);
    write_json_u64(&w, "blobs", c->blobs);
    if (c->note == CKPTFS_CHANGE_CANCEL_CHECKPOINT) {
        write_json_string(&w, "canceled", reasons[c->reason < 4 ? c->reason : 0]);
        write_json_u64(&w, "job", c->job);
    } else if (c->note == CKPTFS_CHANGE_TRUNCATE) {
        write_json_u64(&w, "truncated_inode", c->inode);
        write_json_u64(&w, "window_begin", c->window_begin);
        write_json_u64(&w, "window_end", c->window_end);
        write_json_u64(&w, "job", c->job);
    }
    write_json_end_object(&w);
    buffer_append_string(out, "\n");
}

// Where to begin. A new subscriber begins with the next change, or at `after`.
static int
subscribe(int fd, const struct changes_request *request, uint64_t *after, struct ckptfs_changes *io)
{
    if (request->name[0] == 0)
        return 0;
    int rc = ask(fd, request->name, CKPTFS_CHANGES_READ, CKPTFS_CHANGES_RESUME, 0, io);
    if (rc == 0 && !request->after)
        *after = io->resumed;
    if (rc != -ENOENT)
        return rc;
    return ask(fd, request->name, CKPTFS_CHANGES_ACKNOWLEDGE, 0, *after, io);
}

static int
print_batch(const struct ckptfs_changes *io)
{
    BUFFER_AUTO out = {0};
    for (uint32_t i = 0; i < io->count; i++)
        print_change(&io->changes[i], &out);
    return print_out(&out);
}

// Prints the records that there are and then, to follow, the new ones.
static int
follow(int fd, const struct changes_request *request, uint64_t after, struct ckptfs_changes *io)
{
    for (;;) {
        int rc = ask(fd, request->name, CKPTFS_CHANGES_READ, 0, after, io);
        if (rc < 0)
            return control_failed("changes of", request->path, rc);
        if (io->count > 0) {
            after = io->changes[io->count - 1].sequence;
            // ckptctl acknowledges only records that it has written.
            int status = print_batch(io);
            if (status != EXIT_SUCCESS)
                return status;
            if (request->name[0])
                rc = ask(fd, request->name, CKPTFS_CHANGES_ACKNOWLEDGE, 0, after, io);
            if (rc < 0)
                return control_failed("changes of", request->path, rc);
        } else if (!request->follow) {
            return EXIT_SUCCESS;
        } else {
            clock_sleep_ms(POLL_MS);
        }
    }
}

int
show_changes(const struct changes_request *request)
{
    char *end = NULL;
    uint64_t after = 0;
    errno = 0;
    if (request->after)
        after = strtoull(request->after, &end, 10);
    if (request->after && (request->after[0] < '0' || request->after[0] > '9' || *end || errno)) {
        print_error("\"%s\" is not the number of a change", request->after);
        return EXIT_STATUS_USAGE;
    }
    if (strlen(request->name) >= sizeof(((struct ckptfs_changes *)0)->name)) {
        print_error("a subscriber's name has at most 47 bytes");
        return EXIT_STATUS_USAGE;
    }
    CLEANUP(file_close_auto) int fd = control_open(request->path);
    if (fd < 0)
        return EXIT_STATUS_ERROR;
    CLEANUP(memory_free_auto) struct ckptfs_changes *io = memory_alloc(sizeof(*io));
    int rc = request->leave ? ask(fd, request->name, CKPTFS_CHANGES_LEAVE, 0, 0, io)
                            : subscribe(fd, request, &after, io);
    if (rc == -EINVAL && request->after)
        print_error("changes of %s: there is no change %s yet", request->path, request->after);
    else if (rc < 0)
        return control_failed("changes of", request->path, rc);
    if (rc < 0)
        return EXIT_STATUS_ERROR;
    return request->leave ? EXIT_SUCCESS : follow(fd, request, after, io);
}
