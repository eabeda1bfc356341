/*
 * door: listeners, and what holds for those who come in by them, at the start and after a reload:
 * their TLS, who may come in, and as whom; and the users, which go with it.
 */
#include "proxy/proxy_impl.h"
#include "rt/fileprint.h"

#include "base/no_block.h"

struct proxy_plan {
    bool staged;
    size_t count;
    struct {
        char name[DOOR_NAME_MAX + 1];
        struct door_tls tls;
        struct door_policy policy;
        struct door *door; /* staged: it has it already, */
        bool fresh;        /* or it was opened for it */
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

static void LOOP_ONLY
close_fresh(struct proxy_plan *plan)
{
    for (size_t i = 0; i < plan->count; i++)
        if (plan->listen[i].fresh)
            listener_close(&plan->listen[i].door->listener);
}

void
proxy_plan_free(struct proxy_plan **pp)
{
    struct proxy_plan *plan = *pp;
    if (plan == NULL)
        return;
    *pp = NULL;
    if (plan->staged) {
        thr_check_loop();
        close_fresh(plan);
    }
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
            if (d->listener.fd < 0 || strcmp(d->name, plan->listen[k].name) != 0)
                continue; /* closed, or no section: a passed socket */
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

/* ---- opening ---- */

static bool LOOP_ONLY
is_vacant(const struct proxy *px, const struct door *d)
{
    if (d->listener.fd >= 0)
        return false;
    LIST_EACH (node, &px->clients)
        if (CONTAINER_OF(node, const struct client, link)->door == d)
            return false;
    return true;
}

struct door *
door_place(struct proxy *px, char *why, size_t why_len)
{
    struct door *d = NULL;
    for (size_t i = 0; d == NULL && i < px->door_count; i++)
        if (is_vacant(px, &px->doors[i]))
            d = &px->doors[i];
    if (d == NULL && px->door_count < DOORS_MAX)
        d = &px->doors[px->door_count++];
    if (d == NULL) {
        snprintf(why, why_len, "more than %d listeners", DOORS_MAX);
        return NULL;
    }
    *d = (struct door){.px = px, .listener.fd = -1};
    return d;
}

void
door_set_name(struct door *d, const char *name)
{
    snprintf(d->name, sizeof d->name, "%s", name);
}

bool
door_may_be(const struct config *cfg, const struct addr *a, char *why, size_t why_len)
{
    if (addr_is_loopback(a) || cfg->chmux.allow_remote)
        return true;
    snprintf(why, why_len,
        "is not a loopback address: whoever reaches it could use the pool; set allow_remote = yes "
        "in [chmux] to allow that");
    return false;
}

/* Without the address. */
static struct listener_options
options_of(const struct config_listen *cl)
{
    return (struct listener_options){.backlog = (int)cl->backlog,
        .clients_speak = true,
        .mode = (unsigned)strtoul(cl->mode, NULL, 8),
        .group = cl->group};
}

bool
door_open(
    struct proxy *px, struct door *d, const struct config *cfg, size_t i, char *why, size_t why_len)
{
    const struct config_listen *cl = &cfg->listen[i];
    const char *name = cfg->listen_name[i], *parse_why = "";
    struct listener_options o = options_of(cl);
    char reason[256];
    if (!addr_parse(str_of(cl->address), &o.addr, &parse_why)) {
        snprintf(why, why_len, "[listen %s] address %s: %s", name, cl->address, parse_why);
        return false;
    }
    if (!door_may_be(cfg, &o.addr, reason, sizeof reason)) {
        snprintf(why, why_len, "[listen %s] address %s %s", name, cl->address, reason);
        return false;
    }
    d->px = px;
    door_set_name(d, name);
    return listener_open(&d->listener, &o, why, why_len);
}

bool
door_may_lack(const struct door *d, const struct config *cfg, size_t i)
{
    int e = d->listener.sys_errno;
    return config_listen_is_default(cfg, i) && (e == EAFNOSUPPORT || e == EADDRNOTAVAIL);
}

static void
on_client(void *arg, int fd, const struct addr *peer)
{
    thr_check_loop();
    const struct door *d = arg;
    client_accept(d->px, d, fd, peer);
}

bool
door_start(struct door *d)
{
    return listener_start(&d->listener, d->px->loop, door_busy_reply(d->px, d), on_client, d);
}

/* ---- a reload ---- */

static bool LOOP_ONLY
is_taken(const struct proxy_plan *plan, const struct door *d)
{
    for (size_t i = 0; i < plan->count; i++)
        if (plan->listen[i].door == d)
            return true;
    return false;
}

/* What the section of that name says now; NULL: there is none. */
static const struct config_listen *
section_of(const struct config *cfg, const char *name)
{
    for (size_t i = 0; i < cfg->listen_count; i++)
        if (strcmp(cfg->listen_name[i], name) == 0)
            return &cfg->listen[i];
    return NULL;
}

const struct config_listen *
door_section(const struct door *d)
{
    return section_of(d->px->cfg, d->name);
}

/* The door that has this section's name, if it is where the section wants it. Port 0 is a free one
 * only the first time. */
static bool LOOP_ONLY
has_name_and_place(const struct proxy *px, const struct door *d, const struct config *cfg, size_t i)
{
    const char *address = cfg->listen[i].address, *why;
    struct addr want;
    if (d->listener.fd < 0 || strcmp(d->name, cfg->listen_name[i]) != 0)
        return false;
    const struct config_listen *before = section_of(px->cfg, d->name);
    if (before != NULL && strcmp(before->address, address) == 0)
        return true;
    return d->listener.adopted &&
           (address[0] == '\0' ||
               (addr_parse(str_of(address), &want, &why) && addr_eq(&want, &d->listener.addr)));
}

static struct door *LOOP_ONLY
find_by_place(struct proxy *px, const struct proxy_plan *plan, const struct config *cfg, size_t i)
{
    struct addr want;
    const char *why;
    if (!addr_parse(str_of(cfg->listen[i].address), &want, &why))
        return NULL;
    for (size_t k = 0; k < px->door_count; k++) {
        struct door *d = &px->doors[k];
        if (d->listener.fd >= 0 && !is_taken(plan, d) && addr_eq(&want, &d->listener.addr))
            return d;
    }
    return NULL;
}

/* Passed sockets stay; the configuration must go with them, as at the start. */
static bool LOOP_ONLY
passed_one_agrees(const struct door *d, const struct config *cfg, char *why, size_t why_len)
{
    char reason[256];
    const char *parse_why;
    struct addr want;
    const struct config_listen *cl = section_of(cfg, d->name);
    if (!door_may_be(cfg, &d->listener.addr, reason, sizeof reason)) {
        snprintf(
            why, why_len, "the passed socket \"%s\" (%s) %s", d->name, d->listener.text, reason);
        return false;
    }
    if (cl == NULL || !addr_parse(str_of(cl->address), &want, &parse_why) ||
        addr_eq(&want, &d->listener.addr))
        return true;
    snprintf(why, why_len,
        "[listen %s] address is %s, but the socket passed under that name is %s; make them agree, "
        "or leave the address out",
        d->name, cl->address, d->listener.text);
    return false;
}

static bool LOOP_ONLY
open_fresh(struct proxy *px, const struct config *cfg, struct proxy_plan *plan, size_t i, char *why,
    size_t why_len)
{
    if (cfg->listen[i].address[0] == '\0') {
        snprintf(why, why_len, "[listen %s] has no address, and no socket of that name was passed",
            cfg->listen_name[i]);
        return false;
    }
    struct door *d = door_place(px, why, why_len);
    if (d == NULL)
        return false;
    if (!door_open(px, d, cfg, i, why, why_len))
        return door_may_lack(d, cfg, i);
    plan->listen[i].door = d;
    plan->listen[i].fresh = true;
    if (door_start(d))
        return true;
    snprintf(why, why_len, "out of memory");
    return false;
}

/* The options of a door that stays; false: nothing to do. A passed socket may have had no section
 * before, so either may be NULL. */
static bool LOOP_ONLY
new_style(const struct door *d, const struct config_listen *before, const struct config_listen *cl,
    struct listener_options *out)
{
    if (d->listener.adopted || before == NULL || cl == NULL)
        return false;
    *out = options_of(cl);
    out->addr = d->listener.addr;
    return before->backlog != cl->backlog || strcmp(before->mode, cl->mode) != 0 ||
           strcmp(before->group, cl->group) != 0;
}

/* Those that stay, with another mode, group or backlog. The last step that can fail: it takes back
 * what it did. */
static bool LOOP_ONLY
restyle(
    struct proxy *px, const struct config *cfg, struct proxy_plan *plan, char *why, size_t why_len)
{
    struct listener_options o;
    char ignored[256];
    for (size_t i = 0; i < plan->count; i++) {
        struct door *d = plan->listen[i].door;
        if (d == NULL || plan->listen[i].fresh ||
            !new_style(d, section_of(px->cfg, d->name), &cfg->listen[i], &o) ||
            listener_restyle(&d->listener, &o, why, why_len))
            continue;
        for (size_t k = 0; k <= i; k++) {
            d = plan->listen[k].door;
            if (d != NULL && !plan->listen[k].fresh &&
                new_style(d, &cfg->listen[k], section_of(px->cfg, d->name), &o) &&
                !listener_restyle(&d->listener, &o, ignored, sizeof ignored))
                LOG_E("listener_changed name=%s why=\"%s\"", d->name, ignored);
        }
        return false;
    }
    return true;
}

bool
proxy_stage(
    struct proxy *px, const struct config *cfg, struct proxy_plan *plan, char *why, size_t why_len)
{
    plan->staged = true;
    for (size_t k = 0; k < px->door_count; k++) {
        const struct door *d = &px->doors[k];
        if (d->listener.fd >= 0 && d->listener.adopted && !passed_one_agrees(d, cfg, why, why_len))
            return false;
    }
    /* By name first: a section must not take the door of one that still has it. */
    for (size_t i = 0; i < plan->count; i++)
        for (size_t k = 0; k < px->door_count && plan->listen[i].door == NULL; k++)
            if (has_name_and_place(px, &px->doors[k], cfg, i))
                plan->listen[i].door = &px->doors[k];
    for (size_t i = 0; i < plan->count; i++)
        if (plan->listen[i].door == NULL)
            plan->listen[i].door = find_by_place(px, plan, cfg, i);
    for (size_t i = 0; i < plan->count; i++)
        if (plan->listen[i].door == NULL && !open_fresh(px, cfg, plan, i, why, why_len))
            return false;
    return restyle(px, cfg, plan, why, why_len);
}

void
doors_commit(struct proxy *px, struct proxy_plan *plan)
{
    /* Not staged: only files were read, and the listeners are what they were. */
    for (size_t k = 0; k < px->door_count && plan->staged; k++) {
        struct door *d = &px->doors[k];
        if (d->listener.fd < 0 || d->listener.adopted || is_taken(plan, d))
            continue;
        LOG_I("listener_closed name=%s address=%s", d->name, d->listener.text);
        listener_accept_rest(&d->listener);
        listener_close(&d->listener);
        door_tls_fini(&d->tls);
    }
    for (size_t i = 0; i < plan->count; i++) {
        if (plan->listen[i].door == NULL)
            continue;
        door_set_name(plan->listen[i].door, plan->listen[i].name);
        if (plan->listen[i].fresh)
            LOG_I("listener_opened name=%s address=%s", plan->listen[i].name,
                plan->listen[i].door->listener.text);
        plan->listen[i].fresh = false;
    }
}
