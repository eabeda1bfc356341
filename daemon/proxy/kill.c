/*
 * kill: a query whose client left runs on in ClickHouse, unless it is killed there: closing the
 * connection stops only those that are sending rows. So KILL QUERY goes out with the caller's own
 * credentials, ahead of all who wait, on the slot the query's connection has just given up.
 */
#include "proxy/proxy_impl.h"

#include "base/no_block.h"

#define KILL_TIMEOUT_US 10000000
#define ANSWER_MAX      65536
#define KILL_MAGIC      0x6b696c6cu

struct kill {
    uint32_t magic;
    struct proxy *px;
    struct list link;
    struct upool_waiter waiter;
    struct uaddr *at; /* counted */
    struct uconn *uc;
    struct timer timer;
    struct loop_task free_task;
    struct buf request, answer;
    size_t sent;
};

static void
on_free(void *arg)
{
    thr_check_loop();
    struct kill *k = OBJ_CAST(struct kill, arg, KILL_MAGIC);
    buf_fini(&k->request);
    buf_fini(&k->answer);
    OBJ_POISON(k);
    mem_free(k);
}

static void LOOP_ONLY
kill_end(struct kill *k, bool ok, const char *why)
{
    struct proxy *px = k->px;
    metric_inc(ok ? M_KILLS_OK : M_KILLS_FAILED);
    if (!ok)
        LOG_W("kill_query_failed address=%s why=\"%s\"", uaddr_text(k->at), why);
    upool_cancel(&k->waiter);
    if (k->uc != NULL)
        uconn_close(k->uc, M_CLOSE_ERROR);
    k->uc = NULL;
    timer_fini(&k->timer);
    uaddr_unref(&k->at);
    list_remove(&k->link);
    px->kill_count--;
    loop_defer(px->loop, &k->free_task, on_free, k);
    proxy_check_drained(px);
}

enum answer { ANSWER_MORE, ANSWER_BAD, ANSWER_WHOLE };

struct verdict {
    int status;
    bool keep;
    struct uconn_end end;
};

/* Takes one head off the front of *s. */
static enum answer
read_head(struct str *s, struct http_status *st, struct http_meta *meta)
{
    size_t used = 0;
    enum http_result r = http_status_parse(*s, st, &used);
    if (r != HTTP_OK)
        return r == HTTP_BAD ? ANSWER_BAD : ANSWER_MORE;
    http_meta_init(meta);
    for (;;) {
        struct http_field f;
        *s = str_n(s->p + used, s->len - used);
        enum http_line_result lr = http_line_next(*s, &f, &used);
        if (lr == HTTP_LINE_END)
            break;
        if (lr != HTTP_LINE_FIELD)
            return lr == HTTP_LINE_MORE ? ANSWER_MORE : ANSWER_BAD;
        if (http_meta_add(meta, &f) != ERR_OK)
            return ANSWER_BAD;
    }
    *s = str_n(s->p + used, s->len - used);
    return ANSWER_WHOLE;
}

/* The answer is tiny: it is read into one buffer and looked at from the start each time. */
static enum answer
read_answer(struct str s, struct verdict *v)
{
    struct http_status st;
    struct http_meta meta;
    size_t used = 0;
    do { /* an interim response is not the answer: that would come to whoever is next */
        enum answer a = read_head(&s, &st, &meta);
        if (a != ANSWER_WHOLE)
            return a;
    } while (st.code < 200);
    enum http_framing framing;
    struct http_body body;
    if (http_resp_framing(&meta, st.code, HTTP_M_POST, &framing) != ERR_OK)
        return ANSWER_BAD;
    v->status = st.code;
    v->keep = http_resp_keep_alive(&meta, st.minor, framing);
    v->end.keep_alive_us = (int64_t)meta.keep_alive_timeout_s * 1000000;
    v->end.max_left = meta.keep_alive_max;
    http_body_init(&body, framing, meta.content_length);
    if (http_body_is_done(&body))
        return s.len == 0 ? ANSWER_WHOLE : ANSWER_BAD;
    switch (http_body_scan(&body, s, &used)) {
    case HTTP_BODY_DONE: return used == s.len ? ANSWER_WHOLE : ANSWER_BAD;
    case HTTP_BODY_MORE: return ANSWER_MORE;
    case HTTP_BODY_BAD: break;
    }
    return ANSWER_BAD;
}

