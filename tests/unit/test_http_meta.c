#include "test_http.h"

static struct http_meta meta;

static void
fresh(void)
{
    http_meta_init(&meta);
}

static enum err
add(const char *name, const char *value)
{
    struct http_field f = {.name = str_of(name), .value = str_of(value)};
    f.id = http_field_lookup(f.name);
    return http_meta_add(&meta, &f);
}

static enum err
length(const char *value)
{
    fresh();
    return add("Content-Length", value);
}

static void
test_content_length_is_one_decimal_number(void **state)
{
    (void)state;
    T_EQ(length("0"), ERR_OK);
    T_TRUE(meta.has_length);
    T_EQ(meta.content_length, 0);
    T_EQ(length("0042"), ERR_OK);
    T_EQ(meta.content_length, 42);
    T_EQ(length("9223372036854775807"), ERR_OK);
    T_EQ(meta.content_length, INT64_MAX);
    static const char *const wrong[] = {"9223372036854775808", "18446744073709551616",
        "99999999999999999999999999", "", "-1", "+1", "1 2", "0x10", "1.0", "abc", "5,", ",5",
        "5;"};
    for (size_t i = 0; i < COUNT_OF(wrong); i++)
        T_ROW(length(wrong[i]) == ERR_BAD_REQUEST, wrong[i]);
}

static void
test_second_or_list_content_length_is_refused(void **state)
{
    (void)state;
    T_EQ(length("5"), ERR_OK);
    T_EQ(add("content-length", "6"), ERR_BAD_REQUEST);
    T_EQ(length("5"), ERR_OK);
    T_EQ(add("Content-Length", "5"), ERR_BAD_REQUEST);
    T_EQ(length("5, 5"), ERR_BAD_REQUEST);
    T_EQ(length("5, 6"), ERR_BAD_REQUEST);
}

static void
te(const char *first, const char *second)
{
    fresh();
    T_EQ(add("Transfer-Encoding", first), ERR_OK);
    if (second != NULL)
        T_EQ(add("Transfer-Encoding", second), ERR_OK);
    T_TRUE(meta.has_te);
}

static void
test_te_is_chunked_only_when_exactly_that(void **state)
{
    (void)state;
    te("chunked", NULL);
    T_TRUE(meta.te_chunked);
    te("ChUnKeD", NULL);
    T_TRUE(meta.te_chunked);
    static const char *const other[] = {"", "identity", "gzip, chunked", "chunked, gzip",
        "chunked, chunked", "chunked;q=1", "\"chunked\"", "xchunked", "chunkedx", "chunke",
        ",chunked"};
    for (size_t i = 0; i < COUNT_OF(other); i++) {
        te(other[i], NULL);
        T_ROW(!meta.te_chunked, other[i]);
    }
    te("chunked", "chunked");
    T_FALSE(meta.te_chunked);
    te("identity", "chunked");
    T_FALSE(meta.te_chunked);
}

static void
test_connection_tokens(void **state)
{
    (void)state;
    fresh();
    T_EQ(add("Connection", "Keep-Alive"), ERR_OK);
    T_TRUE(meta.conn_keep_alive && !meta.conn_close && !meta.conn_upgrade && !meta.conn_other);
    fresh();
    T_EQ(add("Connection", "X-Foo , CLOSE"), ERR_OK);
    T_TRUE(!meta.conn_keep_alive && meta.conn_close && !meta.conn_upgrade && meta.conn_other);
    fresh();
    T_EQ(add("Connection", "keep-alive, Upgrade"), ERR_OK);
    T_EQ(add("Upgrade", "h2c, WebSocket"), ERR_OK);
    T_TRUE(meta.conn_keep_alive && meta.conn_upgrade && meta.upgrade_websocket);
    fresh();
    T_EQ(add("Upgrade", "h2c"), ERR_OK);
    T_FALSE(meta.upgrade_websocket);
    fresh();
    T_EQ(add("Connection", ""), ERR_OK);
    T_EQ(add("Connection", " , ,"), ERR_OK);
    T_TRUE(!meta.conn_keep_alive && !meta.conn_close && !meta.conn_upgrade && !meta.conn_other);
}

