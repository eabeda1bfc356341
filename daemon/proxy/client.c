/*
 * client: a local connection. Between requests it holds no buffer; a head that comes in one piece
 * is parsed where it was read.
 */
#include <sys/socket.h>
#include <unistd.h>

#include "proxy/proxy_impl.h"

#include "base/no_block.h"

#define HEAD_READ_MAX    16384 /* so much of a body may come in before there is a lease for it */
#define KEEP_RETRY_US    10000
#define LINGER_US        2000000
#define LINGER_BYTES_MAX (64 << 20)
#define LINGER_READS     32 /* then others get their turn */
#define CUT_LOOK_US      10000

static void on_stream(void *arg);
static void on_timer(void *arg);
static void on_next(void *arg);

static void
on_free(void *arg)
{
    thr_check_loop();
    struct client *c = OBJ_CAST(struct client, arg, CLIENT_MAGIC);
    buf_fini(&c->in);
    tls_server_unref(&c->tls);
    mem_free(c->cert);
    OBJ_POISON(c);
    mem_free(c);
}

static uint64_t
peer_key(const struct addr *peer)
{
    if (peer->sa.sa_family == AF_INET)
        return hash64(1, str_n((const char *)&peer->in4.sin_addr, sizeof peer->in4.sin_addr));
    if (peer->sa.sa_family == AF_INET6)
        return hash64(2, str_n((const char *)&peer->in6.sin6_addr, sizeof peer->in6.sin6_addr));
    return 0; /* unix: asked for when it matters */
}

static void
keep_peer(struct client *c, const struct addr *peer)
{
    c->is_unix = peer->sa.sa_family == AF_UNIX;
    c->peer_key = peer_key(peer);
    if (peer->sa.sa_family == AF_INET)
        c->peer.in4 = peer->in4;
    else if (peer->sa.sa_family == AF_INET6)
        c->peer.in6 = peer->in6;
}

void
client_peer(struct client *c, char out[ADDR_TEXT_MAX])
{
    int64_t uid = client_uid(c);
    if (uid >= 0) {
        snprintf(out, ADDR_TEXT_MAX, "unix:uid=%" PRId64, uid);
    } else if (c->is_unix) {
        snprintf(out, ADDR_TEXT_MAX, "unix");
    } else {
        struct addr a = {.in6 = c->peer.in6}; /* the larger one */
        addr_format(&a, out);
    }
}

uint64_t
client_flow_key(struct client *c, struct str user)
{
    int64_t uid = c->peer_key == 0 ? client_uid(c) : -1;
    if (uid >= 0)
        c->peer_key = hash64(3, str_n((const char *)&uid, sizeof uid));
    return hash64(c->peer_key ^ hash_seed(), user);
}

int64_t
client_uid(struct client *c)
{
    struct ucred cred = {0};
    socklen_t len = sizeof cred;
    if (!c->is_unix)
        return -1;
    if (!c->uid_known && getsockopt(c->conn.fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) == 0) {
        c->uid_known = true;
        c->uid = cred.uid;
    }
    return c->uid_known ? (int64_t)c->uid : -1;
}

/* Of no request: there was none yet. */
static void LOOP_ONLY
note_error(struct proxy *px, struct client *c, enum err e, const char *detail)
{
    const struct err_info *info = err_info(e);
    struct error_entry entry = {.at = loop_now(px->loop),
        .token = info->token,
        .status = info->status,
        .code = info->code,
        .client = c == NULL ? 0 : c->id};
    if (c != NULL)
        client_peer(c, entry.peer);
    snprintf(entry.detail, sizeof entry.detail, "%s", detail == NULL ? info->text : detail);
    errors_note(&px->errors, &entry);
}

