/* A signed overflow, which the undefined-behaviour sanitizer must see: -fwrapv would hide it. */
#include <limits.h>
#include <stdio.h>

int
main(int argc, char **argv)
{
    (void)argv;
    volatile int n = INT_MAX;
    n += argc; /* 1 */
    printf("still here: %d\n", n);
    return 0;
}
