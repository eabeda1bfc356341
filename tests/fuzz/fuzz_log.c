/*
 * Log lines made of a peer's bytes: whatever they are, a line stays one line within its bound, and
 * a JSON line is well-formed UTF-8 with balanced quotes.
 */
#include "base/logfmt.h"

#include "fuzz.h"

/* One JSON string token's worth of state is enough: our lines do not nest. */
static void
check_json(const char *p, size_t len)
{
    bool in_string = false;
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)p[i];
        CHECK(c >= 0x20 || i == len - 1); /* only the newline at the end */
        if (in_string && c == '\\') {
            CHECK(++i < len && strchr("\"\\u", p[i]) != NULL);
        } else if (c == '"') {
            in_string = !in_string;
        }
    }
    CHECK(!in_string && len >= 2 && memcmp(p + len - 2, "}\n", 2) == 0);
}

/* By iconv's rules, written down again and apart from logfmt's own. */
static void
check_utf8(const char *text, size_t len)
{
    const unsigned char *p = (const unsigned char *)text;
    for (size_t i = 0; i < len;) {
        uint32_t lead = p[i++];
        size_t more = lead < 0x80 ? 0 : lead < 0xe0 ? 1 : lead < 0xf0 ? 2 : 3;
        uint32_t code = more == 0 ? lead : lead & (0x3fu >> more);
        CHECK(more == 0 || (lead >= 0xc0 && lead < 0xf8));
        for (size_t k = 0; k < more; k++) {
            CHECK(i < len && (p[i] & 0xc0) == 0x80);
            code = code << 6 | (p[i++] & 0x3fu);
        }
        static const uint32_t shortest[] = {0, 0x80, 0x800, 0x10000};
        CHECK(code >= shortest[more] && code <= 0x10ffff && (code < 0xd800 || code > 0xdfff));
    }
}

static void
check_line(enum log_format format, const char *line, size_t len, size_t cap)
{
    CHECK(len > 0 && len <= cap);
    CHECK(memchr(line, '\n', len) == line + len - 1);
    check_utf8(line, len); /* text escapes what is not UTF-8, too */
    if (format == LOG_JSON)
        check_json(line, len);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    /* The first bytes choose the format and the bound, the rest is what a peer sent. */
    enum log_format format = data[0] & 1 ? LOG_JSON : LOG_TEXT;
    size_t cap = 32 + (size_t)data[1] * 8;
    struct str bytes = {(const char *)data + 2, size - 2};
    char *line = malloc(cap); /* exactly cap, for ASan */
    CHECK(line != NULL);
    size_t len = logfmt_message(line, cap, format, bytes);
    check_line(format, line, len, cap);
    size_t half = bytes.len / 2;
    const struct log_field f[] = {
        {.key = "request_id", .kind = LOG_NUM, .n = (int64_t)size * (data[0] & 2 ? -1 : 1)},
        {.key = "user", .kind = LOG_STR, .s = {bytes.p, half}},
        {.key = "url", .kind = LOG_STR, .s = {bytes.p + half, bytes.len - half}},
        {.key = "bytes", .kind = LOG_NUM, .n = INT64_MIN},
    };
    len = logfmt_fields(line, cap, format, "access", f, COUNT_OF(f));
    check_line(format, line, len, cap);
    free(line);
    return 0;
}