void
client_accept(struct proxy *px, const struct door *door, int fd, const struct addr *peer)
{
    if (px->client_count >= (size_t)px->cfg->chmux.max_clients) {
        note_error(px, NULL, ERR_MAX_CLIENTS, NULL);
        listener_turn_away(fd, door_busy_reply(px, door), M_REFUSED_MAX_CLIENTS);
        return;
    }
    if (!door_allows(door, peer)) {
        char text[ADDR_TEXT_MAX];
        addr_format(peer, text);
        note_error(px, NULL, ERR_NOT_ALLOWED, text);
        LOG_D("client_not_allowed peer=%s listener=%s", text, door->name);
        listener_turn_away(fd, door_stranger_reply(px, door), M_REFUSED_NOT_ALLOWED);
        return;
    }
    struct client *c = mem_zalloc(sizeof *c);
    if (c == NULL) {
        metric_inc(M_REFUSED_MEMORY);
        close(fd);
        return;
    }
    OBJ_INIT(c, CLIENT_MAGIC);
    c->px = px;
    c->door = door;
    c->id = ++px->next_client_id;
    c->since = loop_now(px->loop);
    keep_peer(c, peer);
    buf_init(&c->in, HTTP_MAX_HEAD);
    timer_init(&c->timer, px->loop, on_timer, c);
    if (!timer_reserve(&c->timer))
        goto fail;
    if (!conn_open(&c->conn, px->loop, fd, NULL, on_stream, c))
        goto fail_timer;
    list_push_back(&px->clients, &c->link);
    px->client_count++;
    metric_inc(M_CLIENTS_TOTAL);
    metric_set(M_CLIENTS, (int64_t)px->client_count);
    if (door != NULL && door->tls.server != NULL) {
        c->state = CLIENT_SHAKING;
        c->tls = tls_server_ref(door->tls.server);
        timer_arm_in(&c->timer, px->cfg->chmux.head_timeout);
    } else {
        c->state = CLIENT_IDLE;
        timer_arm_in(&c->timer, px->cfg->chmux.idle_timeout);
    }
    if (log_on(LOG_DEBUG)) {
        char text[ADDR_TEXT_MAX];
        client_peer(c, text);
        LOG_D("client_accepted client=%" PRIu64 " peer=%s", c->id, text);
    }
    /* Its request is here with it, over TCP; over a unix socket often. */
    c->conn.can_read = true;
    on_stream(c);
    return;
fail_timer:
    timer_fini(&c->timer);
fail:
    metric_inc(M_REFUSED_MEMORY);
    mem_free(c);
    close(fd);
}

void
client_close(struct client *c)
{
    if (c->state == CLIENT_CLOSED)
        return;
    struct proxy *px = c->px;
    if (c->state == CLIENT_BUSY) {
        exchange_abort(c->ex); /* comes back here through client_exchange_done() */
        return;
    }
    if (c->state == CLIENT_CUTTING)
        conn_reset_on_close(&c->conn);
    c->state = CLIENT_CLOSED;
    shake_leave(c);
    conn_close(&c->conn);
    timer_fini(&c->timer);
    list_remove(&c->link);
    px->client_count--;
    metric_set(M_CLIENTS, (int64_t)px->client_count);
    LOG_D("client_closed client=%" PRIu64 " requests=%" PRIu64, c->id, c->served);
    loop_undefer(&c->task);
    loop_defer(px->loop, &c->task, on_free, c);
    proxy_check_drained(px);
}

void
client_leave_soon(struct client *c)
{
    struct proxy *px = c->px;
    bool silent = c->state == CLIENT_SHAKING && c->conn.ssl == NULL && !list_linked(&c->shake_link);
    if (!silent && (c->state != CLIENT_IDLE || c->in.len > 0))
        return;
    c->keep = px->keep_left > 0 && c->tls == NULL; /* the next process has not its keys */
    px->keep_left -= c->keep;
    timer_arm_in(&c->timer, c->keep ? 0 : px->cfg->chmux.drain_idle);
}

/* The end of an idle client: of its patience, or of ours. */
static void LOOP_ONLY
leave(struct client *c)
{
    struct proxy *px = c->px;
    enum io r = conn_peek(&c->conn);
    if (r == IO_OK) { /* its request came this very moment */
        timer_arm_in(&c->timer, px->cfg->chmux.idle_timeout);
        loop_defer(px->loop, &c->task, on_next, c);
        return;
    }
    if (c->keep && r == IO_WAIT) {
        switch (notify_keep(px->keeper, c->conn.fd, PASSED_CLIENT)) {
        case NOTIFY_KEPT: metric_inc(M_CLIENTS_LEFT); break;
        case NOTIFY_LATER: timer_arm_in(&c->timer, KEEP_RETRY_US); return;
        case NOTIFY_NEVER:
            c->keep = false;
            timer_arm_in(&c->timer, px->cfg->chmux.drain_idle);
            return;
        }
    }
    if (c->tls != NULL)
        conn_shutdown(&c->conn); /* a TLS peer is told that this is no cut */
    client_close(c);
}

/* FIN first, then what the peer still sends is read: else a reset might eat the answer. */
void
client_linger(struct client *c)
{
    c->state = CLIENT_LINGER;
    c->linger_left = LINGER_BYTES_MAX;
    buf_fini(&c->in);
    conn_shutdown(&c->conn);
    timer_arm_in(&c->timer, LINGER_US);
    loop_defer(c->px->loop, &c->task, on_next, c); /* what came already brings no event */
}

