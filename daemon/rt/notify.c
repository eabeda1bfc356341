#include "rt/notify.h"

#include <unistd.h>

#include "base/log.h"
#include "base/str.h"

#include "base/no_block.h"

#define RETRY_US    100000
#define MESSAGE_MAX 512 /* all lines at their longest, with room to spare */

/* The value stays where it is in memory until the next setenv(): nobody calls that. */
static struct str
env_take(const char *name)
{
    const char *value = getenv(name);
    unsetenv(name);
    return value == NULL ? STR_NULL : str_of(value);
}

static bool
parse_address(struct str text, struct notify_env *out)
{
    struct sockaddr_un *un = &out->addr;
    if (text.len < 2 || (text.p[0] != '/' && text.p[0] != '@') || text.len >= sizeof un->sun_path)
        return false;
    un->sun_family = AF_UNIX;
    memcpy(un->sun_path, text.p, text.len);
    out->addr_len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + text.len);
    if (text.p[0] == '@')
        un->sun_path[0] = '\0'; /* abstract: the name is as long as the address says */
    else
        out->addr_len++;
    return true;
}

bool
notify_env_take(struct notify_env *out, char *why, size_t why_len)
{
    *out = (struct notify_env){0};
    struct str address = env_take("NOTIFY_SOCKET");
    struct str period = env_take("WATCHDOG_USEC");
    struct str pid_text = env_take("WATCHDOG_PID");
    struct str store_text = env_take("FDSTORE");
    if (address.len == 0)
        return true;
    if (!parse_address(address, out)) {
        snprintf(why, why_len,
            "NOTIFY_SOCKET=" STR_FMT ": want a /path or @name of at most %zu bytes",
            STR_ARG(address), sizeof out->addr.sun_path - 1);
        *out = (struct notify_env){0};
        return false;
    }
    uint64_t us = 0, pid = 0, store = 0;
    /* No reason not to start: without it connections are closed, that is all. */
    if (str_to_u64(store_text, UINT_MAX, &store))
        out->store_max = (unsigned)store;
    if (period.p == NULL)
        return true;
    if (!str_to_u64(period, INT64_MAX, &us) || us == 0) {
        snprintf(why, why_len, "WATCHDOG_USEC=" STR_FMT ": want a number of microseconds",
            STR_ARG(period));
        *out = (struct notify_env){0};
        return false;
    }
    /* Meant for another process, such as a wrapper that started us. */
    bool ours =
        pid_text.p == NULL || (str_to_u64(pid_text, INT32_MAX, &pid) && pid == (uint64_t)getpid());
    out->watchdog_us = ours ? (int64_t)us : 0;
    return true;
}

static size_t LOOP_ONLY
compose(const struct notify *n, char out[MESSAGE_MAX])
{
    size_t len = 0;
    out[0] = '\0';
#define PUT(...)                                                                                   \
    do {                                                                                           \
        int put = snprintf(out + len, MESSAGE_MAX - len, __VA_ARGS__);                             \
        CHECK(put > 0 && (size_t)put < MESSAGE_MAX - len);                                         \
        len += (size_t)put;                                                                        \
    } while (0)
    if (n->reload_untold) /* together with READY=1: began and ended already */
        PUT("RELOADING=1\nMONOTONIC_USEC=%" PRId64 "\n", n->reload_at.us);
    if (n->state_untold && n->state == NOTIFY_READY)
        PUT("READY=1\n");
    if (n->state_untold && n->state == NOTIFY_STOPPING)
        PUT("STOPPING=1\n");
    if (n->extend_us > 0)
        PUT("EXTEND_TIMEOUT_USEC=%" PRId64 "\n", n->extend_us);
    if (n->status_untold)
        PUT("STATUS=%s\n", n->status);
    if (n->watchdog_untold)
        PUT("WATCHDOG=1\n");
    if (n->forget != NULL)
        PUT("FDSTOREREMOVE=1\nFDNAME=%s\n", n->forget);
#undef PUT
    return len;
}

