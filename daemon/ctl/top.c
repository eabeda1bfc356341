#include "ctl/top.h"

#include <poll.h>
#include <unistd.h>

#include "base/clock.h"
#include "ctl/ask.h"
#include "ctl/latency.h"
#include "ctl/out.h"
#include "ctl/reply.h"
#include "ctl/show.h"
#include "ctl/term.h"
#include "ctl/text.h"

#define BAR_COLUMNS   20
#define EXCHANGES_MAX 200 /* asked for: more than any screen has lines */

/* ---- drawing ---- */

static json_t *
part_of(json_t *root, const char *object, const char *key)
{
    return json_object_get(json_object_get(root, object), key);
}

static double
number_of(json_t *root, const char *object, const char *key)
{
    return json_number_value(part_of(root, object, key));
}

/* How fast a counter grows, per second. */
static double
rate_of(const struct top_view *v, const char *object, const char *key)
{
    double now = number_of(v->now, object, key), before = number_of(v->before, object, key);
    return v->before == NULL || v->seconds <= 0 || now < before ? 0 : (now - before) / v->seconds;
}

static void
put_value(struct buf *out, const char *before, json_t *root, const char *object, const char *key)
{
    buf_str(out, str_of(before));
    show_value(
        out, key, object[0] == '\0' ? json_object_get(root, key) : part_of(root, object, key));
}

static void
put_count(struct buf *out, const char *before, double n)
{
    char text[TEXT_FIGURE_MAX];
    text_count(n, text);
    buf_addf(out, "%s%s", before, text);
}

static void
put_size(struct buf *out, const char *before, double n)
{
    char text[TEXT_FIGURE_MAX];
    text_size(n, text);
    buf_addf(out, "%s%s", before, text);
}

/* '#' for what is used, '=' for what is taken in another way, '.' for the rest. */
static void
put_bar(struct buf *out, double used, double taken, double all)
{
    char bar[BAR_COLUMNS + 1];
    for (int i = 0; i < BAR_COLUMNS; i++) {
        double here = all * i / BAR_COLUMNS;
        bar[i] = used > here ? '#' : used + taken > here ? '=' : '.';
    }
    bar[BAR_COLUMNS] = '\0';
    buf_addf(out, "[%s]", all > 0 ? bar : "");
}

static void
put_quantile(struct buf *out, const char *before, const struct latency *l, double q)
{
    char text[TEXT_FIGURE_MAX] = "-";
    double ms = latency_quantile(l, q);
    if (ms >= 0)
        text_duration(ms, text);
    buf_addf(out, "%s%9s", before, text);
}

static void
draw_latency(struct buf *out, const struct top_view *v, const char *name, const char *label)
{
    struct latency l;
    latency_read(
        &l, json_object_get(v->now, "latency"), json_object_get(v->before, "latency"), name);
    buf_addf(out, "%-11s", label);
    put_quantile(out, "p50 ", &l, 0.5);
    put_quantile(out, "   p95 ", &l, 0.95);
    put_quantile(out, "   p99 ", &l, 0.99);
    put_count(out, "   of ", l.total);
    buf_str(out, STR("\n"));
}

static void
draw_head(struct buf *out, const struct top_view *v)
{
    put_value(out, "chmuxd ", v->now, "", "version");
    put_value(out, "  ", v->now, "", "state");
    put_value(out, "  pid ", v->now, "", "pid");
    put_value(out, "  up ", v->now, "", "uptime_ms");
    buf_str(out, v->trouble == NULL ? STR("  q quits\n") : STR("\n"));
    if (v->trouble != NULL)
        buf_str(out, str_of(v->trouble));
    buf_str(out, STR("\n"));
}

