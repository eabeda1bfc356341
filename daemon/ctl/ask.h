#ifndef CHMUX_CTL_ASK_H
#define CHMUX_CTL_ASK_H
/*
 * ask: one HTTP request to an admin address, and its answer. Blocking, with a deadline.
 *
 * Addresses  unix:/path, /path, unix:@name, IP:PORT, [V6]:PORT, NAME:PORT. Of a comma-separated
 *            list the first: what CHMUX_ADMIN_ADDRESS says to chmuxd is good for the tool too.
 * Bound      An answer of more than ASK_ANSWER_MAX bytes is an error.
 */
#include "base/buf.h"
#include "http/http.h"

#define ASK_ANSWER_MAX (8u << 20)
#define ASK_WHY_MAX    512

struct ask {
    const char *address; /* borrowed */
    int64_t timeout_us;  /* until the answer is there */
    int wake[2];         /* -1: none. As soon as one of them can be read, the request is given up */
};

struct answer {
    int status;
    struct buf body;
};

enum ask_result {
    ASK_OK,
    ASK_ABSENT,  /* nobody listens there, or there is no such address */
    ASK_FAILED,  /* any other way of not getting a whole answer */
    ASK_STOPPED, /* wake */
};

/* true: the address can be read; false: why says what is wrong with it. */
MUST_USE bool ask_check_address(const char *address, char why[ASK_WHY_MAX]);
/* method is GET or POST; target needs no escaping any more. On ASK_OK the answer is owned by the
 * caller, answer_fini(); else why says what went wrong, and names the address. */
MUST_USE enum ask_result ask(const struct ask *a, enum http_method method, const char *target,
    struct answer *out, char why[ASK_WHY_MAX]);
void answer_fini(struct answer *out);
#endif
