#ifndef CHMUX_TESTS_T_H
#define CHMUX_TESTS_T_H
/*
 * t: cmocka with what it wants included before it, and short assertions over it. A test is named
 * for the contract line it proves.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/str.h"

#define T_TRUE(x) _assert_true((LargestIntegralType)(bool)(x), #x, __FILE__, __LINE__)
#define T_FALSE(x) _assert_true((LargestIntegralType) !(x), "!(" #x ")", __FILE__, __LINE__)
/* Integers and enums, compared as 64 bits. */
#define T_EQ(a, b)                                                                                 \
    _assert_int_equal((LargestIntegralType)(a), (LargestIntegralType)(b), __FILE__, __LINE__)
/* A struct str against a string literal or another C string. */
#define T_STR(s, z) t_str((s), (z), __FILE__, __LINE__)
/* Two C strings. */
#define T_ZEQ(a, b) _assert_string_equal((a), (b), __FILE__, __LINE__)

static inline void
t_str(struct str s, const char *z, const char *file, int line)
{
    if (str_eq(s, str_of(z)))
        return;
    print_error("\"" STR_FMT "\" != \"%s\"\n", STR_ARG(s), z);
    _fail(file, line);
}

#define TEST(fn) cmocka_unit_test(fn)
#define TEST_MAIN(tests) cmocka_run_group_tests((tests), NULL, NULL)
#endif
