#include "clickhouse/ch.h"

#include "clickhouse/ch_private.h"

/*
 * The text of a query without its values. What cannot be followed to its end (a quote, a heredoc, a
 * comment that may nest) hides all that comes behind it, as does INSERT's data: in doubt nothing is
 * shown.
 */
struct masker {
    struct str in; /* what is left of it */
    struct buf *out;
    size_t len; /* bytes put so far */
    size_t max;
    bool space;  /* is due before the next token */
    bool insert; /* the word was there: what follows its FORMAT or VALUES is data */
    bool format; /* the last token was that word */
    bool more;   /* there is text that is not shown */
};

static void
put(struct masker *m, struct str s)
{
    bool space = m->space && m->len > 0;
    m->space = false;
    if (m->len > m->max)
        return;
    if (space)
        buf_str(m->out, STR(" "));
    s.len = size_min(s.len, m->max + 1 - m->len); /* one over tells that there is more */
    buf_str(m->out, s);
    m->len += space + s.len;
}

static void
skip(struct masker *m, size_t n)
{
    n = size_min(n, m->in.len);
    m->in.p += n;
    m->in.len -= n;
}

static void
hide_rest(struct masker *m)
{
    m->in.len = 0;
    m->more = true;
}

/* The byte at i, or -1. */
static int
peek(const struct masker *m, size_t i)
{
    return i < m->in.len ? (unsigned char)m->in.p[i] : -1;
}

static bool
is_space(int c)
{
    return c >= 0 &&
           (c <= ' ' || c == 0x7f); /* control characters are none of a query's business */
}

static bool
is_digit(int c)
{
    return c >= '0' && c <= '9';
}

