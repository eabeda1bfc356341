#include "rt/aside_private.h"

#include <unistd.h>

#include "base/mem.h"

/* not on the loop: this is the job's thread */

bool
aside_wait(struct aside_shared *s, int64_t us)
{
    struct timespec until;
    int rc = clock_gettime(CLOCK_MONOTONIC, &until);
    CHECK(rc == 0);
    int64_t ns = until.tv_nsec + us % 1000000 * 1000;
    until.tv_sec += us / 1000000 + ns / 1000000000;
    until.tv_nsec = ns % 1000000000;
    rc = pthread_mutex_lock(&s->lock);
    CHECK(rc == 0);
    while (s->parties > 1 && rc == 0)
        rc = pthread_cond_timedwait(&s->left, &s->lock, &until);
    bool alone = s->parties == 1;
    rc = pthread_mutex_unlock(&s->lock);
    CHECK(rc == 0);
    return alone;
}

void
aside_leave(struct aside_shared **sp)
{
    struct aside_shared *s = *sp;
    *sp = NULL;
    int rc = pthread_mutex_lock(&s->lock);
    CHECK(rc == 0);
    int left = --s->parties;
    rc = pthread_cond_signal(&s->left);
    CHECK(rc == 0);
    rc = pthread_mutex_unlock(&s->lock);
    CHECK(rc == 0);
    if (left > 0)
        return;
    bq_free(&s->done);
    close(s->wake_fd);
    rc = pthread_cond_destroy(&s->left);
    CHECK(rc == 0);
    rc = pthread_mutex_destroy(&s->lock);
    CHECK(rc == 0);
    mem_free(s);
}

void *
aside_thread(void *arg)
{
    thr_become(THR_WORKER);
    thr_check_worker();
    struct aside_job *job = arg;
    struct aside_shared *s = job->shared;
    job->run(job);
    enum bq_result given = bq_try_push(s->done, &job->item);
    CHECK(given != BQ_FULL); /* there is one job */
    if (given == BQ_CLOSED)
        job->drop(job);
    aside_leave(&s);
    return NULL;
}
