#include "net/addr.h"

#include <arpa/inet.h>
#include <net/if.h>

#include "base/no_block.h"

/* A path and its terminator; an abstract name and the zero before it. */
#define UNIX_NAME_MAX (sizeof(((struct sockaddr_un *)NULL)->sun_path) - 1)

static bool
parse_unix(struct str name, struct addr *out, const char **why)
{
    bool abstract = name.len > 0 && name.p[0] == '@';
    if (abstract) {
        name.p++;
        name.len--;
    } else if (name.len == 0 || name.p[0] != '/') {
        *why = "behind unix: must come an absolute path, or @ and a name";
        return false;
    }
    if (name.len == 0) {
        *why = "the abstract name behind unix:@ is empty";
        return false;
    }
    if (name.len > UNIX_NAME_MAX) {
        *why = abstract ? "the abstract name is longer than 107 bytes"
                        : "the socket path is longer than 107 bytes";
        return false;
    }
    if (memchr(name.p, '\0', name.len) != NULL) {
        *why = "the name holds a zero byte";
        return false;
    }
    memset(out, 0, sizeof(*out));
    out->un.sun_family = AF_UNIX;
    /* A path's length counts its terminator, an abstract name's the zero it begins with. */
    memcpy(out->un.sun_path + (abstract ? 1 : 0), name.p, name.len);
    out->len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + name.len + 1);
    return true;
}

static void
set_in4(struct addr *out, struct in_addr ip, uint16_t port)
{
    memset(out, 0, sizeof(*out));
    out->len = sizeof(out->in4);
    out->in4.sin_family = AF_INET;
    out->in4.sin_addr = ip;
    out->in4.sin_port = htons(port);
}

/* "eth0" or "2"; 0: there is no such interface. */
static uint32_t
scope_of(const char *text)
{
    uint64_t index;
    uint32_t by_name = if_nametoindex(text);
    if (by_name == 0 && str_to_u64(str_of(text), UINT32_MAX, &index))
        return (uint32_t)index;
    return by_name;
}

bool
addr_from_ip(const char *host, uint16_t port, struct addr *out)
{
    struct in_addr ip4;
    struct in6_addr ip6;
    if (inet_pton(AF_INET, host, &ip4) == 1) {
        set_in4(out, ip4, port);
        return true;
    }
    char text[INET6_ADDRSTRLEN + 1 + IF_NAMESIZE];
    size_t len = strlen(host);
    if (len >= sizeof(text))
        return false;
    memcpy(text, host, len + 1);
    char *percent = strchr(text, '%');
    uint32_t scope = 0;
    if (percent != NULL) {
        *percent = '\0';
        scope = scope_of(percent + 1);
        if (scope == 0)
            return false;
    }
    if (inet_pton(AF_INET6, text, &ip6) != 1)
        return false;
    memset(out, 0, sizeof(*out));
    out->len = sizeof(out->in6);
    out->in6.sin6_family = AF_INET6;
    out->in6.sin6_addr = ip6;
    out->in6.sin6_port = htons(port);
    out->in6.sin6_scope_id = scope;
    return true;
}

static bool
parse_port(struct str text, uint16_t *port, const char **why)
{
    uint64_t n;
    if (!str_to_u64(text, UINT16_MAX, &n)) {
        *why = "the port must be a number from 0 to 65535";
        return false;
    }
    *port = (uint16_t)n;
    return true;
}

bool
addr_parse(struct str text, struct addr *out, const char **why)
{
    const struct str unix_scheme = STR("unix:");
    char host[INET6_ADDRSTRLEN + 1 + IF_NAMESIZE];
    uint16_t port;

    if (text.len >= unix_scheme.len && memcmp(text.p, unix_scheme.p, unix_scheme.len) == 0)
        return parse_unix(str_n(text.p + unix_scheme.len, text.len - unix_scheme.len), out, why);

    bool bracket = text.len > 0 && text.p[0] == '[';
    const char *colon = text.len == 0 ? NULL : memrchr(text.p, ':', text.len);
    if (colon == NULL) {
        *why = "the port is missing: write ADDRESS:PORT";
        return false;
    }
    size_t colon_at = (size_t)(colon - text.p);
    struct str ip = str_n(text.p, colon_at);
    if (!bracket && memchr(ip.p, ':', ip.len) != NULL) {
        *why = "an IPv6 address needs brackets: write [ADDRESS]:PORT";
        return false;
    }
    if (bracket) {
        if (colon_at < 2 || text.p[colon_at - 1] != ']') {
            *why = "the address is not [ADDRESS]:PORT";
            return false;
        }
        ip = str_n(text.p + 1, colon_at - 2);
    }
    if (!parse_port(str_n(colon + 1, text.len - colon_at - 1), &port, why))
        return false;
    if (!bracket && str_eq(ip, STR("*")))
        ip = STR("0.0.0.0");
    bool ok = ip.len < sizeof(host) && (ip.len == 0 || memchr(ip.p, '\0', ip.len) == NULL);
    if (ok) {
        memcpy(host, ip.p, ip.len);
        host[ip.len] = '\0';
        ok = addr_from_ip(host, port, out) && (out->sa.sa_family == AF_INET6) == bracket;
    }
    if (!ok)
        *why = bracket ? "the text in brackets is no IPv6 address, or its %interface is unknown"
                       : "the host must be a numeric address, or * for all of IPv4";
    return ok;
}

