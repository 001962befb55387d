// SPDX-License-Identifier: Apache-2.0
// The tree of snapshots and generations below .ckptfs, without a kernel: which names it finds and
// lists, and how it opens and closes generations when many threads use it.
#include "volume_world.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <string.h>

#include "fuse/snapshot_tree.h"
#include "platform/clock.h"
#include "platform/memory.h"
#include "platform/thread.h"

#define GENERATIONS 6u
#define FEW         2u // for tests of names
#define BYTES       (64u << 10)
#define FOREVER_MS  ((uint64_t)3600 * 1000)

static struct volume_world w;
static struct snapshot_tree tree;
static const struct remote_call patient = {0};
static const struct remote_call local_only = {.local_only = true};

// ---- the store's answers ------------------------------------------------------------------------

// What the store says instead of its own snapshots.
struct script {
    struct lock lock; // protects all that follows
    struct condition changed;
    const char *names; // with blanks between; a name may have ":GENERATION" behind it. NULL: none
    bool hold;         // answers wait behind the store's, before the caller gets them
    unsigned held;
    int failure;
    unsigned listings;
};
static struct script script;
static atomic_uint opened;

int __real_volume_open_generation(struct volume *v, struct generation generation,
    const struct volume_host *host, struct volume **volume_out, struct buffer *error);
int __wrap_volume_open_generation(struct volume *v, struct generation generation,
    const struct volume_host *host, struct volume **volume_out, struct buffer *error);
int __wrap_volume_list_snapshots(
    struct volume *v, const struct remote_call *call, volume_visit_kept *visit, void *argument);

int
__wrap_volume_open_generation(struct volume *v, struct generation generation,
    const struct volume_host *host, struct volume **volume_out, struct buffer *error)
{
    atomic_fetch_add(&opened, 1);
    return __real_volume_open_generation(v, generation, host, volume_out, error);
}

int
__wrap_volume_list_snapshots(struct volume *v UNUSED, const struct remote_call *call UNUSED,
    volume_visit_kept *visit, void *argument)
{
    char *rest;
    lock_take(&script.lock);
    CLEANUP(memory_free_auto) char *names = memory_string(script.names ? script.names : "");
    int rc = script.failure;
    script.listings++;
    script.held++;
    condition_broadcast(&script.changed);
    while (script.hold && script.held == 1)
        condition_wait(&script.changed, &script.lock);
    script.held--;
    lock_release(&script.lock);
    for (char *name = strtok_r(names, " ", &rest); name && rc == 0;
         name = strtok_r(NULL, " ", &rest)) {
        char *colon = strchr(name, ':');
        uint64_t generation = colon ? strtoull(colon + 1, NULL, 10) : 1;
        if (colon)
            *colon = '\0';
        rc = visit(argument, name, (struct generation){generation}, 1000);
    }
    return rc;
}

static void
say(const char *names)
{
    lock_take(&script.lock);
    script.names = names;
    lock_release(&script.lock);
    snapshot_tree_names_changed(&tree);
}

// ---- the world ----------------------------------------------------------------------------------

static void
make_world(unsigned generations)
{
    lock_init(&script.lock, "script", LOCK_RANK_PLATFORM);
    condition_init(&script.changed);
    volume_world_new(&w);
    volume_world_open(&w);
    struct object_id file = volume_world_make_file(w.v, "file");
    for (unsigned i = 1; i <= generations; i++) {
        volume_world_fill(w.v, file, 0, BYTES, i);
        ck_assert_uint_eq(volume_world_publish(w.v).v, i);
    }
    snapshot_tree_init(&tree, w.v);
    tree.idle_ms = FOREVER_MS;
}

static void
setup(void)
{
    make_world(GENERATIONS);
}

static void
setup_few(void)
{
    make_world(FEW);
}

static void
teardown(void)
{
    snapshot_tree_stop(&tree);
    snapshot_tree_destroy(&tree);
    volume_world_free(&w);
    condition_destroy(&script.changed);
    lock_destroy(&script.lock);
}

static int
find(enum snapshot_directory directory, const char *name, unsigned *number_out)
{
    return snapshot_tree_find(&tree, directory, name, &patient, number_out);
}

static unsigned
place_of(uint64_t generation)
{
    char name[24];
    unsigned number;
    snprintf(name, sizeof(name), "%" PRIu64, generation);
    ck_assert_int_eq(find(SNAPSHOT_GENERATIONS, name, &number), 0);
    return number;
}

