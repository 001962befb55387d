// SPDX-License-Identifier: Apache-2.0
#include "unit.h"

#include "format/extension.h"
#include "golden.h"
#include "jobs/job_kinds.h"
#include "manifest/manifest_schema.h"
#include "manifest_fixture.h"
#include "platform/memory.h"
#include "retention/verify_internal.h"
#include "retention/verify_report.h"

static int
put(struct fixture *f, struct job_record *job)
{
    struct manifest_batch *b = manifest_batch_new(f->db);
    manifest_batch_put_job(b, job);
    return manifest_submit(f->manifest, b, NULL);
}

static struct job_record
download(uint64_t generation, struct buffer *payload)
{
    struct job_record job = {.state = JOB_PENDING};
    struct job_generation g = {{generation}};
    job_set_kind(&job, JOB_DOWNLOAD_CHECKPOINT, &g, payload);
    return job;
}

START_TEST(every_kind_has_a_name_and_is_found)
{
    for (int kind = JOB_CREATE_CHECKPOINT; kind <= JOB_MERGE_CHUNKS; kind++) {
        const struct job_kind_entry *entry = job_kind_find((enum job_kind)kind);
        ck_assert_ptr_nonnull(entry);
        ck_assert_int_eq(entry->kind, kind);
        ck_assert_uint_gt(strlen(entry->name), 0);
        ck_assert((entry->payload_version > 0) == (entry->encode && entry->decode));
    }
    ck_assert_ptr_null(job_kind_find((enum job_kind)99));
}
END_TEST

static int
sum_generations(void *argument, const struct job_record *job)
{
    struct job_generation g;
    ck_assert_int_eq(job_read_parameters(job, &g), 0);
    *(uint64_t *)argument += g.generation.v;
    return 0;
}

START_TEST(one_unfinished_job_for_each_key)
{
    struct fixture f = fixture_new(0);
    BUFFER_AUTO a = {0};
    BUFFER_AUTO b = {0};
    BUFFER_AUTO c = {0};
    struct job_record first = download(7, &a);
    struct job_record same = download(7, &b);
    struct job_record other = download(8, &c);
    ck_assert_int_eq(put(&f, &first), 0);
    ck_assert_int_eq(put(&f, &same), -EEXIST);
    ck_assert_int_eq(put(&f, &other), 0);
    fixture_reopen(&f, 0);
    uint64_t sum = 0;
    struct manifest_reader *r = reader_of(&f);
    ck_assert_int_eq(manifest_read_jobs(r, f.db, sum_generations, &sum), 0);
    manifest_read_end(r);
    ck_assert_uint_eq(sum, 15);
    first.state = JOB_COMPLETED;
    ck_assert_int_eq(put(&f, &first), 0);
    ck_assert_int_eq(put(&f, &same), 0);
    // Another key frees the place of the one before.
    struct job_record moved = download(9, &b);
    moved.id = same.id;
    ck_assert_int_eq(put(&f, &moved), 0);
    struct job_record again = download(7, &a);
    ck_assert_int_eq(put(&f, &again), 0);
    fixture_free(&f);
}
END_TEST

START_TEST(parameters_of_later_programs_and_bad_ones_are_told_apart)
{
    BUFFER_AUTO payload = {0};
    struct job_generation g;
    struct job_record job = download(7, &payload);
    ck_assert_int_eq(job_read_parameters(&job, &g), 0);
    job.payload_version = 2;
    ck_assert_int_eq(job_read_parameters(&job, &g), -ENOTSUP);
    job.payload_version = 1;
    job.payload_length--;
    ck_assert_int_eq(job_read_parameters(&job, &g), -EBADMSG);
    job.payload_length += 1;
    put_le64(payload.data, 0);
    ck_assert_int_eq(job_read_parameters(&job, &g), -EBADMSG);
    job.kind = (enum job_kind)99;
    ck_assert_int_eq(job_read_parameters(&job, &g), -ENOTSUP);
}
END_TEST

