/*
 * endpoint: the URLs of an upstream, the addresses their names resolve to, and which of those get
 * traffic.
 */
#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "upstream/upool_impl.h"

#include "base/no_block.h"

#define RESOLVE_RETRY_MIN_US 1000000 /* and looked up no more often, whatever fails */
#define UNANSWERED_MAX       3       /* fresh connections in a row that died without a word */

bool
uaddr_is_unroutable(const struct uaddr *a)
{
    const struct upool *p = a->ep->pool;
    bool other_kind = false;
    if (a->state == UADDR_UP || !a->no_route)
        return false;
    for (size_t i = 0; i < p->addr_end; i++) {
        const struct uaddr *b = p->addrs[i];
        if (b == NULL || b->ep != a->ep || b->state != UADDR_UP)
            continue;
        if (b->addr.sa.sa_family == a->addr.sa.sa_family)
            return false; /* there is a route, only not to this one */
        other_kind = true;
    }
    return other_kind;
}

static void LOOP_ONLY
update_gauges(const struct upool *p)
{
    int64_t up = 0, down = 0, unroutable = 0;
    for (size_t i = 0; i < UPOOL_MAX_ADDRS; i++) {
        const struct uaddr *a = p->addrs[i];
        if (a != NULL && a->state == UADDR_UP)
            up++;
        else if (a != NULL && uaddr_is_unroutable(a))
            unroutable++;
        else if (a != NULL)
            down++;
    }
    metric_set_in(p->metrics, M_ADDRESSES_UP, up);
    metric_set_in(p->metrics, M_ADDRESSES_DOWN, down);
    metric_set_in(p->metrics, M_ADDRESSES_UNROUTABLE, unroutable);
}

static void
on_probe_due(void *arg)
{
    thr_check_loop();
    struct uaddr *a = arg;
    struct upool *p = a->ep->pool;
    if (a->gone || a->state == UADDR_UP || a->probing || p->stopping || p->draining)
        return;
    if (p->paused) {
        timer_arm_in(&a->probe_timer, p->cfg->eject_min);
        return;
    }
    a->probe_waits = true;
    uaddr_probe_waiting(p);
}

struct uaddr *
uaddr_to_probe(const struct upool *p)
{
    for (size_t i = 0; i < p->addr_end && !p->draining && !p->paused; i++)
        if (p->addrs[i] != NULL && p->addrs[i]->probe_waits)
            return p->addrs[i];
    return NULL;
}

void
uaddr_probe_waiting(struct upool *p)
{
    struct uaddr *a;
    while ((a = uaddr_to_probe(p)) != NULL) {
        struct list *rested = list_last(&p->idle);
        if (upool_is_full(p) && p->closing_count == 0 && rested != NULL)
            uconn_destroy(CONTAINER_OF(rested, struct uconn, link), M_CLOSE_REBALANCE);
        if (upool_is_full(p))
            return; /* until that is closed, or another is released */
        a->probe_waits = false;
        a->probing = true; /* before: the dial may fail at once, and takes it back then */
        if (!uconn_dial(p, a, DIAL_PROBE)) {
            a->probing = false;
            timer_arm_in(&a->probe_timer, p->cfg->eject_min); /* no memory */
        }
    }
}

/* Where a new or recovered address starts to count, so that it has nothing to catch up with. */
static uint64_t
most_leases(const struct upool *p)
{
    uint64_t most = 0;
    for (size_t i = 0; i < p->addr_end; i++)
        if (p->addrs[i] != NULL && p->addrs[i]->leases > most)
            most = p->addrs[i]->leases;
    return most;
}

