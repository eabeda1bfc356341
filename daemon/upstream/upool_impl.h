#ifndef CHMUX_UPSTREAM_UPOOL_IMPL_H
#define CHMUX_UPSTREAM_UPOOL_IMPL_H
/*
 * upool_impl: what upool.c (cap, lists, queue), uconn.c (one connection) and endpoint.c (names,
 * addresses, ejection) share. Nobody else includes it.
 */
#include "net/addr.h"
#include "upstream/upool.h"

#define UPOOL_MAX_ADDRS    64
#define ENDPOINT_MAX_ADDRS 16 /* of one name */
#define WHY_MAX            256

struct endpoint {
    struct upool *pool;
    int refs; /* the pool's own, and each address that it ever had and somebody still holds */
    bool started;
    struct config_url url;
    char authority[280]; /* host:port for the Host field */
    char server_name[256];
    struct resolver_job *job;
    struct timer resolve_timer;
    struct mono looked_up_at;
    int resolve_fails;
    bool is_name;   /* not an address */
    bool resolved;  /* at least once */
    size_t ignored; /* addresses there was no place for, at the last look-up */
};

enum uaddr_state { UADDR_UP, UADDR_EJECTED };

struct uaddr {
    struct endpoint *ep; /* counted */
    struct addr addr;
    char text[ADDR_TEXT_MAX];
    unsigned index; /* bit in uconn.tried */
    int refs;       /* the pool's own, connections, sessions */
    enum uaddr_state state;
    bool gone;
    bool probing;
    bool probe_waits; /* it is due, but the pool is full */
    bool no_route;    /* of the last failure: this machine cannot send there */
    int fails;        /* in a row, connects */
    struct mono ejected_at;
    struct mono silent_at; /* it was left for another after a short try; 0: not since it worked */
    int unanswered;        /* in a row, fresh connections that died without an answer */
    bool has_answered;
    size_t connecting, active, idle;
    uint64_t leases; /* given out, ever: the tie-break between equally loaded ones */
    struct timer probe_timer;
    char why[WHY_MAX]; /* of the last failure */
};

/* name, what it is */
#define UCONN_STATES(X)                                                                            \
    X(UCONN_CONNECTING, "connecting") /* TCP, then TLS, over one address after the other */        \
    X(UCONN_PROBING, "probing")       /* /ping to an ejected address */                            \
    X(UCONN_IDLE, "idle")                                                                          \
    X(UCONN_ACTIVE, "active")   /* leased */                                                       \
    X(UCONN_CLOSING, "closing") /* we said goodbye; the server has not yet */                      \
    X(UCONN_CLOSED, "closed")

enum uconn_state {
#define X(name, text) name,
    UCONN_STATES(X)
#undef X
};

enum dial {
    DIAL_FOR_WAITER,
    DIAL_AHEAD, /* of need: nobody waits for it */
    DIAL_PROBE, /* /ping to an ejected address */
};

#define UCONN_MAGIC 0x75636f6eu

struct uconn {
    uint32_t magic;
    enum uconn_state state;
    struct upool *pool;
    struct uaddr *addr; /* counted; the one being tried while connecting */
    struct uaddr *pin;  /* counted: only this one may be tried; NULL: any */
    struct conn conn;
    struct list link; /* on the pool's list of its state */
    struct loop_task free_task;
    struct timer timer; /* connect slice, or idle life */
    conn_fn handler;
    void *handler_arg;
    uint64_t id, served;
    /* Address bits: had a try in this pass; had one at all; failed for good. */
    uint64_t tried, had_try, refused;
    struct mono dial_start, dial_deadline, tls_start, retire_at, idle_since;
    bool no_route;
    bool pinned;    /* its last holder could use no other address */
    bool last_pass; /* every address had its short try: slow ones share the time that is left */
    bool tcp_done, tls_done, probe, ahead, patient, reset;
    bool starved;  /* an address could not be tried, for want of what is ours */
    bool retiring; /* closed instead of going back, counted as this: */
    enum metric_id retire_as;
    char why[WHY_MAX];
};

struct upool {
    struct loop *loop;
    struct resolver *resolver;
    char name[METRIC_NAME_MAX];
    unsigned metrics; /* the set they are counted in */
    const struct config_upstream *cfg;
    int64_t stall_us;
    struct tls_ctx *tls;         /* NULL: no https URL */
    uint64_t tls_print;          /* of what tls was made from */
    struct endpoint **endpoints; /* counted */
    size_t endpoint_count;
    struct uaddr *addrs[UPOOL_MAX_ADDRS];          /* by index; NULL: free */
    struct list connecting, idle, active, closing; /* idle: most recently used first */
    size_t connecting_count, probing_count, idle_count, active_count, closing_count;
    size_t addr_end; /* one past the last used place in addrs */
    struct waitq q;
    struct loop_task serve_task;
    struct timer serve_timer; /* what cannot be done now is tried again then */
    struct mono rebalanced_at;
    uint64_t next_id;
    bool started, draining, stopping, paused;
    bool addresses_left; /* some were dropped: waiters may be pinned to them */
    bool starved;        /* we lacked what a socket takes, and have not connected since */
    bool dials_wait;     /* until serve_timer ends */
};

