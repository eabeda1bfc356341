#include "test_http.h"

static const struct {
    const char *name;
    struct str line;
    enum http_result res;
    int code, minor;
} rows[] = {
    {"plain", STR("HTTP/1.1 200 OK\r\n"), HTTP_OK, 200, 1},
    {"lowest code", STR("HTTP/1.1 100 Continue\r\n"), HTTP_OK, 100, 1},
    {"highest code", STR("HTTP/1.1 599 Whatever\r\n"), HTTP_OK, 599, 1},
    {"HTTP/1.0", STR("HTTP/1.0 404 Not Found\r\n"), HTTP_OK, 404, 0},
    {"HTTP/1.2 counts as 1.1", STR("HTTP/1.2 200 OK\r\n"), HTTP_OK, 200, 1},
    {"empty reason", STR("HTTP/1.1 200 \r\n"), HTTP_OK, 200, 1},
    {"neither space nor reason", STR("HTTP/1.1 204\r\n"), HTTP_OK, 204, 1},
    {"tab and high bytes in the reason", STR("HTTP/1.1 500 a\tb \xff\r\n"), HTTP_OK, 500, 1},
    {"code 600", STR("HTTP/1.1 600 X\r\n"), HTTP_BAD, 0, 0},
    {"code 099", STR("HTTP/1.1 099 X\r\n"), HTTP_BAD, 0, 0},
    {"two digits", STR("HTTP/1.1 20 OK\r\n"), HTTP_BAD, 0, 0},
    {"four digits", STR("HTTP/1.1 2000 OK\r\n"), HTTP_BAD, 0, 0},
    {"letters for a code", STR("HTTP/1.1 abc\r\n"), HTTP_BAD, 0, 0},
    {"two spaces", STR("HTTP/1.1  200 OK\r\n"), HTTP_BAD, 0, 0},
    {"tab for the space", STR("HTTP/1.1\t200 OK\r\n"), HTTP_BAD, 0, 0},
    {"tab after the code", STR("HTTP/1.1 200\tOK\r\n"), HTTP_BAD, 0, 0},
    {"lower case", STR("http/1.1 200 OK\r\n"), HTTP_BAD, 0, 0},
    {"HTTP/2", STR("HTTP/2 200 OK\r\n"), HTTP_BAD, 0, 0},
    {"HTTP/2.0", STR("HTTP/2.0 200 OK\r\n"), HTTP_BAD, 0, 0},
    {"HTTP/0.9", STR("HTTP/0.9 200 OK\r\n"), HTTP_BAD, 0, 0},
    {"leading CRLF", STR("\r\nHTTP/1.1 200 OK\r\n"), HTTP_BAD, 0, 0},
    {"bare LF", STR("HTTP/1.1 200 OK\n"), HTTP_BAD, 0, 0},
    {"bare LF after the code", STR("HTTP/1.1 200\n"), HTTP_BAD, 0, 0},
    {"bare CR", STR("HTTP/1.1 200 O\rK\r\n"), HTTP_BAD, 0, 0},
    {"NUL in the reason", STR("HTTP/1.1 200 O\0K\r\n"), HTTP_BAD, 0, 0},
    {"another protocol", STR("SSH-2.0-OpenSSH_9.2\r\n"), HTTP_BAD, 0, 0},
    {"TLS alert", STR("\x15\x03\x01\x00\x02\x02\x46"), HTTP_BAD, 0, 0},
};

static void
test_rules_of_a_status_line(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        struct str s = tight_copy(rows[i].line);
        struct http_status st;
        size_t used;
        T_ROW(http_status_parse(s, &st, &used) == rows[i].res, rows[i].name);
        if (rows[i].res == HTTP_OK) {
            T_ROW(st.code == rows[i].code && st.minor == rows[i].minor, rows[i].name);
            T_ROW(used == s.len && str_eq(st.line, s), rows[i].name);
        }
        tight_free(s);
    }
}

