#include "t.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "base/mem.h"
#include "base/metric.h"
#include "rt/loop.h"

static struct loop *loop;

static int
setup(void **state)
{
    (void)state;
    loop = loop_new();
    return loop == NULL ? -1 : 0;
}

static int
teardown(void **state)
{
    (void)state;
    thr_check_loop();
    loop_free(&loop);
    T_TRUE(loop == NULL);
    loop_free(&loop); /* NULL is fine */
    return 0;
}

static void
stop(void *arg)
{
    thr_check_loop();
    (void)arg;
    loop_stop(loop);
}

/* A trace of who ran, in order. */
static char trace[64];
static size_t trace_len;
static void
note(char c)
{
    CHECK(trace_len + 1 < sizeof(trace));
    trace[trace_len++] = c;
    trace[trace_len] = '\0';
}
static void
trace_clear(void)
{
    trace_len = 0;
    trace[0] = '\0';
}

struct noter { /* notes its letter, may schedule others */
    struct loop_task task;
    char letter;
    struct noter *then;
    bool stops;
};
static void
on_noter(void *arg)
{
    thr_check_loop();
    struct noter *n = arg;
    note(n->letter);
    if (n->then != NULL)
        loop_defer(loop, &n->then->task, on_noter, n->then);
    if (n->stops)
        loop_stop(loop);
}

/* First deferred, first run; scheduled twice runs once; undeferred does not run. */
static void
test_deferred_calls_run_once_in_order(void **state)
{
    (void)state;
    thr_check_loop();
    trace_clear();
    struct noter a = {.letter = 'a'}, b = {.letter = 'b'}, c = {.letter = 'c', .stops = true};
    loop_defer(loop, &a.task, on_noter, &a);
    loop_defer(loop, &b.task, on_noter, &b);
    loop_defer(loop, &c.task, on_noter, &c);
    loop_defer(loop, &a.task, on_noter, &a);
    loop_undefer(&b.task);
    loop_undefer(&b.task); /* no-op */
    loop_run(loop);
    T_ZEQ(trace, "ac");
    loop_defer(loop, &b.task, on_noter, &b); /* usable again, run without the loop */
    loop_run_deferred(loop);
    T_ZEQ(trace, "acb");
    T_ABORTS(loop_defer(loop, &a.task, on_noter, &a); loop_defer(loop, &a.task, stop, &a));
}

/* A task may take another, or the next of its own batch, off the list. */
static struct noter victim;
static void
on_undefer_victim(void *arg)
{
    thr_check_loop();
    (void)arg;
    note('u');
    loop_undefer(&victim.task);
}
static void
test_undefer_from_a_task_of_the_same_batch(void **state)
{
    (void)state;
    thr_check_loop();
    trace_clear();
    victim = (struct noter){.letter = 'v'};
    struct loop_task killer = {0};
    struct noter last = {.letter = 'z', .stops = true};
    loop_defer(loop, &killer, on_undefer_victim, NULL);
    loop_defer(loop, &victim.task, on_noter, &victim);
    loop_defer(loop, &last.task, on_noter, &last);
    loop_run(loop);
    T_ZEQ(trace, "uz");
}

/* A callback that is due in the same turn comes before what another deferred. */
struct turner {
    struct loop_io io;
    struct noter late;
    int fd[2];
    char letter;
};
static void
on_turner(void *arg, unsigned ready)
{
    thr_check_loop();
    (void)ready;
    struct turner *t = arg;
    note(t->letter);
    loop_defer(loop, &t->late.task, on_noter, &t->late);
}
static void
test_deferred_calls_run_after_the_whole_turn(void **state)
{
    (void)state;
    thr_check_loop();
    trace_clear();
    struct noter stopper = {.letter = '.', .stops = true};
    struct turner t[3];
    for (size_t i = 0; i < COUNT_OF(t); i++) {
        t[i] = (struct turner){.letter = 'i', .late.letter = 'd'};
        T_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, t[i].fd), 0);
        T_TRUE(loop_io_add(loop, &t[i].io, t[i].fd[0], on_turner, &t[i])); /* writable at once */
    }
    t[2].late.then = &stopper; /* what deferred calls defer: after the next poll */
    loop_run(loop);
    T_ZEQ(trace, "iiiddd.");
    for (size_t i = 0; i < COUNT_OF(t); i++) {
        loop_io_del(&t[i].io);
        close(t[i].fd[0]);
        close(t[i].fd[1]);
    }
}

/* loop_run_deferred() and loop_free() go on until nothing is left. */
static void
test_run_deferred_runs_what_is_deferred_meanwhile(void **state)
{
    (void)state;
    thr_check_loop();
    trace_clear();
    struct noter c = {.letter = 'c'}, b = {.letter = 'b', .then = &c},
                 a = {.letter = 'a', .then = &b};
    loop_defer(loop, &a.task, on_noter, &a);
    loop_run_deferred(loop);
    T_ZEQ(trace, "abc");
    loop_defer(loop, &a.task, on_noter, &a);
    struct loop *l = loop; /* the tasks still use the other pointer */
    loop_free(&l);
    loop = NULL;
    T_ZEQ(trace, "abcabc");
}

