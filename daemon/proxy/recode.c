/*
 * recode: the compression policy. What the client speaks and what travels on the link are two
 * things: this decides, per request and response, which codecs stand between them, and makes the
 * heads on both sides tell the truth about it (design section 6).
 */
#include "proxy/proxy_impl.h"

#include "base/no_block.h"

#define PROBE_TIMEOUT_US 5000000
#define PROBES_MAX       8 /* questions of one exchange, over all connections it gets */

static enum codec_id
codec_of(enum compression c)
{
    static const enum codec_id ids[] = {[COMPRESSION_OFF] = CODEC_IDENTITY,
        [COMPRESSION_ZSTD] = CODEC_ZSTD,
        [COMPRESSION_LZ4] = CODEC_LZ4,
        [COMPRESSION_GZIP] = CODEC_GZIP};
    return ids[c];
}

struct str
recode_accept(enum codec_id want)
{
    switch (want) {
    case CODEC_ZSTD: return STR("zstd, gzip");
    case CODEC_LZ4: return STR("lz4, gzip");
    case CODEC_GZIP: return STR("gzip");
    case CODEC_IDENTITY:
    case CODEC_DEFLATE:
    case CODEC_BROTLI:
    case CODEC_BLOCKS:
    case CODEC_COUNT: break;
    }
    return STR("");
}

static bool
has_override(const struct http_req *r)
{
    for (size_t i = 0; i < r->field_count; i++)
        if (r->fields[i].id == HTTP_F_CHMUX_COMPRESSION)
            return true;
    return false;
}

/* What of the wishes makes sense for this request. */
static void
narrow(struct recode *rc, const struct exchange *ex, const struct http_req *r)
{
    const struct ch_coding *a = &rc->asked;
    size_t min = ex->upstream->cfg->compression_min_size;
    bool plain = a->body == CODEC_IDENTITY && !a->body_blocks;
    bool tiny = plain && r->framing == HTTP_BODY_LENGTH && r->meta.content_length < min;
    bool empty = r->framing == HTTP_BODY_NONE ||
                 (r->framing == HTTP_BODY_LENGTH && r->meta.content_length == 0);
    if (empty || tiny || a->body == CODEC_COUNT || ex->ch.multipart)
        rc->want_request = CODEC_IDENTITY;
    if (a->answer_blocks && a->has_accept)
        rc->want_response = CODEC_IDENTITY; /* blocks inside a coding: as sent */
    if (a->odd_blocks)                      /* what that means only the server knows */
        rc->want_request = rc->want_response = CODEC_IDENTITY;
}

enum err
recode_start(struct exchange *ex, const struct http_req *r, const char **why)
{
    const struct config_upstream *cfg = ex->upstream->cfg;
    bool override = has_override(r);
    if (cfg->request_compression == COMPRESSION_OFF &&
        cfg->response_compression == COMPRESSION_OFF && !override)
        return ERR_OK;
    struct recode rc = {.want_request = codec_of(cfg->request_compression),
        .want_response = codec_of(cfg->response_compression)};
    ch_coding_parse(&rc.asked, r);
    *why =
        "X-Chmux-Compression: off, zstd, lz4, gzip, or \"request=zstd, response=off\" is allowed";
    if (rc.asked.bad_override)
        return ERR_BAD_REQUEST;
    if (rc.asked.override_request >= 0)
        rc.want_request = (enum codec_id)rc.asked.override_request;
    if (rc.asked.override_response >= 0)
        rc.want_response = (enum codec_id)rc.asked.override_response;
    bool usual = ex->method == HTTP_M_GET || ex->method == HTTP_M_POST;
    if (!ex->ch.is_query || !usual || ex->upgrade)
        return ERR_OK;
    narrow(&rc, ex, r);
    if (rc.want_request == CODEC_IDENTITY && rc.want_response == CODEC_IDENTITY)
        return ERR_OK;
    if (ex->upstream->caps == NULL)
        ex->upstream->caps = caps_new();
    if (ex->upstream->caps == NULL || !mem_take(sizeof rc))
        return ERR_NOMEM;
    ex->rc = mem_zalloc(sizeof rc);
    if (ex->rc == NULL) {
        mem_give(sizeof rc);
        return ERR_NOMEM;
    }
    *ex->rc = rc;
    buf_init(&ex->rc->origin, HTTP_MAX_HEAD + 4096);
    buf_init(&ex->rc->held, 8192);
    errand_init(&ex->rc->probe);
    return ERR_OK;
}

