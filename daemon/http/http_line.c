#include "http/http.h"

#include "http/http_scan.h"

/* clang-format off */
#define TEXT  HTTP_CH_TEXT
#define TOKEN (HTTP_CH_TOKEN | HTTP_CH_TEXT)
const uint8_t http_ch[256] = {
    ['\t'] = TEXT, [' '] = TEXT,
    ['!'] = TOKEN, ['"'] = TEXT,
    ['#' ... '\''] = TOKEN, ['(' ... ')'] = TEXT,
    ['*' ... '+'] = TOKEN, [','] = TEXT,
    ['-' ... '.'] = TOKEN, ['/'] = TEXT,
    ['0' ... '9'] = TOKEN, [':' ... '@'] = TEXT,
    ['A' ... 'Z'] = TOKEN, ['[' ... ']'] = TEXT,
    ['^' ... 'z'] = TOKEN, ['{'] = TEXT,
    ['|'] = TOKEN, ['}'] = TEXT,
    ['~'] = TOKEN,
    [0x80 ... 0xff] = TEXT,
};
#undef TEXT
#undef TOKEN

/*
 * A perfect hash over length, first and last letter. A new name that collides is a compile error
 * (-Woverride-init); then look for other factors.
 */
#define SLOT_COUNT 64
#define SLOT(len, first, last) (((len) + 12 * (size_t)(first) + 12 * (size_t)(last)) % SLOT_COUNT)
#define NAMES(X)                                                                                   \
    X(HTTP_F_CONNECTION, "connection", 'c', 'n')                                                   \
    X(HTTP_F_KEEP_ALIVE, "keep-alive", 'k', 'e')                                                   \
    X(HTTP_F_PROXY_CONNECTION, "proxy-connection", 'p', 'n')                                       \
    X(HTTP_F_PROXY_AUTHENTICATE, "proxy-authenticate", 'p', 'e')                                   \
    X(HTTP_F_PROXY_AUTHORIZATION, "proxy-authorization", 'p', 'n')                                 \
    X(HTTP_F_TE, "te", 't', 'e')                                                                   \
    X(HTTP_F_TRAILER, "trailer", 't', 'r')                                                         \
    X(HTTP_F_TRANSFER_ENCODING, "transfer-encoding", 't', 'g')                                     \
    X(HTTP_F_UPGRADE, "upgrade", 'u', 'e')                                                         \
    X(HTTP_F_CONTENT_LENGTH, "content-length", 'c', 'h')                                           \
    X(HTTP_F_CONTENT_TYPE, "content-type", 'c', 'e')                                               \
    X(HTTP_F_CONTENT_ENCODING, "content-encoding", 'c', 'g')                                       \
    X(HTTP_F_ACCEPT_ENCODING, "accept-encoding", 'a', 'g')                                         \
    X(HTTP_F_EXPECT, "expect", 'e', 't')                                                           \
    X(HTTP_F_HOST, "host", 'h', 't')                                                               \
    X(HTTP_F_AUTHORIZATION, "authorization", 'a', 'n')                                             \
    X(HTTP_F_CH_USER, "x-clickhouse-user", 'x', 'r')                                               \
    X(HTTP_F_CH_KEY, "x-clickhouse-key", 'x', 'y')                                                 \
    X(HTTP_F_CH_QUERY_ID, "x-clickhouse-query-id", 'x', 'd')                                       \
    X(HTTP_F_CH_QUOTA, "x-clickhouse-quota", 'x', 'a')                                             \
    X(HTTP_F_CH_DATABASE, "x-clickhouse-database", 'x', 'e')                                       \
    X(HTTP_F_CH_CERT_AUTH, "x-clickhouse-ssl-certificate-auth", 'x', 'h')                          \
    X(HTTP_F_CH_PROGRESS, "x-clickhouse-progress", 'x', 's')                                       \
    X(HTTP_F_CH_EXCEPTION, "x-clickhouse-exception-code", 'x', 'e')                                \
    X(HTTP_F_CHMUX_COMPRESSION, "x-chmux-compression", 'x', 'n')
static const struct {
    struct str name;
    enum http_field_id id;
} slots[SLOT_COUNT] = {
#define X(id, name, first, last)                                                                   \
    [SLOT(sizeof(name) - 1, first, last)] = {{name, sizeof(name) - 1}, id},
    NAMES(X)
#undef X
};
/* clang-format on */

static inline bool
word_eq_lower(const char *p, const char *lower)
{
    uint64_t a, b;
    memcpy(&a, p, 8);
    memcpy(&b, lower, 8);
    /* 0x20 only where the wanted byte is a letter (bit 0x40), or CR would pass for '-'. */
    return (a | ((b & 0x4040404040404040u) >> 1)) == b;
}

