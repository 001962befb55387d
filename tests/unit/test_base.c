// SPDX-License-Identifier: Apache-2.0
#include "unit.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/checksum.h"
#include "base/decimal.h"
#include "base/hash_table.h"
#include "base/json_writer.h"
#include "base/list.h"
#include "base/printable.h"
#include "base/similar.h"
#include "base/tree.h"
#include "platform/mapped_file.h"
#include "platform/memory.h"

START_TEST(crc32c_known_answers)
{
    // RFC 3720, appendix B.4.
    uint8_t zeros[32] = {0};
    ck_assert_uint_eq(crc32c(0, "123456789", 9), 0xE3069283u);
    ck_assert_uint_eq(crc32c(0, zeros, 32), 0x8A9136AAu);
    memset(zeros, 0xff, 32);
    ck_assert_uint_eq(crc32c(0, zeros, 32), 0x62A8AB43u);
}
END_TEST

START_TEST(crc32c_hardware_equals_portable)
{
    static uint8_t data[20000];
    uint64_t seed = 1;
    for (size_t i = 0; i < sizeof(data); i++)
        data[i] = (uint8_t)(seed = hash_u64(seed + 1));
    for (size_t n = 0; n < sizeof(data); n = n * 3 / 2 + 1)
        ck_assert_uint_eq(crc32c(7, data + 3, n % (sizeof(data) - 3)),
            crc32c_portable(7, data + 3, n % (sizeof(data) - 3)));
    uint32_t whole = crc32c(0, data, 9000);
    ck_assert_uint_eq(crc32c(crc32c(0, data, 4097), data + 4097, 9000 - 4097), whole);
}
END_TEST

