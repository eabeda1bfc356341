#include "base/buf.h"

#include "t.h"

static int
teardown(void **state)
{
    (void)state;
    mem_fail_at(0);
    return mem_used() == 0 ? 0 : -1;
}

static struct str
text(const struct buf *b)
{
    return str_n(b->p, b->len);
}

static void
test_appends_in_order(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, 10000);
    buf_add(&b, "ab", 2);
    buf_add(&b, NULL, 0);
    buf_str(&b, STR("cd"));
    buf_addf(&b, "%d-%s", 42, "x");
    T_TRUE(buf_ok(&b));
    T_STR(text(&b), "abcd42-x");
    buf_fini(&b);
}

static void
test_growth_keeps_the_content(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, 100000);
    for (int i = 0; i < 10000; i++)
        buf_addf(&b, "%04d", i);
    T_TRUE(buf_ok(&b));
    T_EQ(b.len, 40000);
    for (int i = 0; i < 10000; i++) {
        char want[16];
        snprintf(want, sizeof(want), "%04d", i);
        T_TRUE(memcmp(b.p + (size_t)i * 4, want, 4) == 0);
    }
    T_EQ(mem_used(), b.cap); /* counted against the budget */
    buf_fini(&b);
}

static void
test_refused_append_leaves_it_as_it_was(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, 6);
    buf_add(&b, "abcd", 4);
    buf_add(&b, "efg", 3);
    T_FALSE(buf_ok(&b));
    T_STR(text(&b), "abcd");
    buf_add(&b, "e", 1); /* stays failed: no hole in the middle of a text */
    buf_addf(&b, "%d", 1);
    T_FALSE(buf_reserve(&b, 0));
    T_STR(text(&b), "abcd");
    buf_fini(&b);
    T_TRUE(buf_ok(&b)); /* reusable */
    buf_add(&b, "efghij", 6);
    T_TRUE(buf_ok(&b)); /* exactly max */
    T_EQ(b.cap, 6);
    buf_fini(&b);
}

static void
test_formatted_append_at_the_bound(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, 8);
    buf_addf(&b, "%s", "1234567"); /* 7 and the NUL */
    T_TRUE(buf_ok(&b));
    T_STR(text(&b), "1234567");
    buf_addf(&b, "%s", "8");
    T_FALSE(buf_ok(&b));
    T_STR(text(&b), "1234567");
    buf_fini(&b);
}

static void
test_budget_refusal_is_a_failed_append(void **state)
{
    (void)state;
    mem_init(600, 4096, 0);
    struct buf b;
    buf_init(&b, 10000);
    buf_add(&b, "abc", 3);
    T_TRUE(buf_ok(&b));
    T_FALSE(buf_reserve(&b, 1000));
    T_FALSE(buf_ok(&b));
    T_STR(text(&b), "abc");
    buf_fini(&b);
    mem_fini();
    mem_init(SIZE_MAX, 4096, 0);
}

/* The n-th allocation fails, n = 1, 2, ... until none does. */
static void
test_every_failing_allocation_is_survived(void **state)
{
    (void)state;
    bool ok = false;
    for (uint64_t n = 1; !ok; n++) {
        struct buf b;
        buf_init(&b, 10000);
        mem_fail_at(n);
        for (int i = 0; i < 2000; i++)
            buf_add(&b, "xyz", 3);
        mem_fail_at(0);
        ok = buf_ok(&b);
        T_EQ(b.len % 3, 0);
        T_TRUE(ok == (b.len == 6000));
        buf_fini(&b);
        T_EQ(mem_used(), 0);
        T_TRUE(n < 20);
    }
}

/* What is above the size goes back to the budget, even a spent one; the content stays. */
static void
test_shrink_gives_back(void **state)
{
    (void)state;
    mem_init(4000, 4096, 0);
    struct buf b;
    buf_init(&b, 10000);
    buf_add(&b, "abc", 3);
    T_TRUE(buf_reserve(&b, 3000));
    size_t before = b.cap, other = 4000 - mem_used();
    T_TRUE(mem_take(other));
    buf_shrink(&b, 2); /* more is in it */
    T_EQ(b.cap, before);
    mem_fail_at(1);
    buf_shrink(&b, 100);
    mem_fail_at(0);
    T_EQ(b.cap, before);
    buf_shrink(&b, 100);
    T_EQ(b.cap, 100);
    T_EQ(mem_used(), other + 100);
    T_STR(text(&b), "abc");
    buf_shrink(&b, 200);
    T_EQ(b.cap, 100);
    T_TRUE(buf_reserve(&b, 500));
    buf_fini(&b);
    mem_give(other);
    mem_fini();
    mem_init(SIZE_MAX, 4096, 0);
}

static void
test_consume_drops_from_the_front(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, 100);
    buf_add(&b, "abcdef", 6);
    buf_consume(&b, 2);
    T_STR(text(&b), "cdef");
    T_ABORTS(buf_consume(&b, 5));
    buf_consume(&b, 4);
    T_EQ(b.len, 0);
    buf_consume(&b, 0);
    buf_fini(&b);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_appends_in_order, teardown),
        cmocka_unit_test_teardown(test_growth_keeps_the_content, teardown),
        cmocka_unit_test_teardown(test_refused_append_leaves_it_as_it_was, teardown),
        cmocka_unit_test_teardown(test_formatted_append_at_the_bound, teardown),
        cmocka_unit_test_teardown(test_budget_refusal_is_a_failed_append, teardown),
        cmocka_unit_test_teardown(test_every_failing_allocation_is_survived, teardown),
        cmocka_unit_test_teardown(test_shrink_gives_back, teardown),
        cmocka_unit_test_teardown(test_consume_drops_from_the_front, teardown),
    };
    return TEST_MAIN(tests);
}
