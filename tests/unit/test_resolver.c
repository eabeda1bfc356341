#include "t.h"

#include <netdb.h>
#include <pthread.h>
#include <sys/resource.h>

#include "base/mem.h"
#include "net/resolver_private.h"
#include "rt/loop.h"

static struct loop *loop;
static struct resolver *resolver;

/* What a call back said, and when to stop the loop. */
struct answer {
    int calls;
    size_t count;
    struct addr addrs[16]; /* the first ones */
    char why[128];
};
static int calls_wanted;
static struct timer deadline, stop;

static void
on_answer(void *arg, const struct addr *addrs, size_t count, const char *why)
{
    thr_check_loop();
    struct answer *a = arg;
    a->calls++;
    a->count = count;
    memcpy(a->addrs, addrs, size_min(count, COUNT_OF(a->addrs)) * sizeof(*addrs));
    snprintf(a->why, sizeof(a->why), "%s", why);
    if (--calls_wanted == 0)
        timer_arm_in(&stop, 0); /* not loop_stop(): this may run before the loop polls at all */
}

static void
on_stop(void *arg)
{
    thr_check_loop();
    (void)arg;
    loop_stop(loop);
}

static void
on_deadline(void *arg)
{
    thr_check_loop();
    (void)arg;
    fail_msg("no answer within the deadline");
}

/* Runs the loop until n answers came. */
static void LOOP_ONLY
wait_answers(int n)
{
    calls_wanted = n;
    timer_arm_in(&deadline, 30 * 1000000);
    loop_run(loop);
    timer_disarm(&deadline);
}

/* A look-up that waits at a gate, and answers by the name. */
static pthread_mutex_t gate_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t gate_changed = PTHREAD_COND_INITIALIZER;
static bool gate_open = true;
static int lookups_in, lookups_out, threads_seen;
static _Thread_local bool seen;

static void
gate_set(bool is_open)
{
    pthread_mutex_lock(&gate_lock);
    gate_open = is_open;
    pthread_cond_broadcast(&gate_changed);
    pthread_mutex_unlock(&gate_lock);
}

static void
gate_wait(const int *counter, int n)
{
    pthread_mutex_lock(&gate_lock);
    while (*counter < n)
        pthread_cond_wait(&gate_changed, &gate_lock);
    pthread_mutex_unlock(&gate_lock);
}

static int
gated_lookup(const char *host, struct addr *addrs, size_t cap, size_t *count, int *sys_errno)
{
    pthread_mutex_lock(&gate_lock);
    lookups_in++;
    threads_seen += !seen;
    seen = true;
    pthread_cond_broadcast(&gate_changed);
    while (!gate_open)
        pthread_cond_wait(&gate_changed, &gate_lock);
    lookups_out++;
    pthread_cond_broadcast(&gate_changed);
    pthread_mutex_unlock(&gate_lock);
    CHECK(cap == RESOLVER_MAX_ADDRS);
    *sys_errno = 0;
    *count = 0;
    if (strcmp(host, "broken") == 0) {
        *sys_errno = ENETDOWN;
        return EAI_SYSTEM;
    }
    if (strcmp(host, "nothing") == 0)
        return 0;
    *count = 1;
    return addr_from_ip("192.0.2.7", 0, &addrs[0]) ? 0 : EAI_FAIL;
}

/* Waits at the gate for one name only. */
static int
gate_for_dead(const char *host, struct addr *addrs, size_t cap, size_t *count, int *sys_errno)
{
    if (strcmp(host, "dead") == 0)
        return gated_lookup(host, addrs, cap, count, sys_errno);
    *sys_errno = 0;
    *count = 1;
    return addr_from_ip("192.0.2.8", 0, &addrs[0]) ? 0 : EAI_FAIL;
}

static int
setup(void **state)
{
    (void)state;
    thr_check_loop();
    resolver = resolver_new(loop);
    lookups_in = lookups_out = threads_seen = 0;
    gate_set(true);
    return resolver == NULL ? -1 : 0;
}

