#ifndef CHMUX_TESTS_TEST_CODEC_H
#define CHMUX_TESTS_TEST_CODEC_H
/*
 * test_codec: what the tests of all codecs share: a driver that feeds a codec in any pieces and
 * holds every call to the contract of codec.h, and the checks each codec must pass.
 *
 * Every piece of input and every room for output is a block of its exact size, so that ASan sees
 * the first byte read or written past it.
 */
#include "codec/codec.h"

#include "t.h"

#define TC_MAX_MEMORY ((size_t)32 << 20) /* of the decoders made here */

struct tc_bytes { /* owned; tc_drop() */
    char *p;
    size_t len, cap;
};

/* How a stream is cut: sizes of the input pieces and of the room for output, 0: as much as there
 * is. With a seed they are random, up to that size, and the last op comes sometimes alone. */
struct tc_cut {
    size_t in, out;
    uint64_t seed;
};

struct tc { /* one codec being driven */
    struct codec *c;
    struct tc_cut cut;
    struct tc_bytes out;
    uint64_t fed;       /* bytes it took since new or reset */
    size_t held;        /* bytes of the budget the test took away; given back on NO_MEMORY */
    unsigned no_memory; /* times it said so */
};

static inline uint64_t
tc_random(uint64_t *state) /* xorshift64: the same everywhere, so that a failure comes again */
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static inline void
tc_append(struct tc_bytes *b, const char *p, size_t len)
{
    if (b->len + len > b->cap) {
        b->cap = size_max(2 * b->cap, b->len + len + 256);
        b->p = realloc(b->p, b->cap);
        T_TRUE(b->p != NULL);
    }
    if (len > 0)
        memcpy(b->p + b->len, p, len);
    b->len += len;
}

static inline void
tc_drop(struct tc_bytes *b)
{
    free(b->p);
    *b = (struct tc_bytes){0};
}

static inline struct str
tc_str(const struct tc_bytes *b)
{
    return str_n(b->p, b->len);
}

/* Bytes no codec can shrink. */
static inline struct tc_bytes
tc_noise(size_t len, uint64_t seed)
{
    struct tc_bytes b = {.p = malloc(len + 1), .len = len, .cap = len + 1};
    T_TRUE(b.p != NULL);
    for (size_t i = 0; i < len; i++)
        b.p[i] = (char)(tc_random(&seed) >> 32);
    return b;
}

/* Lines that look like a result: compressible, with repeats near and far. */
static inline struct tc_bytes
tc_text(size_t len, uint64_t seed)
{
    static const char *const words[] = {"click", "house", "SELECT", "error", "user-agent", "0.25"};
    struct tc_bytes b = {0};
    while (b.len < len) {
        char line[96];
        uint64_t r = tc_random(&seed);
        int n = snprintf(line, sizeof(line), "%" PRIu64 "\t%s\t2026-11-%02u\t%s %u\n", b.len,
            words[r % COUNT_OF(words)], (unsigned)(r >> 8) % 30 + 1,
            words[(r >> 16) % COUNT_OF(words)], (unsigned)(r >> 24) & 0xffff);
        tc_append(&b, line, (size_t)n);
    }
    b.len = len;
    return b;
}

static inline struct codec_spec
tc_decoder(const struct codec_spec *encoder)
{
    return (struct codec_spec){.id = encoder->id, .max_memory = TC_MAX_MEMORY};
}

static inline size_t
tc_size(struct tc *t, size_t most, size_t there_is)
{
    if (most == 0)
        return there_is;
    if (t->cut.seed == 0)
        return size_min(most, there_is);
    return size_min(1 + (size_t)(tc_random(&t->cut.seed) % most), there_is);
}

/* A broken codec stays broken, and says what and where. */
static inline void
tc_check_bad(struct tc *t)
{
    T_TRUE(codec_why(t->c) != NULL && codec_why(t->c)[0] != '\0');
    T_TRUE(codec_offset(t->c) <= t->fed);
    char byte = 'x', room = 'y';
    struct codec_io io = {&byte, 1, &room, 1};
    T_EQ(codec_run(t->c, CODEC_RUN, &io), CODEC_BAD);
    T_EQ(io.in_len, 1);
    T_EQ(io.out_cap, 1);
}

