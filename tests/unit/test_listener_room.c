/* What a listener does when there is no descriptor or no memory for a client. */
#include "test_listener.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The daemon's calls come here; accept_errno: they fail. */
static int accept_errno;

int
accept4(int fd, __SOCKADDR_ARG addr, socklen_t *restrict len, int flags)
{
    if (accept_errno != 0) {
        errno = accept_errno;
        return -1;
    }
    return (int)syscall(SYS_accept4, fd, addr.__sockaddr__, len, flags);
}

/* So that few are left to take. Returns what it was. */
static struct rlimit
lower_limit(void)
{
    struct rlimit old, few;
    T_EQ(getrlimit(RLIMIT_NOFILE, &old), 0);
    few = old;
    few.rlim_cur = 128;
    T_EQ(setrlimit(RLIMIT_NOFILE, &few), 0);
    return old;
}

/* Takes all that are left; the last `keep` are given back. */
static size_t
exhaust(int fds[], size_t cap, size_t keep)
{
    size_t n = 0;
    while (n < cap) {
        int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
        if (fd < 0)
            break;
        fds[n++] = fd;
    }
    T_TRUE(n < cap && n >= keep);
    while (keep-- > 0)
        close(fds[--n]);
    return n;
}

static void
expect_busy(int fd)
{
    char text[16];
    struct timeval limit = {.tv_sec = 10};
    T_EQ(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)), 0);
    T_EQ(recv(fd, text, sizeof(text), MSG_WAITALL), 5);
    T_TRUE(memcmp(text, "busy!", 5) == 0);
}

/* Lost to another thread, or never opened: the spare is taken before the next client is. Comes
 * first, as the other tests open it. */
static void
test_spare_descriptor_comes_back(void **state)
{
    (void)state;
    thr_check_loop();
    struct listener ls;
    struct listener_options o = options("127.0.0.1:0");
    start(&ls, &o);
    int client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), fds[256];
    struct rlimit old = lower_limit();
    size_t n = exhaust(fds, COUNT_OF(fds), 1);
    T_EQ(connect(client, &ls.addr.sa, ls.addr.len), 0);
    turns(4);
    expect_busy(client);
    T_EQ(taken_count, 0);
    T_EQ(setrlimit(RLIMIT_NOFILE, &old), 0);
    close(client);
    while (n > 0)
        close(fds[--n]);
    listener_close(&ls);
}

/* The client is told so and does not hang, again and again; the spare descriptor comes back; and
 * with descriptors free, clients are served. */
