/*
 * config_diff() and config_hold(): what a reload changes, and what it leaves for the next start.
 */
#include "base/mem.h"
#include "config/config.h"
#include "t.h"

static struct buf errors;

static struct config_source
source(const char *file)
{
    return (struct config_source){.file_name = "t.conf", .file_text = str_of(file)};
}

static struct config *
load(const char *file)
{
    struct config_source src = source(file);
    errors.len = 0;
    struct config *c = config_load(&src, &errors);
    T_TRUE(c != NULL);
    return c;
}

/* Every change as "section.key before>after", ';' behind each, '!' for one that needs a restart. */
static const char *
diff(const struct config *now, const struct config *next)
{
    static char out[4096];
    struct config_changes all;
    size_t n = 0;
    out[0] = '\0';
    T_TRUE(config_diff(now, next, &all));
    for (size_t i = 0; i < all.count; i++) {
        const struct config_change *ch = &all.item[i];
        n += (size_t)snprintf(out + n, sizeof out - n, "%s.%s %s>%s%s;", ch->section, ch->key,
            ch->before == NULL ? "-" : ch->before, ch->after == NULL ? "-" : ch->after,
            ch->reloadable ? "" : "!");
        T_TRUE(n < sizeof out);
    }
    config_changes_fini(&all);
    T_EQ(all.count, 0);
    return out;
}

static void
differs(const char *now_file, const char *next_file, const char *expected)
{
    struct config *now = load(now_file), *next = load(next_file);
    T_ZEQ(diff(now, next), expected);
    config_free(&now);
    config_free(&next);
}

#define ONE_LISTENER "[listen a]\naddress = 127.0.0.1:1\n"

static void
test_values_that_differ(void **state)
{
    (void)state;
    differs("", "", "");
    /* The default written out, and another way to write the same, are no change. */
    differs("", "[upstream]\npool_size = 16\nidle_timeout = 1m\n", "");
    differs("[upstream]\nqueue_size = 5\n", "[upstream]\npool_size = 3\n[log]\nlevel = warn\n",
        "upstream.pool_size 16>3;upstream.queue_size 5>1024;log.level info>warn;");
    differs("", "[chmux]\nworkers = 2\n", "chmux.workers auto>2!;");
}

static void
test_sections_that_come_and_go_are_told_by_name(void **state)
{
    (void)state;
    const char *two = ONE_LISTENER "[listen b]\naddress = 127.0.0.1:2\n";
    const char *other_order = "[listen b]\naddress = 127.0.0.1:2\n" ONE_LISTENER;
    differs(two, other_order, "");
    struct config *one = load(ONE_LISTENER), *both = load(two);
    T_HAS(diff(one, both), "listen b.address ->127.0.0.1:2");
    T_HAS(diff(both, one), "listen b.address 127.0.0.1:2>-");
    T_TRUE(strstr(diff(both, one), "listen a") == NULL);
    config_free(&one);
    config_free(&both);
}

/* Each set.NAME and default.NAME is an option of its own. */
static void
test_settings_are_told_by_name(void **state)
{
    (void)state;
    const char *one = "[user a]\nset.max_threads = 1\nset.x = 1\ndefault.y = 2\n";
    differs(one, "[user a]\ndefault.y = 2\nset.x = 1\nset.max_threads = 1\n", "");
    differs(one, "[user a]\nset.max_threads = 7\nset.x = 1\nset.y =\n",
        "user a.set.max_threads 1>7;user a.set.y ->;user a.default.y 2>-;");
    differs("[user a]\nset.s3_secret = x\n", "[user a]\nset.s3_secret = y\n",
        "user a.set.s3_secret ********>********;");
    struct config *none = load(""), *some = load(one);
    T_HAS(diff(none, some), "user a.set.max_threads ->1;user a.set.x ->1;user a.default.y ->2;");
    T_HAS(diff(some, none), "user a.set.max_threads 1>-;user a.set.x 1>-;user a.default.y 2>-;");
    T_TRUE(strstr(diff(none, some), "NAME") == NULL);
    config_free(&none);
    config_free(&some);
}

static void
test_hold_leaves_what_needs_a_restart(void **state)
{
    (void)state;
    struct config *now = load("[chmux]\nbuffer_size = 64k\nworkers = 3\n");
    const char *file = "[chmux]\nbuffer_size = 128k\nmax_clients = 5\n[upstream]\npool_size = 2\n";
    struct config_source src = source(file);
    struct config *next = load(file);
    errors.len = 0;
    T_TRUE(config_hold(next, now, &src, &errors));
    T_EQ(errors.len, 0);
    T_EQ(next->chmux.buffer_size, 64 << 10);
    T_EQ(next->chmux.workers, 3);
    T_EQ(next->chmux.max_clients, 5);
    /* So they are told again the next time. */
    struct config *again = load(file);
    T_ZEQ(diff(next, again), "chmux.buffer_size 64k>128k!;chmux.workers 3>auto!;");
    config_free(&again);
    config_free(&now);
    config_free(&next);
}

static void
test_hold_refuses_a_mixture_that_is_not_valid(void **state)
{
    (void)state;
    struct config *now = load("[chmux]\nbuffer_size = 4m\n");
    const char *file = "[chmux]\nbuffer_size = 16k\n[upstream]\npool_size = 1000\n";
    struct config_source src = source(file);
    struct config *next = load(file);
    errors.len = 0;
    T_FALSE(config_hold(next, now, &src, &errors));
    buf_add(&errors, "", 1);
    T_HAS(errors.p, "valid only after a restart");
    T_HAS(errors.p, "pool_size (1000) times 2 buffers of buffer_size (4m)");
    config_free(&now);
    config_free(&next);
}

/* With the n-th allocation failing, for every n: an error, and nothing leaks. */
static void
test_no_memory(void **state)
{
    (void)state;
    struct config *now = load("[chmux]\nworkers = 3\n[user a]\nset.x = 1\nset.y = 1\n");
    const char *file = "[log]\nlevel = warn\n" ONE_LISTENER "[user a]\nset.x = 2\nset.z = 1\n";
    struct config_source src = source(file);
    bool ok = false;
    for (uint64_t n = 1; !ok; n++) {
        struct config_changes all;
        struct config *next = load(file);
        errors.len = 0;
        mem_fail_at(n);
        ok = config_diff(now, next, &all) && config_hold(next, now, &src, &errors);
        mem_fail_at(0);
        errors.failed = false;
        config_changes_fini(&all);
        config_free(&next);
        T_TRUE(n < 10000);
    }
    config_free(&now);
}

int
main(void)
{
    buf_init(&errors, 1 << 16);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values_that_differ),
        cmocka_unit_test(test_sections_that_come_and_go_are_told_by_name),
        cmocka_unit_test(test_settings_are_told_by_name),
        cmocka_unit_test(test_hold_leaves_what_needs_a_restart),
        cmocka_unit_test(test_hold_refuses_a_mixture_that_is_not_valid),
        cmocka_unit_test(test_no_memory),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    buf_fini(&errors);
    return failed;
}
