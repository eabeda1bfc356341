/*
 * chserver: runs the ClickHouse server that is inside libchdb.so, on loopback, for tests and the
 * quick start. Plain HTTP and native TCP; no installation, no system service.
 *
 *   chserver --lib libchdb.so --config config.xml --dir DIR [--http PORT] [--tcp PORT]
 *            [--with-parent | --daemon]
 *
 * Two processes: a supervisor and the server. The supervisor picks free ports for those not given
 * (or 0), starts the server, waits until it answers /ping, prints one line
 *   ready http=PORT tcp=PORT pid=SUPERVISOR
 * and then starts the server again on the same ports whenever it dies: the embedded build aborts on
 * input that a stock server would only log. SIGTERM or SIGINT ends both.
 *
 *   --with-parent  the supervisor dies with the process that started it (tests)
 *   --daemon       the ready line is printed and the command returns; DIR/pid, DIR/log (quick
 * start)
 *
 * The config file takes the ports and the folder from CHSERVER_HTTP, CHSERVER_TCP, CHSERVER_DIR.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    READY_DEADLINE_S = 90,
    POLL_MS = 20,
    STOP_MS = 3000,
    PORT_TRIES = 5,
    RESTARTS_MAX = 1000, /* a server that cannot stay up must not spin for ever */
};

struct options {
    const char *lib, *config, *dir;
    unsigned http, tcp; /* 0: pick one */
    bool with_parent, daemon;
};

static void
die(const char *what)
{
    fprintf(stderr, "chserver: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void
usage(void)
{
    fputs("usage: chserver --lib FILE --config FILE --dir DIR [--http PORT] [--tcp PORT] "
          "[--with-parent | --daemon]\n",
        stderr);
    exit(2);
}

static unsigned
parse_port(const char *text)
{
    char *end = NULL;
    errno = 0;
    unsigned long n = strtoul(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || n > 65535)
        usage();
    return (unsigned)n;
}

static struct options
parse_options(int argc, char **argv)
{
    static const struct option table[] = {
        {"lib", required_argument, NULL, 'l'},
        {"config", required_argument, NULL, 'c'},
        {"dir", required_argument, NULL, 'd'},
        {"http", required_argument, NULL, 'h'},
        {"tcp", required_argument, NULL, 't'},
        {"with-parent", no_argument, NULL, 'p'},
        {"daemon", no_argument, NULL, 'D'},
        {NULL, 0, NULL, 0},
    };
    struct options o = {0};
    for (int c; (c = getopt_long(argc, argv, "", table, NULL)) != -1;) {
        switch (c) {
        case 'l': o.lib = optarg; break;
        case 'c': o.config = optarg; break;
        case 'd': o.dir = optarg; break;
        case 'h': o.http = parse_port(optarg); break;
        case 't': o.tcp = parse_port(optarg); break;
        case 'p': o.with_parent = true; break;
        case 'D': o.daemon = true; break;
        default: usage();
        }
    }
    if (!o.lib || !o.config || !o.dir || optind != argc || (o.with_parent && o.daemon))
        usage();
    return o;
}

static struct sockaddr_in
loopback(unsigned port)
{
    return (struct sockaddr_in){
        .sin_family = AF_INET,
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
        .sin_port = htons((uint16_t)port),
    };
}

/* A socket bound to port (0: the kernel's choice); the caller closes it just before the server
 * binds the same port, so two ports picked together never collide. */
static int
bind_port(unsigned port, unsigned *got)
{
    struct sockaddr_in a = loopback(port);
    socklen_t len = sizeof a;
    int one = 1;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        die("socket");
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&a, sizeof a) != 0) {
        fprintf(stderr, "chserver: port %u: %s\n", port, strerror(errno));
        exit(1);
    }
    if (getsockname(fd, (struct sockaddr *)&a, &len) != 0)
        die("getsockname");
    *got = ntohs(a.sin_port);
    return fd;
}

