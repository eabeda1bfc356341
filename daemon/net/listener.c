#include "net/listener.h"

#include <fcntl.h>
#include <grp.h>
#include <netinet/tcp.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "base/metric.h"

#include "base/no_block.h"

#define BURST_MAX  64
#define BURST_HOLD 16 /* wakes between tries to take more at once */
#define PAUSE_US   100000

static int spare_fd = -1;

bool
listener_spare_open(void)
{
    if (spare_fd < 0)
        spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    return spare_fd >= 0;
}

static bool
is_unix_path(const struct addr *a)
{
    return a->sa.sa_family == AF_UNIX && a->un.sun_path[0] != '\0';
}

/* A socket file that nobody answers on is left from a process that died: it may go. */
static bool
clear_stale_socket(const struct addr *a, char *why, size_t why_len)
{
    struct stat st;
    if (lstat(a->un.sun_path, &st) != 0)
        return true; /* nothing there; bind() will tell any other trouble */
    if (!S_ISSOCK(st.st_mode)) {
        snprintf(why, why_len, "unix:%s: the file exists and is not a socket", a->un.sun_path);
        return false;
    }
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        snprintf(why, why_len, "unix:%s: %s", a->un.sun_path, strerror(errno));
        return false;
    }
    int r = connect(fd, &a->sa, a->len);
    int e = errno;
    close(fd);
    if (r == 0 || e == EAGAIN) {
        snprintf(why, why_len, "unix:%s: address already in use: another process listens there",
            a->un.sun_path);
        return false;
    }
    if (e != ECONNREFUSED) {
        snprintf(why, why_len, "unix:%s: cannot tell whether it is in use: %s", a->un.sun_path,
            strerror(e));
        return false;
    }
    if (unlink(a->un.sun_path) != 0 && errno != ENOENT) {
        snprintf(why, why_len, "unix:%s: cannot remove the stale socket: %s", a->un.sun_path,
            strerror(errno));
        return false;
    }
    return true;
}

/* The socket file itself, for fstat() and set_owner_and_mode(): whoever may write to its folder may
 * put anything in its place, a link too, which is never followed. -1: why. */
static int
open_socket_file(const char *path, struct stat *st, char *why, size_t why_len)
{
    int fd = open(path, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 || fstat(fd, st) != 0) {
        snprintf(why, why_len, "unix:%s: %s", path, strerror(errno));
    } else if (!S_ISSOCK(st->st_mode)) {
        snprintf(why, why_len, "unix:%s: something else was put in the place of the socket", path);
    } else {
        return fd;
    }
    if (fd >= 0)
        close(fd);
    return -1;
}

/* file: of open_socket_file(). as_created: without a group of its own it gets ours back. */
static bool
set_owner_and_mode(
    int file, const struct listener_options *o, bool as_created, char *why, size_t why_len)
{
    const char *path = o->addr.un.sun_path;
    char link[32];
    gid_t gid = getegid();
    bool named = o->group != NULL && o->group[0] != '\0';
    if (named) {
        const struct group *g = getgrnam(o->group);
        if (g == NULL) {
            snprintf(why, why_len, "unix:%s: no such group: %s", path, o->group);
            return false;
        }
        gid = g->gr_gid;
    }
    if ((named || as_created) && fchownat(file, "", (uid_t)-1, gid, AT_EMPTY_PATH) != 0) {
        snprintf(why, why_len, "unix:%s: cannot give it to group %s: %s", path,
            named ? o->group : "of chmuxd", strerror(errno));
        return false;
    }
    /* fchmod() takes no such descriptor, and fchmodat() follows links. */
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    if (chmod(link, o->mode) != 0) {
        snprintf(why, why_len, "unix:%s: chmod %o: %s", path, o->mode, strerror(errno));
        return false;
    }
    return true;
}

/* Of a socket that was just bound; keeps how its file is known again. */
static bool
style_file(struct listener *ls, const struct listener_options *o, char *why, size_t why_len)
{
    struct stat st;
    int file = open_socket_file(o->addr.un.sun_path, &st, why, why_len);
    if (file < 0)
        return false;
    ls->dev = st.st_dev;
    ls->ino = st.st_ino;
    bool ok = set_owner_and_mode(file, o, false, why, why_len);
    close(file);
    return ok;
}

/* What accepted TCP sockets inherit from their listener costs no call per client. */
static void
set_client_options(int fd)
{
    int on = 1, idle = 15, interval = 5, count = 3;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof interval);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof count);
}

