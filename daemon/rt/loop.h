#ifndef CHMUX_RT_LOOP_H
#define CHMUX_RT_LOOP_H
/*
 * loop: the event loop (libevent), one per daemon, and what runs on it.
 *
 * Sockets are registered once, edge-triggered, for reading, writing and the peer's close together;
 * the callback gets what became ready, and whoever owns the socket remembers it until the kernel
 * says "would block". So stopping and resuming a direction costs no system call.
 *
 * Lifetime   Nothing reachable from a callback is freed inside it: unlink now, free from
 *            loop_defer(). Deferred calls run when all callbacks of this turn have, before the loop
 *            polls again; what they defer in turn runs after that poll.
 * Time       loop_now() is read once per callback.
 * Threads    All loop only, but loop_new() (boot) and loop_wake_fd's write side.
 */
#include <event2/event.h>
#include <event2/event_struct.h>

#include "base/clock.h"
#include "base/list.h"
#include "base/thread.h"

struct loop;

enum { LOOP_READ = 1, LOOP_WRITE = 2, LOOP_CLOSED = 4 };
typedef void (*loop_io_fn)(void *arg, unsigned ready); /* on the loop */

struct loop_io { /* embed; fields are the loop's */
    struct event ev;
    loop_io_fn fn;
    void *arg;
    struct loop *loop;
};

typedef void (*loop_fn)(void *arg); /* on the loop */
struct loop_task {                  /* embed; zero before first use */
    struct list link;
    loop_fn fn;
    void *arg;
};

/* Becomes the loop thread. NULL: out of memory or descriptors. */
MUST_USE struct loop *loop_new(void) ANY_THREAD;
void loop_free(struct loop **lp) LOOP_ONLY;
/* Runs until loop_stop(); returns soon if that was called already since the last run. */
void loop_run(struct loop *l) LOOP_ONLY;
void loop_stop(struct loop *l) LOOP_ONLY;
struct mono loop_now(const struct loop *l) LOOP_ONLY;
/* Names the current callback for the "slow callback" warning; a static string. */
void loop_label(struct loop *l, const char *what) LOOP_ONLY;

/* Edge-triggered. The first callback comes soon (a fresh socket is writable). false: no memory or
 * descriptors for it; fd stays the caller's in any case. */
MUST_USE bool loop_io_add(struct loop *l, struct loop_io *io, int fd, loop_io_fn fn, void *arg)
    LOOP_ONLY;
/* Level-triggered, reading only: listeners and wake-up descriptors. */
MUST_USE bool loop_io_add_level(
    struct loop *l, struct loop_io *io, int fd, loop_io_fn fn, void *arg) LOOP_ONLY;
/* Call before close(fd). No-op when not added. No callback comes after it. */
void loop_io_del(struct loop_io *io) LOOP_ONLY;

/* At the end of this turn of the loop. Once per scheduling; already scheduled: no-op. */
void loop_defer(struct loop *l, struct loop_task *t, loop_fn fn, void *arg) LOOP_ONLY;
void loop_undefer(struct loop_task *t) LOOP_ONLY;
/* Runs what is deferred until nothing is: for an orderly end, outside loop_run(). */
void loop_run_deferred(struct loop *l) LOOP_ONLY;

/* SIGTERM and kin, delivered on the loop. false: no memory. */
typedef void (*loop_signal_fn)(void *arg, int signo); /* on the loop */
MUST_USE bool loop_on_signal(struct loop *l, int signo, loop_signal_fn fn, void *arg) LOOP_ONLY;

/* Timers: one lazy heap. Moving a deadline later or disarming costs no heap work. */
struct timer { /* embed; timer_init() first */
    struct loop *loop;
    loop_fn fn;
    void *arg;
    int64_t due_us;   /* INT64_MAX: not armed */
    uint32_t heap_at; /* UINT32_MAX: not in the heap */
    bool reserved;
};
void timer_init(struct timer *t, struct loop *l, loop_fn fn, void *arg) LOOP_ONLY;
/* Makes sure that arming cannot fail later. false: no memory. Call once, before the first arm. */
MUST_USE bool timer_reserve(struct timer *t) LOOP_ONLY;
/* (Re)arms: fires once, not before `due`. */
void timer_arm(struct timer *t, struct mono due) LOOP_ONLY;
void timer_arm_in(struct timer *t, int64_t us) LOOP_ONLY;
void timer_disarm(struct timer *t) LOOP_ONLY;
/* Disarms and forgets; call before freeing what embeds it. */
void timer_fini(struct timer *t) LOOP_ONLY;
static inline bool
timer_armed(const struct timer *t)
{
    return t->due_us != INT64_MAX;
}
#endif
