/* [user NAME] sections: keys that the table knows only by how they begin, and what goes together.
 */
#include "t.h"

#include "base/mem.h"
#include "config/config.h"

static struct buf errors;

static int
setup(void **state)
{
    (void)state;
    buf_init(&errors, 1 << 16);
    return 0;
}

static int
teardown(void **state)
{
    (void)state;
    buf_fini(&errors);
    return mem_used() == 0 ? 0 : -1;
}

static struct config *
load(const char *file, const char *const *env, const struct config_flag *flags, size_t count)
{
    struct config_source src = {.file_name = "t.conf",
        .file_text = str_of(file),
        .environ_list = env,
        .flags = flags,
        .flag_count = count};
    errors.len = 0;
    struct config *c = config_load(&src, &errors);
    buf_add(&errors, "", 1);
    return c;
}

static void
refused(const char *file, const char *why)
{
    struct config *c = load(file, NULL, NULL, 0);
    T_TRUE(c == NULL);
    T_ZEQ(errors.p, why);
}

static const char *
value_of(const struct config_pairs *pairs, const char *name)
{
    for (size_t i = 0; i < pairs->count; i++)
        if (strcmp(pairs->item[i].name, name) == 0)
            return pairs->item[i].value;
    return NULL;
}

static void
test_every_place_can_set_a_setting(void **state)
{
    (void)state;
    static const char *const env[] = {"CHMUX_USER_APP_SET_MAX_THREADS=4",
        "CHMUX_USER_MY_SET_TOKEN_FILE=/t", "CHMUX_USER_APP_DEFAULT_LIMIT=5", NULL};
    static const struct config_flag flags[] = {
        {"--set", "user.app.set.SQL_x.y", "a = b"},
        {"--set", "user.first.last@x.set.readonly", "1"},
        {"--set", "user.first.last@x.upstream_user", "fl"},
        {"--set", "user.app.default.limit", "6"},
    };
    struct config *c = load("[user app]\nset.max_threads = 2 ; two\nset.readonly =\n"
                            "default.limit = 3\n[user my-set]\n",
        env, flags, COUNT_OF(flags));
    T_ZEQ(errors.p, "");
    T_TRUE(c != NULL);
    T_EQ(c->user_count, 3);
    T_ZEQ(c->user_name[0], "app");
    T_EQ(c->user[0].set.count, 3);
    T_ZEQ(value_of(&c->user[0].set, "max_threads"), "4");
    T_ZEQ(value_of(&c->user[0].set, "readonly"), "");
    T_ZEQ(value_of(&c->user[0].set, "SQL_x.y"), "a = b");
    T_EQ(c->user[0].preset.count, 1);
    T_ZEQ(value_of(&c->user[0].preset, "limit"), "6");
    T_ZEQ(c->user[1].token_file, "/t"); /* MY_SET and TOKEN_FILE, not set.token_file of MY */
    T_ZEQ(c->user_name[2], "first.last@x");
    T_ZEQ(value_of(&c->user[2].set, "readonly"), "1");
    T_ZEQ(c->user[2].upstream_user, "fl");
    config_free(&c);
}

static void
test_what_is_printed_reads_back(void **state)
{
    (void)state;
    static const char *const env[] = {"CHMUX_USER_APP_SET_A=2", NULL};
    struct config *c = load("[user app]\nset.b = x y\nset.s3_secret_key = hidden\n", env, NULL, 0);
    struct buf out;
    buf_init(&out, 1 << 16);
    T_TRUE(c != NULL);
    config_print(c, &out);
    buf_add(&out, "", 1);
    T_HAS(out.p, "\nset.b = x y  ");
    T_HAS(out.p, "; t.conf:2\n");
    T_HAS(out.p, "\nset.a = 2  ");
    T_HAS(out.p, "; environment CHMUX_USER_APP_SET_A\n");
    T_HAS(out.p, "\n# set.s3_secret_key = ********");
    T_TRUE(strstr(out.p, "hidden") == NULL);
    config_free(&c);
    c = load(out.p, NULL, NULL, 0);
    T_ZEQ(errors.p, "");
    T_TRUE(c != NULL);
    T_EQ(c->user[0].set.count, 2);
    T_ZEQ(value_of(&c->user[0].set, "b"), "x y");
    config_free(&c);
    buf_fini(&out);
}

