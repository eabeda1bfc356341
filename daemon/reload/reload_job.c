#include "reload/reload_job.h"

#include "net/tls.h"

/* not on the loop: the thread that prepares a reload */

static void
on_path(void *arg, const char *path)
{
    watch_set_add(arg, path);
}

/* Before the files are read: what changes while they are is told then. */
static void
watch_files(struct reload_job *job, const struct config *cfg)
{
    job->watch = watch_set_new();
    job->watch_errno = errno;
    if (job->watch != NULL)
        config_each_path(cfg, on_path, job->watch);
}

static void WORKER_ONLY
prepare(struct reload_job *job)
{
    char why[512];
    const struct config *cfg = job->now;
    if (!job->files_only) {
        job->next = settings_load(job->settings, job->now, &job->changes, &job->errors);
        cfg = job->next;
    }
    if (cfg == NULL)
        return;
    watch_files(job, cfg);
    job->ok = upools_plan_open(&job->plan, cfg, why, sizeof why);
    if (!job->ok)
        buf_addf(&job->errors, "%s\n", why);
    job->listeners = proxy_plan_new(cfg, &job->errors);
    job->ok = job->ok && job->listeners != NULL;
}

static void
run(struct aside_job *aside)
{
    thr_check_worker();
    prepare(CONTAINER_OF(aside, struct reload_job, aside));
    tls_thread_end();
}

static void
drop(struct aside_job *aside)
{
    struct reload_job *job = CONTAINER_OF(aside, struct reload_job, aside);
    reload_job_free(&job);
    tls_thread_end();
}

struct reload_job *
reload_job_new(const struct settings *settings, const struct config *now, bool files_only,
    aside_fn done, void *reload)
{
    struct reload_job *job = mem_zalloc(sizeof *job);
    if (job == NULL)
        return NULL;
    OBJ_INIT(job, RELOAD_JOB_MAGIC);
    job->aside = (struct aside_job){.run = run, .done = done, .drop = drop};
    job->reload = reload;
    job->settings = settings;
    job->now = now;
    job->files_only = files_only;
    buf_init(&job->errors, 1 << 20);
    return job;
}

void
reload_job_free(struct reload_job **jp)
{
    struct reload_job *job = *jp;
    if (job == NULL)
        return;
    *jp = NULL;
    OBJ_CHECK(job, RELOAD_JOB_MAGIC);
    upools_plan_close(&job->plan);
    proxy_plan_free(&job->listeners);
    watch_set_free(&job->watch);
    config_changes_fini(&job->changes);
    config_free(&job->next);
    config_free(&job->orphan);
    buf_fini(&job->errors);
    OBJ_POISON(job);
    mem_free(job);
}