static void LOOP_ONLY
linger_step(struct client *c)
{
    char sink[8192];
    size_t n = 0;
    for (int i = 0; i < LINGER_READS; i++) {
        enum io r = conn_read(&c->conn, sink, sizeof sink, &n);
        if (r == IO_WAIT)
            return;
        c->linger_left -= (int64_t)n;
        if (r != IO_OK || c->linger_left <= 0) {
            client_close(c);
            return;
        }
    }
    loop_defer(c->px->loop, &c->task, on_next, c);
}

/* A reset overtakes what is in the socket's buffer. The kernel does not tell when that is gone, so
 * it is asked now and then, as long as the client takes some of it. */
static void LOOP_ONLY
cut(struct client *c)
{
    struct mono now = loop_now(c->px->loop);
    size_t unsent = conn_unsent(&c->conn);
    if (c->state != CLIENT_CUTTING || unsent != c->unsent)
        c->unsent_since = now;
    c->state = CLIENT_CUTTING;
    c->unsent = unsent;
    bool taken = mono_diff_us(now, c->unsent_since) < c->px->cfg->chmux.stall_timeout;
    if (unsent > 0 && taken)
        timer_arm_in(&c->timer, CUT_LOOK_US);
    else
        client_close(c);
}

/* What comes from the client now is of no use, but that it left is. */
static void LOOP_ONLY
cut_on_stream(struct client *c)
{
    char sink[8192];
    size_t n;
    enum io r = IO_OK;
    for (int i = 0; i < LINGER_READS && r == IO_OK; i++)
        r = conn_read(&c->conn, sink, sizeof sink, &n);
    if (r == IO_EOF || r == IO_ERROR)
        client_close(c);
}

/* Answers with an error of our own when there is no exchange to do it, and closes. */
static void LOOP_ONLY
refuse(struct client *c, enum err e, const char *detail, bool head)
{
    const struct err_info *info = err_info(e);
    struct buf reply;
    buf_init(&reply, 4096);
    ch_error_response(&reply, e, detail, 1, false, head);
    struct str text = str_n(c->px->nomem_reply.p, c->px->nomem_reply.len);
    if (buf_ok(&reply))
        text = str_n(reply.p, reply.len);
    /* The socket's buffer is empty here, so this small write goes whole or the peer is gone. */
    struct iovec v = {.iov_base = (char *)(uintptr_t)text.p, .iov_len = text.len};
    size_t put = 0;
    c->conn.can_write = true;
    enum io r = conn_writev(&c->conn, &v, 1, &put);
    buf_fini(&reply);
    metric_add(M_BYTES_CLIENT_OUT, (int64_t)put);
    metric_inc(e == ERR_NOMEM       ? M_REFUSED_MEMORY
               : e == ERR_TOO_LARGE ? M_REFUSED_TOO_LARGE
                                    : M_REFUSED_BAD_REQUEST);
    note_error(c->px, c, e, detail);
    if (c->px->cfg->log.access)
        client_log_refused(c, e, put);
    LOG_D("client_refused client=%" PRIu64 " status=%d error=%s why=\"%s\"", c->id, info->status,
        info->token, detail == NULL ? "" : detail);
    if (r == IO_ERROR)
        client_close(c);
    else
        client_linger(c);
}

/* Those who speak another protocol to this port are told so in a way they may understand. */
static bool LOOP_ONLY
refuse_foreign(struct client *c, struct str s)
{
    if (s.len >= 2 && s.p[0] == 0x16 && s.p[1] == 0x03) {
        LOG_W("client_speaks_tls client=%" PRIu64 " hint=\"use http:// to talk to chmux\"", c->id);
        refuse(c, ERR_BAD_REQUEST, "TLS was spoken to a plain HTTP port; use http://", false);
        return true;
    }
    if (s.p[0] != 0)
        return false;
    LOG_W("client_speaks_native client=%" PRIu64
          " hint=\"clickhouse-client and native drivers need ClickHouse's TCP port\"",
        c->id);
    struct buf reply;
    buf_init(&reply, 4096);
    ch_native_exception(&reply, err_info(ERR_BAD_REQUEST)->code,
        "chmux: this is an HTTP port (ClickHouse's HTTP interface); the native protocol is not "
        "spoken here");
    struct iovec v = {.iov_base = reply.p, .iov_len = reply.len};
    size_t put = 0;
    c->conn.can_write = true;
    enum io r = buf_ok(&reply) ? conn_writev(&c->conn, &v, 1, &put) : IO_ERROR;
    buf_fini(&reply);
    metric_inc(M_REFUSED_BAD_REQUEST);
    if (r == IO_ERROR)
        client_close(c);
    else
        client_linger(c);
    return true;
}