void
recode_free(struct exchange *ex)
{
    struct recode *rc = ex->rc;
    if (rc == NULL)
        return;
    recode_close_pipes(ex);
    buf_fini(&rc->origin);
    buf_fini(&rc->held);
    errand_fini(&rc->probe);
    mem_free(rc);
    mem_give(sizeof *rc);
    ex->rc = NULL;
}

/* ---- the request ---- */

static struct codec_spec
decoder(enum codec_id id)
{
    return (struct codec_spec){.id = id, .max_memory = mem_long_limit() / 4};
}

static struct codec_spec
encoder(const struct exchange *ex, enum codec_id id, int level)
{
    const struct config_upstream *cfg = ex->upstream->cfg;
    return (struct codec_spec){.id = id,
        .encode = true,
        .level = level,
        .method = cfg->local_blocks == LOCAL_BLOCKS_NONE ? BLOCK_NONE : BLOCK_LZ4};
}

/* Which codecs the request's body goes through to become `link`. */
static void
plan_up(struct exchange *ex, enum codec_id link)
{
    struct recode *rc = ex->rc;
    int level = (int)ex->upstream->cfg->compression_level;
    enum codec_id local = rc->asked.body;
    if (local == CODEC_IDENTITY && rc->asked.body_blocks)
        local = CODEC_BLOCKS;
    rc->up_spec = (struct pipe_spec){.check = local == link};
    if (local != CODEC_IDENTITY)
        rc->up_spec.decode = decoder(local);
    if (local != link)
        rc->up_spec.encode = encoder(ex, link, level);
    rc->up_on = true;
}

static bool
is_replaced(const struct recode *rc, const struct http_field *f)
{
    if (f->id == HTTP_F_ACCEPT_ENCODING)
        return rc->down_asked;
    return rc->up_on && (f->id == HTTP_F_CONTENT_ENCODING || f->id == HTTP_F_CONTENT_LENGTH ||
                            f->id == HTTP_F_TRANSFER_ENCODING);
}

/* The head for this server: origin with the edits that the plan needs. */
static bool
edit_head(struct exchange *ex, const struct http_req *r, struct str target)
{
    struct recode *rc = ex->rc;
    struct buf *h = &ex->head;
    h->len = 0;
    if (!buf_reserve(h, r->head_len + target.len + 128))
        return false;
    buf_str(h, r->method_text);
    buf_str(h, STR(" "));
    buf_str(h, target);
    buf_str(h, STR(" HTTP/1.1\r\n"));
    ex->host_at = h->len;
    ex->host_len = 0;
    for (size_t i = 0; i < r->field_count; i++)
        if (!is_replaced(rc, &r->fields[i]))
            buf_str(h, r->fields[i].line);
    if (rc->up_on) {
        enum codec_id link = rc->up_spec.check ? rc->up_spec.decode.id : rc->up_spec.encode.id;
        buf_addf(h, "Content-Encoding: %s\r\nTransfer-Encoding: chunked\r\n", codec_name(link));
    }
    if (rc->down_asked)
        buf_addf(h, "Accept-Encoding: " STR_FMT "\r\n", STR_ARG(recode_accept(rc->want_response)));
    buf_str(h, STR("\r\n"));
    return buf_ok(h);
}

/* A session may have become read-only (SET readonly=1), and then refuses each request that sets
 * something: the setting is not added there. */
