/* config_load() as a whole: precedence, every complaint with its place, hostile text, memory. */
#include "config/config.h"
#include "base/mem.h"
#include "t.h"

#define ERRORS_BYTES ((size_t)1 << 20)

struct input {
    const char *file; /* NULL: none */
    size_t file_len;  /* 0: up to the NUL */
    const char *const *environ_list;
    const struct config_flag *flags; /* up to the first without a flag; NULL: none */
    const char *const *passed_names;
};

static struct config *
load(const struct input *in, struct buf *errors)
{
    struct config_source src = {
        .environ_list = in->environ_list, .flags = in->flags, .passed_names = in->passed_names};
    while (in->passed_names != NULL && in->passed_names[src.passed_count] != NULL)
        src.passed_count++;
    if (in->file != NULL) {
        src.file_name = "t.conf";
        src.file_text = in->file_len > 0 ? str_n(in->file, in->file_len) : str_of(in->file);
    }
    while (in->flags != NULL && in->flags[src.flag_count].flag != NULL)
        src.flag_count++;
    return config_load(&src, errors);
}

/* What is complained about, errors and warnings, must be exactly `want`. */
static void
says(const struct input *in, bool ok, const char *want)
{
    struct buf errors;
    buf_init(&errors, ERRORS_BYTES);
    struct config *c = load(in, &errors);
    T_STR(str_n(errors.p, errors.len), want);
    T_EQ(c != NULL, ok);
    config_free(&c);
    T_TRUE(c == NULL);
    buf_fini(&errors);
}

#define REFUSED(want, ...) says(&(struct input){__VA_ARGS__}, false, want)
#define WARNED(want, ...)  says(&(struct input){__VA_ARGS__}, true, want)
#define ENV(...)                                                                                   \
    .environ_list = (const char *const[])                                                          \
    {                                                                                              \
        __VA_ARGS__, NULL                                                                          \
    }
#define PASSED(...)                                                                                \
    .passed_names = (const char *const[])                                                          \
    {                                                                                              \
        __VA_ARGS__, NULL                                                                          \
    }
#define FLAGS(...)                                                                                 \
    .flags = (const struct config_flag[])                                                          \
    {                                                                                              \
        __VA_ARGS__,                                                                               \
        {                                                                                          \
            0                                                                                      \
        }                                                                                          \
    }
#define SET(p, v)                                                                                  \
    {                                                                                              \
        "--set", p, v                                                                              \
    }

static struct config *
loaded(const struct input *in)
{
    struct buf errors;
    buf_init(&errors, ERRORS_BYTES);
    struct config *c = load(in, &errors);
    T_STR(str_n(errors.p, errors.len), "");
    T_TRUE(c != NULL);
    buf_fini(&errors);
    return c;
}
#define LOADED(...) loaded(&(struct input){__VA_ARGS__})

static void
test_nothing_given_gives_the_defaults(void **state)
{
    (void)state;
    struct config *c = LOADED(.file = NULL);
    T_EQ(c->chmux.max_clients, 10000);
    T_EQ(c->chmux.memory_limit, (size_t)256 << 20);
    T_EQ(c->chmux.head_timeout, 10000000);
    T_FALSE(c->chmux.allow_remote);
    T_EQ(c->upstream[0].url.count, 1);
    T_ZEQ(c->upstream[0].url.item[0], "http://127.0.0.1:18123");
    T_EQ(c->upstream[0].pool_size, 16);
    T_EQ(c->upstream[0].on_disconnect, ON_DISCONNECT_KILL);
    T_EQ(c->upstream[0].tls_min_version, TLS_VERSION_1_2);
    T_TRUE(c->upstream[0].tls_verify);
    T_ZEQ(c->upstream[0].tls_ca_file, "");
    T_EQ(c->admin.address.count, 0);
    T_EQ(c->log.level, LOG_INFO);
    T_EQ(c->log.format, LOG_TEXT);
    T_EQ(c->listen_count, 2);
    T_ZEQ(c->listen_name[0], "default4");
    T_ZEQ(c->listen[0].address, "127.0.0.1:8123");
    T_ZEQ(c->listen_name[1], "default6");
    T_ZEQ(c->listen[1].address, "[::1]:8123");
    T_ZEQ(c->listen[1].mode, "0660");
    T_EQ(c->listen[1].backlog, 4096);
    T_TRUE(config_listen_is_default(c, 0) && config_listen_is_default(c, 1));
    config_free(&c);
    c = LOADED(.file = "");
    T_EQ(c->listen_count, 2);
    config_free(&c);
    config_free(&c); /* NULL is fine */
}

static void
test_flags_beat_environment_beats_file_beats_defaults(void **state)
{
    (void)state;
    struct config *c = LOADED(.file = "[upstream]\n"
                                      "pool_size = 2\n"
                                      "queue_size = 2\n"
                                      "min_idle = 2\n",
        ENV("CHMUX_UPSTREAM_QUEUE_SIZE=3", "PATH=/bin", "CHMUX_UPSTREAM_MIN_IDLE=1"),
        FLAGS({"--pool-size", "upstream.pool_size", "4"}, SET("upstream.min_idle", "3"),
            SET("upstream.pool_size", "5")));
    T_EQ(c->upstream[0].connect_concurrency, 4); /* default */
    T_EQ(c->upstream[0].queue_size, 3);          /* environment over file */
    T_EQ(c->upstream[0].min_idle, 3);            /* flag over both */
    T_EQ(c->upstream[0].pool_size, 5);           /* the later flag */
    config_free(&c);
}

