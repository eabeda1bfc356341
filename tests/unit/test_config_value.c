/* Values: units, bounds, words, URLs, addresses, secrets. */
#include "config/config.h"
#include "config/config_load.h"
#include "config/config_parse.h"
#include "config/config_value.h"
#include "t.h"

static void
test_durations_need_a_unit_and_know_six(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int64_t us;
    } good[] = {
        {"0", 0},
        {"0s", 0},
        {"1us", 1},
        {"250ms", 250000},
        {"10s", 10000000},
        {"5m", 300000000},
        {"1h", INT64_C(3600000000)},
        {"7d", INT64_C(604800000000)},
        {"9223372036854775807us", INT64_MAX},
        {"106751991d", INT64_C(106751991) * INT64_C(86400000000)},
    };
    for (size_t i = 0; i < COUNT_OF(good); i++) {
        int64_t us = -1;
        T_TRUE(config_parse_duration(str_of(good[i].text), &us));
        T_EQ(us, good[i].us);
    }
    static const struct {
        const char *text;
        enum config_unit why;
    } refused[] = {
        {"", CONFIG_UNIT_NO_NUMBER},
        {"s", CONFIG_UNIT_NO_NUMBER},
        {"-1s", CONFIG_UNIT_NO_NUMBER},
        {"+1s", CONFIG_UNIT_NO_NUMBER},
        {" 1s", CONFIG_UNIT_NO_NUMBER},
        {"10", CONFIG_UNIT_MISSING},
        {"99999999999999999999", CONFIG_UNIT_MISSING},
        {"1.5s", CONFIG_UNIT_UNKNOWN},
        {"1 s", CONFIG_UNIT_UNKNOWN},
        {"1S", CONFIG_UNIT_UNKNOWN},
        {"1M", CONFIG_UNIT_UNKNOWN},
        {"1min", CONFIG_UNIT_UNKNOWN},
        {"1s ", CONFIG_UNIT_UNKNOWN},
        {"106751992d", CONFIG_UNIT_TOO_LARGE},
        {"9223372036854775808us", CONFIG_UNIT_TOO_LARGE},
        {"99999999999999999999s", CONFIG_UNIT_TOO_LARGE},
    };
    for (size_t i = 0; i < COUNT_OF(refused); i++) {
        int64_t us = -7;
        T_EQ(config_read_duration(str_of(refused[i].text), &us), refused[i].why);
        T_EQ(us, -7);
    }
}

static void
test_sizes_count_in_1024_and_ignore_case(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t bytes;
    } good[] = {
        {"0", 0},
        {"0k", 0},
        {"1b", 1},
        {"64k", 65536},
        {"64K", 65536},
        {"3m", 3u << 20},
        {"2G", (size_t)2 << 30},
        {"1t", (size_t)1 << 40},
        {"8388607t", (size_t)8388607 << 40},
    };
    for (size_t i = 0; i < COUNT_OF(good); i++) {
        size_t bytes = 99;
        T_TRUE(config_parse_size(str_of(good[i].text), &bytes));
        T_EQ(bytes, good[i].bytes);
    }
    static const char *const refused[] = {
        "", "k", "12", "-1k", "1kb", "1KiB", "1p", "1.5m", "8388608t", "99999999999999999999b"};
    for (size_t i = 0; i < COUNT_OF(refused); i++) {
        size_t bytes = 99;
        T_FALSE(config_parse_size(str_of(refused[i]), &bytes));
        T_EQ(bytes, 99);
    }
}