/* One call, held to the contract. *in advances. */
static inline enum codec_result
tc_call(struct tc *t, enum codec_op op, struct str *in)
{
    size_t room = tc_size(t, t->cut.out, 65536);
    char *out = malloc(room);
    T_TRUE(out != NULL);
    struct codec_io io = {in->p, in->len, out, room};
    enum codec_result r = codec_run(t->c, op, &io);
    T_TRUE(io.in_len <= in->len && io.out_cap <= room);
    T_TRUE(io.in == in->p + (in->len - io.in_len));
    T_TRUE(io.out == out + (room - io.out_cap));
    t->fed += in->len - io.in_len;
    tc_append(&t->out, out, room - io.out_cap);
    free(out);
    *in = str_n(io.in, io.in_len);
    switch (r) {
    case CODEC_DRY:
        T_EQ(in->len, 0);
        T_TRUE(op != CODEC_FINISH);
        break;
    case CODEC_FULL:
        T_EQ(io.out_cap, 0); /* so every call that ends so made progress */
        break;
    case CODEC_DONE:
        T_EQ(in->len, 0);
        T_EQ(op, CODEC_FINISH);
        break;
    case CODEC_NO_MEMORY: t->no_memory++; break;
    case CODEC_BAD: tc_check_bad(t); break;
    }
    return r;
}

/* Half of what the test holds, or the rest of it; false: it holds nothing. */
static inline bool
tc_give_back(struct tc *t)
{
    if (t->held == 0)
        return false;
    size_t n = t->held > 4096 ? t->held / 2 : t->held;
    t->held -= n;
    mem_give(n);
    return true;
}

/* Until op is done with one piece. */
static inline enum codec_result
tc_piece(struct tc *t, enum codec_op op, struct str piece)
{
    char *copy = malloc(piece.len > 0 ? piece.len : 1);
    T_TRUE(copy != NULL);
    if (piece.len > 0)
        memcpy(copy, piece.p, piece.len);
    struct str in = str_n(copy, piece.len);
    enum codec_result r = CODEC_FULL;
    unsigned failed_allocations = 0;
    while (r == CODEC_FULL || r == CODEC_NO_MEMORY) {
        r = tc_call(t, op, &in);
        /* Without a held budget it may be an allocation that mem_fail_at() failed, once. */
        if (r == CODEC_NO_MEMORY && !tc_give_back(t) && failed_allocations++ > 0)
            break;
    }
    free(copy);
    return r;
}

/* Feeds `in` in pieces, the last one with op. CODEC_DRY or CODEC_DONE is success. */
static inline enum codec_result
tc_feed(struct tc *t, enum codec_op op, struct str in)
{
    for (;;) {
        size_t n = tc_size(t, t->cut.in, in.len);
        bool alone = t->cut.seed != 0 && in.len > 0 && (tc_random(&t->cut.seed) & 256) != 0;
        bool last = n == in.len && !alone;
        enum codec_result r = tc_piece(t, last ? op : CODEC_RUN, str_n(in.p, n));
        if (last || r != CODEC_DRY)
            return r;
        in = str_n(in.p + n, in.len - n);
    }
}

static inline struct tc
tc_new(const struct codec_spec *spec, struct tc_cut cut)
{
    struct tc t = {.c = codec_new(spec), .cut = cut};
    T_TRUE(t.c != NULL);
    T_TRUE(codec_spec_of(t.c)->id == spec->id && codec_spec_of(t.c)->encode == spec->encode);
    return t;
}

static inline void
tc_end(struct tc *t)
{
    codec_free(&t->c);
    T_TRUE(t->c == NULL);
    tc_drop(&t->out);
}

static inline void
tc_equal(struct str got, struct str want)
{
    T_EQ(got.len, want.len);
    if (want.len > 0)
        assert_memory_equal(got.p, want.p, want.len);
}

/* Owned by the caller. */
static inline struct tc_bytes
tc_encode(const struct codec_spec *spec, struct str in, struct tc_cut cut)
{
    size_t used = mem_used();
    struct tc t = tc_new(spec, cut);
    T_EQ(tc_feed(&t, CODEC_FINISH, in), CODEC_DONE);
    T_TRUE(codec_memory(t.c) > 0 && mem_used() == used + codec_memory(t.c));
    struct tc_bytes out = t.out;
    t.out = (struct tc_bytes){0};
    tc_end(&t);
    T_EQ(mem_used(), used);
    return out;
}