static struct uaddr *LOOP_ONLY
uaddr_new(struct endpoint *ep, const struct addr *addr)
{
    struct upool *p = ep->pool;
    unsigned index = 0;
    while (index < UPOOL_MAX_ADDRS && p->addrs[index] != NULL)
        index++;
    if (index == UPOOL_MAX_ADDRS)
        return NULL;
    struct uaddr *a = mem_zalloc(sizeof *a);
    if (a == NULL)
        return NULL;
    timer_init(&a->probe_timer, p->loop, on_probe_due, a);
    if (!timer_reserve(&a->probe_timer)) {
        mem_free(a);
        return NULL;
    }
    a->ep = ep;
    ep->refs++;
    a->addr = *addr;
    a->index = index;
    a->refs = 1;
    addr_format(addr, a->text);
    p->addrs[index] = a;
    p->addr_end = size_max(p->addr_end, index + 1);
    a->leases = most_leases(p);
    return a;
}

struct uaddr *
uaddr_ref(struct uaddr *a)
{
    CHECK(a->refs > 0);
    a->refs++;
    return a;
}

static void LOOP_ONLY
endpoint_unref(struct endpoint **epp)
{
    struct endpoint *ep = *epp;
    *epp = NULL;
    CHECK(ep->refs > 0);
    if (--ep->refs == 0)
        mem_free(ep);
}

void
uaddr_unref(struct uaddr **ap)
{
    struct uaddr *a = *ap;
    if (a == NULL)
        return;
    *ap = NULL;
    CHECK(a->refs > 0);
    if (--a->refs > 0)
        return;
    timer_fini(&a->probe_timer);
    endpoint_unref(&a->ep);
    mem_free(a);
}

/* Off the pool's table: no new connection; those in use live on until their exchange ends. Who
 * waits for this one is told by on_serve(). */
static void LOOP_ONLY
uaddr_drop(struct uaddr *a)
{
    struct upool *p = a->ep->pool;
    if (!p->stopping)
        LOG_I("address_gone host=%s address=%s", a->ep->url.host, a->text);
    a->gone = true;
    p->addresses_left = true;
    p->addrs[a->index] = NULL;
    timer_disarm(&a->probe_timer);
    upool_close_idle_of(p, a, MONO_NEVER, M_CLOSE_SURPLUS);
    LIST_EACH_SAFE (node, next, &p->connecting) {
        struct uconn *uc = CONTAINER_OF(node, struct uconn, link);
        uc->had_try &= ~(1ull << a->index); /* another may get its place in the table */
        if (uc->addr == a)
            uconn_abandon(uc);
    }
    uaddr_unref(&a);
}

bool
uaddr_is_gone(const struct uaddr *a)
{
    return a->gone;
}

struct str
uaddr_authority(const struct uaddr *a)
{
    return str_of(a->ep->authority);
}

const char *
uaddr_text(const struct uaddr *a)
{
    return a->text;
}

bool
uaddr_any_up(const struct upool *p)
{
    for (size_t i = 0; i < UPOOL_MAX_ADDRS; i++)
        if (p->addrs[i] != NULL && p->addrs[i]->state == UADDR_UP)
            return true;
    return false;
}

struct uaddr *
uaddr_pick(const struct upool *p, uint64_t tried, bool ejected_too)
{
    struct uaddr *best = NULL;
    size_t best_load = SIZE_MAX;
    for (size_t i = 0; i < p->addr_end; i++) {
        struct uaddr *a = p->addrs[i];
        if (a == NULL || (tried >> i & 1) || (a->state == UADDR_EJECTED && !ejected_too))
            continue;
        /* An ejected one only after every one that works. */
        size_t load = a->active + a->connecting + (a->state == UADDR_EJECTED ? SIZE_MAX / 2 : 0);
        if (load < best_load || (load == best_load && a->leases < best->leases)) {
            best = a;
            best_load = load;
        }
    }
    return best;
}

size_t
uaddr_count(const struct upool *p, uint64_t tried)
{
    size_t n = 0;
    for (size_t i = 0; i < p->addr_end; i++)
        n += p->addrs[i] != NULL && !(tried >> i & 1);
    return n;
}

static size_t
conns_of(const struct uaddr *a)
{
    return a->active + a->idle + a->connecting - (a->probing ? 1u : 0u);
}

