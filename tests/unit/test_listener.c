#include "test_listener.h"

#include <fcntl.h>
#include <grp.h>
#include <netinet/tcp.h>
#include <sys/stat.h>

static char folder[] = "/tmp/test_listener.XXXXXX";

static void
refused(const struct listener_options *o, const char *text)
{
    struct listener ls;
    char why[256] = "";
    T_FALSE(listener_open(&ls, o, why, sizeof(why)));
    T_ZEQ(why, text);
    T_TRUE(ls.fd < 0);
}

static const char *
path_text(const char *name)
{
    static char text[2][96];
    static unsigned next;
    char *t = text[next++ % 2];
    snprintf(t, sizeof(text[0]), "unix:%s/%s", folder, name);
    return t;
}

static bool
exists(const char *text)
{
    struct stat st;
    return lstat(text + strlen("unix:"), &st) == 0;
}

/* ---- TCP ---- */

/* Port 0 becomes a real one in addr and text; the peer's address is told; what arrives is ours. */
static void
test_tcp(void **state)
{
    (void)state;
    thr_check_loop();
    static const char *const texts[] = {"127.0.0.1:0", "[::1]:0"};
    for (size_t i = 0; i < COUNT_OF(texts); i++) {
        struct listener ls;
        struct listener_options o = options(texts[i]);
        char text[ADDR_TEXT_MAX];
        start(&ls, &o);
        T_TRUE(addr_port(&ls.addr) != 0);
        addr_format(&ls.addr, text);
        T_ZEQ(ls.text, text);
        int fd = connect_to(&ls.addr);
        turns(2);
        T_EQ(taken_count, 1);
        struct addr mine = {.len = sizeof(struct sockaddr_in6)};
        T_EQ(getsockname(fd, &mine.sa, &mine.len), 0);
        T_TRUE(addr_eq(&mine, &last_peer));
        T_EQ(fcntl(taken[0], F_GETFL) & O_NONBLOCK, O_NONBLOCK);
        T_EQ(fcntl(taken[0], F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
        close(fd);
        drop_taken();
        listener_close(&ls);
        listener_close(&ls); /* no-op */
    }
}

static void
test_port_in_use_says_which(void **state)
{
    (void)state;
    thr_check_loop();
    struct listener ls;
    struct listener_options o = options("127.0.0.1:0");
    char text[ADDR_TEXT_MAX + 64];
    start(&ls, &o);
    o.addr = ls.addr;
    snprintf(text, sizeof(text), "%s: %s", ls.text, strerror(EADDRINUSE));
    refused(&o, text);
    struct listener again;
    char why[256];
    T_FALSE(listener_open(&again, &o, why, sizeof(why)));
    T_EQ(again.sys_errno, EADDRINUSE);
    listener_close(&ls);
    start(&again, &o); /* free again at once */
    listener_close(&again);
    o = options("192.0.2.1:8123");
    snprintf(text, sizeof(text), "192.0.2.1:8123: %s", strerror(EADDRNOTAVAIL));
    refused(&o, text);
}

/* Everybody of a burst is taken, more than one call's worth. */
static void
test_bursts(void **state)
{
    (void)state;
    thr_check_loop();
    struct listener ls;
    struct listener_options o = options("127.0.0.1:0");
    int fd[100];
    start(&ls, &o);
    for (size_t i = 0; i < COUNT_OF(fd); i++)
        fd[i] = connect_to(&ls.addr);
    for (int i = 0; i < 100 && taken_count < COUNT_OF(fd); i++)
        turns(1);
    T_EQ(taken_count, COUNT_OF(fd));
    for (size_t i = 0; i < COUNT_OF(fd); i++)
        close(fd[i]);
    drop_taken();
    listener_close(&ls);
}

static struct listener *LOOP_ONLY
start_for_speakers(struct listener *ls, const char *text)
{
    struct listener_options o = options(text);
    o.clients_speak = true;
    start(ls, &o);
    return ls;
}

/* Turns until that many were taken, for at most ten seconds. */
static void LOOP_ONLY
until_taken(size_t n)
{
    struct mono from = mono_now();
    while (taken_count < n && mono_diff_us(mono_now(), from) < 10000000) {
        struct timer t;
        timer_init(&t, loop, stop, NULL);
        T_TRUE(timer_reserve(&t));
        timer_arm_in(&t, 5000);
        loop_run(loop);
        timer_fini(&t);
    }
    T_EQ(taken_count, n);
}

/* clients_speak: seen with the first bytes, which can be read at once, or when it ends, or after
 * LISTENER_SILENT_S; until then nothing of it is ours. */
static void
test_silent_clients(void **state)
{
    (void)state;
    thr_check_loop();
    static const char *const texts[] = {"127.0.0.1:0", "[::1]:0"};
    for (size_t i = 0; i < COUNT_OF(texts); i++) {
        struct listener ls;
        char got[8];
        start_for_speakers(&ls, texts[i]);
        struct mono from = mono_now();
        int silent = connect_to(&ls.addr), speaks = connect_to(&ls.addr);
        T_EQ(send(speaks, "hello", 5, 0), 5);
        until_taken(1);
        T_EQ(recv(taken[0], got, sizeof(got), 0), 5);
        int leaves = connect_to(&ls.addr);
        close(leaves);
        until_taken(2);
        T_EQ(recv(taken[1], got, sizeof(got), 0), 0);
        until_taken(3);
        T_TRUE(mono_diff_us(mono_now(), from) >= LISTENER_SILENT_S * 900000);
        T_EQ(recv(taken[2], got, sizeof(got), 0), -1);
        T_EQ(send(silent, "now", 3, 0), 3);
        T_EQ(send(taken[2], "and", 3, 0), 3);
        close(silent);
        close(speaks);
        drop_taken();
        listener_close(&ls);
    }
}

/* A client that has said nothing when the listener goes is not left hanging when it does speak. */
static void
test_silent_client_of_a_closed_listener(void **state)
{
    (void)state;
    thr_check_loop();
    struct listener ls;
    start_for_speakers(&ls, "127.0.0.1:0");
    int silent = connect_to(&ls.addr), speaks = connect_to(&ls.addr);
    char got[8];
    T_EQ(send(speaks, "hello", 5, 0), 5);
    listener_accept_rest(&ls);
    T_TRUE(taken_count >= 1); /* the one that spoke; the other too if a second has passed */
    listener_close(&ls);
    drop_taken();
    (void)send(silent, "hello", 5, MSG_NOSIGNAL);
    ssize_t n = recv(silent, got, sizeof(got), 0);
    T_TRUE(n == 0 || (n < 0 && (errno == ECONNRESET || errno == EPIPE)));
    close(silent);
    close(speaks);
}

/* Neither listeners without the option nor unix sockets hold anybody back. */
static void
test_silence_is_told_at_once_elsewhere(void **state)
{
    (void)state;
    thr_check_loop();
    int defer = -1;
    socklen_t len = sizeof(defer);
    struct listener ls;
    struct listener_options o = options("127.0.0.1:0");
    start(&ls, &o);
    T_EQ(getsockopt(ls.fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, &defer, &len), 0);
    T_EQ(defer, 0);
    int fd = connect_to(&ls.addr);
    turns(2);
    T_EQ(taken_count, 1);
    close(fd);
    drop_taken();
    listener_close(&ls);
    start_for_speakers(&ls, "unix:@chmux-test-silent");
    fd = connect_to(&ls.addr);
    turns(2);
    T_EQ(taken_count, 1);
    close(fd);
    drop_taken();
    listener_close(&ls);
}

/* Nobody who got through to the kernel is left out at the end. */
static void
test_accept_rest(void **state)
{
    (void)state;
    thr_check_loop();
    struct listener ls;
    struct listener_options o = options("127.0.0.1:0");
    int fd[100];
    start(&ls, &o);
    for (size_t i = 0; i < COUNT_OF(fd); i++)
        fd[i] = connect_to(&ls.addr);
    listener_accept_rest(&ls);
    T_EQ(taken_count, COUNT_OF(fd));
    listener_close(&ls);
    listener_accept_rest(&ls); /* no-op when closed */
    for (size_t i = 0; i < COUNT_OF(fd); i++)
        close(fd[i]);
    drop_taken();
}

/* The callback may close the listener: nothing more is accepted. */
static void
test_close_inside_the_callback(void **state)
{
    (void)state;
    thr_check_loop();
    for (int rest = 0; rest < 2; rest++) {
        struct listener ls;
        struct listener_options o = options("127.0.0.1:0");
        start(&ls, &o);
        ls.burst = 8;
        int a = connect_to(&ls.addr), b = connect_to(&ls.addr);
        closes_after_one = &ls;
        if (rest)
            listener_accept_rest(&ls);
        else
            turns(2);
        closes_after_one = NULL;
        T_EQ(taken_count, 1);
        T_TRUE(ls.fd < 0);
        close(a);
        close(b);
        drop_taken();
    }
}

/* ---- unix sockets ---- */

static void
test_unix_path(void **state)
{
    (void)state;
    thr_check_loop();
    struct listener ls;
    struct stat st;
    mode_t mask = umask(0);
    umask(mask);
    const char *text = path_text("s");
    struct listener_options o = options(text);
    static const unsigned modes[] = {0660, 0600, 0666};
    for (size_t i = 0; i < COUNT_OF(modes); i++) {
        o.mode = modes[i];
        start(&ls, &o);
        T_EQ(lstat(text + 5, &st), 0);
        T_TRUE(S_ISSOCK(st.st_mode));
        T_EQ(st.st_mode & 07777, modes[i]);
        T_ZEQ(ls.text, text);
        int fd = connect_to(&ls.addr);
        turns(2);
        T_EQ(taken_count, 1);
        T_EQ(last_peer.sa.sa_family, AF_UNIX);
        close(fd);
        drop_taken();
        listener_close(&ls);
        T_FALSE(exists(text)); /* ours: removed */
    }
    mode_t now = umask(mask);
    T_EQ(now, mask); /* as it was */
}

static void
test_unix_group(void **state)
{
    (void)state;
    thr_check_loop();
    struct listener ls;
    struct stat st;
    const char *text = path_text("g");
    char want[256];
    struct listener_options o = options(text);
    const struct group *own = getgrgid(getgid());
    T_TRUE(own != NULL);
    char name[64];
    snprintf(name, sizeof(name), "%s", own->gr_name);
    o.group = name;
    start(&ls, &o);
    T_EQ(lstat(text + 5, &st), 0);
    T_EQ(st.st_gid, getgid());
    listener_close(&ls);
    o.group = "no-such-group-here";
    snprintf(want, sizeof(want), "%s: no such group: no-such-group-here", text);
    refused(&o, want);
    T_FALSE(exists(text)); /* nothing is left behind */
}

/* A reload changes the file it bound, and nothing else that somebody put in its place. */
static void
test_restyle_follows_no_link(void **state)
{
    (void)state;
    thr_check_loop();
    struct listener ls, other;
    struct stat st;
    const char *text = path_text("r");
    char victim[96], why[256] = "", want[256];
    struct listener_options o = options(text), others;
    snprintf(victim, sizeof(victim), "unix:%s/victim", folder);
    others = options(victim);
    start(&ls, &o);
    o.mode = 0666;
    T_TRUE(listener_restyle(&ls, &o, why, sizeof(why)));
    T_EQ(lstat(text + 5, &st), 0);
    T_EQ(st.st_mode & 07777, 0666);
    start(&other, &others);
    T_EQ(unlink(text + 5), 0);
    T_EQ(symlink(victim + 5, text + 5), 0);
    T_FALSE(listener_restyle(&ls, &o, why, sizeof(why)));
    snprintf(want, sizeof(want), "%s: something else was put in the place of the socket", text);
    T_ZEQ(why, want);
    T_EQ(unlink(text + 5), 0);
    T_EQ(link(victim + 5, text + 5), 0);
    T_FALSE(listener_restyle(&ls, &o, why, sizeof(why)));
    snprintf(want, sizeof(want), "%s: another socket was put in its place", text);
    T_ZEQ(why, want);
    T_EQ(lstat(victim + 5, &st), 0);
    T_EQ(st.st_mode & 07777, 0660);
    T_EQ(unlink(text + 5), 0);
    T_FALSE(listener_restyle(&ls, &o, why, sizeof(why)));
    snprintf(want, sizeof(want), "%s: %s", text, strerror(ENOENT));
    T_ZEQ(why, want);
    listener_close(&other);
    listener_close(&ls);
}

/* A file on which nobody answers is replaced; one that is alive, or no socket, is left alone. */
static void
test_unix_path_that_exists(void **state)
{
    (void)state;
    thr_check_loop();
    struct listener ls;
    char want[256];
    const char *text = path_text("old");
    struct listener_options o = options(text);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    T_EQ(bind(fd, &o.addr.sa, o.addr.len), 0);
    T_EQ(listen(fd, 1), 0);
    snprintf(want, sizeof(want), "%s: address already in use: another process listens there", text);
    refused(&o, want);
    int waiting[4];
    for (size_t i = 0; i < COUNT_OF(waiting); i++) {
        waiting[i] = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        int r = connect(waiting[i], &o.addr.sa, o.addr.len);
        T_TRUE(r == 0 || errno == EAGAIN);
    }
    refused(&o, want); /* its queue is full, and it lives all the same */
    T_TRUE(exists(text));
    for (size_t i = 0; i < COUNT_OF(waiting); i++)
        close(waiting[i]);
    close(fd); /* gone without a word: the file stays */
    T_TRUE(exists(text));
    start(&ls, &o);
    fd = connect_to(&o.addr);
    close(fd);
    listener_close(&ls);
    drop_taken();
    fd = open(text + 5, O_CREAT | O_WRONLY, 0600);
    T_TRUE(fd >= 0);
    close(fd);
    snprintf(want, sizeof(want), "%s: the file exists and is not a socket", text);
    refused(&o, want);
    T_TRUE(exists(text));
    T_EQ(unlink(text + 5), 0);
    T_EQ(symlink("nowhere", text + 5), 0);
    refused(&o, want); /* nor is a link to nowhere */
    T_EQ(unlink(text + 5), 0);
    fd = socket(AF_UNIX, SOCK_DGRAM, 0); /* a socket of another kind: cannot tell, so not touched */
    T_EQ(bind(fd, &o.addr.sa, o.addr.len), 0);
    snprintf(
        want, sizeof(want), "%s: cannot tell whether it is in use: %s", text, strerror(EPROTOTYPE));
    refused(&o, want);
    T_TRUE(exists(text));
    close(fd);
    T_EQ(unlink(text + 5), 0);
    text = path_text("no/such/folder");
    o = options(text);
    snprintf(want, sizeof(want), "%s: %s", text, strerror(ENOENT));
    refused(&o, want);
}

/* At the end only our own file is removed. */
static void
test_file_of_another_is_not_removed(void **state)
{
    (void)state;
    thr_check_loop();
    struct listener ls, other;
    const char *text = path_text("s");
    struct listener_options o = options(text);
    start(&ls, &o);
    T_EQ(unlink(text + 5), 0);
    start(&other, &o);
    listener_close(&ls);
    T_TRUE(exists(text));
    listener_close(&other);
    T_FALSE(exists(text));
}

static void
test_abstract_name(void **state)
{
    (void)state;
    thr_check_loop();
    struct listener ls;
    char text[64], want[256];
    snprintf(text, sizeof(text), "unix:@test-listener-%d", (int)getpid());
    struct listener_options o = options(text);
    start(&ls, &o);
    T_ZEQ(ls.text, text);
    int fd = connect_to(&ls.addr);
    turns(2);
    T_EQ(taken_count, 1);
    snprintf(want, sizeof(want), "%s: %s", text, strerror(EADDRINUSE));
    refused(&o, want);
    close(fd);
    drop_taken();
    listener_close(&ls);
}

/* Adopted: its file stays, its options are set, and who waits in it is not taken at the end. */
static void
test_an_adopted_socket_outlives_us(void **state)
{
    (void)state;
    thr_check_loop();
    struct listener_options o = options(path_text("adopted"));
    struct listener owner, ls;
    char why[256] = "";
    T_TRUE(listener_open(&owner, &o, why, sizeof(why)));
    listener_adopt(&ls, dup(owner.fd), &owner.addr, false);
    T_ZEQ(ls.text, owner.text);
    T_TRUE(listener_start(&ls, loop, busy, on_accepted, NULL));
    int first = connect_to(&ls.addr);
    turns(2);
    T_EQ(taken_count, 1);
    int second = connect_to(&ls.addr);
    listener_accept_rest(&ls);
    listener_close(&ls);
    turns(2);
    T_EQ(taken_count, 1);
    T_TRUE(exists(owner.text));
    T_TRUE(listener_start(&owner, loop, busy, on_accepted, NULL)); /* the next process */
    turns(2);
    T_EQ(taken_count, 2);
    close(first);
    close(second);
    drop_taken();
    listener_close(&owner);
    T_FALSE(exists(owner.text));
}

/* What its clients inherit is the same as from a listener of our own. */
static void
test_an_adopted_tcp_socket_has_our_options(void **state)
{
    (void)state;
    thr_check_loop();
    struct listener_options o = options("127.0.0.1:0");
    struct listener ls;
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof in;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), value = 0;
    T_EQ(bind(fd, (struct sockaddr *)&in, sizeof in), 0);
    T_EQ(listen(fd, 8), 0);
    T_EQ(getsockname(fd, (struct sockaddr *)&in, &len), 0);
    addr_set_port(&o.addr, ntohs(in.sin_port));
    listener_adopt(&ls, fd, &o.addr, true);
    T_TRUE(listener_start(&ls, loop, busy, on_accepted, NULL));
    len = sizeof value;
    T_EQ(getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &value, &len), 0);
    T_EQ(value, 1);
    T_EQ(getsockopt(fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, &value, &len), 0);
    T_TRUE(value > 0);
    listener_close(&ls);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_tcp),
        TEST(test_port_in_use_says_which),
        TEST(test_bursts),
        TEST(test_silent_clients),
        TEST(test_silent_client_of_a_closed_listener),
        TEST(test_silence_is_told_at_once_elsewhere),
        TEST(test_accept_rest),
        TEST(test_close_inside_the_callback),
        TEST(test_unix_path),
        TEST(test_unix_group),
        TEST(test_restyle_follows_no_link),
        TEST(test_unix_path_that_exists),
        TEST(test_file_of_another_is_not_removed),
        TEST(test_abstract_name),
        TEST(test_an_adopted_socket_outlives_us),
        TEST(test_an_adopted_tcp_socket_has_our_options),
    };
    signal(SIGPIPE, SIG_IGN);
    loop = loop_new();
    CHECK(loop != NULL && mkdtemp(folder) != NULL);
    int failed = TEST_MAIN(tests);
    thr_check_loop();
    loop_free(&loop);
    rmdir(folder);
    return failed;
}
