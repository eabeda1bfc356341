#ifndef CHMUX_PROXY_PROXY_IMPL_H
#define CHMUX_PROXY_PROXY_IMPL_H
/*
 * proxy_impl: the objects of the proxy layer, shared by its files and nobody else.
 *
 *   proxy     listeners, drain, the lists
 *   client    a local connection: reads heads, one exchange at a time, keep-alive, farewell
 *   exchange  one request's life, tied to at most one lease
 *   session   requests of one session_id, one after another, on one address
 *   kill      KILL QUERY for a query whose client left
 */
#include "base/err.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/metric.h"
#include "clickhouse/ch.h"
#include "http/http.h"
#include "proxy/proxy.h"

struct exchange;
struct session;
struct sessions;

struct proxy {
    struct loop *loop;
    const struct config *cfg;
    struct upool *pool;
    struct sessions *sessions;
    struct listener listeners[CONFIG_MAX_LISTEN];
    const char *listener_name[CONFIG_MAX_LISTEN];
    size_t listener_count;
    struct list clients;
    size_t client_count;
    struct list starved; /* exchanges that wait for memory */
    struct timer starved_timer;
    struct list spare; /* exchanges to use again */
    size_t spare_count;
    struct list kills; /* KILL QUERY requests under way */
    size_t kill_count;
    struct http_req req;                /* scratch: the head being parsed */
    struct buf busy_reply, nomem_reply; /* made at boot: telling needs no memory */
    char keep_alive_lines[80];
    size_t keep_alive_len;
    bool draining, listening;
    struct timer drain_timer;
    loop_fn drain_done;
    void *drain_arg;
    struct loop_task drain_task;
    uint64_t next_client_id, next_exchange_id;
};

/* Something ended: if the drain waited for it, say so. */
void proxy_check_drained(struct proxy *px) LOOP_ONLY;

/* ---- client ---- */

enum client_state {
    CLIENT_IDLE,   /* between requests, or inside a head */
    CLIENT_BUSY,   /* an exchange runs */
    CLIENT_LINGER, /* answered and shut down; reads what still comes, so that no reset eats the
                      answer */
    CLIENT_CLOSED,
};

#define CLIENT_MAGIC 0x636c6e74u

struct client {
    uint32_t magic;
    enum client_state state;
    struct proxy *px;
    struct exchange *ex; /* owned while BUSY */
    struct conn conn;
    struct timer timer; /* head, idle, linger; lent to the exchange while BUSY */
    struct list link;
    struct loop_task task; /* go on reading, or free */
    struct buf in;         /* read and not used yet: part of a head, or what follows a request */
    size_t in_scanned;
    uint64_t id, served, peer_key;
    int64_t linger_left;
    bool is_unix;
};

void client_accept(struct proxy *px, int fd, const struct addr *peer) LOOP_ONLY;
enum farewell {
    FAREWELL_KEEP,   /* the connection may serve another request */
    FAREWELL_CLOSE,  /* all that the client sent was read */
    FAREWELL_LINGER, /* the client may still be sending */
    FAREWELL_RESET,  /* what it got must not look whole */
    FAREWELL_GONE,   /* it left */
};
/* The exchange is over and its answer is flushed. *rest: unused bytes behind the request (taken,
 * nulled); may be NULL. */
void client_exchange_done(struct client *c, struct blk **rest, enum farewell how) LOOP_ONLY;
/* Closes now, whatever runs. */
void client_close(struct client *c) LOOP_ONLY;
/* Closes if no request runs and no head has begun. */
void client_close_if_idle(struct client *c) LOOP_ONLY;
/* Whose turn a request of this client counts as. */
uint64_t client_flow_key(struct client *c, struct str user) LOOP_ONLY;

/* ---- exchange ---- */

/* state, successors, what ends it */
#define EX_STATES(X)                                                                               \
    X(QUEUED, TO(SENDING) | TO(REPLYING) | TO(DONE))                                               \
    /* waits for its session or a lease */                                                         \
    X(SENDING, TO(QUEUED) | TO(RECEIVING) | TO(REPLYING) | TO(FLUSHING) | TO(DONE))                \
    /* request streams up, the response may have begun; QUEUED again: retry */                     \
    X(RECEIVING, TO(QUEUED) | TO(SENDING) | TO(REPLYING) | TO(FLUSHING) | TO(DONE))                \
    /* request sent whole; response streams down; SENDING again: a tunnel began */                 \
    X(FLUSHING, TO(DONE))                                                                          \
    /* the lease is gone; what was received goes to the client */                                  \
    X(REPLYING, TO(DONE))                                                                          \
    /* an error of our own goes to the client */                                                   \
    X(DONE, 0)

enum ex_state {
#define X(name, next) EX_##name,
    EX_STATES(X)
#undef X
};

enum ex_phase { PHASE_STATUS, PHASE_FIELDS, PHASE_BODY, PHASE_END }; /* of the response */

#define EXCHANGE_MAGIC 0x65786368u

/*
 * Two streams, each "source, framing check, sink". They copy nothing: the bytes of a block are
 * checked in place and written from there. This is where pipes (codecs) will be put between.
 *
 *   up    client (or what came with the head) -> up_body -> upstream, after the head
 *   down  upstream -> response head, then down_body -> client
 */
struct exchange {
    uint32_t magic;
    enum ex_state state;
    struct client *client;
    struct proxy *px;
    struct uconn *uc; /* the lease, or NULL */
    struct upool_waiter waiter;
    struct list starved_link;
    struct list spare_link;
    struct loop_task task; /* budget spent: go on later */
    uint64_t id;

