#include "base/check.h"

static void (*dump_fn)(void);

void
check_set_dump(void (*fn)(void))
{
    dump_fn = fn;
}

void
check_failed(const char *file, int line, const char *expr)
{
    fprintf(stderr, "chmux: %s:%d: check failed: %s\n", file, line, expr);
    void (*fn)(void) = dump_fn;
    dump_fn = NULL; /* a check that fails inside the dump must not come back here */
    if (fn != NULL)
        fn();
    abort();
}
