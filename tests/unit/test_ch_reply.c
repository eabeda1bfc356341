#include "t.h"

#include "clickhouse/ch.h"

static struct http_req head;
static struct buf out;

static void
parse(const char *text)
{
    enum err e = ERR_OK;
    T_EQ(http_req_parse(&head, str_of(text), &e), HTTP_OK);
}

static int
setup(void **state)
{
    (void)state;
    buf_init(&out, 1 << 20);
    return 0;
}

static int
teardown(void **state)
{
    (void)state;
    buf_fini(&out);
    return mem_used() == 0 ? 0 : -1;
}

static struct str
written(void)
{
    T_TRUE(buf_ok(&out));
    return str_n(out.p, out.len);
}

static void
test_error_response_is_clickhouse_shaped(void **state)
{
    (void)state;
    ch_error_response(&out, ERR_QUEUE_FULL, NULL, 1, true, false);
    T_STR(written(),
        "HTTP/1.1 503 Service Unavailable\r\n"
        "Content-Type: text/plain; charset=UTF-8\r\n"
        "X-ClickHouse-Exception-Code: 202\r\n"
        "X-Chmux-Error: queue_full\r\n"
        "Retry-After: 1\r\n"
        "Content-Length: 140\r\n"
        "Connection: Keep-Alive\r\n"
        "\r\n"
        "Code: 202. DB::Exception: chmux: all upstream connections are busy and the wait queue is "
        "full (queue_size). (TOO_MANY_SIMULTANEOUS_QUERIES)\n");
}

static void
test_error_response_variants(void **state)
{
    (void)state;
    ch_error_response(&out, ERR_BAD_REQUEST, "bare LF", 0, false, false);
    T_STR(written(), "HTTP/1.0 400 Bad Request\r\n"
                     "Content-Type: text/plain; charset=UTF-8\r\n"
                     "X-ClickHouse-Exception-Code: 36\r\n"
                     "X-Chmux-Error: bad_request\r\n"
                     "Content-Length: 88\r\n"
                     "Connection: close\r\n"
                     "\r\n"
                     "Code: 36. DB::Exception: chmux: the request is not valid HTTP: bare LF. "
                     "(BAD_ARGUMENTS)\n");
    size_t with_body = out.len;
    buf_consume(&out, out.len);
    ch_error_response(&out, ERR_BAD_REQUEST, "bare LF", 0, false, true);
    T_EQ(out.len, with_body - 88); /* HEAD: the same head, no body */
    T_TRUE(memcmp(out.p + out.len - 4, "\r\n\r\n", 4) == 0);
}

/* Each error of the table makes a response whose length field is true. */
static void
test_every_error_says_its_length(void **state)
{
    (void)state;
    for (enum err e = ERR_OK + 1; e < ERR_COUNT; e++) {
        struct http_status status;
        struct http_meta meta;
        size_t at;
        buf_consume(&out, out.len);
        ch_error_response(&out, e, "detail", 1, false, false);
        T_EQ(http_status_parse(written(), &status, &at), HTTP_OK);
        T_EQ(status.code, err_info(e)->status);
        http_meta_init(&meta);
        for (;;) {
            struct http_field f;
            size_t used;
            enum http_line_result line = http_line_next(str_n(out.p + at, out.len - at), &f, &used);
            T_TRUE(line == HTTP_LINE_FIELD || line == HTTP_LINE_END);
            at += used;
            if (line == HTTP_LINE_END)
                break;
            T_EQ(http_meta_add(&meta, &f), ERR_OK);
        }
        T_TRUE(meta.has_length && meta.conn_close);
        T_EQ(meta.content_length, out.len - at);
    }
}

static void
test_add_query_id(void **state)
{
    (void)state;
    static const char *const cases[][2] = {{"/", "/?query_id=i"}, {"/?", "/?query_id=i"},
        {"/?a=b", "/?query_id=i&a=b"}, {"/?a=b&", "/?query_id=i&a=b&"}, {"", "?query_id=i"},
        {"/?a?b", "/?query_id=i&a?b"}, {"/#f", "/?query_id=i#f"}, {"/?#f", "/?query_id=i#f"},
        {"/?a=b#f?g", "/?query_id=i&a=b#f?g"}, {"/#f?g", "/?query_id=i#f?g"}};
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        buf_consume(&out, out.len);
        T_TRUE(ch_add_query_id(&out, str_of(cases[i][0]), STR("i")));
        T_STR(written(), cases[i][1]);
    }
}