static void
test_no_descriptors_left(void **state)
{
    (void)state;
    thr_check_loop();
    struct listener ls;
    struct listener_options o = options("127.0.0.1:0");
    start(&ls, &o);
    T_TRUE(listener_spare_open());
    int client[6], fds[256];
    for (size_t i = 0; i < COUNT_OF(client); i++) {
        client[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        T_TRUE(client[i] >= 0);
    }
    struct rlimit old = lower_limit();
    size_t n = exhaust(fds, COUNT_OF(fds), 0);
    int64_t before = metric_get(M_REFUSED_MAX_CLIENTS);
    for (size_t i = 0; i < 3; i++) {
        T_EQ(connect(client[i], &ls.addr.sa, ls.addr.len), 0);
        T_EQ(send(client[i], "GET / HTTP/1.1\r\n\r\n", 18, 0), 18);
    }
    turns(4);
    for (size_t i = 0; i < 3; i++)
        expect_busy(client[i]);
    T_EQ(metric_get(M_REFUSED_MAX_CLIENTS), before + 3);
    T_EQ(taken_count, 0);
    close(fds[--n]); /* one is free: a client gets it */
    T_EQ(connect(client[3], &ls.addr.sa, ls.addr.len), 0);
    turns(4);
    T_EQ(taken_count, 1);
    T_EQ(connect(client[4], &ls.addr.sa, ls.addr.len), 0);
    turns(4);
    expect_busy(client[4]);
    T_EQ(setrlimit(RLIMIT_NOFILE, &old), 0);
    for (size_t i = 0; i < COUNT_OF(client); i++)
        close(client[i]);
    while (n > 0)
        close(fds[--n]);
    drop_taken();
    listener_close(&ls);
}

/* At the end those who wait are told, and then it ends, though accept() still fails. */
static void
test_accept_rest_without_descriptors(void **state)
{
    (void)state;
    thr_check_loop();
    struct listener ls;
    struct listener_options o = options("127.0.0.1:0");
    int client[3], fds[256];
    start(&ls, &o);
    T_TRUE(listener_spare_open());
    for (size_t i = 0; i < COUNT_OF(client); i++)
        client[i] = connect_to(&ls.addr);
    struct rlimit old = lower_limit();
    size_t n = exhaust(fds, COUNT_OF(fds), 0);
    int64_t errors = metric_get(M_ACCEPT_ERRORS);
    listener_accept_rest(&ls);
    T_EQ(metric_get(M_ACCEPT_ERRORS) - errors, COUNT_OF(client) + 1);
    T_EQ(setrlimit(RLIMIT_NOFILE, &old), 0);
    for (size_t i = 0; i < COUNT_OF(client); i++) {
        expect_busy(client[i]);
        close(client[i]);
    }
    while (n > 0)
        close(fds[--n]);
    listener_close(&ls);
}

/* A client waits and cannot be taken: the loop looks now and then, not all the time; and takes it
 * when it can. */
static void LOOP_ONLY
no_room_turns(int64_t errors)
{
    struct mono begin = mono_now();
    while (metric_get(M_ACCEPT_ERRORS) == errors)
        turns(1);
    turns(200);
    int64_t looks = 1 + mono_diff_us(mono_now(), begin) / 100000;
    T_TRUE(metric_get(M_ACCEPT_ERRORS) - errors <= looks);
    T_EQ(taken_count, 0);
}

static void LOOP_ONLY
expect_taken(void)
{
    while (taken_count == 0)
        turns(1);
    T_EQ(taken_count, 1);
    drop_taken();
}

static void
test_no_room_at_all(void **state)
{
    (void)state;
    thr_check_loop();
    struct listener ls;
    struct listener_options o = options("127.0.0.1:0");
    struct rlimit old, none;
    start(&ls, &o);
    T_EQ(getrlimit(RLIMIT_NOFILE, &old), 0);
    none = old;
    none.rlim_cur = 3; /* as when the machine has none left: the spare cannot be opened again */
    int64_t errors = metric_get(M_ACCEPT_ERRORS);
    int client = connect_to(&ls.addr);
    struct t_capture c = t_capture();
    T_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
    no_room_turns(errors);
    T_EQ(setrlimit(RLIMIT_NOFILE, &old), 0);
    char *text = t_captured(c);
    T_HAS(text, "spare_descriptor_lost");
    free(text);
    expect_taken();
    close(client);
    errors = metric_get(M_ACCEPT_ERRORS);
    accept_errno = ENOMEM;
    client = connect_to(&ls.addr);
    no_room_turns(errors);
    accept_errno = 0;
    expect_taken();
    close(client);
    accept_errno = ENOBUFS; /* closed while it looks away */
    client = connect_to(&ls.addr);
    errors = metric_get(M_ACCEPT_ERRORS);
    no_room_turns(errors);
    accept_errno = 0;
    listener_close(&ls);
    turns(2);
    close(client);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_spare_descriptor_comes_back),
        TEST(test_no_descriptors_left),
        TEST(test_accept_rest_without_descriptors),
        TEST(test_no_room_at_all),
    };
    signal(SIGPIPE, SIG_IGN);
    loop = loop_new();
    CHECK(loop != NULL);
    int failed = TEST_MAIN(tests);
    thr_check_loop();
    loop_free(&loop);
    return failed;
}
