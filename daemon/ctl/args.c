#include "ctl/args.h"

#include <getopt.h>
#include <math.h>

#include "config/config.h"
#include "ctl/ask.h"
#include "ctl/text.h"

#define SECOND_US       INT64_C(1000000)
#define WATCH_US        (2 * SECOND_US)
#define TOP_US          (1 * SECOND_US)
#define TIMEOUT_US      (10 * SECOND_US)
#define WAIT_TIMEOUT_US (30 * SECOND_US)
#define LOAD_TIMEOUT_US (40 * SECOND_US) /* chmuxd gives a reload 30 s */
#define NAME_BYTES      64               /* of an upstream, with its terminator */
#define NAME_MAX_LEN    32               /* of what a typed word is compared with */

static const struct command {
    const char *name, *argument;
    unsigned options;
    const char *help;
} commands[CMD_COUNT] = {
#define X(id, name, argument, options, help) [CMD_##id] = {name, argument, options, help},
    ARGS_COMMANDS(X)
#undef X
};

const char *const args_lists[] = {"clients", "exchanges", "pool", "endpoints", "queue", "users",
    "pipes", "config", "errors", "memory"};
const size_t args_list_count = COUNT_OF(args_lists);

static const char *const levels[] = {"error", "warn", "info", "debug"};

/* Of sections, which name upstreams. */
static const char name_letters[] =
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-";

static const struct option long_options[] = {
    {"json", no_argument, NULL, OPT_JSON},
    {"watch", optional_argument, NULL, OPT_WATCH},
    {"limit", required_argument, NULL, OPT_LIMIT},
    {"wide", no_argument, NULL, OPT_WIDE},
    {"now", no_argument, NULL, OPT_NOW},
    {"ready", no_argument, NULL, OPT_READY},
    {"upstream", optional_argument, NULL, OPT_UPSTREAM},
    {"timeout", required_argument, NULL, OPT_TIMEOUT},
    {"admin", required_argument, NULL, OPT_ADMIN},
    {"help", no_argument, NULL, 'h'},
    {"version", no_argument, NULL, 'V'},
    {NULL, 0, NULL, 0},
};

const char *
args_name(enum args_command command)
{
    return commands[command].name;
}

/* ---- what was meant ---- */

/* How many letters have to be changed, added, dropped or swapped with their neighbour. */
static size_t
distance(const char *a, const char *b)
{
    size_t rows[3][NAME_MAX_LEN + 1];
    size_t n = size_min(strlen(a), NAME_MAX_LEN), m = size_min(strlen(b), NAME_MAX_LEN);
    for (size_t j = 0; j <= m; j++)
        rows[0][j] = j;
    for (size_t i = 1; i <= n; i++) {
        size_t *now = rows[i % 3], *above = rows[(i + 2) % 3], *before = rows[(i + 1) % 3];
        now[0] = i;
        for (size_t j = 1; j <= m; j++) {
            size_t change = above[j - 1] + (a[i - 1] != b[j - 1]);
            now[j] = size_min(size_min(above[j], now[j - 1]) + 1, change);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                now[j] = size_min(now[j], before[j - 2] + 1);
        }
    }
    return rows[n % 3][m];
}

struct nearest {
    const char *typed, *name;
    size_t distance;
};

static void
nearest_try(struct nearest *n, const char *name)
{
    size_t d = distance(n->typed, name), both = size_min(strlen(n->typed), strlen(name));
    if (both >= 2 && strncmp(n->typed, name, both) == 0)
        d = size_min(
            d, 1); /* the beginning of a name, or more than it, is as good as one mistake */
    if (n->name != NULL && d >= n->distance)
        return;
    n->name = name;
    n->distance = d;
}

static enum args_result
bad_word(struct buf *say, const char *what, const struct nearest *n)
{
    buf_addf(say, "chmux: unknown %s: ", what);
    text_clean(say, str_of(n->typed));
    /* of a word of another length, or with most letters wrong, nobody meant that */
    if (n->name != NULL && n->distance <= 1 + strlen(n->name) / 3)
        buf_addf(say, "; did you mean %s?", n->name);
    buf_str(say, STR("\n"));
    return ARGS_BAD;
}

/* ---- usage ---- */

