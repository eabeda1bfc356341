/* A loop-only call from a function that is not: clang must refuse to compile it. */
#include "base/thread.h"

void loop_only_thing(void) LOOP_ONLY;
void from_anywhere(void);

void
from_anywhere(void)
{
    loop_only_thing();
}
