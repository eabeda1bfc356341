/* Two threads add to one plain integer, which the thread sanitizer must see. */
#include <pthread.h>
#include <stdio.h>

static int shared;

static void *
add(void *arg)
{
    for (int i = 0; i < 1000; i++)
        shared++;
    return arg;
}

int
main(void)
{
    pthread_t a, b;
    if (pthread_create(&a, NULL, add, NULL) != 0 || pthread_create(&b, NULL, add, NULL) != 0)
        return 0;
    pthread_join(a, NULL);
    pthread_join(b, NULL);
    printf("still here: %d\n", shared);
    return 0;
}
