#ifndef CHMUX_HTTP_HTTP_H
#define CHMUX_HTTP_HTTP_H
/*
 * http: HTTP/1.1 messages, sans-I/O. Bytes in, spans and events out; no fd, clock or memory of its
 * own (but for the field table of a request with many headers). Strict by RFC 9112 in whatever
 * decides where a message ends; lax where it does not matter (a missing Host is fine).
 *
 * Ownership  All struct str results borrow the caller's buffer.
 */
#include "base/err.h"
#include "base/str.h"

/* The limits of ClickHouse 26.x (docs/HTTP.md). */
#define HTTP_MAX_URI          1048576
#define HTTP_MAX_NAME         4096
#define HTTP_MAX_VALUE        131072
#define HTTP_MAX_FIELDS       1000
#define HTTP_MAX_HEAD         (4u << 20) /* a whole request head */
#define HTTP_MAX_METHOD       32         /* the server's own limit */
#define HTTP_MAX_LEADING_CRLF 4          /* empty lines before a request line */
#define HTTP_MAX_STATUS_LINE  8192
#define HTTP_MAX_BODY_LINE    8192  /* a chunk-size line or trailer, without its CRLF */
#define HTTP_MAX_TRAILERS     65536 /* all trailer lines, with their CRLFs */

/* Fields chmux acts on; all others are HTTP_F_OTHER and pass as they are. */
enum http_field_id {
    HTTP_F_OTHER = 0,
    HTTP_F_CONNECTION,
    HTTP_F_KEEP_ALIVE,
    HTTP_F_PROXY_CONNECTION,
    HTTP_F_PROXY_AUTHENTICATE,
    HTTP_F_PROXY_AUTHORIZATION,
    HTTP_F_TE,
    HTTP_F_TRAILER,
    HTTP_F_TRANSFER_ENCODING,
    HTTP_F_UPGRADE,
    HTTP_F_CONTENT_LENGTH,
    HTTP_F_CONTENT_TYPE,
    HTTP_F_CONTENT_ENCODING,
    HTTP_F_ACCEPT_ENCODING,
    HTTP_F_EXPECT,
    HTTP_F_HOST,
    HTTP_F_AUTHORIZATION,
    HTTP_F_CH_USER,           /* X-ClickHouse-User */
    HTTP_F_CH_KEY,            /* X-ClickHouse-Key */
    HTTP_F_CH_QUERY_ID,       /* X-ClickHouse-Query-Id */
    HTTP_F_CH_QUOTA,          /* X-ClickHouse-Quota */
    HTTP_F_CH_DATABASE,       /* X-ClickHouse-Database */
    HTTP_F_CH_CERT_AUTH,      /* X-ClickHouse-SSL-Certificate-Auth */
    HTTP_F_CH_PROGRESS,       /* X-ClickHouse-Progress */
    HTTP_F_CH_EXCEPTION,      /* X-ClickHouse-Exception-Code */
    HTTP_F_CHMUX_COMPRESSION, /* X-Chmux-Compression */
    HTTP_F_COUNT
};
/* By name, ASCII case-insensitive. */
enum http_field_id http_field_lookup(struct str name);

struct http_field {
    struct str line; /* the whole line with its CRLF: what forwarding copies */
    struct str name;
    struct str value; /* trimmed */
    enum http_field_id id;
};

enum http_line_result {
    HTTP_LINE_FIELD, /* *f is filled, *used covers the line */
    HTTP_LINE_END,   /* the blank line that closes the head; *used is 2 */
    HTTP_LINE_MORE,  /* the line is not complete yet */
    HTTP_LINE_BAD,   /* breaks RFC 9112 section 5: folding, bare CR or LF, NUL or another control
                        character, no colon, space before the colon, empty or bad name */
    HTTP_LINE_LARGE, /* over HTTP_MAX_NAME or HTTP_MAX_VALUE (also while still incomplete) */
};
/* Parses one field line at the start of s. Borrowed spans. *f and *used count only where the result
 * says so. An incomplete line is BAD as soon as it holds a byte that no continuation can mend, so
 * the verdict does not depend on how the line was cut into reads. Cost: the bytes of the line. */
enum http_line_result http_line_next(struct str s, struct http_field *f, size_t *used);
/* Static text: what is wrong with the line at the start of s that was HTTP_LINE_BAD. */
const char *http_line_why(struct str s);

