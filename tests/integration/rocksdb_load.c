// SPDX-License-Identifier: Apache-2.0
// RocksDB under load: every write batch with sync. A small write buffer makes it flush and compact.
//     rocksdb_load load DIRECTORY STREAM ACK-FILE BODY-BYTES SLOTS LIMIT
//     rocksdb_load ids  DIRECTORY STREAM SLOTS      checks the content and prints STREAM:n lines
#define _GNU_SOURCE
#include <rocksdb/c.h>

#include "load_common.h"

#define KEY_BYTES 21 // a letter and 20 digits

static rocksdb_t *db;

static void
must(char *error, const char *what)
{
    if (error)
        load_die(3, "rocksdb: %s: %s", what, error);
}

static void
make_key(char *out, char letter, uint64_t n)
{
    snprintf(out, KEY_BYTES + 1, "%c%020" PRIu64, letter, n);
}

static void
open_database(const char *directory)
{
    char *error = NULL;
    rocksdb_options_t *options = rocksdb_options_create();
    rocksdb_options_set_create_if_missing(options, 1);
    rocksdb_options_set_paranoid_checks(options, 1);
    rocksdb_options_set_write_buffer_size(options, 4 << 20);
    rocksdb_options_set_target_file_size_base(options, 4 << 20);
    rocksdb_options_set_compression(options, rocksdb_no_compression);
    rocksdb_options_set_keep_log_file_num(options, 4);
    db = rocksdb_open(options, directory, &error);
    must(error, "open");
    rocksdb_options_destroy(options);
}

static rocksdb_iterator_t *
iterate(char letter)
{
    rocksdb_readoptions_t *options = rocksdb_readoptions_create();
    rocksdb_readoptions_set_verify_checksums(options, 1);
    rocksdb_iterator_t *it = rocksdb_create_iterator(db, options);
    rocksdb_readoptions_destroy(options);
    rocksdb_iter_seek(it, &letter, 1);
    return it;
}

// The number in the key under `it` when the key begins with `letter`.
static bool
key_number(const rocksdb_iterator_t *it, char letter, uint64_t *n_out)
{
    if (!rocksdb_iter_valid(it))
        return false;
    size_t length;
    const char *key = rocksdb_iter_key(it, &length);
    if (length != KEY_BYTES || key[0] != letter)
        return false;
    char text[KEY_BYTES];
    memcpy(text, key + 1, KEY_BYTES - 1);
    text[KEY_BYTES - 1] = '\0';
    *n_out = load_number(text);
    return true;
}

static uint64_t
newest(void)
{
    char last[KEY_BYTES + 1];
    uint64_t n = 0;
    make_key(last, 'i', UINT64_MAX);
    rocksdb_iterator_t *it = iterate('i');
    rocksdb_iter_seek_for_prev(it, last, KEY_BYTES);
    if (!key_number(it, 'i', &n))
        n = 0;
    rocksdb_iter_destroy(it);
    return n;
}

static void
run_load(struct load *l)
{
    rocksdb_writeoptions_t *options = rocksdb_writeoptions_create();
    rocksdb_writeoptions_set_sync(options, 1);
    uint64_t n = newest();
    while (load_goes_on(l)) {
        n++;
        uint64_t began = load_now_us();
        char key[KEY_BYTES + 1];
        char *error = NULL;
        load_body(n, l->body, l->body_bytes);
        rocksdb_writebatch_t *batch = rocksdb_writebatch_create();
        make_key(key, 'i', n);
        rocksdb_writebatch_put(batch, key, KEY_BYTES, "", 0);
        make_key(key, 's', n % l->slots);
        const char *parts[2] = {(const char *)&n, (const char *)l->body};
        size_t sizes[2] = {sizeof(n), l->body_bytes};
        const char *keys[1] = {key};
        size_t key_sizes[1] = {KEY_BYTES};
        rocksdb_writebatch_putv(batch, 1, keys, key_sizes, 2, parts, sizes);
        rocksdb_write(db, options, batch, &error);
        must(error, "write");
        rocksdb_writebatch_destroy(batch);
        load_acknowledge(l, n, began);
    }
    rocksdb_writeoptions_destroy(options);
}

static void
end_iteration(rocksdb_iterator_t *it)
{
    char *error = NULL;
    rocksdb_iter_get_error(it, &error);
    must(error, "iterate");
    rocksdb_iter_destroy(it);
}

static void
print_ids(const char *stream, uint64_t slots)
{
    uint64_t last = 0, n;
    rocksdb_iterator_t *it = iterate('i');
    for (; key_number(it, 'i', &n); rocksdb_iter_next(it)) {
        if (n != last + 1)
            load_die(1, "%s: after transaction %" PRIu64 " comes %" PRIu64, stream, last, n);
        printf("%s:%" PRIu64 "\n", stream, n);
        last = n;
    }
    end_iteration(it);
    uint64_t slot;
    it = iterate('s');
    for (; key_number(it, 's', &slot); rocksdb_iter_next(it)) {
        size_t length;
        const char *value = rocksdb_iter_value(it, &length);
        if (length < sizeof(n))
            load_die(1, "%s: slot %" PRIu64 " has %zu bytes", stream, slot, length);
        memcpy(&n, value, sizeof(n));
        load_check_slot(stream, slot, slots, last, n, value + sizeof(n), length - sizeof(n));
    }
    end_iteration(it);
}

int
main(int argc, char **argv)
{
    if (argc == 8 && strcmp(argv[1], "load") == 0) {
        struct load l = load_begin(argv + 3);
        open_database(argv[2]);
        run_load(&l);
        load_end(&l);
    } else if (argc == 5 && strcmp(argv[1], "ids") == 0) {
        open_database(argv[2]);
        print_ids(argv[3], load_number(argv[4]));
    } else {
        load_die(2, "usage: see the head of rocksdb_load.c");
    }
    rocksdb_close(db);
    return 0;
}
