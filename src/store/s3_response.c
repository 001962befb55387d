// SPDX-License-Identifier: Apache-2.0
// The only file that knows expat.
#include "store/s3_response.h"

#include <errno.h>
#include <expat.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "platform/memory.h"
#include "store/store_internal.h"
#include "store/store_time.h"

#define DEPTH_MAX      8
#define TEXT_MAX_BYTES (16u * 1024)
#define PATH_MAX_BYTES 512

// ---- walking ------------------------------------------------------------------------------------

// Called at the end of each element with its path from the root ("A/B/C") and its own text.
typedef void element_function(void *context, const char *path, const char *text);

struct walk {
    XML_Parser parser;
    element_function *each;
    void *context;
    struct buffer path;
    struct buffer text;
    unsigned depth;
    bool bad;
};

static void
stop(struct walk *w)
{
    w->bad = true;
    XML_StopParser(w->parser, XML_FALSE);
}

static void XMLCALL
on_begin(void *p, const XML_Char *name, const XML_Char **attributes UNUSED)
{
    struct walk *w = p;
    w->depth++;
    buffer_clear(&w->text);
    buffer_printf(&w->path, "%s%s", w->path.length > 0 ? "/" : "", name);
    if (w->depth > DEPTH_MAX || w->path.length > PATH_MAX_BYTES)
        stop(w);
}

static void XMLCALL
on_end(void *p, const XML_Char *name)
{
    struct walk *w = p;
    w->each(w->context, buffer_string(&w->path), buffer_string(&w->text));
    w->depth--;
    size_t cut = strlen(name) + (w->depth > 0);
    w->path.length -= cut <= w->path.length ? cut : w->path.length;
    buffer_clear(&w->text);
}

static void XMLCALL
on_text(void *p, const XML_Char *text, int length)
{
    struct walk *w = p;
    if (w->text.length + (size_t)length > TEXT_MAX_BYTES)
        stop(w);
    else
        buffer_append(&w->text, text, (size_t)length);
}

static void XMLCALL
on_document_type(void *p, const XML_Char *name UNUSED, const XML_Char *system UNUSED,
    const XML_Char *public UNUSED, int has_subset UNUSED)
{
    stop(p);
}

static int
walk_xml(const void *p, size_t n, element_function *each, void *context)
{
    struct walk w = {.each = each, .context = context};
    if (n > S3_ANSWER_MAX_BYTES)
        return -EBADMSG;
    const char *text = p; // expat wants the declaration first
    for (; n > 0 && s3_is_blank((uint8_t)*text); n--)
        text++;
    w.parser = XML_ParserCreate("UTF-8");
    if (!w.parser)
        abort();
    XML_SetUserData(w.parser, &w);
    XML_SetElementHandler(w.parser, on_begin, on_end);
    XML_SetCharacterDataHandler(w.parser, on_text);
    XML_SetStartDoctypeDeclHandler(w.parser, on_document_type);
    if (XML_Parse(w.parser, n > 0 ? text : "", (int)n, 1) != XML_STATUS_OK)
        w.bad = true;
    XML_ParserFree(w.parser);
    buffer_free(&w.path);
    buffer_free(&w.text);
    return w.bad ? -EBADMSG : 0;
}

static bool
is(const char *path, const char *wanted)
{
    return strcmp(path, wanted) == 0;
}

static void
keep(char *out, size_t size, const char *text)
{
    BUFFER_AUTO clean = {0};
    store_append_printable(&clean, text, strlen(text), size - 4);
    snprintf(out, size, "%s", buffer_string(&clean));
}

static void
keep_string(char **out, const char *text)
{
    free(*out);
    *out = memory_string(text);
}

static bool
parse_size(const char *text, uint64_t *size_out)
{
    char *end;
    if (*text < '0' || *text > '9')
        return false;
    errno = 0;
    *size_out = strtoull(text, &end, 10);
    return errno == 0 && *end == 0;
}

// ---- errors -------------------------------------------------------------------------------------

static void
error_field(struct s3_error *e, const char *name, const char *text)
{
    if (is(name, "Code"))
        keep(e->code, sizeof(e->code), text);
    else if (is(name, "Message"))
        keep(e->message, sizeof(e->message), text);
    else if (is(name, "Region"))
        keep(e->region, sizeof(e->region), text);
    else if (is(name, "RequestId"))
        keep(e->request_id, sizeof(e->request_id), text);
}