static void
test_files_may_be_written_in_many_ways(void **state)
{
    (void)state;
    struct config *c = LOADED(.file = "\xef\xbb\xbf# a comment\r\n"
                                      "; another ; = [\r\n"
                                      "\r\n"
                                      "  [ upstream ]  ; the servers\r\n"
                                      "\turl=http://a:1 , http://b:2,\r\n"
                                      "    pool_size : 7 ; not 8\r\n"
                                      "    tls_server_name =\r\n"
                                      "[log]# here too\r\n"
                                      "level = DEBUG");
    T_EQ(c->upstream[0].url.count, 2);
    T_ZEQ(c->upstream[0].url.item[0], "http://a:1");
    T_ZEQ(c->upstream[0].url.item[1], "http://b:2");
    T_EQ(c->upstream[0].pool_size, 7); /* indented, and no continuation of url */
    T_ZEQ(c->upstream[0].tls_server_name, "");
    T_EQ(c->log.level, LOG_DEBUG);
    config_free(&c);
}

/* A section that is always there: its own name and no name mean the same one. */
static void
test_the_default_upstream_may_be_named(void **state)
{
    (void)state;
    struct config *c = LOADED(.file = "[upstream]\nqueue_size = 2\n"
                                      "[upstream default]\nmin_idle = 3\n",
        ENV("CHMUX_UPSTREAM_DEFAULT_MAX_AGE=5s", "CHMUX_UPSTREAM_POOL_SIZE=6"),
        FLAGS(SET("upstream.default.url", "http://a:1"), SET("upstream.connect_timeout", "2s")));
    T_EQ(c->upstream_count, 1);
    T_ZEQ(c->upstream_name[0], "default");
    T_EQ(c->upstream[0].queue_size, 2);
    T_EQ(c->upstream[0].min_idle, 3);
    T_EQ(c->upstream[0].max_age, 5000000);
    T_EQ(c->upstream[0].pool_size, 6);
    T_ZEQ(c->upstream[0].url.item[0], "http://a:1");
    T_EQ(c->upstream[0].connect_timeout, 2000000);
    config_free(&c);
    REFUSED("t.conf:4: [upstream] pool_size: given twice; line 2 has it already\n",
        .file = "[upstream default]\npool_size = 3\n[upstream]\npool_size = 3\n");
}

static void
test_listeners_come_from_everywhere(void **state)
{
    (void)state;
    struct config *c = LOADED(.file = "[listen web]\naddress = 127.0.0.1:1\n"
                                      "[listen my-app]\naddress = unix:/a\nmode = 0600\n",
        ENV("CHMUX_LISTEN_MY_APP_BACKLOG=9", "CHMUX_LISTEN_EXTRA_ONE_ADDRESS=[::1]:2"),
        FLAGS({"--listen", "listen.flag1.address", "127.0.0.1:0"},
            {"--listen", "listen.flag2.address", "127.0.0.1:0"},
            SET("listen.web.address", "127.0.0.1:3")));
    T_EQ(c->listen_count, 5);
    T_ZEQ(c->listen_name[0], "web");
    T_ZEQ(c->listen[0].address, "127.0.0.1:3");
    T_ZEQ(c->listen_name[1], "my-app");
    T_EQ(c->listen[1].backlog, 9);
    T_ZEQ(c->listen[1].mode, "0600");
    T_ZEQ(c->listen_name[2], "extra_one");
    T_ZEQ(c->listen[2].address, "[::1]:2");
    T_ZEQ(c->listen_name[3], "flag1");
    T_ZEQ(c->listen_name[4], "flag2");
    for (size_t i = 0; i < 5; i++)
        T_FALSE(config_listen_is_default(c, i));
    config_free(&c);
}

