/*
 * upool_view: the pool as the control API shows it.
 */
#include "upstream/upool_impl.h"

#include "base/no_block.h"

static const char *const state_text[] = {
#define X(name, text) [name] = text,
    UCONN_STATES(X)
#undef X
};

static bool LOOP_ONLY
tell_conn(const struct uconn *uc, upool_conn_fn fn, void *arg)
{
    struct mono now = loop_now(uc->pool->loop);
    struct upool_conn_view v = {
        .id = uc->id,
        .served = uc->served,
        .state = state_text[uc->state],
        .address = uc->addr == NULL ? NULL : uc->addr->text,
        .age_us = mono_diff_us(now, uc->dial_start),
        .idle_us = uc->state == UCONN_IDLE ? mono_diff_us(now, uc->idle_since) : -1,
        .tls = uc->addr != NULL && uc->addr->ep->url.tls,
        .retiring = uc->retiring,
    };
    return fn(arg, &v);
}

void
upool_each_conn(const struct upool *p, upool_conn_fn fn, void *arg)
{
    const struct list *const lists[] = {&p->active, &p->idle, &p->connecting, &p->closing};
    for (size_t i = 0; i < COUNT_OF(lists); i++)
        LIST_EACH (node, lists[i])
            if (!tell_conn(CONTAINER_OF(node, struct uconn, link), fn, arg))
                return;
}

static bool LOOP_ONLY
tell_addr(const struct endpoint *ep, const struct uaddr *a, upool_addr_fn fn, void *arg)
{
    struct upool_addr_view v = {.host = ep->url.host,
        .port = ep->url.port,
        .tls = ep->url.tls,
        .ejected_us = -1,
        .probe_us = -1,
        .why = ""};
    if (a != NULL) {
        struct mono now = loop_now(ep->pool->loop);
        v.address = a->text;
        v.up = a->state == UADDR_UP;
        v.unroutable = uaddr_is_unroutable(a);
        v.fails = a->fails;
        v.connecting = a->connecting;
        v.active = a->active;
        v.idle = a->idle;
        v.leases = a->leases;
        v.why = a->why;
        if (!v.up)
            v.ejected_us = mono_diff_us(now, a->ejected_at);
        if (timer_armed(&a->probe_timer))
            v.probe_us = mono_diff_us((struct mono){a->probe_timer.due_us}, now);
        if (v.probe_us < 0 && timer_armed(&a->probe_timer))
            v.probe_us = 0; /* due, and its turn in the loop is coming */
    }
    return fn(arg, &v);
}

void
upool_each_addr(const struct upool *p, upool_addr_fn fn, void *arg)
{
    for (size_t i = 0; i < p->endpoint_count; i++) {
        const struct endpoint *ep = p->endpoints[i];
        bool any = false;
        for (size_t k = 0; k < p->addr_end; k++) {
            if (p->addrs[k] == NULL || p->addrs[k]->ep != ep)
                continue;
            any = true;
            if (!tell_addr(ep, p->addrs[k], fn, arg))
                return;
        }
        if (!any && !tell_addr(ep, NULL, fn, arg))
            return;
    }
}

struct each_waiter {
    upool_waiter_fn fn;
    void *arg;
};

static bool
on_waiter(void *arg, const struct waiter *w, size_t round)
{
    thr_check_loop();
    const struct each_waiter *each = arg;
    const char *at = (const char *)w - offsetof(struct upool_waiter, w);
    return each->fn(each->arg, (const struct upool_waiter *)(const void *)at, round);
}

void
upool_each_waiter(const struct upool *p, upool_waiter_fn fn, void *arg)
{
    struct each_waiter each = {.fn = fn, .arg = arg};
    waitq_each(&p->q, on_waiter, &each);
}
