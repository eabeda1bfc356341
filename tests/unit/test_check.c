#include "base/check.h"

#include "t.h"

#define THING_MAGIC 0x7e571u

struct thing {
    int before;
    uint32_t magic;
};

static void
test_true_check_does_nothing(void **state)
{
    (void)state;
    int runs = 0;
    CHECK(++runs == 1);
    T_EQ(runs, 1); /* once, and in every build */
}

static void
test_false_check_aborts(void **state)
{
    (void)state;
    T_ABORTS(CHECK(1 + 1 == 3));
}

static void
say_dump(void)
{
    fputs("the dump\n", stderr);
}

static void
fail_in_dump(void)
{
    fputs("again\n", stderr);
    CHECK(3 < 2);
}

/* What a failing check prints, from a child; the caller frees it. */
static char *
printed_by_failure(void (*dump)(void))
{
    struct t_capture c = t_capture();
    pid_t pid = fork();
    if (pid == 0) {
        check_set_dump(dump);
        CHECK(2 < 1);
        _exit(0);
    }
    int status = 0;
    pid_t waited = waitpid(pid, &status, 0);
    char *text = t_captured(c);
    T_EQ(waited, pid);
    T_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    return text;
}

static void
test_failure_prints_place_expression_and_dump(void **state)
{
    (void)state;
    char *text = printed_by_failure(say_dump);
    T_HAS(text, "test_check.c:");
    T_HAS(text, "check failed: 2 < 1 (thread test_check)");
    T_HAS(text, "the dump\n");
    free(text);
}

static void
test_check_inside_the_dump_does_not_come_back(void **state)
{
    (void)state;
    char *text = printed_by_failure(fail_in_dump);
    T_HAS(text, "check failed: 3 < 2");
    const char *first = strstr(text, "again");
    T_TRUE(first != NULL && strstr(first + 1, "again") == NULL);
    free(text);
}

static void
test_cast_checks_the_magic(void **state)
{
    (void)state;
    struct thing t = {0};
    OBJ_INIT(&t, THING_MAGIC);
    void *p = &t;
    T_TRUE(OBJ_CAST(struct thing, p, THING_MAGIC) == &t);
    OBJ_CHECK(&t, THING_MAGIC);
    T_ABORTS((void)OBJ_CAST(struct thing, NULL, THING_MAGIC));
    OBJ_POISON(&t);
    T_ABORTS((void)OBJ_CAST(struct thing, p, THING_MAGIC));
    T_ABORTS(OBJ_CHECK(&t, THING_MAGIC));
}

static void
test_never_and_dcheck_trap_in_debug_builds(void **state)
{
    (void)state;
    bool no = false, yes = true;
    T_FALSE(NEVER(no));
    DCHECK(yes);
#ifdef CHMUX_DEBUG
    T_ABORTS((void)NEVER(yes));
    T_ABORTS(DCHECK(no));
#else
    T_TRUE(NEVER(yes));
    DCHECK(no);
#endif
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_true_check_does_nothing),
        TEST(test_false_check_aborts),
        TEST(test_failure_prints_place_expression_and_dump),
        TEST(test_check_inside_the_dump_does_not_come_back),
        TEST(test_cast_checks_the_magic),
        TEST(test_never_and_dcheck_trap_in_debug_builds),
    };
    return TEST_MAIN(tests);
}