static void
test_file_errors_name_the_line(void **state)
{
    (void)state;
    REFUSED("t.conf:2: [upstream] pool_size: \"0\" is too small; 1 to 4096 is allowed\n",
        .file = "[upstream]\npool_size = 0\n");
    REFUSED("t.conf:1: unknown section \"upstraem\"; did you mean [upstream]?\n",
        .file = "[upstraem]\nanything = goes\n");
    REFUSED("t.conf:1: unknown section \"backend\"; [chmux], [listen NAME], [upstream], [user "
            "NAME], [admin] and [log] are known\n",
        .file = "[backend]\n");
    REFUSED("t.conf:2: [upstream]: unknown key \"pol_size\"; did you mean pool_size?\n",
        .file = "[upstream]\npol_size = 1\n");
    REFUSED("t.conf:2: [log]: unknown key \"pool_size\"; did you mean pool_size in [upstream]?\n",
        .file = "[log]\npool_size = 1\n");
    REFUSED("t.conf:2: [log]: unknown key \"colour\"; docs/CONFIG.md lists them all\n",
        .file = "[log]\ncolour = 1\n");
    REFUSED("t.conf:2: [log]: unknown key \"\"; docs/CONFIG.md lists them all\n",
        .file = "[log]\n= 1\n");
    REFUSED(
        "t.conf:1: \"pool_size\" stands before the first [section]\n", .file = "pool_size = 3\n");
    REFUSED("t.conf:4: [upstream] pool_size: given twice; line 2 has it already\n",
        .file = "[upstream]\npool_size = 3\n[upstream]\npool_size = 3\n");
    REFUSED("t.conf:2: [log]: the line is neither key = value nor [section] nor a comment (; or "
            "#)\n",
        .file = "[log]\nlevel\n");
    REFUSED("t.conf:1: the line is neither key = value nor [section] nor a comment (; or #)\n",
        .file = "level");
    REFUSED("t.conf:1: \"[log\" has no ]\n", .file = "[log\nlevel = x\n");
    REFUSED("t.conf:1: \"level = debug\" stands behind a section; write it on a line of its own\n",
        .file = "[log] level = debug\n");
    REFUSED("t.conf:1: [log]: this section takes no name; write [log]\n", .file = "[log file]\n");
    REFUSED("t.conf:1: [listen]: this section needs a name; write [listen NAME], with any NAME\n",
        .file = "[listen]\naddress = 127.0.0.1:1\n");
    REFUSED(
        "t.conf:1: \"a.b\" is not a name for [listen NAME]; 1 to 32 letters, digits, - and _ are "
        "allowed\n",
        .file = "[listen a.b]\naddress = 127.0.0.1:1\n");
    REFUSED(
        "t.conf:1: \"a b\" is not a name for [listen NAME]; 1 to 32 letters, digits, - and _ are "
        "allowed\n",
        .file = "[listen a b]\naddress = 127.0.0.1:1\n");
    REFUSED(
        "t.conf:3: \"A_b\" and \"a-b\" of [listen NAME] are one name in the environment; rename "
        "one\n",
        .file = "[listen a-b]\naddress = 127.0.0.1:1\n[listen A_b]\naddress = 127.0.0.1:2\n");
}

static void
test_environment_errors_name_the_variable(void **state)
{
    (void)state;
    REFUSED("environment CHMUX_UPSTREAM_POOL_SIZE: \"x\" is not a whole number; 1 to 4096 is "
            "allowed\n",
        ENV("CHMUX_UPSTREAM_POOL_SIZE=x"));
    REFUSED("environment CHMUX_UPSTREAM_URL: no URL is given; write http://HOST:PORT or "
            "https://HOST:PORT\n",
        ENV("CHMUX_UPSTREAM_URL="));
    REFUSED("environment CHMUX_UPSTREAM_POOLSIZE: unknown variable; did you mean "
            "CHMUX_UPSTREAM_POOL_SIZE?\n",
        ENV("CHMUX_UPSTREAM_POOLSIZE=3"));
    REFUSED("environment CHMUX_POOL_SIZE: unknown variable; did you mean "
            "CHMUX_UPSTREAM_POOL_SIZE?\n",
        ENV("CHMUX_POOL_SIZE=3"));
    REFUSED("environment CHMUX_Log_Level: unknown variable; did you mean CHMUX_LOG_LEVEL?\n",
        ENV("CHMUX_Log_Level=info"));
    REFUSED("environment CHMUX_LISTEN_ADDRESS: unknown variable; did you mean "
            "CHMUX_LISTEN_<NAME>_ADDRESS?\n",
        ENV("CHMUX_LISTEN_ADDRESS=127.0.0.1:1"));
    REFUSED("environment CHMUX_: unknown variable; CHMUX_<SECTION>_<KEY> and "
            "CHMUX_<SECTION>_<NAME>_<KEY> are allowed\n",
        ENV("CHMUX_="));
    REFUSED("environment CHMUX_FOO: unknown variable; CHMUX_<SECTION>_<KEY> and "
            "CHMUX_<SECTION>_<NAME>_<KEY> are allowed\n",
        ENV("CHMUX_FOO=1"));
    REFUSED(
        "environment CHMUX_LISTEN_A.B_ADDRESS: \"A.B\" is not a name for [listen NAME]; 1 to 32 "
        "letters, digits, - and _ are allowed\n",
        ENV("CHMUX_LISTEN_A.B_ADDRESS=127.0.0.1:1"));
    REFUSED("environment CHMUX_LISTEN_WEB_MODE: the listener \"web\" has no address; write "
            "HOST:PORT, [V6]:PORT, unix:/path or unix:@name, or have systemd pass a socket of that "
            "name (FileDescriptorName=)\n",
        ENV("CHMUX_LISTEN_WEB_MODE=0600"));
}

