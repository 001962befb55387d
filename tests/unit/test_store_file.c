// SPDX-License-Identifier: Apache-2.0
// URL parsing and the file store beyond what the contract suite checks (see
// tests/integration/test_remote_store.c).
#include "unit.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/checksum.h"
#include "platform/memory.h"
#include "platform/path.h"
#include "store/remote_store_backends.h"

// ---- URLs ---------------------------------------------------------------------------------------

static void
check_place(const char *source, const char *place, const char *tenant)
{
    struct store_url url;
    ck_assert_msg(store_url_parse(source, &url) == 0, "%s: %s", source, remote_store_error());
    char *is = store_url_place(&url);
    ck_assert_str_eq(is, place);
    ck_assert_str_eq(url.tenant, tenant);
    free(is);
    store_url_free(&url);
}

START_TEST(sources_parse_to_canonical_places)
{
    check_place("file:///srv/store/acme", "file:///srv/store", "acme");
    check_place("file:////srv//store///acme/", "file:///srv/store", "acme");
    check_place("file:///srv/100%25 full/acme", "file:///srv/100%25 full", "acme");
    check_place("s3://bucket/acme", "s3://bucket", "acme");
    check_place("s3://my.bucket-1/a//b/acme/", "s3://my.bucket-1/a/b", "acme");
    struct store_url url;
    ck_assert_int_eq(store_url_parse("file:///srv/a@2/acme@4294967295", &url), 0);
    ck_assert_str_eq(url.tenant, "acme");
    ck_assert_str_eq(url.directory, "/srv/a@2");
    ck_assert_uint_eq(url.volume_number, UINT32_MAX);
    store_url_free(&url);
    ck_assert_int_eq(store_url_parse("s3://bucket/acme@1", &url), 0);
    ck_assert_uint_eq(url.volume_number, 1);
    store_url_free(&url);
    ck_assert_int_eq(store_url_parse("s3://bucket/acme", &url), 0);
    ck_assert_uint_eq(url.volume_number, 1);
    ck_assert_str_eq(url.prefix, "");
    ck_assert_ptr_null(url.directory);
    store_url_free(&url);
}
END_TEST

START_TEST(bad_sources_are_refused_with_both_forms_shown)
{
    static const char *const bad[] = {"", "/srv/store/acme", "http://bucket/acme",
        "file://srv/acme", "file:///acme", "file:///", "file:///srv/../etc/acme",
        "file:///srv/./acme", "file:///srv/ac me", "s3://", "s3://bucket", "s3://bucket/",
        "s3:///acme", "s3://Bucket/acme", "s3://bu/acme", "s3://-bucket/acme", "s3://bucket./acme",
        "s3://buc..ket/acme", "s3://bucket/acme?x=1", "s3://bucket/a#b/acme", "s3://bucket/../acme",
        "s3://bucket/a\nb/acme", "s3://bucket/acme@", "s3://bucket/acme@0", "s3://bucket/acme@01",
        "s3://bucket/acme@4294967296", "s3://bucket/acme@2@3", "s3://bucket/acme@-1",
        "s3://bucket/acme@2x", "s3://bucket/@2", "file:///srv/acme@99999999999",
        "file:///srv/0123456789012345678901234567890123456789012345678901234567890123456789"};
    for (size_t i = 0; i < ARRAY_LENGTH(bad); i++) {
        struct store_url url;
        ck_assert_msg(store_url_parse(bad[i], &url) == -EINVAL, "%s was accepted", bad[i]);
        ck_assert_ptr_nonnull(strstr(remote_store_error(), "file:///DIRECTORY/TENANT"));
        ck_assert_ptr_nonnull(strstr(remote_store_error(), "s3://BUCKET"));
        ck_assert_ptr_null(url.tenant);
    }
}
END_TEST

// ---- file store ---------------------------------------------------------------------------------

static struct remote_source
source_of(const char *text)
{
    struct remote_source source = {.data = text, .fd = -1, .length = strlen(text)};
    sha256_of(text, strlen(text), &source.hash);
    return source;
}

static struct remote_store *
open_store(const char *directory, const struct file_ops *ops)
{
    struct remote_store *s;
    ck_assert_int_eq(file_store_open(directory, true, ops, &s), 0);
    return s;
}

static size_t
count_temporaries(const char *directory)
{
    char *path = memory_printf("%s/.tmp", directory);
    size_t count = 0;
    DIR *d = opendir(path);
    if (d) {
        while (readdir(d))
            count++;
        closedir(d);
        count -= 2;
    }
    free(path);
    return count;
}

