// SPDX-License-Identifier: Apache-2.0
// ckptctl jobs, job, truncate, hydrate, variant and flags.
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/json_writer.h"
#include "base/similar.h"
#include "fuse/ckptctl.h"
#include "platform/clock.h"
#include "platform/file.h"

#define POLL_FIRST_MS 5u
#define POLL_MAX_MS   200u
#define WATCH_MS      1000u

// ---- jobs ---------------------------------------------------------------------------------------

static const char *
state_name(uint32_t state)
{
    static const char *const names[] = {"unknown", "Pending", "InFlight", "Completed", "Failed"};
    return names[state < sizeof(names) / sizeof(*names) ? state : 0];
}

static int
ask_job(int fd, uint32_t command, uint64_t id, struct ckptfs_job *out)
{
    *out = (struct ckptfs_job){.version = CKPTFS_ABI_VERSION, .command = command, .id = id};
    if (ioctl(fd, CKPTFS_IOC_JOB, out) < 0)
        return -errno;
    out->kind[sizeof(out->kind) - 1] = 0;
    out->stage[sizeof(out->stage) - 1] = 0;
    out->cause[sizeof(out->cause) - 1] = 0;
    return 0;
}

// `report` is a JSON object; "": there is none.
static void
write_job(struct json_writer *w, const struct ckptfs_job *job, const char *report)
{
    write_json_begin_object(w, NULL);
    write_json_u64(w, "id", job->id);
    write_json_string(w, "kind", job->kind);
    write_json_string(w, "state", state_name(job->state));
    write_json_string(w, "stage", job->stage);
    write_json_u64(w, "done", job->done);
    write_json_u64(w, "total", job->total);
    write_json_u64(w, "generation", job->generation);
    write_json_u64(w, "tries", job->tries);
    write_json_u64(w, "priority", job->priority);
    write_json_u64(w, "created_time_ms", job->created_ms);
    write_json_u64(w, "updated_time_ms", job->updated_ms);
    write_json_u64(w, "lease_expires_time_ms", job->lease_expires_ms);
    write_json_u64(w, "not_before_time_ms", job->not_before_ms);
    write_json_bool(w, "cancel_wanted", job->flags & CKPTFS_JOB_CANCEL_WANTED);
    write_json_i64(w, "error", job->error);
    write_json_string(w, "cause", job->cause);
    write_json_bool(w, "retryable", job->flags & CKPTFS_JOB_RETRYABLE);
    if (report[0])
        write_json_raw(w, "report", report);
    write_json_end_object(w);
}

static void
print_job_json(const struct ckptfs_job *job, const char *report, struct buffer *out)
{
    struct json_writer w = {.out = out};
    write_job(&w, job, report);
    buffer_append_string(out, "\n");
}

static void
print_job_line(const struct ckptfs_job *job, uint64_t now_ms, struct buffer *out)
{
    char age[32];
    print_age(now_ms > job->created_ms ? now_ms - job->created_ms : 0, age);
    buffer_printf(out, "%8" PRIu64 "  %-20s  %-9s  %-20s  ", (uint64_t)job->id, job->kind,
        state_name(job->state), job->stage);
    if (job->total > 0)
        buffer_printf(out, "%" PRIu64 " of %" PRIu64, (uint64_t)job->done, (uint64_t)job->total);
    else
        buffer_append_string(out, "-");
    buffer_printf(out, "  %s ago", age);
    if (job->cause[0])
        buffer_printf(out, "  %s", job->cause);
    buffer_append_string(out, "\n");
}

