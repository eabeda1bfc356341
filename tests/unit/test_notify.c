#include "t.h"

#include <sys/socket.h>

#include "base/mem.h"
#include "rt/notify.h"

/* The manager's end of the protocol: a datagram socket of our own. */
static struct loop *loop;
static char folder[64], path[96];
static int manager = -1;
static struct notify n;

static int
open_manager(const char *address)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    size_t len = strlen(address);
    memcpy(un.sun_path, address, len);
    if (address[0] == '@')
        un.sun_path[0] = '\0';
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    T_TRUE(fd >= 0);
    T_EQ(
        bind(fd, (struct sockaddr *)&un, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len)),
        0);
    return fd;
}

static int
setup(void **state)
{
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/chmux-notify-XXXXXX");
    if (mkdtemp(folder) == NULL)
        return -1;
    snprintf(path, sizeof path, "%s/notify", folder);
    loop = loop_new();
    return loop == NULL ? -1 : 0;
}

static int
teardown(void **state)
{
    (void)state;
    thr_check_loop();
    notify_fini(&n);
    loop_free(&loop);
    if (manager >= 0)
        close(manager);
    manager = -1;
    unlink(path);
    rmdir(folder);
    return 0;
}

static void
set_env(const char *socket_path, const char *usec, const char *pid)
{
    static const char *const names[] = {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"};
    const char *const values[] = {socket_path, usec, pid};
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        if (values[i] == NULL)
            unsetenv(names[i]);
        else
            setenv(names[i], values[i], 1);
    }
}

static struct notify_env
take(void)
{
    struct notify_env env;
    char why[256] = "";
    if (!notify_env_take(&env, why, sizeof why))
        fail_msg("%s", why);
    return env;
}

static void LOOP_ONLY
start(const char *usec)
{
    manager = open_manager(path);
    set_env(path, usec, NULL);
    struct notify_env env = take();
    T_TRUE(notify_start(&n, loop, &env));
}

/* The next message, or "" when there is none. */
static const char *
heard(void)
{
    static char text[1024];
    ssize_t got = recv(manager, text, sizeof text - 1, 0);
    text[got < 0 ? 0 : got] = '\0';
    return text;
}

static void
stop(void *arg)
{
    thr_check_loop();
    (void)arg;
    loop_stop(loop);
}

/* ---- the environment ---- */

/* What was read is gone, so that no child can speak for us. */
static void
test_variables_are_taken_out(void **state)
{
    (void)state;
    char pid[32];
    snprintf(pid, sizeof pid, "%d", (int)getpid());
    set_env("/run/systemd/notify", "3000000", pid);
    struct notify_env env = take();
    T_ZEQ(env.addr.sun_path, "/run/systemd/notify");
    T_EQ(env.addr_len, offsetof(struct sockaddr_un, sun_path) + strlen("/run/systemd/notify") + 1);
    T_EQ(env.watchdog_us, 3000000);
    T_TRUE(getenv("NOTIFY_SOCKET") == NULL && getenv("WATCHDOG_USEC") == NULL &&
           getenv("WATCHDOG_PID") == NULL);
    T_EQ(take().addr_len, 0);
}

static void
test_an_abstract_name_is_as_long_as_it_says(void **state)
{
    (void)state;
    set_env("@chmux", NULL, NULL);
    struct notify_env env = take();
    T_EQ(env.addr_len, offsetof(struct sockaddr_un, sun_path) + 6);
    T_EQ(env.addr.sun_path[0], 0);
    T_EQ(memcmp(env.addr.sun_path + 1, "chmux", 5), 0);
}

/* A wrapper's watchdog is not ours to feed. */
static void
test_the_watchdog_of_another_process_is_left_alone(void **state)
{
    (void)state;
    set_env("/x", "3000000", "1");
    T_EQ(take().watchdog_us, 0);
    set_env("/x", "3000000", "no number");
    T_EQ(take().watchdog_us, 0);
    set_env(NULL, "3000000", NULL); /* nobody to tell */
    T_EQ(take().watchdog_us, 0);
}