static int
try_read(unsigned number, uint64_t seed)
{
    struct snapshot_view *view;
    int rc = snapshot_tree_get(&tree, number, &patient, &view);
    if (rc < 0)
        return rc;
    volume_world_expect(view->volume, volume_world_find(view->volume, "file"), 0, BYTES, seed);
    snapshot_tree_put(view);
    return 0;
}

static int
try_open(unsigned number)
{
    struct snapshot_view *view;
    int rc = snapshot_tree_get(&tree, number, &patient, &view);
    if (rc == 0) {
        snapshot_tree_file_opened(view, number);
        snapshot_tree_put(view);
    }
    return rc;
}

static unsigned
count_open_locked(void)
{
    unsigned n = 0;
    for (unsigned i = 0; i < SNAPSHOT_VIEWS_MAX; i++)
        n += tree.views[i].state != VIEW_CLOSED;
    return n;
}

static unsigned
count_open(void)
{
    lock_take(&tree.lock);
    unsigned n = count_open_locked();
    lock_release(&tree.lock);
    return n;
}

static void
wait_until_open(unsigned most)
{
    lock_take(&tree.lock);
    while (count_open_locked() > most)
        condition_wait(&tree.changed, &tree.lock);
    lock_release(&tree.lock);
}

// ---- names --------------------------------------------------------------------------------------

START_TEST(a_generation_has_one_name)
{
    static const char *const wrong[] = {"", "0", "01", "+1", "-1", " 1", "1 ", "1\n", "0x1", "1.0",
        "1e0", "\xff", "1\xff", "3", "18446744073709551615", "18446744073709551616",
        "18446744073709551617", "36893488147419103233",
        "100000000000000000000000000000000000000000000000000000000000000000000000000000001"};
    char longest[4096];
    unsigned number;
    unsigned again;
    for (size_t i = 0; i < ARRAY_LENGTH(wrong); i++)
        ck_assert_msg(
            find(SNAPSHOT_GENERATIONS, wrong[i], &number) == -ENOENT, "'%s' is found", wrong[i]);
    memset(longest, '1', sizeof(longest) - 1);
    longest[sizeof(longest) - 1] = '\0';
    ck_assert_int_eq(find(SNAPSHOT_GENERATIONS, longest, &number), -ENOENT);
    ck_assert_int_eq(find(SNAPSHOT_SNAPSHOTS, longest, &number), -ENOENT);
    ck_assert_uint_eq(tree.places.count, 0);
    ck_assert_int_eq(find(SNAPSHOT_GENERATIONS, "2", &number), 0);
    ck_assert_int_eq(find(SNAPSHOT_GENERATIONS, "2", &again), 0);
    ck_assert_uint_eq(number, again);
}
END_TEST

START_TEST(names_of_snapshots_are_taken_as_they_are)
{
    static const char *const wrong[] = {
        "", ".", "..", "a/b", "%s%n", "A", "a ", "\xff\xfe", "a\n", "name-of-64-bytes"};
    const char *longest = "a123456789b123456789c123456789d123456789e123456789f123456789abcd";
    char longer[66];
    unsigned number;
    CLEANUP(memory_free_auto) char *names = memory_printf("a b:1 %s:2", longest);
    say(names);
    for (size_t i = 0; i < ARRAY_LENGTH(wrong); i++)
        ck_assert_msg(
            find(SNAPSHOT_SNAPSHOTS, wrong[i], &number) == -ENOENT, "'%s' is found", wrong[i]);
    snprintf(longer, sizeof(longer), "%sx", longest);
    ck_assert_int_eq(find(SNAPSHOT_SNAPSHOTS, longer, &number), -ENOENT);
    ck_assert_int_eq(find(SNAPSHOT_SNAPSHOTS, longest, &number), 0);
    ck_assert_int_eq(try_read(number, 2), 0);
    ck_assert_int_eq(find(SNAPSHOT_SNAPSHOTS, "b", &number), 0);
    ck_assert_int_eq(try_read(number, 1), 0);
}
END_TEST

START_TEST(two_names_of_one_generation_are_two_directories_and_one_view)
{
    unsigned a;
    unsigned b;
    say("a:2 b:2");
    ck_assert_int_eq(find(SNAPSHOT_SNAPSHOTS, "a", &a), 0);
    ck_assert_int_eq(find(SNAPSHOT_SNAPSHOTS, "b", &b), 0);
    unsigned c = place_of(2);
    ck_assert(a != b && b != c && a != c);
    ck_assert_int_eq(try_read(a, 2), 0);
    ck_assert_int_eq(try_read(b, 2), 0);
    ck_assert_int_eq(try_read(c, 2), 0);
    ck_assert_uint_eq(atomic_load(&opened), 1);
}
END_TEST