/* How a body ends. */
enum http_framing {
    HTTP_BODY_NONE,
    HTTP_BODY_LENGTH,
    HTTP_BODY_CHUNKED,
    HTTP_BODY_CLOSE, /* responses only: until the peer closes */
};

/* What the fields of one head say together; fed field by field, then asked once. */
struct http_meta {
    uint64_t content_length;
    uint64_t keep_alive_timeout_s; /* Keep-Alive: timeout=, capped at 1 day; 0: not said */
    uint64_t keep_alive_max; /* Keep-Alive: max=; UINT64_MAX: not said. timeout=0 makes it 0 */
    bool has_length, has_te;
    bool te_chunked; /* Transfer-Encoding is exactly "chunked", and no tab beside it */
    bool conn_close, conn_keep_alive, conn_upgrade;
    bool conn_other; /* Connection names fields: they are hop-by-hop too */
    bool upgrade_websocket;
    bool expect_continue, expect_other;
};
void http_meta_init(struct http_meta *m);
/* ERR_OK, or ERR_BAD_REQUEST: Content-Length that is not one decimal number up to 2^63-1 with at
 * most spaces around it, a list ("5, 5"), or a second Content-Length field, be it equal (lines are
 * forwarded as they came, so the repair RFC 9110 section 8.6 allows is not ours to make).
 * Content-Length beside Transfer-Encoding is found by http_req_parse() and http_resp_framing(). */
MUST_USE enum err http_meta_add(struct http_meta *m, const struct http_field *f);
/* Is this field one a proxy must not pass on as it came? Names listed in Connection are the
 * caller's to check with http_conn_lists() when conn_other is set. Upgrade and Connection pass only
 * for websocket, and Transfer-Encoding where the chunks pass through; the caller handles both.
 * Trailer is end-to-end: trailers pass with the body. X-Chmux-Compression is for us: it ends here.
 */
bool http_is_hop_by_hop(enum http_field_id id);
/* Does a Connection field value list this field name? Content-Length and Transfer-Encoding are
 * never listed, whatever the value says: else a client could strip what frames its own message. */
bool http_conn_lists(struct str connection_value, struct str name);

enum http_method {
    HTTP_M_OTHER,
    HTTP_M_GET,
    HTTP_M_HEAD,
    HTTP_M_POST,
    HTTP_M_OPTIONS,
    HTTP_M_CONNECT
};

/* A parsed request head. About 6 KiB: one per loop, reused; not for the stack of deep calls. */
#define HTTP_INLINE_FIELDS 64
struct http_req {
    enum http_method method;
    struct str method_text;
    struct str target; /* byte for byte */
    struct str line;   /* the request line with its CRLF */
    int minor;         /* 0 or 1 (HTTP/1.2 and up count as 1) */
    struct http_meta meta;
    enum http_framing framing; /* NONE, LENGTH or CHUNKED */
    bool keep_alive;           /* may the connection serve another request */
    bool no_length;  /* a POST, PUT or PATCH with neither length nor chunked: framing NONE */
    size_t head_len; /* bytes up to and with the blank line; leading CRLFs count */
    struct http_field *fields; /* inline_fields, or heap past HTTP_INLINE_FIELDS: do not copy *r */
    size_t field_count;
    struct http_field inline_fields[HTTP_INLINE_FIELDS];
    struct http_field *heap_fields; /* owned; NULL or HTTP_MAX_FIELDS, kept between uses */
    const char *why;                /* static text on HTTP_BAD: what exactly is wrong */
};
void http_req_init(struct http_req *r);
void http_req_fini(struct http_req *r);

enum http_result { HTTP_OK, HTTP_MORE, HTTP_BAD };
/* Parses a request head at the start of s. Needs it contiguous: on HTTP_MORE nothing in *r counts;
 * call again from the start with more bytes once http_head_complete() says so. On HTTP_BAD *e is
 * ERR_BAD_REQUEST, ERR_TOO_LARGE, ERR_BAD_VERSION or ERR_NOMEM and r->why says what; else *e is
 * ERR_OK. Bytes are checked even while the head is incomplete, so garbage is refused at its first
 * bad byte, and the verdict does not depend on how the head was cut into reads. */
MUST_USE enum http_result http_req_parse(struct http_req *r, struct str s, enum err *e);
/* Cheap test whether s may hold a whole head (or is bad enough to be refused): true when it has a
 * blank line, a bare LF, begins with no method, or is over HTTP_MAX_HEAD; http_req_parse() is then
 * never HTTP_MORE. *scanned remembers how far it has looked, so a head that drips in byte by byte
 * costs O(n); start it at 0, and again whenever s begins with other bytes. */
