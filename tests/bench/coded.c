#include "coded.h"

#define ZLIB_CONST /* next_in does not write */
#include <lz4frame.h>
#include <strings.h>
#include <zlib.h>
#include <zstd.h>

#include "util.h"

enum { GZIP_WRAPPER = 16 + MAX_WBITS };

struct coded {
    enum coding coding;
    bool encode;
    bool begun; /* LZ4 encoders: the frame header is out */
    bool whole;
    ZSTD_CCtx *zc; /* owned, as the rest; one of them is there */
    ZSTD_DCtx *zd;
    LZ4F_cctx *lc;
    LZ4F_dctx *ld;
    z_stream *gz;
    LZ4F_preferences_t prefs;
};

static const char *const NAMES[] = {"identity", "zstd", "lz4", "gzip"};

const char *
coding_name(enum coding c)
{
    return NAMES[c];
}

enum coding
coding_by_name(const char *name, size_t n)
{
    for (int c = CODING_ZSTD; c <= CODING_GZIP; c++)
        if (strlen(NAMES[c]) == n && strncasecmp(name, NAMES[c], n) == 0)
            return (enum coding)c;
    return CODING_NONE;
}

enum coding
coding_of_path(const char *path)
{
    const char *dot = strrchr(path, '.');
    if (dot == NULL)
        return CODING_NONE;
    if (strcmp(dot, ".zst") == 0)
        return CODING_ZSTD;
    if (strcmp(dot, ".lz4") == 0)
        return CODING_LZ4;
    return strcmp(dot, ".gz") == 0 ? CODING_GZIP : CODING_NONE;
}

static void
gzip_init(struct coded *c, int level)
{
    c->gz = calloc(1, sizeof(*c->gz));
    if (c->gz == NULL)
        die("coded: out of memory");
    int r = c->encode ? deflateInit2(c->gz, level, Z_DEFLATED, GZIP_WRAPPER, 8, Z_DEFAULT_STRATEGY)
                      : inflateInit2(c->gz, GZIP_WRAPPER);
    if (r != Z_OK)
        die("coded: zlib: %d", r);
}

struct coded *
coded_new(enum coding coding, bool encode, int level)
{
    struct coded *c = calloc(1, sizeof(*c));
    bool ok = c != NULL;
    if (!ok)
        die("coded: out of memory");
    *c = (struct coded){.coding = coding, .encode = encode};
    switch (coding) {
    case CODING_NONE: break;
    case CODING_ZSTD:
        if (encode) {
            c->zc = ZSTD_createCCtx();
            ok = c->zc != NULL &&
                 !ZSTD_isError(ZSTD_CCtx_setParameter(c->zc, ZSTD_c_compressionLevel, level)) &&
                 !ZSTD_isError(ZSTD_CCtx_setParameter(c->zc, ZSTD_c_checksumFlag, 1));
        } else {
            c->zd = ZSTD_createDCtx();
            ok = c->zd != NULL;
        }
        break;
    case CODING_LZ4:
        c->prefs = (LZ4F_preferences_t){.compressionLevel = level,
            .frameInfo = {.blockSizeID = LZ4F_max64KB,
                .blockMode = LZ4F_blockLinked,
                .contentChecksumFlag = LZ4F_contentChecksumEnabled}};
        ok = !LZ4F_isError(encode ? LZ4F_createCompressionContext(&c->lc, LZ4F_VERSION)
                                  : LZ4F_createDecompressionContext(&c->ld, LZ4F_VERSION));
        break;
    case CODING_GZIP: gzip_init(c, level); break;
    }
    if (!ok)
        die("coded: no %s", coding_name(coding));
    return c;
}

void
coded_free(struct coded **cp)
{
    struct coded *c = *cp;
    *cp = NULL;
    if (c == NULL)
        return;
    ZSTD_freeCCtx(c->zc);
    ZSTD_freeDCtx(c->zd);
    LZ4F_freeCompressionContext(c->lc);
    LZ4F_freeDecompressionContext(c->ld);
    if (c->gz != NULL)
        (void)(c->encode ? deflateEnd(c->gz) : inflateEnd(c->gz));
    free(c->gz);
    free(c);
}

static void
moved(struct coded_io *io, size_t used, size_t made)
{
    io->in += used;
    io->in_len -= used;
    io->made = made;
}

