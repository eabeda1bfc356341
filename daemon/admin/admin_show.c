/*
 * admin_show: the answers to the GETs of the API. Every list has a limit, ends where the room for
 * the answer ends, and says "truncated" then.
 */
#include <fcntl.h>
#include <time.h>
#include <unistd.h>

#include "admin/admin_impl.h"
#include "base/mem.h"

#include "base/no_block.h"

#define TAIL_ROOM 512 /* for what closes a list, and the numbers behind it */

static const char *const level_names[] = {"error", "warn", "info", "debug"};

/* ---- lists ---- */

struct list_writer {
    struct json *j;
    struct json_place mark;
    size_t limit, shown;
    bool truncated;
    bool lost; /* not even what stands before the list fitted */
};

static struct list_writer
list_begin(struct json *j, const char *key, size_t limit)
{
    struct list_writer w = {.j = j, .limit = limit};
    json_array(j, key);
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
    w->mark = json_mark(w->j);
    json_object(w->j, NULL);
    return true;
}

/* false: it was one too many. */
static bool
item_end(struct list_writer *w)
{
    json_end(w->j);
    if (!json_keep(w->j, &w->mark, TAIL_ROOM)) {
        w->truncated = true;
        return false;
    }
    w->shown++;
    return true;
}

static void
list_end(const struct list_writer *w)
{
    json_end(w->j);
    json_uint(w->j, "shown", w->shown);
    json_bool(w->j, "truncated", w->truncated);
}

/* ---- small parts ---- */

/* Microseconds as milliseconds; below 0: null. */
static void
put_ms(struct json *j, const char *key, int64_t us)
{
    if (us < 0)
        json_null(j, key);
    else
        json_ms(j, key, us);
}

static void
put_some(struct json *j, const char *key, uint64_t n)
{
    if (n == 0)
        json_null(j, key);
    else
        json_uint(j, key, n);
}

static void
put_name(struct json *j, const char *key, struct str s)
{
    if (s.len == 0)
        json_null(j, key);
    else
        json_str(j, key, s);
}

static void
put_lower(struct json *j, const char *key, const char *text)
{
    char lower[32];
    size_t n = 0;
    for (; text[n] != '\0' && n < sizeof lower; n++)
        lower[n] = ascii_lower(text[n]);
    json_str(j, key, str_n(lower, n));
}

static void
put_metric(struct json *j, const char *key, enum metric_id id)
{
    json_int(j, key, metric_get(id));
}

/* ---- status ---- */

static const char *LOOP_ONLY
state_of(const struct admin *a, const struct upool_stats *st)
{
    return proxy_is_draining(a->px) ? "draining" : st->paused ? "paused" : "serving";
}

static void LOOP_ONLY
put_traffic(const struct admin *a, struct json *j)
{
    json_object(j, "clients");
    json_uint(j, "open", proxy_client_count(a->px));
    json_int(j, "max", a->cfg->chmux.max_clients);
    put_metric(j, "accepted", M_CLIENTS_TOTAL);
    json_end(j);
    json_object(j, "requests");
    put_metric(j, "running", M_EXCHANGES);
    put_metric(j, "started", M_REQUESTS);
    put_metric(j, "complete", M_DONE_OK);
    put_metric(j, "refused", M_DONE_ERROR);
    put_metric(j, "cut", M_DONE_CUT);
    put_metric(j, "client_gone", M_DONE_GONE);
    put_metric(j, "retried", M_RETRIES);
    put_metric(j, "waited", M_QUEUE_WAITS);
    json_end(j);
    json_object(j, "bytes");
    put_metric(j, "from_clients", M_BYTES_CLIENT_IN);
    put_metric(j, "to_clients", M_BYTES_CLIENT_OUT);
    put_metric(j, "from_servers", M_BYTES_UP_IN);
    put_metric(j, "to_servers", M_BYTES_UP_OUT);
    json_end(j);
}

static void LOOP_ONLY
put_pool_numbers(const struct upool_stats *st, struct json *j)
{
    json_uint(j, "size", st->cap);
    json_uint(j, "active", st->active);
    json_uint(j, "idle", st->idle);
    json_uint(j, "connecting", st->connecting);
    json_uint(j, "closing", st->closing);
    put_metric(j, "peak", M_POOL_PEAK);
}

