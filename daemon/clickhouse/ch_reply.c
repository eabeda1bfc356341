#include "clickhouse/ch.h"

#include "base/check.h"

#define NATIVE_EXCEPTION 2 /* server packet */

/* The one wording, used once to measure and once to write. */
#define BODY_FMT "Code: %d. DB::Exception: chmux: %s%s%s. (%s)\n"
#define BODY_ARGS(i, detail)                                                                       \
    (i)->code, (i)->text, detail[0] != '\0' ? ": " : "", detail, (i)->code_name

void
ch_error_body(struct buf *out, enum err e, const char *detail)
{
    const struct err_info *i = err_info(e);
    const char *more = detail == NULL ? "" : detail;
    buf_addf(out, BODY_FMT, BODY_ARGS(i, more));
}

static int
error_body_len(const struct err_info *i, const char *detail)
{
    const char *more = detail == NULL ? "" : detail;
    return snprintf(NULL, 0, BODY_FMT, BODY_ARGS(i, more));
}

void
ch_error_response(
    struct buf *out, enum err e, const char *detail, int minor, bool keep_alive, bool head)
{
    const struct err_info *i = err_info(e);
    buf_addf(out,
        "HTTP/1.%d %d %s\r\n"
        "Content-Type: text/plain; charset=UTF-8\r\n"
        "X-ClickHouse-Exception-Code: %d\r\n"
        "X-Chmux-Error: %s\r\n",
        minor == 0 ? 0 : 1, i->status, http_reason(i->status), i->code, i->token);
    if (i->retry_after_s > 0)
        buf_addf(out, "Retry-After: %d\r\n", i->retry_after_s);
    buf_addf(out, "Content-Length: %d\r\nConnection: %s\r\n\r\n", error_body_len(i, detail),
        keep_alive ? "Keep-Alive" : "close");
    if (!head)
        ch_error_body(out, e, detail);
}

/* The parameters and fields that say who is asking, copied as they came. */
static void
add_credential_params(struct buf *out, struct str target)
{
    static const char *const names[] = {"user", "password", "quota_key", "role"};
    struct str params = ch_target_query(target);
    struct ch_param p;
    char before = '?';
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

    buf_str(out, STR("POST /"));
    add_credential_params(out, r->target);
    buf_addf(out, " HTTP/1.1\r\nHost: " STR_FMT "\r\n", STR_ARG(host));
    add_credential_fields(out, r);
    buf_addf(out, "Content-Length: %zu\r\n\r\n", before.len + add_sql_text(NULL, id) + after.len);
    buf_str(out, before);
    add_sql_text(out, id);
    buf_str(out, after);
}

static void
add_native_text(struct buf *out, struct str prefix, struct str s)
{
    for (size_t len = prefix.len + s.len;; len >>= 7) {
        unsigned char c = (unsigned char)((len & 0x7f) | (len > 0x7f ? 0x80 : 0));
        buf_add(out, &c, 1);
        if (len <= 0x7f)
            break;
    }
    buf_str(out, prefix);
    buf_str(out, s);
}

void
ch_native_exception(struct buf *out, int code, const char *message)
{
    uint32_t n = (uint32_t)code;
    const unsigned char head[] = {NATIVE_EXCEPTION, (unsigned char)(n & 0xff),
        (unsigned char)(n >> 8 & 0xff), (unsigned char)(n >> 16 & 0xff), (unsigned char)(n >> 24)};
    buf_add(out, head, sizeof(head));
    add_native_text(out, STR_NULL, STR("DB::Exception"));
    add_native_text(out, STR("DB::Exception: "), str_of(message));
    add_native_text(out, STR_NULL, STR_NULL); /* no stack trace */
    buf_add(out, "", 1);                      /* no nested exception */
}
