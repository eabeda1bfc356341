#include "test_http.h"

#include "base/mem.h"

static struct http_req req, whole;

struct row {
    const char *name;
    struct str head;
    enum err e;      /* ERR_OK: accepted */
    const char *why; /* of the refusal */
    enum http_framing framing;
    bool keep_alive, no_length;
};
#define OK_ROW(name, text, framing, keep)                                                          \
    {                                                                                              \
        name, STR(text), ERR_OK, NULL, framing, keep, false                                        \
    }
#define NO_LENGTH(name, text)                                                                      \
    {                                                                                              \
        name, STR(text), ERR_OK, NULL, HTTP_BODY_NONE, true, true                                  \
    }
#define REFUSED(name, text, e, why)                                                                \
    {                                                                                              \
        name, STR(text), e, why, HTTP_BODY_NONE, false, false                                      \
    }
#define BAD_ROW(name, text, why) REFUSED(name, text, ERR_BAD_REQUEST, why)

#define WHY_LINE    "request line does not begin with a method and a space"
#define WHY_TARGET  "control character in the request target"
#define WHY_NO_VER  "no HTTP version in the request line"
#define WHY_VER     "request line does not end in HTTP/1.1 and CRLF"
#define WHY_LENGTH  "Content-Length is not one decimal number, or is given twice"
#define WHY_TE      "Transfer-Encoding is not exactly \"chunked\""
#define WHY_H2      "this looks like HTTP/2, but this port speaks HTTP/1.1"
#define WHY_LEADING "too many empty lines, or a bare CR, before the request"

