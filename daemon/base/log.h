#ifndef CHMUX_BASE_LOG_H
#define CHMUX_BASE_LOG_H
/*
 * log: lines go into a bounded ring and a log thread writes them to stderr; a full ring drops the
 * line and counts it (log_dropped()), and the thread says so once there is room again.
 *
 * Format     text: `time level message`; JSON: one object per line with time, level, msg. Under
 *            systemd (JOURNAL_STREAM names our stderr) a `<N>` priority comes first and text has
 *            no time. Times are UTC, RFC 3339 with milliseconds, taken when the line was made.
 *            Messages are `event key=value ...`; values with spaces or quotes are quoted by the
 *            caller of LOG_*, or by log_fields(). Control characters are always escaped (`\x1b`),
 *            so a peer's bytes cannot forge a line; JSON is always valid UTF-8.
 * Threads    log_write() and log_fields() any thread, never wait for the disk or the terminal and
 *            never allocate: the lock is held for one copy into the ring.
 * Bound      A line is at most LOG_LINE_MAX bytes; a longer one is cut and ends in "...".
 * Lifetime   Before log_start() and after log_stop() lines are written directly, by the caller.
 */
#include <stdatomic.h>

#include "base/thread.h"
#include "base/str.h"

#define LOG_LINE_MAX 4096

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };
enum log_format { LOG_TEXT, LOG_JSON };

/* Starts the log thread. ring_bytes bounds what waits, at least 2 * LOG_LINE_MAX. false: no thread
 * or no memory (errno says why); lines are still written directly. */
MUST_USE bool log_start(enum log_level level, enum log_format format, size_t ring_bytes);
/* Writes what waits and ends the thread; gives up on a reader of stderr that makes no progress for
 * a second. No other thread logs any more. */
void log_stop(void);
void log_set_level(enum log_level level) ANY_THREAD;
/* Lines made before keep theirs. */
void log_set_format(enum log_format format) ANY_THREAD;
/* Read through log_on(). Relaxed: a line more or less around a change of level does not matter. */
extern _Atomic int log_threshold;
static inline bool
log_on(enum log_level level)
{
    return (int)level <= atomic_load_explicit(&log_threshold, memory_order_relaxed);
}
void log_write(enum log_level level, const char *fmt, ...) PRINTF_LIKE(2, 3) ANY_THREAD;
/* Lines lost since the start: the ring was full, or stderr failed. */
uint64_t log_dropped(void) ANY_THREAD;
/* The last lines, and all that still wait, straight to stderr: for check_set_dump(). */
void log_dump_tail(void);

#define LOG_E(...) log_write(LOG_ERROR, __VA_ARGS__)
#define LOG_W(...) log_write(LOG_WARN, __VA_ARGS__)
#define LOG_I(...) log_write(LOG_INFO, __VA_ARGS__)
#define LOG_D(...) (log_on(LOG_DEBUG) ? log_write(LOG_DEBUG, __VA_ARGS__) : (void)0)

/* A structured line: text prints `event k=v k="v v"`, JSON prints
 * {"time":..,"level":..,"event":..,"k":..}. Fields that do not fit are left out, the last one that
 * does is cut. Borrowed for the call. */
struct log_field {
    const char *key;
    enum { LOG_STR, LOG_NUM } kind;
    struct str s; /* LOG_STR */
    int64_t n;    /* LOG_NUM */
};
void log_fields(enum log_level level, const char *event, const struct log_field *f, size_t count)
    ANY_THREAD;
#endif
