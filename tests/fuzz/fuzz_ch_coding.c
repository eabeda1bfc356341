/*
 * The input is a byte that chooses the edit, a request target, a newline, an Accept-Encoding value,
 * a newline, and an X-Chmux-Compression value. Promises checked: an edited target differs by the
 * edits alone, and editing it again changes nothing; what is dropped is what the parser saw, and it
 * sees it no more; an Accept-Encoding list means the same in any case and twice over, and its first
 * word on a coding is the last; an override is sound or refused; a probe is one valid request that
 * names the same user.
 */
#include "fuzz.h"

#include "base/check.h"
#include "clickhouse/ch_coding.h"

#define ID    "6a7f-id"
#define ADDED "enable_http_compression=1"

static struct http_req
request_of(struct str target, struct http_field *field)
{
    return (struct http_req){.method = HTTP_M_POST,
        .method_text = STR("POST"),
        .target = target,
        .framing = HTTP_BODY_NONE,
        .fields = field,
        .field_count = field == NULL ? 0 : 1};
}

static bool
is_name(struct str name, const char *plain)
{
    char text[32];
    size_t len = ch_url_decode(name, text, sizeof(text));
    return len == strlen(plain) && memcmp(text, plain, len) == 0;
}

static bool
is_dropped(const struct ch_target_edit *e, struct str name)
{
    return (e->drop_compress && is_name(name, "compress")) ||
           (e->drop_decompress && is_name(name, "decompress"));
}

/* The parameters of `after` are those added, then those of `before` that are not dropped. Returns
 * how many bytes the dropped ones and an '&' each take. */
static size_t
check_params(struct str before, struct str after, const struct ch_target_edit *e)
{
    struct ch_param a, b;
    size_t dropped = 0;
    if (e->add_compression) {
        CHECK(ch_param_next(&after, &b));
        CHECK(str_eq(b.name, STR("enable_http_compression")) && str_eq(b.value, STR("1")));
    }
    if (e->query_id.len > 0) {
        CHECK(ch_param_next(&after, &b));
        CHECK(str_eq(b.name, STR("query_id")) && str_eq(b.value, e->query_id));
    }
    while (ch_param_next(&before, &a)) {
        if (is_dropped(e, a.name)) {
            dropped += (size_t)(a.value.p + a.value.len - a.name.p) + 1;
            continue;
        }
        CHECK(ch_param_next(&after, &b));
        CHECK(str_eq(a.name, b.name) && str_eq(a.value, b.value));
        CHECK((a.value.p == a.name.p + a.name.len) == (b.value.p == b.name.p + b.name.len));
    }
    CHECK(!ch_param_next(&after, &b));
    return dropped;
}

/* What stands before the query, and what stands behind it, is as it was. */
static void
check_frame(struct str before, struct str after)
{
    struct str query = ch_target_query(before);
    ssize_t hash = str_find(before, '#'), hash_after = str_find(after, '#');
    CHECK((hash < 0) == (hash_after < 0));
    if (hash >= 0)
        CHECK(str_eq(str_n(before.p + hash, before.len - (size_t)hash),
            str_n(after.p + hash_after, after.len - (size_t)hash_after)));
    size_t head = hash < 0 ? before.len : (size_t)hash;
    size_t path = query.p == NULL ? head : (size_t)(query.p - before.p);
    CHECK(path <= after.len && str_eq(str_n(before.p, path), str_n(after.p, path)));
}

static void
check_edit(struct str target, const struct ch_target_edit *e)
{
    struct buf once, twice;
    buf_init(&once, target.len + 100);
    buf_init(&twice, target.len + 200);
    bool edited = ch_target_edit(&once, target, e);
    CHECK(buf_ok(&once));
    struct str after = str_n(once.p, once.len);
    if (!edited) {
        CHECK(str_eq(after, target));
    } else {
        check_frame(target, after);
        size_t added = (e->add_compression ? sizeof ADDED : 0) +
                       (e->query_id.len > 0 ? sizeof "query_id=" + e->query_id.len : 0);
        size_t dropped = check_params(ch_target_query(target), ch_target_query(after), e);
        /* One '&' or '?' may stand on one side only: of the first part, or of the last. */
        size_t want = target.len + added - dropped;
        CHECK(after.len + 1 >= want && after.len <= want + 1);

        struct http_req r = request_of(after, NULL);
        struct ch_coding q;
        ch_coding_parse(&q, &r);
        CHECK(!e->drop_compress || !q.answer_blocks);
        CHECK(!e->drop_decompress || !q.body_blocks);
        CHECK(!e->drop_compress || !e->drop_decompress || !q.odd_blocks);
        CHECK(!e->add_compression || q.names_setting);

        struct ch_target_edit drops = {e->drop_compress, e->drop_decompress, false, STR_NULL};
        CHECK(ch_target_edit(&twice, after, &drops));
        CHECK(str_eq(str_n(twice.p, twice.len), after));
    }
    buf_fini(&once);
    buf_fini(&twice);
}

static codec_set
accepts(struct str list, bool *refuses_identity)
{
    struct http_field f = {.line = STR("a: b\r\n"),
        .name = STR("Accept-Encoding"),
        .value = str_trim(list),
        .id = HTTP_F_ACCEPT_ENCODING};
    struct http_req r = request_of(STR("/"), &f);
    struct ch_coding q;
    memset(&q, 0xee, sizeof(q));
    ch_coding_parse(&q, &r);
    CHECK(q.has_accept && q.body == CODEC_IDENTITY && !q.has_override);
    *refuses_identity = q.refuses_identity;
    return q.accepts;
}

