#ifndef CHMUX_NET_RESOLVER_H
#define CHMUX_NET_RESOLVER_H
/*
 * resolver: getaddrinfo on helper threads. Jobs go over one bounded queue, results come back over
 * another and wake the loop through an eventfd.
 *
 * Ownership  The resolver owns its jobs. A request that was cancelled is never called back. A job
 *            is gone once fn was called: the caller forgets its pointer there.
 * Bound      RESOLVER_MAX_JOBS under way; more are refused (the caller tries again later). A
 *            cancelled look-up counts until a helper is through with it.
 * Threads    All loop only. A look-up that finds all helpers busy starts another one, up to
 *            RESOLVER_THREADS, and they stay: a name whose servers are silent holds up nobody but
 *            itself. Numeric hosts are answered (through a deferred call) without them.
 * Ordering   None: a later look-up may be answered first.
 * Shutdown   resolver_free() calls nobody back and is not called from fn (use loop_defer). It does
 *            not wait for a getaddrinfo() that hangs: the threads are detached, and who leaves last
 *            frees what they share.
 */
#include "net/addr.h"
#include "rt/loop.h"

#define RESOLVER_MAX_JOBS  64
#define RESOLVER_MAX_ADDRS 64
#define RESOLVER_THREADS   4

struct resolver;
struct resolver_job;

/* addrs in getaddrinfo's order (RFC 6724), at most RESOLVER_MAX_ADDRS, duplicates removed; count 0:
 * failed, and why is getaddrinfo's text. Borrowed for the call. */
typedef void (*resolver_fn)(
    void *arg, const struct addr *addrs, size_t count, const char *why); /* on the loop */

MUST_USE struct resolver *resolver_new(struct loop *l) LOOP_ONLY;
void resolver_free(struct resolver **rp) LOOP_ONLY;
/* fn is called exactly once, never before this returns, unless cancelled. NULL: full, or no memory
 * or thread to be had. */
MUST_USE struct resolver_job *resolver_start(
    struct resolver *r, const char *host, uint16_t port, resolver_fn fn, void *arg) LOOP_ONLY;
/* Nulls *jp; fn will not be called. */
void resolver_cancel(struct resolver_job **jp) LOOP_ONLY;
#endif