static void
set_tcp_options(int fd, int family)
{
    int on = 1;
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    set_client_options(fd);
    if (family == AF_INET6)
        (void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
}

/* One wake-up for connection and request together, no read that comes too early, and one packet
 * less. After listen(), which forgets the second. */
static void
set_clients_speak(int fd)
{
    int silent_s = LISTENER_SILENT_S, off = 0;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, &silent_s, sizeof silent_s);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_QUICKACK, &off, sizeof off);
}

bool
listener_open(struct listener *ls, const struct listener_options *o, char *why, size_t why_len)
{
    *ls = (struct listener){.fd = -1, .addr = o->addr, .burst = 1};
    addr_format(&o->addr, ls->text);
    bool path = is_unix_path(&o->addr);
    if (path && !clear_stale_socket(&o->addr, why, why_len))
        return false;
    int family = o->addr.sa.sa_family;
    int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        ls->sys_errno = errno;
        snprintf(why, why_len, "%s: %s", ls->text, strerror(ls->sys_errno));
        return false;
    }
    if (family != AF_UNIX)
        set_tcp_options(fd, family);
    /* The file must never be open to more people than asked for, not even for an instant. */
    mode_t old_mask = path ? umask(0177) : 0;
    int r = bind(fd, &o->addr.sa, o->addr.len);
    ls->sys_errno = r == 0 ? 0 : errno;
    if (path)
        umask(old_mask);
    if (r != 0) {
        snprintf(why, why_len, "%s: %s", ls->text, strerror(ls->sys_errno));
        goto close_fd;
    }
    if (path && !style_file(ls, o, why, why_len))
        goto unlink_path;
    if (listen(fd, o->backlog) != 0) {
        ls->sys_errno = errno;
        snprintf(why, why_len, "%s: %s", ls->text, strerror(ls->sys_errno));
        goto unlink_path;
    }
    if (family != AF_UNIX) {
        socklen_t len = sizeof(struct sockaddr_in6);
        if (getsockname(fd, &ls->addr.sa, &len) == 0)
            addr_format(&ls->addr, ls->text);
        if (o->clients_speak)
            set_clients_speak(fd);
    }
    ls->fd = fd;
    return true;
unlink_path:
    if (path)
        unlink(o->addr.un.sun_path);
close_fd:
    close(fd);
    return false;
}

bool
listener_restyle(struct listener *ls, const struct listener_options *o, char *why, size_t why_len)
{
    struct stat st;
    CHECK(!ls->adopted);
    if (listen(ls->fd, o->backlog) != 0) {
        snprintf(why, why_len, "%s: %s", ls->text, strerror(errno));
        return false;
    }
    if (!is_unix_path(&ls->addr)) {
        if (o->clients_speak && ls->addr.sa.sa_family != AF_UNIX)
            set_clients_speak(ls->fd);
        return true;
    }
    int file = open_socket_file(ls->addr.un.sun_path, &st, why, why_len);
    if (file < 0)
        return false;
    bool ours = st.st_dev == ls->dev && st.st_ino == ls->ino;
    if (!ours)
        snprintf(why, why_len, "%s: another socket was put in its place", ls->text);
    bool ok = ours && set_owner_and_mode(file, o, true, why, why_len);
    close(file);
    return ok;
}

void
listener_adopt(struct listener *ls, int fd, const struct addr *addr, bool clients_speak)
{
    *ls = (struct listener){.fd = fd, .addr = *addr, .burst = 1, .adopted = true};
    addr_format(addr, ls->text);
    if (addr->sa.sa_family == AF_UNIX)
        return;
    set_client_options(fd);
    if (clients_speak)
        set_clients_speak(fd);
}

void
listener_turn_away(int fd, struct str reply, enum metric_id refused)
{
    (void)send(fd, reply.p, reply.len, MSG_NOSIGNAL);
    /* What has arrived of the request must be read, or closing would reset the answer away. */
    char sink[4096];
    (void)shutdown(fd, SHUT_WR);
    (void)recv(fd, sink, sizeof sink, 0);
    metric_inc(refused);
    close(fd);
}

enum accepted {
    ACCEPTED, /* or one failed alone: go on with the next */
    QUEUE_EMPTY,
    NO_ROOM, /* no descriptor, not even the spare one, or no memory: not now */
};

