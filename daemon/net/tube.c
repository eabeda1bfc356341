#include "net/tube.h"

#include <fcntl.h>
#include <unistd.h>

#include "base/mem.h"

#include "base/no_block.h"

static void
tube_free(struct tube **tp)
{
    struct tube *t = *tp;
    if (t == NULL)
        return;
    *tp = NULL;
    close(t->in);
    close(t->out);
    mem_free(t);
}

static struct tube *
tube_new(void)
{
    struct tube *t = mem_zalloc(sizeof *t);
    int fds[2];
    if (t == NULL || pipe2(fds, O_NONBLOCK | O_CLOEXEC) != 0) {
        mem_free(t);
        return NULL;
    }
    t->out = fds[0];
    t->in = fds[1];
    if (fcntl(t->in, F_SETPIPE_SZ, (int)TUBE_BYTES) < (int)TUBE_BYTES)
        tube_free(&t);
    return t;
}

struct tube *
tubes_get(struct tubes *ts)
{
    if (ts->out == TUBES_MAX || !mem_take_spare(TUBE_BYTES))
        return NULL;
    struct tube *t = ts->spare != NULL ? ts->spare : tube_new();
    ts->spare = NULL;
    if (t == NULL)
        mem_give(TUBE_BYTES);
    else
        ts->out++;
    return t;
}

void
tubes_put(struct tubes *ts, struct tube **tp)
{
    struct tube *t = *tp;
    if (t == NULL)
        return;
    *tp = NULL;
    ts->out--;
    mem_give(TUBE_BYTES);
    if (t->held == 0 && ts->spare == NULL)
        ts->spare = t;
    else
        tube_free(&t);
}

void
tubes_fini(struct tubes *ts)
{
    CHECK(ts->out == 0);
    tube_free(&ts->spare);
}

enum io
tube_fill(struct tube *t, struct conn *from, size_t max, size_t *n)
{
    CHECK(t->held == 0 && max > 0);
    enum io r = conn_splice_in(from, t->in, size_min(max, TUBE_BYTES), n);
    t->held = *n;
    return r;
}

enum io
tube_drain(struct tube *t, struct conn *to, size_t *n)
{
    CHECK(t->held > 0);
    enum io r = conn_splice_out(to, t->out, t->held, n);
    t->held -= *n;
    return r;
}
