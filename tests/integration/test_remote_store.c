// SPDX-License-Identifier: Apache-2.0
// The contract of remote_store.h, run over every backend: file:// always, s3:// when these say
// where (tests/with-s3 sets them):
//     CKPT_TEST_S3_ENDPOINT, CKPT_TEST_S3_ACCESS_KEY, CKPT_TEST_S3_SECRET_KEY, CKPT_TEST_S3_REGION
//     CKPT_TEST_S3_BUCKET      an existing bucket (ckptfs-test)
//     CKPT_TEST_S3_NO_CREATE   set: the store has no conditional create, and must be found out
#include "unit/unit.h"

#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/checksum.h"
#include "platform/clock.h"
#include "platform/memory.h"
#include "platform/random.h"
#include "platform/thread.h"
#include "store/remote_store_backends.h"

// ---- the backend under test ---------------------------------------------------------------------

// Each test runs in a process of its own and opens the store when it begins.
static struct {
    const char *endpoint; // NULL: file
    const char *bucket;
    const char *region;
    bool has_create;
    char *directory; // file
    char *prefix;    // s3: of this test alone
} place;

static struct remote_store *store;

static struct remote_store_options
s3_options(void)
{
    return (struct remote_store_options){
        .endpoint = place.endpoint,
        .region = place.region,
        .multipart_bytes = 5u << 20,
    };
}

static void
open_store(void)
{
    char id[37];
    struct uuid uuid = random_uuid();
    uuid_to_string(&uuid, id);
    place.prefix = memory_printf("run/%s", id);
    if (!place.endpoint) {
        place.directory = unit_directory_new();
        ck_assert_int_eq(file_store_open(place.directory, true, &file_ops_system, &store), 0);
        return;
    }
    struct remote_store_options options = s3_options();
    ck_assert_int_eq(s3_store_open(place.bucket, place.prefix, &options, &store), 0);
}

static void
check(int rc)
{
    ck_assert_msg(rc == 0, "%d (%s): %s", rc, strerror(-rc), remote_store_error());
}

static void
delete_everything(void)
{
    struct remote_listing listing;
    do {
        check(remote_store_list_blobs(store, "", NULL, 1000, &listing, NULL));
        const char *keys[1000];
        for (size_t i = 0; i < listing.count; i++)
            keys[i] = listing.entries[i].key;
        check(remote_store_delete_blobs(store, keys, listing.count, NULL));
        remote_listing_free(&listing);
    } while (listing.more);
}

static void
close_store(void)
{
    delete_everything();
    remote_store_close(store);
    if (place.directory)
        unit_directory_remove(place.directory);
    free(place.prefix);
}

// ---- small things -------------------------------------------------------------------------------

static uint8_t *
bytes_new(size_t n, uint64_t seed)
{
    uint8_t *p = memory_alloc(n);
    for (size_t i = 0; i < n; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        p[i] = (uint8_t)(seed >> 56);
    }
    return p;
}

static struct remote_source
source_of(const void *p, size_t n)
{
    struct remote_source source = {.data = p, .fd = -1, .length = n};
    sha256_of(p, n, &source.hash);
    return source;
}

static int
put_text(const char *key, const char *text, enum remote_put_mode mode)
{
    struct remote_source source = source_of(text, strlen(text));
    return remote_store_put_blob(store, key, &source, mode, NULL);
}

static void
check_content(const char *key, const void *p, size_t n)
{
    BUFFER_AUTO out = {0};
    check(remote_store_get_blob(store, key, 0, UINT64_MAX, &out, NULL));
    ck_assert_uint_eq(out.length, n);
    ck_assert(n == 0 || memcmp(out.data, p, n) == 0);
}

// A put of the kind that every store has.
static void
put_or_fail(const char *key, const char *text)
{
    check(put_text(key, text, REMOTE_PUT_OVERWRITE));
}

// ---- the contract -------------------------------------------------------------------------------

