// SPDX-License-Identifier: Apache-2.0
// The limits on reads that the mounts of a tenant share in a storage root: rates, shares of classes
// and mounts, requests at once, and what deaths and stopped processes leave. The clock is false.
#include "unit.h"

#include <errno.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "platform/clock.h"
#include "platform/memory.h"
#include "quota/tenant_rate.h"
#include "store/read_limiter.h"
#include "volume/volume_internal.h"
#include "volume_world.h"

#define MIB     (UINT64_C(1) << 20)
#define STREAMS 8u

static char *root;
static uint64_t now_ms;

static void
begin(void)
{
    root = unit_directory_new();
    now_ms = clock_monotonic_ms();
}

static void
end(void)
{
    unit_directory_remove(root);
}

// ---- mounts -------------------------------------------------------------------------------------

struct mount {
    struct storage_quota *q;
    struct tenant_rate *rate;
    struct read_limiter limiter;
};

static void
mount_open(struct mount *m, const char *place, const char *tenant)
{
    tenant_rate_make_file(root);
    m->q = storage_quota_open(root, place);
    storage_quota_set_tenant(m->q, tenant);
    m->rate = tenant_rate_open(m->q, LIMITER_BACKGROUND);
    ck_assert_ptr_nonnull(m->rate);
    read_limiter_init(&m->limiter, now_ms);
    read_limiter_set_share(&m->limiter, m->rate);
}

static void
mount_close(struct mount *m)
{
    read_limiter_set_share(&m->limiter, NULL);
    tenant_rate_close(m->rate);
    storage_quota_close(m->q);
}

static void
set(struct mount *m, uint64_t bytes, uint64_t requests)
{
    const struct tenant_rate_limits limits = {bytes, requests};
    tenant_rate_set(m->rate, &limits);
}

static void
expect_limits(struct mount *m, uint64_t bytes, uint64_t requests)
{
    struct tenant_rate_limits limits;
    tenant_rate_get(m->rate, &limits);
    ck_assert_uint_eq(limits.bytes, bytes);
    ck_assert_uint_eq(limits.requests, requests);
}

// Requests of a class in a mount, `wanted` of them outstanding all the time.
struct stream {
    struct mount *mount;
    enum remote_class class;
    uint64_t bytes;
    unsigned wanted;
    uint64_t moved;
    struct limiter_request requests[STREAMS];
    uint64_t ends_ms[STREAMS];
};

static struct stream
stream_of(struct mount *m, enum remote_class class, uint64_t bytes, unsigned wanted)
{
    return (struct stream){.mount = m, .class = class, .bytes = bytes, .wanted = wanted};
}

static void
put(struct stream *s, unsigned i)
{
    s->requests[i] = (struct limiter_request){.class = s->class, .bytes = s->bytes};
    s->ends_ms[i] = 0;
    read_limiter_put(&s->mount->limiter, &s->requests[i], now_ms);
}

static void
step(struct stream *s)
{
    (void)read_limiter_grant(&s->mount->limiter, now_ms);
    for (unsigned i = 0; i < s->wanted; i++) {
        if (!s->requests[i].granted)
            continue;
        if (s->ends_ms[i] == 0)
            s->ends_ms[i] = now_ms + 10;
        if (s->ends_ms[i] > now_ms)
            continue;
        s->moved += s->bytes;
        read_limiter_end(&s->mount->limiter, &s->requests[i], s->bytes, now_ms);
        put(s, i);
    }
}

static unsigned
in_flight(const struct stream *s, size_t count)
{
    unsigned n = 0;
    for (size_t k = 0; k < count; k++)
        for (unsigned i = 0; i < s[k].wanted; i++)
            n += s[k].requests[i].granted;
    return n;
}

// Returns the most requests that were under way at once.
static unsigned
run(struct stream *s, size_t count, uint64_t duration_ms)
{
    unsigned most = 0;
    for (size_t k = 0; k < count; k++)
        for (unsigned i = 0; i < s[k].wanted; i++)
            put(&s[k], i);
    for (uint64_t until = now_ms + duration_ms; now_ms < until; now_ms++)
        for (size_t k = 0; k < count; k++) {
            step(&s[k]);
            unsigned n = in_flight(s, count);
            most = n > most ? n : most;
        }
    return most;
}

static void
stop(struct stream *s, size_t count)
{
    for (size_t k = 0; k < count; k++)
        for (unsigned i = 0; i < s[k].wanted; i++) {
            struct limiter_request *x = &s[k].requests[i];
            if (x->granted)
                read_limiter_end(&s[k].mount->limiter, x, 0, now_ms);
            else
                read_limiter_leave(&s[k].mount->limiter, x);
        }
}

