/*
 * errors: the last errors, for who looks at the control API. The log has them all; this is what it
 * takes to see at a glance what goes wrong now.
 */
#include "proxy/proxy_impl.h"

#include "base/no_block.h"

static bool
repeats(const struct error_entry *old, const struct error_entry *e)
{
    return strcmp(old->token, e->token) == 0 && old->upstream == e->upstream &&
           old->code == e->code && strcmp(old->user, e->user) == 0 &&
           strcmp(old->detail, e->detail) == 0;
}

void
errors_note(struct errors *r, const struct error_entry *e)
{
    uint64_t times = 1;
    if (r->count > 0) {
        const struct error_entry *newest = &r->entry[(r->count - 1) % ERRORS_KEPT];
        if (repeats(newest, e)) {
            times = newest->times + 1;
            r->count--;
        }
    }
    struct error_entry *to = &r->entry[r->count++ % ERRORS_KEPT];
    *to = *e;
    to->times = times;
}

void
ex_note_error(struct exchange *ex, const char *token, int status, int code, const char *detail)
{
    struct error_entry e = {
        .at = loop_now(ex->px->loop),
        .token = token,
        .upstream = upool_name(ex->upstream->pool),
        .status = status,
        .code = code,
        .exchange = ex->id,
        .client = ex->client->id,
    };
    snprintf(e.user, sizeof e.user, STR_FMT, STR_ARG(str_n(ex->ch.user, ex->ch.user_len)));
    snprintf(e.query_id, sizeof e.query_id, STR_FMT,
        STR_ARG(str_n(ex->ch.query_id, ex->ch.query_id_len)));
    snprintf(e.detail, sizeof e.detail, "%s", detail == NULL ? "" : detail);
    client_peer(ex->client, e.peer);
    errors_note(&ex->px->errors, &e);
}
