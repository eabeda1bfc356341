#ifndef CHMUX_BASE_METRIC_H
#define CHMUX_BASE_METRIC_H
/*
 * metric: the counters, gauges and histograms of metric.def, kept in one static table and printed
 * by admin/. Only the loop thread writes, so they are plain integers.
 *
 * Those that are counted for each upstream (UP_...) have one value in each set, and the others one,
 * in set 0, which is the default upstream's too. Calls that name no set mean that one.
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

#define METRIC_SETS     16
#define METRIC_NAME_MAX 64

extern int64_t metric_values[METRIC_SETS][METRIC_COUNT];
extern struct histogram metric_histograms[METRIC_SETS][HISTOGRAM_COUNT];

/* The set of the upstream of that name, which is "default" for set 0; a new one for a new name.
 * Bound: when all are taken, set 0. */
unsigned metric_set_of(const char *name);

static inline void
metric_add_in(unsigned set, enum metric_id id, int64_t n)
{
    metric_values[set][id] += n;
}

static inline void
metric_inc_in(unsigned set, enum metric_id id)
{
    metric_values[set][id]++;
}

static inline void
metric_set_in(unsigned set, enum metric_id id, int64_t v)
{
    metric_values[set][id] = v;
}

static inline int64_t
metric_get_in(unsigned set, enum metric_id id)
{
    return metric_values[set][id];
}

static inline void
metric_add(enum metric_id id, int64_t n)
{
    metric_add_in(0, id, n);
}

static inline void
metric_inc(enum metric_id id)
{
    metric_inc_in(0, id);
}

static inline void
metric_dec(enum metric_id id)
{
    metric_add_in(0, id, -1);
}

static inline void
metric_set(enum metric_id id, int64_t v)
{
    metric_set_in(0, id, v);
}

/* Of all sets together. */
int64_t metric_get(enum metric_id id);
void metric_observe_us(unsigned set, enum histogram_id id, int64_t us);
/* Of all sets together. */
struct histogram metric_histogram(enum histogram_id id);
/* Prometheus text format 0.0.4: HELP and TYPE once per name, then every series. */
void metric_print(struct buf *out);
#endif
