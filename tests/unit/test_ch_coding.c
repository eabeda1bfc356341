#include "t.h"

#include "clickhouse/ch_coding.h"

#define ALL_CODINGS (CODEC_BIT(CODEC_BLOCKS) - 1 - CODEC_BIT(CODEC_IDENTITY))
#define ZSTD        CODEC_BIT(CODEC_ZSTD)
#define LZ4         CODEC_BIT(CODEC_LZ4)
#define GZIP        CODEC_BIT(CODEC_GZIP)
#define BROTLI      CODEC_BIT(CODEC_BROTLI)
#define DEFLATE     CODEC_BIT(CODEC_DEFLATE)

static struct http_req head;
static struct ch_coding q;
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

/* Parses a whole head, given as its target and any field lines. */
static const struct ch_coding *
parse(const char *target, const char *fields)
{
    static char text[4000];
    enum err e = ERR_OK;
    int n = snprintf(text, sizeof(text), "POST %s HTTP/1.1\r\nHost: x\r\n%s\r\n", target, fields);
    T_TRUE(n > 0 && (size_t)n < sizeof(text));
    T_EQ(http_req_parse(&head, str_n(text, (size_t)n), &e), HTTP_OK);
    memset(&q, 0xee, sizeof(q)); /* every field must be set */
    ch_coding_parse(&q, &head);
    return &q;
}

static void
test_a_plain_request_says_nothing(void **state)
{
    (void)state;
    const struct ch_coding *c = parse("/?query=select+1", "Content-Length: 0\r\n");
    T_EQ(c->body, CODEC_IDENTITY);
    T_FALSE(c->body_blocks || c->answer_blocks || c->odd_blocks || c->names_setting);
    T_FALSE(c->has_accept || c->refuses_identity || c->has_override || c->bad_override);
    T_EQ(c->accepts, 0);
    T_EQ(c->override_request, -1);
    T_EQ(c->override_response, -1);
}

static void
test_coding_of_the_body(void **state)
{
    (void)state;
    static const struct {
        const char *fields;
        enum codec_id want;
    } cases[] = {
        {"", CODEC_IDENTITY},
        {"Content-Encoding:\r\n", CODEC_IDENTITY},
        {"Content-Encoding: \t\r\n", CODEC_IDENTITY},
        {"Content-Encoding: gzip\r\n", CODEC_GZIP},
        {"content-encoding:  GZip \r\n", CODEC_GZIP},
        {"Content-Encoding: deflate\r\n", CODEC_DEFLATE},
        {"Content-Encoding: zstd\r\n", CODEC_ZSTD},
        {"Content-Encoding: lz4\r\n", CODEC_LZ4},
        {"Content-Encoding: br\r\n", CODEC_BROTLI},
        {"Content-Encoding: identity\r\n", CODEC_COUNT},
        {"Content-Encoding: blocks\r\n", CODEC_COUNT},
        {"Content-Encoding: x-gzip\r\n", CODEC_COUNT},
        {"Content-Encoding: snappy\r\n", CODEC_COUNT},
        {"Content-Encoding: gzip, zstd\r\n", CODEC_COUNT},
        {"Content-Encoding: gzip,\r\n", CODEC_COUNT},
        {"Content-Encoding: gzip\r\nContent-Encoding: gzip\r\n", CODEC_COUNT},
        {"Content-Encoding:\r\nContent-Encoding: gzip\r\n", CODEC_COUNT},
        {"Content-Encoding: gzip\r\nContent-Encoding:\r\n", CODEC_COUNT},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++)
        T_EQ(parse("/", cases[i].fields)->body, cases[i].want);
}

