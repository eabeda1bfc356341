/*
 * One step of a pipe: takes in or gives out at most 256 KiB. It runs in a worker, or on the loop
 * (inline, or with no workers), and never sleeps but for a short lock.
 */
#include "rt/pipe_impl.h"

#include "base/clock.h"
#include "base/mem.h"

#include "base/no_block.h"

#define REFILL_MIN                                                                                 \
    (PIPE_STEP / 8) /* free bytes that make the last queued block worth going on with */

/* What a turn came to; all but ON end the step. */
enum turn {
    TURN_ON,
    TURN_SPENT,  /* its budget */
    TURN_DRY,    /* all input is used up */
    TURN_FULL,   /* no room in the output queue */
    TURN_SHORT,  /* no block */
    TURN_HUNGRY, /* no memory for a codec */
    TURN_OVER,
};

struct step {
    size_t in_left, mid_left, out_left; /* bytes it may still move */
    bool quiet;                         /* on the loop, inside of a call: no wake-up */
    uint64_t memory_waits;
};

/* ---- input ---- */

/* Makes cur the next input block, or finds out that there is none. */
static void
fetch(struct pipe *p)
{
    struct chain *c = &p->chain;
    if (c->cur != NULL || c->input_over)
        return;
    pipe_lock(p);
    c->cur = p->in.head;
    if (c->cur != NULL) { /* off the list, but still counted until it is used up */
        p->in.head = c->cur->next;
        if (p->in.head == NULL)
            p->in.tail = NULL;
        c->cur->next = NULL;
        c->cur_start = c->cur->start;
    } else {
        c->input_over = p->ended;
        c->cut = p->cut;
        c->flush |= p->flush;
        p->flush = false;
    }
    pipe_unlock(p);
}

/* cur is used up. Its room may be what the loop waits for. */
static void
uncount_cur(struct pipe *p, const struct step *s)
{
    const struct chain *c = &p->chain;
    bool tell = false;
    pipe_lock(p);
    p->in.items--;
    p->in.bytes -= c->cur->end - c->cur_start;
    if (p->in_full && pipe_input_low_locked(p)) {
        p->in_full = false;
        tell = !s->quiet && pipe_claim_locked(p);
    }
    pipe_unlock(p);
    if (tell)
        pipe_tell(p);
}

static void
drop_cur(struct pipe *p, const struct step *s)
{
    uncount_cur(p, s);
    blk_put(&p->chain.cur);
}

/* ---- output ---- */

static void
out_release(struct pipe *p, struct blk *b)
{
    if (b->cap == PIPE_SPARE) {
        pipe_lock(p);
        if (p->spare == NULL) {
            b->start = b->end = 0;
            p->spare = b;
            b = NULL;
        }
        pipe_unlock(p);
    }
    blk_put(&b);
}

/* Free bytes behind a queued block's data. */
static size_t
room_behind(const struct blk *b)
{
    size_t used = b->end + PIPE_TAILROOM;
    return used < b->cap ? b->cap - used : 0;
}

/* Small outputs join the last block in the queue: that costs a copy of a few KiB under the lock,
 * and the loop saves a write. Says too whether the queue is empty. */
static bool
append_to_last(struct pipe *p, const struct blk *b, bool *empty)
{
    bool joined = false;
    pipe_lock(p);
    struct blk *last = p->out.tail;
    *empty = last == NULL;
    if (last != NULL && room_behind(last) >= blk_len(b)) {
        memcpy(last->data + last->end, b->data + b->start, blk_len(b));
        last->end += blk_len(b);
        p->out.bytes += blk_len(b);
        joined = true;
    }
    pipe_unlock(p);
    return joined;
}

/* A thousand streams that drip must not hold a big block each: a copy of b of just its size. NULL:
 * no memory for it. */
static struct blk *
shrunk(const struct blk *b)
{
    size_t cap = PIPE_HEADROOM + blk_len(b) + PIPE_TAILROOM;
    struct blk *copy = blk_get_sized(cap);
    if (copy == NULL)
        return NULL;
    memcpy(copy->data + PIPE_HEADROOM, b->data + b->start, blk_len(b));
    copy->start = PIPE_HEADROOM;
    copy->end = PIPE_HEADROOM + blk_len(b);
    return copy;
}

