#include "test_codec.h"

static const struct codec_spec gzip = {.id = CODEC_GZIP, .encode = true};
static const struct codec_spec deflate = {.id = CODEC_DEFLATE, .encode = true};
static const struct codec_spec gunzip = {.id = CODEC_GZIP, .max_memory = TC_MAX_MEMORY};
static const struct codec_spec inflate = {.id = CODEC_DEFLATE, .max_memory = TC_MAX_MEMORY};
static const struct tc_cut whole = {0}, bytewise = {1, 1, 0};

static const char plain[] = "1\thouse\n2\tclick\n3\thouse\n";
/* gzip -n (GNU gzip 1.12) */
static const unsigned char by_gzip[] = {0x1f, 0x8b, 0x08, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x03,
    0x33, 0xe4, 0xcc, 0xc8, 0x2f, 0x2d, 0x4e, 0xe5, 0x32, 0xe2, 0x4c, 0xce, 0xc9, 0x4c, 0xce, 0xe6,
    0x32, 0x86, 0xf2, 0x01, 0x5b, 0xcc, 0x3d, 0xd5, 0x18, 0x00, 0x00, 0x00};
/* gzip -N: with a time and a file name */
static const unsigned char by_gzip_named[] = {0x1f, 0x8b, 0x08, 0x08, 0xf0, 0x05, 0x04, 0x6b, 0x00,
    0x03, 0x6e, 0x61, 0x6d, 0x65, 0x2e, 0x74, 0x73, 0x76, 0x00, 0x33, 0xe4, 0xcc, 0xc8, 0x2f, 0x2d,
    0x4e, 0xe5, 0x32, 0xe2, 0x4c, 0xce, 0xc9, 0x4c, 0xce, 0xe6, 0x32, 0x86, 0xf2, 0x01, 0x5b, 0xcc,
    0x3d, 0xd5, 0x18, 0x00, 0x00, 0x00};
/* Python: zlib.compress(plain); the same with wbits 9; with a dictionary */
static const unsigned char by_python[] = {0x78, 0x9c, 0x33, 0xe4, 0xcc, 0xc8, 0x2f, 0x2d, 0x4e,
    0xe5, 0x32, 0xe2, 0x4c, 0xce, 0xc9, 0x4c, 0xce, 0xe6, 0x32, 0x86, 0xf2, 0x01, 0x57, 0xb0, 0x07,
    0x1e};
static const unsigned char by_python_9_bits[] = {0x18, 0xd3, 0x33, 0xe4, 0xcc, 0xc8, 0x2f, 0x2d,
    0x4e, 0xe5, 0x32, 0xe2, 0x4c, 0xce, 0xc9, 0x4c, 0xce, 0xe6, 0x32, 0x86, 0xf2, 0x01, 0x57, 0xb0,
    0x07, 0x1e};
static const unsigned char by_python_dictionary[] = {0x78, 0xf9, 0x19, 0x98, 0x04, 0x35, 0x33, 0xe4,
    0xcc, 0x00, 0x73, 0x8c, 0x38, 0xc1, 0x5c, 0x2e, 0x63, 0x28, 0x1f, 0x00, 0x57, 0xb0, 0x07, 0x1e};
static const unsigned char empty_gzip[] = {0x1f, 0x8b, 0x08, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x03, 0x03, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00};
static const unsigned char empty_zlib[] = {0x78, 0x9c, 0x03, 0x00, 0x00, 0x00, 0x00, 0x01};

#define BYTES(array) str_n((const char *)(array), sizeof(array))

static void
test_golden_streams_decode(void **state)
{
    (void)state;
    static const struct tc_cut cuts[] = {{0}, {1, 1, 0}, {7, 5, 3}};
    for (size_t i = 0; i < COUNT_OF(cuts); i++) {
        tc_decodes(&gunzip, BYTES(by_gzip), str_of(plain), cuts[i]);
        tc_decodes(&gunzip, BYTES(by_gzip_named), str_of(plain), cuts[i]);
        tc_decodes(&gunzip, BYTES(empty_gzip), STR_NULL, cuts[i]);
        tc_decodes(&inflate, BYTES(by_python), str_of(plain), cuts[i]);
        tc_decodes(&inflate, BYTES(by_python_9_bits), str_of(plain), cuts[i]);
        tc_decodes(&inflate, BYTES(empty_zlib), STR_NULL, cuts[i]);
    }
}

static void
test_what_is_written_starts_like_its_format(void **state)
{
    (void)state;
    struct tc_bytes g = tc_encode(&gzip, str_of(plain), whole);
    struct tc_bytes d = tc_encode(&deflate, str_of(plain), whole);
    /* No name, no time: the same input gives the same bytes. */
    assert_memory_equal(g.p, by_gzip, 10);
    tc_equal(tc_str(&d), BYTES(by_python));
    tc_drop(&g);
    tc_drop(&d);
    g = tc_encode(&gzip, STR_NULL, bytewise);
    d = tc_encode(&deflate, STR_NULL, bytewise);
    tc_equal(tc_str(&g), BYTES(empty_gzip));
    tc_equal(tc_str(&d), BYTES(empty_zlib));
    tc_drop(&g);
    tc_drop(&d);
}