static const struct row rows[] = {
    OK_ROW("plain GET", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", HTTP_BODY_NONE, true),
    OK_ROW("no fields at all", "GET /?query=select%201 HTTP/1.1\r\n\r\n", HTTP_BODY_NONE, true),
    OK_ROW("two Hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", HTTP_BODY_NONE, true),
    OK_ROW("POST with a length", "POST / HTTP/1.1\r\nContent-Length: 8\r\n\r\n", HTTP_BODY_LENGTH,
        true),
    OK_ROW("length 0", "POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n", HTTP_BODY_LENGTH, true),
    OK_ROW(
        "GET with a body", "GET / HTTP/1.1\r\nContent-Length: 3\r\n\r\n", HTTP_BODY_LENGTH, true),
    OK_ROW("chunked", "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", HTTP_BODY_CHUNKED,
        true),
    OK_ROW("chunked in capitals", "POST / HTTP/1.1\r\ntransfer-encoding:  CHUNKED \r\n\r\n",
        HTTP_BODY_CHUNKED, true),
    OK_ROW("close", "GET / HTTP/1.1\r\nConnection: x, Close\r\n\r\n", HTTP_BODY_NONE, false),
    OK_ROW("HTTP/1.0", "GET / HTTP/1.0\r\n\r\n", HTTP_BODY_NONE, false),
    OK_ROW("HTTP/1.0 keep-alive is not kept", "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
        HTTP_BODY_NONE, false),
    OK_ROW("HTTP/1.2 counts as 1.1", "GET / HTTP/1.2\r\n\r\n", HTTP_BODY_NONE, true),
    OK_ROW("HTTP/1.9 counts as 1.1", "GET / HTTP/1.9\r\n\r\n", HTTP_BODY_NONE, true),
    OK_ROW("leading CRLFs", "\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\n\r\n", HTTP_BODY_NONE, true),
    OK_ROW("target without a slash", "GET ?query=1 HTTP/1.1\r\n\r\n", HTTP_BODY_NONE, true),
    OK_ROW("absolute target", "GET http://h:1/?q HTTP/1.1\r\n\r\n", HTTP_BODY_NONE, true),
    OK_ROW("asterisk target", "OPTIONS * HTTP/1.1\r\n\r\n", HTTP_BODY_NONE, true),
    OK_ROW("odd bytes in the target", "GET /\"<>\\^`{|}#\x80\xff% HTTP/1.1\r\n\r\n", HTTP_BODY_NONE,
        true),
    OK_ROW("CONNECT as any method", "CONNECT h:1 HTTP/1.1\r\n\r\n", HTTP_BODY_NONE, true),
    OK_ROW("lower-case method", "get / HTTP/1.1\r\n\r\n", HTTP_BODY_NONE, true),
    OK_ROW("method of 32 characters", "ABCDEFGHIJKLMNOPQRSTUVWXYZ!#$%&' / HTTP/1.1\r\n\r\n",
        HTTP_BODY_NONE, true),
    NO_LENGTH("POST without a length", "POST / HTTP/1.1\r\n\r\n"),
    NO_LENGTH("PUT without a length", "PUT / HTTP/1.1\r\n\r\n"),
    NO_LENGTH("PATCH without a length", "PATCH / HTTP/1.1\r\n\r\n"),
    OK_ROW("DELETE without a length", "DELETE / HTTP/1.1\r\n\r\n", HTTP_BODY_NONE, true),
    OK_ROW("post is not POST", "post / HTTP/1.1\r\n\r\n", HTTP_BODY_NONE, true),

    BAD_ROW("TLS", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        "this looks like TLS, but this port speaks plain HTTP"),
    BAD_ROW("native protocol",
        "\0\x11"
        "ClickHouse client",
        "this looks like ClickHouse's native protocol, but this port speaks HTTP"),
    BAD_ROW("space before the method", " GET / HTTP/1.1\r\n\r\n", WHY_LINE),
    BAD_ROW("tab after the method", "GET\t/ HTTP/1.1\r\n\r\n", WHY_LINE),
    BAD_ROW("method is no token", "G(T / HTTP/1.1\r\n\r\n", WHY_LINE),
    BAD_ROW("method alone", "GET\r\n\r\n", WHY_LINE),
    BAD_ROW("method of 33 characters", "ABCDEFGHIJKLMNOPQRSTUVWXYZ!#$%&'* / HTTP/1.1\r\n\r\n",
        "method is longer than 32 characters"),
    BAD_ROW("two spaces after the method", "GET  / HTTP/1.1\r\n\r\n",
        "more than one space after the method"),
    BAD_ROW("empty target", "GET  HTTP/1.1\r\n\r\n", "more than one space after the method"),
    BAD_ROW("tab in the target", "GET /\tx HTTP/1.1\r\n\r\n", WHY_TARGET),
    BAD_ROW("NUL in the target", "GET /\0x HTTP/1.1\r\n\r\n", WHY_TARGET),
    BAD_ROW("DEL in the target", "GET /\x7f HTTP/1.1\r\n\r\n", WHY_TARGET),
    BAD_ROW("space in the target", "GET /a b HTTP/1.1\r\n\r\n", WHY_VER),
    BAD_ROW("no version", "GET /\r\n\r\n", WHY_NO_VER),
    BAD_ROW("no version, bare LF", "GET /\n\n", WHY_NO_VER),
    BAD_ROW("bare CR in the target", "GET /\rx HTTP/1.1\r\n\r\n", WHY_NO_VER),
    BAD_ROW("two spaces before the version", "GET /  HTTP/1.1\r\n\r\n", WHY_VER),
    BAD_ROW("space after the version", "GET / HTTP/1.1 \r\n\r\n", WHY_VER),
    BAD_ROW("lower-case version", "GET / http/1.1\r\n\r\n", WHY_VER),
    BAD_ROW("two-digit minor version", "GET / HTTP/1.10\r\n\r\n", WHY_VER),
    BAD_ROW("two-digit major version", "GET / HTTP/11.1\r\n\r\n", WHY_VER),
    BAD_ROW("no minor version", "GET / HTTP/1\r\n\r\n", WHY_VER),
    BAD_ROW("letters for digits", "GET / HTTP/a.b\r\n\r\n", WHY_VER),
    BAD_ROW("another protocol", "GET / RTSP/1.0\r\n\r\n", WHY_VER),
    BAD_ROW("request line with a bare LF", "GET / HTTP/1.1\n\r\n", "request line ends without CR"),
    BAD_ROW("request line with a bare CR", "GET / HTTP/1.1\rX\r\n\r\n", WHY_VER),
    REFUSED("HTTP/2.0", "GET / HTTP/2.0\r\n\r\n", ERR_BAD_VERSION, "HTTP version is not 1.x"),
    REFUSED("HTTP/0.9", "GET / HTTP/0.9\r\n\r\n", ERR_BAD_VERSION, "HTTP version is not 1.x"),
    REFUSED("h2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", ERR_BAD_VERSION, WHY_H2),
    REFUSED("method PRI in HTTP/1.1", "PRI * HTTP/1.1\r\n\r\n", ERR_BAD_VERSION, WHY_H2),
    BAD_ROW("five leading CRLFs", "\r\n\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\n\r\n", WHY_LEADING),
    BAD_ROW("leading bare CR", "\rGET / HTTP/1.1\r\n\r\n", WHY_LEADING),
    BAD_ROW("leading bare LF", "\nGET / HTTP/1.1\r\n\r\n", WHY_LINE),
    BAD_ROW(
        "field without a colon", "GET / HTTP/1.1\r\nHost\r\n\r\n", "header line without a colon"),
    BAD_ROW("folded field", "GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n", "folded header line"),
    BAD_ROW("fold after the request line", "GET / HTTP/1.1\r\n A: b\r\n\r\n", "folded header line"),
    BAD_ROW("space before the colon", "GET / HTTP/1.1\r\nContent-Length : 5\r\n\r\n",
        "space in or after a header name"),
    BAD_ROW("field with a bare LF", "GET / HTTP/1.1\r\nA: b\nC: d\r\n\r\n",
        "header line ends without CR"),
    BAD_ROW("field with a bare CR", "GET / HTTP/1.1\r\nA: b\rC: d\r\n\r\n",
        "CR without LF in the headers"),
    BAD_ROW("NUL in a value", "GET / HTTP/1.1\r\nA: \0\r\n\r\n", "NUL in a header value"),
    BAD_ROW(
        "blank line with a bare LF", "GET / HTTP/1.1\r\nA: b\r\n\n", "header line ends without CR"),
    BAD_ROW("bad Content-Length", "POST / HTTP/1.1\r\nContent-Length: abc\r\n\r\n", WHY_LENGTH),
    BAD_ROW("negative Content-Length", "POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", WHY_LENGTH),
    BAD_ROW("Content-Length over 2^63-1",
        "POST / HTTP/1.1\r\nContent-Length: 9223372036854775808\r\n\r\n", WHY_LENGTH),
    BAD_ROW(
        "list of Content-Lengths", "POST / HTTP/1.1\r\nContent-Length: 5, 5\r\n\r\n", WHY_LENGTH),
    BAD_ROW("differing Content-Lengths",
        "POST / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", WHY_LENGTH),
    BAD_ROW("equal Content-Lengths",
        "POST / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n", WHY_LENGTH),
    BAD_ROW("length, then chunked",
        "POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        "Content-Length beside Transfer-Encoding"),
    BAD_ROW("chunked, then length",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",
        "Content-Length beside Transfer-Encoding"),
    BAD_ROW("gzip, chunked", "POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", WHY_TE),
    BAD_ROW(
        "tab before the coding", "POST / HTTP/1.1\r\nTransfer-Encoding:\tchunked\r\n\r\n", WHY_TE),
    BAD_ROW(
        "tab after the coding", "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\t\r\n\r\n", WHY_TE),
    BAD_ROW("tab after the length", "POST / HTTP/1.1\r\nContent-Length: 5\t\r\n\r\n", WHY_LENGTH),
    BAD_ROW("CONNECT with a length", "CONNECT h:1 HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
        "CONNECT with a body"),
    BAD_ROW("CONNECT with chunks", "CONNECT h:1 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
        "CONNECT with a body"),
    BAD_ROW("identity", "POST / HTTP/1.1\r\nTransfer-Encoding: identity\r\n\r\n", WHY_TE),
    BAD_ROW("empty Transfer-Encoding", "POST / HTTP/1.1\r\nTransfer-Encoding:\r\n\r\n", WHY_TE),
    BAD_ROW("chunked twice",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        WHY_TE),
    BAD_ROW("chunked in HTTP/1.0", "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
        "Transfer-Encoding in an HTTP/1.0 request"),
};

/* Is the parse of `s` into req the row's? */
static void
check_verdict(const struct row *row, enum http_result res, enum err e)
{
    T_ROW(res == (row->e == ERR_OK ? HTTP_OK : HTTP_BAD), row->name);
    T_ROW(e == row->e, row->name);
    T_ROW(z_eq(req.why, row->why), row->name);
    if (res != HTTP_OK)
        return;
    T_ROW(req.framing == row->framing, row->name);
    T_ROW(req.keep_alive == row->keep_alive, row->name);
    T_ROW(req.no_length == row->no_length, row->name);
    T_ROW(req.head_len == row->head.len, row->name);
}

static void
test_rules_of_a_request_head(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        struct str s = tight_copy(rows[i].head);
        enum err e;
        enum http_result res = http_req_parse(&req, s, &e);
        check_verdict(&rows[i], res, e);
        size_t scanned = 0;
        T_ROW(http_head_complete(s, &scanned), rows[i].name);
        tight_free(s);
    }
}

/* A prefix is MORE, or already has the verdict of the whole head. */
static void
test_every_prefix_agrees_with_the_whole(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        bool decided = false;
        for (size_t n = 0; n < rows[i].head.len; n++) {
            struct str s = tight_copy(str_n(rows[i].head.p, n));
            enum err e;
            enum http_result res = http_req_parse(&req, s, &e);
            if (res == HTTP_MORE)
                T_ROW(e == ERR_OK && !decided, rows[i].name);
            else
                check_verdict(&rows[i], res, e);
            decided = res != HTTP_MORE;
            tight_free(s);
        }
    }
}

