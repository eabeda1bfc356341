#include "proxy/route.h"

#include "base/no_block.h"

static bool
lists(const struct config_list *list, struct str word)
{
    for (size_t i = 0; i < list->count; i++)
        if (str_eq(str_of(list->item[i]), word))
            return true;
    return false;
}

/* The one that the listener names; the number of upstreams: none. config_load() has seen to it that
 * there is one of that name. */
static size_t
by_listener(const struct config *cfg, const char *listener)
{
    const char *wanted = "";
    for (size_t i = 0; i < cfg->listen_count && listener != NULL; i++)
        if (strcmp(cfg->listen_name[i], listener) == 0)
            wanted = cfg->listen[i].upstream;
    size_t at = 0;
    while (at < cfg->upstream_count && strcmp(cfg->upstream_name[at], wanted) != 0)
        at++;
    return at;
}

size_t
route_find(const struct config *cfg, const struct route_facts *f)
{
    size_t count = cfg->upstream_count, at = by_listener(cfg, f->listener);
    if (at < count)
        return at;
    for (size_t i = 0; i < count && f->user.len > 0; i++)
        if (lists(&cfg->upstream[i].users, f->user))
            return i;
    for (size_t i = 0; i < count && f->database.len > 0; i++)
        if (lists(&cfg->upstream[i].databases, f->database))
            return i;
    return 0;
}