static void
print_job(const struct ckptfs_job *job, uint64_t now_ms, struct buffer *out)
{
    char age[32];
    buffer_printf(
        out, "job %" PRIu64 ": %s, %s\n", (uint64_t)job->id, job->kind, state_name(job->state));
    if (job->stage[0])
        buffer_printf(out, "stage      %s, %" PRIu64 " of %" PRIu64 "\n", job->stage,
            (uint64_t)job->done, (uint64_t)job->total);
    print_age(now_ms > job->created_ms ? now_ms - job->created_ms : 0, age);
    buffer_printf(out, "submitted  %s ago\n", age);
    print_age(now_ms > job->updated_ms ? now_ms - job->updated_ms : 0, age);
    buffer_printf(out, "heard of   %s ago\n", age);
    buffer_printf(out, "tries      %u\n", (unsigned)job->tries);
    if (job->cause[0])
        buffer_printf(out, "%s     %s%s\n", job->error < 0 ? "cause " : "result", job->cause,
            job->flags & CKPTFS_JOB_RETRYABLE ? " (it may pass)" : "");
    if (job->state == CKPTFS_JOB_PENDING && job->not_before_ms > now_ms) {
        print_age(job->not_before_ms - now_ms, age);
        buffer_printf(out, "goes on in %s\n", age);
    }
    if (job->flags & CKPTFS_JOB_CANCEL_WANTED)
        buffer_append_string(out, "somebody asked to cancel it\n");
}

// Appends all jobs; 0 or -errno.
static int
list_jobs(int fd, bool json, struct buffer *out)
{
    struct ckptfs_job job;
    struct json_writer w = {.out = out};
    uint64_t now_ms = clock_wall_ms();
    uint64_t id = 0;
    int rc;
    if (json)
        write_json_begin_array(&w, NULL);
    else
        buffer_printf(out, "%8s  %-20s  %-9s  %-20s  progress\n", "job", "kind", "state", "stage");
    while ((rc = ask_job(fd, CKPTFS_JOB_NEXT, id, &job)) == 0 && job.id > id) {
        id = job.id;
        if (json)
            write_job(&w, &job, "");
        else
            print_job_line(&job, now_ms, out);
    }
    if (json) {
        write_json_end_array(&w);
        buffer_append_string(out, "\n");
    }
    return rc == -ENOENT ? 0 : rc;
}

int
show_jobs(const char *path, bool json, bool watch)
{
    CLEANUP(file_close_auto) int fd = control_open(path);
    if (fd < 0)
        return EXIT_STATUS_ERROR;
    for (;;) {
        BUFFER_AUTO text = {0};
        if (watch && !json && isatty(STDOUT_FILENO))
            printf("\033[H\033[2J");
        int rc = list_jobs(fd, json, &text);
        if (rc < 0)
            return control_failed("jobs of", path, rc);
        int status = print_out(&text);
        if (!watch || status != EXIT_SUCCESS)
            return status;
        clock_sleep_ms(WATCH_MS);
    }
}

// What a VerifyManifest has found; other jobs, and daemons of before, have no report.
static void
ask_report(int fd, const struct ckptfs_job *job, bool json, struct buffer *report)
{
    char id[24];
    int result = 0;
    if (strcmp(job->kind, "VerifyManifest") != 0)
        return;
    snprintf(id, sizeof(id), "%" PRIu64, (uint64_t)job->id);
    const struct operation_request request = {.what = "report of",
        .kind = CKPTFS_OPERATION_JOB_REPORT,
        .flags = json ? CKPTFS_OPERATION_JSON : 0,
        .argument = id};
    if (ask_operation(fd, &request, report, &result) < 0 || result < 0)
        buffer_clear(report);
}

static bool
has_ended(const struct ckptfs_job *job)
{
    return job->state == CKPTFS_JOB_COMPLETED || job->state == CKPTFS_JOB_FAILED;
}

static int
wait_for_job(int fd, uint64_t id, struct ckptfs_job *job)
{
    uint64_t pause_ms = POLL_FIRST_MS;
    for (;;) {
        int rc = ask_job(fd, CKPTFS_JOB_LOOK, id, job);
        if (rc < 0 || has_ended(job))
            return rc;
        clock_sleep_ms(pause_ms);
        pause_ms = pause_ms * 2 < POLL_MAX_MS ? pause_ms * 2 : POLL_MAX_MS;
    }
}

