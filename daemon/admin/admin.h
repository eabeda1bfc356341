#ifndef CHMUX_ADMIN_ADMIN_H
#define CHMUX_ADMIN_ADMIN_H
/*
 * admin: health, metrics and control over HTTP, on addresses of their own. docs/ADMIN.md has all of
 * it; what there is and who may ask for it is one table, in admin_route.h.
 *
 *   GET /live     200 while the loop runs
 *   GET /ready    200, or 503 while draining; /ready?upstream also 503 while no upstream address
 *                 works (by what is known: nothing is dialled)
 *   GET /metrics  Prometheus text
 *   GET /         the dashboard, a page that asks for what follows
 *   /api/v1/...   JSON: what is shown (GET), and commands (POST)
 *
 * Bound      ADMIN_CLIENTS_MAX connections, each for one request and at most 10 s; answers of at
 * most 4 MiB, in which lists are cut. Threads    Loop only.
 */
#include "proxy/proxy.h"

#define ADMIN_CLIENTS_MAX 64

struct admin;

enum admin_stop {
    ADMIN_STOP_DRAIN,    /* when all that runs is done, however long that takes */
    ADMIN_STOP_SHUTDOWN, /* the same, at most drain_timeout */
    ADMIN_STOP_NOW,      /* cut what runs */
};
typedef void (*admin_stop_fn)(void *arg, enum admin_stop how); /* on the loop */

/* Listens on every address of cfg->admin.address and on the passed sockets named PASSED_ADMIN; one
 * at least is there. cfg is borrowed and outlives it. NULL: why says what failed. */
MUST_USE struct admin *admin_new(struct loop *l, const struct config *cfg, struct proxy *px,
    struct upool *pool, struct passed *passed, char *why, size_t why_len) LOOP_ONLY;
/* Who ends the process when asked to. Until then such commands are refused. */
void admin_on_stop(struct admin *a, admin_stop_fn fn, void *arg) LOOP_ONLY;
/* The i-th bound address, or NULL. */
const char *admin_address(const struct admin *a, size_t i) LOOP_ONLY;
void admin_free(struct admin **ap) LOOP_ONLY;
#endif
