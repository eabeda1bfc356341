#ifndef CHMUX_CODEC_CODEC_H
#define CHMUX_CODEC_CODEC_H
/*
 * codec: compression and decompression of streams, sans-I/O. Feed bytes, get at most as many as
 * there is room for, finish.
 *
 * Streams    A decoder takes several frames back to back as one body (gzip members, zlib streams,
 *            zstd frames and skippable frames, LZ4 frames and skippable frames, ClickHouse blocks;
 *            brotli has no second stream: bytes behind its end are an error). Input that ends
 *            inside a frame, or before the first one (ClickHouse blocks: none is fine), a bad
 *            checksum, a bad size are errors. An empty output is not the end.
 * Bound      Memory is taken from the budget (mem_take_long) before it is allocated. A frame whose
 *            window or block needs more than max_memory is an error; one that cannot have it now
 *            makes the codec say CODEC_NO_MEMORY, and nothing is lost. An output step is as small
 *            as the caller likes: out_cap >= 1 makes progress.
 * Ownership  A codec is owned by who made it. It borrows in and out for one call.
 * Threads    One thread at a time; any.
 */
#include "base/mem.h"
#include "base/str.h"

enum codec_id {
    CODEC_IDENTITY, /* no codec: never made, but plans name it */
    CODEC_GZIP,
    CODEC_DEFLATE, /* zlib-wrapped, as ClickHouse and RFC 9110 have it */
    CODEC_ZSTD,
    CODEC_LZ4, /* LZ4 frame */
    CODEC_BROTLI,
    CODEC_BLOCKS, /* ClickHouse's compressed blocks: compress=1, decompress=1 */
    CODEC_COUNT,
};

/* As in Content-Encoding: "gzip", "deflate", "zstd", "lz4", "br"; "identity"; "blocks". Static. */
const char *codec_name(enum codec_id id);
/* A content coding by its name, ASCII case-insensitive; CODEC_COUNT: none of ours ("identity" and
 * "blocks" are none, "x-gzip" is none: ClickHouse knows no such name). */
enum codec_id codec_by_name(struct str name);

/* Methods of ClickHouse blocks, by their byte on the wire. */
enum codec_block_method { BLOCK_NONE = 0x02, BLOCK_LZ4 = 0x82, BLOCK_ZSTD = 0x90 };

struct codec_spec {
    enum codec_id id;
    bool encode;
    int level;                      /* encoders; the library's own scale, clamped; 0: its default */
    enum codec_block_method method; /* encoders of CODEC_BLOCKS */
    size_t max_memory;              /* decoders: the most one frame's window or block may take */
};

enum codec_op {
    CODEC_RUN,    /* take input, give what comes */
    CODEC_FLUSH,  /* and all that was put in so far can be decoded from what came out */
    CODEC_FINISH, /* the input ends here */
};

enum codec_result {
    CODEC_DRY,       /* all input is used and the op is done; more input, or another op */
    CODEC_FULL,      /* no room left in out: call again with the same op and the rest */
    CODEC_DONE,      /* CODEC_FINISH only: the stream is complete and all of it is out */
    CODEC_NO_MEMORY, /* the budget has not enough now: call again later with the same op and rest */
    CODEC_BAD,       /* codec_why(), codec_offset(); repeats */
};

struct codec_io { /* the call advances all four past what it used */
    const char *in;
    size_t in_len;
    char *out;
    size_t out_cap;
};

struct codec;

/* NULL: no memory, or the budget has none. */
MUST_USE struct codec *codec_new(const struct codec_spec *spec);
/* Nulls *cp; NULL is fine. */
void codec_free(struct codec **cp);
/* As new, for another stream of the same spec; keeps its memory. */
void codec_reset(struct codec *c);
enum codec_result codec_run(struct codec *c, enum codec_op op, struct codec_io *io);
/* Decoders: does the input so far end between two frames? */
bool codec_at_boundary(const struct codec *c);
/* The reason when the machine, not the input, is at fault. */
#define CODEC_OUT_OF_MEMORY "out of memory"
/* After CODEC_BAD: static text fit for a user ("checksum mismatch", "input ends inside a frame"),
 * and the offset in the input (all of it, since new or reset) of the broken frame or byte; where
 * the input ends too early, of its end. */
const char *codec_why(const struct codec *c);
uint64_t codec_offset(const struct codec *c);
/* Bytes of the budget it holds. */
size_t codec_memory(const struct codec *c);
const struct codec_spec *codec_spec_of(const struct codec *c);
#endif
