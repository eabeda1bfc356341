/*
 * The input is what one client sends: request heads back to back. Promises checked: the verdict
 * does not depend on how the bytes were cut; the spans tile the head exactly; what is accepted
 * holds nothing that another parser could read differently.
 */
#include "fuzz_http.h"

#include "http/http.h"

static struct http_req req, other;

/* `s` is a line that ends in CRLF and holds no other CR, LF or NUL. */
static void
check_clean_line(struct str s)
{
    CHECK(s.len >= 2 && memcmp(s.p + s.len - 2, "\r\n", 2) == 0);
    for (size_t i = 0; i < s.len - 2; i++)
        CHECK(s.p[i] != '\r' && s.p[i] != '\n' && s.p[i] != '\0');
}

static bool
inside(struct str part, struct str of)
{
    return part.p >= of.p && part.p + part.len <= of.p + of.len;
}

/* Request line, field lines and blank line follow each other without a gap up to head_len. */
static void
check_tiling(struct str s)
{
    size_t lead = (size_t)(req.line.p - s.p);
    CHECK(lead <= 2 * HTTP_MAX_LEADING_CRLF && lead % 2 == 0);
    check_clean_line(req.line);
    CHECK(inside(req.method_text, req.line) && inside(req.target, req.line));
    CHECK(req.line.len == req.method_text.len + req.target.len + strlen("  HTTP/1.1\r\n"));
    CHECK(req.method_text.len > 0 && req.target.len > 0 && req.target.len <= HTTP_MAX_URI);
    const char *at = req.line.p + req.line.len;
    for (size_t i = 0; i < req.field_count; i++) {
        const struct http_field *f = &req.fields[i];
        check_clean_line(f->line);
        CHECK(f->line.p == at && f->name.p == at);
        CHECK(f->name.len > 0 && f->name.p[f->name.len] == ':');
        CHECK(inside(f->value, f->line));
        CHECK(str_eq(str_trim(f->value), f->value));
        at += f->line.len;
    }
    CHECK(memcmp(at, "\r\n", 2) == 0 && at + 2 == s.p + req.head_len && req.head_len <= s.len);
}

/* The framing by the plainest reading of the fields there is. */
static void
check_framing(void)
{
    size_t lengths = 0, codings = 0;
    for (size_t i = 0; i < req.field_count; i++) {
        lengths += str_eq_nocase(req.fields[i].name, STR("content-length"));
        codings += str_eq_nocase(req.fields[i].name, STR("transfer-encoding"));
        CHECK(http_field_lookup(req.fields[i].name) == req.fields[i].id);
    }
    CHECK(lengths + codings <= 1);
    CHECK((req.framing == HTTP_BODY_LENGTH) == (lengths == 1));
    CHECK((req.framing == HTTP_BODY_CHUNKED) == (codings == 1));
    CHECK(req.framing != HTTP_BODY_CLOSE);
    CHECK(req.meta.content_length <= INT64_MAX);
    CHECK(req.minor == 1 || !req.keep_alive);
}

static bool
same_verdict(enum http_result a, enum err ea, enum http_result b, enum err eb)
{
    if (a != b || ea != eb || req.why != other.why)
        return false;
    return a != HTTP_OK ||
           (req.head_len == other.head_len && req.field_count == other.field_count &&
               req.framing == other.framing && req.keep_alive == other.keep_alive &&
               req.method == other.method && req.target.len == other.target.len &&
               req.meta.content_length == other.meta.content_length);
}

struct verdict {
    enum http_result res;
    enum err e;
};

static void
check_prefix(struct str s, size_t n, void *arg)
{
    const struct verdict *want = arg;
    struct str part = fuzz_copy(str_n(s.p, n));
    enum err e;
    enum http_result res = http_req_parse(&other, part, &e);
    size_t scanned = 0;
    bool complete = http_head_complete(part, &scanned);
    CHECK(res == HTTP_MORE || same_verdict(want->res, want->e, res, e));
    CHECK(want->res != HTTP_MORE || res == HTTP_MORE);
    CHECK(!complete || res != HTTP_MORE);
    CHECK(complete || res != HTTP_OK);
    /* And with a memory of an earlier, shorter look. */
    scanned = 0;
    (void)http_head_complete(str_n(part.p, n / 2), &scanned);
    CHECK(http_head_complete(part, &scanned) == complete);
    fuzz_free(part);
}

/* One request at the start of s; its length, or 0 to stop. */
static size_t
one_request(struct str s)
{
    struct verdict v;
    struct str copy = fuzz_copy(s);
    v.res = http_req_parse(&req, copy, &v.e);
    CHECK((v.res == HTTP_BAD) == (v.e != ERR_OK) && (v.res == HTTP_BAD) == (req.why != NULL));
    if (v.res == HTTP_OK) {
        check_tiling(copy);
        check_framing();
    }
    fuzz_each_prefix(copy, check_prefix, &v);
    size_t used = v.res == HTTP_OK ? req.head_len : 0;
    fuzz_free(copy);
    return used;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    http_req_init(&req);
    http_req_init(&other);
    struct str s = str_n((const char *)data, size);
    for (int i = 0; i < 8 && s.len > 0; i++) {
        size_t used = one_request(s);
        if (used == 0)
            break;
        s = str_n(s.p + used, s.len - used);
    }
    http_req_fini(&req);
    http_req_fini(&other);
    return 0;
}
