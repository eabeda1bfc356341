#ifndef CHMUX_RT_ASIDE_PRIVATE_H
#define CHMUX_RT_ASIDE_PRIVATE_H
/*
 * aside_private: what the loop's side (aside.c) and the job's thread (aside_thread.c) share. Nobody
 * else includes it.
 */
#include <pthread.h>

#include "rt/aside.h"

/* Outlives whichever side leaves first. */
struct aside_shared {
    pthread_mutex_t lock;
    int parties; /* under lock: the loop, and a thread while it runs */
    pthread_cond_t left;
    struct bq *done; /* owns */
    int wake_fd;     /* owns; written through `done` */
};

/* The thread's entry; arg is the job, whose shared part counts it as a party. */
void *aside_thread(void *arg);
/* Blocks until there is no thread any more, at most so long. false: there is. */
MUST_USE bool aside_wait(struct aside_shared *s, int64_t us) ANY_THREAD;
/* One side leaves; the last one frees. Nulls *sp. */
void aside_leave(struct aside_shared **sp) ANY_THREAD;
#endif