static void
test_names_that_are_no_settings(void **state)
{
    (void)state;
    static const char *const parameters[] = {
        "user", "Password", "query", "query_id", "session_id", "database", "role", "quota_key"};
    static const char *const own[] = {"compress", "decompress", "enable_http_compression"};
    char file[256], why[256];
    for (size_t i = 0; i < COUNT_OF(parameters); i++) {
        snprintf(file, sizeof(file), "[user a]\nset.%s = 1\n", parameters[i]);
        snprintf(why, sizeof(why),
            "t.conf:2: [user a] set.%s: that is a parameter of a request, not a setting of "
            "ClickHouse\n",
            parameters[i]);
        refused(file, why);
    }
    for (size_t i = 0; i < COUNT_OF(own); i++) {
        snprintf(file, sizeof(file), "[user a]\ndefault.%s = 1\n", own[i]);
        snprintf(why, sizeof(why),
            "t.conf:2: [user a] default.%s: that is for request_compression and "
            "response_compression to decide\n",
            own[i]);
        refused(file, why);
    }
    refused("[user a]\nset.param_x = 1\n",
        "t.conf:2: [user a] set.param_x: that is a parameter of a query, not a setting of "
        "ClickHouse\n");
    refused("[user a]\nset.a b = 1\n",
        "t.conf:2: [user a] set.a b: a setting's name has 1 to 128 letters, digits, _ and .\n");
    refused("[user a]\nset.a = 1\nset.b = 2\nset.a = 3\n",
        "t.conf:4: [user a] set.a: given twice; line 2 has it already\n");
    refused("[user a]\nset. = 1\n",
        "t.conf:2: [user a]: unknown key \"set.\"; docs/CONFIG.md lists "
        "them all\n");
}

static void
test_too_many_settings(void **state)
{
    (void)state;
    char file[4096];
    int n = snprintf(file, sizeof(file), "[user a]\n");
    for (int i = 0; i <= CONFIG_MAX_PAIRS; i++)
        n += snprintf(file + n, sizeof(file) - (size_t)n, "set.s%d = 1\n", i);
    refused(file, "t.conf:66: [user a] set.s64: too many of them; at most 64 are allowed\n");
}

static void
test_what_does_not_go_together(void **state)
{
    (void)state;
    refused("[chmux]\ndefault_user = nobody\n",
        "t.conf:2: [chmux] default_user: there is no section [user NAME] for \"nobody\"\n");
    refused("[listen a]\naddress = 127.0.0.1:1\nuser = App\n[user app]\n",
        "t.conf:3: [listen a] user: there is no section [user NAME] for \"App\"\n");
    refused("[user a]\ntoken_file = /t\npassword_file = /p\n",
        "t.conf:2: [user a] token_file: is set together with password_file; set one of them\n");
    refused("[user a]\ntoken_file = /t\nupstream_user = b\n",
        "t.conf:2: [user a] token_file: is set together with upstream_user; ClickHouse takes the "
        "name from the token\n");
    refused("[user a]\nupstream_user = a:b\n",
        "t.conf:2: [user a] upstream_user: the name holds a ':'; no such name can be sent\n");
    refused("[user a:b]\n", "t.conf:1: \"a:b\" is not a name for [user NAME]; 1 to 32 letters, "
                            "digits, ., @, - and _ are allowed\n");
    refused("[listen a]\naddress = unix:@x\nallow = 10.0.0.0/8\n",
        "t.conf:3: [listen a] allow: cannot hold for a unix socket, whose clients have no address; "
        "mode and group say who may connect to it\n");
    refused("[listen a]\naddress = 127.0.0.1:1\nhost_names = *, a.b, http://c:1\n",
        "t.conf:3: [listen a] host_names: \"http://c:1\" is no host name; write it without scheme "
        "and port, or * for any\n");
    refused("[listen a]\naddress = 127.0.0.1:1\nallow = ::1, 10.0.0.1/8\n",
        "t.conf:3: [listen a] allow: \"10.0.0.1/8\" has bits set behind its prefix; write the "
        "network's first address\n");
}

static void
test_warnings(void **state)
{
    (void)state;
    struct config *c = load("[chmux]\nallow_remote = yes\n[user a]\nlocal_auth = trust\n"
                            "set.x = 1\ndefault.x = 2\n",
        NULL, NULL, 0);
    T_TRUE(c != NULL);
    T_HAS(errors.p, "warning: t.conf:4: [user a] local_auth: trust together with [chmux] "
                    "allow_remote: ");
    T_HAS(errors.p, "warning: t.conf:5: [user a] set.NAME: default.x has no effect beside set.x");
    config_free(&c);
}

/* Each allocation fails once: nothing leaks, nothing is half there. */
static void
test_without_memory(void **state)
{
    (void)state;
    struct config *c = NULL;
    for (uint64_t n = 1; c == NULL; n++) {
        T_TRUE(n < 5000);
        mem_fail_at(n);
        c = load("[user a]\nuids = root, 5\nset.x = 1\nset.y = 2\ndefault.z = 3\n", NULL, NULL, 0);
        mem_fail_at(0);
    }
    T_EQ(c->user[0].set.count, 2);
    config_free(&c);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_every_place_can_set_a_setting),
        TEST(test_what_is_printed_reads_back),
        TEST(test_names_that_are_no_settings),
        TEST(test_too_many_settings),
        TEST(test_what_does_not_go_together),
        TEST(test_warnings),
        TEST(test_without_memory),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
