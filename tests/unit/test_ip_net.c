#include "t.h"

#include "net/addr.h"

static struct ip_net
net(const char *text)
{
    struct ip_net n;
    const char *why = NULL;
    if (!ip_net_parse(str_of(text), &n, &why))
        fail_msg("%s: %s", text, why);
    return n;
}

static bool
has(const char *network, const char *address)
{
    struct ip_net n = net(network);
    struct addr a;
    if (!addr_from_ip(address, 1234, &a))
        fail_msg("%s is no address", address);
    return addr_in_net(&a, &n);
}

static void
test_ipv4_edges(void **state)
{
    (void)state;
    T_TRUE(has("10.0.0.0/8", "10.0.0.0"));
    T_TRUE(has("10.0.0.0/8", "10.255.255.255"));
    T_FALSE(has("10.0.0.0/8", "11.0.0.0"));
    T_FALSE(has("10.0.0.0/8", "9.255.255.255"));
    T_TRUE(has("192.168.4.0/22", "192.168.7.255"));
    T_FALSE(has("192.168.4.0/22", "192.168.8.0"));
    T_TRUE(has("192.168.4.128/25", "192.168.4.128"));
    T_FALSE(has("192.168.4.128/25", "192.168.4.127"));
    T_TRUE(has("0.0.0.0/0", "255.1.2.3"));
    T_TRUE(has("128.0.0.0/1", "128.0.0.1"));
    T_FALSE(has("128.0.0.0/1", "127.255.255.255"));
}

static void
test_one_address(void **state)
{
    (void)state;
    T_TRUE(has("10.1.2.3", "10.1.2.3"));
    T_FALSE(has("10.1.2.3", "10.1.2.2"));
    T_TRUE(has("10.1.2.3/32", "10.1.2.3"));
    T_TRUE(has("::1", "::1"));
    T_FALSE(has("::1", "::2"));
    T_EQ(net("10.1.2.3").bits, 32);
    T_EQ(net("::1").bits, 128);
}

static void
test_ipv6_edges(void **state)
{
    (void)state;
    T_TRUE(has("2001:db8::/32", "2001:db8:ffff::1"));
    T_FALSE(has("2001:db8::/32", "2001:db9::"));
    T_TRUE(has("fe80::/10", "febf::1"));
    T_FALSE(has("fe80::/10", "fec0::1"));
    T_TRUE(has("::/0", "::1"));
    T_TRUE(has("2001:db8::8000:0:0:0/65", "2001:db8::8000:0:0:1"));
    T_FALSE(has("2001:db8::8000:0:0:0/65", "2001:db8::7fff:0:0:1"));
}

/* A dual-stack listener shows IPv4 peers as mapped ones. */
static void
test_mapped_addresses_are_ipv4(void **state)
{
    (void)state;
    T_TRUE(has("10.0.0.0/8", "::ffff:10.1.2.3"));
    T_FALSE(has("10.0.0.0/8", "::ffff:11.1.2.3"));
    T_TRUE(has("::ffff:10.0.0.0/104", "10.1.2.3"));
    T_TRUE(has("::ffff:10.1.2.3", "10.1.2.3"));
    T_FALSE(has("::/0", "::ffff:10.1.2.3"));
    T_FALSE(has("::/0", "10.1.2.3"));
    T_FALSE(has("0.0.0.0/0", "::1"));
    T_FALSE(has("10.0.0.0/8", "::10.1.2.3"));
    T_TRUE(has("::ffff:0:0/96", "1.2.3.4"));
}

static void
test_unix_is_in_no_network(void **state)
{
    (void)state;
    struct addr a;
    const char *why;
    struct ip_net all = net("0.0.0.0/0");
    T_TRUE(addr_parse(STR("unix:/x"), &a, &why));
    T_FALSE(addr_in_net(&a, &all));
}

static void
test_refusals_say_why(void **state)
{
    (void)state;
    static const struct {
        const char *text, *why;
    } cases[] = {
        {"", "is not an IPv4"},
        {"/8", "is not an IPv4"},
        {"10.0.0/8", "is not an IPv4"},
        {"010.0.0.0/8", "is not an IPv4"},
        {"localhost", "is not an IPv4"},
        {"10.0.0.0.0/8", "is not an IPv4"},
        {"[::1]", "is not an IPv4"},
        {"fe80::1%lo", "is not an IPv4"},
        {"1:2:3:4:5:6:7:8:9/8", "is not an IPv4"},
        {"1111:1111:1111:1111:1111:1111:1111:1111:1111:1111:1111", "is not an IPv4"},
        {"10.0.0.0/", "prefix"},
        {"10.0.0.0/33", "prefix"},
        {"10.0.0.0/-1", "prefix"},
        {"10.0.0.0/ 8", "prefix"},
        {"10.0.0.0/8/8", "prefix"},
        {"10.0.0.0/255.0.0.0", "prefix"},
        {"::/129", "prefix"},
        {"10.0.0.1/8", "behind its prefix"},
        {"0.0.0.1/0", "behind its prefix"},
        {"2001:db8::1/32", "behind its prefix"},
        {"::ffff:10.0.0.1/104", "behind its prefix"},
        {"::ffff:10.0.0.0/80", "behind its prefix"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct ip_net n;
        const char *why = NULL;
        if (ip_net_parse(str_of(cases[i].text), &n, &why))
            fail_msg("%s is taken", cases[i].text);
        T_HAS(why, cases[i].why);
    }
    struct ip_net n;
    const char *why;
    T_FALSE(ip_net_parse(str_n("10.0.0.0\0/8", 11), &n, &why));
    T_FALSE(ip_net_parse(STR_NULL, &n, &why));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_ipv4_edges),
        TEST(test_one_address),
        TEST(test_ipv6_edges),
        TEST(test_mapped_addresses_are_ipv4),
        TEST(test_unix_is_in_no_network),
        TEST(test_refusals_say_why),
    };
    return TEST_MAIN(tests);
}
