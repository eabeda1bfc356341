#ifndef CHMUX_RT_PIPE_IMPL_H
#define CHMUX_RT_PIPE_IMPL_H
/*
 * pipe_impl: what pipe.c (the loop's side), pipe_step.c (the codecs' side), workers.c and
 * worker_thread.c share, and nobody else.
 *
 * Locks      Each pipe has a short mutex over its queues and its state. It is never held while a
 *            codec runs, a block is allocated or freed, or a bq is used.
 * Steps      Only one thread at a time runs a step of a pipe: the one that moved it to RUNNING. The
 *            chain belongs to that thread, and to nobody between two steps; the lock hands it on.
 * Memory     A pipe takes its codecs' states when it is made, and its window with the first input.
 * If those that have no window yet held all memory, none would ever get one: so they may hold a
 * quarter of it together, and one block of input each. Lifetime   Only the loop frees a pipe, once
 * it is closed, in no step and in neither bq. So what a worker holds is always there.
 */
#include <pthread.h>
#include <stdatomic.h>

#include "base/list.h"
#include "rt/bq.h"
#include "rt/pipe.h"

#define PIPE_MAGIC   0x70697065u
#define PIPE_MID     (64u << 10) /* between decoder and encoder; a checking decoder's output */
#define PIPE_MAX     (1u << 20)  /* pipes alive at once: the cap of both queues */
#define PIPE_SPARE   ((32u << 10) + PIPE_HEADROOM + PIPE_TAILROOM) /* data[] of the own block */
#define PIPE_TINY    (8u << 10) /* outputs below it are copied to where they need less */
#define CACHE_CODECS 8
#define CACHE_BYTES  (8u << 20)

/* name, legal successors, what it means */
#define PIPE_STATES(X)                                                                             \
    X(RESTING, TO(QUEUED) | TO(RUNNING)) /* nothing to do */                                       \
    X(QUEUED, TO(RUNNING) | TO(OVER))    /* in the run queue */                                    \
    X(RUNNING, TO(RESTING) | TO(QUEUED) | TO(PARKED) | TO(SHORT) | TO(HUNGRY) | TO(OVER))          \
    X(PARKED, TO(QUEUED)) /* work, but the output is full: pipe_take() */                          \
    X(SHORT, TO(QUEUED))  /* work, but no block for its output: pipe_give_back() */                \
    X(HUNGRY, TO(QUEUED)) /* work, but no memory for a codec: pipe_poke() */                       \
    X(OVER, 0)            /* ended, cut or failed; or closed and left alone */

enum pipe_state {
#define X(name, next) PS_##name,
    PIPE_STATES(X)
#undef X
};

struct blk_queue {
    struct blk *head, *tail;
    size_t items, bytes;
};

struct stage {
    struct codec *codec; /* owns; NULL: this pipe has none */
    enum codec_op op;    /* of the last call */
    bool again;          /* it was not finished: the same op is next */
    bool over;           /* nothing more comes out of it */
    uint64_t in, out;    /* bytes since they were last moved to the pipe's numbers */
};

/* Of the thread that runs the step. */
struct chain {
    struct stage dec, enc;
    struct blk *cur;  /* owns: the input being used up */
    size_t cur_start; /* where it began: a checked block comes out from there */
    struct blk *held; /* owns; check: decoded, and waits for proof or a flush */
    bool proved;      /* cur is decoded to its end */
    bool held_free;   /* held may come out */
    bool input_over;  /* all input has been fetched, and there will be none */
    bool cut;         /* and it was cut */
    bool whole;       /* the last stage's input ends where a stream may end */
    bool flush;       /* wanted once all that is at hand is used up */
    bool unflushed;   /* the encoder has taken bytes since its last flush */
    bool bulk;        /* the last output was not tiny: the next gets a chunk */
    bool failed;
    char *mid; /* owns: PIPE_MID bytes; NULL: not needed */
    size_t mid_at, mid_end;
    struct blk *out; /* owns: being filled */
    size_t out_end;  /* up to where it may be */
};

/* Written in steps, moved to the metrics by the loop, both under the lock. */
struct pipe_numbers {
    uint64_t worker_us, worker_steps, loop_steps, memory_waits;
    uint64_t dec_in, dec_out, enc_in, enc_out;
};

struct pipe {
    uint32_t magic;
    struct workers *w;    /* borrows: outlives it */
    struct list link;     /* in w->pipes; loop only */
    struct bq_item run;   /* in w->todo while QUEUED */
    struct bq_item ready; /* in w->ready, or w->batch, while told */
    struct pipe_spec spec;
    loop_fn fn; /* loop only, as are the next three */
    void *arg;
    uint64_t bytes_in, bytes_out;
    size_t young_bytes; /* counted in w->young_bytes; 0: some of its output was taken */
    struct chain chain;