START_TEST(what_is_put_is_got)
{
    static const size_t sizes[] = {
        0, 1, 4096, 1000003, (2u << 20) + 1, (5u << 20), (12u << 20) + 7};
    open_store();
    for (size_t i = 0; i < ARRAY_LENGTH(sizes); i++) {
        uint8_t *bytes = bytes_new(sizes[i], i);
        struct remote_source source = source_of(bytes, sizes[i]);
        struct remote_head head;
        check(remote_store_put_blob(store, "d/object", &source, REMOTE_PUT_OVERWRITE, NULL));
        check_content("d/object", bytes, sizes[i]);
        check(remote_store_head_blob(store, "d/object", &head, NULL));
        ck_assert_uint_eq(head.size, sizes[i]);
        free(bytes);
    }
    close_store();
}
END_TEST

START_TEST(part_of_a_file_is_put)
{
    enum { BEFORE = 777, LENGTH = (11u << 20) + 5, AFTER = 99 };
    open_store();
    uint8_t *bytes = bytes_new(BEFORE + LENGTH + AFTER, 5);
    FILE *f = tmpfile();
    ck_assert_ptr_nonnull(f);
    ck_assert_int_eq(
        file_write_at(&file_ops_system, fileno(f), bytes, BEFORE + LENGTH + AFTER, 0), 0);
    static const size_t lengths[] = {1000, 3u << 20, LENGTH};
    for (size_t i = 0; i < ARRAY_LENGTH(lengths); i++) {
        struct remote_source source = {.fd = fileno(f), .offset = BEFORE, .length = lengths[i]};
        sha256_of(bytes + BEFORE, lengths[i], &source.hash);
        check(remote_store_put_blob(store, "f", &source, REMOTE_PUT_OVERWRITE, NULL));
        check_content("f", bytes + BEFORE, lengths[i]);
    }
    // A file that ends before the source does.
    struct remote_source longer = {.fd = fileno(f), .offset = BEFORE, .length = LENGTH + AFTER + 1};
    ck_assert_int_eq(
        remote_store_put_blob(store, "g", &longer, REMOTE_PUT_OVERWRITE, NULL), -EBADMSG);
    BUFFER_AUTO out = {0};
    ck_assert_int_eq(remote_store_get_blob(store, "g", 0, 1, &out, NULL), -ENOENT);
    fclose(f);
    free(bytes);
    close_store();
}
END_TEST

START_TEST(ranges_are_exact_and_cut_at_the_end)
{
    open_store();
    uint8_t *bytes = bytes_new(100000, 1);
    struct remote_source source = source_of(bytes, 100000);
    check(remote_store_put_blob(store, "r", &source, REMOTE_PUT_OVERWRITE, NULL));
    static const struct {
        uint64_t offset, length, expected;
    } ranges[] = {{0, 1, 1}, {0, 100000, 100000}, {0, 100001, 100000}, {99999, 1, 1},
        {99999, 500, 1}, {4096, 8192, 8192}, {50000, UINT64_MAX, 50000}, {0, UINT64_MAX, 100000},
        {10, 0, 0}};
    BUFFER_AUTO out = {0};
    for (size_t i = 0; i < ARRAY_LENGTH(ranges); i++) {
        buffer_clear(&out);
        buffer_append_string(&out, "kept");
        check(remote_store_get_blob(store, "r", ranges[i].offset, ranges[i].length, &out, NULL));
        ck_assert_uint_eq(out.length, 4 + ranges[i].expected);
        ck_assert_int_eq(memcmp(out.data, "kept", 4), 0);
        ck_assert_int_eq(memcmp(out.data + 4, bytes + ranges[i].offset, ranges[i].expected), 0);
    }
    static const uint64_t past[] = {100000, 100001, 1u << 30};
    for (size_t i = 0; i < ARRAY_LENGTH(past); i++) {
        ck_assert_int_eq(remote_store_get_blob(store, "r", past[i], 10, &out, NULL), -EIO);
        ck_assert_int_eq(remote_store_get_blob(store, "r", past[i], UINT64_MAX, &out, NULL), -EIO);
        ck_assert_int_eq(remote_store_get_blob(store, "r", past[i], 0, &out, NULL), -EIO);
        ck_assert_str_ne(remote_store_error(), "");
    }
    put_or_fail("empty", "");
    buffer_clear(&out);
    check(remote_store_get_blob(store, "empty", 0, 10, &out, NULL));
    check(remote_store_get_blob(store, "empty", 0, UINT64_MAX, &out, NULL));
    ck_assert_uint_eq(out.length, 0);
    ck_assert_int_eq(remote_store_get_blob(store, "empty", 1, 10, &out, NULL), -EIO);
    free(bytes);
    close_store();
}
END_TEST

