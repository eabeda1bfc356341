/*
 * kill: a query whose client left runs on in ClickHouse, unless it is killed there: closing the
 * connection stops only those that are sending rows. So KILL QUERY goes out with the caller's own
 * credentials, ahead of all who wait, on the slot the query's connection has just given up.
 */
#include "proxy/proxy_impl.h"

#include "base/no_block.h"

#define KILL_TIMEOUT_US 10000000
#define KILL_MAGIC      0x6b696c6cu

struct kill {
    uint32_t magic;
    struct upstream *up;
    struct list link;
    struct upool_waiter waiter;
    struct uaddr *at; /* counted */
    struct uconn *uc;
    struct timer timer;
    struct loop_task free_task;
    struct errand errand;
};

static void
on_free(void *arg)
{
    thr_check_loop();
    struct kill *k = OBJ_CAST(struct kill, arg, KILL_MAGIC);
    errand_fini(&k->errand);
    OBJ_POISON(k);
    mem_free(k);
}

static void LOOP_ONLY
kill_end(struct kill *k, bool ok, const char *why)
{
    struct proxy *px = k->up->px;
    metric_inc_in(k->up->metrics, ok ? M_KILLS_OK : M_KILLS_FAILED);
    if (!ok) {
        struct error_entry entry = {.at = loop_now(px->loop),
            .token = "kill_query_failed",
            .upstream = upool_name(k->up->pool)};
        snprintf(entry.detail, sizeof entry.detail, "%s: %s", uaddr_text(k->at), why);
        errors_note(&px->errors, &entry);
        LOG_W("kill_query_failed address=%s why=\"%s\"", uaddr_text(k->at), why);
    }
    upool_cancel(&k->waiter);
    if (k->uc != NULL)
        uconn_close(k->uc, M_CLOSE_ERROR);
    k->uc = NULL;
    timer_fini(&k->timer);
    uaddr_unref(&k->at);
    list_remove(&k->link);
    px->kill_count--;
    k->up->kill_count--;
    loop_defer(px->loop, &k->free_task, on_free, k);
    proxy_check_drained(px);
}

static void
on_upstream(void *arg)
{
    thr_check_loop();
    struct kill *k = OBJ_CAST(struct kill, arg, KILL_MAGIC);
    struct uconn *uc = k->uc;
    char why[64];
    switch (errand_step(&k->errand, uconn_stream(uc))) {
    case ERRAND_WAIT: return;
    case ERRAND_FAILED: kill_end(k, false, k->errand.why); return;
    case ERRAND_DONE: break;
    }
    if (k->errand.keep) {
        k->uc = NULL;
        uconn_release(uc, &k->errand.end);
    }
    snprintf(why, sizeof why, "status %d", k->errand.status);
    kill_end(k, k->errand.status == 200, why);
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

static void LOOP_ONLY
log_kill(struct str query_id, const struct uaddr *at)
{
    const struct log_field f[] = {
        {"query_id", LOG_STR, query_id, 0},
        {"address", LOG_STR, str_of(uaddr_text(at)), 0},
    };
    log_fields(LOG_DEBUG, "kill_query", f, COUNT_OF(f));
}

static void LOOP_ONLY
kill_query(struct upstream *up, struct str head, struct str query_id, struct uaddr *at)
{
    struct proxy *px = up->px;
    enum err e;
    metric_inc_in(up->metrics, M_KILLS);
    struct kill *k = NULL;
    /* More than the pool can hold would only pile up behind a server that does not answer. */
    if (up->kill_count >= (size_t)up->cfg->pool_size * 4 || query_id.len == 0)
        goto fail;
    k = mem_zalloc(sizeof *k);
    if (k == NULL)
        goto fail;
    OBJ_INIT(k, KILL_MAGIC);
    k->up = up;
    errand_init(&k->errand);
    timer_init(&k->timer, px->loop, on_timeout, k);
    if (http_req_parse(&px->req, head, &e) != HTTP_OK || !timer_reserve(&k->timer))
        goto fail;
    ch_kill_request(&k->errand.request, &px->req, uaddr_authority(at), query_id);
    if (!buf_ok(&k->errand.request))
        goto fail;
    log_kill(query_id, at);
    k->at = uaddr_ref(at);
    k->waiter =
        (struct upool_waiter){.granted = on_granted, .failed = on_refused, .arg = k, .pin = k->at};
    list_push_back(&px->kills, &k->link);
    px->kill_count++;
    up->kill_count++;
    timer_arm_in(&k->timer, KILL_TIMEOUT_US);
    upool_wait_urgent(up->pool, &k->waiter);
    return;
fail:
    metric_inc_in(up->metrics, M_KILLS_FAILED);
    if (k == NULL)
        return;
    timer_fini(&k->timer);
    errand_fini(&k->errand);
    mem_free(k);
}

void
kill_query_of(struct exchange *ex)
{
    struct proxy *px = ex->px;
    struct str head = str_n(ex->head.p, ex->head.len);
    bool sent = ex->uc != NULL && ex->head_sent == head.len && ex->phase != PHASE_END;
    if (!sent || !ex->ch.is_query || ex->ch.query_id_len == 0)
        return;
    struct str body = str_n(ex->replay.p, ex->replay.len);
    enum err e;
    enum ch_class class = ex->ch.url_class;
    if (http_req_parse(&px->req, head, &e) == HTTP_OK)
        class = ch_request_class(&ex->ch, &px->req, body, ex->up_done && ex->keep_replay);
    bool spare = class == CH_INSERT || (class == CH_UNKNOWN && !ex->ch.multipart);
    if (!spare)
        kill_query(
            ex->upstream, head, str_n(ex->ch.query_id, ex->ch.query_id_len), uconn_addr(ex->uc));
}

void
kills_abort(struct proxy *px)
{
    struct list *node;
    while ((node = list_first(&px->kills)) != NULL)
        kill_end(CONTAINER_OF(node, struct kill, link), false, "shutting down");
}
