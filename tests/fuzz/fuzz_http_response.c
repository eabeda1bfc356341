/*
 * The input is what an upstream sends to one request; its first byte chooses the request's method.
 * The response is read as the proxy does it, line by line, then by its framing. Promises checked:
 * where the response ends, and what it says, does not depend on how the bytes were cut.
 */
#include "fuzz_http.h"

#include "http/http.h"

/* A reader of one response that is fed pieces. Bytes it could not use yet stay in its buffer. */
struct reader {
    enum http_method method;
    enum { IN_STATUS, IN_FIELDS, IN_BODY, ENDED, BROKEN } at;
    char *pending;
    size_t pending_len, cap;
    struct http_status status;
    struct http_meta meta;
    size_t fields;
    enum http_framing framing;
    struct http_body body;
    uint64_t used; /* bytes that belong to the response */
};

static void
reader_init(struct reader *r, enum http_method method, size_t cap)
{
    *r = (struct reader){.method = method, .cap = cap, .pending = malloc(cap > 0 ? cap : 1)};
    CHECK(r->pending != NULL);
    http_meta_init(&r->meta);
}

static void
check_field(struct str s, const struct http_field *f, size_t used)
{
    CHECK(used <= s.len && f->line.p == s.p && f->line.len == used);
    CHECK(memcmp(s.p + used - 2, "\r\n", 2) == 0);
    for (size_t i = 0; i < used - 2; i++)
        CHECK(s.p[i] != '\r' && s.p[i] != '\n' && s.p[i] != '\0');
    CHECK(f->name.p == s.p && f->name.len > 0 && f->name.p[f->name.len] == ':');
    CHECK(f->value.p > f->name.p && f->value.p + f->value.len <= s.p + used - 2);
    CHECK(http_field_lookup(f->name) == f->id);
}

static size_t
read_status(struct reader *r, struct str s)
{
    size_t used = 0;
    enum http_result res = http_status_parse(s, &r->status, &used);
    if (res == HTTP_MORE)
        return 0;
    r->at = res == HTTP_OK ? IN_FIELDS : BROKEN;
    if (res != HTTP_OK)
        return 0;
    CHECK(used <= s.len && used <= HTTP_MAX_STATUS_LINE + 1);
    CHECK(r->status.code >= 100 && r->status.code <= 599);
    return used;
}

static void
start_body(struct reader *r)
{
    enum err e = http_resp_framing(&r->meta, &r->status, r->method, &r->framing);
    r->at = e == ERR_OK ? IN_BODY : BROKEN;
    if (e != ERR_OK)
        return;
    CHECK(r->framing == HTTP_BODY_NONE || r->method != HTTP_M_HEAD);
    CHECK(r->framing != HTTP_BODY_CHUNKED || r->status.minor == 1);
    if (http_resp_keep_alive(&r->meta, r->status.minor, r->framing))
        CHECK(r->status.minor == 1 && r->framing != HTTP_BODY_CLOSE);
    http_body_init(&r->body, r->framing, r->meta.content_length);
    if (http_body_is_done(&r->body))
        r->at = ENDED;
}

static size_t
read_line(struct reader *r, struct str s)
{
    struct http_field f;
    size_t used = 0;
    switch (http_line_next(s, &f, &used)) {
    case HTTP_LINE_FIELD:
        check_field(s, &f, used);
        r->fields++;
        if (http_meta_add(&r->meta, &f) != ERR_OK)
            r->at = BROKEN;
        return used;
    case HTTP_LINE_END: start_body(r); return used;
    case HTTP_LINE_MORE: return 0;
    case HTTP_LINE_BAD: CHECK(http_line_why(s) != NULL); break;
    case HTTP_LINE_LARGE: break;
    }
    r->at = BROKEN;
    return 0;
}

static size_t
read_body(struct reader *r, struct str s)
{
    size_t used = 0;
    switch (http_body_scan(&r->body, s, &used)) {
    case HTTP_BODY_MORE: CHECK(used == s.len); break;
    case HTTP_BODY_DONE: r->at = ENDED; break;
    case HTTP_BODY_BAD: r->at = BROKEN; break;
    }
    CHECK(used <= s.len);
    return used;
}

static void
reader_feed(struct reader *r, struct str piece)
{
    CHECK(piece.len <= r->cap - r->pending_len);
    if (piece.len > 0)
        memcpy(r->pending + r->pending_len, piece.p, piece.len);
    struct str all = fuzz_copy(str_n(r->pending, r->pending_len + piece.len));
    size_t at = 0, used = 1;
    while (used > 0 && r->at < ENDED) {
        struct str s = str_n(all.p + at, all.len - at);
        used = 0;
        if (r->at == IN_STATUS)
            used = read_status(r, s);
        else if (r->at == IN_FIELDS)
            used = read_line(r, s);
        else if (s.len > 0)
            used = read_body(r, s);
        at += used;
    }
    r->used += at;
    r->pending_len = all.len - at;
    memcpy(r->pending, all.p + at, r->pending_len);
    fuzz_free(all);
}

static void
check_split(struct str s, size_t n, void *arg)
{
    const struct reader *want = arg;
    struct reader r;
    reader_init(&r, want->method, s.len);
    reader_feed(&r, str_n(s.p, n));
    if (r.at < ENDED)
        reader_feed(&r, str_n(s.p + n, s.len - n));
    CHECK(r.at == want->at && r.used == want->used && r.fields == want->fields);
    CHECK(r.framing == want->framing && r.body.total == want->body.total);
    CHECK(r.meta.keep_alive_max == want->meta.keep_alive_max);
    free(r.pending);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const enum http_method methods[] = {HTTP_M_GET, HTTP_M_HEAD, HTTP_M_POST, HTTP_M_OTHER};
    if (size == 0)
        return 0;
    struct str s = str_n((const char *)data + 1, size - 1);
    struct reader whole;
    reader_init(&whole, methods[data[0] % COUNT_OF(methods)], s.len);
    reader_feed(&whole, s);
    fuzz_each_prefix(s, check_split, &whole);
    free(whole.pending);
    return 0;
}
