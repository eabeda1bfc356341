/*
 * admin_show: the answers to the GETs of the API. Every list has a limit, ends where the room for
 * the answer ends, and says "truncated" then.
 */
#include <time.h>
#include <unistd.h>

#include "admin/admin_impl.h"
#include "base/mem.h"

#include "base/no_block.h"

#define TAIL_ROOM 512 /* for what closes a list, and the numbers behind it */

static const char *const level_names[] = {"error", "warn", "info", "debug"};

/* ---- lists ---- */

struct list_writer {
    struct jsonw *j;
    struct jsonw_place mark;
    size_t limit, shown;
    bool truncated;
    bool lost;            /* not even what stands before the list fitted */
    const char *upstream; /* of the pool that is being listed; borrowed */
};

static struct list_writer
list_begin(struct jsonw *j, const char *key, size_t limit)
{
    struct list_writer w = {.j = j, .limit = limit};
    jsonw_array(j, key);
    w.lost = !buf_reserve(j->out, TAIL_ROOM);
    return w;
}

/* false: no more of them. */
static bool
item_begin(struct list_writer *w)
{
    if (w->shown == w->limit || w->lost) {
        w->truncated = true;
        return false;
    }
    w->mark = jsonw_mark(w->j);
    jsonw_object(w->j, NULL);
    return true;
}

/* false: it was one too many. */
static bool
item_end(struct list_writer *w)
{
    jsonw_end(w->j);
    if (!jsonw_keep(w->j, &w->mark, TAIL_ROOM)) {
        w->truncated = true;
        return false;
    }
    w->shown++;
    return true;
}

static void
list_end(const struct list_writer *w)
{
    jsonw_end(w->j);
    jsonw_uint(w->j, "shown", w->shown);
    jsonw_bool(w->j, "truncated", w->truncated);
}

/* ---- small parts ---- */

/* Microseconds as milliseconds; below 0: null. */
static void
put_ms(struct jsonw *j, const char *key, int64_t us)
{
    if (us < 0)
        jsonw_null(j, key);
    else
        jsonw_ms(j, key, us);
}

static void
put_some(struct jsonw *j, const char *key, uint64_t n)
{
    if (n == 0)
        jsonw_null(j, key);
    else
        jsonw_uint(j, key, n);
}

static void
put_name(struct jsonw *j, const char *key, struct str s)
{
    if (s.len == 0)
        jsonw_null(j, key);
    else
        jsonw_str(j, key, s);
}

static void
put_lower(struct jsonw *j, const char *key, const char *text)
{
    char lower[32];
    size_t n = 0;
    for (; text[n] != '\0' && n < sizeof lower; n++)
        lower[n] = ascii_lower(text[n]);
    jsonw_str(j, key, str_n(lower, n));
}

static void
put_metric(struct jsonw *j, const char *key, enum metric_id id)
{
    jsonw_int(j, key, metric_get(id));
}

/* ---- status ---- */

static const char *LOOP_ONLY
state_of(const struct admin *a, const struct upool_stats *st)
{
    return proxy_is_draining(a->px) ? "draining" : st->paused ? "paused" : "serving";
}

static void LOOP_ONLY
put_traffic(const struct admin *a, struct jsonw *j)
{
    jsonw_object(j, "clients");
    jsonw_uint(j, "open", proxy_client_count(a->px));
    jsonw_int(j, "max", a->cfg->chmux.max_clients);
    put_metric(j, "accepted", M_CLIENTS_TOTAL);
    jsonw_end(j);
    jsonw_object(j, "requests");
    put_metric(j, "running", M_EXCHANGES);
    put_metric(j, "started", M_REQUESTS);
    put_metric(j, "complete", M_DONE_OK);
    put_metric(j, "refused", M_DONE_ERROR);
    put_metric(j, "cut", M_DONE_CUT);
    put_metric(j, "client_gone", M_DONE_GONE);
    put_metric(j, "retried", M_RETRIES);
    put_metric(j, "waited", M_QUEUE_WAITS);
    jsonw_end(j);
    jsonw_object(j, "bytes");
    put_metric(j, "from_clients", M_BYTES_CLIENT_IN);
    put_metric(j, "to_clients", M_BYTES_CLIENT_OUT);
    put_metric(j, "from_servers", M_BYTES_UP_IN);
    put_metric(j, "to_servers", M_BYTES_UP_OUT);
    jsonw_end(j);
}

