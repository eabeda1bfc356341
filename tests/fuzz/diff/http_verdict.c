/*
 * http_verdict: what daemon/http says about byte streams, one per case, for http_diff.js to compare
 * with another parser.
 *
 * stdin: cases back to back. Each is one byte of kind, four bytes of length (little-endian), and
 * the stream. Kind Q: requests of one client. Kinds G and H: responses to GETs, or to HEADs.
 * stdout, per case: a line `m METHOD TARGET END PAYLOAD HASH` per complete message (hex text; END
 * is its offset in the stream; PAYLOAD bytes of body with a FNV-1a HASH), then `f STATE WHY`:
 *   clean   the stream ends with a message        head    it ends inside a head
 *   body    it ends inside a body                 stop    this was the last message: close or
 * upgrade reject  refused, for the reason WHY
 */
#include "http/http.h"

#include "base/check.h"

struct message {
    struct str method, target;
    size_t head_len;
    enum http_framing framing;
    uint64_t length;
    bool last;
    const char *why;
};

struct payload {
    uint64_t bytes;
    uint32_t hash;
};

static void
print_hex(struct str s)
{
    if (s.len == 0)
        putchar('-');
    for (size_t i = 0; i < s.len; i++)
        printf("%02x", (unsigned)(uint8_t)s.p[i]);
}

static enum http_result
read_request(struct http_req *r, struct str s, struct message *m)
{
    enum err e;
    enum http_result res = http_req_parse(r, s, &e);
    *m = (struct message){
        .method = r->method_text,
        .target = r->target,
        .head_len = r->head_len,
        .framing = r->framing,
        .length = r->meta.content_length,
        .last = !r->keep_alive || r->method == HTTP_M_CONNECT || r->meta.conn_upgrade,
        .why = r->why,
    };
    return res;
}

static enum http_result
refused(struct message *m, const char *why)
{
    m->why = why;
    return HTTP_BAD;
}

static enum http_result
read_response(enum http_method method, struct str s, struct message *m)
{
    struct http_status st;
    struct http_meta meta;
    size_t used = 0;
    *m = (struct message){.head_len = 0};
    http_meta_init(&meta);
    enum http_result res = http_status_parse(s, &st, &used);
    if (res != HTTP_OK)
        return res == HTTP_BAD ? refused(m, "status line") : res;
    m->method = str_n(st.line.p + 9, 3); /* the code stands in for a method */
    for (;;) {
        struct http_field f;
        m->head_len += used;
        struct str rest = str_n(s.p + m->head_len, s.len - m->head_len);
        switch (http_line_next(rest, &f, &used)) {
        case HTTP_LINE_FIELD: break;
        case HTTP_LINE_MORE: return HTTP_MORE;
        case HTTP_LINE_BAD: return refused(m, http_line_why(rest));
        case HTTP_LINE_LARGE: return refused(m, "header field too large");
        case HTTP_LINE_END:
            m->head_len += used;
            if (http_resp_framing(&meta, &st, method, &m->framing) != ERR_OK)
                return refused(m, "response framing");
            m->length = meta.content_length;
            m->last = st.code == 101 || meta.conn_upgrade ||
                      (st.code >= 200 && !http_resp_keep_alive(&meta, st.minor, m->framing));
            return HTTP_OK;
        }
        if (http_meta_add(&meta, &f) != ERR_OK)
            return refused(m, "bad or repeated Content-Length");
    }
}

static enum http_body_result
read_body(const struct message *m, struct str s, size_t *used, struct payload *p, const char **why)
{
    struct http_body b;
    enum http_body_result res = HTTP_BODY_MORE;
    http_body_init(&b, m->framing, m->length);
    if (http_body_is_done(&b))
        res = HTTP_BODY_DONE;
    while (res == HTTP_BODY_MORE && *used < s.len) {
        struct str data;
        size_t n;
        res = http_body_next(&b, str_n(s.p + *used, s.len - *used), &data, &n);
        *used += n;
        for (size_t i = 0; i < data.len; i++)
            p->hash = (p->hash ^ (uint8_t)data.p[i]) * 16777619u;
        p->bytes += data.len;
    }
    *why = b.why;
    return res;
}

static void
final(const char *state, const char *why)
{
    printf("f %s %s\n", state, why == NULL ? "" : why);
}

static void
judge(struct http_req *r, char kind, struct str s)
{
    size_t at = 0;
    bool last = false;
    while (at < s.len && !last) {
        struct message m;
        struct str rest = str_n(s.p + at, s.len - at);
        enum http_method method = kind == 'H' ? HTTP_M_HEAD : HTTP_M_GET;
        enum http_result res =
            kind == 'Q' ? read_request(r, rest, &m) : read_response(method, rest, &m);
        if (res != HTTP_OK) {
            final(res == HTTP_BAD ? "reject" : "head", m.why);
            return;
        }
        struct payload p = {.hash = 2166136261u};
        size_t used = m.head_len;
        const char *why = NULL;
        switch (read_body(&m, rest, &used, &p, &why)) {
        case HTTP_BODY_DONE: break;
        case HTTP_BODY_MORE: final("body", NULL); return;
        case HTTP_BODY_BAD: final("reject", why); return;
        }
        at += used;
        printf("m ");
        print_hex(m.method);
        putchar(' ');
        print_hex(m.target);
        printf(" %zu %" PRIu64 " %" PRIu32 "\n", at, p.bytes, p.hash);
        last = m.last;
    }
    final(last ? "stop" : "clean", NULL);
}

int
main(void)
{
    static struct http_req r;
    uint8_t head[5];
    http_req_init(&r);
    while (fread(head, 1, sizeof(head), stdin) == sizeof(head)) {
        size_t len =
            (size_t)head[1] | (size_t)head[2] << 8 | (size_t)head[3] << 16 | (size_t)head[4] << 24;
        char *p = malloc(len > 0 ? len : 1);
        CHECK(p != NULL);
        if (fread(p, 1, len, stdin) != len) {
            fprintf(stderr, "http_verdict: the last case is cut\n");
            return 1;
        }
        judge(&r, (char)head[0], str_n(p, len));
        free(p);
    }
    http_req_fini(&r);
    return fflush(stdout) == 0 ? 0 : 1;
}