static void
put_synopsis(struct buf *out, enum args_command id)
{
    static const struct {
        enum args_option option;
        const char *text;
    } texts[] = {{OPT_JSON, "[--json]"}, {OPT_WATCH, "[--watch[=SECONDS]]"},
        {OPT_LIMIT, "[--limit N]"}, {OPT_WIDE, "[--wide]"}, {OPT_NOW, "[--now]"},
        {OPT_READY, "--ready [--timeout 30s]"}, {OPT_UPSTREAM, "[--upstream=NAME]"}};
    const struct command *c = &commands[id];
    buf_addf(out, "usage: chmux [--admin ADDR] %s%s%s", c->name, c->argument == NULL ? "" : " ",
        c->argument == NULL ? "" : c->argument);
    for (size_t i = 0; i < COUNT_OF(texts); i++)
        if ((c->options & (unsigned)texts[i].option) != 0)
            buf_addf(out, " %s", texts[i].text);
    buf_str(out, STR("\n"));
}

void
args_usage(struct buf *out)
{
    buf_str(out, STR("usage: chmux [--admin ADDR] [--json] [--watch[=SECONDS]] COMMAND\n\n"
                     "Asks chmuxd what it does, and tells it what to do.\n\n"));
    for (size_t i = 0; i < CMD_COUNT; i++) {
        const struct command *c = &commands[i];
        char left[NAME_MAX_LEN];
        snprintf(left, sizeof left, "%s %s", c->name, c->argument == NULL ? "" : c->argument);
        buf_addf(out, "  %-17s %s\n", left, c->help);
    }
    buf_str(out, STR("\nshow takes one of\n   "));
    for (size_t i = 0; i < args_list_count; i++)
        buf_addf(out, " %s", args_lists[i]);
    buf_str(
        out, STR("\n\n"
                 "  --admin ADDR       unix:/path, unix:@name, HOST:PORT or [V6]:PORT; else what\n"
                 "                     CHMUX_ADMIN_ADDRESS says, else " ARGS_DEFAULT_ADDRESS "\n"
                 "  --json             what the server says, as it says it\n"
                 "  --watch[=SECONDS]  status and show: again and again, every 2 seconds;\n"
                 "                     top: how often, instead of every second\n"
                 "  --wide             show: all there is\n"
                 "  --limit N          show: entries at most (1000)\n"
                 "  --now              shutdown: cut what runs\n"
                 "  --ready            wait: until requests are taken;\n"
                 "  --upstream[=NAME]  and a server behind chmuxd seems to work;\n"
                 "                     pause, resume, reconnect: this one of several upstreams\n"
                 "  --timeout T        wait so long for the answer (10s; reload: 40s), or to be\n"
                 "                     ready (30s)\n"
                 "  --help, --version\n\n"
                 "Exit codes: 0 done; 1 refused or failed; 2 wrong usage or configuration.\n"));
}

/* ---- parsing ---- */

/* "2", "0.5" are seconds, "250ms" what it says. */
static bool
parse_time(const char *text, int64_t least_us, int64_t most_us, int64_t *us)
{
    char *end = NULL;
    double s = strtod(text, &end);
    int64_t value = 0;
    if (text[0] >= '0' && text[0] <= '9' && *end == '\0' && isfinite(s) && s < 1e9)
        value = (int64_t)(s * 1e6);
    else if (!config_parse_duration(str_of(text), &value))
        return false;
    *us = value;
    return value >= least_us && value <= most_us;
}

static enum args_result
bad_value(struct buf *say, const char *option, const char *value, const char *want)
{
    buf_addf(say, "chmux: %s ", option);
    text_clean(say, str_of(value));
    buf_addf(say, ": want %s\n", want);
    return ARGS_BAD;
}

static bool
is_name(const char *word)
{
    size_t len = strlen(word);
    return len > 0 && len < NAME_BYTES && strspn(word, name_letters) == len;
}

