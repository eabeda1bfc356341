#include "base/list.h"

#include "t.h"

struct item {
    int n;
    struct list link;
};

/* The numbers on the list, in order, as digits. */
static int
digits(const struct list *head)
{
    int v = 0;
    LIST_EACH (it, head)
        v = v * 10 + CONTAINER_OF(it, struct item, link)->n;
    return v;
}

static void
test_both_ends_and_the_middle(void **state)
{
    (void)state;
    struct list head;
    struct item a = {.n = 1}, b = {.n = 2}, c = {.n = 3};
    list_init(&head);
    T_TRUE(list_empty(&head));
    T_TRUE(list_first(&head) == NULL && list_last(&head) == NULL);
    list_push_back(&head, &b.link);
    list_push_back(&head, &c.link);
    list_push_front(&head, &a.link);
    T_EQ(digits(&head), 123);
    T_TRUE(list_first(&head) == &a.link && list_last(&head) == &c.link);
    list_remove(&b.link);
    T_EQ(digits(&head), 13);
    list_insert(&a.link, &b.link);
    T_EQ(digits(&head), 123);
    T_TRUE(c.link.prev == &b.link && head.prev == &c.link); /* backwards too */
}

static void
test_a_node_knows_whether_it_is_linked(void **state)
{
    (void)state;
    struct list head;
    struct item a = {.n = 1};
    list_init(&head);
    T_FALSE(list_linked(&a.link));
    T_ABORTS(list_remove(&a.link));
    list_unlink(&a.link); /* no-op */
    list_push_back(&head, &a.link);
    T_TRUE(list_linked(&a.link));
    T_ABORTS(list_push_front(&head, &a.link));
    list_unlink(&a.link);
    T_FALSE(list_linked(&a.link));
    T_TRUE(list_empty(&head));
}

static void
test_safe_iteration_survives_removal(void **state)
{
    (void)state;
    struct list head;
    struct item items[5];
    list_init(&head);
    for (int i = 0; i < 5; i++) {
        items[i] = (struct item){.n = i + 1};
        list_push_back(&head, &items[i].link);
    }
    LIST_EACH_SAFE (it, tmp, &head) {
        struct item *x = CONTAINER_OF(it, struct item, link);
        if (x->n % 2 == 1)
            list_remove(it);
    }
    T_EQ(digits(&head), 24);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_both_ends_and_the_middle),
        TEST(test_a_node_knows_whether_it_is_linked),
        TEST(test_safe_iteration_survives_removal),
    };
    return TEST_MAIN(tests);
}
