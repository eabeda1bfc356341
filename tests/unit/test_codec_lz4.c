#include "test_codec_heap.h"

#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)

static const struct codec_spec encoder = {.id = CODEC_LZ4, .encode = true};
static const struct codec_spec decoder = {.id = CODEC_LZ4, .max_memory = TC_MAX_MEMORY};
static const struct tc_cut whole = {0}, bytewise = {1, 1, 0};

#define HELLO "hello, hello, hello, hello"
/* lz4(1) 1.9.4 */
#define BLOCK     "\x10\x00\x00\x00\x7a\x68\x65\x6c\x6c\x6f\x2c\x20\x07\x00\x50\x68\x65\x6c\x6c\x6f"
#define BLOCK_SUM "\xf7\x6f\x0a\xf5"
#define END       "\x00\x00\x00\x00"
#define SUM       "\x0f\xf5\x86\x05"
#define MAGIC     "\x04\x22\x4d\x18"
#define FRAME     MAGIC "\x64\x40\xa7" BLOCK END SUM
#define FRAME_LEN (sizeof(FRAME) - 1)
#define EMPTY     MAGIC "\x64\x40\xa7" END "\x05\x5d\xcc\x02"
/* Headers without checksums of the content; the last byte is their own. */
#define INDEPENDENT_64K  MAGIC "\x60\x40\x82"
#define INDEPENDENT_256K MAGIC "\x60\x50\xfb"
#define INDEPENDENT_1M   MAGIC "\x60\x60\x51"
#define INDEPENDENT_4M   MAGIC "\x60\x70\x73"
#define LINKED_4M        MAGIC "\x40\x70\xdf"
#define LEGACY           "\x02\x21\x4c\x18" BLOCK

static void
test_decodes_what_lz4_makes(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        struct str stream;
        const char *plain;
    } rows[] = {
        {"a file", STR(FRAME), HELLO},
        {"an empty file", STR(EMPTY), ""},
        {"with block checksums", STR(MAGIC "\x74\x40\xbd" BLOCK BLOCK_SUM END SUM), HELLO},
        {"with the content's size",
            STR(MAGIC "\x6c\x40\x1a\x00\x00\x00\x00\x00\x00\x00\x16" BLOCK END SUM), HELLO},
        {"without a checksum", STR(INDEPENDENT_64K BLOCK END), HELLO},
        {"dictionary 0 is none", STR(MAGIC "\x61\x40\x00\x00\x00\x00\xa0" BLOCK END), HELLO},
        {"the longest header", STR(MAGIC "\x6d\x40\x1a\0\0\0\0\0\0\0\0\0\0\0\xbd" BLOCK END SUM),
            HELLO},
        {"blocks of 256 KiB", STR(INDEPENDENT_256K BLOCK BLOCK END), HELLO HELLO},
        {"blocks of 1 MiB", STR(INDEPENDENT_1M BLOCK END), HELLO},
        {"blocks of 4 MiB", STR(INDEPENDENT_4M BLOCK END), HELLO},
        {"linked blocks of 4 MiB", STR(LINKED_4M BLOCK BLOCK END), HELLO HELLO},
        {"a block that is not compressed", STR(INDEPENDENT_64K "\x02\x00\x00\x80hi" END), "hi"},
        {"two frames", STR(FRAME FRAME), HELLO HELLO},
        {"larger and smaller blocks", STR(FRAME LINKED_4M BLOCK END FRAME), HELLO HELLO HELLO},
        {"an empty frame between", STR(FRAME EMPTY FRAME), HELLO HELLO},
        {"empty skippable frame", STR("\x50\x2a\x4d\x18\x00\x00\x00\x00" FRAME), HELLO},
        {"skippable frames around",
            STR("\x5f\x2a\x4d\x18\x04\x00\x00\x00" MAGIC FRAME "\x53\x2a\x4d\x18\x01\x00\x00\x00x"),
            HELLO},
        {"only a skippable frame", STR("\x50\x2a\x4d\x18\x01\x00\x00\x00x"), ""},
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        print_message("  %s\n", rows[i].name);
        tc_decodes(&decoder, rows[i].stream, str_of(rows[i].plain), whole);
        tc_decodes(&decoder, rows[i].stream, str_of(rows[i].plain), bytewise);
        tc_decodes(&decoder, rows[i].stream, str_of(rows[i].plain), (struct tc_cut){5, 3, 0});
    }
}

