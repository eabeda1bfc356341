#include "codec/codec_impl.h"

#define ZLIB_CONST
#include <zlib.h>

#define WINDOW_BITS_MIN 9
#define WINDOW_BITS_MAX 15
#define GZIP_WRAPPER    16 /* added to the window bits: gzip and not zlib */
#define MEM_LEVEL       8  /* zlib's default */
#define LEVEL_MIN       1  /* 0 would be zlib's "stored": here it means the default */
#define LEVEL_MAX       9
/* zlib's manual: 32 KiB of window and "about 7 KiB"; other builds of it align more generously. */
#define INFLATE_BYTES ((size_t)48 << 10)
#define ALIGNMENT     64u
/* zlib counts in unsigned int. */
#define CALL_MAX ((size_t)1 << 30)

static uInt
call_len(size_t len)
{
    return (uInt)size_min(len, CALL_MAX);
}

static void
zlib_open(z_stream *z, const struct codec_io *io)
{
    z->next_in = (const Bytef *)io->in;
    z->avail_in = call_len(io->in_len);
    z->next_out = (Bytef *)io->out;
    z->avail_out = call_len(io->out_cap);
}

static void
zlib_close(const z_stream *z, struct codec_io *io)
{
    io->in_len -= call_len(io->in_len) - z->avail_in;
    io->in = (const char *)z->next_in;
    io->out_cap -= call_len(io->out_cap) - z->avail_out;
    io->out = (char *)z->next_out;
}

/*
 * Decoder
 */

struct zlib_decoder {
    struct codec codec;
    z_stream z;
    bool between;    /* no byte of the next member came yet */
    bool any;        /* a member has ended */
    bool more_out;   /* the last call filled out: zlib may hold more */
    size_t heap_len; /* used */
    /* zlib allocates its window when the stream is under way, and cannot go on after a refusal. So
     * all it may ask for is here from the start. */
    _Alignas(ALIGNMENT) char heap[INFLATE_BYTES];
};

static voidpf
decoder_alloc(voidpf opaque, uInt items, uInt size)
{
    struct zlib_decoder *d = opaque;
    size_t bytes = (size_t)items * size;
    bytes += -bytes % ALIGNMENT;
    if (bytes > sizeof(d->heap) - d->heap_len)
        return Z_NULL;
    char *p = d->heap + d->heap_len;
    d->heap_len += bytes;
    return p;
}

static void
decoder_free(voidpf opaque, voidpf p)
{
    (void)opaque; /* part of the decoder, goes with it */
    (void)p;
}

static int
decoder_window_bits(const struct codec_spec *spec)
{
    int bits = WINDOW_BITS_MAX;
    while (bits > WINDOW_BITS_MIN && (size_t)1 << bits > spec->max_memory)
        bits--;
    return spec->id == CODEC_GZIP ? bits + GZIP_WRAPPER : bits;
}

static struct codec *
decoder_make(const struct codec_spec *spec)
{
    struct zlib_decoder *d = mem_zalloc(sizeof(*d));
    if (d == NULL)
        return NULL;
    d->codec.ops = &codec_zlib_decoder;
    d->codec.spec = *spec;
    d->between = true;
    d->z.zalloc = decoder_alloc;
    d->z.zfree = decoder_free;
    d->z.opaque = d;
    struct codec *c = &d->codec;
    if (!codec_charge(c, sizeof(*d)) || inflateInit2(&d->z, decoder_window_bits(spec)) != Z_OK)
        codec_free(&c);
    return c;
}

static void
decoder_destroy(struct codec *c)
{
    struct zlib_decoder *d = CONTAINER_OF(c, struct zlib_decoder, codec);
    (void)inflateEnd(&d->z); /* its only error: there was nothing to end */
    mem_free(d);
}

static void
decoder_rewind(struct zlib_decoder *d)
{
    int rc = inflateReset(&d->z);
    CHECK(rc == Z_OK);
    d->between = true;
    d->more_out = false;
}

static void
decoder_reset(struct codec *c)
{
    struct zlib_decoder *d = CONTAINER_OF(c, struct zlib_decoder, codec);
    decoder_rewind(d);
    d->any = false;
}