/* Where one parameter more would show, or change what the target means. */
static void
test_add_query_id_leaves_other_paths(void **state)
{
    (void)state;
    static const char *const cases[] = {"/foo", "/foo?query=select+1", "/query", "/query#?",
        "/ping", "/ping?", "//?query=1", "http://h/?query=1", "*"};
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        buf_consume(&out, out.len);
        T_FALSE(ch_add_query_id(&out, str_of(cases[i]), STR("i")));
        T_STR(written(), cases[i]);
    }
    buf_consume(&out, out.len);
    T_TRUE(ch_add_query_id(&out, STR("/query?a=b"), STR("i")));
    T_STR(written(), "/query?query_id=i&a=b");
}

/* A target that a server takes must not become one it refuses. */
static void
test_add_query_id_keeps_uri_limits(void **state)
{
    (void)state;
    static char target[HTTP_MAX_URI];
    static const struct {
        size_t len;
        bool added;
    } cases[] = {{16384 - 11, true}, {16384 - 10, false}, {16384, false}, {16385, true},
        {HTTP_MAX_URI - 11, true}, {HTTP_MAX_URI - 10, false}, {HTTP_MAX_URI, false}};
    memset(target, 'x', sizeof(target));
    memcpy(target, "/?", 2);
    buf_init(&out, HTTP_MAX_URI + 100);
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        buf_consume(&out, out.len);
        struct str t = str_n(target, cases[i].len);
        T_EQ(ch_add_query_id(&out, t, STR("i")), cases[i].added);
        T_EQ(written().len, cases[i].len + (cases[i].added ? 11 : 0));
    }
}

static void
test_kill_request_carries_the_callers_credentials(void **state)
{
    (void)state;
    parse("GET /x?query=select+1&us%65r=al%26ice&password=p%20w&role=r1&role=r2&session_id=s&"
          "quota_key=k&max_threads=1 HTTP/1.1\r\nHost: me\r\nUser-Agent: u\r\n"
          "X-Other: o\r\n\r\n");
    ch_kill_request(&out, &head, STR("db:8123"), STR("it's \\ id"));
    T_STR(written(),
        "POST /?us%65r=al%26ice&password=p%20w&role=r1&role=r2&quota_key=k HTTP/1.1\r\n"
        "Host: db:8123\r\n"
        "Content-Length: 47\r\n"
        "\r\n"
        "KILL QUERY WHERE query_id = 'it\\'s \\\\ id' ASYNC");
    buf_consume(&out, out.len);
    parse(
        "POST / HTTP/1.1\r\nauthorization:  Bearer t\r\nX-ClickHouse-User: u\r\n"
        "X-ClickHouse-Key: k\r\nX-ClickHouse-Quota: q\r\nX-ClickHouse-SSL-Certificate-Auth: on\r\n"
        "X-ClickHouse-Database: d\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n");
    ch_kill_request(&out, &head, STR("h"), STR("i"));
    T_STR(written(), "POST / HTTP/1.1\r\n"
                     "Host: h\r\n"
                     "authorization:  Bearer t\r\n"
                     "X-ClickHouse-User: u\r\n"
                     "X-ClickHouse-Key: k\r\n"
                     "X-ClickHouse-Quota: q\r\n"
                     "X-ClickHouse-SSL-Certificate-Auth: on\r\n"
                     "Content-Length: 37\r\n"
                     "\r\n"
                     "KILL QUERY WHERE query_id = 'i' ASYNC");
}

static void
test_native_exception(void **state)
{
    (void)state;
    ch_native_exception(&out, 516, "no");
    static const char want[] = "\x02"
                               "\x04\x02\x00\x00"
                               "\x0d"
                               "DB::Exception"
                               "\x11"
                               "DB::Exception: no"
                               "\x00"
                               "\x00";
    T_EQ(out.len, sizeof(want) - 1);
    T_TRUE(memcmp(out.p, want, sizeof(want) - 1) == 0);
    buf_consume(&out, out.len);
    char longer[200];
    memset(longer, 'm', sizeof(longer) - 1);
    longer[sizeof(longer) - 1] = '\0';
    ch_native_exception(&out, -1, longer);
    T_TRUE(memcmp(out.p + 1, "\xff\xff\xff\xff", 4) == 0);
    T_TRUE(memcmp(out.p + 19, "\xd6\x01", 2) == 0); /* 214 = 0x56 + 1 * 128 */
    T_EQ(out.len, 19 + 2 + 214 + 2);
}