static void
test_errors_name_reason_and_frame(void **state)
{
    (void)state;
    static const char inside[] = "input ends inside a frame", corrupt[] = "corrupt data",
                      foreign[] = "not an LZ4 frame", head[] = "broken frame header",
                      sum[] = "checksum mismatch", dictionary[] = "frame needs a dictionary",
                      length[] = "content is not as long as its header says";
    static const struct {
        const char *name;
        struct str stream;
        const char *why;
        int64_t at;
    } rows[] = {
        {"nothing", STR(""), "input ends before the first frame", 0},
        {"half a magic number", STR("\x04\x22"), inside, 0},
        {"plain text", STR("SELECT 1"), foreign, 0},
        {"plain text behind a frame", STR(FRAME "SELECT 1"), foreign, FRAME_LEN},
        {"a legacy frame", STR(LEGACY), foreign, 0},
        {"a legacy frame behind another", STR(FRAME LEGACY), foreign, FRAME_LEN},
        {"zstd", STR("\x28\xb5\x2f\xfd\x24\x00\x01\x00\x00\x99\xe9\xd8\x51"), foreign, 0},
        {"cut in the second header", STR(FRAME MAGIC "\x64\x40"), inside, FRAME_LEN},
        {"cut before the first block", STR(MAGIC "\x64\x40\xa7"), inside, 0},
        {"cut between blocks", STR(FRAME MAGIC "\x64\x40\xa7" BLOCK), inside, FRAME_LEN},
        {"cut before the checksum", STR(MAGIC "\x64\x40\xa7" BLOCK END), inside, 0},
        {"cut in the checksum", STR(MAGIC "\x64\x40\xa7" BLOCK END "\x0f\xf5"), inside, 0},
        {"cut in a skippable header", STR("\x50\x2a\x4d\x18\x00\x00\x00"), inside, 0},
        {"cut in a skippable frame", STR("\x50\x2a\x4d\x18\x02\x00\x00\x00x"), inside, 0},
        {"header checksum", STR(MAGIC "\x64\x40\xa8" BLOCK END SUM), "header checksum mismatch", 0},
        {"content checksum", STR(FRAME MAGIC "\x64\x40\xa7" BLOCK END "\x0f\xf5\x86\x06"), sum,
            FRAME_LEN},
        {"block checksum", STR(MAGIC "\x74\x40\xbd" BLOCK "\xf7\x6f\x0a\xf6" END SUM), sum, 0},
        {"dictionary", STR(MAGIC "\x61\x40\x07\x00\x00\x00\xe3" BLOCK END), dictionary, 0},
        {"reserved flag", STR(MAGIC "\x62\x40\xa7" BLOCK END), head, 0},
        {"another version", STR(MAGIC "\x20\x40\xa7" BLOCK END), head, 0},
        {"block size 3", STR(MAGIC "\x60\x30\xa7" BLOCK END), head, 0},
        {"shorter than it says", STR(MAGIC "\x6c\x40\x1b\0\0\0\0\0\0\0\xd7" BLOCK END SUM), length,
            0},
        {"longer than it says", STR(MAGIC "\x6c\x40\x1b\0\0\0\0\0\0\0\xd7" BLOCK BLOCK END SUM),
            length, 0},
        {"a block above the block size", STR(INDEPENDENT_64K "\x01\x00\x01\x00xxx"), corrupt, 0},
        {"an offset before the start", STR(INDEPENDENT_64K "\x05\x00\x00\x00\x10x\x07\x00\x00" END),
            corrupt, 0},
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        print_message("  %s\n", rows[i].name);
        int64_t at = rows[i].why == inside ? (int64_t)rows[i].stream.len : rows[i].at;
        tc_is_bad(&decoder, rows[i].stream, whole, rows[i].why, at);
        tc_is_bad(&decoder, rows[i].stream, bytewise, rows[i].why, at);
    }
}

