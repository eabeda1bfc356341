#include "t.h"

#include <arpa/inet.h>
#include <net/if.h>
#include <sys/stat.h>
#include <unistd.h>

#include "net/addr.h"

static struct addr
parsed(const char *text)
{
    struct addr a;
    const char *why = NULL;
    if (!addr_parse(str_of(text), &a, &why))
        fail_msg("%s: %s", text, why);
    return a;
}

static void
refused(struct str text, const char *want_why)
{
    struct addr a;
    const char *why = NULL;
    T_FALSE(addr_parse(text, &a, &why));
    T_ZEQ(why, want_why);
}

/* What addr_format() writes, addr_parse() reads back as the same address. */
static void
same_text(const char *text)
{
    char out[ADDR_TEXT_MAX];
    struct addr a = parsed(text);
    addr_format(&a, out);
    T_ZEQ(out, text);
    struct addr b = parsed(out);
    T_TRUE(addr_eq(&a, &b));
    T_EQ(a.len, b.len);
}

static void
test_every_form_there_and_back(void **state)
{
    (void)state;
    same_text("127.0.0.1:8123");
    same_text("0.0.0.0:0");
    same_text("255.255.255.255:65535");
    same_text("[::1]:8123");
    same_text("[::]:1");
    same_text("[2001:db8::1:0]:443");
    same_text("[::ffff:127.0.0.1]:80");
    same_text("unix:/run/chmux/chmux.sock");
    same_text("unix:/a b");
    same_text("unix:@chmux");
    same_text("unix:@/x");
}

static void
test_fields(void **state)
{
    (void)state;
    struct addr a = parsed("*:8123");
    T_EQ(a.sa.sa_family, AF_INET);
    T_EQ(a.in4.sin_addr.s_addr, INADDR_ANY);
    T_EQ(a.len, sizeof(struct sockaddr_in));
    a = parsed("[::1]:8123");
    T_EQ(a.len, sizeof(struct sockaddr_in6));
    T_EQ(a.in6.sin6_port, htons(8123));
    a = parsed("unix:/x");
    T_EQ(a.len, offsetof(struct sockaddr_un, sun_path) + 3);
    T_ZEQ(a.un.sun_path, "/x");
    a = parsed("unix:@x");
    T_EQ(a.len, offsetof(struct sockaddr_un, sun_path) + 2);
    T_TRUE(memcmp(a.un.sun_path, "\0x", 2) == 0);
}

#define NO_PORT   "the port is missing: write ADDRESS:PORT"
#define BAD_PORT  "the port must be a number from 0 to 65535"
#define BAD_HOST  "the host must be a numeric address, or * for all of IPv4"
#define BAD_IP6   "the text in brackets is no IPv6 address, or its %interface is unknown"
#define BARE_IP6  "an IPv6 address needs brackets: write [ADDRESS]:PORT"
#define BAD_FORM  "the address is not [ADDRESS]:PORT"
#define BAD_UNIX  "behind unix: must come an absolute path, or @ and a name"
#define NO_NAME   "the abstract name behind unix:@ is empty"
#define LONG_PATH "the socket path is longer than 107 bytes"
#define LONG_NAME "the abstract name is longer than 107 bytes"

static void
test_refusals_say_why(void **state)
{
    (void)state;
    static const char *const cases[][2] = {{"", NO_PORT}, {"127.0.0.1", NO_PORT}, {"*", NO_PORT},
        {"127.0.0.1:", BAD_PORT}, {"127.0.0.1:x", BAD_PORT}, {"127.0.0.1:-1", BAD_PORT},
        {"127.0.0.1:65536", BAD_PORT}, {"127.0.0.1: 1", BAD_PORT}, {"[::1]:", BAD_PORT},
        {"localhost:8123", BAD_HOST}, {":8123", BAD_HOST}, {"127.1:1", BAD_HOST},
        {"1.2.3.4.5:1", BAD_HOST}, {"**:1", BAD_HOST}, {"[]:1", BAD_IP6}, {"[*]:1", BAD_IP6},
        {"[127.0.0.1]:1", BAD_IP6}, {"[::1%nosuchif]:1", BAD_IP6}, {"[::g]:1", BAD_IP6},
        {"::1:80", BARE_IP6}, {"[::1]", BAD_FORM}, {"[::1]80", BAD_FORM}, {"[::1:80", BAD_FORM},
        {"unix:", BAD_UNIX}, {"unix:relative", BAD_UNIX}, {"unix:@", NO_NAME},
        {"UNIX:/x", BAD_PORT},
        {"[1111111111111111111111111111111111111111111111111111111111111111111111]:1", BAD_IP6}};
    for (size_t i = 0; i < COUNT_OF(cases); i++)
        refused(str_of(cases[i][0]), cases[i][1]);
    refused(STR("unix:/a\0b"), "the name holds a zero byte");
    refused(STR("127.0.0.1\0:1"), BAD_HOST);
}

