#ifndef CHMUX_PROXY_PROXY_H
#define CHMUX_PROXY_PROXY_H
/*
 * proxy: what ties listeners, clients, exchanges and the upstream pool together.
 *
 * Ownership  Owns its listeners, clients, exchanges and sessions; borrows loop, config and pools.
 * Threads    Loop only, but proxy_listen() (boot).
 */
#include "config/config.h"
#include "net/passed.h"
#include "net/tls_server.h"
#include "rt/notify.h"
#include "upstream/upools.h"

struct proxy;

/* pools are those of cfg, and live longer. */
MUST_USE struct proxy *proxy_new(
    struct loop *l, const struct config *cfg, const struct upools *pools) LOOP_ONLY;
/* Binds every configured address; why names the one that failed. Prints nothing.
 *
 * A passed socket becomes the listener of the section that has its name (whose address then is
 * empty or the same), else of the section that has its address, else one of its own; `passed` lives
 * as long as px. The one named PASSED_ADMIN is left alone. */
MUST_USE bool proxy_listen(struct proxy *px, struct passed *passed, char *why, size_t why_len)
    LOOP_ONLY;
/* What a configuration says that can be changed and takes files or memory: of listeners their TLS
 * and who may come in, and the users with their secrets. Made at leisure, staged, put in force by
 * proxy_commit(). */
struct proxy_plan;
/* Reads files: boot, --check and reload only. NULL: errors has a line for each listener whose TLS
 * cannot be, and for the first user that cannot, naming it, the file and the cause. */
MUST_USE struct proxy_plan *proxy_plan_new(const struct config *cfg, struct buf *errors) ANY_THREAD;
/* Loop only once it was staged; closes what was opened. */
void proxy_plan_free(struct proxy_plan **pp) ANY_THREAD;
/* Opens the listeners that cfg has and px has not. Passed sockets stay as they are. false: why;
 * nothing has changed then. */
MUST_USE bool proxy_stage(struct proxy *px, const struct config *cfg, struct proxy_plan *plan,
    char *why, size_t why_len) LOOP_ONLY;
/* From now on cfg is the configuration, and borrowed, instead of the one before. Listeners that it
 * has not are closed, after who is queued in them was taken; clients stay. What is under way goes
 * on, with timers as they were armed; who is connected keeps the TLS it has. Takes the plan. Has
 * any listener got another TLS? */
bool proxy_commit(struct proxy *px, const struct config *cfg, struct proxy_plan **pp) LOOP_ONLY;
/* Begins to accept. */
MUST_USE bool proxy_start(struct proxy *px) LOOP_ONLY;
/* Idle clients are to be left with it at drain, as far as it keeps them. Borrowed until px is gone.
 */
void proxy_set_keeper(struct proxy *px, struct notify *keeper) LOOP_ONLY;
/* Takes over the clients that the process before us left with the keeper. After proxy_start(). */
void proxy_take_clients(struct proxy *px, struct passed *passed) LOOP_ONLY;
/* The bound addresses, for the start-up lines: i-th, or NULL. */
const char *proxy_address(const struct proxy *px, size_t i, const char **name) LOOP_ONLY;
/* Drain: answers say Connection: close from now on; listeners close after drain_min, idle clients
 * drain_idle later; done(arg) runs once, when no client is left. */
void proxy_drain(struct proxy *px, loop_fn done, void *arg) LOOP_ONLY;
/* Requests that wait for the one before them in their session. */
size_t proxy_sessions_waiting(const struct proxy *px) LOOP_ONLY;
/* Requests that wait for others of their user (max_in_flight). */
size_t proxy_users_waiting(const struct proxy *px) LOOP_ONLY;
/* Gauges that are computed, not kept. */
void proxy_update_metrics(const struct proxy *px) LOOP_ONLY;
bool proxy_is_draining(const struct proxy *px) LOOP_ONLY;
/* Cuts what still runs; how many requests that were. */
size_t proxy_cut(struct proxy *px) LOOP_ONLY;
/* Nobody is left: after proxy_cut() and the deferred work it left. */
void proxy_free(struct proxy **pp) LOOP_ONLY;
#endif
