/*
 * session: requests with the same user and session_id run one after another, always on the same
 * server. ClickHouse would refuse the second of two at once (code 373), and another server would
 * not know the session.
 */
#include "proxy/proxy_impl.h"

#include "base/no_block.h"

#define BUCKETS 1024

struct session {
    struct list bucket_link;
    struct list idle_link; /* on sessions.idle while nobody runs or waits; oldest first */
    struct sessions *all;
    struct exchange *running;
    struct list waiting;
    struct loop_task turn_task;
    struct uaddr *addr; /* counted; NULL until a request ran */
    uint64_t
        last_conn; /* the server frees its lock a moment after its answer: best reuse this one */
    uint64_t hash;
    struct mono used;
    int64_t timeout_us;
    size_t user_len, id_len;
    char key[]; /* user, then session id */
};

struct sessions {
    struct upstream *up;
    struct list bucket[BUCKETS];
    struct list idle;
    size_t count, waiting;
};

struct sessions *
sessions_new(struct upstream *up)
{
    struct sessions *ss = mem_zalloc(sizeof *ss);
    if (ss == NULL)
        return NULL;
    ss->up = up;
    for (size_t i = 0; i < BUCKETS; i++)
        list_init(&ss->bucket[i]);
    list_init(&ss->idle);
    return ss;
}

static void LOOP_ONLY
session_free(struct session *s)
{
    struct sessions *ss = s->all;
    CHECK(s->running == NULL && list_empty(&s->waiting));
    list_unlink(&s->idle_link);
    list_remove(&s->bucket_link);
    loop_undefer(&s->turn_task);
    uaddr_unref(&s->addr);
    mem_give(sizeof *s + s->user_len + s->id_len);
    mem_free(s);
    ss->count--;
    metric_set_in(ss->up->metrics, M_SESSIONS, (int64_t)ss->count);
}

void
sessions_free(struct sessions **sp)
{
    struct sessions *ss = *sp;
    if (ss == NULL)
        return;
    *sp = NULL;
    struct list *node;
    while ((node = list_first(&ss->idle)) != NULL)
        session_free(CONTAINER_OF(node, struct session, idle_link));
    CHECK(ss->count == 0);
    mem_free(ss);
}

size_t
sessions_waiting(const struct sessions *ss)
{
    return ss->waiting;
}

/* The server has forgotten it by now: so may we. */
static void LOOP_ONLY
forget_old(struct sessions *ss)
{
    struct mono now = loop_now(ss->up->px->loop);
    for (int i = 0; i < 8; i++) {
        struct list *node = list_first(&ss->idle);
        if (node == NULL)
            return;
        struct session *s = CONTAINER_OF(node, struct session, idle_link);
        bool full = ss->count >= (size_t)ss->up->cfg->max_sessions;
        if (!full && mono_diff_us(now, s->used) < s->timeout_us)
            return;
        session_free(s);
    }
}

static struct session *LOOP_ONLY
session_find(struct sessions *ss, const struct ch_request *ch, uint64_t hash)
{
    LIST_EACH (node, &ss->bucket[hash % BUCKETS]) {
        struct session *s = CONTAINER_OF(node, struct session, bucket_link);
        if (s->hash == hash && str_eq(str_n(s->key, s->user_len), str_n(ch->user, ch->user_len)) &&
            str_eq(
                str_n(s->key + s->user_len, s->id_len), str_n(ch->session_id, ch->session_id_len)))
            return s;
    }
    return NULL;
}

static struct session *LOOP_ONLY
session_new(struct sessions *ss, const struct ch_request *ch, uint64_t hash)
{
    size_t size = sizeof(struct session) + ch->user_len + ch->session_id_len;
    if (!mem_take(size))
        return NULL;
    struct session *s = mem_zalloc(size);
    if (s == NULL) {
        mem_give(size);
        return NULL;
    }
    s->all = ss;
    s->hash = hash;
    s->user_len = ch->user_len;
    s->id_len = ch->session_id_len;
    memcpy(s->key, ch->user, ch->user_len);
    memcpy(s->key + ch->user_len, ch->session_id, ch->session_id_len);
    list_init(&s->waiting);
    list_push_back(&ss->bucket[hash % BUCKETS], &s->bucket_link);
    ss->count++;
    metric_set_in(ss->up->metrics, M_SESSIONS, (int64_t)ss->count);
    return s;
}

enum session_result
session_enter(struct sessions *ss, struct exchange *ex)
{
    const struct ch_request *ch = &ex->ch;
    forget_old(ss);
    uint64_t hash = hash64(hash64(hash_seed(), str_n(ch->user, ch->user_len)),
        str_n(ch->session_id, ch->session_id_len));
    struct session *s = session_find(ss, ch, hash);
    if (s == NULL)
        s = session_new(ss, ch, hash);
    if (s == NULL)
        return SESSION_NOMEM;
    ex->session = s;
    s->timeout_us = (int64_t)ch->session_timeout_s * 1000000;
    list_unlink(&s->idle_link);
    /* A turn already promised to somebody (the deferred call is on its way) comes first. */
    if (s->running == NULL && list_empty(&s->waiting)) {
        s->running = ex;
        return SESSION_GO;
    }
    list_push_back(&s->waiting, &ex->session_link);
    ss->waiting++;
    return SESSION_WAIT;
}

static void
on_turn(void *arg)
{
    thr_check_loop();
    struct session *s = arg;
    struct list *node = list_first(&s->waiting);
    if (s->running != NULL || node == NULL)
        return;
    list_remove(node);
    s->all->waiting--;
    s->running = CONTAINER_OF(node, struct exchange, session_link);
    exchange_on_session(s->running);
}

void
session_ran_on(struct session *s, struct uconn *uc)
{
    s->last_conn = uconn_id(uc);
    if (s->addr == uconn_addr(uc))
        return;
    uaddr_unref(&s->addr);
    s->addr = uaddr_ref(uconn_addr(uc));
}

struct uaddr *
session_pin(const struct session *s)
{
    return s->addr;
}

uint64_t
session_last_conn(const struct session *s)
{
    return s->last_conn;
}

void
session_leave(struct exchange *ex)
{
    struct session *s = ex->session;
    if (s == NULL)
        return;
    struct sessions *ss = s->all;
    ex->session = NULL;
    if (list_linked(&ex->session_link)) {
        list_remove(&ex->session_link);
        ss->waiting--;
    }
    if (s->running == ex)
        s->running = NULL;
    if (s->running != NULL)
        return;
    if (!list_empty(&s->waiting)) {
        loop_defer(ss->up->px->loop, &s->turn_task, on_turn, s);
        return;
    }
    s->used = loop_now(ss->up->px->loop);
    list_push_back(&ss->idle, &s->idle_link);
}
