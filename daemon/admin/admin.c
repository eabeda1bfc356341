#include "admin/admin.h"

#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "http/http.h"

#include "base/no_block.h"

#define HEAD_MAX       16384
#define ANSWER_MAX     (4 << 20)
#define CLIENT_LIFE_US 10000000
#define SPARE_IN       4096
#define ADMIN_MAGIC    0x61646d6eu

struct admin {
    struct loop *loop;
    struct proxy *px;
    struct upool *pool;
    struct listener listener;
    struct list clients;
    size_t count;
    struct http_req req; /* scratch */
    struct str busy;
    /* Taken at boot, so that one client at a time is answered though the budget is spent: just then
     * somebody wants to know, and a probe that fails would have us restarted. */
    struct buf body, spare_in, spare_out;
};

struct admin_client {
    uint32_t magic;
    bool closed, has_spare;
    struct admin *admin;
    struct conn conn;
    struct timer timer;
    struct list link;
    struct loop_task free_task;
    struct buf in, out;
    size_t sent;
};

static void
on_free(void *arg)
{
    thr_check_loop();
    struct admin_client *c = OBJ_CAST(struct admin_client, arg, ADMIN_MAGIC);
    buf_fini(&c->in);
    buf_fini(&c->out);
    OBJ_POISON(c);
    mem_free(c);
}

static void
swap_bufs(struct buf *a, struct buf *b)
{
    struct buf t = *a;
    *a = *b;
    *b = t;
}

static void LOOP_ONLY
close_client(struct admin_client *c)
{
    if (c->closed)
        return;
    c->closed = true;
    conn_close(&c->conn);
    timer_fini(&c->timer);
    list_remove(&c->link);
    c->admin->count--;
    if (c->has_spare) {
        c->in.len = c->out.len = 0;
        c->in.failed = c->out.failed = false;
        swap_bufs(&c->in, &c->admin->spare_in);
        swap_bufs(&c->out, &c->admin->spare_out);
    }
    loop_defer(c->admin->loop, &c->free_task, on_free, c);
}

static void
put_answer(struct buf *out, int status, const char *type, struct str body, bool head)
{
    buf_addf(out,
        "HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\nCache-Control: no-store\r\n"
        "Connection: close\r\n\r\n",
        status, http_reason(status), type, body.len);
    if (!head)
        buf_str(out, body);
}

static void LOOP_ONLY
update_gauges(struct admin *a)
{
    struct upool_stats st;
    upool_stats(a->pool, &st);
    upool_update_metrics(a->pool);
    proxy_update_metrics(a->px);
    metric_set(M_QUEUED, (int64_t)(st.waiting + proxy_sessions_waiting(a->px)));
    metric_set(M_MEMORY_USED, (int64_t)mem_used());
    metric_set(M_MEMORY_LIMIT, (int64_t)mem_limit());
    metric_set(M_LOG_DROPPED, (int64_t)log_dropped());
}

static void LOOP_ONLY
answer(struct admin_client *c, const struct http_req *r)
{
    static const char text[] = "text/plain; charset=utf-8";
    struct admin *a = c->admin;
    bool head = r->method == HTTP_M_HEAD;
    if (r->method != HTTP_M_GET && !head) {
        put_answer(&c->out, 405, text, STR("only GET and HEAD\n"), false);
    } else if (str_eq(r->target, STR("/live"))) {
        put_answer(&c->out, 200, text, STR("ok\n"), head);
    } else if (str_eq(r->target, STR("/ready")) || str_eq(r->target, STR("/ready?upstream"))) {
        if (proxy_is_draining(a->px))
            put_answer(&c->out, 503, text, STR("draining\n"), head);
        else if (r->target.len > 6 && !upool_seems_up(a->pool))
            put_answer(&c->out, 503, text, STR("no upstream address works\n"), head);
        else
            put_answer(&c->out, 200, text, STR("ok\n"), head);
    } else if (str_eq(r->target, STR("/metrics"))) {
        update_gauges(a);
        a->body.len = 0;
        metric_print(&a->body);
        put_answer(&c->out, 200, "text/plain; version=0.0.4; charset=utf-8",
            str_n(a->body.p, a->body.len), head);
        c->out.failed |= !buf_ok(&a->body); /* better no answer than a part of one */
        a->body.failed = false;
    } else {
        put_answer(&c->out, 404, text,
            STR("here are /live, /ready, /ready?upstream and /metrics\n"), head);
    }
}

static void LOOP_ONLY
flush(struct admin_client *c)
{
    while (c->sent < c->out.len) {
        struct iovec v = {c->out.p + c->sent, c->out.len - c->sent};
        size_t n = 0;
        enum io r = conn_writev(&c->conn, &v, 1, &n);
        if (r == IO_WAIT)
            return;
        if (r != IO_OK)
            break;
        c->sent += n;
    }
    close_client(c);
}

static void LOOP_ONLY
read_request(struct admin_client *c)
{
    while (conn_readable(&c->conn)) {
        char part[4096];
        size_t n = 0;
        enum io r = conn_read(&c->conn, part, sizeof part, &n);
        if (r == IO_WAIT)
            return;
        if (r != IO_OK) {
            close_client(c);
            return;
        }
        buf_add(&c->in, part, n);
        enum err e = ERR_OK;
        enum http_result h = HTTP_BAD;
        if (buf_ok(&c->in))
            h = http_req_parse(&c->admin->req, str_n(c->in.p, c->in.len), &e);
        if (h == HTTP_MORE)
            continue;
        if (h == HTTP_OK)
            answer(c, &c->admin->req);
        else
            put_answer(&c->out, 400, "text/plain", STR("bad request\n"), false);
        if (buf_ok(&c->out))
            flush(c);
        else
            close_client(c);
        return;
    }
}

