#ifndef CHMUX_PROXY_GATE_H
#define CHMUX_PROXY_GATE_H
/*
 * gate: how many requests of one user may have a connection, or be in line for one, at once. Who
 * does not get in waits, without holding anything, and gets in fairly.
 *
 * Ownership  Counted: by the generation of users it belongs to, and by every pass. A pass is
 *            embedded in the request it is for.
 * Bound      max_in_flight, if over 0, on those inside. queue_share on those that wait, at the gate
 *            or behind it, once it is under 100. The caller bounds all who wait (gates.queued).
 * Threads    Loop only, but for gate_new().
 */
#include "rt/loop.h"
#include "upstream/waitq.h"

struct gate;

/* A request's place at its user's gate; zero before first use. */
struct gate_pass {
    struct gate *gate; /* counted; NULL: its user has none */
    struct waiter waiter;
    bool inside;  /* counts against max_in_flight */
    bool waiting; /* counts against queue_share */
};

/* Of all gates together. */
struct gates {
    struct loop *loop;
    void (*turn)(struct gate_pass *p); /* on the loop, deferred: it has got in */
    size_t queued;                     /* wait to get in */
};

struct gate_limits {
    size_t max_in_flight; /* 0: none */
    unsigned queue_share; /* percent */
};

/* Counted once; to be opened. NULL: no memory. */
MUST_USE struct gate *gate_new(void) ANY_THREAD;
/* Before first use. */
void gate_open(struct gate *g, struct gates *all, const struct gate_limits *limits) LOOP_ONLY;
void gate_set_limits(struct gate *g, const struct gate_limits *limits) LOOP_ONLY;
struct gate *gate_ref(struct gate *g) LOOP_ONLY;
/* Nulls *gp; NULL is fine. Any thread while it is not open. */
void gate_unref(struct gate **gp) ANY_THREAD;

/* The request is one of that user's. */
void gate_join(struct gate_pass *p, struct gate *g) LOOP_ONLY;
enum gate_result {
    GATE_GO,    /* it is inside, or has no gate */
    GATE_WAIT,  /* turn() will say when it is */
    GATE_NOMEM, /* to wait */
};
/* flow_key: whose turn this counts as. */
MUST_USE enum gate_result gate_enter(struct gate_pass *p, uint64_t flow_key) LOOP_ONLY;
/* May it wait, for whatever it is? `beside`: so many can be served at once, and do not really wait.
 * true: it counts as waiting until gate_stop_waiting(). */
MUST_USE bool gate_may_wait(struct gate_pass *p, size_t queue_size, size_t beside) LOOP_ONLY;
void gate_stop_waiting(struct gate_pass *p) LOOP_ONLY;
/* The request is over, whatever it was doing. Idempotent. */
void gate_leave(struct gate_pass *p) LOOP_ONLY;

struct gate_view {
    struct gate_limits limits;
    size_t in_flight, waiting;
    uint64_t requests, waits, refused; /* ever; refused: over its share of the queue */
};
void gate_view(const struct gate *g, struct gate_view *out) LOOP_ONLY;
/* Everybody who waits to get in, in the order of their turns, as waitq_each() tells it. */
void gate_each(const struct gate *g, waitq_each_fn fn, void *arg) LOOP_ONLY;
#endif
