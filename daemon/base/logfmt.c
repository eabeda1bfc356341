#include "base/logfmt.h"

#include <time.h>

/* Kept free behind the text for what closes a line: `..."}` and the newline. */
#define TAIL_MAX 8

struct out {
    char *p;
    size_t len, cap;
    bool cut; /* something did not fit: nothing more goes in */
};

/* All of it or nothing. */
static bool
put(struct out *o, const char *p, size_t n)
{
    if (o->cut || o->cap - o->len < n) {
        o->cut = true;
        return false;
    }
    memcpy(o->p + o->len, p, n);
    o->len += n;
    return true;
}

static bool
put_z(struct out *o, const char *z)
{
    return put(o, z, strlen(z));
}

/* Into the room kept for it. */
static void
put_tail(struct out *o, const char *z)
{
    size_t n = strlen(z);
    memcpy(o->p + o->len, z, n);
    o->len += n;
}

/* The C1 controls too: some terminals obey them. */
static bool
is_control(const unsigned char *p, size_t len)
{
    return p[0] < 0x20 || p[0] == 0x7f || (len == 2 && p[0] == 0xc2 && p[1] < 0xa0);
}

/* One character of s at `at`, escaped; returns how many bytes of s it was. */
static size_t
put_char(struct out *o, enum log_format format, struct str s, size_t at, bool quoted)
{
    const unsigned char *p = (const unsigned char *)s.p + at;
    size_t n = str_utf8_len(str_n(s.p + at, s.len - at));
    char esc[24];
    if (n == 0 && format == LOG_JSON) {
        put_z(o, "\\ufffd");
        return 1;
    }
    if (n == 0 || is_control(p, n)) {
        n = n == 0 ? 1 : n;
        int len = format == LOG_JSON ? snprintf(esc, sizeof(esc), "\\u00%02x", p[n - 1])
                                     : snprintf(esc, sizeof(esc), "\\x%02x", p[n - 1]);
        put(o, esc, (size_t)len);
        return n;
    }
    if (quoted && (*p == '"' || *p == '\\')) {
        esc[0] = '\\';
        esc[1] = (char)*p;
        put(o, esc, 2);
        return 1;
    }
    put(o, s.p + at, n);
    return n;
}

/* As much of s as fits, then "..." when that is not all of it. */
static void
put_text(struct out *o, enum log_format format, struct str s, bool quoted)
{
    for (size_t i = 0; i < s.len && !o->cut;)
        i += put_char(o, format, s, i, quoted);
    if (o->cut)
        put_tail(o, "...");
}

/* In quotes; an opened quote is always closed. */
static void
put_quoted(struct out *o, enum log_format format, struct str s)
{
    if (!put(o, "\"", 1))
        return;
    put_text(o, format, s, true);
    if (o->cut || !put(o, "\"", 1))
        put_tail(o, "\"");
}

static bool
needs_quotes(struct str s)
{
    for (size_t i = 0; i < s.len; i++) {
        unsigned char c = (unsigned char)s.p[i];
        if (c <= ' ' || c >= 0x7f || c == '"' || c == '=' || c == '\\')
            return true;
    }
    return s.len == 0;
}

/* A key and what stands between it and the value, or nothing when not even a cut value would fit.
 */
static bool
put_key(struct out *o, enum log_format format, const char *key)
{
    size_t need = strlen(key) + 6;
    if (o->cut || o->cap - o->len < need) {
        o->cut = true;
        return false;
    }
    put_z(o, format == LOG_JSON ? ",\"" : " ");
    put_z(o, key);
    put_z(o, format == LOG_JSON ? "\":" : "=");
    return true;
}

static void
put_field(struct out *o, enum log_format format, const struct log_field *f)
{
    size_t before = o->len;
    if (!put_key(o, format, f->key))
        return;
    switch (f->kind) {
    case LOG_NUM: {
        char number[24];
        int n = snprintf(number, sizeof(number), "%" PRId64, f->n);
        if (!put(o, number, (size_t)n))
            o->len = before; /* half a number would be another number */
        break;
    }
    case LOG_STR:
        if (format == LOG_JSON || needs_quotes(f->s))
            put_quoted(o, format, f->s);
        else
            put_text(o, format, f->s, false);
        break;
    }
}

size_t
logfmt_message(char *out, size_t cap, enum log_format format, struct str message)
{
    CHECK(cap >= 4 * TAIL_MAX);
    struct out o = {.p = out, .cap = cap - TAIL_MAX};
    if (format == LOG_JSON) {
        put_z(&o, ",\"msg\":");
        put_quoted(&o, format, message);
        put_tail(&o, "}");
    } else {
        put_text(&o, format, message, false);
    }
    put_tail(&o, "\n");
    return o.len;
}

size_t
logfmt_fields(char *out, size_t cap, enum log_format format, const char *event,
    const struct log_field *f, size_t count)
{
    CHECK(cap >= 4 * TAIL_MAX);
    struct out o = {.p = out, .cap = cap - TAIL_MAX};
    if (format == LOG_JSON) {
        put_z(&o, ",\"event\":");
        put_quoted(&o, format, str_of(event));
    } else {
        put_text(&o, format, str_of(event), false);
    }
    for (size_t i = 0; i < count; i++)
        put_field(&o, format, &f[i]);
    put_tail(&o, format == LOG_JSON ? "}\n" : "\n");
    return o.len;
}

size_t
logfmt_prefix(char out[LOGFMT_PREFIX_MAX], enum log_format format, bool journald,
    enum log_level level, int64_t wall_us)
{
    static const struct {
        const char *name;
        int priority; /* syslog(3) */
    } levels[] = {[LOG_ERROR] = {"error", 3},
        [LOG_WARN] = {"warn", 4},
        [LOG_INFO] = {"info", 6},
        [LOG_DEBUG] = {"debug", 7}};
    char priority[8] = "", stamp[32] = "";
    if (journald)
        snprintf(priority, sizeof(priority), "<%d>", levels[level].priority);
    if (!journald || format == LOG_JSON) {
        time_t seconds = (time_t)(wall_us / 1000000);
        struct tm tm;
        gmtime_r(&seconds, &tm);
        size_t n = strftime(stamp, sizeof(stamp), "%Y-%m-%dT%H:%M:%S", &tm);
        snprintf(stamp + n, sizeof(stamp) - n, ".%03dZ", (int)(wall_us / 1000 % 1000));
    }
    const char *name = levels[level].name, *gap = stamp[0] != '\0' ? " " : "";
    int n = 0;
    if (format == LOG_JSON)
        n = snprintf(
            out, LOGFMT_PREFIX_MAX, "%s{\"time\":\"%s\",\"level\":\"%s\"", priority, stamp, name);
    else
        n = snprintf(out, LOGFMT_PREFIX_MAX, "%s%s%s%s ", priority, stamp, gap, name);
    CHECK(n > 0 && n < LOGFMT_PREFIX_MAX);
    return (size_t)n;
}
