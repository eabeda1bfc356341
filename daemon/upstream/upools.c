#include "upstream/upools.h"

#include "base/no_block.h"

_Static_assert(CONFIG_MAX_UPSTREAM <= METRIC_SETS, "each upstream has metrics of its own");

/* The section is named for all but the default one, whose messages are those of a chmuxd that has
 * one upstream. */
static void
name_section(const struct config *cfg, size_t i, const char *reason, char *why, size_t why_len)
{
    if (i == 0)
        snprintf(why, why_len, "%s", reason);
    else
        snprintf(why, why_len, "[upstream %s] %s", cfg->upstream_name[i], reason);
}

bool
upools_open(struct upools *us, struct loop *l, struct resolver *r, const struct config *cfg,
    char *why, size_t why_len)
{
    char reason[512];
    for (size_t i = 0; i < cfg->upstream_count; i++) {
        const char *name = cfg->upstream_name[i];
        us->pool[i] = upool_new(
            l, r, name, &cfg->upstream[i], cfg->chmux.stall_timeout, reason, sizeof reason);
        if (us->pool[i] == NULL) {
            name_section(cfg, i, reason, why, why_len);
            upools_close(us);
            return false;
        }
        us->count++;
    }
    return true;
}

void
upools_start(struct upools *us)
{
    for (size_t i = 0; i < us->count; i++)
        upool_start(us->pool[i]);
}

void
upools_close(struct upools *us)
{
    for (size_t i = 0; i < us->count; i++)
        upool_free(&us->pool[i]);
    us->count = 0;
}

bool
upools_plan_open(struct upools_plan *up, const struct config *cfg, char *why, size_t why_len)
{
    char reason[512];
    up->cfg = cfg;
    for (size_t i = 0; i < cfg->upstream_count; i++) {
        up->plan[i] = upool_plan_new(&cfg->upstream[i], reason, sizeof reason);
        if (up->plan[i] != NULL)
            continue;
        name_section(cfg, i, reason, why, why_len);
        upools_plan_close(up);
        return false;
    }
    return true;
}

void
upools_plan_close(struct upools_plan *up)
{
    for (size_t i = 0; i < COUNT_OF(up->plan); i++)
        upool_plan_free(&up->plan[i]);
}

bool
upools_stage(struct upools *us, struct upools_plan *up, char *why, size_t why_len)
{
    char reason[512];
    const struct config *cfg = up->cfg;
    bool same = us->count == cfg->upstream_count;
    for (size_t i = 0; i < us->count && same; i++)
        same = strcmp(upool_name(us->pool[i]), cfg->upstream_name[i]) == 0;
    if (!same) {
        snprintf(why, why_len,
            "[upstream NAME] sections come, go and change their order only by a restart");
        return false;
    }
    for (size_t i = 0; i < us->count; i++) {
        if (upool_stage(us->pool[i], up->plan[i], reason, sizeof reason))
            continue;
        name_section(cfg, i, reason, why, why_len);
        return false;
    }
    return true;
}

bool
upools_commit(struct upools *us, struct upools_plan *up)
{
    bool tls = false;
    for (size_t i = 0; i < us->count; i++)
        tls |= upool_commit(us->pool[i], &up->plan[i], up->cfg->chmux.stall_timeout);
    upools_plan_close(up);
    return tls;
}

struct upool *
upools_find(const struct upools *us, const char *name)
{
    for (size_t i = 0; i < us->count; i++)
        if (strcmp(upool_name(us->pool[i]), name) == 0)
            return us->pool[i];
    return NULL;
}

void
upools_stats(const struct upools *us, struct upool_stats *out)
{
    *out = (struct upool_stats){.paused = us->count > 0};
    for (size_t i = 0; i < us->count; i++) {
        struct upool_stats st;
        upool_stats(us->pool[i], &st);
        out->cap += st.cap;
        out->connecting += st.connecting;
        out->active += st.active;
        out->idle += st.idle;
        out->closing += st.closing;
        out->waiting += st.waiting;
        out->queue_size += st.queue_size;
        if (st.queue_timeout_us > out->queue_timeout_us)
            out->queue_timeout_us = st.queue_timeout_us;
        out->addresses_up += st.addresses_up;
        out->addresses_ejected += st.addresses_ejected;
        out->paused = out->paused && st.paused;
    }
}

bool
upools_seem_up(const struct upools *us)
{
    for (size_t i = 0; i < us->count; i++)
        if (upool_seems_up(us->pool[i]))
            return true;
    return false;
}

void
upools_update_metrics(const struct upools *us)
{
    for (size_t i = 0; i < us->count; i++)
        upool_update_metrics(us->pool[i]);
}
