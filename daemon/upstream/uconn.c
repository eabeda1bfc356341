/*
 * uconn: one upstream connection from connect() to close(): addresses tried in turn, TLS, probe,
 * idle watch.
 */
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "upstream/upool_impl.h"

#include "base/no_block.h"

#define SHORT_TRY_US     300000 /* for TCP to one address, while there are others to try */
#define USER_TIMEOUT_MS  30000  /* unacknowledged bytes of a small request */
#define PROBE_TIMEOUT_US 5000000
#define PROBE_TIGHT_US   1000000 /* in the last place of the pool, which others wait for */
#define TOO_LATE_US      1000    /* so little time before the deadline is no try */
#define CLOSE_GRACE_US   200000  /* for the server to notice that we closed */
#define RESET_GRACE_US   20000
#define FRESHLY_USED_US  1000000 /* younger idle connections are not peeked at before reuse */

static void on_stream(void *arg);
static void on_timeout(void *arg);
static void dial_next(struct uconn *uc) LOOP_ONLY;
static void idle_step(struct uconn *uc) LOOP_ONLY;

static void
on_free(void *arg)
{
    thr_check_loop();
    struct uconn *uc = OBJ_CAST(struct uconn, arg, UCONN_MAGIC);
    OBJ_POISON(uc);
    mem_free(uc);
}

/* The server may be busy and count this connection as open for a while: we do too. */
static bool LOOP_ONLY
close_later(struct uconn *uc)
{
    bool ours = uc->state == UCONN_IDLE || uc->state == UCONN_ACTIVE;
    if (!ours || uc->pool->stopping || uc->conn.peer_closed || uc->conn.sys_errno != 0)
        return false;
    upool_goto(uc, UCONN_CLOSING);
    if (uc->reset) {
        conn_reset_on_close(&uc->conn);
        conn_close(&uc->conn);
    } else {
        conn_shutdown(&uc->conn);
    }
    timer_arm_in(&uc->timer, uc->reset ? RESET_GRACE_US : CLOSE_GRACE_US);
    return true;
}

void
uconn_destroy(struct uconn *uc, enum metric_id reason)
{
    struct upool *p = uc->pool;
    LOG_D("upstream_closed conn=%" PRIu64 " address=%s served=%" PRIu64 " state=%d", uc->id,
        uc->addr == NULL ? "-" : uc->addr->text, uc->served, uc->state);
    if (uc->tcp_done && uc->state != UCONN_CLOSING) /* mere attempts are counted as such */
        metric_inc_in(uc->pool->metrics, reason);
    if (close_later(uc))
        return;
    upool_goto(uc, UCONN_CLOSED);
    conn_close(&uc->conn);
    timer_fini(&uc->timer);
    uaddr_unref(&uc->addr);
    uaddr_unref(&uc->pin);
    loop_defer(p->loop, &uc->free_task, on_free, uc);
    upool_kick(p); /* there is room for another */
}

static void
set_socket_options(int fd)
{
    int on = 1, idle = 15, interval = 5, count = 3, user_ms = USER_TIMEOUT_MS;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof interval);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof count);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &user_ms, sizeof user_ms);
}

static void
set_user_timeout(const struct uconn *uc, int64_t ms)
{
    int value = (int)ms;
    (void)setsockopt(uc->conn.fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &value, sizeof value);
}

void
uconn_expect_stall(struct uconn *uc)
{
    int64_t ms = uc->pool->stall_us / 1000;
    if (uc->patient || ms <= USER_TIMEOUT_MS)
        return;
    uc->patient = true;
    set_user_timeout(uc, ms);
}

/* Not as soon as the request was sent: its end may wait in the socket for a server that does not
 * read. */
static void LOOP_ONLY
expect_no_stall(struct uconn *uc)
{
    if (!uc->patient)
        return;
    uc->patient = false;
    set_user_timeout(uc, USER_TIMEOUT_MS);
}

