#ifndef CHMUX_CLICKHOUSE_CH_ACCESS_H
#define CHMUX_CLICKHOUSE_CH_ACCESS_H
/*
 * ch_access: who a request says it is and what it sets, and how to make it say something else.
 * Sans-I/O. Facts: docs/HTTP.md, docs/USAGE.md (Users).
 *
 * Ownership  Spans borrow the request, or what the caller gave.
 */
#include "clickhouse/ch.h"

/* What a request brings to be let in with, by all the ways ClickHouse knows: the URL's user and
 * password, Authorization of any scheme, X-ClickHouse-User and -Key, a client certificate. */
enum ch_claim {
    CH_CLAIM_NONE, /* nothing; `Authorization: never`, as the server's own pages send, is that too
                    */
    CH_CLAIM_NAME, /* a user's name, and no password or an empty one; ch_request.user has it */
    CH_CLAIM_OWN,  /* a secret, or what only ClickHouse can judge */
};
enum ch_claim ch_claim_of(const struct http_req *r);

/* Fields that go, with the URL's user, password and quota_key, when credentials are replaced: the
 * server refuses some that come together, and takes the URL's without a word. */
bool ch_is_credential_field(enum http_field_id id);

/* One setting of ClickHouse. */
struct ch_setting {
    struct str name; /* letters, digits, '_' and '.' */
    struct str pair; /* "name=value" as it stands in a URL; see ch_setting_pair() */
    bool forced;     /* what the client said goes; else it is for those that said nothing */
};
/* Appends "name=value", the value encoded so that every server reads it back as it is. */
void ch_setting_pair(struct buf *out, struct str name, struct str value);

struct ch_access_edit {
    bool drop_credentials;
    const struct ch_setting *settings; /* no name twice */
    size_t setting_count;
};
/* Appends the edited target. Names are compared decoded, those of credentials in any case, as the
 * server looks them up. What is added stands in front, all else keeps its place and its bytes; a
 * path without a query gets one only for a setting. false: it would be over HTTP_MAX_URI. */
MUST_USE bool ch_access_target(struct buf *out, struct str target, const struct ch_access_edit *e);

/* Appends the base64 of s. */
void ch_base64(struct buf *out, struct str s);
#endif