static void
test_formats_read_back_to_the_same_number(void **state)
{
    (void)state;
    static const struct {
        int64_t us;
        const char *text;
    } durations[] = {
        {0, "0s"},
        {1, "1us"},
        {1500, "1500us"},
        {250000, "250ms"},
        {90000000, "90s"},
        {3600000000, "1h"},
        {INT64_C(86400000000), "1d"},
        {INT64_MAX, "9223372036854775807us"},
    };
    char text[32];
    for (size_t i = 0; i < COUNT_OF(durations); i++) {
        int64_t us = -1;
        config_format_duration(durations[i].us, text);
        T_ZEQ(text, durations[i].text);
        T_TRUE(config_parse_duration(str_of(text), &us));
        T_EQ(us, durations[i].us);
    }
    static const struct {
        size_t bytes;
        const char *text;
    } sizes[] = {{0, "0"}, {1, "1b"}, {1000, "1000b"}, {131072, "128k"}, {1u << 20, "1m"},
        {(size_t)1 << 40, "1t"}};
    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        size_t bytes = 1;
        config_format_size(sizes[i].bytes, text);
        T_ZEQ(text, sizes[i].text);
        T_TRUE(config_parse_size(str_of(text), &bytes));
        T_EQ(bytes, sizes[i].bytes);
    }
}

static void
test_modes_are_octal_permission_bits(void **state)
{
    (void)state;
    unsigned mode = 1;
    T_TRUE(config_parse_mode(STR("0660"), &mode));
    T_EQ(mode, 0660);
    T_TRUE(config_parse_mode(STR("777"), &mode));
    T_EQ(mode, 0777);
    T_TRUE(config_parse_mode(STR("00000"), &mode));
    T_EQ(mode, 0);
    static const char *const refused[] = {
        "", "7", "66", "0o660", "0680", "1777", "000660", "rw-", "-660", "0x1b"};
    mode = 5;
    for (size_t i = 0; i < COUNT_OF(refused); i++)
        T_FALSE(config_parse_mode(str_of(refused[i]), &mode));
    T_EQ(mode, 5);
}

static void
test_urls_that_are_read(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool tls;
        const char *host;
        uint16_t port;
    } good[] = {
        {"http://127.0.0.1:18123", false, "127.0.0.1", 18123},
        {"http://db", false, "db", 8123},
        {"https://db.example", true, "db.example", 8443},
        {"HTTPS://Db.Example:443/", true, "Db.Example", 443},
        {"http://[::1]:8123", false, "::1", 8123},
        {"https://[2001:db8::7]", true, "2001:db8::7", 8443},
        {"http://my_host-1:65535", false, "my_host-1", 65535},
        {"http://h:1", false, "h", 1},
    };
    for (size_t i = 0; i < COUNT_OF(good); i++) {
        struct config_url url;
        char why[CONFIG_WHY_MAX] = "";
        T_TRUE(config_parse_url(str_of(good[i].text), &url, why, sizeof(why)));
        T_EQ(url.tls, good[i].tls);
        T_ZEQ(url.host, good[i].host);
        T_EQ(url.port, good[i].port);
    }
}