/* The list behind `prefix`, and in upper case if asked for. */
static codec_set
accepts_changed(const char *prefix, struct str list, bool upper, bool *refuses_identity)
{
    struct buf b;
    buf_init(&b, list.len + 100);
    buf_str(&b, str_of(prefix));
    buf_str(&b, list);
    for (size_t i = 0; i < b.len; i++)
        if (upper && b.p[i] >= 'a' && b.p[i] <= 'z')
            b.p[i] = (char)(b.p[i] - 'a' + 'A');
    codec_set set = accepts(str_n(b.p, b.len), refuses_identity);
    buf_fini(&b);
    return set;
}

static void
check_accept(struct str list)
{
    bool no_plain, no_plain_now;
    codec_set set = accepts(list, &no_plain);
    CHECK((set & CODEC_BIT(CODEC_IDENTITY)) == 0 && set < CODEC_BIT(CODEC_BLOCKS));
    enum codec_id best = ch_preferred(set);
    CHECK(set == 0 ? best == CODEC_IDENTITY : (set & CODEC_BIT(best)) != 0);

    CHECK(accepts_changed("", list, true, &no_plain_now) == set && no_plain_now == no_plain);
    CHECK(accepts_changed(",, ", list, false, &no_plain_now) == set && no_plain_now == no_plain);
    static const char *const words[] = {"gzip", "deflate", "zstd", "lz4", "br"};
    for (size_t i = 0; i < COUNT_OF(words); i++) {
        codec_set bit = CODEC_BIT(codec_by_name(str_of(words[i])));
        char prefix[32];
        snprintf(prefix, sizeof(prefix), "%s;q=0,", words[i]);
        CHECK(accepts_changed(prefix, list, false, &no_plain_now) == (set & ~bit));
        CHECK(no_plain_now == no_plain);
        snprintf(prefix, sizeof(prefix), "%s,", words[i]);
        CHECK(accepts_changed(prefix, list, false, &no_plain_now) == (set | bit));
        CHECK(no_plain_now == no_plain);
    }
    (void)accepts_changed("identity,", list, false, &no_plain_now);
    CHECK(!no_plain_now);
    (void)accepts_changed("identity; q=0.0,", list, false, &no_plain_now);
    CHECK(no_plain_now);
}

static void
check_override(struct str value)
{
    int request = 77, response = 77;
    bool ok = ch_override_parse(value, &request, &response);
    const codec_set fine = CODEC_BIT(CODEC_IDENTITY) | CODEC_BIT(CODEC_ZSTD) |
                           CODEC_BIT(CODEC_LZ4) | CODEC_BIT(CODEC_GZIP);
    CHECK(request >= -1 && request < CODEC_COUNT && response >= -1 && response < CODEC_COUNT);
    CHECK(ok == (request >= 0 || response >= 0));
    CHECK(request < 0 || (fine & CODEC_BIT(request)) != 0);
    CHECK(response < 0 || (fine & CODEC_BIT(response)) != 0);
}

static void
check_probe(struct str target, const struct ch_probe *p)
{
    for (size_t i = 0; i < target.len; i++)
        if ((unsigned char)target.p[i] <= 0x20 || target.p[i] == 0x7f)
            return; /* no target of a request */
    struct http_req asked = request_of(target, NULL), probe;
    struct ch_request before, after;
    struct buf out;
    enum err err;
    buf_init(&out, target.len + 4096);
    http_req_init(&probe);
    ch_probe_request(&out, &asked, STR("h"), p);
    CHECK(buf_ok(&out));
    CHECK(http_req_parse(&probe, str_n(out.p, out.len), &err) == HTTP_OK);
    CHECK(probe.framing == HTTP_BODY_LENGTH && probe.method == HTTP_M_POST);
    CHECK(probe.head_len + probe.meta.content_length == out.len);

    struct ch_coding q;
    ch_coding_parse(&q, &probe);
    CHECK(q.body == p->request && q.names_setting == p->setting);
    CHECK(q.has_accept == (p->accept.len > 0));
    CHECK(!q.answer_blocks && !q.body_blocks && !q.odd_blocks);
    ch_request_parse(&before, &asked);
    ch_request_parse(&after, &probe);
    CHECK(str_eq(str_n(before.user, before.user_len), str_n(after.user, after.user_len)));
    CHECK(after.is_query && !after.url_query && !after.has_session);
    http_req_fini(&probe);
    buf_fini(&out);
}

/* Takes a line off the front. */
static struct str
take_line(struct str *rest)
{
    ssize_t newline = str_find(*rest, '\n');
    struct str line = str_n(rest->p, newline < 0 ? rest->len : (size_t)newline);
    size_t used = newline < 0 ? rest->len : (size_t)newline + 1;
    *rest = str_n(rest->p + used, rest->len - used);
    return line;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    unsigned choice = data[0];
    struct str rest = str_n((const char *)data + 1, size - 1);
    struct str target = take_line(&rest);
    struct str list = take_line(&rest);
    if (target.len == 0)
        return 0;
    struct ch_target_edit e = {.drop_compress = choice & 1,
        .drop_decompress = choice & 2,
        .add_compression = choice & 4,
        .query_id = choice & 8 ? STR(ID) : STR_NULL};
    check_edit(target, &e);
    check_accept(list);
    check_override(rest);
    struct ch_probe p = {.request = choice & 1 ? CODEC_ZSTD : CODEC_IDENTITY,
        .body = STR("\x28\xb5"),
        .accept = choice & 2 ? STR("zstd, gzip") : STR_NULL,
        .setting = choice & 4};
    check_probe(target, &p);
    return 0;
}
