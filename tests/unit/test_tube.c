/* From one TCP socket through a tube to another. */
#include "t.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "base/mem.h"
#include "net/tube.h"

#define BIG     (8u << 20)
#define DRIPPED (2u << 20)

static struct loop *loop;
static struct tubes tubes;
static struct conn from, to;
static int server, reader; /* the other ends */
static int calls;

static void
on_conn(void *arg)
{
    thr_check_loop();
    (void)arg;
    calls++;
}

static void
stop(void *arg)
{
    thr_check_loop();
    (void)arg;
    loop_stop(loop);
}

/* What is ready now is told: a timer of no length comes behind a poll. */
static void LOOP_ONLY
turn(void)
{
    for (int i = 0; i < 2; i++) {
        struct timer t;
        timer_init(&t, loop, stop, NULL);
        T_TRUE(timer_reserve(&t));
        timer_arm_in(&t, 0);
        loop_run(loop);
        timer_fini(&t);
    }
}

static int LOOP_ONLY
tcp_conn(struct conn *c)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(a);
    int l = socket(AF_INET, SOCK_STREAM, 0);
    T_EQ(bind(l, (struct sockaddr *)&a, len), 0);
    T_EQ(listen(l, 1), 0);
    T_EQ(getsockname(l, (struct sockaddr *)&a, &len), 0);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    T_EQ(connect(fd, (struct sockaddr *)&a, len), 0);
    int peer = accept4(l, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    T_TRUE(peer >= 0);
    T_EQ(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
    close(l);
    T_TRUE(conn_open(c, loop, fd, NULL, on_conn, NULL));
    return peer;
}

static void LOOP_ONLY
both_open(void)
{
    server = tcp_conn(&from);
    reader = tcp_conn(&to);
    turn();
}

static void LOOP_ONLY
both_close(void)
{
    conn_close(&from);
    conn_close(&to);
    if (server >= 0)
        close(server);
    if (reader >= 0)
        close(reader);
}

static void
reset(int *fd)
{
    static const struct linger now = {.l_onoff = 1, .l_linger = 0};
    T_EQ(setsockopt(*fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now)), 0);
    close(*fd);
    *fd = -1;
}

static unsigned char
nth(size_t i)
{
    return (unsigned char)(i % 251);
}

/* As much of BIG bytes, from *sent on, as the server's socket takes. */
static void
serve(size_t *sent)
{
    static unsigned char data[65536];
    while (*sent < BIG) {
        for (size_t i = 0; i < sizeof data; i++)
            data[i] = nth(*sent + i);
        size_t want = BIG - *sent < sizeof data ? BIG - *sent : sizeof data;
        ssize_t put = send(server, data, want, MSG_NOSIGNAL);
        if (put <= 0)
            return;
        *sent += (size_t)put;
    }
}

/* Up to cap bytes of what has come, each as it must be. */
static void
take(size_t *taken, size_t cap)
{
    static unsigned char data[65536];
    for (;;) {
        ssize_t got = recv(reader, data, cap < sizeof data ? cap : sizeof data, 0);
        if (got <= 0)
            return;
        for (ssize_t i = 0; i < got; i++)
            if (data[i] != nth(*taken + (size_t)i))
                T_EQ(*taken + (size_t)i, 0);
        *taken += (size_t)got;
        cap -= (size_t)got;
    }
}

static void
test_bytes_go_through_in_order(void **state)
{
    thr_check_loop();
    (void)state;
    both_open();
    struct tube *t = tubes_get(&tubes);
    T_TRUE(t != NULL && mem_used() >= TUBE_BYTES);
    size_t sent = 0, taken = 0, filled = 0, waits = 0, parts = 0;
    while (taken < BIG) {
        serve(&sent);
        turn();
        for (;;) { /* until neither end moves */
            size_t n = 0, before = filled + parts;
            if (t->held == 0 && tube_fill(t, &from, BIG, &n) == IO_OK) {
                T_TRUE(n > 0 && n <= TUBE_BYTES && tube_held(t) == n);
                filled += n;
            }
            if (t->held > 0) {
                enum io r = tube_drain(t, &to, &n);
                T_TRUE(r == IO_OK ? n > 0 : r == IO_WAIT && n == 0);
                waits += r == IO_WAIT;
                parts += r == IO_OK;
            }
            if (filled + parts == before)
                break;
        }
        take(&taken, 100000); /* a slow one */
    }
    T_TRUE(filled == BIG && t->held == 0);
    T_TRUE(waits > 10); /* and each time it was told when to go on */
    tubes_put(&tubes, &t);
    T_TRUE(t == NULL);
    T_EQ(mem_used(), 0);
    tubes_put(&tubes, &t);
    both_close();
}

