#include "rt/pipe_impl.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/metric.h"

#include "base/no_block.h"

#define TELL_BUDGET 64 /* pipes told in one callback, then sockets get their turn */

/* ---- wake-ups ---- */

/* The descriptor is level-triggered: the loop polls, and comes back. */
static void LOOP_ONLY
come_back(const struct workers *w)
{
    const uint64_t one = 1;
    ssize_t n = write(w->wake_fd, &one, sizeof(one));
    CHECK(n == (ssize_t)sizeof(one) || errno == EAGAIN || errno == EINTR);
}

static void
on_wake(void *arg, unsigned events)
{
    thr_check_loop();
    (void)events;
    struct workers *w = arg;
    uint64_t edges;
    loop_label(w->loop, "pipes");
    ssize_t n = read(w->wake_fd, &edges, sizeof(edges));
    CHECK(n == (ssize_t)sizeof(edges) || errno == EAGAIN || errno == EINTR);
    bool more = w->batch != NULL; /* then ready is not drained now, and may hold others */
    if (w->batch == NULL)
        w->batch = bq_drain(w->ready);
    for (int i = 0; i < TELL_BUDGET && w->batch != NULL; i++) {
        struct pipe *p = CONTAINER_OF(w->batch, struct pipe, ready);
        w->batch = w->batch->next; /* p may be gone, or in ready again, once it is told */
        pipe_on_ready(p);
    }
    more |= w->batch != NULL;
    struct bq_item *it = w->spec.threads == 0 ? bq_try_pop(w->todo) : NULL;
    if (it != NULL) {
        struct pipe *p = CONTAINER_OF(it, struct pipe, run);
        if (pipe_step(p))
            pipe_enqueue(p);
        more = true;
    }
    if (more)
        come_back(w);
}

/* ---- workers ---- */

struct workers *
workers_new(struct loop *l, const struct workers_spec *spec)
{
    CHECK(spec->queue_items > 0 && spec->queue_bytes > 0);
    struct workers *w = mem_zalloc(sizeof(*w));
    if (w == NULL)
        return NULL;
    w->loop = l;
    w->spec = *spec;
    list_init(&w->pipes);
    w->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (w->wake_fd < 0)
        goto fail;
    /* With no threads the loop serves the run queue, and is woken for that too. */
    w->todo = bq_new(PIPE_MAX, spec->threads == 0 ? w->wake_fd : -1);
    w->ready = bq_new(PIPE_MAX, w->wake_fd);
    w->threads = mem_zalloc(sizeof(w->threads[0]) * size_max(spec->threads, 1));
    if (w->todo == NULL || w->ready == NULL || w->threads == NULL)
        goto fail;
    if (!loop_io_add_level(l, &w->wake, w->wake_fd, on_wake, w))
        goto fail;
    return w;
fail:
    if (w->wake_fd >= 0)
        close(w->wake_fd);
    bq_free(&w->todo);
    bq_free(&w->ready);
    mem_free(w->threads);
    mem_free(w);
    return NULL;
}

void
workers_free(struct workers **wp)
{
    struct workers *w = *wp;
    if (w == NULL)
        return;
    *wp = NULL;
    CHECK(atomic_load_explicit(&w->live, memory_order_relaxed) == 0);
    workers_join(w);
    loop_io_del(&w->wake);
    /* What still waited to be seen as closed: nobody else knows of it now. */
    (void)!bq_drain(w->todo);
    (void)!bq_drain(w->ready);
    struct list *node;
    while ((node = list_first(&w->pipes)) != NULL)
        pipe_free(CONTAINER_OF(node, struct pipe, link));
    (void)cache_drop(w);
    bq_free(&w->todo);
    bq_free(&w->ready);
    close(w->wake_fd);
    mem_free(w->threads);
    mem_free(w);
}

/* ---- codecs kept for the next ---- */

static bool
same_spec(const struct codec_spec *a, const struct codec_spec *b)
{
    return a->id == b->id && a->encode == b->encode && a->level == b->level &&
           a->method == b->method && a->max_memory == b->max_memory;
}

static struct codec *LOOP_ONLY
cache_remove(struct workers *w, size_t at)
{
    struct codec *c = w->cache[at];
    w->cache_count--;
    memmove(&w->cache[at], &w->cache[at + 1], (w->cache_count - at) * sizeof(w->cache[0]));
    w->cache_bytes -= codec_memory(c);
    return c;
}

