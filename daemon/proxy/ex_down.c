/*
 * ex_down: the response on its way to the client: its head line by line, its body checked in place
 * and passed on as it came.
 *
 * ClickHouse may leave a head open for as long as a query runs and add X-ClickHouse-Progress lines
 * to it. Those go out at once; any other head is held until it is whole, so that a server that dies
 * inside it still gets its client a proper error.
 */
#include "proxy/proxy_impl.h"

#include "base/no_block.h"

#define HEAD_HOLD_MAX 65536 /* a longer head goes out in parts */
#define FEEDS_MAX     4     /* reads for a pipe */
#define FILLS_MAX     2     /* reads that bring the client nothing, before others get their turn */
#define SPLICE_AFTER  (1u << 20)   /* of a response; less is not worth the descriptors */
#define SPLICE_RUN    (128u << 10) /* of payload without framing */
#define FRAMING_READ  4096         /* what surrounds the runs */

static bool LOOP_ONLY
is_dropped(const struct exchange *ex, const struct http_field *f)
{
    if (f->id == HTTP_F_TRANSFER_ENCODING)
        return ex->minor == 0; /* an HTTP/1.0 client gets the payload bare */
    if (f->id == HTTP_F_UPGRADE)
        return ex->status.code != 101 || !ex->upgrade;
    return http_is_hop_by_hop(f->id) && f->id != HTTP_F_TRAILER;
}

/* The status line, with the version that is spoken on this side. */
static void
put_status_line(struct exchange *ex)
{
    struct str line = ex->status.line;
    buf_str(&ex->out, ex->minor == 0 ? STR("HTTP/1.0") : STR("HTTP/1.1"));
    buf_add(&ex->out, line.p + 8, line.len - 8);
}

static void LOOP_ONLY
put_connection_lines(struct exchange *ex)
{
    struct proxy *px = ex->px;
    bool request_whole = http_body_is_done(&ex->up_body) && ex->up_valid == 0;
    ex->down_closing = !ex->client_keep || px->draining || ex->framing == HTTP_BODY_CLOSE ||
                       ex->dechunk || !request_whole;
    if (ex->tunnel)
        buf_str(&ex->out, STR("Connection: Upgrade\r\n"));
    else if (ex->down_closing)
        buf_str(&ex->out, STR("Connection: Close\r\n"));
    else
        buf_add(&ex->out, px->keep_alive_lines, px->keep_alive_len);
}

static enum step LOOP_ONLY
bad_response(struct exchange *ex, const char *why)
{
    LOG_W("upstream_bad_response id=%" PRIu64 " address=%s why=\"%s\"", ex->id,
        uaddr_text(uconn_addr(ex->uc)), why);
    ex_fail(ex, ERR_UPSTREAM_BAD, why);
    return STEP_ENDED;
}

static enum step LOOP_ONLY
out_failed(struct exchange *ex)
{
    if (ex->out.len > ex->out.max / 2)
        return bad_response(ex, "its head is too large");
    ex_fail(ex, ERR_NOMEM, NULL);
    return STEP_ENDED;
}

/* An interim response: ours to answer when it is 100, the client's business otherwise. */
static enum step LOOP_ONLY
interim_head(struct exchange *ex)
{
    if (ex->status.code == 100 || ex->minor == 0) {
        ex->out.len = ex->out_mark;
    } else {
        buf_str(&ex->out, STR("\r\n"));
        if (!buf_ok(&ex->out))
            return out_failed(ex);
        ex->interim += ex->out.len - ex->out_mark;
        ex->out_ready = ex->out_mark = ex->out.len;
    }
    ex->phase = PHASE_STATUS;
    http_meta_init(&ex->meta);
    ex->listed.len = 0;
    ex->exception_code = 0;
    ex->saw_progress = false;
    if (ex->rc != NULL) {
        ex->rc->held.len = 0;
        ex->rc->coding = CODEC_IDENTITY;
    }
    return STEP_MOVED;
}

static void LOOP_ONLY
start_tunnel(struct exchange *ex)
{
    ex->tunnel = true;
    ex->framing = HTTP_BODY_CLOSE;
    http_body_init(&ex->up_body, HTTP_BODY_CLOSE, 0);
    ex->up_done = false;
    if (ex->state == EX_RECEIVING)
        ex_goto(ex, EX_SENDING);
}

/* Takes out of the held head what its Connection field names. A part that has left already stays;
 * ClickHouse names nothing there. */
