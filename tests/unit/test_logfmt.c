#include "base/logfmt.h"

#include "t.h"

#define CAP LOGFMT_BODY_MAX

static const char *
message(enum log_format format, struct str s, size_t cap)
{
    static char out[CAP + 1];
    size_t n = logfmt_message(out, cap, format, s);
    T_TRUE(n <= cap);
    out[n] = '\0';
    return out;
}

static const char *
fields(enum log_format format, const struct log_field *f, size_t count, size_t cap)
{
    static char out[CAP + 1];
    size_t n = logfmt_fields(out, cap, format, "access", f, count);
    T_TRUE(n <= cap);
    out[n] = '\0';
    return out;
}

static void
test_text_escapes_control_characters_only(void **state)
{
    (void)state;
    T_ZEQ(
        message(LOG_TEXT, STR("listen address=\"a b\" n=1"), CAP), "listen address=\"a b\" n=1\n");
    T_ZEQ(message(LOG_TEXT, STR("a\nb\x1b[31m\x7f\0c"), CAP), "a\\x0ab\\x1b[31m\\x7f\\x00c\n");
    T_ZEQ(message(LOG_TEXT, STR("gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x98\x80"), CAP),
        "gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x98\x80\n");
    T_ZEQ(message(LOG_TEXT, STR("\xff\xc2\x9bm"), CAP), "\\xff\\x9bm\n"); /* 0x9b: CSI in C1 */
}

static void
test_json_message_is_escaped(void **state)
{
    (void)state;
    T_ZEQ(message(LOG_JSON, STR("say \"hi\\\"\n\x01"), CAP),
        ",\"msg\":\"say \\\"hi\\\\\\\"\\u000a\\u0001\"}\n");
}

/* Not one byte of a wrong encoding may reach the output: overlong, surrogate, too high, cut. */
static void
test_json_is_valid_utf8(void **state)
{
    (void)state;
    T_ZEQ(message(LOG_JSON, STR("\xe2\x82\xac"), CAP), ",\"msg\":\"\xe2\x82\xac\"}\n");
    static const struct {
        const char *in;
        int replaced;
    } bad[] = {{"\x80", 1}, {"\xc0\xaf", 2}, {"\xc1\xbf", 2}, {"\xe0\x80\xaf", 3},
        {"\xed\xa0\x80", 3}, {"\xf0\x80\x80\x80", 4}, {"\xf4\x90\x80\x80", 4},
        {"\xf5\x80\x80\x80", 4}, {"\xe2\x82", 2}, {"\xff", 1}};
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        char want[128] = ",\"msg\":\"";
        size_t n = strlen(want);
        for (int k = 0; k < bad[i].replaced; k++)
            n += (size_t)snprintf(want + n, sizeof(want) - n, "\\ufffd");
        snprintf(want + n, sizeof(want) - n, "\"}\n");
        T_ZEQ(message(LOG_JSON, str_of(bad[i].in), CAP), want);
    }
}

static void
test_fields_quote_what_needs_it(void **state)
{
    (void)state;
    const struct log_field f[] = {
        {.key = "id", .kind = LOG_NUM, .n = -42},
        {.key = "user", .kind = LOG_STR, .s = STR("default")},
        {.key = "empty", .kind = LOG_STR, .s = STR("")},
        {.key = "url", .kind = LOG_STR, .s = STR("/?a=1&b=\"x y\"\\")},
        {.key = "nl", .kind = LOG_STR, .s = STR("a\nforged=1")},
    };
    T_ZEQ(fields(LOG_TEXT, f, COUNT_OF(f), CAP),
        "access id=-42 user=default empty=\"\" url=\"/?a=1&b=\\\"x y\\\"\\\\\" "
        "nl=\"a\\x0aforged=1\"\n");
    T_ZEQ(fields(LOG_JSON, f, COUNT_OF(f), CAP),
        ",\"event\":\"access\",\"id\":-42,\"user\":\"default\",\"empty\":\"\","
        "\"url\":\"/?a=1&b=\\\"x y\\\"\\\\\",\"nl\":\"a\\u000aforged=1\"}\n");
}