static void
test_urls_that_are_refused_say_why(void **state)
{
    (void)state;
    static const struct {
        const char *text, *why;
    } bad[] = {
        {"", "\"\" must begin with http:// or https://"},
        {"localhost:8123", "\"localhost:8123\" must begin with http:// or https://"},
        {"clickhouse://db", "\"clickhouse://db\" must begin with http:// or https://"},
        {"http://", "\"http://\" has no host; write http://HOST:PORT"},
        {"http://:8123", "\"http://:8123\" has no host; write http://HOST:PORT"},
        {"http://db:", "\"http://db:\": the port is not a number from 1 to 65535"},
        {"http://db:0", "\"http://db:0\": the port is not a number from 1 to 65535"},
        {"http://db:65536", "\"http://db:65536\": the port is not a number from 1 to 65535"},
        {"http://db:80x", "\"http://db:80x\": the port is not a number from 1 to 65535"},
        {"http://db:-1", "\"http://db:-1\": the port is not a number from 1 to 65535"},
        {"http://[::1", "\"http://[::1\" has a [ without a ]"},
        {"http://[::g]:80", "\"http://[::g]:80\": what stands in [] is not an IPv6 address"},
        {"http://[]:80", "\"http://[]:80\" has no host; write http://HOST:PORT"},
        {"http://[::1]80", "\"http://[::1]80\": the port is not a number from 1 to 65535"},
        {"http://::1", "\"http://::1\" has no host; write http://HOST:PORT"},
        {"http://2001:db8::7",
            "\"http://2001:db8::7\": an IPv6 address stands in brackets: http://[::1]:8123"},
        {"http://d b:80", "\"http://d b:80\": the host is not a name or an address"},
        {"http://-db", "\"http://-db\": the host is not a name or an address"},
        {"http://db;x", "\"http://db;x\": the host is not a name or an address"},
        {"http://db/path",
            "\"http://db/path\" goes on after the port; leave path, query and fragment out"},
        {"http://db:1?database=x",
            "\"http://db:1?***\" goes on after the port; leave path, query and fragment out"},
        {"http://db#f", "\"http://db#f\" goes on after the port; leave path, query and fragment "
                        "out"},
        {"http://ann:pw@db:8123",
            "\"http://***@db:8123\" holds a user name or password; leave it out, clients send "
            "their own"},
    };
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        struct config_url url = {.port = 7};
        char why[CONFIG_WHY_MAX] = "";
        T_FALSE(config_parse_url(str_of(bad[i].text), &url, why, sizeof(why)));
        T_ZEQ(why, bad[i].why);
        T_EQ(url.port, 7);
    }
}

/* However the URL is broken, what stands before an '@' is not repeated. */
static void
test_urls_never_show_userinfo(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "http://ann:s3cret@db:8123",
        "ann:s3cret@db",
        "https://s3cret@",
        "ftp://ann:s3cret@db/x",
        "http://ann:s3/cret@db",
        "http://ann:s?3cret@db",
        "http://ann:s3cret@db@other",
        "http://[s3cret@",
        "http:/ann:s3cret@db",
        "http://db:8123/?user=ann&password=s3cret",
        "http://a@db:8123/?password=s3cret",
    };
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        struct config_url url;
        char why[CONFIG_WHY_MAX] = "";
        T_FALSE(config_parse_url(str_of(bad[i]), &url, why, sizeof(why)));
        T_TRUE(why[0] != '\0');
        T_TRUE(strstr(why, "s3") == NULL && strstr(why, "cret") == NULL);
    }
}

static void
test_url_hosts_of_any_length_are_safe(void **state)
{
    (void)state;
    char text[1024], why[CONFIG_WHY_MAX];
    struct config_url url;
    for (size_t len = 250; len < 400; len++) {
        memset(text, 'a', sizeof(text));
        memcpy(text, "http://", 7);
        bool ok = config_parse_url(str_n(text, 7 + len), &url, why, sizeof(why));
        T_EQ(ok, len <= 253);
    }
    T_FALSE(config_parse_url(str_n("http://a\0b", 10), &url, why, sizeof(why)));
    T_FALSE(config_parse_url(str_n("http://[::1\0]", 13), &url, why, sizeof(why)));
}

