#include "admin/admin.h"

#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "admin/admin_impl.h"
#include "admin/admin_page.h"
#include "base/log.h"
#include "base/mem.h"

#include "base/no_block.h"

#define HEAD_MAX       16384
#define ANSWER_MAX     (4 << 20)
#define CLIENT_LIFE_US 10000000
#define RELOAD_LIFE_US 120000000 /* of who waits for the end of a reload, or of two */
#define SPARE_IN       4096
#define LENGTH_DIGITS  10 /* of Content-Length, filled in when the body is written */
#define ADMIN_MAGIC    0x61646d6eu

#define TEXT "text/plain; charset=utf-8"

struct admin_client {
    uint32_t magic;
    bool closed, has_spare;
    struct admin *admin;
    struct admin_caller who;
    struct conn conn;
    struct timer timer;
    struct list link;
    struct loop_task free_task;
    struct buf in, out;
    size_t sent;
    uint64_t waits_for; /* the reload whose end it is told; 0: none */
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
    struct admin *a = c->admin;
    a->count--;
    if (c->has_spare) {
        c->in.len = c->out.len = 0;
        c->in.failed = c->out.failed = false;
        buf_shrink(&c->in, SPARE_IN);
        buf_shrink(&c->out, a->spare_size);
        swap_bufs(&c->in, &a->spare_in);
        swap_bufs(&c->out, &a->spare_out);
    }
    a->body.len = 0; /* whoever wrote it has copied it */
    buf_shrink(&a->body, a->spare_size);
    loop_defer(a->loop, &c->free_task, on_free, c);
}

/* The head of an answer whose body is written behind it, with more fields (whole lines, or "");
 * returns where the length goes. */
static size_t
begin_answer(struct buf *out, int status, const char *type, const char *fields)
{
    buf_addf(out, "HTTP/1.1 %d %s\r\nContent-Type: %s\r\n%sContent-Length: ", status,
        http_reason(status), type, fields);
    size_t length_at = out->len;
    buf_addf(out,
        "%*s\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n"
        "Connection: close\r\n\r\n",
        LENGTH_DIGITS, "");
    return length_at;
}

static void
end_answer(struct buf *out, size_t length_at, size_t body_at, bool head)
{
    char digits[LENGTH_DIGITS + 1];
    if (!buf_ok(out))
        return;
    snprintf(digits, sizeof digits, "%*zu", LENGTH_DIGITS, out->len - body_at);
    memcpy(out->p + length_at, digits, LENGTH_DIGITS);
    if (head)
        out->len = body_at;
}

static void
put_answer(struct buf *out, int status, const char *type, struct str body, bool head)
{
    size_t length_at = begin_answer(out, status, type, ""), body_at = out->len;
    buf_str(out, body);
    end_answer(out, length_at, body_at, head);
}

void
admin_update_gauges(struct admin *a)
{
    upools_update_metrics(a->pools);
    proxy_update_metrics(a->px);
    metric_set(M_MEMORY_USED, (int64_t)mem_used());
    metric_set(M_MEMORY_LIMIT, (int64_t)mem_limit());
    metric_set(M_CODEC_MEMORY_LIMIT, (int64_t)mem_long_limit());
    metric_set(M_CLIENTS_MAX, a->cfg->chmux.max_clients);
    metric_set(M_ADMIN_CLIENTS, (int64_t)a->count);
    metric_set(M_LOG_DROPPED, (int64_t)log_dropped());
}

static void LOOP_ONLY
answer_metrics(struct admin_client *c, bool head)
{
    struct admin *a = c->admin;
    admin_update_gauges(a);
    a->body.len = 0;
    metric_print(&a->body);
    admin_print_process(&a->body, a->started_s);
    proxy_print_metrics(a->px, &a->body);
    put_answer(&c->out, 200, "text/plain; version=0.0.4; charset=utf-8",
        str_n(a->body.p, a->body.len), head);
    c->out.failed |= !buf_ok(&a->body); /* better no answer than a part of one */
    a->body.failed = false;
}

