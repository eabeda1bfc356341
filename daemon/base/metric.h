#ifndef CHMUX_BASE_METRIC_H
#define CHMUX_BASE_METRIC_H
/*
 * metric: the counters, gauges and histograms of metric.def, kept in one static table and printed
 * by admin/. Only the loop thread writes, so they are plain integers.
 */
#include "base/buf.h"
#include "base/thread.h"

enum metric_id {
#define COUNTER(id, name, labels, help) id,
#define GAUGE(id, name, labels, help)   id,
#define HISTOGRAM(id, name, help)
#include "base/metric.def"
#undef COUNTER
#undef GAUGE
#undef HISTOGRAM
    METRIC_COUNT
};

enum histogram_id {
#define COUNTER(id, name, labels, help)
#define GAUGE(id, name, labels, help)
#define HISTOGRAM(id, name, help) id,
#include "base/metric.def"
#undef COUNTER
#undef GAUGE
#undef HISTOGRAM
    HISTOGRAM_COUNT
};

#define HISTOGRAM_BUCKETS 20 /* bounds: 50 us * 2^i, then +Inf */

struct histogram {
    uint64_t bucket[HISTOGRAM_BUCKETS + 1];
    uint64_t sum_us, count;
};

extern int64_t metric_values[METRIC_COUNT];
extern struct histogram metric_histograms[HISTOGRAM_COUNT];

static inline void
metric_add(enum metric_id id, int64_t n)
{
    metric_values[id] += n;
}

static inline void
metric_inc(enum metric_id id)
{
    metric_values[id]++;
}

static inline void
metric_dec(enum metric_id id)
{
    metric_values[id]--;
}

static inline void
metric_set(enum metric_id id, int64_t v)
{
    metric_values[id] = v;
}

static inline int64_t
metric_get(enum metric_id id)
{
    return metric_values[id];
}

void metric_observe_us(enum histogram_id id, int64_t us);
/* Prometheus text format 0.0.4: HELP and TYPE once per name, then every series. */
void metric_print(struct buf *out);
#endif