/* As the proxy does it: parse when http_head_complete() says so. It never says so in vain. */
static void
test_byte_by_byte_through_head_complete(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        size_t scanned = 0;
        enum http_result res = HTTP_MORE;
        for (size_t n = 1; res == HTTP_MORE; n++) {
            T_ROW(n <= rows[i].head.len, rows[i].name);
            struct str s = tight_copy(str_n(rows[i].head.p, n));
            if (http_head_complete(s, &scanned)) {
                enum err e;
                res = http_req_parse(&req, s, &e);
                check_verdict(&rows[i], res, e);
            }
            tight_free(s);
        }
    }
}

static void
test_spans_are_byte_for_byte(void **state)
{
    (void)state;
    enum err e;
    struct str s =
        STR("\r\nPOST /?query=a+b%2B HTTP/1.1\r\nHost:  h \r\nContent-Length: 2\r\n\r\nxy");
    T_EQ(http_req_parse(&req, s, &e), HTTP_OK);
    T_EQ(req.method, HTTP_M_POST);
    T_STR(req.method_text, "POST");
    T_STR(req.target, "/?query=a+b%2B");
    T_STR(req.line, "POST /?query=a+b%2B HTTP/1.1\r\n");
    T_EQ(req.minor, 1);
    T_EQ(req.field_count, 2);
    T_STR(req.fields[0].line, "Host:  h \r\n");
    T_STR(req.fields[0].name, "Host");
    T_STR(req.fields[0].value, "h");
    T_EQ(req.fields[0].id, HTTP_F_HOST);
    T_EQ(req.fields[1].id, HTTP_F_CONTENT_LENGTH);
    T_EQ(req.meta.content_length, 2);
    T_EQ(req.head_len, s.len - 2);
    T_TRUE(req.line.p == s.p + 2);
}

