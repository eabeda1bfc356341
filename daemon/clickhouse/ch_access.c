#include "clickhouse/ch_access.h"

#include "clickhouse/ch_private.h"

/* ---- what the client brings ---- */

/* The server finds a parameter in whatever case, and then refuses a name it does not know so; by
 * then it has looked at the password. */
static bool
is_param(struct str encoded, struct str name)
{
    for (size_t i = 0; i < name.len; i++) {
        int c = ch_url_next(&encoded);
        if (c < 0 || ascii_lower((char)c) != name.p[i])
            return false;
    }
    return encoded.len == 0;
}

static bool
is_credential_param(struct str name)
{
    return is_param(name, STR("user")) || is_param(name, STR("password")) ||
           is_param(name, STR("quota_key"));
}

/* Is this base64 of "name:" or "name", with a name? */
static bool
is_bare_name(struct str s)
{
    while (s.len > 0 && s.p[s.len - 1] == '=')
        s.len--;
    uint32_t bits = 0;
    int bit_count = 0;
    size_t len = 0;
    bool colon = false;
    for (size_t i = 0; i < s.len; i++) {
        int digit = ch_base64_digit(s.p[i]);
        if (digit < 0)
            return false;
        bits = bits << 6 | (uint32_t)digit;
        bit_count += 6;
        if (bit_count < 8)
            continue;
        bit_count -= 8;
        if (colon)
            return false; /* the first byte of a password: no more of it is looked at */
        colon = (bits >> bit_count & 0xff) == ':';
        len += !colon;
    }
    return len > 0;
}

static enum ch_claim
claim_of_authorization(struct str value)
{
    if (str_eq(value, STR("never")))
        return CH_CLAIM_NONE;
    ssize_t space = str_find(value, ' ');
    if (space < 0 || !str_eq_nocase(str_n(value.p, (size_t)space), STR("Basic")))
        return CH_CLAIM_OWN;
    struct str rest = str_trim(str_n(value.p + space, value.len - (size_t)space));
    return is_bare_name(rest) ? CH_CLAIM_NAME : CH_CLAIM_OWN;
}

static enum ch_claim
claim_of_field(const struct http_field *f)
{
    if (f->id == HTTP_F_AUTHORIZATION)
        return claim_of_authorization(f->value);
    if (f->value.len == 0)
        return CH_CLAIM_NONE;
    if (f->id == HTTP_F_CH_USER)
        return CH_CLAIM_NAME;
    return f->id == HTTP_F_CH_KEY || f->id == HTTP_F_CH_CERT_AUTH ? CH_CLAIM_OWN : CH_CLAIM_NONE;
}

/* An empty user is refused, but for an empty password alone, which means `default`. */
static enum ch_claim
claim_of_param(const struct ch_param *p)
{
    if (is_param(p->name, STR("user")))
        return p->value.len > 0 ? CH_CLAIM_NAME : CH_CLAIM_OWN;
    if (is_param(p->name, STR("password")))
        return p->value.len > 0 ? CH_CLAIM_OWN : CH_CLAIM_NAME;
    return CH_CLAIM_NONE;
}

enum ch_claim
ch_claim_of(const struct http_req *r)
{
    enum ch_claim claim = CH_CLAIM_NONE;
    struct str query = ch_target_query(r->target);
    struct ch_param p;
    while (claim != CH_CLAIM_OWN && ch_param_next(&query, &p)) {
        enum ch_claim one = claim_of_param(&p);
        claim = one > claim ? one : claim;
    }
    for (size_t i = 0; claim != CH_CLAIM_OWN && i < r->field_count; i++) {
        if (LIKELY(r->fields[i].id == HTTP_F_OTHER))
            continue;
        enum ch_claim one = claim_of_field(&r->fields[i]);
        claim = one > claim ? one : claim;
    }
    return claim;
}

bool
ch_is_credential_field(enum http_field_id id)
{
    return id == HTTP_F_AUTHORIZATION || id == HTTP_F_CH_USER || id == HTTP_F_CH_KEY ||
           id == HTTP_F_CH_QUOTA || id == HTTP_F_CH_CERT_AUTH;
}

/* ---- settings ---- */

