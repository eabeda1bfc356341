#ifndef CHMUX_CLICKHOUSE_CH_H
#define CHMUX_CLICKHOUSE_CH_H
/*
 * clickhouse: what a request means to ClickHouse, sans-I/O. Facts: docs/HTTP.md.
 *
 * Ownership  Results are spans of the request's own bytes (borrowed) or copied into fixed arrays.
 */
#include "base/buf.h"
#include "http/http.h"

#define CH_USER_MAX 128
#define CH_ID_MAX   256
#define CH_DB_MAX   128

/* URL parameters, decoded one at a time without allocating. name and value are raw (still
 * percent-encoded) spans of the target. Empty parameters are skipped. */
struct ch_param {
    struct str name, value;
};
bool ch_param_next(struct str *query, struct ch_param *p);
/* The part of the target behind the first '?', without a fragment; STR_NULL when there is none. */
struct str ch_target_query(struct str target);
/* Percent- and plus-decodes into out[cap]; returns the decoded length, which may be over cap (then
 * out holds the first cap bytes). Bad escapes are kept as they are. */
size_t ch_url_decode(struct str s, char *out, size_t cap);
/* The same, compared with a literal: is the decoded name equal to lit? */
bool ch_url_eq(struct str encoded, const char *lit);

enum ch_class {
    CH_UNKNOWN, /* cannot tell (compressed, multipart, not seen yet) */
    CH_READ,    /* SELECT, WITH .. SELECT, SHOW, DESCRIBE, EXISTS, EXPLAIN, no INSERT anywhere */
    CH_INSERT,  /* INSERT with its data in the body, or VALUES: never sent twice, never killed */
    CH_INSERT_SELECT, /* INSERT ... SELECT without data: killed, never sent twice */
    CH_OTHER,         /* DDL, SET, KILL, ...: never sent twice */
};
/* By the first words, after comments, spaces and parentheses. sql may be cut at its end. In doubt:
 * CH_UNKNOWN, CH_OTHER or CH_INSERT, never CH_READ. */
enum ch_class ch_classify(struct str sql, bool text_is_whole);

/* Everything chmux needs to know of a request, filled from its head in one pass. */
struct ch_request {
    bool is_query;     /* path / or /query: runs SQL (GET / and GET /ping do not) */
    bool has_query_id; /* by parameter or header; an empty one counts: the server then makes its
                          own, and none can be added */
    bool has_session;  /* session_id was named, though it may be empty */
    bool compressed;   /* Content-Encoding other than identity, or a decompress that some server may
                          read as on: body unreadable */
    bool multipart;
    bool url_query;             /* a query= parameter is present and not empty */
    bool readonly_method;       /* GET or HEAD: ClickHouse runs them with readonly=2 */
    enum ch_class url_class;    /* of the query= parameter; CH_UNKNOWN without one */
    uint64_t session_timeout_s; /* default 60, at most 3600 */
    /* Decoded, cut at the array's size; user is "default" when nothing names one. A cut user or
     * session id ends in a hash of the whole, so two long ones never become one. */
    char user[CH_USER_MAX];
    size_t user_len;
    char session_id[CH_ID_MAX];
    size_t session_id_len;
    char query_id[CH_ID_MAX];
    size_t query_id_len;
    /* The database it names, decoded; empty: none, or one too long to be the name of one. */
    char database[CH_DB_MAX];
    size_t database_len;
};
/* Precedence as the server's: URL user beats Authorization, parameter beats header for query_id,
 * header beats parameter for the database. */
void ch_request_parse(struct ch_request *out, const struct http_req *r);
/* Class of the whole query: the URL's text, a newline, and what of the body is at hand. */
enum ch_class ch_request_class(
    const struct ch_request *q, const struct http_req *r, struct str body, bool body_is_whole);

/* Appends target with query_id=ID put in front of its other parameters ("?" added where there was
 * none; a fragment stays behind). id needs no escaping (a UUID). false: target was appended as it
 * is, because its path is not one on which a parameter more changes nothing, or because it would
 * grow over the URI limit of 18.16 or of 26.x; X-ClickHouse-Query-Id is left then (26.x only). */
bool ch_add_query_id(struct buf *out, struct str target, struct str id);
/* KILL QUERY for id, as a complete HTTP/1.1 POST with the caller's own credentials: the URL's user,
 * password and quota_key parameters and role are copied raw, as are the Authorization,
 * X-ClickHouse-User, -Key, -Quota and -SSL-Certificate-Auth fields. host is the Host field value.
 * id is quoted as a SQL literal. */
void ch_kill_request(struct buf *out, const struct http_req *r, struct str host, struct str id);

/* The body of an error chmux makes: "Code: N. DB::Exception: chmux: reason. (NAME)\n"; detail, when
 * not empty, follows the reason after ": ". */
void ch_error_body(struct buf *out, enum err e, const char *detail);
/* A whole response: status line, Content-Type, X-ClickHouse-Exception-Code, X-Chmux-Error,
 * Retry-After where err.def says so, Content-Length, Connection: close or Keep-Alive, body (left
 * out for HEAD). minor 0 answers HTTP/1.0. */
void ch_error_response(
    struct buf *out, enum err e, const char *detail, int minor, bool keep_alive, bool head);
/* An Exception packet of the native protocol, for a native client that came to the HTTP port
 * (its hello begins with byte 0x00 and the length-prefixed client name). */
void ch_native_exception(struct buf *out, int code, const char *message);

/* The target with secrets masked for logs: the value of query, param_*, password, and any *token*,
 * *secret*, *key* parameter becomes "***", as do a fragment and a user:password@; other bytes as
 * they are, control characters as %XX; cut at max bytes, of which the last three are "...". */
void ch_mask_target(struct buf *out, struct str target, size_t max);
/* The text of a query for logs: each value (strings, numbers, heredocs, the data of an INSERT)
 * becomes '?' or is left out, comments go, names and keywords stay. In doubt nothing is shown. At
 * most max bytes of valid UTF-8 without control characters; "..." at the end: there is more, in
 * sql, or behind it when that is not the whole text. */
void ch_mask_sql(struct buf *out, struct str sql, bool whole, size_t max);
#endif