START_TEST(missing_objects_are_an_answer)
{
    open_store();
    put_or_fail("there/x", "x");
    struct remote_head head;
    BUFFER_AUTO out = {0};
    static const char *const missing[] = {"nothing", "there", "there/y", "there/x/y", "no/where"};
    for (size_t i = 0; i < ARRAY_LENGTH(missing); i++) {
        ck_assert_int_eq(remote_store_head_blob(store, missing[i], &head, NULL), -ENOENT);
        ck_assert_int_eq(
            remote_store_get_blob(store, missing[i], 0, UINT64_MAX, &out, NULL), -ENOENT);
        ck_assert_int_eq(remote_store_get_blob(store, missing[i], 5, 6, &out, NULL), -ENOENT);
        ck_assert_int_eq(remote_store_get_blob(store, missing[i], 0, 0, &out, NULL), -ENOENT);
        check(remote_store_delete_blobs(store, &missing[i], 1, NULL));
    }
    check(remote_store_delete_blobs(store, missing, ARRAY_LENGTH(missing), NULL));
    check_content("there/x", "x", 1);
    close_store();
}
END_TEST

START_TEST(create_is_refused_where_an_object_is)
{
    open_store();
    if (!place.has_create) {
        ck_assert_int_eq(put_text("c", "first", REMOTE_PUT_CREATE), -EOPNOTSUPP);
        ck_assert_ptr_nonnull(strstr(remote_store_error(), "If-None-Match"));
    } else {
        check(put_text("c", "first", REMOTE_PUT_CREATE));
        ck_assert_int_eq(put_text("c", "second", REMOTE_PUT_CREATE), -EEXIST);
        ck_assert_int_eq(put_text("c", "first", REMOTE_PUT_CREATE), -EEXIST);
        check_content("c", "first", 5);
        put_or_fail("c", "third");
        check_content("c", "third", 5);
        const char *keys[] = {"c"};
        check(remote_store_delete_blobs(store, keys, 1, NULL));
        check(put_text("c", "fourth", REMOTE_PUT_CREATE));
    }
    close_store();
}
END_TEST

START_TEST(large_objects_are_created_atomically_too)
{
    open_store();
    if (place.has_create) {
        size_t n = (6u << 20) + 1; // above the size for uploads in parts
        uint8_t *bytes = bytes_new(n, 9);
        struct remote_source source = source_of(bytes, n);
        check(remote_store_put_blob(store, "big", &source, REMOTE_PUT_CREATE, NULL));
        ck_assert_int_eq(
            remote_store_put_blob(store, "big", &source, REMOTE_PUT_CREATE, NULL), -EEXIST);
        check_content("big", bytes, n);
        free(bytes);
    }
    close_store();
}
END_TEST

static uint64_t
uploads_left(struct remote_store *s, bool dry_run)
{
    uint64_t count;
    check(remote_store_sweep_uploads(s, "left/", 0, dry_run, &count, NULL));
    return count;
}

// Dies as soon as the server knows of the upload.
static bool
die_in_the_upload(void *argument)
{
    if (uploads_left(argument, true) > 0)
        _exit(0);
    return false;
}

