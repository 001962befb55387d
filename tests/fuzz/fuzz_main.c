// SPDX-License-Identifier: Apache-2.0
// Runs a fuzz target without libFuzzer: replays files, then feeds mutations of the target's seeds.
// A mutation depends on nothing but its number, so that a failure can be had again:
//
//     fuzz_X [-n RUNS] [FILE...]     replay the files, then all seeds, then RUNS mutations
//     fuzz_X -r NUMBER               this mutation alone, in this process (for a debugger)
//     fuzz_X -w DIRECTORY            write the seeds there, as a corpus for libFuzzer
//
// The inputs run in a child process, whose death, by whatever means, the parent reports with the
// number of the input. An input that takes longer than TIMEOUT_S counts as a failure.
#include "fuzz.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/hash_table.h"
#include "platform/file.h"

#define RUNS_DEFAULT   100000u
#define TIMEOUT_S      60u
#define INPUT_MAX      ((size_t)1 << 24)
#define MUTATIONS_MAX  6u
#define LONGEST_INSERT 64u

static uint64_t
pick(uint64_t *random, uint64_t below)
{
    return below == 0 ? 0 : hash_u64(++*random) % below;
}

static uint32_t
interesting_value(uint64_t *random)
{
    static const uint32_t values[] = {0, 1, 2, 3, 15, 16, 17, 63, 64, 255, 256, 4095, 4096, 4097,
        16383, 16384, 16385, 32767, 32768, 65535, 65536, 65552, 0x7fffffff, 0x80000000, 0xfffffff0,
        0xffffffff};
    return values[pick(random, ARRAY_LENGTH(values))];
}

static void
remove_bytes(struct buffer *b, size_t at, size_t n)
{
    memmove(b->data + at, b->data + at + n, b->length - at - n);
    b->length -= n;
}

static void
insert_bytes(struct buffer *b, size_t at, size_t n)
{
    size_t tail = b->length - at;
    buffer_extend(b, n);
    memmove(b->data + at + n, b->data + at, tail);
    memset(b->data + at, 0, n);
}

static void
overwrite_integer(struct buffer *b, size_t at, uint64_t *random)
{
    size_t left = b->length - at;
    uint32_t value = interesting_value(random);
    if (left >= 4 && pick(random, 2) == 0)
        put_le32(b->data + at, value);
    else if (left >= 2)
        put_le16(b->data + at, (uint16_t)value);
    else
        b->data[at] = (uint8_t)value;
}

static void
add_to_integer(struct buffer *b, size_t at, uint64_t *random)
{
    if (b->length - at < 2)
        return;
    uint32_t delta = (uint32_t)pick(random, 9) - 4;
    put_le16(b->data + at, (uint16_t)(get_le16(b->data + at) + delta));
}

static void
mutate_once(struct buffer *b, uint64_t *random)
{
    if (b->length == 0) {
        buffer_append_u8(b, (uint8_t)pick(random, 256));
        return;
    }
    // Small structures tend to lie at the ends, so half of the mutations go there.
    size_t at = pick(random, b->length);
    size_t near = pick(random, b->length < 200 ? b->length : 200);
    if (pick(random, 2) == 0)
        at = pick(random, 2) == 0 ? near : b->length - 1 - near;
    size_t run = 1 + pick(random, LONGEST_INSERT);
    size_t most = b->length - at;
    switch (pick(random, 8)) {
    case 0:
        b->data[at] ^= (uint8_t)(1u << pick(random, 8));
        break;
    case 1:
        b->data[at] = (uint8_t)pick(random, 256);
        break;
    case 2:
        overwrite_integer(b, at, random);
        break;
    case 3:
        add_to_integer(b, at, random);
        break;
    case 4:
        b->length = at;
        break;
    case 5:
        remove_bytes(b, at, run < most ? run : most);
        break;
    case 6:
        insert_bytes(b, at, run);
        break;
    default: {
        size_t from = pick(random, b->length);
        size_t n = run < most ? run : most;
        memmove(b->data + at, b->data + from, n < b->length - from ? n : b->length - from);
    }
    }
}

static unsigned
count_seeds(void)
{
    unsigned n = 0;
    for (bool more = true; more; n += more) {
        BUFFER_AUTO seed = {0};
        more = fuzz_seed(n, &seed);
    }
    return n;
}

