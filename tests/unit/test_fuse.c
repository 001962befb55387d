// SPDX-License-Identifier: Apache-2.0
#include "unit.h"

#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "fuse/caller.h"
#include "fuse/options.h"
#include "fuse/ticket.h"

// ---- options ------------------------------------------------------------------------------------

// Parses "ckptfs ARG ...", to a NULL; the result, and the error text in `text` (may be NULL).
#define PARSE(options, text, ...)                                                                  \
    parse(options, text, (char *[]){(char *)"ckptfs", __VA_ARGS__, NULL})

static int
parse(struct options *options, char text[256], char *argv[])
{
    BUFFER_AUTO error = {0};
    int argc = 0;
    while (argv[argc])
        argc++;
    int rc = options_parse(options, argc, argv, &error);
    ck_assert_msg((rc == 0) == (error.length == 0), "%d, %s", rc, buffer_string(&error));
    if (text)
        snprintf(text, 256, "%s", buffer_string(&error));
    return rc;
}

START_TEST(fstab_lines_are_taken_as_mount_passes_them)
{
    struct options o;
    ck_assert_int_eq(
        PARSE(&o, NULL, "s3://bucket/acme", "/mnt", "-o",
            "rw,noauto,user,user=me,nofail,_netdev,x-systemd.requires=a,noatime,dev,"
            "suid,relatime,defaults,default_permissions,nonempty,region=r,max_read=8192",
            "-n", "-v"),
        0);
    ck_assert_str_eq(o.config.source, "s3://bucket/acme");
    ck_assert_str_eq(o.mountpoint, "/mnt");
    ck_assert_str_eq(o.config.region, "r");
    ck_assert_uint_eq(o.max_read, 8192);
    ck_assert_str_eq(buffer_string(&o.kernel), "noatime,dev,suid");
    ck_assert(!o.foreground && !o.debug && !o.sync && !o.config.read_only);
    ck_assert(o.allow_other == (geteuid() == 0));
    options_free(&o);
}
END_TEST

START_TEST(switches_may_stand_anywhere)
{
    struct options o;
    ck_assert_int_eq(PARSE(&o, NULL, "-f", "-o", "ro", "s", "-s", "/m", "-o", "fsname=n,sync"), 0);
    ck_assert(o.foreground && o.config.read_only && o.sync);
    ck_assert_uint_eq(o.config.fuse_threads, 1);
    ck_assert_str_eq(o.fsname, "n");
    options_free(&o);
    ck_assert_int_eq(PARSE(&o, NULL, "-d", "s", "/m"), 0);
    ck_assert(o.foreground && o.debug);
    options_free(&o);
    ck_assert_int_eq(PARSE(&o, NULL, "--", "-s", "/m"), 0);
    ck_assert_str_eq(o.config.source, "-s");
    options_free(&o);
    ck_assert_int_eq(PARSE(&o, NULL, "--help"), 0);
    ck_assert(o.help);
    options_free(&o);
    ck_assert_int_eq(PARSE(&o, NULL, "-V", "too", "many", "words"), 0);
    ck_assert(o.version);
    options_free(&o);
}
END_TEST

START_TEST(a_comma_in_a_value_is_escaped)
{
    struct options o;
    ck_assert_int_eq(
        PARSE(&o, NULL, "s", "/m", "-o", "root=/a\\,b,,region=x\\\\y,context=c1\\,c2,profile=p\\q"),
        0);
    ck_assert_str_eq(o.config.root, "/a,b");
    ck_assert_str_eq(o.config.region, "x\\y");
    ck_assert_str_eq(o.config.profile, "p\\q");
    ck_assert_str_eq(buffer_string(&o.kernel), "context=c1\\,c2");
    options_free(&o);
}
END_TEST

START_TEST(relative_paths_become_absolute)
{
    struct options o;
    char *directory = unit_directory_new();
    ck_assert_int_eq(chdir(directory), 0);
    char *here = getcwd(NULL, 0);
    ck_assert_int_eq(PARSE(&o, NULL, "s", "m", "-o", "root=r,log_file=l,ca_file=/c"), 0);
    char text[512];
    snprintf(text, sizeof(text), "%s/m", here);
    ck_assert_str_eq(o.mountpoint, text);
    snprintf(text, sizeof(text), "%s/r", here);
    ck_assert_str_eq(o.config.root, text);
    snprintf(text, sizeof(text), "%s/l", here);
    ck_assert_str_eq(o.config.log_file, text);
    ck_assert_str_eq(o.config.ca_file, "/c");
    ck_assert_str_eq(o.config.source, "s");
    options_free(&o);
    free(here);
    ck_assert_int_eq(chdir("/"), 0);
    unit_directory_remove(directory);
}
END_TEST

