/*
 * The input is SQL. Promises checked: its class does not depend on whether it came in the body, in
 * the URL under any escaping, or in both; what is told of a cut text still holds for the whole; a
 * class that allows a repeat is never given to a text in which nobody quoted the word INSERT.
 */
#include "fuzz.h"

#include "base/check.h"
#include "base/mem.h"
#include "clickhouse/ch_private.h"

#define SQL_MAX 4096

static char escaped[SQL_MAX * 3];

/* Every byte as %XX, or only those that mean something in a URL. */
static struct str
escape(struct str s, bool all)
{
    static const char digits[] = "0123456789aBcDeF";
    size_t len = 0;
    for (size_t i = 0; i < s.len; i++) {
        unsigned char c = (unsigned char)s.p[i];
        bool plain = !all && c != '%' && c != '+' && c != '&' && c != '#' && c != ' ';
        if (plain) {
            escaped[len++] = s.p[i];
        } else if (!all && c == ' ') {
            escaped[len++] = '+';
        } else {
            escaped[len++] = '%';
            escaped[len++] = digits[c >> 4];
            escaped[len++] = digits[c & 15];
        }
    }
    return str_n(escaped, len);
}

static void
check_routes(struct str sql, enum ch_class class)
{
    CHECK(ch_classify_both(escape(sql, true), STR_NULL, true) == class);
    CHECK(ch_classify_both(escape(sql, false), STR_NULL, true) == class);
    /* At each line end the first part may be the URL's and the rest the body's. */
    for (size_t i = 1; i < sql.len; i++) {
        if (sql.p[i] != '\n')
            continue;
        struct str url = escape(str_n(sql.p, i), false);
        CHECK(ch_classify_both(url, str_n(sql.p + i + 1, sql.len - i - 1), true) == class);
    }
}

static void
check_cuts(struct str sql, enum ch_class class)
{
    for (size_t i = 0; i <= sql.len; i++) {
        enum ch_class part = ch_classify(str_n(sql.p, i), false);
        CHECK(part != CH_READ || class == CH_READ);
        CHECK(part != CH_INSERT_SELECT);
        CHECK(part != CH_OTHER || class == CH_OTHER);
        CHECK(part != CH_INSERT || class == CH_INSERT || class == CH_INSERT_SELECT);
    }
}

/* The plainest look: does the text open with this word, no comment or parenthesis before it? */
static bool
opens_with(struct str sql, struct str word)
{
    while (sql.len > 0 && (*sql.p == ' ' || (*sql.p >= '\t' && *sql.p <= '\r')))
        sql = str_n(sql.p + 1, sql.len - 1);
    return str_starts_nocase(sql, word) && sql.len > word.len && sql.p[word.len] == ' ';
}

static bool
holds(struct str sql, struct str word)
{
    for (size_t i = 0; i + word.len <= sql.len; i++)
        if (str_starts_nocase(str_n(sql.p + i, sql.len - i), word))
            return true;
    return false;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size > SQL_MAX)
        return 0;
    struct str sql = str_n((const char *)data, size);
    enum ch_class class = ch_classify(sql, true);
    check_routes(sql, class);
    if (size <= 512)
        check_cuts(sql, class);
    if (opens_with(sql, STR("insert")))
        CHECK(class == CH_INSERT || class == CH_INSERT_SELECT);
    if (opens_with(sql, STR("select")) || opens_with(sql, STR("show")))
        CHECK(class == CH_READ);
    if (class == CH_INSERT || class == CH_INSERT_SELECT)
        CHECK(holds(sql, STR("insert")));
    if (class == CH_INSERT_SELECT)
        CHECK(holds(sql, STR("select")) || holds(sql, STR("with")) || holds(sql, STR("watch")));
    return 0;
}
