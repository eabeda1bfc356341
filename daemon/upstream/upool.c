#include "upstream/upool.h"

#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "upstream/upool_impl.h"

#include "base/no_block.h"

#define STARVED_US                                                                                 \
    100000 /* a pinned waiter whose turn it is may claim another's slot after this                 \
            */

#define RETRY_US     100000
#define REBALANCE_US 100000 /* a connection at most is moved to another server in this time */

static void on_serve(void *arg);

void
upool_kick(struct upool *p)
{
    if (!p->stopping)
        loop_defer(p->loop, &p->serve_task, on_serve, p);
}

/* The only writer of uc->state: a connection's state is the list it is on, and the counts move with
 * it, so that the cap cannot drift from the truth. */
void
upool_goto(struct uconn *uc, enum uconn_state to)
{
    static const unsigned legal[] = {
        [UCONN_CONNECTING] = 1u << UCONN_IDLE | 1u << UCONN_CLOSED,
        [UCONN_PROBING] = 1u << UCONN_CLOSED,
        [UCONN_IDLE] = 1u << UCONN_ACTIVE | 1u << UCONN_CLOSING | 1u << UCONN_CLOSED,
        [UCONN_ACTIVE] = 1u << UCONN_IDLE | 1u << UCONN_CLOSING | 1u << UCONN_CLOSED,
        [UCONN_CLOSING] = 1u << UCONN_CLOSED,
        [UCONN_CLOSED] = 1u << UCONN_CONNECTING | 1u << UCONN_PROBING,
    };
    struct upool *p = uc->pool;
    CHECK(legal[uc->state] & (1u << to));
    switch (uc->state) {
    case UCONN_PROBING: p->probing_count--; FALLTHROUGH;
    case UCONN_CONNECTING: p->connecting_count--; break;
    case UCONN_IDLE:
        p->idle_count--;
        uc->addr->idle--;
        break;
    case UCONN_ACTIVE:
        p->active_count--;
        uc->addr->active--;
        break;
    case UCONN_CLOSING: p->closing_count--; break;
    case UCONN_CLOSED: break;
    }
    list_unlink(&uc->link);
    uc->state = to;
    switch (to) {
    case UCONN_PROBING: p->probing_count++; FALLTHROUGH;
    case UCONN_CONNECTING:
        p->connecting_count++;
        list_push_front(&p->connecting, &uc->link);
        break;
    case UCONN_IDLE:
        p->idle_count++;
        uc->addr->idle++;
        list_push_front(&p->idle, &uc->link);
        break;
    case UCONN_ACTIVE:
        p->active_count++;
        uc->addr->active++;
        uc->addr->leases++;
        timer_disarm(&uc->timer);
        list_push_front(&p->active, &uc->link);
        metric_inc_in(p->metrics, uc->served > 0 ? M_REUSES : M_LEASES);
        break;
    case UCONN_CLOSING:
        p->closing_count++;
        list_push_front(&p->closing, &uc->link);
        break;
    case UCONN_CLOSED: break;
    }
    bool opens = to == UCONN_CONNECTING || to == UCONN_PROBING;
    CHECK(!opens || upool_total(p) <= (size_t)p->cfg->pool_size); /* more only by a reload */
    int64_t total = (int64_t)upool_total(p);
    if (total > metric_get_in(p->metrics, M_POOL_PEAK))
        metric_set_in(p->metrics, M_POOL_PEAK, total);
}

void
upool_close_idle_of(
    struct upool *p, const struct uaddr *a, struct mono idle_before, enum metric_id reason)
{
    LIST_EACH_SAFE (node, next, &p->idle) {
        struct uconn *uc = CONTAINER_OF(node, struct uconn, link);
        if (uc->addr == a && uc->idle_since.us <= idle_before.us)
            uconn_destroy(uc, reason);
    }
}