/* `at`: the offset of the byte behind the one zlib stumbled over. */
static enum codec_result
decoder_broken(struct zlib_decoder *d, uint64_t at)
{
    struct codec *c = &d->codec;
    /* A header that is none is found in its first two bytes, in both formats. */
    if (d->any && d->z.total_in <= 2)
        return codec_bad(c, "bytes after the last frame that are no frame", at - d->z.total_in);
    /* zlib's own texts are static and good, but the same faults have the same names in all codecs
     * where users may look for them. */
    const char *why = d->z.msg != NULL ? d->z.msg : "broken data";
    if (strcmp(why, "incorrect data check") == 0)
        why = "checksum mismatch";
    return codec_bad(c, why, at);
}

static enum codec_result
decoder_run(struct codec *c, enum codec_op op, struct codec_io *io)
{
    struct zlib_decoder *d = CONTAINER_OF(c, struct zlib_decoder, codec);
    uint64_t in_end = c->in_total + io->in_len;
    while (io->in_len > 0 || d->more_out) {
        if (io->out_cap == 0)
            return CODEC_FULL;
        d->between = false;
        zlib_open(&d->z, io);
        int rc = inflate(&d->z, Z_NO_FLUSH);
        zlib_close(&d->z, io);
        switch (rc) {
        case Z_OK: d->more_out = io->out_cap == 0; break;
        case Z_BUF_ERROR: /* nothing more came out; and with input it would have moved */
            CHECK(d->z.avail_in == 0);
            d->more_out = false;
            break;
        case Z_STREAM_END:
            decoder_rewind(d);
            d->any = true;
            break;
        case Z_NEED_DICT: return codec_bad(c, "needs a dictionary", in_end - io->in_len);
        case Z_MEM_ERROR: return codec_bad(c, CODEC_OUT_OF_MEMORY, in_end - io->in_len);
        default: CHECK(rc == Z_DATA_ERROR); return decoder_broken(d, in_end - io->in_len);
        }
    }
    if (op != CODEC_FINISH)
        return CODEC_DRY;
    if (!d->between)
        return codec_bad(c, "input ends inside a frame", in_end);
    return d->any ? CODEC_DONE : codec_bad(c, "input ends before the first frame", in_end);
}

static bool
decoder_at_boundary(const struct codec *c)
{
    const struct zlib_decoder *d = (const void *)c; /* its first member */
    return d->between;
}

const struct codec_ops codec_zlib_decoder = {
    .make = decoder_make,
    .destroy = decoder_destroy,
    .reset = decoder_reset,
    .run = decoder_run,
    .at_boundary = decoder_at_boundary,
};

/*
 * Encoder
 */

struct zlib_encoder {
    struct codec codec;
    z_stream z;
    bool unflushed; /* input came since the last flush */
    bool finished;
    unsigned marker_at, marker_len; /* the part of marker[] that is not out yet */
    char marker[16];
};

/* All of it is asked for by deflateInit2(). */
static voidpf
encoder_alloc(voidpf opaque, uInt items, uInt size)
{
    struct zlib_encoder *e = opaque;
    size_t bytes = (size_t)items * size;
    if (!codec_charge(&e->codec, bytes))
        return Z_NULL;
    void *p = mem_alloc(bytes);
    if (p == NULL)
        codec_uncharge(&e->codec, bytes);
    return p;
}

static void
encoder_free(voidpf opaque, voidpf p)
{
    (void)opaque; /* only at the end of the codec, which gives back all that was charged */
    mem_free(p);
}

static int
encoder_level(int level)
{
    if (level == 0)
        return Z_DEFAULT_COMPRESSION;
    return level < LEVEL_MIN ? LEVEL_MIN : level > LEVEL_MAX ? LEVEL_MAX : level;
}

