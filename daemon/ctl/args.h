#ifndef CHMUX_CTL_ARGS_H
#define CHMUX_CTL_ARGS_H
/*
 * args: the command line of chmux, read by two tables: commands and options.
 */
#include "base/buf.h"

#define ARGS_DEFAULT_ADDRESS "unix:/run/chmux/admin.sock"
#define ARGS_LIMIT_MAX       10000 /* the server's */

/* id, name, its argument, the options it takes besides --admin and --timeout, what it does */
#define ARGS_COMMANDS(X)                                                                           \
    X(STATUS, "status", NULL, OPT_JSON | OPT_WATCH, "what chmuxd is doing, in figures")            \
    X(SHOW, "show", "WHAT", OPT_JSON | OPT_WATCH | OPT_LIMIT | OPT_WIDE, "one of the lists below") \
    X(TOP, "top", NULL, OPT_WATCH, "a live view; q quits")                                         \
    X(RELOAD, "reload", NULL, OPT_JSON, "read the configuration again, and tell what changed")     \
    X(PAUSE, "pause", NULL, OPT_JSON | OPT_UPSTREAM,                                               \
        "hold requests back, while ClickHouse restarts")                                           \
    X(RESUME, "resume", NULL, OPT_JSON | OPT_UPSTREAM, "end a pause")                              \
    X(RECONNECT, "reconnect", NULL, OPT_JSON | OPT_UPSTREAM,                                       \
        "replace all connections to ClickHouse")                                                   \
    X(KILL, "kill", "ID", OPT_JSON, "end one request and its query; show exchanges has the ids")   \
    X(LOG_LEVEL, "log-level", "LEVEL", OPT_JSON,                                                   \
        "error, warn, info or debug, until the next start or reload")                              \
    X(DRAIN, "drain", NULL, OPT_JSON, "finish all that runs, however long it takes, then end")     \
    X(SHUTDOWN, "shutdown", NULL, OPT_JSON | OPT_NOW,                                              \
        "the same up to drain_timeout; --now: at once")                                            \
    X(WAIT, "wait", NULL, OPT_JSON | OPT_READY | OPT_UPSTREAM, "until chmuxd is ready")            \
    X(CHECK, "check", "FILE", OPT_JSON, "look for mistakes in a configuration file")               \
    X(HELP, "help", NULL, 0u, "this text")

enum args_command {
#define X(id, name, argument, options, help) CMD_##id,
    ARGS_COMMANDS(X)
#undef X
        CMD_COUNT
};

enum args_option { /* above the letters of short options */
    OPT_JSON = 1 << 8,
    OPT_WATCH = 1 << 9,
    OPT_LIMIT = 1 << 10,
    OPT_WIDE = 1 << 11,
    OPT_NOW = 1 << 12,
    OPT_READY = 1 << 13,
    OPT_UPSTREAM = 1 << 14,
    OPT_TIMEOUT = 1 << 15,
    OPT_ADMIN = 1 << 16,
};

struct args {
    enum args_command command;
    unsigned options;     /* those that were given, a set of enum args_option */
    const char *argument; /* of the command, checked; borrowed from argv */
    const char *admin;    /* borrowed */
    const char *upstream; /* borrowed, needs no escaping in a URL; NULL: none in particular */
    int64_t watch_us, timeout_us;
    uint64_t limit;
};

enum args_result {
    ARGS_OK,
    ARGS_HELP,
    ARGS_VERSION,
    ARGS_BAD, /* say has the message for stderr */
};

/* What `show` can show, in the order of the manual. */
extern const char *const args_lists[];
extern const size_t args_list_count;

/* env_admin: CHMUX_ADMIN_ADDRESS, or NULL. say is the caller's, lines of clean text. */
MUST_USE enum args_result args_parse(
    struct args *a, int argc, char **argv, const char *env_admin, struct buf *say);
void args_usage(struct buf *out);
/* "kill" */
const char *args_name(enum args_command command);
#endif
