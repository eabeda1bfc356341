/*
 * door: what holds for those who come in by a listener, at the start and after a reload: its TLS,
 * who may come in, and as whom; and the users, which go with it.
 */
#include "proxy/proxy_impl.h"
#include "rt/fileprint.h"

#include "base/no_block.h"

struct proxy_plan {
    size_t count;
    struct {
        char name[DOOR_NAME_MAX + 1];
        struct door_tls tls;
        struct door_policy policy;
    } listen[CONFIG_MAX_LISTEN];
    struct users *users; /* owned, until they are in force */
};

/* Taken before the files are used: one that changes in between is then read again next time. */
static uint64_t
print_of(const struct config_listen *cl)
{
    static const char *const auth[] = {"off", "optional", "require"};
    uint64_t print = fileprint_text(0, auth[cl->tls_client_auth]);
    print = fileprint_text(print, cl->tls_min_version == TLS_VERSION_1_3 ? "1.3" : "1.2");
    print = fileprint_path(print, cl->tls_cert_file);
    print = fileprint_path(print, cl->tls_key_file);
    return fileprint_path(print, cl->tls_client_ca_file);
}

static bool
load(const struct config_listen *cl, struct door_tls *out, char *why, size_t why_len)
{
    *out = (struct door_tls){.server = NULL};
    if (cl->tls_cert_file[0] == '\0')
        return true;
    struct tls_server_options o = {.cert_file = cl->tls_cert_file,
        .key_file = cl->tls_key_file,
        .client_ca_file = cl->tls_client_ca_file,
        .min_tls13 = cl->tls_min_version == TLS_VERSION_1_3};
    switch (cl->tls_client_auth) {
    case TLS_CLIENT_AUTH_OFF: o.clients = TLS_CLIENTS_ANY; break;
    case TLS_CLIENT_AUTH_OPTIONAL: o.clients = TLS_CLIENTS_MAY_PROVE; break;
    case TLS_CLIENT_AUTH_REQUIRE: o.clients = TLS_CLIENTS_MUST_PROVE; break;
    }
    out->print = print_of(cl);
    out->server = tls_server_new(&o, why, why_len);
    return out->server != NULL;
}

static void
set_policy(struct door_policy *p, const struct config_listen *cl)
{
    const char *why;
    snprintf(p->user, sizeof p->user, "%s", cl->user);
    for (size_t i = 0; i < cl->allow.count && i < COUNT_OF(p->allow); i++)
        CHECK(ip_net_parse(str_of(cl->allow.item[i]), &p->allow[p->allow_count++], &why));
}

struct proxy_plan *
proxy_plan_new(const struct config *cfg, struct buf *errors)
{
    char why[512];
    struct proxy_plan *plan = mem_zalloc(sizeof *plan);
    bool ok = plan != NULL;
    if (!ok)
        buf_str(errors, STR("out of memory\n"));
    for (size_t i = 0; plan != NULL && i < cfg->listen_count; i++) {
        plan->count++;
        set_policy(&plan->listen[i].policy, &cfg->listen[i]);
        snprintf(plan->listen[i].name, sizeof plan->listen[i].name, "%s", cfg->listen_name[i]);
        if (load(&cfg->listen[i], &plan->listen[i].tls, why, sizeof why))
            continue;
        buf_addf(errors, "[listen %s] %s\n", cfg->listen_name[i], why);
        ok = false;
    }
    if (plan != NULL) {
        plan->users = users_new(cfg, why, sizeof why);
        if (plan->users == NULL)
            buf_addf(errors, "%s\n", why);
        ok = ok && plan->users != NULL;
    }
    if (!ok)
        proxy_plan_free(&plan);
    return plan;
}

void
proxy_plan_free(struct proxy_plan **pp)
{
    struct proxy_plan *plan = *pp;
    if (plan == NULL)
        return;
    *pp = NULL;
    for (size_t i = 0; i < plan->count; i++)
        tls_server_unref(&plan->listen[i].tls.server);
    users_free(&plan->users);
    mem_free(plan);
}

static bool LOOP_ONLY
take_tls(struct door *d, const struct door_tls *next)
{
    /* What is the same stays, and with it the tickets that clients hold. */
    if ((next->server == NULL) == (d->tls.server == NULL) && next->print == d->tls.print)
        return false;
    tls_server_unref(&d->tls.server);
    d->tls = *next;
    d->tls.server = next->server == NULL ? NULL : tls_server_ref(next->server);
    d->listener.busy_reply = door_busy_reply(d->px, d);
    return true;
}

/* Tells when the first certificate ends. */
static void LOOP_ONLY
update_metrics(const struct proxy *px)
{
    int64_t first = 0;
    for (size_t i = 0; i < px->door_count; i++) {
        const struct tls_server *t = px->doors[i].tls.server;
        if (t != NULL && (first == 0 || tls_server_not_after(t) < first))
            first = tls_server_not_after(t);
    }
    metric_set(M_TLS_CERTIFICATE_END, first);
}

bool
proxy_take_plan(struct proxy *px, struct proxy_plan *plan)
{
    bool tls = false;
    for (size_t i = 0; i < px->door_count; i++) {
        struct door *d = &px->doors[i];
        for (size_t k = 0; k < plan->count; k++) {
            if (strcmp(d->name, plan->listen[k].name) != 0)
                continue; /* no section: a passed socket, or one that goes with the next restart */
            tls = take_tls(d, &plan->listen[k].tls) || tls;
            d->policy = plan->listen[k].policy;
        }
    }
    users_take_over(plan->users, px->users, &px->gates);
    users_free(&px->users);
    px->users = plan->users;
    plan->users = NULL;
    update_metrics(px);
    return tls;
}

bool
door_allows(const struct door *d, const struct addr *peer)
{
    if (d == NULL || d->policy.allow_count == 0 || peer->sa.sa_family == AF_UNIX)
        return true;
    for (size_t i = 0; i < d->policy.allow_count; i++)
        if (addr_in_net(peer, &d->policy.allow[i]))
            return true;
    return false;
}

void
door_tls_fini(struct door_tls *t)
{
    tls_server_unref(&t->server);
}

struct str
door_stranger_reply(const struct proxy *px, const struct door *d)
{
    static const char alert[] = "\x15\x03\x03\x00\x02\x02\x31"; /* fatal, access_denied */
    if (d->tls.server != NULL)
        return str_n(alert, sizeof alert - 1);
    return str_n(px->stranger_reply.p, px->stranger_reply.len);
}

struct str
door_busy_reply(const struct proxy *px, const struct door *d)
{
    /* A fatal alert, internal_error: nothing else is readable for a client that waits for TLS. */
    static const char alert[] = "\x15\x03\x03\x00\x02\x02\x50";
    if (d != NULL && d->tls.server != NULL)
        return str_n(alert, sizeof alert - 1);
    return str_n(px->busy_reply.p, px->busy_reply.len);
}
