#ifndef CHMUX_NET_TUBE_H
#define CHMUX_NET_TUBE_H
/*
 * tube: a kernel pipe through which bytes go from one socket without TLS to another by splice(2),
 * without a copy into memory of ours and one out of it.
 *
 * It is filled when it is empty only, so that "nothing now" means the socket and never the pipe,
 * and held while bytes are in it only: one that lies by serves all who are not kept waiting.
 * It is a luxury: refused when TUBES_MAX are out or a quarter of the budget is; the same bytes then
 * go through a block.
 *
 * Ownership  struct tubes owns the one that lies by. What tubes_get() gave is the caller's until
 *            tubes_put(); it counts TUBE_BYTES against the budget, and has two descriptors.
 * Errors     As for conn_read() and conn_writev(): the conn says why.
 * Source     splice(2), pipe(7): F_SETPIPE_SZ, /proc/sys/fs/pipe-user-pages-soft.
 */
#include "net/conn.h"

#define TUBE_BYTES ((size_t)1 << 20) /* at 256 KiB half of what it saves is lost, at 64 KiB all */
#define TUBES_MAX  32                /* half of what pipe-user-pages-soft allows a user */

struct tube {
    int in, out;
    size_t held; /* bytes inside */
};

struct tubes {
    struct tube *spare;
    unsigned out;
};

/* Empty. NULL: no budget, no descriptors, TUBES_MAX, or the system grants no pipe of that size. */
MUST_USE struct tube *tubes_get(struct tubes *ts) LOOP_ONLY;
/* Nulls *tp, and lets go what is still inside; NULL is fine. */
void tubes_put(struct tubes *ts, struct tube **tp) LOOP_ONLY;
/* None is out. */
void tubes_fini(struct tubes *ts) LOOP_ONLY;

/* It is empty, max > 0. *n > 0 with IO_OK only; IO_OK and nothing: see conn_splice_in(). */
enum io tube_fill(struct tube *t, struct conn *from, size_t max, size_t *n) LOOP_ONLY;
/* It is not empty. May take a part. */
enum io tube_drain(struct tube *t, struct conn *to, size_t *n) LOOP_ONLY;

static inline size_t
tube_held(const struct tube *t)
{
    return t == NULL ? 0 : t->held;
}
#endif