bool
uaddr_is_crowded(const struct uaddr *a)
{
    const struct upool *p = a->ep->pool;
    struct mono now = loop_now(p->loop);
    for (size_t i = 0; i < p->addr_end; i++) {
        const struct uaddr *other = p->addrs[i];
        if (other == NULL || other->state != UADDR_UP || conns_of(other) + 2 > conns_of(a))
            continue;
        /* One that lets connects hang is not ejected for it, but nobody is sent there on purpose.
         */
        if (other->silent_at.us == 0 || mono_diff_us(now, other->silent_at) > p->cfg->eject_max)
            return true;
    }
    return false;
}

void
uaddr_succeeded(struct uaddr *a)
{
    a->fails = 0;
    a->silent_at = (struct mono){0};
    a->no_route = false;
    a->probe_waits = false;
    if (a->state == UADDR_UP)
        return;
    a->state = UADDR_UP;
    a->leases = most_leases(a->ep->pool);
    timer_disarm(&a->probe_timer);
    LOG_I("upstream_up upstream=%s address=%s", a->ep->pool->name, a->text);
    update_gauges(a->ep->pool);
    upool_kick(a->ep->pool);
}

/* No address of this name works: maybe the server has moved. */
static void LOOP_ONLY
look_up_if_all_failed(struct endpoint *ep)
{
    const struct upool *p = ep->pool;
    for (size_t i = 0; i < p->addr_end; i++)
        if (p->addrs[i] != NULL && p->addrs[i]->ep == ep && p->addrs[i]->state == UADDR_UP)
            return;
    if (!ep->is_name || ep->job != NULL)
        return;
    struct mono soon = mono_add_us(ep->looked_up_at, RESOLVE_RETRY_MIN_US);
    if (!timer_armed(&ep->resolve_timer) || ep->resolve_timer.due_us > soon.us)
        timer_arm(&ep->resolve_timer, soon);
}

void
uaddr_failed(struct uaddr *a, const char *why)
{
    const struct config_upstream *cfg = a->ep->pool->cfg;
    int64_t backoff = cfg->eject_min;
    for (int i = 0; i < a->fails && backoff < cfg->eject_max; i++)
        backoff *= 2;
    if (backoff > cfg->eject_max)
        backoff = cfg->eject_max;
    a->fails++;
    a->probe_waits = false;
    if (a->state == UADDR_UP || strcmp(a->why, why) != 0)
        LOG_W("upstream_down upstream=%s host=%s address=%s why=\"%s\"", a->ep->pool->name,
            a->ep->url.host, a->text, why);
    snprintf(a->why, sizeof a->why, "%s", why);
    if (a->state == UADDR_UP) {
        a->state = UADDR_EJECTED;
        a->ejected_at = loop_now(a->ep->pool->loop);
        metric_inc_in(a->ep->pool->metrics, M_EJECTIONS);
    }
    update_gauges(a->ep->pool);
    if (a->gone)
        return;
    timer_arm_in(&a->probe_timer, random_jitter(backoff, 20));
    look_up_if_all_failed(a->ep);
}

void
uaddr_probe_ended(struct uaddr *a)
{
    a->probing = false;
    if (a->state == UADDR_EJECTED && !a->gone && !timer_armed(&a->probe_timer))
        timer_arm_in(&a->probe_timer, random_jitter(a->ep->pool->cfg->eject_min, 20));
}

void
uconn_died_unanswered(struct uconn *uc)
{
    struct uaddr *a = uc->addr;
    if (uc->served > 0) {
        /* The server, or something between, dropped idle connections: others of that age are no
         * better, and each would cost a request its retry. */
        upool_close_idle_of(uc->pool, a, uc->idle_since, M_CLOSE_STALE_KIN);
        return;
    }
    if (++a->unanswered >= UNANSWERED_MAX) {
        a->unanswered = 0;
        const char *hint = uconn_silence_hint(uc);
        uaddr_failed(a, hint != NULL ? hint : "connections end without an answer");
    }
}