START_TEST(wrong_command_lines_are_refused)
{
    struct options o;
    char text[256];
    ck_assert_int_eq(PARSE(&o, text, "only-a-source"), -EINVAL);
    ck_assert_ptr_nonnull(strstr(text, "SOURCE and MOUNTPOINT"));
    options_free(&o);
    ck_assert_int_eq(PARSE(&o, text, "a", "b", "c"), -EINVAL);
    ck_assert_ptr_nonnull(strstr(text, "too many"));
    options_free(&o);
    ck_assert_int_eq(PARSE(&o, text, "", "b"), -EINVAL);
    options_free(&o);
    static char *const bad[] = {(char *)"bogus", (char *)"max_read=0", (char *)"max_read=x",
        (char *)"max_read=", (char *)"max_read=-1", (char *)"max_read=4294967296",
        (char *)"max_read", (char *)"noatime=1", (char *)"wal_limit=1", (char *)"x",
        (char *)"allow_other=on", (char *)"sync=", (char *)"fsname"};
    for (size_t i = 0; i < ARRAY_LENGTH(bad); i++) {
        ck_assert_msg(PARSE(&o, text, "s", "/m", "-o", bad[i]) == -EINVAL, "%s", bad[i]);
        size_t length = strcspn(bad[i], "=");
        char name[64];
        snprintf(name, sizeof(name), "%.*s", (int)length, bad[i]);
        ck_assert_msg(strstr(text, name) != NULL, "%s: %s", bad[i], text);
        options_free(&o);
    }
    ck_assert_int_eq(PARSE(&o, text, "-x", "s", "/m"), -EINVAL);
    options_free(&o);
    ck_assert_int_eq(PARSE(&o, text, "s", "/m", "-o"), -EINVAL);
    options_free(&o);
}
END_TEST

START_TEST(no_allow_other_keeps_others_out)
{
    struct options o;
    ck_assert_int_eq(PARSE(&o, NULL, "s", "/m", "-o", "allow_other,no_allow_other"), 0);
    ck_assert(!o.allow_other);
    options_free(&o);
}
END_TEST

static int
append_line(void *argument, const char *option, struct buffer *error UNUSED)
{
    buffer_printf(argument, "%s\n", option);
    return strcmp(option, "stop") == 0 ? -EINTR : 0;
}

START_TEST(lists_come_apart_as_they_were_put_together)
{
    BUFFER_AUTO list = {0};
    BUFFER_AUTO lines = {0};
    BUFFER_AUTO error = {0};
    options_append(&list, "a,b");
    options_append(&list, "c\\d");
    options_append(&list, "\\,");
    options_append(&list, "plain");
    ck_assert_str_eq(buffer_string(&list), "a\\,b,c\\\\d,\\\\\\,,plain");
    ck_assert_int_eq(options_split(buffer_string(&list), append_line, &lines, &error), 0);
    ck_assert_str_eq(buffer_string(&lines), "a,b\nc\\d\n\\,\nplain\n");
    buffer_clear(&lines);
    ck_assert_int_eq(options_split("x,stop,y", append_line, &lines, &error), -EINTR);
    ck_assert_str_eq(buffer_string(&lines), "x\nstop\n");
    buffer_clear(&lines);
    ck_assert_int_eq(options_split("", append_line, &lines, &error), 0);
    ck_assert_uint_eq(lines.length, 0);
}
END_TEST

// ---- tickets ------------------------------------------------------------------------------------

static struct fuse_req *
some_request(int *address)
{
    return (struct fuse_req *)(void *)address;
}

static void
assert_completed(struct tickets *t, uint64_t ticket, int result)
{
    uint64_t completed;
    int completed_result;
    tickets_completed(t, &completed, &completed_result);
    ck_assert_uint_eq(completed, ticket);
    ck_assert_int_eq(completed_result, result);
}

