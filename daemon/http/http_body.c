#include "http/http.h"

#include "base/check.h"
#include "http/http_scan.h"

/*
 * The chunked coding, RFC 9112 section 7.1, with what ClickHouse and the RFC let pass: any number
 * of leading zeros, spaces or tabs after the size, and extensions of any text.
 *
 * SIZE_FIRST -> SIZE -> [SIZE_SPACE | EXTENSION] -> SIZE_LF -> DATA -> DATA_CR -> DATA_LF ->
 * (again) after the zero chunk: TRAILER_FIRST -> (NAME -> VALUE -> LF ->)* -> END_LF -> DONE
 */
#define SURE_DIGITS 8 /* ClickHouse 18.16 reads no more, and takes the rest for text */

enum body_state {
    ST_SIZE_FIRST, /* a hex digit must come */
    ST_SIZE,
    ST_SIZE_SPACE,
    ST_EXTENSION,
    ST_SIZE_LF,
    ST_DATA,
    ST_DATA_CR,
    ST_DATA_LF,
    ST_TRAILER_FIRST, /* a name, or the CR of the closing blank line */
    ST_TRAILER_NAME,
    ST_TRAILER_VALUE,
    ST_TRAILER_LF,
    ST_END_LF,
    ST_DONE,
    ST_BAD,
};

void
http_body_init(struct http_body *b, enum http_framing framing, uint64_t length)
{
    *b = (struct http_body){
        .framing = framing,
        .left = framing == HTTP_BODY_LENGTH ? length : 0,
        .state = ST_SIZE_FIRST,
    };
}

static enum body_state
bad(struct http_body *b, const char *why)
{
    b->why = why;
    return ST_BAD;
}

#define WHY_TRAILERS "trailers over 64 KiB"

static int
hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    char lower = ascii_lower(c);
    return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

/* After the digits of a size, in all states up to its CR. */
static enum body_state
on_size_end(struct http_body *b, enum body_state st, char c)
{
    if (c == '\r')
        return ST_SIZE_LF;
    if (st == ST_EXTENSION)
        return http_is_text_ch(c) ? ST_EXTENSION : bad(b, "control character in a chunk extension");
    if (c == ';')
        return ST_EXTENSION;
    return http_is_ows(c) ? ST_SIZE_SPACE : bad(b, "bad character in a chunk size");
}

static enum body_state
on_size(struct http_body *b, enum body_state st, char c)
{
    if (UNLIKELY(++b->line_len > HTTP_MAX_BODY_LINE && c != '\r'))
        return bad(b, "chunk-size line over 8 KiB");
    int digit = st == ST_SIZE || st == ST_SIZE_FIRST ? hex_value(c) : -1;
    if (digit < 0)
        return st == ST_SIZE_FIRST ? bad(b, "chunk size is not a hex number")
                                   : on_size_end(b, st, c);
    if (UNLIKELY(b->left > (uint64_t)INT64_MAX >> 4))
        return bad(b, "chunk size over 2^63-1");
    if (UNLIKELY(b->line_len > SURE_DIGITS))
        b->odd = true;
    b->left = b->left << 4 | (uint64_t)digit;
    return ST_SIZE;
}

/* RFC 9110 section 6.5.1: what frames a message must not come after it. */
static const struct str framing_names[] = {{"content-length", 14}, {"transfer-encoding", 17}};

/* b->match has a bit for each framing name that the trailer name begins with so far. */
static void
match_framing_name(struct http_body *b, size_t at, char c)
{
    for (unsigned i = 0; i < COUNT_OF(framing_names); i++)
        if (at >= framing_names[i].len || framing_names[i].p[at] != ascii_lower(c))
            b->match &= (uint8_t) ~(1u << i);
}

static bool
is_framing_name(const struct http_body *b, size_t len)
{
    for (unsigned i = 0; i < COUNT_OF(framing_names); i++)
        if ((b->match >> i & 1) != 0 && framing_names[i].len == len)
            return true;
    return false;
}

static enum body_state
on_trailer(struct http_body *b, enum body_state st, char c)
{
    if (++b->trailer_len > HTTP_MAX_TRAILERS)
        return bad(b, WHY_TRAILERS);
    if (++b->line_len > HTTP_MAX_BODY_LINE && c != '\r')
        return bad(b, "trailer line over 8 KiB");
    if (st == ST_TRAILER_VALUE) {
        if (c == '\r')
            return ST_TRAILER_LF;
        return http_is_text_ch(c) ? ST_TRAILER_VALUE : bad(b, "control character in a trailer");
    }
    if (c == ':' && st == ST_TRAILER_NAME)
        return is_framing_name(b, b->line_len - 1) ? bad(b, "framing field in the trailers")
                                                   : ST_TRAILER_VALUE;
    if (!http_is_token_ch(c))
        return bad(b, "bad character in a trailer name");
    if (st == ST_TRAILER_FIRST)
        b->match = UINT8_MAX;
    match_framing_name(b, b->line_len - 1, c);
    b->odd = true;
    return ST_TRAILER_NAME;
}