bool http_head_complete(struct str s, size_t *scanned);

/* The status line of a response. */
struct http_status {
    int code; /* 100-599; others are bad */
    int minor;
    struct str line; /* with CRLF */
};
/* HTTP_MORE while incomplete (at most HTTP_MAX_STATUS_LINE bytes are waited for). *out and *used
 * count only on HTTP_OK. */
MUST_USE enum http_result http_status_parse(struct str s, struct http_status *out, size_t *used);
/* RFC 9112 sections 6.1 and 6.3. method is the request's. Length beside TE, a TE that is not
 * exactly "chunked", or one in HTTP/1.0: ERR_UPSTREAM_BAD, also where there is no body. */
MUST_USE enum err http_resp_framing(const struct http_meta *m, const struct http_status *status,
    enum http_method method, enum http_framing *out);
/* May the connection carry another exchange, by what the response said? Never after HTTP/1.0. */
bool http_resp_keep_alive(const struct http_meta *m, int minor, enum http_framing framing);

/* Body framing: where does the message end? Payload bytes are looked at never, only counted. */
struct http_body {
    enum http_framing framing;
    uint8_t state;        /* private */
    uint8_t match;        /* private: which framing names a trailer name may become */
    uint64_t left;        /* of the length, or of the current chunk's payload */
    uint64_t total;       /* payload bytes seen so far */
    uint32_t line_len;    /* private: length of the chunk-size or trailer line so far */
    uint32_t trailer_len; /* private: of all trailer lines so far */
    bool odd;             /* private, for http_req_reusable() */
    const char *why;      /* static text on HTTP_BODY_BAD */
};
void http_body_init(struct http_body *b, enum http_framing framing, uint64_t length);
/* After a request was sent whole: is it certain that every ClickHouse saw it end where we did? If
 * not, its connection must not carry another request, or what one client sent as a body may be
 * answered to the next one. False for what is legal but ClickHouse 18.16 reads otherwise
 * (docs/HTTP.md): a body with any method but POST, trailers, a chunk size of more than eight
 * digits. */
bool http_req_reusable(enum http_method method, const struct http_body *body);

enum http_body_result {
    HTTP_BODY_MORE, /* all of s belongs to the message, and more must come */
    HTTP_BODY_DONE, /* the message ends at *used */
    HTTP_BODY_BAD,  /* framing broken at *used: bad size, size over 2^63-1, missing CRLF, bare LF,
                       bad extension or trailer, Content-Length or Transfer-Encoding as a trailer,
                       line over 8 KiB, trailers over 64 KiB */
};
/* Scans s: *used bytes belong to this message and are valid framing so far. */
enum http_body_result http_body_scan(struct http_body *b, struct str s, size_t *used);
/* The same, but stops after each run of payload: *data is the next payload run in s (may be empty),
 * *used what to skip to go on (over 0 unless s is empty or the message has ended). For receivers
 * that need the payload without its framing. HTTP_BODY_BAD and HTTP_BODY_DONE repeat. */
enum http_body_result http_body_next(
    struct http_body *b, struct str s, struct str *data, size_t *used);
/* Complete as it stands, with no more bytes? True for NONE, for LENGTH with nothing left and after
 * the last chunk; never for CLOSE, whose end only the peer can say. */
bool http_body_is_done(const struct http_body *b);
/* How many payload bytes are certain to come before the next framing byte (for splice); 0 if
 * unknown, as for CLOSE. After moving n <= that many by other means, http_body_skip(b, n). */
uint64_t http_body_run(const struct http_body *b);
void http_body_skip(struct http_body *b, uint64_t n);

/* W3C Trace Context. Spans of what was looked at. */
struct http_trace {
    struct str trace_id, span_id; /* 32 and 16 hexadecimal digits */
};
/* The ids in the value of a traceparent field; false: it is not a valid one, and *out untouched. */
MUST_USE bool http_traceparent(struct str value, struct http_trace *out);
/* Those of a whole request head; false when it has none, or more than one. */
MUST_USE bool http_trace_find(struct str head, struct http_trace *out);

/* "OK", "Not Found", ...; "Unknown" for codes without one. */
const char *http_reason(int status);
#endif
