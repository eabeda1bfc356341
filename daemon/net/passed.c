#include "net/passed.h"

#include <fcntl.h>
#include <unistd.h>

#include "base/no_block.h"

#define FIRST_FD 3 /* SD_LISTEN_FDS_START of the protocol */

static int
socket_option(int fd, int option)
{
    int value = -1;
    socklen_t len = sizeof value;
    return getsockopt(fd, SOL_SOCKET, option, &value, &len) == 0 ? value : -1;
}

/* NULL, or what is wrong with it. */
static const char *
look_at(struct passed_socket *s)
{
    int flags = fcntl(s->fd, F_GETFL);
    if (flags < 0)
        return "it is not open";
    int domain = socket_option(s->fd, SO_DOMAIN);
    if (domain < 0)
        return "it is not a socket";
    if (domain != AF_INET && domain != AF_INET6 && domain != AF_UNIX)
        return "it is neither a TCP nor a unix socket";
    if (socket_option(s->fd, SO_TYPE) != SOCK_STREAM)
        return "it is not a stream socket (ListenStream=)";
    if (socket_option(s->fd, SO_ACCEPTCONN) != 1)
        return "it does not listen (Accept=no is what chmux needs)";
    s->addr.len = sizeof s->addr.un;
    if (getsockname(s->fd, &s->addr.sa, &s->addr.len) != 0 ||
        fcntl(s->fd, F_SETFD, FD_CLOEXEC) != 0 || fcntl(s->fd, F_SETFL, flags | O_NONBLOCK) != 0)
        return strerror(errno);
    return NULL;
}

/* It may have left since, or be nothing of the kind: then it is closed, and that is all. */
static void
add_client(struct passed *p, int fd)
{
    int flags = fcntl(fd, F_GETFL);
    if (socket_option(fd, SO_TYPE) == SOCK_STREAM && fcntl(fd, F_SETFD, FD_CLOEXEC) == 0 &&
        fcntl(fd, F_SETFL, flags | O_NONBLOCK) == 0)
        p->client[p->client_count++] = fd;
    else
        close(fd);
}

/* false: why says what is wrong with it. */
static bool
take_one(struct passed *p, int fd, const char *name, char *why, size_t why_len)
{
    bool is_client = strcmp(name, PASSED_CLIENT) == 0 && socket_option(fd, SO_ACCEPTCONN) == 0;
    if (is_client && p->client_count < PASSED_CLIENTS_MAX) {
        add_client(p, fd);
        return true;
    }
    const char *wrong = "there are too many";
    struct passed_socket *s = &p->socket[p->count];
    if (!is_client && p->count < PASSED_MAX) {
        *s = (struct passed_socket){.fd = fd, .name = name};
        wrong = look_at(s);
    }
    if (wrong == NULL) {
        p->count++;
        return true;
    }
    snprintf(why, why_len, "passed socket %d (descriptor %d, named \"%s\"): %s", fd - FIRST_FD + 1,
        fd, name, wrong);
    return false;
}

static bool
take(struct passed *p, const char *pid_text, const char *count_text, const char *names, char *why,
    size_t why_len)
{
    uint64_t pid = 0, count = 0;
    if (pid_text == NULL || count_text == NULL)
        return true;
    if (!str_to_u64(str_of(pid_text), INT32_MAX, &pid) || pid != (uint64_t)getpid())
        return true; /* meant for another process: its descriptors are not to be touched */
    if (!str_to_u64(str_of(count_text), PASSED_MAX + PASSED_CLIENTS_MAX, &count)) {
        snprintf(why, why_len, "LISTEN_FDS=%s: want a number from 0 to %d", count_text,
            PASSED_MAX + PASSED_CLIENTS_MAX);
        return false;
    }
    p->names = strdup(names == NULL ? "" : names);
    if (p->names == NULL) {
        snprintf(why, why_len, "out of memory");
        return false;
    }
    char *next = p->names; /* "a:b:c"; those without are called "unknown", as systemd does */
    for (int i = 0; i < (int)count; i++) {
        const char *name = strsep(&next, ":");
        if (name == NULL || *name == '\0')
            name = "unknown";
        if (!take_one(p, FIRST_FD + i, name, why, why_len))
            return false;
    }
    return true;
}

bool
passed_take(struct passed *p, char *why, size_t why_len)
{
    *p = (struct passed){0};
    bool ok =
        take(p, getenv("LISTEN_PID"), getenv("LISTEN_FDS"), getenv("LISTEN_FDNAMES"), why, why_len);
    unsetenv("LISTEN_PID");
    unsetenv("LISTEN_FDS");
    unsetenv("LISTEN_FDNAMES");
    return ok;
}

void
passed_fini(struct passed *p)
{
    for (size_t i = 0; i < p->count; i++)
        if (p->socket[i].fd >= 0)
            close(p->socket[i].fd);
    while (p->client_count > 0)
        close(p->client[--p->client_count]);
    free(p->names);
    *p = (struct passed){0};
}

struct passed_socket *
passed_find(struct passed *p, const char *name)
{
    for (size_t i = 0; i < p->count; i++)
        if (p->socket[i].fd >= 0 && strcmp(p->socket[i].name, name) == 0)
            return &p->socket[i];
    return NULL;
}

int
passed_client(struct passed *p, struct addr *peer)
{
    while (p->client_count > 0) {
        int fd = p->client[--p->client_count];
        peer->len = sizeof peer->un;
        if (getpeername(fd, &peer->sa, &peer->len) == 0)
            return fd;
        close(fd); /* reset, most likely */
    }
    return -1;
}

void
passed_claim(struct passed_socket *s, struct listener *ls, bool clients_speak)
{
    CHECK(s->fd >= 0);
    listener_adopt(ls, s->fd, &s->addr, clients_speak);
    s->fd = -1;
}