void
client_refuse_plain(struct client *c, char first)
{
    if (refuse_foreign(c, str_n(&first, 1)))
        return;
    LOG_W("client_speaks_plain client=%" PRIu64 " hint=\"use https:// for this listener\"", c->id);
    refuse(c, ERR_BAD_REQUEST, "plain HTTP was spoken to a TLS port; use https://", false);
}

enum head_step { HEAD_MORE, HEAD_TAKEN };

/* More of the first request is to come, from a client that may hold it back until what it has sent
 * is acknowledged (Nagle). Later ones: the kernel does as it thinks best, as anywhere. */
static void LOOP_ONLY
ack_now(struct client *c)
{
    if (c->served == 0 && !c->is_unix)
        conn_ack_now(&c->conn);
}

/* Do len bytes hold the whole request? Chunks are not looked at: the answer is no. */
static bool
request_is_whole(const struct http_req *r, size_t len)
{
    switch (r->framing) {
    case HTTP_BODY_LENGTH: return len - r->head_len >= r->meta.content_length;
    case HTTP_BODY_CHUNKED: return false;
    case HTTP_BODY_NONE:
    case HTTP_BODY_CLOSE: break;
    }
    return true;
}

/* Looks for a head in s, which lies in *bp, or in c->in when bp is NULL. TAKEN: an exchange, a
 * refusal or the end of the client came of it; *bp is taken. */
static enum head_step LOOP_ONLY
try_head(struct client *c, struct str s, struct blk **bp)
{
    struct proxy *px = c->px;
    enum err e = ERR_OK;
    enum http_result r = HTTP_BAD;
    bool foreign = refuse_foreign(c, s);
    if (!foreign)
        r = http_req_parse(&px->req, s, &e);
    if (r == HTTP_MORE)
        return HEAD_MORE;
    if (r == HTTP_BAD) {
        if (!foreign)
            refuse(c, e, px->req.why, false);
        if (bp != NULL)
            blk_put(bp);
        return HEAD_TAKEN;
    }
    if (!request_is_whole(&px->req, s.len))
        ack_now(c);
    c->state = CLIENT_BUSY;
    c->served++;
    metric_inc(M_REQUESTS);
    struct blk *b = NULL;
    if (bp != NULL) {
        b = *bp;
        *bp = NULL;
        b->start += px->req.head_len;
    }
    exchange_start(c, &px->req, b);
    return HEAD_TAKEN;
}

/* An unfinished head waits in a buffer of its own size, not in a whole block. */
static enum head_step LOOP_ONLY
keep_part(struct client *c, struct str part)
{
    if (c->in.len == 0) {
        c->in_scanned = 0;
        ack_now(c);
        timer_arm_in(&c->timer, c->px->cfg->chmux.head_timeout);
    }
    buf_add(&c->in, part.p, part.len);
    if (buf_ok(&c->in))
        return HEAD_MORE;
    bool large = c->in.len + part.len > c->in.max;
    refuse(c, large ? ERR_TOO_LARGE : ERR_NOMEM, NULL, false);
    return HEAD_TAKEN;
}

static enum head_step LOOP_ONLY
got_bytes(struct client *c, struct blk **bp)
{
    struct str fresh = str_n((*bp)->data + (*bp)->start, blk_len(*bp));
    enum head_step r;
    if (c->in.len == 0) {
        r = try_head(c, fresh, bp);
        if (r == HEAD_MORE)
            r = keep_part(c, fresh);
    } else {
        r = keep_part(c, fresh);
        struct str all = str_n(c->in.p, c->in.len);
        if (r == HEAD_MORE && http_head_complete(all, &c->in_scanned))
            r = try_head(c, all, NULL);
    }
    blk_put(bp);
    return r;
}

static void LOOP_ONLY
read_head(struct client *c)
{
    /* Inside a head one look more is worth it: a reset that came with the bytes is seen only so. */
    while (c->state == CLIENT_IDLE &&
           (conn_readable(&c->conn) || (c->in.len > 0 && conn_worth_reading(&c->conn)))) {
        struct blk *b = blk_get();
        if (b == NULL) {
            refuse(c, ERR_NOMEM, NULL, false);
            return;
        }
        enum io r = conn_read(&c->conn, b->data, size_min(HEAD_READ_MAX, blk_cap()), &b->end);
        if (r != IO_OK) {
            blk_put(&b);
            if (r != IO_WAIT)
                client_close(c);
            return;
        }
        metric_add(M_BYTES_CLIENT_IN, (int64_t)b->end);
        if (got_bytes(c, &b) == HEAD_TAKEN)
            return;
    }
}

