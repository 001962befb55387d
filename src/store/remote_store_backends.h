// SPDX-License-Identifier: Apache-2.0
// The stores one by one, for code that builds a stack by hand: remote_store_open() makes
// retry(backend); in a build with fault hooks (configure --enable-fault-hooks) it makes
// retry(fault(backend)) when CKPTFS_STORE_FAULTS or CKPTFS_STORE_TRACE names a file. Closing a
// store that wraps another one closes that one too.
#ifndef CKPTFS_STORE_REMOTE_STORE_BACKENDS_H
#define CKPTFS_STORE_REMOTE_STORE_BACKENDS_H

#include "platform/file.h"
#include "store/remote_store.h"

// ---- backends -----------------------------------------------------------------------------------

// A directory. `create` makes it and its parents; without it a missing directory shows as -ENXIO at
// the first call. `ops` are the file calls (&file_ops_system); they must outlive the store.
MUST_CHECK int file_store_open(const char *directory, bool create, const struct file_ops *ops,
    struct remote_store **store_out);

// A bucket of an S3 server; keys go below `prefix` ("": at the top). Reads the environment (AWS_*)
// now; contacts no server. -EINVAL with a text when the options make no sense.
MUST_CHECK int s3_store_open(const char *bucket, const char *prefix,
    const struct remote_store_options *options, struct remote_store **store_out);

// ---- retrying -----------------------------------------------------------------------------------

// The source of time and randomness for the retrying store; NULL in retry_store_wrap: the system.
struct retry_environment {
    uint64_t (*now_ms)(void *context); // comparable with remote_call.deadline_ms
    void (*sleep_ms)(void *context, uint64_t ms);
    uint64_t (*random)(void *context); // uniform over all 64 bits
    void *context;
};

// Before try n + 1 it sleeps a random time in [0, min(cap, base * 2^(n - 1))] ("full jitter").
// Zero members mean the defaults in parentheses.
struct retry_policy {
    uint64_t base_ms;           // (100)
    uint64_t cap_ms;            // (10000)
    uint64_t throttled_base_ms; // the same after -EBUSY (1000)
    uint64_t throttled_cap_ms;  // (30000)
    uint64_t total_ms;          // without a deadline: no new try after this time (120000)
};

// Retries -EAGAIN and -EBUSY, -EPROTO unless the call is fail_fast, and -EBADMSG of reads twice.
// A series of tries fails as one: with the last error when that is not worth retrying, else with
// -ETIMEDOUT; the text begins with the cause and tells how many tries were made. After -ETIMEDOUT a
// put or delete may or may not have happened. remote_store_trouble tells the failures meanwhile.
//
// A REMOTE_PUT_CREATE whose outcome was lost and whose repetition finds the object there compares
// it with the source: 0 when it holds exactly these bytes, else -EEXIST.
struct remote_store *retry_store_wrap(struct remote_store *inner, const struct retry_policy *policy,
    const struct retry_environment *environment);

// ---- fault injection ----------------------------------------------------------------------------

enum store_verb {
    STORE_VERB_ANY,
    STORE_VERB_PUT,
    STORE_VERB_GET,
    STORE_VERB_HEAD,
    STORE_VERB_LIST,
    STORE_VERB_DELETE,
    STORE_VERB_PROBE,
};

enum store_fault_kind {
    STORE_FAULT_FAIL,    // returns `error` and does nothing
    STORE_FAULT_SWALLOW, // does it and then says -EAGAIN, as if the answer was lost
    STORE_FAULT_CORRUPT, // flips one bit of the bytes that a get returns or a put stores
};

// Applies to the calls of `verb`, counted from 1 since the rule was added: from call `nth` on, for
// `times` calls (0: for ever).
struct store_fault {
    enum store_verb verb;
    enum store_fault_kind kind;
    uint64_t nth;
    uint64_t times;
    int error;              // STORE_FAULT_FAIL: negative
    const char *key_prefix; // only calls for keys that begin so are counted; NULL: all
};

// `script` may be NULL; else it is the path of a text file that is read before each call:
//     outage       every call fails with -EAGAIN
//     slow MS      every call waits so long first; with a blank and a text behind it, every call
//                  for a key that begins so
//     fail N       the N-th call fails as after many tries (-ETIMEDOUT), and is not carried out
//     refuse N     the N-th put or delete fails so
//     lose N       the N-th put or delete is carried out, and then fails so
// These count from the call on that sees the line first. A missing or empty file means healthy.
struct remote_store *fault_store_wrap(struct remote_store *inner, const char *script);
// Appends a line to the file `path` for each key that a call writes or deletes, so that tests can
// count across processes: "put KEY" and "delete KEY" before the call, "PUT KEY" and "DELETE KEY"
// when it has succeeded. 0 or -errno.
MUST_CHECK int fault_store_trace(struct remote_store *s, const char *path);
// `s` is the result of fault_store_wrap. Any thread. The rule is copied.
void fault_store_add(struct remote_store *s, const struct store_fault *fault);
void fault_store_clear(struct remote_store *s);
// While on, every call fails with -EAGAIN.
void fault_store_set_outage(struct remote_store *s, bool on);
// Calls of this verb that reached the store, failed ones included.
uint64_t fault_store_calls(struct remote_store *s, enum store_verb verb);

#endif