static void LOOP_ONLY
answer_ready(struct admin_client *c, const struct admin_call *call, bool head)
{
    struct admin *a = c->admin;
    const char *name = call->upstream_name;
    const struct upool *one = name[0] == '\0' ? NULL : upools_find(a->pools, name);
    if (name[0] != '\0' && one == NULL)
        put_answer(&c->out, 404, TEXT, STR("there is no upstream of that name\n"), head);
    else if (proxy_is_draining(a->px))
        put_answer(&c->out, 503, TEXT, STR("draining\n"), head);
    else if (one != NULL && !upool_seems_up(one))
        put_answer(&c->out, 503, TEXT, STR("no address of that upstream works\n"), head);
    else if (call->upstream && !upools_seem_up(a->pools))
        put_answer(&c->out, 503, TEXT, STR("no upstream address works\n"), head);
    else
        put_answer(&c->out, 200, TEXT, STR("ok\n"), head);
}

/* The body is in a->body. */
static void LOOP_ONLY
end_control(struct admin_client *c, enum admin_command_id id, int status)
{
    struct admin *a = c->admin;
    buf_str(&a->body, STR("\n"));
    put_answer(&c->out, status, "application/json", str_n(a->body.p, a->body.len), false);
    c->out.failed |= !buf_ok(&a->body);
    a->body.failed = false;
    metric_inc(status == 200 ? M_ADMIN_OK : M_ADMIN_FAILED);
    LOG_I("admin_command command=%s status=%d from=%s uid=%" PRId64 " pid=%" PRId64,
        admin_commands[id].path + sizeof ADMIN_API - 1, status, c->who.is_unix ? "unix" : "tcp",
        c->who.uid, c->who.pid);
}

/* What a command says is written before its status is known, and moved behind the head then. */
static struct admin_done LOOP_ONLY
answer_control(struct admin_client *c, const struct admin_call *call)
{
    struct admin *a = c->admin;
    struct jsonw j;
    a->body.len = 0;
    jsonw_init(&j, &a->body);
    struct admin_done done = admin_control(a, call, &j);
    c->waits_for = done.reload;
    if (done.reload != 0)
        timer_arm_in(&c->timer, RELOAD_LIFE_US);
    else
        end_control(c, call->id, done.status);
    return done;
}

static void LOOP_ONLY
answer_show(struct admin_client *c, const struct admin_call *call, bool head)
{
    struct jsonw j;
    size_t length_at = begin_answer(&c->out, 200, "application/json", ""), body_at = c->out.len;
    jsonw_init(&j, &c->out);
    admin_show(c->admin, call, &c->who, &j);
    CHECK(jsonw_whole(&j) || !buf_ok(&c->out));
    buf_str(&c->out, STR("\n"));
    end_answer(&c->out, length_at, body_at, head);
}

/* A page of ours may load from here and ask here, and nothing else: not even a bug in it could send
 * anywhere what it shows. */
static void LOOP_ONLY
answer_page(struct admin_client *c, const struct admin_page *page, bool head)
{
    size_t length_at = begin_answer(&c->out, 200, page->type,
        "Content-Security-Policy: default-src 'none'; script-src 'self'; style-src 'self'; "
        "img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'\r\n"
        "Cross-Origin-Resource-Policy: same-origin\r\nReferrer-Policy: no-referrer\r\n"
        "X-Frame-Options: DENY\r\n");
    size_t body_at = c->out.len;
    buf_str(&c->out, page->body);
    end_answer(&c->out, length_at, body_at, head);
}

static void LOOP_ONLY
answer_refusal(struct admin_client *c, const struct http_req *r, const struct admin_refusal *no)
{
    const struct admin_caller *who = &c->who;
    if (no->denied && r->method == HTTP_M_POST) {
        metric_inc(M_ADMIN_DENIED);
        LOG_W("admin_denied error=%s from=%s uid=%" PRId64 " pid=%" PRId64, no->error,
            who->is_unix ? "unix" : "tcp", who->uid, who->pid);
    }
    bool head = r->method == HTTP_M_HEAD;
    char allow[64] = "";
    if (no->allow != NULL)
        snprintf(allow, sizeof allow, "Allow: %s\r\n", no->allow);
    size_t length_at =
        begin_answer(&c->out, no->status, no->json ? "application/json" : TEXT, allow);
    size_t body_at = c->out.len;
    if (no->json) {
        struct jsonw j;
        jsonw_init(&j, &c->out);
        jsonw_object(&j, NULL);
        jsonw_text(&j, "error", no->error);
        jsonw_text(&j, "message", no->message);
        jsonw_text(&j, "allowed_by", no->allowed_by[0] == '\0' ? NULL : no->allowed_by);
        jsonw_end(&j);
        buf_str(&c->out, STR("\n"));
    } else {
        buf_addf(&c->out, "%s%s%s\n", no->message, no->allowed_by[0] == '\0' ? "" : "; ",
            no->allowed_by);
    }
    end_answer(&c->out, length_at, body_at, head);
}