bool
http_eq_lower(struct str a, struct str lower)
{
    size_t n = lower.len;
    if (a.len != n)
        return false;
    if (n < 8) {
        for (size_t i = 0; i < n; i++)
            if (ascii_lower(a.p[i]) != lower.p[i])
                return false;
        return true;
    }
    for (size_t i = 0; i + 8 <= n; i += 8)
        if (!word_eq_lower(a.p + i, lower.p + i))
            return false;
    return word_eq_lower(a.p + n - 8, lower.p + n - 8); /* the tail, overlapping */
}

enum http_field_id
http_field_lookup(struct str name)
{
    if (name.len == 0)
        return HTTP_F_OTHER;
    size_t slot = SLOT(name.len, (uint8_t)name.p[0] | 0x20u, (uint8_t)name.p[name.len - 1] | 0x20u);
    if (slots[slot].name.len == name.len && http_eq_lower(name, slots[slot].name))
        return slots[slot].id;
    return HTTP_F_OTHER;
}

/* The blank line, or something broken, at a line that begins with CR. */
static enum http_line_result
line_end(struct str s, size_t *used)
{
    if (s.len < 2)
        return HTTP_LINE_MORE;
    *used = 2;
    return s.p[1] == '\n' ? HTTP_LINE_END : HTTP_LINE_BAD;
}

/*
 * One pass over the bytes: each span stops at the first byte that cannot belong to it, which is
 * the expected delimiter or an error. So an incomplete line is refused at its first bad byte, and
 * no verdict depends on how the line was cut into reads.
 */
enum http_line_result
http_line_next(struct str s, struct http_field *f, size_t *used)
{
    const char *p = s.p;
    if (UNLIKELY(s.len == 0))
        return HTTP_LINE_MORE;
    if (p[0] == '\r')
        return line_end(s, used);

    size_t room = size_min(s.len, HTTP_MAX_NAME + 1);
    size_t name_len = http_span_name(p, room);
    if (UNLIKELY(name_len == room))
        return name_len > HTTP_MAX_NAME ? HTTP_LINE_LARGE : HTTP_LINE_MORE;
    if (UNLIKELY(name_len == 0 || p[name_len] != ':'))
        return HTTP_LINE_BAD;

    size_t from = name_len + 1;
    while (from < s.len && http_is_ows(p[from]))
        from++;
    if (UNLIKELY(from - name_len > HTTP_MAX_VALUE))
        return HTTP_LINE_LARGE;
    room = size_min(s.len - from, HTTP_MAX_VALUE + 1);
    size_t value_len = http_span_text(p + from, room);
    if (UNLIKELY(value_len == room))
        return value_len > HTTP_MAX_VALUE ? HTTP_LINE_LARGE : HTTP_LINE_MORE;

    size_t end = from + value_len;
    if (UNLIKELY(p[end] != '\r'))
        return HTTP_LINE_BAD;
    if (UNLIKELY(end + 1 == s.len))
        return HTTP_LINE_MORE;
    if (UNLIKELY(p[end + 1] != '\n'))
        return HTTP_LINE_BAD;
    while (value_len > 0 && http_is_ows(p[from + value_len - 1]))
        value_len--;
    f->line = str_n(p, end + 2);
    f->name = str_n(p, name_len);
    f->value = str_n(p + from, value_len);
    f->id = http_field_lookup(f->name);
    *used = end + 2;
    return HTTP_LINE_FIELD;
}

static const char *
why_bad_name(char c)
{
    switch (c) {
    case ' ':
    case '\t': return "space in or after a header name";
    case '\r':
    case '\n': return "header line without a colon";
    case '\0': return "NUL in a header name";
    default: return "bad character in a header name";
    }
}

const char *
http_line_why(struct str s)
{
    size_t name_len = http_span_token(s.p, s.len);
    if (name_len == 0 && s.len > 0) {
        switch (s.p[0]) {
        case ' ':
        case '\t': return "folded header line";
        case ':': return "empty header name";
        case '\n': return "header line ends without CR";
        case '\r': return "CR without LF in the headers";
        default: return why_bad_name(s.p[0]);
        }
    }
    if (name_len == s.len)
        return "header line is not complete";
    if (s.p[name_len] != ':')
        return why_bad_name(s.p[name_len]);
    size_t at = name_len + 1;
    at += http_span_text(s.p + at, s.len - at);
    if (at == s.len)
        return "header line is not complete";
    switch (s.p[at]) {
    case '\n': return "header line ends without CR";
    case '\r': return "CR without LF in the headers";
    case '\0': return "NUL in a header value";
    default: return "control character in a header value";
    }
}