    pthread_mutex_t lock; /* over the rest */
    enum pipe_state state;
    struct blk_queue in; /* its numbers count chain.cur too */
    struct blk_queue out;
    struct blk *spare; /* owns: the own block, NULL while it is in use */
    bool flush;        /* wanted by the last input */
    bool ended, cut;   /* pipe_end() */
    bool in_full;      /* pipe_room() has said 0: the low mark ends it */
    bool told;         /* a wake-up is under way */
    bool poked;        /* while a step ran */
    bool closed;
    enum pipe_status result; /* what OVER means */
    struct pipe_error error;
    struct pipe_numbers numbers;
};

struct workers {
    struct loop *loop; /* borrows */
    struct workers_spec spec;
    struct bq *todo;       /* owns: pipes that are QUEUED */
    struct bq *ready;      /* owns: pipes that have something to tell */
    struct bq_item *batch; /* drained from ready, not told yet */
    int wake_fd;
    struct loop_io wake;
    struct list pipes;   /* all, closed ones included */
    size_t pipe_count;   /* of them */
    size_t young_bytes;  /* held by those that may still wait for a window; loop only */
    _Atomic size_t live; /* not closed; relaxed, since it only divides memory */
    pthread_t *threads;  /* owns: spec.threads of them, thread_count run */
    size_t thread_count;
    struct codec *cache[CACHE_CODECS]; /* owns, oldest first; loop only */
    size_t cache_count, cache_bytes;
};

static inline void
pipe_lock(struct pipe *p)
{
    int rc = pthread_mutex_lock(&p->lock);
    CHECK(rc == 0); /* cannot fail when set up right, and so below */
}

static inline void
pipe_unlock(struct pipe *p)
{
    int rc = pthread_mutex_unlock(&p->lock);
    CHECK(rc == 0);
}

/* The only writer of p->state. */
void pipe_goto_locked(struct pipe *p, enum pipe_state to) ANY_THREAD;
/* Bytes that one queue may hold now. */
size_t pipe_bound(const struct workers *w) ANY_THREAD;
/* Claims the wake-up: true means that the caller calls pipe_tell() once it has left the lock. */
MUST_USE bool pipe_claim_locked(struct pipe *p) ANY_THREAD;
void pipe_tell(struct pipe *p) ANY_THREAD;
/* Puts a pipe that is QUEUED at the end of the run queue. Not under the lock: p may be running,
 * over and, on the loop only, gone as soon as this is called. */
void pipe_enqueue(struct pipe *p) ANY_THREAD;
/* Can the output take more: below the low mark, half of its bound? */
bool pipe_output_low_locked(const struct pipe *p) ANY_THREAD;
bool pipe_input_low_locked(const struct pipe *p) ANY_THREAD;

/* One step of a pipe that is QUEUED and that the caller took from the run queue. true: it is QUEUED
 * again and still the caller's, who gives it back. */
MUST_USE bool pipe_step(struct pipe *p) ANY_THREAD;
/* One step of a pipe that the loop has moved to RUNNING, with the bound of inline work and without
 * a wake-up. */
void pipe_step_inline(struct pipe *p) LOOP_ONLY;

void blk_queue_push(struct blk_queue *q, struct blk *b) ANY_THREAD;
struct blk *blk_queue_pop(struct blk_queue *q) ANY_THREAD;
/* Frees a chain of blocks. */
void blk_put_all(struct blk *b) ANY_THREAD;

/* The loop's end of it: tells p's owner, or frees p. */
void pipe_on_ready(struct pipe *p) LOOP_ONLY;
void pipe_free(struct pipe *p) LOOP_ONLY;
/* Of a pipe that is over: what its codecs did, to the metrics. */
void pipe_count_codecs(struct pipe *p) LOOP_ONLY;
/* Moves p's numbers to the metrics. */
void pipe_harvest(struct pipe *p) LOOP_ONLY;

/* NULL: no memory. Emptied and tried again once if the budget refuses. */
MUST_USE struct codec *cache_get(struct workers *w, const struct codec_spec *spec) LOOP_ONLY;
/* Takes *cp, which is whole; nulls it. */
void cache_put(struct workers *w, struct codec **cp) LOOP_ONLY;
/* false: it was empty already. */
bool cache_drop(struct workers *w) LOOP_ONLY;

/* Starts the threads unless they run. false: not one of them. */
MUST_USE bool workers_start(struct workers *w) LOOP_ONLY;
/* Ends and joins them. */
void workers_join(struct workers *w) LOOP_ONLY;
#endif
