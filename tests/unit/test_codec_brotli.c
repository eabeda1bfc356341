#include "test_codec.h"

#define MIB ((size_t)1 << 20)

static const struct codec_spec encoder = {.id = CODEC_BROTLI, .encode = true};
static const struct codec_spec decoder = {.id = CODEC_BROTLI, .max_memory = TC_MAX_MEMORY};
static const struct tc_cut whole = {0}, bytewise = {1, 1, 0};

static const char plain[] = "1\thouse\n2\tclick\n3\thouse\n";
/* brotli(1) 1.0.9: as it is (a window of 24 bits), -w 10, -w 17, --large_window=26 */
static const unsigned char by_brotli[] = {0x1f, 0x17, 0x00, 0xf8, 0x05, 0x6e, 0xc0, 0x36, 0xef,
    0xa9, 0x9c, 0xa4, 0x92, 0x4d, 0x72, 0x00, 0x13, 0x48, 0x11, 0xed, 0xf8, 0x3c};
static const unsigned char by_brotli_10[] = {0xa1, 0xb8, 0x00, 0xc0, 0x2f, 0x70, 0x03, 0xb6, 0x79,
    0x4f, 0xe5, 0x24, 0x95, 0x6c, 0x92, 0x03, 0x98, 0x40, 0x8a, 0x68, 0xc7, 0xe7, 0x01};
static const unsigned char by_brotli_17[] = {0x81, 0xb8, 0x00, 0xc0, 0x2f, 0x70, 0x03, 0xb6, 0x79,
    0x4f, 0xe5, 0x24, 0x95, 0x6c, 0x92, 0x03, 0x98, 0x40, 0x8a, 0x68, 0xc7, 0xe7, 0x01};
static const unsigned char by_brotli_large[] = {0x11, 0x5a, 0x5c, 0x00, 0xe0, 0x17, 0xb8, 0x01,
    0xdb, 0xbc, 0xa7, 0x72, 0x92, 0x4a, 0x36, 0xc9, 0x01, 0x98, 0x80, 0x14, 0xa2, 0x1d, 0x9f, 0x07};
static const unsigned char empty_brotli[] = {0x3f};

#define BYTES(array) str_n((const char *)(array), sizeof(array))

static void
test_golden_streams_decode(void **state)
{
    (void)state;
    static const struct tc_cut cuts[] = {{0}, {1, 1, 0}, {7, 5, 3}};
    for (size_t i = 0; i < COUNT_OF(cuts); i++) {
        tc_decodes(&decoder, BYTES(by_brotli), str_of(plain), cuts[i]);
        tc_decodes(&decoder, BYTES(by_brotli_10), str_of(plain), cuts[i]);
        tc_decodes(&decoder, BYTES(by_brotli_17), str_of(plain), cuts[i]);
        tc_decodes(&decoder, BYTES(empty_brotli), STR_NULL, cuts[i]);
    }
}

static void
test_round_trips(void **state)
{
    (void)state;
    tc_check_round_trips(&encoder);
}

static void
test_every_split(void **state)
{
    (void)state;
    tc_check_every_split(&encoder);
}

static void
test_cuts_and_garbage_are_errors(void **state)
{
    (void)state;
    tc_check_cut_and_garbage(&encoder, 500);
    tc_check_cut_and_garbage(&encoder, 0);
}

static void
test_flipped_bits_do_no_harm(void **state)
{
    (void)state;
    tc_check_flips(&encoder, false);
}

static void
test_a_flush_lets_all_out(void **state)
{
    (void)state;
    tc_check_flush(&encoder, whole);
    tc_check_flush(&encoder, (struct tc_cut){.out = 1});
    tc_check_flush(&encoder, (struct tc_cut){.in = 1000, .out = 5});
}

static void
test_a_reset_codec_is_as_new(void **state)
{
    (void)state;
    tc_check_reset(&encoder);
}

static void
test_a_small_budget_delays_and_loses_nothing(void **state)
{
    (void)state;
    tc_check_budget(&encoder);
}

static void
test_any_allocation_of_the_decoder_may_fail(void **state)
{
    (void)state;
    struct tc_bytes text = tc_text(200000, 15);
    struct tc_bytes coded = tc_encode(&encoder, tc_str(&text), whole);
    tc_check_allocation_failures(&decoder, tc_str(&coded), tc_str(&text));
    tc_drop(&text);
    tc_drop(&coded);
}

/* The library would end the process without a word when an allocation fails; only those that make
 * a codec may. */
