#include "base/hash.h"

#include "t.h"

static void
test_hash_depends_on_every_byte_the_length_and_the_seed(void **state)
{
    (void)state;
    char bytes[64] = {0};
    uint64_t plain = hash64(1, str_n(bytes, sizeof(bytes)));
    T_EQ(hash64(1, str_n(bytes, sizeof(bytes))), plain);
    T_TRUE(hash64(2, str_n(bytes, sizeof(bytes))) != plain);
    T_TRUE(hash64(1, str_n(bytes, sizeof(bytes) - 1)) != plain);
    for (size_t i = 0; i < sizeof(bytes); i++) {
        bytes[i] = 1;
        T_TRUE(hash64(1, str_n(bytes, sizeof(bytes))) != plain);
        bytes[i] = 0;
    }
}

/* Tables take the low bits: 4096 similar keys into 256 buckets, 16 expected in each. */
static void
test_low_bits_spread(void **state)
{
    (void)state;
    unsigned bucket[256] = {0};
    for (int i = 0; i < 4096; i++) {
        char key[32];
        int n = snprintf(key, sizeof(key), "session-%d", i);
        bucket[hash64(7, str_n(key, (size_t)n)) % 256]++;
    }
    for (int i = 0; i < 256; i++)
        T_TRUE(bucket[i] > 0 && bucket[i] < 48);
}

static void
test_jitter_stays_within_its_percentage(void **state)
{
    (void)state;
    random_init();
    int64_t low = INT64_MAX, high = INT64_MIN;
    for (int i = 0; i < 2000; i++) {
        int64_t v = random_jitter(1000, 10);
        low = v < low ? v : low;
        high = v > high ? v : high;
    }
    T_TRUE(low >= 900 && high <= 1100);
    T_TRUE(low < 950 && high > 1050); /* and uses it */
    T_EQ(random_jitter(0, 10), 0);
    T_EQ(random_jitter(1000, 0), 1000);
}

static void
test_uuid_is_version_4_and_fresh(void **state)
{
    (void)state;
    random_init();
    char a[UUID_LEN], b[UUID_LEN];
    random_uuid(a);
    random_uuid(b);
    T_TRUE(memcmp(a, b, UUID_LEN) != 0);
    for (int i = 0; i < UUID_LEN; i++) {
        bool dash = i == 8 || i == 13 || i == 18 || i == 23;
        T_TRUE(dash ? a[i] == '-' : a[i] != '\0' && strchr("0123456789abcdef", a[i]) != NULL);
    }
    T_EQ(a[14], '4');
    T_TRUE(strchr("89ab", a[19]) != NULL);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_hash_depends_on_every_byte_the_length_and_the_seed),
        TEST(test_low_bits_spread),
        TEST(test_jitter_stays_within_its_percentage),
        TEST(test_uuid_is_version_4_and_fresh),
    };
    return TEST_MAIN(tests);
}
