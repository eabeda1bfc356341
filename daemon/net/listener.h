#ifndef CHMUX_NET_LISTENER_H
#define CHMUX_NET_LISTENER_H
/*
 * listener: a listening socket (TCP or unix) and its accept loop.
 *
 * Ownership  The accept callback takes the descriptor. listener_close() removes a unix socket file,
 *            if it is still ours.
 * Adopted    A socket that somebody else opened and holds too (the service manager, see passed.h):
 *            its file is not ours, and who waits in it when we stop is left for the next process.
 * Silence    With clients_speak the kernel shows a TCP connection when its first bytes are here,
 *            or LISTENER_SILENT_S after it was made, or when it ends; until then it holds no
 *            descriptor and is none of ours. The bytes are not acknowledged at once, as the answer
 *            will do that: who finds half a request and waits for the rest calls conn_ack_now(),
 *            or a client that writes it in two parts may stand still for 40 ms.
 * Spare      One spare descriptor per process is kept (listener_spare_open()). When accept() fails
 *            for want of one, the spare is given up for a moment, the client gets `busy_reply` and
 *            is closed. When not even the spare can be had, or no memory, the listener looks away
 *            for 100 ms.
 */
#include "base/metric.h"
#include "net/addr.h"
#include "rt/loop.h"

#define LISTENER_SILENT_S 1

struct listener_options {
    struct addr addr;
    int backlog;
    bool clients_speak; /* TCP only: a client says something before it waits: see Silence */
    unsigned mode;      /* unix path only */
    const char *group;  /* unix path only; "" or NULL: as created */
};

/* Takes fd. peer is borrowed. */
typedef void (*listener_fn)(void *arg, int fd, const struct addr *peer); /* on the loop */

struct listener { /* fields are listener's; addr is what was bound */
    struct loop_io io;
    struct loop *loop;
    struct timer pause; /* armed: io is off the loop until then */
    struct addr addr;
    int fd;
    int burst; /* accepts tried per wake */
    int hold;  /* wakes before more are tried again */
    bool adopted;
    int sys_errno; /* of a failed listener_open(), 0: not from the system */
    dev_t dev;     /* of the socket file, to know it again */
    ino_t ino;
    listener_fn fn;
    void *arg;
    struct str busy_reply; /* borrowed */
    char text[ADDR_TEXT_MAX];
};

/* Binds and listens; not accepting yet. false: why says what failed, with the address ("127.0.0.1:
 * 8123: address already in use", "unix:/run/x: another process listens there", ...). A stale unix
 * socket file (nobody answers on it) is replaced, any other file is left alone and is an error. */
MUST_USE bool listener_open(
    struct listener *ls, const struct listener_options *o, char *why, size_t why_len) ANY_THREAD;
/* A reload: backlog, mode and group as o says; what it was bound to stays. Only of one that is
 * ours. false: why; also when its socket file was replaced: nothing else is ever touched. */
MUST_USE bool listener_restyle(
    struct listener *ls, const struct listener_options *o, char *why, size_t why_len) LOOP_ONLY;
/* Takes a listening, non-blocking fd that is bound to addr; not accepting yet. */
void listener_adopt(struct listener *ls, int fd, const struct addr *addr, bool clients_speak)
    ANY_THREAD;
MUST_USE bool listener_start(struct listener *ls, struct loop *l, struct str busy_reply,
    listener_fn fn, void *arg) LOOP_ONLY;
/* Takes what the kernel has queued already: before closing, so that nobody who got through to the
 * kernel is reset. Nothing of an adopted one: its queue outlives us. */
void listener_accept_rest(struct listener *ls) LOOP_ONLY;
void listener_close(struct listener *ls) LOOP_ONLY;

/* Gives a client that may not come in the reply and closes it; takes fd. Counted under `refused`.
 */
void listener_turn_away(int fd, struct str reply, enum metric_id refused) LOOP_ONLY;

/* Opens the spare descriptor; false: none left even at start. */
MUST_USE bool listener_spare_open(void) ANY_THREAD;
#endif