void
client_secured(struct client *c)
{
    c->state = CLIENT_IDLE;
    timer_arm_in(&c->timer, c->px->cfg->chmux.idle_timeout);
    if (c->px->draining && !c->px->listening)
        client_leave_soon(c);
    read_head(c);
}

/* After an exchange: what came behind its request first, then the socket. */
static void
on_next(void *arg)
{
    thr_check_loop();
    struct client *c = OBJ_CAST(struct client, arg, CLIENT_MAGIC);
    if (c->state == CLIENT_LINGER) {
        linger_step(c);
        return;
    }
    if (c->state != CLIENT_IDLE)
        return;
    if (c->in.len > 0) {
        timer_arm_in(&c->timer, c->px->cfg->chmux.head_timeout);
        c->in_scanned = 0;
        if (try_head(c, str_n(c->in.p, c->in.len), NULL) == HEAD_TAKEN)
            return;
    }
    read_head(c);
}

static void
on_stream(void *arg)
{
    thr_check_loop();
    struct client *c = OBJ_CAST(struct client, arg, CLIENT_MAGIC);
    loop_label(c->px->loop, "client");
    switch (c->state) {
    case CLIENT_SHAKING: shake_on_stream(c); break;
    case CLIENT_IDLE: read_head(c); break;
    case CLIENT_BUSY: exchange_on_client(c->ex); break;
    case CLIENT_LINGER: linger_step(c); break;
    case CLIENT_CUTTING: cut_on_stream(c); break;
    case CLIENT_CLOSED: break;
    }
}

static void
on_timer(void *arg)
{
    thr_check_loop();
    struct client *c = OBJ_CAST(struct client, arg, CLIENT_MAGIC);
    switch (c->state) {
    case CLIENT_SHAKING: shake_on_timer(c); break;
    case CLIENT_IDLE:
        if (c->in.len > 0)
            refuse(c, ERR_HEAD_TIMEOUT, NULL, false);
        else
            leave(c);
        break;
    case CLIENT_BUSY: exchange_on_timer(c->ex); break;
    case CLIENT_LINGER:
        if (conn_is_shutting_down(&c->conn) && !c->patient) {
            c->patient = true; /* a slow reader: the end of its answer waits for room */
            timer_arm_in(&c->timer, c->px->cfg->chmux.stall_timeout);
        } else {
            client_close(c);
        }
        break;
    case CLIENT_CUTTING: cut(c); break;
    case CLIENT_CLOSED: break;
    }
}

void
client_exchange_done(struct client *c, struct blk **rest, enum farewell how)
{
    CHECK(c->state == CLIENT_BUSY);
    c->ex = NULL;
    c->state = CLIENT_IDLE;
    switch (how) {
    case FAREWELL_KEEP: break;
    case FAREWELL_CLOSE:
        /* Unread bytes would make the kernel send a reset, which may eat the end of the answer. */
        if (conn_readable(&c->conn) || c->tls != NULL) /* close_notify may have to wait */
            how = FAREWELL_LINGER;
        break;
    case FAREWELL_RESET: conn_reset_on_close(&c->conn); break;
    case FAREWELL_LINGER:
    case FAREWELL_CUT:
    case FAREWELL_GONE: break;
    }
    if (how == FAREWELL_KEEP && blk_len(*rest) > 0) {
        buf_add(&c->in, (*rest)->data + (*rest)->start, blk_len(*rest));
        if (!buf_ok(&c->in))
            how = FAREWELL_LINGER;
    }
    blk_put(rest);
    if (how == FAREWELL_LINGER) {
        client_linger(c);
        return;
    }
    if (how == FAREWELL_CUT) {
        buf_fini(&c->in);
        cut(c);
        return;
    }
    if (how != FAREWELL_KEEP) {
        client_close(c);
        return;
    }
    if (c->in.len == 0 && (c->in.cap > 0 || !buf_ok(&c->in)))
        buf_fini(&c->in);
    timer_arm_in(&c->timer, c->px->cfg->chmux.idle_timeout);
    if (c->px->draining && !c->px->listening) /* its answer began before it could be told */
        client_leave_soon(c);
    if (c->in.len > 0 || conn_readable(&c->conn))
        loop_defer(c->px->loop, &c->task, on_next, c);
}