static void
begin_an_upload_and_die(void)
{
    struct remote_store *other;
    struct remote_store_options options = s3_options();
    struct remote_call call = {.is_canceled = die_in_the_upload};
    size_t n = 12u << 20;
    uint8_t *bytes = bytes_new(n, 9);
    struct remote_source source = source_of(bytes, n);
    // The store of the parent has connections that the child must not use.
    check(s3_store_open(place.bucket, place.prefix, &options, &other));
    call.argument = other;
    check(s3_store_open(place.bucket, place.prefix, &options, &store));
    for (;;)
        check(remote_store_put_blob(store, "left/big", &source, REMOTE_PUT_OVERWRITE, &call));
}

START_TEST(uploads_of_dead_processes_are_aborted)
{
    open_store();
    pid_t child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0)
        begin_an_upload_and_die();
    int status;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_int_eq(status, 0);
    ck_assert_uint_eq(uploads_left(store, true), 1);
    ck_assert_uint_eq(uploads_left(store, false), 1);
    ck_assert_uint_eq(uploads_left(store, true), 0);
    close_store();
}
END_TEST

// One of several threads that create the same objects.
struct racer {
    struct thread thread;
    int number;
    int wins;
    int losses;
};
enum { RACERS = 6, RACES = 20 };

static void
race(void *argument)
{
    struct racer *r = argument;
    for (int i = 0; i < RACES; i++) {
        char key[32];
        char text[32];
        snprintf(key, sizeof(key), "race/%d", i);
        snprintf(text, sizeof(text), "by %d", r->number);
        int rc = put_text(key, text, REMOTE_PUT_CREATE);
        // A store may say that two collided; then the loser asks again.
        while (rc == -EAGAIN)
            rc = put_text(key, text, REMOTE_PUT_CREATE);
        r->wins += rc == 0;
        r->losses += rc == -EEXIST;
    }
}

START_TEST(of_racing_creates_one_wins)
{
    open_store();
    struct racer racers[RACERS] = {0};
    int wins = 0;
    int losses = 0;
    for (int i = 0; place.has_create && i < RACERS; i++) {
        racers[i].number = i;
        ck_assert_int_eq(thread_start(&racers[i].thread, "racer", race, &racers[i]), 0);
    }
    for (int i = 0; place.has_create && i < RACERS; i++) {
        thread_join(&racers[i].thread);
        wins += racers[i].wins;
        losses += racers[i].losses;
    }
    if (place.has_create) {
        ck_assert_int_eq(wins, RACES);
        ck_assert_int_eq(losses, RACES * (RACERS - 1));
    }
    close_store();
}
END_TEST

static void
put_and_get_many(void *argument)
{
    struct racer *r = argument;
    uint8_t *bytes = bytes_new(300000, (uint64_t)r->number);
    for (int i = 0; i < RACES; i++) {
        char key[32];
        BUFFER_AUTO out = {0};
        snprintf(key, sizeof(key), "many/%d-%d", r->number, i);
        struct remote_source source = source_of(bytes + i, 300000 - 2 * RACES);
        r->wins += remote_store_put_blob(store, key, &source, REMOTE_PUT_OVERWRITE, NULL) == 0 &&
                   remote_store_get_blob(store, key, 1, UINT64_MAX, &out, NULL) == 0 &&
                   out.length == source.length - 1 &&
                   memcmp(out.data, bytes + i + 1, out.length) == 0;
    }
    free(bytes);
}

START_TEST(threads_do_not_disturb_each_other)
{
    open_store();
    struct racer racers[12] = {0};
    for (int i = 0; i < 12; i++) {
        racers[i].number = i;
        ck_assert_int_eq(thread_start(&racers[i].thread, "many", put_and_get_many, &racers[i]), 0);
    }
    for (int i = 0; i < 12; i++) {
        thread_join(&racers[i].thread);
        ck_assert_int_eq(racers[i].wins, RACES);
    }
    ck_assert_uint_eq(store->counters.put_requests, 12 * RACES);
    ck_assert_uint_eq(store->counters.get_requests, 12 * RACES);
    ck_assert_uint_eq(store->counters.bytes_written, 12ull * RACES * (300000 - 2 * RACES));
    ck_assert_uint_eq(store->counters.errors, 0);
    close_store();
}
END_TEST