static struct admin_done LOOP_ONLY
answer(struct admin_client *c, const struct http_req *r)
{
    struct admin_call call;
    struct admin_refusal no;
    struct admin_done done = {.status = 200};
    struct admin_page page;
    bool head = r->method == HTTP_M_HEAD;
    if (!admin_route(r, &c->who, &call, &no)) {
        answer_refusal(c, r, &no);
        return done;
    }
    if (admin_commands[call.id].access == ADMIN_ACCESS_CONTROL)
        done = answer_control(c, &call);
    else if (call.id == ADMIN_LIVE)
        put_answer(&c->out, 200, TEXT, STR("ok\n"), head);
    else if (call.id == ADMIN_READY)
        answer_ready(c, &call, head);
    else if (call.id == ADMIN_METRICS)
        answer_metrics(c, head);
    else if (admin_page(call.id, &page))
        answer_page(c, &page, head);
    else
        answer_show(c, &call, head);
    return done;
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
        struct admin_done done = {.status = 400};
        if (h == HTTP_OK)
            done = answer(c, &c->admin->req);
        else
            put_answer(&c->out, 400, TEXT, STR("bad request\n"), false);
        struct admin *a = c->admin;
        if (c->waits_for != 0)
            return;
        if (buf_ok(&c->out))
            flush(c);
        else
            close_client(c);
        if (done.stop)
            a->stop(a->stop_arg, done.how);
        return;
    }
}

static void
on_stream(void *arg)
{
    thr_check_loop();
    struct admin_client *c = OBJ_CAST(struct admin_client, arg, ADMIN_MAGIC);
    loop_label(c->admin->loop, "admin");
    if (c->closed || c->waits_for != 0) /* who leaves meanwhile is found when it is answered */
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

static struct admin_caller LOOP_ONLY
caller_of(const struct admin *a, int fd, const struct addr *peer)
{
    struct admin_caller who = {.is_unix = peer->sa.sa_family == AF_UNIX, .uid = -1, .pid = -1};
    struct ucred cred;
    socklen_t len = sizeof cred;
    if (!who.is_unix) {
        who.access = a->cfg->admin.tcp_access;
    } else if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) == 0) {
        who.uid = cred.uid;
        who.pid = cred.pid;
        who.access = admin_access_of(who.uid, geteuid());
    }
    return who;
}

static void
on_accept(void *arg, int fd, const struct addr *peer)
{
    thr_check_loop();
    struct admin *a = arg;
    struct admin_client *c = a->count < ADMIN_CLIENTS_MAX ? mem_zalloc(sizeof *c) : NULL;
    if (c == NULL) {
        metric_inc(M_ADMIN_REFUSED);
        (void)send(fd, a->busy.p, a->busy.len, MSG_NOSIGNAL);
        close(fd);
        return;
    }
    OBJ_INIT(c, ADMIN_MAGIC);
    c->admin = a;
    c->who = caller_of(a, fd, peer);
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
    a->spare_size = a->body.len * 2;
    return buf_reserve(&a->body, a->spare_size) && buf_reserve(&a->spare_in, SPARE_IN) &&
           buf_reserve(&a->spare_out, a->spare_size);
}

static bool LOOP_ONLY
has_address(const struct admin *a, const struct addr *addr)
{
    for (size_t i = 0; i < a->listener_count; i++)
        if (addr_port(addr) + (addr->sa.sa_family == AF_UNIX) > 0 &&
            addr_eq(&a->listeners[i].addr, addr))
            return true;
    return false;
}