START_TEST(error_texts_hold_no_control_characters)
{
    remote_store_set_error("list %s: no", "a\x1b[2J\n\xc2\x9b");
    ck_assert_str_eq(remote_store_error(), "list a\\x1b[2J\\x0a\\xc2\\x9b: no");
    // A text that is put into another one stays as it is.
    remote_store_set_error("%s (gave up)", remote_store_error());
    ck_assert_str_eq(remote_store_error(), "list a\\x1b[2J\\x0a\\xc2\\x9b: no (gave up)");
}
END_TEST

START_TEST(missing_directory_is_named_and_not_made)
{
    char *directory = unit_directory_new();
    char *gone = memory_printf("%s/gone", directory);
    struct remote_store *s;
    struct remote_source source = source_of("x");
    struct remote_head head;
    struct remote_listing listing;
    BUFFER_AUTO out = {0};
    const char *keys[] = {"a/b"};
    ck_assert_int_eq(file_store_open(gone, false, &file_ops_system, &s), 0);
    ck_assert_int_eq(remote_store_put_blob(s, "a/b", &source, REMOTE_PUT_CREATE, NULL), -ENXIO);
    ck_assert_ptr_nonnull(strstr(remote_store_error(), gone));
    ck_assert_int_eq(remote_store_get_blob(s, "a/b", 0, 1, &out, NULL), -ENXIO);
    ck_assert_int_eq(remote_store_head_blob(s, "a/b", &head, NULL), -ENXIO);
    ck_assert_int_eq(remote_store_list_blobs(s, "", NULL, 9, &listing, NULL), -ENXIO);
    ck_assert_int_eq(remote_store_delete_blobs(s, keys, 1, NULL), -ENXIO);
    ck_assert_int_eq(remote_store_probe(s, NULL), -ENXIO);
    ck_assert_int_ne(access(gone, F_OK), 0);
    remote_store_close(s);
    free(gone);
    unit_directory_remove(directory);
}
END_TEST

// A table of file calls in which one can be made to fail.
static struct {
    const char *call;
    int error;
} broken;

static int
broken_fsync(int fd)
{
    return strcmp(broken.call, "fsync") == 0 ? broken.error : file_ops_system.fsync(fd);
}

static int
broken_link(const char *from, const char *to)
{
    return strcmp(broken.call, "link") == 0 ? broken.error : file_ops_system.link(from, to);
}

static int
broken_rename(const char *from, const char *to)
{
    return strcmp(broken.call, "rename") == 0 ? broken.error : file_ops_system.rename(from, to);
}

static ssize_t
broken_pwritev(int fd, const struct iovec *iov, int count, off_t offset, bool durable)
{
    if (strcmp(broken.call, "pwritev") == 0)
        return broken.error;
    return file_ops_system.pwritev(fd, iov, count, offset, durable);
}

static ssize_t
broken_pread(int fd, void *p, size_t n, off_t offset)
{
    return strcmp(broken.call, "pread") == 0 ? broken.error
                                             : file_ops_system.pread(fd, p, n, offset);
}

static int
broken_unlink(const char *path)
{
    return strcmp(broken.call, "unlink") == 0 ? broken.error : file_ops_system.unlink(path);
}

static int
broken_open(const char *path, int flags, mode_t mode)
{
    return strcmp(broken.call, "open") == 0 ? broken.error
                                            : file_ops_system.open(path, flags, mode);
}