static void
test_service_links_of_kubernetes_are_passed_over(void **state)
{
    (void)state;
    struct config *c = LOADED(ENV("CHMUX_SERVICE_HOST=10.0.0.1", "CHMUX_SERVICE_PORT=8123",
        "CHMUX_SERVICE_PORT_HTTP=8123", "CHMUX_PORT=tcp://10.0.0.1:8123",
        "CHMUX_PORT_8123_TCP=tcp://10.0.0.1:8123", "CHMUX_PORT_8123_TCP_PROTO=tcp",
        "CHMUX_PORT_8123_TCP_PORT=8123", "CHMUX_PORT_8123_TCP_ADDR=10.0.0.1",
        "CHMUX_MY_APP_SERVICE_HOST=10.0.0.2", "CHMUX_MY_APP_PORT_53_UDP=udp://10.0.0.2:53"));
    config_free(&c);
    REFUSED("environment CHMUX_UPSTREAM_PORT: unknown variable; did you mean "
            "CHMUX_UPSTREAM_URL?\n"
            "environment CHMUX_PORT_X_TCP: unknown variable; CHMUX_<SECTION>_<KEY> and "
            "CHMUX_<SECTION>_<NAME>_<KEY> are allowed\n",
        ENV("CHMUX_UPSTREAM_PORT=8123", "CHMUX_PORT_X_TCP=1"));
}

static void
test_flag_errors_name_the_flag(void **state)
{
    (void)state;
    REFUSED("--pool-size: \"many\" is not a whole number; 1 to 4096 is allowed\n",
        FLAGS({"--pool-size", "upstream.pool_size", "many"}));
    REFUSED("--set upstream.pool_size: \"many\" is not a whole number; 1 to 4096 is allowed\n",
        FLAGS(SET("upstream.pool_size", "many")));
    REFUSED("--set upstream.pol_size: unknown key \"pol_size\"; did you mean pool_size?\n",
        FLAGS(SET("upstream.pol_size", "3")));
    REFUSED("--set upsteam.pool_size: unknown section \"upsteam\"; did you mean [upstream]?\n",
        FLAGS(SET("upsteam.pool_size", "3")));
    REFUSED("--set upstream: write section.key=value\n", FLAGS(SET("upstream", "3")));
    REFUSED("--set upstream.: write section.key=value\n", FLAGS(SET("upstream.", "3")));
    REFUSED(
        "--set listen.address: write listen.NAME.key=value\n", FLAGS(SET("listen.address", "3")));
    REFUSED(
        "--set listen..address: \"\" is not a name for [listen NAME]; 1 to 32 letters, digits, - "
        "and _ are allowed\n",
        FLAGS(SET("listen..address", "3")));
    REFUSED("--set : unknown section \"\"; [chmux], [listen NAME], [upstream], [user NAME], "
            "[admin] and [log] are known\n",
        FLAGS(SET("", "3")));
    REFUSED("--listen: \"8123\" has no port; write 127.0.0.1:8123\n",
        FLAGS({"--listen", "listen.flag1.address", "8123"}));
    REFUSED("--upstream: \"http://***@db\" holds a user name or password; leave it out, clients "
            "send their own\n",
        FLAGS({"--upstream", "upstream.url", "http://ann:pw@db"}));
    REFUSED("--upstream: a URL with a user name or password; leave it out, clients send their "
            "own\n",
        FLAGS({"--upstream", "upstream.url", "http://ann:p,w@db"}));
    REFUSED("--listen: the name \"flag1\" that this flag gives its listener is taken by a section "
            "or a variable; rename that one\n",
        .file = "[listen flag1]\naddress = 127.0.0.1:1\n",
        FLAGS({"--listen", "listen.flag1.address", "127.0.0.1:2"}));
}

static void
test_all_errors_are_told_at_once(void **state)
{
    (void)state;
    REFUSED("t.conf:2: [upstream] pool_size: \"0\" is too small; 1 to 4096 is allowed\n"
            "t.conf:3: [upstream]: unknown key \"x\"; docs/CONFIG.md lists them all\n"
            "environment CHMUX_LOG_LEVEL: \"loud\" is not known; error, warn, info or debug is "
            "allowed\n"
            "--set log.format: \"xml\" is not known; text or json is allowed\n"
            "t.conf:4: [upstream] eject_min: eject_min (1m) is more than eject_max (30s); lower "
            "one or raise the other\n",
        .file = "[upstream]\npool_size = 0\nx = 1\neject_min = 1m\n", ENV("CHMUX_LOG_LEVEL=loud"),
        FLAGS(SET("log.format", "xml")));
}

static void
test_wrong_files_do_not_flood(void **state)
{
    (void)state;
    static char text[2 * 1000];
    for (size_t i = 0; i < sizeof(text); i += 2)
        memcpy(text + i, "x\n", 2);
    struct buf errors;
    buf_init(&errors, ERRORS_BYTES);
    struct input in = {.file = text, .file_len = sizeof(text)};
    T_TRUE(load(&in, &errors) == NULL);
    size_t lines = 0;
    for (size_t i = 0; i < errors.len; i++)
        lines += errors.p[i] == '\n';
    T_EQ(lines, 51);
    const char tail[] = "... and 950 more errors\n";
    T_TRUE(memcmp(errors.p + errors.len - strlen(tail), tail, strlen(tail)) == 0);
    buf_fini(&errors);
}

