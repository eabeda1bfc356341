/*
 * errand: a small request of chmux's own on a leased connection: KILL QUERY, or a question about
 * codings. The answer is tiny: it is read into one buffer and looked at from the start each time.
 */
#include "proxy/proxy_impl.h"

#include "base/no_block.h"

#define ANSWER_MAX 65536

void
errand_init(struct errand *e)
{
    *e = (struct errand){.coding = CODEC_IDENTITY};
    buf_init(&e->request, HTTP_MAX_HEAD);
    buf_init(&e->answer, ANSWER_MAX);
}

void
errand_fini(struct errand *e)
{
    buf_fini(&e->request);
    buf_fini(&e->answer);
}

void
errand_reset(struct errand *e)
{
    e->request.len = e->answer.len = e->sent = 0;
    e->why = NULL;
}

enum answer { ANSWER_MORE, ANSWER_BAD, ANSWER_WHOLE };

static void
note_field(struct errand *e, const struct http_field *f)
{
    uint64_t code;
    if (f->id == HTTP_F_CONTENT_ENCODING)
        e->coding = codec_by_name(f->value);
    else if (f->id == HTTP_F_CH_EXCEPTION && str_to_u64(f->value, 1000000, &code))
        e->exception_code = (int)code;
}

/* Takes one head off the front of *s. */
static enum answer
read_head(struct errand *e, struct str *s, struct http_status *st, struct http_meta *meta)
{
    size_t used = 0;
    enum http_result r = http_status_parse(*s, st, &used);
    if (r != HTTP_OK)
        return r == HTTP_BAD ? ANSWER_BAD : ANSWER_MORE;
    http_meta_init(meta);
    e->coding = CODEC_IDENTITY;
    e->exception_code = 0;
    for (;;) {
        struct http_field f;
        *s = str_n(s->p + used, s->len - used);
        enum http_line_result lr = http_line_next(*s, &f, &used);
        if (lr == HTTP_LINE_END)
            break;
        if (lr != HTTP_LINE_FIELD)
            return lr == HTTP_LINE_MORE ? ANSWER_MORE : ANSWER_BAD;
        if (http_meta_add(meta, &f) != ERR_OK)
            return ANSWER_BAD;
        note_field(e, &f);
    }
    *s = str_n(s->p + used, s->len - used);
    return ANSWER_WHOLE;
}

static enum answer
read_answer(struct errand *e)
{
    struct str s = str_n(e->answer.p, e->answer.len);
    struct http_status st;
    struct http_meta meta;
    size_t used = 0;
    do { /* an interim response is not the answer: that would come to whoever is next */
        enum answer a = read_head(e, &s, &st, &meta);
        if (a != ANSWER_WHOLE)
            return a;
    } while (st.code < 200);
    enum http_framing framing;
    struct http_body body;
    if (http_resp_framing(&meta, &st, HTTP_M_POST, &framing) != ERR_OK)
        return ANSWER_BAD;
    e->status = st.code;
    e->keep = http_resp_keep_alive(&meta, st.minor, framing);
    e->end.keep_alive_us = (int64_t)meta.keep_alive_timeout_s * 1000000;
    e->end.max_left = meta.keep_alive_max;
    http_body_init(&body, framing, meta.content_length);
    if (http_body_is_done(&body))
        return s.len == 0 ? ANSWER_WHOLE : ANSWER_BAD;
    switch (http_body_scan(&body, s, &used)) {
    case HTTP_BODY_DONE: return used == s.len ? ANSWER_WHOLE : ANSWER_BAD;
    case HTTP_BODY_MORE: return ANSWER_MORE;
    case HTTP_BODY_BAD: break;
    }
    return ANSWER_BAD;
}

/* 18.16 names the code only in its text. */
static void
find_code(struct errand *e)
{
    struct str mark = STR("Code: ");
    const char *at = memmem(e->answer.p, e->answer.len, mark.p, mark.len);
    if (e->status == 200 || e->exception_code != 0 || at == NULL)
        return;
    const char *end = e->answer.p + e->answer.len;
    for (at += mark.len; at < end && *at >= '0' && *at <= '9' && e->exception_code < 100000; at++)
        e->exception_code = e->exception_code * 10 + (*at - '0');
}

static enum errand_result
failed(struct errand *e, const char *why)
{
    e->why = why;
    return ERRAND_FAILED;
}

enum errand_result
errand_step(struct errand *e, struct conn *s)
{
    while (e->sent < e->request.len) {
        struct iovec v = {e->request.p + e->sent, e->request.len - e->sent};
        size_t n = 0;
        enum io r = conn_writev(s, &v, 1, &n);
        if (r == IO_WAIT)
            return ERRAND_WAIT;
        if (r != IO_OK)
            return failed(e, conn_why(s));
        e->sent += n;
    }
    for (;;) {
        char part[4096];
        size_t n = 0;
        enum io r = conn_read(s, part, sizeof part, &n);
        if (r == IO_WAIT)
            return ERRAND_WAIT;
        buf_add(&e->answer, part, n);
        enum answer a = read_answer(e);
        if (r == IO_OK && a == ANSWER_MORE && buf_ok(&e->answer))
            continue;
        if (a == ANSWER_WHOLE && buf_ok(&e->answer)) {
            find_code(e);
            return ERRAND_DONE;
        }
        return failed(e, "no valid answer");
    }
}
