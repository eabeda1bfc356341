#include "clickhouse/ch.h"

#include "clickhouse/ch_private.h"

#define SESSION_TIMEOUT_S     60
#define SESSION_TIMEOUT_MAX_S 3600
#define SCHEME_MAX            16 /* of an Authorization field, as far as it is kept */

/* The last bytes of a name that did not fit: '#' and 16 hex digits. */
#define HASH_TAIL 17

static void
put_hash_tail(char *out, size_t cap, uint64_t hash)
{
    char tail[HASH_TAIL + 1];
    snprintf(tail, sizeof(tail), "#%016" PRIx64, ch_hash_end(hash));
    memcpy(out + cap - HASH_TAIL, tail, HASH_TAIL);
}

/* Decodes s into out[cap] and returns its length, at most cap. */
static size_t
take_encoded(struct str s, char *out, size_t cap)
{
    size_t len = ch_url_decode(s, out, cap);
    if (LIKELY(len <= cap))
        return len;
    uint64_t hash = CH_HASH_INIT;
    for (int c; (c = ch_url_next(&s)) >= 0;)
        hash = ch_hash_add(hash, c);
    put_hash_tail(out, cap, hash);
    return cap;
}

static size_t
take_plain(struct str s, char *out, size_t cap)
{
    if (s.len > 0)
        memcpy(out, s.p, size_min(s.len, cap));
    if (LIKELY(s.len <= cap))
        return s.len;
    uint64_t hash = CH_HASH_INIT;
    for (size_t i = 0; i < s.len; i++)
        hash = ch_hash_add(hash, (unsigned char)s.p[i]);
    put_hash_tail(out, cap, hash);
    return cap;
}

/* Decodes the user of base64("user:password") and stops at the colon, so that the password is never
 * in our memory in the clear. Returns false when it is no base64. */
static bool
take_basic_user(struct str s, char *out, size_t cap, size_t *len)
{
    uint64_t hash = CH_HASH_INIT;
    uint32_t bits = 0;
    int bit_count = 0;
    size_t n = 0;
    for (size_t i = 0; i < s.len && s.p[i] != '='; i++) {
        int digit = ch_base64_digit(s.p[i]);
        if (digit < 0)
            return false;
        bits = bits << 6 | (uint32_t)digit;
        bit_count += 6;
        if (bit_count < 8)
            continue;
        bit_count -= 8;
        unsigned char c = (unsigned char)(bits >> bit_count);
        if (c == ':')
            break;
        if (n < cap)
            out[n] = (char)c;
        n++;
        hash = ch_hash_add(hash, c);
    }
    if (n > cap)
        put_hash_tail(out, cap, hash);
    *len = size_min(n, cap);
    return true;
}

/* Who an Authorization field names. Of other schemes than Basic only the scheme and a short hash
 * are kept: enough to keep flows apart, too little to be a credential. */
static void
user_of_authorization(struct ch_request *q, struct str value)
{
    ssize_t space = str_find(value, ' ');
    struct str scheme = str_n(value.p, space < 0 ? 0 : (size_t)space);
    struct str rest = str_trim(str_n(value.p + scheme.len, value.len - scheme.len));
    if (str_eq_nocase(scheme, STR("Basic")) &&
        take_basic_user(rest, q->user, sizeof(q->user), &q->user_len))
        return;
    if (scheme.len == 0 || scheme.len > SCHEME_MAX)
        scheme = STR("auth"); /* a bare token: no part of it may reach a log */
    uint64_t hash = CH_HASH_INIT;
    for (size_t i = 0; i < rest.len; i++)
        hash = ch_hash_add(hash, (unsigned char)rest.p[i]);
    char text[SCHEME_MAX + 10];
    int n = snprintf(
        text, sizeof(text), STR_FMT ":%08" PRIx32, STR_ARG(scheme), (uint32_t)ch_hash_end(hash));
    for (int i = 0; i < n; i++)
        q->user[i] = ascii_lower(text[i]);
    q->user_len = (size_t)n;
}