bool
uconn_dial(struct upool *p, struct uaddr *pin, enum dial kind)
{
    struct uconn *uc = mem_zalloc(sizeof *uc);
    if (uc == NULL)
        return false;
    OBJ_INIT(uc, UCONN_MAGIC);
    uc->state = UCONN_CLOSED;
    uc->pool = p;
    uc->conn.fd = -1;
    uc->id = ++p->next_id;
    uc->probe = kind == DIAL_PROBE;
    uc->ahead = kind == DIAL_AHEAD;
    uc->pin = pin == NULL ? NULL : uaddr_ref(pin);
    timer_init(&uc->timer, p->loop, on_timeout, uc);
    if (!timer_reserve(&uc->timer)) {
        uaddr_unref(&uc->pin);
        mem_free(uc);
        return false;
    }
    uc->dial_start = loop_now(p->loop);
    uc->dial_deadline = mono_add_us(uc->dial_start, p->cfg->connect_timeout);
    snprintf(uc->why, sizeof uc->why, "no address");
    upool_goto(uc, uc->probe ? UCONN_PROBING : UCONN_CONNECTING);
    dial_next(uc);
    return true;
}

static void LOOP_ONLY
leave_address(struct uconn *uc)
{
    conn_close(&uc->conn);
    timer_disarm(&uc->timer);
    uc->tcp_done = uc->tls_done = false;
    if (uc->addr == NULL)
        return;
    uc->addr->connecting--;
    if (uc->probe)
        uaddr_probe_ended(uc->addr);
    uaddr_unref(&uc->addr);
}

void
uconn_abandon(struct uconn *uc)
{
    leave_address(uc);
    uconn_destroy(uc, M_CLOSE_ERROR);
}

/* The time is over: what it was spent on does not work. Those whose short try ended are still up.
 */
static void LOOP_ONLY
fail_silent(const struct uconn *uc)
{
    for (size_t i = 0; i < uc->pool->addr_end; i++) {
        struct uaddr *a = uc->pool->addrs[i];
        bool silent = (uc->had_try & ~uc->refused) >> i & 1;
        if (a != NULL && silent && a->state == UADDR_UP)
            uaddr_failed(a, "connection timed out");
    }
}

/* Gives the whole attempt up. */
static void LOOP_ONLY
dial_give_up(struct uconn *uc)
{
    struct upool *p = uc->pool;
    bool awaited = !uc->probe && !uc->ahead;
    char why[WHY_MAX];
    snprintf(why, sizeof why, "%s", uc->why);
    struct uaddr *pin = uc->pin == NULL ? NULL : uaddr_ref(uc->pin);
    bool starved = uc->starved;
    metric_inc_in(uc->pool->metrics, M_CONNECTS_FAILED);
    fail_silent(uc);
    uconn_destroy(uc, M_CLOSE_ERROR);
    if (starved)
        upool_dial_starved(p, why);
    else if (awaited)
        upool_dial_failed(p, pin, why);
    uaddr_unref(&pin);
}

/* For good, so it is ejected. */
static void LOOP_ONLY
refuse_address(struct uconn *uc)
{
    uc->refused |= 1ull << uc->addr->index;
    uc->addr->no_route = uc->no_route;
    uaddr_failed(uc->addr, uc->why);
}

static void LOOP_ONLY
note_errno(struct uconn *uc, int e)
{
    uc->no_route = e == ENETUNREACH || e == EHOSTUNREACH || e == EADDRNOTAVAIL || e == EAFNOSUPPORT;
    snprintf(uc->why, sizeof uc->why, "%s", strerror(e));
}

/* This address did not work, for good or only not in its short time: try the next. */
static void LOOP_ONLY
address_failed(struct uconn *uc, bool for_good)
{
    if (for_good)
        refuse_address(uc);
    else
        uc->addr->silent_at = loop_now(uc->pool->loop);
    leave_address(uc);
    dial_next(uc);
}

static int64_t LOOP_ONLY
time_left_us(const struct uconn *uc)
{
    return mono_diff_us(uc->dial_deadline, mono_now());
}

/* One part of so many; a short try at least. */
static int64_t
share_of(int64_t left_us, size_t parts)
{
    int64_t least = left_us < SHORT_TRY_US ? left_us : SHORT_TRY_US;
    int64_t part = left_us / (int64_t)parts;
    return part > least ? part : least;
}

/* The next address to try, and how long TCP may take; NULL: none is left, or no time. Each gets a
 * short try, then those that were silent share what time is left. */
