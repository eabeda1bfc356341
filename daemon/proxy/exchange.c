/*
 * exchange: the life of one request: admitted, queued, leased, pumped, answered, logged. What moves
 * bytes is in ex_up.c and ex_down.c, what goes wrong in ex_fail.c.
 */
#include "proxy/proxy_impl.h"
#include "proxy/route.h"

#include "base/no_block.h"

#define SPARE_MAX      64
#define SPARE_BUF_MAX  16384      /* a spare exchange keeps small buffers only */
#define MOVES_PER_WAKE 12         /* then others get their turn, */
#define BYTES_PER_WAKE (2u << 20) /* a millisecond or two of the kernel's copying */
#define FITS_AT_ONCE   65536      /* of an answer: no client's kernel makes it wait for room */
#define OUT_MAX        (4 << 20)
#define TO(s)          (1u << EX_##s)

static const struct {
    const char *name;
    unsigned next;
} ex_states[] = {
#define X(name, next) [EX_##name] = {#name, next},
    EX_STATES(X)
#undef X
};

const char *
exchange_state_name(enum ex_state s)
{
    return ex_states[s].name;
}

void
ex_goto(struct exchange *ex, enum ex_state to)
{
    CHECK(ex_states[ex->state].next & (1u << to));
    LOG_D(
        "exchange id=%" PRIu64 " %s -> %s", ex->id, ex_states[ex->state].name, ex_states[to].name);
    timer_disarm(&ex->client->timer); /* a timer never outlives the state that armed it */
    ex->state = to;
}

static struct exchange *LOOP_ONLY
ex_get(struct proxy *px)
{
    struct exchange *ex;
    struct list *node = list_first(&px->spare);
    if (LIKELY(node != NULL)) {
        list_remove(node);
        px->spare_count--;
        return CONTAINER_OF(node, struct exchange, link);
    }
    if (!mem_take(sizeof *ex))
        return NULL;
    ex = mem_zalloc(sizeof *ex);
    if (ex == NULL) {
        mem_give(sizeof *ex);
        return NULL;
    }
    buf_init(&ex->head, HTTP_MAX_HEAD + 4096);
    buf_init(&ex->out, OUT_MAX);
    buf_init(&ex->replay, SIZE_MAX / 2);
    return ex;
}

static void
ex_destroy(struct exchange *ex)
{
    buf_fini(&ex->head);
    buf_fini(&ex->out);
    buf_fini(&ex->replay);
    mem_free(ex);
    mem_give(sizeof *ex);
}

static struct buf
buf_for_reuse(struct buf *b)
{
    if (b->cap > SPARE_BUF_MAX || b->failed)
        buf_fini(b);
    b->len = 0;
    return *b;
}

static void
on_recycle(void *arg)
{
    thr_check_loop();
    struct exchange *ex = OBJ_CAST(struct exchange, arg, EXCHANGE_MAGIC);
    struct proxy *px = ex->px;
    OBJ_POISON(ex);
    buf_fini(&ex->listed);
    if (px->spare_count >= SPARE_MAX) {
        ex_destroy(ex);
        return;
    }
    struct exchange clean = {.head = buf_for_reuse(&ex->head),
        .out = buf_for_reuse(&ex->out),
        .replay = buf_for_reuse(&ex->replay)};
    *ex = clean;
    list_push_front(&px->spare, &ex->link);
    px->spare_count++;
}

void
exchange_free_spares(struct proxy *px)
{
    struct list *node;
    while ((node = list_first(&px->spare)) != NULL) {
        list_remove(node);
        ex_destroy(CONTAINER_OF(node, struct exchange, link));
    }
    px->spare_count = 0;
}

bool
ex_has_begun(const struct exchange *ex)
{
    return ex->down_bytes > ex->interim || conn_write_pending(&ex->client->conn);
}

void
ex_leave_upstream(struct exchange *ex, enum metric_id reason)
{
    upool_cancel(&ex->waiter);
    if (ex->uc != NULL) {
        struct uconn *uc = ex->uc;
        ex->uc = NULL;
        if (!ex->up_done && ex->up_bytes > 0)
            uconn_reset_on_close(uc);
        uconn_close(uc, reason);
    }
    session_leave(ex);
    if (waiter_waits(&ex->pass.waiter))
        ex->upstream->gate_queued--;
    gate_leave(&ex->pass);
}

