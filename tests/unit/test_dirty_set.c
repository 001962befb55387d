// SPDX-License-Identifier: Apache-2.0
// dirty_set against a model: arrays that say of each page what the set must say.
#include "unit.h"

#include <string.h>

#include "base/bytes.h"
#include "base/hash_table.h"
#include "base/tree.h"
#include "cache/dirty_set.h"
#include "platform/memory.h"

#define OBJECTS 3u
#define PAGES   160u

static uint64_t random_state;

static uint64_t
pick(uint64_t below)
{
    return hash_u64(++random_state) % below;
}

// Page numbers in order, some of them far away.
static uint64_t
number_of(size_t i)
{
    if (i < PAGES / 2)
        return i;
    return i < PAGES - 1 ? (UINT64_C(1) << 40) + 3 * i : UINT64_MAX / PAGE_BYTES;
}

struct model_page {
    bool in_hole;
    bool present;
    bool resident;
    bool masked;
    uint64_t stamp; // in the page's first bytes
    struct lsn wal_lsn;
    uint16_t wal_bytes;
};

static struct model_page model[OBJECTS][PAGES];
static bool known[OBJECTS];

static struct object_id
object_of(size_t o)
{
    return (struct object_id){o + 1};
}

static void
put_random(struct dirty_set *s, size_t o, size_t i)
{
    static uint64_t stamp;
    struct model_page *m = &model[o][i];
    struct dirty_page content = {.page = page_new()};
    *m = (struct model_page){.in_hole = m->in_hole, .present = true, .resident = true};
    m->stamp = ++stamp;
    put_le64(content.page->data, m->stamp);
    if (pick(4) == 0) {
        content.mask = memory_alloc_zero(sizeof(*content.mask));
        page_mask_set(content.mask, 0, 8 + (uint32_t)pick(100));
        m->masked = true;
    }
    if (pick(3) > 0) {
        content.wal_lsn.v = m->wal_lsn.v = 1 + pick(1u << 20);
        content.crc = (uint32_t)m->stamp;
        content.wal_bytes = m->wal_bytes = (uint16_t)(1 + pick(PAGE_BYTES));
        content.wal_from = (uint16_t)(PAGE_BYTES - content.wal_bytes);
    }
    if (m->wal_bytes != 0 && pick(5) == 0) { // put without its bytes
        page_put(content.page);
        content.page = NULL;
        m->resident = false;
    }
    dirty_set_put(s, object_of(o), (struct page_no){number_of(i)}, content);
    known[o] = true;
}

static void
discard_random(struct dirty_set *s, size_t o)
{
    size_t first = pick(PAGES);
    size_t end = first + pick(PAGES - first + 1);
    uint64_t to = end == PAGES ? UINT64_MAX : number_of(end);
    if (pick(20) == 0)
        to = number_of(first);
    dirty_set_discard(s, object_of(o), number_of(first), to);
    known[o] = known[o] || to > number_of(first);
    for (size_t i = first; i < PAGES && number_of(i) < to; i++)
        model[o][i] = (struct model_page){.in_hole = true};
}

static void
check_find(const struct dirty_set *s, size_t o, size_t i)
{
    const struct model_page *m = &model[o][i];
    struct dirty_page content;
    enum dirty_state state =
        dirty_set_find(s, object_of(o), (struct page_no){number_of(i)}, &content);
    if (!m->present) {
        ck_assert_int_eq(state, m->in_hole ? DIRTY_HOLE : DIRTY_ABSENT);
        ck_assert_ptr_null(content.page);
        return;
    }
    ck_assert_int_eq(state, DIRTY_PAGE);
    ck_assert_uint_eq(content.wal_lsn.v, m->wal_lsn.v);
    ck_assert_int_eq(content.mask != NULL, m->masked);
    ck_assert_int_eq(content.page != NULL, m->resident);
    if (content.page)
        ck_assert_uint_eq(get_le64(content.page->data), m->stamp);
    ck_assert_uint_eq(content.wal_bytes, m->wal_bytes);
    if (m->wal_bytes != 0)
        ck_assert_uint_eq(content.crc, (uint32_t)m->stamp);
    page_put(content.page);
}

