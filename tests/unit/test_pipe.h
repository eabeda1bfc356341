#ifndef CHMUX_TESTS_TEST_PIPE_H
#define CHMUX_TESTS_TEST_PIPE_H
/*
 * test_pipe: a rig around pipes: one loop, its workers, and `sim`s, each a pipe with what goes in,
 * what must come out, and a count of its wake-ups. A sim that waits has only wake-ups to go on, so
 * that a lost one ends in the guard timer.
 */
#include <sched.h>

#include "rt/pipe_impl.h"

#include "base/metric.h"
#include "test_codec.h"

#define RIG_LIMIT    ((size_t)256 << 20)
#define RIG_GUARD_US 30000000

struct rig {
    struct loop *loop;
    struct workers *w;
    struct timer guard;
    bool late;
    size_t used_before;
};

struct sim {
    struct rig *rig;
    struct pipe *p;
    struct tc_bytes in, got;
    size_t put, piece;   /* bytes put; size of a put block */
    bool ended, cut;     /* cut: end with what has been put */
    bool flush;          /* of every put */
    struct blk *held[4]; /* taken, not given back */
    size_t held_count;
    unsigned wakes;
    bool discard; /* what comes out is only counted */
    size_t got_len;
    bool inside; /* a call of pipe.h: no wake-up may come */
};

static inline void
rig_on_guard(void *arg)
{
    thr_check_loop();
    struct rig *r = arg;
    r->late = true;
    loop_stop(r->loop);
}

static inline void LOOP_ONLY
rig_start_with(struct rig *r, const struct workers_spec *spec)
{
    *r = (struct rig){.used_before = mem_used(), .loop = loop_new()};
    T_TRUE(r->loop != NULL);
    r->w = workers_new(r->loop, spec);
    T_TRUE(r->w != NULL);
    timer_init(&r->guard, r->loop, rig_on_guard, r);
    T_TRUE(timer_reserve(&r->guard));
}

static inline void LOOP_ONLY
rig_start(struct rig *r, size_t threads)
{
    rig_start_with(r, &(struct workers_spec){
                          .threads = threads, .queue_items = 10, .queue_bytes = (size_t)1 << 20});
}

static inline void LOOP_ONLY
rig_stop(struct rig *r)
{
    workers_free(&r->w);
    T_TRUE(r->w == NULL);
    timer_fini(&r->guard);
    loop_free(&r->loop);
    T_EQ(mem_used(), r->used_before);
}

/* Runs the loop until a callback stops it. */
static inline void LOOP_ONLY
rig_wait(struct rig *r)
{
    timer_arm_in(&r->guard, RIG_GUARD_US);
    loop_run(r->loop);
    T_FALSE(r->late); /* a lost wake-up ends here */
    timer_disarm(&r->guard);
}

static inline void
rig_on_turn(void *arg)
{
    thr_check_loop();
    struct rig *r = arg;
    loop_stop(r->loop);
}

/* What is ready now is told. */
static inline void LOOP_ONLY
rig_turn(struct rig *r)
{
    struct timer t;
    timer_init(&t, r->loop, rig_on_turn, r);
    T_TRUE(timer_reserve(&t));
    timer_arm_in(&t, 0);
    loop_run(r->loop);
    timer_fini(&t);
}

static inline void
sim_on_wake(void *arg)
{
    thr_check_loop();
    struct sim *s = arg;
    T_TRUE(s->p != NULL); /* never after pipe_close() */
    T_FALSE(s->inside);
    s->wakes++;
    loop_stop(s->rig->loop);
}

/* Takes `in`. */
static inline void LOOP_ONLY
sim_open(struct sim *s, struct rig *r, const struct pipe_spec *spec, struct tc_bytes in)
{
    *s = (struct sim){.rig = r, .in = in, .piece = 60000};
    s->p = pipe_new(r->w, spec, sim_on_wake, s);
    T_TRUE(s->p != NULL);
}

static inline void LOOP_ONLY
sim_check_bounds(struct sim *s)
{
    const struct workers_spec *spec = &s->p->w->spec;
    pipe_lock(s->p);
    struct blk_queue in = s->p->in, out = s->p->out;
    pipe_unlock(s->p);
    T_TRUE(in.items <= spec->queue_items && out.items <= spec->queue_items);
    T_TRUE(in.bytes < spec->queue_bytes + s->piece);
    T_TRUE(out.bytes <= spec->queue_bytes);
    T_TRUE((out.items == 0) == (out.bytes == 0));
    T_TRUE(mem_used() <= mem_limit());
}

/* Puts the next n bytes. false: no block for them. */
static inline bool LOOP_ONLY
sim_put(struct sim *s, size_t n, bool flush)
{
    struct blk *b = blk_get_sized(n);
    if (b == NULL)
        return false;
    memcpy(b->data, s->in.p + s->put, n);
    b->end = n;
    s->put += n;
    s->inside = true;
    pipe_put(s->p, &b, flush);
    s->inside = false;
    T_TRUE(b == NULL);
    T_EQ(pipe_bytes_in(s->p), s->put);
    sim_check_bounds(s);
    return true;
}

static inline void LOOP_ONLY
sim_end(struct sim *s)
{
    s->ended = true;
    s->inside = true;
    pipe_end(s->p, s->cut);
    s->inside = false;
    T_EQ(pipe_room(s->p), 0);
}