static void
test_methods_are_told_apart_by_case(void **state)
{
    (void)state;
    static const struct {
        struct str head;
        enum http_method method;
    } methods[] = {
        {STR("GET / HTTP/1.1\r\n\r\n"), HTTP_M_GET},
        {STR("HEAD / HTTP/1.1\r\n\r\n"), HTTP_M_HEAD},
        {STR("POST / HTTP/1.1\r\n\r\n"), HTTP_M_POST},
        {STR("OPTIONS / HTTP/1.1\r\n\r\n"), HTTP_M_OPTIONS},
        {STR("CONNECT / HTTP/1.1\r\n\r\n"), HTTP_M_CONNECT},
        {STR("get / HTTP/1.1\r\n\r\n"), HTTP_M_OTHER},
        {STR("Head / HTTP/1.1\r\n\r\n"), HTTP_M_OTHER},
        {STR("DELETE / HTTP/1.1\r\n\r\n"), HTTP_M_OTHER},
        {STR("OPTIONZ / HTTP/1.1\r\n\r\n"), HTTP_M_OTHER},
    };
    for (size_t i = 0; i < COUNT_OF(methods); i++) {
        enum err e;
        T_EQ(http_req_parse(&req, methods[i].head, &e), HTTP_OK);
        T_EQ(req.method, methods[i].method);
    }
}

