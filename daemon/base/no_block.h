/*
 * no_block: included last by every file whose code runs on the loop thread. It makes calls that
 * may sleep a compile error; tests/lint/lint_block repeats the check on the object files.
 */
#pragma GCC poison sleep usleep nanosleep getaddrinfo gethostbyname fopen fread system popen
#pragma GCC poison pthread_join pthread_cond_wait pthread_cond_timedwait poll select
