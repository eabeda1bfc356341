/*
 * access: one line per request, when asked for, and one per slow request. No secret of the URL and
 * no value of a query is in them; bodies never are, but for the first words of a slow query.
 */
#include "proxy/proxy_impl.h"

#include "base/no_block.h"

#define TARGET_MAX 1024
#define FIELDS_MAX 24
#define QUERY_READ                                                                                 \
    8192 /* of a query's text is looked at: values take more room than their masks                 \
          */

struct line {
    struct log_field f[FIELDS_MAX];
    size_t count;
    char peer[ADDR_TEXT_MAX];
};

static void
add_str(struct line *l, const char *key, struct str s)
{
    CHECK(l->count < FIELDS_MAX);
    l->f[l->count++] = (struct log_field){.key = key, .kind = LOG_STR, .s = s};
}

static void
add_num(struct line *l, const char *key, int64_t n)
{
    CHECK(l->count < FIELDS_MAX);
    l->f[l->count++] = (struct log_field){.key = key, .kind = LOG_NUM, .n = n};
}

static int64_t
since_us(struct mono from, struct mono to)
{
    return from.us == 0 ? -1 : mono_diff_us(to, from);
}

/* Method and target out of the first line of what ClickHouse got. */
static void
split_line(struct str head, struct str *method, struct str *target)
{
    ssize_t sp = str_find(head, ' ');
    *method = str_n(head.p, sp < 0 ? 0 : (size_t)sp);
    struct str rest = str_n(head.p + method->len, head.len - method->len);
    if (rest.len > 0)
        rest = str_n(rest.p + 1, rest.len - 1);
    sp = str_find(rest, ' ');
    *target = str_n(rest.p, sp < 0 ? 0 : (size_t)sp);
}

/* ---- the query ---- */

/* The payload at the front of the body, as much as fits. */
static size_t
body_text(const struct exchange *ex, char *text, size_t cap)
{
    struct str kept = str_n(ex->replay.p, ex->replay.len);
    struct http_body body;
    size_t len = 0;
    if (ex->up_body.framing != HTTP_BODY_CHUNKED || ex_recodes_up(ex)) {
        len = size_min(kept.len, cap);
        if (len > 0)
            memcpy(text, kept.p, len);
        return len;
    }
    http_body_init(&body, HTTP_BODY_CHUNKED, 0);
    while (kept.len > 0 && len < cap) {
        struct str data;
        size_t used;
        enum http_body_result r = http_body_next(&body, kept, &data, &used);
        data.len = size_min(data.len, cap - len);
        if (data.len > 0)
            memcpy(text + len, data.p, data.len);
        len += data.len;
        kept = str_n(kept.p + used, kept.len - used);
        if (r != HTTP_BODY_MORE)
            break;
    }
    return len;
}

/* Masked, into out: the query= of the URL, else the beginning of the body, as far as it was kept
 * for a retry (replay_buffer). Nothing when it cannot be read: compressed, multipart, no query. */
static void
put_query(const struct exchange *ex, struct str target, struct buf *out, size_t max)
{
    char text[QUERY_READ];
    size_t len = 0;
    bool whole = true;
    struct str query = ch_target_query(target);
    struct ch_param p;
    if (!ex->ch.is_query)
        return;
    while (len == 0 && ch_param_next(&query, &p))
        if (ch_url_eq(p.name, "query"))
            len = ch_url_decode(p.value, text, sizeof text);
    if (len == 0 && !ex->ch.compressed && !ex->ch.multipart) {
        len = body_text(ex, text, sizeof text);
        whole = ex->keep_replay && len < sizeof text;
    }
    ch_mask_sql(out, str_n(text, size_min(len, sizeof text)), whole && len <= sizeof text, max);
}

/* ---- lines ---- */

/* id 0: of no request. */
static void LOOP_ONLY
add_who(struct line *l, uint64_t id, struct client *c)
{
    add_num(l, "id", (int64_t)id);
    add_num(l, "client", (int64_t)c->id);
    client_peer(c, l->peer);
    add_str(l, "peer", str_of(l->peer));
}