START_TEST(mounts_of_a_tenant_share_a_rate_evenly_and_others_have_their_own)
{
    struct mount m[3];
    mount_open(&m[0], "db/1", "acme");
    mount_open(&m[1], "db/2", "acme");
    mount_open(&m[2], "db/3", "other");
    set(&m[1], 20 * MIB, 0);
    set(&m[2], 5 * MIB, 0);
    expect_limits(&m[0], 20 * MIB, 0);
    struct stream s[] = {stream_of(&m[0], REMOTE_FOREGROUND, 64 << 10, 8),
        stream_of(&m[1], REMOTE_FOREGROUND, MIB, 4), stream_of(&m[2], REMOTE_FOREGROUND, MIB, 4)};
    run(s, 3, 20000);
    uint64_t both = s[0].moved + s[1].moved;
    // Rate times time, a quarter of a second, and a request.
    ck_assert_uint_le(both, 20 * 20 * MIB + 5 * MIB + MIB);
    ck_assert_uint_ge(both, 20 * 20 * MIB * 9 / 10);
    // Each request costs 64 KiB besides its bytes, so small ones get less.
    ck_assert_uint_ge(s[0].moved, both / 4);
    ck_assert_uint_ge(s[1].moved, both / 3);
    ck_assert_uint_le(s[2].moved, 20 * 5 * MIB + 2 * MIB + MIB);
    ck_assert_uint_ge(s[2].moved, 20 * 5 * MIB * 9 / 10);
    stop(s, 3);
    for (unsigned i = 0; i < 3; i++)
        mount_close(&m[i]);
}
END_TEST

START_TEST(a_cold_scan_of_one_mount_gives_way_to_the_programs_of_another)
{
    struct mount m[2];
    mount_open(&m[0], "db/1", "acme");
    mount_open(&m[1], "db/2", "acme");
    set(&m[0], 20 * MIB, 0);
    struct stream s[] = {
        stream_of(&m[0], REMOTE_COLD_SCAN, MIB, 8), stream_of(&m[1], REMOTE_FOREGROUND, MIB, 8)};
    run(s, 2, 60000);
    ck_assert_uint_ge(s[1].moved, 14 * s[0].moved);
    ck_assert_uint_le(s[1].moved, 18 * s[0].moved); // none starves
    // Alone it gets all.
    stop(s, 2);
    s[0].moved = 0;
    run(s, 1, 10000);
    ck_assert_uint_ge(s[0].moved, 10 * 20 * MIB * 9 / 10);
    stop(s, 1);
    // A limit that is changed holds at once, one that is taken away is gone.
    set(&m[1], MIB, 0);
    s[0].moved = 0;
    run(s, 1, 20000);
    ck_assert_uint_le(s[0].moved, 20 * MIB + 2 * MIB);
    stop(s, 1);
    set(&m[1], 0, 0);
    s[0].moved = 0;
    run(s, 1, 1000);
    ck_assert_uint_ge(s[0].moved, 500 * MIB);
    stop(s, 1);
    mount_close(&m[0]);
    mount_close(&m[1]);
}
END_TEST

START_TEST(mounts_share_the_requests_at_once_and_jobs_leave_one)
{
    struct mount m[2];
    mount_open(&m[0], "db/1", "acme");
    mount_open(&m[1], "db/2", "acme");
    set(&m[0], 0, 4);
    struct stream s[] = {stream_of(&m[0], REMOTE_JOB, MIB, 8), stream_of(&m[1], REMOTE_JOB, MIB, 8),
        stream_of(&m[1], REMOTE_FOREGROUND, MIB, 1)};
    ck_assert_uint_eq(run(s, 2, 1000), 3);
    ck_assert_uint_ge(s[0].moved, (s[0].moved + s[1].moved) / 3);
    ck_assert_uint_ge(s[1].moved, (s[0].moved + s[1].moved) / 3);
    // A program of one mount begins at once.
    put(&s[2], 0);
    ck_assert(s[2].requests[0].granted);
    stop(s, 3);
    ck_assert_uint_eq(run(&s[0], 1, 100), 3);
    stop(s, 1);
    mount_close(&m[0]);
    mount_close(&m[1]);
}
END_TEST

// Requests of the whole limit under way, and one that waits.
static void
die_with_requests(void)
{
    struct mount m;
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        static struct stream s = {.class = REMOTE_FOREGROUND, .bytes = MIB, .wanted = 6};
        mount_open(&m, "db/2", "acme");
        s.mount = &m;
        for (unsigned i = 0; i < s.wanted; i++)
            put(&s, i);
        raise(SIGKILL);
    }
    int status;
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

