/* foreign_why(): the rule of foreign.h. */
#include "proxy/foreign.h"

#include "base/mem.h"
#include "t.h"

static char *names[] = {(char[]){"chmux"}, (char[]){"ch.example.net"}}, *any[] = {(char[]){"*"}};
static const struct config_list known = {names, 2}, all = {any, 1};

/* What foreign_why() says of a request with these fields, "" for nothing. */
static const char *
why(const char *fields, bool tls, const struct config_list *list)
{
    static struct http_req r;
    char head[512];
    enum err e = ERR_OK;
    int n = snprintf(head, sizeof head, "POST / HTTP/1.0\r\n%s\r\n", fields);
    http_req_init(&r);
    T_EQ(http_req_parse(&r, str_n(head, (size_t)n), &e), HTTP_OK);
    struct foreign_facts f = {tls, list};
    const char *said = foreign_why(&r, &f);
    http_req_fini(&r);
    return said == NULL ? "" : said;
}

static void
test_hosts(void **state)
{
    (void)state;
    T_ZEQ(why("", false, NULL), "");
    T_ZEQ(why("Host:\r\n", false, NULL), "");
    T_ZEQ(why("Host: 127.0.0.1:8123\r\n", false, NULL), "");
    T_ZEQ(why("Host: [::1]:8123\r\n", false, NULL), "");
    T_ZEQ(why("Host: LocalHost\r\n", false, NULL), "");
    T_ZEQ(why("Host: 10.1.2.3\r\n", false, &known), "");
    T_ZEQ(why("Host: 127.0.0.1.evil.example\r\n", false, NULL), "host");
    T_ZEQ(why("Host: localhost.evil.example:8123\r\n", false, &known), "host");
    T_ZEQ(why("Host: chmux:8123\r\n", false, NULL), "host");
    T_ZEQ(why("Host: CHMUX:8123\r\n", false, &known), "");
    T_ZEQ(why("Host: ch.example.net\r\n", false, &known), "");
    T_ZEQ(why("Host: x.ch.example.net\r\n", false, &known), "host");
    T_ZEQ(why("Host: evil.example\r\n", false, &all), "");
    T_ZEQ(why("Host: evil.example\r\n", true, NULL), ""); /* no certificate of ours fits it */
}

#define HERE "Host: 127.0.0.1:8123\r\n"
static void
test_pages(void **state)
{
    (void)state;
    T_ZEQ(why(HERE "Origin: http://127.0.0.1:8123\r\nSec-Fetch-Site: same-origin\r\n", false, NULL),
        "");
    T_ZEQ(why(HERE "Origin: https://127.0.0.1:8123\r\n", true, NULL), "");
    T_ZEQ(why(HERE "Sec-Fetch-Site: none\r\n", false, NULL), "");
    T_ZEQ(why("Host: chmux\r\nOrigin: http://chmux\r\n", false, &known), "");
    static const char *const origins[] = {"http://evil.example", "null", "", "http://127.0.0.1",
        "http://127.0.0.1:81", "http://127.0.0.1:8123.evil.example", "file://127.0.0.1:8123"};
    for (size_t i = 0; i < COUNT_OF(origins); i++) {
        char fields[128];
        snprintf(fields, sizeof fields, HERE "oRIGIN: %s\r\n", origins[i]);
        T_ZEQ(why(fields, false, &all), "origin");
        T_ZEQ(why(fields, true, NULL), "origin");
    }
    T_ZEQ(why("Origin: http://\r\n", false, NULL), "origin");
    T_ZEQ(why(HERE "Origin: http://127.0.0.1:8123\r\nOrigin: http://evil.example\r\n", false, NULL),
        "origin");
    T_ZEQ(why(HERE "Sec-Fetch-Site: cross-site\r\n", false, NULL), "sec-fetch-site");
    T_ZEQ(why(HERE "Sec-Fetch-Site: Same-Site\r\n", true, &all), "sec-fetch-site");
}

int
main(void)
{
    const struct CMUnitTest tests[] = {TEST(test_hosts), TEST(test_pages)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