/* Only where 18.16 and 26.x read the same is it one or the other. */
static void
test_block_parameters(void **state)
{
    (void)state;
    static const struct {
        const char *query;
        bool on, odd;
    } cases[] = {
        {"compress=1", true, false},
        {"compress=true", true, false},
        {"compress=True", true, false},
        {"compress=%31", true, false},
        {"c%6Fmpre%73s=t%72ue", true, false},
        {"a=b&compress=1&c=d", true, false},
        {"compress=1&compress=true", true, false},
        {"compress=0", false, false},
        {"compress=0&compress=0", false, false},
        {"compress=false", false, true}, /* on for 18.16 */
        {"compress=2", false, true},
        {"compress=01", false, true},
        {"compress=+1", false, true},
        {"compress=1+", false, true},
        {"compress=", false, true},
        {"compress", false, true},
        {"compress=trues", false, true},
        {"compress=0&compress=1", false, true}, /* the first for 18.16, the last for 26.x */
        {"compress=1&compress=0", false, true},
        {"compress=1&compress=0&compress=1", false, true},
        {"compress=x&compress=1", false, true},
        {"Compress=1", false, false},
        {"compresss=1", false, false},
        {"compres=1", false, false},
        {"query=compress=1", false, false},
        {"xcompress=1#compress=1", false, false},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        char target[100];
        snprintf(target, sizeof(target), "/?%s", cases[i].query);
        const struct ch_coding *c = parse(target, "");
        T_EQ(c->answer_blocks, cases[i].on);
        T_EQ(c->odd_blocks, cases[i].odd);
        T_FALSE(c->body_blocks);
    }
    T_TRUE(parse("/?decompress=1", "")->body_blocks);
    T_FALSE(q.answer_blocks || q.odd_blocks);
    T_TRUE(parse("/?compress=1&d%65compress=true", "")->body_blocks);
    T_TRUE(q.answer_blocks && !q.odd_blocks);
    T_TRUE(parse("/?compress=1&decompress=false", "")->odd_blocks);
    T_TRUE(q.answer_blocks && !q.body_blocks);
}

static void
test_setting_is_named_by_the_caller(void **state)
{
    (void)state;
    T_TRUE(parse("/?enable_http_compression=0", "")->names_setting);
    T_TRUE(parse("/?a=b&enable%5fhttp_compression", "")->names_setting);
    T_FALSE(parse("/?enable_http_compressio=1", "")->names_setting);
    T_FALSE(
        parse("/?http_zlib_compression_level=1&query=enable_http_compression", "")->names_setting);
}