static struct uaddr *LOOP_ONLY
next_address(struct uconn *uc, int64_t *slice_us)
{
    const struct upool *p = uc->pool;
    int64_t left = time_left_us(uc);
    if (left < TOO_LATE_US)
        return NULL;
    int64_t most_us = !uc->probe ? left : upool_is_full(p) ? PROBE_TIGHT_US : PROBE_TIMEOUT_US;
    *slice_us = left > most_us ? most_us : left;
    if (uc->pin != NULL)
        return uc->pin->gone || (uc->tried >> uc->pin->index & 1) ? NULL : uc->pin;
    struct uaddr *a = uaddr_pick(p, uc->tried, true);
    if (a == NULL && !uc->last_pass) {
        uc->last_pass = true;
        uc->tried = uc->refused;
        a = uaddr_pick(p, uc->tried, true);
    }
    if (a == NULL)
        return NULL;
    if (uc->last_pass)
        *slice_us = share_of(left, uaddr_count(p, uc->tried));
    else if (uaddr_count(p, uc->refused) > 1 && left > SHORT_TRY_US)
        *slice_us = SHORT_TRY_US;
    return a;
}

/* TCP stands: TLS may take all the time left, or half of it if another address can be tried. One
 * that is ejected is no reason to give up one that is not. */
static void LOOP_ONLY
give_time_for_tls(struct uconn *uc)
{
    const struct uaddr *a = uc->addr;
    if (uc->pin != NULL)
        return; /* it has all of it */
    int64_t left = time_left_us(uc);
    if (uaddr_pick(uc->pool, uc->refused | 1ull << a->index, a->state == UADDR_EJECTED) != NULL)
        left = share_of(left, 2);
    timer_arm_in(&uc->timer, left);
}

/* Is it we who lack something, not the server? */
static bool
is_want(int e)
{
    return e == EMFILE || e == ENFILE || e == ENOBUFS || e == ENOMEM;
}

/* All ports to this address are in use. For IPv6 it mostly means that this machine has none, as
 * with "localhost" in a container: there the address is what does not work. */
static bool
is_want_of_ports(const struct addr *to, int e)
{
    return e == EADDRNOTAVAIL && to->sa.sa_family == AF_INET;
}

/* Opens the socket and begins to connect; 0, or errno, and uc->why says it. */
static int LOOP_ONLY
begin_connect(struct uconn *uc)
{
    const struct addr *to = &uc->addr->addr;
    int e;
    uc->no_route = false;
    int fd = socket(to->sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        e = errno;
        goto say_why;
    }
    set_socket_options(fd);
    if (connect(fd, &to->sa, to->len) != 0 && errno != EINPROGRESS) {
        e = errno;
        goto close_fd;
    }
    if (!conn_open(&uc->conn, uc->pool->loop, fd, NULL, on_stream, uc)) {
        e = ENOMEM;
        goto close_fd;
    }
    return 0;
close_fd:
    close(fd);
say_why:
    note_errno(uc, e);
    return e;
}

/* This address cannot be tried now; true: nor can any other. */
static bool LOOP_ONLY
cannot_begin(struct uconn *uc, int e)
{
    bool want = is_want(e);
    if (want)
        uc->had_try = 0; /* it ends early, which says nothing about those that were silent */
    if (want || is_want_of_ports(&uc->addr->addr, e)) {
        uc->refused |= 1ull << uc->addr->index;
        uc->starved = true;
    } else {
        refuse_address(uc);
    }
    leave_address(uc);
    return want;
}

static void LOOP_ONLY
dial_next(struct uconn *uc)
{
    for (;;) {
        int64_t slice_us = 0;
        struct uaddr *a = next_address(uc, &slice_us);
        if (a == NULL)
            break;
        uc->tried |= 1ull << a->index;
        uc->had_try |= 1ull << a->index;
        uc->addr = uaddr_ref(a);
        a->connecting++;
        int e = begin_connect(uc);
        if (e == 0) {
            timer_arm_in(&uc->timer, slice_us);
            return;
        }
        if (cannot_begin(uc, e))
            break;
    }
    dial_give_up(uc);
}

static void LOOP_ONLY
dial_done(struct uconn *uc)
{
    struct upool *p = uc->pool;
    struct mono now = mono_now(); /* not loop_now: this very turn may have been half a handshake */
    metric_inc_in(uc->pool->metrics, M_CONNECTS);
    metric_observe_us(uc->pool->metrics, H_CONNECT, mono_diff_us(now, uc->dial_start));
    uc->addr->connecting--;
    p->starved = false;
    uc->retire_at = mono_add_us(now, random_jitter(p->cfg->max_age, 10));
    uc->idle_since = now;
    LOG_D("upstream_connected conn=%" PRIu64 " address=%s us=%" PRId64, uc->id, uc->addr->text,
        mono_diff_us(now, uc->dial_start));
    /* What began before the address was ejected says nothing about it now. */
    if (mono_diff_us(uc->addr->ejected_at, uc->dial_start) <= 0)
        uaddr_succeeded(uc->addr);
    timer_arm_in(&uc->timer, p->cfg->idle_timeout);
    upool_goto(uc, UCONN_IDLE);
    upool_kick(p);
    if (waitq_count(&p->q) == 0)
        idle_step(uc); /* the server's end may have come together with its yes */
}