START_TEST(wrong_bytes_are_refused)
{
    static const size_t sizes[] = {100, 6u << 20}; // one request, and parts
    open_store();
    for (size_t i = 0; i < ARRAY_LENGTH(sizes); i++) {
        uint8_t *bytes = bytes_new(sizes[i], 3);
        struct remote_source source = source_of(bytes, sizes[i]);
        bytes[sizes[i] / 2] ^= 1;
        struct remote_head head;
        ck_assert_int_eq(
            remote_store_put_blob(store, "bad", &source, REMOTE_PUT_OVERWRITE, NULL), -EBADMSG);
        ck_assert_str_ne(remote_store_error(), "");
        ck_assert_int_eq(remote_store_head_blob(store, "bad", &head, NULL), -ENOENT);
        free(bytes);
    }
    close_store();
}
END_TEST

START_TEST(head_tells_size_and_time)
{
    open_store();
    put_or_fail("h", "12345");
    struct remote_head head;
    check(remote_store_head_blob(store, "h", &head, NULL));
    ck_assert_uint_eq(head.size, 5);
    int64_t age_ms = (int64_t)clock_wall_ms() + head.clock_skew_ms - (int64_t)head.modified_ms;
    ck_assert_int_le(llabs(age_ms), 60000);
    ck_assert_int_le(llabs(head.clock_skew_ms), 60000);
    close_store();
}
END_TEST

// Keys whose order by whole bytes differs from the order by components.
static const char *const awkward[] = {"a b&c<d>\"e'f", "a!", "a+b=c", "a-b", "a-c/d", "a.b/c",
    "a/b", "a/b-c", "a/b.c/d", "a/b0/e", "a0", "a1/b", "aa/b", "b%2F/c", "b/..d/e", "b/.c", "b/c~d",
    "b\xc3\xa9/x", "b\xf0\x9f\x98\x80"};

static void
check_listing(const char *prefix, const char *after, size_t limit)
{
    size_t n = 0;
    struct remote_listing listing;
    check(remote_store_list_blobs(store, prefix, after, limit, &listing, NULL));
    bool more = false;
    for (size_t i = 0; i < ARRAY_LENGTH(awkward); i++) {
        bool wanted = strncmp(awkward[i], prefix, strlen(prefix)) == 0 &&
                      (!after || strcmp(awkward[i], after) > 0);
        if (wanted && n == limit)
            more = true;
        if (!wanted || n == limit)
            continue;
        ck_assert_msg(n < listing.count, "prefix %s after %s limit %zu: %s is missing", prefix,
            after ? after : "-", limit, awkward[i]);
        ck_assert_str_eq(listing.entries[n].key, awkward[i]);
        ck_assert_uint_eq(listing.entries[n].size, i);
        n++;
    }
    ck_assert_uint_eq(listing.count, n);
    ck_assert_int_eq(listing.more, more);
    remote_listing_free(&listing);
}

START_TEST(listings_are_in_byte_order_from_any_place)
{
    static const char *const prefixes[] = {
        "", "a", "a/", "a/b", "a-b", "b/", "b\xc3\xa9/", "zz", "a/b0/e", "a/b0/e/"};
    static const char *const afters[] = {"a", "a-", "a/b", "a/b/", "a/b.c/", "a0", "b", "zz", "A"};
    open_store();
    for (size_t i = 0; i < ARRAY_LENGTH(awkward); i++) {
        size_t j = i * 7 % ARRAY_LENGTH(awkward);
        struct remote_source source = source_of("0123456789012345678901234567890", j);
        check(remote_store_put_blob(store, awkward[j], &source, REMOTE_PUT_OVERWRITE, NULL));
    }
    for (size_t i = 0; i < ARRAY_LENGTH(prefixes); i++) {
        for (size_t limit = 1; limit < 22; limit += 3)
            check_listing(prefixes[i], NULL, limit);
        for (size_t j = 0; j < ARRAY_LENGTH(afters); j++)
            check_listing(prefixes[i], afters[j], 4);
    }
    for (size_t i = 0; i < ARRAY_LENGTH(awkward); i++) {
        check_listing("", awkward[i], 5);
        check_content(awkward[i], "0123456789012345678901234567890", i);
    }
    check(remote_store_delete_blobs(store, awkward, ARRAY_LENGTH(awkward), NULL));
    struct remote_listing listing;
    check(remote_store_list_blobs(store, "", NULL, 10, &listing, NULL));
    ck_assert_uint_eq(listing.count, 0);
    ck_assert(!listing.more);
    remote_listing_free(&listing);
    close_store();
}
END_TEST

