#include "t.h"

#include <fcntl.h>

#include "net/passed.h"

#define PLACES_END (3 + PASSED_MAX + 2)

static void
set_env(const char *pid, const char *fds, const char *names)
{
    char own[32];
    snprintf(own, sizeof own, "%d", (int)getpid());
    setenv("LISTEN_PID", pid == NULL ? own : pid, 1);
    setenv("LISTEN_FDS", fds, 1);
    if (names == NULL)
        unsetenv("LISTEN_FDNAMES");
    else
        setenv("LISTEN_FDNAMES", names, 1);
}

static int
tcp(bool listening)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    T_TRUE(fd >= 0);
    T_EQ(bind(fd, (struct sockaddr *)&in, sizeof in), 0);
    T_TRUE(!listening || listen(fd, 16) == 0);
    return fd;
}

static int
unix_socket(int type, const char *name)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, type, 0);
    T_TRUE(fd >= 0);
    snprintf(un.sun_path + 1, sizeof un.sun_path - 1, "%s-%d", name, (int)getpid());
    socklen_t len =
        (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + strlen(un.sun_path + 1));
    T_EQ(bind(fd, (struct sockaddr *)&un, len), 0);
    if (type == SOCK_STREAM)
        T_EQ(listen(fd, 16), 0);
    return fd;
}

/* Moves fd behind all places that a test arranges. */
static int
out_of_the_way(int fd)
{
    int high = fcntl(fd, F_DUPFD, PLACES_END);
    T_TRUE(high >= PLACES_END);
    close(fd);
    return high;
}

/* Puts the descriptors at 3, 4, ...; -1: nothing is open there. They are taken. */
static void
arrange(const int *fds, size_t count)
{
    int high[8];
    T_TRUE(count <= COUNT_OF(high));
    for (size_t i = 0; i < count; i++)
        high[i] = fds[i] < 0 ? -1 : out_of_the_way(fds[i]);
    T_EQ(close_range(3, PLACES_END - 1, 0), 0);
    for (size_t i = 0; i < count; i++) {
        if (high[i] < 0)
            continue;
        T_EQ(dup2(high[i], 3 + (int)i), 3 + (int)i);
        close(high[i]);
    }
}
#define ARRANGE(...)                                                                               \
    arrange((const int[]){__VA_ARGS__}, sizeof((const int[]){__VA_ARGS__}) / sizeof(int))

static struct passed *
taken(void)
{
    static struct passed p;
    char why[256] = "";
    if (!passed_take(&p, why, sizeof why))
        fail_msg("%s", why);
    T_TRUE(getenv("LISTEN_PID") == NULL && getenv("LISTEN_FDS") == NULL &&
           getenv("LISTEN_FDNAMES") == NULL);
    return &p;
}

static void
refused(const char *part)
{
    struct passed p;
    char why[256] = "";
    T_FALSE(passed_take(&p, why, sizeof why));
    T_HAS(why, part);
    T_TRUE(getenv("LISTEN_FDS") == NULL);
    passed_fini(&p);
}

