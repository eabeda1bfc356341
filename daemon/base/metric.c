#include "base/metric.h"

#define BUCKET_0_US 50 /* bound i is BUCKET_0_US * 2^i */

int64_t metric_values[METRIC_COUNT];
struct histogram metric_histograms[HISTOGRAM_COUNT];

struct row {
    const char *name, *type, *labels, *help;
};

static const struct row rows[METRIC_COUNT] = {
#define COUNTER(id, name, labels, help) [id] = {name, "counter", labels, help},
#define GAUGE(id, name, labels, help)   [id] = {name, "gauge", labels, help},
#define HISTOGRAM(id, name, help)
#include "base/metric.def"
#undef COUNTER
#undef GAUGE
#undef HISTOGRAM
};

static const struct row histogram_rows[HISTOGRAM_COUNT] = {
#define COUNTER(id, name, labels, help)
#define GAUGE(id, name, labels, help)
#define HISTOGRAM(id, name, help) [id] = {name, "histogram", "", help},
#include "base/metric.def"
#undef COUNTER
#undef GAUGE
#undef HISTOGRAM
};

void
metric_observe_us(enum histogram_id id, int64_t us)
{
    uint64_t v = us > 0 ? (uint64_t)us : 0;
    struct histogram *h = &metric_histograms[id];
    uint64_t units = (v + BUCKET_0_US - 1) / BUCKET_0_US; /* bounds belong to their bucket */
    size_t i = units <= 1 ? 0 : (size_t)(64 - __builtin_clzll(units - 1));
    h->bucket[size_min(i, HISTOGRAM_BUCKETS)]++;
    h->sum_us += v;
    h->count++;
}

static void
print_head(struct buf *out, const struct row *r)
{
    buf_addf(out, "# HELP %s %s\n# TYPE %s %s\n", r->name, r->help, r->name, r->type);
}

/* Microseconds as seconds, exactly. */
static void
print_seconds(struct buf *out, uint64_t us)
{
    buf_addf(out, "%" PRIu64 ".%06" PRIu64, us / 1000000, us % 1000000);
}

/* Counters of time are kept in microseconds and told in seconds, Prometheus' unit. */
static void
print_number(struct buf *out, const struct row *r, int64_t value)
{
    static const char suffix[] = "_seconds_total";
    size_t len = strlen(r->name), end = sizeof suffix - 1;
    if (len > end && strcmp(r->name + len - end, suffix) == 0)
        print_seconds(out, (uint64_t)value);
    else
        buf_addf(out, "%" PRId64, value);
    buf_str(out, STR("\n"));
}

static void
print_histogram(struct buf *out, const struct row *r, const struct histogram *h)
{
    uint64_t below = 0;
    print_head(out, r);
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
        below += h->bucket[i];
        buf_addf(out, "%s_bucket{le=\"", r->name);
        print_seconds(out, (uint64_t)BUCKET_0_US << i);
        buf_addf(out, "\"} %" PRIu64 "\n", below);
    }
    buf_addf(out, "%s_bucket{le=\"+Inf\"} %" PRIu64 "\n%s_sum ", r->name, h->count, r->name);
    print_seconds(out, h->sum_us);
    buf_addf(out, "\n%s_count %" PRIu64 "\n", r->name, h->count);
}

void
metric_print(struct buf *out)
{
    for (size_t i = 0; i < METRIC_COUNT; i++) {
        const struct row *r = &rows[i];
        if (i == 0 || strcmp(r->name, rows[i - 1].name) != 0)
            print_head(out, r);
        bool labelled = r->labels[0] != '\0';
        buf_addf(out, "%s%s%s%s ", r->name, labelled ? "{" : "", r->labels, labelled ? "}" : "");
        print_number(out, r, metric_values[i]);
    }
    for (size_t i = 0; i < HISTOGRAM_COUNT; i++)
        print_histogram(out, &histogram_rows[i], &metric_histograms[i]);
}