static void
test_bad_values_are_refused_with_their_text(void **state)
{
    (void)state;
    char long_path[256], why[512];
    memset(long_path, 'a', sizeof long_path);
    long_path[0] = '/';
    long_path[108] = '\0'; /* one byte more than fits with its end */
    const struct {
        const char *socket_path, *usec, *says;
    } rows[] = {
        {"relative", NULL, "NOTIFY_SOCKET=relative:"},
        {"/", NULL, "NOTIFY_SOCKET=/:"},
        {"vsock:2:1234", NULL, "NOTIFY_SOCKET=vsock:2:1234:"},
        {long_path, NULL, "at most 107 bytes"},
        {"/x", "", "WATCHDOG_USEC=:"},
        {"/x", "0", "WATCHDOG_USEC=0:"},
        {"/x", "-1", "WATCHDOG_USEC=-1:"},
        {"/x", "99999999999999999999", "WATCHDOG_USEC=99999999999999999999:"},
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        struct notify_env env;
        set_env(rows[i].socket_path, rows[i].usec, NULL);
        T_FALSE(notify_env_take(&env, why, sizeof why));
        T_HAS(why, rows[i].says);
        T_EQ(env.addr_len, 0);
        T_EQ(env.watchdog_us, 0);
        T_TRUE(getenv("NOTIFY_SOCKET") == NULL);
    }
    long_path[107] = '\0';
    set_env(long_path, NULL, NULL);
    T_EQ(take().addr_len, sizeof(struct sockaddr_un));
}

/* ---- what is said ---- */

static void
test_without_a_manager_nothing_happens(void **state)
{
    (void)state;
    thr_check_loop();
    set_env(NULL, NULL, NULL);
    struct notify_env env = take();
    T_TRUE(notify_start(&n, loop, &env));
    notify_ready(&n);
    notify_status(&n, "x");
    notify_extend(&n, 1);
    notify_stopping(&n);
    T_EQ(n.fd, -1);
    T_FALSE(timer_armed(&n.watchdog) || timer_armed(&n.retry));
}

static void
test_each_state_is_told_once(void **state)
{
    (void)state;
    thr_check_loop();
    start(NULL);
    T_ZEQ(heard(), "");
    notify_ready(&n);
    T_ZEQ(heard(), "READY=1\n");
    notify_status(&n, "%d clients", 3);
    T_ZEQ(heard(), "STATUS=3 clients\n");
    notify_status(&n, "%d clients", 3);
    T_ZEQ(heard(), "");
    notify_extend(&n, 15000000);
    T_ZEQ(heard(), "EXTEND_TIMEOUT_USEC=15000000\n");
    notify_stopping(&n);
    T_ZEQ(heard(), "STOPPING=1\n");
    T_ZEQ(heard(), "");
}

/* A status cannot forge a line of the protocol, and a long one is cut. */
static void
test_a_status_is_one_line(void **state)
{
    (void)state;
    thr_check_loop();
    start(NULL);
    notify_status(&n, "a\nSTOPPING=1\n");
    T_ZEQ(heard(), "STATUS=a STOPPING=1 \n");
    char large[1000];
    memset(large, 'x', sizeof large);
    large[sizeof large - 1] = '\0';
    notify_status(&n, "%s", large);
    T_EQ(strlen(heard()), strlen("STATUS=\n") + NOTIFY_STATUS_MAX - 1);
}

/* The time is that of the call, on the clock that systemd compares with. */
static void
test_a_reload_says_when_it_began(void **state)
{
    (void)state;
    thr_check_loop();
    start(NULL);
    notify_ready(&n);
    T_ZEQ(heard(), "READY=1\n");
    int64_t before = mono_now().us, at = 0;
    notify_reloading(&n);
    int64_t after = mono_now().us;
    T_EQ(sscanf(heard(), "RELOADING=1\nMONOTONIC_USEC=%" SCNd64 "\n", &at), 1);
    T_TRUE(before <= at && at <= after);
    notify_ready(&n);
    T_ZEQ(heard(), "READY=1\n");
}

/* Each sender has a limit of its own; full is when a fresh one has no room. */
static void LOOP_ONLY
fill(void)
{
    struct notify_env env = n.env;
    int sent;
    do {
        int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        for (sent = 0; sendto(fd, "full", 4, 0, (struct sockaddr *)&env.addr, env.addr_len) == 4;
             sent++)
            ;
        T_EQ(errno, EAGAIN);
        close(fd);
    } while (sent > 0);
}