/* Moves what was made into the output queue. */
static void
out_publish(struct pipe *p, const struct step *s)
{
    struct chain *c = &p->chain;
    struct blk *b = c->out;
    if (b == NULL)
        return;
    c->out = NULL;
    if (blk_len(b) == 0) {
        out_release(p, b);
        return;
    }
    c->bulk = blk_len(b) >= PIPE_TINY;
    if (!c->bulk) {
        bool empty;
        if (append_to_last(p, b, &empty)) {
            out_release(p, b);
            return;
        }
        /* Not behind others: the next small ones join this one then. */
        struct blk *copy = empty ? shrunk(b) : NULL;
        if (copy != NULL) {
            out_release(p, b);
            b = copy;
        }
    }
    pipe_lock(p);
    bool tell = p->out.head == NULL && !s->quiet && pipe_claim_locked(p);
    blk_queue_push(&p->out, b);
    pipe_unlock(p);
    if (tell)
        pipe_tell(p);
}

/* Takes the last queued block back, to go on filling it: only when the loop has another one before
 * it, so that what pipe_has_output() has said stays true. */
static struct blk *
unqueue_last(struct blk_queue *q)
{
    struct blk *last = q->tail;
    if (q->items < 2 || room_behind(last) < REFILL_MIN)
        return NULL;
    struct blk *before = q->head;
    while (before->next != last)
        before = before->next;
    before->next = NULL;
    q->tail = before;
    q->items--;
    q->bytes -= blk_len(last);
    return last;
}

static struct blk *
take_spare(struct pipe *p)
{
    pipe_lock(p);
    struct blk *b = p->spare;
    p->spare = NULL;
    pipe_unlock(p);
    return b;
}

/* A block to fill, as big as what came last makes likely; the own one if memory has run out. */
static enum turn
out_acquire(struct pipe *p, struct step *s)
{
    struct chain *c = &p->chain;
    struct blk *b = NULL;
    pipe_lock(p);
    size_t bound = pipe_bound(p->w);
    bool full = p->out.items >= p->w->spec.queue_items || p->out.bytes >= bound;
    size_t left = full ? 0 : bound - p->out.bytes;
    if (!full) {
        b = unqueue_last(&p->out);
        if (b == NULL && !c->bulk) {
            b = p->spare;
            p->spare = NULL;
        }
    }
    pipe_unlock(p);
    if (full)
        return TURN_FULL;
    if (b == NULL)
        b = blk_get_sized(BLK_CHUNK);
    if (b == NULL)
        b = take_spare(p);
    if (b == NULL) {
        s->memory_waits++;
        return TURN_SHORT;
    }
    if (b->end == 0)
        b->start = b->end = PIPE_HEADROOM;
    c->out = b;
    c->out_end = b->end + size_min(room_behind(b), left);
    return TURN_ON;
}

/* Makes sure that there is room to write to. */
static enum turn
out_open(struct pipe *p, struct step *s)
{
    struct chain *c = &p->chain;
    if (c->out != NULL && c->out->end < c->out_end)
        return TURN_ON;
    out_publish(p, s);
    return out_acquire(p, s);
}

static size_t
out_room(const struct chain *c, const struct step *s)
{
    return size_min(c->out_end - c->out->end, s->out_left);
}

static void
out_made(struct chain *c, struct step *s, size_t bytes)
{
    c->out->end += bytes;
    s->out_left -= bytes;
}

/* ---- codecs ---- */

static enum codec_result
stage_run(struct stage *st, enum codec_op op, struct codec_io *io)
{
    size_t in = io->in_len, out = io->out_cap;
    enum codec_result r = codec_run(st->codec, op, io);
    st->op = op;
    st->again = r == CODEC_FULL || r == CODEC_NO_MEMORY;
    st->in += in - io->in_len;
    st->out += out - io->out_cap;
    return r;
}

static void
stage_broke(struct pipe *p, struct stage *st)
{
    st->over = true;
    st->again = false;
    p->chain.failed = true;
    p->chain.whole = false;
    p->error = (struct pipe_error){
        .codec = codec_spec_of(st->codec)->id,
        .encoder = codec_spec_of(st->codec)->encode,
        .offset = codec_offset(st->codec),
        .why = codec_why(st->codec),
    };
}

