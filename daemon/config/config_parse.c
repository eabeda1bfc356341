#include "config/config_parse.h"

#include <arpa/inet.h>
#include <sys/un.h>

#include "config/config_value.h"

struct unit {
    const char *name;
    int64_t factor;
};

/* Largest first: formatting takes the first one that divides. */
static const struct unit duration_units[] = {
    {"d", INT64_C(86400000000)},
    {"h", INT64_C(3600000000)},
    {"m", INT64_C(60000000)},
    {"s", INT64_C(1000000)},
    {"ms", INT64_C(1000)},
    {"us", INT64_C(1)},
};
static const struct unit size_units[] = {
    {"t", INT64_C(1) << 40},
    {"g", INT64_C(1) << 30},
    {"m", INT64_C(1) << 20},
    {"k", INT64_C(1) << 10},
    {"b", INT64_C(1)},
};

/* Only sizes ignore case: 64K is what people write, while 5M could be meant as minutes or months.
 */
static enum config_unit
read_with_unit(struct str text, const struct unit *unit, size_t unit_count, bool nocase,
    uint64_t max, uint64_t *out)
{
    size_t digits = 0;
    while (digits < text.len && text.p[digits] >= '0' && text.p[digits] <= '9')
        digits++;
    if (digits == 0)
        return CONFIG_UNIT_NO_NUMBER;
    uint64_t n = 0;
    bool fits = str_to_u64(str_n(text.p, digits), max, &n);
    struct str name = str_n(text.p + digits, text.len - digits);
    if (name.len == 0) {
        if (!fits || n != 0)
            return CONFIG_UNIT_MISSING;
        *out = 0;
        return CONFIG_UNIT_OK;
    }
    for (size_t i = 0; i < unit_count; i++) {
        struct str want = str_of(unit[i].name);
        if (!(nocase ? str_eq_nocase(name, want) : str_eq(name, want)))
            continue;
        uint64_t factor = (uint64_t)unit[i].factor;
        if (!fits || n > max / factor)
            return CONFIG_UNIT_TOO_LARGE;
        *out = n * factor;
        return CONFIG_UNIT_OK;
    }
    return CONFIG_UNIT_UNKNOWN;
}

enum config_unit
config_read_duration(struct str text, int64_t *us)
{
    uint64_t v = 0;
    enum config_unit r =
        read_with_unit(text, duration_units, COUNT_OF(duration_units), false, INT64_MAX, &v);
    if (r == CONFIG_UNIT_OK)
        *us = (int64_t)v;
    return r;
}

enum config_unit
config_read_size(struct str text, size_t *bytes)
{
    uint64_t v = 0;
    enum config_unit r = read_with_unit(text, size_units, COUNT_OF(size_units), true,
        SIZE_MAX < INT64_MAX ? SIZE_MAX : INT64_MAX, &v);
    if (r == CONFIG_UNIT_OK)
        *bytes = (size_t)v;
    return r;
}

bool
config_parse_duration(struct str text, int64_t *us)
{
    return config_read_duration(text, us) == CONFIG_UNIT_OK;
}

bool
config_parse_size(struct str text, size_t *bytes)
{
    return config_read_size(text, bytes) == CONFIG_UNIT_OK;
}

void
config_format_duration(int64_t us, char out[32])
{
    if (us == 0) { /* every unit divides it; seconds read best */
        snprintf(out, 32, "0s");
        return;
    }
    const struct unit *u = duration_units;
    while (us % u->factor != 0)
        u++; /* ends: the last factor is 1 */
    snprintf(out, 32, "%" PRId64 "%s", us / u->factor, u->name);
}

void
config_format_size(size_t bytes, char out[32])
{
    if (bytes == 0) {
        snprintf(out, 32, "0");
        return;
    }
    const struct unit *u = size_units;
    while (bytes % (size_t)u->factor != 0)
        u++;
    snprintf(out, 32, "%zu%s", bytes / (size_t)u->factor, u->name);
}

bool
config_parse_mode(struct str text, unsigned *mode)
{
    unsigned v = 0;
    if (text.len < 3 || text.len > 5)
        return false;
    for (size_t i = 0; i < text.len; i++) {
        if (text.p[i] < '0' || text.p[i] > '7')
            return false;
        v = v * 8 + (unsigned)(text.p[i] - '0');
    }
    if (v > 0777)
        return false;
    *mode = v;
    return true;
}