static void
test_addresses(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool is_unix, loopback;
        uint16_t port;
    } good[] = {
        {"127.0.0.1:8123", false, true, 8123},
        {"127.9.9.9:0", false, true, 0},
        {"[::1]:8123", false, true, 8123},
        {"[::ffff:127.0.0.1]:1", false, true, 1},
        {"[::]:8123", false, false, 8123},
        {"0.0.0.0:8123", false, false, 8123},
        {"*:8123", false, false, 8123},
        {"192.0.2.7:65535", false, false, 65535},
        {"unix:/run/chmux.sock", true, true, 0},
        {"unix:@chmux", true, true, 0},
    };
    char why[CONFIG_WHY_MAX];
    for (size_t i = 0; i < COUNT_OF(good); i++) {
        struct config_address a;
        T_TRUE(config_parse_address(str_of(good[i].text), &a, why, sizeof(why)));
        T_EQ(a.is_unix, good[i].is_unix);
        T_EQ(a.is_loopback, good[i].loopback);
        T_EQ(a.port, good[i].port);
    }
    static const struct {
        const char *text, *why;
    } bad[] = {
        {"8123", "\"8123\" has no port; write 127.0.0.1:8123"},
        {"[::1]", "\"[::1]\" has no port; write [V6]:8123"},
        {"[::1:8123", "\"[::1:8123\" has a [ without a ]"},
        {"::1", "\"::1\": an IPv6 address stands in brackets: [::1]:8123"},
        {"[::x]:1", "\"[::x]:1\": what stands in [] is not an IPv6 address"},
        {"127.0.0.1:", "\"127.0.0.1:\": the port is not a number from 0 to 65535"},
        {"127.0.0.1:65536", "\"127.0.0.1:65536\": the port is not a number from 0 to 65535"},
        {"127.0.0.1:http", "\"127.0.0.1:http\": the port is not a number from 0 to 65535"},
        {"localhost:8123", "\"localhost:8123\": a listener needs an IP address, not a name; write "
                           "127.0.0.1:8123, [::1]:8123, unix:/path or unix:@name"},
        {"unix:", "a unix socket is unix:/path or unix:@name"},
        {"unix:relative", "a unix socket is unix:/path or unix:@name"},
        {"unix:@", "a unix socket is unix:/path or unix:@name"},
        {"unix:/", "a unix socket is unix:/path or unix:@name"},
    };
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        struct config_address a = {.port = 7};
        T_FALSE(config_parse_address(str_of(bad[i].text), &a, why, sizeof(why)));
        T_ZEQ(why, bad[i].why);
        T_EQ(a.port, 7);
    }
    char text[200];
    memset(text, 'a', sizeof(text));
    memcpy(text, "unix:/", 6);
    struct config_address a;
    T_TRUE(config_parse_address(str_n(text, 5 + 107), &a, why, sizeof(why)));
    T_FALSE(config_parse_address(str_n(text, 5 + 108), &a, why, sizeof(why)));
    T_ZEQ(why, "the path of a unix socket has at most 107 bytes, not 108");
}

static void
test_quotes_are_cut_and_clean(void **state)
{
    (void)state;
    char out[CONFIG_QUOTE_MAX], text[400];
    T_ZEQ(config_quote(STR("plain"), out), "\"plain\"");
    T_ZEQ(config_quote(STR(""), out), "\"\"");
    T_ZEQ(config_quote(str_n("a\n\x1b\0\x7f", 5), out), "\"a????\"");
    memset(text, 'x', sizeof(text));
    for (size_t len = 0; len < sizeof(text); len++) {
        config_quote(str_n(text, len), out);
        T_TRUE(strlen(out) <= CONFIG_QUOTE_MAX - 1);
        T_EQ(strstr(out, "...") != NULL, len > CONFIG_QUOTE_MAX - 3);
    }
    for (size_t i = 0; i + 1 < sizeof(text); i += 2)
        memcpy(text + i, "\xc3\xa4", 2);
    config_quote(str_n(text, sizeof(text)), out);
    T_EQ((unsigned char)out[strlen(out) - 5], 0xa4); /* a whole character before the dots */
    config_quote(str_n(text + 1, sizeof(text) - 1), out);
    T_EQ((unsigned char)out[strlen(out) - 5], 0xa4);
}

static void
test_secret_keys_are_known_by_name(void **state)
{
    (void)state;
    T_TRUE(config_key_is_secret(STR("password")));
    T_TRUE(config_key_is_secret(STR("upstream_password")));
    T_TRUE(config_key_is_secret(STR("auth_token")));
    T_TRUE(config_key_is_secret(STR("session_secret")));
    T_TRUE(config_key_is_secret(STR("api_key")));
    T_FALSE(config_key_is_secret(STR("tls_key_file")));
    T_FALSE(config_key_is_secret(STR("password_file")));
    T_FALSE(config_key_is_secret(STR("pool_size")));
}

