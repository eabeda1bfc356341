/*
 * ex_pipe: between the sockets and a pipe: payload out of its framing, and output into new framing.
 */
#include "proxy/proxy_impl.h"

#include "base/no_block.h"

#define SMALL_PAYLOAD 16384 /* copied, so that a few bytes do not hold a whole block */
#define FINAL_LEN     5     /* "0\r\n\r\n" */

/* Copies the payload at the front of s into a new block; *used: how much of s is dealt with. */
static enum payload
copy_payload(struct http_body *body, struct str s, size_t *used, struct blk **out)
{
    struct blk *b = blk_get_sized(s.len);
    *used = 0;
    if (b == NULL)
        return PAYLOAD_NO_MEMORY;
    enum http_body_result r = HTTP_BODY_MORE;
    while (r == HTTP_BODY_MORE && *used < s.len) {
        struct str data = STR_NULL;
        size_t n = 0;
        r = http_body_next(body, str_n(s.p + *used, s.len - *used), &data, &n);
        if (data.len > 0)
            memcpy(b->data + b->end, data.p, data.len);
        b->end += data.len;
        *used += n;
    }
    if (b->end == 0)
        blk_put(&b);
    *out = b;
    return r == HTTP_BODY_BAD ? PAYLOAD_BAD : PAYLOAD_OK;
}

enum payload
payload_copy(struct http_body *body, struct buf *in, struct blk **out)
{
    size_t used;
    *out = NULL;
    enum payload r = copy_payload(body, str_n(in->p, in->len), &used, out);
    buf_consume(in, used);
    return r;
}

/* Moves the runs of payload together at the front; returns where the rest begins. */
static size_t
compact(struct http_body *body, struct blk *b, enum http_body_result *r)
{
    size_t at = b->start, to = b->start;
    *r = HTTP_BODY_MORE;
    while (*r == HTTP_BODY_MORE && at < b->end) {
        struct str data = STR_NULL;
        size_t n = 0;
        *r = http_body_next(body, str_n(b->data + at, b->end - at), &data, &n);
        if (data.len > 0) {
            if (to == b->start)
                b->start = to = (size_t)(data.p - b->data); /* the first run stays where it is */
            else
                memmove(b->data + to, data.p, data.len);
            to += data.len;
        }
        at += n;
    }
    size_t rest = b->end - at;
    b->end = to;
    return rest;
}

enum payload
payload_take(struct http_body *body, struct blk **bp, struct blk **out, bool *lost)
{
    struct blk *b = *bp;
    *out = NULL;
    *lost = false;
    if (blk_len(b) <= SMALL_PAYLOAD) {
        size_t used;
        enum payload r = copy_payload(body, str_n(b->data + b->start, blk_len(b)), &used, out);
        b->start += used;
        if (blk_len(b) == 0)
            b->start = b->end = 0;
        return r;
    }
    size_t end = b->end;
    enum http_body_result r;
    size_t rest = compact(body, b, &r);
    *bp = NULL;
    if (rest > 0) { /* the next request came along */
        struct blk *next = blk_get_sized(rest);
        *lost = next == NULL;
        if (next != NULL) {
            memcpy(next->data, b->data + end - rest, rest);
            next->end = rest;
        }
        *bp = next;
    }
    if (blk_len(b) == 0)
        blk_put(&b);
    *out = b;
    return r == HTTP_BODY_BAD ? PAYLOAD_BAD : PAYLOAD_OK;
}

/* Puts a chunk's framing around the block, in the room the pipe left for it. */
static void
frame(struct blk *b, bool last)
{
    char line[PIPE_HEADROOM + 1];
    int n = snprintf(line, sizeof line, "%zx\r\n", blk_len(b));
    CHECK(n > 0 && (size_t)n <= b->start);
    b->start -= (size_t)n;
    memcpy(b->data + b->start, line, (size_t)n);
    struct str tail = last ? STR("\r\n0\r\n\r\n") : STR("\r\n");
    CHECK(b->cap - b->end >= tail.len);
    memcpy(b->data + b->end, tail.p, tail.len);
    b->end += tail.len;
}

bool
sink_ready(struct pipe_sink *s)
{
    if (s->cur != NULL || s->final_left > 0)
        return true;
    if (s->pipe == NULL || s->ended)
        return false;
    s->cur = pipe_take(s->pipe);
    bool last = pipe_status(s->pipe) == PIPE_ENDED;
    if (last)
        s->ended = true;
    if (s->cur == NULL) {
        s->final_left = last && !s->raw ? FINAL_LEN : 0;
        return s->final_left > 0;
    }
    if (!s->raw)
        frame(s->cur, last);
    return true;
}

void
sink_iov(struct pipe_sink *s, struct iovec *v, int *count)
{
    static char final[FINAL_LEN] = "0\r\n\r\n";
    if (s->cur != NULL)
        v[(*count)++] = (struct iovec){s->cur->data + s->cur->start, blk_len(s->cur)};
    else
        v[(*count)++] = (struct iovec){final + FINAL_LEN - s->final_left, s->final_left};
}

void
sink_sent(struct pipe_sink *s, size_t n)
{
    if (s->cur == NULL) {
        CHECK(n <= s->final_left);
        s->final_left -= (unsigned)n;
        return;
    }
    s->cur->start += n;
    if (blk_len(s->cur) == 0)
        pipe_give_back(s->pipe, &s->cur);
}

bool
sink_done(const struct pipe_sink *s)
{
    return s->ended && s->cur == NULL && s->final_left == 0;
}

void
sink_put(struct pipe_sink *s, struct blk **bp, bool more)
{
    pipe_put(s->pipe, bp, !more);
    s->unflushed = more;
}

void
sink_flush(struct pipe_sink *s)
{
    if (s->unflushed)
        pipe_flush(s->pipe);
    s->unflushed = false;
}

void
sink_close(struct pipe_sink *s)
{
    blk_put(&s->cur);
    pipe_close(&s->pipe);
    *s = (struct pipe_sink){.raw = false};
}