static void LOOP_ONLY
count_end(const struct exchange *ex, bool gone)
{
    metric_inc(gone                ? M_DONE_GONE
               : ex->cut           ? M_DONE_CUT
               : ex->err != ERR_OK ? M_DONE_ERROR
                                   : M_DONE_OK);
    metric_dec(M_EXCHANGES);
    struct mono now = loop_now(ex->px->loop);
    metric_observe_us(ex->upstream->metrics, H_TOTAL, mono_diff_us(now, ex->start));
}

void
ex_end(struct exchange *ex, enum farewell how)
{
    struct client *c = ex->client;
    bool gone = how == FAREWELL_GONE;
    count_end(ex, gone);
    if (ex->exception_code != 0 && ex->err == ERR_OK)
        ex_note_error(ex, "clickhouse", ex->status.code, ex->exception_code, NULL);
    ex_log(ex, !gone && !ex->cut);
    ex_goto(ex, EX_DONE);
    list_unlink(&ex->starved_link);
    list_remove(&ex->link);
    blk_put(&ex->down);
    tubes_put(&ex->px->tubes, &ex->tube);
    recode_free(ex);
    struct blk *rest = ex->up;
    ex->up = NULL;
    loop_undefer(&ex->task);
    loop_defer(ex->px->loop, &ex->task, on_recycle, ex);
    client_exchange_done(c, &rest, how);
}

/* Anything a client sends to a closed socket makes the kernel forget what it has not taken yet. */
static enum farewell LOOP_ONLY
closing_way(const struct exchange *ex)
{
    if (!http_body_is_done(&ex->up_body))
        return FAREWELL_LINGER;
    bool waits = ex->down_bytes > FITS_AT_ONCE && conn_unsent(&ex->client->conn) > 0;
    return waits ? FAREWELL_LINGER : FAREWELL_CLOSE;
}

/* Is the end of the connection the end of the body? */
static bool
ends_by_close(const struct exchange *ex)
{
    return ex->dechunk || ex->framing == HTTP_BODY_CLOSE;
}

static void LOOP_ONLY
ex_finish(struct exchange *ex)
{
    if (ex->cut && ends_by_close(ex))
        ex_end(ex, FAREWELL_CUT);
    else if (ex->cut || ex->down_closing)
        ex_end(ex, closing_way(ex));
    else
        ex_end(ex, FAREWELL_KEEP);
}

void
ex_client_gone(struct exchange *ex)
{
    /* It may be there still: one that only stopped reading, or half-closed. What it got must not
     * look whole. */
    if (ends_by_close(ex) && !ex->tunnel && ex_has_begun(ex))
        conn_reset_on_close(&ex->client->conn);
    if (ex->upstream->cfg->on_disconnect == ON_DISCONNECT_KILL)
        kill_query_of(ex);
    ex_leave_upstream(ex, M_CLOSE_GONE);
    ex_end(ex, FAREWELL_GONE);
}

void
exchange_abort(struct exchange *ex)
{
    ex_leave_upstream(ex, M_CLOSE_SHUTDOWN);
    ex->cut = true;
    ex_end(ex, FAREWELL_RESET);
}

void
exchange_kill(struct exchange *ex)
{
    kill_query_of(ex);
    if (ex->state < EX_FLUSHING && !ex_has_begun(ex)) {
        ex_fail(ex, ERR_KILLED, NULL);
        return;
    }
    /* What is left of an answer is not waited for: its client may be the reason for the kill. */
    metric_inc(M_REFUSED_KILLED);
    ex_leave_upstream(ex, M_CLOSE_ERROR);
    ex_note_error(ex, err_info(ERR_KILLED)->token, 0, 0, "its answer was cut");
    ex->err = ERR_KILLED;
    ex->cut = true;
    ex_end(ex, FAREWELL_RESET);
}

