/*
 * ex_fail: what goes wrong: errors told or cut, upstreams lost, requests sent again.
 */
#include "proxy/proxy_impl.h"

#include "base/no_block.h"

static enum metric_id
refused_metric(enum err e)
{
    switch (e) {
    case ERR_NOMEM: return M_REFUSED_MEMORY;
    case ERR_QUEUE_FULL: return M_REFUSED_QUEUE_FULL;
    case ERR_USER_QUEUE_FULL: return M_REFUSED_USER_QUEUE_FULL;
    case ERR_NOT_ALLOWED: return M_REFUSED_NOT_ALLOWED;
    case ERR_QUEUE_TIMEOUT: return M_REFUSED_QUEUE_TIMEOUT;
    case ERR_MAX_CLIENTS: return M_REFUSED_MAX_CLIENTS;
    case ERR_CONNECT:
    case ERR_SESSION_GONE: return M_REFUSED_CONNECT;
    case ERR_UPSTREAM_TIMEOUT: return M_REFUSED_UPSTREAM_TIMEOUT;
    case ERR_UPSTREAM_CLOSED:
    case ERR_UPSTREAM_BAD: return M_REFUSED_UPSTREAM_CLOSED;
    case ERR_TOO_LARGE: return M_REFUSED_TOO_LARGE;
    case ERR_KILLED: return M_REFUSED_KILLED;
    case ERR_DRAINING: return M_REFUSED_DRAINING;
    case ERR_BAD_ENCODING:
    case ERR_UPSTREAM_ENCODING: return M_REFUSED_BAD_ENCODING;
    case ERR_BAD_REQUEST:
    case ERR_HEAD_TIMEOUT:
    case ERR_BODY_TIMEOUT:
    case ERR_BAD_VERSION:
    case ERR_OK:
    case ERR_COUNT: break;
    }
    return M_REFUSED_BAD_REQUEST;
}

/* Room for a reply of our own in out, behind what is left to send of an interim response. */
static void
clear_out(struct exchange *ex)
{
    size_t left = (size_t)(ex->interim - ex->down_bytes);
    if (left == 0) {
        ex->out.len = 0;
        if (!buf_ok(&ex->out))
            buf_fini(&ex->out);
    } else {
        buf_consume(&ex->out, ex->out_sent);
        ex->out.len = left;
    }
    ex->out_sent = ex->out_ready = ex->out_mark = 0;
}

/* Who asks is not told which servers there are; the log and the control API name them. */
static const char *
public_reason(const char *detail)
{
    bool names = detail != NULL && str_starts_nocase(str_of(detail), STR(TLS_WRONG_NAME));
    return names ? "the server's certificate is for another name" : detail;
}

/* The server may still work on what we give up. */
static void LOOP_ONLY
give_up_query(struct exchange *ex, enum err e)
{
    bool ours = e == ERR_UPSTREAM_TIMEOUT || e == ERR_UPSTREAM_ENCODING || e == ERR_UPSTREAM_BAD;
    if (ours && ex->upstream->cfg->on_disconnect == ON_DISCONNECT_KILL)
        kill_query_of(ex);
}

void
ex_fail(struct exchange *ex, enum err e, const char *detail)
{
    struct proxy *px = ex->px;
    give_up_query(ex, e);
    ex_leave_upstream(ex, M_CLOSE_ERROR);
    recode_close_pipes(ex);
    ex->err = e;
    if (ex->state == EX_QUEUED && !ex->retried)
        metric_observe_us(
            ex->upstream->metrics, H_QUEUE_WAIT, mono_diff_us(loop_now(px->loop), ex->start));
    ex_note_error(ex, err_info(e)->token, err_info(e)->status, err_info(e)->code, detail);
    LOG_D("exchange_failed id=%" PRIu64 " error=%s detail=\"%s\"", ex->id, err_info(e)->token,
        detail == NULL ? "" : detail);
    if (ex_has_begun(ex)) { /* too late for a status: end short */
        ex->cut = true;
        if (ex->state != EX_FLUSHING)
            ex_goto(ex, EX_FLUSHING);
        ex->phase = PHASE_END;
        ex_pump(ex);
        return;
    }
    metric_inc(refused_metric(e));
    blk_put(&ex->down);
    ex->down_valid = 0;
    /* Checked bytes that were not sent are still in the source: they must not become the next head.
     */
    bool request_gone = http_body_is_done(&ex->up_body) && ex->up_valid == 0;
    bool keep = ex->client_keep && request_gone && !px->draining;
    clear_out(ex);
    ch_error_response(
        &ex->out, e, public_reason(detail), ex->minor, keep, ex->method == HTTP_M_HEAD);
    if (!buf_ok(&ex->out)) {
        buf_fini(&ex->out);
        ex_goto(ex, EX_REPLYING);
        ex_end(ex, FAREWELL_RESET);
        return;
    }
    ex->out_ready = ex->out.len;
    ex->status.code = err_info(e)->status;
    ex->exception_code = err_info(e)->code;
    ex->down_closing = !keep;
    ex->phase = PHASE_END;
    ex_goto(ex, EX_REPLYING);
    ex_pump(ex);
}