/* What accept4() has said. */
static enum accepted
judge(int e)
{
    if (e == EAGAIN)
        return QUEUE_EMPTY;
    if (e == EMFILE || e == ENFILE || e == ENOMEM || e == ENOBUFS)
        return NO_ROOM;
    return ACCEPTED; /* ECONNABORTED and network errors belong to one client */
}

/* No descriptor left for a client: spend the spare one on telling it so. Perhaps there is no client
 * at all: Linux looks for a descriptor first, and at the queue then. */
static enum accepted LOOP_ONLY
refuse_one(struct listener *ls)
{
    close(spare_fd);
    spare_fd = -1;
    int fd = accept4(ls->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    enum accepted did = fd >= 0 ? ACCEPTED : judge(errno);
    if (fd >= 0)
        listener_turn_away(fd, ls->busy_reply, M_REFUSED_MAX_CLIENTS);
    if (!listener_spare_open())
        LOG_W("spare_descriptor_lost");
    return did;
}

static enum accepted LOOP_ONLY
accept_one(struct listener *ls)
{
    struct addr peer = {.len = sizeof(struct sockaddr_in6)};
    bool tcp = ls->addr.sa.sa_family != AF_UNIX;
    int fd = accept4(
        ls->fd, tcp ? &peer.sa : NULL, tcp ? &peer.len : NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (LIKELY(fd >= 0)) {
        if (!tcp) {
            peer.len = sizeof(sa_family_t);
            peer.sa.sa_family = AF_UNIX;
        }
        ls->fn(ls->arg, fd, &peer);
        return ACCEPTED;
    }
    int e = errno;
    enum accepted did = judge(e);
    if (did != NO_ROOM)
        return did;
    metric_inc(M_ACCEPT_ERRORS);
    return (e == EMFILE || e == ENFILE) && spare_fd >= 0 ? refuse_one(ls) : NO_ROOM;
}

/* Whoever waits keeps the socket readable: looking again at once would do nothing else. */
static void LOOP_ONLY
pause_listener(struct listener *ls)
{
    loop_io_del(&ls->io);
    timer_arm_in(&ls->pause, PAUSE_US);
}

static void
on_acceptable(void *arg, unsigned ready)
{
    thr_check_loop();
    (void)ready;
    struct listener *ls = arg;
    loop_label(ls->loop, "accept");
    (void)!listener_spare_open(); /* another thread may have been quicker to take it */
    /* As many as came together lately: in the quiet case one call per client and none that only
     * says "no more". What is left over is still there at the next turn. */
    for (int i = 0; i < ls->burst; i++) {
        enum accepted did = accept_one(ls);
        if (did != ACCEPTED) {
            ls->burst = i > 1 ? i : 1;
            ls->hold = BURST_HOLD;
            if (did == NO_ROOM)
                pause_listener(ls);
            return;
        }
        if (ls->fd < 0)
            return;
    }
    if (ls->hold > 0)
        ls->hold--;
    else
        ls->burst = ls->burst * 2 > BURST_MAX ? BURST_MAX : ls->burst * 2;
}

static void
on_pause_over(void *arg)
{
    thr_check_loop();
    struct listener *ls = arg;
    if (!loop_io_add_level(ls->loop, &ls->io, ls->fd, on_acceptable, ls))
        timer_arm_in(&ls->pause, PAUSE_US);
}

bool
listener_start(
    struct listener *ls, struct loop *l, struct str busy_reply, listener_fn fn, void *arg)
{
    ls->loop = l;
    ls->busy_reply = busy_reply;
    ls->fn = fn;
    ls->arg = arg;
    timer_init(&ls->pause, l, on_pause_over, ls);
    return timer_reserve(&ls->pause) && loop_io_add_level(l, &ls->io, ls->fd, on_acceptable, ls);
}

void
listener_accept_rest(struct listener *ls)
{
    for (int i = 0; !ls->adopted && i < 65536 && ls->fd >= 0 && accept_one(ls) == ACCEPTED; i++)
        ;
}

void
listener_close(struct listener *ls)
{
    if (ls->fd < 0)
        return;
    loop_io_del(&ls->io);
    timer_fini(&ls->pause);
    close(ls->fd);
    ls->fd = -1;
    struct stat st;
    if (!ls->adopted && is_unix_path(&ls->addr) && lstat(ls->addr.un.sun_path, &st) == 0 &&
        st.st_dev == ls->dev && st.st_ino == ls->ino)
        unlink(ls->addr.un.sun_path);
}
