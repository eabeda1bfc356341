/* latency and top_draw(): what stands on the screen, out of two answers. */
#include "ctl/latency.h"
#include "ctl/top.h"
#include "t.h"

static json_t *
json_of(const char *text)
{
    json_t *j = json_loads(text, 0, NULL);
    T_TRUE(j != NULL);
    return j;
}

/* 10 within 1 ms, 80 within 1 to 2 ms, 10 over 4 ms. */
static const char histogram[] = "{\"bounds_ms\":[1,2,4],\"total\":{\"count\":100,\"sum_ms\":250,"
                                "\"buckets\":[10,80,0,10]}}";

static bool
near(double a, double b)
{
    return a - b < 1e-9 && b - a < 1e-9;
}

static void
test_quantiles_are_interpolated_in_their_bucket(void **state)
{
    (void)state;
    json_t *j = json_of(histogram);
    struct latency l;
    latency_read(&l, j, NULL, "total");
    T_EQ(l.buckets, 4);
    T_TRUE(near(l.total, 100) && near(latency_mean(&l), 2.5));
    T_TRUE(near(latency_quantile(&l, 0.05), 0.5));
    T_TRUE(near(latency_quantile(&l, 0.5), 1.5));
    T_TRUE(near(latency_quantile(&l, 0.9), 2));
    T_TRUE(near(latency_quantile(&l, 0.99), 4)); /* what is over the last bound is not known */
    json_decref(j);
}

/* Subtracted: only what came in between counts. */
static void
test_two_answers_give_what_is_between(void **state)
{
    (void)state;
    json_t *before = json_of(histogram);
    json_t *now = json_of("{\"bounds_ms\":[1,2,4],\"total\":{\"count\":104,\"sum_ms\":262,"
                          "\"buckets\":[10,80,4,10]}}");
    struct latency l;
    latency_read(&l, now, before, "total");
    T_TRUE(near(l.total, 4) && near(latency_mean(&l), 3) && near(latency_quantile(&l, 0.5), 3));
    json_decref(before);
    json_decref(now);
}

static void
test_a_histogram_that_is_none_is_unknown(void **state)
{
    (void)state;
    static const char *const cases[] = {"{}", "[]", "{\"total\":1}",
        "{\"bounds_ms\":[1],\"total\":{\"buckets\":[1]}}",
        "{\"bounds_ms\":[1,2,3],\"total\":{\"buckets\":[1,2]}}",
        "{\"bounds_ms\":\"x\",\"total\":{\"buckets\":{}}}"};
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        json_t *j = json_of(cases[i]);
        struct latency l;
        latency_read(&l, j, NULL, "total");
        T_EQ(l.buckets, 0);
        T_TRUE(latency_quantile(&l, 0.5) < 0 && latency_mean(&l) < 0);
        json_decref(j);
    }
}

static void
draw(struct buf *b, const struct top_view *v, size_t columns, size_t lines)
{
    buf_init(b, 1 << 20);
    top_draw(b, v, columns, lines);
    buf_add(b, "", 1);
    T_TRUE(buf_ok(b));
}

static void
test_rates_are_what_grew_by_the_second(void **state)
{
    (void)state;
    struct top_view v = {.seconds = 2,
        .before = json_of("{\"requests\":{\"complete\":100,\"refused\":7},\"bytes\":"
                          "{\"to_clients\":0}}"),
        .now = json_of("{\"version\":\"1\",\"requests\":{\"complete\":150,\"refused\":3},\"bytes\":"
                       "{\"to_clients\":4194304},\"pool\":{\"size\":4,\"active\":1,\"idle\":1}}")};
    struct buf b;
    draw(&b, &v, 80, 24);
    T_HAS(b.p, "per second: 25 complete, 0 refused"); /* it went back: another process */
    T_HAS(b.p, "out 2.0 MiB; servers");
    T_HAS(b.p, "[#####=====..........] 1 of 4 busy, 1 idle, - connecting");
    T_HAS(b.p, "nothing runs");
    buf_fini(&b);
    json_decref(v.before);
    v.before = NULL;
    draw(&b, &v, 80, 24);
    T_HAS(b.p, "per second: 0 complete");
    buf_fini(&b);
    json_decref(v.now);
}

/* Never more lines or columns than there are; what is wrong stands on top. */
static void
test_it_fits_every_screen(void **state)
{
    (void)state;
    struct top_view v = {.trouble = "gone",
        .now = json_of("{}"),
        .exchanges = json_of("{\"exchanges\":[{\"id\":1,\"user\":\"\\u001b[31m\"},{\"id\":2}]}")};
    for (size_t lines = 1; lines < 30; lines++) {
        struct buf b;
        size_t columns = lines * 3, at = 0, count = 1;
        draw(&b, &v, columns, lines);
        for (size_t i = 0; i + 1 < b.len; i++) {
            at = b.p[i] == '\n' ? 0 : at + 1;
            count += b.p[i] == '\n';
            T_TRUE(at <= columns && b.p[i] != '\x1b');
        }
        T_TRUE(count <= lines);
        if (lines > 20)
            T_HAS(b.p, "gone\n");
        buf_fini(&b);
    }
    json_decref(v.now);
    json_decref(v.exchanges);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_quantiles_are_interpolated_in_their_bucket),
        TEST(test_two_answers_give_what_is_between),
        TEST(test_a_histogram_that_is_none_is_unknown),
        TEST(test_rates_are_what_grew_by_the_second),
        TEST(test_it_fits_every_screen),
    };
    return TEST_MAIN(tests);
}
