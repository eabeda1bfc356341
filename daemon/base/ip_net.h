#ifndef CHMUX_BASE_IP_NET_H
#define CHMUX_BASE_IP_NET_H
/*
 * ip_net: a network, IPv4 or IPv6, as a value: all addresses that begin with its bits.
 */
#include "base/str.h"

struct ip_net {
    bool v6;
    uint8_t bits;
    uint8_t ip[16]; /* the first 4 for IPv4; zero behind `bits` */
};
/* "10.0.0.0/8", "2001:db8::/32", or one address without a "/". A network of mapped addresses
 * (::ffff:10.0.0.0/104) is the IPv4 one. false: *why (static text) says what is wrong, such as bits
 * set behind the prefix: who wrote them may have meant something else. */
MUST_USE bool ip_net_parse(struct str text, struct ip_net *out, const char **why);
/* ip: 16 bytes for v6, else 4. An IPv4 address is in no IPv6 network, not even in ::/0. */
bool ip_net_has(const struct ip_net *net, bool v6, const uint8_t *ip);
#endif