START_TEST(long_listings_and_deletions_go_on_past_a_thousand)
{
    enum { COUNT = 2100 };
    static char names[COUNT][24];
    static const char *keys[COUNT];
    open_store();
    for (int i = 0; i < COUNT; i++) {
        snprintf(names[i], sizeof(names[i]), "k/%d/%05d", i / 500, i);
        keys[i] = names[i];
        put_or_fail(names[i], "x");
    }
    struct remote_listing listing;
    check(remote_store_list_blobs(store, "k/", NULL, 100000, &listing, NULL));
    ck_assert_uint_eq(listing.count, COUNT);
    ck_assert(!listing.more);
    for (int i = 0; i < COUNT; i++)
        ck_assert_str_eq(listing.entries[i].key, names[i]);
    remote_listing_free(&listing);
    check(remote_store_list_blobs(store, "", names[99], 1500, &listing, NULL));
    ck_assert_uint_eq(listing.count, 1500);
    ck_assert(listing.more);
    ck_assert_str_eq(listing.entries[1499].key, names[1599]);
    remote_listing_free(&listing);
    check(remote_store_list_blobs(store, "", names[99], COUNT - 100, &listing, NULL));
    ck_assert_uint_eq(listing.count, COUNT - 100);
    ck_assert(!listing.more);
    remote_listing_free(&listing);
    check(remote_store_delete_blobs(store, keys, COUNT - 1, NULL));
    check(remote_store_list_blobs(store, "", NULL, 10, &listing, NULL));
    ck_assert_uint_eq(listing.count, 1);
    remote_listing_free(&listing);
    close_store();
}
END_TEST

START_TEST(bad_keys_are_refused)
{
    static const char *const bad[] = {"", "/", "/a", "a/", "a//b", ".", "..", "a/./b", "../a"};
    open_store();
    struct remote_head head;
    for (size_t i = 0; i < ARRAY_LENGTH(bad); i++) {
        ck_assert_int_eq(put_text(bad[i], "x", REMOTE_PUT_CREATE), -EIO);
        ck_assert_int_eq(remote_store_head_blob(store, bad[i], &head, NULL), -EIO);
        ck_assert_int_eq(remote_store_delete_blobs(store, &bad[i], 1, NULL), -EIO);
        ck_assert_ptr_nonnull(strstr(remote_store_error(), "is no key"));
    }
    char longest[1026];
    memset(longest, 'k', sizeof(longest));
    longest[1025] = 0;
    ck_assert_int_eq(remote_store_head_blob(store, longest, &head, NULL), -EIO);
    close_store();
}
END_TEST

START_TEST(probe_tells_whether_create_works_and_leaves_nothing)
{
    open_store();
    int rc = remote_store_probe(store, NULL);
    if (place.has_create)
        check(rc);
    else
        ck_assert_int_eq(rc, -EOPNOTSUPP);
    struct remote_listing listing;
    check(remote_store_list_blobs(store, "", NULL, 10, &listing, NULL));
    ck_assert_uint_eq(listing.count, 0);
    remote_listing_free(&listing);
    close_store();
}
END_TEST

static bool
always(void *argument UNUSED)
{
    return true;
}

