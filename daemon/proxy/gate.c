#include "proxy/gate.h"

#include "base/mem.h"

#include "base/no_block.h"

struct gate {
    struct gates *all; /* borrowed; NULL: not open yet */
    struct gate_limits limits;
    struct waitq q;
    struct loop_task task;
    size_t refs;
    size_t in_flight, waiting;
    uint64_t requests, waits, refused;
};

struct gate *
gate_new(void)
{
    struct gate *g = mem_zalloc(sizeof *g);
    if (g != NULL)
        g->refs = 1;
    return g;
}

void
gate_open(struct gate *g, struct gates *all, const struct gate_limits *limits)
{
    g->all = all;
    g->limits = *limits;
    waitq_init(&g->q);
}

struct gate *
gate_ref(struct gate *g)
{
    g->refs++;
    return g;
}

void
gate_unref(struct gate **gp)
{
    struct gate *g = *gp;
    *gp = NULL;
    if (g == NULL || --g->refs > 0)
        return;
    if (g->all != NULL) {
        thr_check_loop();
        loop_undefer(&g->task);
        waitq_fini(&g->q);
    }
    mem_free(g);
}

static bool
is_full(const struct gate *g)
{
    return g->limits.max_in_flight > 0 && g->in_flight >= g->limits.max_in_flight;
}

static bool
anybody(void *arg, const struct waiter *w)
{
    (void)arg;
    (void)w;
    return true;
}

static void
let_in(struct gate_pass *p)
{
    p->inside = true;
    p->gate->in_flight++;
}

static void
on_turn(void *arg)
{
    thr_check_loop();
    struct gate *g = gate_ref(arg); /* a turn may be the end of all who hold it */
    struct waiter *w;
    while (!is_full(g) && (w = waitq_pop(&g->q, anybody, NULL)) != NULL) {
        struct gate_pass *p = CONTAINER_OF(w, struct gate_pass, waiter);
        g->all->queued--;
        let_in(p);
        g->all->turn(p);
    }
    gate_unref(&g);
}

static void LOOP_ONLY
call_next(struct gate *g)
{
    if (waitq_count(&g->q) > 0 && !is_full(g))
        loop_defer(g->all->loop, &g->task, on_turn, g);
}

void
gate_set_limits(struct gate *g, const struct gate_limits *limits)
{
    g->limits = *limits;
    call_next(g);
}

void
gate_join(struct gate_pass *p, struct gate *g)
{
    CHECK(p->gate == NULL && g->all != NULL);
    p->gate = gate_ref(g);
    g->requests++;
}

enum gate_result
gate_enter(struct gate_pass *p, uint64_t flow_key)
{
    struct gate *g = p->gate;
    if (g == NULL)
        return GATE_GO;
    /* Those whose turn is on its way already come first. */
    if (!is_full(g) && waitq_count(&g->q) == 0) {
        let_in(p);
        return GATE_GO;
    }
    if (!waitq_push(&g->q, &p->waiter, flow_key))
        return GATE_NOMEM;
    g->all->queued++;
    g->waits++;
    return GATE_WAIT;
}

bool
gate_may_wait(struct gate_pass *p, size_t queue_size, size_t beside)
{
    struct gate *g = p->gate;
    if (g == NULL || p->waiting)
        return true;
    size_t share =
        queue_size / 100 * g->limits.queue_share + queue_size % 100 * g->limits.queue_share / 100;
    if (g->limits.queue_share < 100 && g->waiting >= share + beside) {
        g->refused++;
        return false;
    }
    p->waiting = true;
    g->waiting++;
    return true;
}

void
gate_stop_waiting(struct gate_pass *p)
{
    if (!p->waiting)
        return;
    p->waiting = false;
    p->gate->waiting--;
}

void
gate_leave(struct gate_pass *p)
{
    struct gate *g = p->gate;
    if (g == NULL)
        return;
    gate_stop_waiting(p);
    if (waiter_waits(&p->waiter)) {
        waitq_remove(&p->waiter);
        g->all->queued--;
    }
    if (p->inside) {
        p->inside = false;
        g->in_flight--;
        call_next(g);
    }
    gate_unref(&p->gate);
}

void
gate_view(const struct gate *g, struct gate_view *out)
{
    *out = (struct gate_view){
        .limits = g->limits,
        .in_flight = g->in_flight,
        .waiting = g->waiting,
        .requests = g->requests,
        .waits = g->waits,
        .refused = g->refused,
    };
}

void
gate_each(const struct gate *g, waitq_each_fn fn, void *arg)
{
    waitq_each(&g->q, fn, arg);
}
