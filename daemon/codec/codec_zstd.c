#include "codec/codec_frames.h"

#include <zstd.h>
#include <zstd_errors.h>

#define MAGIC       0xFD2FB528u
#define LEVEL_MIN   (-7)
#define LEVEL_MAX   19 /* above it windows grow past what RFC 9659 lets a receiver refuse */
#define KIB         ((size_t)1 << 10)
#define BLOCK_BYTES (128 * KIB) /* the largest block */
/* A decoder before its first frame. The library tells the size only of one that exists already;
 * make() corrects the charge when another version of it needs more. */
#define DCTX_BYTES (96 * KIB)

static bool
is_no_memory(size_t rc)
{
    return ZSTD_isError(rc) && ZSTD_getErrorCode(rc) == ZSTD_error_memory_allocation;
}

static void
advance(struct codec_io *io, size_t in, size_t out)
{
    io->in += in;
    io->in_len -= in;
    io->out += out;
    io->out_cap -= out;
}

/*
 * Decoder
 */

struct zstd_decoder {
    struct frames frames;
    ZSTD_DCtx *dctx;  /* owns */
    uint64_t content; /* what this frame's header says; UINT64_MAX: nothing */
    uint64_t made;    /* of it */
};

/* RFC 8878, section 3.1.1.1 */
struct head {
    bool single_segment; /* no window: the content is one */
    size_t dict_len, content_len;
    size_t len;
};

static struct head
head_fields(unsigned char descriptor)
{
    static const uint8_t dict_lens[4] = {0, 1, 2, 4}, content_lens[4] = {0, 2, 4, 8};
    struct head h = {
        .single_segment = descriptor & 0x20,
        .dict_len = dict_lens[descriptor & 3],
        .content_len = content_lens[descriptor >> 6],
    };
    if (h.single_segment && h.content_len == 0)
        h.content_len = 1;
    h.len = 5 + (h.single_segment ? 0u : 1u) + h.dict_len + h.content_len;
    return h;
}

static size_t
head_size(const unsigned char *head, size_t len)
{
    if (frames_le32(head) != MAGIC)
        return 0;
    return len < 5 ? 5 : head_fields(head[4]).len;
}

static uint64_t
read_le(const unsigned char *p, size_t len)
{
    uint64_t v = 0;
    while (len > 0)
        v = v << 8 | p[--len];
    return v;
}

struct frame_info {
    uint64_t window;
    uint64_t content; /* UINT64_MAX: not told */
    uint64_t dict_id;
};

static struct frame_info
frame_info(const unsigned char *head)
{
    struct head h = head_fields(head[4]);
    const unsigned char *p = head + 5;
    struct frame_info info = {.content = UINT64_MAX};
    if (!h.single_segment) {
        uint64_t base = (uint64_t)1 << (10 + (*p >> 3));
        info.window = base + base / 8 * (*p & 7);
        p++;
    }
    info.dict_id = read_le(p, h.dict_len);
    p += h.dict_len;
    if (h.content_len > 0)
        info.content = read_le(p, h.content_len) + (h.content_len == 2 ? 256 : 0);
    if (h.single_segment)
        info.window = info.content;
    return info;
}

/* The buffers the library makes for a frame: one block of input; a window, the block being written,
 * its literals (the largest there could be, whatever the window) and slack for wide copies, or the
 * whole content if that is less. A test compares. */
static uint64_t
frame_memory(const struct frame_info *info)
{
    uint64_t window = info->window < KIB ? KIB : info->window;
    if (window > UINT64_MAX / 2) /* no sum below wraps; the library refuses such a frame */
        window = UINT64_MAX / 2;
    uint64_t block = window < BLOCK_BYTES ? window : BLOCK_BYTES;
    uint64_t out = window + block + BLOCK_BYTES + 64;
    return block + (info->content < out ? info->content : out);
}

static enum codec_result
zstd_begin(struct frames *f)
{
    struct zstd_decoder *d = CONTAINER_OF(f, struct zstd_decoder, frames);
    struct frame_info info = frame_info(f->head);
    if (info.dict_id != 0)
        return frames_bad(f, "frame needs a dictionary");
    /* A window far larger than the content is only a promise: memory follows the content. */
    uint64_t window = info.content < info.window ? info.content : info.window;
    enum codec_result r = frames_reserve(f, window, frame_memory(&info));
    if (r != CODEC_DONE)
        return r;
    ZSTD_inBuffer in = {f->head, f->head_len, 0};
    ZSTD_outBuffer out = {NULL, 0, 0};
    size_t rc = ZSTD_decompressStream(d->dctx, &out, &in);
    if (is_no_memory(rc)) {
        (void)ZSTD_DCtx_reset(d->dctx, ZSTD_reset_session_only);
        return CODEC_NO_MEMORY;
    }
    if (ZSTD_isError(rc))
        return frames_bad(f, ZSTD_getErrorCode(rc) == ZSTD_error_frameParameter_windowTooLarge
                                 ? f->ops->too_large
                                 : "broken frame header");
    CHECK(in.pos == in.size);
    d->content = info.content;
    d->made = 0;
    return CODEC_DONE;
}

