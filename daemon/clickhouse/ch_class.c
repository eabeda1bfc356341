#include "clickhouse/ch.h"

#include "clickhouse/ch_private.h"

/*
 * Just enough of ClickHouse's lexer to tell words from quotes and comments. It reads one byte ahead
 * and never stores the text, so a query may lie percent-encoded in the URL with its tail in the
 * body. Whatever it cannot follow sets `odd`, and the callers then take the careful answer.
 */
#define WORD_MAX 16 /* longer words are no keyword of ours */
#define TAG_MAX  64 /* of a heredoc: $tag$ text $tag$ */

struct lexer {
    struct str url;  /* still encoded */
    struct str body; /* as it is */
    bool join;       /* a newline is due between the two */
    bool odd;
    int c; /* the byte at hand, -1: end */
    char word[WORD_MAX];
    size_t word_len; /* may be over WORD_MAX */
};

enum token {
    TOKEN_END,
    TOKEN_WORD,
    TOKEN_QUOTED,
    TOKEN_OPEN,
    TOKEN_CLOSE,
    TOKEN_COMMA,
    TOKEN_DOT,
    TOKEN_OTHER,
};

static inline void
advance(struct lexer *x)
{
    if (x->url.len > 0) {
        x->c = ch_url_next(&x->url);
        return;
    }
    if (x->join) {
        x->join = false;
        x->c = '\n';
        return;
    }
    if (x->body.len == 0) {
        x->c = -1;
        return;
    }
    x->c = (unsigned char)*x->body.p;
    x->body.p++;
    x->body.len--;
}

static void
skip_line(struct lexer *x)
{
    while (x->c >= 0 && x->c != '\n')
        advance(x);
}

/* 26.x nests these comments and 18.16 does not, so a comment inside one makes the text odd. */
static void
skip_block_comment(struct lexer *x)
{
    for (int before = 0; x->c >= 0; before = x->c, advance(x)) {
        if (before == '/' && x->c == '*')
            x->odd = true;
        if (before == '*' && x->c == '/') {
            advance(x);
            return;
        }
    }
    x->odd = true; /* never closed */
}

static void
skip_quoted(struct lexer *x, int quote)
{
    advance(x);
    while (x->c >= 0 && x->c != quote) {
        if (x->c == '\\')
            advance(x);
        advance(x);
    }
    if (x->c < 0)
        x->odd = true;
    advance(x);
}