static void LOOP_ONLY
put_pool_numbers(const struct upool_stats *st, int64_t peak, struct jsonw *j)
{
    jsonw_uint(j, "size", st->cap);
    jsonw_uint(j, "active", st->active);
    jsonw_uint(j, "idle", st->idle);
    jsonw_uint(j, "connecting", st->connecting);
    jsonw_uint(j, "closing", st->closing);
    jsonw_int(j, "peak", peak);
}

static void LOOP_ONLY
put_queue_numbers(
    const struct upool_stats *st, size_t in_sessions, size_t in_users, struct jsonw *j)
{
    jsonw_uint(j, "waiting", st->waiting);
    jsonw_uint(j, "waiting_for_session", in_sessions);
    if (in_users != SIZE_MAX) /* not counted for each upstream */
        jsonw_uint(j, "waiting_for_user", in_users);
    jsonw_uint(j, "size", st->queue_size);
    jsonw_ms(j, "timeout_ms", st->queue_timeout_us);
    jsonw_bool(j, "paused", st->paused);
}

/* Bounds are those of metric.h: 50 us doubled again and again; the last bucket has none. */
static void LOOP_ONLY
put_histograms(struct jsonw *j)
{
    static const char *const keys[HISTOGRAM_COUNT] = {[H_TLS_ACCEPT] = "client_tls_handshake",
        [H_QUEUE_WAIT] = "queue_wait",
        [H_CONNECT] = "connect",
        [H_TLS] = "tls_handshake",
        [H_FIRST_BYTE] = "first_byte",
        [H_TOTAL] = "total"};
    _Static_assert(HISTOGRAM_COUNT == 6, "name the new one too");
    jsonw_object(j, "latency");
    jsonw_array(j, "bounds_ms");
    for (int i = 0; i < HISTOGRAM_BUCKETS; i++)
        jsonw_ms(j, NULL, INT64_C(50) << i);
    jsonw_end(j);
    for (size_t i = 0; i < HISTOGRAM_COUNT; i++) {
        const struct histogram sum = metric_histogram((enum histogram_id)i), *h = &sum;
        jsonw_object(j, keys[i]);
        jsonw_uint(j, "count", h->count);
        jsonw_ms(j, "sum_ms", (int64_t)h->sum_us);
        jsonw_array(j, "buckets");
        for (size_t k = 0; k < COUNT_OF(h->bucket); k++)
            jsonw_uint(j, NULL, h->bucket[k]);
        jsonw_end(j);
        jsonw_end(j);
    }
    jsonw_end(j);
}

static void
put_memory_numbers(struct jsonw *j)
{
    jsonw_uint(j, "used_bytes", mem_used());
    jsonw_uint(j, "limit_bytes", mem_limit());
    int64_t resident = admin_resident_bytes();
    if (resident < 0)
        jsonw_null(j, "resident_bytes");
    else
        jsonw_int(j, "resident_bytes", resident);
}

static void LOOP_ONLY
put_reloads(const struct admin *a, struct jsonw *j)
{
    const struct admin_reload *last = a->last_reload;
    jsonw_object(j, "reload");
    put_metric(j, "succeeded", M_RELOADS_OK);
    put_metric(j, "failed", M_RELOADS_FAILED);
    put_metric(j, "restart_needed", M_RESTART_NEEDED);
    jsonw_object(j, "files");
    put_metric(j, "succeeded", M_FILES_OK);
    put_metric(j, "failed", M_FILES_FAILED);
    jsonw_bool(j, "ok", metric_get(M_FILES_LAST_OK) != 0);
    jsonw_end(j);
    if (last == NULL) {
        jsonw_null(j, "last");
    } else {
        jsonw_object(j, "last");
        jsonw_bool(j, "ok", last->ok);
        jsonw_int(j, "time_ms", last->at_unix_ms);
        jsonw_text(j, "message", last->message);
        jsonw_end(j);
    }
    jsonw_end(j);
}

