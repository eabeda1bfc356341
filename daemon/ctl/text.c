#include "ctl/text.h"

#include <math.h>
#include <time.h>
#include <wchar.h>

struct range {
    uint32_t from, to;
};

/* The code point of a sequence that str_utf8_len() found well-formed. */
static uint32_t
decode(const char *p, size_t len)
{
    static const uint8_t lead_bits[] = {0, 0x7f, 0x1f, 0x0f, 0x07};
    uint32_t cp = (uint8_t)p[0] & lead_bits[len];
    for (size_t i = 1; i < len; i++)
        cp = cp << 6 | ((uint8_t)p[i] & 0x3fu);
    return cp;
}

static bool
in_ranges(uint32_t cp, const struct range *r, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (cp >= r[i].from && cp <= r[i].to)
            return true;
    return false;
}

/* Controls, and what shows text in another order than it is, or not at all. */
static bool
is_harmful(uint32_t cp)
{
    static const struct range ranges[] = {{0, 0x1f}, {0x7f, 0x9f}, {0xad, 0xad}, {0x61c, 0x61c},
        {0x180e, 0x180e}, {0x200b, 0x200f}, {0x2028, 0x202e}, {0x2060, 0x206f}, {0xfeff, 0xfeff},
        {0xfff9, 0xfffb}, {0xe0000, 0xe0fff}};
    return in_ranges(cp, ranges, COUNT_OF(ranges));
}

void
text_clean(struct buf *out, struct str s)
{
    while (s.len > 0) {
        size_t n = str_utf8_len(s);
        uint32_t cp = n == 0 ? (uint8_t)s.p[0] : decode(s.p, n);
        if (n > 0 && !is_harmful(cp))
            buf_add(out, s.p, n);
        else if (n == 0 || cp < 0x80)
            buf_addf(out, "\\x%02x", (unsigned)cp);
        else
            buf_addf(out, "\\u%04x", (unsigned)cp);
        n = size_max(n, 1);
        s = str_n(s.p + n, s.len - n);
    }
}

void
text_clean_json(struct buf *out, struct str json)
{
    while (json.len > 0) {
        size_t n = size_max(str_utf8_len(json), 1);
        uint32_t cp = n <= 4 ? decode(json.p, n) : 0;
        if (cp >= 0x7f && is_harmful(cp) && cp <= 0xffff)
            buf_addf(out, "\\u%04x", (unsigned)cp);
        else
            buf_add(out, json.p, n);
        json = str_n(json.p + n, json.len - n);
    }
}

/* Columns of the first character, *n its bytes. */
static size_t
char_width(struct str s, size_t *n)
{
    *n = str_utf8_len(s);
    if (*n == 0) {
        *n = 1;
        return 1;
    }
    int w = wcwidth((wchar_t)decode(s.p, *n));
    return w < 0 ? 1 : (size_t)w;
}

size_t
text_width(struct str clean)
{
    size_t width = 0, n = 0;
    for (; clean.len > 0; clean = str_n(clean.p + n, clean.len - n))
        width += char_width(clean, &n);
    return width;
}

void
text_clip(struct buf *out, struct str clean, size_t columns)
{
    size_t at = 0, n = 0;
    while (at < clean.len) {
        size_t w = char_width(str_n(clean.p + at, clean.len - at), &n);
        if (w > columns)
            break;
        columns -= w;
        at += n;
    }
    buf_add(out, clean.p, at);
}

/* Three or four digits: one behind the point where there is room for it. */
static void
put(char out[TEXT_FIGURE_MAX], double n, const char *unit)
{
    const char *space = unit[0] == '\0' ? "" : " ";
    if (n < 0 || n >= 1e9)
        snprintf(out, TEXT_FIGURE_MAX, "%.3g%s%s", n, space, unit);
    else
        snprintf(out, TEXT_FIGURE_MAX, "%.*f%s%s", n < 99.95 ? 1 : 0, n, space, unit);
}

/* Whole units while they are few, then in steps of `step`. */
static void
put_scaled(char out[TEXT_FIGURE_MAX], double n, double step, const char *const *units, size_t count)
{
    size_t i = 0;
    if (n >= 0 && n < step && n == floor(n)) {
        snprintf(out, TEXT_FIGURE_MAX, "%.0f%s%s", n, units[0][0] == '\0' ? "" : " ", units[0]);
        return;
    }
    /* 0.9995: what would be rounded up to a whole step is written in the next unit */
    for (; i + 1 < count && n >= step * 0.9995; i++)
        n /= step;
    put(out, n, units[i]);
}

void
text_size(double bytes, char out[TEXT_FIGURE_MAX])
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    put_scaled(out, bytes, 1024, units, COUNT_OF(units));
}

void
text_count(double n, char out[TEXT_FIGURE_MAX])
{
    static const char *const units[] = {"", "k", "M", "G", "T"};
    put_scaled(out, n, 1000, units, COUNT_OF(units));
}

void
text_duration(double ms, char out[TEXT_FIGURE_MAX])
{
    if (ms < 0 || ms > 1e15) {
        put(out, ms / 1000, "s");
        return;
    }
    int64_t s = (int64_t)((ms + 500) / 1000);
    if (ms < 0.9995)
        snprintf(out, TEXT_FIGURE_MAX, "%.0f us", ms * 1000);
    else if (ms < 999.5)
        put(out, ms, "ms");
    else if (ms < 59950)
        put(out, ms / 1000, "s");
    else if (s < 3600)
        snprintf(out, TEXT_FIGURE_MAX, "%" PRId64 "m %02" PRId64 "s", s / 60, s % 60);
    else if (s < 86400)
        snprintf(out, TEXT_FIGURE_MAX, "%" PRId64 "h %02" PRId64 "m", s / 3600, s / 60 % 60);
    else
        snprintf(out, TEXT_FIGURE_MAX, "%" PRId64 "d %02" PRId64 "h", s / 86400, s / 3600 % 24);
}

void
text_time(double ms, char out[TEXT_FIGURE_MAX])
{
    struct tm tm;
    time_t t = ms >= 0 && ms < 1e14 ? (time_t)(ms / 1000) : 0;
    if (gmtime_r(&t, &tm) == NULL || strftime(out, TEXT_FIGURE_MAX, "%Y-%m-%d %H:%M:%SZ", &tm) == 0)
        snprintf(out, TEXT_FIGURE_MAX, "?");
}
