#ifndef CHMUX_CODEC_CODEC_FRAMES_H
#define CHMUX_CODEC_CODEC_FRAMES_H
/*
 * codec_frames: what the zstd and the LZ4 decoder have in common. Both formats are frames back to
 * back, each with a short header that says how much memory it needs; both skip the same skippable
 * frames.
 *
 * Headers are staged here whole, so they may arrive in any pieces. A frame's memory is thus taken
 * before the library sees a byte of it, and a frame that has to wait for memory loses nothing.
 */
#include "codec/codec_impl.h"

#define FRAMES_HEAD_MAX 19

enum frames_state {
    FRAMES_HEAD,  /* between two frames, or in a header */
    FRAMES_READY, /* the header is staged; its memory is not taken yet */
    FRAMES_SKIP,
    FRAMES_BODY,
};

struct frames {
    struct codec codec; /* first: codec.c knows a decoder by it */
    const struct frames_ops *ops;
    enum frames_state state;
    bool any;         /* a frame has ended since new or reset */
    bool more_out;    /* the last call filled out: the library may hold more */
    uint64_t at;      /* the offset of the frame's first byte */
    uint64_t in_end;  /* the offset of the end of the input of this call */
    uint32_t to_skip; /* FRAMES_SKIP: bytes left */
    size_t need;      /* the most a frame of this stream needed, all of it charged */
    size_t head_len;
    unsigned char head[FRAMES_HEAD_MAX];
};

struct frames_ops {
    /* How long the header is, by its first len bytes (len >= 4): as far as they tell, more than len
     * while they do not. 0: no frame of this format. */
    size_t (*head_size)(const unsigned char *head, size_t len);
    /* Takes the staged header: CODEC_DONE, CODEC_NO_MEMORY (it is called again), CODEC_BAD. */
    enum codec_result (*begin)(struct frames *f);
    /* One call of the library, with room in out: sets *ended at the frame's end. NULL, or why the
     * frame is bad. */
    const char *(*step)(struct frames *f, struct codec_io *io, bool *ended);
    const char *foreign;   /* why, when head_size() says 0 */
    const char *too_large; /* why, when its memory is out of the question */
};

void frames_reset(struct frames *f);
enum codec_result frames_run(struct codec *c, enum codec_op op, struct codec_io *io);
bool frames_at_boundary(const struct codec *c);
/* For begin(): has the budget taken what the frame needs, beyond what earlier frames needed?
 * window: what is compared with spec.max_memory. CODEC_DONE: yes. */
enum codec_result frames_reserve(struct frames *f, uint64_t window, uint64_t need);
/* Marks the codec broken at the frame's first byte. */
enum codec_result frames_bad(struct frames *f, const char *why);

static inline uint32_t
frames_le32(const unsigned char *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}
#endif
