/*
 * shake: TLS handshakes with clients. Each costs near a millisecond of CPU (docs/USAGE.md), so only
 * a few are taken further at each turn of the loop: who is served already must not wait for a crowd
 * at the door. A client has no TLS state before its first byte is here,
 * and while max_handshakes others are at it, its bytes stay in the socket.
 */
#include <sys/socket.h>

#include "proxy/proxy_impl.h"

#include "base/no_block.h"

#define SHAKES_PER_TURN 4
#define TLS_HANDSHAKE   0x16 /* first byte of a client's first record */
#define WHY_MAX         400

static void on_turn(void *arg);

void
shakes_init(struct shakes *s)
{
    list_init(&s->ready);
    list_init(&s->waiting);
}

static void LOOP_ONLY
make_ready(struct client *c)
{
    struct shakes *s = &c->px->shakes;
    list_push_back(&s->ready, &c->shake_link);
    loop_defer(c->px->loop, &s->task, on_turn, c->px);
}

static void LOOP_ONLY
tell(const struct shakes *s)
{
    metric_set(M_TLS_IN_RUNNING, (int64_t)s->running);
    metric_set(M_TLS_IN_WAITING, (int64_t)s->queued);
}

void
shake_leave(struct client *c)
{
    struct shakes *s = &c->px->shakes;
    if (list_linked(&c->shake_link)) {
        list_remove(&c->shake_link);
        s->queued -= c->shake_queued;
        c->shake_queued = false;
    }
    if (c->shaking) {
        c->shaking = false;
        s->running--;
    }
    struct list *next = list_first(&s->waiting);
    if (next != NULL && s->running < (size_t)c->px->cfg->chmux.max_handshakes) {
        struct client *w = CONTAINER_OF(next, struct client, shake_link);
        list_remove(next);
        s->queued--;
        w->shake_queued = false;
        make_ready(w);
    }
    tell(s);
}

static void LOOP_ONLY
note(struct client *c, const char *why)
{
    struct error_entry e = {.at = loop_now(c->px->loop), .token = "tls_handshake", .client = c->id};
    snprintf(e.detail, sizeof e.detail, "%s", why);
    client_peer(c, e.peer);
    errors_note(&c->px->errors, &e);
    LOG_D("client_tls_failed client=%" PRIu64 " why=\"%s\"", c->id, why);
}

/* Makes the TLS session once the client has spoken. false: not yet, or never. */
static bool LOOP_ONLY
begin(struct client *c)
{
    struct shakes *s = &c->px->shakes;
    char first;
    ssize_t n = recv(c->conn.fd, &first, 1, MSG_PEEK);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return false;
    if (n <= 0) {
        client_close(c);
        return false;
    }
    if (first != TLS_HANDSHAKE) {
        metric_inc(M_TLS_IN_PLAIN);
        client_refuse_plain(c, first);
        return false;
    }
    if (s->running >= (size_t)c->px->cfg->chmux.max_handshakes) {
        list_push_back(&s->waiting, &c->shake_link);
        c->shake_queued = true;
        s->queued++;
        tell(s);
        return false;
    }
    SSL *ssl = tls_server_session(c->tls, c->conn.fd);
    if (ssl == NULL) {
        metric_inc(M_REFUSED_MEMORY);
        note(c, err_info(ERR_NOMEM)->text);
        struct str alert = door_busy_reply(c->px, c->door);
        (void)send(c->conn.fd, alert.p, alert.len, MSG_NOSIGNAL);
        client_linger(c);
        return false;
    }
    conn_start_tls(&c->conn, ssl);
    c->shaking = true;
    s->running++;
    tell(s);
    return true;
}

static void LOOP_ONLY
done(struct client *c)
{
    struct tls_peer cert;
    metric_inc(tls_was_resumed(c->conn.ssl) ? M_TLS_IN_RESUMED : M_TLS_IN_FULL);
    metric_observe_us(0, H_TLS_ACCEPT, mono_diff_us(mono_now(), c->since));
    shake_leave(c);
    if (tls_peer_get(c->conn.ssl, &cert)) {
        c->cert = mem_alloc(sizeof *c->cert);
        if (c->cert == NULL) { /* without it, it would count as somebody else */
            metric_inc(M_REFUSED_MEMORY);
            client_close(c);
            return;
        }
        *c->cert = cert;
    }
    client_secured(c);
}

/* Is this client's part of the turn one that costs? */
static bool LOOP_ONLY
step(struct client *c)
{
    char why[WHY_MAX] = "";
    if (c->conn.ssl == NULL && !begin(c))
        return false;
    switch (conn_handshake(&c->conn, NULL, why, sizeof why)) {
    case IO_WAIT: break;
    case IO_OK: done(c); break;
    case IO_EOF:
    case IO_ERROR:
        metric_inc(M_TLS_IN_FAILED);
        note(c, why);
        shake_leave(c);
        conn_stop_tls(&c->conn);
        client_linger(c); /* the alert that tells the client why must reach it */
        break;
    }
    return true;
}

static void
on_turn(void *arg)
{
    thr_check_loop();
    struct proxy *px = arg;
    struct shakes *s = &px->shakes;
    struct list *node;
    loop_label(px->loop, "handshake");
    for (int costs = 0; costs < SHAKES_PER_TURN && (node = list_first(&s->ready)) != NULL;) {
        list_remove(node);
        costs += step(CONTAINER_OF(node, struct client, shake_link));
    }
    if (!list_empty(&s->ready))
        loop_defer(px->loop, &s->task, on_turn, px);
}

void
shake_on_stream(struct client *c)
{
    if (!list_linked(&c->shake_link))
        make_ready(c);
    else if (c->conn.ssl == NULL && c->conn.peer_closed)
        client_close(c); /* gave up before its turn came */
}

void
shake_on_timer(struct client *c)
{
    if (!c->px->draining) {
        metric_inc(M_TLS_IN_TIMEOUT);
        note(c, c->conn.ssl == NULL ? "no TLS handshake began in time (head_timeout)"
                                    : "the TLS handshake did not end in time (head_timeout)");
    }
    client_close(c);
}
