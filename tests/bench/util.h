#ifndef CHMUX_BENCH_UTIL_H
#define CHMUX_BENCH_UTIL_H
/*
 * util: what the bench programs share: clock, latency histogram, sockets, command line numbers,
 * the byte pattern that bulk bodies are filled with and checked against, and files in its place.
 *
 * Errors  These are tools for one run: whatever cannot work ends the process with a message.
 */
#include "base/base.h"

#include <netinet/in.h>

enum {
    PATTERN_PERIOD = 65521,      /* a prime, so a piece lost or doubled shows at once */
    PATTERN_BLOCK = 1024 * 1024, /* the most that pattern_at() promises from any offset */
};

/* Latency in microseconds, in 64 steps per power of two: under 1.6 % off, whatever the size. */
struct hist {
    uint64_t bins[32 * 64];
    uint64_t count;
    uint64_t max_us;
};

void hist_add(struct hist *h, int64_t us);
/* The value that a share of q (0 to 1) of what was added does not exceed; 0 when empty. */
uint64_t hist_quantile(const struct hist *h, double q);

void die(const char *fmt, ...) PRINTF_LIKE(1, 2) NO_RETURN;
int64_t now_ns(void); /* CLOCK_MONOTONIC */

/* "123", "64k", "512m", "1g"; dies on anything else. what names it in the message. */
uint64_t parse_size(const char *s, const char *what);
/* "A.B.C.D:PORT"; dies on anything else. */
struct sockaddr_in parse_addr(const char *s);

/* A listening non-blocking socket, TCP_NODELAY set for what it accepts. */
int listen_on(const struct sockaddr_in *addr);
/* The port a socket is bound to. */
uint16_t bound_port(int fd);
/* Starts a non-blocking connect; -1 with errno on failure. src may be NULL. */
MUST_USE int connect_start(const struct sockaddr_in *to, const struct sockaddr_in *src);
/* Lets this process open want descriptors, raising the hard limit when it may. */
void raise_nofile(uint64_t want);

/* Fills the table behind pattern_at(); call once. */
void pattern_init(void);
/* PATTERN_BLOCK readable bytes of the pattern from stream offset at. */
const unsigned char *pattern_at(uint64_t at);
/* True when the n bytes at p are the pattern from stream offset at. */
bool pattern_matches(const void *p, size_t n, uint64_t at);

/* A file in memory. As a stream it is repeated without end. */
struct bytes {
    unsigned char *p; /* owned */
    size_t len;
};
/* Dies when it cannot be read, or is empty. */
struct bytes bytes_of_file(const char *path);
void bytes_free(struct bytes *b);
/* From stream offset at: *n (> 0) readable bytes. */
const unsigned char *bytes_at(const struct bytes *b, uint64_t at, size_t *n);
/* True when the n bytes at p are those from stream offset at. */
bool bytes_match(const struct bytes *b, const void *p, size_t n, uint64_t at);
#endif
