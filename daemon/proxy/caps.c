/*
 * caps: which codings a server understands and lets a user have. Old servers know only gzip, or
 * code results only when enable_http_compression is set, which a read-only user may not do. None of
 * that may ever fail a request of a client, so it is asked once, with the caller's own credentials
 * and a query of our own, before the first request that could make use of it.
 */
#include "proxy/proxy_impl.h"

#include "base/no_block.h"

#define CAPS_SLOTS   1024                     /* a power of two; a newcomer takes the place */
#define CAPS_LIFE_US (INT64_C(600) * 1000000) /* servers are upgraded, rights change */
#define TRUSTED_US   (INT64_C(10) * 1000000)  /* an error without a code is another's fault */
#define PAUSE_MIN_US 1000000
#define PAUSE_MAX_US 60000000

struct caps {
    uint64_t versions; /* given out */
    struct caps_entry slot[CAPS_SLOTS];
};

struct caps *
caps_new(void)
{
    if (!mem_take(sizeof(struct caps)))
        return NULL;
    struct caps *c = mem_zalloc(sizeof *c);
    if (c == NULL)
        mem_give(sizeof *c);
    return c;
}

void
caps_free(struct caps **cp)
{
    if (*cp == NULL)
        return;
    mem_free(*cp);
    mem_give(sizeof **cp);
    *cp = NULL;
}

/* Server, user and what is wanted. */
static uint64_t LOOP_ONLY
key_of(const struct exchange *ex)
{
    const struct recode *rc = ex->rc;
    struct uaddr *a = uconn_addr(ex->uc);
    uint64_t h = hash64(hash_seed(), uaddr_authority(a));
    h = hash64(h, str_of(uaddr_text(a)));
    h = hash64(h + ex->given_user, str_n(ex->ch.user, ex->ch.user_len));
    h = hash64(h + (uint64_t)rc->want_request * 16 + (uint64_t)rc->want_response, STR("caps"));
    return h | 1; /* never 0 */
}

struct caps_entry *
caps_find(struct caps *c, const struct exchange *ex, struct mono now)
{
    uint64_t key = key_of(ex);
    struct caps_entry *e = &c->slot[(key >> 1) % CAPS_SLOTS];
    if (e->key == key && mono_diff_us(now, e->since) < CAPS_LIFE_US)
        return e;
    *e = (struct caps_entry){
        .key = key,
        .version = ++c->versions,
        .since = now,
        .request = ex->rc->want_request,
        .request_known = ex->rc->want_request == CODEC_IDENTITY,
        .response_known = ex->rc->want_response == CODEC_IDENTITY,
    };
    return e;
}

/* Compresses all of `text`, which is short. */
static bool
encode(enum codec_id id, struct str text, struct buf *out)
{
    struct codec_spec spec = {.id = id, .encode = true, .level = 1};
    struct codec *c = codec_new(&spec);
    char room[512];
    struct codec_io io = {.in = text.p, .in_len = text.len, .out = room, .out_cap = sizeof room};
    bool ok = c != NULL && codec_run(c, CODEC_FINISH, &io) == CODEC_DONE;
    codec_free(&c);
    if (ok)
        buf_add(out, room, sizeof room - io.out_cap);
    return ok && buf_ok(out);
}

/* What the question accepts. 18.16 refuses a coded body in gzip to whoever accepts gzip, and then
 * its reason cannot be read: so that is not accepted along with it. */
static struct str
accept_for(const struct caps_question *q, enum codec_id want)
{
    if (!q->response)
        return STR("");
    if (q->request == CODEC_IDENTITY)
        return recode_accept(want);
    return want == CODEC_GZIP ? STR("") : str_of(codec_name(want));
}