static bool
is_word_byte(int c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

/* At a '$': a heredoc, or just a byte of a name. */
static void
skip_heredoc(struct lexer *x)
{
    char tag[TAG_MAX];
    size_t len = 0;
    for (advance(x); is_word_byte(x->c); advance(x)) {
        if (len == sizeof(tag)) {
            x->odd = true;
            return;
        }
        tag[len++] = (char)x->c;
    }
    if (x->c != '$')
        return;
    /* The closing tag is matched from each '$': a tag holds none, so no match can overlap. */
    size_t at = SIZE_MAX;
    for (advance(x); x->c >= 0; advance(x)) {
        if (x->c == '$') {
            if (at == len) {
                advance(x);
                return;
            }
            at = 0;
        } else if (at < len && x->c == (unsigned char)tag[at]) {
            at++;
        } else {
            at = SIZE_MAX;
        }
    }
    x->odd = true;
}

static void
take_word(struct lexer *x)
{
    x->word_len = 0;
    for (; is_word_byte(x->c) || x->c == '$'; advance(x)) {
        if (x->word_len < WORD_MAX)
            x->word[x->word_len] = ascii_lower((char)x->c);
        x->word_len++;
    }
}

/* Skips spaces and comments. true: an operator byte that only looked like a comment was skipped. */
static bool
skip_space(struct lexer *x)
{
    for (;;) {
        int c = x->c;
        if (c == ' ' || (c >= '\t' && c <= '\r')) {
            advance(x);
        } else if (c == '-') {
            advance(x);
            if (x->c != '-')
                return true;
            skip_line(x);
        } else if (c == '/') {
            advance(x);
            if (x->c != '*')
                return true;
            advance(x);
            skip_block_comment(x);
        } else if (c == '#') {
            advance(x);
            if (x->c != ' ' && x->c != '!')
                return true;
            skip_line(x);
        } else {
            return false;
        }
    }
}

static enum token
next_token(struct lexer *x)
{
    if (skip_space(x))
        return TOKEN_OTHER;
    int c = x->c;
    if (c < 0)
        return TOKEN_END;
    if (is_word_byte(c)) {
        take_word(x);
        return TOKEN_WORD;
    }
    if (c == '\'' || c == '"' || c == '`') {
        skip_quoted(x, c);
        return TOKEN_QUOTED;
    }
    if (c == '$') {
        skip_heredoc(x);
        return TOKEN_QUOTED;
    }
    if (c >= 0x80)
        x->odd = true; /* a Unicode space or quote: ClickHouse knows some */
    advance(x);
    if (c == '(')
        return TOKEN_OPEN;
    if (c == ')')
        return TOKEN_CLOSE;
    if (c == ',')
        return TOKEN_COMMA;
    return c == '.' ? TOKEN_DOT : TOKEN_OTHER;
}

static bool
word_is(const struct lexer *x, struct str word)
{
    return x->word_len == word.len && memcmp(x->word, word.p, word.len) == 0;
}

/* Behind the SELECT of an INSERT: does it read data that came with the request? */
static enum ch_class
class_of_insert_select(struct lexer *x, bool whole)
{
    enum token t = next_token(x);
    while (t != TOKEN_END) {
        bool is_input = t == TOKEN_WORD && word_is(x, STR("input"));
        bool is_format = t == TOKEN_WORD && word_is(x, STR("format"));
        t = next_token(x);
        if ((is_input && t == TOKEN_OPEN) || (is_format && t != TOKEN_OPEN))
            return CH_INSERT;
    }
    return whole && !x->odd ? CH_INSERT_SELECT : CH_INSERT;
}

/* Behind the table: `(` opens the column list, or the SELECT itself. */
static bool
paren_holds_select(struct lexer *x, enum token *t)
{
    do
        *t = next_token(x);
    while (*t == TOKEN_OPEN);
    if (*t != TOKEN_WORD || !(word_is(x, STR("select")) || word_is(x, STR("with"))))
        return false;
    *t = next_token(x); /* a column may be called `select`: then a comma or ')' follows */
    return *t != TOKEN_CLOSE && *t != TOKEN_COMMA;
}

/* Behind INSERT. Data is the careful answer, so only a clear INSERT ... SELECT is called one. */
static enum ch_class
class_of_insert(struct lexer *x, bool whole)
{
    enum token t = next_token(x);
    if (t == TOKEN_WORD && word_is(x, STR("into")))
        t = next_token(x);
    if (t == TOKEN_WORD && word_is(x, STR("table")))
        t = next_token(x);
    if (t == TOKEN_WORD && word_is(x, STR("function")))
        t = next_token(x);
    /* t is the first part of the table's name, whatever it looks like. */
    int depth = 0;
    for (t = next_token(x); t != TOKEN_END; t = next_token(x)) {
        if (t == TOKEN_DOT && depth == 0) {
            (void)next_token(x);
        } else if (t == TOKEN_OPEN) {
            depth++;
            if (depth == 1) {
                if (paren_holds_select(x, &t))
                    return class_of_insert_select(x, whole);
                if (t == TOKEN_CLOSE)
                    depth--;
            }
        } else if (t == TOKEN_CLOSE) {
            depth--;
        } else if (t == TOKEN_WORD && depth <= 0) {
            if (word_is(x, STR("select")) || word_is(x, STR("with")) || word_is(x, STR("watch")))
                return class_of_insert_select(x, whole);
            if (word_is(x, STR("values")) || word_is(x, STR("format")) || word_is(x, STR("from")))
                return CH_INSERT;
        }
    }
    return CH_INSERT;
}

/* Behind a word that opens a SELECT, but may open a write as well: WITH ... INSERT is one on 26.x.
 * So look for the verb. */
static enum ch_class
class_by_verb(struct lexer *x, bool whole)
{
    static const struct str writes[] = {
        {"delete", 6}, {"update", 6}, {"alter", 5}, {"create", 6}, {"drop", 4}, {"truncate", 8}};
    for (enum token t = next_token(x); t != TOKEN_END; t = next_token(x)) {
        if (t != TOKEN_WORD)
            continue;
        if (x->c < 0 && !whole)
            return CH_UNKNOWN; /* the word may go on */
        if (word_is(x, STR("insert")))
            return class_of_insert(x, whole);
        for (size_t i = 0; i < COUNT_OF(writes); i++)
            if (word_is(x, writes[i]))
                return CH_OTHER;
    }
    return whole && !x->odd ? CH_READ : CH_UNKNOWN;
}

/* The commonest text by far, an encoded "select" and a space, without the lexer. */
static bool
is_plain_select(struct str url)
{
    static const char word[] = "select";
    if (url.len < sizeof(word))
        return false;
    for (size_t i = 0; i < sizeof(word) - 1; i++)
        if ((url.p[i] | 0x20) != word[i])
            return false;
    const char *next = url.p + sizeof(word) - 1;
    return *next == '+' || (url.len >= sizeof(word) + 2 && memcmp(next, "%20", 3) == 0);
}

enum ch_class
ch_classify_both(struct str url, struct str body, bool text_is_whole)
{
    static const struct str reads[] = {
        {"select", 6}, {"show", 4}, {"describe", 8}, {"desc", 4}, {"exists", 6}, {"from", 4}};
    if (is_plain_select(url))
        return CH_READ;
    struct lexer x = {.url = url, .body = body, .join = url.len > 0 && body.p != NULL};
    enum token t;

    advance(&x);
    do
        t = next_token(&x);
    while (t == TOKEN_OPEN);
    if (t == TOKEN_END || x.odd)
        return CH_UNKNOWN;
    if (x.c < 0 && !text_is_whole)
        return CH_UNKNOWN; /* the word, or the comment, may go on */
    if (t != TOKEN_WORD)
        return CH_OTHER;
    if (word_is(&x, STR("insert")))
        return class_of_insert(&x, text_is_whole);
    if (word_is(&x, STR("with")))
        return class_by_verb(&x, text_is_whole);
    if (word_is(&x, STR("explain"))) {
        /* Alone it runs nothing; with ANALYZE it runs what it explains. */
        t = next_token(&x);
        if (t == TOKEN_END || (x.c < 0 && !text_is_whole))
            return CH_UNKNOWN;
        return word_is(&x, STR("analyze")) ? class_by_verb(&x, text_is_whole) : CH_READ;
    }
    for (size_t i = 0; i < COUNT_OF(reads); i++)
        if (word_is(&x, reads[i]))
            return CH_READ;
    return CH_OTHER;
}

enum ch_class
ch_classify(struct str sql, bool text_is_whole)
{
    return ch_classify_both(STR_NULL, sql, text_is_whole);
}
