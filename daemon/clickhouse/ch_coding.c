#include "clickhouse/ch_coding.h"

#include "clickhouse/ch_private.h"

/* Longest URI of 18.16 (26.x: HTTP_MAX_URI): a request must not be pushed over either. */
#define URI_MAX_OLD 16384

/* ---- what a request says */

/* A parameter that is a bool to the server. FLAG_ODD: the two servers read it otherwise, or one of
 * them refuses it. 18.16 looks at the first byte alone ("false" is on), 26.x at the whole. */
enum flag { FLAG_NONE, FLAG_OFF, FLAG_ON, FLAG_ODD };

static enum flag
read_flag(struct str encoded)
{
    char text[4];
    size_t len = ch_url_decode(encoded, text, sizeof(text));
    if (len > sizeof(text))
        return FLAG_ODD;
    struct str value = str_n(text, len);
    if (str_eq(value, STR("0")))
        return FLAG_OFF;
    return str_eq(value, STR("1")) || str_eq_nocase(value, STR("true")) ? FLAG_ON : FLAG_ODD;
}

/* Of two, 18.16 takes the first and 26.x the last. */
static void
take_flag(enum flag *flag, struct str encoded)
{
    enum flag f = read_flag(encoded);
    *flag = *flag == FLAG_NONE || *flag == f ? f : FLAG_ODD;
}

static void
take_params(struct ch_coding *out, struct str target)
{
    enum flag compress = FLAG_NONE, decompress = FLAG_NONE;
    struct str params = ch_target_query(target);
    struct ch_param p;
    while (ch_param_next(&params, &p)) {
        if (ch_url_eq(p.name, "compress"))
            take_flag(&compress, p.value);
        else if (ch_url_eq(p.name, "decompress"))
            take_flag(&decompress, p.value);
        else if (ch_url_eq(p.name, "enable_http_compression"))
            out->names_setting = true;
    }
    out->answer_blocks = compress == FLAG_ON;
    out->body_blocks = decompress == FLAG_ON;
    out->odd_blocks = compress == FLAG_ODD || decompress == FLAG_ODD;
}

/* The value of a q parameter: does it begin with a number that is not above zero? What is no number
 * refuses nothing. */
static bool
q_refuses(struct str s)
{
    bool negative = s.len > 0 && s.p[0] == '-';
    bool digits = false, above = false;
    for (size_t i = negative ? 1 : 0; i < s.len; i++) {
        char c = s.p[i];
        if (c != '.' && (c < '0' || c > '9'))
            break;
        digits |= c != '.';
        above |= c != '.' && c != '0';
    }
    return digits && (negative || !above);
}

/* The name in front of "name;a=b;q=0.5", and whether its first q leaves it acceptable. Quotes mean
 * nothing to 26.x. */
static bool
take_accept_item(struct str item, struct str *name)
{
    ssize_t semicolon = str_find(item, ';');
    *name = str_trim(str_n(item.p, semicolon < 0 ? item.len : (size_t)semicolon));
    while (semicolon >= 0) {
        item = str_n(item.p + semicolon + 1, item.len - (size_t)semicolon - 1);
        semicolon = str_find(item, ';');
        struct str param = str_trim(str_n(item.p, semicolon < 0 ? item.len : (size_t)semicolon));
        if (str_starts_nocase(param, STR("q=")))
            return !q_refuses(str_trim(str_n(param.p + 2, param.len - 2)));
    }
    return true;
}

/* Of several items with one name, the first counts. "*" stands for all that are not named. */
static void
parse_accept(struct ch_coding *out, struct str list)
{
    codec_set named = 0, accepted = 0;
    enum flag star = FLAG_NONE;
    struct str item, name;
    while (str_next_token(&list, &item)) {
        bool yes = take_accept_item(item, &name);
        if (str_eq(name, STR("*"))) {
            if (star == FLAG_NONE)
                star = yes ? FLAG_ON : FLAG_OFF;
            continue;
        }
        enum codec_id id = codec_by_name(name);
        if (id == CODEC_COUNT && !str_eq_nocase(name, STR("identity")))
            continue;
        codec_set bit = id == CODEC_COUNT ? CODEC_BIT(CODEC_IDENTITY) : CODEC_BIT(id);
        if (yes && (named & bit) == 0)
            accepted |= bit;
        named |= bit;
    }
    const codec_set all = CODEC_BIT(CODEC_BLOCKS) - 1;
    if (star == FLAG_ON)
        accepted |= all & ~named;
    else if (star == FLAG_NONE && (named & CODEC_BIT(CODEC_IDENTITY)) == 0)
        accepted |= CODEC_BIT(CODEC_IDENTITY);
    out->refuses_identity = (accepted & CODEC_BIT(CODEC_IDENTITY)) == 0;
    out->accepts = accepted & ~CODEC_BIT(CODEC_IDENTITY);
}

void
ch_coding_parse(struct ch_coding *out, const struct http_req *r)
{
    bool has_body_coding = false;
    *out =
        (struct ch_coding){.body = CODEC_IDENTITY, .override_request = -1, .override_response = -1};
    take_params(out, r->target);
    for (size_t i = 0; i < r->field_count; i++) {
        const struct http_field *f = &r->fields[i];
        if (f->id == HTTP_F_CONTENT_ENCODING) {
            if (has_body_coding)
                out->body = CODEC_COUNT;
            else if (f->value.len > 0)
                out->body = codec_by_name(f->value);
            has_body_coding = true;
        } else if (f->id == HTTP_F_ACCEPT_ENCODING) {
            if (!out->has_accept) /* both servers look at the first field alone */
                parse_accept(out, f->value);
            out->has_accept = true;
        } else if (f->id == HTTP_F_CHMUX_COMPRESSION) {
            out->bad_override =
                out->has_override ||
                !ch_override_parse(f->value, &out->override_request, &out->override_response);
            out->has_override = true;
        }
    }
}

