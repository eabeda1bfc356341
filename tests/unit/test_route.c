/* route_find(): the rule of route.h, first match decides. */
#include "proxy/route.h"

#include "t.h"

static char *one_user[] = {(char[]){"ann"}}, *two_dbs[] = {(char[]){"logs"}, (char[]){"a b"}},
            *other_user[] = {(char[]){"bob"}}, *other_db[] = {(char[]){"dwh"}};
static char names[][8] = {"default", "one", "two"}, doors[][8] = {"web", "bulk", "x"};
static char wanted[][8] = {"", "two", "default"};

static struct config *
make(void)
{
    static struct config c;
    c = (struct config){.upstream_count = 3, .listen_count = 3};
    for (size_t i = 0; i < 3; i++) {
        c.upstream_name[i] = names[i];
        c.listen_name[i] = doors[i];
        c.listen[i].upstream = wanted[i];
    }
    c.upstream[1].users = (struct config_list){one_user, 1};
    c.upstream[1].databases = (struct config_list){two_dbs, 2};
    c.upstream[2].users = (struct config_list){other_user, 1};
    c.upstream[2].databases = (struct config_list){other_db, 1};
    return &c;
}

static void
test_first_match_decides(void **state)
{
    (void)state;
    static const struct {
        const char *listener, *user, *database;
        size_t want;
    } cases[] = {
        {"bulk", "ann", "logs", 2}, /* the listener, whoever comes */
        {"x", "ann", "logs", 0},    /* the default may be named, too */
        {"web", "ann", "dwh", 1},   /* a listener that says nothing; the user beats the database */
        {"gone", "bob", "logs", 2}, /* a passed socket without a section */
        {NULL, "eve", "dwh", 2},    /* a client taken over; the database */
        {NULL, "eve", "a b", 1},    /* any of the list */
        {NULL, "eve", "other", 0},  /* nothing matches */
        {NULL, "", "", 0},          /* nothing is said */
        {NULL, "Ann", "LOGS", 0},   /* every byte counts */
        {NULL, "an", "log", 0},     /* and all of them */
        {"", "eve", "", 0},
    };
    const struct config *c = make();
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        const struct route_facts f = {
            cases[i].listener, str_of(cases[i].user), str_of(cases[i].database)};
        if (route_find(c, &f) != cases[i].want)
            print_error("case %zu\n", i);
        T_EQ(route_find(c, &f), cases[i].want);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_first_match_decides),
    };
    return TEST_MAIN(tests);
}