/* A slow client must not hold a whole block for the last part of its answer. */
static void LOOP_ONLY
shrink_rest(struct exchange *ex)
{
    if (ex->down_valid == 0 || ex->down_valid > blk_cap() / 2)
        return;
    buf_add(&ex->out, ex->down->data + ex->down->start, ex->down_valid);
    if (!buf_ok(&ex->out)) {
        ex->out.failed = false; /* no room for a copy: the block stays */
        return;
    }
    ex->out_ready = ex->out.len;
    ex->down_valid = 0;
    blk_put(&ex->down);
}

/* The response is whole and was read to its end: the lease is over, whatever the client still has
 * to take. */
static void LOOP_ONLY
settle_lease(struct exchange *ex)
{
    struct uconn *uc = ex->uc;
    struct conn *stream = uconn_stream(uc);
    bool clean = ex->down == NULL || blk_len(ex->down) == ex->down_valid;
    bool keep = ex->up_done && !ex->up_broken && clean && !ex->tunnel &&
                http_resp_keep_alive(&ex->meta, ex->status.minor, ex->framing) &&
                http_req_reusable(ex->method, &ex->up_body);
    ex->uc = NULL;
    shrink_rest(ex);
    if (keep && !stream->peer_closed) {
        struct uconn_end end = {
            .keep_alive_us = (int64_t)ex->meta.keep_alive_timeout_s * 1000000,
            .max_left = ex->meta.keep_alive_max,
        };
        uconn_release(uc, &end);
    } else {
        if (!ex->up_done && ex->up_bytes > 0)
            uconn_reset_on_close(uc);
        uconn_close(uc, !ex->up_done ? M_CLOSE_EARLY : M_CLOSE_PEER);
    }
    session_leave(ex);
    gate_leave(&ex->pass);
}

static void
on_task(void *arg)
{
    thr_check_loop();
    ex_pump(OBJ_CAST(struct exchange, arg, EXCHANGE_MAGIC));
}

void
ex_later(struct exchange *ex)
{
    loop_defer(ex->px->loop, &ex->task, on_task, ex);
}

/* Moves what can be moved, in both directions, until neither side can or the budget is spent. */
void
ex_pump(struct exchange *ex)
{
    uint64_t before = ex->down_bytes + ex->up_bytes;
    for (int moves = 0;
         moves < MOVES_PER_WAKE && ex->down_bytes + ex->up_bytes - before < BYTES_PER_WAKE;
         moves++) {
        enum step up = STEP_DRY;
        if (ex->state == EX_SENDING && !ex->up_broken)
            up = ex_pump_up(ex);
        if (up == STEP_ENDED)
            return;
        enum step down = ex_pump_down(ex);
        if (down == STEP_ENDED)
            return;
        if (ex->phase == PHASE_END && ex->uc != NULL) {
            settle_lease(ex);
            ex_goto(ex, EX_FLUSHING);
        }
        bool codec_runs = ex_recodes_down(ex) && !sink_done(&ex->rc->down);
        if (ex->phase == PHASE_END && !ex_has_output(ex) && !codec_runs) {
            ex_finish(ex);
            return;
        }
        if (up == STEP_DRY && down == STEP_DRY) {
            ex_watch(ex);
            return;
        }
    }
    ex_watch(ex);
    ex_later(ex);
}

static void
on_upstream(void *arg)
{
    thr_check_loop();
    struct exchange *ex = OBJ_CAST(struct exchange, arg, EXCHANGE_MAGIC);
    if (!list_linked(&ex->task.link)) /* else it has had its turn */
        ex_pump(ex);
}

/* Has the client left? While a request runs nobody reads its socket, but the kernel tells. */
static bool LOOP_ONLY
client_left(struct exchange *ex)
{
    struct conn *s = &ex->client->conn;
    if (s->peer_closed)
        return true;
    /* Readable while it is not being read: pipelined bytes, or a reset, which the event does not
     * tell apart. */
    bool reading = ex->state == EX_SENDING && !ex->up_done;
    if (reading || !conn_readable(s))
        return false;
    enum io r = conn_peek(s);
    return r == IO_EOF || r == IO_ERROR;
}