static void
test_word_distance(void **state)
{
    (void)state;
    T_EQ(config_word_distance(STR("pool_size"), STR("pool_size")), 0);
    T_EQ(config_word_distance(STR("POOL_SIZE"), STR("pool_size")), 0);
    T_EQ(config_word_distance(STR("pol_size"), STR("pool_size")), 1);
    T_EQ(config_word_distance(STR("pool_sise"), STR("pool_size")), 1);
    T_EQ(config_word_distance(STR("pool_szie"), STR("pool_size")), 1);
    T_EQ(config_word_distance(STR("poolsizes"), STR("pool_size")), 2);
    T_EQ(config_word_distance(STR("url"), STR("uri")), 1);
    T_EQ(config_word_distance(STR("url"), STR("irl")), 1);
    T_EQ(config_word_distance(STR("abc"), STR("xyz")), SIZE_MAX);
    T_EQ(config_word_distance(STR(""), STR("x")), SIZE_MAX);
    char long_word[100];
    memset(long_word, 'a', sizeof(long_word));
    T_EQ(config_word_distance(str_n(long_word, 63), str_n(long_word, 63)), 0);
    T_EQ(config_word_distance(str_n(long_word, 64), str_n(long_word, 64)), SIZE_MAX);
}

/* One value of one option of a fresh configuration, as config_value_set() takes it. */
static enum config_set
try_set(size_t section, const struct config_opt *opt, struct str text, char why[CONFIG_WHY_MAX],
    char shown[CONFIG_VALUE_MAX + 1])
{
    static union {
        struct config c;
        char bytes[sizeof(struct config)];
    } u;
    const struct config_section *sec = &config_sections[section];
    void *base = u.bytes + sec->offset;
    memset(&u, 0, sizeof(u));
    why[0] = '\0';
    enum config_set r = config_value_set(sec, opt, base, text, why);
    struct buf out;
    buf_init(&out, CONFIG_VALUE_MAX);
    if (r == CONFIG_SET_OK) {
        config_value_print(opt, base, &out);
        memcpy(shown, out.p == NULL ? "" : out.p, out.len);
        shown[out.len] = '\0';
    }
    buf_fini(&out);
    config_value_fini(opt, base);
    return r;
}

/* Every number of the table takes both bounds and refuses one step beyond each. */
static void
test_every_bound_of_the_table(void **state)
{
    (void)state;
    char why[CONFIG_WHY_MAX], shown[CONFIG_VALUE_MAX + 1], text[32], allowed[CONFIG_WHY_MAX];
    size_t numbers = 0;
    for (size_t s = 0; s < CONFIG_SECTION_COUNT; s++) {
        size_t count;
        const struct config_opt *opt = config_sections[s].opts(&count);
        for (size_t i = 0; i < count; i++, opt++) {
            if (opt->type != CONFIG_INT && opt->type != CONFIG_SIZE && opt->type != CONFIG_DURATION)
                continue;
            numbers++;
            T_EQ(try_set(s, opt, str_of(opt->min), why, shown), CONFIG_SET_OK);
            T_EQ(try_set(s, opt, str_of(opt->max), why, shown), CONFIG_SET_OK);
            T_EQ(try_set(s, opt, str_of(opt->def), why, shown), CONFIG_SET_OK);
            const char *unit = opt->type == CONFIG_INT ? "" : opt->type == CONFIG_SIZE ? "b" : "us";
            int64_t min = 0, max = 0;
            size_t bytes = 0;
            uint64_t n = 0;
            if (opt->type == CONFIG_DURATION) {
                T_TRUE(config_parse_duration(str_of(opt->min), &min));
                T_TRUE(config_parse_duration(str_of(opt->max), &max));
            } else if (opt->type == CONFIG_SIZE) {
                T_TRUE(config_parse_size(str_of(opt->min), &bytes));
                min = (int64_t)bytes;
                T_TRUE(config_parse_size(str_of(opt->max), &bytes));
                max = (int64_t)bytes;
            } else {
                T_TRUE(str_to_u64(str_of(opt->min), INT64_MAX, &n));
                min = (int64_t)n;
                T_TRUE(str_to_u64(str_of(opt->max), INT64_MAX, &n));
                max = (int64_t)n;
            }
            T_TRUE(min < max);
            const char *word = strcmp(opt->def, "auto") == 0 ? "auto, or " : "";
            snprintf(allowed, sizeof(allowed), "too large; %s%s to %s is allowed", word, opt->min,
                opt->max);
            snprintf(text, sizeof(text), "%" PRId64 "%s", max + 1, unit);
            T_EQ(try_set(s, opt, str_of(text), why, shown), CONFIG_SET_BAD);
            T_TRUE(strstr(why, allowed) != NULL);
            if (min == 0)
                continue;
            snprintf(
                allowed, sizeof(allowed), "too small; %s to %s is allowed", opt->min, opt->max);
            snprintf(text, sizeof(text), "%" PRId64 "%s", min - 1, min == 1 ? "" : unit);
            T_EQ(try_set(s, opt, str_of(text), why, shown), CONFIG_SET_BAD);
            T_TRUE(strstr(why, allowed) != NULL);
        }
    }
    T_TRUE(numbers > 20);
}