static int
job_failed(const char *what, const char *path, uint64_t id, int rc)
{
    if (rc == -ENOENT)
        print_error("%s %s: there is no job %" PRIu64 " (any more)", what, path, id);
    else if (rc == -EALREADY)
        print_error(
            "%s %s: job %" PRIu64 " has ended, or cannot be stopped any more", what, path, id);
    else if (rc == -EROFS)
        print_error("%s %s: the mount is read-only", what, path);
    else
        return control_failed(what, path, rc);
    return EXIT_STATUS_ERROR;
}

// Prints a job that was waited for; its failure is the exit status.
static int
report_job(int fd, const struct ckptfs_job *job, bool json, bool quiet)
{
    BUFFER_AUTO text = {0};
    BUFFER_AUTO report = {0};
    bool good = job->state == CKPTFS_JOB_COMPLETED;
    ask_report(fd, job, json, &report);
    if (json)
        print_job_json(job, buffer_string(&report), &text);
    else if (report.length > 0)
        buffer_append_string(&text, buffer_string(&report));
    else if (good && !quiet)
        buffer_printf(&text, "job %" PRIu64 ": %s is completed%s%s\n", (uint64_t)job->id, job->kind,
            job->cause[0] ? ": " : "", job->cause);
    if (!good)
        print_error("job %" PRIu64 ", %s: %s", (uint64_t)job->id, job->kind,
            job->cause[0] ? job->cause : strerror(-job->error));
    int status = text.length > 0 ? print_out(&text) : EXIT_SUCCESS;
    // VerifyManifest has found damage.
    int failure = job->error == -EBADMSG ? EXIT_STATUS_DAMAGED : EXIT_STATUS_ERROR;
    return good ? status : failure;
}

// Waits for a job that was just submitted, or prints its number.
static int
follow_job(int fd, uint64_t id, const struct job_order *order)
{
    struct ckptfs_job job;
    BUFFER_AUTO out = {0};
    int rc = order->no_wait ? ask_job(fd, CKPTFS_JOB_LOOK, id, &job) : wait_for_job(fd, id, &job);
    if (rc < 0)
        return job_failed(order->kind, order->path, id, rc);
    if (!order->no_wait)
        return report_job(fd, &job, order->json, order->quiet);
    if (order->json)
        print_job_json(&job, "", &out);
    else if (!order->quiet)
        buffer_printf(&out, "job %" PRIu64 "\n", id);
    return out.length > 0 ? print_out(&out) : EXIT_SUCCESS;
}

int
submit_job(const struct job_order *order)
{
    struct ckptfs_job io = {
        .version = CKPTFS_ABI_VERSION,
        .command = CKPTFS_JOB_SUBMIT,
        .options = order->data ? CKPTFS_JOB_DATA : 0,
    };
    if (strlen(order->kind) >= sizeof(io.kind)) {
        print_error("\"%s\" is no kind of job", order->kind);
        return EXIT_STATUS_USAGE;
    }
    memcpy(io.kind, order->kind, strlen(order->kind));
    CLEANUP(file_close_auto) int fd = control_open(order->path);
    if (fd < 0)
        return EXIT_STATUS_ERROR;
    if (ioctl(fd, CKPTFS_IOC_JOB, &io) < 0) {
        if (errno != EINVAL)
            return job_failed(order->kind, order->path, 0, -errno);
        print_error("\"%s\" is no kind of job that a user can start", order->kind);
        return EXIT_STATUS_USAGE;
    }
    return follow_job(fd, io.id, order);
}