static const char *
zstd_step(struct frames *f, struct codec_io *io, bool *ended)
{
    struct zstd_decoder *d = CONTAINER_OF(f, struct zstd_decoder, frames);
    ZSTD_inBuffer in = {io->in, io->in_len, 0};
    ZSTD_outBuffer out = {io->out, io->out_cap, 0};
    size_t rc = ZSTD_decompressStream(d->dctx, &out, &in);
    advance(io, in.pos, out.pos);
    if (ZSTD_isError(rc))
        return ZSTD_getErrorCode(rc) == ZSTD_error_checksum_wrong ? "checksum mismatch"
                                                                  : "corrupt data";
    *ended = rc == 0;
    d->made += out.pos;
    /* The library does not look when the last block is empty. */
    if (*ended && d->content != UINT64_MAX && d->made != d->content)
        return "content is not as long as its header says";
    return NULL;
}

static const struct frames_ops zstd_frames = {
    .head_size = head_size,
    .begin = zstd_begin,
    .step = zstd_step,
    .foreign = "not a zstd frame",
    .too_large = "window needs too much memory",
};

static struct zstd_decoder *
to_decoder(struct codec *c)
{
    return CONTAINER_OF(c, struct zstd_decoder, frames.codec);
}

static void
decoder_destroy(struct codec *c)
{
    struct zstd_decoder *d = to_decoder(c);
    ZSTD_freeDCtx(d->dctx);
    mem_free(d);
}

static void
decoder_reset(struct codec *c)
{
    struct zstd_decoder *d = to_decoder(c);
    (void)ZSTD_DCtx_reset(d->dctx, ZSTD_reset_session_only);
    frames_reset(&d->frames);
}

static ZSTD_DCtx *
new_dctx(void)
{
    ZSTD_DCtx *dctx = ZSTD_createDCtx();
    if (dctx == NULL)
        return NULL;
    /* Ours is the only bound: with its default the library would refuse windows above 128 MiB that
     * max_memory allows. */
    int log_max = ZSTD_dParam_getBounds(ZSTD_d_windowLogMax).upperBound;
    size_t rc = ZSTD_DCtx_setParameter(dctx, ZSTD_d_windowLogMax, log_max);
    CHECK(!ZSTD_isError(rc));
    return dctx;
}

static struct codec *
decoder_make(const struct codec_spec *spec)
{
    struct zstd_decoder *d = mem_zalloc(sizeof(*d));
    if (d == NULL)
        return NULL;
    struct codec *c = &d->frames.codec;
    c->ops = &codec_zstd_decoder;
    c->spec = *spec;
    d->frames.ops = &zstd_frames;
    if (!codec_charge(c, sizeof(*d) + DCTX_BYTES))
        goto free_struct;
    d->dctx = new_dctx();
    if (d->dctx == NULL)
        goto uncharge;
    if (ZSTD_sizeof_DCtx(d->dctx) > DCTX_BYTES &&
        !codec_charge(c, ZSTD_sizeof_DCtx(d->dctx) - DCTX_BYTES))
        goto free_dctx;
    return c;
free_dctx:
    ZSTD_freeDCtx(d->dctx);
uncharge:
    codec_uncharge(c, c->charged);
free_struct:
    mem_free(d);
    return NULL;
}

const struct codec_ops codec_zstd_decoder = {
    .make = decoder_make,
    .destroy = decoder_destroy,
    .reset = decoder_reset,
    .run = frames_run,
    .at_boundary = frames_at_boundary,
};

/*
 * Encoder
 */

struct zstd_encoder {
    struct codec codec;
    ZSTD_CCtx *cctx; /* owns */
    bool begun;      /* the library has made its tables for this stream */
    bool unflushed;  /* input went in since the last flush */
    bool unended;    /* the last call filled out: the library may hold more */
    bool ended;
};

/* KiB that one level's context holds in the end: measured with 1.5.4 and rounded up, since the
 * library says it only afterwards. Levels below 1 need less than level 1. A test compares. */