/* A loop_stop() from a task that boot deferred, or from before loop_run(), counts; the next run is
 * a run of its own. */
static void
test_early_stop_is_not_lost(void **state)
{
    (void)state;
    thr_check_loop();
    struct loop_task t = {0};
    loop_defer(loop, &t, stop, NULL);
    loop_run(loop);
    loop_stop(loop);
    loop_run(loop);
    trace_clear();
    struct noter a = {.letter = 'a'};
    struct timer later;
    timer_init(&later, loop, stop, NULL);
    T_TRUE(timer_reserve(&later));
    timer_arm_in(&later, 1000);
    loop_defer(loop, &a.task, on_noter, &a);
    loop_run(loop);
    T_ZEQ(trace, "a");
    T_FALSE(timer_armed(&later)); /* so it did run on until the timer came */
    timer_fini(&later);
}

/* ---- sockets ---- */

struct watched {
    struct loop_io io;
    int fd[2]; /* ours, the other end */
    unsigned seen;
    int calls;
    bool del_self;
    struct watched *del_other;
    int stop_after;
};

static void
on_watched(void *arg, unsigned ready)
{
    thr_check_loop();
    struct watched *w = arg;
    w->calls++;
    w->seen |= ready;
    if (w->del_self)
        loop_io_del(&w->io);
    if (w->del_other != NULL)
        loop_io_del(&w->del_other->io);
    if (w->calls == w->stop_after)
        loop_stop(loop);
}

static void LOOP_ONLY
watch(struct watched *w)
{
    T_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, w->fd), 0);
    T_TRUE(loop_io_add(loop, &w->io, w->fd[0], on_watched, w));
}
static void LOOP_ONLY
unwatch(struct watched *w)
{
    loop_io_del(&w->io);
    loop_io_del(&w->io); /* no-op */
    close(w->fd[0]);
    if (w->fd[1] >= 0)
        close(w->fd[1]);
}

/* Runs until everything that is ready now was told: a timer of no length comes behind a poll. */
static void LOOP_ONLY
run_a_turn(void)
{
    for (int i = 0; i < 2; i++) {
        struct timer t;
        timer_init(&t, loop, stop, NULL);
        T_TRUE(timer_reserve(&t));
        timer_arm_in(&t, 0);
        loop_run(loop);
        timer_fini(&t);
    }
}

/* The first call comes soon; then one call per edge, and none while nothing changes. */
static void
test_sockets_are_edge_triggered(void **state)
{
    (void)state;
    thr_check_loop();
    struct watched w = {0};
    watch(&w);
    run_a_turn();
    T_EQ(w.calls, 1);
    T_EQ(w.seen, LOOP_WRITE);
    run_a_turn();
    T_EQ(w.calls, 1);
    T_EQ(write(w.fd[1], "x", 1), 1);
    run_a_turn();
    T_EQ(w.calls, 2);
    T_TRUE(w.seen & LOOP_READ);
    run_a_turn(); /* still unread, and not told again */
    T_EQ(w.calls, 2);
    T_FALSE(w.seen & LOOP_CLOSED);
    close(w.fd[1]);
    w.fd[1] = -1;
    run_a_turn();
    T_TRUE(w.seen & LOOP_CLOSED);
    unwatch(&w);
}

/* Level-triggered: told until it is read. */
static void
test_level_is_told_until_read(void **state)
{
    (void)state;
    thr_check_loop();
    struct watched w = {.stop_after = 3};
    T_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, w.fd), 0);
    T_TRUE(loop_io_add_level(loop, &w.io, w.fd[0], on_watched, &w));
    run_a_turn();
    T_EQ(w.calls, 0); /* writable is not of interest */
    T_EQ(write(w.fd[1], "x", 1), 1);
    loop_run(loop);
    T_EQ(w.calls, 3);
    unwatch(&w);
}

/* No callback comes after loop_io_del(), not even one that is due in the same turn. */
static void
test_io_del_inside_callbacks(void **state)
{
    (void)state;
    thr_check_loop();
    struct watched a = {.del_self = true}, b = {.del_self = true};
    a.del_other = &b;
    b.del_other = &a;
    watch(&a);
    watch(&b);
    run_a_turn(); /* both are writable at once: whoever is first silences the other */
    T_EQ(a.calls + b.calls, 1);
    T_EQ(write(a.fd[1], "x", 1), 1);
    T_EQ(write(b.fd[1], "x", 1), 1);
    run_a_turn();
    T_EQ(a.calls + b.calls, 1);
    unwatch(&a);
    unwatch(&b);
}

/* fd stays the caller's when it cannot be watched: a regular file cannot. */
static void
test_io_add_fails_on_a_file(void **state)
{
    (void)state;
    thr_check_loop();
    struct loop_io io = {0};
    int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    T_TRUE(fd >= 0);
    struct t_capture c = t_capture(); /* libevent warns */
    bool added = loop_io_add(loop, &io, fd, on_watched, NULL);
    free(t_captured(c));
    T_FALSE(added);
    loop_io_del(&io); /* no-op */
    T_EQ(close(fd), 0);
}

