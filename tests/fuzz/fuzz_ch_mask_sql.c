/*
 * The input is SQL, for a log. Promises checked: the masked text keeps its bound, is UTF-8 without
 * control characters, and masking it again changes nothing; of a literal, a heredoc or a comment
 * that holds the input nothing is shown.
 */
#include "fuzz.h"

#include "base/check.h"
#include "base/mem.h"
#include "clickhouse/ch.h"

#define SQL_MAX 2048

static struct buf
mask(struct str sql, bool whole, size_t max)
{
    struct buf out;
    buf_init(&out, 64 * SQL_MAX);
    ch_mask_sql(&out, sql, whole, max);
    CHECK(buf_ok(&out) && out.len <= max);
    struct str left = str_n(out.p, out.len);
    while (left.len > 0) {
        size_t n = str_utf8_len(left);
        unsigned char c = (unsigned char)*left.p;
        CHECK(n > 0 && c >= ' ' && c != 0x7f);
        left = str_n(left.p + n, left.len - n);
    }
    return out;
}

static void
check_is(struct buf *text, const char *want)
{
    struct buf out = mask(str_n(text->p, text->len), true, 16 * SQL_MAX);
    CHECK(str_eq(str_n(out.p, out.len), str_of(want)));
    buf_fini(&out);
    buf_fini(text);
}

static bool
holds(struct str s, struct str part)
{
    return s.len > 0 && memmem(s.p, s.len, part.p, part.len) != NULL;
}

/* The input inside of something that hides it. */
static void
check_hidden(struct str data)
{
    struct buf text;
    buf_init(&text, 64 * SQL_MAX);
    buf_str(&text, STR("SELECT '"));
    for (size_t i = 0; i < data.len; i++) {
        if (data.p[i] == '\'' || data.p[i] == '\\')
            buf_str(&text, STR("\\"));
        buf_add(&text, data.p + i, 1);
    }
    buf_str(&text, STR("' b"));
    check_is(&text, "SELECT ? b");
    buf_init(&text, 64 * SQL_MAX);
    if (!holds(data, STR("$"))) {
        buf_str(&text, STR("SELECT $q$"));
        buf_str(&text, data);
        buf_str(&text, STR("$q$ b"));
        check_is(&text, "SELECT ? b");
    }
    buf_init(&text, 64 * SQL_MAX);
    if (!holds(data, STR("*")) && !holds(data, STR("/"))) {
        buf_str(&text, STR("SELECT/*"));
        buf_str(&text, data);
        buf_str(&text, STR("*/b"));
        check_is(&text, "SELECT b");
    }
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size > SQL_MAX)
        return 0;
    struct str sql = str_n((const char *)data, size);
    struct buf once = mask(sql, true, 16 * SQL_MAX);
    struct buf twice = mask(str_n(once.p, once.len), true, 16 * SQL_MAX);
    CHECK(str_eq(str_n(once.p, once.len), str_n(twice.p, twice.len)));
    buf_fini(&twice);
    for (size_t max = 0; max < 40; max += 7) {
        struct buf little = mask(sql, max & 1, max);
        buf_fini(&little);
    }
    check_hidden(sql);
    buf_fini(&once);
    return 0;
}