/* -1: no word for a link's codec. */
static int
link_codec(struct str word)
{
    if (str_eq_nocase(word, STR("off")))
        return CODEC_IDENTITY;
    enum codec_id id = codec_by_name(word);
    return id == CODEC_ZSTD || id == CODEC_LZ4 || id == CODEC_GZIP ? (int)id : -1;
}

bool
ch_override_parse(struct str value, int *request, int *response)
{
    *request = *response = link_codec(str_trim(value));
    if (*request >= 0)
        return true;
    int codecs[2] = {-1, -1};
    struct str item;
    while (str_next_token(&value, &item)) {
        ssize_t eq = str_find(item, '=');
        struct str name = str_n(item.p, eq < 0 ? 0 : (size_t)eq);
        bool is_response = str_eq_nocase(name, STR("response"));
        int *slot = &codecs[is_response];
        if ((!is_response && !str_eq_nocase(name, STR("request"))) || *slot >= 0)
            return false;
        *slot = link_codec(str_n(name.p + name.len + 1, item.len - name.len - 1));
        if (*slot < 0)
            return false;
    }
    *request = codecs[0];
    *response = codecs[1];
    return codecs[0] >= 0 || codecs[1] >= 0;
}

enum codec_id
ch_preferred(codec_set accepts)
{
    static const enum codec_id order[] = {
        CODEC_ZSTD, CODEC_BROTLI, CODEC_LZ4, CODEC_GZIP, CODEC_DEFLATE};
    for (size_t i = 0; i < COUNT_OF(order); i++)
        if (accepts & CODEC_BIT(order[i]))
            return order[i];
    return CODEC_IDENTITY;
}

/* ---- how to say something else */

/* Paths on which other parameters change nothing but what they say. On others they could: 26.x
 * quotes an unknown path with its parameters in its 404, and knows "/query" only with a '?'. */
static bool
takes_parameters(struct str path, bool has_mark)
{
    return path.len == 0 || str_eq(path, STR("/")) || (has_mark && str_eq(path, STR("/query")));
}

static bool
drops(const struct ch_target_edit *e, struct str part)
{
    ssize_t eq = str_find(part, '=');
    if (eq >= 0)
        part.len = (size_t)eq;
    return (e->drop_compress && ch_url_eq(part, "compress")) ||
           (e->drop_decompress && ch_url_eq(part, "decompress"));
}

/* The query being written: where to (NULL: it is only measured), how long, and what goes before the
 * next part. */
struct editing {
    struct buf *out;
    size_t len;
    char before;
};

static void
put_part(struct editing *w, struct str name, struct str value)
{
    if (w->out != NULL) {
        buf_add(w->out, &w->before, 1);
        buf_str(w->out, name);
        buf_str(w->out, value);
    }
    w->len += 1 + name.len + value.len;
    w->before = '&';
}

/* Takes the next '&'-separated part, which may be empty, off *rest; all of it unless they are to be
 * told apart. *rest is STR_NULL at the end. */
static struct str
take_part(struct str *rest, bool apart)
{
    struct str part = *rest;
    ssize_t amp = apart ? str_find(part, '&') : -1;
    if (amp < 0) {
        *rest = STR_NULL;
        return part;
    }
    part.len = (size_t)amp;
    *rest = str_n(rest->p + amp + 1, rest->len - part.len - 1);
    return part;
}

/* Writes (or measures) the new query, '?' included. What we add goes in front of the other
 * parameters, and empty parts stay: 18.16 refuses some targets for those, and we must not repair
 * them. */
static size_t
edit_query(struct buf *out, struct str query, const struct ch_target_edit *e)
{
    struct editing w = {.out = out, .before = '?'};
    if (e->add_compression)
        put_part(&w, STR("enable_http_compression=1"), STR_NULL);
    if (e->query_id.len > 0)
        put_part(&w, STR("query_id="), e->query_id);
    struct str rest = query.len > 0 ? query : STR_NULL;
    while (rest.p != NULL) {
        struct str part = take_part(&rest, e->drop_compress || e->drop_decompress);
        if (!drops(e, part))
            put_part(&w, part, STR_NULL);
    }
    return w.len;
}

bool
ch_target_edit(struct buf *out, struct str target, const struct ch_target_edit *e)
{
    ssize_t hash = str_find(target, '#');
    struct str head = str_n(target.p, hash < 0 ? target.len : (size_t)hash);
    ssize_t mark = str_find(head, '?');
    struct str path = str_n(head.p, mark < 0 ? head.len : (size_t)mark);
    struct str query = str_n(head.p + path.len, head.len - path.len);
    if (mark >= 0)
        query = str_n(query.p + 1, query.len - 1);

    size_t query_len = edit_query(NULL, query, e);
    size_t len = path.len + query_len + (target.len - head.len);
    bool outgrows = len > target.len &&
                    ((target.len <= URI_MAX_OLD && len > URI_MAX_OLD) || len > HTTP_MAX_URI);
    if (!takes_parameters(path, mark >= 0) || outgrows) {
        buf_str(out, target);
        return false;
    }
    buf_str(out, path);
    if (query_len == 0 && mark >= 0) /* GET / is a page, GET /? a query */
        buf_str(out, STR("?"));
    edit_query(out, query, e);
    buf_add(out, head.p + head.len, target.len - head.len);
    return true;
}

bool
ch_add_query_id(struct buf *out, struct str target, struct str id)
{
    return ch_target_edit(out, target, &(struct ch_target_edit){.query_id = id});
}
