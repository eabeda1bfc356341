#include "proxy/proxy.h"

#include "proxy/proxy_impl.h"
#include "rt/cores.h"

#include "base/no_block.h"

#define WORKERS_AUTO_MAX 8

static void
on_starved(void *arg)
{
    thr_check_loop();
    struct proxy *px = arg;
    struct list batch;
    list_init(&batch);
    struct list *node;
    while ((node = list_first(&px->starved)) != NULL) {
        list_remove(node);
        list_push_back(&batch, node);
    }
    /* Each may starve again, and then waits for the next round. */
    while ((node = list_first(&batch)) != NULL) {
        list_remove(node);
        exchange_on_memory(CONTAINER_OF(node, struct exchange, starved_link));
    }
}

void
proxy_check_drained(struct proxy *px)
{
    if (px->draining && !px->listening && px->client_count == 0 && px->kill_count == 0 &&
        px->drain_done != NULL)
        loop_defer(px->loop, &px->drain_task, px->drain_done, px->drain_arg);
}

/* Not before: idle clients may yet send a last request, and connections stand ready for it. */
static void
on_drain_quiet(void *arg)
{
    thr_check_loop();
    struct proxy *px = arg;
    for (size_t i = 0; i < px->upstream_count; i++)
        upool_drain(px->upstreams[i].pool);
}

/* Listeners close only after what the kernel had queued for them was taken: those clients hold a
 * connection already. */
static void
on_drain_min(void *arg)
{
    thr_check_loop();
    struct proxy *px = arg;
    for (size_t i = 0; i < px->door_count; i++) {
        listener_accept_rest(&px->doors[i].listener);
        listener_close(&px->doors[i].listener);
    }
    px->listening = false;
    LIST_EACH_SAFE (node, next, &px->clients)
        client_leave_soon(CONTAINER_OF(node, struct client, link));
    timer_arm_in(&px->quiet_timer, px->cfg->chmux.drain_idle);
    proxy_check_drained(px);
}

static size_t
worker_threads(const struct config *cfg)
{
    if (cfg->chmux.workers != CONFIG_AUTO)
        return (size_t)cfg->chmux.workers;
    return size_min(cores_usable(), WORKERS_AUTO_MAX);
}

static void
take_config(struct proxy *px, const struct config *cfg)
{
    px->cfg = cfg;
    for (size_t i = 0; i < px->upstream_count; i++)
        px->upstreams[i].cfg = &cfg->upstream[i];
    int n = snprintf(px->keep_alive_lines, sizeof px->keep_alive_lines,
        "Connection: Keep-Alive\r\nKeep-Alive: timeout=%" PRId64 "\r\n",
        cfg->chmux.idle_timeout / 1000000);
    px->keep_alive_len = (size_t)n;
}

bool
proxy_commit(struct proxy *px, const struct config *cfg, struct proxy_plan **pp)
{
    doors_commit(px, *pp);
    bool tls = proxy_take_plan(px, *pp);
    proxy_plan_free(pp);
    take_config(px, cfg);
    return tls;
}

static bool LOOP_ONLY
open_upstreams(struct proxy *px, const struct upools *pools)
{
    for (size_t i = 0; i < pools->count; i++) {
        struct upstream *up = &px->upstreams[px->upstream_count++];
        up->px = px;
        up->cfg = &px->cfg->upstream[i];
        up->pool = pools->pool[i];
        up->metrics = upool_metrics(up->pool);
        up->sessions = sessions_new(up);
        if (up->sessions == NULL)
            return false;
    }
    return true;
}

