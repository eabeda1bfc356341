#include "rt/loop.h"

#include "base/log.h"
#include "base/mem.h"
#include "base/metric.h"
#include "rt/loop_impl.h"

#include "base/no_block.h"

#define SLOW_CALLBACK_US 10000
#define SLOW_TELL_US     10000000

static void LOOP_ONLY
run_deferred(struct loop *l)
{
    if (LIKELY(list_empty(&l->deferred)))
        return;
    /* What a task defers in turn waits for the next round, so that the sockets get theirs. */
    struct list batch;
    batch.next = l->deferred.next;
    batch.prev = l->deferred.prev;
    batch.next->prev = &batch;
    batch.prev->next = &batch;
    list_init(&l->deferred);
    struct list *node;
    while ((node = list_first(&batch)) != NULL) {
        list_remove(node);
        struct loop_task *t = CONTAINER_OF(node, struct loop_task, link);
        t->fn(t->arg);
    }
    /* By a timeout of nothing: an event made active here would run again before the loop polls. */
    static const struct timeval at_once;
    if (!list_empty(&l->deferred) && event_add(&l->defer_ev, &at_once) != 0)
        event_active(&l->defer_ev, EV_TIMEOUT, 0);
}

static void LOOP_ONLY
callback_begin(struct loop *l, const char *label)
{
    l->now = mono_now();
    l->label = label;
}

/* Told at most once in a while: on a starved machine every callback is slow. */
static void LOOP_ONLY
tell_slow(struct loop *l, int64_t took_us)
{
    metric_inc(M_LOOP_SLOW);
    l->slow_untold++;
    if (mono_diff_us(l->now, l->slow_told) < SLOW_TELL_US)
        return;
    LOG_W("loop_slow callback=%s took_us=%" PRId64 " times=%" PRIu64, l->label, took_us,
        l->slow_untold);
    l->slow_told = l->now;
    l->slow_untold = 0;
}

static void LOOP_ONLY
tell_if_slow(struct loop *l)
{
    int64_t took_us = mono_diff_us(mono_now(), l->now);
    if (UNLIKELY(took_us > SLOW_CALLBACK_US))
        tell_slow(l, took_us);
}

/* An event made active goes behind those that are: what was deferred runs once, after the whole
 * turn. So the grants of a turn leave together, and the server is woken once for all of them; run
 * after each callback, they cost it twice the wake-ups and a quarter more CPU per request. */
static void LOOP_ONLY
callback_end(struct loop *l)
{
    if (!list_empty(&l->deferred) && !event_pending(&l->defer_ev, EV_TIMEOUT, NULL))
        event_active(&l->defer_ev, EV_TIMEOUT, 0);
    tell_if_slow(l);
}

static void
on_io(evutil_socket_t fd, short what, void *arg)
{
    thr_check_loop();
    (void)fd;
    struct loop_io *io = arg;
    struct loop *l = io->loop; /* io may be gone after fn */
    callback_begin(l, "io");
    unsigned ready = 0;
    if (what & EV_READ)
        ready |= LOOP_READ;
    if (what & EV_WRITE)
        ready |= LOOP_WRITE;
    if (what & EV_CLOSED)
        ready |= LOOP_CLOSED;
    io->fn(io->arg, ready);
    callback_end(l);
}

static void
on_defer(evutil_socket_t fd, short what, void *arg)
{
    thr_check_loop();
    (void)fd;
    (void)what;
    struct loop *l = arg;
    callback_begin(l, "deferred");
    run_deferred(l);
    tell_if_slow(l);
}

static void
on_timer(evutil_socket_t fd, short what, void *arg)
{
    thr_check_loop();
    (void)fd;
    (void)what;
    struct loop *l = arg;
    callback_begin(l, "timer");
    timers_run(l);
    callback_end(l);
}

static void
on_signal(evutil_socket_t signo, short what, void *arg)
{
    thr_check_loop();
    (void)what;
    struct loop_signal *s = arg;
    callback_begin(s->loop, "signal");
    s->fn(s->arg, (int)signo);
    callback_end(s->loop);
}

/* libevent's own heap of timeouts gets room for our two, so that adding them cannot fail later. */
static bool LOOP_ONLY
reserve_timeouts(struct loop *l)
{
    static const struct timeval far = {.tv_sec = 3600};
    bool ok = event_add(&l->defer_ev, &far) == 0 && event_add(&l->timer_ev, &far) == 0;
    event_del(&l->defer_ev);
    event_del(&l->timer_ev);
    return ok;
}

