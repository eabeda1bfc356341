#include "codec/codec_impl.h"

#include <brotli/decode.h>
#include <brotli/encode.h>

#define KIB ((size_t)1 << 10)

/*
 * The library cannot go on after an allocation that failed, and it allocates all along; its
 * encoder, built as its makers and distributions build it, even ends the process. So the most that
 * it may come to hold is taken from the budget before the first byte goes in, and the heap below
 * counts what it really holds. Should it want more, the decoder can be refused; the encoder gets it
 * even over the budget, and when there is no memory at all a CHECK at least says why the process
 * ends.
 */
struct heap {
    struct codec *codec; /* borrows: the one that it is part of */
    size_t reserved;     /* charged for the library */
    size_t used;
    bool must_not_fail;
};

struct heap_head { /* before each allocation */
    _Alignas(16) size_t bytes;
};

/* Has the budget got `bytes` for the library? */
static bool
heap_reserve(struct heap *h, size_t bytes)
{
    if (bytes > h->reserved) {
        if (!codec_charge(h->codec, bytes - h->reserved))
            return false;
        h->reserved = bytes;
    }
    return true;
}

static void *
heap_alloc(void *opaque, size_t size)
{
    struct heap *h = opaque;
    size_t bytes = sizeof(struct heap_head) + size;
    if (!heap_reserve(h, h->used + bytes) && !h->must_not_fail)
        return NULL;
    struct heap_head *head = mem_alloc(bytes);
    CHECK(head != NULL || !h->must_not_fail);
    if (head == NULL)
        return NULL;
    h->used += bytes;
    head->bytes = bytes;
    return head + 1;
}

static void
heap_free(void *opaque, void *p)
{
    struct heap *h = opaque;
    if (p == NULL)
        return;
    struct heap_head *head = (struct heap_head *)p - 1;
    CHECK(h->used >= head->bytes);
    h->used -= head->bytes;
    mem_free(head);
}

/*
 * Decoder
 */

/* Beside the window: 256 code trees of each of the three kinds, of 256 + 376, 704 + 376 and 520 +
 * 376 entries of 4 bytes; the context maps; the state itself. Only odd streams come near it. */
#define TABLES_BYTES (2816 * KIB)
#define RING_SLACK   (1 * KIB) /* the library writes a little past its ring buffer */

struct brotli_decoder {
    struct codec codec;
    BrotliDecoderState *state; /* owns; NULL: no byte came yet */
    bool ended;
    bool more_out; /* the last call filled out: the library may hold more */
    struct heap heap;
};

static struct codec *
decoder_make(const struct codec_spec *spec)
{
    struct brotli_decoder *d = mem_zalloc(sizeof(*d));
    if (d == NULL)
        return NULL;
    d->codec.ops = &codec_brotli_decoder;
    d->codec.spec = *spec;
    d->heap.codec = &d->codec;
    struct codec *c = &d->codec;
    if (!codec_charge(c, sizeof(*d)))
        codec_free(&c);
    return c;
}

/* There is no way to reset the library's state: a new one is made when the first byte comes. The
 * charge stays. */
static void
decoder_reset(struct codec *c)
{
    struct brotli_decoder *d = CONTAINER_OF(c, struct brotli_decoder, codec);
    if (d->state != NULL)
        BrotliDecoderDestroyInstance(d->state);
    d->state = NULL;
    d->ended = d->more_out = false;
}

static void
decoder_destroy(struct codec *c)
{
    decoder_reset(c);
    mem_free(CONTAINER_OF(c, struct brotli_decoder, codec));
}

/* RFC 7932, section 9.1: 10 to 24, by the first byte of the stream. 0: not in the RFC; the library
 * has it for windows of up to 1 GiB. */
static unsigned
window_bits(unsigned char first)
{
    if ((first & 1) == 0)
        return 16;
    unsigned n = first >> 1 & 7;
    if (n > 0)
        return 17 + n;
    n = first >> 4 & 7;
    if (n == 0)
        return 17;
    return n == 1 ? 0 : 8 + n;
}