static void
draw_figures(struct buf *out, const struct top_view *v)
{
    double active = number_of(v->now, "pool", "active"), size = number_of(v->now, "pool", "size");
    double others = number_of(v->now, "pool", "idle") + number_of(v->now, "pool", "connecting") +
                    number_of(v->now, "pool", "closing");
    buf_str(out, STR("pool       "));
    put_bar(out, active, others, size);
    put_value(out, " ", v->now, "pool", "active");
    put_value(out, " of ", v->now, "pool", "size");
    put_value(out, " busy, ", v->now, "pool", "idle");
    put_value(out, " idle, ", v->now, "pool", "connecting");
    put_value(out, " connecting, peak ", v->now, "pool", "peak");
    buf_str(out, STR("\nqueue      "));
    put_bar(out, number_of(v->now, "queue", "waiting"), 0, number_of(v->now, "queue", "size"));
    put_value(out, " ", v->now, "queue", "waiting");
    put_value(out, " of ", v->now, "queue", "size");
    put_value(out, " waiting, ", v->now, "queue", "waiting_for_session");
    buf_str(out, STR(" for a session\nmemory     "));
    put_bar(out, number_of(v->now, "memory", "used_bytes"), 0,
        number_of(v->now, "memory", "limit_bytes"));
    put_value(out, " ", v->now, "memory", "used_bytes");
    put_value(out, " of ", v->now, "memory", "limit_bytes");
    put_value(out, ", resident ", v->now, "memory", "resident_bytes");
    buf_str(out, STR("\nservers    "));
    put_value(out, "", v->now, "addresses", "up");
    put_value(out, " up, ", v->now, "addresses", "ejected");
    put_value(out, " ejected; clients ", v->now, "clients", "open");
    put_value(out, " of ", v->now, "clients", "max");
    buf_str(out, STR("\nrequests   "));
    put_value(out, "", v->now, "requests", "running");
    put_count(out, " running; per second: ", rate_of(v, "requests", "complete"));
    put_count(out, " complete, ", rate_of(v, "requests", "refused"));
    put_count(out, " refused, ", rate_of(v, "requests", "cut"));
    buf_str(out, STR(" cut\n"));
    put_size(out, "bytes/s    in ", rate_of(v, "bytes", "from_clients"));
    put_size(out, ", out ", rate_of(v, "bytes", "to_clients"));
    put_size(out, "; servers: in ", rate_of(v, "bytes", "from_servers"));
    put_size(out, ", out ", rate_of(v, "bytes", "to_servers"));
    buf_str(out, STR("\n\n"));
    draw_latency(out, v, "queue_wait", "queue wait");
    draw_latency(out, v, "first_byte", "first byte");
    draw_latency(out, v, "total", "total");
    buf_str(out, STR("\n"));
}

void
top_draw(struct buf *out, const struct top_view *v, size_t columns, size_t lines)
{
    struct buf all;
    buf_init(&all, OUT_MAX);
    draw_head(&all, v);
    draw_figures(&all, v);
    if (json_array_size(json_object_get(v->now, "upstreams")) > 1) {
        show_upstreams(&all, v->now);
        buf_str(&all, STR("\n"));
    }
    if (json_array_size(json_object_get(v->exchanges, "exchanges")) > 0)
        show_running(&all, v->exchanges, lines);
    else
        buf_str(&all, STR("nothing runs\n"));
    struct str rest = str_n(all.p, all.len);
    for (size_t i = 0; i < lines && rest.len > 0; i++) {
        ssize_t end = str_find(rest, '\n');
        size_t n = end < 0 ? rest.len : (size_t)end;
        if (i > 0)
            buf_str(out, STR("\n"));
        text_clip(out, str_n(rest.p, n), columns);
        n = size_min(n + 1, rest.len);
        rest = str_n(rest.p + n, rest.len - n);
    }
    out->failed |= all.failed;
    buf_fini(&all);
}

/* ---- the loop ---- */

struct top {
    const struct args *args;
    struct ask ask;
    struct term term;
    struct top_view view;
    struct mono taken; /* when view.now was */
    char trouble[ASK_WHY_MAX];
};

/* Two answers of one chmuxd? */
static bool
same_process(json_t *a, json_t *b)
{
    return json_equal(json_object_get(a, "pid"), json_object_get(b, "pid")) &&
           json_number_value(json_object_get(a, "uptime_ms")) >=
               json_number_value(json_object_get(b, "uptime_ms"));
}