static void
test_round_trips(void **state)
{
    (void)state;
    tc_check_round_trips(&gzip);
    tc_check_round_trips(&deflate);
}

static void
test_every_split(void **state)
{
    (void)state;
    tc_check_every_split(&gzip);
    tc_check_every_split(&deflate);
}

static void
test_members_back_to_back_are_one_body(void **state)
{
    (void)state;
    tc_check_frames(&gzip);
    tc_check_frames(&deflate);
}

static void
test_cuts_and_garbage_are_errors(void **state)
{
    (void)state;
    tc_check_cut_and_garbage(&gzip, 500);
    tc_check_cut_and_garbage(&deflate, 500);
    tc_check_cut_and_garbage(&gzip, 0);
    tc_check_cut_and_garbage(&deflate, 0);
}

static void
test_flipped_bits_are_found(void **state)
{
    (void)state;
    tc_check_flips(&gzip, true);
    tc_check_flips(&deflate, true);
}

static void
test_a_flush_lets_all_out(void **state)
{
    (void)state;
    tc_check_flush(&gzip, whole);
    tc_check_flush(&deflate, (struct tc_cut){.out = 1});
    tc_check_flush(&gzip, (struct tc_cut){.in = 1000, .out = 5});
    for (size_t room = 2; room < 12; room++)
        tc_check_flush(&deflate, (struct tc_cut){.out = room});
}

static void
test_a_reset_codec_is_as_new(void **state)
{
    (void)state;
    tc_check_reset(&gzip);
    tc_check_reset(&deflate);
}

static void
test_a_small_budget_delays_and_loses_nothing(void **state)
{
    (void)state;
    tc_check_budget(&gzip);
    tc_check_budget(&deflate);
}

static void
test_any_allocation_may_fail(void **state)
{
    (void)state;
    tc_check_allocations(&gzip);
    tc_check_allocations(&deflate);
}

/* Nothing is asked for once a codec stands: not by the first window, not by the second member. */
static void
test_memory_is_all_taken_when_made(void **state)
{
    (void)state;
    const struct codec_spec specs[] = {gzip, gunzip, deflate, inflate};
    struct tc_bytes text = tc_text(200000, 8);
    for (size_t i = 0; i < COUNT_OF(specs); i++) {
        struct codec_spec encoder = {.id = specs[i].id, .encode = true};
        struct tc_bytes in = tc_encode(&encoder, tc_str(&text), whole);
        if (!specs[i].encode) {
            struct tc_bytes second = tc_encode(&encoder, tc_str(&text), whole);
            tc_append(&in, second.p, second.len);
            tc_drop(&second);
        }
        struct tc t = tc_new(&specs[i], (struct tc_cut){.in = 1000, .out = 1000});
        size_t memory = codec_memory(t.c);
        mem_fail_at(1);
        struct str input = tc_str(specs[i].encode ? &text : &in);
        T_EQ(tc_feed(&t, CODEC_FINISH, input), CODEC_DONE);
        T_EQ(codec_memory(t.c), memory);
        T_TRUE(memory <= (specs[i].encode ? 300u << 10 : 64u << 10));
        void *p = mem_alloc(1);
        T_TRUE(p == NULL); /* the failure still waits for the first that asks */
        mem_fail_at(0);
        tc_end(&t);
        tc_drop(&in);
    }
    tc_drop(&text);
}

static void
test_reasons_and_offsets(void **state)
{
    (void)state;
    struct tc_bytes s = {0};
    tc_append(&s, (const char *)by_gzip, sizeof(by_gzip));
    s.p[sizeof(by_gzip) - 8] ^= 1; /* of the CRC; found when all four bytes are there */
    tc_is_bad(&gunzip, tc_str(&s), whole, "checksum mismatch", sizeof(by_gzip) - 4);
    tc_is_bad(&gunzip, tc_str(&s), bytewise, "checksum mismatch", sizeof(by_gzip) - 4);
    s.p[sizeof(by_gzip) - 8] ^= 1;
    s.p[sizeof(by_gzip) - 1] ^= 1; /* of the length */
    tc_is_bad(&gunzip, tc_str(&s), whole, "incorrect length check", sizeof(by_gzip));
    s.p[sizeof(by_gzip) - 1] ^= 1;
    tc_append(&s, "\0\0\0\0", 4);
    const char *garbage = "bytes after the last frame that are no frame";
    tc_is_bad(&gunzip, tc_str(&s), whole, garbage, sizeof(by_gzip));
    tc_is_bad(&gunzip, tc_str(&s), bytewise, garbage, sizeof(by_gzip));
    /* One byte behind the end may still become a header, so it is a frame that was cut. */
    s.len = sizeof(by_gzip) + 1;
    tc_is_bad(&gunzip, tc_str(&s), whole, "input ends inside a frame", (int64_t)s.len);
    s.len = 20;
    tc_is_bad(&gunzip, tc_str(&s), bytewise, "input ends inside a frame", 20);
    tc_drop(&s);

    tc_is_bad(&gunzip, STR_NULL, whole, "input ends before the first frame", 0);
    tc_is_bad(&inflate, STR_NULL, whole, "input ends before the first frame", 0);
    tc_is_bad(&gunzip, STR("hello"), whole, "incorrect header check", 2);
    tc_is_bad(&inflate, BYTES(by_gzip), whole, "incorrect header check", 2);
    tc_is_bad(&gunzip, BYTES(by_python), whole, "incorrect header check", 2);
    tc_is_bad(&inflate, BYTES(by_python_dictionary), whole, "needs a dictionary", 6);
}