START_TEST(numbers_of_nodes_that_nobody_has_are_stale)
{
    static const unsigned wrong[] = {
        0, 2, 77, SNAPSHOT_PLACES_MAX, SNAPSHOT_PLACES_MAX + 1, UINT32_MAX};
    struct volume_attributes attributes;
    struct snapshot_view *view;
    ck_assert_uint_eq(place_of(1), 1);
    for (size_t i = 0; i < ARRAY_LENGTH(wrong); i++) {
        ck_assert_int_eq(snapshot_tree_get(&tree, wrong[i], &patient, &view), -ESTALE);
        ck_assert_int_eq(snapshot_tree_root(&tree, wrong[i], &attributes), -ESTALE);
        snapshot_tree_file_closed(&tree, wrong[i]);
    }
    // Nodes of places differ in each object, and from those of the volume.
    uint64_t node = snapshot_node(SNAPSHOT_PLACES_MAX, SNAPSHOT_OBJECT_MAX);
    ck_assert_uint_eq(node >> 63, 0);
    ck_assert_uint_eq(snapshot_node_number(node), SNAPSHOT_PLACES_MAX);
    ck_assert_uint_eq(snapshot_node_object(node), SNAPSHOT_OBJECT_MAX);
    ck_assert(!snapshot_node_is(SNAPSHOT_NODE_BIT - 1));
}
END_TEST

// ---- numbers ------------------------------------------------------------------------------------

static unsigned
place_named(const char *name)
{
    unsigned number;
    say(name);
    ck_assert_int_eq(find(SNAPSHOT_SNAPSHOTS, name, &number), 0);
    return number;
}

START_TEST(numbers_that_the_kernel_has_forgotten_are_given_to_others)
{
    struct snapshot_view *view;
    tree.places.kept = 2;
    unsigned a = place_named("a");
    unsigned b = place_named("b");
    uint64_t before = snapshot_tree_incarnation(&tree, a);
    ck_assert_uint_eq(place_named("a"), a);
    snapshot_tree_refer(&tree, a, 5);
    snapshot_tree_forget(&tree, a, 6);
    // One reference is left: that of the first lookup.
    ck_assert_uint_eq(place_named("c"), 3);
    snapshot_tree_forget(&tree, a, 1);
    ck_assert_uint_eq(place_named("d"), a);
    ck_assert_uint_ne(snapshot_tree_incarnation(&tree, a), before);
    ck_assert_uint_eq(place_named("a"), 4);
    // A file that is open keeps its place, also when the kernel forgets its node first.
    ck_assert_int_eq(try_open(b), 0);
    snapshot_tree_forget(&tree, b, 1);
    ck_assert_uint_eq(place_named("e"), 5);
    ck_assert_int_eq(snapshot_tree_get(&tree, b, &patient, &view), 0);
    snapshot_tree_put(view);
    snapshot_tree_file_closed(&tree, b);
    snapshot_tree_file_closed(&tree, b);
    snapshot_tree_forget(&tree, b, 7);
    ck_assert_uint_eq(place_named("f"), b);
    ck_assert_uint_eq(place_named("g"), 6);
}
END_TEST

// The one that was let go first gives its number away, unless it was looked up again.
START_TEST(numbers_stay_for_a_while_after_the_kernel_has_forgotten_them)
{
    static const char *const names[] = {"a", "b", "c"};
    tree.places.kept = 3;
    for (unsigned i = 0; i < 3; i++)
        snapshot_tree_forget(&tree, place_named(names[i]), 1);
    ck_assert_uint_eq(place_named("a"), 1);
    snapshot_tree_forget(&tree, 1, 1);
    ck_assert_uint_eq(place_named("d"), 2);
    ck_assert_uint_eq(place_named("c"), 3);
    ck_assert_uint_eq(place_named("b"), 1);
}
END_TEST