static enum ask_result
refresh(struct top *t)
{
    json_t *status = NULL, *exchanges = NULL;
    char what[64];
    snprintf(what, sizeof what, "exchanges?limit=%d", EXCHANGES_MAX);
    enum ask_result r = reply_fetch(&t->ask, "status", &status, t->trouble);
    if (r == ASK_OK)
        r = reply_fetch(&t->ask, what, &exchanges, t->trouble);
    if (r != ASK_OK) {
        json_decref(status);
        if (r != ASK_STOPPED)
            t->view.trouble = t->trouble;
        return r;
    }
    struct top_view *v = &t->view;
    struct mono now = mono_now();
    json_decref(v->before);
    json_decref(v->exchanges);
    v->before = NULL;
    if (v->now != NULL && same_process(status, v->now))
        v->before = v->now;
    else
        json_decref(v->now);
    v->now = status;
    v->exchanges = exchanges;
    v->seconds = (double)mono_diff_us(now, t->taken) / 1e6;
    v->trouble = NULL;
    t->taken = now;
    return ASK_OK;
}

/* Lines are drawn over those before, so that nothing flickers. false: the terminal is gone. */
static bool
paint(struct top *t)
{
    struct buf picture, out;
    size_t columns = 0, lines = 0;
    term_size(&columns, &lines);
    buf_init(&picture, OUT_MAX);
    buf_init(&out, OUT_MAX);
    top_draw(&picture, &t->view, columns, lines);
    buf_str(&out, STR("\x1b[H"));
    for (size_t i = 0; i < picture.len; i++) {
        if (picture.p[i] == '\n')
            buf_str(&out, STR("\x1b[K\r\n"));
        else
            buf_add(&out, &picture.p[i], 1);
    }
    buf_str(&out, STR("\x1b[K\x1b[J"));
    out.failed |= picture.failed;
    buf_fini(&picture);
    bool ok = out_print(&out);
    buf_fini(&out);
    return ok;
}

static void
wait_until(const struct top *t, struct mono when)
{
    struct pollfd p[] = {{.fd = term_signal_fd(&t->term), .events = POLLIN},
        {.fd = term_key_fd(&t->term), .events = POLLIN}};
    int64_t left_us = mono_diff_us(when, mono_now());
    if (left_us > 0)
        (void)poll(p, COUNT_OF(p), (int)(left_us / 1000) + 1);
}

/* What came while we waited or asked. TERM_QUIT or TERM_DIE: it is over. */
static enum term_event
take_events(struct top *t, bool *due, int *signo)
{
    enum term_event e;
    while ((e = term_event(&t->term, signo)) != TERM_NOTHING) {
        if (e == TERM_QUIT || e == TERM_DIE)
            return e;
        if (e == TERM_STOP)
            term_stop(&t->term);
        else if (e == TERM_KEY)
            *due = true;
        if (e != TERM_KEY && !paint(t))
            return TERM_QUIT;
    }
    return TERM_NOTHING;
}

static enum term_event
live(struct top *t, int *signo)
{
    struct mono next = mono_add_us(mono_now(), t->args->watch_us);
    enum term_event e = TERM_NOTHING;
    bool due = false;
    if (!paint(t))
        return TERM_QUIT;
    while ((e = take_events(t, &due, signo)) == TERM_NOTHING) {
        struct mono now = mono_now();
        due = due || mono_diff_us(next, now) <= 0;
        if (!due) {
            wait_until(t, next);
            continue;
        }
        if (refresh(t) == ASK_STOPPED)
            continue; /* still due: first what came */
        due = false;
        next = mono_add_us(mono_now(), t->args->watch_us);
        if (!paint(t))
            return TERM_QUIT;
    }
    return e;
}

enum run_exit
top(const struct args *a)
{
    struct top t = {
        .args = a, .ask = {.address = a->admin, .timeout_us = a->timeout_us, .wake = {-1, -1}}};
    int signo = 0;
    enum term_event e = TERM_NOTHING;
    if (!isatty(1)) {
        out_complain(STR("top needs a terminal; there is status --watch"));
        return RUN_FAILED;
    }
    if (refresh(&t) != ASK_OK) {
        out_complain(str_of(t.trouble));
        return RUN_FAILED;
    }
    if (term_open(&t.term)) {
        t.ask.wake[0] = term_signal_fd(&t.term);
        t.ask.wake[1] = term_key_fd(&t.term);
        e = live(&t, &signo);
        term_close(&t.term);
    } else {
        out_complain(str_of(strerror(errno)));
        signo = -1;
    }
    json_decref(t.view.now);
    json_decref(t.view.before);
    json_decref(t.view.exchanges);
    if (e == TERM_DIE)
        term_die(signo);
    return signo < 0 ? RUN_FAILED : RUN_OK;
}