int
handle_job(const char *id_text, const char *path, enum job_verb verb, bool json)
{
    char *end;
    errno = 0;
    uint64_t id = strtoull(id_text, &end, 10);
    if (id_text[0] < '0' || id_text[0] > '9' || *end != 0 || errno != 0 || id == 0) {
        print_error("\"%s\" is not the number of a job", id_text);
        return EXIT_STATUS_USAGE;
    }
    CLEANUP(file_close_auto) int fd = control_open(path);
    if (fd < 0)
        return EXIT_STATUS_ERROR;
    struct ckptfs_job job;
    BUFFER_AUTO text = {0};
    int rc = verb == JOB_VERB_CANCEL ? ask_job(fd, CKPTFS_JOB_CANCEL, id, &job)
             : verb == JOB_VERB_WAIT ? wait_for_job(fd, id, &job)
                                     : ask_job(fd, CKPTFS_JOB_LOOK, id, &job);
    if (rc < 0)
        return job_failed("job of", path, id, rc);
    if (verb == JOB_VERB_CANCEL)
        return EXIT_SUCCESS;
    if (verb == JOB_VERB_WAIT)
        return report_job(fd, &job, json, false);
    BUFFER_AUTO report = {0};
    ask_report(fd, &job, json, &report);
    if (json) {
        print_job_json(&job, buffer_string(&report), &text);
        return print_out(&text);
    }
    print_job(&job, clock_wall_ms(), &text);
    buffer_append_string(&text, buffer_string(&report));
    return print_out(&text);
}

// ---- truncation ---------------------------------------------------------------------------------

// A number of bytes with K, M, G or T behind it.
static bool
read_bytes_of(const char *text, uint64_t *bytes_out)
{
    static const char letters[] = "KMGT";
    char *end;
    errno = 0;
    uint64_t n = strtoull(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || errno != 0)
        return false;
    const char *letter = *end ? strchr(letters, *end) : NULL;
    unsigned shift = letter ? 10 * (unsigned)(letter - letters + 1) : 0;
    if (letter)
        end++;
    if (*end != 0 || n > (uint64_t)INT64_MAX >> shift)
        return false;
    *bytes_out = n << shift;
    return true;
}

static int
truncation_failed(const char *path, int rc)
{
    const char *why = NULL;
    if (rc == -EOPNOTSUPP)
        why = "append-only truncation is turned off for this volume (ckptctl flags)";
    else if (rc == -EMEDIUMTYPE)
        why = "the file is not append-only; say that it is with ckptctl variant --set append-only";
    else if (rc == -EINVAL)
        why = "it is no file, the offset lies behind its end, or the head's offset is no multiple "
              "of 64M";
    else if (rc == -EBUSY)
        why = "another truncation of the file is under way (ckptctl jobs)";
    else if (rc == -EROFS)
        why = "the mount is read-only";
    else if (rc == -EPERM)
        why = "only the file's owner, the volume's and root may do that, and not to an immutable "
              "file";
    if (!why)
        return control_failed("truncate", path, rc);
    print_error("truncate %s: %s", path, why);
    return EXIT_STATUS_ERROR;
}

int
truncate_file(const struct truncate_request *request)
{
    struct ckptfs_truncate io = {.version = CKPTFS_ABI_VERSION,
        .side = request->tail ? CKPTFS_TRUNCATE_TAIL : CKPTFS_TRUNCATE_HEAD};
    uint64_t offset;
    if ((request->head != NULL) == (request->tail != NULL)) {
        print_error("truncate needs --head OFFSET or --tail OFFSET");
        return EXIT_STATUS_USAGE;
    }
    const char *text = request->tail ? request->tail : request->head;
    if (!read_bytes_of(text, &offset)) {
        print_error("\"%s\" is no number of bytes", text);
        return EXIT_STATUS_USAGE;
    }
    io.offset = offset;
    CLEANUP(file_close_auto) int fd = control_open(request->path);
    if (fd < 0)
        return EXIT_STATUS_ERROR;
    if (ioctl(fd, CKPTFS_IOC_TRUNCATE, &io) < 0)
        return truncation_failed(request->path, -errno);
    const struct job_order order = {.path = request->path,
        .kind = "truncate",
        .no_wait = request->no_wait,
        .json = request->json,
        .quiet = request->quiet};
    return follow_job(fd, io.job, &order);
}

// ---- hydration ----------------------------------------------------------------------------------

static volatile sig_atomic_t interrupted;

static void
note_interrupt(int signal UNUSED)
{
    interrupted = 1;
}

