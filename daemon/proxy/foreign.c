#include "proxy/foreign.h"

#include "net/addr.h"
#include "proxy/proxy_impl.h"

#include "base/no_block.h"

#define LOG_EVERY_US 1000000 /* a page could fill the log */

/* Of the page itself: it was loaded from where it sends to. */
static bool
is_own_origin(struct str origin, struct str host)
{
    static const char *const schemes[] = {"http://", "https://"};
    for (size_t i = 0; i < COUNT_OF(schemes) && host.len > 0; i++) {
        struct str s = str_of(schemes[i]);
        if (str_starts_nocase(origin, s))
            return str_eq_nocase(str_n(origin.p + s.len, origin.len - s.len), host);
    }
    return false;
}

static bool
is_known_name(struct str host, const struct config_list *names)
{
    ssize_t colon = str_find(host, ':');
    struct str name = colon < 0 ? host : str_n(host.p, (size_t)colon);
    for (size_t i = 0; names != NULL && i < names->count; i++)
        if (strcmp(names->item[i], "*") == 0 || str_eq_nocase(name, str_of(names->item[i])))
            return true;
    return false;
}

const char *
foreign_why(const struct http_req *r, const struct foreign_facts *f)
{
    struct str host = STR_NULL;
    for (size_t i = 0; i < r->field_count; i++)
        if (r->fields[i].id == HTTP_F_HOST)
            host = r->fields[i].value;
    for (size_t i = 0; i < r->field_count; i++) {
        const struct http_field *field = &r->fields[i];
        if (str_eq_nocase(field->name, STR("origin")) && !is_own_origin(field->value, host))
            return "origin";
        if (str_eq_nocase(field->name, STR("sec-fetch-site")) &&
            (str_eq_nocase(field->value, STR("cross-site")) ||
                str_eq_nocase(field->value, STR("same-site"))))
            return "sec-fetch-site";
    }
    bool known = f->tls || host.len == 0 || addr_is_own_host(host) || is_known_name(host, f->names);
    return known ? NULL : "host";
}

bool
ex_is_foreign(struct exchange *ex, const struct http_req *r)
{
    const struct client *c = ex->client;
    const struct config_listen *cl = c->door == NULL ? NULL : door_section(c->door);
    struct foreign_facts f = {c->conn.ssl != NULL, cl == NULL ? NULL : &cl->host_names};
    const char *why = c->is_unix ? NULL : foreign_why(r, &f);
    struct mono *told = &ex->px->withheld_told;
    if (why == NULL)
        return false;
    metric_inc(M_CREDENTIALS_WITHHELD);
    if (told->us != 0 && mono_diff_us(ex->start, *told) < LOG_EVERY_US)
        return true;
    *told = ex->start;
    LOG_W("credentials_withheld id=%" PRIu64 " client=%" PRIu64 " field=%s hint=\"a web page may "
          "have sent it; names of ours belong into [listen NAME] host_names\"",
        ex->id, c->id, why);
    return true;
}