/* What the URL said, as far as it decides something later. Raw spans; p NULL: not named. */
struct url_params {
    struct str query, user, query_id, session_id, session_timeout, database;
    bool has_password, blocks;
};

static void
keep_first(struct str *slot, struct str value)
{
    if (slot->p == NULL)
        *slot = value;
}

/* The server looks these names up, and finds the first of two. */
static void
param_take(struct url_params *u, struct str name, struct str value)
{
    char plain[16];
    if (UNLIKELY(memchr(name.p, '%', name.len) != NULL)) {
        size_t len = ch_url_decode(name, plain, sizeof(plain));
        if (len > sizeof(plain))
            return;
        name = str_n(plain, len);
    }
    switch (name.len) {
    case 4:
        if (memcmp(name.p, "user", 4) == 0)
            keep_first(&u->user, value);
        break;
    case 5:
        if (memcmp(name.p, "query", 5) == 0)
            keep_first(&u->query, value);
        break;
    case 8:
        if (memcmp(name.p, "query_id", 8) == 0)
            keep_first(&u->query_id, value);
        else if (memcmp(name.p, "password", 8) == 0)
            u->has_password = true;
        else if (memcmp(name.p, "database", 8) == 0)
            keep_first(&u->database, value);
        break;
    case 10:
        if (memcmp(name.p, "session_id", 10) == 0)
            keep_first(&u->session_id, value);
        else if (memcmp(name.p, "decompress", 10) == 0)
            u->blocks |= !ch_url_eq(value, "0"); /* any: 26.x takes the last of two */
        break;
    case 15:
        if (memcmp(name.p, "session_timeout", 15) == 0)
            keep_first(&u->session_timeout, value);
        break;
    default: break;
    }
}

/* What the header fields said. p NULL: not there. */
struct head_fields {
    struct str authorization, user, query_id, database;
};

static void
take_fields(struct head_fields *h, struct ch_request *q, const struct http_req *r)
{
    for (size_t i = 0; i < r->field_count; i++) {
        const struct http_field *f = &r->fields[i];
        if (LIKELY(f->id == HTTP_F_OTHER))
            continue;
        if (f->id == HTTP_F_AUTHORIZATION)
            keep_first(&h->authorization, f->value);
        else if (f->id == HTTP_F_CH_USER)
            keep_first(&h->user, f->value);
        else if (f->id == HTTP_F_CH_QUERY_ID)
            keep_first(&h->query_id, f->value);
        else if (f->id == HTTP_F_CH_DATABASE)
            keep_first(&h->database, f->value);
        else if (f->id == HTTP_F_CONTENT_ENCODING)
            q->compressed |= f->value.len > 0 && !str_eq_nocase(f->value, STR("identity"));
        else if (f->id == HTTP_F_CONTENT_TYPE)
            q->multipart |= str_starts_nocase(f->value, STR("multipart/form-data"));
    }
}

static void
take_user(struct ch_request *q, const struct url_params *u, const struct head_fields *h)
{
    q->user_len = 0;
    if (u->user.p != NULL)
        q->user_len = take_encoded(u->user, q->user, sizeof(q->user));
    else if (u->has_password)
        q->user_len = 0;
    else if (h->user.len > 0) /* an empty field is none */
        q->user_len = take_plain(h->user, q->user, sizeof(q->user));
    else if (h->authorization.p != NULL)
        user_of_authorization(q, h->authorization);
    if (q->user_len == 0) {
        struct str name = STR("default");
        q->user_len = take_plain(name, q->user, sizeof(q->user));
    }
}

