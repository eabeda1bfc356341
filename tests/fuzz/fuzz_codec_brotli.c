/* The first byte: odd decodes the rest, even encodes it; see fuzz_codec.h for the others. */
#include "fuzz_codec.h"

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    return fuzz_codec((struct codec_spec){.id = CODEC_BROTLI}, 3u << 20, data, size);
}
