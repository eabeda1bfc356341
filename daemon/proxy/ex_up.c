/*
 * ex_up: the request on its way to ClickHouse: its head made new once, its body checked in place
 * and passed on as it came.
 */
#include "proxy/proxy_impl.h"

#include "base/no_block.h"

#define PATIENT_BYTES 65536 /* larger bodies may meet a server that stops reading for long */
#define FEEDS_MAX     4     /* reads for a pipe, before others get their turn */

/* Lines that end here and are not passed on. */
static bool LOOP_ONLY
is_dropped(const struct exchange *ex, const struct http_req *r, const struct http_field *f)
{
    if (f->id == HTTP_F_OTHER && !r->meta.conn_other)
        return false;
    if (ex->given_user && ch_is_credential_field(f->id))
        return true;
    if (f->id == HTTP_F_HOST)
        return ex->names_host; /* ClickHouse gets its own name, from ex_set_host() */
    if (f->id == HTTP_F_EXPECT)
        return r->meta.expect_continue; /* answered by us, once there is a lease */
    if (f->id == HTTP_F_TRANSFER_ENCODING || f->id == HTTP_F_TRAILER)
        return false; /* chunks pass as they are */
    if (f->id == HTTP_F_UPGRADE)
        return !ex->upgrade;
    if (http_is_hop_by_hop(f->id))
        return true;
    for (size_t i = 0; r->meta.conn_other && i < r->field_count; i++)
        if (r->fields[i].id == HTTP_F_CONNECTION && http_conn_lists(r->fields[i].value, f->name))
            return true;
    return false;
}

/* ClickHouse makes up an id for a query without one; then nobody here could kill or log it. false:
 * the target went out as it was. */
static bool LOOP_ONLY
put_target_with_id(struct exchange *ex, struct str target)
{
    random_uuid(ex->ch.query_id);
    ex->ch.query_id_len = UUID_LEN;
    return ch_add_query_id(&ex->head, target, str_n(ex->ch.query_id, UUID_LEN));
}

/* Settings go where they may have a meaning, custom handlers included; but not into GET /ping,
 * which knows no parameter, nor OPTIONS. */
static bool
takes_settings(const struct exchange *ex, const struct http_req *r)
{
    return r->method != HTTP_M_OPTIONS &&
           (!ex->ch.readonly_method || str_find(r->target, '?') >= 0);
}

/* *target is as its user's section wants it: what the client sent, or what is put into room. */
static enum err LOOP_ONLY
edit_target(struct exchange *ex, const struct http_req *r, const struct users_given *given,
    struct buf *room, struct str *target)
{
    struct ch_access_edit edit = {.drop_credentials = given->replace};
    *target = r->target;
    if (given->user != NULL && takes_settings(ex, r))
        edit.settings = user_settings(given->user, &edit.setting_count);
    if (!edit.drop_credentials && edit.setting_count == 0)
        return ERR_OK;
    bool fits = ch_access_target(room, r->target, &edit);
    if (!buf_ok(room))
        return ERR_NOMEM;
    *target = str_n(room->p, room->len);
    return fits ? ERR_OK : ERR_TOO_LARGE;
}

static bool LOOP_ONLY
compose(struct exchange *ex, const struct http_req *r, struct str target, struct str credentials)
{
    struct buf *h = &ex->head;
    ex->names_host = upool_names_host(ex->upstream->pool);
    /* 18.16 answers other methods without a parameter differently than with one. */
    bool usual = r->method == HTTP_M_GET || r->method == HTTP_M_HEAD || r->method == HTTP_M_POST;
    bool need_id = usual && ex->ch.is_query && !ex->ch.has_query_id;
    if (!buf_reserve(h, r->head_len + target.len + credentials.len + 256))
        return false;
    buf_str(h, r->method_text);
    buf_str(h, STR(" "));
    if (need_id)
        need_id = !put_target_with_id(ex, target);
    else
        buf_str(h, target);
    buf_str(h, STR(" HTTP/1.1\r\n"));
    ex->host_at = h->len; /* ex_set_host() puts the line there */
    ex->host_len = 0;
    /* Runs of lines that stay are copied at once. */
    struct str run = STR_NULL;
    for (size_t i = 0; i < r->field_count; i++) {
        const struct http_field *f = &r->fields[i];
        if (!is_dropped(ex, r, f)) {
            run = run.len == 0 ? f->line : str_n(run.p, run.len + f->line.len);
            continue;
        }
        buf_str(h, run);
        run = STR_NULL;
    }
    buf_str(h, run);
    buf_str(h, credentials);
    if (need_id) { /* the URL did not take it; 18.16 does not look here, 26.7 does */
        buf_str(h, STR("X-ClickHouse-Query-Id: "));
        buf_add(h, ex->ch.query_id, ex->ch.query_id_len);
        buf_str(h, STR("\r\n"));
    }
    if (ex->upgrade)
        buf_str(h, STR("Connection: Upgrade\r\n"));
    buf_str(h, STR("\r\n"));
    return buf_ok(h);
}

