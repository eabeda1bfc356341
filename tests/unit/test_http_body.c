#include "test_http.h"

struct row {
    const char *name;
    struct str bytes;
    enum http_body_result res;
    size_t used;         /* of DONE and BAD */
    const char *payload; /* of DONE */
    const char *why;     /* of BAD */
    bool odd;            /* of DONE: no reuse */
};
#define DONE(name, text, rest, payload, odd)                                                       \
    {                                                                                              \
        name, STR(text rest), HTTP_BODY_DONE, sizeof(text) - 1, payload, NULL, odd                 \
    }
/* Breaks at the first byte of `rest`. */
#define BAD(name, text, rest, why)                                                                 \
    {                                                                                              \
        name, STR(text rest), HTTP_BODY_BAD, sizeof(text) - 1, NULL, why, false                    \
    }

#define WHY_SIZE    "bad character in a chunk size"
#define WHY_NOHEX   "chunk size is not a hex number"
#define WHY_LF      "CR without LF in the chunk framing"
#define WHY_END     "chunk is not followed by CRLF"
#define WHY_NAME    "bad character in a trailer name"
#define WHY_FRAMING "framing field in the trailers"
#define WHY_OVER    "chunk size over 2^63-1"
#define ZEROS       "0000000000000000000000000000000000000000"

