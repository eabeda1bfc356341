#ifndef CHMUX_TESTS_TEST_CODEC_HEAP_H
#define CHMUX_TESTS_TEST_CODEC_HEAP_H
/*
 * test_codec_heap: is a codec's charge honest? Compares what it took of the budget with what it
 * made malloc() give out. Sanitizers bring their own malloc, which does not say: there a test of
 * this kind is skipped.
 */
#include "test_codec.h"

#include <malloc.h>
#include <sys/resource.h>

/* malloc() rounds large allocations up to pages; a codec makes a handful. */
#define TC_HEAP_SLACK ((size_t)16 << 10)

static inline size_t
tc_heap(void)
{
    struct mallinfo2 m = mallinfo2();
    return m.uordblks + m.hblkhd;
}

static inline void
tc_heap_or_skip(void)
{
    size_t before = tc_heap();
    void *volatile p = malloc((size_t)1 << 20);
    size_t after = tc_heap();
    free(p);
    if (after < before + ((size_t)1 << 20))
        skip();
}

/* Without the harness around it, which allocates too. Returns what codec_run() does not do. */
static inline enum codec_result
tc_heap_run(struct codec *c, enum codec_op op, struct str in)
{
    static char out[65536];
    struct codec_io io = {in.p, in.len, out, sizeof(out)};
    enum codec_result r;
    do {
        io.out = out;
        io.out_cap = sizeof(out);
        r = codec_run(c, op, &io);
    } while (r == CODEC_FULL);
    return r;
}

/* From now on the process may map `bytes` more, so that malloc() fails above that. Returns what to
 * give to tc_heap_release(). */
static inline struct rlimit
tc_heap_squeeze(size_t bytes)
{
    struct rlimit before;
    malloc_trim(0); /* what earlier tests freed would do without mapping anything */
    T_EQ(getrlimit(RLIMIT_AS, &before), 0);
    FILE *f = fopen("/proc/self/statm", "r");
    unsigned long pages = 0;
    T_TRUE(f != NULL && fscanf(f, "%lu", &pages) == 1);
    fclose(f);
    struct rlimit now = {pages * (size_t)sysconf(_SC_PAGESIZE) + bytes, before.rlim_max};
    T_EQ(setrlimit(RLIMIT_AS, &now), 0);
    return before;
}

static inline void
tc_heap_release(struct rlimit before)
{
    T_EQ(setrlimit(RLIMIT_AS, &before), 0);
}

/* malloc() refuses the library what the budget granted; later it does not, and nothing is lost. */
static inline void
tc_heap_check_recovery(const struct codec_spec *spec, struct str in, struct str plain)
{
    struct tc t = tc_new(spec, (struct tc_cut){0});
    struct rlimit before = tc_heap_squeeze((size_t)1 << 20);
    struct str rest = in;
    T_EQ(tc_call(&t, CODEC_FINISH, &rest), CODEC_NO_MEMORY);
    T_EQ(tc_call(&t, CODEC_FINISH, &rest), CODEC_NO_MEMORY);
    tc_heap_release(before);
    T_EQ(tc_feed(&t, CODEC_FINISH, rest), CODEC_DONE);
    if (spec->encode) {
        struct codec_spec decoder = tc_decoder(spec);
        tc_decodes(&decoder, tc_str(&t.out), plain, (struct tc_cut){0});
    } else {
        tc_equal(tc_str(&t.out), plain);
    }
    tc_end(&t);
}

/* The codec took at least what the heap grew by since `before`. */
static inline void
tc_heap_covers(const struct codec *c, size_t before)
{
    size_t now = tc_heap();
    if (now > before + codec_memory(c) + TC_HEAP_SLACK)
        print_error("heap %zu, charged %zu\n", now - before, codec_memory(c));
    T_TRUE(now <= before + codec_memory(c) + TC_HEAP_SLACK);
}

/* Encodes streams of known length, then one that is not, with one codec. */
static inline void
tc_heap_check_encoder(const struct codec_spec *spec, struct str in)
{
    size_t before = tc_heap();
    struct codec *c = codec_new(spec);
    T_TRUE(c != NULL);
    tc_heap_covers(c, before);
    static const size_t lens[] = {100, 15000, 100000}; /* zstd chooses its tables by them */
    for (size_t i = 0; i < COUNT_OF(lens); i++) {
        T_EQ(tc_heap_run(c, CODEC_FINISH, str_n(in.p, size_min(lens[i], in.len))), CODEC_DONE);
        tc_heap_covers(c, before);
        codec_reset(c);
    }
    T_EQ(tc_heap_run(c, CODEC_RUN, in), CODEC_DRY);
    tc_heap_covers(c, before);
    T_EQ(tc_heap_run(c, CODEC_FLUSH, STR_NULL), CODEC_DRY);
    T_EQ(tc_heap_run(c, CODEC_FINISH, STR_NULL), CODEC_DONE);
    tc_heap_covers(c, before);
    codec_free(&c);
}
#endif