static void
test_options_that_contradict_each_other(void **state)
{
    (void)state;
    REFUSED("t.conf:2: [upstream] min_idle: min_idle (20) is more than pool_size (16); lower one "
            "or raise the other\n",
        .file = "[upstream]\nmin_idle = 20\n");
    /* The complaint goes to what was set last. */
    REFUSED("--pool-size: min_idle (5) is more than pool_size (4); lower one or raise the other\n",
        .file = "[upstream]\nmin_idle = 5\n", FLAGS({"--pool-size", "upstream.pool_size", "4"}));
    struct config *c = LOADED(FLAGS(SET("chmux.memory_limit", "32m"),
        SET("upstream.min_idle", "16"), SET("upstream.eject_min", "30s"))); /* all three just fit */
    config_free(&c);
    REFUSED("--pool-size: pool_size (17) times 2 buffers of buffer_size (512k) is 17m, more than "
            "half of memory_limit (32m); raise memory_limit to 34m or lower the others\n",
        .file = "[chmux]\nmemory_limit = 32m\n",
        FLAGS({"--pool-size", "upstream.pool_size", "17"}));
    /* One complaint for one slip: the refused pool_size is not compared. */
    REFUSED("t.conf:2: [upstream] pool_size: \"0\" is too small; 1 to 4096 is allowed\n",
        .file = "[upstream]\npool_size = 0\nmin_idle = 20\n");
}

static void
test_tls_options_that_contradict_each_other(void **state)
{
    (void)state;
    REFUSED("t.conf:3: [upstream] tls_cert_file: is set without tls_key_file; set both or "
            "neither\n",
        .file = "[upstream]\nurl = https://db\ntls_cert_file = /c.pem\n");
    REFUSED("environment CHMUX_UPSTREAM_TLS_KEY_FILE: is set without tls_cert_file; set both or "
            "neither\n",
        .file = "[upstream]\nurl = https://db\n", ENV("CHMUX_UPSTREAM_TLS_KEY_FILE=/k.pem"));
    WARNED("warning: t.conf:2: [upstream] tls_ca_file: has no effect: no url begins with "
           "https://\n",
        .file = "[upstream]\ntls_ca_file = /ca.pem\ntls_verify = yes\n");
    WARNED("warning: --set upstream.tls_verify: the server's certificate is not checked, so anyone "
           "on the way can read and change everything; for tests only\n",
        FLAGS(SET("upstream.url", "http://a, https://b"), SET("upstream.tls_verify", "no")));
    struct config *c = LOADED(.file = "[upstream]\nurl = https://db\ntls_cert_file = /c.pem\n"
                                      "tls_key_file = /k.pem\ntls_min_version = 1.3\n");
    T_ZEQ(c->upstream[0].tls_cert_file, "/c.pem");
    T_EQ(c->upstream[0].tls_min_version, TLS_VERSION_1_3);
    config_free(&c);
}

static void
test_urls_that_contradict_each_other(void **state)
{
    (void)state;
    REFUSED("--upstream: \"http://DB:8123\" is there twice; name each server once\n",
        FLAGS({"--upstream", "upstream.url", "http://db,http://DB:8123"}));
    WARNED("warning: --upstream: port 9000 is usually ClickHouse's native protocol; chmux speaks "
           "HTTP (8123, or 8443 with TLS)\n",
        FLAGS({"--upstream", "upstream.url", "http://db:9000"}));
}

/* chmux in front of itself. */
static void
test_urls_that_lead_back(void **state)
{
    (void)state;
    static const char *const pairs[][2] = {{"127.0.0.1:8123", "http://127.0.0.1:8123"},
        {"127.0.0.1:8123", "https://localhost:8123"}, {"[::1]:8123", "http://[::1]:8123"},
        {"*:8123", "http://127.0.0.1:8123"}, {"[::]:8123", "http://[::1]:8123"},
        {"10.0.0.1:8123", "http://10.0.0.1:8123"}};
    char want[512];
    for (size_t i = 0; i < COUNT_OF(pairs); i++) {
        snprintf(want, sizeof want,
            "--upstream: \"%s\" is chmux itself, by listener \"flag1\" (%s); give ClickHouse or "
            "that listener another port\n",
            pairs[i][1], pairs[i][0]);
        REFUSED(want, FLAGS(SET("chmux.allow_remote", "yes"),
                          {"--listen", "listen.flag1.address", pairs[i][0]},
                          {"--upstream", "upstream.url", pairs[i][1]}));
    }
    static const char *const fine[][2] = {{"127.0.0.1:8123", "http://127.0.0.2:8123"},
        {"127.0.0.1:8123", "http://127.0.0.1:18123"}, {"127.0.0.1:8123", "http://db:8123"},
        {"127.0.0.1:8123", "http://[::1]:8123"}, {"*:8123", "http://10.0.0.1:8123"},
        {"unix:/8123", "http://127.0.0.1:8123"}, {"10.0.0.1:8123", "http://localhost:8123"}};
    for (size_t i = 0; i < COUNT_OF(fine); i++) {
        struct config *c = LOADED(FLAGS(SET("chmux.allow_remote", "yes"),
            {"--listen", "listen.flag1.address", fine[i][0]},
            {"--upstream", "upstream.url", fine[i][1]}));
        config_free(&c);
    }
}