/* A probe's connection stands: ask /ping. One small write into an empty socket buffer. */
static void LOOP_ONLY
probe_ask(struct uconn *uc)
{
    char ask[400];
    int len = snprintf(ask, sizeof ask,
        "GET /ping HTTP/1.1\r\nHost: %s\r\nUser-Agent: chmux\r\nConnection: close\r\n\r\n",
        uc->addr->ep->authority);
    struct iovec v = {.iov_base = ask, .iov_len = (size_t)len};
    size_t put = 0;
    if (conn_writev(&uc->conn, &v, 1, &put) == IO_ERROR) {
        snprintf(uc->why, sizeof uc->why, "%s", conn_why(&uc->conn));
        address_failed(uc, true);
    }
}

static void LOOP_ONLY
probe_answer(struct uconn *uc)
{
    char answer[64];
    size_t got = 0;
    enum io r = conn_read(&uc->conn, answer, sizeof answer, &got);
    if (r == IO_WAIT)
        return;
    if (r == IO_OK && got >= 12 && memcmp(answer, "HTTP/1.", 7) == 0 &&
        memcmp(answer + 8, " 200", 4) == 0) {
        struct uaddr *a = uc->addr;
        a->connecting--;
        a->probing = false;
        uaddr_succeeded(a);
        uconn_destroy(uc, M_CLOSE_SURPLUS);
        return;
    }
    snprintf(uc->why, sizeof uc->why, "/ping was not answered with 200");
    address_failed(uc, true);
}

static void LOOP_ONLY
tls_step(struct uconn *uc)
{
    const struct endpoint *ep = uc->addr->ep;
    enum io r = conn_handshake(&uc->conn, ep->server_name, uc->why, sizeof uc->why);
    if (r == IO_WAIT)
        return;
    if (r != IO_OK) {
        address_failed(uc, true);
        return;
    }
    if (uc->conn.ssl != NULL) {
        metric_inc_in(
            uc->pool->metrics, tls_was_resumed(uc->conn.ssl) ? M_TLS_RESUMED : M_TLS_FULL);
        metric_observe_us(uc->pool->metrics, H_TLS, mono_diff_us(mono_now(), uc->tls_start));
    }
    uc->tls_done = true;
    if (uc->probe)
        probe_ask(uc);
    else
        dial_done(uc);
}

static void LOOP_ONLY
tcp_step(struct uconn *uc)
{
    int e = 0;
    socklen_t len = sizeof e;
    if (getsockopt(uc->conn.fd, SOL_SOCKET, SO_ERROR, &e, &len) != 0)
        e = errno;
    struct sockaddr_storage peer;
    len = sizeof peer;
    if (e == 0 && getpeername(uc->conn.fd, (struct sockaddr *)&peer, &len) != 0) {
        if (errno == ENOTCONN)
            return; /* woken early: still connecting */
        e = errno;
    }
    if (e != 0) {
        note_errno(uc, e);
        address_failed(uc, true);
        return;
    }
    uc->tcp_done = true;
    const struct endpoint *ep = uc->addr->ep;
    if (ep->url.tls) {
        SSL *ssl = tls_session(uc->pool->tls, uc->conn.fd, ep->server_name);
        if (ssl == NULL) {
            snprintf(uc->why, sizeof uc->why, "no memory for a TLS session");
            address_failed(uc, true);
            return;
        }
        conn_start_tls(&uc->conn, ssl);
        uc->tls_start = loop_now(uc->pool->loop);
        give_time_for_tls(uc);
    }
    tls_step(uc);
}

static bool LOOP_ONLY
is_rested(const struct uconn *uc)
{
    return mono_diff_us(loop_now(uc->pool->loop), uc->idle_since) > FRESHLY_USED_US;
}

/* An idle connection has no business being readable: the server closed it, or talks nonsense. TLS
 * session tickets are fine. */
