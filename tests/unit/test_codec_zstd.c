#include "test_codec_heap.h"

#define MIB ((size_t)1 << 20)

static const struct codec_spec encoder = {.id = CODEC_ZSTD, .encode = true};
static const struct codec_spec decoder = {.id = CODEC_ZSTD, .max_memory = TC_MAX_MEMORY};
static const struct tc_cut whole = {0}, bytewise = {1, 1, 0};

#define HELLO "hello, hello, hello, hello"
/* zstd(1) 1.5.4 */
#define HELLO_TAIL  "\x6d\x00\x00\x38\x68\x65\x6c\x6c\x6f\x2c\x20\x01\x00\x4a\x8a\x11"
#define HELLO_CHECK "\x8f\x99\x53\x37"
#define MAGIC       "\x28\xb5\x2f\xfd"
#define FRAME       MAGIC "\x24\x1a" HELLO_TAIL HELLO_CHECK
#define FRAME_LEN   (sizeof(FRAME) - 1)
#define EMPTY       MAGIC "\x24\x00\x01\x00\x00\x99\xe9\xd8\x51"
#define ZEROS       MAGIC "\x04\x58\x55\x00\x00\x10\x00\x00\x01\x00\x9b\x86\x39\xc0\x02\xdb\x23\x4e\xf3"
/* A frame of unknown content with this window descriptor: one empty block. */
#define WINDOW(byte) MAGIC "\x00" byte "\x01\x00\x00"

static void
test_decodes_what_zstd_makes(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        struct str stream;
        const char *plain;
    } rows[] = {
        {"a file", STR(FRAME), HELLO},
        {"from a pipe: a window, no content size", STR(MAGIC "\x04\x58" HELLO_TAIL HELLO_CHECK),
            HELLO},
        {"without a checksum", STR(MAGIC "\x20\x1a" HELLO_TAIL), HELLO},
        {"an empty file", STR(EMPTY), ""},
        {"dictionary 0 is none", STR(MAGIC "\x25\x00\x1a" HELLO_TAIL HELLO_CHECK), HELLO},
        {"content size in eight bytes",
            STR(MAGIC "\xe4\x1a\x00\x00\x00\x00\x00\x00\x00" HELLO_TAIL HELLO_CHECK), HELLO},
        {"the longest header",
            STR(MAGIC
                "\xc7\x58\x00\x00\x00\x00\x1a\x00\x00\x00\x00\x00\x00\x00" HELLO_TAIL HELLO_CHECK),
            HELLO},
        {"two frames", STR(FRAME FRAME), HELLO HELLO},
        {"an empty frame between", STR(FRAME EMPTY FRAME), HELLO HELLO},
        {"empty skippable frame", STR("\x50\x2a\x4d\x18\x00\x00\x00\x00" FRAME), HELLO},
        {"skippable frames", STR("\x5f\x2a\x4d\x18\x03\x00\x00\x00" MAGIC FRAME), NULL},
        {"skippable frames around",
            STR("\x5f\x2a\x4d\x18\x04\x00\x00\x00" MAGIC FRAME "\x53\x2a\x4d\x18\x01\x00\x00\x00x"),
            HELLO},
        {"only a skippable frame", STR("\x50\x2a\x4d\x18\x01\x00\x00\x00x"), ""},
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        print_message("  %s\n", rows[i].name);
        if (rows[i].plain == NULL) {
            tc_is_bad(&decoder, rows[i].stream, whole, "not a zstd frame", 11);
            continue;
        }
        tc_decodes(&decoder, rows[i].stream, str_of(rows[i].plain), whole);
        tc_decodes(&decoder, rows[i].stream, str_of(rows[i].plain), bytewise);
        tc_decodes(&decoder, rows[i].stream, str_of(rows[i].plain), (struct tc_cut){5, 3, 0});
    }
    char *zeros = calloc(1, 100000);
    T_TRUE(zeros != NULL);
    tc_decodes(&decoder, STR(ZEROS), str_n(zeros, 100000), whole);
    tc_decodes(&decoder, STR(ZEROS), str_n(zeros, 100000), bytewise);
    free(zeros);
}