void
uconn_answered(struct uconn *uc)
{
    uc->addr->has_answered = true;
}

const char *
uconn_silence_hint(const struct uconn *uc)
{
    bool silent = uc->served == 0 && !uc->addr->has_answered && conn_is_plain(&uc->conn);
    return silent ? "the connection ended without an answer: if this port speaks TLS, write "
                    "https:// in the upstream url"
                  : NULL;
}

/* What the last answer does not have. */
static void LOOP_ONLY
drop_missing(struct endpoint *ep, const struct addr *addrs, size_t count)
{
    struct upool *p = ep->pool;
    for (size_t i = 0; i < UPOOL_MAX_ADDRS; i++) {
        struct uaddr *a = p->addrs[i];
        if (a == NULL || a->ep != ep)
            continue;
        bool still = false;
        for (size_t k = 0; k < count; k++)
            still = still || addr_eq(&a->addr, &addrs[k]);
        if (!still)
            uaddr_drop(a);
    }
}

static bool
endpoint_uses(const struct endpoint *ep, const struct addr *addr)
{
    const struct upool *p = ep->pool;
    for (size_t i = 0; i < UPOOL_MAX_ADDRS; i++)
        if (p->addrs[i] != NULL && p->addrs[i]->ep == ep && addr_eq(&p->addrs[i]->addr, addr))
            return true;
    return false;
}

/* Those in use stay, whatever the order: a DNS server that shuffles a long list would otherwise
 * take connections and sessions away at every look-up. New ones get the places that are left.
 * false: the endpoint has no address now. */
static bool LOOP_ONLY
merge_addresses(struct endpoint *ep, const struct addr *addrs, size_t count)
{
    size_t used = 0;
    drop_missing(ep, addrs, count);
    for (size_t k = 0; k < count; k++)
        used += endpoint_uses(ep, &addrs[k]);
    for (size_t k = 0; k < count && used < ENDPOINT_MAX_ADDRS; k++)
        if (!endpoint_uses(ep, &addrs[k]) && uaddr_new(ep, &addrs[k]) != NULL)
            used++;
    size_t ignored = count - used;
    if (ignored > 0 && ignored != ep->ignored)
        LOG_W("address_ignored upstream=%s host=%s used=%zu ignored=%zu "
              "why=\"at most %d of a name and %d in all, or no memory\"",
            ep->pool->name, ep->url.host, used, ignored, ENDPOINT_MAX_ADDRS, UPOOL_MAX_ADDRS);
    ep->ignored = ignored;
    update_gauges(ep->pool);
    return used > 0;
}

static void
on_resolved(void *arg, const struct addr *addrs, size_t count, const char *why)
{
    thr_check_loop();
    struct endpoint *ep = arg;
    struct upool *p = ep->pool;
    ep->job = NULL;
    int64_t again = p->cfg->resolve_interval;
    if (count > 0) {
        metric_inc_in(ep->pool->metrics, M_RESOLVES);
        ep->resolve_fails = 0;
        if (merge_addresses(ep, addrs, count))
            ep->resolved = true;
        else
            again = RESOLVE_RETRY_MIN_US; /* no memory */
    } else {
        metric_inc_in(ep->pool->metrics, M_RESOLVES_FAILED);
        if (ep->resolve_fails == 0)
            LOG_W("resolve_failed upstream=%s host=%s why=\"%s\"%s", ep->pool->name, ep->url.host,
                why, ep->resolved ? " using=stale" : "");
        if (ep->resolve_fails < 16)
            ep->resolve_fails++;
        int64_t backoff = (int64_t)RESOLVE_RETRY_MIN_US << ep->resolve_fails;
        again = backoff < again ? backoff : again;
        /* Where there is an address, to connect is what tells. */
        if (!ep->resolved && !endpoints_pending(p) && uaddr_pick(p, 0, true) == NULL) {
            char text[WHY_MAX];
            snprintf(text, sizeof text, "the host name cannot be resolved: %s", why);
            upool_dial_failed(p, NULL, text);
        }
    }
    timer_arm_in(&ep->resolve_timer, random_jitter(again, 10));
    upool_kick(p);
}

