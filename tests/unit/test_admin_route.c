/*
 * The permission table of the control API, row by row, and what else a request must be like.
 */
#include "admin/admin_route.h"
#include "base/mem.h"
#include "t.h"

static struct http_req req;
static struct admin_call call;
static struct admin_refusal no;

static const struct admin_caller root = {
    .is_unix = true, .uid = 0, .pid = 1, .access = ADMIN_ACCESS_CONTROL};
static const struct admin_caller reader = {
    .is_unix = true, .uid = 1000, .pid = 1, .access = ADMIN_ACCESS_READ};

static struct admin_caller
tcp(enum admin_access access)
{
    return (struct admin_caller){.uid = -1, .pid = -1, .access = access};
}

static bool
ask(const struct admin_caller *who, const char *method, const char *target, const char *fields)
{
    static char text[4096]; /* the request is made of spans of it */
    enum err e;
    int n = snprintf(text, sizeof text, "%s %s HTTP/1.1\r\n%s\r\n", method, target, fields);
    T_TRUE(n > 0 && (size_t)n < sizeof text);
    T_EQ(http_req_parse(&req, str_n(text, (size_t)n), &e), HTTP_OK);
    return admin_route(&req, who, &call, &no);
}

static const char *
method_of(const struct admin_command *c)
{
    return c->method == HTTP_M_GET ? "GET" : "POST";
}

/* The command's path with what it must have. */
static const char *
target_of(size_t i, char out[128])
{
    const char *args = i == ADMIN_KILL ? "?id=1" : i == ADMIN_LOG_LEVEL ? "?level=info" : "";
    snprintf(out, 128, "%s%s", admin_commands[i].path, args);
    return out;
}

#define SAFE "Host: 127.0.0.1:8124\r\nX-Chmux-Control: 1\r\n"

/* Who may: each command is open to whoever has its access, and to nobody below. */
static void
test_each_command_needs_its_access(void **state)
{
    (void)state;
    char target[128];
    for (size_t i = 0; i < ADMIN_COMMAND_COUNT; i++) {
        const struct admin_command *c = &admin_commands[i];
        for (unsigned a = ADMIN_ACCESS_HEALTH; a <= ADMIN_ACCESS_CONTROL; a++) {
            struct admin_caller who[] = {tcp((enum admin_access)a), root};
            who[1].access = (enum admin_access)a;
            for (size_t w = 0; w < COUNT_OF(who); w++) {
                bool may = ask(&who[w], method_of(c), target_of(i, target), SAFE);
                T_EQ(may, a >= c->access);
                if (may) {
                    T_EQ(call.id, i);
                    continue;
                }
                T_EQ(no.status, 403);
                T_ZEQ(no.error, "permission");
                T_TRUE(no.denied && no.message[0] != '\0' && no.allowed_by[0] != '\0');
            }
        }
    }
}

/* Everything that changes something is a POST for control; everything else only looks. */
static void
test_the_table_is_consistent(void **state)
{
    (void)state;
    for (size_t i = 0; i < ADMIN_COMMAND_COUNT; i++) {
        const struct admin_command *c = &admin_commands[i];
        T_EQ(c->method == HTTP_M_POST, c->access == ADMIN_ACCESS_CONTROL);
        bool api = strncmp(c->path, ADMIN_API, strlen(ADMIN_API)) == 0;
        T_EQ(api, c->access != ADMIN_ACCESS_HEALTH);
        for (size_t k = 0; k < i; k++)
            T_TRUE(strcmp(c->path, admin_commands[k].path) != 0);
    }
}

static void
test_access_by_uid(void **state)
{
    (void)state;
    T_EQ(admin_access_of(0, 1000), ADMIN_ACCESS_CONTROL);
    T_EQ(admin_access_of(1000, 1000), ADMIN_ACCESS_CONTROL);
    T_EQ(admin_access_of(1001, 1000), ADMIN_ACCESS_READ);
    T_EQ(admin_access_of(-1, -1), ADMIN_ACCESS_READ);
}

static void
test_methods(void **state)
{
    (void)state;
    T_TRUE(ask(&root, "HEAD", "/api/v1/status", ""));
    T_TRUE(ask(&root, "HEAD", "/live", ""));
    static const char *const wrong[][3] = {{"POST", "/api/v1/status", "GET, HEAD"},
        {"GET", "/api/v1/pause", "POST"}, {"HEAD", "/api/v1/kill?id=1", "POST"},
        {"PUT", "/api/v1/pause", "POST"}, {"OPTIONS", "/api/v1/pause", "POST"},
        {"DELETE", "/live", "GET, HEAD"}};
    for (size_t i = 0; i < COUNT_OF(wrong); i++) {
        T_FALSE(ask(&root, wrong[i][0], wrong[i][1], ""));
        T_EQ(no.status, 405);
        T_ZEQ(no.allow, wrong[i][2]);
    }
}