static void LOOP_ONLY
flush(struct notify *n)
{
    char text[MESSAGE_MAX];
    if (n->fd < 0)
        return;
    size_t len = compose(n, text);
    if (len == 0)
        return;
    ssize_t sent = sendto(
        n->fd, text, len, MSG_NOSIGNAL, (const struct sockaddr *)&n->env.addr, n->env.addr_len);
    int e = errno;
    if (sent < 0) {
        if (e != EAGAIN && e != EINTR && !n->failing) {
            LOG_W("notify_failed why=\"%s\"", strerror(e)); /* the manager restarts, most likely */
            n->failing = true;
        }
        timer_arm_in(&n->retry, RETRY_US);
        return;
    }
    n->failing = false;
    n->reload_untold = n->state_untold = n->status_untold = n->watchdog_untold = false;
    n->extend_us = 0;
    n->forget = NULL;
    timer_disarm(&n->retry);
}

static void
on_retry(void *arg)
{
    thr_check_loop();
    flush(arg);
}

static void
on_watchdog(void *arg)
{
    thr_check_loop();
    struct notify *n = arg;
    n->watchdog_untold = true;
    flush(n);
    timer_arm_in(&n->watchdog, n->env.watchdog_us / 2);
}

bool
notify_start(struct notify *n, struct loop *l, const struct notify_env *env)
{
    *n = (struct notify){.loop = l, .env = *env, .fd = -1};
    timer_init(&n->watchdog, l, on_watchdog, n);
    timer_init(&n->retry, l, on_retry, n);
    if (env->addr_len == 0)
        return true;
    if (!timer_reserve(&n->watchdog) || !timer_reserve(&n->retry)) {
        errno = ENOMEM;
        return false;
    }
    /* Not connected: the manager may replace its socket when it is updated. */
    n->fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (n->fd < 0)
        return false;
    if (env->watchdog_us > 0)
        on_watchdog(n);
    return true;
}

void
notify_fini(struct notify *n)
{
    if (n->loop == NULL)
        return;
    timer_fini(&n->watchdog);
    timer_fini(&n->retry);
    if (n->fd >= 0)
        close(n->fd);
    *n = (struct notify){.fd = -1};
}

static void LOOP_ONLY
set_state(struct notify *n, enum notify_state state)
{
    CHECK(n->state != NOTIFY_STOPPING);
    n->state = state;
    n->state_untold = true;
    flush(n);
}

void
notify_ready(struct notify *n)
{
    set_state(n, NOTIFY_READY);
}

void
notify_reloading(struct notify *n)
{
    n->reload_at = mono_now();
    n->reload_untold = true;
    set_state(n, NOTIFY_RELOADING);
}

void
notify_stopping(struct notify *n)
{
    n->reload_untold = false;
    set_state(n, NOTIFY_STOPPING);
}

void
notify_extend(struct notify *n, int64_t us)
{
    CHECK(us > 0);
    n->extend_us = us;
    flush(n);
}

enum notify_keep_result
notify_keep(struct notify *n, int fd, const char *name)
{
    char text[128];
    union { /* room for one descriptor, aligned as the kernel wants it */
        struct cmsghdr head;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {0};
    if (notify_keep_max(n) == 0)
        return NOTIFY_NEVER;
    if (n->forget != NULL)
        return NOTIFY_LATER; /* or it would be forgotten as well */
    int len = snprintf(text, sizeof text, "FDSTORE=1\nFDNAME=%s\n", name);
    CHECK(len > 0 && (size_t)len < sizeof text);
    struct iovec iov = {.iov_base = text, .iov_len = (size_t)len};
    struct msghdr msg = {
        .msg_name = &n->env.addr,
        .msg_namelen = n->env.addr_len,
        .msg_iov = &iov,
        .msg_iovlen = 1,
        .msg_control = &control,
        .msg_controllen = sizeof control.bytes,
    };
    struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(c), &fd, sizeof fd);
    if (sendmsg(n->fd, &msg, MSG_NOSIGNAL) >= 0)
        return NOTIFY_KEPT;
    return errno == EAGAIN || errno == EINTR ? NOTIFY_LATER : NOTIFY_NEVER;
}

void
notify_forget(struct notify *n, const char *name)
{
    CHECK(n->forget == NULL);
    n->forget = name;
    flush(n);
}

void
notify_status(struct notify *n, const char *fmt, ...)
{
    char text[NOTIFY_STATUS_MAX];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    for (char *p = text; *p != '\0'; p++) /* a line of its own would be a message of its own */
        if (*p == '\n')
            *p = ' ';
    if (strcmp(text, n->status) == 0)
        return;
    memcpy(n->status, text, sizeof text);
    n->status_untold = true;
    flush(n);
}