/* What 26.7 chose for these was seen on the wire (docs/HTTP.md, Compression). */
static void
test_accept_is_read_as_by_the_server(void **state)
{
    (void)state;
    static const struct {
        const char *value;
        codec_set want;
    } cases[] = {
        {"", 0},
        {"gzip", GZIP},
        {"gzip, zstd", GZIP | ZSTD},
        {"br,deflate ,\tlz4", BROTLI | DEFLATE | LZ4},
        {"ZSTD", ZSTD},
        {",,gzip,", GZIP},
        {"*", ALL_CODINGS},
        {"zstd;q=0, *", ALL_CODINGS & ~ZSTD},
        {"*, zstd;q=0", ALL_CODINGS & ~ZSTD},
        {"*;q=0, gzip", GZIP},
        {"*, *;q=0", ALL_CODINGS},
        {"*;q=0, *", 0},
        {"gzip;q=0.1, zstd;q=0.001, lz4;q=1", GZIP | ZSTD | LZ4},
        {"zstd;q=0", 0},
        {"zstd; q=0", 0},
        {"zstd ;\tq=0", 0},
        {"zstd;Q=0", 0},
        {"zstd;q= 0", 0},
        {"zstd;q=0.0", 0},
        {"zstd;q=0.000", 0},
        {"zstd;q=0.", 0},
        {"zstd;q=.0", 0},
        {"zstd;q=00.00", 0},
        {"zstd;q=-0", 0},
        {"zstd;q=-1", 0},
        {"zstd;q=0abc", 0},
        {"zstd;q=0e5", 0},
        {"zstd;x=y;q=0", 0},
        {"zstd;;q=0", 0},
        {"zstd;q=0;q=1", 0},
        {"zstd;q=0;", 0},
        {"zstd;q=1;q=0", ZSTD},
        {"zstd; q = 0", ZSTD}, /* "q " is another name */
        {"zstd;q", ZSTD},
        {"zstd;q=", ZSTD},
        {"zstd;q=.", ZSTD},
        {"zstd;q=-", ZSTD},
        {"zstd;q=+0", ZSTD},
        {"zstd;q=abc", ZSTD},
        {"zstd;q=\"0\"", ZSTD},
        {"zstd;q=2", ZSTD},
        {"zstd;q=0.00000000000001", ZSTD},
        {"zstd;", ZSTD},
        {"zstd;level=3", ZSTD},
        {"zstd;q=0, zstd", 0}, /* the first counts */
        {"ZSTD;q=0, zstd", 0},
        {"zstd, zstd;q=0", ZSTD},
        {"zstd;foo=\"a,b\";q=0", ZSTD}, /* a comma is a comma */
        {"zstd;foo=\"a;q=0\"", 0},
        {"a=b;zstd", 0},
        {";q=0,gzip", GZIP},
        {"gzipfoo, xgzip, x-gzip", 0},
        {"zstd gzip", 0},
        {"snappy, xz, blocks", 0},
        {"identity, gzip", GZIP},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        char fields[100];
        snprintf(fields, sizeof(fields), "Accept-Encoding: %s\r\n", cases[i].value);
        const struct ch_coding *c = parse("/", fields);
        T_TRUE(c->has_accept);
        if (c->accepts != cases[i].want)
            print_error("Accept-Encoding: %s\n", cases[i].value);
        T_EQ(c->accepts, cases[i].want);
    }
    T_EQ(parse("/", "Accept-Encoding: gzip\r\nAccept-Encoding: zstd\r\n")->accepts, GZIP);
    T_EQ(parse("/", "Accept-Encoding:\r\nAccept-Encoding: zstd\r\n")->accepts, 0);
}

static void
test_identity_can_be_refused(void **state)
{
    (void)state;
    static const struct {
        const char *value;
        bool refused;
    } cases[] = {{"", false}, {"gzip", false}, {"*", false}, {"identity", false},
        {"identity;q=0", true}, {"gzip, Identity;q=0.0", true}, {"*;q=0", true},
        {"gzip, *;q=0", true}, {"*;q=0, identity", false}, {"identity;q=0.5, *;q=0", false},
        {"*, identity;q=0", true}, {"identity, identity;q=0", false}};
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        char fields[100];
        snprintf(fields, sizeof(fields), "Accept-Encoding: %s\r\n", cases[i].value);
        T_EQ(parse("/", fields)->refuses_identity, cases[i].refused);
        T_EQ(q.accepts & CODEC_BIT(CODEC_IDENTITY), 0);
    }
}

static void
test_override(void **state)
{
    (void)state;
    static const struct {
        const char *value;
        int request, response; /* -2: refused */
    } cases[] = {
        {"zstd", CODEC_ZSTD, CODEC_ZSTD},
        {"LZ4", CODEC_LZ4, CODEC_LZ4},
        {"gzip", CODEC_GZIP, CODEC_GZIP},
        {"off", CODEC_IDENTITY, CODEC_IDENTITY},
        {"request=zstd", CODEC_ZSTD, -1},
        {"response=off", -1, CODEC_IDENTITY},
        {"request=zstd, response=off", CODEC_ZSTD, CODEC_IDENTITY},
        {"Response=lz4,REQUEST=Off", CODEC_IDENTITY, CODEC_LZ4},
        {",request=gzip ,, ", CODEC_GZIP, -1},
        {"", -2, -2},
        {" , ", -2, -2},
        {"=", -2, -2},
        {"=zstd", -2, -2},
        {"br", -2, -2},
        {"deflate", -2, -2},
        {"identity", -2, -2},
        {"blocks", -2, -2},
        {"on", -2, -2},
        {"zstd, lz4", -2, -2},
        {"zstd, request=off", -2, -2},
        {"request=off, zstd", -2, -2},
        {"request", -2, -2},
        {"request=", -2, -2},
        {"request=br", -2, -2},
        {"request = zstd", -2, -2},
        {"requests=zstd", -2, -2},
        {"request=zstd, request=zstd", -2, -2},
        {"request=zstd, response=lz4, response=off", -2, -2},
        {"request=zstd;response=off", -2, -2},
        {"request==zstd", -2, -2},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        int request = 77, response = 77;
        bool ok = cases[i].request != -2;
        T_EQ(ch_override_parse(str_of(cases[i].value), &request, &response), ok);
        T_EQ(request, ok ? cases[i].request : -1);
        T_EQ(response, ok ? cases[i].response : -1);
    }
}

