#ifndef CHMUX_TESTS_TEST_LISTENER_H
#define CHMUX_TESTS_TEST_LISTENER_H
/*
 * test_listener: what the tests of the listener share: a loop, and a callback that notes whom it
 * was given.
 */
#include "t.h"

#include <sys/socket.h>

#include "base/metric.h"
#include "net/listener.h"

static struct loop *loop;

static inline void
stop(void *arg)
{
    thr_check_loop();
    (void)arg;
    loop_stop(loop);
}

static inline void LOOP_ONLY
turns(int n)
{
    while (n-- > 0) {
        struct timer t;
        timer_init(&t, loop, stop, NULL);
        T_TRUE(timer_reserve(&t));
        timer_arm_in(&t, 0);
        loop_run(loop);
        timer_fini(&t);
    }
}

/* ---- what is accepted ---- */

#define TAKEN_MAX 300
static int taken[TAKEN_MAX];
static size_t taken_count;
static struct addr last_peer;
static struct listener *closes_after_one;

static inline void
on_accepted(void *arg, int fd, const struct addr *peer)
{
    thr_check_loop();
    (void)arg;
    T_TRUE(taken_count < TAKEN_MAX);
    taken[taken_count++] = fd;
    last_peer = *peer;
    if (closes_after_one != NULL)
        listener_close(closes_after_one);
}

static inline void
drop_taken(void)
{
    while (taken_count > 0)
        close(taken[--taken_count]);
}

static inline struct addr
parse(const char *text)
{
    struct addr a;
    const char *why = "";
    if (!addr_parse(str_of(text), &a, &why))
        fail_msg("%s: %s", text, why);
    return a;
}

static inline struct listener_options
options(const char *text)
{
    return (struct listener_options){.addr = parse(text), .backlog = 128, .mode = 0660};
}

static const struct str busy = {"busy!", 5};

static inline void LOOP_ONLY
start(struct listener *ls, const struct listener_options *o)
{
    char why[256] = "";
    if (!listener_open(ls, o, why, sizeof(why)))
        fail_msg("%s", why);
    T_TRUE(listener_start(ls, loop, busy, on_accepted, NULL));
}

static inline int
connect_to(const struct addr *a)
{
    int fd = socket(a->sa.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    T_TRUE(fd >= 0);
    T_EQ(connect(fd, &a->sa, a->len), 0);
    return fd;
}
#endif
