#ifndef CHMUX_TESTS_T_H
#define CHMUX_TESTS_T_H
/*
 * t: cmocka with what it wants included before it, and short assertions over it. A test is named
 * for the contract line it proves.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/str.h"

#define T_TRUE(x)  _assert_true((LargestIntegralType)(bool)(x), #x, __FILE__, __LINE__)
#define T_FALSE(x) _assert_true((LargestIntegralType) !(x), "!(" #x ")", __FILE__, __LINE__)
/* Integers and enums, compared as 64 bits. */
#define T_EQ(a, b)                                                                                 \
    _assert_int_equal((LargestIntegralType)(a), (LargestIntegralType)(b), __FILE__, __LINE__)
/* A struct str against a C string. */
#define T_STR(s, z) t_str((s), (z), __FILE__, __LINE__)
/* Two C strings. */
#define T_ZEQ(a, b) _assert_string_equal((a), (b), __FILE__, __LINE__)
/* `part` stands in `text`, both C strings. */
#define T_HAS(text, part) t_has((text), (part), __FILE__, __LINE__)
/* The statement aborts the process (a CHECK failed). It runs in a child, stderr is thrown away. */
#define T_ABORTS(statement)                                                                        \
    do {                                                                                           \
        pid_t t_pid = fork();                                                                      \
        if (t_pid == 0) {                                                                          \
            (void)!freopen("/dev/null", "w", stderr);                                              \
            statement;                                                                             \
            _exit(0);                                                                              \
        }                                                                                          \
        int t_status = 0;                                                                          \
        T_EQ(waitpid(t_pid, &t_status, 0), t_pid);                                                 \
        _assert_true(WIFSIGNALED(t_status) && WTERMSIG(t_status) == SIGABRT,                       \
            "aborts: " #statement, __FILE__, __LINE__);                                            \
    } while (0)

static inline void
t_str(struct str s, const char *z, const char *file, int line)
{
    if (str_eq(s, str_of(z)))
        return;
    print_error("\"" STR_FMT "\" != \"%s\"\n", STR_ARG(s), z);
    _fail(file, line);
}

static inline void
t_has(const char *text, const char *part, const char *file, int line)
{
    if (strstr(text, part) != NULL)
        return;
    print_error("\"%s\" is not in \"%s\"\n", part, text);
    _fail(file, line);
}

/* stderr goes to memory from t_capture() until t_captured(), which returns what came, for the
 * caller to free. */
struct t_capture {
    int memory, before;
};

static inline struct t_capture
t_capture(void)
{
    fflush(stderr);
    struct t_capture c = {.memory = memfd_create("stderr", MFD_CLOEXEC), .before = dup(2)};
    T_TRUE(c.memory >= 0 && c.before >= 0 && dup2(c.memory, 2) == 2);
    return c;
}

static inline char *
t_captured(struct t_capture c)
{
    fflush(stderr);
    T_EQ(dup2(c.before, 2), 2);
    close(c.before);
    off_t size = lseek(c.memory, 0, SEEK_END);
    T_TRUE(size >= 0);
    char *text = malloc((size_t)size + 1);
    T_TRUE(text != NULL);
    T_EQ(pread(c.memory, text, (size_t)size, 0), size);
    text[size] = '\0';
    close(c.memory);
    return text;
}

#define TEST(fn)         cmocka_unit_test(fn)
#define TEST_MAIN(tests) cmocka_run_group_tests((tests), NULL, NULL)
#endif