struct walk {
    size_t object;
    size_t next;
    size_t stop_at;
};

static int
visit(void *argument, struct page_no page, const struct dirty_page *content)
{
    struct walk *w = argument;
    while (w->next < PAGES && !model[w->object][w->next].present)
        w->next++;
    ck_assert_uint_lt(w->next, PAGES);
    ck_assert_uint_eq(page.v, number_of(w->next));
    ck_assert_uint_eq(content->wal_lsn.v, model[w->object][w->next].wal_lsn.v);
    return w->next++ >= w->stop_at ? 7 : 0;
}

static void
check_walk(const struct dirty_set *s, size_t o)
{
    size_t first = pick(PAGES);
    size_t end = first + pick(PAGES - first + 1);
    uint64_t to = end == PAGES ? UINT64_MAX : number_of(end);
    struct walk w = {o, first, SIZE_MAX};
    ck_assert_int_eq(dirty_set_walk(s, object_of(o), number_of(first), to, visit, &w), 0);
    while (w.next < end)
        ck_assert(!model[o][w.next++].present);
    bool any = false;
    for (size_t i = first; i < end; i++)
        any = any || model[o][i].present;
    w = (struct walk){o, first, 0};
    ck_assert_int_eq(dirty_set_walk(s, object_of(o), number_of(first), to, visit, &w), any ? 7 : 0);
}

static void
check_holes(const struct dirty_set *s, size_t o)
{
    static struct page_extent holes[PAGES + 1];
    size_t count = 0;
    struct page_extent hole;
    for (uint64_t at = 0; dirty_set_next_hole(s, object_of(o), at, &hole); at = hole.end) {
        ck_assert_uint_lt(hole.first, hole.end);
        ck_assert(count == 0 || holes[count - 1].end < hole.first);
        ck_assert_uint_lt(count, PAGES + 1);
        holes[count++] = hole;
    }
    for (size_t i = 0; i < PAGES; i++) {
        bool inside = false;
        for (size_t k = 0; k < count; k++)
            inside = inside || (number_of(i) >= holes[k].first && number_of(i) < holes[k].end);
        ck_assert(inside || !model[o][i].in_hole);
        ck_assert(!inside || model[o][i].in_hole);
    }
}

static enum dirty_state
state_of(size_t o, size_t i)
{
    if (model[o][i].present)
        return DIRTY_PAGE;
    return model[o][i].in_hole ? DIRTY_HOLE : DIRTY_ABSENT;
}

// The pages of a run have one state, and a run ends only where the next page has another one, where
// a hole has an edge, or at the limit that was given.
static void
check_run(const struct dirty_set *s, size_t o)
{
    size_t from = pick(PAGES);
    uint64_t most = 1 + pick(10);
    enum dirty_state state;
    uint64_t first = number_of(from);
    uint64_t run = dirty_set_run(s, object_of(o), first, most, &state);
    ck_assert_int_eq(state, state_of(o, from));
    ck_assert_uint_gt(run, 0);
    ck_assert(state != DIRTY_PAGE || run <= most);
    for (size_t i = from; i < PAGES && number_of(i) < first + run; i++)
        ck_assert_int_eq(state_of(o, i), state);
    for (size_t i = from; i < PAGES && number_of(i) == first + run; i++)
        ck_assert(state_of(o, i) != state || (state == DIRTY_PAGE && run == most));
    uint64_t pages = 0;
    for (size_t i = 0; i < PAGES; i++)
        pages += model[o][i].present;
    ck_assert_uint_eq(dirty_set_object_pages(s, object_of(o)), pages);
}

