/*
 * upool_reload: the configuration of a pool, prepared, staged and put in force. The first one comes
 * this way too.
 */
#include "base/log.h"
#include "base/mem.h"
#include "net/tls.h"
#include "rt/fileprint.h"
#include "upstream/upool_impl.h"

#include "base/no_block.h"

struct upool_plan {
    const struct config_upstream *cfg; /* borrows */
    struct tls_ctx *tls;               /* owns; NULL: no https URL */
    uint64_t tls_print;
    struct endpoint **endpoint; /* owns those that have not started; the others are the pool's */
    size_t endpoint_count;
};

static bool
wants_tls(const struct config_upstream *cfg)
{
    struct config_url url;
    char why[WHY_MAX];
    for (size_t i = 0; i < cfg->url.count; i++)
        if (config_parse_url(str_of(cfg->url.item[i]), &url, why, sizeof why) && url.tls)
            return true;
    return false;
}

/* The print is taken before the files are used. The other way round, a file that changes in between
 * would be in the print and not in the context, and stay so. */
static uint64_t
print_tls(const struct config_upstream *cfg)
{
    uint64_t print = fileprint_text(0, cfg->tls_verify ? "verify" : "");
    print = fileprint_text(print, cfg->tls_min_version == TLS_VERSION_1_3 ? "1.3" : "1.2");
    print = fileprint_path(print, cfg->tls_ca_file);
    print = fileprint_path(print, cfg->tls_ca_dir);
    if (cfg->tls_ca_file[0] == '\0' && cfg->tls_ca_dir[0] == '\0') {
        print = fileprint_path(print, X509_get_default_cert_file());
        print = fileprint_path(print, X509_get_default_cert_dir());
    }
    print = fileprint_path(print, cfg->tls_cert_file);
    return fileprint_path(print, cfg->tls_key_file);
}

struct upool_plan *
upool_plan_new(const struct config_upstream *cfg, char *why, size_t why_len)
{
    struct upool_plan *plan = mem_zalloc(sizeof *plan);
    if (plan == NULL) {
        snprintf(why, why_len, "out of memory");
        return NULL;
    }
    plan->cfg = cfg;
    if (!wants_tls(cfg))
        return plan;
    plan->tls_print = print_tls(cfg);
    const struct tls_options o = {.verify = cfg->tls_verify,
        .ca_file = cfg->tls_ca_file,
        .ca_dir = cfg->tls_ca_dir,
        .cert_file = cfg->tls_cert_file,
        .key_file = cfg->tls_key_file,
        .min_tls13 = cfg->tls_min_version == TLS_VERSION_1_3};
    plan->tls = tls_ctx_new(&o, why, why_len);
    if (plan->tls == NULL)
        upool_plan_free(&plan);
    return plan;
}

static void
free_unused_endpoints(struct upool_plan *plan) LOOP_ONLY
{
    for (size_t i = 0; i < plan->endpoint_count; i++)
        if (!plan->endpoint[i]->started)
            endpoint_retire(&plan->endpoint[i]);
    mem_free(plan->endpoint);
}

void
upool_plan_free(struct upool_plan **pp)
{
    struct upool_plan *plan = *pp;
    if (plan == NULL)
        return;
    *pp = NULL;
    if (plan->endpoint != NULL) {
        thr_check_loop();
        free_unused_endpoints(plan);
    }
    tls_ctx_unref(&plan->tls);
    mem_free(plan);
}

static struct endpoint *LOOP_ONLY
find_endpoint(struct endpoint *const *list, size_t count, const struct config_url *url)
{
    for (size_t i = 0; i < count; i++) {
        const struct config_url *have = &list[i]->url;
        if (have->tls == url->tls && have->port == url->port &&
            str_eq_nocase(str_of(have->host), str_of(url->host)))
            return list[i];
    }
    return NULL;
}