void
exchange_on_client(struct exchange *ex)
{
    bool body_coming = ex->state == EX_SENDING && !http_body_is_done(&ex->up_body);
    if (!body_coming && client_left(ex)) {
        ex_client_gone(ex);
        return;
    }
    if (ex->state != EX_QUEUED && ex->state != EX_PROBING && !list_linked(&ex->task.link))
        ex_pump(ex);
}

void
ex_starve(struct exchange *ex)
{
    struct proxy *px = ex->px;
    if (list_linked(&ex->starved_link))
        return;
    metric_inc(M_MEMORY_WAITS);
    list_push_back(&px->starved, &ex->starved_link);
    if (!timer_armed(&px->starved_timer))
        timer_arm_in(&px->starved_timer, 5000);
}

void
exchange_on_memory(struct exchange *ex)
{
    if (ex_recodes_up(ex))
        pipe_poke(ex->rc->up.pipe);
    if (ex_recodes_down(ex) && ex->rc->down.pipe != NULL)
        pipe_poke(ex->rc->down.pipe);
    ex_pump(ex);
}

static void LOOP_ONLY
put_continue(struct exchange *ex)
{
    struct str text = STR("HTTP/1.1 100 Continue\r\n\r\n");
    buf_str(&ex->out, text);
    ex->interim += buf_ok(&ex->out) ? text.len : 0;
}

static void LOOP_ONLY
ex_lease(struct exchange *ex, struct uconn *uc)
{
    struct proxy *px = ex->px;
    bool first = ex->leased.us == 0;
    ex->uc = uc;
    gate_stop_waiting(&ex->pass);
    ex->reused = uconn_is_reused(uc);
    ex->leased = ex->progress = loop_now(px->loop);
    if (first)
        metric_observe_us(ex->upstream->metrics, H_QUEUE_WAIT, mono_diff_us(ex->leased, ex->start));
    if (ex->session != NULL)
        session_ran_on(ex->session, uc);
    if (ex->rc == NULL || recode_lease(ex))
        ex_send(ex);
}

void
ex_send(struct exchange *ex)
{
    ex_goto(ex, EX_SENDING);
    uconn_set_handler(ex->uc, on_upstream, ex);
    if (!ex_set_host(ex)) {
        ex_fail(ex, ERR_NOMEM, NULL);
        return;
    }
    /* Only now is the body wanted, and only if the client has not begun to send it unasked. */
    if (ex->expect && !ex->retried && blk_len(ex->up) == 0 && ex->client->in.len == 0)
        put_continue(ex);
    ex->out_ready = ex->out_mark = ex->out.len;
    ex_pump(ex);
}

static void
on_granted(void *arg, struct uconn *uc)
{
    thr_check_loop();
    struct exchange *ex = OBJ_CAST(struct exchange, arg, EXCHANGE_MAGIC);
    loop_label(ex->px->loop, "granted");
    ex_lease(ex, uc);
}

static void
on_refused(void *arg, enum err e, const char *detail)
{
    thr_check_loop();
    ex_fail(OBJ_CAST(struct exchange, arg, EXCHANGE_MAGIC), e, detail);
}

struct exchange *
exchange_of_waiter(const struct upool_waiter *w)
{
    return w->granted == on_granted ? w->arg : NULL;
}

/* Body bytes that came with the head wait in a buffer of their own size, not in a block. */
static bool LOOP_ONLY
park_body(struct exchange *ex)
{
    if (ex->up == NULL)
        return true;
    struct client *c = ex->client;
    CHECK(c->in.len == 0);
    buf_add(&c->in, ex->up->data + ex->up->start, blk_len(ex->up));
    if (!buf_ok(&c->in)) {
        buf_fini(&c->in); /* the block stays: requests may stand behind this one */
        return false;
    }
    blk_put(&ex->up);
    return true;
}

/* The event that tells of the client's end may have come along with the request: no other will. */
static bool LOOP_ONLY
left_before_waiting(struct exchange *ex)
{
    if (!ex->client->conn.peer_closed)
        return false;
    ex_client_gone(ex);
    return true;
}

/* A request counts once, for whatever and however often it waits. */
static void LOOP_ONLY
count_wait(struct exchange *ex)
{
    if (!ex->waited)
        metric_inc_in(ex->upstream->metrics, M_QUEUE_WAITS);
    ex->waited = true;
}