/* max_memory bounds the block. */
static void
test_blocks_above_max_memory_are_refused(void **state)
{
    (void)state;
    static const char too_large[] = "block needs too much memory";
    struct codec_spec spec = {.id = CODEC_LZ4, .max_memory = 256 * KIB};
    tc_decodes(&spec, STR(FRAME INDEPENDENT_256K BLOCK END), STR(HELLO HELLO), whole);
    tc_is_bad(&spec, STR(INDEPENDENT_1M BLOCK END), whole, too_large, 0);
    tc_is_bad(&spec, STR(FRAME LINKED_4M BLOCK END), bytewise, too_large, FRAME_LEN);
    spec.max_memory = 4 * MIB;
    tc_decodes(&spec, STR(LINKED_4M BLOCK END), STR(HELLO), whole);
}

/* A frame waits for memory that others hold, but not for memory that the budget never has. */
static void
test_frame_waits_for_memory(void **state)
{
    (void)state;
    mem_init(10 * MIB, 65536, 0);
    tc_is_bad(&decoder, STR(LINKED_4M BLOCK END), whole, "block needs too much memory", 0);
    struct tc d = tc_new(&decoder, bytewise);
    size_t others = 6 * MIB;
    T_TRUE(mem_take_long(others));
    T_EQ(tc_feed(&d, CODEC_RUN, STR(FRAME)), CODEC_DRY);
    size_t held = codec_memory(d.c);
    struct str rest = STR(INDEPENDENT_1M BLOCK END);
    while (rest.len > sizeof(BLOCK END) - 1) {
        struct str byte = str_n(rest.p, 1);
        enum codec_result r = tc_call(&d, CODEC_RUN, &byte);
        T_EQ(r, rest.len == sizeof(BLOCK END) ? CODEC_NO_MEMORY : CODEC_DRY);
        T_EQ(byte.len, 0); /* a header is staged, whatever there is */
        rest = str_n(rest.p + 1, rest.len - 1);
    }
    T_EQ(tc_call(&d, CODEC_RUN, &rest), CODEC_NO_MEMORY);
    T_FALSE(codec_at_boundary(d.c));
    T_EQ(codec_memory(d.c), held);
    codec_reset(d.c); /* while it waits: the frame is forgotten */
    d.fed = 0;
    d.out.len = 0;
    T_EQ(tc_feed(&d, CODEC_RUN, STR(FRAME)), CODEC_DRY);
    rest = STR(INDEPENDENT_1M BLOCK END);
    T_EQ(tc_call(&d, CODEC_RUN, &rest), CODEC_NO_MEMORY);
    mem_give(others);
    T_EQ(tc_feed(&d, CODEC_FINISH, rest), CODEC_DONE);
    tc_equal(tc_str(&d.out), STR(HELLO HELLO));
    tc_end(&d);
    T_EQ(mem_used(), 0);
    mem_fini();
    mem_init(SIZE_MAX, 65536, 0);
}

