#include "net/resolver_private.h"

#include <netdb.h>
#include <unistd.h>

#include "base/mem.h"

/* not on the loop: this is a helper thread, here for the sake of getaddrinfo() */

static bool
known(const struct addr *addrs, size_t count, const struct addr *a)
{
    for (size_t i = 0; i < count; i++)
        if (addr_eq(&addrs[i], a))
            return true;
    return false;
}

int
resolver_lookup(const char *host, struct addr *addrs, size_t cap, size_t *count, int *sys_errno)
{
    /* Not AI_ADDRCONFIG: it hides localhost on a machine without any other address. */
    const struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    struct addrinfo *list = NULL;
    int code = getaddrinfo(host, NULL, &hints, &list);
    *sys_errno = code == EAI_SYSTEM ? errno : 0;
    *count = 0;
    if (code != 0)
        return code;
    for (const struct addrinfo *ai = list; ai != NULL && *count < cap; ai = ai->ai_next) {
        struct addr a;
        memset(&a, 0, sizeof(a));
        if ((ai->ai_family != AF_INET && ai->ai_family != AF_INET6) ||
            ai->ai_addrlen > sizeof(a.in6))
            continue;
        memcpy(&a.sa, ai->ai_addr, ai->ai_addrlen);
        a.len = ai->ai_addrlen;
        if (!known(addrs, *count, &a))
            addrs[(*count)++] = a;
    }
    freeaddrinfo(list);
    return 0;
}

void
resolver_enter(struct resolver_shared *s)
{
    int rc = pthread_mutex_lock(&s->lock);
    CHECK(rc == 0 && s->parties > 0);
    s->parties++;
    rc = pthread_mutex_unlock(&s->lock);
    CHECK(rc == 0);
}

void
resolver_leave(struct resolver_shared **sp)
{
    struct resolver_shared *s = *sp;
    *sp = NULL;
    int rc = pthread_mutex_lock(&s->lock);
    CHECK(rc == 0);
    int left = --s->parties;
    rc = pthread_mutex_unlock(&s->lock);
    CHECK(rc == 0);
    if (left > 0)
        return;
    bq_free(&s->todo);
    bq_free(&s->done);
    close(s->wake_fd);
    rc = pthread_mutex_destroy(&s->lock);
    CHECK(rc == 0);
    mem_free(s);
}

void *
resolver_worker(void *arg)
{
    thr_become(THR_WORKER);
    thr_check_worker();
    struct resolver_shared *s = arg;
    struct bq_item *item;
    while ((item = bq_pop_wait(s->todo)) != NULL) {
        struct resolver_job *job = CONTAINER_OF(item, struct resolver_job, item);
        job->gai_code =
            s->lookup(job->host, job->addrs, RESOLVER_MAX_ADDRS, &job->count, &job->sys_errno);
        enum bq_result given = bq_try_push(s->done, item);
        CHECK(given != BQ_FULL); /* its cap is the number of jobs there can be */
        if (given == BQ_CLOSED)
            mem_free(job); /* resolver_free() did not wait for it */
    }
    resolver_leave(&s);
    return NULL;
}
