#ifndef CHMUX_CODEC_CODEC_IMPL_H
#define CHMUX_CODEC_CODEC_IMPL_H
/*
 * codec_impl: what codec.c and the codecs share, and nobody else.
 *
 * Each codec is one struct that begins with a struct codec, and one table of functions. codec.c
 * calls them and keeps what is common: spec, offsets, the reason, the budget.
 */
#include "codec/codec.h"

struct codec_ops {
    /* Allocates the codec (mem_zalloc of its own struct, charged with codec_charge()) for the spec;
     * NULL: no memory. */
    struct codec *(*make)(const struct codec_spec *spec);
    void (*destroy)(struct codec *c); /* frees all but what codec_charge() counted */
    void (*reset)(struct codec *c);
    /* As codec_run(); on CODEC_BAD it has called codec_bad(). */
    enum codec_result (*run)(struct codec *c, enum codec_op op, struct codec_io *io);
    bool (*at_boundary)(const struct codec *c); /* NULL for encoders */
};

struct codec {
    const struct codec_ops *ops;
    struct codec_spec spec;
    uint64_t in_total; /* input bytes of finished calls; kept by codec_run() */
    uint64_t bad_at;
    const char *why; /* not NULL: broken */
    size_t charged;  /* of the budget */
};

/* Takes bytes more of the budget for c; false: not now. */
MUST_USE bool codec_charge(struct codec *c, size_t bytes);
void codec_uncharge(struct codec *c, size_t bytes);
/* Marks c broken; offset counts from the stream's start. Returns CODEC_BAD. */
enum codec_result codec_bad(struct codec *c, const char *why, uint64_t offset);

/* By id; encoder and decoder each. */
extern const struct codec_ops codec_zlib_encoder, codec_zlib_decoder; /* gzip and deflate */
extern const struct codec_ops codec_brotli_encoder, codec_brotli_decoder;
extern const struct codec_ops codec_zstd_encoder, codec_zstd_decoder;
extern const struct codec_ops codec_lz4_encoder, codec_lz4_decoder;
extern const struct codec_ops codec_blocks_encoder, codec_blocks_decoder;
#endif