static bool PRINTF_LIKE(3, 4) refuse(char *why, size_t why_len, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(why, why_len, fmt, ap);
    va_end(ap);
    return false;
}

/* Takes "HOST", or "[V6]" without its brackets, off the front of *rest. No bytes are left out of
 * host + rest but the brackets. */
static bool
split_host(struct str *rest, struct str *host, bool *bracketed)
{
    *bracketed = rest->len > 0 && rest->p[0] == '[';
    ssize_t end = *bracketed ? str_find(*rest, ']') : str_find(*rest, ':');
    if (*bracketed && end < 0)
        return false;
    size_t len = end < 0 ? rest->len : (size_t)end;
    size_t skip = *bracketed ? 1 : 0;
    *host = str_n(rest->p + skip, len - skip);
    *rest = str_n(rest->p + len + skip, rest->len - len - skip);
    return true;
}

static bool
is_ip(int family, struct str host, unsigned char bytes[16])
{
    char z[INET6_ADDRSTRLEN];
    if (host.len == 0 || host.len >= sizeof(z) || memchr(host.p, '\0', host.len) != NULL)
        return false;
    memcpy(z, host.p, host.len);
    z[host.len] = '\0';
    return inet_pton(family, z, bytes) == 1;
}

/* What is a host name is for the resolver to say; this keeps out what can only be a slip. */
static bool
is_host_name(struct str host)
{
    for (size_t i = 0; i < host.len; i++) {
        char c = ascii_lower(host.p[i]);
        if (!(c >= 'a' && c <= 'z') && !(c >= '0' && c <= '9') && c != '-' && c != '.' && c != '_')
            return false;
    }
    return host.len > 0 && host.len <= 253 && host.p[0] != '.' && host.p[0] != '-';
}

/* The URL for a message: whatever stands before an '@' may be a password. The last '@' counts, and
 * one behind the host too: where userinfo ends is exactly what a broken URL leaves open. */
static const char *
masked(struct str url, char out[CONFIG_QUOTE_MAX])
{
    ssize_t colon = str_find(url, ':');
    size_t from = 0;
    if (colon >= 0 && url.len - (size_t)colon >= 3 && memcmp(url.p + colon, "://", 3) == 0)
        from = (size_t)colon + 3;
    size_t at = url.len;
    while (at > from && url.p[at - 1] != '@')
        at--;
    /* A query may carry user= and password= too; it is refused anyway, so it is not shown. */
    ssize_t query = str_find(url, '?');
    bool has_query = query >= 0 && (size_t)query >= at;
    if (has_query)
        url.len = (size_t)query;
    char text[2 * CONFIG_QUOTE_MAX + 16];
    struct str scheme = str_n(url.p, at == from ? 0 : size_min(from, CONFIG_QUOTE_MAX));
    struct str rest = at == from ? url : str_n(url.p + at, url.len - at);
    rest.len = size_min(rest.len, CONFIG_QUOTE_MAX);
    int len = snprintf(text, sizeof(text), STR_FMT "%s" STR_FMT "%s", STR_ARG(scheme),
        at == from ? "" : "***@", STR_ARG(rest), has_query ? "?***" : "");
    return config_quote(str_n(text, size_min((size_t)len, sizeof(text) - 1)), out);
}

/* ":PORT" or nothing. */
static bool
read_port(struct str rest, uint16_t fallback, uint16_t *port)
{
    uint64_t v = fallback;
    if (rest.len > 0 &&
        (rest.p[0] != ':' || !str_to_u64(str_n(rest.p + 1, rest.len - 1), UINT16_MAX, &v)))
        return false;
    *port = (uint16_t)v;
    return true;
}

/* The part behind "://" up to where a path, query or fragment may begin. */
static bool
read_authority(struct str rest, struct config_url *out, char *why, size_t why_len, const char *q)
{
    struct str host;
    bool bracketed;
    unsigned char ip[16];
    if (!split_host(&rest, &host, &bracketed))
        return refuse(why, why_len, "%s has a [ without a ]", q);
    if (host.len == 0)
        return refuse(why, why_len, "%s has no host; write http://HOST:PORT", q);
    if (bracketed && !is_ip(AF_INET6, host, ip))
        return refuse(why, why_len, "%s: what stands in [] is not an IPv6 address", q);
    if (!bracketed && str_find(rest, ':') >= 0 &&
        is_ip(AF_INET6, str_n(host.p, host.len + rest.len), ip))
        return refuse(why, why_len, "%s: an IPv6 address stands in brackets: http://[::1]:8123", q);
    if (!bracketed && !is_host_name(host))
        return refuse(why, why_len, "%s: the host is not a name or an address", q);
    if (!read_port(rest, out->tls ? 8443 : 8123, &out->port) || out->port == 0)
        return refuse(why, why_len, "%s: the port is not a number from 1 to 65535", q);
    memcpy(out->host, host.p, host.len);
    out->host[host.len] = '\0';
    return true;
}

