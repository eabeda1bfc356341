#include "rt/aside.h"

#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/mem.h"
#include "rt/aside_private.h"

#include "base/no_block.h"

struct aside {
    struct loop *loop;           /* borrows */
    struct aside_shared *shared; /* shares */
    struct loop_io wake_io;
    bool busy;
};

static struct aside_shared *
shared_new(void)
{
    struct aside_shared *s = mem_zalloc(sizeof *s);
    if (s == NULL)
        return NULL;
    pthread_condattr_t attr;
    int rc = pthread_mutex_init(&s->lock, NULL);
    CHECK(rc == 0);
    rc = pthread_condattr_init(&attr);
    CHECK(rc == 0);
    rc = pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    CHECK(rc == 0);
    rc = pthread_cond_init(&s->left, &attr);
    CHECK(rc == 0);
    pthread_condattr_destroy(&attr);
    s->parties = 1;
    s->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (s->wake_fd >= 0)
        s->done = bq_new(1, s->wake_fd);
    if (s->done != NULL)
        return s;
    if (s->wake_fd >= 0)
        close(s->wake_fd);
    rc = pthread_cond_destroy(&s->left);
    CHECK(rc == 0);
    rc = pthread_mutex_destroy(&s->lock);
    CHECK(rc == 0);
    mem_free(s);
    return NULL;
}

static void
on_wake(void *arg, unsigned ready) LOOP_ONLY
{
    thr_check_loop();
    (void)ready;
    struct aside *a = arg;
    uint64_t edges;
    ssize_t n = read(a->shared->wake_fd, &edges, sizeof edges);
    CHECK(n == (ssize_t)sizeof edges || errno == EAGAIN || errno == EINTR);
    struct bq_item *item = bq_drain(a->shared->done);
    if (item == NULL)
        return;
    struct aside_job *job = CONTAINER_OF(item, struct aside_job, item);
    a->busy = false; /* before: done() may start the next */
    job->done(job);
}

struct aside *
aside_new(struct loop *l)
{
    struct aside *a = mem_zalloc(sizeof *a);
    if (a == NULL)
        return NULL;
    a->loop = l;
    a->shared = shared_new();
    if (a->shared == NULL)
        goto free_aside;
    if (!loop_io_add_level(l, &a->wake_io, a->shared->wake_fd, on_wake, a))
        goto leave;
    return a;
leave:
    aside_leave(&a->shared);
free_aside:
    mem_free(a);
    return NULL;
}

bool
aside_free(struct aside **ap, int64_t wait_us)
{
    struct aside *a = *ap;
    if (a == NULL)
        return true;
    *ap = NULL;
    loop_io_del(&a->wake_io);
    /* Closed first: a job that ends later finds nobody and is dropped by its thread. */
    bq_close(a->shared->done);
    struct bq_item *item = bq_drain(a->shared->done);
    if (item != NULL) {
        struct aside_job *job = CONTAINER_OF(item, struct aside_job, item);
        job->drop(job);
    }
    bool alone = aside_wait(a->shared, wait_us);
    aside_leave(&a->shared);
    mem_free(a);
    return alone;
}

static void
add_parties(struct aside_shared *s, int n)
{
    int rc = pthread_mutex_lock(&s->lock);
    CHECK(rc == 0);
    s->parties += n;
    rc = pthread_mutex_unlock(&s->lock);
    CHECK(rc == 0);
}

bool
aside_start(struct aside *a, struct aside_job *job)
{
    pthread_attr_t attr;
    sigset_t all, before;
    pthread_t thread;
    if (a->busy || pthread_attr_init(&attr) != 0)
        return false;
    int rc = pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    CHECK(rc == 0);
    job->shared = a->shared;
    add_parties(a->shared, 1);
    sigfillset(&all); /* signals are the loop's */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    a->busy = pthread_create(&thread, &attr, aside_thread, job) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (!a->busy)
        add_parties(a->shared, -1);
    pthread_attr_destroy(&attr);
    return a->busy;
}