/* cur moves up behind what a call has used of it. */
static void
cur_used(struct pipe *p, struct step *s, size_t left)
{
    struct chain *c = &p->chain;
    if (c->cur == NULL)
        return;
    size_t used = blk_len(c->cur) - left;
    c->cur->start += used;
    s->in_left -= size_min(used, s->in_left);
    if (left == 0 && !p->spec.check)
        drop_cur(p, s);
}

/* One call of the decoder; what it has made is added to *made. */
static enum turn
decode(struct pipe *p, struct step *s, struct codec_io *io)
{
    struct chain *c = &p->chain;
    struct stage *st = &c->dec;
    size_t have = blk_len(c->cur);
    enum codec_op op = CODEC_RUN;
    if (st->again) {
        op = st->op;
    } else if (have == 0) {
        if (!c->input_over)
            return TURN_DRY;
        if (c->cut) { /* the middle of a frame is no error then, only no end either */
            c->whole = codec_at_boundary(st->codec);
            st->over = true;
            return TURN_ON;
        }
        op = CODEC_FINISH;
    }
    io->in = have > 0 ? c->cur->data + c->cur->start : "";
    io->in_len = size_min(have, s->in_left);
    size_t before = io->in_len;
    enum codec_result r = stage_run(st, op, io);
    cur_used(p, s, have - (before - io->in_len));
    switch (r) {
    case CODEC_DRY: c->proved = c->cur != NULL && blk_len(c->cur) == 0; break;
    case CODEC_FULL: break;
    case CODEC_DONE: c->whole = st->over = true; break;
    case CODEC_NO_MEMORY: s->memory_waits++; return TURN_HUNGRY;
    case CODEC_BAD: stage_broke(p, st); break;
    }
    return TURN_ON;
}

/* What the encoder is to do with `have` bytes at hand. false: nothing. */
static bool
encoder_op(const struct chain *c, size_t have, bool last, enum codec_op *op)
{
    if (c->enc.again)
        *op = c->enc.op;
    else if (have > 0)
        *op = CODEC_RUN;
    else if (last && c->whole)
        *op = CODEC_FINISH;
    else if ((last || c->flush) && c->unflushed)
        *op = CODEC_FLUSH;
    else
        return false;
    return true;
}

/* One call of the encoder, on io->in; `last`: there will be no more behind it. */
static enum turn
encode(struct pipe *p, struct step *s, struct codec_io *io, bool last)
{
    struct chain *c = &p->chain;
    enum codec_op op;
    if (!encoder_op(c, io->in_len, last, &op)) {
        c->flush = false; /* there is nothing that it could bring out */
        c->enc.over = last;
        return last ? TURN_OVER : TURN_DRY;
    }
    enum turn t = out_open(p, s);
    if (t != TURN_ON)
        return t;
    struct codec_io call = *io;
    if (op != CODEC_RUN) /* what came since must wait until the flush is done */
        call.in_len = 0;
    size_t in_before = call.in_len, out_before = call.out_cap = out_room(c, s);
    call.out = c->out->data + c->out->end;
    enum codec_result r = stage_run(&c->enc, op, &call);
    out_made(c, s, out_before - call.out_cap);
    size_t used = in_before - call.in_len;
    io->in += used;
    io->in_len -= used;
    c->unflushed |= used > 0;
    switch (r) {
    case CODEC_DRY:
        if (op == CODEC_FLUSH)
            c->flush = c->unflushed = false;
        break;
    case CODEC_FULL: break;
    case CODEC_DONE: c->enc.over = true; break;
    case CODEC_NO_MEMORY: s->memory_waits++; return TURN_HUNGRY;
    case CODEC_BAD: stage_broke(p, &c->enc); break;
    }
    return TURN_ON;
}

/* ---- the kinds of pipes ---- */

static enum turn
turn_decode(struct pipe *p, struct step *s)
{
    struct chain *c = &p->chain;
    if (c->dec.over)
        return TURN_OVER;
    if (!c->dec.again && blk_len(c->cur) == 0 && !c->input_over)
        return TURN_DRY; /* without taking a block for it */
    enum turn t = out_open(p, s);
    if (t != TURN_ON)
        return t;
    size_t cap = out_room(c, s);
    struct codec_io io = {.out = c->out->data + c->out->end, .out_cap = cap};
    t = decode(p, s, &io);
    out_made(c, s, cap - io.out_cap);
    return t;
}

