// SPDX-License-Identifier: Apache-2.0
// Shared by the files of ckptctl. One thread, but for the progress line.
#ifndef CKPTFS_FUSE_CKPTCTL_H
#define CKPTFS_FUSE_CKPTCTL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buffer.h"
#include "base/compiler.h"
#include "fuse/ckptfs_ioctl.h"

#define EXIT_STATUS_USAGE      1
#define EXIT_STATUS_ERROR      2
#define EXIT_STATUS_UNFINISHED 3 // it goes on without ckptctl
#define EXIT_STATUS_DAMAGED    4 // verify or status --check found damage
#define EXIT_STATUS_FENCED     5 // these are of status --check
#define EXIT_STATUS_READ_ONLY  6
#define EXIT_STATUS_UNCLAIMED  7
#define EXIT_STATUS_STALE      8

// ---- control: the mount -------------------------------------------------------------------------

// Opens any path of a mount for control. The descriptor, or -errno and a message on stderr.
MUST_CHECK int control_open(const char *path);
// 0 or -errno; -ENOTTY when the path is not on a ckptfs.
MUST_CHECK int control_status(int fd, struct ckptfs_status *status_out);
// As control_status.
MUST_CHECK int control_metrics(int fd, struct ckptfs_metrics *metrics_out);
// As control_status. With an old daemon that does not know the request: 0 and no lost bytes.
MUST_CHECK int control_lost(int fd, struct ckptfs_lost *lost_out);
MUST_CHECK int control_fuse_requests(int fd, struct ckptfs_fuse_requests *requests_out);
// Fills in generation and ticket.
MUST_CHECK int control_checkpoint(int fd, uint32_t flags, struct ckptfs_checkpoint *checkpoint_out);
// Fills in the ticket.
MUST_CHECK int control_check(int fd, struct ckptfs_check *check_out);
// Prints on stderr why `what` failed on `path`; returns the exit status.
int control_failed(const char *what, const char *path, int rc);

// The same for a checkpoint that the daemon began and could not do.
int control_checkpoint_failed(const char *path, int fd, int rc);

// ---- check --------------------------------------------------------------------------------------

// Makes the daemon look through the manifest, waits for that and prints the result. Returns the
// exit status.
int check_volume(const char *path, bool json, bool quiet);

// ---- the life of data ---------------------------------------------------------------------------

struct operation_request {
    const char *what;     // for messages: "gc of"
    uint32_t kind, flags; // CKPTFS_OPERATION_*
    const char *argument;
    bool show;  // the progress, on a terminal
    bool quiet; // no output after success
};
// Sends it to the daemon, waits, and prints the daemon's text. After watch_interrupts an interrupt
// stops it. Returns the exit status.
int run_operation(const char *path, const struct operation_request *request);
// The same without printing: the daemon's text, and its result. 0, or -errno of the ioctls.
int ask_operation(
    int fd, const struct operation_request *request, struct buffer *text, int *result_out);
// Makes a checkpoint and gives it a name. Returns the exit status.
int create_snapshot(const char *name, const char *path, uint32_t flags);
// Shows the quota, or with a size sets that of the volume, or of `of`: "tenant", "root" or "jobs".
// Returns the exit status.
int control_quota(const char *path, const char *size, const char *of, uint32_t flags);
struct evict_request {
    const char *path;
    bool all, json, quiet;
};
// Evicts copies of a file, or all, and waits for that with progress on a terminal. An interrupt
// stops it. Returns the exit status.
int control_evict(const struct evict_request *evict);

// ---- jobs, truncation, variants, flags ----------------------------------------------------------

// Each returns the exit status.

// `watch`: again and again, until it is interrupted.
int show_jobs(const char *path, bool json, bool watch);

struct hydrate_request {
    const char *path;
    bool all, hot, keep, no_wait, json, quiet;
};
// From now on an interrupt (^C) is noted and does not end the program.
void watch_interrupts(void);
bool was_interrupted(void);
// The line of progress on a terminal's standard error, and its end.
void show_done_bytes(uint64_t done_bytes, uint64_t total_bytes);
void end_done_bytes(void);
// Brings a file or all files to the local disk, and waits for that with progress on a terminal. An
// interrupt ends the job.
int hydrate_files(const struct hydrate_request *request);

enum job_verb { JOB_VERB_SHOW, JOB_VERB_WAIT, JOB_VERB_CANCEL };
int handle_job(const char *id, const char *path, enum job_verb verb, bool json);

// Submits a job of this kind ("VerifyManifest", ...) and waits for its end, unless `no_wait`.
struct job_order {
    const char *path;
    const char *kind;
    bool data; // VerifyManifest: read every blob
    bool no_wait, json, quiet;
};
int submit_job(const struct job_order *order);

struct truncate_request {
    const char *path;
    const char *head, *tail; // an offset as text in one of them
    bool no_wait, json, quiet;
};
int truncate_file(const struct truncate_request *request);

// `set` is NULL to show it.
int handle_variant(const char *path, const char *set, bool json);
int handle_flags(const char *path, const char *set, bool json);

// ---- reading from the store ---------------------------------------------------------------------

