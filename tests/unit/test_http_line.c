#include "test_http.h"

#include "http/http_scan.h"

struct row {
    const char *name;
    struct str line;
    enum http_line_result res;
    const char *why;   /* of BAD */
    const char *value; /* of FIELD */
};

static const struct row rows[] = {
    {"plain", STR("Host: x\r\n"), HTTP_LINE_FIELD, NULL, "x"},
    {"no space after the colon", STR("Host:x\r\n"), HTTP_LINE_FIELD, NULL, "x"},
    {"spaces and tabs around the value", STR("A: \t x y\t \r\n"), HTTP_LINE_FIELD, NULL, "x y"},
    {"tab inside the value", STR("A: x\ty\r\n"), HTTP_LINE_FIELD, NULL, "x\ty"},
    {"sixteen tabs", STR("A: x\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\ty\r\n"), HTTP_LINE_FIELD, NULL,
        "x\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\ty"},
    {"empty value", STR("A:\r\n"), HTTP_LINE_FIELD, NULL, ""},
    {"value of spaces", STR("A:  \t \r\n"), HTTP_LINE_FIELD, NULL, ""},
    {"bytes over 0x7f", STR("A: \x80\xc3\xa4\xff\r\n"), HTTP_LINE_FIELD, NULL, "\x80\xc3\xa4\xff"},
    {"every separator in a value", STR("A: \"(),/:;<=>?@[\\]{}\r\n"), HTTP_LINE_FIELD, NULL,
        "\"(),/:;<=>?@[\\]{}"},
    {"every tchar in a name", STR("!#$%&'*+-.^_`|~09azAZ: v\r\n"), HTTP_LINE_FIELD, NULL, "v"},
    {"long name and value",
        STR("X-ClickHouse-Exception-Tag-And_More: izbcgcjyuweppawp 0123456789\r\n"),
        HTTP_LINE_FIELD, NULL, "izbcgcjyuweppawp 0123456789"},
    {"colon in the value", STR("Host: [::1]:8123\r\n"), HTTP_LINE_FIELD, NULL, "[::1]:8123"},
    {"blank line", STR("\r\n"), HTTP_LINE_END, NULL, NULL},
    {"folded by a space", STR(" b\r\n"), HTTP_LINE_BAD, "folded header line", NULL},
    {"folded by a tab", STR("\tb\r\n"), HTTP_LINE_BAD, "folded header line", NULL},
    {"space before the colon", STR("A : b\r\n"), HTTP_LINE_BAD, "space in or after a header name",
        NULL},
    {"tab before the colon", STR("A\t: b\r\n"), HTTP_LINE_BAD, "space in or after a header name",
        NULL},
    {"space inside the name", STR("A b: c\r\n"), HTTP_LINE_BAD, "space in or after a header name",
        NULL},
    {"empty name", STR(": b\r\n"), HTTP_LINE_BAD, "empty header name", NULL},
    {"no colon", STR("Host\r\n"), HTTP_LINE_BAD, "header line without a colon", NULL},
    {"no colon, bare LF", STR("Host\n"), HTTP_LINE_BAD, "header line without a colon", NULL},
    {"separator in the name", STR("A(b): c\r\n"), HTTP_LINE_BAD, "bad character in a header name",
        NULL},
    {"separator before the name", STR("(A: c\r\n"), HTTP_LINE_BAD, "bad character in a header name",
        NULL},
    {"byte over 0x7f in the name", STR("A\xc3: c\r\n"), HTTP_LINE_BAD,
        "bad character in a header name", NULL},
    {"NUL in the name", STR("A\0: c\r\n"), HTTP_LINE_BAD, "NUL in a header name", NULL},
    {"bare LF", STR("A: b\n"), HTTP_LINE_BAD, "header line ends without CR", NULL},
    {"bare LF as the blank line", STR("\n"), HTTP_LINE_BAD, "header line ends without CR", NULL},
    {"bare CR", STR("A: b\rc\r\n"), HTTP_LINE_BAD, "CR without LF in the headers", NULL},
    {"two CRs", STR("A: b\r\r\n"), HTTP_LINE_BAD, "CR without LF in the headers", NULL},
    {"bare CR at the start", STR("\rA: b\r\n"), HTTP_LINE_BAD, "CR without LF in the headers",
        NULL},
    {"NUL in the value", STR("A: b\0c\r\n"), HTTP_LINE_BAD, "NUL in a header value", NULL},
    {"escape in the value", STR("A: b\x1b[0m\r\n"), HTTP_LINE_BAD,
        "control character in a header value", NULL},
    {"DEL in the value", STR("A: b\x7f\r\n"), HTTP_LINE_BAD, "control character in a header value",
        NULL},
    {"vertical tab in the value", STR("A: b\vc\r\n"), HTTP_LINE_BAD,
        "control character in a header value", NULL},
};

static enum http_line_result
next(struct str s, struct http_field *f, size_t *used)
{
    *f = (struct http_field){0};
    *used = 0;
    return http_line_next(s, f, used);
}