enum err
ex_compose_head(struct exchange *ex, const struct http_req *r, const struct users_given *given)
{
    struct buf room;
    struct str target, credentials = given->replace ? user_credentials(given->user) : STR("");
    ex->given_user = given->replace;
    buf_init(&room, HTTP_MAX_HEAD);
    enum err e = edit_target(ex, r, given, &room, &target);
    if (e == ERR_OK && !compose(ex, r, target, credentials))
        e = ERR_NOMEM;
    buf_fini(&room);
    return e;
}

/* The Host line names the server that was leased. Which one that is, is known only then. */
bool
ex_set_host(struct exchange *ex)
{
    if (!ex->names_host)
        return true;
    struct buf *h = &ex->head;
    struct str host = uaddr_authority(uconn_addr(ex->uc));
    size_t want = sizeof "Host: \r\n" - 1 + host.len;
    if (!buf_reserve(h, want))
        return false;
    size_t tail_at = ex->host_at + ex->host_len;
    memmove(h->p + ex->host_at + want, h->p + tail_at, h->len - tail_at);
    h->len = h->len - ex->host_len + want;
    ex->host_len = want;
    char *p = h->p + ex->host_at;
    memcpy(p, "Host: ", 6);
    memcpy(p + 6, host.p, host.len);
    memcpy(p + 6 + host.len, "\r\n", 2);
    return true;
}

/* Body bytes at hand: the block's, else what was read along with the head. */
static struct str
source(const struct exchange *ex)
{
    if (ex->up != NULL && blk_len(ex->up) > 0)
        return str_n(ex->up->data + ex->up->start, blk_len(ex->up));
    return str_n(ex->client->in.p, ex->client->in.len);
}

static void
consume(struct exchange *ex, size_t n)
{
    if (ex->up != NULL && blk_len(ex->up) > 0) {
        ex->up->start += n;
        if (blk_len(ex->up) == 0)
            ex->up->start = ex->up->end = 0;
    } else {
        buf_consume(&ex->client->in, n);
    }
}

/* Reads from the client into an empty source. */
static enum io LOOP_ONLY
fill(struct exchange *ex)
{
    struct conn *s = &ex->client->conn;
    if (!conn_worth_reading(s))
        return IO_WAIT;
    if (ex->up == NULL) {
        ex->up = blk_get();
        if (ex->up == NULL) {
            ex_starve(ex);
            return IO_WAIT;
        }
    }
    enum io r = conn_read(s, ex->up->data, blk_cap(), &ex->up->end);
    metric_add(M_BYTES_CLIENT_IN, (int64_t)ex->up->end);
    return r;
}

/* Makes up_valid > 0 if it can. */
static enum step LOOP_ONLY
check_more(struct exchange *ex)
{
    if (http_body_is_done(&ex->up_body))
        return STEP_DRY;
    struct str src = source(ex);
    if (src.len == 0) {
        switch (fill(ex)) {
        case IO_OK: src = source(ex); break;
        case IO_WAIT: blk_put(&ex->up); return STEP_DRY;
        case IO_EOF:
        case IO_ERROR: ex_client_gone(ex); return STEP_ENDED;
        }
    }
    size_t used = 0;
    if (http_body_scan(&ex->up_body, src, &used) == HTTP_BODY_BAD) {
        ex_fail(ex, ERR_BAD_REQUEST, ex->up_body.why);
        return STEP_ENDED;
    }
    ex->up_valid = used;
    return STEP_MOVED;
}

