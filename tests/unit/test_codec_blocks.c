#include "codec/city.h"

#include "test_codec.h"

#define HEAD 25u
#define MIB  ((size_t)1 << 20)

static const struct codec_spec encoders[] = {
    {.id = CODEC_BLOCKS, .encode = true, .method = BLOCK_NONE},
    {.id = CODEC_BLOCKS, .encode = true, .method = BLOCK_LZ4},
    {.id = CODEC_BLOCKS, .encode = true, .method = BLOCK_LZ4, .level = 3},
    {.id = CODEC_BLOCKS, .encode = true, .method = BLOCK_ZSTD, .level = 1},
};
static const struct codec_spec decoder = {.id = CODEC_BLOCKS, .max_memory = TC_MAX_MEMORY};
static const struct tc_cut whole = {0};

static void
each_encoder(void (*check)(const struct codec_spec *encoder))
{
    for (size_t i = 0; i < COUNT_OF(encoders); i++)
        check(&encoders[i]);
}

static int
teardown(void **state)
{
    (void)state;
    mem_fail_at(0);
    return mem_used() == 0 ? 0 : -1;
}

static struct tc_bytes
from_hex(const char *hex)
{
    struct tc_bytes b = {0};
    for (; *hex != '\0'; hex += 2) {
        char two[3] = {hex[0], hex[1], '\0'};
        char byte = (char)strtoul(two, NULL, 16);
        tc_append(&b, &byte, 1);
    }
    return b;
}

static void
put_u32(char *p, size_t v)
{
    for (int i = 0; i < 4; i++)
        p[i] = (char)(v >> 8 * i);
}

/* Appends a block with a good checksum, whatever it says about itself. */
static void
add_block(struct tc_bytes *to, unsigned method, struct str payload, size_t plain_len)
{
    char head[HEAD];
    struct tc_bytes covered = {0};
    head[16] = (char)method;
    put_u32(head + 17, payload.len + 9);
    put_u32(head + 21, plain_len);
    tc_append(&covered, head + 16, 9);
    tc_append(&covered, payload.p, payload.len);
    city_hash128(covered.p, covered.len, (unsigned char *)head);
    tc_append(to, head, 16);
    tc_append(to, covered.p, covered.len);
    tc_drop(&covered);
}

static size_t
get_u32(const char *p)
{
    const unsigned char *u = (const unsigned char *)p;
    return u[0] | (size_t)u[1] << 8 | (size_t)u[2] << 16 | (size_t)u[3] << 24;
}

/* Plain sizes of the blocks of a stream, which all have this method; the number of them. */
static size_t
plain_sizes(struct str stream, enum codec_block_method method, size_t *sizes, size_t cap)
{
    size_t n = 0;
    for (size_t at = 0; at < stream.len; n++) {
        T_TRUE(n < cap && stream.len - at > HEAD);
        const char *p = stream.p + at;
        T_EQ((unsigned char)p[16], method);
        size_t covered = get_u32(p + 17);
        T_TRUE(covered > 9 && covered <= stream.len - at - 16);
        unsigned char sum[16];
        city_hash128(p + 16, covered, sum);
        assert_memory_equal(sum, p, 16);
        sizes[n] = get_u32(p + 21);
        at += 16 + covered;
    }
    return n;
}

/* ---- what all codecs promise */
static void
test_round_trips(void **state)
{
    (void)state;
    each_encoder(tc_check_round_trips);
}

static void
test_every_split(void **state)
{
    (void)state;
    each_encoder(tc_check_every_split);
}

static void
test_several_bodies_are_one(void **state)
{
    (void)state;
    each_encoder(tc_check_frames);
}

static void
test_cut_or_followed_by_garbage(void **state)
{
    (void)state;
    for (size_t m = 0; m < COUNT_OF(encoders); m++)
        tc_check_cut_and_garbage(&encoders[m], 300);
}