/* Sockets that the service manager passed stand for addresses, and for the built-in listeners. */
static void
test_passed_sockets(void **state)
{
    (void)state;
    struct config *c = LOADED(.file = "[listen web]\n", PASSED("web", "admin"));
    T_EQ(c->listen_count, 1);
    T_ZEQ(c->listen[0].address, "");
    config_free(&c);
    c = LOADED(.file = "", PASSED("chmux.socket"));
    T_EQ(c->listen_count, 0);
    config_free(&c);
    c = LOADED(.file = "", PASSED("admin"));
    T_EQ(c->listen_count, 2); /* no place for clients was passed */
    config_free(&c);
    REFUSED("t.conf:1: [listen admin] address: the listener \"admin\" has no address; write "
            "HOST:PORT, [V6]:PORT, unix:/path or unix:@name, or have systemd pass a socket of that "
            "name (FileDescriptorName=)\n",
        .file = "[listen admin]\n", PASSED("admin"));
}

static void
test_listeners_that_contradict_each_other(void **state)
{
    (void)state;
    REFUSED("t.conf:1: [listen web] address: the listener \"web\" has no address; write HOST:PORT, "
            "[V6]:PORT, unix:/path or unix:@name, or have systemd pass a socket of that name "
            "(FileDescriptorName=)\n",
        .file = "[listen web]\n");
    REFUSED("t.conf:4: [listen b] address: 127.0.0.1:1 is the address of listener \"a\" too; use "
            "each once\n",
        .file = "[listen a]\naddress = 127.0.0.1:1\n[listen b]\naddress = 127.0.0.1:1\n");
    REFUSED("--admin: 127.0.0.1:8123 is the address of listener \"default4\" too; use each once\n",
        FLAGS({"--admin", "admin.address", "127.0.0.1:8123"}));
    REFUSED("--listen: \"0.0.0.0:8123\" is not a loopback address, so others could use the pool; "
            "set [chmux] allow_remote = yes if that is meant\n",
        FLAGS({"--listen", "listen.flag1.address", "0.0.0.0:8123"}));
    WARNED("warning: t.conf:3: [listen a] group: has no effect: \"127.0.0.1:1\" is not a unix "
           "socket\n",
        .file = "[listen a]\naddress = 127.0.0.1:1\ngroup = users\nmode = 0660\n");
    struct config *c = LOADED(.file = "[listen a]\naddress = unix:/run/A\n"
                                      "[listen b]\naddress = unix:/run/a\n"
                                      "[listen c]\naddress = *:0\n"
                                      "[listen d]\naddress = *:0\n"
                                      "[chmux]\nallow_remote = yes\n");
    T_EQ(c->listen_count, 4);
    config_free(&c);
}

static void
test_there_is_a_bound_on_listeners(void **state)
{
    (void)state;
    static char names[CONFIG_MAX_LISTEN + 1][32];
    struct config_flag flags[CONFIG_MAX_LISTEN + 2] = {0};
    struct input in = {.flags = flags};
    for (size_t i = 0; i <= CONFIG_MAX_LISTEN; i++) {
        snprintf(names[i], sizeof(names[i]), "listen.flag%zu.address", i);
        flags[i] = (struct config_flag){"--listen", names[i], "127.0.0.1:0"};
    }
    says(&in, false, "--listen: too many [listen NAME] sections; at most 32 are allowed\n");
    flags[CONFIG_MAX_LISTEN] = (struct config_flag){0};
    struct config *c = loaded(&in);
    T_EQ(c->listen_count, CONFIG_MAX_LISTEN);
    config_free(&c);
}

/* inih cuts lines at 200 bytes unless told otherwise; neither it nor we may do so silently. */
static void
test_long_lines_are_read_or_refused_never_cut(void **state)
{
    (void)state;
    static char text[32768];
    const char head[] = "[upstream]\ntls_ca_file = ";
    const size_t head_len = sizeof(head) - 1;
    for (size_t len = 150; len <= 4096; len += len < 250 ? 1 : 641) {
        memset(text, 'a', sizeof(text));
        memcpy(text, head, head_len);
        memcpy(text + head_len + len, "\npool_size = 3\n", 16);
        struct buf errors;
        buf_init(&errors, ERRORS_BYTES);
        struct input in = {.file = text};
        struct config *c = load(&in, &errors);
        T_TRUE(c != NULL);
        T_EQ(strlen(c->upstream[0].tls_ca_file), len);
        T_EQ(c->upstream[0].pool_size, 3);
        config_free(&c);
        buf_fini(&errors);
    }
    memset(text, 'a', sizeof(text));
    memcpy(text, head, head_len);
    memcpy(text + head_len + 4097, "\npool_size = 0\n", 16);
    REFUSED("t.conf:2: [upstream] tls_ca_file: the value has 4097 bytes; at most 4096 are "
            "allowed\n"
            "t.conf:3: [upstream] pool_size: \"0\" is too small; 1 to 4096 is allowed\n",
        .file = text);
    memset(text, 'a', sizeof(text));
    memcpy(text, head, head_len);
    memcpy(text + head_len + 20000, "\npool_size = 0\n", 16);
    REFUSED("t.conf:2: the line has 20014 bytes; 8191 are allowed\n"
            "t.conf:3: [upstream] pool_size: \"0\" is too small; 1 to 4096 is allowed\n",
        .file = text);
    /* The longest line there is room for, and one byte more. */
    memset(text, 'a', sizeof(text));
    memcpy(text, "[log]\n", 6);
    memcpy(text + 6 + 8191, "\n", 2);
    REFUSED("t.conf:2: [log]: the line is neither key = value nor [section] nor a comment (; or "
            "#)\n",
        .file = text);
    memset(text + 6, 'a', 8192);
    memcpy(text + 6 + 8192, "\n", 2);
    REFUSED("t.conf:2: the line has 8192 bytes; 8191 are allowed\n", .file = text);
    /* A section name longer than inih's 49 bytes is not cut to one that exists. */
    REFUSED("t.conf:1: \"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\" is not a "
            "name for [listen NAME]; 1 to 32 letters, digits, - and _ are allowed\n",
        .file = "[listen aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa]\n");
}