static void LOOP_ONLY
drop_listed(struct exchange *ex)
{
    struct str listed = str_n(ex->listed.p, ex->listed.len);
    size_t from = ex->out_mark, to = from;
    while (from < ex->out.len) {
        struct http_field f;
        struct str s = str_n(ex->out.p + from, ex->out.len - from);
        const char *eol = memchr(s.p, '\n', s.len);
        size_t used = eol == NULL ? s.len : (size_t)(eol - s.p) + 1;
        size_t line;
        bool drop =
            http_line_next(s, &f, &line) == HTTP_LINE_FIELD && http_conn_lists(listed, f.name);
        if (!drop) {
            memmove(ex->out.p + to, ex->out.p + from, used);
            to += used;
        }
        from += used;
    }
    ex->out.len = to;
}

/* The blank line has come: now it is known how the body ends. */
static enum step LOOP_ONLY
head_done(struct exchange *ex)
{
    int code = ex->status.code;
    if (code == 101) {
        if (!ex->upgrade)
            return bad_response(ex, "it switched protocols unasked");
        start_tunnel(ex);
    } else if (code < 200) {
        return interim_head(ex);
    } else if (http_resp_framing(&ex->meta, &ex->status, ex->method, &ex->framing) != ERR_OK) {
        ex_fail(ex, ERR_UPSTREAM_BAD, "its framing is contradictory");
        return STEP_ENDED;
    }
    if (!buf_ok(&ex->listed) || (ex->rc != NULL && !buf_ok(&ex->rc->held)))
        return bad_response(ex, "its framing fields are too long, or there is no memory for them");
    ex->dechunk = ex->minor == 0 && ex->framing == HTTP_BODY_CHUNKED;
    http_body_init(&ex->down_body, ex->framing, ex->meta.content_length);
    if (ex->listed.len > 0)
        drop_listed(ex);
    recode_response(ex);
    put_connection_lines(ex);
    buf_str(&ex->out, STR("\r\n"));
    if (!buf_ok(&ex->out))
        return out_failed(ex);
    if (!ex_recodes_down(ex)) /* else once the codec has proved that there is something to it */
        ex->out_ready = ex->out.len;
    ex->phase = http_body_is_done(&ex->down_body) ? PHASE_END : PHASE_BODY;
    return STEP_MOVED;
}

static enum step LOOP_ONLY
parse_status(struct exchange *ex)
{
    struct str s = str_n(ex->down->data + ex->down->start, blk_len(ex->down));
    size_t used = 0;
    if (s.len > 0 && s.p[0] == 0x15)
        return bad_response(ex, "it answered with a TLS alert: use https:// in the upstream url");
    switch (http_status_parse(s, &ex->status, &used)) {
    case HTTP_MORE: return STEP_DRY;
    case HTTP_BAD: return bad_response(ex, "no HTTP status line");
    case HTTP_OK: break;
    }
    put_status_line(ex);
    ex->status.line = STR_NULL; /* its bytes may move */
    ex->down->start += used;
    ex->phase = PHASE_FIELDS;
    return STEP_MOVED;
}

static void LOOP_ONLY
note_field(struct exchange *ex, const struct http_field *f)
{
    uint64_t code;
    if (f->id == HTTP_F_CONNECTION && ex->meta.conn_other) {
        buf_str(&ex->listed, f->value);
        buf_str(&ex->listed, STR(","));
    }
    if (f->id == HTTP_F_CH_PROGRESS)
        ex->saw_progress = true;
    else if (f->id == HTTP_F_CH_EXCEPTION && str_to_u64(f->value, 1000000, &code))
        ex->exception_code = (int)code;
}

/* Takes whole lines; runs of those that stay are copied at once. */
static enum step LOOP_ONLY
parse_fields(struct exchange *ex)
{
    struct blk *b = ex->down;
    struct str run = STR_NULL;
    for (;;) {
        struct http_field f;
        size_t used = 0;
        struct str s = str_n(b->data + b->start, blk_len(b));
        enum http_line_result r = http_line_next(s, &f, &used);
        if (r == HTTP_LINE_FIELD) {
            b->start += used;
            if (f.id != HTTP_F_OTHER) {
                if (http_meta_add(&ex->meta, &f) != ERR_OK)
                    return bad_response(ex, "bad Content-Length");
                note_field(ex, &f);
                if (is_dropped(ex, &f) || recode_holds(ex, &f)) {
                    buf_str(&ex->out, run);
                    run = STR_NULL;
                    continue;
                }
            }
            run = run.len == 0 ? f.line : str_n(run.p, run.len + f.line.len);
            continue;
        }
        buf_str(&ex->out, run);
        if (!buf_ok(&ex->out))
            return out_failed(ex);
        /* It is never let out in parts: what is no answer yet must not look like one. */
        bool interim = ex->status.code < 200;
        if (interim && ex->out.len - ex->out_mark > HEAD_HOLD_MAX)
            return bad_response(ex, "an interim response is too long");
        if (r == HTTP_LINE_END) {
            b->start += used;
            return head_done(ex);
        }
        if (r != HTTP_LINE_MORE)
            return bad_response(ex, r == HTTP_LINE_LARGE ? "a header field is too long"
                                                         : "a header field is malformed");
        if (!interim && (ex->saw_progress || ex->out.len > HEAD_HOLD_MAX))
            ex->out_ready = ex->out_mark = ex->out.len;
        return STEP_DRY;
    }
}