START_TEST(hydrations_of_programs_before_are_read_and_written_as_ever)
{
    static const uint8_t before[] = {7, 0, 0, 0, 0, 0, 0, 0, 1};
    BUFFER_AUTO payload = {0};
    struct job_hydration order = {.object = {7}, .keep = true};
    struct job_record job = {.state = JOB_PENDING};
    job_set_kind(&job, JOB_HYDRATE_FILES, &order, &payload);
    ck_assert(job.payload_version == 1 && job.payload_length == sizeof(before));
    ck_assert_mem_eq(job.payload, before, sizeof(before));
    ck_assert_uint_eq(job.key_length, 8);
    order = (struct job_hydration){.hot = true};
    ck_assert_int_eq(job_read_parameters(&job, &order), 0);
    ck_assert(order.object.v == 7 && order.keep && !order.hot);
    // The order for the hot parts is one that they refuse, beside that for all files.
    order = (struct job_hydration){.hot = true};
    job_set_kind(&job, JOB_HYDRATE_FILES, &order, &payload);
    ck_assert(job.payload_version == 2 && job.key_length == 9);
    order.hot = false;
    ck_assert_int_eq(job_read_parameters(&job, &order), 0);
    ck_assert(order.hot && !order.keep && order.object.v == 0);
    payload.data[8] = 1; // to be kept
    ck_assert_int_eq(job_read_parameters(&job, &order), -EBADMSG);
    job.payload_version = 3;
    ck_assert_int_eq(job_read_parameters(&job, &order), -ENOTSUP);
}
END_TEST

// What programs before wrote has neither key nor payload, and is written so still.
START_TEST(a_job_without_parameters_is_of_version_1)
{
    BUFFER_AUTO value = {0};
    BUFFER_AUTO payload = {0};
    struct job_record back = {0};
    struct job_record job = {.state = JOB_PENDING};
    job_set_kind(&job, JOB_CREATE_CHECKPOINT, NULL, NULL);
    schema_encode_job(&job, &value);
    ck_assert_uint_eq(get_le16(value.data), 1);
    ck_assert(schema_decode_job(value.data, value.length, &back));
    ck_assert(back.key_length == 0 && back.payload_length == 0);
    buffer_clear(&value);
    job = download(7, &payload);
    schema_encode_job(&job, &value);
    ck_assert_uint_eq(get_le16(value.data), 2);
    ck_assert(schema_decode_job(value.data, value.length, &back));
    ck_assert(back.key_length == 8 && back.payload_length == 8 && back.payload_version == 1);
    for (size_t n = 0; n < value.length; n++)
        ck_assert(!schema_decode_job(value.data, n, &back));
}
END_TEST

// ---- the report of a verification ---------------------------------------------------------------

static void
make_damage(struct verify_result *result)
{
    struct blob_record blob = {.bytes = 100};
    struct verify_damage *d =
        verify_note_blob(result, "checkpoints/acme/1/pack.blob", "it is missing", &blob);
    for (uint64_t g = 1; g <= 100; g++)
        verify_note_generation(d, (struct generation){g});
    d->files = memory_alloc(sizeof(*d->files));
    d->files[d->file_count++] = memory_string("/a/file");
    verify_note(result, "manifests/acme/1/record-0000000000000009", "it does not verify");
}