static void LOOP_ONLY
put_queue_numbers(const struct admin *a, const struct upool_stats *st, struct json *j)
{
    json_uint(j, "waiting", st->waiting);
    json_uint(j, "waiting_for_session", proxy_sessions_waiting(a->px));
    json_int(j, "size", a->cfg->upstream.queue_size);
    json_ms(j, "timeout_ms", a->cfg->upstream.queue_timeout);
    json_bool(j, "paused", st->paused);
}

/* Bounds are those of metric.h: 50 us doubled again and again; the last bucket has none. */
static void LOOP_ONLY
put_histograms(struct json *j)
{
    static const char *const keys[HISTOGRAM_COUNT] = {[H_QUEUE_WAIT] = "queue_wait",
        [H_CONNECT] = "connect",
        [H_FIRST_BYTE] = "first_byte",
        [H_TOTAL] = "total"};
    _Static_assert(HISTOGRAM_COUNT == 4, "name the new one too");
    json_object(j, "latency");
    json_array(j, "bounds_ms");
    for (int i = 0; i < HISTOGRAM_BUCKETS; i++)
        json_ms(j, NULL, INT64_C(50) << i);
    json_end(j);
    for (size_t i = 0; i < HISTOGRAM_COUNT; i++) {
        const struct histogram *h = &metric_histograms[i];
        json_object(j, keys[i]);
        json_uint(j, "count", h->count);
        json_ms(j, "sum_ms", (int64_t)h->sum_us);
        json_array(j, "buckets");
        for (size_t k = 0; k < COUNT_OF(h->bucket); k++)
            json_uint(j, NULL, h->bucket[k]);
        json_end(j);
        json_end(j);
    }
    json_end(j);
}

/* Pages of this process in memory, by the kernel: no disk is read. */
static int64_t
resident_bytes(void)
{
    char text[128];
    uint64_t pages = 0;
    int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text);
    if (fd >= 0)
        close(fd);
    ssize_t first = n <= 0 ? -1 : str_find(str_n(text, (size_t)n), ' ');
    if (first < 0)
        return -1;
    struct str rest = str_n(text + first + 1, (size_t)(n - first - 1));
    ssize_t second = str_find(rest, ' ');
    if (second < 0 || !str_to_u64(str_n(rest.p, (size_t)second), INT32_MAX, &pages))
        return -1;
    return (int64_t)pages * sysconf(_SC_PAGESIZE);
}

static void
put_memory_numbers(struct json *j)
{
    json_uint(j, "used_bytes", mem_used());
    json_uint(j, "limit_bytes", mem_limit());
    int64_t resident = resident_bytes();
    if (resident < 0)
        json_null(j, "resident_bytes");
    else
        json_int(j, "resident_bytes", resident);
}

static void LOOP_ONLY
show_status(struct admin *a, struct json *j)
{
    struct upool_stats st;
    upool_stats(a->pool, &st);
    json_text(j, "version", CHMUX_VERSION);
    json_int(j, "pid", getpid());
    json_int(j, "uid", geteuid());
    json_ms(j, "uptime_ms", mono_diff_us(loop_now(a->loop), a->started));
    json_text(j, "state", state_of(a, &st));
    json_text(
        j, "log_level", level_names[atomic_load_explicit(&log_threshold, memory_order_relaxed)]);
    put_traffic(a, j);
    json_object(j, "pool");
    put_pool_numbers(&st, j);
    json_end(j);
    json_object(j, "queue");
    put_queue_numbers(a, &st, j);
    json_end(j);
    json_object(j, "addresses");
    json_uint(j, "up", st.addresses_up);
    json_uint(j, "ejected", st.addresses_ejected);
    json_end(j);
    json_object(j, "memory");
    put_memory_numbers(j);
    json_end(j);
    put_histograms(j);
}

static void LOOP_ONLY
show_memory(struct admin *a, struct json *j)
{
    admin_update_gauges(a);
    put_memory_numbers(j);
    json_uint(j, "codec_limit_bytes", mem_long_limit());
    json_uint(j, "buffer_bytes", blk_cap());
    put_metric(j, "pipe_input_bytes", M_PIPE_BYTES_IN);
    put_metric(j, "pipe_output_bytes", M_PIPE_BYTES_OUT);
    put_metric(j, "refused_for_memory", M_REFUSED_MEMORY);
    put_metric(j, "pipe_memory_waits", M_PIPE_MEMORY_WAITS);
    put_metric(j, "clients", M_CLIENTS);
    put_metric(j, "exchanges", M_EXCHANGES);
    put_metric(j, "sessions", M_SESSIONS);
    json_uint(j, "log_lines_dropped", log_dropped());
}

