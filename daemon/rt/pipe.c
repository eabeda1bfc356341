#include "rt/pipe.h"

#include "base/mem.h"
#include "base/metric.h"
#include "rt/pipe_impl.h"

#include "base/no_block.h"

/* ---- what both sides use ---- */

void
pipe_goto_locked(struct pipe *p, enum pipe_state to)
{
    static const struct {
        const char *name;
        unsigned next;
    } states[] = {
#define TO(name)      (1u << PS_##name)
#define X(name, next) [PS_##name] = {#name, next},
        PIPE_STATES(X)
#undef X
#undef TO
    };
    CHECK(states[p->state].next & (1u << to));
    p->state = to;
}

size_t
pipe_bound(const struct workers *w)
{
    size_t limit = mem_limit(), used = mem_used();
    size_t left = limit > used ? limit - used : 0;
    size_t live = atomic_load_explicit(&w->live, memory_order_relaxed);
    size_t share = left / (4 * size_max(live, 1));
    return size_min(size_max(share, PIPE_STEP), w->spec.queue_bytes);
}

bool
pipe_claim_locked(struct pipe *p)
{
    bool mine = !p->told;
    p->told = true;
    return mine;
}

void
pipe_tell(struct pipe *p)
{
    enum bq_result given = bq_try_push(p->w->ready, &p->ready);
    CHECK(given == BQ_OK); /* each pipe is in it at most once, and it takes PIPE_MAX */
}

void
pipe_enqueue(struct pipe *p)
{
    enum bq_result given = bq_try_push(p->w->todo, &p->run);
    CHECK(given != BQ_FULL); /* as above */
    /* Closed: workers_free() has been called meanwhile, and frees p. */
}

/* Half of a bound, so that not every block that goes wakes the other side. */
static bool
is_low(const struct blk_queue *q, const struct workers *w)
{
    return q->items <= w->spec.queue_items / 2 && q->bytes <= pipe_bound(w) / 2;
}

bool
pipe_output_low_locked(const struct pipe *p)
{
    return is_low(&p->out, p->w);
}

bool
pipe_input_low_locked(const struct pipe *p)
{
    return is_low(&p->in, p->w);
}

void
blk_queue_push(struct blk_queue *q, struct blk *b)
{
    b->next = NULL;
    if (q->tail == NULL)
        q->head = b;
    else
        q->tail->next = b;
    q->tail = b;
    q->items++;
    q->bytes += blk_len(b);
}

struct blk *
blk_queue_pop(struct blk_queue *q)
{
    struct blk *b = q->head;
    if (b == NULL)
        return NULL;
    q->head = b->next;
    if (q->head == NULL)
        q->tail = NULL;
    b->next = NULL;
    q->items--;
    q->bytes -= blk_len(b);
    return b;
}

void
blk_put_all(struct blk *b)
{
    while (b != NULL) {
        struct blk *next = b->next;
        blk_put(&b);
        b = next;
    }
}

/* ---- a pipe's life ---- */

/* What a pipe holds of the budget besides codecs and blocks. */
static size_t
own_bytes(const struct pipe *p)
{
    return sizeof(*p) + (p->chain.mid == NULL ? 0 : PIPE_MID);
}

static void LOOP_ONLY
give_codec(struct workers *w, struct codec **cp)
{
    if (*cp == NULL)
        return;
    if (codec_why(*cp) == NULL)
        cache_put(w, cp);
    else
        codec_free(cp);
}

/* An exchange keeps its pipes to its end, and that may have to wait for memory which the codecs of
 * a request that was sent long ago would hold. */
static void LOOP_ONLY
drop_codecs(struct pipe *p)
{
    if (p->chain.dec.codec == NULL && p->chain.enc.codec == NULL)
        return;
    pipe_count_codecs(p);
    give_codec(p->w, &p->chain.dec.codec);
    give_codec(p->w, &p->chain.enc.codec);
}

void
pipe_free(struct pipe *p)
{
    struct workers *w = p->w;
    drop_codecs(p);
    pipe_harvest(p);
    list_remove(&p->link);
    w->pipe_count--;
    blk_put_all(p->in.head);
    blk_put_all(p->out.head);
    blk_put(&p->chain.cur);
    blk_put(&p->chain.held);
    CHECK(p->chain.out == NULL);
    blk_put(&p->spare);
    mem_give(own_bytes(p));
    mem_free(p->chain.mid);
    int rc = pthread_mutex_destroy(&p->lock);
    CHECK(rc == 0);
    OBJ_POISON(p);
    mem_free(p);
}

