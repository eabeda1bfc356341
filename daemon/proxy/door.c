/*
 * door: what holds for those who come in by a listener: its TLS, at the start and after a reload.
 */
#include "proxy/proxy_impl.h"
#include "rt/fileprint.h"

#include "base/no_block.h"

struct proxy_plan {
    size_t count;
    struct {
        char name[DOOR_NAME_MAX + 1];
        struct door_tls tls;
    } listen[CONFIG_MAX_LISTEN];
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

struct proxy_plan *
proxy_plan_new(const struct config *cfg, struct buf *errors)
{
    struct proxy_plan *plan = mem_zalloc(sizeof *plan);
    bool ok = plan != NULL;
    if (!ok)
        buf_str(errors, STR("out of memory\n"));
    for (size_t i = 0; plan != NULL && i < cfg->listen_count; i++) {
        char why[512];
        plan->count++;
        snprintf(plan->listen[i].name, sizeof plan->listen[i].name, "%s", cfg->listen_name[i]);
        if (load(&cfg->listen[i], &plan->listen[i].tls, why, sizeof why))
            continue;
        buf_addf(errors, "[listen %s] %s\n", cfg->listen_name[i], why);
        ok = false;
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
    mem_free(plan);
}

bool
door_take_tls(struct door *d, const struct proxy_plan *plan)
{
    const struct door_tls *next = NULL;
    for (size_t i = 0; next == NULL && i < plan->count; i++)
        if (strcmp(d->name, plan->listen[i].name) == 0)
            next = &plan->listen[i].tls;
    /* No section: a passed socket, or one that goes with the next restart. What is the same stays,
     * and with it the tickets that clients hold. */
    bool same = next == NULL || (next->server == NULL) == (d->tls.server == NULL);
    if (same && (next == NULL || next->print == d->tls.print))
        return false;
    tls_server_unref(&d->tls.server);
    d->tls = *next;
    d->tls.server = next->server == NULL ? NULL : tls_server_ref(next->server);
    d->listener.busy_reply = door_busy_reply(d->px, d);
    return true;
}

void
door_tls_fini(struct door_tls *t)
{
    tls_server_unref(&t->server);
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

void
doors_update_metrics(const struct proxy *px)
{
    int64_t first = 0;
    for (size_t i = 0; i < px->door_count; i++) {
        const struct tls_server *t = px->doors[i].tls.server;
        if (t != NULL && (first == 0 || tls_server_not_after(t) < first))
            first = tls_server_not_after(t);
    }
    metric_set(M_TLS_CERTIFICATE_END, first);
}
