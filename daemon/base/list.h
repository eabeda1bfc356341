#ifndef CHMUX_BASE_LIST_H
#define CHMUX_BASE_LIST_H
/*
 * list: an intrusive doubly linked ring with a head. O(1) everywhere; a node knows whether it is
 * linked, so unlinking twice is caught. Ownership: the list borrows its nodes.
 */
#include "base/check.h"

struct list {
    struct list *next, *prev; /* both NULL: a node that is on no list */
};

static inline void
list_init(struct list *head)
{
    head->next = head->prev = head;
}

static inline bool
list_empty(const struct list *head)
{
    return head->next == head;
}

static inline bool
list_linked(const struct list *node)
{
    return node->next != NULL;
}

static inline void
list_insert(struct list *after, struct list *node)
{
    CHECK(!list_linked(node));
    node->prev = after;
    node->next = after->next;
    after->next->prev = node;
    after->next = node;
}

static inline void
list_push_front(struct list *head, struct list *node)
{
    list_insert(head, node);
}

static inline void
list_push_back(struct list *head, struct list *node)
{
    list_insert(head->prev, node);
}

static inline void
list_remove(struct list *node)
{
    CHECK(list_linked(node));
    node->prev->next = node->next;
    node->next->prev = node->prev;
    node->next = node->prev = NULL;
}

/* No-op on a node that is on no list. */
static inline void
list_unlink(struct list *node)
{
    if (list_linked(node))
        list_remove(node);
}

static inline struct list *
list_first(const struct list *head)
{
    return list_empty(head) ? NULL : head->next;
}

static inline struct list *
list_last(const struct list *head)
{
    return list_empty(head) ? NULL : head->prev;
}

#define LIST_EACH(it, head) for (struct list *it = (head)->next; it != (head); it = it->next)
/* Safe against removal of `it` itself. */
#define LIST_EACH_SAFE(it, tmp, head)                                                              \
    for (struct list *it = (head)->next, *tmp = it->next; it != (head); it = tmp, tmp = it->next)
#endif
