#ifndef CHMUX_CTL_LATENCY_H
#define CHMUX_CTL_LATENCY_H
/*
 * latency: quantiles of the histograms in a status.
 */
#include <jansson.h>

#include "base/buf.h"

#define LATENCY_BUCKETS_MAX 64

struct latency {
    double bound_ms[LATENCY_BUCKETS_MAX]; /* of each bucket but the last */
    double count[LATENCY_BUCKETS_MAX];
    size_t buckets; /* 0: there is no such histogram */
    double total, sum_ms;
};

/* The histogram `name` of an object "latency"; less what it was `before`, unless NULL. */
void latency_read(struct latency *l, const json_t *latency, const json_t *before, const char *name);
/* Which duration a share q (0 to 1) stayed below, by interpolation in its bucket; < 0: unknown. For
 * what is over the last bound, that bound. */
double latency_quantile(const struct latency *l, double q);
double latency_mean(const struct latency *l); /* < 0: unknown */
#endif