static bool
is_word(int c)
{
    return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

/* Where `end` begins at or after `from`, or -1. */
static ssize_t
find(const struct masker *m, size_t from, struct str end)
{
    if (from > m->in.len)
        return -1;
    const char *at = memmem(m->in.p + from, m->in.len - from, end.p, end.len);
    return at == NULL ? -1 : at - m->in.p;
}

/* Where the quoted text that begins at i ends, doubled and escaped quotes inside; 0: nowhere. */
static size_t
quoted_end(const struct masker *m, size_t i)
{
    int quote = peek(m, i);
    for (i++; i < m->in.len; i++) {
        int c = peek(m, i);
        if (c == '\\')
            i++;
        else if (c == quote && peek(m, i + 1) == quote)
            i++;
        else if (c == quote)
            return i + 1;
    }
    return 0;
}

/* A value of n bytes; 0: it does not end, nor does what it hides. */
static void
put_value(struct masker *m, size_t n)
{
    put(m, STR("?"));
    if (n == 0)
        hide_rest(m);
    else
        skip(m, n);
}

/* "name" or `name`. Bytes that are not text become '?'. */
static void
put_name(struct masker *m)
{
    size_t n = quoted_end(m, 0);
    if (n == 0) {
        put_value(m, 0);
        return;
    }
    for (size_t i = 0; i < n && m->len <= m->max;) {
        struct str rest = str_n(m->in.p + i, n - i);
        size_t step = str_utf8_len(rest);
        bool text = step > 0 && !(step == 1 && is_space(peek(m, i)) && *rest.p != ' ');
        step = size_max(step, 1);
        put(m, text ? str_n(rest.p, step) : STR("?"));
        i += step;
    }
    skip(m, n);
}

/* $tag$ text $tag$. A '$' that begins none may begin one for a server that reads tags otherwise. */
static void
put_heredoc(struct masker *m)
{
    size_t n = 1;
    while (is_word(peek(m, n)))
        n++;
    if (peek(m, n) != '$') {
        if (find(m, n, STR("$")) >= 0) {
            put_value(m, 0);
            return;
        }
        put(m, STR("$"));
        skip(m, 1);
        return;
    }
    struct str tag = str_n(m->in.p, n + 1);
    ssize_t end = find(m, tag.len, tag);
    put_value(m, end < 0 ? 0 : (size_t)end + tag.len);
}

/* Decimal, hexadecimal, binary, with an exponent; a name that begins with a digit goes with it. */
static void
put_number(struct masker *m)
{
    size_t n = 0;
    for (;;) {
        int c = peek(m, n), before = n == 0 ? -1 : ascii_lower(m->in.p[n - 1]);
        bool sign = (c == '-' || c == '+') && (before == 'e' || before == 'p');
        if (!is_word(c) && c != '.' && !(sign && is_digit(peek(m, n + 1))))
            break;
        n++;
    }
    put_value(m, n);
}

static void
put_word(struct masker *m)
{
    size_t n = 1;
    while (is_word(peek(m, n)) || peek(m, n) == '$')
        n++;
    struct str word = str_n(m->in.p, n);
    char prefix = ascii_lower(*word.p);
    if (n == 1 && (prefix == 'x' || prefix == 'b') && peek(m, 1) == '\'') {
        put_value(m, quoted_end(m, 1));
        return;
    }
    put(m, word);
    skip(m, n);
    bool data = m->insert && (m->format || str_eq_nocase(word, STR("values")));
    m->format = str_eq_nocase(word, STR("format"));
    m->insert = m->insert || str_eq_nocase(word, STR("insert"));
    if (data && m->in.len > 0)
        hide_rest(m);
}

/* Bytes beyond ASCII: the curly quotes that ClickHouse knows, or something no name has unquoted. */
static void
put_foreign(struct masker *m)
{
    static const char *const quotes[][2] = {{"\u2018", "\u2019"}, {"\u201c", "\u201d"}};
    for (size_t i = 0; i < COUNT_OF(quotes); i++) {
        struct str open = str_of(quotes[i][0]), close = str_of(quotes[i][1]);
        if (m->in.len < open.len || memcmp(m->in.p, open.p, open.len) != 0)
            continue;
        ssize_t end = find(m, open.len, close);
        put_value(m, end < 0 ? 0 : (size_t)end + close.len);
        return;
    }
    put_value(m, size_max(str_utf8_len(m->in), 1));
}

/* A comment, of which nothing is shown. false: there is none here. */
static bool
skip_comment(struct masker *m)
{
    int c = peek(m, 0), next = peek(m, 1);
    bool line = (c == '-' && next == '-') || c == '#'; /* some servers want a space behind that */
    if (line) {
        ssize_t end = find(m, 0, STR("\n"));
        skip(m, end < 0 ? m->in.len : (size_t)end);
    } else if (c == '/' && next == '*') {
        ssize_t end = find(m, 2, STR("*/")), inner = find(m, 2, STR("/*"));
        if (end < 0 || (inner >= 0 && inner < end)) /* 26.x nests them, 18.16 does not */
            hide_rest(m);
        else
            skip(m, (size_t)end + 2);
    } else {
        return false;
    }
    m->space = true;
    return true;
}

/* Is the byte at hand right behind a name? Then a dot is no decimal point. */
static bool
follows_name(const struct masker *m)
{
    if (m->space || m->len == 0)
        return false;
    char last = m->out->p[m->out->len - 1];
    return is_word((unsigned char)last) || last == '`' || last == '"' || last == ')';
}

static void
put_token(struct masker *m)
{
    int c = peek(m, 0);
    if (is_space(c)) {
        m->space = true;
        skip(m, 1);
        return;
    }
    if (skip_comment(m))
        return;
    if (is_word(c) && !is_digit(c)) {
        put_word(m);
        return;
    }
    m->format = false;
    if (c == '\'')
        put_value(m, quoted_end(m, 0));
    else if (c == '"' || c == '`')
        put_name(m);
    else if (c == '$')
        put_heredoc(m);
    else if (is_digit(c) || (c == '.' && is_digit(peek(m, 1)) && !follows_name(m)))
        put_number(m);
    else if (c >= 0x80)
        put_foreign(m);
    else {
        put(m, str_n(m->in.p, 1));
        skip(m, 1);
    }
}

void
ch_mask_sql(struct buf *out, struct str sql, bool whole, size_t max)
{
    struct masker m = {.in = sql, .out = out, .max = max, .more = !whole};
    size_t begin = out->len;
    while (m.in.len > 0 && m.len <= max && buf_ok(out))
        put_token(&m);
    if (!buf_ok(out) || (m.len <= max && !m.more))
        return;
    /* The end is cut off, at the beginning of a character. */
    size_t room = max < 3 ? 0 : max - 3, keep = size_min(m.len, room);
    while (keep > 0 && keep < m.len && ((unsigned char)out->p[begin + keep] & 0xc0) == 0x80)
        keep--;
    out->len = begin + keep;
    buf_add(out, "...", size_min(max, 3));
}
