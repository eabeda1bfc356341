/* Memory nobody points at any more when the process ends, which the leak sanitizer must see. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *volatile lost;

int
main(void)
{
    lost = malloc(1000);
    if (lost == NULL)
        return 0;
    memset(lost, 1, 1000);
    lost = NULL;
    printf("leaked\n"); /* the leak is seen after main(), so no "still here" */
    return 0;
}