static void
test_every_flipped_bit_is_seen(void **state)
{
    (void)state;
    for (size_t m = 0; m < COUNT_OF(encoders); m++)
        tc_check_flips(&encoders[m], true);
}

static void
test_flush(void **state)
{
    (void)state;
    for (size_t m = 0; m < COUNT_OF(encoders); m++) {
        const struct codec_spec *e = &encoders[m];
        tc_check_flush(e, whole);
        tc_check_flush(e, (struct tc_cut){3000, 1000, 4});
    }
}

static void
test_reset(void **state)
{
    (void)state;
    each_encoder(tc_check_reset);
}

static void
test_little_budget(void **state)
{
    (void)state;
    each_encoder(tc_check_budget);
}

static void
test_failed_allocations(void **state)
{
    (void)state;
    each_encoder(tc_check_allocations);
}

/* ---- golden */
static void
test_blocks_of_other_makers(void **state)
{
    (void)state;
    static const struct {
        const char *block, *plain;
    } golden[] = {
        /* ClickHouse 26.7, compress=1: TSV, and a Native block */
        {"de79cf087fb635049db816df195b016b820c0000000200000020310a", "310a"},
        {"f43c26df94edbfb0c14d7e1ed9ee1adb82600000007f000000ff05010002ffffffff000206016b0655496e74"
         "363400010005130119000d0800f41c672541676772656761746546756e6374696f6e2867726f757041727261"
         "792c20537472696e67290001013003007031010131010131",
            "010002ffffffff000206016b0655496e743634000000000000000000000000000000000000000000000000"
            "00"
            "01000000000000000100000000000000010000000000000001672541676772656761746546756e6374696f"
            "6e"
            "2867726f757041727261792c20537472696e672900010130010130010130010131010131010131"},
        /* tests/rig/chblocks.py: ZSTD, NONE */
        {"5a97cdd5222bc767afc37f7a5aee20ba90240000004800000028b52ffd204895000060636c69636b09686f75"
         "73650a0100b95492",
            "636c69636b09686f7573650a636c69636b09686f7573650a636c69636b09686f7573650a"
            "636c69636b09686f7573650a636c69636b09686f7573650a636c69636b09686f7573650a"},
        {"0f436c4fe2a5dd798d7df5529c5650a0020b00000002000000310a", "310a"},
    };
    struct tc_bytes stream = {0}, all = {0};
    for (size_t i = 0; i < COUNT_OF(golden); i++) {
        struct tc_bytes block = from_hex(golden[i].block), plain = from_hex(golden[i].plain);
        tc_decodes(&decoder, tc_str(&block), tc_str(&plain), whole);
        tc_append(&stream, block.p, block.len);
        tc_append(&all, plain.p, plain.len);
        tc_drop(&block);
        tc_drop(&plain);
    }
    /* Methods may change from block to block: TCP and 18.16 have it so. */
    tc_decodes(&decoder, tc_str(&stream), tc_str(&all), whole);
    tc_decodes(&decoder, tc_str(&stream), tc_str(&all), (struct tc_cut){1, 1, 0});
    tc_drop(&stream);
    tc_drop(&all);
}

static void
test_our_blocks_are_those_of_clickhouse(void **state)
{
    (void)state;
    struct tc_bytes lz4 = from_hex("de79cf087fb635049db816df195b016b820c0000000200000020310a");
    struct tc_bytes none = from_hex("0f436c4fe2a5dd798d7df5529c5650a0020b00000002000000310a");
    for (size_t m = 0; m < COUNT_OF(encoders); m++) {
        const struct codec_spec *e = &encoders[m];
        struct tc_bytes got = tc_encode(e, STR("1\n"), whole);
        if (e->method == BLOCK_LZ4)
            tc_equal(tc_str(&got), tc_str(&lz4));
        if (e->method == BLOCK_NONE)
            tc_equal(tc_str(&got), tc_str(&none));
        tc_drop(&got);
    }
    tc_drop(&lz4);
    tc_drop(&none);
}

