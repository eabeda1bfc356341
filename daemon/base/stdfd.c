#include "base/stdfd.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "base/no_block.h"

bool
stdfd_fill(void)
{
    /* The lowest free number is taken, and those below are not free any more. */
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDWR) != fd)
            return false;
    return true;
}

bool
stdfd_flush(const char *program)
{
    bool failed_before = ferror(stdout) != 0;
    if (fflush(stdout) == 0 && !failed_before)
        return true;
    fprintf(stderr, "%s: cannot write to the standard output: %s\n", program,
        failed_before ? "a write failed" : strerror(errno));
    return false;
}
