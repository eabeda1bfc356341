#include <stdio.h>

#include "base/jsonw.h"
#include "t.h"

static struct buf out;
static struct jsonw j;

static int
setup(void **state)
{
    (void)state;
    mem_init(1 << 20, 4096, 0);
    buf_init(&out, 65536);
    jsonw_init(&j, &out);
    return 0;
}

static int
teardown(void **state)
{
    (void)state;
    buf_fini(&out);
    mem_fini();
    return 0;
}

static void
test_values_nest_with_commas_between_them(void **state)
{
    (void)state;
    jsonw_object(&j, NULL);
    jsonw_int(&j, "a", INT64_MIN);
    jsonw_array(&j, "b");
    jsonw_uint(&j, NULL, UINT64_MAX);
    jsonw_object(&j, NULL);
    jsonw_end(&j);
    jsonw_array(&j, NULL);
    jsonw_end(&j);
    jsonw_bool(&j, NULL, true);
    jsonw_end(&j);
    jsonw_bool(&j, "c", false);
    jsonw_null(&j, "d");
    jsonw_text(&j, "e", NULL);
    T_FALSE(jsonw_whole(&j));
    jsonw_end(&j);
    T_TRUE(jsonw_whole(&j));
    T_STR(str_n(out.p, out.len),
        "{\"a\":-9223372036854775808,\"b\":[18446744073709551615,{},[],true],"
        "\"c\":false,\"d\":null,\"e\":null}");
}

static void
test_milliseconds_keep_their_sign_and_three_decimals(void **state)
{
    (void)state;
    jsonw_array(&j, NULL);
    jsonw_ms(&j, NULL, 0);
    jsonw_ms(&j, NULL, 1234567);
    jsonw_ms(&j, NULL, -1);
    jsonw_ms(&j, NULL, -2500);
    jsonw_ms(&j, NULL, INT64_MIN);
    jsonw_end(&j);
    T_STR(str_n(out.p, out.len), "[0.000,1234.567,-0.001,-2.500,-9223372036854775.808]");
}

static void
check_escape(struct str in, const char *want)
{
    out.len = 0;
    jsonw_init(&j, &out);
    jsonw_str(&j, NULL, in);
    T_TRUE(jsonw_whole(&j));
    T_STR(str_n(out.p, out.len), want);
}

/* Text: strings are always valid UTF-8 and hold nothing that a terminal obeys. */
static void
test_strings_are_escaped(void **state)
{
    (void)state;
    check_escape(STR(""), "\"\"");
    check_escape(STR("a \"quoted\" \\ b"), "\"a \\\"quoted\\\" \\\\ b\"");
    check_escape(STR("\0\n\t\r\x1b[31m\x7f"), "\"\\u0000\\u000a\\u0009\\u000d\\u001b[31m\\u007f\"");
    check_escape(STR("\xc2\x9b"), "\"\\u009b\""); /* CSI as one C1 character */
    check_escape(STR("gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x98\x80"),
        "\"gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x98\x80\"");
    check_escape(STR("\xff\xc0\xaf\xed\xa0\x80"
                     "a"),
        "\"\\ufffd\\ufffd\\ufffd\\ufffd\\ufffd\\ufffd"
        "a\"");
    check_escape(STR("cut \xe2\x82"), "\"cut \\ufffd\\ufffd\"");
}

/* Bound: a list is cut at a whole item, and what closes it still fits. */
static void
test_a_list_is_cut_where_the_room_ends(void **state)
{
    (void)state;
    for (size_t max = 40; max < 400; max++) {
        struct buf small;
        buf_init(&small, max);
        jsonw_init(&j, &small);
        jsonw_object(&j, NULL);
        jsonw_array(&j, "list");
        int n = 0;
        bool fits = true;
        T_TRUE(buf_reserve(&small, 20));
        while (fits && n < 1000) {
            struct jsonw_place mark = jsonw_mark(&j);
            jsonw_object(&j, NULL);
            jsonw_int(&j, "n", n);
            jsonw_end(&j);
            fits = jsonw_keep(&j, &mark, 20);
            n += fits;
        }
        jsonw_end(&j);
        jsonw_bool(&j, "cut", !fits);
        jsonw_end(&j);
        T_TRUE(jsonw_whole(&j));
        T_FALSE(fits);
        static const char tail[] = "],\"cut\":true}";
        size_t len = sizeof tail - 1;
        T_STR(str_n(small.p + small.len - len, len), tail);
        T_TRUE(small.p[small.len - len - 1] == '}' || n == 0);
        buf_fini(&small);
    }
}

static void
object_without_key(void)
{
    jsonw_object(&j, NULL);
    jsonw_int(&j, NULL, 1);
}

static void
array_with_key(void)
{
    jsonw_array(&j, NULL);
    jsonw_int(&j, "a", 1);
}

static void
two_values_at_the_top(void)
{
    jsonw_null(&j, NULL);
    jsonw_null(&j, NULL);
}

static void
test_misuse_aborts(void **state)
{
    (void)state;
    T_ABORTS(object_without_key());
    T_ABORTS(array_with_key());
    T_ABORTS(two_values_at_the_top());
    T_ABORTS(jsonw_end(&j));
}

#define CASE(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_values_nest_with_commas_between_them),
        CASE(test_milliseconds_keep_their_sign_and_three_decimals),
        CASE(test_strings_are_escaped),
        CASE(test_a_list_is_cut_where_the_room_ends),
        CASE(test_misuse_aborts),
    };
    return TEST_MAIN(tests);
}