static void
put_addresses(const struct upool_stats *st, struct jsonw *j)
{
    jsonw_object(j, "addresses");
    jsonw_uint(j, "up", st->addresses_up);
    jsonw_uint(j, "ejected", st->addresses_ejected);
    jsonw_end(j);
}

static void LOOP_ONLY
put_upstreams(const struct admin *a, struct jsonw *j)
{
    jsonw_array(j, "upstreams");
    for (size_t i = 0; i < a->pools->count; i++) {
        const struct upool *p = a->pools->pool[i];
        struct upool_stats st;
        upool_stats(p, &st);
        jsonw_object(j, NULL);
        jsonw_text(j, "name", upool_name(p));
        jsonw_bool(j, "up", upool_seems_up(p));
        jsonw_object(j, "pool");
        put_pool_numbers(&st, metric_get_in(upool_metrics(p), M_POOL_PEAK), j);
        jsonw_end(j);
        jsonw_object(j, "queue");
        put_queue_numbers(&st, proxy_sessions_waiting_in(a->px, i), SIZE_MAX, j);
        jsonw_end(j);
        put_addresses(&st, j);
        jsonw_end(j);
    }
    jsonw_end(j);
}

static void LOOP_ONLY
show_status(struct admin *a, struct jsonw *j)
{
    struct upool_stats st;
    upools_stats(a->pools, &st);
    jsonw_text(j, "version", CHMUX_VERSION);
    jsonw_int(j, "pid", getpid());
    jsonw_int(j, "uid", geteuid());
    jsonw_ms(j, "uptime_ms", mono_diff_us(loop_now(a->loop), a->started));
    jsonw_text(j, "state", state_of(a, &st));
    jsonw_text(
        j, "log_level", level_names[atomic_load_explicit(&log_threshold, memory_order_relaxed)]);
    put_traffic(a, j);
    jsonw_object(j, "pool");
    put_pool_numbers(&st, metric_get(M_POOL_PEAK), j);
    jsonw_end(j);
    jsonw_object(j, "queue");
    put_queue_numbers(&st, proxy_sessions_waiting(a->px), proxy_users_waiting(a->px), j);
    jsonw_end(j);
    put_reloads(a, j);
    put_addresses(&st, j);
    put_upstreams(a, j);
    jsonw_object(j, "memory");
    put_memory_numbers(j);
    jsonw_end(j);
    put_histograms(j);
}

static void LOOP_ONLY
show_memory(struct admin *a, struct jsonw *j)
{
    admin_update_gauges(a);
    put_memory_numbers(j);
    jsonw_uint(j, "codec_limit_bytes", mem_long_limit());
    jsonw_uint(j, "buffer_bytes", blk_cap());
    put_metric(j, "pipe_input_bytes", M_PIPE_BYTES_IN);
    put_metric(j, "pipe_output_bytes", M_PIPE_BYTES_OUT);
    put_metric(j, "refused_for_memory", M_REFUSED_MEMORY);
    put_metric(j, "pipe_memory_waits", M_PIPE_MEMORY_WAITS);
    put_metric(j, "clients", M_CLIENTS);
    put_metric(j, "exchanges", M_EXCHANGES);
    put_metric(j, "sessions", M_SESSIONS);
    jsonw_uint(j, "log_lines_dropped", log_dropped());
}

/* ---- what is listed ---- */