static void
test_hostile_bytes(void **state)
{
    (void)state;
    REFUSED("t.conf:2: byte 0x00 in the line; text without control characters is allowed\n",
        .file = "[log]\nlevel = in\0fo\n", .file_len = 20);
    REFUSED("t.conf:2: byte 0x0d in the line; text without control characters is allowed\n",
        .file = "[log]\nlevel = info\rformat = json\n");
    REFUSED("t.conf:2: byte 0x1b in the line; text without control characters is allowed\n",
        .file = "[log]\nlevel = \x1b[31minfo\n");
    REFUSED("t.conf:1: byte 0x00 in the line; text without control characters is allowed\n",
        .file = "\0", .file_len = 1);
    REFUSED("environment CHMUX_LOG_?LEVEL: unknown variable; did you mean CHMUX_LOG_LEVEL?\n",
        ENV("CHMUX_LOG_\nLEVEL=info"));
    REFUSED("environment CHMUX_LOG_LEVEL: the value holds a control character (byte 0x7f)\n",
        ENV("CHMUX_LOG_LEVEL=a\x7f"
            "b"));
    static char big[(1 << 20) + 1];
    memset(big, '\n', sizeof(big));
    REFUSED("t.conf: the file has 1048577 bytes; at most 1048576 are allowed in a configuration "
            "file\n",
        .file = big, .file_len = sizeof(big));
}

static const char everything[] = "[chmux]\n"
                                 "max_clients = 77\n"
                                 "allow_remote = yes\n"
                                 "head_timeout = 1500ms\n"
                                 "[listen a]\n"
                                 "address = unix:@x;y\n"
                                 "mode = 600\n"
                                 "[listen b]\n"
                                 "address = *:1\n"
                                 "[upstream]\n"
                                 "url = https://a, https://[::2]:1\n"
                                 "tls_ca_file = /etc/with space.pem\n"
                                 "tls_min_version = 1.3\n"
                                 "replay_buffer = 0\n"
                                 "on_disconnect = close\n"
                                 "[log]\n"
                                 "access = yes\n"
                                 "format = json\n";

static struct buf
printed(const struct input *in)
{
    struct config *c = loaded(in);
    struct buf out;
    buf_init(&out, ERRORS_BYTES);
    config_print(c, &out);
    T_TRUE(buf_ok(&out));
    config_free(&c);
    return out;
}

/* Values only: everything up to the comment that says where one comes from. */
static void
drop_comments(struct buf *b)
{
    size_t w = 0;
    for (size_t i = 0; i < b->len; i++) {
        if (b->p[i] == ' ' && i + 1 < b->len && (b->p[i + 1] == ';' || b->p[i + 1] == ' '))
            while (i + 1 < b->len && b->p[i + 1] != '\n')
                i++;
        else
            b->p[w++] = b->p[i];
    }
    b->len = w;
}

static void
prints_what_loads_to_the_same(const struct input *in, bool built_in_listeners)
{
    struct buf first = printed(in);
    struct input again = {.file = first.p, .file_len = first.len};
    struct config *c = loaded(&again);
    for (size_t i = 0; i < c->listen_count; i++)
        T_EQ(config_listen_is_default(c, i), built_in_listeners);
    config_free(&c);
    struct buf second = printed(&again);
    drop_comments(&first);
    drop_comments(&second);
    buf_add(&first, "", 1);
    T_STR(str_n(second.p, second.len), first.p);
    buf_fini(&first);
    buf_fini(&second);
}

static void
test_what_is_printed_loads_to_the_same(void **state)
{
    (void)state;
    prints_what_loads_to_the_same(&(struct input){.file = NULL}, true);
    prints_what_loads_to_the_same(&(struct input){.file = everything}, false);
    prints_what_loads_to_the_same(
        &(struct input){.file = everything,
            ENV("CHMUX_UPSTREAM_POOL_SIZE=3"),
            FLAGS(SET("listen.a.backlog", "5"), {"--listen", "listen.flag1.address", "[::1]:9"})},
        false);
    static char path[CONFIG_MAX_LISTEN + 4096];
    memset(path, 'p', 4096);
    prints_what_loads_to_the_same(
        &(struct input){.file = everything, FLAGS(SET("upstream.tls_ca_dir", path))}, false);
}

