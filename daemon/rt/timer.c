/*
 * Timers: a 4-ary heap of (key, timer). The key may be earlier than the timer's real deadline: a
 * deadline that moves later, or goes away, leaves the heap alone, and the entry is put right when
 * its key comes due. Deadlines here are mostly pushed later (a transfer made progress) or dropped
 * (a request ended), so arming is nearly always one store.
 */
#include "base/mem.h"
#include "rt/loop_impl.h"

#include "base/no_block.h"

#define NOT_IN_HEAP UINT32_MAX
#define ARITY       4

static void
place(struct loop *l, uint32_t at, struct timer_slot slot)
{
    l->heap[at] = slot;
    slot.t->heap_at = at;
}

static void
sift_up(struct loop *l, uint32_t at)
{
    struct timer_slot slot = l->heap[at];
    while (at > 0) {
        uint32_t parent = (at - 1) / ARITY;
        if (l->heap[parent].key_us <= slot.key_us)
            break;
        place(l, at, l->heap[parent]);
        at = parent;
    }
    place(l, at, slot);
}

static void
sift_down(struct loop *l, uint32_t at)
{
    struct timer_slot slot = l->heap[at];
    for (;;) {
        uint32_t first = at * ARITY + 1, best = at;
        int64_t best_key = slot.key_us;
        for (uint32_t i = first; i < first + ARITY && i < l->heap_len; i++) {
            if (l->heap[i].key_us < best_key) {
                best = i;
                best_key = l->heap[i].key_us;
            }
        }
        if (best == at)
            break;
        place(l, at, l->heap[best]);
        at = best;
    }
    place(l, at, slot);
}

static void
heap_remove(struct loop *l, uint32_t at)
{
    l->heap[at].t->heap_at = NOT_IN_HEAP;
    l->heap_len--;
    if (at == l->heap_len)
        return;
    place(l, at, l->heap[l->heap_len]);
    sift_up(l, at);
    sift_down(l, at);
}

/* Lets libevent wake us for the earliest key, if it would not do so already. */
static void LOOP_ONLY
wake_for_top(struct loop *l)
{
    if (l->heap_len == 0 || l->heap[0].key_us >= l->timer_armed_us)
        return;
    int64_t in_us = l->heap[0].key_us - l->now.us;
    if (in_us < 0)
        in_us = 0;
    struct timeval tv = {.tv_sec = in_us / 1000000, .tv_usec = in_us % 1000000};
    if (event_add(&l->timer_ev, &tv) == 0)
        l->timer_armed_us = l->heap[0].key_us;
}

void
timers_run(struct loop *l)
{
    l->timer_armed_us = INT64_MAX;
    /* At most once round: what a callback arms for now waits until the sockets had their turn. */
    for (uint32_t left = l->heap_len; left > 0 && l->heap_len > 0 && l->heap[0].key_us <= l->now.us;
         left--) {
        struct timer *t = l->heap[0].t;
        if (t->due_us == INT64_MAX) {
            heap_remove(l, 0);
        } else if (t->due_us > l->now.us) {
            l->heap[0].key_us = t->due_us;
            sift_down(l, 0);
        } else {
            heap_remove(l, 0);
            t->due_us = INT64_MAX;
            t->fn(t->arg); /* may arm, disarm or finish any timer, this one too */
        }
    }
    wake_for_top(l);
}

void
timer_init(struct timer *t, struct loop *l, loop_fn fn, void *arg)
{
    *t = (struct timer){
        .loop = l, .fn = fn, .arg = arg, .due_us = INT64_MAX, .heap_at = NOT_IN_HEAP};
}

bool
timer_reserve(struct timer *t)
{
    struct loop *l = t->loop;
    CHECK(!t->reserved);
    if (l->heap_reserved == l->heap_cap) {
        uint32_t cap = l->heap_cap == 0 ? 64 : l->heap_cap * 2;
        struct timer_slot *heap = mem_alloc(cap * sizeof *heap);
        if (heap == NULL)
            return false;
        if (l->heap_len > 0)
            memcpy(heap, l->heap, l->heap_len * sizeof *heap);
        mem_free(l->heap);
        l->heap = heap;
        l->heap_cap = cap;
    }
    l->heap_reserved++;
    t->reserved = true;
    return true;
}

void
timer_arm(struct timer *t, struct mono due)
{
    struct loop *l = t->loop;
    CHECK(t->reserved && due.us != INT64_MAX);
    t->due_us = due.us;
    if (t->heap_at == NOT_IN_HEAP) {
        place(l, l->heap_len++, (struct timer_slot){due.us, t});
        sift_up(l, t->heap_at);
    } else if (due.us < l->heap[t->heap_at].key_us) {
        l->heap[t->heap_at].key_us = due.us;
        sift_up(l, t->heap_at);
    }
    wake_for_top(l);
}

void
timer_arm_in(struct timer *t, int64_t us)
{
    timer_arm(t, mono_add_us(t->loop->now, us));
}

void
timer_disarm(struct timer *t)
{
    t->due_us = INT64_MAX;
}

void
timer_fini(struct timer *t)
{
    if (t->loop == NULL)
        return;
    t->due_us = INT64_MAX;
    if (t->heap_at != NOT_IN_HEAP)
        heap_remove(t->loop, t->heap_at);
    if (t->reserved)
        t->loop->heap_reserved--;
    t->reserved = false;
    t->loop = NULL;
}