static void
test_override_field(void **state)
{
    (void)state;
    T_TRUE(parse("/", "X-Chmux-Compression: response=zstd\r\n")->has_override);
    T_FALSE(q.bad_override);
    T_EQ(q.override_request, -1);
    T_EQ(q.override_response, CODEC_ZSTD);
    T_TRUE(parse("/", "x-chmux-compression:\r\n")->bad_override);
    T_TRUE(q.has_override);
    /* Twice is one time too many, whatever the two say. */
    T_TRUE(parse("/", "X-Chmux-Compression: off\r\nX-Chmux-Compression: off\r\n")->bad_override);
    T_TRUE(parse("/", "X-Chmux-Compression: ?\r\nX-Chmux-Compression: off\r\n")->bad_override);
    T_TRUE(parse("/", "X-Chmux-Compression: off\r\nX-Chmux-Compression: ?\r\n")->bad_override);
}

static void
test_the_servers_preference(void **state)
{
    (void)state;
    static const enum codec_id order[] = {
        CODEC_ZSTD, CODEC_BROTLI, CODEC_LZ4, CODEC_GZIP, CODEC_DEFLATE, CODEC_IDENTITY};
    codec_set left = ALL_CODINGS;
    for (size_t i = 0; i < COUNT_OF(order); i++) {
        T_EQ(ch_preferred(left), order[i]);
        left &= ~CODEC_BIT(order[i]);
    }
    T_EQ(ch_preferred(GZIP | LZ4), CODEC_LZ4);
}

static struct str
edited(const char *target, struct ch_target_edit e)
{
    buf_consume(&out, out.len);
    T_TRUE(ch_target_edit(&out, str_of(target), &e));
    T_TRUE(buf_ok(&out));
    return str_n(out.p, out.len);
}

static void
test_edit_drops(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"/?compress=1", "/?"},
        {"?compress", "?"},
        {"/?compress=1&a=b", "/?a=b"},
        {"/?a=b&compress=1", "/?a=b"},
        {"/?a=b&compress=1&c=d", "/?a=b&c=d"},
        {"/?compress=1&a=b&c%6fmpres%73=%31&compress", "/?a=b"},
        {"/?compress=1&compress=1", "/?"},
        {"/?Compress=1&compresss=1&a=compress=1", "/?Compress=1&compresss=1&a=compress=1"},
        {"/?decompress=1&query=select+1", "/?decompress=1&query=select+1"},
        {"/?a=b&&compress=1&&c=d&", "/?a=b&&&c=d&"}, /* empty ones stay */
        {"/?&compress=1", "/?"},
        {"/?compress=1&", "/?"},
        {"/?compress=1#compress=1&a", "/?#compress=1&a"},
        {"/query?compress=1", "/query?"},
        {"/", "/"},
        {"/?", "/?"},
        {"", ""},
        {"/#compress=1", "/#compress=1"},
        {"/?a=%zz%4&=&==&b", "/?a=%zz%4&=&==&b"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++)
        T_STR(edited(cases[i][0], (struct ch_target_edit){.drop_compress = true}), cases[i][1]);
    struct ch_target_edit both = {.drop_compress = true, .drop_decompress = true};
    T_STR(edited("/?decompress=1&a=b&compress=1", both), "/?a=b");
    T_STR(edited("/?decompress=1&a=b&compress=1", (struct ch_target_edit){.drop_decompress = true}),
        "/?a=b&compress=1");
}

