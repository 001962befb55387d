// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include "fuse/mount_users.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/compiler.h"
#include "platform/memory.h"

// Namespaces that are remembered, so that each is looked at once.
#define NAMESPACES_MAX 256

dev_t
mount_users_device_of(const char *path)
{
    struct statx st;
    // No attribute is asked for, and none is to be synchronised: the device is known anyway.
    if (statx(AT_FDCWD, path, AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT, 0, &st) < 0)
        return 0;
    return makedev(st.stx_dev_major, st.stx_dev_minor);
}

// The first place of `device` in the mount table at `table`: 1 and its path (as the table shows
// it), 0 when it is not there, -1 when the table cannot be read. `path_out` may be NULL.
static int
find_in_table(const char *table, dev_t device, char **path_out)
{
    FILE *file = fopen(table, "re");
    if (!file)
        return -1;
    char *line = NULL;
    size_t size = 0;
    int found = 0;
    while (!found && getline(&line, &size, file) > 0) {
        unsigned major_number;
        unsigned minor_number;
        int at = 0;
        // id, parent, device, root, mount point
        if (sscanf(line, "%*u %*u %u:%u %*s %n", &major_number, &minor_number, &at) < 2 ||
            at == 0 || makedev(major_number, minor_number) != device)
            continue;
        found = 1;
        line[(size_t)at + strcspn(line + at, " \n")] = '\0';
        if (path_out)
            *path_out = memory_string(line + at);
    }
    free(line);
    fclose(file);
    return found;
}

bool
mount_users_is_mounted(dev_t device)
{
    return find_in_table("/proc/self/mountinfo", device, NULL) != 0;
}

// Whether the file behind a link of /proc/PID is on the device.
static bool
is_on(dev_t device, const char *process, const char *name)
{
    CLEANUP(memory_free_auto) char *path = memory_printf("/proc/%s/%s", process, name);
    return mount_users_device_of(path) == device;
}

static bool
has_open(dev_t device, const char *process)
{
    if (is_on(device, process, "cwd") || is_on(device, process, "root"))
        return true;
    CLEANUP(memory_free_auto) char *directory = memory_printf("/proc/%s/fd", process);
    DIR *files = opendir(directory);
    bool found = false;
    for (struct dirent *e; files && !found && (e = readdir(files));) {
        if (e->d_name[0] == '.')
            continue;
        CLEANUP(memory_free_auto) char *name = memory_printf("fd/%s", e->d_name);
        found = is_on(device, process, name);
    }
    if (files)
        closedir(files);
    return found;
}

static bool
has_mapped(dev_t device, const char *process)
{
    CLEANUP(memory_free_auto) char *path = memory_printf("/proc/%s/maps", process);
    FILE *file = fopen(path, "re");
    if (!file)
        return false;
    char *line = NULL;
    size_t size = 0;
    bool found = false;
    while (!found && getline(&line, &size, file) > 0) {
        unsigned major_number;
        unsigned minor_number;
        found = sscanf(line, "%*s %*s %*s %x:%x", &major_number, &minor_number) == 2 &&
                makedev(major_number, minor_number) == device;
    }
    free(line);
    fclose(file);
    return found;
}

static void
name_process(const char *process, struct buffer *out)
{
    CLEANUP(memory_free_auto) char *path = memory_printf("/proc/%s/comm", process);
    char name[64] = "";
    FILE *file = fopen(path, "re");
    if (file) {
        if (!fgets(name, sizeof(name), file))
            name[0] = '\0';
        fclose(file);
    }
    name[strcspn(name, "\n")] = '\0';
    for (char *c = name; *c; c++)
        if (*c < ' ' || *c > '~')
            *c = '?';
    buffer_printf(out, "%sprocess %s (%s)", out->length > 0 ? "; " : "", process, name);
}

struct search {
    dev_t device;
    char own[64]; // our mount namespace
    char *seen[NAMESPACES_MAX];
    size_t seen_count;
};

// Whether the process is the first that was met in a foreign mount namespace.
static bool
is_in_new_namespace(struct search *s, const char *process)
{
    char name[64] = "";
    CLEANUP(memory_free_auto) char *path = memory_printf("/proc/%s/ns/mnt", process);
    ssize_t n = readlink(path, name, sizeof(name) - 1);
    if (n <= 0 || strcmp(name, s->own) == 0)
        return false;
    for (size_t i = 0; i < s->seen_count; i++)
        if (strcmp(s->seen[i], name) == 0)
            return false;
    if (s->seen_count < NAMESPACES_MAX)
        s->seen[s->seen_count++] = memory_string(name);
    return true;
}

// Whether the process was worth a line.
static bool
describe_process(struct search *s, const char *process, struct buffer *out)
{
    CLEANUP(memory_free_auto) char *table = memory_printf("/proc/%s/mountinfo", process);
    CLEANUP(memory_free_auto) char *place = NULL;
    if (is_in_new_namespace(s, process) && find_in_table(table, s->device, &place) > 0) {
        name_process(process, out);
        buffer_printf(out, " has it at %s in another mount namespace", place);
        return true;
    }
    if (!has_open(s->device, process) && !has_mapped(s->device, process))
        return false;
    name_process(process, out);
    buffer_append_string(out, " uses it");
    return true;
}

void
mount_users_describe(dev_t device, struct buffer *out)
{
    struct search s = {.device = device};
    BUFFER_AUTO text = {0};
    ssize_t n = readlink("/proc/self/ns/mnt", s.own, sizeof(s.own) - 1);
    s.own[n > 0 ? n : 0] = '\0';
    DIR *processes = opendir("/proc");
    unsigned found = 0;
    for (struct dirent *e; processes && found < MOUNT_USERS_MAX && (e = readdir(processes));) {
        bool is_process = e->d_name[0] >= '1' && e->d_name[0] <= '9';
        if (is_process && strtol(e->d_name, NULL, 10) != (long)getpid())
            found += describe_process(&s, e->d_name, &text);
    }
    if (processes)
        closedir(processes);
    for (size_t i = 0; i < s.seen_count; i++)
        free(s.seen[i]);
    buffer_append(out, text.data, text.length);
}
