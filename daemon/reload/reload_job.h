#ifndef CHMUX_RELOAD_RELOAD_JOB_H
#define CHMUX_RELOAD_RELOAD_JOB_H
/*
 * reload_job: the part of a reload that reads files, on a thread of its own: configuration, diff,
 * TLS contexts. What comes of it is complete, or errors that say why not; nothing is in force yet.
 * Ownership  Owns all it made until reload.c takes it out.
 */
#include "rt/aside.h"
#include "rt/watch.h"
#include "reload/settings.h"
#include "proxy/proxy.h"

#define RELOAD_JOB_MAGIC 0x726c6f61u

struct reload_job {
    uint32_t magic;
    struct aside_job aside;
    void *reload;  /* borrows; the loop's alone */
    bool given_up; /* the loop's alone: what comes of it is not wanted any more */
    /* in */
    bool files_only;                 /* only what files hold is new: no configuration is read */
    const struct settings *settings; /* borrows */
    const struct config *now;        /* borrows: nobody replaces it while the job is under way */
    struct config *orphan;           /* owns: `now`, when its owner leaves first */
    /* out */
    bool ok;
    struct watch_set *watch; /* of all files that were read; NULL: it could not be made */
    int watch_errno;
    struct config *next; /* NULL if files_only */
    struct config_changes changes;
    struct upools_plan plan;
    struct proxy_plan *listeners;
    struct buf errors; /* lines; warnings if ok */
};

/* NULL: no memory. */
MUST_USE struct reload_job *reload_job_new(const struct settings *settings,
    const struct config *now, bool files_only, aside_fn done, void *reload) LOOP_ONLY;
void reload_job_free(struct reload_job **jp) ANY_THREAD;
#endif