static int
teardown(void **state)
{
    (void)state;
    thr_check_loop();
    resolver_free(&resolver);
    return 0;
}

/* Numeric hosts need no thread, and still no call comes before resolver_start() returned. */
static void
test_numeric_hosts_are_answered_later(void **state)
{
    (void)state;
    thr_check_loop();
    struct answer a = {0}, b = {0};
    resolver_set_lookup(resolver, gated_lookup);
    T_TRUE(resolver_start(resolver, "127.0.0.1", 8123, on_answer, &a) != NULL);
    T_TRUE(resolver_start(resolver, "::1", 9, on_answer, &b) != NULL);
    T_EQ(a.calls, 0);
    wait_answers(2);
    struct addr want;
    T_TRUE(addr_from_ip("127.0.0.1", 8123, &want));
    T_TRUE(a.calls == 1 && a.count == 1 && addr_eq(&a.addrs[0], &want));
    T_TRUE(addr_from_ip("::1", 9, &want));
    T_TRUE(b.calls == 1 && b.count == 1 && addr_eq(&b.addrs[0], &want));
    T_EQ(lookups_in, 0);
}

static void
test_localhost(void **state)
{
    (void)state;
    thr_check_loop();
    struct answer a = {0};
    T_TRUE(resolver_start(resolver, "localhost", 8123, on_answer, &a) != NULL);
    wait_answers(1);
    T_TRUE(a.count >= 1 && a.count <= COUNT_OF(a.addrs));
    T_ZEQ(a.why, "");
    for (size_t i = 0; i < a.count; i++) {
        T_TRUE(addr_is_loopback(&a.addrs[i]));
        T_EQ(addr_port(&a.addrs[i]), 8123);
        for (size_t k = 0; k < i; k++)
            T_FALSE(addr_eq(&a.addrs[i], &a.addrs[k]));
    }
}

/* RFC 6761: .invalid never exists. */
static void
test_a_name_that_does_not_exist(void **state)
{
    (void)state;
    thr_check_loop();
    struct answer a = {0};
    T_TRUE(resolver_start(resolver, "no-such-host.invalid", 1, on_answer, &a) != NULL);
    wait_answers(1);
    T_EQ(a.count, 0);
    T_TRUE(a.why[0] != '\0');
}

static void
test_failures_say_why(void **state)
{
    (void)state;
    thr_check_loop();
    struct answer a = {0}, b = {0};
    resolver_set_lookup(resolver, gated_lookup);
    T_TRUE(resolver_start(resolver, "broken", 1, on_answer, &a) != NULL);
    T_TRUE(resolver_start(resolver, "nothing", 1, on_answer, &b) != NULL);
    wait_answers(2);
    T_ZEQ(a.why, strerror(ENETDOWN));
    T_ZEQ(b.why, "the name has no IP address");
}

/* Names whose servers are silent hold up themselves alone, as long as there are threads. */
static void
test_silent_names_hold_up_nobody_else(void **state)
{
    (void)state;
    thr_check_loop();
    struct answer dead = {0}, live = {0};
    resolver_set_lookup(resolver, gate_for_dead);
    gate_set(false);
    for (int i = 0; i < RESOLVER_THREADS - 1; i++)
        T_TRUE(resolver_start(resolver, "dead", 1, on_answer, &dead) != NULL);
    for (int i = 0; i < 3; i++) {
        T_TRUE(resolver_start(resolver, "live", 1, on_answer, &live) != NULL);
        wait_answers(1);
        T_EQ(live.calls, i + 1);
    }
    T_EQ(dead.calls, 0);
    gate_set(true);
    wait_answers(RESOLVER_THREADS - 1);
    T_EQ(dead.calls, RESOLVER_THREADS - 1);
}