static void
test_edit_adds_in_front(void **state)
{
    (void)state;
    struct ch_target_edit add = {.add_compression = true};
    T_STR(edited("/", add), "/?enable_http_compression=1");
    T_STR(edited("", add), "?enable_http_compression=1");
    T_STR(edited("/?", add), "/?enable_http_compression=1");
    T_STR(edited("/query?a=b#c", add), "/query?enable_http_compression=1&a=b#c");
    add.query_id = STR("i");
    T_STR(edited("/?a=b&", add), "/?enable_http_compression=1&query_id=i&a=b&");
    add.drop_compress = true;
    T_STR(edited("/?compress=1", add), "/?enable_http_compression=1&query_id=i");
    T_STR(edited("/?compress=1&&a=b", add), "/?enable_http_compression=1&query_id=i&&a=b");
    T_STR(edited("/#f?compress=1", add), "/?enable_http_compression=1&query_id=i#f?compress=1");
}

static void
test_no_edit_changes_nothing(void **state)
{
    (void)state;
    static const char *const targets[] = {
        "/", "", "/?", "/?a=b", "/?&&a&=&", "/query?compress=1#x", "#", "?#?"};
    for (size_t i = 0; i < COUNT_OF(targets); i++)
        T_STR(edited(targets[i], (struct ch_target_edit){0}), targets[i]);
}

/* Paths with a meaning of their own keep their parameters. */
static void
test_edit_leaves_other_paths(void **state)
{
    (void)state;
    static const char *const cases[] = {"/foo?compress=1", "/query", "/query#?compress=1", "/ping",
        "/ping?compress=1", "//?compress=1", "http://h/?compress=1", "*"};
    struct ch_target_edit e = {
        .drop_compress = true, .add_compression = true, .query_id = STR("i")};
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        buf_consume(&out, out.len);
        T_FALSE(ch_target_edit(&out, str_of(cases[i]), &e));
        T_STR(str_n(out.p, out.len), cases[i]);
    }
}

/* A target that a server takes must not become one it refuses; one that shrinks is never refused.
 */
static void
test_edit_keeps_uri_limits(void **state)
{
    (void)state;
    static char target[HTTP_MAX_URI];
    const size_t more = strlen("enable_http_compression=1&"), less = strlen("compress=1&");
    static const struct {
        size_t limit, over;
    } cases[] = {{16384, 0}, {16384, 1}, {HTTP_MAX_URI, 0}, {HTTP_MAX_URI, 1}};
    memset(target, 'x', sizeof(target));
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct ch_target_edit e = {.add_compression = true};
        struct str t = str_n(target, cases[i].limit - more + cases[i].over);
        memcpy(target, "/?xxxxxxxxxxx", 13);
        buf_consume(&out, out.len);
        T_EQ(ch_target_edit(&out, t, &e), cases[i].over == 0);
        T_EQ(out.len, cases[i].over == 0 ? cases[i].limit : t.len);

        e.drop_compress = true; /* what is dropped makes room */
        memcpy(target, "/?compress=1&", 13);
        t.len += less;
        buf_consume(&out, out.len);
        T_EQ(ch_target_edit(&out, t, &e), cases[i].over == 0 || t.len > cases[i].limit);
    }
    struct ch_target_edit drop = {.drop_compress = true};
    buf_consume(&out, out.len);
    T_TRUE(ch_target_edit(&out, str_n(target, sizeof(target)), &drop));
    T_EQ(out.len, sizeof(target) - less);
}