void
watch_interrupts(void)
{
    const struct sigaction action = {.sa_handler = note_interrupt};
    (void)sigaction(SIGINT, &action, NULL);
}

bool
was_interrupted(void)
{
    return interrupted;
}

void
show_done_bytes(uint64_t done_bytes, uint64_t total_bytes)
{
    if (total_bytes > 0)
        fprintf(stderr, "\r%" PRIu64 " of %" PRIu64 " MiB ", done_bytes >> 20, total_bytes >> 20);
}

void
end_done_bytes(void)
{
    fprintf(stderr, "\r%40s\r", "");
}

// Waits for the end of the job, and asks for it when the user interrupts.
static int
watch_hydration(int fd, uint64_t id, bool show, struct ckptfs_job *job)
{
    bool asked = false;
    uint64_t pause_ms = POLL_FIRST_MS;
    int rc;
    while ((rc = ask_job(fd, CKPTFS_JOB_LOOK, id, job)) == 0 && !has_ended(job)) {
        struct ckptfs_job ignored;
        if (interrupted && !asked) {
            rc = ask_job(fd, CKPTFS_JOB_CANCEL, id, &ignored);
            asked = true;
        }
        if (rc < 0 && rc != -EALREADY)
            return rc;
        if (show)
            show_done_bytes(job->done, job->total);
        clock_sleep_ms(pause_ms);
        pause_ms = pause_ms * 2 < POLL_MAX_MS ? pause_ms * 2 : POLL_MAX_MS;
    }
    if (show)
        end_done_bytes();
    return rc;
}

static int
hydration_failed(const char *path, int rc)
{
    if (rc == -EINVAL)
        print_error("%s is no file; give --all to fetch all of the volume", path);
    else if (rc == -EROFS)
        print_error("hydrate %s: the mount is read-only", path);
    else
        return control_failed("hydrate", path, rc);
    return rc == -EINVAL ? EXIT_STATUS_USAGE : EXIT_STATUS_ERROR;
}

int
hydrate_files(const struct hydrate_request *request)
{
    struct ckptfs_hydrate io = {.version = CKPTFS_ABI_VERSION,
        .flags = request->hot ? CKPTFS_HYDRATE_HOT
                              : (request->all ? CKPTFS_HYDRATE_ALL : 0) |
                                    (request->keep ? CKPTFS_HYDRATE_KEEP : 0)};
    CLEANUP(file_close_auto) int fd = control_open(request->path);
    if (fd < 0)
        return EXIT_STATUS_ERROR;
    bool show = !request->quiet && !request->json && isatty(STDERR_FILENO);
    struct ckptfs_job job;
    if (ioctl(fd, CKPTFS_IOC_HYDRATE, &io) < 0)
        return hydration_failed(request->path, -errno);
    if (!request->no_wait)
        watch_interrupts();
    int rc = request->no_wait ? ask_job(fd, CKPTFS_JOB_LOOK, io.job, &job)
                              : watch_hydration(fd, io.job, show, &job);
    if (rc < 0)
        return job_failed("hydrate", request->path, io.job, rc);
    if (!request->no_wait && (request->json || job.state == CKPTFS_JOB_FAILED))
        return report_job(fd, &job, request->json, request->quiet);
    BUFFER_AUTO out = {0};
    if (request->json)
        print_job_json(&job, "", &out);
    else if (request->no_wait && !request->quiet)
        buffer_printf(&out, "job %" PRIu64 "\n", (uint64_t)io.job);
    else if (request->hot && !request->quiet)
        buffer_printf(&out, "%.*s\n", (int)sizeof(job.cause), job.cause);
    else if (!request->quiet)
        buffer_printf(&out, "%" PRIu64 " bytes are here\n", (uint64_t)job.done);
    return out.length > 0 ? print_out(&out) : EXIT_SUCCESS;
}

// ---- variant ------------------------------------------------------------------------------------

static const char *const variants[] = {"detect", "append-only", "random"};

