#ifndef CHMUX_NET_RESOLVER_PRIVATE_H
#define CHMUX_NET_RESOLVER_PRIVATE_H
/*
 * resolver_private: what the loop's side (resolver.c) and the helper threads
 * (resolver_worker.c) share, and the hook for tests. Nobody else includes it.
 */
#include <pthread.h>

#include "net/resolver.h"
#include "rt/bq.h"

/* The blocking look-up: fills at most cap addresses, with port 0. Returns 0 or an EAI_ code; with
 * EAI_SYSTEM *sys_errno says more. */
typedef int (*resolver_lookup_fn)(
    const char *host, struct addr *addrs, size_t cap, size_t *count, int *sys_errno);

/* What outlives whoever leaves first. */
struct resolver_shared {
    pthread_mutex_t lock;
    int parties;            /* under lock: the loop, and each thread that runs */
    struct bq *todo, *done; /* owns */
    int wake_fd;            /* owns; written through `done` */
    resolver_lookup_fn lookup;
};

/* One look-up. Owned by the loop, but by whichever side has it in hand while it is under way. */
struct resolver_job {
    struct bq_item item;
    /* The loop's alone: no thread looks at them. */
    struct resolver *resolver; /* borrows */
    struct list link;          /* on resolver->numeric, or on no list */
    struct loop_task task;     /* numeric hosts */
    resolver_fn fn;
    void *arg;
    bool cancelled;
    uint16_t port;
    /* Results, written by a thread before it gives the job back. */
    struct addr addrs[RESOLVER_MAX_ADDRS];
    size_t count;
    int gai_code;
    int sys_errno;
    char host[]; /* input */
};

/* getaddrinfo(). */
int resolver_lookup(const char *host, struct addr *addrs, size_t cap, size_t *count, int *sys_errno)
    ANY_THREAD;
/* A thread's entry; arg is the shared part, one party of which it is. */
void *resolver_worker(void *arg);
/* One party more, by one that is there. */
void resolver_enter(struct resolver_shared *s) ANY_THREAD;
/* One party leaves; the last one frees. Nulls *sp. */
void resolver_leave(struct resolver_shared **sp) ANY_THREAD;
/* Test hook: call it before the first look-up. */
void resolver_set_lookup(struct resolver *r, resolver_lookup_fn lookup) LOOP_ONLY;
#endif