/* `stream` is good and holds `plain`. */
static inline void
tc_decodes(const struct codec_spec *decoder, struct str stream, struct str plain, struct tc_cut cut)
{
    size_t used = mem_used();
    struct tc t = tc_new(decoder, cut);
    enum codec_result r = tc_feed(&t, CODEC_FINISH, stream);
    if (r == CODEC_BAD)
        print_error("%s at %" PRIu64 "\n", codec_why(t.c), codec_offset(t.c));
    T_EQ(r, CODEC_DONE);
    T_TRUE(codec_at_boundary(t.c));
    tc_equal(tc_str(&t.out), plain);
    tc_end(&t);
    T_EQ(mem_used(), used);
}

/* `stream` is an error, for this reason (NULL: any), at this offset (-1: any). */
static inline void
tc_is_bad(const struct codec_spec *decoder, struct str stream, struct tc_cut cut, const char *why,
    int64_t at)
{
    size_t used = mem_used();
    struct tc t = tc_new(decoder, cut);
    T_EQ(tc_feed(&t, CODEC_FINISH, stream), CODEC_BAD);
    if (why != NULL)
        T_ZEQ(codec_why(t.c), why);
    if (at >= 0)
        T_EQ(codec_offset(t.c), at);
    tc_end(&t);
    T_EQ(mem_used(), used);
}

static inline void
tc_round_trip(
    const struct codec_spec *encoder, struct str in, struct tc_cut encode, struct tc_cut decode)
{
    struct codec_spec decoder = tc_decoder(encoder);
    struct tc_bytes coded = tc_encode(encoder, in, encode);
    tc_decodes(&decoder, tc_str(&coded), in, decode);
    tc_drop(&coded);
}

/* Sizes from nothing to 1 MB, text and noise; pieces whole, of one byte, random. */
static inline void
tc_check_round_trips(const struct codec_spec *encoder)
{
    static const size_t sizes[] = {0, 1, 2, 100, 4095, 65536, 70001, 1000000};
    static const struct tc_cut whole = {0};
    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        struct tc_bytes in[] = {tc_text(sizes[i], 1 + i), tc_noise(sizes[i], 1 + i)};
        for (size_t k = 0; k < COUNT_OF(in); k++) {
            struct str s = tc_str(&in[k]);
            tc_round_trip(encoder, s, whole, whole);
            tc_round_trip(encoder, s, (struct tc_cut){9000, 5000, 77 + i},
                (struct tc_cut){3000, 20000, 99 + i});
            tc_round_trip(
                encoder, s, (struct tc_cut){100000, 70000, 5}, (struct tc_cut){0, 777, 0});
            if (s.len <= 5000)
                tc_round_trip(encoder, s, (struct tc_cut){1, 1, 0}, (struct tc_cut){1, 1, 0});
            tc_drop(&in[k]);
        }
    }
}

/* In two pieces, cut at every byte, encoding and decoding. */
static inline void
tc_check_every_split(const struct codec_spec *encoder)
{
    struct codec_spec decoder = tc_decoder(encoder);
    struct tc_bytes text = tc_text(300, 3);
    struct str in = tc_str(&text);
    struct tc_bytes coded = tc_encode(encoder, in, (struct tc_cut){0});
    for (size_t at = 0; at <= in.len; at++) {
        struct tc e = tc_new(encoder, (struct tc_cut){.out = 1 + at % 7});
        T_EQ(tc_feed(&e, CODEC_RUN, str_n(in.p, at)), CODEC_DRY);
        T_EQ(tc_feed(&e, CODEC_FINISH, str_n(in.p + at, in.len - at)), CODEC_DONE);
        tc_decodes(&decoder, tc_str(&e.out), in, (struct tc_cut){0});
        tc_end(&e);
    }
    for (size_t at = 0; at <= coded.len; at++) {
        struct tc d = tc_new(&decoder, (struct tc_cut){.out = 1 + at % 7});
        T_EQ(tc_feed(&d, CODEC_RUN, str_n(coded.p, at)), CODEC_DRY);
        T_EQ(tc_feed(&d, CODEC_FINISH, str_n(coded.p + at, coded.len - at)), CODEC_DONE);
        tc_equal(tc_str(&d.out), in);
        tc_end(&d);
    }
    tc_drop(&text);
    tc_drop(&coded);
}

