#include "config/config_load.h"

#include "base/check.h"
#include "base/ip_net.h"
#include "config/config_parse.h"
#include "config/config_value.h"

/*
 * What several options say together. A check is quiet when one of its options was refused already:
 * its field still holds the old value, and two complaints about one slip help nobody.
 */
struct subject {
    struct config_target t;
    const struct config_opt *opt;
    struct config_origin_entry *origin;
};

static struct subject
subject_of(
    const struct config_loader *l, enum config_section_index section, size_t nth, const char *key)
{
    struct subject s = {.t = {&config_sections[section], nth}};
    s.opt = config_opt_find(s.t.sec, str_of(key));
    CHECK(s.opt != NULL);
    s.origin = config_origin_of(l->c, s.t, s.opt);
    return s;
}
#define SUBJECT(section, key)         subject_of(l, CONFIG_SECTION_##section, 0, key)
#define SUBJECT_OF(section, nth, key) subject_of(l, CONFIG_SECTION_##section, nth, key)

static bool
usable(const struct subject *s, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (s[i].origin->bad)
            return false;
    return true;
}

/* The one the user set last is the one to complain about. */
static const struct subject *
blame(const struct subject *s, size_t count)
{
    size_t best = 0;
    for (size_t i = 1; i < count; i++)
        if (s[i].origin->kind > s[best].origin->kind)
            best = i;
    return &s[best];
}

enum severity { WARN, FAIL };

static void PRINTF_LIKE(4, 5) complain(
    struct config_loader *l, enum severity severity, const struct subject *s, const char *fmt, ...)
{
    char name[CONFIG_TARGET_NAME_MAX], text[CONFIG_WHY_MAX];
    struct config_place place = config_place_of(s->origin);
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    config_target_name(l->c, s->t, name);
    if (severity == FAIL)
        config_error(l, &place, name, s->opt->key, "%s", text);
    else
        config_warn(l, &place, name, s->opt->key, "%s", text);
}

/* small <= large, two durations or two integers. */
static void
check_order(struct config_loader *l, struct subject small, int64_t small_value,
    struct subject large, int64_t large_value)
{
    const struct subject both[] = {small, large};
    char a[32], b[32];
    if (small_value <= large_value || !usable(both, 2))
        return;
    if (small.opt->type == CONFIG_DURATION) {
        config_format_duration(small_value, a);
        config_format_duration(large_value, b);
    } else {
        snprintf(a, sizeof(a), "%" PRId64, small_value);
        snprintf(b, sizeof(b), "%" PRId64, large_value);
    }
    complain(l, FAIL, blame(both, 2), "%s (%s) is more than %s (%s); lower one or raise the other",
        small.opt->key, a, large.opt->key, b);
}

static void
check_orders(struct config_loader *l, size_t nth)
{
    const struct config_upstream *u = &l->c->upstream[nth];
    check_order(l, SUBJECT_OF(upstream, nth, "eject_min"), u->eject_min,
        SUBJECT_OF(upstream, nth, "eject_max"), u->eject_max);
    check_order(l, SUBJECT_OF(upstream, nth, "min_idle"), u->min_idle,
        SUBJECT_OF(upstream, nth, "pool_size"), u->pool_size);
}