/* ---- how an encoder cuts */
static void
test_blocks_of_one_mebibyte(void **state)
{
    (void)state;
    static const struct {
        size_t len, blocks, last;
    } cases[] = {{0, 0, 0}, {1, 1, 1}, {MIB - 1, 1, MIB - 1}, {MIB, 1, MIB}, {MIB + 1, 2, 1},
        {2 * MIB, 2, MIB}, {2 * MIB + 70000, 3, 70000}};
    static const struct tc_cut cuts[] = {
        {0, 0, 0}, {65536, 0, 0}, {262144, 3 * MIB, 0}, {0, 3 * MIB, 0}, {MIB + 3, 100000, 0}};
    struct tc_bytes text = tc_text(3 * MIB, 5);
    for (size_t m = 0; m < COUNT_OF(encoders); m++) {
        const struct codec_spec *e = &encoders[m];
        for (size_t i = 0; i < COUNT_OF(cases); i++) {
            for (size_t k = 0; k < COUNT_OF(cuts); k++) {
                struct str in = str_n(text.p, cases[i].len);
                struct tc_bytes out = tc_encode(e, in, cuts[k]);
                size_t sizes[4], n = plain_sizes(tc_str(&out), e->method, sizes, 4);
                T_EQ(n, cases[i].blocks);
                for (size_t b = 0; b + 1 < n; b++)
                    T_EQ(sizes[b], MIB);
                if (n > 0)
                    T_EQ(sizes[n - 1], cases[i].last);
                if (i == COUNT_OF(cases) - 1)
                    tc_decodes(&decoder, tc_str(&out), in, whole);
                tc_drop(&out);
            }
        }
    }
    tc_drop(&text);
}

/* A body that drips has one block per flush, whatever the method's contexts remember. */
static void
test_many_small_flushes(void **state)
{
    (void)state;
    struct tc_bytes text = tc_text(40000, 8), small = tc_noise(700, 2);
    for (size_t m = 0; m < COUNT_OF(encoders); m++) {
        const struct codec_spec *e = &encoders[m];
        struct tc t = tc_new(e, whole);
        size_t memory = codec_memory(t.c);
        for (size_t i = 0; i < 400; i++) {
            struct str piece = i % 2 == 0 ? str_n(text.p + i * 40, i + 1) : str_n(small.p, i + 1);
            T_EQ(tc_feed(&t, CODEC_FLUSH, piece), CODEC_DRY);
        }
        T_EQ(codec_memory(t.c), memory); /* straight from in to out */
        T_EQ(tc_feed(&t, CODEC_FINISH, STR_NULL), CODEC_DONE);
        size_t sizes[400];
        T_EQ(plain_sizes(tc_str(&t.out), e->method, sizes, 400), 400);
        for (size_t i = 0; i < 400; i++)
            T_EQ(sizes[i], i + 1);
        tc_end(&t);
    }
    tc_drop(&text);
    tc_drop(&small);
}

/* Every level of the method's scale, and beyond its ends; sizes around its steps. */
static void
test_levels(void **state)
{
    (void)state;
    static const int levels[] = {-200000, -5, -1, 0, 1, 2, 3, 4, 7, 10, 12, 13, 16, 19, 22, 1000};
    static const size_t sizes[] = {1, 1000, 16384, 16385, 131072, 131073, 262144, 262145, MIB};
    struct tc_bytes text = tc_text(MIB, 17);
    for (size_t i = 0; i < COUNT_OF(levels); i++) {
        struct codec_spec specs[] = {
            {.id = CODEC_BLOCKS, .encode = true, .method = BLOCK_LZ4, .level = levels[i]},
            {.id = CODEC_BLOCKS, .encode = true, .method = BLOCK_ZSTD, .level = levels[i]},
        };
        for (size_t k = 0; k < COUNT_OF(specs); k++) {
            struct tc t = tc_new(&specs[k], whole);
            T_EQ(codec_spec_of(t.c)->level, levels[i]);
            size_t total = 0;
            /* The slow ones would take seconds with the sanitizers. */
            for (size_t s = 0; s < COUNT_OF(sizes) && (levels[i] < 10 || sizes[s] < 140000); s++) {
                T_EQ(tc_feed(&t, CODEC_FLUSH, str_n(text.p, sizes[s])), CODEC_DRY);
                total += sizes[s];
            }
            struct tc d = tc_new(&decoder, whole);
            T_EQ(tc_feed(&d, CODEC_FINISH, tc_str(&t.out)), CODEC_DONE);
            T_EQ(d.out.len, total);
            tc_end(&d);
            tc_end(&t);
        }
    }
    tc_drop(&text);
}

