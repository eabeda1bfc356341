#include "t.h"

#include "http/http.h"

#define TRACE "4bf92f3577b34da6a3ce929d0e0e4736"
#define SPAN  "00f067aa0ba902b7"
#define GOOD  "00-" TRACE "-" SPAN "-01"

/* W3C Trace Context, level 1, section 3.2. */
static void
test_traceparent(void **state)
{
    (void)state;
    static const struct {
        const char *value;
        bool good;
    } cases[] = {
        {GOOD, true},
        {"00-" TRACE "-" SPAN "-00", true},
        {"cc-" TRACE "-" SPAN "-01", true}, /* a later version, */
        {"cc-" TRACE "-" SPAN "-01-what-the-future-holds", true},
        {"cc-" TRACE "-" SPAN "-01.more", false},
        {"", false},
        {"00", false},
        {GOOD "-", false},
        {GOOD "x", false},
        {"ff-" TRACE "-" SPAN "-01", false},
        {"0g-" TRACE "-" SPAN "-01", false},
        {"00-4BF92F3577B34DA6A3CE929D0E0E4736-" SPAN "-01", false},
        {"00-00000000000000000000000000000000-" SPAN "-01", false},
        {"00-" TRACE "-0000000000000000-01", false},
        {"00_" TRACE "-" SPAN "-01", false},
        {"00-" TRACE "_" SPAN "-01", false},
        {"00-" TRACE "-" SPAN "_01", false},
        {"00-" TRACE "-" SPAN "-0", false},
        {"00-" TRACE "-" SPAN "-0x", false},
        {"00-" TRACE "-00f067aa0ba902b\n-01", false},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct http_trace t = {STR("-"), STR("-")};
        if (http_traceparent(str_of(cases[i].value), &t) != cases[i].good)
            fail_msg("%s", cases[i].value);
        T_STR(t.trace_id, cases[i].good ? TRACE : "-");
        T_STR(t.span_id, cases[i].good ? SPAN : "-");
    }
}

static void
test_find(void **state)
{
    (void)state;
    static const struct {
        const char *head;
        bool found;
    } cases[] = {
        {"GET / HTTP/1.1\r\nHost: x\r\nTraceParent: \t" GOOD " \r\nA: b\r\n\r\n", true},
        {"GET / HTTP/1.1\r\ntraceparent:" GOOD "\r\n\r\n", true},
        {"GET / HTTP/1.1\r\ntraceparent:" GOOD, true},
        {"GET / HTTP/1.1\r\nX: traceparent:" GOOD "\r\n\r\n", false},
        {"traceparent:" GOOD "\r\n\r\n", false}, /* the request line is no field */
        {"GET / HTTP/1.1\r\nxtraceparent: " GOOD "\r\n\r\n", false},
        {"GET / HTTP/1.1\r\ntraceparent: junk\r\n\r\n", false},
        {"GET / HTTP/1.1\r\ntraceparent: " GOOD "\r\ntraceparent: " GOOD "\r\n\r\n", false},
        {"GET / HTTP/1.1\r\ntraceparent:\r\n\r\n", false},
        {"GET / HTTP/1.1\r\n\r\n", false},
        {"", false},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct http_trace t;
        if (http_trace_find(str_of(cases[i].head), &t) != cases[i].found)
            fail_msg("%s", cases[i].head);
        if (cases[i].found)
            T_STR(t.trace_id, TRACE);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {TEST(test_traceparent), TEST(test_find)};
    return TEST_MAIN(tests);
}