static void
mask_is(const char *target, const char *want)
{
    buf_consume(&out, out.len);
    ch_mask_target(&out, str_of(target), 1000);
    T_STR(written(), want);
}

static void
test_mask_hides_secrets(void **state)
{
    (void)state;
    mask_is("/", "/");
    mask_is("/?", "/?");
    mask_is("/?query=select%201&user=u&password=x&a=b", "/?query=***&user=u&password=***&a=b");
    mask_is("/?qu%65ry=&param_id=5&query_id=q&queryx=y",
        "/?qu%65ry=***&param_id=***&query_id=q&queryx=y");
    mask_is("/?PassWord=x", "/?PassWord=***");
    mask_is("/?p%61ssword=x&password=", "/?p%61ssword=***&password=***");
    mask_is("/?access_token=x&mysecret2=y&quota_key=z&password",
        "/?access_token=***&mysecret2=***&quota_key=***&password");
    mask_is("/?password=a=b&&c=d", "/?password=***&&c=d");
    mask_is("/?password=ab#cd", "/?password=***#***");
    mask_is("/#password=x", "/#***");
    mask_is("http://u:p@h:1/?a=@", "http://***@h:1/?a=@");
    mask_is("http://u:p@q@h", "http://***@h");
    mask_is("http://h/a@b", "http://h/a@b");
    mask_is("/a\x01\x7f\n\xc3\xa9?b\t", "/a%01%7F%0A\xc3\xa9?b%09");
    char target[400];
    snprintf(target, sizeof(target), "/?%0300d=x", 1);
    buf_consume(&out, out.len);
    ch_mask_target(&out, str_of(target), 1000); /* a name too long to look at is hidden */
    T_TRUE(memcmp(out.p + out.len - 4, "=***", 4) == 0);
}

static void
test_mask_cuts(void **state)
{
    (void)state;
    static const char *const want[] = {"", ".", "..", "...", "/...", "/?...", "/?a...", "/?a=bc&d"};
    static const size_t max[] = {0, 1, 2, 3, 4, 5, 6, 8};
    for (size_t i = 0; i < COUNT_OF(want); i++) {
        buf_consume(&out, out.len);
        ch_mask_target(&out, STR("/?a=bc&d"), max[i]);
        T_STR(written(), want[i]);
    }
    for (size_t n = 0; n < 40; n++) { /* never longer, never half an escape, never a secret */
        buf_consume(&out, out.len);
        ch_mask_target(&out, STR("/?a=\x01\x02&password=topsecret&\x03"), n);
        T_TRUE(written().len <= n);
        T_TRUE(out.len == 0 || memmem(out.p, out.len, "top", 3) == NULL);
    }
}

/* The n-th allocation fails: the buffer says so, nothing leaks, nothing is half believed. */
static void
test_no_memory(void **state)
{
    (void)state;
    parse("GET /?password=x HTTP/1.1\r\n\r\n");
    for (int what = 0; what < 5; what++) {
        bool failed = true;
        for (uint64_t n = 1; failed; n++) {
            buf_fini(&out);
            mem_fail_at(n);
            switch (what) {
            case 0: ch_error_response(&out, ERR_NOMEM, "d", 1, true, false); break;
            case 1: ch_kill_request(&out, &head, STR("h"), STR("i")); break;
            case 2: (void)ch_add_query_id(&out, head.target, STR("i")); break;
            case 3: ch_mask_target(&out, head.target, 100); break;
            case 4: ch_native_exception(&out, 1, "m"); break;
            default: break;
            }
            mem_fail_at(0);
            failed = !buf_ok(&out);
            T_TRUE(n > 1 || failed);
        }
    }
}

int
main(void)
{
#define CASE(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
    const struct CMUnitTest tests[] = {
        CASE(test_error_response_is_clickhouse_shaped),
        CASE(test_error_response_variants),
        CASE(test_every_error_says_its_length),
        CASE(test_add_query_id),
        CASE(test_add_query_id_leaves_other_paths),
        CASE(test_add_query_id_keeps_uri_limits),
        CASE(test_kill_request_carries_the_callers_credentials),
        CASE(test_native_exception),
        CASE(test_mask_hides_secrets),
        CASE(test_mask_cuts),
        CASE(test_no_memory),
    };
    http_req_init(&head);
    int failed = TEST_MAIN(tests);
    http_req_fini(&head);
    return failed;
}
