#include "codec/codec_frames.h"

#include <lz4.h>
#include <lz4frame.h>

#define KIB         ((size_t)1 << 10)
#define BLOCK_BYTES (64 * KIB) /* of our own frames */
/* What one call of the encoder takes at most, if out is small. The first block of a call costs a
 * third more than those behind it, which see the history in place; so several. */
#define PIECE_BYTES (4 * BLOCK_BYTES)
#define HISTORY     (128 * KIB) /* what the library keeps beside a block when blocks are linked */
/* The library's own struct, in either direction: some 200 bytes, which it does not tell. */
#define CONTEXT_BYTES KIB
#define HC_TABLES     (257 * KIB) /* LZ4_STREAMHC_MINSIZE is 262200 */
#define HC_LEVEL_MIN  3           /* from here on the library works with its large tables */
#define LEVEL_MIN     (-65536)    /* its fastest */

static bool
is_error(size_t rc, const char *name)
{
    return LZ4F_isError(rc) && strcmp(LZ4F_getErrorName(rc), name) == 0;
}

static bool
is_no_memory(size_t rc)
{
    return is_error(rc, "ERROR_allocation_failed");
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

struct lz4_decoder {
    struct frames frames;
    LZ4F_dctx *dctx; /* owns */
    bool head_read;  /* the library has this frame's header */
    size_t block;    /* of this frame */
};

static size_t
head_size(const unsigned char *head, size_t len)
{
    if (frames_le32(head) != LZ4F_MAGICNUMBER)
        return 0;
    if (len < LZ4F_MIN_SIZE_TO_KNOW_HEADER_LENGTH)
        return LZ4F_MIN_SIZE_TO_KNOW_HEADER_LENGTH;
    size_t size = LZ4F_headerSize(head, len);
    CHECK(!LZ4F_isError(size)); /* it looks at the magic number and two flags */
    return size;
}

static size_t
block_bytes(LZ4F_blockSizeID_t id)
{
    switch (id) {
    case LZ4F_default:
    case LZ4F_max64KB: return 64 * KIB;
    case LZ4F_max256KB: return 256 * KIB;
    case LZ4F_max1MB: return 1024 * KIB;
    case LZ4F_max4MB: return 4096 * KIB;
    }
    return 4096 * KIB; /* a header with another number does not pass the library */
}

static enum codec_result
read_head(struct lz4_decoder *d)
{
    struct frames *f = &d->frames;
    LZ4F_frameInfo_t info = LZ4F_INIT_FRAMEINFO;
    size_t used = f->head_len;
    size_t rc = LZ4F_getFrameInfo(d->dctx, &info, f->head, &used);
    if (is_error(rc, "ERROR_headerChecksum_invalid"))
        return frames_bad(f, "header checksum mismatch");
    if (LZ4F_isError(rc))
        return frames_bad(f, "broken frame header");
    CHECK(used == f->head_len);
    if (info.dictID != 0)
        return frames_bad(f, "frame needs a dictionary");
    d->block = block_bytes(info.blockSizeID);
    d->head_read = true;
    return CODEC_DONE;
}

static enum codec_result
lz4_begin(struct frames *f)
{
    struct lz4_decoder *d = CONTAINER_OF(f, struct lz4_decoder, frames);
    enum codec_result r = CODEC_DONE;
    if (!d->head_read)
        r = read_head(d);
    /* One block as it came, one decoded. The library allocates them at the first byte behind the
     * header, the larger of all frames so far. */
    if (r == CODEC_DONE)
        r = frames_reserve(f, d->block, 2 * d->block + HISTORY);
    if (r != CODEC_DONE)
        return r;
    size_t in = 0, out = 0;
    size_t rc = LZ4F_decompress(d->dctx, NULL, &out, f->head, &in, NULL);
    if (is_no_memory(rc)) /* it tries again when called again */
        return CODEC_NO_MEMORY;
    if (LZ4F_isError(rc))
        return frames_bad(f, "broken frame header");
    d->head_read = false;
    return CODEC_DONE;
}

static const char *
lz4_step(struct frames *f, struct codec_io *io, bool *ended)
{
    struct lz4_decoder *d = CONTAINER_OF(f, struct lz4_decoder, frames);
    size_t in = io->in_len, out = io->out_cap;
    size_t rc = LZ4F_decompress(d->dctx, io->out, &out, io->in, &in, NULL);
    if (is_error(rc, "ERROR_contentChecksum_invalid") ||
        is_error(rc, "ERROR_blockChecksum_invalid"))
        return "checksum mismatch";
    if (is_error(rc, "ERROR_frameSize_wrong"))
        return "content is not as long as its header says";
    if (LZ4F_isError(rc))
        return "corrupt data";
    advance(io, in, out);
    *ended = rc == 0;
    return NULL;
}

static const struct frames_ops lz4_frames = {
    .head_size = head_size,
    .begin = lz4_begin,
    .step = lz4_step,
    .foreign = "not an LZ4 frame",
    .too_large = "block needs too much memory",
};

static struct lz4_decoder *
to_decoder(struct codec *c)
{
    return CONTAINER_OF(c, struct lz4_decoder, frames.codec);
}

static void
decoder_destroy(struct codec *c)
{
    struct lz4_decoder *d = to_decoder(c);
    (void)LZ4F_freeDecompressionContext(d->dctx);
    mem_free(d);
}

static void
decoder_reset(struct codec *c)
{
    struct lz4_decoder *d = to_decoder(c);
    LZ4F_resetDecompressionContext(d->dctx);
    d->head_read = false;
    frames_reset(&d->frames);
}

static struct codec *
decoder_make(const struct codec_spec *spec)
{
    struct lz4_decoder *d = mem_zalloc(sizeof(*d));
    if (d == NULL)
        return NULL;
    struct codec *c = &d->frames.codec;
    c->ops = &codec_lz4_decoder;
    c->spec = *spec;
    d->frames.ops = &lz4_frames;
    if (!codec_charge(c, sizeof(*d) + CONTEXT_BYTES))
        goto free_struct;
    if (LZ4F_isError(LZ4F_createDecompressionContext(&d->dctx, LZ4F_VERSION)))
        goto uncharge;
    return c;
uncharge:
    codec_uncharge(c, c->charged);
free_struct:
    mem_free(d);
    return NULL;
}

const struct codec_ops codec_lz4_decoder = {
    .make = decoder_make,
    .destroy = decoder_destroy,
    .reset = decoder_reset,
    .run = frames_run,
    .at_boundary = frames_at_boundary,
};

/*
 * Encoder
 *
 * The library wants room for the worst case of a whole call, so it writes into out while out has
 * that, and into the stage otherwise, which then leaves in pieces of any size.
 */

struct lz4_encoder {
    struct codec codec;
    LZ4F_cctx *cctx; /* owns */
    LZ4F_preferences_t prefs;
    bool begun;     /* the frame header is made */
    bool unflushed; /* input went in since the last flush */
    bool ended;
    size_t start, end; /* of what is staged */
    size_t stage_cap;
    char stage[];
};

static struct lz4_encoder *
to_encoder(struct codec *c)
{
    return CONTAINER_OF(c, struct lz4_encoder, codec);
}

static void
encoder_destroy(struct codec *c)
{
    struct lz4_encoder *e = to_encoder(c);
    (void)LZ4F_freeCompressionContext(e->cctx);
    mem_free(e);
}

static void
encoder_reset(struct codec *c)
{
    struct lz4_encoder *e = to_encoder(c);
    e->begun = e->unflushed = e->ended = false; /* LZ4F_compressBegin() forgets the old frame */
    e->start = e->end = 0;
}

static int
clamp_level(int level)
{
    if (level < LEVEL_MIN)
        return LEVEL_MIN;
    return level > LZ4F_compressionLevel_max() ? LZ4F_compressionLevel_max() : level;
}

static size_t
tables_bytes(int level)
{
    return level < HC_LEVEL_MIN ? (size_t)LZ4_sizeofState() : HC_TABLES;
}

static struct codec *
encoder_make(const struct codec_spec *spec)
{
    LZ4F_preferences_t prefs = LZ4F_INIT_PREFERENCES;
    prefs.frameInfo.blockSizeID = LZ4F_max64KB;
    prefs.frameInfo.blockMode = LZ4F_blockLinked;
    /* So that a broken link, or a broken chmux, is found by whoever decodes. */
    prefs.frameInfo.contentChecksumFlag = LZ4F_contentChecksumEnabled;
    prefs.compressionLevel = clamp_level(spec->level);
    size_t cap = LZ4F_compressBound(PIECE_BYTES, &prefs); /* a flush needs less */
    CHECK(cap >= LZ4F_compressBound(0, &prefs));
    size_t bytes = sizeof(struct lz4_encoder) + cap;
    struct lz4_encoder *e = mem_alloc(bytes);
    if (e == NULL)
        return NULL;
    memset(e, 0, sizeof(*e)); /* and not the stage, which may never be used */
    struct codec *c = &e->codec;
    c->ops = &codec_lz4_encoder;
    c->spec = *spec;
    e->prefs = prefs;
    e->stage_cap = cap;
    size_t library = CONTEXT_BYTES + BLOCK_BYTES + HISTORY + tables_bytes(prefs.compressionLevel);
    if (!codec_charge(c, bytes + library))
        goto free_struct;
    if (LZ4F_isError(LZ4F_createCompressionContext(&e->cctx, LZ4F_VERSION)))
        goto uncharge;
    return c;
uncharge:
    codec_uncharge(c, c->charged);
free_struct:
    mem_free(e);
    return NULL;
}

/* As much of the input as one call may take so that its worst case fits in cap, which has room for
 * that of PIECE_BYTES, or of all there is. */
static size_t
piece_len(const struct lz4_encoder *e, size_t in_len, size_t cap)
{
    size_t n = size_min(in_len, cap);
    while (n > PIECE_BYTES && LZ4F_compressBound(n, &e->prefs) > cap)
        n -= size_min(n - PIECE_BYTES, BLOCK_BYTES);
    return n;
}

/* Asks the library for the next bytes, into to (cap bytes, enough for the worst case of a piece).
 */
static size_t
produce(struct lz4_encoder *e, enum codec_op op, struct codec_io *io, char *to, size_t cap)
{
    if (!e->begun) {
        size_t rc = LZ4F_compressBegin(e->cctx, to, cap, &e->prefs);
        e->begun = !LZ4F_isError(rc);
        return rc;
    }
    if (io->in_len > 0) {
        size_t n = piece_len(e, io->in_len, cap);
        size_t rc = LZ4F_compressUpdate(e->cctx, to, cap, io->in, n, NULL);
        e->unflushed = true;
        advance(io, n, 0);
        return rc;
    }
    e->unflushed = false;
    if (op == CODEC_FLUSH)
        return LZ4F_flush(e->cctx, to, cap, NULL);
    e->ended = true;
    return LZ4F_compressEnd(e->cctx, to, cap, NULL);
}

static bool
has_work(const struct lz4_encoder *e, enum codec_op op, const struct codec_io *io)
{
    return io->in_len > 0 || (op == CODEC_FINISH && !e->ended) ||
           (op == CODEC_FLUSH && e->unflushed);
}

static void
drain(struct lz4_encoder *e, struct codec_io *io)
{
    size_t n = size_min(e->end - e->start, io->out_cap);
    memcpy(io->out, e->stage + e->start, n);
    e->start += n;
    advance(io, 0, n);
}

static enum codec_result
encoder_run(struct codec *c, enum codec_op op, struct codec_io *io)
{
    struct lz4_encoder *e = to_encoder(c);
    CHECK(!e->ended || io->in_len == 0);
    for (;;) {
        if (e->start < e->end) {
            if (io->out_cap == 0)
                return CODEC_FULL;
            drain(e, io);
            continue;
        }
        if (!has_work(e, op, io))
            return op == CODEC_FINISH ? CODEC_DONE : CODEC_DRY;
        if (io->out_cap == 0)
            return CODEC_FULL;
        size_t worst = LZ4F_compressBound(size_min(io->in_len, PIECE_BYTES), &e->prefs);
        bool direct = io->out_cap >= worst;
        size_t rc =
            produce(e, op, io, direct ? io->out : e->stage, direct ? io->out_cap : e->stage_cap);
        if (is_no_memory(rc) && !e->begun)
            return CODEC_NO_MEMORY;
        if (LZ4F_isError(rc))
            return codec_bad(c, "lz4 encoder failed", c->in_total);
        e->start = 0;
        e->end = direct ? 0 : rc;
        if (direct)
            advance(io, 0, rc);
    }
}

const struct codec_ops codec_lz4_encoder = {
    .make = encoder_make,
    .destroy = encoder_destroy,
    .reset = encoder_reset,
    .run = encoder_run,
};