static const struct upool_waiter *
waiter_const(const struct waiter *w)
{
    return (const struct upool_waiter *)(const void *)((const char *)w -
                                                       offsetof(struct upool_waiter, w));
}

static struct upool_waiter *
waiter_of(struct waiter *w)
{
    return CONTAINER_OF(w, struct upool_waiter, w);
}

static bool
suits(void *arg, const struct waiter *w)
{
    const struct uconn *uc = arg;
    const struct upool_waiter *uw = waiter_const(w);
    return (uw->pin == NULL || uw->pin == uc->addr) && (!uw->fresh || uc->served == 0);
}

static bool
anybody(void *arg, const struct waiter *w)
{
    (void)arg;
    (void)w;
    return true;
}

/* Whoever would be next if every connection suited everybody. */
static struct upool_waiter *LOOP_ONLY
head_of_line(const struct upool *p)
{
    struct waiter *w = waitq_first(&p->q);
    return w == NULL ? NULL : waiter_of(w);
}

/* A waiter that needs another address (or a fresh connection) than what comes free may be passed
 * over, but not for ever: then an idle connection is closed to make room for the one it needs. */
static bool LOOP_ONLY
make_room_for_head(struct upool *p, struct uconn *uc)
{
    const struct upool_waiter *head = head_of_line(p);
    if (head == NULL || suits(uc, &head->w) || !upool_is_full(p))
        return false;
    /* One is on its way to it, or room is made already. */
    bool dialing = head->pin != NULL ? head->pin->connecting > (head->pin->probing ? 1u : 0u)
                                     : p->connecting_count > p->probing_count;
    if (dialing || p->closing_count > 0)
        return false;
    struct mono patience = mono_add_us(head->since, STARVED_US);
    bool others = head->pin != NULL && !head->fresh && head->pin->active > 0;
    if (others && mono_diff_us(patience, loop_now(p->loop)) > 0) {
        timer_arm(&p->serve_timer, patience); /* maybe nothing else happens until then */
        return false;
    }
    uconn_destroy(uc, M_CLOSE_SURPLUS);
    return true;
}

/* One idle connection to one waiter; false: nothing fits. */
static bool LOOP_ONLY
grant_one(struct upool *p)
{
    LIST_EACH (node, &p->idle) {
        struct uconn *uc = CONTAINER_OF(node, struct uconn, link);
        if (!uconn_is_fit(uc) || make_room_for_head(p, uc))
            return true; /* one fewer: look again */
        struct waiter *w = waitq_pop(&p->q, suits, uc);
        if (w == NULL)
            continue;
        upool_goto(uc, UCONN_ACTIVE);
        struct upool_waiter *uw = waiter_of(w);
        uc->pinned = uw->pin != NULL;
        uw->granted(uw->arg, uc);
        return true; /* the list may have changed under us */
    }
    return false;
}

bool
upool_may_dial(const struct upool *p)
{
    size_t promised = uaddr_to_probe(p) != NULL ? 1 : 0;
    return !p->dials_wait && upool_total(p) + promised < (size_t)p->cfg->pool_size &&
           p->connecting_count - p->probing_count < (size_t)p->cfg->connect_concurrency;
}

static void LOOP_ONLY
connect_more(struct upool *p)
{
    for (;;) {
        size_t dialing = p->connecting_count - p->probing_count;
        size_t want = waitq_count(&p->q);
        if (!p->draining && p->idle_count + dialing < (size_t)p->cfg->min_idle && uaddr_any_up(p))
            want = size_max(want, dialing + 1);
        if (dialing >= want || !upool_may_dial(p))
            return;
        const struct upool_waiter *head = head_of_line(p);
        struct uaddr *pin = head == NULL ? NULL : head->pin;
        if (pin == NULL && uaddr_pick(p, 0, true) == NULL) {
            endpoints_retry_now(p); /* on_resolved() brings us back, with or without addresses */
            return;
        }
        /* Others live: wait for those, the back-off of the failed ones brings more. */
        if (!uaddr_any_up(p) && p->active_count > 0 &&
            (head == NULL || (!head->fresh && pin == NULL)))
            return;
        if (!uconn_dial(p, pin, head == NULL ? DIAL_AHEAD : DIAL_FOR_WAITER)) {
            timer_arm_in(&p->serve_timer, RETRY_US); /* no memory: maybe nothing else wakes us */
            return;
        }
    }
}