static void
test_every_prefix_agrees_with_the_whole(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        bool decided = false;
        for (size_t n = 0; n < rows[i].line.len; n++) {
            struct str s = tight_copy(str_n(rows[i].line.p, n));
            struct http_status st;
            size_t used;
            enum http_result res = http_status_parse(s, &st, &used);
            T_ROW(res != HTTP_OK, rows[i].name);
            T_ROW(res == HTTP_MORE || rows[i].res == HTTP_BAD, rows[i].name);
            T_ROW(!decided || res == HTTP_BAD, rows[i].name);
            decided = res == HTTP_BAD;
            tight_free(s);
        }
    }
}

static void
test_status_line_limit_at_the_edge(void **state)
{
    (void)state;
    struct http_status st;
    size_t used;
    char *line = fill('r', HTTP_MAX_STATUS_LINE + 2);
    memcpy(line, "HTTP/1.1 200 ", 13);
    T_EQ(http_status_parse(str_n(line, HTTP_MAX_STATUS_LINE - 1), &st, &used), HTTP_MORE);
    T_EQ(http_status_parse(str_n(line, HTTP_MAX_STATUS_LINE), &st, &used), HTTP_BAD);
    memcpy(line + HTTP_MAX_STATUS_LINE - 1, "\r\n", 2);
    T_EQ(http_status_parse(str_n(line, HTTP_MAX_STATUS_LINE + 1), &st, &used), HTTP_OK);
    T_EQ(used, HTTP_MAX_STATUS_LINE + 1);
    free(line);
}

static struct http_meta
meta_of(const char *length, const char *te, const char *connection)
{
    struct http_meta m;
    http_meta_init(&m);
    const struct {
        enum http_field_id id;
        const char *value;
    } fields[] = {
        {HTTP_F_CONTENT_LENGTH, length},
        {HTTP_F_TRANSFER_ENCODING, te},
        {HTTP_F_CONNECTION, connection},
    };
    for (size_t i = 0; i < COUNT_OF(fields); i++) {
        if (fields[i].value == NULL)
            continue;
        struct http_field f = {.id = fields[i].id, .value = str_of(fields[i].value)};
        T_EQ(http_meta_add(&m, &f), ERR_OK);
    }
    return m;
}

static enum http_framing
framing(const struct http_meta *m, int status, enum http_method method)
{
    enum http_framing f;
    struct http_status st = {.code = status, .minor = 1};
    T_EQ(http_resp_framing(m, &st, method, &f), ERR_OK);
    return f;
}

static void
test_response_framing_by_rfc_9112_section_6_3(void **state)
{
    (void)state;
    struct http_meta none = meta_of(NULL, NULL, NULL);
    struct http_meta length = meta_of("5", NULL, NULL);
    struct http_meta chunked = meta_of(NULL, "Chunked", NULL);
    T_EQ(framing(&none, 200, HTTP_M_GET), HTTP_BODY_CLOSE);
    T_EQ(framing(&length, 200, HTTP_M_GET), HTTP_BODY_LENGTH);
    T_EQ(framing(&chunked, 200, HTTP_M_GET), HTTP_BODY_CHUNKED);
    T_EQ(framing(&chunked, 500, HTTP_M_POST), HTTP_BODY_CHUNKED);
    T_EQ(framing(&none, 501, HTTP_M_CONNECT), HTTP_BODY_CLOSE);
    static const int no_body[] = {100, 101, 103, 199, 204, 304};
    for (size_t i = 0; i < COUNT_OF(no_body); i++) {
        T_EQ(framing(&none, no_body[i], HTTP_M_GET), HTTP_BODY_NONE);
        T_EQ(framing(&length, no_body[i], HTTP_M_GET), HTTP_BODY_NONE);
        T_EQ(framing(&chunked, no_body[i], HTTP_M_GET), HTTP_BODY_NONE);
    }
    T_EQ(framing(&none, 200, HTTP_M_HEAD), HTTP_BODY_NONE);
    T_EQ(framing(&length, 200, HTTP_M_HEAD), HTTP_BODY_NONE);
    T_EQ(framing(&chunked, 200, HTTP_M_HEAD), HTTP_BODY_NONE); /* what ClickHouse says to HEAD */
}

