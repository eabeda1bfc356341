#include "http/http.h"

#include "base/mem.h"
#include "http/http_scan.h"

void
http_req_init(struct http_req *r)
{
    *r = (struct http_req){.fields = r->inline_fields};
}

void
http_req_fini(struct http_req *r)
{
    mem_free(r->heap_fields);
    http_req_init(r);
}

static enum http_result
bad(struct http_req *r, enum err *e, enum err code, const char *why)
{
    *e = code;
    r->why = why;
    return HTTP_BAD;
}

/* RFC 9112 section 2.2: empty lines before the request line are skipped. *at counts them. */
static enum http_result
skip_empty_lines(struct str s, size_t *at)
{
    *at = 0;
    while (*at < s.len && s.p[*at] == '\r') {
        if (*at + 1 == s.len)
            return HTTP_MORE;
        if (s.p[*at + 1] != '\n' || *at == 2 * HTTP_MAX_LEADING_CRLF)
            return HTTP_BAD;
        *at += 2;
    }
    return *at < s.len ? HTTP_OK : HTTP_MORE;
}

static enum http_method
method_of(struct str m)
{
    switch (m.len) {
    case 3: return memcmp(m.p, "GET", 3) == 0 ? HTTP_M_GET : HTTP_M_OTHER;
    case 4:
        if (memcmp(m.p, "POST", 4) == 0)
            return HTTP_M_POST;
        return memcmp(m.p, "HEAD", 4) == 0 ? HTTP_M_HEAD : HTTP_M_OTHER;
    case 7:
        if (memcmp(m.p, "OPTIONS", 7) == 0)
            return HTTP_M_OPTIONS;
        return memcmp(m.p, "CONNECT", 7) == 0 ? HTTP_M_CONNECT : HTTP_M_OTHER;
    default: return HTTP_M_OTHER;
    }
}

/* *at: where the method begins, then where the target does. */
static enum http_result
parse_method(struct http_req *r, struct str s, size_t *at, enum err *e)
{
    const char *p = s.p + *at;
    size_t room = size_min(s.len - *at, HTTP_MAX_METHOD + 1);
    size_t n = http_span_token(p, room);
    if (UNLIKELY(n == room)) {
        if (n > HTTP_MAX_METHOD)
            return bad(r, e, ERR_BAD_REQUEST, "method is longer than 32 characters");
        return HTTP_MORE;
    }
    if (UNLIKELY(n == 0 || p[n] != ' ')) {
        /* First bytes of the two protocols that come to the wrong port most often. */
        if (p[0] == 0x16)
            return bad(
                r, e, ERR_BAD_REQUEST, "this looks like TLS, but this port speaks plain HTTP");
        if (p[0] == 0)
            return bad(r, e, ERR_BAD_REQUEST,
                "this looks like ClickHouse's native protocol, but this port speaks HTTP");
        return bad(r, e, ERR_BAD_REQUEST, "request line does not begin with a method and a space");
    }
    r->method_text = str_n(p, n);
    if (UNLIKELY(str_eq(r->method_text, STR("PRI")))) /* RFC 9113 section 3.4 */
        return bad(r, e, ERR_BAD_VERSION, "this looks like HTTP/2, but this port speaks HTTP/1.1");
    r->method = method_of(r->method_text);
    *at += n + 1;
    return HTTP_OK;
}

/* *at: where the target begins, then where the version does. */
static enum http_result
parse_target(struct http_req *r, struct str s, size_t *at, enum err *e)
{
    const char *p = s.p + *at;
    size_t room = size_min(s.len - *at, HTTP_MAX_URI + 1);
    size_t n = http_span_target(p, room);
    if (UNLIKELY(n == room)) {
        if (n > HTTP_MAX_URI)
            return bad(r, e, ERR_TOO_LARGE, "request target is longer than 1 MiB");
        return HTTP_MORE;
    }
    if (UNLIKELY(p[n] != ' ')) {
        bool line_ends = p[n] == '\r' || p[n] == '\n';
        return bad(r, e, ERR_BAD_REQUEST,
            line_ends ? "no HTTP version in the request line"
                      : "control character in the request target");
    }
    if (UNLIKELY(n == 0))
        return bad(r, e, ERR_BAD_REQUEST, "more than one space after the method");
    r->target = str_n(p, n);
    *at += n + 1;
    return HTTP_OK;
}