/* ---- fairness ---- */

static struct loop_task again;
static int rounds;
static void
on_again(void *arg)
{
    thr_check_loop();
    struct watched *w = arg;
    CHECK(rounds < 1000000); /* starved for ever */
    if (rounds++ == 5)
        CHECK(write(w->fd[1], "x", 1) == 1);
    if (w->seen & LOOP_READ)
        loop_stop(loop);
    else
        loop_defer(loop, &again, on_again, w);
}

/* A task that defers itself again and again does not keep the sockets waiting. */
static void
test_self_deferring_task_starves_nobody(void **state)
{
    (void)state;
    thr_check_loop();
    struct watched w = {0};
    watch(&w);
    again = (struct loop_task){0};
    rounds = 0;
    loop_defer(loop, &again, on_again, &w);
    loop_run(loop);
    T_TRUE(w.seen & LOOP_READ);
    T_TRUE(rounds < 100);
    unwatch(&w);
}

/* ---- time, signals, memory ---- */

static struct mono seen_at[2];
static void
on_time(void *arg)
{
    thr_check_loop();
    (void)arg;
    seen_at[0] = loop_now(loop);
    while (mono_now().us <= seen_at[0].us)
        ;
    seen_at[1] = loop_now(loop);
    loop_stop(loop);
}

static void
test_now_stands_still_in_a_callback(void **state)
{
    (void)state;
    thr_check_loop();
    struct mono before = mono_now();
    struct timer t;
    timer_init(&t, loop, on_time, NULL);
    T_TRUE(timer_reserve(&t));
    timer_arm_in(&t, 1);
    loop_run(loop);
    T_EQ(seen_at[0].us, seen_at[1].us);
    T_TRUE(seen_at[0].us >= before.us);
    timer_fini(&t);
}

static void
on_slow(void *arg)
{
    thr_check_loop();
    (void)arg;
    loop_label(loop, "test_slow");
    struct mono start = mono_now();
    while (mono_diff_us(mono_now(), start) < 12000)
        ;
    loop_stop(loop);
}

static void
test_slow_callbacks_are_told_by_name(void **state)
{
    (void)state;
    thr_check_loop();
    int64_t before = metric_get(M_LOOP_SLOW);
    struct timer first;
    timer_init(&first, loop, on_slow, NULL);
    T_TRUE(timer_reserve(&first));
    timer_arm_in(&first, 0);
    struct t_capture c = t_capture();
    loop_run(loop);
    char *text = t_captured(c);
    T_HAS(text, "loop_slow callback=test_slow took_us=");
    free(text);
    T_TRUE(metric_get(M_LOOP_SLOW) > before);
    timer_fini(&first);
}

static void
on_signal(void *arg, int signo)
{
    thr_check_loop();
    *(int *)arg = signo;
    loop_stop(loop);
}

static void
test_signals_come_on_the_loop(void **state)
{
    (void)state;
    thr_check_loop();
    int got = 0;
    T_TRUE(loop_on_signal(loop, SIGUSR1, on_signal, &got));
    T_TRUE(loop_on_signal(loop, SIGUSR2, on_signal, &got));
    raise(SIGUSR1);
    T_EQ(got, 0);
    loop_run(loop);
    T_EQ(got, SIGUSR1);
    raise(SIGUSR2);
    loop_run(loop);
    T_EQ(got, SIGUSR2);
}

static void
test_no_memory_and_no_descriptors(void **state)
{
    (void)state;
    thr_check_loop();
    mem_fail_at(1);
    T_TRUE(loop_new() == NULL);
    mem_fail_at(0);
    struct rlimit old, none;
    T_EQ(getrlimit(RLIMIT_NOFILE, &old), 0);
    none = old;
    none.rlim_cur = 0;
    struct t_capture c = t_capture(); /* libevent warns */
    T_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
    struct loop *l = loop_new();
    T_EQ(setrlimit(RLIMIT_NOFILE, &old), 0);
    free(t_captured(c));
    T_TRUE(l == NULL);
}

int
main(void)
{
#define LOOP_TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
    const struct CMUnitTest tests[] = {
        LOOP_TEST(test_deferred_calls_run_once_in_order),
        LOOP_TEST(test_undefer_from_a_task_of_the_same_batch),
        LOOP_TEST(test_deferred_calls_run_after_the_whole_turn),
        LOOP_TEST(test_run_deferred_runs_what_is_deferred_meanwhile),
        LOOP_TEST(test_early_stop_is_not_lost),
        LOOP_TEST(test_sockets_are_edge_triggered),
        LOOP_TEST(test_level_is_told_until_read),
        LOOP_TEST(test_io_del_inside_callbacks),
        LOOP_TEST(test_io_add_fails_on_a_file),
        LOOP_TEST(test_self_deferring_task_starves_nobody),
        LOOP_TEST(test_now_stands_still_in_a_callback),
        LOOP_TEST(test_slow_callbacks_are_told_by_name),
        LOOP_TEST(test_signals_come_on_the_loop),
        LOOP_TEST(test_no_memory_and_no_descriptors),
    };
    return TEST_MAIN(tests);
}