static struct pipe *LOOP_ONLY
pipe_alloc(struct workers *w, bool with_mid)
{
    size_t bytes = sizeof(struct pipe) + (with_mid ? PIPE_MID : 0);
    if (!mem_take_long(bytes))
        return NULL;
    struct pipe *p = mem_zalloc(sizeof(*p));
    char *mid = with_mid ? mem_alloc(PIPE_MID) : NULL;
    if (p == NULL || (with_mid && mid == NULL)) {
        mem_free(p);
        mem_free(mid);
        mem_give(bytes);
        return NULL;
    }
    OBJ_INIT(p, PIPE_MAGIC);
    p->w = w;
    p->chain.mid = mid;
    int rc = pthread_mutex_init(&p->lock, NULL);
    CHECK(rc == 0); /* a plain one takes nothing */
    list_push_back(&w->pipes, &p->link);
    w->pipe_count++;
    return p;
}

static struct pipe *LOOP_ONLY
pipe_make(struct workers *w, const struct pipe_spec *spec)
{
    bool decodes = spec->decode.id != CODEC_IDENTITY;
    bool encodes = spec->encode.id != CODEC_IDENTITY;
    CHECK(decodes || encodes);
    CHECK(!spec->check || (decodes && !encodes));
    CHECK(!spec->decode.encode && (!encodes || spec->encode.encode));
    if (w->pipe_count >= PIPE_MAX)
        return NULL;
    struct pipe *p = pipe_alloc(w, spec->check || (decodes && encodes));
    if (p == NULL)
        return NULL;
    p->spec = *spec;
    p->spare = blk_get_sized(PIPE_SPARE);
    if (p->spare == NULL)
        goto fail;
    if (decodes && (p->chain.dec.codec = cache_get(w, &spec->decode)) == NULL)
        goto fail;
    if (encodes && (p->chain.enc.codec = cache_get(w, &spec->encode)) == NULL)
        goto fail;
    return p;
fail:
    pipe_free(p);
    return NULL;
}

/* Its decoder takes more memory once it has seen what it needs. */
static bool
needs_window(const struct pipe_spec *spec)
{
    return spec->decode.id != CODEC_IDENTITY && spec->decode.id != CODEC_GZIP &&
           spec->decode.id != CODEC_DEFLATE;
}

static void LOOP_ONLY
grow_up(struct pipe *p)
{
    p->w->young_bytes -= p->young_bytes;
    p->young_bytes = 0;
}

static size_t
first_bytes(const struct pipe *p)
{
    const struct codec *enc = p->chain.enc.codec;
    return own_bytes(p) + PIPE_SPARE + codec_memory(p->chain.dec.codec) +
           (enc == NULL ? 0 : codec_memory(enc));
}

struct pipe *
pipe_new(struct workers *w, const struct pipe_spec *spec, loop_fn fn, void *arg)
{
    struct pipe *p = NULL;
    bool young = needs_window(spec);
    if ((!young || w->young_bytes <= mem_long_limit() / 4) && workers_start(w)) {
        p = pipe_make(w, spec);
        if (p == NULL && cache_drop(w))
            p = pipe_make(w, spec);
    }
    if (p == NULL) {
        metric_inc(M_PIPE_MEMORY_WAITS);
        return NULL;
    }
    p->fn = fn;
    p->arg = arg;
    p->young_bytes = young ? first_bytes(p) : 0;
    w->young_bytes += p->young_bytes;
    atomic_fetch_add_explicit(&w->live, 1, memory_order_relaxed);
    return p;
}

void
pipe_close(struct pipe **pp)
{
    struct pipe *p = *pp;
    if (p == NULL)
        return;
    *pp = NULL;
    OBJ_CHECK(p, PIPE_MAGIC);
    grow_up(p);
    atomic_fetch_sub_explicit(&p->w->live, 1, memory_order_relaxed);
    pipe_lock(p);
    CHECK(!p->closed);
    p->closed = true;
    struct blk *in = p->in.head, *out = p->out.head;
    p->in.head = p->in.tail = p->out.head = p->out.tail = NULL;
    /* What the step has in hand stays counted: it takes it off. */
    struct blk_queue *q = &p->in;
    for (const struct blk *b = in; b != NULL; b = b->next) {
        q->items--;
        q->bytes -= blk_len(b);
    }
    p->out.items = p->out.bytes = 0;
    bool busy = p->state == PS_QUEUED || p->state == PS_RUNNING || p->told;
    pipe_unlock(p);
    blk_put_all(in);
    blk_put_all(out);
    if (!busy) /* else by pipe_on_ready() */
        pipe_free(p);
}

/* Codecs kept for the next pipe go first when one that runs lacks memory. */
static void LOOP_ONLY
feed(struct pipe *p)
{
    pipe_lock(p);
    bool hungry = p->state == PS_HUNGRY;
    pipe_unlock(p);
    if (hungry && cache_drop(p->w))
        pipe_poke(p);
}

void
pipe_on_ready(struct pipe *p)
{
    OBJ_CHECK(p, PIPE_MAGIC);
    pipe_lock(p);
    p->told = false;
    bool closed = p->closed;
    bool busy = p->state == PS_QUEUED || p->state == PS_RUNNING, over = p->state == PS_OVER;
    pipe_unlock(p);
    if (closed) {
        if (!busy)
            pipe_free(p);
        return;
    }
    if (over)
        drop_codecs(p);
    feed(p);
    p->fn(p->arg); /* may close p */
}