static const struct config_opt *opt_of(enum config_section_index section, const char *key);

/* auto is a value where it is the default, and prints as such; elsewhere it is no number. */
static void
test_auto(void **state)
{
    (void)state;
    char why[CONFIG_WHY_MAX], shown[CONFIG_VALUE_MAX + 1];
    const struct config_opt *opt = opt_of(CONFIG_SECTION_chmux, "workers");
    T_EQ(try_set(CONFIG_SECTION_chmux, opt, STR("Auto"), why, shown), CONFIG_SET_OK);
    T_ZEQ(shown, "auto");
    T_EQ(try_set(CONFIG_SECTION_chmux, opt, STR("3"), why, shown), CONFIG_SET_OK);
    T_ZEQ(shown, "3");
    T_EQ(try_set(CONFIG_SECTION_chmux, opt, STR("-1"), why, shown), CONFIG_SET_BAD);
    opt = opt_of(CONFIG_SECTION_chmux, "max_clients");
    T_EQ(try_set(CONFIG_SECTION_chmux, opt, STR("auto"), why, shown), CONFIG_SET_BAD);
}

static const struct config_opt *
opt_of(enum config_section_index section, const char *key)
{
    const struct config_opt *opt = config_opt_find(&config_sections[section], str_of(key));
    T_TRUE(opt != NULL);
    return opt;
}