static void LOOP_ONLY
idle_step(struct uconn *uc)
{
    if (!conn_readable(&uc->conn) || conn_peek(&uc->conn) == IO_WAIT)
        return;
    /* Accepted only to be closed: without a limit, keeping connections warm would be a storm. */
    if (uc->served == 0 && !is_rested(uc))
        uconn_died_unanswered(uc);
    uconn_destroy(uc, M_STALE);
}

/* What a server still sends to a closing connection is of no use; its end is. */
static void LOOP_ONLY
closing_step(struct uconn *uc)
{
    char sink[4096];
    size_t n = 0;
    enum io r = IO_OK;
    for (int i = 0; i < 16 && r == IO_OK; i++)
        r = conn_read(&uc->conn, sink, sizeof sink, &n);
    if (uc->conn.peer_closed || r == IO_EOF || r == IO_ERROR)
        uconn_destroy(uc, M_CLOSE_ERROR);
}

static void
on_stream(void *arg)
{
    thr_check_loop();
    struct uconn *uc = OBJ_CAST(struct uconn, arg, UCONN_MAGIC);
    loop_label(uc->pool->loop, "upstream");
    switch (uc->state) {
    case UCONN_CONNECTING:
    case UCONN_PROBING:
        if (!uc->tcp_done)
            tcp_step(uc);
        else if (!uc->tls_done)
            tls_step(uc);
        else
            probe_answer(uc);
        break;
    case UCONN_IDLE: idle_step(uc); break;
    case UCONN_ACTIVE: uc->handler(uc->handler_arg); break;
    case UCONN_CLOSING: closing_step(uc); break;
    case UCONN_CLOSED: break;
    }
}

static void
on_timeout(void *arg)
{
    thr_check_loop();
    struct uconn *uc = OBJ_CAST(struct uconn, arg, UCONN_MAGIC);
    switch (uc->state) {
    case UCONN_CONNECTING:
    case UCONN_PROBING: {
        bool final = uc->tcp_done || uc->last_pass || uc->pin != NULL;
        snprintf(uc->why, sizeof uc->why, "%s",
            !uc->tcp_done   ? "connection timed out"
            : !uc->tls_done ? "TLS handshake timed out"
                            : "/ping timed out");
        address_failed(uc, final);
        break;
    }
    case UCONN_IDLE: {
        bool old = mono_diff_us(uc->retire_at, loop_now(uc->pool->loop)) <= 0;
        uconn_destroy(uc, old ? M_CLOSE_AGE : M_CLOSE_IDLE);
        break;
    }
    case UCONN_CLOSING: uconn_destroy(uc, M_CLOSE_ERROR); break;
    case UCONN_ACTIVE:
    case UCONN_CLOSED: break;
    }
}

bool
uconn_is_fit(struct uconn *uc)
{
    /* The event that tells of a close may still be on its way to us, or have come while it was
     * leased. A connection that served nothing yet goes to who waits for it as it is: if the server
     * closes all that it accepts, the waiter must hear of it. */
    bool doubtful = is_rested(uc) || (uc->served > 0 && conn_readable(&uc->conn));
    if (!uc->addr->gone && (!doubtful || conn_peek(&uc->conn) == IO_WAIT))
        return true;
    uconn_destroy(uc, uc->addr->gone ? M_CLOSE_SURPLUS : M_STALE);
    return false;
}

static bool LOOP_ONLY
take_idle(struct uconn *uc, bool pinned)
{
    if (!uconn_is_fit(uc))
        return false;
    uc->pinned = pinned;
    upool_goto(uc, UCONN_ACTIVE);
    return true;
}

struct uconn *
upool_try_lease(struct upool *p, struct uaddr *pin, uint64_t prefer_id)
{
    if (waitq_count(&p->q) > 0 || p->paused)
        return NULL;
    if (prefer_id != 0) {
        LIST_EACH (node, &p->idle) {
            struct uconn *uc = CONTAINER_OF(node, struct uconn, link);
            if (uc->id != prefer_id || (pin != NULL && uc->addr != pin))
                continue;
            if (take_idle(uc, pin != NULL))
                return uc;
            break;
        }
    }
    struct uaddr *least = pin != NULL ? pin : uaddr_pick(p, 0, false);
    struct uconn *other = NULL;
    LIST_EACH_SAFE (node, next, &p->idle) {
        struct uconn *uc = CONTAINER_OF(node, struct uconn, link);
        if (pin != NULL && uc->addr != pin)
            continue;
        if (uc->addr != least) { /* a busier server: only if the better one has nothing ready */
            other = other == NULL ? uc : other;
            continue;
        }
        if (take_idle(uc, pin != NULL))
            return uc;
    }
    if (other == NULL || !take_idle(other, pin != NULL))
        return NULL;
    /* Served at once by a busier server; the next one finds the better one warm. */
    if (least != NULL && least->connecting == 0 && upool_may_dial(p) && !p->draining)
        (void)!uconn_dial(p, least, DIAL_AHEAD);
    return other;
}

