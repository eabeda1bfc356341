#include "codec/codec.h"

#include "codec/codec_impl.h"

static const struct {
    const char *name;
    const struct codec_ops *encoder, *decoder;
} codecs[CODEC_COUNT] = {
    [CODEC_IDENTITY] = {"identity", NULL, NULL},
    [CODEC_GZIP] = {"gzip", &codec_zlib_encoder, &codec_zlib_decoder},
    [CODEC_DEFLATE] = {"deflate", &codec_zlib_encoder, &codec_zlib_decoder},
    [CODEC_ZSTD] = {"zstd", &codec_zstd_encoder, &codec_zstd_decoder},
    [CODEC_LZ4] = {"lz4", &codec_lz4_encoder, &codec_lz4_decoder},
    [CODEC_BROTLI] = {"br", &codec_brotli_encoder, &codec_brotli_decoder},
    [CODEC_BLOCKS] = {"blocks", &codec_blocks_encoder, &codec_blocks_decoder},
};

const char *
codec_name(enum codec_id id)
{
    CHECK(id < CODEC_COUNT);
    return codecs[id].name;
}

enum codec_id
codec_by_name(struct str name)
{
    for (enum codec_id id = CODEC_GZIP; id < CODEC_BLOCKS; id++)
        if (str_eq_nocase(name, str_of(codecs[id].name)))
            return id;
    return CODEC_COUNT;
}

struct codec *
codec_new(const struct codec_spec *spec)
{
    CHECK(spec->id > CODEC_IDENTITY && spec->id < CODEC_COUNT);
    const struct codec_ops *ops =
        spec->encode ? codecs[spec->id].encoder : codecs[spec->id].decoder;
    return ops->make(spec);
}

void
codec_free(struct codec **cp)
{
    struct codec *c = *cp;
    if (c == NULL)
        return;
    *cp = NULL;
    size_t charged = c->charged;
    c->ops->destroy(c);
    mem_give(charged);
}

void
codec_reset(struct codec *c)
{
    c->in_total = c->bad_at = 0;
    c->why = NULL;
    c->ops->reset(c);
}

enum codec_result
codec_run(struct codec *c, enum codec_op op, struct codec_io *io)
{
    if (c->why != NULL)
        return CODEC_BAD;
    size_t had = io->in_len;
    enum codec_result r = c->ops->run(c, op, io);
    CHECK(io->in_len <= had);
    CHECK(r != CODEC_DONE || op == CODEC_FINISH);
    c->in_total += had - io->in_len;
    return r;
}

bool
codec_at_boundary(const struct codec *c)
{
    return c->ops->at_boundary(c);
}

const char *
codec_why(const struct codec *c)
{
    return c->why;
}

uint64_t
codec_offset(const struct codec *c)
{
    return c->bad_at;
}

size_t
codec_memory(const struct codec *c)
{
    return c->charged;
}

const struct codec_spec *
codec_spec_of(const struct codec *c)
{
    return &c->spec;
}

bool
codec_charge(struct codec *c, size_t bytes)
{
    if (!mem_take_long(bytes))
        return false;
    c->charged += bytes;
    return true;
}

void
codec_uncharge(struct codec *c, size_t bytes)
{
    CHECK(c->charged >= bytes);
    c->charged -= bytes;
    mem_give(bytes);
}

enum codec_result
codec_bad(struct codec *c, const char *why, uint64_t offset)
{
    c->why = why;
    c->bad_at = offset;
    return CODEC_BAD;
}
