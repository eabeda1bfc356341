#include "admin/admin_page.h"

#include "base/no_block.h"

/* file, command, type; the arrays come out of cmake/page.cmake, named page_FILE */
#define PAGES(X)                                                                                   \
    X(index_html, PAGE, "text/html; charset=utf-8")                                                \
    X(dashboard_css, PAGE_CSS, "text/css; charset=utf-8")                                          \
    X(dashboard_js, PAGE_JS, "text/javascript; charset=utf-8")                                     \
    X(plot_js, PAGE_PLOT, "text/javascript; charset=utf-8")                                        \
    X(reading_js, PAGE_READING, "text/javascript; charset=utf-8")                                  \
    X(icon_svg, PAGE_ICON, "image/svg+xml")

#define X(file, id, type)                                                                          \
    extern const char page_##file[];                                                               \
    extern const size_t page_##file##_len;
PAGES(X)
#undef X

bool
admin_page(enum admin_command_id id, struct admin_page *out)
{
    switch ((int)id) {
#define X(file, command, mime)                                                                     \
    case ADMIN_##command:                                                                          \
        *out = (struct admin_page){mime, str_n(page_##file, page_##file##_len)};                   \
        return true;
        PAGES(X)
#undef X
    default: return false;
    }
}