/* It has to wait, for whatever it is; `beside` as for gate_may_wait(). false: it is over. */
static bool LOOP_ONLY
ex_begin_wait(struct exchange *ex, size_t beside)
{
    const struct config_upstream *cfg = ex->upstream->cfg;
    if (left_before_waiting(ex))
        return false;
    if (!gate_may_wait(&ex->pass, (size_t)cfg->queue_size, beside)) {
        ex_fail(ex, ERR_USER_QUEUE_FULL, NULL);
        return false;
    }
    if (!park_body(ex)) {
        ex_fail(ex, ERR_NOMEM, NULL);
        return false;
    }
    timer_arm(&ex->client->timer, mono_add_us(ex->start, cfg->queue_timeout));
    return true;
}

static uint64_t LOOP_ONLY
flow_key(struct exchange *ex)
{
    return client_flow_key(ex->client, str_n(ex->ch.user, ex->ch.user_len));
}

static void LOOP_ONLY
ex_queue(struct exchange *ex)
{
    if (!ex_begin_wait(ex, upool_room(ex->upstream->pool)))
        return;
    count_wait(ex);
    enum err e = upool_wait(ex->upstream->pool, &ex->waiter, flow_key(ex));
    if (e != ERR_OK)
        ex_fail(ex, e, NULL);
}

/* Its user lets it in: now a lease. */
static void LOOP_ONLY
ex_seek_lease(struct exchange *ex)
{
    struct uaddr *pin = ex->session == NULL ? NULL : session_pin(ex->session);
    uint64_t last = ex->session == NULL ? 0 : session_last_conn(ex->session);
    if (pin != NULL && uaddr_is_gone(pin)) {
        ex_fail(ex, ERR_SESSION_GONE, NULL);
        return;
    }
    ex->waiter =
        (struct upool_waiter){.granted = on_granted, .failed = on_refused, .arg = ex, .pin = pin};
    struct uconn *uc = upool_try_lease(ex->upstream->pool, pin, last);
    if (uc != NULL)
        ex_lease(ex, uc);
    else
        ex_queue(ex);
}

/* Its turn in the session, if it has one: now its user's other requests. */
static void LOOP_ONLY
ex_enter_gate(struct exchange *ex)
{
    struct upstream *up = ex->upstream;
    bool full = up->gate_queued >= (size_t)up->cfg->queue_size;
    switch (gate_enter(&ex->pass, flow_key(ex))) {
    case GATE_GO: ex_seek_lease(ex); return;
    case GATE_NOMEM: ex_fail(ex, ERR_NOMEM, NULL); return;
    case GATE_WAIT: break;
    }
    up->gate_queued++;
    if (full) {
        ex_fail(ex, ERR_QUEUE_FULL, NULL);
        return;
    }
    if (!ex_begin_wait(ex, 0))
        return;
    count_wait(ex);
    metric_inc(M_USER_WAITS);
}

void
exchange_on_gate(struct gate_pass *p)
{
    struct exchange *ex = CONTAINER_OF(p, struct exchange, pass);
    CHECK(ex->state == EX_QUEUED);
    ex->upstream->gate_queued--;
    ex_seek_lease(ex);
}

void
exchange_on_session(struct exchange *ex)
{
    CHECK(ex->state == EX_QUEUED);
    ex_enter_gate(ex);
}

static void LOOP_ONLY
ex_enter_session(struct exchange *ex)
{
    if (sessions_waiting(ex->upstream->sessions) >= (size_t)ex->upstream->cfg->queue_size) {
        ex_fail(ex, ERR_QUEUE_FULL, NULL);
        return;
    }
    switch (session_enter(ex->upstream->sessions, ex)) {
    case SESSION_GO: ex_enter_gate(ex); return;
    case SESSION_NOMEM: ex_fail(ex, ERR_NOMEM, NULL); return;
    case SESSION_WAIT: break;
    }
    if (ex_begin_wait(ex, 0))
        count_wait(ex);
}

