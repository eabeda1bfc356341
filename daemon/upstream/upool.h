#ifndef CHMUX_UPSTREAM_UPOOL_H
#define CHMUX_UPSTREAM_UPOOL_H
/*
 * upool: the capped pool of connections to ClickHouse, and the queue of those who wait for one.
 *
 * Cap        Connecting, active, idle and closing sockets together never exceed pool_size.
 * Lease      Whoever gets a connection (a struct uconn, granted) owns it until uconn_release() or
 *            uconn_close(). Nothing client-specific stays on it.
 * Waiting    upool_try_lease() never queues; upool_wait() queues and calls back: granted() exactly
 *            once, or failed() exactly once, never before upool_wait() has returned, unless
 *            upool_cancel() came first. Both run later, never from inside a release.
 * Reuse      Idle connections are taken most recent first. They are watched: a byte or EOF closes
 *            them. They retire at idle_timeout, before the server's own keep-alive limit, at its
 *            request count and at max_age.
 * Addresses  The fewest leases first. A failing address is ejected with exponential back-off and
 *            jitter and gets a /ping before it gets traffic again, for which a full pool gives up
 *            one connection; when none is left, requests try anyway, so that errors are true
 *            and recovery is immediate. A full pool gives up a connection, now and then, of
 *            the server with the most for one that has at least two fewer.
 * Threads    Loop only.
 */
#include "base/err.h"
#include "base/metric.h"
#include "config/config.h"
#include "net/conn.h"
#include "net/resolver.h"
#include "upstream/waitq.h"

struct upool;
struct uconn;
struct uaddr; /* one address of one endpoint: a server process, as far as sessions are concerned */

typedef void (*upool_granted_fn)(void *arg, struct uconn *uc);              /* on the loop */
typedef void (*upool_failed_fn)(void *arg, enum err e, const char *detail); /* on the loop */

struct upool_waiter { /* embed; zero, then fill the four below */
    upool_granted_fn granted;
    upool_failed_fn failed;
    void *arg;
    struct uaddr *pin; /* only this address; NULL: any. Borrowed, counted by the owner */
    bool fresh;        /* only a connection that has served nothing yet */
    struct waiter w;   /* the pool's from here on */
    struct mono since;
};

/* name is the upstream's, for metrics and the log, and copied. cfg is borrowed until upool_commit()
 * brings another. NULL: why says what is wrong (URL, certificate file, ...). */
MUST_USE struct upool *upool_new(struct loop *l, struct resolver *r, const char *name,
    const struct config_upstream *cfg, int64_t stall_us, char *why, size_t why_len) LOOP_ONLY;
/* Good as long as the pool. */
const char *upool_name(const struct upool *p) LOOP_ONLY;
/* Where its metrics are counted: see base/metric.h. */
unsigned upool_metrics(const struct upool *p) LOOP_ONLY;
/*
 * Another configuration, in three steps, of which the last cannot fail. Connections to servers and
 * with certificates that are no longer in force retire: idle ones now, leased ones when their
 * request is done. Counters and what is known of addresses that stay survive.
 */
struct upool_plan;
/* Reads the files that cfg names, so it may block. cfg is borrowed. NULL: why. */
MUST_USE struct upool_plan *upool_plan_new(
    const struct config_upstream *cfg, char *why, size_t why_len) ANY_THREAD;
/* Loop only once it was staged. */
void upool_plan_free(struct upool_plan **pp) ANY_THREAD;
/* Makes ready all else that commit needs. Nothing has changed yet. */
MUST_USE bool upool_stage(struct upool *p, struct upool_plan *plan, char *why, size_t why_len)
    LOOP_ONLY;
/* Takes *pp, and borrows its cfg from now on. Were the TLS files others than before? */
bool upool_commit(struct upool *p, struct upool_plan **pp, int64_t stall_us) LOOP_ONLY;

/* Begins to resolve names and to keep min_idle connections warm. */
void upool_start(struct upool *p) LOOP_ONLY;
/* Closes idle connections and opens none ahead of need any more; waiters are still served. */
void upool_drain(struct upool *p) LOOP_ONLY;
/* While paused nobody gets a lease and nothing connects, as when ClickHouse is restarted: who comes
 * waits, under queue_size and queue_timeout as always. Leases that are out go on. */
void upool_pause(struct upool *p, bool pause) LOOP_ONLY;
/* Idle connections are closed now, leased ones instead of going back. Counts both. */
void upool_reconnect(struct upool *p, size_t *idle, size_t *active) LOOP_ONLY;
/* Nobody holds a lease or waits. */
void upool_free(struct upool **pp) LOOP_ONLY;

/* An idle connection at once, or NULL: none, or others wait already. The one with prefer_id (see
 * uconn_id(); 0: no wish) if it is idle, else the most recently used. */
MUST_USE struct uconn *upool_try_lease(struct upool *p, struct uaddr *pin, uint64_t prefer_id)
    LOOP_ONLY;
/* ERR_OK, ERR_QUEUE_FULL or ERR_NOMEM. flow_key: whose turn this counts as. */
MUST_USE enum err upool_wait(struct upool *p, struct upool_waiter *w, uint64_t flow_key) LOOP_ONLY;
/* So many who come now could have a connection at once, or as soon as it is made. */
size_t upool_room(const struct upool *p) LOOP_ONLY;
/* Ahead of all flows, past queue_size: for what was admitted already. */
void upool_wait_urgent(struct upool *p, struct upool_waiter *w) LOOP_ONLY;
/* No-op when it does not wait. */
void upool_cancel(struct upool_waiter *w) LOOP_ONLY;
static inline bool
upool_waits(const struct upool_waiter *w)
{
    return waiter_waits(&w->w);
}