static enum turn
turn_encode(struct pipe *p, struct step *s)
{
    struct chain *c = &p->chain;
    if (c->enc.over)
        return TURN_OVER;
    size_t have = blk_len(c->cur);
    struct codec_io io = {
        .in = have > 0 ? c->cur->data + c->cur->start : "",
        .in_len = size_min(have, s->in_left),
    };
    size_t before = io.in_len;
    c->whole = !c->cut;
    enum turn t = encode(p, s, &io, c->input_over && c->cur == NULL);
    cur_used(p, s, have - (before - io.in_len));
    return t;
}

/* Decoder and encoder: the encoder goes first as long as there is something between them. */
static enum turn
turn_both(struct pipe *p, struct step *s)
{
    struct chain *c = &p->chain;
    if (c->enc.over)
        return TURN_OVER;
    if (c->mid_at == c->mid_end && !c->enc.again && !c->dec.over) {
        struct codec_io io = {.out = c->mid, .out_cap = size_min(PIPE_MID, s->mid_left)};
        size_t cap = io.out_cap;
        enum turn t = decode(p, s, &io);
        c->mid_at = 0;
        c->mid_end = cap - io.out_cap;
        s->mid_left -= c->mid_end;
        if (t != TURN_DRY)
            return t;
    }
    struct codec_io io = {.in = c->mid + c->mid_at, .in_len = c->mid_end - c->mid_at};
    enum turn t = encode(p, s, &io, c->dec.over);
    c->mid_at = c->mid_end - io.in_len;
    return t;
}

static enum turn
give_held(struct pipe *p, struct step *s)
{
    struct chain *c = &p->chain;
    enum turn t = out_open(p, s);
    if (t != TURN_ON)
        return t;
    size_t n = size_min(blk_len(c->held), out_room(c, s));
    memcpy(c->out->data + c->out->end, c->held->data + c->held->start, n);
    out_made(c, s, n);
    c->held->start += n;
    if (blk_len(c->held) == 0)
        blk_put(&c->held);
    return TURN_ON;
}

/* No more input is at hand. What is held is sound as far as it goes, so a flush brings it out. */
static enum turn
check_dry(struct chain *c)
{
    bool flush = c->flush && c->held != NULL;
    c->flush = false;
    c->held_free |= flush;
    return flush ? TURN_ON : TURN_DRY;
}

/* Only checks: what went in comes out one block late, so that whoever gets it does not have all of
 * a stream that turns out broken at its end. A block that ends between two frames need not wait. */
static enum turn
turn_check(struct pipe *p, struct step *s)
{
    struct chain *c = &p->chain;
    if (c->held != NULL && c->held_free)
        return give_held(p, s);
    if (c->proved && c->held != NULL) {
        c->held_free = true;
        return TURN_ON;
    }
    if (c->proved) {
        uncount_cur(p, s);
        c->held = c->cur;
        c->held->start = c->cur_start;
        c->held_free = codec_at_boundary(c->dec.codec);
        c->cur = NULL;
        c->proved = false;
        return TURN_ON;
    }
    if (!c->dec.over) {
        size_t cap = size_min(PIPE_MID, s->mid_left);
        struct codec_io io = {.out = c->mid, .out_cap = cap};
        enum turn t = decode(p, s, &io);
        s->mid_left -= cap - io.out_cap;
        return t == TURN_DRY ? check_dry(c) : t;
    }
    if (c->held == NULL || c->failed)
        return TURN_OVER;
    c->held_free = true;
    return TURN_ON;
}

static enum turn
turn(struct pipe *p, struct step *s)
{
    if (s->in_left == 0 || s->mid_left == 0 || s->out_left == 0)
        return TURN_SPENT;
    fetch(p);
    if (p->spec.check)
        return turn_check(p, s);
    if (p->chain.dec.codec == NULL)
        return turn_encode(p, s);
    return p->chain.enc.codec == NULL ? turn_decode(p, s) : turn_both(p, s);
}

/* ---- the step ---- */

