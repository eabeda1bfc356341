/*
 * faraway: a TUN device whose other end is this machine itself, one round trip away. A server that
 * listens on LOCAL in the namespace this runs in is reached at PEER, at a distance: each packet
 * sent to PEER is held for half the round trip and comes back with source and destination swapped,
 * so it looks like PEER talking to LOCAL. The swap leaves every checksum as it was. Handshakes,
 * slow start and acknowledgements are the kernel's own; nothing is lost or reordered and the
 * bandwidth has no limit.
 *
 *   faraway --name DEV --rtt-us N     prints a line when the device is there; ends on SIGTERM
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
#include <time.h>
#include <unistd.h>

enum {
    IP4_HEADER = 20,
    IP4_SOURCE = 12,
    IP4_TARGET = 16,
    PACKET_MAX = 65536 + sizeof(struct virtio_net_hdr),
    RING = 8192, /* packets on the way; more and the device's own queue holds them back */
};

struct packet {
    int64_t due_ns;
    size_t len;
    unsigned char *bytes; /* owned */
};

static struct packet ring[RING]; /* FIFO: one delay for all, so due times only grow */
static size_t first, count;

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

static void
take_packets(int fd, int64_t delay_ns)
{
    static unsigned char buf[PACKET_MAX];
    while (count < RING) {
        ssize_t n = read(fd, buf, sizeof(buf));
        if (n <= 0)
            return;
        unsigned char *ip = buf + sizeof(struct virtio_net_hdr);
        bool is_ip4 = (size_t)n >= sizeof(struct virtio_net_hdr) + IP4_HEADER && ip[0] >> 4 == 4;
        if (!is_ip4)
            continue; /* the kernel's IPv6 router solicitations */
        swap_ends(ip);
        struct packet *p = &ring[(first + count) % RING];
        *p = (struct packet){now_ns() + delay_ns, (size_t)n, malloc((size_t)n)};
        if (p->bytes == NULL)
            die("faraway: out of memory");
        memcpy(p->bytes, buf, (size_t)n);
        count++;
    }
}

static void
give_packets(int fd)
{
    while (count > 0 && ring[first].due_ns <= now_ns()) {
        struct packet *p = &ring[first];
        if (write(fd, p->bytes, p->len) < 0 && errno == EAGAIN)
            return;
        free(p->bytes);
        first = (first + 1) % RING;
        count--;
    }
}

int
main(int argc, char **argv)
{
    const char *name = "bench0";
    uint64_t rtt_us = 64000;
    for (int i = 1; i < argc; i += 2) {
        if (i + 1 < argc && strcmp(argv[i], "--name") == 0)
            name = argv[i + 1];
        else if (i + 1 < argc && strcmp(argv[i], "--rtt-us") == 0)
            rtt_us = parse_size(argv[i + 1], argv[i]);
        else
            die("usage: faraway [--name DEV] [--rtt-us N]");
    }
    int fd = tun_open(name);
    int64_t delay_ns = (int64_t)rtt_us * 1000 / 2;
    puts("ready");
    fflush(stdout);
    for (;;) {
        struct pollfd p = {.fd = fd, .events = count < RING ? POLLIN : 0};
        int64_t left = count > 0 ? ring[first].due_ns - now_ns() : 0;
        struct timespec wait = {.tv_sec = left / 1000000000, .tv_nsec = left % 1000000000};
        if (left < 0)
            wait = (struct timespec){0};
        (void)ppoll(&p, 1, count > 0 ? &wait : NULL, NULL);
        take_packets(fd, delay_ns);
        give_packets(fd);
    }
}