/* What the holder of a lease uses. */
struct conn *uconn_stream(struct uconn *uc) LOOP_ONLY;
/* fn(arg) runs when the stream became ready. */
void uconn_set_handler(struct uconn *uc, conn_fn fn, void *arg) LOOP_ONLY;
bool uconn_is_reused(const struct uconn *uc) LOOP_ONLY; /* it has served a request before */
uint64_t uconn_id(const struct uconn *uc) LOOP_ONLY;
struct uaddr *uconn_addr(const struct uconn *uc) LOOP_ONLY;
/* Much is about to be sent: allow the server to stop reading for stall_timeout before the kernel
 * gives the connection up (TCP_USER_TIMEOUT). Good until uconn_release(). */
void uconn_expect_stall(struct uconn *uc) LOOP_ONLY;

struct uconn_end {         /* what the response said about the connection */
    int64_t keep_alive_us; /* server's idle limit; 0: not said */
    uint64_t max_left;     /* requests left; UINT64_MAX: not said */
};
/* The exchange ended exactly on its framing, on both sides: back to the pool. */
void uconn_release(struct uconn *uc, const struct uconn_end *end) LOOP_ONLY;
/* The request was cut inside its body: close with a reset, so that the server cannot take a plain
 * end of stream for the end of the data. Call before uconn_close(). */
void uconn_reset_on_close(struct uconn *uc) LOOP_ONLY;
/* Anything else: closed, counted under `reason` (an M_CLOSE_* or M_STALE). */
void uconn_close(struct uconn *uc, enum metric_id reason) LOOP_ONLY;
/* This lease died before its first response byte. A reused one takes idle connections of the same
 * age to the same address with it; fresh ones that do so again and again eject the address. Call
 * before uconn_close(). */
void uconn_died_unanswered(struct uconn *uc) LOOP_ONLY;
/* Something came back. */
void uconn_answered(struct uconn *uc) LOOP_ONLY;
/* Its address has never answered, and no TLS is spoken with it: what may be wrong. Else NULL. */
const char *uconn_silence_hint(const struct uconn *uc) LOOP_ONLY;

/* Counted, so that a session may keep its address. */
struct uaddr *uaddr_ref(struct uaddr *a) LOOP_ONLY;
void uaddr_unref(struct uaddr **ap) LOOP_ONLY;
/* The name no longer resolves to it. */
bool uaddr_is_gone(const struct uaddr *a) LOOP_ONLY;
/* Does host_header ask for the server's own name in Host? */
bool upool_names_host(const struct upool *p) LOOP_ONLY;
struct str uaddr_authority(const struct uaddr *a) LOOP_ONLY; /* Host: value */
const char *uaddr_text(const struct uaddr *a) LOOP_ONLY;     /* for logs */

struct upool_stats {
    size_t cap, connecting, active, idle, closing, waiting, queue_size;
    int64_t queue_timeout_us;
    size_t addresses_up, addresses_ejected;
    bool paused;
};
void upool_stats(const struct upool *p, struct upool_stats *out) LOOP_ONLY;
/* Is there reason to believe that ClickHouse can be reached: a connection is open, or an address is
 * not ejected. Dials nothing. */
bool upool_seems_up(const struct upool *p) LOOP_ONLY;
/* Gauges that are computed, not kept. */
void upool_update_metrics(const struct upool *p) LOOP_ONLY;

/* What the control API shows. Views and the texts in them are good for the call; a callback that
 * says false ends the round, and changes nothing in the pool. */
struct upool_conn_view {
    uint64_t id, served;
    const char *state;
    const char *address; /* NULL: none is being tried */
    int64_t age_us;      /* since the connect began */
    int64_t idle_us;     /* -1: not idle */
    bool tls, retiring;
};
typedef bool (*upool_conn_fn)(void *arg, const struct upool_conn_view *v); /* on the loop */
void upool_each_conn(const struct upool *p, upool_conn_fn fn, void *arg) LOOP_ONLY;

struct upool_addr_view {
    const char *host; /* of the URL */
    uint16_t port;
    bool tls;
    const char *address; /* NULL: the name has none yet; then the rest is empty */
    bool up;
    bool unroutable;    /* not up, but its name has one of the other IP version that is */
    int64_t ejected_us; /* for so long; -1: it is up */
    int64_t probe_us;   /* until the next /ping; -1: none is due */
    int fails;          /* in a row */
    size_t connecting, active, idle;
    uint64_t leases;
    const char *why; /* of the last failure; "" */
};
typedef bool (*upool_addr_fn)(void *arg, const struct upool_addr_view *v); /* on the loop */
void upool_each_addr(const struct upool *p, upool_addr_fn fn, void *arg) LOOP_ONLY;

/* `round`: 0 ahead of all, then 1 for the first of each flow, 2 for the second: who has the lower
 * round comes first, and within a round who is told first. */
typedef bool (*upool_waiter_fn)(
    void *arg, const struct upool_waiter *w, size_t round); /* on the loop */
void upool_each_waiter(const struct upool *p, upool_waiter_fn fn, void *arg) LOOP_ONLY;
#endif