static void
test_the_encoder_is_made_or_refused(void **state)
{
    (void)state;
    struct codec *c;
    for (uint64_t n = 1; n <= 2; n++) {
        mem_fail_at(n);
        c = codec_new(&encoder);
        T_TRUE(c == NULL);
        T_EQ(mem_used(), 0);
    }
    c = codec_new(&encoder);
    T_TRUE(c != NULL);
    codec_reset(c);
    mem_fail_at(1);
    char out[100];
    struct codec_io io = {plain, sizeof(plain) - 1, out, sizeof(out)};
    T_EQ(codec_run(c, CODEC_FINISH, &io), CODEC_NO_MEMORY);
    T_EQ(codec_run(c, CODEC_FINISH, &io), CODEC_DONE);
    tc_decodes(&decoder, str_n(out, sizeof(out) - io.out_cap), str_of(plain), whole);
    codec_reset(c);
    io = (struct codec_io){plain, sizeof(plain) - 1, out, sizeof(out)};
    mem_fail_at(2);
    T_ABORTS((void)codec_run(c, CODEC_FINISH, &io));
    mem_fail_at(0);
    codec_free(&c);
}

/* brotli has no way to put streams together: what follows the end is an error, at its first byte.
 */
static void
test_there_is_one_stream(void **state)
{
    (void)state;
    struct tc_bytes two = {0};
    tc_append(&two, (const char *)by_brotli, sizeof(by_brotli));
    tc_append(&two, (const char *)by_brotli, sizeof(by_brotli));
    const char *why = "bytes after the end of the stream";
    tc_is_bad(&decoder, tc_str(&two), whole, why, sizeof(by_brotli));
    tc_is_bad(&decoder, tc_str(&two), bytewise, why, sizeof(by_brotli));
    tc_drop(&two);
}

static void
test_reasons_and_offsets(void **state)
{
    (void)state;
    tc_is_bad(&decoder, STR_NULL, whole, "input ends before the first frame", 0);
    struct str cut = BYTES(by_brotli);
    cut.len -= 1;
    tc_is_bad(&decoder, cut, bytewise, "input ends inside a frame", (int64_t)cut.len);
    struct tc_bytes bad = {0};
    tc_append(&bad, (const char *)by_brotli, sizeof(by_brotli));
    memset(bad.p + 6, 0xff, 8); /* the prefix codes */
    tc_is_bad(&decoder, tc_str(&bad), whole, "invalid brotli data", -1);
    tc_is_bad(&decoder, tc_str(&bad), bytewise, "invalid brotli data", -1);
    tc_drop(&bad);
}

static void
test_the_boundary_is_before_and_behind_the_stream(void **state)
{
    (void)state;
    struct tc d = tc_new(&decoder, bytewise);
    T_TRUE(codec_at_boundary(d.c));
    struct str s = BYTES(by_brotli);
    T_EQ(tc_feed(&d, CODEC_RUN, str_n(s.p, 1)), CODEC_DRY);
    T_FALSE(codec_at_boundary(d.c));
    T_EQ(tc_feed(&d, CODEC_RUN, str_n(s.p + 1, s.len - 2)), CODEC_DRY);
    T_FALSE(codec_at_boundary(d.c));
    T_EQ(tc_feed(&d, CODEC_RUN, str_n(s.p + s.len - 1, 1)), CODEC_DRY);
    T_TRUE(codec_at_boundary(d.c));
    T_EQ(tc_feed(&d, CODEC_FINISH, STR_NULL), CODEC_DONE);
    tc_end(&d);
}

/* By the first byte alone, before anything is allocated for it. */
static void
test_windows_are_bounded(void **state)
{
    (void)state;
    const char *why = "window needs too much memory";
    struct codec_spec small = decoder;
    small.max_memory = 1u << 17;
    tc_decodes(&small, BYTES(by_brotli_17), str_of(plain), whole);
    tc_is_bad(&small, BYTES(by_brotli), whole, why, 0);
    small.max_memory -= 1;
    tc_is_bad(&small, BYTES(by_brotli_17), bytewise, why, 0);
    tc_decodes(&small, BYTES(by_brotli_10), str_of(plain), whole);
    /* Google's extension, up to 1 GiB. */
    small.max_memory = SIZE_MAX;
    tc_is_bad(&small, BYTES(by_brotli_large), whole, why, 0);
}

/* Every first byte, against what RFC 7932 section 9.1 says of it. */
static void
test_every_window_size_takes_its_memory(void **state)
{
    (void)state;
    for (unsigned first = 0; first < 128; first++) {
        size_t bits = 16;
        if ((first & 1) != 0) {
            bits = first >> 1 & 7;
            bits = bits > 0 ? 17 + bits : (first >> 4 & 7) > 0 ? 8 + (first >> 4 & 7) : 17;
        }
        struct tc d = tc_new(&decoder, whole);
        size_t before = codec_memory(d.c);
        char byte = (char)first;
        enum codec_result r = tc_feed(&d, CODEC_RUN, str_n(&byte, 1));
        if (bits == 9) {
            T_EQ(r, CODEC_BAD);
        } else {
            size_t window = (size_t)1 << bits, took = codec_memory(d.c) - before;
            T_TRUE(took > window + 2 * MIB && took < window + 3 * MIB);
        }
        tc_end(&d);
    }
}