/* Does this one, just released, not go back to the pool, and as what does that count? */
static bool LOOP_ONLY
must_go(struct uconn *uc, const struct uconn_end *end, int64_t age_left_us, enum metric_id *reason)
{
    struct upool *p = uc->pool;
    if (age_left_us <= 0)
        *reason = M_CLOSE_AGE;
    else if (end->max_left == 0)
        *reason = M_CLOSE_MAX;
    else if (p->stopping || (p->draining && waitq_count(&p->q) == 0))
        *reason = M_CLOSE_SHUTDOWN;
    else if (uc->retiring)
        *reason = uc->retire_as;
    else if (uc->addr->gone || upool_is_over(p))
        *reason = M_CLOSE_SURPLUS;
    else if (upool_needs_room_of(p, uc))
        *reason = M_CLOSE_REBALANCE;
    else
        return false;
    return true;
}

void
uconn_release(struct uconn *uc, const struct uconn_end *end)
{
    struct upool *p = uc->pool;
    struct mono now = loop_now(p->loop);
    CHECK(uc->state == UCONN_ACTIVE);
    uc->served++;
    conn_read_done(&uc->conn);
    uc->addr->unanswered = 0;
    uc->idle_since = now;
    int64_t life_us = p->cfg->idle_timeout;
    if (end->keep_alive_us > 0) {
        /* A server with a very short limit still leaves half of it. */
        int64_t limit_us = end->keep_alive_us - p->cfg->keepalive_margin;
        if (limit_us < end->keep_alive_us / 2)
            limit_us = end->keep_alive_us / 2;
        life_us = limit_us < life_us ? limit_us : life_us;
    }
    int64_t age_left_us = mono_diff_us(uc->retire_at, now);
    enum metric_id reason;
    if (must_go(uc, end, age_left_us, &reason)) {
        uconn_destroy(uc, reason);
        return;
    }
    expect_no_stall(uc);
    timer_arm_in(&uc->timer, life_us < age_left_us ? life_us : age_left_us);
    upool_goto(uc, UCONN_IDLE);
    if (waitq_count(&p->q) > 0)
        upool_kick(p);
    else if (UNLIKELY(conn_readable(&uc->conn)))
        idle_step(uc); /* something came behind the response's end */
}

void
uconn_new_limits(struct uconn *uc, int64_t older)
{
    struct upool *p = uc->pool;
    uc->retire_at = mono_add_us(uc->retire_at, older);
    if (uc->state != UCONN_IDLE)
        return;
    /* What the server allows is in the deadline already: it only comes closer. */
    struct mono idle_end = mono_add_us(uc->idle_since, p->cfg->idle_timeout);
    int64_t due = uc->timer.due_us;
    due = idle_end.us < due ? idle_end.us : due;
    due = uc->retire_at.us < due ? uc->retire_at.us : due;
    timer_arm(&uc->timer, (struct mono){due});
}

void
uconn_reset_on_close(struct uconn *uc)
{
    uc->reset = true;
}

void
uconn_close(struct uconn *uc, enum metric_id reason)
{
    CHECK(uc->state == UCONN_ACTIVE);
    uconn_destroy(uc, reason);
}

struct conn *
uconn_stream(struct uconn *uc)
{
    return &uc->conn;
}

void
uconn_set_handler(struct uconn *uc, conn_fn fn, void *arg)
{
    uc->handler = fn;
    uc->handler_arg = arg;
}

bool
uconn_is_reused(const struct uconn *uc)
{
    return uc->served > 0;
}

uint64_t
uconn_id(const struct uconn *uc)
{
    return uc->id;
}

struct uaddr *
uconn_addr(const struct uconn *uc)
{
    return uc->addr;
}