/* ---- what is listed ---- */

static bool
on_client(void *arg, const struct proxy_client_view *v)
{
    struct list_writer *w = arg;
    if (!item_begin(w))
        return false;
    json_uint(w->j, "id", v->id);
    json_text(w->j, "state", v->state);
    json_text(w->j, "peer", v->peer);
    json_text(w->j, "local", v->local);
    if (v->uid >= 0)
        json_int(w->j, "uid", v->uid);
    if (v->pid >= 0)
        json_int(w->j, "pid", v->pid);
    json_ms(w->j, "age_ms", v->age_us);
    json_uint(w->j, "requests", v->served);
    put_some(w->j, "exchange", v->exchange);
    return item_end(w);
}

static void
put_exchange(struct json *j, const struct proxy_exchange_view *v)
{
    json_uint(j, "id", v->id);
    json_uint(j, "client", v->client);
    put_lower(j, "state", v->state);
    json_str(j, "user", v->user);
    put_name(j, "query_id", v->query_id);
    json_str(j, "method", v->method);
    json_str(j, "path", v->path);
    json_text(j, "address", v->address);
    put_some(j, "conn", v->conn);
    json_ms(j, "age_ms", v->age_us);
    json_ms(j, "queued_ms", v->queued_us);
    put_ms(j, "running_ms", v->running_us);
    json_uint(j, "request_bytes", v->request_bytes);
    json_uint(j, "response_bytes", v->response_bytes);
    put_some(j, "status", (uint64_t)v->status);
    json_bool(j, "answering", v->answering);
    json_bool(j, "in_session", v->in_session);
    json_bool(j, "retried", v->retried);
    json_text(j, "request_coding", v->request_coding);
    json_text(j, "response_coding", v->response_coding);
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
    json_uint(w->j, "id", v->id);
    json_text(w->j, "state", v->state);
    json_text(w->j, "address", v->address);
    json_bool(w->j, "tls", v->tls);
    json_ms(w->j, "age_ms", v->age_us);
    put_ms(w->j, "idle_ms", v->idle_us);
    json_uint(w->j, "requests", v->served);
    json_bool(w->j, "retiring", v->retiring);
    return item_end(w);
}

static bool
on_endpoint(void *arg, const struct upool_addr_view *v)
{
    struct list_writer *w = arg;
    if (!item_begin(w))
        return false;
    json_text(w->j, "host", v->host);
    json_uint(w->j, "port", v->port);
    json_bool(w->j, "tls", v->tls);
    json_text(w->j, "address", v->address);
    json_text(w->j, "state", v->address == NULL ? "unresolved" : v->up ? "up" : "ejected");
    put_ms(w->j, "ejected_ms", v->ejected_us);
    put_ms(w->j, "probe_in_ms", v->probe_us);
    json_int(w->j, "failures", v->fails);
    json_uint(w->j, "connecting", v->connecting);
    json_uint(w->j, "active", v->active);
    json_uint(w->j, "idle", v->idle);
    json_uint(w->j, "requests", v->leases);
    json_text(w->j, "last_error", v->why[0] == '\0' ? NULL : v->why);
    return item_end(w);
}

