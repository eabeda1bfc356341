#include "http/http.h"

#define TRACE_ID_LEN 32
#define SPAN_ID_LEN  16
#define LEN_00       55 /* of a traceparent of version 00: 00-trace-span-flags */

/* n lower-case hexadecimal digits at the front of s. */
static bool
is_hex(struct str s, size_t n)
{
    if (s.len < n)
        return false;
    for (size_t i = 0; i < n; i++)
        if (!((s.p[i] >= '0' && s.p[i] <= '9') || (s.p[i] >= 'a' && s.p[i] <= 'f')))
            return false;
    return true;
}

static bool
is_zero(struct str s)
{
    for (size_t i = 0; i < s.len; i++)
        if (s.p[i] != '0')
            return false;
    return true;
}

bool
http_traceparent(struct str value, struct http_trace *out)
{
    static const size_t dashes[] = {2, 35, 52};
    if (value.len < LEN_00 || !is_hex(value, 2) || memcmp(value.p, "ff", 2) == 0)
        return false;
    for (size_t i = 0; i < COUNT_OF(dashes); i++)
        if (value.p[dashes[i]] != '-')
            return false;
    /* Later versions may say more behind, after another dash. */
    bool version_0 = memcmp(value.p, "00", 2) == 0;
    if (value.len > LEN_00 && (version_0 || value.p[LEN_00] != '-'))
        return false;
    struct str trace = str_n(value.p + 3, TRACE_ID_LEN), span = str_n(value.p + 36, SPAN_ID_LEN);
    if (!is_hex(trace, trace.len) || !is_hex(span, span.len) || is_zero(trace) || is_zero(span) ||
        !is_hex(str_n(value.p + 53, 2), 2))
        return false;
    *out = (struct http_trace){.trace_id = trace, .span_id = span};
    return true;
}

bool
http_trace_find(struct str head, struct http_trace *out)
{
    const struct str name = STR("traceparent:");
    struct str value = STR_NULL;
    size_t found = 0;
    for (const char *nl; (nl = memchr(head.p, '\n', head.len)) != NULL;) {
        head.len -= (size_t)(nl + 1 - head.p); /* the request line is no field */
        head.p = nl + 1;
        if (!str_starts_nocase(head, name))
            continue;
        const char *end = memchr(head.p, '\n', head.len);
        value = str_n(head.p + name.len,
            (size_t)((end == NULL ? head.p + head.len : end) - head.p) - name.len);
        found++;
    }
    if (value.len > 0 && value.p[value.len - 1] == '\r')
        value.len--;
    return found == 1 && http_traceparent(str_trim(value), out); /* of two, neither is right */
}