static bool
waits_for_gone(void *arg, const struct waiter *w)
{
    (void)arg;
    const struct upool_waiter *uw = waiter_const(w);
    return uw->pin != NULL && uw->pin->gone;
}

/* Their server was taken from the configuration, or from its name. */
static void LOOP_ONLY
fail_pinned_to_gone(struct upool *p)
{
    struct waiter *w;
    p->addresses_left = false;
    for (size_t n = waitq_count(&p->q); n > 0; n--) {
        w = waitq_pop(&p->q, waits_for_gone, NULL);
        if (w == NULL)
            return;
        struct upool_waiter *uw = waiter_of(w);
        uw->failed(uw->arg, ERR_SESSION_GONE, "its server is no longer one of ours");
    }
}

static void
on_serve(void *arg)
{
    thr_check_loop();
    struct upool *p = arg;
    if (p->stopping)
        return;
    upool_trim(p);
    if (p->addresses_left)
        fail_pinned_to_gone(p);
    while (!p->paused && waitq_count(&p->q) > 0 && grant_one(p))
        ;
    uaddr_probe_waiting(p); /* what nobody could use is idle; new ones may not take the room */
    if (!p->paused && p->started)
        connect_more(p);
    if (p->draining && waitq_count(&p->q) == 0)
        upool_drain(p);
}

static bool
is_pinned_to(void *arg, const struct waiter *w)
{
    return waiter_const(w)->pin == arg;
}

static bool
wants_fresh(void *arg, const struct waiter *w)
{
    (void)arg;
    return waiter_const(w)->fresh;
}

/* A failure is told to those who cannot hope for anything else. One address says nothing about the
 * others: it is told only to who is pinned to it. When all have failed, those hope who can use a
 * connection that lives; when none does, nobody. */
void
upool_dial_failed(struct upool *p, const struct uaddr *pin, const char *why)
{
    bool alive = p->active_count + p->idle_count > 0 || uaddr_any_up(p);
    waitq_ok_fn concerned = pin != NULL ? is_pinned_to : alive ? wants_fresh : anybody;
    size_t n = waitq_count(&p->q); /* those who come later deserve a try of their own */
    if (p->paused)
        return; /* it is known to be away: they wait for upool_pause(p, false) */
    while (n-- > 0) {
        struct waiter *w = waitq_pop(&p->q, concerned, (void *)(uintptr_t)pin);
        if (w == NULL)
            break;
        struct upool_waiter *uw = waiter_of(w);
        uw->failed(uw->arg, uw->pin != NULL ? ERR_SESSION_GONE : ERR_CONNECT, why);
    }
}

void
upool_dial_starved(struct upool *p, const char *why)
{
    if (!p->starved)
        LOG_W("connect_starved upstream=%s why=\"%s\"", p->name, why);
    p->starved = p->dials_wait = true;
    timer_arm_in(&p->serve_timer, RETRY_US);
}

size_t
upool_room(const struct upool *p)
{
    size_t cap = (size_t)p->cfg->pool_size;
    return cap - size_min(p->active_count, cap);
}

enum err
upool_wait(struct upool *p, struct upool_waiter *w, uint64_t flow_key)
{
    /* Who can be given a connection does not queue, it only waits for the connect, or for its turn
     * at an idle one, or for the place of one that does not suit. */
    if (waitq_count(&p->q) - p->q.urgent_count >= (size_t)p->cfg->queue_size + upool_room(p))
        return ERR_QUEUE_FULL;
    w->since = loop_now(p->loop);
    if (!waitq_push(&p->q, &w->w, flow_key))
        return ERR_NOMEM;
    upool_kick(p);
    return ERR_OK;
}