START_TEST(a_ticket_is_answered_by_its_end)
{
    static struct tickets t;
    int a;
    uint64_t ticket;
    uint32_t flags;
    tickets_init(&t);
    struct ticket_slot *slot = ticket_begin(&t, 7, &ticket);
    ck_assert_uint_eq(ticket, 1);
    ck_assert(ticket_wait(slot, some_request(&a)));
    assert_completed(&t, 0, 0);
    ck_assert_ptr_eq(ticket_end(slot, -EIO, &ticket, &flags), some_request(&a));
    ck_assert_uint_eq(ticket, 1);
    ck_assert_uint_eq(flags, 7);
    assert_completed(&t, 1, -EIO);
    ck_assert_ptr_null(ticket_take_any_request(&t));
    tickets_destroy(&t);
}
END_TEST

START_TEST(an_interrupt_takes_the_request_from_the_end)
{
    static struct tickets t;
    int a;
    uint64_t ticket;
    uint32_t flags;
    struct ticket_slot *pinned;
    tickets_init(&t);
    struct ticket_slot *slot = ticket_begin(&t, 0, &ticket);
    ck_assert(ticket_wait(slot, some_request(&a)));
    ck_assert_ptr_eq(ticket_interrupt(&t, ticket, &pinned), some_request(&a));
    ck_assert_ptr_eq(pinned, slot);
    // Not twice.
    struct ticket_slot *again;
    ck_assert_ptr_null(ticket_interrupt(&t, ticket, &again));
    ck_assert_ptr_null(again);
    ck_assert_ptr_null(ticket_end(slot, 0, &ticket, &flags));
    // The slot is not given away while the interrupt still uses it.
    assert_completed(&t, 0, 0);
    ticket_unpin(pinned);
    assert_completed(&t, 1, 0);
    // Late.
    ck_assert_ptr_null(ticket_interrupt(&t, ticket, &again));
    tickets_destroy(&t);
}
END_TEST

START_TEST(an_early_interrupt_keeps_the_request_from_waiting)
{
    static struct tickets t;
    int a;
    uint64_t ticket;
    uint32_t flags;
    struct ticket_slot *pinned;
    tickets_init(&t);
    struct ticket_slot *slot = ticket_begin(&t, 0, &ticket);
    ck_assert_ptr_null(ticket_interrupt(&t, ticket, &pinned));
    ck_assert(!ticket_wait(slot, some_request(&a)));
    ck_assert_ptr_null(ticket_end(slot, -EINTR, &ticket, &flags));
    assert_completed(&t, 1, -EINTR);
    tickets_destroy(&t);
}
END_TEST

START_TEST(tickets_complete_in_order)
{
    static struct tickets t;
    uint64_t number;
    uint32_t flags;
    struct ticket_slot *slots[3];
    tickets_init(&t);
    for (int i = 0; i < 3; i++)
        slots[i] = ticket_begin(&t, 0, &number);
    ck_assert_ptr_null(ticket_end(slots[2], 0, &number, &flags));
    assert_completed(&t, 0, 0);
    ck_assert_ptr_null(ticket_end(slots[0], -EIO, &number, &flags));
    assert_completed(&t, 1, -EIO);
    ck_assert_ptr_null(ticket_end(slots[1], -ENOSPC, &number, &flags));
    assert_completed(&t, 3, 0);
    tickets_destroy(&t);
}
END_TEST

START_TEST(there_is_an_end_to_outstanding_tickets)
{
    static struct tickets t;
    static struct ticket_slot *slots[TICKETS_MAX];
    static int requests[TICKETS_MAX];
    uint64_t number;
    uint32_t flags;
    tickets_init(&t);
    for (uint64_t round = 0; round < 3; round++) {
        for (size_t i = 0; i < TICKETS_MAX; i++) {
            slots[i] = ticket_begin(&t, 0, &number);
            ck_assert_ptr_nonnull(slots[i]);
            ck_assert_uint_eq(number, round * TICKETS_MAX + i + 1);
            ck_assert(ticket_wait(slots[i], some_request(&requests[i])));
        }
        ck_assert_ptr_null(ticket_begin(&t, 0, &number));
        ck_assert_uint_eq(number, 0);
        size_t taken = 0;
        while (ticket_take_any_request(&t))
            taken++;
        ck_assert_uint_eq(taken, TICKETS_MAX);
        for (size_t i = TICKETS_MAX; i-- > 0;)
            ck_assert_ptr_null(ticket_end(slots[i], 0, &number, &flags));
        assert_completed(&t, (round + 1) * TICKETS_MAX, 0);
    }
    tickets_destroy(&t);
}
END_TEST