static enum args_result
take_option(struct args *a, int option, const char *value, struct buf *say)
{
    char why[ASK_WHY_MAX];
    a->options |= (unsigned)option;
    switch (option) {
    case OPT_WATCH:
        if (value != NULL && !parse_time(value, SECOND_US / 10, 3600 * SECOND_US, &a->watch_us))
            return bad_value(say, "--watch", value, "a time from 0.1 to 3600 seconds");
        break;
    case OPT_TIMEOUT:
        if (!parse_time(value, SECOND_US / 1000, 7 * 86400 * SECOND_US, &a->timeout_us))
            return bad_value(say, "--timeout", value, "a time from 1ms to 7d");
        break;
    case OPT_LIMIT:
        if (!str_to_u64(str_of(value), ARGS_LIMIT_MAX, &a->limit) || a->limit == 0)
            return bad_value(say, "--limit", value, "a number from 1 to 10000");
        break;
    case OPT_UPSTREAM:
        a->upstream = value;
        if (value != NULL && !is_name(value))
            return bad_value(say, "--upstream", value, "the name of an upstream");
        break;
    case OPT_ADMIN:
        a->admin = value;
        if (!ask_check_address(value, why)) {
            buf_str(say, STR("chmux: --admin "));
            text_clean(say, str_of(why));
            buf_str(say, STR("\n"));
            return ARGS_BAD;
        }
        break;
    default: break;
    }
    return ARGS_OK;
}

/* getopt_long() did not take `word`. */
static enum args_result
bad_option(struct buf *say, const char *word, bool lacks_value)
{
    char name[NAME_MAX_LEN + 1];
    bool is_short = optopt > 0 && optopt < OPT_JSON && optopt != 'h' && optopt != 'V';
    if (is_short) /* maybe one of several behind one dash */
        snprintf(name, sizeof name, "-%c", optopt);
    else
        snprintf(name, sizeof name, "%s", word);
    name[strcspn(name, "=")] = '\0';
    struct nearest n = {.typed = name};
    char best[NAME_MAX_LEN + 1] = "";
    for (const struct option *o = long_options; o->name != NULL; o++) {
        char with_dashes[NAME_MAX_LEN];
        snprintf(with_dashes, sizeof with_dashes, "--%s", o->name);
        if (strcmp(with_dashes, name) == 0) {
            buf_addf(say, "chmux: %s %s\n", name,
                lacks_value || o->has_arg != no_argument ? "needs a value" : "takes no value");
            return ARGS_BAD;
        }
        const char *before = n.name;
        nearest_try(&n, with_dashes);
        if (n.name != before) {
            snprintf(best, sizeof best, "%s", with_dashes);
            n.name = best;
        }
    }
    return bad_word(say, "option", &n);
}

static enum args_result
take_options(struct args *a, int argc, char **argv, struct buf *say)
{
    int opt;
    optind = 0; /* glibc: from the beginning, also when a test has parsed before */
    opterr = 0;
    while ((opt = getopt_long(argc, argv, ":hV", long_options, NULL)) != -1) {
        if (opt == 'h')
            return ARGS_HELP;
        if (opt == 'V')
            return ARGS_VERSION;
        enum args_result r = opt == '?' || opt == ':'
                                 ? bad_option(say, argv[optind - 1], opt == ':')
                                 : take_option(a, opt, optarg, say);
        if (r != ARGS_OK)
            return r;
    }
    return ARGS_OK;
}

static enum args_result
find_command(struct args *a, const char *word, struct buf *say)
{
    struct nearest n = {.typed = word};
    for (size_t i = 0; i < CMD_COUNT; i++) {
        if (strcmp(word, commands[i].name) == 0) {
            a->command = (enum args_command)i;
            return ARGS_OK;
        }
        nearest_try(&n, commands[i].name);
    }
    return bad_word(say, "command", &n);
}

/* One of a list of words. */
static enum args_result
check_word(
    const char *word, const char *const *list, size_t count, const char *what, struct buf *say)
{
    struct nearest n = {.typed = word};
    for (size_t i = 0; i < count; i++) {
        if (strcmp(word, list[i]) == 0)
            return ARGS_OK;
        nearest_try(&n, list[i]);
    }
    (void)bad_word(say, what, &n);
    buf_addf(say, "chmux: a %s is one of", what);
    for (size_t i = 0; i < count; i++)
        buf_addf(say, "%s %s", i == 0 ? "" : ",", list[i]);
    buf_str(say, STR("\n"));
    return ARGS_BAD;
}

static enum args_result
check_argument(const struct args *a, struct buf *say)
{
    uint64_t id = 0;
    if (a->command == CMD_SHOW)
        return check_word(a->argument, args_lists, args_list_count, "list", say);
    if (a->command == CMD_LOG_LEVEL)
        return check_word(a->argument, levels, COUNT_OF(levels), "level", say);
    if (a->command == CMD_KILL && !str_to_u64(str_of(a->argument), UINT64_MAX, &id))
        return bad_value(say, "kill", a->argument, "a number that `chmux show exchanges` shows");
    return ARGS_OK;
}