static enum step LOOP_ONLY
parse_body(struct exchange *ex)
{
    struct blk *b = ex->down;
    struct str s = str_n(b->data + b->start, blk_len(b));
    if (s.len == 0)
        return STEP_DRY;
    size_t used = 0;
    enum http_body_result r;
    if (ex->dechunk) {
        struct str data = STR_NULL;
        r = http_body_next(&ex->down_body, s, &data, &used);
        b->start += used - data.len;
        ex->down_valid = data.len;
    } else {
        r = http_body_scan(&ex->down_body, s, &used);
        ex->down_valid = used;
    }
    switch (r) {
    case HTTP_BODY_MORE: return STEP_MOVED;
    case HTTP_BODY_DONE: ex->phase = PHASE_END; return STEP_MOVED;
    case HTTP_BODY_BAD: break;
    }
    LOG_W("upstream_bad_framing id=%" PRIu64 " address=%s why=\"%s\"", ex->id,
        uaddr_text(uconn_addr(ex->uc)), ex->down_body.why);
    ex_fail(ex, ERR_UPSTREAM_BAD, ex->down_body.why);
    return STEP_ENDED;
}

/* Reads more from the upstream behind what is there. */
static enum io LOOP_ONLY
fill(struct exchange *ex)
{
    struct conn *s = uconn_stream(ex->uc);
    if (!conn_worth_reading(s))
        return IO_WAIT;
    if (ex->down == NULL) {
        ex->down = blk_get();
        if (ex->down == NULL) {
            ex_starve(ex);
            return IO_WAIT;
        }
    }
    struct blk *b = ex->down;
    if (b->start > 0) { /* at most a part of a line is left */
        memmove(b->data, b->data + b->start, blk_len(b));
        b->end -= b->start;
        b->start = 0;
    }
    size_t n = 0, room = blk_cap() - b->end;
    if (ex->splices && room > FRAMING_READ)
        room = FRAMING_READ;
    enum io r = conn_read(s, b->data + b->end, room, &n);
    ex->in_run = false;
    b->end += n;
    metric_add(M_BYTES_UP_IN, (int64_t)n);
    return r;
}

static enum step LOOP_ONLY
upstream_ended(struct exchange *ex, enum io how)
{
    if (how == IO_EOF && ex->phase == PHASE_BODY && ex->framing == HTTP_BODY_CLOSE) {
        ex->phase = PHASE_END;
        if (ex_recodes_down(ex))
            pipe_end(ex->rc->down.pipe, false);
        return STEP_MOVED;
    }
    ex_upstream_lost(ex, how == IO_EOF ? "end of stream" : conn_why(uconn_stream(ex->uc)));
    return STEP_ENDED;
}

static enum step LOOP_ONLY
parse(struct exchange *ex)
{
    switch (ex->phase) {
    case PHASE_STATUS: return parse_status(ex);
    case PHASE_FIELDS: return parse_fields(ex);
    case PHASE_BODY: return parse_body(ex);
    case PHASE_END: break;
    }
    return STEP_DRY;
}

static void LOOP_ONLY
note_received(struct exchange *ex)
{
    ex->progress = loop_now(ex->px->loop);
    if (ex->got_byte)
        return;
    ex->got_byte = true;
    uconn_answered(ex->uc);
    ex->first = ex->progress;
    metric_observe_us(ex->upstream->metrics, H_FIRST_BYTE, mono_diff_us(ex->first, ex->start));
}

