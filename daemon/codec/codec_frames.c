#include "codec/codec_frames.h"

#define MAGIC_LEN      4u
#define SKIPPABLE      0x184D2A50u /* the low four bits are free */
#define SKIPPABLE_HEAD 8u

static bool
is_skippable(const struct frames *f)
{
    return (frames_le32(f->head) & 0xFFFFFFF0u) == SKIPPABLE;
}

enum codec_result
frames_bad(struct frames *f, const char *why)
{
    return codec_bad(&f->codec, why, f->at);
}

enum codec_result
frames_reserve(struct frames *f, uint64_t window, uint64_t need)
{
    struct codec *c = &f->codec;
    if (window > c->spec.max_memory)
        return frames_bad(f, f->ops->too_large);
    if (need <= f->need)
        return CODEC_DONE;
    /* What the budget could not grant even when nobody else held anything must not be waited for.
     */
    size_t limit = mem_long_limit(), held = c->charged - f->need;
    if (held > limit || need > limit - held)
        return frames_bad(f, f->ops->too_large);
    if (!codec_charge(c, (size_t)need - f->need))
        return CODEC_NO_MEMORY;
    f->need = (size_t)need;
    return CODEC_DONE;
}

void
frames_reset(struct frames *f)
{
    f->state = FRAMES_HEAD;
    f->head_len = 0;
    f->any = f->more_out = false;
}

bool
frames_at_boundary(const struct codec *c)
{
    const struct frames *f = (const void *)c; /* its first member; CONTAINER_OF() drops const */
    return f->state == FRAMES_HEAD && f->head_len == 0;
}

static void
end_frame(struct frames *f)
{
    f->state = FRAMES_HEAD;
    f->head_len = 0;
    f->any = true;
    f->more_out = false;
}

/* The parts of a frame return CODEC_DONE when the next part may go on. */

static enum codec_result
run_head(struct frames *f, struct codec_io *io)
{
    for (;;) {
        size_t want = MAGIC_LEN;
        if (f->head_len >= MAGIC_LEN)
            want = is_skippable(f) ? SKIPPABLE_HEAD : f->ops->head_size(f->head, f->head_len);
        if (want == 0)
            return frames_bad(f, f->ops->foreign);
        if (want == f->head_len)
            break;
        CHECK(want > f->head_len && want <= sizeof(f->head));
        if (io->in_len == 0)
            return CODEC_DRY;
        if (f->head_len == 0)
            f->at = f->in_end - io->in_len;
        size_t n = size_min(want - f->head_len, io->in_len);
        memcpy(f->head + f->head_len, io->in, n);
        f->head_len += n;
        io->in += n;
        io->in_len -= n;
    }
    f->state = FRAMES_READY;
    if (is_skippable(f)) {
        f->to_skip = frames_le32(f->head + MAGIC_LEN);
        f->state = FRAMES_SKIP;
    }
    return CODEC_DONE;
}

static enum codec_result
run_skip(struct frames *f, struct codec_io *io)
{
    size_t n = size_min(f->to_skip, io->in_len);
    io->in += n;
    io->in_len -= n;
    f->to_skip -= (uint32_t)n;
    if (f->to_skip > 0)
        return CODEC_DRY;
    end_frame(f);
    return CODEC_DONE;
}

static enum codec_result
run_body(struct frames *f, struct codec_io *io)
{
    bool ended = false;
    while (!ended) {
        if (io->in_len == 0 && !f->more_out)
            return CODEC_DRY;
        if (io->out_cap == 0)
            return CODEC_FULL;
        const char *why = f->ops->step(f, io, &ended);
        if (why != NULL)
            return frames_bad(f, why);
        f->more_out = io->out_cap == 0;
    }
    end_frame(f);
    return CODEC_DONE;
}

enum codec_result
frames_run(struct codec *c, enum codec_op op, struct codec_io *io)
{
    struct frames *f = CONTAINER_OF(c, struct frames, codec);
    enum codec_result r;
    f->in_end = c->in_total + io->in_len;
    do {
        r = CODEC_BAD;
        switch (f->state) {
        case FRAMES_HEAD: r = run_head(f, io); break;
        case FRAMES_READY:
            r = f->ops->begin(f);
            if (r == CODEC_DONE)
                f->state = FRAMES_BODY;
            break;
        case FRAMES_SKIP: r = run_skip(f, io); break;
        case FRAMES_BODY: r = run_body(f, io); break;
        }
    } while (r == CODEC_DONE);
    if (r != CODEC_DRY || op != CODEC_FINISH)
        return r;
    if (!frames_at_boundary(c))
        return codec_bad(c, "input ends inside a frame", f->in_end);
    if (!f->any)
        return codec_bad(c, "input ends before the first frame", f->in_end);
    return CODEC_DONE;
}