/* Every connection of all pools at full speed must not use up what clients need to get in. */
static void
check_memory(struct config_loader *l)
{
    const struct config *c = l->c;
    struct subject s[2 + CONFIG_MAX_UPSTREAM] = {
        SUBJECT(chmux, "memory_limit"),
        SUBJECT(chmux, "buffer_size"),
    };
    char limit[32], each[32], all[32], wanted[32], pools[48] = "";
    int64_t connections = 0;
    size_t subjects = 2;
    for (size_t i = 0; i < c->upstream_count; i++) {
        s[subjects++] = SUBJECT_OF(upstream, i, "pool_size");
        connections += c->upstream[i].pool_size;
    }
    size_t bytes = (size_t)connections * 2 * c->chmux.buffer_size;
    if (bytes <= c->chmux.memory_limit / 2 || !usable(s, subjects))
        return;
    if (c->upstream_count > 1)
        snprintf(pools, sizeof(pools), " of all %zu upstreams", c->upstream_count);
    config_format_size(c->chmux.memory_limit, limit);
    config_format_size(c->chmux.buffer_size, each);
    config_format_size(bytes, all);
    config_format_size(bytes * 2, wanted);
    complain(l, FAIL, blame(s, subjects),
        "pool_size%s (%" PRId64 ") times 2 buffers of buffer_size (%s) is %s, more than half of "
        "memory_limit (%s); raise memory_limit to %s or lower the others",
        pools, connections, each, all, limit, wanted);
}

static void
check_certificate_pair(struct config_loader *l, size_t nth)
{
    const struct config_upstream *u = &l->c->upstream[nth];
    struct subject cert = SUBJECT_OF(upstream, nth, "tls_cert_file");
    struct subject key = SUBJECT_OF(upstream, nth, "tls_key_file");
    bool have_cert = u->tls_cert_file[0] != '\0', have_key = u->tls_key_file[0] != '\0';
    if (have_cert && !have_key)
        complain(l, FAIL, &cert, "is set without tls_key_file; set both or neither");
    if (have_key && !have_cert)
        complain(l, FAIL, &key, "is set without tls_cert_file; set both or neither");
}

/* Compares with what a value of the default would be: who wrote the default out meant nothing. */
static bool
differs_from_default(const struct config_loader *l, const struct subject *s)
{
    struct buf now;
    buf_init(&now, 2 * CONFIG_VALUE_MAX);
    config_value_print(s->opt, config_target_base(l->c, s->t), &now);
    bool differs = buf_ok(&now) && !str_eq(str_n(now.p, now.len), str_of(s->opt->def));
    buf_fini(&now);
    return differs;
}

static void
check_tls(struct config_loader *l, size_t nth)
{
    const struct config_upstream *u = &l->c->upstream[nth];
    struct subject url = SUBJECT_OF(upstream, nth, "url");
    struct subject verify = SUBJECT_OF(upstream, nth, "tls_verify");
    size_t https = 0, count;
    for (size_t i = 0; i < u->url.count; i++)
        https += str_starts_nocase(str_of(u->url.item[i]), STR("https://"));
    if (!usable(&url, 1))
        return;
    const struct config_opt *opt = url.t.sec->opts(&count);
    for (size_t i = 0; i < count && https == 0; i++) {
        struct subject s = subject_of(l, CONFIG_SECTION_upstream, nth, opt[i].key);
        if (str_starts_nocase(str_of(opt[i].key), STR("tls_")) && differs_from_default(l, &s))
            complain(l, WARN, &s, "has no effect: no url begins with https://");
    }
    if (https > 0 && !u->tls_verify)
        complain(l, WARN, &verify,
            "the server's certificate is not checked, so anyone on the way can read and change "
            "everything; for tests only");
}

static struct str
without_last_dot(struct str name)
{
    return name.len > 0 && name.p[name.len - 1] == '.' ? str_n(name.p, name.len - 1) : name;
}

/* One server, however it is written: "db" and "DB.", ::1 and 0::1. */
static bool
same_server(const struct config_url *a, const struct config_url *b)
{
    struct str x = str_of(a->host), y = str_of(b->host);
    struct ip_net p, q;
    const char *why;
    if (a->tls != b->tls || a->port != b->port)
        return false;
    if (ip_net_parse(x, &p, &why) && ip_net_parse(y, &q, &why))
        return p.v6 == q.v6 && memcmp(p.ip, q.ip, sizeof(p.ip)) == 0;
    return str_eq_nocase(without_last_dot(x), without_last_dot(y));
}

