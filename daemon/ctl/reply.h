#ifndef CHMUX_CTL_REPLY_H
#define CHMUX_CTL_REPLY_H
/*
 * reply: what chmuxd answers, read as JSON.
 */
#include <jansson.h>

#include "ctl/ask.h"

#define REPLY_API "/api/v1/"

/* The object of an answer, owned by the caller; NULL: it is none, why says what it is. */
json_t *reply_parse(const struct answer *an, char why[ASK_WHY_MAX]);
/* Appends why an answer that is not 200 refuses, and what would allow it; in the words of the
 * server, not yet made harmless. root: its object, or NULL. */
void reply_refusal(const struct answer *an, json_t *root, struct buf *out);
/* A text of an object; STR_NULL: there is none. */
struct str reply_string(const json_t *root, const char *key);
/* GET of REPLY_API WHAT. On ASK_OK *root is the object of the answer, owned by the caller; else why
 * says, in clean text, what went wrong or why it was refused. */
MUST_USE enum ask_result reply_fetch(
    const struct ask *to, const char *what, json_t **root, char why[ASK_WHY_MAX]);
#endif