static void
test_response_framing_refuses_what_is_ambiguous(void **state)
{
    (void)state;
    struct http_meta both = meta_of("5", "chunked", NULL);
    struct http_meta gzip = meta_of(NULL, "gzip, chunked", NULL);
    struct http_meta chunked = meta_of(NULL, "chunked", NULL);
    struct http_meta length = meta_of("5", NULL, NULL);
    struct http_status ok = {.code = 200, .minor = 1}, empty = {.code = 204, .minor = 1};
    struct http_status old = {.code = 200, .minor = 0};
    enum http_framing f;
    T_EQ(http_resp_framing(&both, &ok, HTTP_M_GET, &f), ERR_UPSTREAM_BAD);
    T_EQ(http_resp_framing(&gzip, &ok, HTTP_M_GET, &f), ERR_UPSTREAM_BAD);
    T_EQ(http_resp_framing(&both, &ok, HTTP_M_HEAD, &f), ERR_UPSTREAM_BAD);
    T_EQ(http_resp_framing(&both, &empty, HTTP_M_GET, &f), ERR_UPSTREAM_BAD);
    /* RFC 9112 section 6.1: HTTP/1.0 has no Transfer-Encoding. */
    T_EQ(http_resp_framing(&chunked, &old, HTTP_M_GET, &f), ERR_UPSTREAM_BAD);
    T_EQ(http_resp_framing(&chunked, &old, HTTP_M_HEAD, &f), ERR_UPSTREAM_BAD);
    T_EQ(http_resp_framing(&length, &old, HTTP_M_GET, &f), ERR_OK);
    T_EQ(f, HTTP_BODY_LENGTH);
}

static void
test_response_keep_alive(void **state)
{
    (void)state;
    struct http_meta none = meta_of(NULL, NULL, NULL);
    struct http_meta keep = meta_of(NULL, NULL, "keep-alive");
    struct http_meta closed = meta_of(NULL, NULL, "Close");
    T_TRUE(http_resp_keep_alive(&none, 1, HTTP_BODY_CHUNKED));
    T_TRUE(http_resp_keep_alive(&keep, 1, HTTP_BODY_LENGTH));
    T_TRUE(http_resp_keep_alive(&none, 1, HTTP_BODY_NONE));
    T_FALSE(http_resp_keep_alive(&none, 1, HTTP_BODY_CLOSE));
    T_FALSE(http_resp_keep_alive(&closed, 1, HTTP_BODY_LENGTH));
    T_FALSE(http_resp_keep_alive(&keep, 0, HTTP_BODY_LENGTH));
}

static void
test_reasons(void **state)
{
    (void)state;
    T_ZEQ(http_reason(200), "OK");
    T_ZEQ(http_reason(400), "Bad Request");
    T_ZEQ(http_reason(431), "Request Header Fields Too Large");
    T_ZEQ(http_reason(503), "Service Unavailable");
    T_ZEQ(http_reason(299), "Unknown");
    for (enum err e = ERR_OK; e < ERR_COUNT; e++)
        if (e != ERR_OK)
            T_ROW(strcmp(http_reason(err_info(e)->status), "Unknown") != 0, err_info(e)->name);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_rules_of_a_status_line),
        TEST(test_every_prefix_agrees_with_the_whole),
        TEST(test_status_line_limit_at_the_edge),
        TEST(test_response_framing_by_rfc_9112_section_6_3),
        TEST(test_response_framing_refuses_what_is_ambiguous),
        TEST(test_response_keep_alive),
        TEST(test_reasons),
    };
    return TEST_MAIN(tests);
}
