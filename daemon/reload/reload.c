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
    bool files_wanted;      /* the same, of what files hold only */
    struct watch watch;
    uint64_t number; /* of the one under way, or of the last */
    /* How the last one ended; `last` points into the others. */
    struct admin_reload last;
    struct config_changes changes;
    struct buf lines;
    char message[512];
    struct buf files_lines; /* the same of one that only read files, until it is logged */
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

static void LOOP_ONLY
next(struct reload *r)
{
    if (r->wanted || r->files_wanted)
        loop_defer(r->p.loop, &r->start_task, on_start, r);
}

/* What files hold was read by itself: nobody asked, and nobody waits. */
static void LOOP_ONLY
finish_files(struct reload *r, struct reload_job *job, bool ok, bool changed)
{
    if (!ok) {
        metric_inc(M_FILES_FAILED);
        log_lines(LOG_ERROR, "files_error", str_n(r->files_lines.p, r->files_lines.len));
        LOG_E("files_failed in_force=\"what was before\"");
    } else if (changed) {
        metric_inc(M_FILES_OK);
        LOG_I("files_done what=\"certificates read anew\"");
    }
    metric_set(M_FILES_LAST_OK, ok);
    reload_job_free(&job);
    next(r);
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
        metric_set(M_FILES_LAST_OK, 1);
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
    next(r);
}

static void LOOP_ONLY
end(struct reload *r, struct reload_job *job, bool files_only, bool ok, bool changed)
{
    if (files_only)
        finish_files(r, job, ok, changed);
    else
        finish(r, job, ok);
}

static void PRINTF_LIKE(4, 5)
    LOOP_ONLY fail(struct reload *r, struct reload_job *job, bool files_only, const char *fmt, ...)
{
    struct buf *lines = files_only ? &r->files_lines : &r->lines;
    va_list ap;
    va_start(ap, fmt);
    buf_vaddf(lines, fmt, ap);
    va_end(ap);
    buf_str(lines, STR("\n"));
    end(r, job, files_only, false, false);
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
    const struct config *next = job->next;
    if (next != NULL &&
        (!settings_raise_descriptors(next, why, why_len) ||
            (r->p.admin != NULL && !admin_may_commit(r->p.admin, next, why, why_len))))
        return false;
    if (!upools_stage(r->p.pools, &job->plan, why, why_len))
        return false;
    return next == NULL || proxy_stage(r->p.proxy, next, job->listeners, why, why_len);
}

/* Nothing here can fail. Does anything differ that is no option: what is in the TLS files? */
static bool LOOP_ONLY
commit(struct reload *r, struct reload_job *job)
{
    struct config *old = *r->p.cfg, *next = job->next == NULL ? old : job->next;
    job->next = NULL;
    *r->p.cfg = next;
    bool pool_tls = upools_commit(r->p.pools, &job->plan);
    bool door_tls = proxy_commit(r->p.proxy, next, &job->listeners);
    if (next == old)
        return pool_tls || door_tls;
    mem_set_limit(next->chmux.memory_limit);
    log_set_level(next->log.level);
    log_set_format(next->log.format);
    if (r->p.admin != NULL)
        admin_commit(r->p.admin, next);
    config_free(&old);
    return pool_tls || door_tls;
}

/* Also of files that were found broken, or not found: they may be mended without a word to us. But
 * not those of a configuration that is refused. */
static void LOOP_ONLY
watch_new_set(struct reload *r, struct reload_job *job, bool ok)
{
    if (!ok && !job->files_only)
        return;
    if (job->watch == NULL)
        LOG_W("watch_failed why=\"%s\"", strerror(job->watch_errno));
    (void)watch_take(&r->watch, &job->watch);
}

static void LOOP_ONLY
put_message(struct reload *r, const struct config_changes *all, bool tls)
{
    size_t restart = restart_count(all), changed = all->count - restart;
    snprintf(r->message, sizeof r->message, "reloaded: %zu option%s changed%s%s", changed,
        changed == 1 ? "" : "s", tls ? ", certificates read anew" : "",
        restart == 0 ? "" : "; some changes need a restart");
}