static void LOOP_ONLY
kill_answered(struct kill *k, const struct verdict *v)
{
    struct uconn *uc = k->uc;
    if (v->keep) {
        k->uc = NULL;
        uconn_release(uc, &v->end);
    }
    char why[64];
    snprintf(why, sizeof why, "status %d", v->status);
    kill_end(k, v->status == 200, why);
}

static void
on_upstream(void *arg)
{
    thr_check_loop();
    struct kill *k = OBJ_CAST(struct kill, arg, KILL_MAGIC);
    struct conn *s = uconn_stream(k->uc);
    while (k->sent < k->request.len) {
        struct iovec v = {k->request.p + k->sent, k->request.len - k->sent};
        size_t n = 0;
        enum io r = conn_writev(s, &v, 1, &n);
        if (r == IO_WAIT)
            return;
        if (r != IO_OK) {
            kill_end(k, false, conn_why(s));
            return;
        }
        k->sent += n;
    }
    for (;;) {
        char part[4096];
        size_t n = 0;
        enum io r = conn_read(s, part, sizeof part, &n);
        if (r == IO_WAIT)
            return;
        buf_add(&k->answer, part, n);
        struct verdict v = {0};
        enum answer a = read_answer(str_n(k->answer.p, k->answer.len), &v);
        if (r == IO_OK && a == ANSWER_MORE && buf_ok(&k->answer))
            continue;
        if (a == ANSWER_WHOLE && buf_ok(&k->answer))
            kill_answered(k, &v);
        else
            kill_end(k, false, "no valid answer");
        return;
    }
}

static void
on_granted(void *arg, struct uconn *uc)
{
    thr_check_loop();
    struct kill *k = OBJ_CAST(struct kill, arg, KILL_MAGIC);
    k->uc = uc;
    uconn_set_handler(uc, on_upstream, k);
    on_upstream(k);
}

static void
on_refused(void *arg, enum err e, const char *detail)
{
    thr_check_loop();
    (void)e;
    kill_end(OBJ_CAST(struct kill, arg, KILL_MAGIC), false, detail);
}

static void
on_timeout(void *arg)
{
    thr_check_loop();
    kill_end(OBJ_CAST(struct kill, arg, KILL_MAGIC), false, "timed out");
}

void
kill_query(struct proxy *px, struct str head, struct str query_id, struct uaddr *at)
{
    enum err e;
    metric_inc(M_KILLS);
    struct kill *k = NULL;
    /* More than the pool can hold would only pile up behind a server that does not answer. */
    if (px->kill_count >= (size_t)px->cfg->upstream.pool_size * 4 || query_id.len == 0)
        goto fail;
    k = mem_zalloc(sizeof *k);
    if (k == NULL)
        goto fail;
    OBJ_INIT(k, KILL_MAGIC);
    k->px = px;
    buf_init(&k->request, HTTP_MAX_HEAD);
    buf_init(&k->answer, ANSWER_MAX);
    timer_init(&k->timer, px->loop, on_timeout, k);
    if (http_req_parse(&px->req, head, &e) != HTTP_OK || !timer_reserve(&k->timer))
        goto fail;
    ch_kill_request(&k->request, &px->req, uaddr_authority(at), query_id);
    if (!buf_ok(&k->request))
        goto fail;
    LOG_D("kill_query query_id=\"" STR_FMT "\" address=%s", STR_ARG(query_id), uaddr_text(at));
    k->at = uaddr_ref(at);
    k->waiter =
        (struct upool_waiter){.granted = on_granted, .failed = on_refused, .arg = k, .pin = k->at};
    list_push_back(&px->kills, &k->link);
    px->kill_count++;
    timer_arm_in(&k->timer, KILL_TIMEOUT_US);
    upool_wait_urgent(px->pool, &k->waiter);
    return;
fail:
    metric_inc(M_KILLS_FAILED);
    if (k == NULL)
        return;
    timer_fini(&k->timer);
    buf_fini(&k->request);
    buf_fini(&k->answer);
    mem_free(k);
}

void
kills_abort(struct proxy *px)
{
    struct list *node;
    while ((node = list_first(&px->kills)) != NULL)
        kill_end(CONTAINER_OF(node, struct kill, link), false, "shutting down");
}