static void
count_locked(struct pipe *p, const struct step *s, int64_t took_us)
{
    struct pipe_numbers *n = &p->numbers;
    struct chain *c = &p->chain;
    if (thr_self == THR_WORKER) {
        n->worker_us += (uint64_t)took_us;
        n->worker_steps++;
    } else {
        n->loop_steps++;
    }
    n->memory_waits += s->memory_waits;
    n->dec_in += c->dec.in;
    n->dec_out += c->dec.out;
    n->enc_in += c->enc.in;
    n->enc_out += c->enc.out;
    c->dec.in = c->dec.out = c->enc.in = c->enc.out = 0;
}

/* The state behind a step that ended with t. What has changed since t was found is looked at again,
 * under the lock: whoever changed it saw RUNNING and left the pipe alone. */
static enum pipe_state
state_after_locked(const struct pipe *p, enum turn t)
{
    bool low = pipe_output_low_locked(p);
    bool more = p->in.head != NULL || p->flush || (p->ended && !p->chain.input_over);
    bool full = p->out.items >= p->w->spec.queue_items || p->out.bytes >= pipe_bound(p->w);
    if (p->closed)
        return PS_OVER;
    switch (t) {
    case TURN_ON:
    case TURN_SPENT: return full ? PS_PARKED : PS_QUEUED;
    case TURN_DRY: return more ? PS_QUEUED : PS_RESTING;
    case TURN_FULL: return low ? PS_QUEUED : PS_PARKED;
    case TURN_SHORT: return p->spare != NULL || p->poked ? PS_QUEUED : PS_SHORT;
    case TURN_HUNGRY: return p->poked ? PS_QUEUED : PS_HUNGRY;
    case TURN_OVER: return PS_OVER;
    }
    return PS_OVER;
}

static enum pipe_status
result_of(const struct chain *c)
{
    if (c->failed)
        return PIPE_FAILED;
    return c->cut ? PIPE_CUT : PIPE_ENDED;
}

/* true: it is QUEUED now, which nobody but the caller knows of. */
MUST_USE static bool
step_end(struct pipe *p, struct step *s, enum turn t, int64_t took_us)
{
    struct blk *rest = NULL, *cur = NULL, *held = NULL;
    pipe_lock(p);
    count_locked(p, s, took_us);
    enum pipe_state to = state_after_locked(p, t);
    bool tell = false;
    if (to == PS_OVER) { /* what is left of the input is of no use to anyone */
        rest = p->in.head;
        cur = p->chain.cur;
        held = p->chain.held;
        p->in = (struct blk_queue){0};
        p->chain.cur = p->chain.held = NULL;
        p->result = result_of(&p->chain);
        tell = p->closed || !s->quiet;
    } else if (to == PS_HUNGRY) {
        tell = !s->quiet;
    }
    tell = tell && pipe_claim_locked(p);
    pipe_goto_locked(p, to);
    pipe_unlock(p);
    /* From here on p is only touched as far as the state or the claim keep it. */
    if (tell)
        pipe_tell(p);
    blk_put_all(rest);
    blk_put(&cur);
    blk_put(&held);
    return to == PS_QUEUED;
}

static bool
step(struct pipe *p, struct step *s)
{
    struct mono begin = mono_now();
    enum turn t;
    do
        t = turn(p, s);
    while (t == TURN_ON);
    out_publish(p, s);
    return step_end(p, s, t, mono_diff_us(mono_now(), begin));
}

bool
pipe_step(struct pipe *p)
{
    OBJ_CHECK(p, PIPE_MAGIC);
    bool tell = false;
    pipe_lock(p);
    bool closed = p->closed;
    if (closed) { /* while it stood in the queue */
        pipe_goto_locked(p, PS_OVER);
        tell = pipe_claim_locked(p);
    } else {
        pipe_goto_locked(p, PS_RUNNING);
        p->poked = false;
    }
    pipe_unlock(p);
    if (tell)
        pipe_tell(p);
    if (closed)
        return false;
    struct step s = {.in_left = PIPE_STEP, .mid_left = PIPE_STEP, .out_left = PIPE_STEP};
    return step(p, &s);
}

void
pipe_step_inline(struct pipe *p)
{
    struct step s = {.in_left = PIPE_STEP,
        .mid_left = PIPE_INLINE_OUT,
        .out_left = PIPE_INLINE_OUT,
        .quiet = true};
    if (step(p, &s))
        pipe_enqueue(p);
}