static void
has_line(const struct buf *b, const char *line)
{
    const char *at = memmem(b->p, b->len, line, strlen(line));
    if (at == NULL)
        print_error("no line \"%s\" in:\n%.*s", line, (int)b->len, b->p);
    T_TRUE(at != NULL && at > b->p && at[-1] == '\n' && at[strlen(line)] == '\n');
}

static void
test_print_says_where_each_value_comes_from(void **state)
{
    (void)state;
    struct buf out = printed(&(struct input){.file = everything,
        ENV("CHMUX_UPSTREAM_POOL_SIZE=3"),
        FLAGS({"--admin", "admin.address", "unix:/a"}, SET("upstream.min_idle", "1"))});
    has_line(&out, "[chmux]");
    has_line(&out, "max_clients = 77                            ; t.conf:2");
    has_line(&out, "memory_limit = 256m                         ; default");
    has_line(&out, "[listen a]");
    has_line(&out, "address = unix:@x;y                         ; t.conf:6");
    has_line(&out, "pool_size = 3                               ; environment "
                   "CHMUX_UPSTREAM_POOL_SIZE");
    has_line(&out, "min_idle = 1                                ; --set upstream.min_idle");
    has_line(&out, "address = unix:/a                           ; --admin");
    has_line(&out, "url = https://a, https://[::2]:1            ; t.conf:11");
    has_line(&out, "tls_key_file =                              ; default");
    buf_fini(&out);
    out = printed(&(struct input){.file = NULL});
    has_line(&out, "# [listen default6]");
    has_line(&out, "# address = [::1]:8123                      ; default");
    buf_fini(&out);
}

/* Whichever allocation fails, nothing leaks, nothing crashes, and the answer is no configuration or
 * a whole one. */
static void
test_any_allocation_may_fail(void **state)
{
    (void)state;
    const struct input in = {.file = everything,
        ENV("CHMUX_UPSTREAM_POOL_SIZE=3", "CHMUX_LISTEN_C_ADDRESS=[::1]:1"),
        FLAGS(SET("listen.a.backlog", "5"), {"--listen", "listen.flag1.address", "[::1]:9"})};
    struct buf good = printed(&in);
    size_t failed = 0;
    for (uint64_t n = 1; n < 200; n++) { /* far more than there are */
        struct buf errors, out;
        buf_init(&errors, ERRORS_BYTES);
        buf_init(&out, ERRORS_BYTES);
        mem_fail_at(n);
        struct config *c = load(&in, &errors);
        mem_fail_at(0);
        if (c != NULL) {
            config_print(c, &out);
            buf_add(&out, "", 1);
            T_STR(str_n(good.p, good.len), out.p);
        } else {
            failed++;
            T_STR(str_n(errors.p, errors.len), "out of memory while reading the configuration\n");
        }
        config_free(&c);
        buf_fini(&errors);
        buf_fini(&out);
    }
    T_TRUE(failed > 30);
    buf_fini(&good);
}

/* A complaint that finds no memory is still a refusal. */
static void
test_errors_that_cannot_be_written_still_refuse(void **state)
{
    (void)state;
    struct buf errors;
    buf_init(&errors, 0);
    const struct input in = {.file = "[upstream]\npool_size = 0\n"};
    T_TRUE(load(&in, &errors) == NULL);
    T_FALSE(buf_ok(&errors));
    buf_fini(&errors);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_nothing_given_gives_the_defaults),
        TEST(test_flags_beat_environment_beats_file_beats_defaults),
        TEST(test_files_may_be_written_in_many_ways),
        TEST(test_the_default_upstream_may_be_named),
        TEST(test_listeners_come_from_everywhere),
        TEST(test_file_errors_name_the_line),
        TEST(test_environment_errors_name_the_variable),
        TEST(test_service_links_of_kubernetes_are_passed_over),
        TEST(test_flag_errors_name_the_flag),
        TEST(test_all_errors_are_told_at_once),
        TEST(test_wrong_files_do_not_flood),
        TEST(test_options_that_contradict_each_other),
        TEST(test_tls_options_that_contradict_each_other),
        TEST(test_urls_that_contradict_each_other),
        TEST(test_urls_that_lead_back),
        TEST(test_passed_sockets),
        TEST(test_listeners_that_contradict_each_other),
        TEST(test_there_is_a_bound_on_listeners),
        TEST(test_long_lines_are_read_or_refused_never_cut),
        TEST(test_hostile_bytes),
        TEST(test_what_is_printed_loads_to_the_same),
        TEST(test_print_says_where_each_value_comes_from),
        TEST(test_any_allocation_may_fail),
        TEST(test_errors_that_cannot_be_written_still_refuse),
    };
    return TEST_MAIN(tests);
}