void
upool_wait_urgent(struct upool *p, struct upool_waiter *w)
{
    w->since = loop_now(p->loop);
    waitq_push_urgent(&p->q, &w->w);
    upool_kick(p);
}

void
upool_cancel(struct upool_waiter *w)
{
    waitq_remove(&w->w);
}

static void
on_serve_due(void *arg)
{
    thr_check_loop();
    struct upool *p = arg;
    p->dials_wait = false;
    upool_kick(p);
}

struct upool *
upool_new(struct loop *l, struct resolver *r, const char *name, const struct config_upstream *cfg,
    int64_t stall_us, char *why, size_t why_len)
{
    struct upool *p = mem_zalloc(sizeof *p);
    if (p == NULL) {
        snprintf(why, why_len, "out of memory");
        return NULL;
    }
    *p = (struct upool){.loop = l, .resolver = r, .cfg = cfg};
    snprintf(p->name, sizeof p->name, "%s", name);
    p->metrics = metric_set_of(name);
    list_init(&p->connecting);
    list_init(&p->idle);
    list_init(&p->active);
    list_init(&p->closing);
    waitq_init(&p->q);
    timer_init(&p->serve_timer, l, on_serve_due, p);
    struct upool_plan *plan = NULL;
    if (!timer_reserve(&p->serve_timer)) {
        snprintf(why, why_len, "out of memory");
        goto fail;
    }
    plan = upool_plan_new(cfg, why, why_len);
    if (plan == NULL || !upool_stage(p, plan, why, why_len))
        goto fail;
    (void)upool_commit(p, &plan, stall_us);
    return p;
fail:
    upool_plan_free(&plan);
    upool_free(&p);
    return NULL;
}

const char *
upool_name(const struct upool *p)
{
    return p->name;
}

unsigned
upool_metrics(const struct upool *p)
{
    return p->metrics;
}

void
upool_start(struct upool *p)
{
    p->started = true;
    for (size_t i = 0; i < p->endpoint_count; i++)
        endpoint_start(p->endpoints[i]);
    upool_kick(p);
}

void
upool_pause(struct upool *p, bool pause)
{
    p->paused = pause;
    if (!pause)
        upool_kick(p);
}

void
upool_retire(struct uconn *uc, enum metric_id reason)
{
    switch (uc->state) {
    case UCONN_CONNECTING:
    case UCONN_PROBING: uconn_abandon(uc); break;
    case UCONN_IDLE: uconn_destroy(uc, reason); break;
    case UCONN_ACTIVE:
        uc->retiring = true;
        uc->retire_as = reason;
        break;
    case UCONN_CLOSING:
    case UCONN_CLOSED: break;
    }
}

bool
upool_is_over(const struct upool *p)
{
    return upool_total(p) - p->closing_count > (size_t)p->cfg->pool_size;
}

bool
upool_is_full(const struct upool *p)
{
    return upool_total(p) >= (size_t)p->cfg->pool_size;
}

bool
upool_needs_room_of(struct upool *p, const struct uconn *uc)
{
    struct mono now = loop_now(p->loop);
    if (!upool_is_full(p) || p->closing_count > 0) /* there is room, or will be */
        return false;
    if (uaddr_to_probe(p) != NULL)
        return true;
    /* Whoever is pinned would open it again. The next who is not goes to the server with the
     * fewest: each close brings the numbers closer together, so it ends. */
    if (uc->pinned || mono_diff_us(now, p->rebalanced_at) < REBALANCE_US ||
        !uaddr_is_crowded(uc->addr))
        return false;
    p->rebalanced_at = now;
    return true;
}