struct codec *
cache_get(struct workers *w, const struct codec_spec *spec)
{
    for (size_t i = w->cache_count; i-- > 0;)
        if (same_spec(codec_spec_of(w->cache[i]), spec))
            return cache_remove(w, i);
    return codec_new(spec);
}

void
cache_put(struct workers *w, struct codec **cp)
{
    struct codec *c = *cp;
    *cp = NULL;
    size_t bytes = codec_memory(c);
    size_t cap = size_min(CACHE_BYTES, mem_limit() / 8);
    if (bytes > cap) {
        codec_free(&c);
        return;
    }
    codec_reset(c);
    while (w->cache_count == CACHE_CODECS || w->cache_bytes + bytes > cap) {
        struct codec *oldest = cache_remove(w, 0);
        codec_free(&oldest);
    }
    w->cache[w->cache_count++] = c;
    w->cache_bytes += bytes;
}

bool
cache_drop(struct workers *w)
{
    bool any = w->cache_count > 0;
    while (w->cache_count > 0) {
        struct codec *c = cache_remove(w, w->cache_count - 1);
        codec_free(&c);
    }
    return any;
}

/* ---- metrics ---- */

/* The rows of chmux_codec_bytes_total stand in the order of the codecs, four each. */
static void LOOP_ONLY
count_codec(const struct codec *c, uint64_t in, uint64_t out)
{
    _Static_assert(M_CODEC_BLOCKS_ENCODE_OUT - M_CODEC_GZIP_DECODE_IN == (CODEC_COUNT - 1) * 4 - 1,
        "a codec without its rows");
    if (c == NULL)
        return;
    const struct codec_spec *spec = codec_spec_of(c);
    unsigned row = ((unsigned)spec->id - 1) * 4 + (spec->encode ? 2 : 0);
    metric_add((enum metric_id)(M_CODEC_GZIP_DECODE_IN + row), (int64_t)in);
    metric_add((enum metric_id)(M_CODEC_GZIP_DECODE_IN + row + 1), (int64_t)out);
}

void
pipe_count_codecs(struct pipe *p)
{
    pipe_lock(p);
    struct pipe_numbers n = p->numbers;
    p->numbers.dec_in = p->numbers.dec_out = p->numbers.enc_in = p->numbers.enc_out = 0;
    pipe_unlock(p);
    count_codec(p->chain.dec.codec, n.dec_in, n.dec_out);
    count_codec(p->chain.enc.codec, n.enc_in, n.enc_out);
}

void
pipe_harvest(struct pipe *p)
{
    pipe_lock(p);
    struct pipe_numbers n = p->numbers;
    p->numbers = (struct pipe_numbers){0};
    pipe_unlock(p);
    metric_add(M_WORKER_BUSY_US, (int64_t)n.worker_us);
    metric_add(M_PIPE_STEPS_WORKER, (int64_t)n.worker_steps);
    metric_add(M_PIPE_STEPS_LOOP, (int64_t)n.loop_steps);
    metric_add(M_PIPE_MEMORY_WAITS, (int64_t)n.memory_waits);
    count_codec(p->chain.dec.codec, n.dec_in, n.dec_out);
    count_codec(p->chain.enc.codec, n.enc_in, n.enc_out);
}

void
workers_update_metrics(struct workers *w)
{
    int64_t running = 0, parked = 0, resting = 0, in = 0, out = 0;
    LIST_EACH (node, &w->pipes) {
        struct pipe *p = CONTAINER_OF(node, struct pipe, link);
        pipe_harvest(p);
        pipe_lock(p);
        in += (int64_t)p->in.bytes;
        out += (int64_t)p->out.bytes;
        switch (p->state) {
        case PS_QUEUED:
        case PS_RUNNING: running++; break;
        case PS_PARKED:
        case PS_SHORT:
        case PS_HUNGRY: parked++; break;
        case PS_RESTING:
        case PS_OVER: resting++; break;
        }
        pipe_unlock(p);
    }
    metric_set(M_WORKERS, (int64_t)w->thread_count);
    metric_set(M_PIPES_RUNNING, running);
    metric_set(M_PIPES_PARKED, parked);
    metric_set(M_PIPES_RESTING, resting);
    metric_set(M_PIPE_BYTES_IN, in);
    metric_set(M_PIPE_BYTES_OUT, out);
}
