#include "base/metric.h"

#define BUCKET_0_US 50 /* bound i is BUCKET_0_US * 2^i */

int64_t metric_values[METRIC_SETS][METRIC_COUNT];
struct histogram metric_histograms[METRIC_SETS][HISTOGRAM_COUNT];

static char set_names[METRIC_SETS][METRIC_NAME_MAX] = {"default"};
static unsigned set_count = 1;

struct row {
    const char *name, *type, *labels, *help;
    bool per_upstream;
};

static const struct row rows[METRIC_COUNT] = {
#define COUNTER(id, name, labels, help)    [id] = {name, "counter", labels, help, false},
#define GAUGE(id, name, labels, help)      [id] = {name, "gauge", labels, help, false},
#define UP_COUNTER(id, name, labels, help) [id] = {name, "counter", labels, help, true},
#define UP_GAUGE(id, name, labels, help)   [id] = {name, "gauge", labels, help, true},
#define HISTOGRAM(id, name, help)
#define UP_HISTOGRAM(id, name, help)
#include "base/metric.def"
#undef COUNTER
#undef GAUGE
#undef HISTOGRAM
};

static const struct row histogram_rows[HISTOGRAM_COUNT] = {
#define COUNTER(id, name, labels, help)
#define GAUGE(id, name, labels, help)
#define UP_COUNTER(id, name, labels, help)
#define UP_GAUGE(id, name, labels, help)
#define HISTOGRAM(id, name, help)    [id] = {name, "histogram", "", help, false},
#define UP_HISTOGRAM(id, name, help) [id] = {name, "histogram", "", help, true},
#include "base/metric.def"
#undef COUNTER
#undef GAUGE
#undef HISTOGRAM
};

unsigned
metric_set_of(const char *name)
{
    for (unsigned i = 0; i < set_count; i++)
        if (strcmp(set_names[i], name) == 0)
            return i;
    if (set_count == METRIC_SETS)
        return 0;
    snprintf(set_names[set_count], METRIC_NAME_MAX, "%s", name);
    return set_count++;
}

int64_t
metric_get(enum metric_id id)
{
    int64_t sum = 0;
    for (unsigned i = 0; i < set_count; i++)
        sum += metric_values[i][id];
    return sum;
}

void
metric_observe_us(unsigned set, enum histogram_id id, int64_t us)
{
    uint64_t v = us > 0 ? (uint64_t)us : 0;
    struct histogram *h = &metric_histograms[set][id];
    uint64_t units = (v + BUCKET_0_US - 1) / BUCKET_0_US; /* bounds belong to their bucket */
    size_t i = units <= 1 ? 0 : (size_t)(64 - __builtin_clzll(units - 1));
    h->bucket[size_min(i, HISTOGRAM_BUCKETS)]++;
    h->sum_us += v;
    h->count++;
}

struct histogram
metric_histogram(enum histogram_id id)
{
    struct histogram sum = {0};
    for (unsigned i = 0; i < set_count; i++) {
        const struct histogram *h = &metric_histograms[i][id];
        for (size_t k = 0; k < COUNT_OF(h->bucket); k++)
            sum.bucket[k] += h->bucket[k];
        sum.sum_us += h->sum_us;
        sum.count += h->count;
    }
    return sum;
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
print_histogram(struct buf *out, const struct row *r, unsigned set, const struct histogram *h)
{
    char label[METRIC_NAME_MAX + 16] = "", alone[METRIC_NAME_MAX + 16] = "";
    uint64_t below = 0;
    if (r->per_upstream) {
        snprintf(label, sizeof label, "upstream=\"%s\",", set_names[set]);
        snprintf(alone, sizeof alone, "{upstream=\"%s\"}", set_names[set]);
    }
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
        below += h->bucket[i];
        buf_addf(out, "%s_bucket{%sle=\"", r->name, label);
        print_seconds(out, (uint64_t)BUCKET_0_US << i);
        buf_addf(out, "\"} %" PRIu64 "\n", below);
    }
    buf_addf(out, "%s_bucket{%sle=\"+Inf\"} %" PRIu64 "\n%s_sum%s ", r->name, label, h->count,
        r->name, alone);
    print_seconds(out, h->sum_us);
    buf_addf(out, "\n%s_count%s %" PRIu64 "\n", r->name, alone, h->count);
}

static void
print_value(struct buf *out, const struct row *r, unsigned set, int64_t value)
{
    bool labelled = r->labels[0] != '\0';
    buf_str(out, str_of(r->name));
    if (labelled || r->per_upstream)
        buf_addf(out, "{%s", r->labels);
    if (r->per_upstream)
        buf_addf(out, "%supstream=\"%s\"", labelled ? "," : "", set_names[set]);
    if (labelled || r->per_upstream)
        buf_str(out, STR("}"));
    buf_str(out, STR(" "));
    print_number(out, r, value);
}

void
metric_print(struct buf *out)
{
    for (size_t i = 0; i < METRIC_COUNT; i++) {
        const struct row *r = &rows[i];
        if (i == 0 || strcmp(r->name, rows[i - 1].name) != 0)
            print_head(out, r);
        for (unsigned set = 0; set < (r->per_upstream ? set_count : 1); set++)
            print_value(out, r, set, metric_values[set][i]);
    }
    for (size_t i = 0; i < HISTOGRAM_COUNT; i++) {
        const struct row *r = &histogram_rows[i];
        print_head(out, r);
        for (unsigned set = 0; set < (r->per_upstream ? set_count : 1); set++)
            print_histogram(out, r, set, &metric_histograms[set][i]);
    }
}
