#include <poll.h>

/* ThreadSanitizer keeps a thread's pending signals in a table it makes at the thread's first
 * blocking call. GCC 12's runtime loses the signal that comes while the table is being made (the
 * handler's table and the thread's replace each other; later runtimes exchange them atomically),
 * and a SIGTERM right after the start is then never seen. So the table is made here, before there
 * is a handler. */
__attribute__((constructor)) static void
make_signal_table(void)
{
    struct pollfd none = {.fd = -1};
    (void)poll(&none, 1, 0);
}
