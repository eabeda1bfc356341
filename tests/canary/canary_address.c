/* A read of freed memory, which the address sanitizer must see. */
#include <stdio.h>
#include <stdlib.h>

int
main(int argc, char **argv)
{
    (void)argv;
    volatile char *p = malloc((size_t)argc + 8);
    if (p == NULL)
        return 0;
    p[0] = 'x';
    free((void *)p);
    printf("still here: %c\n", p[0]);
    return 0;
}