static const uint32_t level_kib[LEVEL_MAX + 1] = {
    [1] = 1400,
    [2] = 2100,
    [3] = 3700,
    [4] = 5000,
    [5] = 6000,
    [6] = 6000,
    [7] = 9100,
    [8] = 9100,
    [9] = 17400,
    [10] = 29700,
    [11] = 29700,
    [12] = 54300,
    [13] = 38000,
    [14] = 54300,
    [15] = 70700,
    [16] = 38200,
    [17] = 58600,
    [18] = 59200,
    [19] = 92000,
};

static int
clamp_level(int level)
{
    if (level == 0)
        level = ZSTD_CLEVEL_DEFAULT;
    if (level < LEVEL_MIN)
        return LEVEL_MIN;
    return level > LEVEL_MAX ? LEVEL_MAX : level;
}

static struct zstd_encoder *
to_encoder(struct codec *c)
{
    return CONTAINER_OF(c, struct zstd_encoder, codec);
}

static void
encoder_destroy(struct codec *c)
{
    struct zstd_encoder *e = to_encoder(c);
    ZSTD_freeCCtx(e->cctx);
    mem_free(e);
}

static void
encoder_reset(struct codec *c)
{
    struct zstd_encoder *e = to_encoder(c);
    (void)ZSTD_CCtx_reset(e->cctx, ZSTD_reset_session_only);
    e->begun = e->unflushed = e->unended = e->ended = false;
}

static ZSTD_CCtx *
new_cctx(int level)
{
    ZSTD_CCtx *cctx = ZSTD_createCCtx();
    if (cctx == NULL)
        return NULL;
    size_t rc = ZSTD_CCtx_setParameter(cctx, ZSTD_c_compressionLevel, level);
    CHECK(!ZSTD_isError(rc));
    /* So that a broken link, or a broken chmux, is found by whoever decodes. */
    rc = ZSTD_CCtx_setParameter(cctx, ZSTD_c_checksumFlag, 1);
    CHECK(!ZSTD_isError(rc));
    return cctx;
}

static struct codec *
encoder_make(const struct codec_spec *spec)
{
    struct zstd_encoder *e = mem_zalloc(sizeof(*e));
    if (e == NULL)
        return NULL;
    struct codec *c = &e->codec;
    c->ops = &codec_zstd_encoder;
    c->spec = *spec;
    int level = clamp_level(spec->level);
    if (!codec_charge(c, sizeof(*e) + level_kib[level < 1 ? 1 : level] * KIB))
        goto free_struct;
    e->cctx = new_cctx(level);
    if (e->cctx == NULL)
        goto uncharge;
    return c;
uncharge:
    codec_uncharge(c, c->charged);
free_struct:
    mem_free(e);
    return NULL;
}

static ZSTD_EndDirective
directive(enum codec_op op)
{
    switch (op) {
    case CODEC_RUN: return ZSTD_e_continue;
    case CODEC_FLUSH: return ZSTD_e_flush;
    case CODEC_FINISH: return ZSTD_e_end;
    }
    return ZSTD_e_end;
}

/* Is there something to do for this op at all? */
static bool
has_work(const struct zstd_encoder *e, enum codec_op op, const struct codec_io *io)
{
    return io->in_len > 0 || e->unended || op == CODEC_FINISH ||
           (op == CODEC_FLUSH && e->unflushed);
}

static enum codec_result
encoder_run(struct codec *c, enum codec_op op, struct codec_io *io)
{
    struct zstd_encoder *e = to_encoder(c);
    CHECK(!e->ended || io->in_len == 0);
    while (!e->ended && has_work(e, op, io)) {
        if (io->out_cap == 0)
            return CODEC_FULL;
        ZSTD_inBuffer in = {io->in, io->in_len, 0};
        ZSTD_outBuffer out = {io->out, io->out_cap, 0};
        size_t rc = ZSTD_compressStream2(e->cctx, &out, &in, directive(op));
        if (is_no_memory(rc) && !e->begun) { /* nothing was taken yet */
            (void)ZSTD_CCtx_reset(e->cctx, ZSTD_reset_session_only);
            return CODEC_NO_MEMORY;
        }
        if (ZSTD_isError(rc))
            return codec_bad(c, "zstd encoder failed", c->in_total);
        e->begun = true;
        e->unflushed = e->unflushed || in.pos > 0;
        advance(io, in.pos, out.pos);
        e->unended = io->out_cap == 0;
        if (op != CODEC_RUN && rc == 0) { /* 0: all is out */
            e->unflushed = e->unended = false;
            e->ended = op == CODEC_FINISH;
        }
    }
    return op == CODEC_FINISH ? CODEC_DONE : CODEC_DRY;
}

const struct codec_ops codec_zstd_encoder = {
    .make = encoder_make,
    .destroy = encoder_destroy,
    .reset = encoder_reset,
    .run = encoder_run,
};