START_TEST(more_names_than_there_were_numbers_once_can_be_looked_up)
{
    unsigned most = 0;
    for (unsigned i = 0; i < 70000; i++) {
        char name[16];
        snprintf(name, sizeof(name), "s%u", i);
        unsigned number = place_named(name);
        most = number > most ? number : most;
        snapshot_tree_forget(&tree, number, 1);
    }
    ck_assert_uint_eq(most, SNAPSHOT_PLACES_KEPT);
    // And nobody forgets these.
    for (unsigned i = 0; i < 40000; i++) {
        char name[16];
        snprintf(name, sizeof(name), "t%u", i);
        (void)place_named(name);
    }
}
END_TEST

struct seen {
    char text[256];
    unsigned most; // names that fit
    uint64_t last;
};

static int
see(void *argument, const char *name, uint64_t position)
{
    struct seen *s = argument;
    if (s->most == 0)
        return 1;
    s->most--;
    ck_assert_uint_gt(position, s->last);
    s->last = position;
    size_t n = strlen(s->text);
    snprintf(s->text + n, sizeof(s->text) - n, "%s ", name);
    return 0;
}

static void
list_on(enum snapshot_directory directory, struct seen *s, unsigned most)
{
    s->most = most;
    ck_assert_int_eq(snapshot_tree_list(&tree, directory, s->last, &patient, see, s), 0);
}

START_TEST(a_listing_in_pieces_misses_no_name_when_others_come_and_go)
{
    struct seen s = {0};
    say("b c d e");
    list_on(SNAPSHOT_SNAPSHOTS, &s, 2);
    ck_assert_str_eq(s.text, "b c ");
    // Another program lists after a change.
    struct seen other = {0};
    say("c d e");
    list_on(SNAPSHOT_SNAPSHOTS, &other, 9);
    ck_assert_str_eq(other.text, "c d e ");
    list_on(SNAPSHOT_SNAPSHOTS, &s, 1);
    ck_assert_str_eq(s.text, "b c d ");
    other = (struct seen){0};
    say("a b c d e");
    list_on(SNAPSHOT_SNAPSHOTS, &other, 9);
    ck_assert_str_eq(other.text, "c d e a b ");
    list_on(SNAPSHOT_SNAPSHOTS, &s, 1);
    ck_assert_str_eq(s.text, "b c d e ");
}
END_TEST

START_TEST(a_listing_goes_on_from_any_position)
{
    static const uint64_t far[] = {1000, INT64_MAX - 2, UINT64_MAX - 2, UINT64_MAX - 1};
    struct seen s = {0};
    list_on(SNAPSHOT_GENERATIONS, &s, 1);
    list_on(SNAPSHOT_GENERATIONS, &s, 9);
    ck_assert_str_eq(s.text, "1 2 ");
    say("a b");
    for (size_t i = 0; i < ARRAY_LENGTH(far); i++) {
        s = (struct seen){.last = far[i]};
        list_on(SNAPSHOT_GENERATIONS, &s, 9);
        list_on(SNAPSHOT_SNAPSHOTS, &s, 9);
        ck_assert_str_eq(s.text, "");
    }
}
END_TEST

START_TEST(two_snapshots_of_one_name_are_the_newest)
{
    struct seen s = {0};
    unsigned number;
    say("a:1 b:1 a:2 a:1");
    list_on(SNAPSHOT_SNAPSHOTS, &s, 9);
    ck_assert_str_eq(s.text, "a b ");
    ck_assert_int_eq(find(SNAPSHOT_SNAPSHOTS, "a", &number), 0);
    ck_assert_int_eq(try_read(number, 2), 0);
}
END_TEST

static void
run_lookup(void *argument)
{
    unsigned number;
    *(int *)argument = find(SNAPSHOT_SNAPSHOTS, "old", &number);
}

// One thread asks the store, the snapshot is dropped, another thread asks and gets its answer, and
// then the first thread gets its own.
START_TEST(an_older_answer_of_the_store_does_not_undo_a_newer_one)
{
    struct thread thread;
    unsigned number;
    int result;
    say("old");
    script.hold = true;
    ck_assert_int_eq(thread_start(&thread, "older", run_lookup, &result), 0);
    lock_take(&script.lock);
    while (script.held == 0)
        condition_wait(&script.changed, &script.lock);
    lock_release(&script.lock);
    say("new");
    ck_assert_int_eq(find(SNAPSHOT_SNAPSHOTS, "new", &number), 0);
    lock_take(&script.lock);
    script.hold = false;
    condition_broadcast(&script.changed);
    lock_release(&script.lock);
    thread_join(&thread);
    unsigned before = script.listings;
    ck_assert_int_eq(find(SNAPSHOT_SNAPSHOTS, "new", &number), 0);
    ck_assert_uint_eq(script.listings, before);
    ck_assert_int_eq(find(SNAPSHOT_SNAPSHOTS, "old", &number), -ENOENT);
}
END_TEST

