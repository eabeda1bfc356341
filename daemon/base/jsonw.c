#include "base/jsonw.h"

void
jsonw_init(struct jsonw *j, struct buf *out)
{
    *j = (struct jsonw){.out = out};
}

static bool
in_array(const struct jsonw *j)
{
    return j->depth == 0 || (j->is_array >> j->depth & 1) != 0;
}

static void
begin_value(struct jsonw *j, const char *key)
{
    CHECK((key == NULL) == in_array(j));
    CHECK(j->depth > 0 || !j->comma);
    if (j->comma)
        buf_str(j->out, STR(","));
    j->comma = true;
    if (key != NULL)
        buf_addf(j->out, "\"%s\":", key);
}

static void
open_level(struct jsonw *j, const char *key, bool array)
{
    begin_value(j, key);
    CHECK(j->depth + 1 < JSONW_DEPTH_MAX);
    j->depth++;
    j->is_array = (j->is_array & ~(UINT32_C(1) << j->depth)) | (uint32_t)array << j->depth;
    j->comma = false;
    buf_str(j->out, array ? STR("[") : STR("{"));
}

void
jsonw_object(struct jsonw *j, const char *key)
{
    open_level(j, key, false);
}

void
jsonw_array(struct jsonw *j, const char *key)
{
    open_level(j, key, true);
}

void
jsonw_end(struct jsonw *j)
{
    CHECK(j->depth > 0);
    buf_str(j->out, in_array(j) ? STR("]") : STR("}"));
    j->depth--;
    j->comma = true;
}

/* The character at the front of s, escaped; how many bytes of s it was. */
static size_t
put_char(struct buf *out, struct str s)
{
    const unsigned char *p = (const unsigned char *)s.p;
    size_t n = str_utf8_len(s);
    if (n == 0) {
        buf_str(out, STR("\\ufffd"));
        return 1;
    }
    if (*p == '"' || *p == '\\') {
        char esc[2] = {'\\', (char)*p};
        buf_add(out, esc, sizeof esc);
    } else if (*p < 0x20 || *p == 0x7f || (n == 2 && *p == 0xc2 && p[1] < 0xa0)) {
        buf_addf(out, "\\u00%02x", p[n - 1]);
    } else {
        buf_add(out, p, n);
    }
    return n;
}

static bool
is_plain(char c)
{
    return c >= ' ' && c < 0x7f && c != '"' && c != '\\';
}

void
jsonw_str(struct jsonw *j, const char *key, struct str s)
{
    begin_value(j, key);
    buf_str(j->out, STR("\""));
    for (size_t i = 0; i < s.len;) {
        size_t run = i;
        while (run < s.len && is_plain(s.p[run]))
            run++;
        buf_add(j->out, s.p + i, run - i);
        i = run;
        if (i < s.len)
            i += put_char(j->out, str_n(s.p + i, s.len - i));
    }
    buf_str(j->out, STR("\""));
}

void
jsonw_text(struct jsonw *j, const char *key, const char *z)
{
    if (z == NULL)
        jsonw_null(j, key);
    else
        jsonw_str(j, key, str_of(z));
}

void
jsonw_int(struct jsonw *j, const char *key, int64_t n)
{
    begin_value(j, key);
    buf_addf(j->out, "%" PRId64, n);
}

void
jsonw_uint(struct jsonw *j, const char *key, uint64_t n)
{
    begin_value(j, key);
    buf_addf(j->out, "%" PRIu64, n);
}

void
jsonw_bool(struct jsonw *j, const char *key, bool b)
{
    begin_value(j, key);
    buf_str(j->out, b ? STR("true") : STR("false"));
}

void
jsonw_null(struct jsonw *j, const char *key)
{
    begin_value(j, key);
    buf_str(j->out, STR("null"));
}

void
jsonw_ms(struct jsonw *j, const char *key, int64_t us)
{
    uint64_t abs_us = us < 0 ? 0 - (uint64_t)us : (uint64_t)us;
    begin_value(j, key);
    buf_addf(
        j->out, "%s%" PRIu64 ".%03u", us < 0 ? "-" : "", abs_us / 1000, (unsigned)(abs_us % 1000));
}

bool
jsonw_whole(const struct jsonw *j)
{
    return j->depth == 0 && j->comma && buf_ok(j->out);
}

struct jsonw_place
jsonw_mark(const struct jsonw *j)
{
    return (struct jsonw_place){.len = j->out->len, .depth = j->depth, .comma = j->comma};
}

bool
jsonw_keep(struct jsonw *j, const struct jsonw_place *mark, size_t room)
{
    if (buf_reserve(j->out, room))
        return true;
    j->out->len = mark->len;
    j->out->failed = false;
    j->depth = mark->depth;
    j->comma = mark->comma;
    return false;
}