static void
check_all(const struct dirty_set *s)
{
    uint64_t pages = 0;
    uint64_t resident = 0;
    size_t objects = 0;
    for (size_t o = 0; o < OBJECTS; o++) {
        for (size_t i = 0; i < PAGES; i++) {
            check_find(s, o, i);
            pages += model[o][i].present;
            resident += model[o][i].resident;
        }
        check_walk(s, o);
        check_holes(s, o);
        dirty_set_check(s);
        check_run(s, o);
        objects += known[o];
    }
    ck_assert_uint_eq(dirty_set_pages(s), pages);
    ck_assert_uint_eq(dirty_set_resident_bytes(s), resident * sizeof(struct page));
    ck_assert_int_eq(dirty_set_is_empty(s), objects == 0);
    size_t count;
    struct object_id *ids = dirty_set_objects(s, &count);
    ck_assert_uint_eq(count, objects);
    for (size_t k = 0, o = 0; k < count; k++, o++) {
        while (!known[o])
            o++;
        ck_assert_uint_eq(ids[k].v, object_of(o).v);
    }
    free(ids);
}

static void
evict_random(struct dirty_set *s)
{
    struct lsn flushed = {pick(2) ? pick(1u << 20) : UINT64_MAX / 2};
    uint64_t wanted = pick(PAGES * OBJECTS / 2) * sizeof(struct page);
    uint64_t possible = 0;
    for (size_t o = 0; o < OBJECTS; o++)
        for (size_t i = 0; i < PAGES; i++) {
            const struct model_page *m = &model[o][i];
            possible +=
                m->resident && m->wal_bytes != 0 && m->wal_lsn.v + m->wal_bytes <= flushed.v;
        }
    possible *= sizeof(struct page);
    uint64_t freed = dirty_set_evict(s, flushed, wanted);
    ck_assert_uint_le(freed, possible);
    // Behind what is not flushed yet nothing is looked for.
    if (flushed.v == UINT64_MAX / 2)
        ck_assert_uint_ge(freed, wanted < possible ? wanted : possible);
    for (size_t o = 0; o < OBJECTS; o++)
        for (size_t i = 0; i < PAGES; i++) {
            struct model_page *m = &model[o][i];
            struct dirty_page content;
            if (!m->present)
                continue;
            dirty_set_find(s, object_of(o), (struct page_no){number_of(i)}, &content);
            if (m->resident && !content.page) {
                ck_assert_uint_ne(m->wal_bytes, 0);
                ck_assert_uint_le(m->wal_lsn.v + m->wal_bytes, flushed.v);
                m->resident = false;
                freed -= sizeof(struct page);
            }
            page_put(content.page);
        }
    ck_assert_uint_eq(freed, 0);
}

START_TEST(a_dirty_set_is_what_the_model_is)
{
    for (int round = 0; round < 20; round++) {
        struct dirty_set *s = dirty_set_new();
        memset(model, 0, sizeof(model));
        memset(known, 0, sizeof(known));
        ck_assert(dirty_set_is_empty(s));
        for (int step = 0; step < 2000; step++) {
            size_t o = pick(OBJECTS);
            uint64_t what = pick(200);
            if (what < 170)
                put_random(s, o, pick(PAGES));
            else if (what < 185)
                discard_random(s, o);
            else if (what < 198)
                evict_random(s);
            else {
                dirty_set_drop_object(s, object_of(o));
                memset(model[o], 0, sizeof(model[o]));
                known[o] = false;
            }
            if (step % 50 == 0)
                check_all(s);
        }
        check_all(s);
        dirty_set_free(s);
    }
    dirty_set_free(NULL);
}
END_TEST

START_TEST(pages_go_in_the_order_in_which_they_came)
{
    struct dirty_set *s = dirty_set_new();
    // Leaves of a few pages: eviction is that coarse.
    for (uint64_t i = 0; i < 100; i++) {
        struct dirty_page content = {
            .page = page_new(), .wal_lsn = {4096 * (i + 1)}, .wal_bytes = PAGE_BYTES};
        dirty_set_put(s, object_of(0), (struct page_no){1000 * i}, content);
    }
    struct lsn flushed = {UINT64_MAX / 2};
    ck_assert_uint_eq(
        dirty_set_evict(s, flushed, 40 * sizeof(struct page)), 40 * sizeof(struct page));
    for (uint64_t i = 0; i < 100; i++) {
        struct dirty_page content;
        dirty_set_find(s, object_of(0), (struct page_no){1000 * i}, &content);
        ck_assert_int_eq(content.page != NULL, i >= 40);
        page_put(content.page);
    }
    ck_assert_uint_eq(dirty_set_evict(s, flushed, UINT64_MAX), 60 * sizeof(struct page));
    ck_assert_uint_eq(dirty_set_evict(s, flushed, UINT64_MAX), 0);
    ck_assert_uint_eq(dirty_set_pages(s), 100);
    dirty_set_free(s);
}
END_TEST