struct proxy *
proxy_new(struct loop *l, const struct config *cfg, const struct upools *pools)
{
    struct proxy *px = mem_zalloc(sizeof *px);
    if (px == NULL)
        return NULL;
    px->gates = (struct gates){.loop = l, .turn = exchange_on_gate};
    px->loop = l;
    px->cfg = cfg; /* some of what follows reads it */
    list_init(&px->clients);
    shakes_init(&px->shakes);
    list_init(&px->exchanges);
    list_init(&px->starved);
    list_init(&px->spare);
    list_init(&px->kills);
    http_req_init(&px->req);
    timer_init(&px->starved_timer, l, on_starved, px);
    timer_init(&px->drain_timer, l, on_drain_min, px);
    timer_init(&px->quiet_timer, l, on_drain_quiet, px);
    px->workers = workers_new(l, &(struct workers_spec){.threads = worker_threads(cfg),
                                     .nice = (int)cfg->chmux.worker_nice,
                                     .inline_limit = cfg->chmux.inline_limit,
                                     .queue_items = (size_t)cfg->chmux.pipe_items,
                                     .queue_bytes = cfg->chmux.pipe_bytes});
    buf_init(&px->busy_reply, 4096);
    buf_init(&px->nomem_reply, 4096);
    buf_init(&px->stranger_reply, 4096);
    ch_error_response(&px->stranger_reply, ERR_NOT_ALLOWED, NULL, 1, false, false);
    ch_error_response(&px->busy_reply, ERR_MAX_CLIENTS, NULL, 1, false, false);
    ch_error_response(&px->nomem_reply, ERR_NOMEM, NULL, 1, false, false);
    take_config(px, cfg);
    if (!open_upstreams(px, pools) || px->workers == NULL || !buf_ok(&px->busy_reply) ||
        !buf_ok(&px->nomem_reply) || !buf_ok(&px->stranger_reply) ||
        !timer_reserve(&px->starved_timer) || !timer_reserve(&px->drain_timer) ||
        !timer_reserve(&px->quiet_timer))
        proxy_free(&px);
    return px;
}

static bool LOOP_ONLY
adopt_one(struct proxy *px, struct passed_socket *s, const char *name, char *why, size_t why_len)
{
    char text[ADDR_TEXT_MAX], reason[256];
    struct door *d = door_place(px, why, why_len);
    if (d == NULL)
        return false;
    if (!door_may_be(px->cfg, &s->addr, reason, sizeof reason)) {
        addr_format(&s->addr, text);
        snprintf(why, why_len, "the passed socket \"%s\" (%s) %s", s->name, text, reason);
        return false;
    }
    passed_claim(s, &d->listener, true);
    door_set_name(d, name);
    return true;
}

/* Passed sockets that are this section's: by its name, or by its address under any other name. */
static bool LOOP_ONLY
adopt_for(struct proxy *px, size_t i, const struct addr *want, struct passed *passed, char *why,
    size_t why_len)
{
    const char *name = px->cfg->listen_name[i];
    for (size_t k = 0; k < passed->count; k++) {
        struct passed_socket *s = &passed->socket[k];
        bool named = strcmp(s->name, name) == 0;
        bool agrees = want == NULL || addr_eq(want, &s->addr);
        if (s->fd < 0 || strcmp(s->name, PASSED_ADMIN) == 0 || (!named && want == NULL))
            continue;
        if (named && !agrees) {
            char text[ADDR_TEXT_MAX];
            addr_format(&s->addr, text);
            snprintf(why, why_len,
                "[listen %s] address is %s, but the socket passed under that name is %s; make them "
                "agree, or leave the address out",
                name, px->cfg->listen[i].address, text);
            return false;
        }
        if (agrees && !adopt_one(px, s, name, why, why_len))
            return false;
    }
    return true;
}