static void
on_stream(void *arg)
{
    thr_check_loop();
    struct admin_client *c = OBJ_CAST(struct admin_client, arg, ADMIN_MAGIC);
    loop_label(c->admin->loop, "admin");
    if (c->closed)
        return;
    if (c->out.len > 0)
        flush(c);
    else
        read_request(c);
}

static void
on_timeout(void *arg)
{
    thr_check_loop();
    close_client(OBJ_CAST(struct admin_client, arg, ADMIN_MAGIC));
}

static void
on_accept(void *arg, int fd, const struct addr *peer)
{
    thr_check_loop();
    (void)peer;
    struct admin *a = arg;
    struct admin_client *c = a->count < ADMIN_CLIENTS_MAX ? mem_zalloc(sizeof *c) : NULL;
    if (c == NULL) {
        (void)send(fd, a->busy.p, a->busy.len, MSG_NOSIGNAL);
        close(fd);
        return;
    }
    OBJ_INIT(c, ADMIN_MAGIC);
    c->admin = a;
    buf_init(&c->in, HEAD_MAX);
    buf_init(&c->out, ANSWER_MAX + 1024);
    timer_init(&c->timer, a->loop, on_timeout, c);
    if (!timer_reserve(&c->timer) || !conn_open(&c->conn, a->loop, fd, NULL, on_stream, c)) {
        timer_fini(&c->timer);
        mem_free(c);
        close(fd);
        return;
    }
    c->has_spare = a->spare_in.cap > 0;
    if (c->has_spare) {
        swap_bufs(&c->in, &a->spare_in);
        swap_bufs(&c->out, &a->spare_out);
    }
    a->count++;
    list_push_back(&a->clients, &c->link);
    timer_arm_in(&c->timer, CLIENT_LIFE_US);
}

/* Every counter may grow by some digits yet. */
static bool LOOP_ONLY
reserve_spare(struct admin *a)
{
    buf_init(&a->body, ANSWER_MAX);
    buf_init(&a->spare_in, HEAD_MAX);
    buf_init(&a->spare_out, ANSWER_MAX + 1024);
    metric_print(&a->body);
    size_t size = a->body.len * 2;
    return buf_reserve(&a->body, size) && buf_reserve(&a->spare_in, SPARE_IN) &&
           buf_reserve(&a->spare_out, size);
}

static bool LOOP_ONLY
open_listener(
    struct admin *a, const char *address, struct passed *passed, char *why, size_t why_len)
{
    struct listener_options o = {.backlog = 128, .mode = 0660};
    const char *parse_why = "";
    struct passed_socket *s = passed_find(passed, PASSED_ADMIN);
    if (address[0] != '\0' && !addr_parse(str_of(address), &o.addr, &parse_why)) {
        snprintf(why, why_len, "[admin] address %s: %s", address, parse_why);
        return false;
    }
    if (s == NULL)
        return listener_open(&a->listener, &o, why, why_len);
    if (address[0] != '\0' && !addr_eq(&o.addr, &s->addr)) {
        char text[ADDR_TEXT_MAX];
        addr_format(&s->addr, text);
        snprintf(why, why_len,
            "[admin] address is %s, but the socket passed as \"%s\" is %s; make them agree, or "
            "leave the address out",
            address, PASSED_ADMIN, text);
        return false;
    }
    passed_claim(s, &a->listener, false);
    if (passed_find(passed, PASSED_ADMIN) == NULL)
        return true;
    snprintf(why, why_len, "more than one socket was passed as \"%s\"", PASSED_ADMIN);
    return false;
}

struct admin *
admin_new(struct loop *l, const struct config *cfg, struct proxy *px, struct upool *pool,
    struct passed *passed, char *why, size_t why_len)
{
    struct admin *a = mem_zalloc(sizeof *a);
    if (a == NULL) {
        snprintf(why, why_len, "out of memory");
        return NULL;
    }
    a->loop = l;
    a->px = px;
    a->pool = pool;
    a->busy =
        STR("HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
    a->listener.fd = -1;
    list_init(&a->clients);
    http_req_init(&a->req);
    if (!reserve_spare(a)) {
        snprintf(why, why_len, "out of memory");
        goto fail;
    }
    if (!open_listener(a, cfg->admin.address, passed, why, why_len))
        goto fail;
    if (!listener_start(&a->listener, l, a->busy, on_accept, a)) {
        snprintf(why, why_len, "out of memory");
        goto fail;
    }
    return a;
fail:
    admin_free(&a);
    return NULL;
}

const char *
admin_address(const struct admin *a)
{
    return a->listener.text;
}

void
admin_free(struct admin **ap)
{
    struct admin *a = *ap;
    if (a == NULL)
        return;
    *ap = NULL;
    listener_close(&a->listener);
    LIST_EACH_SAFE (node, next, &a->clients) {
        struct admin_client *c = CONTAINER_OF(node, struct admin_client, link);
        close_client(c);
        loop_undefer(&c->free_task);
        on_free(c);
    }
    http_req_fini(&a->req);
    buf_fini(&a->body);
    buf_fini(&a->spare_in);
    buf_fini(&a->spare_out);
    mem_free(a);
}