static void
test_words_of_each_type(void **state)
{
    (void)state;
    static const struct {
        enum config_section_index section;
        const char *key, *text, *shown;
    } good[] = {
        {CONFIG_SECTION_chmux, "allow_remote", "yes", "yes"},
        {CONFIG_SECTION_chmux, "allow_remote", "TRUE", "yes"},
        {CONFIG_SECTION_chmux, "allow_remote", "on", "yes"},
        {CONFIG_SECTION_chmux, "allow_remote", "1", "yes"},
        {CONFIG_SECTION_chmux, "allow_remote", "No", "no"},
        {CONFIG_SECTION_chmux, "allow_remote", "false", "no"},
        {CONFIG_SECTION_chmux, "allow_remote", "off", "no"},
        {CONFIG_SECTION_chmux, "allow_remote", "0", "no"},
        {CONFIG_SECTION_upstream, "on_disconnect", "kill", "kill"},
        {CONFIG_SECTION_upstream, "on_disconnect", "Close", "close"},
        {CONFIG_SECTION_upstream, "tls_min_version", "1.2", "1.2"},
        {CONFIG_SECTION_upstream, "tls_min_version", "1.3", "1.3"},
        {CONFIG_SECTION_log, "level", "error", "error"},
        {CONFIG_SECTION_log, "level", "warn", "warn"},
        {CONFIG_SECTION_log, "level", "info", "info"},
        {CONFIG_SECTION_log, "level", "debug", "debug"},
        {CONFIG_SECTION_log, "format", "text", "text"},
        {CONFIG_SECTION_log, "format", "json", "json"},
        {CONFIG_SECTION_upstream, "tls_ca_file", "  /etc/a b;c#d.pem ", "/etc/a b;c#d.pem"},
        {CONFIG_SECTION_upstream, "tls_ca_file", "", ""},
        {CONFIG_SECTION_upstream, "url", "http://a:1,, http://b:2 ,", "http://a:1, http://b:2"},
        {CONFIG_SECTION_listen, "mode", "600", "600"},
        {CONFIG_SECTION_upstream, "tls_server_name", "db.example", "db.example"},
    };
    char why[CONFIG_WHY_MAX], shown[CONFIG_VALUE_MAX + 1];
    for (size_t i = 0; i < COUNT_OF(good); i++) {
        const struct config_opt *opt = opt_of(good[i].section, good[i].key);
        T_EQ(try_set(good[i].section, opt, str_of(good[i].text), why, shown), CONFIG_SET_OK);
        T_ZEQ(shown, good[i].shown);
    }
}