static bool LOOP_ONLY
wants_coded_answer(const struct exchange *ex, const struct caps_entry *caps)
{
    const struct recode *rc = ex->rc;
    bool sets = caps->with_setting && !rc->asked.names_setting;
    return rc->want_response != CODEC_IDENTITY && caps->response_known && caps->response_ok &&
           !(sets && ex->ch.has_session);
}

/* Makes the plan for the server of this lease, and the head that goes with it. */
static bool LOOP_ONLY
plan(struct exchange *ex, const struct caps_entry *caps)
{
    struct recode *rc = ex->rc;
    struct http_req *r = &ex->px->req;
    enum err e;
    if (http_req_parse(r, str_n(rc->origin.p, rc->origin.len), &e) != HTTP_OK)
        return false;
    rc->up_on = rc->down_asked = false;
    if (caps->request_known && caps->request != CODEC_IDENTITY)
        plan_up(ex, caps->request);
    rc->down_asked = wants_coded_answer(ex, caps);
    bool set = rc->down_asked && caps->with_setting && !rc->asked.names_setting;
    struct ch_target_edit edit = {
        .drop_decompress = rc->up_on && rc->up_spec.decode.id == CODEC_BLOCKS,
        .drop_compress = rc->down_asked && rc->asked.answer_blocks,
        .add_compression = set,
    };
    bool edits = edit.drop_decompress || edit.drop_compress || edit.add_compression;
    struct buf target;
    buf_init(&target, HTTP_MAX_HEAD);
    if (!edits) {
        buf_str(&target, r->target);
    } else if (!ch_target_edit(&target, r->target, &edit)) { /* no room in the URL */
        rc->up_on = rc->up_on && !edit.drop_decompress;
        rc->down_asked = rc->down_asked && !edit.drop_compress && !edit.add_compression;
    }
    rc->set = set && rc->down_asked;
    if (rc->want_request != CODEC_IDENTITY && (!rc->up_on || caps->request != rc->want_request))
        metric_inc(M_FALLBACK_REQUEST);
    if (rc->want_response != CODEC_IDENTITY && !rc->down_asked)
        metric_inc(M_FALLBACK_RESPONSE);
    bool ok = buf_ok(&target) && edit_head(ex, r, str_n(target.p, target.len));
    buf_fini(&target);
    return ok;
}

static void
on_pipe(void *arg)
{
    thr_check_loop();
    struct exchange *ex = OBJ_CAST(struct exchange, arg, EXCHANGE_MAGIC);
    loop_label(ex->px->loop, "pipe");
    if (ex->state != EX_QUEUED && ex->state != EX_PROBING)
        ex_pump(ex);
}

/* A retry that has sent nothing goes on with the pipe it has; one that has sent some begins anew,
 * with what was remembered of the body. */
static bool LOOP_ONLY
open_up(struct exchange *ex)
{
    struct recode *rc = ex->rc;
    if (!rc->up_on) {
        sink_close(&rc->up);
        return !rc->up_fed;
    }
    if (rc->up.pipe != NULL && ex->up_bytes == 0) {
        ex->replaying = false;
        return true;
    }
    sink_close(&rc->up);
    rc->up_fed = false;
    rc->up.pipe = pipe_new(ex->px->workers, &rc->up_spec, on_pipe, ex);
    if (rc->up.pipe != NULL)
        metric_inc(M_RECODED_REQUEST);
    return rc->up.pipe != NULL;
}

/* The body has turned out to have no byte at all. ClickHouse takes that for a whole stream,
 * whatever the coding; to the decoder it would be one that lacks its beginning. */
bool
recode_end_up(struct exchange *ex)
{
    struct recode *rc = ex->rc;
    rc->up_fed = true;
    if (pipe_bytes_in(rc->up.pipe) == 0 && rc->up_spec.decode.id != CODEC_IDENTITY) {
        enum codec_id link = rc->up_spec.check ? rc->up_spec.decode.id : rc->up_spec.encode.id;
        struct pipe_spec spec = {.encode = encoder(ex, link, 1)};
        sink_close(&rc->up);
        rc->up.pipe = pipe_new(ex->px->workers, &spec, on_pipe, ex);
        if (rc->up.pipe == NULL)
            return false;
    }
    pipe_end(rc->up.pipe, false);
    return true;
}

