/*
 * The input is a message body; its first byte chooses the framing (and the length, where there is
 * one). Promises checked: scan, next, run and skip agree on the payload and on the end, however the
 * bytes were cut, and all agree with a reader of the chunked coding that is written for plainness.
 */
#include "fuzz_http.h"

#include "http/http.h"

struct outcome {
    enum http_body_result res;
    size_t used;
    size_t payload_len;
    char *payload; /* owned; NULL where the reader does not see it */
    bool odd;
    const char *why;
};

static void
begin(struct http_body *b, uint8_t kind)
{
    static const enum http_framing framings[] = {
        HTTP_BODY_CHUNKED, HTTP_BODY_LENGTH, HTTP_BODY_CLOSE, HTTP_BODY_NONE};
    /* Chunked for most first bytes: there the bugs would be. */
    size_t i = kind < 0xc0 ? 0 : (size_t)(kind & 3);
    http_body_init(b, framings[i], kind >> 2);
}

enum reader { BY_SCAN, BY_NEXT, BY_SKIP };

/* One piece through one of the interfaces; advances o. */
static void
feed(struct http_body *b, enum reader by, struct str piece, struct outcome *o)
{
    struct str data = str_n(piece.p, 0);
    size_t used = 0;
    uint64_t run = http_body_run(b);
    if (by == BY_SCAN) {
        o->res = http_body_scan(b, piece, &used);
        CHECK(o->res != HTTP_BODY_MORE || used == piece.len);
    } else if (by == BY_SKIP && run > 0) {
        used = run < piece.len ? (size_t)run : piece.len;
        data.len = used;
        http_body_skip(b, used);
        o->res = b->framing == HTTP_BODY_LENGTH && http_body_is_done(b) ? HTTP_BODY_DONE
                                                                        : HTTP_BODY_MORE;
    } else {
        o->res = http_body_next(b, piece, &data, &used);
        CHECK(o->res != HTTP_BODY_MORE || used > 0);
        CHECK(data.p >= piece.p && data.p + data.len <= piece.p + used);
    }
    CHECK(used <= piece.len);
    memcpy(o->payload + o->payload_len, data.p, data.len);
    o->payload_len += data.len;
    o->used += used;
}

/* The body in pieces: up to `first` bytes, then up to `then`. */
static struct outcome
read_body(uint8_t kind, struct str s, enum reader by, size_t first, size_t then)
{
    struct http_body b;
    struct outcome o = {.res = HTTP_BODY_MORE, .payload = malloc(s.len + 1)};
    CHECK(o.payload != NULL);
    begin(&b, kind);
    bool done = http_body_is_done(&b);
    if (done)
        o.res = HTTP_BODY_DONE;
    size_t end = size_min(first, s.len);
    while (o.res == HTTP_BODY_MORE && o.used < s.len) {
        if (o.used == end)
            end = size_min(end + then, s.len);
        struct str piece = fuzz_copy(str_n(s.p + o.used, end - o.used));
        if (piece.len > 0)
            feed(&b, by, piece, &o);
        fuzz_free(piece);
    }
    CHECK(http_body_is_done(&b) == (o.res == HTTP_BODY_DONE));
    if (by != BY_SCAN)
        CHECK(b.total == o.payload_len);
    else
        o.payload_len = (size_t)b.total;
    o.odd = b.odd;
    o.why = b.why;
    return o;
}

static void
check_same(uint8_t kind, struct str s, const struct outcome *want, enum reader by, size_t first,
    size_t then)
{
    struct outcome o = read_body(kind, s, by, first, then);
    CHECK(o.res == want->res && o.used == want->used && o.payload_len == want->payload_len);
    CHECK(o.odd == want->odd && o.why == want->why);
    if (by != BY_SCAN)
        CHECK(memcmp(o.payload, want->payload, o.payload_len) == 0);
    free(o.payload);
}

struct whole {
    uint8_t kind;
    struct outcome o;
};

static void
check_split(struct str s, size_t n, void *arg)
{
    const struct whole *w = arg;
    check_same(w->kind, s, &w->o, BY_SCAN, n, s.len);
    check_same(w->kind, s, &w->o, BY_NEXT, n, s.len);
    check_same(w->kind, s, &w->o, BY_SKIP, n, s.len);
}

/* The next CRLF line of s from *at; false when there is none. */
static bool
plain_line(struct str s, size_t *at, struct str *line)
{
    const char *lf = *at < s.len ? memmem(s.p + *at, s.len - *at, "\r\n", 2) : NULL;
    if (lf == NULL)
        return false;
    *line = str_n(s.p + *at, (size_t)(lf - s.p) - *at);
    *at += line->len + 2;
    return true;
}

/* The end of a chunked body by a plain reader that trusts what it reads; 0: it does not end. */
static size_t
plain_end(struct str s)
{
    size_t at = 0;
    for (;;) {
        struct str line;
        char text[64] = "";
        if (!plain_line(s, &at, &line))
            return 0;
        size_t zeros = 0;
        while (zeros < line.len && line.p[zeros] == '0')
            zeros++;
        memcpy(text, line.p + zeros, size_min(line.len - zeros, sizeof(text) - 1));
        uint64_t size = strtoull(text, NULL, 16);
        if (size == 0)
            break;
        if (size > s.len - at || s.len - at - size < 2)
            return 0;
        at += (size_t)size + 2;
    }
    struct str trailer;
    do {
        if (!plain_line(s, &at, &trailer))
            return 0;
    } while (trailer.len > 0);
    return at;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    struct str s = fuzz_copy(str_n((const char *)data + 1, size - 1));
    struct whole w = {.kind = data[0]};
    w.o = read_body(w.kind, s, BY_NEXT, s.len, s.len);
    CHECK((w.o.res == HTTP_BODY_BAD) == (w.o.why != NULL));
    fuzz_each_prefix(s, check_split, &w);
    check_same(w.kind, s, &w.o, BY_NEXT, 1, 1);
    check_same(w.kind, s, &w.o, BY_SCAN, 1, 1);
    if (w.kind < 0xc0 && w.o.res == HTTP_BODY_DONE)
        CHECK(plain_end(s) == w.o.used);
    if (w.kind < 0xc0 && w.o.res == HTTP_BODY_MORE)
        CHECK(plain_end(s) == 0);
    free(w.o.payload);
    fuzz_free(s);
    return 0;
}