static bool
on_client(void *arg, const struct proxy_client_view *v)
{
    struct list_writer *w = arg;
    if (!item_begin(w))
        return false;
    jsonw_uint(w->j, "id", v->id);
    jsonw_text(w->j, "state", v->state);
    jsonw_text(w->j, "peer", v->peer);
    jsonw_text(w->j, "local", v->local);
    if (v->uid >= 0)
        jsonw_int(w->j, "uid", v->uid);
    if (v->pid >= 0)
        jsonw_int(w->j, "pid", v->pid);
    jsonw_ms(w->j, "age_ms", v->age_us);
    jsonw_uint(w->j, "requests", v->served);
    put_some(w->j, "exchange", v->exchange);
    if (v->tls != NULL)
        jsonw_text(w->j, "tls", v->tls);
    if (v->cert_subject[0] != '\0') {
        jsonw_text(w->j, "certificate", v->cert_subject);
        jsonw_text(w->j, "cn", v->cert_cn);
    }
    return item_end(w);
}

static void
put_exchange(struct jsonw *j, const struct proxy_exchange_view *v)
{
    jsonw_uint(j, "id", v->id);
    jsonw_uint(j, "client", v->client);
    put_lower(j, "state", v->state);
    jsonw_str(j, "user", v->user);
    put_name(j, "query_id", v->query_id);
    jsonw_str(j, "method", v->method);
    jsonw_str(j, "path", v->path);
    jsonw_text(j, "upstream", v->upstream);
    jsonw_text(j, "address", v->address);
    put_some(j, "conn", v->conn);
    jsonw_ms(j, "age_ms", v->age_us);
    jsonw_ms(j, "queued_ms", v->queued_us);
    put_ms(j, "running_ms", v->running_us);
    jsonw_uint(j, "request_bytes", v->request_bytes);
    jsonw_uint(j, "response_bytes", v->response_bytes);
    put_some(j, "status", (uint64_t)v->status);
    jsonw_bool(j, "answering", v->answering);
    jsonw_bool(j, "in_session", v->in_session);
    jsonw_bool(j, "retried", v->retried);
    jsonw_text(j, "request_coding", v->request_coding);
    jsonw_text(j, "response_coding", v->response_coding);
}

static bool
on_exchange(void *arg, const struct proxy_exchange_view *v)
{
    struct list_writer *w = arg;
    if (!item_begin(w))
        return false;
    put_exchange(w->j, v);
    return item_end(w);
}

static bool
on_conn(void *arg, const struct upool_conn_view *v)
{
    struct list_writer *w = arg;
    if (!item_begin(w))
        return false;
    jsonw_uint(w->j, "id", v->id);
    jsonw_text(w->j, "upstream", w->upstream);
    jsonw_text(w->j, "state", v->state);
    jsonw_text(w->j, "address", v->address);
    jsonw_bool(w->j, "tls", v->tls);
    jsonw_ms(w->j, "age_ms", v->age_us);
    put_ms(w->j, "idle_ms", v->idle_us);
    jsonw_uint(w->j, "requests", v->served);
    jsonw_bool(w->j, "retiring", v->retiring);
    return item_end(w);
}

static bool
on_endpoint(void *arg, const struct upool_addr_view *v)
{
    struct list_writer *w = arg;
    if (!item_begin(w))
        return false;
    jsonw_text(w->j, "upstream", w->upstream);
    jsonw_text(w->j, "host", v->host);
    jsonw_uint(w->j, "port", v->port);
    jsonw_bool(w->j, "tls", v->tls);
    jsonw_text(w->j, "address", v->address);
    jsonw_text(w->j, "state",
        v->address == NULL ? "unresolved"
        : v->up            ? "up"
        : v->unroutable    ? "unroutable"
                           : "ejected");
    put_ms(w->j, "ejected_ms", v->ejected_us);
    put_ms(w->j, "probe_in_ms", v->probe_us);
    jsonw_int(w->j, "failures", v->fails);
    jsonw_uint(w->j, "connecting", v->connecting);
    jsonw_uint(w->j, "active", v->active);
    jsonw_uint(w->j, "idle", v->idle);
    jsonw_uint(w->j, "requests", v->leases);
    jsonw_text(w->j, "last_error", v->why[0] == '\0' ? NULL : v->why);
    return item_end(w);
}