static bool LOOP_ONLY
listen_one(struct proxy *px, size_t i, struct passed *passed, char *why, size_t why_len)
{
    const char *name = px->cfg->listen_name[i], *address = px->cfg->listen[i].address;
    const char *parse_why = "";
    struct addr want;
    bool has_address = address[0] != '\0';
    if (has_address && !addr_parse(str_of(address), &want, &parse_why)) {
        snprintf(why, why_len, "[listen %s] address %s: %s", name, address, parse_why);
        return false;
    }
    size_t before = px->door_count;
    if (!adopt_for(px, i, has_address ? &want : NULL, passed, why, why_len))
        return false;
    if (px->door_count > before)
        return true;
    if (!has_address) {
        snprintf(why, why_len, "[listen %s] has no address, and no socket of that name was passed",
            name);
        return false;
    }
    struct door *d = door_place(px, why, why_len);
    if (d == NULL)
        return false;
    if (door_open(px, d, px->cfg, i, why, why_len))
        return true;
    bool last = i + 1 == px->cfg->listen_count && before == 0;
    if (!door_may_lack(d, px->cfg, i) || last)
        return false;
    LOG_W("listen_skipped why=\"%s\"", why); /* a machine without IPv6 */
    px->door_count = before;
    return true;
}

static bool LOOP_ONLY
open_doors(struct proxy *px, struct passed *passed, char *why, size_t why_len)
{
    for (size_t i = 0; i < px->cfg->listen_count; i++)
        if (!listen_one(px, i, passed, why, why_len))
            return false;
    for (size_t k = 0; k < passed->count; k++) {
        struct passed_socket *s = &passed->socket[k];
        if (s->fd >= 0 && strcmp(s->name, PASSED_ADMIN) != 0 &&
            !adopt_one(px, s, s->name, why, why_len))
            return false;
    }
    return true;
}

bool
proxy_listen(struct proxy *px, struct passed *passed, char *why, size_t why_len)
{
    struct buf errors;
    buf_init(&errors, 1 << 16);
    struct proxy_plan *plan = proxy_plan_new(px->cfg, &errors);
    if (plan == NULL)
        snprintf(why, why_len, "%.*s", (int)(errors.len > 0 ? errors.len - 1 : 0), errors.p);
    buf_fini(&errors);
    bool ok = plan != NULL && open_doors(px, passed, why, why_len);
    if (ok)
        (void)proxy_take_plan(px, plan);
    proxy_plan_free(&plan);
    return ok;
}

bool
proxy_start(struct proxy *px)
{
    for (size_t i = 0; i < px->door_count; i++)
        if (!door_start(&px->doors[i]))
            return false;
    px->listening = true;
    return true;
}

/* By which of our listeners did this connection come in, in a process before us? */
static const struct door *LOOP_ONLY
door_of(const struct proxy *px, int fd)
{
    struct addr local = {.len = sizeof local.un};
    if (getsockname(fd, &local.sa, &local.len) != 0)
        return NULL;
    for (size_t i = 0; i < px->door_count; i++)
        if (addr_eq(&px->doors[i].listener.addr, &local))
            return &px->doors[i];
    for (size_t i = 0; i < px->door_count; i++) /* one that listens on every address */
        if (addr_port(&local) != 0 && addr_port(&px->doors[i].listener.addr) == addr_port(&local))
            return &px->doors[i];
    return NULL;
}

void
proxy_take_clients(struct proxy *px, struct passed *passed)
{
    struct addr peer;
    int fd;
    size_t count = 0;
    while ((fd = passed_client(passed, &peer)) >= 0) {
        client_accept(px, door_of(px, fd), fd, &peer);
        count++;
    }
    if (count == 0)
        return;
    LOG_I("clients_taken_over count=%zu", count);
    notify_forget(px->keeper, PASSED_CLIENT); /* or none of them would ever see us close */
}

void
proxy_set_keeper(struct proxy *px, struct notify *keeper)
{
    px->keeper = keeper;
    px->keep_left = size_min(notify_keep_max(keeper), PASSED_CLIENTS_MAX);
}

const char *
proxy_address(const struct proxy *px, size_t i, const char **name)
{
    if (i >= px->door_count)
        return NULL;
    *name = px->doors[i].name;
    return px->doors[i].listener.text;
}

