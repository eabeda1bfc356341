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

/* How a reload ended. */
struct admin_reload {
    bool ok;
    const char *message; /* one line: what it did, or the first error */
    struct str lines;    /* all errors, or warnings if ok, each with its line end */
    const struct config_changes *changes;
    int64_t at_unix_ms;
};
/* Begins a reload and returns its number, which is not 0. What is asked for while one runs gets the
 * number of the next: what has changed since that one read its files is to be seen. */
typedef uint64_t (*admin_reload_fn)(void *arg); /* on the loop */

/* Listens on every address of cfg->admin.address and on the passed sockets named PASSED_ADMIN; one
 * at least is there. cfg is borrowed until admin_commit() brings another. NULL: why says what
 * failed. */
MUST_USE struct admin *admin_new(struct loop *l, const struct config *cfg, struct proxy *px,
    const struct upools *pools, struct passed *passed, char *why, size_t why_len) LOOP_ONLY;
/* Who ends the process when asked to. Until then such commands are refused. */
void admin_on_stop(struct admin *a, admin_stop_fn fn, void *arg) LOOP_ONLY;
/* Who reloads the configuration when asked to. */
void admin_on_reload(struct admin *a, admin_reload_fn fn, void *arg) LOOP_ONLY;
/* The reload of this number is over: all who asked for it, or for one before it, are answered. What
 * `how` points to is shown until the next call, and borrowed until then. */
void admin_reloaded(struct admin *a, uint64_t number, const struct admin_reload *how) LOOP_ONLY;
/* May this configuration be put in force? false: why. */
MUST_USE bool admin_may_commit(
    const struct admin *a, const struct config *cfg, char *why, size_t why_len) LOOP_ONLY;
void admin_commit(struct admin *a, const struct config *cfg) LOOP_ONLY;
/* The i-th bound address, or NULL. */
const char *admin_address(const struct admin *a, size_t i) LOOP_ONLY;
void admin_free(struct admin **ap) LOOP_ONLY;
#endif