static inline size_t
upool_total(const struct upool *p)
{
    return p->connecting_count + p->idle_count + p->active_count + p->closing_count;
}

/* upool.c */
void upool_goto(struct uconn *uc, enum uconn_state to) LOOP_ONLY; /* lists, counts, gauges */
void upool_kick(struct upool *p) LOOP_ONLY;                       /* serve soon */
/* The address `pin` was tried and failed; NULL: every one. Tells those who wait for just that. */
void upool_dial_failed(struct upool *p, const struct uaddr *pin, const char *why) LOOP_ONLY;
/* Not even that, for want of descriptors or the like: later again. Who waits goes on waiting. */
void upool_dial_starved(struct upool *p, const char *why) LOOP_ONLY;
void upool_close_idle_of(struct upool *p, const struct uaddr *a, struct mono idle_before,
    enum metric_id reason) LOOP_ONLY;

/* Closed now if it is idle or still connecting, else when its request is done. */
void upool_retire(struct uconn *uc, enum metric_id reason) LOOP_ONLY;
/* More than pool_size, by a reload: what is idle is closed. */
void upool_trim(struct upool *p) LOOP_ONLY;
bool upool_is_over(const struct upool *p) LOOP_ONLY;
bool upool_is_full(const struct upool *p) LOOP_ONLY;
/* Must this one, which was just released, go to make room for a connection to another server? */
bool upool_needs_room_of(struct upool *p, const struct uconn *uc) LOOP_ONLY;

/* Is there room under the cap, and under connect_concurrency, and were sockets to be had? */
bool upool_may_dial(const struct upool *p) LOOP_ONLY;

/* uconn.c */
/* Can this idle connection be leased? If it turns out dead it is closed on the spot. */
MUST_USE bool uconn_is_fit(struct uconn *uc) LOOP_ONLY;
/* Starts a connection attempt; false: nothing to try (no address) or no memory. */
MUST_USE bool uconn_dial(struct upool *p, struct uaddr *pin, enum dial kind) LOOP_ONLY;
/* The end of a connection in any state. If the server does not know yet, its slot stays taken until
 * it does, or for a short grace: it would count one more connection than the cap else. */
void uconn_destroy(struct uconn *uc, enum metric_id reason) LOOP_ONLY;
/* Gives up an attempt to connect, without a word about its address. */
void uconn_abandon(struct uconn *uc) LOOP_ONLY;
/* idle_timeout, keepalive_margin or max_age have changed; `older` us were added to max_age. */
void uconn_new_limits(struct uconn *uc, int64_t older) LOOP_ONLY;

/* endpoint.c */
/* NULL: why says what is wrong with the URL, or that there is no memory. */
MUST_USE struct endpoint *endpoint_new(struct upool *p, const char *url, char *why, size_t why_len)
    LOOP_ONLY;
void endpoint_start(struct endpoint *ep) LOOP_ONLY;
/* Its addresses are gone; it lives until nobody holds one of them. Nulls *epp. */
void endpoint_retire(struct endpoint **epp) LOOP_ONLY;
/* Name for SNI and verification by this configuration; does it differ from the one before? */
bool endpoint_set_server_name(struct endpoint *ep, const struct config_upstream *cfg) LOOP_ONLY;
/* resolve_interval has changed. */
void endpoint_new_interval(struct endpoint *ep) LOOP_ONLY;
/* The best address whose bit is not in `tried`; ejected ones only when allowed. */
struct uaddr *uaddr_pick(const struct upool *p, uint64_t tried, bool ejected_too) LOOP_ONLY;
/* So many addresses have no bit in `tried`. */
size_t uaddr_count(const struct upool *p, uint64_t tried) LOOP_ONLY;
bool uaddr_any_up(const struct upool *p) LOOP_ONLY;
/* Ejected, but only for want of a route to addresses of its kind: the name has one of the other
 * kind that works. No server is missing. */
bool uaddr_is_unroutable(const struct uaddr *a) LOOP_ONLY;
void uaddr_succeeded(struct uaddr *a) LOOP_ONLY;
void uaddr_failed(struct uaddr *a, const char *why) LOOP_ONLY;
/* Without having brought it up: another one follows. */
void uaddr_probe_ended(struct uaddr *a) LOOP_ONLY;
/* Has another one that works at least two connections fewer? */
bool uaddr_is_crowded(const struct uaddr *a) LOOP_ONLY;
/* Whose /ping waits for room; NULL: none's. The next place that comes free is for that. */
struct uaddr *uaddr_to_probe(const struct upool *p) LOOP_ONLY;
/* Starts probes that wait, and closes what is idle for them. */
void uaddr_probe_waiting(struct upool *p) LOOP_ONLY;
/* Is a name still being looked up, so that waiting makes sense? */
bool endpoints_pending(const struct upool *p) LOOP_ONLY;
void endpoints_retry_now(struct upool *p) LOOP_ONLY;
#endif
