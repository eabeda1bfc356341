#include "test_codec.h"

#include "codec/codec_impl.h"

static void
test_names_are_those_of_content_encoding(void **state)
{
    (void)state;
    T_ZEQ(codec_name(CODEC_GZIP), "gzip");
    T_ZEQ(codec_name(CODEC_DEFLATE), "deflate");
    T_ZEQ(codec_name(CODEC_ZSTD), "zstd");
    T_ZEQ(codec_name(CODEC_LZ4), "lz4");
    T_ZEQ(codec_name(CODEC_BROTLI), "br");
    T_ZEQ(codec_name(CODEC_IDENTITY), "identity");
    T_ZEQ(codec_name(CODEC_BLOCKS), "blocks");
    T_ABORTS((void)codec_name(CODEC_COUNT));
}

static void
test_a_name_finds_its_codec_in_any_case(void **state)
{
    (void)state;
    for (enum codec_id id = CODEC_GZIP; id < CODEC_BLOCKS; id++)
        T_EQ(codec_by_name(str_of(codec_name(id))), id);
    T_EQ(codec_by_name(STR("ZStd")), CODEC_ZSTD);
    T_EQ(codec_by_name(STR("BR")), CODEC_BROTLI);
}

static void
test_other_names_find_none(void **state)
{
    (void)state;
    static const char *const names[] = {"identity", "blocks", "x-gzip", "", "gzi", "gzipp", " gzip",
        "gzip,br", "*", "bz2", "xz", "snappy", "brotli"};
    for (size_t i = 0; i < COUNT_OF(names); i++)
        T_EQ(codec_by_name(str_of(names[i])), CODEC_COUNT);
    T_EQ(codec_by_name(str_n("gzip\0", 5)), CODEC_COUNT);
    T_EQ(codec_by_name(STR_NULL), CODEC_COUNT);
}

static void
test_identity_is_never_made(void **state)
{
    (void)state;
    struct codec_spec spec = {.id = CODEC_IDENTITY};
    T_ABORTS((void)!codec_new(&spec));
    spec.id = CODEC_COUNT;
    T_ABORTS((void)!codec_new(&spec));
}

static void
test_free_takes_null_and_nulls(void **state)
{
    (void)state;
    struct codec *c = NULL;
    codec_free(&c);
    struct codec_spec spec = {.id = CODEC_GZIP, .encode = true};
    c = codec_new(&spec);
    T_TRUE(c != NULL);
    T_TRUE(codec_spec_of(c)->encode);
    codec_free(&c);
    T_TRUE(c == NULL);
    T_EQ(mem_used(), 0);
}

/* A codec that takes what it is told to and answers what it is told to. */
struct puppet {
    struct codec codec;
    size_t takes;
    enum codec_result answers;
    unsigned runs, resets;
};

static enum codec_result
puppet_run(struct codec *c, enum codec_op op, struct codec_io *io)
{
    struct puppet *p = CONTAINER_OF(c, struct puppet, codec);
    (void)op;
    p->runs++;
    uint64_t at = c->in_total;
    io->in += p->takes;
    io->in_len -= p->takes;
    return p->answers == CODEC_BAD ? codec_bad(c, "as told", at + p->takes) : p->answers;
}

static void
puppet_reset(struct codec *c)
{
    CONTAINER_OF(c, struct puppet, codec)->resets++;
}

static const struct codec_ops puppet_ops = {.run = puppet_run, .reset = puppet_reset};

static void
test_offsets_count_all_calls_since_the_reset(void **state)
{
    (void)state;
    struct puppet p = {.codec.ops = &puppet_ops, .takes = 5, .answers = CODEC_DRY};
    struct codec_io io = {"0123456789abcdef", 16, NULL, 0};
    T_EQ(codec_run(&p.codec, CODEC_RUN, &io), CODEC_DRY);
    T_EQ(codec_run(&p.codec, CODEC_RUN, &io), CODEC_DRY);
    p.takes = 2;
    p.answers = CODEC_BAD;
    T_EQ(codec_run(&p.codec, CODEC_RUN, &io), CODEC_BAD);
    T_EQ(codec_offset(&p.codec), 12);
    T_ZEQ(codec_why(&p.codec), "as told");

    /* Repeats, and the codec is not asked again. */
    T_EQ(codec_run(&p.codec, CODEC_RUN, &io), CODEC_BAD);
    T_EQ(io.in_len, 4);
    T_EQ(p.runs, 3);

    codec_reset(&p.codec);
    T_EQ(p.resets, 1);
    T_TRUE(codec_why(&p.codec) == NULL);
    p.takes = 1;
    T_EQ(codec_run(&p.codec, CODEC_RUN, &io), CODEC_BAD);
    T_EQ(codec_offset(&p.codec), 1);
}

static void
test_done_without_finish_is_caught(void **state)
{
    (void)state;
    struct puppet p = {.codec.ops = &puppet_ops, .answers = CODEC_DONE};
    struct codec_io io = {0};
    T_ABORTS((void)codec_run(&p.codec, CODEC_FLUSH, &io));
    T_EQ(codec_run(&p.codec, CODEC_FINISH, &io), CODEC_DONE);
}

static void
test_charges_are_of_the_long_budget(void **state)
{
    (void)state;
    mem_init(4000, 4096, 0);
    struct puppet p = {.codec.ops = &puppet_ops};
    T_TRUE(codec_charge(&p.codec, 2000));
    T_FALSE(codec_charge(&p.codec, 1001));
    T_TRUE(codec_charge(&p.codec, 1000));
    T_EQ(codec_memory(&p.codec), 3000);
    T_EQ(mem_used(), 3000);
    codec_uncharge(&p.codec, 2500);
    T_EQ(codec_memory(&p.codec), 500);
    T_EQ(mem_used(), 500);
    T_ABORTS(codec_uncharge(&p.codec, 501));
    codec_uncharge(&p.codec, 500);
    mem_init(SIZE_MAX, 4096, 0);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_names_are_those_of_content_encoding),
        TEST(test_a_name_finds_its_codec_in_any_case),
        TEST(test_other_names_find_none),
        TEST(test_identity_is_never_made),
        TEST(test_free_takes_null_and_nulls),
        TEST(test_offsets_count_all_calls_since_the_reset),
        TEST(test_done_without_finish_is_caught),
        TEST(test_charges_are_of_the_long_budget),
    };
    return TEST_MAIN(tests);
}