/* Would a connection to this server come in by that listener? */
static bool
leads_back(const struct config_url *u, const char *listen)
{
    struct config_address a, b;
    char why[CONFIG_WHY_MAX], text[sizeof u->host + 8];
    struct str at = str_of(listen);
    if (!config_parse_address(at, &a, why, sizeof(why)) || a.is_unix || a.port != u->port)
        return false;
    bool named = str_eq_nocase(str_of(u->host), STR("localhost")),
         v6 = strchr(u->host, ':') != NULL;
    snprintf(text, sizeof text, v6 ? "[%s]:1" : "%s:1", u->host);
    bool local =
        named || (config_parse_address(str_of(text), &b, why, sizeof(why)) && b.is_loopback);
    while (at.len > 0 && at.p[at.len - 1] != ':')
        at.len--;
    at.len--;
    if (at.len > 2 && at.p[0] == '[')
        at = str_n(at.p + 1, at.len - 2);
    bool any = str_eq(at, STR("*")) || str_eq(at, STR("0.0.0.0")) || str_eq(at, STR("::"));
    return str_eq_nocase(at, str_of(u->host)) || (any && local) || (named && a.is_loopback);
}

/* chmux in front of itself. */
static void
check_no_circle(
    struct config_loader *l, const struct subject *s, const struct config_url *u, const char *url)
{
    char q[CONFIG_QUOTE_MAX];
    for (size_t i = 0; i < l->c->listen_count; i++)
        if (leads_back(u, l->c->listen[i].address))
            complain(l, FAIL, s,
                "%s is chmux itself, by listener \"%s\" (%s); give ClickHouse or that listener "
                "another port",
                config_quote(str_of(url), q), l->c->listen_name[i], l->c->listen[i].address);
}

/* Each URL by itself was checked when it was set. */
static void
check_urls(struct config_loader *l, size_t nth)
{
    const struct config_list *list = &l->c->upstream[nth].url;
    struct subject s = SUBJECT_OF(upstream, nth, "url");
    char q[CONFIG_QUOTE_MAX], why[CONFIG_WHY_MAX];
    for (size_t i = 0; i < list->count; i++) {
        struct config_url a, b;
        if (!config_parse_url(str_of(list->item[i]), &a, why, sizeof(why)))
            continue;
        if (a.port == 9000 || a.port == 9440)
            complain(l, WARN, &s,
                "port %u is usually ClickHouse's native protocol; chmux speaks HTTP (8123, or 8443 "
                "with TLS)",
                (unsigned)a.port);
        check_no_circle(l, &s, &a, list->item[i]);
        for (size_t j = 0; j < i; j++)
            if (config_parse_url(str_of(list->item[j]), &b, why, sizeof(why)) &&
                same_server(&a, &b))
                complain(l, FAIL, &s, "%s is there twice; name each server once",
                    config_quote(str_of(list->item[i]), q));
    }
}

static void
check_listener_options(struct config_loader *l, size_t i, const struct config_address *a)
{
    static const char *const unix_only[] = {"mode", "group"};
    struct subject address = SUBJECT_OF(listen, i, "address");
    char q[CONFIG_QUOTE_MAX];
    if (!a->is_loopback && !l->c->chmux.allow_remote && !SUBJECT(chmux, "allow_remote").origin->bad)
        complain(l, FAIL, &address,
            "%s is not a loopback address, so others could use the pool; set [chmux] allow_remote "
            "= yes if that is meant",
            config_quote(str_of(l->c->listen[i].address), q));
    for (size_t k = 0; k < COUNT_OF(unix_only) && !a->is_unix; k++) {
        struct subject s = SUBJECT_OF(listen, i, unix_only[k]);
        if (differs_from_default(l, &s))
            complain(l, WARN, &s, "has no effect: %s is not a unix socket",
                config_quote(str_of(l->c->listen[i].address), q));
    }
}

