#include "util.h"

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static unsigned char pattern[PATTERN_PERIOD + PATTERN_BLOCK];

void
die(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
    exit(1);
}

int64_t
now_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

void
hist_add(struct hist *h, int64_t us)
{
    uint64_t v = us < 0 ? 0 : (uint64_t)us;
    size_t bin = (size_t)v;
    if (v >= 64) {
        unsigned shift = 63u - (unsigned)__builtin_clzll(v) - 6u;
        bin = (size_t)(shift + 1) * 64 + (size_t)((v >> shift) - 64);
    }
    h->bins[size_min(bin, COUNT_OF(h->bins) - 1)]++;
    h->count++;
    if (v > h->max_us)
        h->max_us = v;
}

uint64_t
hist_quantile(const struct hist *h, double q)
{
    if (h->count == 0)
        return 0;
    uint64_t want = (uint64_t)(q * (double)h->count);
    uint64_t seen = 0;
    for (size_t bin = 0; bin < COUNT_OF(h->bins); bin++) {
        seen += h->bins[bin];
        if (seen <= want)
            continue;
        return bin < 64 ? bin : ((uint64_t)(bin % 64) + 64) << (bin / 64 - 1);
    }
    return h->max_us;
}

uint64_t
parse_size(const char *s, const char *what)
{
    char *end = NULL;
    errno = 0;
    unsigned long long v = strtoull(s, &end, 10);
    int shift = *end == 'k' ? 10 : *end == 'm' ? 20 : *end == 'g' ? 30 : 0;
    if (end == s || *s == '-' || errno != 0 || end[shift ? 1 : 0] != '\0' || v > UINT64_MAX >> 30)
        die("%s: not a number: %s", what, s);
    return (uint64_t)v << shift;
}

struct sockaddr_in
parse_addr(const char *s)
{
    struct sockaddr_in a = {.sin_family = AF_INET};
    char host[INET_ADDRSTRLEN];
    const char *colon = strrchr(s, ':');
    if (colon == NULL || (size_t)(colon - s) >= sizeof(host))
        die("not ADDRESS:PORT: %s", s);
    memcpy(host, s, (size_t)(colon - s));
    host[colon - s] = '\0';
    uint64_t port = parse_size(colon + 1, "port");
    if (inet_pton(AF_INET, host, &a.sin_addr) != 1 || port > UINT16_MAX)
        die("not ADDRESS:PORT: %s", s);
    a.sin_port = htons((uint16_t)port);
    return a;
}

static void
set_flag(int fd, int level, int name)
{
    int one = 1;
    if (setsockopt(fd, level, name, &one, sizeof(one)) != 0)
        die("setsockopt: %s", strerror(errno));
}

int
listen_on(const struct sockaddr_in *addr)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        die("socket: %s", strerror(errno));
    set_flag(fd, SOL_SOCKET, SO_REUSEADDR);
    set_flag(fd, IPPROTO_TCP, TCP_NODELAY); /* inherited by what it accepts */
    if (bind(fd, (const struct sockaddr *)addr, sizeof(*addr)) != 0 || listen(fd, 4096) != 0)
        die("listen: %s", strerror(errno));
    return fd;
}

uint16_t
bound_port(int fd)
{
    struct sockaddr_in a = {0};
    socklen_t len = sizeof(a);
    if (getsockname(fd, (struct sockaddr *)&a, &len) != 0)
        die("getsockname: %s", strerror(errno));
    return ntohs(a.sin_port);
}

int
connect_start(const struct sockaddr_in *to, const struct sockaddr_in *src)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    set_flag(fd, IPPROTO_TCP, TCP_NODELAY);
    if (src != NULL) {
        set_flag(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT);
        if (bind(fd, (const struct sockaddr *)src, sizeof(*src)) != 0)
            die("bind: %s", strerror(errno));
    }
    if (connect(fd, (const struct sockaddr *)to, sizeof(*to)) == 0 || errno == EINPROGRESS)
        return fd;
    int e = errno;
    close(fd);
    errno = e;
    return -1;
}

void
raise_nofile(uint64_t want)
{
    struct rlimit rl;
    if (getrlimit(RLIMIT_NOFILE, &rl) != 0)
        die("getrlimit: %s", strerror(errno));
    if (rl.rlim_cur >= want)
        return;
    rl.rlim_cur = want;
    if (rl.rlim_max < want)
        rl.rlim_max = want;
    if (setrlimit(RLIMIT_NOFILE, &rl) != 0)
        die("cannot open %" PRIu64 " descriptors: %s", want, strerror(errno));
}

void
pattern_init(void)
{
    uint32_t x = 2463534242u; /* xorshift: nothing compresses, no short period */
    for (size_t i = 0; i < PATTERN_PERIOD; i++) {
        x ^= x << 13;
        x ^= x >> 17;
        x ^= x << 5;
        pattern[i] = (unsigned char)(x >> 24);
    }
    for (size_t i = PATTERN_PERIOD; i < sizeof(pattern); i++)
        pattern[i] = pattern[i - PATTERN_PERIOD];
}

const unsigned char *
pattern_at(uint64_t at)
{
    return pattern + at % PATTERN_PERIOD;
}

bool
pattern_matches(const void *p, size_t n, uint64_t at)
{
    const unsigned char *b = p;
    while (n > 0) {
        size_t step = size_min(n, PATTERN_BLOCK);
        if (memcmp(b, pattern_at(at), step) != 0)
            return false;
        b += step;
        at += step;
        n -= step;
    }
    return true;
}

struct bytes
bytes_of_file(const char *path)
{
    struct stat st;
    FILE *f = fopen(path, "rbe");
    if (f == NULL || fstat(fileno(f), &st) != 0 || st.st_size <= 0)
        die("cannot read %s, or it is empty", path);
    struct bytes b = {malloc((size_t)st.st_size), (size_t)st.st_size};
    if (b.p == NULL || fread(b.p, 1, b.len, f) != b.len)
        die("cannot read %s", path);
    fclose(f);
    return b;
}

void
bytes_free(struct bytes *b)
{
    free(b->p);
    *b = (struct bytes){0};
}

const unsigned char *
bytes_at(const struct bytes *b, uint64_t at, size_t *n)
{
    size_t off = (size_t)(at % b->len);
    *n = b->len - off;
    return b->p + off;
}

bool
bytes_match(const struct bytes *b, const void *p, size_t n, uint64_t at)
{
    const unsigned char *have = p;
    while (n > 0) {
        size_t have_n;
        const unsigned char *want = bytes_at(b, at, &have_n);
        size_t step = size_min(n, have_n);
        if (memcmp(have, want, step) != 0)
            return false;
        have += step;
        at += step;
        n -= step;
    }
    return true;
}