static enum codec_result
decoder_begin(struct brotli_decoder *d, unsigned char first)
{
    struct codec *c = &d->codec;
    unsigned bits = window_bits(first);
    size_t window = (size_t)1 << bits;
    size_t need = window + RING_SLACK + TABLES_BYTES;
    /* What the budget could not grant even to us alone must not be waited for. */
    if (bits == 0 || window > c->spec.max_memory || need > mem_long_limit() - sizeof(*d))
        return codec_bad(c, "window needs too much memory", c->in_total);
    if (!heap_reserve(&d->heap, need))
        return CODEC_NO_MEMORY;
    d->state = BrotliDecoderCreateInstance(heap_alloc, heap_free, &d->heap);
    if (d->state == NULL)
        return CODEC_NO_MEMORY;
    /* A ring buffer that grows would be there twice for a moment. Pages of it that are not needed
     * are never touched. */
    BROTLI_BOOL ok = BrotliDecoderSetParameter(
        d->state, BROTLI_DECODER_PARAM_DISABLE_RING_BUFFER_REALLOCATION, 1);
    CHECK(ok);
    return CODEC_DONE;
}

static const char *
decoder_why(const BrotliDecoderState *s)
{
    BrotliDecoderErrorCode code = BrotliDecoderGetErrorCode(s);
    bool memory = code <= BROTLI_DECODER_ERROR_ALLOC_CONTEXT_MODES &&
                  code >= BROTLI_DECODER_ERROR_ALLOC_BLOCK_TYPE_TREES;
    /* The library's own texts ("CL_SPACE") mean something to its authors only. */
    return memory ? CODEC_OUT_OF_MEMORY : "invalid brotli data";
}

static enum codec_result
decoder_step(struct brotli_decoder *d, struct codec_io *io)
{
    const uint8_t *in = (const uint8_t *)io->in;
    uint8_t *out = (uint8_t *)io->out;
    BrotliDecoderResult r =
        BrotliDecoderDecompressStream(d->state, &io->in_len, &in, &io->out_cap, &out, NULL);
    io->in = (const char *)in;
    io->out = (char *)out;
    /* It asks for input also when there is output that found no room. */
    d->more_out = io->out_cap == 0 && BrotliDecoderHasMoreOutput(d->state);
    switch (r) {
    case BROTLI_DECODER_RESULT_SUCCESS: d->ended = true; break;
    case BROTLI_DECODER_RESULT_NEEDS_MORE_INPUT: CHECK(io->in_len == 0); break;
    case BROTLI_DECODER_RESULT_NEEDS_MORE_OUTPUT: CHECK(io->out_cap == 0); break;
    case BROTLI_DECODER_RESULT_ERROR: return CODEC_BAD;
    }
    return CODEC_DRY;
}

static enum codec_result
decoder_run(struct codec *c, enum codec_op op, struct codec_io *io)
{
    struct brotli_decoder *d = CONTAINER_OF(c, struct brotli_decoder, codec);
    uint64_t in_end = c->in_total + io->in_len;
    while (io->in_len > 0 || d->more_out) {
        if (d->ended)
            return codec_bad(c, "bytes after the end of the stream", in_end - io->in_len);
        if (io->out_cap == 0)
            return CODEC_FULL;
        if (d->state == NULL) {
            enum codec_result r = decoder_begin(d, (unsigned char)*io->in);
            if (r != CODEC_DONE)
                return r;
        }
        if (decoder_step(d, io) == CODEC_BAD)
            return codec_bad(c, decoder_why(d->state), in_end - io->in_len);
    }
    if (op != CODEC_FINISH)
        return CODEC_DRY;
    if (d->ended)
        return CODEC_DONE;
    return codec_bad(c,
        d->state == NULL ? "input ends before the first frame" : "input ends inside a frame",
        in_end);
}

static bool
decoder_at_boundary(const struct codec *c)
{
    const struct brotli_decoder *d = (const void *)c; /* its first member */
    return d->ended || d->state == NULL;
}

const struct codec_ops codec_brotli_decoder = {
    .make = decoder_make,
    .destroy = decoder_destroy,
    .reset = decoder_reset,
    .run = decoder_run,
    .at_boundary = decoder_at_boundary,
};

/*
 * Encoder
 */

/* The library's default, 11, does half a megabyte per second: no stream waits for that. */
#define QUALITY_DEFAULT 4
#define QUALITY_MIN     1
#define QUALITY_MAX     9 /* 10 and 11 are that slow */
/* 256 KiB. The library's default, 22 bits, would make it hold four times as much, for a few per
 * cent of size. */
#define WINDOW_BITS 18

/* By quality: the most it held for text, noise, digits and mixes of them, and some more. */
static const size_t encoder_bytes[QUALITY_MAX + 1] = {
    [1] = 2048 * KIB,
    [2] = 2560 * KIB,
    [3] = 2560 * KIB,
    [4] = 4608 * KIB,
    [5] = 5120 * KIB,
    [6] = 6144 * KIB,
    [7] = 12800 * KIB,
    [8] = 22016 * KIB,
    [9] = 41984 * KIB,
};