// Writes the file to standard output, past all caches. The exit status.
int cat_file(const char *path, bool quiet);
// Shows the limits, or with "NAME=VALUE" sets one. The exit status.
int handle_limits(const char *path, const char *set, bool json);

// ---- the change log -----------------------------------------------------------------------------

struct changes_request {
    const char *path;
    const char *name;  // of the subscriber; "": none
    const char *after; // the number of a change, or NULL
    bool follow;       // until it is interrupted
    bool leave;        // take the subscriber away
};
// Prints changes, one JSON object a line. The exit status.
int show_changes(const struct changes_request *request);

// ---- volumes in the store -----------------------------------------------------------------------

struct volume_config;

// Carries out a command of ckptctl_offline.c, with config->source as SOURCE. The exit status.
struct offline_request {
    const struct volume_config *config;
    bool json, quiet;
    bool yes; // without asking the user
    bool data, repair, partial;
    const char *root; // or NULL
};
int destroy_volume(const struct offline_request *request);
int detach_fork(const struct offline_request *request);
int verify_volume(const struct offline_request *request);
int push_root(const struct offline_request *request);

// ---- unmount and storage roots ------------------------------------------------------------------

struct unmount_request {
    const char *path;
    int64_t wait_seconds; // for the daemon's end; -1: without limit
    bool quiet;
    bool json;
};
// Unmounts, waits for the end of the daemon, and tells whether everything is in the store. Returns
// the exit status.
int unmount_volume(const struct unmount_request *request);
// Prints the volumes of the storage root, mounted or not. Returns the exit status.
int print_root(const char *root, bool json);

// ---- monitoring ---------------------------------------------------------------------------------

struct status_request {
    const char *path;
    const char *root; // NULL: the mount of `path`
    bool json;
    bool fuse;               // the requests of the kernel instead
    bool check;              // only whether it is well
    int64_t max_age_seconds; // check: of the oldest change not in the store; -1: any is good
};
// Shows the state of a mount or of a storage root. Returns the exit status.
int show_status(const struct status_request *request);

struct metrics_request {
    const char *path;
    const char *root;     // NULL: those of the mount of `path`
    const char *textfile; // NULL: standard output
};
// Writes the numbers in the text format of Prometheus. Returns the exit status.
int show_metrics(const struct metrics_request *request);

// ---- progress: a line on the terminal -----------------------------------------------------------

struct progress;

// Shows the progress of the mount of `fd` until progress_stop. NULL when there is no terminal or no
// thread for it: callers ignore that.
struct progress *progress_start(int fd);
// Removes the line; NULL is fine.
void progress_stop(struct progress *p);

// ---- print --------------------------------------------------------------------------------------

// "1.5 GiB"; `text_out` has at least 32 bytes, as for the others.
// Shows a line of progress on the terminal in the place of the one before, cut to the terminal's
// width: a longer one could not be taken back. The most important part comes first.
void print_progress(struct buffer *line);
// Appends "retrying, N errors, last: CAUSE".
void print_retries(struct buffer *out, uint64_t errors, const char *cause);
void print_size(uint64_t bytes, char text_out[32]);
// "3m 20s"
void print_age(uint64_t ms, char text_out[32]);
const char *print_stage_name(uint32_t stage);
// Appends how far the upload is, how fast it was so far, and how long it may take.
void print_upload(
    const struct ckptfs_status *status, const struct ckptfs_metrics *metrics, struct buffer *out);
// A line of a status: a generation and its age.
void print_generation(
    struct buffer *out, const char *name, uint64_t generation, uint64_t time_ms, uint64_t now_ms);
// A message on stderr, after "ckptctl: ".
void print_error(const char *format, ...) PRINTF_LIKE(1, 2);
// A line with a JSON object of one number.
void print_json_number(struct buffer *out, const char *key, uint64_t value);
// Writes to standard output; returns the exit status. Both show control characters as \xNN.
int print_out(struct buffer *text);
// 0 for one that the daemon does not have.
uint64_t print_metric(const struct ckptfs_metrics *metrics, const char *name);
// Whether the last attempt at a checkpoint or publication failed: last_error tells about one that
// is over, too.
bool print_has_failed(const struct ckptfs_metrics *metrics);
void print_status(const struct ckptfs_status *status, const struct ckptfs_metrics *metrics,
    uint64_t now_ms, struct buffer *out);
void print_status_json(const struct ckptfs_status *status, const struct ckptfs_metrics *metrics,
    const struct ckptfs_lost *lost, struct buffer *out);
// A line of a status, if anything is lost.
void print_lost(const struct ckptfs_lost *lost, struct buffer *out);
// The kernel's name of a FUSE request, or one made of its number in `text`.
const char *print_opcode(size_t opcode, char text[32]);
void print_fuse_requests(const struct ckptfs_fuse_requests *requests, struct buffer *out);
void print_fuse_requests_json(const struct ckptfs_fuse_requests *requests, struct buffer *out);
void print_checkpoint_json(const struct ckptfs_checkpoint *checkpoint,
    const struct ckptfs_status *status, struct buffer *out);

#endif
