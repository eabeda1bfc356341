#include "t.h"

#include "clickhouse/ch.h"

static struct http_req head;
static struct ch_request q;

/* Parses a whole head, given as its request line and any field lines. */
static const struct ch_request *
parse(const char *line, const char *fields)
{
    static char text[70000];
    enum err e = ERR_OK;
    int n = snprintf(text, sizeof(text), "%s HTTP/1.1\r\nHost: x\r\n%s\r\n", line, fields);
    T_TRUE(n > 0 && (size_t)n < sizeof(text));
    T_EQ(http_req_parse(&head, str_n(text, (size_t)n), &e), HTTP_OK);
    memset(&q, 0xee, sizeof(q)); /* every field must be set */
    ch_request_parse(&q, &head);
    return &q;
}

static const struct ch_request *
get(const char *target)
{
    static char line[66000];
    snprintf(line, sizeof(line), "GET %s", target);
    return parse(line, "");
}

static struct str
user_of(const char *target, const char *fields)
{
    char line[2000];
    snprintf(line, sizeof(line), "POST %s", target);
    const struct ch_request *r = parse(line, fields);
    return str_n(r->user, r->user_len);
}

static void
test_the_database_it_names(void **state)
{
    (void)state;
    static const struct {
        const char *line, *fields, *want;
    } cases[] = {
        {"GET /?query=x&database=a%20b", "", "a b"},
        {"GET /?d%61tabase=one&database=two", "", "one"},
        {"GET /?database=one", "X-ClickHouse-Database: two\r\n", "two"},
        {"GET /?database=one", "X-ClickHouse-Database:\r\n", "one"},
        {"GET /?query=x", "x-clickhouse-DATABASE: d\r\n", "d"},
        {"GET /?database=", "", ""},
        {"GET /?databases=x&data=y", "", ""},
        {"GET /ping", "", ""},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        const struct ch_request *r = parse(cases[i].line, cases[i].fields);
        T_STR(str_n(r->database, r->database_len), cases[i].want);
    }
    char line[CH_DB_MAX + 64] = "GET /?database=";
    size_t at = strlen(line);
    memset(line + at, 'x', CH_DB_MAX);
    T_EQ(parse(line, "")->database_len, CH_DB_MAX);
    line[at + CH_DB_MAX] = 'x'; /* no database has such a name, and a cut one would be another */
    T_EQ(parse(line, "")->database_len, 0);
}

static void
test_plain_query(void **state)
{
    (void)state;
    const struct ch_request *r = get("/?query=select%201");
    T_TRUE(r->is_query && r->url_query && r->readonly_method);
    T_FALSE(r->has_query_id || r->has_session || r->compressed || r->multipart);
    T_EQ(r->url_class, CH_READ);
    T_EQ(r->session_timeout_s, 60);
    T_EQ(r->session_id_len, 0);
    T_EQ(r->query_id_len, 0);
    T_STR(str_n(r->user, r->user_len), "default");
}

/* Facts of http.md section 3, "Paths". */
static void
test_what_runs_sql(void **state)
{
    (void)state;
    T_FALSE(get("/")->is_query);
    T_FALSE(get("/ping")->is_query);
    T_FALSE(get("/play")->is_query);
    T_FALSE(get("/query")->is_query);
    T_FALSE(parse("HEAD /", "")->is_query);
    T_TRUE(get("/?")->is_query);
    T_TRUE(get("/query?")->is_query);
    T_TRUE(get("?query=select+1")->is_query);
    T_TRUE(parse("POST /", "Content-Length: 8\r\n")->is_query);
    T_TRUE(parse("POST /query", "Content-Length: 8\r\n")->is_query);
    T_FALSE(parse("POST /foo", "Content-Length: 8\r\n")->is_query);
    T_FALSE(get("/foo?a=b")->is_query);
    T_FALSE(get("/foo?query=")->is_query);
    T_TRUE(get("/foo?query=select+1")->is_query); /* 18.16, or an http_handler */
    T_FALSE(parse("OPTIONS /?", "")->is_query);
    T_FALSE(parse("OPTIONS *", "")->is_query);
    T_TRUE(parse("OPTIONS /?query=select+1", "")->is_query); /* 18.16 runs it */
    T_TRUE(parse("PUT /?query=select+1", "Content-Length: 0\r\n")->is_query);
    T_FALSE(parse("POST /?query=1", "Content-Length: 0\r\n")->readonly_method);
    T_TRUE(parse("HEAD /?query=1", "")->readonly_method);
    T_FALSE(get("/#?query=select+1")->is_query); /* a fragment is not the server's */
}