static void
test_expect_is_ignored_from_http_1_0(void **state)
{
    (void)state;
    enum err e;
    T_EQ(http_req_parse(&req, STR("POST / HTTP/1.1\r\nExpect: 100-continue\r\n\r\n"), &e), HTTP_OK);
    T_TRUE(req.meta.expect_continue);
    T_EQ(http_req_parse(&req, STR("POST / HTTP/1.0\r\nExpect: 100-continue\r\n\r\n"), &e), HTTP_OK);
    T_FALSE(req.meta.expect_continue);
}

/* One struct serves all requests of a loop: nothing of the last one may show. */
static void
test_nothing_is_left_of_the_request_before(void **state)
{
    (void)state;
    enum err e;
    T_EQ(http_req_parse(
             &req, STR("POST / HTTP/1.0\r\nConnection: close\r\nKeep-Alive: max=1\r\n\r\n"), &e),
        HTTP_OK);
    T_TRUE(req.no_length && req.meta.conn_close);
    T_EQ(http_req_parse(&req, STR("(bad"), &e), HTTP_BAD);
    T_TRUE(req.why != NULL);
    T_EQ(http_req_parse(&req, STR("GET / HTTP/1.1\r\n\r\n"), &e), HTTP_OK);
    T_TRUE(!req.no_length && !req.meta.conn_close && req.keep_alive && req.why == NULL);
    T_EQ(http_req_parse(&req, STR("POST / HTTP/1.1\r\n\r\n"), &e), HTTP_OK);
    T_TRUE(req.no_length);
    T_EQ(http_req_parse(&req, STR("POST / HTTP/1.1\r\nContent-Length: 1\r\n\r\n"), &e), HTTP_OK);
    T_FALSE(req.no_length);
    T_EQ(http_req_parse(&req, STR("GET / HTTP/1.1\r\n\r\n"), &e), HTTP_OK);
    T_EQ(req.field_count, 0);
    T_EQ(req.meta.keep_alive_max, UINT64_MAX);
}

/* "GET <target> HTTP/1.1" CRLF, count times "F<i>: <i>" CRLF, CRLF. Owned by the caller. */
static struct str
head_of(size_t target_len, size_t count)
{
    size_t cap = target_len + count * 24 + 64;
    char *p = malloc(cap);
    assert_non_null(p);
    memcpy(p, "GET ", 4);
    memset(p + 4, 'u', target_len);
    size_t n = 4 + target_len;
    n += (size_t)snprintf(p + n, cap - n, " HTTP/1.1\r\n");
    for (size_t i = 0; i < count; i++)
        n += (size_t)snprintf(p + n, cap - n, "F%zu: %zu\r\n", i, i);
    n += (size_t)snprintf(p + n, cap - n, "\r\n");
    struct str s = tight_copy(str_n(p, n));
    free(p);
    return s;
}

static enum http_result
parse_sized(size_t target_len, size_t count, enum err *e)
{
    struct str s = head_of(target_len, count);
    enum http_result res = http_req_parse(&req, s, e);
    tight_free(s);
    return res;
}

