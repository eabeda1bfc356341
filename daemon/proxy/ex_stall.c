/*
 * ex_stall: what should move and does not: clients and servers that take or send nothing, answers
 * that do not begin, memory that does not come.
 */
#include "proxy/proxy_impl.h"

#include "base/no_block.h"

#define LOOK_AFTER_US 100000
#define FIRST_LOOK    8 /* at this part of stall_timeout, see still_moves() */

static bool
ex_was_looked_at(const struct exchange *ex)
{
    return ex->unsent_at.us != 0 && mono_diff_us(ex->unsent_at, ex->progress) >= 0;
}

/* What would have to move, and does not? Arms the timer for it. */
void
ex_watch(struct exchange *ex)
{
    const struct config *cfg = ex->px->cfg;
    const struct config_upstream *up = ex->upstream->cfg;
    struct client *c = ex->client;
    bool stalled = ex_has_output(ex); /* the client does not take it */
    if (!stalled && ex->state == EX_SENDING && !ex->tunnel)
        stalled = true; /* the client sends nothing, or the upstream takes nothing */
    if (list_linked(&ex->starved_link))
        stalled = true; /* there is no memory to go on with */
    int64_t part = ex_was_looked_at(ex) ? 1 : FIRST_LOOK;
    if (stalled)
        timer_arm(&c->timer, mono_add_us(ex->progress, cfg->chmux.stall_timeout / part));
    else if (ex->state == EX_RECEIVING && !ex->looked)
        timer_arm(&c->timer, mono_add_us(ex->start, LOOK_AFTER_US));
    else if (ex->state == EX_RECEIVING && !ex->got_byte && up->response_timeout > 0)
        timer_arm(&c->timer, mono_add_us(ex->progress, up->response_timeout));
    else
        timer_disarm(&c->timer);
}

/* The kernel says "writable" only when a good part of its buffer is free: a slow peer may take
 * bytes all the time, and we hear nothing of it. So what the socket holds is compared, soon after
 * the last progress and when the time is over. true: it is no stall, or not yet. peer NULL: nothing
 * is to be written. */
static bool LOOP_ONLY
still_moves(struct exchange *ex, const struct conn *peer)
{
    struct mono now = loop_now(ex->px->loop);
    int64_t timeout = ex->px->cfg->chmux.stall_timeout, idle = mono_diff_us(now, ex->progress);
    size_t unsent = peer == NULL ? 0 : conn_unsent(peer);
    if (ex_was_looked_at(ex)) {
        if (unsent == ex->unsent && idle >= timeout)
            return false;
        if (unsent != ex->unsent)
            ex->progress = now;
    } else if (idle >= timeout / FIRST_LOOK) {
        ex->unsent = unsent;
        ex->unsent_at = now;
    }
    ex_watch(ex);
    return true;
}

/* A client that sent its request and reset the connection in one go left no event behind. */
static void LOOP_ONLY
look_for_client(struct exchange *ex)
{
    ex->looked = true;
    enum io r = conn_peek(&ex->client->conn);
    if (r == IO_EOF || r == IO_ERROR)
        ex_client_gone(ex);
    else
        ex_watch(ex);
}

void
exchange_on_timer(struct exchange *ex)
{
    if (ex->state == EX_QUEUED) {
        ex_fail(ex, ERR_QUEUE_TIMEOUT, NULL);
        return;
    }
    if (ex->state == EX_PROBING) {
        recode_probe_timeout(ex);
        return;
    }
    if (ex->state == EX_RECEIVING && !ex->looked && !ex_has_output(ex)) {
        look_for_client(ex);
        return;
    }
    if (ex_has_output(ex)) {
        if (still_moves(ex, &ex->client->conn))
            return;
        metric_inc(M_STALLS_CLIENT);
        LOG_D("client_stalled id=%" PRIu64, ex->id);
        ex_client_gone(ex);
        return;
    }
    bool coded = ex_recodes_up(ex) && ex->rc->up.cur != NULL;
    bool untaken = coded || ex->up_valid > 0 || ex->head_sent < ex->head.len;
    bool upstream = untaken || ex->state == EX_RECEIVING, starved = list_linked(&ex->starved_link);
    if ((starved || ex->state == EX_SENDING) &&
        still_moves(ex, untaken ? uconn_stream(ex->uc) : NULL))
        return;
    if (starved) {
        ex_fail(ex, ERR_NOMEM, NULL);
        return;
    }
    metric_inc(upstream ? M_STALLS_UPSTREAM : M_STALLS_CLIENT);
    ex_fail(ex, upstream ? ERR_UPSTREAM_TIMEOUT : ERR_BODY_TIMEOUT, NULL);
}
