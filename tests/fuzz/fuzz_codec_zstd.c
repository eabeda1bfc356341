/*
 * zstd frames, decoded as they come or encoded and decoded again (fuzz_codec.h). Promises checked
 * beside the common ones: a decoder never holds more than max_memory and a fixed rest; what it
 * takes for a whole body the library's one-shot decoder takes too, and gives the same bytes.
 */
#include "fuzz_codec.h"

#include <zstd.h>

#define OVERHEAD ((size_t)512 << 10) /* the decoder itself, zstd's context, and three blocks */

static void
check_one_shot(const uint8_t *in, size_t len)
{
    struct codec_spec spec = {.id = CODEC_ZSTD, .max_memory = (size_t)8 << 20};
    struct fuzz_codec f = {.c = codec_new(&spec),
        .piece = size_max(len, 1),
        .room = 65536,
        .memory_max = spec.max_memory + OVERHEAD};
    CHECK(f.c != NULL);
    if (fuzz_codec_feed(&f, in, len) == CODEC_DONE) {
        char *out = malloc(f.out_len + 1);
        CHECK(out != NULL);
        CHECK(ZSTD_decompress(out, f.out_len, in, len) == f.out_len);
        CHECK(f.out_len == 0 || memcmp(out, f.out, f.out_len) == 0);
        free(out);
    }
    fuzz_codec_end(&f);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct codec_spec spec = {.id = CODEC_ZSTD};
    if (size > FUZZ_CODEC_HEAD_LEN && size <= 65536 && (data[0] & 1) != 0)
        check_one_shot(data + FUZZ_CODEC_HEAD_LEN, size - FUZZ_CODEC_HEAD_LEN);
    return fuzz_codec(spec, OVERHEAD, data, size);
}