static void
test_refusals_say_what_is_allowed(void **state)
{
    (void)state;
    static const struct {
        enum config_section_index section;
        const char *key, *text, *why;
    } bad[] = {
        {CONFIG_SECTION_chmux, "allow_remote", "maybe",
            "\"maybe\" is neither yes nor no; yes or no is allowed"},
        {CONFIG_SECTION_chmux, "allow_remote", "",
            "\"\" is neither yes nor no; yes or no is allowed"},
        {CONFIG_SECTION_upstream, "on_disconnect", "stop",
            "\"stop\" is not known; kill or close is allowed"},
        {CONFIG_SECTION_log, "level", "verbose",
            "\"verbose\" is not known; error, warn, info or debug is allowed"},
        {CONFIG_SECTION_upstream, "pool_size", "16x",
            "\"16x\" is not a whole number; 1 to 4096 is allowed"},
        {CONFIG_SECTION_upstream, "pool_size", "",
            "\"\" is not a whole number; 1 to 4096 is allowed"},
        {CONFIG_SECTION_upstream, "pool_size", "-1",
            "\"-1\" is not a whole number; 1 to 4096 is allowed"},
        {CONFIG_SECTION_upstream, "pool_size", "99999999999999999999",
            "\"99999999999999999999\" is too large; 1 to 4096 is allowed"},
        {CONFIG_SECTION_upstream, "pool_size", "0", "\"0\" is too small; 1 to 4096 is allowed"},
        {CONFIG_SECTION_upstream, "queue_timeout", "30",
            "\"30\" has no unit (us, ms, s, m, h, d); 1ms to 1d is allowed"},
        {CONFIG_SECTION_upstream, "queue_timeout", "30 sec",
            "\"30 sec\" has a unit that is not one of us, ms, s, m, h, d; 1ms to 1d is allowed"},
        {CONFIG_SECTION_upstream, "queue_timeout", "soon",
            "\"soon\" is not a number with a unit (us, ms, s, m, h, d); 1ms to 1d is allowed"},
        {CONFIG_SECTION_upstream, "queue_timeout", "2d",
            "\"2d\" is too large; 1ms to 1d is allowed"},
        {CONFIG_SECTION_chmux, "buffer_size", "65536",
            "\"65536\" has no unit (b, k, m, g, t); 16k to 4m is allowed"},
        {CONFIG_SECTION_chmux, "buffer_size", "64kb",
            "\"64kb\" has a unit that is not one of b, k, m, g, t; 16k to 4m is allowed"},
        {CONFIG_SECTION_chmux, "buffer_size", "1k", "\"1k\" is too small; 16k to 4m is allowed"},
        {CONFIG_SECTION_upstream, "url", " , ",
            "no URL is given; write http://HOST:PORT or https://HOST:PORT"},
        {CONFIG_SECTION_upstream, "url", "http://a,b", "\"b\" must begin with http:// or https://"},
        {CONFIG_SECTION_upstream, "tls_server_name", "https://db",
            "\"https://db\" is not a host name; a name or an IP address is allowed"},
        {CONFIG_SECTION_listen, "mode", "rw",
            "\"rw\" is not octal permission bits; 0000 to 0777 is allowed"},
        {CONFIG_SECTION_listen, "address", "here", "\"here\" has no port; write 127.0.0.1:8123"},
        {CONFIG_SECTION_admin, "address", "here:1",
            "\"here:1\": a listener needs an IP address, not a name; write 127.0.0.1:8123, "
            "[::1]:8123, unix:/path or unix:@name"},
        {CONFIG_SECTION_upstream, "tls_ca_file", "/a\nb",
            "the value holds a control character (byte 0x0a)"},
        {CONFIG_SECTION_upstream, "tls_ca_file", "/a ;b",
            "\";\" at the start or after a space is not allowed in a value; a comment behind a "
            "value begins with a space and \";\""},
        {CONFIG_SECTION_upstream, "tls_ca_file", ";b",
            "\";\" at the start or after a space is not allowed in a value; a comment behind a "
            "value begins with a space and \";\""},
        {CONFIG_SECTION_upstream, "pool_size", "16 # half",
            "\"#\" at the start or after a space is not allowed in a value; a comment behind a "
            "value begins with a space and \";\""},
    };
    char why[CONFIG_WHY_MAX], shown[CONFIG_VALUE_MAX + 1];
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        const struct config_opt *opt = opt_of(bad[i].section, bad[i].key);
        T_EQ(try_set(bad[i].section, opt, str_of(bad[i].text), why, shown), CONFIG_SET_BAD);
        T_ZEQ(why, bad[i].why);
    }
    static char text[CONFIG_VALUE_MAX + 1];
    memset(text, 'a', sizeof(text));
    const struct config_opt *path = opt_of(CONFIG_SECTION_upstream, "tls_ca_file");
    T_EQ(try_set(CONFIG_SECTION_upstream, path, str_n(text, CONFIG_VALUE_MAX), why, shown),
        CONFIG_SET_OK);
    T_EQ(try_set(CONFIG_SECTION_upstream, path, str_n(text, CONFIG_VALUE_MAX + 1), why, shown),
        CONFIG_SET_BAD);
    T_ZEQ(why, "the value has 4097 bytes; at most 4096 are allowed");
    T_EQ(try_set(CONFIG_SECTION_upstream, path, str_n("a\0b", 3), why, shown), CONFIG_SET_BAD);
    T_ZEQ(why, "the value holds a control character (byte 0x00)");
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_durations_need_a_unit_and_know_six),
        TEST(test_sizes_count_in_1024_and_ignore_case),
        TEST(test_formats_read_back_to_the_same_number),
        TEST(test_modes_are_octal_permission_bits),
        TEST(test_urls_that_are_read),
        TEST(test_urls_that_are_refused_say_why),
        TEST(test_urls_never_show_userinfo),
        TEST(test_url_hosts_of_any_length_are_safe),
        TEST(test_addresses),
        TEST(test_quotes_are_cut_and_clean),
        TEST(test_secret_keys_are_known_by_name),
        TEST(test_word_distance),
        TEST(test_every_bound_of_the_table),
        TEST(test_auto),
        TEST(test_words_of_each_type),
        TEST(test_refusals_say_what_is_allowed),
    };
    return TEST_MAIN(tests);
}