/* http.md section 5: URL over everything, and password alone means default. */
static void
test_user_precedence(void **state)
{
    (void)state;
    const char *basic = "Authorization: Basic YWxpY2U6c2VjcmV0\r\n"; /* alice:secret */
    T_STR(user_of("/?user=bob", basic), "bob");
    T_STR(user_of("/?password=x", basic), "default");
    T_STR(user_of("/?user=", basic), "default");
    T_STR(user_of("/?user=bob&user=eve", ""), "bob");
    T_STR(user_of("/?us%65r=b%6Fb+x", ""), "bob x");
    T_STR(user_of("/?users=bob&use=bob", ""), "default");
    T_STR(user_of("/?%75ser_and_a_long_tail=bob&%75%73%65%72=eve", ""), "eve");
    T_STR(user_of("/", basic), "alice");
    T_STR(user_of("/", "X-ClickHouse-User: carol\r\nX-ClickHouse-Key: k\r\n"), "carol");
    T_STR(user_of("/?user=bob", "X-ClickHouse-User: carol\r\n"), "bob");
    T_STR(user_of("/", "X-ClickHouse-User: \r\n"), "default");
    T_STR(
        user_of("/", "Authorization: Basic YWxpY2U6c2VjcmV0\r\nAuthorization: Basic Ym9iOg==\r\n"),
        "alice");
}

/* The password is never in the struct, in the clear or in base64. */
static void
test_no_secret_is_kept(void **state)
{
    (void)state;
    (void)user_of("/?password=hunter2", "Authorization: Basic YWxpY2U6aHVudGVyMg==\r\n");
    T_TRUE(memmem(&q, sizeof(q), "hunter2", 7) == NULL);
    (void)user_of("/", "Authorization: Basic YWxpY2U6aHVudGVyMg==\r\n");
    T_TRUE(memmem(&q, sizeof(q), "hunter", 6) == NULL);
    T_TRUE(memmem(&q, sizeof(q), "aHVud", 5) == NULL);
    (void)user_of("/", "Authorization: Bearer hunter2hunter2\r\n");
    T_TRUE(memmem(&q, sizeof(q), "hunter", 6) == NULL);
    (void)user_of("/", "Authorization: hunter2hunter2\r\n");
    T_TRUE(memmem(&q, sizeof(q), "hunter", 6) == NULL);
}

static void
test_basic_forms(void **state)
{
    (void)state;
    T_STR(user_of("/", "Authorization: basic YTpi\r\n"), "a");    /* a:b */
    T_STR(user_of("/", "Authorization: Basic YWI6\r\n"), "ab");   /* ab: */
    T_STR(user_of("/", "Authorization: Basic   YWI6\r\n"), "ab"); /* spaces */
    T_STR(user_of("/", "Authorization: Basic YWJj\r\n"), "abc");  /* no colon */
    T_STR(user_of("/", "Authorization: Basic Og==\r\n"), "default");
    T_STR(user_of("/", "Authorization: Basic +/86\r\n"), "\xfb\xff");
    T_TRUE(str_starts_nocase(user_of("/", "Authorization: Basic\r\n"), STR("auth:")));
}

/* Other schemes: flows of two tokens differ, equal ones do not. */
static void
test_tokens_tell_flows_apart(void **state)
{
    (void)state;
    char first[CH_USER_MAX];
    struct str u = user_of("/", "Authorization: Bearer aaa\r\n");
    memcpy(first, u.p, u.len);
    T_TRUE(str_starts_nocase(u, STR("bearer:")));
    T_EQ(u.len, strlen("bearer:") + 8);
    T_TRUE(str_eq(user_of("/", "Authorization: BEARER aaa\r\n"), str_n(first, u.len)));
    T_FALSE(str_eq(user_of("/", "Authorization: Bearer aab\r\n"), str_n(first, u.len)));
    T_TRUE(str_starts_nocase(user_of("/", "Authorization: Basic !!!!\r\n"), STR("basic:")));
    T_TRUE(str_starts_nocase(
        user_of("/", "Authorization: aschemethatistoolongtobeone x\r\n"), STR("auth:")));
}

