#include "base/metric.h"

#include "t.h"

static int
setup(void **state)
{
    (void)state;
    memset(metric_values, 0, sizeof(metric_values));
    memset(metric_histograms, 0, sizeof(metric_histograms));
    return 0;
}

/* What metric_print() gives, terminated, for the caller to free. */
static char *
print(void)
{
    struct buf b;
    buf_init(&b, 1 << 20);
    metric_print(&b);
    T_TRUE(buf_ok(&b));
    char *text = malloc(b.len + 1);
    T_TRUE(text != NULL);
    memcpy(text, b.p, b.len);
    text[b.len] = '\0';
    buf_fini(&b);
    return text;
}

static size_t
times_in(const char *text, const char *part)
{
    size_t n = 0;
    for (const char *at = text; (at = strstr(at, part)) != NULL; at++)
        n++;
    return n;
}

static void
test_values_with_and_without_labels(void **state)
{
    (void)state;
    metric_inc(M_CLIENTS);
    metric_inc(M_CLIENTS);
    metric_dec(M_CLIENTS);
    metric_add(M_DONE_OK, 41);
    metric_set(M_POOL_IDLE, -3);
    metric_set(M_WORKER_BUSY_US, 1000042);
    T_EQ(metric_get(M_CLIENTS), 1);
    char *text = print();
    T_HAS(text, "\nchmux_clients 1\n");
    T_HAS(text, "\nchmux_exchanges_finished_total{result=\"complete\"} 41\n");
    T_HAS(text, "\nchmux_upstream_connections{state=\"idle\",upstream=\"default\"} -3\n");
    T_HAS(text, "\nchmux_worker_busy_seconds_total 1.000042\n");
    T_HAS(text, "\nchmux_bytes_total{side=\"client\",direction=\"in\"} 0\n");
    free(text);
}

static void
test_help_and_type_once_per_name(void **state)
{
    (void)state;
    char *text = print();
    T_EQ(times_in(text, "# HELP chmux_upstream_connections "), 1);
    T_HAS(text, "\n# TYPE chmux_upstream_connections gauge\n");
    T_HAS(text, "\n# TYPE chmux_requests_total counter\n");
    T_HAS(text, "\n# TYPE chmux_request_seconds histogram\n");
    T_EQ(times_in(text, "# TYPE "), times_in(text, "# HELP "));
    free(text);
}

/* The rules of the text format that metric.def must keep, whoever adds a row. */
static void
test_every_line_is_well_formed(void **state)
{
    (void)state;
    char *text = print(), *seen = calloc(1, strlen(text) + 1);
    T_TRUE(seen != NULL);
    char *save = NULL;
    size_t seen_len = 0;
    bool counter = false;
    for (char *l = strtok_r(text, "\n", &save); l != NULL; l = strtok_r(NULL, "\n", &save)) {
        char name[128], type[16];
        if (sscanf(l, "# TYPE %127s %15s", name, type) == 2) {
            counter = strcmp(type, "counter") == 0;
            size_t len = strlen(name);
            bool total = len > 6 && strcmp(name + len - 6, "_total") == 0;
            T_TRUE(counter == total);
            continue;
        }
        if (sscanf(l, "# HELP %127s", name) == 1) {
            /* A name whose rows do not stand together would get a second HELP. */
            char mark[160];
            int n = snprintf(mark, sizeof(mark), "\n%s\n", name);
            T_TRUE(strstr(seen, mark) == NULL);
            T_TRUE(strlen(l) > strlen("# HELP ") + strlen(name) + 5); /* has a text */
            T_TRUE(strchr(l, '\\') == NULL);
            memcpy(seen + seen_len, mark, (size_t)n);
            seen_len += (size_t)n;
            continue;
        }
        T_TRUE(strncmp(l, "chmux_", 6) == 0);
        const char *brace = strchr(l, '{'), *space = strrchr(l, ' ');
        T_TRUE(space != NULL && space[1] != '\0');
        T_TRUE(brace == NULL || (brace < space && space[-1] == '}'));
        T_TRUE(times_in(l, "\"") % 2 == 0);
    }
    free(seen);
    free(text);
}