// Input number `run`: the seeds as they are, then mutations of them, sometimes of two joined.
static void
make_input(uint64_t run, unsigned seeds, struct buffer *input)
{
    buffer_clear(input);
    if (run < seeds) {
        fuzz_seed((unsigned)run, input);
        return;
    }
    uint64_t random = hash_u64(run);
    if (seeds > 0)
        fuzz_seed((unsigned)pick(&random, seeds), input);
    if (seeds > 0 && pick(&random, 16) == 0) {
        input->length = pick(&random, input->length + 1);
        fuzz_seed((unsigned)pick(&random, seeds), input);
    }
    for (uint64_t n = 1 + pick(&random, MUTATIONS_MAX); n > 0; n--)
        mutate_once(input, &random);
}

// Runs one input from memory of exactly its size, so that a sanitizer sees each byte too many.
static void
run_input(const struct buffer *input)
{
    uint8_t *copy = malloc(input->length ? input->length : 1);
    if (!copy)
        abort();
    if (input->length > 0)
        memcpy(copy, input->data, input->length);
    alarm(TIMEOUT_S);
    LLVMFuzzerTestOneInput(copy, input->length);
    alarm(0);
    free(copy);
}

static void
run_number(uint64_t run, unsigned seeds)
{
    BUFFER_AUTO input = {0};
    make_input(run, seeds, &input);
    run_input(&input);
}

static int
run_file(const char *path)
{
    BUFFER_AUTO input = {0};
    int rc = file_read_whole(path, INPUT_MAX, &input);
    if (rc < 0) {
        fprintf(stderr, "fuzz: cannot read %s: %s\n", path, strerror(-rc));
        return rc;
    }
    run_input(&input);
    return 0;
}

// Shared with the child: where it is.
struct progress {
    volatile int file; // index in argv, while files are replayed; then 0
    volatile uint64_t run;
};

static int
run_all(struct progress *progress, char **files, int count, uint64_t runs)
{
    unsigned seeds = count_seeds();
    for (int i = 0; i < count; i++) {
        progress->file = i + 1;
        if (run_file(files[i]) < 0)
            return EXIT_FAILURE;
    }
    progress->file = 0;
    for (uint64_t run = 0; run < seeds + runs; run++) {
        progress->run = run;
        run_number(run, seeds);
    }
    return EXIT_SUCCESS;
}

static int
run_in_child(const char *program, char **files, int count, uint64_t runs)
{
    struct progress *progress =
        mmap(NULL, sizeof(*progress), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (progress == MAP_FAILED)
        return EXIT_FAILURE;
    pid_t child = fork();
    if (child == 0)
        exit(run_all(progress, files, count, runs));
    int status = 0;
    if (child < 0 || waitpid(child, &status, 0) != child)
        return EXIT_FAILURE;
    if (WIFEXITED(status) && WEXITSTATUS(status) == EXIT_SUCCESS) {
        printf("fuzz: %d files and %llu inputs, no failure\n", count,
            (unsigned long long)progress->run + 1);
        return EXIT_SUCCESS;
    }
    const char *how = WIFSIGNALED(status) ? "signal" : "exit status";
    int value = WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status);
    if (progress->file > 0)
        fprintf(stderr, "fuzz: %s %d on %s\n", how, value, files[progress->file - 1]);
    else
        fprintf(stderr, "fuzz: %s %d; once more: %s -r %llu\n", how, value, program,
            (unsigned long long)progress->run);
    return EXIT_FAILURE;
}

static int
write_seeds(const char *directory)
{
    unsigned seeds = count_seeds();
    for (unsigned i = 0; i < seeds; i++) {
        BUFFER_AUTO path = {0};
        BUFFER_AUTO seed = {0};
        buffer_printf(&path, "%s/seed-%u", directory, i);
        fuzz_seed(i, &seed);
        int rc = file_replace_whole(
            &file_ops_system, buffer_string(&path), seed.data, seed.length, 0644);
        if (rc < 0) {
            fprintf(stderr, "fuzz: cannot write %s: %s\n", buffer_string(&path), strerror(-rc));
            return EXIT_FAILURE;
        }
    }
    return EXIT_SUCCESS;
}

int
main(int argc, char **argv)
{
    const char *from_environment = getenv("CKPTFS_FUZZ_RUNS");
    uint64_t runs = from_environment ? strtoull(from_environment, NULL, 10) : RUNS_DEFAULT;
    int option;
    while ((option = getopt(argc, argv, "n:r:w:")) != -1) {
        switch (option) {
        case 'n':
            runs = strtoull(optarg, NULL, 10);
            break;
        case 'r':
            run_number(strtoull(optarg, NULL, 10), count_seeds());
            return EXIT_SUCCESS;
        case 'w':
            return write_seeds(optarg);
        default:
            return 2;
        }
    }
    return run_in_child(argv[0], argv + optind, argc - optind, runs);
}