static void
on_resolve_due(void *arg)
{
    thr_check_loop();
    struct endpoint *ep = arg;
    if (ep->job != NULL || ep->pool->stopping)
        return;
    ep->looked_up_at = loop_now(ep->pool->loop);
    ep->job = resolver_start(ep->pool->resolver, ep->url.host, ep->url.port, on_resolved, ep);
    if (ep->job == NULL) /* too many look-ups under way */
        timer_arm_in(&ep->resolve_timer, RESOLVE_RETRY_MIN_US);
}

bool
endpoint_set_server_name(struct endpoint *ep, const struct config_upstream *cfg)
{
    const char *name = cfg->tls_server_name[0] != '\0' ? cfg->tls_server_name : ep->url.host;
    if (strcmp(ep->server_name, name) == 0)
        return false;
    snprintf(ep->server_name, sizeof ep->server_name, "%s", name);
    return true;
}

struct endpoint *
endpoint_new(struct upool *p, const char *url, char *why, size_t why_len)
{
    struct endpoint *ep = mem_zalloc(sizeof *ep);
    snprintf(why, why_len, "out of memory");
    if (ep == NULL)
        return NULL;
    ep->pool = p;
    ep->refs = 1;
    timer_init(&ep->resolve_timer, p->loop, on_resolve_due, ep);
    if (!timer_reserve(&ep->resolve_timer) ||
        !config_parse_url(str_of(url), &ep->url, why, why_len)) {
        timer_fini(&ep->resolve_timer);
        mem_free(ep);
        return NULL;
    }
    bool v6 = strchr(ep->url.host, ':') != NULL;
    snprintf(ep->authority, sizeof ep->authority, "%s%s%s:%u", v6 ? "[" : "", ep->url.host,
        v6 ? "]" : "", ep->url.port);
    return ep;
}

void
endpoint_start(struct endpoint *ep)
{
    struct addr fixed;
    ep->started = true;
    if (addr_from_ip(ep->url.host, ep->url.port, &fixed)) {
        ep->resolved = merge_addresses(ep, &fixed, 1);
        if (!ep->resolved) /* no memory */
            timer_arm_in(&ep->resolve_timer, RESOLVE_RETRY_MIN_US);
    } else {
        ep->is_name = true;
        on_resolve_due(ep);
    }
}

void
endpoint_new_interval(struct endpoint *ep)
{
    struct mono latest = mono_add_us(loop_now(ep->pool->loop), ep->pool->cfg->resolve_interval);
    if (timer_armed(&ep->resolve_timer) && ep->resolve_timer.due_us > latest.us)
        timer_arm(&ep->resolve_timer, latest);
}

void
endpoint_retire(struct endpoint **epp)
{
    struct endpoint *ep = *epp;
    if (ep->job != NULL)
        resolver_cancel(&ep->job);
    timer_fini(&ep->resolve_timer);
    for (size_t i = 0; i < UPOOL_MAX_ADDRS; i++)
        if (ep->pool->addrs[i] != NULL && ep->pool->addrs[i]->ep == ep)
            uaddr_drop(ep->pool->addrs[i]);
    update_gauges(ep->pool);
    endpoint_unref(epp);
}

bool
endpoints_pending(const struct upool *p)
{
    for (size_t i = 0; i < p->endpoint_count; i++)
        if (!p->endpoints[i]->resolved && p->endpoints[i]->job != NULL)
            return true;
    return false;
}

void
endpoints_retry_now(struct upool *p)
{
    for (size_t i = 0; i < p->endpoint_count; i++) {
        struct endpoint *ep = p->endpoints[i];
        if (!ep->resolved && ep->job == NULL)
            on_resolve_due(ep);
    }
}
