#include "t.h"

#include "clickhouse/ch_access.h"

static struct http_req head;
static struct buf out;

static int
setup(void **state)
{
    (void)state;
    buf_init(&out, 2 * HTTP_MAX_URI);
    return 0;
}

static int
teardown(void **state)
{
    (void)state;
    buf_fini(&out);
    return mem_used() == 0 ? 0 : -1;
}

static enum ch_claim
claim(const char *target, const char *fields)
{
    static char text[4000];
    enum err e = ERR_OK;
    int n = snprintf(text, sizeof(text), "GET %s HTTP/1.1\r\nHost: x\r\n%s\r\n", target, fields);
    T_TRUE(n > 0 && (size_t)n < sizeof(text));
    T_EQ(http_req_parse(&head, str_n(text, (size_t)n), &e), HTTP_OK);
    return ch_claim_of(&head);
}

/* ---- claims ---- */

static void
test_ways_to_say_nothing(void **state)
{
    (void)state;
    T_EQ(claim("/?query=select+1", ""), CH_CLAIM_NONE);
    T_EQ(claim("/?query=user=a&password_x=1&xuser=2&param_user=x", ""), CH_CLAIM_NONE);
    T_EQ(claim("/", "Authorization: never\r\n"), CH_CLAIM_NONE);
    T_EQ(claim("/", "X-ClickHouse-User:\r\nX-ClickHouse-Key:\r\n"), CH_CLAIM_NONE);
    T_EQ(claim("/?quota_key=q", "X-ClickHouse-Quota: q\r\n"), CH_CLAIM_NONE);
    T_EQ(claim("/?query=1#user=a&password=b", ""), CH_CLAIM_NONE);
}

static void
test_names_without_a_password(void **state)
{
    (void)state;
    T_EQ(claim("/?user=app", ""), CH_CLAIM_NAME);
    T_EQ(claim("/?user=app&password=", ""), CH_CLAIM_NAME);
    T_EQ(claim("/?password=", ""), CH_CLAIM_NAME);
    T_EQ(claim("/?us%65r=app&PASSWORD", ""), CH_CLAIM_NAME);
    T_EQ(claim("/", "X-ClickHouse-User: app\r\n"), CH_CLAIM_NAME);
    T_EQ(claim("/", "X-ClickHouse-User: app\r\nX-ClickHouse-Key:\r\n"), CH_CLAIM_NAME);
    T_EQ(claim("/", "Authorization: Basic YXBw\r\n"), CH_CLAIM_NAME);      /* app */
    T_EQ(claim("/", "Authorization: basic  YXBwOg==\r\n"), CH_CLAIM_NAME); /* app: */
    T_EQ(claim("/", "Authorization: Basic YWI6\r\n"), CH_CLAIM_NAME);      /* ab: */
    T_EQ(claim("/", "Authorization: Basic YWJjOg\r\n"), CH_CLAIM_NAME);    /* abc:, no padding */
}

static void
test_secrets_are_the_clients_own(void **state)
{
    (void)state;
    T_EQ(claim("/?user=app&password=x", ""), CH_CLAIM_OWN);
    T_EQ(claim("/?password=x", ""), CH_CLAIM_OWN);
    T_EQ(claim("/?password=&password=x", ""), CH_CLAIM_OWN);
    T_EQ(claim("/?p%61ssword=%20", ""), CH_CLAIM_OWN);
    T_EQ(claim("/?PassWord=x", ""), CH_CLAIM_OWN);
    T_EQ(claim("/?user=app", "X-ClickHouse-Key: x\r\n"), CH_CLAIM_OWN);
    T_EQ(claim("/", "X-ClickHouse-User: app\r\nX-ClickHouse-Key: x\r\n"), CH_CLAIM_OWN);
    T_EQ(claim("/", "Authorization: Basic YXBwOnB3\r\n"), CH_CLAIM_OWN); /* app:pw */
    T_EQ(claim("/", "Authorization: Basic YXA6cA==\r\n"), CH_CLAIM_OWN); /* ap:p */
    T_EQ(claim("/", "Authorization: Basic YXBwOjo=\r\n"), CH_CLAIM_OWN); /* app:: */
    T_EQ(claim("/", "Authorization: Bearer token\r\n"), CH_CLAIM_OWN);
    T_EQ(claim("/", "Authorization: Negotiate abc\r\n"), CH_CLAIM_OWN);
    T_EQ(claim("/?user=app", "Authorization: Basic YXBwOnB3\r\n"), CH_CLAIM_OWN);
    T_EQ(claim("/", "X-ClickHouse-User: app\r\nX-ClickHouse-SSL-Certificate-Auth: on\r\n"),
        CH_CLAIM_OWN);
}

