// SPDX-License-Identifier: Apache-2.0
// Finds the owner of a log in a directory, by the headers of its segments alone.
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "platform/memory.h"
#include "platform/path.h"
#include "wal/wal_internal.h"

static void
note_header(struct wal_survey *s, const struct wal_segment_header *h)
{
    if (s->has_volume && !uuid_equal(&h->volume, &s->volume) && h->start.v < s->newest.v)
        return;
    bool same = s->has_volume && uuid_equal(&h->volume, &s->volume);
    if (!same || h->start.v < s->oldest.v)
        s->oldest = h->start;
    if (!same || h->start.v >= s->newest.v) {
        s->newest = h->start;
        s->has_writer = h->has_writer;
        s->writer = h->writer;
    }
    s->has_volume = true;
    s->volume = h->volume;
}

static int
survey_segment(int directory, const char *name, struct wal_survey *s)
{
    uint8_t bytes[WAL_SEGMENT_HEADER_BYTES];
    struct wal_segment_header h;
    int fd = openat(directory, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0)
        return -errno;
    s->segments++;
    ssize_t got = pread(fd, bytes, sizeof(bytes), 0);
    int rc = got < 0 ? -errno : 0;
    close(fd);
    // A file without a header is a spare, or damaged, which wal_verify finds out.
    if (got == (ssize_t)sizeof(bytes) && wal_segment_header_decode(bytes, &h) == 0)
        note_header(s, &h);
    return rc;
}

int
wal_survey(const char *directory, struct wal_survey *survey_out)
{
    *survey_out = (struct wal_survey){0};
    DIR *dir = path_open_directory(directory);
    if (!dir)
        return errno == ENOENT ? 0 : -errno;
    int rc = 0;
    errno = 0;
    for (struct dirent *e; rc == 0 && (e = readdir(dir)); errno = 0) {
        if (strncmp(e->d_name, "segment-", 8) == 0)
            rc = survey_segment(dirfd(dir), e->d_name, survey_out);
    }
    if (rc == 0)
        rc = -errno; // the list is not whole
    closedir(dir);
    return rc;
}
