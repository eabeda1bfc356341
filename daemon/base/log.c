#include "base/log.h"

#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/logfmt.h"

#define TAIL_LINES  32          /* how many written lines log_dump_tail() still knows */
#define BATCH_BYTES (16 * 1024) /* what the thread takes out of the ring at once */
#define POLL_MS     100
#define STOP_POLLS  10 /* without progress, once log_stop() was called */

struct rec { /* stands before each body in the ring */
    int64_t wall_us;
    uint32_t len; /* of the body */
    uint16_t level, format;
};

_Atomic int log_threshold = LOG_INFO;
static _Atomic uint64_t dropped;
static _Atomic bool stopping;

/* Read once per line: its prefix and its body are of one format. Relaxed: which line is the first
 * of a new format does not matter. */
static _Atomic int format_now = LOG_TEXT;
/* Set while no other thread logs: by log_start(), before its thread exists. */
static bool journald;
static pthread_t thread;

/* The log thread's own. */
static uint64_t told; /* of `dropped` */
static bool gave_up;  /* stopping, and stderr takes nothing: what is left is counted as lost */

/*
 * The ring. Positions count bytes since the start and never wrap; a position modulo ring_cap is
 * the place in ring_bytes. [read_at, write_at) waits; up to ring_cap bytes before write_at are
 * still whole, which is what log_dump_tail() reads.
 */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t filled = PTHREAD_COND_INITIALIZER;
static char *ring; /* owned; NULL: lines are written directly */
static size_t ring_cap;
static uint64_t read_at, write_at;
static uint64_t tail_at[TAIL_LINES]; /* where the last lines begin, by line number modulo */
static uint64_t tail_count;          /* lines put so far */

static void
ring_put_locked(const void *p, size_t n)
{
    size_t at = (size_t)(write_at % ring_cap);
    size_t first = size_min(n, ring_cap - at);
    memcpy(ring + at, p, first);
    memcpy(ring, (const char *)p + first, n - first);
    write_at += n;
}

static void
ring_get_locked(uint64_t from, void *p, size_t n)
{
    size_t at = (size_t)(from % ring_cap);
    size_t first = size_min(n, ring_cap - at);
    memcpy(p, ring + at, first);
    memcpy((char *)p + first, ring, n - first);
}

static enum log_format
format_of_now(void)
{
    return (enum log_format)atomic_load_explicit(&format_now, memory_order_relaxed);
}

static size_t
prefix_of(char line[LOG_LINE_MAX], const struct rec *rec)
{
    return logfmt_prefix(
        line, (enum log_format)rec->format, journald, (enum log_level)rec->level, rec->wall_us);
}

/* One whole line to fd, prefix and body. Blocks as long as fd does. */
static void
write_line(const struct rec *rec, const char *body)
{
    char line[LOG_LINE_MAX];
    size_t len = prefix_of(line, rec);
    memcpy(line + len, body, rec->len);
    len += rec->len;
    for (size_t done = 0; done < len;) {
        ssize_t n = write(STDERR_FILENO, line + done, len - done);
        if (n < 0 && errno != EINTR)
            return; /* nowhere left to say so */
        done += n > 0 ? (size_t)n : 0;
    }
}