struct loop *
loop_new(void)
{
    thr_become(THR_LOOP);
    thr_check_loop();
    struct loop *l = mem_zalloc(sizeof *l);
    if (l == NULL)
        return NULL;
    struct event_config *cfg = event_config_new();
    if (cfg == NULL)
        goto free_loop;
    event_config_set_flag(cfg, EVENT_BASE_FLAG_NOLOCK);
    event_config_require_features(cfg, EV_FEATURE_ET | EV_FEATURE_EARLY_CLOSE);
    l->base = event_base_new_with_config(cfg);
    event_config_free(cfg);
    if (l->base == NULL)
        goto free_loop;
    list_init(&l->deferred);
    l->timer_armed_us = INT64_MAX;
    l->now = mono_now();
    l->label = "boot";
    l->slow_told.us = l->now.us - SLOW_TELL_US;
    if (event_assign(&l->defer_ev, l->base, -1, 0, on_defer, l) != 0 ||
        event_assign(&l->timer_ev, l->base, -1, 0, on_timer, l) != 0 || !reserve_timeouts(l))
        goto free_base;
    return l;
free_base:
    event_base_free(l->base);
free_loop:
    mem_free(l);
    return NULL;
}

void
loop_free(struct loop **lp)
{
    struct loop *l = *lp;
    if (l == NULL)
        return;
    *lp = NULL;
    loop_run_deferred(l); /* what was closed last frees itself here */
    for (size_t i = 0; i < l->signal_count; i++)
        event_del(&l->signals[i].ev);
    event_del(&l->defer_ev);
    event_del(&l->timer_ev);
    event_base_free(l->base);
    mem_free(l->heap);
    mem_free(l);
}

void
loop_run(struct loop *l)
{
    callback_begin(l, "boot");
    run_deferred(l); /* what boot deferred */
    tell_if_slow(l);
    if (!l->stop) /* libevent forgets a break that comes before its loop */
        event_base_loop(l->base, EVLOOP_NO_EXIT_ON_EMPTY);
    l->stop = false;
}

void
loop_stop(struct loop *l)
{
    l->stop = true;
    event_base_loopbreak(l->base);
}

struct mono
loop_now(const struct loop *l)
{
    return l->now;
}

void
loop_label(struct loop *l, const char *what)
{
    l->label = what;
}

static bool LOOP_ONLY
io_add(struct loop *l, struct loop_io *io, int fd, short events, loop_io_fn fn, void *arg)
{
    io->fn = fn;
    io->arg = arg;
    io->loop = l;
    if (event_assign(&io->ev, l->base, fd, events, on_io, io) != 0)
        goto fail;
    if (event_add(&io->ev, NULL) != 0)
        goto fail;
    return true;
fail:
    io->loop = NULL;
    return false;
}

bool
loop_io_add(struct loop *l, struct loop_io *io, int fd, loop_io_fn fn, void *arg)
{
    return io_add(l, io, fd, EV_READ | EV_WRITE | EV_CLOSED | EV_ET | EV_PERSIST, fn, arg);
}

bool
loop_io_add_level(struct loop *l, struct loop_io *io, int fd, loop_io_fn fn, void *arg)
{
    return io_add(l, io, fd, EV_READ | EV_PERSIST, fn, arg);
}

void
loop_io_del(struct loop_io *io)
{
    if (io->loop == NULL)
        return;
    event_del(&io->ev);
    io->loop = NULL;
}

void
loop_defer(struct loop *l, struct loop_task *t, loop_fn fn, void *arg)
{
    if (list_linked(&t->link)) {
        CHECK(t->fn == fn && t->arg == arg);
        return;
    }
    t->fn = fn;
    t->arg = arg;
    list_push_back(&l->deferred, &t->link);
}

void
loop_undefer(struct loop_task *t)
{
    list_unlink(&t->link);
}

void
loop_run_deferred(struct loop *l)
{
    while (!list_empty(&l->deferred))
        run_deferred(l);
}

bool
loop_on_signal(struct loop *l, int signo, loop_signal_fn fn, void *arg)
{
    CHECK(l->signal_count < LOOP_SIGNALS_MAX);
    struct loop_signal *s = &l->signals[l->signal_count];
    *s = (struct loop_signal){.loop = l, .fn = fn, .arg = arg};
    if (event_assign(&s->ev, l->base, signo, EV_SIGNAL | EV_PERSIST, on_signal, s) != 0 ||
        event_add(&s->ev, NULL) != 0)
        return false;
    l->signal_count++;
    return true;
}