/* Fields of both kinds of line; target NULL: without it. */
static void LOOP_ONLY
add_common(struct line *l, const struct exchange *ex, bool complete, struct str method,
    const struct buf *target)
{
    struct mono now = loop_now(ex->px->loop);
    add_who(l, ex->id, ex->client);
    add_str(l, "user", str_n(ex->ch.user, ex->ch.user_len));
    add_str(l, "query_id", str_n(ex->ch.query_id, ex->ch.query_id_len));
    add_str(l, "method", method);
    if (target != NULL)
        add_str(l, "target", str_n(target->p, target->len));
    add_num(l, "status", ex->down_bytes > 0 ? ex->status.code : 0);
    add_num(l, "exception", ex->exception_code);
    add_num(l, "complete", complete);
    add_num(l, "bytes_in", (int64_t)ex->up_bytes);
    add_num(l, "bytes_out", (int64_t)ex->down_bytes);
    add_num(l, "queue_us", since_us(ex->start, ex->leased.us == 0 ? now : ex->leased));
    add_num(l, "upstream_us", ex->first.us == 0 ? -1 : since_us(ex->leased, ex->first));
    add_num(l, "total_us", since_us(ex->start, now));
    add_num(l, "reused", ex->reused);
    add_num(l, "retried", ex->retried);
    add_str(l, "error", str_of(ex->err != ERR_OK ? err_info(ex->err)->token : ""));
    add_str(l, "upstream", str_of(upool_name(ex->upstream->pool)));
    /* Most have none of these, and need not be told so in every line. */
    struct http_trace trace;
    if (http_trace_find(str_n(ex->head.p, ex->head.len), &trace)) {
        add_str(l, "trace_id", trace.trace_id);
        add_str(l, "span_id", trace.span_id);
    }
    if (ex->client->cert != NULL)
        add_str(l, "cert", str_of(ex->client->cert->subject));
}

static void LOOP_ONLY
log_access(const struct exchange *ex, bool complete, struct str method, struct str target)
{
    struct buf masked;
    struct line l = {.count = 0};
    buf_init(&masked, TARGET_MAX * 4);
    ch_mask_target(&masked, target, TARGET_MAX);
    add_common(&l, ex, complete, method, &masked);
    log_fields(LOG_INFO, "access", l.f, l.count);
    buf_fini(&masked);
}

static void LOOP_ONLY
log_slow(const struct exchange *ex, bool complete, struct str method, struct str target)
{
    struct buf query;
    struct line l = {.count = 0};
    size_t max = (size_t)ex->px->cfg->log.slow_query_bytes;
    metric_inc(M_SLOW);
    buf_init(&query, max * 2 + 64);
    put_query(ex, target, &query, max);
    add_common(&l, ex, complete, method, NULL);
    add_str(&l, "query", buf_ok(&query) ? str_n(query.p, query.len) : STR(""));
    log_fields(LOG_WARN, "slow", l.f, l.count);
    buf_fini(&query);
}

void
client_log_refused(struct client *c, enum err e, size_t sent)
{
    struct line l = {.count = 0};
    add_who(&l, 0, c);
    add_num(&l, "status", err_info(e)->status);
    add_num(&l, "exception", err_info(e)->code);
    add_num(&l, "complete", 1);
    add_num(&l, "bytes_out", (int64_t)sent);
    add_str(&l, "error", str_of(err_info(e)->token));
    log_fields(LOG_INFO, "access", l.f, l.count);
}

void
ex_log(const struct exchange *ex, bool complete)
{
    const struct config_log *cfg = &ex->px->cfg->log;
    struct str method, target;
    int64_t total_us = mono_diff_us(loop_now(ex->px->loop), ex->start);
    bool slow = cfg->slow > 0 && total_us >= cfg->slow;
    if (!cfg->access && !slow)
        return;
    split_line(str_n(ex->head.p, ex->head.len), &method, &target);
    if (cfg->access)
        log_access(ex, complete, method, target);
    if (slow)
        log_slow(ex, complete, method, target);
}
