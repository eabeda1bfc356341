#ifndef CHMUX_UPSTREAM_UPOOLS_H
#define CHMUX_UPSTREAM_UPOOLS_H
/*
 * upools: one pool for each [upstream] section, in the order of cfg->upstream: the default one is
 * the first.
 *
 * Ownership  Owns the pools.
 * Threads    Loop only.
 */
#include "upstream/upool.h"

struct upools { /* zero it before the first use */
    struct upool *pool[CONFIG_MAX_UPSTREAM];
    size_t count;
};

/* cfg is borrowed until upools_commit() brings another. false: why names the upstream and says what
 * is wrong; nothing is open then. */
MUST_USE bool upools_open(struct upools *us, struct loop *l, struct resolver *r,
    const struct config *cfg, char *why, size_t why_len) LOOP_ONLY;
void upools_start(struct upools *us) LOOP_ONLY;
/* Nobody holds a lease or waits. Idempotent. */
void upools_close(struct upools *us) LOOP_ONLY;

/* Another configuration, for all pools or for none: see upool_plan_new() and what follows it. */
struct upools_plan { /* zero it before the first use */
    struct upool_plan *plan[CONFIG_MAX_UPSTREAM];
    const struct config *cfg; /* borrowed */
};
/* May block. false: why; nothing is open then. */
MUST_USE bool upools_plan_open(
    struct upools_plan *up, const struct config *cfg, char *why, size_t why_len) ANY_THREAD;
/* Loop only once it was staged. Idempotent. */
void upools_plan_close(struct upools_plan *up) ANY_THREAD;
/* Refuses other upstreams than there are: only a restart brings or ends one. */
MUST_USE bool upools_stage(struct upools *us, struct upools_plan *up, char *why, size_t why_len)
    LOOP_ONLY;
/* Closes the plan. Were the TLS files of one others than before? */
bool upools_commit(struct upools *us, struct upools_plan *up) LOOP_ONLY;

/* The pool of that name; NULL: there is none. */
struct upool *upools_find(const struct upools *us, const char *name) LOOP_ONLY;
/* Sums, and the longest queue_timeout; paused: all are. */
void upools_stats(const struct upools *us, struct upool_stats *out) LOOP_ONLY;
/* Does one of them seem up? See upool_seems_up(). */
bool upools_seem_up(const struct upools *us) LOOP_ONLY;
void upools_update_metrics(const struct upools *us) LOOP_ONLY;
#endif