static const struct row rows[] = {
    DONE("one chunk", "2\r\n1\n\r\n0\r\n\r\n", "", "1\n", false),
    DONE("no chunk", "0\r\n\r\n", "", "", false),
    DONE("more follows", "1\r\na\r\n0\r\n\r\n", "GET / HTTP/1.1\r\n", "a", false),
    DONE("several chunks", "3\r\nabc\r\n1\r\nd\r\nA\r\n0123456789\r\n0\r\n\r\n", "",
        "abcd0123456789", false),
    DONE("CRLF in the payload", "4\r\n\r\n\r\n\r\n0\r\n\r\n", "", "\r\n\r\n", false),
    DONE("hex in both cases", "a\r\n0123456789\r\nB\r\n0123456789a\r\n0\r\n\r\n", "",
        "01234567890123456789a", false),
    DONE("zero-padded sizes", ZEROS "1\r\na\r\n" ZEROS "\r\n\r\n", "", "a", true),
    DONE("sizes of eight digits", "00000001\r\na\r\n00000000\r\n\r\n", "", "a", false),
    DONE("size of nine digits", "000000001\r\na\r\n0\r\n\r\n", "", "a", true),
    DONE("last chunk of nine digits", "1\r\na\r\n000000000\r\n\r\n", "", "a", true),
    DONE("space after the size", "1 \r\na\r\n0 \t\r\n\r\n", "", "a", false),
    DONE("extension", "1;name=value\r\na\r\n0;last\r\n\r\n", "", "a", false),
    DONE("extension with spaces and quotes", "1 ; n = \"q;\\\"\" \t;\x80\r\na\r\n0\r\n\r\n", "",
        "a", false),
    DONE("empty extension", "1;\r\na\r\n0;;\r\n\r\n", "", "a", false),
    DONE("trailers", "0\r\nX-A: b\r\nX-C:\td \x80\r\nX-E:\r\n\r\n", "rest", "", true),
    DONE("trailers with names like framing ones",
        "0\r\nContent-Lengt: 5\r\nContent-Length2: 5\r\ncTransfer-Encoding: a\r\n\r\n", "", "",
        true),
    BAD("Content-Length as a trailer", "0\r\nX: y\r\nCONTENT-length", ": 5\r\n\r\n", WHY_FRAMING),
    BAD("Transfer-Encoding as a trailer", "0\r\nTransfer-Encoding", ": chunked\r\n\r\n",
        WHY_FRAMING),
    BAD("empty size", "", "\r\n\r\n", WHY_NOHEX),
    BAD("space before the size", "", " 1\r\na\r\n", WHY_NOHEX),
    BAD("sign", "", "-1\r\na\r\n", WHY_NOHEX),
    BAD("plus", "", "+1\r\na\r\n", WHY_NOHEX),
    BAD("no digit", "", "g\r\n", WHY_NOHEX),
    BAD("only an extension", "", ";a\r\n", WHY_NOHEX),
    BAD("0x", "0", "x1\r\na\r\n", WHY_SIZE),
    BAD("letter after the digits", "1", "g\r\n", WHY_SIZE),
    BAD("digits after a space", "1 ", "1\r\n", WHY_SIZE),
    BAD("extension without a semicolon", "1 ", "name\r\n", WHY_SIZE),
    BAD("size with a bare LF", "1", "\na\r\n", WHY_SIZE),
    BAD("size with a bare CR", "1\r", "a\r\n", WHY_LF),
    BAD("NUL after the size", "1", "\0\r\n", WHY_SIZE),
    BAD("extension with a bare LF", "1;a", "\nb\r\n", "control character in a chunk extension"),
    BAD("extension with a NUL", "1;a", "\0\r\n", "control character in a chunk extension"),
    BAD("extension with a bare CR", "1;a\r", "b\r\n", WHY_LF),
    BAD("quoted CR LF ends the line", "1;a=\"\r\na", "\"\r\n", WHY_END),
    BAD("size of 2^63", "800000000000000", "0\r\n", WHY_OVER),
    BAD("size of 2^64", "1000000000000000", "0\r\n", WHY_OVER),
    BAD("size of 2^64 + 1, which would wrap to 1", "1000000000000000", "1\r\n", WHY_OVER),
    BAD("seventeen digits after zeros", ZEROS "1000000000000000", "0\r\n", WHY_OVER),
    BAD("chunk too long", "1\r\na", "b\r\n", WHY_END),
    BAD("chunk too short", "3\r\na\r\n", "0\r\n\r\n", WHY_END),
    BAD("chunk ended by a bare LF", "1\r\na", "\n0\r\n\r\n", WHY_END),
    BAD("chunk ended by a bare CR", "1\r\na\r", "0\r\n\r\n", WHY_LF),
    BAD("last chunk with a bare LF", "0\r\n", "\n", WHY_NAME),
    BAD("blank line with a bare CR", "0\r\n\r", "X", WHY_LF),
    BAD("trailer without a colon", "0\r\nGET", " / HTTP/1.1\r\n", WHY_NAME),
    BAD("trailer ends without a colon", "0\r\nX", "\r\n\r\n", WHY_NAME),
    BAD("trailer without a name", "0\r\n", ": b\r\n\r\n", WHY_NAME),
    BAD("trailer with a space before the colon", "0\r\nX-A", " : b\r\n\r\n", WHY_NAME),
    BAD("folded trailer", "0\r\nX-A: b\r\n", " c\r\n\r\n", WHY_NAME),
    BAD("trailer with a bare LF", "0\r\nX-A: b", "\n\r\n", "control character in a trailer"),
    BAD("trailer with a bare CR", "0\r\nX-A: b\r", "c\r\n", WHY_LF),
    BAD("trailer with a NUL", "0\r\nX-A: b", "\0\r\n", "control character in a trailer"),
};

/* Feeds s from first to last byte in pieces of at most `first`, then `then` bytes. */
static enum http_body_result
feed(struct http_body *b, struct str s, size_t first, size_t then, bool by_next, char *payload,
    size_t *used)
{
    enum http_body_result res = HTTP_BODY_MORE;
    size_t piece = first, got = 0;
    *used = 0;
    while (res == HTTP_BODY_MORE && *used < s.len) {
        struct str part = tight_copy(str_n(s.p + *used, size_min(piece, s.len - *used)));
        size_t n = 0;
        if (by_next) {
            struct str data;
            res = http_body_next(b, part, &data, &n);
            memcpy(payload + got, data.p, data.len);
            got += data.len;
            assert_true(n > 0 || res != HTTP_BODY_MORE); /* it always gets on */
        } else {
            res = http_body_scan(b, part, &n);
            assert_true(res != HTTP_BODY_MORE || n == part.len);
        }
        *used += n;
        piece = then;
        tight_free(part);
    }
    payload[got] = '\0';
    return res;
}

