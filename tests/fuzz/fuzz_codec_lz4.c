/*
 * LZ4 frames, decoded as they come or encoded and decoded again (fuzz_codec.h). Promises checked
 * beside the common ones: a decoder never holds more than two blocks of at most max_memory and a
 * fixed rest; what it takes for a whole body the library alone takes too, and gives the same bytes.
 */
#include "fuzz_codec.h"

#include <lz4frame.h>

/* The decoder itself, the history of linked blocks, and a second block. */
#define OVERHEAD ((size_t)4500 << 10)

static void
check_library(const uint8_t *in, size_t len)
{
    struct codec_spec spec = {.id = CODEC_LZ4, .max_memory = (size_t)4 << 20};
    struct fuzz_codec f = {.c = codec_new(&spec),
        .piece = size_max(len, 1),
        .room = 65536,
        .memory_max = spec.max_memory + OVERHEAD};
    CHECK(f.c != NULL);
    if (fuzz_codec_feed(&f, in, len) == CODEC_DONE) {
        LZ4F_dctx *dctx = NULL;
        CHECK(!LZ4F_isError(LZ4F_createDecompressionContext(&dctx, LZ4F_VERSION)));
        char *out = malloc(f.out_len + 1);
        CHECK(out != NULL);
        size_t made = 0, rc = 0;
        for (size_t at = 0; at < len;) {
            size_t used = len - at, n = f.out_len - made;
            rc = LZ4F_decompress(dctx, out + made, &n, in + at, &used, NULL);
            CHECK(!LZ4F_isError(rc) && (used > 0 || n > 0));
            at += used;
            made += n;
        }
        CHECK(rc == 0 && made == f.out_len);
        CHECK(f.out_len == 0 || memcmp(out, f.out, f.out_len) == 0);
        free(out);
        (void)LZ4F_freeDecompressionContext(dctx);
    }
    fuzz_codec_end(&f);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct codec_spec spec = {.id = CODEC_LZ4};
    if (size > FUZZ_CODEC_HEAD_LEN && size <= 65536 && (data[0] & 1) != 0)
        check_library(data + FUZZ_CODEC_HEAD_LEN, size - FUZZ_CODEC_HEAD_LEN);
    return fuzz_codec(spec, OVERHEAD, data, size);
}
