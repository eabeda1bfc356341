#ifndef CHMUX_NET_PASSED_H
#define CHMUX_NET_PASSED_H
/*
 * passed: listening sockets that the service manager opened and passed to us (socket activation:
 * LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES).
 *
 * The manager keeps them open: what connects while no chmux runs waits in the kernel for the next
 * one. So such a socket is never bound, removed or drained here.
 *
 * Ownership  struct passed owns the descriptors until passed_claim() gives one away; passed_fini()
 *            closes the rest. Names live as long as it does.
 * Threads    passed_take() at boot, before there are other threads; the rest loop only.
 */
#include "net/listener.h"

#define PASSED_MAX   40
#define PASSED_ADMIN "admin" /* the name of the socket that is the admin listener */

struct passed_socket {
    int fd; /* -1: claimed */
    struct addr addr;
    const char *name;
};

struct passed {
    struct passed_socket socket[PASSED_MAX];
    size_t count;
    char *names; /* owned */
};

/* Takes what was passed to this process, marks it close-on-exec and non-blocking, and takes the
 * variables out of the environment. None: count is 0. false: one is no listening stream socket (TCP
 * or unix), or a variable is broken; why says which. Ends in passed_fini() in any case. */
MUST_USE bool passed_take(struct passed *p, char *why, size_t why_len);
void passed_fini(struct passed *p);

/* The first unclaimed one of that name, or NULL. */
struct passed_socket *passed_find(struct passed *p, const char *name);
/* Makes it this listener: as listener_open(), but with nothing that can fail. */
void passed_claim(struct passed_socket *s, struct listener *ls, bool clients_speak);
#endif