START_TEST(failed_file_calls_are_classed_and_leave_no_object)
{
    struct file_ops ops = file_ops_system;
    ops.fsync = broken_fsync;
    ops.link = broken_link;
    ops.rename = broken_rename;
    ops.pwritev = broken_pwritev;
    ops.open = broken_open;
    static const struct {
        const char *call;
        int error;
        enum remote_put_mode mode;
        int expected;
    } cases[] = {
        {"pwritev", -ENOSPC, REMOTE_PUT_OVERWRITE, -ENOSPC},
        {"pwritev", -EDQUOT, REMOTE_PUT_CREATE, -ENOSPC},
        {"pwritev", -EIO, REMOTE_PUT_CREATE, -EIO},
        {"fsync", -EIO, REMOTE_PUT_CREATE, -EIO},
        {"link", -EPERM, REMOTE_PUT_CREATE, -EOPNOTSUPP},
        {"link", -EMLINK, REMOTE_PUT_CREATE, -EIO},
        {"rename", -EROFS, REMOTE_PUT_OVERWRITE, -EACCES},
        {"open", -EMFILE, REMOTE_PUT_CREATE, -EAGAIN},
        {"open", -EACCES, REMOTE_PUT_CREATE, -EACCES},
    };
    char *directory = unit_directory_new();
    struct remote_store *s = open_store(directory, &ops);
    struct remote_source source = source_of("content");
    struct remote_head head;
    for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
        broken.call = cases[i].call;
        broken.error = cases[i].error;
        int rc = remote_store_put_blob(s, "k/x", &source, cases[i].mode, NULL);
        ck_assert_msg(rc == cases[i].expected, "%s: %d", cases[i].call, rc);
        ck_assert_str_ne(remote_store_error(), "");
        broken.call = "";
        ck_assert_int_eq(remote_store_head_blob(s, "k/x", &head, NULL), -ENOENT);
        ck_assert_uint_eq(count_temporaries(directory), 0);
    }
    ck_assert_uint_eq(s->counters.errors, ARRAY_LENGTH(cases));
    broken.call = "link";
    broken.error = -EPERM;
    ck_assert_int_eq(remote_store_probe(s, NULL), -EOPNOTSUPP);
    remote_store_close(s);
    unit_directory_remove(directory);
}
END_TEST

START_TEST(failed_reads_and_deletes_are_reported)
{
    struct file_ops ops = file_ops_system;
    ops.fsync = broken_fsync;
    ops.pread = broken_pread;
    ops.unlink = broken_unlink;
    char *directory = unit_directory_new();
    struct remote_store *s = open_store(directory, &ops);
    struct remote_source source = source_of("content");
    const char *keys[] = {"a/x", "b/x"};
    BUFFER_AUTO out = {0};
    broken.call = "";
    for (int i = 0; i < 2; i++)
        ck_assert_int_eq(remote_store_put_blob(s, keys[i], &source, REMOTE_PUT_CREATE, NULL), 0);
    broken.error = -EIO;
    broken.call = "pread";
    buffer_append_string(&out, "kept");
    ck_assert_int_eq(remote_store_get_blob(s, "a/x", 0, UINT64_MAX, &out, NULL), -EIO);
    ck_assert_uint_eq(out.length, 4);
    broken.call = "unlink";
    ck_assert_int_eq(remote_store_delete_blobs(s, keys, 2, NULL), -EIO);
    broken.call = "fsync";
    ck_assert_int_eq(remote_store_delete_blobs(s, keys, 2, NULL), -EIO);
    // The name may have been made by somebody who did not get to the fsync.
    ck_assert_int_eq(remote_store_put_blob(s, "b/x", &source, REMOTE_PUT_CREATE, NULL), -EIO);
    broken.call = "";
    ck_assert_int_eq(remote_store_put_blob(s, "b/x", &source, REMOTE_PUT_CREATE, NULL), -EEXIST);
    remote_store_close(s);
    unit_directory_remove(directory);
}
END_TEST

START_TEST(old_temporaries_are_swept_and_young_ones_kept)
{
    char *directory = unit_directory_new();
    char *path = memory_printf("%s/.tmp", directory);
    char *old = memory_printf("%s/.tmp/old", directory);
    char *young = memory_printf("%s/.tmp/young", directory);
    ck_assert_int_eq(mkdir(path, 0700), 0);
    ck_assert_int_eq(file_replace_whole(&file_ops_system, old, "x", 1, 0600), 0);
    ck_assert_int_eq(file_replace_whole(&file_ops_system, young, "x", 1, 0600), 0);
    struct timespec times[2] = {{.tv_sec = 1}, {.tv_sec = 1}};
    ck_assert_int_eq(utimensat(AT_FDCWD, old, times, 0), 0);
    struct remote_store *s = open_store(directory, &file_ops_system);
    ck_assert_int_ne(access(old, F_OK), 0);
    ck_assert_int_eq(access(young, F_OK), 0);
    // The same while the store is open, as CheckpointGC does; never a young one.
    uint64_t count;
    ck_assert_int_eq(file_replace_whole(&file_ops_system, old, "x", 1, 0600), 0);
    ck_assert_int_eq(utimensat(AT_FDCWD, old, times, 0), 0);
    ck_assert_int_eq(remote_store_sweep_uploads(s, "v/", 0, true, &count, NULL), 0);
    ck_assert_uint_eq(count, 1);
    ck_assert_int_eq(access(old, F_OK), 0);
    ck_assert_int_eq(remote_store_sweep_uploads(s, "v/", 0, false, &count, NULL), 0);
    ck_assert_uint_eq(count, 1);
    ck_assert_int_ne(access(old, F_OK), 0);
    ck_assert_int_eq(access(young, F_OK), 0);
    remote_store_close(s);
    free(path);
    free(old);
    free(young);
    unit_directory_remove(directory);
}
END_TEST