static enum args_result
take_words(struct args *a, int count, char **words, struct buf *say)
{
    if (count == 0) {
        buf_str(say, STR("chmux: what to do? Try chmux help.\n"));
        return ARGS_BAD;
    }
    enum args_result r = find_command(a, words[0], say);
    if (r != ARGS_OK)
        return r;
    const struct command *c = &commands[a->command];
    int most = c->argument == NULL ? 1 : 2;
    if (count < most) {
        buf_addf(say, "chmux: %s needs %s\n", c->name, c->argument);
        return ARGS_BAD;
    }
    if (count > most) {
        buf_addf(say, "chmux: %s: unexpected argument: ", c->name);
        text_clean(say, str_of(words[most]));
        buf_str(say, STR("\n"));
        return ARGS_BAD;
    }
    a->argument = c->argument == NULL ? NULL : words[1];
    return check_argument(a, say);
}

/* What is no list of things that come and go. */
static bool
is_whole(const char *list)
{
    return strcmp(list, "config") == 0 || strcmp(list, "memory") == 0;
}

static enum args_result
check_options(const struct args *a, struct buf *say)
{
    const struct command *c = &commands[a->command];
    unsigned wrong = a->options & ~(c->options | OPT_TIMEOUT | OPT_ADMIN);
    for (const struct option *o = long_options; o->name != NULL; o++) {
        if ((wrong & (unsigned)o->val) == 0)
            continue;
        buf_addf(say, "chmux: %s takes no --%s\n", c->name, o->name);
        return ARGS_BAD;
    }
    if ((a->options & OPT_LIMIT) != 0 && is_whole(a->argument)) {
        buf_addf(say, "chmux: show %s takes no --limit: it is shown whole\n", a->argument);
        return ARGS_BAD;
    }
    if (a->command != CMD_WAIT && (a->options & OPT_UPSTREAM) != 0 && a->upstream == NULL) {
        buf_addf(say, "chmux: %s needs --upstream=NAME, or none for all\n", c->name);
        return ARGS_BAD;
    }
    if (a->command == CMD_WAIT && (a->options & OPT_READY) == 0) {
        buf_str(say, STR("chmux: wait for what? There is --ready.\n"));
        return ARGS_BAD;
    }
    return ARGS_OK;
}

static enum args_result
check_environment(struct args *a, const char *env_admin, struct buf *say)
{
    char why[ASK_WHY_MAX];
    if (a->admin != NULL || a->command == CMD_CHECK)
        return ARGS_OK;
    a->admin = env_admin != NULL && env_admin[0] != '\0' ? env_admin : ARGS_DEFAULT_ADDRESS;
    if (ask_check_address(a->admin, why))
        return ARGS_OK;
    buf_str(say, STR("chmux: CHMUX_ADMIN_ADDRESS="));
    text_clean(say, str_of(why));
    buf_str(say, STR("\n"));
    return ARGS_BAD;
}

enum args_result
args_parse(struct args *a, int argc, char **argv, const char *env_admin, struct buf *say)
{
    *a = (struct args){.command = CMD_COUNT};
    enum args_result r = take_options(a, argc, argv, say);
    if (r == ARGS_OK)
        r = take_words(a, argc - optind, argv + optind, say);
    if (r == ARGS_OK && a->command == CMD_HELP)
        return ARGS_HELP;
    if (r == ARGS_OK)
        r = check_options(a, say);
    if (r == ARGS_OK)
        r = check_environment(a, env_admin, say);
    if (r == ARGS_BAD && a->command != CMD_COUNT)
        put_synopsis(say, a->command);
    else if (r == ARGS_BAD)
        buf_str(say, STR("usage: chmux [--admin ADDR] [--json] [--watch[=SECONDS]] COMMAND\n"
                         "chmux help lists the commands.\n"));
    if (a->watch_us == 0)
        a->watch_us = a->command == CMD_TOP ? TOP_US : WATCH_US;
    if (a->timeout_us == 0)
        a->timeout_us = a->command == CMD_WAIT     ? WAIT_TIMEOUT_US
                        : a->command == CMD_RELOAD ? LOAD_TIMEOUT_US
                                                   : TIMEOUT_US;
    return r;
}
