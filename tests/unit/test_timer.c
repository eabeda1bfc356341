#include "t.h"

#include "base/hash.h"
#include "base/mem.h"
#include "rt/loop_impl.h" /* the heap itself is looked at */

static struct loop *loop;

static int
setup(void **state)
{
    (void)state;
    loop = loop_new();
    return loop == NULL ? -1 : 0;
}

static int
teardown(void **state)
{
    (void)state;
    thr_check_loop();
    loop_free(&loop);
    return 0;
}

static void
stop(void *arg)
{
    thr_check_loop();
    (void)arg;
    loop_stop(loop);
}

/* Every entry knows its place, none is earlier than its parent, no key is later than its timer's
 * deadline, and all have a reserved place. */
static void LOOP_ONLY
check_heap(void)
{
    T_TRUE(loop->heap_len <= loop->heap_reserved && loop->heap_reserved <= loop->heap_cap);
    for (uint32_t i = 0; i < loop->heap_len; i++) {
        const struct timer_slot *s = &loop->heap[i];
        T_EQ(s->t->heap_at, i);
        T_TRUE(s->t->reserved && s->t->loop == loop);
        T_TRUE(s->key_us <= s->t->due_us);
        T_TRUE(i == 0 || loop->heap[(i - 1) / 4].key_us <= s->key_us);
    }
}

/* ---- the model: a plain array of deadlines, against the heap, on a clock of our own ---- */

#define MODEL_TIMERS 200

struct modelled {
    struct timer t;
    int64_t due_us; /* INT64_MAX: not armed */
    bool alive;
};
static struct modelled model[MODEL_TIMERS];
static unsigned fired;

static void on_modelled(void *arg);

static void LOOP_ONLY
model_start(struct modelled *m)
{
    timer_init(&m->t, loop, on_modelled, m);
    T_TRUE(timer_reserve(&m->t));
    m->alive = true;
    m->due_us = INT64_MAX;
}

/* One random operation on one random timer. earliest: nothing is armed before it. */
static void LOOP_ONLY
model_poke(int64_t earliest_us)
{
    struct modelled *m = &model[random_u64() % MODEL_TIMERS];
    if (!m->alive) {
        model_start(m);
        return;
    }
    switch (random_u64() % 8) {
    case 0:
        timer_fini(&m->t);
        m->alive = false;
        m->due_us = INT64_MAX;
        break;
    case 1:
        timer_disarm(&m->t);
        m->due_us = INT64_MAX;
        break;
    default:
        m->due_us = earliest_us + (int64_t)(random_u64() % 1000);
        timer_arm(&m->t, (struct mono){m->due_us});
        break;
    }
}

static void
on_modelled(void *arg)
{
    thr_check_loop();
    struct modelled *m = arg;
    T_TRUE(m->alive && m->due_us <= loop->now.us);
    T_FALSE(timer_armed(&m->t));
    m->due_us = INT64_MAX;
    fired++;
    /* From inside: itself and others, later than now, so that each is seen once in this turn. */
    for (int i = (int)(random_u64() % 4); i > 0; i--)
        model_poke(loop->now.us + 1);
}

static void
test_random_operations_agree_with_a_plain_model(void **state)
{
    (void)state;
    thr_check_loop();
    random_init();
    for (size_t i = 0; i < MODEL_TIMERS; i++)
        model_start(&model[i]);
    loop->now.us = 1000000;
    fired = 0;
    for (int turn = 0; turn < 4000; turn++) {
        for (int i = (int)(random_u64() % 40); i > 0; i--)
            model_poke(loop->now.us + 1);
        check_heap();
        loop->now.us += (int64_t)(random_u64() % 50);
        timers_run(loop);
        check_heap();
        for (size_t i = 0; i < MODEL_TIMERS; i++) {
            T_EQ(timer_armed(&model[i].t), model[i].due_us != INT64_MAX);
            T_TRUE(model[i].due_us > loop->now.us); /* nothing due was left out */
            if (model[i].due_us != INT64_MAX)
                T_EQ(model[i].t.due_us, model[i].due_us);
        }
    }
    T_TRUE(fired > 1000);
    for (size_t i = 0; i < MODEL_TIMERS; i++)
        timer_fini(&model[i].t);
    T_EQ(loop->heap_len, 0);
    T_EQ(loop->heap_reserved, 0);
}

/* ---- lazy keys ---- */

static void
count_call(void *arg)
{
    thr_check_loop();
    ++*(int *)arg;
}

/* Later and disarm cost no heap work; earlier does move it. */
static void
test_later_and_disarm_leave_the_heap_alone(void **state)
{
    (void)state;
    thr_check_loop();
    int calls = 0;
    struct timer t;
    timer_init(&t, loop, count_call, &calls);
    T_TRUE(timer_reserve(&t));
    int64_t base = loop->now.us;
    timer_arm(&t, (struct mono){base + 100});
    timer_arm(&t, (struct mono){base + 500});
    T_EQ(loop->heap[0].key_us, base + 100);
    loop->now.us = base + 200; /* the key is due, the timer is not: put right */
    timers_run(loop);
    T_EQ(calls, 0);
    T_EQ(loop->heap[0].key_us, base + 500);
    timer_disarm(&t);
    T_FALSE(timer_armed(&t));
    T_EQ(loop->heap_len, 1);
    timer_arm(&t, (struct mono){base + 300});
    T_EQ(loop->heap[0].key_us, base + 300);
    timer_disarm(&t);
    loop->now.us = base + 600;
    timers_run(loop);
    T_EQ(calls, 0);
    T_EQ(loop->heap_len, 0); /* a disarmed entry goes when its key comes due */
    timer_arm(&t, (struct mono){base + 600});
    timers_run(loop);
    timers_run(loop);
    T_EQ(calls, 1); /* fires once */
    timer_fini(&t);
    timer_fini(&t); /* no-op */
}

