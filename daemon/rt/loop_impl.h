#ifndef CHMUX_RT_LOOP_IMPL_H
#define CHMUX_RT_LOOP_IMPL_H
/* loop_impl: what loop.c and timer.c share. Nobody else includes it. */
#include "rt/loop.h"

struct timer_slot {
    int64_t key_us; /* never later than t->due_us once fixed up; see timer.c */
    struct timer *t;
};

struct loop_signal {
    struct event ev;
    struct loop *loop;
    loop_signal_fn fn;
    void *arg;
};

#define LOOP_SIGNALS_MAX 8

struct loop {
    struct event_base *base;
    struct mono now;
    const char *label;
    struct mono slow_told;
    uint64_t slow_untold;
    struct list deferred;
    struct event defer_ev; /* pending or active while there is deferred work */
    struct event timer_ev;
    int64_t timer_armed_us; /* when timer_ev fires; INT64_MAX: not armed */
    struct timer_slot *heap;
    uint32_t heap_len, heap_cap, heap_reserved;
    struct loop_signal signals[LOOP_SIGNALS_MAX];
    size_t signal_count;
    bool stop; /* loop_stop() was called, and loop_run() has not returned since */
};

void timers_run(struct loop *l) LOOP_ONLY;
#endif