/* A listener's TLS: what belongs together, and what would do nothing. */
static void
check_listener_tls(struct config_loader *l, size_t i)
{
    static const char *const with_cert[] = {
        "tls_key_file", "tls_client_auth", "tls_client_ca_file", "tls_min_version"};
    const struct config_listen *c = &l->c->listen[i];
    struct subject cert = SUBJECT_OF(listen, i, "tls_cert_file");
    struct subject auth = SUBJECT_OF(listen, i, "tls_client_auth");
    struct subject ca = SUBJECT_OF(listen, i, "tls_client_ca_file");
    bool speaks_tls = c->tls_cert_file[0] != '\0', has_ca = c->tls_client_ca_file[0] != '\0';
    for (size_t k = 0; k < COUNT_OF(with_cert) && !speaks_tls; k++) {
        struct subject s = SUBJECT_OF(listen, i, with_cert[k]);
        if (differs_from_default(l, &s)) /* plain text where TLS was meant: no mere warning */
            complain(l, FAIL, &s,
                "is set without tls_cert_file, so the listener would speak "
                "plain HTTP; set both or neither");
    }
    if (!speaks_tls)
        return;
    if (c->tls_key_file[0] == '\0')
        complain(l, FAIL, &cert, "is set without tls_key_file; set both or neither");
    if (c->tls_client_auth != TLS_CLIENT_AUTH_OFF && !has_ca)
        complain(l, FAIL, &auth, "needs tls_client_ca_file: whose certificates are good?");
    if (c->tls_client_auth == TLS_CLIENT_AUTH_OFF && has_ca)
        complain(l, FAIL, &ca,
            "has no effect with tls_client_auth = off, so everybody would be "
            "let in; set optional or require, or leave it out");
}

/* Whoever connects to a unix socket has no address. */
static void
check_allow(struct config_loader *l, size_t i, const struct config_address *a)
{
    struct subject allow = SUBJECT_OF(listen, i, "allow");
    if (a->is_unix && l->c->listen[i].allow.count > 0)
        complain(l, FAIL, &allow,
            "cannot hold for a unix socket, whose clients have no address; mode and group say who "
            "may connect to it");
}

/* Names only: a port or a scheme would never be equal to anything. */
static void
check_host_names(struct config_loader *l, size_t i)
{
    struct subject names = SUBJECT_OF(listen, i, "host_names");
    const struct config_list *list = &l->c->listen[i].host_names;
    char q[CONFIG_QUOTE_MAX];
    for (size_t k = 0; k < list->count; k++) {
        const char *name = list->item[k];
        if (strcmp(name, "*") != 0 && strpbrk(name, ":/* []@?") != NULL)
            complain(l, FAIL, &names,
                "%s is no host name; write it without scheme and port, or * for any",
                config_quote(str_of(name), q));
    }
}

/* Two sockets on one port 0 get two ports; everything else can be bound once only. */
static bool
same_address(const char *a, const char *b)
{
    struct config_address parsed;
    char why[CONFIG_WHY_MAX];
    if (!config_parse_address(str_of(a), &parsed, why, sizeof(why)))
        return false;
    if (!parsed.is_unix && parsed.port == 0)
        return false;
    return parsed.is_unix ? strcmp(a, b) == 0 : str_eq_nocase(str_of(a), str_of(b));
}

static bool
was_passed(const struct config_source *src, const char *name)
{
    if (strcmp(name, "admin") == 0)
        return false; /* that one is the admin listener */
    for (size_t i = 0; i < src->passed_count; i++)
        if (strcmp(src->passed_names[i], name) == 0)
            return true;
    return false;
}

