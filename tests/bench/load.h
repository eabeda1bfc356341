#ifndef CHMUX_BENCH_LOAD_H
#define CHMUX_BENCH_LOAD_H
/*
 * load: the load generator's options and its engines. Each engine prints one JSON line with
 * what it saw and returns the exit status: 0 when every request was answered whole with 200 (those
 * that readers leave unread at the end aside).
 */
#include "util.h"

enum new_conn {
    NEW_CONN_NEVER,     /* keep-alive */
    NEW_CONN_BY_SERVER, /* Connection: close, and the server's EOF is waited for */
    NEW_CONN_BY_CLIENT, /* closed by the client after each whole answer */
};

struct load_options {
    struct sockaddr_in to;
    const char *target;
    char headers[512]; /* more header lines, each with its CRLF */
    uint64_t clients;
    uint64_t requests; /* 0: for seconds_ms */
    int64_t duration_ms;
    int64_t warmup_ms; /* not in the figures, except total_requests */
    enum new_conn new_conn;
    struct bytes upload_file; /* len 0: GET, or for fetch the pattern */
    struct bytes verify_file; /* len 0: not compared; else the response is that, repeated */
    uint64_t rate;            /* bytes per second read, of each client; 0: as fast as it goes */
    /* fetch only */
    uint64_t upload_bytes; /* 0: GET */
    uint64_t upload_chunk;
    uint64_t expect_bytes; /* of the response; UINT64_MAX: any */
    bool verify;           /* the response is the pattern */
    bool tls;
    const char *tls_max; /* "1.2" or "1.3" */
};

/* Closed loop: each client sends its next request when its answer is whole. */
MUST_USE int load_closed(const struct load_options *o);
/* Each client makes one request and stays; a line on stdin lets each make one more and ends it. */
MUST_USE int load_idle(const struct load_options *o);
/* Clients that read big responses side by side, each the next when one is whole, for duration_ms
 * or until SIGTERM.
 * Prints a line once every one of them has got some of its first. */
MUST_USE int load_readers(const struct load_options *o);
/* One connection, requests one after another: big bodies, latencies of a fresh process. */
MUST_USE int load_fetch(const struct load_options *o);

/* The head of each request: owned by the caller, *n bytes. framing: header lines of the body, or
 * "". */
MUST_USE char *load_head(const struct load_options *o, const char *framing, size_t *n);
#endif