static void
test_a_run_ends_where_it_ends(void **state)
{
    thr_check_loop();
    (void)state;
    both_open();
    struct tube *t = tubes_get(&tubes);
    T_EQ(send(server, "0123456789", 10, 0), 10);
    turn();
    size_t n = 0;
    T_EQ(tube_fill(t, &from, 4, &n), IO_OK);
    T_EQ(n, 4);
    T_EQ(tube_drain(t, &to, &n), IO_OK);
    T_EQ(n, 4);
    char rest[16];
    T_EQ(conn_read(&from, rest, sizeof rest, &n), IO_OK); /* and the rest is still in the socket */
    T_EQ(n, 6);
    T_EQ(memcmp(rest, "456789", 6), 0);
    T_EQ(tube_fill(t, &from, 4, &n), IO_WAIT);
    T_EQ(n, 0);
    int before = calls;
    T_EQ(send(server, "ab", 2, 0), 2);
    turn();
    T_TRUE(calls > before);
    T_EQ(tube_fill(t, &from, 4, &n), IO_OK);
    T_EQ(n, 2);
    tubes_put(&tubes, &t); /* with what it holds */
    both_close();
}

/* At an urgent byte splice(2) says "nothing" for ever, and recv(2) goes on behind it. */
static void
test_nothing_is_left_behind_what_splice_stops_at(void **state)
{
    thr_check_loop();
    (void)state;
    both_open();
    struct tube *t = tubes_get(&tubes);
    T_EQ(send(server, "ab", 2, 0), 2);
    T_EQ(send(server, "!", 1, MSG_OOB), 1);
    T_EQ(send(server, "cd", 2, 0), 2);
    turn();
    size_t n = 0, got = 0;
    char rest[16];
    enum io r = IO_OK;
    while ((r = tube_fill(t, &from, 10, &n)) == IO_OK && n > 0) {
        got += n;
        T_EQ(tube_drain(t, &to, &n), IO_OK);
    }
    T_EQ(got, 2);
    T_EQ(r, IO_OK);
    T_EQ(conn_read(&from, rest, sizeof rest, &n), IO_OK);
    T_EQ(n, 2);
    T_EQ(memcmp(rest, "cd", 2), 0);
    tubes_put(&tubes, &t);
    both_close();
}

static void *
drip(void *arg)
{
    (void)arg;
    size_t sent = 0;
    while (sent < DRIPPED) {
        unsigned char few[8];
        for (size_t i = 0; i < sizeof few; i++)
            few[i] = nth(sent + i);
        ssize_t put = send(server, few, sizeof few, MSG_NOSIGNAL);
        if (put > 0)
            sent += (size_t)put;
    }
    return NULL;
}

/* Bytes that come while the socket is found empty are no reason to give up. */
static void
test_what_comes_meanwhile_goes_through_too(void **state)
{
    thr_check_loop();
    (void)state;
    both_open();
    T_EQ(setsockopt(server, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int)), 0);
    struct tube *t = tubes_get(&tubes);
    pthread_t sender;
    T_EQ(pthread_create(&sender, NULL, drip, NULL), 0);
    size_t filled = 0, taken = 0;
    while (taken < DRIPPED) {
        size_t n = 0;
        enum io r;
        while ((r = tube_fill(t, &from, BIG, &n)) == IO_OK && n > 0) {
            filled += n;
            while (t->held > 0) {
                if (tube_drain(t, &to, &n) != IO_OK)
                    turn();
                take(&taken, BIG);
            }
        }
        T_EQ(r, IO_WAIT);
        take(&taken, BIG);
        turn();
    }
    T_EQ(filled, DRIPPED);
    T_EQ(pthread_join(sender, NULL), 0);
    tubes_put(&tubes, &t);
    both_close();
}

static void
test_ends_are_told(void **state)
{
    thr_check_loop();
    (void)state;
    for (int how = 0; how < 2; how++) {
        both_open();
        struct tube *t = tubes_get(&tubes);
        if (how == 1)
            reset(&server);
        else
            T_EQ(shutdown(server, SHUT_WR), 0);
        turn();
        size_t n = 1;
        T_EQ(tube_fill(t, &from, 10, &n), how == 1 ? IO_ERROR : IO_EOF);
        T_EQ(n, 0);
        tubes_put(&tubes, &t);
        both_close();
    }
}