#define VERSION_LEN 10 /* "HTTP/d.d" and CRLF */

/* Byte by byte, for all that is not plainly HTTP/1.1; stops at the first byte out of place. */
static enum http_result
parse_odd_version(struct http_req *r, struct str v, enum err *e)
{
    static const char form[] = "HTTP/d.d\r\n";
    for (size_t i = 0; i < VERSION_LEN; i++) {
        if (i == v.len)
            return HTTP_MORE;
        if (form[i] == 'd' ? v.p[i] >= '0' && v.p[i] <= '9' : v.p[i] == form[i])
            continue;
        if (i == 8 && v.p[i] == '\n')
            return bad(r, e, ERR_BAD_REQUEST, "request line ends without CR");
        return bad(r, e, ERR_BAD_REQUEST, "request line does not end in HTTP/1.1 and CRLF");
    }
    if (v.p[5] != '1')
        return bad(r, e, ERR_BAD_VERSION, "HTTP version is not 1.x");
    r->minor = v.p[7] != '0';
    return HTTP_OK;
}

/* *at: where the version begins, then where the fields do. */
static enum http_result
parse_version(struct http_req *r, struct str s, size_t *at, enum err *e)
{
    struct str v = str_n(s.p + *at, s.len - *at);
    if (LIKELY(v.len >= VERSION_LEN && memcmp(v.p, "HTTP/1.1\r\n", VERSION_LEN) == 0)) {
        r->minor = 1;
    } else {
        enum http_result odd = parse_odd_version(r, v, e);
        if (odd != HTTP_OK)
            return odd;
    }
    *at += VERSION_LEN;
    return HTTP_OK;
}

static enum http_result
parse_request_line(struct http_req *r, struct str s, size_t *at, enum err *e)
{
    size_t from = *at;
    enum http_result res = parse_method(r, s, at, e);
    if (res == HTTP_OK)
        res = parse_target(r, s, at, e);
    if (res == HTTP_OK)
        res = parse_version(r, s, at, e);
    if (res == HTTP_OK)
        r->line = str_n(s.p + from, *at - from);
    return res;
}

/* Appends a field that found the inline table full. */
static enum http_result
add_spilled(struct http_req *r, const struct http_field *f, enum err *e)
{
    if (r->field_count == HTTP_MAX_FIELDS)
        return bad(r, e, ERR_TOO_LARGE, "more than 1000 header fields");
    if (r->fields == r->inline_fields) {
        if (r->heap_fields == NULL)
            r->heap_fields = mem_alloc(HTTP_MAX_FIELDS * sizeof(struct http_field));
        if (r->heap_fields == NULL)
            return bad(r, e, ERR_NOMEM, "no memory for the header fields");
        memcpy(r->heap_fields, r->inline_fields, sizeof(r->inline_fields));
        r->fields = r->heap_fields;
    }
    r->fields[r->field_count++] = *f;
    return HTTP_OK;
}

static enum http_result
add_meta(struct http_req *r, const struct http_field *f, enum err *e)
{
    if (LIKELY(http_meta_add(&r->meta, f) == ERR_OK))
        return HTTP_OK;
    return bad(
        r, e, ERR_BAD_REQUEST, "Content-Length is not one decimal number, or is given twice");
}

/* *at: where the fields begin, then where the head has ended. */
static enum http_result
parse_fields(struct http_req *r, struct str s, size_t *at, enum err *e)
{
    struct http_field spill;
    for (;;) {
        bool fits = r->field_count < HTTP_INLINE_FIELDS;
        struct http_field *f = fits ? &r->inline_fields[r->field_count] : &spill;
        struct str rest = str_n(s.p + *at, s.len - *at);
        size_t used = 0;
        switch (http_line_next(rest, f, &used)) {
        case HTTP_LINE_FIELD: break;
        case HTTP_LINE_END: *at += used; return HTTP_OK;
        case HTTP_LINE_MORE: return HTTP_MORE;
        case HTTP_LINE_BAD: return bad(r, e, ERR_BAD_REQUEST, http_line_why(rest));
        case HTTP_LINE_LARGE:
            return bad(r, e, ERR_TOO_LARGE, "header name over 4 KiB or value over 128 KiB");
        }
        *at += used;
        if (LIKELY(fits))
            r->field_count++;
        else if (add_spilled(r, f, e) != HTTP_OK)
            return HTTP_BAD;
        if (f->id != HTTP_F_OTHER && add_meta(r, f, e) != HTTP_OK)
            return HTTP_BAD;
    }
}