/* Keeps a copy of what was sent, as long as all of it fits: to send it again, and to know what kind
 * of query it was. */
static void
remember(struct exchange *ex, const char *p, size_t n)
{
    size_t limit = ex->upstream->cfg->replay_buffer;
    if (!ex->keep_replay)
        return;
    bool wanted = ex->ch.is_query && ex->ch.url_class != CH_INSERT;
    if (!wanted || ex->replay.len + n > limit) {
        ex->keep_replay = false;
        n = wanted && limit > ex->replay.len ? limit - ex->replay.len : 0; /* its beginning */
    }
    buf_add(&ex->replay, p, n);
    if (!buf_ok(&ex->replay))
        ex->keep_replay = false;
}

static void LOOP_ONLY
sent(struct exchange *ex, size_t n)
{
    metric_add(M_BYTES_UP_OUT, (int64_t)n);
    ex->progress = loop_now(ex->px->loop);
    size_t part = size_min(n, ex->head.len - ex->head_sent);
    ex->head_sent += part;
    n -= part;
    if (ex->replaying) {
        part = size_min(n, ex->replay.len - ex->replay_sent);
        ex->replay_sent += part;
        ex->replaying = ex->replay_sent < ex->replay.len;
        n -= part;
    }
    if (n == 0)
        return;
    remember(ex, source(ex).p, n);
    consume(ex, n);
    ex->up_valid -= n;
    ex->up_bytes += n;
    if (ex->up_bytes > PATIENT_BYTES)
        uconn_expect_stall(ex->uc);
}

static void
add_iov(struct iovec *v, int *count, char *p, size_t len)
{
    if (len > 0)
        v[(*count)++] = (struct iovec){.iov_base = p, .iov_len = len};
}

/* ---- with a pipe between ---- */

/* Body bytes for the pipe: what a retry has to send again, else the next ones of the client. */
static enum payload LOOP_ONLY
next_payload(struct exchange *ex, struct blk **b)
{
    bool lost = false;
    enum payload r;
    if (ex->replaying) {
        *b = blk_get_sized(ex->replay.len);
        if (*b == NULL)
            return PAYLOAD_NO_MEMORY;
        memcpy((*b)->data, ex->replay.p, ex->replay.len);
        (*b)->end = ex->replay.len;
        ex->replaying = false;
        return PAYLOAD_OK;
    }
    if (blk_len(ex->up) > 0)
        r = payload_take(&ex->up_body, &ex->up, b, &lost);
    else
        r = payload_copy(&ex->up_body, &ex->client->in, b);
    if (lost) { /* of a request behind this one: its client sees the connection close */
        ex->client_keep = false;
        ex->down_closing = true;
    }
    if (*b != NULL)
        remember(ex, (*b)->data + (*b)->start, blk_len(*b));
    return r;
}

/* Client to pipe, as much as it takes. */
static enum step LOOP_ONLY
feed(struct exchange *ex)
{
    struct recode *rc = ex->rc;
    for (int reads = 0; !rc->up_fed && pipe_room(rc->up.pipe) > 0; reads++) {
        bool more = !http_body_is_done(&ex->up_body);
        if (reads == FEEDS_MAX) {
            ex_later(ex);
            return STEP_DRY;
        }
        if (more && !ex->replaying && source(ex).len == 0) {
            switch (fill(ex)) {
            case IO_OK: break;
            case IO_WAIT:
                blk_put(&ex->up);
                sink_flush(&rc->up);
                return STEP_DRY;
            case IO_EOF:
            case IO_ERROR: ex_client_gone(ex); return STEP_ENDED;
            }
            ex->progress = loop_now(ex->px->loop);
        }
        struct blk *b = NULL;
        if (more || ex->replaying) {
            switch (next_payload(ex, &b)) {
            case PAYLOAD_OK: break;
            case PAYLOAD_NO_MEMORY: ex_starve(ex); return STEP_DRY;
            case PAYLOAD_BAD:
                blk_put(&b);
                ex_fail(ex, ERR_BAD_REQUEST, ex->up_body.why);
                return STEP_ENDED;
            }
        }
        bool done = http_body_is_done(&ex->up_body) && !ex->replaying;
        /* The end brings all out too, and costs no flush before it. */
        if (b != NULL)
            sink_put(&rc->up, &b, done || source(ex).len > 0 || conn_readable(&ex->client->conn));
        if (done && !recode_end_up(ex)) {
            ex_fail(ex, ERR_NOMEM, NULL);
            return STEP_ENDED;
        }
    }
    if (blk_len(ex->up) == 0)
        blk_put(&ex->up);
    return STEP_DRY;
}

