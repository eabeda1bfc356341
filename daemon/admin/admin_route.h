#ifndef CHMUX_ADMIN_ADMIN_ROUTE_H
#define CHMUX_ADMIN_ADMIN_ROUTE_H
/*
 * admin_route: from a request to the command it means, if its sender may give it. One table says
 * all: path, method, who may, arguments. Pure: it touches nothing but its arguments.
 *
 * Who may    On a unix socket everybody who can connect may read; root and the daemon's own uid may
 *            control. On TCP nobody can be told from anybody else, so all may do what [admin]
 *            tcp_access says.
 * Browsers   A page on the web must not reach us through a browser: above health, Host must be an
 * IP address or localhost (a rebound name is neither), an Origin must be our own, and over TCP
 * commands need the field X-Chmux-Control: 1, which no form can send and for which a script needs a
 * leave that we never give (no CORS fields). On a unix socket, which a browser reaches through a
 * forwarded port, Host may be any word without a dot.
 */
#include "base/log.h"
#include "config/config.h"
#include "http/http.h"

#define ADMIN_API       "/api/v1/"
#define ADMIN_LIMIT_MAX 10000 /* entries of one list */
#define ADMIN_LIMIT     1000  /* unless asked for another number */

/* id, path, method, who may, arguments (comma separated; '!' marks one that must be there) */
#define ADMIN_COMMANDS(X)                                                                          \
    X(LIVE, "/live", GET, HEALTH, "")                                                              \
    X(READY, "/ready", GET, HEALTH, "upstream")                                                    \
    X(METRICS, "/metrics", GET, HEALTH, "")                                                        \
    X(PAGE, "/", GET, HEALTH, "")                                                                  \
    X(PAGE_CSS, "/dashboard.css", GET, HEALTH, "")                                                 \
    X(PAGE_JS, "/dashboard.js", GET, HEALTH, "")                                                   \
    X(PAGE_PLOT, "/plot.js", GET, HEALTH, "")                                                      \
    X(PAGE_READING, "/reading.js", GET, HEALTH, "")                                                \
    X(PAGE_ICON, "/icon.svg", GET, HEALTH, "")                                                     \
    X(COMMANDS, "/api/v1/", GET, READ, "")                                                         \
    X(STATUS, "/api/v1/status", GET, READ, "")                                                     \
    X(CLIENTS, "/api/v1/clients", GET, READ, "limit")                                              \
    X(EXCHANGES, "/api/v1/exchanges", GET, READ, "limit")                                          \
    X(POOL, "/api/v1/pool", GET, READ, "limit")                                                    \
    X(ENDPOINTS, "/api/v1/endpoints", GET, READ, "limit")                                          \
    X(QUEUE, "/api/v1/queue", GET, READ, "limit")                                                  \
    X(USERS, "/api/v1/users", GET, READ, "limit")                                                  \
    X(PIPES, "/api/v1/pipes", GET, READ, "limit")                                                  \
    X(CONFIG, "/api/v1/config", GET, READ, "")                                                     \
    X(ERRORS, "/api/v1/errors", GET, READ, "limit")                                                \
    X(MEMORY, "/api/v1/memory", GET, READ, "")                                                     \
    X(RELOAD, "/api/v1/reload", POST, CONTROL, "")                                                 \
    X(DRAIN, "/api/v1/drain", POST, CONTROL, "")                                                   \
    X(SHUTDOWN, "/api/v1/shutdown", POST, CONTROL, "now")                                          \
    X(PAUSE, "/api/v1/pause", POST, CONTROL, "upstream")                                           \
    X(RESUME, "/api/v1/resume", POST, CONTROL, "upstream")                                         \
    X(RECONNECT, "/api/v1/reconnect", POST, CONTROL, "upstream")                                   \
    X(KILL, "/api/v1/kill", POST, CONTROL, "!id")                                                  \
    X(LOG_LEVEL, "/api/v1/log-level", POST, CONTROL, "!level")

enum admin_command_id {
#define X(id, path, method, access, args) ADMIN_##id,
    ADMIN_COMMANDS(X)
#undef X
        ADMIN_COMMAND_COUNT
};

struct admin_command {
    const char *path;
    enum http_method method; /* HTTP_M_GET answers HEAD too */
    enum admin_access access;
    const char *args;
};
extern const struct admin_command admin_commands[ADMIN_COMMAND_COUNT];

struct admin_caller {
    bool is_unix;
    int64_t uid, pid;         /* -1: not known */
    enum admin_access access; /* what it may do */
};
/* What a peer on a unix socket with this uid may do. */
enum admin_access admin_access_of(int64_t uid, int64_t own_uid);

/* What would let who give a command that it may not give: terminated, "" for nothing. */
void admin_allowed_by(
    const struct admin_command *cmd, const struct admin_caller *who, char *out, size_t out_len);

struct admin_call {
    enum admin_command_id id;
    size_t limit;
    uint64_t kill_id;
    enum log_level level;
    bool now, upstream;
    char upstream_name[64]; /* "": all of them, or any */
};

struct admin_refusal { /* texts are terminated */
    int status;
    bool json;         /* the path was one of the API */
    bool denied;       /* the caller may not, with what it sent */
    const char *error; /* one word */
    const char *allow; /* the methods, for 405; else NULL */
    char message[256];
    char allowed_by[256]; /* what would make it work; "" */
};

/* false: *no says why not. */
MUST_USE bool admin_route(const struct http_req *r, const struct admin_caller *who,
    struct admin_call *call, struct admin_refusal *no);
#endif
