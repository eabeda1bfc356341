#ifndef CHMUX_NET_PASSED_H
#define CHMUX_NET_PASSED_H
/*
 * passed: listening sockets that the service manager opened and passed to us (socket activation:
 * LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES), and connections of clients that the process before us
 * left in its care (notify_keep()).
 *
 * The manager keeps them open: what connects while no chmux runs waits in the kernel for the next
 * one. So such a socket is never bound, removed or drained here.
 *
 * Ownership  struct passed owns the descriptors until passed_claim() or passed_client() gives one
 *            away; passed_fini() closes the rest. Names live as long as it does.
 * Threads    passed_take() at boot, before there are other threads; the rest loop only.
 */
#include "net/listener.h"

#define PASSED_MAX   40
#define PASSED_ADMIN "admin" /* the name of the socket that is the admin listener */

#define PASSED_CLIENT      "client" /* the name of connections, which do not listen */
#define PASSED_CLIENTS_MAX 512      /* the manager compares each with all others */

struct passed_socket {
    int fd; /* -1: claimed */
    struct addr addr;
    const char *name;
};

struct passed {
    struct passed_socket socket[PASSED_MAX];
    size_t count;
    int client[PASSED_CLIENTS_MAX];
    size_t client_count;
    char *names; /* owned */
};

/* Takes what was passed to this process, marks it close-on-exec and non-blocking, and takes the
 * variables out of the environment. None: count is 0. false: one is no listening stream socket (TCP
 * or unix) and no client, or a variable is broken; why says which. Ends in passed_fini() in any
 * case. */
MUST_USE bool passed_take(struct passed *p, char *why, size_t why_len);
void passed_fini(struct passed *p);

/* The first unclaimed one of that name, or NULL. */
struct passed_socket *passed_find(struct passed *p, const char *name);
/* One of the clients, and who it is; the descriptor is the caller's. -1: no more. */
MUST_USE int passed_client(struct passed *p, struct addr *peer);
/* Makes it this listener: as listener_open(), but with nothing that can fail. */
void passed_claim(struct passed_socket *s, struct listener *ls, bool clients_speak);
#endif