/* What can never be granted is an error, and not a wait for ever. */
static void
test_more_than_the_whole_budget_is_an_error(void **state)
{
    (void)state;
    mem_init(8 * MIB, 65536, 0);
    tc_is_bad(&decoder, BYTES(by_brotli), whole, "window needs too much memory", 0);
    tc_decodes(&decoder, BYTES(by_brotli_17), str_of(plain), whole);
    mem_init(SIZE_MAX, 65536, 0);
}

/* The library never comes to hold more than was taken for it at the start. */
static void
test_what_is_taken_at_the_start_is_enough(void **state)
{
    (void)state;
    struct tc_bytes text = tc_text(2 * MIB, 3), noise = tc_noise(MIB, 4), mixed = {0};
    for (size_t at = 0; at < MIB; at += 40000) {
        size_t n = size_min(40000, MIB - at);
        tc_append(&mixed, text.p + at, n);
        tc_append(&mixed, noise.p + at, n);
    }
    const struct tc_bytes *inputs[] = {&text, &noise, &mixed};
    for (int level = 1; level <= 9; level++) {
        struct codec_spec spec = encoder;
        spec.level = level;
        for (size_t i = 0; i < COUNT_OF(inputs); i++) {
            struct tc e = tc_new(&spec, (struct tc_cut){.in = 300000});
            size_t taken = codec_memory(e.c);
            T_EQ(tc_feed(&e, CODEC_FINISH, tc_str(inputs[i])), CODEC_DONE);
            T_EQ(codec_memory(e.c), taken);
            struct tc d = tc_new(&decoder, (struct tc_cut){.in = 5000});
            T_EQ(tc_feed(&d, CODEC_RUN, str_n(e.out.p, 1)), CODEC_DRY);
            taken = codec_memory(d.c);
            T_EQ(tc_feed(&d, CODEC_FINISH, str_n(e.out.p + 1, e.out.len - 1)), CODEC_DONE);
            T_EQ(codec_memory(d.c), taken);
            tc_equal(tc_str(&d.out), tc_str(inputs[i]));
            tc_end(&e);
            tc_end(&d);
        }
    }
    tc_drop(&text);
    tc_drop(&noise);
    tc_drop(&mixed);
}

static void
test_levels_are_clamped_and_count(void **state)
{
    (void)state;
    struct tc_bytes text = tc_text(100000, 4);
    size_t size[5];
    static const int levels[] = {-5, 1, 0, 9, 99};
    for (size_t i = 0; i < COUNT_OF(levels); i++) {
        struct codec_spec spec = encoder;
        spec.level = levels[i];
        struct tc_bytes coded = tc_encode(&spec, tc_str(&text), whole);
        size[i] = coded.len;
        tc_drop(&coded);
    }
    T_EQ(size[0], size[1]);
    T_EQ(size[3], size[4]);
    T_TRUE(size[3] < size[2] && size[2] < size[1]);
    tc_drop(&text);
}

static void
test_a_bomb_moves_in_steps(void **state)
{
    (void)state;
    size_t len = 100 * MIB;
    struct tc_bytes zeros = {.p = calloc(1, MIB), .len = MIB};
    T_TRUE(zeros.p != NULL);
    struct tc e = tc_new(&encoder, whole);
    for (size_t i = 0; i < len; i += zeros.len)
        T_EQ(tc_feed(&e, CODEC_RUN, tc_str(&zeros)), CODEC_DRY);
    T_EQ(tc_feed(&e, CODEC_FINISH, STR_NULL), CODEC_DONE);
    T_TRUE(e.out.len < len / 10000);

    struct tc d = tc_new(&decoder, (struct tc_cut){.out = 65536});
    struct str in = tc_str(&e.out);
    size_t got = 0;
    enum codec_result r = CODEC_FULL;
    while (r == CODEC_FULL) {
        r = tc_call(&d, CODEC_FINISH, &in);
        T_TRUE(d.out.len <= 65536);
        T_TRUE(codec_memory(d.c) < 4 * MIB);
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
        TEST(test_round_trips),
        TEST(test_every_split),
        TEST(test_cuts_and_garbage_are_errors),
        TEST(test_flipped_bits_do_no_harm),
        TEST(test_a_flush_lets_all_out),
        TEST(test_a_reset_codec_is_as_new),
        TEST(test_a_small_budget_delays_and_loses_nothing),
        TEST(test_any_allocation_of_the_decoder_may_fail),
        TEST(test_the_encoder_is_made_or_refused),
        TEST(test_there_is_one_stream),
        TEST(test_reasons_and_offsets),
        TEST(test_the_boundary_is_before_and_behind_the_stream),
        TEST(test_windows_are_bounded),
        TEST(test_every_window_size_takes_its_memory),
        TEST(test_more_than_the_whole_budget_is_an_error),
        TEST(test_what_is_taken_at_the_start_is_enough),
        TEST(test_levels_are_clamped_and_count),
        TEST(test_a_bomb_moves_in_steps),
    };
    return TEST_MAIN(tests);
}