static bool
on_waiter(void *arg, const struct proxy_waiter_view *v)
{
    struct list_writer *w = arg;
    if (!item_begin(w))
        return false;
    jsonw_text(w->j, "waits_for", v->waits_for);
    jsonw_text(w->j, "upstream", v->upstream);
    jsonw_uint(w->j, "round", v->round);
    jsonw_ms(w->j, "waited_ms", v->waited_us);
    put_some(w->j, "exchange", v->ex.id);
    put_some(w->j, "client", v->ex.client);
    put_name(w->j, "user", v->ex.user);
    put_name(w->j, "query_id", v->ex.query_id);
    return item_end(w);
}

static bool
on_pipe(void *arg, const struct proxy_pipe_view *v)
{
    struct list_writer *w = arg;
    if (!item_begin(w))
        return false;
    jsonw_uint(w->j, "exchange", v->exchange);
    jsonw_uint(w->j, "client", v->client);
    jsonw_text(w->j, "direction", v->direction);
    jsonw_text(w->j, "decode", v->decode);
    jsonw_text(w->j, "encode", v->encode);
    jsonw_text(w->j, "state", v->state);
    jsonw_uint(w->j, "in_bytes", v->in_bytes);
    jsonw_uint(w->j, "out_bytes", v->out_bytes);
    jsonw_uint(w->j, "room_bytes", v->room_bytes);
    jsonw_bool(w->j, "output_waits", v->output_waits);
    return item_end(w);
}

static bool
on_user(void *arg, const struct proxy_user_view *v)
{
    struct list_writer *w = arg;
    if (!item_begin(w))
        return false;
    jsonw_str(w->j, "name", v->name);
    jsonw_str(w->j, "upstream_user", v->upstream_user);
    jsonw_text(w->j, "secret", v->secret);
    jsonw_uint(w->j, "in_flight", v->in_flight);
    put_some(w->j, "max_in_flight", v->max_in_flight);
    jsonw_uint(w->j, "waiting", v->waiting);
    jsonw_uint(w->j, "queue_share", v->queue_share);
    jsonw_uint(w->j, "requests", v->requests);
    jsonw_uint(w->j, "waited", v->waited);
    jsonw_uint(w->j, "refused", v->refused);
    return item_end(w);
}

