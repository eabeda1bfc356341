/* text: what a terminal gets to see. */
#include <locale.h>

#include "ctl/text.h"
#include "t.h"

static void
check_clean(const char *from, size_t len, const char *to)
{
    struct buf b;
    buf_init(&b, 1 << 16);
    text_clean(&b, str_n(from, len));
    T_STR(str_n(b.p, b.len), to);
    buf_fini(&b);
}
#define CLEAN(from, to) check_clean(from, sizeof(from) - 1, to)

static void
test_nothing_a_terminal_obeys_is_left(void **state)
{
    (void)state;
    CLEAN("plain, \"quoted\" and Größe", "plain, \"quoted\" and Größe");
    CLEAN("\x1b[31mred\x1b]0;title\x07", "\\x1b[31mred\\x1b]0;title\\x07");
    CLEAN("a\r\nb\tc\0d\x7f", "a\\x0d\\x0ab\\x09c\\x00d\\x7f");
    CLEAN("\xc2\x9b"
          "31m",
        "\\u009b31m");                                     /* CSI as one character */
    CLEAN("\x9b\xff\xc3", "\\x9b\\xff\\xc3");              /* no UTF-8 */
    CLEAN("\xe2\x80\xaegpj.exe", "\\u202egpj.exe");        /* turns what follows around */
    CLEAN("a\xe2\x80\x8b\xef\xbb\xbf", "a\\u200b\\ufeff"); /* shows nothing */
    CLEAN("\xf3\xa0\x81\x81", "\\ue0041");                 /* nor does a tag */
}

/* The same for JSON stays the same JSON. */
static void
test_json_keeps_its_meaning(void **state)
{
    (void)state;
    struct buf b;
    struct str in = STR("{\"k\":\"\x7f\xc2\x9b\xe2\x80\xae \xc3\xa9\"}\n");
    buf_init(&b, 1 << 16);
    text_clean_json(&b, in);
    T_STR(str_n(b.p, b.len), "{\"k\":\"\\u007f\\u009b\\u202e \xc3\xa9\"}\n");
    buf_fini(&b);
}

static void
test_sizes_have_three_digits_and_a_unit(void **state)
{
    (void)state;
    static const struct {
        double bytes;
        const char *text;
    } cases[] = {{0, "0 B"}, {1, "1 B"}, {1023, "1023 B"}, {1024, "1.0 KiB"}, {1229, "1.2 KiB"},
        {1258291, "1.2 MiB"}, {102400, "100 KiB"}, {1048575, "1.0 MiB"}, {268435456, "256 MiB"},
        {1.5 * (1 << 30), "1.5 GiB"}, {9.3e18, "8.1 EiB"}, {-5, "-5 B"}};
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        char text[TEXT_FIGURE_MAX];
        text_size(cases[i].bytes, text);
        T_ZEQ(text, cases[i].text);
    }
}

static void
test_durations_choose_their_unit(void **state)
{
    (void)state;
    static const struct {
        double ms;
        const char *text;
    } cases[] = {{0, "0 us"}, {0.05, "50 us"}, {0.9996, "1.0 ms"}, {12.34, "12.3 ms"},
        {123.4, "123 ms"}, {999.4, "999 ms"}, {999.6, "1.0 s"}, {3400, "3.4 s"}, {59949, "59.9 s"},
        {59951, "1m 00s"}, {60000, "1m 00s"}, {125000, "2m 05s"}, {3600000, "1h 00m"},
        {11045000, "3h 04m"}, {86400000, "1d 00h"}, {1e9, "11d 13h"}};
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        char text[TEXT_FIGURE_MAX];
        text_duration(cases[i].ms, text);
        T_ZEQ(text, cases[i].text);
    }
}

static void
test_counts_and_times(void **state)
{
    (void)state;
    char text[TEXT_FIGURE_MAX];
    text_count(7, text);
    T_ZEQ(text, "7");
    text_count(0.25, text);
    T_ZEQ(text, "0.2");
    text_count(999.9, text);
    T_ZEQ(text, "1.0 k");
    text_count(1234567, text);
    T_ZEQ(text, "1.2 M");
    text_time(1795437296123.0, text);
    T_ZEQ(text, "2026-11-23 12:34:56Z");
    text_time(-1e300, text);
    T_ZEQ(text, "1970-01-01 00:00:00Z");
}

/* Whatever number an answer holds. */
static void
test_absurd_numbers_are_only_long(void **state)
{
    (void)state;
    static const double cases[] = {1e308, -1e308, 5e-324, 1e15, 9.99999e14, 1e18};
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        char text[TEXT_FIGURE_MAX];
        text_size(cases[i], text);
        T_TRUE(strlen(text) > 0 && strlen(text) < TEXT_FIGURE_MAX - 1);
        text_duration(cases[i], text);
        T_TRUE(strlen(text) > 0 && strlen(text) < TEXT_FIGURE_MAX - 1);
        text_count(cases[i], text);
        T_TRUE(strlen(text) > 0 && strlen(text) < TEXT_FIGURE_MAX - 1);
    }
}

/* Wide characters take two columns, combining ones none; a cut never splits one. */
static void
test_width_is_what_a_terminal_needs(void **state)
{
    (void)state;
    T_TRUE(setlocale(LC_CTYPE, "C.UTF-8") != NULL);
    T_EQ(text_width(STR("Gr\xc3\xb6\xc3\x9f"
                        "e")),
        5);
    T_EQ(text_width(STR("\xe8\xa1\xa8x")), 3);
    T_EQ(text_width(STR("e\xcc\x81")), 1);
    struct buf b;
    buf_init(&b, 100);
    text_clip(&b, STR("a\xe8\xa1\xa8z"), 2);
    T_STR(str_n(b.p, b.len), "a");
    b.len = 0;
    text_clip(&b, STR("a\xe8\xa1\xa8z"), 3);
    T_STR(str_n(b.p, b.len), "a\xe8\xa1\xa8");
    buf_fini(&b);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_nothing_a_terminal_obeys_is_left),
        TEST(test_json_keeps_its_meaning),
        TEST(test_sizes_have_three_digits_and_a_unit),
        TEST(test_durations_choose_their_unit),
        TEST(test_counts_and_times),
        TEST(test_absurd_numbers_are_only_long),
        TEST(test_width_is_what_a_terminal_needs),
    };
    return TEST_MAIN(tests);
}
