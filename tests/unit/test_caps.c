#include "t.h"

#include "base/mem.h"
#include "proxy/proxy_impl.h"
#include "upstream/upool_impl.h" /* a lease that is nothing but an address */

static struct caps *caps;
static struct endpoint ep = {.authority = "server:8123"};
static struct uaddr addr = {.ep = &ep, .text = "192.0.2.1:8123"};
static struct uconn lease = {.addr = &addr};

/* One who asks. */
struct asker {
    struct exchange ex;
    struct recode rc;
    struct http_req req;
};

static struct asker one, two;
static const struct mono start = {.us = 1000};

static void LOOP_ONLY
asker_init(struct asker *a, const char *user, enum codec_id request, enum codec_id response)
{
    const struct str head = STR("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
    enum err e;
    *a = (struct asker){.rc = {.want_request = request, .want_response = response}};
    a->ex.uc = &lease;
    a->ex.rc = &a->rc;
    a->ex.ch.user_len = strlen(user);
    memcpy(a->ex.ch.user, user, a->ex.ch.user_len);
    errand_init(&a->rc.probe);
    http_req_init(&a->req);
    T_EQ(http_req_parse(&a->req, head, &e), HTTP_OK);
}

static void
asker_fini(struct asker *a)
{
    errand_fini(&a->rc.probe);
    http_req_fini(&a->req);
}

static int
setup(void **state)
{
    (void)state;
    thr_check_loop();
    caps = caps_new();
    asker_init(&one, "A", CODEC_ZSTD, CODEC_ZSTD);
    asker_init(&two, "A", CODEC_ZSTD, CODEC_ZSTD);
    return caps == NULL ? -1 : 0;
}

static int
teardown(void **state)
{
    (void)state;
    thr_check_loop();
    asker_fini(&one);
    asker_fini(&two);
    caps_free(&caps);
    return 0;
}

static struct caps_entry *LOOP_ONLY
entry_of(struct asker *a)
{
    return caps_find(caps, &a->ex, start);
}

static bool LOOP_ONLY
ask(struct asker *a)
{
    return caps_ask(entry_of(a), &a->ex, &a->req, &a->rc, start);
}

/* How 18.16 answers: gzip alone, and results only with the setting. */
static bool LOOP_ONLY
old_server_answers(struct asker *a)
{
    const struct caps_question *q = &a->rc.question;
    struct errand *e = &a->rc.probe;
    bool refused = q->request != CODEC_IDENTITY && q->request != CODEC_GZIP;
    e->status = refused ? 500 : 200;
    e->exception_code = refused ? 89 : 0;
    e->coding = q->setting ? CODEC_GZIP : CODEC_IDENTITY;
    return caps_learn(caps, q, e);
}

static void LOOP_ONLY
check_old_server(const struct caps_entry *e)
{
    T_TRUE(e->request_known && e->response_known && e->response_ok && e->with_setting);
    T_EQ(e->request, CODEC_GZIP);
}

static void
test_one_asks(void **state)
{
    (void)state;
    thr_check_loop();
    int questions = 0;
    while (ask(&one)) {
        T_TRUE(old_server_answers(&one));
        T_TRUE(++questions <= 4);
    }
    check_old_server(entry_of(&one));
}

/* What was asked counts, not what the entry would ask when the answer comes: two of a pace, and one
 * who is behind by any number of answers. */
static void
test_two_ask_at_the_same_time(void **state)
{
    (void)state;
    thr_check_loop();
    for (int lead = 0; lead <= 4; lead++) {
        caps_free(&caps);
        caps = caps_new();
        T_TRUE(ask(&one) && ask(&two));
        bool late = true;
        for (int i = 0; i < 8; i++) {
            if (i >= lead && late) {
                T_TRUE(old_server_answers(&two));
                late = ask(&two);
            }
            T_TRUE(old_server_answers(&one));
            if (!ask(&one))
                break;
        }
        while (late) {
            T_TRUE(old_server_answers(&two));
            late = ask(&two);
        }
        check_old_server(entry_of(&one));
    }
}

/* Another user has taken the place meanwhile, with the same user behind it once more. */
static void
test_an_answer_for_a_place_that_was_taken(void **state)
{
    (void)state;
    thr_check_loop();
    T_TRUE(ask(&one));
    T_TRUE(old_server_answers(&one));
    T_TRUE(ask(&one)); /* gzip */
    struct caps_entry *place = entry_of(&one);
    for (int i = 0; two.rc.question.of.entry != place; i++) {
        two.ex.ch.user_len = (size_t)snprintf(two.ex.ch.user, sizeof two.ex.ch.user, "u%d", i);
        T_TRUE(ask(&two));
    }
    T_TRUE(old_server_answers(&one)); /* nothing to the other */
    T_FALSE(place->request_known);
    T_EQ(place->request, CODEC_ZSTD);
    T_TRUE(entry_of(&one) == place);
    T_TRUE(old_server_answers(&two)); /* nor the other's to it */
    T_FALSE(place->request_known);
    T_EQ(place->request, CODEC_ZSTD);
    T_TRUE(ask(&one));
    T_EQ(one.rc.question.request, CODEC_ZSTD);
}

static void LOOP_ONLY
plan_for_old_server(struct asker *a)
{
    while (ask(a))
        T_TRUE(old_server_answers(a));
    struct caps_entry *e = entry_of(a);
    check_old_server(e);
    a->rc.plan = (struct caps_ref){e, e->version};
    a->rc.up_on = a->rc.set = true;
}

/* A server that was replaced by another, rights that were taken: asked anew once something was
 * refused that is of our making, and for no other error. */
static void
test_a_refusal_is_asked_anew(void **state)
{
    (void)state;
    thr_check_loop();
    static const struct {
        int code;
        bool coding, setting; /* the body was coded, the setting added */
        bool asks;
    } cases[] = {
        {89, true, false, true},
        {48, true, false, true},
        {89, false, true, false},
        {164, false, true, true},
        {452, false, true, true},
        {115, false, true, true},
        {164, true, false, false},
        {60, true, true, false},
        {62, true, true, false},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        plan_for_old_server(&one);
        one.rc.up_on = cases[i].coding;
        one.rc.set = cases[i].setting;
        caps_doubt(&one.rc, cases[i].code, start);
        T_EQ(ask(&one), cases[i].asks);
        T_EQ(one.rc.question.request == CODEC_ZSTD, cases[i].asks);
    }
}

/* Requests that were planned with what is forgotten already say nothing. */
static void
test_a_late_refusal(void **state)
{
    (void)state;
    thr_check_loop();
    plan_for_old_server(&two);
    plan_for_old_server(&one);
    caps_doubt(&one.rc, 89, start);
    plan_for_old_server(&one);
    caps_doubt(&two.rc, 89, start);
    T_FALSE(ask(&one));
}

/* An error without a code: any, so it is asked now and then only, and not for a request that we
 * left alone. */
static void
test_an_error_without_a_code(void **state)
{
    (void)state;
    thr_check_loop();
    plan_for_old_server(&one);
    caps_doubt(&one.rc, 0, mono_add_us(start, 9999999));
    T_FALSE(ask(&one));
    one.rc.up_on = one.rc.set = false;
    caps_doubt(&one.rc, 0, mono_add_us(start, 10000000));
    T_FALSE(ask(&one));
    one.rc.up_on = true;
    caps_doubt(&one.rc, 0, mono_add_us(start, 10000000));
    T_TRUE(ask(&one));
}

static bool LOOP_ONLY
asks_at(struct asker *a, int64_t ms)
{
    struct mono now = mono_add_us(start, ms * 1000);
    return caps_ask(caps_find(caps, &a->ex, now), &a->ex, &a->req, &a->rc, now);
}

static void LOOP_ONLY
fails_at(struct asker *a, int64_t ms)
{
    caps_failed(&a->rc.question, mono_add_us(start, ms * 1000));
}

/* 1, 2, 4, ... 60, 60 seconds; an answer ends it. */
static void
test_a_question_that_fails(void **state)
{
    (void)state;
    thr_check_loop();
    int64_t now = 0, pause = 1000;
    for (int i = 0; i < 9; i++) {
        T_TRUE(asks_at(&one, now));
        fails_at(&one, now);
        T_FALSE(asks_at(&one, now + pause - 1));
        now += pause;
        pause = pause > 30000 ? 60000 : 2 * pause;
    }
    T_TRUE(asks_at(&one, now));
    T_TRUE(old_server_answers(&one));
    T_TRUE(asks_at(&one, now));
    fails_at(&one, now);
    T_TRUE(asks_at(&one, now + 1000));
}

static void
test_questions_that_fail_together(void **state)
{
    (void)state;
    thr_check_loop();
    T_TRUE(asks_at(&one, 0));
    T_TRUE(asks_at(&two, 0));
    fails_at(&one, 5000);
    fails_at(&two, 5001); /* it does not make the pause longer */
    T_FALSE(asks_at(&one, 5999));
    T_TRUE(asks_at(&one, 6000));
}

/* One is lost, the other answered: it can be done. */
static void
test_an_answer_after_a_failure(void **state)
{
    (void)state;
    thr_check_loop();
    T_TRUE(asks_at(&one, 0));
    T_TRUE(asks_at(&two, 0));
    fails_at(&one, 10);
    T_TRUE(old_server_answers(&two));
    T_TRUE(asks_at(&two, 20));
    fails_at(&one, 30); /* of what is known by now */
    T_TRUE(asks_at(&two, 40));
}

int
main(void)
{
    thr_become(THR_LOOP);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_one_asks, setup, teardown),
        cmocka_unit_test_setup_teardown(test_two_ask_at_the_same_time, setup, teardown),
        cmocka_unit_test_setup_teardown(test_an_answer_for_a_place_that_was_taken, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_refusal_is_asked_anew, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_late_refusal, setup, teardown),
        cmocka_unit_test_setup_teardown(test_an_error_without_a_code, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_question_that_fails, setup, teardown),
        cmocka_unit_test_setup_teardown(test_questions_that_fail_together, setup, teardown),
        cmocka_unit_test_setup_teardown(test_an_answer_after_a_failure, setup, teardown),
    };
    return TEST_MAIN(tests);
}