/* Bound: sun_path holds 107 bytes and a zero; one more is refused, not cut. */
static void
test_longest_unix_names(void **state)
{
    (void)state;
    char text[200], out[ADDR_TEXT_MAX];
    for (int abstract = 0; abstract < 2; abstract++) {
        memset(text, 'p', sizeof(text));
        memcpy(text, abstract ? "unix:@" : "unix:/", 6);
        size_t most = 5 + 107 + (size_t)abstract;
        text[most] = '\0';
        struct addr a = parsed(text);
        T_EQ(a.len, sizeof(struct sockaddr_un));
        addr_format(&a, out);
        T_ZEQ(out, text);
        text[most] = 'p';
        refused(str_n(text, most + 1), abstract ? LONG_NAME : LONG_PATH);
    }
}

/* The kernel agrees with what was parsed: bind, and read the name back. */
static void
test_bound_sockets_read_back(void **state)
{
    (void)state;
    char text[ADDR_TEXT_MAX], folder[] = "/tmp/test_addr.XXXXXX", path[64], out[ADDR_TEXT_MAX];
    T_TRUE(mkdtemp(folder) != NULL);
    snprintf(path, sizeof(path), "%s/s", folder);
    snprintf(text, sizeof(text), "unix:%s", path);
    char abstract[64];
    snprintf(abstract, sizeof(abstract), "unix:@test_addr.%ld", (long)getpid());
    const char *const forms[] = {text, abstract, "127.0.0.1:0"};
    for (size_t i = 0; i < COUNT_OF(forms); i++) {
        struct addr a = parsed(forms[i]), b;
        int fd = socket(a.sa.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
        T_TRUE(fd >= 0);
        T_EQ(bind(fd, &a.sa, a.len), 0);
        memset(&b, 0, sizeof(b));
        b.len = sizeof(b.un);
        T_EQ(getsockname(fd, &b.sa, &b.len), 0);
        if (a.sa.sa_family == AF_INET) {
            T_TRUE(addr_port(&b) != 0);
            addr_set_port(&a, addr_port(&b));
        }
        T_TRUE(addr_eq(&a, &b));
        addr_format(&a, out);
        char again[ADDR_TEXT_MAX];
        addr_format(&b, again);
        T_ZEQ(again, out);
        close(fd);
    }
    T_EQ(unlink(path), 0);
    T_EQ(rmdir(folder), 0);
}

/* A client that did not bind, and other programs' names. */
static void
test_odd_unix_peers(void **state)
{
    (void)state;
    char out[ADDR_TEXT_MAX];
    struct addr a;
    memset(&a, 0, sizeof(a));
    a.sa.sa_family = AF_UNIX;
    a.len = sizeof(sa_family_t);
    addr_format(&a, out);
    T_ZEQ(out, "unix:");
    memcpy(a.un.sun_path, "\0a\nb", 4);
    a.len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 4);
    addr_format(&a, out);
    T_ZEQ(out, "unix:@a?b");
    a.sa.sa_family = AF_APPLETALK;
    addr_format(&a, out);
    T_ZEQ(out, "family 5");
    T_FALSE(addr_eq(&a, &a));
    T_FALSE(addr_is_loopback(&a));
    T_EQ(addr_port(&a), 0);
    addr_set_port(&a, 1);
    T_EQ(addr_port(&a), 0);
}