static bool
on_waiter(void *arg, const struct proxy_waiter_view *v)
{
    struct list_writer *w = arg;
    if (!item_begin(w))
        return false;
    json_text(w->j, "waits_for", v->waits_for);
    json_uint(w->j, "round", v->round);
    json_ms(w->j, "waited_ms", v->waited_us);
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
    json_uint(w->j, "exchange", v->exchange);
    json_uint(w->j, "client", v->client);
    json_text(w->j, "direction", v->direction);
    json_text(w->j, "decode", v->decode);
    json_text(w->j, "encode", v->encode);
    json_text(w->j, "state", v->state);
    json_uint(w->j, "in_bytes", v->in_bytes);
    json_uint(w->j, "out_bytes", v->out_bytes);
    json_uint(w->j, "room_bytes", v->room_bytes);
    json_bool(w->j, "output_waits", v->output_waits);
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
    json_ms(w->j, "time_ms", wall_now_us() - v->age_us);
    json_ms(w->j, "age_ms", v->age_us);
    json_text(w->j, "reason", v->reason);
    put_some(w->j, "status", (uint64_t)v->status);
    put_some(w->j, "code", (uint64_t)v->code);
    json_uint(w->j, "times", v->times);
    put_some(w->j, "exchange", v->exchange);
    put_some(w->j, "client", v->client);
    put_name(w->j, "user", str_of(v->user));
    put_name(w->j, "query_id", str_of(v->query_id));
    json_text(w->j, "detail", v->detail);
    return item_end(w);
}

static bool
on_option(void *arg, const struct config_item *it)
{
    struct list_writer *w = arg;
    if (!item_begin(w))
        return false;
    json_text(w->j, "section", it->section);
    json_text(w->j, "key", it->key);
    json_str(w->j, "value", it->value);
    json_str(w->j, "source", it->source);
    json_bool(w->j, "reloadable", it->reloadable);
    return item_end(w);
}

static void
put_commands(struct json *j, const struct admin_caller *who)
{
    struct list_writer w = list_begin(j, "commands", SIZE_MAX);
    for (size_t i = 0; i < ADMIN_COMMAND_COUNT && item_begin(&w); i++) {
        const struct admin_command *c = &admin_commands[i];
        json_text(j, "path", c->path);
        json_text(j, "method", c->method == HTTP_M_GET ? "GET" : "POST");
        json_text(j, "arguments", c->args[0] == '!' ? c->args + 1 : c->args);
        json_bool(j, "allowed", who->access >= c->access);
        if (!item_end(&w))
            break;
    }
    list_end(&w);
}

/* What the pool and the queue say beside their lists. */
static void LOOP_ONLY
show_pool(struct admin *a, const struct admin_call *call, struct json *j)
{
    struct upool_stats st;
    upool_stats(a->pool, &st);
    bool queue = call->id == ADMIN_QUEUE;
    if (queue)
        put_queue_numbers(a, &st, j);
    else
        put_pool_numbers(&st, j);
    struct list_writer w = list_begin(j, queue ? "waiters" : "connections", call->limit);
    if (queue)
        proxy_each_waiter(a->px, on_waiter, &w);
    else
        upool_each_conn(a->pool, on_conn, &w);
    list_end(&w);
}

static void LOOP_ONLY
show_list(struct admin *a, const struct admin_call *call, struct json *j)
{
    const char *key = admin_commands[call->id].path + sizeof ADMIN_API - 1;
    if (call->id == ADMIN_CLIENTS)
        json_uint(j, "open", proxy_client_count(a->px));
    else if (call->id == ADMIN_EXCHANGES)
        put_metric(j, "running", M_EXCHANGES);
    struct list_writer w = list_begin(j, key, call->limit);
    switch ((int)call->id) {
    case ADMIN_CLIENTS: proxy_each_client(a->px, on_client, &w); break;
    case ADMIN_EXCHANGES: proxy_each_exchange(a->px, on_exchange, &w); break;
    case ADMIN_ENDPOINTS: upool_each_addr(a->pool, on_endpoint, &w); break;
    case ADMIN_PIPES: proxy_each_pipe(a->px, on_pipe, &w); break;
    case ADMIN_ERRORS: proxy_each_error(a->px, on_error, &w); break;
    case ADMIN_CONFIG: w.truncated |= !config_each(a->cfg, on_option, &w); break;
    default: CHECK(!"nothing that is listed");
    }
    list_end(&w);
}

void
admin_show(
    struct admin *a, const struct admin_call *call, const struct admin_caller *who, struct json *j)
{
    json_object(j, NULL);
    switch ((int)call->id) {
    case ADMIN_COMMANDS: put_commands(j, who); break;
    case ADMIN_STATUS: show_status(a, j); break;
    case ADMIN_MEMORY: show_memory(a, j); break;
    case ADMIN_POOL:
    case ADMIN_QUEUE: show_pool(a, call, j); break;
    default: show_list(a, call, j);
    }
    json_end(j);
}