static void on_probe(void *arg);

/* Asks the next question, if one is left. */
static bool LOOP_ONLY
probe_next(struct exchange *ex, struct caps_entry *caps)
{
    struct recode *rc = ex->rc;
    struct http_req *r = &ex->px->req;
    enum err e;
    if (rc->probes >= PROBES_MAX ||
        http_req_parse(r, str_n(rc->origin.p, rc->origin.len), &e) != HTTP_OK ||
        !caps_ask(caps, ex, r, rc, loop_now(ex->px->loop)))
        return false;
    rc->probes++;
    metric_inc(M_PROBES);
    if (ex->state != EX_PROBING)
        ex_goto(ex, EX_PROBING);
    timer_arm_in(&ex->client->timer, PROBE_TIMEOUT_US);
    uconn_set_handler(ex->uc, on_probe, ex);
    return true;
}

/* That says nothing about the next one who comes with the same name. UNKNOWN_USER, WRONG_PASSWORD,
 * REQUIRED_PASSWORD, IP_ADDRESS_NOT_ALLOWED, AUTHENTICATION_FAILED. */
static bool
login_refused(const struct errand *e)
{
    int code = e->exception_code;
    return e->status == 401 || e->status == 403 || (code >= 192 && code <= 195) || code == 516;
}

/* The request goes on as it would without chmux: what the server allows could not be found out. */
static void LOOP_ONLY
probe_failed(struct exchange *ex, const char *why)
{
    metric_inc(M_PROBES_FAILED);
    ex->rc->probes = PROBES_MAX;
    if (!login_refused(&ex->rc->probe))
        caps_failed(&ex->rc->question, loop_now(ex->px->loop));
    LOG_I("coding_probe_failed id=%" PRIu64 " address=%s status=%d exception=%d why=\"%s\"", ex->id,
        uaddr_text(uconn_addr(ex->uc)), ex->rc->probe.status, ex->rc->probe.exception_code, why);
}

static void LOOP_ONLY
probe_answered(struct exchange *ex)
{
    struct recode *rc = ex->rc;
    if (!caps_learn(ex->upstream->caps, &rc->question, &rc->probe))
        probe_failed(ex, "refused");
    if (rc->probe.keep && conn_is_open(uconn_stream(ex->uc)) &&
        !uconn_stream(ex->uc)->peer_closed) {
        if (recode_lease(ex))
            ex_send(ex);
        return;
    }
    ex_requeue(ex, M_CLOSE_PEER, false);
}

static void
on_probe(void *arg)
{
    thr_check_loop();
    struct exchange *ex = OBJ_CAST(struct exchange, arg, EXCHANGE_MAGIC);
    loop_label(ex->px->loop, "probe");
    switch (errand_step(&ex->rc->probe, uconn_stream(ex->uc))) {
    case ERRAND_WAIT: return;
    case ERRAND_DONE: probe_answered(ex); return;
    case ERRAND_FAILED: break;
    }
    /* A reused connection may have been dead: the next one is fresh. */
    if (!ex->reused)
        probe_failed(ex, ex->rc->probe.why);
    uconn_died_unanswered(ex->uc);
    ex_requeue(ex, M_STALE, true);
}

void
recode_probe_timeout(struct exchange *ex)
{
    probe_failed(ex, "timed out");
    ex_requeue(ex, M_CLOSE_ERROR, true);
}

