/* [upstream NAME] sections: from file, environment and flags, and what goes together. */
#include "t.h"

#include "base/mem.h"
#include "config/config.h"

struct input {
    const char *file;
    const char *const *environ_list;
    const struct config_flag *flags; /* up to the first without a flag; NULL: none */
};

static struct config *
load(const struct input *in, bool ok, const char *want)
{
    struct config_source src = {.environ_list = in->environ_list, .flags = in->flags};
    struct buf errors;
    if (in->file != NULL) {
        src.file_name = "t.conf";
        src.file_text = str_of(in->file);
    }
    while (in->flags != NULL && in->flags[src.flag_count].flag != NULL)
        src.flag_count++;
    buf_init(&errors, 1 << 16);
    struct config *c = config_load(&src, &errors);
    T_STR(str_n(errors.p, errors.len), want);
    T_EQ(c != NULL, ok);
    buf_fini(&errors);
    return c;
}

#define LOADED(...)        load(&(struct input){__VA_ARGS__}, true, "")
#define REFUSED(want, ...) (void)load(&(struct input){__VA_ARGS__}, false, want)
#define ENV(...)                                                                                   \
    .environ_list = (const char *const[])                                                          \
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

static void
test_upstreams_come_from_everywhere(void **state)
{
    (void)state;
    struct config *c = LOADED(.file = "[upstream]\npool_size = 3\n"
                                      "[upstream dwh]\nurl = http://b:1\ndatabases = x, y\n"
                                      "[listen web]\naddress = unix:/a\nupstream = dwh\n",
        ENV("CHMUX_UPSTREAM_COLD_STORE_URL=http://c:1", "CHMUX_UPSTREAM_DWH_IDLE_TIMEOUT=5s",
            "CHMUX_UPSTREAM_IDLE_TIMEOUT=7s"),
        FLAGS(SET("upstream.flagged.url", "http://d:1"), SET("upstream.dwh.min_idle", "2")));
    T_EQ(c->upstream_count, 4);
    T_ZEQ(c->upstream_name[0], "default");
    T_EQ(c->upstream[0].pool_size, 3);
    T_EQ(c->upstream[0].idle_timeout, 7000000);
    T_ZEQ(c->upstream_name[1], "dwh");
    T_EQ(c->upstream[1].pool_size, 16); /* the table's, not the default upstream's */
    T_EQ(c->upstream[1].idle_timeout, 5000000);
    T_EQ(c->upstream[1].min_idle, 2);
    T_EQ(c->upstream[1].databases.count, 2);
    T_ZEQ(c->upstream_name[2], "cold_store");
    T_ZEQ(c->upstream[2].url.item[0], "http://c:1");
    T_ZEQ(c->upstream_name[3], "flagged");
    T_ZEQ(c->listen[0].upstream, "dwh");
    config_free(&c);
}

static void
test_upstreams_that_contradict_each_other(void **state)
{
    (void)state;
    REFUSED("t.conf:1: [upstream a] url: the upstream \"a\" has no url; write url = "
            "http://HOST:PORT\n",
        .file = "[upstream a]\npool_size = 2\n");
    REFUSED("environment CHMUX_UPSTREAM_TYPO_IDLE_TIMEOUT: the upstream \"typo\" has no url; write "
            "url = http://HOST:PORT\n",
        ENV("CHMUX_UPSTREAM_TYPO_IDLE_TIMEOUT=2s"));
    REFUSED("t.conf:5: [upstream b] databases: \"x\" is in databases of upstream \"a\" already; "
            "name each once\n",
        .file = "[upstream a]\nurl = http://a\ndatabases = x\n"
                "[upstream b]\ndatabases = y, x\nurl = http://b\n");
    REFUSED("t.conf:2: [upstream] users: \"u\" is in users of upstream \"default\" already; name "
            "each once\n",
        .file = "[upstream]\nusers = u, v, u\n");
    REFUSED("t.conf:3: [listen a] upstream: there is no [upstream NAME] with the name \"B\"\n",
        .file = "[listen a]\naddress = unix:/a\nupstream = B\n[upstream b]\nurl = http://b\n");
    REFUSED("t.conf:5: [upstream b] min_idle: min_idle (20) is more than pool_size (16); lower one "
            "or raise the other\n",
        .file = "[upstream]\nmin_idle = 1\n[upstream b]\nurl = http://b\nmin_idle = 20\n");
    REFUSED(
        "t.conf:3: [upstream b] pool_size: pool_size of all 2 upstreams (144) times 2 buffers of "
        "buffer_size (512k) is 144m, more than half of memory_limit (256m); raise memory_limit "
        "to 288m or lower the others\n",
        .file = "[upstream b]\nurl = http://b\npool_size = 128\n");
    REFUSED("t.conf:1: \"a b\" is not a name for [upstream NAME]; 1 to 32 letters, digits, - and _ "
            "are allowed\n",
        .file = "[upstream a b]\n");
}

/* One server in another spelling would be counted, and dialled, as two. */
static void
test_one_server_is_named_once(void **state)
{
    (void)state;
    REFUSED("--upstream: \"http://db.:8123\" is there twice; name each server once\n",
        FLAGS({"--upstream", "upstream.url", "http://db,http://db.:8123"}));
    REFUSED("--upstream: \"http://[fd00:0::1]\" is there twice; name each server once\n",
        FLAGS({"--upstream", "upstream.url", "http://[fd00::1],http://[fd00:0::1]"}));
    REFUSED("--upstream: \"http://[::ffff:10.0.0.1]\" is there twice; name each server once\n",
        FLAGS({"--upstream", "upstream.url", "http://10.0.0.1,http://[::ffff:10.0.0.1]"}));
    struct config *c = LOADED(FLAGS({"--upstream", "upstream.url",
        "http://db,http://db.x,http://[fd00::1],http://[fd00::2],http://10.0.0.1,http://db:1"}));
    config_free(&c);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_upstreams_come_from_everywhere),
        TEST(test_upstreams_that_contradict_each_other),
        TEST(test_one_server_is_named_once),
    };
    mem_init(16 << 20, 65536, 0);
    int failed = TEST_MAIN(tests);
    mem_fini();
    return failed;
}