static void
test_errors_name_reason_and_frame(void **state)
{
    (void)state;
    static const char inside[] = "input ends inside a frame", corrupt[] = "corrupt data",
                      foreign[] = "not a zstd frame", head[] = "broken frame header";
    static const struct {
        const char *name;
        struct str stream;
        const char *why;
        int64_t at;
    } rows[] = {
        {"nothing", STR(""), "input ends before the first frame", 0},
        {"half a magic number", STR("\x28\xb5"), inside, 0},
        {"plain text", STR("SELECT 1"), foreign, 0},
        {"plain text behind a frame", STR(FRAME "SELECT 1"), foreign, FRAME_LEN},
        {"the format of zstd 0.7", STR("\x27\xb5\x2f\xfd\x24\x1a"), foreign, 0},
        {"cut in the second header", STR(FRAME MAGIC "\xe4\x1a"), inside, FRAME_LEN},
        {"cut before the first block", STR(MAGIC "\x24\x1a"), inside, 0},
        {"cut before the checksum", STR(MAGIC "\x24\x1a" HELLO_TAIL), inside, 0},
        {"cut in the checksum", STR(FRAME MAGIC "\x24\x1a" HELLO_TAIL "\x8f\x99"), inside,
            FRAME_LEN},
        {"cut in a skippable header", STR("\x50\x2a\x4d\x18\x00\x00\x00"), inside, 0},
        {"cut in a skippable frame", STR("\x50\x2a\x4d\x18\x02\x00\x00\x00x"), inside, 0},
        {"checksum", STR(FRAME MAGIC "\x24\x1a" HELLO_TAIL "\x8f\x99\x53\x38"), "checksum mismatch",
            FRAME_LEN},
        {"dictionary in one byte", STR(MAGIC "\x25\x07\x1a"), "frame needs a dictionary", 0},
        {"dictionary in four", STR(MAGIC "\x27\x00\x00\x00\x01\x1a"), "frame needs a dictionary",
            0},
        {"reserved bit", STR(MAGIC "\x2c\x1a" HELLO_TAIL HELLO_CHECK), head, 0},
        {"reserved block type", STR(MAGIC "\x20\x1a\x07\x00\x00"), corrupt, 0},
        {"longer than it says", STR(MAGIC "\x24\x19" HELLO_TAIL HELLO_CHECK), corrupt, 0},
        {"shorter than it says", STR(MAGIC "\x24\x1b" HELLO_TAIL HELLO_CHECK), corrupt, 0},
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        print_message("  %s\n", rows[i].name);
        int64_t at = rows[i].why == inside ? (int64_t)rows[i].stream.len : rows[i].at;
        tc_is_bad(&decoder, rows[i].stream, whole, rows[i].why, at);
        tc_is_bad(&decoder, rows[i].stream, bytewise, rows[i].why, at);
    }
}

/* max_memory bounds the window, or the whole content when that is less. */
static void
test_windows_above_max_memory_are_refused(void **state)
{
    (void)state;
    static const char too_large[] = "window needs too much memory";
    struct codec_spec spec = {.id = CODEC_ZSTD, .max_memory = 8 * MIB};
    tc_decodes(&spec, STR(WINDOW("\x68")), STR(""), whole); /* 2^(10 + 13) */
    tc_is_bad(&spec, STR(WINDOW("\x69")), whole, too_large, 0);
    tc_is_bad(&spec, STR(FRAME WINDOW("\x69")), bytewise, too_large, FRAME_LEN);
    tc_is_bad(&spec, STR(WINDOW("\xff")), whole, too_large, 0);
    tc_is_bad(&spec, STR(MAGIC "\xe4\xff\xff\xff\xff\xff\xff\xff\xff"), whole, too_large, 0);
    tc_is_bad(&spec, STR(MAGIC "\xa0\x01\x00\x80\x00\x01\x00\x00"), whole, too_large, 0);
    struct codec_spec tiny = {.id = CODEC_ZSTD, .max_memory = 300};
    tc_is_bad(&tiny, STR(MAGIC "\x60\x2c\x00\x01\x00\x00"), whole,
        "content is not as long as its header says", 0); /* 300 */
    tc_is_bad(&tiny, STR(MAGIC "\x60\x2d\x00\x01\x00\x00"), whole, too_large, 0);
    /* zstd --long=27 of a short file: the content bounds what is needed. */
    tc_decodes(
        &spec, STR(MAGIC "\x84\x88\x1a\x00\x00\x00" HELLO_TAIL HELLO_CHECK), STR(HELLO), whole);
    /* Above what the library takes by itself, and above what it can take at all. */
    spec.max_memory = SIZE_MAX;
    tc_decodes(&spec, STR(WINDOW("\x90")), STR(""), whole); /* 256 MiB */
    tc_is_bad(&spec, STR(WINDOW("\xff")), whole, too_large, 0);
    tc_is_bad(&spec, STR(MAGIC "\xe4\xff\xff\xff\xff\xff\xff\xff\xff"), whole, too_large, 0);
    tc_is_bad(&spec, STR(MAGIC "\xc4\xff\x1a\0\0\0\0\0\0\0" HELLO_TAIL), whole, too_large, 0);
}

