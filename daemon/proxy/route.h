#ifndef CHMUX_PROXY_ROUTE_H
#define CHMUX_PROXY_ROUTE_H
/*
 * route: which upstream a request goes to. Pure.
 *
 * The rule   The first that says something decides: the listener ([listen NAME] upstream), the user
 *            ([upstream NAME] users), the database ([upstream NAME] databases); else it is the
 *            default upstream. Names are compared as ClickHouse does: every byte counts.
 * Cost       Looks through the lists; not to be called where there is one upstream.
 */
#include "config/config.h"

struct route_facts {
    const char *listener;      /* NAME of its section; NULL: not known */
    struct str user, database; /* empty: not named */
};
/* Index in cfg->upstream. */
size_t route_find(const struct config *cfg, const struct route_facts *f);
#endif