/* ---- bad blocks; each behind a good one, so that the offset is not 0 */
static void
bad_after_good(struct str block, const char *why)
{
    struct tc_bytes stream = {0};
    add_block(&stream, BLOCK_NONE, STR("good\n"), 5);
    int64_t at = (int64_t)stream.len;
    tc_append(&stream, block.p, block.len);
    if (str_eq(str_of(why), STR("input ends inside a block")))
        at = (int64_t)stream.len;
    tc_is_bad(&decoder, tc_str(&stream), whole, why, at);
    tc_is_bad(&decoder, tc_str(&stream), (struct tc_cut){1, 1, 0}, why, at);
    tc_is_bad(&decoder, tc_str(&stream), (struct tc_cut){.in = 40, .out = 3}, why, at);
    tc_drop(&stream);
}

static void
bad_block(unsigned method, struct str payload, size_t plain_len, const char *why)
{
    struct tc_bytes block = {0};
    add_block(&block, method, payload, plain_len);
    bad_after_good(tc_str(&block), why);
    tc_drop(&block);
}

static void
test_bad_methods(void **state)
{
    (void)state;
    for (unsigned m = 0; m < 256; m++)
        if (m != BLOCK_NONE && m != BLOCK_LZ4 && m != BLOCK_ZSTD)
            bad_block(m, STR("abc"), 3, "block method is not LZ4, ZSTD or NONE");
}

static void
test_bad_sizes(void **state)
{
    (void)state;
    /* The first size counts itself and its neighbours. */
    for (size_t covered = 0; covered < 9; covered++) {
        struct tc_bytes block = {0};
        add_block(&block, BLOCK_LZ4, STR("\x10x"), 1);
        put_u32(block.p + 17, covered);
        bad_after_good(tc_str(&block), "size of the block is too small");
        tc_drop(&block);
    }
    /* 26.7 answers code 271 to these. */
    bad_block(BLOCK_NONE, STR_NULL, 0, "block without plain bytes");
    bad_block(BLOCK_LZ4, STR("\0"), 0, "block without plain bytes");
    bad_block(BLOCK_ZSTD, STR("\x28\xb5\x2f\xfd\x20\0\x01\0\0"), 0, "block without plain bytes");

    const char *misfit = "sizes of the block do not fit each other";
    bad_block(BLOCK_NONE, STR("abc"), 2, misfit);
    bad_block(BLOCK_NONE, STR("abc"), 4, misfit);
    bad_block(BLOCK_NONE, STR_NULL, 4, misfit);
    struct tc_bytes noise = tc_noise(200, 1);
    bad_block(BLOCK_LZ4, tc_str(&noise), 1, misfit);
    bad_block(BLOCK_ZSTD, tc_str(&noise), 1, misfit);
    tc_drop(&noise);
}

