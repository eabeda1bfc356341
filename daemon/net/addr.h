#ifndef CHMUX_NET_ADDR_H
#define CHMUX_NET_ADDR_H
/*
 * addr: socket addresses as values: IPv4, IPv6, unix path, unix abstract.
 */
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/ip_net.h"

struct addr {
    socklen_t len;
    union {
        struct sockaddr sa;
        struct sockaddr_in in4;
        struct sockaddr_in6 in6;
        struct sockaddr_un un;
    };
};
#define ADDR_TEXT_MAX 128

/* "127.0.0.1:8123", "[::1]:8123", "localhost:8123" is NOT accepted (numeric only), "*:8123" is
 * 0.0.0.0, "unix:/path", "unix:@name". false: *why (static text) says what is wrong. */
MUST_USE bool addr_parse(struct str text, struct addr *out, const char **why);
/* From a numeric host and a port; false when host is not numeric. Scope ids are understood. */
MUST_USE bool addr_from_ip(const char *host, uint16_t port, struct addr *out);
/* As addr_parse reads it. Always terminated. */
void addr_format(const struct addr *a, char out[ADDR_TEXT_MAX]);
bool addr_eq(const struct addr *a, const struct addr *b);
bool addr_is_loopback(const struct addr *a); /* 127/8, ::1, ::ffff:127/8, and unix */
uint16_t addr_port(const struct addr *a);    /* 0 for unix */
void addr_set_port(struct addr *a, uint16_t port);
/* Is a Host field an IP address or localhost, with or without a port? Anything else is a name that
 * its owner can make point here. */
bool addr_is_own_host(struct str host);
/* An IPv4 address in IPv6 clothes (::ffff:10.1.2.3) counts as IPv4. Never for unix. */
bool addr_in_net(const struct addr *a, const struct ip_net *net);
#endif