static void
test_a_bound_belongs_to_its_bucket(void **state)
{
    (void)state;
    metric_observe_us(0, H_TOTAL, 0);
    metric_observe_us(0, H_TOTAL, -5); /* a clock that stood still: never negative */
    metric_observe_us(0, H_TOTAL, 50);
    metric_observe_us(0, H_TOTAL, 51);
    metric_observe_us(0, H_TOTAL, 100);
    metric_observe_us(0, H_TOTAL, 26214400); /* the last bound */
    metric_observe_us(0, H_TOTAL, 26214401);
    metric_observe_us(0, H_TOTAL, INT64_MAX / 2);
    const struct histogram *h = &metric_histograms[0][H_TOTAL];
    T_EQ(h->bucket[0], 3);
    T_EQ(h->bucket[1], 2);
    T_EQ(h->bucket[HISTOGRAM_BUCKETS - 1], 1);
    T_EQ(h->bucket[HISTOGRAM_BUCKETS], 2);
    T_EQ(h->count, 8);
}

static void
test_histogram_prints_cumulative_seconds(void **state)
{
    (void)state;
    metric_observe_us(0, H_QUEUE_WAIT, 40);
    metric_observe_us(0, H_QUEUE_WAIT, 90);
    metric_observe_us(0, H_QUEUE_WAIT, 3000000000);
    char *text = print();
    T_HAS(text, "\nchmux_queue_wait_seconds_bucket{upstream=\"default\",le=\"0.000050\"} 1\n"
                "chmux_queue_wait_seconds_bucket{upstream=\"default\",le=\"0.000100\"} 2\n");
    T_HAS(text, "\nchmux_queue_wait_seconds_bucket{upstream=\"default\",le=\"26.214400\"} 2\n"
                "chmux_queue_wait_seconds_bucket{upstream=\"default\",le=\"+Inf\"} 3\n"
                "chmux_queue_wait_seconds_sum{upstream=\"default\"} 3000.000130\n"
                "chmux_queue_wait_seconds_count{upstream=\"default\"} 3\n");
    free(text);
}

/* Each upstream has values of its own; what is asked for without a name is their sum. */
static void
test_upstreams_are_counted_apart(void **state)
{
    (void)state;
    T_EQ(metric_set_of("default"), 0);
    unsigned dwh = metric_set_of("dwh");
    T_EQ(dwh, 1);
    T_EQ(metric_set_of("dwh"), 1);
    metric_inc_in(0, M_CONNECTS);
    metric_inc_in(dwh, M_CONNECTS);
    metric_add_in(dwh, M_CONNECTS, 2);
    metric_set_in(dwh, M_POOL_SIZE, 7);
    metric_inc(M_CLIENTS);
    metric_observe_us(0, H_TOTAL, 40);
    metric_observe_us(dwh, H_TOTAL, 60);
    T_EQ(metric_get(M_CONNECTS), 4);
    T_EQ(metric_get_in(dwh, M_CONNECTS), 3);
    struct histogram h = metric_histogram(H_TOTAL);
    T_EQ(h.count, 2);
    T_EQ(h.sum_us, 100);
    T_EQ(h.bucket[0], 1);
    T_EQ(h.bucket[1], 1);
    char *text = print();
    T_HAS(text, "\nchmux_upstream_connects_total{result=\"ok\",upstream=\"default\"} 1\n"
                "chmux_upstream_connects_total{result=\"ok\",upstream=\"dwh\"} 3\n");
    T_HAS(text, "\nchmux_upstream_pool_size{upstream=\"dwh\"} 7\n");
    T_HAS(text, "\nchmux_request_seconds_count{upstream=\"dwh\"} 1\n");
    T_EQ(times_in(text, "\nchmux_clients "), 1);
    T_EQ(times_in(text, "# TYPE chmux_request_seconds "), 1);
    free(text);
    char name[16];
    for (int i = 2; i < METRIC_SETS; i++) {
        snprintf(name, sizeof(name), "u%d", i);
        T_EQ(metric_set_of(name), i);
    }
    T_EQ(metric_set_of("one more"), 0);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_values_with_and_without_labels, setup),
        cmocka_unit_test_setup(test_help_and_type_once_per_name, setup),
        cmocka_unit_test_setup(test_every_line_is_well_formed, setup),
        cmocka_unit_test_setup(test_a_bound_belongs_to_its_bucket, setup),
        cmocka_unit_test_setup(test_histogram_prints_cumulative_seconds, setup),
        cmocka_unit_test_setup(test_upstreams_are_counted_apart, setup),
    };
    return TEST_MAIN(tests);
}
