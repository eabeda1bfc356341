#ifndef CHMUX_BASE_LOG_H
#define CHMUX_BASE_LOG_H
/*
 * log: lines go into a bounded ring and a log thread writes them to stderr; a full ring drops the
 * line and counts it (log_dropped()), and the thread says so once there is room again.
 *
 * Format     text: `time level message`; JSON: one object per line with time, level, msg; journald:
 *            a `<N>` priority prefix and no time, chosen when JOURNAL_STREAM matches stderr.
 *            Messages are `event key=value ...`; values with spaces or quotes are quoted by the
 *            caller (LOG_* only escapes control characters). JSON carries the message in "msg".
 *            log_record() writes a line already split into keys: see below.
 * Threads    log_write() and log_fields() any thread, never sleep, never allocate. A line is at
 *            most LOG_LINE_MAX bytes, longer ones are cut with "...".
 * Lifetime   Before log_start() and after log_stop() lines are written directly.
 */
#include "base/thread.h"
#include "base/str.h"

#define LOG_LINE_MAX 4096

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };
enum log_format { LOG_TEXT, LOG_JSON };

/* Starts the log thread. ring_bytes bounds what waits. false: no thread (errno says why). */
MUST_USE bool log_start(enum log_level level, enum log_format format, size_t ring_bytes);
/* Writes what waits, ends the thread. */
void log_stop(void);
void log_set_level(enum log_level level) ANY_THREAD;
extern enum log_level log_threshold; /* read through log_on() */
static inline bool
log_on(enum log_level level)
{
    return level <= log_threshold;
}
void log_write(enum log_level level, const char *fmt, ...) PRINTF_LIKE(2, 3) ANY_THREAD;
uint64_t log_dropped(void) ANY_THREAD;
/* Last lines, straight to stderr: for check_set_dump(). */
void log_dump_tail(void);

#define LOG_E(...) log_write(LOG_ERROR, __VA_ARGS__)
#define LOG_W(...) log_write(LOG_WARN, __VA_ARGS__)
#define LOG_I(...) log_write(LOG_INFO, __VA_ARGS__)
#define LOG_D(...) (log_on(LOG_DEBUG) ? log_write(LOG_DEBUG, __VA_ARGS__) : (void)0)

/* A structured line: text prints `event k=v k="v v"`, JSON prints {"time":..,"event":..,"k":..}. */
struct log_field {
    const char *key;
    enum { LOG_STR, LOG_NUM } kind;
    struct str s; /* LOG_STR */
    int64_t n;    /* LOG_NUM */
};
void log_fields(enum log_level level, const char *event, const struct log_field *f, size_t count) ANY_THREAD;
#endif
