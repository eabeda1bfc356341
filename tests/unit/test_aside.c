/*
 * aside: a blocking job on a thread of its own, and what becomes of it when nobody waits any more.
 */
#include <pthread.h>

#include "base/mem.h"
#include "rt/aside.h"
#include "t.h"

struct job {
    struct aside_job aside;
    int gate[2]; /* run() ends when a byte can be read */
    int ran, dropped;
    pthread_t loop_thread;
    bool was_elsewhere;
    struct loop *loop;
    struct aside *next_on; /* done() starts another one here */
    struct job *next;
};

static int told[2]; /* drop() writes a byte */

static void
run(struct aside_job *aside)
{
    thr_check_worker();
    struct job *j = CONTAINER_OF(aside, struct job, aside);
    char byte;
    j->was_elsewhere = pthread_equal(pthread_self(), j->loop_thread) == 0;
    T_EQ(read(j->gate[0], &byte, 1), 1);
    j->ran++;
}

static void
done(struct aside_job *aside)
{
    thr_check_loop();
    struct job *j = CONTAINER_OF(aside, struct job, aside);
    if (j->next != NULL)
        T_TRUE(aside_start(j->next_on, &j->next->aside));
    else
        loop_stop(j->loop);
}

static void
drop(struct aside_job *aside)
{
    struct job *j = CONTAINER_OF(aside, struct job, aside);
    j->dropped++;
    T_EQ(write(told[1], "", 1), 1);
}

static struct job
job_of(struct loop *l)
{
    struct job j = {.aside = {.run = run, .done = done, .drop = drop},
        .loop_thread = pthread_self(),
        .loop = l};
    T_EQ(pipe(j.gate), 0);
    return j;
}

static void
open_gate(struct job *j)
{
    T_EQ(write(j->gate[1], "", 1), 1);
}

static void
job_end(struct job *j)
{
    close(j->gate[0]);
    close(j->gate[1]);
}

static void
test_runs_elsewhere_and_comes_back(void **state)
{
    (void)state;
    struct loop *l = loop_new();
    thr_check_loop();
    struct aside *a = aside_new(l);
    struct job first = job_of(l), second = job_of(l);
    first.next_on = a;
    first.next = &second;
    T_TRUE(aside_start(a, &first.aside));
    T_FALSE(aside_start(a, &second.aside)); /* one at a time */
    open_gate(&first);
    open_gate(&second);
    loop_run(l);
    T_EQ(first.ran + second.ran, 2);
    T_TRUE(first.was_elsewhere && second.was_elsewhere);
    T_EQ(first.dropped + second.dropped, 0);
    T_TRUE(aside_free(&a, 30000000)); /* its thread may be on its way out still */
    T_TRUE(a == NULL);
    loop_free(&l);
    job_end(&first);
    job_end(&second);
}

static void *
open_late(void *arg)
{
    open_gate(arg);
    return NULL;
}

/* What ends in time is waited for: then nobody uses what the job points to. */
static void
test_free_waits_for_the_thread(void **state)
{
    (void)state;
    for (int i = 0; i < 50; i++) {
        struct loop *l = loop_new();
        thr_check_loop();
        struct aside *a = aside_new(l);
        struct job j = job_of(l);
        pthread_t opener;
        char byte;
        T_TRUE(aside_start(a, &j.aside));
        T_EQ(pthread_create(&opener, NULL, open_late, &j), 0);
        T_TRUE(aside_free(&a, 60 * 1000000));
        T_EQ(j.ran, 1); /* without a lock: TSan would see a thread that is left */
        T_EQ(j.dropped, 1);
        T_EQ(read(told[0], &byte, 1), 1);
        T_EQ(pthread_join(opener, NULL), 0);
        loop_free(&l);
        job_end(&j);
    }
}

/* The job that hangs is not waited for, and is dropped by its thread when it ends after all. */
static void
test_free_does_not_wait_for_ever(void **state)
{
    (void)state;
    struct loop *l = loop_new();
    thr_check_loop();
    struct aside *a = aside_new(l);
    struct job j = job_of(l);
    char byte;
    T_TRUE(aside_start(a, &j.aside));
    T_FALSE(aside_free(&a, 1000));
    loop_free(&l);
    open_gate(&j);
    T_EQ(read(told[0], &byte, 1), 1);
    T_EQ(j.ran, 1);
    T_EQ(j.dropped, 1);
    job_end(&j);
}

static void
test_no_memory(void **state)
{
    (void)state;
    struct loop *l = loop_new();
    thr_check_loop();
    struct aside *a = NULL;
    for (uint64_t n = 1; a == NULL; n++) {
        mem_fail_at(n);
        a = aside_new(l);
        mem_fail_at(0);
        T_TRUE(n < 100);
    }
    T_TRUE(aside_free(&a, 0));
    loop_free(&l);
}

int
main(void)
{
    T_EQ(pipe(told), 0);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_runs_elsewhere_and_comes_back),
        cmocka_unit_test(test_free_waits_for_the_thread),
        cmocka_unit_test(test_free_does_not_wait_for_ever),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
