#include "base/clock.h"

#include <time.h>

#include "t.h"

static void
test_now_never_goes_back(void **state)
{
    (void)state;
    struct mono last = mono_now();
    T_TRUE(last.us > 0);
    for (int i = 0; i < 10000; i++) {
        struct mono now = mono_now();
        T_TRUE(mono_diff_us(now, last) >= 0);
        last = now;
    }
}

static void
test_units_are_microseconds(void **state)
{
    (void)state;
    struct timespec ts;
    struct mono before = mono_now();
    clock_gettime(CLOCK_MONOTONIC, &ts);
    struct mono after = mono_now();
    struct mono between = {(int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000};
    T_TRUE(mono_diff_us(between, before) >= 0 && mono_diff_us(after, between) >= 0);
}

static void
test_never_is_later_than_any_instant(void **state)
{
    (void)state;
    T_TRUE(mono_diff_us(MONO_NEVER, mono_now()) > 0);
    T_EQ(mono_add_us(MONO_NEVER, 1).us, INT64_MAX); /* and stays so */
    T_EQ(mono_add_us(mono_now(), INT64_MAX).us, INT64_MAX);
    T_EQ(mono_add_us((struct mono){5}, -3).us, 2);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_now_never_goes_back),
        TEST(test_units_are_microseconds),
        TEST(test_never_is_later_than_any_instant),
    };
    return TEST_MAIN(tests);
}
