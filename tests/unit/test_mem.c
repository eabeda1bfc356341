#include "base/mem.h"

#include <pthread.h>

#include "t.h"

#define BLOCK_BYTES 4096

static int
teardown(void **state)
{
    (void)state;
    mem_fail_at(0);
    mem_fini();
    return mem_used() == 0 ? 0 : -1;
}

static void
test_take_is_exact_at_the_limit(void **state)
{
    (void)state;
    mem_init(1000, BLOCK_BYTES, 0);
    T_EQ(mem_limit(), 1000);
    T_TRUE(mem_take(999));
    T_FALSE(mem_take(2));
    T_TRUE(mem_take(1));
    T_FALSE(mem_take(1));
    T_TRUE(mem_take(0));
    T_EQ(mem_used(), 1000);
    mem_give(1000);
    T_EQ(mem_used(), 0);
}

static void
test_huge_take_does_not_wrap(void **state)
{
    (void)state;
    mem_init(1000, BLOCK_BYTES, 0);
    T_TRUE(mem_take(10));
    T_FALSE(mem_take(SIZE_MAX));
    T_FALSE(mem_take(SIZE_MAX - 9));
    T_EQ(mem_used(), 10);
    mem_give(10);
}

static void
test_giving_more_than_taken_is_caught(void **state)
{
    (void)state;
    mem_init(1000, BLOCK_BYTES, 0);
    T_TRUE(mem_take(10));
    T_ABORTS(mem_give(11));
    mem_give(10);
}

static void *
take_and_give(void *arg)
{
    size_t *granted = arg;
    for (int i = 0; i < 20000; i++)
        if (mem_take(7)) {
            ++*granted;
            mem_give(7);
        }
    return NULL;
}

/* Threads: any. With room for all of them nobody is ever refused, also not for a moment. */
static void
test_threads_never_refuse_each_other(void **state)
{
    (void)state;
    mem_init(4 * 7, BLOCK_BYTES, 0);
    pthread_t t[4];
    size_t granted[COUNT_OF(t)] = {0};
    for (size_t i = 0; i < COUNT_OF(t); i++)
        T_EQ(pthread_create(&t[i], NULL, take_and_give, &granted[i]), 0);
    for (size_t i = 0; i < COUNT_OF(t); i++) {
        T_EQ(pthread_join(t[i], NULL), 0);
        T_EQ(granted[i], 20000);
    }
    T_EQ(mem_used(), 0);
}

static void
test_blocks_count_against_the_budget_while_out(void **state)
{
    (void)state;
    thr_check_loop();
    mem_init(2 * BLOCK_BYTES, BLOCK_BYTES, 2);
    struct blk *a = blk_get(), *b = blk_get();
    T_TRUE(a != NULL && b != NULL);
    T_EQ(mem_used(), 2 * BLOCK_BYTES);
    T_TRUE(blk_get() == NULL);
    blk_put(&a);
    T_TRUE(a == NULL);
    T_EQ(mem_used(), BLOCK_BYTES);
    blk_put(&b);
    blk_put(&b); /* NULL is fine */
    T_EQ(mem_used(), 0);
}

static void
test_last_block_in_is_first_out_and_empty(void **state)
{
    (void)state;
    thr_check_loop();
    mem_init(SIZE_MAX, BLOCK_BYTES, 2);
    struct blk *a = blk_get(), *b = blk_get();
    struct blk *hot = b;
    T_EQ(blk_cap(), BLOCK_BYTES - sizeof(struct blk));
    memset(b->data, 'x', blk_cap());
    b->end = 10;
    T_EQ(blk_len(b), 10);
    blk_put(&a);
    blk_put(&b);
    b = blk_get();
    T_TRUE(b == hot);
    T_EQ(blk_len(b), 0);
    T_TRUE(b->next == NULL);
    memset(b->data, 'y', blk_cap()); /* writable again under ASan too */
    blk_put(&b);
    T_EQ(blk_len(NULL), 0);
}

static void
test_keeps_no_more_free_blocks_than_told(void **state)
{
    (void)state;
    thr_check_loop();
    mem_init(SIZE_MAX, BLOCK_BYTES, 1);
    struct blk *a = blk_get(), *b = blk_get();
    blk_put(&a);
    blk_put(&b); /* freed */
    a = blk_get();
    mem_fail_at(1);
    b = blk_get(); /* must allocate, and that fails */
    T_TRUE(a != NULL && b == NULL);
    T_EQ(mem_used(), BLOCK_BYTES); /* a refused block costs nothing */
    blk_put(&a);
}

static void
test_nth_allocation_fails_once(void **state)
{
    (void)state;
    mem_init(SIZE_MAX, BLOCK_BYTES, 0);
    mem_fail_at(2);
    void *a = mem_alloc(8), *b = mem_alloc(8), *c = mem_zalloc(8);
    T_TRUE(a != NULL && b == NULL && c != NULL);
    T_EQ(*(uint64_t *)c, 0);
    mem_free(a);
    mem_free(c);
}

static void
test_init_with_blocks_of_another_size_kept_is_caught(void **state)
{
    (void)state;
    thr_check_loop();
    mem_init(SIZE_MAX, BLOCK_BYTES, 1);
    struct blk *a = blk_get();
    blk_put(&a);
    T_ABORTS(mem_init(SIZE_MAX, 2 * BLOCK_BYTES, 1));
    T_ABORTS(mem_init(SIZE_MAX, 64, 1));
}

int
main(void)
{
    thr_become(THR_LOOP);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_take_is_exact_at_the_limit, teardown),
        cmocka_unit_test_teardown(test_huge_take_does_not_wrap, teardown),
        cmocka_unit_test_teardown(test_giving_more_than_taken_is_caught, teardown),
        cmocka_unit_test_teardown(test_threads_never_refuse_each_other, teardown),
        cmocka_unit_test_teardown(test_blocks_count_against_the_budget_while_out, teardown),
        cmocka_unit_test_teardown(test_last_block_in_is_first_out_and_empty, teardown),
        cmocka_unit_test_teardown(test_keeps_no_more_free_blocks_than_told, teardown),
        cmocka_unit_test_teardown(test_nth_allocation_fails_once, teardown),
        cmocka_unit_test_teardown(test_init_with_blocks_of_another_size_kept_is_caught, teardown),
    };
    return TEST_MAIN(tests);
}