static void
test_rules_of_a_field_line(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        const struct row *r = &rows[i];
        struct str s = tight_copy(r->line);
        struct http_field f;
        size_t used;
        T_ROW(next(s, &f, &used) == r->res, r->name);
        if (r->res == HTTP_LINE_BAD)
            T_ROW(z_eq(http_line_why(s), r->why), r->name);
        if (r->res != HTTP_LINE_BAD)
            T_ROW(used == s.len, r->name);
        if (r->res == HTTP_LINE_FIELD) {
            T_ROW(str_eq(f.line, s), r->name);
            T_ROW(str_eq(f.value, str_of(r->value)), r->name);
            T_ROW(f.name.p == s.p && f.name.p[f.name.len] == ':', r->name);
        }
        tight_free(s);
    }
}

/* A prefix is MORE, or already has the verdict (and the reason) of the whole line. */
static void
test_every_prefix_agrees_with_the_whole(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        const struct row *r = &rows[i];
        bool decided = false;
        for (size_t n = 0; n < r->line.len; n++) {
            struct str s = tight_copy(str_n(r->line.p, n));
            struct http_field f;
            size_t used;
            enum http_line_result res = next(s, &f, &used);
            T_ROW(res == HTTP_LINE_MORE || (res == HTTP_LINE_BAD && r->res == HTTP_LINE_BAD),
                r->name);
            T_ROW(!decided || res == HTTP_LINE_BAD, r->name);
            decided = res == HTTP_LINE_BAD;
            if (decided)
                T_ROW(z_eq(http_line_why(s), r->why), r->name);
            tight_free(s);
        }
    }
}

static void
test_used_covers_one_line_only(void **state)
{
    (void)state;
    struct http_field f;
    size_t used;
    T_EQ(next(STR("A: b\r\nC: d\r\n\r\n"), &f, &used), HTTP_LINE_FIELD);
    T_EQ(used, 6);
    T_STR(f.line, "A: b\r\n");
    T_EQ(next(STR("\r\nbody"), &f, &used), HTTP_LINE_END);
    T_EQ(used, 2);
}

/* One name-value line of the given lengths, with or without its CRLF. */
static enum http_line_result
sized(size_t name_len, size_t spaces, size_t value_len, bool whole)
{
    size_t len = name_len + 1 + spaces + value_len + (whole ? 2 : 0);
    char *p = fill('v', len);
    memset(p, 'n', name_len);
    p[name_len] = ':';
    memset(p + name_len + 1, ' ', spaces);
    if (whole)
        memcpy(p + len - 2, "\r\n", 2);
    struct str s = tight_copy(str_n(p, len));
    free(p);
    struct http_field f;
    size_t used;
    enum http_line_result res = next(s, &f, &used);
    tight_free(s);
    return res;
}

static void
test_limits_at_the_edge(void **state)
{
    (void)state;
    T_EQ(sized(HTTP_MAX_NAME, 1, 1, true), HTTP_LINE_FIELD);
    T_EQ(sized(HTTP_MAX_NAME + 1, 1, 1, true), HTTP_LINE_LARGE);
    T_EQ(sized(1, 1, HTTP_MAX_VALUE, true), HTTP_LINE_FIELD);
    T_EQ(sized(1, 0, HTTP_MAX_VALUE, true), HTTP_LINE_FIELD);
    T_EQ(sized(1, 1, HTTP_MAX_VALUE + 1, true), HTTP_LINE_LARGE);
    T_EQ(sized(1, HTTP_MAX_VALUE - 1, 1, true), HTTP_LINE_FIELD);
    T_EQ(sized(1, HTTP_MAX_VALUE + 1, 1, true), HTTP_LINE_LARGE);
    /* While incomplete too: nobody waits for the end of what is too large already. */
    T_EQ(sized(1, 1, HTTP_MAX_VALUE, false), HTTP_LINE_MORE);
    T_EQ(sized(1, 1, HTTP_MAX_VALUE + 1, false), HTTP_LINE_LARGE);
    T_EQ(sized(1, HTTP_MAX_VALUE + 1, 0, false), HTTP_LINE_LARGE);
    char *name = fill('n', HTTP_MAX_NAME + 1);
    struct http_field f;
    size_t used;
    T_EQ(next(str_n(name, HTTP_MAX_NAME), &f, &used), HTTP_LINE_MORE);
    T_EQ(next(str_n(name, HTTP_MAX_NAME + 1), &f, &used), HTTP_LINE_LARGE);
    free(name);
}

