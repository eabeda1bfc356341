/*
 * faraway: a TUN device whose other end is this machine itself, one round trip away. A server that
 * listens on LOCAL in the namespace this runs in is reached at PEER, at a distance: each packet
 * sent to PEER is held for half the round trip and comes back with source and destination swapped,
 * so it looks like PEER talking to LOCAL. The swap leaves every checksum as it was. Handshakes,
 * slow start and acknowledgements are the kernel's own; nothing is lost or reordered.
 *
 *   faraway --name DEV --rtt-us N [--mbit N]     prints a line when the device is there; ends on
 *                                                SIGTERM
 *
 * --mbit is the bandwidth of each direction by itself (0: no limit): a packet leaves when those
 * before it have been sent at that rate. Nothing is dropped, so the sender's window is what waits,
 * as at a router with a deep queue. A direction is "towards whoever was sent a SYN", so servers and
 * clients must not share ports.
 *
 * Needs CAP_NET_ADMIN and /dev/net/tun. run.py makes the namespace, brings DEV up and names it.
 */
#include "util.h"

#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

enum {
    IP4_HEADER = 20,
    IP4_SOURCE = 12,
    IP4_TARGET = 16,
    PACKET_MAX = 65536 + sizeof(struct virtio_net_hdr),
    IP4_TCP = 6,
    IP4_PROTOCOL = 9,
    TCP_TARGET = 2,
    TCP_FLAGS = 13,
    TCP_SYN = 0x02,
    TCP_ACK = 0x10,
    WIRE_OVERHEAD = 38, /* Ethernet's head, tail, preamble and gap: of each MTU worth */
    MTU = 1500,
    RING = 8192, /* packets on the way; more and the device's own queue holds them back */
};

struct packet {
    int64_t due_ns;
    size_t len;
    unsigned char *bytes; /* owned */
};

/* FIFO: one delay and one rate for all, so due times only grow. */
struct way {
    struct packet ring[RING];
    size_t first, count;
    int64_t free_ns; /* when the last of them has left */
};

static struct way up, down;
static unsigned char is_server_port[65536];
static int64_t delay_ns;
static uint64_t mbit; /* 0: no limit */

static int
tun_open(const char *name)
{
    struct ifreq ifr = {.ifr_flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR};
    int hdr = (int)sizeof(struct virtio_net_hdr);
    int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", name);
    /* With segmentation offload one packet carries up to 64 KiB, which keeps this cheap; the
     * windows count bytes all the same. */
    if (fd < 0 || ioctl(fd, TUNSETIFF, &ifr) != 0 || ioctl(fd, TUNSETVNETHDRSZ, &hdr) != 0 ||
        ioctl(fd, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4) != 0)
        die("faraway: %s: %s", name, strerror(errno));
    return fd;
}

static void
swap_ends(unsigned char *ip)
{
    unsigned char source[4];
    memcpy(source, ip + IP4_SOURCE, sizeof(source));
    memcpy(ip + IP4_SOURCE, ip + IP4_TARGET, sizeof(source));
    memcpy(ip + IP4_TARGET, source, sizeof(source));
}

static struct way *
way_of(const unsigned char *ip, size_t n)
{
    size_t head = (size_t)(ip[0] & 0xf) * 4;
    if (ip[IP4_PROTOCOL] != IP4_TCP || n < head + TCP_FLAGS + 1)
        return &up;
    const unsigned char *tcp = ip + head;
    size_t port = (size_t)(tcp[TCP_TARGET] << 8 | tcp[TCP_TARGET + 1]);
    if ((tcp[TCP_FLAGS] & (TCP_SYN | TCP_ACK)) == TCP_SYN)
        is_server_port[port] = 1;
    return is_server_port[port] ? &up : &down;
}

/* When a packet of n bytes that came now is at the other end. */
static int64_t
due_ns(struct way *w, size_t n)
{
    int64_t now = now_ns();
    if (mbit > 0) {
        size_t wire = n + (n + MTU - 1) / MTU * WIRE_OVERHEAD;
        if (w->free_ns < now)
            w->free_ns = now;
        w->free_ns += (int64_t)(wire * 8000 / mbit);
        now = w->free_ns;
    }
    return now + delay_ns;
}

static void
take_packets(int fd)
{
    static unsigned char buf[PACKET_MAX];
    while (up.count < RING && down.count < RING) {
        ssize_t got = read(fd, buf, sizeof(buf));
        if (got <= 0)
            return;
        unsigned char *ip = buf + sizeof(struct virtio_net_hdr);
        size_t n = (size_t)got;
        if (n < sizeof(struct virtio_net_hdr) + IP4_HEADER || ip[0] >> 4 != 4)
            continue; /* the kernel's IPv6 router solicitations */
        struct way *w = way_of(ip, n - sizeof(struct virtio_net_hdr));
        swap_ends(ip);
        struct packet *p = &w->ring[(w->first + w->count) % RING];
        *p = (struct packet){due_ns(w, n - sizeof(struct virtio_net_hdr)), n, malloc(n)};
        if (p->bytes == NULL)
            die("faraway: out of memory");
        memcpy(p->bytes, buf, n);
        w->count++;
    }
}

static void
give_packets(int fd, struct way *w)
{
    while (w->count > 0 && w->ring[w->first].due_ns <= now_ns()) {
        struct packet *p = &w->ring[w->first];
        if (write(fd, p->bytes, p->len) < 0 && errno == EAGAIN)
            return;
        free(p->bytes);
        w->first = (w->first + 1) % RING;
        w->count--;
    }
}

/* Until the next packet of either way is due; INT64_MAX: none is on the way. */
static int64_t
left_ns(void)
{
    int64_t due = INT64_MAX;
    if (up.count > 0)
        due = up.ring[up.first].due_ns;
    if (down.count > 0 && down.ring[down.first].due_ns < due)
        due = down.ring[down.first].due_ns;
    if (due == INT64_MAX)
        return due;
    int64_t left = due - now_ns();
    return left > 0 ? left : 0;
}

int
main(int argc, char **argv)
{
    const char *name = "bench0";
    uint64_t rtt_us = 64000;
    for (int i = 1; i < argc; i += 2) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        if (strcmp(argv[i], "--name") == 0)
            name = value;
        else if (strcmp(argv[i], "--rtt-us") == 0)
            rtt_us = parse_size(value, argv[i]);
        else if (strcmp(argv[i], "--mbit") == 0)
            mbit = parse_size(value, argv[i]);
        else
            die("usage: faraway [--name DEV] [--rtt-us N] [--mbit N]");
    }
    int fd = tun_open(name);
    delay_ns = (int64_t)rtt_us * 1000 / 2;
    prctl(PR_SET_TIMERSLACK, 1UL); /* 50 us by default, on each packet */
    puts("ready");
    fflush(stdout);
    for (;;) {
        bool room = up.count < RING && down.count < RING;
        struct pollfd p = {.fd = fd, .events = room ? POLLIN : 0};
        int64_t left = left_ns();
        struct timespec wait = {.tv_sec = left / 1000000000, .tv_nsec = left % 1000000000};
        (void)ppoll(&p, 1, left < INT64_MAX ? &wait : NULL, NULL);
        take_packets(fd);
        give_packets(fd, &up);
        give_packets(fd, &down);
    }
}
