#ifndef CHMUX_TESTS_FUZZ_CODEC_H
#define CHMUX_TESTS_FUZZ_CODEC_H
/*
 * fuzz_codec: what the codecs' targets share. The first bytes of an input choose sizes of pieces
 * and of room, the memory bound and the direction; the rest is decoded as it is, or encoded under
 * random ops and decoded again.
 */
#include "fuzz.h"

#include "base/check.h"
#include "codec/codec.h"

#define FUZZ_CODEC_OUT_MAX  ((size_t)4 << 20) /* a bomb is left alone after this much */
#define FUZZ_CODEC_HEAD_LEN 6

struct fuzz_codec {
    struct codec *c;
    size_t piece, room, memory_max;
    char *out; /* owned */
    size_t out_len, out_cap;
};

/* One call with input and room of exact sizes, so that ASan sees the first byte past them. */
static inline enum codec_result
fuzz_codec_call(struct fuzz_codec *f, enum codec_op op, const uint8_t **in, size_t *in_len)
{
    char *room = malloc(f->room), *copy = malloc(*in_len > 0 ? *in_len : 1);
    CHECK(room != NULL && copy != NULL);
    if (*in_len > 0)
        memcpy(copy, *in, *in_len);
    struct codec_io io = {copy, *in_len, room, f->room};
    enum codec_result r = codec_run(f->c, op, &io);
    size_t took = *in_len - io.in_len, gave = f->room - io.out_cap;
    CHECK(io.in_len <= *in_len && io.out_cap <= f->room);
    CHECK(io.in == copy + took && io.out == room + gave);
    CHECK(r != CODEC_FULL || io.out_cap == 0); /* so it never turns without progress */
    CHECK(r != CODEC_DRY || (io.in_len == 0 && op != CODEC_FINISH));
    CHECK(r != CODEC_DONE || (io.in_len == 0 && op == CODEC_FINISH));
    CHECK(r != CODEC_BAD || codec_why(f->c) != NULL);
    CHECK(codec_memory(f->c) <= f->memory_max);
    if (f->out_len + gave > f->out_cap) {
        f->out_cap = size_max(2 * f->out_cap, f->out_len + gave);
        f->out = realloc(f->out, f->out_cap);
        CHECK(f->out != NULL);
    }
    if (gave > 0)
        memcpy(f->out + f->out_len, room, gave);
    f->out_len += gave;
    if (took > 0) /* an empty input may be NULL */
        *in += took;
    *in_len -= took;
    free(copy);
    free(room);
    return r;
}

/* All of the input in pieces, then the end of it. */
static inline enum codec_result
fuzz_codec_feed(struct fuzz_codec *f, const uint8_t *in, size_t len)
{
    enum codec_result r = CODEC_DRY;
    while (r == CODEC_DRY && len > 0) {
        size_t n = size_min(f->piece, len);
        len -= n;
        do
            r = fuzz_codec_call(f, CODEC_RUN, &in, &n);
        while (r == CODEC_FULL && f->out_len < FUZZ_CODEC_OUT_MAX);
    }
    if (r != CODEC_DRY)
        return r;
    do
        r = fuzz_codec_call(f, CODEC_FINISH, &in, &len);
    while (r == CODEC_FULL && f->out_len < FUZZ_CODEC_OUT_MAX);
    return r;
}

static inline void
fuzz_codec_end(struct fuzz_codec *f)
{
    codec_free(&f->c);
    free(f->out);
}

/* `overhead`: bytes a decoder may hold beside the window or block that max_memory bounds. */
static inline void
fuzz_codec_decode(
    enum codec_id id, size_t overhead, const uint8_t head[FUZZ_CODEC_HEAD_LEN], struct str in)
{
    struct codec_spec spec = {.id = id, .max_memory = (size_t)1 << (10 + head[3] % 15)};
    struct fuzz_codec f = {.c = codec_new(&spec),
        .piece = 1u + head[1],
        .room = 1u + head[2] * 16u,
        .memory_max = spec.max_memory + overhead};
    CHECK(f.c != NULL);
    enum codec_result r = fuzz_codec_feed(&f, (const uint8_t *)in.p, in.len);
    CHECK(r != CODEC_NO_MEMORY); /* the budget has no end here */
    if (r == CODEC_DONE)
        CHECK(codec_at_boundary(f.c));
    /* In one piece with all room: the same bytes and the same verdict. */
    if (r != CODEC_FULL) {
        struct fuzz_codec whole = {.c = codec_new(&spec),
            .piece = size_max(in.len, 1),
            .room = 65536,
            .memory_max = f.memory_max};
        CHECK(whole.c != NULL);
        CHECK(fuzz_codec_feed(&whole, (const uint8_t *)in.p, in.len) == r);
        if (r == CODEC_DONE) {
            CHECK(whole.out_len == f.out_len);
            CHECK(f.out_len == 0 || memcmp(whole.out, f.out, f.out_len) == 0);
        }
        fuzz_codec_end(&whole);
    }
    fuzz_codec_end(&f);
}

static inline void
fuzz_codec_encode(struct codec_spec spec, const uint8_t head[FUZZ_CODEC_HEAD_LEN], struct str in)
{
    spec.encode = true;
    spec.level = head[3] % 4; /* the slow levels would only make the fuzzing slow */
    struct fuzz_codec f = {
        .c = codec_new(&spec), .piece = 1u + head[1], .room = 1u + head[2], .memory_max = SIZE_MAX};
    CHECK(f.c != NULL);
    const uint8_t *p = (const uint8_t *)in.p;
    unsigned ops = head[4] | (unsigned)head[5] << 8; /* bit by bit: flush behind this piece? */
    enum codec_result r;
    for (size_t left = in.len; left > 0;) {
        size_t n = size_min(f.piece, left);
        left -= n;
        ops = ops >> 1 | (ops & 1) << 15;
        do
            r = fuzz_codec_call(&f, (ops & 1) != 0 ? CODEC_FLUSH : CODEC_RUN, &p, &n);
        while (r == CODEC_FULL);
        CHECK(r == CODEC_DRY);
    }
    size_t none = 0;
    do
        r = fuzz_codec_call(&f, CODEC_FINISH, &p, &none);
    while (r == CODEC_FULL);
    CHECK(r == CODEC_DONE);

    struct codec_spec back = {.id = spec.id, .max_memory = (size_t)32 << 20};
    struct fuzz_codec d = {
        .c = codec_new(&back), .piece = 1u + head[2] * 8u, .room = 65536, .memory_max = SIZE_MAX};
    CHECK(d.c != NULL);
    CHECK(fuzz_codec_feed(&d, (const uint8_t *)f.out, f.out_len) == CODEC_DONE);
    CHECK(d.out_len == in.len && (in.len == 0 || memcmp(d.out, in.p, in.len) == 0));
    fuzz_codec_end(&d);
    fuzz_codec_end(&f);
}

/* spec: id, and method for blocks. The corpus of a target must hold both directions: an odd first
 * byte decodes, an even one encodes. */
static inline int
fuzz_codec(struct codec_spec spec, size_t overhead, const uint8_t *data, size_t size)
{
    if (size < FUZZ_CODEC_HEAD_LEN || size > 65536)
        return 0;
    struct str in = str_n((const char *)data + FUZZ_CODEC_HEAD_LEN, size - FUZZ_CODEC_HEAD_LEN);
    if ((data[0] & 1) != 0)
        fuzz_codec_decode(spec.id, overhead, data, in);
    else
        fuzz_codec_encode(spec, data, in);
    CHECK(mem_used() == 0);
    return 0;
}
#endif