static void
test_memory_grows_only(void **state)
{
    (void)state;
    struct tc d = tc_new(&decoder, whole);
    size_t empty = codec_memory(d.c);
    T_EQ(tc_feed(&d, CODEC_RUN, STR("\x50\x2a\x4d\x18\x00\x00\x00\x00")), CODEC_DRY);
    T_EQ(codec_memory(d.c), empty);
    T_EQ(tc_feed(&d, CODEC_RUN, STR(FRAME)), CODEC_DRY);
    T_EQ(codec_memory(d.c), empty + (2 * 64 + 128) * KIB);
    T_EQ(tc_feed(&d, CODEC_RUN, STR(INDEPENDENT_1M BLOCK END)), CODEC_DRY);
    size_t large = codec_memory(d.c);
    T_EQ(large, empty + (2 * 1024 + 128) * KIB);
    T_EQ(tc_feed(&d, CODEC_FINISH, STR(FRAME)), CODEC_DONE);
    codec_reset(d.c);
    d.fed = 0;
    T_EQ(codec_memory(d.c), large);
    T_EQ(tc_feed(&d, CODEC_FINISH, STR(FRAME INDEPENDENT_1M BLOCK END)), CODEC_DONE);
    T_EQ(codec_memory(d.c), large);
    tc_end(&d);
}

static void
test_decoder_charge_covers_the_heap(void **state)
{
    (void)state;
    tc_heap_or_skip();
    static const struct str frames[] = {
        STR(EMPTY),
        STR(INDEPENDENT_64K BLOCK END),
        STR(FRAME),
        STR(INDEPENDENT_256K BLOCK END),
        STR(INDEPENDENT_1M BLOCK END),
        STR(FRAME),
        STR(INDEPENDENT_4M BLOCK END),
        STR(LINKED_4M BLOCK END),
        STR(INDEPENDENT_256K BLOCK END),
    };
    /* Each alone, and behind all before it. */
    size_t start = tc_heap();
    struct codec *all = codec_new(&decoder);
    T_TRUE(all != NULL);
    for (size_t i = 0; i < COUNT_OF(frames); i++) {
        T_EQ(tc_heap_run(all, CODEC_FINISH, frames[i]), CODEC_DONE);
        tc_heap_covers(all, start);
        codec_reset(all);
        size_t before = tc_heap();
        struct codec *one = codec_new(&decoder);
        T_TRUE(one != NULL);
        T_EQ(tc_heap_run(one, CODEC_FINISH, frames[i]), CODEC_DONE);
        tc_heap_covers(one, before);
        codec_free(&one);
    }
    codec_free(&all);
}

static void
test_encoder_charge_covers_the_heap(void **state)
{
    (void)state;
    tc_heap_or_skip();
    struct tc_bytes text = tc_text(500000, 8);
    for (int level = -3; level <= 13; level++) {
        struct codec_spec spec = {.id = CODEC_LZ4, .encode = true, .level = level};
        tc_heap_check_encoder(&spec, tc_str(&text));
    }
    tc_drop(&text);
}

static void
test_goes_on_after_malloc_failed(void **state)
{
    (void)state;
    tc_heap_or_skip();
    tc_heap_check_recovery(&decoder, STR(FRAME LINKED_4M BLOCK END FRAME), STR(HELLO HELLO HELLO));
}

static void
test_levels(void **state)
{
    (void)state;
    struct tc_bytes text = tc_text(200000, 6);
    static const int levels[] = {INT_MIN, -9, -1, 0, 1, 2, 3, 6, 9, 12, INT_MAX};
    for (size_t i = 0; i < COUNT_OF(levels); i++) {
        struct codec_spec spec = {.id = CODEC_LZ4, .encode = true, .level = levels[i]};
        tc_round_trip(&spec, tc_str(&text), (struct tc_cut){50000, 0, 0}, whole);
        tc_round_trip(&spec, tc_str(&text), (struct tc_cut){50000, 9, 0}, whole);
    }
    struct codec_spec fast = {.id = CODEC_LZ4, .encode = true, .level = 0}, best = fast;
    best.level = 99;
    struct tc_bytes a = tc_encode(&fast, tc_str(&text), whole);
    struct tc_bytes b = tc_encode(&best, tc_str(&text), whole);
    T_TRUE(b.len < a.len);
    tc_drop(&a);
    tc_drop(&b);
    tc_drop(&text);
}