struct error_walk {
    struct s3_error *error;
    bool found;
};

static void
on_error_element(void *context, const char *path, const char *text)
{
    struct error_walk *w = context;
    if (strncmp(path, "ErrorResponse/", 14) == 0)
        path += 14;
    if (strncmp(path, "Error/", 6) == 0)
        error_field(w->error, path + 6, text);
    else if (is(path, "RequestId"))
        error_field(w->error, path, text);
    w->found |= is(path, "Error");
}

int
s3_parse_error(const void *p, size_t n, struct s3_error *error_out)
{
    struct error_walk w = {.error = error_out};
    *error_out = (struct s3_error){0};
    int rc = walk_xml(p, n, on_error_element, &w);
    if (rc == 0 && (!w.found || !error_out->code[0]))
        rc = -EBADMSG;
    if (rc < 0)
        *error_out = (struct s3_error){0};
    return rc;
}

// ---- listings -----------------------------------------------------------------------------------

struct list_walk {
    struct s3_list_page *page;
    struct buffer key;
    uint64_t size;
    bool has_key;
    bool has_size;
    bool bad;
    bool done;
};

static void
on_list_element(void *context, const char *path, const char *text)
{
    struct list_walk *w = context;
    w->done |= is(path, "ListBucketResult");
    if (strncmp(path, "ListBucketResult/", 17) != 0)
        return;
    path += 17;
    if (is(path, "IsTruncated")) {
        w->page->listing.more = is(text, "true");
        w->bad |= !is(text, "true") && !is(text, "false");
    } else if (is(path, "NextContinuationToken")) {
        buffer_clear(&w->page->token);
        buffer_append_string(&w->page->token, text);
    } else if (is(path, "Contents/Key")) {
        buffer_clear(&w->key);
        buffer_append_string(&w->key, text);
        w->has_key = w->key.length > 0;
    } else if (is(path, "Contents/Size")) {
        w->has_size = parse_size(text, &w->size);
    } else if (is(path, "Contents")) {
        if (w->has_key && w->has_size)
            store_listing_append(&w->page->listing, buffer_string(&w->key), w->key.length, w->size);
        else
            w->bad = true;
        w->has_key = w->has_size = false;
    }
}

int
s3_parse_list(const void *p, size_t n, struct s3_list_page *page_out)
{
    struct list_walk w = {.page = page_out};
    *page_out = (struct s3_list_page){0};
    int rc = walk_xml(p, n, on_list_element, &w);
    buffer_free(&w.key);
    if (rc == 0 && (w.bad || !w.done))
        rc = -EBADMSG;
    if (rc < 0)
        s3_list_page_free(page_out);
    return rc;
}

void
s3_list_page_free(struct s3_list_page *page)
{
    remote_listing_free(&page->listing);
    buffer_free(&page->token);
}

// ---- deletions ----------------------------------------------------------------------------------

struct delete_walk {
    struct s3_error now;
    struct buffer now_key;
    struct s3_error *first;
    struct buffer *first_key;
    size_t count;
    bool done;
};

static void
on_delete_element(void *context, const char *path, const char *text)
{
    struct delete_walk *w = context;
    w->done |= is(path, "DeleteResult");
    if (is(path, "DeleteResult/Error/Key")) {
        buffer_clear(&w->now_key);
        buffer_append_string(&w->now_key, text);
    } else if (strncmp(path, "DeleteResult/Error/", 19) == 0) {
        error_field(&w->now, path + 19, text);
    } else if (is(path, "DeleteResult/Error")) {
        if (!is(w->now.code, "NoSuchKey") && w->count++ == 0) {
            *w->first = w->now;
            buffer_clear(w->first_key);
            buffer_append(w->first_key, w->now_key.data, w->now_key.length);
        }
        w->now = (struct s3_error){0};
        buffer_clear(&w->now_key);
    }
}

