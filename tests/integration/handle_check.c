// SPDX-License-Identifier: Apache-2.0
// File handles. Usage:
//     handle_check save FILE HANDLE     writes the handle of FILE to HANDLE
//     handle_check open MOUNT HANDLE    prints the contents of the file behind it
//     handle_check path MOUNT HANDLE    prints the path of the directory behind it
//     handle_check stale MOUNT HANDLE   succeeds when there is nothing behind it any more
//     handle_check exchange NAME NAME   exchanges two names
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct saved {
    struct file_handle head;
    unsigned char bytes[MAX_HANDLE_SZ];
};

static int
fail(const char *what)
{
    perror(what);
    return 1;
}

static int
save(const char *path, const char *to)
{
    struct saved handle = {.head = {.handle_bytes = MAX_HANDLE_SZ}};
    int mount_id;
    if (name_to_handle_at(AT_FDCWD, path, &handle.head, &mount_id, 0) < 0)
        return fail(path);
    FILE *file = fopen(to, "w");
    if (!file || fwrite(&handle, sizeof(handle), 1, file) != 1 || fclose(file) != 0)
        return fail(to);
    return 0;
}

int
main(int argc, char *argv[])
{
    struct saved handle;
    char text[4096];
    if (argc != 4)
        return 2;
    if (strcmp(argv[1], "save") == 0)
        return save(argv[2], argv[3]);
    if (strcmp(argv[1], "exchange") == 0)
        return renameat2(AT_FDCWD, argv[2], AT_FDCWD, argv[3], RENAME_EXCHANGE) == 0
                   ? 0
                   : fail("renameat2");
    FILE *file = fopen(argv[3], "r");
    if (!file || fread(&handle, sizeof(handle), 1, file) != 1)
        return fail(argv[3]);
    fclose(file);
    int mount = open(argv[2], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (mount < 0)
        return fail(argv[2]);
    int fd = open_by_handle_at(mount, &handle.head, O_RDONLY | O_CLOEXEC);
    if (strcmp(argv[1], "stale") == 0)
        return fd < 0 && errno == ESTALE ? 0 : fail("a handle of nothing");
    if (fd < 0)
        return fail("open_by_handle_at");
    if (strcmp(argv[1], "path") == 0) {
        char link[64];
        snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
        ssize_t length = readlink(link, text, sizeof(text));
        if (length < 0)
            return fail("readlink");
        return printf("%.*s\n", (int)length, text) > 0 ? 0 : 1;
    }
    ssize_t n = read(fd, text, sizeof(text));
    if (n < 0)
        return fail("read");
    return fwrite(text, 1, (size_t)n, stdout) == (size_t)n ? 0 : 1;
}