static void
take_session(struct ch_request *q, const struct url_params *u)
{
    q->session_timeout_s = SESSION_TIMEOUT_S;
    q->session_id_len = 0;
    q->has_session = u->session_id.p != NULL; /* an empty id is one too for 18.16 */
    if (!q->has_session)
        return;
    q->session_id_len = take_encoded(u->session_id, q->session_id, sizeof(q->session_id));
    char text[24];
    uint64_t seconds;
    size_t len = ch_url_decode(u->session_timeout, text, sizeof(text));
    if (len > 0 && len <= sizeof(text) &&
        str_to_u64(str_n(text, len), SESSION_TIMEOUT_MAX_S, &seconds))
        q->session_timeout_s = seconds;
}

static void
take_query_id(struct ch_request *q, const struct url_params *u, const struct head_fields *h)
{
    q->query_id_len = 0;
    q->has_query_id = true;
    if (u->query_id.p != NULL)
        q->query_id_len = take_encoded(u->query_id, q->query_id, sizeof(q->query_id));
    else if (h->query_id.len > 0)
        q->query_id_len = take_plain(h->query_id, q->query_id, sizeof(q->query_id));
    else
        q->has_query_id = false;
}

static void
take_database(struct ch_request *q, const struct url_params *u, const struct head_fields *h)
{
    size_t len = 0;
    if (UNLIKELY(h->database.len > 0)) {
        len = h->database.len;
        memcpy(q->database, h->database.p, size_min(len, sizeof(q->database)));
    } else if (u->database.p != NULL) {
        len = ch_url_decode(u->database, q->database, sizeof(q->database));
    }
    q->database_len = len <= sizeof(q->database) ? len : 0;
}

/* Does the server run SQL for it? `path` is the target up to its '?'. */
static bool
runs_sql(const struct ch_request *q, const struct http_req *r, struct str path, bool has_params)
{
    if (q->url_query)
        return true; /* 18.16 on any path, 26.x by a configured handler */
    if (r->method == HTTP_M_OPTIONS)
        return false;
    if (path.len > 0 && !str_eq(path, STR("/")) && !str_eq(path, STR("/query")))
        return false;
    return has_params || (r->method != HTTP_M_GET && r->method != HTTP_M_HEAD);
}

/* Of what the URL says alone. A body that may follow comes behind a newline, but for a multipart
 * one, whose query part is joined as it is. */
static enum ch_class
class_of_url(const struct ch_request *q, struct str query, bool no_body)
{
    struct str body = no_body || q->multipart ? STR_NULL : STR("");
    return ch_classify_both(query, body, no_body);
}

void
ch_request_parse(struct ch_request *out, const struct http_req *r)
{
    struct url_params u;
    struct head_fields h;
    memset(&u, 0, sizeof(u));
    memset(&h, 0, sizeof(h));
    struct str params = ch_target_query(r->target);
    struct str path = r->target;
    bool has_params = params.p != NULL;
    if (has_params)
        path.len = (size_t)(params.p - 1 - path.p);

    struct ch_param p;
    while (ch_param_next(&params, &p))
        param_take(&u, p.name, p.value);

    out->multipart = false;
    out->compressed = u.blocks;
    take_fields(&h, out, r);
    take_user(out, &u, &h);
    take_session(out, &u);
    take_query_id(out, &u, &h);
    take_database(out, &u, &h);

    out->url_query = u.query.len > 0;
    out->readonly_method = r->method == HTTP_M_GET || r->method == HTTP_M_HEAD;
    out->is_query = runs_sql(out, r, path, has_params);
    out->url_class = class_of_url(out, u.query, r->framing == HTTP_BODY_NONE);
}

enum ch_class
ch_request_class(
    const struct ch_request *q, const struct http_req *r, struct str body, bool body_is_whole)
{
    struct str params = ch_target_query(r->target);
    struct url_params u;
    memset(&u, 0, sizeof(u));
    struct ch_param p;
    while (ch_param_next(&params, &p) && u.query.p == NULL)
        param_take(&u, p.name, p.value);
    if (q->compressed || q->multipart)
        return class_of_url(q, u.query, false);
    return ch_classify_both(u.query, body.p == NULL ? STR("") : body, body_is_whole);
}