static void
test_a_payload_must_give_its_plain_size(void **state)
{
    (void)state;
    const char *why = "block does not decompress to its size";
    bad_block(BLOCK_LZ4,
        STR("\x20"
            "1\n"),
        1, why);
    bad_block(BLOCK_LZ4,
        STR("\x20"
            "1\n"),
        3, why);
    bad_block(BLOCK_LZ4, STR("\xff\xff"), 100, why);
    bad_block(BLOCK_LZ4, STR_NULL, 1, why);
    const char zstd[] = "\x28\xb5\x2f\xfd\x20\x02\x11\0\0001\n"; /* one raw block of 2 bytes */
    struct tc_bytes good = {0};
    add_block(&good, BLOCK_ZSTD, str_n(zstd, sizeof(zstd) - 1), 2);
    tc_decodes(&decoder, tc_str(&good), STR("1\n"), whole);
    tc_drop(&good);
    bad_block(BLOCK_ZSTD, str_n(zstd, sizeof(zstd) - 1), 1, why);
    bad_block(BLOCK_ZSTD, str_n(zstd, sizeof(zstd) - 1), 3, why);
    bad_block(BLOCK_ZSTD, str_n(zstd, sizeof(zstd) - 2), 2, why);
    bad_block(BLOCK_ZSTD, STR("no frame"), 2, why);
    bad_block(BLOCK_ZSTD, STR_NULL, 2, why);
    /* A frame of zstd 0.7: the library would decode it, with memory nobody counted. */
    bad_block(BLOCK_ZSTD, STR("\x27\xb5\x2f\xfd\x20\x02\x80\0\0021\n\xc0\0\0"), 2, why);
}

static void
test_nothing_of_a_block_with_a_bad_checksum_comes_out(void **state)
{
    (void)state;
    struct tc_bytes stream = {0}, noise = tc_noise(5000, 4);
    add_block(&stream, BLOCK_NONE, STR("good\n"), 5);
    add_block(&stream, BLOCK_NONE, tc_str(&noise), noise.len);
    stream.p[stream.len - 1] ^= 1;
    for (size_t in = 0; in < 3; in++) {
        struct tc t = tc_new(&decoder, (struct tc_cut){.in = in * 50, .out = in * 100});
        T_EQ(tc_feed(&t, CODEC_FINISH, tc_str(&stream)), CODEC_BAD);
        T_ZEQ(codec_why(t.c), "checksum mismatch");
        T_EQ(codec_offset(t.c), 30);
        tc_equal(tc_str(&t.out), STR("good\n"));
        tc_end(&t);
    }
    tc_drop(&stream);
    tc_drop(&noise);
}

/* Either half of it, in any bit: not only when other bytes would come out. */
static void
test_every_bit_of_the_checksum_counts(void **state)
{
    (void)state;
    struct tc_bytes block = {0};
    add_block(&block, BLOCK_NONE, STR("good\n"), 5);
    for (size_t bit = 0; bit < 16 * 8; bit++) {
        block.p[bit / 8] ^= (char)(1u << bit % 8);
        tc_is_bad(&decoder, tc_str(&block), whole, "checksum mismatch", 0);
        block.p[bit / 8] ^= (char)(1u << bit % 8);
    }
    tc_drop(&block);
}

/* Input that was taken is never looked at again: it is borrowed for the call. */
static void
test_input_is_free_once_taken(void **state)
{
    (void)state;
    static const unsigned methods[] = {BLOCK_NONE, BLOCK_LZ4};
    for (size_t i = 0; i < COUNT_OF(methods); i++) {
        struct tc_bytes block = {0};
        bool none = methods[i] == BLOCK_NONE;
        add_block(&block, methods[i], none ? STR("good\n") : STR("\x50good\n"), 5);
        struct codec *c = codec_new(&decoder);
        T_TRUE(c != NULL);
        char out[5];
        struct codec_io io = {block.p, block.len, out, 1};
        T_EQ(codec_run(c, CODEC_RUN, &io), CODEC_FULL);
        T_EQ(io.in_len, 0);
        tc_drop(&block);
        io = (struct codec_io){NULL, 0, out + 1, 4};
        T_EQ(codec_run(c, CODEC_FINISH, &io), CODEC_DONE);
        assert_memory_equal(out, "good\n", 5);
        codec_free(&c);
    }
}