static size_t
count_holes(const struct dirty_set *s, uint64_t object)
{
    struct page_extent hole;
    size_t count = 0;
    for (uint64_t at = 0; dirty_set_next_hole(s, (struct object_id){object}, at, &hole);
         at = hole.end)
        count++;
    return count;
}

START_TEST(many_objects_and_holes)
{
    struct dirty_set *s = dirty_set_new();
    for (uint64_t i = 0; i < 3000; i++)
        dirty_set_discard(s, (struct object_id){1 + i % 1000}, 4 * i, 4 * i + 2);
    size_t count;
    struct object_id *ids = dirty_set_objects(s, &count);
    ck_assert_uint_eq(count, 1000);
    for (size_t i = 0; i < count; i++)
        ck_assert_uint_eq(ids[i].v, i + 1);
    free(ids);
    ck_assert_uint_eq(count_holes(s, 5), 3);
    dirty_set_discard(s, (struct object_id){5}, 0, UINT64_MAX);
    ck_assert_uint_eq(count_holes(s, 5), 1);
    struct page_extent hole;
    ck_assert(dirty_set_next_hole(s, (struct object_id){5}, 0, &hole));
    ck_assert_uint_eq(hole.end, UINT64_MAX);
    ck_assert_uint_eq(count_holes(s, 5000), 0);
    dirty_set_check(s);
    dirty_set_free(s);
}
END_TEST

#define MANY_HOLES 1000000u

// With a list of holes, each new one would cost as much as there are: this would take minutes.
START_TEST(each_of_many_holes_costs_a_few_steps)
{
    struct dirty_set *s = dirty_set_new();
    struct object_id object = {5};
    struct page_extent hole;
    // In order, backwards, and all over the place.
    for (uint64_t i = 0; i < MANY_HOLES; i++) {
        uint64_t before = tree_comparisons();
        uint64_t at = i % 3 == 0   ? i
                      : i % 3 == 1 ? 3 * MANY_HOLES - i
                                   : 4 * MANY_HOLES + hash_u64(i) % (8 * MANY_HOLES);
        dirty_set_discard(s, object, 2 * at, 2 * at + 1);
        enum dirty_state state;
        ck_assert_uint_eq(dirty_set_run(s, object, 2 * at, 1, &state), 1);
        ck_assert_int_eq(state, DIRTY_HOLE);
        ck_assert(dirty_set_next_hole(s, object, 2 * at + 1, &hole) || i % 3 == 2 || i < 3);
        ck_assert_uint_lt(tree_comparisons() - before, 1000);
    }
    size_t holes = count_holes(s, object.v);
    ck_assert_uint_gt(holes, MANY_HOLES / 10 * 9);
    dirty_set_check(s);
    // Those that a larger one swallows go one by one, once.
    dirty_set_discard(s, object, 1, UINT64_MAX);
    ck_assert_uint_le(count_holes(s, object.v), 2);
    dirty_set_check(s);
    dirty_set_free(s);
}
END_TEST

START_TEST(zero_pages_are_told_from_others)
{
    static uint8_t page[PAGE_BYTES];
    ck_assert(page_is_zero(page));
    for (size_t i = 0; i < PAGE_BYTES; i++) {
        page[i] = 1;
        ck_assert(!page_is_zero(page));
        page[i] = 0;
    }
}
END_TEST

int
main(void)
{
    Suite *s = suite_create("dirty_set");
#define ADD(test) unit_add(s, #test, test, 120)
    ADD(a_dirty_set_is_what_the_model_is);
    ADD(pages_go_in_the_order_in_which_they_came);
    ADD(each_of_many_holes_costs_a_few_steps);
    ADD(many_objects_and_holes);
    ADD(zero_pages_are_told_from_others);
#undef ADD
    return unit_run(s);
}