/* Two names longer than the array stay two. */
static void
test_long_names_keep_a_hash(void **state)
{
    (void)state;
    char target[1200], first[CH_ID_MAX];
    char tail = 'x';
    for (int round = 0; round < 2; round++, tail++) {
        snprintf(target, sizeof(target), "/?user=%0300d%c&session_id=%0400d%c&query_id=%0300d%c", 1,
            tail, 2, tail, 3, tail);
        const struct ch_request *r = get(target);
        T_EQ(r->user_len, CH_USER_MAX);
        T_EQ(r->session_id_len, CH_ID_MAX);
        T_EQ(r->query_id_len, CH_ID_MAX);
        T_EQ(r->session_id[CH_ID_MAX - 17], '#');
        if (round == 1)
            T_FALSE(memcmp(first, r->session_id, sizeof(first)) == 0);
        memcpy(first, r->session_id, sizeof(first));
    }
    snprintf(target, sizeof(target), "/?user=%0128d", 7); /* just fits */
    T_EQ(get(target)->user[CH_USER_MAX - 1], '7');
    static char basic[700];
    memset(basic, 'Y', sizeof(basic) - 1);
    snprintf(target, sizeof(target), "Authorization: Basic %.600s\r\n", basic);
    T_EQ(user_of("/", target).len, CH_USER_MAX);
    snprintf(target, sizeof(target), "X-ClickHouse-User: %.600s\r\n", basic);
    T_EQ(user_of("/", target).len, CH_USER_MAX);
    T_EQ(q.user[CH_USER_MAX - 17], '#');
}

static void
test_session_and_query_id(void **state)
{
    (void)state;
    const struct ch_request *r =
        get("/?session_id=s%201&session_timeout=7&query_id=a%2Db&query_id=c");
    T_TRUE(r->has_session && r->has_query_id);
    T_STR(str_n(r->session_id, r->session_id_len), "s 1");
    T_EQ(r->session_timeout_s, 7);
    T_STR(str_n(r->query_id, r->query_id_len), "a-b");
    T_EQ(get("/?session_id=s&session_timeout=3600")->session_timeout_s, 3600);
    T_EQ(get("/?session_id=s&session_timeout=3601")->session_timeout_s, 60); /* refused: code 374 */
    T_EQ(get("/?session_id=s&session_timeout=x")->session_timeout_s, 60);

    /* Empty: a session like others on 18.16, refused by 26.x. */
    T_TRUE(get("/?session_id=")->has_session);
    T_EQ(q.session_id_len, 0);
    T_TRUE(get("/?session_id")->has_session);

    r = parse("POST /?a=b", "X-ClickHouse-Query-Id: h\r\n");
    T_TRUE(r->has_query_id);
    T_STR(str_n(r->query_id, r->query_id_len), "h");
    r = parse("POST /?query_id=p", "X-ClickHouse-Query-Id: h\r\n");
    T_STR(str_n(r->query_id, r->query_id_len), "p");
    /* An empty parameter hides the header, and the server makes an id of its own: none to add. */
    r = parse("POST /?query_id=", "X-ClickHouse-Query-Id: h\r\n");
    T_TRUE(r->has_query_id);
    T_EQ(r->query_id_len, 0);
}

static void
test_bodies_that_cannot_be_read(void **state)
{
    (void)state;
    const char *post = "POST /?query=insert+into+t+format+TSV";
    T_FALSE(parse(post, "Content-Length: 1\r\n")->compressed);
    T_FALSE(parse(post, "Content-Encoding: Identity\r\nContent-Length: 1\r\n")->compressed);
    T_FALSE(parse(post, "Content-Encoding:\r\nContent-Length: 1\r\n")->compressed);
    T_TRUE(parse(post, "Content-Encoding: gzip\r\nContent-Length: 1\r\n")->compressed);
    T_TRUE(parse("POST /?decompress=1", "Content-Length: 1\r\n")->compressed);
    T_FALSE(parse("POST /?decompress=0", "Content-Length: 1\r\n")->compressed);
    T_TRUE(parse("POST /?decompress=false", "Content-Length: 1\r\n")->compressed); /* 18.16: on */
    T_TRUE(parse("POST /?decompress=0&decompress=1", "Content-Length: 1\r\n")->compressed);
    T_TRUE(parse("POST /?decompress=1&decompress=0", "Content-Length: 1\r\n")->compressed);
    T_FALSE(parse("POST /?d%65compress=%30", "Content-Length: 1\r\n")->compressed);
    T_TRUE(parse(post, "Content-Type: Multipart/form-data; boundary=x\r\nContent-Length: 1\r\n")
               ->multipart);
    T_FALSE(parse(post, "Content-Type: text/plain\r\nContent-Length: 1\r\n")->multipart);
}