static void LOOP_ONLY
change_over(struct reload *r, struct reload_job *job)
{
    char why[512];
    struct buf *lines = job->files_only ? &r->files_lines : &r->lines;
    buf_fini(lines);
    *lines = job->errors; /* given */
    buf_init(&job->errors, 0);
    bool ok = job->ok && stage(r, job, why, sizeof why);
    bool tls = ok && commit(r, job);
    watch_new_set(r, job, ok);
    if (job->ok && !ok) {
        fail(r, job, job->files_only, "%s", why);
        return;
    }
    if (ok)
        put_message(r, &job->changes, tls);
    end(r, job, job->files_only, ok, tls);
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
    if (job->files_only && proxy_is_draining(r->p.proxy))
        reload_job_free(&job);
    else
        change_over(r, job);
}

/* The thread may hang for ever, in a file of a mount that is away. It keeps what it works with. */
static void
on_limit(void *arg)
{
    thr_check_loop();
    struct reload *r = arg;
    r->job->given_up = true;
    fail(r, NULL, r->job->files_only, "the files could not be read within %d s; is a mount away?",
        RELOAD_LIMIT_US / 1000000);
}

static bool
is_waiting(const struct reload *r)
{
    return r->job != NULL && !r->job->given_up;
}

/* Takes its number, tells the manager; false: it has failed already. */
static bool LOOP_ONLY
begin(struct reload *r)
{
    r->number++;
    if (proxy_is_draining(r->p.proxy)) {
        fail(r, NULL, false, "chmuxd is draining: what it has is kept to the end");
        return false;
    }
    notify_reloading(r->p.notify);
    if (r->job == NULL)
        return true;
    fail(r, NULL, false, "an earlier reload still hangs while it reads files; is a mount away?");
    return false;
}

static void
on_start(void *arg)
{
    thr_check_loop();
    struct reload *r = arg;
    bool files_only = !r->wanted;
    if ((!r->wanted && !r->files_wanted) || is_waiting(r))
        return;
    r->wanted = r->files_wanted = false; /* a whole reload reads all files too */
    buf_fini(files_only ? &r->files_lines : &r->lines);
    if (files_only && (r->job != NULL || proxy_is_draining(r->p.proxy)))
        return;
    if (!files_only && !begin(r))
        return;
    struct reload_job *job = reload_job_new(r->p.settings, *r->p.cfg, files_only, on_prepared, r);
    if (job == NULL || !aside_start(r->aside, &job->aside)) {
        fail(r, job, files_only, "no memory, or no thread to be had");
        return;
    }
    r->job = job;
    timer_arm_in(&r->limit, RELOAD_LIMIT_US);
}

static void
on_files_changed(void *arg)
{
    thr_check_loop();
    struct reload *r = arg;
    r->files_wanted = true;
    if (!is_waiting(r))
        loop_defer(r->p.loop, &r->start_task, on_start, r);
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
    buf_init(&r->files_lines, 1 << 20);
    timer_init(&r->limit, r->p.loop, on_limit, r);
    r->aside = aside_new(r->p.loop);
    bool watching = watch_init(&r->watch, r->p.loop, on_files_changed, r);
    if (r->aside == NULL || !watching || !timer_reserve(&r->limit)) {
        bool alone = reload_free(&r);
        CHECK(alone); /* there was no job yet */
        return NULL;
    }
    if (r->p.admin != NULL)
        admin_on_reload(r->p.admin, on_admin, r);
    metric_set(M_RELOAD_LAST_OK, 1);
    metric_set(M_FILES_LAST_OK, 1);
    metric_set(M_RELOAD_TIME, unix_ms() / 1000);
    return r;
}

static void
on_path(void *arg, const char *path)
{
    thr_check_loop();
    (void)path;
    *(bool *)arg = true;
}

void
reload_start(struct reload *r)
{
    bool any = false;
    config_each_path(*r->p.cfg, on_path, &any);
    if (any)
        on_files_changed(r);
}

bool
reload_free(struct reload **rp)
{
    struct reload *r = *rp;
    if (r == NULL)
        return true;
    *rp = NULL;
    if (r->job != NULL) { /* it reads the configuration still, and may do so for ever */
        r->job->orphan = *r->p.cfg;
        *r->p.cfg = NULL;
    }
    loop_undefer(&r->start_task);
    watch_fini(&r->watch);
    timer_fini(&r->limit);
    bool alone = aside_free(&r->aside, RELOAD_END_US);
    config_changes_fini(&r->changes);
    buf_fini(&r->lines);
    buf_fini(&r->files_lines);
    mem_free(r);
    return alone;
}