/* ---- input ---- */

/* A change that the codecs may go on with. Returns true if the caller is to enqueue p once it has
 * left the lock. */
static bool
resume_locked(struct pipe *p, bool go)
{
    if (go)
        pipe_goto_locked(p, PS_QUEUED);
    return go;
}

size_t
pipe_room(struct pipe *p)
{
    size_t room = 0;
    pipe_lock(p);
    size_t bound = pipe_bound(p->w);
    if (!p->in_full)
        p->in_full = p->in.items >= p->w->spec.queue_items || p->in.bytes >= bound ||
                     (p->young_bytes > 0 && p->in.items > 0);
    if (!p->in_full && !p->ended && p->state != PS_OVER)
        room = bound - p->in.bytes;
    pipe_unlock(p);
    return room;
}

/* Leaves the lock. Small work of a pipe that rests is done here and now. */
static void LOOP_ONLY
go_and_unlock(struct pipe *p, bool small)
{
    bool here = small && p->w->spec.inline_limit > 0 && p->state == PS_RESTING;
    bool queue = false;
    if (here)
        pipe_goto_locked(p, PS_RUNNING);
    else
        queue = resume_locked(p, p->state == PS_RESTING);
    pipe_unlock(p);
    if (queue)
        pipe_enqueue(p);
    if (here) {
        pipe_step_inline(p);
        feed(p);
    }
}

void
pipe_put(struct pipe *p, struct blk **bp, bool flush)
{
    struct blk *b = *bp;
    *bp = NULL;
    size_t len = blk_len(b);
    CHECK(len > 0);
    pipe_lock(p);
    CHECK(!p->ended);
    p->bytes_in += len;
    if (p->state == PS_OVER) { /* it failed, and wants no more */
        pipe_unlock(p);
        blk_put(&b);
        return;
    }
    blk_queue_push(&p->in, b);
    p->flush |= flush;
    go_and_unlock(p, len <= p->w->spec.inline_limit);
}

void
pipe_flush(struct pipe *p)
{
    pipe_lock(p);
    CHECK(!p->ended);
    if (p->state == PS_OVER) {
        pipe_unlock(p);
        return;
    }
    p->flush = true;
    go_and_unlock(p, true);
}

void
pipe_end(struct pipe *p, bool cut)
{
    pipe_lock(p);
    CHECK(!p->ended);
    p->ended = true;
    p->cut = cut;
    if (p->state == PS_OVER)
        pipe_unlock(p);
    else
        go_and_unlock(p, true);
}

void
pipe_poke(struct pipe *p)
{
    pipe_lock(p);
    if (p->state == PS_RUNNING)
        p->poked = true;
    bool queue = resume_locked(p, p->state == PS_HUNGRY || p->state == PS_SHORT);
    pipe_unlock(p);
    if (queue)
        pipe_enqueue(p);
}

/* ---- output ---- */

bool
pipe_has_output(struct pipe *p)
{
    pipe_lock(p);
    bool has = p->out.head != NULL;
    pipe_unlock(p);
    return has;
}

struct blk *
pipe_take(struct pipe *p)
{
    pipe_lock(p);
    struct blk *b = blk_queue_pop(&p->out);
    bool queue = resume_locked(p, p->state == PS_PARKED && pipe_output_low_locked(p));
    pipe_unlock(p);
    p->bytes_out += blk_len(b);
    if (b != NULL)
        grow_up(p);
    if (queue)
        pipe_enqueue(p);
    return b;
}

void
pipe_give_back(struct pipe *p, struct blk **bp)
{
    struct blk *b = *bp;
    *bp = NULL;
    CHECK(b != NULL);
    pipe_lock(p);
    if (b->cap == PIPE_SPARE && p->spare == NULL) {
        b->start = b->end = 0;
        p->spare = b;
        b = NULL;
    }
    pipe_unlock(p);
    blk_put(&b);
    /* Only now is there a block for a pipe that waits for one. */
    pipe_lock(p);
    if (p->state == PS_RUNNING)
        p->poked = true;
    bool queue = resume_locked(p, p->state == PS_SHORT);
    pipe_unlock(p);
    if (queue)
        pipe_enqueue(p);
}

enum pipe_status
pipe_status(struct pipe *p)
{
    enum pipe_status status = PIPE_OPEN;
    pipe_lock(p);
    bool over = p->state == PS_OVER;
    if (over && p->out.head == NULL)
        status = p->result;
    else if (p->state == PS_HUNGRY)
        status = PIPE_STARVED;
    pipe_unlock(p);
    if (over)
        drop_codecs(p);
    return status;
}

const struct pipe_error *
pipe_error(const struct pipe *p)
{
    return &p->error;
}

uint64_t
pipe_bytes_in(const struct pipe *p)
{
    return p->bytes_in;
}

uint64_t
pipe_bytes_out(const struct pipe *p)
{
    return p->bytes_out;
}
