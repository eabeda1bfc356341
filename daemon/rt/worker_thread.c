#include "rt/pipe_impl.h"

#include <signal.h>
#include <sys/resource.h>

#include "base/log.h"

/* not on the loop: the workers themselves; but for workers_join(), which is for when it has ended
 */

/* Of this thread alone: on Linux niceness is a thread's own, whatever POSIX says of processes. A
 * step is at most 256 KiB, a millisecond or more of zstd; a loop that has to wait for its end makes
 * every request beside large transfers wait. */
static void
give_way(int by)
{
    if (by == 0)
        return;
    errno = 0;
    int was = getpriority(PRIO_PROCESS, 0); /* -1 is a niceness too */
    if ((was == -1 && errno != 0) || setpriority(PRIO_PROCESS, 0, was + by) < 0)
        LOG_W("worker_nice wanted=%d why=\"%s\"", by, strerror(errno));
}

static void *
worker_main(void *arg)
{
    thr_become(THR_WORKER);
    thr_check_worker();
    struct workers *w = arg;
    give_way(w->spec.nice);
    (void)pthread_setname_np(pthread_self(), "chmux-codec"); /* for ps only */
    struct bq_item *it = bq_pop_wait(w->todo);
    while (it != NULL) {
        /* While no other pipe waits, the same one stays here: another worker would be woken for
         * each step, and find the codec's memory in this one's cache. */
        bool again = pipe_step(CONTAINER_OF(it, struct pipe, run));
        it = again ? bq_rotate(w->todo, it) : bq_pop_wait(w->todo);
    }
    return NULL;
}

bool
workers_start(struct workers *w)
{
    if (w->thread_count > 0 || w->spec.threads == 0)
        return true;
    sigset_t all, before;
    sigfillset(&all); /* signals are the loop's */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = 0;
    while (rc == 0 && w->thread_count < w->spec.threads) {
        rc = pthread_create(&w->threads[w->thread_count], NULL, worker_main, w);
        w->thread_count += rc == 0;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc != 0)
        LOG_W("workers started=%zu wanted=%zu errno=%d", w->thread_count, w->spec.threads, rc);
    return w->thread_count > 0;
}

void
workers_join(struct workers *w)
{
    bq_close(w->todo);
    for (size_t i = 0; i < w->thread_count; i++) {
        int rc = pthread_join(w->threads[i], NULL);
        CHECK(rc == 0);
    }
    w->thread_count = 0;
}