static void
test_keep_alive_timeout_and_max(void **state)
{
    (void)state;
    fresh();
    T_EQ(meta.keep_alive_timeout_s, 0);
    T_EQ(meta.keep_alive_max, UINT64_MAX);
    T_EQ(add("Keep-Alive", "timeout=30, max=9999"), ERR_OK);
    T_EQ(meta.keep_alive_timeout_s, 30);
    T_EQ(meta.keep_alive_max, 9999);
    fresh();
    T_EQ(add("Keep-Alive", "MAX = 5 ,Timeout=99999999, other=1"), ERR_OK);
    T_EQ(meta.keep_alive_timeout_s, 86400);
    T_EQ(meta.keep_alive_max, 5);
    fresh();
    T_EQ(add("Keep-Alive", "timeout=abc, max, max=-1, timeout="), ERR_OK);
    T_EQ(meta.keep_alive_timeout_s, 0);
    T_EQ(meta.keep_alive_max, UINT64_MAX);
    fresh();
    T_EQ(add("Keep-Alive", "timeout=0"), ERR_OK);
    T_EQ(meta.keep_alive_max, 0); /* a server that keeps nothing: no other request */
}

static void
test_expect(void **state)
{
    (void)state;
    fresh();
    T_EQ(add("Expect", "100-Continue"), ERR_OK);
    T_TRUE(meta.expect_continue && !meta.expect_other);
    fresh();
    T_EQ(add("Expect", "200-ok"), ERR_OK);
    T_TRUE(!meta.expect_continue && meta.expect_other);
}

static void
test_hop_by_hop_fields(void **state)
{
    (void)state;
    static const char *const hop[] = {"Connection", "Keep-Alive", "Proxy-Connection",
        "Proxy-Authenticate", "Proxy-Authorization", "TE", "Transfer-Encoding", "Upgrade",
        "X-Chmux-Compression"};
    static const char *const end[] = {"Trailer", "Content-Length", "Content-Type", "Host",
        "Content-Encoding", "Accept-Encoding", "Expect", "Authorization", "X-ClickHouse-User",
        "X-ClickHouse-Progress", "X-ClickHouse-Exception-Code", "X-Anything"};
    for (size_t i = 0; i < COUNT_OF(hop); i++)
        T_ROW(http_is_hop_by_hop(http_field_lookup(str_of(hop[i]))), hop[i]);
    for (size_t i = 0; i < COUNT_OF(end); i++)
        T_ROW(!http_is_hop_by_hop(http_field_lookup(str_of(end[i]))), end[i]);
}

static void
test_connection_lists_a_name_but_never_the_framing(void **state)
{
    (void)state;
    T_TRUE(http_conn_lists(STR("close, X-Foo"), STR("x-foo")));
    T_TRUE(http_conn_lists(STR("x-FOO"), STR("X-Foo")));
    T_FALSE(http_conn_lists(STR("close, X-Foo"), STR("X-Fo")));
    T_FALSE(http_conn_lists(STR("close X-Foo"), STR("X-Foo")));
    T_FALSE(http_conn_lists(STR(""), STR("X-Foo")));
    T_FALSE(http_conn_lists(STR("Content-Length, Transfer-Encoding"), STR("content-length")));
    T_FALSE(http_conn_lists(STR("Content-Length, Transfer-Encoding"), STR("Transfer-Encoding")));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_content_length_is_one_decimal_number),
        TEST(test_second_or_list_content_length_is_refused),
        TEST(test_te_is_chunked_only_when_exactly_that),
        TEST(test_connection_tokens),
        TEST(test_keep_alive_timeout_and_max),
        TEST(test_expect),
        TEST(test_hop_by_hop_fields),
        TEST(test_connection_lists_a_name_but_never_the_framing),
    };
    return TEST_MAIN(tests);
}
