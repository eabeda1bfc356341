/*
 * no_block: included last by every file whose code runs on the loop thread. It makes calls that
 * may sleep a compile error; tests/lint/lint_block repeats the check on the object files.
 */
#pragma GCC poison sleep usleep nanosleep clock_nanosleep
#pragma GCC poison getaddrinfo getnameinfo gethostbyname gethostbyaddr
#pragma GCC poison fopen fdopen fread fgets getline system popen waitpid flock fsync
#pragma GCC poison pthread_join pthread_cond_wait pthread_cond_timedwait sem_wait
#pragma GCC poison poll ppoll select pselect epoll_wait
