/* args: what the command line may say, and how it is told what is wrong. */
#include "ctl/args.h"
#include "t.h"

#define WORDS_MAX 8

static char said[4096];

/* Parses the words of a line, parted by spaces; what was said is in `said`. */
static enum args_result
parse_env(struct args *a, const char *line, const char *env)
{
    static char text[512];
    char *argv[WORDS_MAX + 2] = {(char[]){"chmux"}};
    int argc = 1;
    struct buf say;
    buf_init(&say, sizeof said - 1);
    snprintf(text, sizeof text, "%s", line);
    char *rest = text, *word;
    while ((word = strsep(&rest, " ")) != NULL) {
        T_TRUE(argc <= WORDS_MAX);
        if (word[0] != '\0')
            argv[argc++] = word;
    }
    enum args_result r = args_parse(a, argc, argv, env, &say);
    T_TRUE(buf_ok(&say));
    snprintf(said, sizeof said, STR_FMT, STR_ARG(str_n(say.p, say.len)));
    buf_fini(&say);
    return r;
}

static enum args_result
parse(struct args *a, const char *line)
{
    return parse_env(a, line, NULL);
}

static void
bad(const char *line, const char *part)
{
    struct args a;
    T_EQ(parse(&a, line), ARGS_BAD);
    T_HAS(said, part);
    T_HAS(said, "usage: chmux");
}

static void
test_options_may_stand_anywhere(void **state)
{
    (void)state;
    struct args a;
    T_EQ(parse(&a, "show --json clients --limit 5 --admin /run/a.sock"), ARGS_OK);
    T_EQ(a.command, CMD_SHOW);
    T_ZEQ(a.argument, "clients");
    T_EQ(a.limit, 5);
    T_ZEQ(a.admin, "/run/a.sock");
    T_EQ(a.options, OPT_JSON | OPT_LIMIT | OPT_ADMIN);
    T_EQ(parse(&a, "pause --upstream=other-1"), ARGS_OK);
    T_ZEQ(a.upstream, "other-1");
    T_EQ(parse(&a, "--json kill 12"), ARGS_OK);
    T_EQ(a.command, CMD_KILL);
    T_ZEQ(a.argument, "12");
}

static void
test_every_command_is_taken(void **state)
{
    (void)state;
    static const char *const lines[] = {"status", "show memory", "top", "reload", "pause", "resume",
        "reconnect", "kill 1", "log-level debug", "drain", "shutdown --now",
        "wait --ready --upstream", "check /etc/chmux/chmux.conf"};
    for (size_t i = 0; i < COUNT_OF(lines); i++) {
        struct args a;
        T_EQ(parse(&a, lines[i]), ARGS_OK);
        T_EQ(a.command, i);
    }
    struct args a;
    T_EQ(parse(&a, "help"), ARGS_HELP);
    T_EQ(parse(&a, "kill --help"), ARGS_HELP);
    T_EQ(parse(&a, "-h"), ARGS_HELP);
    T_EQ(parse(&a, "--version"), ARGS_VERSION);
    T_EQ(COUNT_OF(lines) + 1, CMD_COUNT);
}

/* --admin beats the environment beats the built-in one; chmuxd's list means its first. */
static void
test_the_address_comes_from_three_places(void **state)
{
    (void)state;
    struct args a;
    T_EQ(parse(&a, "status"), ARGS_OK);
    T_ZEQ(a.admin, ARGS_DEFAULT_ADDRESS);
    T_EQ(parse_env(&a, "status", ""), ARGS_OK);
    T_ZEQ(a.admin, ARGS_DEFAULT_ADDRESS);
    T_EQ(parse_env(&a, "status", "unix:/tmp/a,127.0.0.1:1"), ARGS_OK);
    T_ZEQ(a.admin, "unix:/tmp/a,127.0.0.1:1");
    T_EQ(parse_env(&a, "status --admin [::1]:8124", "unix:/tmp/a"), ARGS_OK);
    T_ZEQ(a.admin, "[::1]:8124");
    T_EQ(parse_env(&a, "status", "nonsense"), ARGS_BAD);
    T_HAS(said, "CHMUX_ADMIN_ADDRESS=\"nonsense\": ");
    T_EQ(parse_env(&a, "check f", "nonsense"), ARGS_OK); /* asks nobody */
}