/* Small blocks, so that no decoder needs much, and a checksum, so that a broken link is found. */
static void
test_encoder_writes_small_blocks_and_checksums(void **state)
{
    (void)state;
    struct tc_bytes text = tc_text(300000, 6);
    struct codec_spec small = {.id = CODEC_LZ4, .max_memory = 64 * KIB};
    struct tc_bytes out = tc_encode(&encoder, tc_str(&text), whole);
    tc_decodes(&small, tc_str(&out), tc_str(&text), whole);
    out.p[out.len - 1] ^= 1;
    tc_is_bad(&small, tc_str(&out), whole, "checksum mismatch", 0);
    tc_drop(&out);
    tc_drop(&text);
}

/* The bytes do not depend on the room they leave through. */
static void
test_stage_and_direct_agree(void **state)
{
    (void)state;
    struct tc_bytes in[] = {tc_text(300000, 6), tc_noise(300000, 6)};
    for (size_t i = 0; i < COUNT_OF(in); i++) {
        struct tc_bytes direct = tc_encode(&encoder, tc_str(&in[i]), (struct tc_cut){65536, 0, 0});
        struct tc_bytes staged =
            tc_encode(&encoder, tc_str(&in[i]), (struct tc_cut){65536, 777, 0});
        tc_equal(tc_str(&staged), tc_str(&direct));
        tc_drop(&direct);
        tc_drop(&staged);
        tc_drop(&in[i]);
    }
}

/* Empty input is one empty frame; a finished encoder stays finished until its reset. */
static void
test_finish(void **state)
{
    (void)state;
    struct tc e = tc_new(&encoder, whole);
    struct str empty = STR(MAGIC "\x44\x40\x5e" END "\x05\x5d\xcc\x02"); /* lz4 -B4 -BD */
    T_EQ(tc_feed(&e, CODEC_FINISH, STR_NULL), CODEC_DONE);
    tc_equal(tc_str(&e.out), empty);
    T_EQ(tc_feed(&e, CODEC_FINISH, STR_NULL), CODEC_DONE);
    T_EQ(tc_feed(&e, CODEC_FLUSH, STR_NULL), CODEC_DRY);
    T_EQ(e.out.len, empty.len);
    struct codec_io more = {"x", 1, e.out.p, e.out.len};
    T_ABORTS((void)codec_run(e.c, CODEC_RUN, &more));
    codec_reset(e.c);
    e.out.len = 0;
    T_EQ(tc_feed(&e, CODEC_FINISH, STR_NULL), CODEC_DONE);
    tc_equal(tc_str(&e.out), empty);
    tc_end(&e);
}

static void
test_contract(void **state)
{
    (void)state;
    tc_check_round_trips(&encoder);
    tc_check_every_split(&encoder);
    tc_check_frames(&encoder);
    tc_check_cut_and_garbage(&encoder, 300);
    tc_check_flips(&encoder, true);
    tc_check_flush(&encoder, whole);
    tc_check_flush(&encoder, (struct tc_cut){1000, 100, 0});
    tc_check_reset(&encoder);
}

static void
test_memory_contract(void **state)
{
    (void)state;
    tc_check_budget(&encoder);
    tc_check_allocations(&encoder);
}

int
main(void)
{
    mem_init(SIZE_MAX, 65536, 0);
    const struct CMUnitTest tests[] = {
        TEST(test_decodes_what_lz4_makes),
        TEST(test_errors_name_reason_and_frame),
        TEST(test_blocks_above_max_memory_are_refused),
        TEST(test_frame_waits_for_memory),
        TEST(test_memory_grows_only),
        TEST(test_decoder_charge_covers_the_heap),
        TEST(test_encoder_charge_covers_the_heap),
        TEST(test_goes_on_after_malloc_failed),
        TEST(test_levels),
        TEST(test_encoder_writes_small_blocks_and_checksums),
        TEST(test_stage_and_direct_agree),
        TEST(test_finish),
        TEST(test_contract),
        TEST(test_memory_contract),
    };
    return TEST_MAIN(tests);
}
