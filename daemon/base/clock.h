#ifndef CHMUX_BASE_CLOCK_H
#define CHMUX_BASE_CLOCK_H
/*
 * clock: monotonic instants, so that wall time cannot slip into a timeout.
 * Units: microseconds. MONO_NEVER is later than any instant.
 */
#include "base/base.h"

struct mono {
    int64_t us;
};
#define MONO_NEVER ((struct mono){INT64_MAX})

struct mono mono_now(void); /* CLOCK_MONOTONIC */

static inline struct mono
mono_add_us(struct mono t, int64_t us)
{
    int64_t sum = 0; /* INT64_MAX where it would overflow: MONO_NEVER plus anything is never */
    return __builtin_add_overflow(t.us, us, &sum) ? MONO_NEVER : (struct mono){sum};
}

static inline int64_t
mono_diff_us(struct mono later, struct mono earlier)
{
    return later.us - earlier.us;
}
#endif
