#ifndef CHMUX_NET_TUBE_H
#define CHMUX_NET_TUBE_H
/*
 * tube: a kernel pipe through which bytes go from one socket without TLS to another by splice(2),
 * without a copy into memory of ours and one out of it.
 *
 * It is filled when it is empty only, so that "nothing now" means the socket and never the pipe.
 *
 * It is a luxury: refused when half of the budget is out, and then the same bytes go through a
 * block.
 *
 * Ownership  Owns two descriptors and takes TUBE_BYTES from the budget, until tube_free().
 * Errors     As for conn_read() and conn_writev(): the conn says why.
 * Source     splice(2), pipe(7): F_SETPIPE_SZ, /proc/sys/fs/pipe-user-pages-soft.
 */
#include "net/conn.h"

#define TUBE_BYTES ((size_t)1 << 20) /* at 256 KiB half of what it saves is lost, at 64 KiB all */

struct tube {
    int in, out;
    size_t held; /* bytes inside */
};

/* NULL: no budget, no descriptors, or the system grants no pipe of that size. */
MUST_USE struct tube *tube_new(void) LOOP_ONLY;
void tube_free(struct tube **tp) LOOP_ONLY; /* and what it holds; nulls *tp; NULL is fine */
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