void
upool_trim(struct upool *p)
{
    struct list *node;
    while (upool_is_over(p) && (node = list_last(&p->idle)) != NULL)
        uconn_destroy(CONTAINER_OF(node, struct uconn, link), M_CLOSE_SURPLUS);
}

void
upool_reconnect(struct upool *p, size_t *idle, size_t *active)
{
    struct list *node;
    *idle = p->idle_count;
    *active = p->active_count;
    LIST_EACH (at, &p->active)
        upool_retire(CONTAINER_OF(at, struct uconn, link), M_CLOSE_RECONNECT);
    while ((node = list_first(&p->idle)) != NULL)
        upool_retire(CONTAINER_OF(node, struct uconn, link), M_CLOSE_RECONNECT);
}

void
upool_drain(struct upool *p)
{
    p->draining = true;
    if (waitq_count(&p->q) > 0)
        return; /* they are served first; on_serve() comes back here */
    struct list *node;
    while ((node = list_first(&p->idle)) != NULL)
        uconn_destroy(CONTAINER_OF(node, struct uconn, link), M_CLOSE_SHUTDOWN);
}

void
upool_free(struct upool **pp)
{
    struct upool *p = *pp;
    if (p == NULL)
        return;
    *pp = NULL;
    p->stopping = true;
    CHECK(p->active_count == 0);
    loop_undefer(&p->serve_task);
    struct list *node;
    while ((node = list_first(&p->idle)) != NULL || (node = list_first(&p->connecting)) != NULL ||
           (node = list_first(&p->closing)) != NULL) {
        struct uconn *uc = CONTAINER_OF(node, struct uconn, link);
        uconn_destroy(uc, M_CLOSE_SHUTDOWN);
        loop_undefer(&uc->free_task);
        mem_free(uc);
    }
    for (size_t i = 0; i < p->endpoint_count; i++)
        endpoint_retire(&p->endpoints[i]);
    waitq_fini(&p->q);
    timer_fini(&p->serve_timer);
    tls_ctx_unref(&p->tls);
    mem_free(p->endpoints);
    mem_free(p);
}

void
upool_stats(const struct upool *p, struct upool_stats *out)
{
    *out = (struct upool_stats){
        .cap = (size_t)p->cfg->pool_size,
        .connecting = p->connecting_count,
        .active = p->active_count,
        .idle = p->idle_count,
        .closing = p->closing_count,
        .waiting = waitq_count(&p->q),
        .queue_size = (size_t)p->cfg->queue_size,
        .queue_timeout_us = p->cfg->queue_timeout,
        .paused = p->paused,
    };
    for (size_t i = 0; i < UPOOL_MAX_ADDRS; i++) {
        if (p->addrs[i] == NULL)
            continue;
        if (p->addrs[i]->state == UADDR_UP)
            out->addresses_up++;
        else if (!uaddr_is_unroutable(p->addrs[i]))
            out->addresses_ejected++;
    }
}

bool
upool_seems_up(const struct upool *p)
{
    return p->active_count + p->idle_count > 0 || uaddr_any_up(p);
}

void
upool_update_metrics(const struct upool *p)
{
    metric_set_in(p->metrics, M_POOL_CONNECTING, (int64_t)p->connecting_count);
    metric_set_in(p->metrics, M_POOL_ACTIVE, (int64_t)p->active_count);
    metric_set_in(p->metrics, M_POOL_IDLE, (int64_t)p->idle_count);
    metric_set_in(p->metrics, M_POOL_CLOSING, (int64_t)p->closing_count);
    metric_set_in(p->metrics, M_POOL_PAUSED, p->paused);
    metric_set_in(p->metrics, M_QUEUE_SIZE, p->cfg->queue_size);
}

bool
upool_names_host(const struct upool *p)
{
    switch (p->cfg->host_header) {
    case HOST_HEADER_AUTO: return p->tls != NULL;
    case HOST_HEADER_UPSTREAM: return true;
    case HOST_HEADER_CLIENT: break;
    }
    return false;
}