static void
test_unknown_paths_are_named(void **state)
{
    (void)state;
    static const char *const paths[] = {"/index.html", "//", "/api", "/api/v1", "/api/v1/stat",
        "/api/v1/status/", "/api/v2/status", "/LIVE", "/api/v1/%73tatus", "http://127.0.0.1/live"};
    for (size_t i = 0; i < COUNT_OF(paths); i++) {
        T_FALSE(ask(&root, "GET", paths[i], ""));
        T_EQ(no.status, 404);
        T_HAS(no.message, paths[i]);
        T_EQ(no.json, strncmp(paths[i], ADMIN_API, strlen(ADMIN_API)) == 0);
    }
}

static void
test_arguments(void **state)
{
    (void)state;
    T_TRUE(ask(&root, "GET", "/api/v1/clients", ""));
    T_EQ(call.limit, ADMIN_LIMIT);
    T_TRUE(ask(&root, "GET", "/api/v1/clients?limit=10000", ""));
    T_EQ(call.limit, 10000);
    T_TRUE(ask(&root, "GET", "/api/v1/clients?l%69mit=0", ""));
    T_EQ(call.limit, 0);
    T_TRUE(ask(&root, "POST", "/api/v1/kill?id=18446744073709551615", ""));
    T_TRUE(call.kill_id == UINT64_MAX);
    T_TRUE(ask(&root, "POST", "/api/v1/log-level?level=debug", ""));
    T_EQ(call.level, LOG_DEBUG);
    T_TRUE(ask(&root, "POST", "/api/v1/shutdown", "") && !call.now);
    T_TRUE(ask(&root, "POST", "/api/v1/shutdown?now=1", "") && call.now);
    T_TRUE(ask(&root, "POST", "/api/v1/shutdown?now=0", "") && !call.now);
    T_TRUE(ask(&root, "GET", "/ready?upstream", "") && call.upstream);
    T_ZEQ(call.upstream_name, "");
    T_TRUE(ask(&root, "GET", "/ready?upstream=0", "") && !call.upstream);
    T_TRUE(ask(&root, "GET", "/ready?upstream=dwh", "") && call.upstream);
    T_ZEQ(call.upstream_name, "dwh");
    T_TRUE(ask(&root, "POST", "/api/v1/pause?upstream=1", ""));
    T_ZEQ(call.upstream_name, "1");
    T_TRUE(ask(&root, "POST", "/api/v1/reconnect", ""));
    T_ZEQ(call.upstream_name, "");
    static const char *const bad[][3] = {{"GET", "/api/v1/clients?limit=10001", "limit"},
        {"GET", "/api/v1/clients?limit=-1", "limit"}, {"GET", "/api/v1/clients?limit=", "limit"},
        {"GET", "/api/v1/clients?lim=1", "lim"}, {"GET", "/api/v1/status?limit=1", "limit"},
        {"GET", "/api/v1/clients?limit=1&limit=1", "limit"}, {"POST", "/api/v1/kill", "id"},
        {"POST", "/api/v1/kill?id=1&id=2", "id"}, {"POST", "/api/v1/kill?id=x", "id"},
        {"POST", "/api/v1/kill?id=1&now=1", "now"}, {"POST", "/api/v1/log-level?level=", "level"},
        {"POST", "/api/v1/log-level?level=loud", "loud"},
        {"POST", "/api/v1/shutdown?now=yes", "now"}, {"POST", "/api/v1/pause?x", "x"}};
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        T_FALSE(ask(&root, bad[i][0], bad[i][1], ""));
        T_EQ(no.status, 400);
        T_ZEQ(no.error, "argument");
        T_HAS(no.message, bad[i][2]);
    }
    char longer[400] = "/api/v1/clients?";
    memset(longer + 16, 'a', 300);
    T_FALSE(ask(&root, "GET", longer, ""));
    T_EQ(no.status, 400);
}

static void
test_bodies_are_refused(void **state)
{
    (void)state;
    T_TRUE(ask(&root, "POST", "/api/v1/pause", "Content-Length: 0\r\n"));
    T_FALSE(ask(&root, "POST", "/api/v1/pause", "Content-Length: 1\r\n"));
    T_EQ(no.status, 400);
    T_FALSE(ask(&root, "POST", "/api/v1/pause", "Transfer-Encoding: chunked\r\n"));
    T_EQ(no.status, 400);
}

