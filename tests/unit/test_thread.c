#include "base/thread.h"

#include <pthread.h>

#include "t.h"

static void *
as_worker(void *arg)
{
    enum thr_kind *seen = arg;
    seen[0] = thr_self; /* a role is not inherited */
    thr_become(THR_WORKER);
    thr_check_worker();
    seen[1] = thr_self;
    return NULL;
}

static void
test_each_thread_has_its_own_role(void **state)
{
    (void)state;
    thr_become(THR_LOOP);
    thr_become(THR_LOOP); /* saying it again is fine */
    thr_check_loop();
    enum thr_kind seen[2] = {THR_LOG, THR_LOG};
    pthread_t t;
    T_EQ(pthread_create(&t, NULL, as_worker, seen), 0);
    T_EQ(pthread_join(t, NULL), 0);
    T_EQ(seen[0], THR_NONE);
    T_EQ(seen[1], THR_WORKER);
    T_EQ(thr_self, THR_LOOP);
}

static void
test_wrong_thread_is_caught(void **state)
{
    (void)state;
    thr_become(THR_LOOP);
    T_ABORTS(thr_check_worker());
    T_ABORTS(thr_become(THR_WORKER));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_each_thread_has_its_own_role),
        TEST(test_wrong_thread_is_caught),
    };
    return TEST_MAIN(tests);
}
