#ifndef CHMUX_CTL_TOP_H
#define CHMUX_CTL_TOP_H
/*
 * top: a live view of one chmuxd in a terminal.
 */
#include <jansson.h>

#include "ctl/run.h"

/* Until q, Ctrl-C or a signal. chmuxd may go and come back meanwhile. */
MUST_USE enum run_exit top(const struct args *a);

/* What is known at one moment. */
struct top_view {
    json_t *now, *before; /* status; before may be NULL: then rates are since the start */
    json_t *exchanges;    /* NULL: none could be had */
    double seconds;       /* between before and now */
    const char *trouble;  /* clean text: why there is nothing newer; NULL: all is well */
};
/* Appends lines that fill a screen of that size at most, each ended by a line end but the last. */
void top_draw(struct buf *out, const struct top_view *v, size_t columns, size_t lines);
#endif