START_TEST(foreign_files_are_not_listed)
{
    char *directory = unit_directory_new();
    static const char *const foreign[] = {"100%", "%zz", "%61", ".hidden", "a b"};
    struct remote_store *s = open_store(directory, &file_ops_system);
    struct remote_source source = source_of("x");
    struct remote_listing listing;
    for (size_t i = 0; i < ARRAY_LENGTH(foreign); i++) {
        char *path = memory_printf("%s/%s", directory, foreign[i]);
        ck_assert_int_eq(file_replace_whole(&file_ops_system, path, "x", 1, 0600), 0);
        free(path);
    }
    char *link_path = memory_printf("%s/link", directory);
    ck_assert_int_eq(symlink("/etc/passwd", link_path), 0);
    ck_assert_int_eq(remote_store_put_blob(s, ".k/%/\xff", &source, REMOTE_PUT_CREATE, NULL), 0);
    ck_assert_int_eq(remote_store_list_blobs(s, "", NULL, 100, &listing, NULL), 0);
    ck_assert_uint_eq(listing.count, 1);
    ck_assert_str_eq(listing.entries[0].key, ".k/%/\xff");
    remote_listing_free(&listing);
    BUFFER_AUTO out = {0};
    ck_assert_int_eq(remote_store_get_blob(s, "link", 0, 1, &out, NULL), -ENOENT);
    free(link_path);
    remote_store_close(s);
    unit_directory_remove(directory);
}
END_TEST

START_TEST(directories_removed_meanwhile_are_made_again)
{
    char *directory = unit_directory_new();
    struct remote_store *s = open_store(directory, &file_ops_system);
    struct remote_source source = source_of("x");
    ck_assert_int_eq(remote_store_put_blob(s, "a/b/c", &source, REMOTE_PUT_CREATE, NULL), 0);
    char *path = memory_printf("%s/a", directory);
    ck_assert_int_eq(path_remove_tree(path), 0);
    ck_assert_int_eq(remote_store_put_blob(s, "a/b/c", &source, REMOTE_PUT_CREATE, NULL), 0);
    ck_assert_int_eq(path_remove_tree(path), 0);
    ck_assert_int_eq(remote_store_put_blob(s, "a/b/c", &source, REMOTE_PUT_OVERWRITE, NULL), 0);
    // Above a directory that was not known yet.
    ck_assert_int_eq(path_remove_tree(path), 0);
    ck_assert_int_eq(remote_store_put_blob(s, "a/x/c", &source, REMOTE_PUT_CREATE, NULL), 0);
    ck_assert_int_eq(remote_store_put_blob(s, "a/b/c", &source, REMOTE_PUT_CREATE, NULL), 0);
    // A key that is another key's directory cannot be had; it says so and harms nothing.
    ck_assert_int_eq(remote_store_put_blob(s, "a/b", &source, REMOTE_PUT_CREATE, NULL), -EIO);
    ck_assert_int_eq(remote_store_put_blob(s, "a/b", &source, REMOTE_PUT_OVERWRITE, NULL), -EIO);
    struct remote_head head;
    ck_assert_int_eq(remote_store_head_blob(s, "a/b", &head, NULL), -ENOENT);
    ck_assert_int_eq(remote_store_head_blob(s, "a/b/c/d", &head, NULL), -ENOENT);
    ck_assert_int_eq(remote_store_head_blob(s, "a/b/c", &head, NULL), 0);
    free(path);
    remote_store_close(s);
    unit_directory_remove(directory);
}
END_TEST