START_TEST(hashes_known_answers)
{
    struct sha256 h;
    char hex[65];
    sha256_of("abc", 3, &h);
    sha256_to_hex(&h, hex);
    ck_assert_str_eq(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    struct sha256 back;
    ck_assert_int_eq(sha256_from_hex(hex, &back), 0);
    ck_assert(sha256_equal(&h, &back));
    hex[10] = 'g';
    ck_assert_int_eq(sha256_from_hex(hex, &back), -EINVAL);
    struct sha256_stream *s = sha256_stream_new();
    for (int round = 0; round < 2; round++) {
        sha256_stream_update(s, "a", 1);
        struct sha256 first;
        sha256_stream_peek(s, &back);
        sha256_of("a", 1, &first);
        ck_assert(sha256_equal(&first, &back));
        sha256_stream_update(s, "bc", 2);
        sha256_stream_finish(s, &back);
        ck_assert(sha256_equal(&h, &back));
    }
    sha256_stream_free(s);
    // The SipHash paper, appendix A.
    struct uuid key;
    uint8_t message[15];
    for (int i = 0; i < 16; i++)
        key.b[i] = (uint8_t)i;
    for (int i = 0; i < 15; i++)
        message[i] = (uint8_t)i;
    ck_assert_uint_eq(siphash24(&key, message, 15), 0xa129ca6149be45e5u);
}
END_TEST

START_TEST(byte_reader_never_reads_past_the_end)
{
    uint8_t data[6] = {1, 2, 3, 4, 5, 6};
    struct byte_reader r = byte_reader_over(data, sizeof(data));
    ck_assert_uint_eq(read_le32(&r), 0x04030201u);
    ck_assert_uint_eq(read_le32(&r), 0);
    ck_assert(r.bad);
    ck_assert_uint_eq(read_u8(&r), 0);
}
END_TEST

struct entry {
    uint64_t key;
    struct hash_node hash;
    struct tree_node tree;
};

static int
compare_entry(const void *key, const struct tree_node *node)
{
    uint64_t k = *(const uint64_t *)key;
    uint64_t n = CONTAINER_OF(node, struct entry, tree)->key;
    return k < n ? -1 : k > n;
}

START_TEST(numbers_are_digits_and_nothing_else)
{
    static const char *const bad[] = {"", " 1", "1 ", "+1", "-1", "-0", "0x1", "1k",
        "18446744073709551616", "99999999999999999999", "184467440737095516150"};
    uint64_t number;
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
        ck_assert_msg(!decimal_parse(bad[i], UINT64_MAX, &number), "%s", bad[i]);
    ck_assert(decimal_parse("0", 0, &number) && number == 0);
    ck_assert(decimal_parse("007", 7, &number) && number == 7);
    ck_assert(!decimal_parse("8", 7, &number));
    ck_assert(decimal_parse("18446744073709551615", UINT64_MAX, &number));
    ck_assert_uint_eq(number, UINT64_MAX);
    ck_assert(!decimal_parse("4294967297", UINT32_MAX, &number));
}
END_TEST

START_TEST(containers_hold_what_was_put)
{
    enum { COUNT = 5000 };
    static struct entry entries[COUNT];
    struct hash_table table = {0};
    struct tree tree = {.compare = compare_entry};
    for (uint64_t i = 0; i < COUNT; i++) {
        entries[i].key = (i * 7919) % COUNT;
        hash_table_insert(&table, &entries[i].hash, hash_u64(entries[i].key));
        tree_insert(&tree, &entries[i].tree, &entries[i].key);
    }
    for (uint64_t i = 0; i < COUNT; i += 2) {
        hash_table_remove(&table, &entries[i].hash);
        tree_remove(&tree, &entries[i].tree);
    }
    ck_assert_uint_eq(table.count, COUNT / 2);
    ck_assert_uint_eq(tree.count, COUNT / 2);
    size_t seen = 0;
    uint64_t last = 0;
    for (struct tree_node *n = tree_first(&tree); n; n = tree_next(n)) {
        uint64_t key = CONTAINER_OF(n, struct entry, tree)->key;
        ck_assert(seen == 0 || key > last);
        last = key;
        seen++;
    }
    ck_assert_uint_eq(seen, COUNT / 2);
    for (uint64_t i = 0; i < COUNT; i++) {
        struct hash_node *h = hash_table_first(&table, hash_u64(entries[i].key));
        while (h && CONTAINER_OF(h, struct entry, hash)->key != entries[i].key)
            h = hash_table_next_same(h);
        ck_assert_int_eq(h != NULL, i % 2 == 1);
        struct tree_node *t = tree_find(&tree, &entries[i].key);
        ck_assert_int_eq(t != NULL, i % 2 == 1);
        struct tree_node *bound = tree_lower_bound(&tree, &entries[i].key);
        ck_assert(i % 2 == 0 || bound == t);
    }
    hash_table_free(&table);
}
END_TEST

START_TEST(json_output_always_parses)
{
    BUFFER_AUTO text = {0};
    struct json_writer w = {.out = &text};
    write_json_begin_object(&w, NULL);
    write_json_string(&w, "a\"b", "x\n\xff\xc3\xa9\x01");
    write_json_begin_array(&w, "list");
    write_json_u64(&w, NULL, 18446744073709551615u);
    write_json_bool(&w, NULL, false);
    write_json_end_array(&w);
    write_json_i64(&w, "n", -5);
    write_json_end_object(&w);
    ck_assert_str_eq(buffer_string(&text), "{\"a\\\"b\":\"x\\u000a\\ufffd\xc3\xa9\\u0001\","
                                           "\"list\":[18446744073709551615,false],\"n\":-5}");
}
END_TEST

START_TEST(what_others_wrote_does_nothing_to_a_terminal)
{
    static const struct {
        const char *text, *shown, *json;
    } cases[] = {
        {"plain \xc3\xa9", "plain \xc3\xa9", "plain \xc3\xa9"},
        {"\x1b[2Jh\r\n", "\\x1b[2Jh\\x0d\\x0a", "\\u001b[2Jh\\u000d\\u000a"},
        {"\x7f", "\\x7f", "\\u007f"},
        {"\xc2\x9b"
         "2J",
            "\\xc2\\x9b2J", "\\u009b2J"}, // CSI as one character
        {"\xe2\x80\xae"
         "dne",
            "\\xe2\\x80\\xaedne", "\\u202edne"}, // right to left
        {"\xe2\x80\xa8\xe2\x81\xa9", "\\xe2\\x80\\xa8\\xe2\\x81\\xa9", "\\u2028\\u2069"},
        {"\xff\xc3", "\\xff\\xc3", "\\ufffd\\ufffd"},
        {"\xe2\x80\xa7", "\xe2\x80\xa7", "\xe2\x80\xa7"},
    };
    for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
        BUFFER_AUTO shown = {0};
        BUFFER_AUTO json = {0};
        BUFFER_AUTO expected = {0};
        struct json_writer w = {.out = &json};
        buffer_append_printable(&shown, cases[i].text);
        ck_assert_str_eq(buffer_string(&shown), cases[i].shown);
        write_json_string(&w, NULL, cases[i].text);
        buffer_printf(&expected, "\"%s\"", cases[i].json);
        ck_assert_str_eq(buffer_string(&json), buffer_string(&expected));
    }
    BUFFER_AUTO lines = {0};
    buffer_append_printable_lines(&lines, "a\n\tb\n");
    ck_assert_str_eq(buffer_string(&lines), "a\n\\x09b\n");
}
END_TEST

static uint64_t
resident_bytes(const void *p, size_t n)
{
    char name[64];
    char line[256];
    unsigned long from, to, kib;
    uint64_t bytes = 0;
    bool inside = false;
    snprintf(name, sizeof(name), "/proc/%d/smaps", (int)getpid());
    FILE *smaps = fopen(name, "re");
    ck_assert_ptr_nonnull(smaps);
    while (fgets(line, sizeof(line), smaps)) {
        if (sscanf(line, "%lx-%lx ", &from, &to) == 2)
            inside = from >= (uintptr_t)p && to <= (uintptr_t)p + n;
        if (inside && sscanf(line, "Rss: %lu kB", &kib) == 1)
            bytes += kib << 10;
    }
    fclose(smaps);
    return bytes;
}

