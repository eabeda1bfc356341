#ifndef CHMUX_BASE_LOGFMT_H
#define CHMUX_BASE_LOGFMT_H
/*
 * logfmt: the text of log lines, for log.c only: pure functions from values to bytes.
 *
 * A line is a prefix (made by the log thread) and a body (made where the line is logged).
 * Bound: a body never exceeds `cap`; what does not fit is cut at a whole character and marked with
 * "...", and a JSON body is closed properly all the same.
 */
#include "base/log.h"

#define LOGFMT_PREFIX_MAX 64
#define LOGFMT_BODY_MAX   (LOG_LINE_MAX - LOGFMT_PREFIX_MAX)

/* "<6>2026-11-23T06:00:00.000Z info " or `<6>{"time":"...","level":"info"`; the number and the
 * missing time of text are for journald. Returns the length; out is not terminated. */
size_t logfmt_prefix(char out[LOGFMT_PREFIX_MAX], enum log_format format, bool journald,
    enum log_level level, int64_t wall_us);
/* Bodies end in a newline. cap >= 32. */
size_t logfmt_message(char *out, size_t cap, enum log_format format, struct str message);
size_t logfmt_fields(char *out, size_t cap, enum log_format format, const char *event,
    const struct log_field *f, size_t count);
#endif