int
handle_variant(const char *path, const char *set, bool json)
{
    struct ckptfs_variant io = {.version = CKPTFS_ABI_VERSION};
    if (set) {
        io.flags = CKPTFS_VARIANT_SET;
        while (io.variant < 3 && strcmp(set, variants[io.variant]) != 0)
            io.variant++;
        if (io.variant == 3) {
            print_error("\"%s\" is no variant: detect, append-only, random", set);
            return EXIT_STATUS_USAGE;
        }
    }
    CLEANUP(file_close_auto) int fd = control_open(path);
    if (fd < 0)
        return EXIT_STATUS_ERROR;
    if (ioctl(fd, CKPTFS_IOC_VARIANT, &io) < 0)
        return control_failed("variant of", path, -errno);
    if (set && !json)
        return EXIT_SUCCESS;
    BUFFER_AUTO out = {0};
    const char *name = io.variant < 3 ? variants[io.variant] : "unknown";
    if (json) {
        struct json_writer w = {.out = &out};
        write_json_begin_object(&w, NULL);
        write_json_string(&w, "source_variant", name);
        write_json_end_object(&w);
    } else {
        buffer_printf(&out, "%s", name);
    }
    buffer_printf(&out, "\n");
    return print_out(&out);
}

// ---- flags --------------------------------------------------------------------------------------

static const struct {
    uint32_t flag;
    const char *name;
} flag_names[] = {{CKPTFS_FLAG_CHECKPOINTS, "enable_checkpoints"},
    {CKPTFS_FLAG_CHUNK_DELTAS, "enable_chunk_deltas"},
    {CKPTFS_FLAG_APPEND_ONLY_TRUNCATION, "enable_append_only_truncation"},
    {CKPTFS_FLAG_COLD_SCAN, "enable_cold_scan"}, {CKPTFS_FLAG_COLD_SCAN_ALL, "cold_scan_all"}};

// "NAME=on" or "NAME=off"
static int
read_flag(const char *text, struct ckptfs_flags *io)
{
    const char *equals = strchr(text, '=');
    size_t n = equals ? (size_t)(equals - text) : strlen(text);
    for (size_t i = 0; i < sizeof(flag_names) / sizeof(*flag_names); i++) {
        if (strlen(flag_names[i].name) != n || strncmp(text, flag_names[i].name, n) != 0)
            continue;
        io->change = flag_names[i].flag;
        bool on = equals && strcmp(equals + 1, "on") == 0;
        if (on)
            io->flags = io->change;
        if (on || (equals && strcmp(equals + 1, "off") == 0))
            return 0;
        print_error("say %s=on or %s=off", flag_names[i].name, flag_names[i].name);
        return -EINVAL;
    }
    print_error("there is no flag \"%.*s\"; ckptctl flags lists them", (int)n, text);
    return -EINVAL;
}

int
handle_flags(const char *path, const char *set, bool json)
{
    struct ckptfs_flags io = {.version = CKPTFS_ABI_VERSION};
    if (set && read_flag(set, &io) < 0)
        return EXIT_STATUS_USAGE;
    CLEANUP(file_close_auto) int fd = control_open(path);
    if (fd < 0)
        return EXIT_STATUS_ERROR;
    if (ioctl(fd, CKPTFS_IOC_FLAGS, &io) < 0)
        return control_failed("flags of", path, -errno);
    if (set && !json)
        return EXIT_SUCCESS;
    BUFFER_AUTO out = {0};
    struct json_writer w = {.out = &out};
    if (json)
        write_json_begin_object(&w, NULL);
    for (size_t i = 0; i < sizeof(flag_names) / sizeof(*flag_names); i++) {
        bool on = io.flags & flag_names[i].flag;
        if (!(io.known & flag_names[i].flag))
            continue; // of an older daemon
        if (json)
            write_json_bool(&w, flag_names[i].name, on);
        else
            buffer_printf(&out, "%s %s\n", flag_names[i].name, on ? "on" : "off");
    }
    if (json) {
        write_json_end_object(&w);
        buffer_append_string(&out, "\n");
    }
    return print_out(&out);
}