static void
set_env_port(const char *name, unsigned port)
{
    char text[16];
    snprintf(text, sizeof text, "%u", port);
    setenv(name, text, 1);
}

/* The server process. Listens by two SYSTEM statements, then runs a query that never ends. */
static _Noreturn void
run_server(const struct options *o)
{
    void *lib = dlopen(o->lib, RTLD_NOW | RTLD_GLOBAL);
    if (!lib) {
        fprintf(stderr, "chserver: %s\n", dlerror());
        _exit(1);
    }
    void *(*query)(int, char **) = (void *(*)(int, char **))dlsym(lib, "chdb_query_cmdline");
    const char *(*error)(void *) = (const char *(*)(void *))dlsym(lib, "chdb_result_error");
    if (!query || !error) {
        fprintf(stderr, "chserver: %s is not a libchdb of the pinned version\n", o->lib);
        _exit(1);
    }
    char config[4096], path[4096];
    snprintf(config, sizeof config, "--config-file=%s", o->config);
    snprintf(path, sizeof path, "--path=%s", o->dir); /* the config's own path keeps no tables */
    char name[] = "clickhouse";
    char forever[] = "--query=SYSTEM START LISTEN HTTP; SYSTEM START LISTEN TCP; "
                     "SELECT count() FROM system.numbers WHERE NOT ignore(sleepEachRow(3)) "
                     "SETTINGS max_block_size=1, function_sleep_max_microseconds_per_block=0, "
                     "max_execution_time=0";
    char *args[] = {name, config, path, forever, NULL};
    void *result = query(4, args);
    const char *e = result ? error(result) : NULL;
    fprintf(stderr, "chserver: the server ended: %s\n", e ? e : "no error given");
    _exit(1);
}

static pid_t
start_server(const struct options *o, unsigned http, unsigned tcp)
{
    set_env_port("CHSERVER_HTTP", http);
    set_env_port("CHSERVER_TCP", tcp);
    setenv("CHSERVER_DIR", o->dir, 1);
    pid_t supervisor = getpid();
    pid_t pid = fork();
    if (pid < 0)
        die("fork");
    if (pid > 0)
        return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != supervisor) /* it died before the prctl */
        _exit(1);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    run_server(o);
}

static bool
answers_ping(unsigned port)
{
    static const char ask[] = "GET /ping HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    char reply[1024] = {0};
    size_t have = 0;
    struct sockaddr_in a = loopback(port);
    struct timeval limit = {.tv_sec = 2};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return false;
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    bool ok = connect(fd, (struct sockaddr *)&a, sizeof a) == 0 &&
              send(fd, ask, sizeof ask - 1, MSG_NOSIGNAL) == (ssize_t)(sizeof ask - 1);
    for (ssize_t n; ok && have < sizeof reply - 1; have += (size_t)n) {
        n = recv(fd, reply + have, sizeof reply - 1 - have, 0);
        if (n <= 0)
            break;
    }
    close(fd);
    return strstr(reply, "Ok.") != NULL;
}

static double
now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

enum event { EV_NONE, EV_STOP, EV_CHILD };

/* Waits for a signal: ms < 0 without end. */
static enum event
wait_event(int ms)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGCHLD);
    struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};
    int sig = ms < 0 ? sigwaitinfo(&set, NULL) : sigtimedwait(&set, NULL, &t);
    if (sig == SIGTERM || sig == SIGINT)
        return EV_STOP;
    return sig == SIGCHLD ? EV_CHILD : EV_NONE;
}