static void
check_listener(struct config_loader *l, size_t i)
{
    const struct config *c = l->c;
    struct subject s = SUBJECT_OF(listen, i, "address");
    struct config_address a;
    char why[CONFIG_WHY_MAX], name[CONFIG_TARGET_NAME_MAX];
    check_listener_tls(l, i);
    check_host_names(l, i);
    if (s.origin->bad)
        return;
    if (c->listen[i].address[0] == '\0') {
        if (was_passed(l->src, c->listen_name[i]))
            return;
        struct config_place place = config_place_of(config_origin_of_name(c, s.t));
        config_error(l, &place, config_target_name(c, s.t, name), "address",
            "the listener \"%s\" has no address; write HOST:PORT, [V6]:PORT, unix:/path or "
            "unix:@name, or have systemd pass a socket of that name (FileDescriptorName=)",
            c->listen_name[i]);
        return;
    }
    if (!config_parse_address(str_of(c->listen[i].address), &a, why, sizeof(why)))
        return;
    check_listener_options(l, i, &a);
    check_allow(l, i, &a);
    for (size_t j = 0; j < i; j++)
        if (same_address(c->listen[i].address, c->listen[j].address))
            complain(l, FAIL, &s, "%s is the address of listener \"%s\" too; use each once",
                c->listen[i].address, c->listen_name[j]);
    struct subject admin = SUBJECT(admin, "address");
    for (size_t j = 0; j < c->admin.address.count && !admin.origin->bad; j++)
        if (same_address(c->listen[i].address, c->admin.address.item[j]))
            complain(l, FAIL, &admin, "%s is the address of listener \"%s\" too; use each once",
                c->admin.address.item[j], c->listen_name[i]);
}

static void
check_admin(struct config_loader *l)
{
    const struct config_list *list = &l->c->admin.address;
    enum admin_access access = l->c->admin.tcp_access;
    struct subject s[] = {SUBJECT(admin, "address"), SUBJECT(admin, "tcp_access")};
    if (!usable(s, COUNT_OF(s)))
        return;
    for (size_t i = 0; i < list->count; i++) {
        struct config_address a;
        char why[CONFIG_WHY_MAX];
        for (size_t j = 0; j < i; j++)
            if (same_address(list->item[i], list->item[j]))
                complain(l, FAIL, &s[0], "%s is there twice; use each once", list->item[i]);
        if (!config_parse_address(str_of(list->item[i]), &a, why, sizeof(why)) || a.is_loopback)
            continue;
        if (access == ADMIN_ACCESS_CONTROL)
            complain(l, FAIL, &s[1],
                "control is for loopback only, and %s is not: whoever reaches it could stop chmux; "
                "use a unix socket for commands",
                list->item[i]);
        else if (access == ADMIN_ACCESS_READ)
            complain(l, WARN, &s[1],
                "whoever reaches %s sees users, query ids and the configuration", list->item[i]);
    }
}

/* Is there a [user NAME] of that name, if one is named? */
static void
check_user_named(struct config_loader *l, const struct subject *s, const char *name)
{
    char q[CONFIG_QUOTE_MAX];
    for (size_t i = 0; i < l->c->user_count; i++)
        if (strcmp(l->c->user_name[i], name) == 0)
            return;
    if (name[0] != '\0')
        complain(
            l, FAIL, s, "there is no section [user NAME] for %s", config_quote(str_of(name), q));
}

static void
check_user(struct config_loader *l, size_t i)
{
    const struct config_user *u = &l->c->user[i];
    struct subject token = SUBJECT_OF(user, i, "token_file");
    struct subject auth = SUBJECT_OF(user, i, "local_auth");
    struct subject set = SUBJECT_OF(user, i, "set.NAME");
    bool has_token = u->token_file[0] != '\0';
    if (has_token && u->password_file[0] != '\0')
        complain(l, FAIL, &token, "is set together with password_file; set one of them");
    if (has_token && u->upstream_user[0] != '\0')
        complain(l, FAIL, &token,
            "is set together with upstream_user; ClickHouse takes the name from the token");
    if (u->local_auth == LOCAL_AUTH_TRUST && l->c->chmux.allow_remote)
        complain(l, WARN, &auth,
            "trust together with [chmux] allow_remote: whoever reaches chmuxd over the network and "
            "names this user gets its credentials");
    for (size_t k = 0; k < u->set.count; k++) {
        set.origin = u->set.item[k].origin;
        for (size_t j = 0; j < u->preset.count; j++)
            if (strcmp(u->set.item[k].name, u->preset.item[j].name) == 0)
                complain(l, WARN, &set, "default.%s has no effect beside set.%s",
                    u->set.item[k].name, u->set.item[k].name);
    }
}