/* What the server refuses is left for it to refuse. */
static void
test_odd_ones_are_the_servers_to_judge(void **state)
{
    (void)state;
    T_EQ(claim("/?user=", ""), CH_CLAIM_OWN);
    T_EQ(claim("/?user", ""), CH_CLAIM_OWN);
    T_EQ(claim("/", "Authorization:\r\n"), CH_CLAIM_OWN);
    T_EQ(claim("/", "Authorization: Basic\r\n"), CH_CLAIM_OWN);
    T_EQ(claim("/", "Authorization: Basic !\r\n"), CH_CLAIM_OWN);
    T_EQ(claim("/", "Authorization: Basic Og==\r\n"), CH_CLAIM_OWN); /* : */
    T_EQ(claim("/", "Authorization: Basic YXBw!g==\r\n"), CH_CLAIM_OWN);
    T_EQ(claim("/", "Authorization: app\r\n"), CH_CLAIM_OWN);
}

/* ---- the target ---- */

static const char *
edited(const char *target, const struct ch_access_edit *e)
{
    out.len = 0;
    T_TRUE(ch_access_target(&out, str_of(target), e));
    buf_add(&out, "", 1);
    T_TRUE(buf_ok(&out));
    return out.p;
}

static void
test_credentials_go_however_they_are_written(void **state)
{
    (void)state;
    static const struct {
        const char *from, *to;
    } cases[] = {
        {"/", "/"},
        {"/ping", "/ping"},
        {"", ""},
        {"/?", "/?"},
        {"/?user=a", "/?"},
        {"/?user=a&password=b", "/?"},
        {"/?user=a&query=select+1&password=b", "/?query=select+1"},
        {"/?query=select%201&user=a&user=b&password", "/?query=select%201"},
        {"/?query=1&u%73er=a&%70assword=b&quota%5fkey=c", "/?query=1"},
        {"/?USER=a&Password=b&Quota_Key=q&query=1", "/?query=1"},
        {"/?users=a&password2=b&xuser=c", "/?users=a&password2=b&xuser=c"},
        {"/?param_user=a&query=user%3Da", "/?param_user=a&query=user%3Da"},
        {"/?&&user=a&&query=1&", "/?&&&query=1&"},
        {"/query?user=a&x=%zz#user=b", "/query?x=%zz#user=b"},
        {"/#?user=a", "/#?user=a"},
        {"http://h/?user=a&b", "http://h/?b"},
        {"/?a?user=b&user=c", "/?a?user=b"},
    };
    const struct ch_access_edit e = {.drop_credentials = true};
    for (size_t i = 0; i < COUNT_OF(cases); i++)
        T_ZEQ(edited(cases[i].from, &e), cases[i].to);
}

static void
test_without_replacement_credentials_stay(void **state)
{
    (void)state;
    const struct ch_access_edit e = {0};
    T_ZEQ(edited("/?user=a&password=b&x", &e), "/?user=a&password=b&x");
}

static void
test_fields_of_credentials(void **state)
{
    (void)state;
    size_t count = 0;
    for (enum http_field_id id = HTTP_F_OTHER; id < HTTP_F_COUNT; id++)
        count += ch_is_credential_field(id);
    T_EQ(count, 5);
    T_TRUE(ch_is_credential_field(http_field_lookup(STR("authorization"))));
    T_TRUE(ch_is_credential_field(http_field_lookup(STR("X-CLICKHOUSE-USER"))));
    T_TRUE(ch_is_credential_field(http_field_lookup(STR("X-ClickHouse-Key"))));
    T_TRUE(ch_is_credential_field(http_field_lookup(STR("X-ClickHouse-Quota"))));
    T_TRUE(ch_is_credential_field(http_field_lookup(STR("X-ClickHouse-SSL-Certificate-Auth"))));
}

#define FORCED(n, v)                                                                               \
    {                                                                                              \
        .name = {n, sizeof(n) - 1}, .pair = {n "=" v, sizeof(n "=" v) - 1}, .forced = true         \
    }
#define DEFAULT(n, v)                                                                              \
    {                                                                                              \
        .name = {n, sizeof(n) - 1}, .pair = { n "=" v, sizeof(n "=" v) - 1 }                       \
    }