static void
stop_server(pid_t pid)
{
    kill(pid, SIGTERM);
    for (double until = now_s() + STOP_MS / 1000.0; now_s() < until;) {
        if (waitpid(pid, NULL, WNOHANG) == pid)
            return;
        wait_event(POLL_MS);
    }
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

/* True: ready. False: it died first (a port was taken meanwhile, or it cannot run at all). */
static bool
wait_ready(pid_t pid, unsigned http)
{
    for (double until = now_s() + READY_DEADLINE_S; now_s() < until;) {
        if (answers_ping(http))
            return true;
        if (waitpid(pid, NULL, WNOHANG) == pid)
            return false;
        if (wait_event(POLL_MS) == EV_STOP) {
            stop_server(pid);
            exit(0);
        }
    }
    fprintf(stderr, "chserver: not ready after %d s\n", READY_DEADLINE_S);
    stop_server(pid);
    exit(1);
}

static void
write_pid_file(const struct options *o)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/pid", o->dir);
    FILE *f = fopen(path, "w");
    if (!f)
        die(path);
    fprintf(f, "%d\n", (int)getpid());
    fclose(f);
}

/* Never returns. ready_fd gets the ready line. */
static _Noreturn void
supervise(struct options *o, int ready_fd)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGCHLD);
    sigprocmask(SIG_BLOCK, &set, NULL);
    write_pid_file(o);
    unsigned http = 0, tcp = 0;
    pid_t pid = -1;
    bool ready = false;
    for (int i = 0; i < PORT_TRIES && !ready; i++) {
        int a = bind_port(o->http, &http);
        int b = bind_port(o->tcp, &tcp);
        close(a);
        close(b);
        pid = start_server(o, http, tcp);
        ready = wait_ready(pid, http);
    }
    if (!ready) {
        fputs("chserver: the server does not start\n", stderr);
        exit(1);
    }
    dprintf(ready_fd, "ready http=%u tcp=%u pid=%d\n", http, tcp, (int)getpid());
    if (ready_fd != STDOUT_FILENO)
        close(ready_fd);
    for (int restarts = 0; restarts < RESTARTS_MAX;) {
        enum event ev = wait_event(-1);
        if (ev == EV_STOP) {
            stop_server(pid);
            exit(0);
        }
        if (waitpid(pid, NULL, WNOHANG) != pid)
            continue;
        fprintf(stderr, "chserver: the server died; restart %d\n", ++restarts);
        pid = start_server(o, http, tcp);
    }
    stop_server(pid);
    exit(1);
}

/* Runs the supervisor in the background; returns when it is ready, with its exit status. */
static int
daemonize(struct options *o)
{
    int fds[2];
    if (pipe2(fds, O_CLOEXEC) != 0)
        die("pipe");
    pid_t pid = fork();
    if (pid < 0)
        die("fork");
    if (pid == 0) {
        char log[4096];
        close(fds[0]);
        setsid();
        snprintf(log, sizeof log, "%s/log", o->dir);
        int out = open(log, O_WRONLY | O_CREAT | O_APPEND, 0644);
        int in = open("/dev/null", O_RDONLY);
        if (out < 0 || in < 0 || dup2(in, 0) < 0 || dup2(out, 1) < 0 || dup2(out, 2) < 0)
            die(log);
        supervise(o, fds[1]);
    }
    close(fds[1]);
    FILE *f = fdopen(fds[0], "r");
    char line[256];
    if (f && fgets(line, sizeof line, f)) {
        fputs(line, stdout);
        return 0;
    }
    fprintf(stderr, "chserver: the server did not start; see %s/log\n", o->dir);
    return 1;
}

int
main(int argc, char **argv)
{
    struct options o = parse_options(argc, argv);
    if (mkdir(o.dir, 0755) != 0 && errno != EEXIST)
        die(o.dir);
    /* The config names it as its path; a relative one would depend on the working folder. */
    char *dir = realpath(o.dir, NULL);
    if (!dir)
        die(o.dir);
    o.dir = dir;
    signal(SIGPIPE, SIG_IGN);
    if (o.daemon)
        return daemonize(&o);
    if (o.with_parent)
        prctl(PR_SET_PDEATHSIG, SIGTERM);
    supervise(&o, STDOUT_FILENO);
}