struct brotli_encoder {
    struct codec codec;
    BrotliEncoderState *state; /* owns; NULL: to be made by the next call */
    bool unflushed;            /* input came since the last flush */
    struct heap heap;
};

static int
encoder_quality(int level)
{
    if (level == 0)
        return QUALITY_DEFAULT;
    return level < QUALITY_MIN ? QUALITY_MIN : level > QUALITY_MAX ? QUALITY_MAX : level;
}

static bool
encoder_begin(struct brotli_encoder *e)
{
    e->state = BrotliEncoderCreateInstance(heap_alloc, heap_free, &e->heap);
    if (e->state == NULL)
        return false;
    e->heap.must_not_fail = true;
    unsigned quality = (unsigned)encoder_quality(e->codec.spec.level);
    BROTLI_BOOL ok = BrotliEncoderSetParameter(e->state, BROTLI_PARAM_QUALITY, quality) &&
                     BrotliEncoderSetParameter(e->state, BROTLI_PARAM_LGWIN, WINDOW_BITS);
    CHECK(ok);
    return true;
}

static struct codec *
encoder_make(const struct codec_spec *spec)
{
    struct brotli_encoder *e = mem_zalloc(sizeof(*e));
    if (e == NULL)
        return NULL;
    e->codec.ops = &codec_brotli_encoder;
    e->codec.spec = *spec;
    e->heap.codec = &e->codec;
    struct codec *c = &e->codec;
    if (!codec_charge(c, sizeof(*e)) ||
        !heap_reserve(&e->heap, encoder_bytes[encoder_quality(spec->level)]) || !encoder_begin(e))
        codec_free(&c);
    return c;
}

static void
encoder_reset(struct codec *c)
{
    struct brotli_encoder *e = CONTAINER_OF(c, struct brotli_encoder, codec);
    if (e->state != NULL)
        BrotliEncoderDestroyInstance(e->state);
    e->state = NULL;
    e->heap.must_not_fail = false; /* the next state itself may be refused */
    e->unflushed = false;
}

static void
encoder_destroy(struct codec *c)
{
    encoder_reset(c);
    mem_free(CONTAINER_OF(c, struct brotli_encoder, codec));
}

static void
encoder_step(struct brotli_encoder *e, enum codec_op op, struct codec_io *io)
{
    static const BrotliEncoderOperation ops[] = {
        [CODEC_RUN] = BROTLI_OPERATION_PROCESS,
        [CODEC_FLUSH] = BROTLI_OPERATION_FLUSH,
        [CODEC_FINISH] = BROTLI_OPERATION_FINISH,
    };
    const uint8_t *in = (const uint8_t *)io->in;
    uint8_t *out = (uint8_t *)io->out;
    BROTLI_BOOL ok =
        BrotliEncoderCompressStream(e->state, ops[op], &io->in_len, &in, &io->out_cap, &out, NULL);
    io->in = (const char *)in;
    io->out = (char *)out;
    CHECK(ok); /* it fails for wrong calls, and for want of memory, which it cannot meet here */
}

static enum codec_result
encoder_run(struct codec *c, enum codec_op op, struct codec_io *io)
{
    struct brotli_encoder *e = CONTAINER_OF(c, struct brotli_encoder, codec);
    e->unflushed = e->unflushed || io->in_len > 0;
    if (op == CODEC_RUN && io->in_len == 0)
        return CODEC_DRY;
    if (op == CODEC_FLUSH && !e->unflushed)
        return CODEC_DRY;
    if (e->state == NULL && !encoder_begin(e))
        return CODEC_NO_MEMORY;
    do {
        if (io->out_cap == 0)
            return CODEC_FULL;
        encoder_step(e, op, io);
    } while (io->in_len > 0 || BrotliEncoderHasMoreOutput(e->state));
    if (op == CODEC_RUN)
        return CODEC_DRY;
    e->unflushed = false;
    CHECK(op != CODEC_FINISH || BrotliEncoderIsFinished(e->state));
    return op == CODEC_FINISH ? CODEC_DONE : CODEC_DRY;
}

const struct codec_ops codec_brotli_encoder = {
    .make = encoder_make,
    .destroy = encoder_destroy,
    .reset = encoder_reset,
    .run = encoder_run,
};