int
s3_parse_delete(
    const void *p, size_t n, struct s3_error *error_out, struct buffer *key_out, size_t *count_out)
{
    struct delete_walk w = {.first = error_out, .first_key = key_out};
    *error_out = (struct s3_error){0};
    int rc = walk_xml(p, n, on_delete_element, &w);
    buffer_free(&w.now_key);
    *count_out = w.count;
    return rc < 0 || w.done ? rc : -EBADMSG;
}

// ---- multipart ----------------------------------------------------------------------------------

static void
on_upload_id_element(void *context, const char *path, const char *text)
{
    struct buffer *id = context;
    if (!is(path, "InitiateMultipartUploadResult/UploadId"))
        return;
    buffer_clear(id);
    buffer_append_string(id, text);
}

int
s3_parse_upload_id(const void *p, size_t n, struct buffer *id_out)
{
    buffer_clear(id_out);
    int rc = walk_xml(p, n, on_upload_id_element, id_out);
    return rc < 0 || id_out->length > 0 ? rc : -EBADMSG;
}

static void
on_complete_element(void *context, const char *path, const char *text UNUSED)
{
    bool *done = context;
    *done |= is(path, "CompleteMultipartUploadResult");
}

int
s3_parse_complete(const void *p, size_t n)
{
    bool done = false;
    int rc = walk_xml(p, n, on_complete_element, &done);
    return rc < 0 || done ? rc : -EBADMSG;
}

struct uploads_walk {
    s3_upload_function *each;
    void *context;
    struct buffer key;
    struct buffer id;
    uint64_t initiated_ms;
    bool has_time;
};

static void
on_uploads_element(void *context, const char *path, const char *text)
{
    struct uploads_walk *w = context;
    if (strncmp(path, "ListMultipartUploadsResult/Upload", 33) != 0)
        return;
    path += 33;
    if (is(path, "/Key")) {
        buffer_clear(&w->key);
        buffer_append_string(&w->key, text);
    } else if (is(path, "/UploadId")) {
        buffer_clear(&w->id);
        buffer_append_string(&w->id, text);
    } else if (is(path, "/Initiated")) {
        w->has_time = time_parse_iso8601(text, &w->initiated_ms) == 0;
    } else if (is(path, "")) {
        if (w->key.length > 0 && w->id.length > 0 && w->has_time)
            w->each(w->context, buffer_string(&w->key), buffer_string(&w->id), w->initiated_ms);
        buffer_clear(&w->key);
        buffer_clear(&w->id);
        w->has_time = false;
    }
}

int
s3_parse_uploads(const void *p, size_t n, s3_upload_function *each, void *context)
{
    struct uploads_walk w = {.each = each, .context = context};
    int rc = walk_xml(p, n, on_uploads_element, &w);
    buffer_free(&w.key);
    buffer_free(&w.id);
    return rc;
}

// ---- STS ----------------------------------------------------------------------------------------

struct role_walk {
    struct s3_assumed_role *role;
    bool has_time;
};

static void
on_role_element(void *context, const char *path, const char *text)
{
    static const char above[] =
        "AssumeRoleWithWebIdentityResponse/AssumeRoleWithWebIdentityResult/Credentials/";
    struct role_walk *w = context;
    if (strncmp(path, above, sizeof(above) - 1) != 0)
        return;
    path += sizeof(above) - 1;
    if (is(path, "AccessKeyId"))
        keep_string(&w->role->access_key, text);
    else if (is(path, "SecretAccessKey"))
        keep_string(&w->role->secret_key, text);
    else if (is(path, "SessionToken"))
        keep_string(&w->role->session_token, text);
    else if (is(path, "Expiration"))
        w->has_time = time_parse_iso8601(text, &w->role->expires_ms) == 0;
}

int
s3_parse_assumed_role(const void *p, size_t n, struct s3_assumed_role *role_out)
{
    struct role_walk w = {.role = role_out};
    *role_out = (struct s3_assumed_role){0};
    int rc = walk_xml(p, n, on_role_element, &w);
    if (rc == 0 && role_out->access_key && role_out->secret_key && role_out->session_token &&
        w.has_time)
        return 0;
    free(role_out->access_key);
    free(role_out->secret_key);
    free(role_out->session_token);
    *role_out = (struct s3_assumed_role){0};
    return -EBADMSG;
}