void
ex_cut(struct exchange *ex, enum err e)
{
    give_up_query(ex, e);
    ex_leave_upstream(ex, M_CLOSE_ERROR);
    recode_cut_down(ex, e);
    blk_put(&ex->down);
    ex->phase = PHASE_END;
    if (ex->state != EX_FLUSHING)
        ex_goto(ex, EX_FLUSHING);
    ex_later(ex);
}

/* May this request be sent again, though part of it was sent already? */
static bool LOOP_ONLY
may_send_again(struct exchange *ex)
{
    if (ex->retried || !ex->reused || ex->got_byte)
        return false;
    if (ex->head_sent == 0 && ex->up_bytes == 0)
        return true; /* nothing left this process */
    if (!ex->ch.is_query)
        return ex->ch.readonly_method && ex->up_bytes == 0; /* /ping, pages */
    if (!ex->keep_replay)
        return false;
    if (ex->ch.readonly_method && ex->ch.url_class != CH_INSERT)
        return true; /* ClickHouse runs it with readonly=2 */
    enum err e;
    struct str head = str_n(ex->head.p, ex->head.len);
    if (!ex->up_done || http_req_parse(&ex->px->req, head, &e) != HTTP_OK)
        return false;
    struct str body = str_n(ex->replay.p, ex->replay.len);
    return ch_request_class(&ex->ch, &ex->px->req, body, true) == CH_READ;
}

void
ex_requeue(struct exchange *ex, enum metric_id reason, bool fresh)
{
    struct uconn *uc = ex->uc;
    ex->uc = NULL;
    uconn_close(uc, reason);
    /* Nothing may pump it while it waits: that would disarm the timer of the queue. */
    list_unlink(&ex->starved_link);
    loop_undefer(&ex->task);
    ex_goto(ex, EX_QUEUED);
    ex->waiter.fresh = fresh;
    timer_arm_in(&ex->client->timer, ex->upstream->cfg->queue_timeout);
    upool_wait_urgent(ex->upstream->pool, &ex->waiter);
}

static void LOOP_ONLY
tell_lost(const struct exchange *ex, const char *why, const char *hint)
{
    const struct log_field f[] = {
        {"id", LOG_NUM, STR_NULL, (int64_t)ex->id},
        {"conn", LOG_NUM, STR_NULL, (int64_t)uconn_id(ex->uc)},
        {"address", LOG_STR, str_of(uaddr_text(uconn_addr(ex->uc))), 0},
        {"answered", LOG_NUM, STR_NULL, ex->got_byte},
        {"why", LOG_STR, str_of(why), 0},
        {"user", LOG_STR, str_n(ex->ch.user, ex->ch.user_len), 0},
        {"query_id", LOG_STR, str_n(ex->ch.query_id, ex->ch.query_id_len), 0},
        {"hint", LOG_STR, hint == NULL ? STR_NULL : str_of(hint), 0},
    };
    log_fields(LOG_WARN, "upstream_lost", f, COUNT_OF(f) - (hint == NULL));
}

void
ex_upstream_lost(struct exchange *ex, const char *why)
{
    struct uconn *uc = ex->uc;
    bool again = !ex->got_byte && may_send_again(ex);
    if (!ex->got_byte)
        uconn_died_unanswered(uc);
    if (!again) {
        const char *hint = ex->got_byte ? NULL : uconn_silence_hint(uc);
        tell_lost(ex, why, hint);
        /* A TLS server may refuse our certificate only now; else the error says it all. */
        if (ex_recodes_down(ex) && ex->rc->down.pipe != NULL)
            ex_cut(ex, ERR_UPSTREAM_CLOSED);
        else
            ex_fail(
                ex, ERR_UPSTREAM_CLOSED, hint != NULL ? hint : conn_tls_reason(uconn_stream(uc)));
        return;
    }
    metric_inc_in(ex->upstream->metrics, M_RETRIES);
    ex_note_error(ex, "retried", 0, 0, why);
    ex->retried = true;
    ex->head_sent = 0;
    ex->replaying = ex->replay.len > 0;
    ex->replay_sent = 0;
    ex->up_broken = false;
    ex->up_done = false;
    blk_put(&ex->down);
    ex->down_valid = 0;
    ex_requeue(ex, M_STALE, true);
}