static enum body_state
on_lf(struct http_body *b, char c, enum body_state next)
{
    return c == '\n' ? next : bad(b, "CR without LF in the chunk framing");
}

/* One byte of framing: anything but payload. */
static enum body_state
on_byte(struct http_body *b, enum body_state st, char c)
{
    switch (st) {
    case ST_SIZE_FIRST:
    case ST_SIZE:
    case ST_SIZE_SPACE:
    case ST_EXTENSION: return on_size(b, st, c);
    case ST_SIZE_LF: b->line_len = 0; return on_lf(b, c, b->left == 0 ? ST_TRAILER_FIRST : ST_DATA);
    case ST_DATA_CR: return c == '\r' ? ST_DATA_LF : bad(b, "chunk is not followed by CRLF");
    case ST_DATA_LF: return on_lf(b, c, ST_SIZE_FIRST);
    case ST_TRAILER_FIRST:
        if (c == '\r')
            return ST_END_LF;
        return on_trailer(b, st, c);
    case ST_TRAILER_NAME:
    case ST_TRAILER_VALUE: return on_trailer(b, st, c);
    case ST_TRAILER_LF:
        b->line_len = 0;
        if (++b->trailer_len > HTTP_MAX_TRAILERS)
            return bad(b, WHY_TRAILERS);
        return on_lf(b, c, ST_TRAILER_FIRST);
    case ST_END_LF: return on_lf(b, c, ST_DONE);
    case ST_DATA:
    case ST_DONE:
    case ST_BAD: break;
    }
    CHECK(false); /* payload and an ended body have no framing bytes */
    return ST_BAD;
}

bool
http_req_reusable(enum http_method method, const struct http_body *body)
{
    bool empty = body->framing == HTTP_BODY_NONE ||
                 (body->framing == HTTP_BODY_LENGTH && body->left == 0 && body->total == 0);
    return empty || (method == HTTP_M_POST && !body->odd);
}

/* Counts up to len payload bytes; returns how many. */
static size_t
take_payload(struct http_body *b, size_t len)
{
    size_t n = b->left < len ? (size_t)b->left : len;
    b->left -= n;
    b->total += n;
    return n;
}

static enum http_body_result
next_chunked(struct http_body *b, struct str s, struct str *data, size_t *used)
{
    enum body_state st = (enum body_state)b->state;
    size_t i = 0;
    while (i < s.len && st < ST_DONE) {
        if (st == ST_DATA) {
            *data = str_n(s.p + i, take_payload(b, s.len - i));
            i += data->len;
            if (b->left == 0)
                st = ST_DATA_CR;
            break;
        }
        st = on_byte(b, st, s.p[i]);
        if (st == ST_BAD)
            break; /* *used points at the culprit */
        i++;
    }
    b->state = (uint8_t)st;
    *used = i;
    if (st == ST_BAD)
        return HTTP_BODY_BAD;
    return st == ST_DONE ? HTTP_BODY_DONE : HTTP_BODY_MORE;
}

enum http_body_result
http_body_next(struct http_body *b, struct str s, struct str *data, size_t *used)
{
    *data = str_n(s.p, 0);
    *used = 0;
    switch (b->framing) {
    case HTTP_BODY_NONE: return HTTP_BODY_DONE;
    case HTTP_BODY_LENGTH:
        data->len = *used = take_payload(b, s.len);
        return b->left == 0 ? HTTP_BODY_DONE : HTTP_BODY_MORE;
    case HTTP_BODY_CHUNKED: return next_chunked(b, s, data, used);
    case HTTP_BODY_CLOSE:
        data->len = *used = s.len;
        b->total += s.len;
        return HTTP_BODY_MORE;
    }
    CHECK(false);
    return HTTP_BODY_BAD;
}

enum http_body_result
http_body_scan(struct http_body *b, struct str s, size_t *used)
{
    *used = 0;
    for (;;) {
        struct str data;
        size_t n;
        enum http_body_result res = http_body_next(b, s, &data, &n);
        *used += n;
        if (res != HTTP_BODY_MORE || n == s.len)
            return res;
        s = str_n(s.p + n, s.len - n);
    }
}

bool
http_body_is_done(const struct http_body *b)
{
    switch (b->framing) {
    case HTTP_BODY_NONE: return true;
    case HTTP_BODY_LENGTH: return b->left == 0;
    case HTTP_BODY_CHUNKED: return b->state == ST_DONE;
    case HTTP_BODY_CLOSE: return false;
    }
    return false;
}

uint64_t
http_body_run(const struct http_body *b)
{
    bool payload =
        b->framing == HTTP_BODY_LENGTH || (b->framing == HTTP_BODY_CHUNKED && b->state == ST_DATA);
    return payload ? b->left : 0;
}

void
http_body_skip(struct http_body *b, uint64_t n)
{
    CHECK(n <= http_body_run(b));
    b->left -= n;
    b->total += n;
    if (b->framing == HTTP_BODY_CHUNKED && b->state == ST_DATA && b->left == 0)
        b->state = ST_DATA_CR;
}