/* Browsers: a page from elsewhere reaches nothing above health over TCP. */
static void
test_names_of_others_are_refused_over_tcp(void **state)
{
    (void)state;
    struct admin_caller who = tcp(ADMIN_ACCESS_CONTROL);
    static const char *const own[] = {"127.0.0.1", "127.0.0.1:8124", "localhost", "LocalHost:8124",
        "[::1]", "[::1]:8124", "10.1.2.3:8124"};
    static const char *const foreign[] = {"", "evil.example", "evil.example:8124",
        "127.0.0.1.evil.example", "localhost.evil.example:8124", "unix:/x", "*:8124", "[::1", "::1",
        "127.0.0.1:8124:1", "2130706433"};
    char fields[256];
    for (size_t i = 0; i < COUNT_OF(own); i++) {
        snprintf(fields, sizeof fields, "Host: %s\r\n", own[i]);
        T_TRUE(ask(&who, "GET", "/api/v1/status", fields));
    }
    for (size_t i = 0; i < COUNT_OF(foreign); i++) {
        snprintf(fields, sizeof fields, "Host: %s\r\nX-Chmux-Control: 1\r\n", foreign[i]);
        T_FALSE(ask(&who, "GET", "/api/v1/status", fields));
        T_TRUE(no.status == 403 && no.denied);
        T_ZEQ(no.error, "host");
        T_FALSE(ask(&who, "POST", "/api/v1/pause", fields));
        T_TRUE(ask(&who, "GET", "/metrics", fields)); /* Prometheus asks by name */
    }
    T_FALSE(ask(&who, "GET", "/api/v1/status", ""));
}

/* A browser comes to a unix socket too, through a port that ssh forwards. */
static void
test_browsers_on_a_unix_socket(void **state)
{
    (void)state;
    static const char *const fine[] = {
        "", "chmux", "localhost:8124", "127.0.0.1:8124", "[::1]:8124", "unix:/x"};
    static const char *const foreign[] = {"evil.example", "evil.example:8124", "127.0.0.1.evil"};
    char fields[256];
    for (size_t i = 0; i < COUNT_OF(fine); i++) {
        snprintf(fields, sizeof fields, "Host: %s\r\n", fine[i]);
        T_TRUE(ask(&reader, "GET", "/api/v1/status", fields));
        T_TRUE(ask(&root, "POST", "/api/v1/pause", fields));
    }
    for (size_t i = 0; i < COUNT_OF(foreign); i++) {
        snprintf(fields, sizeof fields, "Host: %s\r\n", foreign[i]);
        T_FALSE(ask(&reader, "GET", "/api/v1/status", fields));
        T_ZEQ(no.error, "host");
    }
    T_TRUE(ask(&root, "POST", "/api/v1/pause",
        "Host: localhost:8124\r\nOrigin: http://localhost:8124\r\n"));
    T_FALSE(ask(
        &root, "POST", "/api/v1/pause", "Host: localhost:8124\r\nOrigin: http://evil.example\r\n"));
    T_ZEQ(no.error, "origin");
}

static void
test_other_origins_are_refused_over_tcp(void **state)
{
    (void)state;
    struct admin_caller who = tcp(ADMIN_ACCESS_CONTROL);
    T_TRUE(
        ask(&who, "GET", "/api/v1/status", "Host: localhost:1\r\nOrigin: http://localhost:1\r\n"));
    static const char *const others[] = {"http://localhost:2", "https://localhost:1", "null", "",
        "http://evil.example", "http://localhost:1.evil.example"};
    for (size_t i = 0; i < COUNT_OF(others); i++) {
        char fields[256];
        snprintf(fields, sizeof fields, "Host: localhost:1\r\nOrigin: %s\r\n", others[i]);
        T_FALSE(ask(&who, "GET", "/api/v1/status", fields));
        T_ZEQ(no.error, "origin");
    }
}

static void
test_commands_over_tcp_need_the_field(void **state)
{
    (void)state;
    struct admin_caller who = tcp(ADMIN_ACCESS_CONTROL);
    T_FALSE(ask(&who, "POST", "/api/v1/pause", "Host: localhost\r\n"));
    T_ZEQ(no.error, "control_field");
    T_FALSE(ask(&who, "POST", "/api/v1/pause", "Host: localhost\r\nX-Chmux-Control: yes\r\n"));
    T_TRUE(ask(&who, "POST", "/api/v1/pause", "Host: localhost\r\nx-chmux-control: 1\r\n"));
    T_TRUE(ask(&root, "POST", "/api/v1/pause", ""));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_each_command_needs_its_access),
        TEST(test_the_table_is_consistent),
        TEST(test_access_by_uid),
        TEST(test_methods),
        TEST(test_unknown_paths_are_named),
        TEST(test_arguments),
        TEST(test_bodies_are_refused),
        TEST(test_names_of_others_are_refused_over_tcp),
        TEST(test_browsers_on_a_unix_socket),
        TEST(test_other_origins_are_refused_over_tcp),
        TEST(test_commands_over_tcp_need_the_field),
    };
    mem_init(16 << 20, 65536, 0);
    http_req_init(&req);
    int failed = TEST_MAIN(tests);
    http_req_fini(&req);
    mem_fini();
    return failed;
}