START_TEST(calls_end_when_canceled_or_late)
{
    const struct remote_call canceled = {.is_canceled = always};
    const struct remote_call late = {.deadline_ms = 1};
    open_store();
    uint8_t *bytes = bytes_new(12u << 20, 3);
    struct remote_source source = source_of(bytes, 12u << 20);
    BUFFER_AUTO out = {0};
    check(remote_store_put_blob(store, "k", &source, REMOTE_PUT_OVERWRITE, NULL));
    ck_assert_int_eq(
        remote_store_put_blob(store, "l", &source, REMOTE_PUT_OVERWRITE, &canceled), -ECANCELED);
    ck_assert_int_eq(
        remote_store_put_blob(store, "l", &source, REMOTE_PUT_OVERWRITE, &late), -ETIMEDOUT);
    ck_assert_int_eq(remote_store_get_blob(store, "k", 0, UINT64_MAX, &out, &canceled), -ECANCELED);
    ck_assert_int_eq(remote_store_get_blob(store, "k", 0, UINT64_MAX, &out, &late), -ETIMEDOUT);
    ck_assert_uint_eq(out.length, 0);
    free(bytes);
    close_store();
}
END_TEST

START_TEST(lost_answers_of_creates_are_cleared_up)
{
    open_store();
    struct remote_store *backend = store;
    struct remote_store *fault = fault_store_wrap(backend, NULL);
    const struct retry_policy quick = {.base_ms = 1, .cap_ms = 2};
    store = retry_store_wrap(fault, &quick, NULL);
    if (place.has_create) {
        const struct store_fault swallow = {
            .verb = STORE_VERB_PUT, .kind = STORE_FAULT_SWALLOW, .nth = 1, .times = 1};
        const struct store_fault fail = {
            .verb = STORE_VERB_PUT, .kind = STORE_FAULT_FAIL, .times = 2, .error = -EAGAIN};
        fault_store_add(fault, &swallow);
        check(put_text("lost", "ours", REMOTE_PUT_CREATE));
        check_content("lost", "ours", 4);
        ck_assert_uint_eq(store->counters.retries, 1);
        fault_store_add(fault, &fail);
        ck_assert_int_eq(put_text("lost", "their", REMOTE_PUT_CREATE), -EEXIST);
        check_content("lost", "ours", 4);
        fault_store_add(fault, &fail);
        check(put_text("new", "ours", REMOTE_PUT_CREATE));
    }
    close_store();
}
END_TEST

// ---- S3 alone -----------------------------------------------------------------------------------

START_TEST(missing_bucket_and_bad_credentials_are_told_apart)
{
    struct remote_store_options options = s3_options();
    struct remote_head head;
    struct remote_listing listing;
    BUFFER_AUTO out = {0};
    const char *keys[] = {"a", "b"};
    check(s3_store_open("ckptfs-no-such-bucket", "", &options, &store));
    ck_assert_int_eq(put_text("a", "x", REMOTE_PUT_OVERWRITE), -ENXIO);
    ck_assert_ptr_nonnull(strstr(remote_store_error(), "ckptfs-no-such-bucket"));
    ck_assert_ptr_nonnull(strstr(remote_store_error(), "create-bucket"));
    ck_assert_int_eq(remote_store_get_blob(store, "a", 0, 1, &out, NULL), -ENXIO);
    ck_assert_int_eq(remote_store_head_blob(store, "a", &head, NULL), -ENXIO);
    ck_assert_int_eq(remote_store_list_blobs(store, "", NULL, 1, &listing, NULL), -ENXIO);
    ck_assert_int_eq(remote_store_delete_blobs(store, keys, 2, NULL), -ENXIO);
    ck_assert_int_eq(remote_store_probe(store, NULL), place.has_create ? -ENXIO : -EOPNOTSUPP);
    remote_store_close(store);

    setenv("AWS_SECRET_ACCESS_KEY", "ThisIsNotTheSecretOfThatKey", 1);
    check(s3_store_open(place.bucket, "", &options, &store));
    ck_assert_int_eq(put_text("a", "x", REMOTE_PUT_OVERWRITE), -EACCES);
    ck_assert_ptr_nonnull(strstr(remote_store_error(), "SignatureDoesNotMatch"));
    ck_assert_ptr_null(strstr(remote_store_error(), "ThisIsNotTheSecretOfThatKey"));
    ck_assert_int_eq(remote_store_get_blob(store, "a", 0, 1, &out, NULL), -EACCES);
    ck_assert_int_eq(remote_store_head_blob(store, "a", &head, NULL), -EACCES);
    ck_assert_int_eq(remote_store_list_blobs(store, "", NULL, 1, &listing, NULL), -EACCES);
    ck_assert_int_eq(remote_store_delete_blobs(store, keys, 2, NULL), -EACCES);
    remote_store_close(store);
}
END_TEST

