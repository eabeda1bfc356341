#ifndef CHMUX_RT_ASIDE_H
#define CHMUX_RT_ASIDE_H
/*
 * aside: one blocking job at a time, on a thread of its own, for what the loop must not wait for
 * and does rarely (reading files at a reload).
 *
 * Ownership  aside_start() takes the job on success. done() gives it back, on the loop; drop() ends
 *            it instead, on whichever thread is last, when nobody waits for it any more.
 * Threads    Loop only; the three functions of a job say where they run.
 * Bound      One job under way. Its thread ends with it.
 * Shutdown   aside_free() calls nobody back, and waits for a job, but not for ever: the thread is
 *            detached, and what it shares is freed by whoever leaves last.
 */
#include "rt/bq.h"
#include "rt/loop.h"

struct aside;
struct aside_shared;
struct aside_job;
typedef void (*aside_fn)(struct aside_job *job);

struct aside_job { /* embed; zero, then fill the three */
    aside_fn run;  /* on the job's thread, which is a worker; may block */
    aside_fn done; /* on the loop */
    aside_fn drop; /* any thread */
    struct bq_item item;
    struct aside_shared *shared;
};

/* NULL: no memory or descriptors. */
MUST_USE struct aside *aside_new(struct loop *l) LOOP_ONLY;
/* Waits for the thread, at most so many microseconds. false: it runs still, and uses what its job
 * points to. */
MUST_USE bool aside_free(struct aside **ap, int64_t wait_us) LOOP_ONLY;
/* done() comes later, never before this returns. false: one is under way, or there is no thread to
 * be had. */
MUST_USE bool aside_start(struct aside *a, struct aside_job *job) LOOP_ONLY;
#endif
