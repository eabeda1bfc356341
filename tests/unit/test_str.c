#include "base/str.h"

#include "t.h"

static void
test_equality_is_by_bytes(void **state)
{
    (void)state;
    T_TRUE(str_eq(STR("a\0b"), str_n("a\0b", 3)));
    T_FALSE(str_eq(STR("a\0b"), STR("a\0c")));
    T_FALSE(str_eq(STR("ab"), STR("abc")));
    T_TRUE(str_eq(STR_NULL, STR("")));
}

static void
test_nocase_folds_ascii_only(void **state)
{
    (void)state;
    T_TRUE(str_eq_nocase(STR("Content-LENGTH"), STR("content-length")));
    T_FALSE(str_eq_nocase(STR("content-length"), STR("content-lengt")));
    T_FALSE(str_eq_nocase(STR("@"), STR("`")));       /* 0x40 and 0x60: not letters */
    T_FALSE(str_eq_nocase(STR("["), STR("{")));       /* 0x5b and 0x7b */
    T_FALSE(str_eq_nocase(STR("\xc4"), STR("\xe4"))); /* not Latin-1 either */
    T_TRUE(str_starts_nocase(STR("Bearer x"), STR("bearer ")));
    T_FALSE(str_starts_nocase(STR("bear"), STR("bearer")));
    T_TRUE(str_starts_nocase(STR(""), STR_NULL));
}

static void
test_trim_takes_spaces_and_tabs(void **state)
{
    (void)state;
    T_STR(str_trim(STR(" \t a b \t")), "a b");
    T_STR(str_trim(STR(" \t ")), "");
    T_STR(str_trim(STR("")), "");
    T_STR(str_trim(STR("\ra\n")), "\ra\n");
}

static void
test_find_gives_the_first(void **state)
{
    (void)state;
    T_EQ(str_find(STR("abab"), 'b'), 1);
    T_EQ(str_find(STR("abab"), 'c'), -1);
    T_EQ(str_find(STR_NULL, 'c'), -1);
    T_EQ(str_find(str_n("ab", 1), 'b'), -1);
}

static void
test_u64_takes_digits_up_to_max(void **state)
{
    (void)state;
    uint64_t v = 77;
    T_TRUE(str_to_u64(STR("0"), 0, &v));
    T_EQ(v, 0);
    T_TRUE(str_to_u64(STR("18446744073709551615"), UINT64_MAX, &v));
    T_EQ(v, UINT64_MAX);
    T_TRUE(str_to_u64(STR("00065535"), 65535, &v));
    T_EQ(v, 65535);
    static const char *const bad[] = {"", "-1", "+1", " 1", "1 ", "0x1", "1e3", "65536", "655350",
        "18446744073709551616", "99999999999999999999999"};
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        v = 77;
        T_FALSE(str_to_u64(str_of(bad[i]), 65535, &v));
        T_EQ(v, 77);
    }
    T_FALSE(str_to_u64(STR("18446744073709551616"), UINT64_MAX, &v));
    T_FALSE(str_to_u64(STR("9"), 8, &v)); /* max below one digit */
}

static void
test_tokens_are_trimmed_and_empty_ones_skipped(void **state)
{
    (void)state;
    struct str list = STR(" , keep-alive ,,\tX-A\t, "), token;
    T_TRUE(str_next_token(&list, &token));
    T_STR(token, "keep-alive");
    T_TRUE(str_next_token(&list, &token));
    T_STR(token, "X-A");
    T_FALSE(str_next_token(&list, &token));
    T_EQ(list.len, 0);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_equality_is_by_bytes),
        TEST(test_nocase_folds_ascii_only),
        TEST(test_trim_takes_spaces_and_tabs),
        TEST(test_find_gives_the_first),
        TEST(test_u64_takes_digits_up_to_max),
        TEST(test_tokens_are_trimmed_and_empty_ones_skipped),
    };
    return TEST_MAIN(tests);
}