/* The payload's bound decides whether a block is made straight in out: rooms around it. */
static void
test_rooms_around_the_bound(void **state)
{
    (void)state;
    struct tc_bytes noise = tc_noise(500, 5);
    for (size_t m = 0; m < COUNT_OF(encoders); m++)
        for (size_t room = 400; room < 700; room++) {
            tc_round_trip(&encoders[m], tc_str(&noise), (struct tc_cut){.out = room}, whole);
            tc_round_trip(&encoders[m], tc_str(&noise), (struct tc_cut){100, room, 0}, whole);
        }
    tc_drop(&noise);
}

static void
test_input_that_ends_inside_a_block(void **state)
{
    (void)state;
    struct tc_bytes block = {0};
    add_block(&block, BLOCK_LZ4,
        STR("\x20"
            "1\n"),
        2);
    for (size_t cut = 1; cut < block.len; cut++)
        bad_after_good(str_n(block.p, cut), "input ends inside a block");
    tc_drop(&block);
    tc_decodes(&decoder, STR_NULL, STR_NULL, whole); /* no block at all: an empty result */
}

/* ---- the memory bound */
static void
test_a_block_over_the_bound_allocates_nothing(void **state)
{
    (void)state;
    static const struct {
        size_t payload, plain;
    } cases[] = {{6000, 4000}, {100, 0xffffffff}, {0xfffffff6, 0xffffffff},
        {0x40000001, 0x7fffffff}, {1, 0x40000001}, {10000 - 9 - 4999 + 1, 4999}, {5000, 9999}};
    struct codec_spec spec = {.id = CODEC_BLOCKS, .max_memory = 10000};
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct tc_bytes head = {0};
        add_block(&head, BLOCK_LZ4, STR_NULL, cases[i].plain);
        put_u32(head.p + 17, cases[i].payload + 9);
        struct tc t = tc_new(&spec, whole);
        size_t memory = codec_memory(t.c);
        mem_fail_at(1);
        T_EQ(tc_feed(&t, CODEC_RUN, tc_str(&head)), CODEC_BAD);
        mem_fail_at(0);
        T_ZEQ(codec_why(t.c), "block larger than allowed");
        T_EQ(codec_offset(t.c), 0);
        T_EQ(codec_memory(t.c), memory);
        tc_end(&t);
        tc_drop(&head);
    }
    /* Exactly at the bound. */
    struct tc_bytes noise = tc_noise((10000 - 9) / 2, 3), block = {0};
    add_block(&block, BLOCK_NONE, tc_str(&noise), noise.len);
    tc_decodes(&spec, tc_str(&block), tc_str(&noise), (struct tc_cut){100, 100, 0});
    spec.max_memory = 9 + 2 * noise.len - 1;
    tc_is_bad(&spec, tc_str(&block), (struct tc_cut){100, 100, 0}, "block larger than allowed", 0);
    tc_drop(&noise);
    tc_drop(&block);
}

/* What the budget could never grant is an error and not a wait without end. */
static void
test_a_block_over_the_budget_is_refused(void **state)
{
    (void)state;
    mem_init((size_t)4 << 20, 65536, 0);
    static const unsigned methods[] = {BLOCK_LZ4, BLOCK_ZSTD};
    for (size_t i = 0; i < COUNT_OF(methods); i++) {
        for (size_t plain = (size_t)2 << 20; plain < (size_t)4 << 20; plain += 4096) {
            struct tc_bytes head = {0};
            add_block(&head, methods[i], STR_NULL, plain);
            put_u32(head.p + 17, 1009);
            struct tc t = tc_new(&decoder, whole);
            enum codec_result r = tc_feed(&t, CODEC_RUN, tc_str(&head));
            T_TRUE(r == CODEC_DRY || r == CODEC_BAD);
            if (r == CODEC_DRY)
                T_TRUE(codec_memory(t.c) <= mem_long_limit());
            tc_end(&t);
            tc_drop(&head);
        }
    }
    mem_init(SIZE_MAX, 65536, 0);
}

