#ifndef CHMUX_RT_PIPE_H
#define CHMUX_RT_PIPE_H
/*
 * pipe: the bounded bridge between the event loop and codecs that run in worker threads.
 *
 *        loop                        a worker, one bounded step at a time                loop
 *   pipe_put() ─► input queue ─► decoder ─► encoder ─► output queue ─► pipe_take()
 *
 * Bound      Each queue holds at most queue_items blocks and queue_bytes bytes; less when
 *            memory_limit runs short. Input full: pipe_room() says 0, the caller stops reading its
 *            socket. Output full: the pipe is parked until blocks are taken. A step takes in or
 *            gives out at most 256 KiB, then others get their turn. Bombs therefore move in steps.
 *            Every pipe owns one output block of 32 KiB for as long as it lives, so that a used-up
 *            budget can slow pipes down but not stop them all. It goes round through pipe_take()
 *            and pipe_give_back(). Small outputs come in blocks of about their size.
 * Order      End and error travel in band: what was put before them comes out first, exactly once.
 * Flush      A block put with flush set comes out whole without waiting for more: the caller sets
 *            it when its source has run dry.
 * Codecs     are given up as soon as the last of their output is made, not with pipe_close().
 * Wake-up    fn(arg) runs on the loop when something changed that the caller may wait for: output
 *            where there was none, room where there was none, the end. Level-triggered: it looks at
 *            pipe_room(), pipe_has_output() and pipe_status(), and may have seen all that before.
 *            Never from inside a call of this header, and never after pipe_close().
 * Inline     What is put while the pipe rests and is at most inline_limit bytes is coded at once,
 *            on the loop, as long as that makes at most PIPE_INLINE_OUT bytes; the rest goes to a
 *            worker. So do pipe_flush() and pipe_end() of a pipe that rests. The results are there
 *            when the call returns, and no wake-up follows.
 * Threads    Everything here is for the loop. A worker sees codecs and blocks: no socket, client or
 *            exchange.
 */
#include "codec/codec.h"
#include "rt/loop.h"

#define PIPE_STEP       (256u << 10) /* of one step, in or out */
#define PIPE_HEADROOM   16           /* free bytes before an output block's data */
#define PIPE_TAILROOM   16           /* and at least so many behind it */
#define PIPE_INLINE_OUT (64u << 10)

struct workers;
struct pipe;

struct workers_spec {
    size_t threads; /* 0: codecs run on the loop, one step of one pipe per turn */
    int nice;       /* added to the threads' niceness: the loop comes first where cores are few */
    size_t inline_limit; /* 0: nothing is coded inline */
    size_t queue_items, queue_bytes;
};

/* Threads start with the first pipe. NULL: no memory or descriptors. */
MUST_USE struct workers *workers_new(struct loop *l, const struct workers_spec *spec) LOOP_ONLY;
/* Every pipe is closed. Joins the threads: they finish the steps they are in, microseconds each. */
void workers_free(struct workers **wp) LOOP_ONLY;
/* Gauges and counters that are kept elsewhere. */
void workers_update_metrics(struct workers *w) LOOP_ONLY;

enum pipe_status {
    PIPE_OPEN,
    PIPE_STARVED, /* open, but the codec's memory is refused by the budget: pipe_poke() later */
    PIPE_ENDED,   /* all output is in the queue or taken, and the stream is whole */
    PIPE_CUT,     /* the same, and the input was cut: what came of it is out */
    PIPE_FAILED,  /* a codec found its input broken; what came before is out: pipe_error() */
};

struct pipe_error {
    enum codec_id codec;
    bool encoder;
    uint64_t offset; /* in that codec's input */
    const char *why; /* static */
};

/* What a pipe does: decode, encode, or first one and then the other (id CODEC_IDENTITY: not that).
 * check: the decoder only checks; what goes in comes out, the block that was put last only once
 * more was put behind it, its frame or the stream has ended, or a flush asks for it. */
struct pipe_spec {
    struct codec_spec decode, encode;
    bool check;
};

/* NULL: no memory, or the budget has none; counted. */
MUST_USE struct pipe *pipe_new(
    struct workers *w, const struct pipe_spec *spec, loop_fn fn, void *arg) LOOP_ONLY;
/* Drops whatever is in it, at once or when the step that runs has ended. Nulls *pp. */
void pipe_close(struct pipe **pp) LOOP_ONLY;

/* Bytes of input it takes now; 0: wait for the wake-up. A put may exceed it by one block. */
size_t pipe_room(struct pipe *p) LOOP_ONLY;
/* Takes *bp (any block, not empty) and nulls it. */
void pipe_put(struct pipe *p, struct blk **bp, bool flush) LOOP_ONLY;
/* The source has run dry after all: what was put comes out. */
void pipe_flush(struct pipe *p) LOOP_ONLY;
/* The input ends: whole, or cut (then a decoder in the middle of a frame is no error). Once. */
void pipe_end(struct pipe *p, bool cut) LOOP_ONLY;

bool pipe_has_output(struct pipe *p) LOOP_ONLY;
/* The oldest output block, owned, never empty, with PIPE_HEADROOM before and PIPE_TAILROOM behind
 * its data; NULL: none now. */
MUST_USE struct blk *pipe_take(struct pipe *p) LOOP_ONLY;
/* Gives a block from pipe_take() back, used up: every one, or the pipe may wait for it. Nulls *bp.
 * After pipe_close() it is for blk_put(). */
void pipe_give_back(struct pipe *p, struct blk **bp) LOOP_ONLY;

/* Of what came out: ENDED, CUT and FAILED only once every output block has been taken. */
enum pipe_status pipe_status(struct pipe *p) LOOP_ONLY;
const struct pipe_error *pipe_error(const struct pipe *p) LOOP_ONLY; /* FAILED only */
/* Memory may be free again: try. Not from the wake-up that told of STARVED: while there is
 * none, the next wake-up follows at once. */
void pipe_poke(struct pipe *p) LOOP_ONLY;
uint64_t pipe_bytes_in(const struct pipe *p) LOOP_ONLY;
uint64_t pipe_bytes_out(const struct pipe *p) LOOP_ONLY; /* of what was taken */
#endif
