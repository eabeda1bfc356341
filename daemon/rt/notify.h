#ifndef CHMUX_RT_NOTIFY_H
#define CHMUX_RT_NOTIFY_H
/*
 * notify: tells the service manager how we are (the sd_notify protocol) and feeds its watchdog.
 *
 * Without NOTIFY_SOCKET in the environment nothing here does anything.
 *
 * Waiting    Never: sends are non-blocking. What the manager does not take now is kept, as a state
 *            and not as a queue, and tried again every 100 ms; a newer state or status replaces the
 *            older one. So nothing is lost for good and nothing grows.
 * Watchdog   WATCHDOG=1 every WATCHDOG_USEC / 2, from a timer of the loop: a loop that is stuck is
 *            silent, and the manager ends and restarts us. It begins with notify_start(), so a slow
 *            boot is covered by the manager's start timeout instead.
 * Keeping    The manager can hold descriptors for the next process of the service (its store, see
 *            FDSTORE in sd_notify(3)). Only if FDSTORE in our environment says how many:
 *            systemd sets it from version 254 on, the unit does it for older ones.
 * Ownership  Embedded; notify_fini() closes the socket.
 * Threads    Loop only; notify_env_take() at boot, before there are other threads.
 */
#include <sys/socket.h>
#include <sys/un.h>

#include "rt/loop.h"

#define NOTIFY_STATUS_MAX 192

struct notify_env {
    struct sockaddr_un addr;
    socklen_t addr_len;  /* 0: nobody wants to know */
    int64_t watchdog_us; /* 0: off */
    unsigned store_max;  /* descriptors that the manager would keep */
};

/* Reads NOTIFY_SOCKET, WATCHDOG_USEC, WATCHDOG_PID and FDSTORE, and takes them out of the
 * environment. false: what stands there cannot be used, why says which and how; *out is as if it
 * were not there.
 */
MUST_USE bool notify_env_take(struct notify_env *out, char *why, size_t why_len);

enum notify_state {
    NOTIFY_BOOTING, /* nothing is said */
    NOTIFY_READY,
    NOTIFY_RELOADING,
    NOTIFY_STOPPING,
};

struct notify { /* fields are notify's */
    struct loop *loop;
    struct notify_env env;
    int fd; /* -1: off */
    enum notify_state state;
    bool state_untold, status_untold, watchdog_untold, failing;
    int64_t extend_us;     /* untold; 0: none */
    struct mono reload_at; /* when the reload that is untold or under way began */
    bool reload_untold;
    const char *forget; /* untold; NULL: none */
    char status[NOTIFY_STATUS_MAX];
    struct timer watchdog, retry;
};

/* false: no memory or descriptors; errno says why. n is to be notify_fini()ed in any case. */
MUST_USE bool notify_start(struct notify *n, struct loop *l, const struct notify_env *env)
    LOOP_ONLY;
void notify_fini(struct notify *n) LOOP_ONLY;
/* Does anybody listen? Else there is no need to find out what to say. */
static inline bool
notify_is_on(const struct notify *n)
{
    return n->fd >= 0;
}

/* All listeners accept; or a reload has ended, well or not. */
void notify_ready(struct notify *n) LOOP_ONLY;
/* A reload begins; notify_ready() must follow. */
void notify_reloading(struct notify *n) LOOP_ONLY;
/* The drain begins. Final. */
void notify_stopping(struct notify *n) LOOP_ONLY;
/* From now on the manager gives us this much time for what it waits for (the start or the stop). */
void notify_extend(struct notify *n, int64_t us) LOOP_ONLY;
/* How many descriptors the manager would keep in all; 0: none. */
static inline unsigned
notify_keep_max(const struct notify *n)
{
    return n->fd >= 0 ? n->env.store_max : 0;
}
enum notify_keep_result {
    NOTIFY_KEPT,  /* on its way: close yours */
    NOTIFY_LATER, /* no room in the manager's socket now */
    NOTIFY_NEVER,
};
/* Has the manager keep a copy of fd for the next process, which finds it under this name among what
 * is passed to it. The manager closes it when no next process is due. */
MUST_USE enum notify_keep_result notify_keep(struct notify *n, int fd, const char *name) LOOP_ONLY;
/* The manager lets go of all it keeps under this name, now that this process has it. Until then a
 * connection that we close stays open for its peer. name must outlive n. */
void notify_forget(struct notify *n, const char *name) LOOP_ONLY;
/* One line for people (`systemctl status`), cut at NOTIFY_STATUS_MAX - 1. Sent if it is new. */
void notify_status(struct notify *n, const char *fmt, ...) PRINTF_LIKE(2, 3) LOOP_ONLY;
#endif