void
proxy_drain(struct proxy *px, loop_fn done, void *arg)
{
    if (px->draining)
        return;
    px->draining = true;
    for (size_t i = 0; i < px->upstream_count; i++) /* who waits is served, or learns why not */
        upool_pause(px->upstreams[i].pool, false);
    px->drain_done = done;
    px->drain_arg = arg;
    metric_set(M_DRAINING, 1);
    if (px->cfg->chmux.drain_min > 0)
        timer_arm_in(&px->drain_timer, px->cfg->chmux.drain_min);
    else
        on_drain_min(px);
}

static void
set_ratio(enum metric_id gauge, enum metric_id local, enum metric_id link)
{
    int64_t plain = metric_get(local);
    metric_set(gauge, plain == 0 ? 0 : (int64_t)((double)metric_get(link) / (double)plain * 1000));
}

void
proxy_update_metrics(const struct proxy *px)
{
    workers_update_metrics(px->workers);
    for (size_t i = 0; i < px->upstream_count; i++) {
        const struct upstream *up = &px->upstreams[i];
        struct upool_stats st;
        upool_stats(up->pool, &st);
        metric_set_in(up->metrics, M_QUEUED,
            (int64_t)(st.waiting + sessions_waiting(up->sessions) + up->gate_queued));
        metric_set_in(up->metrics, M_SESSIONS_WAITING, (int64_t)sessions_waiting(up->sessions));
        metric_set_in(up->metrics, M_SESSIONS_MAX, up->cfg->max_sessions);
    }
    set_ratio(M_LINK_REQUEST_RATIO, M_LINK_REQUEST_PLAIN, M_LINK_REQUEST_CODED);
    set_ratio(M_LINK_RESPONSE_RATIO, M_LINK_RESPONSE_PLAIN, M_LINK_RESPONSE_CODED);
}

size_t
proxy_sessions_waiting(const struct proxy *px)
{
    size_t n = 0;
    for (size_t i = 0; i < px->upstream_count; i++)
        n += sessions_waiting(px->upstreams[i].sessions);
    return n;
}

size_t
proxy_users_waiting(const struct proxy *px)
{
    return px->gates.queued;
}

size_t
proxy_sessions_waiting_in(const struct proxy *px, size_t upstream)
{
    return sessions_waiting(px->upstreams[upstream].sessions);
}

bool
proxy_is_draining(const struct proxy *px)
{
    return px->draining;
}

size_t
proxy_cut(struct proxy *px)
{
    size_t cut = 0;
    for (size_t i = 0; i < px->door_count; i++)
        listener_close(&px->doors[i].listener);
    px->listening = false;
    LIST_EACH_SAFE (node, next, &px->clients) {
        struct client *c = CONTAINER_OF(node, struct client, link);
        cut += c->state == CLIENT_BUSY;
        client_close(c);
    }
    kills_abort(px);
    return cut;
}

void
proxy_free(struct proxy **pp)
{
    struct proxy *px = *pp;
    if (px == NULL)
        return;
    *pp = NULL;
    for (size_t i = 0; i < px->door_count; i++) {
        listener_close(&px->doors[i].listener);
        door_tls_fini(&px->doors[i].tls);
    }
    loop_undefer(&px->shakes.task);
    CHECK(px->client_count == 0 && px->kill_count == 0);
    loop_undefer(&px->drain_task);
    timer_fini(&px->starved_timer);
    tubes_fini(&px->tubes);
    timer_fini(&px->drain_timer);
    timer_fini(&px->quiet_timer);
    exchange_free_spares(px);
    workers_free(&px->workers);
    for (size_t i = 0; i < px->upstream_count; i++) {
        sessions_free(&px->upstreams[i].sessions);
        caps_free(&px->upstreams[i].caps);
    }
    http_req_fini(&px->req);
    buf_fini(&px->busy_reply);
    buf_fini(&px->nomem_reply);
    buf_fini(&px->stranger_reply);
    users_free(&px->users);
    mem_free(px);
}
