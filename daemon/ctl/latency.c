#include "ctl/latency.h"

static double
number_at(const json_t *array, size_t i)
{
    return json_number_value(json_array_get(array, i));
}

/* A counter that went back belongs to another chmuxd: then there is nothing to subtract. */
static double
grown(double now, double before)
{
    return now >= before ? now - before : now;
}

void
latency_read(struct latency *l, const json_t *latency, const json_t *before, const char *name)
{
    const json_t *bounds = json_object_get(latency, "bounds_ms");
    const json_t *h = json_object_get(latency, name), *old = json_object_get(before, name);
    const json_t *counts = json_object_get(h, "buckets"),
                 *old_counts = json_object_get(old, "buckets");
    *l = (struct latency){0};
    size_t n = json_array_size(counts);
    if (n < 2 || n > LATENCY_BUCKETS_MAX || json_array_size(bounds) != n - 1)
        return;
    l->buckets = n;
    for (size_t i = 0; i < n; i++) {
        l->bound_ms[i] = i + 1 < n ? number_at(bounds, i) : number_at(bounds, n - 2);
        l->count[i] = grown(number_at(counts, i), number_at(old_counts, i));
        l->total += l->count[i];
    }
    l->sum_ms = grown(json_number_value(json_object_get(h, "sum_ms")),
        json_number_value(json_object_get(old, "sum_ms")));
}

double
latency_quantile(const struct latency *l, double q)
{
    double rank = q * l->total, below = 0;
    if (l->total <= 0)
        return -1;
    for (size_t i = 0; i < l->buckets; i++) {
        double from = i == 0 ? 0 : l->bound_ms[i - 1];
        if (below + l->count[i] >= rank && l->count[i] > 0)
            return from + (l->bound_ms[i] - from) * (rank - below) / l->count[i];
        below += l->count[i];
    }
    return l->bound_ms[l->buckets - 1];
}

double
latency_mean(const struct latency *l)
{
    return l->total > 0 ? l->sum_ms / l->total : -1;
}
