#include "t.h"

#include "base/mem.h"
#include "proxy/gate.h"

static struct loop *loop;
static struct gates all;
static struct gate_pass *turns[8];
static size_t turn_count;

static void
on_turn(struct gate_pass *p)
{
    T_TRUE(turn_count < COUNT_OF(turns));
    turns[turn_count++] = p;
}

static int
setup(void **state)
{
    (void)state;
    loop = loop_new();
    all = (struct gates){.loop = loop, .turn = on_turn};
    turn_count = 0;
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

static struct gate *LOOP_ONLY
open_gate(size_t max, unsigned share)
{
    struct gate *g = gate_new();
    T_TRUE(g != NULL);
    gate_open(g, &all, &(struct gate_limits){.max_in_flight = max, .queue_share = share});
    return g;
}

/* Bound: max_in_flight; a turn comes later, never from inside gate_leave(). */
static void
test_one_in_one_out(void **state)
{
    (void)state;
    thr_check_loop();
    struct gate *g = open_gate(1, 100);
    struct gate_pass a = {0}, b = {0}, c = {0};
    gate_join(&a, g);
    gate_join(&b, g);
    gate_join(&c, g);
    T_EQ(gate_enter(&a, 1), GATE_GO);
    T_EQ(gate_enter(&b, 1), GATE_WAIT);
    T_EQ(all.queued, 1);
    gate_leave(&a);
    T_EQ(turn_count, 0);
    T_EQ(gate_enter(&c, 2), GATE_WAIT); /* b was promised the place */
    loop_run_deferred(loop);
    T_EQ(turn_count, 1);
    T_TRUE(turns[0] == &b && b.inside && !c.inside);
    gate_leave(&c); /* who waits may leave */
    gate_leave(&c);
    T_EQ(all.queued, 0);
    gate_leave(&b);
    loop_run_deferred(loop);
    T_EQ(turn_count, 1);
    struct gate_view v;
    gate_view(g, &v);
    T_TRUE(v.in_flight == 0 && v.waiting == 0 && v.requests == 3 && v.waits == 2);
    gate_unref(&g);
}

static void
test_flows_take_turns(void **state)
{
    (void)state;
    thr_check_loop();
    struct gate *g = open_gate(1, 100);
    struct gate_pass p[6] = {0};
    static const uint64_t flow[] = {1, 1, 1, 1, 2, 2};
    for (size_t i = 0; i < COUNT_OF(p); i++) {
        gate_join(&p[i], g);
        T_EQ(gate_enter(&p[i], flow[i]), i == 0 ? GATE_GO : GATE_WAIT);
    }
    gate_leave(&p[0]);
    loop_run_deferred(loop);
    for (size_t i = 0; i < 5; i++) {
        gate_leave(turns[i]);
        loop_run_deferred(loop);
    }
    static const size_t want[] = {1, 4, 2, 5, 3};
    for (size_t i = 0; i < COUNT_OF(want); i++)
        T_TRUE(turns[i] == &p[want[i]]);
    gate_unref(&g);
}

/* A reload: higher lets in at once, lower lets nobody be thrown out. */
static void
test_limits_that_change(void **state)
{
    (void)state;
    thr_check_loop();
    struct gate *g = open_gate(1, 100);
    struct gate_pass p[4] = {0};
    for (size_t i = 0; i < COUNT_OF(p); i++) {
        gate_join(&p[i], g);
        T_EQ(gate_enter(&p[i], 1), i == 0 ? GATE_GO : GATE_WAIT);
    }
    gate_set_limits(g, &(struct gate_limits){.max_in_flight = 3, .queue_share = 100});
    loop_run_deferred(loop);
    T_EQ(turn_count, 2);
    gate_set_limits(g, &(struct gate_limits){.max_in_flight = 1, .queue_share = 100});
    gate_leave(&p[0]);
    gate_leave(&p[1]);
    loop_run_deferred(loop);
    T_EQ(turn_count, 2);
    gate_set_limits(g, &(struct gate_limits){.max_in_flight = 0, .queue_share = 100});
    loop_run_deferred(loop);
    T_EQ(turn_count, 3);
    gate_leave(&p[2]);
    gate_leave(&p[3]);
    gate_unref(&g);
}

/* queue_share: of those that wait, whatever for; `beside` do not really. */
static void
test_share_of_the_queue(void **state)
{
    (void)state;
    thr_check_loop();
    struct gate *g = open_gate(0, 20);
    struct gate_pass p[5] = {0}, none = {0};
    for (size_t i = 0; i < COUNT_OF(p); i++)
        gate_join(&p[i], g);
    T_TRUE(gate_may_wait(&p[0], 10, 0));
    T_TRUE(gate_may_wait(&p[0], 10, 0)); /* counts once */
    T_TRUE(gate_may_wait(&p[1], 10, 0));
    T_FALSE(gate_may_wait(&p[2], 10, 0));
    T_TRUE(gate_may_wait(&p[2], 10, 1));
    gate_stop_waiting(&p[0]);
    gate_stop_waiting(&p[0]);
    T_FALSE(gate_may_wait(&p[3], 10, 0));
    gate_leave(&p[1]);
    T_TRUE(gate_may_wait(&p[3], 10, 0));
    T_FALSE(gate_may_wait(&p[4], 0, 0));
    T_TRUE(gate_may_wait(&none, 0, 0)); /* no gate, no share */
    struct gate_view v;
    gate_view(g, &v);
    T_TRUE(v.waiting == 2 && v.refused == 3);
    for (size_t i = 0; i < COUNT_OF(p); i++)
        gate_leave(&p[i]);
    gate_unref(&g);
}

/* Ownership: a request that outlives its section holds the gate. */
static void
test_a_pass_outlives_the_section(void **state)
{
    (void)state;
    thr_check_loop();
    struct gate *g = open_gate(1, 100);
    struct gate_pass a = {0}, b = {0};
    gate_join(&a, g);
    gate_join(&b, g);
    gate_unref(&g);
    T_TRUE(g == NULL);
    T_EQ(gate_enter(&a, 1), GATE_GO);
    T_EQ(gate_enter(&b, 1), GATE_WAIT);
    gate_leave(&a);
    gate_leave(&b); /* with its turn on the way */
    loop_run_deferred(loop);
    T_EQ(turn_count, 0);
}

static void
test_without_memory(void **state)
{
    (void)state;
    thr_check_loop();
    mem_fail_at(1);
    struct gate *none = gate_new();
    mem_fail_at(0);
    T_TRUE(none == NULL);
    struct gate *g = open_gate(1, 100);
    struct gate_pass a = {0}, b = {0};
    gate_join(&a, g);
    gate_join(&b, g);
    T_EQ(gate_enter(&a, 1), GATE_GO);
    mem_fail_at(1);
    T_EQ(gate_enter(&b, 2), GATE_NOMEM);
    mem_fail_at(0);
    T_EQ(all.queued, 0);
    gate_leave(&a);
    gate_leave(&b);
    gate_unref(&g);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_one_in_one_out, setup, teardown),
        cmocka_unit_test_setup_teardown(test_flows_take_turns, setup, teardown),
        cmocka_unit_test_setup_teardown(test_limits_that_change, setup, teardown),
        cmocka_unit_test_setup_teardown(test_share_of_the_queue, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_pass_outlives_the_section, setup, teardown),
        cmocka_unit_test_setup_teardown(test_without_memory, setup, teardown),
    };
    return TEST_MAIN(tests);
}
