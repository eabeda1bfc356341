/*
 * main: the control tool chmux. Plain blocking code, one thread.
 */
#include <locale.h>
#include <signal.h>

#include "base/stdfd.h"
#include "ctl/out.h"
#include "ctl/run.h"

int
main(int argc, char **argv)
{
    struct args a;
    struct buf say;
    if (!stdfd_fill())
        return RUN_FAILED;
    /* `chmux ... | head` ends without a word, also where the caller ignores the signal. */
    (void)signal(SIGPIPE, SIG_DFL);
    (void)setlocale(LC_CTYPE, "C.UTF-8"); /* for the width of characters; without it they are 1 */
    buf_init(&say, 1 << 20);
    int code = RUN_USAGE;
    enum args_result r = args_parse(&a, argc, argv, getenv("CHMUX_ADMIN_ADDRESS"), &say);
    switch (r) {
    case ARGS_OK: code = (int)run(&a); break;
    case ARGS_HELP:
        args_usage(&say);
        code = out_print(&say) ? RUN_OK : RUN_FAILED;
        break;
    case ARGS_VERSION:
        buf_addf(&say, "chmux %s\n", CHMUX_VERSION);
        code = out_print(&say) ? RUN_OK : RUN_FAILED;
        break;
    case ARGS_BAD: fprintf(stderr, STR_FMT, STR_ARG(str_n(say.p, say.len))); break;
    }
    buf_fini(&say);
    return code;
}
