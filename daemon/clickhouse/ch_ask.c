/* Requests of our own, sent with the credentials of a client's. */
#include "clickhouse/ch_coding.h"

/* The parameters and fields that say who is asking, copied as they came. */
static void
add_credential_params(struct buf *out, char before, struct str target)
{
    static const char *const names[] = {"user", "password", "quota_key", "role"};
    struct str params = ch_target_query(target);
    struct ch_param p;
    while (ch_param_next(&params, &p)) {
        bool wanted = false;
        for (size_t i = 0; i < COUNT_OF(names) && !wanted; i++)
            wanted = ch_url_eq(p.name, names[i]);
        if (!wanted)
            continue;
        buf_add(out, &before, 1);
        buf_str(out, p.name);
        buf_str(out, STR("="));
        buf_str(out, p.value);
        before = '&';
    }
}

static void
add_credential_fields(struct buf *out, const struct http_req *r)
{
    for (size_t i = 0; i < r->field_count; i++) {
        const struct http_field *f = &r->fields[i];
        if (f->id == HTTP_F_AUTHORIZATION || f->id == HTTP_F_CH_USER || f->id == HTTP_F_CH_KEY ||
            f->id == HTTP_F_CH_QUOTA || f->id == HTTP_F_CH_CERT_AUTH)
            buf_str(out, f->line);
    }
}

/* The head up to the fields of its body. `first` is a parameter of ours, or empty. */
static void
begin_post(struct buf *out, const struct http_req *r, struct str host, struct str first)
{
    buf_str(out, STR("POST /"));
    if (first.len > 0)
        buf_str(out, STR("?"));
    buf_str(out, first);
    add_credential_params(out, first.len > 0 ? '&' : '?', r->target);
    buf_addf(out, " HTTP/1.1\r\nHost: " STR_FMT "\r\n", STR_ARG(host));
    add_credential_fields(out, r);
}

/* s inside a SQL string literal: written when out is given; returns its length. */
static size_t
add_sql_text(struct buf *out, struct str s)
{
    size_t len = 0;
    for (size_t i = 0; i < s.len; i++) {
        bool escape = s.p[i] == '\'' || s.p[i] == '\\';
        len += escape ? 2 : 1;
        if (out == NULL)
            continue;
        if (escape)
            buf_str(out, STR("\\"));
        buf_add(out, s.p + i, 1);
    }
    return len;
}

void
ch_kill_request(struct buf *out, const struct http_req *r, struct str host, struct str id)
{
    const struct str before = STR("KILL QUERY WHERE query_id = '");
    const struct str after = STR("' ASYNC");

    begin_post(out, r, host, STR_NULL);
    buf_addf(out, "Content-Length: %zu\r\n\r\n", before.len + add_sql_text(NULL, id) + after.len);
    buf_str(out, before);
    add_sql_text(out, id);
    buf_str(out, after);
}

void
ch_probe_request(
    struct buf *out, const struct http_req *r, struct str host, const struct ch_probe *p)
{
    bool coded = p->request != CODEC_IDENTITY;
    struct str body = coded ? p->body : STR("SELECT 1");

    begin_post(out, r, host, p->setting ? STR("enable_http_compression=1") : STR_NULL);
    if (coded)
        buf_addf(out, "Content-Encoding: %s\r\n", codec_name(p->request));
    if (p->accept.len > 0)
        buf_addf(out, "Accept-Encoding: " STR_FMT "\r\n", STR_ARG(p->accept));
    buf_addf(out, "Content-Length: %zu\r\n\r\n", body.len);
    buf_str(out, body);
}