bool
config_parse_url(struct str text, struct config_url *out, char *why, size_t why_len)
{
    char q[CONFIG_QUOTE_MAX];
    struct config_url url = {0};
    masked(text, q);
    if (str_starts_nocase(text, STR("https://")))
        url.tls = true;
    else if (!str_starts_nocase(text, STR("http://")))
        return refuse(why, why_len, "%s must begin with http:// or https://", q);
    size_t skip = url.tls ? 8 : 7;
    struct str rest = str_n(text.p + skip, text.len - skip);
    size_t end = 0;
    while (end < rest.len && strchr("/?#", rest.p[end]) == NULL)
        end++;
    struct str tail = str_n(rest.p + end, rest.len - end);
    rest.len = end;
    if (str_find(rest, '@') >= 0)
        return refuse(why, why_len,
            "%s holds a user name or password; leave it out, clients send their own", q);
    if (tail.len > 0 && !str_eq(tail, STR("/")))
        return refuse(
            why, why_len, "%s goes on after the port; leave path, query and fragment out", q);
    if (!read_authority(rest, &url, why, why_len, q))
        return false;
    *out = url;
    return true;
}

static bool
parse_unix(struct str path, struct config_address *out, char *why, size_t why_len)
{
    struct sockaddr_un un;
    if (path.len < 2 || (path.p[0] != '/' && path.p[0] != '@'))
        return refuse(why, why_len, "a unix socket is unix:/path or unix:@name");
    if (path.len >= sizeof(un.sun_path))
        return refuse(why, why_len, "the path of a unix socket has at most %zu bytes, not %zu",
            sizeof(un.sun_path) - 1, path.len);
    *out = (struct config_address){.is_unix = true, .is_loopback = true};
    return true;
}

static bool
is_loopback6(const unsigned char ip[16])
{
    static const unsigned char one[16] = {[15] = 1};
    static const unsigned char mapped[12] = {[10] = 0xff, [11] = 0xff};
    return memcmp(ip, one, 16) == 0 || (memcmp(ip, mapped, 12) == 0 && ip[12] == 127);
}

bool
config_parse_address(struct str text, struct config_address *out, char *why, size_t why_len)
{
    char q[CONFIG_QUOTE_MAX];
    if (str_starts_nocase(text, STR("unix:")))
        return parse_unix(str_n(text.p + 5, text.len - 5), out, why, why_len);
    config_quote(text, q);
    struct config_address a = {0};
    struct str host, rest = text;
    bool bracketed;
    unsigned char ip[16] = {0};
    if (!split_host(&rest, &host, &bracketed))
        return refuse(why, why_len, "%s has a [ without a ]", q);
    if (!bracketed && is_ip(AF_INET6, text, ip))
        return refuse(why, why_len, "%s: an IPv6 address stands in brackets: [::1]:8123", q);
    if (rest.len == 0)
        return refuse(
            why, why_len, "%s has no port; write %s:8123", q, bracketed ? "[V6]" : "127.0.0.1");
    if (bracketed) {
        if (!is_ip(AF_INET6, host, ip))
            return refuse(why, why_len, "%s: what stands in [] is not an IPv6 address", q);
        a.is_loopback = is_loopback6(ip);
    } else if (is_ip(AF_INET, host, ip)) {
        a.is_loopback = ip[0] == 127;
    } else if (!str_eq(host, STR("*"))) {
        return refuse(why, why_len,
            "%s: a listener needs an IP address, not a name; write 127.0.0.1:8123, [::1]:8123, "
            "unix:/path or unix:@name",
            q);
    }
    if (!read_port(rest, 0, &a.port) || rest.len < 2)
        return refuse(why, why_len, "%s: the port is not a number from 0 to 65535", q);
    *out = a;
    return true;
}