static void LOOP_ONLY
sent_piped(struct exchange *ex, size_t n)
{
    metric_add(M_BYTES_UP_OUT, (int64_t)n);
    ex->progress = loop_now(ex->px->loop);
    size_t part = size_min(n, ex->head.len - ex->head_sent);
    ex->head_sent += part;
    n -= part;
    if (n == 0)
        return;
    sink_sent(&ex->rc->up, n);
    ex->up_bytes += n;
    if (ex->up_bytes > PATIENT_BYTES)
        uconn_expect_stall(ex->uc);
}

static enum step LOOP_ONLY
pump_piped(struct exchange *ex)
{
    struct recode *rc = ex->rc;
    if (feed(ex) == STEP_ENDED)
        return STEP_ENDED;
    struct iovec v[2];
    int count = 0;
    add_iov(v, &count, ex->head.p + ex->head_sent, ex->head.len - ex->head_sent);
    if (sink_ready(&rc->up))
        sink_iov(&rc->up, v, &count);
    size_t n = 0;
    if (count > 0) {
        switch (conn_writev(uconn_stream(ex->uc), v, count, &n)) {
        case IO_OK: sent_piped(ex, n); break;
        case IO_WAIT: return STEP_DRY;
        case IO_EOF:
        case IO_ERROR:
            ex->up_broken = true; /* it may have answered before it closed: read that first */
            return STEP_MOVED;
        }
    } else if (recode_check_up(ex) == STEP_ENDED) {
        return STEP_ENDED;
    }
    if (ex->head_sent == ex->head.len && sink_done(&rc->up)) {
        ex->up_done = true;
        ex_goto(ex, EX_RECEIVING);
        return STEP_MOVED;
    }
    return count > 0 ? STEP_MOVED : STEP_DRY;
}

enum step
ex_pump_up(struct exchange *ex)
{
    if (ex_recodes_up(ex))
        return pump_piped(ex);
    if (ex->up_valid == 0 && check_more(ex) == STEP_ENDED)
        return STEP_ENDED;
    struct iovec v[3];
    int count = 0;
    add_iov(v, &count, ex->head.p + ex->head_sent, ex->head.len - ex->head_sent);
    if (ex->replaying)
        add_iov(v, &count, ex->replay.p + ex->replay_sent, ex->replay.len - ex->replay_sent);
    if (ex->up_valid > 0)
        add_iov(v, &count, (char *)(uintptr_t)source(ex).p, ex->up_valid);
    if (count == 0) {
        if (!http_body_is_done(&ex->up_body))
            return STEP_DRY;
        ex->up_done = true;
        ex_goto(ex, EX_RECEIVING);
        return STEP_MOVED;
    }
    struct conn *s = uconn_stream(ex->uc);
    size_t n = 0;
    switch (conn_writev(s, v, count, &n)) {
    case IO_OK: sent(ex, n); break;
    case IO_WAIT: return STEP_DRY;
    case IO_EOF:
    case IO_ERROR:
        ex->up_broken = true; /* it may have answered before it closed: read that first */
        return STEP_MOVED;
    }
    if (ex->head_sent < ex->head.len || ex->replaying || ex->up_valid > 0)
        return STEP_MOVED;
    if (http_body_is_done(&ex->up_body)) {
        ex->up_done = true;
        ex_goto(ex, EX_RECEIVING);
    }
    return STEP_MOVED;
}