bool
recode_lease(struct exchange *ex)
{
    struct recode *rc = ex->rc;
    if (rc->origin.len == 0)
        buf_add(&rc->origin, ex->head.p, ex->head.len);
    struct caps_entry *caps = caps_find(ex->upstream->caps, ex, loop_now(ex->px->loop));
    if (!rc->planned && probe_next(ex, caps)) {
        on_probe(ex);
        return false;
    }
    struct pipe_spec before = rc->up_spec;
    bool was_on = rc->up_on;
    bool planned = buf_ok(&rc->origin) && plan(ex, caps);
    /* What a pipe holds already was coded for another server. */
    bool same =
        rc->up.pipe == NULL || (was_on && rc->up_on && before.encode.id == rc->up_spec.encode.id &&
                                   before.check == rc->up_spec.check);
    if (planned && same && open_up(ex)) {
        rc->planned = true;
        rc->plan = (struct caps_ref){caps, caps->version};
        return true;
    }
    ex_fail(ex, same ? ERR_NOMEM : ERR_UPSTREAM_CLOSED, NULL);
    return false;
}

/* ---- the response ---- */

bool
recode_holds(struct exchange *ex, const struct http_field *f)
{
    struct recode *rc = ex->rc;
    if (rc == NULL || !rc->down_asked)
        return false;
    if (f->id == HTTP_F_CONTENT_ENCODING)
        rc->coding = rc->coding == CODEC_IDENTITY ? codec_by_name(f->value) : CODEC_COUNT;
    else if (f->id != HTTP_F_CONTENT_LENGTH && f->id != HTTP_F_TRANSFER_ENCODING)
        return false;
    if (f->id != HTTP_F_TRANSFER_ENCODING || ex->minor > 0)
        buf_str(&rc->held, f->line);
    return true;
}

/* What the client is to get, of a response that came in rc->coding. */
static enum codec_id
local_coding(const struct exchange *ex)
{
    const struct recode *rc = ex->rc;
    const struct ch_coding *a = &rc->asked;
    if (rc->coding == CODEC_COUNT)
        return CODEC_COUNT;
    if (a->answer_blocks) {
        /* Errors that come before ClickHouse has set its output up are plain for it, too. */
        bool plain_error = ex->status.code != 200 || ex->exception_code != 0;
        return rc->coding == CODEC_IDENTITY && plain_error ? CODEC_IDENTITY : CODEC_BLOCKS;
    }
    if (rc->coding == CODEC_IDENTITY || (a->accepts & CODEC_BIT(rc->coding)) != 0)
        return rc->coding;
    bool recode = ex->upstream->cfg->local_encoding == LOCAL_ENCODING_CLIENT || a->refuses_identity;
    return recode ? ch_preferred(a->accepts) : CODEC_IDENTITY;
}

void
recode_response(struct exchange *ex)
{
    struct recode *rc = ex->rc;
    if (rc != NULL && (ex->status.code == 500 || ex->exception_code != 0))
        caps_doubt(rc, ex->exception_code, loop_now(ex->px->loop));
    if (rc == NULL || !rc->down_asked)
        return;
    enum codec_id local = local_coding(ex);
    if (rc->coding != rc->want_response && rc->coding != CODEC_IDENTITY)
        metric_inc(M_FALLBACK_RESPONSE);
    if (http_body_is_done(&ex->down_body) || local == rc->coding) {
        buf_str(&ex->out, str_n(rc->held.p, rc->held.len)); /* as it came */
        return;
    }
    rc->down_on = true;
    rc->down_spec = (struct pipe_spec){.check = false};
    if (rc->coding != CODEC_IDENTITY)
        rc->down_spec.decode = decoder(rc->coding);
    if (local != CODEC_IDENTITY)
        rc->down_spec.encode = encoder(ex, local, 1);
    if (local != CODEC_IDENTITY && local != CODEC_BLOCKS)
        buf_addf(&ex->out, "Content-Encoding: %s\r\n", codec_name(local));
    if (ex->minor > 0)
        buf_str(&ex->out, STR("Transfer-Encoding: chunked\r\n"));
    else
        ex->dechunk = true; /* ends with the connection */
}

bool
recode_open_down(struct exchange *ex)
{
    struct recode *rc = ex->rc;
    if (rc->down.pipe != NULL)
        return true;
    rc->down.pipe = pipe_new(ex->px->workers, &rc->down_spec, on_pipe, ex);
    rc->down.raw = ex->minor == 0;
    if (rc->down.pipe == NULL) {
        ex_starve(ex);
        return false;
    }
    metric_inc(M_RECODED_RESPONSE);
    return true;
}

