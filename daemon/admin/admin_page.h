#ifndef CHMUX_ADMIN_ADMIN_PAGE_H
#define CHMUX_ADMIN_ADMIN_PAGE_H
/*
 * admin_page: the files of the dashboard, daemon/admin/page/, compiled in (cmake/page.cmake).
 */
#include "admin/admin_route.h"

struct admin_page {
    const char *type; /* Content-Type */
    struct str body;  /* static */
};

/* false: the command is not a page. */
MUST_USE bool admin_page(enum admin_command_id id, struct admin_page *out);
#endif