static void
test_a_reader_that_is_gone_is_told(void **state)
{
    thr_check_loop();
    (void)state;
    both_open();
    struct tube *t = tubes_get(&tubes);
    reset(&reader);
    T_EQ(send(server, "0123456789", 10, 0), 10);
    turn();
    size_t n = 0;
    T_EQ(tube_fill(t, &from, 10, &n), IO_OK);
    T_EQ(tube_drain(t, &to, &n), IO_ERROR); /* and no SIGPIPE */
    T_EQ(n, 0);
    T_TRUE(strstr(conn_why(&to), "eset") != NULL || strstr(conn_why(&to), "pipe") != NULL);
    tubes_put(&tubes, &t);
    both_close();
}

static void
test_as_many_as_there_may_be(void **state)
{
    thr_check_loop();
    (void)state;
    struct tube *t[TUBES_MAX];
    mem_set_limit(1u << 30);
    for (size_t i = 0; i < TUBES_MAX; i++) {
        t[i] = tubes_get(&tubes);
        T_TRUE(t[i] != NULL);
    }
    T_EQ(mem_used(), TUBES_MAX * TUBE_BYTES);
    T_TRUE(tubes_get(&tubes) == NULL);
    struct tube *first = t[0];
    for (size_t i = 0; i < TUBES_MAX; i++)
        tubes_put(&tubes, &t[i]);
    T_EQ(mem_used(), 0);
    t[0] = tubes_get(&tubes);
    T_TRUE(t[0] == first); /* the one that lay by */
    tubes_put(&tubes, &t[0]);
    mem_set_limit(64u << 20);
}

static void
test_none_without_budget_or_descriptors(void **state)
{
    thr_check_loop();
    (void)state;
    tubes_fini(&tubes); /* none lies by */
    mem_set_limit(4 * TUBE_BYTES - 1);
    T_TRUE(tubes_get(&tubes) == NULL);
    mem_set_limit(64u << 20);
    struct rlimit was, few;
    T_EQ(getrlimit(RLIMIT_NOFILE, &was), 0);
    int next = dup(0);
    few = (struct rlimit){.rlim_cur = (rlim_t)next + 1, .rlim_max = was.rlim_max};
    T_EQ(setrlimit(RLIMIT_NOFILE, &few), 0); /* room for stdin's copy, and then for one more */
    close(next);
    T_TRUE(tubes_get(&tubes) == NULL);
    T_EQ(setrlimit(RLIMIT_NOFILE, &was), 0);
    T_EQ(mem_used(), 0);
    mem_fail_at(1);
    T_TRUE(tubes_get(&tubes) == NULL);
    mem_fail_at(0);
    T_EQ(mem_used(), 0);
}

/* In a process of its own: filters stay. */
static int LOOP_ONLY
where_splice_is_refused(void)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_splice, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog prog = {.len = COUNT_OF(code), .filter = code};
    struct tube *t = tubes_get(&tubes);
    if (t == NULL || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog) != 0)
        return 1;
    char some[64];
    size_t n = 1;
    if (tube_fill(t, &from, 10, &n) != IO_OK || n != 0 || t->held != 0)
        return 2;
    if (conn_read(&from, some, sizeof some, &n) != IO_OK || n != 10)
        return 3;
    /* The reset that came with these bytes has no event of its own, and is still seen. */
    if (tube_fill(t, &from, 10, &n) != IO_OK || n != 0)
        return 4;
    return conn_read(&from, some, sizeof some, &n) == IO_ERROR ? 0 : 5;
}

static void
test_a_system_that_does_not_splice_is_no_error(void **state)
{
    thr_check_loop();
    (void)state;
    both_open();
    T_EQ(send(server, "0123456789", 10, 0), 10);
    reset(&server);
    turn();
    pid_t pid = fork();
    if (pid == 0)
        _exit(where_splice_is_refused());
    int status = -1;
    T_EQ(waitpid(pid, &status, 0), pid);
    T_TRUE(WIFEXITED(status));
    T_EQ(WEXITSTATUS(status), 0);
    both_close();
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_bytes_go_through_in_order),
        TEST(test_a_run_ends_where_it_ends),
        TEST(test_nothing_is_left_behind_what_splice_stops_at),
        TEST(test_what_comes_meanwhile_goes_through_too),
        TEST(test_ends_are_told),
        TEST(test_a_reader_that_is_gone_is_told),
        TEST(test_as_many_as_there_may_be),
        TEST(test_none_without_budget_or_descriptors),
        TEST(test_a_system_that_does_not_splice_is_no_error),
    };
    signal(SIGPIPE, SIG_IGN);
    mem_init(64u << 20, 65536, 0);
    loop = loop_new();
    CHECK(loop != NULL);
    int failed = TEST_MAIN(tests);
    thr_check_loop();
    tubes_fini(&tubes);
    loop_free(&loop);
    mem_fini();
    return failed;
}