    /* the request */
    enum http_method method;
    int minor;
    bool client_keep; /* the client allows another request after this one */
    bool expect, upgrade, names_host;
    struct ch_request ch;
    struct session *session;
    struct list session_link; /* waits for its turn in the session */

    /* up */
    struct buf head;          /* as ClickHouse gets it */
    size_t host_at, host_len; /* the Host line inside it */
    size_t head_sent;
    struct http_body up_body;
    struct blk *up;     /* body bytes from the socket; else they are in client->in */
    size_t up_valid;    /* checked and unsent bytes at the front of the source */
    struct buf replay;  /* a copy of the body sent so far, while that is complete */
    size_t replay_sent; /* on a retry: how much of it has gone again */
    bool keep_replay, replaying;
    uint64_t up_bytes; /* all body bytes sent */
    bool up_done, up_broken;

    /* down */
    enum ex_phase phase;
    struct http_status status;
    struct http_meta meta;
    enum http_framing framing;
    struct http_body down_body;
    struct blk *down;
    size_t down_valid; /* checked and unsent bytes at the front of down */
    struct buf out;    /* head, or our own reply, for the client */
    size_t out_ready;  /* of out, may be written: heads wait until they are whole */
    size_t out_sent;
    size_t out_mark;     /* where the current response head begins in out */
    struct buf listed;   /* what its Connection field names, if it does */
    bool got_byte;       /* the upstream answered something */
    bool saw_progress;   /* unfinished head holds lines that must not wait */
    bool dechunk;        /* HTTP/1.0 client: payload only */
    bool tunnel;         /* after 101 */
    bool cut;            /* ends short for the client */
    bool down_closing;   /* Connection: close was told */
    uint64_t down_bytes; /* everything written to the client */
    uint64_t interim;    /* how much of that, or of what waits in out, is 1xx responses */
    int exception_code;

    /* life */
    bool retried, reused;
    bool looked; /* whether the client is still there, once the query proved to be no short one */
    enum err err;
    struct mono start, leased, first, progress;
};

/* Takes a parsed head: r is the scratch, b the block its bytes are in (NULL: client->in). On return
 * the client may be busy, answered already, or closed. */
void exchange_start(struct client *c, const struct http_req *r, struct blk *b) LOOP_ONLY;
/* The client's socket or timer woke. */
void exchange_on_client(struct exchange *ex) LOOP_ONLY;
void exchange_on_timer(struct exchange *ex) LOOP_ONLY;
/* The session's turn has come. */
void exchange_on_session(struct exchange *ex) LOOP_ONLY;
/* Chmux stops: cut it. */
void exchange_abort(struct exchange *ex) LOOP_ONLY;
void exchange_on_memory(struct exchange *ex) LOOP_ONLY;
void exchange_free_spares(struct proxy *px) LOOP_ONLY;

/* Between the files of the exchange. */
void ex_goto(struct exchange *ex, enum ex_state to) LOOP_ONLY;
void ex_pump(struct exchange *ex) LOOP_ONLY;
/* Others first, then ex_pump(). */
void ex_later(struct exchange *ex) LOOP_ONLY;
/* Our own error, or a cut when the response has begun. detail may be NULL. */
void ex_fail(struct exchange *ex, enum err e, const char *detail) LOOP_ONLY;
void ex_client_gone(struct exchange *ex) LOOP_ONLY;
/* The upstream connection ended or broke before the response was whole. */
void ex_upstream_lost(struct exchange *ex, const char *why) LOOP_ONLY;
void ex_starve(struct exchange *ex) LOOP_ONLY;
enum step { STEP_DRY, STEP_MOVED, STEP_ENDED }; /* ENDED: the exchange has changed state */
enum step ex_pump_up(struct exchange *ex) LOOP_ONLY;
enum step ex_pump_down(struct exchange *ex) LOOP_ONLY;
MUST_USE bool ex_compose_head(struct exchange *ex, const struct http_req *r) LOOP_ONLY;
MUST_USE bool ex_set_host(struct exchange *ex) LOOP_ONLY;
void ex_access_log(const struct exchange *ex, bool complete) LOOP_ONLY;
/* Is there anything for the client that has not been written? */
static inline bool
ex_has_output(const struct exchange *ex)
{
    return ex->out_sent < ex->out_ready || ex->down_valid > 0;
}

/* ---- sessions ---- */

MUST_USE struct sessions *sessions_new(struct proxy *px) LOOP_ONLY;
void sessions_free(struct sessions **sp) LOOP_ONLY;
enum session_result { SESSION_GO, SESSION_WAIT, SESSION_NOMEM };
/* Joins ex to its session: GO when it may run now (ex->session->addr is the pin, or NULL). */
MUST_USE enum session_result session_enter(struct sessions *ss, struct exchange *ex) LOOP_ONLY;
/* ex ran on this address: the session stays there. */
void session_ran_on(struct session *s, struct uconn *uc) LOOP_ONLY;
struct uaddr *session_pin(const struct session *s) LOOP_ONLY;
uint64_t session_last_conn(const struct session *s) LOOP_ONLY;
/* ex has finished with ClickHouse, or stopped waiting. The next one's turn comes from a deferred
 * call. */
void session_leave(struct exchange *ex) LOOP_ONLY;
size_t sessions_waiting(const struct sessions *ss) LOOP_ONLY;

/* ---- kill ---- */

/* Sends KILL QUERY for the query of this request head, on the address it ran on. */
void kill_query(struct proxy *px, struct str head, struct str query_id, struct uaddr *at) LOOP_ONLY;
/* Gives up those under way; for the end. */
void kills_abort(struct proxy *px) LOOP_ONLY;
#endif