static void
test_class_of_url_and_body(void **state)
{
    (void)state;
    T_EQ(get("/?query=insert+into+t+select+1")->url_class, CH_INSERT_SELECT);
    T_EQ(get("/?a=1&query=%77ith+1+as+a%0Aselect%20a")->url_class, CH_READ);
    T_EQ(get("/?database=x")->url_class, CH_UNKNOWN);

    const char *n = "Content-Length: 9\r\n";
    T_EQ(parse("POST /?query=select+1", n)->url_class, CH_READ);
    T_EQ(parse("POST /?query=with+1+as+a", n)->url_class, CH_UNKNOWN); /* the body goes on */
    T_EQ(ch_request_class(&q, &head, STR("select a"), true), CH_READ);
    T_EQ(ch_request_class(&q, &head, STR("insert into t values (1)"), true), CH_INSERT);
    T_EQ(ch_request_class(&q, &head, STR("select a"), false), CH_UNKNOWN);

    T_EQ(parse("POST /?query=insert+into+t+select", n)->url_class, CH_INSERT);
    T_EQ(ch_request_class(&q, &head, STR("1 from x"), true), CH_INSERT_SELECT);
    T_EQ(parse("POST /?query=sel", n)->url_class, CH_OTHER); /* a newline ends the word */
    T_EQ(ch_request_class(&q, &head, STR("ect 1"), true), CH_OTHER);
    T_EQ(parse("POST /?query=--+c", n)->url_class, CH_UNKNOWN);
    T_EQ(ch_request_class(&q, &head, STR("select 1"), true), CH_READ);

    (void)parse("POST /", n);
    T_EQ(ch_request_class(&q, &head, STR("select 1"), true), CH_READ);
    T_EQ(ch_request_class(&q, &head, STR("create t"), true), CH_OTHER);
    (void)parse("POST /", "Content-Encoding: gzip\r\nContent-Length: 9\r\n");
    T_EQ(ch_request_class(&q, &head, STR("select 1"), true), CH_UNKNOWN);
    (void)parse(
        "POST /?query=select+1", "Content-Type: multipart/form-data\r\nContent-Length: 9\r\n");
    T_EQ(ch_request_class(&q, &head, STR("--x"), true), CH_READ);
    /* A multipart query part is joined without a newline. */
    (void)parse("POST /?query=sel", "Content-Type: multipart/form-data\r\nContent-Length: 9\r\n");
    T_EQ(q.url_class, CH_UNKNOWN);
    T_EQ(ch_request_class(&q, &head, STR("--x"), true), CH_UNKNOWN);
}

/* Odd but legal parameter lists. */
static void
test_params(void **state)
{
    (void)state;
    struct str s = STR("&&a=1&b&=c&d==&e=&");
    const char *want[][2] = {{"a", "1"}, {"b", ""}, {"", "c"}, {"d", "="}, {"e", ""}};
    struct ch_param p;
    for (size_t i = 0; i < COUNT_OF(want); i++) {
        T_TRUE(ch_param_next(&s, &p));
        T_STR(p.name, want[i][0]);
        T_STR(p.value, want[i][1]);
    }
    T_FALSE(ch_param_next(&s, &p));
    T_TRUE(ch_target_query(STR("/a")).p == NULL);
    T_STR(ch_target_query(STR("/a?")), "");
    T_STR(ch_target_query(STR("/a?b?c#d")), "b?c");
    T_TRUE(ch_target_query(STR("/a#?b")).p == NULL);
}

static void
test_url_decode(void **state)
{
    (void)state;
    char out[8];
    T_EQ(ch_url_decode(STR("a%20b+%2B"), out, sizeof(out)), 5);
    T_TRUE(memcmp(out, "a b +", 5) == 0);
    T_EQ(ch_url_decode(STR("%zz%4"), out, sizeof(out)), 5);
    T_TRUE(memcmp(out, "%zz%4", 5) == 0);
    T_EQ(ch_url_decode(STR("0123456789"), out, sizeof(out)), 10);
    T_TRUE(memcmp(out, "01234567", 8) == 0);
    T_TRUE(ch_url_eq(STR("q%75ery"), "query"));
    T_FALSE(ch_url_eq(STR("quer"), "query"));
    T_FALSE(ch_url_eq(STR("query_"), "query"));
    T_FALSE(ch_url_eq(STR("q%00"), "q"));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_the_database_it_names),
        TEST(test_plain_query),
        TEST(test_what_runs_sql),
        TEST(test_user_precedence),
        TEST(test_no_secret_is_kept),
        TEST(test_basic_forms),
        TEST(test_tokens_tell_flows_apart),
        TEST(test_long_names_keep_a_hash),
        TEST(test_session_and_query_id),
        TEST(test_bodies_that_cannot_be_read),
        TEST(test_class_of_url_and_body),
        TEST(test_params),
        TEST(test_url_decode),
    };
    http_req_init(&head);
    int failed = TEST_MAIN(tests);
    http_req_fini(&head);
    return failed;
}
