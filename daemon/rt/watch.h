#ifndef CHMUX_RT_WATCH_H
#define CHMUX_RT_WATCH_H
/*
 * watch: tells when files have changed, by inotify on the folders they are in.
 *
 * What counts  A file written and closed, made, removed, renamed over; a symlink on the way to it,
 *              in any folder, that leads elsewhere (how Kubernetes and cert-manager rotate); for a
 *              folder, anything in it. What else happens in those folders is passed over.
 *              A file that is missing is watched for where it would be.
 * Settling     The callback comes WATCH_QUIET_US after the last change, at most WATCH_LIMIT_US
 *              after the first: files that belong together are seldom replaced in one step.
 * Bound        WATCH_MAX names; the rest is not watched.
 * Limits       Network file systems tell nobody of what other machines do.
 * Threads      A set is made by any thread (it may block) and then belongs to the loop.
 */
#include "rt/loop.h"

#define WATCH_MAX      512
#define WATCH_QUIET_US 300000
#define WATCH_LIMIT_US 3000000

struct watch_set;
/* NULL: no memory, or the kernel allows no more (errno says which). */
MUST_USE struct watch_set *watch_set_new(void) ANY_THREAD;
void watch_set_add(struct watch_set *s, const char *path) ANY_THREAD;
void watch_set_free(struct watch_set **sp) ANY_THREAD;

struct watch { /* embed; fields are watch's */
    struct loop *loop;
    struct watch_set *set; /* owns */
    struct loop_io io;
    struct timer settle;
    struct mono limit;
    loop_fn fn;
    void *arg;
};

/* false: no memory. To be watch_fini()ed in any case. */
MUST_USE bool watch_init(struct watch *w, struct loop *l, loop_fn fn, void *arg) LOOP_ONLY;
/* From now on this set, instead of the one before. Takes *sp; NULL, or no descriptors: the one
 * before stays, false. */
bool watch_take(struct watch *w, struct watch_set **sp) LOOP_ONLY;
void watch_fini(struct watch *w) LOOP_ONLY;
#endif