/* A frame waits for memory that others hold, but not for memory that the budget never has. */
static void
test_frame_waits_for_memory(void **state)
{
    (void)state;
    mem_init(64 * MIB, 65536, 0);
    struct codec_spec spec = {.id = CODEC_ZSTD, .max_memory = SIZE_MAX};
    tc_is_bad(&spec, STR(WINDOW("\x80")), whole, "window needs too much memory", 0); /* 64 MiB */
    struct tc d = tc_new(&spec, bytewise);
    size_t others = 44 * MIB;
    T_TRUE(mem_take_long(others));
    T_EQ(tc_feed(&d, CODEC_RUN, STR(FRAME)), CODEC_DRY);
    size_t held = codec_memory(d.c);
    struct str frame = STR(WINDOW("\x68"));
    T_EQ(tc_feed(&d, CODEC_RUN, str_n(frame.p, 5)), CODEC_DRY);
    struct str rest = str_n(frame.p + 5, frame.len - 5);
    T_EQ(tc_call(&d, CODEC_RUN, &rest), CODEC_NO_MEMORY);
    T_EQ(tc_call(&d, CODEC_RUN, &rest), CODEC_NO_MEMORY);
    T_FALSE(codec_at_boundary(d.c));
    T_EQ(codec_memory(d.c), held);
    mem_give(others);
    T_EQ(tc_feed(&d, CODEC_FINISH, rest), CODEC_DONE);
    tc_equal(tc_str(&d.out), STR(HELLO));
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
    T_TRUE(codec_memory(d.c) > empty && codec_memory(d.c) < empty + 4096);
    T_EQ(tc_feed(&d, CODEC_RUN, STR(WINDOW("\x58"))), CODEC_DRY);
    size_t large = codec_memory(d.c);
    T_TRUE(large > empty + 2 * MIB && large < empty + 3 * MIB);
    T_EQ(tc_feed(&d, CODEC_FINISH, STR(FRAME)), CODEC_DONE);
    codec_reset(d.c);
    d.fed = 0;
    T_EQ(codec_memory(d.c), large);
    T_EQ(tc_feed(&d, CODEC_FINISH, STR(FRAME WINDOW("\x58"))), CODEC_DONE);
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
        STR(FRAME),
        STR(WINDOW("\x00")),
        STR(WINDOW("\x07")),
        STR(ZEROS),
        STR(WINDOW("\x38")),
        STR(WINDOW("\x3f")),
        STR(MAGIC "\x60\x00\x00\x01\x00\x00"), /* 256 bytes, and none there */
        STR(MAGIC "\xa0\xff\xff\x01\x00\x01\x00\x00"),
        STR(MAGIC "\xa0\x01\x00\x02\x00\x01\x00\x00"),
        STR(MAGIC "\xa0\x00\x00\x20\x00\x01\x00\x00"),
        STR(FRAME),
        STR(WINDOW("\x58")),
        STR(WINDOW("\x70")),
    };
    /* Each alone, and behind all before it. */
    size_t start = tc_heap();
    struct codec *all = codec_new(&decoder);
    T_TRUE(all != NULL);
    for (size_t i = 0; i < COUNT_OF(frames); i++) {
        (void)tc_heap_run(all, CODEC_RUN, frames[i]);
        tc_heap_covers(all, start);
        codec_reset(all);
        size_t before = tc_heap();
        struct codec *one = codec_new(&decoder);
        T_TRUE(one != NULL);
        (void)tc_heap_run(one, CODEC_RUN, frames[i]);
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
    struct tc_bytes text = tc_text(100000, 8);
    for (int level = -8; level <= 20; level++) {
        struct codec_spec spec = {.id = CODEC_ZSTD, .encode = true, .level = level};
        tc_heap_check_encoder(&spec, tc_str(&text));
    }
    tc_drop(&text);
}

