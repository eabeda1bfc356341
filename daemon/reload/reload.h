#ifndef CHMUX_RELOAD_RELOAD_H
#define CHMUX_RELOAD_RELOAD_H
/*
 * reload: another configuration without a restart. Files are read and contexts built on a thread of
 * its own (reload_job.h); then, in one callback of the loop, all parts make ready what can fail,
 * and only if none does, all change over. So a reload happens whole or not at all.
 *
 * Files that options name are watched: when one changes, all of them are read again in the same
 * way, by themselves.
 *
 * Ownership  Borrows its parts, and the place where main keeps the configuration in force, which it
 *            replaces. Freed after its parts.
 * Strings    Of the configuration nobody keeps a pointer across a callback, but for `cfg` itself,
 *            which each part gets anew: so the old one is freed at once.
 * Bound      One reload at a time; however many are asked for while one runs are one more. Given up
 *            after RELOAD_LIMIT_US.
 * Threads    Loop only.
 */
#include "admin/admin.h"
#include "rt/notify.h"
#include "reload/settings.h"

#define RELOAD_LIMIT_US 30000000
#define RELOAD_END_US   1000000 /* how long an exit waits for one */

struct reload;
struct reload_parts {
    struct loop *loop;
    struct notify *notify;
    struct upools *pools;
    struct proxy *proxy;
    struct admin *admin; /* NULL: none */
    const struct settings *settings;
    struct config **cfg;
};

/* NULL: no memory or descriptors. */
MUST_USE struct reload *reload_new(const struct reload_parts *parts) LOOP_ONLY;
/* Begins soon; why is for the log. Its number, see admin_reload_fn. */
uint64_t reload_request(struct reload *r, const char *why) LOOP_ONLY;
/* Begins to watch, and looks once whether files have changed since they were read at boot. */
void reload_start(struct reload *r) LOOP_ONLY;
/* Waits a moment for a reload that reads its files. false: it reads still, so what it was given
 * must stay: the settings, what they point to. */
MUST_USE bool reload_free(struct reload **rp) LOOP_ONLY;
#endif
