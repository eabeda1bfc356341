/*
 * The input is a request target, a newline, and an Authorization value. Promises checked:
 * parameters are spans of the target, in order; an added query id is read back and changes nothing
 * else; a masked target shows no password and no control character and keeps its bound; a parsed
 * request never overruns its arrays and names somebody.
 */
#include "fuzz.h"

#include "base/check.h"
#include "clickhouse/ch.h"

#define ID "6a7f-id"

static void
check_params(struct str target)
{
    struct str query = ch_target_query(target);
    const char *at = target.p;
    struct ch_param p;
    while (ch_param_next(&query, &p)) {
        CHECK(p.name.p >= at && p.value.p >= p.name.p + p.name.len);
        CHECK(p.name.len + p.value.len > 0 || p.value.p > p.name.p);
        CHECK(
            memchr(p.name.p, '&', p.name.len) == NULL && memchr(p.name.p, '=', p.name.len) == NULL);
        CHECK(p.value.len == 0 || memchr(p.value.p, '&', p.value.len) == NULL);
        char small[4], large[4096];
        size_t len = ch_url_decode(p.value, large, sizeof(large));
        CHECK(len <= p.value.len && len * 3 >= p.value.len);
        CHECK(ch_url_decode(p.value, small, sizeof(small)) == len);
        CHECK(len > sizeof(large) || memcmp(small, large, size_min(len, sizeof(small))) == 0);
        at = p.value.p + p.value.len;
    }
    CHECK(at <= target.p + target.len);
}

static void
check_query_id(struct str target)
{
    struct buf out;
    buf_init(&out, target.len + 100);
    bool added = ch_add_query_id(&out, target, STR(ID));
    CHECK(buf_ok(&out));
    struct str longer = str_n(out.p, out.len);
    struct str before = ch_target_query(target), after = ch_target_query(longer);
    struct ch_param a, b;
    if (added) {
        CHECK(ch_param_next(&after, &b));
        CHECK(str_eq(b.name, STR("query_id")) && str_eq(b.value, STR(ID)));
        while (ch_param_next(&before, &a)) {
            CHECK(ch_param_next(&after, &b));
            CHECK(str_eq(a.name, b.name) && str_eq(a.value, b.value));
        }
        CHECK(!ch_param_next(&after, &b));
    } else {
        CHECK(str_eq(longer, target));
    }
    buf_fini(&out);
}

static void
check_mask(struct str target)
{
    struct buf out;
    struct ch_param p;
    buf_init(&out, target.len * 4 + 100);
    ch_mask_target(&out, target, out.max);
    CHECK(buf_ok(&out));
    for (size_t i = 0; i < out.len; i++)
        CHECK((unsigned char)out.p[i] >= 0x20 && out.p[i] != 0x7f);
    struct str query = ch_target_query(str_n(out.p, out.len));
    while (ch_param_next(&query, &p))
        if (ch_url_eq(p.name, "password"))
            CHECK(str_eq(p.value, STR("***")) || p.value.len == 0);
    size_t max = target.len / 2;
    buf_consume(&out, out.len);
    ch_mask_target(&out, target, max);
    CHECK(out.len <= max);
    buf_fini(&out);
}

static void
check_request(struct str target, struct str authorization)
{
    struct http_field f = {.line = STR("a: b\r\n"),
        .name = STR("Authorization"),
        .value = str_trim(authorization),
        .id = HTTP_F_AUTHORIZATION};
    struct http_req r = {.method = HTTP_M_GET,
        .method_text = STR("GET"),
        .target = target,
        .framing = HTTP_BODY_NONE,
        .fields = &f,
        .field_count = 1};
    struct ch_request q;
    memset(&q, 0xee, sizeof(q));
    ch_request_parse(&q, &r);
    CHECK(q.user_len > 0 && q.user_len <= sizeof(q.user));
    CHECK(q.session_id_len <= sizeof(q.session_id) && q.query_id_len <= sizeof(q.query_id));
    CHECK(q.has_session || q.session_id_len == 0);
    CHECK(q.has_query_id || q.query_id_len == 0);
    CHECK(q.session_timeout_s <= 3600);
    CHECK(!q.url_query || q.is_query);
    CHECK(ch_request_class(&q, &r, STR_NULL, true) == q.url_class || q.compressed);
    struct buf out;
    buf_init(&out, target.len + 4096);
    ch_kill_request(&out, &r, STR("h"), str_n(q.query_id, q.query_id_len));
    CHECK(buf_ok(&out));
    buf_fini(&out);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct str all = str_n((const char *)data, size);
    ssize_t newline = str_find(all, '\n');
    struct str target = str_n(all.p, newline < 0 ? all.len : (size_t)newline);
    struct str rest = str_n(all.p + target.len, all.len - target.len);
    if (target.len == 0)
        return 0;
    check_params(target);
    check_query_id(target);
    check_mask(target);
    check_request(target, rest.len > 0 ? str_n(rest.p + 1, rest.len - 1) : rest);
    return 0;
}