static struct codec *
encoder_make(const struct codec_spec *spec)
{
    struct zlib_encoder *e = mem_zalloc(sizeof(*e));
    if (e == NULL)
        return NULL;
    e->codec.ops = &codec_zlib_encoder;
    e->codec.spec = *spec;
    e->z.zalloc = encoder_alloc;
    e->z.zfree = encoder_free;
    e->z.opaque = e;
    int bits = spec->id == CODEC_GZIP ? WINDOW_BITS_MAX + GZIP_WRAPPER : WINDOW_BITS_MAX;
    struct codec *c = &e->codec;
    if (!codec_charge(c, sizeof(*e)) || deflateInit2(&e->z, encoder_level(spec->level), Z_DEFLATED,
                                            bits, MEM_LEVEL, Z_DEFAULT_STRATEGY) != Z_OK)
        codec_free(&c);
    return c;
}

static void
encoder_destroy(struct codec *c)
{
    struct zlib_encoder *e = CONTAINER_OF(c, struct zlib_encoder, codec);
    (void)deflateEnd(&e->z); /* complains of a stream that is not finished */
    mem_free(e);
}

static void
encoder_reset(struct codec *c)
{
    struct zlib_encoder *e = CONTAINER_OF(c, struct zlib_encoder, codec);
    int rc = deflateReset(&e->z);
    CHECK(rc == Z_OK);
    e->unflushed = e->finished = false;
    e->marker_at = e->marker_len = 0;
}

static int
encoder_step(struct zlib_encoder *e, int flush, struct codec_io *io)
{
    zlib_open(&e->z, io);
    int rc = deflate(&e->z, flush);
    zlib_close(&e->z, io);
    CHECK(rc == Z_OK || rc == Z_STREAM_END || rc == Z_BUF_ERROR); /* the last: nothing to do */
    return rc;
}

static enum codec_result
encoder_put_marker(struct zlib_encoder *e, struct codec_io *io)
{
    size_t n = size_min(e->marker_len, io->out_cap);
    if (n == 0)
        return CODEC_FULL;
    memcpy(io->out, e->marker + e->marker_at, n);
    io->out += n;
    io->out_cap -= n;
    e->marker_at += (unsigned)n;
    e->marker_len -= (unsigned)n;
    return e->marker_len == 0 ? CODEC_DRY : CODEC_FULL;
}

/*
 * zlib cannot tell a sync flush that just filled out from one that has more to say, and asked again
 * it writes another marker; with little room that never ends. So the data is driven out first, with
 * Z_BLOCK, which can be repeated; then the marker (at most 6 bytes) is made where there is room.
 */
static enum codec_result
encoder_flush(struct zlib_encoder *e, struct codec_io *io)
{
    do {
        if (io->out_cap == 0)
            return CODEC_FULL;
        (void)encoder_step(e, Z_BLOCK, io);
    } while (io->out_cap == 0);
    struct codec_io marker = {.out = e->marker, .out_cap = sizeof(e->marker)};
    int rc = encoder_step(e, Z_SYNC_FLUSH, &marker);
    CHECK(rc == Z_OK && marker.out_cap > 0);
    e->marker_at = 0;
    e->marker_len = (unsigned)(sizeof(e->marker) - marker.out_cap);
    e->unflushed = false;
    return encoder_put_marker(e, io);
}

static enum codec_result
encoder_finish(struct zlib_encoder *e, struct codec_io *io)
{
    while (!e->finished) {
        if (io->out_cap == 0)
            return CODEC_FULL;
        e->finished = encoder_step(e, Z_FINISH, io) == Z_STREAM_END;
    }
    return CODEC_DONE;
}

static enum codec_result
encoder_run(struct codec *c, enum codec_op op, struct codec_io *io)
{
    struct zlib_encoder *e = CONTAINER_OF(c, struct zlib_encoder, codec);
    CHECK(!e->finished || io->in_len == 0);
    if (e->marker_len > 0 && encoder_put_marker(e, io) == CODEC_FULL)
        return CODEC_FULL;
    while (io->in_len > 0) {
        if (io->out_cap == 0)
            return CODEC_FULL;
        e->unflushed = true;
        (void)encoder_step(e, Z_NO_FLUSH, io);
    }
    if (op == CODEC_FINISH)
        return encoder_finish(e, io);
    return op == CODEC_FLUSH && e->unflushed ? encoder_flush(e, io) : CODEC_DRY;
}

const struct codec_ops codec_zlib_encoder = {
    .make = encoder_make,
    .destroy = encoder_destroy,
    .reset = encoder_reset,
    .run = encoder_run,
};
