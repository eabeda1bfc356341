#ifndef CHMUX_ADMIN_ADMIN_IMPL_H
#define CHMUX_ADMIN_ADMIN_IMPL_H
/*
 * admin_impl: what admin.c (connections, answers), admin_show.c (what is shown), admin_control.c
 * (commands) and admin_process.c (figures of the process) share, and nobody else.
 */
#include "admin/admin.h"
#include "admin/admin_route.h"
#include "base/jsonw.h"
#include "proxy/proxy_view.h"

struct admin {
    struct loop *loop;
    struct proxy *px;
    const struct upools *pools;
    const struct config *cfg;
    struct listener listeners[CONFIG_MAX_ADMIN];
    size_t listener_count;
    struct list clients;
    size_t count;
    struct http_req req; /* scratch */
    struct str busy;
    struct mono started;
    int64_t started_s; /* the same, since 1970 */
    admin_stop_fn stop;
    void *stop_arg;
    admin_reload_fn reload;
    void *reload_arg;
    const struct admin_reload *last_reload; /* borrowed; NULL: none yet */
    /* Taken at boot, so that one client at a time is answered though the budget is spent: just then
     * somebody wants to know, and a probe that fails would have us restarted. */
    struct buf body, spare_in, spare_out;
    size_t spare_size; /* of body and spare_out; what one long answer took beyond it goes back */
};

/* Bytes of this process in memory, or -1. */
int64_t admin_resident_bytes(void);
/* What Prometheus asks of every process, and our version; in its text format. */
void admin_print_process(struct buf *out, int64_t started_s);

/* Gauges that are computed, not kept. */
void admin_update_gauges(struct admin *a) LOOP_ONLY;

/* Writes the answer to one of the GETs of the API: one value. */
void admin_show(struct admin *a, const struct admin_call *call, const struct admin_caller *who,
    struct jsonw *j) LOOP_ONLY;

struct admin_done {
    int status; /* 200, or why not */
    bool stop;  /* and then a->stop is to be called, once the answer is on its way */
    enum admin_stop how;
    uint64_t reload; /* not 0: nothing was written, the answer comes when this reload is over */
};
/* Runs one of the POSTs, and writes what came of it. */
struct admin_done admin_control(struct admin *a, const struct admin_call *call, struct jsonw *j)
    LOOP_ONLY;
/* The answer to ADMIN_RELOAD. */
struct admin_done admin_tell_reload(const struct admin_reload *how, struct jsonw *j) LOOP_ONLY;
#endif