static bool
expects_body(const struct http_req *r)
{
    return r->method == HTTP_M_POST || str_eq(r->method_text, STR("PUT")) ||
           str_eq(r->method_text, STR("PATCH"));
}

/* RFC 9112 section 6.3, the request's half. */
static enum http_result
decide(struct http_req *r, enum err *e)
{
    struct http_meta *m = &r->meta;
    r->framing = HTTP_BODY_NONE;
    if (UNLIKELY(m->has_te)) {
        if (m->has_length)
            return bad(r, e, ERR_BAD_REQUEST, "Content-Length beside Transfer-Encoding");
        if (!m->te_chunked)
            return bad(r, e, ERR_BAD_REQUEST, "Transfer-Encoding is not exactly \"chunked\"");
        if (r->minor == 0)
            return bad(r, e, ERR_BAD_REQUEST, "Transfer-Encoding in an HTTP/1.0 request");
        r->framing = HTTP_BODY_CHUNKED;
    } else if (m->has_length) {
        r->framing = HTTP_BODY_LENGTH;
    } else {
        r->no_length = expects_body(r);
    }
    /* RFC 9110 section 9.3.6: it has no content, and to other parsers what follows is a tunnel. */
    if (UNLIKELY(r->method == HTTP_M_CONNECT && r->framing != HTTP_BODY_NONE))
        return bad(r, e, ERR_BAD_REQUEST, "CONNECT with a body");
    r->keep_alive = r->minor == 1 && !m->conn_close;
    if (r->minor == 0)
        m->expect_continue = false; /* RFC 9110 section 10.1.1: a 1.0 client knows no 100 */
    return HTTP_OK;
}

static enum http_result
parse_head(struct http_req *r, struct str s, enum err *e)
{
    size_t at = 0;
    enum http_result res = skip_empty_lines(s, &at);
    if (res == HTTP_BAD)
        return bad(r, e, ERR_BAD_REQUEST, "too many empty lines, or a bare CR, before the request");
    if (res == HTTP_OK)
        res = parse_request_line(r, s, &at, e);
    if (res == HTTP_OK)
        res = parse_fields(r, s, &at, e);
    if (res != HTTP_OK)
        return res;
    r->head_len = at;
    return decide(r, e);
}

enum http_result
http_req_parse(struct http_req *r, struct str s, enum err *e)
{
    *e = ERR_OK;
    r->why = NULL;
    r->fields = r->inline_fields;
    r->field_count = 0;
    r->no_length = false;
    http_meta_init(&r->meta);
    enum http_result res = parse_head(r, str_n(s.p, size_min(s.len, HTTP_MAX_HEAD)), e);
    if (UNLIKELY(res == HTTP_MORE && s.len >= HTTP_MAX_HEAD))
        return bad(r, e, ERR_TOO_LARGE, "request head is larger than 4 MiB");
    return res;
}

bool
http_head_complete(struct str s, size_t *scanned)
{
    if (s.len >= HTTP_MAX_HEAD)
        return true;
    size_t start;
    enum http_result lead = skip_empty_lines(s, &start);
    if (lead != HTTP_OK)
        return lead == HTTP_BAD;
    if (!http_is_token_ch(s.p[start]))
        return true;
    size_t at = size_max(*scanned, start);
    while (at < s.len) {
        const char *lf = memchr(s.p + at, '\n', s.len - at);
        if (lf == NULL)
            break;
        size_t i = (size_t)(lf - s.p);
        bool bare = s.p[i - 1] != '\r'; /* i > 0: the first byte is a token character or CR */
        if (bare || s.p[i - 2] == '\n') {
            *scanned = i; /* found again when asked again */
            return true;
        }
        at = i + 1;
    }
    *scanned = s.len;
    return false;
}
