#ifndef CHMUX_ADMIN_ADMIN_H
#define CHMUX_ADMIN_ADMIN_H
/*
 * admin: health and metrics over HTTP, on an address of its own.
 *
 *   GET /live     200 while the loop runs
 *   GET /ready    200, or 503 while draining; /ready?upstream also 503 while no upstream address
 *                 works (by what is known: nothing is dialled)
 *   GET /metrics  Prometheus text
 *
 * Bound      ADMIN_CLIENTS_MAX connections, each for at most 10 s.
 * Threads    Loop only.
 */
#include "proxy/proxy.h"

#define ADMIN_CLIENTS_MAX 64

struct admin;

/* Listens on the passed socket named PASSED_ADMIN, else on cfg->admin.address; one of the two is
 * there, and if both are, they agree. NULL: why says what failed. */
MUST_USE struct admin *admin_new(struct loop *l, const struct config *cfg, struct proxy *px,
    struct upool *pool, struct passed *passed, char *why, size_t why_len) LOOP_ONLY;
const char *admin_address(const struct admin *a) LOOP_ONLY;
void admin_free(struct admin **ap) LOOP_ONLY;
#endif