// A disk that was away, or a directory that somebody restored.
START_TEST(a_store_whose_directory_is_made_anew_goes_on)
{
    char *top = unit_directory_new();
    char *directory = memory_printf("%s/store", top);
    char *aside = memory_printf("%s/aside", top);
    struct remote_store *s = open_store(directory, &file_ops_system);
    struct remote_source source = source_of("x");
    struct remote_head head;
    ck_assert_int_eq(remote_store_put_blob(s, "a/b/c", &source, REMOTE_PUT_CREATE, NULL), 0);
    for (int round = 0; round < 2; round++) {
        ck_assert_int_eq(rename(directory, aside), 0);
        ck_assert_int_eq(remote_store_head_blob(s, "a/b/c", &head, NULL), -ENXIO);
        ck_assert_int_eq(
            remote_store_put_blob(s, "a/b/d", &source, REMOTE_PUT_CREATE, NULL), -ENXIO);
        ck_assert_ptr_nonnull(strstr(remote_store_error(), "does not exist"));
        if (round == 0) {
            ck_assert_int_eq(rename(aside, directory), 0); // the same one comes back
            ck_assert_int_eq(remote_store_head_blob(s, "a/b/c", &head, NULL), 0);
            continue;
        }
        ck_assert_int_eq(mkdir(directory, 0700), 0); // another one takes its place
        ck_assert_int_eq(remote_store_head_blob(s, "a/b/c", &head, NULL), -ENOENT);
    }
    ck_assert_int_eq(remote_store_put_blob(s, "a/b/d", &source, REMOTE_PUT_CREATE, NULL), 0);
    ck_assert_int_eq(remote_store_put_blob(s, "a/b/d", &source, REMOTE_PUT_CREATE, NULL), -EEXIST);
    ck_assert_int_eq(remote_store_head_blob(s, "a/b/d", &head, NULL), 0);
    free(aside);
    free(directory);
    remote_store_close(s);
    unit_directory_remove(top);
}
END_TEST

static unsigned directory_syncs;

static int
counted_fsync(int fd)
{
    struct stat st;
    directory_syncs += fstat(fd, &st) == 0 && S_ISDIR(st.st_mode);
    return file_ops_system.fsync(fd);
}

// Whatever the names are: none of those used last makes way for another one.
START_TEST(directories_in_use_are_synced_once)
{
    struct file_ops ops = file_ops_system;
    ops.fsync = counted_fsync;
    char *directory = unit_directory_new();
    struct remote_store *s = open_store(directory, &ops);
    struct remote_source source = source_of("x");
    char key[32];
    for (unsigned i = 0; i < 120; i++) {
        snprintf(key, sizeof(key), "a/%u/b", i);
        ck_assert_int_eq(remote_store_put_blob(s, key, &source, REMOTE_PUT_CREATE, NULL), 0);
    }
    for (unsigned i = 0; i < 120; i++) {
        directory_syncs = 0;
        snprintf(key, sizeof(key), "a/%u/c", i);
        ck_assert_int_eq(remote_store_put_blob(s, key, &source, REMOTE_PUT_CREATE, NULL), 0);
        ck_assert_uint_eq(directory_syncs, 1); // the one that holds the object
    }
    remote_store_close(s);
    unit_directory_remove(directory);
}
END_TEST

static int direct_error;
static unsigned direct_writes;

static ssize_t
watched_pwritev(int fd, const struct iovec *iov, int count, off_t offset, bool durable)
{
    if (fcntl(fd, F_GETFL) & O_DIRECT) {
        direct_writes++;
        if (direct_error < 0 && offset > 0)
            return direct_error;
    }
    return file_ops_system.pwritev(fd, iov, count, offset, durable);
}

START_TEST(large_objects_are_whole_also_where_direct_writes_are_refused)
{
    struct file_ops ops = file_ops_system;
    ops.pwritev = watched_pwritev;
    char *directory = unit_directory_new();
    struct remote_store *s = open_store(directory, &ops);
    static const size_t sizes[] = {
        1 << 20, (1 << 20) + 1, 3 << 20, (3 << 20) + PAGE_BYTES, (3 << 20) + 4097};
    uint8_t *bytes = memory_alloc(4 << 20);
    for (size_t i = 0; i < 4 << 20; i++)
        bytes[i] = (uint8_t)(i * i >> 9);
    for (size_t i = 0; i < 2 * ARRAY_LENGTH(sizes); i++) {
        direct_error = i % 2 ? -EINVAL : 0;
        struct remote_source source = {.data = bytes, .fd = -1, .length = sizes[i / 2]};
        sha256_of(bytes, sizes[i / 2], &source.hash);
        ck_assert_int_eq(remote_store_put_blob(s, "k/x", &source, REMOTE_PUT_OVERWRITE, NULL), 0);
        BUFFER_AUTO out = {0};
        ck_assert_int_eq(remote_store_get_blob(s, "k/x", 0, UINT64_MAX, &out, NULL), 0);
        ck_assert_uint_eq(out.length, sizes[i / 2]);
        ck_assert_mem_eq(out.data, bytes, out.length);
    }
    // Any other error fails the put.
    direct_error = -ENOSPC;
    struct remote_source source = {.data = bytes, .fd = -1, .length = 3 << 20};
    sha256_of(bytes, 3 << 20, &source.hash);
    if (direct_writes > 0)
        ck_assert_int_eq(
            remote_store_put_blob(s, "k/y", &source, REMOTE_PUT_CREATE, NULL), -ENOSPC);
    ck_assert_uint_eq(count_temporaries(directory), 0);
    free(bytes);
    remote_store_close(s);
    unit_directory_remove(directory);
}
END_TEST