/* Upstream to pipe, as much as it takes. */
static enum step LOOP_ONLY
feed(struct exchange *ex)
{
    bool moved = false;
    if (!recode_open_down(ex))
        return STEP_DRY;
    struct pipe *p = ex->rc->down.pipe;
    for (int fills = 0; ex->phase == PHASE_BODY && pipe_room(p) > 0;) {
        if (blk_len(ex->down) == 0) {
            if (fills++ == FEEDS_MAX) {
                ex_later(ex);
                break;
            }
            enum io r = fill(ex);
            if (r == IO_WAIT) {
                sink_flush(&ex->rc->down);
                break;
            }
            if (r != IO_OK)
                return upstream_ended(ex, r);
            note_received(ex);
        }
        moved = true;
        struct blk *b = NULL;
        bool lost; /* behind the response: the connection is not used again anyway */
        enum payload r = payload_take(&ex->down_body, &ex->down, &b, &lost);
        if (r == PAYLOAD_NO_MEMORY) {
            ex_starve(ex);
            break;
        }
        bool done = http_body_is_done(&ex->down_body);
        if (b != NULL)
            sink_put(&ex->rc->down, &b, done || conn_readable(uconn_stream(ex->uc)));
        if (r == PAYLOAD_BAD) {
            LOG_W("upstream_bad_framing id=%" PRIu64 " address=%s why=\"%s\"", ex->id,
                uaddr_text(uconn_addr(ex->uc)), ex->down_body.why);
            ex_cut(ex, ERR_UPSTREAM_BAD);
            return STEP_ENDED;
        }
        if (done) {
            pipe_end(p, false);
            ex->phase = PHASE_END;
        }
    }
    return moved ? STEP_MOVED : STEP_DRY;
}

/* Brings the next bytes for the client into out and down_valid. */
static enum step LOOP_ONLY
take_more(struct exchange *ex)
{
    bool moved = false;
    int fills = 0;
    for (;;) {
        enum step p = ex->down == NULL ? STEP_DRY : parse(ex);
        if (p == STEP_ENDED)
            return p;
        moved = moved || p == STEP_MOVED;
        /* A head goes on to its body, so that both leave in one write. */
        if (ex->down_valid > 0 || ex->phase == PHASE_END)
            return STEP_MOVED;
        if (ex->phase == PHASE_BODY && ex_recodes_down(ex))
            return feed(ex) == STEP_ENDED ? STEP_ENDED : STEP_MOVED;
        if (p == STEP_MOVED)
            continue;
        /* Let out what may go before more is asked for. */
        if (ex_has_output(ex) &&
            (ex->phase == PHASE_BODY || ex->out_ready - ex->out_sent > HEAD_HOLD_MAX))
            return STEP_MOVED;
        if (ex->down != NULL && blk_len(ex->down) == blk_cap())
            return bad_response(ex, "a header field is too long (buffer_size)");
        if (fills++ == FILLS_MAX) { /* it sends much that stays here: interim heads, our fields */
            ex_later(ex);
            return STEP_DRY;
        }
        enum io r = fill(ex);
        if (r == IO_WAIT)
            return moved ? STEP_MOVED : STEP_DRY;
        if (r != IO_OK)
            return upstream_ended(ex, r);
        moved = true;
        note_received(ex);
    }
}

/* Does the run that comes now go through a tube? What was read before it is out already. */
static bool LOOP_ONLY
splice_due(struct exchange *ex)
{
    if (ex->no_splice || ex->phase != PHASE_BODY || blk_len(ex->down) > 0 || ex->out.len > 0 ||
        ex->down_bytes < SPLICE_AFTER || ex_recodes_down(ex) || ex->dechunk)
        return false;
    uint64_t run = http_body_run(&ex->down_body);
    if (run == 0)
        return false;
    if (!ex->in_run && run < SPLICE_RUN) { /* small chunks: each would cost a read of its own */
        ex->splices = false;
        return false;
    }
    if (ex->px->cfg->chmux.splice && conn_is_plain(&ex->client->conn) &&
        conn_is_plain(uconn_stream(ex->uc)))
        ex->tube = tubes_get(&ex->px->tubes);
    ex->splices = ex->tube != NULL;
    ex->no_splice = !ex->splices;
    return ex->splices;
}