void
ch_setting_pair(struct buf *out, struct str name, struct str value)
{
    static const char plain[] = "-._~,:/@!()*"; /* and letters and digits: no server needs more */
    buf_str(out, name);
    buf_str(out, STR("="));
    for (size_t i = 0; i < value.len; i++) {
        char c = value.p[i];
        bool word = (ascii_lower(c) >= 'a' && ascii_lower(c) <= 'z') || (c >= '0' && c <= '9');
        if (word || (c != '\0' && strchr(plain, c) != NULL))
            buf_add(out, &c, 1);
        else
            buf_addf(out, "%%%02X", (unsigned)(unsigned char)c);
    }
}

/* ---- the edited target ---- */

/* Is this setting the encoded name? */
static bool
names_setting(struct str encoded, const struct ch_setting *s)
{
    if (LIKELY(str_find(encoded, '%') < 0 && str_find(encoded, '+') < 0))
        return str_eq(encoded, s->name);
    for (size_t i = 0; i < s->name.len; i++)
        if (ch_url_next(&encoded) != (unsigned char)s->name.p[i])
            return false;
    return encoded.len == 0;
}

static struct str
part_name(struct str part)
{
    ssize_t eq = str_find(part, '=');
    return eq < 0 ? part : str_n(part.p, (size_t)eq);
}

/* Takes the next '&'-separated part, which may be empty, off *rest; *rest is STR_NULL after the
 * last one. */
static struct str
take_part(struct str *rest)
{
    struct str part = *rest;
    ssize_t amp = str_find(part, '&');
    if (amp < 0) {
        *rest = STR_NULL;
        return part;
    }
    part.len = (size_t)amp;
    *rest = str_n(rest->p + amp + 1, rest->len - part.len - 1);
    return part;
}

static bool
drops(const struct ch_access_edit *e, struct str name)
{
    if (e->drop_credentials && is_credential_param(name))
        return true;
    for (size_t i = 0; i < e->setting_count; i++)
        if (e->settings[i].forced && names_setting(name, &e->settings[i]))
            return true;
    return false;
}

static bool
client_set(struct str query, const struct ch_setting *s)
{
    struct ch_param p;
    while (ch_param_next(&query, &p))
        if (names_setting(p.name, s))
            return true;
    return false;
}

bool
ch_access_target(struct buf *out, struct str target, const struct ch_access_edit *e)
{
    size_t begin = out->len;
    struct str query = ch_target_query(target);
    bool has_mark = query.p != NULL;
    size_t end = has_mark ? (size_t)(query.p + query.len - target.p) : 0; /* the fragment's place */
    if (!has_mark) {
        ssize_t hash = str_find(target, '#');
        end = hash < 0 ? target.len : (size_t)hash;
    }
    buf_add(out, target.p, has_mark ? (size_t)(query.p - 1 - target.p) : end);
    char before = '?';
    for (size_t i = 0; i < e->setting_count; i++) {
        const struct ch_setting *s = &e->settings[i];
        if (!s->forced && client_set(query, s))
            continue;
        buf_add(out, &before, 1);
        buf_str(out, s->pair);
        before = '&';
    }
    for (struct str rest = query.len > 0 ? query : STR_NULL; rest.p != NULL;) {
        struct str part = take_part(&rest);
        if (drops(e, part_name(part)))
            continue;
        buf_add(out, &before, 1);
        buf_str(out, part);
        before = '&';
    }
    if (has_mark && before == '?') /* GET / is a page, GET /? a query */
        buf_str(out, STR("?"));
    buf_add(out, target.p + end, target.len - end);
    return out->len - begin <= HTTP_MAX_URI;
}

void
ch_base64(struct buf *out, struct str s)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < s.len; i += 3) {
        uint32_t bits = 0;
        size_t n = size_min(s.len - i, 3);
        for (size_t k = 0; k < 3; k++)
            bits = bits << 8 | (k < n ? (unsigned char)s.p[i + k] : 0u);
        char four[4];
        for (size_t k = 0; k < 4; k++)
            four[k] = k <= n ? digits[bits >> (18 - 6 * k) & 63] : '=';
        buf_add(out, four, sizeof(four));
    }
}