START_TEST(a_known_crc_is_compared_in_place_of_the_hash)
{
    char *directory = unit_directory_new();
    struct remote_store *s = open_store(directory, &file_ops_system);
    struct remote_source source = source_of("content");
    struct remote_head head;
    // Neither a wrong hash without a checksum nor a wrong checksum leaves an object.
    struct remote_source wrong = source;
    wrong.hash.b[0] ^= 1;
    ck_assert_int_eq(remote_store_put_blob(s, "k/x", &wrong, REMOTE_PUT_OVERWRITE, NULL), -EBADMSG);
    source.crc = crc32c(0, "content", 7);
    source.crc_known = true;
    wrong = source;
    wrong.crc ^= 1;
    ck_assert_int_eq(remote_store_put_blob(s, "k/x", &wrong, REMOTE_PUT_OVERWRITE, NULL), -EBADMSG);
    ck_assert_ptr_nonnull(strstr(remote_store_error(), "CRC-32C"));
    wrong = source;
    wrong.data = "cOntent";
    ck_assert_int_eq(remote_store_put_blob(s, "k/x", &wrong, REMOTE_PUT_CREATE, NULL), -EBADMSG);
    ck_assert_int_eq(remote_store_head_blob(s, "k/x", &head, NULL), -ENOENT);
    ck_assert_uint_eq(count_temporaries(directory), 0);
    ck_assert_int_eq(remote_store_put_blob(s, "k/x", &source, REMOTE_PUT_CREATE, NULL), 0);
    ck_assert_int_eq(remote_store_head_blob(s, "k/x", &head, NULL), 0);
    ck_assert_uint_eq(head.size, 7);
    remote_store_close(s);
    unit_directory_remove(directory);
}
END_TEST

int
main(void)
{
    Suite *s = suite_create("store_file");
    unit_add(s, "sources_parse_to_canonical_places", sources_parse_to_canonical_places, 10);
    unit_add(s, "bad_sources_are_refused_with_both_forms_shown",
        bad_sources_are_refused_with_both_forms_shown, 10);
    unit_add(
        s, "error_texts_hold_no_control_characters", error_texts_hold_no_control_characters, 10);
    unit_add(
        s, "missing_directory_is_named_and_not_made", missing_directory_is_named_and_not_made, 10);
    unit_add(s, "failed_file_calls_are_classed_and_leave_no_object",
        failed_file_calls_are_classed_and_leave_no_object, 10);
    unit_add(s, "failed_reads_and_deletes_are_reported", failed_reads_and_deletes_are_reported, 10);
    unit_add(s, "old_temporaries_are_swept_and_young_ones_kept",
        old_temporaries_are_swept_and_young_ones_kept, 10);
    unit_add(s, "foreign_files_are_not_listed", foreign_files_are_not_listed, 10);
    unit_add(s, "directories_removed_meanwhile_are_made_again",
        directories_removed_meanwhile_are_made_again, 10);
    unit_add(s, "large_objects_are_whole_also_where_direct_writes_are_refused",
        large_objects_are_whole_also_where_direct_writes_are_refused, 20);
    unit_add(s, "a_store_whose_directory_is_made_anew_goes_on",
        a_store_whose_directory_is_made_anew_goes_on, 20);
    unit_add(s, "directories_in_use_are_synced_once", directories_in_use_are_synced_once, 20);
    unit_add(s, "a_known_crc_is_compared_in_place_of_the_hash",
        a_known_crc_is_compared_in_place_of_the_hash, 10);
    return unit_run(s);
}