static bool
ends_with(const char *z, const char *end)
{
    size_t n = strlen(z), m = strlen(end);
    return n >= m && strcmp(z + n - m, end) == 0;
}

static void
test_long_messages_are_cut_at_the_bound(void **state)
{
    (void)state;
    static char big[2 * CAP];
    memset(big, 'x', sizeof(big));
    T_TRUE(ends_with(message(LOG_TEXT, str_n(big, sizeof(big)), CAP), "x...\n"));
    T_TRUE(ends_with(message(LOG_JSON, str_n(big, sizeof(big)), CAP), "x...\"}\n"));
    /* Never in the middle of a character. */
    for (size_t i = 0; i + 3 <= sizeof(big); i += 3)
        memcpy(big + i, "\xe2\x82\xac", 3);
    for (size_t cap = 40; cap < 60; cap++)
        T_TRUE(ends_with(message(LOG_TEXT, str_n(big, 300), cap), "\xe2\x82\xac...\n"));
}

/* Quotes and braces balance whatever the bound: a cut JSON line still parses. */
static void
test_cut_fields_stay_well_formed(void **state)
{
    (void)state;
    const struct log_field f[] = {
        {.key = "a", .kind = LOG_STR, .s = STR("one \"two\" three\\")},
        {.key = "bb", .kind = LOG_NUM, .n = 123456789},
        {.key = "ccc", .kind = LOG_STR, .s = STR("\x01\x02\x03 four")},
    };
    size_t whole = strlen(fields(LOG_JSON, f, COUNT_OF(f), CAP));
    for (size_t cap = 32; cap < whole + 20; cap++) {
        const char *line = fields(LOG_JSON, f, COUNT_OF(f), cap);
        bool in_string = false;
        for (const char *p = line; *p != '\0'; p++) {
            if (in_string && *p == '\\')
                p++;
            else if (*p == '"')
                in_string = !in_string;
        }
        T_FALSE(in_string);
        T_TRUE(ends_with(line, "}\n"));
        T_TRUE(strstr(line, "bb") == NULL || strstr(line, "\"bb\":123456789") != NULL);
        T_TRUE(strchr(fields(LOG_TEXT, f, COUNT_OF(f), cap), '\n')[1] == '\0');
    }
}

static const char *
prefix(enum log_format format, bool journald, enum log_level level)
{
    static char out[LOGFMT_PREFIX_MAX + 1];
    out[logfmt_prefix(out, format, journald, level, 1767323045678901)] = '\0';
    return out;
}

static void
test_prefixes(void **state)
{
    (void)state;
    T_ZEQ(prefix(LOG_TEXT, false, LOG_WARN), "2026-01-02T03:04:05.678Z warn ");
    T_ZEQ(prefix(LOG_TEXT, true, LOG_ERROR), "<3>error ");
    T_ZEQ(prefix(LOG_TEXT, true, LOG_WARN), "<4>warn ");
    T_ZEQ(prefix(LOG_TEXT, true, LOG_INFO), "<6>info ");
    T_ZEQ(prefix(LOG_TEXT, true, LOG_DEBUG), "<7>debug ");
    T_ZEQ(prefix(LOG_JSON, false, LOG_INFO),
        "{\"time\":\"2026-01-02T03:04:05.678Z\",\"level\":\"info\"");
    T_ZEQ(prefix(LOG_JSON, true, LOG_DEBUG),
        "<7>{\"time\":\"2026-01-02T03:04:05.678Z\",\"level\":\"debug\"");
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_text_escapes_control_characters_only),
        TEST(test_json_message_is_escaped),
        TEST(test_json_is_valid_utf8),
        TEST(test_fields_quote_what_needs_it),
        TEST(test_long_messages_are_cut_at_the_bound),
        TEST(test_cut_fields_stay_well_formed),
        TEST(test_prefixes),
    };
    return TEST_MAIN(tests);
}