static int64_t
wall_now_us(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

static bool
on_error(void *arg, const struct proxy_error_view *v)
{
    struct list_writer *w = arg;
    if (!item_begin(w))
        return false;
    jsonw_ms(w->j, "time_ms", wall_now_us() - v->age_us);
    jsonw_ms(w->j, "age_ms", v->age_us);
    jsonw_text(w->j, "reason", v->reason);
    put_some(w->j, "status", (uint64_t)v->status);
    put_some(w->j, "code", (uint64_t)v->code);
    jsonw_uint(w->j, "times", v->times);
    put_some(w->j, "exchange", v->exchange);
    put_some(w->j, "client", v->client);
    jsonw_text(w->j, "peer", v->peer[0] == '\0' ? NULL : v->peer);
    put_name(w->j, "user", str_of(v->user));
    put_name(w->j, "query_id", str_of(v->query_id));
    jsonw_text(w->j, "upstream", v->upstream);
    jsonw_text(w->j, "detail", v->detail);
    return item_end(w);
}

static bool
on_option(void *arg, const struct config_item *it)
{
    struct list_writer *w = arg;
    if (!item_begin(w))
        return false;
    jsonw_text(w->j, "section", it->section);
    jsonw_text(w->j, "key", it->key);
    jsonw_str(w->j, "value", it->value);
    jsonw_str(w->j, "source", it->source);
    jsonw_bool(w->j, "reloadable", it->reloadable);
    return item_end(w);
}

static void
put_commands(struct jsonw *j, const struct admin_caller *who)
{
    char hint[256];
    struct list_writer w = list_begin(j, "commands", SIZE_MAX);
    for (size_t i = 0; i < ADMIN_COMMAND_COUNT && item_begin(&w); i++) {
        const struct admin_command *c = &admin_commands[i];
        jsonw_text(j, "path", c->path);
        jsonw_text(j, "method", c->method == HTTP_M_GET ? "GET" : "POST");
        jsonw_text(j, "arguments", c->args[0] == '!' ? c->args + 1 : c->args);
        jsonw_bool(j, "allowed", who->access >= c->access);
        admin_allowed_by(c, who, hint, sizeof hint);
        jsonw_text(j, "allowed_by", hint[0] == '\0' ? NULL : hint);
        if (!item_end(&w))
            break;
    }
    list_end(&w);
}

/* What the pool and the queue say beside their lists. */
static void LOOP_ONLY
show_pool(struct admin *a, const struct admin_call *call, struct jsonw *j)
{
    struct upool_stats st;
    upools_stats(a->pools, &st);
    bool queue = call->id == ADMIN_QUEUE;
    if (queue)
        put_queue_numbers(&st, proxy_sessions_waiting(a->px), proxy_users_waiting(a->px), j);
    else
        put_pool_numbers(&st, metric_get(M_POOL_PEAK), j);
    struct list_writer w = list_begin(j, queue ? "waiters" : "connections", call->limit);
    if (queue)
        proxy_each_waiter(a->px, on_waiter, &w);
    for (size_t i = 0; i < a->pools->count && !queue; i++) {
        w.upstream = upool_name(a->pools->pool[i]);
        upool_each_conn(a->pools->pool[i], on_conn, &w);
    }
    list_end(&w);
}

static void LOOP_ONLY
list_endpoints(const struct admin *a, struct list_writer *w)
{
    for (size_t i = 0; i < a->pools->count; i++) {
        w->upstream = upool_name(a->pools->pool[i]);
        upool_each_addr(a->pools->pool[i], on_endpoint, w);
    }
}

static void LOOP_ONLY
show_list(struct admin *a, const struct admin_call *call, struct jsonw *j)
{
    const char *key = admin_commands[call->id].path + sizeof ADMIN_API - 1;
    if (call->id == ADMIN_CLIENTS)
        jsonw_uint(j, "open", proxy_client_count(a->px));
    else if (call->id == ADMIN_EXCHANGES)
        put_metric(j, "running", M_EXCHANGES);
    struct list_writer w = list_begin(j, key, call->limit);
    switch ((int)call->id) {
    case ADMIN_CLIENTS: proxy_each_client(a->px, on_client, &w); break;
    case ADMIN_EXCHANGES: proxy_each_exchange(a->px, on_exchange, &w); break;
    case ADMIN_ENDPOINTS: list_endpoints(a, &w); break;
    case ADMIN_USERS: proxy_each_user(a->px, on_user, &w); break;
    case ADMIN_PIPES: proxy_each_pipe(a->px, on_pipe, &w); break;
    case ADMIN_ERRORS: proxy_each_error(a->px, on_error, &w); break;
    case ADMIN_CONFIG: w.truncated |= !config_each(a->cfg, on_option, &w); break;
    default: CHECK(call->id == ADMIN_CLIENTS); /* nothing that is listed */
    }
    list_end(&w);
}

void
admin_show(
    struct admin *a, const struct admin_call *call, const struct admin_caller *who, struct jsonw *j)
{
    jsonw_object(j, NULL);
    switch ((int)call->id) {
    case ADMIN_COMMANDS: put_commands(j, who); break;
    case ADMIN_STATUS: show_status(a, j); break;
    case ADMIN_MEMORY: show_memory(a, j); break;
    case ADMIN_POOL:
    case ADMIN_QUEUE: show_pool(a, call, j); break;
    default: show_list(a, call, j);
    }
    jsonw_end(j);
}