/* From caller to the ring, or to stderr while there is none. */
static void
emit(enum log_level level, enum log_format format, const char *body, size_t len)
{
    CHECK(len <= LOGFMT_BODY_MAX);
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    struct rec rec = {.wall_us = (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000,
        .len = (uint32_t)len,
        .level = (uint16_t)level,
        .format = (uint16_t)format};
    pthread_mutex_lock(&lock);
    if (ring == NULL) {
        pthread_mutex_unlock(&lock);
        write_line(&rec, body);
        return;
    }
    bool was_empty = read_at == write_at;
    bool room = ring_cap - (size_t)(write_at - read_at) >= sizeof(rec) + len;
    if (room) {
        tail_at[tail_count++ % TAIL_LINES] = write_at;
        ring_put_locked(&rec, sizeof(rec));
        ring_put_locked(body, len);
    } else {
        atomic_fetch_add_explicit(&dropped, 1, memory_order_relaxed);
    }
    pthread_mutex_unlock(&lock);
    if (was_empty && room)
        pthread_cond_signal(&filled);
}

void
log_write(enum log_level level, const char *fmt, ...)
{
    if (!log_on(level))
        return;
    char message[LOG_LINE_MAX], body[LOGFMT_BODY_MAX];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(message, sizeof(message), fmt, ap);
    va_end(ap);
    /* What vsnprintf() cuts is longer than any body, so the body is cut too, and says so. */
    size_t len = n < 0 ? 0 : size_min((size_t)n, sizeof(message) - 1);
    enum log_format format = format_of_now();
    emit(level, format, body, logfmt_message(body, sizeof(body), format, str_n(message, len)));
}

void
log_fields(enum log_level level, const char *event, const struct log_field *f, size_t count)
{
    if (!log_on(level))
        return;
    char body[LOGFMT_BODY_MAX];
    enum log_format format = format_of_now();
    emit(level, format, body, logfmt_fields(body, sizeof(body), format, event, f, count));
}

void
log_set_format(enum log_format format)
{
    atomic_store_explicit(&format_now, (int)format, memory_order_relaxed);
}

void
log_set_level(enum log_level level)
{
    atomic_store_explicit(&log_threshold, (int)level, memory_order_relaxed);
}

uint64_t
log_dropped(void)
{
    return atomic_load_explicit(&dropped, memory_order_relaxed);
}

/*
 * The log thread. A pipe that polls writable takes PIPE_BUF bytes without blocking, so the thread
 * sleeps only in poll() and log_stop() never waits for a reader that is stuck.
 */
static bool
write_out(const char *p, size_t len)
{
    int polls = 0;
    for (size_t done = 0; done < len && !gave_up;) {
        struct pollfd pfd = {.fd = STDERR_FILENO, .events = POLLOUT};
        if (poll(&pfd, 1, POLL_MS) <= 0) {
            /* Acquire pairs with log_stop(): nothing else is read, but it must be seen. */
            if (atomic_load_explicit(&stopping, memory_order_acquire) && ++polls >= STOP_POLLS)
                gave_up = true;
            continue;
        }
        ssize_t n = write(STDERR_FILENO, p + done, size_min(len - done, PIPE_BUF));
        if (n < 0 && errno != EINTR && errno != EAGAIN)
            return false;
        done += n > 0 ? (size_t)n : 0;
        polls = n > 0 ? 0 : polls;
    }
    return !gave_up;
}

struct batch { /* whole records, as they stood in the ring */
    char raw[BATCH_BYTES];
    size_t len;
    char text[2 * BATCH_BYTES];
    size_t text_len;
    uint64_t lines; /* in text */
};

static void
batch_flush(struct batch *b)
{
    if (b->text_len > 0 && !write_out(b->text, b->text_len))
        atomic_fetch_add_explicit(&dropped, b->lines, memory_order_relaxed);
    b->text_len = 0;
    b->lines = 0;
}

static void
batch_line(struct batch *b, const struct rec *rec, const char *body)
{
    if (sizeof(b->text) - b->text_len < LOG_LINE_MAX)
        batch_flush(b);
    char *to = b->text + b->text_len;
    size_t n = prefix_of(to, rec);
    memcpy(to + n, body, rec->len);
    b->text_len += n + rec->len;
    b->lines++;
}

static void
batch_write(struct batch *b)
{
    for (size_t at = 0; at < b->len;) {
        struct rec rec;
        memcpy(&rec, b->raw + at, sizeof(rec));
        batch_line(b, &rec, b->raw + at + sizeof(rec));
        at += sizeof(rec) + rec.len;
    }
    batch_flush(b);
}

/* Takes as many whole records as fit. */
static void
batch_fill_locked(struct batch *b)
{
    b->len = 0;
    while (read_at < write_at) {
        struct rec rec;
        ring_get_locked(read_at, &rec, sizeof(rec));
        size_t whole = sizeof(rec) + rec.len;
        if (sizeof(b->raw) - b->len < whole)
            break;
        ring_get_locked(read_at, b->raw + b->len, whole);
        b->len += whole;
        read_at += whole;
    }
}

/* Lines are lost where the reader could not keep up: between what is written and what follows. */
static void
tell_dropped(struct batch *b)
{
    uint64_t now = log_dropped();
    if (now == told)
        return;
    char message[64], body[128];
    struct timespec ts;
    int n = snprintf(message, sizeof(message), "log_dropped lines=%" PRIu64, now - told);
    enum log_format format = format_of_now();
    size_t len = logfmt_message(body, sizeof(body), format, str_n(message, (size_t)n));
    clock_gettime(CLOCK_REALTIME, &ts);
    struct rec rec = {.wall_us = (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000,
        .len = (uint32_t)len,
        .level = LOG_WARN,
        .format = (uint16_t)format};
    told = now;
    batch_line(b, &rec, body);
    b->lines = 0; /* this one is not counted when it is lost too */
    batch_flush(b);
}

static void *
log_main(void *arg)
{
    struct batch *b = arg;
    thr_become(THR_LOG);
    pthread_mutex_lock(&lock);
    for (;;) {
        while (read_at == write_at && !atomic_load_explicit(&stopping, memory_order_acquire))
            pthread_cond_wait(&filled, &lock);
        if (read_at == write_at)
            break; /* stopping, and nothing waits */
        batch_fill_locked(b);
        pthread_mutex_unlock(&lock);
        batch_write(b);
        tell_dropped(b);
        pthread_mutex_lock(&lock);
    }
    pthread_mutex_unlock(&lock);
    free(b);
    return NULL;
}

/* systemd: JOURNAL_STREAM is "device:inode" of the stream that stdout and stderr were given. */
static bool
stderr_is_journal(void)
{
    const char *env = getenv("JOURNAL_STREAM");
    struct stat st;
    if (env == NULL || fstat(STDERR_FILENO, &st) != 0)
        return false;
    char ours[48];
    snprintf(ours, sizeof(ours), "%ju:%ju", (uintmax_t)st.st_dev, (uintmax_t)st.st_ino);
    return strcmp(env, ours) == 0;
}

bool
log_start(enum log_level level, enum log_format format, size_t ring_bytes)
{
    CHECK(ring == NULL && ring_bytes >= (size_t)2 * LOG_LINE_MAX);
    log_set_level(level);
    log_set_format(format);
    journald = stderr_is_journal();
    char *bytes = malloc(ring_bytes);
    struct batch *b = calloc(1, sizeof(*b));
    int failed = bytes == NULL || b == NULL ? ENOMEM : 0;
    if (failed == 0) {
        ring = bytes;
        ring_cap = ring_bytes;
        read_at = write_at = tail_count = 0;
        told = log_dropped();
        gave_up = false;
        atomic_store_explicit(&stopping, false, memory_order_release);
        /* Signals belong to the loop thread; the new thread inherits this mask. */
        sigset_t all, before;
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);
        failed = pthread_create(&thread, NULL, log_main, b);
        pthread_sigmask(SIG_SETMASK, &before, NULL);
    }
    if (failed != 0) {
        ring = NULL;
        free(bytes);
        free(b);
        errno = failed;
        return false;
    }
    pthread_setname_np(thread, "chmux-log");
    return true;
}

void
log_stop(void)
{
    if (ring == NULL)
        return;
    pthread_mutex_lock(&lock);
    atomic_store_explicit(&stopping, true, memory_order_release);
    pthread_mutex_unlock(&lock);
    pthread_cond_signal(&filled);
    pthread_join(thread, NULL);
    free(ring);
    ring = NULL;
}

void
log_dump_tail(void)
{
    /* Whoever fails a check may hold the lock itself: wait a moment for the others, no longer. */
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 1;
    if (pthread_mutex_timedlock(&lock, &until) != 0)
        return;
    if (ring != NULL && tail_count > 0) {
        uint64_t whole = write_at > ring_cap ? write_at - ring_cap : 0;
        uint64_t line = tail_count > TAIL_LINES ? tail_count - TAIL_LINES : 0;
        while (line < tail_count && tail_at[line % TAIL_LINES] < whole)
            line++;
        uint64_t at = line < tail_count ? tail_at[line % TAIL_LINES] : write_at;
        at = read_at < at ? read_at : at;
        while (at < write_at) {
            struct rec rec;
            char body[LOGFMT_BODY_MAX];
            ring_get_locked(at, &rec, sizeof(rec));
            CHECK(rec.len <= sizeof(body));
            ring_get_locked(at + sizeof(rec), body, rec.len);
            write_line(&rec, body);
            at += sizeof(rec) + rec.len;
        }
    }
    pthread_mutex_unlock(&lock);
}
