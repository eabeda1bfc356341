#include "base/check.h"

#include <sys/prctl.h>

static void (*dump_fn)(void);

void
check_set_dump(void (*fn)(void))
{
    dump_fn = fn;
}

void
check_failed(const char *file, int line, const char *expr)
{
    char thread[16] = "";
    prctl(PR_GET_NAME, thread);
    fprintf(stderr, "chmux: %s:%d: check failed: %s (thread %s)\n", file, line, expr, thread);
    void (*fn)(void) = dump_fn;
    dump_fn = NULL; /* a check that fails inside the dump must not come back here */
    if (fn != NULL)
        fn();
    abort();
}
