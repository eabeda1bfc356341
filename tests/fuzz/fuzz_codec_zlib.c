/*
 * The first byte: odd decodes the rest, even encodes it; its second bit chooses gzip or deflate.
 * See fuzz_codec.h for the other bytes that choose.
 */
#include "fuzz_codec.h"

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    bool gzip = size > 0 && (data[0] & 2) != 0;
    struct codec_spec spec = {.id = gzip ? CODEC_GZIP : CODEC_DEFLATE};
    return fuzz_codec(spec, 64u << 10, data, size);
}
