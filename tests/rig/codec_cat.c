/*
 * codec_cat: one of our codecs between stdin and stdout, to be held against the command-line tools
 * and the live server.
 *
 *     codec_cat gzip|deflate|zstd|lz4|br|blocks|blocks-zstd|blocks-none encode|flush|decode [LEVEL]
 *
 * flush encodes, and writes out what each read gave before it reads on. Ends with 1 and the reason
 * on stderr when the input is broken, 2 on wrong use or trouble of its own.
 */
#include "codec/codec.h"

#include <unistd.h>

#define PIECE_BYTES      ((size_t)64 << 10)
#define ROOM_BYTES       ((size_t)256 << 10) /* a step of a pipe */
#define MAX_MEMORY_BYTES ((size_t)32 << 20)

static const struct {
    const char *name;
    enum codec_id id;
    enum codec_block_method method;
} names[] = {
    {"gzip", CODEC_GZIP, BLOCK_NONE},
    {"deflate", CODEC_DEFLATE, BLOCK_NONE},
    {"zstd", CODEC_ZSTD, BLOCK_NONE},
    {"lz4", CODEC_LZ4, BLOCK_NONE},
    {"br", CODEC_BROTLI, BLOCK_NONE},
    {"blocks", CODEC_BLOCKS, BLOCK_LZ4},
    {"blocks-zstd", CODEC_BLOCKS, BLOCK_ZSTD},
    {"blocks-none", CODEC_BLOCKS, BLOCK_NONE},
};

static char piece[PIECE_BYTES], room[ROOM_BYTES];

static bool
write_all(const char *p, size_t len)
{
    while (len > 0) {
        ssize_t n = write(STDOUT_FILENO, p, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            perror("codec_cat: write");
            return false;
        }
        p += n;
        len -= (size_t)n;
    }
    return true;
}

/* One piece through the codec and out; the exit code, 0 to go on. */
static int
pass(struct codec *c, enum codec_op op, size_t len)
{
    struct codec_io io = {.in = piece, .in_len = len};
    enum codec_result r;
    do {
        io.out = room;
        io.out_cap = sizeof(room);
        r = codec_run(c, op, &io);
        if (!write_all(room, sizeof(room) - io.out_cap))
            return 2;
    } while (r == CODEC_FULL);
    if (r == CODEC_DRY || r == CODEC_DONE)
        return 0;
    if (r == CODEC_BAD)
        fprintf(stderr, "%s at %" PRIu64 "\n", codec_why(c), codec_offset(c));
    else
        fprintf(stderr, "codec_cat: no memory\n");
    return r == CODEC_BAD ? 1 : 2;
}

static int
cat(struct codec *c, enum codec_op each)
{
    for (;;) {
        ssize_t n = read(STDIN_FILENO, piece, sizeof(piece));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            perror("codec_cat: read");
            return 2;
        }
        int code = pass(c, n > 0 ? each : CODEC_FINISH, (size_t)n);
        if (n == 0 || code != 0)
            return code;
    }
}

static int
usage(void)
{
    fprintf(stderr, "usage: codec_cat CODEC encode|flush|decode [LEVEL]\nCODEC:");
    for (size_t i = 0; i < COUNT_OF(names); i++)
        fprintf(stderr, " %s", names[i].name);
    fprintf(stderr, "\n");
    return 2;
}

int
main(int argc, char **argv)
{
    if (argc < 3 || argc > 4)
        return usage();
    size_t i = 0;
    while (i < COUNT_OF(names) && strcmp(argv[1], names[i].name) != 0)
        i++;
    bool flush = strcmp(argv[2], "flush") == 0;
    bool encode = flush || strcmp(argv[2], "encode") == 0;
    if (i == COUNT_OF(names) || (!encode && strcmp(argv[2], "decode") != 0))
        return usage();
    struct codec_spec spec = {.id = names[i].id,
        .encode = encode,
        .method = names[i].method,
        .level = argc == 4 ? (int)strtol(argv[3], NULL, 10) : 0,
        .max_memory = MAX_MEMORY_BYTES};
    struct codec *c = codec_new(&spec);
    if (c == NULL) {
        fprintf(stderr, "codec_cat: no memory\n");
        return 2;
    }
    int code = cat(c, flush ? CODEC_FLUSH : CODEC_RUN);
    codec_free(&c);
    return code;
}
