/* A call that may sleep, in a loop-thread file: no compiler may take it. */
#include <unistd.h>

#include "base/no_block.h"

void rest(void);

void
rest(void)
{
    sleep(1);
}