/* ---- what it keeps ---- */

/* The other side of what notify_keep() sends: the descriptor, or -1. */
static int
heard_with_fd(char *text, size_t cap)
{
    union {
        struct cmsghdr head;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control;
    struct iovec iov = {.iov_base = text, .iov_len = cap - 1};
    struct msghdr msg = {.msg_iov = &iov,
        .msg_iovlen = 1,
        .msg_control = &control,
        .msg_controllen = sizeof control.bytes};
    ssize_t got = recvmsg(manager, &msg, 0);
    text[got < 0 ? 0 : got] = '\0';
    struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
    int fd = -1;
    if (got >= 0 && c != NULL && c->cmsg_type == SCM_RIGHTS)
        memcpy(&fd, CMSG_DATA(c), sizeof fd);
    return fd;
}

/* The connection lives on though we close ours; no more than the socket takes, and only if asked.
 */
static void
test_a_connection_is_left_to_the_manager(void **state)
{
    (void)state;
    thr_check_loop();
    setenv("FDSTORE", "512", 1);
    start(NULL);
    T_EQ(notify_keep_max(&n), 512);
    T_TRUE(getenv("FDSTORE") == NULL);
    int pair[2];
    T_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    T_EQ(notify_keep(&n, pair[0], "client"), NOTIFY_KEPT);
    close(pair[0]);
    T_EQ(write(pair[1], "x", 1), 1);
    char text[256], byte = 0;
    int kept = heard_with_fd(text, sizeof text);
    T_ZEQ(text, "FDSTORE=1\nFDNAME=client\n");
    T_EQ(read(kept, &byte, 1), 1);
    close(kept);
    fill();
    T_EQ(notify_keep(&n, pair[1], "client"), NOTIFY_LATER);
    close(manager);
    manager = -1;
    T_EQ(notify_keep(&n, pair[1], "client"), NOTIFY_NEVER);
    close(pair[1]);
}

/* What is kept from now on must not be forgotten with the rest. */
static void
test_what_it_kept_is_forgotten_before_it_keeps_more(void **state)
{
    (void)state;
    thr_check_loop();
    setenv("FDSTORE", "512", 1);
    start(NULL);
    notify_forget(&n, "client");
    T_ZEQ(heard(), "FDSTOREREMOVE=1\nFDNAME=client\n");
    fill();
    notify_forget(&n, "client");
    while (heard()[0] == 'f') /* room again, but it does not know yet */
        ;
    T_EQ(notify_keep(&n, manager, "client"), NOTIFY_LATER);
    notify_status(&n, "Serving");
    T_ZEQ(heard(), "STATUS=Serving\nFDSTOREREMOVE=1\nFDNAME=client\n");
    T_EQ(notify_keep(&n, manager, "client"), NOTIFY_KEPT);
}

static void
test_nothing_is_kept_unless_the_manager_says_so(void **state)
{
    (void)state;
    thr_check_loop();
    setenv("FDSTORE", "a lot", 1);
    start(NULL);
    T_EQ(notify_keep_max(&n), 0);
    T_EQ(notify_keep(&n, manager, "client"), NOTIFY_NEVER);
    T_ZEQ(heard(), "");
}

/* ---- a manager that does not take it now ---- */

/* Kept as a state: the newest of each, in one message, when there is room again. */
static void
test_what_does_not_fit_is_sent_later(void **state)
{
    (void)state;
    thr_check_loop();
    start(NULL);
    fill();
    notify_status(&n, "old");
    notify_ready(&n);
    notify_status(&n, "new");
    notify_reloading(&n);
    notify_extend(&n, 7);
    notify_ready(&n);
    T_TRUE(timer_armed(&n.retry));
    while (strcmp(heard(), "full") == 0)
        ;
    struct timer t;
    timer_init(&t, loop, stop, NULL);
    T_TRUE(timer_reserve(&t));
    timer_arm_in(&t, 1000000);
    char want[256];
    snprintf(want, sizeof want,
        "RELOADING=1\nMONOTONIC_USEC=%" PRId64 "\nREADY=1\nEXTEND_TIMEOUT_USEC=7\nSTATUS=new\n",
        n.reload_at.us);
    loop_run(loop);
    T_ZEQ(heard(), want);
    T_ZEQ(heard(), "");
    T_FALSE(timer_armed(&n.retry));
    timer_fini(&t);
}

/* STOPPING overtakes what was not told of a reload. */
static void
test_stopping_drops_an_untold_reload(void **state)
{
    (void)state;
    thr_check_loop();
    start(NULL);
    fill();
    notify_reloading(&n);
    notify_stopping(&n);
    while (strcmp(heard(), "full") == 0)
        ;
    notify_status(&n, "bye");
    T_ZEQ(heard(), "STOPPING=1\nSTATUS=bye\n");
    T_ABORTS({
        thr_check_loop();
        notify_ready(&n);
    });
}

/* The manager's socket is gone and comes back, as when systemd is updated. One log line. */
static void
test_a_manager_that_comes_back_is_told(void **state)
{
    (void)state;
    thr_check_loop();
    start(NULL);
    close(manager);
    manager = -1;
    struct t_capture c = t_capture();
    notify_ready(&n);
    notify_status(&n, "up");
    char *log = t_captured(c);
    T_HAS(log, "notify_failed why=\"Connection refused\"");
    T_TRUE(strstr(strstr(log, "notify_failed") + 1, "notify_failed") == NULL);
    free(log);
    unlink(path);
    manager = open_manager(path);
    struct timer t;
    timer_init(&t, loop, stop, NULL);
    T_TRUE(timer_reserve(&t));
    timer_arm_in(&t, 300000);
    loop_run(loop);
    T_ZEQ(heard(), "READY=1\nSTATUS=up\n");
    timer_fini(&t);
}

/* ---- the watchdog ---- */

/* Fed by the loop at half the period; not fed when the loop does not run. */
static void
test_the_loop_feeds_the_watchdog(void **state)
{
    (void)state;
    thr_check_loop();
    start("100000");
    T_ZEQ(heard(), "WATCHDOG=1\n"); /* at once: the period may have begun long ago */
    T_ZEQ(heard(), "");
    struct timer t;
    timer_init(&t, loop, stop, NULL);
    T_TRUE(timer_reserve(&t));
    timer_arm_in(&t, 520000);
    loop_run(loop);
    int fed = 0;
    while (strcmp(heard(), "WATCHDOG=1\n") == 0)
        fed++;
    T_TRUE(fed >= 3 && fed <= 10); /* 10 on a machine with time to spare */
    timer_fini(&t);
}

/* Boot: every allocation may fail, and what was made is given back. */
static void
test_no_memory(void **state)
{
    (void)state;
    thr_check_loop();
    manager = open_manager(path);
    set_env(path, "1000000", NULL);
    struct notify_env env = take();
    bool ok = false;
    for (uint64_t i = 1; i < 20 && !ok; i++) {
        mem_fail_at(i);
        ok = notify_start(&n, loop, &env);
        mem_fail_at(0);
        if (!ok)
            T_EQ(errno, ENOMEM);
        notify_fini(&n);
        notify_fini(&n); /* no-op */
    }
    T_TRUE(ok);
}

int
main(void)
{
#define WITH_LOOP(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_variables_are_taken_out),
        TEST(test_an_abstract_name_is_as_long_as_it_says),
        TEST(test_the_watchdog_of_another_process_is_left_alone),
        TEST(test_bad_values_are_refused_with_their_text),
        WITH_LOOP(test_without_a_manager_nothing_happens),
        WITH_LOOP(test_each_state_is_told_once),
        WITH_LOOP(test_a_status_is_one_line),
        WITH_LOOP(test_a_reload_says_when_it_began),
        WITH_LOOP(test_a_connection_is_left_to_the_manager),
        WITH_LOOP(test_what_it_kept_is_forgotten_before_it_keeps_more),
        WITH_LOOP(test_nothing_is_kept_unless_the_manager_says_so),
        WITH_LOOP(test_what_does_not_fit_is_sent_later),
        WITH_LOOP(test_stopping_drops_an_untold_reload),
        WITH_LOOP(test_a_manager_that_comes_back_is_told),
        WITH_LOOP(test_the_loop_feeds_the_watchdog),
        WITH_LOOP(test_no_memory),
    };
    return TEST_MAIN(tests);
}