/* Memory is for reuse; a decoder that was refused some holds none. */
static void
test_a_decoder_that_waits_holds_nothing(void **state)
{
    (void)state;
    mem_init((size_t)8 << 20, 65536, 0);
    struct tc_bytes big = tc_noise(MIB, 1), block = {0};
    add_block(&block, BLOCK_NONE, str_n(big.p, 100000), 100000);
    struct tc t = tc_new(&decoder, (struct tc_cut){1000, 1000, 0});
    size_t bare = codec_memory(t.c);
    T_EQ(tc_feed(&t, CODEC_RUN, tc_str(&block)), CODEC_DRY);
    size_t first = codec_memory(t.c);
    T_TRUE(first >= bare + 100009);
    T_EQ(tc_feed(&t, CODEC_RUN, tc_str(&block)), CODEC_DRY);
    T_EQ(codec_memory(t.c), first);

    block.len = 0;
    add_block(&block, BLOCK_NONE, tc_str(&big), big.len);
    size_t held = mem_long_limit() - mem_used() - 500000; /* not enough, even with its own */
    T_TRUE(mem_take_long(held));
    struct codec_io io = {block.p, 30, NULL, 0};
    T_EQ(codec_run(t.c, CODEC_RUN, &io), CODEC_NO_MEMORY);
    T_EQ(codec_memory(t.c), bare);
    T_EQ(codec_run(t.c, CODEC_RUN, &io), CODEC_NO_MEMORY);
    mem_give(held);
    T_EQ(codec_run(t.c, CODEC_RUN, &io), CODEC_DRY);
    t.out.len = 0;
    T_EQ(tc_feed(&t, CODEC_RUN, str_n(block.p + 30, block.len - 30)), CODEC_DRY);
    tc_equal(tc_str(&t.out), tc_str(&big));

    /* Room for the payload but not for what it decodes to: it does not keep the one. */
    codec_reset(t.c);
    block.len = 0;
    add_block(&block, BLOCK_LZ4, str_n(big.p, 500000), 4 * MIB);
    held = mem_long_limit() - mem_used() - 100000;
    T_TRUE(mem_take_long(held));
    io = (struct codec_io){block.p, 30, NULL, 0};
    T_EQ(codec_run(t.c, CODEC_RUN, &io), CODEC_NO_MEMORY);
    T_EQ(codec_memory(t.c), bare);
    mem_give(held);
    tc_end(&t);
    tc_drop(&big);
    tc_drop(&block);
    mem_init(SIZE_MAX, 65536, 0);
}

/* An encoder that took bytes never waits for memory: it makes shorter blocks. */
static void
test_an_encoder_that_holds_bytes_goes_on(void **state)
{
    (void)state;
    mem_init((size_t)64 << 20, 65536, 0);
    struct tc_bytes text = tc_text(700000, 1);
    for (size_t m = 0; m < COUNT_OF(encoders); m++) {
        const struct codec_spec *e = &encoders[m];
        struct tc t = tc_new(e, (struct tc_cut){.out = 3000});
        T_EQ(tc_feed(&t, CODEC_RUN, str_n(text.p, 10)), CODEC_DRY);
        size_t held = mem_long_limit() - mem_used();
        T_TRUE(mem_take_long(held));
        size_t memory = codec_memory(t.c);
        T_EQ(tc_feed(&t, CODEC_RUN, str_n(text.p + 10, 300000)), CODEC_DRY);
        T_EQ(tc_feed(&t, CODEC_FINISH, str_n(text.p + 300010, text.len - 300010)), CODEC_DONE);
        T_EQ(t.no_memory, 0);
        T_EQ(codec_memory(t.c), memory);
        mem_give(held);
        size_t sizes[100], n = plain_sizes(tc_str(&t.out), e->method, sizes, 100);
        T_TRUE(n > 20);
        for (size_t i = 0; i + 1 < n; i++)
            T_TRUE(sizes[i] >= 16384);
        tc_decodes(&decoder, tc_str(&t.out), tc_str(&text), whole);
        tc_end(&t);
    }
    tc_drop(&text);
    mem_init(SIZE_MAX, 65536, 0);
}