START_TEST(dead_and_stopped_processes_hold_nobody_up)
{
    struct mount m[2];
    mount_open(&m[0], "db/1", "acme");
    set(&m[0], 100 * MIB, 4);
    die_with_requests();
    struct stream s[] = {
        stream_of(&m[0], REMOTE_COLD_SCAN, MIB, 4), stream_of(&m[1], REMOTE_FOREGROUND, MIB, 4)};
    run(s, 1, 2000);
    ck_assert_uint_ge(s[0].moved, 100 * MIB);
    // One that says nothing any more although it waits, in a class that goes first.
    mount_open(&m[1], "db/2", "acme");
    expect_limits(&m[1], 100 * MIB, 4);
    stop(s, 1);
    run(s, 2, 1000);
    s[0].moved = 0;
    for (unsigned i = 0; i < 4; i++)
        if (s[1].requests[i].granted)
            read_limiter_end(&m[1].limiter, &s[1].requests[i], 0, now_ms);
    for (uint64_t until = now_ms + 2000; now_ms < until; now_ms++)
        step(&s[0]);
    ck_assert_uint_ge(s[0].moved, 100 * MIB);
    mount_close(&m[0]);
    mount_close(&m[1]);
}
END_TEST

START_TEST(limits_stay_for_the_next_mount_and_the_smallest_counts)
{
    struct mount m[2];
    mount_open(&m[0], "db/1", "acme");
    expect_limits(&m[0], 0, 0);
    ck_assert(!tenant_rate_is_limited(m[0].rate));
    set(&m[0], 7 * MIB, 5);
    mount_close(&m[0]);
    mount_open(&m[1], "db/2", "acme");
    mount_open(&m[0], "db/9", "other");
    expect_limits(&m[0], 0, 0);
    mount_close(&m[0]);
    mount_close(&m[1]);
    mount_open(&m[0], "db/1", "acme");
    expect_limits(&m[0], 7 * MIB, 5);
    mount_close(&m[0]);
}
END_TEST

START_TEST(a_damaged_file_gives_no_limits_and_no_trouble)
{
    struct mount m;
    mount_open(&m, "db/1", "acme");
    set(&m, 7 * MIB, 5);
    mount_close(&m);
    CLEANUP(memory_free_auto) char *path = memory_printf("%s/reads", root);
    ck_assert_int_eq(truncate(path, 5000), 0);
    mount_open(&m, "db/1", "acme");
    expect_limits(&m, 0, 0);
    mount_close(&m);
    ck_assert_int_eq(unlink(path), 0);
    ck_assert_int_eq(mkdir(path, 0700), 0);
    struct storage_quota *q = storage_quota_open(root, "db/1");
    storage_quota_set_tenant(q, "acme");
    ck_assert_ptr_null(tenant_rate_open(q, 0));
    ck_assert(!tenant_rate_is_limited(NULL));
    storage_quota_close(q);
}
END_TEST

// ---- volumes ------------------------------------------------------------------------------------

static struct metrics
metrics_of(struct volume *v)
{
    struct volume_status s;
    volume_status(v, &s);
    return s.metrics;
}

// The other volume of the tenant, in another process. Does nothing unless it has the limit.
static void
change_limits(struct volume *v)
{
    struct remote_limits limits;
    volume_get_limits(v, &limits);
    if (limits.tenant_reads.bytes != 3 * MIB || limits.reads.bytes != 0)
        return;
    limits.tenant_reads.bytes = 1;
    if (volume_set_limits(v, &limits) != -EINVAL)
        return;
    limits.tenant_reads = (struct limiter_rates){.bytes = 9 * MIB, .requests = 3};
    (void)!volume_set_limits(v, &limits);
}

START_TEST(volumes_of_a_tenant_in_a_root_have_the_limit_of_either)
{
    struct volume_world w, other;
    volume_world_new(&w);
    w.config.tenant_read_limit_bytes = 3 * MIB;
    volume_world_open(&w);
    ck_assert_uint_eq(metrics_of(w.v).tenant_read_limit_bytes, 3 * MIB);
    // ThreadSanitizer bears no threads in the child of a process that has some.
    volume_world_close(&w);
    volume_world_join(&other, w.directory);
    free(other.config.source);
    other.config.source = memory_printf("%s@2", w.config.source);
    volume_world_die_after(&other, change_limits);
    w.config.tenant_read_limit_bytes = 0;
    volume_world_open(&w);
    struct metrics m = metrics_of(w.v);
    ck_assert_uint_eq(m.tenant_read_limit_bytes, 9 * MIB);
    ck_assert_uint_eq(m.tenant_read_limit_requests, 3);
    ck_assert_uint_eq(m.read_limit_bytes, 0);
    volume_world_leave(&other);
    volume_world_free(&w);
}
END_TEST

int
main(void)
{
    Suite *s = suite_create("tenant_rate");
#define ADD(t) unit_add_with(s, #t, t, begin, end, 60)
    ADD(mounts_of_a_tenant_share_a_rate_evenly_and_others_have_their_own);
    ADD(a_cold_scan_of_one_mount_gives_way_to_the_programs_of_another);
    ADD(mounts_share_the_requests_at_once_and_jobs_leave_one);
    ADD(dead_and_stopped_processes_hold_nobody_up);
    ADD(limits_stay_for_the_next_mount_and_the_smallest_counts);
    ADD(a_damaged_file_gives_no_limits_and_no_trouble);
    ADD(volumes_of_a_tenant_in_a_root_have_the_limit_of_either);
#undef ADD
    return unit_run(s);
}