/* Frames back to back, an empty one among them, are one body; every prefix of them is an error
 * unless it ends between two frames. Not for brotli, which has one stream. */
static inline void
tc_check_frames(const struct codec_spec *encoder)
{
    struct codec_spec decoder = tc_decoder(encoder);
    struct tc_bytes part[] = {tc_text(200, 3), tc_text(0, 1), tc_noise(50, 9), tc_text(90, 4)};
    struct tc_bytes plain = {0}, stream = {0};
    size_t edge[COUNT_OF(part) + 1] = {0}, plain_edge[COUNT_OF(part) + 1] = {0};
    for (size_t i = 0; i < COUNT_OF(part); i++) {
        struct tc_bytes one = tc_encode(encoder, tc_str(&part[i]), (struct tc_cut){0});
        tc_append(&stream, one.p, one.len);
        tc_append(&plain, part[i].p, part[i].len);
        edge[i + 1] = stream.len;
        plain_edge[i + 1] = plain.len;
        tc_drop(&one);
        tc_drop(&part[i]);
    }
    tc_decodes(&decoder, tc_str(&stream), tc_str(&plain), (struct tc_cut){0});
    tc_decodes(&decoder, tc_str(&stream), tc_str(&plain), (struct tc_cut){1, 1, 0});
    tc_decodes(&decoder, tc_str(&stream), tc_str(&plain), (struct tc_cut){30, 20, 8});
    for (size_t cut = 0; cut <= stream.len; cut++) {
        size_t frames = 0;
        while (frames < COUNT_OF(part) && edge[frames + 1] <= cut)
            frames++;
        struct tc d = tc_new(&decoder, (struct tc_cut){.in = cut % 3 * 11, .out = cut % 5 * 7});
        T_EQ(tc_feed(&d, CODEC_RUN, str_n(stream.p, cut)), CODEC_DRY);
        bool whole = edge[frames] == cut && (cut > 0 || decoder.id == CODEC_BLOCKS);
        if (cut > 0)
            T_EQ(codec_at_boundary(d.c), whole);
        T_EQ(tc_feed(&d, CODEC_FINISH, STR_NULL), whole ? CODEC_DONE : CODEC_BAD);
        T_TRUE(d.out.len >= plain_edge[frames]); /* all that was whole came out */
        tc_equal(str_n(d.out.p, d.out.len), str_n(plain.p, d.out.len));
        tc_end(&d);
    }
    tc_drop(&plain);
    tc_drop(&stream);
}

/* One frame of `plain_len` bytes of text: every cut is an error, with all pieces and rooms; so is
 * every kind of byte behind the end. */