struct race {
    struct tickets *tickets;
    struct ticket_slot *slot;
    uint64_t ticket;
    int answers;
};

static void *
run_interrupt(void *argument)
{
    struct race *r = argument;
    struct ticket_slot *pinned;
    if (ticket_interrupt(r->tickets, r->ticket, &pinned)) {
        __atomic_add_fetch(&r->answers, 1, __ATOMIC_RELAXED);
        ticket_unpin(pinned);
    }
    return NULL;
}

static void *
run_end(void *argument)
{
    struct race *r = argument;
    uint64_t ticket;
    uint32_t flags;
    if (ticket_end(r->slot, 0, &ticket, &flags))
        __atomic_add_fetch(&r->answers, 1, __ATOMIC_RELAXED);
    return NULL;
}

START_TEST(racing_ends_and_interrupts_answer_once)
{
    static struct tickets t;
    int a;
    tickets_init(&t);
    for (int i = 0; i < 500; i++) {
        struct race r = {.tickets = &t};
        pthread_t threads[2];
        r.slot = ticket_begin(&t, 0, &r.ticket);
        ck_assert_ptr_nonnull(r.slot);
        ck_assert(ticket_wait(r.slot, some_request(&a)));
        ck_assert_int_eq(pthread_create(&threads[0], NULL, run_interrupt, &r), 0);
        ck_assert_int_eq(pthread_create(&threads[1], NULL, run_end, &r), 0);
        ck_assert_int_eq(pthread_join(threads[0], NULL), 0);
        ck_assert_int_eq(pthread_join(threads[1], NULL), 0);
        ck_assert_int_eq(r.answers, 1);
        assert_completed(&t, r.ticket, 0);
    }
    tickets_destroy(&t);
}
END_TEST

// ---- programs that are to end -------------------------------------------------------------------

// A status with these sets of signals: of the thread, of the process, and blocked.
static bool
wants_to_end(const char *thread, const char *process, const char *blocked)
{
    char status[400];
    snprintf(status, sizeof(status),
        "Name:\tShdPnd: 0000000000000100\nState:\tD (disk sleep)\nPid:\t7\nSigQ:\t1/31000\n"
        "SigPnd:\t%s\nShdPnd:\t%s\nSigBlk:\t%s\nSigIgn:\t0000000000001000\n",
        thread, process, blocked);
    return caller_status_wants_to_end(status);
}

START_TEST(signals_by_which_users_end_programs_count)
{
    const char *none = "0000000000000000";
    ck_assert(!wants_to_end(none, none, none));
    ck_assert(wants_to_end("0000000000000100", none, none)); // SIGKILL
    ck_assert(wants_to_end(none, "0000000000000002", none)); // SIGINT
    ck_assert(wants_to_end(none, "0000000000004000", none)); // SIGTERM
    ck_assert(wants_to_end("0000000000000004", none, none)); // SIGQUIT
    ck_assert(wants_to_end("0000000000000001", none, none)); // SIGHUP
    ck_assert(!wants_to_end(none, "0000000000000002", "0000000000000002"));
    // SIGALRM, SIGUSR1, SIGCHLD, real-time ones.
    ck_assert(!wants_to_end("0000000000002000", "fffffffc00010200", none));
    ck_assert(!caller_status_wants_to_end(""));
    // Nobody, and this process.
    ck_assert(!caller_wants_to_end(0) && !caller_wants_to_end((uint32_t)getpid()));
}
END_TEST

int
main(void)
{
    Suite *s = suite_create("fuse");
#define ADD(name) unit_add(s, #name, name, 30)
    ADD(fstab_lines_are_taken_as_mount_passes_them);
    ADD(switches_may_stand_anywhere);
    ADD(a_comma_in_a_value_is_escaped);
    ADD(relative_paths_become_absolute);
    ADD(wrong_command_lines_are_refused);
    ADD(no_allow_other_keeps_others_out);
    ADD(lists_come_apart_as_they_were_put_together);
    ADD(a_ticket_is_answered_by_its_end);
    ADD(an_interrupt_takes_the_request_from_the_end);
    ADD(an_early_interrupt_keeps_the_request_from_waiting);
    ADD(tickets_complete_in_order);
    ADD(there_is_an_end_to_outstanding_tickets);
    ADD(racing_ends_and_interrupts_answer_once);
    ADD(signals_by_which_users_end_programs_count);
    return unit_run(s);
}
