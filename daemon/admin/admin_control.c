/*
 * admin_control: the commands that change something. Who may give them is settled by now.
 */
#include "admin/admin_impl.h"

#include "base/no_block.h"

static struct admin_done
say(struct jsonw *j, const char *message)
{
    jsonw_bool(j, "ok", true);
    jsonw_text(j, "message", message);
    return (struct admin_done){.status = 200};
}

static struct admin_done
fail(struct jsonw *j, int status, const char *error, const char *message, const char *hint)
{
    jsonw_text(j, "error", error);
    jsonw_text(j, "message", message);
    jsonw_text(j, "allowed_by", hint);
    return (struct admin_done){.status = status};
}

static struct admin_done LOOP_ONLY
stop(struct admin *a, enum admin_stop how, struct jsonw *j)
{
    if (a->stop == NULL)
        return fail(j, 503, "starting", "chmuxd is starting", "try again in a moment");
    const char *text = "stopping now: what runs is cut";
    if (how == ADMIN_STOP_DRAIN)
        text = "draining: chmuxd ends when all that runs is done";
    else if (how == ADMIN_STOP_SHUTDOWN)
        text = "draining: chmuxd ends when all that runs is done, or at drain_timeout";
    struct admin_done done = say(j, text);
    done.stop = true;
    done.how = how;
    return done;
}

/* Is this pool meant? */
static bool LOOP_ONLY
is_meant(const struct upool *p, const struct admin_call *call)
{
    return call->upstream_name[0] == '\0' || strcmp(upool_name(p), call->upstream_name) == 0;
}

static struct admin_done LOOP_ONLY
no_such_upstream(struct jsonw *j)
{
    return fail(j, 404, "not_found", "there is no upstream of that name",
        "GET " ADMIN_API "status lists them");
}

static struct admin_done LOOP_ONLY
pause_pools(struct admin *a, const struct admin_call *call, struct jsonw *j)
{
    bool pause = call->id == ADMIN_PAUSE;
    size_t waiting = 0, count = 0, paused = 0;
    if (pause && proxy_is_draining(a->px))
        return fail(j, 409, "draining", "chmuxd is draining: what waits has to be served", NULL);
    for (size_t i = 0; i < a->pools->count; i++) {
        struct upool *p = a->pools->pool[i];
        struct upool_stats st;
        if (!is_meant(p, call))
            continue;
        upool_stats(p, &st);
        upool_pause(p, pause);
        count++;
        waiting += st.waiting;
        paused += st.paused;
    }
    if (count == 0)
        return no_such_upstream(j);
    bool was = pause ? paused == count : paused > 0;
    jsonw_bool(j, "was_paused", was);
    jsonw_uint(j, "waiting", waiting);
    if (pause)
        return say(j, was ? "paused already" : "paused: requests wait, what runs goes on");
    return say(j, was ? "resumed" : "nothing was paused");
}

static struct admin_done LOOP_ONLY
reconnect(struct admin *a, const struct admin_call *call, struct jsonw *j)
{
    size_t idle = 0, active = 0, count = 0;
    for (size_t i = 0; i < a->pools->count; i++) {
        size_t pool_idle, pool_active;
        if (!is_meant(a->pools->pool[i], call))
            continue;
        upool_reconnect(a->pools->pool[i], &pool_idle, &pool_active);
        count++;
        idle += pool_idle;
        active += pool_active;
    }
    if (count == 0)
        return no_such_upstream(j);
    jsonw_uint(j, "closed", idle);
    jsonw_uint(j, "close_when_done", active);
    return say(j, "idle connections are closed, busy ones when their request is done");
}

static struct admin_done LOOP_ONLY
kill_one(struct admin *a, uint64_t id, struct jsonw *j)
{
    jsonw_uint(j, "id", id);
    if (!proxy_kill(a->px, id))
        return fail(j, 404, "not_running", "no such request runs",
            "GET " ADMIN_API "exchanges shows those that do");
    return say(
        j, "ended; its query is being killed on the server, unless it is an INSERT with data");
}

static struct admin_done
set_log_level(enum log_level level, struct jsonw *j)
{
    static const char *const names[] = {"error", "warn", "info", "debug"};
    int before = atomic_load_explicit(&log_threshold, memory_order_relaxed);
    log_set_level(level);
    jsonw_text(j, "level", names[level]);
    jsonw_text(j, "before", names[before]);
    return say(j, "until the next start or reload");
}

static struct admin_done LOOP_ONLY
reload(struct admin *a, struct jsonw *j)
{
    if (a->reload == NULL)
        return fail(j, 503, "starting", "chmuxd is starting", "try again in a moment");
    if (proxy_is_draining(a->px))
        return fail(j, 409, "draining", "chmuxd is draining: what it has is kept to the end", NULL);
    return (struct admin_done){.status = 200, .reload = a->reload(a->reload_arg)};
}

static void
put_lines(struct jsonw *j, const char *key, struct str lines)
{
    jsonw_array(j, key);
    while (lines.len > 0) {
        ssize_t end = str_find(lines, '\n');
        size_t len = end < 0 ? lines.len : (size_t)end;
        jsonw_str(j, NULL, str_n(lines.p, len));
        size_t used = size_min(len + 1, lines.len);
        lines = str_n(lines.p + used, lines.len - used);
    }
    jsonw_end(j);
}

static void
put_changes(struct jsonw *j, const char *key, const struct config_changes *all, bool reloadable)
{
    jsonw_array(j, key);
    for (size_t i = 0; i < all->count; i++) {
        const struct config_change *ch = &all->item[i];
        if (ch->reloadable != reloadable)
            continue;
        jsonw_object(j, NULL);
        jsonw_text(j, "section", ch->section);
        jsonw_text(j, "key", ch->key);
        jsonw_text(j, "before", ch->before);
        jsonw_text(j, "after", ch->after);
        jsonw_end(j);
    }
    jsonw_end(j);
}

struct admin_done
admin_tell_reload(const struct admin_reload *how, struct jsonw *j)
{
    struct admin_done done = {.status = 200};
    jsonw_object(j, NULL);
    if (how->ok) {
        put_changes(j, "changed", how->changes, true);
        put_changes(j, "restart_needed", how->changes, false);
        put_lines(j, "warnings", how->lines);
        done = say(j, how->message);
    } else {
        put_lines(j, "errors", how->lines);
        done = fail(j, 422, "reload", how->message,
            "correct what \"errors\" names; until then all is as it was before");
    }
    jsonw_end(j);
    return done;
}

struct admin_done
admin_control(struct admin *a, const struct admin_call *call, struct jsonw *j)
{
    struct admin_done done = {.status = 500};
    jsonw_object(j, NULL);
    switch ((int)call->id) {
    case ADMIN_RELOAD: done = reload(a, j); break;
    case ADMIN_DRAIN: done = stop(a, ADMIN_STOP_DRAIN, j); break;
    case ADMIN_SHUTDOWN: done = stop(a, call->now ? ADMIN_STOP_NOW : ADMIN_STOP_SHUTDOWN, j); break;
    case ADMIN_PAUSE: done = pause_pools(a, call, j); break;
    case ADMIN_RESUME: done = pause_pools(a, call, j); break;
    case ADMIN_RECONNECT: done = reconnect(a, call, j); break;
    case ADMIN_KILL: done = kill_one(a, call->kill_id, j); break;
    case ADMIN_LOG_LEVEL: done = set_log_level(call->level, j); break;
    default: CHECK(call->id == ADMIN_DRAIN); /* a command that changes nothing */
    }
    jsonw_end(j);
    return done;
}