static struct str
probe(struct ch_probe p)
{
    buf_consume(&out, out.len);
    ch_probe_request(&out, &head, STR("db:8123"), &p);
    T_TRUE(buf_ok(&out));
    return str_n(out.p, out.len);
}

static void
test_probe_asks_with_the_callers_credentials(void **state)
{
    (void)state;
    parse("/x?query=select+1&us%65r=al%26ice&password=p&role=r&compress=1&max_threads=1",
        "X-ClickHouse-Quota: q\r\nAccept-Encoding: br\r\nContent-Length: 3\r\n");
    T_STR(probe((struct ch_probe){.setting = true, .accept = STR("zstd, gzip")}),
        "POST /?enable_http_compression=1&us%65r=al%26ice&password=p&role=r HTTP/1.1\r\n"
        "Host: db:8123\r\n"
        "X-ClickHouse-Quota: q\r\n"
        "Accept-Encoding: zstd, gzip\r\n"
        "Content-Length: 8\r\n"
        "\r\n"
        "SELECT 1");
    T_STR(probe((struct ch_probe){.request = CODEC_ZSTD, .body = STR("coded")}),
        "POST /?us%65r=al%26ice&password=p&role=r HTTP/1.1\r\n"
        "Host: db:8123\r\n"
        "X-ClickHouse-Quota: q\r\n"
        "Content-Encoding: zstd\r\n"
        "Content-Length: 5\r\n"
        "\r\n"
        "coded");
    parse("/", "Authorization: Basic Yg==\r\nX-Chmux-Compression: off\r\n");
    T_STR(probe((struct ch_probe){.request = CODEC_LZ4, .body = STR("b"), .setting = true}),
        "POST /?enable_http_compression=1 HTTP/1.1\r\n"
        "Host: db:8123\r\n"
        "Authorization: Basic Yg==\r\n"
        "Content-Encoding: lz4\r\n"
        "Content-Length: 1\r\n"
        "\r\n"
        "b");
    T_STR(probe((struct ch_probe){.body = STR("not looked at")}), "POST / HTTP/1.1\r\n"
                                                                  "Host: db:8123\r\n"
                                                                  "Authorization: Basic Yg==\r\n"
                                                                  "Content-Length: 8\r\n"
                                                                  "\r\n"
                                                                  "SELECT 1");
}

/* The n-th allocation fails: the buffer says so, and nothing leaks. */
static void
test_no_memory(void **state)
{
    (void)state;
    parse("/?compress=1&password=x", "Authorization: Basic Yg==\r\n");
    for (int what = 0; what < 2; what++) {
        bool failed = true;
        for (uint64_t n = 1; failed; n++) {
            buf_fini(&out);
            mem_fail_at(n);
            if (what == 0)
                (void)ch_target_edit(
                    &out, head.target, &(struct ch_target_edit){.drop_compress = true});
            else
                ch_probe_request(&out, &head, STR("h"), &(struct ch_probe){.setting = true});
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
        CASE(test_a_plain_request_says_nothing),
        CASE(test_coding_of_the_body),
        CASE(test_block_parameters),
        CASE(test_setting_is_named_by_the_caller),
        CASE(test_accept_is_read_as_by_the_server),
        CASE(test_identity_can_be_refused),
        CASE(test_override),
        CASE(test_override_field),
        CASE(test_the_servers_preference),
        CASE(test_edit_drops),
        CASE(test_edit_adds_in_front),
        CASE(test_no_edit_changes_nothing),
        CASE(test_edit_leaves_other_paths),
        CASE(test_edit_keeps_uri_limits),
        CASE(test_probe_asks_with_the_callers_credentials),
        CASE(test_no_memory),
    };
    http_req_init(&head);
    int failed = TEST_MAIN(tests);
    http_req_fini(&head);
    return failed;
}