START_TEST(a_mistyped_word_finds_the_one_that_was_meant)
{
    static const char *const words[] = {"create", "status", "checkpoint", "unmount"};
    static const struct {
        const char *word;
        const char *meant;
    } cases[] = {
        {"statsu", "status"},
        {"stat", "status"}, // a beginning
        {"chekpoint", "checkpoint"},
        {"umount", "unmount"},
        {"c", NULL},
        {"", NULL},
        {"destroy", NULL},
        {"statuses-of-something-else", NULL},
    };
    for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
        const char *best = NULL;
        for (size_t j = 0; j < ARRAY_LENGTH(words); j++)
            best = similar_word(cases[i].word, words[j], best);
        ck_assert_pstr_eq(best, cases[i].meant);
    }
    ck_assert_uint_eq(similar_distance("kitten", "sitting", 5), 3);
    ck_assert_uint_eq(similar_distance("", "abc", 5), 3);
    char large[100];
    memset(large, 'a', sizeof(large) - 1);
    large[sizeof(large) - 1] = '\0';
    ck_assert_uint_eq(similar_distance(large, "a", 2), 3);
}
END_TEST

START_TEST(a_mapped_file_can_be_read_without_staying)
{
    enum { BYTES = 8 << 20 };
    char *directory = unit_directory_new();
    CLEANUP(memory_free_auto) char *path = memory_printf("%s/mapped", directory);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    ck_assert_int_ge(fd, 0);
    uint8_t *bytes = memory_alloc(BYTES);
    for (size_t i = 0; i < BYTES; i++)
        bytes[i] = (uint8_t)(i / 4096 + i);
    ck_assert_int_eq(write(fd, bytes, BYTES), BYTES);
    uint8_t *map = mmap(NULL, BYTES, PROT_READ, MAP_SHARED, fd, 0);
    ck_assert_ptr_ne(map, MAP_FAILED);
    ck_assert_int_eq(memcmp(map, bytes, BYTES), 0);
    ck_assert_uint_eq(resident_bytes(map, BYTES), BYTES);
    mapped_file_trim(fd, (uint64_t)1 << 40);
    ck_assert_uint_eq(resident_bytes(map, BYTES), BYTES);
    mapped_file_trim(fd, BYTES / 2);
    ck_assert_uint_eq(resident_bytes(map, BYTES), 0);
    ck_assert_int_eq(memcmp(map, bytes, BYTES), 0);
    munmap(map, BYTES);
    close(fd);
    free(bytes);
    unit_directory_remove(directory);
}
END_TEST

START_TEST(file_replace_keeps_old_or_new)
{
    char *directory = unit_directory_new();
    BUFFER_AUTO path = {0};
    BUFFER_AUTO content = {0};
    buffer_printf(&path, "%s/a/b/c", directory);
    ck_assert_int_eq(path_make_directories(buffer_string(&path), 0700), 0);
    ck_assert_int_eq(path_make_directories(buffer_string(&path), 0700), 0);
    buffer_printf(&path, "/file");
    const char *file = buffer_string(&path);
    ck_assert_int_eq(file_replace_whole(&file_ops_system, file, "old", 3, 0600), 0);
    ck_assert_int_eq(file_replace_whole(&file_ops_system, file, "newer", 5, 0600), 0);
    ck_assert_int_eq(file_read_whole(file, 100, &content), 0);
    ck_assert_str_eq(buffer_string(&content), "newer");
    ck_assert_int_eq(file_read_whole(file, 3, &content), -EFBIG);
    unit_directory_remove(directory);
}
END_TEST

int
main(void)
{
    Suite *s = suite_create("base");
    unit_add(s, "crc32c_known_answers", crc32c_known_answers, 10);
    unit_add(s, "crc32c_hardware_equals_portable", crc32c_hardware_equals_portable, 10);
    unit_add(s, "hashes_known_answers", hashes_known_answers, 10);
    unit_add(s, "byte_reader_never_reads_past_the_end", byte_reader_never_reads_past_the_end, 10);
    unit_add(s, "numbers_are_digits_and_nothing_else", numbers_are_digits_and_nothing_else, 10);
    unit_add(s, "containers_hold_what_was_put", containers_hold_what_was_put, 10);
    unit_add(s, "json_output_always_parses", json_output_always_parses, 10);
    unit_add(s, "what_others_wrote_does_nothing_to_a_terminal",
        what_others_wrote_does_nothing_to_a_terminal, 10);
    unit_add(s, "a_mistyped_word_finds_the_one_that_was_meant",
        a_mistyped_word_finds_the_one_that_was_meant, 10);
    unit_add(s, "a_mapped_file_can_be_read_without_staying",
        a_mapped_file_can_be_read_without_staying, 10);
    unit_add(s, "file_replace_keeps_old_or_new", file_replace_keeps_old_or_new, 10);
    return unit_run(s);
}