void
recode_cut_down(struct exchange *ex, enum err e)
{
    ex->rc->down_cut = true;
    ex->rc->cut_err = e;
    ex->err = e;
    pipe_end(ex->rc->down.pipe, true);
}

/* ---- the end ---- */

static void LOOP_ONLY
count_bytes(const struct pipe_sink *s, enum metric_id in, enum metric_id out)
{
    if (s->pipe == NULL)
        return;
    metric_add(in, (int64_t)pipe_bytes_in(s->pipe));
    metric_add(out, (int64_t)pipe_bytes_out(s->pipe));
}

void
recode_close_pipes(struct exchange *ex)
{
    struct recode *rc = ex->rc;
    if (rc == NULL)
        return;
    count_bytes(&rc->up, M_LINK_REQUEST_PLAIN, M_LINK_REQUEST_CODED);
    count_bytes(&rc->down, M_LINK_RESPONSE_CODED, M_LINK_RESPONSE_PLAIN);
    sink_close(&rc->up);
    sink_close(&rc->down);
    rc->up_on = rc->down_on = false;
}

/* "gzip: checksum mismatch at byte 123", and the same in the log. */
static enum err LOOP_ONLY
tell_error(const struct exchange *ex, const struct pipe *p, bool request, char *text, size_t len)
{
    const struct pipe_error *pe = pipe_error(p);
    metric_inc(request ? M_CODEC_ERRORS_CLIENT : M_CODEC_ERRORS_UPSTREAM);
    snprintf(text, len, "%s: %s at byte %" PRIu64, codec_name(pe->codec), pe->why, pe->offset);
    const struct log_field f[] = {
        {"id", LOG_NUM, STR_NULL, (int64_t)ex->id},
        {"direction", LOG_STR, request ? STR("request") : STR("response"), 0},
        {"codec", LOG_STR, str_of(codec_name(pe->codec)), 0},
        {"offset", LOG_NUM, STR_NULL, (int64_t)pe->offset},
        {"why", LOG_STR, str_of(pe->why), 0},
        {"query_id", LOG_STR, str_n(ex->ch.query_id, ex->ch.query_id_len), 0},
    };
    log_fields(LOG_WARN, "codec_error", f, COUNT_OF(f));
    if (strcmp(pe->why, CODEC_OUT_OF_MEMORY) == 0)
        return ERR_NOMEM;
    return request ? ERR_BAD_ENCODING : ERR_UPSTREAM_ENCODING;
}

enum step
recode_check_up(struct exchange *ex)
{
    char text[160];
    struct pipe *p = ex->rc->up.pipe;
    switch (pipe_status(p)) {
    case PIPE_STARVED: ex_starve(ex); return STEP_DRY;
    case PIPE_OPEN:
    case PIPE_ENDED:
    case PIPE_CUT: return STEP_DRY; /* nobody cuts a request's pipe */
    case PIPE_FAILED: break;
    }
    ex_fail(ex, tell_error(ex, p, true, text, sizeof text), text);
    return STEP_ENDED;
}

enum step
recode_check_down(struct exchange *ex)
{
    struct recode *rc = ex->rc;
    char text[160] = "";
    if (rc->down.pipe == NULL || sink_ready(&rc->down))
        return STEP_DRY;
    enum err e = rc->cut_err;
    switch (pipe_status(rc->down.pipe)) {
    case PIPE_STARVED: ex_starve(ex); return STEP_DRY;
    case PIPE_OPEN:
    case PIPE_ENDED: return STEP_DRY;
    case PIPE_CUT: break;
    case PIPE_FAILED:
        e = tell_error(ex, rc->down.pipe, false, text, sizeof text);
        e = rc->down_cut ? rc->cut_err : e;
        break;
    }
    ex_fail(ex, e, text[0] == '\0' ? NULL : text);
    return STEP_ENDED;
}