static void
test_goes_on_after_malloc_failed(void **state)
{
    (void)state;
    tc_heap_or_skip();
    struct codec_spec large = {.id = CODEC_ZSTD, .max_memory = SIZE_MAX};
    tc_heap_check_recovery(
        &large, STR(FRAME MAGIC "\x04\x80" HELLO_TAIL HELLO_CHECK FRAME), STR(HELLO HELLO HELLO));
    struct tc_bytes text = tc_text(200000, 8);
    struct codec_spec slow = {.id = CODEC_ZSTD, .encode = true, .level = 17};
    tc_heap_check_recovery(&slow, tc_str(&text), tc_str(&text));
    tc_drop(&text);
}

static void
test_levels(void **state)
{
    (void)state;
    struct tc_bytes text = tc_text(60000, 6);
    static const int levels[] = {INT_MIN, -7, -1, 1, 2, 4, 7, 12, 19, 22, INT_MAX};
    for (size_t i = 0; i < COUNT_OF(levels); i++) {
        struct codec_spec spec = {.id = CODEC_ZSTD, .encode = true, .level = levels[i]};
        tc_round_trip(&spec, tc_str(&text), (struct tc_cut){9000, 0, 0}, whole);
    }
    /* 0 is the library's default; beyond the ends is as at the ends. */
    static const int same[][2] = {{0, 3}, {-100, -7}, {20, 19}};
    for (size_t i = 0; i < COUNT_OF(same); i++) {
        struct codec_spec a = {.id = CODEC_ZSTD, .encode = true, .level = same[i][0]}, b = a;
        b.level = same[i][1];
        struct tc_bytes x = tc_encode(&a, tc_str(&text), whole);
        struct tc_bytes y = tc_encode(&b, tc_str(&text), whole);
        tc_equal(tc_str(&x), tc_str(&y));
        tc_drop(&x);
        tc_drop(&y);
    }
    tc_drop(&text);
}

/* A broken link is to be found, and no decoder must need more than 8 MiB (RFC 9659). */
static void
test_encoder_writes_checksums_and_modest_windows(void **state)
{
    (void)state;
    struct tc_bytes text = tc_text(20000, 6);
    struct codec_spec small = {.id = CODEC_ZSTD, .max_memory = 8 * MIB};
    for (int level = 1; level <= 19; level++) {
        struct codec_spec spec = {.id = CODEC_ZSTD, .encode = true, .level = level};
        struct tc_bytes out = tc_encode(&spec, tc_str(&text), (struct tc_cut){9000, 0, 0});
        T_TRUE((out.p[4] & 0x04) != 0);
        tc_decodes(&small, tc_str(&out), tc_str(&text), whole);
        out.p[out.len - 1] ^= 1;
        tc_is_bad(&small, tc_str(&out), whole, "checksum mismatch", 0);
        tc_drop(&out);
    }
    tc_drop(&text);
}

/* Empty input is one empty frame; a finished encoder stays finished until its reset. */
static void
test_finish(void **state)
{
    (void)state;
    struct tc e = tc_new(&encoder, whole);
    T_EQ(tc_feed(&e, CODEC_FINISH, STR_NULL), CODEC_DONE);
    tc_equal(tc_str(&e.out), STR(EMPTY));
    T_EQ(tc_feed(&e, CODEC_FINISH, STR_NULL), CODEC_DONE);
    T_EQ(tc_feed(&e, CODEC_FLUSH, STR_NULL), CODEC_DRY);
    T_EQ(e.out.len, sizeof(EMPTY) - 1);
    struct codec_io more = {"x", 1, e.out.p, e.out.len};
    T_ABORTS((void)codec_run(e.c, CODEC_RUN, &more));
    codec_reset(e.c);
    T_EQ(tc_feed(&e, CODEC_FINISH, STR_NULL), CODEC_DONE);
    tc_equal(tc_str(&e.out), STR(EMPTY EMPTY));
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
        TEST(test_decodes_what_zstd_makes),
        TEST(test_errors_name_reason_and_frame),
        TEST(test_windows_above_max_memory_are_refused),
        TEST(test_frame_waits_for_memory),
        TEST(test_memory_grows_only),
        TEST(test_decoder_charge_covers_the_heap),
        TEST(test_encoder_charge_covers_the_heap),
        TEST(test_goes_on_after_malloc_failed),
        TEST(test_levels),
        TEST(test_encoder_writes_checksums_and_modest_windows),
        TEST(test_finish),
        TEST(test_contract),
        TEST(test_memory_contract),
    };
    return TEST_MAIN(tests);
}