START_TEST(report_of_a_verification_is_kept_with_its_job)
{
    BUFFER_AUTO report = {0};
    BUFFER_AUTO payload = {0};
    BUFFER_AUTO golden = {0};
    struct verify_result found = {0};
    struct verify_result back = {0};
    struct job_verification read;
    struct job_record job = {.state = JOB_FAILED};
    make_damage(&found);
    verify_report_encode(&found, &report);
    const struct job_verification order = {true, 5, report.data, (uint32_t)report.length};
    job_set_kind(&job, JOB_VERIFY_MANIFEST, &order, &payload);
    ck_assert_uint_eq(job.payload_version, 2);
    golden_load("verify-report-2.hex", &payload, &golden);
    ck_assert_uint_eq(golden.length, payload.length);
    ck_assert_mem_eq(golden.data, payload.data, golden.length);
    ck_assert_int_eq(job_read_parameters(&job, &read), 0);
    ck_assert(read.data && read.damaged == 5);
    ck_assert(verify_report_decode(read.report, read.report_length, &back));
    ck_assert_uint_eq(back.damaged, 2);
    ck_assert_uint_eq(back.damages->generation_count, 64);
    ck_assert_uint_eq(back.damages->generations[63].v, 100);
    ck_assert_str_eq(back.damages->files[0], "/a/file");
    verify_result_free(&back);
    // Every end but that of an object is noticed.
    unsigned whole = 0;
    for (uint32_t n = 0; n < read.report_length; n++) {
        whole += verify_report_decode(read.report, n, &back);
        verify_result_free(&back);
    }
    ck_assert_uint_eq(whole, 2);
    verify_result_free(&found);
    // A job that has found nothing is one that older programs know.
    const struct job_verification sound = {.data = true};
    job_set_kind(&job, JOB_VERIFY_MANIFEST, &sound, &payload);
    ck_assert_uint_eq(job.payload_version, 1);
    ck_assert_int_eq(job_read_parameters(&job, &read), 0);
    ck_assert(read.data && read.damaged == 0 && read.report_length == 0);
}
END_TEST

START_TEST(report_of_much_damage_is_cut_at_an_object)
{
    BUFFER_AUTO report = {0};
    struct verify_result found = {0};
    struct verify_result back = {0};
    for (unsigned i = 0; i < 5000; i++) {
        char key[64];
        snprintf(key, sizeof(key), "checkpoints/acme/1/%u.blob", i);
        verify_note(&found, key, "it is missing");
    }
    verify_report_encode(&found, &report);
    ck_assert_uint_le(report.length, VERIFY_REPORT_BYTES_MAX);
    ck_assert(verify_report_decode(report.data, report.length, &back));
    ck_assert(back.damaged > 500 && back.damaged < 5000);
    verify_result_free(&back);
    verify_result_free(&found);
}
END_TEST

START_TEST(what_later_programs_know_of_a_job_is_kept)
{
    BUFFER_AUTO value = {0};
    BUFFER_AUTO again = {0};
    BUFFER_AUTO payload = {0};
    BUFFER_AUTO area = {0};
    extension_append(&area, 77, "later", 5);
    struct job_record job = download(7, &payload);
    job.tries = 3;
    job.not_before_ms = 5;
    job.priority = 40;
    job.cancel_wanted = true;
    job.marker_length = 4;
    memcpy(job.marker, "mark", 4);
    job.extension = area.data;
    job.extension_length = (uint16_t)area.length;
    schema_encode_job(&job, &value);
    ck_assert_uint_eq(get_le16(value.data), 3);
    struct job_record back = {0};
    ck_assert(schema_decode_job(value.data, value.length, &back));
    ck_assert(back.tries == 3 && back.not_before_ms == 5 && back.priority == 40);
    ck_assert(back.cancel_wanted && back.marker_length == 4);
    schema_encode_job(&back, &again);
    ck_assert(again.length == value.length && memcmp(again.data, value.data, value.length) == 0);
    for (size_t n = 0; n < value.length; n++)
        ck_assert(!schema_decode_job(value.data, n, &back));
    // What must be known, and is not.
    BUFFER_AUTO strict = {0};
    extension_append(&strict, EXTENSION_INCOMPATIBLE | 77, "later", 5);
    job.extension = strict.data;
    job.extension_length = (uint16_t)strict.length;
    buffer_clear(&value);
    schema_encode_job(&job, &value);
    ck_assert(!schema_decode_job(value.data, value.length, &back));
}
END_TEST

int
main(void)
{
    Suite *s = suite_create("jobs");
#define ADD(test) unit_add(s, #test, test, 60)
    ADD(every_kind_has_a_name_and_is_found);
    ADD(one_unfinished_job_for_each_key);
    ADD(parameters_of_later_programs_and_bad_ones_are_told_apart);
    ADD(hydrations_of_programs_before_are_read_and_written_as_ever);
    ADD(a_job_without_parameters_is_of_version_1);
    ADD(report_of_a_verification_is_kept_with_its_job);
    ADD(report_of_much_damage_is_cut_at_an_object);
    ADD(what_later_programs_know_of_a_job_is_kept);
    return unit_run(s);
}