static inline void LOOP_ONLY
sim_give_back(struct sim *s)
{
    s->inside = true;
    pipe_give_back(s->p, &s->held[--s->held_count]);
    s->inside = false;
    T_TRUE(s->held[s->held_count] == NULL);
}

/* The oldest output, which stays held. false: none. */
static inline bool LOOP_ONLY
sim_take(struct sim *s)
{
    bool has = pipe_has_output(s->p);
    s->inside = true;
    struct blk *b = pipe_take(s->p);
    s->inside = false;
    if (has)
        T_TRUE(b != NULL);
    if (b == NULL)
        return false;
    T_TRUE(blk_len(b) > 0);
    T_TRUE(b->start >= PIPE_HEADROOM && b->cap - b->end >= PIPE_TAILROOM);
    if (!s->discard)
        tc_append(&s->got, b->data + b->start, blk_len(b));
    s->got_len += blk_len(b);
    /* All of the room around it is the taker's. */
    memset(b->data, 'h', b->start);
    memset(b->data + b->end, 't', b->cap - b->end);
    T_EQ(pipe_bytes_out(s->p), s->got_len);
    T_TRUE(s->held_count < COUNT_OF(s->held));
    s->held[s->held_count++] = b;
    sim_check_bounds(s);
    return true;
}

static inline bool LOOP_ONLY
sim_over(struct sim *s)
{
    enum pipe_status st = pipe_status(s->p);
    return st != PIPE_OPEN && st != PIPE_STARVED;
}

/* All that can be done now without a wake-up. */
static inline void LOOP_ONLY
sim_pump(struct sim *s)
{
    bool moved = true;
    while (moved) {
        moved = false;
        while (s->held_count > 0)
            sim_give_back(s);
        while (sim_take(s)) {
            sim_give_back(s);
            moved = true;
        }
        while (s->put < s->in.len && pipe_room(s->p) > 0 && !s->ended &&
               sim_put(s, size_min(s->piece, s->in.len - s->put), s->flush))
            moved = true;
        if (!s->ended && s->put == s->in.len && !sim_over(s)) {
            sim_end(s);
            moved = true;
        }
    }
}

static inline enum pipe_status LOOP_ONLY
sim_finish(struct sim *s)
{
    for (;;) {
        sim_pump(s);
        if (sim_over(s))
            return pipe_status(s->p);
        rig_wait(s->rig);
    }
}

/* A wake-up that is under way comes before what this is called for. */
static inline void LOOP_ONLY
sim_settle(struct sim *s)
{
    for (bool told = true; told;) {
        rig_turn(s->rig);
        pipe_lock(s->p);
        told = s->p->told;
        pipe_unlock(s->p);
    }
}

static inline void LOOP_ONLY
sim_close(struct sim *s)
{
    while (s->held_count > 0)
        blk_put(&s->held[--s->held_count]);
    pipe_close(&s->p);
    T_TRUE(s->p == NULL);
    tc_drop(&s->in);
    tc_drop(&s->got);
}

#define ENCODER(codec)                                                                             \
    ((struct codec_spec){.id = (codec), .encode = true, .level = 1, .method = BLOCK_LZ4})
#define DECODER(codec) ((struct codec_spec){.id = (codec), .max_memory = TC_MAX_MEMORY})

/* What a codec makes of `in` in one go; workers may use the budget meanwhile. Owned. */
static inline struct tc_bytes
rig_coded(const struct codec_spec *spec, struct str in, enum codec_op op)
{
    struct tc t = tc_new(spec, (struct tc_cut){0});
    T_EQ(tc_feed(&t, op, in), op == CODEC_FINISH ? CODEC_DONE : CODEC_DRY);
    struct tc_bytes out = t.out;
    t.out = (struct tc_bytes){0};
    tc_end(&t);
    return out;
}

static inline struct tc_bytes
rig_encoded(enum codec_id id, const struct tc_bytes *plain)
{
    return rig_coded(&ENCODER(id), tc_str(plain), CODEC_FINISH);
}

/* `stream` is whole (FINISH) or stops somewhere (RUN), and holds `plain`. */
static inline void
rig_decodes(enum codec_id id, struct str stream, enum codec_op op, struct str plain)
{
    struct tc_bytes out = rig_coded(&DECODER(id), stream, op);
    tc_equal(tc_str(&out), plain);
    tc_drop(&out);
}

static inline enum pipe_state
state_of(struct pipe *p)
{
    pipe_lock(p);
    enum pipe_state st = p->state;
    pipe_unlock(p);
    return st;
}

static inline void LOOP_ONLY
wait_for_state(struct sim *s, enum pipe_state st)
{
    while (state_of(s->p) != st)
        (void)sched_yield();
}

static inline uint64_t
steps_of(struct pipe *p)
{
    pipe_lock(p);
    uint64_t n = p->numbers.loop_steps + p->numbers.worker_steps;
    pipe_unlock(p);
    return n;
}

/* `members` frames of a million zeros each: a few KiB of gzip that make 1 MB. */
static inline struct tc_bytes
bomb(size_t members)
{
    struct tc_bytes zeros = {.p = calloc(1, 1000000), .len = 1000000};
    struct tc_bytes one = rig_encoded(CODEC_GZIP, &zeros), all = {0};
    for (size_t i = 0; i < members; i++)
        tc_append(&all, one.p, one.len);
    tc_drop(&one);
    tc_drop(&zeros);
    return all;
}
#endif