static void
check_row(const struct row *r, size_t first, size_t then, bool by_next)
{
    struct http_body b;
    char payload[256];
    size_t used;
    http_body_init(&b, HTTP_BODY_CHUNKED, 0);
    T_ROW(feed(&b, r->bytes, first, then, by_next, payload, &used) == r->res, r->name);
    T_ROW(used == r->used, r->name);
    T_ROW(z_eq(b.why, r->why), r->name);
    T_ROW(http_body_is_done(&b) == (r->res == HTTP_BODY_DONE), r->name);
    if (r->res != HTTP_BODY_DONE)
        return;
    T_ROW(b.total == strlen(r->payload), r->name);
    T_ROW(http_req_reusable(HTTP_M_POST, &b) == !r->odd, r->name);
    if (by_next)
        T_ROW(z_eq(payload, r->payload), r->name);
}

static void
test_rules_of_the_chunked_coding(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        check_row(&rows[i], SIZE_MAX, SIZE_MAX, false);
        check_row(&rows[i], SIZE_MAX, SIZE_MAX, true);
    }
}

static void
test_every_split_in_two_agrees(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        for (size_t first = 1; first < rows[i].bytes.len; first++) {
            check_row(&rows[i], first, SIZE_MAX, false);
            check_row(&rows[i], first, SIZE_MAX, true);
        }
    }
}

static void
test_byte_by_byte_agrees(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        check_row(&rows[i], 1, 1, false);
        check_row(&rows[i], 1, 1, true);
    }
}

/* A body whose bytes have all come, but whose end has not, is never done. */
static void
test_no_proper_prefix_is_done(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        for (size_t n = 0; n < rows[i].used; n++) {
            struct http_body b;
            size_t used;
            http_body_init(&b, HTTP_BODY_CHUNKED, 0);
            struct str s = str_n(rows[i].bytes.p, n);
            T_ROW(http_body_scan(&b, s, &used) == HTTP_BODY_MORE, rows[i].name);
            T_ROW(!http_body_is_done(&b), rows[i].name);
        }
    }
}

static void
test_done_and_bad_repeat(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        struct http_body b;
        struct str data;
        size_t used;
        http_body_init(&b, HTTP_BODY_CHUNKED, 0);
        T_ROW(http_body_scan(&b, rows[i].bytes, &used) == rows[i].res, rows[i].name);
        uint64_t total = b.total;
        T_ROW(http_body_scan(&b, STR("0\r\n\r\n"), &used) == rows[i].res, rows[i].name);
        T_ROW(used == 0 && b.total == total, rows[i].name);
        T_ROW(http_body_next(&b, STR("0\r\n\r\n"), &data, &used) == rows[i].res, rows[i].name);
        T_ROW(used == 0 && data.len == 0, rows[i].name);
        T_ROW(http_body_scan(&b, STR(""), &used) == rows[i].res, rows[i].name);
    }
}

static void
test_largest_chunk_size(void **state)
{
    (void)state;
    struct http_body b;
    size_t used;
    http_body_init(&b, HTTP_BODY_CHUNKED, 0);
    T_EQ(http_body_scan(&b, STR("7fffffffffffffff\r\nab"), &used), HTTP_BODY_MORE);
    T_EQ(http_body_run(&b), (uint64_t)INT64_MAX - 2);
    http_body_skip(&b, (uint64_t)INT64_MAX - 2);
    T_EQ(http_body_scan(&b, STR("\r\n0\r\n\r\n"), &used), HTTP_BODY_DONE);
    T_EQ(b.total, INT64_MAX);
}

/* start, then n times c, then end: what does the scan say? */
static enum http_body_result
scan_padded(const char *start, char c, size_t n, const char *end, struct http_body *b)
{
    size_t used, start_len = strlen(start), end_len = strlen(end);
    char *p = fill(c, start_len + n + end_len);
    memcpy(p, start, start_len);
    memcpy(p + start_len + n, end, end_len);
    http_body_init(b, HTTP_BODY_CHUNKED, 0);
    enum http_body_result res = http_body_scan(b, str_n(p, start_len + n + end_len), &used);
    free(p);
    return res;
}

