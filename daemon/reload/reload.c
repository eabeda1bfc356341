#include "reload/reload.h"

#include <time.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/metric.h"
#include "proxy/proxy.h"
#include "reload/reload_job.h"

#include "base/no_block.h"

struct reload {
    struct reload_parts p;
    struct aside *aside; /* owns */
    struct loop_task start_task;
    struct timer limit;
    struct reload_job *job; /* under way, waited for or given up; NULL: none */
    bool wanted;            /* one more is to begin */
    uint64_t number;        /* of the one under way, or of the last */
    /* How the last one ended; `last` points into the others. */
    struct admin_reload last;
    struct config_changes changes;
    struct buf lines;
    char message[512];
};

static void on_start(void *arg);

static int64_t
unix_ms(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static size_t
restart_count(const struct config_changes *all)
{
    size_t n = 0;
    for (size_t i = 0; i < all->count; i++)
        n += !all->item[i].reloadable;
    return n;
}

/* ---- what is said ---- */

static void LOOP_ONLY
log_lines(enum log_level level, const char *event, struct str lines)
{
    while (lines.len > 0) {
        ssize_t end = str_find(lines, '\n');
        size_t len = end < 0 ? lines.len : (size_t)end;
        const struct log_field why = {"why", LOG_STR, str_n(lines.p, len), 0};
        log_fields(level, event, &why, 1);
        size_t used = size_min(len + 1, lines.len);
        lines = str_n(lines.p + used, lines.len - used);
    }
}

static void LOOP_ONLY
log_changes(const struct config_changes *all)
{
    for (size_t i = 0; i < all->count; i++) {
        const struct config_change *ch = &all->item[i];
        const struct log_field f[] = {
            {"section", LOG_STR, str_of(ch->section), 0},
            {"key", LOG_STR, str_of(ch->key), 0},
            {"before", LOG_STR, ch->before == NULL ? STR("-") : str_of(ch->before), 0},
            {"after", LOG_STR, ch->after == NULL ? STR("-") : str_of(ch->after), 0},
        };
        log_fields(LOG_INFO, ch->reloadable ? "option_changed" : "restart_needed", f, COUNT_OF(f));
    }
}

/* The first line that is no warning. */
static struct str
first_error(struct str lines)
{
    for (;;) {
        ssize_t end = str_find(lines, '\n');
        struct str line = end < 0 ? lines : str_n(lines.p, (size_t)end);
        if (end < 0 || !str_starts_nocase(line, STR("warning: ")))
            return line;
        lines = str_n(lines.p + end + 1, lines.len - (size_t)end - 1);
    }
}

/* Takes what of the job is to be shown; job may be NULL. */
static void LOOP_ONLY
finish(struct reload *r, struct reload_job *job, bool ok)
{
    config_changes_fini(&r->changes);
    if (job != NULL && ok) {
        r->changes = job->changes;
        job->changes = (struct config_changes){0};
    }
    struct str lines = str_n(r->lines.p, r->lines.len);
    if (!ok)
        snprintf(r->message, sizeof r->message, STR_FMT, STR_ARG(first_error(lines)));
    r->last = (struct admin_reload){.ok = ok,
        .message = r->message,
        .lines = lines,
        .changes = &r->changes,
        .at_unix_ms = unix_ms()};
    metric_inc(ok ? M_RELOADS_OK : M_RELOADS_FAILED);
    metric_set(M_RELOAD_LAST_OK, ok);
    if (ok) {
        metric_set(M_RELOAD_TIME, r->last.at_unix_ms / 1000);
        metric_set(M_RESTART_NEEDED, (int64_t)restart_count(&r->changes));
        log_changes(&r->changes);
        log_lines(LOG_WARN, "reload_warning", lines);
        LOG_I("reload_done changed=%zu restart_needed=%zu",
            r->changes.count - restart_count(&r->changes), restart_count(&r->changes));
    } else {
        log_lines(LOG_ERROR, "reload_error", lines);
        LOG_E("reload_failed in_force=\"what was before\"");
    }
    if (!proxy_is_draining(r->p.proxy))
        notify_ready(r->p.notify);
    reload_job_free(&job);
    if (r->p.admin != NULL)
        admin_reloaded(r->p.admin, r->number, &r->last);
    if (r->wanted)
        loop_defer(r->p.loop, &r->start_task, on_start, r);
}

static void PRINTF_LIKE(3, 4)
    LOOP_ONLY fail(struct reload *r, struct reload_job *job, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    buf_vaddf(&r->lines, fmt, ap);
    va_end(ap);
    buf_str(&r->lines, STR("\n"));
    finish(r, job, false);
}

/* ---- the change ---- */

/* Everything that can fail. */
static bool LOOP_ONLY
stage(struct reload *r, struct reload_job *job, char *why, size_t why_len)
{
    if (proxy_is_draining(r->p.proxy)) {
        snprintf(why, why_len, "chmuxd is draining: what it has is kept to the end");
        return false;
    }
    return settings_raise_descriptors(job->next, why, why_len) &&
           (r->p.admin == NULL || admin_may_commit(r->p.admin, job->next, why, why_len)) &&
           upools_stage(r->p.pools, &job->plan, why, why_len);
}

/* Nothing here can fail. Does anything differ that is no option: what is in the TLS files? */
static bool LOOP_ONLY
commit(struct reload *r, struct reload_job *job)
{
    struct config *old = *r->p.cfg, *next = job->next;
    job->next = NULL;
    *r->p.cfg = next;
    mem_set_limit(next->chmux.memory_limit);
    log_set_level(next->log.level);
    log_set_format(next->log.format);
    bool tls = upools_commit(r->p.pools, &job->plan);
    tls = proxy_commit(r->p.proxy, next, &job->listeners) || tls;
    if (r->p.admin != NULL)
        admin_commit(r->p.admin, next);
    config_free(&old);
    return tls;
}

static void LOOP_ONLY
change_over(struct reload *r, struct reload_job *job)
{
    char why[512];
    r->lines = job->errors; /* given */
    buf_init(&job->errors, 0);
    if (!job->ok) {
        finish(r, job, false);
        return;
    }
    if (!stage(r, job, why, sizeof why)) {
        fail(r, job, "%s", why);
        return;
    }
    bool tls = commit(r, job);
    size_t restart = restart_count(&job->changes), changed = job->changes.count - restart;
    snprintf(r->message, sizeof r->message, "reloaded: %zu option%s changed%s%s", changed,
        changed == 1 ? "" : "s", tls ? ", certificates read anew" : "",
        restart == 0 ? "" : "; some changes need a restart");
    finish(r, job, true);
}

static void
on_prepared(struct aside_job *aside)
{
    thr_check_loop();
    struct reload_job *job = CONTAINER_OF(aside, struct reload_job, aside);
    struct reload *r = job->reload;
    loop_label(r->p.loop, "reload");
    r->job = NULL;
    if (job->given_up) {
        reload_job_free(&job);
        return;
    }
    timer_disarm(&r->limit);
    change_over(r, job);
}

/* The thread may hang for ever, in a file of a mount that is away. It keeps what it works with. */
static void
on_limit(void *arg)
{
    thr_check_loop();
    struct reload *r = arg;
    r->job->given_up = true;
    fail(r, NULL, "the files could not be read within %d s; is a mount away?",
        RELOAD_LIMIT_US / 1000000);
}

static bool
is_waiting(const struct reload *r)
{
    return r->job != NULL && !r->job->given_up;
}

static void
on_start(void *arg)
{
    thr_check_loop();
    struct reload *r = arg;
    if (!r->wanted || is_waiting(r))
        return;
    r->wanted = false;
    r->number++;
    buf_fini(&r->lines);
    if (proxy_is_draining(r->p.proxy)) {
        fail(r, NULL, "chmuxd is draining: what it has is kept to the end");
        return;
    }
    notify_reloading(r->p.notify);
    if (r->job != NULL) {
        fail(r, NULL, "an earlier reload still hangs while it reads files; is a mount away?");
        return;
    }
    struct reload_job *job = reload_job_new(r->p.settings, *r->p.cfg, on_prepared, r);
    if (job == NULL || !aside_start(r->aside, &job->aside)) {
        fail(r, job, "no memory, or no thread to be had");
        return;
    }
    r->job = job;
    timer_arm_in(&r->limit, RELOAD_LIMIT_US);
}

uint64_t
reload_request(struct reload *r, const char *why)
{
    LOG_I("reload_asked by=%s", why);
    r->wanted = true;
    if (!is_waiting(r))
        loop_defer(r->p.loop, &r->start_task, on_start, r);
    return r->number + 1;
}

static uint64_t
on_admin(void *arg)
{
    thr_check_loop();
    return reload_request(arg, "admin");
}

struct reload *
reload_new(const struct reload_parts *parts)
{
    struct reload *r = mem_zalloc(sizeof *r);
    if (r == NULL)
        return NULL;
    r->p = *parts;
    buf_init(&r->lines, 1 << 20);
    timer_init(&r->limit, r->p.loop, on_limit, r);
    r->aside = aside_new(r->p.loop);
    if (r->aside == NULL || !timer_reserve(&r->limit)) {
        reload_free(&r);
        return NULL;
    }
    if (r->p.admin != NULL)
        admin_on_reload(r->p.admin, on_admin, r);
    metric_set(M_RELOAD_LAST_OK, 1);
    metric_set(M_RELOAD_TIME, unix_ms() / 1000);
    return r;
}

void
reload_free(struct reload **rp)
{
    struct reload *r = *rp;
    if (r == NULL)
        return;
    *rp = NULL;
    if (r->job != NULL) { /* it reads the configuration still, and may do so for ever */
        r->job->orphan = *r->p.cfg;
        *r->p.cfg = NULL;
    }
    loop_undefer(&r->start_task);
    timer_fini(&r->limit);
    aside_free(&r->aside);
    config_changes_fini(&r->changes);
    buf_fini(&r->lines);
    mem_free(r);
}