static bool
zstd_step(struct coded *c, struct coded_io *io, ZSTD_EndDirective end)
{
    ZSTD_inBuffer in = {io->in, size_min(io->in_len, CODED_STEP), 0};
    ZSTD_outBuffer out = {io->out, CODED_STEP, 0};
    size_t left = c->encode ? ZSTD_compressStream2(c->zc, &out, &in, end)
                            : ZSTD_decompressStream(c->zd, &out, &in);
    if (ZSTD_isError(left))
        return false;
    moved(io, in.pos, out.pos);
    c->whole = left == 0;
    return true;
}

static bool
lz4_encode(struct coded *c, struct coded_io *io, bool end)
{
    size_t at = 0, n = size_min(io->in_len, CODED_STEP);
    if (!c->begun)
        at = LZ4F_compressBegin(c->lc, io->out, CODED_OUT_MIN, &c->prefs);
    c->begun = true;
    size_t r = end ? LZ4F_compressEnd(c->lc, io->out + at, CODED_OUT_MIN - at, NULL)
                   : LZ4F_compressUpdate(c->lc, io->out + at, CODED_OUT_MIN - at, io->in, n, NULL);
    if (LZ4F_isError(at) || LZ4F_isError(r))
        die("coded: lz4: %s", LZ4F_getErrorName(r));
    moved(io, end ? 0 : n, at + r);
    return true;
}

static bool
lz4_decode(struct coded *c, struct coded_io *io)
{
    size_t in = size_min(io->in_len, CODED_STEP), out = CODED_STEP;
    size_t r = LZ4F_decompress(c->ld, io->out, &out, io->in, &in, NULL);
    if (LZ4F_isError(r))
        return false;
    moved(io, in, out);
    c->whole = r == 0;
    return true;
}

static bool
gzip_step(struct coded *c, struct coded_io *io, int flush)
{
    if (!c->encode && c->whole && io->in_len > 0 && inflateReset(c->gz) != Z_OK)
        return false;
    size_t n = size_min(io->in_len, CODED_STEP);
    c->gz->next_in = (const Bytef *)io->in;
    c->gz->avail_in = (uInt)n;
    c->gz->next_out = (Bytef *)io->out;
    c->gz->avail_out = CODED_STEP;
    int r = c->encode ? deflate(c->gz, flush) : inflate(c->gz, flush);
    if (r != Z_OK && r != Z_STREAM_END && r != Z_BUF_ERROR)
        return false;
    c->whole = r == Z_STREAM_END;
    moved(io, n - c->gz->avail_in, CODED_STEP - c->gz->avail_out);
    return true;
}

bool
coded_step(struct coded *c, struct coded_io *io)
{
    size_t n;
    switch (c->coding) {
    case CODING_NONE: break;
    case CODING_ZSTD: return zstd_step(c, io, ZSTD_e_continue);
    case CODING_LZ4: return c->encode ? lz4_encode(c, io, false) : lz4_decode(c, io);
    case CODING_GZIP: return gzip_step(c, io, Z_NO_FLUSH);
    }
    n = size_min(io->in_len, CODED_STEP);
    memcpy(io->out, io->in, n);
    moved(io, n, n);
    c->whole = true;
    return true;
}

bool
coded_finish(struct coded *c, struct coded_io *io)
{
    bool ok = true;
    io->made = 0;
    switch (c->coding) {
    case CODING_NONE: c->whole = true; break;
    case CODING_ZSTD: ok = zstd_step(c, io, ZSTD_e_end); break;
    case CODING_LZ4: c->whole = lz4_encode(c, io, true); break;
    case CODING_GZIP: ok = gzip_step(c, io, Z_FINISH); break;
    }
    if (!ok)
        die("coded: cannot end a %s stream", coding_name(c->coding));
    return c->whole;
}

bool
coded_whole(const struct coded *c)
{
    return c->whole;
}

size_t
coding_once(enum coding coding, const void *in, size_t n, void *out, size_t cap)
{
    static char step[CODED_OUT_MIN];
    struct coded *c = coded_new(coding, true, 1);
    struct coded_io io = {.in = in, .in_len = n, .out = step};
    char *to = out;
    size_t at = 0;
    bool done = false;
    while (!done) {
        if (io.in_len == 0)
            done = coded_finish(c, &io);
        else if (!coded_step(c, &io))
            die("coded: %s", coding_name(coding));
        if (io.made > cap - at)
            die("coded: a body too large");
        memcpy(to + at, step, io.made);
        at += io.made;
    }
    coded_free(&c);
    return at;
}