static bool
after_some_polls(void *argument)
{
    unsigned *polls = argument;
    return ++*polls > 3;
}

START_TEST(canceled_upload_leaves_no_object)
{
    open_store();
    uint8_t *bytes = bytes_new(40u << 20, 3);
    struct remote_source source = source_of(bytes, 40u << 20);
    unsigned polls = 0;
    const struct remote_call call = {.is_canceled = after_some_polls, .argument = &polls};
    int rc = remote_store_put_blob(store, "u", &source, REMOTE_PUT_OVERWRITE, &call);
    ck_assert_int_eq(rc, -ECANCELED);
    struct remote_head head;
    ck_assert_int_eq(remote_store_head_blob(store, "u", &head, NULL), -ENOENT);
    free(bytes);
    close_store();
}
END_TEST

// ---- main ---------------------------------------------------------------------------------------

static Suite *
contract_suite(const char *name)
{
    Suite *s = suite_create(name);
#define ADD(test, timeout) unit_add(s, #test, test, timeout)
    ADD(what_is_put_is_got, 60);
    ADD(part_of_a_file_is_put, 60);
    ADD(ranges_are_exact_and_cut_at_the_end, 60);
    ADD(missing_objects_are_an_answer, 60);
    ADD(create_is_refused_where_an_object_is, 60);
    ADD(large_objects_are_created_atomically_too, 60);
    ADD(of_racing_creates_one_wins, 60);
    ADD(threads_do_not_disturb_each_other, 120);
    ADD(wrong_bytes_are_refused, 60);
    ADD(head_tells_size_and_time, 60);
    ADD(listings_are_in_byte_order_from_any_place, 60);
    ADD(long_listings_and_deletions_go_on_past_a_thousand, 120);
    ADD(bad_keys_are_refused, 60);
    ADD(probe_tells_whether_create_works_and_leaves_nothing, 60);
    ADD(calls_end_when_canceled_or_late, 60);
    ADD(lost_answers_of_creates_are_cleared_up, 60);
    if (place.endpoint) {
        ADD(missing_bucket_and_bad_credentials_are_told_apart, 60);
        ADD(canceled_upload_leaves_no_object, 60);
        ADD(uploads_of_dead_processes_are_aborted, 60);
    }
#undef ADD
    return s;
}

int
main(void)
{
    place.has_create = true;
    int status = unit_run(contract_suite("remote_store over file://"));
    place.endpoint = getenv("CKPT_TEST_S3_ENDPOINT");
    const char *access_key = getenv("CKPT_TEST_S3_ACCESS_KEY");
    const char *secret_key = getenv("CKPT_TEST_S3_SECRET_KEY");
    if (!place.endpoint || !access_key || !secret_key) {
        printf("remote_store over s3://: NOT RUN; run it with tests/with-s3, or set "
               "CKPT_TEST_S3_ENDPOINT, _ACCESS_KEY, _SECRET_KEY and _REGION\n");
        return status;
    }
    setenv("AWS_ACCESS_KEY_ID", access_key, 1);
    setenv("AWS_SECRET_ACCESS_KEY", secret_key, 1);
    unsetenv("AWS_SESSION_TOKEN");
    const char *bucket = getenv("CKPT_TEST_S3_BUCKET");
    place.region = getenv("CKPT_TEST_S3_REGION");
    place.bucket = bucket ? bucket : "ckptfs-test";
    place.has_create = !getenv("CKPT_TEST_S3_NO_CREATE");
    int s3_status = unit_run(contract_suite("remote_store over s3://"));
    return status == EXIT_SUCCESS ? s3_status : status;
}
