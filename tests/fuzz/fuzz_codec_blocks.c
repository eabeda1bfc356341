/*
 * ClickHouse blocks, decoded as they come or encoded and decoded again (fuzz_codec.h). A random
 * checksum is right once in 2^128, so the decoder's input is mended first: where the second byte is
 * odd, each block gets the checksum that it should have. Promise checked beside the common ones: a
 * decoder never holds more than max_memory and a fixed rest.
 */
#include "fuzz_codec.h"

#include "codec/city.h"

#define BLOCK_HEAD_LEN 25u
#define OVERHEAD       ((size_t)256 << 10) /* the decoder itself, and zstd's context */

static size_t
covered_len(const uint8_t *block)
{
    return block[17] | (size_t)block[18] << 8 | (size_t)block[19] << 16 | (size_t)block[20] << 24;
}

static void
mend(uint8_t *p, size_t len)
{
    while (len >= BLOCK_HEAD_LEN) {
        size_t covered = covered_len(p);
        if (covered < 9 || covered > len - 16)
            return;
        city_hash128(p + 16, covered, p);
        p += 16 + covered;
        len -= 16 + covered;
    }
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const enum codec_block_method methods[] = {BLOCK_NONE, BLOCK_LZ4, BLOCK_ZSTD, BLOCK_LZ4};
    /* No bytes at all encode to none: test_codec_blocks has that. */
    if (size <= FUZZ_CODEC_HEAD_LEN || size > 65536)
        return 0;
    struct codec_spec spec = {.id = CODEC_BLOCKS, .method = methods[data[0] >> 1 & 3]};
    uint8_t *copy = malloc(size);
    CHECK(copy != NULL);
    memcpy(copy, data, size);
    if ((data[0] & 1) != 0 && (data[1] & 1) != 0)
        mend(copy + FUZZ_CODEC_HEAD_LEN, size - FUZZ_CODEC_HEAD_LEN);
    fuzz_codec(spec, OVERHEAD, copy, size);
    free(copy);
    return 0;
}