/* ---- callbacks that finish timers ---- */

struct killer {
    struct timer t;
    struct timer *kills[3];
    int calls;
};
static void
on_killer(void *arg)
{
    thr_check_loop();
    struct killer *k = arg;
    k->calls++;
    for (size_t i = 0; i < COUNT_OF(k->kills); i++)
        if (k->kills[i] != NULL)
            timer_fini(k->kills[i]);
}

/* A timer may finish itself and others that are due in the same turn. */
static void
test_fini_inside_callbacks(void **state)
{
    (void)state;
    thr_check_loop();
    struct killer a = {0}, b = {0}, c = {0}, d = {0};
    struct killer *const all[] = {&a, &b, &c, &d};
    for (size_t i = 0; i < COUNT_OF(all); i++) {
        timer_init(&all[i]->t, loop, on_killer, all[i]);
        T_TRUE(timer_reserve(&all[i]->t));
        timer_arm(&all[i]->t, (struct mono){loop->now.us - 10 + (int64_t)i});
    }
    a.kills[0] = &a.t;
    a.kills[1] = &c.t;
    b.kills[0] = &d.t;
    timers_run(loop);
    T_TRUE(a.calls == 1 && b.calls == 1 && c.calls == 0 && d.calls == 0);
    T_EQ(loop->heap_reserved, 1);
    timer_fini(&b.t);
}

/* A timer that arms itself for now each time it fires does not keep the sockets waiting. */
static struct timer restless;
static int restless_calls;
static void
on_restless(void *arg)
{
    thr_check_loop();
    if (restless_calls++ == 0)
        CHECK(write(*(int *)arg, "x", 1) == 1);
    CHECK(restless_calls < 1000000); /* starved for ever */
    timer_arm_in(&restless, 0);
}
static void
on_readable(void *arg, unsigned ready)
{
    thr_check_loop();
    (void)ready;
    loop_io_del(arg);
    loop_stop(loop);
}
static void
test_self_arming_timer_starves_nobody(void **state)
{
    (void)state;
    thr_check_loop();
    int fd[2];
    struct loop_io io = {0};
    T_EQ(pipe(fd), 0);
    T_TRUE(loop_io_add_level(loop, &io, fd[0], on_readable, &io));
    timer_init(&restless, loop, on_restless, &fd[1]);
    T_TRUE(timer_reserve(&restless));
    restless_calls = 0;
    timer_arm_in(&restless, 0);
    loop_run(loop);
    T_TRUE(restless_calls < 1000);
    timer_fini(&restless);
    close(fd[0]);
    close(fd[1]);
}

/* ---- on the real clock ---- */

static struct mono fired_at;
static void
on_fire(void *arg)
{
    thr_check_loop();
    (void)arg;
    fired_at = mono_now();
    loop_stop(loop);
}

/* Not before it is due, also when a later one was armed first and an earlier one is dropped. */
static void
test_fires_not_before_its_time(void **state)
{
    (void)state;
    thr_check_loop();
    struct timer late, soon, dropped;
    timer_init(&late, loop, stop, NULL);
    timer_init(&soon, loop, on_fire, NULL);
    timer_init(&dropped, loop, on_fire, NULL);
    T_TRUE(timer_reserve(&late) && timer_reserve(&soon) && timer_reserve(&dropped));
    fired_at.us = 0;
    struct mono due = mono_add_us(mono_now(), 20000);
    timer_arm_in(&late, 50000000);
    timer_arm_in(&dropped, 2000);
    timer_disarm(&dropped);
    timer_arm(&soon, due);
    loop_run(loop);
    T_TRUE(fired_at.us >= due.us);
    T_TRUE(timer_armed(&late));
    timer_fini(&late);
    timer_fini(&soon);
    timer_fini(&dropped);
}

/* Arming cannot fail once reserved; reserving can, and says so. */
static void
test_reserve_without_memory(void **state)
{
    (void)state;
    thr_check_loop();
    static struct timer t[65];
    for (size_t i = 0; i < COUNT_OF(t); i++)
        timer_init(&t[i], loop, stop, NULL);
    mem_fail_at(1);
    T_FALSE(timer_reserve(&t[0]));
    mem_fail_at(0);
    for (size_t i = 0; i < 64; i++)
        T_TRUE(timer_reserve(&t[i]));
    mem_fail_at(1);
    T_FALSE(timer_reserve(&t[64]));
    for (size_t i = 0; i < 64; i++) /* those reserved need no memory */
        timer_arm_in(&t[i], (int64_t)(1000 - i));
    mem_fail_at(0);
    check_heap();
    T_TRUE(timer_reserve(&t[64])); /* the heap moves, with all that is in it */
    timer_arm_in(&t[64], 1);
    T_EQ(loop->heap_len, 65);
    check_heap();
    for (size_t i = 0; i < COUNT_OF(t); i++)
        timer_fini(&t[i]);
    T_EQ(loop->heap_len, 0);
    struct timer loose;
    timer_init(&loose, loop, stop, NULL);
    T_ABORTS(timer_arm_in(&loose, 1)); /* not reserved */
    timer_fini(&loose);
}

int
main(void)
{
#define LOOP_TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
    const struct CMUnitTest tests[] = {
        LOOP_TEST(test_random_operations_agree_with_a_plain_model),
        LOOP_TEST(test_later_and_disarm_leave_the_heap_alone),
        LOOP_TEST(test_fini_inside_callbacks),
        LOOP_TEST(test_self_arming_timer_starves_nobody),
        LOOP_TEST(test_fires_not_before_its_time),
        LOOP_TEST(test_reserve_without_memory),
    };
    return TEST_MAIN(tests);
}