/* A setting of the default upstream has a default that makes sense; where another one is nobody can
 * guess. Its name may be a slip, too: a variable CHMUX_UPSTREAM_<SLIP>_<KEY> makes one. */
static void
check_has_url(struct config_loader *l, size_t nth)
{
    struct subject url = SUBJECT_OF(upstream, nth, "url");
    char name[CONFIG_TARGET_NAME_MAX];
    if (nth == 0 || url.origin->kind != CONFIG_DEFAULT || url.origin->bad)
        return;
    struct config_place place = config_place_of(config_origin_of_name(l->c, url.t));
    config_error(l, &place, config_target_name(l->c, url.t, name), "url",
        "the upstream \"%s\" has no url; write url = http://HOST:PORT",
        config_target_given_name(l->c, url.t));
}

/* Users or databases: each may be told once only where it goes. */
static void
check_routes(struct config_loader *l, const char *key, size_t nth, const struct config_list *list,
    const struct config_list *before, const char *before_name)
{
    struct subject s = SUBJECT_OF(upstream, nth, key);
    char q[CONFIG_QUOTE_MAX];
    for (size_t i = 0; i < list->count; i++)
        for (size_t k = 0; k < before->count; k++)
            if ((list != before || k < i) && strcmp(list->item[i], before->item[k]) == 0)
                complain(l, FAIL, &s, "%s is in %s of upstream \"%s\" already; name each once",
                    config_quote(str_of(list->item[i]), q), key, before_name);
}

static void
check_all_routes(struct config_loader *l)
{
    const struct config *c = l->c;
    for (size_t i = 0; i < c->upstream_count; i++) {
        for (size_t k = 0; k <= i; k++) {
            const struct config_upstream *u = &c->upstream[i], *before = &c->upstream[k];
            check_routes(l, "users", i, &u->users, &before->users, c->upstream_name[k]);
            check_routes(l, "databases", i, &u->databases, &before->databases, c->upstream_name[k]);
        }
    }
}

static void
check_listener_upstream(struct config_loader *l, size_t nth)
{
    const struct config *c = l->c;
    struct subject s = SUBJECT_OF(listen, nth, "upstream");
    const char *name = c->listen[nth].upstream;
    char q[CONFIG_QUOTE_MAX];
    for (size_t i = 0; i < c->upstream_count; i++)
        if (name[0] == '\0' || strcmp(c->upstream_name[i], name) == 0)
            return;
    complain(
        l, FAIL, &s, "there is no [upstream NAME] with the name %s", config_quote(str_of(name), q));
}

void
config_cross_check(struct config_loader *l)
{
    struct subject default_user = SUBJECT(chmux, "default_user");
    check_user_named(l, &default_user, l->c->chmux.default_user);
    for (size_t i = 0; i < l->c->user_count; i++)
        check_user(l, i);
    for (size_t i = 0; i < l->c->listen_count; i++) {
        struct subject user = SUBJECT_OF(listen, i, "user");
        check_user_named(l, &user, l->c->listen[i].user);
    }
    check_memory(l);
    for (size_t i = 0; i < l->c->upstream_count; i++) {
        check_has_url(l, i);
        check_orders(l, i);
        check_urls(l, i);
        check_certificate_pair(l, i);
        check_tls(l, i);
    }
    check_all_routes(l);
    check_admin(l);
    for (size_t i = 0; i < l->c->listen_count; i++) {
        check_listener(l, i);
        check_listener_upstream(l, i);
    }
}