/* The data looks back further than the window that was allowed. */
static void
test_windows_are_bounded(void **state)
{
    (void)state;
    struct codec_spec small = inflate;
    small.max_memory = 4096;
    tc_is_bad(&small, BYTES(by_python), whole, "invalid window size", 2);
    small.max_memory = 512;
    tc_decodes(&small, BYTES(by_python_9_bits), str_of(plain), whole);

    struct tc_bytes noise = tc_noise(20000, 6), twice = {0};
    tc_append(&twice, noise.p, noise.len);
    tc_append(&twice, noise.p, noise.len);
    struct tc_bytes coded = tc_encode(&gzip, tc_str(&twice), whole);
    T_TRUE(coded.len < 25000); /* so it does look back */
    struct codec_spec small_gunzip = {.id = CODEC_GZIP, .max_memory = 4096};
    tc_is_bad(&small_gunzip, tc_str(&coded), (struct tc_cut){100, 100, 0},
        "invalid distance too far back", -1);
    small_gunzip.max_memory = 32768;
    tc_decodes(&small_gunzip, tc_str(&coded), tc_str(&twice), whole);
    tc_drop(&noise);
    tc_drop(&twice);
    tc_drop(&coded);
}

static void
test_levels_are_clamped_and_count(void **state)
{
    (void)state;
    struct tc_bytes text = tc_text(100000, 4);
    size_t size[4];
    static const int levels[4] = {-5, 1, 9, 99};
    for (size_t i = 0; i < COUNT_OF(levels); i++) {
        struct codec_spec spec = gzip;
        spec.level = levels[i];
        tc_round_trip(&spec, tc_str(&text), whole, whole);
        struct tc_bytes coded = tc_encode(&spec, tc_str(&text), whole);
        size[i] = coded.len;
        tc_drop(&coded);
    }
    T_EQ(size[0], size[1]);
    T_EQ(size[2], size[3]);
    T_TRUE(size[2] < size[1]);
    tc_drop(&text);
}

/* 100 MB of zeros in 100 KB: every call gives what there is room for, and memory stays. */
static void
test_a_bomb_moves_in_steps(void **state)
{
    (void)state;
    size_t len = 100 << 20;
    struct tc_bytes zeros = {.p = calloc(1, 1 << 20), .len = 1 << 20};
    T_TRUE(zeros.p != NULL);
    struct tc e = tc_new(&gzip, whole);
    for (size_t i = 0; i < len; i += zeros.len)
        T_EQ(tc_feed(&e, CODEC_RUN, tc_str(&zeros)), CODEC_DRY);
    T_EQ(tc_feed(&e, CODEC_FINISH, STR_NULL), CODEC_DONE);
    T_TRUE(e.out.len < len / 900);

    struct tc d = tc_new(&gunzip, (struct tc_cut){.out = 65536});
    size_t memory = codec_memory(d.c), got = 0;
    struct str in = tc_str(&e.out);
    enum codec_result r = CODEC_FULL;
    while (r == CODEC_FULL) {
        r = tc_call(&d, CODEC_FINISH, &in);
        T_EQ(codec_memory(d.c), memory);
        T_TRUE(d.out.len <= 65536);
        got += d.out.len;
        d.out.len = 0;
    }
    T_EQ(r, CODEC_DONE);
    T_EQ(got, len);
    tc_end(&e);
    tc_end(&d);
    tc_drop(&zeros);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_golden_streams_decode),
        TEST(test_what_is_written_starts_like_its_format),
        TEST(test_round_trips),
        TEST(test_every_split),
        TEST(test_members_back_to_back_are_one_body),
        TEST(test_cuts_and_garbage_are_errors),
        TEST(test_flipped_bits_are_found),
        TEST(test_a_flush_lets_all_out),
        TEST(test_a_reset_codec_is_as_new),
        TEST(test_a_small_budget_delays_and_loses_nothing),
        TEST(test_any_allocation_may_fail),
        TEST(test_memory_is_all_taken_when_made),
        TEST(test_reasons_and_offsets),
        TEST(test_windows_are_bounded),
        TEST(test_levels_are_clamped_and_count),
        TEST(test_a_bomb_moves_in_steps),
    };
    return TEST_MAIN(tests);
}