bool
caps_ask(struct caps_entry *c, const struct exchange *ex, const struct http_req *r,
    struct recode *rc, struct mono now)
{
    if ((c->request_known && c->response_known) || mono_diff_us(now, c->ask_at) < 0)
        return false;
    struct caps_question *q = &rc->question;
    struct errand *e = &rc->probe;
    struct str query = STR("SELECT 1");
    struct buf body;
    buf_init(&body, 1024);
    /* One thing at a time can go wrong: the setting is tried with a plain body. */
    *q = (struct caps_question){
        .of = {c, c->version},
        .request = c->request_known ? CODEC_IDENTITY : c->request,
        .response = !c->response_known,
        .setting = c->request_known && !c->response_known && c->with_setting,
    };
    bool ok = true;
    if (q->request == CODEC_IDENTITY)
        buf_str(&body, query);
    else
        ok = encode(q->request, query, &body);
    struct ch_probe p = {
        .request = q->request,
        .body = str_n(body.p, body.len),
        .accept = accept_for(q, rc->want_response),
        .setting = q->setting,
    };
    errand_reset(e);
    ch_probe_request(&e->request, r, uaddr_authority(uconn_addr(ex->uc)), &p);
    buf_fini(&body);
    return ok && buf_ok(&e->request);
}

static void
learn_response(struct caps_entry *c, const struct caps_question *q, const struct errand *e)
{
    bool coded = e->coding != CODEC_IDENTITY && e->coding != CODEC_COUNT;
    if (!coded && q->request != CODEC_IDENTITY)
        return; /* it was not asked for all that it may do */
    if (!coded && !q->setting) {
        c->with_setting = true; /* next: ask with the setting */
        return;
    }
    c->response_known = true;
    c->response_ok = coded;
}

/* 18.16: UNKNOWN_COMPRESSION_METHOD; 26.7: NOT_IMPLEMENTED; a server that looks past the field
 * reads the coded bytes as SQL: SYNTAX_ERROR. */
static bool
says_no_coding(int code)
{
    return code == 89 || code == 48 || code == 62;
}

/* UNKNOWN_SETTING, READONLY, SETTING_CONSTRAINT_VIOLATION. */
static bool
says_no_setting(int code)
{
    return code == 115 || code == 164 || code == 452;
}

/* Takes the answer e to q, which is what c would ask now. */
static bool
learn(struct caps_entry *c, const struct caps_question *q, const struct errand *e)
{
    if (e->status == 200 && e->exception_code == 0) {
        if (q->response)
            learn_response(c, q, e);
        c->request_known = true;
        return true;
    }
    /* Anything else, such as not being let in or overload, says nothing about codings. */
    if (q->request != CODEC_IDENTITY && says_no_coding(e->exception_code)) {
        c->request_known = q->request == CODEC_GZIP;
        c->request = c->request_known ? CODEC_IDENTITY : CODEC_GZIP;
        return true;
    }
    bool in_gzip = e->status == 500 && e->coding != CODEC_IDENTITY;
    if (q->setting && (says_no_setting(e->exception_code) || in_gzip)) {
        c->response_known = true;
        return true;
    }
    return false;
}

bool
caps_learn(struct caps *c, const struct caps_question *q, const struct errand *e)
{
    struct caps_entry *entry = q->of.entry;
    /* Somebody else's answer came first, or the entry is another user's by now. */
    if (entry->version != q->of.version)
        return true;
    if (!learn(entry, q, e))
        return false;
    entry->version = ++c->versions;
    entry->ask_at = (struct mono){0};
    entry->pause_us = 0;
    return true;
}

/* Of those who asked at the same time, the first one makes the pause. */
void
caps_failed(const struct caps_question *q, struct mono now)
{
    struct caps_entry *entry = q->of.entry;
    if (entry->version != q->of.version || mono_diff_us(now, entry->ask_at) < 0)
        return;
    int64_t longer = entry->pause_us == 0 ? PAUSE_MIN_US : 2 * entry->pause_us;
    entry->pause_us = longer < PAUSE_MAX_US ? longer : PAUSE_MAX_US;
    entry->ask_at = mono_add_us(now, entry->pause_us);
}

/* A request fails with 62 for its own sake. 18.16 puts no code into the head, and the text may be
 * coded; there it is asked anew once in a while. */
void
caps_doubt(const struct recode *rc, int code, struct mono now)
{
    struct caps_entry *entry = rc->plan.entry;
    bool refused = (rc->up_on && (code == 89 || code == 48)) || (rc->set && says_no_setting(code));
    bool perhaps = (rc->up_on || rc->set) && code == 0;
    if (entry->version != rc->plan.version)
        return;
    if (refused || (perhaps && mono_diff_us(now, entry->since) >= TRUSTED_US))
        *entry = (struct caps_entry){0};
}
