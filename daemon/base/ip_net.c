#include "base/ip_net.h"

#include <arpa/inet.h>

#define MAPPED_BITS 96 /* ::ffff:0:0/96 holds the IPv4 addresses */

static bool
parse_ip(struct str text, bool *v6, uint8_t ip[16])
{
    char host[INET6_ADDRSTRLEN];
    if (text.len >= sizeof(host) || (text.len > 0 && memchr(text.p, '\0', text.len) != NULL))
        return false;
    if (text.len > 0)
        memcpy(host, text.p, text.len);
    host[text.len] = '\0';
    *v6 = str_find(text, ':') >= 0;
    return inet_pton(*v6 ? AF_INET6 : AF_INET, host, ip) == 1;
}

bool
ip_net_parse(struct str text, struct ip_net *out, const char **why)
{
    static const uint8_t mapped[MAPPED_BITS / 8] = {[10] = 0xff, [11] = 0xff};
    struct ip_net net = {0};
    uint8_t ip[16] = {0};
    ssize_t slash = str_find(text, '/');
    size_t ip_len = slash < 0 ? text.len : (size_t)slash;
    *why = "is not an IPv4 or IPv6 network; write 10.0.0.0/8, 2001:db8::/32 or one address";
    if (!parse_ip(str_n(text.p, ip_len), &net.v6, ip))
        return false;
    uint64_t bits = net.v6 ? 128 : 32;
    *why = "has a prefix that is not a number from 0 to 32 (IPv4) or 128 (IPv6)";
    if (slash >= 0 && !str_to_u64(str_n(text.p + ip_len + 1, text.len - ip_len - 1), bits, &bits))
        return false;
    if (net.v6 && bits >= MAPPED_BITS && memcmp(ip, mapped, sizeof(mapped)) == 0) {
        net.v6 = false;
        bits -= MAPPED_BITS;
        memmove(ip, ip + sizeof(mapped), 4);
        memset(ip + 4, 0, 12);
    }
    net.bits = (uint8_t)bits;
    for (size_t i = 0; i * 8 < bits; i++) {
        size_t left = (size_t)bits - i * 8;
        net.ip[i] = (uint8_t)(left >= 8 ? ip[i] : ip[i] & (0xff00u >> left));
    }
    *why = "has bits set behind its prefix; write the network's first address";
    if (memcmp(net.ip, ip, sizeof(ip)) != 0)
        return false;
    *out = net;
    return true;
}

bool
ip_net_has(const struct ip_net *net, bool v6, const uint8_t *ip)
{
    size_t whole = net->bits / 8;
    unsigned rest = net->bits % 8;
    if (v6 != net->v6 || memcmp(ip, net->ip, whole) != 0)
        return false;
    return rest == 0 || (ip[whole] ^ net->ip[whole]) >> (8 - rest) == 0;
}
