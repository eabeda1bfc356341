#ifndef CHMUX_PROXY_PROXY_VIEW_H
#define CHMUX_PROXY_PROXY_VIEW_H
/*
 * proxy_view: what the control API shows of the proxy, and the one thing it does to a request.
 *
 * Lifetime   Views, and the texts in them, are good for the call. A callback that says false ends
 * the round; none may change the proxy. Secrets    No view holds a header, a body, a parameter or a
 * session id: queries may carry passwords. Who wants the text of a query asks ClickHouse for it, by
 * its query id. Cost       A round visits only what it tells, but for each client a system call
 * asks for its peer: callers set a limit.
 */
#include "proxy/proxy.h"

#define PROXY_VIEW_PATH 160

struct proxy_client_view {
    uint64_t id, served;
    const char
        *state;       /* "handshake", "idle", "head": a request head has begun, "busy", "closing" */
    const char *peer; /* its address; "unix" */
    const char *local; /* the address it came to */
    int64_t uid, pid;  /* of a unix peer, as it connected; -1: not known */
    int64_t age_us;
    uint64_t exchange;                  /* that runs; 0: none */
    const char *tls;                    /* "TLSv1.3"; NULL: plain */
    const char *cert_cn, *cert_subject; /* of its certificate; "" where there is none */
};
typedef bool (*proxy_client_fn)(void *arg, const struct proxy_client_view *v); /* on the loop */
void proxy_each_client(const struct proxy *px, proxy_client_fn fn, void *arg) LOOP_ONLY;
size_t proxy_client_count(const struct proxy *px) LOOP_ONLY;

struct proxy_exchange_view {
    uint64_t id, client, conn; /* conn 0: it has no lease */
    const char *state;
    struct str user, query_id; /* query_id empty: none */
    struct str method, path;
    const char *upstream;
    const char *address; /* of the server; NULL: none yet */
    bool in_session, retried, answering;
    int status; /* of ClickHouse's answer; 0: none yet */
    int64_t age_us, queued_us;
    int64_t running_us; /* since it got its lease; -1: it has had none */
    uint64_t request_bytes, response_bytes;
    const char *request_coding, *response_coding; /* by which they are recoded; NULL: not */
};
typedef bool (*proxy_exchange_fn)(void *arg, const struct proxy_exchange_view *v); /* on the loop */
/* Oldest first. */
void proxy_each_exchange(const struct proxy *px, proxy_exchange_fn fn, void *arg) LOOP_ONLY;

struct proxy_waiter_view {
    const char *waits_for; /* "connection", "session", "user", "kill query", "server" (pinned) */
    const char *upstream;
    size_t round; /* see upool_each_waiter(), in its upstream; 0 for sessions and users too */
    int64_t waited_us;
    struct proxy_exchange_view ex; /* id 0: it is no request, but a KILL QUERY of ours */
};
typedef bool (*proxy_waiter_fn)(void *arg, const struct proxy_waiter_view *v); /* on the loop */
/* Who waits for a connection, then who waits for its session, or for others of its user. */
void proxy_each_waiter(const struct proxy *px, proxy_waiter_fn fn, void *arg) LOOP_ONLY;

struct proxy_user_view { /* of a [user NAME] section */
    struct str name;
    struct str upstream_user;  /* empty: the token says it */
    const char *secret;        /* what kind it has: "password", "token", "none" */
    size_t in_flight, waiting; /* requests now: with a connection or next for one; others */
    uint64_t max_in_flight;    /* 0: no limit */
    unsigned queue_share;      /* percent */
    uint64_t requests, waited, refused; /* ever; for max_in_flight; over queue_share */
};
typedef bool (*proxy_user_fn)(void *arg, const struct proxy_user_view *v); /* on the loop */
/* In the order of the configuration. */
void proxy_each_user(const struct proxy *px, proxy_user_fn fn, void *arg) LOOP_ONLY;
/* Metrics that have a label for each of something; for behind metric_print(). */
void proxy_print_metrics(const struct proxy *px, struct buf *out) LOOP_ONLY;

struct proxy_pipe_view {
    uint64_t exchange, client;
    const char *direction;       /* "request", "response" */
    const char *decode, *encode; /* codecs; NULL: not that */
    const char *state;           /* "open", "starved": waits for memory, "ended", "cut", "failed" */
    bool output_waits;           /* there is output that has not been taken */
    size_t room_bytes;           /* of input it takes now */
    uint64_t in_bytes, out_bytes;
};
typedef bool (*proxy_pipe_fn)(void *arg, const struct proxy_pipe_view *v); /* on the loop */
void proxy_each_pipe(const struct proxy *px, proxy_pipe_fn fn, void *arg) LOOP_ONLY;

struct proxy_error_view {
    int64_t age_us;
    const char *reason; /* X-Chmux-Error; or "clickhouse": an exception it told; "retried";
                           "kill_query_failed" */
    int status, code;   /* HTTP, ClickHouse; 0: none */
    uint64_t exchange, client, times;
    const char *upstream;
    const char *user, *query_id, *peer, *detail; /* "" where there is none */
};
typedef bool (*proxy_error_fn)(void *arg, const struct proxy_error_view *v); /* on the loop */
/* The last ones, newest first. */
void proxy_each_error(const struct proxy *px, proxy_error_fn fn, void *arg) LOOP_ONLY;

/* Of one upstream. */
size_t proxy_sessions_waiting_in(const struct proxy *px, size_t upstream) LOOP_ONLY;
/* false: no such exchange runs. */
bool proxy_kill(struct proxy *px, uint64_t exchange) LOOP_ONLY;
#endif