/* Threads are started when a look-up finds none idle, and not beyond their number. */
static void
test_threads_start_on_demand(void **state)
{
    (void)state;
    thr_check_loop();
    struct answer a = {0};
    resolver_set_lookup(resolver, gated_lookup);
    for (int i = 0; i < 3; i++) {
        T_TRUE(resolver_start(resolver, "x", 1, on_answer, &a) != NULL);
        wait_answers(1);
    }
    T_EQ(threads_seen, 1);
    gate_set(false);
    for (int i = 0; i < RESOLVER_MAX_JOBS; i++)
        T_TRUE(resolver_start(resolver, "x", 1, on_answer, &a) != NULL);
    gate_wait(&lookups_in, 3 + RESOLVER_THREADS);
    gate_set(true);
    wait_answers(RESOLVER_MAX_JOBS);
    T_EQ(a.calls, 3 + RESOLVER_MAX_JOBS);
    T_EQ(threads_seen, RESOLVER_THREADS);
}

/* Cancelled while in a thread's hands, while queued, and while deferred: never called. */
static void
test_cancel(void **state)
{
    (void)state;
    thr_check_loop();
    struct answer a = {0}, b = {0}, c = {0}, d = {0};
    resolver_set_lookup(resolver, gated_lookup);
    gate_set(false);
    struct resolver_job *in_hand = resolver_start(resolver, "a", 1, on_answer, &a);
    for (int i = 1; i < RESOLVER_THREADS; i++)
        T_TRUE(resolver_start(resolver, "d", 1, on_answer, &d) != NULL);
    gate_wait(&lookups_in, RESOLVER_THREADS);
    struct resolver_job *queued = resolver_start(resolver, "b", 1, on_answer, &b);
    struct resolver_job *deferred = resolver_start(resolver, "127.0.0.1", 1, on_answer, &c);
    T_TRUE(in_hand != NULL && queued != NULL && deferred != NULL);
    resolver_cancel(&in_hand);
    resolver_cancel(&queued);
    resolver_cancel(&deferred);
    T_TRUE(in_hand == NULL && queued == NULL && deferred == NULL);
    resolver_cancel(&deferred);
    T_TRUE(resolver_start(resolver, "d", 1, on_answer, &d) != NULL);
    gate_set(true);
    wait_answers(RESOLVER_THREADS);
    T_EQ(d.calls, RESOLVER_THREADS);
    gate_wait(&lookups_out, RESOLVER_THREADS + 2);
    resolver_free(&resolver); /* and what is not back yet is not called either */
    T_EQ(a.calls + b.calls + c.calls, 0);
}

/* A call back may cancel a job whose result came in the same batch. */
struct rival {
    struct answer answer;
    struct resolver_job *job;
    struct rival *other;
};

static void
cancel_rival(void *arg, const struct addr *addrs, size_t count, const char *why)
{
    thr_check_loop();
    struct rival *r = arg;
    r->job = NULL;
    resolver_cancel(&r->other->job);
    on_answer(&r->answer, addrs, count, why);
}

static void
test_cancel_from_a_call_back(void **state)
{
    (void)state;
    thr_check_loop();
    struct rival a = {.other = NULL}, b = {.other = &a};
    struct answer c = {0};
    a.other = &b;
    resolver_set_lookup(resolver, gated_lookup);
    a.job = resolver_start(resolver, "a", 1, cancel_rival, &a);
    b.job = resolver_start(resolver, "b", 1, cancel_rival, &b);
    T_TRUE(a.job != NULL && b.job != NULL);
    T_TRUE(resolver_start(resolver, "c", 1, on_answer, &c) != NULL);
    gate_wait(&lookups_out, 3); /* the loop has not run yet: a drain or two find all three */
    wait_answers(2);
    T_EQ(c.calls, 1);
    T_EQ(a.answer.calls + b.answer.calls, 1);
}