static bool LOOP_ONLY
open_listeners(struct admin *a, struct passed *passed, char *why, size_t why_len)
{
    const struct config_admin *cfg = &a->cfg->admin;
    struct passed_socket *s;
    while ((s = passed_find(passed, PASSED_ADMIN)) != NULL) {
        if (a->listener_count == CONFIG_MAX_ADMIN) {
            snprintf(why, why_len, "more than %d sockets were passed as \"%s\"", CONFIG_MAX_ADMIN,
                PASSED_ADMIN);
            return false;
        }
        passed_claim(s, &a->listeners[a->listener_count++], false);
    }
    struct listener_options o = {
        .backlog = 128, .mode = (unsigned)strtoul(cfg->mode, NULL, 8), .group = cfg->group};
    for (size_t i = 0; i < cfg->address.count; i++) {
        const char *parse_why = "", *text = cfg->address.item[i];
        if (!addr_parse(str_of(text), &o.addr, &parse_why)) {
            snprintf(why, why_len, "[admin] address %s: %s", text, parse_why);
            return false;
        }
        if (has_address(a, &o.addr)) /* it was passed */
            continue;
        if (a->listener_count == CONFIG_MAX_ADMIN) {
            snprintf(why, why_len, "more than %d admin addresses", CONFIG_MAX_ADMIN);
            return false;
        }
        if (!listener_open(&a->listeners[a->listener_count], &o, why, why_len))
            return false;
        a->listener_count++;
    }
    return true;
}

/* The configuration was checked for this, passed sockets were not. */
bool
admin_may_commit(const struct admin *a, const struct config *cfg, char *why, size_t why_len)
{
    for (size_t i = 0; i < a->listener_count; i++) {
        if (cfg->admin.tcp_access != ADMIN_ACCESS_CONTROL ||
            addr_is_loopback(&a->listeners[i].addr))
            continue;
        snprintf(why, why_len,
            "[admin] tcp_access = control is for loopback only, and the admin address %s is not",
            a->listeners[i].text);
        return false;
    }
    return true;
}

static int64_t
wall_now_s(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    return ts.tv_sec;
}

struct admin *
admin_new(struct loop *l, const struct config *cfg, struct proxy *px, const struct upools *pools,
    struct passed *passed, char *why, size_t why_len)
{
    struct admin *a = mem_zalloc(sizeof *a);
    if (a == NULL) {
        snprintf(why, why_len, "out of memory");
        return NULL;
    }
    a->loop = l;
    a->cfg = cfg;
    a->px = px;
    a->pools = pools;
    a->started = loop_now(l);
    a->started_s = wall_now_s();
    a->busy =
        STR("HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
    list_init(&a->clients);
    http_req_init(&a->req);
    if (!reserve_spare(a)) {
        snprintf(why, why_len, "out of memory");
        goto fail;
    }
    if (!open_listeners(a, passed, why, why_len) || !admin_may_commit(a, cfg, why, why_len))
        goto fail;
    for (size_t i = 0; i < a->listener_count; i++) {
        if (listener_start(&a->listeners[i], l, a->busy, on_accept, a))
            continue;
        snprintf(why, why_len, "out of memory");
        goto fail;
    }
    return a;
fail:
    admin_free(&a);
    return NULL;
}

void
admin_on_stop(struct admin *a, admin_stop_fn fn, void *arg)
{
    a->stop = fn;
    a->stop_arg = arg;
}

void
admin_on_reload(struct admin *a, admin_reload_fn fn, void *arg)
{
    a->reload = fn;
    a->reload_arg = arg;
}

void
admin_reloaded(struct admin *a, uint64_t number, const struct admin_reload *how)
{
    a->last_reload = how;
    LIST_EACH_SAFE (node, next, &a->clients) {
        struct admin_client *c = CONTAINER_OF(node, struct admin_client, link);
        if (c->waits_for == 0 || c->waits_for > number)
            continue;
        struct jsonw j;
        c->waits_for = 0;
        a->body.len = 0;
        jsonw_init(&j, &a->body);
        int status = admin_tell_reload(how, &j).status;
        end_control(c, ADMIN_RELOAD, status);
        timer_arm_in(&c->timer, CLIENT_LIFE_US);
        if (buf_ok(&c->out))
            flush(c);
        else
            close_client(c);
    }
}

void
admin_commit(struct admin *a, const struct config *cfg)
{
    a->cfg = cfg;
}

const char *
admin_address(const struct admin *a, size_t i)
{
    return i < a->listener_count ? a->listeners[i].text : NULL;
}

void
admin_free(struct admin **ap)
{
    struct admin *a = *ap;
    if (a == NULL)
        return;
    *ap = NULL;
    for (size_t i = 0; i < a->listener_count; i++)
        listener_close(&a->listeners[i]);
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