static inline void
tc_check_cut_and_garbage(const struct codec_spec *encoder, size_t plain_len)
{
    struct codec_spec decoder = tc_decoder(encoder);
    struct tc_bytes text = tc_text(plain_len, 12);
    struct tc_bytes one = tc_encode(encoder, tc_str(&text), (struct tc_cut){0});
    for (size_t cut = decoder.id == CODEC_BLOCKS ? 1 : 0; cut < one.len; cut++) {
        tc_is_bad(&decoder, str_n(one.p, cut), (struct tc_cut){0}, NULL, -1);
        tc_is_bad(&decoder, str_n(one.p, cut), (struct tc_cut){.in = 5, .out = 3}, NULL, -1);
    }
    static const char *const tail[] = {"\n", "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
        "x", "\x1f\x8b", "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "\xff\xff\xff\xff\xff\xff\xff\xff\xff"};
    static const size_t tail_len[] = {1, 26, 1, 2, 27, 9};
    for (size_t i = 0; i < COUNT_OF(tail); i++) {
        struct tc_bytes stream = {0};
        tc_append(&stream, one.p, one.len);
        tc_append(&stream, tail[i], tail_len[i]);
        tc_is_bad(&decoder, tc_str(&stream), (struct tc_cut){0}, NULL, -1);
        tc_is_bad(&decoder, tc_str(&stream), (struct tc_cut){1, 1, 0}, NULL, -1);
        tc_drop(&stream);
    }
    tc_drop(&text);
    tc_drop(&one);
}

/* Every bit of a stream flipped, one at a time: no crash, and with checksums never other bytes as a
 * whole body. */
static inline void
tc_check_flips(const struct codec_spec *encoder, bool checksums)
{
    struct codec_spec decoder = tc_decoder(encoder);
    struct tc_bytes text = tc_text(400, 21);
    struct tc_bytes one = tc_encode(encoder, tc_str(&text), (struct tc_cut){0});
    for (size_t bit = 0; bit < one.len * 8; bit++) {
        one.p[bit / 8] ^= (char)(1u << bit % 8);
        struct tc d = tc_new(&decoder, (struct tc_cut){.in = bit % 3 * 17});
        enum codec_result r = tc_feed(&d, CODEC_FINISH, tc_str(&one));
        T_TRUE(r == CODEC_BAD || r == CODEC_DONE);
        if (r == CODEC_DONE && checksums)
            tc_equal(tc_str(&d.out), tc_str(&text));
        tc_end(&d);
        one.p[bit / 8] ^= (char)(1u << bit % 8);
    }
    tc_drop(&text);
    tc_drop(&one);
}

/* After a flush, what came out decodes to all that was put in; a flush with nothing new says
 * nothing; the whole is still one good stream. */
static inline void
tc_check_flush(const struct codec_spec *encoder, struct tc_cut cut)
{
    struct codec_spec decoder = tc_decoder(encoder);
    struct tc_bytes text = tc_text(400000, 33);
    struct tc e = tc_new(encoder, cut), d = tc_new(&decoder, (struct tc_cut){0});
    size_t seen = 0;
    T_EQ(tc_feed(&e, CODEC_FLUSH, STR_NULL), CODEC_DRY);
    T_EQ(e.out.len, 0);
    for (size_t at = 0, n = 1; at < text.len; at += n, n = n * 3 + 1) {
        n = size_min(n, text.len - at);
        T_EQ(tc_feed(&e, CODEC_FLUSH, str_n(text.p + at, n)), CODEC_DRY);
        T_EQ(tc_feed(&d, CODEC_RUN, str_n(e.out.p + seen, e.out.len - seen)), CODEC_DRY);
        tc_equal(tc_str(&d.out), str_n(text.p, at + n));
        seen = e.out.len;
        T_EQ(tc_feed(&e, CODEC_FLUSH, STR_NULL), CODEC_DRY);
        T_EQ(e.out.len, seen);
        /* Input first, the flush later and alone. */
        if (at + n < text.len) {
            T_EQ(tc_feed(&e, CODEC_RUN, str_n(text.p + at + n, 1)), CODEC_DRY);
            at++;
            T_EQ(tc_feed(&e, CODEC_FLUSH, STR_NULL), CODEC_DRY);
            T_EQ(tc_feed(&d, CODEC_RUN, str_n(e.out.p + seen, e.out.len - seen)), CODEC_DRY);
            tc_equal(tc_str(&d.out), str_n(text.p, at + n));
            seen = e.out.len;
        }
    }
    T_EQ(tc_feed(&e, CODEC_FINISH, STR_NULL), CODEC_DONE);
    T_EQ(tc_feed(&d, CODEC_FINISH, str_n(e.out.p + seen, e.out.len - seen)), CODEC_DONE);
    tc_equal(tc_str(&d.out), tc_str(&text));
    tc_end(&e);
    tc_end(&d);
    tc_drop(&text);
}

/* The same codec, reset: after a whole stream, after half of one, after an error. */
static inline void
tc_check_reset(const struct codec_spec *encoder)
{
    struct codec_spec decoder = tc_decoder(encoder);
    struct tc_bytes text = tc_text(30000, 2);
    struct str in = tc_str(&text);
    struct tc e = tc_new(encoder, (struct tc_cut){0}), d = tc_new(&decoder, (struct tc_cut){0});
    for (int i = 0; i < 6; i++) {
        if (i % 2 == 0) { /* leave both in the middle */
            (void)tc_feed(&e, CODEC_RUN, str_n(in.p, 20000));
            (void)tc_feed(&d, CODEC_RUN, str_n(e.out.p, e.out.len / 2));
        } else {
            T_EQ(tc_feed(&d, CODEC_FINISH, STR("no such thing as this")), CODEC_BAD);
        }
        size_t memory = codec_memory(e.c);
        codec_reset(e.c);
        codec_reset(d.c);
        T_TRUE(codec_why(d.c) == NULL);
        T_EQ(codec_memory(e.c), memory);
        e.out.len = d.out.len = 0;
        e.fed = d.fed = 0;
        T_EQ(tc_feed(&e, CODEC_FINISH, in), CODEC_DONE);
        T_EQ(tc_feed(&d, CODEC_FINISH, tc_str(&e.out)), CODEC_DONE);
        tc_equal(tc_str(&d.out), in);
        codec_reset(e.c);
        codec_reset(d.c);
        e.out.len = d.out.len = 0;
        e.fed = d.fed = 0;
    }
    tc_end(&e);
    tc_end(&d);
    tc_drop(&text);
}

/* One direction with `left` bytes of the budget, more coming back on each refusal: the output is
 * the same. Returns how often memory was refused. */
static inline unsigned
tc_run_with_budget(const struct codec_spec *spec, struct str in, struct str want, size_t left)
{
    size_t used = mem_used();
    struct tc t = {.cut = {.out = 5000}};
    t.held = mem_long_limit() - used - left;
    T_TRUE(mem_take_long(t.held));
    unsigned refused = 0;
    while ((t.c = codec_new(spec)) == NULL) {
        refused++;
        T_TRUE(tc_give_back(&t));
    }
    T_EQ(tc_feed(&t, CODEC_FINISH, in), CODEC_DONE);
    if (spec->encode) {
        struct codec_spec decoder = tc_decoder(spec);
        mem_give(t.held);
        t.held = 0;
        tc_decodes(&decoder, tc_str(&t.out), want, (struct tc_cut){0});
    } else {
        tc_equal(tc_str(&t.out), want);
    }
    refused += t.no_memory;
    mem_give(t.held);
    tc_end(&t);
    T_EQ(mem_used(), used);
    return refused;
}

/* With little budget codecs are refused, or wait, and go on later without loss. */
static inline void
tc_check_budget(const struct codec_spec *encoder)
{
    mem_init((size_t)256 << 20, 65536, 0);
    struct codec_spec decoder = tc_decoder(encoder);
    struct tc_bytes text = tc_text(600000, 14);
    struct tc_bytes coded = tc_encode(encoder, tc_str(&text), (struct tc_cut){0});
    unsigned encoder_refused = 0, decoder_refused = 0;
    for (size_t left = 0; left < (size_t)32 << 20; left = left * 2 + 512) {
        encoder_refused += tc_run_with_budget(encoder, tc_str(&text), tc_str(&text), left);
        decoder_refused += tc_run_with_budget(&decoder, tc_str(&coded), tc_str(&text), left);
    }
    T_TRUE(encoder_refused > 0 && decoder_refused > 0);
    tc_drop(&text);
    tc_drop(&coded);
    mem_fini();
    mem_init(SIZE_MAX, 65536, 0);
}

/* The n-th allocation fails, for every n: no codec, or it says NO_MEMORY and goes on, or it is out
 * of memory for good; never other bytes, never a leak. */
static inline void
tc_check_allocation_failures(const struct codec_spec *spec, struct str in, struct str want)
{
    size_t used = mem_used();
    bool failed = true;
    for (uint64_t n = 1; failed; n++) {
        T_TRUE(n < 10000);
        failed = false;
        mem_fail_at(n);
        struct tc t = {.c = codec_new(spec)};
        if (t.c == NULL) {
            failed = true;
            mem_fail_at(0);
            T_EQ(mem_used(), used);
            continue;
        }
        enum codec_result r = tc_feed(&t, CODEC_FINISH, in);
        mem_fail_at(0);
        if (r == CODEC_BAD) {
            T_ZEQ(codec_why(t.c), "out of memory");
            failed = true;
        } else {
            T_EQ(r, CODEC_DONE);
            failed = t.no_memory > 0;
            if (!spec->encode)
                tc_equal(tc_str(&t.out), want);
        }
        tc_end(&t);
        T_EQ(mem_used(), used);
    }
}

static inline void
tc_check_allocations(const struct codec_spec *encoder)
{
    struct codec_spec decoder = tc_decoder(encoder);
    struct tc_bytes text = tc_text(200000, 15);
    struct tc_bytes coded = tc_encode(encoder, tc_str(&text), (struct tc_cut){0});
    tc_check_allocation_failures(encoder, tc_str(&text), tc_str(&coded));
    tc_check_allocation_failures(&decoder, tc_str(&coded), tc_str(&text));
    tc_drop(&text);
    tc_drop(&coded);
}
#endif