static void
test_line_limits_at_the_edge(void **state)
{
    (void)state;
    struct http_body b;
    const char *end = "\r\n\r\n";
    T_EQ(scan_padded("", '0', HTTP_MAX_BODY_LINE, end, &b), HTTP_BODY_DONE);
    T_EQ(scan_padded("", '0', HTTP_MAX_BODY_LINE + 1, end, &b), HTTP_BODY_BAD);
    T_ZEQ(b.why, "chunk-size line over 8 KiB");
    T_EQ(scan_padded("0;", 'e', HTTP_MAX_BODY_LINE - 2, end, &b), HTTP_BODY_DONE);
    T_EQ(scan_padded("0;", 'e', HTTP_MAX_BODY_LINE - 1, end, &b), HTTP_BODY_BAD);
    T_EQ(scan_padded("0 ", ' ', HTTP_MAX_BODY_LINE - 1, "", &b), HTTP_BODY_BAD); /* unfinished */
    T_EQ(scan_padded("0\r\nA:", 'v', HTTP_MAX_BODY_LINE - 2, end, &b), HTTP_BODY_DONE);
    T_EQ(scan_padded("0\r\nA:", 'v', HTTP_MAX_BODY_LINE - 1, end, &b), HTTP_BODY_BAD);
    T_ZEQ(b.why, "trailer line over 8 KiB");
    /* The cap is on one line: the count starts again with each. */
    T_EQ(scan_padded("1;0123456789\r\na\r\n", '0', HTTP_MAX_BODY_LINE, end, &b), HTTP_BODY_DONE);
}

static void
test_trailers_limit_at_the_edge(void **state)
{
    (void)state;
    for (int over = 0; over <= 1; over++) {
        struct http_body b;
        size_t used;
        http_body_init(&b, HTTP_BODY_CHUNKED, 0);
        T_EQ(http_body_scan(&b, STR("0\r\n"), &used), HTTP_BODY_MORE);
        for (int i = 0; i < HTTP_MAX_TRAILERS / 16 - 1; i++)
            T_EQ(http_body_scan(&b, STR("Trailer: 45678\r\n"), &used), HTTP_BODY_MORE);
        struct str last = over ? STR("Trailer: 456789\r\n\r\n") : STR("Trailer: 45678\r\n\r\n");
        T_EQ(http_body_scan(&b, last, &used), over ? HTTP_BODY_BAD : HTTP_BODY_DONE);
        if (over)
            T_ZEQ(b.why, "trailers over 64 KiB");
    }
}

static void
test_length_ends_at_its_last_byte(void **state)
{
    (void)state;
    struct http_body b;
    struct str data;
    size_t used;
    http_body_init(&b, HTTP_BODY_LENGTH, 5);
    T_FALSE(http_body_is_done(&b));
    T_EQ(http_body_run(&b), 5);
    T_EQ(http_body_scan(&b, STR("ab"), &used), HTTP_BODY_MORE);
    T_EQ(used, 2);
    T_EQ(http_body_next(&b, STR("cdeGET /"), &data, &used), HTTP_BODY_DONE);
    T_EQ(used, 3);
    T_STR(data, "cde");
    T_EQ(b.total, 5);
    T_TRUE(http_body_is_done(&b));
    T_EQ(http_body_scan(&b, STR("GET /"), &used), HTTP_BODY_DONE);
    T_EQ(used, 0);
    http_body_init(&b, HTTP_BODY_LENGTH, 0);
    T_TRUE(http_body_is_done(&b));
    T_EQ(http_body_scan(&b, STR("GET /"), &used), HTTP_BODY_DONE);
    T_EQ(used, 0);
}