static void
format_unix(const struct addr *a, char out[ADDR_TEXT_MAX])
{
    const char *path = a->un.sun_path;
    size_t head = offsetof(struct sockaddr_un, sun_path);
    size_t len = a->len > head ? a->len - head : 0;
    if (len > 1 && path[0] == '\0') {
        snprintf(out, ADDR_TEXT_MAX, "unix:@%.*s", (int)(len - 1), path + 1);
        /* Other programs' abstract names may hold any byte. */
        for (char *p = out; *p != '\0'; p++)
            if ((unsigned char)*p < 0x20 || *p == 0x7f)
                *p = '?';
    } else {
        snprintf(out, ADDR_TEXT_MAX, "unix:%.*s", (int)strnlen(path, len), path);
    }
}

void
addr_format(const struct addr *a, char out[ADDR_TEXT_MAX])
{
    char ip[INET6_ADDRSTRLEN] = "?";
    switch (a->sa.sa_family) {
    case AF_INET:
        inet_ntop(AF_INET, &a->in4.sin_addr, ip, sizeof(ip));
        snprintf(out, ADDR_TEXT_MAX, "%s:%u", ip, addr_port(a));
        break;
    case AF_INET6:
        inet_ntop(AF_INET6, &a->in6.sin6_addr, ip, sizeof(ip));
        if (a->in6.sin6_scope_id != 0)
            snprintf(out, ADDR_TEXT_MAX, "[%s%%%u]:%u", ip, a->in6.sin6_scope_id, addr_port(a));
        else
            snprintf(out, ADDR_TEXT_MAX, "[%s]:%u", ip, addr_port(a));
        break;
    case AF_UNIX: format_unix(a, out); break;
    default: snprintf(out, ADDR_TEXT_MAX, "family %d", a->sa.sa_family); break;
    }
}

bool
addr_eq(const struct addr *a, const struct addr *b)
{
    if (a->sa.sa_family != b->sa.sa_family)
        return false;
    switch (a->sa.sa_family) {
    case AF_INET:
        return a->in4.sin_port == b->in4.sin_port &&
               a->in4.sin_addr.s_addr == b->in4.sin_addr.s_addr;
    case AF_INET6:
        return a->in6.sin6_port == b->in6.sin6_port &&
               a->in6.sin6_scope_id == b->in6.sin6_scope_id &&
               memcmp(&a->in6.sin6_addr, &b->in6.sin6_addr, sizeof(a->in6.sin6_addr)) == 0;
    case AF_UNIX: return a->len == b->len && memcmp(&a->un, &b->un, a->len) == 0;
    default: return false;
    }
}

bool
addr_is_loopback(const struct addr *a)
{
    const uint8_t *ip6 = a->in6.sin6_addr.s6_addr;
    switch (a->sa.sa_family) {
    case AF_INET: return ntohl(a->in4.sin_addr.s_addr) >> 24 == IN_LOOPBACKNET;
    case AF_INET6:
        return IN6_IS_ADDR_LOOPBACK(&a->in6.sin6_addr) ||
               (IN6_IS_ADDR_V4MAPPED(&a->in6.sin6_addr) && ip6[12] == IN_LOOPBACKNET);
    case AF_UNIX: return true;
    default: return false;
    }
}

uint16_t
addr_port(const struct addr *a)
{
    switch (a->sa.sa_family) {
    case AF_INET: return ntohs(a->in4.sin_port);
    case AF_INET6: return ntohs(a->in6.sin6_port);
    default: return 0;
    }
}

void
addr_set_port(struct addr *a, uint16_t port)
{
    switch (a->sa.sa_family) {
    case AF_INET: a->in4.sin_port = htons(port); break;
    case AF_INET6: a->in6.sin6_port = htons(port); break;
    default: break;
    }
}

bool
addr_in_net(const struct addr *a, const struct ip_net *net)
{
    const uint8_t *ip6 = a->in6.sin6_addr.s6_addr;
    switch (a->sa.sa_family) {
    case AF_INET: return ip_net_has(net, false, (const uint8_t *)&a->in4.sin_addr);
    case AF_INET6:
        if (IN6_IS_ADDR_V4MAPPED(&a->in6.sin6_addr))
            return ip_net_has(net, false, ip6 + 12);
        return ip_net_has(net, true, ip6);
    default: return false;
    }
}

bool
addr_is_own_host(struct str host)
{
    struct addr a;
    char text[80];
    const char *why;
    ssize_t colon = str_find(host, ':');
    bool v6 = host.len > 0 && host.p[0] == '[';
    struct str name = v6 || colon < 0 ? host : str_n(host.p, (size_t)colon);
    if (host.len == 0 || host.len >= sizeof text - 4 || host.p[0] == '*')
        return false;
    if (str_eq_nocase(name, STR("localhost")))
        return true;
    bool has_port = v6 ? host.p[host.len - 1] != ']' : colon >= 0;
    int n = snprintf(text, sizeof text, STR_FMT "%s", STR_ARG(host), has_port ? "" : ":80");
    return addr_parse(str_n(text, (size_t)n), &a, &why) && a.sa.sa_family != AF_UNIX;
}