static void
test_sockets_are_taken_with_name_and_address(void **state)
{
    (void)state;
    ARRANGE(tcp(true), unix_socket(SOCK_STREAM, "chmux-passed"));
    set_env(NULL, "2", "web:admin");
    struct passed *p = taken();
    T_EQ(p->count, 2);
    T_EQ(p->socket[0].fd, 3);
    T_ZEQ(p->socket[0].name, "web");
    T_EQ(p->socket[0].addr.sa.sa_family, AF_INET);
    T_TRUE(addr_port(&p->socket[0].addr) != 0 && addr_is_loopback(&p->socket[0].addr));
    char text[ADDR_TEXT_MAX], want[ADDR_TEXT_MAX];
    addr_format(&p->socket[1].addr, text);
    snprintf(want, sizeof want, "unix:@chmux-passed-%d", (int)getpid());
    T_ZEQ(text, want);
    for (int fd = 3; fd < 5; fd++) {
        T_EQ(fcntl(fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
        T_EQ(fcntl(fd, F_GETFL) & O_NONBLOCK, O_NONBLOCK);
    }
    passed_fini(p);
    T_EQ(p->count, 0);
    T_EQ(fcntl(3, F_GETFD), -1);
    T_EQ(fcntl(4, F_GETFD), -1);
}

/* Fewer names than sockets, an empty name, none at all: "unknown", as systemd calls them. */
static void
test_names_may_be_missing(void **state)
{
    (void)state;
    static const char *const names[] = {"a", "a:", NULL, ""};
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        ARRANGE(tcp(true), tcp(true));
        set_env(NULL, "2", names[i]);
        struct passed *p = taken();
        T_EQ(p->count, 2);
        T_ZEQ(p->socket[0].name, i < 2 ? "a" : "unknown");
        T_ZEQ(p->socket[1].name, "unknown");
        passed_fini(p);
    }
}

/* What was passed to a parent of ours is not ours, and stays open. */
static void
test_another_process_is_meant(void **state)
{
    (void)state;
    static const char *const pids[] = {"1", "", "x", "-1", "99999999999"};
    for (size_t i = 0; i < COUNT_OF(pids); i++) {
        ARRANGE(tcp(true));
        set_env(pids[i], "1", "a");
        struct passed *p = taken();
        T_EQ(p->count, 0);
        passed_fini(p);
        T_EQ(fcntl(3, F_GETFD), 0);
    }
    unsetenv("LISTEN_PID");
    setenv("LISTEN_FDS", "1", 1);
    struct passed *none = taken();
    T_EQ(none->count, 0);
    passed_fini(none);
}

static void
test_what_is_no_listening_stream_socket_is_refused(void **state)
{
    (void)state;
    int pipe_fds[2];
    T_EQ(pipe(pipe_fds), 0);
    const struct {
        int fd;
        const char *says;
    } rows[] = {
        {-1, "passed socket 2 (descriptor 4, named \"b\"): it is not open"},
        {out_of_the_way(pipe_fds[0]), "it is not a socket"},
        {out_of_the_way(socket(AF_NETLINK, SOCK_RAW, 0)), "neither a TCP nor a unix socket"},
        {out_of_the_way(unix_socket(SOCK_DGRAM, "chmux-dgram")), "not a stream socket"},
        {out_of_the_way(tcp(false)), "does not listen"},
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        ARRANGE(tcp(true), rows[i].fd);
        set_env(NULL, "2", "a:b");
        refused(rows[i].says);
        T_EQ(fcntl(3, F_GETFD), -1); /* the good one was taken, and is closed */
    }
}

static void
test_a_broken_count_is_refused(void **state)
{
    (void)state;
    static const char *const counts[] = {"", "x", "-1", "553", "99999999999999999999"};
    for (size_t i = 0; i < COUNT_OF(counts); i++) {
        ARRANGE(tcp(true));
        set_env(NULL, counts[i], "a");
        refused("want a number from 0 to 552");
    }
    set_env(NULL, "0", "");
    struct passed *p = taken();
    T_EQ(p->count, 0);
    passed_fini(p);
}

static void
test_too_many(void **state)
{
    (void)state;
    int fd = out_of_the_way(tcp(true));
    for (int i = 0; i < PASSED_MAX + 1; i++)
        T_EQ(dup2(fd, 3 + i), 3 + i);
    set_env(NULL, "41", "a");
    refused("passed socket 41 (descriptor 43, named \"unknown\"): there are too many");
    close(43);
    close(fd);
}

/* Claimed: the listener has the descriptor; nobody finds it again, and fini leaves it alone. */
static void
test_a_claimed_one_is_given_away(void **state)
{
    (void)state;
    ARRANGE(tcp(true), tcp(true));
    set_env(NULL, "2", "a:a");
    struct passed *p = taken();
    struct listener ls;
    struct passed_socket *s = passed_find(p, "a");
    T_TRUE(s == &p->socket[0] && passed_find(p, "b") == NULL);
    passed_claim(s, &ls, false);
    T_EQ(ls.fd, 3);
    T_TRUE(ls.adopted && addr_eq(&ls.addr, &p->socket[0].addr));
    T_TRUE(passed_find(p, "a") == &p->socket[1]);
    T_ABORTS(passed_claim(s, &ls, false));
    passed_fini(p);
    T_TRUE(fcntl(3, F_GETFD) >= 0);
    T_EQ(fcntl(4, F_GETFD), -1);
    close(3);
}

/* Connections of clients are told from a listener of that name, and given away one by one. */
static void
test_clients_of_the_process_before(void **state)
{
    (void)state;
    int pair[2], pipe_fds[2];
    T_EQ(pipe(pipe_fds), 0);
    ARRANGE(pipe_fds[0]);
    set_env(NULL, "1", "client");
    refused("it is not a socket");
    T_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    ARRANGE(pair[0], tcp(true), socket(AF_INET, SOCK_STREAM, 0));
    set_env(NULL, "3", "client:client:client");
    struct passed *ok = taken();
    T_EQ(ok->count, 1);
    T_EQ(ok->client_count, 2);
    struct addr peer;
    T_EQ(passed_client(ok, &peer), 3); /* the other one is not connected */
    T_EQ(peer.sa.sa_family, AF_UNIX);
    T_EQ(fcntl(3, F_GETFL) & O_NONBLOCK, O_NONBLOCK);
    T_EQ(fcntl(3, F_GETFD), FD_CLOEXEC);
    T_EQ(fcntl(5, F_GETFD), -1);
    T_EQ(passed_client(ok, &peer), -1);
    passed_fini(ok);
    T_EQ(fcntl(3, F_GETFD), FD_CLOEXEC);
    close(3);
}

int
main(void)
{
    /* Whatever was inherited: descriptors from 3 on are ours to arrange. cmocka keeps none open. */
    close_range(3, ~0U, 0);
    const struct CMUnitTest tests[] = {
        TEST(test_sockets_are_taken_with_name_and_address),
        TEST(test_names_may_be_missing),
        TEST(test_another_process_is_meant),
        TEST(test_what_is_no_listening_stream_socket_is_refused),
        TEST(test_a_broken_count_is_refused),
        TEST(test_a_claimed_one_is_given_away),
        TEST(test_clients_of_the_process_before),
        TEST(test_too_many),
    };
    return TEST_MAIN(tests);
}