static void
test_none_is_done_and_close_never_is(void **state)
{
    (void)state;
    struct http_body b;
    struct str data;
    size_t used;
    http_body_init(&b, HTTP_BODY_NONE, 7);
    T_TRUE(http_body_is_done(&b));
    T_EQ(http_body_scan(&b, STR("x"), &used), HTTP_BODY_DONE);
    T_EQ(used, 0);
    http_body_init(&b, HTTP_BODY_CLOSE, 0);
    T_EQ(http_body_next(&b, STR("0\r\n\r\n"), &data, &used), HTTP_BODY_MORE);
    T_EQ(data.len, 5);
    T_EQ(http_body_scan(&b, STR("x"), &used), HTTP_BODY_MORE);
    T_EQ(b.total, 6);
    T_EQ(http_body_run(&b), 0);
    T_FALSE(http_body_is_done(&b));
}

/* run() promises payload only; skip() of it, in parts, leaves the framing where it was. */
static void
test_run_and_skip(void **state)
{
    (void)state;
    struct http_body b;
    size_t used;
    http_body_init(&b, HTTP_BODY_CHUNKED, 0);
    T_EQ(http_body_run(&b), 0);
    T_EQ(http_body_scan(&b, STR("a"), &used), HTTP_BODY_MORE);
    T_EQ(http_body_run(&b), 0); /* the size may have more digits */
    T_EQ(http_body_scan(&b, STR("\r\n"), &used), HTTP_BODY_MORE);
    T_EQ(http_body_run(&b), 10);
    http_body_skip(&b, 0);
    http_body_skip(&b, 4);
    T_EQ(http_body_run(&b), 6);
    http_body_skip(&b, 6);
    T_EQ(http_body_run(&b), 0);
    T_EQ(http_body_scan(&b, STR("\r\n0\r\n\r\n"), &used), HTTP_BODY_DONE);
    T_EQ(b.total, 10);
    T_EQ(http_body_run(&b), 0);

    http_body_init(&b, HTTP_BODY_LENGTH, 10);
    http_body_skip(&b, 10);
    T_TRUE(http_body_is_done(&b));
    T_EQ(b.total, 10);
}

/* What ClickHouse 18.16 may read otherwise: see docs/HTTP.md. */
static void
test_reuse_after_a_request_body(void **state)
{
    (void)state;
    static const enum http_method others[] = {
        HTTP_M_GET, HTTP_M_HEAD, HTTP_M_OPTIONS, HTTP_M_CONNECT, HTTP_M_OTHER};
    struct http_body none, empty, length, chunked;
    size_t used;
    http_body_init(&none, HTTP_BODY_NONE, 0);
    http_body_init(&empty, HTTP_BODY_LENGTH, 0);
    http_body_init(&length, HTTP_BODY_LENGTH, 1);
    T_EQ(http_body_scan(&length, STR("x"), &used), HTTP_BODY_DONE);
    http_body_init(&chunked, HTTP_BODY_CHUNKED, 0);
    T_EQ(http_body_scan(&chunked, STR("0\r\n\r\n"), &used), HTTP_BODY_DONE);
    T_TRUE(http_req_reusable(HTTP_M_POST, &none));
    T_TRUE(http_req_reusable(HTTP_M_POST, &empty));
    T_TRUE(http_req_reusable(HTTP_M_POST, &length));
    T_TRUE(http_req_reusable(HTTP_M_POST, &chunked));
    for (size_t i = 0; i < COUNT_OF(others); i++) {
        T_TRUE(http_req_reusable(others[i], &none));
        T_TRUE(http_req_reusable(others[i], &empty));
        T_FALSE(http_req_reusable(others[i], &length));
        T_FALSE(http_req_reusable(others[i], &chunked));
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_rules_of_the_chunked_coding),
        TEST(test_every_split_in_two_agrees),
        TEST(test_byte_by_byte_agrees),
        TEST(test_no_proper_prefix_is_done),
        TEST(test_done_and_bad_repeat),
        TEST(test_largest_chunk_size),
        TEST(test_line_limits_at_the_edge),
        TEST(test_trailers_limit_at_the_edge),
        TEST(test_length_ends_at_its_last_byte),
        TEST(test_none_is_done_and_close_never_is),
        TEST(test_run_and_skip),
        TEST(test_reuse_after_a_request_body),
    };
    return TEST_MAIN(tests);
}