/* Bound: RESOLVER_MAX_JOBS under way, cancelled ones included; then room again. */
static void
test_full(void **state)
{
    (void)state;
    thr_check_loop();
    struct answer a = {0}, b = {0};
    resolver_set_lookup(resolver, gated_lookup);
    gate_set(false);
    struct resolver_job *first = resolver_start(resolver, "x", 1, on_answer, &b);
    for (int i = 1; i < RESOLVER_MAX_JOBS; i++)
        T_TRUE(resolver_start(resolver, "x", 1, on_answer, &a) != NULL);
    T_TRUE(resolver_start(resolver, "x", 1, on_answer, &a) == NULL);
    T_TRUE(resolver_start(resolver, "127.0.0.1", 1, on_answer, &a) == NULL);
    resolver_cancel(&first);
    T_TRUE(resolver_start(resolver, "x", 1, on_answer, &a) == NULL);
    gate_set(true);
    wait_answers(RESOLVER_MAX_JOBS - 1);
    T_EQ(a.calls, RESOLVER_MAX_JOBS - 1);
    T_EQ(b.calls, 0);
    T_TRUE(resolver_start(resolver, "x", 1, on_answer, &a) != NULL);
    wait_answers(1);
    T_EQ(a.calls, RESOLVER_MAX_JOBS);
}

/* Shutdown: free returns while all threads hang, a look-up waits, one is done and one is deferred.
 */
static void
test_free_while_lookups_hang(void **state)
{
    (void)state;
    thr_check_loop();
    struct answer a = {0};
    resolver_set_lookup(resolver, gated_lookup);
    T_TRUE(resolver_start(resolver, "done", 1, on_answer, &a) != NULL);
    gate_wait(&lookups_out, 1);
    gate_set(false);
    for (int i = 0; i < RESOLVER_THREADS; i++)
        T_TRUE(resolver_start(resolver, "hangs", 1, on_answer, &a) != NULL);
    gate_wait(&lookups_in, 1 + RESOLVER_THREADS);
    T_TRUE(resolver_start(resolver, "waits", 1, on_answer, &a) != NULL);
    T_TRUE(resolver_start(resolver, "127.0.0.1", 1, on_answer, &a) != NULL);
    resolver_free(&resolver);
    T_TRUE(resolver == NULL);
    T_EQ(lookups_out, 1);
    T_EQ(a.calls, 0);
    gate_set(true); /* the threads now find everything closed and free what they hold */
    gate_wait(&lookups_out, 1 + RESOLVER_THREADS);
}

static void
test_no_memory(void **state)
{
    (void)state;
    thr_check_loop();
    struct resolver *r = NULL;
    uint64_t n = 0;
    do {
        mem_fail_at(++n);
        r = resolver_new(loop);
    } while (r == NULL);
    T_TRUE(n > 3);
    mem_fail_at(1);
    struct answer a = {0};
    T_TRUE(resolver_start(r, "localhost", 1, on_answer, &a) == NULL);
    mem_fail_at(0);
    resolver_free(&r);
}

/* No descriptor left: resolver_new() says so, and nothing is lost. */
static void
test_no_descriptors(void **state)
{
    (void)state;
    thr_check_loop();
    struct rlimit before, none;
    T_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
    none = before;
    none.rlim_cur = 0;
    T_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
    struct resolver *r = resolver_new(loop);
    T_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
    T_TRUE(r == NULL);
}

int
main(void)
{
#define CASE(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
    const struct CMUnitTest tests[] = {
        CASE(test_numeric_hosts_are_answered_later),
        CASE(test_localhost),
        CASE(test_a_name_that_does_not_exist),
        CASE(test_failures_say_why),
        CASE(test_silent_names_hold_up_nobody_else),
        CASE(test_threads_start_on_demand),
        CASE(test_cancel),
        CASE(test_cancel_from_a_call_back),
        CASE(test_full),
        CASE(test_free_while_lookups_hang),
        TEST(test_no_memory),
        TEST(test_no_descriptors),
    };
    loop = loop_new();
    thr_check_loop();
    CHECK(loop != NULL);
    timer_init(&deadline, loop, on_deadline, NULL);
    timer_init(&stop, loop, on_stop, NULL);
    CHECK(timer_reserve(&deadline) && timer_reserve(&stop));
    int failed = TEST_MAIN(tests);
    timer_fini(&deadline);
    timer_fini(&stop);
    loop_free(&loop);
    return failed;
}