static void
test_forced_beats_client_beats_default(void **state)
{
    (void)state;
    static const struct ch_setting settings[] = {FORCED("readonly", "2"), DEFAULT("limit", "5")};
    static const struct {
        const char *from, *to;
    } cases[] = {
        {"/", "/?readonly=2&limit=5"},
        {"/?", "/?readonly=2&limit=5"},
        {"/?query=1", "/?readonly=2&limit=5&query=1"},
        {"/?query=1&readonly=0", "/?readonly=2&limit=5&query=1"},
        {"/?readonly=0&query=1&readonly=1&readonly", "/?readonly=2&limit=5&query=1"},
        {"/?read%6fnly=0&%72%65adonly=1", "/?readonly=2&limit=5"},
        {"/?READONLY=0", "/?readonly=2&limit=5&READONLY=0"}, /* another name to ClickHouse */
        {"/?readonly+=0", "/?readonly=2&limit=5&readonly+=0"},
        {"/?limit=9", "/?readonly=2&limit=9"},
        {"/?l%69mit=9&x", "/?readonly=2&l%69mit=9&x"},
        {"/?limit=", "/?readonly=2&limit="},
        {"/?limit", "/?readonly=2&limit"},
        {"/?limits=9&param_limit=8", "/?readonly=2&limit=5&limits=9&param_limit=8"},
        {"/?query=readonly=0%26readonly=0#readonly=0",
            "/?readonly=2&limit=5&query=readonly=0%26readonly=0#readonly=0"},
        {"/x#f", "/x?readonly=2&limit=5#f"},
    };
    const struct ch_access_edit e = {.settings = settings, .setting_count = COUNT_OF(settings)};
    for (size_t i = 0; i < COUNT_OF(cases); i++)
        T_ZEQ(edited(cases[i].from, &e), cases[i].to);
}

static void
test_both_at_once(void **state)
{
    (void)state;
    static const struct ch_setting settings[] = {FORCED("a.b", "x%26y")};
    const struct ch_access_edit e = {
        .drop_credentials = true, .settings = settings, .setting_count = 1};
    T_ZEQ(edited("/?user=u&a.b=1&query=q&password=p", &e), "/?a.b=x%26y&query=q");
}

static void
test_values_are_encoded(void **state)
{
    (void)state;
    static const struct {
        struct str value;
        const char *pair;
    } cases[] = {
        {STR("1"), "n=1"},
        {STR(""), "n="},
        {STR("a b+c&d=e#f%g"), "n=a%20b%2Bc%26d%3De%23f%25g"},
        {STR("{'X':'v'}"), "n=%7B%27X%27:%27v%27%7D"},
        {STR("\xc3\xa9\x01\0\x7f"), "n=%C3%A9%01%00%7F"},
        {STR("Europe/Berlin,UTC"), "n=Europe/Berlin,UTC"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        char back[64];
        out.len = 0;
        ch_setting_pair(&out, STR("n"), cases[i].value);
        T_STR(str_n(out.p, out.len), cases[i].pair);
        size_t len = ch_url_decode(str_n(out.p + 2, out.len - 2), back, sizeof(back));
        T_TRUE(str_eq(str_n(back, len), cases[i].value));
    }
}

static void
test_the_limit_of_the_uri(void **state)
{
    (void)state;
    static const struct ch_setting settings[] = {FORCED("n", "1234567")};
    const struct ch_access_edit e = {.settings = settings, .setting_count = 1};
    char *target = malloc(HTTP_MAX_URI);
    T_TRUE(target != NULL);
    memset(target, 'a', HTTP_MAX_URI);
    memcpy(target, "/?", 2);
    out.len = 0;
    T_TRUE(ch_access_target(&out, str_n(target, HTTP_MAX_URI - 10), &e));
    T_EQ(out.len, HTTP_MAX_URI);
    out.len = 0;
    T_FALSE(ch_access_target(&out, str_n(target, HTTP_MAX_URI - 9), &e));
    free(target);
}

/* RFC 4648 section 10. */
static void
test_base64(void **state)
{
    (void)state;
    static const struct {
        struct str from;
        const char *to;
    } cases[] = {
        {STR(""), ""},
        {STR("f"), "Zg=="},
        {STR("fo"), "Zm8="},
        {STR("foo"), "Zm9v"},
        {STR("foobar"), "Zm9vYmFy"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        out.len = 0;
        ch_base64(&out, cases[i].from);
        T_STR(str_n(out.p, out.len), cases[i].to);
    }
    out.len = 0;
    ch_base64(&out, STR("\xff\xff\xff\xfb\xef\xbe"));
    T_STR(str_n(out.p, out.len), "////++++");
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_ways_to_say_nothing),
        TEST(test_names_without_a_password),
        TEST(test_secrets_are_the_clients_own),
        TEST(test_odd_ones_are_the_servers_to_judge),
        TEST(test_credentials_go_however_they_are_written),
        TEST(test_without_replacement_credentials_stay),
        TEST(test_fields_of_credentials),
        TEST(test_forced_beats_client_beats_default),
        TEST(test_both_at_once),
        TEST(test_values_are_encoded),
        TEST(test_the_limit_of_the_uri),
        TEST(test_base64),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