bool
upool_stage(struct upool *p, struct upool_plan *plan, char *why, size_t why_len)
{
    const struct config_list *urls = &plan->cfg->url;
    plan->endpoint = mem_zalloc(urls->count * sizeof *plan->endpoint);
    if (plan->endpoint == NULL) {
        snprintf(why, why_len, "out of memory");
        return false;
    }
    for (size_t i = 0; i < urls->count; i++) {
        struct config_url url;
        if (!config_parse_url(str_of(urls->item[i]), &url, why, why_len))
            return false;
        struct endpoint *ep = find_endpoint(p->endpoints, p->endpoint_count, &url);
        if (ep == NULL)
            ep = endpoint_new(p, urls->item[i], why, why_len);
        if (ep == NULL)
            return false;
        plan->endpoint[plan->endpoint_count++] = ep;
    }
    return true;
}

/* Connections that were made, or are being made, with what TLS was before. */
static void LOOP_ONLY
retire_tls(struct upool *p)
{
    struct list *const lists[] = {&p->connecting, &p->idle, &p->active};
    for (size_t i = 0; i < COUNT_OF(lists); i++) {
        LIST_EACH_SAFE (node, next, lists[i]) {
            struct uconn *uc = CONTAINER_OF(node, struct uconn, link);
            if (uc->addr != NULL && uc->addr->ep->url.tls)
                upool_retire(uc, M_CLOSE_RELOAD);
        }
    }
}

static bool LOOP_ONLY
commit_tls(struct upool *p, struct upool_plan *plan)
{
    bool others = plan->tls_print != p->tls_print || (plan->tls == NULL) != (p->tls == NULL);
    bool names = false;
    for (size_t i = 0; i < p->endpoint_count; i++)
        names |= endpoint_set_server_name(p->endpoints[i], p->cfg) && p->endpoints[i]->started;
    if (others) { /* else the one we have, which remembers sessions */
        tls_ctx_unref(&p->tls);
        p->tls = plan->tls;
        plan->tls = NULL;
        p->tls_print = plan->tls_print;
    }
    if (others || names)
        retire_tls(p);
    return others;
}

static void LOOP_ONLY
commit_endpoints(struct upool *p, struct upool_plan *plan)
{
    for (size_t i = 0; i < p->endpoint_count; i++) {
        struct endpoint *ep = p->endpoints[i];
        if (find_endpoint(plan->endpoint, plan->endpoint_count, &ep->url) == NULL) {
            LOG_I("endpoint_removed host=%s port=%u", ep->url.host, ep->url.port);
            endpoint_retire(&p->endpoints[i]);
        }
    }
    mem_free(p->endpoints);
    p->endpoints = plan->endpoint;
    p->endpoint_count = plan->endpoint_count;
    plan->endpoint = NULL;
}

static void LOOP_ONLY
commit_limits(struct upool *p, const struct config_upstream *old)
{
    const struct config_upstream *cfg = p->cfg;
    int64_t older = cfg->max_age - old->max_age;
    LIST_EACH_SAFE (idle, next_idle, &p->idle)
        uconn_new_limits(CONTAINER_OF(idle, struct uconn, link), older);
    LIST_EACH_SAFE (active, next_active, &p->active)
        uconn_new_limits(CONTAINER_OF(active, struct uconn, link), older);
    for (size_t i = 0; i < p->endpoint_count; i++)
        endpoint_new_interval(p->endpoints[i]);
}

bool
upool_commit(struct upool *p, struct upool_plan **pp, int64_t stall_us)
{
    struct upool_plan *plan = *pp;
    const struct config_upstream *old = p->cfg;
    p->cfg = plan->cfg;
    p->stall_us = stall_us;
    metric_set_in(p->metrics, M_POOL_SIZE, p->cfg->pool_size);
    commit_endpoints(p, plan);
    bool tls_changed = commit_tls(p, plan);
    commit_limits(p, old);
    for (size_t i = 0; i < p->endpoint_count && p->started; i++)
        if (!p->endpoints[i]->started)
            endpoint_start(p->endpoints[i]);
    upool_trim(p);
    upool_kick(p); /* there may be more room now, or servers to connect to */
    upool_plan_free(pp);
    return tls_changed;
}