static enum step LOOP_ONLY
splice_in(struct exchange *ex)
{
    size_t n;
    uint64_t run = http_body_run(&ex->down_body);
    enum io r =
        tube_fill(ex->tube, uconn_stream(ex->uc), run < TUBE_BYTES ? (size_t)run : TUBE_BYTES, &n);
    if (r == IO_WAIT)
        return STEP_DRY;
    if (r != IO_OK)
        return upstream_ended(ex, r);
    if (n == 0) {
        ex->splices = ex->in_run = false;
        ex->no_splice = true;
        return take_more(ex);
    }
    ex->in_run = true;
    metric_add(M_BYTES_UP_IN, (int64_t)n);
    metric_add(M_BYTES_SPLICED, (int64_t)n);
    note_received(ex);
    http_body_skip(&ex->down_body, n);
    if (http_body_is_done(&ex->down_body))
        ex->phase = PHASE_END;
    return STEP_MOVED;
}

static void LOOP_ONLY
written(struct exchange *ex, size_t n, bool by_tube)
{
    metric_add(M_BYTES_CLIENT_OUT, (int64_t)n);
    ex->down_bytes += n;
    ex->progress = loop_now(ex->px->loop);
    if (by_tube)
        return;
    size_t part = size_min(n, ex->out_ready - ex->out_sent);
    ex->out_sent += part;
    n -= part;
    if (ex->out_sent == ex->out.len) {
        ex->out.len = ex->out_sent = ex->out_ready = ex->out_mark = 0;
    }
    if (n > 0 && ex_recodes_down(ex)) {
        sink_sent(&ex->rc->down, n);
        return;
    }
    if (n > 0) {
        ex->down->start += n;
        ex->down_valid -= n;
    }
    if (ex->down != NULL && blk_len(ex->down) == 0)
        ex->down->start = ex->down->end = 0;
}

static enum step LOOP_ONLY
give_out(struct exchange *ex)
{
    struct conn *s = &ex->client->conn;
    struct iovec v[2];
    int count = 0;
    bool coded = ex_recodes_down(ex) && sink_ready(&ex->rc->down);
    if (coded) /* the head waited for this: something came of the body */
        ex->out_ready = ex->out.len;
    if (ex->out_sent < ex->out_ready)
        v[count++] = (struct iovec){ex->out.p + ex->out_sent, ex->out_ready - ex->out_sent};
    if (ex->down_valid > 0)
        v[count++] = (struct iovec){ex->down->data + ex->down->start, ex->down_valid};
    if (coded)
        sink_iov(&ex->rc->down, v, &count);
    size_t n = 0;
    enum io r;
    if (count == 0) {
        r = tube_drain(ex->tube, s, &n);
    } else {
        if (ex->phase == PHASE_END && ex->down_closing && !ex->cut && !ex_recodes_down(ex))
            conn_fin_follows(s);
        r = conn_writev(s, v, count, &n);
    }
    switch (r) {
    case IO_OK: written(ex, n, count == 0); return STEP_MOVED;
    case IO_WAIT: return STEP_DRY;
    case IO_EOF:
    case IO_ERROR: break;
    }
    ex_client_gone(ex);
    return STEP_ENDED;
}

bool
ex_has_output(const struct exchange *ex)
{
    return ex->out_sent < ex->out_ready || ex->down_valid > 0 || tube_held(ex->tube) > 0 ||
           (ex_recodes_down(ex) && sink_ready(&ex->rc->down));
}

static enum step LOOP_ONLY
take_in(struct exchange *ex)
{
    if (ex->phase == PHASE_BODY && ex_recodes_down(ex))
        return feed(ex);
    if (splice_due(ex))
        return splice_in(ex);
    return take_more(ex);
}

enum step
ex_pump_down(struct exchange *ex)
{
    bool moved = false;
    if (ex->down_valid == 0 && tube_held(ex->tube) == 0 && ex->phase != PHASE_END &&
        ex->uc != NULL && ex->out.len - ex->out_sent <= HEAD_HOLD_MAX) {
        enum step s = take_in(ex);
        if (s == STEP_ENDED)
            return s;
        moved = s == STEP_MOVED;
    }
    if (ex_recodes_down(ex)) {
        if (recode_check_down(ex) == STEP_ENDED)
            return STEP_ENDED;
        if (sink_done(&ex->rc->down)) /* its end; what comes of the body, give_out() sees */
            ex->out_ready = ex->out.len;
    }
    if (ex_has_output(ex)) {
        enum step s = give_out(ex);
        if (s == STEP_ENDED)
            return s;
        moved = moved || s == STEP_MOVED;
    }
    if (ex->down != NULL && blk_len(ex->down) == 0)
        blk_put(&ex->down);
    if (tube_held(ex->tube) == 0)
        tubes_put(&ex->px->tubes, &ex->tube);
    return moved ? STEP_MOVED : STEP_DRY;
}