START_TEST(a_failure_of_the_store_is_told_and_passes)
{
    unsigned number;
    script.failure = -EIO;
    ck_assert_int_eq(find(SNAPSHOT_SNAPSHOTS, "a", &number), -EIO);
    // For a moment requests do not wait for the store one after the other.
    ck_assert_int_eq(find(SNAPSHOT_SNAPSHOTS, "b", &number), -EIO);
    ck_assert_uint_eq(script.listings, 1);
    ck_assert_int_eq(
        snapshot_tree_find(&tree, SNAPSHOT_SNAPSHOTS, "a", &local_only, &number), -EREMOTE);
    script.failure = 0;
    say("a");
    uint64_t deadline = clock_monotonic_ms() + 60000;
    while (find(SNAPSHOT_SNAPSHOTS, "a", &number) != 0) {
        ck_assert_uint_lt(clock_monotonic_ms(), deadline);
        clock_sleep_ms(20);
    }
}
END_TEST

// ---- views --------------------------------------------------------------------------------------

START_TEST(a_fifth_generation_waits_for_none_that_has_files_open)
{
    for (unsigned i = 1; i <= SNAPSHOT_VIEWS_MAX; i++)
        ck_assert_int_eq(try_open(place_of(i)), 0);
    ck_assert_int_eq(try_read(place_of(5), 5), -ENFILE);
    ck_assert_int_eq(try_read(place_of(2), 2), 0);
    snapshot_tree_file_closed(&tree, place_of(3));
    ck_assert_int_eq(try_read(place_of(5), 5), 0);
    ck_assert_uint_eq(count_open(), SNAPSHOT_VIEWS_MAX);
    ck_assert_int_eq(try_read(place_of(3), 3), 0); // it closes the fifth
    // More closings than openings: of a directory that is gone for the kernel, or twice.
    for (unsigned i = 0; i < 3; i++)
        snapshot_tree_file_closed(&tree, place_of(3));
    ck_assert_int_eq(try_open(place_of(3)), 0);
    ck_assert_int_eq(try_read(place_of(6), 6), -ENFILE);
}
END_TEST

START_TEST(idle_views_are_closed_and_opened_again)
{
    struct snapshot_view *view;
    tree.idle_ms = 1;
    for (unsigned i = 1; i <= 3; i++)
        ck_assert_int_eq(try_read(place_of(i), i), 0);
    wait_until_open(0);
    ck_assert_int_eq(try_read(place_of(2), 2), 0);
    wait_until_open(0);
    ck_assert_uint_eq(atomic_load(&opened), 4);
    // Neither a request nor an open file lets the closer take a view.
    ck_assert_int_eq(snapshot_tree_get(&tree, place_of(1), &patient, &view), 0);
    ck_assert_int_eq(try_open(place_of(2)), 0);
    ck_assert_int_eq(try_read(place_of(3), 3), 0);
    wait_until_open(2);
    ck_assert_int_eq(try_read(place_of(2), 2), 0);
    ck_assert_uint_eq(atomic_load(&opened), 7);
    snapshot_tree_put(view);
    snapshot_tree_file_closed(&tree, place_of(2));
}
END_TEST

START_TEST(a_generation_that_is_gone_is_stale)
{
    unsigned number;
    say("a:99");
    ck_assert_int_eq(find(SNAPSHOT_SNAPSHOTS, "a", &number), 0);
    ck_assert_int_eq(try_read(number, 1), -ESTALE);
    ck_assert_int_eq(try_read(number, 1), -ESTALE);
    ck_assert_uint_eq(atomic_load(&opened), 1);
    say("a:99 b:18446744073709551615");
    ck_assert_int_eq(find(SNAPSHOT_SNAPSHOTS, "b", &number), 0);
    ck_assert_int_eq(try_read(number, 1), -ESTALE);
    ck_assert_uint_eq(count_open(), 0);
}
END_TEST

START_TEST(the_end_closes_views_with_open_files)
{
    struct snapshot_view *view;
    ck_assert_int_eq(try_open(place_of(1)), 0);
    ck_assert_int_eq(try_read(place_of(2), 2), 0);
    unsigned number = place_of(1);
    snapshot_tree_stop(&tree);
    ck_assert_uint_eq(count_open(), 0);
    ck_assert_int_eq(snapshot_tree_get(&tree, number, &patient, &view), -EINTR);
    snapshot_tree_file_closed(&tree, number);
    snapshot_tree_stop(&tree);
}
END_TEST