static void
test_times_are_seconds_or_have_a_unit(void **state)
{
    (void)state;
    struct args a;
    T_EQ(parse(&a, "status --watch"), ARGS_OK);
    T_EQ(a.watch_us, 2000000);
    T_EQ(a.timeout_us, 10000000);
    T_EQ(parse(&a, "top"), ARGS_OK);
    T_EQ(a.watch_us, 1000000);
    T_EQ(parse(&a, "status --watch=0.5 --timeout 250ms"), ARGS_OK);
    T_EQ(a.watch_us, 500000);
    T_EQ(a.timeout_us, 250000);
    T_EQ(parse(&a, "wait --ready"), ARGS_OK);
    T_EQ(a.timeout_us, 30000000);
    T_EQ(parse(&a, "wait --ready --timeout=1m"), ARGS_OK);
    T_EQ(a.timeout_us, 60000000);
    static const char *const wrong[] = {"0", "-1", "nan", "inf", "1e99", "", "2x", "0.01", "2h"};
    for (size_t i = 0; i < COUNT_OF(wrong); i++) {
        char line[64];
        snprintf(line, sizeof line, "status --watch=%s", wrong[i]);
        bad(line, "want a time from 0.1 to 3600 seconds");
    }
}

static void
test_the_nearest_name_is_offered(void **state)
{
    (void)state;
    bad("statsu", "unknown command: statsu; did you mean status?");
    bad("recon", "did you mean reconnect?");
    bad("shutdwon", "did you mean shutdown?");
    bad("loglevel debug", "did you mean log-level?");
    bad("show exchnages", "unknown list: exchnages; did you mean exchanges?");
    bad("show endpoint", "did you mean endpoints?");
    bad("log-level warning", "did you mean warn?");
    bad("--jsn status", "unknown option: --jsn; did you mean --json?");
    bad("-x status", "unknown option: -x\n");
    bad("xyzzy", "unknown command: xyzzy\n"); /* nothing is near */
    bad("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        "unknown command: aaa");
}

static void
test_what_is_wrong_is_said(void **state)
{
    (void)state;
    bad("", "what to do?");
    bad("kill", "kill needs ID");
    bad("kill 1 2", "kill: unexpected argument: 2");
    bad("kill x", "kill x: want a number");
    bad("kill -- -1", "kill -1: want a number");
    bad("kill 99999999999999999999999", "want a number");
    bad("show", "show needs WHAT");
    bad("status now", "status: unexpected argument: now");
    bad("drain --now", "drain takes no --now");
    bad("top --json", "top takes no --json");
    bad("show memory --limit 5", "show memory takes no --limit");
    bad("wait", "wait for what?");
    bad("pause --upstream", "pause needs --upstream=NAME, or none for all");
    bad("pause --upstream=a&b", "--upstream a&b: want the name of an upstream");
    bad("status --upstream=a", "status takes no --upstream");
    bad("show pool --limit 0", "--limit 0: want a number from 1 to 10000");
    bad("show pool --limit", "--limit needs a value");
    bad("status --json=1", "--json takes no value");
    bad("status --admin nowhere", "--admin \"nowhere\": ");
    bad("status --admin unix:relative", "absolute path");
    bad("status --admin localhost:0", "an address is unix:/path, unix:@name, HOST:PORT");
    bad("sta\x1b[31m", "unknown command: sta\\x1b[31m");
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_options_may_stand_anywhere),
        TEST(test_every_command_is_taken),
        TEST(test_the_address_comes_from_three_places),
        TEST(test_times_are_seconds_or_have_a_unit),
        TEST(test_the_nearest_name_is_offered),
        TEST(test_what_is_wrong_is_said),
    };
    return TEST_MAIN(tests);
}
