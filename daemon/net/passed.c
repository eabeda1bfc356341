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

/* "a:b:c", one name per socket; those that have none are called "unknown", as systemd does. */
static void
give_names(struct passed *p)
{
    char *next = p->names;
    for (size_t i = 0; i < p->count; i++) {
        char *name = strsep(&next, ":");
        p->socket[i].name = name == NULL || *name == '\0' ? "unknown" : name;
    }
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
    if (!str_to_u64(str_of(count_text), PASSED_MAX, &count)) {
        snprintf(why, why_len, "LISTEN_FDS=%s: want a number from 0 to %d", count_text, PASSED_MAX);
        return false;
    }
    p->names = strdup(names == NULL ? "" : names);
    if (p->names == NULL) {
        snprintf(why, why_len, "out of memory");
        return false;
    }
    while (p->count < count) {
        struct passed_socket *s = &p->socket[p->count];
        *s = (struct passed_socket){.fd = FIRST_FD + (int)p->count, .name = ""};
        const char *wrong = look_at(s);
        if (wrong != NULL) {
            snprintf(why, why_len, "passed socket %zu of %s (LISTEN_FDS, descriptor %d): %s",
                p->count + 1, count_text, s->fd, wrong);
            return false;
        }
        p->count++;
    }
    give_names(p);
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

void
passed_claim(struct passed_socket *s, struct listener *ls, bool clients_speak)
{
    CHECK(s->fd >= 0);
    listener_adopt(ls, s->fd, &s->addr, clients_speak);
    s->fd = -1;
}