// ---- threads ------------------------------------------------------------------------------------

#define THREADS 6u
#define ROUNDS  60u

struct user {
    struct thread thread;
    uint64_t random;
    unsigned full;
    unsigned read;
};

static void
use_one(struct user *u)
{
    uint64_t seed = test_random(&u->random) % GENERATIONS + 1;
    char name[8];
    unsigned number;
    snprintf(name, sizeof(name), "s%" PRIu64, seed);
    bool by_name = test_random(&u->random) % 2;
    int rc = by_name ? find(SNAPSHOT_SNAPSHOTS, name, &number)
                     : find(SNAPSHOT_GENERATIONS, name + 1, &number);
    if (by_name && rc == -ENOENT)
        return;
    ck_assert_int_eq(rc, 0);
    bool open = test_random(&u->random) % 4 == 0;
    rc = open ? try_open(number) : try_read(number, seed);
    if (rc == -ENFILE) {
        u->full++;
        return;
    }
    ck_assert_int_eq(rc, 0);
    ck_assert_int_eq(try_read(number, seed), 0);
    if (open)
        snapshot_tree_file_closed(&tree, number);
    u->read++;
}

static void
run_user(void *argument)
{
    struct user *u = argument;
    for (unsigned i = 0; i < ROUNDS; i++) {
        struct seen s = {0};
        if (i % 16 == 3) // snapshots come and go
            say(i % 32 == 3 ? "s1 s2:2 s3:3 s5:5" : "s2:2 s4:4 s5:5 s6:6");
        if (i % 16 == 7)
            list_on(SNAPSHOT_SNAPSHOTS, &s, 3);
        use_one(u);
    }
}

START_TEST(threads_read_what_they_looked_up)
{
    struct user users[THREADS];
    unsigned read = 0;
    uint64_t seed = test_seed("threads");
    tree.idle_ms = 2;
    say("s1 s2:2 s3:3 s5:5");
    for (unsigned i = 0; i < THREADS; i++) {
        users[i] = (struct user){.random = seed + i};
        ck_assert_int_eq(thread_start(&users[i].thread, "user", run_user, &users[i]), 0);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        thread_join(&users[i].thread);
        read += users[i].read;
    }
    ck_assert_uint_gt(read, 0);
    wait_until_open(0);
}
END_TEST

static Suite *
suite(void)
{
    Suite *s = suite_create("snapshot_tree");
    TCase *names = tcase_create("names");
    TCase *views = tcase_create("views");
    tcase_add_checked_fixture(names, setup_few, teardown);
    tcase_add_test(names, a_generation_has_one_name);
    tcase_add_test(names, names_of_snapshots_are_taken_as_they_are);
    tcase_add_test(names, two_names_of_one_generation_are_two_directories_and_one_view);
    tcase_add_test(names, numbers_of_nodes_that_nobody_has_are_stale);
    tcase_add_test(names, more_names_than_there_were_numbers_once_can_be_looked_up);
    tcase_add_test(names, numbers_stay_for_a_while_after_the_kernel_has_forgotten_them);
    tcase_add_test(names, numbers_that_the_kernel_has_forgotten_are_given_to_others);
    tcase_add_test(names, a_listing_in_pieces_misses_no_name_when_others_come_and_go);
    tcase_add_test(names, a_listing_goes_on_from_any_position);
    tcase_add_test(names, two_snapshots_of_one_name_are_the_newest);
    tcase_add_test(names, an_older_answer_of_the_store_does_not_undo_a_newer_one);
    tcase_add_test(names, a_failure_of_the_store_is_told_and_passes);
    tcase_add_test(names, a_generation_that_is_gone_is_stale);
    tcase_add_test(names, the_end_closes_views_with_open_files);
    tcase_add_checked_fixture(views, setup, teardown);
    tcase_set_timeout(views, 120);
    tcase_add_test(views, a_fifth_generation_waits_for_none_that_has_files_open);
    tcase_add_test(views, idle_views_are_closed_and_opened_again);
    tcase_add_test(views, threads_read_what_they_looked_up);
    suite_add_tcase(s, names);
    suite_add_tcase(s, views);
    return s;
}

int
main(void)
{
    return unit_run(suite());
}