/* Whose request it is, and whose credentials it gets. */
static void LOOP_ONLY
ex_find_user(struct exchange *ex, const struct http_req *r, struct users_given *given)
{
    const struct users *users = ex->px->users;
    struct client *c = ex->client;
    *given = (struct users_given){0};
    if (LIKELY(users_is_empty(users)))
        return;
    struct users_asked asked = {.req = r,
        .ch = &ex->ch,
        .uid = users_want_uid(users) ? client_uid(c) : -1,
        .of_listener = c->door == NULL ? NULL : c->door->policy.user};
    users_find(users, &asked, given);
    if (given->replace && ex_is_foreign(ex, r)) {
        asked.foreign = true;
        users_find(users, &asked, given);
    }
    if (given->user == NULL)
        return;
    gate_join(&ex->pass, user_gate(given->user));
    if (!given->replace)
        return;
    struct str name = user_name(given->user); /* what it is called in turns, sessions, logs */
    ex->ch.user_len = size_min(name.len, sizeof ex->ch.user);
    memcpy(ex->ch.user, name.p, ex->ch.user_len);
    metric_inc(given->counter);
}

/* Which upstream it goes to. Everything that depends on that comes later. */
static void LOOP_ONLY
ex_route(struct exchange *ex)
{
    struct proxy *px = ex->px;
    const struct door *door = ex->client->door;
    if (LIKELY(px->upstream_count == 1))
        return;
    const struct route_facts f = {
        .listener = door == NULL ? NULL : door->name,
        .user = str_n(ex->ch.user, ex->ch.user_len),
        .database = str_n(ex->ch.database, ex->ch.database_len),
    };
    ex->upstream = &px->upstreams[route_find(px->cfg, &f)];
}

/* Copies out of the scratch head all that is needed later. */
static enum err LOOP_ONLY
ex_take_head(struct exchange *ex, const struct http_req *r, const char **why)
{
    ex->method = r->method;
    ex->minor = r->minor;
    ex->client_keep = r->keep_alive;
    ex->expect = r->meta.expect_continue && r->minor == 1;
    ex->upgrade = r->meta.upgrade_websocket && r->meta.conn_upgrade && r->minor == 1;
    http_body_init(&ex->up_body, r->framing, r->meta.content_length);
    ch_request_parse(&ex->ch, r);
    ex->keep_replay = true; /* an empty body is held whole */
    struct users_given given;
    ex_find_user(ex, r, &given);
    ex_route(ex); /* by the user it was given, if it was */
    enum err e = ex_compose_head(ex, r, &given);
    return e == ERR_OK ? recode_start(ex, r, why) : e;
}

void
exchange_start(struct client *c, const struct http_req *r, struct blk *b)
{
    struct proxy *px = c->px;
    struct exchange *ex = ex_get(px);
    if (ex == NULL) {
        /* Nothing to carry an answer with but the one made at boot. */
        struct iovec v = {.iov_base = px->nomem_reply.p, .iov_len = px->nomem_reply.len};
        size_t put = 0;
        c->conn.can_write = true;
        (void)conn_writev(&c->conn, &v, 1, &put);
        metric_inc(M_REFUSED_MEMORY);
        client_exchange_done(c, &b, FAREWELL_LINGER);
        return;
    }
    OBJ_INIT(ex, EXCHANGE_MAGIC);
    list_push_back(&px->exchanges, &ex->link);
    buf_init(&ex->listed, HTTP_MAX_VALUE);
    ex->state = EX_QUEUED;
    ex->client = c;
    ex->px = px;
    ex->upstream = &px->upstreams[0];
    ex->id = ++px->next_exchange_id;
    ex->start = ex->progress = loop_now(px->loop);
    ex->first = ex->leased = (struct mono){0};
    c->ex = ex;
    metric_inc(M_EXCHANGES);
    http_meta_init(&ex->meta);
    const char *why = NULL;
    enum err taken = ex_take_head(ex, r, &why);
    timer_disarm(&c->timer);
    if (b == NULL)
        buf_consume(&c->in, r->head_len);
    else if (blk_len(b) > 0)
        ex->up = b;
    else
        blk_put(&b);
    if (taken != ERR_OK)
        ex_fail(ex, taken, taken == ERR_BAD_REQUEST ? why : NULL);
    else if (ex->ch.has_session)
        ex_enter_session(ex);
    else
        ex_enter_gate(ex);
}
