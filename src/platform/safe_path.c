// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include "platform/safe_path.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "platform/file.h"
#include "platform/memory.h"
#include "platform/path.h"

// ---- trust --------------------------------------------------------------------------------------

static bool
complain(struct buffer *why, const char *path, const char *what)
{
    buffer_printf(why, "%s %s", path, what);
    return false;
}

static bool
is_private(const char *path, mode_t safe_with, struct buffer *why)
{
    struct stat st;
    int rc = path_stat(path, &st);
    if (rc < 0)
        return rc == -ENOENT || complain(why, path, strerror(-rc));
    if (S_ISLNK(st.st_mode))
        return complain(why, path, "is a symbolic link; give the directory itself");
    if (!S_ISDIR(st.st_mode))
        return complain(why, path, "is not a directory");
    if (st.st_uid != 0 && st.st_uid != geteuid())
        return complain(why, path, "belongs to another user, who could plant links in it");
    if ((st.st_mode & (S_IWGRP | S_IWOTH)) != 0 && !(st.st_mode & safe_with))
        return complain(why, path, "may be written by other users; run chmod go-w on it");
    return true;
}

bool
safe_path_is_private(const char *path, struct buffer *why)
{
    return is_private(path, 0, why);
}

// A directory above: all users may write to it only when they cannot touch the entries of others
// (sticky bit).
static bool
check_above(const char *path, struct buffer *why)
{
    struct stat st;
    if (stat(path, &st) < 0)
        return complain(why, path, strerror(errno));
    return !(st.st_mode & S_IWOTH) || (st.st_mode & S_ISVTX) ||
           complain(why, path, "may be written by everybody");
}

// The path without links, or NULL.
static char *
resolve(const char *path, struct buffer *why)
{
    CLEANUP(memory_free_auto) char *copy = memory_string(path);
    size_t n = strlen(copy);
    while (n > 1 && copy[n - 1] == '/')
        copy[--n] = '\0';
    if (!is_private(copy, S_ISVTX, why))
        return NULL;
    char *resolved = realpath(copy, NULL);
    if (!resolved)
        (void)complain(why, copy, strerror(errno));
    return resolved;
}

char *
safe_path_hold(const char *path, struct path_hold **hold_out, struct buffer *why)
{
    char *resolved = resolve(path, why);
    *hold_out = NULL;
    if (!resolved)
        return NULL;
    bool good = check_above("/", why);
    for (char *slash = strchr(resolved + 1, '/'); good && slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        good = check_above(resolved, why);
        *slash = '/';
    }
    int rc = good ? path_hold(resolved, hold_out) : 0;
    if (rc < 0)
        good = complain(why, resolved, strerror(-rc));
    // Now of the directory that is held, which may have come after the first look.
    if (good && is_private(resolved, S_ISVTX, why))
        return resolved;
    path_release(*hold_out);
    *hold_out = NULL;
    free(resolved);
    return NULL;
}

// ---- places -------------------------------------------------------------------------------------

int
safe_place_enter(const char *top, const char *relative, struct safe_place *place_out)
{
    const int how = O_PATH | O_DIRECTORY | O_CLOEXEC;
    int fd = path_open_straight(top, how);
    place_out->parent = -1;
    for (;;) {
        if (fd < 0)
            return fd == -ELOOP ? -ENOTDIR : fd;
        size_t n = strcspn(relative, "/");
        char name[NAME_MAX + 1];
        if (n == 0 || n > NAME_MAX) {
            close(fd);
            return n == 0 ? -EINVAL : -ENAMETOOLONG;
        }
        memcpy(name, relative, n);
        name[n] = '\0';
        if (relative[n] == '\0') {
            place_out->parent = fd;
            snprintf(place_out->path, sizeof(place_out->path), "/proc/self/fd/%d/%s", fd, name);
            return 0;
        }
        int next = openat(fd, name, how | O_NOFOLLOW);
        int error = errno;
        close(fd);
        fd = next < 0 ? -error : next;
        relative += n + 1;
    }
}

void
safe_place_leave(struct safe_place *place)
{
    file_close(place->parent);
    place->parent = -1;
}

// ---- overlap ------------------------------------------------------------------------------------

// Where a path lies: its device, and its place in the file system on it.
struct location {
    unsigned major_number, minor_number;
    char *path; // to be freed
};

// Undoes the escapes of the mount table, in place.
static void
unescape(char *text)
{
    char *out = text;
    for (const char *p = text; *p; p++) {
        unsigned byte;
        if (*p == '\\' && sscanf(p + 1, "%3o", &byte) == 1) {
            *out++ = (char)byte;
            p += 3;
        } else {
            *out++ = *p;
        }
    }
    *out = '\0';
}

// Whether `path` is `above` or lies below it; the rest behind it, without the slash.
static const char *
below(const char *path, const char *above)
{
    size_t n = strlen(above);
    if (n == 1)
        return path + 1;
    if (strncmp(path, above, n) != 0 || (path[n] != '/' && path[n] != '\0'))
        return NULL;
    return path[n] == '/' ? path + n + 1 : path + n;
}

static bool
locate(const char *path, struct location *l)
{
    CLEANUP(memory_free_auto) char *real = realpath(path, NULL);
    FILE *table = real ? fopen("/proc/self/mountinfo", "re") : NULL;
    if (!table)
        return false;
    char *line = NULL;
    size_t size = 0;
    size_t longest = 0;
    l->path = NULL;
    while (getline(&line, &size, table) > 0) {
        unsigned major_number;
        unsigned minor_number;
        char *root = NULL;
        char *point = NULL;
        if (sscanf(line, "%*u %*u %u:%u %ms %ms", &major_number, &minor_number, &root, &point) ==
            4) {
            unescape(root);
            unescape(point);
            const char *rest = below(real, point);
            // Of mounts on one place the last one counts.
            if (rest && strlen(point) >= longest) {
                longest = strlen(point);
                free(l->path);
                l->path = memory_printf("%s/%s", strcmp(root, "/") == 0 ? "" : root, rest);
                l->major_number = major_number;
                l->minor_number = minor_number;
            }
        }
        free(root);
        free(point);
    }
    free(line);
    fclose(table);
    if (!l->path)
        return false;
    size_t n = strlen(l->path);
    if (n > 1 && l->path[n - 1] == '/')
        l->path[n - 1] = '\0';
    return true;
}

bool
safe_path_lies_in(const char *path, const char *above)
{
    struct location x = {0};
    struct location y = {0};
    bool inside = locate(path, &x) && locate(above, &y) && x.major_number == y.major_number &&
                  x.minor_number == y.minor_number && below(x.path, y.path);
    free(x.path);
    free(y.path);
    return inside;
}
