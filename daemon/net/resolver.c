#include "net/resolver.h"

#include <netdb.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/mem.h"
#include "net/resolver_private.h"

#include "base/no_block.h"

struct resolver {
    struct loop *loop;              /* borrows */
    struct resolver_shared *shared; /* shares */
    struct loop_io wake_io;
    struct list numeric; /* jobs answered by a deferred call */
    size_t job_count;    /* under way, cancelled ones included */
    size_t with_threads; /* of these, given to the threads and not back yet */
    unsigned thread_count;
    bool in_callback;
};

static struct resolver_shared *
shared_new(void)
{
    struct resolver_shared *s = mem_zalloc(sizeof(*s));
    if (s == NULL)
        return NULL;
    int rc = pthread_mutex_init(&s->lock, NULL);
    CHECK(rc == 0);
    s->parties = 1;
    s->lookup = resolver_lookup;
    s->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (s->wake_fd < 0)
        goto free_shared;
    s->todo = bq_new(RESOLVER_MAX_JOBS, -1);
    s->done = bq_new(RESOLVER_MAX_JOBS, s->wake_fd);
    if (s->todo == NULL || s->done == NULL) {
        resolver_leave(&s);
        return NULL;
    }
    return s;
free_shared:
    rc = pthread_mutex_destroy(&s->lock);
    CHECK(rc == 0);
    mem_free(s);
    return NULL;
}

/* The one call back, and the end of the job. */
static void LOOP_ONLY
job_finish(struct resolver_job *job)
{
    struct resolver *r = job->resolver;
    char why[128];
    r->job_count--;
    if (!job->cancelled) {
        if (job->gai_code == EAI_SYSTEM)
            snprintf(why, sizeof(why), "%s", strerror(job->sys_errno));
        else if (job->gai_code != 0)
            snprintf(why, sizeof(why), "%s", gai_strerror(job->gai_code));
        else
            snprintf(why, sizeof(why), "%s", job->count > 0 ? "" : "the name has no IP address");
        for (size_t i = 0; i < job->count; i++)
            addr_set_port(&job->addrs[i], job->port);
        r->in_callback = true;
        job->fn(job->arg, job->addrs, job->count, why);
        r->in_callback = false;
    }
    mem_free(job);
}

static void
on_wake(void *arg, unsigned ready) LOOP_ONLY
{
    thr_check_loop();
    (void)ready;
    struct resolver *r = arg;
    uint64_t edges;
    /* Emptied before the drain: an edge after it wakes us again. */
    ssize_t n = read(r->shared->wake_fd, &edges, sizeof(edges));
    CHECK(n == (ssize_t)sizeof(edges) || errno == EAGAIN || errno == EINTR);
    for (struct bq_item *item = bq_drain(r->shared->done), *next; item != NULL; item = next) {
        next = item->next;
        r->with_threads--;
        job_finish(CONTAINER_OF(item, struct resolver_job, item));
    }
}

static void
on_numeric(void *arg) LOOP_ONLY
{
    thr_check_loop();
    struct resolver_job *job = arg;
    list_remove(&job->link);
    job_finish(job);
}

struct resolver *
resolver_new(struct loop *l)
{
    struct resolver *r = mem_zalloc(sizeof(*r));
    if (r == NULL)
        return NULL;
    r->loop = l;
    list_init(&r->numeric);
    r->shared = shared_new();
    if (r->shared == NULL)
        goto free_resolver;
    if (!loop_io_add_level(l, &r->wake_io, r->shared->wake_fd, on_wake, r))
        goto leave;
    return r;
leave:
    resolver_leave(&r->shared);
free_resolver:
    mem_free(r);
    return NULL;
}

static void
free_items(struct bq_item *item)
{
    for (struct bq_item *next; item != NULL; item = next) {
        next = item->next;
        mem_free(CONTAINER_OF(item, struct resolver_job, item));
    }
}

void
resolver_free(struct resolver **rp)
{
    struct resolver *r = *rp;
    if (r == NULL)
        return;
    *rp = NULL;
    CHECK(!r->in_callback);
    loop_io_del(&r->wake_io);
    for (struct list *node; (node = list_first(&r->numeric)) != NULL;) {
        struct resolver_job *job = CONTAINER_OF(node, struct resolver_job, link);
        list_remove(node);
        loop_undefer(&job->task);
        mem_free(job);
    }
    /* Closed first, so that nothing comes in behind the drain. A job that a thread has in hand
     * comes back to a closed queue, and the thread frees it. */
    bq_close(r->shared->todo);
    bq_close(r->shared->done);
    free_items(bq_drain(r->shared->todo));
    free_items(bq_drain(r->shared->done));
    resolver_leave(&r->shared);
    mem_free(r);
}

/* Detached: it may hang in a look-up when the daemon wants to leave. */
static bool LOOP_ONLY
thread_start(struct resolver *r)
{
    pthread_attr_t attr;
    sigset_t all, before;
    pthread_t thread;
    if (pthread_attr_init(&attr) != 0)
        return false;
    int rc = pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    CHECK(rc == 0);
    struct resolver_shared *given = r->shared;
    resolver_enter(given);
    sigfillset(&all); /* signals are the loop's */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    bool started = pthread_create(&thread, &attr, resolver_worker, given) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (started)
        r->thread_count++;
    else
        resolver_leave(&given);
    pthread_attr_destroy(&attr);
    return started;
}

/* true: some thread will take it, if only when it is through with another. */
static bool LOOP_ONLY
give_to_threads(struct resolver *r, struct resolver_job *job)
{
    bool all_busy = r->with_threads >= r->thread_count;
    if (all_busy && r->thread_count < RESOLVER_THREADS && !thread_start(r) && r->thread_count == 0)
        return false;
    if (bq_try_push(r->shared->todo, &job->item) != BQ_OK)
        return false;
    r->with_threads++;
    return true;
}

struct resolver_job *
resolver_start(struct resolver *r, const char *host, uint16_t port, resolver_fn fn, void *arg)
{
    size_t host_len = strlen(host);
    if (r->job_count == RESOLVER_MAX_JOBS)
        return NULL;
    struct resolver_job *job = mem_zalloc(sizeof(*job) + host_len + 1);
    if (job == NULL)
        return NULL;
    job->resolver = r;
    job->fn = fn;
    job->arg = arg;
    job->port = port;
    memcpy(job->host, host, host_len + 1);
    if (addr_from_ip(host, port, &job->addrs[0])) {
        job->count = 1;
        list_push_back(&r->numeric, &job->link);
        loop_defer(r->loop, &job->task, on_numeric, job);
    } else if (!give_to_threads(r, job)) {
        mem_free(job);
        return NULL;
    }
    r->job_count++;
    return job;
}

void
resolver_cancel(struct resolver_job **jp)
{
    struct resolver_job *job = *jp;
    if (job == NULL)
        return;
    *jp = NULL;
    /* It may be in a thread's hands: it is freed when it comes back. */
    job->cancelled = true;
}

void
resolver_set_lookup(struct resolver *r, resolver_lookup_fn lookup)
{
    CHECK(r->thread_count == 0);
    r->shared->lookup = lookup;
}