static void
test_limits_at_the_edge(void **state)
{
    (void)state;
    enum err e;
    T_EQ(parse_sized(HTTP_MAX_URI, 1, &e), HTTP_OK);
    T_EQ(req.target.len, HTTP_MAX_URI);
    T_EQ(parse_sized(HTTP_MAX_URI + 1, 1, &e), HTTP_BAD);
    T_EQ(e, ERR_TOO_LARGE);
    T_EQ(parse_sized(1, HTTP_MAX_FIELDS, &e), HTTP_OK);
    T_EQ(req.field_count, HTTP_MAX_FIELDS);
    T_EQ(parse_sized(1, HTTP_MAX_FIELDS + 1, &e), HTTP_BAD);
    T_EQ(e, ERR_TOO_LARGE);
    T_ZEQ(req.why, "more than 1000 header fields");
    char *line = fill('u', HTTP_MAX_URI + 5);
    memcpy(line, "GET ", 4);
    T_EQ(http_req_parse(&req, str_n(line, HTTP_MAX_URI + 4), &e), HTTP_MORE);
    T_EQ(http_req_parse(&req, str_n(line, HTTP_MAX_URI + 5), &e), HTTP_BAD);
    T_EQ(e, ERR_TOO_LARGE);
    free(line);
}

static void
test_too_long_a_field_is_too_large(void **state)
{
    (void)state;
    enum err e;
    char *head = fill('v', HTTP_MAX_VALUE + 64);
    memcpy(head, "GET / HTTP/1.1\r\nA: ", 19);
    T_EQ(http_req_parse(&req, str_n(head, HTTP_MAX_VALUE + 64), &e), HTTP_BAD);
    T_EQ(e, ERR_TOO_LARGE);
    T_ZEQ(req.why, "header name over 4 KiB or value over 128 KiB");
    free(head);
}

/* A head of HTTP_MAX_HEAD bytes passes; one more, or no end within them, is too large. */
static void
test_head_limit_at_the_edge(void **state)
{
    (void)state;
    const size_t unit = HTTP_MAX_VALUE + 5; /* "A: " value CRLF */
    char *head = fill('v', HTTP_MAX_HEAD + 1);
    size_t at = 16;
    memcpy(head, "GET / HTTP/1.1\r\n", 16);
    while (at + 8 < HTTP_MAX_HEAD) {
        size_t end = size_min(at + unit, HTTP_MAX_HEAD - 2);
        memcpy(head + at, "A: ", 3);
        memcpy(head + end - 2, "\r\n", 2);
        at = end;
    }
    memcpy(head + HTTP_MAX_HEAD - 2, "\r\nX", 3);
    enum err e;
    size_t scanned = 0;
    T_EQ(http_req_parse(&req, str_n(head, HTTP_MAX_HEAD), &e), HTTP_OK);
    T_EQ(req.head_len, HTTP_MAX_HEAD);
    T_EQ(http_req_parse(&req, str_n(head, HTTP_MAX_HEAD + 1), &e), HTTP_OK);
    T_EQ(http_req_parse(&req, str_n(head, HTTP_MAX_HEAD - 1), &e), HTTP_MORE);
    T_FALSE(http_head_complete(str_n(head, HTTP_MAX_HEAD - 1), &scanned));
    memcpy(head + HTTP_MAX_HEAD - 4, "vvv\r\n", 5); /* the blank line would come a byte later */
    T_EQ(http_req_parse(&req, str_n(head, HTTP_MAX_HEAD), &e), HTTP_BAD);
    T_EQ(e, ERR_TOO_LARGE);
    scanned = 0;
    T_TRUE(http_head_complete(str_n(head, HTTP_MAX_HEAD), &scanned));
    free(head);
}

static void
test_many_fields_move_to_the_heap_in_order(void **state)
{
    (void)state;
    for (size_t count = HTTP_INLINE_FIELDS - 1; count <= HTTP_INLINE_FIELDS + 2; count++) {
        struct str s = head_of(1, count);
        enum err e;
        http_req_init(&whole);
        T_EQ(http_req_parse(&whole, s, &e), HTTP_OK);
        T_EQ(whole.field_count, count);
        T_EQ(whole.heap_fields != NULL, count > HTTP_INLINE_FIELDS);
        for (size_t i = 0; i < count; i++) {
            char text[24];
            snprintf(text, sizeof(text), "F%zu: %zu\r\n", i, i);
            T_STR(whole.fields[i].line, text);
        }
        http_req_fini(&whole);
        T_TRUE(whole.heap_fields == NULL);
        tight_free(s);
    }
}

