// SPDX-License-Identifier: Apache-2.0
// A fork that is made while its parent is destroyed.
#include "volume_world.h"

#include <dirent.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "platform/memory.h"
#include "volume/volume_offline.h"

static struct volume_world world;
static void (*before_record_one)(void);

// Stands in for the C library's.
int
link(const char *from, const char *to)
{
    void (*call)(void) = before_record_one;
    const char *name = strrchr(to, '/');
    if (call && strcmp(name + 1, "record-0000000000000001") == 0) {
        before_record_one = NULL;
        call();
    }
    return linkat(AT_FDCWD, from, AT_FDCWD, to, 0);
}

static void
setup(void)
{
    volume_world_new(&world);
    volume_world_open(&world);
    struct object_id file = volume_world_make_file(world.v, "file");
    volume_world_fill(world.v, file, 0, 100000, 7);
    (void)volume_world_publish(world.v);
    volume_world_close(&world);
}

static void
teardown(void)
{
    volume_world_free(&world);
}

static int
fork_it(const char *tenant, struct buffer *error)
{
    struct generation made;
    CLEANUP(memory_free_auto)
    char *source = memory_printf("file://%s/store/%s", world.directory, tenant);
    return volume_fork(&world.config, NULL, source, &made, error);
}

static int
destroy(struct buffer *error)
{
    uint64_t objects;
    return volume_destroy(&world.config, NULL, &objects, error);
}

// The forking host sleeps for two days. Nothing shows that the pin is of a fork that is under way.
static void
sleep_while_the_parent_is_destroyed(void)
{
    BUFFER_AUTO error = {0};
    volume_world_age_objects(&world, "pins/acme/1", 2 * 24 * 3600);
    ck_assert_msg(destroy(&error) == 0, "%s", buffer_string(&error));
}

START_TEST(fork_of_a_parent_that_went_meanwhile_is_not_made)
{
    BUFFER_AUTO error = {0};
    BUFFER_AUTO again = {0};
    struct generation made;
    before_record_one = sleep_while_the_parent_is_destroyed;
    ck_assert_int_lt(fork_it("child", &error), 0);
    ck_assert_ptr_null(before_record_one);
    ck_assert_ptr_nonnull(strstr(buffer_string(&error), "has gone or changed"));
    // Nothing was left in the parent's place.
    CLEANUP(memory_free_auto) char *pins = memory_printf("%s/store/pins/acme/1", world.directory);
    DIR *d = opendir(pins);
    for (struct dirent *e; d && (e = readdir(d));)
        ck_assert_int_eq(e->d_name[0], '.');
    if (d)
        closedir(d);
    // The child is empty, and nobody takes it for a fork.
    CLEANUP(memory_free_auto)
    char *child = memory_printf("file://%s/store/child", world.directory);
    struct volume_config config;
    volume_config_copy(&config, &world.config);
    free(config.source);
    config.source = memory_string(child);
    ck_assert_int_lt(volume_rollback(&config, "1", &made, &again), 0);
    volume_config_free(&config);
}
END_TEST

START_TEST(fork_that_was_made_keeps_its_parent)
{
    BUFFER_AUTO error = {0};
    ck_assert_msg(fork_it("child", &error) == 0, "%s", buffer_string(&error));
    volume_world_age_objects(&world, "pins/acme/1", 2 * 24 * 3600);
    ck_assert_int_eq(destroy(&error), -EBUSY);
    ck_assert_ptr_nonnull(strstr(buffer_string(&error), "child@1 is a fork"));
}
END_TEST

int
main(void)
{
    Suite *s = suite_create("volume_fork");
#define ADD(t) unit_add_with(s, #t, t, setup, teardown, 60)
    ADD(fork_of_a_parent_that_went_meanwhile_is_not_made);
    ADD(fork_that_was_made_keeps_its_parent);
    return unit_run(s);
}
