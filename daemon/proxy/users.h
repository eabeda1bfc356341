#ifndef CHMUX_PROXY_USERS_H
#define CHMUX_PROXY_USERS_H
/*
 * users: the [user NAME] sections at work: whose credentials a request goes out with, what settings
 * it gets, and how many of one user's requests run or wait at once.
 *
 * Who it is  The clear rule, first match:
 *            1. The connection is given a user (a unix peer's uid, else the listener's, else
 *               default_user), and that user says override: it is that user.
 *            2. The client brings a secret: its own credentials pass, untouched.
 *            3. The client names a user that has a section, without a password: it is that user if
 *               it would be given it anyway, if its uid is among that user's, or if that user says
 *               local_auth = trust. Else the request passes as it came.
 *            4. The client brings nothing (or names `default`, which is the same to ClickHouse): it
 *               is the user that the connection is given, if any.
 *            What may be a web page's request (foreign.h) is given nobody, and trust is not for it.
 * Secrets    Read from files when a generation is made, kept in one place, wiped when it is freed;
 *            no view, log line or error shows them.
 * Reload     A new generation is made beside the old one and takes its place; the gates (gate.h) go
 *            over from one to the other.
 * Threads    users_new() and users_free() any thread; the rest on the loop.
 */
#include "base/metric.h"
#include "clickhouse/ch_access.h"
#include "config/config.h"
#include "proxy/gate.h"

struct users;
struct user;

/* Reads every secret and looks every uid up: may block. NULL: why says what failed; it names
 * sections and files, never what is in them. Warnings are logged. */
MUST_USE struct users *users_new(const struct config *cfg, char *why, size_t why_len) ANY_THREAD;
/* Nulls *up. NULL is fine. */
void users_free(struct users **up) ANY_THREAD;
/* `now` takes the place of `before` (NULL: it is the first): those with one name go on counting. */
void users_take_over(struct users *now, struct users *before, struct gates *gates) LOOP_ONLY;

struct users_asked { /* what decides */
    const struct http_req *req;
    const struct ch_request *ch;
    int64_t uid;             /* of a unix peer; -1: not known, or none */
    const char *of_listener; /* [listen NAME] user; NULL or "": none */
    bool foreign;            /* it may be a web page's (foreign.h): only a uid gives it anything */
};
struct users_given {
    const struct user *user; /* its section; NULL: it has none. Good until the next reload */
    bool replace;            /* its credentials go out instead of what the client sent, */
    enum metric_id counter;  /* and this counts it */
};
void users_find(const struct users *us, const struct users_asked *a, struct users_given *out)
    LOOP_ONLY;
/* Does users_find() look at the uid? */
bool users_want_uid(const struct users *us) LOOP_ONLY;
/* No section says anything: users_find() need not be called. */
bool users_is_empty(const struct users *us) LOOP_ONLY;

struct str user_name(const struct user *u) LOOP_ONLY;
/* "Authorization: ...\r\n". A secret. */
struct str user_credentials(const struct user *u) LOOP_ONLY;
const struct ch_setting *user_settings(const struct user *u, size_t *count) LOOP_ONLY;
struct gate *user_gate(const struct user *u) LOOP_ONLY;

/* What may be shown of the i-th section; NULL: there is none. */
struct user_view {
    struct str name, upstream_user;
    const char *secret; /* "password", "token", "none" */
    struct gate_view gate;
};
bool users_view(const struct users *us, size_t i, struct user_view *out) LOOP_ONLY;
#endif