static void
test_scope_ids(void **state)
{
    (void)state;
    char text[64], out[ADDR_TEXT_MAX], name[IF_NAMESIZE];
    T_TRUE(if_indextoname(1, name) != NULL);
    snprintf(text, sizeof(text), "[fe80::1%%%s]:5", name);
    struct addr a = parsed(text), b = parsed("[fe80::1%1]:5"), c = parsed("[fe80::1]:5");
    T_EQ(a.in6.sin6_scope_id, 1);
    T_TRUE(addr_eq(&a, &b));
    T_FALSE(addr_eq(&a, &c));
    addr_format(&a, out);
    T_ZEQ(out, "[fe80::1%1]:5");
}

static void
test_equality(void **state)
{
    (void)state;
    static const char *const texts[] = {"127.0.0.1:1", "127.0.0.1:2", "127.0.0.2:1", "[::1]:1",
        "[::1]:2", "[::2]:1", "[::ffff:127.0.0.1]:1", "unix:/a", "unix:/ab", "unix:@a", "unix:@ab"};
    for (size_t i = 0; i < COUNT_OF(texts); i++) {
        for (size_t k = 0; k < COUNT_OF(texts); k++) {
            struct addr a = parsed(texts[i]), b = parsed(texts[k]);
            T_EQ(addr_eq(&a, &b), i == k);
        }
    }
}

static void
test_loopback(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool loopback;
    } cases[] = {{"127.0.0.1:1", true}, {"127.255.255.254:1", true}, {"128.0.0.1:1", false},
        {"126.255.255.255:1", false}, {"0.0.0.0:1", false}, {"*:1", false}, {"[::1]:1", true},
        {"[::]:1", false}, {"[::2]:1", false}, {"[::ffff:127.9.9.9]:1", true},
        {"[::ffff:10.0.0.1]:1", false}, {"[::127.0.0.1]:1", false}, {"[fe80::1]:1", false},
        {"unix:/x", true}, {"unix:@x", true}};
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct addr a = parsed(cases[i].text);
        T_EQ(addr_is_loopback(&a), cases[i].loopback);
    }
}

static void
test_ports(void **state)
{
    (void)state;
    struct addr a = parsed("127.0.0.1:1"), b = parsed("[::1]:2"), c = parsed("unix:/x");
    T_EQ(addr_port(&a), 1);
    T_EQ(addr_port(&b), 2);
    T_EQ(addr_port(&c), 0);
    addr_set_port(&a, 65535);
    addr_set_port(&b, 8123);
    addr_set_port(&c, 8123);
    T_EQ(addr_port(&a), 65535);
    T_EQ(addr_port(&b), 8123);
    T_ZEQ(c.un.sun_path, "/x");
}

static void
test_from_ip(void **state)
{
    (void)state;
    struct addr a;
    T_TRUE(addr_from_ip("10.1.2.3", 9, &a));
    T_EQ(ntohl(a.in4.sin_addr.s_addr), 0x0a010203);
    T_TRUE(addr_from_ip("::1", 9, &a));
    T_FALSE(addr_from_ip("", 9, &a));
    T_FALSE(addr_from_ip("localhost", 9, &a));
    T_FALSE(addr_from_ip("[::1]", 9, &a));
    T_FALSE(addr_from_ip("1.2.3.4%1", 9, &a));
    T_FALSE(addr_from_ip("fe80::1%", 9, &a));
    T_FALSE(addr_from_ip("fe80::1%0", 9, &a));
    T_FALSE(addr_from_ip("fe80::1%4294967296", 9, &a));
    T_FALSE(addr_from_ip("0x7f.1", 9, &a));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_every_form_there_and_back),
        TEST(test_fields),
        TEST(test_refusals_say_why),
        TEST(test_longest_unix_names),
        TEST(test_bound_sockets_read_back),
        TEST(test_odd_unix_peers),
        TEST(test_scope_ids),
        TEST(test_equality),
        TEST(test_loopback),
        TEST(test_ports),
        TEST(test_from_ip),
    };
    return TEST_MAIN(tests);
}