/* The smallest rooms are there from the start, or there is no encoder: it never waits for memory.
 */
static void
test_an_encoder_makes_do_with_little(void **state)
{
    (void)state;
    mem_init((size_t)64 << 20, 65536, 0);
    struct tc_bytes text = tc_text(700000, 1);
    for (size_t m = 0; m < COUNT_OF(encoders); m++) {
        size_t held = mem_long_limit() - mem_used() - 10000;
        T_TRUE(mem_take_long(held));
        T_TRUE(codec_new(&encoders[m]) == NULL);
        T_EQ(mem_used(), mem_long_limit() - 10000);
        mem_give(held);

        struct tc t = tc_new(&encoders[m], (struct tc_cut){.out = 3000});
        size_t memory = codec_memory(t.c);
        held = mem_long_limit() - mem_used();
        T_TRUE(mem_take_long(held));
        T_EQ(tc_feed(&t, CODEC_FINISH, tc_str(&text)), CODEC_DONE);
        T_EQ(t.no_memory, 0);
        T_EQ(codec_memory(t.c), memory);
        mem_give(held);
        tc_decodes(&decoder, tc_str(&t.out), tc_str(&text), whole);
        tc_end(&t);
    }
    tc_drop(&text);
    mem_init(SIZE_MAX, 65536, 0);
}

/* The n-th allocation fails and the next ones do not: an encoder loses nothing. */
static void
test_an_encoder_loses_nothing_when_an_allocation_fails(void **state)
{
    (void)state;
    struct tc_bytes text = tc_text(1300000, 6);
    for (size_t m = 0; m < COUNT_OF(encoders); m++) {
        const struct codec_spec *e = &encoders[m];
        for (uint64_t n = 1; n < 14; n++) {
            mem_fail_at(n);
            struct tc t = {.c = codec_new(e), .cut = {.in = 9000, .out = 30000}};
            if (t.c == NULL) {
                T_TRUE(n <= 4);
                T_EQ(mem_used(), 0);
                continue;
            }
            T_EQ(tc_feed(&t, CODEC_FINISH, tc_str(&text)), CODEC_DONE);
            mem_fail_at(0);
            T_EQ(t.no_memory, 0);
            tc_decodes(&decoder, tc_str(&t.out), tc_str(&text), whole);
            tc_end(&t);
        }
    }
    tc_drop(&text);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_round_trips),
        TEST(test_every_split),
        TEST(test_several_bodies_are_one),
        TEST(test_cut_or_followed_by_garbage),
        TEST(test_every_flipped_bit_is_seen),
        TEST(test_flush),
        TEST(test_reset),
        TEST(test_little_budget),
        TEST(test_failed_allocations),
        TEST(test_blocks_of_other_makers),
        TEST(test_our_blocks_are_those_of_clickhouse),
        TEST(test_blocks_of_one_mebibyte),
        TEST(test_many_small_flushes),
        TEST(test_levels),
        TEST(test_bad_methods),
        TEST(test_bad_sizes),
        TEST(test_a_payload_must_give_its_plain_size),
        TEST(test_nothing_of_a_block_with_a_bad_checksum_comes_out),
        TEST(test_every_bit_of_the_checksum_counts),
        TEST(test_input_is_free_once_taken),
        TEST(test_rooms_around_the_bound),
        TEST(test_input_that_ends_inside_a_block),
        TEST(test_a_block_over_the_bound_allocates_nothing),
        TEST(test_a_block_over_the_budget_is_refused),
        TEST(test_a_decoder_that_waits_holds_nothing),
        TEST(test_an_encoder_that_holds_bytes_goes_on),
        TEST(test_an_encoder_makes_do_with_little),
        TEST(test_an_encoder_loses_nothing_when_an_allocation_fails),
    };
    return cmocka_run_group_tests(tests, NULL, teardown);
}