static const struct {
    const char *name;
    enum http_field_id id;
} known[] = {
    {"Connection", HTTP_F_CONNECTION},
    {"Keep-Alive", HTTP_F_KEEP_ALIVE},
    {"Proxy-Connection", HTTP_F_PROXY_CONNECTION},
    {"Proxy-Authenticate", HTTP_F_PROXY_AUTHENTICATE},
    {"Proxy-Authorization", HTTP_F_PROXY_AUTHORIZATION},
    {"TE", HTTP_F_TE},
    {"Trailer", HTTP_F_TRAILER},
    {"Transfer-Encoding", HTTP_F_TRANSFER_ENCODING},
    {"Upgrade", HTTP_F_UPGRADE},
    {"Content-Length", HTTP_F_CONTENT_LENGTH},
    {"Content-Type", HTTP_F_CONTENT_TYPE},
    {"Content-Encoding", HTTP_F_CONTENT_ENCODING},
    {"Accept-Encoding", HTTP_F_ACCEPT_ENCODING},
    {"Expect", HTTP_F_EXPECT},
    {"Host", HTTP_F_HOST},
    {"Authorization", HTTP_F_AUTHORIZATION},
    {"X-ClickHouse-User", HTTP_F_CH_USER},
    {"X-ClickHouse-Key", HTTP_F_CH_KEY},
    {"X-ClickHouse-Query-Id", HTTP_F_CH_QUERY_ID},
    {"X-ClickHouse-Quota", HTTP_F_CH_QUOTA},
    {"X-ClickHouse-Database", HTTP_F_CH_DATABASE},
    {"X-ClickHouse-SSL-Certificate-Auth", HTTP_F_CH_CERT_AUTH},
    {"X-ClickHouse-Progress", HTTP_F_CH_PROGRESS},
    {"X-ClickHouse-Exception-Code", HTTP_F_CH_EXCEPTION},
    {"X-Chmux-Compression", HTTP_F_CHMUX_COMPRESSION},
};

static void
test_every_known_name_is_found_in_any_case(void **state)
{
    (void)state;
    T_EQ(COUNT_OF(known), HTTP_F_COUNT - 1);
    for (size_t i = 0; i < COUNT_OF(known); i++) {
        char text[64];
        size_t n = strlen(known[i].name);
        T_ROW(http_field_lookup(str_of(known[i].name)) == known[i].id, known[i].name);
        for (size_t k = 0; k < n; k++)
            text[k] = ascii_lower(known[i].name[k]);
        T_ROW(http_field_lookup(str_n(text, n)) == known[i].id, known[i].name);
        for (size_t k = 0; k < n; k++)
            if (text[k] >= 'a' && text[k] <= 'z')
                text[k] = (char)(text[k] - 'a' + 'A');
        T_ROW(http_field_lookup(str_n(text, n)) == known[i].id, known[i].name);
    }
}

/* Any one byte changed to anything but its other case makes it another name. */
static void
test_a_name_with_one_other_byte_is_not_known(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(known); i++) {
        size_t n = strlen(known[i].name);
        for (size_t k = 0; k < n; k++) {
            for (int c = 0; c < 256; c++) {
                char text[64];
                memcpy(text, known[i].name, n);
                text[k] = (char)c;
                bool same = ascii_lower((char)c) == ascii_lower(known[i].name[k]);
                T_ROW((http_field_lookup(str_n(text, n)) == known[i].id) == same, known[i].name);
            }
        }
        T_ROW(http_field_lookup(str_n(known[i].name, n - 1)) != known[i].id, known[i].name);
    }
    T_EQ(http_field_lookup(STR("")), HTTP_F_OTHER);
    T_EQ(http_field_lookup(STR("Accept")), HTTP_F_OTHER);
    T_EQ(http_field_lookup(STR("Content_Length")), HTTP_F_OTHER);
}

/* The wide spans against the definition, for every byte at every offset and length. */
static void
test_spans_agree_with_the_character_table(void **state)
{
    (void)state;
    for (int c = 0; c < 256; c++) {
        bool token = strchr("!#$%&'*+-.^_`|~", c) != NULL && c != 0;
        token =
            token || (c >= '0' && c <= '9') ||
            (ascii_lower((char)c) >= 'a' && c <= 'z' && c >= 'A' && ascii_lower((char)c) <= 'z');
        bool text = c == '\t' || (c >= 0x20 && c != 0x7f);
        bool target = c > 0x20 && c != 0x7f;
        T_EQ(http_is_token_ch((char)c), token);
        T_EQ(http_is_text_ch((char)c), text);
        for (size_t n = 1; n <= 40; n++) {
            for (size_t at = 0; at < n; at++) {
                char *p = fill('a', n);
                p[at] = (char)c;
                struct str s = tight_copy(str_n(p, n));
                free(p);
                T_EQ(http_span_token(s.p, n), token ? n : at);
                T_EQ(http_span_name(s.p, n), token ? n : at);
                T_EQ(http_span_text(s.p, n), text ? n : at);
                T_EQ(http_span_target(s.p, n), target ? n : at);
                tight_free(s);
            }
        }
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_rules_of_a_field_line),
        TEST(test_every_prefix_agrees_with_the_whole),
        TEST(test_used_covers_one_line_only),
        TEST(test_limits_at_the_edge),
        TEST(test_every_known_name_is_found_in_any_case),
        TEST(test_a_name_with_one_other_byte_is_not_known),
        TEST(test_spans_agree_with_the_character_table),
    };
    return TEST_MAIN(tests);
}
