/*
 * [admin], and config_each(), by which the control API shows the configuration.
 */
#include "base/mem.h"
#include "config/config.h"
#include "config/config_table.h"
#include "t.h"

static struct buf errors;

static struct config *
load(const char *file)
{
    static const char *const env[] = {"CHMUX_UPSTREAM_POOL_SIZE=3", NULL};
    struct config_source src = {
        .file_name = "t.conf", .file_text = str_of(file), .environ_list = env};
    errors.len = 0;
    return config_load(&src, &errors);
}

static void
refused(const char *file, const char *why)
{
    struct config *c = load(file);
    T_TRUE(c == NULL);
    T_STR(str_n(errors.p, errors.len), why);
}

static void
test_admin_addresses(void **state)
{
    (void)state;
    struct config *c = load("[admin]\naddress = unix:/a, 127.0.0.1:1\n"
                            "tcp_access = read\nmode = 0600\n");
    T_TRUE(c != NULL);
    T_EQ(errors.len, 0);
    T_EQ(c->admin.address.count, 2);
    T_ZEQ(c->admin.address.item[1], "127.0.0.1:1");
    T_EQ(c->admin.tcp_access, ADMIN_ACCESS_READ);
    T_ZEQ(c->admin.mode, "0600");
    config_free(&c);
    refused("[admin]\naddress = unix:/a, unix:/a\n",
        "t.conf:2: [admin] address: unix:/a is there twice; use each once\n");
    refused("[admin]\naddress = unix:/a, here:1\n",
        "t.conf:2: [admin] address: \"here:1\": a listener needs an IP address, not a name; write "
        "127.0.0.1:8123, [::1]:8123, unix:/path or unix:@name\n");
    refused("[admin]\naddress = unix:/1,unix:/2,unix:/3,unix:/4,unix:/5,unix:/6,unix:/7,unix:/8,"
            "unix:/9\n",
        "t.conf:2: [admin] address: 9 addresses; at most 8 are allowed\n");
    refused("[admin]\nmode = rw\n",
        "t.conf:2: [admin] mode: \"rw\" is not octal permission bits; 0000 to 0777 is allowed\n");
    refused("[admin]\ntcp_access = all\n",
        "t.conf:2: [admin] tcp_access: \"all\" is not known; health, read or control is allowed\n");
}

/* Commands over TCP are for loopback; looking from elsewhere is a warning. */
static void
test_tcp_access_off_loopback(void **state)
{
    (void)state;
    refused("[admin]\naddress = unix:/a, 10.0.0.1:1\ntcp_access = control\n",
        "t.conf:3: [admin] tcp_access: control is for loopback only, and 10.0.0.1:1 is not: "
        "whoever "
        "reaches it could stop chmux; use a unix socket for commands\n");
    struct config *c = load("[admin]\naddress = 10.0.0.1:1\ntcp_access = read\n");
    T_TRUE(c != NULL);
    T_STR(str_n(errors.p, errors.len), "warning: t.conf:3: [admin] tcp_access: whoever reaches "
                                       "10.0.0.1:1 sees users, query ids and "
                                       "the configuration\n");
    config_free(&c);
    c = load("[admin]\naddress = 10.0.0.1:1, [::1]:2\n");
    T_TRUE(c != NULL && errors.len == 0);
    config_free(&c);
    c = load("[admin]\naddress = 127.0.0.1:1, [::1]:2\ntcp_access = control\n");
    T_TRUE(c != NULL && errors.len == 0);
    config_free(&c);
}

struct told {
    size_t count, stop_at, found;
};

static bool
on_item(void *arg, const struct config_item *it)
{
    struct told *t = arg;
    if (strcmp(it->section, "listen a") == 0 && strcmp(it->key, "address") == 0) {
        T_STR(it->value, "unix:@x");
        T_STR(it->source, "t.conf:2");
        T_TRUE(it->reloadable);
        t->found++;
    }
    if (strcmp(it->key, "pool_size") == 0) {
        T_ZEQ(it->section, "upstream");
        T_STR(it->source, "environment CHMUX_UPSTREAM_POOL_SIZE");
        T_STR(it->value, "3");
        T_TRUE(it->reloadable);
        t->found++;
    }
    if (strcmp(it->key, "buffer_size") == 0) {
        T_STR(it->source, "default");
        T_FALSE(it->reloadable);
        t->found++;
    }
    return ++t->count != t->stop_at;
}

static void
test_each_tells_every_option_with_its_source(void **state)
{
    (void)state;
    struct config *c = load("[listen a]\naddress = unix:@x\n[listen b]\naddress = unix:@y\n");
    T_TRUE(c != NULL);
    struct told t = {0};
    T_TRUE(config_each(c, on_item, &t));
    size_t want = 0;
    for (size_t i = 0; i < CONFIG_SECTION_COUNT; i++) {
        size_t count;
        (void)config_sections[i].opts(&count);
        want += count * (i == CONFIG_SECTION_listen ? 2 : i == CONFIG_SECTION_user ? 0 : 1);
    }
    T_EQ(t.found, 3);
    T_EQ(t.count, want);
    t = (struct told){.stop_at = 5};
    T_TRUE(config_each(c, on_item, &t));
    T_EQ(t.count, 5);
    mem_fail_at(1);
    T_FALSE(config_each(c, on_item, &t));
    mem_fail_at(0);
    config_free(&c);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_admin_addresses),
        TEST(test_tcp_access_off_loopback),
        TEST(test_each_tells_every_option_with_its_source),
    };
    mem_init(16 << 20, 65536, 0);
    buf_init(&errors, 65536);
    int failed = TEST_MAIN(tests);
    buf_fini(&errors);
    mem_fini();
    return failed;
}
