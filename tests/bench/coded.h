#ifndef CHMUX_BENCH_CODED_H
#define CHMUX_BENCH_CODED_H
/*
 * coded: zstd, LZ4 frame and gzip for the bench programs, straight on the libraries, in the steps
 * that chmux takes. It shares no code with the daemon: it is what the daemon is measured against
 * and checked by.
 *
 * Errors  Broken input ends the process, but for coded_step(), which tells.
 */
#include "base/base.h"

enum coding { CODING_NONE, CODING_ZSTD, CODING_LZ4, CODING_GZIP };

enum {
    CODED_STEP = 256 * 1024,     /* input of one step at most */
    CODED_OUT_MIN = 1024 * 1024, /* room that a step needs at least */
};

/* As in Content-Encoding; "identity" for none. */
const char *coding_name(enum coding c);
/* By such a name of n bytes; CODING_NONE for any other. */
enum coding coding_by_name(const char *name, size_t n);
/* By the end of a file name: .zst, .lz4, .gz. */
enum coding coding_of_path(const char *path);
/* One small body as a whole: bytes of it. */
size_t coding_once(enum coding c, const void *in, size_t n, void *out, size_t cap);

struct coded;

/* level: the library's own scale; encoders only. */
struct coded *coded_new(enum coding c, bool encode, int level);
void coded_free(struct coded **cp);

struct coded_io {
    const char *in; /* the step advances it */
    size_t in_len;
    char *out; /* CODED_OUT_MIN bytes */
    size_t made;
};

/* One step: takes at most CODED_STEP bytes and gives at most CODED_OUT_MIN; all input is used when
 * in_len is 0 and less than CODED_STEP was made. False: a decoder's input is broken. */
MUST_USE bool coded_step(struct coded *c, struct coded_io *io);
/* The end of an encoder's stream into out; again until it says true. */
MUST_USE bool coded_finish(struct coded *c, struct coded_io *io);
/* Decoders: the input so far ends where a frame ends. */
bool coded_whole(const struct coded *c);
#endif
