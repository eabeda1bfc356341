#include "codec/codec_impl.h"

#include <lz4.h>
#include <lz4hc.h>
/* For contexts in memory of ours, whose size is known, and charged, before they exist. */
#define ZSTD_STATIC_LINKING_ONLY
#include <zstd.h>

#include "codec/city.h"

/*
 * A block: 16 bytes of checksum over all that follows; one byte of method; the size of all that
 * follows the checksum, then the size of the plain bytes, both 32 bits and little-endian; the
 * payload.
 */
#define SUM_LEN   16u
#define SIZES_LEN 9u /* method and sizes: the checksum and the first size cover them too */
#define HEAD_LEN  (SUM_LEN + SIZES_LEN)
/* ClickHouse's own limit for either size. It keeps LZ4's int happy, too. */
#define BLOCK_MAX ((size_t)1 << 30)
/* Plain bytes of a block we make: as many as ClickHouse puts in one. */
#define PLAIN_MAX ((size_t)1 << 20)
#define PLAIN_MIN ((size_t)16 << 10) /* the least room to collect them in */

static uint32_t
load_u32(const unsigned char *p)
{
    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static void
store_u32(unsigned char *p, size_t v)
{
    for (int i = 0; i < 4; i++)
        p[i] = (unsigned char)(v >> 8 * i);
}

/* The most that n plain bytes can become; n <= BLOCK_MAX. */
static size_t
payload_bound(enum codec_block_method method, size_t n)
{
    if (method == BLOCK_LZ4)
        return (size_t)LZ4_compressBound((int)n);
    return method == BLOCK_ZSTD ? ZSTD_compressBound(n) : n;
}

static void
io_take(struct codec_io *io, void *to, size_t n)
{
    memcpy(to, io->in, n);
    io->in += n;
    io->in_len -= n;
}

static void
io_skip_out(struct codec_io *io, size_t n)
{
    io->out += n;
    io->out_cap -= n;
}

struct room { /* memory of a codec, charged */
    char *p;  /* owns */
    size_t cap;
};

static void
room_drop(struct codec *c, struct room *r)
{
    mem_free(r->p);
    codec_uncharge(c, r->cap);
    *r = (struct room){0};
}

/* Makes room for cap bytes, if there is less, and keeps the first `keep`. false: r is as it was. */
MUST_USE static bool
room_grow(struct codec *c, struct room *r, size_t cap, size_t keep)
{
    if (cap <= r->cap)
        return true;
    if (!codec_charge(c, cap))
        return false;
    char *p = mem_alloc(cap);
    if (p == NULL) {
        codec_uncharge(c, cap);
        return false;
    }
    if (keep > 0)
        memcpy(p, r->p, keep);
    room_drop(c, r);
    *r = (struct room){p, cap};
    return true;
}

struct span {      /* decoded or encoded bytes that wait for room in out */
    const char *p; /* borrows, from a room */
    size_t len;
};

static void
span_give(struct span *s, struct codec_io *io)
{
    size_t n = size_min(s->len, io->out_cap);
    if (n == 0)
        return;
    memcpy(io->out, s->p, n);
    io_skip_out(io, n);
    s->p += n;
    s->len -= n;
}

/* ---- decoder */
struct decoder {
    struct codec c;
    uint64_t at; /* where in the input this block begins */
    unsigned char head[HEAD_LEN];
    size_t head_len; /* of it, there; whole: the three below are good */
    enum codec_block_method method;
    size_t payload_len, plain_len;
    size_t staged_len;        /* of what the checksum covers */
    struct room stage, plain; /* such a block before it is whole; what it decodes to */
    struct room zstd;         /* memory of dctx */
    ZSTD_DCtx *dctx;
    struct span ready;
};

static struct decoder *
decoder_of(struct codec *c)
{
    return CONTAINER_OF(c, struct decoder, c);
}

/* A decoder that waits for memory holds none, so that those who have theirs can go on, finish, and
 * give it back. */
static void
decoder_drop_rooms(struct decoder *d)
{
    room_drop(&d->c, &d->stage);
    room_drop(&d->c, &d->plain);
    room_drop(&d->c, &d->zstd);
    d->dctx = NULL; /* it stood in its room and owns nothing else */
}

static struct codec *
decoder_make(const struct codec_spec *spec)
{
    struct decoder *d = mem_zalloc(sizeof(*d));
    if (d == NULL)
        return NULL;
    d->c = (struct codec){.ops = &codec_blocks_decoder, .spec = *spec};
    if (!codec_charge(&d->c, sizeof(*d))) {
        mem_free(d);
        return NULL;
    }
    return &d->c;
}

static void
decoder_destroy(struct codec *c)
{
    struct decoder *d = decoder_of(c);
    mem_free(d->stage.p);
    mem_free(d->plain.p);
    mem_free(d->zstd.p);
    mem_free(d);
}

static void
decoder_reset(struct codec *c)
{
    struct decoder *d = decoder_of(c);
    d->at = 0;
    d->head_len = d->staged_len = 0;
    d->ready = (struct span){0};
}

static bool
decoder_at_boundary(const struct codec *c)
{
    return ((const struct decoder *)c)->head_len == 0;
}

/* Judges the sizes of a head before anything is allocated for them. NULL: fine. */
static const char *
head_why(const struct decoder *d)
{
    if (d->plain_len == 0) /* ClickHouse makes none and takes none */
        return "block without plain bytes";
    if (d->payload_len > BLOCK_MAX || d->plain_len > BLOCK_MAX)
        return "block larger than allowed";
    /* The second half is what the budget could never grant, however long we waited. */
    size_t rooms = SIZES_LEN + d->payload_len + d->plain_len;
    size_t own = sizeof(*d) + (d->method == BLOCK_ZSTD ? ZSTD_estimateDCtxSize() : 0);
    if (rooms > d->c.spec.max_memory || rooms + own > mem_long_limit())
        return "block larger than allowed";
    if (d->method == BLOCK_NONE ? d->payload_len != d->plain_len
                                : d->payload_len > payload_bound(d->method, d->plain_len))
        return "sizes of the block do not fit each other";
    return NULL;
}

static const char *
head_parse(struct decoder *d, const void *head)
{
    const unsigned char *p = (const unsigned char *)head + SUM_LEN;
    switch (p[0]) {
    case BLOCK_LZ4:
    case BLOCK_ZSTD:
    case BLOCK_NONE: d->method = (enum codec_block_method)p[0]; break;
    default: return "block method is not LZ4, ZSTD or NONE";
    }
    uint32_t covered = load_u32(p + 1);
    if (covered < SIZES_LEN)
        return "size of the block is too small";
    d->payload_len = covered - SIZES_LEN;
    d->plain_len = load_u32(p + 5);
    return head_why(d);
}

/* Room for the block whose head was read: all of it or, on false, none. */
static bool
decoder_reserve(struct decoder *d, size_t stage, size_t plain)
{
    if (d->stage.cap < stage) /* empty now, so the old ones need not stand beside the new */
        room_drop(&d->c, &d->stage);
    if (d->plain.cap < plain)
        room_drop(&d->c, &d->plain);
    bool ok = room_grow(&d->c, &d->stage, stage, 0) && room_grow(&d->c, &d->plain, plain, 0);
    if (ok && d->method == BLOCK_ZSTD && d->dctx == NULL) {
        ok = room_grow(&d->c, &d->zstd, ZSTD_estimateDCtxSize(), 0);
        if (ok)
            d->dctx = ZSTD_initStaticDCtx(d->zstd.p, d->zstd.cap);
        CHECK(!ok || d->dctx != NULL);
    }
    if (!ok)
        decoder_drop_rooms(d);
    return ok;
}

/* Exactly plain_len bytes to `to`. */
static bool
decompress(struct decoder *d, const char *payload, char *to)
{
    if (d->method == BLOCK_ZSTD)
        return ZSTD_decompressDCtx(d->dctx, to, d->plain_len, payload, d->payload_len) ==
               d->plain_len;
    int n = LZ4_decompress_safe(payload, to, (int)d->payload_len, (int)d->plain_len);
    return n >= 0 && (size_t)n == d->plain_len;
}

/* The block is whole: `covered` is all of it behind the checksum `sum`. CODEC_DRY: decoded. */
static enum codec_result
decode_block(struct decoder *d, struct codec_io *io, const void *sum, const char *covered)
{
    unsigned char want[SUM_LEN];
    city_hash128(covered, SIZES_LEN + d->payload_len, want);
    if (memcmp(sum, want, SUM_LEN) != 0)
        return codec_bad(&d->c, "checksum mismatch", d->at);
    const char *payload = covered + SIZES_LEN;
    if (d->method == BLOCK_NONE) {
        d->ready = (struct span){payload, d->plain_len};
        span_give(&d->ready, io);
    } else {
        bool straight = io->out_cap >= d->plain_len;
        char *to = straight ? io->out : d->plain.p;
        if (!decompress(d, payload, to))
            return codec_bad(&d->c, "block does not decompress to its size", d->at);
        if (straight)
            io_skip_out(io, d->plain_len);
        else
            d->ready = (struct span){to, d->plain_len};
    }
    d->at += HEAD_LEN + d->payload_len;
    d->head_len = d->staged_len = 0;
    return CODEC_DRY;
}

/* Some of the input: a whole block where it lies, or a part of one into head and stage. CODEC_DRY:
 * go on. */
static enum codec_result
decoder_take(struct decoder *d, struct codec_io *io)
{
    const char *why = NULL;
    if (d->head_len == 0 && io->in_len >= HEAD_LEN) {
        why = head_parse(d, io->in);
        if (why != NULL)
            return codec_bad(&d->c, why, d->at);
        size_t block_len = HEAD_LEN + d->payload_len;
        bool fits = io->out_cap >= d->plain_len;
        /* Not if plain bytes would have to wait in the input, which is only borrowed. */
        if (io->in_len >= block_len && (fits || d->method != BLOCK_NONE)) {
            if (!decoder_reserve(d, 0, fits ? 0 : d->plain_len))
                return CODEC_NO_MEMORY;
            const char *block = io->in;
            io->in += block_len;
            io->in_len -= block_len;
            return decode_block(d, io, block, block + SUM_LEN);
        }
    }
    if (d->head_len < HEAD_LEN) {
        size_t n = size_min(io->in_len, HEAD_LEN - d->head_len);
        io_take(io, d->head + d->head_len, n);
        d->head_len += n;
        if (d->head_len < HEAD_LEN)
            return CODEC_DRY;
        why = head_parse(d, d->head);
        if (why != NULL)
            return codec_bad(&d->c, why, d->at);
    }
    size_t covered_len = SIZES_LEN + d->payload_len;
    if (d->staged_len == 0) {
        /* The plain bytes' room too, although out might turn out large enough: a decoder that held
         * half a block and waited for the other half of its memory could wait for its own kind. */
        if (!decoder_reserve(d, covered_len, d->method == BLOCK_NONE ? 0 : d->plain_len))
            return CODEC_NO_MEMORY;
        memcpy(d->stage.p, d->head + SUM_LEN, SIZES_LEN);
        d->staged_len = SIZES_LEN;
    }
    size_t n = size_min(io->in_len, covered_len - d->staged_len);
    io_take(io, d->stage.p + d->staged_len, n);
    d->staged_len += n;
    return d->staged_len < covered_len ? CODEC_DRY : decode_block(d, io, d->head, d->stage.p);
}

static enum codec_result
decoder_run(struct codec *c, enum codec_op op, struct codec_io *io)
{
    struct decoder *d = decoder_of(c);
    uint64_t in_end = c->in_total + io->in_len;
    for (;;) {
        span_give(&d->ready, io);
        if (d->ready.len > 0)
            return CODEC_FULL;
        /* A whole head waits only for memory: it goes on without input. */
        if (io->in_len == 0 && (d->head_len < HEAD_LEN || d->staged_len > 0))
            break;
        enum codec_result r = decoder_take(d, io);
        if (r != CODEC_DRY)
            return r;
    }
    if (op != CODEC_FINISH)
        return CODEC_DRY;
    return d->head_len == 0 ? CODEC_DONE : codec_bad(c, "input ends inside a block", in_end);
}

const struct codec_ops codec_blocks_decoder = {
    .make = decoder_make,
    .destroy = decoder_destroy,
    .reset = decoder_reset,
    .run = decoder_run,
    .at_boundary = decoder_at_boundary,
};

/* ---- encoder */
struct encoder {
    struct codec c;
    int level;         /* of the method's own scale, within its limits */
    struct room state; /* LZ4's tables, or the memory of cctx */
    ZSTD_CCtx *cctx;
    size_t plain_len;
    struct room plain; /* collects a block; unused for NONE, which collects in block */
    struct room block; /* encoded: always large enough for what is collected */
    struct span ready;
};

static struct encoder *
encoder_of(struct codec *c)
{
    return CONTAINER_OF(c, struct encoder, c);
}

static bool
lz4_high(const struct encoder *e)
{
    return e->level >= LZ4HC_CLEVEL_MIN;
}

/* ZSTD_compressCCtx() chooses its parameters by the size of each input, in these steps. */
static size_t
zstd_state_size(int level)
{
    static const size_t steps[] = {
        (size_t)16 << 10, (size_t)128 << 10, (size_t)256 << 10, PLAIN_MAX};
    size_t most = 0;
    for (size_t i = 0; i < COUNT_OF(steps); i++)
        most =
            size_max(most, ZSTD_estimateCCtxSize_usingCParams(ZSTD_getCParams(level, steps[i], 0)));
    return most;
}

static bool
encoder_make_state(struct encoder *e)
{
    switch (e->c.spec.method) {
    case BLOCK_NONE: return true;
    case BLOCK_LZ4: /* clamps levels itself */
        return room_grow(
            &e->c, &e->state, (size_t)(lz4_high(e) ? LZ4_sizeofStateHC() : LZ4_sizeofState()), 0);
    case BLOCK_ZSTD: break;
    }
    if (e->level == 0)
        e->level = ZSTD_defaultCLevel();
    if (e->level > ZSTD_maxCLevel())
        e->level = ZSTD_maxCLevel();
    if (e->level < ZSTD_minCLevel())
        e->level = ZSTD_minCLevel();
    if (!room_grow(&e->c, &e->state, zstd_state_size(e->level), 0))
        return false;
    e->cctx = ZSTD_initStaticCCtx(e->state.p, e->state.cap);
    CHECK(e->cctx != NULL);
    return true;
}

/* Room to collect n plain bytes, and for the block that they become, so that an encoder that holds
 * bytes never waits for memory. */
static bool
encoder_reserve(struct encoder *e, size_t n)
{
    bool none = e->c.spec.method == BLOCK_NONE;
    size_t block = HEAD_LEN + payload_bound(e->c.spec.method, n);
    size_t keep = none && e->plain_len > 0 ? HEAD_LEN + e->plain_len : 0;
    return room_grow(&e->c, &e->block, block, keep) &&
           (none || room_grow(&e->c, &e->plain, n, e->plain_len));
}

static struct codec *
encoder_make(const struct codec_spec *spec)
{
    CHECK(spec->method == BLOCK_NONE || spec->method == BLOCK_LZ4 || spec->method == BLOCK_ZSTD);
    struct encoder *e = mem_zalloc(sizeof(*e));
    if (e == NULL)
        return NULL;
    e->c = (struct codec){.ops = &codec_blocks_encoder, .spec = *spec};
    e->level = spec->level;
    if (!codec_charge(&e->c, sizeof(*e))) {
        mem_free(e);
        return NULL;
    }
    /* The least rooms too: a stream that holds a window must not wait for them. */
    if (!encoder_make_state(e) || !encoder_reserve(e, PLAIN_MIN)) {
        struct codec *c = &e->c;
        codec_free(&c);
        return NULL;
    }
    return &e->c;
}

static void
encoder_destroy(struct codec *c)
{
    struct encoder *e = encoder_of(c);
    mem_free(e->state.p);
    mem_free(e->plain.p);
    mem_free(e->block.p);
    mem_free(e);
}

static void
encoder_reset(struct codec *c)
{
    struct encoder *e = encoder_of(c);
    e->plain_len = 0;
    e->ready = (struct span){0};
}

/* Where plain bytes are collected, and how many have room. A NONE block is collected where it will
 * stand. */
static char *
collected(const struct encoder *e)
{
    return e->c.spec.method == BLOCK_NONE ? e->block.p + HEAD_LEN : e->plain.p;
}

static size_t
collect_cap(const struct encoder *e)
{
    if (e->c.spec.method != BLOCK_NONE)
        return e->plain.cap;
    return e->block.cap < HEAD_LEN ? 0 : size_min(e->block.cap - HEAD_LEN, PLAIN_MAX);
}

/* The payload's size. There is room for payload_bound(), so it cannot fail. */
static size_t
compress(struct encoder *e, const char *plain, size_t n, char *to, size_t cap)
{
    int level = e->level, len = 0;
    switch (e->c.spec.method) {
    case BLOCK_NONE:
        if (plain != to)
            memcpy(to, plain, n);
        return n;
    case BLOCK_LZ4:
        len = lz4_high(e)
                  ? LZ4_compress_HC_extStateHC(e->state.p, plain, to, (int)n, (int)cap, level)
                  : LZ4_compress_fast_extState(
                        e->state.p, plain, to, (int)n, (int)cap, level < 0 ? -level : 1);
        CHECK(len > 0);
        return (size_t)len;
    case BLOCK_ZSTD: break;
    }
    size_t payload = ZSTD_compressCCtx(e->cctx, to, cap, plain, n, level);
    CHECK(!ZSTD_isError(payload));
    return payload;
}

/* Makes a block of n plain bytes: straight into out if it surely fits, else into `block`, where the
 * caller has made room. */
static void
encode_block(struct encoder *e, struct codec_io *io, const char *plain, size_t n)
{
    size_t bound = HEAD_LEN + payload_bound(e->c.spec.method, n);
    bool straight = io->out_cap >= bound;
    char *to = straight ? io->out : e->block.p;
    size_t payload_len = compress(e, plain, n, to + HEAD_LEN, bound - HEAD_LEN);
    unsigned char *head = (unsigned char *)to;
    head[SUM_LEN] = (unsigned char)e->c.spec.method;
    store_u32(head + SUM_LEN + 1, SIZES_LEN + payload_len);
    store_u32(head + SUM_LEN + 5, n);
    city_hash128(head + SUM_LEN, SIZES_LEN + payload_len, head);
    if (straight)
        io_skip_out(io, HEAD_LEN + payload_len);
    else
        e->ready = (struct span){to, HEAD_LEN + payload_len};
}

static void
encode_collected(struct encoder *e, struct codec_io *io)
{
    encode_block(e, io, collected(e), e->plain_len);
    e->plain_len = 0;
}

/* A block straight from the input; false: no room for it. */
static bool
encode_input(struct encoder *e, struct codec_io *io)
{
    size_t n = size_min(io->in_len, PLAIN_MAX);
    size_t bound = HEAD_LEN + payload_bound(e->c.spec.method, n);
    if (io->out_cap < bound && !room_grow(&e->c, &e->block, bound, 0))
        return false;
    encode_block(e, io, io->in, n);
    io->in += n;
    io->in_len -= n;
    return true;
}

/* Input into the block that is being collected. */
static void
collect(struct encoder *e, struct codec_io *io)
{
    size_t want = size_min(e->plain_len + io->in_len, PLAIN_MAX);
    if (collect_cap(e) < want) {
        size_t room = PLAIN_MIN;
        while (room < want) /* in steps: most bodies are small, and growing copies */
            room *= 4;
        (void)!encoder_reserve(e, room); /* else with less: there is always PLAIN_MIN */
    }
    size_t n = size_min(io->in_len, collect_cap(e) - e->plain_len);
    io_take(io, collected(e) + e->plain_len, n);
    e->plain_len += n;
    /* Input is left: it could not grow. A short block costs little, to wait with bytes held more.
     */
    if (e->plain_len == PLAIN_MAX || io->in_len > 0)
        encode_collected(e, io);
}

static enum codec_result
encoder_run(struct codec *c, enum codec_op op, struct codec_io *io)
{
    struct encoder *e = encoder_of(c);
    for (;;) {
        span_give(&e->ready, io);
        if (e->ready.len > 0)
            return CODEC_FULL;
        bool whole = e->plain_len == 0 && (op != CODEC_RUN || io->in_len >= PLAIN_MAX);
        if (io->in_len > 0) {
            if (!(whole && encode_input(e, io)))
                collect(e, io);
        } else if (op != CODEC_RUN && e->plain_len > 0) {
            encode_collected(e, io);
        } else {
            return op == CODEC_FINISH ? CODEC_DONE : CODEC_DRY;
        }
    }
}

const struct codec_ops codec_blocks_encoder = {
    .make = encoder_make,
    .destroy = encoder_destroy,
    .reset = encoder_reset,
    .run = encoder_run,
};