/* Out of memory for the table refuses that request; the next one is served. */
static void
test_field_table_without_memory(void **state)
{
    (void)state;
    struct str many = head_of(1, HTTP_INLINE_FIELDS + 1);
    struct str few = head_of(1, HTTP_INLINE_FIELDS);
    enum err e;
    http_req_init(&whole);
    mem_fail_at(1);
    T_EQ(http_req_parse(&whole, few, &e), HTTP_OK); /* allocates nothing */
    T_EQ(http_req_parse(&whole, many, &e), HTTP_BAD);
    T_EQ(e, ERR_NOMEM);
    T_ZEQ(whole.why, "no memory for the header fields");
    mem_fail_at(0);
    T_EQ(http_req_parse(&whole, many, &e), HTTP_OK);
    mem_fail_at(1);
    T_EQ(http_req_parse(&whole, many, &e), HTTP_OK); /* the table was kept */
    mem_fail_at(0);
    http_req_fini(&whole);
    tight_free(many);
    tight_free(few);
}

/*
 * Linear cost: bytes already scanned are not looked at again, but for the first few (empty lines)
 * and the two before the new ones. Bare LFs planted there would be found if they were.
 */
static void
test_head_complete_scans_each_byte_once(void **state)
{
    (void)state;
    struct str s = head_of(3000, 50);
    char *seen = fill('x', s.len);
    size_t scanned = 0;
    for (size_t n = 1; n < s.len; n++) {
        seen[n - 1] = s.p[n - 1];
        if (n > 4)
            seen[n - 4] = '\n';
        T_FALSE(http_head_complete(str_n(seen, n), &scanned));
        T_EQ(scanned, n);
    }
    seen[s.len - 1] = '\n';
    T_TRUE(http_head_complete(str_n(seen, s.len), &scanned));
    T_TRUE(http_head_complete(str_n(seen, s.len), &scanned)); /* and stays so */
    free(seen);
    tight_free(s);
}

static void
test_head_complete_answers(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool complete;
    } cases[] = {
        {"", false},
        {"\r", false},
        {"\r\n", false},
        {"\r\n\r\n", false}, /* empty lines are no head */
        {"\r\n\r\nG", false},
        {"\r\n\r\n\r\n\r\n\r\n", true}, /* too many of them are to be refused */
        {"\rX", true},
        {"\n", true},
        {"\x16\x03", true},
        {" GET", true},
        {"G\n", true},
        {"GET / HTTP/1.1\r\n", false},
        {"GET / HTTP/1.1\r\n\r", false},
        {"GET / HTTP/1.1\r\n\r\n", true},
        {"GET / HTTP/1.1\nA", true},
        {"GET / HTTP/1.1\r\nA: b\r\n\n", true},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct str s = tight_copy(str_of(cases[i].text));
        size_t scanned = 0;
        T_ROW(http_head_complete(s, &scanned) == cases[i].complete, cases[i].text);
        tight_free(s);
    }
}

int
main(void)
{
    http_req_init(&req);
    const struct CMUnitTest tests[] = {
        TEST(test_rules_of_a_request_head),
        TEST(test_every_prefix_agrees_with_the_whole),
        TEST(test_byte_by_byte_through_head_complete),
        TEST(test_spans_are_byte_for_byte),
        TEST(test_methods_are_told_apart_by_case),
        TEST(test_expect_is_ignored_from_http_1_0),
        TEST(test_nothing_is_left_of_the_request_before),
        TEST(test_limits_at_the_edge),
        TEST(test_too_long_a_field_is_too_large),
        TEST(test_head_limit_at_the_edge),
        TEST(test_many_fields_move_to_the_heap_in_order),
        TEST(test_field_table_without_memory),
        TEST(test_head_complete_scans_each_byte_once),
        TEST(test_head_complete_answers),
    };
    int failed = TEST_MAIN(tests);
    http_req_fini(&req);
    return failed;
}
